"""Beyond the paper: drawings of another data set as queries, against the photos that a run's own sketches are scored on.

`python benchmarks/cross_dataset.py OUTPUT --drawings DIR` takes the network of each finished run in OUTPUT from its checkpoint
and encodes the drawings in DIR (class folders, as `python -m tcn quickdraw` makes them). It scores two sets of queries: in
domain, the data set's own sketches, and cross-domain, the drawings. Both have the same classes, none of which the run has seen,
and the run's whole gallery of unseen photos. With `--seen-too` the drawings of seen classes are queries as well, beside sketches
that were held out from training, and the gallery is all photos, those of training among them; seen and unseen classes then have
rows of their own. Nothing is trained, and nothing is chosen by these numbers. They go to OUTPUT/cross-dataset/RUN__DIGEST.json
(with `--seen-too` RUN__DIGEST__all.json) for each run, which the report shows; the run's own folder is not changed.
"""
from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import preflight, prepared, provenance, reproduce, runner
from benchmarks.extraction import Encoder
from benchmarks.material import Material
from benchmarks.records import read_json, write_json
from benchmarks.scoring import HEADLINE, METRICS
from benchmarks.store import CROSS_DATASET, RunFolder
from benchmarks.threads import check_threads, limit_threads
from tcn.cli.ending import ending
from tcn.config import GENERALISED, Config, InputError, Modality
from tcn.data import strokes
from tcn.data.decode import Reading
from tcn.data.pixels import Pixels
from tcn.data.splits import Files, Split
from tcn.data.store import pack
from tcn.data.words import normal_form
from tcn.files import earlier
from tcn.files.atomic import writable
from tcn.files.text import some
from tcn.scoring import scores

ENDINGS = (".png", ".jpg", ".jpeg")
COMPARED = 64
"""Number of the run's queries that are encoded again, to check that the network is the one that was scored."""
AGREE = 1e-2
"""Largest difference between two features, as a share of the largest feature, that another device or number of threads may
cause."""


@dataclass(frozen=True)
class Drawings:
    """A folder of drawings, with one folder for each class."""

    folder: Path
    name: str
    digest: str
    settings: Mapping[str, Any]
    """The settings with which this project made the pictures; empty if it did not make them."""


@dataclass(frozen=True)
class DomainRow:
    """The value of one metric in one domain."""

    domain: str
    """`in-domain` or `cross-domain`."""
    classes: str
    """Of the queries: `unseen`, `seen` or `all`."""
    protocol: str
    metric: str
    value: float
    standard_error: float
    chance: float
    ceiling: float
    queries: int
    photos: int


def read_drawings(folder: Path) -> Drawings:
    """The name, digest and settings of a folder of drawings. InputError if it is not a folder, or if its numbers of pictures have
    changed since it was made."""
    if not folder.is_dir():
        raise InputError(f"--drawings {folder} is no folder; make one with `python -m tcn quickdraw`")
    made = strokes.read_manifest(folder)
    if made is None:
        lines = [f"{name}/{path.name}\t{path.stat().st_size}" for name, paths in _pictures(folder).items() for path in paths]
        return Drawings(folder, folder.name, hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest(), {})
    counts = {name: len(paths) for name, paths in _pictures(folder).items()}
    if counts != made["classes"]:
        odd = sorted(name for name in {*counts, *made["classes"]} if counts.get(name) != made["classes"].get(name))
        raise InputError(f"{folder} has other numbers of pictures than when it was made: {some(odd, 5)}; remove it and make it "
                         "again with `python -m tcn quickdraw`")
    return Drawings(folder, "QuickDraw", made["digest"], made["settings"])


def _pictures(folder: Path) -> dict[str, list[Path]]:
    """Class folder -> its pictures, both by name."""
    return {one.name: sorted(path for path in one.iterdir() if path.suffix.lower() in ENDINGS)
            for one in sorted(folder.iterdir()) if one.is_dir() and not one.name.startswith(".")}


def queries_for(split: Split, drawings: Drawings, seen_too: bool) -> Files:
    """The drawings of the split's unseen classes, or also of its seen ones, ordered by class, then name. InputError if there are
    none of unseen classes."""
    label_of = {normal_form(name): label for label, name in enumerate(split.classes)
                if name in split.unseen or seen_too and name in split.seen}
    found = sorted((label_of[normal_form(name)], path.relative_to(drawings.folder).as_posix())
                   for name, paths in _pictures(drawings.folder).items() if normal_form(name) in label_of for path in paths)
    if not any(split.classes[label] in split.unseen for label, _ in found):
        raise InputError(f"{drawings.folder} holds no picture of an unseen class of {split.dataset} {split.name} "
                         f"({some(split.unseen, 5)})")
    return Files(drawings.folder, tuple(path for _, path in found), np.array([label for label, _ in found], dtype=np.int64),
                 ("",) * len(found))


