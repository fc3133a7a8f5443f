"""The command end to end, on small trees in the paper's layouts: real training, MLflow, report, resume, failures."""
from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import mlflow
import numpy as np
import pytest
from PIL import Image
from support.small_suite import ONE, common, run_folders
from support.trees import make_tree

from benchmarks import exhibits, mirror, picture_sheets, provenance, run_all
from benchmarks.launch import calibration, local
from benchmarks.store import RunFolder, damaged
from tcn.config import InputError
from tcn.data.splits import Files
from tcn.train import checkpoints, loop


@pytest.fixture
def run(place, command):
    """The command on that place."""
    return lambda *arguments: command(*common(place), *arguments)


@pytest.fixture(scope="module")
def finished(place, whole_fonts):
    """An output folder with tcn, hws and an untrained baseline finished."""
    output = place / "finished"
    status = run_all.main([*common(place), *ONE, "--variants", "untrained-svd-permodality", "hws", "tcn",
                           "--output", str(output)])
    assert status == 0
    return output


def test_every_run_leaves_its_plain_files(finished):
    found = run_folders(finished)
    assert set(found) == {f"quickdraw-1__{v}__seed3" for v in ("untrained-svd-permodality", "hws", "tcn")}
    for name, folder in found.items():
        files = {p.name for p in folder.iterdir()}
        always = {"config.json", "provenance.json", "status.json", "metrics.csv", "per_query.csv", "per_query.npz",
                  "features.npz", "singular_values.csv", "precision_recall.csv", "examples.json", "examples", "SHA256SUMS"}
        assert always <= files
        assert ({"history.csv", "steps.csv", "distances.npz", "checkpoint.pt"} <= files) == ("untrained" not in name)
        assert ("ledger.csv" in files) == ("__tcn__" in name)
        assert not [name for name in files if name.startswith("epoch-") or name.endswith(".partial")]
        status = json.loads((folder / "status.json").read_text())
        assert status["state"] == "finished"
        provenance = json.loads((folder / "provenance.json").read_text())
        assert provenance["identity"].startswith(folder.name.rsplit("__", 1)[1])
        assert {"commit", "versions", "device", "threads", "data_digest", "split_digest", "command"} <= set(provenance)
        assert provenance["smoke"] is True  # as of `--quick`, which the record says without its command
        assert str(finished.parent) not in (folder / "config.json").read_text()


def test_written_metrics_follow_from_the_written_features(finished):
    """A naive ranking of the saved features gives the saved mAP@all (standard rules) and AP per query."""
    folder = run_folders(finished)["quickdraw-1__tcn__seed3"]
    data = np.load(folder / "features.npz")
    q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (data["query"].astype(float), data["gallery"].astype(float)))
    precisions = []
    for row, label in zip(q, data["query_labels"]):
        order = np.argsort(((g - row) ** 2).sum(1), kind="stable")
        hits = (data["gallery_labels"][order] == label)
        precisions.append(sum(hits[:i + 1].mean() for i in np.flatnonzero(hits)) / hits.sum())
    rows = list(csv.DictReader(open(folder / "metrics.csv")))
    saved = next(float(r["value"]) for r in rows if (r["classes"], r["features"], r["protocol"], r["metric"], r["query_source"])
                 == ("unseen", "real", "standard", "mAP@all", "all"))
    assert saved == pytest.approx(np.mean(precisions), rel=1e-6)
    per_query = [float(r["AP_standard"]) for r in csv.DictReader(open(folder / "per_query.csv")) if r["features"] == "real"]
    np.testing.assert_allclose(per_query, precisions, rtol=1e-6)
    unseen = set(data["query_labels"])
    assert len(unseen) == 30 and "windmill" in unseen


def test_every_metric_follows_from_the_per_query_values(finished):
    """Mean over queries, or over classes of the class means, of what per_query.npz holds: the row in metrics.csv."""
    folder = run_folders(finished)["quickdraw-1__hws__seed3"]
    values = np.load(folder / "per_query.npz")
    classes = values["class"]
    rows = [r for r in csv.DictReader(open(folder / "metrics.csv"))
            if (r["classes"], r["query_source"], r["gallery"], r["duplicates"]) == ("unseen", "all", "all", "as-published")]
    assert {r["protocol"] for r in rows} == {"released", "cvpr19", "zse", "sem-pcyc", "cvae", "standard"}
    assert len(rows) == len(values.files) - 2 == 2 * (5 + 3 * 6 + 2 * 2)
    for row in rows:
        per_query = values[f"{row['features']}/{row['protocol']}/{row['metric']}"]
        mean = np.mean([per_query[classes == c].mean() for c in set(classes)]) if row["protocol"] == "released" \
            else per_query.mean()
        assert float(row["value"]) == pytest.approx(mean, rel=1e-12)


