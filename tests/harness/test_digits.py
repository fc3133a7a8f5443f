"""The extension on digits: gradient reversal, blending, splits, the coupled model, runs that are kept, and the report's table."""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from support.forks import ended, forked
from support.mounts import resize, small_disk
from support.settings import RATE, SEED, SIDE, WEIGHT, choice, refused

from baselines import domain_adversarial as da
from benchmarks.extension import digits, digits_data
from benchmarks.store import SuiteFolder
from reports.figures import digits as digits_figure
from reports.tables import extension
from tcn.config import InputError
from tcn.files.locks import lock
from tcn.seeding import numpy_stream
from tcn.train import checkpoints

ROOT = Path(__file__).parents[2]


def test_reversed_gradient_is_minus_weight_times_the_gradient():
    x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    y = da.reverse_gradient(x, 0.25)
    assert torch.equal(y, x)
    (y ** 2).sum().backward()
    assert x.grad.tolist() == pytest.approx([-0.25 * 2 * v for v in (1.0, -2.0, 3.0)])


def test_extractor_climbs_the_domain_loss_and_the_classifier_descends_it():
    """One small step against the gradient: the domain loss must fall by the classifier's part and rise by the extractor's."""
    torch.manual_seed(0)
    model = da.DigitModel(da.DigitSettings("dann", image_size=8))
    source, target = torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8) + 0.5
    labels = torch.randint(10, (16,))

    def domain_loss() -> torch.Tensor:
        return da.losses(model, source, labels, target, 1.0)["domain"]

    for part, sign in ((model.domain, -1), (model.source, +1)):
        before = domain_loss()
        grads = torch.autograd.grad(before, list(part.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(part.parameters(), grads):
                parameter -= 1e-3 * grad / max(1e-12, float(grad.norm()))
        assert sign * (domain_loss() - before).item() > 0


@pytest.mark.parametrize("progress, weight", [(0.0, 0.0), (0.1, 0.46212), (0.5, 0.98661), (1.0, 0.99991)])
def test_reversal_schedule(progress, weight):
    assert da.reversal_weight(progress) == pytest.approx(weight, abs=1e-5)


def test_blending_is_the_absolute_difference_by_pixel_and_channel():
    rng = np.random.default_rng(0)
    grey, crops = rng.integers(0, 256, (3, 4, 4), np.uint8), rng.integers(0, 256, (3, 3, 4, 4), np.uint8)
    out = digits_data.blend(grey, crops)
    for n in range(3):
        for c in range(3):
            for y in range(4):
                for x in range(4):
                    assert out[n, c, y, x] == abs(int(crops[n, c, y, x]) - int(grey[n, y, x]))


def test_patches_are_crops_of_the_photos_and_too_small_a_photo_is_refused():
    photo = np.arange(6 * 7 * 3, dtype=np.uint8).reshape(6, 7, 3)
    windows = {photo[t:t + 4, left:left + 4].transpose(2, 0, 1).tobytes() for t in range(3) for left in range(4)}
    assert all(p.tobytes() in windows for p in digits_data.patches([photo], 20, 4, np.random.default_rng(1)))
    with pytest.raises(InputError, match="7 x 6 pixels"):
        digits_data.patches([photo], 1, 8, np.random.default_rng(1))


def test_offline_parts_are_disjoint_and_so_are_the_patches_of_training_and_test(monkeypatch):
    """Photos black on the left and white on the right: blended digits are then the digits, and their negative."""
    photo = np.zeros((427, 640, 3), np.uint8)
    photo[:, 320:] = 255
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: SimpleNamespace(images=[photo, photo]))
    task = digits_data.offline_task(16)
    found = [task.source.images, task.target.images, task.source_test.images, 255 - task.target_test.images]
    labels = np.concatenate([part.labels for part in (task.source, task.target, task.source_test, task.target_test)])
    assert all((images == images[:, :1]).all() for images in found)
    eight = sklearn.datasets.load_digits()
    scaled = [Image.fromarray((image * 255 / 16).round().astype(np.uint8)).resize((16, 16), Image.BILINEAR)
              for image in eight.images]
    all_of_them = [(int(label), image.tobytes()) for image, label in zip(scaled, eight.target)]
    pairs = [(int(label), image[0].tobytes()) for label, image in zip(labels, np.concatenate(found))]
    assert Counter(pairs) == Counter(all_of_them) and "not MNIST" in task.name
    assert [len(images) for images in found] == [599, 599, 299, 300]


def test_every_call_makes_the_same_digits_and_the_digest_tells_others_apart():
    task = digits_data.offline_task(16)
    assert task.digest == digits_data.offline_task(16).digest != digits_data.offline_task(12).digest
    labels = task.target_test.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    assert dataclasses.replace(task, target_test=digits_data.Domain(task.target_test.images, labels)).digest != task.digest


def test_patches_are_drawn_by_what_the_part_is_called(monkeypatch):
    """`target` and a role of as many letters draw unlike; the numbers are those of tcn.seeding for the name."""
    drawn = []
    monkeypatch.setattr(digits_data, "numpy_stream", lambda *key: (drawn.append(key), numpy_stream(*key))[1])
    digits_data.offline_task(8)
    assert drawn == [(0, "digits split"), (0, "digits patches, target"), (0, "digits patches, target test")]
    first, other = (numpy_stream(0, f"digits patches, {role}").integers(0, 1 << 40, 4).tolist() for role in ("target", "garget"))
    assert first != other


def test_mnist_m_s_patches_are_drawn_by_name_too(tmp_path, monkeypatch):
    """Blended from the same photos, both parts differ as their streams say, not as their order does."""
    import torchvision.datasets

    part = SimpleNamespace(data=torch.zeros(3, 28, 28, dtype=torch.uint8), targets=torch.tensor([1, 2, 3]))
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda *args, **kwargs: part)
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{name}.jpg", quality=100)
    task = digits_data.mnist_task(tmp_path, False, None, tmp_path)
    for role, found, name in (("target", task.target, "a"), ("target test", task.target_test, "b")):
        photo = np.asarray(Image.open(tmp_path / f"{name}.jpg"))
        assert np.array_equal(found.images, digits_data.patches([photo], 3, 28, numpy_stream(0, f"MNIST-M, {role}")))


