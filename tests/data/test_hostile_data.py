"""Data sets as nobody would want them: the right split, or an error that names the place and the way out.

In: small trees in the published layout, spoilt: empty and one-image classes, odd file names, links in circles, a root that is
none, thousands of foreign folders, a folder that can't be written. What a split should hold is worked out by a plain listing
here.
"""
from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.fuzzing import fuzz
from support.mounts import read_only
from support.picture_files import numbers
from support.trees import class_names

from tcn.config import InputError
from tcn.data import doctor, locate, scan, splits
from tcn.data.specs import read_plan
from tcn.data.splits import load
from tcn.data.store import pack
from tcn.data.words import normal_form
from tcn.files.text import shown

SKETCHES, PHOTOS = "png_ready", "ImageResized_ready"
WHOLE = read_plan("tuberlin")
NAMES = (*WHOLE.of("seen")[:8], *WHOLE.of("unseen")[:6])
PLAN = dataclasses.replace(WHOLE, roles={name: WHOLE.roles[name] for name in NAMES}, counts={"sketches": {}, "photos": {}},
                           totals={}, folder_aliases={}, distinct={})
"""The published split with 14 of its classes, so that a tree is made in no time."""


@pytest.fixture(autouse=True)
def small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "read_plan", lambda *_: PLAN)


@pytest.fixture(scope="session")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TU-Berlin tree of those classes to copy: two sketches and one photo each, 4 x 4 pixels, all different."""
    root = tmp_path_factory.mktemp("pattern")
    for label, name in enumerate(NAMES):
        for number, path in enumerate((f"{SKETCHES}/{name}/1.png", f"{SKETCHES}/{name}/2.png", f"{PHOTOS}/{name}/{name}_0.png")):
            (root / "TUBerlin" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(numbers(4, 4, 3, seed=3 * label + number)).save(root / "TUBerlin" / path)
    return root


@pytest.fixture
def root(pattern: Path, tmp_path: Path) -> Path:
    """A data root to spoil."""
    return shutil.copytree(pattern, tmp_path / "data")


@pytest.fixture
def base(root: Path) -> Path:
    """The data set's folder in `root`."""
    return root / "TUBerlin"


def _load(root: Path, **options: object) -> splits.Split:
    return load("tuberlin", data_root=root, cache=root / "no-cache", progress=False, **options)


def on_disk(base: Path, folder: str, classes: tuple[str, ...]) -> set[str]:
    """Every regular file below the class folders, by a plain listing."""
    return {f"{folder}/{name}/{file}" for name in classes for file in os.listdir(base / folder / name)
            if os.path.isfile(base / folder / name / file)}


# --- few images, none, one side only ----------------------------------------------------------------------------------

@pytest.mark.parametrize(("folder", "other"), ((SKETCHES, PHOTOS), (PHOTOS, SKETCHES)))
@pytest.mark.parametrize("how", ("emptied", "removed", "only text in it", "only hidden files"))
@pytest.mark.parametrize("role", ("seen", "unseen"))
def test_a_class_with_one_side_only_is_named_and_left_out_where_asked(root, base, folder, other, how, role):
    name = PLAN.of(role)[3]
    shutil.rmtree(base / folder / name)
    if how != "removed":
        (base / folder / name).mkdir()
    if "only" in how:
        (base / folder / name / ("Thumbs.db" if "text" in how else "._1.png")).write_bytes(b"x" * 100)
    with pytest.raises(InputError, match=rf"(?s)1 problem\).*{folder}: 1 (class folder without any image|of 14 classes missing): "
                                         rf"{name}"):
        _load(root)
    lenient = _load(root, strict=False)
    assert name not in lenient.classes and len(lenient.classes) == 13
    assert any(name in note and folder in note for note in lenient.notes)
    assert not [path for files in lenient.lists().values() for path in files.paths if f"/{name}/" in path]
    assert max(lenient.train_photos.labels) == len(lenient.seen) - 1 and set(lenient.train_photos.labels) == set(
        range(len(lenient.seen)))


@pytest.mark.parametrize("sketches", (1, 2, 4, 5, 10))
def test_a_class_of_few_sketches_keeps_one_for_training(root, base, sketches):
    name = PLAN.of("seen")[7]
    for file in (base / SKETCHES / name).iterdir():
        file.unlink()
    for i in range(sketches):
        Image.new("L", (2, 2)).save(base / SKETCHES / name / f"{i}.png")
    split = _load(root)
    label = split.classes.index(name)
    trained, held = (sum(files.labels == label) for files in (split.train_sketches, split.heldout_sketches))
    assert (trained, held) == {1: (1, 0), 2: (1, 1), 4: (3, 1), 5: (4, 1), 10: (8, 2)}[sketches]
    assert any("a fifth is held out instead of 10" in note for note in split.notes)


