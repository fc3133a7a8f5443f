"""The npm packages of emoji drawings: who publishes them, and which concepts enough publishers draw.

In: package tarballs, which are not trusted: nothing is extracted, and sizes are limited. Out: `Concept`s, each with the SVG text
of its publishers. `tcn.data.emoji` makes pictures of them. The paper has no such data set.
"""
from __future__ import annotations

import json
import re
import tarfile
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcn.config import InputError, Modality

GROUPS = ("animals-nature", "food-drink", "travel-places", "objects", "activities")
SIGNS = ("time", "sky-weather", "place-map", "money", "mail", "sport")
"""Subgroups left out: mere signs (clock faces, weather symbols, balls)."""
MIN_PHOTOS, MIN_SKETCHES = 4, 2
TABLE = "package/data/openmoji.json"
MEMBER_BYTES, ARCHIVE_BYTES, MEMBERS = 64_000_000, 512_000_000, 100_000
"""Limits of one file of a package, of a whole package unpacked, and of its number of files: several times the pinned ones."""


@dataclass(frozen=True)
class EmojiPackage:
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
SOURCES: tuple[EmojiPackage, ...] = (
    EmojiPackage("openmoji", _S, "openmoji", "17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
           "CC BY-SA 4.0", "OpenMoji, the open-source emoji and icon project; black line drawings",
           "openmoji.org"),
    EmojiPackage("fluent", _S, "@iconify-json/fluent-emoji-high-contrast", "1.2.6",
           "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
           "MIT", "Fluent Emoji High Contrast, Microsoft Corporation; filled pictograms",
           "github.com/microsoft/fluentui-emoji"),
    EmojiPackage("emojione-monotone", _S, "@iconify-json/emojione-monotone", "1.2.1",
           "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e",
           "CC BY 4.0", "Emoji One (Monotone) 2.2.7, Emoji One; filled pictograms",
           "github.com/EmojiTwo/emojitwo"),
    EmojiPackage("noto", _P, "@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
           "Apache 2.0", "Noto Emoji, Google Inc",
           "github.com/googlefonts/noto-emoji"),
    EmojiPackage("noto-v1", _P, "@iconify-json/noto-v1", "1.2.5",
           "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
           "Apache 2.0", "Noto Emoji (v1), Google Inc",
           "github.com/googlefonts/noto-emoji"),
    EmojiPackage("twemoji", _P, "@iconify-json/twemoji", "1.2.5",
           "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
           "CC BY 4.0", "Twitter Emoji, Twitter and contributors",
           "github.com/jdecked/twemoji"),
    EmojiPackage("fxemoji", _P, "@iconify-json/fxemoji", "1.2.2",
           "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
           "Apache 2.0", "Firefox OS Emoji, Mozilla",
           "github.com/mozilla/fxemoji"),
    EmojiPackage("emojione-v1", _P, "@iconify-json/emojione-v1", "1.2.3",
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


def read_concepts(tarballs: Mapping[str, Path], sources: Sequence[EmojiPackage] = SOURCES) -> list[Concept]:
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
