"""Folders of data sets on disk: where they are looked for, under which names, and what is wrong with them, said precisely."""
from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.trees import SKETCHY_EXTENDED, SKETCHY_ORIGINALS, SKETCHY_SKETCHES, TUBERLIN_FILES, load_tree, make_lists, make_tree

from tcn.config import InputError
from tcn.data import locate, scan, splits
from tcn.data.locate import available
from tcn.data.scan import Listings
from tcn.data.specs import SPECS, read_plan

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
        load_tree(tuberlin.parent, "tuberlin")
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
    found = load_tree(tuberlin.parent, "tuberlin", strict=False)
    assert len(found.seen) == 219 and len(found.unseen) == 29
    assert not {"ant", "zebra", "griffin"} & set(found.classes)
    assert set(found.train_photos.labels) == set(range(219))
    said = "\n".join(found.notes)
    assert "ant" in said and "zebra" in said and "griffin" in said


def test_class_folders_may_be_spelt_otherwise(tuberlin: Path) -> None:
    plain = load_tree(tuberlin.parent, "tuberlin")
    for old, new in (("hot air balloon", "hot-air_balloon"), ("palm tree", "Palm_Tree"),
                     ("frying-pan", "frying pan"), ("bear (animal)", "bear_(animal)")):
        (tuberlin / "ImageResized_ready" / old).rename(tuberlin / "ImageResized_ready" / new)
    spelt = load_tree(tuberlin.parent, "tuberlin")
    assert spelt.classes == plain.classes
    assert "ImageResized_ready/hot-air_balloon/hot air balloon_0.jpg" in spelt.gallery.paths
    assert (spelt.gallery.labels == plain.gallery.labels).all()
    assert (spelt.data_digest, spelt.split_digest) == (plain.data_digest, plain.split_digest)


def test_stray_files_are_ignored_and_counted(tuberlin: Path) -> None:
    before = load_tree(tuberlin.parent, "tuberlin")
    (tuberlin / "png_ready" / "filelist.txt").write_text("x")
    (tuberlin / "png_ready" / "__MACOSX").mkdir()
    (tuberlin / "png_ready" / "cup" / "Thumbs.db").write_text("x")
    (tuberlin / "png_ready" / "cup" / "._1.png").write_text("x")
    (tuberlin / "png_ready" / "cup" / "more.png").mkdir()
    (tuberlin / "ImageResized_ready" / ".DS_Store").write_text("x")
    after = load_tree(tuberlin.parent, "tuberlin")
    assert after.data_digest == before.data_digest and after.split_digest == before.split_digest
    assert any(note == "png_ready: ignored 5 stray files: __MACOSX, cup/._1.png, cup/Thumbs.db, "
                       "cup/more.png, filelist.txt" for note in after.notes)
    assert any(note == "ImageResized_ready: ignored 1 stray file: .DS_Store" for note in after.notes)


def test_image_endings_in_any_case_count(tuberlin: Path) -> None:
    folder = tuberlin / "ImageResized_ready" / "ant"
    for ending in ("JPEG", "JPG", "jpeg", "PNG"):
        shutil.copy(folder / "ant_0.jpg", folder / f"more_{ending}.{ending}")
    found = load_tree(tuberlin.parent, "tuberlin")
    mine = [path.rsplit("/")[-1] for path in found.gallery.paths if "/ant/" in path]
    assert mine == ["ant_0.jpg", "more_JPEG.JPEG", "more_JPG.JPG", "more_PNG.PNG", "more_jpeg.jpeg"]


def test_counts_that_differ_are_notes(tuberlin: Path) -> None:
    notes = "\n".join(load_tree(tuberlin.parent, "tuberlin").notes)
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
    assert load_tree(tuberlin.parent, "tuberlin").notes == ()
    monkeypatch.setattr(splits, "read_plan", lambda *_: dataclasses.replace(small, totals_rounded=False))
    notes = load_tree(tuberlin.parent, "tuberlin").notes
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
        load_tree(tuberlin.parent, "quickdraw")

    monkeypatch.setenv("TCN_DATA", str(tuberlin.parent))
    assert available(None, ["tuberlin"]) == (["tuberlin"], {})
    monkeypatch.delenv("TCN_DATA")
    present, missing = available(None, ["tuberlin"])
    assert present == [] and "--data-root" in missing["tuberlin"] and "TCN_DATA" in missing["tuberlin"]


