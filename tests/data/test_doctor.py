"""`python -m tcn data check`: planted faults found and counted, digests by a second route, streams, exit status."""
from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torchvision
import yaml
from PIL import Image
from support.trees import SKETCHY_EXTENDED, SKETCHY_ORIGINALS, make_emoji, make_lists, make_tree

from tcn.__main__ import main
from tcn.config import InputError
from tcn.data import doctor, emoji, splits
from tcn.data.contents import read_contents
from tcn.data.report import Report, render
from tcn.data.specs import SPECS, read_plan
from tcn.data.splits import load

SPLITS = [("sketchy", "1"), ("sketchy", "2"), ("tuberlin", "1"), ("quickdraw", "1")]


def distinct_bytes(base: Path) -> None:
    """Make every picture's bytes its own: decoders ignore what follows an image's end."""
    for path in sorted(base.rglob("*.*")):
        path.write_bytes(path.read_bytes() + f"{path.parent.name}/{path.name}".encode())


@pytest.fixture(scope="session")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TU-Berlin, two sketches and one photo a class, no two files alike; the data root, read only."""
    root = tmp_path_factory.mktemp("intact")
    distinct_bytes(make_tree(root, "tuberlin", sketches=2, photos=1, size=4))
    return root


@pytest.fixture
def root(intact: Path, tmp_path: Path) -> Path:
    """A copy of `intact` to spoil."""
    shutil.copytree(intact, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect of TU-Berlin what `intact` holds."""
    plan = read_plan("tuberlin")
    small = dataclasses.replace(
        plan, counts={"sketches": dict.fromkeys(plan.roles, 2), "photos": dict.fromkeys(plan.roles, 1)},
        totals={"sketches": 500, "photos": 250}, totals_also={}, held_out_per_class=1)
    monkeypatch.setattr(splits, "read_plan", lambda *_: small)


def checked(root: Path, dataset: str = "tuberlin", split: str | None = None, **options: object) -> Report:
    return doctor.check(dataset, split, data_root=root, cache=root.parent / "cache", progress=False, **options)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


# --- one split ------------------------------------------------------------------------------------------------------

def test_a_whole_data_set_is_called_whole(root: Path, small_plan: None) -> None:
    before = snapshot(root)
    report = checked(root)
    assert (report.state, report.problems) == ("whole", [])
    assert report.counts["train_sketches"] == {"entries": 220, "distinct": 220, "expected": 220, "expected_distinct": None}
    assert report.counts["heldout_sketches"]["expected"] == report.counts["heldout_sketches"]["entries"] == 220
    assert report.counts["query"]["entries"] == 60 and report.counts["gallery"]["expected"] == 30
    assert report.totals == {"sketches": {"files": 500, "expected": 500}, "photos": {"files": 250, "expected": 250}}
    assert report.duplicates["by_content"] == 0 and report.unreadable == {"count": 0, "examples": []}
    assert snapshot(root) == before, "the data root is only read"


def test_the_content_digest_is_that_of_the_bytes_by_published_names(root: Path, small_plan: None) -> None:
    def by_hand() -> str:
        lines = [f"{path.relative_to(root / 'TUBerlin').as_posix()}\t{hashlib.sha256(path.read_bytes()).hexdigest()}"
                 for path in root.rglob("*.*")]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()

    expected = by_hand()
    assert checked(root).content_digest == expected
    file = root / "TUBerlin" / "png_ready" / "cup" / sorted(os.listdir(root / "TUBerlin" / "png_ready" / "cup"))[0]
    data = file.read_bytes()
    file.write_bytes(data[:-1] + b"!")  # as long as before: only the contents tell
    changed = checked(root)
    assert changed.content_digest == by_hand() != expected
    file.write_bytes(data)
    (root / "TUBerlin" / "png_ready").rename(root / "TUBerlin" / "png")
    (root / "TUBerlin" / "png" / "palm tree").rename(root / "TUBerlin" / "png" / "palm_tree")
    elsewhere = checked(root)
    assert elsewhere.content_digest == expected, "another layout, the same pictures"
    assert elsewhere.data_digest == changed.data_digest, "sizes alone do not tell"
    assert elsewhere.layout == {"png_ready": "png", "ImageResized_ready": "ImageResized_ready"}


