"""Features of a list of images, their standardisation and singular values, against numbers worked out another way."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tcn.config import InputError, Modality
from tcn.data.augment import IMAGENET_MEAN, IMAGENET_STD
from tcn.data.pixels import Pixels
from tcn.data.splits import Files
from tcn.scoring.features import Components, Standardiser, extract, singular_values, unit


class Recorder(nn.Module):
    """Answers each call with the images' mean levels in float64, and writes down how it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.asked: list[tuple] = []

    def _answer(self, layer: str, images: torch.Tensor, *more: object) -> torch.Tensor:
        self.asked.append((layer, len(images), *more, self.training or self.dropout.training, torch.is_grad_enabled()))
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return ((images * std + mean) * 255).mean((2, 3)).double()

    def encode(self, images: torch.Tensor, modality: Modality, side: Modality | None = None) -> torch.Tensor:
        return self._answer("embedding", images, modality, side)

    def encode_backbone(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        return self._answer("backbone", images, modality)


def coloured(number: int) -> Pixels:
    array = np.empty((number, 6, 6, 3), np.uint8)
    array[:] = (np.arange(number)[:, None] * [3, 5, 7] + [1, 2, 4])[:, None, None]
    return Pixels(array, Files(Path("."), tuple(map(str, range(number))), np.zeros(number, np.int64), ("",) * number))


@pytest.mark.parametrize("training", [True, False])
def test_rows_come_in_the_list_s_order_in_evaluation_mode_without_gradient(training):
    model = Recorder().train(training)
    found = extract(model, coloured(7), Modality.PHOTO, 6, torch.device("cpu"), batch=3)
    np.testing.assert_allclose(found, np.arange(7)[:, None] * [3, 5, 7] + [1, 2, 4], atol=1e-3)
    assert found.dtype == np.float32
    assert model.asked == [("embedding", n, Modality.PHOTO, None, False, False) for n in (3, 3, 1)]
    assert model.training is model.dropout.training is training


def test_layer_side_and_modality_are_those_asked_for():
    model = Recorder()
    for modality in Modality:
        for options in ({}, {"layer": "backbone"}, {"side": Modality.SKETCH}, {"side": Modality.PHOTO}):
            extract(model, coloured(2), modality, 6, torch.device("cpu"), **options)
    expected = [(layer, 2, modality, *side, False, False) for modality in Modality for layer, *side in
                (("embedding", None), ("backbone",), ("embedding", Modality.SKETCH), ("embedding", Modality.PHOTO))]
    assert model.asked == expected


def test_pictures_reach_the_network_at_its_size():
    model = Recorder()
    shapes = []
    model.encode = lambda images, modality: shapes.append(tuple(images.shape)) or images.mean((2, 3))
    extract(model, coloured(2), Modality.SKETCH, 4, torch.device("cpu"))
    assert shapes == [(2, 3, 4, 4)]


def test_standardised_features_have_mean_0_and_deviation_1_in_each_dimension():
    rng = np.random.default_rng(1)
    features = (rng.exponential(size=(50, 3)) * [0.1, 1, 40] + [5, -2, 0.3]).astype(np.float32)
    features = np.concatenate([features, np.full((50, 1), 3.5, np.float32)], 1)
    ready = Standardiser.fit(features)
    for column in range(4):
        values = features[:, column].astype(float).tolist()
        mean = sum(values) / 50
        deviation = (sum((v - mean) ** 2 for v in values) / 50) ** 0.5 or 1.0  # a constant dimension is only centred
        found = ready(np.array([[9.0, 9.0, 9.0, 9.0]], np.float32))[0, column]
        assert found == pytest.approx((9 - mean) / deviation, rel=1e-4)
    assert ready(features).dtype == np.float32 and ready.deviation.dtype == np.float32 and (ready(features)[:, 3] == 0).all()


def test_components_need_as_many_directions_as_there_are():
    features = np.random.default_rng(2).normal(size=(5, 8))
    assert Components.fit(features, 5).components.shape == (5, 8)
    for dim in (0, 6):
        with pytest.raises(InputError, match=f"'network.dim' is {dim}, and 5 features of length 8 have 5"):
            Components.fit(features, dim)
    # other features than those of the fit: centred by the fit's mean, in the fit's directions
    other = np.random.default_rng(3).normal(size=(2, 8)) + 3
    found = Components.fit(features, 1)
    values, vectors = np.linalg.eigh(np.cov(features.T))
    expected = (other - features.mean(0)) @ vectors[:, -1]
    np.testing.assert_allclose(np.abs(found(other)[:, 0]), np.abs(expected), rtol=1e-5)


def test_rows_of_length_1_and_a_row_of_zeros():
    found = unit(np.array([[3.0, 4.0], [0.0, 0.0], [-5e-3, 0.0]]))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [-1, 0]])


def test_singular_values_are_roots_of_eigenvalues_of_unit_rows():
    features = np.random.default_rng(4).exponential(size=(40, 35)) * 7
    rows = features / np.sqrt((features**2).sum(1))[:, None]
    roots = np.sqrt(np.linalg.eigvalsh(rows.T @ rows)[::-1])
    np.testing.assert_allclose(singular_values(features), roots[:30], rtol=1e-6)
    np.testing.assert_allclose(singular_values(features, top=2), roots[:2], rtol=1e-6)
    assert len(singular_values(features[:4])) == 4
