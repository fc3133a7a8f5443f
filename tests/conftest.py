"""Settings for the whole test run: no telemetry, and few threads, since small tensors gain nothing from more."""
from __future__ import annotations

import os
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_MININTERVAL", "30")
# Tests of the command must not find a reader's own data, store or cache.
for name in ("TCN_DATA", "TCN_CACHE", "TCN_EMOJI_TARBALLS", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many inputs the fuzz tests tried."""
    from fuzzing import summary

    if summary():
        terminalreporter.write_line(summary())
