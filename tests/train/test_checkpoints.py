"""Checkpoints: any damaged byte is found or harmless, the last two are kept, and training goes on from what is whole."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.small_models import config, setup, strip, train

from tcn.config import InputError
from tcn.data.pairs import PairSource
from tcn.files import atomic
from tcn.files.atomic import StorageError
from tcn.train import checkpoints, loop
from tcn.train.checkpoints import Damaged, host_copy, keep, last, load, save

STATE = {"epoch": 1, "model": {"a": torch.arange(6.0).view(2, 3)}, "history": {"best": 0.25}}


def same(a, b) -> bool:
    return (a["epoch"], a["history"]) == (b["epoch"], b["history"]) and torch.equal(a["model"]["a"], b["model"]["a"])


def test_every_single_damaged_byte_is_found_or_changes_nothing(tmp_path):
    save(STATE, tmp_path / "c.pt")
    whole = (tmp_path / "c.pt").read_bytes()
    found = 0
    for place in range(len(whole)):
        (tmp_path / "d.pt").write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1:])
        try:
            assert same(load(tmp_path / "d.pt"), STATE), f"byte {place} of {len(whole)}"
        except Damaged as error:
            assert str(tmp_path / "d.pt") in str(error)
            found += 1
    assert found > 0.3 * len(whole)  # the rest is padding, dates and the like


def test_a_checkpoint_cut_short_anywhere_is_found(tmp_path):
    save(STATE, tmp_path / "c.pt")
    whole = (tmp_path / "c.pt").read_bytes()
    for length in [0, 1, *range(2, len(whole), 37), len(whole) - 1]:
        (tmp_path / "d.pt").write_bytes(whole[:length])
        with pytest.raises(Damaged, match="d.pt"):
            load(tmp_path / "d.pt")


def test_equal_states_give_equal_bytes_whatever_the_file_is_called(tmp_path):
    (tmp_path / "below").mkdir()
    save(STATE, tmp_path / "c.pt")
    save({**STATE, "model": {"a": STATE["model"]["a"].clone()}}, tmp_path / "below" / "d.pt")
    assert (tmp_path / "c.pt").read_bytes() == (tmp_path / "below" / "d.pt").read_bytes()


def test_the_last_two_are_kept(tmp_path):
    for epoch in (1, 2, 3, 4):
        keep({**STATE, "epoch": epoch}, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0003.pt", "epoch-0004.pt"]
    (tmp_path / "epoch-0004.pt").write_bytes(b"damaged")
    found = last(tmp_path)
    assert found.state["epoch"] == 3 and "epoch-0004.pt" in found.notes[0] and "passed over" in found.notes[0]
    keep({**STATE, "epoch": 4}, tmp_path)  # trained again
    assert last(tmp_path).state["epoch"] == 4 and last(tmp_path).notes == ()
    (tmp_path / "epoch-0004.pt").write_bytes(b"damaged")
    keep({**STATE, "epoch": 3}, tmp_path)  # never both gone because of a damaged later one
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0003.pt"]


def test_one_tensor_under_two_names_is_copied_once():
    shared = torch.ones(5)
    copied = host_copy({"a": shared, "b": shared, "c": torch.ones(5), "d": shared[:3]})
    assert copied["a"] is copied["b"] and copied["a"] is not copied["c"] and torch.equal(copied["d"], torch.ones(3))
    shared.zero_()
    assert copied["a"].sum() == 5


class Stop(Exception):
    pass


class Elsewhere(torch.Tensor):
    """Stands for a tensor on a GPU: it says so, and saving it would write so."""

    @property
    def device(self):
        return torch.device("cuda:1")

    def detach(self):
        return self

    def to(self, device, copy=False):
        assert device == "cpu" and copy
        return self.as_subclass(torch.Tensor).clone()


def test_a_checkpoint_says_nothing_of_the_device_that_its_tensors_were_on(tmp_path):
    """Adam's averages and the trained network, as a run on cuda:1 has them; the same bytes as on the CPU, shared tensors too."""
    here = torch.arange(6.0).view(2, 3)
    there = here.clone().as_subclass(Elsewhere)

    def state(tensor):
        return {"model": {"a": tensor, "b": tensor}, "optimizer": {"state": {0: {"exp_avg": tensor, "step": torch.tensor(3.0)}},
                "param_groups": [{"lr": 0.5, "params": [0], "betas": (0.9, tensor)}]}, "epoch": 3}

    save(state(there), tmp_path / "there.pt")
    save(state(here), tmp_path / "here.pt")
    assert (tmp_path / "there.pt").read_bytes() == (tmp_path / "here.pt").read_bytes()
    found = torch.load(tmp_path / "there.pt", weights_only=True)  # without a map from cuda:1
    assert type(found["optimizer"]["state"][0]["exp_avg"]) is torch.Tensor
    assert found["model"]["a"].data_ptr() == found["model"]["b"].data_ptr() and torch.equal(found["model"]["a"], here)
    # What is on the host already is not taken apart: the network's own dictionary says more than its items.
    own = torch.nn.BatchNorm1d(3).state_dict()
    assert checkpoints._on_host(own, {}) is own


