"""Forward and backward passes recorded once as CUDA graphs and replayed in every step.

In: a module and the shape of its batches. Out: the same computation, launched by one call instead of some thousand: at 32 pairs
the host otherwise takes longer to launch the kernels of a step than the device to run them. Source: CUDA graphs as PyTorch has
them (`torch.cuda.make_graphed_callables`).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tcn.config import InputError

WARM_UPS = 3
"""Passes before a recording, in which libraries choose their algorithms and take their memory."""


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """The context in which a module's buffers, such as running statistics, may change; afterwards they are as before."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def check_recordable(module: nn.Module) -> None:
    """Raise InputError where something hooked into the module has parameters of its own, which a recording would not train."""
    if any(child._forward_hooks or child._forward_pre_hooks for child in module.modules()):
        raise InputError("setting 'execution.graphs' is 'encoders', which a method that hooks into the encoders can't use; set "
                         "execution.graphs=none")


def record_training(module: nn.Module, *samples: Tensor) -> nn.Module:
    """`module` in training, its forward and backward pass on inputs of the shape of `samples` recorded.

    The module is changed in place and returned: its next calls replay. One backward pass has to follow each call before the next,
    and outputs are valid until then. Nothing else may use the device meanwhile. Raises InputError as `check_recordable`.
    """
    check_recordable(module)
    # The recording runs on a stream of its own, as torch's own function for it does; the steps' gradients are added on another.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    with _buffers_kept(module):
        torch.cuda.make_graphed_callables(module, samples, num_warmup_iters=WARM_UPS)  # replaces the module's forward
    return module


def record_forward(function: Callable[[Tensor], Tensor], sample: Tensor) -> Callable[[Tensor], Tensor]:
    """`function` without gradients on inputs of the shape of `sample`, recorded. What it returns is valid until its next call."""
    images = sample.clone()
    stream = torch.cuda.Stream(sample.device)
    stream.wait_stream(torch.cuda.current_stream(sample.device))
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            function(images)
    torch.cuda.current_stream(sample.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        made = function(images)

    def replay(given: Tensor) -> Tensor:
        images.copy_(given)
        graph.replay()
        return made

    return replay
