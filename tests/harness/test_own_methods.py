"""Variants declared in a file of the user's own, or by an installed package: everything a built-in one gets,
and clear refusals."""
from __future__ import annotations

import csv
import hashlib
import json
import re
import zipfile
from pathlib import Path

import mlflow
import pytest
import torch
from support.small_models import CPU, config, ingredients, setup
from support.small_suite import ONE, common, places, run_folders

import baselines
from baselines import own
from benchmarks import checking, provenance, run_all
from benchmarks.launch import jobs
from benchmarks.material import Places, build_model
from tcn.config import BUILT_IN, InputError
from tcn.files.checksums import file_digest, read_sums
from tcn.method import LossTerms, Method, OwnModel

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
HEAD = """
import math, random, time
import torch
from torch import nn
from baselines import Variant
from tcn.method import LossTerms, Method, Modality, OwnModel, TcnModel, classification

class Net(OwnModel):
    def __init__(self, config, ingredients):
        super().__init__()
        self.layer = nn.Linear(3, config.network.dim)
        self.head = nn.Linear(config.network.dim, ingredients.classes)
        self.norm = nn.BatchNorm1d(config.network.dim)
        self.seen = None
    def encode(self, images, modality, side=None):
        return self.layer(images.mean((2, 3)))
    def classify(self, features, modality):
        return self.head(features)

def losses(model, batch, config, generator):
    term = classification(model.classify(model.encode(batch.sketches, Modality.SKETCH), Modality.SKETCH), batch.labels)
    return LossTerms({"term": term}, {"term": 1.0})
"""
TAIL = """
VARIANTS = Variant("mine", "A method of mine", "nothing much", method=Method("mine", Net, losses))
"""
SOUND = HEAD + TAIL


def written(folder: Path, text: str = SOUND, name: str = "my_method.py") -> Path:
    (folder / name).write_text(text)
    return folder / name


def docs_example() -> str:
    return next(block for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own-method.md").read_text(), re.S)
                if "VARIANTS" in block)


# ------------------------------------------------------------------------------------------- what a sound one gets
@pytest.mark.parametrize("path", [*EXAMPLES, "the guide's"], ids=lambda path: getattr(path, "stem", "guide"))
def test_nothing_is_missing_in_the_examples(path, tmp_path, command):
    if path == "the guide's":
        path = written(tmp_path, docs_example())
    status, out, err = command("--check", str(path))
    assert (status == 0 and err == "" and "fault:" not in out
            and out.count("nothing is missing") == len(baselines.named(str(path))))


def test_examples_are_as_short_as_they_say():
    lines = {path.stem: len(path.read_text().splitlines()) for path in EXAMPLES}
    assert (set(lines) == {"own_loss", "frozen_encoder", "own_network"} and lines["own_loss"] <= 32
            and lines["frozen_encoder"] <= 24)


