"""The training loop: schedule, epochs, validation, choice of the epoch, checkpoint and resume.

In: a Method and its model, training pairs, validation images of seen classes or of classes never trained on. Out: the model
at its chosen epoch, and a history per epoch and per step. Unseen classes are never used. Paper: implementation details.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Sized
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from tcn.config import Config, InputError, Modality
from tcn.data.pairs import PairBatch, PairSource
from tcn.data.pixels import Pixels
from tcn.files.atomic import room, warn
from tcn.model.execution import training_mode
from tcn.model.ranks import Ranks
from tcn.scoring import scores
from tcn.scoring.features import evaluating, extract
from tcn.seeding import stream_seed, torch_stream
from tcn.train import checkpoints
from tcn.train.distances import Distances
from tcn.train.method import AnyModel, Method, Model, TcnModel

READ_EVERY = 16
"""Number of steps after which loss values are fetched from a device other than the CPU: each fetch synchronises with it."""
EXPLODED = 1e6
"""A mean loss term, before its weight, above which a run is stopped: 6,000 times the largest one in 84 runs on emoji (169, the
sharing loss at weight 0.1)."""


class Diverged(RuntimeError):
    """A loss is not finite or exploded. The message names epoch, step and term.

    `epoch`, `step` (both from 1, the step within the run) and `values`: the loss terms of that step.
    """

    def __init__(self, message: str, epoch: int, step: int, values: dict[str, float]) -> None:
        super().__init__(message)
        self.epoch, self.step, self.values = epoch, step, values
        self.history: History | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.epoch, self.step, self.values)


@dataclass(frozen=True)
class ValidationData:
    """The images by which the kept epoch may be chosen: held-out sketches of seen classes, and sketches and photos of validation
    classes (None if a data set has none). Unseen classes are never among them."""

    heldout: Pixels | None
    sketches: Pixels | None
    photos: Pixels | None


@dataclass
class History:
    """Rows per epoch (0 = before training) and per step, and the epoch that was kept."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float = -math.inf


def learning_rate(epoch: int, epochs: int, base: float) -> float:
    """base * 0.001 ** (epoch / (2 * epochs)); epoch counts from 0 (released schedule). InputError if epochs < 1.

    >>> learning_rate(0, 10, 1e-4), round(learning_rate(10, 10, 1e-4), 9)
    (0.0001, 3.162e-06)
    """
    if epochs < 1:
        raise InputError(f"epochs is {epochs}; a schedule needs at least 1")
    return float(base * 0.001 ** (epoch / (2 * epochs)))


def _features(model: Model, images: Pixels, modality: Modality, image_size: int, device: torch.device, resize: str
              ) -> np.ndarray:
    features = extract(model, images, modality, image_size, device, resize=resize)
    # A loss is computed before the update it leads to, so an epoch's last update is checked here.
    if not np.isfinite(features).all():
        raise Diverged("features of validation images are not finite after the epoch; lower training.encoder_rate or "
                       "training.head_rate", 0, 0, {})
    return features


def class_accuracy(model: Model, sketches: Pixels, image_size: int, device: torch.device, resize: str = "float") -> float:
    """Mean over seen classes of the share of held-out sketches that are classified correctly (released validation)."""
    features = torch.from_numpy(_features(model, sketches, Modality.SKETCH, image_size, device, resize)).to(device)
    with evaluating(model), torch.no_grad():
        right = (model.classify(features, Modality.SKETCH).argmax(1).cpu().numpy() == sketches.labels)
    return float(np.mean([right[sketches.labels == c].mean() for c in np.unique(sketches.labels)]))


def validate(model: Model, data: ValidationData, image_size: int, device: torch.device, resize: str = "float"
             ) -> dict[str, float]:
    """`seen_accuracy` and `validation_map` (mAP@all under the protocol `released`, validation classes), NaN without data."""
    result = {"seen_accuracy": math.nan, "validation_map": math.nan}
    if data.heldout is not None and len(data.heldout):
        result["seen_accuracy"] = class_accuracy(model, data.heldout, image_size, device, resize)
    if data.sketches is not None and len(data.sketches) and data.photos is not None:
        query = _features(model, data.sketches, Modality.SKETCH, image_size, device, resize)
        gallery = _features(model, data.photos, Modality.PHOTO, image_size, device, resize)
        result["validation_map"] = scores.evaluate(query, gallery, data.sketches.labels, data.photos.labels,
                                                    protocols=("released",))["released"]["mAP@all"]
    return result


def check_choice(select_by: str, heldout: Sized | None, sketches: Sized | None, photos: Sized | None) -> None:
    """InputError where a data set has nothing by which `training.select_by` could choose an epoch.

    In: held-out sketches of seen classes, and sketches and photos of validation classes."""
    if select_by == "seen_accuracy" and not heldout:
        raise InputError("setting 'training.select_by' is 'seen_accuracy', and no sketches of seen classes are held out to "
                         "measure it on; add sketches, or set training.select_by=validation_map data.validation=carved")
    if select_by == "validation_map" and not (sketches and photos):
        raise InputError("setting 'training.select_by' is 'validation_map', and there are no validation classes to measure it "
                         "on; set training.select_by=seen_accuracy, or have seen classes carved out with data.validation=carved")


