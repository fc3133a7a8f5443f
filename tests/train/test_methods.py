"""Other methods: their losses against plain loops, SAKE's gates and corrected teacher, and the plan that runs them."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_curve
from support.small_models import CPU, config, ingredients, setup
from torch import nn
from torch.nn import functional as F

import baselines
from baselines import metric_learning, sake
from benchmarks import experiments
from tcn import metrics
from tcn.config import InputError, Modality, flatten, to_dict
from tcn.data.pairs import PairBatch
from tcn.model.backbones import imagenet_names
from tcn.model.execution import place
from tcn.scoring.features import Components


def draw(rows: int = 9, dims: int = 5, classes: int = 3, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, dims, generator=g), torch.randn(rows, dims, generator=g),
            torch.randint(classes, (rows,), generator=g))


# --------------------------------------------------------------------------------------------- Siamese and triplet
def test_contrastive_is_what_a_loop_over_pairs_gives():
    sketches, photos, labels = draw()
    unit = [F.normalize(x.double()) for x in (sketches, photos)]
    expected = []
    for i, own in enumerate(labels):
        near = [math.dist(unit[0][i], unit[1][j]) ** 2 for j in range(len(labels)) if labels[j] == own]
        far = [max(0.0, 1 - math.dist(unit[0][i], unit[1][j])) ** 2 for j in range(len(labels)) if labels[j] != own]
        expected.append((np.mean(near) + np.mean(far)) / 2)
    found = metric_learning.contrastive(sketches, photos, labels)
    assert found.tolist() == pytest.approx(expected, rel=1e-5) and found.dtype == torch.float32


def test_contrastive_of_one_class_keeps_the_near_half_and_a_margin_must_be_positive():
    sketches, photos, _ = draw()
    labels = torch.zeros(len(sketches), dtype=torch.long)
    value = metric_learning.contrastive(sketches, photos, labels)
    near = 1 - (F.normalize(sketches) @ F.normalize(photos).T).mean(1)  # half of 2 - 2 cos
    assert torch.allclose(value, near, atol=1e-5)
    with pytest.raises(InputError, match="losses.margin is 0"):
        metric_learning.contrastive(sketches, photos, labels, 0.0)


@pytest.mark.parametrize("margin", [None, 0.5])
def test_triplets_across_modalities_are_what_a_loop_finds(margin):
    sketches, photos, labels = draw(seed=1)
    expected = []
    for anchors, others in ((sketches, photos), (photos, sketches)):
        for i, own in enumerate(labels):
            far = [math.dist(anchors[i].double(), others[j].double()) for j in range(len(labels)) if labels[j] == own]
            near = [math.dist(anchors[i].double(), others[j].double()) for j in range(len(labels)) if labels[j] != own]
            gap = max(far) - min(near)
            expected.append(math.log1p(math.exp(gap)) if margin is None else max(0.0, gap + margin))
    found = metric_learning.cross_modal_triplets(sketches, photos, labels, margin)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_triplets_of_one_class_are_zero_with_a_finite_gradient():
    sketches, photos, _ = draw()
    sketches.requires_grad_(True)
    value = metric_learning.cross_modal_triplets(sketches, photos, torch.zeros(len(photos), dtype=torch.long))
    value.sum().backward()
    assert not value.any() and sketches.grad.isfinite().all() and not sketches.grad.any()


@pytest.mark.parametrize("name", ["siamese", "triplet"])
def test_class_head_of_metric_learners_only_reads(name):
    """Weights of the class losses must not reach the encoder: its gradient is the metric loss's alone."""
    variant = baselines.find(name)
    grads = []
    for weight in (1.0, 50.0):
        settings = config(**variant.delta, **{"losses.class_sketch": weight, "losses.class_photo": weight})
        _, source, _ = setup(settings)
        model = variant.method.build(settings, ingredients())
        batch = next(source.epoch(0, 1, CPU))
        variant.method.losses(model, batch, settings, torch.Generator()).total().backward()
        grads.append([p.grad.clone() for p in model.encoders.parameters()])
        assert model.network.embedding(Modality.SKETCH).class_head.weight.grad.any()
    assert any(g.any() for g in grads[0]) and all(torch.equal(a, b) for a, b in zip(*grads))


