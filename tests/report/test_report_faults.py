"""Faults while a report is written: an earlier report stays whole, and the next call makes the new one.

The faults are real ones: a small file system that fills up, a limit on file sizes, read-only mounts (skipped where nothing can be
mounted), processes killed at random moments, two calls at once, bytes changed in what was kept.
"""
from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.forks import ended, forked
from support.mounts import read_only, resize, small_disk
from support.result_folders import write_suite

from reports.figures import feature_frames, frames
from reports.read.files import ReportError
from reports.read.schema import Task
from reports.read.suite import read_suite
from reports.render import command, staging
from tcn.files.checksums import file_digest

EMOJI = Task("emoji", "fixed")
ROUNDS = int(os.environ.get("TCN_KILLS", "5"))
"""Renders that are killed at a random moment; set TCN_KILLS for more."""


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """The whole chain without figures: each takes a second."""
    monkeypatch.setattr(command, "_figures", lambda suite, task, cache: [])


@pytest.fixture
def one_figure(monkeypatch, no_figures):
    """One figure, for tests of how pictures are written."""
    monkeypatch.setattr(command, "_figures", lambda suite, task, cache: [frames.overview(suite, task)])


@pytest.fixture
def results(tmp_path) -> Path:
    """Two suites, `old` and `new`, whose reports differ in every file."""
    for name, variants in (("old", ("tcn", "hws")), ("new", ("tcn", "hws", "nws"))):
        write_suite(tmp_path / name, variants)
        head = json.loads((tmp_path / name / "suite.json").read_text())
        (tmp_path / name / "suite.json").write_text(json.dumps({**head, "command": f"made as {name}"}))
    return tmp_path


def contents(out: Path) -> dict[str, str]:
    """The digest of every file of a report; locks and the cache aside. Bytes that differ would be compared letter by letter."""
    return {path.relative_to(out).as_posix(): file_digest(path) for path in sorted(out.rglob("*"))
            if path.is_file() and path.name != staging.LOCK and "cache" not in path.parts}


def refused(work: Callable[[], object]) -> bool:
    """Whether something, done in a process of its own, ends with a ReportError, which it prints."""
    def told() -> None:
        try:
            work()
        except ReportError as error:
            print(error, flush=True)
            os._exit(2)

    return ended(forked(told)) == 2


def test_a_full_disk_leaves_the_earlier_report_and_says_so(results, tmp_path, capfd, one_figure):
    with small_disk(tmp_path / "disk", "20m") as disk:
        command.render(results / "old", disk / "report")
        before = contents(disk)
        size = sum((disk / name).stat().st_size for name in before)
        resize(disk, f"{size // 1024 + 150}k")
        told = r"writing .*disk.* failed \(no space left on device, 0\..* MB are free\); free some"
        with pytest.raises(ReportError, match=told):
            command.render(results / "new", disk / "report")
        assert contents(disk) == before
        resize(disk, "20m")
        page = command.render(results / "new", disk / "report").read_text()
        assert "made as new" in page and len(contents(disk)) > len(before) - 1


@pytest.mark.parametrize("limit", [300, 30_000, 100_000])
def test_files_that_may_not_grow_leave_the_earlier_report(results, limit, capfd, one_figure):
    out = results / "report"
    command.render(results / "old", out)
    before = contents(out)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        command.render(results / "new", out)

    assert refused(limited)
    assert "file too large" in capfd.readouterr().out and contents(out) == before


