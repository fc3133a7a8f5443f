"""What earlier versions called things, so that what they wrote can still be read and what people type still works.

In: names and contents as earlier versions wrote them. Out: the same in today's words. Files on disk are left as they are.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tcn.files.atomic import warn

_NAMES = {"floors": "untrained", **{f"floor-{kind}": f"untrained-{kind}" for kind in (
    "imagenet", "imagenet-permodality", "svd", "svd-permodality")}}
"""Variant or group of variants as it was called -> as it is called."""
_OPTIONS = {"--cells-per-gpu": "--runs-per-gpu", "--cpus-per-cell": "--cpus-per-run"}
LEDGER_COLUMN = "trap"
"""What ledger.csv called its column `deviation`."""
_FOLDER = "cells"


def name(given: str) -> str:
    """A variant or group as it is called today."""
    return _NAMES.get(given, given)


def typed(given: str) -> str:
    """The same, of a name that somebody typed: a line says so where it is another one."""
    return _today(given, given, _NAMES)


def options(arguments: Sequence[str]) -> list[str]:
    """The command line of run_all.py with each option as it is called today; a line says so where that is another name."""
    return [_today(argument, argument.partition("=")[0], _OPTIONS) for argument in arguments]


def _today(text: str, word: str, names: Mapping[str, str]) -> str:
    if word not in names:
        return text
    warn(f"note: '{word}' is called '{names[word]}' now")
    return text.replace(word, names[word], 1)


def runs_folder(output: Path) -> Path:
    """Where the folders of an output's runs lie: `runs`, or `cells` where an earlier version began the output."""
    return output / _FOLDER if (output / _FOLDER).is_dir() else output / "runs"


def head(found: dict[str, Any]) -> dict[str, Any]:
    """The parsed suite.json in today's words. What is not of the form that any version wrote stays as it is."""
    found = _with_runs(found)
    if isinstance(found.get("cut"), dict):
        found["cut"] = _with_runs(found["cut"])
    if isinstance(found.get("ledger"), list):
        found["ledger"] = [_deviation(entry) if isinstance(entry, dict) else entry for entry in found["ledger"]]
    return found


def _with_runs(found: dict[str, Any]) -> dict[str, Any]:
    """`cells` becomes `runs`, and each variant's name today's."""
    renamed = {"runs" if key == _FOLDER and "runs" not in found else key: value for key, value in found.items()}
    if isinstance(renamed.get("runs"), list):
        renamed["runs"] = [{**entry, "variant": name(entry["variant"])}
                           if isinstance(entry, dict) and isinstance(entry.get("variant"), str) else entry
                           for entry in renamed["runs"]]
    return renamed


def _deviation(entry: dict[str, Any]) -> dict[str, Any]:
    """`trap` becomes `deviation`, and the variants of its arms today's."""
    renamed = {"deviation" if key == LEDGER_COLUMN else key: value for key, value in entry.items()}
    if isinstance(renamed.get("arms"), dict):
        renamed["arms"] = {arm: name(its) if isinstance(its, str) else its for arm, its in renamed["arms"].items()}
    return renamed
