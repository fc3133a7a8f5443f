"""Each setting reaches what it is for: a run changes where it should when one setting is changed, and nowhere before.

The functions have tests of their own. These are of the way to them: the harness that hands settings over. A setting that it
dropped on the way, or replaced by a constant, would be recorded with a run and do nothing.
"""
from __future__ import annotations

from typing import Any

import pytest
from support.runs_in_memory import UNSEEN, Outcome, config_of, ran

from baselines.ledger import DEVIATIONS
from tcn.config import PARTS, Config, flatten, to_dict

HARD = {**{f"coupling.{part}": "hard" for part in PARTS}, "coupling.batch_norm_affine": "hard",
        "coupling.batch_norm_statistics": "hard"}
NO_ANCHORS = {"losses.semantic": 0.0}
FIRST, LATER, MODEL = "the first step", "later steps", "the model kept"
TRAINED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "data.image_size": ({}, 9, FIRST), "data.batch_pairs": ({}, 4, FIRST), "data.augmentation": ({}, "released", FIRST),
    "data.sketch_fill": ({}, 90, FIRST), "data.photo_fill": ({}, 140, FIRST), "data.loader_streams": ({}, "replayed", FIRST),
    "data.resize": ({}, "rounded", FIRST),
    **{f"coupling.{part}": ({}, "none", LATER) for part in PARTS},
    "coupling.batch_norm_affine": ({}, "soft", LATER), "coupling.batch_norm_statistics": ({}, "hard", MODEL),
    "coupling.embedding": ({}, "none", LATER), "coupling.call": (HARD, "joint", FIRST),
    "network.dim": ({}, 2, FIRST), "network.embedding_norm": ({}, "per_modality", MODEL), "network.dropout": ({}, 0.4, FIRST),
    "network.start": ({}, "random", FIRST), "network.batch_norm_split": ({}, 2, FIRST),
    **{f"losses.{name}": ({}, 0.5, FIRST) for name in ("class_sketch", "class_photo", "distillation", "semantic", "margin")},
    "losses.sharing": ({}, 3.0, LATER), "losses.semantic_form": ({}, "separate", FIRST),
    "losses.regression": ({"losses.semantic_form": "separate"}, 0.5, FIRST),
    "losses.semantic_off": (NO_ANCHORS, "as-released", FIRST),
    "training.epochs": ({}, 2, LATER), "training.encoder_rate": ({}, 6e-3, LATER), "training.head_rate": ({}, 6e-2, LATER),
    "training.weight_decay": ({}, 0.0, LATER),
    "training.select_by": ({"seed": 2023, "training.epochs": 2}, "validation_map", MODEL),
    "execution.precision": ({"losses.distillation": 0.0}, "bf16", FIRST), "method": ({}, "triplet", FIRST),
    "seed": ({}, 7, FIRST)}
"""Setting -> what else is set, its other value, and where a trained run first shows it."""

UNTRAINED = {"training.optimizer": "none", "training.epochs": 0}
WIDE = {**UNTRAINED, "evaluation.features": "backbone", "network.dim": 4}
SPREAD = {**WIDE, "evaluation.statistics": "per_modality"}
QUERY, GALLERY, REAL, BINARY = "queries", "photos", "scores of features", "scores of codes"
EVERYTHING = {QUERY, GALLERY, REAL, BINARY}
SCORED: dict[str, tuple[dict[str, Any], Any, set[str]]] = {
    "data.image_size": (UNTRAINED, 9, EVERYTHING), "data.resize": (UNTRAINED, "rounded", {QUERY, GALLERY}),
    "evaluation.features": (UNTRAINED, "backbone", EVERYTHING), "evaluation.statistics": (WIDE, "per_modality", EVERYTHING),
    "network.dim": (SPREAD, 2, {BINARY}),
    "evaluation.photo_side": ({"network.embedding_norm": "per_modality", "training.epochs": 1}, "sketch",
                              {GALLERY, REAL, BINARY}),
    "evaluation.binary": (UNTRAINED, False, {BINARY}), "evaluation.itq_rule": (SPREAD, "released", {BINARY}),
    "evaluation.itq_start": (SPREAD, "released", {BINARY}), "evaluation.itq_fit": (SPREAD, "as-released", {BINARY}),
    "evaluation.ties": (SPREAD, "best", {BINARY}), "seed": (SPREAD, 7, {BINARY}),
    "evaluation.missing_classes": ({**SPREAD, "evaluation.missing_classes": "zero"}, "as-released", {REAL, BINARY})}
"""The same of what is extracted and scored."""

ELSEWHERE = {
    "data.dataset", "data.split", "data.validation", "data.stored_size", "data.transparent", "data.exif", "data.unit_words",
    "network.backbone", "network.weights", "network.teacher_weights", "training.optimizer", "execution.memory_format",
    "execution.batch_norm", "execution.compile", "execution.graphs", "execution.optimizer", "execution.sharing",
    "execution.teacher", "execution.convolutions", "execution.algorithms"}
