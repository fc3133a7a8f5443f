"""The two domains of the extension: plain digits, and digits blended with photos.

In: scikit-learn's digits and photos, or the files of MNIST and MNIST-M. Out: an `AdaptationTask`. Source: MNIST-M's rule of
Ganin and Lempitsky (2015), which the paper's extension uses.
"""
from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tcn.config import InputError
from tcn.data.decode import opened
from tcn.files import text
from tcn.seeding import numpy_stream

OFFLINE = "scikit-learn digits to the same blended with photos (offline, not MNIST)"
PUBLISHED = "MNIST to MNIST-M"
SHOWN = 10
"""Number of classes in the example picture."""


@dataclass(frozen=True)
class Domain:
    """Images uint8 [N, 3, S, S] and labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class AdaptationTask:
    """The training data (`source`, and `target`, whose labels training never sees) and the test data."""

    name: str
    source: Domain
    target: Domain
    source_test: Domain
    target_test: Domain

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all images and labels: MNIST-M made from other photos has the same name, but is other data."""
        found = hashlib.sha256()
        for part in (self.source, self.target, self.source_test, self.target_test):
            for array in (part.images, part.labels):
                found.update(f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


def blend(digits: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Blend digits with patches by MNIST-M's rule: |patch - digit| by pixel and channel. digits uint8 [N, S, S], patches uint8
    [N, 3, S, S] -> uint8 [N, 3, S, S]."""
    return np.abs(patches.astype(np.int16) - digits[:, None].astype(np.int16)).astype(np.uint8)


def patches(photos: Sequence[np.ndarray], number: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`number` random crops uint8 [N, 3, size, size] of photos uint8 [H, W, 3]. InputError where a photo is smaller."""
    found = np.empty((number, 3, size, size), np.uint8)
    for i, which in enumerate(rng.integers(0, len(photos), number)):
        photo = photos[which]
        if min(photo.shape[:2]) < size:
            raise InputError(f"a photo of {photo.shape[1]} x {photo.shape[0]} pixels is too small for patches of {size}")
        top, left = (int(rng.integers(0, side - size + 1)) for side in photo.shape[:2])
        found[i] = photo[top:top + size, left:left + size].transpose(2, 0, 1)
    return found


def offline_task(size: int) -> AdaptationTask:
    """The offline task: disjoint digits for source, target and both tests; patches for training and for test from disjoint halves
    of the photos. scikit-learn does not name the writers, so digits of one writer may be on both sides."""
    from sklearn.datasets import load_digits, load_sample_images

    digits = load_digits()
    order = numpy_stream(0, "digits split").permutation(len(digits.target))
    small = [Image.fromarray((image * (255 / 16)).round().astype(np.uint8)) for image in digits.images]
    grey = np.stack([np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) for image in small])[order]
    labels = digits.target[order].astype(np.int64)
    photos = load_sample_images().images
    left, right = ([photo[:, half] for photo in photos] for half in (slice(0, 320), slice(320, None)))
    third = len(labels) // 3
    edges = (0, third, 2 * third, 2 * third + third // 2, len(labels))
    source, target, source_test, target_test = map(slice, edges[:-1], edges[1:])

    def blended(part: slice, halves: list[np.ndarray], role: str) -> Domain:
        crops = patches(halves, len(labels[part]), size, numpy_stream(0, f"digits patches, {role}"))
        return Domain(blend(grey[part], crops), labels[part])

    return AdaptationTask(OFFLINE, _plain(grey[source], labels[source]), blended(target, left, "target"),
                _plain(grey[source_test], labels[source_test]), blended(target_test, right, "target test"))


def mnist_task(root: Path, download: bool, target_root: Path | None, photos_folder: Path | None) -> AdaptationTask:
    """The published task: MNIST, and MNIST-M, read from `target_root` or blended here with photos of a folder (BSDS500's in the
    source)."""
    train, test = _mnist(root, download)
    if target_root is not None:
        target, target_test = (_mnist_m(target_root, name) for name in ("train", "test"))
    elif photos_folder is not None:
        photos = [_photo(path) for path in sorted(photos_folder.glob("**/*.jpg"))]
        if len(photos) < 2:
            raise InputError(f"--photos {photos_folder} holds {len(photos)} .jpg files; at least 2 are needed")
        halves = photos[::2], photos[1::2]
        target, target_test = (
            Domain(blend(part.images, patches(own, len(part.labels), 28, numpy_stream(0, f"MNIST-M, {role}"))), part.labels)
            for role, part, own in (("target", train, halves[0]), ("target test", test, halves[1])))
    else:
        raise InputError("MNIST-M is needed: --mnist-m FOLDER, or --photos FOLDER to blend it (BSDS500's pictures in the source)")
    return AdaptationTask(PUBLISHED, _plain(train.images, train.labels), target, _plain(test.images, test.labels), target_test)


def _mnist(root: Path, download: bool) -> tuple[Domain, Domain]:
    """MNIST's training and test digits, images uint8 [N, 28, 28]."""
    from torchvision.datasets import MNIST

    try:
        parts = [MNIST(str(root), train=train, download=download) for train in (True, False)]
    except Exception as error:  # torchvision raises many kinds of errors for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--mnist {root} holds no MNIST ({reason}); give the folder that holds MNIST/raw, or add "
                         f"--download") from error
    train, test = (Domain(part.data.numpy(), part.targets.numpy().astype(np.int64)) for part in parts)
    for part, name in ((train, "train"), (test, "t10k")):
        if (part.images.dtype != np.uint8 or part.images.shape != (len(part.labels), 28, 28)
                or not len(part.labels) or part.labels.min() < 0 or part.labels.max() > 9):
            raise InputError(f"--mnist {root}: the {name} files of MNIST/raw don't hold digits of 28 x 28 pixels with labels 0 "
                             f"to 9 ({len(part.images):,} images, {len(part.labels):,} labels); delete them and add --download")
    return train, test


def _photo(path: Path) -> np.ndarray:
    try:
        return _picture(path)
    except InputError as error:
        raise InputError(f"{path} can't be read as a picture ({error}); take it out of --photos") from error


def _picture(path: Path, size: int | None = None) -> np.ndarray:
    """RGB pixels uint8 [H, W, 3], resized to `size`. The message of an InputError does not name the path."""
    try:
        with opened(path) as image:
            rgb = image.convert("RGB")
        return np.asarray(rgb if size is None else rgb.resize((size, size)))
    except OSError as error:
        raise InputError(str(error).removesuffix(".") or type(error).__name__) from error


def _mnist_m(root: Path, part: str) -> Domain:
    """One part of MNIST-M as circulated: mnist_m_PART/*.png and mnist_m_PART_labels.txt, with one `name label` in each line."""
    listing = root / f"mnist_m_{part}_labels.txt"
    try:
        lines = text.read(listing, "--mnist-m:").split("\n")
    except InputError as error:
        raise InputError(f"{error}; the list is expected beside the folder mnist_m_{part}") from error
    images, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, label = [*line.strip().rsplit(None, 1), ""][:2]  # at spaces or tabs, any number of them
        if not re.fullmatch("[0-9]", label):
            raise InputError(f"{listing}, line {number}: expected 'name label', got '{line[:60]}'")
        if name in (".", "..") or re.search(r"[/\\\0]", name):
            raise InputError(f"{listing}, line {number}: '{name[:60]}' is no file name; pictures lie in mnist_m_{part} itself")
        path = root / f"mnist_m_{part}" / name
        try:
            images.append(_picture(path, 28))
        except InputError as error:
            raise InputError(f"{path} can't be read ({error}); the list names it in line {number}") from error
        labels.append(int(label))
    if not labels:
        raise InputError(f"{listing} names no pictures; expected 'name label' lines")
    return Domain(np.stack(images).transpose(0, 3, 1, 2), np.array(labels))


def _plain(grey: np.ndarray, labels: np.ndarray) -> Domain:
    return Domain(np.repeat(grey[:, None], 3, 1), labels)


def example_picture(task: AdaptationTask) -> Image.Image:
    """A picture with one digit of each class of the source's training images, and one of the target's below it, at twice their
    size."""
    rows = []
    for domain in (task.source, task.target):
        firsts = [int(np.flatnonzero(domain.labels == digit)[0]) for digit in range(SHOWN)]
        rows.append(np.concatenate([domain.images[i].transpose(1, 2, 0) for i in firsts], axis=1))
    picture = Image.fromarray(np.concatenate(rows))
    return picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