@pytest.mark.parametrize("spelling", ["TUBerlin", "tu-berlin", "TU_Berlin_Extended", "."])
def test_the_data_sets_folder_may_be_spelt_otherwise_or_be_the_root(tuberlin: Path, spelling: str) -> None:
    plain = load_tree(tuberlin.parent, "tuberlin")
    if spelling == ".":
        root = tuberlin
    else:
        root = tuberlin.parent
        tuberlin.rename(root / spelling)
    found = load_tree(root, "tuberlin")
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
        load_tree(tuberlin.parent, "tuberlin")


def test_bad_names_and_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown data set 'mnist'.*emoji, sketchy, tuberlin, quickdraw"):
        available(tmp_path, ["mnist"])
    with pytest.raises(InputError, match="unknown split '3' of sketchy: choose one of 1, 2"):
        load_tree(tmp_path, "sketchy", "3")
    with pytest.raises(InputError, match="nowhere.*--data-root.*not a folder"):
        available(tmp_path / "nowhere", None)
    monkeypatch.setenv("TCN_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"elsewhere.*\$TCN_DATA.*not a folder"):
        available(None, None)


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
    plain = load_tree(tmp_path, dataset)
    for old, new in moves.items():
        (base / new).parent.mkdir(parents=True, exist_ok=True)
        (base / old).rename(base / new)
    found = load_tree(tmp_path, dataset)
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
    assert any("png_ready is used; sketches there too" in note for note in load_tree(tmp_path, "tuberlin").notes)


def test_a_nearly_right_folder_is_hinted_at_and_not_taken(tuberlin: Path) -> None:
    (tuberlin / "png_ready" / "giraffe").rename(tuberlin / "png_ready" / "giraff")
    (tuberlin / "png_ready" / "cup").rename(tuberlin / "png_ready" / "tap")
    (tuberlin / "ImageResized_ready" / "diamond").rename(tuberlin / "ImageResized_ready" / "diamod")
    with pytest.raises(InputError) as caught:
        load_tree(tuberlin.parent, "tuberlin")
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
    found = load_tree(tuberlin.parent, "tuberlin")
    assert "ImageResized_ready/ant/ämeise im wald  2.jpg" in found.gallery.paths
    assert all((found.gallery.root / path).is_file() for path in found.gallery.paths + found.train_sketches.paths)
    assert any("ignored 1 stray file: cup/gone.jpg" in note for note in found.notes)
    # the same name, its letters composed otherwise
    zero = lists / TUBERLIN_FILES["gallery"]
    zero.write_text(zero.read_text().replace("ämeise", "a\u0308meise"))
    assert "ImageResized_ready/ant/ämeise im wald  2.jpg" in load_tree(tuberlin.parent, "tuberlin").gallery.paths


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
    before = load_tree(tuberlin.parent, "tuberlin", listings=listings)
    there, stray = listings[str(folder)]
    more = [(f"{number:05}.jpg", 9) for number in range(75_000)]
    listings[str(folder)] = sorted(there + more), stray
    with open(lists / "ImageResized_ready_filelist_zero.txt", "a") as out:
        label = re.search(r"windmill/.* (\d+)\n", (lists / "ImageResized_ready_filelist_zero.txt").read_text())[1]
        out.writelines(f"ImageResized_ready/windmill/{name} {label}\n" for name, _ in reversed(more))
    found = load_tree(tuberlin.parent, "tuberlin", listings=listings)
    assert len(found.gallery) == len(before.gallery) + 75_000 == 30 + 75_000
    assert found.gallery.paths.index("ImageResized_ready/windmill/windmill_0.jpg") + 75_000 == found.gallery.paths.index(
        "ImageResized_ready/windmill/00000.jpg"), "in the list's order, which is reversed"
    again = load_tree(tuberlin.parent, "tuberlin", lists=None, listings=listings)
    assert again.data_digest == found.data_digest != before.data_digest
