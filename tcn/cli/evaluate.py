"""`python -m tcn evaluate`: score the features or codes of an .npz file by every protocol.

In: the options. Out: a table on standard output (with --json, one JSON object and nothing else), and notes, warnings and errors
on standard error. The numbers are those of `tcn.scoring.scores` (paper, section 4).
"""
from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from tcn.cli.evaluate_options import EvaluateOptions
from tcn.cli.evaluate_table import FileScores, report, write_csv
from tcn.cli.feature_files import (
    check_groups,
    distance,
    identical,
    mixed_groups,
    mixed_instances,
    read_arrays,
    unit_length,
    unread,
)
from tcn.config import InputError
from tcn.data import known_splits
from tcn.files.atomic import warn, writable_file
from tcn.scoring import codes, inputs
from tcn.scoring.instances import instance_accuracy
from tcn.scoring.protocols import PROTOCOL_VERSION
from tcn.scoring.scores import DUPLICATES, score


def evaluate(args: EvaluateOptions) -> int:
    """Score what the options name, print it, and return the exit status."""
    names = _metric_names(args.protocols, args.ks)
    _check_options(args, names)
    arrays, ignored = read_arrays(args.features)
    unread(args.features, ignored)
    several: dict[str, list[str]] = {}
    try:
        labels = arrays["query_labels"], arrays["gallery_labels"]
        if args.spellings == "merge" and all(names.ndim == 1 for names in labels):
            several = inputs.spellings_of(*labels)
            arrays |= {name: inputs.merged(arrays[name], several) for name in ("query_labels", "gallery_labels")}
        checked = None if args.split is None else known_splits.check(*args.split, *labels_of(arrays))
        result = _scored(arrays, args)
    except InputError as error:
        raise InputError(f"{args.features}: {as_options(str(error))}") from error
    # Counted in the file's own rows: codes made by --itq may coincide without being the same photo.
    copies = identical(arrays)
    if args.json and copies:
        warn(f"note: {args.features}: {copies}")
    if args.json:
        instances = result.instances[0].summary() if result.instances else {}
        print(json.dumps({"protocol_version": PROTOCOL_VERSION, **result.scores[0].summary(), **instances}, indent=2,
                         allow_nan=False))
    else:
        print("\n".join(report(args, arrays, result, names, several, copies)))
    if checked is not None and (args.json or checked.problems):
        warn(f"{'warning' if checked.problems else 'note'}: {args.features}: {checked.text()}")
    elif checked is not None:
        print(f"\nsplit       {checked.text()}")
    sys.stdout.flush()
    if args.csv:
        try:
            write_csv(args.csv, args, result, names)
        except OSError as error:
            warn(f"error: {args.csv}: cannot be written: {error.strerror or error}")
            return 1
    return 1 if checked is not None and checked.problems else 0


