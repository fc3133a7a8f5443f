"""A data set of one's own through the whole chain: from a file outside the project to the report, and what stands in between."""
from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from support.own_set import SIZES, UNSEEN, declare, make_set, write_words
from support.small_suite import SMALL, run_folders

from benchmarks import run_all
from benchmarks.experiments import PROFILES, plan
from benchmarks.launch import jobs
from benchmarks.material import Material, Places
from reports import naming
from reports.paper import is_paper, paper_task
from reports.read.schema import Task
from tcn.config import BUILT_IN, GENERALISED
from tcn.data import declared, specs


@pytest.fixture(scope="module")
def outside(tmp_path_factory, tables):
    """A folder outside the project: pictures, words, the file, and random weights; MLflow's empty tables are copied."""
    from benchmarks import mirror

    root = tmp_path_factory.mktemp("outside")
    make_set(root)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), root / "weights.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror, "make_tables", lambda store: shutil.copyfile(tables, store))
        yield root


ROOT = Path(__file__).resolve().parents[2]


def call(root, *more, file="my_set.yaml"):
    return ["--datasets", str(root / file), "--cache", str(root / "cache"), "--device", "cpu", "--threads", "1",
            "--weights", str(root / "weights.pth"), "--quick", *SMALL, *more]


@pytest.fixture(scope="module")
def finished(outside, overview_alone):
    output = outside / "results"
    assert run_all.main([*call(outside, "--variants", "untrained-svd", "tcn", "--output", str(output))]) == 0
    return output


def test_eight_classes_end_in_a_report_with_chance_and_ceiling(finished, outside):
    found = run_folders(finished)
    assert set(found) == {"little_zoo-fixed__untrained-svd__seed0", "little_zoo-fixed__tcn__seed0"}
    folder = found["little_zoo-fixed__tcn__seed0"]
    settings, record = (json.loads((folder / name).read_text()) for name in ("config.json", "provenance.json"))
    assert (settings["data"]["dataset"], settings["data"]["declared"]) == (
        "little_zoo", declared.read(outside / "my_set.yaml").declared)
    assert (folder / "dataset.yaml").read_bytes() == (outside / "my_set.yaml").read_bytes()
    assert str(outside) not in json.dumps(settings)
    # by hand: a ranking at random of 8 photos, of which a class has as many as it has
    rows = [row for row in csv.DictReader(open(folder / "metrics.csv")) if (row["classes"], row["features"], row["metric"],
            row["protocol"], row["gallery"]) == ("unseen", "real", "Prec@5", "standard", "all")]
    assert rows and int(rows[0]["photos"]) == sum(SIZES[name][1] for name in UNSEEN) == 8
    of_query = [SIZES[name][1] for name in UNSEEN for _ in range(SIZES[name][0])]
    assert float(rows[0]["chance"]) == pytest.approx(np.mean(of_query) / 8)
    assert float(rows[0]["ceiling"]) == pytest.approx(np.mean([min(5, n) / 5 for n in of_query]))
    report = (finished / "report" / "report.md").read_text()
    assert "## little_zoo" in report and "Numbers of little_zoo are not comparable to published ones" in report
    assert "TCN on little_zoo." in report and "*chance*" in report and "*ceiling*" in report and "Laptop" not in report
    assert (finished / "report" / "figures" / "little_zoo-fixed-overview.png").exists()
    assert record["datasets"] and record["data_digest"]


def test_no_published_number_stands_beside_its_own(finished):
    report = (finished / "report" / "report.md").read_text()
    assert "no measured number stands beside a published one here" in report
    assert not is_paper(Task("little_zoo", "fixed")) and paper_task(Task("little_zoo", "fixed")) is None
    for path in (finished / "report" / "tables").glob("little_zoo*.csv"):
        assert "ublished)" not in path.read_text()


def test_a_moved_folder_and_another_order_continue_the_same_runs(finished, outside, tmp_path, command):
    moved = tmp_path / "moved"
    shutil.copytree(outside, moved, ignore=shutil.ignore_patterns("results", "cache"))
    said = declare(moved, "turned.yaml", unseen=list(UNSEEN[::-1]), words="words.csv")
    status, out, err = command(*call(moved, "--variants", "untrained-svd", "tcn", "--output", str(finished), "--no-report",
                                     file=said.name))
    assert status == 0 and "0 runs done, 2 already finished" in out, err
    changed = declare(moved, "changed.yaml", held_out={"sketches": 1}, words="words.csv")
    status, out, err = command(*call(moved, "--variants", "tcn", "--output", str(tmp_path / "other"),
                                     "--dry-run", file=changed.name))
    assert status == 0 and "finished" not in out, err


