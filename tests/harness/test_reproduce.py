"""`--reproduce`: a run repeated from its own folder agrees bit for bit; what differs is found and named."""
from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from support.small_suite import ONE, common, places, run_folders

from benchmarks import provenance, reproduce, run_all
from tcn.config import InputError

NAME = "quickdraw-1__tcn__seed3"


@pytest.fixture(scope="module", autouse=True)
def same_commit():
    """The checkout may be edited while tests run; these tests say themselves when the commit differs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "commit", lambda: {"commit": "a" * 40, "dirty": False, "diff_sha256": None})
        yield


@pytest.fixture(scope="module")
def suite(place) -> Path:
    """A suite with tcn finished, and repeated once."""
    output = place / "suite"
    assert run_all.main([*common(place), *ONE, "--variants", "tcn", "--output", str(output), "--no-report"]) == 0
    return output


@pytest.fixture
def again(place, suite, capsys, monkeypatch):
    """Call --reproduce; returns status, standard output, standard error, the JSON file's contents or None."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(run: str, output: Path = suite, *arguments: str):
        status = run_all.main([*places(place), "--output", str(output), "--reproduce", run, "--no-report", *arguments])
        captured = capsys.readouterr()
        files = list((output / "reproductions").glob("*.json"))
        return status, captured.out, captured.err, json.loads(files[0].read_text()) if files else None

    return call


def test_a_run_is_repeated_bit_for_bit_and_both_stay(suite, again):
    folder = run_folders(suite)[NAME]
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    status, out, _, found = again(folder.name)
    assert status == 0 and "bit for bit" in out
    assert found["verdict"] == "bit for bit" and found["largest_difference"] == 0 and found["same_environment"]
    metrics = len(list(csv.DictReader(open(folder / "metrics.csv"))))
    features = sum(a.size for a in np.load(folder / "features.npz").values())
    assert found["compared"] > metrics + features
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    client = mlflow.MlflowClient(f"sqlite:///{suite / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.kind = 'reproduction'")
    assert [r.data.tags["reproduces"] for r in runs] == [folder.name] and runs[0].info.status == "FINISHED"
    assert runs[0].info.run_name.endswith("again")


def test_a_run_is_found_by_path_identity_and_mlflow_run(suite):
    folder = run_folders(suite)[NAME]
    identity = json.loads((folder / "config.json").read_text())["identity"]
    run_id = json.loads((folder / "mlflow.json").read_text())["run_id"]
    for name in (str(folder), folder.name, identity, identity[:8], run_id):
        assert reproduce.find(name, suite, suite.parent) == folder.resolve()
        assert reproduce.find(name, None, suite.parent) == folder.resolve()
    with pytest.raises(InputError, match="no such run"):
        reproduce.find("nothing", suite, suite.parent)


def _copy(suite: Path, target: Path) -> Path:
    """The suite with its one run, without what was repeated; without checksums, as older ones are, so that it may be changed."""
    shutil.copytree(suite, target, ignore=shutil.ignore_patterns("reproductions", "mlflow*", "mlartifacts", "report",
                                                                 "SHA256SUMS"))
    return run_folders(target)[NAME]


def test_another_number_than_before_is_a_difference_and_its_place_is_named(suite, again, tmp_path):
    folder = _copy(suite, tmp_path / "s")
    rows = list(csv.DictReader(open(folder / "metrics.csv")))
    victim = next(r for r in rows if (r["features"], r["protocol"], r["metric"]) == ("binary", "zse", "Prec@100"))
    victim["value"] = str(float(victim["value"]) + 0.03)
    with open(folder / "metrics.csv", "w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    status, out, _, found = again(folder.name, tmp_path / "s")
    assert status == 1 and found["verdict"] == "differs"
    assert found["largest_difference"] == pytest.approx(0.03) and "binary zse Prec@100" in found["where"]
    assert found["differences"] == ["not equal: metrics.csv"] and found["tolerance"] == 0
    status, out, _, found = again(folder.name, tmp_path / "s", "--tolerance", "0.05")
    assert status == 0 and found["verdict"] == "within tolerance" and "0.05" in out


def test_another_environment_is_named_and_loosens_the_tolerance(suite, again, tmp_path):
    folder = _copy(suite, tmp_path / "s")
    record = json.loads((folder / "provenance.json").read_text())
    record["versions"]["torch"], record["commit"] = "1.4.0", "f" * 40
    (folder / "provenance.json").write_text(json.dumps(record))
    status, out, _, found = again(folder.name, tmp_path / "s")
    assert status == 0 and not found["same_environment"] and found["tolerance"] == reproduce.ELSEWHERE
    assert "torch: 1.4.0 then" in out and "commit: ffffffffffff then" in out


@pytest.mark.parametrize("file, change, words", [
    ("provenance.json", {"data_digest": "0" * 64}, "other files"),
    ("provenance.json", {"words_digest": "0" * 64}, "word vectors"),
    ("status.json", {"state": "interrupted"}, "not finished"), ("config.json", {"losses": {"sharring": 1}}, "sharring")])
def test_a_run_that_cannot_be_repeated_is_refused_with_the_reason(suite, again, tmp_path, file, change, words):
    folder = _copy(suite, tmp_path / "s")
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **change}))
    status, _, err, found = again(folder.name, tmp_path / "s")
    assert status == 2 and words in err and found is None


def test_a_folder_that_is_not_as_it_was_written_is_refused(suite, again, tmp_path):
    folder = _copy(suite, tmp_path / "s")
    shutil.copy(run_folders(suite)[NAME] / "SHA256SUMS", folder)
    (folder / "metrics.csv").write_bytes((folder / "metrics.csv").read_bytes().replace(b"0.1", b"0.2", 1))
    status, _, err, found = again(folder.name, tmp_path / "s")
    assert status == 2 and "is not as it was written: metrics.csv" in err and found is None


def test_what_cannot_be_read_of_an_older_folder_is_a_difference_with_its_name(suite, again, tmp_path):
    folder = _copy(suite, tmp_path / "s")
    (folder / "features.npz").write_bytes(b"PK\3\4 and no more")
    status, _, _, found = again(folder.name, tmp_path / "s")
    assert status == 0 and found["verdict"] == "within tolerance"  # every metric is equal
    assert found["differences"] == ["not equal: features.npz (can't be read: BadZipFile)"]


def test_options_that_would_change_the_run_are_refused(suite, again):
    status, _, err, _ = again(run_folders(suite)[NAME].name, suite, "--set", "training.epochs=4")
    assert status == 2 and "--set" in err
    status, _, err, _ = again(run_folders(suite)[NAME].name, suite, "--seeds", "4")
    assert status == 2 and "--seeds" in err
