"""One run by several processes (gloo on the CPU): the numbers of one process, the same bits after a resume, and nothing hangs."""
from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ranks_at_work, warm
from support.golden_runs import CPU, PLAIN, SETTINGS, built, pictures
from torch import Tensor, nn

from baselines.metric_learning import SIAMESE
from tcn.config import Config, InputError, change
from tcn.model import ranks as ranks_module
from tcn.model.ranks import Ranks
from tcn.train import checkpoints, loop, parallel
from tcn.train.loop import ValidationData
from tcn.train.method import TCN, Method

TOLERANCE = 1e-9
"""Relative (of numbers below 0.01: of 0.01), over all steps of a run in float64. Measured: 4e-11 at most."""
HELDOUT = ValidationData(pictures([1, 5, 2, 3], 0, 3), None, None)


@dataclasses.dataclass
class Fitted:
    """The network that a run keeps, its history, and the gradients of every step (None of a tensor that took no part)."""

    model: nn.Module
    history: loop.History
    gradients: list[list[Tensor | None]]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings(delta: dict[str, Any]) -> Config:
    return change(Config(), {**SETTINGS, **delta})


def fitted(case: ranks_at_work.Case, ranks: Ranks | None = None, device: torch.device = CPU, late: int = 0) -> Fitted:
    """A run of the golden test's network in this process, as the first of several where there are ranks. `late`: the epoch that
    it begins later than the others."""
    method, config, folder = case
    folder.mkdir(parents=True, exist_ok=True)
    model, gradients, make = built(config).to(device), [], loop.adam

    def watched(*arguments: Any) -> torch.optim.Adam:
        optimizer = make(*arguments)
        optimizer.register_step_pre_hook(lambda it, *_: gradients.append([
            None if p.grad is None else p.grad.clone() for group in it.param_groups for p in group["params"]]))
        return optimizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "adam", watched)
        history = loop.fit(method, model, ranks_at_work.Pairs(config.data, "late", late), HELDOUT, config, folder, device,
                           progress=False, ranks=ranks and ranks_at_work.one(ranks, config))
    return Fitted(model, history, gradients)


def together(count: int, cases: Sequence[ranks_at_work.Case], found: list[Fitted], *trouble: Any,
             first: torch.device = CPU) -> None:
    """Add to `found` the runs by `count` processes."""
    devices = parallel.devices_of(first, count)
    with parallel.together(devices, True, ranks_at_work.train, cases, *trouble) as ranks:
        found += (fitted(case, ranks, devices[0], 1 if trouble[:1] == ("bad input",) and case is cases[-1] else 0)
                  for case in cases)


def largest(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs() / expected.abs().clamp_min(1e-2)).max().item()


def difference(several: Fitted, alone: Fitted) -> float:
    """The largest of all steps' losses and gradients, and of the tensors of the network that is kept."""
    history, its = several.history, alone.history
    assert [row.keys() for row in history.steps] == [row.keys() for row in its.steps] and history.best_epoch == its.best_epoch
    rows = [torch.tensor([list(row.values()) for row in h.steps], dtype=torch.float64) for h in (history, its)]
    tensors, theirs = several.model.state_dict(), alone.model.state_dict()
    assert tensors.keys() == theirs.keys()
    pairs = [pair for steps in zip(several.gradients, alone.gradients, strict=True) for pair in zip(*steps, strict=True)]
    assert [one is None for one, _ in pairs] == [other is None for _, other in pairs]
    return max(largest(*rows), *(largest(tensors[name].double(), theirs[name].double()) for name in tensors),
               *(largest(one, other) for one, other in pairs if one is not None and other is not None))


