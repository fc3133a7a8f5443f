"""What the further processes do in the tests of one run on several devices: functions that a new process can import."""
from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from support.golden_runs import Recorded, built

from tcn.config import Config, InputError
from tcn.data.pairs import PairBatch
from tcn.model.ranks import Ranks
from tcn.train import loop, parallel
from tcn.train.method import Method

Case = tuple[Method[Any], Config, Path]


class Pairs(Recorded):
    """The golden test's pairs; at the start of an epoch something happens to the process."""

    def __init__(self, settings: Any, trouble: str, at: int) -> None:
        super().__init__(settings)
        self.trouble, self.at = trouble, at

    def epoch(self, seed: int, epoch: int, *arguments: Any, **options: Any) -> Iterator[PairBatch]:
        if epoch == self.at and self.trouble == "late":
            time.sleep(3.0)
        for batch in super().epoch(seed, epoch, *arguments, **options):
            if epoch == self.at and self.trouble == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if epoch == self.at and self.trouble == "bad input":
                raise InputError("a picture can't be read")
            yield batch


def one(ranks: Ranks, config: Config) -> Ranks:
    """This process in a run of these settings."""
    return Ranks(ranks.rank, ranks.count, config.network.batch_norm_split == 1)


def train(ranks: Ranks, device: torch.device, cases: Sequence[Case], trouble: str = "", at: int = 0) -> None:
    """Whole runs of the golden test's tiny network in float64, one after the other;
    in the last the second process has the trouble."""
    torch.set_num_threads(1)
    for number, (method, config, folder) in enumerate(cases, 1):
        pairs = Pairs(config.data, trouble if ranks.rank == 1 and number == len(cases) else "", at)
        loop.follow(method, built(config).to(device), pairs, config, folder, device, one(ranks, config))


def signals_then_death(ranks: Ranks, device: torch.device, folder: Path) -> None:
    """Write which signals are held back from this process, and die."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    (folder / "held back").write_text(" ".join(sorted(signal.Signals(number).name for number in blocked)))
    os.kill(os.getpid(), signal.SIGKILL)


def wait_in_vain(folder: Path, hangs: bool) -> None:
    """The first process of a run whose second one dies. As on a GPU, its exchange does not fail, but it waits where it would read
    numbers; `hangs`: and the way out of the group waits as well."""
    parallel.SOON = 0.5
    if hangs:
        torch.distributed.distributed_c10d._abort_process_group = lambda *_: time.sleep(600)
    with parallel.together([torch.device("cpu")] * 2, True, signals_then_death, folder) as ranks, ranks.exchange():
        time.sleep(600)
