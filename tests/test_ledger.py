"""The ledger: each trap of the released code is a setting, off by default, and does what the ledger says."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import CPU, config, ingredients, setup

import baselines
from baselines import ledger
from baselines.ledger import TRAPS
from benchmarks.experiments import PROFILES, plan
from benchmarks.runner import LEDGER_METRICS, score_ledger
from tcn import metrics
from tcn.batches import PairSource
from tcn.config import Config, Modality, change, flatten, to_dict
from tcn.datasets import Files
from tcn.pixels import Pixels
from tcn.method import TCN

SWITCHES = [trap for trap in TRAPS if trap.setting and trap.kind in ("training", "scoring")]


# --- settings ------------------------------------------------------------------------------------------------

def test_the_ledger_names_every_trap_once_and_says_how_it_is_measured():
    assert len({trap.trap for trap in TRAPS}) == len(TRAPS)
    for trap in TRAPS:
        assert trap.kind in ledger.KINDS and trap.title and trap.consequence
        assert (trap.kind == "training") == all(trap.arms.values())
        assert trap.kind != "fixed" or trap.note


@pytest.mark.parametrize("trap", SWITCHES, ids=lambda trap: trap.trap)
def test_each_switch_is_corrected_by_default_in_every_profile_and_both_values_are_settings(trap):
    for value in (trap.released, trap.corrected):
        assert flatten(to_dict(change(Config(), {trap.setting: value})))[trap.setting] == value
    for profile in PROFILES.values():
        for delta in profile.base.values():
            assert flatten(to_dict(change(Config(), delta)))[trap.setting] == trap.corrected


@pytest.mark.parametrize("trap", [t for t in SWITCHES if t.kind == "training"], ids=lambda trap: trap.trap)
def test_a_pair_of_runs_differs_in_the_trap_alone(trap):
    arms = {arm: flatten(to_dict(change(Config(), baselines.find(name).delta))) for arm, name in trap.arms.items()}
    different = {key for key in arms["released"] if arms["released"][key] != arms["corrected"][key]}
    assert different == {trap.setting}
    assert arms["released"][trap.setting] == trap.released


def test_as_released_is_the_released_recipe_on_the_paper_profile():
    """Values of the paper's implementation section and the released script, written down by hand."""
    cells = {(c.dataset, c.split): flatten(to_dict(c.config))
             for c in plan(PROFILES["paper"], None, ["tcn"], None, {}, False, as_released=True)}
    assert set(cells) == {("sketchy", "1"), ("sketchy", "2"), ("tuberlin", "1"), ("quickdraw", "1")}
    for (dataset, _), settings in cells.items():
        apart = dataset != "sketchy"
        expected = {
            "seed": 2020, "data.image_size": 224, "data.stored_size": 256, "data.batch_pairs": 32,
            "data.augmentation": "released", "data.loader_streams": "replayed", "data.unit_words": dataset != "tuberlin",
            "network.backbone": "resnet50", "network.weights": "imagenet", "network.dim": 64, "network.start": "svd",
            "network.batch_norm_split": 2, "network.embedding_norm": "per_modality" if apart else "shared",
            "network.dropout": 0.5 if apart else 0.0,
            "losses.class_sketch": 1.0, "losses.class_photo": 1.0, "losses.distillation": 1.0, "losses.sharing": 1000.0,
            "losses.semantic": 1.0, "losses.semantic_form": "coupled", "losses.margin": None,
            "losses.semantic_off": "as-released",
            "training.epochs": 10, "training.encoder_rate": 1e-4, "training.head_rate": 1e-4, "training.weight_decay": 5e-4,
            "training.optimizer": "adam", "training.select_by": "seen_accuracy",
            "evaluation.photo_side": "sketch", "evaluation.itq_rule": "released", "evaluation.itq_fit": "as-released",
            "evaluation.ties": "unstable-sort", "evaluation.missing_classes": "as-released"}
        assert {key: settings[key] for key in expected} == expected


def test_the_variant_with_all_traps_is_what_the_option_makes_of_tcn():
    [variant] = plan(PROFILES["laptop"], None, ["tcn-as-released"], [0], {}, False)
    [option] = plan(PROFILES["laptop"], None, ["tcn"], [0], {}, False, as_released=True)
    [plain] = plan(PROFILES["laptop"], None, ["tcn"], [0], {}, False)
    assert variant.config == option.config != plain.config


