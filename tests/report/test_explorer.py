"""The data of the report's explorer: the right photos for each query, the right tile for each file,
and a line for what is missing."""
from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image
from support.result_folders import EMOJI_VARIANTS, write_pictures, write_run, write_suite

from reports.figures import frames
from reports.figures.draw_features import CLASS_COLOURS, tsne, tsne_places
from reports.read import pictures
from reports.read.files import ReportError
from reports.read.schema import Task
from reports.read.suite import read_suite
from reports.render import command, explorer
from reports.stats.nearest import nearest
from tcn.scoring import retrieve

EMOJI = Task("emoji", "fixed")
VARIANTS = ("tcn", "nws")


def numbers(text: str, bits: int = 32) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), f"<u{bits // 8}")


def index_of(made: explorer.Explorer) -> dict:
    return json.loads(str(made.index))


def run_data(made: explorer.Explorer, part: str) -> dict:
    return json.loads(str(made.parts[part]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory, whole_fonts) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("suite")
    made = write_suite(root, EMOJI_VARIANTS, seeds=(0, 1), pictures=False)
    write_pictures(root, made["tcn", 0])
    return made


@pytest.fixture
def copied(tmp_path) -> tuple[Path, dict[tuple[str, int], Path]]:
    """A small suite of its own, to be damaged."""
    made = write_suite(tmp_path, VARIANTS, pictures=False)
    write_pictures(tmp_path, made["tcn", 0])
    return tmp_path, made


def root_of(folders: dict[tuple[str, int], Path]) -> Path:
    return folders["tcn", 0].parent.parent


# --- ranks

@pytest.mark.parametrize("queries, photos, most", [(7, 40, 10), (3, 5, 10), (1, 1, 4)])
def test_the_nearest_photos_are_those_of_the_scored_ranking(queries, photos, most):
    rng = np.random.default_rng(5)
    gallery = rng.normal(size=(photos, 6)).astype(np.float32)
    gallery[photos // 2:] = gallery[:photos - photos // 2] * 4  # the same directions again: equal distances, in gallery order
    query = rng.normal(size=(queries, 6)).astype(np.float32)
    found = nearest(query, gallery, most)
    assert found.shape == (queries, min(most, photos))
    length = lambda rows: rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)  # noqa: E731
    distance = np.round(np.linalg.norm(length(query)[:, None] - length(gallery)[None], axis=2), 5)
    assert found.tolist() == np.argsort(distance, axis=1, kind="stable")[:, :most].tolist()
    apart = rng.normal(size=(photos, 6)).astype(np.float32)
    for together in (0, 300):  # features that all point nearly the same way
        moved = query + np.float32(together), np.concatenate([gallery, apart]) + np.float32(together)
        assert (nearest(*moved, most) == retrieve.rank(*moved, most)).all()


def test_blocks_of_queries_give_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    query, gallery = rng.normal(size=(11, 4)), rng.normal(size=(9, 4))
    whole = nearest(query, gallery, 5)
    monkeypatch.setattr("reports.stats.nearest.BLOCK", 20)
    assert (nearest(query, gallery, 5) == whole).all()


def test_each_query_has_the_photos_and_the_precision_of_its_own_run(folders):
    suite = read_suite(root_of(folders))
    made = explorer.build(suite, {}, {})
    (task,) = index_of(made)["tasks"]
    assert [run["name"].split(" ")[0] for run in task["runs"][:6]] == ["TCN", "TCN", "HWS", "HWS", "NWS", "NWS"]
    assert len(task["runs"]) == 2 * len(EMOJI_VARIANTS)
    anchors = {run.anchor: run for run in suite.runs}
    for entry in task["runs"]:
        folder = anchors[entry["anchor"]].folder
        with np.load(folder / "features.npz") as arrays, np.load(folder / "per_query.npz") as values:
            unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (arrays["query"], arrays["gallery"])]
            data = run_data(made, entry["part"])
            ranks = numbers(data["nearest"], data["bits"]).reshape(len(unit[0]), -1)
            for query in range(0, len(unit[0]), 7):
                by_distance = sorted(range(len(unit[1])), key=lambda photo: float(((unit[0][query] - unit[1][photo]) ** 2).sum()))
                assert ranks[query].tolist() == by_distance[:10]
            assert numbers(data["ap"], 16) / 10_000 == pytest.approx(values["real/released/mAP@all"], abs=5e-5)
            names = np.array(task["classes"])
            assert (names[numbers(task["queries"])] == arrays["query_labels"]).all()
            assert (names[numbers(task["photos"])] == arrays["gallery_labels"]).all()


