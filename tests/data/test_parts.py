"""Parts of a data set as data sets of their own: the first N of each class, Sketchy without its extension, carved classes."""
from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from support.trees import FOLDER, SKETCHY_EXTENDED, SKETCHY_ORIGINALS, SKETCHY_SKETCHES, make_lists, make_tree, split_table

from benchmarks import experiments, prepared, run_all
from benchmarks.material import Material, Places
from tcn.config import Config, InputError, change
from tcn.data import doctor
from tcn.data.specs import SPLITS_FOLDER
from tcn.data.splits import load
from tcn.data.words import load_words, normal_form

FOLDERS = {"sketchy": (SKETCHY_SKETCHES, SKETCHY_ORIGINALS), "tuberlin": ("png_ready", "ImageResized_ready"),
           "quickdraw": ("QuickDraw_sketches_final", "QuickDraw_images_final")}
"""Folders of sketches and of the photos that a sample takes."""


def cut(whole: Path, dataset: str, number: int, to: Path) -> Path:
    """A copy that holds only the first `number` files of each class by name, made by listing folders."""
    for folder in FOLDERS[dataset]:
        for classes in (whole / folder).iterdir():
            for file in sorted(classes.iterdir(), key=lambda path: path.name)[:number]:
                target = to / FOLDER[dataset] / folder / classes.name / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    return to


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> Path:
    """All three data sets, seven sketches and ten photos a class (of Sketchy, five of these are original ones)."""
    root = tmp_path_factory.mktemp("wholes")
    for dataset in FOLDERS:
        make_tree(root, dataset, sketches=7, photos=10, size=2)
    return root


@pytest.mark.parametrize("dataset, split", [("sketchy", "1"), ("sketchy", "2"), ("tuberlin", "1"), ("quickdraw", "1")])
def test_a_sample_is_the_same_cut_from_the_whole_or_alone_and_beside_lists(dataset, split, roots, tmp_path):
    whole = roots / FOLDER[dataset]
    parts = [load(f"{dataset}-first4", split, data_root=root, cache=tmp_path, progress=False)
             for root in (roots, cut(whole, dataset, 4, tmp_path / "cut"))]
    for one, other in zip(parts[0].lists().values(), parts[1].lists().values()):
        assert one.paths == other.paths and len(one) or one is parts[0].validation_sketches or one is parts[0].validation_photos
    assert (parts[0].data_digest, parts[0].split_digest) == (parts[1].data_digest, parts[1].split_digest)
    table = split_table(f"{dataset}-{split}" if dataset == "sketchy" else dataset)["classes"]
    unseen = [name for name, entry in table.items() if entry["role"] == "unseen"]
    assert len(parts[0].query) == 4 * len(unseen) and len(parts[0].gallery) == 4 * len(unseen)
    photos = sorted(path.name for path in (whole / FOLDERS[dataset][1] / unseen[3]).iterdir())[:4]
    assert [Path(path).name for path in parts[0].gallery.paths if Path(path).parent.name == unseen[3]] == photos
    # a quarter of four, at least one, is held out of each seen class
    assert len(parts[0].heldout_sketches) == len(parts[0].seen)

    if dataset != "sketchy":  # whose lists name photos of the extension
        make_lists(tmp_path / "cut" / FOLDER[dataset], dataset, split)
    again = load(f"{dataset}-first4", split, data_root=tmp_path / "cut", cache=tmp_path, progress=False)
    assert again.split_digest == parts[0].split_digest
    assert load(f"{dataset}-first3", split, data_root=roots, cache=tmp_path, progress=False).data_digest != parts[0].data_digest


def test_a_sample_takes_no_lists_and_says_so(roots, tmp_path):
    with pytest.raises(InputError, match="no published lists; leave the option out"):
        load("sketchy-first4", "1", data_root=roots, cache=tmp_path, progress=False, lists=tmp_path)
    for bad in ("sketchy-first0", "emoji-first4", "tuberlin-original", "sketchy-first4-first2"):
        with pytest.raises(InputError, match="unknown data set"):
            load(bad, data_root=roots, cache=tmp_path, progress=False)


