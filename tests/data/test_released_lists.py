"""The released list files themselves, where they are at hand: the paper's (`tcn`), and ZSE-SBIR's, which hold both splits of
Sketchy, TU-Berlin, and the unseen classes of QuickDraw. The oracle is plain Python over their lines."""
from __future__ import annotations

import functools
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from tcn.config import InputError
from tcn.data import doctor, matching
from tcn.data import lists as list_files
from tcn.data.lists import PARTS, read_list, read_names
from tcn.data.scan import Listings
from tcn.data.specs import SPECS, read_plan
from tcn.data.splits import load

KNOWN = {
    ("sketchy", "1"): {"train_sketches": 55_252, "heldout_sketches": 5_000, "query": 15_229, "train_photos": 68_401,
                       "gallery": 17_101},
    ("sketchy", "2"): {"train_sketches": 57_587, "heldout_sketches": 5_200, "query": 12_694, "train_photos": 72_949,
                       "gallery": 12_553},
    ("tuberlin", "1"): {"train_sketches": 15_400, "heldout_sketches": 2_200, "query": 2_400, "gallery": 27_989},
    ("quickdraw", "1"): {"query": 92_291, "gallery": 54_151}}
"""Entries of each list of the complete data sets; for lists that are not among the released files, no entry."""
PLACES = {"tcn/dataset/Sketchy/zeroshot1": ("sketchy", "1"), "tcn/dataset/TUBerlin/zeroshot": ("tuberlin", "1"),
          "zse-sbir/datasets/Sketchy/zeroshot0": ("sketchy", "2"), "zse-sbir/datasets/Sketchy/zeroshot1": ("sketchy", "1"),
          "zse-sbir/datasets/TUBerlin/zeroshot": ("tuberlin", "1"), "zse-sbir/datasets/QuickDraw/zeroshot": ("quickdraw", "1")}
NAMES_ALONE = {"tcn/dataset/Sketchy/zeroshot2/zeroshot_classes_eccv18.txt": ("sketchy", "2"),
               "tcn/dataset/QuickDraw/zeroshot/zeroshot_classes.txt": ("quickdraw", "1")}
"""Files that hold the names of unseen classes and no number: of these splits the paper's code has no list."""
MADE_UP = {"tuberlin": ("ImageResized_ready",), "quickdraw": ("sketches", "images")}
"""Folders whose files of seen classes no released list names: one file a class stands for them."""


