"""The sharing loss over two ResNet-50, forward and backward: `losses.sharing_norms` beside a loop over tensors.

The ceiling reads both sets of weights and writes both gradients once, in the order of memory, which any form has to do.
"""
from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from benchmarks.speed.conftest import Timed
from benchmarks.speed.reference_training import norms_one_by_one
from tcn.model.execution import keep_memory
from tcn.train.losses import sharing_norms


@lru_cache(maxsize=1)
def weights() -> list[tuple[Tensor, Tensor]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    nets = [resnet50().to(device) for _ in range(2)]
    return [(a.weight, b.weight) for a, b in zip(*(net.modules() for net in nets)) if isinstance(a, nn.Conv2d)]


def forget() -> None:
    for pair in weights():
        for tensor in pair:
            tensor.grad = None


def read_and_write_once() -> None:
    for sketch, photo in weights():
        for tensor in (sketch, photo):
            tensor.grad = torch.sub(sketch.detach(), photo.detach())


RUNS = {"reference": lambda: norms_one_by_one(weights()).backward(),
        "ours": lambda: sharing_norms(weights()).sum().backward(),
        "ceiling": read_and_write_once}


@pytest.mark.parametrize("role", RUNS)
def test_as_each_runs(timed: Timed, role: str) -> None:
    """The reference frees memory as the C library does by default, as in the released code; ours keeps it, as in run_all."""
    if role == "reference":
        agree()
    else:
        keep_memory()
    timed("sharing loss", "two ResNet-50, forward and backward", role, 1, "call", RUNS[role], rounds=30, warmup=3, setup=forget,
          note="a norm of a difference for each tensor, gradient by autograd" if role == "reference" else "")


@pytest.mark.parametrize("role", RUNS)
def test_with_memory_kept_in_both(timed: Timed, role: str) -> None:
    keep_memory()
    timed("sharing loss", "the same, the reference with kept memory too", role, 1, "call", RUNS[role], rounds=30, warmup=3,
          setup=forget)


def agree() -> None:
    """Check that both give the same loss and gradient."""
    found = []
    for role in ("ours", "reference"):
        forget()
        RUNS[role]()
        found.append([tensor.grad for pair in weights() for tensor in pair])
    for mine, plain in zip(*found):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-7)
    assert sharing_norms(weights()).sum().item() == pytest.approx(norms_one_by_one(weights()).item(), rel=1e-4)
