"""Trees of the data sets, made once for the tests of a process."""
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.trees import make_tree


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three data sets, six sketches and four photos a class; read only."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("sketchy", "tuberlin", "quickdraw"):
        make_tree(folder, name, sketches=6, photos=4, size=4)
    return folder


@pytest.fixture(scope="session")
def whole_tuberlin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("whole"), "tuberlin", sketches=2, photos=1, size=2)


@pytest.fixture
def tuberlin(whole_tuberlin: Path, tmp_path: Path) -> Path:
    """A TU-Berlin tree to spoil; its own folder. A copy takes a quarter of the time."""
    return Path(shutil.copytree(whole_tuberlin, tmp_path / whole_tuberlin.name))
