"""The losses of the paper: tensors in, one value per sample out (a scalar for the sharing loss).

Weights of the terms are applied once, in training. Sources: paper, sections on weight sharing, knowledge
transfer and the semantic metric; edge cases as in the released code where the paper is silent.
"""
from __future__ import annotations

from typing import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tcn.config import InputError
from tcn.coupling import BATCH_NORMS, own_tensors

Classify = Callable[[Tensor], Tensor]


def sharing_norms(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Frobenius norm of the difference of each tensor pair: [number of pairs]; gradient 0 where it is 0."""
    if not pairs:
        return torch.zeros(0)
    differences = torch._foreach_sub([s for s, _ in pairs], [p for _, p in pairs])
    return torch.stack(torch._foreach_norm(differences))


def soft_sharing(sketch_encoder: nn.Module, photo_encoder: nn.Module) -> Tensor:
    """L_SWS: the sum over parameter tensors of ||theta_sketch - theta_photo||_F, batch norms left out.

    Any two modules of the same architecture; batch-norm parameters are recognised by their module's type.
    Returns a scalar. At equal tensors the value and its gradient are 0 (the norm itself has none there).
    Raises InputError where the architectures differ. Source: paper, soft weight sharing.

    >>> a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = a.weight.data.fill_(1.), b.weight.data.fill_(-2.)
    >>> soft_sharing(a, b).item()
    3.0
    """
    sides = []
    for module in (sketch_encoder, photo_encoder):
        sides.append([(name, tensor) for owner, name, tensor in own_tensors(module)
                      if not isinstance(owner, BATCH_NORMS)])
    if [(n, t.shape) for n, t in sides[0]] != [(n, t.shape) for n, t in sides[1]]:
        raise InputError("soft_sharing needs two modules of the same architecture; their parameters differ in "
                         "number, name or shape")
    pairs = [(s, p) for (_, s), (_, p) in zip(*sides)]
    if not pairs:
        raise InputError("soft_sharing found no parameter outside batch norms")
    return sharing_norms(pairs).sum()


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of class logits [B, C] with labels [B]: [B]."""
    return F.cross_entropy(logits, labels, reduction="none")


def distillation(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Soft cross-entropy of student logits [B, K] with the softmax of teacher logits [B, K]: [B]; no temperature.

    Source: paper, knowledge preservation (photos only).

    >>> round(distillation(torch.zeros(1, 4), torch.tensor([[9., 0., 0., 0.]])).item(), 4)  # log 4
    1.3863
    """
    return F.cross_entropy(student_logits, teacher_logits.softmax(1), reduction="none")


def anchor_distances(anchors: Tensor, features: Tensor) -> Tensor:
    """sqrt(sum over dimensions of ((a - x)^2 + 1e-16)): [N, M] from [N, D] and [M, D].

    Taken from the differences, not from products: at small distances the product form loses its digits.
    """
    return ((anchors[:, None] - features[None]).square() + 1e-16).sum(2).sqrt()


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits [N, C]) in nats: [N]."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def _hardest(distances: Tensor, labels: Tensor, margin: float | str) -> Tensor:
    same = labels[:, None] == labels[None]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    furthest = distances.masked_fill(~positive, 0).max(1).values
    nearest = distances.masked_fill(same, torch.inf).min(1).values
    lonely = same.all(1)
    # Rows without a negative: replace before the loss, so that no infinity meets the gradient.
    gap = furthest - nearest.masked_fill(lonely, 0)
    loss = F.softplus(gap) if margin == "soft" else F.relu(gap + margin)
    return loss.masked_fill(lonely, 0)


def _check(features: Tensor, labels: Tensor, margin: float | str) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise InputError(f"features {tuple(features.shape)} and labels {tuple(labels.shape)} must be [N, D] and [N]")
    if isinstance(margin, str) and margin != "soft":
        raise InputError(f"margin is {margin!r}; it must be 'soft' or a number")


def semantic_metric(features: Tensor, word_anchors: Tensor, labels: Tensor, alpha: Tensor, classify: Classify,
                    margin: float | str = "soft") -> Tensor:
    """L_sem per row: batch-hard from anchors mixed of words and features, weighted by certainty.

    features [N, D] (sketches and photos stacked), word_anchors [N, D] (already projected), labels [N],
    alpha [N] in [0, 1], classify: [N, D] -> logits [N, C]. a = alpha * word + (1 - alpha) * feature; the row's
    loss softplus(p - n) (or hinge with a number) times 1 + exp(-entropy of classify(a)), gradient through both.
    Rows without a positive have p = 0; without a negative, loss 0. Returns [N]; the mean is L_sem.
    Source: paper, semantic metric; released code for the weight and the 1e-16.
    """
    _check(features, labels, margin)
    if word_anchors.shape != features.shape or alpha.shape != labels.shape:
        raise InputError(f"word_anchors {tuple(word_anchors.shape)} must match features {tuple(features.shape)} and "
                         f"alpha {tuple(alpha.shape)} labels {tuple(labels.shape)}")
    anchors = alpha[:, None] * word_anchors + (1 - alpha[:, None]) * features
    loss = _hardest(anchor_distances(anchors, features), labels, margin)
    return loss * (1 + torch.exp(-entropy(classify(anchors))))


def batch_hard(features: Tensor, labels: Tensor, classify: Classify, margin: float | str = "soft") -> Tensor:
    """The ablated form's triplet part per row: mined on the features themselves, same certainty weight: [N]."""
    _check(features, labels, margin)
    loss = _hardest(anchor_distances(features, features), labels, margin)
    return loss * (1 + torch.exp(-entropy(classify(features))))


def semantic_regression(predicted_words: Tensor, words: Tensor) -> Tensor:
    """Mean squared error of Q(x) [N, W] to the word vectors [N, W], per row: [N] (ablated form)."""
    return (predicted_words - words).square().mean(1)
