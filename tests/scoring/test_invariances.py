"""What must not change, and what must not rise: properties of the public functions on drawn inputs.

Values are checked elsewhere, against oracles; here each function is checked against itself, asked differently, and
against PyTorch's and NumPy's own parts where they do the same (batch norm, singular values).
"""
from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from torch import nn

from tcn import metrics
from tcn.config import InputError, Modality
from tcn.model.embedding import ModalityBatchNorm, svd_start
from tcn.scoring.protocols import ALL, PROTOCOLS, Divisor
from tcn.scoring.scores import Scores, score
from tcn.train import losses
from tcn.train.loop import learning_rate

SEEDS = st.integers(0, 10**6)
KS = (1, 4, 11)
#: Orders of equal distances under which nothing is drawn and the gallery's order does not count.
ORDERLESS = ("best", "worst")


# ----------------------------------------------------------------------------------------------------- metrics
def drawn(seed: int, metric: str):
    """Queries, photos and labels 0-2: Gaussian features without ties, or 4-bit codes full of them."""
    generator = np.random.default_rng(seed)
    shape = (7, 4), (29, 4)
    if metric == "hamming":
        query, gallery = (generator.integers(0, 2, size).astype(bool) for size in shape)
    else:
        query, gallery = (generator.normal(size=size) for size in shape)
    labels = generator.integers(0, 3, 7), np.concatenate([np.arange(3), generator.integers(0, 4, 26)])
    return query, gallery, *labels


def assert_same(one: Scores, other: Scores, order=slice(None), sampled: bool = True) -> None:
    """Equal values of every query (`order` says where the first's queries stand in the second), equal averages.

    sampled=False leaves out what is the mean of drawn tie orders, where another query has another draw.
    """
    for name, metric in ((protocol, metric) for protocol in ALL for metric in one.metrics(protocol)):
        if not sampled and (one.error(name, metric) or other.error(name, metric)):
            continue
        np.testing.assert_allclose(other.per_query(name, metric)[order], one.per_query(name, metric), atol=1e-12,
                                   err_msg=f"{name} {metric}")
        assert other.value(name, metric) == pytest.approx(one.value(name, metric), abs=1e-12), (name, metric)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(metrics.METRICS), st.sampled_from(["expected", *ORDERLESS]))
def test_the_order_of_queries_and_photos_does_not_count(seed, metric, ties):
    query, gallery, query_labels, gallery_labels = drawn(seed, metric)
    generator = np.random.default_rng(seed)
    queries, photos = generator.permutation(7), generator.permutation(29)
    before = score(query, gallery, query_labels, gallery_labels, metric=metric, ks=KS, ties=ties)
    after = score(query[queries], gallery[photos], query_labels[queries], gallery_labels[photos], metric=metric, ks=KS,
                  ties=ties)
    assert_same(before, after, np.argsort(queries), sampled=False)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(metrics.METRICS), st.sampled_from(metrics.TIES))
def test_class_names_do_not_count(seed, metric, ties):
    query, gallery, *labels = drawn(seed, metric)
    before = score(query, gallery, *labels, metric=metric, ks=KS, ties=ties)
    names = np.array(["zèbre", "a b", "", "10"])[np.random.default_rng(seed).permutation(4)]
    numbers = np.random.default_rng(seed).permutation([-(2**62), -1, 7, 2**62])
    for new in (names, numbers):
        assert_same(before, score(query, gallery, *(new[values] for values in labels), metric=metric, ks=KS, ties=ties))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["euclidean", "cosine"]), st.sampled_from([1e-200, 1e-30, 1.0, 1e30, 1e200]))
