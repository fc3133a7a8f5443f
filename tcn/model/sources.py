"""Architectures by name: how to build one, cut it into parts, normalise its images, and find its published weights.

In: `timm:NAME` or `torchvision:NAME`, any model of either library. Out: a `Source`. What a source says follows from the library's
own record of the model and from the model itself; nothing here knows a model's name. docs/encoders.md is the guide.
"""
from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from torch import Tensor, nn
from torchvision import models

from tcn.config import InputError
from tcn.model import cutting, published
from tcn.model.weight_files import State

Parts = dict[str, list[nn.Module]]
CLASSES = 1000
"""Classes of a classifier that the teacher and the SVD start can take: ImageNet's."""


@dataclass(frozen=True)
class Source:
    """One architecture: how to build it, cut it into parts, and find its published weights."""

    build: Callable[[], nn.Module]
    classifier: str
    """Name of the last linear layer; empty where the network has none, or several."""
    features: int
    cut: Callable[[Any], Parts]
    """From the network without its classifier, whose modules have names of its own, to the modules of each part."""
    imagenet: Callable[[], State]
    """The published weights; most are ImageNet's."""
    origin: str
    published_names: Callable[[], Mapping[str, str]] = dict
    """Names of the published file -> the architecture's own, where they differ."""
    to_fetch: Callable[[], str | None] = lambda: None
    """Address from which `imagenet` would fetch; None where the weights are on this machine."""
    convert: Callable[[State], State] | None = None
    """From a file as its authors published it to the architecture's own names and shapes; raises where it can't."""
    teaches: bool = True
    """Whether the classifier is one of ImageNet's 1,000 classes, as the teacher and the SVD start need it."""
    mean: tuple[float, ...] | None = None
    """Of each colour, from 0 to 1, by which images were normalised in training; None for ImageNet's own, with `std`."""
    std: tuple[float, ...] | None = None
    size: int | None = None
    """Side in pixels of the images that it was trained on; None for the built-in ones, which take any."""


def without_classifier(net: nn.Module, source: Source) -> nn.Linear | nn.Conv2d | None:
    """Take the classifier off, so that `net` gives pooled features [B, d]; returns it, or None where there is no single one."""
    if not source.classifier:
        net.reset_classifier(0)  # type: ignore[operator]  # timm's, which every one of its models has
        return None
    head = net.get_submodule(source.classifier)
    assert isinstance(head, (nn.Linear, nn.Conv2d))
    net.set_submodule(source.classifier, nn.Identity())
    return head


def check_size(name: str, source: Source, size: int) -> None:
    """InputError where an encoder does not take images of `size` pixels. It is asked on the meta device,
    where nothing is computed."""
    if source.size not in (None, size):
        net = _empty(source.build)
        without_classifier(net, source)
        _width(name, source, net, size)


def _width(name: str, source: Source, net: nn.Module, size: int) -> int:
    """Length d of the pooled features that a network on the meta device gives for images of `size` pixels."""
    try:
        made = net(torch.zeros(2, 3, size, size, device="meta"))
    except Exception as error:  # whatever a network says of a size that it was not made for
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"encoder {name} does not take images of {size} pixels ({reason}); it was trained at {source.size}: set "
                         f"data.image_size={source.size}") from error
    if not isinstance(made, Tensor) or made.dim() != 2:
        raise InputError(f"encoder {name} can't be used: it gives no pooled features [B, d] for images in training")
    return int(made.shape[1])


@functools.cache
def find(name: str) -> Source:
    """The source of `timm:NAME` or `torchvision:NAME`; `.TAG` after the name says which of several published weights.

    InputError naming similar ones where the library has no such model, or where it can't be cut into parts.
    """
    library, _, model = name.partition(":")
    source, net = (_timm if library == "timm" else _torchvision)(name, model)
    without_classifier(net, source)
    width = _width(name, source, net, source.size or 0)
    paths = {id(module): path for path, module in net.named_modules()}
    try:
        parts = {part: [paths[id(module)] for module in modules] for part, modules in source.cut(net).items()}
    except InputError as error:
        raise InputError(f"encoder {name} can't be cut into a stem and four stages: {error}; choose another") from error
    return replace(source, features=width,
                   cut=lambda own: {part: [own.get_submodule(path) for path in its] for part, its in parts.items()})


