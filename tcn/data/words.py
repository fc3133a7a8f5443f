"""Class names -> word vectors, from a committed table, a word2vec file or a GloVe file.

In: a file and class names. Out: `Words`: one float32 row per class, and a sentence on where each came from.
Files of word vectors are read as a stream (`tcn.data.word_files`), and only rows that a class name may need are kept.
Paper: semantic metric.
"""
from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tcn.config import InputError
from tcn.data import word_files
from tcn.data.pickled import read_pickle
from tcn.files import text
from tcn.files.atomic import write_bytes

_JOINTS = ("_", "-", "")
"""What may join a name's words in a vocabulary, in order of preference: `palm_tree`, `t-shirt`, `seashell`."""
_FUNCTION_WORDS = frozenset({"a", "an", "and", "of", "the", "to"})
"""Words left out of a mean if the vocabulary lacks them, as Google News lacks a, and, of, to."""
_RESPELLINGS = {"axe": "ax", "tablelamp": "table lamp"}
"""Names in the paper's data sets that an American vocabulary, or one without rare compounds, may lack."""
_FOLD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_-", b"abcdefghijklmnopqrstuvwxyz  ")
"""Translates an ASCII token to its normal form, except for repeated joints."""


@dataclass(frozen=True)
class Words:
    """Word vectors of C classes."""

    names: tuple[str, ...]
    vectors: np.ndarray
    """float32 [C, W], in the order of `names`."""
    description: str
    """Which file was used and how each name was resolved."""

    @property
    def digest(self) -> str:
        """sha256 over names and vectors, which enters a run's identity."""
        total = hashlib.sha256("\n".join(self.names).encode())
        total.update(np.ascontiguousarray(self.vectors, dtype="<f4").tobytes())
        return total.hexdigest()

    @property
    def alike(self) -> tuple[tuple[str, ...], ...]:
        """Groups of names whose vectors are the same, number by number: the semantic metric can't tell them apart by words."""
        groups: dict[bytes, list[str]] = {}
        for name, vector in zip(self.names, self.vectors, strict=True):
            groups.setdefault((vector + 0.0).tobytes(), []).append(name)  # -0.0 and 0.0 are one number
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    @property
    def note(self) -> str:
        """A sentence on the names that share a vector; empty where none do."""
        return f"{_shared(self.alike)}: by their words alone these classes can't be told apart" if self.alike else ""


def normal_form(name: str) -> str:
    """The form in which class names are compared: no case, one space for spaces, hyphens and underscores.

    >>> normal_form("Hot-air_balloon") == normal_form("hot air balloon")
    True
    """
    return re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def load_words(source: Path, names: Sequence[str], unit: bool = True) -> Words:
    """One vector per name from `source`, scaled to unit length or raw.

    `source` is a table (`.csv`: `name,v0,v1,...`, looked up by normal form) or a vocabulary: word2vec binary,
    word2vec text, or GloVe text, each plain or `.gz`, told apart by content. In a vocabulary a name
    is looked up as it stands, then with underscores for spaces or spaces for underscores. Failing that, it is one
    token where there is one (its words joined by `_`, by `-`, or written together, lower case preferred; then any
    token of the same normal form), and the mean of its words only otherwise, raw vectors averaged before scaling.
    What stands in brackets counts as words (`mouse (animal)`: mouse, animal). Two names have a second spelling,
    tried last (`axe`: ax). The description says which name is what, and which names share a vector.

    Raises InputError naming the file: every name without a vector at once; the byte or line where it is cut
    off or garbled; vectors that are not finite, or zero where unit length is asked for; `.pkl` files, which
    are refused.
    """
    source = Path(source)
    names = tuple(names)
    if not names:
        raise InputError("no class names to look up")
    if source.suffix.lower() in (".pkl", ".pickle"):
        raise InputError(f"{source}: pickle files are not read, since loading one can run any code. Convert "
                         f"it once with `python -m tcn.data.words {source.name} {source.stem}.csv`, which admits "
                         f"only names and arrays, and pass the .csv")
    if not source.is_file():
        raise InputError(f"word vector file {source} does not exist")
    vectors, description = (_from_table if source.suffix.lower() == ".csv" else _from_vocabulary)(source, names)
    if unit:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        flat = [name for name, length in zip(names, lengths[:, 0]) if length == 0]
        if flat:
            raise InputError(f"{source}: all-zero vectors can't be scaled to unit length: {text.some(flat)}")
        vectors = vectors / lengths
    words = Words(names, np.ascontiguousarray(vectors, dtype=np.float32), "")
    shared = f"; {_shared(words.alike)}" if words.alike else ""
    return dataclasses.replace(words, description=f"{description}{shared}; {'unit length' if unit else 'raw length'}")


# --- tables -------------------------------------------------------------------------------------------------