def base_rates(config: Config) -> dict[str, float]:
    """Base learning rate of each group of parameters."""
    return {"encoder": config.training.encoder_rate, "head": config.training.head_rate}


def adam(model: Model, config: Config) -> torch.optim.Adam:
    """The optimizer of a run: one group of parameters for each learning rate, named `encoder` and `head`."""
    groups, rates = model.groups(), base_rates(config)
    fused = config.execution.optimizer == "fused"
    return torch.optim.Adam([{"params": [p for p in groups[name] if p.requires_grad], "name": name, "lr": rates[name]}
                             for name in rates if any(p.requires_grad for p in groups[name])],
                            weight_decay=config.training.weight_decay, fused=fused, foreach=None if fused else False)


def fit(method: Method[AnyModel], model: AnyModel, source: PairSource, validation: ValidationData, config: Config,
        folder: Path, device: torch.device, label: str = "", progress: bool = True,
        on_epoch: Callable[[History], None] | None = None, distances: Distances | None = None, ranks: Ranks | None = None
        ) -> History:
    """Train `model` in place and leave it at its chosen epoch.

    Resumes from the newest whole checkpoint in `folder`, and saves one at the end of every epoch: model, optimizer, history,
    distances, and the model of the best epoch so far. A resumed run gives the same bits as an uninterrupted one. `on_epoch` is
    called after each epoch, and once before the first epoch of a resumed run. `distances`, made from the model at its start, are
    read at the steps for which `Distances.due` is true.
    `ranks`: this process as the first of several that train one model (tcn/train/parallel.py); the others call `follow`.
    Raises Diverged if a loss is not finite or explodes, with the `history` up to the step before;
    InputError where nothing can choose the epoch (`check_choice`); StorageError if the disk has no room for checkpoints.
    """
    settings = config.training
    check_choice(settings.select_by, validation.heldout, validation.sketches, validation.photos)
    optimizer = adam(model, config)
    history, done = History(), 0
    best: dict[str, torch.Tensor] | None = None
    resumed = checkpoints.last(folder)
    for note in resumed.notes:
        warn(f"{label}: {note}".removeprefix(": "))
    if resumed.state is not None:
        state = resumed.state
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history, done, best = History(**state["history"]), state["epoch"], state["best"]
        if distances is not None and state["distances"] is not None:
            distances.restore(state["distances"])
        if on_epoch:  # the process may have died between its checkpoint and this
            on_epoch(history)
    else:
        # Checked now, since the first epoch may take hours.
        sizes = {t.data_ptr(): t.nbytes for t in model.state_dict().values()}
        room(folder, checkpoints.room_needed(sum(sizes.values())), "this run's checkpoints")
        history.epochs.append({"epoch": 0, **validate(model, validation, config.data.image_size, device, config.data.resize)})
    _join(model, optimizer, ranks)
    if config.execution.graphs != "none":
        # Recorded before any batch is prefetched, since no other thread may use the device during a recording.
        side = config.data.image_size
        model.train()
        with training_mode(config.execution, device):
            model.record(torch.zeros(config.data.batch_pairs, 3, side, side, device=device))
    bar = tqdm(total=settings.epochs * source.pairs, initial=done * source.pairs, unit="pair", disable=not progress,
               smoothing=0.1, dynamic_ncols=True)
    with bar:
        for epoch in range(done + 1, settings.epochs + 1):
            bar.set_description(f"{label} epoch {epoch}/{settings.epochs}")
            try:
                row = _epoch(method, model, optimizer, source, config, epoch, device, bar, history, distances, ranks)
                row.update(validate(model, validation, config.data.image_size, device, config.data.resize))
            except Diverged as error:
                error.epoch, error.step, error.history = epoch, error.step or epoch * source.steps, history
                raise
            history.epochs.append(row)
            value = row[settings.select_by]
            now = checkpoints.host_copy(model.state_dict())
            if value > history.best_value:
                history.best_value, history.best_epoch, best = value, epoch, now
            checkpoints.keep({"epoch": epoch, "model": now, "best": best, "optimizer": optimizer.state_dict(),
                              "history": vars(history), "distances": distances.state() if distances else None}, folder)
            bar.set_postfix_str(f"{settings.select_by} {value:.3f}")
            if on_epoch:
                on_epoch(history)
    if best is not None:
        model.load_state_dict(best)
    return history


def follow(method: Method[AnyModel], model: AnyModel, source: PairSource, config: Config, folder: Path, device: torch.device,
           ranks: Ranks) -> None:
    """Train `model` as one of the further processes of a run, whose first calls `fit` with an equal model, the same pairs,
    settings and `folder`. It goes on from the same checkpoint, writes nothing, and ends at the last epoch.
    Raises Diverged as `fit`."""
    optimizer, done = adam(model, config), 0
    if (state := checkpoints.last(folder).state) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epoch"]
    _join(model, optimizer, ranks)
    for epoch in range(done + 1, config.training.epochs + 1):
        _epoch(method, model, optimizer, source, config, epoch, device, None, History(), None, ranks)


