"""Builds the laptop data set `emoji`: folders of drawings by seven publishers, from their npm packages.

In: package tarballs, fetched by npm or found in a folder. Out: `sketch/<class>/<publisher>.png` and
`photo/<class>/<publisher>.png` on white, a manifest with digests, and the publishers' terms. The paper has no such data set.
Which class has which role is not decided here: `splits/emoji.yaml` is committed.
"""
from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tcn.config import InputError
from tcn.data.emoji_packages import GROUPS, MIN_PHOTOS, MIN_SKETCHES, SIGNS, SOURCES, Concept, EmojiPackage, read_concepts
from tcn.files.atomic import warn
from tcn.files.locks import lock

TARBALLS_VARIABLE = "TCN_EMOJI_TARBALLS"
ROOM_BYTES = 120_000_000
"""Disk the build needs: tarballs, pictures, and room for the temporary copy."""
LOCK = ".emoji.lock"
_SCRATCH = "emoji-building-"


# --- fetching ----------------------------------------------------------------------------------------------------

def _advice(sources: Sequence[EmojiPackage]) -> str:
    lines = "\n".join(f"  npm pack --ignore-scripts {s.package}@{s.version}" for s in sources)
    return (f"Install npm (sudo apt install npm) and make sure the package registry can be reached; or run, on a machine "
            f"that has both,\n{lines}\nand pass the folder with the .tgz files: --emoji-tarballs DIR, or "
            f"{TARBALLS_VARIABLE}=DIR")


def _fetch(sources: Sequence[EmojiPackage], folder: Path, progress: bool) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"the emoji drawings come as npm packages, and npm is not installed. {_advice(sources)}")

    def pack(source: EmojiPackage) -> str | None:
        try:
            done = subprocess.run([npm, "pack", "--ignore-scripts", "--silent", f"{source.package}@{source.version}"],
                                  cwd=folder, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return f"{source.package}: no answer in 300 s"
        if done.returncode or not (folder / source.tarball).exists():
            said = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["npm gave no reason"]
            return f"{source.package}: {said[0].strip()}"
        return None

    with ThreadPoolExecutor(4) as pool:
        answers = list(tqdm(pool.map(pack, sources), total=len(sources), desc="fetch emoji packages (17 MB)", unit="package",
                            disable=not progress, leave=False))
    if problems := [answer for answer in answers if answer]:
        raise InputError(f"the emoji packages could not be fetched ({problems[0]}). {_advice(sources)}")


def _checked(sources: Sequence[EmojiPackage], folder: Path) -> dict[str, Path]:
    """Publisher -> tarball, each held to its pinned digest."""
    missing = [s.tarball for s in sources if not (folder / s.tarball).is_file()]
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}; fetch them with npm pack, at the pinned versions")
    for source in sources:
        found = hashlib.sha256((folder / source.tarball).read_bytes()).hexdigest()
        if source.sha256 and found != source.sha256:
            raise InputError(f"{folder / source.tarball} is not the pinned file (sha256 {found[:12]}…, expected "
                             f"{source.sha256[:12]}…); fetch {source.package}@{source.version} again")
    return {s.publisher: folder / s.tarball for s in sources}


# --- building ----------------------------------------------------------------------------------------------------

_ELSEWHERE = re.compile(r"<(?:\w+:)?(?:image|feImage)\b|<!DOCTYPE|<!ENTITY|<\?xml-stylesheet|@import", re.IGNORECASE)


def rasterise(svg: str, size: int) -> bytes:
    """An SVG as PNG bytes, size x size pixels, on white. InputError where it can't be drawn, or refers to other files."""
    import resvg_py

    # The renderer would draw any picture of this machine that a document names, and unfold entities into names.
    if _ELSEWHERE.search(svg):
        raise InputError("a drawing refers to a file, an embedded picture or an entity of its own; those are not followed")
    try:
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="#ffffff",
                                           skip_system_fonts=True))
    except ValueError as error:
        raise InputError(f"a drawing is no readable SVG ({error})") from error


def _recipe(sources: Sequence[EmojiPackage], size: int) -> str:
    """Names a build before it is made: packages, renderer, size and rules."""
    renderer = importlib.metadata.version("resvg-py")
    text = json.dumps([[(s.publisher, s.package, s.version, s.sha256) for s in sources], renderer, size, GROUPS, SIGNS,
                       MIN_PHOTOS, MIN_SKETCHES, 1])
    return hashlib.sha256(text.encode()).hexdigest()


def find_built(cache: Path, size: int = 128, sources: Sequence[EmojiPackage] = SOURCES) -> Path | None:
    """The finished build in `cache`, every byte of its pictures as it was drawn; None where there is none, or it is damaged,
    which is said."""
    folder = Path(cache) / f"emoji-{_recipe(sources, size)[:12]}"
    if not (folder / "manifest.json").is_file():
        return None
    try:
        # A folder that lost pictures, or bytes of them, is drawn again rather than trained on.
        if whole(folder):
            return folder
        reason = f"pictures in {folder} are not as they were drawn"
    except (InputError, OSError) as error:
        reason = str(error)
    warn(f"{reason}; the emoji data set has to be drawn again")
    return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """A build's manifest; InputError where it is damaged."""
    try:
        found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if not all(isinstance(count, int) for count in found["per_publisher"].values()):
            raise ValueError("a field has another type")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder / 'manifest.json'} can't be read ({error}); delete {folder} and run again") from error


