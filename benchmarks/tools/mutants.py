"""Mutation testing: plant one fault at a time in the numerical code and check whether a test fails.

    python benchmarks/mutants.py --results FOLDER            runs what FOLDER does not hold yet, and says what survived
    python benchmarks/mutants.py --results FOLDER --table    writes docs/mutants.md from it

In: the source files named in `PLAN`, the faults written by hand in `benchmarks/tools/mutants_by_hand.py`, and a fixed sample of
the faults that operators on the syntax tree generate. Out: one JSON line for each mutant. torch and the other libraries are
imported once. Each mutant is tested in a forked process that imports the changed text instead of the file. A mutant is named by
its file and its line before and after, so that its result stays valid until that line changes. Runs on Linux and macOS.
The file is long because the operators, the plan, the forks and the table are parts of one command that nothing else uses.
"""
from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import hashlib
import importlib
import importlib.machinery
import json
import os
import re
import resource
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SEED = "tcn mutants 1"
"""Part of the hash that decides which generated mutants are in the sample."""
RESULTS = "mutants.jsonl"
LIMIT = 20.0
"""Seconds that a mutant's tests may take in addition to three times their time without a fault."""
LIBRARIES = ("torch", "torch._dynamo", "torch.optim", "torchvision.models", "torchvision.transforms.functional", "timm",
             "numpy", "scipy.stats", "scipy.ndimage", "scipy.linalg", "sklearn.decomposition", "sklearn.metrics", "pandas",
             "yaml", "PIL.Image", "threadpoolctl", "tqdm", "psutil", "pytest", "hypothesis.strategies", "doctest")
"""Libraries that are imported before the first fork. No file of the project is."""


@dataclass(frozen=True)
class Subject:
    """A file to mutate, the number of generated mutants in its sample, and the tests that should fail, the fastest first."""

    file: str
    sample: int
    tests: tuple[str, ...]


SCORING = ("tests/scoring/test_metrics.py", "tests/scoring/test_speed_scoring.py")
FUSED = tuple(f"tests/model/test_execution.py::{name}" for name in (
    "test_fused_sharing_is_the_norm_of_each_difference", "test_fused_sharing_meets_gradcheck_and_the_plain_form",
    "test_tensors_that_lie_differently_in_memory_or_are_of_half_precision_go_the_plain_way"))
CURVES = tuple(f"tests/train/test_methods.py::{name}" for name in (
    "test_precision_recall_equals_scikit_learns_envelope",
    "test_precision_recall_leaves_out_queries_without_photos_and_refuses_none"))
GIVEN_BACK = tuple(f"tests/robustness/test_given_back.py::{name}" for name in (
    "test_every_module_goes_back_to_its_own_mode_after_an_exception",
    "test_modes_go_back_where_nothing_breaks_and_an_evaluating_model_stays_so",
    "test_a_borrowed_stream_is_torch_s_own_and_goes_back_with_other_devices_untouched"))
