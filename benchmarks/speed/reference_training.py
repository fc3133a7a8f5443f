"""One training step in the released style: plain calls, one tensor after the other, every loss value read at once.

The model is built with `config.REFERENCE` execution; only its modules are used here, not its forward pass. The formulas are the
paper's, in the tensors' own type, and use none of the project's code; tests/support/golden_oracle.py computes them in float64.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tcn.config import Config, Modality
from tcn.data.pairs import PairBatch
from tcn.train.method import TcnModel

Head = Callable[[Tensor], Tensor]


def norms_one_by_one(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The sharing loss in the released style: a Python sum over tensors of the norm of the difference. A scalar."""
    return sum((torch.norm(sketch - photo) for sketch, photo in pairs), start=torch.zeros(()))


def distilled(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cross-entropy of student logits [B, K] with the softmax of the teacher's."""
    return -(F.softmax(teacher, dim=1) * F.log_softmax(student, dim=1)).sum(1).mean()


def batch_hard(anchors: Tensor, features: Tensor, labels: Tensor, head: Head, margin: float | None = None) -> Tensor:
    """Mean over anchors [N, D] of the batch-hard loss in features [N, D], each weighted by how certain the class head is of it.

    margin: None for softplus, a number for the hinge.
    """
    distances = torch.sqrt(((anchors[:, None] - features[None]) ** 2 + 1e-16).sum(2))
    same = labels[:, None] == labels[None]
    others = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    furthest = (distances * others).max(1)[0]
    nearest = (distances + 1e9 * same).min(1)[0]
    loss = F.softplus(furthest - nearest) if margin is None else F.relu(furthest - nearest + margin)
    shares = F.softmax(head(anchors), dim=1)
    entropy = -(shares * torch.log(shares)).sum(1)
    return (loss * (1 + torch.exp(-entropy))).mean()


def mixed(features: Tensor, words: Tensor, alpha: Tensor) -> Tensor:
    """Anchors [2B, D]: features [2B, D], sketches before photos, mixed with the pairs' projected word vectors [B, D]."""
    return alpha[:, None] * torch.cat([words, words]) + (1 - alpha[:, None]) * features


def plain_losses(model: TcnModel, batch: PairBatch, config: Config, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The paper's five terms of one batch, as scalars: two encoders, one shared embedding, hinge-free semantic metric."""
    network = model.network
    embedding = network.embedding(Modality.PHOTO)
    sketch = embedding(network.encoders.sketch(batch.sketches), Modality.SKETCH)
    photo = embedding(network.encoders.photo(batch.photos), Modality.PHOTO)
    with torch.no_grad():
        teacher = F.linear(model.teacher.backbone(batch.photos), model.teacher.weight, model.teacher.bias)
    features = torch.cat([sketch, photo])
    labels = torch.cat([batch.labels, batch.labels])
    alpha = torch.rand(len(labels), generator=generator).to(features)
    anchors = mixed(features, model.word_projection(model.words[batch.labels]), alpha)
    return {"class_sketch": F.cross_entropy(embedding.class_head(sketch), batch.labels),
            "class_photo": F.cross_entropy(embedding.class_head(photo), batch.labels),
            "distillation": distilled(embedding.distillation_head(photo), teacher),
            "sharing": norms_one_by_one(network.soft_pairs()),
            "semantic": batch_hard(anchors, features, labels, embedding.class_head)}


def plain_step(model: TcnModel, optimizer: torch.optim.Optimizer, batch: PairBatch, config: Config, generator: torch.Generator
               ) -> dict[str, float]:
    """One update; the mean loss terms and the total, as numbers."""
    terms = plain_losses(model, batch, config, generator)
    weights = config.losses
    total = sum((getattr(weights, name) * value for name, value in terms.items()), start=torch.zeros(()))
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return {name: value.item() for name, value in {**terms, "total": total}.items()}
