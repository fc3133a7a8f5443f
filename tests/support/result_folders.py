"""Writes result folders for the tests of the report: made-up numbers in the layout that the runner writes.

Nothing in here is a result. Values come from seeded noise and plain formulas, so that a test can work out by itself
what a table must say.
"""
from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SOURCES = ("openmoji", "emojione-monotone", "fluent-emoji-high-contrast")
EMOJI_VARIANTS = ("tcn", "hws", "nws", "untrained-imagenet", "untrained-imagenet-permodality", "untrained-svd",
                  "untrained-svd-permodality")
COMMAND = "python benchmarks/run_all.py --made-up"
LEVELS = {"tcn": 0.30, "hws": 0.26, "nws": 0.28, "untrained-imagenet": 0.18, "untrained-imagenet-permodality": 0.22,
          "untrained-svd": 0.13, "untrained-svd-permodality": 0.17,
          "hws-0.1-1": 0.25, "hws-10-1": 0.24, "hws-separate": 0.27, "tcn-bht": 0.285, "tcn-bht-sr-0.1": 0.288,
          "tcn-bht-sr-1": 0.31, "tcn-bht-sr-10": 0.295, "tcn-dim-32": 0.27, "tcn-dim-128": 0.305, "tcn-dim-256": 0.308,
          "tcn-dim-512": 0.309, "couple-stem": 0.281, "couple-stage1": 0.283, "couple-stage2": 0.287, "couple-stage3": 0.294,
          "couple-norms": 0.292, "tcn-own-embedding": 0.21, "class-only": 0.23, "siamese": 0.235, "triplet": 0.245,
          "teacher-pca": 0.16, "sake": 0.255, "frozen-conv": 0.272, "hard-conv": 0.299, "l2-sp": 0.29,
          "l2-sp-weight-1000": 0.265, "squared": 0.298, "hws-slow": 0.268, "hard-conv-slow": 0.262}
MAIN_VARIANTS = ("tcn", "hws", "nws")
DIMENSION_VARIANTS = ("tcn-dim-32", "tcn-dim-128", "tcn-dim-256", "tcn-dim-512")
WEIGHT_VARIANTS = tuple(f"tcn-weight-{weight}" for weight in ("0.1", "1", "100", "1000", "10000"))
"""The grid without TCN's own weight, which is 10 here."""
COUPLING_VARIANTS = ("nws", "couple-stem", "couple-stage1", "couple-stage2", "couple-stage3", "tcn", "couple-norms",
                     "tcn-shared-bn", "hws-separate", "hws", "tcn-own-embedding")
METHOD_VARIANTS = ("class-only", "siamese", "triplet", "teacher-pca", "sake")
CONTROL_VARIANTS = ("frozen-conv", "hard-conv", "l2-sp", "l2-sp-weight-1000", "squared", "hws-slow", "hard-conv-slow",
                    "tcn-weight-1000")
ABLATION_VARIANTS = ("nws", "hws-0.1-1", "hws", "hws-10-1", "tcn", "tcn-no-semantic", "tcn-bht", "tcn-bht-sr-0.1",
                     "tcn-bht-sr-1", "tcn-bht-sr-10", "tcn-no-teacher")
ONE_ENCODER = ("hws", "hws-separate", "hws-0.1-1", "hws-10-1", "hws-slow", "class-only", "siamese", "triplet", "sake")
METRICS = {"mAP@all": 0.0, "Prec@R": -0.02, "Prec@5": -0.05, "mAP@200": 0.01, "Prec@100": -0.08, "Prec@200": -0.09}
PROTOCOLS = {"released": 0.0, "cvpr19": 0.12, "zse": -0.006, "sem-pcyc": 0.08, "cvae": -0.09, "standard": -0.004}
"""Rule -> made-up distance from `released`."""
DEVIATIONS = {
    # deviation -> (kind, setting, features, made-up worth in mAP)
    "augmentation": ("training", "data.augmentation", ("real",), -0.021),
    "loader": ("training", "data.loader_streams", ("real",), 0.0),
    "photo-side": ("scoring", "evaluation.photo_side", ("real", "binary"), -0.03),
    "itq-rule": ("scoring", "evaluation.itq_rule", ("binary",), -0.012),
    "ties": ("scoring", "evaluation.ties", ("binary",), 0.001),
    "itq-start": ("scoring", "evaluation.itq_start", ("binary",), 0.004),
    "missing-classes": ("scoring", "evaluation.missing_classes", (), 0.0),
    "exif": ("pictures", "data.exif", (), 0.0),
    "photo-list": ("data", "", (), 0.0),
    "flags": ("fixed", "", (), 0.0),
    "truncation": ("remaining", "", (), 0.0),
    "all": ("training", "", ("real",), -0.06),
}
ARMS = {"augmentation": "ledger-augmentation", "loader": "ledger-loader", "all": "tcn-as-released"}
LEDGER_VARIANTS = ("tcn", "ledger-augmentation", "tcn-as-released")
STARTS = {f"start-{k}": 0.003 * k**2 for k in range(1, 5)}
TIES = {"expected": 0.0, "best": 0.04, "worst": -0.04, "gallery-order": -0.003, "scikit-learn": 0.02}
INSTANCE_METRICS = {"Acc@1": 0.0, "Acc@5": 0.2, "Acc@10": 0.3}
INSTANCE_CHANCE = {"instance-in-class": 0.04, "instance": 0.0016}
"""Scope -> made-up chance level of Acc@1; that of Acc@K is K times as high."""
CEILINGS = {"Prec@100": 0.047, "Prec@200": 0.024}


