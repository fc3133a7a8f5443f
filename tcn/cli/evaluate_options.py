"""The options of `python -m tcn evaluate`, and its help text."""
from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tcn.config import InputError
from tcn.data import known_splits
from tcn.scoring import codes, inputs
from tcn.scoring.protocols import ALL, PROTOCOLS, ApTies
from tcn.scoring.scores import DUPLICATES, MISSING_CLASSES, TIES

TIE_DRAWS = 32
_OWN_TIES = {ApTies.ORDER: "NumPy's sort", ApTies.SHARED: "scikit-learn"}

EVALUATE = """\
Scores the retrieval of gallery photos by query sketches: every protocol from one ranking, each number with
its chance level and its ceiling.
"""
EVALUATE_EPILOG = """\
the file: an .npz as np.savez writes it, with the arrays
  query           [Nq, D]  features of the sketches: real numbers, or codes as bool or uint8 of 0 and 1
  gallery         [Ng, D]  the same for the photos
  query_labels    [Nq]     classes: integers (any) or strings, such as np.array(names, dtype=str)
  gallery_labels  [Ng]     classes of the photos
  gallery_group   [Ng]     optional, integers or strings: equal values mark one photo listed several times
  query_instance   [Nq]    optional, integers or strings: which photo a sketch was drawn from
  gallery_instance [Ng]    optional, of the same kind: which photo this is
  train           [Nt, D]  optional, real numbers: features of seen classes, on which --itq is fitted
Other arrays are left aside with a note. Object arrays are refused: reading them can run code.

protocols
{protocols}
  raw: precisions at the hits; voc: the largest precision at the hit's rank or later. micro: mean over
  queries; macro: mean over classes of the class means. R: photos of the query's class; mAP@all divides by R.
  At a cut-off K only the first K photos count; a query without any hit there scores 0.
  ties: how the protocol's own code orders equal distances (--ties as-released). Prec: NumPy's default sort in all.

duplicates
  With gallery_group every number is given twice: `as-published`, all entries counted, and `distinct`, only
  the first entry of each group (of each class in it). --json then gives as-published; with --duplicates
  distinct, the other.

instances
  With query_instance and gallery_instance there is one more table: Acc@1, Acc@5 and Acc@10, the share of
  sketches with the very photo that they were drawn from among the nearest. instance-in-class ranks the photos
  of the sketch's class, instance the whole gallery. Of a photo listed several times the nearest entry counts.
  Photos at equal distance stand in random order, whatever --ties says: the exact mean over all orders.
  Sketches without their photo in the gallery, or with an empty string, are left out.

splits
  --split sketchy/1 says whether queries and gallery are those of that split as published: its unseen classes, and the number of
  sketches and photos of each. Where they are not, it says what differs and which known split they are of (the published ones, and
  those of SEM-PCYC and KD-SBIR), and the exit status is 1.

output
  A table; with --json one object and nothing else on standard output:
    {{"PROTOCOL": {{"mAP@all": .., "mAP@100": .., "Prec@100": .., ...}}, ...}}
  and, with instances, "instance-in-class" and "instance" beside the protocols.
  The table also has Prec@5 and Prec@R for `released` and `standard`. --csv writes one row for each number,
  with its standard error, chance level and ceiling.

examples (the file first: options that take several values would swallow it)
  python -m tcn evaluate features.npz
  python -m tcn evaluate features.npz --protocols released standard --ks 50 --json
  python -m tcn evaluate features.npz --itq 64 --per-class mAP@all --csv scores.csv
  python -m tcn evaluate codes.npz --ties worst
  python -m tcn evaluate features.npz --split tuberlin

exit status
  0 scored; 1 scored, but not of --split, or --csv could not be written, or memory ran out; 2 bad file or usage; 130 interrupted.
"""


