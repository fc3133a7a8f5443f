"""The lint of published numbers: each rule on hand-made rows, the arithmetic behind the proofs, the committed file."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reports import lint, published
from reports.read.files import ReportError

HEADER = "table,method,dimension,features,dataset,split,metric,value,source,note"
CITED = "https://example.org/paper"


def file_of(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "numbers.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def row(metric: str, value: object, method: str = "X", dimension: object = 64, features: str = "real", dataset: str = "sketchy",
        split: str = "100/25", source: str = CITED, table: str = "comparison", note: str = "") -> str:
    return f"{table},{method},{dimension},{features},{dataset},{split},{metric},{value},{source},{note}"


def found(folder: Path, *rows: str) -> list[tuple[str, str, int]]:
    return [(f.rule, f.kind, f.line.number) for f in lint.findings(lint.read(file_of(folder, *rows)))]


def test_sound_rows_have_no_findings(tmp_path):
    assert found(tmp_path, row("mAP@all", 0.463), row("Prec@100", 0.58), row("mAP@all", 0.40, features="binary"),
                 row("Prec@100", 0.5, features="binary"), row("mAP@200", 0.5, split="104/21"),
                 row("Prec@200", 0.5, split="104/21"), row("mAP@all", 0.463, source="arXiv:2104.12345")) == []


@pytest.mark.parametrize("value, text", [(46.3, "per cent: 0.463"), (1.01, "per cent"), (-0.2, "outside 0 to 1"),
                                         (463, "outside")])
def test_a_value_outside_its_range_is_a_proof_and_per_cent_is_named(tmp_path, value, text):
    finding, = lint.findings(lint.read(file_of(tmp_path, row("mAP@all", 0.3), row("Prec@100", value))))
    assert (finding.rule, finding.kind, finding.line.number) == ("range", "proof", 3) and text in finding.text
    assert ("per cent" in finding.text) == (1 < value <= 100)


def test_map_above_prec_is_a_proof_where_every_class_is_large_enough(tmp_path):
    assert found(tmp_path, row("mAP@200", "0.600"), row("Prec@200", 0.5)) == [("map-above-prec", "proof", 2)]
    # the smallest gallery class of split 1 has 378 photos: nothing follows for K = 400
    assert found(tmp_path, row("mAP@400", "0.600"), row("Prec@400", 0.5)) == [("map-above-prec", "hint", 2)]
    # nor from two sources, nor across features
    assert found(tmp_path, row("mAP@200", "0.600"), row("Prec@200", "0.500", source="arXiv:2104.12345")) == []
    assert found(tmp_path, row("mAP@200", "0.600"), row("Prec@200", 0.5, features="binary")) == []


def test_map_above_prec_knows_rounding_and_galleries_without_repeats(tmp_path):
    assert found(tmp_path, row("mAP@200", "0.501"), row("Prec@200", "0.500")) == []  # .5005 and .5005 before rounding
    assert found(tmp_path, row("mAP@200", "0.5"), row("Prec@200", "0.4")) == []  # .45 and .45, as far as this source tells
    # ... unless another of its numbers shows that it gives three digits, and zeros were lost
    assert found(tmp_path, row("mAP@200", "0.5"), row("Prec@200", "0.4"), row("mAP@all", "0.463")) == [
        ("map-above-prec", "proof", 2)]
    # split 2: a gallery that counts each photo once has a class of 161, which may lift mAP@200 by up to .0093
    close = (row("mAP@200", "0.508", split="104/21"), row("Prec@200", "0.500", split="104/21"))
    assert found(tmp_path, *close) == [("map-above-prec", "hint", 2)]
    far = (row("mAP@200", "0.515", split="104/21"), row("Prec@200", "0.500", split="104/21"))
    assert found(tmp_path, *far) == [("map-above-prec", "proof", 2)]


def test_precision_at_two_cutoffs_must_fit_together(tmp_path):
    # 60 hits in the first 100 leave 60 to 160 hits in 200 ranks: .30 to .80
    assert found(tmp_path, row("Prec@100", "0.600"), row("Prec@200", "0.250")) == [("prec-cutoffs", "proof", 3)]
    assert ("prec-cutoffs", "proof", 3) in found(tmp_path, row("Prec@100", "0.600"), row("Prec@200", "0.850"))
    assert found(tmp_path, row("Prec@100", "0.600"), row("Prec@200", "0.300")) == []
    assert found(tmp_path, row("Prec@100", "0.600"), row("Prec@200", "0.700")) == [("prec-rises", "hint", 3)]


def test_map_over_the_whole_ranking_holds_that_of_the_first_ranks(tmp_path):
    # the first 200 alone: .8 * 200 / 800 = .2 of mAP@all at least (largest class: 800 photos)
    assert found(tmp_path, row("mAP@200", "0.800"), row("mAP@all", "0.150")) == [("map-all-too-small", "proof", 3)]
    assert found(tmp_path, row("mAP@200", "0.800"), row("mAP@all", "0.210")) == []
    assert found(tmp_path, row("mAP@200", "0.300"), row("mAP@all", "0.900")) == []  # above proves nothing


def test_one_cell_with_two_values_is_named_on_both_sides_and_rounding_is_none(tmp_path):
    other = "10.1109/TPAMI.2021.3123315"
    assert found(tmp_path, row("mAP@all", "0.463"), row("mAP@all", "0.478", source=other)) == [
        ("two-values", "proof", 2), ("two-values", "proof", 3)]
    assert found(tmp_path, row("mAP@all", "0.463"), row("mAP@all", "0.46", source=other)) == []
    assert found(tmp_path, row("mAP@all", "0.463"), row("mAP@all", "0.463")) == [("doubled", "hint", 3)]
    assert found(tmp_path, row("mAP@all", "0.463"), row("mAP@all", "0.463", dimension=512)) == []


def test_codes_better_than_all_features_of_a_method_are_a_hint(tmp_path):
    rows = [row("mAP@all", 0.40), row("mAP@all", 0.50, dimension=512)]
    assert found(tmp_path, *rows, row("mAP@all", 0.55, features="binary")) == [("binary-above-real", "hint", 4)]
    assert found(tmp_path, *rows, row("mAP@all", 0.45, features="binary")) == []


def test_unknown_names_missing_lengths_and_missing_citations_are_hints(tmp_path):
    assert found(tmp_path, row("mAP@all", 0.4, dataset="imagenet")) == [("unknown-name", "hint", 2)]
    assert found(tmp_path, row("mAP@all", 0.4, split="25/100")) == [("unknown-name", "hint", 2)]
    assert found(tmp_path, row("MAP", 0.4)) == [("unknown-name", "hint", 2)]
    assert found(tmp_path, row("mAP@all", 0.4, features="hash")) == [("unknown-name", "hint", 2)]
    assert found(tmp_path, row("mAP@all", 0.4, source="a talk")) == [("no-citation", "hint", 2)]
    assert found(tmp_path, row("mAP@all", 0.4, source="")) == [("no-citation", "hint", 2)]
    assert found(tmp_path, row("mAP@all", 0.4, source="zse-sbir")) == []
    # one finding for all numbers of a row
    assert found(tmp_path, row("mAP@all", 0.4, dimension=""), row("Prec@100", 0.5, dimension="")) == [("no-dimension", "hint", 2)]
    assert found(tmp_path, row("mAP@all", 0.4, table="conflict", note="why")) == [("noted", "hint", 2)]


def test_the_committed_files_findings():
    lines = lint.read(published.FILE)
    assert len(lines) == len(published.facts())
    by_rule: dict[str, set[tuple[str, float]]] = {}
    for f in lint.findings(lines):
        by_rule.setdefault(f"{f.kind} {f.rule}", set()).add((f.line.fact.method, f.line.fact.value))
    assert by_rule["proof map-above-prec"] == {("Doodle2Search", 0.46), ("BDA-SketRet", 0.556), ("frozen DINO S/8", 0.493),
                                               ("CLIP-AT re-implemented", 0.719)}
    assert by_rule["hint prec-rises"] == {("TCN", 0.298)}
    assert {name for name, _ in by_rule["hint noted"]} == {"TCN", "Doodle2Search"}
    assert by_rule["hint other-split"] == {("MARL (MA-ZS-SBIR)", 0.705), ("MARL (MA-ZS-SBIR)", 0.777),
                                           ("CLIP-AT re-implemented", 0.643), ("CLIP-AT re-implemented", 0.708)}
    # no paper of 2023 and later says its feature length in these tables
    later = {p.method for p in published.facts() if p.table == "comparison"
             and p.source in ("clip-at", "splip-table", "sketchfusion-table-1", "clip-prompt")}
    assert {name for name, _ in by_rule["hint no-dimension"]} == later and len(later) == 16
    # nothing else, above all no number out of its range, without a source, or given twice
    assert set(by_rule) == {"proof map-above-prec", "hint prec-rises", "hint noted", "hint no-dimension", "hint other-split"}
    assert {(p.method, p.value) for p in lint.doubtful(lint.findings(lines))} == {
        ("Doodle2Search", 0.46), ("BDA-SketRet", 0.556), ("frozen DINO S/8", 0.493), ("CLIP-AT re-implemented", 0.719),
        ("TCN", 0.298), ("Doodle2Search", 0.369)}


def test_a_row_on_other_classes_keeps_its_column_and_is_a_hint_and_no_proof(tmp_path):
    own = "220/30 on its own 30 classes"
    lines = lint.read(file_of(tmp_path, row("mAP@all", 0.7, dataset="tuberlin", split=own, note="own choice"),
                              row("mAP@all", 0.5, dataset="tuberlin", split="220/30")))
    finding, = lint.findings(lines)  # two values of one method, but on two splits: they contradict nothing
    assert (finding.rule, finding.kind, finding.line.number, finding.text) == ("other-split", "hint", 2, "own choice")
    assert [line.fact.column for line in lines] == ["220/30", "220/30"]
    # classes of which nothing is known have no gallery: what would be a proof on the published split is none here
    assert found(tmp_path, row("mAP@100", 0.7, dataset="tuberlin", split=own),
                 row("Prec@100", 0.5, dataset="tuberlin", split=own)) == [
        ("map-above-prec", "hint", 2), ("other-split", "hint", 2), ("other-split", "hint", 3)]
    assert ("unknown-name", "hint", 2) in found(tmp_path, row("mAP@all", 0.4, split="25/100 not named"))


def test_a_missing_feature_length_is_one_finding_for_all_data_sets_of_a_method(tmp_path, capsys):
    rows = [row("mAP@all", 0.4, dimension=""), row("mAP@200", 0.4, dimension="", split="104/21"),
            row("mAP@all", 0.3, dimension="", method="Y"), row("Prec@200", 0.45, dimension="", split="104/21")]
    first, second = lint.findings(lint.read(file_of(tmp_path, *rows)))
    assert (first.line.number, second.line.number) == (2, 4)
    assert first.text == "feature length missing for 3 numbers on sketchy 100/25, sketchy 104/21"
    assert lint.main([str(tmp_path / "numbers.csv")]) == 1
    assert "no-dimension: X: feature length" in capsys.readouterr().out


@pytest.mark.parametrize("where, plan, repeated", [
    (("sketchy", "100/25"), "sketchy-1", 100), (("sketchy", "104/21"), "sketchy-2", 100),
    (("tuberlin", "220/30"), "tuberlin", 0), (("quickdraw", "80/30"), "quickdraw", 0)])
def test_gallery_sizes_are_those_of_the_committed_lists(where, plan, repeated):
    splits = Path(lint.__file__).parent.parent / "tcn" / "data" / "splits"
    classes = yaml.safe_load((splits / f"{plan}.yaml").read_text(encoding="utf-8"))["classes"]
    unseen = {name: entry for name, entry in classes.items() if entry["role"] == "unseen"}
    photos = {name: entry["photos"] for name, entry in unseen.items()}
    gallery = lint.GALLERIES[where]
    assert (gallery.smallest, gallery.largest) == (min(photos.values()), max(photos.values()))
    assert photos[gallery.smallest_class] == gallery.smallest
    assert gallery.smallest_distinct == gallery.smallest - repeated
    sketches = {name: entry["sketches"] for name, entry in unseen.items()}
    small = {name: (200 - n + repeated) / 200 for name, n in photos.items() if n - repeated < 200}
    by_class = sum(small.values()) / len(unseen)
    by_query = sum(part * sketches[name] for name, part in small.items()) / sum(sketches.values())
    assert gallery.loss_at_200 == pytest.approx(max(by_class, by_query))


def average_precision(hits: list[bool], k: int, relevant: int, interpolated: bool, divisor: str) -> float:
    """AP@K of one ranking, in the slowest way there is."""
    top = hits[:k]
    precision = [sum(top[:i + 1]) / (i + 1) for i in range(len(top))]
    if interpolated:
        precision = [max(precision[i:]) for i in range(len(top))]
    z = {"min": min(k, relevant), "K": k, "hits": max(sum(top), 1)}[divisor]
    return sum(p for p, hit in zip(precision, top) if hit) / z


rankings = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4).map(
    lambda seeds: [np.random.default_rng(s) for s in seeds])


@settings(max_examples=60, deadline=None)
@given(rankings, st.integers(1, 12), st.booleans(), st.booleans())
def test_no_ranking_breaks_the_rules_where_classes_are_large_enough(generators, k, interpolated, steep):
    """Random rankings with R >= K: AP@K <= Prec@K per query and on average, and the two bounds between cut-offs."""
    means, precisions, later, whole, largest = [], [], [], [], 0
    for rng in generators:
        relevant, wrong = k + int(rng.integers(0, 15)), int(rng.integers(0, 40))
        noise = rng.random(relevant + wrong) + np.r_[np.zeros(relevant), np.full(wrong, 0.5 if steep else 0.0)]
        hits = [bool(i < relevant) for i in np.argsort(noise)] + [False] * k
        largest = max(largest, relevant)
        means.append(average_precision(hits, k, relevant, interpolated, "min"))
        precisions.append(sum(hits[:k]) / k)
        later.append(sum(hits[:2 * k]) / (2 * k))
        whole.append(average_precision(hits, len(hits), relevant, interpolated, "min"))
        assert means[-1] <= precisions[-1] + 1e-12
        assert means[-1] >= average_precision(hits, k, relevant, interpolated, "K") - 1e-12
    m, p, q, a = (float(np.mean(values)) for values in (means, precisions, later, whole))
    assert m <= p + 1e-12 and p * k <= q * 2 * k + 1e-9 and q * 2 * k <= p * k + k + 1e-9
    assert a >= m * k / largest - 1e-12
    # and the lint agrees: honest numbers, rounded to three digits, are never called impossible
    facts = [(f"mAP@{k}", m), (f"Prec@{k}", p), (f"Prec@{2 * k}", q), ("mAP@all", a)]
    lines = [lint.PublishedRow(n, published.Published("comparison", "X", "64", "real", "tuberlin", "220/30", metric,
                                                      round(value, 3), "zse-sbir", ""), 0.0005)
             for n, (metric, value) in enumerate(facts)]
    assert not [f for f in lint.findings(lines) if f.kind == "proof"]


def test_the_other_divisor_does_break_the_rule():
    """So the rule is no truism: two hits at the top of four ranks have AP@4 = 1 by `hits`, Prec@4 = 1/2."""
    hits = [True, True, False, False]
    assert average_precision(hits, 4, 5, False, "hits") == 1.0 > sum(hits) / 4 >= average_precision(hits, 4, 5, False, "min")


@pytest.mark.parametrize("rows, message", [
    ([row("mAP@all", "46%")], "line 2, field value: '46%'"), ([row("mAP@all", "nan")], "line 2, field value"),
    ([row("mAP@all", 0.4), row("mAP@all", "")], "line 3, field value: empty"),
    ([row("mAP@all", 0.4, method="")], "line 2, field method"), ([row("mAP@all", 0.4, dimension="64d")], "field dimension"),
    ([row("mAP@all", 0.4) + ",more"], "line 2: more fields")])
def test_what_cant_be_read_is_named_by_line_and_field(tmp_path, capsys, rows, message):
    path = file_of(tmp_path, *rows)
    with pytest.raises(ReportError, match="numbers.csv"):
        lint.read(path)
    assert lint.main([str(path)]) == 2
    assert message in capsys.readouterr().err


def test_exit_status_tells_clean_from_findings_from_a_bad_file(tmp_path, capsys):
    assert lint.main([str(file_of(tmp_path, row("mAP@all", 0.4)))]) == 0
    assert lint.main([str(file_of(tmp_path, row("mAP@all", 40)))]) == 1
    assert "numbers.csv, line 2: proof: range" in capsys.readouterr().out
    assert lint.main([str(tmp_path / "none.csv")]) == 2
    assert lint.main([str(file_of(tmp_path, "X,0.4", header="method,value"))]) == 2
    assert "no column dimension" in capsys.readouterr().err
    # table and note may be missing
    assert lint.main([str(file_of(tmp_path, f"X,64,real,sketchy,100/25,mAP@all,0.4,{CITED}",
                                  header="method,dimension,features,dataset,split,metric,value,source"))]) == 0


def test_the_command_runs_by_itself_on_the_projects_own_list():
    script = Path(lint.__file__)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=script.parent.parent,
                          check=False)
    assert done.returncode == 1 and "Doodle2Search" in done.stdout and "4 findings by proof" in done.stdout


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_published_rows_are_the_same_whatever_editor_saved_them(tmp_path, end):
    source = published.FILE
    text = source.read_text(encoding="utf-8-sig")
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", end).encode())
    assert [row[1:] for row in published.read(tmp_path / "rows.csv")] == [row[1:] for row in published.read(source)]