def write_table(path: Path, names: Sequence[str], vectors: np.ndarray) -> None:
    """Write names and vectors [C, W] as a table that `load_words` reads; float32 values survive exactly. StorageError where it
    can't be written."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", *(f"v{i}" for i in range(vectors.shape[1]))])
    for name, row in zip(names, np.asarray(vectors, dtype=np.float32), strict=True):
        writer.writerow([name, *map(str, row)])
    write_bytes(path, out.getvalue().encode())


def _from_table(source: Path, names: Sequence[str]) -> tuple[np.ndarray, str]:
    wanted = {normal_form(name) for name in names}
    rows: dict[str, np.ndarray] = {}
    lines: dict[str, int] = {}
    try:
        content = text.read(source, "table")
        reader = csv.reader(io.StringIO(content), delimiter=text.separator(content))
        header = next(reader, [])
        if len(header) < 2 or header[0].strip() != "name":
            raise InputError(f"{source}, line 1: expected the header 'name,v0,v1,...', got "
                             f"'{','.join(header)[:60]}'")
        places = _places(header, source)
        for row in reader:
            if not any(map(str.strip, row)):
                continue
            if len(row) != len(header):
                raise InputError(f"{source}, line {reader.line_num}: {len(row) - 1} values, "
                                 f"{len(header) - 1} expected")
            form = normal_form(row[0])
            if form in lines:
                raise InputError(f"{source}, line {reader.line_num}: '{row[0]}' stands in line "
                                 f"{lines[form]} already")
            lines[form] = reader.line_num
            if form in wanted:
                rows[form] = word_files.floats([row[place] for place in places], f"{source}, line {reader.line_num}")
    except csv.Error as error:
        raise InputError(f"{source} is no table: {error}") from error
    unknown = [name for name in names if normal_form(name) not in rows]
    if unknown:
        raise InputError(f"{source} has no row for {len(unknown)} of {len(names)} class names: "
                         f"{text.some(unknown)}")
    vectors = np.stack([rows[normal_form(name)] for name in names])
    return vectors, f"{source.name}: table, {vectors.shape[1]}-d, one row a class"


def _places(header: Sequence[str], source: Path) -> list[int]:
    """The columns of a vector's values in order: by number if they are called v0, v1, ..., else as in the header."""
    numbers = [int(match[1]) for column in header[1:] if (match := re.fullmatch(r"\s*v(\d{1,6})\s*", column))]
    if len(numbers) < len(header) - 1:
        return list(range(1, len(header)))
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{source}, line 1: a column stands there twice; expected the header 'name,v0,v1,...'")
    return [place + 1 for place in np.argsort(numbers)]


# --- vocabularies -------------------------------------------------------------------------------------------

def _parts(name: str) -> list[str]:
    """The words of a class name, lower case, without brackets: `car_(sedan)` -> car, sedan."""
    return re.sub(r"[()\[\],]", " ", normal_form(name)).split()


def _spellings(name: str) -> list[list[str]]:
    """The words of a name, then those of its other spelling, if it has one."""
    parts = _parts(name)
    other = [word for part in parts for word in _RESPELLINGS.get(part, part).split()]
    return [parts] if other == parts else [parts, other]


def _as_written(name: str) -> tuple[str, ...]:
    """A name as it stands, then with underscores for spaces, then with spaces for underscores."""
    return name, name.replace(" ", "_"), name.replace("_", " ")


class _Found(NamedTuple):
    """A word of the file that a name may need."""

    rank: int
    """0: lower case, 1: title case, 2: any other."""
    token: str
    vector: np.ndarray


class _Wanted:
    """The words that class names may need, under every key by which a name may look them up."""

    def __init__(self, names: Iterable[str]) -> None:
        spellings = [parts for name in names for parts in _spellings(name)]
        self._texts = {written for name in names for written in _as_written(name)}
        self._lower = {key for parts in spellings for key in (*(joint.join(parts) for joint in _JOINTS), *parts)}
        self._forms = {normal_form(name) for name in names}
        self._folded = {normal_form(key).encode() for key in self._lower} | {form.encode() for form in self._forms}
        self._longest = 4 * max(map(len, self._texts | self._lower | self._forms), default=0)
        self.texts: dict[str, _Found] = {}
        """Word as written -> its first occurrence."""
        self.lower: dict[str, _Found] = {}
        """Word in lower case -> its spelling of lowest rank."""
        self.forms: dict[str, _Found] = {}
        """Normal form -> its spelling of lowest rank."""
        self.repeated: set[str] = set()
        """Words that occur again in the file with a different vector."""
        self.garbled = False
        """Whether the file holds words that are not UTF-8."""

    def wants(self, token: bytes) -> bool:
        if len(token) > self._longest:
            return False
        if token.isascii():
            return token.translate(_FOLD) in self._folded
        try:
            return normal_form(token.decode("utf-8")).encode() in self._folded
        except UnicodeDecodeError:
            self.garbled = True
            return False

    def keep(self, token: bytes, vector: np.ndarray) -> None:
        word = token.decode("utf-8")
        lower, form = word.casefold(), normal_form(word)
        new = _Found(0 if word == lower else 1 if word.istitle() else 2, word, vector)
        for key, keys, found in ((word, self._texts, self.texts), (lower, self._lower, self.lower),
                                 (form, self._forms, self.forms)):
            if key not in keys:
                continue
            old = found.get(key)
            if old is None or new.rank < old.rank:
                found[key] = new
            elif old.token == word and not np.array_equal(old.vector, vector):
                self.repeated.add(word)


