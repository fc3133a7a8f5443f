"""Checkpoints: written atomically, checked when read; the last two are kept, and a damaged one is skipped with a note.

In: the state of a run at the end of an epoch. Out: `epoch-0003.pt` and the one before it in the run's folder, and the
newest undamaged one of them. A checkpoint does not hold random streams or the learning rate, since each is derived from seed,
role, epoch and step (tcn/seeding.py).
"""
from __future__ import annotations

import contextlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tcn.config import InputError
from tcn.files import foreign
from tcn.files.atomic import StorageError, writing

KEPT = 2
_NAME = re.compile(r"epoch-(\d{4,})\.pt")
EARLIER = ("resume.pt", "best.pt")
"""Checkpoints of earlier versions of this project. They lack the distances of the kept epoch, and cannot be resumed."""


class Damaged(InputError):
    """A checkpoint exists but is not as it was written."""


@dataclass(frozen=True)
class Resumed:
    """The state from which a run is resumed: its last whole state, or None; and a sentence for each skipped checkpoint."""

    state: dict[str, Any] | None
    notes: tuple[str, ...] = ()


def save(value: Any, path: Path) -> None:
    """Write `value` (tensors in plain containers), whole or not at all. Equal values give equal bytes on every device: the file
    does not mention a GPU, so that it can be read on a machine without one.

    Raises StorageError if the disk has no room.
    """
    value = _on_host(value, {})
    with writing(path) as out:
        try:
            # Written to an open file, since torch would write the name of a path into the file.
            torch.save(value, out)
        except RuntimeError as error:
            # torch wraps the system's error of a failed write into one of its own.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            if cause is None:
                raise
            raise cause from None


def load(path: Path) -> Any:
    """A checkpoint's contents, with tensors on the CPU. Every byte is checked, and no code in the file is executed.

    Raises InputError if there is no such file; Damaged if it is truncated, altered or not a checkpoint.
    """
    if not path.exists():
        raise InputError(f"no checkpoint at {path}; the run has to be trained first")
    try:
        # torch writes a CRC-32 of each record, but does not check it when it reads.
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise Damaged(f"checkpoint {path} is damaged (the checksum of {wrong} does not fit)")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Damaged:
        raise
    except Exception as error:  # zipfile and torch raise many kinds for a damaged file
        raise Damaged(f"checkpoint {path} can't be read ({type(error).__name__}){foreign.of(path)}") from error


def keep(state: dict[str, Any], folder: Path) -> None:
    """Save `state` as the checkpoint of its `epoch`. The one before is kept, older ones are removed.

    If there is no room for a third file, the older of two is removed first. Raises StorageError if that does not help.
    """
    path = folder / f"epoch-{state['epoch']:04d}.pt"
    try:
        save(state, path)
    except StorageError:
        older = _found(folder)[KEPT - 1:]
        if not older:
            raise
        _remove(older)
        save(state, path)
    others = [p for p in _found(folder) if p != path]
    # A checkpoint of a later epoch can only be one that was skipped as damaged.
    before = [p for p in others if _epoch(p) < state["epoch"]]
    _remove([p for p in others if p not in before[:KEPT - 1]])


def last(folder: Path) -> Resumed:
    """The newest undamaged checkpoint of a folder. Damaged ones are named in the notes, and kept until a newer one is written."""
    notes: list[str] = []
    for path in _found(folder):
        try:
            return Resumed(load(path), tuple(notes))
        except Damaged as error:
            notes.append(f"{error}; passed over")
    earlier = [name for name in EARLIER if (folder / name).exists()]
    if earlier:
        notes.append(f"{folder / earlier[0]} is of an earlier version of this project and can't be taken up")
    if notes:
        notes.append("training starts anew")
    return Resumed(None, tuple(notes))


def epochs(folder: Path) -> int:
    """The last epoch of a folder's checkpoints, by their names; 0 if there is none."""
    return max(map(_epoch, _found(folder)), default=0)


def forget(folder: Path) -> None:
    """Remove the checkpoints of a folder: the run is finished."""
    _remove([*_found(folder), *(folder / name for name in EARLIER)])


def host_copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict in the host's memory. Entries that share one tensor still share one."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    return {name: _copied(tensor, copies) for name, tensor in state.items()}


def _copied(tensor: Tensor, copies: dict[tuple[Any, ...], Tensor]) -> Tensor:
    key = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
    if tensor.numel() == 0 or key not in copies:
        copies[key] = tensor.detach().to("cpu", copy=True)
    return copies[key]


def _on_host(value: Any, copies: dict[tuple[Any, ...], Tensor]) -> Any:
    """`value` with all tensors in the host's memory. Tensors that are there already, and containers of only such tensors, are not
    copied."""
    if isinstance(value, Tensor):
        return value if value.device.type == "cpu" else _copied(value, copies)
    if isinstance(value, dict):
        found: Any = {key: _on_host(one, copies) for key, one in value.items()}
        return value if all(found[key] is one for key, one in value.items()) else found
    if isinstance(value, (list, tuple)):
        found = [_on_host(one, copies) for one in value]
        return value if all(a is b for a, b in zip(found, value)) else type(value)(found)
    return value


def room_needed(state_bytes: int) -> int:
    """The most bytes of disk that a run needs at once: two checkpoints and the one being written.

    state_bytes: size of the model. A checkpoint holds four times as much: model, two moments of Adam, the kept epoch's model.
    """
    return (KEPT + 1) * 4 * state_bytes


def _found(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted((path for path in folder.glob("epoch-*.pt") if _NAME.fullmatch(path.name)), key=_epoch, reverse=True)


def _epoch(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    assert found is not None  # `_found` gives no other
    return int(found[1])


def _remove(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
