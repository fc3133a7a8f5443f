"""The reference listing of the speed suite names the files that ours names."""
from __future__ import annotations

from pathlib import Path

from trees import make_tree

from benchmarks.speed.reference_indexing import list_classes
from tcn import datasets


def test_the_reference_s_lists_are_ours(tmp_path: Path) -> None:
    base = make_tree(tmp_path, "sketchy", sketches=3, photos=4, size=2)
    (base / "256x256/photo/tx_000000000000_ready/bat/notes.txt").write_text("no image")
    split = datasets.load("sketchy", "2", data_root=tmp_path, cache=tmp_path / "cache", progress=False, lists=None)
    folders = datasets.SPECS["sketchy"].photo_folders
    for files, classes, first in ((split.train_photos, split.seen, 0), (split.gallery, split.unseen, len(split.seen))):
        paths, labels, counts = list_classes(str(base), folders, classes)
        assert paths == list(files.paths)
        assert [first + label for label in labels] == files.labels.tolist()
        assert counts == dict.fromkeys(classes, 6)  # two of four lie in both folders