def test_training_never_reads_the_target_s_labels():
    task = digits_data.offline_task(8)
    without = dataclasses.replace(task, target=digits_data.Domain(task.target.images, np.full_like(task.target.labels, -1)),
                                  target_test=digits_data.Domain(task.target_test.images, (task.target_test.labels + 1) % 10))
    settings = da.DigitSettings("dann-coupled", steps=3, batch=8, image_size=8)
    cpu = torch.device("cpu")
    (known, first), (unknown, second) = (digits.train(t, settings, cpu, "", progress=False) for t in (task, without))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    assert [row["source_accuracy"] for row in known] == [row["source_accuracy"] for row in unknown]
    assert [row["target_accuracy"] for row in known] != [row["target_accuracy"] for row in unknown]


def test_accuracy_is_the_share_of_digits_classified_right():
    task = digits_data.offline_task(8)
    model = da.DigitModel(da.DigitSettings("dann-own-norms", image_size=8)).eval()
    with torch.no_grad():
        model.target.norms[0].bias.add_(torch.randn(32))  # the target's own extractor must be the one that is asked
        images = torch.from_numpy(task.target_test.images).float() / 127.5 - 1
        right = [int(model.label(model.target(image[None])).argmax()) == label
                 for image, label in zip(images, task.target_test.labels)]
    assert digits.accuracy(model, task.target_test, "target", torch.device("cpu")) == pytest.approx(statistics.fmean(right))


def test_coupled_extractors_start_as_one_and_tie_convolutions_only():
    model = da.DigitModel(da.DigitSettings("dann-coupled", image_size=8))
    tied = model.sharing()
    tied.backward()
    assert tied.item() == 0
    assert all(p.grad is None or torch.equal(p.grad, torch.zeros_like(p)) for p in model.parameters())
    with torch.no_grad():
        for norm in model.target.norms:
            norm.weight.add_(1.0)
    assert model.sharing().item() == 0
    with torch.no_grad():
        for convolution in model.target.convolutions:
            convolution.weight.add_(0.5)
    expected = sum(0.5 * c.weight.numel() ** 0.5 for c in model.source.convolutions)
    assert model.sharing().item() == pytest.approx(expected, rel=1e-5)


