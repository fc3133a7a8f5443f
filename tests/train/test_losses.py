"""Losses against naive loops and closed forms written out here."""
from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tcn.config import InputError
from tcn.train import losses


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
        loss = float(np.logaddexp(0, gap)) if margin == "soft" else max(0.0, gap + margin)
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


LABELS = st.lists(st.sampled_from([-5, 0, 3, 2**40]), min_size=1, max_size=7)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 10**6), LABELS, st.integers(1, 6), st.sampled_from([1e-9, 1e-4, 1.0, 30.0, 1e4]),
       st.sampled_from(["soft", 0, 0.2, 1, 50.0]), st.sampled_from([0.0, 1.0, None]), st.booleans())
def test_semantic_metric_in_float32_is_within_1e5(seed, labels, width, scale, margin, alpha, copies):
    """Rows of any size, copies among them, words alone, features alone or both: the oracle sees the same float32."""
    g = torch.Generator().manual_seed(seed)
    rows = len(labels)
    features = torch.randn(rows, width, generator=g) * scale
    if copies:
        features = features[torch.randint(0, rows, (rows,), generator=g)]
    words, head = torch.randn(rows, width, generator=g) * scale, torch.randn(width, 4, generator=g)
    alpha = torch.rand(rows, generator=g) if alpha is None else torch.full((rows,), alpha)
    anchors = alpha.double()[:, None] * words.double() + (1 - alpha.double())[:, None] * features.double()

    def classify(points):
        return (points.double() @ head.double()).to(points.dtype)

    for got, oracle in (
        (losses.semantic_metric(features, words, torch.tensor(labels), alpha, classify, margin), anchors),
        (losses.batch_hard(features, torch.tensor(labels), classify, margin), features.double()),
    ):
        # the class head itself sees rounded anchors and gives rounded logits, which count only where they are large
        expected = _naive_metric(features.double(), oracle, labels, lambda a: classify(a.float()), margin)
        assert got.dtype == torch.float32 and got.shape == (rows,)
        torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind,tolerance", [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float64, 1e-9)])
def test_semantic_metric_takes_other_float_types(kind, tolerance):
    """Only the inputs' own rounding counts: 1e-16 under the root survives half precision, so does the gradient."""
    g = torch.Generator().manual_seed(4)
    features = torch.randn(8, 16, generator=g).to(kind)
    features[1] = features[0]
    features.requires_grad_()
    words, head = torch.randn(8, 16, generator=g).to(kind), torch.randn(16, 5, generator=g).to(kind)
    labels, alpha = torch.tensor([0, 0, 1, 1, 2, 2, 2, 5], dtype=torch.int32), torch.rand(8, generator=g)
    alpha[:2] = 0
    wide = [t.detach().double() for t in (features, words, alpha)]
    anchors = wide[2][:, None] * wide[1] + (1 - wide[2][:, None]) * wide[0]
    expected = _naive_metric(wide[0], anchors, labels.tolist(), lambda a: a @ head.double(), "soft")
    got = losses.semantic_metric(features, words, labels, alpha, lambda a: a @ head)
    assert got.dtype == (torch.float64 if kind == torch.float64 else torch.float32)
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=0)
    got.mean().backward()
    assert features.grad.dtype == kind and features.grad.isfinite().all()


def test_rows_that_are_not_contiguous_in_memory_are_the_same_rows():
    g = torch.Generator().manual_seed(8)
    features, words = torch.randn(5, 12, generator=g).t(), torch.randn(24, 5, generator=g)[::2]
    labels, alpha = torch.tensor([0, 9, 1, 9] * 6)[::2], torch.rand(24, generator=g)[::2]
    given_so = losses.semantic_metric(features, words, labels, alpha, lambda a: a)
    copied = losses.semantic_metric(*(t.contiguous() for t in (features, words, labels, alpha)), lambda a: a)
    assert torch.equal(given_so, copied)


def test_a_triangle_worked_by_hand():
    # rows at 0, 3 (same class) and 4 on a line; word anchors double them; alpha 1/2, so anchors at 0, 4.5 and 6
    features, words = torch.tensor([[0.0], [3.0], [4.0]]), torch.tensor([[0.0], [6.0], [8.0]])
    labels, alpha = torch.tensor([1, 1, 2]), torch.full((3,), 0.5)
    sure = 1 + math.exp(-math.log(2))  # two classes, equal logits: entropy log 2
    # p - n: 3 - 4; 4.5 - 0.5; no positive: 0 - 3
    got = losses.semantic_metric(features, words, labels, alpha, lambda a: torch.zeros(3, 2), margin=2)
    assert got.tolist() == pytest.approx([1 * sure, 6 * sure, 0.0])
    got = losses.semantic_metric(features, words, labels, alpha, lambda a: torch.zeros(3, 2))
    assert got.tolist() == pytest.approx([math.log(1 + math.exp(gap)) * sure for gap in (-1, 4, -3)])
    # mined on the rows themselves: 3 - 4; 3 - 1; 0 - 1
    got = losses.batch_hard(features, labels, lambda a: torch.zeros(3, 2), margin=2)
    assert got.tolist() == pytest.approx([1 * sure, 4 * sure, 1 * sure])