def test_mlflow_holds_the_same(finished):
    client = mlflow.MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tcn-paper-smoke")
    runs = client.search_runs([experiment.experiment_id])
    parents = [r for r in runs if r.data.tags["kind"] == "suite"]
    children = [r for r in runs if r.data.tags["kind"] == "run"]
    assert len(parents) == 1 and len(children) == 3
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parents[0].info.run_id}
    assert all(r.info.status == "FINISHED" for r in runs)
    tcn = next(r for r in children if r.data.tags["variant"] == "tcn")
    folder = run_folders(finished)["quickdraw-1__tcn__seed3"]
    assert tcn.data.params["losses.sharing"] == "1000.0" and tcn.data.params["network.backbone"] == "test_resnet"
    steps = list(csv.DictReader(open(folder / "steps.csv")))
    history = client.get_metric_history(tcn.info.run_id, "step/class_sketch")
    assert [m.step for m in history] == [int(r["step"]) for r in steps]
    assert [m.value for m in history] == pytest.approx([float(r["class_sketch"]) for r in steps])
    value = next(float(r["value"]) for r in csv.DictReader(open(folder / "metrics.csv"))
                 if (r["classes"], r["features"], r["protocol"], r["metric"]) == ("unseen", "real", "released", "mAP@all"))
    assert tcn.data.metrics["unseen/real/released/mAP_at_all"] == pytest.approx(value)
    assert {i.dataset.name for i in tcn.inputs.dataset_inputs} == {"quickdraw 1 training", "quickdraw 1 unseen"}
    assert {"metrics.csv", "examples", "config.json"} <= {a.path for a in client.list_artifacts(tcn.info.run_id)}
    assert any(a.path == "report" for a in client.list_artifacts(parents[0].info.run_id))


def test_mlflow_shows_the_result_on_its_own_pages(finished, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished / 'mlflow.db'}")  # load_table asks the global address
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("tcn-paper-smoke").experiment_id
    runs = client.search_runs([experiment])
    parent = next(r for r in runs if r.data.tags["kind"] == "suite")
    tcn = next(r for r in runs if r.data.tags.get("variant") == "tcn")
    folder = run_folders(finished)["quickdraw-1__tcn__seed3"]
    link = f"(#/experiments/{experiment}/runs/{parent.info.run_id}/artifacts/report/index.html)"
    note = tcn.data.tags["mlflow.note.content"]
    assert link in note and "seed 3" in note and f"**{tcn.data.metrics['unseen/real/released/mAP_at_all']:.3f}**" in note
    told = parent.data.tags["mlflow.note.content"]
    assert link in told and "| TCN (soft sharing) |" in told and len(told) < 8000
    shown = set(re.findall(r"!\[.*?\]\(get-artifact\?path=(.*?)&run_uuid=(.*?)\)", told))
    assert len(shown) >= 2 and all(owner == parent.info.run_id for _, owner in shown)
    for path in (unquote(address) for address, _ in shown):
        assert Path(client.download_artifacts(parent.info.run_id, path)).stat().st_size > 100
    table = client.load_table(experiment, "per_query.json", [tcn.info.run_id])
    rows = list(csv.DictReader(open(folder / "per_query.csv")))
    assert table["query"].tolist() == [row["query"] for row in rows]
    assert table["AP_released"].tolist() == pytest.approx([float(row["AP_released"]) for row in rows])
    names = sorted(a.path for a in client.list_artifacts(tcn.info.run_id, "images") if a.path.endswith(".png"))
    examples = json.loads((folder / "examples.json").read_text())["examples"]
    assert [re.search(r"retrieval\+step\+(\d+)\+", name)[1] for name in names] == [str(n) for n in range(len(examples))]
    with Image.open(client.download_artifacts(tcn.info.run_id, names[0])) as picture:
        for rank, hit in enumerate(examples[0]["retrieved"], 1):  # the frame around each photo
            red, green, _ = picture.convert("RGB").getpixel((rank * 104 + 8 + 50, 1))
            assert (green > red) == hit["correct"]
    assert tcn.data.metrics["cost/train_seconds"] == json.loads((folder / "provenance.json").read_text())["train_seconds"]


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / "per_query.csv").write_text("query,class,source,features,AP_released\na,b,c,real,much\n"),
    lambda folder: (folder / "examples.json").write_text('{"examples": [{"query": 5}]}'),
    lambda folder: next((folder / "examples").iterdir()).write_bytes(b"\x89PNG\r\n\x1a\n no picture")])