def digest(folder: Path) -> str:
    """sha256 over the names and contents of a build's pictures."""
    return str(read_manifest(folder)["digest"])


def whole(folder: Path) -> bool:
    """Whether a build's pictures are, byte for byte, those that were drawn."""
    digests = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
               for path in folder.glob("*/*/*.png")}
    return _over_all(digests) == read_manifest(folder).get("digest")


def _over_all(digests: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{p} {d}\n" for p, d in sorted(digests.items())).encode()).hexdigest()


def build(cache: Path, tarballs: Path | None = None, size: int = 128, progress: bool = True,
          sources: Sequence[EmojiPackage] = SOURCES) -> Path:
    """The data set's folder in `cache`, built there once: fetched with npm, or read from the folder `tarballs`.

    size: side of the pictures in pixels; `tarballs` defaults to $TCN_EMOJI_TARBALLS. Works offline once built, also from
    a cache that can't be written. Pictures that are no longer as they were drawn are drawn again, which is said. One
    process builds, others wait for it. Raises InputError where npm, the network, a tarball or disk space is missing, saying
    what to do; a failed build leaves nothing behind but its lock, a killed one a folder that the next removes.
    """
    cache = Path(cache)
    if found := find_built(cache, size, sources):
        return found
    given = tarballs or os.environ.get(TARBALLS_VARIABLE) or None
    target = cache / f"emoji-{_recipe(sources, size)[:12]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
        if free < ROOM_BYTES:
            raise InputError(f"no room for the emoji drawings: {ROOM_BYTES / 1e6:.0f} MB are needed in {cache}, "
                             f"{free / 1e6:.0f} MB are free; free some space or pass another folder with --cache")
        with lock(cache / LOCK, "drawing the emoji data set", None):
            if found := find_built(cache, size, sources):
                return found
            for left in cache.glob(f"{_SCRATCH}*"):  # of killed builds: nobody else builds now
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=cache) as scratch:
                folder = Path(given) if given else Path(scratch) / "tarballs"
                if not given:
                    folder.mkdir()
                    _fetch(sources, folder, progress)
                made = Path(scratch) / "made"
                _draw(read_concepts(_checked(sources, folder), sources), made, size, sources, progress)
                if target.exists():
                    os.replace(target, Path(scratch) / "earlier")
                os.replace(made, target)
    except OSError as error:
        raise InputError(f"building the emoji drawings in {cache} failed ({error.strerror or error}); free some space or "
                         f"pass another folder with --cache") from error
    return target


def _draw(concepts: Sequence[Concept], folder: Path, size: int, sources: Sequence[EmojiPackage], progress: bool) -> None:
    by_publisher = {s.publisher: s for s in sources}
    jobs = [(f"{by_publisher[p].modality.value}/{c.name}/{p}.png", svg) for c in concepts for p, svg in sorted(c.svg.items())]

    def one(job: tuple[str, str]) -> tuple[str, str]:
        path, svg = job
        try:
            picture = rasterise(svg, size)
        except InputError as error:
            raise InputError(f"{path}: {error}; fetch the publisher's package again") from error
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture)
        return path, hashlib.sha256(picture).hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = dict(tqdm(pool.map(one, jobs), total=len(jobs), desc="draw emoji", unit="img", disable=not progress,
                            leave=False))
    counts: dict[str, int] = defaultdict(int)
    for path in digests:
        counts[path.rsplit("/", 1)[1].removesuffix(".png")] += 1
    (folder / "LICENSES.md").write_text(_licences(sources), encoding="utf-8")
    manifest = {
        "digest": _over_all(digests),
        "size": size, "pictures": len(digests), "per_publisher": dict(sorted(counts.items())),
        "renderer": f"resvg-py {importlib.metadata.version('resvg-py')}",
        "packages": {s.publisher: {"package": s.package, "version": s.version, "sha256": s.sha256} for s in sources},
        "classes": {c.name: {"hexcode": c.hexcode, "group": c.group} for c in concepts},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")


def _licences(sources: Sequence[EmojiPackage]) -> str:
    lines = ["# Terms of the drawings in this folder", "",
             "Each picture is named after its publisher. All were rasterised from the publisher's SVG, on a white square;",
             "nothing else was changed. They were made on this machine from the packages below and are not part of the",
             "project that made them.", "", "| publisher | side | package | terms |", "|---|---|---|---|"]
    lines += [f"| {s.publisher}: {s.about} (<https://{s.project}>) | {s.modality.value} | {s.package} {s.version} | {s.licence} |"
              for s in sources]
    return "\n".join([*lines, "", "The full texts: creativecommons.org/licenses/by/4.0, creativecommons.org/licenses/by-sa/4.0,",
                      "apache.org/licenses/LICENSE-2.0, opensource.org/license/mit.", ""])
