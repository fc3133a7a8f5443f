"""The sizes at which the measurements of gpu.py run: the paper's, or small ones for tests.

In: `small`, and execution settings. Out: numbers of steps and rounds, and a model in training of that size.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.speed.bench_training import DEVICE, Trainer, trainer
from tcn.config import Execution

Measurement = tuple[str, Callable[[], dict[str, Any]]]
"""The name of a result, and the function that measures it."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """The sizes to measure at: the paper's, or small ones for a test."""

    small: bool = False

    @property
    def steps(self) -> int:
        """Number of training steps in a round."""
        return 2 if self.small else 8

    @property
    def rounds(self) -> int:
        """Number of timed rounds."""
        return 1 if self.small else 3

    def trainer(self, execution: Execution, batch: int = 32) -> Trainer:
        """The paper's training: ResNet-50 at 224 pixels. The small one has half a million parameters, at 32 pixels."""
        if not self.small:
            return trainer("paper", execution, batch, pictures=self.steps * batch)
        return trainer("paper", execution, 4, pictures=4 * 2 * self.steps, **{
            "network.backbone": "test_resnet", "data.image_size": 32, "data.stored_size": 36})


def wait() -> None:
    """Wait until the device has finished."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
