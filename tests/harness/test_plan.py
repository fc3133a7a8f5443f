"""What a planned run's settings come to: base, deviations, overrides, the variant's own, and what follows from other settings."""
from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from support.result_folders import write_suite

import baselines
from benchmarks import run_all
from benchmarks.experiments import PROFILES, held_by_variants, plan
from benchmarks.prepared import overrides_of
from benchmarks.resources import wishes
from benchmarks.store import RunFolder, read_config
from reports.read.suite import read_suite
from tcn.config import InputError, flatten, to_dict


def one(variant: str, dataset: str = "tuberlin", profile: str = "paper", *, quick: bool = False, as_released: bool = False,
        **overrides: object) -> dict[str, object]:
    """Flat settings of one run; `network__dim=512` is `--set network.dim=512`."""
    asked = {key.replace("__", "."): value for key, value in overrides.items()}
    found = plan(PROFILES[profile], [dataset], [variant], [3], asked, quick, as_released)
    return flatten(to_dict(found[0].config))


@pytest.mark.parametrize("dataset, dim, dropout", [
    ("tuberlin", 64, 0.5), ("tuberlin", 65, 0.7), ("tuberlin", 512, 0.7), ("quickdraw", 512, 0.7), ("quickdraw", 32, 0.5),
    ("sketchy", 512, 0.0)])
def test_dropout_follows_the_length_of_the_features_however_that_was_set(dataset, dim, dropout, monkeypatch):
    found = one("tcn", dataset, network__dim=dim)
    assert (found["network.dim"], found["network.dropout"]) == (dim, dropout)
    assert one("hws", dataset, network__dim=dim)["network.dropout"] == dropout
    if f"tcn-dim-{dim}" in baselines.VARIANTS:  # by the variant
        assert one(f"tcn-dim-{dim}", dataset) == found
    # by the profile
    paper = PROFILES["paper"]
    wide = replace(paper, base={key: {**delta, "network.dim": dim} for key, delta in paper.base.items()})
    monkeypatch.setitem(PROFILES, "paper", wide)
    assert one("tcn", dataset) == found
    # but a dropout that was asked for stands
    assert one("tcn", dataset, network__dim=dim, network__dropout=0.25)["network.dropout"] == 0.25


def test_a_variant_stays_what_it_is_and_its_dropout_follows_it():
    for dim, kept, dropouts in ((32, "tcn-dim-512", (0.5, 0.7)), (512, "tcn-dim-32", (0.7, 0.5))):
        runs = plan(PROFILES["paper"], ["tuberlin"], ["tcn", kept], None, {"network.dim": dim}, False)
        assert [one_run.config.network.dim for one_run in runs] == [dim, int(kept.rpartition("-")[2])]
        assert tuple(one_run.config.network.dropout for one_run in runs) == dropouts
    runs = plan(PROFILES["paper"], ["tuberlin"], ["tcn", "nws"], None, {"losses.sharing": 100.0}, False)
    assert [one_run.config.losses.sharing for one_run in runs] == [100.0, 0.0]
    tcn, *weights = plan(PROFILES["laptop"], None, ["tcn", "weights"], [0], {"losses.sharing": 5.0}, False)
    assert tcn.config.losses.sharing == 5.0 and len(weights) == 6
    assert [f"tcn-weight-{one_run.config.losses.sharing:g}" for one_run in weights] == [one_run.variant for one_run in weights]


def test_a_multiplied_rate_follows_the_rate_that_was_asked_for():
    assert one("hws-slow", "emoji", "laptop")["training.encoder_rate"] == 3e-3 * 0.1
    assert one("hws-slow", "emoji", "laptop", training__encoder_rate=5e-3)["training.encoder_rate"] == 5e-3 * 0.1
    assert one("hws", "emoji", "laptop", training__encoder_rate=5e-3)["training.encoder_rate"] == 5e-3


def test_nothing_is_trained_for_no_epochs_however_that_was_set():
    assert one("untrained-svd")["training.epochs"] == one("untrained-svd", quick=True)["training.epochs"] == 0
    assert one("tcn", training__optimizer="none")["training.epochs"] == 0
    assert one("tcn", quick=True)["training.epochs"] == 1 and one("tcn", training__epochs=4)["training.epochs"] == 4
    runs = plan(PROFILES["paper"], ["sketchy"], ["untrained", "tcn"], None, {"training.epochs": 4}, False)
    assert {one_run.config.training.epochs for one_run in runs if one_run.trained} == {4}
    assert {one_run.config.training.epochs for one_run in runs if not one_run.trained} == {0}


@pytest.mark.parametrize("profile, dataset, asked, stored", [
    ("laptop", "emoji", {}, 64), ("laptop", "emoji", {"data__image_size": 96}, 96),
    ("laptop", "emoji", {"data__image_size": 32}, 64),
    ("laptop", "emoji", {"data__image_size": 96, "data__stored_size": 48}, 48),
    ("paper", "sketchy", {}, 256), ("paper", "sketchy", {"data__image_size": 300}, 300)])
def test_pictures_are_stored_no_smaller_than_they_are_seen(profile, dataset, asked, stored):
    assert one("tcn", dataset, profile, **asked)["data.stored_size"] == stored