def test_tie_orders_of_the_settings_are_those_of_the_metrics():
    for ties in metrics.TIES:
        assert change(Config(), {"evaluation.ties": ties}).evaluation.ties == ties


# --- training ------------------------------------------------------------------------------------------------

def _numbered(first: int, count: int) -> Pixels:
    """Pictures of one class, each of one grey level, so that a batch tells which picture it holds."""
    array = np.repeat(np.arange(first, first + count, dtype=np.uint8), 12 * 12 * 3).reshape(count, 12, 12, 3)
    return Pixels(array, Files(Path("."), tuple(map(str, range(count))), np.zeros(count, int), ("",) * count))


def _drawn(streams: str, epoch: int) -> tuple[list[int], list[int], list[torch.Tensor]]:
    """Which sketch and which photo stood at each place of an epoch (centre pixel), and the sketches' pictures."""
    data = change(Config(), {"data.image_size": 12, "data.stored_size": 12, "data.batch_pairs": 8,
                             "data.loader_streams": streams}).data
    batches = list(PairSource(_numbered(100, 40), _numbered(150, 64), data).epoch(0, epoch, CPU))

    def level(images: torch.Tensor) -> list[int]:
        return ((images[:, 0, 6, 6] * 0.229 + 0.485) * 255).round().int().tolist()

    return (sum((level(b.sketches) for b in batches), []), sum((level(b.photos) for b in batches), []),
            [(b.sketches * 1000).round() for b in batches])


def test_replayed_streams_repeat_sketches_and_geometry_but_not_the_photo_order():
    first, second = _drawn("replayed", 1), _drawn("replayed", 2)
    assert first[0] == second[0] and first[1] != second[1]
    assert all(torch.equal(a, b) for a, b in zip(first[2], second[2]))
    assert len(set(first[0])) > 10


def test_fresh_streams_draw_sketches_and_geometry_anew():
    first, second = _drawn("fresh", 1), _drawn("fresh", 2)
    assert first[0] != second[0] and first[1] != second[1]
    # A turned or shrunk picture uncovers white corners: the masks of the two epochs differ, too.
    corners = [[(b[:, 0, 0, 0] > 2000).tolist() for b in batches] for batches in (first[2], second[2])]
    assert corners[0] != corners[1]
    assert sorted(first[1]) == sorted(second[1]) == list(range(150, 214))


def test_weight_zero_as_released_runs_the_separate_form_at_weight_one():
    settings = {"off": config(**{"losses.semantic": 0}),
                "released": config(**{"losses.semantic": 0, "losses.semantic_off": "as-released"}),
                "separate": config(**{"losses.semantic": 1, "losses.semantic_form": "separate"})}
    totals, terms = {}, {}
    for name, values in settings.items():
        _, source, _ = setup(values)
        model = TCN.build(values, ingredients())
        found = TCN.losses(model, next(source.epoch(0, 1, CPU)), values, torch.Generator().manual_seed(0))
        totals[name], terms[name] = found.total().item(), set(found.terms)
    assert "semantic" not in terms["off"] and "semantic" in terms["released"]
    assert totals["released"] == totals["separate"] != totals["off"]