def test_a_class_of_one_image_each_is_a_query_and_its_gallery(root, base):
    name = PLAN.of("unseen")[0]
    file = min((base / SKETCHES / name).iterdir())
    file.unlink()
    split = _load(root)
    label = split.classes.index(name)
    assert [sum(files.labels == label) for files in (split.query, split.gallery)] == [1, 1]


def test_nothing_but_empty_class_folders(root, base):
    for folder in (SKETCHES, PHOTOS):
        for name in os.listdir(base / folder):
            shutil.rmtree(base / folder / name)
            (base / folder / name).mkdir()
    with pytest.raises(InputError, match="(?s)png_ready: 14 class folders without any image.*ImageResized_ready: 14 class"):
        _load(root)
    lenient = _load(root, strict=False)
    assert lenient.classes == () and all(len(files) == 0 for files in lenient.lists().values())


# --- file names -------------------------------------------------------------------------------------------------------

ODD = ("a b.png", " leading.png", "-rf.png", "--help.png", "é.png", "e\u0301.png", "it's.png", 'say "so".png', "new\nline.png",
       "tab\t1.png", "$HOME.png", "%s{0}.png", "back\\slash.png", "*.png", "#1.PNG", "\u202egnp.png",
       "日本語.png", "x" * 240 + ".png", "..png", "a.jpg.png")


def test_odd_file_names_are_all_there_and_decoded(root, base, tmp_path):
    name = PLAN.of("unseen")[5]
    picture = np.random.default_rng(0).integers(0, 256, (len(ODD), 4, 4, 3), dtype=np.uint8)
    named = [one for one in ODD if not one.startswith(".")]
    for values, file in zip(picture, ODD):
        with open(base / SKETCHES / name / file, "wb") as out:
            Image.fromarray(values).save(out, "PNG")
    split = _load(root)
    label = split.classes.index(name)
    mine = [i for i in range(len(split.query)) if split.query.labels[i] == label]
    assert {split.query.paths[i] for i in mine} == {one for one in on_disk(base, SKETCHES, (name,)) if "/." not in one}
    assert len(mine) == len(named) + 2
    loaded = pack(split.query, 4, tmp_path / "cache", split.data_digest, "tuberlin", False)
    by_path = {split.query.paths[i]: loaded.array[i] for i in mine}
    for values, file in zip(picture, ODD):
        if file in named:
            assert np.array_equal(by_path[f"{SKETCHES}/{name}/{file}"], values), file
    assert _load(root).split_digest == split.split_digest
    report = doctor.check("tuberlin", data_root=root, cache=tmp_path / "cache", progress=False)
    assert Path(report.manifest).is_file()