def test_what_goes_with_a_data_set_does_so_in_every_variant():
    for variant in ("tcn", "untrained-svd", "triplet", "tcn-dim-512"):
        for dataset, norm in (("sketchy", "shared"), ("tuberlin", "per_modality"), ("quickdraw", "per_modality")):
            assert one(variant, dataset)["network.embedding_norm"] == norm
            assert one(variant, dataset)["data.unit_words"] is True
            assert one(variant, dataset, as_released=True)["data.unit_words"] is (dataset != "tuberlin")
            assert one(variant, dataset)["data.photo_fill"] == 0
        assert one(variant, "emoji", "laptop")["data.photo_fill"] == 255


def test_overrides_that_leave_a_variant_as_it_is_are_told_and_refused_where_they_change_nothing():
    runs = plan(PROFILES["laptop"], None, ["untrained-svd", "tcn", "nws"], [0],
                {"losses.sharing": 7.0, "training.epochs": 2}, False)
    assert held_by_variants(runs, {"losses.sharing": 7.0, "training.epochs": 2, "data.sketch_fill": 3}) == {
        "losses.sharing": ["untrained-svd", "nws"], "training.epochs": ["untrained-svd"]}
    with pytest.raises(InputError, match=re.escape("losses.sharing=7.0 changes nothing: nws, hws have a value of their own")):
        plan(PROFILES["laptop"], None, ["nws", "hws"], [0], {"losses.sharing": 7.0}, False)
    with pytest.raises(InputError, match="training.epochs=4 changes nothing: untrained-svd has a value of its own"):
        plan(PROFILES["laptop"], None, ["untrained-svd"], [0], {"training.epochs": 4}, False)


def test_two_values_of_one_thing_are_an_error():
    assert overrides_of(["network.dim=8", "network.dim=8", "training.epochs=2"]) == {"network.dim": 8, "training.epochs": 2}
    with pytest.raises(InputError, match=r"'network\.dim' two values, network\.dim=8 and network\.dim=4"):
        overrides_of(["network.dim=8", "training.epochs=2", "network.dim=4"])
    given = run_all.parser().parse_args(["--set", "network.dim=8", "training.epochs=2", "--set", "network.dim=4", "a=1"])
    assert given.overrides == ["training.epochs=2", "network.dim=4", "a=1"], "a later --set goes over an earlier one"
    with pytest.raises(InputError, match="gpus_per_node two values, 1 and 2"):
        wishes("gpus=1,time=2h,gpus-per-node=2")


@pytest.mark.parametrize("pair, words", [
    ("network.weights=imagenet", "--weights"), ("network.teacher_weights=imagenet", "--teacher-weights"),
    ("losses.sharing=.nan", "'losses.sharing' is nan"), ("network.backbone=vgg", "resnet18"),
    ("data.sketch_fill=9999", "0 to 255"),
    ("training.encoder_rate=.inf", "'training.encoder_rate' is inf"), ("evaluation.binary=1", "true or false")])
def test_settings_of_the_command_line_are_refused_before_anything_runs(pair, words, command, tmp_path):
    status, _, err = command("--profile", "laptop", "--output", str(tmp_path / "out"), "--cache", str(tmp_path), "--set", pair)
    assert status == 2 and words in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_method_that_nobody_knows_is_named_with_its_file(tmp_path):
    one_run = plan(PROFILES["laptop"], None, ["tcn"], [0], {}, False)[0]
    folder = RunFolder(tmp_path, one_run, "0" * 64)
    folder.path.mkdir(parents=True)
    folder.write_config()
    assert read_config(folder.path)[0].config == one_run.config
    path = folder.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "method": "gan"}))
    with pytest.raises(InputError, match="config.json: unknown method 'gan'"):
        read_config(folder.path)


# --- smoke runs are recorded as such --------------------------------------------------------------------------

def test_runs_know_whether_they_are_a_smoke_run_and_identities_do_not():
    [full], [smoke] = (plan(PROFILES["paper"], ["sketchy"], ["untrained-svd"], [1], {}, quick)[:1]
                       for quick in (False, True))
    assert (full.smoke, smoke.smoke) == (False, True) and full.config == smoke.config and full.name == smoke.name


@pytest.mark.parametrize("recorded, command, smoke", [
    (True, "python benchmarks/run_all.py", True), (False, "python benchmarks/run_all.py --output --quick", False),
    (None, "python benchmarks/run_all.py --quick", True), (None, "python benchmarks/run_all.py --profile laptop", False),
    (True, "python -c 'main([\"--quick\"])'", True)])
def test_the_report_goes_by_what_was_recorded_and_by_the_command_of_older_runs(recorded, command, smoke, tmp_path):
    write_suite(tmp_path, ("tcn",), seeds=(0,))
    [path] = tmp_path.glob("runs/*/provenance.json")
    record = {**json.loads(path.read_text()), "command": command} | ({} if recorded is None else {"smoke": recorded})
    path.write_text(json.dumps(record))
    [one_run] = read_suite(tmp_path).runs
    assert one_run.smoke is smoke


def test_a_split_can_be_asked_for_alone():
    paper = PROFILES["paper"]
    for names, splits in ((["sketchy/2"], ["2"]), (["sketchy"], ["1", "2"]), (["sketchy/1", "tuberlin"], ["1", "1"])):
        assert [one_run.split for one_run in plan(paper, names, ["tcn"], [0], {}, False)] == splits
    with pytest.raises(InputError, match="unknown data set 'sketchy/3'.*sketchy, sketchy/1, sketchy/2, tuberlin"):
        plan(paper, ["sketchy/3"], ["tcn"], [0], {}, False)
