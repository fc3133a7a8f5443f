"""One self-contained HTML page: the question, the answers, figures and tables, and where every number comes from.

In: a checked suite, its figures' data and tables. Out: the page's text; pictures are embedded, nothing is fetched.
"""
from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from reports import paper, verdicts
from reports.figure_data import FigureData
from reports.results import Cell, Suite, Task
from reports.tables import Table, duration
from reports.verdicts import Verdict

STYLE = """
:root { --ink: #1d1d1f; --soft: #6b6b70; --line: #e2e2e6; --band: #f6f6f8; --blue: #0060a0; --warn: #b34700; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
nav { position: sticky; top: 0; z-index: 2; background: rgba(255,255,255,.95); border-bottom: 1px solid var(--line);
  padding: .55rem 1.5rem; font-size: .9rem; overflow-x: auto; white-space: nowrap; }
nav a { color: var(--soft); text-decoration: none; margin-right: 1.2rem; } nav a:hover { color: var(--blue); }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1.2rem 0 .4rem; } h2 { margin: 3rem 0 .6rem; font-size: 1.4rem; }
section { scroll-margin-top: 3rem; } h3 { margin: 2rem 0 .4rem; font-size: 1.1rem; } p, ul, figcaption { max-width: 46rem; }
.lead { color: var(--soft); font-size: 1.08rem; } .soft { color: var(--soft); }
.smoke { background: #fff1e5; border: 2px solid var(--warn); color: #7a3100; padding: .8rem 1rem; font-weight: 600;
  max-width: none; }
.verdict { border-left: 4px solid var(--soft); padding: .4rem 1rem; margin: 1rem 0; background: var(--band); max-width: 52rem; }
.verdict.yes { border-color: #00795c; } .verdict.no { border-color: var(--warn); } .verdict p { margin: .3rem 0; }
.verdict .question { font-weight: 600; }
figure { margin: 1.6rem 0; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .92rem; } figure.table figcaption { color: var(--ink); font-weight: 600; margin-bottom: .4rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .7rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: top; }
thead th { border-bottom: 2px solid var(--ink); } thead th.span { text-align: center; border-bottom: 1px solid var(--soft); }
td.number, th.number { text-align: right; } tr.section th { padding-top: 1rem; color: var(--soft); font-weight: 600; }
tr.reference td { color: var(--soft); font-style: italic; } td a { color: inherit; text-decoration-color: var(--line); }
.runs { font-size: .72rem; } .runs a { margin-left: .25rem; color: var(--soft); } td.absent, td.short { color: var(--warn); }
td.code { font-family: ui-monospace, monospace; font-size: .78rem; }
ul.notes { color: var(--soft); font-size: .85rem; padding-left: 1.1rem; } details { margin: .5rem 0; }
summary { cursor: pointer; } dl { display: grid; grid-template-columns: 11rem 1fr; gap: .15rem .8rem; font-size: .88rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; } code { font-size: .9em; }
@media print { nav { display: none; } main { max-width: none; padding: 0; } figure, .verdict { break-inside: avoid; }
  .scroll { overflow: visible; } table { font-size: .7rem; } th, td { white-space: normal; padding: .2rem .35rem; } }
"""
EMOJI_CAVEATS = (
    "Laptop numbers are not comparable to published ones: other data, another network, a few hundred optimiser steps "
    "against some 21,400. They never share a table with published numbers.",
    "Two of the three drawing sets are filled pictograms, not line drawings; see the numbers by publisher.",
    "EmojiOne's monotone drawings and its v1 pictures come from one publisher and share single concepts, so EmojiOne "
    "queries are also scored with the v1 pictures left out.",
    "A class has 4 or 5 photos, so Prec@100 can't exceed 0.05; mAP@all and Prec@R head the tables.",
    "Settings and epochs were chosen on validation classes, never on unseen ones.",
)
RULES = ("Two rules stand beside each other, computed from one ranking. released: what the paper's code computes "
         "(interpolated precision, mean over classes). standard: plain average precision, mean over queries.")