# --- pictures

def test_a_file_is_shown_by_its_own_tile_in_whatever_order_the_sheets_are(copied):
    root, made = copied
    path = root / "pictures" / "emoji-fixed" / "index.json"
    index = json.loads(path.read_text())
    index["queries"].reverse()
    index["photos"][3] = "thing 00/another.png"
    path.write_text(json.dumps(index))
    (task,) = index_of(explorer.build(read_suite(root), {}, {}))["tasks"]
    queries, photos = (numbers(task["sheets"][side]) for side in ("queries", "photos"))
    assert queries.tolist() == list(range(len(queries)))[::-1]
    assert photos.tolist() == [explorer.NONE if at == 3 else len(queries) + at for at in range(len(photos))]


def test_embedded_sheets_are_the_files(copied):
    root, _ = copied
    made = explorer.build(read_suite(root), {}, {})
    sheets = sorted((root / "pictures" / "emoji-fixed").glob("*.webp"))
    assert len(sheets) == 5 and made.files == {}
    assert [base64.b64decode(made.parts[f"sheet-0-{at}"]) for at in range(5)] == [path.read_bytes() for path in sheets]


def test_beyond_the_budget_all_of_it_stands_beside_the_page(copied, monkeypatch):
    root, _ = copied
    inside = explorer.build(read_suite(root), {}, {})
    size = sum(map(len, inside.parts.values()))
    monkeypatch.setattr(explorer, "BUDGET", size - 1)
    made = explorer.build(read_suite(root), {}, {})
    assert made.parts == {} and set(made.files) == {f"pictures/{name}.{'webp' if name[0] == 's' else 'js'}"
                                                    for name in inside.parts}
    script = made.files["pictures/run-0-0.js"].decode()
    assert re.fullmatch(r'tcnQueries\("run-0-0", (\{.*\})\);\n', script)[1] == str(inside.parts["run-0-0"])
    assert index_of(made)["folder"] == "pictures/" and any("pictures/ beside this page" in text for text in made.sentences)
    monkeypatch.setattr(explorer, "BUDGET", size)
    assert explorer.build(read_suite(root), {}, {}).files == {}


def test_a_report_that_no_longer_needs_files_beside_it_removes_them(copied, monkeypatch):
    root, _ = copied
    monkeypatch.setattr(command, "_figures", lambda suite, task, cache: [])
    monkeypatch.setattr(explorer, "BUDGET", 0)
    page = command.render(root, root / "report").read_text()
    assert len(list((root / "report" / "pictures").iterdir())) == 7 and page.split("</head>")[0].count("file:") == 2
    monkeypatch.setattr(explorer, "BUDGET", 10**9)
    page = command.render(root, root / "report").read_text()
    assert not list((root / "report" / "pictures").iterdir()) and "file:" not in page.split("</head>")[0]


@pytest.mark.parametrize("damage, words", [
    (lambda folder: shutil.rmtree(folder), "there is no folder pictures/emoji-fixed"),
    (lambda folder: (folder / "index.json").unlink(), "index.json is missing"),
    (lambda folder: (folder / "index.json").write_text('{"side": 1000000, "columns": 5, "rows": 4, "queries": [], "photos": []}'),
     "side"),
    (lambda folder: (folder / "002.webp").unlink(), "002.webp is missing"),
    (lambda folder: (folder / "002.webp").write_bytes(b"RIFF no picture"), "002.webp can't be read"),
    (lambda folder: Image.new("RGB", (80, 48)).save(folder / "004.webp"), "004.webp has 80 × 48 pixels")])
