"""One self-contained HTML page: the question, the answers, figures and tables, and where every number comes from.

In: a checked suite, its figures' data and tables. Out: the page's text; pictures are embedded, nothing is fetched.
"""
from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import paper, provenance, verdicts
from reports.figure_data import FigureData
from reports.lint import Finding
from reports.provenance import Recomputed
from reports.results import Suite, Task, setting
from reports.tables import Table, duration
from reports.verdicts import Verdict

STYLE = """
:root { --ink: #1d1d1f; --soft: #62626a; --line: #e2e2e6; --band: #f6f6f8; --blue: #0060a0; --warn: #a84300; }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.5rem; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
nav { position: sticky; top: 0; z-index: 2; background: rgba(255,255,255,.96); border-bottom: 1px solid var(--line);
  font-size: .86rem; overflow-x: auto; white-space: nowrap; }
nav div, main { max-width: 74rem; margin: 0 auto; padding: .55rem 1.5rem; } main { padding-bottom: 5rem; }
nav a { color: var(--soft); text-decoration: none; margin-right: 1.2rem; } nav a:hover { color: var(--blue); }
h1 { font-size: 2rem; line-height: 1.2; margin: 2rem 0 .6rem; letter-spacing: -.01em; }
h2 { margin: 3.5rem 0 .6rem; font-size: 1.5rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3.part { font-size: 1.25rem; margin-top: 3.2rem; } h4 { margin: 1.4rem 0 .3rem; font-size: .95rem; }
h4:target { background: var(--band); outline: 2px solid var(--blue); }
pre { background: var(--band); padding: .5rem .8rem; overflow-x: auto; font-size: .8rem; line-height: 1.35; margin: .3rem 0; }
h3 { margin: 2.4rem 0 .5rem; font-size: 1.1rem; } p, ul, figcaption { max-width: 48rem; }
a { color: var(--blue); } .lead { font-size: 1.12rem; } .soft { color: var(--soft); }
.smoke { background: #fff0e2; border: 3px solid var(--warn); color: #7a3100; padding: .9rem 1.1rem; font-weight: 600;
  font-size: 1.1rem; max-width: none; }
.verdict { border-left: 5px solid var(--soft); padding: .6rem 1.1rem; margin: 1rem 0; background: var(--band);
  max-width: 52rem; } .verdict.yes { border-color: #00795c; } .verdict.no { border-color: var(--warn); }
.verdict p { margin: .25rem 0; } .verdict .question { color: var(--soft); font-size: .92rem; }
.verdict .answer { font-weight: 600; } .verdict ul { margin: .5rem 0 .2rem; }
figure { margin: 1.8rem 0 2.2rem; } figure img { max-width: 100%; height: auto; display: block; margin-bottom: .6rem; }
figcaption { color: var(--soft); font-size: .9rem; }
figure.table figcaption { color: var(--ink); font-weight: 600; font-size: 1rem; margin-bottom: .3rem; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .55rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; } th:first-child, td:first-child { padding-left: 0; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; } thead td { border: 0; }
thead th.span { text-align: center; border-bottom: 1px solid var(--soft); }
thead tr:first-child:not(:last-child) th { white-space: normal; }
td.number, th.number { text-align: right; } td.wrap { white-space: normal; min-width: 9rem; max-width: 30rem;
  overflow-wrap: anywhere; } tr.section th { padding-top: 1.1rem; color: var(--soft); font-weight: 600; }
tr.reference td { color: var(--soft); font-style: italic; } .sd { color: var(--soft); font-size: .92em; }
.dense .sd { display: block; } th.wrap { white-space: normal; } .dense td.wrap { min-width: 5rem; }
.dense td.wide { min-width: 19rem; } .dense table { font-size: .79rem; }
.dense td.absent { white-space: normal; }
.dense th, .dense td { padding: .3rem .32rem; }
a.cell { color: inherit; text-decoration: none; border-bottom: 1px dotted #b5b5bd; } a.cell:hover { color: var(--blue); }
a.also { text-decoration: none; font-size: .78em; margin-left: .15rem; }
.runs { font-size: .78em; } .runs a { margin-left: .25rem; text-decoration: none; }
td.absent { color: #8a8a90; font-style: italic; } td.short { color: var(--warn); font-weight: 600; }
ul.notes { color: var(--soft); font-size: .85rem; padding-left: 1.1rem; margin: .6rem 0; }
table.checks { font-size: .78rem; } details { margin: .3rem 0; } summary { cursor: pointer; font-size: .86rem; }
details:target { background: var(--band); outline: 2px solid var(--blue); }
dl { display: grid; grid-template-columns: 11rem 1fr; gap: .15rem .8rem; font-size: .84rem; padding-left: 1rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; } code { font-size: .88em; }
code.command { display: block; overflow-x: auto; white-space: nowrap; background: var(--band); padding: .5rem .8rem; }
@media print { @page { margin: 14mm; } body { font-size: 10.5pt; } nav { display: none; }
  main { max-width: none; padding: 0; } h2 { break-before: page; border: 0; } #answers h2 { break-before: auto; }
  h2, h3, figure.table figcaption { break-after: avoid; } figure:not(.table), .verdict, tr { break-inside: avoid; }
  figure img { max-height: 235mm; width: auto; } .scroll { overflow: visible; }
  table, .dense table { font-size: 7pt; width: 100%; } td.wrap { min-width: 24mm; }
  th, td { white-space: normal; padding: .15rem .25rem; } td.number { white-space: nowrap; } td.absent { white-space: normal; }
  code.command { white-space: normal; } .sd { display: block; } .runs { display: none; }
  a { color: inherit; text-decoration: none; } }
"""
PARTS = {"ledger": "Ledger", "protocols": "Six rules"}
"""Short names of tables inside the data sets' sections."""
NAVIGATION = {"paper-comparison": "Published numbers", "paper-contradictions": "Contradictions",
              "unfinished": "Missing runs", "left-out": "Not used"}