def test_sketchy_without_its_extension_runs_under_its_own_name(roots, tmp_path, capsys):
    original = tmp_path / "root" / "Sketchy"
    shutil.copytree(roots / "Sketchy" / "256x256", original / "256x256")
    split = load("sketchy-original", "1", data_root=tmp_path / "root", cache=tmp_path, progress=False)
    assert len(split.gallery) == 25 * 5 and not any(SKETCHY_EXTENDED in path for path in split.gallery.paths)
    profile = experiments.PROFILES["paper"]
    # the folders hold five photos of each class: a sample of Sketchy, and called so
    assert prepared._without_extension(tmp_path / "root", profile) == {"sketchy": "sketchy-first5"}
    assert "as 'sketchy-first5', which is what its folders hold; its numbers are not comparable" in capsys.readouterr().out
    own = next((original / FOLDERS["sketchy"][1]).iterdir())
    for number in range(5, 100):
        (own / f"more-{number:03d}.jpg").touch()
    assert prepared._without_extension(tmp_path / "root", profile) == {"sketchy": "sketchy-original"}
    assert prepared._without_extension(roots, profile) == {}, "the whole is there"
    names = {one_run.name for one_run in experiments.plan(profile, ["sketchy/2"], ["tcn"], [7], {}, False,
                                                    parts={"sketchy": "sketchy-original"})}
    assert names == {"sketchy-original-2__tcn__seed7"}


@pytest.mark.parametrize("asked", [None, ["sketchy"], ["sketchy-first25"], ["sketchy-first25/1", "sketchy/2"]])
def test_the_sample_profile_plans_samples_whichever_name_is_asked_for(asked):
    profile = experiments.PROFILES["sample"]
    runs = experiments.plan(profile, asked, ["tcn"], [0], {}, False, parts=experiments.part_names(profile, None))
    there = [(one_run.dataset, one_run.split, one_run.config.data.dataset) for one_run in runs]
    sketchy = [("sketchy-first25", "1", "sketchy-first25"), ("sketchy-first25", "2", "sketchy-first25")]
    assert there[:2] == sketchy and len(there) == (4 if asked is None else 2)
    assert experiments.part_names(profile, 10)["tuberlin"] == "tuberlin-first10"
    with pytest.raises(InputError, match="emoji-first3"):
        experiments.part_names(experiments.PROFILES["laptop"], 3)


def test_the_default_profile_follows_from_the_data_root_and_the_device(roots, tmp_path, capsys):
    assert prepared.default_profile(None, "auto") == "laptop"
    for sample, said in ((None, "the first 25 sketches"), (3, "the first 3 sketches")):
        assert prepared.default_profile(roots, "cpu", sample=sample) == "sample" and said in capsys.readouterr().out
    assert prepared.default_profile(roots, "cuda:1") == "paper"
    assert prepared.default_profile(tmp_path, "cpu") == "paper", "no Sketchy there"
    device_of = {asked: prepared._device_of_runs(run_all.parser().parse_args(["--launcher", "slurm", *asked.split()]))
                 for asked in ("--slurm gpus=1,time=60", "--slurm cpus=4,time=60", "--slurm gpus=1,time=60 --device cpu")}
    assert list(device_of.values()) == ["cuda", "auto", "cpu"], "jobs in a queue have a GPU where the login node has none"


