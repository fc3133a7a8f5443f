"""Splits by published list files: which are found, what they decide, and contradictions by file and line."""
from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.trees import TUBERLIN_FILES, load_tree, make_listed, make_lists, make_tree
from support.unseen_classes import UNSEEN

from tcn.config import InputError
from tcn.data import splits
from tcn.data.lists import read_list
from tcn.data.specs import read_plan

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


def test_lists_rule_line_by_line_in_our_order_of_classes(small: Path) -> None:
    directory = small.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot"
    for lists in (directory, directory.parents[2], directory.parents[1], str(directory.parent)):
        found = load_tree(small, "tuberlin", lists=lists)
        for part, file in TUBERLIN_FILES.items():
            lines = _listed_lines(directory, file)
            expected = [(found.classes.index(name), path) for name in found.classes for its, path in lines if its == name]
            mine = getattr(found, part)
            assert list(zip(mine.labels.tolist(), mine.paths, strict=True)) == expected, part
    plain = load_tree(small, "tuberlin", lists=None)
    assert found.data_digest == plain.data_digest and found.split_digest != plain.split_digest
    assert set(found.train_sketches.paths) != set(plain.train_sketches.paths), "the lists hold out others than our rule"
    assert found.classes == plain.classes
    assert any("from TUBerlin/zeroshot: png_ready_filelist_train.txt, png_ready_filelist_test.txt" in note
               for note in found.notes)


def test_automatic_lists_are_those_in_the_data_sets_folder_or_one_named_after_it(small: Path, tmp_path: Path) -> None:
    data = _copy(small, tmp_path)
    lists = data.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot"
    asked = load_tree(data, "tuberlin", lists=lists).split_digest
    plain = load_tree(data, "tuberlin").split_digest
    assert plain == load_tree(data, "tuberlin", lists="none").split_digest != asked
    shutil.copytree(lists, data / "tu-berlin" / "zeroshot")
    assert load_tree(data, "tuberlin").split_digest == asked
    shutil.copytree(lists, data / "TUBerlin" / "zeroshot")
    (data / "tu-berlin" / "zeroshot" / "png_ready_filelist_zero.txt").unlink()
    assert load_tree(data, "tuberlin").split_digest == asked, "the data set's own folder comes first"
    assert load_tree(data, "tuberlin", lists=None).split_digest == plain


def test_sketchys_lists_name_originals_twice_and_both_splits_have_their_own(tmp_path: Path) -> None:
    base = make_tree(tmp_path, "sketchy", sketches=3, photos=2, size=2)
    for split in ("1", "2"):
        make_lists(base, "sketchy", split)
        found = load_tree(tmp_path, "sketchy", split)
        unseen = len(found.unseen)
        assert len(found.gallery) == 3 * unseen and len(set(found.gallery.groups)) == 2 * unseen
        assert {path.split("/")[-2] for path in found.query.paths} == set(UNSEEN["sketchy", split].split(", "))
        assert len(found.train_sketches) == 2 * len(found.seen) and len(found.heldout_sketches) == len(found.seen)
    with pytest.raises(InputError, match="cname_cid.txt: these are not the split's 104 seen classes.*another split"):
        make_lists(base, "sketchy", "1", where=tmp_path / "mixed")
        load_tree(tmp_path, "sketchy", "2", lists=tmp_path / "mixed")


def test_a_list_that_names_a_path_twice_keeps_it_twice(small: Path, tmp_path: Path) -> None:
    data = _copy(small, tmp_path)
    file = data.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot" / TUBERLIN_FILES["gallery"]
    first = file.read_text().splitlines()[0]
    file.write_text(file.read_text() + first + "\n")
    found = load_tree(data, "tuberlin", lists=data.parent / "checkout")
    assert found.gallery.paths.count(first.rsplit(" ", 1)[0]) == 2
    assert f"{TUBERLIN_FILES['gallery']}: 1 line names a path a second time; nothing is dropped" in found.notes