"""Short names of tables that stand outside the data sets' sections."""
PIXELS = 0.72
"""Page pixels per pixel of a 200-dpi picture: text in figures comes out a little smaller than the page's."""
CHAIN = ("Every measured number links to the runs it was measured in, s0, s1, ... to single seeds. A run's entry holds its "
         "folder, all settings, code, data and environment, the values per query that its means are made of, and the command "
         "that runs it again and compares every number. The tables' .runs.csv files beside this page hold the same links as "
         "text.")
RULES = ("Two rules stand beside each other, computed from one ranking. released: what the paper's code computes "
         "(interpolated precision, mean over classes). standard: plain average precision, mean over queries.")


@dataclass(frozen=True)
class Part:
    """A stretch of a task's section: heading, a sentence of introduction, and its tables and figures in order."""

    title: str
    lead: str
    items: tuple[FigureData | Table | None, ...]


def page(suite: Suite, shown: Mapping[Task, Sequence[Part]], general: Sequence[Table], folder: Path,
         checked: Mapping[str, Recomputed], findings: Sequence[Finding]) -> str:
    """The whole page. `shown`: task -> its parts, the headline first; `folder`: where the page will be, with its figures.

    `checked`: run -> its means worked out again; `findings`: of the published numbers. Whatever comes from results (names,
    reasons, commands) is escaped. Only PNGs are read from disk, and the small files that runs' entries show.
    """
    title = "Does the published number hold?"
    profile = {"laptop": "the laptop profile", "paper": "the paper's data sets"}.get(suite.profile, suite.profile)
    links = [("answers", "Answers")]
    for task, parts_of_task in shown.items():
        links.append((task.slug, paper.task_title(task).replace(" Extended", "")))
        names = {item.name for part in parts_of_task for item in part.items if isinstance(item, Table)}
        links += [(f"table-{task.slug}-{name}", text) for name, text in PARTS.items() if f"{task.slug}-{name}" in names]
    links += [(f"table-{t.name}", NAVIGATION[t.name]) for t in general if t.name in NAVIGATION] + [("runs", "Provenance")]
    parts = ['<!doctype html><html lang="en"><head><meta charset="utf-8">', f"<title>{_e(f'{title} {profile}')}</title>",
             '<meta name="viewport" content="width=device-width, initial-scale=1">', f"<style>{STYLE}</style></head><body>",
             "<nav><div>" + "".join(f'<a href="#{_e(anchor)}">{_e(text)}</a>' for anchor, text in links)
             + "</div></nav><main>", f'<h1>{_e(title)}<br><span class="soft">TCN on {_e(profile)}</span></h1>',
             *_introduction(suite, shown)]
    beside = [t for t in general if t.name.startswith("paper")]
    if beside:
        parts += ["<section><h2>Beside the published numbers</h2>", *(t.to_html() for t in beside), "</section>"]
    for task, parts_of_task in shown.items():
        parts.append(f'<section id="{_e(task.slug)}"><h2>{_e(paper.task_title(task))}</h2>')
        parts += _setting(suite, task)
        parts.append(f"<p>{_e(RULES)}</p>")
        for number, part in enumerate(parts_of_task):
            if part.title:
                parts.append(f"<h3 class=\"part\">{_e(part.title)}</h3>")
            if part.lead:
                parts.append(f"<p>{_e(part.lead)}</p>")
            parts += [item.to_html() if isinstance(item, Table) else _figure(item, folder / "figures")
                      for item in part.items if item is not None]
            if number == 0:
                parts.append("<h3>What these numbers say</h3>")
                parts += [_verdict(v) for v in _verdicts(suite, task)]
        caveats = _caveats(suite, task)
        if caveats:
            parts.append("<h3>To keep in mind</h3><ul>" + "".join(f"<li>{_e(text)}</li>" for text in caveats) + "</ul>")
        parts.append("</section>")
    own = [t for t in general if t.name in ("provenance", "reproductions")]
    rest = [t for t in general if t not in own and t not in beside]
    if rest:
        parts += ["<section><h2>What is missing</h2>", *(t.to_html() for t in rest), "</section>"]
    parts.append('<section id="runs"><h2>Where every number comes from</h2>')
    parts.append(f"<p>{_e(CHAIN)}</p>")
    if suite.cells:
        parts.append(f"<p>{_e(provenance.summary(checked))}</p>")
    parts += [t.to_html() for t in own]
    proofs = sum(f.kind == "proof" for f in findings)
    parts.append('<p class="soft">The list of published numbers was checked too: '
                 f"{proofs} contradictions by proof, {len(findings) - proofs} hints"
                 + (", in the <a href=\"#table-paper-contradictions\">table of contradictions</a>.</p>" if beside else
                    "; <code>python reports/lint.py</code> prints them.</p>"))
    if suite.cells:
        parts.append("<h3>Each run in full</h3>")
    parts += provenance.runs(suite, folder, checked)
    return "\n".join([*parts, "</section></main></body></html>", ""])