def test_pictures_that_are_gone_or_damaged_cost_pictures_alone(copied, damage, words):
    root, _ = copied
    damage(root / "pictures" / "emoji-fixed")
    made = explorer.build(read_suite(root), {}, {})
    (task,) = index_of(made)["tasks"]
    assert task["sheets"] is None and len(task["runs"]) == 2
    (line,) = [text for text in made.sentences if "no small pictures" in text]
    assert words in line and any("classes are named instead" in text for text in made.sentences)


def test_pictures_of_other_data_than_the_runs_were_scored_on_are_not_shown(copied):
    root, made = copied
    path = root / "pictures" / "emoji-fixed" / "index.json"
    digest = json.loads((made["tcn", 0] / "provenance.json").read_text())["data_digest"]
    for told, shown in ((digest, True), ("f" * 64, False)):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data_digest": told}))
        made_ = explorer.build(read_suite(root), {}, {})
        assert (index_of(made_)["tasks"][0]["sheets"] is not None) == shown
    assert any("of other data than the runs: SHA-256 ffffffff" in text for text in made_.sentences)


def test_no_picture_is_read_outside_the_results(copied, tmp_path_factory):
    root, _ = copied
    folder = root / "pictures" / "emoji-fixed"
    secret = tmp_path_factory.mktemp("private") / "000.webp"
    shutil.move(folder / "000.webp", secret)
    (folder / "000.webp").symlink_to(secret)
    with pytest.raises(ReportError, match="000.webp is missing"):
        pictures.read_sheets(root, EMOJI)
    shutil.move(folder, secret.parent / "moved")
    folder.symlink_to(secret.parent / "moved")
    with pytest.raises(ReportError, match="no folder"):
        pictures.read_sheets(root, EMOJI)
    with pytest.raises(ReportError, match="no folder"):
        pictures.read_sheets(root, Task("../pictures/emoji", "fixed"))


# --- what can't be looked at

def test_runs_without_features_or_of_other_files_are_named(copied):
    root, folders = copied
    others = write_run(root, "hws", 0, classes=11, pictures=False)
    (folders["nws", 0] / "features.npz").unlink()
    suite = read_suite(root)
    made = explorer.build(suite, {}, {})
    (task,) = index_of(made)["tasks"]
    assert [run["name"] for run in task["runs"]] == ["TCN (soft sharing), seed 0"]
    (line,) = [text for text in made.sentences if "can't be looked at" in text]
    assert "2 runs" in line and others.name in line and folders["nws", 0].name in line


def test_folders_from_before_the_lists_were_kept_say_so_in_one_line(copied):
    root, folders = copied
    for folder in folders.values():
        arrays = dict(np.load(folder / "features.npz"))
        np.savez(folder / "features.npz", **{name: values for name, values in arrays.items() if "paths" not in name})
    made = explorer.build(read_suite(root), {}, {})
    assert str(made.index) == "" and len(made.sentences) == 1 and "2 runs kept no features with their files" in made.sentences[0]


def test_values_of_other_queries_are_not_shown_as_these(copied):
    root, folders = copied
    arrays = dict(np.load(folders["tcn", 0] / "per_query.npz"))
    np.savez(folders["tcn", 0] / "per_query.npz", **{**arrays, "class": np.roll(arrays["class"], 1)})
    suite = read_suite(root)
    made = explorer.build(suite, {}, {})
    assert run_data(made, "run-0-0")["ap"] is None and run_data(made, "run-0-1")["ap"] is not None
    assert any("not those of features.npz" in why for _, why in suite.left_out)


