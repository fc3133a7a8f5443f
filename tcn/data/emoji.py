"""Builds the laptop data set `emoji`: folders of real drawings by seven publishers, from their npm packages.

In: package tarballs, fetched by npm or found in a folder. Out: `sketch/<class>/<publisher>.png` and
`photo/<class>/<publisher>.png` on white, a manifest with digests, and the publishers' terms. Not in the paper.
Knows nothing of splits: which class has which role is committed in `splits/emoji.yaml`.
"""
from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import unicodedata
import zlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from tqdm import tqdm

from tcn.config import InputError, Modality
from tcn.files.atomic import warn
from tcn.files.locks import lock

GROUPS = ("animals-nature", "food-drink", "travel-places", "objects", "activities")
SIGNS = ("time", "sky-weather", "place-map", "money", "mail", "sport")
"""Subgroups left out: mere signs (clock faces, weather symbols, balls)."""
MIN_PHOTOS, MIN_SKETCHES = 4, 2
TARBALLS_VARIABLE = "TCN_EMOJI_TARBALLS"
TABLE = "package/data/openmoji.json"
ROOM_BYTES = 120_000_000
"""Disk the build needs: tarballs, pictures, and room for the temporary copy."""
MEMBER_BYTES, ARCHIVE_BYTES, MEMBERS = 64_000_000, 512_000_000, 100_000
"""Limits of one file of a package, of a whole package unpacked, and of its number of files: several times the pinned ones."""
LOCK = ".emoji.lock"
_SCRATCH = "emoji-building-"


@dataclass(frozen=True)
class Source:
    """One publisher's package: pinned, with the digest of its tarball and its terms."""

    publisher: str
    modality: Modality
    package: str
    version: str
    sha256: str
    licence: str
    about: str
    project: str
    """Address of the publisher's project, for attribution."""

    @property
    def tarball(self) -> str:
        """File name that `npm pack` gives."""
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"


_S, _P = Modality.SKETCH, Modality.PHOTO
SOURCES: tuple[Source, ...] = (
    Source("openmoji", _S, "openmoji", "17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
           "CC BY-SA 4.0", "OpenMoji, the open-source emoji and icon project; black line drawings",
           "openmoji.org"),
    Source("fluent", _S, "@iconify-json/fluent-emoji-high-contrast", "1.2.6",
           "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
           "MIT", "Fluent Emoji High Contrast, Microsoft Corporation; filled pictograms",
           "github.com/microsoft/fluentui-emoji"),
    Source("emojione-monotone", _S, "@iconify-json/emojione-monotone", "1.2.1",
           "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e",
           "CC BY 4.0", "Emoji One (Monotone) 2.2.7, Emoji One; filled pictograms",
           "github.com/EmojiTwo/emojitwo"),
    Source("noto", _P, "@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
           "Apache 2.0", "Noto Emoji, Google Inc",
           "github.com/googlefonts/noto-emoji"),
    Source("noto-v1", _P, "@iconify-json/noto-v1", "1.2.5",
           "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
           "Apache 2.0", "Noto Emoji (v1), Google Inc",
           "github.com/googlefonts/noto-emoji"),
    Source("twemoji", _P, "@iconify-json/twemoji", "1.2.5",
           "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
           "CC BY 4.0", "Twitter Emoji, Twitter and contributors",
           "github.com/jdecked/twemoji"),
    Source("fxemoji", _P, "@iconify-json/fxemoji", "1.2.2",
           "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
           "Apache 2.0", "Firefox OS Emoji, Mozilla",
           "github.com/mozilla/fxemoji"),
    Source("emojione-v1", _P, "@iconify-json/emojione-v1", "1.2.3",
           "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3",
           "CC BY-SA 4.0", "Emoji One (v1) 1.5.2, Emoji One",
           "github.com/joypixels/emojione-legacy"),
)


@dataclass(frozen=True)
class Concept:
    """One class: its name, OpenMoji's code and group, and the SVG text of each publisher that draws it."""

    name: str
    hexcode: str
    group: str
    svg: Mapping[str, str] = field(repr=False)