# ------------------------------------------------------------------------------------------------------------ SAKE
def sake_model(**settings):
    variant = baselines.find("sake")
    return variant.method.build(config(**variant.delta, **settings), ingredients()), config(**variant.delta, **settings)


def test_gates_start_as_the_identity_and_then_hear_the_modality():
    model, settings = sake_model()
    plain = baselines.find("hws").method.build(config(**baselines.find("hws").delta), ingredients())
    images = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    model.eval(), plain.eval()
    for modality in Modality:
        assert torch.allclose(model.encode(images, modality), plain.encode(images, modality), atol=1e-6)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for gate in model.gates.gates.values():
            gate.excite.weight.copy_(torch.randn(gate.excite.weight.shape, generator=g))
            gate.squeeze.weight[:, -1] = 3.0
            gate.squeeze.bias.fill_(1.0)
    told = [model.encode_backbone(images, modality) for modality in Modality]
    assert not torch.allclose(*told)
    # a step's one batch must give each image what its own modality gives
    with model.gates.told(torch.tensor([[1.0]] * 3 + [[0.0]] * 3)):
        both = model.encoders.sketch(torch.cat([images, images]))
    assert torch.allclose(both[:3], told[0], atol=1e-5) and torch.allclose(both[3:], told[1], atol=1e-5)


def test_a_gate_by_hand():
    gate = sake.Gate(2)
    with torch.no_grad():
        gate.squeeze.weight.copy_(torch.tensor([[1.0, 0.0, 2.0]]))
        gate.squeeze.bias.zero_()
        gate.excite.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        gate.excite.bias.zero_()
    maps = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]]])  # channel means 2 and 5
    hidden = 2.0 + 2.0 * 1.0
    scales = [2 / (1 + math.exp(-hidden)), 2 / (1 + math.exp(hidden))]
    out = gate(maps, torch.tensor([[1.0]]))
    assert torch.allclose(out, maps * torch.tensor(scales)[None, :, None, None])


def test_the_teacher_is_corrected_by_the_words_of_the_photos_class():
    model, settings = sake_model()
    model.eval()
    g = torch.Generator().manual_seed(5)
    batch = PairBatch(torch.rand(4, 3, 12, 12, generator=g), torch.rand(4, 3, 12, 12, generator=g), torch.tensor([0, 1, 2, 3]))
    terms = baselines.find("sake").method.losses(model, batch, settings, torch.Generator()).terms
    given = ingredients()
    words, names = (F.normalize(x.double()) for x in (given.words, given.imagenet_words))
    logits = model.teacher(batch.photos).double() + 0.3 * torch.stack([words[i] @ names.T for i in batch.labels])
    features = model.encode(batch.photos, Modality.PHOTO)
    student = model.network.embedding(Modality.PHOTO).distillation_head(features).double()
    expected = -(logits.softmax(1) * student.log_softmax(1)).sum(1)
    assert torch.allclose(terms["distillation"].double(), expected, atol=1e-4)
    assert set(terms) == {"class_sketch", "class_photo", "distillation"}


def test_gates_are_trained_as_heads_and_saved():
    model, _ = sake_model()
    heads = {id(p) for p in model.groups()["head"]}
    assert all(id(p) in heads for p in model.gates.parameters())
    assert any(key.startswith("gates.") for key in model.state_dict())


@pytest.mark.parametrize("settings, message", [({"coupling.stem": "soft", "coupling.call": "separate"}, "one network"),
                                               ({"network.batch_norm_split": 2}, "batch_norm_split=1")])
def test_sake_refuses_what_it_cannot_be(settings, message):
    variant = baselines.find("sake")
    with pytest.raises(InputError, match=message):
        variant.method.build(config(**{**variant.delta, **settings}), ingredients())


