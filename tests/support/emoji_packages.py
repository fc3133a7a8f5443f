"""Packages of emoji drawings as npm publishes them, made by hand."""
from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tcn.data import emoji_packages

RED = '<path fill="#ff0000" d="M0 0h8v8H0z"/>'


ROWS = [("tiger", "1F405", "animals-nature", "animal-mammal", ""), ("bus", "1F68C", "travel-places", "transport-ground", ""),
        ("one o'clock", "1F550", "travel-places", "time", ""), ("person", "1F9D1", "people-body", "person", ""),
        ("waving hand", "1F44B", "objects", "tool", "1"), ("piñata", "1FA85", "activities", "event", "")]


def tarball(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def packages(folder: Path, without: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
             extra: Mapping[str, bytes] = MappingProxyType({})) -> tuple:
    """The eight packages, every publisher drawing every concept except those named; returns sources without digests."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in emoji_packages.SOURCES:
        rows = [row for row in ROWS if row[0] not in without.get(source.publisher, ())]
        if source.publisher == "openmoji":
            table = [{"annotation": a, "hexcode": h, "group": g, "subgroups": s, "skintone": t} for a, h, g, s, t in ROWS]
            members = {emoji_packages.TABLE: json.dumps(table).encode()}
            members |= {f"package/black/svg/{h}.svg": b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">'
                        b'<path d="M10 10h20v20H10z"/></svg>' for _, h, *_ in rows}
        else:
            listed = source.publisher in ("noto", "twemoji", "fluent")
            joined = source.publisher == "fxemoji"
            names = {h.lower(): emoji_packages._slug(a).replace("-", "") if joined else emoji_packages._slug(a)
                     for a, h, *_ in rows}
            icons = {"width": 8, "height": 4, "icons": {n: {"body": RED} for n in names.values()}}
            members = {"package/icons.json": json.dumps(icons).encode(),
                       "package/chars.json": json.dumps(names if listed else {}).encode()}
        tarball(folder / source.tarball, {**members, **extra})
    return tuple(dataclasses.replace(s, sha256="") for s in emoji_packages.SOURCES)
