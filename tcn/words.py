"""Class names -> word vectors, from a committed table, a word2vec file or a GloVe file.

In: a file and class names. Out: `Words`, one float32 row a class, with a sentence on where each came from.
Files of word vectors are read in a stream: only rows that a class name may need are kept.
Paper: semantic metric.
"""
from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import pickle
import re
import sys
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tcn.config import InputError

_JOINTS = ("_", "-", "")
"""How a vocabulary may join a name's words, in order of preference: `palm_tree`, `t-shirt`, `seashell`."""
_FUNCTION_WORDS = frozenset({"a", "an", "and", "of", "the", "to"})
"""Left out of an average where the vocabulary lacks them, as Google News lacks a, and, of, to."""
_RESPELLINGS = {"axe": "ax", "tablelamp": "table lamp"}
"""Names in the paper's data sets that an American vocabulary, or one without rare compounds, may lack."""
_LONGEST_TOKEN = 4096
_LARGEST_WIDTH = 10_000
_LARGEST_VALUE = 1e18
_BLOCK = 1 << 20


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
        """sha256 over names and vectors: the part of a run's identity that words decide."""
        total = hashlib.sha256("\n".join(self.names).encode())
        total.update(np.ascontiguousarray(self.vectors, dtype="<f4").tobytes())
        return total.hexdigest()


