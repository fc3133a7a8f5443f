"""Files of weights: read without running code, and matched to an architecture by the names of its tensors.

In: a PyTorch file from any source, and the architecture's own tensors. Out: those tensors with the file's values,
or the reason why the file does not fit: what it lacks, what it holds beyond the architecture, whose names it has.
"""
from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tcn.config import InputError
from tcn.files import foreign

State = dict[str, Tensor]
_DEEPEST = 4
"""Number of mappings in which a state dict may be nested: `checkpoint`, `model`, `state_dict`, and one more."""
_COUNTER = ".num_batches_tracked"
"""A counter of steps, not a weight: batch norms with a momentum never read it."""
_PYTORCH = tuple((0, start, "a PyTorch file: call it NAME.pth") for start in (b"PK\3\4", b"\x80\2"))
_OTHER = ((8, b'{"', "a safetensors file: call it NAME.safetensors"),
          (0, b"\x89HDF", "an HDF5 file, as Keras writes them: weights are read from PyTorch and safetensors files"))
_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TELLING = (
    (r"(^|\.)(text_model|token_embedding|text_projection|logit_scale|transformer\.resblocks)(\.|$)", "a CLIP model"),
    (r"(^|\.)(cls_token|class_token|class_embedding|pos_embed|pos_embedding|attn\.qkv\.weight)$", "a vision transformer"),
    (r"(^|\.)se\.(fc1|conv_reduce|fc\.0)\.weight$", "a network with squeeze and excitation"),
    (r"^(\w+\.)*4\.0\.conv1\.weight$", "a ResNet whose layers are numbered, as nn.Sequential numbers its children; rename them "
                                      "(0 is conv1, 1 bn1, 4 to 7 layer1 to layer4)"),
)
"""Tensor names that are typical of another architecture, and what to call it."""


def read(path: Path) -> dict[str, State]:
    """The state dicts of a file by their place in it: "" for the whole file, or keys such as `model` or `checkpoint.state_dict`.

    Raises InputError naming the file where it is missing, damaged, wants to run code, or holds no mapping from names to tensors.
    """
    wrong = None
    if path.suffix == ".safetensors":
        try:
            return {"": load_file(path)}
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} can't be read as a safetensors file ({type(error).__name__})"
                             f"{foreign.of(path, _PYTORCH) or '; fetch it again'}") from error
    try:
        if zipfile.is_zipfile(path):
            # torch writes a CRC-32 of each record and does not look at it when it reads.
            with zipfile.ZipFile(path) as archive:
                wrong = archive.testzip()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles' age; what can't be read is an error below
            content = None if wrong else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no weights file at {path}; check the path given") from error
    except Exception as error:  # unpickling errors of many kinds; weights_only refuses code
        # The library's own text advises to load it unsafely, so only the kind of error is passed on.
        raise InputError(f"{path} can't be read as a PyTorch state dict ({type(error).__name__})"
                         + (foreign.of(path, _OTHER) or "; pass ImageNet weights as torchvision or the architecture's package "
                                                        "publishes them")) from error
    if wrong:
        raise InputError(f"{path} is damaged (the checksum of {wrong} does not fit); fetch it again")
    found = dict(_states(content, ()))
    if not found:
        raise InputError(f"{path} holds no state dict (a mapping from names to tensors){_instead(content)}")
    return found


def _states(value: Any, keys: tuple[str, ...]) -> Iterable[tuple[str, State]]:
    if not isinstance(value, dict) or not value or len(keys) > _DEEPEST:
        return
    if all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()):
        yield ".".join(keys), value
    else:
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _states(inner, (*keys, key))


def _instead(content: Any) -> str:
    if not isinstance(content, dict):
        return f"; it is a {type(content).__name__}"
    others = [f"'{key}' is a {type(value).__name__}" for key, value in content.items() if not isinstance(value, Tensor)]
    return f"; {', '.join(others[:3])}" if others else ""


