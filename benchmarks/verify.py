"""Is what a bundle says so? Every number that its content determines is worked out again, and the rest is checked for form.

In: files that `tcn bundle` wrote, from anybody. Out: for each run what was worked out again, what was only checked for form, and
what differs, by file, metric and query. The means are those of reports/read/means.py, the scores of features those of
benchmarks/scoring.py; nothing of the file is run.
"""
from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from benchmarks.add import BROUGHT
from benchmarks.extraction import RunFeatures, SetFeatures
from benchmarks.scoring import MetricRow, score_run
from reports.read.bundles import SentRun, bundles_in, unpack
from reports.read.escaping import visible
from reports.read.files import ReportError, read_arrays, read_frame
from reports.read.means import CSV_COLUMNS, EQUAL, recompute
from reports.read.runs import FinishedRun, Score, check_digest, read_features, read_finished, rows_of
from tcn.config import InputError, change, identity, recorded
from tcn.data.splits import Files
from tcn.data.words import normal_form
from tcn.files.atomic import warn
from tcn.files.checksums import SUMS
from tcn.files.text import some
from tcn.scoring.instances import SCOPES
from tcn.scoring.protocols import PROTOCOL_VERSION

MOST_SAID = 20
"""Differences of one run that are printed."""
MACHINE = ("unstable-sort", "as-released")
"""Rules for equal distances that depend on the machine (tcn/scoring/scores.py)."""
EPILOG = """\
what is worked out again
  the checksums of all files; the identity, a hash of the settings and the digests; each mean of metrics.csv that per-query values
  determine, under every protocol; with features (tcn bundle --features) also the per-query values, and every number of
  real-valued features with its chance and ceiling.
What can't be: whether the features are those of the network that is named. `run_all.py --reproduce` tells that.

exit status: 0 all agrees; 1 something differs, or can't be worked out here; 2 no bundle, or bad usage.
"""


@dataclass
class Findings:
    """What came of verifying one run."""

    run: str
    recomputed: list[str] = field(default_factory=list)
    form: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    covered: set[Score] = field(default_factory=set)
    """The numbers of metrics.csv that were worked out again."""

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield self.run
        yield from (f"  worked out again: {text}" for text in self.recomputed)
        yield from (f"  only checked for form: {text}" for text in self.form)
        yield from (f"  DIFFERS: {text}" for text in self.problems[:MOST_SAID])
        if len(self.problems) > MOST_SAID:
            yield f"  and {len(self.problems) - MOST_SAID} more differences"


@dataclass(frozen=True)
class Queries:
    """The queries of a run as one of its files names them."""

    file: str
    names: list[str]
    classes: list[str]


def verify(sent: SentRun) -> Findings:
    """Everything about one run of a bundle."""
    found = Findings(sent.folder.name, problems=list(sent.problems))
    files = sorted(path.name for path in sent.folder.glob("*"))
    listed = SUMS in files
    for name in files:
        _tried(found, name, partial(check_digest, sent.folder, name))
    if not sent.problems:
        found.recomputed.append(f"checksums of {len(files)} files" + (", also as the run itself wrote them" if listed else ""))
    if listed:  # compared by now; what differs is to be named by its numbers, too
        (sent.folder / SUMS).unlink()
    try:
        run = read_finished(sent.folder)
    except ReportError as error:
        found.problems.append(str(error))
        return found
    _tried(found, "config.json", lambda: _identity(run, found))
    if (version := run.provenance.protocol_version) != PROTOCOL_VERSION:
        found.problems.append(f"provenance.json: scored under protocol version {version}, this is {PROTOCOL_VERSION}: its "
                              "numbers can't be worked out here; use a version of this project that has those rules")
        return found
    _tried(found, "per-query values", lambda: _per_query(run, found))
    if "features.npz" in files:
        _tried(found, "features.npz", lambda: _features(run, found))
    _form(run, found, "features.npz" in files)
    return found


def _tried(found: Findings, file: str, check: Callable[[], object]) -> None:
    """Make a check; whatever a hostile file makes it trip over is a difference of that file."""
    try:
        check()
    except (ReportError, InputError) as error:
        found.problems.append(str(error) if str(error).startswith(file) else f"{file}: {error}")
    except Exception as error:
        found.problems.append(f"{file}: can't be checked ({type(error).__name__}: {str(error)[:200]})")


def _settings(run: FinishedRun) -> dict[str, Any]:
    return {key: value for key, value in run.config.items() if key not in ("variant", "identity")}


