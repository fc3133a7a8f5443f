"""Make the committed split of the emoji data set: groups of concepts that show the same thing, roles, and held-out drawings.

`python benchmarks/make_emoji_split.py` writes tcn/data/splits/emoji.yaml, emoji_groups.csv and emoji_words.csv from the drawings,
which are built first (this needs the optional extra `words`). It was run once. The files are committed, and every run reads them.
"""
from __future__ import annotations

import csv
import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tcn.cli.ending import ending
from tcn.config import Modality
from tcn.data import emoji, emoji_packages

SPLITS = Path(emoji.__file__).parent / "splits"
SEED = 20211
UNSEEN, VALIDATION, HELD_OUT = 90, 50, 100
COSINE, CORRELATION = 0.8, 0.95
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "pink", "light", "dark")
NUMBERS = ("one", "two", "three", "four", "1st", "2nd", "3rd", "first", "second", "third")
EXTRA_WORDS = frozenset(("face", "oncoming", *COLOURS, *NUMBERS))
"""Two names that differ only in these words (face, oncoming, a colour or a number) mean the same thing."""


def core(name: str) -> str:
    """A name without `EXTRA_WORDS` and without the s of a plural.

    >>> core("tiger_face"), core("oncoming_bus"), core("green_book"), core("books")
    ('tiger', 'bus', 'book', 'book')
    """
    words = [w for w in name.split("_") if w not in EXTRA_WORDS]
    return " ".join(re.sub(r"(?<=[^su])s$", "", w) for w in words) or name


def links(names: Sequence[str], vectors: np.ndarray, drawings: Mapping[str, Mapping[str, np.ndarray]]
          ) -> list[tuple[str, str, str, float]]:
    """Pairs of names that mean the same thing, each with the reason and its value.

    vectors: word vectors [C, W] at unit length. drawings: publisher -> name -> grey picture [S, S].
    """
    found = []
    cosine = vectors @ vectors.T
    for i, j in itertools.combinations(range(len(names)), 2):
        if cosine[i, j] > COSINE:
            found.append((names[i], names[j], "word vectors", float(cosine[i, j])))
        if core(names[i]) == core(names[j]):
            found.append((names[i], names[j], "name", 1.0))
    for publisher, pictures in drawings.items():
        known = [n for n in names if n in pictures]
        flat = np.stack([pictures[n].ravel() for n in known]).astype(np.float64)
        flat -= flat.mean(1, keepdims=True)
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        correlation = flat @ flat.T
        for i, j in np.argwhere(np.triu(correlation > CORRELATION, 1)):
            found.append((known[i], known[j], f"drawing by {publisher}", float(correlation[i, j])))
    return sorted(found)


