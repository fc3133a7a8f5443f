"""Estimates the cost of runs in advance: hours on this device, disk and memory, from measured rates and the sizes of the lists.

In: runs, a Calibration, existing results. Out: a table, totals, and the rates on which they are based.
"""
from __future__ import annotations

import collections
import contextlib
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil
import torch

from benchmarks import provenance
from benchmarks.experiments import FEEDS, PlannedRun
from benchmarks.launch.calibration import FEW_STEPS, Calibration, Rate, TrainingShape, scoring_shape, training_shape
from benchmarks.launch.jobs import cores
from benchmarks.material import Material
from benchmarks.records import read_json, read_rows
from benchmarks.store import RunFolder, read_config
from tcn.config import GENERALISED, InputError
from tcn.data import specs
from tcn.data.packing import Form, form_for
from tcn.data.splits import Split
from tcn.data.store import store_of
from tcn.files import earlier
from tcn.files.atomic import amount, existing_parent

LEDGER_PASSES = 13
"""Scoring the ledger takes about as many passes over features and codes as scoring thirteen runs (scoring.score_ledger)."""
SCORES_PER_QUERY = 2 * 29
"""Number of arrays in per_query.npz: features and codes, every metric and protocol."""


@dataclass(frozen=True)
class Sizes:
    """The number of pictures in each list of a split."""

    train_sketches: int
    train_photos: int
    heldout_sketches: int
    validation_sketches: int
    validation_photos: int
    query: int
    gallery: int

    @property
    def sketches(self) -> int:
        """Number of sketches in the image cache."""
        return self.train_sketches + self.heldout_sketches + self.validation_sketches + self.query

    @property
    def photos(self) -> int:
        """Number of photos in the image cache."""
        return self.train_photos + self.validation_photos + self.gallery

    @property
    def validation(self) -> int:
        """Number of images that the validation after each epoch encodes."""
        return self.heldout_sketches + self.validation_sketches + self.validation_photos

    @property
    def scored(self) -> int:
        """Number of images that are encoded to score a trained run."""
        return (self.train_sketches + self.train_photos + self.validation_sketches + self.validation_photos + self.query
                + self.gallery)


def sizes_of(split: Split) -> Sizes:
    """Sizes of the lists of a split on disk."""
    return Sizes(**{name: len(files) for name, files in split.lists().items()})


def published_sizes(dataset: str, split: str) -> Sizes | None:
    """Sizes by the published lists; those of missing lists follow from the published totals. None if neither gives them."""
    plan = specs.read_plan(dataset, split)
    known = plan.expected()
    if not {"query", "gallery"} <= known.keys() or not plan.totals:
        return None
    heldout = known.get("heldout_sketches", plan.held_out_per_class * len(plan.of("seen")))
    seen = known.get("train_photos", plan.totals["photos"] - known["gallery"])
    return Sizes(known.get("train_sketches", plan.totals["sketches"] - known["query"] - heldout),
                 seen, heldout, known.get("validation_sketches", 0), known.get("validation_photos", 0), known["query"],
                 known["gallery"] + (seen if specs.spec(dataset)[0].generalised else 0))


@dataclass(frozen=True)
class Cost:
    """The remaining cost of one run: seconds by part; `state` says how far the run is, or why it can't run yet."""

    run: PlannedRun
    state: str
    sizes: Sizes | None
    """None if they are not known; such a run adds nothing to the totals."""
    epochs: int = 0
    pairs: int = 0
    train: float = 0.0
    extract: float = 0.0
    score: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.train + self.extract + self.score


