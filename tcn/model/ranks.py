"""The processes that train one model together, each on a device of its own, and what passes between them.

In: the number of this process, how many there are, the size of the batch at hand. Out: which rows of a batch this process
encodes; the rows of all of them, gathered with their gradients; gradients, averaged.
Released code: data parallelism over two GPUs.

Every process computes the losses over the whole batch from gathered rows. What the losses read besides (heads, word layers,
weights under the sharing loss) is therefore in all of them alike, and what the encoders get passes through a process's own rows
alone. So gathering multiplies the gradient of the own rows by the number of processes, and the average over them is the gradient.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

_BUCKET = 1 << 25
"""Numbers that are averaged in one message."""


class Ranks:
    """This process (`rank`, from 0) among `count` that train one model over torch.distributed's default group.

    synchronised: whether a batch norm takes its statistics over the whole batch, else over this process's rows alone.
    """

    def __init__(self, rank: int, count: int, synchronised: bool) -> None:
        self.rank, self.count, self.synchronised = rank, count, synchronised
        self.pairs = 0
        """Pairs of the batch at hand; 0 outside of a step."""
        self.exchanging = False
        """Whether this process may be waiting for the others."""

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """A block in which this process may wait for the others: on a GPU not where it sends, but where it reads numbers next."""
        before, self.exchanging = self.exchanging, True
        try:
            yield
        finally:
            self.exchanging = before

    @contextmanager
    def step(self, pairs: int) -> Iterator[None]:
        """A training step on a batch of `pairs`: in this block, networks share it out and gather what they give."""
        self.pairs = pairs
        try:
            yield
        finally:
            self.pairs = 0

    def sizes(self, pairs: int) -> list[int]:
        """The pairs of each process; the larger shares first. A batch norm of its own needs 2 pairs, so that the last ones of a
        small batch get none.

        >>> Ranks(0, 3, True).sizes(8), Ranks(0, 3, True).sizes(2), Ranks(0, 3, False).sizes(5)
        ([3, 3, 2], [1, 1, 0], [3, 2, 0])
        """
        busy = max(1, min(self.count, pairs if self.synchronised else pairs // 2))
        each, more = divmod(pairs, busy)
        return [each + (rank < more) for rank in range(busy)] + [0] * (self.count - busy)

    def rows(self, pairs: int) -> slice:
        """The rows of a batch that this process encodes. One without a share encodes those of the first, and what it gives is not
        used: so it takes part in every exchange, and every parameter has a gradient in all processes or in none."""
        sizes = self.sizes(pairs)
        first = sum(sizes[:self.rank])
        return slice(first, first + sizes[self.rank]) if sizes[self.rank] else slice(0, sizes[0])

    @property
    def idle(self) -> bool:
        """Whether this process has no share of the batch at hand."""
        return self.sizes(self.pairs)[self.rank] == 0

    def gathered(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """The rows of the whole batch ([B, K] each) from those of each process, of one type;
        the gradient goes to the own ones."""
        found: tuple[Tensor, ...] = _Gathered.apply(  # type: ignore[no-untyped-call]  # torch leaves it so
            self.rank, self.sizes(self.pairs), *rows)
        return found

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over all processes, which then hold the same bits."""
        waiting: list[Tensor] = []
        numbers = 0
        for parameter in parameters:
            if parameter.grad is not None:
                waiting.append(parameter.grad)
                numbers += parameter.grad.numel()
                if numbers >= _BUCKET:
                    self._average(waiting)
                    waiting, numbers = [], 0
        if waiting:
            self._average(waiting)

    def _average(self, gradients: list[Tensor]) -> None:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(mean.view_as(gradient))

    @torch.no_grad()
    def check_alike(self, parameters: Iterable[Tensor]) -> None:
        """Raise RuntimeError in all processes where one holds other parameters than the first, by the sum of each tensor."""
        # What is not finite is told by the losses, or in validation.
        own = torch.stack([parameter.sum(dtype=torch.float64) for parameter in parameters]).nan_to_num()
        all_sums = [torch.zeros_like(own) for _ in range(self.count)]
        dist.all_gather(all_sums, own)
        other = [rank for rank, sums in enumerate(all_sums) if not torch.equal(sums, all_sums[0])]
        if other:
            raise RuntimeError(f"the processes of this run no longer hold the same weights (process {other[0] + 1} of "
                               f"{self.count} differs from the first); give the command again with one GPU a run")


class _Gathered(torch.autograd.Function):
    """Rows [own, K], [own, L], ... of each process -> rows [B, K], [B, L], ... of all, in one message; backward: the own rows'
    gradient times the number of processes, and none where what was gathered is not used."""

    @staticmethod
    def forward(ctx: Any, rank: int, sizes: list[int], *rows: Tensor) -> tuple[Tensor, ...]:
        ctx.rank, ctx.sizes, ctx.shapes = rank, sizes, [one.shape for one in rows]
        # Else a head that no loss reads would get a gradient of zeros, and Adam would let its weights decay.
        ctx.set_materialize_grads(False)
        together = torch.cat(rows, 1)
        # A message has one size, so that shorter shares are filled up.
        sent = together.new_zeros(max(sizes), together.shape[1])
        sent[:sizes[rank]] = together[:sizes[rank]]
        pieces = [torch.zeros_like(sent) for _ in sizes]
        dist.all_gather(pieces, sent)
        whole = torch.cat([piece[:size] for piece, size in zip(pieces, sizes)])
        return tuple(part.contiguous() for part in whole.split([one.shape[1] for one in rows], 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        own, first = ctx.sizes[ctx.rank], sum(ctx.sizes[:ctx.rank])
        found: list[Tensor | None] = []
        for grad, shape in zip(grads, ctx.shapes):
            if grad is not None:
                made = grad.new_zeros(shape)
                made[:own] = grad[first:first + own] * len(ctx.sizes)
                grad = made
            found.append(grad)
        return None, None, *found
