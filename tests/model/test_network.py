"""Backbones, coupling and embedding: what is shared, what is tied, where it starts."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from support.small_models import tiny_backbone
from torch import nn
from torchvision import models

from tcn.config import PARTS, Config, Coupling, InputError, Modality, change
from tcn.model import backbones
from tcn.model.backbones import Backbone, Classifier, Teacher
from tcn.model.coupling import BATCH_NORMS, CoupledEncoders
from tcn.model.embedding import DrawnDropout, Embedding, ModalityBatchNorm, svd_start
from tcn.model.network import CoupledNetwork


def coupling(convolutions: str, **rest) -> Coupling:
    return Coupling(**dict.fromkeys(PARTS, convolutions), **rest)


HARD = {"batch_norm_affine": "hard", "batch_norm_statistics": "hard"}


def test_soft_coupling_has_two_sets_from_one_start_and_ties_convolutions_only():
    encoders = CoupledEncoders(tiny_backbone(), coupling("soft"))
    pairs = encoders.soft_pairs()
    assert len(pairs) == 10 and all(s is not p and torch.equal(s, p) for s, p in pairs)


def test_each_part_can_be_coupled_on_its_own():
    for part in PARTS:
        encoders = CoupledEncoders(tiny_backbone(), Coupling(**dict.fromkeys(PARTS, "none") | {part: "hard"}))
        index = PARTS.index(part)
        for i in range(5):
            same = encoders.sketch.trunk.blocks[i][0].weight is encoders.photo.trunk.blocks[i][0].weight
            assert same == (i == index)
            assert encoders.sketch.trunk.blocks[i][1].weight is not encoders.photo.trunk.blocks[i][1].weight


def test_shared_batch_norm_means_one_affine_and_one_set_of_statistics_also_after_moving():
    encoders = CoupledEncoders(tiny_backbone(), coupling("soft", **HARD)).to(torch.float64)
    encoders.to(memory_format=torch.channels_last)
    for s, p in zip(encoders.sketch.modules(), encoders.photo.modules()):
        if isinstance(s, BATCH_NORMS):
            assert s.weight is p.weight and s.running_mean is p.running_mean
    encoders.encode(torch.randn(4, 3, 8, 8, dtype=torch.float64), Modality.SKETCH)
    first = encoders.photo.trunk.blocks[0][1].running_mean.clone()
    encoders.encode(torch.randn(4, 3, 8, 8, dtype=torch.float64) + 5, Modality.PHOTO)
    assert not torch.equal(first, encoders.sketch.trunk.blocks[0][1].running_mean)


def test_independent_statistics_stay_apart():
    encoders = CoupledEncoders(tiny_backbone(), coupling("none"))
    before = encoders.photo.trunk.blocks[0][1].running_mean.clone()
    encoders.encode(torch.randn(4, 3, 8, 8), Modality.SKETCH)
    assert torch.equal(before, encoders.photo.trunk.blocks[0][1].running_mean)


def test_joint_call_normalises_both_modalities_together_and_separate_does_not():
    sketches, photos = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8) + 3
    joint = CoupledEncoders(tiny_backbone(), coupling("hard", **HARD, call="joint"))
    apart = CoupledEncoders(tiny_backbone(), coupling("hard", **HARD))
    assert joint.photo is joint.sketch
    together = tiny_backbone()(torch.cat([sketches, photos]))
    s, p = joint.encode_pair(sketches, photos)
    torch.testing.assert_close(torch.cat([s, p]), together)
    s2, _ = apart.encode_pair(sketches, photos)
    torch.testing.assert_close(s2, tiny_backbone()(sketches))
    assert not torch.allclose(s, s2, atol=1e-3)


def test_joint_call_needs_a_wholly_shared_encoder():
    with pytest.raises(InputError, match="joint"):
        change(Config(), {"coupling.call": "joint"})


@pytest.mark.parametrize("name", sorted(backbones.SOURCES))
def test_parts_cover_every_parameter_once(name):
    source = backbones.SOURCES[name]
    net = source.build()
    setattr(net, source.classifier, nn.Identity())
    backbone = Backbone(net, source.cut(net), source.features)
    ours = [id(p) for modules in backbone.parts().values() for m in modules for p in m.parameters()]
    assert sorted(ours) == sorted(id(p) for p in net.parameters()) and len(set(ours)) == len(ours)
    assert backbone.eval()(torch.randn(1, 3, 64, 64)).shape == (1, source.features)


def test_lite0_weights_of_the_package_recognise_real_structure():
    encoder, classifier = backbones.build("efficientnet_lite0", "imagenet")
    torch.manual_seed(0)
    noise = torch.randn(2, 3, 64, 64)
    logits = Teacher(encoder, classifier)(noise)
    assert logits.shape == (2, 1000) and logits.isfinite().all()
    # Wrongly mapped batch-norm tensors would blow activations up or flatten them.
    assert 0.5 < logits.std(1).mean() < 5


def test_weights_file_is_read_and_named_by_content(tmp_path):
    net = models.resnet18()
    path = tmp_path / "r18.pth"
    torch.save(net.state_dict(), path)
    setting = backbones.weights_setting(path)
    encoder, classifier = backbones.build("resnet18", setting, path)
    assert torch.equal(classifier.weight, net.fc.weight) and torch.equal(encoder.trunk.conv1.weight, net.conv1.weight)
    with pytest.raises(InputError, match="planned with weights"):
        backbones.build("resnet18", "file:0", path)


def test_bad_weights_files_are_named(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match="text.pth"):
        backbones.build("resnet18", backbones.weights_setting(tmp_path / "text.pth"), tmp_path / "text.pth")
    torch.save(models.resnet18().state_dict(), tmp_path / "r18.pth")
    with pytest.raises(InputError, match="r18.pth holds the weights of resnet18"):
        backbones.build("resnet50", backbones.weights_setting(tmp_path / "r18.pth"), tmp_path / "r18.pth")
    with pytest.raises(InputError, match="missing.pth"):
        backbones.weights_setting(tmp_path / "missing.pth")
    with pytest.raises(InputError, match="unknown backbone"):
        backbones.build("vgg", "imagenet")


def test_teacher_stays_in_evaluation_mode_and_without_gradient():
    teacher = Teacher(tiny_backbone(), Classifier(torch.randn(1000, 4), torch.randn(1000)))
    parent = nn.ModuleList([teacher]).train()
    assert not any(m.training for m in parent[0].modules())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_svd_start_is_the_best_approximation_of_its_rank():
    weight = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 12))).float()
    projection, distillation = svd_start(weight, 5)
    u, s, vt = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    np.testing.assert_allclose((distillation @ projection).numpy(), (u[:, :5] * s[:5]) @ vt[:5], atol=2e-6)
    np.testing.assert_allclose((distillation.T @ distillation).numpy(), np.eye(5), atol=1e-6)
    np.testing.assert_allclose((projection @ projection.T).numpy(), np.diag(s[:5] ** 2), rtol=1e-5, atol=1e-4)
    assert projection.dtype == torch.float32
    with pytest.raises(InputError, match="13"):
        svd_start(weight, 13)


def test_an_embedding_s_random_start_leaves_the_global_stream_alone():
    classifier = Classifier(torch.randn(1000, 20), torch.randn(1000))
    state = torch.get_rng_state()
    embedding = Embedding(20, 8, 7, "shared", 0.0, classifier, 1000, 5)
    assert torch.equal(state, torch.get_rng_state())
    again = Embedding(20, 8, 7, "shared", 0.0, classifier, 1000, 5)
    assert torch.equal(embedding.class_head.weight, again.class_head.weight)


def test_modality_batch_norm_shares_affine_and_keeps_statistics_apart():
    bn = ModalityBatchNorm(3)
    assert len(list(bn.parameters())) == 2
    with torch.no_grad():
        bn.weight.fill_(2.0)
        bn.bias.fill_(-1.0)
    x, y = torch.randn(50, 3) * 3 + 1, torch.randn(50, 3) - 7
    for value, modality in ((x, Modality.SKETCH), (y, Modality.PHOTO)):
        out = bn(value, modality)
        expected = 2 * (value - value.mean(0)) / (value.var(0, unbiased=False) + 1e-5).sqrt() - 1
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    sketch, photo = bn.norms["sketch"], bn.norms["photo"]
    torch.testing.assert_close(sketch.running_mean, 0.1 * x.mean(0))
    torch.testing.assert_close(photo.running_mean, 0.1 * y.mean(0))
    with pytest.raises(InputError, match="Modality"):
        bn(x, "sketch")


def _network(**delta) -> CoupledNetwork:
    config = change(Config(), {"network.dim": 3, **delta})
    return CoupledNetwork(tiny_backbone(), Classifier(torch.randn(1000, 4), torch.randn(1000)), 6, config)


def test_network_outputs_are_named_and_shaped():
    out = _network()(torch.randn(5, 3, 8, 8), torch.randn(5, 3, 8, 8))
    assert out.sketch_features.shape == out.photo_features.shape == (5, 3)
    assert out.sketch_logits.shape == out.photo_logits.shape == (5, 6)
    assert out.photo_distillation.shape == (5, 1000)


def test_photos_are_encoded_with_the_photo_side():
    net = _network(**{"network.embedding_norm": "per_modality"}).eval()
    with torch.no_grad():
        net.embedding(Modality.PHOTO).norm.norms["photo"].running_mean.fill_(3.0)
    x = torch.randn(2, 3, 8, 8)
    difference = net.encode(x, Modality.SKETCH) - net.encode(x, Modality.PHOTO)
    torch.testing.assert_close(difference, torch.full((2, 3), 3.0 / (1 + 1e-5) ** 0.5))


def test_embedding_can_be_soft_or_independent():
    soft = _network(**{"coupling.embedding": "soft"})
    assert len(soft.soft_pairs()) == 12
    apart = _network(**{"coupling.embedding": "none"})
    assert apart.embedding(Modality.SKETCH) is not apart.embedding(Modality.PHOTO)
    assert len(apart.soft_pairs()) == 10


def test_state_of_a_hard_shared_network_loads_into_another():
    first, second = (_network(**{f"coupling.{p}": "hard" for p in PARTS},
                              **{"coupling.batch_norm_affine": "hard", "coupling.batch_norm_statistics": "hard"})
                     for _ in range(2))
    with torch.no_grad():
        for p in first.parameters():
            p.add_(1)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))



def coupled_network(**settings) -> CoupledNetwork:
    config = change(Config(), {"network.dim": 4, **{key.replace("__", "."): value for key, value in settings.items()}})
    torch.manual_seed(3)
    return CoupledNetwork(tiny_backbone(), Classifier(torch.randn(12, 4), torch.randn(12)), 5, config)


def test_a_batch_too_small_to_split_stays_whole_and_evaluation_never_splits():
    network, whole = coupled_network(network__batch_norm_split=2), coupled_network()
    whole.load_state_dict(network.state_dict())
    sketches, photos = torch.randn(3, 3, 8, 8), torch.randn(3, 3, 8, 8)
    assert torch.equal(network(sketches, photos).photo_features, whole(sketches, photos).photo_features)
    network.eval(), whole.eval()
    sketches, photos = torch.randn(8, 3, 8, 8), torch.randn(8, 3, 8, 8)
    assert torch.equal(network(sketches, photos).photo_features, whole(sketches, photos).photo_features)


def test_photos_on_the_sketch_side_take_the_photo_encoder_and_the_sketch_statistics():
    network = coupled_network(network__embedding_norm="per_modality")
    for _ in range(3):
        network(torch.randn(8, 3, 8, 8), torch.randn(8, 3, 8, 8) * 2 + 1)
    network.eval()
    with torch.no_grad():
        for parameter in network.encoders.photo.parameters():
            parameter.mul_(1.1)
    photos = torch.randn(6, 3, 8, 8)
    embedding = network.embedding(Modality.SKETCH)
    rows = network.encoders.photo(photos) @ embedding.projection.weight.T + embedding.projection.bias
    norm = embedding.norm.norms["sketch"]
    by_hand = (rows - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    side = network.encode(photos, Modality.PHOTO, Modality.SKETCH)
    torch.testing.assert_close(side, by_hand, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(side, network.encode(photos, Modality.PHOTO), rtol=1e-2)


def test_dropout_by_factors_drawn_before_is_the_dropout_of_one_process():
    features, layer, dropout = torch.randn(5, 8), nn.Linear(3, 8), DrawnDropout(0.4)
    torch.manual_seed(3)
    expected = nn.functional.dropout(features, 0.4)
    torch.manual_seed(3)
    dropout.waiting.append(dropout.draw(5, layer))
    assert torch.equal(dropout(features), expected) and (expected == 0).any() and not dropout.waiting
    assert dropout.eval()(features) is features
