"""Text and tables for LaTeX: signs and letters that pdflatex can set, and column widths that fit a page.

In: plain text, lengths of a table's texts. Out: escaped text, a column specification and a font size.
"""
from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reports.read.escaping import visible

SIZES = ((r"\footnotesize", 104, False), (r"\scriptsize", 114, False), (r"\scriptsize", 136, False),
         (r"\footnotesize", 158, True), (r"\scriptsize", 174, True), (r"\tiny", 208, True))
"""(font size, letters that fit a line, whether the page is turned), in the order in which they are tried. The third needs a
little shrinking, which only a table on a single page allows."""
GAP = 2.0
"""Width of the space between two columns, in letters."""
NARROW, WIDE = 16, 40
"""Smallest widths, in letters, of a column of sentences and of a column of long sentences."""
LONGEST_WORD = 40
"""Number of letters without a blank after which a line may break; natural words are shorter."""
LINES = 44
"""A table of more lines than this runs over several pages."""
PACKAGES = ("booktabs", "graphicx", "array", "longtable")
SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    # At the start of a row, LaTeX would read these as an argument of the line break before it.
    "[": "{[}", "]": "{]}", "*": "{*}", "±": r"$\pm$", "–": "--", "—": "---", "−": "$-$", "×": r"$\times$", "†": r"$\dagger$",
    "‡": r"$\ddagger$", "→": r"$\rightarrow$", "↗": r"$\nearrow$", "≥": r"$\geq$", "≤": r"$\leq$", "≈": r"$\approx$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "✓": r"$\surd$", "✗": r"$\times$", "∞": r"$\infty$", "√": r"$\surd$", "°": r"$^\circ$", "µ": r"$\mu$", "θ": r"$\theta$",
    "α": r"$\alpha$", "Δ": r"$\Delta$", "²": "$^2$", "½": "1/2", "“": "``", "”": "''", "‘": "`", "’": "'", "\"": "''",
    "`": r"\`{}",
    "\u00a0": "~", "\u2011": "-",
    # raised letters, as marks of significance
    **{sign: f"$^{{{letter}}}$" for sign, letter in zip("ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ", "abcdefghijklmnoprstuvwxyz")}}
LETTERS = set("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ")
"""Letters beyond ASCII that LaTeX's default fonts have; others lose their accents or are replaced by their code point."""


def latex(text: str, breaks: bool = False) -> str:
    r"""Escape text for LaTeX, whatever letters and signs it holds; `breaks`: long names may break at their joints.

    >>> latex("50% of a_b & {c} ± 1")
    '50\\% of a\\_b \\& \\{c\\} $\\pm$ 1'
    >>> latex("`run --all` ő 猫"), latex("a_b/c", breaks=True)
    ('\\texttt{run -{}-all} o {[}U+732B{]}', 'a\\_\\allowbreak{}b/\\allowbreak{}c')
    """
    text = " ".join(visible(text).split())
    # Text between backquotes is a command.
    parts = text.split("`") if text.count("`") % 2 == 0 else [text]
    return "".join(_latex(part, breaks) if i % 2 == 0 else f"\\texttt{{{_latex(part, breaks)}}}" for i, part in enumerate(parts))


def _latex(text: str, breaks: bool) -> str:
    out: list[str] = []
    run = 0
    for i, character in enumerate(text):
        if character in SIGNS:
            out.append(SIGNS[character])
        elif character == "-":
            out.append("-{}" if text[i + 1:i + 2] == "-" else "-")  # two hyphens would become a dash
        elif " " <= character <= "~" or character in LETTERS:
            out.append(character)
        else:
            plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
            out.append(_latex(plain, False) if plain else f"{{[}}U+{ord(character):04X}{{]}}")
        run = 0 if character == " " else run + 1
        if text[i + 1:i + 2].strip() and (breaks and character in "_/.=-" or run % LONGEST_WORD == 0 and run):
            out.append(r"\allowbreak{}")
    return "".join(out)


class TableColumn(Protocol):
    """The properties of a column that the layout needs."""

    @property
    def name(self) -> str: ...
    @property
    def numeric(self) -> bool: ...
    @property
    def wrap(self) -> bool: ...
    @property
    def wide(self) -> bool: ...


@dataclass(frozen=True)
class Layout:
    """The layout of a table in LaTeX."""

    columns: str
    breaks: tuple[bool, ...]
    size: str
    long: bool
    """Whether the table runs over several pages."""
    turned: bool
    """Whether the table needs a page in landscape; on a narrower page it shrinks."""


def layout(columns: Sequence[TableColumn], rows: Sequence[Sequence[str]], sections: int = 0) -> Layout:
    """TableColumn specification and font size by the lengths of the texts; `sections`: further lines across the table."""
    texts = [[row[i] for row in rows] for i in range(len(columns))]
    natural = [max([len(column.name), *(len(text) for text in texts[i])]) for i, column in enumerate(columns)]
    least = [float(WIDE if column.wide else NARROW) for column in columns]
    wraps = [(column.wrap or not column.numeric and width > LONGEST_WORD) and width > low
             for column, width, low in zip(columns, natural, least)]
    for size, letters, turned in SIZES:  # noqa: B007 - the size that is settled on is used below
        if letters == SIZES[2][1] and len(rows) + sections > LINES / 1.5:
            continue
        room = letters - GAP * len(columns)
        fixed = sum(width for width, wrap in zip(natural, wraps) if not wrap)
        if fixed + sum(low for low, wrap in zip(least, wraps) if wrap) <= room:
            break
    widths: list[float] = [*natural]
    if fixed + sum(width for width, wrap in zip(natural, wraps) if wrap) > room:
        # Room is shared by the square root of the lengths: the longest text gets most room, and none gets less than its minimum.
        shares = [width ** 0.5 if wrap else 0.0 for width, wrap in zip(natural, wraps)]
        widths = [max((room - fixed) * share / sum(shares), low) if share else width
                  for width, share, low in zip(natural, shares, least)]
    else:
        wraps = [False] * len(natural)
    specification = "".join(rf">{{\raggedright\arraybackslash}}p{{{0.96 * width / letters:.3f}\linewidth}}" if wrap
                      else "r" if column.numeric else "l" for column, wrap, width in zip(columns, wraps, widths))
    lines = sum(max([1.0, *(len(texts[i][k]) / widths[i] + 0.5 for i, wrap in enumerate(wraps) if wrap)])
                for k in range(len(rows)))
    return Layout(specification, tuple(wraps), size, lines + sections > (LINES if not turned else LINES * 0.66), turned)