def _identity(run: FinishedRun, found: Findings) -> None:
    p = run.provenance
    digests = ((str(p.brought.get("sha256", "")), "brought along", str(run.config["variant"]).removeprefix(BROUGHT))
               if p.brought else (p.data_digest, p.split_digest, p.words_digest))
    wanted = identity(recorded(_settings(run)), *digests)
    for file, stated in (("config.json", run.config.get("identity")), ("provenance.json", p.identity)):
        if stated != wanted:
            raise ReportError(f"{file}: identity {str(stated)[:16]}, its settings and digests give {wanted[:16]}: a setting "
                              "or a digest was changed")
    found.recomputed.append("the identity, from the settings and the digests of data, split and words")


def _per_query(run: FinishedRun, found: Findings) -> None:
    """The means, and whether all files name the same queries."""
    arrays = read_arrays(run.folder / "per_query.npz") if (run.folder / "per_query.npz").exists() else {}
    queries = _queries("per_query.npz", arrays, "query", "class") if arrays else None
    sources = None
    if queries is not None:
        _misplaced(queries, found)
        if (run.folder / "per_query.csv").exists():
            sources = _csv(run, queries, arrays, found)
    means = recompute(run, sources)
    if means.problem:
        raise ReportError(means.problem)
    stated = rows_of(run)
    if queries is not None:
        numbers = {int(stated[check.score]["queries"]) for check in means.checks if check.score.source == "all"}
        found.problems += [f"metrics.csv: {number} queries, {means.file} holds {len(queries.names)}"
                           for number in sorted(numbers - {len(queries.names)})]
    for check in means.checks:
        found.covered.add(check.score)
        if not check.equal:
            found.problems.append(f"metrics.csv, {check.name}: {check.stated!r}, the mean of {means.file} is "
                                  f"{check.recomputed!r}")
    found.recomputed.append(f"{len(means.checks)} numbers of metrics.csv, from {means.file}")


def _queries(file: str, arrays: dict[str, np.ndarray], names: str, classes: str) -> Queries:
    for name in (names, classes):
        if name not in arrays or arrays[name].ndim != 1 or arrays[name].dtype.kind != "U":
            raise ReportError(f"{file} lacks the array {name}, or it holds no names")
    found = Queries(file, arrays[names].tolist(), arrays[classes].tolist())
    if len(found.names) != len(found.classes):
        raise ReportError(f"{file}: {len(found.names)} queries and {len(found.classes)} classes")
    return found


def _misplaced(queries: Queries, found: Findings) -> None:
    """Queries that lie in the folder of another class than their own."""
    known = {normal_form(name) for name in queries.classes}
    for name, own in zip(queries.names, queries.classes):
        folder = normal_form(PurePosixPath(name).parent.name)
        if folder in known and folder != normal_form(own):
            found.problems.append(f"{queries.file}, query {name}: of class {own}, its folder is another class's")


def _agree(first: Queries, second: Queries, found: Findings) -> bool:
    """Whether two files name the same queries and classes in the same order; what differs is named."""
    if first.names != second.names:
        for one, other in ((first, second), (second, first)):
            if lacking := sorted(set(one.names) - set(other.names)):
                found.problems.append(f"{other.file}: lacks {len(lacking)} quer{'ies' if len(lacking) > 1 else 'y'} of "
                                      f"{one.file}: {some(lacking, 3)}")
        if Counter(first.names) == Counter(second.names) or set(first.names) == set(second.names):
            found.problems.append(f"{second.file}: its queries are in another order or number than in {first.file}")
        return False
    odd = [(name, a, b) for name, a, b in zip(first.names, first.classes, second.classes) if a != b]
    found.problems += [f"{first.file}, query {name}: of class {a}, in {second.file} of class {b}" for name, a, b in odd]
    return not odd


def _csv(run: FinishedRun, queries: Queries, arrays: dict[str, np.ndarray], found: Findings) -> np.ndarray | None:
    """Compare per_query.csv with per_query.npz; the publisher of each query, None where the two don't name the same queries."""
    frame = read_frame(run.folder / "per_query.csv", ("query", "class", "source", "features"), tuple(CSV_COLUMNS))
    sources: np.ndarray | None = None
    for kind, rows in frame.groupby("features", sort=False):
        if not _agree(queries, Queries("per_query.csv", rows["query"].tolist(), rows["class"].tolist()), found):
            return None
        sources = rows["source"].to_numpy(dtype=str)
        for column, (name, *_) in CSV_COLUMNS.items():
            _equal(f"per_query.csv, {kind} {column}", queries.names, rows[column].to_numpy(), "per_query.npz",
                   arrays[f"{kind}/{name}"], found)
    return sources


def _equal(what: str, names: Sequence[str], stated: np.ndarray, where: str, others: np.ndarray, found: Findings) -> None:
    """Name the queries whose two values differ."""
    for at in np.flatnonzero(~(np.abs(stated - others) <= EQUAL)).tolist():
        found.problems.append(f"{what}, query {names[at]}: {float(stated[at])!r}, {where} gives {float(others[at])!r}")


