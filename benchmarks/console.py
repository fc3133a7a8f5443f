"""The command `tcn`, as an installation puts it on the path: one door to the commands of this project.

In: a command line. Out: the exit status of the command that it is handed to. It lives here because the package `tcn`
imports nothing of the harness.
"""
from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence

ABOUT = """\
usage: tcn COMMAND ...

Zero-shot sketch-based image retrieval: train, score by named rules, report.

commands
  run                     train and score what a profile lists, resume, report (python benchmarks/run_all.py)
  report                  tables, figures and the page from result folders alone (python reports/render.py)
  compare A B ...         runs or features pair by pair, with tests by class (python benchmarks/compare.py)
  add FEATURES.npz        features made anywhere as a row of a results folder (python benchmarks/add.py)
  bundle RUN ...          finished runs in one file that can be sent (python benchmarks/bundle.py)
  verify BUNDLE ...       works out again the numbers of such a file (python benchmarks/verify.py)
  evaluate FEATURES.npz   score features or binary codes made anywhere (python -m tcn evaluate)
  data check              compare the data sets on disk with what was published (python -m tcn data check)
  extract --backbone ..   features of a split by a frozen network (python -m tcn extract)
  quickdraw NDJSON ...    draw QuickDraw's strokes as pictures, for use as queries (python -m tcn quickdraw)
  demo [RUN ...]          draw, and see what each finished run finds, on a page of this machine (python benchmarks/demo.py)

`tcn COMMAND --help` explains each.
"""


def _tcn(name: str) -> Callable[[Sequence[str]], int]:
    def call(arguments: Sequence[str]) -> int:
        from tcn.__main__ import main

        return main([name, *arguments])

    return call


def _run(arguments: Sequence[str]) -> int:
    from benchmarks.run_all import main

    return main(arguments)


def _report(arguments: Sequence[str]) -> int:
    from reports.render.command import main

    return main(arguments)


def _compare(arguments: Sequence[str]) -> int:
    from benchmarks.compare import main

    return main(arguments)


def _add(arguments: Sequence[str]) -> int:
    from benchmarks.add import main

    return main(arguments)


def _bundle(arguments: Sequence[str]) -> int:
    from benchmarks.bundle import main

    return main(arguments)


def _verify(arguments: Sequence[str]) -> int:
    from benchmarks.verify import main

    return main(arguments)


def _demo(arguments: Sequence[str]) -> int:
    from benchmarks.demo.command import main

    return main(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": _run, "report": _report, "compare": _compare, "add": _add, "bundle": _bundle, "verify": _verify,
    "evaluate": _tcn("evaluate"), "data": _tcn("data"), "extract": _tcn("extract"), "quickdraw": _tcn("quickdraw"), "demo": _demo}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 2 for an unknown command, else the command's own."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal's encoding lacks
    if name in ("-h", "--help"):
        print(ABOUT, end="")
        return 0
    if name not in COMMANDS:
        print(ABOUT if not name else f"error: unknown command '{name}'; choose among {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return COMMANDS[name](rest)


if __name__ == "__main__":
    sys.exit(main())