REFUSED = "tests/scoring/test_invariances.py::test_svd_start_refuses_what_is_no_classifier"
LOOP = ("tests/train/test_golden.py", "tests/train/test_training.py")
PLAN = (
    Subject("tcn/train/losses.py", 14, ("tests/train/test_losses.py", *FUSED)),
    Subject("tcn/data/augment.py", 11, ("tests/data/test_images.py", "tests/data/test_pairs.py")),
    Subject("tcn/data/pairs.py", 7, ("tests/data/test_images.py", "tests/data/test_pairs.py", "tests/train/test_golden.py")),
    Subject("tcn/seeding.py", 3, ("tests/train/test_seeding.py", *GIVEN_BACK)),
    Subject("tcn/scoring/protocols.py", 4, SCORING),
    Subject("tcn/scoring/inputs.py", 3, SCORING),
    Subject("tcn/scoring/retrieve.py", 2, (*SCORING, *CURVES)),
    Subject("tcn/scoring/scores.py", 5, SCORING),
    Subject("tcn/scoring/measures.py", 8, SCORING),
    Subject("tcn/scoring/rankings.py", 7, SCORING),
    Subject("tcn/scoring/cpu/blocks.py", 2, SCORING),
    Subject("tcn/scoring/cpu/runs.py", 3, SCORING),
    Subject("tcn/scoring/cpu/values.py", 3, SCORING),
    Subject("tcn/scoring/cpu/real.py", 2, SCORING),
    Subject("tcn/scoring/cpu/codes.py", 3, SCORING),
    Subject("tcn/scoring/codes.py", 8, ("tests/scoring/test_codes.py",)),
    Subject("tcn/scoring/features.py", 6, ("tests/scoring/test_features.py", *GIVEN_BACK, "tests/train/test_methods.py")),
    Subject("tcn/model/coupling.py", 6, ("tests/model/test_network.py", "tests/train/test_controls.py")),
    Subject("tcn/train/distances.py", 4, ("tests/train/test_controls.py",)),
    Subject("reports/stats/uncertainty.py", 11, ("tests/report/test_statistics.py", "reports/stats/uncertainty.py")),
    Subject("tcn/data/words.py", 7, ("tests/data/test_words.py",)),
    Subject("tcn/model/embedding.py", 4, ("tests/model/test_network.py", REFUSED, *LOOP)),
    Subject("tcn/model/network.py", 4, ("tests/model/test_network.py", *LOOP)),
    Subject("tcn/train/method.py", 4, LOOP),
    Subject("tcn/train/loop.py", 8, LOOP),
)


@dataclass(frozen=True)
class Mutant:
    """A fault: `text` replaces the bytes of a file from `start` to `end`."""

    file: str
    operator: str
    start: int
    end: int
    text: bytes

    def applied(self) -> bytes:
        """The content of the file with the fault."""
        source = _source(self.file)
        return source[:self.start] + self.text + source[self.end:]

    @property
    def line(self) -> int:
        """The line in which the fault begins, counted from 1."""
        return _source(self.file).count(b"\n", 0, self.start) + 1

    def lines(self) -> tuple[str, str]:
        """The lines that the fault changes, before and after, without indentation; several lines are joined by spaces."""
        source = _source(self.file)
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.end)
        before = source[first:last]
        after = source[first:self.start] + self.text + source[self.end:last]
        return " ".join(before.decode().split()), " ".join(after.decode().split())

    @property
    def name(self) -> str:
        """A name that stays the same from run to run until the line changes."""
        before, after = self.lines()
        return f"{self.file}: {before} => {after}"

    def shown(self, around: int = 24, longest: int = 110) -> tuple[str, str]:
        """The part that differs, before and after, with up to `around` characters on both sides."""
        before, after = self.lines()
        first = 0
        while first < min(len(before), len(after)) and before[first] == after[first]:
            first += 1
        last = 0
        while last < min(len(before), len(after)) - first and before[-1 - last] == after[-1 - last]:
            last += 1
        low = max(0, first - around)
        shown = []
        for text in (before, after):
            high = min(len(text), len(text) - last + around)
            part = ("... " if low else "") + text[low:high] + (" ..." if high < len(text) else "")
            shown.append(part if len(part) <= longest else part[:longest] + " ...")
        return shown[0], shown[1]


_SOURCES: dict[str, bytes] = {}


def _source(file: str) -> bytes:
    if file not in _SOURCES:
        _SOURCES[file] = (ROOT / file).read_bytes()
    return _SOURCES[file]


# ------------------------------------------------------------------------------------------------------ operators
COMPARED = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
            ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
            ast.NotIn: ("not in", "in")}
COMPUTED = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
            ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&")}
SWAPPED = {"min": "max", "max": "min", "sum": "mean", "mean": "sum", "any": "all", "all": "any", "argmin": "argmax",
           "argmax": "argmin", "floor": "ceil", "ceil": "floor", "amin": "amax", "amax": "amin", "minimum": "maximum",
           "maximum": "minimum", "zeros_like": "ones_like", "zeros": "ones", "ones": "zeros", "sub": "add", "add_": "sub_",
           "sub_": "add_", "mul_": "div_", "div_": "mul_", "softmax": "log_softmax", "log_softmax": "softmax", "cos": "sin",
           "sin": "cos", "ppf": "cdf", "std": "var", "cummax": "cummin", "new_zeros": "new_ones", "floor_": "ceil_"}
