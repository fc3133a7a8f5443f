"""The loop on a tiny real problem: it learns, repeats, resumes bit for bit, and keeps the chosen epoch."""
from __future__ import annotations

import math

import pytest
import torch
from support.small_models import CPU, config, ingredients, pixels, setup, strip, tiny_backbone, train
from torch import nn

import baselines
from tcn.config import PARTS, InputError, change
from tcn.train import loop
from tcn.train.loop import Diverged, History, ValidationData
from tcn.train.method import TCN


def test_training_lowers_the_class_loss_and_classifies(tmp_path):
    _, history = train(tmp_path, config(**{"training.epochs": 20, "losses.sharing": 0.1}))
    assert history.epochs[-1]["class_sketch"] < 0.75 * history.epochs[1]["class_sketch"]
    assert max(row["seen_accuracy"] for row in history.epochs) > 0.6
    assert len(history.steps) == 20 * 3 and [r["epoch"] for r in history.epochs] == list(range(21))


def test_two_runs_agree_bit_for_bit_and_another_seed_does_not(tmp_path):
    first, h1 = train(tmp_path / "a", config())
    second, h2 = train(tmp_path / "b", config())
    other, _ = train(tmp_path / "c", config(seed=7))
    assert strip(h1.epochs) == strip(h2.epochs) and h1.steps == h2.steps
    states = [m.state_dict() for m in (first, second, other)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


class Stop(Exception):
    pass


@pytest.mark.parametrize("delta", [{}, {"network.dropout": 0.5, "network.embedding_norm": "per_modality"},
                                   {"losses.semantic_form": "separate", "coupling.embedding": "soft"}])
def test_stopped_and_resumed_equals_straight_bit_for_bit(tmp_path, delta):
    settings = config(**{"training.epochs": 4, **delta})
    straight, expected = train(tmp_path / "straight", settings)

    def stop_after_two(history):
        if history.epochs[-1]["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        train(tmp_path / "halves", settings, on_epoch=stop_after_two)
    torch.manual_seed(12345)
    resumed, history = train(tmp_path / "halves", settings)
    assert strip(history.epochs) == strip(expected.epochs) and history.steps == expected.steps
    assert history.best_epoch == expected.best_epoch
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_selection_without_its_data_is_refused(tmp_path):
    settings = config(**{"training.select_by": "validation_map"})
    model, source, validation = setup(settings)
    for select_by, data in (("validation_map", ValidationData(validation.heldout, None, None)),
                            ("seen_accuracy", ValidationData(None, validation.sketches, validation.photos))):
        with pytest.raises(InputError, match=f"'training.select_by' is '{select_by}'"):
            loop.fit(TCN, model, source, data, change(settings, {"training.select_by": select_by}), tmp_path, CPU,
                     progress=False, on_epoch=lambda history: pytest.fail("an epoch was trained"))


def test_class_accuracy_is_a_mean_over_classes():
    class Fixed(nn.Module):
        def encode(self, images, modality):
            return torch.zeros(len(images), 3)

        def classify(self, features, modality):
            return torch.tensor([[0.0, 1.0, 0.0]]).expand(len(features), 3)

    # Class 1 right twice, class 0 wrong once: 1/2 over classes, though 2/3 over images.
    assert loop.class_accuracy(Fixed(), pixels([1, 1, 0], 0), 12, CPU) == 0.5


def test_divergence_is_reported_with_its_place(tmp_path):
    settings = config(**{"training.encoder_rate": 1e30, "training.head_rate": 1e30})
    with pytest.raises(Diverged, match="epoch 1, step"):
        train(tmp_path, settings)


def test_an_exploding_loss_is_stopped_before_it_stops_being_a_number():
    readings = loop._Readings(History(), epoch=1, steps=5, every=1)
    readings.add({"sharing": torch.tensor(169.0), "total": torch.tensor(4e5)}, 4)  # the largest of 84 runs
    with pytest.raises(Diverged, match=r"loss exploded at epoch 1, step 1 \(semantic=2e\+06\); "
                                       r"lower training.encoder_rate") as stopped:
        readings.add({"semantic": torch.tensor(2e6), "total": torch.tensor(2e6)}, 4)
    assert (stopped.value.epoch, stopped.value.step, stopped.value.values["total"]) == (1, 2, 2e6)


def test_rates_are_not_blamed_for_a_loss_before_the_first_update():
    for epoch, advice in ((1, "look at the weights, the word vectors"), (2, "lower training.encoder_rate")):
        with pytest.raises(Diverged, match=f"epoch {epoch}, step 0 .*{advice}"):
            loop._Readings(History(), epoch, steps=5, every=1).add({"total": torch.tensor(float("nan"))}, 4)


def test_weights_ruined_by_an_epoch_s_last_step_are_a_divergence(tmp_path):
    settings = config(**{"training.epochs": 1, "training.encoder_rate": 1e30, "training.head_rate": 1e30, "data.batch_pairs": 24})
    with pytest.raises(Diverged, match="features of validation images are not finite") as stopped:
        train(tmp_path, settings)
    assert (stopped.value.epoch, stopped.value.step, len(stopped.value.history.steps)) == (1, 1, 1)
    assert not list(tmp_path.glob("epoch-*"))


def test_a_divergence_found_after_an_epoch_is_named_by_its_last_step(tmp_path, monkeypatch):
    seen, validate = [], loop.validate

    def breaks(*arguments):
        seen.append(arguments)
        if len(seen) == 3:  # before training, after the first epoch, after the second
            raise Diverged("not finite", 0, 0, {})
        return validate(*arguments)

    monkeypatch.setattr(loop, "validate", breaks)
    with pytest.raises(Diverged) as stopped:
        train(tmp_path, config(**{"training.epochs": 2, "data.batch_pairs": 8}))
    steps = len(stopped.value.history.steps)
    assert (stopped.value.epoch, stopped.value.step) == (2, steps) and steps > 2 and len(stopped.value.history.epochs) == 2


def test_a_model_s_start_follows_the_run_s_seed_and_nothing_else():
    def start(seed: int, stream: int) -> dict[str, torch.Tensor]:
        parts = ingredients()
        torch.manual_seed(stream)
        model = TCN.build(config(seed=seed), parts)
        assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(stream)))
        return model.state_dict()

    first, again, other = start(0, 1), start(0, 2), start(5, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    differ = {name for name in first if not torch.equal(first[name], other[name])}
    # encoders and what the SVD of the teacher's classifier gives are the same in every run
    assert {name for name in first if name.startswith("word_") or "class_head" in name} <= differ
    assert not any("encoders" in name or "projection.weight" in name for name in differ if not name.startswith("word_"))


def test_how_the_semantic_term_is_left_out_says_nothing_while_it_is_in():
    found = []
    for off in ("as-released", "zero"):
        settings = config(**{"losses.semantic": 0.5, "losses.semantic_off": off})
        model, source, _ = setup(settings)
        losses = TCN.losses(model, next(source.epoch(0, 1, CPU)), settings, torch.Generator().manual_seed(0))
        found.append((losses.weights, {name: value.tolist() for name, value in losses.terms.items()}))
    assert found[0] == found[1] and found[0][0]["semantic"] == 0.5


def test_teacher_is_no_part_of_the_checkpoint_and_learns_nothing(tmp_path):
    model, history = train(tmp_path, config())
    assert not any("teacher" in key for key in model.state_dict())
    fresh = setup(config())[0].teacher.backbone.state_dict()
    assert all(torch.equal(v, fresh[k]) for k, v in model.teacher.backbone.state_dict().items())


def test_a_loss_that_stops_being_a_number_is_named_by_its_step_however_late_it_is_read():
    for every in (1, 3, 16):
        history = History()
        readings = loop._Readings(history, epoch=2, steps=5, every=every)
        with pytest.raises(Diverged, match=r"epoch 2, step 3 \(semantic=nan, total=nan\)"):
            for step in range(5):
                value = torch.tensor(math.nan if step == 3 else 1.0 + step)
                readings.add({"class_photo": torch.tensor(0.5), "semantic": value, "total": value}, pairs=4)
            readings.fetch()
        assert [row["step"] for row in history.steps] == [6, 7, 8]
        assert [row["total"] for row in history.steps] == [1, 2, 3] and readings.sums["total"] == 4 * (1 + 2 + 3)


@pytest.mark.parametrize("name", sorted({*baselines.VARIANTS} - {*baselines.FOUNDATION}))
def test_every_variant_builds_and_takes_a_step(name):
    variant = baselines.find(name)
    # The tiny network has 4 features, and the tiny teacher's maps are 4 channels wide: longer embeddings start at random.
    wide = {"network.start": "random"} if variant.delta.get("network.dim", 0) > 4 else {}
    settings = config(**variant.delta, **wide)
    _, source, _ = setup(config())
    model = variant.method.build(settings, ingredients())
    terms = variant.method.losses(model, next(source.epoch(0, 1, CPU)), settings, torch.Generator().manual_seed(0))
    terms.total().backward()
    assert terms.total().isfinite() and any(p.grad is not None for p in model.groups()["encoder"])
    shared = len(list(model.network.encoders.parameters())) < 2 * len(list(tiny_backbone().parameters()))
    tied = settings.coupling
    assert shared == ("hard" in (*(getattr(tied, part) for part in PARTS), tied.batch_norm_affine))
