"""Controls: what is frozen stays, what is tied is tied to what it should be, and distances are what a plain loop measures."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from support.small_models import CPU, config, ingredients, setup, tiny_backbone
from torch import nn

import baselines
from baselines import controls
from tcn.config import PARTS, Coupling, InputError
from tcn.model.coupling import CoupledEncoders
from tcn.train import loop
from tcn.train.distances import FIRST_STEPS, READINGS, Distances
from tcn.train.loop import ValidationData


def train(tmp_path, name: str, epochs: int = 2, **settings):
    """A variant trained on the tiny data: (model, its encoders' start by name, history)."""
    variant = baselines.find(name)
    resolved = config(**{**variant.delta, "training.epochs": epochs, **settings})
    _, source, validation = setup(resolved)
    model = variant.method.build(resolved, ingredients())
    start = {key: value.clone() for key, value in model.encoders.state_dict().items()}
    distances = Distances(model.encoders, epochs * source.steps)
    tmp_path.mkdir(parents=True, exist_ok=True)
    history = loop.fit(variant.method, model, source, validation, resolved, tmp_path, CPU, progress=False,
                           distances=distances)
    return model, start, history, distances


def norms(model: nn.Module) -> set[str]:
    return {f"{name}.{key}" for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def test_frozen_convolutions_keep_their_start_and_batch_norms_do_not(tmp_path):
    model, start, _, distances = train(tmp_path, "frozen-conv")
    end, own = model.encoders.state_dict(), norms(model.encoders)
    convolutions = [key for key in end if key not in own]
    assert convolutions and all(torch.equal(end[key], start[key]) for key in convolutions)
    scales = [key for key in own if key.endswith("weight")]
    assert all(not torch.equal(end[key], start[key]) for key in scales)
    assert any(not torch.equal(end[key], end[key.replace("sketch", "photo", 1)]) for key in scales if key.startswith("sketch"))
    arrays = distances.arrays()
    convolution = arrays["kinds"] == "convolution"
    assert not arrays["sketch"][:, convolution].any() and arrays["sketch"][-1, ~convolution].all()


def test_anchored_penalty_is_the_distance_of_both_encoders_from_their_start(tmp_path):
    variant = baselines.find("l2-sp")
    settings = config(**variant.delta)
    model = variant.method.build(settings, ingredients())
    start = {key: value.clone() for key, value in model.encoders.named_parameters()}
    assert controls.anchored_tying(model, settings).item() == 0
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.encoders.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=g))
    own = norms(model.encoders)
    naive = sum(float(((value.detach().double() - start[key].double()) ** 2).sum()) ** 0.5
                for key, value in model.encoders.named_parameters() if key not in own)
    assert controls.anchored_tying(model, settings).item() == pytest.approx(naive, rel=1e-5)


def test_anchored_penalty_moves_with_the_model_to_another_type():
    variant = baselines.find("l2-sp")
    model = variant.method.build(config(**variant.delta), ingredients()).double()
    assert all(moving.dtype == start.dtype == torch.float64 for moving, start in model.from_start())


def test_a_strong_anchor_keeps_the_encoders_nearer_to_their_start_than_none(tmp_path):
    ends = {}
    for name, settings in (("l2-sp", {"losses.sharing": 1000.0}), ("nws", {})):
        _, _, _, distances = train(tmp_path / name, name, **settings)
        arrays = distances.arrays()
        ends[name] = arrays["sketch"][-1, arrays["kinds"] == "convolution"]
    assert ends["l2-sp"].mean() < 0.5 * ends["nws"].mean()


def test_squared_tying_is_the_sum_of_squares_and_fades_at_zero():
    variant = baselines.find("squared")
    settings = config()
    model = variant.method.build(settings, ingredients())
    value = controls.squared_tying(model, settings)
    value.backward()
    assert value.item() == 0 and all(p.grad is None or not p.grad.any() for p in model.encoders.parameters())
    with torch.no_grad():
        for parameter in model.encoders.photo.parameters():
            parameter.add_(0.25)
    numbers = sum(s.numel() for s, _ in model.network.soft_pairs())
    assert controls.squared_tying(model, settings).item() == pytest.approx(numbers * 0.25**2, rel=1e-5)


