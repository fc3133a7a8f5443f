"""`python -m tcn evaluate`: numbers against double loops in plain Python, streams, every bad file."""
from __future__ import annotations

import csv
import json
import math
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tcn.__main__ import main
from tcn.cli import evaluate as command
from tcn.scoring import codes, protocols, scores

KS = (2, 5)


# ------------------------------------------------------------------------------------------------- the oracle
def relevances(query, gallery, query_labels, gallery_labels, distance) -> list[list[bool]]:
    """For each query whether the photos from near to far are of its class.

    Equal distances of photos of two classes are refused: then the order would be a matter of choice.
    """
    found = []
    for point, label in zip(query, query_labels):
        ranked = sorted((distance(point, photo), index) for index, photo in enumerate(gallery))
        for (near, one), (far, other) in zip(ranked, ranked[1:]):
            assert far - near > 1e-9 or gallery_labels[one] == gallery_labels[other], "a tie"
        found.append([gallery_labels[index] == label for _, index in ranked])
    return found


def angle(one, other) -> float:
    """Angle between two vectors, in radians: grows with the distance of the vectors scaled to unit length."""
    product = sum(float(a) * float(b) for a, b in zip(one, other))
    lengths = math.sqrt(sum(float(a) ** 2 for a in one)) * math.sqrt(sum(float(b) ** 2 for b in other))
    return math.acos(product / lengths)


def hamming(one, other) -> int:
    return sum(int(a) != int(b) for a, b in zip(one, other))


def precision_sum(top: list[bool], interpolated: bool) -> float:
    precisions = [sum(top[: i + 1]) / (i + 1) for i in range(len(top))]
    return sum(max(precisions[i:]) if interpolated else precisions[i] for i in range(len(top)) if top[i])


def naive(protocol: str, ranked: list[list[bool]], labels: list, ks=KS) -> dict[str, float]:
    """`released`, `cvpr19` or `standard`, as the table of definitions words them."""
    values: dict[str, list[float]] = {}
    for row in ranked:
        number = sum(row)
        if protocol != "cvpr19":
            values.setdefault("mAP@all", []).append(precision_sum(row, protocol == "released") / number)
        for k in ks:
            divisor = sum(row[:k]) if protocol == "cvpr19" else min(k, number)
            total = precision_sum(row[:k], protocol == "released")
            values.setdefault(f"mAP@{k}", []).append(total / divisor if divisor else 0.0)
            if protocol == "cvpr19":
                values.setdefault(f"Prec@{k}", []).append(float(k < len(row) and row[k]))
            else:
                values.setdefault(f"Prec@{k}", []).append(sum(row[:k]) / k)
    if protocol != "released":
        return {name: sum(each) / len(each) for name, each in values.items()}
    classes = sorted(set(labels))
    return {name: sum(sum(v for v, own in zip(each, labels) if own == c) / labels.count(c) for c in classes)
            / len(classes) for name, each in values.items()}


# -------------------------------------------------------------------------------------------------- the files
def example(seed: int = 0) -> dict[str, np.ndarray]:
    """12 queries of 3 classes of unlike size, 20 photos, some of a class that nobody asks for."""
    random = np.random.default_rng(seed)
    names = np.array(["cat", "hot-air balloon", "épée", "zebra"])
    query_class = np.array([0] * 6 + [1] * 4 + [2] * 2)
    photo_class = np.array([0] * 4 + [1] * 9 + [2] * 3 + [3] * 4)
    random.shuffle(photo_class)
    centres = random.normal(size=(4, 6))
    return {"query": (centres[query_class] + random.normal(size=(12, 6))).astype(np.float32),
            "gallery": (centres[photo_class] + random.normal(size=(20, 6))).astype(np.float32),
            "query_labels": names[query_class], "gallery_labels": names[photo_class]}


@pytest.fixture
def store(tmp_path):
    """Writes an .npz file: the example with some arrays replaced, or left out where they are None."""

    def write(**changes) -> str:
        arrays = {name: array for name, array in {**example(), **changes}.items() if array is not None}
        path = tmp_path / "features.npz"
        np.savez(path, **arrays)
        return str(path)

    return write


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    status = main(["evaluate", *map(str, arguments)])
    output = capsys.readouterr()
    return status, output.out, output.err


def as_json(capsys, *arguments: object) -> dict[str, dict[str, float]]:
    status, out, err = run(capsys, *arguments, "--json")
    assert status == 0, err
    return numbers(out)


