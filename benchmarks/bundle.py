"""Finished runs in one small file that can be sent: numbers, per-query values, settings, and what they were made of.

In: folders of runs, or output folders. Out: a zip file with the same bytes for the same runs. `tcn verify` works out its numbers
again, and `reports/render.py --bundles` shows it beside other results.
"""
from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.store import damaged
from reports.read.bundles import FILES, FORMAT, MANIFEST, MEMBER
from reports.read.files import ReportError
from reports.read.runs import FOLDER_NAME, FinishedRun, Unfinished, read_run
from tcn.cli.ending import ending
from tcn.config import InputError
from tcn.files import earlier
from tcn.files.atomic import warn, writable_file, writing
from tcn.files.checksums import file_digest

FEATURES = "features.npz"
EPILOG = f"""\
what it holds of each run
  {', '.join(FILES[:-1])}; with --features also {FEATURES}.
  Among them: settings and identity, commit, versions of packages, device, the command line as it was typed (with its paths),
  digests of data, split and words, the protocol version. No picture, no network, and no code.

examples
  tcn bundle results/paper --output mine.zip
  tcn bundle results/laptop/runs/*__tcn__* --features --output tcn.zip

exit status: 0 written; 2 refused, or bad usage.
"""


def finished(path: Path) -> list[FinishedRun]:
    """The run of a run's folder, or all finished runs of an output folder; of these, what can't be sent is named and left out.
    InputError where the folder holds none, or the run can't be sent."""
    if (path / "config.json").is_file():
        return [_whole(path)]
    found = []
    for folder in sorted(each for each in earlier.runs_folder(path).glob("*") if each.is_dir()):
        try:
            found.append(_whole(folder))
        except InputError as error:
            warn(f"left out: {error}")
    if not found:
        raise InputError(f"{path}: no finished run here; give a run's folder (OUTPUT/runs/RUN) or an output folder")
    return found


def _whole(folder: Path) -> FinishedRun:
    try:
        run = read_run(folder)
    except ReportError as error:
        raise InputError(f"{folder}: {error}") from None
    if isinstance(run, Unfinished):
        raise InputError(f"{folder}: not finished ({run.reason}); finish it with the command that began it")
    if bad := damaged(folder):
        raise InputError(f"{folder}: not as it was written: {', '.join(bad)}; fetch the folder again, or run it again")
    if not FOLDER_NAME.match(folder.name) or not MEMBER.fullmatch(f"runs/{folder.name}/config.json"):
        raise InputError(f"{folder}: no name of a run's folder; call it again as the run was called")
    return run


def bundle(runs: Sequence[FinishedRun], output: Path, features: bool) -> list[str]:
    """Write the runs into a zip file; their names. InputError where two folders of one name differ, a run has no features that
    are asked for, or the file's name does not end in .zip; StorageError where it can't be written."""
    if output.suffix != ".zip" or output.is_dir():
        raise InputError(f"--output {output}: give a file whose name ends in .zip")
    members: dict[str, Path] = {}
    listed = []
    for run in sorted({run.folder.resolve(): run for run in runs}.values(), key=lambda run: run.name):
        files = [name for name in FILES if (run.folder / name).is_file() and (features or name != FEATURES)]
        if features and FEATURES not in files:
            raise InputError(f"{run.folder}: no {FEATURES}; leave out --features, or this run")
        listed.append({"folder": run.name, "identity": run.provenance.identity,
                       "protocol_version": run.provenance.protocol_version,
                       "files": {name: file_digest(run.folder / name) for name in files}})
        for name in files:
            if members.setdefault(f"runs/{run.name}/{name}", run.folder / name) != run.folder / name:
                raise InputError(f"{run.folder} and {members[f'runs/{run.name}/{name}'].parent} are of one name; "
                                 "give one of them")
    manifest = json.dumps({"format": FORMAT, "runs": listed}, indent=1, sort_keys=True).encode()
    with writing(output) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in (MANIFEST, *members):
            entry = zipfile.ZipInfo(member)  # of 1980-01-01: the bytes follow from the content alone
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(entry, manifest if member == MANIFEST else members[member].read_bytes())
    return [str(entry["folder"]) for entry in listed]


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tcn bundle", description=__doc__, epilog=EPILOG, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN",
                   help="a run's folder, or an output folder: all finished runs of it")
    p.add_argument("--output", required=True, type=Path, metavar="FILE.zip", help="the file to write")
    p.add_argument("--features", action="store_true",
                   help="with the features: per-query values can then be worked out again, too")
    return p


@ending("interrupted; nothing was written")
def main(arguments: Sequence[str] | None = None) -> int:
    """Bundle what the arguments name; the exit status."""
    options = _parser().parse_args(arguments)
    output = options.output.expanduser()
    writable_file(output, "--output")
    try:
        names = bundle([run for path in options.runs for run in finished(path.expanduser())], output, options.features)
    except OSError as error:
        warn(f"error: {error.filename or output}: {error.strerror or error}")
        return 2
    print(f"{output}: {len(names)} run{'s' * (len(names) != 1)}, {output.stat().st_size / 1e6:,.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
