"""Faults on the way from a run's settings to its numbers, and in the parts that only a whole run puts together.

Most are settings that are dropped, or replaced by a constant: the run then records one thing and does another.
benchmarks/tools/mutants_by_hand.py takes this list into its own.
"""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One mistake: in `file`, `new` replaces `old`. `what` describes it in words."""

    file: str
    what: str
    old: str
    new: str


def of(file: str, *faults: tuple[str, str, str]) -> list[Fault]:
    """Faults of one file."""
    return [Fault(file, *fault) for fault in faults]


RUN_FAULTS: list[Fault] = [
    *of(
        "benchmarks/scoring.py",
        ("ITQ by the textbook's rule whatever the settings say", "rule=config.evaluation.itq_rule,", 'rule="textbook",'),
        ("ITQ fitted on seen features whatever the settings say", "fit=config.evaluation.itq_fit,", 'fit="seen",'),
        ("ITQ from a drawn start whatever the settings say", "start=config.evaluation.itq_start)", 'start="drawn")'),
        ("ITQ's seed not the run's", "query.shape[1]), seed=config.seed,", "query.shape[1]), seed=0,"),
        ("ties in random order whatever the settings say", "metric=metric, ties=config.evaluation.ties,",
         'metric=metric, ties="expected",'),
        ("a class without photos an error whatever the settings say",
         "missing_classes=config.evaluation.missing_classes, duplicates", 'missing_classes="error", duplicates'),
        ("codes scored by distance of features", "scores = _score(own, pair, DISTANCES[kind], subset",
         'scores = _score(own, pair, "euclidean", subset'),
        ("ledger: ITQ's rule compared with itself", '("itq-rule", {"itq_rule": "released"})', '("itq-rule", {})'),
        ("ledger: what ITQ is fitted on compared with itself", '("itq-fit", {"itq_fit": "as-released"})', '("itq-fit", {})'),
        ("ledger: ITQ's start compared with itself", '("itq-start", {"itq_start": "released"})', '("itq-start", {})'),
        ("ledger: ties compared with themselves", 'released=orders.pop("unstable-sort")', 'released=orders["expected"]'),
        ("ledger: classes without photos compared with themselves", '("released", "as-released"))})', '("released", "zero"))})'),
        ("ledger: sides of the photos compared with themselves",
         "query, released = ledger.features.unseen.query, ledger.gallery_as_released",
         "query, released = ledger.features.unseen.query, ledger.gallery"),
        ("ledger: photos listed twice compared with themselves",
         'kind, pair, duplicates="distinct", gallery_group=groups))', "kind, pair))"),
        ("ledger: the corrected codes follow the run's own settings",
         'rules = {"itq_rule": "textbook", "itq_fit": "seen", "itq_start": "drawn", **released}', "rules = {**released}"),
        ("ledger: the sides of the photos swapped",
         "galleries = {Modality(config.evaluation.photo_side): features.unseen.gallery}",
         "galleries = {Modality.PHOTO: features.unseen.gallery}"),
    ),
    *of(
        "benchmarks/extraction.py",
        ("a run's features resized in float whatever the settings say", "side=output, resize=config.data.resize)",
         "side=output)"),
        ("further pictures resized in float whatever the settings say", "side=side, resize=self.config.data.resize)",
         "side=side)"),
        ("photos from the photos' side whatever the settings say", "raw(gallery, Modality.PHOTO, side)",
         "raw(gallery, Modality.PHOTO)"),
        ("further photos from the photos' side whatever the settings say",
         "side = Modality(self.config.evaluation.photo_side) if modality is Modality.PHOTO else None", "side = None"),
        ("the other side is the side itself", "other = Modality.SKETCH if side is Modality.PHOTO else Modality.PHOTO",
         "other = side"),
        ("photos standardised as sketches", "return {m: Standardiser.fit(training[m]) for m in Modality}",
         "return {m: Standardiser.fit(training[Modality.SKETCH]) for m in Modality}"),
        ("components of the sketches alone", "np.concatenate(list(training.values()))", "training[Modality.SKETCH]"),
        ("ITQ fitted on features that are not treated", "{m: treated[m](training[m]) for m in Modality}, of", "training, of"),
    ),
    *of(
        "benchmarks/material.py",
        ("pictures read by the default whatever the settings say", "reading = Reading(data.transparent, data.exif)",
         "reading = Reading()"),
        ("pictures of another reading taken from memory", "role, data.stored_size, reading\n",
         "role, data.stored_size, Reading()\n"),
        ("words of unit length whatever the settings say", "unit=data.unit_words))", "unit=True))"),
        ("words of another length taken from memory", '("words", data.dataset, data.split, data.validation, data.unit_words)',
         '("words", data.dataset, data.split, data.validation)'),
        ("the split's own validation classes whatever the settings say",
         "self.split(config.data.dataset, config.data.split, config.data.validation)",
         "self.split(config.data.dataset, config.data.split)"),
        ("the teacher of the encoder's weights", "net.teacher_weights, self.places.teacher_file(net.backbone)",
         "net.weights, self.places.encoder_file(net.backbone)"),
    ),
    *of(
        "tcn/model/batch_norms.py",
        ("blocks added up in float32", "torch.stack(list(sums)).sum(0, dtype=torch.float64)", "torch.stack(list(sums)).sum(0)"),
        ("one block of all rows", "_BLOCK = 1 << 18", "_BLOCK = 1 << 30"),
        ("gradient taken as it lies in memory", "        grad = grad.contiguous(memory_format=torch.channels_last)\n", ""),
        ("running variance biased", "(variance * (count / (count - 1)))", "variance"),
        ("no epsilon in the gradient", "inverse = (variance + ctx.eps).rsqrt()", "inverse = variance.rsqrt()"),
        ("slope of the gradient not squared", "-scale * inverse.square() * by_centred", "-scale * inverse * by_centred"),
        ("gradient's shift without the centre", "-scale * by_bias / count - slope * centre", "-scale * by_bias / count"),
        ("momentum fixed", "norm.momentum if norm.momentum is not None else", "0.1 if norm.momentum is not None else"),
        ("batches not counted", "    norm.num_batches_tracked += 1\n", ""),
        ("by the batch also when scoring", "own = (self.training and self.affine", "own = (self.affine"),
        ("timm's batch norms left as they are", "{nn.BatchNorm2d: TwoPassBatchNorm2d, BatchNormAct2d: TwoPassBatchNormAct2d}",
         "{nn.BatchNorm2d: TwoPassBatchNorm2d}"),
    ),
    *of(
        "tcn/scoring/moments.py",
        ("scatter not centred", "centred = block - centre", "centred = block"),
        ("products not centred", "(block - centre) @ matrix", "block @ matrix"),
        ("mean of the blocks' means", "np.sum(sums, axis=0) / len(rows)",
         "np.mean([block.mean(0) for block in blocks(rows)], axis=0)"),
        ("the last block alone", "np.concatenate([found, part])", "np.concatenate([found[:0], part])"),
    ),
    *of(
        "tcn/scoring/instances.py",
        ("a photo that names nothing is that of a sketch that names nothing", "counted = known & np.isin(drawn_from, shown)",
         "counted = np.isin(drawn_from, shown)"),
        ("the furthest copy counts", "nearest, ranked = far.amin(1, keepdim=True), distances[:, low:high]",
         "nearest, ranked = far.masked_fill(~here, -torch.inf).amax(1, keepdim=True), distances[:, low:high]"),
        ("copies of other classes count", "here = there & (low <= copies) & (copies < high)", "here = there"),
        ("photos at equal distance all before", "before, reached = (ranked < nearest).sum(1), (ranked <= nearest).sum(1)",
         "before, reached = (ranked <= nearest).sum(1), (ranked <= nearest).sum(1)"),
        ("a copy listed twice counts twice", "photos, photo_names, shown = photos[torch.from_numpy(kept).to(photos.device)], "
         "photo_names[kept], shown[kept]", "pass"),
    ),
    *of(
        "tcn/data/pairs.py",
        ("training pictures resized in float whatever the settings say", "settings.image_size, settings.resize)",
         "settings.image_size)"),
    ),
    *of(
        "tcn/train/loop.py",
        ("validation before training resized in float whatever the settings say",
         '{"epoch": 0, **validate(model, validation, config.data.image_size, device, config.data.resize)}',
         '{"epoch": 0, **validate(model, validation, config.data.image_size, device)}'),
        ("validation of an epoch resized in float whatever the settings say",
         "row.update(validate(model, validation, config.data.image_size, device, config.data.resize))",
         "row.update(validate(model, validation, config.data.image_size, device))"),
    ),
]
