"""Processes that are started as forks of a server which has imported everything once, in place of new interpreters, each of
which imports for some five seconds of CPU time.

They get their work as new interpreters do, pickled; only what this process changed in its environment they do not see.
"""
from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from typing import Any

SERVER = "support.warm_server"
"""The module that the server imports, and with it everything else."""
_context = multiprocessing.get_context


def context(method: str | None = None) -> Any:
    """In the place of multiprocessing.get_context: a fork of the server where a new interpreter is asked for."""
    if method != "spawn":
        return _context(method)
    forkserver.set_forkserver_preload([SERVER])
    return _context("forkserver")
