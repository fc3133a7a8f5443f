"""Any model of timm or torchvision as an encoder: cut, normalised, coupled and loaded as the libraries themselves have it."""
from __future__ import annotations

import math

import huggingface_hub
import pytest
import timm
import timm.data
import timm.layers
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.transforms.functional import normalize

from tcn.config import PARTS, REFERENCE, Coupling, Execution, InputError, Modality
from tcn.data.augment import to_network
from tcn.model import backbones, weight_files
from tcn.model.backbones import Backbone, Teacher
from tcn.model.coupling import CoupledEncoders
from tcn.train.losses import sharing_norms

SIZE = 64
TIMM = ("test_vit", "test_convnext", "test_efficientnet", "test_resnet", "regnetx_002")


def vit() -> Backbone:
    torch.manual_seed(0)
    return backbones.untrained("timm:test_vit")[0]


def saved(net: nn.Module, file) -> tuple[str, object]:
    """A network with statistics other than those of the start, its weights in a file; the setting that names it, and the file."""
    generator = torch.Generator().manual_seed(1)
    state = {name: value + 0.1 * torch.rand(value.shape, generator=generator) if value.dim() == 1 else value
             for name, value in net.state_dict().items()}
    net.load_state_dict(state)
    net.eval()
    torch.save(state, file)
    return backbones.weights_setting(file), file


def pictures(count: int = 3, size: int = SIZE) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2)) * 255