@pytest.mark.parametrize("logits", [[1e4, -1e4, 0.0], [3e38, -3e38, 0.0], [0.0, -math.inf, 0.0], [0.0, -math.inf, -math.inf]])
def test_certain_heads_give_a_weight_and_a_gradient(logits):
    """exp(-entropy) is 1 where one class has all the share, 1/2 where two have half each."""
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]], requires_grad=True)
    fixed = torch.tensor([logits] * 3)
    got = losses.batch_hard(features, torch.tensor([0, 0, 1]), lambda a: fixed + 0 * a.sum(1, keepdim=True), margin=9)
    weight = 1 + (0.5 if logits == [0.0, -math.inf, 0.0] else 1.0)
    assert got.tolist() == pytest.approx([weight * (1 - 3 + 9), weight * (1 - 2 + 9), weight * (0 - 2 + 9)])
    got.sum().backward()
    assert features.grad.isfinite().all()


def test_semantic_metric_gradient_flows_through_loss_and_weight():
    g = torch.Generator().manual_seed(5)
    features = torch.randn(6, 3, generator=g, dtype=torch.float64, requires_grad=True)
    words = torch.randn(6, 3, generator=g, dtype=torch.float64, requires_grad=True)
    alpha, head = torch.rand(6, generator=g, dtype=torch.float64), torch.randn(3, 4, generator=g, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 2, 3])
    assert torch.autograd.gradcheck(
        lambda f, w: losses.semantic_metric(f, w, labels, alpha, lambda a: a @ head), (features, words))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["soft", 0.7]), LABELS)
def test_gradients_are_finite_differences(seed, margin, labels):
    g = torch.Generator().manual_seed(seed)
    rows = len(labels)
    features, words = (torch.randn(rows, 3, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2))
    alpha, head = (torch.rand(shape, generator=g, dtype=torch.float64, requires_grad=True) for shape in ((rows,), (3, 4)))
    # a hinge or the choice of the hardest row has a kink: a step of 1e-7 hardly ever meets one
    assert torch.autograd.gradcheck(
        lambda f, w, a, h: losses.semantic_metric(f, w, torch.tensor(labels), a, lambda x: x @ h, margin),
        (features, words, alpha, head), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradcheck(
        lambda f, h: losses.batch_hard(f, torch.tensor(labels), lambda x: x @ h, margin), (features, head),
        eps=1e-7, atol=1e-5)


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
    for margin in ("hard", "0.3", math.nan):
        with pytest.raises(InputError, match="margin"):
            losses.batch_hard(x, torch.arange(4), lambda a: a, margin=margin)
    with pytest.raises(InputError, match="alpha"):
        losses.semantic_metric(x, x, torch.arange(4), torch.rand(4, 1), lambda a: a)
    with pytest.raises(InputError, match="at least 1"):
        losses.batch_hard(x[:0], torch.arange(0), lambda a: a)


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


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([0.0, 1.0, 30.0, 1e4, 1e30]),
       st.sampled_from([0.0, 1.0, 30.0, 1e4, 1e30]))
def test_distillation_of_any_logits(seed, classes, student_scale, teacher_scale):
    g = np.random.default_rng(seed)
    student, teacher = ((g.normal(size=(4, classes)) * scale).astype(np.float32) for scale in (student_scale, teacher_scale))
    expected = []
    for s, t in zip(student.astype(float), teacher.astype(float)):
        shares = np.exp(t - t.max()) / np.exp(t - t.max()).sum()
        rest = np.exp(np.delete(s, s.argmax()) - s.max()).sum()  # log1p keeps what a confident student leaves over
        logs = s - s.max() - np.log1p(rest)
        expected.append(-sum(p * q for p, q in zip(shares, logs) if p > 0))
    got = losses.distillation(torch.from_numpy(student), torch.from_numpy(teacher))
    assert got.dtype == torch.float32
    # where student and teacher both leave less than 1e-12 over, float64 itself rounds the rest away
    np.testing.assert_allclose(got.double().numpy(), expected, rtol=1e-6, atol=1e-12)


def test_distillation_where_a_class_is_ruled_out():
    student = torch.tensor([[0.0, -math.inf, 0.0]], requires_grad=True)
    loss = losses.distillation(student, torch.tensor([[1.0, -math.inf, 1.0]]))
    assert loss.item() == pytest.approx(math.log(2))
    loss.sum().backward()
    assert student.grad.isfinite().all()
    with pytest.raises(InputError, match="student_logits"):
        losses.distillation(torch.zeros(2, 3), torch.zeros(2, 4))


def test_distillation_gradient_is_the_difference_of_the_shares():
    g = torch.Generator().manual_seed(9)
    student, teacher = torch.randn(3, 6, generator=g, requires_grad=True), torch.randn(3, 6, generator=g)
    losses.distillation(student, teacher).sum().backward()
    torch.testing.assert_close(student.grad, student.detach().softmax(1) - teacher.softmax(1), rtol=1e-5, atol=1e-7)


