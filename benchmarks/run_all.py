"""The command: plan, run, report.

`python benchmarks/run_all.py` trains and scores what the profile lists, skips what is finished, resumes what was
interrupted, mirrors everything into MLflow and renders the report. No science lives here.
"""
from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Sequence

import yaml

EPILOG = """
what runs
  Without a data root the laptop profile runs: real drawings by seven publishers (data set `emoji`), small network,
  about a quarter of an hour on 2 cores. With --data-root (or $TCN_DATA) the paper profile runs on those of Sketchy,
  TU-Berlin and QuickDraw that are found there; missing ones are named and left out.

examples
  python benchmarks/run_all.py                                  the laptop story, one seed
  python benchmarks/run_all.py --seeds 0 1 2                    the same with three seeds (finished cells are kept)
  python benchmarks/run_all.py --variants main leave-one-out    other variants, or groups of them
  python benchmarks/run_all.py --quick                          the whole chain in under 3 minutes, marked a smoke run
  python benchmarks/run_all.py --variants ledger                what each trap of the released code is worth
  python benchmarks/run_all.py --as-released                    everything with all of them, in results/PROFILE-as-released
  python benchmarks/run_all.py --reproduce RUN                  repeat a run bit for bit, or say what differs
  python benchmarks/run_all.py --dry-run                        the plan only: cells, what they feed, what is done
  python benchmarks/run_all.py --data-root /data --device cuda --words GoogleNews-vectors-negative300.bin
                                                                the paper's data sets on a GPU

results
  One folder a cell under OUTPUT/cells, the MLflow store in OUTPUT/mlflow.db (or $MLFLOW_TRACKING_URI), the report in
  OUTPUT/report/index.html. `make ui` opens MLflow on the loopback address.

exit status
  0 all cells finished (--reproduce: the run agrees); 1 some cell failed (the others ran; the reason is printed), or
  the repeated run differs; 2 bad input; 130 interrupted.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from baselines import GROUPS, VARIANTS

    p = argparse.ArgumentParser(prog="python benchmarks/run_all.py", epilog=EPILOG,
                                formatter_class=argparse.RawDescriptionHelpFormatter,
                                description="Train and score the Transferable Coupled Network and its comparisons, "
                                            "skip what is done, and render tables, figures and a page.")
    p.add_argument("--profile", choices=("laptop", "paper"), help="default: paper with a data root, else laptop")
    p.add_argument("--datasets", nargs="+", metavar="NAME", help="emoji; or sketchy, tuberlin, quickdraw (default: all)")
    p.add_argument("--variants", nargs="+", metavar="NAME",
                   help=f"variants or groups (default: floors main). Variants: {', '.join(VARIANTS)}. "
                        f"Groups: {', '.join(GROUPS)}")
    p.add_argument("--seeds", nargs="+", type=_seed, metavar="N", help="default: 0 on the laptop, 2020 for the paper")
    p.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: auto, the first GPU or the CPU)")
    p.add_argument("--output", type=Path, metavar="DIR", help="default: results/PROFILE (results/PROFILE-smoke with --quick)")
    p.add_argument("--data-root", type=Path, metavar="DIR", help="where the paper's data sets are (default: $TCN_DATA)")
    p.add_argument("--cache", type=Path, metavar="DIR", help="decoded images and the emoji pictures (default: $TCN_CACHE, "
                                                             "else .cache in the project)")
    p.add_argument("--emoji-tarballs", type=Path, metavar="DIR", help="folder of the npm packages' .tgz files, for "
                                                                      "machines without npm or network")
    p.add_argument("--words", type=Path, metavar="FILE", help="word vectors: word2vec binary, GloVe text, or CSV table")
    p.add_argument("--weights", type=Path, metavar="FILE", help="ImageNet weights of the encoders (PyTorch state dict)")
    p.add_argument("--teacher-weights", type=Path, metavar="FILE", help="the same for the teacher (default: --weights)")
    p.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides",
                   help="replace settings of every cell, e.g. --set training.epochs=4 losses.sharing=100")
    p.add_argument("--threads", type=_count, metavar="N", help="CPU threads (default: all cores); results are bit-identical "
                                                               "only at an equal number")
    p.add_argument("--as-released", action="store_true",
                   help="turn on every trap of the released code that has a setting (baselines/ledger.py); with the paper "
                        "profile, rates, epochs and seed are the released ones anyway")
    p.add_argument("--lists", metavar="DIR|none", default="auto",
                   help="list files of the paper's data sets: found beside the data (default), `none` to go by the folders "
                        "alone, or the folder that holds them")
    p.add_argument("--reproduce", metavar="RUN",
                   help="repeat one finished run and say whether it agrees: its folder, folder name, identity or MLflow run id")
    p.add_argument("--tolerance", type=float, metavar="X",
                   help="with --reproduce: largest difference of a metric that still agrees (default: 0 where commit, device, "
                        "threads and versions are the same, else 0.04)")
    p.add_argument("--quick", action="store_true", help="one epoch a cell: checks the chain, not the science")
    p.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    p.add_argument("--no-report", action="store_true", help="leave the report out")
    return p


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is no seed; give whole numbers from 0")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of threads")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    if not sys.stderr.isatty():
        # Progress bars in a log file: a line every half minute is enough. Read by tqdm when it is first imported.
        os.environ.setdefault("TQDM_MININTERVAL", "30")
    options = parser().parse_args(arguments)
    # Ends like Ctrl-C: the cell is marked interrupted and resumes at its last epoch.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from tcn.config import InputError

    try:
        return _run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    import torch

    from benchmarks import experiments, provenance
    from benchmarks.store import CellFolder, Mirror, Suite
    from tcn import backbones, datasets
    from tcn.config import InputError

    root = options.data_root or (Path(os.environ["TCN_DATA"]) if os.environ.get("TCN_DATA") else None)
    if options.reproduce:
        return _reproduce(options, root)
    if options.tolerance is not None:
        raise InputError("--tolerance belongs to --reproduce")
    name = options.profile or ("paper" if root else "laptop")
    if options.profile is None and root is None:
        print("no data root (--data-root or $TCN_DATA): running the laptop profile on the emoji drawings")
    profile = experiments.PROFILES[name]
    if options.threads:
        torch.set_num_threads(options.threads)
    device = _device(options.device)
    overrides = _overrides(options.overrides)
    overrides["network.weights"] = backbones.weights_setting(options.weights)
    overrides["network.teacher_weights"] = backbones.weights_setting(options.teacher_weights or options.weights)
    cells = experiments.plan(profile, options.datasets, options.variants, options.seeds, overrides, options.quick,
                             options.as_released)
    for backbone in {cell.config.network.backbone for cell in cells}:
        # A wrong file is bad input, said before the first cell, not a failure of each.
        for option, file in (("network.weights", options.weights),
                             ("network.teacher_weights", options.teacher_weights or options.weights)):
            if file:
                backbones.build(backbone, overrides[option], file)
    if name == "paper":
        present, missing = datasets.available(root, sorted({cell.dataset for cell in cells}))
        cells = [cell for cell in cells if cell.dataset in present]
    else:
        missing = {}
    for dataset, reason in missing.items():
        print(f"missing: {dataset}: {reason}")
    if not cells:
        raise InputError("none of the data sets asked for is present; see the lines above, or run --profile laptop")
    suffix = ("-as-released" if options.as_released else "") + ("-smoke" if options.quick else "")
    output = options.output or provenance.ROOT / "results" / (name + suffix)
    places = _places(options, root)
    if options.dry_run:
        return _dry_run(cells, profile, output, places)
    created = provenance.now()
    suite = Suite(output, name, options.quick, options.as_released)
    print(f"{_cells(len(cells))}, profile {name}{' as released' if options.as_released else ''}"
          f"{' (smoke run)' if options.quick else ''}, "
          f"{provenance.device_name(device)}, results in {output}")

    from benchmarks.runner import Material
    from reports.render import headline_text

    material = Material(places)
    folders, failures = [], {}
    for cell in cells:
        try:
            folders.append(CellFolder(output, cell, material.identity(cell.config)))
        except InputError as error:
            failures[cell.name] = str(error)
    if failures and not folders:
        raise InputError("; ".join(dict.fromkeys(failures.values())))
    suite.write(folders, missing, created, provenance.command())
    mirror = Mirror(suite, provenance.command())
    try:
        trained, skipped = _run_cells(folders, material, mirror, device, failures)
    except KeyboardInterrupt:
        mirror.close("KILLED")
        raise
    page = None
    if not options.no_report:
        page = _report(output, mirror, failures)
    mirror.close("FAILED" if failures else "FINISHED")
    print(f"{_cells(trained)} run, {skipped} already finished, {len(failures)} failed\n")
    if options.quick:
        print("smoke run: an epoch a cell or so; these numbers say nothing about the method\n")
    print(headline_text(output))
    for cell_name, reason in failures.items():
        print(f"failed: {cell_name}: {reason}", file=sys.stderr)
    if page:
        print(f"report: {page}")
    return 1 if failures else 0


def _reproduce(options: argparse.Namespace, root: Path | None) -> int:
    import torch

    from benchmarks import provenance, reproduce
    from benchmarks.runner import Material
    from tcn.config import InputError

    ignored = [f"--{name.replace('_', '-')}" for name in ("profile", "datasets", "variants", "seeds", "overrides", "quick",
                                                           "dry_run", "as_released") if getattr(options, name)]
    if ignored:
        raise InputError(f"--reproduce repeats a run as it was; leave out {', '.join(ignored)}".replace("--overrides", "--set"))
    folder = reproduce.find(options.reproduce, options.output, provenance.ROOT / "results")
    original = reproduce.read(folder)
    # Sums depend on the number of threads: without word from the user, take the original's.
    threads = options.threads or original.provenance.get("threads")
    if threads:
        torch.set_num_threads(int(threads))
    device = _device(options.device)
    print(f"repeating {original.folder.name} on {provenance.device_name(device)}, {torch.get_num_threads()} threads", flush=True)
    started = time.perf_counter()
    result = reproduce.reproduce(original, Material(_places(options, root)), device, options.tolerance, provenance.command())
    print(f"{result.text()}\n  took {_duration(time.perf_counter() - started)}; written to "
          f"{original.suite / reproduce.FOLDER / (original.folder.name + '.json')}")
    if not options.no_report:
        from reports.render import render

        print(f"report: {render(original.suite, original.suite / 'report')}")
    return 0 if result.agrees else 1


def _report(output: Path, mirror: Any, failures: dict[str, str]) -> Path | None:
    """Render the report; a failure there is one of the call's failures, and costs no result."""
    import traceback

    from reports.render import render

    started = time.perf_counter()
    try:
        page = render(output, output / "report")
    except Exception as error:  # whatever breaks a picture must not hide the table below
        traceback.print_exc()
        failures["report"] = f"{type(error).__name__}: {error}"
        return None
    mirror.report(output / "report")
    print(f"report rendered in {_duration(time.perf_counter() - started)}")
    return page