def test_methods_differ_in_what_the_domains_share():
    models = {name: da.DigitModel(da.DigitSettings(name, image_size=8)) for name in da.METHODS}
    assert models["dann"].target is models["dann"].source and models["source-only"].target is models["source-only"].source
    own = models["dann-own-norms"]
    assert own.target.convolutions is own.source.convolutions and own.target.norms is not own.source.norms
    assert models["dann"].sharing() is None and own.sharing() is None
    batch = torch.rand(4, 3, 8, 8), torch.randint(10, (4,)), torch.rand(4, 3, 8, 8)
    terms = {name: set(da.losses(model, *batch, 0.5)) for name, model in models.items()}
    assert terms == {"source-only": {"label"}, "dann": {"label", "domain"}, "dann-own-norms": {"label", "domain"},
                     "dann-coupled": {"label", "domain", "sharing"}}


# What each field takes, written down a second time.
TAKES = {"method": choice("source-only", "dann", "dann-own-norms", "dann-coupled"), "seed": SEED,
         "steps": ((1, 1000, 10_000_000), (0, -1, 10_000_001), ("1 to 10,000,000",)),
         "batch": ((1, 64, 65_536), (0, -1, 65_537), ("1 to 65,536",)), "rate": RATE, "sharing": WEIGHT, "adversarial": WEIGHT,
         "image_size": ((4, 28, 4096), SIDE[1], SIDE[2])}


@pytest.mark.parametrize("field", dataclasses.fields(da.DigitSettings), ids=lambda field: field.name)
def test_every_setting_refuses_what_it_does_not_take(field):
    row = TAKES[field.name]
    for value in refused(row):
        with pytest.raises(InputError) as caught:
            da.DigitSettings(**{field.name: value})
        said = str(caught.value)
        assert f"setting '{field.name}'" in said and all(word in said for word in row[2]), (value, said)
    for value in row[0]:
        assert getattr(da.DigitSettings(**{field.name: value}), field.name) == value


