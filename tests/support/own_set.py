"""A data set of eight classes, unequal in size, and the file that declares it, as a user keeps them outside the project."""
from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

SEEN, UNSEEN = ("ant", "bee", "cow", "Palm tree", "zip"), ("dog", "elk", "hot-air_balloon")
SIZES = {"ant": (3, 4), "bee": (6, 2), "cow": (11, 3), "Palm tree": (5, 5), "zip": (4, 3), "dog": (2, 5), "elk": (5, 1),
         "hot-air_balloon": (3, 2)}
"""Class -> sketches and photos."""
ROLES = {"seen": list(SEEN), "unseen": list(UNSEEN)}


def make_pictures(root: Path, size: int = 16) -> Path:
    """The pictures below `root`, which is returned: one colour a class, in drawings/ and pictures/."""
    rng = np.random.default_rng(5)
    for index, (name, numbers) in enumerate(SIZES.items()):
        for folder, ending, number in zip(("drawings", "pictures"), ("png", "jpg"), numbers, strict=True):
            (root / folder / name).mkdir(parents=True)
            for k in range(number):
                grey = rng.integers(0, 60, (size, size, 3))
                grey[index:index + 4, :, index % 3] += 150
                Image.fromarray(grey.astype(np.uint8)).save(root / folder / name / f"{index}-{k}.{ending}")
    return root


def write_words(path: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """Six random numbers for each class."""
    rng = np.random.default_rng(1)
    with open(path, "w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["name", *(f"v{i}" for i in range(6))])
        rows.writerows([name.lower(), *rng.normal(size=6).round(3)] for name in SIZES if name not in leave_out)
    return path


def declare(root: Path, file: str = "my_set.yaml", /, **changes: Any) -> Path:
    """A file in `root` that gives each class its role; `changes` replace keys, None takes one out."""
    said = {"name": "little_zoo", "sketches": "drawings", "photos": "pictures", **ROLES, "held_out": {"sketches": 2}, **changes}
    (root / file).write_text(yaml.safe_dump({key: value for key, value in said.items() if value is not None}, sort_keys=False))
    return root / file


def make_set(root: Path, /, **changes: Any) -> Path:
    """Pictures, words and the file; returns the file."""
    make_pictures(root)
    write_words(root / "words.csv")
    return declare(root, words="words.csv", **changes)
