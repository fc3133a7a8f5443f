"""The features of a run -> every number that is reported of it. Pure functions: nothing is read or written here.

In: `RunFeatures` and the run's settings. Out: `RunScores`, and the rows of the deviation ledger. Paper: retrieval protocol,
hashing; the six protocols are those of `tcn.scoring.metrics`.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.extraction import RunFeatures, SetFeatures
from tcn.config import BUILT_IN, Config, Modality, change
from tcn.data import specs
from tcn.data.splits import Files
from tcn.scoring import codes, instances, protocols, retrieve, scores
from tcn.scoring.features import singular_values, unit

Kind = Literal["real", "binary"]
DISTANCES: Mapping[Kind, str] = {"real": "euclidean", "binary": "hamming"}
HEADLINE = ("released", "standard")
"""Protocols that head the tables; the other four are recorded where all queries meet the whole gallery."""
METRICS = ("mAP@all", "Prec@100", "mAP@200", "Prec@200", "Prec@R", "Prec@5")
LEDGER_METRICS = ("mAP@all", "Prec@100", "Prec@R", "mAP@200", "Prec@200")
ITQ_STARTS = 8
"""Starts from which the ledger fits ITQ to the same features, to show how far the start alone moves a number."""
ONE_MATRIX_BYTES = 2e9
"""Largest float64 matrix of distances that the ledger makes, to show that computing in blocks changes nothing."""


@dataclass(frozen=True)
class MetricRow:
    """A row of metrics.csv: one metric of one subset of queries and photos under one protocol.

    Acc@K at instance level stands under the names of `tcn.scoring.instances.SCOPES` in place of a protocol; `queries` are then
    those with their photo in the gallery.
    """

    classes: str
    features: Kind
    protocol: str
    metric: str
    value: float
    standard_error: float
    chance: float
    ceiling: float
    ties: str
    duplicates: str
    query_source: str
    gallery: str
    queries: int
    photos: int


@dataclass(frozen=True)
class LedgerRow:
    """A row of ledger.csv: one metric under one deviation of the released code, all else corrected; or why it has none."""

    deviation: str
    arm: str = ""
    features: str = ""
    protocol: str = ""
    metric: str = ""
    value: float | None = None
    note: str = ""


METRIC_COLUMNS = tuple(field.name for field in fields(MetricRow))
LEDGER_COLUMNS = tuple(field.name for field in fields(LedgerRow))


@dataclass(frozen=True)
class RunScores:
    """Everything that is measured on a run's features but its deviation ledger."""

    metrics: tuple[MetricRow, ...]
    per_query: Mapping[str, np.ndarray]
    """`FEATURES/PROTOCOL/METRIC`, such as `real/released/mAP@all`, -> float64 [Nq]: unseen queries against the whole gallery."""
    precision: np.ndarray
    """Interpolated precision at `tcn.scoring.metrics.RECALLS`, real-valued features of unseen classes."""
    singular_values: Mapping[str, Mapping[Modality, np.ndarray]]
    """Set (`training`, `unseen`) -> modality -> the largest singular values, descending."""


@dataclass(frozen=True)
class Subset:
    """Queries and photos that are scored together, and what metrics.csv calls them."""

    query_source: str
    queries: np.ndarray
    """bool [Nq]."""
    gallery: str
    photos: np.ndarray
    """bool [Ng]."""
    duplicates: Literal["as-published", "distinct"] = "as-published"

    @property
    def whole(self) -> bool:
        """Whether these are all queries and all photos."""
        return self.query_source == self.gallery == "all"


def score_run(features: RunFeatures, config: Config, device: torch.device | None = None) -> RunScores:
    """Every metric of unseen and validation classes, from features and from their ITQ codes; curve; singular values."""
    rows: list[MetricRow] = []
    per_query: dict[str, np.ndarray] = {}
    # A data set of one's own has none, and its file need not be at hand.
    same_hand = specs.spec(config.data.dataset)[0].same_hand if config.data.declared == BUILT_IN else {}
    for classes, own in features.sets().items():
        kinds: dict[Kind, tuple[np.ndarray, np.ndarray]] = {"real": (own.query, own.gallery)}
        if config.evaluation.binary:
            kinds["binary"] = itq_codes(features, own.query, own.gallery, config)
        for kind, pair in kinds.items():
            for subset in subsets(own.query_files, own.gallery_files, same_hand):
                scores = _score(own, pair, DISTANCES[kind], subset, config, device)
                rows += _rows(scores, classes, kind, subset)
                rows += _instance_rows(own, pair, classes, kind, subset, device)
                if classes == "unseen" and subset.whole and subset.duplicates == "as-published":
                    per_query |= {f"{kind}/{protocol}/{name}": scores.per_query(protocol, name)
                                  for protocol, name in _named(scores)}
    unseen = features.unseen
    precision = retrieve.precision_recall(unseen.query, unseen.gallery, unseen.query_files.labels, unseen.gallery_files.labels,
                                         device=device)
    spectra = {"training": features.seen, "unseen": {Modality.SKETCH: unseen.query, Modality.PHOTO: unseen.gallery}}
    return RunScores(tuple(rows), per_query, precision,
                     {name: {m: singular_values(values) for m, values in own.items()} for name, own in spectra.items()})