def _released_behaviour(suite: Suite) -> dict[str, int]:
    """Trap -> in how many runs it is turned on, leaving aside the ledger's own variants, which are there to show it."""
    found: dict[str, int] = {}
    for trap in suite.traps:
        if trap.setting and trap.kind in ("training", "scoring"):
            runs = sum(not paper.is_ledger(suite, cell.variant) and trap.released == str(setting(cell.config, trap.setting))
                       for cell in suite.cells)
            if runs:
                found[trap.title] = runs
    return found


def _introduction(suite: Suite, shown: Mapping[Task, object]) -> list[str]:
    parts = []
    if suite.smoke or any(cell.smoke for cell in suite.cells):
        parts.append('<p class="smoke">Smoke run: trained for an epoch or so, to check that the chain works. These numbers '
                     'say nothing about the method.</p>')
    active = _released_behaviour(suite)
    if active:
        parts.append('<p class="smoke">Behaviour of the released code is turned on in runs outside the ledger, so their numbers '
                     "are not the corrected ones:</p><ul>" + "".join(
                         f"<li>{_e(title)} ({runs} of {len(suite.cells)} runs)</li>" for title, runs in active.items()) + "</ul>")
    parts.append('<p class="lead">The Transferable Coupled Network (TCN) finds photos of classes it never saw, given a '
                 'sketch. Its two encoders, one for sketches and one for photos, have softly tied convolutions and batch '
                 'norms of their own. The paper says that this soft sharing beats one encoder for both (HWS), which beats '
                 'two untied ones (NWS). This page shows what was measured here, and where each number comes from.</p>')
    counts = [f"{len(suite.cells)} finished runs"]
    if suite.unfinished:
        counts.append(f'<a href="#table-unfinished">{len(suite.unfinished)} without numbers</a>')
    if suite.left_out:
        counts.append(f'<a href="#table-left-out">{len(suite.left_out)} found and not used</a>')
    started = f", started {_e(str(suite.created)[:16].replace('T', ' '))}" if suite.created else ""
    parts.append(f'<p class="soft">{", ".join(counts)}. Profile {_e(suite.profile)}{started}.</p>')
    if suite.command:
        parts.append(f'<p><code class="command">{_e(suite.command)}</code></p>')
    if suite.missing_datasets:
        parts.append("<p>Data sets that were asked for and not there:</p><ul>" + "".join(
            f"<li><strong>{_e(name)}</strong>: {_e(reason)}</li>" for name, reason in suite.missing_datasets.items())
            + "</ul>")
    if not any(paper.is_paper(task) for task in shown):
        parts.append('<p class="soft">The paper\'s own data sets (Sketchy, TU-Berlin, QuickDraw) were not measured in these '
                     'results, so no published number stands on this page.</p>')
    parts.append('<section id="answers"><h2>Answers</h2>')
    for task in shown:
        parts.append(f'<h3><a href="#{_e(task.slug)}">{_e(paper.task_title(task))}</a></h3>')
        parts += [_verdict(Verdict(v.question, v.state, v.answer)) for v in _verdicts(suite, task)]
    return [*parts, "</section>"]