CASES: dict[int, dict[str, tuple[Method[Any], dict[str, Any]]]] = {
    # 25 pairs in batches of 7: shares of 4 and 3 pairs, and of 2 and 2 in the last batch
    2: {"synchronised": (TCN, {"coupling.embedding": "none"}),
        "each alone, separate form": (TCN, {"network.batch_norm_split": 2, "losses.semantic_form": "separate",
                                            "losses.margin": 0.4, "network.embedding_norm": "per_modality",
                                            "training.epochs": 2}),
        # the distillation head takes no part, and must not decay
        "another method": (SIAMESE, {"losses.distillation": 0.0, "training.epochs": 2})},
    # last batches of 2 and of 3 pairs: some process has no share
    3: {"synchronised, shared statistics": (TCN, {"data.batch_pairs": 23, "coupling.batch_norm_affine": "hard",
                                                  "coupling.batch_norm_statistics": "hard", "training.epochs": 2}),
        "each alone, plain execution": (TCN, {"data.batch_pairs": 11, "network.batch_norm_split": 3,
                                              "training.epochs": 2, **PLAIN})},
}


TROUBLE = {2: ("killed", 3), 3: ("bad input", 1)}
"""What happens to the second process in a last run, at which epoch."""


@dataclasses.dataclass
class Runs:
    """Each case by several processes and by one, with the former's folder; and how the last run ended, with its case."""

    several: dict[tuple[int, str], tuple[Fitted, Fitted, Path]] = dataclasses.field(default_factory=dict)
    ended: dict[int, tuple[BaseException, ranks_at_work.Case]] = dataclasses.field(default_factory=dict)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    done = Runs()
    for count, cases in CASES.items():
        folder, found = tmp_path_factory.mktemp("several"), []
        given = [(method, settings(delta), folder / name) for name, (method, delta) in cases.items()]
        last = *given[0][:2], folder / "in trouble"
        with pytest.raises((parallel.RankLost, InputError)) as caught, pytest.MonkeyPatch.context() as patch:
            patch.setattr(multiprocessing, "get_context", warm.context)
            if count == 3:
                patch.setattr(parallel, "SOON", 1.0)  # soon after that error, and before the first process begins its epoch
            together(count, [*given, last], found, *TROUBLE[count])
        done.ended[count] = caught.value, last
        for case, several in zip(given, found, strict=True):
            done.several[count, case[2].name] = several, fitted((*case[:2], tmp_path_factory.mktemp("one"))), case[2]
    return done


@pytest.mark.parametrize("count, case", [(count, case) for count, cases in CASES.items() for case in cases])
def test_several_processes_give_the_numbers_of_one(runs, count, case):
    """Losses and gradients of every step, and the network after whole epochs, with its running statistics; dropout is on."""
    several, alone, folder = runs.several[count, case]
    method, delta = CASES[count][case]
    parallel.check(settings(delta), method, count)
    parallel.check_model(alone.model, True)
    found = difference(several, alone)
    print(f"{count}, {case}: {found:.1e}")
    assert found < TOLERANCE
    epochs = settings(delta).training.epochs
    assert sorted(path.name for path in folder.iterdir()) == [f"epoch-000{epoch}.pt" for epoch in (epochs - 1, epochs)]


def test_a_run_whose_process_was_killed_goes_on_to_the_same_bits(runs, warm_workers):
    straight, _, _ = runs.several[2, "synchronised"]
    error, case = runs.ended[2]
    assert isinstance(error, parallel.RankLost)
    assert str(error) == "process 2 of 2 of this run (cpu) was killed by SIGKILL (out of memory, or by hand)"
    assert checkpoints.epochs(case[2]) == 2
    found: list[Fitted] = []
    together(2, [case], found)
    [resumed] = found
    tensors, theirs = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(tensors[name], theirs[name]) for name in tensors)
    assert straight.history.steps == resumed.history.steps and straight.history.best_epoch == resumed.history.best_epoch


def test_an_error_in_another_process_ends_all_with_its_message(runs):
    """Also where the first waits for nothing meanwhile, as in a long validation: its next exchange fails."""
    error, _ = runs.ended[3]
    assert isinstance(error, InputError) and str(error) == "a picture can't be read"
    assert "in process 2 of 3 (cpu)" in str(error.__cause__) and "ranks_at_work.py" in str(error.__cause__)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("hangs", [False, True])