@dataclass
class Estimate:
    """Costs of all runs, and the rates on which they are based."""

    costs: list[Cost] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """The lines printed below the table: totals, sources of the rates, disk, memory."""
    watts: float = 0.0
    """Power that the device draws while it trains; 0 if it is not known."""

    def by_row(self) -> pd.DataFrame:
        """One row for all seeds of a variant on a split, in the order of their first runs."""
        rows: dict[tuple[str, str, str], list[Cost]] = {}
        for cost in self.costs:
            rows.setdefault((cost.run.dataset, cost.run.split, cost.run.variant), []).append(cost)
        table = []
        for key, costs in rows.items():
            states = collections.Counter(cost.state.partition(",")[0] for cost in costs)
            pairs, seconds = sum(cost.pairs for cost in costs), sum(cost.seconds for cost in costs)
            known = all(cost.sizes for cost in costs)
            table.append((*key, len(costs), ", ".join(f"{n} {state}" for state, n in states.items()),
                          f"{pairs:,}" if pairs else "", _hours(seconds) if known else "unknown",
                          *([f"{_kwh(seconds, self.watts):.3g}"] if self.watts else []),
                          FEEDS.get(key[2], "")))
        return pd.DataFrame(table, columns=["data set", "split", "variant", "seeds", "state", "pairs left", "hours",
                                            *(["kWh"] if self.watts else []), "feeds"])

    def table(self) -> pd.DataFrame:
        """One row for each run, as printed."""
        rows = []
        for c in self.costs:
            parts = [_hours(seconds) if seconds else "" for seconds in (c.train, c.extract, c.score)]
            rows.append((c.run.dataset, c.run.split, c.run.variant, c.run.seed, c.state, c.epochs or "",
                         f"{c.pairs:,}" if c.pairs else "", *(parts if c.sizes else [""] * 3),
                         _hours(c.seconds) if c.sizes else "unknown",
                         FEEDS.get(c.run.variant, "table of further variants" if c.run.place else "")))
        return pd.DataFrame(rows, columns=["data set", "split", "variant", "seed", "state", "epochs left", "pairs left",
                                           "train h", "extract h", "score h", "hours", "feeds"])


def _kwh(seconds: float, watts: float) -> float:
    return seconds * watts / 3.6e6


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return "0" if not hours else f"{hours:.3f}" if hours < 0.1 else f"{hours:.2f}" if hours < 10 else f"{hours:,.0f}"


def kept_rates(output: Path, device: str, threads: int) -> dict[TrainingShape, list[float]]:
    """Training pairs per second of the runs in `output` that one such device trained with as many threads, by shape."""
    found: dict[TrainingShape, list[float]] = {}
    for path in sorted(earlier.runs_folder(output).glob("*/history.csv")):
        try:
            record, rows = read_json(path.parent / "provenance.json"), read_rows(path)
            config = read_config(path.parent)[0].config
            rates = [float(row["pairs_per_second"]) for row in rows if row.get("pairs_per_second")]
        except (InputError, ValueError):
            continue  # written by another version of the code, or damaged
        if (record.get("device"), record.get("threads"), record.get("gpus_per_run") or 1) == (device, threads, 1):
            found.setdefault(training_shape(config), []).extend(rates)
    return {shape: rates for shape, rates in found.items() if rates}