def numbers(out: str) -> dict[str, dict[str, float]]:
    """What `--json` printed, without the version of the rules, which has to be there."""
    found = json.loads(out)
    assert found.pop("protocol_version") == protocols.PROTOCOL_VERSION
    return found


def table(text: str, title: str, after: str = "") -> dict[str, list[str]]:
    """The rows under a title, by their first word."""
    lines = text[text.index(after):].splitlines()
    lines = lines[lines.index(title) + 1:]
    lines = lines[: lines.index("")] if "" in lines else lines
    return {"": lines[0].split(), **{line.split()[0]: line.split()[1:] for line in lines[1:]}}


# ---------------------------------------------------------------------------------------------------- numbers
@pytest.mark.parametrize("metric", [[], ["--metric", "cosine"], ["--metric", "euclidean", "--block", "5"]])
def test_json_gives_the_numbers_of_a_double_loop(store, capsys, metric):
    data = example()
    got = as_json(capsys, store(), "--ks", *KS, *metric)
    ranked = relevances(data["query"], data["gallery"], data["query_labels"], data["gallery_labels"], angle)
    labels = data["query_labels"].tolist()
    for protocol in ("released", "cvpr19", "standard"):
        assert got[protocol] == pytest.approx(naive(protocol, ranked, labels), rel=1e-12)
    assert tuple(got) == protocols.ALL
    assert len({json.dumps(got[name]) for name in got}) == 6, "data on which two protocols agree test nothing"


def test_json_has_the_keys_of_the_library_and_nothing_else(store, capsys):
    got = as_json(capsys, store())
    assert set(got["released"]) == {"mAP@all", "mAP@100", "Prec@100", "mAP@200", "Prec@200"}
    assert set(got["cvpr19"]) == {"mAP@100", "Prec@100", "mAP@200", "Prec@200"}
    assert got == scores.evaluate(*example().values())
    assert list(as_json(capsys, store(), "--protocols", "standard", "zse")) == ["standard", "zse"]


def test_integer_labels_from_any_number_mean_the_same_as_names(store, capsys):
    data = example()
    numbers = {"cat": 907, "hot-air balloon": -3, "épée": 14, "zebra": 2**40}
    both = ("query_labels", "gallery_labels")
    renamed = {name: np.array([numbers[label] for label in data[name]]) for name in both}
    bytes_ = {name: np.char.encode(data[name], "utf-8") for name in both}
    expected = as_json(capsys, store())
    for changed in (renamed, bytes_):
        other = as_json(capsys, store(**changed))
        for protocol, values in expected.items():
            assert other[protocol] == pytest.approx(values, rel=1e-12)


@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_codes_are_compared_by_hamming_distance(store, capsys, kind):
    gallery = np.tri(9, 8, -1)[[3, 0, 7, 5, 1, 8, 2, 6, 4]].astype(kind)  # 0 to 8 ones: no ties
    query = np.array([[0] * 8, [1] * 8]).astype(kind)
    query_labels, gallery_labels = np.array([5, 8]), np.array([5, 8, 8, 5, 5, 8, 9, 5, 8])
    path = store(query=query, gallery=gallery, query_labels=query_labels, gallery_labels=gallery_labels)
    ranked = relevances(query, gallery, query_labels, gallery_labels, hamming)
    got = as_json(capsys, path, "--ks", *KS)
    for protocol in ("released", "cvpr19", "standard"):
        assert got[protocol] == pytest.approx(naive(protocol, ranked, [5, 8]), rel=1e-12)
    assert got == as_json(capsys, path, "--ks", *KS, "--metric", "hamming")
    assert "Hamming" in run(capsys, path)[1]


def test_ties_are_an_option(store, capsys):
    """Two photos at one distance, the second of them relevant: AP is 1/2, 1, or their mean."""
    path = store(query=np.zeros((1, 4), bool), gallery=np.eye(4, dtype=bool)[:2], query_labels=np.array([1]),
                 gallery_labels=np.array([0, 1]))
    expected = {"expected": 0.75, "best": 1.0, "worst": 0.5, "gallery-order": 0.5, "scikit-learn": 0.5}
    assert "scikit-learn" in run(capsys, path, "--ties", "as-released")[1]
    for ties, value in expected.items():
        got = as_json(capsys, path, "--ties", ties, "--protocols", "standard")
        assert got["standard"]["mAP@all"] == pytest.approx(value), ties
        assert f"ties        {ties}" in run(capsys, path, "--ties", ties)[1]
    assert {*expected, "unstable-sort", "as-released"} == set(scores.TIES)
    got = as_json(capsys, path, "--ties", "unstable-sort", "--protocols", "standard")
    assert got["standard"]["mAP@all"] in (0.5, 1.0), "one of the two orders, which one is the processor's"
    assert "another machine" in run(capsys, path, "--ties", "unstable-sort")[1]
    one, other = (as_json(capsys, path, "--tie-draws", "1", "--seed", str(seed)) for seed in (0, 3))
    assert {one["released"]["mAP@all"], other["released"]["mAP@all"]} == {0.5, 1.0}, "one draw is one order"
    assert "standard error up to 0." in run(capsys, path)[1]


