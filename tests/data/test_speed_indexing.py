"""The reference listings of the speed suite, by folders and by list files, name the files that ours names."""
from __future__ import annotations

from pathlib import Path

import pytest
from support.trees import make_lists, make_tree

from benchmarks.speed.reference_indexing import list_classes, read_list
from tcn.data import specs, splits


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sketchy with three sketches and four photos a class, two of them in both photo folders, and split 2's lists."""
    made = make_tree(tmp_path_factory.mktemp("data"), "sketchy", sketches=3, photos=4, size=2)
    make_lists(made, "sketchy", "2")
    (made / "256x256/photo/tx_000000000000_ready/bat/notes.txt").write_text("no image")
    return made


def load(base: Path, lists: str | None) -> splits.Split:
    return splits.load("sketchy", "2", data_root=base.parent, cache=base.parent / "cache", progress=False, lists=lists)


def test_the_reference_s_lists_are_ours(base: Path) -> None:
    split = load(base, None)
    folders = specs.SPECS["sketchy"].photo_folders
    for files, classes, first in ((split.train_photos, split.seen, 0), (split.gallery, split.unseen, len(split.seen))):
        paths, labels, counts = list_classes(str(base), folders, classes)
        assert paths == list(files.paths)
        assert [first + label for label in labels] == files.labels.tolist()
        assert counts == dict.fromkeys(classes, 6)


def test_the_reference_reads_the_list_files_as_ours_does(base: Path) -> None:
    """Files in the lists' order, classes in ours: these lists name the classes backwards."""
    split = load(base, "auto")
    for part, file in specs.SPECS["sketchy"].list_files.items():
        mine = getattr(split, part)
        paths, labels = read_list(str(base), str(base / "zeroshot0" / file[0]))
        classes = split.seen if part.startswith(("train", "heldout")) else split.unseen
        theirs = sorted(((len(classes) - 1 - label, path) for label, path in zip(labels, paths)), key=lambda one: one[0])
        assert [path for _, path in theirs] == list(mine.paths)
        assert [classes[label] for label, _ in theirs] == [split.classes[label] for label in mine.labels]
    with pytest.raises(FileNotFoundError, match="gone.png"):
        (base / "list.txt").write_text(f"{paths[0]} 0\nsketches/bat/gone.png 0\n")
        read_list(str(base), str(base / "list.txt"))