def level(variant: str) -> float:
    """Made-up mAP of a variant on unseen classes with seed 0; the weight grid peaks at 10."""
    if variant in ARMS.values():
        deviation = next(name for name, arm in ARMS.items() if arm == variant)
        return LEVELS["tcn"] + DEVIATIONS[deviation][3]
    if variant.startswith("tcn-weight-"):
        return 0.30 - 0.02 * abs(math.log10(float(variant.rsplit("-", 1)[1]) + 0.1) - 1)
    return LEVELS.get(variant, 0.20)


def made_up(variant: str, seed: int, metric: str, protocol: str = "released", features: str = "real",
            classes: str = "unseen", source: str = "all", gallery: str = "all",
            duplicates: str = "as-published") -> float:
    """The made-up value of one row of metrics.csv: a formula, so that tests can recompute it."""
    value = level(variant) + METRICS[metric] + 0.011 * seed
    value += PROTOCOLS[protocol]
    value -= 0.015 if duplicates == "distinct" else 0.0
    value -= 0.05 if features == "binary" else 0.0
    value += 0.03 if classes == "validation" else 0.0
    value += {"all": 0.0, SOURCES[0]: 0.01, SOURCES[1]: 0.05, SOURCES[2]: -0.06}[source]
    value -= 0.02 if gallery != "all" else 0.0
    return round(max(value, 0.001), 6)


def made_up_accuracy(variant: str, seed: int, scope: str, metric: str, features: str = "real",
                     duplicates: str = "as-published") -> float:
    """The made-up Acc@K of one row of metrics.csv."""
    value = level(variant) / 2 + INSTANCE_METRICS[metric] + 0.007 * seed + 0.1 * (scope == "instance-in-class")
    return round(value - 0.03 * (features == "binary") + 0.02 * (duplicates == "distinct"), 6)


def deviation_value(deviation: str, arm: str, seed: int, metric: str, features: str) -> float:
    """The made-up value of one row of ledger.csv."""
    worth = (STARTS[arm] * (1 + seed) if arm in STARTS
             else TIES.get(arm, DEVIATIONS[deviation][3] * (1 + seed / 10) if arm == "released" else 0.0))
    return round(made_up("tcn", seed, metric, features=features) + worth, 6)


def made_up_precision(variant: str, seed: int, recall: float) -> float:
    """The made-up precision at a recall: falls from 1 to a tenth of what is left."""
    return round((0.5 + level(variant) + 0.01 * seed) * (1 - recall) + 0.03, 6)


def made_up_distances(variant: str, epochs: int) -> dict[str, np.ndarray]:
    """Arrays of distances.npz: five convolutions and a batch norm each, powers of the step times a share of the norm.

    Layer l of a start of norm l + 1 is step / 1000 of that norm away from the start, two encoders are half as far apart
    again; weights of 1000 move a hundredth as far, frozen convolutions not at all.
    """
    steps = np.array([0, 1, 2, 3, 4, 6, 8, *range(12, 12 * epochs + 1, 6)], dtype=np.int64)
    parts = ["stem", "stage1", "stage2", "stage3", "stage4"]
    kinds = np.array(["convolution", "batch norm"] * len(parts))
    norms = np.arange(1, len(kinds) + 1, dtype=np.float32)
    moved = norms * 1e-3 * (0.01 if "weight-1000" in variant else 1.0)
    if variant == "frozen-conv":
        moved = np.where(kinds == "convolution", 0, moved)
    start = (steps[:, None] * moved).astype(np.float32)
    between = np.zeros_like(start) if variant in ONE_ENCODER else start * np.float32(1.5)
    if variant == "hard-conv":
        between = np.where(kinds == "convolution", np.float32(0), between)
    return {"steps": steps, "layers": np.array([f"{part}.{kind[:4]}" for part in parts for kind in kinds[:2]]),
            "parts": np.repeat(np.array(parts), 2), "kinds": kinds, "start_norm": norms, "between": between, "sketch": start,
            "photo": start}


