"""The losses of the paper. In: tensors. Out: one value per sample (a scalar for the sharing loss).

The weights of the terms are applied once, in training. Sources: paper, sections on weight sharing, knowledge transfer and
the semantic metric; edge cases on which the paper is silent are as in the released code. Metric and distillation are computed
in float64 and rounded at the end to the inputs' type (half precision: to float32): differences of distances, and the logits of
confident heads, cancel more digits than float32 has, and the tensors are small. The sharing loss, whose tensors are large, has a
plain form and a fast one.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from tcn.config import InputError
from tcn.model.coupling import BATCH_NORMS, own_tensors

Classify = Callable[[Tensor], Tensor]


def _full(tensor: Tensor) -> Tensor:
    """The tensor, converted to float32 if it has half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _widest(device: torch.device) -> torch.dtype:
    """float64, or float32 on MPS, which has no wider type."""
    return torch.float32 if device.type == "mps" else torch.float64


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(_widest(tensor.device))


_CHUNK = 2**18
"""Number of elements handled at once on the CPU, so that their 3 MB in float32 stay in its caches."""


def _dense(tensor: Tensor) -> Tensor:
    """All elements of a tensor without gaps, in memory order: a view [number of elements]."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _through_memory(tensor: Tensor) -> bool:
    """Whether to work in chunks that fit the caches, as on a CPU, or with few kernels over all tensors, as elsewhere."""
    return tensor.device.type == "cpu"


def _without_gaps(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


class _Norms(torch.autograd.Function):
    """Norms of tensor differences and their gradients, each in one pass over memory (CPU) or few kernels (elsewhere).

    Autograd would need about 8n kernels for the norms of n pairs, and on the CPU about twice the memory traffic.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> Tensor:  # noqa: D102
        sketch, photo = tensors[:count], tensors[count:]
        ctx.count = count
        differences: tuple[Tensor, ...] = ()
        if _through_memory(sketch[0]):
            norms = torch.stack([_squared_distance(s, p) for s, p in zip(sketch, photo)]).sqrt()
        else:
            differences = torch._foreach_sub([_full(s) for s in sketch], [_full(p) for p in photo])
            norms = torch.stack(torch._foreach_norm(differences, 2, _widest(sketch[0].device)))
        ctx.save_for_backward(norms, *(differences or tensors))
        return norms.to(_full(sketch[0]).dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        norms, *saved = ctx.saved_tensors
        scales = torch.where(norms > 0, grad / norms, 0.0)
        if _through_memory(norms):
            pairs = zip(saved[:ctx.count], saved[ctx.count:], scales.tolist())
            sketch, photo = zip(*(_scaled_differences(s, p, scale) for s, p, scale in pairs))
        else:
            sketch = torch._foreach_mul(saved, list(scales.to(saved[0].dtype).unbind()))
            photo = torch._foreach_neg(sketch)
        return None, *sketch, *photo


def _squared_distance(sketch: Tensor, photo: Tensor) -> Tensor:
    """||sketch - photo||^2 as a float64 scalar, from sums in the tensors' type over chunks, added up in float64."""
    sketch, photo = _dense(sketch), _dense(photo)
    buffer = torch.empty(min(_CHUNK, len(sketch)), dtype=sketch.dtype)
    sums = []
    for first in range(0, max(len(sketch), 1), _CHUNK):
        part = sketch[first:first + _CHUNK]
        difference = torch.sub(part, photo[first:first + _CHUNK], out=buffer[:len(part)])
        sums.append(torch.dot(difference, difference))
    return torch.stack(sums).double().sum()


def _scaled_differences(sketch: Tensor, photo: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """scale * (sketch - photo) and its negative, in the tensors' own order in memory."""
    to_sketch = torch.sub(sketch, photo).mul_(scale)
    return to_sketch, torch.neg(to_sketch)


def _norms_in_few_passes(pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether `_Norms` applies: on the CPU, both tensors of a pair must have the same layout in memory, and at least float32."""
    if not _through_memory(pairs[0][0]):
        return True
    return all(s.dtype == p.dtype and s.dtype in (torch.float32, torch.float64) and s.stride() == p.stride()
               and _without_gaps(s) and _without_gaps(p) for s, p in pairs)


def sharing_norms(pairs: Sequence[tuple[Tensor, Tensor]], form: str = "fused") -> Tensor:
    """Frobenius norm of the difference of each tensor pair: [number of pairs]; gradient 0 where it is 0.

    form: `loop` takes each difference, sums its squares in float64 (a float32 sum over the millions of one convolution
    loses the fifth digit), and leaves the gradient to autograd. `fused` reads and writes each tensor once; on the CPU
    it sums chunks in the tensors' type and the chunks in float64, agrees to 1e-6 (relative) where squares neither over-
    nor underflow, and has no second derivative.
    """
    if not pairs:
        return torch.zeros(0)
    if form == "fused" and _norms_in_few_passes(pairs):
        norms: Tensor = _Norms.apply(  # type: ignore[no-untyped-call]  # torch leaves it so
            len(pairs), *(s for s, _ in pairs), *(p for _, p in pairs))
        return norms
    return torch.stack([_norm(_full(s) - _full(p)) for s, p in pairs])


def _norm(difference: Tensor) -> Tensor:
    # torch's norm has gradient 0 at 0, as the docstring of `sharing_norms` promises.
    norm: Tensor = torch.linalg.vector_norm(difference, dtype=_widest(difference.device))
    return norm.to(difference.dtype)


def soft_sharing(sketch_encoder: nn.Module, photo_encoder: nn.Module) -> Tensor:
    """L_SWS: the sum over parameter tensors of ||theta_sketch - theta_photo||_F, without those of batch norms.

    The encoders are any two modules of the same architecture. Batch-norm parameters are recognised by their module's type:
    torch's 1-d, 2-d, 3-d, synchronised and lazy batch norms, and classes derived from them. Group, layer and instance norms
    count like any other parameter. A tensor that several modules of an encoder use counts once; buffers do not count.
    Returns a scalar, which is 0 if only batch norms have parameters. At equal tensors the value and its gradient are 0
    (the norm itself has no gradient there). Raises InputError if the architectures differ, or if a lazy parameter has
    no shape yet. Source: paper, soft weight sharing.

    >>> a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = a.weight.data.fill_(1.), b.weight.data.fill_(-2.)
    >>> soft_sharing(a, b).item()
    3.0
    """
    sides = []
    for module in (sketch_encoder, photo_encoder):
        sides.append([(name, tensor) for owner, name, tensor in own_tensors(module)
                      if not isinstance(owner, BATCH_NORMS)])
        if any(is_lazy(tensor) for _, tensor in sides[-1]):
            raise InputError("soft_sharing found a lazy parameter without a shape; call both modules once before")
    if [(n, t.shape) for n, t in sides[0]] != [(n, t.shape) for n, t in sides[1]]:
        raise InputError("soft_sharing needs two modules of the same architecture; their parameters differ in "
                         "number, name or shape")
    pairs = {(id(s), id(p)): (s, p) for (_, s), (_, p) in zip(*sides)}
    return sharing_norms(list(pairs.values()), "loop").sum()


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of class logits [B, C] with labels [B]: [B]."""
    return F.cross_entropy(_full(logits), labels.long(), reduction="none")


def distillation(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Soft cross-entropy of student logits [B, K] with the softmax of teacher logits [B, K]: [B]; no temperature.

    A class that the teacher rules out (its share rounds to 0) adds nothing, whatever the student's logit is.
    Raises InputError if the shapes differ. Source: paper, knowledge preservation (photos only).

    >>> round(distillation(torch.zeros(1, 4), torch.tensor([[9., 0., 0., 0.]])).item(), 4)  # log 4
    1.3863
    """
    if student_logits.ndim != 2 or student_logits.shape != teacher_logits.shape:
        raise InputError(f"student_logits {tuple(student_logits.shape)} and teacher_logits "
                         f"{tuple(teacher_logits.shape)} must both be [B, K]")
    shares = _wide(teacher_logits).softmax(1)
    loss = -(shares * _wide(student_logits).log_softmax(1).masked_fill(shares == 0, 0)).sum(1)
    return loss.to(_full(student_logits).dtype)


def anchor_distances(anchors: Tensor, features: Tensor) -> Tensor:
    """sqrt(sum over dimensions of ((a - x)^2 + 1e-16)): float64 [N, M] from [N, D] and [M, D].

    Computed from the differences; the form with products loses its digits at small distances.
    """
    return ((_wide(anchors)[:, None] - _wide(features)[None]).square() + 1e-16).sum(2).sqrt()


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits [N, C]) in nats: float64 [N]. A class with probability 0 (logit -inf) adds 0."""
    logs = _wide(logits).log_softmax(1)
    shares = logs.exp()
    return -(shares * logs.masked_fill(shares == 0, 0)).sum(1)


def _hardest(distances: Tensor, labels: Tensor, margin: float | str) -> Tensor:
    same = labels[:, None] == labels[None]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    furthest = distances.masked_fill(~positive, 0).max(1).values
    nearest = distances.masked_fill(same, torch.inf).min(1).values
    lonely = same.all(1)
    # In rows without a negative, the infinity is replaced before the loss, so that it does not enter the gradient.
    gap = furthest - nearest.masked_fill(lonely, 0)
    loss = F.softplus(gap) if margin == "soft" else F.relu(gap + float(margin))
    return loss.masked_fill(lonely, 0)


def _certain(anchors: Tensor, features: Tensor, labels: Tensor, classify: Classify, margin: float | str) -> Tensor:
    """Batch-hard loss of each anchor [N, D], weighted by how certain the class head is of it."""
    loss = _hardest(anchor_distances(anchors, features), labels, margin)
    certainty = torch.exp(-entropy(classify(anchors.to(features.dtype))))
    return (loss * (1 + certainty)).to(_full(features).dtype)


def _check(features: Tensor, labels: Tensor, margin: float | str) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(features):
        raise InputError(f"features {tuple(features.shape)} and labels {tuple(labels.shape)} must be [N, D] and [N], "
                         "N at least 1")
    if isinstance(margin, str) and margin != "soft" or margin != margin:
        raise InputError(f"margin is {margin!r}; it must be 'soft' or a number")


def semantic_metric(features: Tensor, word_anchors: Tensor, labels: Tensor, alpha: Tensor, classify: Classify,
                    margin: float | str = "soft") -> Tensor:
    """L_sem per row: the batch-hard loss of anchors mixed from words and features, weighted by certainty.

    features [N, D] (sketches and photos stacked), word_anchors [N, D] (already projected), labels [N],
    alpha [N] in [0, 1], classify: [N, D] -> logits [N, C]. The anchor is a = alpha * word + (1 - alpha) * feature. The loss
    of a row is softplus(p - n) (with a number as margin, the hinge) times 1 + exp(-entropy of classify(a)), where p is the
    distance of its furthest positive and n that of its nearest negative; the gradient flows through both factors.
    Rows without a positive have p = 0; rows without a negative have loss 0. Returns [N]; the mean is L_sem.
    Source: paper, semantic metric; released code for the weight and the 1e-16.
    """
    _check(features, labels, margin)
    if word_anchors.shape != features.shape or alpha.shape != labels.shape:
        raise InputError(f"word_anchors {tuple(word_anchors.shape)} must match features {tuple(features.shape)} and "
                         f"alpha {tuple(alpha.shape)} labels {tuple(labels.shape)}")
    share = _wide(alpha)[:, None]
    anchors = share * _wide(word_anchors) + (1 - share) * _wide(features)
    return _certain(anchors, features, labels, classify, margin)


def batch_hard(features: Tensor, labels: Tensor, classify: Classify, margin: float | str = "soft") -> Tensor:
    """The triplet part of the ablated form, per row [N]: mined on the features themselves, with the same certainty weight."""
    _check(features, labels, margin)
    return _certain(features, features, labels, classify, margin)


def semantic_regression(predicted_words: Tensor, words: Tensor) -> Tensor:
    """The regression part of the ablated form, per row [N]: mean squared error of Q(x) [N, W] to the word vectors [N, W]."""
    return (predicted_words - words).square().mean(1)