# -------------------------------------------------------------------------------------------------- the table
def test_table_has_a_row_a_metric_and_a_column_a_protocol(store, capsys):
    status, out, _ = run(capsys, store(), "--ks", *KS)
    assert status == 0
    numbers = as_json(capsys, store(), "--ks", *KS)
    shown = table(out, "value")
    assert shown[""] == list(protocols.ALL)
    assert list(shown)[1:] == ["mAP@all", "mAP@2", "mAP@5", "Prec@2", "Prec@5", "Prec@R"]
    for name in ("mAP@all", "mAP@2", "mAP@5", "Prec@2", "Prec@5"):
        for protocol, text in zip(shown[""], shown[name]):
            assert text == (f"{numbers[protocol][name]:.4f}" if name in numbers[protocol] else "-")
    for word in ("12 queries of 3 classes", "20 gallery entries", "6 dimensions", "euclidean", "expected",
                 "duplicates  as-published", "cvpr19's Prec@K"):
        assert word in out


def test_table_says_chance_and_ceiling(store, capsys):
    """At random each photo is relevant with R / N; at best Prec@5 of 4, 9 and 3 photos is .8, 1 and .6."""
    out = run(capsys, store(), "--ks", 5, "--protocols", "standard", "released")[1]
    chance, ceiling = table(out, "chance (gallery in random order)"), table(out, "ceiling (best ranking)")
    assert chance["Prec@5"] == [f"{(6 * 4 + 4 * 9 + 2 * 3) / 12 / 20:.4f}", f"{(4 + 9 + 3) / 3 / 20:.4f}"]
    assert ceiling["Prec@5"] == [f"{(6 * .8 + 4 * 1 + 2 * .6) / 12:.4f}", f"{(.8 + 1 + .6) / 3:.4f}"]
    assert ceiling["mAP@all"] == ["1.0000", "1.0000"]


def test_groups_report_both_rules_for_duplicates(store, capsys):
    data = example()
    gallery = np.concatenate([data["gallery"], data["gallery"][:7]])
    labels = np.concatenate([data["gallery_labels"], data["gallery_labels"][:7]])
    groups = np.array([f"photo-{i}" for i in [*range(20), *range(7)]])
    path = store(gallery=gallery, gallery_labels=labels, gallery_group=groups)
    options = ("--protocols", "standard", "--ks", "5")
    found = {"as-published: 27 photos": as_json(capsys, path, *options),
             "distinct: 20 photos": as_json(capsys, path, *options, "--duplicates", "distinct")}
    status, out, err = run(capsys, path, *options)
    assert (status, err) == (0, "")
    assert "7 gallery entries repeat a photo" in out
    for (title, numbers), photos in zip(found.items(), (27, 20)):
        ranked = relevances(data["query"], gallery[:photos], data["query_labels"], labels[:photos], angle)
        expected = naive("standard", ranked, data["query_labels"].tolist(), (5,))
        assert numbers["standard"] == pytest.approx(expected, rel=1e-12)
        assert table(out, "value", title)["mAP@all"] == [f"{expected['mAP@all']:.4f}"]
    published, distinct = found.values()
    assert published["standard"]["mAP@all"] != distinct["standard"]["mAP@all"]
    assert published == as_json(capsys, path, *options, "--duplicates", "as-published")
    only = run(capsys, path, *options, "--duplicates", "distinct")[1]
    assert "distinct: 20 photos" in only and "27 photos" not in only


def test_a_group_of_two_classes_is_noted(store, capsys):
    groups = np.arange(20)
    labels = example()["gallery_labels"]
    groups[np.flatnonzero(labels == "zebra")[0]] = groups[np.flatnonzero(labels == "cat")[0]]
    status, _, err = run(capsys, store(gallery_group=groups))
    assert status == 0 and "1 group(s) of gallery_group hold photos of several classes" in err


