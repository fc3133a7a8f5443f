"""`tcn add`: features made elsewhere become a row like any other, and what does not fit the split is refused."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from benchmarks import add, compare, mirror, reproduce
from benchmarks.moved import address
from benchmarks.records import read_rows
from benchmarks.store import RunFolder, SuiteFolder
from reports import naming
from reports.read.suite import read_suite
from reports.tables import comparison
from tcn.config import InputError
from tcn.data.specs import read_plan
from tcn.scoring.scores import score

DATASET = "sketchy-first4"


def features(path: Path, noise: float = 0.7, seed: int = 0, **changes: np.ndarray) -> dict[str, np.ndarray]:
    """A file of features of the unseen classes of the first 4 files of each class of Sketchy."""
    plan, rng = read_plan(DATASET, "1"), np.random.default_rng(seed)
    names = np.array(plan.of("unseen"))
    labels = np.repeat(np.arange(len(names)), 4)
    centres = np.random.default_rng(7).normal(size=(len(names), 24))
    arrays = {"query": centres[labels] + noise * rng.normal(size=(len(labels), 24)),
              "gallery": centres[labels] + noise * rng.normal(size=(len(labels), 24)),
              "query_labels": names[labels], "gallery_labels": names[labels], **changes}
    np.savez(path, **arrays)
    return arrays


@pytest.fixture
def run(tables: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Call the command on a results folder, without the report."""
    monkeypatch.setattr(mirror, "make_tables", lambda store: shutil.copyfile(tables, store))

    def call(file: Path, name: str, *more: str, split: str = "1") -> int:
        return add.main([str(file), "--name", name, "--dataset", DATASET, "--split", split, "--output", str(tmp_path / "out"),
                         "--no-report", *more])
    return call


def run_folders(output: Path) -> list[Path]:
    return sorted(path for path in (output / "runs").glob("*") if (path / "status.json").exists())


def test_a_file_becomes_a_row_with_the_numbers_that_evaluate_gives(tmp_path, run, capsys):
    train = np.random.default_rng(2).normal(size=(60, 24))
    arrays = features(tmp_path / "f.npz", train=train, query_paths=np.array([f"q{i}.png" for i in range(100)]))
    assert run(tmp_path / "f.npz", "mine") == 0
    folder, = run_folders(tmp_path / "out")
    assert folder.name.startswith(f"{DATASET}-1__brought-mine__seed0__")
    expected = score(arrays["query"].astype(np.float32), arrays["gallery"].astype(np.float32), arrays["query_labels"],
                     arrays["gallery_labels"])
    rows = {(r["features"], r["protocol"], r["metric"]): r for r in read_rows(folder / "metrics.csv")}
    for protocol in expected.protocols:
        for metric in ("mAP@all", "Prec@100", "mAP@200"):
            if metric in expected.metrics(protocol):
                assert (float(rows["real", protocol, metric]["value"])
                        == pytest.approx(expected.value(protocol, metric), abs=1e-12))
    assert {r["classes"] for r in rows.values()} == {"unseen"} and ("binary", "released", "mAP@all") in rows
    record = json.loads((folder / "provenance.json").read_text())
    assert record["brought"]["file"] == "f.npz" and record["optimizer_steps"] is None and not RunFolder.read(folder).damaged()
    with np.load(folder / "per_query.npz") as kept:
        assert kept["query"][3] == "q3.png"
    # the same file again changes nothing
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name not in ("mlflow.json", ".lock")}
    assert run(tmp_path / "f.npz", "mine") == 0 and "there already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}
    suite = read_suite(tmp_path / "out")
    table = comparison.comparison(suite, suite.tasks()[0])
    row = next(row for row in table.rows if row.entries[0].text == "mine (brought along)")
    released = rows["real", "released", "mAP@all"]["value"]
    assert row.entries[2].text == f"{float(released):.3f}" and row.entries[1].text == "24"
    assert not suite.left_out


def test_what_evaluate_says_of_a_file_is_said_here_too(tmp_path, capsys):
    plan = read_plan(DATASET, "1")
    arrays = features(tmp_path / "f.npz", query_paths=np.array([f"q{i}.png" for i in range(100)]))
    add.read_features(tmp_path / "f.npz", plan, "mine")
    assert capsys.readouterr().err == ""
    arrays["gallery"][5:8] = arrays["gallery"][4]
    np.savez(tmp_path / "f.npz", **arrays, remarks=np.arange(3))
    add.read_features(tmp_path / "f.npz", plan, "mine")
    said = capsys.readouterr().err
    assert f"note: {tmp_path / 'f.npz'}: not used: remarks\n" in said
    assert f"note: {tmp_path / 'f.npz'}: 3 gallery entries are identical to an earlier one; if they are one photo" in said
    np.savez(tmp_path / "f.npz", **arrays, gallery_group=np.arange(100))
    add.read_features(tmp_path / "f.npz", plan, "mine")
    assert capsys.readouterr().err == ""


def test_without_the_array_train_there_are_no_codes(tmp_path, run):
    features(tmp_path / "f.npz")
    assert run(tmp_path / "f.npz", "mine") == 0
    folder, = run_folders(tmp_path / "out")
    assert {r["features"] for r in read_rows(folder / "metrics.csv")} == {"real"}