def test_carved_classes_are_seen_ones_by_their_hash_and_nothing_of_them_is_trained_on(roots, tmp_path):
    own, carved = (load("sketchy", "1", data_root=roots, cache=tmp_path, progress=False, validation=validation)
                   for validation in ("own", "carved"))
    by_hash = sorted(own.seen, key=lambda name: hashlib.sha256(normal_form(name).encode()).hexdigest())
    assert set(carved.validation) == set(by_hash[:15]) and set(carved.seen) == set(by_hash[15:])
    assert carved.unseen == own.unseen and carved.query.paths == own.query.paths and carved.gallery.paths == own.gallery.paths
    trained = {Path(path).parent.name for files in (carved.train_sketches, carved.train_photos, carved.heldout_sketches)
               for path in files.paths}
    assert trained == set(carved.seen)
    assert len(carved.validation_sketches) == 15 * 7 and carved.split_digest != own.split_digest


def test_published_lists_do_not_bring_carved_classes_back_into_training(tmp_path):
    base = make_tree(tmp_path, "tuberlin", sketches=3, photos=2, size=2)
    make_lists(base, "tuberlin")
    split = load("tuberlin", data_root=tmp_path, cache=tmp_path, progress=False, validation="carved")
    assert len(split.validation) == 33 and len(split.seen) == 187
    assert {Path(path).parent.name for path in (*split.train_sketches.paths, *split.train_photos.paths)} == set(split.seen)
    assert len(split.train_sketches) == 2 * 187 and len(split.heldout_sketches) == 187 and len(split.train_photos) == 2 * 187


def test_a_part_brings_words_of_all_its_classes(roots, tmp_path):
    material = Material(Places(tmp_path, roots, progress=False))
    for dataset, split in (("sketchy-first4", "2"), ("sketchy-original", "1"), ("tuberlin-first4", "1"),
                           ("quickdraw-first4", "1")):
        config = change(Config(), {"data.dataset": dataset, "data.split": split})
        assert material.words(config).vectors.shape == (len(material.split_of(config).seen), 384)
        load_words(SPLITS_FOLDER / "paper_words.csv", material.split_of(config).unseen, unit=True)
    with pytest.raises(InputError, match="pass --words FILE"):
        material.words(change(Config(), {"data.dataset": "sketchy", "data.split": "1"}))


def test_the_doctor_takes_a_sample_by_its_name(roots, tmp_path):
    report = doctor.check("sketchy-first3", "1", data_root=roots, cache=tmp_path, fast=True, progress=False)
    assert report.state == "whole" and not report.problems
    assert report.counts["heldout_sketches"]["expected"] == report.counts["heldout_sketches"]["entries"] == 100
    assert report.counts["gallery"] == {"entries": 75, "distinct": 75, "expected": 75, "expected_distinct": None}


@pytest.mark.parametrize("photos, name", [(99, "sketchy-first99"), (100, "sketchy-original"), (101, "sketchy-original")])
def test_without_a_name_the_doctor_checks_the_part_of_sketchy_that_is_there(photos, name, tmp_path):
    for index, class_name in enumerate(split_table("sketchy-1")["classes"]):
        for folder, ending, number in ((SKETCHY_SKETCHES, "png", 2), (SKETCHY_ORIGINALS, "jpg", photos if index == 3 else 2)):
            where = tmp_path / folder / class_name
            where.mkdir(parents=True)
            for one in range(number):
                (where / f"n{index:08d}_{one}{'-1' if ending == 'png' else ''}.{ending}").write_bytes(b"x")
    reports, _ = doctor.check_all(None, data_root=tmp_path, cache=tmp_path / "cache", fast=True, progress=False)
    assert [report.dataset for report in reports if report.dataset.startswith("sketchy")] == [name] * 2
    (tmp_path / SKETCHY_EXTENDED / "cat").mkdir(parents=True)
    reports, _ = doctor.check_all(None, data_root=tmp_path, cache=tmp_path / "cache", fast=True, progress=False)
    assert [report.dataset for report in reports if report.dataset.startswith("sketchy")] == ["sketchy"] * 2
    reports, status = doctor.check_all(["sketchy"], data_root=tmp_path, cache=tmp_path / "cache", fast=True, sample=2,
                                       progress=False)
    assert [report.dataset for report in reports] == ["sketchy-first2"] * 2 and status == 0