@pytest.mark.parametrize("size", [1, 10, 4095])
def test_a_side_that_two_poolings_cut_is_refused(size):
    with pytest.raises(InputError, match=f"'image_size' is {size}; it must be a multiple of 4"):
        da.DigitSettings(image_size=size)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two seeds of two methods, a few steps each."""
    root = tmp_path_factory.mktemp("suite")
    command = ["--output", str(root / "extension"), "--seeds", "0", "1", "--methods", "source-only", "dann-coupled",
               "--steps", "6"]
    assert digits.main(command) == 0
    return root, command


def test_runs_leave_plain_files_and_the_picture(finished):
    root, _ = finished
    folders = sorted(p.name for p in (root / "extension" / "runs").iterdir())
    assert folders == [f"{m}__seed{s}" for m in ("dann-coupled", "source-only") for s in (0, 1)]
    for folder in (root / "extension" / "runs").iterdir():
        assert {"config.json", "history.csv", "result.json", "provenance.json"} <= {p.name for p in folder.iterdir()}
    with Image.open(root / "extension" / "examples.png") as picture:
        assert picture.size == (10 * 32, 2 * 32)


def test_a_suite_may_be_started_beside_the_extension_and_beside_nothing_else(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "suite")
    SuiteFolder(tmp_path / "suite", "laptop", False)
    (tmp_path / "suite" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files and no suite"):
        SuiteFolder(tmp_path / "suite", "laptop", False)


def test_finished_runs_are_kept_and_equal_a_repetition(finished, tmp_path, capsys):
    root, command = finished
    result = root / "extension" / "runs" / "dann-coupled__seed1" / "result.json"
    before = result.read_bytes()
    assert digits.main(command) == 0 and result.read_bytes() == before
    again = [*command[:1], str(tmp_path / "again"), *command[2:]]
    assert digits.main(again) == 0
    first, second = (json.loads((place / "runs" / "dann-coupled__seed1" / "result.json").read_text())
                     for place in (root / "extension", tmp_path / "again"))
    assert first["target_accuracy"] == second["target_accuracy"]
    assert digits.main([*command[:-1], "7"]) == 2 and "other settings (steps)" in capsys.readouterr().err


@pytest.mark.parametrize("gone", [("status.json",), ("status.json", "SHA256SUMS")])
def test_finished_runs_of_earlier_versions_are_kept(gone, finished, tmp_path, capsys):
    """They have no status.json, and the oldest no checksums either: their result.json came last."""
    root, command = finished
    place = tmp_path / "out"
    shutil.copytree(root / "extension", place)
    for run in (place / "runs").iterdir():
        for name in gone:
            (run / name).unlink()
    before = {path: path.stat().st_mtime_ns for path in (place / "runs").glob("*/result.json")}
    assert digits.main(["--output", str(place), *command[2:]]) == 0 and len(before) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before and not (place / "damaged").exists()
    assert digits.main(["--output", str(place), *command[2:-1], "7"]) == 2 and "other settings" in capsys.readouterr().err


def test_report_and_runs_name_the_methods_alike():
    assert extension.TITLES == da.METHODS


def test_table_says_what_the_runs_say(finished):
    root, _ = finished
    table = extension.table(root)
    found = [json.loads(p.read_text()) for p in sorted((root / "extension" / "runs").glob("dann-coupled*/result.json"))]
    values = [r["target_accuracy"] for r in found]
    row = next(r for r in table.rows if r.entries[0].text == "DANN + coupled network")
    assert row.entries[1].text == f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"
    assert row.entries[3].text == "2/2"
    assert next(r for r in table.rows if r.entries[0].text == "DANN").entries[1].text == "not measured"
    assert any("Not comparable" in note for note in table.notes) and "0.939" not in table.to_markdown()


def test_published_numbers_stand_only_beside_mnist(finished, tmp_path):
    root, _ = finished
    folder = tmp_path / "extension" / "runs" / "dann__seed0"
    folder.mkdir(parents=True)
    result = {"data": digits_data.PUBLISHED, "method": "dann", "title": "DANN", "seed": 0, "target_accuracy": 0.9,
              "source_accuracy": 0.99, "steps": 5, "seconds": 1.0}
    (folder / "result.json").write_text(json.dumps(result))
    text = extension.table(tmp_path).to_markdown()
    assert "0.924" in text and "0.900" in text and "Not comparable" not in text


def test_broken_and_foreign_runs_are_named_and_left_out(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root / "extension", tmp_path / "extension")
    runs = tmp_path / "extension" / "runs"
    (runs / "dann-coupled__seed0" / "result.json").write_text("{")
    (runs / "source-only__seed0" / "result.json").unlink()
    other = json.loads((runs / "source-only__seed1" / "result.json").read_text())
    (runs / "dann-coupled__seed1" / "result.json").write_text(json.dumps({**other, "target_accuracy": 1.5}))
    found = extension.read(tmp_path)
    assert [run.folder.name for run in found.runs] == ["source-only__seed1"]
    assert {name.rsplit("/", 1)[1] for name, _ in found.left_out} == {"dann-coupled__seed0", "dann-coupled__seed1",
                                                                      "source-only__seed0"}
    assert "dann-coupled__seed1" in " ".join(extension.table(tmp_path).notes)
    assert extension.table(tmp_path / "nowhere") is None and digits_figure.figure(tmp_path / "nowhere") is None


def test_figure_draws_a_curve_for_each_method_and_domain(finished):
    root, _ = finished
    figure = digits_figure.draw(digits_figure.figure(root).frame)
    _, target, source = figure.axes
    assert target.get_title(loc="left") == "Target digits" and source.get_title(loc="left") == "Source digits"
    assert [line.get_label() for line in target.lines] == ["Source only", "DANN + coupled network"]
    frame = digits_figure.figure(root).frame
    part = frame[(frame["method"] == "dann-coupled") & (frame["set"] == "target")]
    assert target.lines[1].get_ydata() == pytest.approx(part.groupby("step")["accuracy"].mean().to_numpy())


def test_a_broken_picture_or_history_costs_itself_alone(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root / "extension", tmp_path / "extension")
    (tmp_path / "extension" / "examples.png").write_bytes(b"no picture")
    (tmp_path / "extension" / "runs" / "dann-coupled__seed0" / "history.csv").write_text("step\n1\n")
    data = digits_figure.figure(tmp_path)
    assert "examples.png can't be read" in data.caption
    assert "Without curves: dann-coupled__seed0 (history.csv lacks" in data.caption
    assert "Left:" not in data.caption and len(digits_figure.draw(data.frame).axes) == 2
    assert set(data.frame.loc[data.frame["method"] == "dann-coupled", "seed"]) == {1}
    assert len(extension.read(tmp_path).runs) == 4


def test_copied_and_unknown_runs_are_named(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root / "extension", tmp_path / "extension")
    runs = tmp_path / "extension" / "runs"
    shutil.copytree(runs / "dann-coupled__seed0", runs / "dann-coupled__seed0 (copy)")
    result = json.loads((runs / "source-only__seed0" / "result.json").read_text())
    (runs / "source-only__seed0" / "result.json").write_text(json.dumps({**result, "method": "dan"}))
    found = extension.read(tmp_path)
    assert len(found.runs) == 3
    assert {name.rsplit("/", 1)[1] for name, _ in found.left_out} == {"dann-coupled__seed0 (copy)", "source-only__seed0"}


def test_other_pictures_of_the_same_name_are_refused(finished, tmp_path, capsys):
    root, command = finished
    place = tmp_path / "extension"
    shutil.copytree(root / "extension", place)
    provenance = place / "runs" / "source-only__seed0" / "provenance.json"
    kept = json.loads(provenance.read_text())
    assert len(kept["data_digest"]) == 64
    provenance.write_text(json.dumps({**kept, "data_digest": "0" * 64}))
    (provenance.parent / "SHA256SUMS").unlink()  # as of a run from before checksums were kept
    assert digits.main(["--output", str(place), *command[2:]]) == 2
    assert "other pictures of the same name" in capsys.readouterr().err
    # Runs that name no digest are older still; and other seeds would stand in one table with them.
    provenance.write_text(json.dumps({key: value for key, value in kept.items() if key != "data_digest"}))
    seeds = command.index("--seeds")
    for asked in (command[2:], [*command[2:seeds + 1], "5", *command[seeds + 3:]]):
        assert digits.main(["--output", str(place), *asked]) == 2
        assert "other pictures of the same name" in capsys.readouterr().err
    assert not (place / "runs" / "source-only__seed5").exists()
    result = place / "runs" / "source-only__seed0" / "result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "data": digits_data.PUBLISHED}))
    before = (place / "examples.png").stat().st_mtime_ns
    assert digits.main(["--output", str(place), *command[2:]]) == 2
    assert "holds a run of 'MNIST to MNIST-M'" in capsys.readouterr().err
    assert (place / "examples.png").stat().st_mtime_ns == before


@pytest.mark.parametrize("arguments, message", [
    (["--download"], "--download belongs to --mnist"),
    (["--mnist", "nowhere"], "holds no MNIST"),
    (["--mnist", "nowhere", "--mnist-m", "a", "--photos", "b"], "give one"),
    (["--steps", "0"], "--steps 0"),
    (["--threads", "0"], "--threads 0"),
    (["--seeds", "0", "-1"], "--seeds -1"),
    (["--device", "abacus"], "--device abacus"),
])
def test_bad_options_are_named(arguments, message, tmp_path, capsys):
    assert digits.main(["--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_file_in_the_output_folder_s_place_is_named(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert digits.main(["--output", str(tmp_path / "out")]) == 2
    assert f"--output {tmp_path / 'out'}" in capsys.readouterr().err


def test_photos_that_are_no_pictures_are_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match="a.jpg can't be read as a picture"):
        digits_data._photo(tmp_path / "a.jpg")


def test_mnist_m_is_read_from_its_folders_and_a_bad_line_is_named(tmp_path):
    folder = tmp_path / "mnist_m_test"
    folder.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    Image.fromarray(picture).save(folder / "0 a.png")
    (tmp_path / "mnist_m_test_labels.txt").write_text("0 a.png 7\n")
    domain = digits_data._mnist_m(tmp_path, "test")
    assert domain.labels.tolist() == [7] and np.array_equal(domain.images[0].transpose(1, 2, 0), picture)
    (tmp_path / "mnist_m_test_labels.txt").write_text("0 a.png 7\nnothing\n")
    with pytest.raises(InputError, match="line 2: expected 'name label'"):
        digits_data._mnist_m(tmp_path, "test")
    (tmp_path / "mnist_m_test_labels.txt").write_text("")
    with pytest.raises(InputError, match="names no pictures"):
        digits_data._mnist_m(tmp_path, "test")


# --- nothing is lost ---------------------------------------------------------------------------------------------

STEPS = 12
"""Of a run that is stopped: few enough to be read, and its state kept, after each."""
ONE_RUN = ("--seeds", "0", "--methods", "dann-coupled", "--steps", str(STEPS))


def numbers(run: Path) -> tuple:
    """All that a run measured: its history's bytes, and its result without the time it took."""
    result = json.loads((run / "result.json").read_text())
    return (run / "history.csv").read_bytes(), {k: v for k, v in result.items() if k != "seconds"}


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple:
    """A run that nothing disturbed."""
    place = tmp_path_factory.mktemp("straight")
    assert digits.main(["--output", str(place), *ONE_RUN]) == 0
    return numbers(place / "runs" / "dann-coupled__seed0")


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_its_status_and_the_next_call_gives_the_same_numbers(number, status, straight, tmp_path, monkeypatch,
                                                                              capsys):
    monkeypatch.setattr(digits, "KEEP_SECONDS", 0.0)
    measure, calls = digits.accuracy, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 9:  # two a step
            os.kill(os.getpid(), number)
        return measure(*arguments)

    command = ["--output", str(tmp_path), *ONE_RUN]
    monkeypatch.setattr(digits, "accuracy", interrupted)
    assert digits.main(command) == status and "the same command goes on" in capsys.readouterr().err
    run = tmp_path / "runs" / "dann-coupled__seed0"
    assert not (run / "result.json").exists() and not list(tmp_path.rglob("*.partial"))
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    monkeypatch.setattr(digits, "accuracy", measure)
    assert digits.main(command) == 0 and "goes on after step 4" in capsys.readouterr().err
    assert numbers(run) == straight and not list(run.glob("epoch-*.pt"))