def test_mlflow_has_it_marked_and_a_lost_store_gets_it_back(tmp_path, run):
    features(tmp_path / "f.npz")
    assert run(tmp_path / "f.npz", "mine") == 0

    def found(output: Path) -> dict[str, object]:
        client = MlflowClient(address(output / "mlflow.db"))
        experiment = client.get_experiment_by_name("tcn-sample")
        run, = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
        assert (run.info.status, run.data.tags["brought"], run.data.tags["variant"]) == ("FINISHED", "along", "brought-mine")
        assert run.data.params["data.dataset"] == DATASET and "network.backbone" not in run.data.params
        told = run.data.tags["mlflow.note.content"]
        assert "by features made elsewhere and scored here." in told and "untrained" not in told and "CPU" not in told
        return run.data.metrics
    first = found(tmp_path / "out")
    assert first["unseen/real/released/mAP_at_all"] > 0
    bare = shutil.copytree(tmp_path / "out", tmp_path / "bare", ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    again = mirror.Mirror(SuiteFolder.open(bare), "python benchmarks/run_all.py --sync")
    assert [again.settle(folder) for folder in SuiteFolder.open(bare).folders()] == [True] and found(bare) == first


def test_seeds_of_one_name_are_a_row_and_other_features_under_it_are_refused(tmp_path, run, capsys):
    for seed in (0, 3):
        features(tmp_path / f"{seed}.npz", seed=seed)
        assert run(tmp_path / f"{seed}.npz", "mine", "--seed", str(seed)) == 0
    features(tmp_path / "worse.npz", noise=3.0, seed=9)
    listing = tmp_path / "out" / "suite.json"
    listing.write_text(json.dumps({**json.loads(listing.read_text()), "missing_datasets": {"quickdraw": "no folder"},
                                   "command": "c"}))
    assert run(tmp_path / "worse.npz", "mine") == 2 and "is there already with other features" in capsys.readouterr().err
    assert run(tmp_path / "worse.npz", "worse") == 0
    head = json.loads(listing.read_text())
    assert (head["missing_datasets"], head["command"], len(head["runs"])) == ({"quickdraw": "no folder"}, "c", 3)
    suite = read_suite(tmp_path / "out")
    assert [one_run.seed for one_run in suite.runs_of(suite.tasks()[0], "brought-mine")] == [0, 3] and not suite.left_out
    assert compare.main([*map(str, run_folders(tmp_path / "out")), "--json", "--metrics", "mAP@all"]) == 0
    out = capsys.readouterr().out
    pair, = json.loads(out[out.index("{\n"):])["pairs"]
    assert {pair["first"], pair["second"]} == {"brought-mine", "brought-worse"} and pair["significant"]


def test_what_does_not_fit_the_split_is_refused_before_anything_is_written(tmp_path, run, capsys):
    arrays = features(tmp_path / "f.npz")
    few = slice(1, None)
    cases = {
        "one.npz": ({name: arrays[name][few] for name in ("query", "query_labels")}, "99 queries, published are 100"),
        "other.npz": ({"query_labels": np.array(["zorb", *arrays["query_labels"][1:]])}, "that it does not have: 1 (zorb)"),
        "numbers.npz": ({"query_labels": np.arange(100), "gallery_labels": np.arange(100)},
                        "are int64: a split is told by the names"),
        "codes.npz": ({side: arrays[side] > 0 for side in ("query", "gallery")}, "codes can't be added"),
        "nan.npz": ({"query": np.where(np.arange(24) == 5, np.nan, arrays["query"])}, "query holds NaN"),
        "train.npz": ({"train": np.ones((5, 23))}, "rows of different lengths: query 24, gallery 24, train 23"),
        "paths.npz": ({"query_paths": np.array(["a"])}, "query_paths is <U1 (1,)")}
    for name, (changes, words) in cases.items():
        features(tmp_path / name, **changes)
        assert run(tmp_path / name, "mine") == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {tmp_path / name}: ") and words in err
    assert run(tmp_path / "f.npz", "mine", split="2") == 2
    assert ("These are the unseen classes of Sketchy Extended, split 1 (25 classes); numbers of another split"
            in capsys.readouterr().err)
    with pytest.raises(SystemExit):
        run(tmp_path / "f.npz", "a__b")
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "f.npz", "mine") == 0
    # a results folder of another profile stays as it is
    head = json.loads((tmp_path / "out" / "suite.json").read_text())
    (tmp_path / "laptop").mkdir()
    (tmp_path / "laptop" / "suite.json").write_text(json.dumps({**head, "profile": "laptop", "runs": []}))
    assert add.main([str(tmp_path / "f.npz"), "--name", "mine", "--dataset", DATASET, "--output", str(tmp_path / "laptop")]) == 2
    assert "holds runs of profile 'laptop', none of sketchy-first4/1" in capsys.readouterr().err


def test_it_can_not_be_run_again_and_says_why(tmp_path, run):
    features(tmp_path / "f.npz")
    assert run(tmp_path / "f.npz", "mine") == 0
    with pytest.raises(InputError, match="its features were brought along"):
        reproduce.read(run_folders(tmp_path / "out")[0])


def test_tables_and_harness_agree_on_the_mark():
    assert add.BROUGHT == naming.BROUGHT