def score_domains(query: np.ndarray, query_labels: np.ndarray, drawn: np.ndarray, drawn_labels: np.ndarray, gallery: np.ndarray,
                  gallery_labels: np.ndarray, classes: str, among: Collection[str], config: Config, device: torch.device
                  ) -> list[DomainRow]:
    """Score the run's own queries, and the drawings, of the classes `among` that both have, against the whole gallery;
    real-valued features.

    query [Nq, D], drawn [Nd, D], gallery [Ng, D]; labels are names of classes, and `classes` is what the rows call those `among`.
    InputError if the two have none of them in common.
    """
    common = [name for name in np.intersect1d(query_labels, drawn_labels) if name in among]
    rows = []
    for domain, features, labels in (("in-domain", query, query_labels), ("cross-domain", drawn, drawn_labels)):
        of_common = np.isin(labels, common)
        if not of_common.any():
            raise InputError(f"the drawings and the run's sketches have none of the {classes} classes in common")
        found = scores.score(features[of_common], gallery, labels[of_common], gallery_labels, protocols=HEADLINE,
                             ties=config.evaluation.ties, missing_classes=config.evaluation.missing_classes, device=device)
        rows += [DomainRow(domain, classes, protocol, metric, found.value(protocol, metric), found.error(protocol, metric),
                           found.chance(protocol, metric), found.ceiling(protocol, metric), found.queries, found.photos)
                 for protocol in found.protocols for metric in METRICS if metric in found.metrics(protocol)]
    return rows


def score_run(folder: RunFolder, drawings: Drawings, material: Material, device: torch.device, seen_too: bool) -> Path:
    """Score the drawings with the network of a finished run, and write the file of its numbers; returns the file's path.
    seen_too: also those of seen classes, against all photos. InputError if the run, the drawings and the data do not fit
    together."""
    run, config = folder.run, folder.run.config
    if config.data.dataset.endswith(GENERALISED):
        raise InputError(f"{folder.path.name} has a generalised gallery, and this comparison is of unseen photos alone; name "
                         "other runs")
    reproduce.check_material(reproduce.read(folder.path), material)
    split = material.split_of(config)
    files = queries_for(split, drawings, seen_too)
    data = config.data
    pixels = pack(files, data.stored_size, material.places.cache, drawings.digest, f"drawings {drawings.name}",
                  material.places.progress, Reading(data.transparent, data.exif))
    with np.load(folder.path / "features.npz", allow_pickle=False) as stored:
        own = {name: stored[name] for name in ("query", "gallery", "query_labels", "gallery_labels")}
    encoder = Encoder(runner.rebuilt(folder, material, device), config, material, device)
    check_network(own["query"], encoder, material, folder.path.name)
    names = np.array(split.classes)[files.labels]
    groups: dict[str, Collection[str]] = {"unseen": split.unseen}
    if seen_too:
        groups |= {"seen": split.seen, "all": split.classes}
        for part, role, modality in (("query", "heldout_sketches", Modality.SKETCH), ("gallery", "train_photos", Modality.PHOTO)):
            more = material.pixels(config, role)
            if len(more):
                own[part] = np.concatenate([own[part], encoder(more, modality)])
                own[f"{part}_labels"] = np.concatenate([own[f"{part}_labels"], np.array(split.classes)[more.files.labels]])
    drawn = encoder(pixels, Modality.SKETCH)
    rows = [row for name, among in groups.items()
            for row in score_domains(own["query"], own["query_labels"], drawn, names, own["gallery"], own["gallery_labels"],
                                     name, among, config, device)]
    path = folder.path.parent.parent / CROSS_DATASET / f"{folder.path.name}__{drawings.digest[:8]}{'__all' * seen_too}.json"
    write_json(path, {
        "run": folder.path.name, "identity": folder.identity, "dataset": run.dataset, "split": run.split, "variant": run.variant,
        "seed": run.seed, "drawings": {"name": drawings.name, "digest": drawings.digest, "settings": drawings.settings},
        "gallery": "all" if seen_too else "unseen", "unseen": sorted(split.unseen),
        "classes": np.intersect1d(own["query_labels"], names).tolist(), "rows": [asdict(row) for row in rows],
        **{key: value for key, value in provenance.collect(device).items() if key != "versions"}})
    return path


