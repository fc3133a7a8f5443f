"""How far the two encoders move during training: from their common start and from each other, layer by layer.

In: a CoupledEncoders at its start, then at chosen steps. Out: `Distances`, arrays over steps and layers. The paper has
no such measurement. It distinguishes a softly tied network from one that hardly leaves its ImageNet start.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcn.config import InputError
from tcn.model.coupling import CoupledEncoders

READINGS = 600
"""Number of steps of a run that are read, spread about evenly after the first ones."""
FIRST_STEPS = 16
"""Number of first steps that are all read: with Adam, most of a short distance is covered there."""


@dataclass(frozen=True)
class Layer:
    """A parameter tensor that both encoders have."""

    name: str
    part: str
    kind: str
    """`convolution` or `batch norm`."""
    sketch: Tensor
    photo: Tensor


class Distances:
    """Frobenius distances of every layer at the steps that were read.

    Made from encoders at their start, which is copied. `read(step)` adds a row; `arrays()` gives steps int64 [T], names of
    layers, parts and kinds [L], start_norm [L] = ||theta_0||, and float32 [T, L]: between = ||theta_sketch - theta_photo||,
    sketch and photo = ||theta - theta_0|| of each encoder.
    """

    def __init__(self, encoders: CoupledEncoders, total_steps: int) -> None:
        self._layers = [Layer(name, part, kind, sketch, photo) for name, part, kind, sketch, photo in _layers(encoders)]
        self._start = [layer.sketch.detach().clone() for layer in self._layers]
        self._every = max(1, total_steps // READINGS)
        self._total = total_steps
        self._steps: list[int] = []
        self._rows: list[Tensor] = []
        self._norms = torch.stack([_norm(start) for start in self._start]).cpu().numpy()
        self.read(0)

    def due(self, step: int) -> bool:
        """Whether a step, counted from 1, is to be read: the first ones, every `total_steps // READINGS`-th, and the last."""
        return step <= FIRST_STEPS or step % self._every == 0 or step == self._total

    @torch.no_grad()
    def read(self, step: int) -> None:
        """Add a row: the state after `step` updates."""
        values = []
        for layer, start in zip(self._layers, self._start):
            one = layer.sketch is layer.photo
            from_start = _norm(layer.sketch - start)
            values += [torch.zeros_like(from_start) if one else _norm(layer.sketch - layer.photo), from_start,
                       from_start if one else _norm(layer.photo - start)]
        self._steps.append(step)
        self._rows.append(torch.stack(values).view(-1, 3))

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything read so far."""
        rows = torch.stack([row.cpu() for row in self._rows]).numpy().astype(np.float32)
        return {"steps": np.array(self._steps), "layers": np.array([layer.name for layer in self._layers]),
                "parts": np.array([layer.part for layer in self._layers]),
                "kinds": np.array([layer.kind for layer in self._layers]), "start_norm": self._norms.astype(np.float32),
                "between": rows[:, :, 0], "sketch": rows[:, :, 1], "photo": rows[:, :, 2]}

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to resume: steps, names of layers, and float64 rows [T, L, 3]."""
        return {"steps": list(self._steps), "layers": [layer.name for layer in self._layers],
                "rows": torch.stack([row.cpu() for row in self._rows])}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned. Raises InputError where its layers are others."""
        if state["layers"] != [layer.name for layer in self._layers]:
            raise InputError("the checkpoint holds distances of another network's layers; delete it to train again")
        self._steps, self._rows = list(state["steps"]), list(state["rows"])


def _norm(tensor: Tensor) -> Tensor:
    # Sums in float64, where the device has it: a float32 sum over a million equal squares loses digits.
    wide = torch.float32 if tensor.device.type == "mps" else torch.float64
    norm: Tensor = torch.linalg.vector_norm(tensor.detach(), dtype=wide)
    return norm


def _layers(encoders: CoupledEncoders) -> list[tuple[str, str, str, Tensor, Tensor]]:
    names = {id(parameter): name for name, parameter in encoders.sketch.named_parameters()}
    found = []
    for part, module, sketch, photo in encoders.tensors():
        kind = "batch norm" if encoders.is_norm(module) else "convolution"
        found.append((names[id(sketch)], part, kind, sketch, photo))
    return found