def test_lengths_of_features_do_not_count(seed, metric, scale):
    query, gallery, *labels = drawn(seed, metric)
    generator = np.random.default_rng(seed)
    before = score(query, gallery, *labels, metric=metric, ks=KS)
    lengths = [10.0 ** generator.uniform(-9, 9, (rows, 1)) for rows in (7, 29)]
    assert_same(before, score(query * lengths[0] * scale, gallery * lengths[1], *labels, metric=metric, ks=KS))
    assert_same(before, score(query, gallery * scale, *labels, metric=metric, ks=KS))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_a_turn_of_all_features_does_not_count(seed, padded):
    query, gallery, *labels = drawn(seed, "euclidean")
    turn = ortho_group.rvs(4, random_state=seed)
    turned = [rows @ turn for rows in (query, gallery)]
    if padded:  # a dimension without anything in it
        turned = [np.pad(rows, ((0, 0), (1, 0))) for rows in turned]
    assert_same(score(query, gallery, *labels, ks=KS), score(*turned, *labels, ks=KS))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(metrics.TIES))
def test_codes_rank_as_corners_of_a_cube_do(seed, ties):
    """Hamming distance orders codes, ties included, as the Euclidean distance orders the points -1 and +1."""
    query, gallery, *labels = drawn(seed, "hamming")
    by_bits = score(query, gallery, *labels, metric="hamming", ks=KS, ties=ties)
    flips, order = np.random.default_rng(seed).integers(0, 2, 4).astype(bool), np.random.default_rng(seed).permutation(4)
    assert_same(by_bits, score((query ^ flips)[:, order], (gallery ^ flips)[:, order], *labels, metric="hamming", ks=KS,
                               ties=ties))
    # Equal values in another number format: another unstable order would be as right.
    if ties not in ("unstable-sort", "as-released"):
        corners = [np.where(rows, 1.0, -1.0) for rows in (query, gallery)]
        assert_same(by_bits, score(*corners, *labels, ks=KS, ties=ties))


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from(metrics.TIES), st.integers(1, 30))
def test_photos_listed_again_count_once_where_asked(seed, ties, copies):
    query, gallery, query_labels, gallery_labels = drawn(seed, "hamming")
    once = score(query, gallery, query_labels, gallery_labels, metric="hamming", ks=KS, ties=ties)
    listed = np.concatenate([np.arange(29), np.random.default_rng(seed).integers(0, 29, copies)])
    again = score(query, gallery[listed], query_labels, gallery_labels[listed], metric="hamming", ks=KS, ties=ties,
                  gallery_group=[f"photo {i}" for i in listed], duplicates="distinct")
    assert again.summary() == once.summary()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["euclidean", "hamming"]))
def test_inequalities_hold_under_every_order_of_ties(seed, metric):
    data = drawn(seed, metric)
    found = {ties: score(*data, metric=metric, ks=KS, ties=ties) for ties in ("worst", "expected", "best")}
    for name in ALL:
        for what in found["best"].metrics(name):
            low, middle, high = (scores.per_query(name, what) for scores in found.values())
            assert (low <= middle + 1e-12).all() and (middle <= high + 1e-12).all(), (name, what)
            assert (low >= 0).all() and (high <= 1 + 1e-12).all()
            assert found["expected"].value(name, what) <= found["expected"].ceiling(name, what) + 1e-12
    del found["expected"]  # there the interpolated kind is a mean of drawn orders, the other one exact
    for ties, scores in found.items():
        for what in ("mAP@all", *(f"mAP@{k}" for k in KS)):
            assert (scores.per_query("zse", what) >= scores.per_query("standard", what) - 1e-12).all(), (ties, what)
            np.testing.assert_array_equal(scores.per_query("released", what), scores.per_query("zse", what))
        for k in KS:
            enough = scores.relevant >= k
            for name in ("released", "zse", "standard", "cvae"):
                assert (scores.per_query(name, f"mAP@{k}") <= scores.prec[name][k] + 1e-12)[enough].all(), (ties, name, k)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["gallery-order", "expected"]))