def ledger_entries() -> list[dict[str, Any]]:
    """The ledger as suite.json holds it."""
    return [{"deviation": deviation, "title": f"the released code does {deviation}", "consequence": f"what {deviation} leads to",
             "kind": kind, "setting": setting, "released": "as-released" if setting else "",
             "corrected": "corrected" if setting else "", "note": f"remark on {deviation}" if kind == "data" else "",
             "arms": {"corrected": "tcn" if deviation in ARMS else None, "released": ARMS.get(deviation)},
             "datasets": ["tuberlin"] if deviation == "augmentation" else []}
            for deviation, (kind, setting, _, _) in DEVIATIONS.items()]


def write_reproduction(root: Path, run: Path, verdict: str = "bit for bit", **changes: Any) -> None:
    """One file of reproductions/."""
    config = json.loads((run / "config.json").read_text())
    _write(root / "reproductions" / f"{run.name}.json", {
        "run": run.name, "identity": config["identity"], "variant": config["variant"], "dataset": config["data"]["dataset"],
        "split": config["data"]["split"], "seed": config["seed"], "verdict": verdict, "tolerance": 1e-4,
        "largest_difference": 0.0, "where": "", "compared": 1234, "same_environment": True, "differences": [],
        "command": f"python benchmarks/run_all.py --reproduce {run.name}", "date": "2000-01-02T00:00:00", **changes})


def write_suite(root: Path, variants: Iterable[str] = EMOJI_VARIANTS, seeds: Iterable[int] = (0,),
                dataset: str = "emoji", split: str = "fixed", smoke: bool = False, classes: int = 12,
                missing: dict[str, str] | None = None, epochs: int = 6, ledger: bool = False,
                class_spread: float = 0.0, pictures: bool = True) -> dict[tuple[str, int], Path]:
    """Write suite.json and one finished run per variant and seed; returns (variant, seed) -> folder.

    A second call on the same root with another data set adds its runs to the plan. `class_spread`: classes' means in
    per_query.npz run from 1 - class_spread to 1 + class_spread times the mean over classes. pictures: whether runs hold the 56
    pictures of their examples, which take half of the time.
    """
    folders = {(variant, seed): write_run(root, variant, seed, dataset, split, classes, epochs, class_spread=class_spread,
                                           pictures=pictures)
               for variant in variants for seed in seeds}
    path = root / "suite.json"
    plan = json.loads(path.read_text())["runs"] if path.exists() else []
    plan += [{"dataset": dataset, "split": split, "variant": variant, "seed": seed, "folder": folder.name,
              "identity": folder.name[-8:]} for (variant, seed), folder in folders.items()]
    _write(path, {"profile": "laptop" if dataset == "emoji" else "paper", "smoke": smoke,
                  "created": "2000-01-01T00:00:00", "command": COMMAND, "missing_datasets": missing or {},
                  "runs": plan, **({"ledger": ledger_entries()} if ledger else {})})
    return folders


