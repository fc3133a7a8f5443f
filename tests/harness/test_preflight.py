"""What the plan tells is said before the first run: all reasons at once, each once, with its cure; nothing is run or written."""
from __future__ import annotations

import csv
import shutil

import pytest
import torch
from support.small_suite import ONE, TINY, common, make_place, places, run_folders
from support.trees import make_tree

import tcn.__main__
from benchmarks import bundle, preflight, prepared, run_all
from benchmarks.demo import strip
from benchmarks.launch import local
from benchmarks.tools import make_words, safety_cost, search_settings, torture
from reports.render import command as render
from tcn.config import InputError
from tcn.data import strokes
from tcn.model import backbones


@pytest.fixture
def run(place, command, tmp_path, monkeypatch):
    """The command on that place with the lighter network, into a new output folder; no run may be started."""
    def never(*arguments, **options):
        raise AssertionError("a run was started")

    monkeypatch.setattr(local, "attempt", never)
    return lambda *arguments: command(*common(place), *ONE, "--output", str(tmp_path / "out"), *arguments)


@pytest.fixture
def words(place, tmp_path):
    """A copy of the word table without one seen class of QuickDraw; its path, and the class."""
    from tcn.data.specs import read_plan

    lost = read_plan("quickdraw").of("seen")[3]
    with open(place / "words.csv", newline="") as source, open(tmp_path / "fewer.csv", "w", newline="") as out:
        csv.writer(out).writerows(row for row in csv.reader(source) if row[0] != lost)
    return tmp_path / "fewer.csv", lost


@pytest.mark.parametrize("how", [(), ("--launcher", "processes")])
def test_words_that_lack_a_class_are_said_once_before_any_baseline_runs(run, words, tmp_path, how):
    file, lost = words
    status, out, err = run("--variants", "untrained-svd", "tcn", "hws", "nws", "--words", str(file), *how)
    assert status == 2 and err.count(lost) == 1 and err.count(str(file)) == 1 and err.count("\n") == 1
    assert "It stops 3 of 4 runs" in err and "without hws, nws, tcn: --variants untrained-svd" in err
    assert not (tmp_path / "out").exists() and "1/4" not in out


def test_classes_that_share_a_word_vector_are_told_once_for_all_runs(place, command, tmp_path, monkeypatch):
    from tcn.data.specs import read_plan

    one, other = read_plan("quickdraw").of("seen")[4:6]
    rows = list(csv.reader((place / "words.csv").read_text().splitlines()))
    shared = next(row[1:] for row in rows if row[0] == one)
    with open(tmp_path / "twins.csv", "w", newline="") as out:
        csv.writer(out).writerows([row[0], *shared] if row[0] == other else row for row in rows)
    monkeypatch.setattr(local, "attempt", lambda *arguments, **options: (_ for _ in ()).throw(KeyboardInterrupt))
    arguments = (*common(place), *ONE, "--output", str(tmp_path / "out"))
    for words, times in ((tmp_path / "twins.csv", 1), (place / "words.csv", 0)):
        # an untrained baseline reads no words
        for variants, expected in ((("tcn", "hws", "untrained-svd"), times), (("untrained-svd",), 0)):
            _, _, err = command(*arguments, "--variants", *variants, "--words", str(words))
            assert err.count(f"note: quickdraw, split 1: the same vector for {one} = {other}: by their words") == expected
            assert err.count("same vector") == expected


def test_a_plan_is_shown_and_its_reasons_are_told(run, words, tmp_path, monkeypatch):
    from benchmarks.launch import calibration

    monkeypatch.setattr(calibration, "SHAPE_SECONDS", 0.05)
    monkeypatch.setattr(calibration, "TIMED_SECONDS", 0.01)
    status, out, err = run("--variants", "untrained-svd", "tcn", "--words", str(words[0]), "--dry-run")
    assert status == 2 and "can't run: " in out and words[1] in err and "--variants untrained-svd" in err
    assert not (tmp_path / "out").exists()


