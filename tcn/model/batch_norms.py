"""Batch norm of channels-last images on the CPU, with sums that keep float32's digits.

In: a model whose images are in channels-last order on the CPU. Out: the same model, whose batch norms take their batch
statistics, and the sums of their gradients, in two passes over blocks added up in float64. PyTorch's own kernel for this order
adds up all pixels of a channel one after the other in float32: over 100,000 of them the mean of a drawing's large white
areas is wrong in its third digit, and independent batch norms are this paper's subject. The paper does not say how it sums.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_BLOCK = 1 << 18
"""Numbers in a block of rows: a megabyte in float32, which stays in a core's cache from one operation to the next."""
_FEW = 128
"""Number of rows up to which torch's own kernel is as accurate, and faster."""


class _TwoPass(torch.autograd.Function):
    """Normalise images [B, C, H, W] by their own mean and variance, scale and shift; returns mean and (biased) variance too."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows = _rows(images)
        mean = _added(block.sum(0) for block in _blocks(rows)) / len(rows)
        centre = mean.to(rows.dtype)
        variance = _added((block - centre).square_().sum(0) for block in _blocks(rows)) / len(rows)
        ctx.save_for_backward(images, weight, centre, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(images, centre, variance.to(rows.dtype), weight, bias, eps=eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        images, weight, centre, variance = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        made = torch.empty_like(grad)
        pairs = list(zip(_blocks(_rows(grad)), _blocks(_rows(images)), _blocks(_rows(made))))
        # Both sums of a block are taken while it is in the cache.
        sums = [(given.sum(0), (block - centre).mul_(given).sum(0)) for given, block, _ in pairs]
        by_bias, by_centred = (_added(parts) for parts in zip(*sums))
        count = images.numel() // len(weight)
        inverse = (variance + ctx.eps).rsqrt()
        scale = weight * inverse
        slope = -scale * inverse.square() * by_centred / count
        shift = -scale * by_bias / count - slope * centre
        scale, slope, shift = (value.to(grad.dtype) for value in (scale, slope, shift))
        for given, block, out in pairs:
            torch.addcmul(shift, block, slope, out=out).addcmul_(given, scale)
        return made, (by_centred * inverse).to(grad.dtype), by_bias.to(grad.dtype), None


def _rows(images: Tensor) -> Tensor:
    """Channels-last images [B, C, H, W] as rows [B * H * W, C] over the same memory."""
    return images.permute(0, 2, 3, 1).view(-1, images.shape[1])


def _added(sums: Iterable[Tensor]) -> Tensor:
    """Float32 sums of blocks [C], added up: float64 [C]."""
    return torch.stack(list(sums)).sum(0, dtype=torch.float64)


def _blocks(rows: Tensor) -> tuple[Tensor, ...]:
    blocks: tuple[Tensor, ...] = rows.split(max(1, _BLOCK // rows.shape[1]))
    return blocks


class TwoPassBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that sums in float64 where it trains on float32 images [B, C, H, W] in channels-last order on the CPU."""

    def forward(self, images: Tensor) -> Tensor:
        own = (self.training and self.affine and images.dtype == torch.float32 and images.device.type == "cpu"
               and not torch.is_autocast_enabled("cpu") and images.numel() > _FEW * images.shape[1]
               and images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous())
        if not own:
            return nn.BatchNorm2d.forward(self, images)
        out: Tensor
        out, mean, variance = _TwoPass.apply(  # type: ignore[no-untyped-call]  # torch leaves it so
            images, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            track(self, mean, variance, images.numel() // images.shape[1])
        return out


def track(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor, count: int | Tensor) -> None:
    """Move the running statistics as torch's batch norms do: the variance of `count` values, given biased, becomes unbiased."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), share)


class TwoPassBatchNormAct2d(TwoPassBatchNorm2d, BatchNormAct2d):
    """The same for timm's batch norm, which an activation follows."""

    def forward(self, images: Tensor) -> Tensor:
        activated: Tensor = self.act(self.drop(TwoPassBatchNorm2d.forward(self, images)))
        return activated


_FORMS = {nn.BatchNorm2d: TwoPassBatchNorm2d, BatchNormAct2d: TwoPassBatchNormAct2d}


def sum_in_two_passes(module: nn.Module) -> nn.Module:
    """Every batch norm over images inside `module` takes the form of this file, with the same parameters under the same names."""
    for child in module.modules():
        if type(child) in _FORMS:
            child.__class__ = _FORMS[type(child)]
    return module
