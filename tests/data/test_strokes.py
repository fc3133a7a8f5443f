"""Pictures of strokes: known pixels, a second way of drawing, which drawings are in, and what is refused."""
from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tcn.__main__ import main
from tcn.config import InputError
from tcn.data import strokes
from tcn.data.decode import decode
from tcn.data.specs import read_plan
from tcn.data.strokes import Rendering, draw, rasterise, read_drawings


def line(key: int, word: str = "swan", recognized: bool = True, drawing: Any = None) -> dict[str, Any]:
    return {"word": word, "countrycode": "DE", "recognized": recognized, "key_id": str(key),
            "drawing": drawing or [[[0, key % 200, 255], [0, 40, 90]]]}


def write(path: Path, *rows: Any, ending: str = "\n") -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + ending for row in rows), encoding="utf-8")
    return path


# --- pixels -----------------------------------------------------------------------------------------------------------

def test_one_stroke_gives_known_pixels():
    """A level stroke of 200 units in 100 pixels with a margin of 10 runs from 10 to 90 at half height, 50: with a width of 3 it
    covers rows 49 and 50, and half of rows 48 and 51. Its ends are round, within 1.5 pixels."""
    picture = rasterise([np.array([[20.0, 5.0], [220.0, 5.0]])], Rendering(size=100, line=3, margin=10))
    assert picture.shape == (100, 100) and picture.dtype == np.uint8
    for column in (10, 37, 50, 89):
        assert picture[46:54, column].tolist() == [255, 255, 128, 0, 0, 128, 255, 255]
    assert (picture[:, :8] == 255).all() and (picture[:, 92:] == 255).all() and (picture[:48] == 255).all()
    assert (picture[[49, 50], 9] == 0).all() and 0 < picture[49, 8] < 255
    assert np.array_equal(picture, picture[::-1]) and np.array_equal(picture, picture[:, ::-1])


def test_the_longer_side_fits_and_the_drawing_keeps_its_shape_and_place():
    upright = [np.array([[0.0, 0.0], [0.0, 400.0]]), np.array([[100.0, 0.0], [100.0, 400.0]])]
    picture = rasterise(upright, Rendering(size=60, line=2, margin=10))
    # 400 units in 40 pixels: the lines stand 10 pixels apart, at 25 and 35
    assert np.flatnonzero(picture[30] == 0).tolist() == [24, 25, 34, 35]
    assert np.flatnonzero(picture[:, 25] == 0)[[0, -1]].tolist() in ([9, 50], [10, 49])
    y_down = rasterise([np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]])], Rendering(size=40, line=2, margin=5))
    assert y_down[5, 20] == 0 and y_down[20, 34] == 0 and y_down[34, 20] == 255


def test_a_dot_is_a_dot():
    picture = rasterise([np.array([[7.0, 7.0]])], Rendering(size=20, line=4, margin=2))
    assert (picture[9:11, 9:11] == 0).all() and (picture < 255).sum() in (12, 16)


@pytest.mark.parametrize("seed", range(4))
def test_a_second_way_of_drawing_agrees(seed):
    """Every sixty-fourth of a pixel is black if it lies within half a line's width of a stroke's segment."""
    rng, how = np.random.default_rng(seed), Rendering(size=64, line=3.0, margin=8)
    drawn = [np.cumsum(rng.integers(-30, 31, (n, 2)), axis=0).astype(float) for n in (2, 7, 1, 12)]
    every = np.concatenate(drawn)
    middle, scale = (every.min(0) + every.max(0)) / 2, 48 / (every.max(0) - every.min(0)).max()
    fine = (np.arange(512) + 0.5) / 8
    spots = np.stack(np.meshgrid(fine, fine), axis=-1)
    black = np.zeros((512, 512), bool)
    for stroke in drawn:
        points = 32 + (stroke - middle) * scale
        for a, b in zip(points, [*points[1:], points[-1]]):
            along = np.clip(((spots - a) @ (b - a)) / max((b - a) @ (b - a), 1e-12), 0, 1)
            black |= np.linalg.norm(spots - a - along[..., None] * (b - a), axis=-1) <= 1.5
    expected = 255 * (1 - black.reshape(64, 8, 64, 8).mean((1, 3)))
    off = np.abs(expected - rasterise(drawn, how))
    assert off.mean() < 2 and np.quantile(off, 0.99) <= 48 and (expected < 255).mean() > 0.1