def test_a_run_is_repeated_with_the_file_and_refused_without_it(finished, outside, tmp_path, command):
    name = run_folders(finished)["little_zoo-fixed__tcn__seed0"].name
    where = ["--output", str(finished), "--reproduce", name, "--cache", str(outside / "cache"),
             "--weights", str(outside / "weights.pth"), "--device", "cpu", "--no-report"]
    status, out, err = command(*where, "--datasets", str(outside / "my_set.yaml"))
    assert status == 0 and "bit for bit" in out, err
    specs._OWN.clear()
    status, _, err = command(*where)
    assert status == 2 and err.count("\n") == 1 and "'little_zoo' is not at hand" in err and "--datasets FILE" in err
    other = declare(outside, "other.yaml", drawn_from="(.+)-[0-9]+", words="words.csv")
    status, _, err = command(*where, "--datasets", str(other))
    assert status == 2 and "or was changed since" in err
    status, _, err = command(*where, "--datasets", "emoji")
    assert status == 2 and "leave out --datasets" in err


def test_workers_read_the_file_themselves(outside, tmp_path, command, warm_workers):
    output = tmp_path / "out"
    status, out, err = command(*call(outside, "--variants", "untrained-svd", "--output", str(output), "--launcher", "processes",
                                     "--workers", "1", "--no-report"))
    assert status == 0 and "1 run done" in out, err
    path = tmp_path / "set"
    shutil.copytree(outside, path, ignore=shutil.ignore_patterns("results", "cache"))
    name = declared.named(str(path / "my_set.yaml"))
    [run] = plan(PROFILES["sample"].with_own(specs.own([name])), [name], ["untrained-svd"], [0], {}, True)
    declare(path, drawn_from="(.+)-[0-9]+")
    job = jobs.Job(run, output, "0" * 64, Places(path / "cache", declared=(path / "my_set.yaml",)), "cpu", 1, "")
    failure = jobs.work(job)
    assert failure.final and "was changed since" in failure.reason


def test_the_generalised_form_has_runs_and_tables_of_its_own(finished, outside, command):
    status, out, err = command(*call(outside, "--variants", "untrained-svd", "--output", str(finished), "--generalised"))
    assert status == 0 and "1 run done" in out, err
    wide, plain = (run_folders(finished)[f"little_zoo{name}-fixed__untrained-svd__seed0"] for name in ("-generalised", ""))
    rows = {}
    for folder in (wide, plain):
        rows[folder] = next(row for row in csv.DictReader(open(folder / "metrics.csv")) if (
            row["classes"], row["features"], row["metric"], row["protocol"]) == ("unseen", "real", "Prec@5", "standard"))
    every = sum(photos for _, photos in SIZES.values())
    assert (rows[wide]["photos"], rows[plain]["photos"], rows[wide]["queries"]) == (str(every), "8", rows[plain]["queries"])
    of_query = [SIZES[name][1] for name in UNSEEN for _ in range(SIZES[name][0])]
    assert float(rows[wide]["chance"]) == pytest.approx(np.mean(of_query) / every)
    assert json.loads((wide / "config.json").read_text())["data"]["dataset"] == "little_zoo-generalised"
    assert json.loads((wide / "provenance.json").read_text())["notes"][-1].endswith("17 of seen ones, which training used too")
    with np.load(wide / "features.npz") as arrays:
        assert set(arrays["gallery_labels"]) == set(SIZES) and set(arrays["query_labels"]) == set(UNSEEN)
    # one store of pictures for both
    assert len(list((outside / "cache" / "pixels").iterdir())) == 1
    report = (finished / "report" / "report.md").read_text()
    assert "## little_zoo, generalised" in report and "the gallery holds photos of seen classes too" in report
    tables = [path.name for path in (finished / "report" / "tables").glob("*-comparison.csv")]
    assert sorted(name.startswith("little_zoo-generalised") for name in tables if name.startswith("little_zoo")) == [False, True]
    assert (naming.GENERALISED == GENERALISED and not is_paper(Task("sketchy-generalised", "1"))
            and paper_task(Task("sketchy-generalised", "1")) is None)