def test_what_pages_can_not_show_is_left_out_and_costs_nothing_else(damage, finished, tmp_path):
    source = run_folders(finished)["quickdraw-1__tcn__seed3"]
    folder = RunFolder.read(shutil.copytree(source, tmp_path / "runs" / source.name))
    whole = exhibits.per_query_table(folder.path), len(list(exhibits.example_strips(folder.path)))
    damage(folder.path)
    found = exhibits.per_query_table(folder.path), len(list(exhibits.example_strips(folder.path)))
    assert whole[0] is not None and whole[1] == 5 and found in ((None, 5), (whole[0], 0))
    record = {"device": "x_<b>" * 90, "optimizer_steps": 10**400, "train_seconds": float("nan"), "title": "[a](b)\n# c"}
    assert exhibits.costs(record) == {}
    note = exhibits.run_note(folder.run, {}, record, "#/x")
    assert len(note) < 1000 and "<b>" not in note.replace("\\<b\\>", "") and "\n#" not in note and "[a](b)" not in note


def test_nothing_that_lies_outside_a_folder_is_copied_to_mlflow(finished, tmp_path):
    """A folder made by others may hold links to files of this machine, and a folder of them."""
    source = run_folders(finished)["quickdraw-1__tcn__seed3"]
    folder = RunFolder.read(shutil.copytree(source, tmp_path / "runs" / source.name))
    sent: list[str] = []

    class Client:
        def log_artifact(self, run_id, path, place=None):
            sent.append(Path(path).relative_to(folder.path).as_posix())

        def log_image(self, run_id, picture, **more):
            sent.append("a strip")

        def log_text(self, run_id, text, name):
            sent.append(name)

        def log_batch(self, run_id, **more):
            pass

        def list_artifacts(self, run_id, place):
            return []

    def copied() -> list[str]:
        sent.clear()
        own = SimpleNamespace(client=Client(), mlflow=mlflow, experiment="1", parent="p")
        mirror.RunMirror._results(SimpleNamespace(mirror=own, folder=folder, run_id="r"), {}, 0)
        return sorted(sent)

    whole = copied()
    assert {"metrics.csv", "per_query.csv", "per_query.json", "a strip"} <= set(whole)
    picture = next((folder.path / "examples").iterdir())
    for path in (picture, folder.path / "per_query.csv", folder.path / "examples.json"):
        shutil.move(path, tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    gone = {f"examples/{picture.name}", "per_query.csv", "per_query.json", "examples.json", "a strip"}
    assert copied() == [name for name in whole if name not in gone]
    shutil.move(tmp_path / "examples.json", folder.path / "examples.json")  # takes the place of the link
    assert "a strip" not in copied() and "examples.json" in copied()
    shutil.move(folder.path / "examples", tmp_path / "elsewhere")
    (folder.path / "examples").symlink_to(tmp_path / "elsewhere")
    assert not [name for name in copied() if name.startswith("examples/")]


def test_small_pictures_of_a_split_show_each_file_in_its_place(finished, tmp_path, monkeypatch):
    folder = finished / "pictures" / "quickdraw-1"
    index = json.loads((folder / "index.json").read_text())
    with np.load(run_folders(finished)["quickdraw-1__tcn__seed3"] / "features.npz") as arrays:
        assert (index["queries"], index["photos"]) == (arrays["query_paths"].tolist(), arrays["gallery_paths"].tolist())
    told = (finished / "report" / "index.html").read_text().split('<section id="queries">')[1].split("</section>")[0]
    assert f"each of {len(index['queries'])} query sketches under each of 3 runs" in told and "no small pictures" not in told
    monkeypatch.setattr(picture_sheets, "COLUMNS", 3)
    monkeypatch.setattr(picture_sheets, "ROWS", 2)
    colours = {f"{n}.png": (25 * n, 255 - 25 * n, 128) for n in range(10)}
    for name, colour in colours.items():
        Image.new("RGB", (40, 30), colour).save(tmp_path / name)
    (tmp_path / "8.png").write_bytes(b"no picture")
    names = list(colours)
    lists = [Files(tmp_path, tuple(part), np.zeros(len(part), np.int64), ("",) * len(part)) for part in (names[:3], names[3:])]
    split = SimpleNamespace(query=lists[0], gallery=lists[1], data_digest="d")
    assert picture_sheets.write(tmp_path / "sheets", split) and not picture_sheets.write(tmp_path / "sheets", split)
    side = picture_sheets.SIDE
    for number, name in enumerate(names):
        with Image.open(tmp_path / "sheets" / f"00{number // 6}.webp") as sheet:
            middle = sheet.convert("RGB").getpixel((number % 3 * side + side // 2, number % 6 // 3 * side + side // 2))
        wanted = (picture_sheets.UNREADABLE,) * 3 if name == "8.png" else colours[name]
        assert max(abs(a - b) for a, b in zip(middle, wanted)) < 15, name
    with Image.open(tmp_path / "sheets" / "001.webp") as sheet:
        assert sheet.size == (3 * side, 2 * side)
    split.data_digest = "another"
    assert picture_sheets.write(tmp_path / "sheets", split)


def test_a_second_call_trains_nothing_and_changes_no_run(finished, run, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in (finished / "runs").rglob("*") if p.is_file()}
    monkeypatch.setattr(local, "attempt", None)
    status, out, _ = run(*ONE, "--variants", "untrained-svd-permodality", "hws", "tcn", "--output", str(finished), "--no-report")
    assert status == 0 and "0 runs done, 3 already finished" in out
    assert "| TCN (soft sharing) |" in out and "chance" in out.split("already finished")[1]
    assert before == {p: p.stat().st_mtime_ns for p in (finished / "runs").rglob("*") if p.is_file()}


def _without_ledger(folder: Path, keep: str = "") -> None:
    """As a version left the folder that asked for no ledger, or only for the deviation `keep`."""
    rows = (folder / "ledger.csv").read_text().splitlines(keepends=True)
    (folder / "ledger.csv").unlink()
    lines = [line for line in (folder / "SHA256SUMS").read_text().splitlines(keepends=True) if "ledger.csv" not in line]
    if keep:
        text = "".join([rows[0], *(row for row in rows[1:] if row.startswith(keep + ","))])
        (folder / "ledger.csv").write_text(text)
        lines.append(f"{hashlib.sha256(text.encode()).hexdigest()}  ledger.csv\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.mark.parametrize("keep, more", [("", ()), ("itq-rule", ("--launcher", "processes", "--workers", "1"))])
def test_a_finished_run_without_the_ledger_gets_it_from_its_checkpoint(keep, more, finished, run, place, monkeypatch,
                                                                       warm_workers):
    """A variant's ledger is no part of the identity: nothing is trained again, all else stays, to the bit."""
    output = place / f"older{keep}"
    shutil.copytree(finished, output, ignore=shutil.ignore_patterns("mlflow*", "mlartifacts", "report"))
    folder = run_folders(output)["quickdraw-1__tcn__seed3"]
    whole = (folder / "ledger.csv").read_bytes()
    _without_ledger(folder, keep)
    before = {p: p.read_bytes() for p in (output / "runs").rglob("*") if p.is_file()}
    monkeypatch.setattr(loop, "fit", None)
    arguments = [*ONE, "--variants", "hws", "tcn", "--output", str(output), "--no-report", *more]
    status, out, _ = run(*arguments)
    assert status == 0 and "1 run done, 1 already finished" in out
    assert (folder / "ledger.csv").read_bytes() == whole and not damaged(folder)
    after = {p: p.read_bytes() for p in (output / "runs").rglob("*") if p.is_file()}
    changed = {p.relative_to(folder).as_posix() for p in after if before.get(p) != after[p] and p.name != "mlflow.json"}
    assert changed <= {"ledger.csv", "provenance.json", "SHA256SUMS", ".lock"}
    record = json.loads((folder / "provenance.json").read_text())
    assert record.pop("ledger_scored")["device"] == record["device"]
    assert record == json.loads(before[folder / "provenance.json"])
    status, out, _ = run(*arguments)
    assert status == 0 and "0 runs done, 2 already finished" in out
    # Without the checkpoint it is said, and the run stays as it is.
    _without_ledger(folder)
    (folder / "checkpoint.pt").unlink()
    status, out, err = run(*arguments)
    assert status == 0 and "0 runs done, 2 already finished" in out and not (folder / "ledger.csv").exists()
    assert "no ledger scores of duplicates, itq-fit, itq-rule" in err and "move its folder away" in err


def test_report_stands_on_the_result_folders(finished):
    page = (finished / "report" / "index.html").read_text()
    assert "TCN" in page and "QuickDraw" in page
    assert "can't be drawn" not in page and "can't be worked out" not in page
    drawn = {path.stem for path in (finished / "report" / "figures").glob("*.pdf")}
    assert {f"quickdraw-1-{kind}" for kind in ("overview", "motivation", "singular-values", "tsne", "retrieval",
                                               "precision-recall")} <= drawn


def test_dry_run_shows_the_plan_and_writes_nothing(place, run, finished, monkeypatch):
    monkeypatch.setattr(calibration, "SHAPE_SECONDS", 0.1)
    monkeypatch.setattr(calibration, "TIMED_SECONDS", 0.02)
    status, out, _ = run(*ONE, "--variants", "tcn", "nws", "--output", str(finished), "--dry-run")
    assert status == 0 and "finished, 1/1 epochs" in out and "nws" in out and "pairs/s" in out and "motivation curves" in out
    assert "CPU-hours left" in out and "image cache" in out and "memory:" in out
    status, _, _ = run(*ONE, "--variants", "tcn", "--output", str(place / "nothing"), "--dry-run")
    assert status == 0 and not (place / "nothing").exists()


def test_interrupted_run_resumes_and_gives_the_same_digits(place, run, monkeypatch):
    arguments = [*ONE, "--variants", "tcn", "--no-report", "--set", "training.epochs=3"]
    status, _, _ = run(*arguments, "--output", str(place / "straight"))
    assert status == 0
    original, calls = checkpoints.keep, []

    def interrupt(state, folder):
        original(state, folder)
        if state["epoch"] == 1 and not calls:
            calls.append(folder)
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "keep", interrupt)
    status, _, err = run(*arguments, "--output", str(place / "halves"))
    assert status == 130 and "interrupted" in err
    folder = calls[0]
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    client = mlflow.MlflowClient(f"sqlite:///{place / 'halves' / 'mlflow.db'}")
    run_id = json.loads((folder / "mlflow.json").read_text())["run_id"]
    assert client.get_run(run_id).info.status == "KILLED"
    status, out, _ = run(*arguments, "--output", str(place / "halves"))
    assert status == 0
    assert client.get_run(run_id).info.status == "FINISHED"
    twin = place / "straight" / "runs" / folder.name
    assert (folder / "metrics.csv").read_bytes() == (twin / "metrics.csv").read_bytes()


def test_a_failed_run_is_named_and_the_others_run(place, run):
    output = place / "failing"
    status, out, err = run(*ONE, "--variants", "tcn", "untrained-svd", "--output", str(output),
                           "--set", "training.head_rate=1e30")
    assert status == 1
    assert "failed: quickdraw-1__tcn__seed3: loss is not finite" in err
    assert "1 run done, 0 already finished, 1 failed" in out
    failed = run_folders(output)["quickdraw-1__tcn__seed3"]
    assert json.loads((failed / "status.json").read_text())["state"] == "failed"
    assert "not finite" in (output / "report" / "index.html").read_text()


@pytest.mark.parametrize("arguments, words", [
    (["--variants", "tcm"], "unknown variant 'tcm'"), (["--datasets", "sketchi"], "unknown data set 'sketchi'"),
    (["--set", "losses.sharring=1"], "sharring"), (["--set", "training.epochs=0"], "training.epochs"),
    (["--set", "losses.sharing"], "KEY=VALUE"),
    (["--profile", "laptop", "--datasets", "tuberlin"], "unknown data set"), (["--device", "cuda:77"], "--device cuda:77")])
def test_bad_options_are_named(run, place, arguments, words):
    status, _, err = run("--output", str(place / "bad"), *arguments)
    assert status == 2 and words in err and err.count("\n") == 1
    assert not (place / "bad").exists()


@pytest.mark.parametrize(("arguments", "words"), [
    (["--datasets", "quickdraw", "tuberlin", "sketchy"], ["missing: sketchy: no Sketchy", "missing: tuberlin: no TU-Berlin",
                                                          "leave out of --datasets"]),
    (["--emoji-tarballs", "words.csv"], ["--emoji-tarballs words.csv is no folder"]),
    (["--emoji-tarballs", "nowhere"], ["--emoji-tarballs nowhere does not exist"]),
    (["--words", "data"], ["--words data is a folder"]), (["--lists", "nowhere"], ["--lists nowhere is not a folder"]),
    (["--profile", "laptop", "--data-root", "nowhere"], ["--data-root nowhere does not exist"]),
    (["--lists", "data"], ["--lists data holds no list of QuickDraw Extended",
                           "Looked for: sketch_train.txt, sketch_filelist_train.txt"]),
])
def test_what_was_asked_for_is_done_or_is_an_error(run, place, monkeypatch, arguments, words):
    monkeypatch.chdir(place)
    status, _, err = run("--variants", "untrained-svd", "--output", "bad", *arguments)
    assert status == 2 and all(word in err for word in words) and err.count("\n") == 1
    assert not (place / "bad" / "runs").exists()


@pytest.mark.parametrize("action, used", [
    (("--check", "m.py"), ()), (("--sync", "--output", "o"), ("output",)),
    (("--sync",), ("profile", "sample", "as_released", "quick", "output")),
    (("--reproduce", "r"), ("tolerance", "output", "device", "threads", "gpus_per_run", "data_root", "cache", "datasets", "lists",
                            "emoji_tarballs", "words", "weights", "teacher_weights", "no_report"))])
def test_every_option_that_an_action_does_not_use_is_named(command, action, used):
    """Also one that is added to the parser some day."""
    given, names = [], []
    first = ("--check", "--sync")[:0 if action[0] == "--check" else 1 if action[0] == "--sync" else 2]  # these would act instead
    for one in run_all.parser()._actions:
        if (name := one.option_strings[0]) not in ("-h", *action, *first) and one.dest not in used:
            value = one.choices[-1] if one.choices else {"budget": "3h", "tolerance": "0.1"}.get(one.dest, "7")
            given += [name] if one.nargs == 0 else [name, value]
            names.append(name)
    status, _, err = command(*action, *given)
    assert status == 2 and f"leave out {', '.join(names)}\n" in err


def test_what_syncing_would_leave_aside_is_an_error(command, monkeypatch, tmp_path):
    for arguments, words in ((("--datasets", "quickdraw", "--set", "losses.sharing=1"), "leave out --datasets, --set\n"),
                             (("--launcher", "ray", "--lists", "none"), "leave out --lists, --launcher\n")):
        status, _, err = command("--sync", "--output", str(tmp_path), *arguments)
        assert status == 2 and f"--sync trains nothing; {words}" in err
    monkeypatch.setenv("TCN_DATA", str(tmp_path / "gone"))
    status, _, err = command("--dry-run")
    assert status == 2 and "gone (from $TCN_DATA) is not a folder" in err


def test_missing_data_sets_are_named_and_the_present_ones_run(run, place):
    status, out, _ = run("--seeds", "3", "--variants", "untrained-svd", "--output", str(place / "some"), "--no-report")
    assert status == 0 and "missing: tuberlin:" in out and "missing: sketchy:" in out and "1 run done" in out


def test_output_of_another_suite_or_purpose_is_refused(run, place, finished):
    (place / "letters").mkdir(exist_ok=True)
    (place / "letters" / "dear.txt").write_text("diary")
    status, _, err = run(*ONE, "--variants", "untrained-svd", "--output", str(place / "letters"))
    assert status == 2 and "holds other files" in err
    suite = place / "other"
    suite.mkdir(exist_ok=True)
    (suite / "suite.json").write_text(json.dumps({"profile": "laptop", "smoke": False, "runs": [], "created": ""}))
    status, _, err = run(*ONE, "--variants", "untrained-svd", "--output", str(suite))
    assert status == 2 and "profile 'laptop'" in err and "another --output" in err
    status, _, err = run(*ONE, "--variants", "untrained-svd", "--output", str(place / "letters" / "dear.txt"))
    assert status == 2 and "is a file" in err


def test_broken_mlflow_costs_no_result(run, place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/none/mlflow.db")
    status, out, err = run(*ONE, "--variants", "untrained-svd", "--output", str(place / "nomlflow"), "--no-report")
    assert "MLflow is not available" in err and status == 0 and "1 run done" in out


@pytest.mark.parametrize("profile, part, seed", [(["--profile", "paper"], "", 2020), ([], "-first25", 0)])
def test_all_three_data_sets_run_from_their_layouts(profile, part, seed, tmp_path, place, run):
    """The paper profile, and what runs without a GPU where none is named: samples."""
    for name in ("sketchy", "tuberlin", "quickdraw"):
        make_tree(tmp_path / "data", name, sketches=2, photos=1, size=8)
    status, out, _ = run(*profile, "--data-root", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"), "--device", "cpu",
                         "--variants", "untrained-svd", "--output", str(tmp_path / "out"), "--no-report")
    assert status == 0 and "4 runs done" in out
    assert set(run_folders(tmp_path / "out")) == {f"{name}{part}-{split}__untrained-svd__seed{seed}" for name, split in
                                            (("sketchy", 1), ("sketchy", 2), ("tuberlin", 1), ("quickdraw", 1))}


def test_data_root_with_missing_extra_and_unreadable_parts_is_named_and_earlier_runs_stay(tmp_path, place, run):
    folder = make_tree(tmp_path / "data", "quickdraw", sketches=2, photos=1, size=8)
    photos = folder / "QuickDraw_images_final"
    (photos / "unicorn").mkdir()
    victim = sorted(p for p in photos.iterdir() if p.name != "unicorn")[0]
    victim.rename(tmp_path / "gone")
    output = ("--output", str(tmp_path / "out"), "--data-root", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"))
    status, _, err = run(*ONE, "--variants", "untrained-svd", *output)
    assert status == 2 and "unicorn" in err and victim.name in err and "expected" in err
    (tmp_path / "gone").rename(victim)
    (photos / "unicorn").rmdir()
    picture = next(p for p in sorted((folder / "QuickDraw_sketches_final" / "windmill").iterdir()))
    whole = picture.read_bytes()
    picture.write_bytes(b"x" * len(whole))
    status, _, err = run(*ONE, "--variants", "untrained-svd", *output, "--no-report")
    assert status == 1 and "unreadable" in err and picture.name in err
    picture.write_bytes(whole)
    status, out, _ = run(*ONE, "--variants", "untrained-svd", *output, "--no-report")
    assert status == 0 and "1 run done" in out


def test_garbage_weights_are_bad_input_before_any_run(place, run, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"garbage" * 100)
    status, _, err = run(*ONE, "--variants", "tcn", "--output", str(tmp_path / "out"), "--weights", str(tmp_path / "w.pth"))
    assert status == 2 and "w.pth" in err and "weights_only" not in err and not (tmp_path / "out").exists()


def test_a_call_in_which_every_run_fails_still_reports(place, run, tmp_path):
    status, out, err = run(*ONE, "--variants", "tcn", "--output", str(tmp_path / "out"), "--set", "training.head_rate=1e30")
    assert status == 1 and "not measured" in out and "failed: report" not in err
    assert "not finite" in (tmp_path / "out" / "report" / "index.html").read_text()


def test_a_script_of_another_checkout_than_the_imported_package_is_refused(tmp_path):
    provenance.check_checkout(Path(run_all.__file__))
    with pytest.raises(InputError, match=f"lies in {tmp_path}, but Python imports the project from .*PYTHONPATH={tmp_path}"):
        provenance.check_checkout(tmp_path / "benchmarks" / "run_all.py")


def test_commit_and_diff_are_those_of_the_code_in_memory(tmp_path, monkeypatch):
    """What is edited while a process runs is not what runs."""
    answers = iter(["a" * 40 + "\n", "first\n", "b" * 40 + "\n", "second\n"])
    monkeypatch.setattr(provenance, "_git", lambda *arguments: next(answers))
    provenance._loaded.cache_clear()
    try:
        for _ in range(2):
            assert provenance.commit()["commit"] == "a" * 40 and provenance.commit()["dirty"]
        provenance.write_diff(tmp_path / "diff.patch")
        assert (tmp_path / "diff.patch").read_text() == "first\n"
    finally:
        provenance._loaded.cache_clear()
