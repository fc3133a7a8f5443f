"""`python -m tcn`: this package's rules for features made elsewhere, and its check of data sets.

In come a command and an .npz file or a data root; out go a table on standard output (or, with --json, one JSON object
and nothing else) and notes, warnings, progress and errors on standard error. The numbers are those of `tcn.metrics`
(paper, section 4) and `tcn.doctor`.
"""
from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
import torch

from tcn import codes, datasets, doctor, metrics
from tcn.config import InputError

REQUIRED = ("query", "gallery", "query_labels", "gallery_labels")
OPTIONAL = ("gallery_group", "train")
TIE_DRAWS = 32

#: How each order of equal distances is described under the table.
TIES = {
    "expected": "photos at equal distance in random order, the mean over all orders",
    "best": "the largest value that any order of photos at equal distance gives (a bound, not an estimate)",
    "worst": "the smallest value that any order of photos at equal distance gives (a bound, not an estimate)",
    "gallery-order": "photos at equal distance as they stand in the gallery, so the file's order counts",
    "scikit-learn": "in AP, photos at equal distance share the precision at the last of them",
    "unstable-sort": "photos at equal distance as NumPy's default sort leaves them: another machine may give another number",
    "as-released": "as each protocol's own code has them: NumPy's default sort; in AP of cvpr19 and sem-pcyc, as scikit-learn",
}
_OWN_TIES = {"order": "NumPy's sort", "shared": "scikit-learn"}
DISTANCES = {
    "euclidean": "euclidean, of features scaled to unit length",
    "cosine": "cosine (the same order as euclidean at unit length)",
    "hamming": "Hamming, of codes",
}

ABOUT = """\
Zero-shot sketch-based image retrieval, scored by named rules.

"mAP@all" and "Prec@100" mean different things in different papers. `evaluate` applies each rule under its
own name to your own data, without training anything; `data check` examines the paper's data sets on your disk.
For training and the report there is `python benchmarks/run_all.py`.
"""
ABOUT_EPILOG = """\
commands
  evaluate FEATURES.npz   scores retrieval features or binary codes by all protocols. What the file holds and
                          what each protocol computes: python -m tcn evaluate --help
  data check              compares the data sets on disk with what was published: python -m tcn data check --help

exit status
  0 done; 1 scored, but something could not be written, or memory ran out, or a data set has problems;
  2 bad input or usage; 130 interrupted.
"""

EVALUATE = """\
Scores the retrieval of gallery photos by query sketches: every protocol from one ranking, each number with
its chance level and its ceiling.
"""
EVALUATE_EPILOG = """\
the file: an .npz as np.savez writes it, with the arrays
  query           [Nq, D]  features of the sketches: real numbers, or codes as bool or uint8 of 0 and 1
  gallery         [Ng, D]  the same for the photos
  query_labels    [Nq]     classes: integers (any) or strings, such as np.array(names, dtype=str)
  gallery_labels  [Ng]     classes of the photos
  gallery_group   [Ng]     optional, integers or strings: equal values mark one photo listed several times
  train           [Nt, D]  optional, real numbers: features of seen classes, on which --itq is fitted
Other arrays are left aside with a note. Object arrays are refused: reading them can run code.

protocols
{protocols}
  raw: precisions at the hits; voc: the largest precision at the hit's rank or later. micro: mean over
  queries; macro: mean over classes of the class means. R: photos of the query's class; mAP@all divides by R.
  At a cut-off K only the first K photos count; a query without any hit there scores 0.
  ties: how the protocol's own code orders equal distances (--ties as-released). Prec: NumPy's default sort in all.

duplicates
  With gallery_group every number is given twice: `as-published`, all entries counted, and `distinct`, only
  the first entry of each group (of each class in it). --json then gives as-published; with --duplicates
  distinct, the other.

output
  A table; with --json one object and nothing else on standard output:
    {{"PROTOCOL": {{"mAP@all": .., "mAP@100": .., "Prec@100": .., ...}}, ...}}
  The table also has Prec@5 and Prec@R for `released` and `standard`. --csv writes one row for each number,
  with its standard error, chance level and ceiling.

examples (the file first: options that take several values would swallow it)
  python -m tcn evaluate features.npz
  python -m tcn evaluate features.npz --protocols released standard --ks 50 --json
  python -m tcn evaluate features.npz --itq 64 --per-class mAP@all --csv scores.csv
  python -m tcn evaluate codes.npz --ties worst

exit status
  0 scored; 1 scored, but --csv could not be written, or memory ran out; 2 bad file or usage; 130 interrupted.
"""

