"""Losses against naive loops and closed forms written out here."""
from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from tcn import losses
from tcn.config import InputError


def _naive_metric(features, anchors, labels, classify, margin):
    """One row at a time, in float64, straight from the definition."""
    rows = []
    for i in range(len(features)):
        distance = [math.sqrt(sum((float(a) - float(x)) ** 2 + 1e-16 for a, x in zip(anchors[i], features[j])))
                    for j in range(len(features))]
        positives = [d for j, d in enumerate(distance) if labels[j] == labels[i] and j != i]
        negatives = [d for j, d in enumerate(distance) if labels[j] != labels[i]]
        if not negatives:
            rows.append(0.0)
            continue
        gap = max(positives, default=0.0) - min(negatives)
        loss = math.log1p(math.exp(gap)) if margin == "soft" else max(0.0, gap + margin)
        logits = classify(anchors[i][None])[0].tolist()
        top = max(logits)
        weights = [math.exp(v - top) for v in logits]
        shares = [w / sum(weights) for w in weights]
        certainty = -sum(p * math.log(p) for p in shares if p > 0)
        rows.append(loss * (1 + math.exp(-certainty)))
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("margin", ["soft", 0.3])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0, 1, 2, 3, 4], [3, 3, 3, 3, 3], [7, 7, 7, 7, 1]])
def test_semantic_metric_is_its_definition(labels, margin):
    g = torch.Generator().manual_seed(3)
    features, words = (torch.randn(5, 4, generator=g, dtype=torch.float64) for _ in range(2))
    alpha = torch.rand(5, generator=g, dtype=torch.float64)
    head = torch.randn(4, 3, generator=g, dtype=torch.float64)
    anchors = torch.stack([a * w + (1 - a) * x for a, w, x in zip(alpha, words, features)])
    expected = _naive_metric(features, anchors, labels, lambda a: a @ head, margin)
    got = losses.semantic_metric(features, words, torch.tensor(labels), alpha, lambda a: a @ head, margin)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    expected = _naive_metric(features, features, labels, lambda a: a @ head, margin)
    got = losses.batch_hard(features, torch.tensor(labels), lambda a: a @ head, margin)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_semantic_metric_in_float32_is_within_1e5():
    g = torch.Generator().manual_seed(4)
    features = torch.randn(16, 64, generator=g) * 3
    words = torch.randn(16, 64, generator=g)
    labels = torch.randint(0, 4, (16,), generator=g)
    alpha, head = torch.rand(16, generator=g), torch.randn(64, 20, generator=g)
    anchors = (alpha[:, None] * words + (1 - alpha[:, None]) * features).double()
    expected = _naive_metric(features.double(), anchors, labels.tolist(), lambda a: a @ head.double(), "soft")
    got = losses.semantic_metric(features, words, labels, alpha, lambda a: a @ head)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-7)


def test_semantic_metric_gradient_flows_through_loss_and_weight():
    g = torch.Generator().manual_seed(5)
    features = torch.randn(6, 3, generator=g, dtype=torch.float64, requires_grad=True)
    words = torch.randn(6, 3, generator=g, dtype=torch.float64, requires_grad=True)
    alpha, head = torch.rand(6, generator=g, dtype=torch.float64), torch.randn(3, 4, generator=g, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 2, 3])
    assert torch.autograd.gradcheck(
        lambda f, w: losses.semantic_metric(f, w, labels, alpha, lambda a: a @ head), (features, words))


@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [0, 1, 2, 3], [0, 0, 0, 1]])
def test_rows_without_partner_leave_finite_gradients(labels):
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(6)).requires_grad_()
    losses.batch_hard(features, torch.tensor(labels), lambda a: a @ torch.ones(3, 2)).mean().backward()
    assert features.grad.isfinite().all()


def test_identical_features_leave_finite_gradients():
    features = torch.ones(4, 3, requires_grad=True)
    losses.batch_hard(features, torch.tensor([0, 0, 1, 1]), lambda a: a @ torch.ones(3, 2)).mean().backward()
    assert features.grad.isfinite().all()


def test_semantic_metric_refuses_wrong_shapes_and_margins():
    x = torch.randn(4, 3)
    with pytest.raises(InputError, match="word_anchors"):
        losses.semantic_metric(x, x[:2], torch.arange(4), torch.rand(4), lambda a: a)
    with pytest.raises(InputError, match="labels"):
        losses.batch_hard(x, torch.arange(3), lambda a: a)
    with pytest.raises(InputError, match="margin"):
        losses.batch_hard(x, torch.arange(4), lambda a: a, margin="hard")


def test_distillation_is_cross_entropy_with_soft_targets():
    g = torch.Generator().manual_seed(7)
    student, teacher = torch.randn(3, 10, generator=g), 4 * torch.randn(3, 10, generator=g)
    expected = []
    for s, t in zip(student.double().tolist(), teacher.double().tolist()):
        target = [math.exp(v) / sum(math.exp(u) for u in t) for v in t]
        logs = [v - math.log(sum(math.exp(u) for u in s)) for v in s]
        expected.append(-sum(p * q for p, q in zip(target, logs)))
    torch.testing.assert_close(losses.distillation(student, teacher).double(), torch.tensor(expected, dtype=torch.float64),
                               rtol=1e-5, atol=0)


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.block = nn.Sequential(nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5))
        self.bn_like_name = nn.Linear(5, 2)


def test_soft_sharing_sums_frobenius_norms_without_batch_norm():
    torch.manual_seed(0)
    a, b = _Small(), _Small()
    for module in (a, b):
        nn.init.normal_(module.block[1].weight)
    kept = ("conv.weight", "conv.bias", "block.0.weight", "bn_like_name.weight", "bn_like_name.bias")
    pa, pb = dict(a.named_parameters()), dict(b.named_parameters())
    expected = sum(math.sqrt(sum((x - y) ** 2 for x, y in zip(pa[n].flatten().tolist(), pb[n].flatten().tolist())))
                   for n in kept)
    assert losses.soft_sharing(a, b).item() == pytest.approx(expected, rel=1e-6)


def test_soft_sharing_at_equal_weights_is_zero_with_zero_gradient():
    a = _Small()
    b = copy.deepcopy(a)
    loss = losses.soft_sharing(a, b)
    loss.backward()
    assert loss.item() == 0
    assert all((p.grad == 0).all() for m in (a, b) for n, p in m.named_parameters() if "block.1" not in n)


def test_soft_sharing_gradient_is_the_unit_direction():
    a, b = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    a.weight.data, b.weight.data = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
    losses.soft_sharing(a, b).backward()
    torch.testing.assert_close(a.weight.grad, torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(b.weight.grad, -a.weight.grad)


def test_soft_sharing_refuses_different_architectures():
    with pytest.raises(InputError, match="same architecture"):
        losses.soft_sharing(nn.Linear(2, 3), nn.Linear(3, 2))


def test_semantic_regression_is_mean_squared_error():
    x, y = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    assert losses.semantic_regression(x, y).tolist() == [2.5, 8.0]
    assert losses.semantic_regression(x, y).mean().item() == nn.functional.mse_loss(x, y).item()