def check_network(stored: np.ndarray, encoder: Encoder, material: Material, name: str) -> None:
    """Raise InputError if the rebuilt network gives other features than those that the run recorded."""
    every = material.pixels(encoder.config, "query")
    few = np.arange(min(COMPARED, len(every)))
    files = every.files
    first = Pixels(np.asarray(every.array[few]),
                   Files(files.root, files.paths[:len(few)], files.labels[:len(few)], ("",) * len(few)))
    again = encoder(first, Modality.SKETCH)
    off = float(np.abs(again - stored[few]).max() / np.abs(stored[few]).max()) if again.shape == stored[few].shape else np.inf
    if not off <= AGREE:
        raise InputError(f"{name}: the network gives other features than its features.npz holds (largest difference {off:.2g} of "
                         f"the largest value): other weights (--weights), or a damaged folder")


# --- the command ---------------------------------------------------------------------------------------------

def find_runs(places: Sequence[Path]) -> list[RunFolder]:
    """The finished runs at these places. A place is the folder of one run, or an output folder, which stands for all its finished
    runs."""
    found = []
    for place in places:
        path = place.expanduser().resolve()
        folders = [path] if (path / "config.json").exists() else sorted(earlier.runs_folder(path).glob("*"))
        finished = [one for one in folders if (one / "status.json").exists()
                    and read_json(one / "status.json").get("state") == "finished"]
        if not finished:
            raise InputError(f"{place}: no finished run; give the folder of one, below OUTPUT/runs, or OUTPUT itself")
        found += [RunFolder.read(one) for one in finished]
    return found


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python benchmarks/cross_dataset.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs, or output folders")
    p.add_argument("--drawings", type=Path, required=True, metavar="DIR",
                   help="class folders of drawings: python -m tcn quickdraw")
    p.add_argument("--seen-too", action="store_true", help="seen classes' drawings and photos, too, in rows of their own")
    p.add_argument("--no-report", action="store_true", help="leave the report as it is")
    prepared.add_places(p)
    return p


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """Score the drawings with every run named. Returns 0 if all were scored, 1 if some could not be, 2 for bad usage."""
    return _run(_parser().parse_args(arguments))


def _run(options: argparse.Namespace) -> int:
    provenance.check_checkout(Path(__file__))
    if options.threads is not None:
        if options.threads < 1:
            raise InputError(f"--threads {options.threads}: give a whole number from 1")
        check_threads(options.threads)
        limit_threads(options.threads)
    checks = preflight.Checks()
    device = checks.ask(lambda: prepared.device_named(options.device))
    material = Material(prepared.places_of(options, prepared.data_root(options), checks))
    drawings = checks.ask(lambda: read_drawings(options.drawings))
    folders = checks.ask(lambda: find_runs(options.runs))
    checks.stop()
    assert device is not None and drawings is not None and folders is not None  # otherwise `checks.stop` has raised
    failed = 0
    for number, folder in enumerate(folders, 1):
        label = f"[{number}/{len(folders)}] {folder.path.name}"
        try:
            writable(folder.path.parent.parent, "the output folder", "folder: copy the results to where you may write")
            path = score_run(folder, drawings, material, device, options.seen_too)
        except InputError as error:
            failed += 1
            print(f"{label}: not scored: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{label}: {_line(read_json(path)['rows'])}", flush=True)
    if not options.no_report and failed < len(folders):
        from reports.render.command import render

        for output in dict.fromkeys(folder.path.parent.parent for folder in folders):
            print(f"report: {render(output, output / 'report')}")
    return 1 if failed else 0


def _line(rows: Sequence[Mapping[str, Any]]) -> str:
    values = [row for row in rows if (row["protocol"], row["metric"]) == (HEADLINE[0], METRICS[0])]
    several = len({row["classes"] for row in rows}) > 1
    return f"{METRICS[0]}, {HEADLINE[0]}: " + ", ".join(
        f"{row['domain']}{', ' * several}{row['classes'] * several} {row['value']:.3f} (chance {row['chance']:.3f}, "
        f"{row['queries']:,} queries)" for row in values)


if __name__ == "__main__":
    sys.exit(main())