def test_classification_takes_labels_of_any_whole_type():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    expected = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(1))]
    for kind in (torch.int64, torch.int32, torch.uint8):
        assert losses.classification(logits, torch.tensor([0, 0], dtype=kind)).tolist() == pytest.approx(expected)


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


class _Everything(nn.Module):
    """Norms of every kind, lists of parameters, one tensor in two places, a buffer, an empty and an absent parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = nn.ModuleList([nn.BatchNorm1d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)])
        self.others = nn.ModuleList([nn.LayerNorm(3), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2, affine=True)])
        self.listed = nn.ParameterList([nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))])
        self.named = nn.ParameterDict({"a": nn.Parameter(torch.zeros(()))})
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.twice = self.first
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.register_parameter("absent", None)
        self.register_buffer("buffer", torch.randn(5))
        self.fixed = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
        for parameter in self.parameters():
            nn.init.normal_(parameter)


def test_soft_sharing_counts_each_tensor_once_and_every_norm_but_batch_norm():
    torch.manual_seed(1)
    a, b = _Everything(), _Everything()
    skipped = {name for name, _ in a.named_parameters() if name.startswith("batch.")}
    assert len(skipped) == 6
    others = dict(b.named_parameters())
    expected = sum(float(np.linalg.norm((p - others[name]).detach().double().numpy()))
                   for name, p in a.named_parameters() if name not in skipped)
    assert losses.soft_sharing(a, b).item() == pytest.approx(expected, rel=1e-6)
    assert losses.soft_sharing(nn.DataParallel(a), b).item() == pytest.approx(expected, rel=1e-6)
    assert losses.soft_sharing(a.double(), b.double()).item() == pytest.approx(expected, rel=1e-6)


def test_soft_sharing_of_batch_norms_alone_is_zero():
    a, b = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    nn.init.normal_(a[0].weight)
    assert losses.soft_sharing(a, b).item() == 0


@pytest.mark.parametrize("difference", [0.1, 1e-12, 1e25])
def test_soft_sharing_of_a_large_convolution_keeps_its_digits(difference):
    """ResNet-50's largest tensor: 512 x 512 x 3 x 3, each entry off by the same: sqrt(number) times that."""
    a, b = nn.Conv2d(512, 512, 3, bias=False), nn.Conv2d(512, 512, 3, bias=False)
    a.weight.data.fill_(difference)
    b.weight.data.zero_()
    loss = losses.soft_sharing(a, b)
    entry = a.weight[0, 0, 0, 0].item()
    assert loss.item() == pytest.approx(entry * math.sqrt(a.weight.numel()), rel=2e-7)
    loss.backward()
    torch.testing.assert_close(a.weight.grad, torch.full_like(a.weight, 1 / math.sqrt(a.weight.numel())))


def test_soft_sharing_where_some_tensors_are_equal():
    a = _Small()
    b = copy.deepcopy(a)
    b.bn_like_name.bias.data[0] += 2
    loss = losses.soft_sharing(a, b)
    loss.backward()
    assert loss.item() == pytest.approx(2, rel=1e-6)
    assert a.bn_like_name.bias.grad.tolist() == [-1.0, 0.0] and b.bn_like_name.bias.grad.tolist() == [1.0, 0.0]
    assert all((p.grad == 0).all() for m in (a, b) for n, p in m.named_parameters()
               if "block.1" not in n and n != "bn_like_name.bias")


def test_soft_sharing_in_half_precision_is_summed_in_more():
    a, b = nn.Linear(300, 300, bias=False).half(), nn.Linear(300, 300, bias=False).half()
    a.weight.data.fill_(300.0)
    b.weight.data.fill_(-300.0)
    assert losses.soft_sharing(a, b).item() == pytest.approx(600 * 300)  # beyond float16's 65,504


def test_soft_sharing_gradient_is_finite_differences():
    a, b = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()

    def value(weight, bias):
        return sum(losses.sharing_norms([(weight, b.weight), (bias, b.bias)]))

    assert torch.autograd.gradcheck(value, (a.weight, a.bias))


def test_soft_sharing_refuses_different_architectures():
    with pytest.raises(InputError, match="same architecture"):
        losses.soft_sharing(nn.Linear(2, 3), nn.Linear(3, 2))
    with pytest.raises(InputError, match="same architecture"):
        losses.soft_sharing(nn.Linear(2, 3), nn.Linear(2, 3, bias=False))
    with pytest.raises(InputError, match="lazy"):
        losses.soft_sharing(nn.LazyLinear(3), nn.LazyLinear(3))


def test_semantic_regression_is_mean_squared_error():
    x, y = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    assert losses.semantic_regression(x, y).tolist() == [2.5, 8.0]
    assert losses.semantic_regression(x, y).mean().item() == nn.functional.mse_loss(x, y).item()
