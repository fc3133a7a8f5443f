"""Every reader of binary files names a file of another format, and what to do, beside the error of its own library."""
from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks import records
from reports.read import bundles
from reports.read import files as result_files
from tcn.cli.feature_files import read_arrays
from tcn.data.pickled import read_pickle
from tcn.files import foreign
from tcn.model import weight_files
from tcn.train import checkpoints

READERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights": (weight_files.read, "w.pth"), "safetensors": (weight_files.read, "w.safetensors"),
    "features": (read_arrays, "f.npz"), "checkpoint": (checkpoints.load, "epoch-0001.pt"), "vectors": (read_pickle, "v.pkl"),
    "arrays of a run": (result_files.read_arrays, "features.npz"),
    "settings in the report": (result_files.read_json, "config.json"),
    "picture of a run": (result_files.check_picture, "examples.png"),
    "settings of a run": (records.read_json, "config.json"),
    "bundle": (lambda path: bundles.unpack(path, path.parent / "out"), "b.zip"),
}
FORMS = {
    "; it is a Git LFS pointer: run `git lfs pull` in": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n",
    "; it is a page of HTML or XML, such as an error page": b"\xef\xbb\xbf <!doctype html>\n<html><body>404</body></html>\n",
    "; it is gzip-compressed: call it NAME.gz and run `gunzip NAME.gz`": gzip.compress(b"weights" * 99),
    "; it is xz-compressed: call it": b"\xfd7zXZ\0\0\4\xe6",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("message", FORMS)
def test_a_file_of_another_format_is_named(tmp_path: Path, reader: str, message: str) -> None:
    read, name = READERS[reader]
    (tmp_path / name).write_bytes(FORMS[message])
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_weights_under_each_other_s_names_are_told(tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(3, 4)}
    save_file(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth can't be read.*; it is a safetensors file: call it NAME\.safetensors"):
        weight_files.read(tmp_path / "w.pth")
    for old in (False, True):
        torch.save(state, tmp_path / "w.safetensors", _use_new_zipfile_serialization=not old)
        with pytest.raises(ValueError, match=r"w\.safetensors can't be read.*; it is a PyTorch file: call it NAME\.pth"):
            weight_files.read(tmp_path / "w.safetensors")
    np.save(tmp_path / "f.npy", np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"not an \.npz file; it is a single array: write all of them .* np\.savez"):
        read_arrays(tmp_path / "f.npy")
    (tmp_path / "w.pth").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(ValueError, match="it is an HDF5 file"):
        weight_files.read(tmp_path / "w.pth")
    (tmp_path / "metrics.csv").write_bytes(gzip.compress(b"a,b\n"))
    with pytest.raises(ValueError, match=r"metrics\.csv can't be read.*; it is gzip-compressed"):
        records.read_rows(tmp_path / "metrics.csv")


def test_what_is_damaged_but_known_of_nothing_gets_no_guess(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"PK\3\4" + bytes(99))  # a PyTorch file is a zip archive itself
    with pytest.raises(ValueError, match="as torchvision or the architecture's package publishes them"):
        weight_files.read(tmp_path / "w.pth")
    assert foreign.of(tmp_path / "none") == foreign.of(tmp_path) == foreign.of(tmp_path / "w.pth") == ""
    assert foreign.of(tmp_path / "w.pth", (foreign.ZIP,)) == "; it is a zip archive: unpack it"
