"""Draw and search: what runs find for a drawing or a query sketch, and what the page's server lets through."""
from __future__ import annotations

import base64
import io
import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.browser import Browser, installed
from support.small_suite import ONE, common, places, run_folders

from baselines import VARIANTS
from benchmarks import run_all
from benchmarks.demo import answers, command, drawing, found, pictures, strip
from benchmarks.demo.answers import EVERY, FOLDER, UNSEEN, Demo, nearest
from benchmarks.material import Material, Places
from benchmarks.store import RunFolder
from tcn.config import InputError
from tcn.data.splits import Files
from tcn.data.store import pack
from tcn.data.strokes import rasterise
from tcn.data.words import normal_form

HOOK = [[[10, 10, 200, 260], [300, 20, 20, 90]], [[150], [150]]]
"""A hook and a dot inside it."""


@pytest.fixture(scope="module")
def suite(place) -> Path:
    output = place / "shown"
    assert run_all.main([*common(place), "evaluation.photo_side=sketch", *ONE, "--variants", "nws", "untrained-svd-permodality",
                         "--output", str(output), "--no-report"]) == 0
    return output


@pytest.fixture(scope="module")
def own_photos(place) -> Path:
    """Seven photos of the data set in folders of other names, a file that is no picture, and a hidden one."""
    source, target = place / "data" / "QuickDraw" / "QuickDraw_images_final", place / "holiday"
    every = sorted(path for path in source.rglob("*") if path.is_file())[::9][:7]
    (target / "deep" / "er").mkdir(parents=True)
    for number, path in enumerate(every):
        shutil.copy(path, target / ("deep/er" if number % 2 else ".") / f"{9 - number}{path.suffix}")
    (target / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (target / ".hidden.jpg").write_bytes(b"no picture")
    return target


def material(place: Path) -> Material:
    return Material(Places(place / "cache", place / "data", place / "words.csv", place / "weights.pth", place / "weights.pth",
                           progress=False))


def opened(place: Path, suite: Path, *variants: str, **more) -> Demo:
    folders = [RunFolder.read(run_folders(suite)[f"quickdraw-1__{name}__seed3"])
               for name in variants or ("nws", "untrained-svd-permodality")]
    return Demo(folders, material(place), torch.device("cpu"), **more)


@pytest.fixture(scope="module")
def demo(place, suite, own_photos) -> Demo:
    return opened(place, suite, gallery=own_photos, seen=True)


# --- the picture

def test_a_drawing_is_what_the_cache_would_keep_of_its_picture(tmp_path):
    """At the size that is drawn, a smaller and a larger one: as a file that any run reads."""
    picture = drawing.picture_of(HOOK)
    assert picture.shape == (256, 256) and picture.min() == 0 and picture[:23].min() == 255 == picture[:, :23].min()
    Image.fromarray(picture).save(tmp_path / "one.png")
    for size in (256, 64, 300):
        kept = pack(Files(tmp_path, ("one.png",), np.zeros(1, np.int64), ("",)), size, tmp_path / "cache", "d", "d", False)
        assert (np.asarray(drawing.pixels_of(picture, size).array) == np.asarray(kept.array)).all()


def test_where_and_how_large_one_draws_makes_no_difference():
    larger = [[[7000 + 40 * x for x in xs], [-900 + 40 * y for y in ys]] for xs, ys in HOOK]
    assert (drawing.picture_of(larger) == drawing.picture_of(HOOK)).all()
    assert (drawing.picture_of([[ys, xs] for xs, ys in HOOK]) != drawing.picture_of(HOOK)).any()


@pytest.mark.parametrize("strokes, words", [
    ([], "canvas is empty: draw something"), ([[[30], [40]]], "single dot: draw lines"),
    ([[[30, 32, 33], [40, 41, 40]]], "single dot"), ([[[1, 1e9], [1, 2]]], "coordinates must be numbers within"),
    ([[[1, float("nan")], [1, 2]]], "number"), ([[list(range(60_000))] * 2], "more than 50,000 points: clear the canvas"),
    ("a house", "must be a list of strokes"), (None, "must be a list"), ([[[1, 2], [1]]], "must be equally many"),
    ([[]], "a list of x and a list of y"), ([[["1", "2"], [1, 2]]], "numbers")])
def test_what_is_no_drawing_gets_a_sentence(strokes, words):
    with pytest.raises(InputError, match=words):
        drawing.picture_of(strokes)


# --- the ranking

def test_the_nearest_come_first_and_equal_ones_in_gallery_order():
    rng = np.random.default_rng(5)
    gallery = rng.normal(size=(37, 6))
    gallery[[3, 20, 30]] = gallery[11]
    gallery = (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).astype(np.float32)
    query = (gallery[11] * 7 + 0.01 * rng.normal(size=6)).astype(np.float32)
    order, distances = nearest(query, gallery, len(gallery))
    naive = [float(np.sqrt(sum((a - b) ** 2 for a, b in zip(row.astype(float), query / np.linalg.norm(query)))))
             for row in gallery]
    assert distances == pytest.approx(naive, abs=2e-4)
    assert order[:4].tolist() == [3, 11, 20, 30] and (np.diff(distances[order]) >= 0).all()
    for top in (1, 2, 3, 5, 36, 99):  # among others where equal ones are cut in two
        assert nearest(query, gallery, top)[0].tolist() == order[:top].tolist()
    for right in ([20, 30], [11, 36], [int(order[30]), int(order[9])], range(37)):
        marked = np.isin(np.arange(37), list(right))
        assert answers.rank_of_first(distances, marked) == 1 + next(i for i, place in enumerate(order) if marked[place])
    assert answers.rank_of_first(distances, np.zeros(37, bool)) is None


@pytest.mark.parametrize("variant", [0, 1])
def test_a_query_finds_what_the_run_was_scored_on(demo, suite, variant):
    """Against the saved features by a plain loop; the second run's are standardised, and were saved so."""
    run = demo.runs[variant]
    data = np.load(run_folders(suite)[f"quickdraw-1__{run.run.variant}__seed3"] / "features.npz")
    unit = {name: data[name].astype(float) / np.linalg.norm(data[name].astype(float), axis=1, keepdims=True)
            for name in ("query", "gallery")}
    for number in (0, 41, 80):
        wanted, (answer,) = demo.query(0, number, [variant], UNSEEN, top=9)
        assert wanted == data["query_labels"][number] and answer.run == variant and answer.searched == len(data["gallery"])
        distances = np.linalg.norm(unit["gallery"] - unit["query"][number], axis=1)
        assert [one["distance"] for one in answer.photos] == pytest.approx(sorted(distances)[:9], abs=1e-3)
        for one in answer.photos:
            name = data["gallery_labels"][one["number"]]
            assert distances[one["number"]] == pytest.approx(one["distance"], abs=1e-3)
            assert (one["name"], one["right"], one["seen"]) == (name, name == wanted, False)
        nearer = distances < distances[data["gallery_labels"] == wanted].min() - 1e-6
        assert answer.first_right == nearer.sum() + 1
        files = demo.sets[answer.photos[0]["set"]].files
        assert files.paths[answer.photos[0]["number"]] == data["gallery_paths"][answer.photos[0]["number"]]


def test_a_drawing_is_encoded_as_a_query_of_the_same_strokes(place, suite, demo):
    """The picture as a file through the cache, through the reopened network, as the run's own queries go."""
    picture, (first, second) = demo.draw(HOOK, [0, 1], UNSEEN)
    assert (picture == rasterise([np.array(stroke, float).T for stroke in HOOK])).all()
    for run, answer in zip(demo.runs, (first, second)):
        order, distances = nearest(run.encode(picture), run.scored, 12)
        assert [one["number"] for one in answer.photos] == order.tolist()
        assert all(one["right"] is None for one in answer.photos) and answer.first_right is None
        assert answer.milliseconds > 0
    assert [one["number"] for one in first.photos] != [one["number"] for one in second.photos]


def test_a_named_drawing_is_marked_and_an_unknown_name_is_not(demo):
    wanted = "windmill"
    _, (answer,) = demo.draw(HOOK, [0], UNSEEN, top=60, wanted=wanted)
    assert [one["right"] for one in answer.photos] == [one["name"] == wanted for one in answer.photos]
    assert answer.first_right == 1 + next(i for i, one in enumerate(answer.photos) if one["right"])
    _, (answer,) = demo.draw(HOOK, [0], UNSEEN, wanted="dragonfly of glass")
    assert answer.photos[0]["right"] is None and answer.first_right is None


def test_seen_classes_can_be_searched_and_told_apart(demo, place):
    split = material(place).split("quickdraw", "1")
    assert demo.galleries == [UNSEEN, EVERY, FOLDER]
    _, (answer,) = demo.draw(HOOK, [0], EVERY, top=100)
    assert answer.searched == len(split.gallery) + len(split.train_photos)
    assert {one["seen"] for one in answer.photos} == {True, False}
    assert all(one["seen"] == (one["name"] in split.seen) for one in answer.photos)
    (task,) = demo.state()["tasks"]
    assert task["seen"] == sorted(split.seen) and {one["name"] for one in task["classes"]} == set(split.unseen)
    _, (named,) = demo.draw(HOOK, [0], EVERY, wanted=split.seen[3])
    _, (other,) = demo.draw(HOOK, [0], UNSEEN, wanted=split.seen[3])
    assert named.first_right and other.first_right is None
    files = demo.sets[answer.photos[0]["set"]].files
    assert all(normal_form(Path(files.paths[one["number"]]).parent.name) == normal_form(one["name"]) for one in answer.photos)


@pytest.fixture(scope="module")
def own_method(place) -> Demo:
    """A run of a method of one's own, scored on photos of seen classes too."""
    output = place / "own-method"
    assert run_all.main([*common(place), *ONE, "--variants", str(Path(__file__).parents[2] / "examples" / "own_loss.py"),
                         "--generalised", "--output", str(output), "--no-report"]) == 0
    (folder,) = run_folders(output).values()
    return Demo([RunFolder.read(folder)], material(place), torch.device("cpu"), seen=True)


def test_a_run_of_a_method_of_ones_own_is_named_by_its_title(own_method, demo):
    (run,) = own_method.state()["runs"]
    assert (run["variant"], run["title"]) == ("info-nce", "InfoNCE across modalities")
    assert [one["title"] for one in demo.state()["runs"]] == [VARIANTS[one.run.variant].title for one in demo.runs]


def test_each_photo_stands_once_where_the_scored_ones_hold_those_of_training(own_method, demo, place):
    split = material(place).split("quickdraw-generalised", "1")
    every = {*split.gallery.paths, *split.train_photos.paths}
    _, (answer,) = own_method.draw(HOOK, [0], EVERY, top=100)
    paths = own_method.sets[answer.photos[0]["set"]].files.paths
    assert answer.searched == len(paths) == len(every) == len(split.gallery) and set(paths) == every
    assert own_method.state()["generalised"] and not demo.state()["generalised"]


# --- a folder of one's own

def test_a_folder_is_searched_without_what_cannot_be_read(demo, own_photos):
    (note,) = demo.notes
    assert note.startswith("1 of 8 photos in the gallery folder") and "broken.jpg" in note
    _, (answer,) = demo.draw(HOOK, [0], FOLDER, wanted="windmill")
    files = demo.sets[answer.photos[0]["set"]].files
    assert answer.searched == 7 and sorted(files.paths[one["number"]] for one in answer.photos) == sorted(
        path for path in files.paths if path != "broken.jpg")
    assert all((one["name"], one["seen"], one["right"]) == (None, None, None) for one in answer.photos)


def test_the_gallery_as_a_folder_has_the_features_that_were_scored(demo, place):
    """One run reads photos from the sketches' output of the embedding, the other standardises them as photos."""
    split = material(place).split("quickdraw", "1")
    for run in demo.runs:
        rows, features, broken = run.encode_folder(pictures.PictureSet(split.gallery), "the gallery")
        assert rows.tolist() == list(range(60)) and not broken
        assert features == pytest.approx(run.scored, abs=1e-4)
        trained = run.encode_folder(pictures.PictureSet(split.train_photos), "photos of the seen classes")[1]
        assert run.encode_trained() == pytest.approx(trained, abs=1e-4)


def test_a_folder_is_encoded_once_and_anew_when_it_changes(place, suite, own_photos, tmp_path, monkeypatch):
    shutil.copytree(own_photos, tmp_path / "own")
    decoded = []
    real = answers.decode
    monkeypatch.setattr(answers, "decode", lambda path, *rest: decoded.append(path.name) or real(path, *rest))

    def answer() -> list[float]:
        found = opened(place, suite, "nws", gallery=tmp_path / "own")
        return [one["distance"] for one in found.draw(HOOK, [0], FOLDER)[1][0].photos]

    first = answer()
    decoded.clear()
    assert answer() == first and not decoded, "the same contents elsewhere, or again, are in the cache"
    names = sorted(path.name for path in (tmp_path / "own" / "deep" / "er").iterdir())
    Image.new("RGB", (40, 30), "red").save(tmp_path / "own" / "deep" / "er" / names[0], "PNG")
    assert answer() != first and len(decoded) == 8
    kept = max((place / "cache" / "galleries").glob("nws-*.npz"), key=lambda path: path.stat().st_mtime_ns)
    kept.write_bytes(kept.read_bytes()[:99])
    decoded.clear()
    assert len(answer()) == 7 and len(decoded) == 8, "a damaged file is made anew"


def test_folders_without_a_photo_are_refused(place, suite, tmp_path):
    with pytest.raises(InputError, match="is no folder; give a folder of photos"):
        pictures.photos_below(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(InputError, match="holds no photo"):
        pictures.photos_below(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 1 photos .* a.jpg \(0 bytes\); replace them"):
        opened(place, suite, "nws", gallery=tmp_path)


# --- requests that can't be answered

def test_bad_questions_get_a_sentence(demo):
    for ask, words in ((lambda: demo.draw(HOOK, [], UNSEEN), "tick at least one"),
                       (lambda: demo.draw(HOOK, [2], UNSEEN), "load the page"),
                       (lambda: demo.draw(HOOK, [-1], UNSEEN), "load the page"),
                       (lambda: demo.draw(HOOK, [0], "mine"), "load the page"),
                       (lambda: demo.query(1, 0, [0], UNSEEN), "no such query"),
                       (lambda: demo.query(0, 10**6, [0], UNSEEN), "no such"),
                       (lambda: demo.query(0, -1, [0], UNSEEN), "no such query")):
        with pytest.raises(InputError, match=words):
            ask()


def test_a_damaged_run_or_other_weights_are_refused(place, suite, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(suite, copy, ignore=shutil.ignore_patterns("mlflow*", "mlartifacts", "SHA256SUMS", "cross-dataset"))
    folder = run_folders(copy)["quickdraw-1__nws__seed3"]
    arrays = dict(np.load(folder / "features.npz"))
    np.savez(folder / "features.npz", **{**arrays, "query": arrays["query"][::-1]})
    words = f"{folder.name} can't be used: .*gives other features than its features.npz holds"
    with pytest.raises(InputError, match=words):
        opened(place, copy, "nws")
    others = opened(place, copy)
    assert [run.run.variant for run in others.runs] == ["untrained-svd-permodality"] and len(others.tasks) == 1
    (note,) = others.notes
    assert re.match(words, note)


def test_pictures_that_would_have_to_be_built_are_asked_for(place, suite, monkeypatch):
    """A page that promises to ask nobody must not begin with a download."""
    monkeypatch.setattr(Material, "is_built", lambda self, dataset: dataset != "quickdraw")
    with pytest.raises(InputError, match="the pictures of 'quickdraw' are not in .*pass the --cache"):
        opened(place, suite, "nws")


def test_who_draws_for_pictograms_is_warned():
    assert "filled pictograms" in answers.note_on("emoji") and answers.note_on("sketchy") == answers.note_on("quickdraw") == ""


def test_the_first_runs_are_each_seed_in_the_order_of_the_variants():
    class PlannedRun:
        def __init__(self, variant, seed):
            self.variant, self.seed = variant, seed

    class Folder:
        def __init__(self, *one_run):
            self.run = PlannedRun(*one_run)

    every = [Folder("nws", 1), Folder("nws", 0), Folder("tcn", 1), Folder("hws", 0), Folder("tcn", 0)]
    assert ([(one.run.variant, one.run.seed) for one in command.chosen(every, 4)]
            == [("tcn", 0), ("hws", 0), ("nws", 0), ("tcn", 1)])


def test_the_command_says_what_is_missing(place, suite, tmp_path, capsys):
    def refused(*arguments: object) -> str:
        assert command.main([*places(place), "--port", "0", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "no finished run; give the folder of one" in refused(tmp_path)
    assert "--threads 0" in refused(suite, "--threads", 0)
    assert "--port 70000" in refused(suite, "--port", 70000)
    assert "is no folder" in refused(suite, "--most", 1, "--gallery", tmp_path / "none")


# --- the measurement

def test_drawings_are_taken_class_by_class_by_key(tmp_path):
    lines = [{"word": word, "recognized": key % 2 == 0, "key_id": str(key), "drawing": [[[0, 9 * key, 50], [0, 40, key]]]}
             for word, keys in (("bat", (5, 3, 9)), ("tree", (1,)), ("airplane", (2, 4))) for key in keys]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, lines)))
    assert [(name, one.key) for name, one in found.taken([tmp_path], ["tree", "bat"], "quickdraw", 3)] == [
        ("bat", 3), ("tree", 1), ("bat", 5)]
    with pytest.raises(InputError, match="no drawing of an unseen class"):
        found.taken([tmp_path], ["windmill"], "quickdraw", 3)


def test_the_measure_is_the_share_of_right_photos_among_five(demo, suite, tmp_path):
    lines = [{"word": word, "recognized": True, "key_id": str(key), "drawing": [[[0, 9 * key, 50], [0, 40, key]]]}
             for word in ("bat", "windmill", "airplane") for key in range(1, 4)]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, lines)))
    first, _ = found.measure(demo, [tmp_path], 5)
    assert (first.drawings, first.classes, first.photos) == (5, ("bat", "windmill"), 60)
    expected = []
    for word, key in (("bat", 1), ("windmill", 1), ("bat", 2), ("windmill", 2), ("bat", 3)):
        _, (answer,) = demo.draw([[[0, 9 * key, 50], [0, 40, key]]], [0], UNSEEN, top=5)
        expected.append(np.mean([one["name"] == word for one in answer.photos]))
    assert first.drawn == pytest.approx(np.mean(expected))
    data = np.load(run_folders(suite)["quickdraw-1__nws__seed3"] / "features.npz")
    q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (data["query"].astype(float), data["gallery"].astype(float)))
    own = [np.mean(data["gallery_labels"][np.argsort(((g - q[i]) ** 2).sum(1), kind="stable")[:5]] == name)
           for i, name in enumerate(data["query_labels"]) if name in ("bat", "windmill")]
    assert (first.sketches, first.own) == (len(own), pytest.approx(np.mean(own)))
    assert first.chance == pytest.approx(np.mean([np.mean(data["gallery_labels"] == name) for name in ("bat", "windmill")]))


