"""Batch norms over the batch of several processes, and the layers that such a network may not have.

In: a network, `Ranks`. Out: the same network under the same names, whose batch norms take mean and variance over the rows of all
processes. Sums are taken in float64.
"""
from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tcn.config import InputError
from tcn.model.batch_norms import TwoPassBatchNorm2d, TwoPassBatchNormAct2d, track
from tcn.model.coupling import BATCH_NORMS
from tcn.model.embedding import SharedBatchNorm
from tcn.model.ranks import Ranks

KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormAct2d, TwoPassBatchNorm2d, TwoPassBatchNormAct2d, SharedBatchNorm)
"""Classes of batch norms that are normalised over all processes here. Others may do more than this in their forward pass."""


class _OverAll(torch.autograd.Function):
    """Normalise [B, C, ...] by mean and variance over the rows of all processes, scale and shift; returns mean, (biased) variance
    and the number of values too. A process without a share counts for nothing."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks
                ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dims = [dim for dim in range(images.ndim) if dim != 1]
        count = 0 if ranks.idle else images.numel() // images.shape[1]
        values = _at_least_single(images)
        own = values.mean(dims, dtype=torch.float64)
        squares = (values - _shaped(own, values)).square_().sum(dims, dtype=torch.float64)
        parts = _all(torch.cat([own, squares, own.new_full((1,), count)]), ranks)
        counts, (means, sums) = parts[:, -1:], parts[:, :-1].view(len(parts), 2, -1).unbind(1)
        # From moments about each process's own mean to those about the common one.
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        # An idle process adds nothing, so its sum is left out too.
        variance = (torch.where(counts > 0, sums, 0.0) + counts * (means - mean).square()).sum(0) / total
        ctx.save_for_backward(images, weight, mean, (variance + eps).rsqrt(), total)
        ctx.idle = ranks.idle
        ctx.mark_non_differentiable(mean, variance, total)
        made = F.batch_norm(images, mean.to(weight.dtype), variance.to(weight.dtype), weight, bias, eps=eps)
        return made, mean, variance, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, inverse, total = ctx.saved_tensors
        dims = [dim for dim in range(images.ndim) if dim != 1]
        given, values = _at_least_single(grad), _at_least_single(images)
        centred = values - _shaped(mean, values)
        by_bias = given.sum(dims, dtype=torch.float64)
        by_centred = (given * centred).sum(dims, dtype=torch.float64)
        sums = torch.stack([by_bias, by_centred])
        dist.all_reduce(sums)
        shift, slope = sums / total
        scale = weight * inverse
        made = (given - _shaped(shift, values) - centred.mul_(_shaped(inverse.square() * slope, values))) * _shaped(scale, values)
        if ctx.idle:
            made = torch.zeros_like(made)
        return made.to(images.dtype), (by_centred * inverse).to(weight.dtype), by_bias.to(weight.dtype), None, None


def _at_least_single(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _shaped(channels: Tensor, like: Tensor) -> Tensor:
    """Values of channels [C] in the type of `like` [B, C, ...], to be spread over it."""
    return channels.to(like.dtype).view(1, -1, *[1] * (like.ndim - 2))


def _all(own: Tensor, ranks: Ranks) -> Tensor:
    """Vectors [K] of all processes: [N, K]."""
    found = [torch.zeros_like(own) for _ in range(ranks.count)]
    dist.all_gather(found, own)
    return torch.stack(found)


def _synchronised(form: type[Any]) -> type[Any]:
    """The class of batch norms `form`, normalising over all processes inside a step."""

    def forward(self: Any, images: Tensor, *rest: Any) -> Tensor:
        if not self.training or not self.ranks.pairs:
            plain: Tensor = form.forward(self, images, *rest)
            return plain
        out: Tensor
        out, mean, variance, count = _OverAll.apply(  # type: ignore[no-untyped-call]  # torch leaves it so
            images, self.weight, self.bias, self.eps, self.ranks)
        if self.track_running_stats:
            track(self, mean, variance, count)
        if isinstance(self, BatchNormAct2d):
            out = self.act(self.drop(out))
        return out

    return type(f"Synchronised{form.__name__}", (form,), {"forward": forward})


_FORMS: dict[type[Any], type[Any]] = {form: _synchronised(form) for form in KNOWN}


def check_norms(module: nn.Module) -> None:
    """InputError where a batch norm inside `module` is of a class that `synchronise` does not know."""
    for name, child in module.named_modules():
        if isinstance(child, BATCH_NORMS) and (type(child) not in KNOWN or not child.affine):
            raise InputError(f"batch norm '{name}' of the encoder ({type(child).__name__}) can't be synchronised over several "
                             "GPUs; use one GPU a run, or set network.batch_norm_split to their number")


def synchronise(module: nn.Module, ranks: Ranks) -> None:
    """Every batch norm inside `module` takes its statistics over all processes inside a step. InputError as `check_norms`."""
    check_norms(module)
    for child in module.modules():
        if isinstance(child, BATCH_NORMS):
            child.__class__ = _FORMS[type(child)]
            child.ranks = ranks  # type: ignore[assignment]  # no part of the module's state


def check_draws(module: nn.Module) -> None:
    """InputError where a layer inside `module` draws random numbers in training: each process would draw its own."""
    for name, child in module.named_modules():
        kind = type(child).__name__
        share = (getattr(child, "p", 0) if "Drop" in kind or kind == "StochasticDepth" else 0) or getattr(child, "drop_prob", 0) \
            or (child.dropout if isinstance(child, nn.MultiheadAttention) else 0)
        if isinstance(share, float) and share > 0:
            raise InputError(f"layer '{name}' of the encoder ({kind}) draws random numbers in training, which several GPUs "
                             "would not draw as one does; use one GPU a run")
