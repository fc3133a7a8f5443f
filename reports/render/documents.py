"""The report as Markdown for a repository and as a LaTeX document: what the page holds, except the entries of single runs.

In: the report's sections. Out: text of report.md (beside figures/) and of latex/report.tex, which reads ../tables/*.tex and
../figures/*.pdf and compiles with a basic TeX Live.
"""
from __future__ import annotations

from collections.abc import Sequence

from reports.figure_kinds import FigureData
from reports.read.escaping import markdown
from reports.read.suite import Suite
from reports.render import story
from reports.render.story import Block, Points, Section, Text
from reports.stats.verdicts import Verdict
from reports.tables.latex import PACKAGES, latex
from reports.tables.table import Table

PREAMBLE = r"""% Compile in this folder: pdflatex -interaction=nonstopmode report.tex (twice, for the references).
% The tables and figures it reads may be taken one by one into a paper of your own.
\documentclass[10pt]{article}
\usepackage[utf8]{inputenc}
\usepackage[a4paper,margin=19mm]{geometry}
\usepackage{PACKAGES}
\usepackage{lscape}
\usepackage[hidelinks]{hyperref}
\setlength{\parindent}{0pt}\setlength{\parskip}{5pt plus 1pt}
\setcounter{tocdepth}{2}\setcounter{topnumber}{9}
\raggedbottom\sloppy
\makeatletter
% in this document a table stands where it is told, and is no float
\renewenvironment{table*}[1][]{\par\medskip\noindent\begin{minipage}{\linewidth}\def\@captype{table}\centering}%
  {\end{minipage}\par\medskip}
\newcommand{\reportfigure}[4]{\par\medskip\noindent\begin{minipage}{\linewidth}\def\@captype{figure}\centering
  \includegraphics[width=#1\linewidth,height=0.8\textheight,keepaspectratio]{#2}
  \caption{#3}\label{fig:#4}\end{minipage}\par\medskip}
\makeatother
"""
PAGE_INCHES = 6.8
"""Width of the document's text."""


def to_markdown(suite: Suite, shown: Sequence[Section]) -> str:
    """The report for a repository: relative pictures, tables as GitHub reads them."""
    lines = [f"# {markdown(story.TITLE)}", "", (f"TCN on {markdown(story.profile_name(suite))}. The same as a page with a link "
             "from every number to its runs: [index.html](index.html)."), ""]
    for block in story.opening(suite):
        lines += [_markdown(block), ""]
    for section in shown:
        lines += [f"## {markdown(section.title)}", ""]
        for block in section.blocks:
            lines += [_markdown(block), ""]
        for part in section.parts:
            lines += [f"### {markdown(part.title)}", ""]
            for block in part.blocks:
                lines += [_markdown(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def to_latex(suite: Suite, shown: Sequence[Section], widths: dict[str, float]) -> str:
    """The report as a LaTeX document. `widths`: figure -> its width in inches, never enlarged on the page."""
    lines = [PREAMBLE.replace("PACKAGES", ",".join(PACKAGES)),
             f"\\title{{{latex(story.TITLE)}\\\\ \\large TCN on {latex(story.profile_name(suite))}}}",
             "\\date{" + latex(str(suite.created)[:10]) + "}", "\\author{}", "\\begin{document}", "\\maketitle"]
    lines += [_latex(block, widths) for block in story.opening(suite)]
    lines.append("\\tableofcontents")
    for section in shown:
        lines += ["\\clearpage" if section.parts else "",
                  *_turned(f"\\section{{{latex(section.title)}}}", section.blocks, widths)]
        for part in section.parts:
            lines += _turned(f"\\subsection{{{latex(part.title)}}}", part.blocks, widths)
    return "\n\n".join(line for line in [*lines, "\\end{document}"] if line) + "\n"


def _turned(heading: str, blocks: Sequence[Block], widths: dict[str, float]) -> list[str]:
    """Heading and blocks; a wide table stands on a page in landscape, together with the heading and sentences before it."""
    lines: list[str] = []
    waiting = [heading]
    for block in blocks:
        if isinstance(block, Table) and block.layout().turned:
            lines += ["\\begin{landscape}", *waiting, _latex(block, widths), "\\end{landscape}"]
            waiting = []
        else:
            waiting.append(_latex(block, widths))
            if isinstance(block, (Table, FigureData)):
                lines, waiting = [*lines, *waiting], []
    return [*lines, *waiting]


def _markdown(block: Block) -> str:
    if isinstance(block, Table):
        return block.to_markdown().rstrip()
    if isinstance(block, FigureData):
        title, caption = markdown(block.title), markdown(block.caption)
        return f"![{title}](figures/{block.name}.png)\n\n**{title}.** {caption} " \
               f"([PDF](figures/{block.name}.pdf), [data](figures/{block.name}.csv))"
    if isinstance(block, Verdict):
        details = "".join(f"\n> - {markdown(detail)}" for detail in block.details)
        return f"> {markdown(block.question)}\n>\n> **{markdown(block.answer)}**" + (f"\n>{details}" if details else "")
    if isinstance(block, Points):
        return "\n".join(f"- {_with_code(item)}" for item in block.items)
    if isinstance(block, Text):
        if block.style == "command":
            return f"```\n{' '.join(block.text.split())}\n```"
        return f"**{_with_code(block.text)}**" if block.style == "smoke" else _with_code(block.text)
    return _with_code(block)


def _with_code(text: str) -> str:
    """Escaped, with what stands between backquotes left as code."""
    parts = text.split("`") if text.count("`") % 2 == 0 else [text]
    return "".join(markdown(part, strip=False) if i % 2 == 0 else f"`{part}`" for i, part in enumerate(parts))


def _latex(block: Block, widths: dict[str, float]) -> str:
    if isinstance(block, Table):
        return f"\\input{{../tables/{block.name}.tex}}"
    if isinstance(block, FigureData):
        share = min(1.0, widths.get(block.name, PAGE_INCHES) / PAGE_INCHES)
        return (f"\\reportfigure{{{share:.3f}}}{{../figures/{block.name}.pdf}}%\n"
                f"  {{{latex(block.title)}. {latex(block.caption)}}}{{{block.name}}}")
    if isinstance(block, Verdict):
        details = "".join(f"\n\\item {latex(detail)}" for detail in block.details)
        return f"\\emph{{{latex(block.question)}}} \\textbf{{{latex(block.answer)}}}" \
            + (f"\n\\begin{{itemize}}\\small{details}\n\\end{{itemize}}" if details else "")
    if isinstance(block, Points):
        return "\\begin{itemize}" + "".join(f"\n\\item {latex(item)}" for item in block.items) + "\n\\end{itemize}"
    if isinstance(block, Text):
        text = latex(block.text, breaks=block.style == "command")
        return {"command": f"{{\\small\\ttfamily {text}\\par}}",
                "smoke": f"\\fbox{{\\parbox{{0.97\\linewidth}}{{\\textbf{{{text}}}}}}}",
                "soft": f"{{\\small {text}\\par}}"}.get(block.style, text)
    return latex(block)