def _run_cells(folders: Sequence[Any], material: Any, mirror: Any, device: Any, failures: dict[str, str]
               ) -> tuple[int, int]:
    """Run what is not finished; failures are added to `failures`. Returns how many ran well and how many were skipped."""
    from benchmarks.runner import describe, run_cell

    trained = skipped = 0
    for number, folder in enumerate(folders, 1):
        if folder.state == "finished":
            skipped += 1
            if mirror.alive and not mirror.has(folder):
                mirror.copy(folder, describe(material.split(folder.cell.dataset, folder.cell.split)))
            continue
        label = f"[{number}/{len(folders)}] {folder.cell.variant} seed {folder.cell.seed}"
        resumed = f", resumed after epoch {folder.epochs_done}" if folder.epochs_done else ""
        print(f"{label} on {folder.cell.dataset} {folder.cell.split}{resumed}", flush=True)
        started = time.perf_counter()
        reason = run_cell(folder.cell, folder, material, mirror, device, label)
        if reason:
            failures[folder.cell.name] = reason
            print(f"  failed: {reason}", file=sys.stderr)
        else:
            trained += 1
            print(f"  finished in {_duration(time.perf_counter() - started)}", flush=True)
    return trained, skipped


def _device(name: str) -> Any:
    import torch

    from tcn.config import InputError

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise InputError(f"--device {name} can't be used here ({reason}); try --device cpu") from error
    return device


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    from tcn.config import InputError

    values = {}
    for pair in pairs:
        key, found, text = pair.partition("=")
        if not found:
            raise InputError(f"--set takes KEY=VALUE, got '{pair}'")
        if key in ("seed", "method", "data.dataset", "data.split"):
            raise InputError(f"--set can't change '{key}'; use --seeds, --variants or --datasets")
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


