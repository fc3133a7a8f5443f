"""A call of run_all.py, looked at before it runs: its options read, its runs planned, what would stop them told at once.

In: the parsed command line. Out: `Prepared`, or an InputError with every reason (benchmarks/preflight.py). Nothing runs here.
"""
from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import experiments, preflight, provenance
from benchmarks.experiments import PlannedRun
from benchmarks.material import Material, Places
from benchmarks.resources import asks_gpus, wishes
from benchmarks.store import RunFolder, SuiteFolder
from benchmarks.threads import limit_threads
from tcn.config import BACKBONE, GENERALISED, LIBRARIES, InputError, change
from tcn.data import declared, locate, specs
from tcn.model import backbones
from tcn.train import parallel

ELSEWHERE = ("ray", "slurm")
"""Launchers whose runs are on other machines."""


@dataclass(frozen=True)
class Prepared:
    """A call that was looked at and may run."""

    profile: str
    runs: Sequence[PlannedRun]
    """Of a plan, with those of data sets that are not here."""
    missing: dict[str, str]
    folders: Sequence[RunFolder]
    """Of the runs that are here, in the order of the plan."""
    material: Material
    device: torch.device
    output: Path
    quick: bool
    blocks: Sequence[Sequence[PlannedRun]] = ()
    """The runs of `--everything`, as a budget keeps or cuts them; else empty."""


def prepare(options: argparse.Namespace) -> tuple[Prepared, preflight.Checks]:
    """What a call would run, and what was found against it: a plan is shown before its caller stops, else it is stopped here.
    InputError with all reasons; nothing is written but what had to be fetched."""
    root = data_root(options)
    if options.tolerance is not None:
        raise InputError("--tolerance belongs to --reproduce")
    _check_launcher(options)
    if options.everything:
        leave_out("--everything runs all variants with the seeds that their claims need", options, "variants", "seeds")
    elif options.budget:
        raise InputError("--budget belongs to --everything, whose order says what is cut first")
    datasets, own = _datasets(options)
    name = options.profile or default_profile(root, _device_of_runs(options), len(own) == len(datasets or "all"), options.sample)
    if options.threads:
        limit_threads(options.threads)
    overrides, checks = overrides_of(options.overrides), preflight.Checks()
    # Workers elsewhere may have a GPU where this process has none.
    device = checks.ask(lambda: device_named("cpu" if options.launcher in ELSEWHERE and not options.dry_run else options.device,
                                             here=options.launcher == "local" or options.dry_run))
    if device is not None and options.launcher not in ELSEWHERE:
        checks.ask(lambda: parallel.devices_of(device, options.gpus_per_run or 1))
    material = Material(places_of(options, root, checks))
    runs, blocks = _plan(options, name, root, datasets, own, overrides, material.places, checks)
    present, missing = _present(sorted({run.dataset for run in runs}), options.data_root, checks)
    if options.datasets and missing and not options.dry_run:
        checks.add("; ".join(f"missing: {dataset}: {reason}" for dataset, reason in missing.items())
                   + "; leave out of --datasets what is not there")
    here = [run for run in runs if run.dataset in present]
    # A plan costs what is not here too, by the published counts.
    runs = runs if options.dry_run else here
    blocks = [kept for block in blocks if (kept := [run for run in block if options.dry_run or run.dataset in present])]
    for dataset, reason in missing.items():
        print(f"missing: {dataset}: {reason}")
    output = options.output or provenance.ROOT / "results" / suite_name(name, options)
    checks.ask(lambda: SuiteFolder.check(output, name, options.quick, options.as_released))
    checks.ask(preflight.tracking_address)
    if not runs and not checks.reasons:
        raise InputError("none of the data sets asked for is present; see the lines above, or run --profile laptop")
    # Where something is wrong already, nothing is downloaded to find out more.
    known = None if options.launcher in ELSEWHERE and not options.dry_run else device
    folders = preflight.check_runs(checks, here, material, output, known, options.workers or 1,
                                   fetch=not options.dry_run and not checks.reasons, gpus=options.gpus_per_run or 1)
    if out := _rows_left_out(checks, here, options.everything):
        runs, here = ([run for run in some if run.name not in out] for some in (runs, here))
        folders = [folder for folder in folders if folder.run.name not in out]
        blocks = [kept for block in blocks if (kept := [run for run in block if run.name not in out])]
    # A plan is shown all the same where single runs lack something.
    if not options.dry_run or any(stopped is None for stopped in checks.reasons.values()):
        checks.stop(here)
    assert device is not None  # else that was a reason to stop
    return Prepared(name, runs, missing, folders, material, device, output, options.quick, blocks), checks