names = st.text(st.characters(exclude_categories=(), exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda text: len(os.fsencode(_encodable(text))) < 200)


def _encodable(text: str) -> str:
    """Surrogates outside the escapes for bytes can't be in a file name at all."""
    return "".join(c if not 0xD800 <= ord(c) < 0xDC80 and not 0xDD00 <= ord(c) <= 0xDFFF else "_" for c in text)


@fuzz("file names", examples=60)
@given(st.lists(names.map(_encodable), min_size=1, max_size=6, unique=True),
       st.sampled_from((".png", ".JPG", ".jpeg", ".txt", "")))
def test_whatever_a_file_is_called_it_is_listed_or_named_as_ignored(pattern, tmp_path_factory, stems, ending):
    base = tmp_path_factory.getbasetemp() / "names" / "TUBerlin"
    if not base.exists():
        shutil.copytree(pattern / "TUBerlin", base)
    name = PLAN.of("unseen")[1]
    folder = base / SKETCHES / name
    files = [stem + ending for stem in stems if stem + ending not in (".", "..")]
    before = set(os.listdir(folder))
    try:
        for file in files:
            (folder / file).write_bytes(b"a")
        created = set(os.listdir(folder)) - before
        expected = {file for file in created if file.lower().endswith((".png", ".jpg", ".jpeg")) and not file.startswith(".")}
        bytes_only = {file for file in expected if any(0xDC80 <= ord(letter) <= 0xDCFF for letter in file)}
        if bytes_only:
            with pytest.raises(InputError, match=rf"{SKETCHES}: {len(bytes_only)} images? with a name that is not UTF") as caught:
                _load(base.parent)
            assert all(shown(file) in str(caught.value) for file in bytes_only)
        split = _load(base.parent, strict=False)
        expected -= bytes_only
        label = split.classes.index(name)
        found = {path.split("/", 2)[2] for path, its in zip(split.query.paths, split.query.labels) if its == label}
        assert found - before == expected
        ignored = created - expected
        assert any(f"ignored {len(ignored)} stray file" in note for note in split.notes) == bool(ignored)
        assert all(note.isprintable() for note in split.notes)
    finally:
        for file in set(os.listdir(folder)) - before:
            (folder / file).unlink()


def test_a_name_that_is_not_utf_8_is_an_error_before_anything_runs(root, base):
    """The tables of a run's results are UTF-8 text and hold the names of queries."""
    file = base / SKETCHES / PLAN.of("unseen")[0] / "\udcff\udc80.png"
    shutil.copy(next(file.parent.iterdir()), file)
    with pytest.raises(InputError, match=r"png_ready: 1 image with a name that is not UTF-8, which results can't hold: "
                                         r".*\\udcff\\udc80\.png; rename it"):
        _load(root)
    lenient = _load(root, strict=False)
    assert not [path for path in lenient.query.paths if "\udcff" in path] and len(lenient.query) == 12


def test_names_in_messages_are_one_line_and_harmless(root, base):
    (base / SKETCHES / "fake\n  - everything else is fine\x1b[2J\u202e\udcff").mkdir()
    with pytest.raises(InputError) as caught:
        _load(root)
    assert r"fake\n  - everything else is fine\x1b[2J\u202e\udcff" in str(caught.value)
    assert all(line.isprintable() for line in str(caught.value).split("\n")) and len(str(caught.value).split("\n")) == 2
    assert shown("plain name (é).png") == "plain name (é).png" and shown(Path("a\nb")) == r"a\nb"


def test_a_line_feed_in_a_name_cannot_pass_for_another_file(root, base, tmp_path):
    """One file called like the lines of two gives another digest than the two."""
    name, folder = PLAN.of("seen")[0], base / SKETCHES / PLAN.of("seen")[0]
    digests = set()
    for files in (("a.png", "b.png"), (f"a.png\t3\n{SKETCHES}\u2215{name}\u2215b.png",)):
        for file in files:
            (folder / file).write_bytes(b"abc")
        digests.add(_load(root).data_digest)
        for file in files:
            (folder / file).unlink()
    assert len(digests) == 2
    assert splits._digest(["a", "b"]) == hashlib.sha256(b"a\nb").hexdigest() != splits._digest(["a\nb"])


@pytest.mark.parametrize(("one", "other"), (("café", "cafe\u0301"), ("Tree House", "tree_house")))
def test_two_spellings_of_a_class_folder_are_an_error_that_names_both(root, base, monkeypatch, one, other):
    name = PLAN.of("seen")[2]
    plan = dataclasses.replace(PLAN, folder_aliases={one: name})
    monkeypatch.setattr(splits, "read_plan", lambda *_: plan)
    shutil.rmtree(base / SKETCHES / name)
    for folder in (one, other):
        shutil.copytree(base / PHOTOS / name, base / SKETCHES / folder)
    with pytest.raises(InputError, match=f"both class '{name}'; merge them or remove one") as caught:
        _load(root)
    assert f"'{one}'" in str(caught.value) and f"'{other}'" in str(caught.value)


# --- roots and links --------------------------------------------------------------------------------------------------

def _file(place: Path) -> None:
    place.write_text("no folder")


def _loop(place: Path) -> None:
    place.symlink_to(place)


def _nowhere(place: Path) -> None:
    place.symlink_to(place.with_name("gone"))


@pytest.mark.parametrize("make", (_file, _loop, _nowhere, lambda place: None))
def test_a_root_that_is_no_folder_is_named(tmp_path, make):
    make(tmp_path / "root")
    with pytest.raises(InputError, match=r"data root .*/root \(from --data-root\) is not a folder"):
        _load(tmp_path / "root")
    with pytest.raises(InputError, match="is not a folder"):
        locate.available(tmp_path / "root")


@pytest.mark.parametrize("path", ("x" * 5000, "a\0b", "\udcff", "new\nline", ""))
def test_a_root_that_cannot_be_a_path_is_named(tmp_path, path):
    with pytest.raises(InputError, match=r"is not a folder|is not available"):
        _load(tmp_path / path)


@pytest.mark.parametrize("make", (_file, _loop, _nowhere))
@pytest.mark.parametrize("place", ("TUBerlin", f"TUBerlin/{PHOTOS}"))
def test_a_data_set_or_side_that_is_no_folder_is_called_missing(root, place, make):
    os.rename(root / place, root / "aside")
    make(root / place)
    with pytest.raises(InputError, match="not available. (no TU-Berlin Extended: looked in|TU-Berlin Extended is incomplete.*not "
                                         "ImageResized_ready)"):
        _load(root)


@pytest.mark.parametrize("make", (_file, _loop, _nowhere))
def test_a_class_that_is_no_folder_is_called_missing(root, base, make):
    name = PLAN.of("unseen")[2]
    shutil.rmtree(base / PHOTOS / name)
    make(base / PHOTOS / name)
    with pytest.raises(InputError, match=rf"{PHOTOS}: 1 of 14 classes missing: {name}"):
        _load(root)
    assert any(f"ignored 1 stray file: {name}" in note for note in _load(root, strict=False).notes)


def test_links_in_circles_end_the_listing_nowhere(root, base):
    """Also a class folder that holds its own parent: nothing is walked into."""
    name = PLAN.of("seen")[4]
    (base / SKETCHES / name / "again").symlink_to(base)
    (base / SKETCHES / name / "loop.png").symlink_to("loop.png")
    (base / SKETCHES / name / "ping.png").symlink_to("pong.png")
    (base / SKETCHES / name / "pong.png").symlink_to("ping.png")
    (base / SKETCHES / name / "folder.png").symlink_to(base)
    os.mkfifo(base / SKETCHES / name / "pipe.png")
    (base / "TUBerlin").symlink_to(base)
    plain = set(on_disk(base, SKETCHES, PLAN.of("seen")))
    split = _load(root)
    assert {*split.train_sketches.paths, *split.heldout_sketches.paths} == plain
    assert any("png_ready: ignored 6 stray files: " in note and "loop.png" in note and "pipe.png" in note for note in split.notes)


def test_a_class_folder_linked_to_its_parent_has_no_images(root, base):
    name = PLAN.of("seen")[4]
    shutil.rmtree(base / SKETCHES / name)
    (base / SKETCHES / name).symlink_to("..")
    with pytest.raises(InputError, match=f"1 class folder without any image: {name}"):
        _load(root)


def test_the_same_folder_reached_twice_by_links_is_one(root, base):
    (root / "tu-berlin").symlink_to(base)
    assert _load(root).classes == NAMES


# --- many -------------------------------------------------------------------------------------------------------------

def test_thousands_of_foreign_folders_are_counted_and_not_compared_with_all(root, base, monkeypatch):
    """A wrong folder, and classes missing: no comparison of all with all, and no message of a million letters."""
    for i in range(5_000):
        os.mkdir(base / PHOTOS / f"n{i:08d}_foreign")
    for name in PLAN.of("seen"):
        shutil.rmtree(base / PHOTOS / name)
    compared = []
    distance = scan._edit_distance
    monkeypatch.setattr(scan, "_edit_distance", lambda *pair: compared.append(pair) or distance(*pair))
    with pytest.raises(InputError, match="8 of 14 classes missing.*\n.*5000 unexpected class folders: n00000000_foreign, .* and "
                                         "4980 more") as caught:
        _load(root)
    assert len(str(caught.value)) < 2_000 and len(compared) < 100


def test_near_misses_are_hinted_at_as_by_the_plain_definition():
    words = [*class_names("tuberlin"), "airplan", "car (sedna)", "ants", "an", "zebrax", "xx zebra"]
    plain = [f"'{folder}' for '{name}'" for name in words for folder in words
             if scan._edit_distance(normal_form(name), normal_form(folder)) <= (1 if len(name) < 6 else 2)]
    assert scan._did_you_mean(words, words) == f"; did you mean {', '.join(plain)}? Then rename"


# --- nothing is written beside the data -------------------------------------------------------------------------------

def _state(root: Path) -> Mapping[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in (root, *root.rglob("*"))}


def test_a_read_only_data_folder_gives_the_same_and_is_left_as_it_was(root, tmp_path):
    before, plain = _state(root), _load(root)
    arrays = [np.asarray(pack(files, 4, tmp_path / "one", plain.data_digest, "tuberlin", False).array)
              for files in (plain.query, plain.gallery)]
    with read_only(root):
        again = _load(root)
        assert again.split_digest == plain.split_digest and again.data_digest == plain.data_digest
        for array, files in zip(arrays, (again.query, again.gallery)):
            assert np.array_equal(np.asarray(pack(files, 4, tmp_path / "two", again.data_digest, "tuberlin", False).array), array)
        assert doctor.check("tuberlin", data_root=root, cache=tmp_path / "two", progress=False).state == "whole"
    assert _state(root) == before
