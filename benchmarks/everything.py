"""The whole grid in one call: which runs fit a time budget, which are cut, and the extension at the end.

In: a checked call of `run_all.py --everything`, and the time that it may take. Out: the call with the runs that fit, and a
record of those that do not. suite.json keeps the record, so that the same command goes on with the same plan, however far the
last call came.
"""
from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from baselines.domain_adversarial import DigitSettings
from benchmarks.experiments import PlannedRun
from benchmarks.extension import digits
from benchmarks.extension.digits_data import AdaptationTask, offline_task
from benchmarks.launch.calibration import Calibration
from benchmarks.launch.chosen import measured_at_once
from benchmarks.launch.cost import Estimator
from benchmarks.prepared import Prepared
from benchmarks.store import EXTENSION, RunFolder, SuiteFolder
from tcn.config import InputError
from tcn.files.atomic import warn

Item = TypeVar("Item")
UNITS = {"m": 60, "h": 3600, "d": 86400}
"""Last letter of a budget -> seconds."""
QUICK = ("--steps", "20", "--seeds", "0")
"""The extension of a smoke run."""


@dataclass(frozen=True)
class BudgetCut:
    """The runs that a budget leaves out."""

    budget: str
    """The budget as given on the command line, such as `24h`."""
    runs: tuple[PlannedRun, ...]
    extension: bool
    """Whether the extension is left out too."""
    before: bool = False
    """Whether an earlier call of the same command had cut the plan so."""

    def lines(self) -> list[str]:
        """The lines of the plan about what is left out, one for each split."""
        if not (self.runs or self.extension):
            return [f"budget of {self.budget}: all of it fits"]
        rows: dict[str, dict[str, list[int]]] = {}
        for run in self.runs:
            rows.setdefault(f"{run.dataset} {run.split}", {}).setdefault(run.variant, []).append(run.seed)
        told = [f"  {task}: " + ", ".join(f"{variant} (seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))})"
                                          for variant, seeds in found.items()) for task, found in rows.items()]
        return [f"budget of {self.budget}: cut {len(self.runs)} run{'s' * (len(self.runs) != 1)}"
                + (" and the extension" if self.extension else "") + (", as in the earlier call" if self.before else "")
                + "; a larger --budget takes them up", *told]

    def record(self, folders: Sequence[RunFolder]) -> dict[str, Any]:
        """The record for suite.json. `folders`: those of all runs of the plan."""
        paths = {folder.run.name: str(folder.path.relative_to(folder.path.parent.parent)) for folder in folders}
        return {"budget": self.budget, "extension": self.extension,
                "runs": [{"dataset": run.dataset, "split": run.split, "variant": run.variant, "seed": run.seed,
                           "folder": paths[run.name]} for run in self.runs if run.name in paths]}


def fitting(blocks: Sequence[Sequence[Item]], price: Callable[[Item], float], budget: float) -> tuple[list[Item], list[Item]]:
    """The items of the first blocks whose total price is at most `budget`, and all other items. A block is kept or cut as a
    whole, and no block after a cut one is kept.

    >>> fitting([["a"], ["b", "c"], ["d"]], {"a": 2, "b": 1, "c": 3, "d": 1}.get, 5)
    (['a'], ['b', 'c', 'd'])
    """
    kept: list[Item] = []
    for number, block in enumerate(blocks):
        budget -= sum(price(item) for item in block)
        if budget < 0:
            return kept, [item for later in blocks[number:] for item in later]
        kept += block
    return kept, []


def within_budget(call: Prepared, options: argparse.Namespace, calibration: Calibration) -> tuple[Prepared, BudgetCut | None]:
    """The call with the runs that `--budget` allows, and the cut, which is None without a budget. If several runs compute at
    once, the budget counts for each of them. InputError if not even the first block fits."""
    if not options.budget:
        return call, None
    seconds = int(options.budget[:-1]) * UNITS[options.budget[-1]] * measured_at_once(options, call.device)
    call, cut = within(call, options.budget, seconds, Estimator(call.output, call.material, calibration, call.missing))
    print("\n".join(cut.lines()), flush=True)
    return call, cut


