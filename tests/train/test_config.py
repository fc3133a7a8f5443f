"""Settings: strict, hashed by content, and held to the versions the environment files name."""
from __future__ import annotations

import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from support.settings import RATE, SEED, SIDE, WEIGHT, choice, refused

from benchmarks import experiments
from tcn import metrics
from tcn.config import BACKBONES, SPLITS, Config, InputError, change, check, flatten, from_dict, identity, to_dict, whole_of
from tcn.data import decode, specs
from tcn.model import backbones
from tcn.scoring import codes
from tcn.seeding import numpy_stream, stream_seed, torch_stream

ROOT = Path(__file__).parents[2]


def test_config_survives_a_round_trip():
    config = change(Config(), {"losses.sharing": 10, "data.dataset": "emoji", "losses.margin": 0.2})
    assert from_dict(to_dict(config)) == config
    assert flatten(to_dict(config))["losses.margin"] == 0.2


@pytest.mark.parametrize("delta, words", [
    ({"losses.sharring": 1}, "sharring"), ({"loss.sharing": 1}, "loss"), ({"losses": 1}, "group"), ({"seed.part": 1}, "no parts"),
    ({"losses.sharing": math.nan}, "'losses.sharing' is nan"),
    ({"training.encoder_rate": math.inf}, "'training.encoder_rate' is inf"),
    ({"data.sketch_fill": 9999}, "'data.sketch_fill' is 9999; it takes a whole number from 0 to 255"),
    ({"network.backbone": "vgg"}, "'network.backbone' is 'vgg'; it takes one of resnet50, resnet18, efficientnet_lite0, "
                                  "efficientnet_lite2, test_resnet"),
    ({"losses.sharing": 10 ** 400}, "losses.sharing"), ({"seed": 10 ** 5000}, "'seed' is a number of too many digits"),
    ({"data.split": "2"}, "'data.split' is '2'; 'emoji' has fixed"), ({"data.dataset": "tuberlin", "data.split": "2"}, "has 1"),
    ({"data.dataset": "tuberlin-first3", "data.split": "2"}, "'tuberlin-first3' has 1"),
    ({"data.validation": "carved"}, "'emoji' has validation classes of its own"),
    ({"data.batch_pairs": 4, "network.batch_norm_split": 5}, "more than the 4 pairs"),
    ({"execution.graphs": "encoders", "execution.compile": "encoders"}, "goes with neither"),
    ({"execution.graphs": "encoders", "network.batch_norm_split": 2}, "goes with neither"),
    ({"training.epochs": 0}, "at least 1"), ({"coupling.call": "joint"}, "joint")])
def test_bad_settings_are_named(delta, words):
    with pytest.raises(InputError, match=re.escape(words)):
        change(Config(), delta)


# What each field takes, written down a second time.
TIE = (("hard", "soft", "none"), ("Hard", "free"), ("hard, soft, none",))
GREY = ((0, 255), (-1, 256), ("0 to 255",))
DIGEST = "0123456789abcdef" * 4
WEIGHTS = (("imagenet", f"file:{DIGEST}"),
           ("", "random", "file:", f"file:{DIGEST[1:]}", f"file:{DIGEST}0", f"file:{DIGEST.upper()}",
            f"imagenet|file:{DIGEST}", f"file:{DIGEST}\n"), ("imagenet", "file:", "64"))