# --- scoring -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def scored():
    """Rows of a ledger on made-up features of 6 classes, and what they were made of."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(6, 16))

    def rows(labels: np.ndarray, noise: float) -> np.ndarray:
        return (centres[labels] + noise * rng.normal(size=(len(labels), 16))).astype(np.float32)

    query_labels, gallery_labels = np.repeat(np.arange(6), 5), np.repeat(np.arange(6), 9)
    seen = {m: rows(rng.integers(0, 6, 80), 1.5) for m in Modality}
    query, gallery = rows(query_labels, 1.5), rows(gallery_labels, 1.5)
    shifted = gallery + 1.0
    groups = tuple(f"photo {i // 3}" if i < 18 else f"own {i}" for i in range(54))
    files = (Files(Path("."), tuple(map(str, range(30))), query_labels, ("",) * 30),
             Files(Path("."), tuple(map(str, range(54))), gallery_labels, ("",) * 54, groups))
    settings = change(Config(), {"network.dim": 16})
    table = score_ledger(settings, files, seen, query, gallery, shifted)
    found = {(r["trap"], r["arm"], r["features"], r["metric"]): r["value"] for r in table if r.get("value") not in (None, "")}
    return found, table, (query, gallery, shifted, query_labels, gallery_labels, groups)


def test_photo_side_is_scored_from_the_other_gallery(scored):
    found, _, (query, gallery, shifted, query_labels, gallery_labels, _) = scored
    for arm, photos in (("corrected", gallery), ("released", shifted)):
        own = metrics.evaluate(query, photos, query_labels, gallery_labels, protocols=("released",))["released"]
        assert found["photo-side", arm, "real", "mAP@all"] == own["mAP@all"]
    assert found["photo-side", "released", "real", "mAP@all"] != found["photo-side", "corrected", "real", "mAP@all"]
    assert found["photo-side", "released", "binary", "mAP@all"] != found["photo-side", "corrected", "binary", "mAP@all"]


def test_tie_orders_lie_between_the_bounds(scored):
    found = scored[0]
    for metric in LEDGER_METRICS:
        worst, best = (found["ties", arm, "binary", metric] for arm in ("worst", "best"))
        # scikit-learn's shared thresholds are no order, so only true orders are bounded.
        assert all(worst - 1e-12 <= found["ties", arm, "binary", metric] <= best + 1e-12
                   for arm in ("corrected", "released", "expected", "gallery-order"))
    assert found["ties", "worst", "binary", "mAP@all"] < found["ties", "best", "binary", "mAP@all"]
    assert found["ties", "corrected", "binary", "mAP@all"] == found["ties", "expected", "binary", "mAP@all"]


def test_distinct_photos_are_counted_once(scored):
    found, _, (query, gallery, _, query_labels, gallery_labels, groups) = scored
    first = [i for i, g in enumerate(groups) if g not in groups[:i]]
    assert len(first) < len(groups)
    own = metrics.evaluate(query, gallery[first], query_labels, gallery_labels[first], protocols=("released",))["released"]
    assert found["duplicates", "corrected", "real", "mAP@all"] == pytest.approx(own["mAP@all"], rel=1e-12)


def test_codes_of_the_corrected_arm_are_one_and_the_same(scored):
    found = scored[0]
    assert found["itq-rule", "corrected", "binary", "mAP@all"] == found["itq-fit", "corrected", "binary", "mAP@all"] \
        == found["photo-side", "corrected", "binary", "mAP@all"] == found["ties", "corrected", "binary", "mAP@all"]
    assert found["itq-fit", "released", "binary", "mAP@all"] != found["itq-fit", "corrected", "binary", "mAP@all"]


def test_one_matrix_and_blocks_agree_and_what_cannot_occur_is_said(scored):
    found, table, _ = scored
    for metric in LEDGER_METRICS:
        assert found["one-matrix", "released", "real", metric] == pytest.approx(found["one-matrix", "corrected", "real", metric])
    absent = {r["trap"]: r["note"] for r in table if r["trap"] not in {key[0] for key in found}}
    assert absent == {"missing-classes": "every query class has photos"}


def test_a_class_without_photos_is_scored_by_both_rules_where_it_is_allowed(scored):
    _, _, (query, gallery, shifted, query_labels, gallery_labels, _) = scored
    kept = gallery_labels != 5
    files = (Files(Path("."), tuple(map(str, range(30))), query_labels, ("",) * 30),
             Files(Path("."), tuple(map(str, range(kept.sum()))), gallery_labels[kept], ("",) * kept.sum()))
    settings = change(Config(), {"network.dim": 16, "evaluation.missing_classes": "as-released"})
    table = score_ledger(settings, files, {m: query for m in Modality}, query, gallery[kept], shifted[kept])
    found = {(r["trap"], r["arm"], r["features"], r["metric"]): r["value"] for r in table if "arm" in r}
    # 5 of 6 classes have photos: the same sum over six classes or five.
    assert found["missing-classes", "corrected", "real", "mAP@all"] == pytest.approx(
        found["missing-classes", "released", "real", "mAP@all"] * 5 / 6, rel=1e-12)
    assert found["missing-classes", "corrected", "real", "Prec@R"] == found["missing-classes", "released", "real", "Prec@R"]
