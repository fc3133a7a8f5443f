"""Generated mutants of a file: operators on its syntax tree plant one fault at a time.

In: a file's path below the project's root. Out: `Mutant`s, each with the bytes that it replaces. A mutant is named by its file
and its line before and after, so that its result stays valid until that line changes.
"""
from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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
        source = source_of(self.file)
        return source[:self.start] + self.text + source[self.end:]

    @property
    def line(self) -> int:
        """The line in which the fault begins, counted from 1."""
        return source_of(self.file).count(b"\n", 0, self.start) + 1

    def lines(self) -> tuple[str, str]:
        """The lines that the fault changes, before and after, without indentation; several lines are joined by spaces."""
        source = source_of(self.file)
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


def source_of(file: str) -> bytes:
    if file not in _SOURCES:
        _SOURCES[file] = (ROOT / file).read_bytes()
    return _SOURCES[file]


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
"""Keywords that are not removed, since they only change where or how something is stored or shown, and no value on a CPU."""
SILENT = re.compile(r"\bbar\b|tqdm|perf_counter|_room|room\(|seconds")
"""Lines that only show progress or measure time; they are not mutated."""


class _Site(ast.NodeVisitor):
    """Visits a file's syntax tree and collects all generated mutants in `found`."""

    def __init__(self, file: str) -> None:
        self.file, self.source = file, source_of(file)
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