def test_the_first_process_waits_for_a_dead_one_neither_where_nothing_fails_nor_where_the_way_out_hangs(
        tmp_path, monkeypatch, hangs):
    """In a new process: its first child is the second process of the run, from which signals to the group are held back. Not from
    a fork of the warm server, which has nothing of the process that asked for it."""
    if hangs:
        monkeypatch.setattr(multiprocessing, "get_context", warm.context)
    first = multiprocessing.get_context("spawn").Process(target=ranks_at_work.wait_in_vain, args=(tmp_path, hangs))
    first.start()
    first.join(300)
    alive = first.is_alive()
    first.kill()
    assert not alive and first.exitcode == parallel.ENDED_BY_OTHERS
    assert hangs or (tmp_path / "held back").read_text().split() == sorted(parallel._HELD_BACK)


def test_gradients_are_averaged_in_several_messages(monkeypatch):
    """As if all processes had the same gradients; a tensor of more numbers than a message holds goes alone,
    one without stays so."""
    monkeypatch.setattr(ranks_module, "_BUCKET", 10)
    sent = []
    monkeypatch.setattr(ranks_module.dist, "all_reduce", lambda flat: (sent.append(len(flat)), flat.mul_(4)))
    shapes = [(3,), (2, 4), (50,), (1,), (2, 2, 3, 1), (2,)]
    parameters = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    for seed, parameter in enumerate(parameters):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    parameters[4].grad = parameters[4].grad.contiguous(memory_format=torch.channels_last)
    before = [parameter.grad.clone() for parameter in parameters]
    nothing = torch.zeros(3, requires_grad=True)
    Ranks(1, 4, True).average([*parameters, nothing])
    assert sent == [11, 50, 13, 2] and nothing.grad is None
    assert all(torch.equal(parameter.grad, gradient) for parameter, gradient in zip(parameters, before))


@pytest.mark.parametrize("delta, count, words", [
    ({"network.batch_norm_split": 2}, 3, "must be 1 .* or 3"), ({"data.batch_pairs": 5}, 3, "fewer than 2 pairs"),
    ({"execution.compile": "encoders"}, 2, "set execution.compile=none")])
def test_what_several_processes_cannot_do_is_said_before(delta, count, words):
    with pytest.raises(InputError, match=words):
        parallel.check(settings(delta), TCN, count)


def test_a_model_that_several_processes_cannot_train_is_refused():
    config = settings({})
    with pytest.raises(InputError, match="method 'mine' does not say"):
        parallel.check(config, Method("mine", TCN.build, TCN.losses), 2)
    with pytest.raises(InputError, match="gives a Linear"):
        parallel.check_model(nn.Linear(1, 1), False)
    model = built(config)
    model.encoders.photo.trunk.stage2.add_module("further", nn.BatchNorm3d(2))
    with pytest.raises(InputError, match=r"stage2.further.*BatchNorm3d.*can't be synchronised"):
        parallel.check_model(model, True)
    parallel.check_model(model, False)
    model.encoders.photo.trunk.stage2.further = nn.Dropout(0.1)
    with pytest.raises(InputError, match=r"stage2.further.*Dropout.*draws random numbers"):
        parallel.check_model(model, False)


def test_the_devices_of_a_run():
    assert (parallel.devices_of(CPU, 3) == [CPU] * 3
            and parallel.devices_of(torch.device("cuda", 1), 1) == [torch.device("cuda", 1)])
    with pytest.raises(InputError, match="names one GPU"):
        parallel.devices_of(torch.device("cuda", 1), 2)
    with pytest.raises(InputError, match="GPUs are visible"):
        parallel.devices_of(torch.device("cuda"), 64)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_gpus_give_the_numbers_of_one_and_notice_when_one_is_lost(tmp_path):
    """In float64, dropout on; the tolerance leaves room for sums in another order."""
    deltas = [settings(delta) for delta in ({}, {"network.batch_norm_split": 2})]
    cases: list[ranks_at_work.Case] = [(TCN, config, tmp_path / str(number)) for number, config in enumerate(deltas)]
    found: list[Fitted] = []
    gpu = torch.device("cuda", 0)
    with pytest.raises(parallel.RankLost, match="killed by SIGKILL"):
        together(2, [*cases, (TCN, deltas[0], tmp_path / "killed")], found, "killed", 2, first=gpu)
    for case, several in zip(cases, found, strict=True):
        assert difference(several, fitted((*case[:2], tmp_path / f"{case[2].name} alone"), device=gpu)) < 1e-6
