"""`tcn compare`: numbers against naive loops, matching of queries, and what can't be compared."""
from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.result_folders import write_run, write_suite
from support.scored_runs import write_scored_run

import tcn.__main__
from benchmarks import compare, console
from tcn.scoring.scores import score

CLASSES = np.array(["ant", "bee", "crab", "deer", "elk", "frog", "gnu", "hen", "ibis"])


def write_features(path: Path, seed: int, noise: float, number: int = 9, paths: bool = False, order: np.ndarray | None = None,
                   queries: int = 4, photos: int = 0) -> dict[str, np.ndarray]:
    """Features of `number` lopsided classes around common centres; more noise retrieves worse."""
    common, own = np.random.default_rng(5), np.random.default_rng(seed)
    centres = common.normal(size=(number, 8))
    q = np.repeat(np.arange(number), common.integers(1, queries, number))
    g = np.repeat(np.arange(number), common.integers(4, 11, number) + photos)
    arrays = {"query": centres[q] + noise * own.normal(size=(len(q), 8)),
              "gallery": centres[g] + noise * own.normal(size=(len(g), 8)),
              "query_labels": CLASSES[:number][q], "gallery_labels": CLASSES[:number][g]}
    if paths:
        arrays["query_paths"] = np.array([f"q{i:03d}.png" for i in range(len(q))])
    if order is not None:
        arrays |= {name: arrays[name][order] for name in ("query", "query_labels", *["query_paths"] * paths)}
    np.savez(path, **arrays)
    return arrays