def components(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Connected components of the names under `pairs`, each sorted, in the order of their first names."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for a, b in pairs:
        parent[root(a)] = root(b)
    sets = defaultdict(list)
    for name in sorted(names):
        sets[root(name)].append(name)
    return sorted(sets.values())


def assign(groups: Sequence[Sequence[str]], group_of: Mapping[str, str], seed: int) -> dict[str, list[Sequence[str]]]:
    """Draw whole groups for `unseen` and `validation`, in proportion to the sizes of the emoji groups; the rest is `seen`."""
    rng = np.random.default_rng(seed)
    strata: dict[str, list[Sequence[str]]] = defaultdict(list)
    for members in groups:
        strata[group_of[members[0]]].append(members)
    result: dict[str, list[Sequence[str]]] = {"seen": [], "validation": [], "unseen": []}
    for stratum in sorted(strata):
        members = [strata[stratum][i] for i in rng.permutation(len(strata[stratum]))]
        unseen, validation = (round(n * len(members) / len(groups)) for n in (UNSEEN, VALIDATION))
        result["unseen"] += members[:unseen]
        result["validation"] += members[unseen:unseen + validation]
        result["seen"] += members[unseen + validation:]
    return result


def representative(members: Sequence[str]) -> str:
    """The name that represents its group among unseen and validation classes: the shortest one, the first by alphabet among
    those."""
    return min(members, key=lambda name: (len(name), name))


def make(folder: Path, vectors: np.ndarray, names: Sequence[str]
         ) -> tuple[dict[str, Any], list[tuple[str, str, str, str, float]]]:
    """The split's table and the list of links, from the built drawings and the names' vectors."""
    classes = emoji.read_manifest(folder)["classes"]
    publishers = {s.publisher for s in emoji_packages.SOURCES if s.modality is Modality.SKETCH}
    drawn = {p: {n: folder / "sketch" / n / f"{p}.png" for n in names if (folder / "sketch" / n / f"{p}.png").exists()}
             for p in sorted(publishers)}
    grey = {p: {n: np.asarray(Image.open(path).convert("L").resize((64, 64))) for n, path in found.items()}
            for p, found in drawn.items()}
    pairs = links(names, vectors, grey)
    groups = components(names, [(a, b) for a, b, _, _ in pairs])
    name_of = {n: representative(members) for members in groups for n in members}
    roles = assign(groups, {n: classes[n]["group"] for n in names}, SEED)
    table: dict[str, dict[str, str]] = {}
    left_out: dict[str, str] = {}
    for role in ("seen", "validation", "unseen"):
        for members in sorted(map(list, roles[role])):
            for n in members:
                if role == "seen" or n == representative(members):
                    table[n] = {"role": role, "group": name_of[n], "hexcode": classes[n]["hexcode"],
                                "theme": classes[n]["group"]}
                else:
                    left_out[n] = f"{role}: same thing as {name_of[n]}"
    rng = np.random.default_rng([SEED, 1])
    whole = [n for n in sorted(table) if table[n]["role"] == "seen" and all(n in drawn[p] for p in drawn)]
    chosen = sorted(rng.permutation(whole)[:HELD_OUT].tolist())
    which = {n: sorted(drawn)[int(rng.integers(len(drawn)))] for n in chosen}
    ordered = {n: table[n] for role in ("seen", "validation", "unseen") for n in sorted(table) if table[n]["role"] == role}
    return ({"seed": SEED, "classes": ordered, "left_out": dict(sorted(left_out.items())), "heldout": which},
            [(name_of[a], a, b, reason, value) for a, b, reason, value in pairs])


@ending()
def main() -> int:
    """Run the command; returns the exit status."""
    from benchmarks.provenance import ROOT
    from benchmarks.tools.make_words import embed
    from tcn.data.words import write_table

    folder = emoji.build(ROOT / ".cache")
    names = sorted(emoji.read_manifest(folder)["classes"])
    vectors = embed(names)
    table, pairs = make(folder, vectors, names)
    note = ("# The emoji data set's fixed split. Made once by benchmarks/make_emoji_split.py; committed, never redrawn.\n"
            "# role: seen (trained on), validation (chooses settings and epochs), unseen (scored only).\n"
            "# heldout: the drawing kept from training, for class accuracy. left_out: its group's other name stands for it.\n")
    (SPLITS / "emoji.yaml").write_text(note + yaml.safe_dump(table, sort_keys=False, allow_unicode=True, width=110),
                                       encoding="utf-8")
    with open(SPLITS / "emoji_groups.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("group", "one", "other", "linked_by", "value"))
        writer.writerows((*row[:4], f"{row[4]:.3f}") for row in sorted(pairs))
    kept = [n for n in names if n in table["classes"]]
    write_table(SPLITS / "emoji_words.csv", kept, vectors[[names.index(n) for n in kept]].round(4))
    roles = [entry["role"] for entry in table["classes"].values()]
    print({role: roles.count(role) for role in ("seen", "validation", "unseen")}, len(table["left_out"]), "left out",
          len(table["heldout"]), "held out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