def test_counts_are_held_against_the_published_lists(intact: Path, tmp_path: Path) -> None:
    report = doctor.check("tuberlin", data_root=intact, cache=tmp_path, progress=False, fast=True)
    assert report.state == "problems"
    for line in ("train_sketches: 220 entries, 15,400 expected", "heldout_sketches: 220 entries, 2,200 expected",
                 "query: 60 entries, 2,400 expected", "gallery: 30 entries, 27,989 expected",
                 "photos: 250 files in all, 204,489 expected"):
        assert line in report.problems
    assert report.counts["train_photos"]["expected"] is None, "no published list gives it"
    assert report.unreadable is None and report.content_digest is None and report.duplicates["by_content"] is None
    expected = {key: read_plan(*key).expected() for key in SPLITS}
    assert expected["sketchy", "1"] == {"train_sketches": 55_252, "heldout_sketches": 5_000, "query": 15_229,
                                        "train_photos": 68_401, "gallery": 17_101}
    assert expected["tuberlin", "1"] == {"train_sketches": 15_400, "heldout_sketches": 2_200, "query": 2_400,
                                         "gallery": 27_989}
    assert expected["quickdraw", "1"] == {"query": 92_291, "gallery": 54_151}
    assert sum(expected["sketchy", "2"].values()) == 75_481 + 85_502
    assert read_plan("sketchy", "1").distinct == {"gallery": 14_602}


