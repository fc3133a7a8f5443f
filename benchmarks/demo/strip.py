"""A strip of pictures of the demo for the README: a drawing as it grows,
and the photos that one finished run finds for it each time.

`python -m benchmarks.demo.strip RUN --drawings NDJSON --out FILE.webp` takes the first recognised drawing of each of a few unseen
classes, in QuickDraw's order of keys, so that no drawing is picked by what it finds. What is shown is what the page of
`python benchmarks/demo.py` gives for the same strokes.
"""
from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.demo.answers import UNSEEN, Demo
from benchmarks.demo.command import add_runs, opened
from benchmarks.demo.found import taken
from reports.figures.style import RIGHT, WRONG
from tcn.cli.ending import ending
from tcn.config import InputError
from tcn.files.atomic import writable_file, write_bytes

TILE, GAP = 64, 5
PHOTOS = 8
QUALITY = 80
"""Of WebP."""
STAGES = 3
"""Pictures of a drawing: after a third of its strokes, two thirds, all of them."""
INK = "#222222"


def stages(strokes: Sequence[list[list[float]]]) -> list[list[list[list[float]]]]:
    """The drawing as it grows, in at most STAGES steps of whole strokes; the last one is whole.

    >>> [len(one) for one in stages([[[0], [0]]] * 5)], [len(one) for one in stages([[[0], [0]]] * 2)]
    ([2, 4, 5], [1, 2])
    """
    counts = dict.fromkeys(-(-len(strokes) * step // STAGES) for step in range(1, STAGES + 1))
    return [list(strokes[:count]) for count in counts]


def strip(demo: Demo, sources: Sequence[Path], number: int) -> tuple[Image.Image, list[str]]:
    """The strip of the demo's first run, and the names of the classes drawn. sources: QuickDraw's files; number: drawings.

    InputError where the files hold no drawing of an unseen class.
    """
    run = demo.runs[0]
    task = demo.tasks[demo.task_of(run)]
    names = demo.sets[task.queries].names
    assert names is not None
    drawings = taken(sources, set(names.tolist()), task.dataset if task.dataset == "quickdraw" else "sketchy", number)
    rows: list[Image.Image] = []
    for name, drawing in drawings:
        label = Image.new("RGB", (_left(PHOTOS), 22), "white")
        ImageDraw.Draw(label).text((GAP, 5), name.replace("_", " "), fill=INK, font_size=14)
        rows.append(label)
        for strokes in stages([stroke.T.tolist() for stroke in drawing.strokes]):
            picture, (answer,) = demo.draw(strokes, [0], UNSEEN, PHOTOS, name)
            rows.append(_row(demo, picture, answer.photos))
    whole = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        whole.paste(row, (0, top))
        top += row.height
    return whole, [name for name, _ in drawings]


def _left(place: int) -> int:
    """Where the photo of a rank, from 0, begins."""
    return 3 * GAP + TILE + place * (TILE + GAP)


def _row(demo: Demo, drawing: np.ndarray, photos: Sequence[object]) -> Image.Image:
    """A drawing and its photos; right ones in a solid frame, wrong ones in a thin one."""
    row = Image.new("RGB", (_left(PHOTOS), TILE + GAP), "white")
    pen = ImageDraw.Draw(row)
    row.paste(Image.fromarray(drawing).convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS), (GAP, 0))
    pen.rectangle((GAP, 0, GAP + TILE - 1, TILE - 1), outline=INK)
    for place, photo in enumerate(photos):
        assert isinstance(photo, dict)
        with Image.open(io.BytesIO(demo.sets[photo["set"]].thumbnail(photo["number"]))) as found:
            row.paste(found.convert("RGB").resize((TILE, TILE)), (_left(place), 0))
        colour, width = (RIGHT, 4) if photo["right"] else (WRONG, 2)
        pen.rectangle((_left(place), 0, _left(place) + TILE - 1, TILE - 1), outline=colour, width=width)
    return row


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0 once the picture is written, 2 for bad usage."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.demo.strip", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    add_runs(p)
    p.add_argument("--drawings", type=Path, nargs="+", required=True, metavar="NDJSON",
                   help="QuickDraw's files, or folders of them")
    p.add_argument("--number", type=int, default=4, metavar="N",
                   help="number of drawings, each of another class as far as there are so many (default: 4)")
    p.add_argument("--out", type=Path, default=Path("docs/demo.webp"), metavar="FILE.webp", help="default: docs/demo.webp")
    options = p.parse_args(arguments)
    if options.number < 1:
        raise InputError(f"--number {options.number}: give a whole number from 1")
    writable_file(options.out, "--out")
    options.most = 1
    demo = opened(options)
    picture, names = strip(demo, options.drawings, options.number)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=QUALITY)
    write_bytes(options.out, content.getvalue())
    print(f"{options.out}: {demo.runs[0].name}; drawings of {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