def fit(states: Mapping[str, State], own: State, classifier: str, origin: str, known: Callable[[], Mapping[str, State]],
        also: Mapping[str, str] = MappingProxyType({}), needs_classifier: bool = True) -> State:
    """The values of a file under the names `own` of the architecture, matched by name alone.

    states: as `read` gives them. A beginning that all names share (`module.`, `backbone.`, nested too) is taken off; the
    classifier's tensors may stand beside that beginning. Counters of batch norms may be missing. Without `needs_classifier`
    the classifier may be missing too, and keeps the values in `own`. also: other names of tensors -> those in `own`.
    known: the architectures that a message may name.
    Raises InputError with the cause where no set of tensors fits, or more than one does.
    """
    names = {**{name: name for name in own}, **also}
    needed = {name for name in own if not name.endswith(_COUNTER)}
    head = {name for name in needed if name.startswith(f"{classifier}.")}
    if not needs_classifier:
        needed = needed - head
    whole = [(where, prefix, renamed) for where, state in states.items()
             for prefix, renamed in _by_prefix(state, names, head) if renamed.keys() >= needed]
    # Where there is this key, it names the weights meant; an averaged copy may lie beside it.
    whole = [one for one in whole if one[0] == "state_dict"] or whole
    if len(whole) > 1:
        places = ", ".join(_place(where, prefix) for where, prefix, _ in whole)
        raise InputError(f"{origin} holds {len(whole)} sets of weights that fit ({places}); save the one that is "
                         f"meant as a file of its own")
    if not whole or len(whole[0][2]) < len(states[whole[0][0]]):
        raise InputError(f"{origin} {_misfit(states, names, needed, head, known)}")
    where, _, renamed = whole[0]
    taken = renamed if needs_classifier else {name: written for name, written in renamed.items() if name not in head}
    for name, written in taken.items():
        _check(name, written, states[where][written], own[name], name in head, origin)
    return {name: states[where][taken[name]] if name in taken else tensor for name, tensor in own.items()}


def _by_prefix(state: State, names: Mapping[str, str], head: set[str]) -> list[tuple[str, dict[str, str]]]:
    """Beginning of the file's names -> own name -> name in the file; the beginning with most matches first."""
    found: dict[str, dict[str, str]] = {}
    for name in state:
        for prefix, tail in _tails(name):
            if tail in names:
                found.setdefault(prefix, {}).setdefault(names[tail], name)
    for prefix, renamed in found.items():
        if not head & renamed.keys():
            # Encoder and classifier are often two modules of one: `module.encoder.conv1.weight`, `module.fc.weight`.
            above = [shorter for shorter, _ in reversed(list(_tails(prefix)))]
            renamed |= next((beside for one in above if head == (beside := {
                own: f"{one}{name}" for name, own in names.items() if own in head and f"{one}{name}" in state}).keys()), {})
    return sorted(found.items(), key=lambda one: (-len(one[1]), len(one[0]), one[0]))


def _tails(name: str) -> Iterator[tuple[str, str]]:
    """Every way to split a name at a dot into beginning and rest, the empty beginning first."""
    parts = name.split(".")
    return ((name[:len(name) - len(tail)], tail) for n in range(len(parts)) for tail in [".".join(parts[n:])])


def _check(name: str, written: str, value: Tensor, own: Tensor, of_head: bool, origin: str) -> None:
    called = f"'{name}'" if name == written else f"'{name}' (there '{written}')"
    if value.shape != own.shape:
        raise InputError(f"{origin}: tensor for {called} has shape {tuple(value.shape)}, the architecture needs "
                         f"{tuple(own.shape)}"
                         + ("; the classifier must be the one of ImageNet's 1,000 classes" if of_head else ""))
    plain = value.layout is torch.strided and not (value.is_quantized or value.is_complex() or value.is_meta)
    if not plain or own.is_floating_point() and value.dtype not in _REAL:
        raise InputError(f"{origin}: tensor for {called} is {value.dtype}, {value.layout} on {value.device}; weights are plain "
                         f"real numbers ({', '.join(str(kind).removeprefix('torch.') for kind in _REAL)})")
    if not bool(value.to(own.dtype).isfinite().all() and value.isfinite().all()):
        raise InputError(f"{origin}: tensor for {called} holds values that are not finite; the file is damaged, or training "
                         f"it diverged")