class Estimator:
    """Estimates the cost of runs one by one; rates are read or measured when they are needed."""

    def __init__(self, output: Path, material: Material, calibration: Calibration, missing: Mapping[str, str]) -> None:
        """`missing`: data set that is not on this machine -> the reason; its runs are estimated from the published counts."""
        self.output, self.material, self.calibration, self.missing = output, material, calibration, missing
        device = calibration.device
        self.device = provenance.device_name(device)
        self.unit = "GPU-hours" if device.type == "cuda" else "CPU-hours"
        self.kept = kept_rates(output, self.device, torch.get_num_threads())
        self.measured: dict[str, Rate] = {}
        self.from_runs: dict[str, float] = {}

    def cost(self, run: PlannedRun, whole: bool = False) -> Cost:
        """The remaining cost of a run. `whole`: the cost of the whole run, however much of it is done."""
        sizes, state, done = self._find(run)
        if whole:
            done = 0
        elif state == "finished" or state.startswith("finished,"):
            return Cost(run, state, sizes)
        config = run.config
        epochs = config.training.epochs - done
        if sizes is None:
            return Cost(run, state, None, epochs)
        images = self._keep(f"features, {config.network.backbone}", self.calibration.extraction(run))
        train = 0.0
        pairs = sizes.train_photos * epochs
        if run.trained and epochs:
            train = pairs / self._training_rate(run) + epochs * sizes.validation / images.per_second
        ledger = run.definition.ledger
        extract = (sizes.scored + sizes.gallery * ledger) / images.per_second
        scoring = self._keep(f"scoring, {run.dataset} {run.split}, {scoring_shape(config, sizes.gallery).dim}-d",
                             self.calibration.scoring(run, sizes.query, sizes.gallery))
        score = sizes.query / scoring.per_second * (1 + LEDGER_PASSES * ledger)
        return Cost(run, state, sizes, epochs, pairs, train, extract, score)

    def _training_rate(self, run: PlannedRun) -> float:
        shape = training_shape(run.config)
        if shape in self.kept:
            rate = statistics.median(self.kept[shape])
            self.from_runs[f"training, {run.variant}"] = rate
            return rate
        return self._keep(f"training, {run.variant}", self.calibration.training(run)).per_second

    def _keep(self, what: str, rate: Rate) -> Rate:
        self.measured[what] = rate
        return rate

    def _find(self, run: PlannedRun) -> tuple[Sizes | None, str, int]:
        """Sizes of a run's lists, its state in words, and the number of finished epochs."""
        if run.dataset in self.missing:
            return published_sizes(run.dataset, run.split), "not here", 0
        if not self.material.is_built(run.dataset):
            # Planning downloads nothing, so a data set that has to be built first is shown as to do.
            return None, "to do (data set not built yet)", 0
        try:
            sizes = sizes_of(self.material.split_of(run.config))
        except InputError as error:
            return published_sizes(run.dataset, run.split), f"can't run: {error}", 0
        try:
            folder = RunFolder(self.output, run, self.material.identity(run.config))
        except InputError as error:
            return sizes, f"can't run: {error}", 0
        if folder.state == "new":
            return sizes, "to do", 0
        epochs = f", {folder.epochs_done}/{run.config.training.epochs} epochs" if run.trained else ""
        return sizes, folder.state + epochs, folder.epochs_done

    def form(self, run: PlannedRun, sizes: Sizes) -> Form:
        """The form in which the image cache keeps a run's pictures, or would."""
        images, size = sizes.sketches + sizes.photos, run.config.data.stored_size
        if run.dataset in self.missing or not self.material.is_built(run.dataset):
            return form_for(images, size)
        try:
            digest = self.material.split_of(run.config).data_digest
        except InputError:  # told as the run's state
            return form_for(images, size)
        return store_of(digest, size, self.material.places.cache, run.dataset.removesuffix(GENERALISED), images).form

    def rates(self) -> list[str]:
        """The rates on which the costs are based, one line each."""
        units = {"training": "pairs/s", "features": "images/s", "scoring": "queries/s"}
        lines = [f"  {what}: {rate:,.0f} pairs/s, median of the epochs run here" for what, rate in self.from_runs.items()]
        for what, rate in self.measured.items():
            rough = f" (rough: {rate.steps} step{'' if rate.steps == 1 else 's'} of up to {rate.units} pairs)"
            rough = rough if what.startswith("training") and rate.steps < FEW_STEPS else ""
            lines.append(f"  {what}: {rate.per_second:,.{0 if rate.per_second >= 100 else 1}f} {units[what.partition(',')[0]]}, "
                         f"calibration of {rate.measured[:10]}{rough}")
        return lines


def estimate(runs: Sequence[PlannedRun], output: Path, material: Material, calibration: Calibration, missing: Mapping[str, str]
             ) -> Estimate:
    """Costs of all runs. Rates that are not known yet are measured first (Calibration), which may take a minute."""
    estimator = Estimator(output, material, calibration, missing)
    result = Estimate([estimator.cost(run) for run in runs])
    result.watts = statistics.median([rate.watts for rate in estimator.measured.values() if rate.watts] or [0.0])
    total = sum(cost.seconds for cost in result.costs)
    unknown = sum(cost.sizes is None for cost in result.costs)
    elsewhere = sum(cost.seconds for cost in result.costs if cost.run.dataset in missing)
    threads = torch.get_num_threads()
    result.lines.append(f"{len(runs)} runs; {_hours(total)} {estimator.unit} left on {estimator.device}, {threads} "
                        f"thread{'' if threads == 1 else 's'}, one run at a time"
                        + (f"; {_hours(elsewhere)} of them for data sets that are not here, by the published counts" if elsewhere
                           else "") + (f"; {unknown} runs of unknown length" if unknown else ""))
    if result.watts:
        result.lines.append(f"energy: {_kwh(total, result.watts):,.3g} kWh for the GPU alone, at the {result.watts:,.0f} W that "
                            "nvidia-smi told in the middle of training")
    rates = estimator.rates()
    result.lines += ["rates:", *rates] if rates else []
    result.lines += _disk(result.costs, estimator, calibration) + _memory(estimator)
    return result


