"""Checks a user's own method on a tiny network and random pairs, in seconds, and finds errors that training would meet later.

In: a variant. Out: a line for each error, with the function and the cure, and facts about the variant. Nothing is written, and no
image of any data set is read: the method gets random pictures of a few seen classes.
"""
from __future__ import annotations

import contextlib
import math
import os
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import baselines
from baselines import Variant, own
from benchmarks.material import build_model
from benchmarks.store import EPOCH_TERMS, STEP_TERMS
from tcn.config import BUILT_IN, Config, InputError, Modality, change
from tcn.data.pairs import PairBatch
from tcn.files.text import some
from tcn.model import backbones
from tcn.model.execution import training_mode
from tcn.scoring.features import evaluating
from tcn.seeding import borrowed, stream_seed, torch_stream
from tcn.train import loop
from tcn.train.method import Ingredients, LossTerms

CPU = torch.device("cpu")
CLASSES, WORD_SIZE = 6, 7
LABELS = ((0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4), (5, 5, 1))
"""Labels of the batches of one epoch: some classes occur once, one is absent, and the last batch is smaller."""
TINY = {"network.backbone": "test_resnet", "network.dim": 16, "data.image_size": 64, "data.stored_size": 64,
        "data.batch_pairs": len(LABELS[0]), "training.epochs": 2, "training.encoder_rate": 1e-3, "training.head_rate": 1e-3}
CLOSE = 1e-3
"""Largest difference of a feature between two batches, as a share of the largest feature, that counts as rounding."""
TAKEN = {"total", *STEP_TERMS[:2], "encoder_rate", "head_rate", *EPOCH_TERMS[-4:]}
"""Columns of a run's history that are not loss terms."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".svg", ".tif", ".tiff")
CODE = (".py", ".pyc", ".so", ".pyd", ".dylib")


class Wrong(Exception):
    """An error after which nothing further can be checked."""

    def __init__(self, function: str, text: str) -> None:
        super().__init__(text)
        self.function = function


@dataclass
class Checked:
    """The result of checking one variant."""

    variant: Variant
    faults: list[str] = field(default_factory=list)
    """`FILE, FUNCTION: what is wrong; cure`."""
    notes: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def fault(self, function: str, text: str) -> None:
        """Add one."""
        self.faults.append(f"{Path(self.variant.place).name or 'built in'}, {function}: {text}")

    def text(self) -> str:
        """The result as lines for a terminal."""
        head = f"{self.variant.name}: " + (f"{len(self.faults)} fault{'' if len(self.faults) == 1 else 's'}" if self.faults
                                           else f"nothing is missing ({', '.join(self.facts)})")
        return "\n".join([head, *(f"  fault: {text}" for text in self.faults), *(f"  note: {text}" for text in self.notes)])


def check(variant: Variant) -> Checked:
    """Check a variant: shapes, parameters, losses and gradients, seeds, checkpoints, and whether the features of an image
    depend on other images. Takes seconds. The random streams of torch, NumPy and Python are restored."""
    found, started = Checked(variant), time.perf_counter()
    try:
        with _streams_kept():
            _try(variant, _config(variant), found)
    except Wrong as wrong:
        found.fault(wrong.function, str(wrong))
    found.facts.append(f"{time.perf_counter() - started:.1f} s")
    return found


def _config(variant: Variant) -> Config:
    try:
        config = change(Config(), {**TINY, **variant.delta, "method": variant.method.name, "method_source": variant.source})
    except InputError as error:
        raise Wrong("VARIANTS", str(error)) from error
    # The tiny classifier may have too few directions for the SVD start.
    most = min(backbones.untrained(config.network.backbone)[1].weight.shape)
    return change(config, {"network.start": "random"}) if config.network.dim > most else config


@contextlib.contextmanager
def _streams_kept() -> Iterator[None]:
    numpys, pythons, threads = np.random.get_state(), random.getstate(), torch.get_num_threads()
    torch.set_num_threads(1)  # with such small tensors, more threads only wait for each other
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(numpys)
        random.setstate(pythons)
        torch.set_num_threads(threads)


def _images(batch: int, count: int, side: int) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(batch))


class _Trial:
    """One model of the variant and its first steps. `noise` seeds the global random streams, which a method must not draw
    from."""

    def __init__(self, variant: Variant, config: Config, noise: int) -> None:
        self.variant, self.config = variant, config
        torch.manual_seed(noise)
        np.random.seed(noise)
        random.seed(noise)
        with borrowed(0):
            encoder, _ = backbones.untrained(config.network.backbone)
            teacher, classifier = backbones.untrained(config.network.backbone)
            words, further = torch.randn(CLASSES, WORD_SIZE), torch.randn(len(classifier.bias), WORD_SIZE)
        ingredients = Ingredients(encoder, teacher, classifier, words, CLASSES, further)
        try:
            with _reads("build", PICTURES):
                self.model: Any = build_model(variant.method, config, ingredients, CPU)
        except InputError as error:
            raise Wrong("build", str(error)) from error

    def call(self, function: str, *arguments: Any, **named: Any) -> Any:
        """Call a function of the model and return its result. Raises Wrong if it raises or opens a file."""
        with self._guarded(function), _reads(function):
            return getattr(self.model, function)(*arguments, **named)

    @contextlib.contextmanager
    def _guarded(self, function: str) -> Iterator[None]:
        try:
            yield
        except Wrong:
            raise
        except Exception as error:
            files = () if self.variant.source == BUILT_IN else baselines.table(self.variant.source).files
            raise Wrong(function, own.blamed(error, files)) from error

    @torch.no_grad()
    def features(self, images: Tensor, modality: Modality) -> Tensor:
        """Features [B, D] as scoring takes them."""
        with evaluating(self.model):
            if self.config.evaluation.features == "backbone":
                return self.call("encode_backbone", images, modality)
            return self.call("encode", images, modality, side=modality)

    def batches(self) -> list[PairBatch]:
        """Two batches of random pairs."""
        side = self.config.data.image_size
        return [PairBatch(_images(2 * n, len(labels), side), _images(2 * n + 1, len(labels), side), torch.tensor(labels))
                for n, labels in enumerate(LABELS)]

    def losses(self, batch: PairBatch, step: int) -> LossTerms:
        """The loss terms of a step, with the step's own random numbers."""
        self.model.train()
        torch.manual_seed(stream_seed(self.config.seed, "dropout", step))
        with training_mode(self.config.execution, CPU), self._guarded("losses"), _reads("losses"):
            return self.variant.method.losses(self.model, batch, self.config, torch_stream(self.config.seed, "alpha", 1, step))

    def step(self, optimizer: torch.optim.Optimizer, batch: PairBatch, step: int) -> LossTerms:
        """Make one update; returns its loss terms."""
        found = self.losses(batch, step)
        _check_terms(found, len(batch))
        optimizer.zero_grad(set_to_none=True)
        with self._guarded("losses"):
            found.total().backward()
        optimizer.step()
        return found