def test_its_settings_are_the_sample_s_or_sketchy_s_and_splits_are_carved(outside):
    own = specs.own([declared.named(str(outside / "my_set.yaml"))])
    for profile, like in (("sample", ("sketchy", "1")), ("laptop", None), ("paper", ("sketchy", "1"))):
        [run] = plan(PROFILES[profile].with_own(own), ["little_zoo"], ["tcn"], [0], {"data.validation": "carved"}, False)
        base = PROFILES["sample" if like is None else profile].base[like or ("sketchy", "1")]
        [sketchy] = plan(PROFILES["sample" if like is None else profile], ["sketchy/1"], ["tcn"], [0],
                         {"data.validation": "carved"}, False)
        assert run.config.network == sketchy.config.network and run.config.training == sketchy.config.training, base
        assert run.config.data.image_size == sketchy.config.data.image_size and run.task == "little_zoo/fixed"
        assert sketchy.config.data.declared == BUILT_IN
        split = Material(Places(outside / "cache", declared=(outside / "my_set.yaml",), progress=False)).split_of(run.config)
        assert len(split.validation) == 1 and len(split.seen) == 4
    assert ("little_zoo", "fixed") not in PROFILES["sample"].base


@pytest.mark.parametrize("changes, more, words", [
    ({"unseen": [*UNSEEN, "bee"]}, [], ["'bee' stands under seen and unseen"]),
    ({"seen": None, "unseen": None, "split": {"unseen": 25}}, [], ["names no split.seed"]),
    ({"words": None}, [], ["needs word vectors", "words: in the file"]),
    ({"words": "few.csv"}, [], ["no row for 1 of 5 class names: cow"]),
    ({}, ["--sample", "3"], ["write sample: 3 into the file"])])
def test_wrong_files_end_the_call_in_one_line_before_anything_runs(outside, tmp_path, command, changes, more, words):
    write_words(outside / "few.csv", leave_out=("cow",))
    declare(outside, "wrong.yaml", **{"words": "words.csv", **changes})
    status, _, err = command(*call(outside, "--variants", "tcn", "--output", str(tmp_path / "out"), *more, file="wrong.yaml"))
    said = [line for line in err.splitlines() if "error: " in line]
    assert status == 2 and len(said) == 1 and all(word in said[0] for word in words), err
    assert not (tmp_path / "out").exists()


def test_features_of_it_are_extracted_evaluated_and_added(outside, finished, tmp_path, capsys):
    from benchmarks import add
    from tcn.__main__ import main

    file, out = str(outside / "my_set.yaml"), str(tmp_path / "f.npz")
    assert main(["extract", "--backbone", "test_resnet", "--weights", str(outside / "weights.pth"), "--dataset", file,
                 "--out", out, "--image-size", "32", "--cache", str(outside / "cache")]) == 0
    assert main(["evaluate", out, "--split", file]) == 0
    assert "little_zoo/fixed" in capsys.readouterr().out
    output = tmp_path / "results"
    shutil.copytree(finished, output)
    suite = json.loads((output / "suite.json").read_text())
    (output / "suite.json").write_text(json.dumps({**suite, "smoke": False}))
    assert add.main([out, "--name", "mine", "--dataset", file, "--output", str(output), "--no-report"]) == 0
    assert json.loads((run_folders(output)["little_zoo-fixed__brought-mine__seed0"] / "config.json")
                      .read_text())["data"]["declared"].startswith("file:")


def test_a_bundle_of_it_is_verified_without_its_file(finished, tmp_path, capsys):
    """Somebody else has neither the pictures nor the YAML file; a name that this process never read is declared nowhere."""
    script = ("import sys, tcn.__main__ as main\n"
              "assert main.main(['bundle', sys.argv[1], '--features', '--output', sys.argv[2]]) == 0\n"
              "sys.exit(main.main(['verify', sys.argv[2]]))")
    done = subprocess.run([sys.executable, "-c", script, str(finished), str(tmp_path / "sent.zip")], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0 and "all agree" in done.stdout and "from features.npz" in done.stdout, done.stdout + done.stderr


def test_the_guide_s_file_is_a_whole_one(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "own-dataset.md").read_text()
    text = re.search(r"```yaml\n(.*?)```", guide, re.S)[1]
    said = yaml.safe_load(text)
    for name in said["seen"] + said["unseen"]:
        for folder in (said["sketches"], said["photos"]):
            (tmp_path / folder / name.replace(" ", "_")).mkdir(parents=True)
    (tmp_path / said["words"]).touch()
    (tmp_path / "my_set.yaml").write_text(text)
    found = declared.read(tmp_path / "my_set.yaml")
    assert found.plan.of("unseen") == tuple(said["unseen"]) and found.plan.held_out_per_class == 10
    rows = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", guide, re.M))))
    assert rows == set(declared.Declaration.model_fields)