DROPPED = {"detach", "clone", "abs", "sqrt", "square", "clamp", "clamp_", "masked_fill", "masked_fill_", "round_", "floor_",
           "neg", "neg_", "exp", "flip", "cumsum", "copy", "double", "float", "eval", "reciprocal", "lstrip", "rstrip", "strip",
           "casefold"}
REDUCTIONS = {"sum", "mean", "std", "var", "max", "min", "any", "all", "softmax", "log_softmax", "argmax", "argmin", "cumsum",
              "amax", "amin", "norm", "flip", "sort", "cummax", "unbind", "stack", "cat", "concatenate", "permutation"}
UNSEEN = {"device", "non_blocking", "out", "casting", "copy", "disable", "desc", "smoothing", "encoding", "newline", "repr",
          "unit", "dynamic_ncols", "depth", "progress", "set_to_none"}
"""Keywords that are not removed: they change where or how something is stored or shown, but no value on a CPU."""
SILENT = re.compile(r"\bbar\b|tqdm|perf_counter|_room|room\(|seconds")
"""Lines that only show progress or measure time; they are not mutated."""


class _Site(ast.NodeVisitor):
    """Visits a file's syntax tree and collects all generated mutants in `found`."""

    def __init__(self, file: str) -> None:
        self.file, self.source = file, _source(file)
        self.starts = [0]
        for line in self.source.split(b"\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.found: list[Mutant] = []
        self._axes: set[int] = set()

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return (self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset)

    def _add(self, operator: str, start: int, end: int, text: str | bytes) -> None:
        text = text.encode() if isinstance(text, str) else text
        self.found.append(Mutant(self.file, operator, start, end, text))

    def _between(self, operator: str, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        start, end = self._span(left)[1], self._span(right)[0]
        word = re.escape(old).replace("\\ ", r"\s+")
        hit = re.search((rf"\b{word}\b" if old[0].isalpha() else word).encode(), self.source[start:end])
        if hit:
            self._add(operator, start + hit.start(), start + hit.end(), new)

    # Assertions, imports and error messages compute nothing and are not mutated.
    def _left_alone(self, node: ast.AST) -> None:
        pass

    visit_Raise = visit_Assert = visit_Import = visit_ImportFrom = visit_JoinedStr = _left_alone

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: D102, N802
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:  # noqa: D102, N802
        for decorator in node.decorator_list:
            if ast.unparse(decorator) == "torch.no_grad()":
                start, end = self._span(decorator)
                self._add("context removed", start - 1, end, "")
        for default in (*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)):
            self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:  # noqa: D102, N802
        for statement in node.body:
            self.visit(statement)

    def visit_Expr(self, node: ast.Expr) -> None:  # noqa: D102, N802
        if isinstance(node.value, ast.Call):
            self._add("statement removed", *self._span(node), "pass")
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:  # noqa: D102, N802
        if type(node.op) in COMPUTED:
            old, new = COMPUTED[type(node.op)]
            self._between("arithmetic", node.target, node.value, f"{old}=", f"{new}=")
        self.visit(node.value)

    def visit_With(self, node: ast.With) -> None:  # noqa: D102, N802
        if all(item.optional_vars is None for item in node.items):
            self._add("context removed", self._span(node)[0], self._span(node.items[-1].context_expr)[1], "if True")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:  # noqa: D102, N802
        sides = [node.left, *node.comparators]
        for left, op, right in zip(sides, node.ops, sides[1:]):
            if type(op) in COMPARED:
                self._between("comparison", left, right, *COMPARED[type(op)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:  # noqa: D102, N802
        if type(node.op) in COMPUTED:
            self._between("arithmetic", node.left, node.right, *COMPUTED[type(node.op)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:  # noqa: D102, N802
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self._between("and, or", left, right, old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:  # noqa: D102, N802
        start, _ = self._span(node)
        if isinstance(node.op, ast.Not):
            word = re.match(rb"not\s*", self.source[start:])
            assert word is not None
            self._add("not, minus removed", start, start + word.end(), "")
        elif isinstance(node.op, (ast.USub, ast.Invert)):
            self._add("not, minus removed", start, start + 1, "")
        self.generic_visit(node)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:  # noqa: D102, N802
        for value in ("True", "False"):
            self._add("condition fixed", *self._span(node.test), value)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:  # noqa: D102, N802
        self.visit_If(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:  # noqa: D102
        for test in node.ifs:
            self._add("condition fixed", *self._span(test), "True")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:  # noqa: D102, N802
        span = self._span(node)
        if isinstance(node.value, bool):
            self._add("constant", *span, str(not node.value))
        elif isinstance(node.value, int):
            axis = id(node) in self._axes and node.value in (0, 1)
            self._add("axis" if axis else "constant", *span, str(1 - node.value if axis else node.value + 1))
        elif isinstance(node.value, float):
            self._add("constant", *span, repr(2 * node.value if node.value else 1.0))

    def visit_Call(self, node: ast.Call) -> None:  # noqa: D102, N802
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        name_end = self._span(node.func)[1]
        if called in SWAPPED:
            self._add("function swapped", name_end - len(called), name_end, SWAPPED[called])
        if called in DROPPED and isinstance(node.func, ast.Attribute):
            self._add("call removed", name_end - len(called) - 1, self._span(node)[1], "")
        plain = [a for a in node.args if not isinstance(a, (ast.Starred, ast.GeneratorExp))]
        if len(plain) >= 2 and called not in ("min", "max", "getattr", "isinstance", "hasattr"):
            one, other = plain[:2]
            (a, b), (c, d) = self._span(one), self._span(other)
            self._add("arguments swapped", a, d, self.source[c:d] + self.source[b:c] + self.source[a:b])
        before = [*node.args]
        for keyword in node.keywords:
            if keyword.arg and keyword.arg not in UNSEEN and before:
                self._add("keyword removed", self._span(before[-1])[1], self._span(keyword.value)[1], "")
            before.append(keyword.value)
            if keyword.arg in ("axis", "dim"):
                self._axes.add(id(keyword.value))
        if called in REDUCTIONS:
            self._axes |= {id(a) for a in node.args}
        self.generic_visit(node)


def generated(file: str) -> list[Mutant]:
    """Every mutant that the operators generate for a file, each name once. Some may not be valid Python."""
    site = _Site(file)
    site.visit(ast.parse(site.source))
    found: dict[str, Mutant] = {}
    for mutant in site.found:
        before, after = mutant.lines()
        if before != after and not SILENT.search(before):
            found.setdefault(mutant.name, mutant)
    return list(found.values())


def compiles(mutant: Mutant) -> bool:
    """Whether the mutant is valid Python."""
    try:
        ast.parse(mutant.applied())
    except SyntaxError:
        return False
    return True


def sample(mutants: Sequence[Mutant], number: int) -> list[Mutant]:
    """So many of those that compile, in the order of the file: the operators take turns, each by the hashes of its names."""
    queues: dict[str, list[Mutant]] = {}
    for mutant in sorted(mutants, key=lambda m: hashlib.sha256(f"{SEED} {m.name}".encode()).digest()):
        queues.setdefault(mutant.operator, []).append(mutant)
    taken: list[Mutant] = []
    while len(taken) < number and any(queues.values()):
        for name in sorted(queues):
            if queues[name] and len(taken) < number:
                first = queues[name].pop(0)
                taken += [first] if compiles(first) else []
    return sorted(taken, key=lambda m: (m.start, m.end, m.text))


def by_hand(file: str) -> list[Mutant]:
    """The mutants of a file that were written by hand. ValueError where a text to replace does not stand there just once."""
    from benchmarks.tools.mutants_by_hand import FAULTS

    found = []
    for fault in FAULTS:
        if fault.file == file:
            old = fault.old.encode()
            if (times := _source(file).count(old)) != 1:
                raise ValueError(f"{file} holds {fault.old!r} {times} times; correct the entry in "
                                 f"benchmarks/tools/mutants_by_hand.py")
            start = _source(file).index(old)
            found.append(Mutant(file, fault.what, start, start + len(old), fault.new.encode()))
    return found


def plan(only: Sequence[str] = ()) -> Iterator[tuple[Subject, list[Mutant]]]:
    """Every subject, or those whose file's name holds one of `only`, with its mutants."""
    for subject in PLAN:
        if not only or any(part in subject.file for part in only):
            hand = by_hand(subject.file)
            known = {mutant.applied() for mutant in hand}
            drawn = [m for m in sample(generated(subject.file), subject.sample) if m.applied() not in known]
            yield subject, hand + drawn


# ------------------------------------------------------------------------------------------------------------ runs
class _Replaced(importlib.machinery.SourceFileLoader):
    """Loads a module from other text than its file holds."""

    def __init__(self, name: str, path: str, text: bytes) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:  # noqa: D102
        return compile(self._text, self.path, "exec", dont_inherit=True)


class _Finder:
    """Finds one module before anybody else does."""

    def __init__(self, mutant: Mutant) -> None:
        self.name, self.mutant = mutant.file.removesuffix(".py").replace("/", "."), mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: D102
        if name != self.name:
            return None
        where = str(ROOT / self.mutant.file)
        return importlib.util.spec_from_file_location(name, where, loader=_Replaced(name, where, self.mutant.applied()))


class _First:
    """Pytest plugin: what failed first, and how long each test took. Tests run in the order given, the others before them."""

    def __init__(self, order: Sequence[str]) -> None:
        self.failed = ""
        self.took: dict[str, float] = {}
        self._place = {name: place for place, name in enumerate(order)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:  # noqa: D102
        items.sort(key=lambda item: self._place.get(item.nodeid, -1))

    def pytest_runtest_logreport(self, report: Any) -> None:  # noqa: D102
        self.took[report.nodeid] = round(self.took.get(report.nodeid, 0.0) + report.duration, 3)
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:  # noqa: D102
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (at import)"


def _tests_here(tests: Sequence[str]) -> list[str]:
    return [test for test in dict.fromkeys(tests) if (ROOT / test.partition("::")[0]).exists()]


def _child(mutant: Mutant | None, tests: Sequence[str], order: Sequence[str], send: int, log: str) -> None:
    """Run the tests with the mutant in place of its file, and send what happened. Never returns."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    first, status = _First(order), 99
    try:
        import hypothesis
        import pytest

        # The same examples each time, none kept from another mutant, and none made smaller: that they fail is enough.
        hypothesis.settings.register_profile("mutants", database=None, derandomize=True,
                                             phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
        hypothesis.settings.load_profile("mutants")
        if mutant is not None:
            sys.meta_path.insert(0, _Finder(mutant))
        status = int(pytest.main(["-x", "-q", "--no-header", "--assert=plain", "-p", "no:cacheprovider", *_tests_here(tests)],
                                 plugins=[first]))
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - a mutant may do anything
        first.failed = first.failed or f"{type(error).__name__} outside any test"
    with os.fdopen(send, "w") as out:
        json.dump([status, first.failed, first.took if mutant is None else {}], out)
    os._exit(0)


def run(mutant: Mutant | None, tests: Sequence[str], order: Sequence[str], limit: float, log: str) -> dict[str, Any]:
    """Fork, run, and wait at most `limit` seconds: `status` killed, survived or time, `by`, `seconds`; `took` if unchanged."""
    started = time.monotonic()
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.close(receive)
        _child(mutant, tests, order, send, log)
    os.close(send)
    ready, _, _ = select.select([receive], [], [], limit)
    with os.fdopen(receive, "rb") as sent:
        answer = sent.read() if ready else b""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it may have left running
    os.waitpid(child, 0)
    seconds = round(time.monotonic() - started, 1)
    if not ready:
        return {"status": "time", "by": f"not done after {limit:.0f} s", "seconds": seconds}
    if not answer:
        return {"status": "killed", "by": "the process died", "seconds": seconds}
    status, failed, took = json.loads(answer)
    found = {"status": "survived" if status == 0 else "killed", "by": failed, "seconds": seconds}
    return {**found, "took": took} if mutant is None else found


def _changed_at(subject: Subject) -> list[int]:
    """When the file and its tests were last written."""
    return [(ROOT / test.partition("::")[0]).stat().st_mtime_ns for test in (subject.file, *_tests_here(subject.tests))]


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The last result of each mutant by name."""
    path = folder / RESULTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def run_all(folder: Path, only: Sequence[str], again: bool) -> int:
    """Run what the folder does not hold yet (`again`: survivors too); the number of survivors not known to be equivalent."""
    from benchmarks.tools.mutants_by_hand import EQUIVALENT

    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # each child would load them anew
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in LIBRARIES:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    gc.collect()
    gc.freeze()  # else each child's collector touches, and so copies, all of it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    done, standing = read_results(folder), 0
    baselines: dict[tuple[str, ...], dict[str, Any]] = {}
    with open(folder / RESULTS, "a", encoding="utf-8") as out:
        for subject, mutants in plan(only):
            pending = [m for m in mutants if m.name not in done
                       or again and done[m.name]["status"] == "survived" and m.name not in EQUIVALENT]
            order: list[str] = []
            if pending:
                log = str(folder / "unchanged.log")
                whole = baselines.get(subject.tests) or run(None, subject.tests, order, 600.0, log)
                baselines[subject.tests] = whole
                if whole["status"] != "survived":
                    raise SystemExit(f"{subject.file}: its tests fail without a fault, at {whole['by']}; see {log}")
                took, seen = whole["took"], _changed_at(subject)
                print(f"{subject.file}: {len(pending)} mutants; {len(took)} tests, {whole['seconds']} s", flush=True)
            for mutant in pending:
                if _changed_at(subject) != seen:  # its tests might fail without the fault
                    raise SystemExit(f"{subject.file} or its tests changed while mutants ran; start again to go on")
                # Tests that have killed come first, then the fast ones.
                kills = Counter(done[m.name]["by"] for m in mutants if m.name in done)
                order = sorted(took, key=lambda test: (-kills[test], took[test]))
                found = run(mutant, subject.tests, order, 3 * whole["seconds"] + LIMIT, str(folder / "last.log"))
                done[mutant.name] = {"name": mutant.name, **found}
                out.write(json.dumps(done[mutant.name]) + "\n")
                out.flush()
                if found["status"] == "survived" and mutant.name not in EQUIVALENT:
                    before, after = mutant.shown()
                    print(f"  survived: line {mutant.line}, {mutant.operator}\n    {before}\n    {after}", flush=True)
            standing += sum(done[m.name]["status"] == "survived" and m.name not in EQUIVALENT for m in mutants)
    return standing


# ----------------------------------------------------------------------------------------------------------- table
HEAD = """# Mutation run

How much would the tests notice? `benchmarks/mutants.py` plants one fault at a time in the code that decides results and runs the
tests that should see it. Written by `python benchmarks/mutants.py --results FOLDER --table`; not to be edited by hand.

    OMP_NUM_THREADS=1 python benchmarks/mutants.py --results FOLDER            # all of it; stopped, it goes on where it was
    OMP_NUM_THREADS=1 python benchmarks/mutants.py --results FOLDER --only losses batches
    OMP_NUM_THREADS=1 python benchmarks/mutants.py --results FOLDER --again    # survivors once more, after a test was written

Status 1 says that a mutant survived that is not known to be equivalent. The mutants took {minutes:.0f} minutes, and their tests
without a fault nine: one process on a machine of two cores shared with some eight others.

There are two kinds of faults. Those **by hand** are mistakes that mean something in the method
(benchmarks/tools/mutants_by_hand.py). Those **by operator** are a fixed sample over the syntax tree: comparisons, arithmetic,
constants, axes, minimum and maximum, sum and mean, a dropped `not`, and/or, fixed conditions, statements, calls and keywords left
out, swapped arguments. The operators take turns, and a hash of the changed line decides which mutants are in the sample, so the
sample stays the same until a line changes. Lines that show progress or measure time, keywords that only say where a value is
stored, and everything inside `raise` are not mutated.

"Before" is the first run, before tests were written for what had survived it; the training loop had its golden test by then.
Killed by time: not done after three times what the tests take without a fault, and twenty seconds. A survivor is one of
the tests that its file is run against (`PLAN`), not of all. mutmut makes no mutants of module constants, decorated functions
and properties, and takes no faults by hand; cosmic-ray starts an interpreter for each, which here is eight seconds of importing
torch.
"""


def _cell(text: str) -> str:
    return "`` " + text.replace("|", "\\|") + " ``" if text else ""


def table(folder: Path) -> str:
    """The page docs/mutants.md: scores by file, then every mutant; one that the folder does not hold is "not run"."""
    from benchmarks.tools.mutants_by_hand import EQUIVALENT

    rows = [json.loads(line) for line in (folder / RESULTS).read_text(encoding="utf-8").splitlines()]
    first = {row["name"]: row["status"] for row in reversed(rows)}
    last = {row["name"]: row for row in rows}
    total: Counter[str] = Counter()
    scores, details = [], []
    for subject, mutants in plan():
        count: Counter[str] = Counter()
        details += [f"## {subject.file}", "", "| line | fault | before | after | result |", "|---|---|---|---|---|"]
        for mutant in mutants:
            name, before, after = mutant.name, *mutant.shown()
            status = last[name]["status"] if name in last else "not run"
            if status == "survived" and name in EQUIVALENT:
                status, result = "equivalent", f"equivalent: {EQUIVALENT[name]}"
            elif status == "killed":
                result = str(last[name]["by"]).removeprefix("tests/")
            else:
                result = {"time": "killed by time"}.get(status, f"**{status}**")
            count["mutants"] += 1
            count["by hand"] += mutant in by_hand(subject.file)
            count["before"] += first.get(name) in ("killed", "time")
            count["killed" if status in ("killed", "time") else status] += 1
            details.append(f"| {mutant.line} | {mutant.operator} | {_cell(before)} | {_cell(after)} | {result} |")
        details.append("")
        total += count
        scores.append((subject.file, count))
    columns = ("mutants", "by hand", "before", "killed", "equivalent", "survived", "not run")
    minutes = sum(last[m.name]["seconds"] for _, mutants in plan() for m in mutants if m.name in last) / 60
    lines = ["| file | mutants | of these by hand | killed before | killed now | equivalent | survived | not run |",
             "|---|---|---|---|---|---|---|---|"]
    lines += [f"| {file} | " + " | ".join(str(count[c]) for c in columns) + " |" for file, count in (*scores, ("all", total))]
    return "\n".join([HEAD.format(minutes=minutes).rstrip(), "", *lines, "", *details])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; status 1 where a mutant survived that is not known to be equivalent."""
    parser = argparse.ArgumentParser(description="Plant faults in the numerical code, one at a time, and run its tests.")
    parser.add_argument("--results", type=Path, required=True, help="folder of results; mutants in it are not run again")
    parser.add_argument("--only", nargs="+", default=(), metavar="TEXT", help="files whose name holds one of these")
    parser.add_argument("--again", action="store_true", help="run survivors again, as after writing a test")
    parser.add_argument("--list", action="store_true", help="show the mutants and run none")
    parser.add_argument("--table", action="store_true", help="write docs/mutants.md from the results and run none")
    given = parser.parse_args(arguments)
    os.chdir(ROOT)
    if given.list:
        for subject, mutants in plan(given.only):
            print(f"{subject.file}: {len(mutants)}")
            for mutant in mutants:
                print(f"  {mutant.line}, {mutant.operator}: {' => '.join(mutant.shown())}")
        return 0
    if given.table:
        (ROOT / "docs" / "mutants.md").write_text(table(given.results), encoding="utf-8")
        return 0
    return int(run_all(given.results, given.only, given.again) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
