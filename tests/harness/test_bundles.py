"""Results that travel: a bundle holds what it says, `tcn verify` catches what does not follow, the report shows it as sent."""
from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import statistics
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.browser import Browser, installed
from support.fuzzing import damage, fuzz
from support.result_folders import write_suite
from support.scored_runs import CLASSES, edit, write_scored_run
from support.small_suite import ONE, common, run_folders

import tcn.__main__
from benchmarks import bundle, console, run_all, verify
from reports import naming
from reports.read import bundles
from reports.read.means import MACRO
from reports.read.suite import read_suite
from reports.render import command, leaderboard
from reports.tables import comparison
from tcn.scoring.protocols import PROTOCOLS, Average

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two seeds."""
    root = tmp_path_factory.mktemp("theirs")
    for seed in (0, 1):
        write_scored_run(root, seed)
    return root


@pytest.fixture(scope="module")
def files(sent: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Bundles of its first run: without features, and with them."""
    made = {}
    for features in (False, True):
        made[features] = tmp_path_factory.mktemp("bundles") / "mine.zip"
        run = next((sent / "runs").glob("*seed0*"))
        assert console.main(["bundle", str(run), "--output", str(made[features]), *["--features"] * features]) == 0
    return made


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, content: Members, consistent: bool = False) -> Path:
    """Write a bundle by hand; `consistent`: with the checksums that its files have now."""
    content = dict(content)
    if consistent:
        run = next(name.split("/")[1] for name in content if name.startswith("runs/"))
        digest = {name.split("/")[2]: hashlib.sha256(data).hexdigest() for name, data in content.items()
                  if name.startswith("runs/")}
        sums = f"runs/{run}/SHA256SUMS"
        content[sums] = "".join(f"{digest.get(name, old)}  {name}\n" for old, name in (
            line.split("  ") for line in content[sums].decode().splitlines())).encode()
        digest["SHA256SUMS"] = hashlib.sha256(content[sums]).hexdigest()
        manifest = json.loads(content["bundle.json"])
        manifest["runs"][0]["files"] = digest
        content["bundle.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def arrays(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data)) as store:
        return dict(store)


def npz(content: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **content)
    return stream.getvalue()


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


def table(found: list[dict[str, str]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(found[0]))
    writer.writeheader()
    writer.writerows(found)
    return stream.getvalue().encode()


def said(capsys: pytest.CaptureFixture[str], *paths: Path) -> tuple[int, str]:
    status = console.main(["verify", *map(str, paths)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


# --- what a bundle holds ---------------------------------------------------------------------------------------------

def test_equal_runs_give_equal_bytes_whatever_their_order_and_place(sent, tmp_path):
    first, second = sorted((sent / "runs").iterdir())
    for name, given_runs in (("a.zip", [first, second]), ("b.zip", [second, first, first]), ("c.zip", [sent])):
        assert bundle.main([*map(str, given_runs), "--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes() == (tmp_path / "c.zip").read_bytes()
    content = members(tmp_path / "a.zip")
    assert {name.split("/")[-1] for name in content} == {"bundle.json", *bundles.FILES} - {"features.npz"}
    for path in (first, second):
        assert content[f"runs/{path.name}/metrics.csv"] == (path / "metrics.csv").read_bytes()
    listed = json.loads(content["bundle.json"])["runs"][0]
    assert listed["protocol_version"] == 1 and listed["identity"].startswith(first.name[-8:])


def test_what_can_not_be_sent_is_refused_in_one_line(sent, tmp_path, capsys):
    run = write_scored_run(tmp_path / "own")
    out = str(tmp_path / "x.zip")
    bare = write_scored_run(tmp_path / "bare")
    for name in ("features.npz", "SHA256SUMS"):
        (bare / name).unlink()
    cases = {(str(tmp_path), "--output", out): "no finished run here",
             (str(run), "--output", str(tmp_path / "x")): "ends in .zip",
             (str(bare), "--features", "--output", out): "no features.npz; leave out --features"}
    for arguments, words in cases.items():
        assert bundle.main(arguments) == 2
        err = capsys.readouterr().err
        assert words in err and err.splitlines()[-1].startswith("error: ")
    edit(run / "status.json", state="interrupted", reason="stopped")
    assert bundle.main([str(run), "--output", out]) == 2 and "not finished (stopped)" in capsys.readouterr().err
    edit(run / "status.json", state="finished", reason=None)
    (run / "metrics.csv").write_bytes((run / "metrics.csv").read_bytes() + b"\n")
    assert bundle.main([str(run), "--output", out]) == 2 and "metrics.csv" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()


# --- verify: what follows ---------------------------------------------------------------------------------------------

def naive(values: list[float], classes: list[str], protocol: str) -> float:
    if protocol != "released":
        return statistics.fmean(values)
    return statistics.fmean(statistics.fmean(v for v, c in zip(values, classes) if c == name) for name in dict.fromkeys(classes))


def test_the_numbers_that_are_worked_out_again_are_those_that_a_plain_loop_gives(files, capsys):
    """All queries, and each publisher's, under every protocol; the count is exact, so none is passed over."""
    content = {name.split("/")[-1]: data for name, data in members(files[False]).items()}
    kept, sources = (arrays(content["per_query.npz"]),
                     [row["source"] for row in rows(content["per_query.csv"]) if row["features"] == "real"])
    expected = 0
    for row in rows(content["metrics.csv"]):
        name = "/".join(row[key] for key in ("features", "protocol", "metric"))
        if (row["classes"], row["gallery"], row["duplicates"]) == ("unseen", "all", "as-published") and name in kept and (
                # sampled orders are drawn anew for a publisher
                row["query_source"] == "all" or float(row["standard_error"]) == 0):
            mine = [row["query_source"] in ("all", source) for source in sources]
            values, classes = ([x for x, own in zip(kept[key].tolist(), mine) if own] for key in (name, "class"))
            assert naive(values, classes, row["protocol"]) == pytest.approx(float(row["value"]), abs=1e-12)
            expected += 1
    status, text = said(capsys, files[False])
    assert status == 0 and f"{expected} numbers of metrics.csv, from per_query.npz" in text and "all agree" in text
    rest = len(rows(content["metrics.csv"])) - expected
    assert f"only checked for form: {rest} numbers of metrics.csv" in text and "the identity" in text


def test_features_determine_the_per_query_values_and_the_rest_of_the_real_valued_numbers(files, capsys):
    status, text = said(capsys, files[True])
    assert status == 0, text
    real = [row for row in rows(next(data for name, data in members(files[True]).items() if name.endswith("metrics.csv")))
            if row["features"] == "real" and row["classes"] == "unseen"]
    assert f"{len(real)} numbers of metrics.csv with their chance and ceiling, from features.npz" in text
    assert f"each of {sum(queries for queries, _ in CLASSES.values())} queries" in text
    assert {row["duplicates"] for row in real} == {"as-published", "distinct"} and any(row["metric"] == "Acc@1" for row in real)


def test_the_report_averages_over_classes_for_the_protocols_that_do():
    assert {name for name, protocol in PROTOCOLS.items() if protocol.average is Average.MACRO} == MACRO


def test_a_run_recorded_before_a_setting_was_there_keeps_its_identity(sent, tmp_path, capsys):
    content = members(pack(tmp_path / "a.zip", members_of_run(sent)))
    name = next(each for each in content if each.endswith("config.json"))
    settings = json.loads(content[name])
    assert settings["data"].pop("validation") == "own" and settings["execution"].pop("graphs") == "none"
    content[name] = json.dumps(settings).encode()
    assert said(capsys, pack(tmp_path / "b.zip", content, consistent=True))[0] == 0


def members_of_run(sent: Path) -> Members:
    run = next((sent / "runs").glob("*seed0*"))
    listed = [name for name in bundles.FILES if name != "features.npz"]
    content = {f"runs/{run.name}/{name}": (run / name).read_bytes() for name in listed}
    digests = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in listed}
    return {**content, "bundle.json": json.dumps({"format": 1, "runs": [{"folder": run.name, "files": digests}]}).encode()}


# --- verify: what does not --------------------------------------------------------------------------------------------

def metrics_with(content: Members, name: str, change: Callable[[dict[str, str]], None]) -> None:
    found = rows(content[name])
    row = next(each for each in found
               if [each[key] for key in ("classes", "features", "protocol", "metric", "query_source", "duplicates")]
               == ["unseen", "real", "zse", "mAP@all", "all", "as-published"])
    change(row)
    content[name] = table(found)


def one_digit(content: Members, at: Callable[[str], str]) -> None:
    def change(row: dict[str, str]) -> None:
        digits = f"{float(row['value']):.6f}"
        row["value"] = digits[:-1] + ("1" if digits[-1] != "1" else "2")
    metrics_with(content, at("metrics.csv"), change)


def dropped_query(content: Members, at: Callable[[str], str]) -> None:
    content[at("per_query.npz")] = npz({name: np.delete(values, 3)
                                        for name, values in arrays(content[at("per_query.npz")]).items()})


def swapped_labels(content: Members, at: Callable[[str], str]) -> None:
    """Of two queries of one size of class, in every file that has labels: no mean over queries can show it."""
    kept = arrays(content[at("per_query.npz")])
    kept["class"][[3, 9]] = kept["class"][[9, 3]]
    content[at("per_query.npz")] = npz(kept)
    found = rows(content[at("per_query.csv")])
    for start in (0, len(kept["class"])):
        found[start + 3]["class"], found[start + 9]["class"] = found[start + 9]["class"], found[start + 3]["class"]
    content[at("per_query.csv")] = table(found)


def label_in_one_file(content: Members, at: Callable[[str], str]) -> None:
    kept = arrays(content[at("per_query.npz")])
    kept["query"] = np.array([f"q{i}" for i in range(len(kept["query"]))])
    found = rows(content[at("per_query.csv")])
    for i, row in enumerate(found):
        row["query"] = f"q{i % len(kept['query'])}"
    kept["class"][3] = "cow"
    content[at("per_query.npz")], content[at("per_query.csv")] = npz(kept), table(found)


def setting(content: Members, at: Callable[[str], str]) -> None:
    settings = json.loads(content[at("config.json")])
    settings["losses"]["sharing"] = 2.5
    content[at("config.json")] = json.dumps(settings).encode()


def digest_of_data(content: Members, at: Callable[[str], str]) -> None:
    content[at("provenance.json")] = json.dumps({**json.loads(content[at("provenance.json")]), "data_digest": "0" * 64}).encode()


def wrong_means(content: Members, at: Callable[[str], str]) -> None:
    found = rows(content[at("metrics.csv")])
    for row in found:
        row["value"] = repr(min(1.0, float(row["value"]) * 1.01))
    content[at("metrics.csv")] = table(found)


def other_version(content: Members, at: Callable[[str], str]) -> None:
    content[at("provenance.json")] = json.dumps({**json.loads(content[at("provenance.json")]), "protocol_version": 2}).encode()


def pickled(content: Members, at: Callable[[str], str]) -> None:
    stream = io.BytesIO()
    np.savez(stream, query=np.array([print], dtype=object), **{"class": np.array(["ant"])})
    content[at("per_query.npz")] = stream.getvalue()


FORGERIES = [(one_digit, r"metrics.csv, real/zse/mAP@all: 0\.\d+, the mean of per_query.npz is 0\.\d+"),
             (dropped_query, r"per_query.npz: lacks 1 query of per_query.csv: .*bee/q3.png"),
             (dropped_query, "metrics.csv: 13 queries, per_query.npz holds 12"),
             (swapped_labels, "per_query.npz, query bee/q3.png: of class dog, its folder is another class's"),
             (label_in_one_file, "per_query.npz, query q3: of class cow, in per_query.csv of class bee"),
             (setting, "config.json: identity [0-9a-f]{16}, its settings and digests give [0-9a-f]{16}"),
             (digest_of_data, "a setting or a digest was changed"),
             (wrong_means, r"metrics.csv, real/released/Prec@R, queries of west: [\s\S]*and \d+ more differences"),
             (other_version, "scored under protocol version 2, this is 1"), (pickled, "holds Python objects")]


@pytest.mark.parametrize(("forge", "words"), FORGERIES)
@pytest.mark.parametrize("consistent", [False, True])
def test_a_forgery_is_named_by_file_metric_and_query(forge, words, consistent, files, tmp_path, capsys):
    content = members(files[False])
    run = next(name.split("/")[1] for name in content if "/" in name)
    forge(content, lambda name: f"runs/{run}/{name}")
    status, text = said(capsys, pack(tmp_path / "forged.zip", content, consistent))
    assert status == 1 and re.search(words, text), text
    assert run in text and ("is not as it was bundled" in text) == (not consistent)


def test_values_that_agree_among_themselves_are_caught_by_features(files, tmp_path, capsys):
    """A better value of one query, put into every file that follows from it, with consistent checksums."""
    def better(content: Members) -> None:
        at = next(name for name in content if name.endswith("per_query.npz")).removesuffix("per_query.npz")
        kept = arrays(content[at + "per_query.npz"])
        name = "real/zse/mAP@all"
        kept[name][5] = min(1.0, kept[name][5] + 0.1) if kept[name][5] < 1 else 0.9
        content[at + "per_query.npz"] = npz(kept)
        own = rows(content[at + "per_query.csv"])
        found = rows(content[at + "metrics.csv"])
        for row in found:
            if ([row[key] for key in ("classes", "features", "protocol", "metric", "duplicates")]
                    == ["unseen", *name.split("/"), "as-published"]):
                row["value"] = repr(naive([v for v, q in zip(kept[name].tolist(), own)
                                           if row["query_source"] in ("all", q["source"])],
                                          [q["class"] for q in own], "zse"))
        content[at + "metrics.csv"] = table(found)

    for features in (False, True):
        content = members(files[features])
        better(content)
        status, text = said(capsys, pack(tmp_path / f"{features}.zip", content, True))
        assert status == int(features), text
    assert re.search(r"per_query.npz, real/zse/mAP@all, query bee/q5.png: \S+, features.npz gives", text)
    assert re.search(r"metrics.csv, real/zse/mAP@all, column value: \S+, features.npz gives", text)


# --- no bundle, or a hostile one --------------------------------------------------------------------------------------

def test_what_is_no_bundle_is_refused_and_nothing_is_written(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    whole = members(files[False])
    run = next(name.split("/")[1] for name in whole if "/" in name)
    manifest = json.loads(whole["bundle.json"])

    def with_manifest(**changes: object) -> Members:
        return {**whole, "bundle.json": json.dumps({**manifest, **changes}).encode()}
    folder = {**manifest["runs"][0], "folder": "../../out"}
    cases: dict[str, tuple[Members | bytes, str]] = {
        "bytes": (b"not a zip", "no bundle that can be read"),
        "cut": (files[False].read_bytes()[:-40], "no bundle that can be read"),
        "empty": ({}, "holds no bundle.json"), "outside": ({**whole, "runs/../../out/metrics.csv": b"x"}, "is no file of a run"),
        "absolute": ({**whole, "/tmp/out": b"x"}, "is no file of a run"),
        "code": ({**whole, f"runs/{run}/method.py": b"x"}, "is no file of a run"),
        "bomb": ({**whole, f"runs/{run}/features.npz": bytes(80 << 20)}, "bytes are unpacked"),
        "unlisted": ({**whole, f"runs/{run}/features.npz": b"x"}, "listed in bundle.json"),
        "folder": (with_manifest(runs=[folder]), "listed in bundle.json"),
        "twice": (with_manifest(runs=manifest["runs"] * 2), "one twice"),
        "later": (with_manifest(format=2), "format 2"),
        "deep": ({**whole, "bundle.json": b'{"a":' * 60 + b"1" + b"}" * 60}, "nested"),
        "list": ({**whole, "bundle.json": b"[]"}, "holds no settings")}
    for name, (content, words) in cases.items():
        path = tmp_path / f"{name}.zip"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for member, data in content.items():
                    archive.writestr(member, data)
        status, text = said(capsys, path)
        assert status == 2 and words in text and text.startswith(f"error: {path}: ") and text.count("\n") == 1, (name, text)
    assert said(capsys, tmp_path / "none.zip")[0] == 2 and said(capsys, tmp_path / "tmp")[0] == 2
    assert not list((tmp_path / "tmp").iterdir()) and not (tmp_path / "out").exists() and not (tmp_path.parent / "out").exists()


@fuzz("bundles", 25)
@given(st.data())
def test_a_damaged_bundle_ends_in_a_verdict(files, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "x.zip"
    member = data.draw(st.sampled_from(["", *bundles.NEEDED, "per_query.csv", "per_query.npz", "SHA256SUMS"]))
    if member:  # inside the zip, with consistent checksums
        content = members(files[True])
        name = next(each for each in content if each.endswith(member))
        content[name] = data.draw(damage(content[name]))
        try:
            pack(path, content, consistent=member != "SHA256SUMS")
        except UnicodeDecodeError:
            return
    else:
        path.write_bytes(data.draw(damage(files[False].read_bytes())))
    assert verify.main([str(path)]) in (0, 1, 2)


# --- in the report ----------------------------------------------------------------------------------------------------

def test_runs_that_were_sent_are_rows_of_their_own_and_replace_none(sent, tmp_path):
    local = tmp_path / "local"
    write_suite(local, ("tcn", "hws"), dataset="sketchy", split="1", pictures=False)
    own = write_scored_run(local, 0, "nws", settings={"losses.sharing": 3.0})  # the same run is sent, too
    bundle.bundle([*bundle.finished(own), *bundle.finished(sent)], tmp_path / "theirs.zip", False)
    broken = members(tmp_path / "theirs.zip")
    name = next(each for each in broken if "seed1" in each and each.endswith("metrics.csv"))
    broken[name] = broken[name] + b"\n"
    pack(tmp_path / "broken.zip", broken)
    before = read_suite(local)
    suite = bundles.with_bundles(before, [tmp_path / "theirs.zip", tmp_path / "broken.zip"], tmp_path / "unpacked")
    rows_there = {run.variant: sorted(each.seed for each in suite.runs if each.variant == run.variant) for run in suite.runs}
    assert rows_there == {"tcn": [0], "hws": [0], "nws": [0], "sent:theirs:tcn": [0, 1]}
    assert naming.label("sent:theirs:tcn") == "TCN (soft sharing) (sent: theirs)"
    reasons = dict(suite.left_out)
    assert "a run of your own has the same identity" in reasons[f"theirs.zip: {own.name}"]
    assert "metrics.csv is not as it was bundled" in next(reasons[key] for key in reasons
                                                          if key.startswith("broken.zip") and "seed1" in key)
    assert "a run in theirs.zip has the same identity" in next(reasons[key] for key in reasons
                                                               if key.startswith("broken.zip: sketchy-1__tcn__seed0"))
    task = suite.tasks()[0]
    text = comparison.comparison(suite, task).versioned().to_markdown()
    line = next(line for line in text.splitlines() if "(sent: theirs)" in line)
    values = [next(float(row["value"]) for row in rows((run / "metrics.csv").read_bytes())
                   if [row[key] for key in ("classes", "features", "protocol", "metric", "query_source", "duplicates")]
                   == ["unseen", "real", "released", "mAP@all", "all", "as-published"])
              for run in sorted((sent / "runs").iterdir())]
    assert (f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}" in line
            and "Measured under protocol version 1." in text)
    # what was measured here says the same as without the bundle
    before_rows = [line for line in comparison.comparison(before, task).to_markdown().splitlines()
                   if line.startswith(("| TCN", "| HWS"))]
    assert all(line in text for line in before_rows)


def test_runs_of_other_protocol_versions_are_left_out_with_the_reason(sent, tmp_path):
    bundle.bundle(bundle.finished(sent), tmp_path / "theirs.zip", False)
    write_scored_run(tmp_path / "newer", 4, protocol_version=2)
    write_scored_run(tmp_path / "newer", 5)
    mixed = read_suite(tmp_path / "newer")
    assert [run.seed for run in mixed.runs] == [4]
    assert any("scored under protocol version 1, the others here under 2" in reason for _, reason in mixed.left_out)
    suite = bundles.with_bundles(mixed, [tmp_path / "theirs.zip"], tmp_path / "unpacked")
    assert [run.seed for run in suite.runs] == [4]
    # the versions of those who send decide nothing here
    write_scored_run(tmp_path / "own", 7)
    bundle.bundle(bundle.finished(tmp_path / "newer" / "runs" / mixed.runs[0].name), tmp_path / "newer.zip", False)
    suite = bundles.with_bundles(read_suite(tmp_path / "own"), [tmp_path / "newer.zip"], tmp_path / "unpacked2")
    assert [run.seed for run in suite.runs] == [7]


def test_the_page_says_who_made_it(sent, tmp_path, overview_alone, capsys):
    (tmp_path / "in").mkdir()
    bundle.bundle(bundle.finished(sent), tmp_path / "in" / "theirs.zip", False)
    assert command.main(["--bundles", str(tmp_path / "in")]) == 2 and "--out" in capsys.readouterr().err
    assert command.main(["--bundles", str(tmp_path / "in"), "--out", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert (page.count("by somebody else, in <a href=\"../in/theirs.zip\">theirs.zip</a>") == 2
            and "--reproduce" not in page.split("Each run in full")[1])
    assert "means of 2 runs were worked out again" in page and "all equal" in page and str(tmp_path) not in page
    tables = "".join(path.read_text() for path in (tmp_path / "report" / "tables").glob("*.md"))
    assert "(sent: theirs)" in tables and "features.npz is missing" not in page


def test_the_leaderboard_mixes_nothing_and_fetches_nothing(sent, tmp_path, capsys):
    local = tmp_path / "local"
    write_suite(local, ("tcn", "hws"), seeds=(0, 1), dataset="sketchy", split="1", pictures=False)
    write_suite(local, ("tcn",), dataset="sketchy", split="2", pictures=False)
    edit(next((local / "runs").glob("sketchy-1__hws__seed0*")) / "provenance.json", device="<script>alert(1)</script>")
    bundle.bundle(bundle.finished(sent), tmp_path / "theirs.zip", False)
    target = tmp_path / "board.html"
    assert command.main(["--results", str(local), "--bundles", str(tmp_path / "theirs.zip"), "--leaderboard", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target) and not (local / "report").exists()
    page = target.read_text()
    assert "<script>alert" not in page and not re.search(r"(src|href)=\"?(https?:)?//", page) and "<link" not in page
    assert '<a href="theirs.zip">' in page and 'href="local/"' in page
    suite = bundles.with_bundles(read_suite(local), [tmp_path / "theirs.zip"], tmp_path / "unpacked")
    boards = leaderboard.boards(suite, tmp_path)
    keys = [(board.task, board.kind, board.protocol, board.version, board.queries, board.photos) for board in boards]
    assert len(set(keys)) == len(keys) and {board.kind for board in boards} == {"real", "binary"}
    # the sent runs are of the same data set and split, but of other queries and photos
    first = [board for board in boards if (board.protocol, board.kind, board.task.split) == ("released", "real", "1")]
    assert [sorted({line.method for line in board.lines}) for board in first] == [
        ["HWS (hard sharing)", "TCN (soft sharing)"], ["TCN (soft sharing) (sent: theirs)"]]
    line = next(line for line in first[0].lines if line.method.startswith("HWS"))
    assert (line.seeds, line.commits, line.encoder) == ("2 (s0–1)", "c0ffee00", "efficientnet-lite0, 32 px")
    means = [line.values[0].mean for line in first[0].lines]
    assert means == sorted(means, reverse=True)
    assert "mAP@all" not in next(board for board in boards if board.protocol == "cvpr19").metrics


def test_a_leaderboard_leaves_no_folder_for_the_report_aside(tmp_path, capsys):
    board, out = tmp_path / "board.html", tmp_path / "report"
    write_suite(tmp_path / "local", ("tcn",), pictures=False)
    assert command.main(["--results", str(tmp_path / "local"), "--leaderboard", str(board), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"--leaderboard {board}" in said and f"--out {out}; leave one of them out" in said and not board.exists()


def test_a_click_on_a_heading_sorts_its_table(tmp_path):
    write_suite(tmp_path / "local", ("tcn", "hws", "nws"), dataset="sketchy", split="1", pictures=False)
    assert command.main(["--results", str(tmp_path / "local"), "--leaderboard", str(tmp_path / "board.html")]) == 0
    with Browser(installed()) as browser:
        browser.open((tmp_path / "board.html").as_uri())
        browser.until("document.querySelectorAll('th button').length > 10")

        def after_click(heading: int, cell: int) -> list[str]:
            browser.run(f"document.querySelectorAll('th button')[{heading}].click()")
            return browser.run(f"[...document.querySelector('tbody').rows].map(row => row.cells[{cell}].textContent)")
        down, up = after_click(4, 4), after_click(4, 4)
        assert len(set(down)) == 3 and down == sorted(down, key=lambda text: -float(text.split()[0])) and up == down[::-1]
        methods = after_click(0, 0)
        assert methods == sorted(methods) and len(set(methods)) == 3
        assert not browser.messages


# --- end to end -------------------------------------------------------------------------------------------------------

def test_a_real_run_travels(place, tmp_path, capsys):
    output = tmp_path / "out"
    assert run_all.main([*common(place), *ONE, "--variants", "untrained-svd", "--output", str(output), "--no-report"]) == 0
    record = json.loads((next(iter(run_folders(output).values())) / "provenance.json").read_text())
    assert record["protocol_version"] == 1
    assert tcn.__main__.main(["bundle", str(output), "--features", "--output", str(tmp_path / "real.zip")]) == 0
    capsys.readouterr()
    assert tcn.__main__.main(["verify", str(tmp_path / "real.zip")]) == 0
    text = capsys.readouterr().out
    assert "from features.npz" in text and "also as the run itself wrote them" in text
