"""Text from results made fit to show: letters that hide or turn text become visible, and each format's own signs are escaped.

In: any text, as a folder, a class or a damaged file may hold it. Out: text for Markdown and CSV, and names for files and
anchors. Class names, variants, reasons, commands and paths all pass through here. LaTeX is escaped in `tables.latex`, HTML by
the templates of `render.page`.
"""
from __future__ import annotations

import hashlib
import re

import pandas as pd

HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, lone surrogates, unusual line separators, and marks that change the direction of text: with them a name can
look like another one."""
FORMULA = tuple("=+-@＝＋－＠")
"""First letters at which spreadsheets take a CSV field for a formula."""
LONGEST_NAME = 80
"""Most letters of a file's name or an anchor that come from results; endings and limits of file systems need the rest."""


def visible(text: object) -> str:
    r"""Text with control characters, lone surrogates and marks of direction as their code points; blanks and line ends stay.

    >>> visible("a\x00b\u202ec\n"), visible("\udc80")
    ('a[U+0000]b[U+202E]c\n', '[U+DC80]')
    """
    return HIDDEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", str(text))


def shortened(name: str, length: int = 40) -> str:
    r"""A name on one line that fits beside a panel.

    >>> shortened("a  b\n"), shortened("x" * 50, 4)
    ('a b', 'xxx…')
    """
    name = " ".join(visible(name).split())
    return name if len(name) <= length else name[:length - 1].rstrip() + "…"


def markdown(text: str, strip: bool = True) -> str:
    r"""Text escaped for Markdown, on one line, also within a table's cell. strip: without the blanks around it.

    >>> print(markdown("a|b <c>"), markdown(" x ", strip=False), markdown("# _a_ ~b~"), markdown("a_b, 1.5"), sep=";")
    a\|b \<c\>; x ;\# \_a\_ \~b\~;a_b, 1.5
    >>> print(markdown("- a"), markdown("12) b"), markdown("&amp; $x$"), sep=";")
    \- a;12\) b;\&amp; \$x$
    """
    inside = " ".join(visible(text).split())
    inside = re.sub(r"[\\|<>*`\[\]~]|\$(?=\S)|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|^[#+=-](?=[ #+=-]|$)", r"\\\g<0>", inside)
    inside = re.sub(r"^(\d+)([.)])(?= |$)", r"\1\\\2", inside)
    before, after = (" " * (text[:1] == " "), " " * (text[-1:] == " ")) if not strip and inside else ("", "")
    return before + inside + after


def csv_text(value: object) -> object:
    """A field of a CSV file, on one line. What a spreadsheet would run as a formula gets an apostrophe in front; numbers don't.

    >>> csv_text("=1+1"), csv_text("-0.25"), csv_text("tcn"), csv_text(-0.25)
    ("'=1+1", '-0.25', 'tcn', -0.25)
    """
    if not isinstance(value, str):
        return value
    text = re.sub(r"[\r\n\t]+", " ", visible(value))  # not every reader knows line ends within a field
    if not text.startswith(FORMULA):
        return text
    return text if re.fullmatch(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?( ± \d+(\.\d*)?)?", text, re.IGNORECASE) else f"'{text}"


def csv_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose text columns can be saved as CSV."""
    return frame.assign(**{str(name): frame[name].map(csv_text) for name in frame.columns
                           if not pd.api.types.is_numeric_dtype(frame[name])})


def slug(*parts: str) -> str:
    """Name for files and anchors: letters, digits, dots, hyphens and underscores only; different parts give different names.

    Where a name had to be changed or cut, digits of its digest keep it distinct from similar names.

    >>> slug("emoji", "fixed"), slug("a b")[:3], slug("a b") == slug("a-b"), slug("a", "b-c") == slug("a-b", "c")
    ('emoji-fixed', 'a-b', False, False)
    """
    whole = "-".join(parts)
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", whole).strip("-.")[:LONGEST_NAME].strip("-.") or "unnamed"
    if plain == whole and not any("-" in part for part in parts[:-1]):
        return plain
    return f"{plain}-{hashlib.sha256(repr(parts).encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
