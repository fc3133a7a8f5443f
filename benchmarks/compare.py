"""Compare two or more runs or files of features pair by pair: which is better, by how much, and whether chance explains it.

In: folders of finished runs, or .npz files of features as `tcn evaluate` takes them, all of the same queries and photos.
Out: a table with marks of significance, a table of the pairs, and on request one of each class; as text, JSON or LaTeX. The
statistics are the report's (reports/stats): by class, with Holm's correction over all pairs and metrics of the call.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reports.read.files import ReportError, read_arrays
from reports.read.runs import check_digest, read_finished, setting
from reports.stats.pairwise import SIGNIFICANT, WHY, MetricGap, Side, pairs
from reports.tables.pairwise import LETTERS, classes_table, pairs_table, sides_table
from tcn.cli.ending import ending
from tcn.cli.evaluate import as_options
from tcn.cli.feature_files import check_groups, distance, mixed_groups, noted
from tcn.cli.feature_files import read_arrays as read_feature_file
from tcn.config import InputError
from tcn.data.words import normal_form
from tcn.files.text import some
from tcn.scoring import inputs
from tcn.scoring.protocols import ALL, PROTOCOL_VERSION
from tcn.scoring.scores import DUPLICATES, MISSING_CLASSES, score

METRIC = re.compile(r"(mAP|Prec)@(all|R|[1-9][0-9]{0,8})")
TIES = "expected"
"""How files of features are scored, and runs unless their settings say otherwise."""
OF_FILES = ("duplicates", "missing_classes", "spellings")
"""Options that say how files of features are scored."""
EPILOG = """\
what is compared
  [NAME=]PATH, each either
    the folder of a finished run, OUTPUT/runs/RUN, whose per-query values are read as they were recorded, or
    an .npz file of features (`python -m tcn evaluate --help` says what it holds), which is scored now.
  Paths of one NAME are seeds of one side (a run's name is its variant); pairs then take the seeds that both have.
  All sides need the same queries and the same photos in each class. Queries are matched by name where all files hold query_paths,
  else by their order.

examples
  tcn compare results/laptop/runs/*__tcn__* results/laptop/runs/*__hws__*
  tcn compare mine=features.npz frozen=dino.npz --metrics mAP@200 Prec@200 --per-class
  tcn compare mine=features.npz results/paper/runs/sketchy-2__tcn__seed0__* --latex

exit status: 0 compared; 2 bad files or usage; 130 interrupted.
"""


@dataclass(frozen=True)
class Values:
    """The values per query of one file or run, with the queries' classes and names and the numbers of photos."""

    source: str
    name: str
    seed: int
    classes: np.ndarray
    """str [Nq]"""
    queries: np.ndarray | None
    """The name of each query, str [Nq]; None if the file has no names."""
    values: dict[str, np.ndarray]
    """Metric -> float64 [Nq]."""
    left_out: dict[str, frozenset[str]]
    photos: Mapping[str, int] | None
    """Normal form of a class's name -> number of its photos; None if unknown."""
    ties: str = TIES
    """How photos at equal distance were ordered."""


def read(text: str, options: argparse.Namespace) -> Values:
    """The values of one argument `[NAME=]PATH`. InputError naming the file and what is wrong with it."""
    name, is_named, rest = text.partition("=")
    path = Path(rest if is_named and not Path(text).exists() else text).expanduser()
    name = name if is_named and not Path(text).exists() else ""
    if path.name == "per_query.npz":
        path = path.parent
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    return _of_run(path, name, options) if path.is_dir() else _of_features(path, name, options)


def _of_run(folder: Path, name: str, options: argparse.Namespace) -> Values:
    if given := [f"--{key.replace('_', '-')}" for key in OF_FILES if getattr(options, key)]:
        raise InputError(f"{', '.join(given)}: {folder} is a run, whose values are read as they were recorded; leave out what "
                         "says how files are scored, or give the run's features.npz in its place")
    kind = options.features or "real"
    try:
        run = read_finished(folder)
        if (version := run.provenance.protocol_version) != PROTOCOL_VERSION:
            raise ReportError(f"scored under protocol version {version}, this is {PROTOCOL_VERSION}: numbers of two versions "
                              "can't be compared. Its features.npz can be, which is scored anew")
        keys = {metric: f"{kind}/{options.protocol}/{metric}" for metric in options.metrics}
        every = f"{kind}/{options.protocol}/mAP@all"
        check_digest(folder, "per_query.npz")
        arrays = read_arrays(folder / "per_query.npz")
        if absent := [key for key in keys.values() if key not in arrays]:
            raise ReportError(f"per_query.npz holds no {', '.join(absent)}; it holds "
                              f"{', '.join(key for key in arrays if '/' in key)}. Its features.npz can be compared in its place")
        classes = arrays["class"].astype(str)
        photos = read_arrays(folder / "features.npz", ("gallery_labels",)).get("gallery_labels")
        if any(arrays[key].shape != classes.shape for key in keys.values()) or arrays["query"].shape != classes.shape:
            raise ReportError("per_query.npz: its arrays are not of one length")
    except (ReportError, KeyError) as error:
        raise InputError(f"{folder}: {error}") from None
    skipped: frozenset[str] = frozenset()
    if setting(run.config, "evaluation.missing_classes") == "as-released" and every in arrays:
        # AP over all ranks is 0 only for a class without photos.
        skipped = frozenset(str(c) for c in np.unique(classes) if not arrays[every][classes == c].any())
    return Values(folder.name, name or run.variant, run.seed, classes, arrays["query"].astype(str),
                  {metric: np.asarray(arrays[key], np.float64) for metric, key in keys.items()},
                  {metric: skipped if metric.startswith("mAP") else frozenset() for metric in options.metrics},
                  None if photos is None else _counts(photos), str(setting(run.config, "evaluation.ties", TIES)))


def _of_features(path: Path, name: str, options: argparse.Namespace) -> Values:
    arrays, others = read_feature_file(path)
    missing = options.missing_classes or "error"
    ks = [int(k) for k in dict.fromkeys(metric.partition("@")[2] for metric in options.metrics) if k.isdecimal()]
    try:
        if "gallery_group" in arrays:
            check_groups(arrays)
        metric = distance(arrays, None)
        if options.features and (options.features == "binary") != (metric == "hamming"):
            raise InputError(f"--features {options.features} chooses among a run's features, and this file holds "
                             f"{'codes' if metric == 'hamming' else 'real-valued ones, no codes'}; leave it out")
        found = score(arrays["query"], arrays["gallery"], arrays["query_labels"], arrays["gallery_labels"], [options.protocol],
                      metric, ks or (100,), missing_classes=missing, spellings=options.spellings or "error",
                      ties=TIES, gallery_group=arrays.get("gallery_group"), duplicates=options.duplicates or "as-published")
        if absent := [metric for metric in options.metrics if metric not in found.metrics(options.protocol)]:
            raise InputError(f"{options.protocol} has no {', '.join(absent)}; it has "
                             f"{', '.join(found.metrics(options.protocol))}")
    except InputError as error:
        raise InputError(f"{path}: {as_options(str(error))}") from None
    noted(path, arrays, [each for each in others if each != "query_paths"])
    if options.duplicates == "distinct":
        mixed_groups(path, arrays)
    classes = found.classes.astype(str)
    skipped = frozenset(str(c) for at, c in enumerate(classes) if not found.relevant[found.query_class == at].any())
    out = skipped if missing == "as-released" else frozenset()
    return Values(str(path), name or (path.parent.name if path.name == "features.npz" else path.stem), 0,
                  classes[found.query_class], _query_names(path, found.queries),
                  {metric: found.per_query(options.protocol, metric) for metric in options.metrics},
                  {metric: out if metric.startswith("mAP") else frozenset() for metric in options.metrics},
                  _counts(inputs.checked_labels("gallery_labels", arrays["gallery_labels"], len(arrays["gallery"]), "gallery")))


def _query_names(path: Path, queries: int) -> np.ndarray | None:
    """The file's query_paths, where it has such an array of one name for each query."""
    try:
        with np.load(path, allow_pickle=False) as store:
            names = store["query_paths"] if "query_paths" in store.files else None
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    return None if names is None or names.dtype.kind != "U" or names.shape != (queries,) else names


def _counts(labels: np.ndarray) -> Mapping[str, int]:
    names, numbers = np.unique(labels, return_counts=True)
    found: Counter[str] = Counter()
    for name, number in zip(names.tolist(), numbers.tolist()):
        found[normal_form(str(name))] += number
    return found


def sides_of(found: Sequence[Values]) -> list[Side]:
    """The sides of a comparison, with the queries in the order of the first. InputError if the files do not have the same
    queries and photos, or if one side has a seed twice."""
    first = found[0]
    by_name = all(v.queries is not None and len(set(v.queries.tolist())) == len(v.queries) for v in found)
    groups: dict[str, dict[int, tuple[Values, np.ndarray]]] = {}
    for v in found:
        order = _order(first, v) if by_name else np.arange(len(v.classes))
        own, wanted = ([normal_form(name) for name in names.tolist()] for names in (v.classes[order], first.classes))
        if own != wanted:
            raise InputError(f"{v.source} and {first.source} are not of the same queries: "
                             + (f"{len(own)} and {len(wanted)} of them" if len(own) != len(wanted) else
                                f"query {next(i for i, (a, b) in enumerate(zip(own, wanted)) if a != b)} is of another class")
                             + "; a paired comparison needs the same queries in the same order, or their names in query_paths")
        if v.ties != first.ties:
            raise InputError(f"{v.source} was scored with evaluation.ties={v.ties}, {first.source} with {first.ties}: the gap "
                             "would hold what the rule for photos at equal distance is worth, too. Give the features.npz of the "
                             "runs in their place, which are scored alike")
        if v.photos is not None and first.photos is not None and v.photos != first.photos:
            odd = sorted(name for name in {*v.photos, *first.photos} if v.photos.get(name) != first.photos.get(name))
            raise InputError(f"{v.source} and {first.source} do not have the same gallery: other numbers of photos of "
                             f"{some(odd, 5)}")
        seeds = groups.setdefault(v.name, {})
        if v.seed in seeds:
            raise InputError(f"{v.source} and {seeds[v.seed][0].source} are both '{v.name}', seed {v.seed}; give one of them "
                             f"another name: NAME={v.source}")
        seeds[v.seed] = v, order
    return [Side(name, first.classes, {metric: {seed: v.values[metric][order] for seed, (v, order) in seeds.items()}
                                       for metric in first.values},
                 {metric: frozenset().union(*(_as_first(first, v.left_out[metric]) for v, _ in seeds.values()))
                  for metric in first.values}) for name, seeds in groups.items()]


def _as_first(first: Values, names: frozenset[str]) -> frozenset[str]:
    """Names of classes in the spelling of the first file."""
    forms = {normal_form(name) for name in names}
    return frozenset(name for name in np.unique(first.classes).tolist() if normal_form(name) in forms)


def _order(first: Values, other: Values) -> np.ndarray:
    """Rows of `other` in the order of the first one's queries, by name."""
    assert first.queries is not None and other.queries is not None
    rows = {name: row for row, name in enumerate(other.queries.tolist())}
    wanted = first.queries.tolist()
    absent, more = [name for name in wanted if name not in rows], sorted(set(rows) - set(wanted))
    if absent or more:
        raise InputError(f"{other.source} and {first.source} are not of the same queries: it lacks {len(absent)}"
                         f"{f' ({some(absent, 3)})' if absent else ''} and has {len(more)} "
                         f"more{f' ({some(more, 3)})' if more else ''}")
    return np.array([rows[name] for name in wanted], dtype=np.int64)


def as_json(sides: Sequence[Side], found: Sequence[MetricGap], metrics: Sequence[str], protocol: str) -> str:
    """The whole comparison as one JSON object; NaN becomes null."""
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    listed = [{**asdict(pair), "significant": pair.significant} for pair in found]
    return json.dumps(plain({
        "protocol": protocol, "protocol_version": PROTOCOL_VERSION, "unit": "class", "why": WHY, "level": SIGNIFICANT,
        "sides": [{"name": side.name, "seeds": side.seeds(metrics[0]),
                   "values": {metric: {"by_class": side.by_class(metric), "by_query": side.by_query(metric)}
                              for metric in metrics}}
                  for side in sides],
        "pairs": listed}), indent=2, ensure_ascii=False, allow_nan=False)


def _metric(text: str) -> str:
    if not METRIC.fullmatch(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no metric; give mAP@all, mAP@200, Prec@100, ...")
    return text


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tcn compare", description=__doc__, epilog=EPILOG, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("sides", nargs="+", metavar="[NAME=]PATH", help="folders of runs, or files of features")
    p.add_argument("--metrics", nargs="+", type=_metric, default=["mAP@all", "Prec@100"], metavar="METRIC",
                   help="default: mAP@all Prec@100")
    p.add_argument("--protocol", choices=ALL, default="released", metavar="NAME", help=f"one of {', '.join(ALL)} (default: "
                                                                                       "released)")
    p.add_argument("--features", choices=("real", "binary"),
                   help="which of a run's features (default: real); files beside runs have to hold such")
    p.add_argument("--per-class", action="store_true", help="one more table: each class of each pair")
    of_files = p.add_argument_group("for files of features alone: a run's values are read as they were recorded")
    of_files.add_argument("--duplicates", choices=DUPLICATES, help="photos listed twice (default: as-published)")
    of_files.add_argument("--missing-classes", choices=MISSING_CLASSES, help="classes without photos (default: error)")
    of_files.add_argument("--spellings", choices=inputs.SPELLINGS, help="class names spelt in several ways (default: error)")
    form = p.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object and nothing else on standard output")
    form.add_argument("--latex", action="store_true", help="the tables in LaTeX")
    return p


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0 if the comparison was made, 2 for bad files or usage."""
    options = _parser().parse_args(arguments)
    sides = sides_of([read(text, options) for text in options.sides])
    if not 2 <= len(sides) <= len(LETTERS):
        raise InputError(f"{len(sides)} side(s) to compare; give 2 to {len(LETTERS)} (paths of one name are one side)")
    try:
        found = pairs(sides, options.metrics)
    except ValueError as error:
        raise InputError(f"{error}; nothing can be paired") from None
    tables = [sides_table(sides, found, options.metrics, f"{options.protocol}, protocol version {PROTOCOL_VERSION}"),
              pairs_table(found)]
    tables += [classes_table(found)] * options.per_class
    text = (as_json(sides, found, options.metrics, options.protocol) + "\n" if options.json else
            "\n".join(table.to_latex() if options.latex else table.to_text() for table in tables))
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, may close it early
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