def test_the_strip_shows_what_the_page_finds_as_a_drawing_grows(demo, tmp_path):
    corners = [[[0, 90], [0, 0]], [[90, 90], [0, 70]], [[90, 10], [70, 60]], [[10, 0], [60, 0]]]
    (tmp_path / "a.ndjson").write_text("\n".join(json.dumps({"word": word, "recognized": True, "key_id": key, "drawing": corners})
                                                for word, key in (("bat", "1"), ("windmill", "1"), ("bat", "2"))))
    picture, names = strip.strip(demo, [tmp_path / "a.ndjson"], 2)
    assert names == ["bat", "windmill"]
    top = 22
    for drawn in (2, 3, 4):  # strokes of the first drawing, in thirds
        _, (answer,) = demo.draw(corners[:drawn], [0], UNSEEN, top=strip.PHOTOS, wanted="bat")
        for place, photo in enumerate(answer.photos):
            left = 3 * strip.GAP + strip.TILE + place * (strip.TILE + strip.GAP)
            red, green, _ = picture.getpixel((left + 1, top + 40))
            assert (green > red) == photo["right"]
            with Image.open(io.BytesIO(demo.sets[photo["set"]].thumbnail(photo["number"]))) as found:
                wanted = np.asarray(found.convert("RGB").resize((strip.TILE, strip.TILE)), float)[8:-8, 8:-8]
            tile = np.asarray(picture, float)[top + 8:top + strip.TILE - 8, left + 8:left + strip.TILE - 8]
            assert (tile == wanted).all()
        top += strip.TILE + strip.GAP
    assert picture.height == 2 * 22 + 6 * (strip.TILE + strip.GAP)