def test_instance_numbers_that_begin_anew_in_each_class_are_noted(store, capsys):
    """And only those that several classes share; an empty text names no photo."""
    labels = example()["gallery_labels"]
    anew = np.array([int((labels[:row] == label).sum()) for row, label in enumerate(labels)])
    shared = sum(len(set(labels[anew == number].tolist())) > 1 for number in set(anew.tolist()))
    status, _, err = run(capsys, store(gallery_instance=anew, query_instance=np.zeros(len(example()["query_labels"]), int)))
    assert status == 0 and shared > 1 and f"{shared} value(s) of gallery_instance name photos of several classes" in err
    own = np.array([f"{label}-{number}" if number else "" for label, number in zip(labels, anew)])
    drawn = np.array([f"{label}-1" for label in example()["query_labels"]])
    status, _, err = run(capsys, store(gallery_instance=own, query_instance=drawn))
    assert status == 0 and (own == "").sum() > 1 and "gallery_instance" not in err


def test_instances_give_a_table_of_the_very_photo(store, capsys, tmp_path):
    data = example()
    drawn = [int(np.flatnonzero(data["gallery_labels"] == label)[number % 3])
             for number, label in enumerate(data["query_labels"])]
    listed = [*range(20), *drawn[:4]]
    arrays = {"gallery": data["gallery"][listed], "gallery_labels": data["gallery_labels"][listed],
              "gallery_group": np.array(listed), "gallery_instance": np.array(listed),
              "query_instance": np.array([*drawn[:-1], 99])}
    path, kept = store(**arrays), tmp_path / "scores.csv"
    status, out, err = run(capsys, path, "--csv", kept, "--ties", "worst")
    assert (status, err) == (0, "")
    assert "11 of 12 queries have the photo that they were drawn from in the gallery" in out
    numbers = {}
    for rule, photos in (("as-published", listed), ("distinct", listed[:20])):
        for scope in ("instance-in-class", "instance"):
            places = []  # of the copy that comes first; copies of one photo are equally far from every query
            for point, label, own in zip(data["query"][:-1], data["query_labels"], drawn):
                ranked = [i for i in photos if scope == "instance" or data["gallery_labels"][i] == label]
                places.append(sum(angle(point, data["gallery"][i]) < angle(point, data["gallery"][own]) for i in ranked))
            numbers[rule, scope] = {f"Acc@{k}": sum(place < k for place in places) / 11 for k in (1, 5, 10)}
        shown = table(out, f"the very photo that was drawn, {rule} (photos at equal distance: mean over all orders)")
        assert shown[""] == ["instance-in-class", "chance", "instance", "chance"]
        for metric in ("Acc@1", "Acc@5", "Acc@10"):
            assert shown[metric][::2] == [f"{numbers[rule, scope][metric]:.4f}" for scope in ("instance-in-class", "instance")]
    assert numbers["as-published", "instance"] != numbers["distinct", "instance"]
    with kept.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["protocol"].startswith("instance")]
    assert {(row["duplicates"], row["protocol"], row["metric"]): float(row["value"]) for row in rows} == {
        (*key, metric): pytest.approx(value) for key, its in numbers.items() for metric, value in its.items()}
    assert {(row["ties"], row["queries"]) for row in rows} == {("expected", "11")}
    found = as_json(capsys, path, "--protocols", "standard", "--duplicates", "distinct")
    assert set(found) == {"standard", "instance-in-class", "instance"}
    assert found["instance"] == pytest.approx(numbers["distinct", "instance"])


def test_per_class_table_and_its_mean(store, capsys):
    data = example()
    renamed = {name: np.where(data[name] == "cat", "a\nb", data[name])
               for name in ("query_labels", "gallery_labels")}
    out = run(capsys, store(**renamed), "--per-class", "--protocols", "cvpr19", "standard", "released")[1]
    shown = table(out.replace("hot-air balloon", "balloon"), "mAP@all by class, as-published")
    assert shown[""] == ["queries", "photos", "standard", "released"], "cvpr19 has no mAP@all"
    assert {name: row[:2] for name, row in shown.items() if name} == {
        "'a\\nb'": ["6", "4"], "balloon": ["4", "9"], "épée": ["2", "3"]}
    ranked = relevances(data["query"], data["gallery"], data["query_labels"], data["gallery_labels"], angle)
    cat = [precision_sum(row, False) / sum(row) for row in ranked[:6]]
    assert shown["'a\\nb'"][2] == f"{sum(cat) / 6:.4f}"
    assert "Prec@5 by class" in run(capsys, store(), "--per-class", "Prec@5")[1]


