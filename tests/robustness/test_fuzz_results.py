"""The report from damaged result folders: the page renders, what is broken is named with its file, other numbers stay.

Every example takes a whole suite, damages one file of it (cut, flipped, emptied, other types, other columns, numbers that are
none, arrays that claim more than they hold) and holds the report against the undamaged one.
"""
from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from support.fuzzing import fuzz
from support.result_folders import write_reproduction, write_suite

from reports import lint, published
from reports.figures import draw, frames
from reports.read import files
from reports.read.files import ReportError
from reports.read.runs import Score
from reports.read.schema import Task
from reports.read.suite import Suite, read_suite
from reports.render import command, provenance

EMOJI = Task("emoji", "fixed")
VARIANTS = ("tcn", "hws", "nws")
BROKEN = "hws"
"""The variant whose files are damaged: it has every file but ledger.csv."""
CORE = ("config.json", "status.json", "provenance.json", "metrics.csv")
CSV = ("metrics.csv", "history.csv", "steps.csv", "singular_values.csv", "precision_recall.csv")
NPZ = ("features.npz", "per_query.npz", "distances.npz")
FILES = (*CORE, *CSV[1:], *NPZ, "examples.json", "examples/0-query.png", "mlflow.json")
KINDS = {"metrics.csv": ("overview", "publishers"), "history.csv": ("motivation",), "steps.csv": ("motivation",),
         "singular_values.csv": ("singular_values",), "precision_recall.csv": ("precision_recall",),
         "features.npz": (), "per_query.npz": ("class_precision",), "distances.npz": ("layer_distances",),
         "examples.json": ("retrieval",), "examples/0-query.png": ("retrieval",)}
"""File -> the figures that are made of it; t-SNE, which is slow, has a test of its own."""
ODD = st.sampled_from([None, True, False, "", "x", "<script>alert(1)</script>", "\ud800", "\x00", "../../etc", "=1+1", "a" * 5000,
                       -1, 0, 7, 0.5, 1.5, 1e30, 1e308, 10**400, math.nan, math.inf, -math.inf, [], [None], {}, {"a": {"b": []}},
                       [[1], {"x": "y"}]])