"""Settings with a test of their own below."""
OF_THE_USERS_OWN = {"data.declared": "test_own_datasets.py", "method_source": "test_own_methods.py"}


def test_every_setting_is_looked_for():
    assert {*TRAINED, *SCORED, *ELSEWHERE, *OF_THE_USERS_OWN} == set(flatten(to_dict(Config())))


# --- a run from its plan to its folder -----------------------------------------------------------------------

@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs by their settings, each made once."""
    made: dict[str, Outcome] = {}

    def run(settings: dict[str, Any], **how: Any) -> Outcome:
        key = repr((sorted(settings.items()), how))
        if key not in made:
            made[key] = ran(config_of(**settings), tmp_path_factory.mktemp("run"), **how)
        return made[key]

    return run


def trained_parts(outcome: Outcome) -> dict[str, Any]:
    state = {name: tensor.tolist() for name, tensor in outcome.model.state_dict().items()}
    return {FIRST: outcome.steps[0], LATER: outcome.steps[1:], MODEL: state}


@pytest.mark.parametrize("key", TRAINED)
def test_a_trained_run_changes_where_the_setting_takes_effect_and_not_before(key, runs):
    base, value, place = TRAINED[key]
    before, after = (trained_parts(runs(settings, scored=False)) for settings in (base, {**base, key: value}))
    different = [name for name in before if before[name] != after[name]]
    assert different and different[0] == place


def scored_parts(outcome: Outcome) -> dict[str, Any]:
    def rows(kind: str) -> list[tuple[str, ...]]:
        return [(row.classes, row.protocol, row.metric, f"{row.value:.9f}") for row in outcome.scores.metrics
                if row.features == kind]

    both = (outcome.features.unseen, outcome.features.validation)
    return {QUERY: [own.query.tolist() for own in both], GALLERY: [own.gallery.tolist() for own in both], REAL: rows("real"),
            BINARY: rows("binary")}


@pytest.mark.parametrize("key", SCORED)
def test_what_is_extracted_and_scored_changes_where_the_setting_takes_effect_and_nowhere_else(key, runs):
    base, value, places = SCORED[key]
    without = UNSEEN[-1] if key == "evaluation.missing_classes" else None
    before, after = (scored_parts(runs(settings, without=without)) for settings in (base, {**base, key: value}))
    different = {name for name in before if before[name] != after[name]}
    assert different >= places and (key == "data.resize" or different == places)


def test_no_optimizer_means_that_nothing_is_trained(runs):
    outcome = runs(UNTRAINED)
    assert outcome.steps == [] and len(runs({}, scored=False).steps) == 2


# --- the ledger ----------------------------------------------------------------------------------------------

ARMS = {"network.dim": 4, "network.embedding_norm": "per_modality", "training.epochs": 1, "training.head_rate": 0.2,
        "evaluation.missing_classes": "zero"}


def arms_of(outcome: Outcome) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """Deviation and kind of features -> arm -> metric -> value."""
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in outcome.ledger:
        found.setdefault((row.deviation, row.features), {}).setdefault(row.arm, {})[row.metric] = row.value
    return found


def test_the_arms_of_every_deviation_differ_on_data_where_they_can(runs):
    """A class without photos, photos listed twice, statistics by modality, codes that tie. One matrix alone changes nothing.

    Of three runs: so few pictures may by chance be ranked alike in one of them.
    """
    made = [arms_of(runs({**ARMS, "seed": seed}, ledger=True, without=UNSEEN[-1], repeated=True)) for seed in (2020, 2021, 2022)]
    kinds = {"photo-side": ("real", "binary"), "duplicates": ("real", "binary"), "one-matrix": ("real",),
             "missing-classes": ("real",)}
    expected = {(d.deviation, kind) for d in DEVIATIONS if d.kind == "scoring" for kind in kinds.get(d.deviation, ("binary",))}
    differing = set()
    for arms in made:
        assert set(arms) == expected
        differing |= {key for key, of in arms.items() if of["corrected"] != pytest.approx(of["released"], rel=1e-9)}
    assert differing == expected - {("one-matrix", "real")}


def test_the_ledger_compares_the_same_arms_whatever_rules_the_run_itself_goes_by(runs):
    released = {"evaluation.itq_rule": "released", "evaluation.itq_fit": "as-released", "evaluation.itq_start": "released",
                "evaluation.ties": "as-released", "evaluation.photo_side": "sketch"}
    plain, other = (runs({**ARMS, **delta}, ledger=True, without=UNSEEN[-1], repeated=True) for delta in ({}, released))
    assert plain.ledger == other.ledger and scored_parts(plain) != scored_parts(other)
