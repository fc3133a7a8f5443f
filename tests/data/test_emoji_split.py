"""The split of emoji: its roles and lists, and builds that are damaged."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.trees import DRAWINGS, PICTURES, make_emoji

from tcn.config import InputError
from tcn.data import emoji, splits
from tcn.data.specs import SPLITS_FOLDER
from tcn.data.splits import load

# --- emoji -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of emoji; read only."""
    return make_emoji(tmp_path_factory.mktemp("cache"), size=2)


@pytest.fixture
def emoji_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], splits.Split]:
    """Loads emoji from a given build instead of making one."""
    def load_from(folder: Path) -> splits.Split:
        monkeypatch.setattr(emoji, "build", lambda cache, tarballs, progress: folder)
        return load("emoji", data_root=None, cache=folder, progress=False)
    return load_from


def test_emoji_roles_and_lists(built: Path, emoji_of: Callable[[Path], splits.Split]) -> None:
    found = emoji_of(built)
    table = yaml.safe_load((SPLITS_FOLDER / "emoji.yaml").read_text())
    role = {name: entry["role"] for name, entry in table["classes"].items()}
    sides = {"train_sketches": "seen", "heldout_sketches": "seen", "train_photos": "seen", "query": "unseen",
             "validation_sketches": "validation", "validation_photos": "validation", "gallery": "unseen"}
    in_lists: dict[str, set[str]] = {name: set() for name in sides}
    for name, files in found.lists().items():
        for path, label, source in zip(files.paths, files.labels, files.sources, strict=True):
            side, of_class, file = path.split("/")
            assert side == ("photo" if "photo" in name or name == "gallery" else "sketch")
            assert found.classes[label] == of_class and role[of_class] == sides[name]
            assert file == f"{source}.png" and source in DRAWINGS + PICTURES
            in_lists[name].add(of_class)
    for name in sides:
        if name != "heldout_sketches":
            assert in_lists[name] == {one for one, its in role.items() if its == sides[name]}
    kept = {f"sketch/{name}/{publisher}.png" for name, publisher in table["heldout"].items()}
    assert set(found.heldout_sketches.paths) == kept
    assert len(found.heldout_sketches) == 100 == len(set(found.heldout_sketches.labels))
    assert len(found.train_sketches) == 3 * len(found.seen) - 100
    assert not set(found.train_sketches.paths) & set(found.heldout_sketches.paths)
    assert len(found.query) == 3 * len(found.unseen)
    assert 85 <= len(found.unseen) <= 95 and 45 <= len(found.validation) <= 55
    assert found.data_digest == "0" * 64 and found.notes == ()


def test_things_that_are_the_same_lie_on_one_side_and_count_once_among_the_unseen() -> None:
    table = yaml.safe_load((SPLITS_FOLDER / "emoji.yaml").read_text())
    sides: dict[str, list[str]] = {}
    for entry in table["classes"].values():
        sides.setdefault(entry["group"], []).append(entry["role"])
    assert all(len(set(roles)) == 1 for roles in sides.values())
    assert all(len(roles) == 1 for roles in sides.values() if roles[0] == "unseen")
    assert any(len(roles) > 1 for roles in sides.values()), "groups of several classes exist among the seen"
    assert not set(table["left_out"]) & set(table["classes"])


def test_a_damaged_emoji_build_is_named(
        built: Path, tmp_path: Path, emoji_of: Callable[[Path], splits.Split]) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    (folder / "photo" / "ant" / "noto.png").unlink()
    shutil.rmtree(folder / "sketch" / "bear")
    with pytest.raises(InputError) as caught:
        emoji_of(folder)
    said = str(caught.value)
    assert "453 pictures by noto, 454 were built" in said and f"delete {folder} and run again" in said
    assert "sketch: 1 of 454 classes missing: bear" in said


def test_a_missing_held_out_drawing_is_named(
        built: Path, tmp_path: Path, emoji_of: Callable[[Path], splits.Split]) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    (folder / "sketch" / "battery" / "openmoji.png").rename(folder / "sketch" / "battery" / "noto.png")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["per_publisher"]["openmoji"] -= 1
    manifest["per_publisher"]["noto"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"held-out drawing battery/openmoji\.png is not there"):
        emoji_of(folder)
