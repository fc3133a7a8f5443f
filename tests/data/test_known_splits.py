"""Which split is a number of: published splits, those of other projects, and files that are of none."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tcn.__main__ import main
from tcn.config import InputError
from tcn.data import known_splits
from tcn.data.specs import SPLITS_FOLDER, read_plan


def unseen(dataset: str, split: str = "1") -> dict[str, dict[str, int]]:
    """Class -> its entry of the committed table, for the unseen ones."""
    stem = f"{dataset}-{split}" if dataset == "sketchy" else dataset
    classes = yaml.safe_load((SPLITS_FOLDER / f"{stem}.yaml").read_text(encoding="utf-8"))["classes"]
    return {name: entry for name, entry in classes.items() if entry["role"] == "unseen"}


def labels(classes: dict[str, dict[str, int]], kind: str) -> np.ndarray:
    return np.repeat(np.array(list(classes)), [entry[kind] for entry in classes.values()])


@pytest.mark.parametrize("dataset, split, queries, photos, title", [
    ("sketchy", "1", 15229, 17101, "Sketchy Extended, split 1 (25 classes)"),
    ("sketchy", "2", None, None, "Sketchy Extended, split 2 (21 classes)"),
    ("tuberlin", "1", 2400, 27989, "TU-Berlin Extended (30 classes)"),
    ("quickdraw", "1", 92291, 54151, "QuickDraw Extended (30 classes)")])
def test_the_published_lists_are_their_own_split(dataset, split, queries, photos, title):
    classes = unseen(dataset, split)
    found = known_splits.check(dataset, split, labels(classes, "sketches"), labels(classes, "photos"))
    assert not found.problems and title in found.identity
    if queries:  # as the released lists have them
        assert (found.queries, found.photos) == (queries, photos) and f"{queries:,} queries" in found.text()


def test_counts_are_compared_class_by_class():
    classes = unseen("sketchy")
    queries, photos = labels(classes, "sketches"), labels(classes, "photos")
    swapped = queries.copy()
    swapped[np.flatnonzero(queries == "bell")[0]] = "tank"  # the sum stays as it was
    found = known_splits.check("sketchy", "1", swapped, photos)
    problem, = found.problems
    assert "2 of 25 classes differ (bell: " in problem and "tank: " in problem and "split 1" in found.identity
    problem, = known_splits.check("sketchy", "1", queries, photos[3:]).problems
    assert "17,098 gallery entries, published are 17,101" in problem
    # 14,602 of the 17,101 entries are different photos: a gallery that holds each once is the published one, and says so
    once = known_splits.check("sketchy", "1", queries, np.concatenate([np.unique(photos), photos[:14602 - 25]]))
    assert not once.problems and "each photo once" in once.text()


def test_sem_pcycs_classes_are_what_its_rule_draws():
    """np.random.seed(0), then 80 or 88 per cent of the sorted class names without replacement: its code, worked out again."""
    for dataset, share, common in (("sketchy", 0.8, 4), ("tuberlin", 0.88, 1)):
        roles = read_plan(dataset, "1").roles
        state = np.random.RandomState(0)
        trained = state.choice(sorted(roles), int(share * len(roles)), replace=False)
        own = sorted(set(roles) - set(trained.tolist()))
        assert len(set(own) & set(unseen(dataset))) == common
        found = known_splits.check(dataset, "1", np.array(own), np.array(own))
        assert "SEM-PCYC" in found.identity and "no split known" not in found.identity
        absent, seen = found.problems
        assert f"{len(own) - common} of its {len(own)} unseen classes are not in the queries and gallery" in absent
        assert f"that are seen ones there: {len(own) - common} (" in seen


def test_kd_sbirs_classes_of_tu_berlin_are_mostly_seen_ones_of_the_published_split():
    known = next(k for k in known_splits.known_splits() if "KD-SBIR" in k.title and k.dataset == "tuberlin")
    plan = read_plan("tuberlin", "1")
    names = [plan.class_of(name) for name in known.unseen]
    assert None not in names and len(set(names)) == 30
    roles = [plan.roles[name] for name in names if name]
    assert (roles.count("unseen"), roles.count("seen")) == (3, 27)
    assert {name for name in names if name and plan.roles[name] == "unseen"} == {"bus", "horse", "hot air balloon"}


def test_no_two_known_splits_are_the_same_and_names_of_other_projects_are_the_data_sets_own():
    every = known_splits.known_splits()
    assert len({known.unseen for known in every}) == len(every) == 9
    for known in every[5:]:
        assert len(known.unseen) == {"sketchy": 25, "tuberlin": 30, "quickdraw": 30}[known.dataset]


def test_spellings_and_classes_of_no_split():
    names = np.array(list(unseen("quickdraw")))
    spelt = np.array([name.replace(" ", "_").upper() for name in names.tolist()])
    assert "QuickDraw Extended" in known_splits.identify(spelt.tolist())
    with pytest.raises(InputError, match="one class spelt in two ways: 'palm tree' and 'palm_tree'"):
        known_splits.check("quickdraw", "1", np.array(["palm tree"]), np.array(["palm_tree"]))
    with pytest.raises(InputError, match="the labels of queries are int64"):
        known_splits.check("quickdraw", "1", np.array([3]), np.array([3]))
    assert known_splits.identify(["flux capacitor"]) == "1 classes, none of them unseen in any split known here"
    found = known_splits.check("tuberlin", "1", np.array(["ant", "zorb"]), np.array(["ant", "zorb", "angel"]))
    assert "classes of the queries that it does not have: 1 (zorb)" in found.text()
    assert "classes of the gallery that are seen ones there: 1 (angel)" in found.text()
    with pytest.raises(InputError, match="choose one of 1, 2"):
        known_splits.parse_name("sketchy/3")


def test_evaluate_says_which_split_a_file_is_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    classes = unseen("tuberlin")
    rng = np.random.default_rng(0)
    arrays = {"query_labels": labels(classes, "sketches")[::40], "gallery_labels": labels(classes, "photos")[::200]}
    arrays |= {side: rng.normal(size=(len(arrays[f"{side}_labels"]), 4)) for side in ("query", "gallery")}
    np.savez(tmp_path / "few.npz", **arrays)
    assert main(["evaluate", str(tmp_path / "few.npz"), "--split", "tuberlin/1", "--missing-classes", "zero"]) == 1
    out, err = capsys.readouterr()
    assert "mAP@all" in out and "warning: " in err and "not tuberlin/1 as published: 60 queries, published are 2,400" in err
    arrays = {"query": rng.normal(size=(2400, 4)), "gallery": rng.normal(size=(27989, 4)),
              "query_labels": labels(classes, "sketches"), "gallery_labels": labels(classes, "photos")}
    np.savez(tmp_path / "whole.npz", **arrays)
    assert main(["evaluate", str(tmp_path / "whole.npz"), "--split", "tuberlin", "--protocols", "standard", "--ks", "5"]) == 0
    out, err = capsys.readouterr()
    assert "split       tuberlin/1, as published" in out and "warning" not in err
    assert main(["evaluate", str(tmp_path / "few.npz"), "--split", "sketchy/1", "--json", "--missing-classes", "zero"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["standard"]["mAP@all"] > 0 and "These are the unseen classes of TU-Berlin Extended" in err
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "few.npz"), "--split", "sketchy/3"])
    assert "unknown split '3' of sketchy" in capsys.readouterr().err
