"""A results folder that was moved, copied or sent: figures open where it is now, and nothing in it names where it was."""
from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from support.small_suite import ONE, common

from benchmarks import moved, run_all
from tcn.config import InputError

ROOT = Path(__file__).resolve().parents[2]
RECORDED = {"suite.json": {"command"}, "provenance.json": {"command"}}
"""Files that may name a path of the first machine, and in which fields: the command line as it was typed."""


@pytest.fixture(scope="module")
def made(place, overview_alone):
    """An output folder with an untrained baseline, in a folder whose name has a space and per cent signs."""
    output = place / "first place" / "50%41 of it"
    assert run_all.main([*common(place), *ONE, "--variants", "untrained-svd", "--output", str(output)]) == 0
    return output


@pytest.fixture
def sent(made, tmp_path):
    """A copy elsewhere, while the first folder is out of reach."""
    away = made.parent.with_name("taken away")
    target = tmp_path / "sent %20 to" / "somebody"
    shutil.copytree(made, target)
    made.parent.rename(away)
    yield target
    away.rename(made.parent)


def forget() -> None:
    """MLflow remembers where a run's artifacts are for the life of a process; another store's are another process's."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()


def client_of(output: Path) -> mlflow.MlflowClient:
    """MLflow's client of the store in a folder; SQLAlchemy wants a per cent sign written as %25."""
    forget()
    return mlflow.MlflowClient(f"sqlite:///{output / 'mlflow.db'}".replace("%", "%25"))


def artifacts(output: Path, tmp_path: Path) -> dict[str, bytes]:
    """Every file that MLflow's client fetches from the store in `output`, by run kind and path."""
    client, found = client_of(output), {}
    experiment = client.get_experiment_by_name("tcn-paper-smoke")
    for run in client.search_runs([experiment.experiment_id]):
        target = tmp_path / "fetched" / run.info.run_id
        target.mkdir(parents=True)
        client.download_artifacts(run.info.run_id, "", str(target))
        found |= {f"{run.data.tags['kind']}/{path.relative_to(target).as_posix()}": path.read_bytes()
                  for path in target.rglob("*") if path.is_file()}
        shutil.rmtree(target)
    return found


def addresses(output: Path) -> list[str]:
    with sqlite3.connect(output / "mlflow.db") as database:
        return [value for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"))
                for (value,) in database.execute(f"SELECT {column} FROM {table}")]


def test_figures_open_after_a_move_by_make_ui_alone(made, sent, tmp_path, capsys):
    assert all(place.startswith(made.resolve().as_uri()) for place in addresses(sent) if "/mlartifacts" in place)
    assert moved.main([str(sent)]) == 0
    printed = capsys.readouterr()
    assert "was moved or copied" in printed.err and printed.out == f"sqlite:///{sent}/mlflow.db\n".replace("%", "%25")
    found = artifacts(sent, tmp_path)
    one_run = next((sent / "runs").iterdir())
    assert found["run/metrics.csv"] == (one_run / "metrics.csv").read_bytes()
    assert found["suite/report/index.html"] == (sent / "report" / "index.html").read_bytes()
    assert any(name.startswith("run/examples/") for name in found)
    capsys.readouterr()
    assert moved.main([str(sent)]) == 0 and capsys.readouterr().err == ""
    # a second move
    again = sent.with_name("again 100%")
    sent.rename(again)
    assert moved.set_addresses(again) > 0 and artifacts(again, tmp_path) == found
    assert all(address.startswith(again.resolve().as_uri()) for address in addresses(again))


def test_a_sync_or_another_call_mends_it_too(made, sent, place, tmp_path, command):
    forget()
    status, out, _ = command("--sync", "--output", str(sent))
    assert status == 0 and "1 run in" in out
    assert all(address.startswith(sent.resolve().as_uri()) for address in addresses(sent))
    before = artifacts(sent, tmp_path)
    again = sent.with_name("again")
    sent.rename(again)
    forget()
    status, out, _ = command(*common(place), *ONE, "--variants", "untrained-svd", "--output", str(again))
    assert status == 0 and "1 already finished" in out
    assert artifacts(again, tmp_path).keys() >= before.keys()
    assert not sent.exists() and not made.exists(), "nothing was written where it was"