def _places(options: argparse.Namespace, root: Path | None) -> Any:
    from benchmarks import provenance
    from benchmarks.runner import Places
    from tcn.config import InputError

    cache = options.cache or Path(os.environ.get("TCN_CACHE") or provenance.ROOT / ".cache")
    for option in ("words", "emoji_tarballs"):
        path = getattr(options, option)
        if path is not None and not path.exists():
            raise InputError(f"--{option.replace('_', '-')} {path} does not exist; check the path")
    lists = None if options.lists == "none" else options.lists
    return Places(cache.resolve(), root, options.words, options.weights, options.teacher_weights or options.weights,
                  options.emoji_tarballs, lists if lists in (None, "auto") else Path(lists))


def _cells(number: int) -> str:
    return f"{number} cell{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def _dry_run(cells: Sequence[Any], profile: Any, output: Path, places: Any) -> int:
    import pandas as pd

    from benchmarks.experiments import FEEDS
    from benchmarks.runner import Material
    from benchmarks.store import CellFolder
    from tcn import emoji
    from tcn.config import InputError

    # A plan fetches nothing: what has to be built first is shown as to do.
    ready = {c.dataset for c in cells if c.dataset != "emoji" or emoji.find_built(places.cache)}
    material, rows, total, unknown = Material(places), [], 0.0, 0
    rate, measured = _rate(output, profile)
    for cell in cells:
        state, seconds = "to do", 0.0
        if cell.dataset in ready:
            try:
                folder = CellFolder(output, cell, material.identity(cell.config))
                if folder.state != "new":
                    state = f"{folder.state}, {folder.epochs_done}/{cell.config.training.epochs} epochs" \
                        if cell.trained else folder.state
                pairs = len(material.split(cell.dataset, cell.split).train_photos.paths)
                left = cell.config.training.epochs - folder.epochs_done
            except InputError as error:
                rows.append((cell.dataset, cell.split, cell.variant, cell.seed, f"can't run: {error}", "", ""))
                continue
        else:
            state, pairs, left = "to do (data set not built yet)", None, cell.config.training.epochs
        if state == "finished" or state.startswith("finished"):
            estimate = "0"
        elif not cell.trained:
            estimate = "under a minute"
            seconds = 20.0
        elif rate and pairs:
            seconds = pairs * left / rate
            estimate = _duration(seconds)
        else:
            estimate, unknown = "unknown", unknown + 1
        total += seconds
        rows.append((cell.dataset, cell.split, cell.variant, cell.seed, state, estimate, FEEDS.get(cell.variant, "")))
    table = pd.DataFrame(rows, columns=["data set", "split", "variant", "seed", "state", "time", "feeds"])
    print(table.to_string(index=False, justify="left", max_colwidth=90))
    source = "median of finished cells here" if measured else "assumed; measured once a cell has finished here"
    print(f"\n{len(cells)} cells; about {_duration(total)} left" + (f", {unknown} of unknown length" if unknown else "")
          + (f" (at {rate:.0f} pairs/s, {source})" if rate else " (no rate is known for this profile until a cell has run)"))
    if places.cache.exists():
        print(f"free disk at {places.cache}: {shutil.disk_usage(places.cache).free / 1e9:.0f} GB")
    return 0


def _rate(output: Path, profile: Any) -> tuple[float | None, bool]:
    """Training pairs per second: the median over histories in `output`, else the profile's assumption."""
    import pandas as pd

    rates = []
    for path in output.glob("cells/*/history.csv"):
        column = pd.read_csv(path).get("pairs_per_second")
        rates += [] if column is None else column.dropna().tolist()
    return (float(pd.Series(rates).median()), True) if rates else (profile.pairs_per_second, False)


if __name__ == "__main__":
    sys.exit(main())
