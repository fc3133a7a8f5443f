"""Real file systems for the time of a block: small ones that fill up, read-only ones. Skips where nothing may be mounted."""
from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """What `mount` does with these arguments, the last of which is the folder."""
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    except OSError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size (`400k`, `20m`) in `folder`."""
    folder.mkdir(exist_ok=True)
    with mounted("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)):
        yield folder


def resize(folder: Path, size: str) -> None:
    """Another size for a small disk; what lies on it stays."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder can't be written in the block: mounted so for root, whom modes don't stop; by its modes for others."""
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            stack.enter_context(mounted("--bind", str(folder), str(folder)))
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        else:
            for path in (*folder.rglob("*"), folder):
                stack.callback(path.chmod, path.stat().st_mode)
                path.chmod(path.stat().st_mode & 0o555)
        with pytest.raises(OSError):
            (folder / "probe").write_bytes(b"")
        yield