TAKES = {
    "data.dataset": (("emoji", "sketchy", "tuberlin", "quickdraw", "sketchy-first25", "tuberlin-first1", "quickdraw-first9999",
                      "sketchy-original", "emoji-generalised", "sketchy-first25-generalised"),
                     ("", "my_set", "emoji-generalised-generalised", "sketchy-generalised-first25", "Sketchy", "emoji-first5",
                      "sketchy-first0", "sketchy-first025", "sketchy-first10000", "sketchy-first",
                      "sketchy-first25\n", "tuberlin-original", "sketchy, tuberlin"), ("sketchy-first25",)),
    "data.declared": (("built-in", f"file:{DIGEST}"), ("", "file:", f"file:{DIGEST[1:]}", f"file:{DIGEST}\n", "my_set.yaml"),
                      ("built-in", "file:", "SHA-256")),
    "data.validation": choice("own", "carved"),
    "data.split": (("fixed", "1", "2"), ("", "0", "3", "random"), ("fixed, 1, 2",)),
    "data.image_size": SIDE, "data.stored_size": ((2, 256, 4096), (0, 1, -1, 4097), ("2 to 4,096",)),
    "data.batch_pairs": ((1, 32, 65536), (0, -2, 65537), ("1 to 65,536",)),
    "data.augmentation": choice("corrected", "released"), "data.sketch_fill": GREY, "data.photo_fill": GREY,
    "data.unit_words": ((True, False), (), ("true or false",)), "data.loader_streams": choice("fresh", "replayed"),
    "data.resize": choice("float", "rounded"), "data.transparent": choice("white", "as-stored"),
    "data.exif": choice("ignored", "applied"),
    **{f"coupling.{part}": TIE for part in ("stem", "stage1", "stage2", "stage3", "stage4", "batch_norm_affine", "embedding")},
    "coupling.batch_norm_statistics": (("hard", "none"), ("soft",), ("hard, none",)),
    "coupling.call": choice("joint", "separate"),
    "network.backbone": (("resnet50", "resnet18", "efficientnet_lite0", "efficientnet_lite2", "test_resnet",
                          "timm:vit_tiny.some_tag", "torchvision:regnet_y_400mf"),
                         ("", "ResNet50", "resnet50 ", "timm:", "timm:a/b", "timm:a:b", "timm:a.b.c", "hub:vit", "timm:vit\n"),
                         ("resnet50, resnet18", "timm:NAME or torchvision:NAME")),
    "network.weights": WEIGHTS, "network.teacher_weights": WEIGHTS,
    "network.dim": ((1, 64, 65536), (0, -64, 65537), ("1 to 65,536",)),
    "network.embedding_norm": choice("shared", "per_modality"),
    "network.dropout": ((0, 0.0, 0.5, 0.999), (-0.001, 1, 1.0, 1.5), ("from 0 to below 1",)),
    "network.start": choice("svd", "random"), "network.batch_norm_split": ((1, 2, 4096), (0, -1, 4097), ("1 to 4,096",)),
    **{f"losses.{term}": WEIGHT for term in ("class_sketch", "class_photo", "distillation", "sharing", "semantic", "regression")},
    "losses.semantic_form": choice("coupled", "separate"), "losses.semantic_off": choice("zero", "as-released"),
    "losses.margin": ((None, 0, 0.2, 1e30), (-0.2, 1.1e30), ("none (null)", "from 0 to 1e+30")),
    "training.epochs": ((0, 1, 100000), (-1, 100001), ("0 to 100,000",)),
    "training.encoder_rate": RATE, "training.head_rate": RATE, "training.weight_decay": WEIGHT,
    "training.optimizer": choice("adam", "none"), "training.select_by": choice("seen_accuracy", "validation_map"),
    "execution.precision": choice("float32", "tf32", "bf16"), "execution.memory_format": choice("channels-last", "contiguous"),
    "execution.batch_norm": choice("two-pass", "native"),
    "execution.compile": choice("none", "encoders"), "execution.graphs": choice("none", "encoders"),
    "execution.optimizer": choice("fused", "loop"), "execution.sharing": choice("fused", "loop"),
    "execution.teacher": choice("folded", "as-is"),
    "execution.convolutions": choice("cropped", "as-is"), "execution.algorithms": choice("fast", "deterministic"),
    "evaluation.features": choice("embedding", "backbone"), "evaluation.statistics": choice("network", "per_modality", "pca"),
    "evaluation.photo_side": choice("photo", "sketch"), "evaluation.binary": ((True, False), (), ("true or false",)),
    "evaluation.itq_rule": choice("textbook", "released"), "evaluation.itq_fit": choice("seen", "as-released"),
    "evaluation.itq_start": choice("drawn", "released"),
    "evaluation.ties": choice("expected", "best", "worst", "gallery-order", "scikit-learn", "unstable-sort", "as-released"),
    "evaluation.missing_classes": choice("error", "zero", "as-released"),
    "method": (("tcn", "l2-sp", "sake", 60 * "a"), ("", "TCN", "a b", "../tcn", "tcn\n", 61 * "a"), ("lower case",)),
    "method_source": (("built-in", f"file:{DIGEST}"), ("", "file:", f"file:{DIGEST[1:]}", f"file:{DIGEST}\n", "my_method.py"),
                      ("built-in", "file:", "SHA-256")),
    "seed": SEED}
FIELDS = flatten(to_dict(Config()))
# Settings that let any value of another stand beside them.
ROOM = {"data.split": {"1": {"data.dataset": "tuberlin"}, "2": {"data.dataset": "sketchy"}},
        "data.dataset": {name: {"data.split": "1"}
                         for name in ("sketchy", "tuberlin", "quickdraw", "sketchy-first25", "tuberlin-first1",
                                      "quickdraw-first9999", "sketchy-original", "sketchy-first25-generalised")},
        "data.declared": {f"file:{DIGEST}": {"data.dataset": "my_set"}},
        "data.validation": {"carved": {"data.dataset": "sketchy", "data.split": "1"}},
        "data.batch_pairs": {}, "network.batch_norm_split": {4096: {"data.batch_pairs": 4096}},
        "training.epochs": {0: {"training.optimizer": "none"}},
        "coupling.call": {"joint": {f"coupling.{part}": "hard" for part in ("stem", "stage1", "stage2", "stage3", "stage4",
                                                                           "batch_norm_affine", "batch_norm_statistics")}}}


def test_every_field_has_its_row_here():
    assert set(FIELDS) == set(TAKES)