class EvaluateOptions(argparse.Namespace):
    """The options of one call, with their types. None: the option was not given."""

    features: Path
    protocols: Sequence[str]
    ks: Sequence[int]
    metric: str | None
    itq: int | None
    """Number of bits; 0: all dimensions as they are."""
    itq_fit: str | None
    itq_rule: str | None
    missing_classes: str
    spellings: str
    split: tuple[str, str] | None
    ties: str
    tie_draws: int | None
    duplicates: str | None
    per_class: str | None
    json: bool
    csv: Path | None
    seed: int
    device: str
    block: int | None

    @property
    def draws(self) -> int:
        """Random tie orders to draw."""
        return self.tie_draws or TIE_DRAWS


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser], run: Callable[[EvaluateOptions], int]) -> None:
    """Add the subcommand `evaluate`, carried out by `run`, to argparse's subcommands."""
    rules = "\n".join(
        f"  {rule.name:<9} {'voc' if rule.interpolated else 'raw'} AP, AP@K over {rule.divisor.value}, {rule.average.value}; "
        f"Prec@K: {rule.precision.value}; ties in AP: {_OWN_TIES[rule.ap_ties]}\n"
        + textwrap.indent(textwrap.fill(rule.source, 96), " " * 12)
        for rule in PROTOCOLS.values())
    p = commands.add_parser("evaluate", help="score your own features or codes", description=EVALUATE,
                            epilog=EVALUATE_EPILOG.format(protocols=rules), allow_abbrev=False,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    p.set_defaults(run=lambda args: run(EvaluateOptions(**vars(args))))
    p.add_argument("features", type=Path, metavar="FEATURES.npz", help="features and labels; see below")
    p.add_argument("--protocols", nargs="+", choices=ALL, default=ALL, metavar="NAME",
                   help=f"some of {', '.join(ALL)} (default: all)")
    p.add_argument("--ks", nargs="+", type=_whole, default=(100, 200), metavar="K",
                   help="cut-offs (default: 100 200)")
    p.add_argument("--metric", choices=inputs.METRICS,
                   help="distance (default: euclidean on features scaled to unit length; hamming for codes)")
    p.add_argument("--itq", nargs="?", type=_whole, const=0, metavar="BITS",
                   help="turn real-valued features (scaled to unit length) into codes by iterative "
                        "quantisation, and score those; BITS: principal axes to keep (default: all "
                        "dimensions as they are)")
    p.add_argument("--itq-fit", choices=codes.FITS,
                   help="what ITQ is fitted on: `seen`, the array `train` (default), or `as-released`, the "
                        "queries themselves, as TCN's released code does: it uses test data")
    p.add_argument("--itq-rule", choices=codes.RULES,
                   help="update of ITQ's rotation: `textbook` (default), or that of TCN's released code, "
                        "which is not the minimiser")
    p.add_argument("--missing-classes", choices=MISSING_CLASSES, default="error",
                   help="a class with queries but no photos: an error (default), a score of zero, or "
                        "as-released: left out of mAP and 0 in Prec")
    p.add_argument("--spellings", choices=inputs.SPELLINGS, default="error",
                   help="class names that differ only in case, blanks, hyphens, underscores, leading zeros or Unicode form "
                        "(palm tree, palm_tree): an error (default), one class, or different classes")
    p.add_argument("--split", type=_split, metavar="DATASET/SPLIT",
                   help="check that these are the queries and photos of a split, such as sketchy/1; see below")
    p.add_argument("--ties", choices=TIES, default="expected",
                   help="photos at equal distance: the mean over all orders (default), the bounds, a fixed "
                        "order, or as-released: that of each protocol's own code")
    p.add_argument("--tie-draws", type=_whole, metavar="N",
                   help=f"random orders where that mean has no closed form (default: {TIE_DRAWS})")
    p.add_argument("--duplicates", choices=DUPLICATES,
                   help="only one of the two (default: both in the table, as-published in --json)")
    p.add_argument("--per-class", nargs="?", const="mAP@all", metavar="METRIC",
                   help="one more table: a metric's mean for each class (default: mAP@all)")
    p.add_argument("--json", action="store_true", help="only one JSON object on standard output, no table")
    p.add_argument("--csv", type=Path, metavar="FILE",
                   help="write the numbers to FILE, one a row; FILE is replaced if it exists")
    p.add_argument("--seed", type=_seed, default=0, metavar="N",
                   help="of the random tie orders and of ITQ's first rotation (default: 0)")
    p.add_argument("--device", type=_device, default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    p.add_argument("--block", type=_whole, metavar="N",
                   help="queries handled at once (default: by memory); changes no number beyond rounding")


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 to 999999999")
    return int(text)


def _split(text: str) -> tuple[str, str]:
    try:
        return known_splits.parse_name(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seed(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no seed; give a whole number from 0 to 999999999")
    return int(text)


def _device(text: str) -> str:
    try:
        if torch.device(text).type not in ("cpu", "cuda", "mps", "xpu"):
            raise RuntimeError("no device to compute on")
        torch.zeros(1, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"'{text}' cannot be used here: {reason}") from None
    return text
