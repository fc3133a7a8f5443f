"""`python -m tcn`: `evaluate`, `data check`, `extract` and `quickdraw`; see `tcn.cli`."""
from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tcn.config import InputError
from tcn.files.atomic import warn

ABOUT = """\
Zero-shot sketch-based image retrieval, scored by named rules.

"mAP@all" and "Prec@100" mean different things in different papers. `evaluate` applies each rule under its
own name to your own data, without training anything; `data check` examines the paper's data sets on your disk.
For training and the report there is `python benchmarks/run_all.py`.
"""
ABOUT_EPILOG = """\
commands
  evaluate FEATURES.npz   scores retrieval features or binary codes by all protocols. What the file holds and
                          what each protocol computes: python -m tcn evaluate --help
  data check              compares the data sets on disk with what was published: python -m tcn data check --help
  extract --backbone ..   takes features of a split by a frozen network: python -m tcn extract --help
  quickdraw NDJSON ...    draws QuickDraw's strokes as pictures, for use as queries: python -m tcn quickdraw --help

with the harness (also tcn COMMAND, or python benchmarks/COMMAND.py)
  compare A B ...         runs or features pair by pair, with tests by class
  add FEATURES.npz        features made anywhere as a row of a results folder
  bundle RUN ...          finished runs in one file that can be sent
  verify BUNDLE ...       works out again the numbers of such a file

exit status
  0 done; 1 scored, but something could not be written, or memory ran out, or a data set has problems;
  2 bad input or usage; 130 interrupted.
"""
OF_THE_HARNESS = ("add", "bundle", "compare", "verify")
"""Commands that work on results folders, which this package knows nothing of:
handed to benchmarks/console.py where that is there."""


def _evaluate(commands: Any) -> None:
    from tcn.cli.evaluate import evaluate
    from tcn.cli.evaluate_options import add_evaluate

    add_evaluate(commands, evaluate)


def _data(commands: Any) -> None:
    from tcn.cli.data_check import add_data

    add_data(commands)


def _extract(commands: Any) -> None:
    from tcn.cli.extract import add_extract

    add_extract(commands)


def _quickdraw(commands: Any) -> None:
    from tcn.cli.quickdraw import add_quickdraw

    add_quickdraw(commands)


COMMANDS: Mapping[str, Callable[[Any], None]] = {
    "evaluate": _evaluate, "data": _data, "extract": _extract, "quickdraw": _quickdraw}
"""Command -> what adds its options, and imports what it needs: networks take seconds, and scoring has no use for them."""


def parser(command: str = "") -> argparse.ArgumentParser:
    """The command line: one subcommand for each thing to do, each with its own help. Of a `command` that there is, its own
    alone."""
    top = argparse.ArgumentParser(prog="python -m tcn", description=ABOUT, epilog=ABOUT_EPILOG,
                                  allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(title="command", metavar="COMMAND", dest="command")
    for name in [command] if command in COMMANDS else COMMANDS:
        COMMANDS[name](commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Usage errors and --help leave by SystemExit, as argparse has it."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in OF_THE_HARNESS:
        try:
            console = importlib.import_module("benchmarks.console")
        except ModuleNotFoundError:
            warn(f"error: `{given[0]}` works on results folders and comes with the harness: tcn {given[0]} ..., or "
                 f"python benchmarks/{given[0]}.py ...")
            return 2
        return int(console.main(given))
    top = parser(given[0] if given else "")
    args = top.parse_args(given)
    if args.command is None:
        top.print_help(sys.stderr)
        return 2
    try:
        return int(args.run(args))
    except InputError as error:
        warn(f"error: {error}")
        return 2
    except (MemoryError, torch.OutOfMemoryError) as error:
        warn(f"error: out of memory; try a smaller --block ({error})")
        return 1
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # the reader of a pipe may leave when it has seen enough
            warn(f"error: the result cannot be written: {error.strerror or error}")
        # what is left in the buffer must not be tried again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        warn("interrupted")
        return 130


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal's encoding lacks
    sys.exit(main())
