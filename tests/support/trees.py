"""Small data sets in the exact layouts of the three in circulation, for tests and for end-to-end runs.

In: a folder, a data set's name, images per class and their size. Out: real PNG and JPEG files under the
released folder and class names, coloured by class so that a network can learn something from them.
"""
from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tcn.data.splits import Split, load

SPLITS = Path(__file__).parents[2] / "tcn" / "data" / "splits"
SKETCHY_SKETCHES = "256x256/sketch/tx_000000000000_ready"
SKETCHY_ORIGINALS = "256x256/photo/tx_000000000000_ready"
SKETCHY_EXTENDED = "EXTEND_image_sketchy_ready"
TUBERLIN_FILES = {"train_sketches": "png_ready_filelist_train.txt", "heldout_sketches": "png_ready_filelist_test.txt",
                  "query": "png_ready_filelist_zero.txt", "train_photos": "ImageResized_ready_filelist_train.txt",
                  "gallery": "ImageResized_ready_filelist_zero.txt"}
"""Published list files by the part that they list."""
FOLDER = {"sketchy": "Sketchy", "tuberlin": "TUBerlin", "quickdraw": "QuickDraw"}


@functools.cache
def split_table(stem: str) -> dict[str, Any]:
    """A committed table, read once: parsing YAML is slow."""
    return yaml.safe_load((SPLITS / f"{stem}.yaml").read_text())


def class_names(dataset: str) -> list[str]:
    """Folder names as released, in the order of the committed table."""
    stem = "sketchy-1" if dataset == "sketchy" else dataset
    return list(split_table(stem)["classes"])