def _features(run: FinishedRun, found: Findings) -> None:
    """Score the features again: per-query values and every number of real-valued features of unseen classes."""
    read_features(run.folder / "features.npz")  # their form
    arrays = read_arrays(run.folder / "features.npz")
    config = change(recorded(_settings(run)), {"evaluation.binary": False})
    if config.evaluation.ties in MACHINE:
        found.form.append(f"features.npz: scored with ties {config.evaluation.ties}, whose numbers depend on the machine")
        return
    kept = read_arrays(run.folder / "per_query.npz")
    queries = _queries("per_query.npz", kept, "query", "class")
    same = _agree(queries, _queries("features.npz", arrays, "query_paths", "query_labels"), found)
    names = np.unique(np.concatenate([arrays["query_labels"], arrays["gallery_labels"]]))
    unseen = SetFeatures(arrays["query"], arrays["gallery"], _files("query", arrays, names), _files("gallery", arrays, names))
    scores = score_run(RunFeatures({}, unseen), config)
    stated = rows_of(run)
    for row in scores.metrics:
        score = Score(row.metric, row.protocol, row.features, row.classes, row.query_source, row.gallery, row.duplicates)
        if score in stated:
            found.covered.add(score)
            found.problems += _row(row, stated[score])
    if same:
        for name, values in scores.per_query.items():
            if name in kept:
                _equal(f"per_query.npz, {name}", queries.names, kept[name], "features.npz", values, found)
    found.recomputed.append(f"{len(scores.per_query)} per-query values of each of {len(queries.names)} queries and "
                            f"{len(scores.metrics)} numbers of metrics.csv with their chance and ceiling, from features.npz")


def _files(side: str, arrays: dict[str, np.ndarray], names: np.ndarray) -> Files:
    labels = np.searchsorted(names, arrays[f"{side}_labels"])

    def texts(name: str) -> tuple[str, ...]:
        return tuple(map(str, arrays[name].tolist())) if name in arrays and arrays[name].shape == labels.shape else ()
    return Files(Path(), texts(f"{side}_paths"), labels, texts(f"{side}_sources") or ("",) * len(labels),
                 texts("gallery_group") if side == "gallery" else (), texts(f"{side}_instance"))


def _row(row: MetricRow, stated: dict[str, object]) -> Iterator[str]:
    """What differs in a row of metrics.csv."""
    for column in ("value", "standard_error", "chance", "ceiling", "queries", "photos"):
        here, there = float(getattr(row, column)), float(str(stated[column]))
        if not abs(here - there) <= EQUAL:
            where = "".join(f", {name} {text}" for name, text in (("queries of", row.query_source), ("photos", row.duplicates))
                            if text not in ("all", "as-published"))
            yield (f"metrics.csv, {row.features}/{row.protocol}/{row.metric}{where}, column {column}: {there!r}, "
                   f"features.npz gives {here!r}")


def _form(run: FinishedRun, found: Findings, features: bool) -> None:
    """Say what nothing here determines."""
    left: Counter[str] = Counter()
    for score in rows_of(run):
        if score not in found.covered:
            left["of other classes" if score.classes != "unseen" else "of the very photo" if score.protocol in SCOPES else
                 "with each photo once" if score.duplicates != "as-published" else
                 "of some queries or photos" if (score.source, score.gallery) != ("all", "all") else "of all queries"] += 1
    if left:
        found.form.append(f"{sum(left.values())} numbers of metrics.csv ("
                          + ", ".join(f"{n} {what}" for what, n in left.items()) + ")")
    found.form.append("per-query values, chance levels and ceilings" + (" of binary codes" if features else
                      " (a bundle with --features determines those of real-valued features)"))
    found.form.append("commit, versions, device, command and times; whether data, split and words are those of the digests")


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tcn verify", description=__doc__, epilog=EPILOG, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE",
                   help="a file that tcn bundle wrote, or a folder of such files")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the arguments name; the exit status."""
    options = _parser().parse_args(arguments)
    status = 0
    try:
        for path in bundles_in([given.expanduser() for given in options.bundles]):
            with tempfile.TemporaryDirectory(prefix="verify-") as folder:
                findings = [verify(sent) for sent in unpack(path, Path(folder))]
            differing = sum(bool(each.problems) for each in findings)
            print(f"{visible(path)}: {len(findings)} run{'s' * (len(findings) != 1)}, "
                  + (f"{differing} DIFFER{'S' * (differing == 1)}" if differing else "all agree"))
            for each in findings:
                print("\n".join(" ".join(visible(line).splitlines()) for line in each.lines()))
            status = max(status, int(differing > 0))
    except ReportError as error:
        warn(f"error: {' '.join(visible(error).splitlines())}")
        return 2
    except KeyboardInterrupt:
        warn("interrupted")
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