def test_distances_are_those_of_a_plain_loop():
    torch.manual_seed(3)
    encoders = CoupledEncoders(tiny_backbone(), Coupling(**{**dict.fromkeys(PARTS, "soft"), "stem": "hard"}))
    start = {key: value.detach().clone() for key, value in encoders.sketch.named_parameters()}
    distances = Distances(encoders, 10)
    with torch.no_grad():
        for parameter in encoders.parameters():
            parameter.add_(torch.randn_like(parameter))
    distances.read(7)
    arrays = distances.arrays()
    photo = dict(encoders.photo.named_parameters())
    assert arrays["steps"].tolist() == [0, 7] and arrays["layers"].tolist() == list(start)
    for i, (name, parameter) in enumerate(encoders.sketch.named_parameters()):
        expected = [np.linalg.norm((a - b).detach().double().numpy()) for a, b in (
            (parameter, photo[name]), (parameter, start[name]), (photo[name], start[name]))]
        found = [arrays[key][1, i] for key in ("between", "sketch", "photo")]
        assert found == pytest.approx(expected, rel=1e-5)
        assert arrays["start_norm"][i] == pytest.approx(float(start[name].double().norm()), rel=1e-5)
    # the stem's convolution is one tensor: both encoders move together
    stem = (arrays["parts"] == "stem") & (arrays["kinds"] == "convolution")
    assert stem.any() and not arrays["between"][1, stem].any() and arrays["sketch"][1, stem].all()
    assert not any(arrays[key][0].any() for key in ("between", "sketch", "photo"))


def test_distances_are_read_at_the_first_steps_the_last_and_evenly_between():
    encoders = CoupledEncoders(tiny_backbone(), Coupling())
    reader = Distances(encoders, 21_400)
    due = [step for step in range(1, 21_401) if reader.due(step)]
    assert due[:FIRST_STEPS] == list(range(1, FIRST_STEPS + 1)) and due[-1] == 21_400
    assert READINGS <= len(due) < READINGS + FIRST_STEPS + 30
    short = Distances(encoders, 20)
    assert [step for step in range(1, 21) if short.due(step)] == list(range(1, 21))


def test_distances_of_a_resumed_run_equal_those_of_a_straight_one(tmp_path):
    _, _, _, straight = train(tmp_path / "straight", "tcn", epochs=3)
    variant = baselines.find("tcn")
    resolved = config(**{"training.epochs": 3})
    _, source, validation = setup(resolved)
    (tmp_path / "parts").mkdir()

    class Stop(Exception):
        pass

    first = variant.method.build(resolved, ingredients())

    def stop(history):
        raise Stop

    with pytest.raises(Stop):
        loop.fit(variant.method, first, source, validation, resolved, tmp_path / "parts", CPU, progress=False, on_epoch=stop,
                     distances=Distances(first.encoders, 3 * source.steps))
    model = variant.method.build(resolved, ingredients())
    again = Distances(model.encoders, 3 * source.steps)
    loop.fit(variant.method, model, source, validation, resolved, tmp_path / "parts", CPU, progress=False, distances=again)
    for key, value in straight.arrays().items():
        assert np.array_equal(value, again.arrays()[key]), key


def test_distances_of_another_network_are_refused():
    reader = Distances(CoupledEncoders(tiny_backbone(), Coupling()), 10)
    with pytest.raises(InputError, match="another network"):
        reader.restore({**reader.state(), "layers": ["another"]})


def test_validation_data_may_be_absent(tmp_path):
    """A control trains without validation classes, chosen by seen accuracy, as on the paper's data sets."""
    variant = baselines.find("hard-conv")
    resolved = config(**{**variant.delta, "training.epochs": 1})
    _, source, validation = setup(resolved)
    model = variant.method.build(resolved, ingredients())
    history = loop.fit(variant.method, model, source, ValidationData(validation.heldout, None, None), resolved, tmp_path,
                           CPU, progress=False)
    assert history.best_epoch == 1
