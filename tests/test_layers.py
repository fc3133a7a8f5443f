"""The rooms of the house: who may import whom, and what no file may be called."""
from __future__ import annotations

import ast
import re
from pathlib import Path

import tcn

ROOT = Path(__file__).parent.parent
ORDER = re.findall(r"^(\w+)  +\S", tcn.__doc__, flags=re.M)
OURS = {"tcn", "baselines", "benchmarks", "reports"}


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def modules_of_tcn(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("tcn.") and name.split(".")[1] in ORDER}


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_docstring_of_tcn_lists_every_file_once():
    files = {p.stem for p in (ROOT / "tcn").glob("*.py")} - {"__init__", "__main__"}
    assert sorted(ORDER) == sorted(files)


def test_tcn_imports_only_earlier_files_of_its_own():
    for path in python_files("tcn"):
        names = imports(path)
        assert not {n.split(".")[0] for n in names} & (OURS - {"tcn"} | {"mlflow", "matplotlib", "seaborn", "openTSNE"}), path
        if path.stem in ORDER:
            later = set(ORDER[ORDER.index(path.stem):])
            assert not modules_of_tcn(names) & later, f"{path} imports {modules_of_tcn(names) & later}"


def test_baselines_see_only_tcn_and_reports_see_only_result_folders():
    for path in python_files("baselines"):
        assert not {n.split(".")[0] for n in imports(path)} & {"benchmarks", "reports", "mlflow"}, path
    for path in python_files("reports"):
        assert not {n.split(".")[0] for n in imports(path)} & {"tcn", "baselines", "benchmarks", "torch", "mlflow"}, path


def test_only_the_mirror_imports_mlflow():
    users = [p.name for folder in OURS for p in python_files(folder) if "mlflow" in {n.split(".")[0] for n in imports(p)}]
    assert users == ["mirror.py"]


def test_no_file_is_a_drawer_for_odds_and_ends():
    for folder in (*OURS, "tests"):
        for path in python_files(folder):
            assert path.stem not in {"utils", "misc", "common", "helpers"}, path


def test_nothing_edits_the_import_path():
    for folder in (*OURS, "tests"):
        for path in python_files(folder):
            if path != Path(__file__):
                assert "sys.path" not in path.read_text(encoding="utf-8"), path