def _join(model: Model, optimizer: torch.optim.Optimizer, ranks: Ranks | None) -> None:
    """Let `model` train with its copies in the other processes, if there are any. Raises RuntimeError where they start from other
    weights."""
    if ranks is None:
        return
    assert isinstance(model, TcnModel)  # tcn.train.parallel.check has looked at it
    model.spread(ranks)
    with ranks.exchange():
        ranks.check_alike(_parameters(optimizer))


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def train_step(method: Method[AnyModel], model: AnyModel, optimizer: torch.optim.Optimizer, batch: PairBatch, config: Config,
               generator: torch.Generator, ranks: Ranks | None = None) -> dict[str, torch.Tensor]:
    """One update of `model` in place. Returns the mean of each loss term and the `total`, as scalars on the device.

    Reading such a scalar synchronises with the device, so the caller chooses when. `ranks`: as in `fit`.
    """
    with ranks.step(len(batch)) if ranks else nullcontext():
        losses = method.losses(model, batch, config, generator)
        total = losses.total()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
    if ranks:
        ranks.average(_parameters(optimizer))
    optimizer.step()
    return {**losses.means(), "total": total}


class _Readings:
    """The loss values of one epoch's steps. They stay on the device, and are fetched and added to the history every `every`
    steps."""

    def __init__(self, history: History, epoch: int, steps: int, every: int) -> None:
        self.sums: dict[str, float] = {}
        self._history, self._epoch, self._first, self._every = history, epoch, (epoch - 1) * steps, every
        self._done = 0
        self._waiting: list[tuple[dict[str, torch.Tensor], int]] = []

    def add(self, values: dict[str, torch.Tensor], pairs: int) -> None:
        """Add a step's mean loss terms over `pairs` pairs. Raises Diverged as `fetch` does."""
        self._waiting.append((values, pairs))
        if len(self._waiting) >= self._every:
            self.fetch()

    def fetch(self) -> None:
        """Fetch all waiting values in one copy. Raises Diverged, which names the step, if one is not finite or exploded."""
        if not self._waiting:
            return
        rows = torch.stack([torch.stack(list(values.values())) for values, _ in self._waiting]).detach().tolist()
        for row, (values, pairs) in zip(rows, self._waiting):
            named = dict(zip(values, row))
            if bad := {k: v for k, v in named.items() if not math.isfinite(v) or (k != "total" and abs(v) > EXPLODED)}:
                what = "exploded" if all(map(math.isfinite, bad.values())) else "is not finite"
                shown = ", ".join(f"{k}={v:g}" for k, v in bad.items())
                # Before the first update no rate can be the cause.
                advice = "lower training.encoder_rate or training.head_rate" if self._first + self._done else (
                    "no step was taken before it, so look at the weights, the word vectors and the method's losses")
                raise Diverged(f"loss {what} at epoch {self._epoch}, step {self._done} ({shown}); {advice}", self._epoch,
                               self._first + self._done + 1, named)
            self._done += 1
            self._history.steps.append({"step": self._first + self._done, "epoch": self._epoch, **named})
            for name, value in named.items():
                self.sums[name] = self.sums.get(name, 0.0) + value * pairs
        self._waiting.clear()


def _epoch(method: Method[AnyModel], model: AnyModel, optimizer: torch.optim.Optimizer, source: PairSource, config: Config,
           epoch: int, device: torch.device, bar: tqdm | None, history: History, distances: Distances | None, ranks: Ranks | None
           ) -> dict[str, float]:
    model.train()
    current = {name: learning_rate(epoch - 1, config.training.epochs, base) for name, base in base_rates(config).items()}
    for group in optimizer.param_groups:
        group["lr"] = current[group["name"]]
    started = time.perf_counter()
    readings = _Readings(history, epoch, source.steps, 1 if device.type == "cpu" else READ_EVERY)
    # Dropout draws from torch's global stream, which is seeded for each epoch and restored afterwards.
    with (torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), training_mode(config.execution, device),
          ranks.exchange() if ranks else nullcontext()):
        torch.manual_seed(stream_seed(config.seed, "dropout", epoch))
        for step, batch in enumerate(source.epoch(config.seed, epoch, device, rows=ranks.rows if ranks else None)):
            generator = torch_stream(config.seed, "alpha", epoch, step)
            readings.add(train_step(method, model, optimizer, batch, config, generator, ranks), len(batch))
            done = (epoch - 1) * source.steps + step + 1
            if distances is not None and distances.due(done):
                distances.read(done)
            if bar is not None:
                bar.update(len(batch))
        readings.fetch()
        if ranks:
            ranks.check_alike(_parameters(optimizer))
    seconds = time.perf_counter() - started
    return {"epoch": epoch, "encoder_rate": current["encoder"], "head_rate": current["head"],
            **{name: value / source.pairs for name, value in readings.sums.items()},
            "seconds": seconds, "pairs_per_second": source.pairs / seconds}
