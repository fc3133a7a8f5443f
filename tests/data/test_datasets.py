"""Data sets: split contents against hand-written facts, problems said precisely, digests, held-out rule,
lists."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.trees import (
    DRAWINGS,
    PICTURES,
    SKETCHY_EXTENDED,
    SKETCHY_ORIGINALS,
    SKETCHY_SKETCHES,
    make_emoji,
    make_listed,
    make_lists,
    make_tree,
)

from tcn.config import InputError
from tcn.data import emoji, locate, scan, splits
from tcn.data.lists import read_list
from tcn.data.locate import available
from tcn.data.scan import Listings
from tcn.data.specs import SPECS, SPLITS_FOLDER, read_plan
from tcn.data.splits import load

UNSEEN = {
    ("sketchy", "1"): "airplane, bell, butterfly, camel, chicken, cup, deer, harp, horse, parrot, pineapple, "
                      "ray, rifle, scissors, snail, squirrel, swan, tank, teddy_bear, tree, umbrella, "
                      "volcano, wheelchair, windmill, wine_bottle",
    ("sketchy", "2"): "bat, cabin, cow, dolphin, door, giraffe, helicopter, mouse, pear, raccoon, "
                      "rhinoceros, saw, scissors, seagull, skyscraper, songbird, sword, tree, wheelchair, "
                      "windmill, window",
    ("tuberlin", "1"): "ant, banana, bottle opener, brain, bread, bridge, bus, canoe, fan, frying-pan, "
                       "horse, hot air balloon, laptop, lighter, parachute, penguin, pizza, rollerblades, "
                       "shoe, snowboard, space shuttle, streetlight, suitcase, t-shirt, table, teacup, "
                       "telephone, tractor, trombone, windmill",
    ("quickdraw", "1"): "bat, cow, dolphin, door, giraffe, helicopter, mouse, raccoon, rhinoceros, saw, "
                        "scissors, skyscraper, tree, windmill, feather, campfire, palm tree, fire_hydrant, "
                        "bread, beach, megaphone, cactus, zebra, tiger, shark, frog, banana, cake, "
                         "hamburger, fan",
}
SIZES = {("sketchy", "1"): (100, 25), ("sketchy", "2"): (104, 21), ("tuberlin", "1"): (220, 30),
         ("quickdraw", "1"): (80, 30)}
SOME_SEEN = {"sketchy": {"car_(sedan)", "hot-air_balloon", "jack-o-lantern", "zebra"},
             "tuberlin": {"bear (animal)", "pipe (for smoking)", "flower with stem", "sponge bob"},
             "quickdraw": {"hot-air_balloon", "eiffel tower", "soccer ball", "wine bottle"}}


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three data sets, six sketches and four photos a class; read only."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("sketchy", "tuberlin", "quickdraw"):
        make_tree(folder, name, sketches=6, photos=4, size=4)
    return folder


@pytest.fixture(scope="session")
def whole_tuberlin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("whole"), "tuberlin", sketches=2, photos=1, size=2)


@pytest.fixture
def tuberlin(whole_tuberlin: Path, tmp_path: Path) -> Path:
    """A TU-Berlin tree to spoil; its own folder. A copy takes a quarter of the time."""
    return Path(shutil.copytree(whole_tuberlin, tmp_path / whole_tuberlin.name))


def _load(root: Path, dataset: str, split: str | None = None, **options: object) -> splits.Split:
    return load(dataset, split, data_root=root, cache=root / "no-cache", progress=False, **options)


# --- split contents -----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("dataset", "split"), SIZES)
def test_split_classes_are_the_published_ones(root: Path, dataset: str, split: str) -> None:
    found = _load(root, dataset, split)
    assert (len(found.seen), len(found.unseen)) == SIZES[dataset, split]
    assert set(found.unseen) == set(UNSEEN[dataset, split].split(", "))
    assert SOME_SEEN[dataset] <= set(found.seen)
    assert found.validation == ()
    assert len(set(found.classes)) == sum(SIZES[dataset, split])
    assert found.classes == found.seen + found.unseen


@pytest.mark.parametrize(("dataset", "split"), SIZES)
def test_each_list_holds_its_roles_classes_and_nothing_else(root: Path, dataset: str, split: str) -> None:
    found = _load(root, dataset, split)
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
        found = _load(root, dataset, split)
        unseen = set(UNSEEN[dataset, split].split(", "))
        for files in (found.train_sketches, found.train_photos, found.heldout_sketches):
            assert not {path.split("/")[-2] for path in files.paths} & unseen
            assert files.labels.max() < len(found.seen)


def test_sketchys_twice_named_photos_form_one_group(root: Path) -> None:
    gallery = _load(root, "sketchy").gallery
    # of four photos the first two lie in both folders: six entries, four pictures a class
    assert len(gallery) == 6 * 25
    assert len(set(gallery.groups)) == 4 * 25
    by_group: dict[str, set[bytes]] = {}
    for path, group in zip(gallery.paths, gallery.groups, strict=True):
        by_group.setdefault(group, set()).add((gallery.root / path).read_bytes())
    assert all(len(contents) == 1 for contents in by_group.values())


def test_sketchys_sketches_name_the_photo_that_they_were_drawn_from(root: Path) -> None:
    """The photo's stem before the last hyphen; the photos of both folders alike; other data sets' names tell nothing."""
    split = _load(root, "sketchy")
    for files in split.lists().values():
        for path, instance in zip(files.paths, files.instances, strict=True):
            name, stem = Path(path).parts[-2], Path(path).stem
            assert instance == f"{name}/{stem.rsplit('-', 1)[0] if path.startswith(SKETCHY_SKETCHES) else stem}"
    assert set(split.query.instances) & set(split.gallery.instances)
    assert all(files.instances == () for name in ("tuberlin", "quickdraw") for files in _load(root, name).lists().values())


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
    own = [i for path, i in zip(*(getattr(_load(tmp_path, "sketchy").query, f) for f in ("paths", "instances")))
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
    first, again = _load(root, "tuberlin"), _load(root, "tuberlin")
    assert first.heldout_sketches.paths == again.heldout_sketches.paths
    assert not set(first.heldout_sketches.paths) & set(first.train_sketches.paths)
    of_seen = {f"png_ready/{name}/{file.name}" for name in first.seen
               for file in (first.query.root / "png_ready" / name).iterdir()}
    assert set(first.heldout_sketches.paths) | set(first.train_sketches.paths) == of_seen
    assert sorted(first.heldout_sketches.labels) == list(range(220))


# --- problems -----------------------------------------------------------------------------------------------

def test_all_problems_are_named_at_once(tuberlin: Path) -> None:
    shutil.rmtree(tuberlin / "png_ready" / "ant")
    shutil.rmtree(tuberlin / "ImageResized_ready" / "zebra")
    (tuberlin / "ImageResized_ready" / "griffin").mkdir()
    for file in (tuberlin / "png_ready" / "bread").iterdir():
        file.unlink()
    shutil.copytree(tuberlin / "png_ready" / "t-shirt", tuberlin / "png_ready" / "T_Shirt")
    (tuberlin / "png_ready" / "cup" / "9999.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        _load(tuberlin.parent, "tuberlin")
    said = str(caught.value)
    assert str(tuberlin) in said and "6 problems" in said
    assert "png_ready: 1 of 250 classes missing: ant (80 sketches, 424 photos expected)" in said
    assert "ImageResized_ready: 1 of 250 classes missing: zebra (80 sketches expected)" in said
    assert "ImageResized_ready: 1 unexpected class folder: griffin" in said
    assert "png_ready: 1 class folder without any image: bread (80 sketches, 1273 photos expected)" in said
    assert "'T_Shirt' and 't-shirt' are both class 't-shirt'" in said
    assert "png_ready: 1 file of 0 bytes: cup/9999.png" in said


def test_lenient_loading_leaves_broken_classes_out_and_says_so(tuberlin: Path) -> None:
    shutil.rmtree(tuberlin / "png_ready" / "ant")
    shutil.rmtree(tuberlin / "ImageResized_ready" / "zebra")
    (tuberlin / "ImageResized_ready" / "griffin").mkdir()
    found = _load(tuberlin.parent, "tuberlin", strict=False)
    assert len(found.seen) == 219 and len(found.unseen) == 29
    assert not {"ant", "zebra", "griffin"} & set(found.classes)
    assert set(found.train_photos.labels) == set(range(219))
    said = "\n".join(found.notes)
    assert "ant" in said and "zebra" in said and "griffin" in said


def test_class_folders_may_be_spelt_otherwise(tuberlin: Path) -> None:
    plain = _load(tuberlin.parent, "tuberlin")
    for old, new in (("hot air balloon", "hot-air_balloon"), ("palm tree", "Palm_Tree"),
                     ("frying-pan", "frying pan"), ("bear (animal)", "bear_(animal)")):
        (tuberlin / "ImageResized_ready" / old).rename(tuberlin / "ImageResized_ready" / new)
    spelt = _load(tuberlin.parent, "tuberlin")
    assert spelt.classes == plain.classes
    assert "ImageResized_ready/hot-air_balloon/hot air balloon_0.jpg" in spelt.gallery.paths
    assert (spelt.gallery.labels == plain.gallery.labels).all()
    assert (spelt.data_digest, spelt.split_digest) == (plain.data_digest, plain.split_digest)


def test_stray_files_are_ignored_and_counted(tuberlin: Path) -> None:
    before = _load(tuberlin.parent, "tuberlin")
    (tuberlin / "png_ready" / "filelist.txt").write_text("x")
    (tuberlin / "png_ready" / "__MACOSX").mkdir()
    (tuberlin / "png_ready" / "cup" / "Thumbs.db").write_text("x")
    (tuberlin / "png_ready" / "cup" / "._1.png").write_text("x")
    (tuberlin / "png_ready" / "cup" / "more.png").mkdir()
    (tuberlin / "ImageResized_ready" / ".DS_Store").write_text("x")
    after = _load(tuberlin.parent, "tuberlin")
    assert after.data_digest == before.data_digest and after.split_digest == before.split_digest
    assert any(note == "png_ready: ignored 5 stray files: __MACOSX, cup/._1.png, cup/Thumbs.db, "
                       "cup/more.png, filelist.txt" for note in after.notes)
    assert any(note == "ImageResized_ready: ignored 1 stray file: .DS_Store" for note in after.notes)


def test_image_endings_in_any_case_count(tuberlin: Path) -> None:
    folder = tuberlin / "ImageResized_ready" / "ant"
    for ending in ("JPEG", "JPG", "jpeg", "PNG"):
        shutil.copy(folder / "ant_0.jpg", folder / f"more_{ending}.{ending}")
    found = _load(tuberlin.parent, "tuberlin")
    mine = [path.rsplit("/")[-1] for path in found.gallery.paths if "/ant/" in path]
    assert mine == ["ant_0.jpg", "more_JPEG.JPEG", "more_JPG.JPG", "more_PNG.PNG", "more_jpeg.jpeg"]


def test_counts_that_differ_are_notes(tuberlin: Path) -> None:
    notes = "\n".join(_load(tuberlin.parent, "tuberlin").notes)
    assert "png_ready: 250 classes with other counts than in the published lists: airplane 2 of 80" in notes
    assert "ImageResized_ready: 30 classes with other counts than in the published lists: windmill 1 of " \
           "2922, brain 1 of 1297" in notes
    assert "ImageResized_ready: 250 photos in all, 204,489 expected" in notes


def test_expected_counts_met_leave_no_note(tuberlin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = read_plan("tuberlin")
    small = dataclasses.replace(
        plan, counts={"sketches": dict.fromkeys(plan.roles, 2), "photos": dict.fromkeys(plan.roles, 1)},
        totals={"sketches": 500, "photos": 252}, totals_rounded=True, held_out_per_class=0)
    monkeypatch.setattr(splits, "read_plan", lambda *_: small)
    assert _load(tuberlin.parent, "tuberlin").notes == ()
    monkeypatch.setattr(splits, "read_plan", lambda *_: dataclasses.replace(small, totals_rounded=False))
    notes = _load(tuberlin.parent, "tuberlin").notes
    assert notes == ("ImageResized_ready: 250 photos in all, 252 expected",)


# --- where data sets are ------------------------------------------------------------------------------------

def test_sketchy_without_its_extension_is_told_what_runs_without_it(tmp_path: Path) -> None:
    for folder in (SKETCHY_SKETCHES, SKETCHY_ORIGINALS):
        (tmp_path / "Sketchy" / folder).mkdir(parents=True)
    _, missing = available(tmp_path, None)
    assert f"not {SKETCHY_EXTENDED}; without it, give sketchy-original, or sketchy-firstN (--sample N)" in missing["sketchy"]
    (tmp_path / "Sketchy" / SKETCHY_ORIGINALS).rmdir()
    _, missing = available(tmp_path, None)
    assert "is incomplete" in missing["sketchy"] and "sketchy-original" not in missing["sketchy"]


def test_present_data_sets_run_and_the_others_are_named(
        tuberlin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tuberlin.parent / "sketchy" / SKETCHY_EXTENDED).mkdir(parents=True)
    present, missing = available(tuberlin.parent, None)
    assert present == ["emoji", "tuberlin"]
    assert set(missing) == {"sketchy", "quickdraw"}
    assert f"{tuberlin.parent / 'sketchy'} holds {SKETCHY_EXTENDED} but not " \
           f"{SKETCHY_SKETCHES}, {SKETCHY_ORIGINALS}" in missing["sketchy"]
    assert str(tuberlin.parent) in missing["quickdraw"] and "QuickDraw_sketches_final" in missing["quickdraw"]
    with pytest.raises(InputError, match="QuickDraw_images_final"):
        _load(tuberlin.parent, "quickdraw")

    monkeypatch.setenv("TCN_DATA", str(tuberlin.parent))
    assert available(None, ["tuberlin"]) == (["tuberlin"], {})
    monkeypatch.delenv("TCN_DATA")
    present, missing = available(None, ["tuberlin"])
    assert present == [] and "--data-root" in missing["tuberlin"] and "TCN_DATA" in missing["tuberlin"]


@pytest.mark.parametrize("spelling", ["TUBerlin", "tu-berlin", "TU_Berlin_Extended", "."])
def test_the_data_sets_folder_may_be_spelt_otherwise_or_be_the_root(tuberlin: Path, spelling: str) -> None:
    plain = _load(tuberlin.parent, "tuberlin")
    if spelling == ".":
        root = tuberlin
    else:
        root = tuberlin.parent
        tuberlin.rename(root / spelling)
    found = _load(root, "tuberlin")
    assert found.split_digest == plain.split_digest and len(found.query) == 60


def test_two_copies_of_a_data_set_are_an_error(tuberlin: Path) -> None:
    shutil.copytree(tuberlin, tuberlin.parent / "tu-berlin")
    with pytest.raises(InputError, match="more than once.*tu-berlin"):
        available(tuberlin.parent, ["tuberlin"])


def test_a_folder_that_cannot_be_listed_is_named(tuberlin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def refuse(path: Path) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "zebra":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(scan.os, "scandir", refuse)
    with pytest.raises(InputError, match="png_ready/zebra can't be listed: Permission denied"):
        _load(tuberlin.parent, "tuberlin")


def test_bad_names_and_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown data set 'mnist'.*emoji, sketchy, tuberlin, quickdraw"):
        available(tmp_path, ["mnist"])
    with pytest.raises(InputError, match="unknown split '3' of sketchy: choose one of 1, 2"):
        _load(tmp_path, "sketchy", "3")
    with pytest.raises(InputError, match="nowhere.*--data-root.*not a folder"):
        available(tmp_path / "nowhere", None)
    monkeypatch.setenv("TCN_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"elsewhere.*\$TCN_DATA.*not a folder"):
        available(None, None)


# --- emoji -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of emoji; read only."""
    return make_emoji(tmp_path_factory.mktemp("cache"), size=2)