def _disk(costs: Sequence[Cost], estimator: Estimator, calibration: Calibration) -> list[str]:
    """Disk space for the image cache and the results, beside the free space; and the time that filling the cache takes."""
    needs: dict[tuple[str, int], Sizes] = {}
    forms: dict[tuple[str, int], Form] = {}
    results, working, own = 0.0, 0.0, _result_bytes(estimator.output)
    for cost in costs:
        sizes = cost.sizes
        if sizes is None or cost.state.startswith("finished"):
            continue
        data = cost.run.config.data
        # All splits of a data set hold the same pictures.
        forms[data.dataset, data.stored_size] = estimator.form(cost.run, sizes)
        known = needs.get((data.dataset, data.stored_size))
        if known is None or sizes.sketches + 3 * sizes.photos > known.sketches + 3 * known.photos:
            needs[data.dataset, data.stored_size] = sizes
        rate = estimator.measured.get(f"training, {cost.run.variant}")
        model = rate.model_bytes if rate else 0
        results += own.get(cost.run.trained) or (model + 4 * (sizes.query + sizes.gallery) * cost.run.config.network.dim
                                                  + 8 * sizes.query * SCORES_PER_QUERY)
        # The state of a run while it trains: the best epoch, the last one, and Adam's two averages.
        working = max(working, 4.0 * model)
    images = {key: forms[key].expected(s.sketches, s.photos, key[1]) for key, s in needs.items()}
    there = sum(path.stat().st_size for path in (calibration.cache / "pixels").rglob("*") if path.is_file())
    lines = []
    if images:
        each = ", ".join(f"{key[0]} {amount(size)}{'' if forms[key].name == 'decoded' else ', ' + forms[key].name}"
                         for key, size in images.items())
        lines.append(f"disk: image cache {amount(sum(images.values()))} in all ({each}), {amount(there)} there; "
                     f"{_free(calibration.cache)}")
        seconds = sum((s.sketches + s.photos) / calibration.decoding(key[1]).per_second for key, s in needs.items()) / cores()
        lines.append(f"decoding it once: about {_hours(seconds)} h on {cores()} cores, the disk's own speed apart")
    if results:
        source = "as large as those here" if own else "estimated"
        lines.append(f"disk: results {amount(results)} ({source}), and {amount(working)} for each run while it trains; "
                     f"{_free(estimator.output)}")
    return lines


def _memory(estimator: Estimator) -> list[str]:
    rates = list(estimator.measured.values())
    host, device = max((r.host_bytes for r in rates), default=0), max((r.device_bytes for r in rates), default=0)
    lines = []
    if host:
        lines.append(f"memory: {amount(host)} for a run at its peak in the calibration; "
                     f"{amount(psutil.virtual_memory().available)} free (the image cache is mapped, not loaded)")
    if device:
        free, _ = torch.cuda.mem_get_info(estimator.calibration.device)
        lines.append(f"GPU memory: {amount(device)} for a run at its peak in the calibration; {amount(free)} free")
    return lines


def _result_bytes(output: Path) -> dict[bool, float]:
    """Mean size of finished runs here, by whether they were trained."""
    sizes: dict[bool, list[int]] = {}
    for folder in earlier.runs_folder(output).glob("*"):
        with contextlib.suppress(InputError):  # a damaged folder is reported when its run starts
            if read_json(folder / "status.json").get("state") == "finished":
                sizes.setdefault((folder / "checkpoint.pt").exists(), []).append(
                    sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    return {trained: statistics.mean(values) for trained, values in sizes.items()}


def _free(path: Path) -> str:
    return f"{amount(shutil.disk_usage(existing_parent(path)).free)} free at {path}"