def test_kill_9_costs_no_digit(straight, tmp_path):
    """A process of its own, killed when its second state is there; what a kill while writing leaves is added."""
    arguments, run = ["--output", str(tmp_path), *ONE_RUN], tmp_path / "runs" / "dann-coupled__seed0"
    keep, kept = checkpoints.keep, []

    def killed(state, folder):
        if len(kept) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        kept.append(keep(state, folder))

    def work():
        digits.KEEP_SECONDS, checkpoints.keep = 0.0, killed
        digits.main(arguments)

    assert ended(forked(work)) == -signal.SIGKILL
    for left in (run / "result.json.123.partial", tmp_path / "examples.png.123.partial", tmp_path / "results.csv.123.partial"):
        left.write_text("{")
    first, newest = sorted(run.glob("epoch-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-500])  # damaged besides: the one before it is taken
    assert digits.main(arguments) == 0
    assert numbers(run) == straight and not list(tmp_path.rglob("*.partial"))


def test_a_state_of_other_settings_is_named_and_not_taken_up(straight, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digits, "KEEP_SECONDS", 0.0)
    task, run = digits_data.offline_task(16), tmp_path / "runs" / "dann-coupled__seed0"
    run.mkdir(parents=True)
    other = da.DigitSettings("dann-coupled", steps=3, rate=0.01)
    digits.train(task, other, torch.device("cpu"), "", progress=False, folder=run)
    assert list(run.glob("epoch-*.pt"))
    assert digits.main(["--output", str(tmp_path), *ONE_RUN]) == 0
    assert "other settings or data; it is not taken up" in capsys.readouterr().err and numbers(run) == straight


@contextlib.contextmanager
def file_size_limit(size: int):
    """Files can't grow beyond `size` bytes in this block: what a full disk does, for any user."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_for_a_state_is_said_and_the_next_call_goes_on(straight, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digits, "KEEP_SECONDS", 0.0)
    command = ["--output", str(tmp_path), *ONE_RUN]
    with file_size_limit(100_000):
        assert digits.main(command) == 2
    said = capsys.readouterr().err
    assert re.search(r"error: writing .*epoch-0001\.pt failed \(.*free some space", said) and "Traceback" not in said
    assert not list(tmp_path.rglob("*.partial"))
    assert digits.main(command) == 0 and numbers(tmp_path / "runs" / "dann-coupled__seed0") == straight


def test_a_full_disk_is_said_and_room_is_all_that_is_needed(straight, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digits, "KEEP_SECONDS", 0.0)
    with small_disk(tmp_path / "disk", "1m") as disk:
        command = ["--output", str(disk), *ONE_RUN]
        assert digits.main(command) == 2
        assert re.search(r"error: writing .*no space left.*free some space", capsys.readouterr().err)
        assert not (disk / "runs" / "dann-coupled__seed0" / "result.json").exists() and not list(disk.rglob("*.partial"))
        resize(disk, "64m")
        assert digits.main(command) == 0 and numbers(disk / "runs" / "dann-coupled__seed0") == straight


def test_two_calls_at_once_share_the_runs(finished, tmp_path):
    root, command = finished
    arguments = ["--output", str(tmp_path / "out"), *command[2:]]

    def in_another_process() -> None:
        assert digits.main(arguments) == 0

    other = forked(in_another_process)
    until = time.monotonic() + 600
    while not (tmp_path / "out" / "runs").exists():
        assert time.monotonic() < until
        time.sleep(0.005)
    assert digits.main(arguments) == 0
    assert ended(other) == 0
    for run in (root / "extension" / "runs").iterdir():
        assert numbers(tmp_path / "out" / "runs" / run.name) == numbers(run)
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 5


def test_a_run_that_another_process_holds_is_left_to_it_and_taken_over_from_a_dead_one(finished, tmp_path, capsys):
    root, command = finished
    place = tmp_path / "out"
    shutil.copytree(root / "extension", place)
    run = place / "runs" / "source-only__seed0"
    (run / "result.json").unlink()
    task, settings = digits_data.offline_task(16), da.DigitSettings("source-only", 0, 6, image_size=16)
    with lock(run / ".lock", "elsewhere"), pytest.raises(digits.Held, match=f"process {os.getpid()}"):
        digits.run(task, settings, place, torch.device("cpu"), "")
    # a dead process's name stands in the file, and nobody holds it
    (run / ".lock").write_text(json.dumps({"pid": 1, "host": "gone", "since": "2020-01-01 00:00:00"}))
    assert digits.run(task, settings, place, torch.device("cpu"), "")
    assert numbers(run) == numbers(root / "extension" / "runs" / run.name)


@pytest.mark.parametrize("name, change", [("result.json", lambda b: b.replace(b"0.", b"1.", 1)),
                                          ("history.csv", lambda b: b[:40]),
                                          ("result.json", lambda b: b""), ("config.json", lambda b: b"[]"),
                                          ("provenance.json", None), ("SHA256SUMS", lambda b: b[:70])])
def test_a_damaged_run_is_named_set_aside_and_run_again(name, change, finished, tmp_path, capsys):
    root, command = finished
    place = tmp_path / "out"
    shutil.copytree(root / "extension", place)
    run, kept = place / "runs" / "source-only__seed1", root / "extension" / "runs" / "source-only__seed1"
    before = (run / name).read_bytes()
    if change is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(change(before))
        assert (run / name).read_bytes() != before
    assert len(digits.summarise(place)) == 3  # left out of the table as long as it is damaged
    assert digits.main(["--output", str(place), *command[2:]]) == 0
    said = capsys.readouterr().err
    assert f"source-only__seed1: not as it was written: {name}" in said
    assert numbers(run) == numbers(kept) and (place / "damaged" / "source-only__seed1-1" / "result.json").exists()
    assert len((place / "results.csv").read_text().splitlines()) == 5


def test_checksums_are_of_the_form_that_other_tools_read(finished):
    if not shutil.which("sha256sum"):
        pytest.skip("no sha256sum here")
    for run in (finished[0] / "extension" / "runs").iterdir():
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=run, check=True)


@pytest.mark.parametrize("line, message", [("../0.png 7", "no file name"), ("/etc/0.png 7", "no file name"),
                                           (".. 7", "no file name"),
                                           ("0.png ²", "expected 'name label'"), ("0.png 12", "expected 'name label'"),
                                           ("0.png", "expected 'name label'"), ("there_is_none.png 3", "can't be read")])
def test_lists_of_mnist_m_name_pictures_of_their_folder_alone(line, message, tmp_path):
    (tmp_path / "mnist_m_train").mkdir()
    (tmp_path / "mnist_m_train_labels.txt").write_text(f"\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"line 2.*{message}|{message}.*line 2"):
        digits_data._mnist_m(tmp_path, "train")
    (tmp_path / "mnist_m_train_labels.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(InputError, match="UTF-16 text; save it as UTF-8.*beside the folder mnist_m_train"):
        digits_data._mnist_m(tmp_path, "train")


def test_photos_of_absurd_size_and_damaged_mnist_are_named(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (raw / name).write_bytes(b"\0\0\x08\x03garbage")
    with pytest.raises(InputError, match="--mnist .*holds no MNIST"):
        digits_data.mnist_task(tmp_path, False, None, None)
    Image.new("1", (20_000, 10_000)).save(tmp_path / "wide.png")
    with pytest.raises(InputError, match="wide.png can't be read as a picture .*pixels"):
        digits_data._photo(tmp_path / "wide.png")
