"""Processes that are started as forks of a server which has imported everything once, in place of new interpreters, each of
which imports for some four seconds of CPU time.

They get their work as new interpreters do, pickled; only what this process changed in its environment they do not see.
"""
from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

_context = multiprocessing.get_context


def context(method: str | None = None) -> Any:
    """In the place of multiprocessing.get_context: a fork of the server where a new interpreter is asked for."""
    if method != "spawn":
        return _context(method)
    forkserver.set_forkserver_preload([__name__])
    # The server looks for that module on its own path, and goes on without a word where it is not there.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        forkserver._forkserver.ensure_running()
    return _context("forkserver")


def imported() -> set[str]:
    """Names of the modules that this process has."""
    return set(sys.modules)


if any("multiprocessing.forkserver" in argument for argument in sys.orig_argv):  # this process is the server
    import torch

    import benchmarks.launch.processes
    import benchmarks.runner  # noqa: F401
    import tcn.train.parallel  # noqa: F401

    torch.set_num_threads(1)
    multiprocessing.get_context = context
    # The server's processes start further ones from it, too; Python would have each begin a server of its own.
    forkserver._forkserver.ensure_running = lambda: None