# --- which drawings, in which order -----------------------------------------------------------------------------------

def test_the_first_by_key_are_drawn_whatever_the_order_of_lines(tmp_path):
    """As numbers, not as text: 999 comes before 1000."""
    source = write(tmp_path / "a.ndjson", *(line(key) for key in (5000, 1000, 70, 999, 10**15)))
    made = draw([source], tmp_path / "out", first=3, progress=False)
    assert sorted(path.name for path in (tmp_path / "out" / "swan").iterdir()) == ["1000.png", "70.png", "999.png"]
    assert made.classes == {"swan": 3}
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "swan" / "70.png")),
                          rasterise([np.array([[0.0, 0.0], [70.0, 40.0], [255.0, 90.0]])]))
    assert decode(tmp_path / "out" / "swan" / "70.png", 256).shape == (256, 256, 3)


def test_unrecognised_drawings_are_in_or_out_before_the_first_are_counted(tmp_path):
    source = write(tmp_path / "a.ndjson", *(line(key, recognized=key != 2) for key in (4, 3, 2, 1)))
    for setting, keys, left_out in ((True, ["1", "2"], 0), (False, ["1", "3"], 1)):
        out = tmp_path / f"out-{setting}"
        made = draw([source], out, first=2, unrecognised=setting, progress=False)
        assert sorted(path.stem for path in (out / "swan").iterdir()) == keys and made.left_out == left_out
        assert json.loads((out / "drawings.json").read_text())["settings"]["unrecognised"] is setting


def test_folders_bear_the_data_sets_names_where_words_mean_its_classes(tmp_path):
    words = ("car", "teddy-bear", "hot air balloon", "The Eiffel Tower", "motorbike")
    source = write(tmp_path / "a.ndjson", *(line(1, word) for word in words))
    assert set(draw([source], tmp_path / "s", progress=False).classes) == {
        "car_(sedan)", "teddy_bear", "hot-air_balloon", "The Eiffel Tower", "motorcycle"}
    assert set(draw([source], tmp_path / "q", names_of="quickdraw", progress=False).classes) == {
        "car", "teddy_bear", "hot-air_balloon", "eiffel tower", "motorcycle"}


def test_what_is_there_stays_if_made_the_same_way_and_else_is_refused(tmp_path):
    source = write(tmp_path / "a.ndjson", line(1), line(2, "harp"))
    first = draw([source], tmp_path / "out", progress=False)
    picture = tmp_path / "out" / "swan" / "1.png"
    stamp = picture.stat().st_mtime_ns
    again = draw([source], tmp_path / "out", progress=False)
    assert again.again and not first.again and again.classes == first.classes and picture.stat().st_mtime_ns == stamp
    for change in ({"how": Rendering(line=2)}, {"first": 1}, {"unrecognised": False}, {"names_of": "tuberlin"}):
        with pytest.raises(InputError, match="holds something else"):
            draw([source], tmp_path / "out", progress=False, **change)
    write(source, line(1), line(3, "harp"))
    with pytest.raises(InputError, match="holds something else"):
        draw([source], tmp_path / "out", progress=False)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("")
    with pytest.raises(InputError, match="holds something else"):
        draw([source], tmp_path / "letters", progress=False)


def test_the_digest_is_of_what_was_drawn(tmp_path):
    def digest(name: str, *rows: Any, **options: Any) -> str:
        draw([write(tmp_path / f"{name}.ndjson", *rows)], tmp_path / name, progress=False, **options)
        return strokes.read_manifest(tmp_path / name)["digest"]

    one = digest("a", line(1), line(2))
    assert one == digest("b", line(2), line(1))
    assert len({one, digest("c", line(1), line(3)), digest("d", line(1), line(2), how=Rendering(line=2)),
                digest("e", line(1, "harp"), line(2))}) == 4


