"""Fast forms of a training step against the plain float32 one: losses, gradients, the step itself."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.small_models import CPU, config, ingredients, pixels, setup
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import tcn
from tcn.config import REFERENCE, Execution, InputError, Modality, change, identity
from tcn.data.pairs import PairBatch
from tcn.model import backbones
from tcn.model.execution import (
    CroppedConv2d,
    check_precision,
    crop_convolutions,
    fold_batch_norms,
    keep_memory,
    place,
    scoring_mode,
    training_mode,
)
from tcn.scoring.features import extract
from tcn.train import losses
from tcn.train.loop import adam, train_step
from tcn.train.method import TCN, Ingredients

FAST = {"memory_format": "channels-last", "batch_norm": "two-pass", "optimizer": "fused", "sharing": "fused", "teacher": "folded",
        "convolutions": "cropped"}


def settings_with(execution: Execution):
    return change(config(), {f"execution.{key}": value for key, value in dataclasses.asdict(execution).items()})


def stepped(execution: Execution, dtype: torch.dtype = torch.float32
            ) -> tuple[dict[str, float], list[torch.Tensor], list[torch.Tensor]]:
    """Loss terms, gradients and parameters after a training step on EfficientNet-Lite0 at 64 pixels."""
    encoder, _ = backbones.build("efficientnet_lite0", "imagenet")
    teacher, classifier = backbones.build("efficientnet_lite0", "imagenet")
    generator = torch.Generator().manual_seed(0)
    settings = change(settings_with(execution), {"network.dim": 16, "losses.sharing": 1.0})
    model = TCN.build(settings, Ingredients(encoder, teacher, classifier, torch.randn(4, 5, generator=generator), 4))
    model = place(model, settings.execution, CPU)
    batch = PairBatch(*(torch.randn(8, 3, 64, 64, generator=generator).to(dtype) for _ in range(2)), torch.arange(8) % 4)
    with torch.no_grad():  # from the same start the sharing loss would be 0
        for parameter in model.network.encoders.photo.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=1e-3)
    model.to(dtype)
    optimizer = adam(model, settings)
    model.train()
    terms = train_step(TCN, model, optimizer, batch, settings, torch.Generator().manual_seed(1))
    return ({name: value.item() for name, value in terms.items()}, [p.grad for p in model.parameters() if p.grad is not None],
            list(model.parameters()))


def away(mine: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    """Length of the difference as a share of the reference's, all tensors together."""
    assert len(mine) == len(reference)
    return math.sqrt(sum((a - b).double().square().sum().item() for a, b in zip(mine, reference))
                     / sum(b.double().square().sum().item() for b in reference))


@pytest.fixture(scope="module")
def plain():
    return stepped(REFERENCE)


@pytest.fixture(scope="module")
def exact():
    """The plain form in float64: what both float32 forms are roundings of."""
    return stepped(REFERENCE, torch.float64)


@pytest.mark.parametrize("field", [*FAST, "all"])
def test_each_fast_form_gives_the_losses_and_gradients_of_the_plain_one(field, plain, exact):
    """Stated tolerance (docs/speed.md): 1e-5 on every loss; gradients no further from float64's than 1.5 times the plain form's.
    In channels-last order with torch's own batch norms, which sum in float32 there, a ReLU6 or a hardest pair near its edge may
    fall to the other side: 0.03."""
    execution = Execution(**{**dataclasses.asdict(REFERENCE), **(FAST if field == "all" else {field: FAST[field]})})
    terms, gradients, _ = stepped(execution)
    assert terms == pytest.approx(exact[0], rel=1e-5)
    assert away(gradients, exact[1]) < (0.03 if field == "memory_format" else 1.5 * away(plain[1], exact[1]))


def test_the_fused_optimizer_takes_the_same_step(plain):
    _, _, parameters = stepped(dataclasses.replace(REFERENCE, optimizer="fused"))
    assert away(parameters, plain[2]) < 1e-6