def class_name(annotation: str) -> str:
    """A concept's annotation as a folder name: lower-case words joined by `_`.

    >>> class_name("hot dog"), class_name("piñata"), class_name("woman's hat")
    ('hot_dog', 'pinata', 'womans_hat')
    """
    return _slug(annotation).replace("-", "_")


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


# --- reading the packages ----------------------------------------------------------------------------------------

def _members(tarball: Path, wanted: Iterable[str] | None = None, prefix: str = "") -> dict[str, bytes]:
    """Contents of the members asked for (or all regular files below `prefix`), in memory: nothing is extracted, so names,
    links and devices in the archive lead nowhere. InputError where it is damaged or too large unpacked."""
    names, found, total = set(wanted or ()), {}, 0
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            for number, member in enumerate(archive, 1):
                total += max(0, member.size)
                # A sparse file's size is what it unfolds to.
                if number > MEMBERS or member.size > MEMBER_BYTES or total > ARCHIVE_BYTES:
                    raise InputError(f"{tarball} unpacks to more than a package of drawings holds ({MEMBERS:,} files of "
                                     f"{MEMBER_BYTES / 1e6:.0f} MB, {ARCHIVE_BYTES / 1e6:.0f} MB in all); fetch it again")
                if not member.isfile() or not (member.name in names or (prefix and member.name.startswith(prefix))):
                    continue
                if member.name in found:
                    raise InputError(f"{tarball} holds {member.name!r} twice; fetch it again")
                content = archive.extractfile(member)
                assert content is not None  # it is a regular file
                found[member.name] = content.read()
    except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError, OverflowError) as error:
        raise InputError(f"{tarball} can't be read as a package tarball ({error}); fetch it again") from error
    return found


class _IconSet:
    """One Iconify package: icons by name, aliases, and names by code point where the package lists them."""

    def __init__(self, tarball: Path) -> None:
        members = _members(tarball, ("package/icons.json", "package/chars.json"))
        try:
            icons = json.loads(members["package/icons.json"])
            self.size = icons.get("width", 16), icons.get("height", 16)
            self.icons: dict[str, dict[str, Any]] = icons["icons"]
            for icon in self.icons.values():
                if not isinstance(icon["body"], str) or not all(
                        isinstance(number, (int, float)) and abs(number) < 1e6 for number in self._canvas(icon)):
                    raise ValueError("an icon without body or with an absurd size")
            # An alias that turns or mirrors its parent is another picture.
            self.aliases = {name: str(entry["parent"]) for name, entry in icons.get("aliases", {}).items()
                            if set(entry) == {"parent"}}
            self.names = {code: str(name) for code, name in json.loads(members.get("package/chars.json", b"{}")).items()}
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{tarball} is no Iconify package ({error}); fetch it again") from error

    def _canvas(self, icon: Mapping[str, Any]) -> tuple[float, float, float, float]:
        """width, height, left and top."""
        return (icon.get("width", self.size[0]), icon.get("height", self.size[1]), icon.get("left", 0), icon.get("top", 0))

    def find(self, names: Sequence[str]) -> str | None:
        """The first icon called by one of `names`, by alias, or by the name without hyphens (FxEmoji's way)."""
        for name in names:
            for spelling in (name, self.aliases.get(name, ""), name.replace("-", "")):
                if spelling in self.icons:
                    return spelling
        return None

    def svg(self, name: str) -> str:
        """A whole SVG document, on a square canvas."""
        icon = self.icons[name]
        width, height, left, top = self._canvas(icon)
        side = max(width, height)
        left, top = left - (side - width) / 2, top - (side - height) / 2
        return (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{left:g} {top:g} {side:g} {side:g}">{icon["body"]}</svg>')


def read_concepts(tarballs: Mapping[str, Path], sources: Sequence[Source] = SOURCES) -> list[Concept]:
    """The concepts that enough publishers draw, by name. `tarballs`: publisher -> file."""
    by_publisher = {s.publisher: s for s in sources}
    openmoji = _members(tarballs["openmoji"], (TABLE,), "package/black/svg/")
    try:
        table = json.loads(openmoji[TABLE])
        if not all("skintone" in row and isinstance(row[key], str) for row in table
                   for key in ("annotation", "hexcode", "group", "subgroups")):
            raise ValueError("a field is no text")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{tarballs['openmoji']} has no readable {TABLE} ({error}); fetch it again") from error
    sets = {name: _IconSet(tarballs[name]) for name in by_publisher if name != "openmoji"}
    also = defaultdict(set)
    for icons in sets.values():
        for alias, parent in icons.aliases.items():
            also[alias].add(parent)
            also[parent].add(alias)
    concepts: dict[str, Concept] = {}
    for row in table:
        if row["group"] not in GROUPS or row["subgroups"] in SIGNS or row["skintone"]:
            continue
        code = row["hexcode"].lower().replace("-fe0f", "")
        first = [_slug(row["annotation"]), *(s.names[code] for s in sets.values() if code in s.names)]
        names = list(dict.fromkeys([*first, *sorted(set().union(*(also[n] for n in first)))]))
        svg = {p: icons.svg(found) for p, icons in sets.items() if (found := icons.find(names))}
        if drawing := openmoji.get(f"package/black/svg/{row['hexcode']}.svg"):
            svg["openmoji"] = drawing.decode("utf-8", "replace")
        drawn = {m: [p for p in svg if by_publisher[p].modality is m] for m in Modality}
        if len(drawn[_P]) >= MIN_PHOTOS and len(drawn[_S]) >= MIN_SKETCHES:
            name = class_name(row["annotation"])
            if not name:
                raise InputError(f"{tarballs['openmoji']}: no folder can be named after the concept {row['annotation']!r}")
            if name in concepts:
                raise InputError(f"{tarballs['openmoji']}: two concepts are called '{name}'; the pinned version has none")
            concepts[name] = Concept(name, row["hexcode"], row["group"], svg)
    return [concepts[name] for name in sorted(concepts)]


# --- fetching ----------------------------------------------------------------------------------------------------

def _advice(sources: Sequence[Source]) -> str:
    lines = "\n".join(f"  npm pack --ignore-scripts {s.package}@{s.version}" for s in sources)
    return (f"Install npm (sudo apt install npm) and make sure the package registry can be reached; or run, on a machine "
            f"that has both,\n{lines}\nand pass the folder with the .tgz files: --emoji-tarballs DIR, or "
            f"{TARBALLS_VARIABLE}=DIR")


def _fetch(sources: Sequence[Source], folder: Path, progress: bool) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"the emoji drawings come as npm packages, and npm is not installed. {_advice(sources)}")

    def pack(source: Source) -> str | None:
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


