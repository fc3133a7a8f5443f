"""`python -m tcn quickdraw`: strokes of QuickDraw -> class folders of pictures (`tcn.data.strokes`)."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tcn.data import specs, strokes
from tcn.files.atomic import writable

DRAW = """\
Draws QuickDraw's strokes (the .ndjson files that Google publishes) as pictures in class folders, for use as queries that come
from another data set: python benchmarks/cross_dataset.py scores them. Downloads nothing.
"""
DRAW_EPILOG = """\
output
  DIR/CLASS/KEY_ID.png: black lines on white, anti-aliased, the drawing's longer side between the margins, in the middle; and
  DIR/drawings.json: settings, digests of the files, drawings by class. CLASS is the name that --names-of has for the word,
  such as car_(sedan), or else the word itself. A folder made of the same files in the same way stays; any other is left alone.

drawings by Google's Quick, Draw! players, CC BY 4.0: credit "Quick, Draw! data set, Google" where you show them

exit status
  0 drawn, or there already; 1 it could not be written; 2 bad files or usage; 130 interrupted.
"""


def add_quickdraw(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `quickdraw` to argparse's subcommands."""
    default = strokes.Rendering()
    p = commands.add_parser("quickdraw", help="draw QuickDraw's strokes as pictures", description=DRAW, epilog=DRAW_EPILOG,
                            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.set_defaults(run=draw)
    p.add_argument("sources", nargs="+", type=Path, metavar="NDJSON", help="files, or folders of them")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    p.add_argument("--first", type=int, metavar="N", help="only the first N drawings of each class by key_id (default: all)")
    p.add_argument("--unrecognised", choices=("in", "out"), default="in",
                   help="drawings that the game itself did not recognise: in (default: no classifier chooses), or out")
    p.add_argument("--size", type=int, default=default.size, metavar="PIXELS", help=f"of a side (default: {default.size})")
    p.add_argument("--line", type=float, default=default.line, metavar="PIXELS",
                   help=f"width of lines (default: {default.line:g}, as Sketchy's)")
    p.add_argument("--margin", type=float, default=default.margin, metavar="PIXELS",
                   help=f"free on every side (default: {default.margin:g}, as Sketchy's)")
    p.add_argument("--names-of", choices=tuple(specs.SPECS), default="sketchy", metavar="NAME",
                   help=f"data set whose class names folders bear: {', '.join(specs.SPECS)} (default: sketchy)")


def draw(args: argparse.Namespace) -> int:
    """Draw what the options name, say what was made, and return the exit status."""
    writable(args.out.parent, "the folder", "--out")
    made = strokes.draw(args.sources, args.out, first=args.first, unrecognised=args.unrecognised == "in",
                        how=strokes.Rendering(args.size, args.line, args.margin), names_of=args.names_of,
                        progress=sys.stderr.isatty())
    known = set(strokes.folder_names(args.names_of).values())
    left_out = f"; {made.left_out:,} that were not recognised are left out" if made.left_out else ""
    print(f"{made.folder}: {sum(made.classes.values()):,} drawings of {len(made.classes)} classes, "
          f"{len(known & set(made.classes))} of them classes of {args.names_of}{left_out}"
          + (" (there already, made of the same files in the same way)" if made.again else ""))
    return 0