def _empty(build: Callable[[], nn.Module]) -> nn.Module:
    """A network without contents, on the meta device. torch's random numbers are as before."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build()
        except NotImplementedError:  # it computes its own shape from tensors
            return build().to("meta")


def _known(name: str, model: str, names: Sequence[str]) -> None:
    if model not in names:
        library, near = name.partition(":")[0], difflib.get_close_matches(model, names, 3)
        raise InputError(f"setting 'network.backbone' is '{name}', and this {library} has no model '{model}'"
                         + (f"; similar ones: {', '.join(near)}" if near else "") + f"; {library}.list_models() lists all")


def _asking(create: Callable[..., nn.Module], **wish: Any) -> tuple[Callable[[], nn.Module], Any]:
    """`create` with a keyword that only some architectures take, where it is taken; and what it makes, without contents."""
    try:
        wished = functools.partial(create, **wish)
        return wished, _empty(wished)
    except TypeError:
        return create, _empty(create)


def _timm(name: str, model: str) -> tuple[Source, nn.Module]:
    _known(name, model.partition(".")[0], timm.list_models())
    # Positions of a vision transformer are interpolated to the size of the images.
    try:
        build, net = _asking(functools.partial(timm.create_model, model), dynamic_img_size=True)
    except RuntimeError as error:  # timm's word for a tag that it does not know
        tags = timm.list_pretrained(f"{model.partition('.')[0]}.*")
        raise InputError(f"setting 'network.backbone' is '{name}', which timm can't build ({error}); with published "
                         f"weights it has {', '.join(tags) or 'none of that name'}") from error
    kept: Any = net.pretrained_cfg
    told = resolve_data_config({}, model=net)  # type: ignore[no-untyped-call]  # timm leaves it so
    head = kept.get("classifier")
    linear = net.get_submodule(head) if isinstance(head, str) else None
    # Some are written as a convolution of one pixel.
    outputs = (len(linear.weight) if isinstance(linear, nn.Linear)
               or isinstance(linear, nn.Conv2d) and linear.kernel_size == (1, 1) else 0)
    repository, given = kept.get("hf_hub_id"), kept.get("hf_hub_filename") or "pytorch_model.bin"
    files = ("model.safetensors" if given == "pytorch_model.bin" else f"{given.rpartition('.')[0]}.safetensors", given)

    def fetch() -> State:
        if not repository:
            raise InputError(f"timm publishes no weights of {name}; pass --weights {name}=FILE (random ones are enough to "
                             "see whether something runs)")
        return published.from_hub(repository, files, name)

    def convert(state: State) -> State:
        # With these two keys, timm sends a state through the filter that the architecture has for files of other makers.
        overlay = {"state_dict": state, "source": ""}
        converted: State = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
        return converted

    return Source(build, head if outputs else "", 0, cutting.by_feature_info, fetch,
                  f"timm {timm.__version__} {name}" + (f", {repository} of the Hugging Face hub" if repository else ""),
                  to_fetch=lambda: published.hub_address(repository, files) if repository else None, convert=convert,
                  teaches=outputs == CLASSES, mean=tuple(told["mean"]), std=tuple(told["std"]),
                  size=told["input_size"][-1]), net


def _torchvision(name: str, model: str) -> tuple[Source, nn.Module]:
    base, _, tag = model.partition(".")
    _known(name, base, models.list_models(module=models))
    weights = models.get_model_weights(base)
    if tag and tag not in weights.__members__:
        raise InputError(f"setting 'network.backbone' is '{name}'; torchvision's weights of {base} are "
                         f"{', '.join(weights.__members__)}")
    chosen: Any = weights[tag or "DEFAULT"]
    preset = chosen.transforms()
    size = int(preset.crop_size[0])
    build, net = _asking(functools.partial(models.get_model, base, weights=None), image_size=size)
    linears = [path for path, module in net.named_modules() if isinstance(module, nn.Linear)
               and module.out_features == len(chosen.meta["categories"])]
    if not linears:
        raise InputError(f"encoder {name} can't be used: its classifier is not a linear layer on pooled features; choose another")

    return Source(build, linears[-1], 0, lambda own: cutting.by_resolution(own, size), lambda: published.from_torch(chosen),
                  f"torchvision {base} {chosen.name}", to_fetch=lambda: published.torch_address(chosen),
                  teaches=len(chosen.meta["categories"]) == CLASSES, mean=tuple(preset.mean),
                  std=tuple(preset.std), size=size), net