def test_a_hit_that_moves_up_never_costs_and_a_last_miss_changes_no_map(seed, ties):
    generator = np.random.default_rng(seed)
    hits = generator.permutation(np.repeat([True, False], [4, 8]))
    up = hits.copy()
    places = np.flatnonzero(~hits[:-1] & hits[1:])
    if len(places):
        up[places[0]], up[places[0] + 1] = True, False

    def ranked(relevance):
        angles = np.linspace(0.1, 1.4, len(relevance))
        return score([[1.0, 0.0]], np.stack([np.cos(angles), np.sin(angles)], 1), [1], relevance.astype(int), ks=KS,
                     ties=ties)

    before, after, longer = ranked(hits), ranked(up), ranked(np.append(hits, False))
    for name in ALL:
        for metric in before.metrics(name):
            # a mean over the hits found can fall with a late hit more; item K + 1 is no precision
            if PROTOCOLS[name].divisor is Divisor.HITS and metric != "mAP@all":
                continue
            assert after.value(name, metric) >= before.value(name, metric) - 1e-12, (name, metric)
            assert longer.value(name, metric) == pytest.approx(before.value(name, metric)), (name, metric)


@pytest.mark.parametrize("metric", ["euclidean", "hamming"])
def test_one_class_scores_one(metric):
    query, gallery, _, _ = drawn(0, metric)
    for ties in metrics.TIES:
        scores = score(query, gallery, [5] * 7, [5] * 29, metric=metric, ks=KS, ties=ties)
        for row in scores.rows():
            assert (row["value"], row["chance"], row["ceiling"]) == pytest.approx((1, 1, 1)), (ties, row)


# ------------------------------------------------------------------------------------------------------ losses
def batch(seed: int):
    """Features, word anchors, labels, alpha and the class head's weight in float64."""
    g = torch.Generator().manual_seed(seed)
    features, words = (torch.randn(9, 5, generator=g, dtype=torch.float64) for _ in range(2))
    return (features, words, torch.randint(0, 4, (9,), generator=g), torch.rand(9, generator=g, dtype=torch.float64),
            torch.randn(5, 6, generator=g, dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["soft", 0, 0.4]))
def test_the_metric_loss_follows_rows_and_not_the_frame(seed, margin):
    features, words, labels, alpha, head = batch(seed)
    loss = losses.semantic_metric(features, words, labels, alpha, lambda a: a @ head, margin)
    mined = losses.batch_hard(features, labels, lambda a: a @ head, margin)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(losses.semantic_metric(features[order], words[order], labels[order], alpha[order],
                                                      lambda a: a @ head, margin), loss[order])
    torch.testing.assert_close(losses.batch_hard(features[order], labels[order], lambda a: a @ head, margin), mined[order])
    # other names of the classes, a turned and shifted frame, the head seeing the old one; its own classes in any order
    turn = torch.from_numpy(ortho_group.rvs(5, random_state=seed))
    renamed = torch.tensor([100, -3, 2**40, 0])[labels]

    def old_frame(a):
        return ((a - 7) @ turn.T @ head)[:, [3, 1, 0, 2, 5, 4]]

    torch.testing.assert_close(losses.semantic_metric(features @ turn + 7, words @ turn + 7, renamed, alpha, old_frame,
                                                      margin), loss)
    torch.testing.assert_close(losses.batch_hard(features @ turn + 7, renamed, old_frame, margin), mined)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_words_the_semantic_metric_is_batch_hard(seed):
    features, words, labels, alpha, head = batch(seed)
    mined = losses.batch_hard(features, labels, lambda a: a @ head)
    none = torch.zeros(9, dtype=torch.float64)
    torch.testing.assert_close(losses.semantic_metric(features, words, labels, none, lambda a: a @ head), mined)
    torch.testing.assert_close(losses.semantic_metric(features, features, labels, alpha, lambda a: a @ head), mined)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(-1e4, 1e4))
def test_distillation_is_least_at_the_teacher_and_blind_to_a_shift(seed, shift):
    g = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(6, 8, generator=g, dtype=torch.float64) for _ in range(2))
    loss = losses.distillation(student, teacher)
    torch.testing.assert_close(losses.distillation(student + shift, teacher - shift), loss, rtol=1e-9, atol=1e-9)
    order = torch.randperm(8, generator=g)
    torch.testing.assert_close(losses.distillation(student[:, order], teacher[:, order]), loss)
    least = losses.distillation(teacher, teacher)
    torch.testing.assert_close(least, losses.entropy(teacher))
    assert (loss > least).all()
    torch.testing.assert_close(loss - least, nn.functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True).sum(1))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from([1e-6, 1.0, 300.0]))
