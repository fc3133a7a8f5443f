"""Measure the structure of the code: sizes, imports between folders, complexity, type errors, repeated lines.

`python benchmarks/tools/structure.py [CHECKOUT]` prints a table for this checkout, or for another one, so that the code can be
compared before and after a change. Complexity and type errors are counted where ruff and mypy are installed.
"""
from __future__ import annotations

import argparse
import ast
import functools
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PRODUCT = ("tcn", "baselines", "benchmarks", "reports")
WINDOW = 6
COMPLEX = re.compile(r"\((\d+) > \d+\)")


def sources(root: Path, folder: str) -> list[Path]:
    """Python files below a folder of the checkout."""
    return sorted(path for path in (root / folder).rglob("*.py") if "__pycache__" not in path.parts)


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and name of every function of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{path.name}:{node.name}"


def arrows(root: Path) -> dict[str, set[str]]:
    """File -> files of the product that it imports, as dotted names."""
    modules = {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
               for folder in PRODUCT for path in sources(root, folder)}
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = []
            if isinstance(node, ast.ImportFrom) and node.module:
                named = [full if (full := f"{node.module}.{alias.name}") in modules else node.module for alias in node.names]
            elif isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            found[name] |= {one for one in named if one in modules and one != name}
    return found


def levels(graph: dict[str, set[str]]) -> int:
    """Number of files on the longest chain of imports.

    >>> levels({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    3
    """
    @functools.cache
    def depth(name: str) -> int:
        return 1 + max((depth(one) for one in graph[name]), default=0)

    return max(map(depth, graph))


def between(graph: dict[str, set[str]]) -> int:
    """Number of pairs of folders (importing, imported)."""
    def room(name: str) -> str:
        return name.rpartition(".")[0] or name

    return len({(room(name), room(one)) for name, used in graph.items() for one in used if room(name) != room(one)})


def repeated(paths: list[Path]) -> int:
    """Number of sequences of WINDOW lines that occur more than once; blank lines, comments and imports are not counted as
    lines."""
    places: dict[tuple[str, ...], int] = defaultdict(int)
    for path in paths:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        lines = [line for line in lines if line and not line.startswith(("#", "import ", "from "))]
        for start in range(len(lines) - WINDOW + 1):
            places[tuple(lines[start:start + WINDOW])] += 1
    return sum(count > 1 for count in places.values())


def counted(command: list[str], root: Path, pattern: str) -> str:
    """The number of lines of a tool's output that match the pattern, or "not installed"."""
    try:
        made = subprocess.run([sys.executable, "-m", *command], cwd=root, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    if "No module named" in made.stderr:
        return "not installed"
    return str(len(re.findall(pattern, made.stdout, flags=re.M)))


def table(root: Path) -> Iterator[tuple[str, str]]:
    """Pairs of what is measured and its value, as texts."""
    files = [path for folder in PRODUCT for path in sources(root, folder)]
    for folder in (*PRODUCT, "tests"):
        lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in sources(root, folder)]
        yield f"lines in {folder}", f"{sum(lines):,} in {len(lines)} files"
    sizes = {str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    yield "lines of the product", f"{sum(sizes.values()):,}"
    longest = max(sizes, key=sizes.__getitem__)
    yield "longest file", f"{longest}, {sizes[longest]} lines"
    yield "files of more than 400 lines", str(sum(size > 400 for size in sizes.values()))
    size, name = max(one for path in files for one in functions(path))
    yield "longest function", f"{name}, {size} lines"
    graph = arrows(root)
    yield "imports between files (arrows)", str(sum(map(len, graph.values())))
    yield "imports between folders", str(between(graph))
    yield "longest chain of imports (levels)", str(levels(graph))
    yield f"runs of {WINDOW} lines that stand twice", str(repeated(files))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    yield "suppressed rules", str(len(re.findall(r"#\s*(?:noqa|type:\s*ignore)", text)))
    yield "functions of complexity above 12", counted(
        ["ruff", "check", "--isolated", "--select", "C90", "--config", "lint.mccabe.max-complexity=12", "--output-format",
         "concise", *PRODUCT], root, COMPLEX.pattern)
    yield "type errors (mypy, not strict)", counted(
        ["mypy", "--config-file", "", "--ignore-missing-imports", "--explicit-package-bases", *PRODUCT], root, r": error: ")


def main() -> int:
    """Print the table of a checkout."""
    parser = argparse.ArgumentParser(prog="python benchmarks/tools/structure.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).resolve().parents[2])
    root = parser.parse_args().checkout.resolve()
    for what, value in table(root):
        print(f"| {what} | {value} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
