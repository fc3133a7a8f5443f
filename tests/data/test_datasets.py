"""What each split holds, against hand-written facts: classes, lists, held-out sketches, digests."""
from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.trees import SKETCHY_EXTENDED, SKETCHY_ORIGINALS, SKETCHY_SKETCHES, load_tree, make_tree
from support.unseen_classes import UNSEEN

from tcn.data import scan, splits
from tcn.data.specs import SPECS, read_plan

SIZES = {("sketchy", "1"): (100, 25), ("sketchy", "2"): (104, 21), ("tuberlin", "1"): (220, 30),
         ("quickdraw", "1"): (80, 30)}
SOME_SEEN = {"sketchy": {"car_(sedan)", "hot-air_balloon", "jack-o-lantern", "zebra"},
             "tuberlin": {"bear (animal)", "pipe (for smoking)", "flower with stem", "sponge bob"},
             "quickdraw": {"hot-air_balloon", "eiffel tower", "soccer ball", "wine bottle"}}


# --- split contents -----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("dataset", "split"), SIZES)
def test_split_classes_are_the_published_ones(root: Path, dataset: str, split: str) -> None:
    found = load_tree(root, dataset, split)
    assert (len(found.seen), len(found.unseen)) == SIZES[dataset, split]
    assert set(found.unseen) == set(UNSEEN[dataset, split].split(", "))
    assert SOME_SEEN[dataset] <= set(found.seen)
    assert found.validation == ()
    assert len(set(found.classes)) == sum(SIZES[dataset, split])
    assert found.classes == found.seen + found.unseen


@pytest.mark.parametrize(("dataset", "split"), SIZES)
def test_each_list_holds_its_roles_classes_and_nothing_else(root: Path, dataset: str, split: str) -> None:
    found = load_tree(root, dataset, split)
    seen, unseen = SIZES[dataset, split]
    photos = 6 if dataset == "sketchy" else 4
    assert {name: len(files) for name, files in found.lists().items()} == {
        "train_sketches": 5 * seen, "heldout_sketches": seen, "train_photos": photos * seen,
        "validation_sketches": 0, "validation_photos": 0, "query": 6 * unseen, "gallery": photos * unseen}
    folders = {"sketchy": ({SKETCHY_SKETCHES}, {SKETCHY_ORIGINALS, SKETCHY_EXTENDED}),
               "tuberlin": ({"png_ready"}, {"ImageResized_ready"}),
               "quickdraw": ({"QuickDraw_sketches_final"}, {"QuickDraw_images_final"})}[dataset]
    for name, files in found.lists().items():
        its = found.unseen if name in ("query", "gallery") else found.seen
        assert files.labels.dtype == np.int64
        assert len(files.paths) == len(files.labels) == len(files.sources) == len(files.groups)
        assert len(set(files.paths)) == len(files)
        for path, label in zip(files.paths, files.labels, strict=True):
            folder, of_class, file = path.rsplit("/", 2)
            assert of_class == found.classes[label] and of_class in its
            assert folder in folders["photo" in name or name == "gallery"]
            assert (files.root / path).is_file() and file
        assert set(files.sources) <= {""}


def test_no_file_of_an_unseen_class_is_ever_trained_on(root: Path) -> None:
    for dataset, split in SIZES:
        found = load_tree(root, dataset, split)
        unseen = set(UNSEEN[dataset, split].split(", "))
        for files in (found.train_sketches, found.train_photos, found.heldout_sketches):
            assert not {path.split("/")[-2] for path in files.paths} & unseen
            assert files.labels.max() < len(found.seen)


def test_sketchys_twice_named_photos_form_one_group(root: Path) -> None:
    gallery = load_tree(root, "sketchy").gallery
    # of four photos the first two lie in both folders: six entries, four pictures a class
    assert len(gallery) == 6 * 25
    assert len(set(gallery.groups)) == 4 * 25
    by_group: dict[str, set[bytes]] = {}
    for path, group in zip(gallery.paths, gallery.groups, strict=True):
        by_group.setdefault(group, set()).add((gallery.root / path).read_bytes())
    assert all(len(contents) == 1 for contents in by_group.values())


def test_sketchys_sketches_name_the_photo_that_they_were_drawn_from(root: Path) -> None:
    """The photo's stem before the last hyphen; the photos of both folders alike; other data sets' names tell nothing."""
    split = load_tree(root, "sketchy")
    for files in split.lists().values():
        for path, instance in zip(files.paths, files.instances, strict=True):
            name, stem = Path(path).parts[-2], Path(path).stem
            assert instance == f"{name}/{stem.rsplit('-', 1)[0] if path.startswith(SKETCHY_SKETCHES) else stem}"
    assert set(split.query.instances) & set(split.gallery.instances)
    assert all(files.instances == () for name in ("tuberlin", "quickdraw") for files in load_tree(root, name).lists().values())