def normal_form(name: str) -> str:
    """The form in which class names are compared: no case, one space for spaces, hyphens and underscores.

    >>> normal_form("Hot-air_balloon") == normal_form("hot air balloon")
    True
    """
    return re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def load_words(source: Path, names: Sequence[str], unit: bool = True) -> Words:
    """One vector per name from `source`, scaled to unit length or raw.

    `source` is a table (`.csv`: `name,v0,v1,...`, looked up by normal form) or a vocabulary: word2vec binary,
    word2vec text, or GloVe text, each plain or `.gz`, told apart by content. In a vocabulary a name of
    several words is one token where there is one (joined by `_`, by `-`, or written together; lower case
    preferred), and the mean of its words only otherwise, raw vectors averaged before scaling. What stands in
    brackets counts as words (`mouse (animal)`: mouse, animal). Two names have a second spelling, tried last
    (`axe`: ax).

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
                         f"it once with `python -m tcn.words {source.name} {source.stem}.csv`, which admits "
                         f"only names and arrays, and pass the .csv")
    if not source.is_file():
        raise InputError(f"word vector file {source} does not exist")
    try:
        if source.suffix.lower() == ".csv":
            vectors, description = _from_table(source, names)
        else:
            vectors, description = _from_vocabulary(source, names)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{source}: the compressed file is cut off or damaged ({error}); fetch it again"
                         ) from error
    except OSError as error:
        raise InputError(f"{source} can't be read: {error.strerror or error}") from error
    if unit:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        flat = [name for name, length in zip(names, lengths[:, 0]) if length == 0]
        if flat:
            raise InputError(f"{source}: all-zero vectors can't be scaled to unit length: {', '.join(flat)}")
        vectors = vectors / lengths
    return Words(names, np.ascontiguousarray(vectors, dtype=np.float32),
                 f"{description}; {'unit length' if unit else 'raw length'}")


# --- tables -------------------------------------------------------------------------------------------------

def write_table(path: Path, names: Sequence[str], vectors: np.ndarray) -> None:
    """Write names and vectors [C, W] as a table that `load_words` reads; float32 values survive exactly."""
    with open(path, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["name", *(f"v{i}" for i in range(vectors.shape[1]))])
        for name, row in zip(names, np.asarray(vectors, dtype=np.float32), strict=True):
            writer.writerow([name, *map(str, row)])


def _from_table(source: Path, names: Sequence[str]) -> tuple[np.ndarray, str]:
    wanted = {normal_form(name) for name in names}
    rows: dict[str, np.ndarray] = {}
    lines: dict[str, int] = {}
    try:
        with open(source, newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(text)
            header = next(reader, [])
            if len(header) < 2 or header[0] != "name":
                raise InputError(f"{source}, line 1: expected the header 'name,v0,v1,...', got "
                                 f"'{','.join(header)[:60]}'")
            for row in reader:
                if not row:
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
                    rows[form] = _floats(row[1:], f"{source}, line {reader.line_num}")
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 text (byte {error.start})") from error
    except csv.Error as error:
        raise InputError(f"{source} is no table: {error}") from error
    unknown = [name for name in names if normal_form(name) not in rows]
    if unknown:
        raise InputError(f"{source} has no row for {len(unknown)} of {len(names)} class names: "
                         f"{', '.join(unknown)}")
    vectors = np.stack([rows[normal_form(name)] for name in names])
    return vectors, f"{source.name}: table, {vectors.shape[1]}-d, one row a class"


def _floats(fields: Sequence[str | bytes], where: str) -> np.ndarray:
    try:
        values = np.array([float(value) for value in fields])
    except ValueError as error:
        raise InputError(f"{where}: {error}; is this word2vec (binary or text), GloVe text, or a CSV table named .csv?"
                         ) from error
    return _finite(values, where)


def _finite(values: np.ndarray, where: str) -> np.ndarray:
    # Vectors are handed on in 32 bits, and lengths are sums of squares.
    if not (np.abs(values) <= _LARGEST_VALUE).all():
        raise InputError(f"{where}: the vector holds a value that is not finite, or above {_LARGEST_VALUE:g}")
    return values


# --- vocabularies -------------------------------------------------------------------------------------------

def _parts(name: str) -> list[str]:
    """The words of a class name, lower case, without brackets: `car_(sedan)` -> car, sedan."""
    return re.sub(r"[()\[\],]", " ", normal_form(name)).split()


def _spellings(name: str) -> list[list[str]]:
    """The words of a name, then those of its other spelling, if it has one."""
    parts = _parts(name)
    other = [word for part in parts for word in _RESPELLINGS.get(part, part).split()]
    return [parts] if other == parts else [parts, other]


class _Wanted:
    """Tokens that some class name may need, and the best spelling of each seen so far."""

    def __init__(self, names: Iterable[str]) -> None:
        self._keys: set[str] = set()
        for parts in (spelling for name in names for spelling in _spellings(name)):
            self._keys |= {joint.join(parts) for joint in _JOINTS} | set(parts)
        self._longest = max((len(key) for key in self._keys), default=0) * 4
        self.found: dict[str, tuple[int, str, np.ndarray]] = {}

    def rank(self, token: bytes) -> tuple[str, int] | None:
        """The key a token would serve and its rank (lower is better), where it beats what is there."""
        if len(token) > self._longest:
            return None
        text = token.decode("utf-8", "replace")
        key = text.casefold()
        if key not in self._keys:
            return None
        rank = 0 if text == key else 1 if text.istitle() else 2
        if key in self.found and self.found[key][0] <= rank:
            return None
        return key, rank

    def keep(self, key: str, rank: int, token: bytes, vector: np.ndarray) -> None:
        self.found[key] = (rank, token.decode("utf-8", "replace"), vector)


def _from_vocabulary(source: Path, names: Sequence[str]) -> tuple[np.ndarray, str]:
    wanted = _Wanted(names)
    with open(source, "rb") as raw:
        magic = raw.read(4)
    if magic == b"PK\x03\x04":
        raise InputError(f"{source} is a zip archive: unpack it and pass the file of vectors inside")
    zipped = magic[:2] == b"\x1f\x8b"
    with gzip.open(source, "rb") if zipped else open(source, "rb") as stream:
        kind, count, width = _read(stream, source, wanted)
    vectors, unknown, whole, averaged = [], [], [], []
    for name in names:
        vector, how = _resolve(name, wanted)
        if vector is None:
            unknown.append(f"{name} (no vector for {how})")
            continue
        vectors.append(vector)
        if how.startswith("mean"):
            averaged.append(f"{name} = {how}")
        elif how != name:
            whole.append(f"{name} = {how}")
    if unknown:
        raise InputError(f"{source} ({kind}, {count:,} words) has no vector for {len(unknown)} of "
                         f"{len(names)} class names: {', '.join(unknown)}. Use another file, or a table with "
                         f"a row for each class")
    exact = len(names) - len(whole) - len(averaged)
    description = f"{source.name}: {kind}, {count:,} words, {width}-d; {exact} names are tokens as they stand"
    if whole:
        description += f"; {len(whole)} are one token spelt otherwise ({', '.join(whole)})"
    if averaged:
        description += f"; {len(averaged)} are means of their words ({', '.join(averaged)})"
    return np.stack(vectors), description


def _resolve(name: str, wanted: _Wanted) -> tuple[np.ndarray | None, str]:
    """The raw vector of a name and the token or mean it is; or None and the words that lack one."""
    lacking: list[str] = []
    for parts in _spellings(name):
        keys = [joint.join(parts) for joint in _JOINTS]
        tokens = [wanted.found[key] for key in keys if key in wanted.found]
        if tokens:
            _, token, vector = min(tokens, key=lambda hit: hit[0])  # the first joint among equals
            return vector, token
        there = [wanted.found[part] for part in parts if part in wanted.found]
        missing = [part for part in parts if part not in wanted.found]
        if there and set(missing) <= _FUNCTION_WORDS:
            mean = np.mean([vector for _, _, vector in there], axis=0)
            return mean, f"mean of {' + '.join(token for _, token, _ in there)}"
        lacking = lacking or missing
    return None, " and ".join(lacking) or f"'{name}'"


def _read(stream: BinaryIO, source: Path, wanted: _Wanted) -> tuple[str, int, int]:
    """Stream one vocabulary file into `wanted`: its kind, number of words and width."""
    head = stream.read(_BLOCK)
    if not head:
        raise InputError(f"{source} is empty")
    chunks = _chained(head, stream)
    first, newline, rest = head.partition(b"\n")
    header = re.fullmatch(rb"\s*(\d{1,12})[ \t]+(\d{1,12})\s*", first) if newline else None
    if header is None:
        width = len(first.split()) - 1
        _check_width(width, source, first)
        _floats(first.split()[1:], f"{source}, line 1")
        return "GloVe text", _read_text(chunks, source, wanted, width, None), width
    count, width = int(header[1]), int(header[2])
    _check_width(width, source, first)
    if count < 1:
        raise InputError(f"{source}: the header says that the file holds no words")
    # A raw float may hold a line feed: a short first "line" alone says little.
    line, _, _ = rest.partition(b"\n")
    if _is_text(rest[:max(len(line), 4 * width, 256)]):
        return "word2vec text", _read_text(chunks, source, wanted, width, count), width
    body, offset = _chained(rest, stream), len(first) + 1
    return "word2vec binary", _read_binary(body, offset, source, wanted, width, count), width


def _check_width(width: int, source: Path, first: bytes) -> None:
    if not 2 <= width <= _LARGEST_WIDTH:
        raise InputError(f"{source} is no file of word vectors: line 1 starts {first[:40]!r}; expected a "
                         f"word2vec header 'count width' or a GloVe line 'word v0 v1 ...'")


def _is_text(sample: bytes) -> bool:
    """Whether bytes are readable, up to a character that is cut off at their end: raw floats hardly ever are."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