def _try(variant: Variant, config: Config, found: Checked) -> None:
    trial = _Trial(variant, config, 1)
    trained = config.training.optimizer != "none"
    parameters = sum(parameter.numel() for parameter in trial.model.parameters())
    found.facts += [f"D = {_check_features(trial, found)}", f"{parameters:,} parameters"]
    if not trained:
        return
    _check_groups(trial, found)
    _check_classes(trial)
    means = _train(trial, found)
    found.facts.append(f"losses: {', '.join(means[0])}")
    again = _Trial(variant, config, 2)
    repeated = _train(again)
    if means != repeated or not _equal(trial.model.state_dict(), again.model.state_dict()):
        found.fault("losses", "the same seed gave other numbers the second time; draw random numbers with torch, or from the "
                              "generator that losses is given, not from NumPy, random, a clock or the order of a set")
        return
    _check_checkpoint(trial, found)


def _check_features(trial: _Trial, found: Checked) -> int:
    function = "encode_backbone" if trial.config.evaluation.features == "backbone" else "encode"
    images, others = _images(100, 5, trial.config.data.image_size), _images(101, 7, trial.config.data.image_size)
    before = _copied(trial.model.state_dict())
    widths = []
    for modality in Modality:
        features = trial.features(images, modality)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images) \
                or not features.is_floating_point():
            raise Wrong(function, f"gave {_shown(features)} for 5 images; it has to give a floating-point tensor [5, D]")
        if not features.isfinite().all():
            raise Wrong(function, f"gave features of {modality.value} images that are not finite; look for a division by zero "
                                  "or a logarithm of zero")
        widths.append(features.shape[1])
        alone = torch.cat([trial.features(others, modality)[:1],
                           *(trial.features(images[i:i + 1], modality) for i in range(5))])[1:]
        if not torch.allclose(alone, features, rtol=0, atol=CLOSE * float(features.abs().max())):
            found.fault(function, f"the features of a {modality.value} depend on which other images are encoded with it or "
                                  "before it: at test time these are of unseen classes; let batch norms follow self.training, "
                                  "and keep nothing of what is encoded")
            break
        if torch.allclose(features, features[:1].expand_as(features), rtol=0, atol=1e-6 * float(features.abs().max())):
            found.fault(function, f"gave the same features for five different {modality.value} images; use the images that it "
                                  "is given")
    if len(set(widths)) > 1:
        found.fault(function, f"gave {widths[0]} features of sketches and {widths[1]} of photos; they have to be of one length")
    if not _equal(before, trial.model.state_dict()):
        found.fault(function, "changed the model's state while images were encoded: at test time these are of unseen classes; "
                              "change it in losses alone")
    return widths[0]