def page(suite: Suite, shown: Mapping[Task, tuple[Sequence[FigureData], Sequence[Table]]], general: Sequence[Table],
         figures: Path) -> str:
    """The whole page. `shown`: task -> its figures and tables; `figures`: the folder that holds the PNGs."""
    title = "Does the published number hold? " + ("Laptop profile" if suite.profile == "laptop" else
                                                  f"Profile {suite.profile}")
    links = [("verdicts", "Answers"), *((task.slug, paper.task_title(task)) for task in shown)]
    links += [(f"table-{t.name}", t.title) for t in general if t.name.startswith("paper")] + [("runs", "Provenance")]
    parts = [f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_e(title)}</title>',
             '<meta name="viewport" content="width=device-width, initial-scale=1">', f"<style>{STYLE}</style></head><body>",
             "<nav>" + "".join(f'<a href="#{_e(anchor)}">{_e(text)}</a>' for anchor, text in links) + "</nav><main>",
             f"<h1>{_e(title)}</h1>", *_introduction(suite)]
    parts.append('<section id="verdicts"><h2>Answers</h2>')
    for task in shown:
        parts.append(f"<h3>{_e(paper.task_title(task))}</h3>")
        parts += [_verdict(v) for v in (verdicts.sharing_order(suite, task), verdicts.beats_floor(suite, task))]
        steps = verdicts.optimiser_steps(suite, task)
        if steps:
            parts.append(f'<p class="soft">Optimiser steps of the trained rows: {_e(steps)}.</p>')
        if sentences := verdicts.unequal_training(suite, task):
            parts.append("<ul>" + "".join(f"<li>{_e(s)}</li>" for s in sentences) + "</ul>")
    parts.append("</section>")
    for task, (pictures, tables) in shown.items():
        parts.append(f'<section id="{_e(task.slug)}"><h2>{_e(paper.task_title(task))}</h2>')
        if not paper.is_paper(task):
            parts.append("<ul>" + "".join(f"<li>{_e(text)}</li>" for text in EMOJI_CAVEATS) + "</ul>")
        parts.append(f"<p>{_e(RULES)}</p>")
        parts += [t.to_html() for t in tables[:1]]
        parts += [_figure(p, figures) for p in pictures]
        parts += [t.to_html() for t in tables[1:]]
        parts.append("</section>")
    last = [t for t in general if t.name == "provenance"]
    parts += [t.to_html() for t in general if t not in last]
    parts.append('<section id="runs"><h2>Where every number comes from</h2>')
    parts += [t.to_html() for t in last]
    parts += [_run(cell) for cell in suite.cells]
    return "\n".join([*parts, "</section></main></body></html>", ""])


def _introduction(suite: Suite) -> list[str]:
    parts = ['<p class="lead">The Transferable Coupled Network (TCN) retrieves photos of classes it never saw from '
             'sketches. Its two encoders, one for sketches and one for photos, have softly tied convolutions and batch '
             'norms of their own. The paper says that soft sharing beats one encoder for both (HWS), and that beats two '
             'untied ones (NWS). This page shows what was measured here.</p>']
    if suite.smoke or any(cell.smoke for cell in suite.cells):
        parts.append('<p class="smoke">Smoke run: a single epoch a cell, to check that the chain works. These numbers say '
                     'nothing about the method.</p>')
    parts.append(f'<p class="soft">{len(suite.cells)} finished runs, profile {_e(suite.profile)}, started '
                 f'{_e(suite.created)} by <code>{_e(suite.command)}</code>.</p>')
    if suite.missing_datasets:
        parts.append("<p>Data sets of the plan that were not there:</p><ul>" + "".join(
            f"<li>{_e(name)}: {_e(reason)}</li>" for name, reason in suite.missing_datasets.items()) + "</ul>")
    return parts


def _verdict(verdict: Verdict) -> str:
    details = "".join(f"<li>{_e(d)}</li>" for d in verdict.details)
    return (f'<div class="verdict {_e(verdict.state)}"><p class="question">{_e(verdict.question)}</p>'
            f"<p>{_e(verdict.answer)}</p>" + (f'<ul class="notes">{details}</ul>' if details else "") + "</div>")


def _figure(data: FigureData, folder: Path) -> str:
    picture = base64.b64encode((folder / f"{data.name}.png").read_bytes()).decode()
    return (f'<figure id="figure-{_e(data.name)}"><h3>{_e(data.title)}</h3>'
            f'<img alt="{_e(data.title)}. {_e(data.caption)}" src="data:image/png;base64,{picture}">'
            f"<figcaption>{_e(data.caption)}</figcaption></figure>")


def _run(cell: Cell) -> str:
    p = cell.provenance
    facts = {"identity": p.get("identity"), "command": p.get("command"), "commit": p.get("commit"),
             "uncommitted changes": p.get("diff_sha256") if p.get("dirty") else "none", "device": p.get("device"),
             "threads": p.get("threads"), "platform": p.get("platform"), "Python": p.get("python"),
             "versions": ", ".join(f"{k} {v}" for k, v in (p.get("versions") or {}).items()),
             "data digest": p.get("data_digest"), "split digest": p.get("split_digest"), "weights": p.get("weights"),
             "word vectors": p.get("words"), "epoch chosen by": p.get("selected_by"),
             "started": p.get("started"), "finished": p.get("finished"), "training": duration(p.get("train_seconds")),
             "settings": _settings(cell.config)}
    rows = "".join(f"<dt>{_e(k)}</dt><dd>{_e(str(v))}</dd>" for k, v in facts.items())
    return f'<details id="{_e(cell.anchor)}"><summary>{_e(cell.name)}</summary><dl>{rows}</dl></details>'


def _settings(config: Mapping[str, object]) -> str:
    flat = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat += [f"{key}.{k}={v}" for k, v in value.items()]
        else:
            flat.append(f"{key}={value}")
    return ", ".join(flat)


def _e(text: str) -> str:
    return html.escape(str(text), quote=True)