def test_the_sharing_loss_is_a_distance(seed, scale):
    torch.manual_seed(seed)
    a, b, c = (nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Linear(3, 2)) for _ in range(3))
    for module in (a, b, c):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=scale)
    ab, bc, ac = (losses.soft_sharing(*pair).item() for pair in ((a, b), (b, c), (a, c)))
    assert losses.soft_sharing(b, a).item() == ab > 0
    assert ac <= ab + bc
    half = copy.deepcopy(b)
    with torch.no_grad():
        for p, q in zip(half.parameters(), a.parameters()):
            p.lerp_(q, 0.5)
        half[1].weight.fill_(1e6)  # batch norms do not count
    assert losses.soft_sharing(a, half).item() == pytest.approx(ab / 2, rel=1e-6)


# --------------------------------------------------------------------------------------------------- embedding
@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([(6, 4), (4, 6), (10, 10), (1, 3), (12, 2)]), st.sampled_from([1e-12, 1.0, 1e12]),
       st.booleans(), st.data())
def test_svd_start_is_numpy_s_truncated_decomposition(seed, shape, scale, deficient, data):
    generator = np.random.default_rng(seed)
    rank = 1 if deficient else min(shape)
    weight = scale * generator.normal(size=(shape[0], rank)) @ generator.normal(size=(rank, shape[1]))
    dim = data.draw(st.integers(1, min(shape)))
    u, s, vt = np.linalg.svd(weight)
    for values, tolerance in ((torch.tensor(weight), 1e-10), (torch.tensor(weight, dtype=torch.float32), 1e-5)):
        projection, distillation = svd_start(values, dim)
        assert projection.shape == (dim, shape[1]) and distillation.shape == (shape[0], dim)
        assert projection.dtype == distillation.dtype == values.dtype
        product = (distillation.double() @ projection.double()).numpy()
        np.testing.assert_allclose(product, (u[:, :dim] * s[:dim]) @ vt[:dim], atol=tolerance * s[0])
        np.testing.assert_allclose((distillation.T @ distillation).double().numpy(), np.eye(dim), atol=max(tolerance, 1e-6))
        np.testing.assert_allclose(projection.double().norm(dim=1).numpy(), s[:dim], atol=tolerance * s[0])
        # the best of its rank: what is left over is what the dropped singular values say (Eckart-Young)
        left = np.linalg.norm(weight - product)
        assert left == pytest.approx(math.sqrt((s[dim:] ** 2).sum()), abs=10 * tolerance * s[0])
        # each direction and its singular vector, up to the sign they share
        for k in range(dim if not deficient else 1):
            if k + 1 < len(s) and s[k] - s[k + 1] < 1e-2 * s[0] or k and s[k - 1] - s[k] < 1e-2 * s[0]:
                continue
            sign = np.sign(distillation[:, k].double().numpy() @ u[:, k])
            np.testing.assert_allclose(distillation[:, k].numpy(), sign * u[:, k], atol=1e2 * tolerance)
            np.testing.assert_allclose(projection[k].numpy(), sign * s[k] * vt[k], atol=1e2 * tolerance * s[0])


def test_svd_start_of_a_stored_transpose_or_a_parameter_is_the_same():
    weight = torch.randn(20, 9, generator=torch.Generator().manual_seed(0))
    expected = svd_start(weight, 4)
    for other in (weight.T.contiguous().T, nn.Parameter(weight)):
        assert all(torch.equal(one, two) and not two.requires_grad for one, two in zip(expected, svd_start(other, 4)))
    for dim in (0, 10):
        with pytest.raises(InputError, match="dim"):
            svd_start(weight, dim)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 5), st.lists(st.tuples(st.sampled_from(list(Modality)), st.integers(2, 6), st.booleans()),
                                          min_size=1, max_size=8))