def test_every_real_sketch_was_drawn_from_a_photo_of_its_class(shared_data: Path) -> None:
    """In the sample and in the released lists of both photo folders: the rule fits every name, and the photo is there."""
    place = shared_data / "sketchy-sample"
    found = {kind: {(one.parent.name, one.name) for one in (place / folder).glob("*/*.*")}
             for kind, folder in (("sketch", SKETCHY_SKETCHES), ("photo", SKETCHY_ORIGINALS))}
    assert _without_photo(found["sketch"], found["photo"]) == []
    assert len(found["sketch"]) == len(found["photo"]) == 125 * 25

    with tarfile.open(shared_data / "lists-tcn.tar.xz") as archive:
        texts = {one.name: archive.extractfile(one).read().decode() for one in archive
                 if "/zeroshot1/" in one.name and one.isfile()}
    lines = {kind: {tuple(line.rsplit(" ", 1)[0].split("/")[-2:]) for name, text in texts.items()
                    if name.split("/")[-1].startswith(kind) for line in text.splitlines()} for kind in ("sketch", "all_photo")}
    assert len(lines["sketch"]) == 75_481
    assert _without_photo(lines["sketch"], lines["all_photo"]) == []


def _without_photo(sketches: set[tuple[str, ...]], photos: set[tuple[str, ...]]) -> list[tuple[str, ...]]:
    stems = {(name, Path(file).stem) for name, file in photos}
    return [(name, file) for name, file in sketches
            if not (told := re.fullmatch(SPECS["sketchy"].drawn_from, Path(file).stem)) or (name, told[1]) not in stems]


def test_a_sketch_whose_name_tells_no_photo_has_none(tmp_path: Path) -> None:
    base = make_tree(tmp_path, "sketchy", sketches=2, photos=2, size=2)
    folder = base / SKETCHY_SKETCHES / "swan"
    (folder / "mine.png").write_bytes((folder / sorted(os.listdir(folder))[0]).read_bytes())
    own = [i for path, i in zip(*(getattr(load_tree(tmp_path, "sketchy").query, f) for f in ("paths", "instances")))
           if "/swan/" in path]
    assert own[0] == "" and all(one.startswith("swan/n") for one in own[1:]) and len(own) == 3


def test_expected_counts_are_those_of_the_published_lists() -> None:
    def total(dataset: str, split: str, role: str, kind: str) -> int:
        plan = read_plan(dataset, split)
        return sum(plan.counts[kind].get(name, 0) for name in plan.of(role))

    assert total("sketchy", "1", "seen", "sketches") == 55_252 + 5_000
    assert total("sketchy", "1", "unseen", "sketches") == 15_229
    assert total("sketchy", "1", "seen", "photos") == 68_401
    assert total("sketchy", "1", "unseen", "photos") == 17_101
    assert total("tuberlin", "1", "seen", "sketches") == 15_400 + 2_200
    assert total("tuberlin", "1", "unseen", "sketches") == 2_400
    assert total("tuberlin", "1", "unseen", "photos") == 27_989
    assert total("quickdraw", "1", "unseen", "sketches") == 92_291
    assert total("quickdraw", "1", "unseen", "photos") == 54_151
    for split in ("1", "2"):
        plan = read_plan("sketchy", split)
        assert plan.totals == {"sketches": 75_481, "photos": 73_002 + 12_500}
        assert sum(plan.counts["sketches"].values()) == 75_481
        assert sum(plan.counts["photos"].values()) == 85_502
    assert read_plan("tuberlin").totals == {"sketches": 20_000, "photos": 204_489}
    assert read_plan("sketchy", "1").held_out_per_class * 100 == 5_000
    assert read_plan("tuberlin").held_out_per_class * 220 == 2_200


def test_headline_metrics_follow_the_paper() -> None:
    assert SPECS["sketchy"].headline["1"] == SPECS["tuberlin"].headline["1"] == ("mAP@all", "Prec@100")
    assert SPECS["sketchy"].headline["2"] == ("mAP@200", "Prec@200")
    assert SPECS["quickdraw"].headline["1"] == ("mAP@all", "Prec@100")
    for spec in SPECS.values():
        assert set(spec.headline) == set(spec.splits)


# --- held-out sketches --------------------------------------------------------------------------------------