def test_missing_classes(store, capsys):
    """A class without photos: an error, or 0, or out of mAP alone (2 of 12 queries, 1 of 3 classes)."""
    labels = example()["gallery_labels"]
    path = store(gallery_labels=np.where(labels == "épée", "zebra", labels))
    status, out, err = run(capsys, path)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {path}: gallery_labels") and "épée" in err
    assert "--missing-classes zero" in err
    zero, released = (as_json(capsys, path, "--missing-classes", how) for how in ("zero", "as-released"))
    assert zero["standard"]["mAP@all"] == pytest.approx(released["standard"]["mAP@all"] * 10 / 12)
    assert zero["released"]["mAP@all"] == pytest.approx(released["released"]["mAP@all"] * 2 / 3)
    assert zero["released"]["Prec@100"] == released["released"]["Prec@100"]
    out = run(capsys, path, "--missing-classes", "as-released", "--per-class")[1]
    assert "1 class(es) without photos: their 2 queries are left out of mAP" in out
    assert table(out, "mAP@all by class, as-published")["épée"] == ["2", "0", "-", "-", "-", "-", "-"]


# -------------------------------------------------------------------------------------------------------- ITQ
def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.sqrt((rows.astype(np.float64) ** 2).sum(1, keepdims=True))


def test_itq_is_fitted_on_train(store, capsys):
    """By hand: unit length, centre on train's mean, turn by the fitted rotation, keep the signs."""
    data, train = example(), np.random.default_rng(5).normal(2, 1, size=(50, 6))
    path = store(train=train)
    for bits in (None, 4):
        fitted = codes.itq(unit(train), bits=bits)
        made = [np.where((unit(data[name]) - unit(train).mean(0)) @ fitted.matrix >= 0, 1, 0).astype(np.uint8)
                for name in ("query", "gallery")]
        expected = scores.evaluate(*made, data["query_labels"], data["gallery_labels"], metric="hamming")
        status, out, err = run(capsys, path, "--json", "--itq", *([bits] if bits else []))
        assert (status, err) == (0, "")
        assert numbers(out) == expected
    made_of = "4 bits by ITQ, textbook rule, fitted on the 50 rows of train"
    assert made_of in run(capsys, path, "--itq", "4")[1]
    rules = [as_json(capsys, path, "--itq", "--itq-rule", rule, "--seed", 3) for rule in codes.RULES]
    assert rules[0] != rules[1]
    assert as_json(capsys, path) == as_json(capsys, store()), "without --itq, train does nothing"


def test_itq_on_the_queries_is_loud(store, capsys):
    data = example()
    status, out, err = run(capsys, store(), "--itq", "--itq-fit", "as-released", "--json")
    assert status == 0 and err.startswith("warning: ") and "TRANSDUCTIVE" in err
    made = codes.binary_codes(None, unit(data["query"]), unit(data["gallery"]), fit="as-released")
    labels = data["query_labels"], data["gallery_labels"]
    assert numbers(out) == scores.evaluate(*made, *labels, metric="hamming")
    assert "TRANSDUCTIVE" in run(capsys, store(), "--itq", "--itq-fit", "as-released")[1]


# -------------------------------------------------------------------------------------------------------- CSV
def test_csv_has_a_row_for_each_number(store, capsys, tmp_path):
    target = tmp_path / "scores.csv"
    path = store(gallery_group=np.arange(20))
    got = as_json(capsys, path, "--csv", target, "--per-class", "Prec@5", "--ks", 5)
    with target.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    whole = {(r["duplicates"], r["protocol"], r["metric"]): r for r in rows if not r["class"]}
    assert len([r for r in rows if not r["class"]]) == len(whole)
    for protocol, values in got.items():
        for metric, value in values.items():
            for rule in scores.DUPLICATES:  # no entry repeats a photo here: both rules agree
                assert float(whole[rule, protocol, metric]["value"]) == value
    row = whole["as-published", "standard", "Prec@5"]
    assert [row[name] for name in ("queries", "photos", "ties")] == ["12", "20", "expected"]
    assert (row["distance"], row["missing_classes"], row["codes"]) == ("euclidean", "error", "")
    assert float(row["chance"]) == pytest.approx((6 * 4 + 4 * 9 + 2 * 3) / 12 / 20)
    own = {r["class"]: r for r in rows
           if r["class"] and (r["protocol"], r["duplicates"]) == ("standard", "distinct")}
    assert [own[name]["class_photos"] for name in ("cat", "hot-air balloon", "épée")] == ["4", "9", "3"]
    mean = sum(float(r["value"]) * int(r["queries"]) for r in own.values()) / 12
    assert mean == pytest.approx(got["standard"]["Prec@5"])