@pytest.mark.parametrize("key", FIELDS)
def test_every_field_refuses_what_it_does_not_take(key):
    takes, _, words = TAKES[key]
    group, _, name = key.rpartition(".")
    for value in refused(TAKES[key]):
        with pytest.raises(InputError) as caught:
            change(Config(), {key: value})
        said = str(caught.value)
        assert f"setting '{key}'" in said and all(word in said for word in words), (key, value, said)
        # As well where the config was not made by `change`.
        raw = replace(Config(), **{name: value}) if not group else replace(
            Config(), **{group: replace(getattr(Config(), group), **{name: value})})
        with pytest.raises(InputError, match=f"'{re.escape(key)}'"):
            check(raw)
    for value in takes:
        found = flatten(to_dict(change(Config(), {**ROOM.get(key, {}).get(value, {}), key: value})))[key]
        real = any(type(each) is float for each in takes)
        assert found == value and type(found) is (float if real and value is not None else type(value))


def test_choices_are_those_of_the_parts_that_read_them():
    assert set(BACKBONES) == set(backbones.SOURCES)
    assert {name: spec.splits for name, spec in specs.SPECS.items()} == SPLITS
    assert {whole_of(name) for name in TAKES["data.dataset"][0]} == set(SPLITS)
    assert set(TAKES["data.split"][0]) == {name for splits in SPLITS.values() for name in splits}
    assert TAKES["evaluation.ties"][0] == metrics.TIES
    assert set(TAKES["evaluation.itq_rule"][0]) == set(codes.RULES) and set(TAKES["evaluation.itq_fit"][0]) == set(codes.FITS)
    assert set(TAKES["evaluation.itq_start"][0]) == set(codes.STARTS)
    assert {(r.transparent, r.exif) for r in decode.READINGS} == {
        (transparent, exif) for transparent in TAKES["data.transparent"][0] for exif in TAKES["data.exif"][0]}


def test_identities_of_earlier_runs_stand():
    # Recorded before fields held their own bounds: a change here makes finished runs strangers.
    def names(profile, *variants, as_released=False):
        runs = experiments.plan(experiments.PROFILES[profile], None, variants, None, {}, False, as_released)
        return [name(one_run.config) for one_run in runs]

    def name(config):
        # At the values that later settings had then; deviations turned on were those, and the loader's on every data set.
        then = {"execution.batch_norm": "native", "data.resize": "float", "data.transparent": "white", "data.exif": "ignored",
                "evaluation.itq_start": "drawn"}
        if config.data.augmentation == "released":
            then |= {"data.loader_streams": "replayed", "evaluation.ties": "unstable-sort"}
        return identity(change(config, then), "d" * 64, "s" * 64, "w" * 64)[:16]

    assert name(Config()) == "d51a83089b3456b1"
    assert names("laptop", "tcn", "untrained-svd", "hws-slow") == ["0c5d027653b9a92e", "248a857c54f8743c", "27491bab7ee8128a"]
    assert names("laptop", "tcn", as_released=True) == ["a1f40952afc74854"]
    assert names("paper", "tcn-dim-512") == [  # Sketchy 1 and 2, TU-Berlin, QuickDraw
        "3b678f98bc4e0261", "92bf22d98d2ac63f", "99a4ff8ace69d140", "9e6bf7b1f93a733c"]


def test_identity_follows_settings_and_contents_only():
    base = identity(Config(), "d", "s", "w")
    assert base == identity(from_dict({}), "d", "s", "w")
    others = [identity(change(Config(), {"losses.sharing": 10}), "d", "s", "w"),
              identity(Config(), "e", "s", "w"),
              identity(Config(), "d", "t", "w"), identity(Config(), "d", "s", "v"),
              identity(change(Config(), {"seed": 1}), "d", "s", "w"),
              *(identity(change(Config(), {"method_source": f"file:{digit * 64}"}), "d", "s", "w") for digit in "ab")]
    assert len({base, *others}) == 8


def test_streams_are_fixed_for_ever_and_differ_by_role_epoch_and_step():
    # A golden value: a change here would silently change every run.
    assert stream_seed(0, "pairs", 1) == 7896813288886649566
    draws = {numpy_stream(0, *key).integers(1 << 40) for key in (("a", 1), ("a", 2), ("b", 1), ("a", 1, 2), ("a", 12))}
    assert len(draws) == 5
    assert torch_stream(0, "a").initial_seed() == stream_seed(0, "a")


def _lock() -> dict[str, list[str]]:
    pins: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        requirement = Requirement(line)
        pins.setdefault(requirement.name.lower(), []).append(str(requirement.specifier))
    return pins


def test_lock_holds_exact_pins_inside_the_ranges_and_no_addresses():
    pins = _lock()
    assert all(re.fullmatch(r"==[\w.!+]+", pin) for versions in pins.values() for pin in versions)
    assert "://" not in (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        requirement = Requirement(text)
        for pin in pins[requirement.name.lower()]:
            assert requirement.specifier.contains(pin.removeprefix("==")), f"{text} against {pin}"


def test_conda_environment_takes_the_same_python_and_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"python{requires}" in conda
    assert {re.split(r"[<>=]", d)[0] for d in conda} == {"python", "nodejs", "make", "pip"}
    assert pip == ["-r requirements.lock", "--editable ."]
