"""A page on which you draw and see the photos that finished runs find, side by side.

`python benchmarks/demo.py [OUTPUT|RUN ...]` takes the networks of finished runs from their checkpoints and serves a page on
127.0.0.1. You draw with a mouse, a pen or a finger, or pick a query sketch of the unseen classes. `--gallery DIR` adds a folder
of your own photos. Nothing is trained, nothing in a run's folder is changed, and no request leaves this machine.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from baselines import VARIANTS
from benchmarks import preflight, prepared, provenance
from benchmarks.demo.answers import Demo
from benchmarks.extension.cross_dataset import find_runs
from benchmarks.material import Material
from benchmarks.store import RunFolder
from benchmarks.threads import check_threads, limit_threads
from tcn.cli.ending import ending
from tcn.config import InputError
from tcn.files.text import some

MOST = 6
"""Number of runs that are opened unless --most is given: as many as one can look at side by side."""


def chosen(found: Sequence[RunFolder], most: int) -> list[RunFolder]:
    """The first `most` runs: all variants of the first seed, then of the next."""
    order = list(VARIANTS)
    seeds = sorted({one.run.seed for one in found})
    ranked = sorted(found, key=lambda one: (seeds.index(one.run.seed), order.index(one.run.variant)
                                            if one.run.variant in VARIANTS else len(order)))
    return ranked[:most]


def add_runs(p: argparse.ArgumentParser) -> None:
    """Options that say which runs are opened, and where their data, words and weights are."""
    p.add_argument("runs", nargs="*", type=Path, metavar="RUN",
                   help="folders of finished runs, or output folders (default: results/laptop)")
    p.add_argument("--most", type=int, default=MOST, metavar="N", help=f"open at most N runs (default: {MOST})")
    prepared.add_places(p)


def opened(options: argparse.Namespace, gallery: Path | None = None, seen: bool = False) -> Demo:
    """The runs that the options name, reopened. InputError if they can't be opened."""
    provenance.check_checkout(Path(__file__))
    for name in ("threads", "most"):
        if (number := getattr(options, name)) is not None and number < 1:
            raise InputError(f"--{name} {number}: give a whole number from 1")
    if options.threads is not None:
        check_threads(options.threads)
        limit_threads(options.threads)
    checks = preflight.Checks()
    device = checks.ask(lambda: prepared.device_named(options.device))
    material = Material(prepared.places_of(options, prepared.data_root(options), checks))
    places = options.runs or [provenance.ROOT / "results" / "laptop"]
    found = checks.ask(lambda: find_runs(places))
    checks.stop()
    assert device is not None and found is not None  # otherwise `checks.stop` has raised an error
    folders = chosen(list({one.path: one for one in found}.values()), options.most)
    left = [one.path.name for one in found if one.path not in {kept.path for kept in folders}]
    if left:
        print(f"{len(folders)} of {len(found)} finished runs are opened; left out: {some(left, 5)} (name the runs to open, or "
              f"pass --most {len(found)})")
    for folder in folders:
        print(f"run: {folder.path.name}", flush=True)
    return Demo(folders, material, device, gallery, seen)


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python benchmarks/demo.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    add_runs(p)
    p.add_argument("--gallery", type=Path, metavar="DIR",
                   help="a folder of your own photos to search too; encoded once by each run and kept in the cache")
    p.add_argument("--seen", action="store_true",
                   help="make the photos of the seen classes searchable too; encoded once by each run and kept in the cache")
    p.add_argument("--port", type=int, default=5001, metavar="N", help="port on 127.0.0.1 (default: 5001; 0: any free port)")
    return p


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C. Returns 0 then, 2 for bad usage."""
    return _run(_parser().parse_args(arguments))


def _run(options: argparse.Namespace) -> int:
    try:
        from benchmarks.demo import server
    except ModuleNotFoundError as error:
        raise InputError(f"the page needs the package '{error.name}', which is not installed: "
                         "pip install -e '.[demo]'") from error
    if not 0 <= options.port < 65_536:
        raise InputError(f"--port {options.port}: give a number from 0 to 65535")
    own = server.listening(options.port)  # opened first, so that a taken port is known before minutes are spent on a gallery
    with own:
        demo = opened(options, options.gallery, options.seen)
        for note in (*demo.notes, *(task.note for task in demo.tasks if task.note)):
            print(f"note: {note}")
        print(f"draw and search: http://{server.HOST}:{own.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
        server.serve(demo, own)
    return 0


if __name__ == "__main__":
    sys.exit(main())