def make_tree(root: Path, dataset: str, sketches: int = 2, photos: int = 2, size: int = 8) -> Path:
    """Write `dataset` (`sketchy`, `tuberlin` or `quickdraw`) below `root`; returns its own folder.

    Every class gets `sketches` sketches and `photos` photos of `size` pixels. Sketchy keeps its habit: the
    first half of a class's photos (at least one) lies in both photo folders, the rest only in the extended
    one.
    """
    base = root / FOLDER[dataset]
    for index, name in enumerate(class_names(dataset)):
        for number in range(sketches):
            picture = _sketch(index, number, size)
            if dataset == "sketchy":
                file = f"n{index:08d}_{number // 2}-{number % 2 + 1}.png"
                _save(picture, base / SKETCHY_SKETCHES / name / file)
            elif dataset == "tuberlin":
                _save(picture, base / "png_ready" / name / f"{80 * index + number + 1}.png")
            else:
                _save(picture, base / "QuickDraw_sketches_final" / name / f"{4500000000000000 + number}.png")
        for number in range(photos):
            picture = _photo(index, number, size)
            if dataset == "sketchy":
                original = number < max(1, photos // 2)
                file = f"n{index:08d}_{number}.jpg" if original else f"ext_{number}.jpg"
                _save(picture, base / SKETCHY_EXTENDED / name / file)
                if original:
                    _save(picture, base / SKETCHY_ORIGINALS / name / file)
            elif dataset == "tuberlin":
                file = f"{name}_{number}.{('jpg', 'JPEG')[number % 2]}"
                _save(picture, base / "ImageResized_ready" / name / file)
            else:
                _save(picture, base / "QuickDraw_images_final" / name / f"{number}.jpg")
    return base


def load_tree(root: Path, dataset: str, split: str | None = None, **options: Any) -> Split:
    """The split of a data set below `root`, as the library reads it."""
    return load(dataset, split, data_root=root, cache=root / "no-cache", progress=False, **options)


def make_lists(base: Path, dataset: str, split: str = "1", where: Path | None = None, held: int = 1,
               parts: tuple[str, ...] = ("train", "test", "zero", "photo_train", "photo_zero")) -> Path:
    """Published list files for the tree in `base`: into its own folder, or into `where`; returns their directory.

    Classes and files stand in reverse order, so that nobody mistakes the lists' order for that of the folders. The
    first `held` sketches of a seen class so listed are in the test list and not in the training list, whether or not
    the test list is among `parts`.
    """
    folder = {"sketchy": {"1": "zeroshot1", "2": "zeroshot0"}[split]}.get(dataset, "zeroshot")
    sketch, photo = {
        "sketchy": ("sketch_tx_000000000000_ready_filelist_{}.txt", "all_photo_filelist_{}.txt"),
        "tuberlin": ("png_ready_filelist_{}.txt", "ImageResized_ready_filelist_{}.txt"),
        "quickdraw": ("sketch_{}.txt", "all_photo_{}.txt")}[dataset]
    sketches = {"sketchy": [SKETCHY_SKETCHES], "tuberlin": ["png_ready"], "quickdraw": ["QuickDraw_sketches_final"]}[dataset]
    photos = {"sketchy": [SKETCHY_ORIGINALS, SKETCHY_EXTENDED], "tuberlin": ["ImageResized_ready"],
              "quickdraw": ["QuickDraw_images_final"]}[dataset]
    table = split_table(f"sketchy-{split}" if dataset == "sketchy" else dataset)["classes"]
    out = where or base / folder
    out.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {}
    for role, names_file in (("seen", "cname_cid.txt"), ("unseen", "cname_cid_zero.txt")):
        names = [name for name, entry in table.items() if entry["role"] == role][::-1]
        (out / names_file).write_text("".join(f"{name} {label}\n" for label, name in enumerate(names)))
        for label, name in enumerate(names):
            drawn, taken = ([f"{one}/{name}/{file} {label}" for one in folders
                             for file in sorted(path.name for path in (base / one / name).iterdir())[::-1]]
                            for folders in (sketches, photos))
            if role == "seen":
                lines.setdefault("test", []).extend(drawn[:held])
                lines.setdefault("train", []).extend(drawn[held:])
                lines.setdefault("photo_train", []).extend(taken)
            else:
                lines.setdefault("zero", []).extend(drawn)
                lines.setdefault("photo_zero", []).extend(taken)
    for part in parts:
        name = photo.format(part.removeprefix("photo_")) if part.startswith("photo") else sketch.format(part)
        (out / name).write_text("\n".join(lines[part]) + "\n")
    return out


def make_listed(root: Path, dataset: str, datasets_folder: str) -> Path:
    """`dataset` (three sketches and two photos a class) in `root`/data, which is returned, and its lists beside it, in a
    checkout that keeps its data sets in `datasets_folder`."""
    base = make_tree(root / "data", dataset, sketches=3, photos=2, size=2)
    make_lists(base, dataset, where=root / "checkout" / datasets_folder / FOLDER[dataset] / "zeroshot")
    return root / "data"


DRAWINGS = ("emojione-monotone", "fluent", "openmoji")
PICTURES = ("emojione-v1", "fxemoji", "noto", "noto-v1", "twemoji")


def make_emoji(root: Path, size: int = 8) -> Path:
    """A finished build of emoji with every class, those left out of the split too; returns its folder.

    Every publisher draws every class, except that FxEmoji leaves out every tenth.
    """
    base = root / "emoji-made-by-test"
    table = split_table("emoji")
    counts = dict.fromkeys(DRAWINGS + PICTURES, 0)
    for index, name in enumerate([*table["classes"], *table["left_out"]]):
        for number, publisher in enumerate(DRAWINGS):
            _save(_sketch(index, number, size), base / "sketch" / name / f"{publisher}.png")
            counts[publisher] += 1
        for number, publisher in enumerate(PICTURES):
            if publisher != "fxemoji" or index % 10:
                _save(_photo(index, number, size), base / "photo" / name / f"{publisher}.png")
                counts[publisher] += 1
    (base / "manifest.json").write_text(json.dumps({"digest": "0" * 64, "per_publisher": counts}))
    return base


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _sketch(index: int, number: int, size: int) -> Image.Image:
    """Black strokes on white: a grid whose steps encode the class, shifted from drawing to drawing."""
    canvas = np.full((size, size), 255, np.uint8)
    canvas[(index + number) % size] = 0
    canvas[:, index // size % size] = 0
    return Image.fromarray(canvas)


def _photo(index: int, number: int, size: int) -> Image.Image:
    """One colour a class with the sketch's grid in a lighter tone, and a brightness that varies."""
    canvas = np.empty((size, size, 3), np.uint8)
    canvas[:] = (37 * index % 200, 83 * index % 200, (131 * index + 9 * number) % 200)
    canvas[(index + number) % size] = 255
    canvas[:, index // size % size] = 230
    return Image.fromarray(canvas)
