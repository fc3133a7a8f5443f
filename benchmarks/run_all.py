"""The command: plan, run, report.

`python benchmarks/run_all.py` trains and scores what the profile lists, skips what is finished, resumes what was
interrupted, mirrors everything into MLflow and renders the report. No science lives here; the help of all options, their
reference, does.
"""
from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported by the functions that use them: --help must not wait for torch
    from benchmarks.launch.calibration import Calibration
    from benchmarks.launch.jobs import Launcher
    from benchmarks.mirror import Mirror
    from benchmarks.prepared import Prepared
    from benchmarks.store import SuiteFolder

EPILOG = """
what runs
  Without a data root the laptop profile runs: real drawings by seven publishers (data set `emoji`), small network,
  about a quarter of an hour on 2 cores. With --data-root (or $TCN_DATA) Sketchy, TU-Berlin and QuickDraw run, as far as they
  are found there; missing ones are named and left out. On a GPU that is the paper profile. Without one, where Sketchy is
  there, it is the sample profile: the first 25 sketches and photos of each class, a small network.

examples
  python benchmarks/run_all.py                                  the laptop story, one seed
  python benchmarks/run_all.py --seeds 0 1 2                    the same with three seeds (finished runs are kept)
  python benchmarks/run_all.py --variants main leave-one-out    other variants, or groups of them
  python benchmarks/run_all.py --variants tcn my_method.py      a method of your own beside TCN (docs/own-method.md)
  python benchmarks/run_all.py --datasets my_set.yaml           a data set of your own (docs/own-dataset.md)
  python benchmarks/run_all.py --check my_method.py             what that file lacks, in seconds; nothing is run
  python benchmarks/run_all.py --quick                          the whole chain in under 3 minutes, marked a smoke run
  python benchmarks/run_all.py --variants ledger                what each deviation of the released code is worth
  python benchmarks/run_all.py --as-released                    everything with all of them, in results/PROFILE-as-released
  python benchmarks/run_all.py --reproduce RUN                  repeat a run bit for bit, or say what differs
  python benchmarks/run_all.py --sync                           mirror results into MLflow, after its server was away
  python benchmarks/run_all.py --dry-run                        the plan only: runs, what they feed, what they cost
  python benchmarks/run_all.py --launcher processes             several runs at once, a worker process for each
  python benchmarks/run_all.py --launcher ray --ray-address HOST:6379 --runs-per-gpu 2
                                                                runs on a Ray cluster, two on each GPU (docs/cluster.md)
  python benchmarks/run_all.py --data-root /data --device cuda --words GoogleNews-vectors-negative300.bin
                                                                the paper's data sets on a GPU
  python benchmarks/run_all.py --everything --budget 24h        every table and figure, as much of it as a day allows

results
  One folder a run under OUTPUT/runs, the MLflow store in OUTPUT/mlflow.db (or $MLFLOW_TRACKING_URI), the report in
  OUTPUT/report/index.html. `make ui` opens MLflow on the loopback address.

exit status
  0 all runs finished (--reproduce: the run agrees); 1 some run failed (the others ran; the reason is printed), or
  the repeated run differs; 2 bad input: whatever the plan tells would stop a run is said before the first one, all
  at once, and nothing is run; 130, 143, 129 ended by Ctrl-C, SIGTERM, SIGHUP (the same command goes on).

several at once, and after a crash
  A second call on the same output takes the runs that no other call works on and waits for the rest. A killed call costs
  an epoch at the most: the next one goes on from the last whole checkpoint (docs/faults.md).
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from baselines import GROUPS, VARIANTS

    p = argparse.ArgumentParser(prog="python benchmarks/run_all.py", epilog=EPILOG,
                                formatter_class=argparse.RawDescriptionHelpFormatter,
                                description="Train and score the Transferable Coupled Network and its comparisons, "
                                            "skip what is done, and render tables, figures and a page.")
    p.add_argument("--profile", choices=("laptop", "paper", "sample"),
                   help="default: laptop without a data root; with one, paper on a GPU and sample without a GPU")
    p.add_argument("--sample", type=_count, metavar="N",
                   help="only the first N sketches and N photos of each class by name, of Sketchy the original photos: "
                        "data sets of their own, such as sketchy-first25 (default of the sample profile: 25; else everything)")
    p.add_argument("--datasets", nargs="+", metavar="NAME",
                   help="emoji; or sketchy (both splits; sketchy/1 for one), tuberlin, quickdraw (default: all); or "
                        "YAML files that declare data sets of your own (docs/own-dataset.md)")
    p.add_argument("--generalised", action="store_true",
                   help="photos of seen classes in the gallery too: data sets of their own, such as sketchy-generalised")
    p.add_argument("--variants", nargs="+", metavar="NAME",
                   help=f"variants, groups, or Python files that declare variants (default: untrained main). "
                        f"Variants: {', '.join(VARIANTS)}. Groups: {', '.join(GROUPS)}. Files: docs/own-method.md; a package may "
                        f"announce some by an entry point of the group tcn_zs_sbir.variants, to be named here")
    p.add_argument("--check", nargs="+", metavar="FILE",
                   help="try the variants that a Python file declares on a tiny network and random pairs, and say what they lack "
                        "(shapes, gradients, finite losses, seeds, checkpoints, a look at unseen classes); status 1 "
                        "where anything")
    p.add_argument("--seeds", nargs="+", type=_seed, metavar="N", help="default: 2020 for the paper profile, else 0")
    p.add_argument("--everything", action="store_true",
                   help="every table and figure: all variants, with the seeds that verdicts on the claims need, main "
                        "rows first, and the extension on digits at the end")
    p.add_argument("--budget", type=_budget, metavar="TIME",
                   help="with --everything: leave out the end of the plan that would take longer at the rates of this device "
                        "(90m, 24h, 2d), and say what; for the output folder as a whole, however often the command is given")
    p.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: auto, the first GPU or the CPU)")
    p.add_argument("--output", type=Path, metavar="DIR", help="default: results/PROFILE (results/PROFILE-smoke with --quick)")
    p.add_argument("--data-root", type=Path, metavar="DIR", help="where the paper's data sets are (default: $TCN_DATA)")
    p.add_argument("--cache", type=Path, metavar="DIR", help="decoded images and the emoji pictures (default: $TCN_CACHE, "
                                                             "else .cache in the project)")
    p.add_argument("--emoji-tarballs", type=Path, metavar="DIR", help="folder of the npm packages' .tgz files, for "
                                                                      "machines without npm or network")
    p.add_argument("--words", type=Path, metavar="FILE", help="word vectors: word2vec binary, GloVe text, or CSV table")
    p.add_argument("--weights", nargs="+", metavar="FILE|NAME=FILE|DIR",
                   help="weights of the encoders (PyTorch state dict or safetensors): a file for all of them, a file for "
                        "each encoder by its name, or a folder with NAME.safetensors, .pth, .pt or .bin (docs/encoders.md)")
    p.add_argument("--teacher-weights", type=Path, metavar="FILE",
                   help="one file for the teacher of every run, whatever --weights gives (default: its encoder's file)")
    p.add_argument("--set", nargs="+", action=_Settings, default=[], metavar="KEY=VALUE", dest="overrides",
                   help="replace settings of every run but those that make its variant, e.g. --set training.epochs=4 "
                        "losses.sharing=100 (which leaves nws without a sharing loss); a later --set goes over an earlier one")
    p.add_argument("--threads", type=_count, metavar="N", help="CPU threads (default: all cores); results are bit-identical "
                                                               "only at an equal number")
    p.add_argument("--as-released", action="store_true",
                   help="turn on every deviation of the released code that has a setting (baselines/ledger.py); with the paper "
                        "profile, rates, epochs and seed are the released ones anyway")
    p.add_argument("--lists", metavar="DIR|none", default="auto",
                   help="list files of the paper's data sets: found beside the data (default), `none` to go by the folders "
                        "alone, or the folder that holds them")
    p.add_argument("--reproduce", metavar="RUN",
                   help="repeat one finished run and say whether it agrees: its folder, folder name, identity or MLflow run id")
    p.add_argument("--tolerance", type=float, metavar="X",
                   help="with --reproduce: largest difference of a metric that still agrees (default: 0 where commit, device, "
                        "threads and versions are the same, else 0.04)")
    p.add_argument("--quick", action="store_true", help="one epoch a run: checks the chain, not the science")
    p.add_argument("--dry-run", action="store_true",
                   help="print the plan and stop: what each run costs at the rates of this device, disk and memory. The first "
                        "time on a device it measures these rates, about a minute, and keeps them in the cache")
    p.add_argument("--calibrate", action="store_true", help="with --dry-run: measure the rates anew")
    p.add_argument("--launcher", choices=("local", "processes", "ray", "slurm"), default="local",
                   help="local: one run after the other in this process; processes: several at once on this machine; ray: "
                        "Ray's workers, here or on a cluster; slurm: a SLURM job for each run")
    p.add_argument("--slurm", metavar="KEY=VALUE,...",
                   help="what each SLURM job asks for: partition=long,gpus=1,cpus=4,time=24h,mem=32GB, account=..., qos=...")
    p.add_argument("--workers", type=_count, metavar="N", help="runs at once (default: by cores and GPUs)")
    p.add_argument("--runs-per-gpu", type=_count, metavar="K", help="runs that share one GPU (default: 1)")
    p.add_argument("--gpus-per-run", type=_count, metavar="N",
                   help="GPUs that train one run together, a process on each (default: 1); network.batch_norm_split says "
                        "whether each normalises its own pairs (N) or all do together (1); with --device cpu, as many processes "
                        "(docs/cluster.md)")
    p.add_argument("--cpus-per-run", type=_count, metavar="N", help="CPU cores set aside for a run, and its threads without "
                                                                     "--threads (default: cores divided by workers)")
    p.add_argument("--ray-address", metavar="HOST:PORT", help="a running Ray cluster (default: Ray on this machine alone)")
    p.add_argument("--sync", action="store_true",
                   help="train nothing: bring the MLflow store to what the output's result folders say, and close runs that a "
                        "killed process left open")
    p.add_argument("--no-report", action="store_true", help="leave the report out")
    return p


class _Settings(argparse.Action):
    """Adds to the settings of an earlier --set, in place of those that have the same keys there."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _: str | None = None) -> None:
        keys = {pair.partition("=")[0] for pair in values}
        earlier = [pair for pair in getattr(namespace, self.dest) if pair.partition("=")[0] not in keys]
        setattr(namespace, self.dest, [*earlier, *values])


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a seed; give whole numbers from 0")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def _budget(text: str) -> str:
    if not text[:-1].isdecimal() or int(text[:-1]) == 0 or text[-1] not in "mhd":
        raise argparse.ArgumentTypeError(f"'{text}' is not a time; give a whole number of minutes, hours or days: 90m, 24h, 2d")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    if not sys.stderr.isatty():
        # Progress bars in a log file: a line every half minute is enough. Read by tqdm when it is first imported.
        os.environ.setdefault("TQDM_MININTERVAL", "30")
    from benchmarks import interrupts

    try:
        with interrupts.caught():
            return _main(arguments)
    except KeyboardInterrupt as error:
        print("\ninterrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        return interrupts.status(error)


def _main(arguments: Sequence[str] | None) -> int:
    from tcn.files import earlier

    options = parser().parse_args(earlier.options(sys.argv[1:] if arguments is None else arguments))
    from benchmarks import provenance
    from tcn.config import InputError
    from tcn.model.execution import keep_memory, same_products

    keep_memory()
    same_products()
    try:
        provenance.check_checkout(Path(__file__))
        provenance.commit()  # now, not at the first run: the code in memory is of now
        return _check(options) if options.check else _recorded(options) if options.sync or options.reproduce else _run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _recorded(options: argparse.Namespace) -> int:
    from benchmarks import prepared, recorded

    return recorded.sync(options) if options.sync else recorded.repeat(options, prepared.data_root(options))


def _run(options: argparse.Namespace) -> int:
    import reports.render.command  # noqa: F401  read now: the report is made by the code as it is when the call starts
    from benchmarks import everything, picture_sheets, prepared, provenance
    from benchmarks.launch.chosen import launcher
    from benchmarks.store import SuiteFolder

    planned, checks = prepared.prepare(options)
    if options.dry_run:
        _dry_run(planned, options)
        checks.stop(planned.runs)
        return 0
    call, cut = everything.within_budget(planned, options, _calibration(planned, options))
    created = provenance.now()
    launched, gpus = launcher(options, call.device, call.output), options.gpus_per_run or 1
    suite = SuiteFolder(call.output, call.profile, options.quick, options.as_released)
    print(f"{_runs(len(call.folders))}, profile {call.profile}{' as released' if options.as_released else ''}"
          f"{' (smoke run)' if options.quick else ''}, "
          f"{provenance.device_name(call.device)}, results in {call.output}")
    if launched:
        threads = launched.share.threads
        print(f"{launched.about}; {threads} CPU thread{'' if threads == 1 else 's'} a "
              f"{'run' if gpus == 1 else f'process, {gpus} processes a run'}", flush=True)
    failures: dict[str, str] = {}
    suite.write(call.folders, call.missing, created, provenance.command(),
                (cut.record(planned.folders) if cut else {}) if options.everything else None)
    if options.everything:
        print(f"the report so far, at any time: python reports/render.py --results {call.output}", flush=True)
    with_extension = options.everything and not (cut and cut.extension)
    mirror, trained, skipped = _compute(call, suite, launched, failures, with_extension, gpus)
    if not options.no_report:
        picture_sheets.write_all(call.output, call.folders, call.material)
    page = None if options.no_report else _report(call.output, mirror, failures)
    mirror.close("FAILED" if failures else "FINISHED")
    print(f"{_runs(trained)} done, {skipped} already finished, {len(failures)} failed\n")
    if options.quick:
        print("smoke run: an epoch a run or so; these numbers say nothing about the method\n")
    _say_results(call.output, page, failures)
    return 1 if failures else 0


def _compute(call: Prepared, suite: SuiteFolder, launched: Launcher | None, failures: dict[str, str], with_extension: bool,
             gpus: int) -> tuple[Mirror, int, int]:
    """Run what is not finished, each run on `gpus` devices; failures are added to `failures`. Returns the suite's mirror, and how
    many runs ended well and how many were skipped."""
    from benchmarks import everything, provenance
    from benchmarks.launch.driver import execute_all
    from benchmarks.launch.local import run_in_turn
    from benchmarks.mirror import Mirror
    from tcn.config import InputError

    mirror = Mirror(suite, provenance.command())
    mirror.close_stale()
    try:
        if launched:
            trained, skipped = execute_all(call.folders, call.material, mirror, launched, failures, in_order=bool(call.blocks))
        else:
            trained, skipped = run_in_turn(call.folders, call.material, mirror, call.device, failures, gpus)
        if with_extension:
            try:
                everything.run_extension(call.output, call.device, call.quick)
            except InputError as error:
                failures["extension"] = str(error)
    except BaseException:
        mirror.close("KILLED")
        raise
    if not mirror.alive:  # it may be back by now
        mirror = Mirror(suite, provenance.command())
        for folder in call.folders:
            mirror.settle(folder)
    return mirror, trained, skipped


def _say_results(output: Path, page: Path | None, failures: dict[str, str]) -> None:
    """Print the result table, what failed, and where the report is."""
    from reports.read.files import ReportError
    from reports.render.command import headline_text

    try:
        print(headline_text(output))
    except ReportError as error:  # results that can't be read are named, and cost nothing else
        failures.setdefault("report", str(error))
    for run_name, reason in failures.items():
        print(f"failed: {run_name}: {reason}", file=sys.stderr)
    if page:
        print(f"report: {page}")


def _check(options: argparse.Namespace) -> int:
    """Try variants of the user's own; needs neither data nor weights."""
    from benchmarks import checking, experiments, prepared

    prepared.keep_only("--check runs nothing", options, "check")
    faults = 0
    for variant in experiments.expand_variants(options.check):
        found = checking.check(variant)
        faults += len(found.faults)
        print(found.text(), flush=True)
    return 1 if faults else 0


def _report(output: Path, mirror: Mirror, failures: dict[str, str]) -> Path | None:
    """Render the report; a failure there is one of the call's failures, and costs no result."""
    import traceback

    from benchmarks.launch.board import duration
    from reports.read.files import ReportError
    from reports.render.command import render

    started = time.perf_counter()
    try:
        page = render(output, output / "report")
    except ReportError as error:
        failures["report"] = str(error)
        return None
    except Exception as error:  # whatever breaks a picture must not hide the table below
        traceback.print_exc()
        failures["report"] = f"{type(error).__name__}: {error}"
        return None
    mirror.report(output / "report")
    print(f"report rendered in {duration(time.perf_counter() - started)}")
    return page


def _runs(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"


def _calibration(call: Prepared, options: argparse.Namespace) -> Calibration:
    from benchmarks.launch.calibration import Calibration

    return Calibration(call.material.places.cache, call.device, options.calibrate,
                       lambda line: print(line, file=sys.stderr, flush=True))


def _dry_run(call: Prepared, options: argparse.Namespace) -> None:
    """Print what each run (of everything: each row) feeds and costs, and what disk and memory all of it needs."""
    from benchmarks import everything
    from benchmarks.launch import cost

    calibration = _calibration(call, options)
    call, cut = everything.within_budget(call, options, calibration)
    result = cost.estimate(call.runs, call.output, call.material, calibration, call.missing)
    table = result.by_row() if options.everything else result.table()
    print(table.to_string(index=False, justify="left", max_colwidth=90))
    print("\n" + "\n".join(result.lines))
    if (options.gpus_per_run or 1) > 1:
        print("these rates are of one GPU for each run: what several GPUs a run gain was not measured")
    if options.everything and not (cut and cut.extension):
        print(f"and the extension on digits, {everything.extension_seconds(call) / 3600:.2f} h if none of it is finished")


if __name__ == "__main__":
    sys.exit(main())