def _chained(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield head
    while block := stream.read(_BLOCK):
        yield block


def _read_text(chunks: Iterator[bytes], source: Path, wanted: _Wanted, width: int, count: int | None) -> int:
    number = words = 0
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            number += 1
            if number > 1 or count is None:
                words += _text_line(line, number, source, wanted, width)
    if rest.strip():
        words += _text_line(rest, number + 1, source, wanted, width)
    if count is not None and words != count:
        raise InputError(f"{source}: the header promises {count:,} words, the file holds {words:,}; it is "
                         f"cut off or damaged, fetch it again")
    return words


def _text_line(line: bytes, number: int, source: Path, wanted: _Wanted, width: int) -> int:
    """Take in one line; the number of words in it, 1, or 0 for a blank line."""
    line = line.rstrip(b" \t\r")
    if not line:
        return 0
    spaces = line.count(b" ")
    # a few GloVe words hold spaces themselves, so the values are counted from the right
    token, *values = line.split(b" ", 1) if spaces == width else line.rsplit(b" ", width)
    if spaces < width:
        raise InputError(f"{source}, line {number}: {spaces} values, {width} expected; the file is cut off "
                         f"or damaged")
    match = wanted.rank(token)
    if match:
        fields = values[0].split(b" ") if spaces == width else values
        wanted.keep(*match, token, _floats(fields, f"{source}, line {number}"))
    return 1


def _read_binary(chunks: Iterator[bytes], offset: int, source: Path, wanted: _Wanted, width: int,
                 count: int) -> int:
    size = 4 * width
    buffer, start = b"", 0
    for index in range(count):
        while True:
            space = buffer.find(b" ", start)
            if 0 <= space and space + 1 + size <= len(buffer):
                break
            if space < 0 and len(buffer) - start > _LONGEST_TOKEN or space - start > _LONGEST_TOKEN:
                raise InputError(f"{source}: word {index + 1:,} at byte {offset + start:,} does not end; "
                                 f"this is no word2vec binary of {width} values a word, or it is damaged")
            chunk = next(chunks, None)
            if chunk is None:
                raise InputError(f"{source} is cut off at byte {offset + len(buffer):,}, in word "
                                 f"{index + 1:,} of {count:,}; fetch it again")
            offset += start
            buffer, start = buffer[start:] + chunk, 0
        token = buffer[start:space].lstrip(b"\n")  # the original writer ends each vector with a line feed
        match = wanted.rank(token)
        if match:
            vector = np.frombuffer(buffer, "<f4", width, space + 1).astype(np.float64)
            where = f"{source}: word {index + 1:,} at byte {offset + start:,}"
            wanted.keep(*match, token, _finite(vector, where))
        start = space + 1 + size
    if buffer[start:].strip() or any(chunk.strip() for chunk in chunks):
        raise InputError(f"{source} goes on after byte {offset + start:,}, where its {count:,} words end; "
                         f"this is no word2vec binary of {width} values a word, or it is damaged")
    return count


# --- pickled vectors in circulation -------------------------------------------------------------------------

# A pickle is a program. numpy's own loaders trust it: a dtype whose flags it forges makes an array of bytes one of addresses,
# and reading that runs wherever the file points. So nothing of numpy is handed to it, only these plain stand-ins.

class _Kind:
    """Stands in for numpy.dtype: plain numbers only."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(f2|f4|f8|[iu][1248]|b1)", code):
            raise InputError(f"it holds values of type {code!r}, which are no numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if not (isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "|", "=") and state[2:5] == (None,) * 3):
            raise InputError("it describes a type of numbers that plain arrays don't have")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray."""

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, raw = state
        self.values = _numbers(raw, kind, shape, "F" if fortran else "C")

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        if self.values is None:
            raise ValueError("an array without contents")
        return np.array(self.values, dtype=dtype)


def _numbers(raw: bytes | str, kind: _Kind, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
    if isinstance(raw, str):  # bytes of Python 2
        raw = raw.encode("latin1")
    return np.frombuffer(bytes(raw), kind.dtype).reshape(shape, order=order)


def _bytes(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise InputError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Kind, ("collections", "OrderedDict"): dict, ("_codecs", "encode"): _bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda kind, shape, code: _Array() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): lambda kind, raw: _numbers(raw, kind, ())[()] for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): lambda raw, kind, shape, order, *_: _numbers(raw, kind, shape, order)
       for core in ("core", "_core")},
}
"""All that a pickled dictionary of names and arrays asks for, and what it gets."""


