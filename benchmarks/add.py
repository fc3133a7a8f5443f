"""Add features made elsewhere as a row of a results folder: scored by the same code as every run, and marked as brought along.

In: an .npz file of features of a split's queries and photos, with class names, and a results folder (an earlier --output, or a
new one). Out: a run's folder in it, its run in MLflow, and a new report. A file is refused if its classes, or the numbers of
sketches and photos of each class, are not those of the split. Nothing is trained. Whether the features were made without the
unseen classes can't be checked here; only their author knows.
"""
from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import provenance
from benchmarks.experiments import PROFILES, PlannedRun
from benchmarks.extraction import RunFeatures, SetFeatures
from benchmarks.mirror import Mirror
from benchmarks.records import write_json
from benchmarks.run_artifacts import write_numbers
from benchmarks.scoring import score_run
from benchmarks.store import RunFolder, SuiteFolder
from tcn.cli.ending import ending
from tcn.cli.evaluate import labels_of
from tcn.cli.feature_files import check_groups, distance, noted, read_arrays, unit_length
from tcn.config import Config, InputError, Modality, change, identity
from tcn.data import declared, known_splits
from tcn.data.specs import SPECS, Plan, read_plan, spec
from tcn.data.splits import Files
from tcn.files.checksums import file_digest

BROUGHT = "brought-"
"""Prefix of the variant's name of such a row, so that tables can mark it (reports/naming.py)."""
NAME = re.compile(r"[A-Za-z0-9](?:(?!__)[\w.+-]){0,59}", re.ASCII)
EXTRA = {"query_paths": "query", "gallery_paths": "gallery", "query_sources": "query"}
"""Optional arrays of names that are kept -> the side that they belong to. `tcn compare` matches queries by their paths."""
EPILOG = """\
the file
  As for `python -m tcn evaluate`, with names of classes as labels: query, gallery, query_labels, gallery_labels. Optional:
  gallery_group (one value for entries that are one photo), query_instance and gallery_instance, and train (features of seen
  classes, on which the 64-bit codes are fitted; without it there are no codes). Also kept: query_paths and gallery_paths, names
  of the pictures.

examples
  tcn add dino.npz --name dinov2-s14 --dataset sketchy --split 1 --output results/paper
  tcn add mine-seed3.npz --name mine --seed 3 --dataset tuberlin --output results/paper

exit status: 0 added, or present already; 1 added, but the report could not be rendered; 2 refused, or bad usage.
"""


def read_features(path: Path, plan: Plan, name: str) -> tuple[RunFeatures, SetFeatures]:
    """The features of a file in the form of a run's. InputError naming what does not fit the split, or the array that can't be
    used."""
    arrays, others = read_arrays(path)
    try:
        query_labels, gallery_labels = labels_of(arrays)
        found = known_splits.check(plan.dataset, plan.split, query_labels, gallery_labels)
        if found.problems:
            raise InputError(f"{found.text()}; numbers of another split can't stand in its tables, so '{name}' is not added")
        if distance(arrays, None) != "euclidean":
            raise InputError("codes can't be added, only real-valued features; their codes are made here from the array train, "
                             "and codes of your own are scored by `python -m tcn evaluate`")
        if "gallery_group" in arrays:
            check_groups(arrays)
        # Checks that each array has two dimensions, and that no row holds NaN or is a zero vector.
        sizes = {side: unit_length(side, arrays[side]).shape[1] for side in ("query", "gallery", "train") if side in arrays}
        if len(set(sizes.values())) > 1:
            raise InputError("rows of different lengths: " + ", ".join(f"{side} {size}" for side, size in sizes.items()))
        extra = _names(path, {side: len(arrays[side]) for side in ("query", "gallery")})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    noted(path, arrays, [each for each in others if each not in EXTRA])
    place = {each: at for at, each in enumerate(_classes(plan))}

    def files(side: str, labels: np.ndarray) -> Files:
        forms, index = np.unique(labels, return_inverse=True)
        own = np.array([place[str(plan.class_of(form))] for form in forms.tolist()], dtype=np.int64)[index]
        instances = tuple(map(str, arrays.get(f"{side}_instance", ())))
        paths = extra.get(f"{side}_paths") or tuple(f"{side}-{row}" for row in range(len(labels)))
        return Files(Path(), paths, own, extra.get(f"{side}_sources") or ("",) * len(labels),
                     tuple(map(str, arrays["gallery_group"])) if side == "gallery" and "gallery_group" in arrays else (),
                     instances)

    unseen = SetFeatures(arrays["query"].astype(np.float32), arrays["gallery"].astype(np.float32), files("query", query_labels),
                         files("gallery", gallery_labels))
    seen = {Modality.PHOTO: arrays["train"].astype(np.float32)} if "train" in arrays else {}
    return RunFeatures(seen, unseen), unseen


def _classes(plan: Plan) -> tuple[str, ...]:
    return plan.of("seen") + plan.of("validation") + plan.of("unseen")