@pytest.fixture
def emoji_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], splits.Split]:
    """Loads emoji from a given build instead of making one."""
    def load_from(folder: Path) -> splits.Split:
        monkeypatch.setattr(emoji, "build", lambda cache, tarballs, progress: folder)
        return load("emoji", data_root=None, cache=folder, progress=False)
    return load_from


def test_emoji_roles_and_lists(built: Path, emoji_of: Callable[[Path], splits.Split]) -> None:
    found = emoji_of(built)
    table = yaml.safe_load((SPLITS_FOLDER / "emoji.yaml").read_text())
    role = {name: entry["role"] for name, entry in table["classes"].items()}
    sides = {"train_sketches": "seen", "heldout_sketches": "seen", "train_photos": "seen", "query": "unseen",
             "validation_sketches": "validation", "validation_photos": "validation", "gallery": "unseen"}
    in_lists: dict[str, set[str]] = {name: set() for name in sides}
    for name, files in found.lists().items():
        for path, label, source in zip(files.paths, files.labels, files.sources, strict=True):
            side, of_class, file = path.split("/")
            assert side == ("photo" if "photo" in name or name == "gallery" else "sketch")
            assert found.classes[label] == of_class and role[of_class] == sides[name]
            assert file == f"{source}.png" and source in DRAWINGS + PICTURES
            in_lists[name].add(of_class)
    for name in sides:
        if name != "heldout_sketches":
            assert in_lists[name] == {one for one, its in role.items() if its == sides[name]}
    kept = {f"sketch/{name}/{publisher}.png" for name, publisher in table["heldout"].items()}
    assert set(found.heldout_sketches.paths) == kept
    assert len(found.heldout_sketches) == 100 == len(set(found.heldout_sketches.labels))
    assert len(found.train_sketches) == 3 * len(found.seen) - 100
    assert not set(found.train_sketches.paths) & set(found.heldout_sketches.paths)
    assert len(found.query) == 3 * len(found.unseen)
    assert 85 <= len(found.unseen) <= 95 and 45 <= len(found.validation) <= 55
    assert found.data_digest == "0" * 64 and found.notes == ()


