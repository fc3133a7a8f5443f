"""One self-contained HTML page to read top to bottom: the report's sections, then every run in full.

In: a checked suite and the report's sections. Out: the page's text; pictures are embedded, nothing is fetched.
"""
from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from reports.figures.frames import FigureData
from reports.read.escaping import html as _e
from reports.read.suite import Suite
from reports.render import provenance, story
from reports.render.provenance import Recomputed
from reports.render.story import Block, Points, Section, Text
from reports.stats.verdicts import Verdict
from reports.tables.table import Table

STYLE = """
:root { --ink: #1d1d1f; --soft: #62626a; --line: #e2e2e6; --band: #f6f6f8; --blue: #0060a0; --warn: #a84300; }
* { box-sizing: border-box; }
html { scroll-padding-top: 4.6rem; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
nav { position: sticky; top: 0; z-index: 2; background: rgba(255,255,255,.96); border-bottom: 1px solid var(--line);
  font-size: .84rem; line-height: 1.7; }
nav a { white-space: nowrap; } p.toc a { margin-right: 1.1rem; white-space: nowrap; }
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
.dense td.wide { min-width: 19rem; } .dense thead th { white-space: normal; }
.dense td.wrap:first-child { min-width: 9rem; } .dense table { font-size: .79rem; }
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
@media (max-width: 60rem) { nav { overflow-x: auto; } nav div { white-space: nowrap; } html { scroll-padding-top: 3rem; }
  nav div, main { padding-left: .9rem; padding-right: .9rem; } h1 { font-size: 1.6rem; } }
@media print { @page { margin: 14mm; } body { font-size: 10.5pt; } nav { display: none; }
  main { max-width: none; padding: 0; } h2 { break-before: page; border: 0; } #answers h2 { break-before: auto; }
  h2, h3, figure.table figcaption { break-after: avoid; } figure:not(.table), .verdict, tr { break-inside: avoid; }
  figure img { max-height: 235mm; width: auto; } .scroll { overflow: visible; }
  table, .dense table { font-size: 7pt; width: 100%; } td.wrap { min-width: 24mm; }
  th, td { white-space: normal; padding: .15rem .25rem; } td.number { white-space: nowrap; } td.absent { white-space: normal; }
  code.command { white-space: normal; } .sd { display: block; } .runs { display: none; }
  a { color: inherit; text-decoration: none; } }
"""
PIXELS = 0.72
"""Page pixels per pixel of a 200-dpi picture: text in figures comes out a little smaller than the page's."""


def page(suite: Suite, shown: Sequence[Section], folder: Path, checked: Mapping[str, Recomputed], figures: Path) -> str:
    """The whole page. `shown`: the report's sections; `folder`: where the page will be; `figures`: where its pictures are now.

    `checked`: run -> its means worked out again. Whatever comes from results (names, reasons, commands) is escaped. Only PNGs
    are read from disk, and the small files that runs' entries show.
    """
    profile = story.profile_name(suite)
    parts = ['<!doctype html><html lang="en"><head><meta charset="utf-8">',
             f"<title>{_e(f'{story.TITLE} TCN on {profile}')}</title>",
             '<meta name="viewport" content="width=device-width, initial-scale=1">', f"<style>{STYLE}</style></head><body>",
             f"<nav><div>{_contents(shown)}</div></nav><main>",
             f'<h1>{_e(story.TITLE)}<br><span class="soft">TCN on {_e(profile)}</span></h1>',
             *(_block(block, figures) for block in story.opening(suite))]
    for section in shown:
        parts.append(f'<section id="{_e(section.anchor)}"><h2>{_e(section.title)}</h2>')
        if section.parts and len([s for s in shown if s.parts]) > 1:
            parts.append('<p class="soft toc">' + _links(section.parts) + "</p>")
        parts += [_block(block, figures) for block in section.blocks]
        for part in section.parts:
            parts.append(f'<section id="{_e(part.anchor)}"><h3 class="part">{_e(part.title)}</h3>')
            parts += [*(_block(block, figures) for block in part.blocks), "</section>"]
        if section.anchor == "runs":
            if suite.cells:
                parts.append("<h3>Each run in full</h3>")
            parts += provenance.runs(suite, folder, checked)
        parts.append("</section>")
    parts.append('<p class="soft">The same as <a href="report.md">Markdown</a> and <a href="latex/report.tex">LaTeX</a>; every '
                 'table as Markdown, LaTeX and CSV in <a href="tables/">tables/</a>, every figure as PDF, PNG and CSV in '
                 '<a href="figures/">figures/</a>.</p>')
    return "\n".join([*parts, "</main></body></html>", ""])


def _contents(shown: Sequence[Section]) -> str:
    """Links to all sections; the parts of a data set too where there is one alone."""
    alone = len([s for s in shown if s.parts]) == 1
    return " ".join(_links([section]) if not (alone and section.parts) else _links(section.parts) for section in shown)


def _links(sections: Sequence[Section]) -> str:
    return " ".join(f'<a href="#{_e(s.anchor)}">{_e(s.short)}</a>' for s in sections if s.short)


def _block(block: Block, figures: Path) -> str:
    if isinstance(block, Table):
        return block.to_html()
    if isinstance(block, FigureData):
        return _figure(block, figures)
    if isinstance(block, Verdict):
        return _verdict(block)
    if isinstance(block, Points):
        return "<ul>" + "".join(f"<li>{_code(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Text):
        if block.style == "command":
            return f'<p><code class="command">{_e(block.text)}</code></p>'
        return f'<p class="{_e(block.style)}">{_code(block.text)}</p>'
    return f"<p>{_code(block)}</p>"


def _code(text: str) -> str:
    """Escaped, with what stands between backquotes as code."""
    parts = text.split("`") if text.count("`") % 2 == 0 else [text]
    return "".join(_e(part) if i % 2 == 0 else f"<code>{_e(part)}</code>" for i, part in enumerate(parts))


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
