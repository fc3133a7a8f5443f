"""Control experiments that the paper lacks: is it the soft tie between the encoders that helps, or something simpler?

In: TCN's ingredients. Out: `Method`s that differ from TCN in one thing: in what is trained, or in the loss that replaces the
sharing loss L_SWS. With a weight of 1000 under Adam, the sharing loss outweighs all other gradients, so that the tied
convolutions may hardly leave their ImageNet start. These runs show whether the tie is useful, or whether nearly frozen
convolutions do as well.
"""
from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor

from tcn.config import Config
from tcn.train.losses import sharing_norms
from tcn.train.method import Ingredients, Method, TcnModel, tcn_losses


def frozen_convolutions(config: Config, ingredients: Ingredients) -> TcnModel:
    """TCN's model in which all encoder tensors except those of batch norms stay at their ImageNet start."""
    model = TcnModel(config, ingredients)
    for _, module, sketch, photo in model.encoders.tensors():
        if not model.encoders.is_norm(module):
            sketch.requires_grad_(False)
            photo.requires_grad_(False)
    return model


class AnchoredModel(TcnModel):
    """TCN's model with a copy of the start of all encoder tensors except those of batch norms."""

    def __init__(self, config: Config, ingredients: Ingredients) -> None:
        super().__init__(config, ingredients)
        tied = [(sketch, photo) for _, module, sketch, photo in self.encoders.tensors()
                if not self.encoders.is_norm(module)]
        # A tensor that both encoders share is one object, and counts once.
        self._moving: list[Tensor] = list({id(p): p for pair in tied for p in pair}.values())
        self._start: list[Tensor] = [p.detach().clone() for p in self._moving]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AnchoredModel:
        super()._apply(fn, recurse)
        self._start = [fn(start) for start in self._start]
        return self

    def from_start(self) -> list[tuple[Tensor, Tensor]]:
        """Pairs (current tensor, its start) of both encoders."""
        return list(zip(self._moving, self._start))


def anchored_tying(model: AnchoredModel, config: Config) -> Tensor:
    """Sum of ||theta - theta_0||_F over both encoders' tensors: like L_SWS, but each encoder is tied to the ImageNet start
    instead of to the other encoder. A scalar.

    Source of the idea: L2-SP (Li, Grandvalet and Davoine, ICML 2018), which uses half of the squared norm. Here it is the norm,
    so that the only difference from TCN is what the encoders are tied to.
    """
    return sharing_norms(model.from_start(), config.execution.sharing).sum()


def squared_tying(model: TcnModel, config: Config) -> Tensor | None:
    """Sum of ||theta_sketch - theta_photo||_F^2, a scalar, or None where nothing is tied. Its gradient shrinks with the
    difference, while the gradient of the norm does not."""
    pairs = model.network.soft_pairs()
    return sharing_norms(pairs, config.execution.sharing).square().sum() if pairs else None


FROZEN = Method("frozen-convolutions", frozen_convolutions, tcn_losses, parallel=True)
ANCHORED = Method("l2-sp", AnchoredModel, functools.partial(tcn_losses, tying=anchored_tying), parallel=True)
SQUARED = Method("squared-sharing", TcnModel, functools.partial(tcn_losses, tying=squared_tying), parallel=True)
