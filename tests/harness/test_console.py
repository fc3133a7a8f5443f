"""The installed command `tcn` hands over to the commands that stand behind it."""
from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks import console
from tcn.cli.ending import ending
from tcn.files.atomic import StorageError

ROOT = Path(__file__).parents[2]


def test_the_installation_names_a_function_that_is_there():
    module, _, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["tcn"].partition(":")
    assert getattr(importlib.import_module(module), function) is console.main


@pytest.mark.parametrize("arguments, words", [
    (["run"], "--variants"), (["report"], "usage: "), (["evaluate"], "FEATURES"), (["demo"], "--gallery"),
    (["data", "check"], "--data-root"), ([], "data check")])
def test_each_command_has_its_own_help(arguments, words, capsys):
    try:
        status = console.main([*arguments, "--help"])
    except SystemExit as end:
        status = end.code
    assert not status and words in capsys.readouterr().out


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "benchmarks.console", "data", "check", "--help"], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0 and "--data-root" in done.stdout, done.stderr


def test_arguments_and_the_exit_status_are_handed_on(tmp_path, capsys):
    assert console.main(["evaluate", str(tmp_path / "none.npz")]) == 2
    assert "none.npz" in capsys.readouterr().err
    assert console.main(["report", "--results", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert console.main(["run", "--variants", "tcm", "--output", str(tmp_path / "out")]) == 2
    assert "unknown variant 'tcm'" in capsys.readouterr().err


def test_an_unknown_command_is_named(capsys):
    assert console.main(["trian"]) == 2 and "unknown command 'trian'; choose among run, report" in capsys.readouterr().err
    assert console.main([]) == 2 and "usage: tcn COMMAND" in capsys.readouterr().err


def test_a_command_ends_by_a_line_and_a_status(capsys):
    def main(error: BaseException | None) -> int:
        if error:
            raise error
        return 1

    command = ending("interrupted; nothing was written")(main)
    assert command(None) == 1 and capsys.readouterr() == ("", "")
    assert command(StorageError("disk: no room")) == 2 and capsys.readouterr() == ("", "error: disk: no room\n")
    assert command(KeyboardInterrupt()) == 130 and capsys.readouterr() == ("", "interrupted; nothing was written\n")
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        command(ZeroDivisionError())