@pytest.mark.parametrize("model", TIMM)
def test_features_and_logits_are_those_of_timm_s_own_pass_on_images_normalised_as_it_was_trained(model, tmp_path):
    net = timm.create_model(model, **({"dynamic_img_size": True} if "vit" in model else {}))
    setting, file = saved(net, tmp_path / "w.pth")
    config = timm.data.resolve_data_config({}, model=net)
    grey = pictures()
    theirs = normalize(grey / 255, config["mean"], config["std"])
    encoder, classifier = backbones.build(f"timm:{model}", setting, file)
    ours = to_network(grey, SIZE)  # as every method gets images
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(theirs), pre_logits=True)
        torch.testing.assert_close(encoder.eval()(ours), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(Teacher(encoder, classifier, REFERENCE)(ours), net(theirs), rtol=1e-4, atol=1e-3)
    assert encoder.features == expected.shape[1]


@pytest.mark.parametrize(("model", "last"),
                         [("resnet18", "fc"), ("regnet_x_400mf", "fc"), ("mobilenet_v3_small", "classifier.3")])
def test_features_are_what_torchvision_s_own_model_classifies(model, last, tmp_path):
    net = models.get_model(model, weights=None)
    setting, file = saved(net, tmp_path / "w.pth")
    seen = []
    net.get_submodule(last).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ours = to_network(pictures(), SIZE)
    encoder = backbones.encoder(f"torchvision:{model}", setting, file)
    with torch.no_grad():
        net(ours)  # ImageNet's mean and deviation are its own
        torch.testing.assert_close(encoder.eval()(ours), seen[0], rtol=1e-4, atol=1e-4)


EXPECTED = {
    "timm:test_vit": {"stem": {"cls_token", "pos_embed", "patch_embed"}, "stage1": {"blocks.0"},
                      "stage2": {"blocks.1", "blocks.2"}, "stage3": {"blocks.3"}, "stage4": {"blocks.4", "blocks.5", "norm"}},
    "timm:test_convnext": {"stem": {"stem"}, **{f"stage{k + 1}": {f"stages.{k}"} for k in range(3)},
                           "stage4": {"stages.3", "head"}},
    "timm:regnetx_002": {"stem": {"stem"}, **{f"stage{k}": {f"s{k}"} for k in (1, 2, 3, 4)}},
    "timm:test_efficientnet": {"stem": {"conv_stem", "bn1", "blocks.0"}, **{f"stage{k}": {f"blocks.{k}"} for k in (1, 2, 3)},
                               "stage4": {"blocks.4", "conv_head", "bn2"}},
    "torchvision:resnet18": {"stem": {"conv1", "bn1"}, **{f"stage{k}": {f"layer{k}"} for k in (1, 2, 3, 4)}},
    "torchvision:regnet_x_400mf": {"stem": {"stem"}, **{f"stage{k}": {f"trunk_output.block{k}"} for k in (1, 2, 3, 4)}},
    "torchvision:convnext_tiny": {"stem": {"features.0"}, "stage1": {"features.1", "features.2.0"},
                                  "stage2": {"features.2.1", "features.3", "features.4.0"},
                                  "stage3": {"features.4.1", "features.5", "features.6.0"},
                                  "stage4": {"features.6.1", "features.7", "classifier"}},
    "torchvision:vit_b_16": {"stem": {"class_token", "encoder.pos_embedding", "conv_proj"},
                             **{f"stage{k + 1}": {f"encoder.layers.encoder_layer_{3 * k + i}" for i in range(3)}
                                for k in range(3)},
                             "stage4": {*(f"encoder.layers.encoder_layer_{i}" for i in (9, 10, 11)), "encoder.ln"}},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_parameter_is_in_the_part_that_its_name_says(name):
    with torch.device("meta"):  # contents play no role
        source = backbones.source(name)
        net = source.build() if "regnet_x" not in name else None
    encoder = backbones.untrained(name)[0] if net is None else backbones._without_classifier(net, source)[0]
    owners = {id(module): path for path, module in encoder.trunk.named_modules()}
    found = {f"{owners[id(module)]}.{tensor}".removeprefix("."): part for part, module, tensor in encoder.tensors()}
    assert found.keys() == {path for path, _ in encoder.trunk.named_parameters()}
    for path, part in found.items():
        fitting = {p for p, starts in EXPECTED[name].items() for start in starts if f"{path}.".startswith(f"{start}.")}
        assert fitting == {part}, path
    assert set(found.values()) == set(PARTS)


def is_layer_norm(path: str) -> bool:
    return "norm" in path


def test_without_batch_norms_the_soft_penalty_leaves_layer_norms_out_and_is_the_naive_sum_over_names():
    encoders = CoupledEncoders(vit(), Coupling())
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in encoders.photo.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    sketch, photo = (dict(side.named_parameters()) for side in (encoders.sketch, encoders.photo))
    naive = sum(math.sqrt(sum(v * v for v in (sketch[name] - photo[name]).flatten().tolist())) for name in sketch
                if not is_layer_norm(name))
    assert 20 < len([name for name in sketch if is_layer_norm(name)]) < len(sketch)
    assert sharing_norms(encoders.soft_pairs(), "fused").sum().item() == pytest.approx(naive, rel=1e-5)


@pytest.mark.parametrize("norms", ["hard", "none", "soft"])
def test_layer_norms_follow_the_setting_of_batch_norms_and_all_else_that_of_its_part(norms):
    encoders = CoupledEncoders(vit(), Coupling(**dict.fromkeys(PARTS, "hard"), batch_norm_affine=norms))
    sketch, photo = (dict(side.trunk.named_parameters()) for side in (encoders.sketch, encoders.photo))
    for name in sketch:
        assert (sketch[name] is photo[name]) == (norms == "hard" or not is_layer_norm(name)), name
    assert len(encoders.soft_pairs()) == (sum(map(is_layer_norm, sketch)) if norms == "soft" else 0)


def test_tokens_and_positions_belong_to_the_stem():
    encoders = CoupledEncoders(vit(), Coupling(**dict.fromkeys(PARTS, "none") | {"stem": "hard"}))
    sketch, photo = (dict(side.trunk.named_parameters()) for side in (encoders.sketch, encoders.photo))
    shared = {name for name in sketch if sketch[name] is photo[name]}
    assert shared == {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_where_there_are_batch_norms_layer_norms_are_parameters_like_others():
    with torch.random.fork_rng():
        encoders = CoupledEncoders(backbones.untrained("timm:test_maxvit")[0], Coupling())
    kinds = {type(module).__name__ for _, module, _, _ in encoders.tensors() if encoders.is_norm(module)}
    others = {type(module).__name__ for _, module, _, _ in encoders.tensors() if not encoders.is_norm(module)}
    assert kinds == {"BatchNormAct2d"} and any(name.startswith("LayerNorm") for name in others)


def test_a_pair_starts_alike_and_each_side_takes_its_own_gradient():
    encoders = CoupledEncoders(vit(), Coupling())
    images = to_network(pictures(), SIZE)
    a, b = (encoders.encode(images, modality) for modality in Modality)
    torch.testing.assert_close(a, b)
    a.sum().backward()
    assert encoders.sketch.trunk.pos_embed.grad is not None and encoders.photo.trunk.pos_embed.grad is None


# --- sizes, names, weights ------------------------------------------------------------------------------------------

def test_a_size_that_an_encoder_does_not_take_is_named_with_its_own():
    backbones.check_size("timm:vit_small_patch14_dinov2.lvd142m", 224)  # positions are interpolated
    with pytest.raises(InputError, match=r"64 pixels.*trained at 518.*data.image_size=518"):
        backbones.check_size("timm:vit_small_patch14_dinov2.lvd142m", 64)
    with pytest.raises(InputError, match=r"vit_b_16 does not take images of 64 pixels.*data.image_size=224"):
        backbones.check_size("torchvision:vit_b_16", 64)
    backbones.check_size("resnet50", 37)


@pytest.mark.parametrize(("name", "words"), [
    ("timm:test_vid", ("no model 'test_vid'", "test_vit")), ("torchvision:resnet51", ("no model 'resnet51'", "resnet50")),
    ("timm:vit_small_patch16_224.bogus", ("bogus", "vit_small_patch16_224.augreg_in1k")),
    ("torchvision:resnet50.V7", ("IMAGENET1K_V1, IMAGENET1K_V2",)), ("timm:levit_128s", ("3 stages", "needs 4")),
    ("torchvision:squeezenet1_0", ("not a linear layer",)), ("vit_tiny", ("timm:NAME or torchvision:NAME", "docs/encoders.md"))])
def test_a_name_that_can_t_be_used_gives_one_line(name, words):
    with pytest.raises(InputError) as caught:
        backbones.source(name)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), str(caught.value)


def test_weights_that_can_t_be_fetched_are_one_line_with_the_file_the_hub_s_name_and_the_option(monkeypatch, tmp_path):
    asked = []

    def unreachable(url, **_):
        asked.append(url)
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(InputError) as caught:
        backbones.encoder("timm:test_vit", "imagenet")
    said = str(caught.value)
    assert len(asked) == 1 and asked[0] in said and "timm/test_vit.r160_in1k" in said and "--weights timm:test_vit=FILE" in said
    assert "\n" not in said
    with pytest.raises(InputError, match="publishes no weights of timm:test_maxvit; pass --weights timm:test_maxvit=FILE"):
        backbones.encoder("timm:test_maxvit", "imagenet")


def test_weights_in_the_hub_s_cache_are_read_from_there(monkeypatch, tmp_path):
    net = timm.create_model("test_vit")
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name, revision=None: (
        str(tmp_path / name) if (repo, name) == ("timm/test_vit.r160_in1k", "model.safetensors") else None))
    encoder, classifier = backbones.build("timm:test_vit", "imagenet")
    assert torch.equal(encoder.trunk.pos_embed, net.pos_embed) and torch.equal(classifier.weight, net.head.weight)
    assert backbones.to_fetch("timm:test_vit") is None


def test_a_damaged_safetensors_file_is_named(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}garbage")
    with pytest.raises(InputError, match=r"w\.safetensors can't be read"):
        weight_files.read(tmp_path / "w.safetensors")


def test_a_file_of_another_form_goes_through_the_library_s_own_conversion(tmp_path):
    smaller = timm.create_model("test_vit", img_size=64)  # 4 x 4 positions; the architecture's own are 10 x 10
    setting, file = saved(smaller, tmp_path / "w.pth")
    found = backbones.encoder("timm:test_vit", setting, file).trunk
    expected = timm.layers.resample_abs_pos_embed(smaller.pos_embed, [10, 10])
    torch.testing.assert_close(found.pos_embed, expected)
    assert torch.equal(found.blocks[3].mlp.fc1.weight, smaller.blocks[3].mlp.fc1.weight)
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth holds the weights of another architecture"):
        backbones.encoder("timm:test_vit", backbones.weights_setting(tmp_path / "other.pth"), tmp_path / "other.pth")


def test_an_encoder_without_an_imagenet_classifier_is_no_teacher_and_says_what_to_set(tmp_path):
    with pytest.raises(InputError, match=r"dinov2.* has no classifier .*losses.distillation=0 and network.start=random"):
        backbones.build("timm:vit_small_patch14_dinov2.lvd142m", "imagenet")


def test_a_teacher_whose_batch_norms_come_before_its_convolutions_is_refused_folded_and_right_as_it_is(tmp_path):
    name = "timm:resnetv2_50"
    setting, file = saved(timm.create_model("resnetv2_50"), tmp_path / "w.pth")
    encoder, classifier = backbones.build(name, setting, file)
    with pytest.raises(InputError, match="execution.teacher=as-is"):
        Teacher(encoder, classifier, Execution())
    assert Teacher(encoder, classifier, Execution(teacher="as-is"))(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:vit_small_patch14_dinov2.lvd142m", "timm:vit_base_patch16_clip_224.openai",
                                  "timm:vit_base_patch16_siglip_224.webli", "timm:convnext_tiny.fb_in1k", "resnet50"])
def test_files_of_the_foundation_rows_shapes_load_and_give_timm_s_own_features(name, tmp_path):
    source = backbones.source(name)
    net = source.build()
    setting, file = saved(net, tmp_path / "w.pth")
    grey = pictures(1, 224)
    encoder = backbones.encoder(name, setting, file).eval()
    mean, std = (source.mean, source.std) if source.mean else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        theirs = normalize(grey / 255, mean, std)
        if hasattr(net, "forward_head"):
            expected = net.forward_head(net.forward_features(theirs), pre_logits=True)
        else:
            net.fc = nn.Identity()
            expected = net(theirs)
        torch.testing.assert_close(encoder(to_network(grey, 224)), expected, rtol=1e-3, atol=1e-3)