def within(call: Prepared, budget: str, seconds: float, estimator: Estimator) -> tuple[Prepared, BudgetCut]:
    """The call with the runs that fit. A run is priced as a whole, even if part of it is done. InputError if not even the first
    block fits.

    `seconds`: the time on one device. What an earlier call with the same budget and grid has cut stays cut, even if the measured
    rates have changed.
    """
    found = _cut_before(call, budget)
    if found is None:
        # A plan also prices data sets that are not on this machine; a call that runs spends no time on them.
        away = call.missing if call.folders else {}
        blocks = [here for block in call.blocks if (here := [run for run in block if run.dataset not in away])]
        priced = [estimator.cost(run, whole=True) for block in blocks for run in block]
        if unknown := sum(cost.sizes is None for cost in priced):
            warn(f"note: what {unknown} runs take is not known before their data set is built; they count as nothing in the "
                 "budget")
        costs = {cost.run.name: cost.seconds for cost in priced}
        kept, cut = fitting(blocks, lambda run: costs[run.name], seconds)
        if not kept:
            first = sum(costs[run.name] for run in blocks[0])
            raise InputError(f"--budget {budget} is too short for the first part of the plan, the rows of {blocks[0][0].task} "
                             f"with one seed, which take {first / 3600:.2f} h here; give a larger one (--dry-run prices all "
                             "parts)")
        left = seconds - sum(costs[run.name] for run in kept)
        found = BudgetCut(budget, tuple(cut), bool(cut) or extension_seconds(call) > left)
    names = {run.name for run in found.runs}
    return dataclasses.replace(call, runs=[run for run in call.runs if run.name not in names],
                               folders=[folder for folder in call.folders if folder.run.name not in names]), found


def _cut_before(call: Prepared, budget: str) -> BudgetCut | None:
    """The cut of an earlier call on this output with the same budget and the same planned runs; None if there was no such
    call."""
    if not (call.output / "suite.json").exists():
        return None
    head = SuiteFolder.open(call.output).head()
    try:
        recorded = head["cut"]
        folders = {entry["folder"] for entry in recorded["runs"]}
        told, extension = recorded["budget"], bool(recorded["extension"])
    except (KeyError, TypeError):  # there was no budget, or the record is damaged, so the plan is cut anew
        return None
    ours = {str(folder.path.relative_to(call.output)): folder.run for folder in call.folders}
    if told != budget or not ours.keys() <= folders | {entry["folder"] for entry in head["runs"]}:
        return None
    return BudgetCut(budget, tuple(run for name, run in ours.items() if name in folders), extension, before=True)


# --- the extension -------------------------------------------------------------------------------------------

def run_extension(output: Path, device: torch.device, quick: bool) -> None:
    """Compute the runs of the extension that are not finished, on the offline task, whose digits and photos scikit-learn ships.
    InputError if its folder holds another task."""
    threads = torch.get_num_threads()
    try:
        digits.compute(digits.parser().parse_args(["--output", str(output / EXTENSION), "--device", str(device),
                                                   *(QUICK if quick else ())]))
    finally:
        torch.set_num_threads(threads)


def extension_seconds(call: Prepared) -> float:
    """Seconds that all runs of the extension take here. Two short runs of each method, of different lengths, are timed: their
    difference gives the cost of a step."""
    options = digits.parser().parse_args(list(QUICK) if call.quick else [])
    task, steps = offline_task(16), options.steps or digits.OFFLINE_STEPS
    threads, total = torch.get_num_threads(), 0.0
    torch.set_num_threads(options.threads)
    try:
        for method in options.methods:
            short, longer = (_timed(task, DigitSettings(method, 0, count, image_size=16), call.device)
                             for count in (digits.READINGS, 2 * digits.READINGS))
            total += short + max(0.0, longer - short) / digits.READINGS * (steps - digits.READINGS)
    finally:
        torch.set_num_threads(threads)
    return total * len(options.seeds)


def _timed(task: AdaptationTask, settings: DigitSettings, device: torch.device) -> float:
    started = time.perf_counter()
    digits.train(task, settings, device, "", progress=False)
    return time.perf_counter() - started