# --- over HTTP

@pytest.fixture(scope="module")
def client(demo):
    pytest.importorskip("fastapi", reason="the extra 'demo' is not installed")
    testclient = pytest.importorskip("starlette.testclient", reason="starlette's client for tests is not installed")
    from benchmarks.demo.server import application

    return testclient.TestClient(application(demo), base_url="http://127.0.0.1:5001", raise_server_exceptions=False)


def test_the_page_and_all_that_it_loads_come_from_this_server(client):
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("page.css", "page.js"):
        assert client.get(f"/{name}").status_code == 200
    for text in (page.text, client.get("/page.css").text, client.get("/page.js").text):
        assert "//" not in text.replace("// ", "").replace("://", "") and "http" not in text
    assert [client.get(path).status_code for path in ("/docs", "/openapi.json", "/redoc", "/server.py")] == [404] * 4


def test_other_hosts_and_other_sites_are_refused(client):
    assert client.get("/state", headers={"host": "evil.example"}).status_code == 400
    refused = client.post("/draw", content=json.dumps({"strokes": HOOK}), headers={"content-type": "text/plain"})
    assert refused.status_code == 400 and "content type of the request is not JSON" in refused.json()["error"]


def test_a_drawing_over_http_is_answered_as_it_is_without(client, demo):
    state = client.get("/state").json()
    assert [run["variant"] for run in state["runs"]] == ["nws", "untrained-svd-permodality"] and state["galleries"] == [
        UNSEEN, EVERY, FOLDER]
    asked = client.post("/draw", json={"strokes": HOOK, "runs": [1, 0], "gallery": EVERY, "wanted": "bat"}).json()
    picture, expected = demo.draw(HOOK, [1, 0], EVERY, wanted="bat")
    for one, answer in zip(asked["answers"], expected):
        assert (one["run"], one["photos"], one["first_right"]) == (answer.run, answer.photos, answer.first_right)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(asked["picture"].partition(",")[2]))))
    assert (shown == picture).all()