def test_things_that_are_the_same_lie_on_one_side_and_count_once_among_the_unseen() -> None:
    table = yaml.safe_load((SPLITS_FOLDER / "emoji.yaml").read_text())
    sides: dict[str, list[str]] = {}
    for entry in table["classes"].values():
        sides.setdefault(entry["group"], []).append(entry["role"])
    assert all(len(set(roles)) == 1 for roles in sides.values())
    assert all(len(roles) == 1 for roles in sides.values() if roles[0] == "unseen")
    assert any(len(roles) > 1 for roles in sides.values()), "groups of several classes exist among the seen"
    assert not set(table["left_out"]) & set(table["classes"])


def test_a_damaged_emoji_build_is_named(
        built: Path, tmp_path: Path, emoji_of: Callable[[Path], splits.Split]) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    (folder / "photo" / "ant" / "noto.png").unlink()
    shutil.rmtree(folder / "sketch" / "bear")
    with pytest.raises(InputError) as caught:
        emoji_of(folder)
    said = str(caught.value)
    assert "453 pictures by noto, 454 were built" in said and f"delete {folder} and run again" in said
    assert "sketch: 1 of 454 classes missing: bear" in said


def test_a_missing_held_out_drawing_is_named(
        built: Path, tmp_path: Path, emoji_of: Callable[[Path], splits.Split]) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    (folder / "sketch" / "battery" / "openmoji.png").rename(folder / "sketch" / "battery" / "noto.png")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["per_publisher"]["openmoji"] -= 1
    manifest["per_publisher"]["noto"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"held-out drawing battery/openmoji\.png is not there"):
        emoji_of(folder)