def stop_after(number: int):
    def stop(history):
        if history.epochs[-1]["epoch"] == number:
            raise Stop
    return stop


@pytest.mark.parametrize("damage", ["cut", "flip", "both", "gone"])
def test_a_damaged_last_checkpoint_falls_back_says_so_and_costs_no_digit(tmp_path, capsys, damage):
    settings = config(**{"training.epochs": 4})
    straight, expected = train(tmp_path / "straight", settings)
    folder = tmp_path / "damaged"
    with pytest.raises(Stop):
        train(folder, settings, on_epoch=stop_after(3))
    newest = folder / "epoch-0003.pt"
    whole = newest.read_bytes()
    if damage == "gone":
        newest.unlink()
    elif damage == "flip":  # in the middle of a weight: it would load without a word
        place = len(whole) // 2
        newest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
    else:
        newest.write_bytes(whole[:len(whole) // 2])
        if damage == "both":
            (folder / "epoch-0002.pt").write_bytes(b"")
    epochs = []
    resumed, history = train(folder, settings, on_epoch=lambda history: epochs.append(history.epochs[-1]["epoch"]))
    said = capsys.readouterr().err
    assert ("epoch-0003.pt" in said) == (damage != "gone") and ("training starts anew" in said) == (damage == "both")
    assert epochs == ([1, 2, 3, 4] if damage == "both" else [2, 3, 4])
    assert strip(history.epochs) == strip(expected.epochs) and history.steps == expected.steps
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("depth", (1, 5))
def test_batches_read_ahead_in_threads_change_no_bit(tmp_path, monkeypatch, depth):
    straight, expected = train(tmp_path / "plain", config())
    epoch = PairSource.epoch
    monkeypatch.setattr(PairSource, "epoch", lambda self, *given, **options: epoch(self, *given, depth, **options))
    ahead, history = train(tmp_path / "ahead", config())
    assert history.steps == expected.steps
    assert all(torch.equal(v, ahead.state_dict()[k]) for k, v in straight.state_dict().items())
    assert (tmp_path / "plain" / "epoch-0003.pt").exists() and (tmp_path / "ahead" / "epoch-0003.pt").exists()


def test_an_epoch_taken_over_is_told_again(tmp_path):
    """The process may have died between its checkpoint and the tables that are written after it."""
    settings = config(**{"training.epochs": 2})
    train(tmp_path, settings)
    told = []
    train(tmp_path, settings, on_epoch=lambda history: told.append(len(history.steps)))
    assert told == [2 * setup(settings)[1].steps]


def test_a_run_of_an_earlier_version_is_not_passed_over_in_silence(tmp_path, capsys):
    (tmp_path / "resume.pt").write_bytes(b"whatever it was")
    train(tmp_path, config(**{"training.epochs": 1}))
    assert "resume.pt is of an earlier version" in capsys.readouterr().err


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match="no checkpoint at .*none.pt"):
        load(tmp_path / "none.pt")


def test_no_room_is_said_before_the_first_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(StorageError, match="no room for this run's checkpoints: .* MB are needed"):
        train(tmp_path, config())
    assert not list(tmp_path.glob("epoch-*"))


def test_where_a_third_file_has_no_room_the_oldest_goes_first(tmp_path, monkeypatch):
    keep(STATE, tmp_path)
    keep({**STATE, "epoch": 2}, tmp_path)
    original = checkpoints.save

    def only_two(value, path):
        if len(list(tmp_path.glob("epoch-*.pt"))) > 1:
            raise StorageError("full")
        original(value, path)

    monkeypatch.setattr(checkpoints, "save", only_two)
    keep({**STATE, "epoch": 3}, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0002.pt", "epoch-0003.pt"]
    monkeypatch.setattr(checkpoints, "save", lambda value, path: (_ for _ in ()).throw(StorageError("full")))
    with pytest.raises(StorageError):
        keep({**STATE, "epoch": 4}, tmp_path)
    assert last(tmp_path).state["epoch"] >= 3


def test_a_full_disk_is_no_traceback_of_torch_s(tmp_path):
    """A limit on file size stands for the full disk; torch hides what the system said behind an error of its own."""
    code = ("import resource, signal, sys, torch; from pathlib import Path; from tcn.train.checkpoints import save\n"
            "from tcn.files.atomic import StorageError\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
            "try:\n    save({'a': torch.zeros(1_000_000)}, Path(sys.argv[1]))\n"
            "except StorageError as error:\n    print(error)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.pt")], capture_output=True, text=True)
    assert "c.pt failed (file too large" in done.stdout and "free some space" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_history_reaches_to_the_step_before_a_divergence(tmp_path):
    with pytest.raises(loop.Diverged) as stopped:
        train(tmp_path, config(**{"training.encoder_rate": 1e30, "training.head_rate": 1e30}))
    steps = stopped.value.history.steps
    assert [row["step"] for row in steps] == list(range(1, stopped.value.step)) and stopped.value.values
    assert Path(tmp_path / "epoch-0001.pt").exists() == (stopped.value.epoch > 1)
