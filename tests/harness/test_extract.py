"""`python -m tcn extract`: the same features as the run of a frozen network has, in parts, resumable,
fit for the other commands."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.small_suite import ONE, common, run_folders

from tcn.__main__ import main
from tcn.cli import extract


def call(place: Path, out: Path, *more: str) -> int:
    return main(["extract", "--backbone", "test_resnet", "--weights", str(place / "weights.pth"), "--dataset", "quickdraw",
                 "--data-root", str(place / "data"), "--cache", str(place / "cache"), "--image-size", "32",
                 "--stored-size", "32", "--out", str(out), *more])


def test_features_are_those_of_the_frozen_baselines_run(place, tmp_path, command: Callable[..., tuple[int, str, str]],
                                                        monkeypatch):
    monkeypatch.setattr(extract, "BLOCK", 64)  # 90 sketches in two blocks
    status, _, err = command(*common(place), *ONE, "--variants", "untrained-imagenet", "--no-report",
                             "--output", str(tmp_path / "run"))
    assert status == 0, err
    assert call(place, tmp_path / "f.npz", "--train") == 0
    folder, = run_folders(tmp_path / "run").values()
    with np.load(folder / "features.npz") as run, np.load(tmp_path / "f.npz") as own:
        for name in ("query", "gallery", "query_labels", "gallery_labels", "query_paths", "gallery_paths"):
            assert np.array_equal(run[name], own[name]), name
        assert own["query"].shape == (90, 96) and len(own["train"]) == 80 * (3 - 1 + 2)  # one sketch of each class is held out
        assert json.loads(str(own["extraction"]))["backbone"] == "test_resnet"
    assert not (tmp_path / "f.npz.parts").exists()
    assert main(["evaluate", str(tmp_path / "f.npz"), "--itq", "8", "--json"]) == 0


def test_a_stopped_extraction_goes_on_and_ends_as_one_without_a_pause(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(extract, "BLOCK", 64)
    assert call(place, tmp_path / "whole.npz") == 0
    real, calls = extract.extract_features, []

    def stops(*arguments: object) -> np.ndarray:
        calls.append(len(arguments[1]))  # type: ignore[arg-type]
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(extract, "extract_features", stops)
    assert call(place, tmp_path / "parts.npz") == 130 and not (tmp_path / "parts.npz").exists()
    assert "another extraction (image_size" in refused(capsys, place, tmp_path / "parts.npz", "--image-size", "24")
    assert call(place, tmp_path / "parts.npz") == 0
    assert calls == [64, 26, 26, 60]  # the first block is not made again
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "parts.npz") as own:
        assert all(np.array_equal(whole[name], own[name]) for name in whole.files)


def test_a_damaged_block_is_named_and_made_anew(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(extract, "BLOCK", 64)
    real = extract._assemble

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(extract, "_assemble", stops)
    assert call(place, tmp_path / "f.npz") == 130
    monkeypatch.setattr(extract, "_assemble", real)
    block = tmp_path / "f.npz.parts" / "query-64.npy"
    block.write_bytes(block.read_bytes()[:-40])
    assert "query-64.npy was damaged" in refused(capsys, place, tmp_path / "f.npz") and not block.exists()
    assert call(place, tmp_path / "f.npz") == 0
    capsys.readouterr()


def refused(capsys: pytest.CaptureFixture[str], place: Path, out: Path, *more: str) -> str:
    capsys.readouterr()
    assert call(place, out, *more) == 2
    return capsys.readouterr().err


def test_bad_usage_is_named_before_anything_is_read(place, tmp_path, capsys):
    assert "ends in .npz" in refused(capsys, place, tmp_path / "f")
    (tmp_path / "there.npz").write_bytes(b"x")
    assert "is there already" in refused(capsys, place, tmp_path / "there.npz")
    assert "the stored one no smaller" in refused(capsys, place, tmp_path / "f.npz", "--stored-size", "16")
    assert "can't be used here" in refused(capsys, place, tmp_path / "f.npz", "--device", "cuda:99")
    assert "data set" in refused(capsys, place, tmp_path / "f.npz", "--dataset", "imagenet")
    (tmp_path / "g.npz.parts").mkdir()
    (tmp_path / "g.npz.parts" / "note.txt").write_text("mine")
    assert "holds other files" in refused(capsys, place, tmp_path / "g.npz")