# --- digests ------------------------------------------------------------------------------------------------

def test_digests_follow_the_contents_and_never_the_place(tuberlin: Path, tmp_path: Path) -> None:
    here = _load(tuberlin.parent, "tuberlin")
    shutil.copytree(tuberlin, tmp_path / "else" / "where" / "tu-berlin")
    there = _load(tmp_path / "else" / "where", "tuberlin")
    assert (here.data_digest, here.split_digest) == (there.data_digest, there.split_digest)

    file = min((tuberlin / "png_ready" / "cup").iterdir())
    file.write_bytes(file.read_bytes() + b"\0")
    grown = _load(tuberlin.parent, "tuberlin")
    assert grown.data_digest != here.data_digest and grown.split_digest == here.split_digest
    file.rename(file.with_name("renamed.png"))
    renamed = _load(tuberlin.parent, "tuberlin")
    assert renamed.data_digest != grown.data_digest and renamed.split_digest != grown.split_digest


@pytest.mark.parametrize("dataset", ["sketchy", "tuberlin", "quickdraw"])
def test_the_data_digest_is_that_of_all_names_and_sizes_in_order(root: Path, dataset: str) -> None:
    found = _load(root, dataset)
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
    _load(tmp_path, "sketchy", "1", listings=listings)
    assert len(listings) == 3 * 125
    shutil.copy(next(late.parent.iterdir()), late)
    (late.parent / "notes.txt").write_text("x")
    plain, kept = _load(root, "sketchy", "2"), _load(tmp_path, "sketchy", "2", listings=listings)
    again = _load(tmp_path, "sketchy", "2")
    assert (kept.data_digest, kept.split_digest, kept.notes) == (plain.data_digest, plain.split_digest, plain.notes)
    assert len(again.query) == len(kept.query) + 1 and any("bat/notes.txt" in note for note in again.notes)


def test_both_sketchy_splits_share_the_data_digest_only(root: Path) -> None:
    one, two = _load(root, "sketchy", "1"), _load(root, "sketchy", "2")
    assert one.data_digest == two.data_digest
    assert one.split_digest != two.split_digest


# --- list files ---------------------------------------------------------------------------------------------

