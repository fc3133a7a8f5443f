"""The folder of a run: states, checksums, and a damaged run that two processes meet at once."""
from __future__ import annotations

import pytest

from benchmarks.result_folder import ResultFolder, differing
from tcn.files.locks import Held, lock


@pytest.fixture
def finished(tmp_path) -> ResultFolder:
    """A sealed run of two files."""
    folder = ResultFolder(tmp_path / "runs" / "one")
    folder.path.mkdir(parents=True)
    (folder.path / "config.json").write_text("{}")
    (folder.path / "numbers.csv").write_text("a\n1\n")
    folder.seal()
    folder._write_status("finished", None)
    return folder


def test_a_new_folder_and_a_damaged_status_are_told_apart(finished, capsys):
    assert ResultFolder(finished.path.with_name("two")).state == "new" and finished.state == "finished" and finished.whole()
    (finished.path / "status.json").write_text("{")
    assert finished.state == "interrupted" and "status.json is damaged" in capsys.readouterr().err and not finished.whole()


def test_a_list_of_checksums_has_to_name_what_is_required(finished):
    assert differing(finished.path, {"config.json", "numbers.csv"}) == []
    assert differing(finished.path, {"config.json", "result.json"}) == ["SHA256SUMS"]


def test_a_damaged_run_is_set_aside_once_and_not_when_another_process_has_begun_it_anew(finished, capsys):
    (finished.path / "numbers.csv").write_text("a\n2\n")
    assert not finished.whole() and "not as it was written: numbers.csv; set aside as" in capsys.readouterr().err
    aside = finished.path.parent.parent / "damaged" / "one-1"
    assert (aside / "numbers.csv").read_text() == "a\n2\n" and not finished.path.exists()
    finished._write_status("running", None)  # by a process that met the damage, too, and was quicker
    assert finished.set_aside() is None and finished.path.exists() and not aside.with_name("one-2").exists()


def test_a_run_that_somebody_works_on_is_not_set_aside(finished):
    (finished.path / "numbers.csv").write_text("a\n2\n")
    with lock(finished.path / ".lock", "elsewhere"):
        with pytest.raises(Held):
            finished.set_aside()
        assert not finished.whole() and (finished.path / "numbers.csv").exists()