def _from_vocabulary(source: Path, names: Sequence[str]) -> tuple[np.ndarray, str]:
    wanted = _Wanted(names)
    kind, count, width = word_files.read(source, wanted)
    vectors, unknown, whole, averaged = [], [], [], []
    used: set[str] = set()
    for name in names:
        vector, how, tokens = _resolve(name, wanted)
        if vector is None:
            unknown.append(f"{name} (no vector for {how})")
            continue
        vectors.append(vector)
        used |= tokens
        if how.startswith("mean of "):
            averaged.append(f"{name} = {how}")
        elif how != name:
            whole.append(f"{name} = {how}")
    if unknown:
        foreign = wanted.garbled and any(not name.isascii() for name in unknown)
        raise InputError(f"{source} ({kind}, {count:,} words) has no vector for {len(unknown)} of "
                         f"{len(names)} class names: {text.some(unknown)}. Use another file, or a table with "
                         f"a row for each class" + ("; some of the file's words are not UTF-8: save it so" if foreign else ""))
    exact = len(names) - len(whole) - len(averaged)
    description = f"{source.name}: {kind}, {count:,} words, {width}-d; {exact} names are tokens as they stand"
    if whole:
        description += f"; {len(whole)} are one token spelt otherwise ({', '.join(whole)})"
    if averaged:
        description += f"; {len(averaged)} are means of their words ({', '.join(averaged)})"
    if repeated := sorted(wanted.repeated & used):
        description += f"; the file holds another vector further down for {', '.join(repeated)}: the first is taken"
    return np.stack(vectors), description


def _resolve(name: str, wanted: _Wanted) -> tuple[np.ndarray | None, str, set[str]]:
    """The raw vector of a name, the token or mean that it is, and the tokens used; or None, and the words without a vector."""
    for written in _as_written(name):
        if written in wanted.texts:
            return wanted.texts[written].vector, written, {written}
    lacking: list[str] = []
    for parts in _spellings(name):
        hits = [wanted.lower[key] for key in (joint.join(parts) for joint in _JOINTS) if key in wanted.lower]
        # A token may join words in several ways and keep brackets: `hot-air_balloon`, `Car_(sedan)`.
        hits = hits or ([wanted.forms[normal_form(name)]] if normal_form(name) in wanted.forms else [])
        if hits:
            best = min(hits, key=lambda hit: hit.rank)  # the first joint among equals
            return best.vector, best.token, {best.token}
        there = [wanted.lower[part] for part in parts if part in wanted.lower]
        missing = [part for part in parts if part not in wanted.lower]
        if there and set(missing) <= _FUNCTION_WORDS:
            mean = np.mean([hit.vector for hit in there], axis=0)
            return mean, f"mean of {' + '.join(hit.token for hit in there)}", {hit.token for hit in there}
        lacking = lacking or missing
    return None, " and ".join(lacking) or f"'{name}'", set()


def _shared(groups: Iterable[Iterable[str]]) -> str:
    return f"the same vector for {'; '.join(map(' = '.join, groups))}"


def convert_pickle(source: Path, target: Path) -> int:
    """Turn a pickled dictionary {class name: vector} into a table for `load_words`; the number of rows.

    Vectors may be [W] or [1, W]. Raises InputError where the file holds anything else (see `read_pickle`).
    """
    content = read_pickle(source)
    rows: list[np.ndarray] = []
    for name, value in content.items():
        try:
            row = np.asarray(value, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise InputError(f"{source}: entry {name!r} is no vector ({error})") from error
        if not isinstance(name, str) or len(row) < 2 or (rows and len(row) != len(rows[0])):
            raise InputError(f"{source}: entry {name!r} holds {len(row)} numbers; expected a class name and "
                             f"a vector as long as the others")
        rows.append(word_files.finite(row, f"{source}: entry {name!r}"))
    write_table(Path(target), list(content), np.stack(rows))
    return len(rows)


def main(arguments: Sequence[str]) -> int:
    """`python -m tcn.data.words OLD.pkl NEW.csv`: convert pickled vectors; the exit status."""
    if len(arguments) != 2:
        print("usage: python -m tcn.data.words OLD.pkl NEW.csv", file=sys.stderr)
        return 2
    try:
        print(f"{arguments[1]}: {convert_pickle(Path(arguments[0]), Path(arguments[1]))} rows")
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