# --- files ------------------------------------------------------------------------------------------------------------

def test_raw_drawings_byte_order_marks_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "a.ndjson"
    raw = {**line(3), "drawing": [[[1.5, 2.5], [3.25, 4.0], [0, 16]], [[9], [9], [40]]]}
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(row).encode() for row in (raw, line(4))) + b"\r\n\r\n")
    first, second = read_drawings(path)
    assert [stroke.tolist() for stroke in first.strokes] == [[[1.5, 3.25], [2.5, 4.0]], [[9.0, 9.0]]]
    assert (first.key, second.key, first.word, first.recognized) == (3, 4, "swan", True)


def test_a_file_of_several_blocks_loses_no_drawing(tmp_path, monkeypatch):
    path = write(tmp_path / "a.ndjson", *(line(key) for key in range(300)))
    monkeypatch.setattr(strokes, "_BLOCK", 97)
    assert [drawing.key for drawing in read_drawings(path)] == list(range(300))


@pytest.mark.parametrize(("row", "message"), [
    ("{", "line 2: no JSON"),
    ("[" * 100_000, "line 2: no JSON"),
    ("[1]", "line 2: list in place of an object"),
    ({**line(1), "key_id": 17}, "line 2: key_id is 17"),
    ({**line(1), "key_id": "../17"}, "line 2: key_id is '../17'"),
    ({**line(1), "word": "../etc"}, "line 2: word is '../etc'"),
    ({**line(1), "word": "a/b"}, "line 2: word is 'a/b'"),
    ({**line(1), "word": " "}, "line 2: word is ' '"),
    ({**line(1), "word": "a" * 300}, "line 2: word is 'aaa"),
    ({**line(1), "recognized": "yes"}, "line 2: recognized is 'yes'"),
    ({**line(1), "drawing": []}, r"line 2: drawing is \[\]"),
    ({**line(1), "drawing": [[[1, 2]]]}, "line 2, stroke 1: it must be a list of x and a list of y"),
    ({**line(1), "drawing": [[[1], [2]], [[1, 2], [3]]]}, "line 2, stroke 2: 2 x and 1 y"),
    ({**line(1), "drawing": [[[], []]]}, "line 2, stroke 1: 0 x and 0 y"),
    ({**line(1), "drawing": [[[True], [2]]]}, "coordinates must be numbers"),
    (json.dumps({**line(1), "drawing": [[[float("nan")], [2]]]}), "coordinates must be numbers"),
    ({**line(1), "drawing": [[[1e300], [2]]]}, "coordinates must be numbers within 1,000,000"),
    (line(7), "drawing 7 of 'swan' stands there twice"),
])
def test_bad_lines_are_named_and_nothing_is_made(tmp_path, row, message):
    source = write(tmp_path / "a.ndjson", line(7), row)
    with pytest.raises(InputError, match=message) as caught:
        draw([source], tmp_path / "out", progress=False)
    assert str(source) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ndjson"]


@pytest.mark.parametrize(("change", "message"), [
    ({"how": Rendering(size=4)}, "a size of 4 pixels"), ({"how": Rendering(size=9999)}, "a size of 9999 pixels"),
    ({"how": Rendering(line=0)}, "a line of 0 pixels"),
    ({"how": Rendering(margin=128)}, "a margin of 128 pixels"), ({"how": Rendering(line=float("nan"))}, "a line of nan"),
    ({"first": 0}, "the first 0 drawings"), ({"unrecognised": False}, "all 1 were left out as not recognised"),
])
def test_settings_that_can_draw_nothing_are_refused(tmp_path, change, message):
    source = write(tmp_path / "a.ndjson", line(1, recognized=False))
    with pytest.raises(InputError, match=message):
        draw([source], tmp_path / "out", progress=False, **change)