def test_held_out_rule_by_hand() -> None:
    names = [f"{number}.png" for number in range(40)]
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"hot air balloon/{name}".encode()).hexdigest())
    for spelling in ("hot-air_balloon", "Hot air balloon", "hot_air_balloon"):
        assert splits.held_out(spelling, names[::-1], 5) == set(ranked[:5])
    assert splits.held_out("hot air balloon", names, 10) == set(ranked[:8]), "never more than a fifth"
    assert splits.held_out("cup", ["1.png", "2.png"], 50) <= {"1.png", "2.png"}
    assert len(splits.held_out("cup", ["1.png", "2.png"], 50)) == 1
    assert splits.held_out("cup", ["1.png"], 50) == set()


def test_full_size_classes_hold_out_exactly_as_many_as_released() -> None:
    assert len(splits.held_out("flower", [f"{n}.png" for n in range(518)], 50)) == 50
    assert len(splits.held_out("ant", [f"{n}.png" for n in range(80)], 10)) == 10


def test_held_out_sketches_are_apart_from_training_and_stable(root: Path) -> None:
    first, again = load_tree(root, "tuberlin"), load_tree(root, "tuberlin")
    assert first.heldout_sketches.paths == again.heldout_sketches.paths
    assert not set(first.heldout_sketches.paths) & set(first.train_sketches.paths)
    of_seen = {f"png_ready/{name}/{file.name}" for name in first.seen
               for file in (first.query.root / "png_ready" / name).iterdir()}
    assert set(first.heldout_sketches.paths) | set(first.train_sketches.paths) == of_seen
    assert sorted(first.heldout_sketches.labels) == list(range(220))


# --- digests ------------------------------------------------------------------------------------------------

def test_digests_follow_the_contents_and_never_the_place(tuberlin: Path, tmp_path: Path) -> None:
    here = load_tree(tuberlin.parent, "tuberlin")
    shutil.copytree(tuberlin, tmp_path / "else" / "where" / "tu-berlin")
    there = load_tree(tmp_path / "else" / "where", "tuberlin")
    assert (here.data_digest, here.split_digest) == (there.data_digest, there.split_digest)

    file = min((tuberlin / "png_ready" / "cup").iterdir())
    file.write_bytes(file.read_bytes() + b"\0")
    grown = load_tree(tuberlin.parent, "tuberlin")
    assert grown.data_digest != here.data_digest and grown.split_digest == here.split_digest
    file.rename(file.with_name("renamed.png"))
    renamed = load_tree(tuberlin.parent, "tuberlin")
    assert renamed.data_digest != grown.data_digest and renamed.split_digest != grown.split_digest


@pytest.mark.parametrize("dataset", ["sketchy", "tuberlin", "quickdraw"])
def test_the_data_digest_is_that_of_all_names_and_sizes_in_order(root: Path, dataset: str) -> None:
    found = load_tree(root, dataset)
    there = []
    for folder in SPECS[dataset].folders:
        there += [(folder, file.parent.name, file.name, file.stat().st_size)
                  for file in (found.query.root / folder).rglob("*.*") if file.is_file()]
    lines = "\n".join(f"{folder}/{name}/{file}\t{size}" for folder, name, file, size in sorted(there))
    assert found.data_digest == hashlib.sha256(lines.encode()).hexdigest()


def test_what_one_split_listed_serves_the_next(root: Path, tmp_path: Path) -> None:
    """Equal splits; and the second goes by what the first saw, not by the folders."""
    shutil.copytree(root / "Sketchy", tmp_path / "Sketchy")
    late = tmp_path / "Sketchy" / SKETCHY_SKETCHES / "bat" / "late.png"
    listings: scan.Listings = {}
    load_tree(tmp_path, "sketchy", "1", listings=listings)
    assert len(listings) == 3 * 125
    shutil.copy(next(late.parent.iterdir()), late)
    (late.parent / "notes.txt").write_text("x")
    plain, kept = load_tree(root, "sketchy", "2"), load_tree(tmp_path, "sketchy", "2", listings=listings)
    again = load_tree(tmp_path, "sketchy", "2")
    assert (kept.data_digest, kept.split_digest, kept.notes) == (plain.data_digest, plain.split_digest, plain.notes)
    assert len(again.query) == len(kept.query) + 1 and any("bat/notes.txt" in note for note in again.notes)


def test_both_sketchy_splits_share_the_data_digest_only(root: Path) -> None:
    one, two = load_tree(root, "sketchy", "1"), load_tree(root, "sketchy", "2")
    assert one.data_digest == two.data_digest
    assert one.split_digest != two.split_digest
