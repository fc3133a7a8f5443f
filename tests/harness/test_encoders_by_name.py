"""Encoders by name through the command: trained, resumed, frozen; their weights given one by one;
what is missing told before anything runs."""
from __future__ import annotations

import json

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from support.small_suite import ONE, TINY, places, run_folders

import baselines
from baselines import foundation
from benchmarks import prepared, run_all
from benchmarks.launch import local
from reports import naming
from tcn.config import Config, InputError, change, identity
from tcn.model import backbones
from tcn.train import checkpoints

VIT = "timm:test_vit"


@pytest.fixture(scope="module")
def weights(place):
    """A folder with random weights of two encoders, called as these are."""
    folder = place / "weights"
    folder.mkdir()
    for name, seed in (("test_vit", 1), ("test_convnext", 2)):
        torch.manual_seed(seed)
        torch.save(timm.create_model(name).state_dict(), folder / f"{name}.pth")
    return folder


def vit(place, weights) -> list[str]:
    return [*places(place)[:-2], *ONE, "--no-report", "--weights", str(weights), "--quick",
            "--set", f"network.backbone={VIT}", *TINY]


def test_a_vision_transformer_pair_trains_resumes_to_the_same_digits_and_keeps_its_layer_norms_apart(place, weights, command,
                                                                                                     monkeypatch):
    arguments = [*vit(place, weights), "training.epochs=2", "--variants", "tcn"]
    status, _, err = command(*arguments, "--output", str(place / "straight"))
    assert status == 0, err
    original, calls = checkpoints.keep, []

    def interrupt(state, folder):
        original(state, folder)
        if not calls:
            calls.append(folder)
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "keep", interrupt)
    assert command(*arguments, "--output", str(place / "halves"))[0] == 130
    assert command(*arguments, "--output", str(place / "halves"))[0] == 0
    twin = place / "straight" / "runs" / calls[0].name
    assert (calls[0] / "metrics.csv").read_bytes() == (twin / "metrics.csv").read_bytes()
    state = torch.load(twin / "checkpoint.pt", weights_only=True)["model"]
    sides = [{key.removeprefix(f"network.encoders.{side}."): value for key, value in state.items()
              if key.startswith(f"network.encoders.{side}.")} for side in ("sketch", "photo")]
    assert sides[0].keys() == sides[1].keys() and not torch.equal(sides[0]["trunk.norm.weight"], sides[1]["trunk.norm.weight"])
    assert not any("running" in key for key in sides[0])


def test_a_frozen_encoder_s_three_rows_share_its_features_and_treat_them_as_they_say(place, weights, command, tmp_path,
                                                                                     monkeypatch):
    taken = []
    (tmp_path / "rows.py").write_text(f'''
from baselines import Variant, foundation
VARIANTS = tuple(Variant(f"ours{{suffix}}", "Ours", "frozen", {{
    "training.optimizer": "none", "evaluation.features": "backbone", "network.backbone": "{VIT}", "data.image_size": 32,
    **{{f"coupling.{{part}}": "hard" for part in ("stem", "stage1", "stage2", "stage3", "stage4", '''
                                      f'''"batch_norm_affine", "batch_norm_statistics")}},
    "losses.sharing": 0.0, **settings}}, method=foundation.FROZEN) for suffix, _, _, settings in foundation.TREATMENTS)
''')
    forward = backbones.Backbone.forward
    monkeypatch.setattr(backbones.Backbone, "forward", lambda self, images: taken.append(len(images)) or forward(self, images))
    status, _, err = command(*places(place)[:-2], *ONE, "--no-report", "--weights", f"{VIT}={weights / 'test_vit.pth'}",
                             "--set", *TINY, "--variants", str(tmp_path / "rows.py"), "--output", str(place / "frozen"))
    assert status == 0, err
    folders = run_folders(place / "frozen")
    found = {name.split("__")[1]: dict(np.load(folder / "features.npz")) for name, folder in folders.items()}
    counts = json.loads((next(iter(folders.values())) / "provenance.json").read_text())
    assert counts["weights"].startswith("file:")
    keys = [key for key, value in found["ours"].items() if value.ndim == 2 and value.shape[1] == 64]
    assert len(keys) >= 2
    for key in keys:
        assert found["ours-permodality"][key].shape == found["ours"][key].shape and found["ours-pca"][key].shape[1] == 8
        # Differences of two rows differ by a factor of each dimension alone.
        plain, scaled = (np.diff(one[key], axis=0) for one in (found["ours"], found["ours-permodality"]))
        big = np.abs(plain) > np.abs(plain).max() / 10
        ratio = np.where(big, scaled / np.where(big, plain, 1), np.nan)
        assert np.nanmax(np.nanmax(ratio, 0) - np.nanmin(ratio, 0)) < 1e-2
    pictures = 110 * (3 + 2)  # of all classes, sketches and photos
    assert 0 < sum(taken) <= pictures  # each list once for three rows