def _check_groups(trial: _Trial, found: Checked) -> None:
    groups = trial.call("groups")
    if not isinstance(groups, dict) or set(groups) != {"encoder", "head"}:
        raise Wrong("groups", f"gave {_shown(groups)}; it has to give a dictionary with the lists 'encoder' and 'head', which "
                              "learn at training.encoder_rate and training.head_rate")
    grouped = [id(parameter) for group in groups.values() for parameter in group]
    named = {id(parameter): name for name, parameter in trial.model.named_parameters() if parameter.requires_grad}
    if missing := [name for key, name in named.items() if key not in grouped]:
        found.fault("groups", f"leaves out {some(missing)}, which would stay as it started; add it, or set its requires_grad "
                              "to False")
    if twice := [named.get(key, "a parameter") for key in dict.fromkeys(grouped) if grouped.count(key) > 1]:
        raise Wrong("groups", f"names {some(twice)} twice; each parameter belongs to one group")
    if not set(grouped) & set(named):
        raise Wrong("groups", "names no parameter that can be trained; a variant without training has the setting "
                              "{'training.optimizer': 'none'}")


def _check_classes(trial: _Trial) -> None:
    images = _images(100, 5, trial.config.data.image_size)
    with torch.no_grad(), evaluating(trial.model):
        logits = trial.call("classify", trial.call("encode", images, Modality.SKETCH), Modality.SKETCH)
    if not isinstance(logits, Tensor) or logits.shape != (5, CLASSES):
        raise Wrong("classify", f"gave {_shown(logits)} for 5 features and {CLASSES} seen classes (ingredients.classes); it has "
                                f"to give logits [5, {CLASSES}]")
    if not logits.isfinite().all():
        raise Wrong("classify", "gave logits that are not finite; look for a division by zero or a logarithm of zero")


def _check_terms(found: Any, pairs: int) -> None:
    if not isinstance(found, LossTerms):
        raise Wrong("losses", f"gave {_shown(found)}; it has to give tcn.method.LossTerms(terms, weights)")
    if not isinstance(found.terms, dict) or not found.terms:
        raise Wrong("losses", "gave no terms; LossTerms takes a dictionary from names to tensors, one at least")
    if not isinstance(found.weights, dict) or set(found.weights) != set(found.terms):
        raise Wrong("losses", f"gave weights of {some(sorted(map(str, found.weights)))} for the terms "
                              f"{some(sorted(map(str, found.terms)))}; each term has one weight of the same name")
    for name, value in found.terms.items():
        if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]{0,39}", name) or name in TAKEN:
            raise Wrong("losses", f"the term's name {name!r:.60} can't be a column of the history; use letters in lower case, "
                                  f"digits and underscores, and none of {', '.join(sorted(TAKEN))}")
        if not isinstance(value, Tensor) or value.ndim > 1 or not value.numel() or not value.is_floating_point():
            raise Wrong("losses", f"the term '{name}' is {_shown(value)} for {pairs} pairs; it has to be a floating-point "
                                  "scalar, or a vector over samples")
        if not value.isfinite().all():
            raise Wrong("losses", f"the term '{name}' is not finite ({_odd(value)}) on a batch of {pairs} pairs in which "
                                  "classes stand alone; look for a mean of nothing, a division by zero or a logarithm of zero")
        weight = found.weights[name]
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise Wrong("losses", f"the weight of '{name}' is {weight!r:.60}; it has to be a finite number")
    if not found.total().requires_grad:
        raise Wrong("losses", "no term leads back to a parameter; compute them from what the model returns, without detach or "
                              "no_grad")


