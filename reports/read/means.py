"""The means of a run worked out again from the per-query values that it kept, and held against metrics.csv.

In: a checked run. Out: a `Recomputed` with a check for each number that its per-query values determine. The report and
`tcn verify` use the same.
"""
from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reports.read.files import ReportError, read_arrays
from reports.read.runs import FinishedRun, Score, rows_of, setting

EQUAL = 1e-9
"""Two means of the same values, added up in another order, differ by less than this."""
MACRO = {"released"}
"""Rules that average over classes first; the others average over queries."""
CSV_COLUMNS = {"AP_released": ("released/mAP@all",), "AP_standard": ("standard/mAP@all",),
               "Prec@R": ("released/Prec@R", "standard/Prec@R")}
"""Column of per_query.csv -> the arrays of per_query.npz with the same values, without the kind of features."""
UNREADABLE = "per-query values can't be read"


@dataclass(frozen=True)
class Check:
    """One number of metrics.csv beside the mean of the run's own per-query values."""

    score: Score
    values: int
    recomputed: float
    stated: float

    @property
    def name(self) -> str:
        """`features/rule/metric`, and the publisher where only its queries count."""
        its = self.score
        return f"{its.features}/{its.protocol}/{its.metric}" + (f", queries of {its.source}" if its.source != "all" else "")

    @property
    def equal(self) -> bool:
        """Whether the two agree."""
        return abs(self.recomputed - self.stated) <= EQUAL


@dataclass(frozen=True)
class Recomputed:
    """All checks of one run; `problem` says why there are none."""

    file: str
    checks: tuple[Check, ...] = ()
    problem: str = ""

    @property
    def differing(self) -> tuple[Check, ...]:
        """The numbers that the run's own values don't give."""
        return tuple(check for check in self.checks if not check.equal)

    def sentence(self) -> str:
        """What was recomputed from how many values, and whether it agrees."""
        if self.problem:
            return self.problem
        counts = sorted({check.values for check in self.checks})
        values = " or ".join(f"{n:,}" for n in counts)
        head = f"{len(self.checks)} numbers, each recomputed from {values} per-query values ({self.file})"
        if not self.differing:
            return f"{head}: equal"
        worst = "; ".join(f"{c.name} {c.recomputed:.6f} against {c.stated:.6f}" for c in self.differing[:3])
        return f"{head}: {len(self.differing)} DIFFER{'S' * (len(self.differing) == 1)} ({worst})"


@dataclass(frozen=True)
class PerQuery:
    """Per-query values as a run kept them."""

    file: str
    classes: Mapping[str, np.ndarray]
    """`features/rule/metric` -> the class of each query."""
    values: Mapping[str, np.ndarray]
    """`features/rule/metric` -> [queries]."""


def recompute(run: FinishedRun, sources: np.ndarray | None = None) -> Recomputed:
    """Work out every mean over all queries and the whole gallery again from per-query values, as each rule averages.

    sources: the publisher of each query of per_query.npz; the means over each publisher's queries are checked, too, but where
    they were sampled over orders of photos at equal distance: those orders were drawn anew.
    """
    try:
        kept = per_query(run.folder)
        skipped = _classes_without_photos(run, kept)
    except FileNotFoundError:
        return Recomputed("", problem="this run kept no per-query values")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        kind = "" if isinstance(error, ReportError) else f"{type(error).__name__}: "
        return Recomputed("", problem=f"{UNREADABLE} ({kind}{error}); its means could not be worked out again")
    stated = rows_of(run)
    checks = []
    for name, values in kept.values.items():
        features, rule, metric = name.split("/", 2)
        for source, among in _among(sources, len(values)):
            score = Score(metric, rule, features, source=source)
            if score in stated and (source == "all" or stated[score]["standard_error"] == 0):
                counted = among & ~np.isin(kept.classes[name], skipped) if metric.startswith("mAP") else among
                checks.append(Check(score, int(counted.sum()), _mean(values[counted], kept.classes[name][counted], rule),
                                    float(stated[score]["value"])))
    if not checks:
        return Recomputed(kept.file, problem=f"{kept.file} holds no number of metrics.csv")
    return Recomputed(kept.file, tuple(checks))