def test_imagenet_names_have_a_committed_vector_each():
    from benchmarks.material import IMAGENET_WORDS
    from tcn.data.words import load_words

    names = imagenet_names()
    words = load_words(IMAGENET_WORDS, names)
    vectors = dict(zip(names, words.vectors))
    assert len(names) == 1000 and words.vectors.shape == (1000, 384)
    assert vectors["tiger shark"] @ vectors["great white shark"] > vectors["tiger shark"] @ vectors["toaster"] + 0.2


# ------------------------------------------------------------------------------------- frozen teacher's components
def test_components_are_the_eigenvectors_of_the_seen_covariance():
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(200, 6)) * [5, 4, 3, 0.1, 0.1, 0.1]
    found = Components.fit(seen, 3)
    values, vectors = np.linalg.eigh(np.cov(seen.T))
    projection = vectors[:, ::-1][:, :3]
    other = rng.normal(size=(10, 6))
    expected = (other - seen.mean(0)) @ projection
    assert np.allclose(np.abs(found(other)), np.abs(expected), atol=1e-4)
    with pytest.raises(InputError, match="'network.dim' is 7, and 200 features of length 6"):
        Components.fit(seen, 7)


# -------------------------------------------------------------------------------------------------- precision-recall
def test_precision_recall_equals_scikit_learns_envelope():
    rng = np.random.default_rng(2)
    query, gallery = rng.normal(size=(12, 4)), rng.normal(size=(40, 4))
    q, g = rng.integers(0, 4, 12), rng.integers(0, 4, 40)
    curves = []
    for x, own in zip(query, q):
        cosine = gallery @ x / np.linalg.norm(gallery, axis=1) / np.linalg.norm(x)
        precision, recall, _ = precision_recall_curve(g == own, cosine)
        curves.append([precision[recall >= r - 1e-12].max() if r > 0 else precision[recall > 0].max() for r in metrics.RECALLS])
    found = metrics.precision_recall(query, gallery, q, g, block=5)
    assert found == pytest.approx(np.mean(curves, 0), abs=1e-12) and (np.diff(found) <= 1e-12).all()