WORDS = st.sampled_from(["", "x", "nan", "inf", "-inf", "1e400", "1e308", "-1", "0", "1.5", "0x10", "9" * 400, "<b>", "a,b",
                         "\u202e", "1;2", "True", "None", "\"", "'"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An undamaged suite with the checksums of its text files."""
    root = tmp_path_factory.mktemp("whole")
    folders = write_suite(root, VARIANTS, ledger=True)
    for folder in folders.values():
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.suffix in (".csv", ".json")]
        # config.json is changed by other tests, whose subject is not its checksum
        (folder / "SHA256SUMS").write_text("".join(
            f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names if name in CSV))
    write_reproduction(root, folders["tcn", 0])
    return root


@pytest.fixture(scope="module")
def expected(whole) -> dict[str, dict[Score, float]]:
    return numbers(read_suite(whole))


@pytest.fixture(autouse=True, scope="module")
def text_only() -> Iterator[None]:
    """Figures are drawn by the tests that are about them: they take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_figures", lambda suite, task, cache: [])
        patch.setattr(command.digits, "figure", lambda root: None)
        yield


def numbers(suite: Suite) -> dict[str, dict[Score, float]]:
    """Folder of a run -> its numbers."""
    scores = suite.scores(EMOJI)
    return {one_run.name: {score: value for score in scores if (value := suite.value(one_run, score)) is not None}
            for one_run in suite.runs}


class Copy:
    """A suite that may be damaged: files are links to the whole one's until they are written anew."""

    def __init__(self, whole: Path) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.root = Path(self._folder.name) / "suite"
        shutil.copytree(whole, self.root, copy_function=os.link)
        self.run = next(self.root.glob(f"runs/*__{BROKEN}__*"))

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def put(self, name: str, content: bytes | str) -> None:
        path = self.root / name if name == "suite.json" else self.run / name
        path.unlink()
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

    def read(self, name: str) -> bytes:
        return (self.root / name if name == "suite.json" else self.run / name).read_bytes()


def holds(copy: Copy, file: str, expected: dict[str, dict[Score, float]]) -> Suite:
    """The oracle: the page is there, other runs' numbers are theirs, and what is wrong with `file` is named."""
    page = command.render(copy.root, copy.root / "report").read_text(encoding="utf-8")
    suite = read_suite(copy.root)
    checked = {one_run.name: provenance.recompute(one_run, suite) for one_run in suite.runs}
    for one_run in suite.runs:
        for frame in ("history.csv", "steps.csv", "singular_values.csv"):
            suite.frame(one_run, frame)
        for read in (suite.features, suite.examples, suite.distances, suite.precision_recall):
            read(one_run)
        suite.per_class(one_run, Score("mAP@all"))
    found, broken = numbers(suite), copy.run.name
    assert {name: values for name, values in found.items() if name != broken} == \
        {name: values for name, values in expected.items() if name != broken}
    reasons = [f"{name}: {why}" for name, why in suite.left_out if name.startswith(broken)]
    reasons += [f"{u.name}: {u.state}: {u.reason}" for u in suite.unfinished if u.name == broken]
    if found.get(broken) != expected[broken] and not any(
            file.partition("/")[0] in reason or "status" in file for reason in reasons):
        # a changed number that no check of form can see must at least differ from the values it is a mean of
        assert broken in found and checked[broken].differing and "DIFFER" in page, (file, reasons)
    assert "<script>alert" not in page and "\x00" not in page
    assert not [name for name in suite.left_out if any(other in name[0] for other in expected if other != broken)]
    return suite


@fuzz("result folders", examples=8)
@given(st.data())
def test_a_damaged_file_costs_its_own_run_alone(whole, expected, data):
    file = data.draw(st.sampled_from(FILES))
    with Copy(whole) as copy:
        content = bytearray(copy.read(file))
        how = data.draw(st.sampled_from(("cut", "flip", "flip many", "insert", "empty", "gone", "folder", "pipe", "noise")))
        if how == "cut":
            copy.put(file, bytes(content[:data.draw(st.integers(0, len(content) - 1))]))
        elif how.startswith("flip"):
            for _ in range(1 if how == "flip" else 20):
                content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            copy.put(file, bytes(content))
        elif how == "insert":
            at = data.draw(st.integers(0, len(content)))
            copy.put(file, bytes(content[:at]) + data.draw(st.binary(min_size=1, max_size=20)) + bytes(content[at:]))
        elif how in ("empty", "noise"):
            copy.put(file, b"" if how == "empty" else data.draw(st.binary(max_size=300)))
        else:
            (copy.run / file).unlink()
            if how == "folder":
                (copy.run / file).mkdir()
            elif how == "pipe":
                os.mkfifo(copy.run / file)
        suite = holds(copy, file, expected)
        if how in ("empty", "gone", "folder", "pipe", "noise") and file in CORE:
            assert any(name == copy.run.name and file in why for name, why in suite.left_out)


@fuzz("result folders", examples=8)
@given(st.data())
def test_settings_of_other_types_are_named(whole, expected, data):
    file = data.draw(st.sampled_from(("config.json", "status.json", "provenance.json", "examples.json", "mlflow.json")))
    with Copy(whole) as copy:
        found = json.loads(copy.read(file))
        node, keys = found, []
        while isinstance(node, (dict, list)) and node and (not keys or data.draw(st.booleans())):
            keys.append(data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node)))))
            parent, node = node, node[keys[-1]]
        if data.draw(st.integers(0, 4)) or isinstance(parent, list):
            parent[keys[-1]] = data.draw(ODD)
        else:
            del parent[keys[-1]]
        copy.put(file, json.dumps(found if data.draw(st.integers(0, 9)) else data.draw(ODD)))
        holds(copy, file, expected)
        draw_all(copy, file)


