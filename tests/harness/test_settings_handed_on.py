"""Settings of what a run reads, extracts and computes with arrive there: pictures, words, networks, features, kernels."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.golden_oracle import shown
from support.runs_in_memory import SEEN, SIZE, UNSEEN, VALIDATION, InMemory, config_of, ran
from support.small_models import CPU, tiny_backbone
from torch import nn

from benchmarks import extraction, material
from benchmarks.extraction import Encoder, run_features
from benchmarks.material import Material, Places, build_model
from tcn.config import Config, InputError, Modality, change
from tcn.data.augment import to_network
from tcn.data.splits import Files, Split
from tcn.data.words import Words
from tcn.model.backbones import Classifier
from tcn.model.batch_norms import TwoPassBatchNorm2d
from tcn.model.execution import CroppedConv2d
from tcn.scoring import features, moments
from tcn.train import loop, method
from tcn.train.method import TCN, LossTerms, Method, TcnModel

# --- features ------------------------------------------------------------------------------------------------

def lopsided(config: Config) -> TcnModel:
    """A model whose two sides differ in everything that training would part."""
    model = build_model(TCN, config, InMemory().ingredients(config), CPU)
    generator = torch.Generator().manual_seed(3)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator), alpha=0.1)
    return model.eval()


def by_hand(model: TcnModel, pictures: np.ndarray, side: str, output: str, config: Config) -> np.ndarray:
    """Features of pictures from the network's parts."""
    images = np.stack([shown(picture, config.data.image_size, config.data.resize == "rounded") for picture in pictures])
    with torch.no_grad():
        raw = getattr(model.network.encoders, side)(torch.from_numpy(images).float())
        if config.evaluation.features == "backbone":
            return raw.numpy()
        embedding = model.network.embeddings[output]
        return embedding.norm.norms[output](embedding.projection(raw)).numpy()


@pytest.mark.parametrize("delta", [{}, {"data.resize": "rounded"}, {"evaluation.photo_side": "sketch"},
                                   {"evaluation.features": "backbone", "data.resize": "rounded"},
                                   {"evaluation.statistics": "per_modality", "evaluation.photo_side": "sketch",
                                    "data.resize": "rounded"}, {"evaluation.statistics": "pca", "network.dim": 2}],
                         ids=lambda delta: ", ".join(map(str, delta.values())) or "default")
def test_features_are_those_of_the_pictures_as_the_settings_show_them(delta, monkeypatch):
    """All lists of a run, the other side's too, and further pictures by `Encoder`."""
    monkeypatch.setattr(moments, "LARGE", 0)  # else scikit-learn is imported, which takes seconds
    config = config_of(**{"network.embedding_norm": "per_modality", **delta})
    made, model = InMemory(), lopsided(config)
    other = "photo" if config.evaluation.photo_side == "sketch" else "sketch"

    def of(role: str, side: str, output: str) -> np.ndarray:
        return by_hand(model, made.lists[role].array, side, output, config)

    seen = {side: of(f"train_{many}", side, side) for side, many in (("sketch", "sketches"), ("photo", "photos"))}

    def treated(rows: np.ndarray, side: str) -> np.ndarray:
        if config.evaluation.statistics == "per_modality":
            return (rows - seen[side].mean(0)) / seen[side].std(0)
        if config.evaluation.statistics == "pca":
            both = np.concatenate(list(seen.values()))
            axes = np.linalg.svd(both - both.mean(0))[2][:config.network.dim]
            return np.abs((rows - both.mean(0)) @ axes.T)  # the sign of an axis is free
        return rows

    def same(found: np.ndarray, expected: np.ndarray) -> None:
        found = np.abs(found) if config.evaluation.statistics == "pca" else found
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    found = run_features(model, config, made, CPU, both_sides=True)
    encoder = Encoder(model, config, made, CPU)
    output = config.evaluation.photo_side
    for own, query, gallery in ((found.unseen, "query", "gallery"),
                                (found.validation, "validation_sketches", "validation_photos")):
        for rows in (own.query, encoder(made.lists[query], Modality.SKETCH)):
            same(rows, treated(of(query, "sketch", "sketch"), "sketch"))
        for rows in (own.gallery, encoder(made.lists[gallery], Modality.PHOTO)):
            same(rows, treated(of(gallery, "photo", output), "photo"))
    same(found.other_side, treated(of("gallery", "photo", other), "photo"))
    for side in Modality:
        same(found.seen[side], treated(seen[side.value], side.value))
    if config.data.resize == "rounded":
        otherwise = run_features(model, change(config, {"data.resize": "float"}), made, CPU, False).unseen.query
        assert np.abs(otherwise - found.unseen.query).max() > 1e-3, "the pictures must tell the two apart"