def tile_colour(number: int) -> tuple[int, int, int]:
    """The colour of the n-th small picture: one that no other of a suite has, far enough apart to survive a lossy sheet."""
    return 40 + 24 * (number % 8), 40 + 24 * (number // 8 % 8), 40 + 24 * (number // 64 % 8)


def write_pictures(root: Path, run: Path, dataset: str = "emoji", split: str = "fixed", columns: int = 5, rows: int = 4,
                   side: int = 16) -> Path:
    """Small pictures of the queries and photos of a run, in sheets beside the runs; returns their folder.
    All tiles are of one colour."""
    with np.load(run / "features.npz") as arrays:
        queries, photos = arrays["query_paths"].tolist(), arrays["gallery_paths"].tolist()
    folder = root / "pictures" / f"{dataset}-{split}"
    _write(folder / "index.json", {"side": side, "columns": columns, "rows": rows, "queries": queries, "photos": photos})
    total = len(queries) + len(photos)
    for number, start in enumerate(range(0, total, columns * rows)):
        here = min(columns * rows, total - start)
        sheet = Image.new("RGB", (columns * side, -(-here // columns) * side), "white")
        for place in range(here):
            left, top = place % columns * side, place // columns * side
            sheet.paste(tile_colour(start + place), (left, top, left + side, top + side))
        sheet.save(folder / f"{number:03d}.webp", "WEBP", quality=90)
    return folder


def write_run(root: Path, variant: str, seed: int, dataset: str = "emoji", split: str = "fixed", classes: int = 12,
               epochs: int = 6, class_names: Iterable[str] | None = None, class_spread: float = 0.0,
               pictures: bool = True, **changes: Any) -> Path:
    """One finished run with every file of the contract except the checkpoint; `changes` override settings."""
    trained = not variant.startswith("untrained-") and variant != "teacher-pca"
    dim = 32 if variant.startswith("untrained-imagenet") else 8
    if variant.startswith("tcn-dim-"):
        dim = int(variant.rsplit("-", 1)[1])
    identity = f"{abs(hash((dataset, split, variant, seed, str(changes)))) % 16 ** 8:08x}"
    folder = root / "runs" / f"{dataset}-{split}__{variant}__seed{seed}__{identity}"
    folder.mkdir(parents=True)
    weight = float(variant.rsplit("-", 1)[1]) if variant.startswith("tcn-weight-") else 10.0
    config = {"data": {"dataset": dataset, "split": split, "image_size": 32, "batch_pairs": 4},
              "network": {"backbone": "efficientnet-lite0", "dim": dim if variant.startswith("tcn-dim-") else 8},
              "losses": {"sharing": weight},
              "training": {"epochs": epochs if trained else 0, "optimizer": "adam" if trained else "none",
                           "encoder_rate": 3e-4, "head_rate": 3e-3, "select_by": "validation_map"},
              "evaluation": {"features": "backbone" if variant.startswith("untrained-imagenet") else "embedding"},
              "method": "tcn", "variant": variant, "seed": seed, "identity": identity + "0" * 56}
    for dotted, value in changes.items():
        group, _, key = dotted.partition("__")
        config[group][key] = value  # type: ignore[index]
    _write(folder / "config.json", config)
    _write(folder / "status.json", {"state": "finished", "reason": None, "epochs_done": epochs, "best_epoch": 4,
                                    "epochs": epochs if trained else 0})
    _write(folder / "provenance.json", {
        "identity": identity + "0" * 56, "commit": "c0ffee" + "0" * 34, "dirty": False, "diff_sha256": "",
        "versions": {"torch": "0.0.1+test", "torchvision": "0.0.2", "numpy": "0.0.3"}, "python": "3.0.0",
        "device": "made-up device", "threads": 2, "platform": "nowhere", "data_digest": "d" * 64,
        "split_digest": "e" * 64, "command": COMMAND, "started": "2000-01-01T00:00:00",
        "finished": "2000-01-01T00:10:00", "train_seconds": 754.0, "total_seconds": 800.0,
        "seed": seed, "words_digest": "f" * 64, "manifest": {"content_digest": "a1" * 32, "checked": 77, "unreadable": []},
        "optimizer_steps": 12 * epochs if trained else 0,
        "selected_by": "validation mAP@all" if trained else "not trained", "words": "made up", "weights": "made up"})
    names = list(class_names or (f"thing {i:02d}" for i in range(classes)))
    rng = np.random.default_rng([seed, len(variant), sum(map(ord, variant))])
    _write(folder / "mlflow.json", {"uri": "sqlite:////made/up/place/mlflow.db", "run_id": f"{identity}mlflow"})
    _write_metrics(folder, variant, seed, dataset, len(names))
    if variant == "tcn":
        _write_ledger(folder, seed)
    if trained:
        _write_curves(folder, rng, epochs, level(variant), validated=dataset == "emoji")
        np.savez(folder / "distances.npz", **made_up_distances(variant, epochs))
    recalls = [k / 100 for k in range(101)]
    _write_rows(folder / "precision_recall.csv", ["features", "recall", "precision"],
                [("real", recall, made_up_precision(variant, seed, recall)) for recall in recalls])
    _write_features(folder, rng, names, dim)
    _write_per_query(folder, variant, seed, names, class_spread)
    if pictures:
        _write_examples(folder, names, rng)
    return folder


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _write_rows(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def defined(protocol: str, metric: str) -> bool:
    """Whether a rule has such a number."""
    return (protocol, metric) != ("cvpr19", "mAP@all") and (metric not in ("Prec@R", "Prec@5")
                                                            or protocol in ("released", "standard"))


def _write_metrics(folder: Path, variant: str, seed: int, dataset: str, classes: int) -> None:
    rows = []
    views = [("all", "all", "as-published")]
    if dataset == "emoji":
        views += [(source, "all", "as-published") for source in SOURCES]
        views += [(SOURCES[1], "without emojione-v1", "as-published")]
    if dataset == "sketchy":
        views += [("all", "all", "distinct")]
    for where in ("unseen", "validation") if dataset == "emoji" else ("unseen",):
        for features in ("real", "binary"):
            for source, gallery, duplicates in views:
                for protocol in PROTOCOLS if source == gallery == "all" else ("released", "standard"):
                    for metric in (m for m in METRICS if defined(protocol, m)):
                        photos = 5 * classes if gallery == "all" else 4 * classes
                        rows.append((where, features, protocol, metric,
                                     made_up(variant, seed, metric, protocol, features, where, source, gallery, duplicates),
                                     2e-4 if features == "binary" and protocol == "released" else 0.0,
                                     0.021 if gallery == "all" else 0.019, CEILINGS.get(metric, 1.0), "expected", duplicates,
                                     source, gallery, 3 * classes if source == "all" else classes,
                                     photos - classes if duplicates == "distinct" else photos))
        if dataset == "sketchy":
            rows += [(where, features, scope, metric, made_up_accuracy(variant, seed, scope, metric, features, duplicates), 0.0,
                      INSTANCE_CHANCE[scope] * int(metric.removeprefix("Acc@")), 1.0, "expected", duplicates, "all", "all",
                      3 * classes - 2, (5 if duplicates == "as-published" else 4) * classes)
                     for features in ("real", "binary") for duplicates in ("as-published", "distinct")
                     for scope in INSTANCE_CHANCE for metric in INSTANCE_METRICS]
    _write_rows(folder / "metrics.csv", ["classes", "features", "protocol", "metric", "value", "standard_error", "chance",
                                         "ceiling", "ties", "duplicates", "query_source", "gallery", "queries", "photos"], rows)


def _write_ledger(folder: Path, seed: int) -> None:
    rows: list[tuple[Any, ...]] = []
    for deviation, (kind, _, kinds, _) in DEVIATIONS.items():
        if kind == "scoring":
            arms = ("corrected", "released", *(TIES if deviation == "ties" else STARTS if deviation == "itq-start" else ()))
            rows += [(deviation, arm, features, "released", metric, deviation_value(deviation, arm, seed, metric, features), "")
                     for features in kinds for arm in arms for metric in METRICS if metric != "Prec@5"]
            if not kinds:
                rows.append((deviation, "", "", "", "", "", "every query class has photos"))
    _write_rows(folder / "ledger.csv", ["deviation", "arm", "features", "protocol", "metric", "value", "note"], rows)


def _write_per_query(folder: Path, variant: str, seed: int, names: list[str], spread: float) -> None:
    """Values per query whose mean, over classes and over queries alike, is the number of metrics.csv."""
    arrays: dict[str, np.ndarray] = {"query": np.array([f"{name}/query{i}.png" for name in names for i in range(3)]),
                                     "class": np.repeat(np.array(names), 3)}
    shares = np.repeat(class_shares(len(names), spread), 3)
    for features in ("real", "binary"):
        for protocol in PROTOCOLS:
            for metric in (m for m in METRICS if defined(protocol, m)):
                value = made_up(variant, seed, metric, protocol, features)
                arrays[f"{features}/{protocol}/{metric}"] = shares * value * np.tile([0.5, 1.0, 1.5], len(names))
    np.savez(folder / "per_query.npz", **arrays)


def class_shares(classes: int, spread: float) -> np.ndarray:
    """Each class's mean as a multiple of the mean over classes, which it leaves as it is."""
    return 1 + np.linspace(-spread, spread, classes)


def _write_curves(folder: Path, rng: np.random.Generator, epochs: int, top: float, validated: bool) -> None:
    steps = np.arange(1, 12 * epochs + 1)
    losses = {side: start * np.exp(-steps * top / (2.5 * epochs)) + 0.6 * rng.random(len(steps))
              for side, start in (("class_sketch", 4.0), ("class_photo", 3.0))}
    _write_rows(folder / "steps.csv",
                ["step", "epoch", "class_sketch", "class_photo", "distillation", "sharing", "semantic", "total"],
                [(s, (s - 1) // 12 + 1, f"{a:.5f}", f"{b:.5f}", 1, 0, 1, 9) for s, a, b in
                 zip(steps, losses["class_sketch"], losses["class_photo"])])
    rows = [(0, "", "", "", "", "", "", "", "", 0.05, top / 2 if validated else "", 1.0, 30.0)]
    rows += [(e, 3e-4, 3e-3, 9, 2, 2, 1, 0, 1, round(0.9 - top - 0.5 / (e + 1), 4),
              round(top - top / (2 + e), 4) if validated else "", 20.0, 30.0) for e in range(1, epochs + 1)]
    _write_rows(folder / "history.csv", ["epoch", "encoder_rate", "head_rate", "total", "class_sketch", "class_photo",
                                         "distillation", "sharing", "semantic", "seen_accuracy", "validation_map",
                                         "seconds", "pairs_per_second"], rows)


def _write_features(folder: Path, rng: np.random.Generator, names: list[str], dim: int) -> None:
    centres = rng.normal(size=(len(names), dim))
    sides = {}
    for side, count, noise in (("query", 3, 0.6), ("gallery", 5, 0.4)):
        labels = np.repeat(np.arange(len(names)), count)
        values = centres[labels] + noise * rng.normal(size=(len(labels), dim))
        sides[side] = values.astype(np.float32)
        sides[f"{side}_labels"] = np.array([names[i] for i in labels])
        sides[f"{side}_paths"] = np.array([f"{names[i]}/{side}{k}.png" for k, i in enumerate(labels)])
    sides["query_sources"] = np.array([SOURCES[k % 3] for k in range(len(sides["query"]))])
    np.savez(folder / "features.npz", **sides)
    _write_rows(folder / "per_query.csv", ["query", "class", "source", "features", "AP_released", "AP_standard", "Prec@R"],
                [(path, label, source, "real", 0.5, 0.5, 0.5) for path, label, source in
                 zip(sides["query_paths"], sides["query_labels"], sides["query_sources"])])
    rows = []
    for where in ("training", "unseen"):
        for modality in ("sketch", "photo"):
            decay = {"training": 6.0, "unseen": 4.0}[where] + (modality == "photo") + dim / 8
            rows += [(where, modality, i, round(50 * float(np.exp(-(i - 1) / decay)), 6)) for i in range(1, 31)]
    _write_rows(folder / "singular_values.csv", ["set", "modality", "index", "value"], rows)


@functools.cache
def _drawn(index: int, colour: bool) -> bytes:
    """A small drawing as a PNG file; those of different numbers differ."""
    image = Image.new("RGB", (48, 48), "white")
    draw = ImageDraw.Draw(image)
    fill = (40 + 60 * (index % 4), 200 - 37 * (index % 5), 90 + 50 * (index % 3)) if colour else None
    draw.ellipse((6 + index % 9, 8, 40, 42 - index % 11), outline="black", width=2, fill=fill)
    draw.line((10, 40, 40, 10 + 3 * (index % 8)), fill="black", width=2)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _write_examples(folder: Path, names: list[str], rng: np.random.Generator) -> None:
    (folder / "examples").mkdir()

    def picture(name: str, index: int, colour: bool) -> str:
        (folder / "examples" / name).write_bytes(_drawn(index, colour))
        return f"examples/{name}"

    examples = []
    for number, kind in enumerate(("fixed", "fixed", "fixed", "failure")):
        target = number
        retrieved = []
        for rank in range(1, 14):
            other = target if rng.random() < (0.5 if kind == "fixed" else 0.0) else int(rng.integers(len(names)))
            correct = other == target and kind == "fixed"
            other = other if correct or other != target else (other + 1) % len(names)
            retrieved.append({"rank": rank, "class": names[other], "correct": correct,
                              "file": picture(f"{number}-{rank}.png", other * 7 + rank, True)})
        examples.append({"query": {"class": names[target], "file": picture(f"{number}-query.png", target, False),
                                   "source": SOURCES[number % 3]},
                         "average_precision": 0.5 if kind == "fixed" else 0.01, "kind": kind, "retrieved": retrieved})
    _write(folder / "examples.json", {"examples": examples})