def average_precisions(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Interpolated AP of every query over the whole gallery, in the slowest way there is."""
    found = []
    unit = {name: arrays[name] / np.linalg.norm(arrays[name], axis=1, keepdims=True) for name in ("query", "gallery")}
    for row, label in zip(unit["query"], arrays["query_labels"]):
        order = np.argsort([float(np.linalg.norm(row - photo)) for photo in unit["gallery"]])
        hits = [bool(arrays["gallery_labels"][i] == label) for i in order]
        precision = [sum(hits[:i + 1]) / (i + 1) for i in range(len(hits))]
        envelope = [max(precision[i:]) for i in range(len(hits))]
        found.append(sum(p for p, hit in zip(envelope, hits) if hit) / sum(hits))
    return np.array(found)


def exact_p(gaps: np.ndarray) -> float:
    """Two-sided sign-flip test by going through all patterns."""
    sums = [abs(sum(s * g for s, g in zip(signs, gaps))) for signs in itertools.product((1, -1), repeat=len(gaps))]
    return sum(value >= abs(sum(gaps)) - 1e-12 for value in sums) / len(sums)


def compared(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert compare.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert compare.main([*map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.splitlines()[-1].startswith("error: ")
    return err


def test_three_files_against_naive_loops(tmp_path, capsys):
    noise = {"good": 0.9, "middle": 1.0, "bad": 2.2}
    ap = {name: average_precisions(write_features(tmp_path / f"{name}.npz", seed, level))
          for seed, (name, level) in enumerate(noise.items())}
    labels = np.load(tmp_path / "good.npz")["query_labels"]
    found = compared(capsys, *(tmp_path / f"{name}.npz" for name in noise), "--metrics", "mAP@all")
    means = {name: np.array([values[labels == c].mean() for c in CLASSES]) for name, values in ap.items()}
    for side in found["sides"]:
        values = side["values"]["mAP@all"]
        assert values["by_class"] == pytest.approx(means[side["name"]].mean())
        assert values["by_query"] == pytest.approx(ap[side["name"]].mean()) != pytest.approx(values["by_class"], abs=1e-4)
    p = {(a, b): exact_p(means[a] - means[b]) for a, b in itertools.combinations(noise, 2)}
    corrected, reached = {}, 0.0
    for place, pair in enumerate(sorted(p, key=lambda pair: p[pair])):  # Holm
        reached = max(reached, min(1.0, (3 - place) * p[pair]))
        corrected[pair] = reached
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == list(p)
    for pair in found["pairs"]:
        names = pair["first"], pair["second"]
        gaps = ap[names[0]] - ap[names[1]]
        assert pair["comparison"]["difference"] == pytest.approx((means[names[0]] - means[names[1]]).mean())
        assert pair["comparison"]["p_classes"] == pytest.approx(p[names]) and pair["p"] == pytest.approx(corrected[names])
        assert pair["significant"] == (corrected[names] < 0.05)
        assert (pair["above"], pair["below"], pair["queries"]) == ((gaps > 1e-12).sum(), (gaps < -1e-12).sum(), len(labels))
        assert pair["of_queries"] == pytest.approx(gaps.mean())
        own = next(c for c in pair["classes"] if c["name"] == "crab")
        assert ((own["queries"], own["first"] - own["second"])
                == ((labels == "crab").sum(), pytest.approx(gaps[labels == "crab"].mean())))
    assert [pair["significant"] for pair in found["pairs"]] == [False, True, True]
    assert found["unit"] == "class" and "not by query" in found["why"]


def test_marks_name_the_sides_that_one_is_significantly_above(tmp_path, capsys):
    for seed, (name, level) in enumerate({"bad": 2.2, "good": 0.9, "middle": 1.0}.items()):
        write_features(tmp_path / f"{name}.npz", seed, level)
    files = [str(tmp_path / f"{name}.npz") for name in ("bad", "good", "middle")]
    assert compare.main([*files, "--metrics", "mAP@all"]) == 0
    text = capsys.readouterr().out
    marks = {line.split()[1]: line.split()[3][6:] for line in text.splitlines() if line.startswith(("  a  ", "  b  ", "  c  "))}
    assert marks == {"bad": "", "good": "ᵃ", "middle": "ᵃ"}
    assert "Significance is by class, not by query" in text and "One seed a side" in text
    assert compare.main([*files, "--metrics", "mAP@all", "--latex", "--per-class"]) == 0
    tex = capsys.readouterr().out
    assert (tex.count("$^{a}$") == 2 and "$^{b}$" not in tex
            and tex.count("\\begin{table*}") + tex.count("\\begin{longtable}") == 3)


def test_many_queries_of_few_classes_are_no_evidence(tmp_path, capsys):
    """What a test over queries would call beyond doubt, and five classes cannot tell."""
    for seed, (name, level) in enumerate({"a": 0.9, "b": 2.0}.items()):
        write_features(tmp_path / f"{name}.npz", seed, level, number=5, queries=80)
    pair, = compared(capsys, tmp_path / "a.npz", tmp_path / "b.npz", "--metrics", "mAP@all")["pairs"]
    assert pair["low"] > 0 and pair["above"] > 3 * pair["below"] and pair["comparison"]["share"] == 1.0
    assert pair["p"] == 2 / 2**5 and not pair["significant"]
    assert compare.main([str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--metrics", "mAP@all"]) == 0
    assert "Over 5 classes no corrected test of 1 can fall below 0.05" in " ".join(capsys.readouterr().out.split())


def test_queries_are_matched_by_name_where_both_files_have_names(tmp_path, capsys):
    first = write_features(tmp_path / "a.npz", 0, 0.9, paths=True)
    write_features(tmp_path / "b.npz", 1, 1.5, paths=True)
    shuffled = np.random.default_rng(9).permutation(len(first["query"]))
    write_features(tmp_path / "c.npz", 1, 1.5, paths=True, order=shuffled)
    write_features(tmp_path / "d.npz", 1, 1.5, order=shuffled)
    pairs = [compared(capsys, tmp_path / "a.npz", f"other={tmp_path / name}")["pairs"] for name in ("b.npz", "c.npz")]
    for straight, matched in zip(*pairs):
        for name in ("difference", "effect", "share", "p_classes"):
            assert matched["comparison"][name] == pytest.approx(straight["comparison"][name])
        assert matched["low"] == pytest.approx(straight["low"])
    assert "is of another class" in refused(capsys, tmp_path / "a.npz", tmp_path / "d.npz")
    write_features(tmp_path / "e.npz", 1, 1.5, paths=True, order=np.arange(len(first["query"]) - 2))
    assert "it lacks 2 (q0" in refused(capsys, tmp_path / "a.npz", tmp_path / "e.npz")


def test_runs_of_one_variant_are_seeds_of_one_side(tmp_path, capsys):
    folders = write_suite(tmp_path, ("tcn", "hws"), seeds=(0, 1, 3), class_spread=0.4)
    folders["tcn", 4] = write_run(tmp_path, "tcn", 4)
    found = compared(capsys, *folders.values(), "--metrics", "mAP@all")
    assert {side["name"]: side["seeds"] for side in found["sides"]} == {"tcn": [0, 1, 3, 4], "hws": [0, 1, 3]}
    pair, = found["pairs"]
    assert pair["comparison"]["seeds"] == 3  # those that both have
    values = {}
    for name in ("tcn", "hws"):
        each = []
        for seed in (0, 1, 3):
            with np.load(folders[name, seed] / "per_query.npz") as arrays:
                own, kinds = arrays["real/released/mAP@all"], arrays["class"]
                each.append([own[kinds == c].mean() for c in sorted(set(kinds.tolist()))])
        values[name] = np.array(each)
    gaps = values["tcn"] - values["hws"]
    assert pair["comparison"]["difference"] == pytest.approx(gaps.mean())
    assert pair["comparison"]["p_seeds"] == pytest.approx(exact_p(gaps.mean(1)))


def test_what_can_not_be_compared_is_named(tmp_path, capsys):
    write_features(tmp_path / "a.npz", 0, 0.9)
    write_features(tmp_path / "b.npz", 1, 0.9)
    write_features(tmp_path / "more.npz", 1, 0.9, photos=3)
    write_features(tmp_path / "fewer.npz", 1, 0.9, number=7)
    assert ("do not have the same gallery: other numbers of photos of ant"
            in refused(capsys, tmp_path / "a.npz", tmp_path / "more.npz"))
    assert "not of the same queries" in refused(capsys, tmp_path / "a.npz", tmp_path / "fewer.npz")
    assert "are both 'x', seed 0" in refused(capsys, f"x={tmp_path / 'a.npz'}", f"x={tmp_path / 'b.npz'}")
    assert "1 side(s) to compare" in refused(capsys, tmp_path / "a.npz")
    assert "none.npz: no such file" in refused(capsys, tmp_path / "a.npz", tmp_path / "none.npz")
    assert "cvpr19 has no mAP@all" in refused(capsys, tmp_path / "a.npz", tmp_path / "b.npz", "--protocol", "cvpr19")
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--metrics", "map"])
    assert "'map' is no metric" in capsys.readouterr().err
    folder = write_run(tmp_path, "tcn", 0)
    assert "holds no real/released/mAP@7; it holds" in refused(capsys, folder, tmp_path / "a.npz", "--metrics", "mAP@7")
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "state": "failed", "reason": "no memory"}))
    assert "not finished (no memory)" in refused(capsys, folder, tmp_path / "a.npz")


def test_each_option_of_files_decides_their_values_and_is_an_error_beside_a_run(tmp_path, capsys):
    arrays = {name: write_features(tmp_path / f"{name}.npz", seed, 0.9 + seed) for seed, name in enumerate("ab")}
    labels, gallery = arrays["a"]["query_labels"], arrays["a"]["gallery_labels"]
    group = np.arange(len(gallery))
    group[gallery == "bee"] = group[gallery == "bee"][0]  # one photo, listed often
    twice = np.where((gallery == "ant") & (np.arange(len(gallery)) % 2 == 0), "Ant", gallery)
    lost = np.where(gallery == "ibis", "hen", gallery)
    folder = write_run(tmp_path, "tcn", 0)
    for option, values, changed in (("duplicates", ("as-published", "distinct"), {"gallery_group": group}),
                                    ("spellings", ("merge", "as-given"), {"gallery_labels": twice}),
                                    ("missing_classes", ("zero", "as-released"), {"gallery_labels": lost})):
        own = {name: {**its, **changed} for name, its in arrays.items()}
        for name, its in own.items():
            np.savez(tmp_path / f"{name}.npz", **its)
        flag, means = f"--{option.replace('_', '-')}", []
        for value in values:
            found = compared(capsys, tmp_path / "a.npz", tmp_path / "b.npz", "--metrics", "mAP@all", flag, value)
            means.append([side["values"]["mAP@all"]["by_query"] for side in found["sides"]])
            expected = [score(its["query"], its["gallery"], its["query_labels"], its["gallery_labels"], ["released"],
                              gallery_group=its.get("gallery_group"), **{option: value}).per_query("released", "mAP@all")
                        for its in own.values()]
            counted = labels != "ibis" if value == "as-released" else np.ones(len(labels), bool)
            assert means[-1] == pytest.approx([each[counted].mean() for each in expected])
        assert abs(means[0][0] - means[1][0]) > 1e-3
        assert f"{flag}: {folder} is a run" in refused(capsys, folder, tmp_path / "a.npz", flag, values[0])
        if option != "duplicates":  # without a choice, both are errors
            assert flag in refused(capsys, tmp_path / "a.npz", tmp_path / "b.npz")


def test_values_under_two_rules_for_ties_are_not_compared(tmp_path, capsys):
    """Codes tie by the hundred, so that a run scored as released differs from the same features scored now."""
    plain, other = (write_scored_run(tmp_path / rule, settings={"evaluation.ties": rule})
                    for rule in ("expected", "unstable-sort"))
    for sides in ((f"a={plain}", f"b={other}"), (other, f"now={plain / 'features.npz'}")):
        said = refused(capsys, *sides)
        assert "evaluation.ties=" in said and "unstable-sort" in said and "Give the features.npz" in said
    found = compared(capsys, f"a={plain}", f"now={plain / 'features.npz'}", "--metrics", "mAP@all")
    assert [side["name"] for side in found["sides"]] == ["a", "now"]
    compared(capsys, f"a={plain / 'features.npz'}", f"b={other / 'features.npz'}", "--metrics", "mAP@all")


def test_features_are_a_run_s_and_files_hold_such_or_are_named(tmp_path, capsys):
    folders = [write_run(tmp_path, name, 0) for name in ("tcn", "hws")]
    for kind in ("real", "binary"):
        found = compared(capsys, *folders, "--metrics", "mAP@all", "--features", kind)
        for side, folder in zip(found["sides"], folders):
            with np.load(folder / "per_query.npz") as kept:
                assert side["values"]["mAP@all"]["by_query"] == pytest.approx(kept[f"{kind}/released/mAP@all"].mean())
    real = write_features(tmp_path / "a.npz", 0, 0.9)
    np.savez(tmp_path / "codes.npz", **{**real, "query": real["query"] > 0, "gallery": real["gallery"] > 0})
    for asked, fits, other in (("binary", "codes", "a"), ("real", "a", "codes")):
        compared(capsys, f"x={tmp_path / fits}.npz", f"y={tmp_path / fits}.npz", "--features", asked)
        said = refused(capsys, f"x={tmp_path / fits}.npz", f"y={tmp_path / other}.npz", "--features", asked)
        assert f"{tmp_path / other}.npz: --features {asked} chooses among a run's features" in said


def test_what_evaluate_says_of_a_file_is_said_here_too(tmp_path, capsys):
    write_features(tmp_path / "a.npz", 0, 1.0, paths=True)
    arrays = write_features(tmp_path / "b.npz", 1, 1.0, paths=True)
    assert not compare.main([str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]) and capsys.readouterr().err == ""
    arrays["gallery"][1:3] = arrays["gallery"][0]
    np.savez(tmp_path / "b.npz", **arrays, remarks=np.arange(3))
    assert compare.main([str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]) == 0
    said = capsys.readouterr().err
    assert f"note: {tmp_path / 'b.npz'}: not used: remarks\n" in said and "a.npz" not in said
    assert f"note: {tmp_path / 'b.npz'}: 2 gallery entries are identical to an earlier one; if they are one photo" in said
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", **arrays, gallery_group=np.arange(len(arrays["gallery"])) % 7)
    assert compare.main([str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--duplicates", "distinct"]) == 0
    said = capsys.readouterr().err
    assert said.count("7 group(s) of gallery_group hold photos of several classes") == 2 and "identical" not in said


def test_the_commands_that_lead_there(tmp_path, capsys):
    write_features(tmp_path / "a.npz", 0, 0.9)
    write_features(tmp_path / "b.npz", 1, 0.9)
    assert console.main(["compare", str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]) == 0
    assert "Pair by pair" in capsys.readouterr().out
    assert tcn.__main__.main(["compare", str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]) == 0
    assert "Pair by pair" in capsys.readouterr().out