def labels_of(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The checked labels of queries and gallery."""
    query, gallery = (inputs.checked_labels(f"{side}_labels", arrays[f"{side}_labels"], len(arrays[side]), side)
                      for side in ("query", "gallery"))
    return query, gallery


def _metric_names(protocols: Sequence[str], ks: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """The metrics of each protocol, from the score of a single point, so that they are known before a long run."""
    point, label = np.ones((1, 1)), np.zeros(1, dtype=int)
    scores = score(point, point, label, label, protocols, ks=ks)
    return {name: scores.metrics(name) for name in scores.protocols}


def _check_options(args: EvaluateOptions, names: Mapping[str, Sequence[str]]) -> None:
    if args.itq is None and (args.itq_fit or args.itq_rule):
        raise InputError("--itq-fit and --itq-rule say how codes are made; they need --itq")
    if args.itq is not None and args.metric not in (None, "hamming"):
        raise InputError(f"--itq makes codes, which are compared by hamming, not by --metric {args.metric}")
    if args.csv and args.csv.resolve() == args.features.resolve():
        raise InputError(f"--csv {args.csv} would replace the features")
    if args.csv:
        writable_file(args.csv, "--csv")
    if args.per_class and not any(args.per_class in found for found in names.values()):
        known = dict.fromkeys(name for found in names.values() for name in found)
        raise InputError(f"--per-class {args.per_class}: no such metric here; there are {', '.join(known)}")
    if args.json and args.per_class and not args.csv:
        raise InputError("with --json the numbers by class go to --csv only; add --csv FILE, or leave out --per-class or --json")
    if args.tie_draws is not None and args.ties != "expected":
        raise InputError(f"--tie-draws are orders of which --ties expected takes the mean; --ties {args.ties} draws none")


def _scored(arrays: dict[str, np.ndarray], args: EvaluateOptions) -> FileScores:
    if "gallery_group" in arrays:
        check_groups(arrays)
    if args.itq is None:
        metric, made = distance(arrays, args.metric), ""
    else:
        arrays, made = quantised(arrays, args)
        metric = "hamming"
    rows_wanted = not args.json or args.csv is not None
    rules: Sequence[str] = (args.duplicates or "as-published",)
    if args.duplicates is None and "gallery_group" in arrays and rows_wanted:
        rules = DUPLICATES
    if "distinct" in rules:
        mixed_groups(args.features, arrays)
    if "query_instance" in arrays:
        mixed_instances(args.features, arrays)
    scores = [
        score(
            arrays["query"], arrays["gallery"], arrays["query_labels"], arrays["gallery_labels"],
            args.protocols, metric, args.ks, missing_classes=args.missing_classes, ties=args.ties,
            tie_draws=args.draws, seed=args.seed, gallery_group=arrays.get("gallery_group"),
            duplicates=rule, spellings=args.spellings, block=args.block, device=args.device)
        for rule in rules]
    instances = [
        instance_accuracy(
            arrays["query"], arrays["gallery"], arrays["query_labels"], arrays["gallery_labels"],
            arrays["query_instance"], arrays["gallery_instance"], metric, gallery_group=arrays.get("gallery_group"),
            duplicates=rule, spellings=args.spellings, block=args.block, device=args.device)
        for rule in rules if "query_instance" in arrays]
    return FileScores(scores, [each.rows() for each in scores] if rows_wanted else [], metric, made, instances)


def as_options(message: str) -> str:
    """A message of the library, with the names of its arguments replaced by those of the options."""
    return re.sub(r"\b(metric|missing_classes|duplicates|spellings)='([\w-]+)'",
                  lambda hit: f"--{hit[1].replace('_', '-')} {hit[2]}", message)


def quantised(
    arrays: Mapping[str, np.ndarray], args: EvaluateOptions
) -> tuple[dict[str, np.ndarray], str]:
    """The arrays with codes for features, and how the codes were made."""
    rule, fit = args.itq_rule or "textbook", args.itq_fit or "seen"
    if fit == "seen" and "train" not in arrays:
        raise InputError("no array train: --itq is fitted on features of seen classes, train [Nt, D]; add "
                         "them, or fit on the queries with --itq-fit as-released, which uses test data")
    names = ("query", "gallery", "train") if fit == "seen" else ("query", "gallery")
    unit = {name: unit_length(name, arrays[name]) for name in names}
    dimensions = unit["query"].shape[1]
    for name in names[1:]:
        if unit[name].shape[1] != dimensions:
            raise InputError(f"query has {dimensions} dimensions and {name} {unit[name].shape[1]}; "
                             "they must agree")
    query, gallery = codes.binary_codes(unit.get("train"), unit["query"], unit["gallery"], rule=rule, fit=fit,
                                        bits=args.itq or None, seed=args.seed)
    if fit == "as-released":
        warn("warning: ITQ is fitted on the queries themselves (--itq-fit as-released). This is\n"
             "TRANSDUCTIVE: test data shape the codes, and queries and gallery are each centred on their\n"
             "own mean. Compare these numbers only with others made so.")
    on = f"the {len(arrays['train'])} rows of train" if fit == "seen" else "the queries (TRANSDUCTIVE)"
    made = f"{query.shape[1]} bits by ITQ, {rule} rule, fitted on {on}"
    return {**arrays, "query": query, "gallery": gallery}, made