def test_both_copies_live(made, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(made, copied)
    known = addresses(made)
    assert moved.set_addresses(copied) > 0 and moved.set_addresses(made) == 0
    assert addresses(made) == known and not set(known) & set(addresses(copied))
    client = client_of(copied)
    run = next(r for r in client.search_runs(["1"]) if r.data.tags["kind"] == "run")
    (tmp_path / "note.txt").write_text("only here")
    client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    assert "run/note.txt" in artifacts(copied, tmp_path) and "run/note.txt" not in artifacts(made, tmp_path)


def test_nothing_in_a_sent_folder_names_the_first_place(made, sent, place):
    """Every file, byte by byte, compressed ones unpacked; but for the command line, which is recorded as typed."""
    moved.set_addresses(sent)
    needles = [str(place).encode(), place.as_uri().encode(), str(ROOT).encode(), os.path.expanduser("~").encode() + b"/"]
    bad = []
    for path in sorted(p for p in sent.rglob("*") if p.is_file()):
        name = re.sub(r"^mlartifacts/\w+/artifacts/", "", path.relative_to(sent).as_posix())
        if path.name == "mlflow.db":
            continue
        content = path.read_bytes()
        if path.name in RECORDED:
            fields = json.loads(content)
            content = json.dumps({key: value for key, value in fields.items() if key not in RECORDED[path.name]}).encode()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        bad += [(name, needle) for needle in needles if needle in content]
    assert not bad
    with sqlite3.connect(sent / "mlflow.db") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert {"experiments", "runs", "tags", "params", "datasets", "inputs"} <= set(tables)
        for table in tables:
            for row in database.execute(f"SELECT * FROM '{table}'"):
                if table == "tags" and row[0] in ("command", "mlflow.source.name"):
                    continue
                bad += [(table, row) for needle in needles if needle.decode() in " ".join(map(str, row))]
    assert not bad


def test_a_store_that_can_t_be_mended_says_what_to_do(made, tmp_path, capsys, monkeypatch):
    assert moved.main([str(tmp_path / "nothing")]) == 2 and "no runs there yet" in capsys.readouterr().err
    assert moved.main([]) == 2 and "usage" in capsys.readouterr().err
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="not a database.*move it away"):
        moved.set_addresses(tmp_path / "damaged")
    shutil.copytree(made, tmp_path / "closed")
    monkeypatch.setattr(moved.os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="can't be changed .*copy .* to where you may write"):
        moved.set_addresses(tmp_path / "closed")


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_ui_takes_the_mended_store(made, tmp_path):
    """The recipe itself, with a Python of ours and an `mlflow` that prints what it was asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".complete").touch()
    for name, line in (("python", f"exec '{sys.executable}' \"$@\""), ("mlflow", 'printf "%s|" "$@"')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    shutil.copytree(made, tmp_path / "a 5% copy")

    def make(results: Path) -> subprocess.CompletedProcess:
        return subprocess.run(["make", "-s", "-o", str(tmp_path / ".complete"), "ui", f"VENV={tmp_path}", f"RESULTS={results}"],
                              cwd=ROOT, capture_output=True, text=True)

    done = make(tmp_path / "a 5% copy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"|--backend-store-uri|sqlite:///{tmp_path}/a 5%25 copy/mlflow.db|")
    assert all(place.startswith((tmp_path / "a 5% copy").resolve().as_uri()) for place in addresses(tmp_path / "a 5% copy"))
    (tmp_path / "a 5% copy" / "mlflow.db").write_bytes(b"no database" * 100)
    done = make(tmp_path / "a 5% copy")
    assert done.returncode == 2 and "not a database" in done.stderr and "backend" not in done.stdout