def _names(path: Path, rows: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Those arrays of EXTRA that the file has."""
    found: dict[str, tuple[str, ...]] = {}
    with np.load(path, allow_pickle=False) as store:
        for name, side in EXTRA.items():
            if name in store.files:
                array = store[name]
                if array.dtype.kind != "U" or array.shape != (rows[side],):
                    raise InputError(f"{name} is {array.dtype} {array.shape}; it holds one name for each of {rows[side]} rows "
                                     f"of {side}")
                found[name] = tuple(array.tolist())
    return found


def settings_of(plan: Plan, seed: int, codes: bool) -> Config:
    """The settings of a row that is only scored: those of the split; all others keep their defaults and have no effect."""
    return change(Config(), {"data.dataset": plan.dataset, "data.declared": spec(plan.dataset)[0].declared,
                             "data.split": plan.split, "training.optimizer": "none",
                             "training.epochs": 0, "evaluation.features": "backbone",
                             "evaluation.binary": codes, "seed": seed})


def suite_for(output: Path, plan: Plan) -> SuiteFolder:
    """The results folder, made if it does not exist. InputError if its runs are of other data sets."""
    profile = "sample" if plan.dataset not in SPECS else next(
        p.name for p in PROFILES.values() if not p.sample and (plan.dataset, plan.split) in p.base)
    if not (output / "suite.json").exists():
        return SuiteFolder(output, profile, False)
    suite = SuiteFolder.open(output)
    tasks = {(entry.get("dataset"), entry.get("split")) for entry in suite.head()["runs"]}
    if suite.profile != profile and (plan.dataset, plan.split) not in tasks:
        raise InputError(f"{output} holds runs of profile '{suite.profile}', none of {plan.dataset}/{plan.split}; pass another "
                         "--output")
    return suite


def add(path: Path, name: str, plan: Plan, seed: int, output: Path, command: str) -> tuple[RunFolder, SuiteFolder, bool]:
    """Score a file and write its run's folder. The last value returned says whether it was written (True) or existed already.
    InputError says what does not fit."""
    started, began = time.perf_counter(), provenance.now()
    features, unseen = read_features(path, plan, name)
    digest = file_digest(path)
    config = settings_of(plan, seed, bool(features.seen))
    suite = suite_for(output, plan)
    # The name is part of the digest, since one file may be added under two names.
    folder = RunFolder(output, PlannedRun(plan.dataset, plan.split, BROUGHT + name, config),
                        identity(config, digest, "brought along", name))
    others = [other for other in folder.path.parent.glob(f"{folder.run.name}__*") if other.name != folder.path.name]
    if others:
        raise InputError(f"'{name}', seed {seed}, is there already with other features: {others[0]}; choose another --name, "
                         "another --seed where these are of the same method trained again, or move that folder away")
    if folder.whole():
        return folder, suite, False
    with folder.claim(command):
        folder.write_config()
        folder.set_state("running")
        scores = score_run(features, config)
        # The array `train` may hold either modality or both, so its spectrum would get a wrong name.
        scores = replace(scores, singular_values={"unseen": scores.singular_values["unseen"]})
        write_numbers(folder.path, _classes(plan), unseen, scores)
        write_json(folder.path / "provenance.json", {
            **provenance.collect(torch.device("cpu")), "command": command, "identity": folder.identity, "data_digest": "",
            "split_digest": "", "seed": seed, "smoke": suite.smoke, "words_digest": "", "words": "unknown: brought along",
            "weights": "unknown: brought along", "selected_by": "unknown: brought along", "optimizer_steps": None,
            "datasets": [[f"{plan.dataset} {plan.split} unseen", digest, f"features of {len(unseen.query_files)} sketches and "
                          f"{len(unseen.gallery_files)} photos"]],
            "manifest": None, "notes": [], "brought": {"file": path.name, "sha256": digest, "codes": bool(features.seen)},
            "started": began, "finished": provenance.now(), "train_seconds": None,
            "total_seconds": time.perf_counter() - started})
        folder.seal()
        folder.set_state("finished")
    return folder, suite, True


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tcn add", description=__doc__, epilog=EPILOG, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("features", type=Path, metavar="FEATURES.npz", help="features and class names; see below")
    p.add_argument("--name", required=True, type=_name, help="name of the row; tables add `(brought along)`")
    p.add_argument("--dataset", required=True, metavar="NAME", help=f"one of {', '.join(SPECS)}, or a part such as "
                                                                    "sketchy-first25, or a YAML file of your own")
    p.add_argument("--split", metavar="NAME", help="its split (default: the first)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="which of several trainings this is (default: 0)")
    p.add_argument("--output", required=True, type=Path, metavar="DIR", help="the results folder")
    p.add_argument("--no-report", action="store_true", help="leave the report as it is")
    return p


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no name: up to 60 letters, digits, dots, pluses, hyphens and single "
                                         "underscores")
    return text


@ending("interrupted; the same command starts from the beginning")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: give a whole number from 0")
    command = provenance.command()
    folder, suite, new = add(options.features.expanduser(), options.name,
                             read_plan(declared.named(options.dataset), options.split), options.seed,
                             options.output.expanduser(), command)
    head = suite.head() if (suite.output / "suite.json").exists() else {}
    missing = head.get("missing_datasets")
    # suite.json keeps what the call that made the folder wrote about itself.
    suite.write([folder], missing if isinstance(missing, dict) else {}, provenance.now(), head.get("command") or command)
    mirror = Mirror(suite, command)
    mirror.settle(folder)
    print(f"{'added' if new else 'there already'}: {folder.path}")
    status = 0 if options.no_report else _report(suite, mirror)
    mirror.close("FINISHED")
    return status


def _report(suite: SuiteFolder, mirror: Mirror) -> int:
    from reports.read.files import ReportError
    from reports.render.command import render

    try:
        print(f"report: {render(suite.output, suite.output / 'report')}")
    except ReportError as error:
        print(f"error: the report could not be rendered: {error}", file=sys.stderr)
        return 1
    mirror.report(suite.output / "report")
    return 0


if __name__ == "__main__":
    sys.exit(main())