@fuzz("result folders", examples=8)
@given(st.data())
def test_tables_of_other_columns_and_numbers_are_named(whole, expected, data):
    file = data.draw(st.sampled_from(CSV))
    with Copy(whole) as copy:
        rows = list(csv.reader(io.StringIO(copy.read(file).decode())))
        at, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(rows[0]) - 1))
        how = data.draw(st.sampled_from(("word", "word", "word", "column gone", "row gone", "row twice", "field gone",
                                         "field more", "all of a column")))
        if how == "word":
            rows[at][column] = data.draw(WORDS)
        elif how == "column gone":
            rows = [row[:column] + row[column + 1:] for row in rows]
        elif how == "row gone":
            del rows[at]
        elif how == "row twice":
            rows.insert(at, rows[at])
        elif how == "field gone":
            del rows[at][column]
        elif how == "field more":
            rows[at].insert(column, "1")
        else:
            word = data.draw(WORDS)
            rows = [rows[0], *([*row[:column], word, *row[column + 1:]] for row in rows[1:])]
        stream = io.StringIO()
        csv.writer(stream).writerows(rows)
        copy.put(file, stream.getvalue())
        # the digest would name every change: without it the checks of form are on their own
        with_digest = data.draw(st.booleans())
        if not with_digest:
            (copy.run / "SHA256SUMS").unlink()
        suite = read_suite(copy.root)
        if with_digest:
            holds(copy, file, expected)
        else:
            command.render(copy.root, copy.root / "report")
            others = {n: v for n, v in numbers(suite).items() if n != copy.run.name}
            assert others == {n: v for n, v in expected.items() if n != copy.run.name}
        if not data.draw(st.integers(0, 3)):
            draw_all(copy, file)


