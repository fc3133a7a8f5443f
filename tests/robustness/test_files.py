"""Whole files or none, locks that die with their holder, and one orderly end on a signal."""
from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import interrupts
from tcn.config import InputError
from tcn.files import atomic, locks
from tcn.files.atomic import StorageError, remove_partial, write_bytes, writing
from tcn.files.locks import Held, holder, lock

HOLD = """
import sys, time
from pathlib import Path
from tcn.files.locks import lock
with lock(Path(sys.argv[1]), "holding"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holding(tmp_path):
    """Another process that holds `tmp_path/lock`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "f", b"old")
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "f") as out:
        out.write(b"new")
        1 / 0
    assert (tmp_path / "f").read_bytes() == b"old" and os.listdir(tmp_path) == ["f"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")
def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_its_folder_is(tmp_path, monkeypatch):
    """What a power cut would tell: the order of the calls, and of which file."""
    calls, fsync, replace = [], os.fsync, os.replace

    def flushed(handle):
        what = os.readlink(f"/proc/self/fd/{handle}")
        calls.append(("flush", Path(what).name, os.fstat(handle).st_size if not os.path.isdir(what) else None))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", lambda one, other: (calls.append(("name", Path(one).name, Path(other).name)),
                                                           replace(one, other)))
    write_bytes(tmp_path / "below" / "f", b"x" * 100)
    partial = f"f.{os.getpid()}.partial"
    assert calls == [("flush", partial, 100), ("name", partial, "f"), ("flush", "below", None)]


def test_a_reader_meets_the_old_or_the_new_file_never_half(tmp_path):
    """A writer in another process, killed while it writes; whatever is there is one of its whole contents."""
    code = ("import sys; from pathlib import Path; from tcn.files.atomic import write_bytes\n"
            "n = 0\nwhile True:\n    n += 1\n    write_bytes(Path(sys.argv[1]), bytes([n % 256]) * 300_000)")
    for pause in (0.05, 0.1, 0.15):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "f")])
        until = time.monotonic() + 600
        while not (tmp_path / "f").exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(pause)
        for _ in range(50):
            assert len(set(content := (tmp_path / "f").read_bytes())) == 1 and len(content) == 300_000
        process.kill()
        process.wait()
        assert len(set(content := (tmp_path / "f").read_bytes())) == 1 and len(content) == 300_000
    remove_partial(tmp_path)
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_no_room_is_said_with_the_way_out(tmp_path, monkeypatch):
    full = tmp_path / f"f.{os.getpid()}.partial"
    full.symlink_to("/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(StorageError, match=r"writing .*/f failed \(no space left on device.*free some space"):
        write_bytes(tmp_path / "f", b"x" * 100_000)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="writing .*file/below/f failed"):
        write_bytes(tmp_path / "file" / "below" / "f", b"")


def test_a_lock_says_who_holds_it(tmp_path, holding):
    with pytest.raises(Held, match=rf"process {holding.pid} on .* \(holding\), since"), lock(tmp_path / "lock"):
        pytest.fail("both hold it")
    assert str(holding.pid) in holder(tmp_path / "lock")


def test_a_dead_process_s_lock_is_free_though_its_name_still_stands_there(tmp_path, holding):
    holding.kill()
    holding.wait()
    assert str(holding.pid) in (tmp_path / "lock").read_text()
    assert holder(tmp_path / "lock") is None
    with lock(tmp_path / "lock", "next"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "lock").read_text()
    assert (tmp_path / "lock").read_text() == ""


def test_waiting_for_a_lock_ends_when_it_is_free(tmp_path, holding):
    os.kill(holding.pid, signal.SIGKILL)
    with lock(tmp_path / "lock", seconds=None):
        pass


def test_a_file_system_without_locks_is_said_and_works(tmp_path, monkeypatch):
    def none(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with pytest.warns(UserWarning, match="no locks"), lock(tmp_path / "lock"):
        pass


def test_a_signal_ends_in_order_and_a_swallowed_one_is_not_lost():
    with interrupts.caught(signal.SIGUSR1):
        with pytest.raises(interrupts.Interrupted) as ended:
            signal.raise_signal(signal.SIGUSR1)
        assert interrupts.status(ended.value) == 128 + signal.SIGUSR1
        with pytest.raises(interrupts.Interrupted):
            interrupts.check()  # somebody might have swallowed the first
    interrupts.check()  # over with the block
    with pytest.raises(interrupts.Interrupted), interrupts.caught(signal.SIGUSR1):
        with contextlib.suppress(interrupts.Interrupted):
            signal.raise_signal(signal.SIGUSR1)
        raise RecursionError("what a library, interrupted in the middle of an import, made of it")
    with pytest.raises(RecursionError), interrupts.caught(signal.SIGUSR1):
        raise RecursionError("without a signal")
    assert interrupts.status(KeyboardInterrupt()) == 130


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_command_s_status_is_the_conventional_one_even_while_it_starts(tmp_path, number, status):
    command = [sys.executable, "benchmarks/run_all.py", "--quick", "--output", str(tmp_path / "out"), "--cache",
               str(tmp_path / "cache"), "--emoji-tarballs", str(tmp_path)]
    for pause in (0.6, 1.5):
        # A shell may have left SIGINT ignored for what it runs in the background.
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
        time.sleep(pause)
        process.send_signal(number)
        text = process.communicate(timeout=600)[0].decode()
        assert process.returncode in (status, 2), text  # 2: it was quicker, and there are no drawings
        if process.returncode == status:
            assert "interrupted; the same command goes on" in text and "Traceback" not in text


def test_what_can_be_written_is_tried_and_leaves_nothing(tmp_path):
    atomic.writable_file(tmp_path / "new" / "x.csv", "--csv")
    atomic.writable_file(Path(os.devnull), "--csv")
    (tmp_path / "x.csv").write_text("kept")
    atomic.writable_file(tmp_path / "x.csv", "--csv")
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"] and (tmp_path / "x.csv").read_text() == "kept"
    for path in (tmp_path, tmp_path / "x.csv" / "y.csv", *[Path("/proc/nope/y.csv")] * Path("/proc").is_dir()):
        with pytest.raises(InputError, match="--csv"):
            atomic.writable_file(path, "--csv")
