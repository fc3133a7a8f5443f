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
from tcn.train import loop
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