def test_list_lines_end_in_their_label(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes("\ufeffpng_ready/hot air balloon/1.png 7\r\n\r\npng_ready/ant/a b  c.png 0\n".encode())
    paths, labels = read_list(file)
    assert paths == ["png_ready/hot air balloon/1.png", "png_ready/ant/a b  c.png"]
    assert labels.dtype == np.int64 and labels.tolist() == [7, 0]


@pytest.mark.parametrize(("content", "message"), [
    (b"a/1.png 0\na/2.png\n", r"list\.txt, line 2.*holds no space"),
    (b"a/1.png 0\n\nhot air balloon/2.png\n", r"line 3: label 'balloon/2\.png'"),
    (b"a/1.png -1\n", r"line 1: label '-1'"),
    (b"a/1.png 1.0\n", r"line 1: label '1\.0'"),
    (b"\n\n", r"list\.txt is empty"),
    (b"a/1.png 0\n\xff\xfe 1\n", r"not UTF-8 text \(byte 10, 0xff\)"),
])
def test_bad_lists_name_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_list(tmp_path / "list.txt")


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone.txt can't be read"):
        read_list(tmp_path / "gone.txt")


# --- published lists ----------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TU-Berlin (three sketches, two photos a class) and its lists beside it, in `checkout`; read only."""
    return make_listed(tmp_path_factory.mktemp("listed"), "tuberlin", "dataset")


def _copy(small: Path, to: Path) -> Path:
    """A copy of `small` to spoil: the data root; its lists are in ../checkout. Pictures are links: add, rename or remove."""
    shutil.copytree(small.parent / "checkout", to / "copy" / "checkout")
    shutil.copytree(small, to / "copy" / "data", copy_function=os.link)
    return to / "copy" / "data"


def _listed_lines(directory: Path, file: str) -> list[tuple[str, str]]:
    """(class by the list's own class names, path), read anew in the plainest way."""
    zero = "zero" in file
    named = (directory / ("cname_cid_zero.txt" if zero else "cname_cid.txt")).read_text().splitlines()
    by_label = {line.rsplit(" ", 1)[1]: line.rsplit(" ", 1)[0] for line in named}
    return [(by_label[line.rsplit(" ", 1)[1]], line.rsplit(" ", 1)[0])
            for line in (directory / file).read_text().splitlines()]


TUBERLIN_FILES = {"train_sketches": "png_ready_filelist_train.txt", "heldout_sketches": "png_ready_filelist_test.txt",
                  "query": "png_ready_filelist_zero.txt", "train_photos": "ImageResized_ready_filelist_train.txt",
                  "gallery": "ImageResized_ready_filelist_zero.txt"}


def test_lists_rule_line_by_line_in_our_order_of_classes(small: Path) -> None:
    directory = small.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot"
    for lists in (directory, directory.parents[2], directory.parents[1], str(directory.parent)):
        found = _load(small, "tuberlin", lists=lists)
        for part, file in TUBERLIN_FILES.items():
            lines = _listed_lines(directory, file)
            expected = [(found.classes.index(name), path) for name in found.classes for its, path in lines if its == name]
            mine = getattr(found, part)
            assert list(zip(mine.labels.tolist(), mine.paths, strict=True)) == expected, part
    plain = _load(small, "tuberlin", lists=None)
    assert found.data_digest == plain.data_digest and found.split_digest != plain.split_digest
    assert set(found.train_sketches.paths) != set(plain.train_sketches.paths), "the lists hold out others than our rule"
    assert found.classes == plain.classes
    assert any("from TUBerlin/zeroshot: png_ready_filelist_train.txt, png_ready_filelist_test.txt" in note
               for note in found.notes)


def test_automatic_lists_are_those_in_the_data_sets_folder_or_one_named_after_it(small: Path, tmp_path: Path) -> None:
    data = _copy(small, tmp_path)
    lists = data.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot"
    asked = _load(data, "tuberlin", lists=lists).split_digest
    plain = _load(data, "tuberlin").split_digest
    assert plain == _load(data, "tuberlin", lists="none").split_digest != asked
    shutil.copytree(lists, data / "tu-berlin" / "zeroshot")
    assert _load(data, "tuberlin").split_digest == asked
    shutil.copytree(lists, data / "TUBerlin" / "zeroshot")
    (data / "tu-berlin" / "zeroshot" / "png_ready_filelist_zero.txt").unlink()
    assert _load(data, "tuberlin").split_digest == asked, "the data set's own folder comes first"
    assert _load(data, "tuberlin", lists=None).split_digest == plain


def test_sketchys_lists_name_originals_twice_and_both_splits_have_their_own(tmp_path: Path) -> None:
    base = make_tree(tmp_path, "sketchy", sketches=3, photos=2, size=2)
    for split in ("1", "2"):
        make_lists(base, "sketchy", split)
        found = _load(tmp_path, "sketchy", split)
        unseen = len(found.unseen)
        assert len(found.gallery) == 3 * unseen and len(set(found.gallery.groups)) == 2 * unseen
        assert {path.split("/")[-2] for path in found.query.paths} == set(UNSEEN["sketchy", split].split(", "))
        assert len(found.train_sketches) == 2 * len(found.seen) and len(found.heldout_sketches) == len(found.seen)
    with pytest.raises(InputError, match="cname_cid.txt: these are not the split's 104 seen classes.*another split"):
        make_lists(base, "sketchy", "1", where=tmp_path / "mixed")
        _load(tmp_path, "sketchy", "2", lists=tmp_path / "mixed")


def test_a_list_that_names_a_path_twice_keeps_it_twice(small: Path, tmp_path: Path) -> None:
    data = _copy(small, tmp_path)
    file = data.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot" / TUBERLIN_FILES["gallery"]
    first = file.read_text().splitlines()[0]
    file.write_text(file.read_text() + first + "\n")
    found = _load(data, "tuberlin", lists=data.parent / "checkout")
    assert found.gallery.paths.count(first.rsplit(" ", 1)[0]) == 2
    assert f"{TUBERLIN_FILES['gallery']}: 1 line names a path a second time; nothing is dropped" in found.notes


def test_without_a_test_list_what_the_training_list_leaves_out_is_held_out(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(read_plan("tuberlin"), held_out_per_class=2)
    monkeypatch.setattr(splits, "read_plan", lambda *_: plan)
    base = make_tree(tmp_path, "tuberlin", sketches=5, photos=1, size=2)
    with_test = make_lists(base, "tuberlin", held=2)
    released = _load(tmp_path, "tuberlin")
    (with_test / TUBERLIN_FILES["heldout_sketches"]).unlink()
    without = _load(tmp_path, "tuberlin")
    assert without.train_sketches.paths == released.train_sketches.paths
    assert set(without.heldout_sketches.paths) == set(released.heldout_sketches.paths)
    assert any("leaves out just 2 sketches of every seen class" in note for note in without.notes)

    make_lists(base, "tuberlin", held=0, parts=("train", "zero", "photo_train", "photo_zero"))
    ours = _load(tmp_path, "tuberlin")
    by_rule = {f"png_ready/{name}/{file}" for name in ours.seen for file in splits.held_out(
        name, [path.name for path in (base / "png_ready" / name).iterdir()], 2)}
    assert set(ours.heldout_sketches.paths) == by_rule and len(by_rule) == 220
    assert not by_rule & set(ours.train_sketches.paths)
    assert any("our rule picks" in note for note in ours.notes)


def test_lists_that_are_not_published_are_made_up_for_by_the_folders(tmp_path: Path) -> None:
    base = make_tree(tmp_path, "quickdraw", sketches=6, photos=2, size=2)
    directory = make_lists(base, "quickdraw", parts=("zero", "photo_zero"))
    for name in ("sketch_zero.txt", "all_photo_zero.txt"):  # the published ones name the folders so
        text = (directory / name).read_text()
        (directory / name).write_text(text.replace("QuickDraw_sketches_final", "sketches").replace(
            "QuickDraw_images_final", "images"))
    found, plain = _load(tmp_path, "quickdraw"), _load(tmp_path, "quickdraw", lists=None)
    for part in ("train_sketches", "heldout_sketches", "train_photos"):
        assert getattr(found, part).paths == getattr(plain, part).paths
    assert set(found.query.paths) == set(plain.query.paths) and found.query.paths != plain.query.paths
    said = "\n".join(found.notes)
    assert "all_photo_train.txt is not there; all photos of seen classes instead (160 files)" in said
    assert "sketch_test.txt is not there; our rule picks the held-out sketches (80 files)" in said
    assert "images as QuickDraw_images_final" in said

    empty = directory.parent / "zeroshot"
    for name in ("sketch_zero.txt", "all_photo_zero.txt"):
        (empty / name).unlink()
    only_names = _load(tmp_path, "quickdraw")
    assert only_names.split_digest == plain.split_digest
    assert any("zeroshot holds none of sketch_train.txt" in note
               and "but cname_cid.txt, cname_cid_zero.txt; the split is made" in note
               for note in only_names.notes)


def test_other_endings_and_spellings_are_found_and_said(small: Path, tmp_path: Path) -> None:
    data = _copy(small, tmp_path)
    folder = data / "TUBerlin" / "ImageResized_ready"
    (folder / "pizza" / "pizza_1.JPEG").rename(folder / "pizza" / "pizza_1.jpg")
    (folder / "trombone").rename(folder / "tromobone")
    (folder / "palm tree").rename(folder / "palm_tree")
    found = _load(data, "tuberlin", lists=data.parent / "checkout")
    assert "ImageResized_ready/pizza/pizza_1.jpg" in found.gallery.paths
    assert "ImageResized_ready/tromobone/trombone_0.jpg" in found.gallery.paths
    assert "ImageResized_ready/palm_tree/palm tree_0.jpg" in found.train_photos.paths
    assert len(found.gallery) == 2 * 30
    said = "\n".join(found.notes)
    assert "1 file spelt otherwise on disk, such as pizza_1.JPEG as pizza_1.jpg" in said
    assert "1 class folder spelt otherwise on disk: trombone as tromobone" in said
    assert "known misspelling taken for the class: 'tromobone' as 'trombone'" in said
    # an ending that would not tell two files apart is no licence to guess
    shutil.copy(folder / "pizza" / "pizza_1.jpg", folder / "pizza" / "pizza_1.jpeg")
    with pytest.raises(InputError, match=r"1 of 60 listed files are not on disk.*pizza/pizza_1\.JPEG"):
        _load(data, "tuberlin", lists=data.parent / "checkout")


def test_listed_files_that_are_missing_and_files_no_list_names_are_counted(small: Path, tmp_path: Path) -> None:
    data = _copy(small, tmp_path)
    folder = data / "TUBerlin" / "png_ready"
    lists = data.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot"
    zero = (lists / TUBERLIN_FILES["query"]).read_text().splitlines()
    gone = [zero[4].rsplit(" ", 1)[0], zero[10].rsplit(" ", 1)[0]]
    for path in gone:
        (data / "TUBerlin" / path).unlink()
    shutil.copy(next((folder / "cup").iterdir()), folder / "cup" / "new.png")
    with pytest.raises(InputError) as caught:
        _load(data, "tuberlin", lists=lists)
    said = str(caught.value)
    assert f"{lists / TUBERLIN_FILES['query']}: 2 of 90 listed files are not on disk: line 5 ({gone[0]}), " \
           f"line 11 ({gone[1]})" in said
    lenient = _load(data, "tuberlin", lists=lists, strict=False)
    assert len(lenient.query) == 88 and not set(gone) & set(lenient.query.paths)
    assert any("1 file on disk in no list: png_ready/cup/new.png" in note for note in lenient.notes)


@pytest.mark.parametrize(("file", "line", "message"), [
    ("png_ready_filelist_zero.txt", "png_ready/cup/1.png 0", r"zero\.txt, line 91: 'cup' is a seen class"),
    ("png_ready_filelist_train.txt", "png_ready/ant/1.png 0", r"train\.txt, line 441: 'ant' is an unseen class.*mix"),
    ("png_ready_filelist_train.txt", "png_ready/cup/1.png 0", r"line 441: label 0 belongs to class 'zebra', the path to 'cup'"),
    ("png_ready_filelist_train.txt", "png_ready/cup/1.png 220", r"line 441: label 220, but cname_cid\.txt ends at 219"),
    ("png_ready_filelist_train.txt", "png_ready/zebra/1.png 1", r"line 441: label 1 belongs to class '.*', the path to 'zebra'"),
    ("png_ready_filelist_train.txt", "png_ready/zebra/ 0", r"line 441: 'png_ready/zebra/' is not 'folder/class/file'"),
    ("png_ready_filelist_train.txt", "./png_ready/griffin/1.png 0", r"line 441: 'griffin' is no class of this split"),
    ("png_ready_filelist_train.txt", "png_ready/griffin/1.png 0", r"line 441: 'griffin' is no class of this split"),
    ("png_ready_filelist_train.txt", "1.png 0", r"line 441: '1\.png' is not 'folder/class/file'"),
    ("png_ready_filelist_train.txt", "photos/zebra/1.png 0", r"folder 'photos' is none of png_ready, png, sketches"),
    ("cname_cid.txt", "griffin 220", r"cname_cid\.txt: these are not the split's 220 seen classes: it names griffin"),
    ("cname_cid.txt", "griffin 221", r"cname_cid\.txt: indices go up to 221, but 220 is missing"),
    ("cname_cid.txt", "griffin 7", r"cname_cid\.txt, line 221: index 7 is also that of"),
    ("cname_cid.txt", "Palm_Tree 220", r"cname_cid\.txt, line 221: class 'Palm_Tree' stands there twice"),
])
def test_contradictory_lists_name_file_and_line(small: Path, tmp_path: Path, file: str, line: str, message: str) -> None:
    lists = tmp_path / "zeroshot"
    shutil.copytree(small.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot", lists)
    (lists / file).write_text((lists / file).read_text() + line + "\n")
    with pytest.raises(InputError, match=message):
        _load(small, "tuberlin", lists=lists)


def test_labels_are_held_against_each_other_where_the_class_names_are_missing(small: Path, tmp_path: Path) -> None:
    lists = tmp_path / "zeroshot"
    shutil.copytree(small.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot", lists)
    (lists / "cname_cid.txt").unlink()
    found = _load(small, "tuberlin", lists=lists)
    assert any("cname_cid.txt is not among the lists" in note for note in found.notes)
    train = lists / TUBERLIN_FILES["train_sketches"]
    train.write_text(train.read_text().rsplit(" ", 1)[0] + " 0\n")
    with pytest.raises(InputError, match="line 440: label 0 belongs to class 'zebra', the path to 'airplane'"):
        _load(small, "tuberlin", lists=lists)


def test_a_sketch_both_trained_on_and_held_out_is_an_error(small: Path, tmp_path: Path) -> None:
    lists = tmp_path / "zeroshot"
    shutil.copytree(small.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot", lists)
    held = (lists / TUBERLIN_FILES["heldout_sketches"]).read_text().splitlines()[3]
    with open(lists / TUBERLIN_FILES["train_sketches"], "a") as file:
        file.write(held + "\n")
    with pytest.raises(InputError, match=r"1 sketch stands in both .*lines 441 and 4\).*must not be trained on"):
        _load(small, "tuberlin", lists=lists)


def test_places_without_lists_are_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--lists .*nowhere is not a folder"):
        _load(small, "tuberlin", lists=tmp_path / "nowhere")
    (tmp_path / "photos.txt").write_text("png_ready/ant/1.png 0\n")
    with pytest.raises(InputError, match=r"holds no list of TU-Berlin Extended, split 1, there or in folders such as "
                                         r"TU-Berlin/zeroshot.*Looked for: png_ready_filelist_train\.txt.*"
                                         r"Found in .*: photos\.txt"):
        _load(small, "tuberlin", lists=tmp_path)
    shutil.copytree(small.parent / "checkout" / "dataset", tmp_path / "two" / "dataset")
    shutil.copytree(small.parent / "checkout" / "dataset", tmp_path / "two" / "datasets")
    with pytest.raises(InputError, match="more than once.*datasets/TUBerlin/zeroshot"):
        _load(small, "tuberlin", lists=tmp_path / "two")


# --- layouts and spellings in circulation -------------------------------------------------------------------

@pytest.mark.parametrize(("dataset", "moves"), [
    ("sketchy", {"256x256": "rendered_256x256/256x256", SKETCHY_EXTENDED: "EXTEND_image_sketchy",
                 "rendered_256x256/256x256/sketch/tx_000000000000_ready": "rendered_256x256/256x256/sketch/tx_000000000000",
                 "rendered_256x256/256x256/photo/tx_000000000000_ready": "rendered_256x256/256x256/photo/tx_000000000000"}),
    ("sketchy", {SKETCHY_SKETCHES: "sketch/tx_000000000000", SKETCHY_ORIGINALS: "photo/tx_000000000000",
                 SKETCHY_EXTENDED: "extended_photo"}),
    ("tuberlin", {"png_ready": "sketches", "ImageResized_ready": "images"}),
    ("tuberlin", {"png_ready": "png", "ImageResized_ready": "ImageResized"}),
    ("quickdraw", {"QuickDraw_sketches_final": "sketches", "QuickDraw_images_final": "QuickDraw_images"}),
])
def test_other_layouts_in_circulation_are_found_and_named(tmp_path: Path, dataset: str, moves: dict[str, str]) -> None:
    base = make_tree(tmp_path, dataset, sketches=1, photos=1, size=2)
    plain = _load(tmp_path, dataset)
    for old, new in moves.items():
        (base / new).parent.mkdir(parents=True, exist_ok=True)
        (base / old).rename(base / new)
    found = _load(tmp_path, dataset)
    assert (found.data_digest, found.split_digest) == (plain.data_digest, plain.split_digest)
    for part, files in found.lists().items():
        assert len(files) == len(getattr(plain, part)) and all((base / path).is_file() for path in files.paths)
    named = [note for note in found.notes if note.startswith("layout: ")]
    assert len(named) == len(SPECS[dataset].folders) and all(" stands for " in note for note in named)


def test_a_common_folder_name_says_nothing_outside_a_folder_named_after_the_data_set(tmp_path: Path) -> None:
    base = make_tree(tmp_path, "tuberlin", sketches=1, photos=1, size=2)
    (base / "png_ready").rename(base / "sketches")
    (base / "ImageResized_ready").rename(base / "images")
    base.rename(tmp_path / "mine")
    assert available(tmp_path / "mine", ["tuberlin", "quickdraw"])[0] == []
    assert locate.folders_there("tuberlin", tmp_path / "mine") == ()
    (tmp_path / "mine").rename(tmp_path / "TU-Berlin")
    assert available(tmp_path / "TU-Berlin", ["tuberlin", "quickdraw"])[0] == ["tuberlin"]
    shutil.copytree(tmp_path / "TU-Berlin" / "sketches", tmp_path / "TU-Berlin" / "png")
    with pytest.raises(InputError, match="png and sketches could each be png_ready"):
        available(tmp_path, ["tuberlin"])
    (tmp_path / "TU-Berlin" / "png").rename(tmp_path / "TU-Berlin" / "png_ready")
    assert any("png_ready is used; sketches there too" in note for note in _load(tmp_path, "tuberlin").notes)


def test_a_nearly_right_folder_is_hinted_at_and_not_taken(tuberlin: Path) -> None:
    (tuberlin / "png_ready" / "giraffe").rename(tuberlin / "png_ready" / "giraff")
    (tuberlin / "png_ready" / "cup").rename(tuberlin / "png_ready" / "tap")
    (tuberlin / "ImageResized_ready" / "diamond").rename(tuberlin / "ImageResized_ready" / "diamod")
    with pytest.raises(InputError) as caught:
        _load(tuberlin.parent, "tuberlin")
    said = str(caught.value)
    assert "did you mean 'giraff' for 'giraffe'? Then rename" in said and "'tap' for" not in said
    assert "diamo" not in said, "a known misspelling is taken"


def test_edit_distance_against_the_definition() -> None:
    def slow(one: str, other: str) -> int:
        if not one or not other:
            return len(one) + len(other)
        return min(slow(one[1:], other) + 1, slow(one, other[1:]) + 1, slow(one[1:], other[1:]) + (one[0] != other[0]))

    for one in ("", "ant", "trom", "spida", "cup"):
        for other in ("ant", "tna", "tromo", "spide", "", "pup"):
            assert scan._edit_distance(one, other) == slow(one, other)


# --- odd places ---------------------------------------------------------------------------------------------

def test_spaces_unicode_and_linked_folders(tuberlin: Path, tmp_path: Path) -> None:
    odd = tuberlin / "ImageResized_ready" / "ant"
    (odd / "ant_0.jpg").rename(odd / "ämeise im wald  2.jpg")
    shutil.move(tuberlin / "ImageResized_ready" / "zebra", tmp_path / "elsewhere")
    (tuberlin / "ImageResized_ready" / "zebra").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    shutil.move(tuberlin / "png_ready", tmp_path / "drawings")
    (tuberlin / "png_ready").symlink_to(tmp_path / "drawings", target_is_directory=True)
    (tuberlin / "ImageResized_ready" / "cup" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    lists = make_lists(tuberlin, "tuberlin", parts=("photo_zero",))
    found = _load(tuberlin.parent, "tuberlin")
    assert "ImageResized_ready/ant/ämeise im wald  2.jpg" in found.gallery.paths
    assert all((found.gallery.root / path).is_file() for path in found.gallery.paths + found.train_sketches.paths)
    assert any("ignored 1 stray file: cup/gone.jpg" in note for note in found.notes)
    # the same name, its letters composed otherwise
    zero = lists / TUBERLIN_FILES["gallery"]
    zero.write_text(zero.read_text().replace("ämeise", "a\u0308meise"))
    assert "ImageResized_ready/ant/ämeise im wald  2.jpg" in _load(tuberlin.parent, "tuberlin").gallery.paths


def test_a_data_root_that_cannot_be_entered_is_named(tuberlin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Iterator[os.DirEntry[str]]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(scan.os, "scandir", refuse)
    with pytest.raises(InputError, match=f"{tuberlin.parent} can't be listed: Permission denied"):
        available(tuberlin.parent, ["tuberlin"])


def test_a_class_of_75_000_files(tuberlin: Path) -> None:
    """Named in memory, as the folder's listing would name them: to write them takes ten seconds."""
    folder = tuberlin / "ImageResized_ready" / "windmill"
    listings: Listings = {}
    lists = make_lists(tuberlin, "tuberlin", parts=("photo_zero",))
    before = _load(tuberlin.parent, "tuberlin", listings=listings)
    there, stray = listings[str(folder)]
    more = [(f"{number:05}.jpg", 9) for number in range(75_000)]
    listings[str(folder)] = sorted(there + more), stray
    with open(lists / "ImageResized_ready_filelist_zero.txt", "a") as out:
        label = re.search(r"windmill/.* (\d+)\n", (lists / "ImageResized_ready_filelist_zero.txt").read_text())[1]
        out.writelines(f"ImageResized_ready/windmill/{name} {label}\n" for name, _ in reversed(more))
    found = _load(tuberlin.parent, "tuberlin", listings=listings)
    assert len(found.gallery) == len(before.gallery) + 75_000 == 30 + 75_000
    assert found.gallery.paths.index("ImageResized_ready/windmill/windmill_0.jpg") + 75_000 == found.gallery.paths.index(
        "ImageResized_ready/windmill/00000.jpg"), "in the list's order, which is reversed"
    again = _load(tuberlin.parent, "tuberlin", lists=None, listings=listings)
    assert again.data_digest == found.data_digest != before.data_digest
