"""The rooms of the house: who may import whom, and what no file may be called."""
from __future__ import annotations

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("tcn", "baselines", "benchmarks", "reports")
ROOMS = [path.parent for top in ("tcn", "benchmarks", "reports") for path in sorted((ROOT / top).rglob("__init__.py"))]


@functools.cache
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


def listed(room: Path) -> list[str]:
    """What a folder's docstring lists, in its order."""
    told = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return re.findall(r"^(\w+)  +\S", told, flags=re.M)


def is_other_name(path: Path) -> bool:
    """Whether a file only gives another one a shorter or an older name."""
    return path.read_text(encoding="utf-8").startswith(('"""The command of ', '"""Public names of '))


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_each_folder_lists_its_files_and_folders_once(room):
    there = {path.stem for path in room.glob("*.py") if path.stem not in ("__init__", "__main__") and not is_other_name(path)}
    there |= {path.parent.name for path in room.glob("*/__init__.py")}
    if room.name != "speed":  # a list of subjects, not a journey
        assert sorted(listed(room)) == sorted(there)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_each_file_and_folder_imports_only_what_is_listed_above_it(room):
    """At every level: `tcn.model.network` may import `tcn.data`, listed above `tcn.model`, and `tcn.model.coupling`."""
    order, dotted = listed(room), ".".join(room.relative_to(ROOT).parts) + "."
    for path in python_files(room):
        own = path.relative_to(room).with_suffix("").parts[0]
        if own not in order or is_other_name(path):
            continue
        names = {name.removeprefix(dotted).split(".")[0] for name in imports(path) if name.startswith(dotted)}
        later = names & set(order[order.index(own) + 1:])
        assert not later, f"{path} imports {later}"
        if path.parent == room:
            assert own not in names, f"{path} imports itself"


def test_tcn_imports_none_of_the_others():
    for path in python_files("tcn"):
        foreign = set(OURS) - {"tcn"} | {"mlflow", "matplotlib", "seaborn", "openTSNE"}
        assert not {n.split(".")[0] for n in imports(path)} & foreign, path


def test_baselines_see_only_tcn_and_reports_of_it_only_the_files():
    for path in python_files("baselines"):
        assert not {n.split(".")[0] for n in imports(path)} & {"benchmarks", "reports", "mlflow"}, path
    for path in python_files("reports"):
        assert not {n.split(".")[0] for n in imports(path)} & {"baselines", "benchmarks", "torch", "mlflow"}, path
        of_tcn = {name for name in imports(path) if name.split(".")[0] == "tcn"}
        assert all(name.startswith("tcn.files") or name in ("tcn.config", "tcn.config.InputError") for name in of_tcn), path


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


@pytest.mark.parametrize("package", OURS)
def test_data_files_of_a_package_are_installed_with_it(package):
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    installed = {path for pattern in patterns.get(package, ()) for path in (ROOT / package).glob(pattern)}
    needed = {path for path in (ROOT / package).rglob("*")
              if path.suffix in (".csv", ".yaml", ".j2", ".css", ".js", ".html") or path.name == "py.typed"}
    assert {path for path in needed if "results" not in path.parts} == installed


def test_no_test_imports_from_another_test():
    """What several tests need lies in tests/support."""
    for path in python_files("tests"):
        assert not {name for name in imports(path) if name.startswith("test_")}, path
