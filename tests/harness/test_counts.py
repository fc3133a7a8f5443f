"""What the numbers of a plan tell is said before anything runs: settings that a split's pictures can't meet."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.own_set import make_set
from support.small_suite import ONE, common

from benchmarks import counts
from benchmarks.launch import local
from tcn.config import Config, InputError, change
from tcn.data import declared, specs, splits


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Of eight classes, five of them seen, none for validation."""
    root = tmp_path_factory.mktemp("set")
    specs.add(declared.read(make_set(root)))
    return splits.load("little_zoo", data_root=None, cache=root, progress=False)


def settings(**values: Any) -> Config:
    return change(Config(), {name.replace("__", "."): value for name, value in values.items()})


@pytest.mark.parametrize("setting, variants, said, rest", [
    ("training.select_by=validation_map", ("untrained-svd", "tcn", "hws"),
     "quickdraw, split 1: setting 'training.select_by' is 'validation_map', and there are no validation", "untrained-svd"),
    ("network.dim=97", ("untrained-imagenet", "teacher-pca"),
     "'network.dim' is 97, and features of test_resnet have 96 principal components", "untrained-imagenet")])
def test_a_setting_that_some_runs_can_t_meet_is_said_once_before_any_run(place, command, tmp_path, monkeypatch, setting, variants,
                                                                         said, rest):
    monkeypatch.setattr(local, "attempt", lambda *arguments, **options: pytest.fail("a run was started"))
    status, _, err = command(*common(place)[:-5], setting, *ONE, "--output", str(tmp_path / "out"), "--variants", *variants)
    assert status == 2 and err.count(said) == 1 and f"--variants {rest}\n" in err and not (tmp_path / "out").exists(), err


def without(files: splits.Files, label: int | None = None) -> splits.Files:
    """A list without the pictures of one class, or without any."""
    kept = [] if label is None else np.flatnonzero(files.labels != label).tolist()
    return replace(files, **{name: tuple(getattr(files, name)[row] for row in kept) if getattr(files, name) else ()
                             for name in ("paths", "sources", "groups", "instances")}, labels=files.labels[kept])


def test_each_count_is_compared_with_what_a_run_needs(split):
    pictures = len(split.train_sketches) + len(split.train_photos)
    untrained = {"training__optimizer": "none", "training__epochs": 0}
    for config, other, words in (
            (settings(training__select_by="validation_map"), split, "there are no validation classes"),
            (settings(), replace(split, heldout_sketches=without(split.heldout_sketches)), "no sketches of seen .* are held out"),
            (settings(), replace(split, train_sketches=without(split.train_sketches, 1)), "no training sketch of bee;"),
            (settings(data__batch_pairs=1), split, "in batches of 1 .*batch norms need 2"),
            (settings(evaluation__statistics="pca", network__dim=pictures + 1, **untrained), split,
             f"dim' is {pictures + 1}, and features of the {pictures} seen .* of little_zoo, split fixed have {pictures} "),
            (settings(), replace(split, gallery=without(split.gallery, split.classes.index("elk"))), "no photo of elk;")):
        with pytest.raises(InputError, match=words):
            for check in counts.CHECKS:
                check(config, other)
    for config in (settings(), settings(evaluation__statistics="pca", network__dim=pictures),
                   settings(data__batch_pairs=1, **untrained)):
        for check in counts.CHECKS:
            check(config, split)
    fewer = replace(split, gallery=without(split.gallery, split.classes.index("elk")))
    counts.check_gallery(settings(evaluation__missing_classes="zero"), fewer)