@pytest.mark.parametrize("metric", ("euclidean", "hamming"))
def test_precision_recall_is_that_of_every_rank_bit_for_bit(metric):
    """The formula as it is written, over all ranks of one query after the other; codes tie, and some classes have no photo."""
    rng = np.random.default_rng(5)
    query, gallery = rng.normal(size=(23, 4)), rng.normal(size=(61, 4))
    query, gallery = (query > 0, gallery > 0) if metric == "hamming" else (query, gallery)
    q, g = rng.integers(0, 7, 23), np.array([0] * 30 + [1] * 17 + [2] * 9 + [3] * 4 + [5])
    expected, counted = np.zeros(101), 0
    for row, own in zip(metrics.rank(query, gallery, len(gallery), metric), q):
        hits = g[row] == own
        if not hits.any():
            continue
        precision = hits.cumsum() / np.arange(1, len(gallery) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        needed = np.maximum(1, np.ceil(np.round(metrics.RECALLS * hits.sum(), 9)))
        expected += best[np.searchsorted(hits.cumsum(), needed)]
        counted += 1
    assert 0 < counted < 23
    for block in (None, 1, 5):
        assert np.array_equal(metrics.precision_recall(query, gallery, q, g, metric, block=block), expected / counted)


def test_precision_recall_leaves_out_queries_without_photos_and_refuses_none():
    query, gallery = np.eye(3), np.eye(3)
    with_lonely = metrics.precision_recall(query, gallery, ["a", "b", "z"], ["a", "b", "c"])
    assert with_lonely == pytest.approx(metrics.precision_recall(query[:2], gallery, ["a", "b"], ["a", "b", "c"]))
    with pytest.raises(InputError, match="no query's class has a photo"):
        metrics.precision_recall(query, gallery, ["x"] * 3, ["a", "b", "c"])


# ---------------------------------------------------------------------------------------------------------- the plan
def settings_of(profile: str, dataset: str, *variants: str) -> dict[str, dict]:
    runs = experiments.plan(experiments.PROFILES[profile], [dataset], variants, [0], {}, False)
    return {one_run.variant: flatten(to_dict(one_run.config)) for one_run in runs if one_run.split in ("1", "fixed")}


def test_relative_settings_follow_the_profile():
    for profile, dataset, rate in (("paper", "sketchy", 1e-4), ("laptop", "emoji", 3e-3)):
        found = settings_of(profile, dataset, "hws", "hws-slow")
        assert found["hws"]["training.encoder_rate"] == rate
        assert found["hws-slow"]["training.encoder_rate"] == pytest.approx(rate / 10)
        assert found["hws-slow"]["training.head_rate"] == found["hws"]["training.head_rate"]


def test_longer_features_take_the_released_dropout_where_there_is_one():
    tuberlin = settings_of("paper", "tuberlin", "tcn", "dimensions")
    assert {name: s["network.dropout"] for name, s in tuberlin.items()} == {
        "tcn": 0.5, "tcn-dim-32": 0.5, "tcn-dim-128": 0.7, "tcn-dim-256": 0.7, "tcn-dim-512": 0.7}
    assert {s["network.dropout"] for s in settings_of("paper", "sketchy", "tcn", "dimensions").values()} == {0.0}


def test_tcns_own_weight_is_not_run_twice():
    assert "tcn-weight-1" not in settings_of("laptop", "emoji", "main", "weights")
    assert "tcn-weight-1000" not in settings_of("paper", "sketchy", "main", "weights", "controls")
    assert "tcn-weight-1000" in settings_of("paper", "sketchy", "weights")
    assert "l2-sp-weight-1000" not in settings_of("paper", "sketchy", "controls")


def test_each_row_of_the_ablation_changes_what_its_name_says():
    tcn = settings_of("paper", "sketchy", "ablation")
    changed = {name: {k: v for k, v in s.items() if v != tcn["tcn"][k]} for name, s in tcn.items()}
    assert changed["tcn-no-teacher"] == {"losses.distillation": 0.0}
    assert changed["tcn-no-semantic"] == {"losses.semantic": 0.0}
    assert changed["tcn-bht"] == {"losses.semantic_form": "separate", "losses.regression": 0.0}
    assert changed["tcn-bht-sr-10"] == {"losses.semantic_form": "separate", "losses.regression": 10.0}
    assert tcn["hws-0.1-1"]["losses.class_sketch"] == 0.1 and tcn["hws-10-1"]["losses.class_sketch"] == 10.0
    assert {k for k in changed["hws-0.1-1"] if not k.startswith("coupling")} == {"losses.class_sketch", "losses.sharing"}
    assert len(tcn) == 11  # 13 rows, of which TCN heads three groups


def test_gates_are_trained_where_another_method_was_compiled_before(monkeypatch):
    """Compiled code is shared by networks of one structure in a process, and leaves hooks unguarded unless it is told."""
    compiled = nn.Module.compile
    # How code is captured and shared is what is tested, not the kernels that are made of it.
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled(self, backend="eager"))
    settings = config(**baselines.VARIANTS["sake"].delta, **{"execution.compile": "encoders"})
    torch.compiler.reset()
    try:
        for name in ("hws", "sake"):
            method = baselines.find(name).method
            model = place(method.build(settings, ingredients()), settings.execution, CPU).train()
            method.losses(model, next(iter(setup(settings)[1].epoch(0, 1, CPU))), settings, torch.Generator()).total().backward()
    finally:
        torch.compiler.reset()
    gates = dict(model.gates.named_parameters())
    assert gates and all(p.grad is not None for p in gates.values())
    # A gate's last layer starts with zeros, and its one hidden unit may be off: its shift is what certainly learns.
    assert all(p.grad.abs().sum() > 0 for n, p in gates.items() if n.endswith("excite.bias"))