def test_no_room_for_the_cache_is_the_same_error(results, monkeypatch, capfd):
    monkeypatch.setattr(command, "_figures", lambda suite, task, cache: [frames.tsne(suite, task, cache)])

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        command.render(results / "new", results / "report")

    assert refused(limited)
    assert "tsne-" in capfd.readouterr().out and contents(results / "report") == {}
    assert not list((results / "report" / "cache").iterdir())


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(results, capsys):
    out = results / "report"
    command.render(results / "old", out)
    before = contents(out)
    with read_only(out):
        assert command.main(["--results", str(results / "new"), "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and str(out) in said and "Read-only" in said and "--out" in said
    assert contents(out) == before


def test_a_report_in_place_of_a_file_is_refused(results, capsys):
    (results / "file").write_text("mine")
    for out in (results / "file", results / "file" / "below"):
        assert command.main(["--results", str(results / "new"), "--out", str(out)]) == 2
        assert "pass another --out" in capsys.readouterr().err
    assert (results / "file").read_text() == "mine"


def test_results_that_cannot_be_written_are_reported_on_elsewhere(results, capsys):
    with read_only(results / "new"):
        assert command.main(["--results", str(results / "new")]) == 2
        assert "name another" in capsys.readouterr().err
        assert command.main(["--results", str(results / "new"), "--out", str(results / "elsewhere")]) == 0
    assert "made as new" in (results / "elsewhere" / "index.html").read_text()


def test_killed_at_any_moment_every_file_is_an_old_or_a_new_one(results, one_figure):
    out, whole, lasts = results / "report", {}, float("inf")
    for name in ("new", "old"):
        started = time.monotonic()
        command.render(results / name, out)
        whole[name], lasts = contents(out), min(lasts, time.monotonic() - started)
    rng, killed = random.Random(0), 0
    for number in range(ROUNDS):
        name = ("new", "old")[number % 2]
        process = forked(lambda name=name: command.render(results / name, out))
        time.sleep(rng.random() * lasts)
        os.kill(process, signal.SIGKILL)
        killed += ended(process) == -signal.SIGKILL
        for path, content in contents(out).items():
            if not path.startswith(staging.STAGED):
                assert content in (whole["old"].get(path), whole["new"].get(path)), path
        command.render(results / name, out)
        assert contents(out) == whole[name]  # nothing of the killed call is left either
    assert killed  # on a machine with other work, moments say little


def test_killed_while_files_are_put_in_place_the_next_call_puts_all_of_them(results):
    out, whole = results / "report", {}
    for name in ("new", "old"):
        command.render(results / name, out)
        whole[name] = contents(out)
    for after in (0, 1, 5, 20):
        replace, done = os.replace, 0

        def counted(source, target):
            nonlocal done
            if Path(source).parent.parent.name.startswith(staging.STAGED) and Path(target).parent.parent == out:
                done += 1
                if done > after:
                    os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        def killed() -> None:
            os.replace = counted
            command.render(results / "new", out)

        assert ended(forked(killed)) == -signal.SIGKILL
        found = {name: content for name, content in contents(out).items() if not name.startswith(staging.STAGED)}
        assert all(content in (whole["old"].get(name), whole["new"].get(name)) for name, content in found.items())
        assert found["index.html"] == whole["old"]["index.html"]
        command.render(results / "new", out)
        assert contents(out) == whole["new"]
        command.render(results / "old", out)


def test_an_interrupted_picture_is_not_there(results, monkeypatch, one_figure):
    from matplotlib.figure import Figure
    out = results / "report"
    command.render(results / "old", out)
    before = contents(out)

    def half(self, file, **_):
        file.write(b"\x89PNG half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", half)
    assert command.main(["--results", str(results / "new"), "--out", str(out)]) == 130
    assert contents(out) == before


def test_two_calls_at_once_leave_one_whole_report(results):
    out = results / "report"
    whole = {}
    for name in ("old", "new"):
        command.render(results / name, out)
        whole[name] = contents(out)
    assert set(whole["old"]) == set(whole["new"]) and whole["old"] != whole["new"]
    for _ in range(4):
        processes = [forked(lambda name=name: command.render(results / name, out)) for name in ("old", "new", "old")]
        assert [ended(process) for process in processes] == [0, 0, 0]
        assert contents(out) in (whole["old"], whole["new"])


def test_a_call_that_does_not_end_is_named(results, monkeypatch):
    monkeypatch.setattr(staging, "WAIT_SECONDS", 0.2)
    out = results / "report"
    out.mkdir()
    told = "another call writes a report to .* and does not end .*; stop it"
    with staging._locked(out), pytest.raises(ReportError, match=told):
        command.render(results / "new", out)
    assert "made as new" in command.render(results / "new", out).read_text()


def test_only_own_files_are_removed_whatever_a_list_says(results):
    out = results / "report"
    command.render(results / "old", out)
    (out / "mine.md").write_text("kept")
    (results / "outside.md").write_text("kept")
    listing = (out / "files.txt").read_text()
    odd = ["mine.md", "../outside.md", "tables/../mine.md", "/etc/x.md", "tables/../../outside.md", "", "tables", "\x00"]
    (out / "tables" / "gone.csv").write_text("of an earlier call")
    (out / "files.txt").write_text(listing + "\n".join([*odd, "tables/gone.csv"]) + "\n")
    command.render(results / "old", out)
    assert (out / "mine.md").exists() and (results / "outside.md").exists() and not (out / "tables" / "gone.csv").exists()
    (out / "files.txt").write_bytes(b"\xff\xfe\x00")
    command.render(results / "old", out)
    assert (out / "files.txt").read_text() == listing


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:40], lambda c: b"", lambda c: c + b"x",
                                    lambda c: c[:200] + bytes([c[200] ^ 1]) + c[201:]])
def test_a_damaged_embedding_is_worked_out_again(results, tmp_path, damage):
    suite = read_suite(results / "new")
    first = feature_frames.tsne(suite, EMOJI, tmp_path / "cache").frame
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(damage(path.read_bytes()))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    again = feature_frames.tsne(suite, EMOJI, tmp_path / "cache").frame
    assert (first[["x", "y"]].to_numpy() == again[["x", "y"]].to_numpy()).all()
    assert all((tmp_path / "cache" / name).read_bytes() != content for name, content in kept.items())
