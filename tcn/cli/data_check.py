"""`python -m tcn data check`: compare the data sets on disk with what was published (`tcn.data.doctor`)."""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tcn.config import InputError
from tcn.data import declared, doctor, locate, specs
from tcn.data.report import as_json, render

CHECK = """\
Is what lies on disk what was published? Counts against the published lists, duplicates, unreadable images, pictures
shared by training and test, unseen classes inside ImageNet, classes without a word vector of their own. Reads the data
root, downloads nothing, and writes only a manifest per split into the cache, which later runs cite.
"""
CHECK_EPILOG = """\
where data sets and list files may lie, and how to get them: docs/data.md

exit status
  0 all that was asked for is whole; 1 problems, or a data set named with --datasets (or every one) is missing;
  2 bad usage; 130 interrupted.
"""


def add_data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `data check` to argparse's subcommands."""
    data = commands.add_parser("data", help="examine the data sets on disk", allow_abbrev=False,
                               description="Examine the data sets on disk.")
    p = data.add_subparsers(title="command", metavar="check", dest="task", required=True).add_parser(
        "check", help="compare them with what was published", description=CHECK, epilog=CHECK_EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.set_defaults(run=check_data)
    p.add_argument("files", nargs="*", metavar="FILE",
                   help="YAML files that declare data sets of your own; others are then not checked")
    p.add_argument("--data-root", type=Path, metavar="DIR",
                   help=f"folder that holds the data sets (default: ${locate.DATA_ROOT_VARIABLE})")
    p.add_argument("--datasets", nargs="+", metavar="NAME",
                   help=f"some of {', '.join(specs.SPECS)}, or parts such as sketchy-original (default: all; emoji only "
                        "where it is built; of Sketchy what is there)")
    p.add_argument("--sample", type=int, metavar="N",
                   help="only the first N sketches and N photos of each class by name; of Sketchy the original photos")
    p.add_argument("--cache", type=Path, metavar="DIR",
                   help="where emoji is built and manifests go (default: $TCN_CACHE, else .cache here)")
    p.add_argument("--lists", default="auto", metavar="DIR|none",
                   help="list files: a directory such as zeroshot1, a folder or checkout that holds such, or none "
                        "(default: those found in the data sets' folders)")
    p.add_argument("--words", type=Path, metavar="FILE",
                   help="file of word vectors, as run_all.py takes it: is every seen class there, and do some share a vector?")
    p.add_argument("--fast", action="store_true", help="names and sizes only: no picture is read")
    p.add_argument("--json", action="store_true", help="only one JSON object on standard output, no text")


def check_data(args: argparse.Namespace) -> int:
    """Check what the options name, print it, and return the exit status."""
    cache = args.cache or Path(os.environ.get("TCN_CACHE") or ".cache")
    asked = [*args.files, *(args.datasets or ())]
    if odd := [name for name in args.files if not declared.is_file(name)]:
        raise InputError(f"{odd[0]} is no YAML file that declares a data set; name data sets with --datasets")
    reports, status = doctor.check_all(declared.all_named(asked) if asked else None, data_root=args.data_root,
                                       cache=cache.expanduser(), lists=args.lists,
                                       words=args.words and args.words.expanduser(), fast=args.fast, sample=args.sample)
    print(as_json(reports, status) if args.json else "\n".join(render(reports)))
    sys.stdout.flush()
    return status
