"""Measured values -> entries of tables: means with their spread, differences, seeds, lengths, levels, times."""
from __future__ import annotations

import math

from reports.read.measured import Measured, paired
from reports.read.runs import FinishedRun, Score, setting
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.tables.table import Entry
from reports.wording import signed


def measured_entry(measured: Measured, decimals: int = 3, with_seeds: bool = False, strong: bool = False,
                   name_seeds: bool = False) -> Entry:
    """Mean ± sd over seeds, with its runs; on request with the number of seeds, or their names, in brackets."""
    text = measured.text(decimals)
    if measured.n and (with_seeds or name_seeds):
        text += f" ({seed_names(measured) if name_seeds else measured.seeds})"
    return Entry(text, measured.mean, measured.sd, measured.seeds, strong and measured.n > 0, measured.runs)


def seed_names(measured: Measured) -> str:
    """`s0`, `s0–5`, `s0, s2, s5`: the seeds that a mean rests on.

    >>> seed_names(Measured({0: 1.0, 1: 1.0, 2: 1.0, 7: 1.0}, ())), seed_names(Measured({4: 1.0}, ()))
    ('s0–2, s7', 's4')
    """
    groups: list[list[int]] = []
    for seed in sorted(measured.values):
        if groups and seed == groups[-1][-1] + 1:
            groups[-1].append(seed)
        else:
            groups.append([seed])
    return ", ".join(f"s{g[0]}" if len(g) == 1 else f"s{g[0]}–{g[-1]}" for g in groups)


def signed_entry(gap: Measured, decimals: int = 3, remark: str = "") -> Entry:
    """A difference with its sign, ± sd over seeds, with the runs of both sides; a dash if no seed has both."""
    if not gap.n:
        return Entry("–")
    spread = f" ± {gap.sd:.{decimals}f}" if gap.n > 1 else ""
    return Entry(signed(gap.mean, decimals) + spread + remark, gap.mean, gap.sd, gap.seeds, runs=gap.runs)


def seeds_entry(measured: Measured) -> Entry:
    """How many of the planned seeds were measured, with a link to each run."""
    return Entry(measured.seeds, runs=measured.runs)


def dim_entry(suite: Suite, task: Task, variant: str, kind: str = "real") -> Entry:
    """Length of the features or codes. Codes have at most the network's D bits, since ITQ starts from principal components."""
    dim = suite.dim(task, variant)
    if kind == "binary" and dim is not None:
        dim = min([dim, *(int(setting(c.config, "network.dim", dim)) for c in suite.runs_of(task, variant))])
    return Entry("–") if dim is None else Entry(str(dim), dim)


def reference_entry(levels: tuple[float, ...], decimals: int = 3, runs: tuple[FinishedRun, ...] = ()) -> Entry:
    """One level (chance, ceiling), or its range if `runs` had different galleries."""
    if not levels:
        return Entry("–")
    texts = list(dict.fromkeys(f"{level:.{decimals}f}" for level in (levels[0], levels[-1])))
    return Entry("–".join(texts), levels[0] if len(levels) == 1 else math.nan, runs=runs)


def difference_entry(suite: Suite, task: Task, variant: str, metric: str) -> Entry:
    """Mean over common seeds of (row - TCN), with its sd."""
    own, tcn = (suite.measure(task, v, Score(metric)) for v in (variant, "tcn"))
    gap = paired(own, tcn)
    fewer = f" ({gap.n} seed{'s' * (gap.n > 1)})" if gap.n < max(own.n, tcn.n) else ""
    return Entry("–") if variant == "tcn" else signed_entry(gap, remark=fewer)


def duration_entry(seconds: float | None) -> Entry:
    """A time, with its seconds as the number."""
    return Entry(duration(seconds), math.nan if seconds is None else seconds)


def duration(seconds: object) -> str:
    """Seconds as people write them.

    >>> duration(42.31), duration(754), duration(7560), duration(None)
    ('42 s', '12 min 34 s', '2 h 06 min', '–')
    """
    if not isinstance(seconds, (int, float)) or math.isnan(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
