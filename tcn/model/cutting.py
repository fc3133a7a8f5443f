"""Any timm or torchvision network cut into the stem and the four stages that a coupling names.

In: a network. Out: the modules of each part. A convolutional network ends a stage where its resolution halves next, as timm's own
feature info says, or as its blocks' outputs show; one of a single resolution (a vision transformer) has its blocks in four equal
groups, and what comes before them is the stem. What comes after the last block belongs to stage 4.
Nothing here knows a model's name.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from tcn.config import PARTS, InputError

STAGES = len(PARTS) - 1


def by_feature_info(net: Any) -> dict[str, list[nn.Module]]:
    """The parts of a timm network. InputError where its feature info names fewer than four stages or blocks."""
    info = [(str(entry["module"]), int(entry["reduction"])) for entry in getattr(net, "feature_info", ())]
    order = _order(net)
    ends = list({reduction: name for name, reduction in info}.values())  # the last module of each resolution
    if len(ends) > STAGES:
        return _between(net, _last(order, ends[-STAGES - 1]), ends[-STAGES:])
    names = ends if len(ends) == STAGES else [name for name, _ in info]
    if len(names) < STAGES:
        raise InputError(f"its feature info names {len(names)} stages, and a coupling needs {STAGES}")
    # The first stage begins with the list that holds its blocks, where something stands before that list.
    container = order.get(names[0].rpartition(".")[0], 0)
    before = next((place for place, (_, module) in enumerate(net.named_modules()) if _owns(module)), 0) < container
    return _between(net, container if before else order[names[0]] - 1, names if len(ends) == STAGES else _groups(names))


def by_resolution(net: nn.Module, size: int) -> dict[str, list[nn.Module]]:
    """The parts of a network without feature info (torchvision's), by the shapes that its blocks give for `size` pixels.

    The network must lie on the meta device, where a pass costs nothing. InputError where four stages or blocks can't be told.
    """
    seen: list[tuple[str, int]] = []

    def note(name: str, made: Any) -> None:
        # Its side, or the number of tokens; what is pooled has neither.
        side = made.shape[2 if made.dim() == 4 else 1] if isinstance(made, torch.Tensor) and made.dim() in (3, 4) else 0
        if side > 1:
            seen.append((name, side))

    units = {name: unit for name, unit in _units(net) if any(True for _ in unit.parameters())}
    handles = [unit.register_forward_hook(lambda _, inputs, made, name=name: note(name, made)) for name, unit in units.items()]
    try:
        net(torch.zeros(2, 3, size, size, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    order = _order(net)
    level = 0
    ends: dict[int, str] = {}
    for name, side in reversed(seen):
        level = max(level, side)
        ends.setdefault(level, name)
    names = list(ends.values())[::-1]
    blocks = [name for name, _ in seen if any(True for _ in units[name].children())]
    if len(names) > STAGES:
        return _between(net, _last(order, names[-STAGES - 1]), names[-STAGES:])
    if len(blocks) < STAGES:
        raise InputError(f"it has {len(names)} resolutions and {len(blocks)} blocks, and a coupling needs {STAGES} of either")
    begun = len(names) == STAGES and order[names[0]] >= order[blocks[0]]  # else the first resolution is the stem's alone
    return _between(net, order[blocks[0]] - 1, names if begun else _groups(blocks))


def _groups(names: Sequence[str]) -> list[str]:
    """The last names of four groups as equal as can be."""
    return [names[len(names) * (group + 1) // STAGES - 1] for group in range(STAGES)]


def _units(module: nn.Module, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """What a network's forward pass calls: its children, and in place of a list of modules the modules in it."""
    for name, child in module.named_children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)) or depth == 0 and any(True for _ in child.children()):
            yield from _units(child, f"{prefix}{name}.", depth + 1)
        else:
            yield prefix + name, child


def _order(net: nn.Module) -> dict[str, int]:
    return {name: place for place, (name, _) in enumerate(net.named_modules())}


def _last(order: dict[str, int], name: str) -> int:
    """Place of the last module inside the module of that name."""
    return max(place for other, place in order.items() if other == name or other.startswith(f"{name}."))


def _owns(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _between(net: nn.Module, stem: int, ends: Sequence[str]) -> dict[str, list[nn.Module]]:
    """The largest modules that lie in one part alone. stem: place of its last module; ends: the last module of each stage."""
    order = _order(net)
    limits = [stem, *(_last(order, name) for name in ends[:-1])]
    found: dict[str, list[nn.Module]] = {part: [] for part in PARTS}

    def sort(name: str, module: nn.Module) -> None:
        places = [order[inner] for inner, child in module.named_modules(prefix=name) if inner in order and _owns(child)]
        parts = {sum(place > limit for limit in limits) for place in places}
        if len(parts) == 1:
            found[PARTS[parts.pop()]].append(module)
        elif parts:
            for child, inner in module.named_children():
                sort(f"{name}.{child}".removeprefix("."), inner)

    sort("", net)
    empty = [part for part, modules in found.items() if not modules and part != PARTS[0]]
    if empty:
        raise InputError(f"nothing in it that has parameters falls into {', '.join(empty)}")
    return found