def test_csv_to_an_unwritable_place_is_said_before_anything_is_scored(store, capsys, tmp_path, monkeypatch):
    assert run(capsys, store(), "--csv", tmp_path / "new" / "scores.csv")[0] == 0 and (tmp_path / "new" / "scores.csv").exists()
    monkeypatch.setattr(command, "_scored", lambda *arguments: pytest.fail("something was scored"))
    (tmp_path / "file").write_text("")
    for target in (tmp_path, tmp_path / "file" / "scores.csv", tmp_path / ("long" * 100)):
        status, out, err = run(capsys, store(), "--csv", target)
        assert status == 2 and not out and err.count("\n") == 1 and str(target) in err and "--csv" in err


# -------------------------------------------------------------------------------------------------- bad input
SKETCHES = example()["query"]
BAD_ARRAYS = {
    "NaN": ({"query": np.where(np.arange(12)[:, None] == 3, np.nan, SKETCHES)},
            "query holds NaN or infinity, first in row 3"),
    "infinity": ({"gallery": np.full((20, 6), np.inf)}, "gallery holds NaN or infinity"),
    "zero row": ({"gallery": np.zeros((20, 6))}, "gallery row 0 is all zeros"),
    "no rows": ({"query": np.empty((0, 6)), "query_labels": np.empty(0, int)}, "query is empty"),
    "one-dimensional": ({"query": np.ones(12)}, "query must be [rows, dimensions]"),
    "text": ({"gallery": np.full((20, 6), "x")}, "gallery is an array of <U1"),
    "other width": ({"gallery": np.ones((20, 5))}, "query has 6 dimensions and gallery 5"),
    "fewer labels": ({"query_labels": np.arange(11)}, "query_labels has 11 entries, but query has 12 rows"),
    "fewer photo labels": ({"gallery_labels": np.array(["cat"])}, "gallery_labels has 1 entries"),
    "labels [N, 1]": ({"query_labels": np.zeros((12, 1), int)}, "query_labels must be one-dimensional"),
    "real labels": ({"query_labels": np.zeros(12)}, "query_labels is an array of float64"),
    "two kinds of labels": ({"query_labels": np.zeros(12, int)}, 
                            "gallery_labels are strings ('hot-air balloon') and query_labels integers (0); "
                            "they must be of one kind"),
    "bytes": ({"query_labels": np.array([b"\xff"] * 12)}, "query_labels holds bytes that are not UTF-8"),
    "fewer groups": ({"gallery_group": np.arange(19)}, "gallery_group has shape (19,)"),
    "instances of queries alone": ({"query_instance": np.arange(12)}, "query_instance without gallery_instance"),
    "instances that are nowhere": ({"query_instance": np.arange(12), "gallery_instance": np.arange(20, 40)},
                                   "photo of none of the 12 queries"),
    "real groups": ({"gallery_group": np.zeros(20)}, "gallery_group is an array of float64"),
    "missing": ({"gallery": None, "query_labels": None},
                "no array gallery, query_labels; it holds gallery_labels, query,"),
    "nothing": (dict.fromkeys(("query", "gallery", "query_labels", "gallery_labels")), "it holds no arrays"),
    "codes and features": ({"query": np.ones((12, 6), bool)},
                           "query is bool and gallery float32: one holds codes, the other real numbers; "
                           "store both as one kind"),
    "packed codes": ({"query": np.full((12, 6), 200, np.uint8), "gallery": np.zeros((20, 6), np.uint8)},
                     "query is uint8 and holds 200; codes are 0 and 1. For packed bits give np.unpackbits(query, axis=1)"),
    "codes of -1 and 1": ({"query": np.sign(SKETCHES), "gallery": np.zeros((20, 6), bool)},
                          "query is float32 and gallery bool: one holds codes, "
                          "the other real numbers; query holds -1 and 1, so its codes are query > 0: store that"),
    "codes, and others of -1 and 1": ({"query": SKETCHES > 0, "gallery": np.ones((20, 6)) - 2 * np.eye(20, 6)},
                                      "query is bool and gallery float64: one holds codes, the other real numbers; gallery holds "
                                      "-1 and 1, so its codes are gallery > 0: store that"),
    "codes of 0 and 255": ({"query": (SKETCHES > 0).astype(np.uint8) * 255, "gallery": np.zeros((20, 6), np.uint8)},
                           "query is uint8 and holds 0 and 255; --metric hamming needs codes, bool or uint8 0-1: give query > 0"),
    "no photo of any class": ({"gallery_labels": np.array(["zebra"] * 20)}, "gallery_labels has no photo of any query class"),
    "object labels": ({"gallery_labels": np.array(["cat"] * 20, dtype=object)},
                      "gallery_labels is an object array"),
    "object features": ({"query": np.array([[1.0]] * 12, dtype=object)}, "query is an object array"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_bad_arrays_are_named_without_a_traceback(store, capsys, name, options):
    changes, message = BAD_ARRAYS[name]
    path = store(**changes)
    status, out, err = run(capsys, path, *options)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {path}: ") and message in err
    assert err.count("\n") == 1


def corrupt(path: Path) -> None:
    np.savez_compressed(path, **example())
    data = bytearray(path.read_bytes())
    data[data.index(b"query.npy") + 60] ^= 0xFF
    path.write_bytes(bytes(data))


def zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("query", "gallery", "query_labels", "gallery_labels"):
            archive.writestr(name, "no array")


BAD_FILES = {
    "absent": (lambda path: None, "No such file"),
    "folder": (lambda path: path.mkdir(), "Is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("query,gallery\n"), "not an .npz file"),
    "npy": (lambda path: np.save(path.open("wb"), np.ones((3, 3))), "not an .npz file"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(example())), "not an .npz file"),
    "corrupt": (corrupt, "query cannot be read"),
    "zip of text": (zip_of_text, "query is not an array"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_without_a_traceback(tmp_path, capsys, name):
    make, message = BAD_FILES[name]
    path = tmp_path / "features.npz"
    make(path)
    status, out, err = run(capsys, path)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {path}: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize("options, changes, message", [
    (["--itq"], {}, "no array train"),
    (["--itq", "7"], {"train": np.ones((9, 6))}, "bits must be from 1 to 6"),
    (["--itq"], {"train": np.ones((9, 5))}, "query has 6 dimensions and train 5"),
    (["--itq"], {"train": np.full((9, 6), np.nan)}, "train holds NaN or infinity, first in row 0"),
    (["--itq"], {"train": np.zeros((9, 6))}, "train row 0 is all zeros"),
    (["--itq"], {"train": np.empty((0, 6))}, "train must be [rows, dimensions] and not empty"),
    (["--itq"], {"train": np.ones((9, 6), bool)}, "train is an array of bool"),
    (["--itq"], {"train": np.array([None])}, "train is an object array"),
    (["--itq", "--itq-fit", "as-released"], {"query": SKETCHES > 0}, "query is an array of bool"),
    (["--itq", "--metric", "cosine"], {"train": np.ones((9, 6))}, "not by --metric cosine"),
    (["--itq-fit", "as-released"], {}, "they need --itq"),
    (["--metric", "hamming"], {}, "--metric hamming needs codes"),
    (["--metric", "cosine"], {"query": SKETCHES > 0, "gallery": np.ones((20, 6), bool)},
     "with --metric hamming"),
    (["--duplicates", "distinct"], {}, "--duplicates distinct needs gallery_group"),
    (["--per-class", "mAP@7"], {}, "no such metric here; there are mAP@all, mAP@100"),
    (["--per-class", "--protocols", "cvpr19"], {}, "no such metric here; there are mAP@100, Prec@100"),
])
def test_options_that_do_not_fit_the_file(store, capsys, options, changes, message):
    status, out, err = run(capsys, store(**changes), *options)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_the_features_are_not_overwritten(store, capsys):
    path = store()
    before = Path(path).read_bytes()
    status, _, err = run(capsys, path, "--csv", path)
    assert status == 2 and "would replace the features" in err and Path(path).read_bytes() == before


@pytest.mark.parametrize("options", [
    ["--ks", "0"], ["--ks", "1.5"], ["--protocols", "coco"], ["--metric", "dot"], ["--itq", "0"],
    ["--block", "-1"], ["--seed", "-1"], ["--device", "abacus"], ["--device", "meta"], ["--ties", "lucky"],
    ["--tie-draws", "0"], ["--keys"],
])
def test_bad_usage_leaves_with_status_2(store, capsys, options):
    with pytest.raises(SystemExit) as left:
        main(["evaluate", store(), *options])
    assert left.value.code == 2
    output = capsys.readouterr()
    assert output.out == "" and "error: " in output.err and options[0] in output.err


def test_two_spellings_are_an_error_or_one_class(store, capsys):
    labels = example()["gallery_labels"]
    path = store(gallery_labels=np.where((labels == "hot-air balloon") & (np.arange(20) % 2 == 0), "hot_air_balloon", labels))
    status, out, err = run(capsys, path)
    assert (status, out) == (2, "")
    assert "'hot-air balloon' and 'hot_air_balloon'" in err and "--spellings merge" in err
    merged, out = as_json(capsys, path, "--spellings", "merge"), run(capsys, path, "--spellings", "merge")[1]
    assert merged == as_json(capsys, store())
    assert "1 class(es) spelt in several ways, each taken as one: 'hot-air balloon' = 'hot_air_balloon'" in out


def test_photos_listed_again_are_said(store, capsys):
    data = example()
    listed = np.concatenate([np.arange(20), [3, 3]])
    path = store(gallery=data["gallery"][listed], gallery_labels=data["gallery_labels"][listed])
    assert "2 gallery entries are identical to an earlier one" in run(capsys, path)[1]
    status, out, err = run(capsys, path, "--json")
    assert status == 0 and json.loads(out) and "2 gallery entries are identical" in err
    told = store(gallery=data["gallery"][listed], gallery_labels=data["gallery_labels"][listed], gallery_group=listed)
    assert "identical" not in "".join(run(capsys, told)[1:]) and "identical" not in "".join(run(capsys, store())[1:])


@pytest.mark.parametrize("low", [-1, 0])
@pytest.mark.parametrize("kind", [np.int8, np.float32])
def test_codes_in_another_type_are_noted_with_what_to_do(store, capsys, low, kind):
    query = np.where(SKETCHES > 0, 1, low).astype(kind)
    query[:, 0] = 1  # no row of zeros
    status, _, err = run(capsys, store(query=query), "--json")
    assert status == 0 and f"of {low} and 1, taken as real numbers; codes are bool or uint8: store query > 0" in err


def test_unknown_arrays_and_whole_numbers_are_noted_on_the_side(store, capsys):
    query = np.eye(12, 6, dtype=int) + np.eye(12, 6, -6, dtype=int)
    path = store(paths=np.array(["a.png"]), notes=np.array([None]), query=query)
    status, out, err = run(capsys, path, "--json")
    assert status == 0
    assert f"note: {path}: not used: notes, paths" in err
    assert "note: query is int64 of 0 and 1, taken as real numbers" in err
    json.loads(out)


@pytest.mark.parametrize(("options", "message"), [
    (["--json", "--per-class"], "by class go to --csv only; add --csv FILE"),
    (["--ties", "worst", "--tie-draws", "64"], "--ties worst draws none"),
    (["--ties", "gallery-order", "--tie-draws", "32"], "--ties gallery-order draws none"),
])
def test_an_option_that_would_do_nothing_is_an_error(store, capsys, options, message):
    status, out, err = run(capsys, store(), *options)
    assert status == 2 and out == "" and message in err


# ------------------------------------------------------------------------------------------------ the command
def test_help_explains_file_protocols_and_status(capsys):
    explained = {(): ("evaluate FEATURES.npz", "exit status"),
                 ("evaluate",): (*protocols.ALL, "gallery_group", "query_instance", "train", "--json", "exit status")}
    for arguments, words in explained.items():
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--help"])
        assert left.value.code == 0
        out = capsys.readouterr().out
        for word in words:
            assert word in out
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


def test_python_dash_m(store, tmp_path):
    """As a reader runs it: from another folder, standard output holding the object alone. Nothing of networks is imported, which
    would take longer than the scoring."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-X", "importtime", "-m", "tcn", "evaluate", store(extra=np.zeros(1)), "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert numbers(done.stdout) == scores.evaluate(*example().values())
    assert "not used: extra" in done.stderr and "Traceback" not in done.stderr
    assert " tcn.cli.evaluate\n" in done.stderr and not re.search(r" (timm|torchvision|mlflow|tcn\.model)\b", done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_without_a_traceback(store):
    command = [sys.executable, "-m", "tcn", "evaluate", store(), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the result cannot be written: ") and done.stderr.count("\n") == 1