def test_bf16_gives_the_losses_to_five_percent_and_features_stay_float32(plain):
    terms, _, _ = stepped(dataclasses.replace(REFERENCE, precision="bf16"))
    assert terms == pytest.approx(plain[0], rel=0.05)
    assert terms != pytest.approx(plain[0], rel=1e-5)  # it was used
    some = pixels([0, 1, 2], 1)
    both = [extract(TCN.build(settings_with(e), ingredients()), some, Modality.PHOTO, 12, CPU)
            for e in (REFERENCE, dataclasses.replace(REFERENCE, precision="bf16"))]
    np.testing.assert_array_equal(*both)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_encoders_give_the_same_losses(exact):
    terms, gradients, _ = stepped(dataclasses.replace(REFERENCE, compile="encoders"))
    assert terms == pytest.approx(exact[0], rel=1e-5)
    assert away(gradients, exact[1]) < 0.03


def test_the_default_is_fast_and_differs_from_the_reference_in_every_field_but_precision_and_compile():
    default = dataclasses.asdict(Execution())
    assert {k: v for k, v in default.items() if v != getattr(REFERENCE, k)} == FAST
    assert config().execution == Execution()


@pytest.mark.parametrize("groups", ("depthwise", "full"))
@pytest.mark.parametrize("kernel", (3, 5, 7))
def test_cropped_convolutions_are_the_convolutions(kernel, groups):
    generator = torch.Generator().manual_seed(kernel)
    for height, width in ((1, 1), (1, 4), (2, 2), (2, 3), (3, 3), (6, 2)):
        plain = nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=4 if groups == "depthwise" else 1)
        cropped = nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=plain.groups)
        cropped.load_state_dict(plain.state_dict())
        crop_convolutions(cropped)
        assert type(cropped) is CroppedConv2d
        images = torch.randn(3, 4, height, width, generator=generator)
        results = []
        for layer in (plain, cropped):
            shown = images.clone().requires_grad_()
            out = layer(shown)
            out.square().sum().backward()
            results.append((out, shown.grad, layer.weight.grad, layer.bias.grad))
        for a, b in zip(*results):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_only_convolutions_that_keep_the_size_are_cropped():
    others = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 1),
                           nn.Conv2d(2, 2, 3, padding=2, dilation=2), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
                           nn.Conv2d(2, 2, 3, padding="same"))
    assert all(type(layer) is nn.Conv2d for layer in crop_convolutions(others))


@pytest.mark.parametrize("name", ("resnet18", "resnet50", "efficientnet_lite0"))
def test_folded_batch_norms_compute_the_same(name):
    torch.manual_seed(0)
    source = backbones.SOURCES[name]
    net = source.build().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = net(images)
        after = fold_batch_norms(net)(images)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert (after - before).abs().max() < 1e-4 * before.abs().max()


def test_a_batch_norm_without_its_convolution_is_named():
    with pytest.raises(InputError, match="batch norm '1' does not follow a convolution.*teacher=as-is"):
        fold_batch_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(5)).eval())


def tensor_pairs(dtype=torch.float32):
    """Two tensors each: small, larger than a chunk, channels-last, equal, one of a single element."""
    generator = torch.Generator().manual_seed(1)

    def one(*shape, order=torch.contiguous_format):
        return torch.randn(*shape, generator=generator, dtype=dtype).contiguous(memory_format=order)

    pairs = [(one(3, 2), one(3, 2)), (one(700, 600), one(700, 600)), (one(1), one(1))]
    pairs.append(tuple(one(8, 4, 3, 3, order=torch.channels_last) for _ in range(2)))
    same = one(5, 5)
    pairs.append((same, same.clone()))
    return [tuple(tensor.requires_grad_() for tensor in pair) for pair in pairs]