def _verdicts(suite: Suite, task: Task) -> list[Verdict]:
    if suite.smoke:
        return [Verdict("What do these numbers say?", "open", "Nothing: this is a smoke run.")]
    return [verdicts.beats_floor(suite, task), verdicts.sharing_order(suite, task)]


def _setting(suite: Suite, task: Task) -> list[str]:
    """One paragraph: how the main trained rows were trained; what is not the same for all follows as a list."""
    trained = [c for v in paper.TRAINED for c in suite.cells_of(task, v) if c.trained]
    parts = []
    if trained:
        def of(key: str) -> str:
            return " or ".join(sorted({str(setting(c.config, key, "?")) for c in trained}))
        chosen = " or ".join(sorted({str(c.provenance.get("selected_by", "?")) for c in trained}))
        steps = verdicts.optimiser_steps(suite, task)
        seconds = [float(c.provenance["train_seconds"]) for c in trained if c.provenance.get("train_seconds")]
        time = f", {duration(sum(seconds) / len(seconds))} a run on average" if seconds else ""
        backbone = " or ".join(paper.BACKBONES.get(name, name) for name in of("network.backbone").split(" or "))
        parts.append(f'<p>{_e(backbone)} at {_e(of("data.image_size"))} pixels, '
                     f'{_e(of("network.dim"))} dimensions, batches of {_e(of("data.batch_pairs"))} pairs, '
                     f'{_e(of("training.epochs"))} epochs ({_e(steps or "an unknown number of")} optimiser steps{time}). '
                     f"The epoch that is scored was chosen by {_e(chosen)}.</p>")
    if sentences := verdicts.unequal_training(suite, task):
        parts.append("<ul>" + "".join(f"<li>{_e(s)}</li>" for s in sentences) + "</ul>")
    return parts


def _caveats(suite: Suite, task: Task) -> list[str]:
    if paper.is_paper(task):
        return [("Gallery photos may be among those the ImageNet weights were trained on; of Sketchy's two splits only the "
                "second keeps clear of ImageNet's 1,000 classes.")]
    steps = verdicts.optimiser_steps(suite, task)
    caveats = ["Laptop numbers are not comparable to published ones: other data, another network"
               + (f", {steps} optimiser steps against the paper's {paper.PAPER_STEPS:,}" if steps else "")
               + ". They never share a table with published numbers."]
    if task.dataset == "emoji":
        caveats += [
            "Two of the three drawing sets are filled pictograms, not line drawings; see the numbers by publisher.",
            ("EmojiOne's monotone drawings visibly repeat its v1 pictures for some concepts, so EmojiOne queries are also "
            "scored with the v1 pictures left out."),
            "A class has 4 or 5 photos, so Prec@100 can't exceed 0.05; mAP@all and Prec@R head the tables.",
        ]
    return caveats


def _verdict(verdict: Verdict) -> str:
    details = "".join(f"<li>{_e(d)}</li>" for d in verdict.details)
    return (f'<div class="verdict {_e(verdict.state)}"><p class="question">{_e(verdict.question)}</p>'
            f'<p class="answer">{_e(verdict.answer)}</p>' + (f'<ul class="notes">{details}</ul>' if details else "")
            + "</div>")


def _figure(data: FigureData, folder: Path) -> str:
    content = (folder / f"{data.name}.png").read_bytes()
    width = round(int.from_bytes(content[16:20], "big") * PIXELS)  # where PNG keeps its width
    name = _e(data.name)
    files = ", ".join(f'<a href="figures/{name}.{ending}">{ending.upper()}</a>' for ending in ("pdf", "png", "csv"))
    return (f'<figure id="figure-{name}"><h3>{_e(data.title)}</h3><img width="{width}" alt="{_e(data.title)}. '
            f'{_e(data.caption)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
            f"<figcaption>{_e(data.caption)} Beside this page: {files}.</figcaption></figure>")


def _e(text: object) -> str:
    return html.escape(str(text), quote=True)