def test_weights_of_several_encoders_are_given_by_name_or_by_folder(tmp_path, weights):
    default, named = prepared.weights_given([str(weights)])
    assert (default is None and named[VIT] == weights / "test_vit.pth"
            and named["timm:test_convnext"] == weights / "test_convnext.pth")
    assert prepared.weights_given([f"{VIT}={weights / 'test_vit.pth'}", "resnet50=/r.pth"])[1].keys() == {VIT, "resnet50"}
    assert prepared.weights_given(["one.pth"]) == (prepared.Path("one.pth"), {}) and prepared.weights_given(None) == (None, {})
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice").mkdir()
    for name in ("test_vit.pth", "test_vit.bin"):
        (tmp_path / "twice" / name).write_bytes(b"")
    for values, words in (([str(tmp_path / "empty")], "holds no file called as an encoder is"),
                          ([str(tmp_path / "twice")], "two files of"),
                          ([f"{VIT}=a", f"{VIT}=b"], f"two files for {VIT}"), (["vit=/no/file"], "neither a file nor NAME=FILE"),
                          (["a.pth", "b.pth"], "neither a file nor NAME=FILE")):
        with pytest.raises(InputError, match=words):
            prepared.weights_given(values)


def test_weights_named_for_an_encoder_that_no_run_uses_are_an_error_and_those_of_a_folder_are_not(place, weights,
                                                                                                  command, tmp_path):
    call = (*places(place), *ONE, "--no-report", "--dry-run", "--variants", "untrained-svd", "--output", str(tmp_path / "out"))
    status, _, err = command(*call, "--weights", f"{VIT}={weights / 'test_vit.pth'}", "--set", *TINY,
                             "network.backbone=test_resnet")
    assert status == 2 and f"--weights {VIT}=FILE is of an encoder that no run uses; the runs use test_resnet" in err
    status, _, err = command(*call, "--weights", str(weights), "--set", *TINY, f"network.backbone={VIT}")
    assert "no run uses" not in err


@pytest.mark.parametrize("name", ["", f"{VIT}="])
def test_a_file_given_for_the_teacher_is_the_teacher_s_however_the_encoder_s_was_given(place, weights, tmp_path, name):
    own, theirs = weights / "test_vit.pth", tmp_path / "teacher.pth"
    torch.manual_seed(9)
    torch.save(timm.create_model("test_vit").state_dict(), theirs)
    call = [*places(place)[:-2], *ONE, "--set", *TINY, f"network.backbone={VIT}", "--variants", "tcn", "--output",
            str(tmp_path / "out"), "--weights", f"{name}{own}"]
    for more, teacher in (([], own), (["--teacher-weights", str(theirs)], theirs)):
        planned, _ = prepared.prepare(run_all.parser().parse_args([*call, *more]))
        config = planned.runs[0].config
        assert config.network.weights == backbones.weights_setting(own)
        assert config.network.teacher_weights == backbones.weights_setting(teacher)
        classifier = planned.material.ingredients(config).classifier.weight
        assert torch.equal(classifier, torch.load(teacher, weights_only=True)["head.weight"])


@pytest.fixture
def unreachable(monkeypatch, tmp_path):
    """No hub answers, and no run may be started."""
    def never(*arguments, **options):
        raise AssertionError("a run was started")

    def fail(*arguments, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(local, "attempt", never)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def test_an_encoder_without_weights_or_of_no_library_or_size_is_one_line_before_anything_runs(place, command,
                                                                                              unreachable, tmp_path):
    rest = [*places(place)[:-2], *ONE, "--variants", "tcn", "--output", str(tmp_path / "out"), "--set", *TINY]
    for setting, words in ((f"network.backbone={VIT}", ("model.safetensors", "timm/test_vit.r160_in1k", f"--weights {VIT}=FILE")),
                           ("network.backbone=timm:test_vid", ("no model 'test_vid'", "test_vit")),
                           ("network.backbone=vgg", ("network.backbone", "timm:NAME or torchvision:NAME")),
                           ("network.backbone=timm:vit_small_patch14_dinov2.lvd142m", ("32 pixels", "data.image_size=518"))):
        status, _, err = command(*rest, setting)
        assert status == 2 and all(word in err for word in words) and err.count("\n") == 1, err
        assert not (tmp_path / "out").exists()


def test_frozen_rows_without_weights_are_left_out_with_a_line_each_and_the_others_stay(place, unreachable, tmp_path, capsys):
    options = run_all.parser().parse_args([*places(place)[:-2], *ONE, "--profile", "laptop", "--profile", "paper",
                                           "--variants", "foundation", "--output", str(tmp_path / "out")])
    call, checks = prepared.prepare(options)
    said = capsys.readouterr().out
    assert ({run.config.network.backbone for run in call.runs} == {"efficientnet_lite0", "efficientnet_lite2"}
            and len(call.runs) == 6)
    assert not checks.reasons
    lines = [line for line in said.splitlines() if line.startswith("left out")]
    assert len(lines) == 5
    for name, _, backbone in foundation.ENCODERS[:5]:
        line, = (line for line in lines if f"frozen-{name}," in line)
        assert f"--weights {backbone}=FILE" in line if ":" in backbone else "--weights FILE" in line
    options = run_all.parser().parse_args([*places(place)[:-2], *ONE, "--profile", "paper", "--variants", "frozen-clip",
                                           "frozen-siglip", "--output", str(tmp_path / "out")])
    with pytest.raises(InputError, match="2 reasons, and nothing was run"):
        prepared.prepare(options)


def test_the_report_names_each_frozen_row_as_it_was_declared():
    for name in baselines.FOUNDATION:
        assert naming.label(name) == baselines.VARIANTS[name].title


def test_the_encoder_is_part_of_a_run_s_identity():
    configs = [change(Config(), {"network.backbone": name}) for name in ("resnet50", "timm:resnet50", "timm:resnet50.a1_in1k")]
    assert len({identity(config, "d", "s") for config in configs}) == 3
