"""The plan of the mutation run: which files are mutated, how many mutants of each, and the tests that should fail.

In: nothing. Out: `PLAN`, and for each of its files the mutants written by hand and a fixed sample of the generated ones.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.tools.mutant_operators import Mutant, compiles, generated, source_of
from benchmarks.tools.mutants_by_hand import FAULTS

SEED = "tcn mutants 1"
"""Part of the hash that decides which generated mutants are in the sample."""


@dataclass(frozen=True)
class Subject:
    """A file to mutate, the number of generated mutants in its sample, and the tests that should fail, the fastest first."""

    file: str
    sample: int
    tests: tuple[str, ...]


SCORING = ("tests/scoring/test_metrics.py", "tests/scoring/test_speed_scoring.py")
FUSED = tuple(f"tests/model/test_execution.py::{name}" for name in (
    "test_fused_sharing_is_the_norm_of_each_difference", "test_fused_sharing_meets_gradcheck_and_the_plain_form",
    "test_tensors_that_lie_differently_in_memory_or_are_of_half_precision_go_the_plain_way"))
CURVES = tuple(f"tests/train/test_methods.py::{name}" for name in (
    "test_precision_recall_equals_scikit_learns_envelope",
    "test_precision_recall_leaves_out_queries_without_photos_and_refuses_none"))
GIVEN_BACK = tuple(f"tests/robustness/test_given_back.py::{name}" for name in (
    "test_every_module_goes_back_to_its_own_mode_after_an_exception",
    "test_modes_go_back_where_nothing_breaks_and_an_evaluating_model_stays_so",
    "test_a_borrowed_stream_is_torch_s_own_and_goes_back_with_other_devices_untouched"))
REFUSED = "tests/scoring/test_invariances.py::test_svd_start_refuses_what_is_no_classifier"
HANDED_ON = "tests/harness/test_settings_handed_on.py"
SCORED = tuple(f"tests/harness/test_settings_arrive.py::{name}" for name in (
    "test_what_is_extracted_and_scored_changes_where_the_setting_takes_effect_and_nowhere_else",
    "test_the_arms_of_every_deviation_differ_on_data_where_they_can",
    "test_the_ledger_compares_the_same_arms_whatever_rules_the_run_itself_goes_by"))
VALIDATION = f"{HANDED_ON}::test_validation_sees_pictures_as_the_settings_show_them_before_training_and_after_each_epoch"
LOOP = ("tests/train/test_golden.py", "tests/train/test_training.py", VALIDATION)
BATCH_NORMS = tuple(f"tests/model/test_batch_norms.py::{name}" for name in (
    "test_sums_of_blocks_are_added_in_float64", "test_no_copy_of_the_images_is_made_but_block_by_block",
    "test_the_gradient_may_lie_in_memory_as_it_will", "test_running_statistics_move_by_momentum_over_several_batches",
    "test_timm_s_activation_follows_once", "test_one_value_a_channel_is_refused_as_torch_refuses_it",
    "test_statistics_and_gradients_keep_the_digits_of_the_plain_form[drawings-64-8]"))
PLAN = (
    Subject("tcn/train/losses.py", 14, ("tests/train/test_losses.py", *FUSED)),
    Subject("tcn/data/augment.py", 11, ("tests/data/test_images.py", "tests/data/test_pairs.py")),
    Subject("tcn/data/packing.py", 5, ("tests/data/test_packing.py", "tests/data/test_pixels.py")),
    Subject("tcn/data/pairs.py", 7, ("tests/data/test_images.py", "tests/data/test_pairs.py", "tests/train/test_golden.py")),
    Subject("tcn/seeding.py", 3, ("tests/train/test_seeding.py", *GIVEN_BACK)),
    Subject("tcn/scoring/protocols.py", 4, SCORING),
    Subject("tcn/scoring/inputs.py", 3, SCORING),
    Subject("tcn/scoring/retrieve.py", 2, (*SCORING, *CURVES)),
    Subject("tcn/scoring/scores.py", 5, SCORING),
    Subject("tcn/scoring/measures.py", 8, SCORING),
    Subject("tcn/scoring/rankings.py", 7, SCORING),
    Subject("tcn/scoring/cpu/blocks.py", 2, SCORING),
    Subject("tcn/scoring/cpu/runs.py", 3, SCORING),
    Subject("tcn/scoring/cpu/values.py", 3, SCORING),
    Subject("tcn/scoring/cpu/real.py", 2, SCORING),
    Subject("tcn/scoring/cpu/codes.py", 3, SCORING),
    Subject("tcn/scoring/codes.py", 8, ("tests/scoring/test_codes.py",)),
    Subject("tcn/scoring/features.py", 6, ("tests/scoring/test_features.py", "tests/scoring/test_moments.py", *GIVEN_BACK,
                                           "tests/train/test_methods.py")),
    Subject("tcn/scoring/instances.py", 5, ("tests/scoring/test_instances.py",)),
    Subject("tcn/scoring/moments.py", 4, ("tests/scoring/test_moments.py",)),
    Subject("tcn/model/batch_norms.py", 5, BATCH_NORMS),
    Subject("benchmarks/scoring.py", 5, ("tests/harness/test_scoring.py", *SCORED)),
    Subject("benchmarks/extraction.py", 4, (HANDED_ON, *SCORED)),
    Subject("benchmarks/material.py", 3, (HANDED_ON,)),
    Subject("tcn/model/coupling.py", 6, ("tests/model/test_network.py", "tests/train/test_controls.py")),
    Subject("tcn/train/distances.py", 4, ("tests/train/test_controls.py",)),
    Subject("reports/stats/uncertainty.py", 11, ("tests/report/test_statistics.py", "reports/stats/uncertainty.py")),
    Subject("tcn/data/words.py", 7, ("tests/data/test_words.py",)),
    Subject("tcn/model/embedding.py", 4, ("tests/model/test_network.py", REFUSED, *LOOP)),
    Subject("tcn/model/network.py", 4, ("tests/model/test_network.py", *LOOP)),
    Subject("tcn/train/method.py", 4, (*LOOP, HANDED_ON)),
    Subject("tcn/train/loop.py", 8, LOOP),
)


def sample(mutants: Sequence[Mutant], number: int) -> list[Mutant]:
    """`number` of the mutants that compile, in the order of the file. The operators take turns; each takes its mutants in the
    order of the hashes of their names."""
    queues: dict[str, list[Mutant]] = {}
    for mutant in sorted(mutants, key=lambda m: hashlib.sha256(f"{SEED} {m.name}".encode()).digest()):
        queues.setdefault(mutant.operator, []).append(mutant)
    taken: list[Mutant] = []
    while len(taken) < number and any(queues.values()):
        for name in sorted(queues):
            if queues[name] and len(taken) < number:
                first = queues[name].pop(0)
                taken += [first] if compiles(first) else []
    return sorted(taken, key=lambda m: (m.start, m.end, m.text))


def by_hand(file: str) -> list[Mutant]:
    """The mutants of a file that were written by hand. ValueError if the file does not hold a text to replace exactly once."""
    found = []
    for fault in FAULTS:
        if fault.file == file:
            old = fault.old.encode()
            if (times := source_of(file).count(old)) != 1:
                raise ValueError(f"{file} holds {fault.old!r} {times} times; correct the entry in "
                                 f"benchmarks/tools/mutants_by_hand.py")
            start = source_of(file).index(old)
            found.append(Mutant(file, fault.what, start, start + len(old), fault.new.encode()))
    return found


def plan(only: Sequence[str] = ()) -> Iterator[tuple[Subject, list[Mutant]]]:
    """Each subject with its mutants; with `only`, the subjects whose file's name holds one of these texts."""
    for subject in PLAN:
        if not only or any(part in subject.file for part in only):
            hand = by_hand(subject.file)
            known = {mutant.applied() for mutant in hand}
            drawn = [m for m in sample(generated(subject.file), subject.sample) if m.applied() not in known]
            yield subject, hand + drawn