def itq_codes(features: RunFeatures, query: np.ndarray, gallery: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """ITQ codes of D bits; fitted on seen training features of both modalities unless the released fit is asked for."""
    seen, query, gallery = (unit(x) for x in (np.concatenate(list(features.seen.values())), query, gallery))
    return codes.binary_codes(seen, query, gallery, bits=min(config.network.dim, query.shape[1]), seed=config.seed,
                              rule=config.evaluation.itq_rule, fit=config.evaluation.itq_fit, start=config.evaluation.itq_start)


def repeats(files: Files) -> bool:
    """Whether a list names a picture more than once."""
    return len(set(files.groups)) < len(files.groups)


def subsets(query: Files, gallery: Files, same_hand: Mapping[str, str]) -> list[Subset]:
    """All queries against all photos first; then photos counted once where the list repeats some; then each publisher's queries.

    same_hand: publisher of sketches -> publisher whose photos repeat the same drawings. Such queries are scored a second time
    without these photos.
    """
    everything, sources = np.ones(len(query), bool), np.array(query.sources)
    all_photos, photo_sources = np.ones(len(gallery), bool), np.array(gallery.sources)
    found = [Subset("all", everything, "all", all_photos)]
    if repeats(gallery):
        found.append(Subset("all", everything, "all", all_photos, "distinct"))
    for name in sorted(set(query.sources) - {""}):
        found.append(Subset(name, sources == name, "all", all_photos))
        if (own := same_hand.get(name)) in gallery.sources:
            found.append(Subset(name, sources == name, f"without {own}", photo_sources != own))
    return found


def _score(own: SetFeatures, pair: tuple[np.ndarray, np.ndarray], metric: str, subset: Subset, config: Config,
           device: torch.device | None) -> scores.Scores:
    files, photos = own.gallery_files, subset.photos
    groups = np.array(files.groups)[photos] if subset.duplicates == "distinct" else None
    return scores.score(pair[0][subset.queries], pair[1][photos], own.query_files.labels[subset.queries], files.labels[photos],
                         protocols=protocols.ALL if subset.whole else HEADLINE, metric=metric, ties=config.evaluation.ties,
                         missing_classes=config.evaluation.missing_classes, duplicates=subset.duplicates, device=device,
                         gallery_group=groups)


def _named(scores: scores.Scores) -> Iterable[tuple[str, str]]:
    """Protocols and those of their metrics that are recorded."""
    return ((protocol, name) for protocol in scores.protocols for name in METRICS if name in scores.metrics(protocol))


def _rows(scores: scores.Scores, classes: str, kind: Kind, subset: Subset) -> list[MetricRow]:
    return [MetricRow(classes, kind, protocol, name, scores.value(protocol, name), scores.error(protocol, name),
                      scores.chance(protocol, name), scores.ceiling(protocol, name), scores.ties, scores.duplicates,
                      subset.query_source, subset.gallery, scores.queries, scores.photos) for protocol, name in _named(scores)]


def _instance_rows(own: SetFeatures, pair: tuple[np.ndarray, np.ndarray], classes: str, kind: Kind, subset: Subset,
                   device: torch.device | None) -> list[MetricRow]:
    """Acc@K of the photo that each sketch was drawn from: none where file names do not tell, or no such photo is there."""
    query, gallery = own.query_files, own.gallery_files
    if not subset.whole or not set(query.instances) & set(gallery.instances) - {""}:
        return []
    found = instances.instance_accuracy(
        *pair, query.labels, gallery.labels, np.array(query.instances), np.array(gallery.instances), DISTANCES[kind],
        gallery_group=np.array(gallery.groups) if gallery.groups else None, duplicates=subset.duplicates, device=device)
    return [MetricRow(classes, kind, ties="expected", duplicates=subset.duplicates, query_source=subset.query_source,
                      gallery=subset.gallery, **row) for row in found.rows()]


# --- the deviation ledger ------------------------------------------------------------------------------------

def score_ledger(features: RunFeatures, config: Config, device: torch.device | None = None) -> tuple[LedgerRow, ...]:
    """What each deviation of the released code that changes only scoring is worth, all else corrected (docs/ledger.md).

    `features.other_side` has to be there.
    """
    ledger = _Ledger(features, config, device)
    rows = [*_photo_side(ledger), *_itq(ledger), *_ties(ledger)]
    if set(ledger.query_labels.tolist()) - set(ledger.gallery_labels.tolist()):
        rows += ledger.rows("missing-classes", "real", **{arm: ledger.score("real", ledger.pairs["real"], missing_classes=rule)
                                                          for arm, rule in (("corrected", "zero"), ("released", "as-released"))})
    else:
        rows.append(LedgerRow("missing-classes", note="every query class has photos"))
    if repeats(features.unseen.gallery_files):
        groups = np.array(features.unseen.gallery_files.groups)
        for kind, pair in ledger.pairs.items():
            rows += ledger.rows("duplicates", kind, released=ledger.corrected[kind], corrected=ledger.score(
                kind, pair, duplicates="distinct", gallery_group=groups))
    else:
        rows.append(LedgerRow("duplicates", note="no photo is listed twice"))
    return (*rows, *_one_matrix(ledger))


class _Ledger:
    """The features as the corrected rules score them, and one more scoring of them under another rule."""

    def __init__(self, features: RunFeatures, config: Config, device: torch.device | None) -> None:
        self.config, self.features, self.device = config, features, device
        self.query_labels = features.unseen.query_files.labels
        self.gallery_labels = features.unseen.gallery_files.labels
        assert features.other_side is not None
        galleries = {Modality(config.evaluation.photo_side): features.unseen.gallery}
        self.gallery = galleries.get(Modality.PHOTO, features.other_side)
        """The photos from their own output of the embedding."""
        self.gallery_as_released = galleries.get(Modality.SKETCH, features.other_side)
        """The photos from the sketches' output."""
        self.pairs: dict[Kind, tuple[np.ndarray, np.ndarray]] = {
            "real": (features.unseen.query, self.gallery), "binary": self.codes(self.gallery)}
        self.corrected = {kind: self.score(kind, pair) for kind, pair in self.pairs.items()}

    def codes(self, gallery: np.ndarray, released: Mapping[str, str] = MappingProxyType({}), seed: int | None = None
              ) -> tuple[np.ndarray, np.ndarray]:
        """Codes by the corrected ITQ, except for the settings of `evaluation` in `released`."""
        rules = {"itq_rule": "textbook", "itq_fit": "seen", "itq_start": "drawn", **released}
        settings = {f"evaluation.{name}": value for name, value in rules.items()}
        return itq_codes(self.features, self.features.unseen.query, gallery,
                         change(self.config, {**settings, "seed": self.config.seed if seed is None else seed}))

    def score(self, kind: Kind, pair: tuple[np.ndarray, np.ndarray], **rules: Any) -> scores.Scores:
        """Scores under the released protocol, with the keywords of `tcn.scoring.scores.score` in `rules`."""
        return scores.score(*pair, self.query_labels, self.gallery_labels, protocols=("released",), device=self.device,
                             metric=DISTANCES[kind],
                             **{"missing_classes": self.config.evaluation.missing_classes, **rules})

    def rows(self, deviation: str, kind: Kind, **arms: scores.Scores) -> list[LedgerRow]:
        """The rows of a deviation whose arms were scored."""
        return [LedgerRow(deviation, arm, kind, "released", name, scores.value("released", name))
                for arm, scores in arms.items() for name in LEDGER_METRICS]


def _photo_side(ledger: _Ledger) -> list[LedgerRow]:
    query, released = ledger.features.unseen.query, ledger.gallery_as_released
    return [*ledger.rows("photo-side", "real", corrected=ledger.corrected["real"],
                         released=ledger.score("real", (query, released))),
            *ledger.rows("photo-side", "binary", corrected=ledger.corrected["binary"],
                         released=ledger.score("binary", ledger.codes(released)))]


def _itq(ledger: _Ledger) -> list[LedgerRow]:
    rows: list[LedgerRow] = []
    for deviation, released in (("itq-rule", {"itq_rule": "released"}), ("itq-fit", {"itq_fit": "as-released"}),
                           ("itq-start", {"itq_start": "released"})):
        rows += ledger.rows(deviation, "binary", corrected=ledger.corrected["binary"],
                            released=ledger.score("binary", ledger.codes(ledger.gallery, released)))
    return rows + ledger.rows("itq-start", "binary", **{
        f"start-{seed + 1}": ledger.score("binary", ledger.codes(ledger.gallery, seed=seed)) for seed in range(ITQ_STARTS)})


def _ties(ledger: _Ledger) -> list[LedgerRow]:
    # "as-released" is the unstable sort in this protocol.
    orders = {ties: ledger.corrected["binary"] if ties == "expected"
              else ledger.score("binary", ledger.pairs["binary"], ties=ties) for ties in scores.TIES if ties != "as-released"}
    return ledger.rows("ties", "binary", corrected=orders["expected"], released=orders.pop("unstable-sort"), **orders)


def _one_matrix(ledger: _Ledger) -> list[LedgerRow]:
    queries, size = len(ledger.query_labels), 8 * len(ledger.query_labels) * len(ledger.gallery_labels)
    if size > ONE_MATRIX_BYTES:
        return [LedgerRow("one-matrix", note=f"the matrix would take {size / 1e9:.0f} GB")]
    return ledger.rows("one-matrix", "real", corrected=ledger.score("real", ledger.pairs["real"], block=max(1, queries // 7)),
                       released=ledger.score("real", ledger.pairs["real"], block=queries))