def test_all_reasons_come_at_once(run, words, tmp_path, monkeypatch):
    (tmp_path / "w.pth").write_bytes(b"garbage" * 100)
    (tmp_path / "file").write_text("a file")
    monkeypatch.setenv("TCN_CACHE_LIMIT_GB", "many")
    monkeypatch.setenv("TCN_CACHE_FORM", "compact")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000")
    status, _, err = run("--variants", "tcn", "hws", "--words", str(words[0]), "--weights", str(tmp_path / "w.pth"),
                         "--teacher-weights", str(tmp_path / "w.pth"), "--device", "cuda:77", "--emoji-tarballs",
                         str(tmp_path / "nowhere"), "--cache", str(tmp_path / "new cache"), "--output", str(tmp_path / "file"))
    assert status == 2 and "reasons, and nothing was run" in err
    reasons = [line for line in err.splitlines() if line.startswith("  - ")]
    for text in ("--device cuda:77", "'localhost:5000', which has no kind", str(tmp_path / "nowhere"), words[1],
                 f"{tmp_path / 'file'} is a file", "TCN_CACHE_LIMIT_GB is 'many'", "w.pth can't be read"):
        assert sum(text in line for line in reasons) == 1, (text, err)
    assert len(reasons) == 7 and not (tmp_path / "new cache").exists()