def _among(sources: np.ndarray | None, queries: int) -> Iterator[tuple[str, np.ndarray]]:
    """All queries; then each publisher's, where they are known."""
    yield "all", np.ones(queries, bool)
    if sources is not None and len(sources) == queries:
        yield from ((str(name), sources == name) for name in np.unique(sources) if name not in ("", "all"))


def per_query(folder: Path) -> PerQuery:
    """The values in per_query.npz, or of older runs in a CSV file with three numbers a query.

    Raises ReportError for what is not of that form, FileNotFoundError where there is neither, and what csv and numpy raise.
    """
    path = folder / "per_query.npz"
    if path.exists():
        arrays = read_arrays(path)
        classes = arrays.get("class")
        if classes is None or classes.ndim != 1 or classes.dtype.kind != "U":
            raise ReportError(f"{path.name} lacks the array class, or it holds no names")
        arrays = {name: values for name, values in arrays.items() if name.count("/") == 2}
        for name, values in arrays.items():
            if values.shape != classes.shape or values.dtype.kind not in "fiu":
                raise ReportError(f"{path.name}, {name} has {values.dtype} {values.shape} for {classes.shape} queries")
        return PerQuery(path.name, dict.fromkeys(arrays, classes), arrays)
    found: dict[str, list[float]] = {}
    of: dict[str, list[str]] = {}
    with (folder / "per_query.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            for column, names in CSV_COLUMNS.items():
                for name in (f"{row['features']}/{rest}" for rest in names):
                    found.setdefault(name, []).append(float(row[column]))
                    of.setdefault(name, []).append(row["class"])
    return PerQuery("per_query.csv", {name: np.array(names) for name, names in of.items()},
                    {name: np.array(values) for name, values in found.items()})


def _classes_without_photos(run: FinishedRun, kept: PerQuery) -> np.ndarray:
    """Classes that the released rule skips in mAP: only where the run was told to skip them."""
    if setting(run.config, "evaluation.missing_classes") != "as-released":
        return np.array([], dtype=str)
    if not (run.folder / "features.npz").exists():  # only a class without photos has an AP of 0 over all ranks
        every = next((name for name in kept.values if name.endswith("/mAP@all")), None)
        found = np.array([], dtype=str) if every is None else kept.classes[every]
        return np.array([name for name in np.unique(found) if every and not kept.values[every][found == name].any()], dtype=str)
    arrays = read_arrays(run.folder / "features.npz", ("query_labels", "gallery_labels"))
    if len(arrays) < 2:
        raise ReportError("features.npz lacks the labels that say which classes have no photos")
    return np.setdiff1d(arrays["query_labels"], arrays["gallery_labels"])


def _mean(values: np.ndarray, classes: np.ndarray, rule: str) -> float:
    if not len(values):
        return 0.0
    if rule in MACRO:
        return float(np.mean([values[classes == name].mean() for name in np.unique(classes)]))
    return float(values.mean())


def read_precisions(path: Path, labels: np.ndarray) -> np.ndarray:
    """Average precision of each query under the `released` rule, real-valued features [Nq], in the order of features.npz.

    labels: names of the queries' classes there [Nq]. Raises ReportError where per_query.npz lacks the values,
    or is of other queries.
    """
    key = "real/released/mAP@all"
    arrays = read_arrays(path, ("class", key))
    values, names = arrays.get(key), arrays.get("class")
    if values is None or names is None or values.dtype.kind != "f" or not ((values >= 0) & (values <= 1)).all():
        raise ReportError(f"{path.name} holds no {key} from 0 to 1 for each query")
    if values.shape != names.shape or not np.array_equal(names, labels):
        raise ReportError(f"{path.name}: its queries are not those of features.npz; one of the two was copied or edited")
    return values