def _checked(sources: Sequence[Source], folder: Path) -> dict[str, Path]:
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


def _recipe(sources: Sequence[Source], size: int) -> str:
    """Names a build before it is made: packages, renderer, size and rules."""
    renderer = importlib.metadata.version("resvg-py")
    text = json.dumps([[(s.publisher, s.package, s.version, s.sha256) for s in sources], renderer, size, GROUPS, SIGNS,
                       MIN_PHOTOS, MIN_SKETCHES, 1])
    return hashlib.sha256(text.encode()).hexdigest()


def find_built(cache: Path, size: int = 128, sources: Sequence[Source] = SOURCES) -> Path | None:
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
          sources: Sequence[Source] = SOURCES) -> Path:
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


def _draw(concepts: Sequence[Concept], folder: Path, size: int, sources: Sequence[Source], progress: bool) -> None:
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


def _licences(sources: Sequence[Source]) -> str:
    lines = ["# Terms of the drawings in this folder", "",
             "Each picture is named after its publisher. All were rasterised from the publisher's SVG, on a white square;",
             "nothing else was changed. They were made on this machine from the packages below and are not part of the",
             "project that made them.", "", "| publisher | side | package | terms |", "|---|---|---|---|"]
    lines += [f"| {s.publisher}: {s.about} (<https://{s.project}>) | {s.modality.value} | {s.package} {s.version} | {s.licence} |"
              for s in sources]
    return "\n".join([*lines, "", "The full texts: creativecommons.org/licenses/by/4.0, creativecommons.org/licenses/by-sa/4.0,",
                      "apache.org/licenses/LICENSE-2.0, opensource.org/license/mit.", ""])