def test_modality_batch_norm_is_two_of_pytorch_s_with_one_affine(seed, features, calls):
    """Any sequence of calls in training or evaluation; the affine's gradients are the sum of the two sides'."""
    torch.manual_seed(seed)
    ours = ModalityBatchNorm(features)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    theirs = {modality: nn.BatchNorm1d(features) for modality in Modality}
    for norm in theirs.values():
        norm.weight.data.copy_(ours.weight.data)
        norm.bias.data.copy_(ours.bias.data)
    copied, total = copy.deepcopy(ours), [0.0, 0.0]
    for modality, rows, training in calls:
        x = torch.randn(rows, features) * 3 + (5 if modality is Modality.PHOTO else -2)
        got, expected = ours.train(training)(x, modality), theirs[modality].train(training)(x)
        assert torch.equal(got, expected)
        total = [total[0] + got.square().sum(), total[1] + expected.square().sum()]
    for loss in total:
        loss.backward()
    for name in ("weight", "bias"):
        grads = [getattr(norm, name).grad for norm in theirs.values() if getattr(norm, name).grad is not None]
        torch.testing.assert_close(getattr(ours, name).grad, sum(grads))
    for modality, norm in theirs.items():
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(getattr(ours.norms[modality.value], name), getattr(norm, name))
            assert torch.equal(getattr(copied.norms[modality.value], name), getattr(nn.BatchNorm1d(features), name))


def test_modality_batch_norm_keeps_one_affine_when_copied_moved_or_loaded():
    bn = ModalityBatchNorm(3)
    nn.init.normal_(bn.weight)
    bn(torch.randn(6, 3), Modality.SKETCH)
    loaded = ModalityBatchNorm(3)
    loaded.load_state_dict(bn.state_dict())
    assigned = ModalityBatchNorm(3)
    assigned.load_state_dict(bn.state_dict(), assign=True)
    for other in (copy.deepcopy(bn), loaded, assigned, ModalityBatchNorm(3).double().float(),
                  ModalityBatchNorm(3).half().to("cpu"), ModalityBatchNorm(3).to_empty(device="cpu")):
        sides = [other.norms[modality.value] for modality in Modality]
        assert sides[0].weight is sides[1].weight and sides[0].bias is sides[1].bias
        assert len(list(other.parameters())) == 2
        torch.optim.SGD(other.parameters(), lr=0.1)  # no tensor twice
        assert sides[0].running_mean is not sides[1].running_mean
    x = torch.randn(4, 3)
    for modality in Modality:
        assert torch.equal(loaded.eval()(x, modality), bn.eval()(x, modality))
    assert not torch.equal(bn(x, Modality.SKETCH), bn(x, Modality.PHOTO))


@pytest.mark.parametrize("weight", [torch.full((4, 3), torch.nan), torch.ones(4, 3, dtype=torch.int64),
                                    torch.ones(4, 3, dtype=torch.complex64), torch.ones(4)])
def test_svd_start_refuses_what_is_no_classifier(weight):
    with pytest.raises(InputError, match="teacher_weight"):
        svd_start(weight, 2)


# ---------------------------------------------------------------------------------------------------- schedule
@pytest.mark.parametrize("epochs", [0, -3])
def test_a_schedule_needs_an_epoch(epochs):
    with pytest.raises(InputError, match="epochs"):
        learning_rate(0, epochs, 1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.data(), st.floats(1e-8, 10))
def test_learning_rate_falls_by_one_ratio_each_epoch_to_the_root_of_a_thousandth(epochs, data, base):
    epoch = data.draw(st.integers(0, epochs - 1))
    here, following = (learning_rate(e, epochs, base) for e in (epoch, epoch + 1))
    assert learning_rate(0, epochs, base) == base
    assert following / here == pytest.approx(10 ** (-1.5 / epochs), rel=1e-12)
    assert learning_rate(epochs, epochs, base) == pytest.approx(base * math.sqrt(0.001), rel=1e-12)
    assert learning_rate(epoch, epochs, base) == pytest.approx(base * 1000 ** (-epoch / epochs / 2), rel=1e-12)