def test_missing_empty_and_packed_files_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no \.ndjson file"):
        draw([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(InputError, match="none.ndjson can't be read"):
        draw([tmp_path / "none.ndjson"], tmp_path / "out")
    packed = tmp_path / "a.ndjson"
    packed.write_bytes(gzip.compress(json.dumps(line(1)).encode()))
    with pytest.raises(InputError, match="a.ndjson is gzip-compressed.*gunzip"):
        draw([packed], tmp_path / "out", progress=False)


# --- the command ------------------------------------------------------------------------------------------------------

def test_the_command_says_what_it_made(tmp_path, capsys):
    write(tmp_path / "a.ndjson", line(1), line(2, recognized=False), line(3, "run phone"))
    options = ["quickdraw", str(tmp_path), "--out", str(tmp_path / "out"), "--unrecognised", "out", "--line", "5", "--size", "64",
               "--margin", "8", "--first", "9"]
    assert main(options) == 0
    assert capsys.readouterr().out == (f"{tmp_path / 'out'}: 2 drawings of 2 classes, 1 of them classes of sketchy; 1 "
                                       f"that were not recognised are left out\n")
    assert Image.open(tmp_path / "out" / "swan" / "1.png").size == (64, 64)
    assert main(options) == 0 and "there already" in capsys.readouterr().out
    assert main([*options[:-1], "0"]) == 2 and "error: the first 0 drawings" in capsys.readouterr().err


def test_real_drawings(shared_data, tmp_path):
    """25 of each of 344 words, 680 of 8,600 not recognised. All 110 classes of QuickDraw Extended are among them; 87 of
    these, and 10 further words, are classes of Sketchy."""
    with tarfile.open(shared_data / "quickdraw-sample" / "ndjson.tar.gz") as archive:
        archive.extractall(tmp_path / "ndjson", filter="data")
    drawings = [one for path in strokes.files_of([tmp_path / "ndjson"]) for one in read_drawings(path)]
    assert len(drawings) == 8600 and sum(not one.recognized for one in drawings) == 680
    words = {one.word for one in drawings}
    meant = {dataset: {word for word in words if strokes.normal_form(word) in strokes.folder_names(dataset)}
             for dataset in ("sketchy", "quickdraw")}
    assert (len(words), len(meant["quickdraw"]), len(meant["sketchy"]), len(meant["sketchy"] & meant["quickdraw"])) == (
        344, 110, 97, 87)
    drawn = {strokes.folder_names("sketchy").get(strokes.normal_form(word)) for word in words}
    for split, seen, unseen in (("1", 79, 18), ("2", 81, 16)):
        plan = read_plan("sketchy", split)
        assert (len(drawn & set(plan.of("seen"))), len(drawn & set(plan.of("unseen")))) == (seen, unseen)
    made = draw([tmp_path / "ndjson" / "swan.ndjson"], tmp_path / "out", unrecognised=False, progress=False)
    assert made.classes["swan"] + made.left_out == 25


def test_lines_and_margins_are_those_of_sketchys_own_drawings(shared_data):
    """The defaults, measured on sketches of classes that both splits train on. A line of width w and length L, turned anyhow, has
    an area of w * L and changes brightness by 2 * L * 4 / pi on the average, in both directions together."""
    seen = set(read_plan("sketchy", "1").of("seen")) & set(read_plan("sketchy", "2").of("seen"))
    files = [path for path in (shared_data / "sketchy-sample").glob("256x256/sketch/*/*/*.png") if path.parent.name in seen]
    widths, margins = [], []
    for path in files:
        ink = 1 - np.asarray(Image.open(path).convert("L")) / 255
        changes = np.abs(np.diff(ink, axis=0)).sum() + np.abs(np.diff(ink, axis=1)).sum()
        widths.append(ink.sum() * 2 * (4 / np.pi) / changes)
        rows, columns = np.nonzero(ink > 0.5)
        margins.append(min(rows.min(), columns.min(), 255 - rows.max(), 255 - columns.max()))
    assert len(files) == 2075
    assert Rendering().line == pytest.approx(np.median(widths), abs=0.1) and Rendering().margin == np.median(margins)
