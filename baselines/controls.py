"""Controls that the paper lacks: what a softly tied network would be if the tie did something else.

Each is a `Method` that differs from TCN's in one thing: what is trained, or what stands for L_SWS. With a weight of 1000
under Adam the sharing loss outweighs all other gradients, so the tied convolutions may hardly leave their ImageNet start;
these runs tell a useful tie from convolutions that are simply (nearly) frozen.
"""
from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor

from tcn.config import Config
from tcn.model.coupling import BATCH_NORMS
from tcn.train.losses import sharing_norms
from tcn.train.method import Ingredients, Method, TcnModel, tcn_losses


def frozen_convolutions(config: Config, ingredients: Ingredients) -> TcnModel:
    """TCN's model with every encoder tensor but the batch norms' left at its ImageNet start."""
    model = TcnModel(config, ingredients)
    for _, module, sketch, photo in model.encoders.tensors():
        if not isinstance(module, BATCH_NORMS):
            sketch.requires_grad_(False)
            photo.requires_grad_(False)
    return model


class AnchoredModel(TcnModel):
    """TCN's model that remembers where the encoders' tensors, batch norms' left out, started."""

    def __init__(self, config: Config, ingredients: Ingredients) -> None:
        super().__init__(config, ingredients)
        tied = [(sketch, photo) for _, module, sketch, photo in self.encoders.tensors() if not isinstance(module, BATCH_NORMS)]
        # The same objects where the encoders share a tensor: it is held to its start once.
        self._moving: list[Tensor] = list({id(p): p for pair in tied for p in pair}.values())
        self._start: list[Tensor] = [p.detach().clone() for p in self._moving]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AnchoredModel:
        super()._apply(fn, recurse)
        self._start = [fn(start) for start in self._start]
        return self

    def from_start(self) -> list[tuple[Tensor, Tensor]]:
        """(tensor as it is, tensor as it started) of both encoders."""
        return list(zip(self._moving, self._start))


def anchored_tying(model: AnchoredModel, config: Config) -> Tensor:
    """Sum of ||theta - theta_0||_F over both encoders' tensors: L_SWS with the ImageNet start in the other encoder's place.

    Source of the idea: L2-SP (Li, Grandvalet and Davoine, ICML 2018), which takes half the square; the norm is kept here,
    so that only what the encoders are tied to differs from TCN.
    """
    return sharing_norms(model.from_start(), config.execution.sharing).sum()


def squared_tying(model: TcnModel, config: Config) -> Tensor | None:
    """Sum of ||theta_sketch - theta_photo||_F^2: the gradient shrinks with the difference, where the norm's does not."""
    pairs = model.network.soft_pairs()
    return sharing_norms(pairs, config.execution.sharing).square().sum() if pairs else None


FROZEN = Method("frozen-convolutions", frozen_convolutions, tcn_losses)
ANCHORED = Method("l2-sp", AnchoredModel, functools.partial(tcn_losses, tying=anchored_tying))
SQUARED = Method("squared-sharing", TcnModel, functools.partial(tcn_losses, tying=squared_tying))