def odd_arrays(array: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What may stand in place of an array."""
    return {
        "objects": lambda: np.array([{"a": 1}] * len(array), dtype=object), "no values": lambda: array[:0],
        "scalar": lambda: np.array(1.0), "flat": lambda: array.reshape(-1), "deeper": lambda: array[None],
        "shorter": lambda: array[1:],
        "complex": lambda: np.zeros(array.shape, complex), "truth": lambda: np.ones(array.shape, bool),
        "bytes": lambda: np.full(array.shape, b"x"), "words": lambda: np.full(array.shape, "x"),
        "whole numbers": lambda: np.zeros(array.shape, np.uint8), "records": lambda: np.zeros(array.shape, [("a", "f4")]),
        "dates": lambda: np.zeros(array.shape, "datetime64[s]"), "not a number": lambda: np.full(array.shape, np.nan),
        "infinite": lambda: np.full(array.shape, np.inf), "huge": lambda: np.full(array.shape, 1e300),
        "large": lambda: np.full(array.shape, 1e29), "tiny": lambda: np.full(array.shape, 1e-300),
        "negative": lambda: np.full(array.shape, -1.0), "equal": lambda: np.zeros(array.shape, np.float32),
        "odd letters": lambda: np.full(array.shape, "\ud800<\u202e$&"), "no letters": lambda: np.full(array.shape, ""),
        "other order": lambda: np.asfortranarray(array[::-1]), "other bytes": lambda: array.astype(array.dtype.newbyteorder()),
    }


def archive(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in entries.items():
            out.writestr(name, content)
    return stream.getvalue()


def as_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def header(shape: str, dtype: str = "'<f4'") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@fuzz("result folders", examples=8)
@given(st.data())
def test_arrays_of_other_kinds_are_named(whole, expected, data):
    file = data.draw(st.sampled_from(NPZ))
    with Copy(whole) as copy:
        arrays = dict(np.load(io.BytesIO(copy.read(file))))
        name = data.draw(st.sampled_from(sorted(arrays)))
        choices = odd_arrays(arrays[name])
        how = data.draw(st.sampled_from([*choices, "gone", "claims more", "claims no bytes", "no header"]))
        entries = {f"{key}.npy": as_npy(array) for key, array in arrays.items()}
        if how in choices:
            entries[f"{name}.npy"] = as_npy(choices[how]())
        elif how == "gone":
            del entries[f"{name}.npy"]
        elif how == "no header":
            entries[f"{name}.npy"] = data.draw(st.binary(max_size=40))
        else:
            shape = data.draw(st.sampled_from(("(1000000000000,)", "(4294967296, 4294967296)", "(-1,)", "(True,)",
                                               "(10, 9" + "9" * 300 + ")")))
            entries[f"{name}.npy"] = header(shape, "'<f4'" if how == "claims more" else "'<U0'") + b"\0" * 40
        copy.put(file, archive(entries))
        suite = holds(copy, file, expected)
        used = name.startswith(("class", "real/", "binary/")) or name in (*figure_data_arrays(),)
        if how in ("objects", "claims more") and used:
            assert any(entry.startswith(copy.run.name) and name in why for entry, why in suite.left_out), (how, name)
        if not data.draw(st.integers(0, 3)):
            draw_all(copy, file)


def figure_data_arrays() -> tuple[str, ...]:
    from reports.read.schema import DISTANCE_ARRAYS, FEATURE_ARRAYS
    return (*DISTANCE_ARRAYS, *FEATURE_ARRAYS)


def draw_all(copy: Copy, file: str) -> None:
    """Every figure that is made of a file, without the net that the report spans below it."""
    suite = read_suite(copy.root)
    for kind in KINDS.get(file, ()):
        found = getattr(frames, kind)(suite, EMOJI)
        if found is not None:
            figure = draw.draw(found)
            assert isinstance(figure, Figure)
            figure.savefig(io.BytesIO(), dpi=20, format="png")
            found.saved(copy.root)


@fuzz("result folders", examples=8)
@given(st.data())
def test_a_damaged_plan_costs_no_number(whole, expected, data):
    with Copy(whole) as copy:
        head = json.loads(copy.read("suite.json"))
        how = data.draw(st.sampled_from(("field", "entry", "entry field", "ledger field", "cut", "flip", "gone", "outside")))
        if how == "field":
            head[data.draw(st.sampled_from(sorted(head)))] = data.draw(ODD)
        elif how == "entry":
            head["runs"][data.draw(st.integers(0, 2))] = data.draw(ODD)
        elif how in ("entry field", "ledger field"):
            entry = data.draw(st.sampled_from(head["runs" if how == "entry field" else "ledger"]))
            entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(ODD)
        elif how == "outside":
            head["runs"].append({**head["runs"][0], "seed": 7, "folder": data.draw(st.sampled_from(
                ("../../etc", "/etc", "runs/../../x", "runs/a/b", "..")))})
        content = bytearray(json.dumps(head).encode())
        if how == "cut":
            content = content[:data.draw(st.integers(0, len(content) - 1))]
        elif how == "flip":
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        copy.put("suite.json", bytes(content))
        if how == "gone":
            (copy.root / "suite.json").unlink()
        page = command.render(copy.root, copy.root / "report").read_text(encoding="utf-8")
        suite = read_suite(copy.root)
        assert numbers(suite) == expected and "<script>alert" not in page
        if how in ("cut", "gone", "outside"):
            assert any(name == "suite.json" for name, _ in suite.left_out) and "suite.json" in page
        if how == "outside":
            assert "nothing outside is read" in page and not any(u.seed == 7 for u in suite.unfinished)


@fuzz("result folders", examples=8)
@given(st.data())
def test_a_damaged_reproduction_or_extension_costs_itself(whole, expected, data):
    with Copy(whole) as copy:
        path = next((copy.root / "reproductions").glob("*.json"))
        found = json.loads(path.read_text())
        run = copy.root / "extension" / "runs" / "dann__seed0"
        run.mkdir(parents=True)
        result = {"data": "d", "method": "dann", "title": "DANN", "seed": 0, "target_accuracy": 0.5, "source_accuracy": 0.6,
                  "steps": 20, "seconds": 3.0}
        history = [["step", "source_accuracy", "target_accuracy"], ["10", "0.4", "0.3"], ["20", "0.6", "0.5"]]
        for part in data.draw(st.sampled_from(((found,), (result,), (found, result)))):
            part[data.draw(st.sampled_from(sorted(part)))] = data.draw(ODD)
        if data.draw(st.booleans()):
            history[data.draw(st.integers(0, 2))][data.draw(st.integers(0, 2))] = data.draw(WORDS)
        path.unlink()
        path.write_text(json.dumps(found))
        (run / "result.json").write_text(json.dumps(result))
        (run / "history.csv").write_text("\n".join(",".join(row) for row in history))
        page = command.render(copy.root, copy.root / "report").read_text(encoding="utf-8")
        assert numbers(read_suite(copy.root)) == expected and "<script>alert" not in page


@fuzz("lists of published numbers", examples=50)
@given(st.data())
def test_a_list_of_published_numbers_is_read_or_named_by_its_line(data):
    rows = list(csv.reader(io.StringIO(published.FILE.read_text(encoding="utf-8"))))[:30]
    at, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(rows[0]) - 1))
    rows[at][column] = data.draw(st.one_of(WORDS, st.text(max_size=20), st.sampled_from(
        ["0e999999", "1e-999999", "9" * 5000, "1_0", "\u0663", "1e5", "1e+", "0x1p-3", "1e-5"])))
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    content = bytearray(stream.getvalue().encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.sampled_from((0, 0, 1, 5)))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "numbers.csv"
        path.write_bytes(bytes(content))
        try:
            lines = lint.read(path)
        except ReportError as error:
            assert "numbers.csv" in str(error)
            return
        for finding in lint.findings(lines):
            assert finding.line in lines and finding.text


@pytest.mark.parametrize("how", ["equal", "large", "tiny", "one number", "one class", "two points"])
def test_tsne_takes_whatever_numbers_pass_the_checks(whole, tmp_path, how):
    with Copy(whole) as copy:
        for one_run in copy.root.glob("runs/*"):
            arrays = dict(np.load(one_run / "features.npz"))
            change = {"equal": np.zeros_like, "large": lambda a: np.sign(a) * 1e29, "tiny": lambda a: a * np.float32(1e-38),
                      "one number": lambda a: a[:, :1], "one class": lambda a: a, "two points": lambda a: a[:1]}[how]
            for side in ("query", "gallery"):
                arrays[side] = change(arrays[side])
                labels = arrays[f"{side}_labels"][:len(arrays[side])]
                arrays[f"{side}_labels"] = np.full_like(labels, labels[0]) if how == "one class" else labels
            (one_run / "features.npz").unlink()
            np.savez(one_run / "features.npz", **arrays)
        suite = read_suite(copy.root)
        found = frames.tsne(suite, EMOJI, tmp_path)
        if found is None:
            assert how == "two points" or how in ("equal", "tiny") and len(suite.left_out) == 3
            return
        assert np.isfinite(found.frame[["x", "y"]].to_numpy()).all()
        draw.draw(found).savefig(io.BytesIO(), dpi=20)


def test_an_array_that_unpacks_to_far_more_than_its_file_is_refused_before_it_takes_memory(tmp_path):
    path = tmp_path / "features.npz"
    size = files.FREE_BYTES + 4
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out, out.open("query.npy", "w") as stream:
        stream.write(header(f"({size // 4},)"))
        for start in range(0, size, 1 << 20):
            stream.write(bytes(min(1 << 20, size - start)))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ReportError, match=r"features.npz, array query: would take 0.1 GB out of 0.1 MB; not unpacked"):
        files.read_arrays(path)


def test_a_picture_that_is_too_large_is_named_by_its_header(whole, expected):
    with Copy(whole) as copy:
        content = bytearray(copy.read("examples/0-query.png"))
        content[16:24] = struct.pack(">II", 60000, 60000)
        content[29:33] = struct.pack(">I", __import__("zlib").crc32(bytes(content[12:29])))
        copy.put("examples/0-query.png", bytes(content))
        suite = holds(copy, "examples/0-query.png", expected)
        assert any("0-query.png" in why and "pixels" in why for _, why in suite.left_out)


def test_links_out_of_a_run_show_nothing_of_this_machine(whole, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("do not show this\n")
    with Copy(whole) as copy:
        found = json.loads(copy.read("provenance.json"))
        copy.put("provenance.json", json.dumps({**found, "dirty": True, "diff_sha256": "0" * 64}))
        (copy.run / "diff.patch").symlink_to(secret)
        (copy.run / "examples" / "0-query.png").unlink()
        (copy.run / "examples" / "0-query.png").symlink_to(secret)
        page = command.render(copy.root, copy.root / "report").read_text()
        suite = read_suite(copy.root)
        assert "do not show" not in page and suite.examples(next(c for c in suite.runs if c.variant == BROKEN)) is None


def test_a_file_in_place_of_a_runs_folder_is_named(whole):
    with Copy(whole) as copy:
        shutil.rmtree(copy.run)
        copy.run.write_text("gone")
        suite = read_suite(copy.root)
        assert (copy.run.name, "no folder of a run, but a file") in suite.left_out and len(suite.runs) == 2


@pytest.mark.parametrize("file", ["metrics.csv", "history.csv"])
def test_a_changed_digit_that_no_check_of_form_sees_is_found_by_its_digest(whole, file):
    with Copy(whole) as copy:
        content = copy.read(file).decode()
        at = max(content.rfind(digit) for digit in "123456789")
        copy.put(file, content[:at] + ("1" if content[at] != "1" else "2") + content[at + 1:])
        suite = read_suite(copy.root)
        for one_run in suite.runs:
            suite.frame(one_run, "history.csv")
        name = copy.run.name if file == "metrics.csv" else f"{copy.run.name}/{file}"
        assert f"{file} is not as the run wrote it" in dict(suite.left_out)[name]
        assert (copy.run.name in {one_run.name for one_run in suite.runs}) == (file != "metrics.csv")