def test_names_from_results_end_no_element_and_hide_no_letter(tmp_path, monkeypatch):
    names = ["</script><script>alert(1)</script>", "a&b\u202etxt", "<!--", *(f"thing {i}" for i in range(6))]
    write_run(tmp_path, "tcn", 0, class_names=names, pictures=False)
    monkeypatch.setattr(command, "_figures", lambda suite, task, cache: [])
    page = command.render(tmp_path, tmp_path / "report").read_text()
    (text,) = re.findall(r'<script type="application/json" id="explorer-index">(.*?)</script>', page)
    assert not set(text) & set("<>&\u202e")
    assert set(json.loads(text)["tasks"][0]["classes"]) == {*(n for n in names if "\u202e" not in n), "a&b[U+202E]txt"}


# --- points of a figure

def test_places_in_the_figure_are_where_its_points_are_drawn(folders, tmp_path):
    """Every coloured photo, looked up in the picture itself."""
    frame = frames.tsne(read_suite(root_of(folders)), EMOJI, tmp_path).frame
    drawn = tsne(frame)
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    places = tsne_places(drawn, frame)
    assert ((places > 0) & (places < 1)).all()
    order = sorted(frame.loc[frame["shown"], "class"].unique())
    right = []
    for (x, y), (_, row) in zip(places, frame.iterrows()):
        if row["shown"] and row["modality"] == "photo":
            pixel = picture[int(y * picture.shape[0]), int(x * picture.shape[1])]
            right.append(np.abs(pixel - to_rgb(CLASS_COLOURS[order.index(row["class"])])).max() < 0.1)
    assert len(right) == 3 * 8 * 5 and np.mean(right) > 0.8  # some are covered by a sketch or a number


def test_a_point_names_the_picture_that_its_features_are_of(folders, tmp_path):
    suite = read_suite(root_of(folders))
    data = frames.tsne(suite, EMOJI, tmp_path)
    places = np.tile(np.linspace(0.1, 0.9, len(data.frame))[:, None], 2)
    (task,) = index_of(explorer.build(suite, {EMOJI: [data]}, {data.name: places}))["tasks"]
    (told,) = task["maps"]
    run = suite.runs_of(EMOJI, "nws")[0]
    with np.load(run.folder / "features.npz") as arrays:
        labels = {1: arrays["gallery_labels"], 0: arrays["query_labels"]}
    photo, number, panel = numbers(told["photo"], 16), numbers(told["number"]), numbers(told["panel"], 16)
    named = np.array(told["classes"])[numbers(told["class"])]
    assert len(photo) == len(data.frame) and told["panels"] == ["NWS (no sharing)", "HWS (hard sharing)", "TCN (soft sharing)"]
    assert all(labels[kind][at] == name for kind, at, name in zip(photo, number, named))
    for kind, size in ((1, len(labels[1])), (0, len(labels[0]))):  # every picture once in each panel
        assert sorted(number[(photo == kind) & (panel == 0)].tolist()) == list(range(size))
    assert told["lists"] == [True] * 3
    assert numbers(told["x"], 16)[0] == 1000 and numbers(told["y"], 16)[-1] == 9000


def test_a_point_of_a_run_with_other_files_of_the_same_classes_shows_none(copied, tmp_path):
    root, made = copied
    path = made["nws", 0] / "features.npz"
    arrays = dict(np.load(path))
    first, second = np.flatnonzero(arrays["query_labels"] == arrays["query_labels"][0])[:2]
    arrays["query_paths"][[first, second]] = arrays["query_paths"][[second, first]]
    np.savez(path, **arrays)
    suite = read_suite(root)
    data = frames.tsne(suite, EMOJI, tmp_path)
    places = np.full((len(data.frame), 2), 0.5)
    (task,) = index_of(explorer.build(suite, {EMOJI: [data]}, {data.name: places}))["tasks"]
    (told,) = task["maps"]
    assert dict(zip(told["panels"], told["lists"])) == {"NWS (no sharing)": False, "TCN (soft sharing)": True}