def _train(trial: _Trial, found: Checked | None = None) -> list[dict[str, float]]:
    """The mean of each term at each step. `found` gets notes and errors about gradients."""
    try:
        optimizer = loop.adam(trial.model, trial.config)
    except (TypeError, ValueError, AttributeError) as error:
        raise Wrong("groups", f"its parameters can't be optimised: {error}") from error
    means = []
    for step, batch in enumerate(trial.batches()):
        terms = trial.step(optimizer, batch, step)
        means.append({name: value.item() for name, value in terms.means().items()})
        if found is not None:
            named = [(name, p.grad) for name, p in trial.model.named_parameters() if p.requires_grad]
            if bad := [name for name, grad in named if grad is not None and not grad.isfinite().all()]:
                raise Wrong("losses", f"the gradient of {some(bad)} is not finite, though the losses are; look for a square "
                                      "root or norm at zero, or a masked infinity")
            if all(grad is None or not grad.any() for _, grad in named):
                raise Wrong("losses", "no parameter of the model gets a gradient; compute the terms from what the model returns")
            if step == 0 and (idle := [name for name, grad in named if grad is None]):
                found.notes.append(f"losses gives no gradient to {some(idle)}: as it should be where these serve another loss")
    if any(not value.isfinite().all() for value in trial.model.state_dict().values() if value.is_floating_point()):
        raise Wrong("losses", "after two steps the model holds values that are not finite; look at what losses changes in it")
    return means


def _check_checkpoint(trial: _Trial, found: Checked) -> None:
    fresh = _Trial(trial.variant, trial.config, 3)
    with fresh._guarded("load_state_dict"):
        fresh.model.load_state_dict(_copied(trial.model.state_dict()))
    images = _images(100, 5, trial.config.data.image_size)
    cure = "keep what training changes in parameters or in register_buffer(name, tensor), which a checkpoint holds"
    for modality in Modality:
        if not torch.equal(trial.features(images, modality), fresh.features(images, modality)):
            found.fault("encode", f"a model made anew and given the state_dict of the trained one encodes a {modality.value} "
                                  f"otherwise: its checkpoint would lose something; {cure}")
            return
    batch = trial.batches()[0]
    first, second = (one.losses(batch, len(LABELS)).means() for one in (trial, fresh))
    if other := [name for name in first if name not in second or not torch.equal(first[name], second[name])]:
        found.fault("losses", f"after a checkpoint the next step gives another {some(other)}: a resumed run would differ; "
                              f"{cure}")


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}" if value is not None else "nothing (None)"


def _odd(value: Tensor) -> str:
    return f"{value[~value.isfinite()].flatten()[0].item():g}" if value.ndim else f"{value.item():g}"


# --- files and connections that a method opens by itself -----------------------------------------------------------

_watched: list[set[str]] = []
"""Lists of the files opened since each `_reads` block began; empty outside such blocks."""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    if event == "socket.connect":
        _watched[-1].add(f"a connection to {arguments[1]!r:.60}")
    elif event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.fsdecode(arguments[0])
        if not path.startswith(("/dev/", "/proc/", "/sys/")) and not path.endswith(CODE) and os.path.isfile(path):
            _watched[-1].add(path)


_hooked: list[bool] = []


@contextlib.contextmanager
def _reads(function: str, endings: tuple[str, ...] = ("",)) -> Iterator[None]:
    """Raise Wrong if a file with one of these endings, or a connection, is opened in this block. A method must use only the
    data that it is given."""
    if not _hooked:  # an audit hook can't be removed
        sys.addaudithook(_audit)
        _hooked.append(True)
    _watched.append(set())
    try:
        yield
    finally:
        opened = _watched.pop()
    ours = (sys.prefix, sys.base_prefix, str(Path(torch.__file__).parent))
    if odd := sorted(name for name in opened if name.lower().endswith(endings) and not name.startswith(ours)):
        raise Wrong(function, f"opens {some(odd)}: it may look at images of unseen classes; use the batch and the ingredients, "
                              "which are of seen classes, and read weights in build")