@pytest.mark.parametrize("way", ("CPU", "as on CUDA"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_fused_sharing_is_the_norm_of_each_difference(dtype, way, monkeypatch):
    """Oracle: NumPy in float64; the gradient of a norm is the unit vector of the difference, and 0 at 0."""
    monkeypatch.setattr(losses, "_through_memory", lambda tensor: way == "CPU")
    pairs = tensor_pairs(dtype)
    norms = losses.sharing_norms(pairs)
    weights = torch.arange(1.0, len(pairs) + 1, dtype=dtype)
    (norms * weights).sum().backward()
    for norm, weight, (sketch, photo) in zip(norms.tolist(), weights.tolist(), pairs):
        difference = sketch.detach().numpy().astype(np.float64) - photo.detach().numpy()
        length = np.sqrt((difference**2).sum())
        assert norm == pytest.approx(length, rel=1e-6)
        expected = weight * difference / length if length else np.zeros_like(difference)
        np.testing.assert_allclose(sketch.grad.numpy(), expected, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(photo.grad.numpy(), -expected, rtol=1e-5, atol=1e-8)
        assert sketch.grad.stride() == sketch.stride()


def test_fused_sharing_meets_gradcheck_and_the_plain_form():
    pairs = [tuple(torch.randn(*shape, dtype=torch.float64, requires_grad=True) for _ in range(2)) for shape in ((3, 2), (4,))]
    flat = [tensor for pair in pairs for tensor in pair]
    assert torch.autograd.gradcheck(lambda *t: losses.sharing_norms(list(zip(t[::2], t[1::2]))), flat)
    torch.testing.assert_close(losses.sharing_norms(pairs), losses.sharing_norms(pairs, "loop"), rtol=1e-12, atol=0)


def test_tensors_that_lie_differently_in_memory_or_are_of_half_precision_go_the_plain_way():
    sketch = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    photo = torch.randn(4, 3, 2, 2)
    for pair in ((sketch, photo), (sketch.bfloat16(), photo.bfloat16()), (photo[:, ::2], photo[:, ::2] + 1)):
        pair = tuple(tensor.detach().requires_grad_() for tensor in pair)
        losses.sharing_norms([pair]).sum().backward()
        expected = (pair[0].double() - pair[1].double())
        torch.testing.assert_close(losses.sharing_norms([pair])[0].double(), expected.norm(), rtol=1e-6, atol=0)
        torch.testing.assert_close(pair[0].grad.double(), expected / expected.norm(), rtol=1e-2, atol=1e-3)
    empty = torch.zeros(0, 3, requires_grad=True)
    assert losses.sharing_norms([(empty, empty.detach().clone().requires_grad_())]).tolist() == [0.0]


def test_modes_give_the_settings_back():
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    with pytest.raises(RuntimeError), training_mode(Execution(precision="tf32"), CPU):
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
        with scoring_mode():
            assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
        raise RuntimeError
    assert before == (torch.backends.cudnn.benchmark, torch.backends.cudnn.conv.fp32_precision,
                      torch.backends.cuda.matmul.fp32_precision)


def test_what_the_compiler_asks_of_precision_has_an_answer():
    """torch has an older and a newer setting for TF32, and raises where the older one is read
    (as max-autotune does) and differs."""
    def asked():
        newer = [place.fp32_precision
                 for place in (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)]
        return torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision(), *newer

    before = asked()
    with training_mode(Execution(precision="tf32"), CPU):
        assert asked()[:4] == (True, "high", "tf32", "tf32")
        with scoring_mode():
            assert asked()[:4] == (False, "highest", "ieee", "ieee")
        assert asked()[:4] == (True, "high", "tf32", "tf32")
    assert asked() == before
    with training_mode(Execution(), CPU):
        assert asked() == (False, "highest", "ieee", "ieee", before[-1])
    assert asked() == before


def test_bf16_is_asked_of_the_device_it_is_for(monkeypatch):
    """torch's own question is answered by the current device, here the older one."""
    majors = {0: 7, 1: 9}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda d: SimpleNamespace(major=majors[torch.device(d).index or 0]))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: f"the GPU {d}")
    check_precision(Execution(precision="bf16"), torch.device("cuda:1"))
    for name in ("cuda:0", "cuda"):
        with pytest.raises(InputError, match=f"bf16.*the GPU {name} has not"):
            check_precision(Execution(precision="bf16"), torch.device(name))
    check_precision(Execution(), torch.device("cuda:0"))


class Casts(TorchDispatchMode):
    """Shapes of what is cast to another type."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default:
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", ("folded", "as-is"))
@pytest.mark.parametrize("order", ("channels-last", "contiguous"))
def test_the_teacher_s_weights_are_cast_to_bf16_once_and_its_logits_stay_bit_for_bit(form, order):
    execution = dataclasses.replace(REFERENCE, precision="bf16", teacher=form, memory_format=order)
    images = torch.randn(6, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    logits, shapes = [], []
    for once in (False, True):
        backbone, classifier = backbones.untrained("resnet18")
        with torch.no_grad():  # the same weights both times, and batch norms that are not the identity
            generator = torch.Generator().manual_seed(1)
            for tensor in (*backbone.parameters(), *backbone.buffers(), classifier.weight, classifier.bias):
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.05)
        # By hand as before: built in float32, autocast does the rest.
        teacher = backbones.Teacher(backbone, classifier,
                                    execution if once else dataclasses.replace(execution, precision="float32"))
        teacher.execution = execution
        place(teacher, execution, CPU)
        with Casts() as casts:
            logits.append(teacher(images))
        shapes.append(casts.shapes)
    assert torch.equal(*logits) and logits[0].isfinite().all()
    convolutions = [module.weight.shape for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 20 and all(shapes[0].count(shape) >= convolutions.count(shape) for shape in convolutions)
    assert not set(shapes[1]) & set(convolutions), "what is cast in a step are pictures and features"


def test_precision_that_the_device_has_not_is_an_error():
    with pytest.raises(InputError, match="execution.precision.*tf32.*only CUDA"):
        place(setup(config())[0], Execution(precision="tf32"), CPU)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="the number of faults was measured on x86 Linux")
def test_memory_is_kept_where_the_c_library_can():
    assert keep_memory() in (True, False)
    if keep_memory():
        assert [torch.ones(3_000_000).sum().item() for _ in range(3)] == [3_000_000.0] * 3


def test_deterministic_algorithms_are_asked_for_in_training_alone_and_given_back():
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    with training_mode(Execution(algorithms="deterministic"), CPU):
        assert torch.are_deterministic_algorithms_enabled() and cudnn.deterministic and not cudnn.benchmark
        assert not torch.utils.deterministic.fill_uninitialized_memory
        with scoring_mode():
            assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled() and (cudnn.benchmark, cudnn.deterministic) == before
    with scoring_mode():
        assert cudnn.deterministic
    assert (cudnn.benchmark, cudnn.deterministic) == before


def test_tensors_are_made_unwritten_only_where_all_of_them_is_written_next():
    """Deterministic training leaves out torch's fill of such tensors, which is there for code that reads what it never wrote."""
    known = {"model/execution.py: torch.empty_like(was).copy_(fused.weight)",
             "model/batch_norms.py: made = torch.empty_like(grad)",
             "train/losses.py: buffer = torch.empty(min(_CHUNK, len(sketch)), dtype=sketch.dtype)",
             "data/pixels.py: torch.empty(shape, dtype=torch.uint8, pin_memory=True)"}
    root = Path(tcn.__file__).parent
    for path in (*root.rglob("*.py"), *(root.parent / "baselines").rglob("*.py")):
        name = str(path.relative_to(root if path.is_relative_to(root) else root.parent))
        # Scoring is no training: it is deterministic by itself, and torch fills nothing there.
        for line in [] if name.startswith("scoring/") else path.read_text().splitlines():
            if re.search(r"\b(torch\.empty|new_empty|empty_strided|resize_\()", line):
                assert any(one.partition(": ")[0] == name and one.partition(": ")[2] in line for one in known), (name, line)


def test_a_setting_that_came_later_leaves_earlier_identities_as_they_were():
    """By hand: the hash of what earlier versions hashed, which knew none of these settings;
    at the values that those versions had."""
    later = {"execution.algorithms": "fast", "execution.batch_norm": "native", "data.resize": "float",
             "data.transparent": "white", "data.exif": "ignored", "evaluation.itq_start": "drawn", "data.validation": "own",
             "execution.graphs": "none", "data.declared": "built-in"}
    settings = dataclasses.asdict(config(**later))
    for key in later:
        group, name = key.split(".")
        del settings[group][name]
    del settings["method_source"]
    earlier = hashlib.sha256(json.dumps({"config": settings, "data": "d", "split": "s", "words": ""}, sort_keys=True).encode())
    assert identity(config(**later), "d", "s") == earlier.hexdigest()
    for key, other in (("execution.algorithms", "deterministic"), ("execution.batch_norm", "two-pass"),
                       ("data.resize", "rounded"), ("execution.graphs", "encoders")):
        assert identity(config(**{**later, key: other}), "d", "s") != earlier.hexdigest()