@pytest.fixture(scope="module")
def released(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders `tcn` and `zse-sbir` with the released files."""
    out = tmp_path_factory.mktemp("released")
    for name in ("tcn", "zse-sbir"):
        with tarfile.open(shared_data / f"lists-{name}.tar.xz") as archive:
            archive.extractall(out / name, filter="data")
    return out


@functools.cache
def _lines(path: Path) -> list[tuple[str, int]]:
    """The oracle: what stands before and after the last space of each line."""
    return [(line[:line.rindex(" ")], int(line[line.rindex(" ") + 1:])) for line in path.read_text().splitlines()]


def _lists(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.txt")) if not path.name.startswith(("cname_cid", "zeroshot_classes"))]


@pytest.fixture(scope="module")
def disks(released: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Listings]]:
    """Data set -> data root, and what its class folders would hold if every listed file were there; 345,000 files would take
    a minute to write."""
    found: dict[str, tuple[Path, Listings]] = {}
    for dataset in SPECS.keys() - {"emoji"}:
        root = tmp_path_factory.mktemp(dataset)
        held: dict[str, set[str]] = {
            f"{folder}/{name}": {"made-up.jpg"} for folder in MADE_UP.get(dataset, ()) for name in read_plan(dataset).of("seen")}
        for path in (path for place, (its, _) in PLACES.items() if its == dataset for path in _lists(released / place)):
            for line, _ in _lines(path):
                folder, name = line.rsplit("/", 1)
                held.setdefault(folder, set()).add(name)
        base = root / SPECS[dataset].folder_names[0]
        for folder in held:
            (base / folder).mkdir(parents=True)
        found[dataset] = root, {str(base / folder): ([(name, 1) for name in sorted(names)], []) for folder, names in held.items()}
    return found


def test_every_released_file_is_read_as_it_stands(released: Path) -> None:
    read = 0
    for path in sorted(released.rglob("*.txt")):
        place = path.relative_to(released).as_posix()
        if place in NAMES_ALONE:
            plan = read_plan(*NAMES_ALONE[place])
            assert {plan.class_of(name) for name in path.read_text().split("\n")} == set(plan.of("unseen"))
            with pytest.raises(InputError, match=f"{path.name}, line 1: 'bat' holds no space before a label"):
                read_list(path)
        elif path.name.startswith("cname_cid"):
            plan = read_plan(*PLACES[path.parent.relative_to(released).as_posix()])
            expected = [name for name, _ in sorted(_lines(path), key=lambda line: line[1])]
            assert read_names(path) == expected
            names = [plan.class_of(name) for name in expected]
            assert sorted(names) == sorted(plan.of("unseen" if "zero" in path.name else "seen"))
        else:
            paths, labels = read_list(path)
            assert list(zip(paths, labels.tolist())) == _lines(path)
        read += 1
    assert read == 32  # 11 of the paper's, 21 of ZSE-SBIR's


@pytest.mark.parametrize("place", PLACES)
def test_the_released_lists_have_the_known_counts_classes_and_duplicates(released: Path, place: str) -> None:
    dataset, split = PLACES[place]
    spec, plan = SPECS[dataset], read_plan(dataset, split)
    found = list_files.read_directory(released / place, spec.list_files, plan.roles, plan.class_of,
                                      matching.folders_in_lists(spec))
    assert {part: len(lines) for part, lines in found.lines.items()} == {
        part: count for part, count in KNOWN[dataset, split].items() if part != "heldout_sketches" or place.startswith("tcn")}
    assert {part: count for part, count in plan.expected().items() if part in KNOWN[dataset, split]} == KNOWN[dataset, split]
    for part, lines in found.lines.items():
        plain = [path.split("/") for path, _ in _lines(released / place / found.used[part])]
        assert [(line.prefix, line.written, line.file) for line in lines] == [("/".join(one[:-2]), *one[-2:]) for one in plain]
        if part in ("query", "gallery"):  # the tables' counts of unseen classes are those of these lists
            assert Counter(plan.class_of(one[-2]) for one in plain) == {
                name: plan.counts[PARTS[part][1]][name] for name in plan.of("unseen")}
        # a photo folder never names a file twice; both together name Sketchy's original photos twice
        assert len(set(map(tuple, plain))) == len(plain)
    assert not any("a second time" in note for note in found.notes)


def test_both_splits_of_sketchy_name_the_same_files_and_12_499_photos_in_both_folders(released: Path) -> None:
    photos, sketches = {}, {}
    for place in ("tcn/dataset/Sketchy/zeroshot1", "zse-sbir/datasets/Sketchy/zeroshot0"):
        split = PLACES[place][1]
        spec, plan = SPECS["sketchy"], read_plan("sketchy", split)
        found = list_files.read_directory(released / place, spec.list_files, plan.roles, plan.class_of,
                                          matching.folders_in_lists(spec))
        its = found.lines["train_photos"] + found.lines["gallery"]
        photos[split] = {(line.folder, line.name, line.file) for line in its}
        assert len(its) == len(photos[split]) == 85_502
        # one of the 12,500 original photos goes by another name in the second folder
        both = Counter((line.name, line.file.rsplit(".", 1)[0]) for line in its)
        assert [sum(count == times for count in both.values()) for times in (1, 2, 3)] == [85_502 - 2 * 12_499, 12_499, 0]
        assert sum(line.folder.startswith("256x256") for line in its) == 12_500
        drawn = found.lines["train_sketches"] + found.lines["query"] + found.lines.get("heldout_sketches", ())
        sketches[split] = {(line.name, line.file) for line in drawn}
    assert photos["1"] == photos["2"] and sketches["2"] < sketches["1"]
    assert (len(sketches["1"]), len(sketches["2"])) == (75_481, 75_481 - 5_200)  # split 2 has no list of held-out sketches


@pytest.mark.parametrize("place", PLACES)
def test_the_doctor_s_figures_on_the_released_lists_are_the_known_ones(
        released: Path, disks: dict[str, tuple[Path, Listings]], tmp_path: Path, place: str) -> None:
    dataset, split = PLACES[place]
    root, listings = disks[dataset]
    report = doctor.check(dataset, split, data_root=root, cache=tmp_path, lists=released / place, fast=True, progress=False,
                          listings=listings)
    for part, count in KNOWN[dataset, split].items():
        assert report.counts[part]["entries"] == report.counts[part]["expected"] == count
        if part in ("query", "gallery"):
            file = next(path for name in SPECS[dataset].list_files[part] if (path := released / place / name).exists())
            assert report.counts[part]["distinct"] == len({tuple(line.split("/")[-2:]) for line, _ in _lines(file)})
    assert report.overlaps == [] and report.stray["count"] == report.hollow["count"] == 0
    # files of seen classes that no released list names are missed, and nothing else is
    assert len(report.problems) == {"sketchy": 0, "tuberlin": 1, "quickdraw": 2}[dataset]
    assert all("files in all" in problem for problem in report.problems)
    assert report.duplicates["by_name"] == (12_499 if dataset == "sketchy" else 0)
    if (dataset, split) == ("sketchy", "1"):
        assert report.counts["gallery"]["distinct"] == report.counts["gallery"]["expected_distinct"] == 14_602
    if "heldout_sketches" in KNOWN[dataset, split] and place.startswith("zse-sbir"):
        held = {"sketchy": 50, "tuberlin": 10}[dataset]
        assert any(f"leaves out just {held} sketches of every seen class; those are held out" in note for note in report.notes)


def test_the_two_projects_name_the_same_classes_and_files(released: Path) -> None:
    """ZSE-SBIR's lists of the paper's splits, in another order: labels mean what the class folders say, in both."""
    shared = [path.relative_to(released / "tcn/dataset") for path in sorted((released / "tcn/dataset").rglob("*filelist*.txt"))
              if not path.name.endswith("_test.txt")]
    assert len(shared) == 7
    for place in shared:
        ours, theirs = (read_list(released / name / place) for name in ("tcn/dataset", "zse-sbir/datasets"))
        assert sorted(ours[0]) == sorted(theirs[0])
        for paths, labels in (ours, theirs):
            pairs = {(path.split("/")[-2], label) for path, label in zip(paths, labels.tolist())}
            assert len(pairs) == len({name for name, _ in pairs}) == len({label for _, label in pairs}) in (25, 30, 100, 220)


def test_a_checkout_of_the_released_code_has_no_lists_of_quickdraw_and_says_so(
        released: Path, disks: dict[str, tuple[Path, Listings]]) -> None:
    root, listings = disks["quickdraw"]
    with pytest.raises(InputError, match=r"no list of QuickDraw Extended.*Found in .*QuickDraw/zeroshot: zeroshot_classes\.txt"):
        load("quickdraw", data_root=root, cache=root, progress=False, lists=released / "tcn", listings=listings)
