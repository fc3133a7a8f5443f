"""List files as they circulate: every way to write one, the names and folders that other projects give them, and tables that
hold sketches and photos in one. The released files themselves: test_released_lists.py."""
from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.trees import SKETCHY_EXTENDED, SKETCHY_SKETCHES, make_listed, make_lists, make_tree, split_table

from tcn.config import InputError
from tcn.data import doctor, emoji
from tcn.data.lists import read_list
from tcn.data.splits import Split, load

SKETCHY_LINES = [("png_ready/hot air balloon/1.png", 7), ("png_ready/ant/a b  c.png", 0), ("png_ready/bee/3.png", 12)]


def _load(root: Path, dataset: str, split: str | None = None, **options: object) -> Split:
    return load(dataset, split, data_root=root, cache=root / "no-cache", progress=False, **options)


# --- one file -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spoil", [
    lambda text: text.replace("\n", "\r\n"), lambda text: text.replace("\n", "\r"), lambda text: "\ufeff" + text,
    lambda text: re.sub(r" (\d+)\n", r"\t\1\n", text), lambda text: re.sub(r" (\d+)\n", r"  \t  \1\n", text),
    lambda text: text.replace("\n", " \t \n"), lambda text: "\n\n  " + text.replace("\n", "\n \n\t"),
    lambda text: text.rstrip("\n"), lambda text: "\ufeff" + text.replace("\n", " \r"),
], ids=["CRLF", "CR", "mark", "tabs", "runs", "trailing", "leading", "no end", "mark and CR"])
def test_a_list_is_read_however_it_was_saved(tmp_path: Path, spoil: Callable[[str], str]) -> None:
    text = "".join(f"{path} {label}\n" for path, label in SKETCHY_LINES)
    (tmp_path / "list.txt").write_bytes(spoil(text).encode())
    paths, labels = read_list(tmp_path / "list.txt")
    assert list(zip(paths, labels.tolist())) == SKETCHY_LINES


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["img_path,text,m1,m2,label", "label,path", "m1,Label,text,IMG_PATH"])
def test_a_table_is_read_by_the_names_of_its_columns(tmp_path: Path, mark: str, header: str) -> None:
    columns = [name.casefold() for name in header.split(",")]
    rows = [{"img_path": path, "path": path, "text": f'"a photo{mark} of it."', "m1": "0", "m2": "3", "label": str(label + 105)}
            for path, label in SKETCHY_LINES]
    lines = [mark.join(header.split(",")), *(mark.join(row[name] for name in columns) for row in rows)]
    (tmp_path / "list.csv").write_bytes(("\ufeff\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
    paths, labels = read_list(tmp_path / "list.csv")
    assert list(zip(paths, labels.tolist())) == [(path, label + 105) for path, label in SKETCHY_LINES]


@pytest.mark.parametrize(("content", "message"), [
    ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 99\n",
     "is a Git LFS pointer.*git lfs pull"),
    ("<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n", "is a page of HTML or XML.*get the file again"),
    ("<a>\n</a>\n", "is a page of HTML or XML.*one 'path label' a line"),
    ('{"paths": ["a/1.png"], "labels": [0]}\n', "is JSON.*parted by spaces or tabs"),
    ("a/1.png,0\na/2.png,1\n",
     r"line 1: 'a/1\.png,0' holds no space before a label \(it holds commas, and the file has no header"),
    ("a/1.png\nb/2.png\n", "line 1: 'a/1.png' holds no space before a label; read are lists"),
    ("img_path,text\na/1.png,x\n", r"is a table with the columns img_path, text; read are"),
    ("file,label\na/1.png,3\n", r"is a table with the columns file, label; read are"),
    ("img_path,label\na/1.png,3\na/2.png\n", "line 3: 1 columns, 2 in the header"),
    ("img_path,label\n,3\n", "line 2: the path is empty"),
    ("img_path,label\n\na/1.png,cat\n", "line 3: label 'cat' is no number"),
    ("img_path,label\n", r"list\.csv is empty"),
])
def test_what_is_no_list_is_named_with_what_would_be_one(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_list(tmp_path / "list.csv")
    assert str(tmp_path / "list.csv") in str(caught.value)


def test_other_encodings_are_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("png_ready/ant/1.png 0\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"list file .*list\.txt is UTF-16 text; save it as UTF-8"):
        read_list(tmp_path / "list.txt")


# --- names in circulation -------------------------------------------------------------------------------------------------

QUICKDRAW = {"sketch_train.txt": "sketch_filelist_train.txt", "sketch_test.txt": "sketch_filelist_test.txt",
             "sketch_zero.txt": "sketch_filelist_zero.txt", "all_photo_train.txt": "all_photo_filelist_train.txt",
             "all_photo_zero.txt": "all_photo_filelist_zero.txt"}


@pytest.fixture(scope="module")
def quickdraw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """QuickDraw (three sketches, two photos a class), and its lists beside it in `checkout/datasets`; read only."""
    return make_listed(tmp_path_factory.mktemp("quickdraw"), "quickdraw", "datasets")


@pytest.fixture(scope="module")
def sketchy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sketchy with three sketches and two photos a class, one of them in both folders; its own folder, read only."""
    return make_tree(tmp_path_factory.mktemp("sketchy"), "sketchy", sketches=3, photos=2, size=2)


@pytest.mark.parametrize("photos", ["all_photo_filelist_{}.txt", "photo_filelist_{}.txt"])
def test_quickdraws_lists_by_other_names_give_the_same_split(quickdraw: Path, tmp_path: Path, photos: str) -> None:
    lists = quickdraw.parent / "checkout" / "datasets" / "QuickDraw" / "zeroshot"
    known = _load(quickdraw, "quickdraw", lists=lists)
    other = tmp_path / "CMCA" / "datasets" / "QuickDraw" / "zeroshot"
    shutil.copytree(lists, other)
    for old, new in QUICKDRAW.items():
        (other / old).rename(other / new.replace("all_photo_filelist_", photos.split("{")[0]))
    for asked in (other, other.parent, tmp_path / "CMCA"):
        found = _load(quickdraw, "quickdraw", lists=asked)
        assert found.split_digest == known.split_digest
        assert found.train_photos.paths == known.train_photos.paths and len(found.train_photos) == 2 * 80
    assert any("from QuickDraw/zeroshot: sketch_filelist_train.txt, sketch_filelist_test.txt" in note for note in found.notes)
    assert found.split_digest != _load(quickdraw, "quickdraw", lists="none").split_digest
    shutil.copy(lists / "sketch_zero.txt", other / "sketch_zero.txt")
    assert any("sketch_zero.txt is used; sketch_filelist_zero.txt there too and left aside" in note
               for note in _load(quickdraw, "quickdraw", lists=other).notes)


def test_split_2_may_lie_in_zeroshot2_and_the_published_name_comes_first(sketchy: Path, tmp_path: Path) -> None:
    data = tmp_path / "Sketchy"
    shutil.copytree(sketchy, data, copy_function=os.link)
    make_lists(data, "sketchy", "2", where=data / "zeroshot2")
    by_folder = _load(tmp_path, "sketchy", "2", lists="none").split_digest
    found = _load(tmp_path, "sketchy", "2")
    assert found.split_digest != by_folder and any("from zeroshot2: sketch_tx" in note for note in found.notes)
    assert _load(tmp_path, "sketchy", "2", lists=data).split_digest == found.split_digest
    make_lists(data, "sketchy", "2", where=data / "zeroshot0", held=2)
    both = _load(tmp_path, "sketchy", "2")
    assert len(both.heldout_sketches) == 2 * len(both.seen), "zeroshot0, the name in wider use"
    assert "lists: zeroshot0 is used; zeroshot2 there too and left aside" in both.notes
    with pytest.raises(InputError, match="more than once: .*zeroshot0.*zeroshot2; pass one of them"):
        _load(tmp_path, "sketchy", "2", lists=data)
    with pytest.raises(InputError, match=r"no list of Sketchy Extended, split 1.*Found in .*\(the folder of another split\)"):
        _load(tmp_path, "sketchy", "1", lists=data / "zeroshot2")


def test_lists_asked_for_are_used_or_an_error_names_those_looked_for_and_found(quickdraw: Path, tmp_path: Path) -> None:
    lists = tmp_path / "mine" / "QuickDraw" / "zeroshot"
    shutil.copytree(quickdraw.parent / "checkout" / "datasets" / "QuickDraw" / "zeroshot", lists)
    for old in QUICKDRAW:
        (lists / old).rename(lists / f"my_{old}")
    for asked in (lists, tmp_path / "mine"):
        with pytest.raises(InputError) as caught:
            _load(quickdraw, "quickdraw", lists=asked)
        said = str(caught.value)
        for name in (*QUICKDRAW, *QUICKDRAW.values(), "train_quickdraw.csv", "my_sketch_train.txt", "my_all_photo_zero.txt"):
            assert name in said
        assert "--lists none" in said and str(lists) in said
    # lists of another data set alone are no lists of this one
    with pytest.raises(InputError, match="holds no list of QuickDraw Extended, split 1"):
        _load(quickdraw, "quickdraw", lists=make_lists(make_tree(tmp_path, "tuberlin", 1, 1, 2), "tuberlin"))
    # where some are there, one by an unknown name may be what the folders would stand for: its names do not tell
    (lists / "my_sketch_zero.txt").rename(lists / "sketch_zero.txt")
    with pytest.raises(InputError, match=r"--lists .*: my_all_photo_train\.txt.* may be of this split.* all_photo_zero\.txt is"):
        _load(quickdraw, "quickdraw", lists=lists)
    for old in QUICKDRAW:
        if "photo" not in old and (lists / f"my_{old}").exists():
            (lists / f"my_{old}").rename(lists / old)
    with pytest.raises(InputError, match=r": my_all_photo_train\.txt, my_all_photo_zero\.txt may be .* while all_photo_train"):
        _load(quickdraw, "quickdraw", lists=lists)
    # found beside the data, nobody asked for them; and what is no list of an absent one's pictures stops nothing
    data = tmp_path / "beside"
    shutil.copytree(quickdraw, data, copy_function=os.link)
    shutil.copytree(lists, data / "QuickDraw" / "zeroshot")
    said = "\n".join(_load(data, "quickdraw").notes)
    assert "not read, since no list goes by these names: my_all_photo_train.txt" in said
    assert "all_photo_train.txt is not there; all photos of seen classes instead" in said
    for old in ("my_all_photo_train.txt", "my_all_photo_zero.txt"):
        (lists / old).write_text("a note of mine\n")
    (lists / "copy.txt").write_bytes((lists / "sketch_zero.txt").read_bytes())
    assert "these names: copy.txt, my_all" in "\n".join(_load(quickdraw, "quickdraw", lists=lists).notes)


def test_emoji_have_no_lists_to_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--lists .*: Emoji has no published lists; leave the option out"):
        load("emoji", data_root=None, cache=tmp_path, progress=False, lists=tmp_path)
    monkeypatch.setattr(emoji, "find_built", lambda *_, **__: tmp_path)
    reports, status = doctor.check_all(["emoji"], data_root=None, cache=tmp_path, lists=tmp_path, fast=True, progress=False)
    assert status == 1 and "has no published lists" in reports[0].problems[0]


# --- tables of MA-ZS-SBIR -------------------------------------------------------------------------------------------------

def _tables(base: Path, checkout: Path) -> Path:
    """Split 2 as MA-ZS-SBIR writes it: absolute paths of another machine, photos of the extended folder and sketches class by
    class in one file, labels from 1, those of unseen classes going on."""
    table = split_table("sketchy-2")["classes"]
    folder = checkout / "data" / "sketchy"
    folder.mkdir(parents=True)
    label = 0
    for role, file in (("seen", "train_sketchy.csv"), ("unseen", "test_sketchy.csv")):
        lines = ["img_path,text,m1,m2,label"]
        for name in sorted(name for name, entry in table.items() if entry["role"] == role):
            label += 1
            for modality, (here, there) in enumerate(((SKETCHY_EXTENDED, "extended_photo"),
                                                      (SKETCHY_SKETCHES, "sketch/tx_000000000000"))):
                lines += [f"/data/dataset/sketchy/Sketchy/{there}/{name}/{one.name},a photo of a {name}.,{modality},3,{label}"
                          for one in sorted((base / here / name).iterdir(), reverse=True)]
        (folder / file).write_text("\n".join(lines) + "\n")
    return folder


def test_tables_of_sketches_and_photos_are_parted_by_folder(sketchy: Path, tmp_path: Path) -> None:
    tables = _tables(sketchy, tmp_path / "MA-ZS-SBIR")
    assert "label\n" in (tables / "test_sketchy.csv").read_text() and ",105\n" in (tables / "test_sketchy.csv").read_text()
    for asked in (tables, tmp_path / "MA-ZS-SBIR"):
        found = _load(sketchy.parent, "sketchy", "2", lists=asked)
        plain = _load(sketchy.parent, "sketchy", "2", lists="none")
        assert found.classes == plain.classes
        assert sorted(found.query.paths) == sorted(plain.query.paths) and found.query.paths != plain.query.paths
        extended = [path for path in plain.gallery.paths if path.startswith(SKETCHY_EXTENDED)]
        assert sorted(found.gallery.paths) == sorted(extended) and len(extended) == 2 * 21 < len(plain.gallery)
        assert {path: found.classes[label] for path, label in zip(found.gallery.paths, found.gallery.labels)} == {
            path: path.split("/")[1] for path in found.gallery.paths}
        assert len(found.train_photos) == 2 * 104
        assert set(found.heldout_sketches.paths) == set(plain.heldout_sketches.paths), "no list holds any out: our rule"
    said = "\n".join(found.notes)
    assert "lists: from data/sketchy: train_sketchy.csv, test_sketchy.csv\n" in said
    assert "/data/dataset/sketchy/Sketchy/extended_photo as EXTEND_image_sketchy_ready" in said
    # class names by index say nothing of a table's own labels
    make_lists(sketchy, "sketchy", "2", where=tables, parts=())
    assert _load(sketchy.parent, "sketchy", "2", lists=tables).split_digest == found.split_digest
    with pytest.raises(InputError, match=r"train_sketchy\.csv, line 2: 'airplane' is an unseen class, and this list"):
        (tables / "cname_cid.txt").unlink()
        (tables / "cname_cid_zero.txt").unlink()
        _load(sketchy.parent, "sketchy", "1", lists=tables)


@pytest.mark.parametrize(("line", "message"), [
    ("/x/extended_photo/bat/1.jpg,x,0,3,106", r"label 106 belongs to class 'cabin', the path to 'bat'"),
    ("/x/sketch/tx_000000000000/cabin/1.jpg,x,0,3,105", r"label 105 belongs to class 'bat', the path to 'cabin'"),
    ("/x/my_extended_photo/bat/1.jpg,x,0,3,105", r"folder '/x/my_extended_photo' is none of"),
    ("/x/extended_photo/zebra/1.jpg,x,0,3,200", r"'zebra' is a seen class"),
])
def test_contradictions_in_a_table_name_its_line(sketchy: Path, tmp_path: Path, line: str, message: str) -> None:
    tables = _tables(sketchy, tmp_path)
    lines = (tables / "test_sketchy.csv").read_text().splitlines()
    (tables / "test_sketchy.csv").write_text("\n".join([*lines, line]))
    with pytest.raises(InputError, match=rf"test_sketchy\.csv, line {len(lines) + 1}: {message}"):
        _load(sketchy.parent, "sketchy", "2", lists=tables)


def test_the_table_of_tuberlin_names_folders_by_role_and_is_of_another_split(tmp_path: Path) -> None:
    base = make_tree(tmp_path / "data", "tuberlin", sketches=3, photos=2, size=2)
    tables = tmp_path / "MA-ZS-SBIR" / "data" / "tuberlin"
    tables.mkdir(parents=True)
    head = "img_path,text,m1,m2,label"
    # as published: the first photo, and the first sketch
    (tables / "test_tuberlin.csv").write_text(
        f"{head}\n/data/dataset/tuberlin-ext/test/photo/flying_saucer/pic_00105.jpg,a photo of flying saucer.,0,3,221\n"
        "/data/dataset/tuberlin-ext/test/sketch/flying_saucer/6969.jpg,a photo of flying saucer.,1,3,221\n")
    with pytest.raises(InputError, match=r"test_tuberlin\.csv, line 2: 'flying saucer' is a seen class, and this list holds "
                                         r"unseen ones; .* Is it another split's\?"):
        _load(base.parent, "tuberlin", lists=tmp_path / "MA-ZS-SBIR")
    # the same form with the paper's classes is read
    for role, part in (("seen", "train"), ("unseen", "test")):
        names = sorted(name for name, entry in split_table("tuberlin")["classes"].items() if entry["role"] == role)
        rows = [f"/data/tuberlin-ext/{part}/{kind}/{name}/{one.name},a photo.,0,3,{label}" for label, name in enumerate(names, 1)
                for kind, folder in (("photo", "ImageResized_ready"), ("sketch", "png_ready"))
                for one in sorted((base / folder / name).iterdir())]
        (tables / f"{part}_tuberlin.csv").write_text("\n".join([head, *rows]))
    found, plain = (_load(base.parent, "tuberlin", lists=lists) for lists in (tables, "none"))
    for part in ("query", "gallery", "train_photos", "train_sketches", "heldout_sketches"):
        assert sorted(getattr(found, part).paths) == sorted(getattr(plain, part).paths), part
    assert "/data/tuberlin-ext/test/photo as ImageResized_ready" in "\n".join(found.notes)


# --- two spellings of one class -------------------------------------------------------------------------------------------

def test_two_spellings_of_one_class_are_one_class_or_an_error_that_names_both(quickdraw: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(quickdraw, data, copy_function=os.link)
    folder = data / "QuickDraw" / "QuickDraw_sketches_final"
    (folder / "palm tree").rename(folder / "Palm_Tree")  # the photos keep the other spelling
    lists = tmp_path / "zeroshot"
    shutil.copytree(quickdraw.parent / "checkout" / "datasets" / "QuickDraw" / "zeroshot", lists)
    zero = lists / "sketch_zero.txt"
    first, second = [line for line in zero.read_text().splitlines() if "/palm tree/" in line][:2]
    zero.write_text(zero.read_text().replace(first, first.replace("palm tree", "palm_tree")))
    known = _load(quickdraw, "quickdraw", lists=quickdraw.parent / "checkout")
    for way, expected in ((lists, known), ("none", _load(quickdraw, "quickdraw", lists="none"))):
        found = _load(data, "quickdraw", lists=way)
        assert found.split_digest == expected.split_digest and found.classes.count("palm tree") == 1
        label = found.classes.index("palm tree")
        assert (found.query.labels == label).sum() == 3 and (found.gallery.labels == label).sum() == 2

    zero.write_text(zero.read_text().replace(second, second.replace("palm tree", "palm-tree").rsplit(" ", 1)[0] + " 0"))
    with pytest.raises(InputError, match=r"sketch_zero\.txt, line \d+: label 0 belongs to class '.*', the path to 'palm tree'"):
        _load(data, "quickdraw", lists=lists)
    (folder / "palm-tree").mkdir()
    with pytest.raises(InputError, match="folders 'Palm_Tree' and 'palm-tree' are both class 'palm tree'; merge them"):
        _load(data, "quickdraw", lists="none")