# --- why a file does not fit ----------------------------------------------------------------------------------------

def _misfit(states: Mapping[str, State], names: Mapping[str, str], needed: set[str], head: set[str],
            known: Callable[[], Mapping[str, State]]) -> str:
    """The reason why a file does not fit, as words that follow the file's name."""
    where, prefix, renamed = max(((where, *one) for where, state in states.items()
                                  for one in _by_prefix(state, names, head) or [("", {})]),
                                 key=lambda one: (len(one[2]), len(states[one[0]])))
    if 2 * len(renamed) < len(needed):
        prefix, renamed = "", {}  # a few equal names are chance: every block of a ResNet holds a conv1.weight
    state, own = states[where], list(dict.fromkeys(names.values()))
    lacking = [name for name in own if name in needed and name not in renamed]
    unexpected = [name for name in state if name not in renamed.values()]
    if lacking and set(lacking) == head:
        other = [name for name in unexpected if state[name].dim() == 2]
        return (f"holds an encoder without its classifier ({', '.join(lacking)})"
                + (f"; {_some(other)} is not called so" if other else "")
                + ". The teacher and the start of the projection need the ImageNet classifier: pass the whole network, or this "
                  "file as --weights and the whole network as --teacher-weights")
    for name, theirs in known().items():
        for _, found in _by_prefix(state, {key: key for key in theirs}, set()):
            # The file must hold nothing else: the tensors of a ResNet-18 are among those of a ResNet-34.
            if len(found) == len(state) and all(key in found and state[found[key]].shape == tensor.shape
                                                for key, tensor in theirs.items() if not key.endswith(_COUNTER)):
                return f"holds the weights of {name}, another architecture; choose it with --set network.backbone={name}"
    modules = {name.partition(".")[0] for name in names}
    again: dict[str, str] = {}
    for name in unexpected:
        before, tail = next(((before, tail) for before, tail in _tails(name) if tail in names), (prefix, ""))
        if before != prefix and before.removeprefix(prefix).partition(".")[0] not in modules:
            again.setdefault(names[tail], name)
    if lacking and again.keys() >= set(lacking):
        return (f"holds names that begin differently: {len(renamed)} {_beginning(prefix)}, {len(lacking)} otherwise "
                f"({again[lacking[0]]}); all must begin alike")
    twice = next((f"; {name} stands there as {renamed[name]} and as {again[name]}" for name in again if name in renamed), "")
    telling = next((f"; such names are those of {what}" for pattern, what in _TELLING
                    if any(re.search(pattern, name) for name in unexpected)), "")
    if not lacking:
        return (f"holds {_some(unexpected)} beyond the architecture's own tensors{twice or telling}; weights of another network "
                f"can't be used, and what is no part of a network must be taken out of the file")
    return (f"holds the weights of another architecture: of the {len(needed)} tensors it lacks {_some(lacking)}"
            + (f", and holds {_some(unexpected)} instead" if unexpected else ", and holds nothing instead") + telling)


def _some(names: list[str]) -> str:
    shown = ", ".join(name if len(name) <= 60 else f"{name[:57]}..." for name in names[:3])
    return shown if len(names) <= 3 else f"{len(names)} ({shown}, ...)"


def _beginning(prefix: str) -> str:
    return f"with '{prefix}'" if prefix else "with nothing before them"


def _place(where: str, prefix: str) -> str:
    return " ".join(filter(None, (f"under '{where}'" if where else "", _beginning(prefix))))