def _plan(options: argparse.Namespace, name: str, root: Path | None, datasets: Sequence[str] | None,
          own: Sequence[specs.DatasetSpec], overrides: dict[str, Any], places: Places, checks: preflight.Checks
          ) -> tuple[list[PlannedRun], list[list[PlannedRun]]]:
    """The runs that a call asks for, and the blocks of `--everything`,
    each run with the weights that were given for its encoder."""
    for key, file in (("weights", places.weights), ("teacher_weights", places.teacher_weights or places.weights)):
        overrides[f"network.{key}"] = checks.ask(lambda: backbones.weights_setting(file)) or "imagenet"
    profile = experiments.PROFILES[name]
    parts = _parts(options, root, profile, own)
    profile = profile.with_own(own)
    blocks = experiments.plan_everything(profile, datasets, overrides, options.quick, options.as_released, parts
                                         ) if options.everything else []
    runs = [run for block in blocks for run in block] or experiments.plan(
        profile, datasets, options.variants, options.seeds, overrides, options.quick, options.as_released, parts)
    for key, names in experiments.held_by_variants(runs, overrides).items():
        print(f"note: {key}={overrides[key]} leaves {', '.join(names)} as {'it is' if len(names) == 1 else 'they are'}")
    used = {run.config.network.backbone for run in runs}
    for backbone in (value.partition("=")[0] for value in options.weights or () if "=" in value):
        if backbone in dict(places.named_weights) and backbone not in used:
            checks.add(f"--weights {backbone}=FILE is of an encoder that no run uses; the runs use {', '.join(sorted(used))} "
                       "(setting network.backbone)")
    given = {backbone: checks.ask(lambda: backbones.weights_setting(file)) or "imagenet"
             for backbone, file in places.named_weights if backbone in used}
    of_file = ("network.weights",) if places.teacher_weights else ("network.weights", "network.teacher_weights")
    runs, *blocks = ([_with_weights(run, given, of_file) for run in some] for some in (runs, *blocks))
    return runs, blocks


def _with_weights(run: PlannedRun, given: Mapping[str, str], keys: Sequence[str]) -> PlannedRun:
    """The same run with the weights that were given for its encoder by name, in the settings `keys`."""
    setting = given.get(run.config.network.backbone)
    return replace(run, config=change(run.config, dict.fromkeys(keys, setting))) if setting else run


def _rows_left_out(checks: preflight.Checks, runs: Sequence[PlannedRun], everything: bool) -> set[str]:
    """Names of the runs that reasons of their rows alone stop, while the rest of the call runs without them: of `everything` any,
    such as one for which word vectors are missing; else those of optional variants. Their reasons are said here, and stop nothing
    any more."""
    left: dict[str, Sequence[PlannedRun]] = {}
    for reason, stopped in checks.reasons.items():
        rows = {run.variant for run in stopped or ()}
        alone = all(any(run.task == one.task and run.variant not in rows for run in runs) for one in stopped or ())
        if stopped and alone and (everything or all(run.definition.optional for run in stopped)):
            left[reason] = stopped
    out = {run.name for stopped in left.values() for run in stopped}
    if out >= {run.name for run in runs}:
        return set()
    for reason, its in left.items():
        print(f"left out, and not measured: {', '.join(sorted({run.variant for run in its}))}: {reason}")
        del checks.reasons[reason]
    return out