@pytest.fixture(scope="module")
def finished(place, overview_alone):
    """Every example and the guide's file, run for an epoch beside TCN; the guide's file is gone since."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "commit", lambda: {"commit": "a" * 40, "dirty": False, "diff_sha256": None})
        mine = written(place, docs_example())
        output = place / "own"
        call = [*common(place), "--set", "data.image_size=64", "data.stored_size=64", *ONE, "--variants", "tcn",
                *map(str, EXAMPLES), str(mine), "--output", str(output), "--threads", "1"]
        assert run_all.main(call) == 0
        names = {variant.name for path in (*EXAMPLES, mine) for variant in baselines.named(str(path))}
        yield output, names, mine, call


def test_a_run_keeps_the_file_its_digest_and_its_title(finished):
    output, names, mine, _ = finished
    found = run_folders(output)
    assert set(found) == {f"quickdraw-1__{name}__seed3" for name in (*names, "tcn")} and len(names) >= 5
    for path in (*EXAMPLES, mine):
        for variant in baselines.named(str(path)):
            folder = found[f"quickdraw-1__{variant.name}__seed3"]
            assert (folder / "method.py").read_bytes() == path.read_bytes()
            settings, record = (json.loads((folder / name).read_text()) for name in ("config.json", "provenance.json"))
            assert settings["method_source"] == f"file:{hashlib.sha256(path.read_bytes()).hexdigest()}"
            assert (record["title"], record["declared_in"]) == (variant.title, path.name)
            assert (file_digest(folder / "method.py"), "method.py") in read_sums(folder)
            assert (folder / "distances.npz").exists() == (variant.name in ("info-nce", "far-apart"))
    tcn = found["quickdraw-1__tcn__seed3"]
    assert "method_source" not in json.loads((tcn / "config.json").read_text()) and not (tcn / "method.py").exists()


def test_it_stands_in_mlflow_tables_and_figures_beside_tcn(finished):
    output, names, _, _ = finished
    client = mlflow.MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    runs = {run.data.tags["variant"]: run for run in client.search_runs([e.experiment_id for e in client.search_experiments()],
                                                                      "tags.kind = 'run'")}
    assert runs["info-nce"].info.status == "FINISHED" and runs["info-nce"].data.params["method_source"].startswith("file:")
    assert runs["info-nce"].data.tags["title"] == "InfoNCE across modalities"
    assert "method.py" in {artifact.path for artifact in client.list_artifacts(runs["info-nce"].info.run_id)}
    table = list(csv.reader(open(output / "report" / "tables" / "quickdraw-1-further.csv")))
    assert {"InfoNCE across modalities", "Edges, a network of its own"} <= {one_run for row in table for one_run in row}
    assert any(re.search(r"[+−-]0\.\d+", one_run) for one_run in next(r for r in table if "InfoNCE across modalities" in r))
    assert "Frozen EfficientNet-Lite2" in (output / "report" / "tables" / "quickdraw-1-comparison.csv").read_text()
    compared = (output / "report" / "tables" / "quickdraw-1-comparisons.csv").read_text()
    assert "Further variants against TCN" in compared and "InfoNCE across modalities" in compared
    page = (output / "report" / "index.html").read_text()
    assert "own_loss.py" in page and "InfoNCE across modalities" in page
    drawn = {row["variant"] for row in csv.DictReader(open(output / "report" / "figures" / "quickdraw-1-overview.csv"))}
    assert names <= drawn


def test_a_second_call_runs_nothing_and_a_changed_file_is_another_run(finished, tmp_path, command):
    output, names, mine, call = finished
    status, out, _ = command(*call, "--no-report")
    assert status == 0 and f"0 runs done, {len(names) + 1} already finished" in out
    changed = written(tmp_path, mine.read_text() + "# another thought\n")
    assert baselines.named(str(changed))[0].name == baselines.named(str(mine))[0].name
    assert baselines.named(str(changed))[0].source != baselines.named(str(mine))[0].source


def test_it_is_reproduced_from_the_copy_beside_the_run(finished, place, command):
    output, _, mine, _ = finished
    for name in ("edge-net", baselines.named(str(mine))[0].name):
        folder = run_folders(output)[f"quickdraw-1__{name}__seed3"]
        baselines._TABLES.pop(json.loads((folder / "config.json").read_text())["method_source"])
        status, out, err = command(*places(place), "--output", str(output), "--reproduce", folder.name, "--no-report")
        assert status == 0 and "bit for bit" in out and f"runs {folder / 'method.py'}" in err


def test_what_reproduction_lacks_is_said_and_nothing_is_run(finished, place, command, tmp_path):
    output, _, _, _ = finished
    folder = run_folders(output)["quickdraw-1__edge-net__seed3"]
    whole, source = (folder / "method.py").read_bytes(), json.loads((folder / "config.json").read_text())["method_source"]
    baselines._TABLES.pop(source, None)
    sums = (folder / "SHA256SUMS").read_text()
    marker = tmp_path / "was-run"
    try:
        (folder / "method.py").write_bytes(whole + f"open({str(marker)!r}, 'w')\n".encode())
        status, _, err = command(*places(place), "--output", str(output), "--reproduce", folder.name, "--no-report")
        assert status == 2 and "not as it was written: method.py" in err and not marker.exists()
        (folder / "SHA256SUMS").write_text("".join(line for line in sums.splitlines(True) if "method.py" not in line))
        status, _, err = command(*places(place), "--output", str(output), "--reproduce", folder.name, "--no-report")
        assert status == 2 and "not what the run was planned with" in err and not marker.exists()
        (folder / "method.py").unlink()
        status, _, err = command(*places(place), "--output", str(output), "--reproduce", folder.name, "--no-report")
        assert status == 2 and err.count("\n") == 1 and source.removeprefix("file:") in err and "method.py" in err
    finally:
        (folder / "method.py").write_bytes(whole)
        (folder / "SHA256SUMS").write_text(sums)


def test_a_folder_of_an_own_method_is_read_without_running_it(finished, command):
    output, names, _, _ = finished
    baselines._TABLES.clear()
    baselines._TABLES[BUILT_IN] = baselines.VariantTable(BUILT_IN, "this project", baselines.VARIANTS)
    status, out, err = command("--sync", "--output", str(output))
    assert status == 0 and f"{len(names) + 1} runs" in out and "left out" not in err and set(baselines._TABLES) == {BUILT_IN}


def test_workers_read_the_same_file_and_refuse_another(place, command, tmp_path, warm_workers):
    mine = written(tmp_path)
    output = tmp_path / "out"
    status, out, err = command(*common(place), *ONE, "--variants", str(mine), "--output", str(output), "--launcher", "processes",
                               "--workers", "1", "--threads", "1", "--no-report")
    assert status == 0 and "1 run done" in out, err
    folder = run_folders(output)["quickdraw-1__mine__seed3"]
    assert (folder / "method.py").read_text() == SOUND
    variant = baselines.named(str(mine))[0]
    one_run = run_all_run(variant)
    mine.write_text(SOUND + "\nraise SystemExit('this was run')\n")
    failure = jobs.work(jobs.Job(one_run, output, "0" * 64, Places(place / "cache", place / "data", place / "words.csv"),
                                 "cpu", 1, ""))
    assert failure.final and "my_method.py is not what the run was planned with" in failure.reason


def run_all_run(variant):
    from benchmarks import experiments

    return experiments.plan(experiments.PROFILES["paper"], ["quickdraw"], [variant.place], [3], {}, True)[0]


def test_a_package_announces_variants_by_an_entry_point(place, command, tmp_path, monkeypatch):
    package = tmp_path / "zs_extra"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(HEAD)
    (package / "table.py").write_text("from zs_extra.net import *\n" + TAIL)
    about = tmp_path / "zs_extra-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: zs-extra\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("[tcn_zs_sbir.variants]\nextra = zs_extra.table:VARIANTS\n"
                                            "absent = zs_gone:VARIANTS\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    output = tmp_path / "out"
    status, out, err = command(*common(place), *ONE, "--variants", "extra", "--output", str(output), "--no-report")
    assert status == 0, err
    folder = run_folders(output)["quickdraw-1__mine__seed3"]
    record = json.loads((folder / "provenance.json").read_text())
    assert record["declared_in"] == "package zs-extra 1.2"
    with zipfile.ZipFile(folder / "method.zip") as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "zs_extra/__init__.py": "", "zs_extra/net.py": HEAD, "zs_extra/table.py": (package / "table.py").read_text()}
    source = json.loads((folder / "config.json").read_text())["method_source"]
    assert own.held_by_package(source) == "extra"
    (package / "net.py").write_text(HEAD + "# changed\n")
    assert own.held_by_package(source) is None  # each file of the package counts
    status, _, err = command(*common(place), *ONE, "--variants", "absent", "--output", str(output), "--no-report")
    assert status == 2 and err.count("\n") == 1 and "zs_gone, which is not there" in err


def test_layers_that_torch_starts_follow_the_run_s_seed():
    class Net(OwnModel):
        def __init__(self, config, ingredients):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

    def start(seed, stream):
        torch.manual_seed(stream)
        return build_model(Method("net", Net, lambda *a: LossTerms({}, {})), config(seed=seed, **{"training.optimizer": "none"}),
                           ingredients(), CPU).layer.weight

    assert torch.equal(start(1, 5), start(1, 6)) and not torch.equal(start(1, 5), start(2, 5))


# ------------------------------------------------------------------------------------------------------- wrong files
VARIANT = 'Variant("mine", "A method of mine", "nothing much", method=Method("mine", Net, losses))'


@pytest.mark.parametrize("text, words", [
    ("def f(:\n", ["line 1", "no valid Python"]),
    ("import baselines\n", ["declares no VARIANTS"]),
    ("x = 1\ny = x / 0\n", ["line 2: ZeroDivisionError"]),
    ("import sys\nsys.exit(3)\n", ["line 2: SystemExit"]),
    (HEAD + 'VARIANTS = (Variant("mine", "t", "s", method=Method("mine", Net, None)),)', ["losses of its method is None"]),
    (HEAD + 'VARIANTS = (Variant("mine", "t", "s", method=Method("mine", Net)),)', ["has no losses", "training.optimizer"]),
    (HEAD + 'VARIANTS = (Variant("mine", "t", "s", method=Method("mine")),)', ["line 23", "build"]),
    (HEAD + 'VARIANTS = (Variant("mine", "t", "s", method=losses),)', ["takes a tcn.method.Method"]),
    (HEAD + "VARIANTS = (Method('mine', Net, losses),)", ["VARIANTS[0]", "baselines.Variant"]),
    (HEAD + "VARIANTS = ()", ["tuple of baselines.Variant"]),
    (HEAD + f"VARIANTS = ({VARIANT}, {VARIANT})", ["'mine' is declared twice"]),
    (SOUND.replace('"mine", "A', '"tcn", "A'), ["'tcn' is the name of a built-in variant"]),
    (SOUND.replace('"mine", "A', '"main", "A'), ["'main' is the name of a built-in variant or group"]),
    (SOUND.replace('"mine", "A', '"tcn-weight-3", "A'), ["choose another name"]),
    (SOUND.replace('"mine", "A', '"my__method", "A'), ["the name is 'my__method'"]),
    (SOUND.replace("A method of mine", "two\\nlines"), ["title is 'two\\nlines'"]),
    (SOUND.replace('Method("mine"', 'Method("triplet"'), ["'triplet' is the name of a built-in method"]),
    (SOUND.replace("method=", '{"losses.sharring": 1}, method='), ["unknown setting 'losses.sharring'"]),
    (SOUND.replace("method=", '{"seed": 1}, method='), ["can't set 'seed'"]),
    (SOUND.replace("method=", '{"losses.sharing": -1}, method='), ["my_method.py: 'mine': setting 'losses.sharing' is -1"]),
    (SOUND.replace("nn.Linear(3,", "nn.Linear(three,"), ["line 11, in __init__: NameError"]),
    (SOUND.replace("class Net(OwnModel)", "class Net(nn.Module)").replace("def classify", "def sort"), [
        "build gave an object of type Net without classify, groups"]),
    (HEAD + "def build(config, ingredients):\n    return 3\n" + TAIL.replace("Net,", "build,"),
     ["build gave an object of type int;"])])
def test_a_wrong_file_ends_in_one_line_before_anything_runs(text, words, place, command, tmp_path):
    output = tmp_path / "out"
    status, _, err = command(*common(place), *ONE, "--variants", str(written(tmp_path, text)), "--output", str(output),
                             "--no-report")
    assert status == 2 and "error: " in err and err.count("\n") == 1 and "Traceback" not in err  # after a progress bar, perhaps
    assert all(word in err for word in words), err
    assert not output.exists()


def test_files_that_are_not_there_or_clash_are_named(place, command, tmp_path):
    def call(*variants):
        return command(*common(place), *ONE, "--variants", *map(str, variants), "--output", str(tmp_path / "out"), "--no-report")

    status, _, err = call(tmp_path / "gone.py")
    assert status == 2 and "gone.py can't be read (No such file" in err and err.count("\n") == 1
    first, second = written(tmp_path), written(tmp_path, SOUND + "\n# another\n", "other.py")
    status, _, err = call(first, second)
    assert status == 2 and f"{first} and {second} both declare 'mine'" in err and err.count("\n") == 1


@pytest.mark.parametrize("text, words", [
    (SOUND.replace('{"term": term}', '{"term": term * math.nan}'), ["'term' is not finite"]),
    (SOUND.replace('return LossTerms({"term": term}, {"term": 1.0})', "return {'term': term}"),
     ["'dict' object has no attribute"])])
def test_losses_that_fail_in_training_end_in_one_line(text, words, place, command, tmp_path):
    mine = written(tmp_path, text)
    status, out, err = command(*common(place), *ONE, "--variants", str(mine), "--output", str(tmp_path / "out"), "--no-report")
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert status == 1 and len(failed) == 1 and ("loss is not finite" in failed[0] or all(word in failed[0] for word in words))


# ------------------------------------------------------------------------------------------------------------ --check
TRAINED_STATE = "model.seen = batch.labels.float().mean() if model.seen is None else model.seen * 2"


@pytest.mark.parametrize("old, new, words", [
    ("return self.layer(images.mean((2, 3)))", "return self.layer(images.mean((2, 3)))[:, :, None]",
     "encode: gave a tensor [5, 16, 1]"),
    ("return self.layer(images.mean((2, 3)))", "return self.layer(images.mean((2, 3)) * math.nan)",
     "encode: gave features of sketch"),
    ("return self.layer(images.mean((2, 3)))", "return self.layer(images.mean((2, 3)) * 0)",
     "encode: gave the same features for five"),
    ("return self.layer(images.mean((2, 3)))", "x = self.layer(images.mean((2, 3))); return x - x.mean(0)", "unseen classes"),
    ("return self.layer(images.mean((2, 3)))",
     "self.norm.train(); return self.norm(self.layer(images.mean((2, 3))).repeat(2, 1))[::2]", "encode: "),
    ("return self.layer(images.mean((2, 3)))",
     "self.norm.running_mean += images.mean(); return self.layer(images.mean((2, 3)))", "changed the model's state"),
    ("def encode(self, images, modality, side=None)", "def encode(self, images, modality)", "unexpected keyword argument 'side'"),
    ("return self.head(features)", "return self.head(features)[:, :-1]", "classify: gave a tensor [5, 5]"),
    ('"term": 1.0}', '"other": 1.0}', "losses: gave weights of other for the terms term"),
    ('{"term": term}, {"term": 1.0}', '{"total": term}, {"total": 1.0}', "the term's name 'total'"),
    ('{"term": term}', '{"term": term[:, None]}', "'term' is a tensor [12, 1]"),
    ('{"term": term}', '{"term": term.log() * 0 / 0}', "'term' is not finite (nan) on a batch of 12 pairs"),
    ('{"term": term}', '{"term": term / (len(batch) - 3)}', "on a batch of 3 pairs"),
    ('{"term": term}', '{"term": term.detach()}', "no term leads back to a parameter"),
    ('{"term": term}', '{"term": term + (0 * model.layer.weight).norm()}', None),  # torch's norm is 0 at 0, as it should be
    ('{"term": term}', '{"term": term + (0 * model.layer.weight.sum()).sqrt()}', "gradient of layer.weight is not finite"),
    ('{"term": term}', '{"term": term * random.random()}', "same seed gave other numbers"),
    ('{"term": term}', '{"term": term * torch.rand(())}', None),  # torch's stream is the run's
    ('    return LossTerms', f'    {TRAINED_STATE}\n    term = term * model.seen\n    return LossTerms',
     "after a checkpoint the next step gives another term"),
    ('    def classify', '    def groups(self):\n        return {"encoder": [], "head": list(self.layer.parameters())}\n'
                         '    def classify', "groups: leaves out head.weight, head.bias"),
    ('    def classify', '    def groups(self):\n        return list(self.parameters())\n    def classify',
     "groups: gave a list"),
    ('    return LossTerms', '    open(__file__.replace("my_method.py", "unseen.txt")).read()\n    return LossTerms',
     "losses: opens"),
    ("self.seen = None", 'open(__file__.replace("my_method.py", "unseen.png"), "rb").read()', "build: opens"),
    ("", "", None)])
def test_the_check_names_what_is_wrong(old, new, words, command, tmp_path):
    for name in ("unseen.txt", "unseen.png"):
        (tmp_path / name).write_text("a class that nobody saw")
    text = SOUND.replace(old, new)
    assert old == new or text != SOUND
    status, out, err = command("--check", str(written(tmp_path, text)))
    assert err == "" and (status == 0) == (words is None), out
    if words:
        faults = [line for line in out.splitlines() if line.startswith("  fault: ")]
        assert faults and all(line.startswith("  fault: my_method.py, ") for line in faults)
        assert any(words in line for line in faults), out


def test_state_that_a_checkpoint_would_lose_is_found_in_features_too(command, tmp_path):
    text = SOUND.replace("return self.layer(images.mean((2, 3)))",
                         "return self.layer(images.mean((2, 3))) * (1 + len(self.kept))")
    text = text.replace("self.seen = None", "self.kept = []").replace("    return LossTerms",
                                                                      "    model.kept.append(1)\n    return LossTerms")
    status, out, _ = command("--check", str(written(tmp_path, text)))
    assert (status == 1
            and "its checkpoint would lose something; keep what training changes in parameters or in register_buffer" in out)


@pytest.mark.parametrize("name", ["tcn", "sake", "untrained-imagenet", "teacher-pca"])
def test_built_in_variants_go_through_the_same_door(name):
    variant = baselines.find(name)
    assert checking.check(variant).faults == []
    state = torch.random.get_rng_state()
    checking.check(variant)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_built_in_model_is_the_same_through_the_door():
    """The stream that own layers draw from must not reach what has a stream of its own."""
    for name in ("tcn", "nws", "sake", "l2-sp"):
        variant = baselines.find(name)
        settings = config(**variant.delta)
        direct, through = variant.method.build(settings, ingredients()), build_model(variant.method, settings, ingredients(), CPU)
        assert all(torch.equal(value, through.state_dict()[key]) for key, value in direct.state_dict().items())
        batch = next(setup(settings)[1].epoch(0, 1, CPU))
        assert variant.method.losses(through, batch, settings, torch.Generator().manual_seed(0)).total().isfinite()


def test_check_takes_no_options_of_a_run(command, tmp_path):
    status, _, err = command("--check", str(written(tmp_path)), "--seeds", "1")
    assert status == 2 and "leave out --seeds" in err
    with pytest.raises(InputError, match="not at hand"):
        baselines.table("file:" + "0" * 64)
