"""Whatever a file holds, reading it gives the right values or an error that names the file: lists, words, features, settings."""
from __future__ import annotations

import io
import json
import math
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import JSON, damage, fuzz

from tcn.__main__ import main
from tcn.cli.feature_files import read_arrays
from tcn.config import Config, InputError, change, flatten, from_dict, to_dict
from tcn.data.doctor import manifest_for
from tcn.data.lists import read_list, read_names
from tcn.data.words import load_words
from tcn.scoring.protocols import PROTOCOL_VERSION

NAMES = ("cat", "teddy bear", "axe")
WORD = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=8)




def read(content: bytes, name: str, reader: Callable[[Path], Any]) -> Any:
    """What a reader makes of a file; None for an error that names the file. Any other error fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return reader(path)
        except InputError as error:
            assert name in str(error), f"the file is not named: {error}"
            assert "\n" not in str(error).strip() or len(str(error)) < 2000
            return None


# --- lists ---------------------------------------------------------------------------------------------------

@fuzz("list files", 150)
@given(st.lists(st.tuples(st.lists(WORD, min_size=1, max_size=3), st.integers(0, 10**6)), min_size=1, max_size=8),
       st.sampled_from(("\n", "\r\n")), st.booleans(), st.booleans())
def test_a_list_gives_its_paths_and_labels(lines, end, mark, blank):
    text = "".join(f"{'/'.join(parts)} {label}{end}" + (end if blank else "") for parts, label in lines)
    found = read(("\ufeff" * mark + text).encode(), "list.txt", read_list)
    assert found is not None
    assert found[0] == ["/".join(parts) for parts, _ in lines] and found[1].tolist() == [label for _, label in lines]


@fuzz("list files", 250)
@given(st.data())
def test_a_damaged_list_is_read_or_named(data):
    whole = b"photo/cat/n02121808_1.jpg 0\nphoto/teddy bear/ext_2.jpg 1\nphoto/axe/ext_3.jpg 2\n" * 3
    found = read(data.draw(damage(whole)), "list.txt", read_list)
    if found is not None:
        paths, labels = found
        assert len(paths) == len(labels) > 0 and labels.dtype == np.int64 and (labels >= 0).all() and all(paths)
    read(data.draw(damage(b"cat 0\nteddy bear 1\naxe 2\n")), "cname_cid.txt", read_names)


@fuzz("list files", 150)
@given(st.binary(max_size=300))
def test_any_bytes_as_a_list_are_read_or_named(content):
    read(content, "list.txt", read_list)
    read(content, "cname_cid.txt", read_names)


# --- words ---------------------------------------------------------------------------------------------------

def vectors(seed: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(5, width)).astype(np.float32)


TOKENS = ("cat", "teddy_bear", "axe", "dog", "Ünïcode")


def glove(values: np.ndarray) -> bytes:
    return "".join(f"{token} {' '.join(map(str, row))}\n" for token, row in zip(TOKENS, values)).encode()


def word2vec_text(values: np.ndarray) -> bytes:
    return f"{len(values)} {values.shape[1]}\n".encode() + glove(values)


def word2vec_binary(values: np.ndarray) -> bytes:
    body = b"".join(token.encode() + b" " + struct.pack(f"<{values.shape[1]}f", *row) for token, row in zip(TOKENS, values))
    return f"{len(values)} {values.shape[1]}\n".encode() + body


def table(values: np.ndarray) -> bytes:
    return ("name," + ",".join(f"v{i}" for i in range(values.shape[1])) + "\n"
            + "".join(f"{token.replace('_', ' ')},{','.join(map(str, row))}\n" for token, row in zip(TOKENS, values))).encode()


FORMS = {"glove.txt": glove, "w2v.txt": word2vec_text, "w2v.bin": word2vec_binary, "words.csv": table}


@pytest.mark.parametrize("name", FORMS)
@fuzz("word vectors", 40)
@given(seed=st.integers(0, 10**6), width=st.integers(2, 24), unit=st.booleans())
def test_word_vectors_are_those_written(name, seed, width, unit):
    values = vectors(seed, width)
    found = read(FORMS[name](values), name, lambda path: load_words(path, NAMES, unit))
    expected = values[:3].astype(np.float64)
    expected = expected / np.sqrt((expected ** 2).sum(1, keepdims=True)) if unit else expected
    assert found is not None
    np.testing.assert_allclose(found.vectors, expected, rtol=1e-6)


@pytest.mark.parametrize("name", FORMS)
@fuzz("word vectors", 120)
@given(data=st.data())
def test_damaged_word_vectors_are_finite_or_named(name, data):
    whole = FORMS[name](vectors(0, 4))
    found = read(data.draw(damage(whole)), name, lambda path: load_words(path, NAMES))
    if found is not None:
        assert found.vectors.shape[0] == 3 and np.isfinite(found.vectors).all()
        np.testing.assert_allclose(np.linalg.norm(found.vectors.astype(float), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", [*FORMS, "words.gz", "words.pkl"])
@fuzz("word vectors", 60)
@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda b: b"3 4\n" + b),
                         st.binary(max_size=60).map(lambda b: b"\x1f\x8b\x08\0" + b)))
def test_any_bytes_as_word_vectors_are_read_or_named(name, content):
    read(content, name, lambda path: load_words(path, NAMES))


# --- features ------------------------------------------------------------------------------------------------

def archive(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def plain(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"query": rng.normal(size=(6, 4)), "gallery": rng.normal(size=(9, 4)), "query_labels": np.arange(6) % 3,
            "gallery_labels": np.arange(9) % 3}


ODD = st.sampled_from([
    np.zeros((6, 4)), np.full((6, 4), np.nan), np.full((6, 4), np.inf), np.zeros((0, 4)), np.zeros((6, 0)), np.zeros(6),
    np.zeros((6, 4, 2)), np.array(3.0), np.array(["a"] * 6), np.array([b"\xff"] * 6), np.ones((6, 4), complex),
    np.ones((6, 4), bool), np.ones((6, 4), np.uint8), np.full((6, 4), 7, np.uint8), np.arange(6), np.arange(6.0),
    np.arange(9) % 3, np.array([np.nan] * 6), np.array(["2020-01-01"] * 6, dtype="datetime64[D]"),
    np.zeros(6, dtype=[("a", int)]),
    np.array(["\ud800"] * 6), np.array([""] * 6), np.array([2**64 - 1] * 6, np.uint64), np.full((6, 4), 1e308),
    np.zeros((6, 4), np.float16), np.longdouble(1) * np.ones((6, 4))])


def evaluated(path: Path) -> int:
    status = main(["evaluate", str(path), "--json", "--tie-draws", "2"])
    assert status in (0, 2)
    return status


@fuzz("feature files", 200)
@given(data=st.data())
def test_features_of_any_kind_are_scored_or_named(data, capsys):
    arrays = plain()
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from((*arrays, "gallery_group", "train")))
        if data.draw(st.booleans()) or name not in arrays:
            arrays[name] = data.draw(ODD)
        else:
            del arrays[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npz"
        path.write_bytes(archive(**arrays))
        status = evaluated(path)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    if status == 0:
        found = json.loads(out)
        assert found.pop("protocol_version") == PROTOCOL_VERSION
        numbers = [value for rule in found.values() for value in rule.values()]
        assert numbers and all(math.isfinite(value) and 0 <= value <= 1 for value in numbers)
    else:
        assert any(name in err for name in ("query", "gallery", "label", "train", "features.npz")), err


@fuzz("feature files", 200)
@given(data=st.data())
def test_a_damaged_feature_file_is_read_or_named(data):
    found = read(data.draw(damage(archive(**plain()))), "features.npz", read_arrays)
    if found is not None:
        # Every byte of an array is under its checksum: what is read is what was written.
        for name, array in plain().items():
            assert np.array_equal(found[0][name], array)


def test_an_array_that_claims_to_be_huge_is_named_without_taking_the_memory(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**3)})
    with zipfile.ZipFile(tmp_path / "features.npz", "w") as out:
        out.writestr("query.npy", stream.getvalue())
    with pytest.raises(InputError, match="features.npz: query cannot be read"):
        read_arrays(tmp_path / "features.npz")


# --- settings and manifests ----------------------------------------------------------------------------------

KEYS = st.sampled_from([*flatten(to_dict(Config())), "data", "losses", "training.epochs.more", "", ".", "unknown", "seed."])


@fuzz("settings", 400)
@given(st.dictionaries(KEYS, JSON, min_size=1, max_size=3))
def test_settings_are_taken_as_they_are_or_named(delta):
    try:
        found = flatten(to_dict(change(Config(), delta)))
    except InputError as error:
        assert "setting" in str(error) and any(key.split(".")[0] in str(error) for key in delta), error
        return
    for key, value in delta.items():
        whole = isinstance(found[key], float) and isinstance(value, int)  # 2**53 + 1 has no float of its own
        assert found[key] == (float(value) if whole else value), (key, value)
        assert not isinstance(found[key], float) or math.isfinite(found[key]), (key, value)


@fuzz("settings", 200)
@given(JSON)
def test_any_object_as_a_config_is_taken_or_named(value):
    try:
        from_dict(value)
    except InputError as error:
        assert str(error)


class Found:
    """What the doctor's manifest is looked up by."""

    dataset, name, data_digest, split_digest = "quickdraw", "1", "d" * 64, "s" * 64


@fuzz("manifests", 200)
@given(data=st.data())
def test_a_damaged_manifest_is_read_or_named(data):
    whole = json.dumps({"data_digest": Found.data_digest, "split_digest": Found.split_digest, "content_digest": "c" * 64,
                        "counts": {"query": 3}, "checked": "2026-01-01", "unreadable": []}).encode()
    content = data.draw(st.one_of(damage(whole), JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifests" / f"quickdraw-1-{'d' * 16}.json"
        path.parent.mkdir()
        path.write_bytes(content)
        try:
            found = manifest_for(Found(), Path(folder))
            assert found is None or found["data_digest"] == Found.data_digest
        except InputError as error:
            assert path.name in str(error)
        assert os.listdir(path.parent) == [path.name]