def test_without_a_test_list_what_the_training_list_leaves_out_is_held_out(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(read_plan("tuberlin"), held_out_per_class=2)
    monkeypatch.setattr(splits, "read_plan", lambda *_: plan)
    base = make_tree(tmp_path, "tuberlin", sketches=5, photos=1, size=2)
    with_test = make_lists(base, "tuberlin", held=2)
    released = load_tree(tmp_path, "tuberlin")
    (with_test / TUBERLIN_FILES["heldout_sketches"]).unlink()
    without = load_tree(tmp_path, "tuberlin")
    assert without.train_sketches.paths == released.train_sketches.paths
    assert set(without.heldout_sketches.paths) == set(released.heldout_sketches.paths)
    assert any("leaves out just 2 sketches of every seen class" in note for note in without.notes)

    make_lists(base, "tuberlin", held=0, parts=("train", "zero", "photo_train", "photo_zero"))
    ours = load_tree(tmp_path, "tuberlin")
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
    found, plain = load_tree(tmp_path, "quickdraw"), load_tree(tmp_path, "quickdraw", lists=None)
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
    only_names = load_tree(tmp_path, "quickdraw")
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
    found = load_tree(data, "tuberlin", lists=data.parent / "checkout")
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
        load_tree(data, "tuberlin", lists=data.parent / "checkout")


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
        load_tree(data, "tuberlin", lists=lists)
    said = str(caught.value)
    assert f"{lists / TUBERLIN_FILES['query']}: 2 of 90 listed files are not on disk: line 5 ({gone[0]}), " \
           f"line 11 ({gone[1]})" in said
    lenient = load_tree(data, "tuberlin", lists=lists, strict=False)
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
        load_tree(small, "tuberlin", lists=lists)


def test_labels_are_held_against_each_other_where_the_class_names_are_missing(small: Path, tmp_path: Path) -> None:
    lists = tmp_path / "zeroshot"
    shutil.copytree(small.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot", lists)
    (lists / "cname_cid.txt").unlink()
    found = load_tree(small, "tuberlin", lists=lists)
    assert any("cname_cid.txt is not among the lists" in note for note in found.notes)
    train = lists / TUBERLIN_FILES["train_sketches"]
    train.write_text(train.read_text().rsplit(" ", 1)[0] + " 0\n")
    with pytest.raises(InputError, match="line 440: label 0 belongs to class 'zebra', the path to 'airplane'"):
        load_tree(small, "tuberlin", lists=lists)


def test_a_sketch_both_trained_on_and_held_out_is_an_error(small: Path, tmp_path: Path) -> None:
    lists = tmp_path / "zeroshot"
    shutil.copytree(small.parent / "checkout" / "dataset" / "TUBerlin" / "zeroshot", lists)
    held = (lists / TUBERLIN_FILES["heldout_sketches"]).read_text().splitlines()[3]
    with open(lists / TUBERLIN_FILES["train_sketches"], "a") as file:
        file.write(held + "\n")
    with pytest.raises(InputError, match=r"1 sketch stands in both .*lines 441 and 4\).*must not be trained on"):
        load_tree(small, "tuberlin", lists=lists)


def test_places_without_lists_are_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--lists .*nowhere is not a folder"):
        load_tree(small, "tuberlin", lists=tmp_path / "nowhere")
    (tmp_path / "photos.txt").write_text("png_ready/ant/1.png 0\n")
    with pytest.raises(InputError, match=r"holds no list of TU-Berlin Extended, split 1, there or in folders such as "
                                         r"TU-Berlin/zeroshot.*Looked for: png_ready_filelist_train\.txt.*"
                                         r"Found in .*: photos\.txt"):
        load_tree(small, "tuberlin", lists=tmp_path)
    shutil.copytree(small.parent / "checkout" / "dataset", tmp_path / "two" / "dataset")
    shutil.copytree(small.parent / "checkout" / "dataset", tmp_path / "two" / "datasets")
    with pytest.raises(InputError, match="more than once.*datasets/TUBerlin/zeroshot"):
        load_tree(small, "tuberlin", lists=tmp_path / "two")