def _datasets(options: argparse.Namespace) -> tuple[list[str] | None, list[specs.DatasetSpec]]:
    """The names of the data sets asked for (None: all of the profile), and those that are the user's own,
    whose files are read here."""
    datasets = declared.all_named(options.datasets) if options.datasets else None
    own = specs.own(datasets or ())
    if own and options.sample:
        raise InputError(f"--sample takes parts of built-in data sets; write sample: {options.sample} into the file "
                         f"that declares '{own[0].name}', or leave it out")
    return datasets, own


def suite_name(profile: str, options: argparse.Namespace) -> str:
    """Name of a call's folder below `results` where `--output` does not say another."""
    return (profile + (f"-first{options.sample}" if options.sample else "") + ("-as-released" if options.as_released else "")
            + ("-smoke" if options.quick else ""))


def _device_of_runs(options: argparse.Namespace) -> str:
    """The device asked for. Of SLURM's jobs, which may have a GPU where this machine has none, by what they ask for."""
    queued = options.launcher == "slurm" and options.device == "auto" and asks_gpus(wishes(options.slurm or ""))
    return "cuda" if queued else str(options.device)


def default_profile(root: Path | None, device: str, own: bool = False, sample: int | None = None) -> str:
    """The profile that runs where none was named, said in one line: `paper` needs a GPU, `sample` a data root that holds Sketchy.
    own: whether all data sets asked for are the user's own; sample: the size of sample asked for, if any."""
    on_gpu = device.startswith("cuda") or device == "auto" and torch.cuda.is_available()
    if own and not on_gpu:
        print("a data set of your own and no GPU: running it with the settings of the sample profile (--profile paper "
              "takes Sketchy's)")
    if own:
        return "paper" if on_gpu else "sample"
    if root is None:
        print("no data root (--data-root or $TCN_DATA): running the laptop profile on the emoji drawings")
        return "laptop"
    if on_gpu or not _is_there("sketchy-original", root):
        return "paper"
    number = sample or experiments.PROFILES["sample"].sample
    print(f"a data root with Sketchy and no GPU: running the sample profile, on the first {number} sketches and photos of each "
          "class (--profile paper takes everything)")
    return "sample"


def _is_there(dataset: str, root: Path | None) -> bool:
    try:
        return root is not None and bool(locate.available(root, [dataset])[0])
    except InputError:  # said where the data are read
        return False


def _parts(options: argparse.Namespace, root: Path | None, profile: experiments.Profile, own: Sequence[specs.DatasetSpec]
           ) -> dict[str, str]:
    """Data set -> the part or form of it that is used in its place."""
    parts = experiments.part_names(profile, options.sample) or _without_extension(root, profile)
    if options.generalised:
        names = [*(dataset for dataset, _ in profile.base), *(found.name for found in own)]
        parts = {name: parts.get(name, name) + GENERALISED for name in names}
    return parts


def _without_extension(root: Path | None, profile: experiments.Profile) -> dict[str, str]:
    """Data sets of a profile of which only the original photos are there -> the name of that part, said in one line."""
    found: dict[str, str] = {}
    if root is None or not root.expanduser().is_dir():  # said where the data are read
        return found
    for dataset in dict.fromkeys(dataset for dataset, _ in profile.base):
        if part := locate.part_there(dataset, root):
            spec = specs.spec(dataset)[0]
            print(f"note: {', '.join(spec.extension)} is not there: {spec.title} runs "
                  f"as '{part}', which is what its folders hold; its numbers are not comparable with published ones")
            found[dataset] = part
    return found


def _present(names: Sequence[str], root: Path | None, checks: preflight.Checks) -> tuple[list[str], dict[str, str]]:
    """Data sets that can be loaded here, and for each other one why not; a `root` that is no folder was named before."""
    present = [name for name in names if specs.spec(name)[0].builder]
    others = [name for name in names if name not in present]
    if not others or (root and not root.expanduser().is_dir()):
        return present, {}
    found, missing = checks.ask(lambda: locate.available(root, others)) or ([], {})
    return present + found, missing