def test_the_other_count_in_circulation_is_no_problem(root: Path, small_plan: None, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(splits.read_plan(), totals={"sketches": 500, "photos": 300})
    monkeypatch.setattr(splits, "read_plan", lambda *_: plan)
    assert checked(root, fast=True).problems == ["photos: 250 files in all, 300 expected"]
    known = dataclasses.replace(plan, totals_also={"photos": [250]})
    monkeypatch.setattr(splits, "read_plan", lambda *_: known)
    report = checked(root, fast=True)
    assert report.problems == [] and any("250 is also the count" in note for note in report.notes)
    assert read_plan is not splits.read_plan and read_plan("tuberlin").totals_also == {"photos": [204_070]}


def test_damaged_files_are_found_by_decoding(root: Path, small_plan: None) -> None:
    photos = root / "TUBerlin" / "ImageResized_ready"
    whole = (photos / "cup" / "cup_0.jpg").read_bytes()
    (photos / "cup" / "cup_0.jpg").write_bytes(whole[:len(whole) // 2])
    (photos / "zebra" / "zebra_0.jpg").write_bytes(b"<html>404</html>")
    (photos / "ant" / "ant_0.jpg").write_bytes(b"")
    (photos / "ant" / "Thumbs.db").write_bytes(b"x")
    report = checked(root)
    assert report.unreadable["count"] == 3
    said = "; ".join(report.unreadable["examples"])
    assert "cup/cup_0.jpg (Truncated File Read" in said and "zebra/zebra_0.jpg (not a JPEG, PNG," in said
    assert "ant/ant_0.jpg (0 bytes)" in said
    assert report.hollow == {"count": 1, "examples": ["ImageResized_ready/ant/ant_0.jpg"]}
    assert report.stray == {"count": 1, "examples": ["ImageResized_ready/ant/Thumbs.db"]}
    assert any("3 unreadable images" in problem for problem in report.problems)
    fast = checked(root, fast=True)
    assert not any("unreadable" in problem for problem in fast.problems)
    assert any("1 file of 0 bytes: ant/ant_0.jpg" in problem for problem in fast.problems)


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _of_another_size(root: Path) -> list[str]:
    found = splits.survey("tuberlin", data_root=root, cache=root, progress=False)
    contents = read_contents(found.root, found.files, "", progress=False)
    return [found.files[name][0] for name, content in contents.items() if "size" in content.traits]


def test_pictures_that_readers_treat_differently_are_counted_and_wrong_ones_named(root: Path, small_plan: None) -> None:
    photos, sketches = root / "TUBerlin" / "ImageResized_ready", root / "TUBerlin" / "png_ready"
    names = sorted(photos.rglob("*.*"))
    noise = np.random.default_rng(5).integers(0, 256, (256, 256, 4), np.uint8)
    assert {trait: its["count"] for trait, its in checked(root).pictures.items()} == {"size": 750}
    picture, deep = Image.fromarray(noise[..., :3]), (noise[..., 0].astype(np.uint16) << 8) + 7
    for number, orientation in enumerate((6, 3, 8, 1, 0, 9)):  # the last three turn nothing
        picture.save(names[number], "JPEG", exif=_exif(orientation), quality=60 + number)
    data = names[0].read_bytes()
    # damaged EXIF data: no rotation, and no fault
    names[6].write_bytes(data.replace(b"Exif\0\0MM", b"Exif\0\0??").replace(b"Exif\0\0II", b"Exif\0\0??"))
    for number, size in ((7, (255, 256)), (8, (256, 500))):
        picture.resize(size).save(names[number], "JPEG")
    cup, key, ant = (sorted((sketches / name).iterdir()) for name in ("cup", "key", "ant"))
    Image.fromarray(noise).save(cup[0])
    opaque = noise.copy()
    opaque[..., 3] = 255
    Image.fromarray(opaque).save(cup[1])  # an alpha channel, and nothing transparent
    Image.fromarray(noise[..., 0]).save(key[0], transparency=int(noise[9, 9, 0]))
    Image.fromarray(deep).save(key[1])
    picture.convert("CMYK").save(names[9], "JPEG")
    picture.save(names[10], "PNG")
    picture.save(ant[0], "WEBP", lossless=True)
    picture.quantize(16).save(ant[1], "GIF")
    names[11].write_bytes(gzip.compress(names[12].read_bytes()))
    names[13].write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 3\n")
    report = checked(root)
    assert {trait: its["count"] for trait, its in report.pictures.items()} == {
        "turned": 3, "size": 750 - 15 - 2, "transparent": 2, "deep": 1, "cmyk": 1, "misnamed": 3}
    assert {names[7], names[8]} < {root / "TUBerlin" / path for path in _of_another_size(root)}
    assert report.pictures["turned"]["examples"] == [path.relative_to(root / "TUBerlin").as_posix() for path in names[:3]]
    assert report.unreadable["count"] == 2
    said = "; ".join(report.unreadable["examples"])
    assert "but gzip-compressed: call it NAME.gz and run `gunzip NAME.gz`" in said and "but a Git LFS pointer" in said
    text = " ".join("\n".join(render([report])).split())
    assert "pictures with an EXIF orientation, 3:" in text and "pictures of another size than 256 x 256, 733:" in text
    assert "pictures with transparent parts, 2:" in text
    assert json.loads(Path(report.manifest).read_text())["pictures"] == report.pictures
    assert checked(root, fast=True).pictures is None


def test_pictures_shared_by_training_and_test_are_leaks(root: Path, small_plan: None) -> None:
    photos, sketches = root / "TUBerlin" / "ImageResized_ready", root / "TUBerlin" / "png_ready"
    shutil.copy(photos / "cup" / "cup_0.jpg", photos / "ant" / "ant_0.jpg")  # seen -> unseen
    shutil.copy(photos / "zebra" / "zebra_0.jpg", photos / "banana" / "banana_0.jpg")
    shutil.copy(photos / "tiger" / "tiger_0.jpg", photos / "lion" / "lion_0.jpg")  # both seen: a duplicate, no leak
    one, other = sorted((sketches / "key").iterdir())  # one of them is held out
    shutil.copy(one, other)
    shutil.copy(one, photos / "key" / "key_0.jpg")  # across modalities: a duplicate
    report = checked(root)
    found = {(*overlap["lists"], overlap["by"]): overlap["count"] for overlap in report.overlaps}
    assert found == {("train_photos", "gallery", "content"): 2, ("train_sketches", "heldout_sketches", "content"): 1}
    leak = next(one for one in report.overlaps if one["lists"][1] == "gallery")
    assert "ImageResized_ready/cup/cup_0.jpg = ImageResized_ready/ant/ant_0.jpg" in leak["examples"]
    assert any(problem.startswith("leak: train_photos and gallery share the same picture, byte for byte 2 times")
               for problem in report.problems)
    assert report.duplicates["by_content"] == 3 + 2
    assert report.duplicates["by_content_across_classes"] == 3
    assert checked(root, fast=True).overlaps == []


def test_sketchys_photos_in_both_folders_are_counted_and_compared(tmp_path: Path) -> None:
    base = make_tree(tmp_path / "data", "sketchy", sketches=1, photos=2, size=4)
    distinct_bytes(base)
    changed = next((base / SKETCHY_ORIGINALS / "cup").iterdir())
    changed.write_bytes(changed.read_bytes() + b"!")
    moved = next((base / SKETCHY_ORIGINALS / "zebra").iterdir())
    moved.rename(moved.with_suffix(".JPEG"))  # still the same picture
    extra = base / SKETCHY_EXTENDED / "zebra" / "ext_1.jpg"
    shutil.copy(extra, extra.with_name("again.jpg"))
    contents: dict[str, doctor.Content] = {}
    report = checked(tmp_path / "data", "sketchy", "1", contents=contents)
    assert report.duplicates["by_name"] == 125 and report.duplicates["by_name_other_bytes"] == 1
    assert report.duplicates["by_content"] == 1 and "again.jpg = " in report.duplicates["examples"][0]
    assert report.counts["gallery"]["entries"] == 75 and report.counts["gallery"]["distinct"] == 50
    assert "gallery: 50 distinct files, 14,602 expected" in report.notes
    held = {name: content.sha256 for name, content in contents.items()}
    second = checked(tmp_path / "data", "sketchy", "2", contents=contents)
    assert {name: content.sha256 for name, content in contents.items()} == held
    assert second.content_digest == report.content_digest and second.split_digest != report.split_digest


def test_damaged_lists_are_a_problem_and_do_not_hide_the_rest(root: Path, small_plan: None) -> None:
    lists = make_lists(root / "TUBerlin", "tuberlin")
    report = checked(root)
    assert report.state == "whole" and report.lists["path"] == str(lists)
    assert "png_ready_filelist_test.txt" in report.lists["used"] and report.lists["absent"] == []
    with open(lists / "png_ready_filelist_zero.txt", "a") as file:
        file.write("png_ready/cup/1.png 0\n")
    (root / "TUBerlin" / "png_ready" / "cup" / "odd.png").write_bytes(b"no image")
    spoilt = checked(root)
    assert "'cup' is a seen class" in spoilt.problems[0] and spoilt.lists is None
    assert spoilt.unreadable["count"] == 1 and spoilt.counts["query"]["entries"] == 60


# --- words --------------------------------------------------------------------------------------------------------------

@pytest.fixture
def vectors(root: Path) -> dict[str, list[float]]:
    """A vector for each of TU-Berlin's classes; two seen ones share theirs, as do an unseen and a seen one."""
    plan = read_plan("tuberlin")
    found = {name: [index + 1.0, 2.0] for index, name in enumerate(plan.roles)}
    found["crab"] = found["snail"]
    found[plan.of("unseen")[0]] = found["bell"]
    return found


def words_file(root: Path, vectors: dict[str, list[float]]) -> Path:
    path = root.parent / "words.txt"
    path.write_text("".join(f"{name.replace(' ', '_')} {a} {b}\n" for name, (a, b) in vectors.items()))
    return path


def test_classes_that_share_a_word_vector_are_reported(root: Path, small_plan: None, vectors: dict[str, list[float]]) -> None:
    assert checked(root).words is None
    report = checked(root, words=words_file(root, vectors))
    assert report.state == "whole" and report.words["alike"] == [["crab", "snail"]]
    assert "250 words, 2-d" in report.words["description"]
    assert "words.txt: the same vector for crab = snail: by their words alone these classes can't be told apart" in report.notes
    text = " ".join("\n".join(render([report])).split())
    assert "words words.txt: " in text and "note: words.txt: the same vector for crab = snail" in text
    assert "checked with --words" not in text
    vectors["crab"] = [7.5, 2.0]
    again = checked(root, words=words_file(root, vectors))
    assert again.words["alike"] == [] and not any("same vector" in note for note in again.notes)


def test_seen_classes_without_a_word_vector_are_a_problem_and_unseen_ones_need_none(
        root: Path, small_plan: None, vectors: dict[str, list[float]]) -> None:
    for name in read_plan("tuberlin").of("unseen"):
        del vectors[name]
    assert checked(root, words=words_file(root, vectors)).state == "whole"
    del vectors["crab"], vectors["snail"]
    report = checked(root, words=words_file(root, vectors))
    assert report.state == "problems" and report.words is None
    assert "has no vector for 2 of 220 class names: crab (no vector for crab), snail" in report.problems[-1]


def test_the_command_checks_the_paper_s_own_words(root: Path, small_plan: None, shared_data: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--data-root", root, "--cache", root.parent / "cache", "--datasets", "tuberlin", "--fast", "--json", "--words")
    assert command(*arguments, shared_data / "words-tuberlin.txt") == 0
    [report] = json.loads(capsys.readouterr().out)["reports"]
    assert report["words"]["alike"] == [] and "250 words, 300-d" in report["words"]["description"]
    assert command(*arguments, shared_data / "words-sketchy.txt") == 1  # of other classes
    assert "class names: " in json.loads(capsys.readouterr().out)["reports"][0]["problems"][-1]


# --- ImageNet ---------------------------------------------------------------------------------------------------------

def test_every_category_of_the_overlap_table_is_one_of_torchvisions() -> None:
    categories = set(torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    table = yaml.safe_load(doctor.OVERLAP.read_text())
    for part in (*table["inside"].values(), table["near"]):
        for name, its in part.items():
            assert set(its) <= categories, name
            assert len(set(its)) == len(its), name


def test_the_overlap_table_lists_every_unseen_class_and_no_other() -> None:
    table = yaml.safe_load(doctor.OVERLAP.read_text())
    everywhere: set[str] = set()
    for dataset, split in SPLITS:
        key = f"{dataset}-{split}" if dataset == "sketchy" else dataset
        unseen = set(read_plan(dataset, split).of("unseen"))
        assert set(table["inside"][key]) == unseen
        everywhere |= unseen
    assert set(table["near"]) <= everywhere
    assert all(table["near"].values())


def test_split_2s_members_inside_imagenet_are_said_by_our_reading(root: Path) -> None:
    found = doctor.imagenet_overlap("sketchy", "2")["inside"]
    assert set(found) == {"songbird", "dolphin", "door", "saw"}
    assert "robin" in found["songbird"]
    assert len(doctor.imagenet_overlap("sketchy", "1")["inside"]) > 15
    text = " ".join("\n".join(render([checked(root, fast=True)])).split())
    assert "inside ImageNet's 1,000 categories by our reading" in text and "trombone (trombone)" in text
    assert "rollerblades (" not in text


# --- manifests --------------------------------------------------------------------------------------------------------

def test_a_loaded_split_finds_its_manifest(root: Path, small_plan: None) -> None:
    cache = root.parent / "cache"
    split = load("tuberlin", data_root=root, cache=cache, progress=False)
    assert doctor.manifest_for(split, cache) is None
    report = checked(root)
    assert report.manifest == str(cache / "manifests" / f"tuberlin-1-{split.data_digest[:16]}.json")
    found = doctor.manifest_for(split, cache)
    assert found == json.loads(Path(report.manifest).read_text())
    assert (found["dataset"], found["split"]) == ("tuberlin", "1")
    assert (found["data_digest"], found["split_digest"]) == (split.data_digest, split.split_digest)
    assert found["content_digest"] == report.content_digest and found["unreadable"]["count"] == 0
    assert {"counts", "duplicates", "notes", "checked"} <= set(found) and found["checked"].endswith("Z")
    assert str(root) not in json.dumps(found), "no absolute path"
    assert os.listdir(cache / "manifests") == [Path(report.manifest).name]

    again = checked(root, fast=True)
    assert doctor.manifest_for(split, cache) == found, "a fast check does not take the contents' digest away"
    assert any("full check" in note for note in again.notes)
    (root / "TUBerlin" / "png_ready" / "cup" / "new.png").write_bytes(b"x")
    assert doctor.manifest_for(load("tuberlin", data_root=root, cache=cache, progress=False), cache) is None
    Path(report.manifest).write_text("{")
    with pytest.raises(InputError, match=r"manifest .*can't be read.*delete it"):
        doctor.manifest_for(split, cache)


def test_a_cache_that_cannot_be_written_is_a_problem_and_the_report_stands(root: Path, small_plan: None) -> None:
    (root.parent / "cache").write_text("in the way")
    report = checked(root)
    assert report.state == "problems" and "manifest could not be written" in report.problems[-1]
    assert report.manifest is None and report.content_digest


# --- the command ------------------------------------------------------------------------------------------------------

def command(*arguments: object) -> int:
    return main(["data", "check", *map(str, arguments)])


def test_the_command_reports_all_data_sets_and_names_what_is_missing(
        root: Path, small_plan: None, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "sketchy" / SKETCHY_EXTENDED).mkdir(parents=True)
    cache = root.parent / "cache"
    assert command("--data-root", root, "--cache", cache) == 1
    said = capsys.readouterr()
    out = " ".join(said.out.split())
    assert "TU-Berlin Extended, split 1: whole" in out and "QuickDraw Extended, split 1: missing" in out
    assert "Sketchy Extended, splits 1, 2: problems" in out and "is incomplete" in out, "a part of it is there"
    assert "sketchy.eye.gatech.edu" in out and "datasets.cvc.uab.es/QuickDraw" in out and "qliu24/SAKE" in out
    assert "word2vec" in out and "Emoji, split fixed: missing" in out
    assert out.endswith("splits: 1 whole, 2 with problems, 2 missing")
    assert "read TU-Berlin Extended" in said.err
    (root / "sketchy" / SKETCHY_EXTENDED).rmdir()
    assert command("--data-root", root, "--cache", cache, "--fast") == 0, "what is not there at all was not asked for"
    assert command("--data-root", root, "--cache", cache, "--fast", "--datasets", "quickdraw") == 1
    assert command("--data-root", root / "sketchy", "--cache", cache) == 1, "nothing there at all"


def test_json_is_one_object_and_nothing_else(root: Path, small_plan: None, capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCN_DATA", str(root))
    monkeypatch.setenv("TCN_CACHE", str(root.parent / "cache"))
    assert command("--datasets", "tuberlin", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == 0
    [report] = found["reports"]
    assert report["state"] == "whole" and report["counts"]["query"]["entries"] == 60
    assert Path(report["manifest"]).parent == root.parent / "cache" / "manifests"


@pytest.mark.parametrize("arguments", [
    ["--datasets", "mnist"], ["--data-root", "nowhere"], ["--lists", "nowhere", "--data-root", "."], ["--quick"],
    ["--words", "nowhere", "--data-root", "."], ["--datasets", "tuberlin"],  # no data root
    ["--cache", "empty"],  # no data root, and emoji not built: nothing to check
])
def test_bad_usage_ends_with_2(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = command(*arguments)
    except SystemExit as leaving:
        status = leaving.code
    said = capsys.readouterr()
    assert status == 2 and said.out == "" and said.err


def test_emoji_is_checked_where_it_is_built_and_never_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the check must not fetch anything")

    monkeypatch.setattr(emoji, "_fetch", never)
    assert command("--datasets", "emoji", "--cache", tmp_path / "cache") == 1
    assert "emoji is not built" in capsys.readouterr().out
    made = make_emoji(tmp_path, size=16)
    monkeypatch.setattr(emoji, "find_built", lambda *_, **__: made)
    distinct_bytes(made / "photo")
    distinct_bytes(made / "sketch")
    report = checked(tmp_path, "emoji")
    assert report.state == "whole" and report.unreadable["count"] == 0
    assert report.counts["query"]["entries"] == 3 * len(read_plan("emoji").of("unseen"))
    assert report.imagenet == {"inside": {}, "near": {}}
    # sketch/ant becomes byte for byte a drawing of another role
    roles = read_plan("emoji").roles
    one = next(name for name, role in roles.items() if role == "validation")
    other = next(name for name, role in roles.items() if role == "unseen")
    shutil.copy(made / "photo" / one / "noto.png", made / "photo" / other / "noto.png")
    found = checked(tmp_path, "emoji").overlaps
    assert [(*its["lists"], its["count"]) for its in found] == [("validation_photos", "gallery", 1)]


def test_every_data_set_says_where_the_field_gets_it() -> None:
    assert all(spec.origin for spec in SPECS.values())
