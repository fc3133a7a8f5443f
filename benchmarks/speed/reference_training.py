"""One training step in the released style: plain calls, one tensor after the other, every loss value read at once.

The model is built with `config.REFERENCE` execution; only its modules are used here, not its way through them. Written
from the paper's formulas in float32.
"""
from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.speed.bench_sharing import norms_one_by_one
from tcn.batches import PairBatch
from tcn.config import Config, Modality
from tcn.method import TcnModel


def plain_losses(model: TcnModel, batch: PairBatch, config: Config, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The paper's five terms of one batch, as scalars: two encoders, one shared embedding, hinge-free semantic metric."""
    network = model.network
    sketch = network.embedding(Modality.SKETCH)(network.encoders.sketch(batch.sketches), Modality.SKETCH)
    photo = network.embedding(Modality.PHOTO)(network.encoders.photo(batch.photos), Modality.PHOTO)
    head = network.embedding(Modality.PHOTO).class_head
    with torch.no_grad():
        teacher = F.softmax(F.linear(model.teacher.backbone(batch.photos), model.teacher.weight, model.teacher.bias), dim=1)
    student = F.log_softmax(network.embedding(Modality.PHOTO).distillation_head(photo), dim=1)
    features = torch.cat([sketch, photo])
    labels = torch.cat([batch.labels, batch.labels])
    anchors = model.word_projection(model.words[batch.labels])
    alpha = torch.rand(len(labels), generator=generator).to(features)[:, None]
    mixed = alpha * torch.cat([anchors, anchors]) + (1 - alpha) * features
    distances = torch.sqrt(((mixed[:, None] - features[None]) ** 2 + 1e-16).sum(2))
    same = labels[:, None] == labels[None]
    others = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    furthest = (distances * others).max(1)[0]
    nearest = (distances + 1e9 * same).min(1)[0]
    shares = F.softmax(head(mixed), dim=1)
    entropy = -(shares * torch.log(shares)).sum(1)
    return {"class_sketch": F.cross_entropy(head(sketch), batch.labels),
            "class_photo": F.cross_entropy(head(photo), batch.labels),
            "distillation": -(teacher * student).sum(1).mean(),
            "sharing": norms_one_by_one(network.soft_pairs()),
            "semantic": (F.softplus(furthest - nearest) * (1 + torch.exp(-entropy))).mean()}


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: PairBatch, config: Config, generator: torch.Generator
               ) -> dict[str, float]:
    """One update; the mean loss terms and the total, as numbers."""
    terms = plain_losses(model, batch, config, generator)
    weights = config.losses
    total = sum(getattr(weights, name) * value for name, value in terms.items())
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return {name: value.item() for name, value in {**terms, "total": total}.items()}