def test_a_frozen_encoder_s_features_are_taken_once_for_runs_that_differ_in_what_they_make_of_them(monkeypatch):
    """A trained one's are taken for every run."""
    base = config_of(**{"evaluation.features": "backbone", "network.dim": 2})
    made, model = InMemory(), lopsided(base)
    calls: list[int] = []

    def noted(*given: Any, **named: Any) -> np.ndarray:
        calls.append(len(given[1]))
        return features.extract(*given, **named)

    monkeypatch.setattr(extraction, "extract", noted)
    for frozen, taken in ((True, [6, 0, 6]), (False, [6, 6, 6])):
        monkeypatch.setattr(extraction, "method_of", lambda config, frozen=frozen: replace(TCN, frozen=frozen))
        for delta, number in zip(({}, {"evaluation.statistics": "per_modality"}, {"data.resize": "rounded"}), taken, strict=True):
            calls.clear()
            run_features(model, change(base, delta), made, CPU, both_sides=False)
            assert len(calls) == number, (frozen, delta)


def test_validation_sees_pictures_as_the_settings_show_them_before_training_and_after_each_epoch(tmp_path, monkeypatch):
    seen = []

    def noted(images: torch.Tensor, size: int, how: str = "float") -> torch.Tensor:
        seen.append((size, how))
        return to_network(images, size, how)

    monkeypatch.setattr(features, "to_network", noted)
    ran(config_of(**{"data.resize": "rounded", "training.epochs": 2}), tmp_path, scored=False)
    assert seen == [(SIZE, "rounded")] * 3 * 3


# --- what a run reads ----------------------------------------------------------------------------------------

def asked(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, answer: Any) -> list[tuple[tuple, dict[str, Any]]]:
    """The arguments of all calls of a function, which gives `answer`."""
    calls: list[tuple[tuple, dict[str, Any]]] = []
    monkeypatch.setattr(module, name, lambda *given, **named: calls.append((given, named)) or answer)
    return calls


def test_pictures_are_read_as_the_settings_say(tmp_path, monkeypatch):
    """Transparent below, on its head by EXIF: each way of reading from one and the same `Material`, which keeps what it read."""
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[:4], picture[4:] = (200, 10, 30, 255), (20, 40, 250, 0)
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.fromarray(picture).save(tmp_path / "one.png", exif=turned)
    files = Files(tmp_path, ("one.png",), np.array([0]), ("",))
    split = Split("sketchy", "1", SEEN, VALIDATION, UNSEEN, *[files] * 7, "d" * 64, "e" * 64)
    own = Material(Places(cache=tmp_path / "cache", progress=False))
    monkeypatch.setattr(own, "split_of", lambda config: split)
    for side in (8, 4):
        for transparent, below in (("white", (255, 255, 255)), ("as-stored", (20, 40, 250))):
            for exif in ("ignored", "applied"):
                config = config_of(**{"data.stored_size": side, "data.transparent": transparent, "data.exif": exif})
                [found] = np.asarray(own.pixels(config, "query").array)
                rows = [(200, 10, 30), below] if exif == "ignored" else [below, (200, 10, 30)]
                assert found.shape == (side, side, 3) and [tuple(found[at, 0]) for at in (0, -1)] == rows


def test_words_are_of_unit_length_or_raw_as_the_settings_say(tmp_path, monkeypatch):
    table = tmp_path / "words.csv"
    table.write_text("name,v0,v1\nant,3,4\nbee,0,2\ncow,5,12\n")
    own = Material(Places(cache=tmp_path, words=table, progress=False))
    monkeypatch.setattr(own, "split_of", lambda config: InMemory().made)
    for unit, vectors in ((False, [[3, 4], [0, 2], [5, 12]]), (True, [[3 / 5, 4 / 5], [0, 1], [5 / 13, 12 / 13]])):
        config = config_of(**{"data.unit_words": unit})
        np.testing.assert_allclose(own.words(config).vectors, vectors, rtol=1e-6)
        np.testing.assert_allclose(own.word_tensors(config)[0], vectors, rtol=1e-6)


def test_imagenet_s_words_are_of_the_source_of_the_classes_or_the_committed_ones(tmp_path, monkeypatch):
    calls = asked(monkeypatch, material, "load_words", Words(SEEN, np.ones((3, 2), np.float32), ""))
    for own, source in ((None, material.IMAGENET_WORDS), (tmp_path / "own.csv", tmp_path / "own.csv")):
        Material(Places(cache=tmp_path, words=own, progress=False)).imagenet_words()
        (given, named) = calls[-1]
        assert (given[0], len(given[1]), named) == (source, 1000, {"unit": True})


def test_the_split_that_the_settings_name_is_loaded(tmp_path, monkeypatch):
    made = InMemory().made
    calls = asked(monkeypatch, material.splits, "load", made)
    own = Material(Places(cache=tmp_path, progress=False))
    for dataset, name, validation in (("sketchy", "1", "own"), ("sketchy", "2", "own"), ("sketchy", "1", "carved"),
                                      ("quickdraw", "1", "own")):
        config = config_of(**{"data.dataset": dataset, "data.split": name, "data.validation": validation})
        assert own.split_of(config) is made
        (given, named) = calls[-1]
        assert (*given, named["validation"]) == (dataset, name, validation)
    assert len(calls) == 4