class _OnlyArrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            raise InputError(f"it asks for {module}.{name}, which names and arrays don't need")
        return _ADMITTED[module, name]


def convert_pickle(source: Path, target: Path) -> int:
    """Turn a pickled dictionary {class name: vector} into a table for `load_words`; the number of rows.

    Everything in the file but names, numbers and arrays is refused before it is built. Vectors may be [W] or
    [1, W]. Raises InputError for a file of another make, naming what is in the way.
    """
    try:
        with open(source, "rb") as stream:
            content = _OnlyArrays(stream, encoding="latin1").load()  # arrays pickled by Python 2 need latin1
    except InputError as error:
        raise InputError(f"{source} is not converted: {error}") from error
    except OSError as error:
        raise InputError(f"{source} can't be read: {error.strerror}") from error
    except (Exception, RecursionError, MemoryError) as error:  # a damaged pickle raises nearly anything
        raise InputError(f"{source} is no readable pickle ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"{source} holds a {type(content).__name__}; expected a dictionary of class names "
                         f"and vectors")
    rows = []
    for name, value in content.items():
        try:
            row = np.asarray(value, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise InputError(f"{source}: entry {name!r} is no vector ({error})") from error
        if not isinstance(name, str) or len(row) < 2 or (rows and len(row) != len(rows[0])):
            raise InputError(f"{source}: entry {name!r} holds {len(row)} numbers; expected a class name and "
                             f"a vector as long as the others")
        rows.append(_finite(row, f"{source}: entry {name!r}"))
    write_table(Path(target), list(content), np.stack(rows))
    return len(rows)


def main(arguments: Sequence[str]) -> int:
    """`python -m tcn.words OLD.pkl NEW.csv`: convert pickled vectors; the exit status."""
    if len(arguments) != 2:
        print("usage: python -m tcn.words OLD.pkl NEW.csv", file=sys.stderr)
        return 2
    try:
        print(f"{arguments[1]}: {convert_pickle(Path(arguments[0]), Path(arguments[1]))} rows")
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