def test_a_query_of_the_state_is_answered_and_its_pictures_are_there(client, demo):
    (task,) = client.get("/state").json()["tasks"]
    one = task["classes"][3]
    asked = client.post("/query", json={"task": 0, "number": one["queries"][1], "runs": [0], "gallery": UNSEEN}).json()
    assert asked["wanted"] == one["name"] and asked["answers"][0]["first_right"] >= 1
    photo = asked["answers"][0]["photos"][0]
    for which, number in ((task["set"], one["queries"][1]), (photo["set"], photo["number"])):
        response = client.get(f"/picture/{which}/{number}")
        assert response.headers["content-type"] == "image/jpeg"
        files = demo.sets[which].files
        shown, real = (np.asarray(Image.open(source).convert("L"), float) for source in (
            io.BytesIO(response.content), files.root / files.paths[number]))
        assert shown.shape == real.shape and np.abs(shown - real).mean() < 12


def test_pictures_are_asked_for_by_number_alone(client, demo):
    own = next(i for i, one in enumerate(demo.sets) if not one.classes)
    broken = demo.sets[own].files.paths.index("broken.jpg")
    for path in ("0/-1", "-1/0", "0/999999", "99/0", f"{own}/{broken}"):
        assert client.get(f"/picture/{path}").status_code == 404, path
    assert client.get("/picture/0/..%2f..%2fsecret.jpg").status_code in (404, 422)