def data_root(options: argparse.Namespace) -> Path | None:
    """Where the paper's data sets are, by the option or the environment."""
    return options.data_root or (Path(os.environ["TCN_DATA"]) if os.environ.get("TCN_DATA") else None)


def leave_out(why: str, options: argparse.Namespace, *names: str) -> None:
    """InputError for options that were given and would do nothing."""
    given = [f"--{name.replace('_', '-')}".replace("--overrides", "--set") for name in names
             if getattr(options, name) not in (None, False, [], "local", "auto")]
    if given:
        raise InputError(f"{why}; leave out {', '.join(given)}")


def keep_only(why: str, options: argparse.Namespace, *used: str) -> None:
    """The same for an action that reads the options `used` alone: whatever else was given is named."""
    leave_out(why, options, *(name for name in vars(options) if name not in used))


def _check_launcher(options: argparse.Namespace) -> None:
    if options.launcher == "local":
        given = [f"--{name.replace('_', '-')}" for name in ("workers", "runs_per_gpu", "cpus_per_run")
                 if getattr(options, name)]
        if given:
            raise InputError(f"{', '.join(given)} belong{'s' if len(given) == 1 else ''} to --launcher processes or ray")
    if options.ray_address and options.launcher != "ray":
        raise InputError("--ray-address belongs to --launcher ray")
    if options.calibrate and not options.dry_run:
        raise InputError("--calibrate belongs to --dry-run")
    if options.slurm and options.launcher != "slurm":
        raise InputError("--slurm belongs to --launcher slurm")
    if options.launcher == "slurm" and (options.runs_per_gpu or options.cpus_per_run):
        raise InputError("--launcher slurm takes what a run gets from --slurm: gpus=N,cpus=N; leave out --runs-per-gpu and "
                         "--cpus-per-run")
    if options.runs_per_gpu and (options.gpus_per_run or 1) > 1:
        raise InputError("--runs-per-gpu and --gpus-per-run do not go together; leave one out")
    if options.budget and options.launcher in ELSEWHERE:
        raise InputError("--budget needs runs that run on this machine, whose speed it measures; leave it out with --launcher "
                         f"{options.launcher}")


def device_named(name: str, here: bool = True) -> torch.device:
    """The device called so, `auto` for the first GPU or the CPU. InputError where it can't be used.

    here: whether this process computes on it. Else GPUs are only counted: a context on one takes hundreds of MB of its memory.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and not here:
            if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
                raise RuntimeError(f"{torch.cuda.device_count()} GPUs are visible")
        else:
            torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise InputError(f"--device {name} can't be used here ({reason}); try --device cpu") from error
    return device


def overrides_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings by their dotted keys, from KEY=VALUE as the command line takes them. InputError where one can't be read."""
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for pair in pairs:
        key, found, text = pair.partition("=")
        if not found:
            raise InputError(f"--set takes KEY=VALUE, got '{pair}'")
        if given.setdefault(key, pair) != pair:
            raise InputError(f"--set gives '{key}' two values, {given[key]} and {pair}; leave one of them out")
        if key in ("seed", "method", "method_source", "data.dataset", "data.declared", "data.split", "network.weights",
                   "network.teacher_weights"):
            raise InputError(f"--set can't change '{key}'; use --seeds, --variants, --datasets, --weights or --teacher-weights")
        # YAML reads 1e-4 as text; a float is what was meant.
        try:
            values[key] = yaml.safe_load(text)
            if isinstance(values[key], str):
                values[key] = float(text)
        except ValueError:
            pass
        except yaml.YAMLError as error:
            raise InputError(f"--set {key}: '{text}' can't be read as a value") from error
    return values


