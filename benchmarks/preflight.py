"""Check a plan before its first run: whatever would stop it is reported at once, each reason with its cure.

In: the planned runs, where things are, the device. Out: nothing, or an InputError with every reason; warnings about memory and
disk space that may run short. Nothing is trained or decoded here. What the runs need and must be downloaded (drawings, published
weights) is downloaded now.
"""
from __future__ import annotations

import copy
import importlib.metadata
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil
import torch

from benchmarks import counts
from benchmarks.experiments import PlannedRun
from benchmarks.material import Material, Places, made_model, reads_teacher, uses_words
from benchmarks.runner import lacks_ledger
from benchmarks.store import RunFolder
from tcn.config import BUILT_IN, GENERALISED, Config, InputError, change
from tcn.data.decode import Reading
from tcn.data.packing import asked_form
from tcn.data.store import Store, check_limit, store_of
from tcn.files.atomic import amount, existing_parent, warn, writable
from tcn.model import backbones
from tcn.model.execution import check_precision
from tcn.scoring.features import check_components
from tcn.train import parallel
from tcn.train.method import Ingredients

Found = TypeVar("Found")
TRACKING = ("http", "https", "file", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc", "uc")
"""Kinds of addresses (URI schemes) that MLflow accepts for its store; its plugins add further ones."""
STATE_COPIES = 4
"""Copies of the trained parameters in memory during training: the parameters, their gradients, and Adam's two averages."""


class Checks:
    """Collects the reasons why the command can't run, until `stop` raises them together."""

    def __init__(self) -> None:
        self.reasons: dict[str, list[PlannedRun] | None] = {}
        """Reason -> the runs that it stops, or None for all of them."""

    def ask(self, work: Callable[[], Found], runs: Sequence[PlannedRun] | None = None) -> Found | None:
        """What `work` returns. Where it raises InputError, its message is kept as a reason that stops `runs`; returns None
        then."""
        try:
            return work()
        except InputError as error:
            self.add(str(error), runs)
            return None

    def add(self, reason: str, runs: Sequence[PlannedRun] | None = None) -> None:
        """Keep a reason. A reason that is added again is reported once, with the runs of both."""
        known = self.reasons.setdefault(reason, None if runs is None else [])
        if known is not None:
            known += [run for run in runs or () if run not in known]

    def stop(self, runs: Sequence[PlannedRun] = ()) -> None:
        """Raise InputError with all reasons, if there are any. `runs`: all runs of the plan, so that the message can say how to
        run those that nothing stops."""
        told = [reason + _leave_out(stopped, runs) for reason, stopped in self.reasons.items()]
        if len(told) == 1:
            raise InputError(told[0])
        if told:
            raise InputError(f"{len(told)} reasons, and nothing was run:\n" + "\n".join(f"  - {text}" for text in told))


def _leave_out(stopped: Sequence[PlannedRun] | None, runs: Sequence[PlannedRun]) -> str:
    """A text that says how many runs a reason stops, and by which option the others run without them; empty where it stops
    all."""
    if stopped is None or len(stopped) >= len(runs):
        return ""
    told = f". It stops {len(stopped)} of {len(runs)} runs, and with them the call"
    ways = []
    for option, name in (("--datasets", "dataset"), ("--datasets", "task"), ("--variants", "variant")):
        bad = {getattr(run, name) for run in stopped}
        rest = [one for one in dict.fromkeys(getattr(run, name) for run in runs) if one not in bad]
        lost = sum(getattr(run, name) in bad for run in runs)
        if rest:
            ways.append((lost, f"; without {', '.join(sorted(bad))}: {option} {' '.join(rest)}"))
    # Name the option that leaves out the fewest runs.
    return told + min(ways, key=lambda way: way[0])[1] if ways else told


def tracking_address() -> None:
    """Raise InputError where $MLFLOW_TRACKING_URI is no address that MLflow understands. Whether its server answers is not tested
    here, since a server that does not answer costs no result."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address:
        return
    kinds = {*TRACKING, *(entry.name for entry in importlib.metadata.entry_points(group="mlflow.tracking_store"))}
    kind, found, rest = address.partition("://")
    name = kind.partition("+")[0].lower()
    hint = "give http://HOST:PORT or sqlite:////PATH/mlflow.db, or unset it for a store in the output folder"
    if not found:
        if address in kinds or address.startswith((".", "/")) or (name not in kinds and not re.match(r"[\w.-]+:", address)):
            return  # databricks, or a folder
        if not address.lower().startswith("file:"):
            raise InputError(f"$MLFLOW_TRACKING_URI is '{address}', which has no kind such as http://; {hint}")
        return
    if name not in kinds:
        raise InputError(f"$MLFLOW_TRACKING_URI is '{address}', of the kind '{kind}', which MLflow does not know; {hint}")
    if name in ("http", "https"):
        try:
            parts = urlsplit(address)
            good = bool(parts.hostname) and (parts.port is None or parts.port > 0) and not re.search(r"\s", rest)
        except ValueError:
            good = False
        if not good:
            raise InputError(f"$MLFLOW_TRACKING_URI is '{address}', which names no host, or a port that is no number from 1 to "
                             f"65535; {hint}")


def check_runs(checks: Checks, runs: Sequence[PlannedRun], material: Material, output: Path, device: torch.device | None,
                workers: int = 1, fetch: bool = True, gpus: int = 1) -> list[RunFolder]:
    """Add to `checks` whatever stops one of these runs; returns the folders of the runs whose data and words are there.

    Checked are the list files and folders of every split; the word vectors of the seen classes, and those of ImageNet's classes
    where a method compares them; and the image cache and the space it needs. For runs that are not finished, the weights of
    encoder and teacher are read, and the model is built from them. `device`: None where it is not known here. `fetch`: False for
    --dry-run, which downloads nothing. `gpus`: of each run; whether a method, its settings and its model can be trained on
    several is checked too.
    """
    folders, to_do, known = [], [], set()
    for run in runs:
        if not fetch and not material.is_built(run.dataset):
            continue
        same_split = [one for one in runs if one.task == run.task]
        if checks.ask(lambda: material.split_of(run.config), same_split) is None:
            continue
        identity = checks.ask(lambda: material.identity(run.config), [run])
        if identity is not None:
            folders.append(RunFolder(output, run, identity))
            known.add(run.name)
        if identity is None or folders[-1].state != "finished" or lacks_ledger(folders[-1]):
            to_do.append(run)
            for check in counts.CHECKS:
                checks.ask(lambda: check(run.config, material.split_of(run.config)), [run])
    _words([run for run in runs if run.name in known], material)
    _images(checks, to_do, material)
    sizes = _models(checks, to_do, known, material, device, fetch, gpus)
    if sizes:
        _memory(max(sizes.values()), workers, device)
        _results(sum(sizes.values()), output)
    return folders


def _words(runs: Sequence[PlannedRun], material: Material) -> None:
    """Print which seen classes share a word vector, once for each split."""
    for note in {f"note: {run.dataset}, split {run.split}: {note}": None for run in runs
                 if uses_words(run.config) and (note := material.words(run.config).note)}:
        warn(note)


def _images(checks: Checks, runs: Sequence[PlannedRun], material: Material) -> None:
    """Check that the missing pictures fit into the image cache: a reason to stop where the smallest would not, a warning where
    coloured ones may not."""
    cache, least, most = material.places.cache, 0, 0
    known = len(checks.reasons)
    checks.ask(asked_form)
    if len(checks.reasons) > known:
        return
    stores: dict[Path, tuple[Store, set[str]]] = {}
    # The lists hold hundreds of thousands of files, so each is read once and not for every run.
    for dataset, name, size, *reading in {(run.dataset, run.split, run.config.data.stored_size, run.config.data.transparent,
                                           run.config.data.exif): None for run in runs}:
        split = material.split(dataset, name)
        store = store_of(split.data_digest, size, cache, dataset.removesuffix(GENERALISED), split.images)
        wanted = stores.setdefault(store.folder, (store, set()))[1]
        mark = Reading(*reading).mark
        for files in split.lists().values():
            wanted.update(path + mark for path in files.paths)
    for store, wanted in stores.values():
        try:
            there = set(store.index())
        except OSError:
            there = set()
        missing = wanted - there
        # After a zero byte, a name ends in how the picture is read. A picture that is the same in two readings is stored once.
        least += len({path.partition("\0")[0] for path in missing} - {path.partition("\0")[0] for path in there}
                     ) * store.form.least(store.size)
        most += len(missing) * store.form.most(store.size)
    if most:
        checks.ask(lambda: writable(cache, "the image cache", "--cache"))
    if not most or len(checks.reasons) > known:
        return
    checks.ask(lambda: check_limit(cache / "pixels", least, "these runs"))
    free = shutil.disk_usage(existing_parent(cache)).free
    if least > free:
        checks.add(f"no room for the image cache in {cache}: these runs need {amount(least)} at the least, "
                   f"{amount(free)} are free; free some space or pass another --cache")
    elif most > free:
        warn(f"warning: the image cache in {cache} may need up to {amount(most)}, {amount(free)} are free")


class _Networks:
    """Encoders and teachers of the runs, each file of weights read once."""

    def __init__(self, checks: Checks, runs: Sequence[PlannedRun], places: Places, fetch: bool) -> None:
        self.checks, self.runs, self.places, self.fetch = checks, runs, places, fetch
        self._read: dict[tuple[Any, ...], Any] = {}

    def of(self, run: PlannedRun) -> tuple[backbones.Backbone, tuple[backbones.Backbone, backbones.Classifier]] | None:
        """The encoder of a run, and its teacher; None where there is a reason against it,
        or where it would have to be fetched."""
        net, teaches, size = run.config.network, reads_teacher(run.config), run.config.data.image_size
        if self._once(_takes_size, lambda one: one.config.data.image_size == size, net.backbone, size) is None:
            return None
        needed = (net.weights, net.teacher_weights) if teaches else (net.weights,)
        if not self.fetch and "imagenet" in needed and (address := backbones.to_fetch(net.backbone)):
            if not self.checks.reasons:
                warn(f"note: {address} is not here yet; a run fetches it first")
            return None
        own, theirs = self.places.encoder_file(net.backbone), self.places.teacher_file(net.backbone)
        if not teaches:
            encoder = self._once(backbones.encoder, lambda one: True, net.backbone, net.weights, own)
            return (encoder, backbones.without_teacher(encoder)) if encoder else None
        teacher = self._once(backbones.build, lambda one: reads_teacher(one.config), net.backbone, net.teacher_weights, theirs)
        if (net.weights, own) == (net.teacher_weights, theirs):
            encoder = teacher and teacher[0]
        else:
            encoder = self._once(backbones.encoder, lambda one: True, net.backbone, net.weights, own)
        return (encoder, teacher) if encoder and teacher else None

    def _once(self, reader: Callable[..., Found], concerns: Callable[[PlannedRun], bool], backbone: str,
              *key: Any) -> Found | None:
        """What a reader gives, asked once; a reason against it stops the runs of that backbone that it concerns."""
        if (reader, backbone, *key) not in self._read:
            stopped = [one for one in self.runs if one.config.network.backbone == backbone and concerns(one)]
            self._read[reader, backbone, *key] = self.checks.ask(lambda: reader(backbone, *key), stopped)
        found: Found | None = self._read[reader, backbone, *key]
        return found


def _takes_size(backbone: str, size: int) -> bool:
    backbones.check_size(backbone, size)
    return True


def _models(checks: Checks, runs: Sequence[PlannedRun], known: set[str], material: Material, device: torch.device | None,
            fetch: bool, gpus: int) -> dict[str, int]:
    """Read every file of weights once, and build each different model from it. Only runs that are in `known` have the words that
    their model needs. Returns the bytes of each run's parameters by the run's name."""
    networks, built, sizes = _Networks(checks, runs, material.places, fetch), {}, {}
    for run in runs:
        if gpus > 1 and run.trained:
            checks.ask(lambda: parallel.check(run.config, run.definition.method, gpus), [run])
        found = networks.of(run)
        if found is None or run.name not in known:
            continue
        encoder, teacher = found
        # What the data are and the seed don't change how a model is built, but for the number of classes.
        seen = material.split_of(run.config).seen
        config = change(run.config, {"seed": 0})
        key = run.variant, len(seen), repr(config.network), repr(config.coupling), repr(config.losses), repr(config.execution)
        if key not in built:
            # A model changes what it is built from, so it gets copies.
            built[key] = checks.ask(lambda: _parameter_bytes(run, config, material, copy.deepcopy(encoder),
                                                             copy.deepcopy(teacher), device, gpus),
                                    [one for one in runs if one.variant == run.variant])
        if (size := built[key]) is not None:
            sizes[run.name] = size
    return sizes


def _parameter_bytes(run: PlannedRun, config: Config, material: Material, encoder: backbones.Backbone,
                     teacher: tuple[backbones.Backbone, backbones.Classifier], device: torch.device | None, gpus: int) -> int:
    net, scored = config.network, config.evaluation
    if scored.statistics == "pca" and scored.features == "backbone" and config.method_source == BUILT_IN:
        check_components(net.dim, teacher[1].weight.shape[1], f"features of {net.backbone}")
    words, further = material.word_tensors(config)
    if net.dim <= min(teacher[1].weight.shape):
        config = change(config, {"network.start": "random"})  # the SVD takes longest, and fails for no other reason
    ingredients = Ingredients(encoder, *teacher, words, len(material.split_of(run.config).seen), further)
    with torch.random.fork_rng(devices=[]):
        # Nothing is moved to a GPU: where workers compute, none of its memory is this process's.
        model = made_model(run.definition.method, config, ingredients)
    if gpus > 1 and run.trained and run.definition.method.parallel:
        parallel.check_model(model, config.network.batch_norm_split == 1)
    if device is not None:  # workers elsewhere check it themselves
        check_precision(config.execution, device)
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _memory(most: int, workers: int, device: torch.device | None) -> None:
    """Warn where the parameters of all simultaneous runs, with what training adds to them, may not fit into memory."""
    if device is None:
        return
    gpu = device.type == "cuda"
    total = torch.cuda.get_device_properties(device).total_memory if gpu else psutil.virtual_memory().total
    needed = STATE_COPIES * most * (1 if gpu else workers)
    if needed > total:
        warn(f"warning: {1 if gpu else workers} run(s) at once need {amount(needed)} for parameters and their training "
                 f"alone, {'the GPU' if gpu else 'this machine'} has {amount(total)}; pass a smaller --workers")


def _results(parameters: int, output: Path) -> None:
    free = shutil.disk_usage(existing_parent(output)).free
    if parameters > free:
        warn(f"warning: checkpoints of these runs take about {amount(parameters)}, {amount(free)} are free at "
                 f"{output}")
