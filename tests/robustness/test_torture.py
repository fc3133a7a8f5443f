"""The kill test in short: a small grid killed twice and given again. `make torture` is the long form."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.small_suite import ONE, SMALL, places

from benchmarks.tools import torture, torture_checks
from benchmarks.tools.torture_checks import Count, Lost


@pytest.fixture(scope="module")
def grid(place) -> list[str]:
    return [*places(place), "--quick", "--threads", "1", *ONE, "--variants", "untrained-svd", "tcn", *SMALL,
            "training.epochs=3"]


def test_a_grid_killed_twice_loses_nothing(grid, tmp_path):
    count = torture.torture(grid, tmp_path, kills=2, seed=1, settings=("one process",), say=lambda line: None)
    rounds = sum(count.rounds.values())
    assert count.total == 2 and rounds >= 1 and count.values > 500_000 * rounds and count.recorded == 3 * rounds
    table = torture.to_markdown(count, "a command", "a machine")
    assert "| **all** | | **2** |" in table and "Lost: nothing" in table


def test_the_undisturbed_suite_is_equal_to_itself_and_each_damage_is_found(grid, tmp_path):
    """The torture must be able to fail: what it calls lost is found where it is lost."""
    from benchmarks import run_all

    assert run_all.main([*grid[:-1], "--variants", "untrained-svd", "--no-report", "--output", str(tmp_path / "a")]) == 0
    assert run_all.main([*grid[:-1], "--variants", "untrained-svd", "--no-report", "--output", str(tmp_path / "b")]) == 0
    a, b = tmp_path / "a", tmp_path / "b"
    assert torture_checks.compare(a, b) > 1000 and torture_checks.count_runs(b) == 2
    torture_checks.examine(b, {}, Count())
    folder = next((b / "runs").iterdir())
    metrics = folder / "metrics.csv"
    whole = metrics.read_text()
    metrics.write_text(whole.replace("0.", "0.1", 1))
    with pytest.raises(Lost, match="metrics.csv differs"):
        torture_checks.compare(a, b)
    metrics.write_text(whole[:len(whole) // 2])
    with pytest.raises(Lost, match="metrics.csv is not whole"):
        torture_checks.examine(b, {}, Count())
    metrics.write_text(whole)
    with pytest.raises(Lost, match="was at epoch 7"):
        torture_checks.examine(b, {folder.name: 7}, Count())
    note = json.loads((folder / "mlflow.json").read_text())
    _again(b, note["run_id"])
    with pytest.raises(Lost, match="is RUNNING|runs by folder"):
        torture_checks.count_runs(b)


def _again(output: Path, run_id: str) -> None:
    """A second run of the same run, left open."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    run = client.get_run(run_id)
    client.create_run(run.info.experiment_id, tags=dict(run.data.tags))