def test_encoder_and_teacher_are_those_that_the_settings_name(tmp_path, monkeypatch):
    encoder, teacher = tiny_backbone(1), (tiny_backbone(2), Classifier(torch.ones(6, 4), torch.zeros(6)))
    calls = {name: asked(monkeypatch, material.backbones, name, answer)
             for name, answer in (("encoder", encoder), ("build", teacher))}
    own = Material(Places(cache=tmp_path, weights=Path("w"), teacher_weights=Path("t"), progress=False))
    monkeypatch.setattr(own, "split_of", lambda config: InMemory().made)
    monkeypatch.setattr(own, "words", lambda config: Words(SEEN, np.ones((3, 2), np.float32), ""))
    weights = {"network.weights": "file:" + "a" * 64, "network.teacher_weights": "file:" + "b" * 64}
    made = own.ingredients(config_of(**{"network.backbone": "resnet18", **weights}))
    assert made.encoder is encoder and (made.teacher, made.classifier) == teacher
    assert calls == {"encoder": [(("resnet18", weights["network.weights"], Path("w")), {})],
                     "build": [(("resnet18", weights["network.teacher_weights"], Path("t")), {})]}


# --- how it is computed --------------------------------------------------------------------------------------

def model_of(**execution: str) -> TcnModel:
    config = config_of(**{f"execution.{name}": value for name, value in execution.items()})
    return build_model(TCN, config, InMemory().ingredients(config), CPU)


def parts_of(model: TcnModel, kind: type) -> list[nn.Module]:
    return [module for backbone in (model.network.encoders, model.teacher) for module in backbone.modules()
            if type(module) is kind]


def test_the_form_of_the_modules_is_the_one_asked_for():
    convolutions = {order: model_of(memory_format=order, convolutions="as-is") for order in ("channels-last", "contiguous")}
    for order, model in convolutions.items():
        weights = [module.weight for module in parts_of(model, nn.Conv2d)]
        assert len(weights) == 15
        assert all(w.is_contiguous(memory_format=torch.channels_last) == (order == "channels-last") for w in weights)
    assert len(parts_of(model_of(), CroppedConv2d)) == 15 and not parts_of(model_of(convolutions="as-is"), CroppedConv2d)
    assert len(parts_of(model_of(), TwoPassBatchNorm2d)) == 10 and not parts_of(model_of(batch_norm="native"), TwoPassBatchNorm2d)
    assert len(parts_of(model_of(batch_norm="native", teacher="as-is"), nn.BatchNorm2d)) == 15


def test_encoders_and_teacher_are_compiled_where_that_is_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, *_, **__: calls.append(module))
    assert model_of() and not calls
    model = model_of(compile="encoders")
    assert {id(module) for module in calls} == {
        id(module) for module in (model.encoders.sketch, model.encoders.photo, model.teacher.backbone)}


def test_graphs_are_recorded_for_the_run_s_batches_and_refused_on_the_cpu(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="graphs"):
        model_of(graphs="encoders")
    calls = []
    monkeypatch.setattr(TcnModel, "record", lambda model, sample: calls.append(
        (tuple(sample.shape), torch.are_deterministic_algorithms_enabled())))
    for graphs in ("none", "encoders"):
        config = config_of(**{"execution.graphs": graphs, "execution.algorithms": "deterministic"})
        model = TCN.build(config, InMemory().ingredients(config))
        made = InMemory()
        source = loop.PairSource(made.lists["train_sketches"], made.lists["train_photos"], config.data)
        loop.fit(TCN, model, source, made.validation(config), config, tmp_path, CPU, progress=False)
        assert calls == [((config.data.batch_pairs, 3, SIZE, SIZE), True)] * (graphs == "encoders")


def test_optimizer_and_sharing_take_the_form_asked_for(monkeypatch):
    for form in ("fused", "loop"):
        [group, _] = loop.adam(model_of(), config_of(**{"execution.optimizer": form})).param_groups
        assert (group["fused"], group["foreach"]) == ((True, None) if form == "fused" else (False, False))
    calls = asked(monkeypatch, method, "sharing_norms", torch.zeros(1))
    for form in ("fused", "loop"):
        assert method.soft_tying(model_of(), config_of(**{"execution.sharing": form})) is not None
        assert calls[-1][0][1] == form


@pytest.mark.parametrize("algorithms", ("fast", "deterministic"))
def test_training_asks_for_deterministic_algorithms_where_the_settings_do(algorithms, tmp_path):
    found = []

    def losses(model: TcnModel, batch: Any, config: Config, generator: torch.Generator) -> LossTerms:
        found.append(torch.are_deterministic_algorithms_enabled())
        return LossTerms({"nothing": 0 * sum(p.sum() for p in model.parameters())}, {"nothing": 1.0})

    config, made = config_of(**{"execution.algorithms": algorithms}), InMemory()
    source = loop.PairSource(made.lists["train_sketches"], made.lists["train_photos"], config.data)
    loop.fit(Method("notes", TCN.build, losses), model_of(), source, made.validation(config), config, tmp_path, CPU,
             progress=False)
    assert found == [algorithms == "deterministic"] * 2