CHECK = """\
Is what lies on disk what was published? Counts against the published lists, duplicates, unreadable images, pictures
shared by training and test, unseen classes inside ImageNet. Reads the data root, downloads nothing, and writes only a
manifest per split into the cache, which later runs cite.
"""
CHECK_EPILOG = """\
where data sets and list files may lie, and how to get them: docs/data.md

exit status
  0 all that was asked for is whole; 1 problems, or a data set named with --datasets (or every one) is missing;
  2 bad usage; 130 interrupted.
"""


# -------------------------------------------------------------------------------------------- command line
def parser() -> argparse.ArgumentParser:
    """The command line: one subcommand for each thing to do, each with its own help."""
    top = argparse.ArgumentParser(prog="python -m tcn", description=ABOUT, epilog=ABOUT_EPILOG,
                                  allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(title="command", metavar="COMMAND", dest="command")
    _add_evaluate(commands)
    _add_data(commands)
    return top


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="examine the data sets on disk", allow_abbrev=False,
                               description="Examine the data sets on disk.")
    p = data.add_subparsers(title="command", metavar="check", dest="task", required=True).add_parser(
        "check", help="compare them with what was published", description=CHECK, epilog=CHECK_EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.set_defaults(run=_check_data)
    p.add_argument("--data-root", type=Path, metavar="DIR",
                   help=f"folder that holds the data sets (default: ${datasets.DATA_ROOT_VARIABLE})")
    p.add_argument("--datasets", nargs="+", choices=tuple(datasets.SPECS), metavar="NAME",
                   help=f"some of {', '.join(datasets.SPECS)} (default: all; emoji only where it is built)")
    p.add_argument("--cache", type=Path, metavar="DIR",
                   help="where emoji is built and manifests go (default: $TCN_CACHE, else .cache here)")
    p.add_argument("--lists", default="auto", metavar="DIR|none",
                   help="list files: a directory such as zeroshot1, a folder or checkout that holds such, or none "
                        "(default: those found in the data sets' folders)")
    p.add_argument("--fast", action="store_true", help="names and sizes only: no file is read")
    p.add_argument("--json", action="store_true", help="only one JSON object on standard output, no text")


def _add_evaluate(commands: Any) -> None:
    rules = "\n".join(
        f"  {rule.name:<9} {rule.average_precision} AP, AP@K over {rule.divisor}, {rule.average}; "
        f"Prec@K: {rule.precision}; ties in AP: {_OWN_TIES[rule.ap_ties]}\n"
        + textwrap.indent(textwrap.fill(rule.source, 96), " " * 12)
        for rule in metrics.PROTOCOLS.values())
    p = commands.add_parser("evaluate", help="score your own features or codes", description=EVALUATE,
                            epilog=EVALUATE_EPILOG.format(protocols=rules), allow_abbrev=False,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    p.set_defaults(run=_evaluate)
    p.add_argument("features", type=Path, metavar="FEATURES.npz", help="features and labels; see below")
    p.add_argument("--protocols", nargs="+", choices=metrics.ALL, default=metrics.ALL, metavar="NAME",
                   help=f"some of {', '.join(metrics.ALL)} (default: all)")
    p.add_argument("--ks", nargs="+", type=_whole, default=(100, 200), metavar="K",
                   help="cut-offs (default: 100 200)")
    p.add_argument("--metric", choices=metrics.METRICS,
                   help="distance (default: euclidean on features scaled to unit length; hamming for codes)")
    p.add_argument("--itq", nargs="?", type=_whole, const=0, metavar="BITS",
                   help="turn real-valued features (scaled to unit length) into codes by iterative "
                        "quantisation, and score those; BITS: principal axes to keep (default: all "
                        "dimensions as they are)")
    p.add_argument("--itq-fit", choices=codes.FITS,
                   help="what ITQ is fitted on: `seen`, the array `train` (default), or `as-released`, the "
                        "queries themselves, as TCN's released code does: it uses test data")
    p.add_argument("--itq-rule", choices=codes.RULES,
                   help="update of ITQ's rotation: `textbook` (default), or that of TCN's released code, "
                        "which is not the minimiser")
    p.add_argument("--missing-classes", choices=metrics.MISSING_CLASSES, default="error",
                   help="a class with queries but no photos: an error (default), a score of zero, or "
                        "as-released: left out of mAP and 0 in Prec")
    p.add_argument("--spellings", choices=metrics.SPELLINGS, default="error",
                   help="class names that differ only in case, blanks, hyphens, underscores, leading zeros or Unicode form "
                        "(palm tree, palm_tree): an error (default), one class, or different classes")
    p.add_argument("--ties", choices=metrics.TIES, default="expected",
                   help="photos at equal distance: the mean over all orders (default), the bounds, a fixed "
                        "order, or as-released: that of each protocol's own code")
    p.add_argument("--tie-draws", type=_whole, metavar="N",
                   help=f"random orders where that mean has no closed form (default: {TIE_DRAWS})")
    p.add_argument("--duplicates", choices=metrics.DUPLICATES,
                   help="only one of the two (default: both in the table, as-published in --json)")
    p.add_argument("--per-class", nargs="?", const="mAP@all", metavar="METRIC",
                   help="one more table: a metric's mean for each class (default: mAP@all)")
    p.add_argument("--json", action="store_true", help="only one JSON object on standard output, no table")
    p.add_argument("--csv", type=Path, metavar="FILE",
                   help="write the numbers to FILE, one a row; FILE is replaced if it exists")
    p.add_argument("--seed", type=_seed, default=0, metavar="N",
                   help="of the random tie orders and of ITQ's first rotation (default: 0)")
    p.add_argument("--device", type=_device, default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    p.add_argument("--block", type=_whole, metavar="N",
                   help="queries handled at once (default: by memory); changes no number beyond rounding")


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 to 999999999")
    return int(text)


def _seed(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no seed; give a whole number from 0 to 999999999")
    return int(text)


def _device(text: str) -> str:
    try:
        if torch.device(text).type not in ("cpu", "cuda", "mps", "xpu"):
            raise RuntimeError("no device to compute on")
        torch.zeros(1, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"'{text}' cannot be used here: {reason}") from None
    return text


# ---------------------------------------------------------------------------------------- reading the file
def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The known arrays of an .npz file, and the names of its other arrays, which are not read.

    Labels and groups stored as bytes come back as strings. Raises `InputError` naming file and array.
    """
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if empty:
        raise InputError(f"{path}: the file is empty")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not an .npz file; write one with np.savez(path, query=..., gallery=..., "
                         "query_labels=..., gallery_labels=...)")
    arrays: dict[str, np.ndarray] = {}
    try:
        with np.load(path, allow_pickle=False) as store:
            names = sorted(store.files)
            for name in (*REQUIRED, *OPTIONAL):
                if name in names:
                    arrays[name] = _read_array(path, store, name)
    except InputError:
        raise
    except Exception as error:  # whatever the decoder of a zip file trips over, the file is at fault
        raise InputError(f"{path}: not a readable .npz file: {error}") from error
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise InputError(f"{path}: no array {', '.join(missing)}; it holds "
                         f"{', '.join(names) or 'no arrays'}, and needs {', '.join(REQUIRED)}")
    return arrays, [name for name in names if name not in arrays]


def _read_array(path: Path, store: Any, name: str) -> np.ndarray:
    try:
        array = store[name]
    except Exception as error:  # as above: headers, checksums, compression, sizes beyond memory
        if "Object arrays" in str(error):
            raise InputError(f"{path}: {name} is an object array, which can run code when read; store "
                             "numbers as one array, names as np.array(names, dtype=str)") from error
        raise InputError(f"{path}: {name} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: {name} is not an array; write the file with np.savez")
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: {name} holds bytes that are not UTF-8; store strings") from error
    return array


def _check_groups(arrays: Mapping[str, np.ndarray]) -> None:
    """The metrics look at groups only where they use them; a wrong array is an error in any case."""
    groups, photos = arrays["gallery_group"], arrays["gallery"]
    if groups.dtype.kind not in "iuU":
        raise InputError(f"gallery_group is an array of {groups.dtype}; groups are integers or strings")
    if groups.shape != photos.shape[:1]:
        raise InputError(f"gallery_group has shape {groups.shape}; it must be one-dimensional, with an entry "
                         f"for each row of gallery (shape {photos.shape})")


def _groups_of_several_classes(arrays: Mapping[str, np.ndarray]) -> int:
    if arrays.get("gallery_group", np.empty(0)).shape != arrays["gallery_labels"].shape:
        return 0  # an error that the metrics name
    group = np.unique(arrays["gallery_group"], return_inverse=True)[1]
    label = np.unique(arrays["gallery_labels"], return_inverse=True)[1]
    pairs = np.unique(np.stack([group, label]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


# --------------------------------------------------------------------------------------- features to codes
def _is_code(array: np.ndarray) -> bool:
    return array.dtype in (np.bool_, np.uint8)


def _distance(arrays: Mapping[str, np.ndarray], wanted: str | None) -> str:
    """The metric asked for, or the one that fits the arrays."""
    query, gallery = arrays["query"], arrays["gallery"]
    if _is_code(query) != _is_code(gallery) and {query.dtype.kind, gallery.dtype.kind} <= set("fiub"):
        raise InputError(f"query is {query.dtype} and gallery {gallery.dtype}: one holds codes, the other "
                         "real numbers; store both as one kind")
    for name in ("query", "gallery"):
        array = arrays[name]
        if array.dtype.kind in "iuf" and not _is_code(array) and array.size and wanted != "hamming":
            low, high = array.min(), array.max()
            if (low, high) in ((0, 1), (-1, 1)) and ((array == low) | (array == high)).all():
                _tell(f"note: {name} is {array.dtype} of {low:g} and {high:g}, taken as real numbers; codes are bool or uint8: "
                      f"store {name} > 0")
    return wanted or ("hamming" if _is_code(query) else "euclidean")


def _unit(name: str, array: np.ndarray) -> np.ndarray:
    """Rows of real features [N, D] at length 1, float64: as in the real-valued ranking."""
    if _is_code(array) or array.dtype.kind not in "fiu":
        raise InputError(f"{name} is an array of {array.dtype}; --itq makes codes of real-valued features")
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name} must be [rows, dimensions] and not empty; its shape is {array.shape}")
    rows = array.astype(np.float64)
    finite = np.isfinite(rows).all(1)
    if not finite.all():
        raise InputError(f"{name} holds NaN or infinity, first in row {int(np.argmin(finite))}")
    # by the largest component first, so that no square over- or underflows
    largest = np.abs(rows).max(1, keepdims=True)
    if not largest.all():
        raise InputError(f"{name} row {int(np.argmin(largest))} is all zeros: no direction; leave it out")
    rows /= largest
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _quantised(
    arrays: Mapping[str, np.ndarray], args: argparse.Namespace
) -> tuple[dict[str, np.ndarray], str]:
    """The arrays with codes for features, and how the codes were made."""
    rule, fit = args.itq_rule or "textbook", args.itq_fit or "seen"
    if fit == "seen" and "train" not in arrays:
        raise InputError("no array train: --itq is fitted on features of seen classes, train [Nt, D]; add "
                         "them, or fit on the queries with --itq-fit as-released, which uses test data")
    names = ("query", "gallery", "train") if fit == "seen" else ("query", "gallery")
    unit = {name: _unit(name, arrays[name]) for name in names}
    dimensions = unit["query"].shape[1]
    for name in names[1:]:
        if unit[name].shape[1] != dimensions:
            raise InputError(f"query has {dimensions} dimensions and {name} {unit[name].shape[1]}; "
                             "they must agree")
    query, gallery = codes.binary_codes(unit.get("train"), unit["query"], unit["gallery"], rule=rule, fit=fit,
                                        bits=args.itq or None, seed=args.seed)
    if fit == "as-released":
        _tell("warning: ITQ is fitted on the queries themselves (--itq-fit as-released). This is\n"
              "TRANSDUCTIVE: test data shape the codes, and queries and gallery are each centred on their\n"
              "own mean. Compare these numbers only with others made so.")
    on = f"the {len(arrays['train'])} rows of train" if fit == "seen" else "the queries (TRANSDUCTIVE)"
    made = f"{query.shape[1]} bits by ITQ, {rule} rule, fitted on {on}"
    return {**arrays, "query": query, "gallery": gallery}, made


# ------------------------------------------------------------------------------------------------ evaluate
@dataclass(frozen=True)
class _Result:
    """What one file was found to be worth."""

    scores: list[metrics.Scores]  #: by rule for duplicates, that of --json first
    rows: list[list[dict[str, Any]]]  #: for each of them the tidy rows: protocol, metric, value, chance, ...
    metric: str  #: the distance
    made: str  #: how codes were made of real features; empty where they were not


def _evaluate(args: argparse.Namespace) -> int:
    names = _metric_names(args.protocols, args.ks)
    _check_options(args, names)
    arrays, ignored = read_arrays(args.features)
    if ignored:
        _tell(f"note: {args.features}: not used: {', '.join(ignored)}")
    several: dict[str, list[str]] = {}
    try:
        labels = arrays["query_labels"], arrays["gallery_labels"]
        if args.spellings == "merge" and all(names.ndim == 1 for names in labels):
            several = metrics.spellings_of(*labels)
            arrays |= {name: metrics.merged(arrays[name], several) for name in ("query_labels", "gallery_labels")}
        result = _scored(arrays, args)
    except InputError as error:
        raise InputError(f"{args.features}: {_as_options(str(error))}") from error
    # Of what the file holds: codes that --itq makes of it fall together without being one photo.
    copies = 0 if "gallery_group" in arrays else metrics.identical_rows(arrays["gallery"])
    if args.json and copies:
        _tell(f"note: {args.features}: {_identical(copies)}")
    if args.json:
        print(json.dumps(result.scores[0].summary(), indent=2, allow_nan=False))
    else:
        print("\n".join(_report(args, arrays, result, names, several, copies)))
    sys.stdout.flush()
    if args.csv:
        try:
            _write_csv(args, result, names)
        except OSError as error:
            _tell(f"error: {args.csv}: cannot be written: {error.strerror or error}")
            return 1
    return 0


def _metric_names(protocols: Sequence[str], ks: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """What each protocol has a value for, from the score of a single point: known before a long run."""
    point, label = np.ones((1, 1)), np.zeros(1, dtype=int)
    scores = metrics.score(point, point, label, label, protocols, ks=ks)
    return {name: scores.metrics(name) for name in scores.protocols}


def _check_options(args: argparse.Namespace, names: Mapping[str, Sequence[str]]) -> None:
    if args.itq is None and (args.itq_fit or args.itq_rule):
        raise InputError("--itq-fit and --itq-rule say how codes are made; they need --itq")
    if args.itq is not None and args.metric not in (None, "hamming"):
        raise InputError(f"--itq makes codes, which are compared by hamming, not by --metric {args.metric}")
    if args.csv and args.csv.resolve() == args.features.resolve():
        raise InputError(f"--csv {args.csv} would replace the features")
    if args.per_class and not any(args.per_class in found for found in names.values()):
        known = dict.fromkeys(name for found in names.values() for name in found)
        raise InputError(f"--per-class {args.per_class}: no such metric here; there are {', '.join(known)}")
    if args.json and args.per_class and not args.csv:
        raise InputError("with --json the numbers by class go to --csv only; add --csv FILE, or leave out --per-class or --json")
    if args.tie_draws is not None and args.ties != "expected":
        raise InputError(f"--tie-draws are orders of which --ties expected takes the mean; --ties {args.ties} draws none")
    args.tie_draws = args.tie_draws or TIE_DRAWS


def _scored(arrays: dict[str, np.ndarray], args: argparse.Namespace) -> _Result:
    if "gallery_group" in arrays:
        _check_groups(arrays)
    if args.itq is None:
        metric, made = _distance(arrays, args.metric), ""
    else:
        arrays, made = _quantised(arrays, args)
        metric = "hamming"
    rows_wanted = not args.json or args.csv is not None
    rules: Sequence[str] = (args.duplicates or "as-published",)
    if args.duplicates is None and "gallery_group" in arrays and rows_wanted:
        rules = metrics.DUPLICATES
    if "distinct" in rules and (mixed := _groups_of_several_classes(arrays)):
        _tell(f"note: {args.features}: {mixed} group(s) of gallery_group hold photos of several classes; "
              "distinct keeps the first entry of each class")
    scores = [
        metrics.score(
            arrays["query"], arrays["gallery"], arrays["query_labels"], arrays["gallery_labels"],
            args.protocols, metric, args.ks, missing_classes=args.missing_classes, ties=args.ties,
            tie_draws=args.tie_draws, seed=args.seed, gallery_group=arrays.get("gallery_group"),
            duplicates=rule, spellings=args.spellings, block=args.block, device=args.device)
        for rule in rules]
    return _Result(scores, [each.rows() for each in scores] if rows_wanted else [], metric, made)


def _as_options(message: str) -> str:
    """The library names its arguments; on a command line these are options."""
    return re.sub(r"\b(metric|missing_classes|duplicates|spellings)='([\w-]+)'",
                  lambda hit: f"--{hit[1].replace('_', '-')} {hit[2]}", message)


# ---------------------------------------------------------------------------------------------- data check
def _check_data(args: argparse.Namespace) -> int:
    cache = args.cache or Path(os.environ.get("TCN_CACHE") or ".cache")
    reports, status = doctor.check_all(args.datasets, data_root=args.data_root, cache=cache.expanduser(), lists=args.lists,
                                       fast=args.fast)
    print(doctor.as_json(reports, status) if args.json else "\n".join(doctor.render(reports)))
    sys.stdout.flush()
    return status


# ------------------------------------------------------------------------------------------------- writing
def _identical(number: int) -> str:
    return (f"{number} gallery entries are identical to an earlier one; if they are one photo listed again, which moves Prec, "
            "say so in gallery_group")


def _report(args: argparse.Namespace, arrays: Mapping[str, np.ndarray], result: _Result,
            names: Mapping[str, Sequence[str]], several: Mapping[str, Sequence[str]], copies: int) -> Iterator[str]:
    """The lines of the table, and of what is needed to read it."""
    first, entries = result.scores[0], len(arrays["gallery"])
    yield (f"{args.features}: {first.queries} queries of {len(first.classes)} classes, {entries} gallery "
           f"entries, {arrays['query'].shape[1]} dimensions")
    yield f"distance    {DISTANCES[result.metric]}" + (f"; {result.made}" if result.made else "")
    yield f"ties        {args.ties}: {TIES[args.ties]}"
    error = max(row["standard_error"] for rows in result.rows for row in rows)
    if error:
        yield (f"            ({args.tie_draws} sampled orders where there is no closed form: standard error "
               f"up to {error:.4f})")
    if "gallery_group" in arrays:
        repeats = entries - len(set(zip(arrays["gallery_group"].tolist(), arrays["gallery_labels"].tolist())))
        yield (f"duplicates  {repeats} gallery entries repeat a photo: as-published counts all, distinct the "
               "first of each")
    else:
        yield "duplicates  as-published: every gallery entry counts (no gallery_group to tell copies)"
        if copies:
            yield f"            {_identical(copies)}"
    if several:
        yield (f"spellings   {len(several)} class(es) spelt in several ways, each taken as one: "
               + "; ".join(" = ".join(map(ascii, (name, *others))) for name, others in several.items()))
    absent = first.relevant == 0
    if absent.any():
        rule = {"zero": "score 0", "as-released": "are left out of mAP and count as 0 in Prec"}
        yield (f"missing     {len(np.unique(first.query_class[absent]))} class(es) without photos: their "
               f"{int(absent.sum())} queries {rule[args.missing_classes]}")
    # metrics of all protocols once, mAP first
    ordered = dict.fromkeys(name for found in names.values() for name in found)
    ordered = sorted(ordered, key=lambda name: not name.startswith("mAP"))
    titles = {"value": "value", "chance": "chance (gallery in random order)",
              "ceiling": "ceiling (best ranking)"}
    for scores, rows in zip(result.scores, result.rows):
        yield f"\n{scores.duplicates}: {scores.photos} photos"
        for column, title in titles.items():
            cells = {(row["metric"], row["protocol"]): row[column] for row in rows}
            yield f"\n{title}"
            yield from _grid(ordered, scores.protocols, cells)
    if "cvpr19" in first.protocols:
        yield "\ncvpr19's Prec@K is the relevance of the photo at rank K + 1 alone, as its code has it."
    for scores in result.scores if args.per_class else ():
        table = _by_class(scores, args.per_class, names)
        cells = {(row["class"], row["protocol"]): row["value"] for row in table}
        counts = {row["class"]: (row["queries"], row["class_photos"]) for row in table}
        yield f"\n{args.per_class} by class, {scores.duplicates}"
        columns = [name for name in scores.protocols if args.per_class in names[name]]
        yield from _grid(list(counts), columns, cells, [("queries", "photos"), *counts.values()])


def _grid(rows: Sequence[str], columns: Sequence[str], cells: Mapping[tuple[str, str], float | None],
          extra: Sequence[tuple[Any, ...]] = ()) -> Iterator[str]:
    """A line for each row, a column for each protocol, 4 decimals; "-" where there is no value.

    extra: columns to stand before those of the protocols, their headings first, then an entry for each row.
    """
    extra = extra or [()] * (len(rows) + 1)
    # a name that would break the line is shown escaped
    shown = [row if row.isprintable() else ascii(row) for row in rows]
    width = max(map(len, shown))
    yield f"  {'':<{width}}" + "".join(f"  {text:>8}" for text in (*extra[0], *columns))
    for row, label, texts in zip(rows, shown, extra[1:]):
        values = [cells.get((row, column)) for column in columns]
        texts = (*texts, *("-" if value is None else f"{value:.4f}" for value in values))
        yield f"  {label:<{width}}" + "".join(f"  {text:>8}" for text in texts)


def _by_class(
    scores: metrics.Scores, metric: str, names: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Tidy rows, one for each query class and each protocol that has the metric."""
    photos = np.zeros(len(scores.classes), dtype=int)
    photos[scores.query_class] = scores.relevant
    queries = np.bincount(scores.query_class)
    found = []
    for protocol in (name for name in scores.protocols if metric in names[name]):
        means = scores.per_class(protocol, metric)
        found += [{"protocol": protocol, "metric": metric, "class": str(label), "class_photos": int(own),
                   "value": means.get(label.item()), "queries": int(number), "photos": scores.photos}
                  for label, own, number in zip(scores.classes, photos, queries)]
    return found


def _write_csv(args: argparse.Namespace, result: _Result, names: Mapping[str, Sequence[str]]) -> None:
    """One row for each number; `class` and `class_photos` are filled in the rows of single classes only."""
    same = {"file": str(args.features), "distance": result.metric, "codes": result.made, "ties": args.ties,
            "missing_classes": args.missing_classes}
    rows: list[dict[str, Any]] = []
    for scores, own in zip(result.scores, result.rows):
        by_class = _by_class(scores, args.per_class, names) if args.per_class else []
        rows += [{**same, "duplicates": scores.duplicates, "class": "", "class_photos": "", **row}
                 for row in own + by_class]
    with args.csv.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Usage errors and --help leave by SystemExit, as argparse has it."""
    top = parser()
    args = top.parse_args(argv)
    if args.command is None:
        top.print_help(sys.stderr)
        return 2
    try:
        return args.run(args)
    except InputError as error:
        _tell(f"error: {error}")
        return 2
    except (MemoryError, torch.OutOfMemoryError) as error:
        _tell(f"error: out of memory; try a smaller --block ({error})")
        return 1
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # the reader of a pipe may leave when it has seen enough
            _tell(f"error: the result cannot be written: {error.strerror or error}")
        # what is left in the buffer must not be tried again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal's encoding lacks
    sys.exit(main())