@pytest.mark.parametrize("path, body, words", [
    ("draw", {"strokes": [], "runs": [0], "gallery": UNSEEN}, "canvas is empty"),
    ("draw", {"strokes": [[[5], [5]]], "runs": [0], "gallery": UNSEEN}, "single dot"),
    ("draw", {"strokes": HOOK, "runs": [], "gallery": UNSEEN}, "tick at least one"),
    ("draw", {"strokes": HOOK, "runs": "all", "gallery": UNSEEN}, "names no runs"),
    ("draw", {"strokes": HOOK, "runs": [True], "gallery": UNSEEN}, "names no runs"),
    ("draw", {"strokes": HOOK, "runs": [0]}, "load the page again"),
    ("draw", {"strokes": HOOK, "runs": [0], "gallery": UNSEEN, "wanted": 3}, "must be a name"),
    ("draw", {"strokes": HOOK, "runs": [0], "gallery": UNSEEN, "wanted": "\ud800"}, "must be a name"),
    ("query", {"runs": [0], "gallery": UNSEEN}, "no such query"),
    ("query", {"task": 0, "number": 10**9, "runs": [0]}, "load the page"), ("draw", [1], "no JSON object")])
def test_bad_requests_get_a_sentence(client, path, body, words):
    response = client.post(f"/{path}", content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code == 400 and words in response.json()["error"]


def test_what_is_too_large_or_no_json_is_refused(client):
    headers = {"content-type": "application/json"}
    assert "more than 4 MB" in client.post("/draw", content=b"[" * 4_100_000, headers=headers).json()["error"]
    assert "can't be read as JSON" in client.post("/draw", content=b"[" * 200_000, headers=headers).json()["error"]
    assert "can't be read as JSON" in client.post("/draw", content=b"\xff{", headers=headers).json()["error"]


def test_a_taken_port_is_named():
    from benchmarks.demo.server import listening

    with listening(0) as own:
        own.listen()
        assert own.getsockname()[0] == "127.0.0.1"
        with pytest.raises(InputError, match=f"port {own.getsockname()[1]} .* pass another --port"):
            listening(own.getsockname()[1])


# --- in a browser

@pytest.fixture(scope="module")
def address(demo):
    """The page on a free port of this machine, answered by a thread."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra 'demo' is not installed")
    from benchmarks.demo.server import application, listening

    with listening(0) as own:
        server = uvicorn.Server(uvicorn.Config(application(demo), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [own]})
        thread.start()
        yield f"http://127.0.0.1:{own.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture
def browser(address):
    with Browser(installed()) as own:
        own.open(address)
        own.until("document.querySelectorAll('#runs input').length === 2")
        yield own


def texts(browser: Browser, selector: str) -> list[str]:
    return browser.run(f"[...document.querySelectorAll({selector!r})].map(one => one.textContent)")


def test_a_stroke_by_the_mouse_finds_photos(browser, demo, address):
    """The same as without a page for the same lines; no error, and no request to anything but the page's own server."""
    left, top, side = browser.run("(box => [box.left, box.top, box.width])"
                                  "(document.getElementById('canvas').getBoundingClientRect())")
    lines = [[(0.1, 0.8), (0.1, 0.2), (0.7, 0.2), (0.9, 0.5)], [(0.5, 0.5), (0.55, 0.55)]]
    for line in lines:
        browser.draw([(left + x * side, top + y * side) for x, y in line])
    browser.until("document.querySelectorAll('.run').length === 2 && !asking")
    _, expected = demo.draw([[[x * 640 for x, _ in line], [y * 640 for _, y in line]] for line in lines], [0, 1], UNSEEN)
    for place, answer in enumerate(expected):
        shown = [text.split(".", 1)[1] for text in texts(browser, f".run:nth-child({place + 1}) li span:nth-of-type(2)")]
        assert [float(text) for text in shown] == pytest.approx([one["distance"] for one in answer.photos], abs=0.02)
    browser.until("[...document.querySelectorAll('.run img')].every(one => one.complete && one.naturalWidth)")
    assert texts(browser, ".mark") == []
    browser.run("(one => {one.value = 'windmill'; one.dispatchEvent(new Event('change'))})(document.getElementById('wanted'))")
    browser.until("document.querySelectorAll('.mark').length === 24")
    assert "Drawing of class “windmill”." in texts(browser, "#status")
    browser.run("document.getElementById('clear').click()")
    browser.until("document.querySelectorAll('.run').length === 0")
    assert browser.messages == [] and all(one.startswith((address, "data:")) for one in browser.requests)


def test_a_picked_sketch_is_marked_and_a_dot_is_told(browser, demo):
    browser.run("document.getElementById('to-pick').click()")
    browser.run("(one => {one.value = '2'; one.dispatchEvent(new Event('change'))})(document.getElementById('class'))")
    browser.until("document.querySelectorAll('#sketches button').length === 3")
    browser.run("document.querySelectorAll('#sketches button')[1].click()")
    browser.until("document.querySelectorAll('.run').length === 2")
    one = demo.state()["tasks"][0]["classes"][2]
    _, answers_ = demo.query(0, one["queries"][1], [0, 1], UNSEEN)
    assert texts(browser, "#status") == [f"Query sketch of class “{one['name'].replace('_', ' ')}”."]
    for place, answer in enumerate(answers_):
        assert any(f"the first right one is at rank {answer.first_right}" in text
                   for text in texts(browser, f".run:nth-child({place + 1}) .count"))
        assert (texts(browser, f".run:nth-child({place + 1}) .mark")
                == ["right" if one["right"] else "wrong" for one in answer.photos])
    assert browser.findings() == []
    browser.run("document.getElementById('to-draw').click()")
    left, top = browser.run("(box => [box.left, box.top])(document.getElementById('canvas').getBoundingClientRect())")
    browser.draw([(left + 50, top + 50)])
    browser.until("document.getElementById('status').className === 'error'")
    assert texts(browser, "#status") == ["That is a single dot: draw lines, such as the outline of an object."]