def test_an_unknown_form_of_the_image_cache_is_said_before_anything_runs(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TCN_CACHE_FORM", "tiny")
    status, _, err = run("--variants", "untrained-svd", "--cache", str(tmp_path / "cache"))
    assert status == 2 and "TCN_CACHE_FORM is 'tiny'; it must be decoded, compact or auto" in err
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_weights_that_can_t_be_read_or_do_not_fit_are_said_once(run, place, tmp_path):
    status, _, err = run("--variants", "tcn", "hws", "untrained-svd", "--set", *TINY, "network.backbone=resnet18")
    assert status == 2 and err.count("weights.pth") == 1 and not (tmp_path / "out").exists()
    (tmp_path / "w.pth").write_bytes(b"garbage" * 100)
    status, _, err = run("--variants", "tcn", "hws", "--teacher-weights", str(tmp_path / "w.pth"))
    assert status == 2 and err.count("w.pth") == 1 and "can't be read as a PyTorch state dict" in err
    status, _, err = run("--variants", "tcn", "--weights", str(tmp_path / "none.pth"))
    assert status == 2 and err.count("none.pth") == 1 and "No such file" in err


def test_a_model_that_can_t_be_built_is_said_before_the_baselines(run, tmp_path):
    status, _, err = run("--variants", "untrained-svd-permodality", "tcn", "hws", "--set", "network.dim=1200")
    assert status == 2 and err.count("dim is 1200") == 1 and not (tmp_path / "out").exists()


def test_imagenet_s_words_are_looked_for_where_a_method_compares_them(run, tmp_path):
    status, _, err = run("--variants", "untrained-svd", "sake")
    assert status == 2 and "has no row for" in err and "of 1000 class names" in err and "--variants untrained-svd" in err
    assert len(err) < 1000  # the first ten names, and how many more
    assert not (tmp_path / "out").exists()


def test_one_data_set_that_lacks_something_stops_the_call_and_can_be_left_out(tmp_path, command):
    root = make_place(tmp_path)
    make_tree(root / "data", "tuberlin", sketches=2, photos=1, size=8)
    arguments = [*common(root), "--seeds", "3", "--variants", "untrained-svd", "tcn", "--output", str(tmp_path / "out")]
    status, _, err = command(*arguments)
    assert status == 2 and "has no row for" in err and not (tmp_path / "out").exists()
    assert "It stops 1 of 4 runs" in err and "without tuberlin: --datasets quickdraw" in err
    shutil.rmtree(root / "data" / "QuickDraw" / "QuickDraw_images_final" / "windmill")
    status, _, err = command(*arguments, "--variants", "untrained-svd")
    assert status == 2 and "windmill" in err and "without quickdraw: --datasets tuberlin" in err


@pytest.mark.parametrize("name, fits", [("cuda", True), ("cuda:2", True), ("cuda:3", False)])
def test_gpus_of_workers_are_counted_and_not_used(monkeypatch, name, fits):
    """A context on a GPU takes hundreds of MB of it, for a process that only hands out runs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: pytest.fail("a tensor was made"))
    if fits:
        assert prepared.device_named(name, here=False) == torch.device(name)
    else:
        with pytest.raises(InputError, match="--device cuda:3 can't be used here .3 GPUs are visible"):
            prepared.device_named(name, here=False)


def test_models_are_looked_at_without_the_device(run, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "to", lambda *_, **__: pytest.fail("a model was moved"))
    with pytest.raises(AssertionError, match="a run was started"):
        run("--variants", "tcn")


def test_a_precision_that_the_device_lacks_is_told_first(run):
    status, _, err = run("--set", "execution.precision=tf32")
    assert status == 2 and "only CUDA" in err


@pytest.mark.parametrize("form, each, told", [("decoded", 32 * 32, "1 MB"), ("compact", 8, "0 MB")])
def test_room_for_the_image_cache(place, run, tmp_path, monkeypatch, capsys, form, each, told):
    """110 classes of 3 drawings and 2 photos at 32 pixels: 563,200 bytes in grey, three times as many in colour; compact 4,400 at
    the least."""
    monkeypatch.setenv("TCN_CACHE_FORM", form)
    usage = shutil.disk_usage(tmp_path)
    least = 110 * 5 * each

    def free(number):
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage._replace(free=number))

    free(least - 1)
    arguments = ("--variants", "untrained-svd", "--cache", str(tmp_path / "cache"))
    status, _, err = run(*arguments)
    assert status == 2 and "no room for the image cache" in err and f"need {told} at the least" in err
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()
    free(2 * least)
    call, _ = prepared.prepare(run_all.parser().parse_args([*common(place), *ONE, "--output", str(tmp_path / "out"), *arguments]))
    assert "warning: the image cache" in capsys.readouterr().err and len(call.folders) == 1


@pytest.mark.parametrize("address", [
    "", "http://127.0.0.1:5000", "https://user:word@mlflow.example.org/path", "sqlite:////tmp/a b/mlflow.db", "sqlite:///x.db",
    "postgresql+psycopg2://host/db", "file:///tmp/runs", "/tmp/runs", "./runs", "runs", "databricks", "databricks://profile"])
def test_well_formed_addresses_pass(monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    preflight.tracking_address()


@pytest.mark.parametrize("address", [
    "localhost:5000", "127.0.0.1:5000", "htp://host:5000", "http://", "http://:5000", "http://host:port", "http://host:99999",
    "http://host name:5000", "sqlit:///x.db"])
def test_malformed_addresses_are_named_with_a_cure(monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI is .*give http://HOST:PORT or sqlite"):
        preflight.tracking_address()


def test_a_finished_suite_needs_no_weights_any_more(place, command, tmp_path, monkeypatch):
    """As on a machine without network to which the folder was sent: nothing has to run, nothing is fetched."""
    arguments = [*common(place), *ONE, "--variants", "untrained-svd", "--output", str(tmp_path / "out"), "--no-report"]
    assert command(*arguments)[0] == 0

    def gone(*arguments):
        raise InputError("ImageNet weights could not be fetched")

    monkeypatch.setattr(backbones, "build", gone)
    status, out, _ = command(*arguments)
    assert status == 0 and "1 already finished" in out
    status, _, err = command(*arguments, "--variants", "untrained-svd", "tcn")
    assert status == 2 and err.count("could not be fetched") == 1
    name = next(iter(run_folders(tmp_path / "out").values())).name
    status, _, err = command(*places(place), "--reproduce", name, "--output", str(tmp_path / "out"))
    assert status == 2 and "could not be fetched" in err and not (tmp_path / "out" / "reproductions").exists()
    status, _, err = command("--data-root", str(tmp_path / "elsewhere"), "--reproduce", name, "--output", str(tmp_path / "out"),
                             "--device", "cuda:77", "--words", str(tmp_path / "no words"))
    assert status == 2 and all(text in err for text in ("elsewhere", "cuda:77", "no words"))


def test_a_file_that_can_t_be_written_is_said_before_the_work_whose_result_it_takes(tmp_path, capsys, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("the work was begun")

    for place, name in ((bundle, "finished"), (backbones, "encoder"), (make_words, "embed"), (render, "read_suite"),
                        (strip, "opened"), (torture, "torture"), (safety_cost, "measure"), (search_settings, "_try"),
                        (strokes, "draw")):
        monkeypatch.setattr(place, name, never)
    monkeypatch.setattr(preflight, "check_runs", lambda *arguments, **options: [])
    (tmp_path / "a").write_text("a file")
    target = str(tmp_path / "a" / "b.npz")
    for main, *arguments in (
            (bundle.main, tmp_path, "--output"), (render.main, "--results", tmp_path, "--leaderboard"),
            (render.main, "--results", tmp_path, "--out"), (make_words.main, "--imagenet", "--out"),
            (tcn.__main__.main, "extract", "--backbone", "resnet18", "--dataset", "emoji", "--out"),
            (tcn.__main__.main, "quickdraw", tmp_path, "--out"), (strip.main, "--drawings", tmp_path, "--out"),
            (torture.main, "--output", tmp_path / "t", "--table"), (safety_cost.main, "--table"),
            (search_settings.main, "--out")):
        assert main([*map(str, arguments), target]) == 2, arguments
        err = capsys.readouterr().err
        assert str(tmp_path / "a") in err and arguments[-1] in err and "is a file" in err, err


def test_the_search_takes_settings_that_its_points_leave_open_and_derives_what_follows(tmp_path, capsys, monkeypatch):
    planned = []
    monkeypatch.setattr(preflight, "check_runs", lambda checks, runs, *rest, **options: planned.extend(runs))
    monkeypatch.setattr(search_settings, "_try", lambda *arguments: {})
    assert search_settings.main(["--out", str(tmp_path / "a.csv"), "--set", "training.epochs=1"]) == 2
    points = len(search_settings.laptop_grid())
    assert f"--set training.epochs: {points} of the grid's {points} points have a value of their own" in capsys.readouterr().err
    for setting in ("network.dim=128", "network.dim=64"):
        planned.clear()
        assert search_settings.main(["--out", str(tmp_path / "b.csv"), "--set", "data.image_size=96", setting, "--set",
                                     "network.dropout=0.2", "losses.sharing=3"]) == 0
        assert "note: --set losses.sharing: 11 of the grid's" in capsys.readouterr().err
        assert len(planned) == points, "a point with other settings is another point"
        assert {(run.config.data.stored_size, f"network.dim={run.config.network.dim}") for run in planned} == {(96, setting)}
    weights = [run.config.losses.sharing for run in planned if run.variant == "tcn"]
    assert 3.0 not in weights and len(set(weights)) > 5


def test_other_commands_say_their_slips_before_they_begin(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preflight, "check_runs", lambda checks, runs, *rest, **options: [])
    assert search_settings.main(["--part", "3/2", "--threads", "5000", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert all(err.count(text) == 1 for text in ("--part 3/2", "5,000 threads", "is a folder"))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert search_settings.main(["--out", str(tmp_path / "other.csv")]) == 2
    assert "has no column 'stage'" in capsys.readouterr().err
    assert torture.main(["--output", str(tmp_path / "t"), "--", "--variants", "tcm"]) == 2
    assert "unknown variant 'tcm'" in capsys.readouterr().err
    assert torture.main(["--output", str(tmp_path / "t"), "--kills", "0"]) == 2 and not (tmp_path / "t").exists()