def add_places(p: argparse.ArgumentParser) -> None:
    """Options of the commands that reopen runs: the device, and where data, words and weights are (`places_of` reads them)."""
    p.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto, the first GPU or the CPU)")
    p.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    for name, text in (("data-root", "where the data sets are (default: $TCN_DATA)"),
                       ("cache", "decoded images (default: $TCN_CACHE, else .cache in the project)"),
                       ("words", "word vectors, as for the runs"), ("teacher-weights", "those of the teacher, as for the runs")):
        p.add_argument(f"--{name}", type=Path, help=text)
    p.add_argument("--weights", action="append", metavar="FILE|NAME=FILE|DIR", help="weights of the encoders, as for the runs; "
                                                                                    "once for each")
    p.add_argument("--lists", default="auto", metavar="DIR|none", help="list files, as for the runs")
    p.add_argument("--datasets", nargs="+", metavar="FILE", help="YAML files that declare data sets of your own, as for the runs")
    p.set_defaults(emoji_tarballs=None)


def places_of(options: argparse.Namespace, root: Path | None, checks: preflight.Checks) -> Places:
    """Where things are, by the options; what is not there is added to `checks`."""
    cache = options.cache or Path(os.environ.get("TCN_CACHE") or provenance.ROOT / ".cache")
    # Also where these runs won't need it: a mistyped place must not pass for one that was looked at.
    for option, there in (("words", Path.is_file), ("emoji_tarballs", Path.is_dir), ("data_root", Path.is_dir)):
        path = getattr(options, option)
        if path is not None and not there(path.expanduser()):
            what = "does not exist" if not path.exists() else "is a folder" if there is Path.is_file else "is no folder"
            checks.add(f"--{option.replace('_', '-')} {path} {what}; check the path")
    lists = None if options.lists == "none" else options.lists
    if lists not in (None, "auto") and not Path(lists).expanduser().is_dir():
        checks.add(f"--lists {lists} is not a folder; pass a folder of list files, or 'none'")
        lists = "auto"  # else each split would say it again
    default, named = checks.ask(lambda: weights_given(options.weights)) or (None, {})
    return Places(cache.expanduser().resolve(), root, options.words, default, options.teacher_weights,
                  options.emoji_tarballs, lists if lists in (None, "auto") else Path(lists),
                  declared=tuple(Path(name).expanduser().resolve() for name in options.datasets or () if declared.is_file(name)),
                  named_weights=tuple(named.items()))


SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""Of files of weights in a folder."""


def weights_given(values: Sequence[str] | None) -> tuple[Path | None, dict[str, Path]]:
    """The file for all encoders, and files by the encoder's name, from what --weights takes: FILE, NAME=FILE ..., or folders
    whose files are called as the encoders are (`:` is no part of such a name: `vit_base_patch16_clip_224.openai.safetensors`
    serves `timm:vit_base_patch16_clip_224.openai`). InputError for a name that is no encoder's, two files of one encoder, or a
    file without a name beside others."""
    default: Path | None = None
    named: dict[str, Path] = {}
    for value in values or ():
        name, found, text = value.partition("=")
        if found and re.fullmatch(BACKBONE, name):
            pairs = {name: Path(text).expanduser()}
        elif (path := Path(value).expanduser()).is_dir():
            pairs = _in_folder(path)
        elif default is not None or (found or len(values or ()) > 1) and not path.is_file():
            raise InputError(f"--weights {value} is neither a file nor NAME=FILE with the name of an encoder, such as "
                             "timm:vit_small_patch16_224=FILE; of several files, each needs the name of its encoder")
        else:
            default, pairs = path, {}
        for key, file in pairs.items():
            if named.setdefault(key, file) != file:
                raise InputError(f"--weights gives two files for {key}: {named[key]} and {file}; give one")
    return default, named


def _in_folder(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES):
        for name in (file.stem, *(f"{library}:{file.stem}" for library in LIBRARIES)):
            if re.fullmatch(BACKBONE, name) and found.setdefault(name, file) != file:
                raise InputError(f"--weights {folder} holds two files of {name}: {found[name].name} and {file.name}; keep one")
    if not found:
        raise InputError(f"--weights {folder} holds no file called as an encoder is, with one of the endings "
                         f"{', '.join(SUFFIXES)}")
    return found
