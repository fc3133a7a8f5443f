"""Text from results in every format that leaves the report: HTML, Markdown, LaTeX, CSV, pictures, names of files.

The names below hold what each format takes for a command. Oracles: an HTML parser, a LaTeX compiler, a CSV reader, the letters
that a file's name may have.
"""
from __future__ import annotations

import contextlib
import csv
import html.parser
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import fuzz
from support.result_folders import write_run, write_suite

from reports.figures import draw
from reports.read import escaping
from reports.read.schema import Task
from reports.read.suite import read_suite
from reports.render import command
from reports.render.page import ENVIRONMENT, TEMPLATES, breakable, code
from reports.tables.latex import latex
from reports.tables.table import Column, Entry, Row, Table

pytestmark = pytest.mark.usefixtures("whole_fonts")

HOSTILE = ("<script>alert(1)</script>", "\" onmouseover=\"alert(1)", "' autofocus onfocus='alert(1)", "a&b &amp; &#60;",
           "50% of $x_1$", "\\input{/etc/passwd}", "\\end{document}", "^^41 ~ # {", "}{", "line\nbreak\r\n\ttab",
           "abc\u202edcba\u2066x", "nul\x00bell\x07esc\x1b[31m", "half \ud800 pair", "=HYPERLINK(\"x\")", "+1+cmd|' /C calc'!A0",
           "@SUM(A1)", "-2+3", "| cell | `code` *bold*", "[link](javascript:alert(1))", "![x](http://x/y.png)",
           "--> <!-- ]]> </style></pre>", "猫 ő ß 😀", "../../../etc/x", "x" * 3000, "% comment", "# heading", "1. list",
           "- item", " ", "\u00a0")
PRINTED = ENVIRONMENT.from_string('<p title="{{ text }}">{{ text }}{{ [text] | join }}!</p>')
TEXT = st.text(st.one_of(st.characters(), st.sampled_from("<>&\"'%\\$#_{}^~|`*[]()!=+-@\n\r\t\x00\u202e\ud800")), max_size=60)


class Reader(html.parser.HTMLParser):
    """Tags and attributes as a browser sees them, and the text between."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.text: list[str] = []
        self.titles: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.titles += [value or "" for name, value in attrs if name == "title"]
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}

    def handle_data(self, data):
        self.text.append(data)


def parsed(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


@fuzz("texts to escape")
@given(TEXT)
def test_html_gives_back_the_text_and_no_tag(text):
    page = parsed(PRINTED.render(text=text))
    assert page.tags == {"p"} and page.attributes == {"title"}
    assert "".join(page.text) == f"{escaping.visible(text)}{escaping.visible(text)}!" == page.titles[0] + page.titles[0] + "!"
    assert page.titles[0].encode("utf-8") is not None


@fuzz("texts to escape")
@given(TEXT)
def test_code_and_dotted_names_in_html_give_back_the_text_and_no_tag_but_their_own(text):
    page = parsed(str(code(text)))
    assert page.tags <= {"code"} and not page.attributes
    assert "".join(page.text) == escaping.visible(text.replace("`", "") if text.count("`") % 2 == 0 else text)
    page = parsed(str(breakable(text)))
    assert page.tags <= {"wbr"} and not page.attributes and "".join(page.text) == escaping.visible(text)


def test_no_template_prints_what_is_not_escaped():
    for path in TEMPLATES.glob("*.j2"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text), path
        assert not re.search(r"<[^>]*=\s*{{", text), path  # every attribute that a template fills stands in quotes
    assert ENVIRONMENT.autoescape is True


@fuzz("texts to escape")
@given(TEXT)
def test_latex_holds_no_command_but_its_own(text):
    made = latex(text, breaks=True)
    assert made.isprintable() and made.count("{") - made.count("\\{") == made.count("}") - made.count("\\}")
    commands = set(re.findall(r"\\([a-zA-Z]+)", made))
    assert commands <= {"textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "pm", "times",
                        "dagger", "rightarrow", "nearrow", "geq", "leq", "approx", "cdot", "ldots", "surd", "infty", "circ", "mu",
                        "theta", "alpha", "Delta", "allowbreak", "texttt"}, commands
    bare = re.sub(r"\\[%&#_$]|\$\\[a-zA-Z]+\$|\$-\$|\$\^(\\circ|2)\$", "", made)
    assert not set("%&#_$") & set(bare), made


@fuzz("texts to escape")
@given(TEXT)
def test_markdown_stays_on_its_line_and_in_its_cell(text):
    made = escaping.markdown(text)
    assert "\n" not in made and "\r" not in made and made.encode("utf-8") is not None
    assert not re.search(r"(?<!\\)(\\\\)*[|<>*`\[\]~]", made), made
    assert not re.match(r"(#+( |$)|[-+=]( |$)|\d+[.)]( |$))", made)


@fuzz("texts to escape")
@given(st.lists(TEXT, min_size=1, max_size=4))
def test_csv_fields_come_back_and_are_no_formulas(texts):
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(map(escaping.csv_text, texts))
    fields = next(csv.reader(io.StringIO(stream.getvalue())), [""])
    for text, field in zip(texts, fields, strict=True):
        number = re.fullmatch(r"[+-]\d[\d.eE+± -]*", field)
        assert number or not field.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert field.removeprefix("'") == re.sub(r"[\r\n\t]+", " ", escaping.visible(text)).removeprefix("'")


@fuzz("texts to escape")
@given(TEXT, TEXT, TEXT, TEXT)
def test_names_of_files_are_plain_short_and_distinct(a, b, c, d):
    first, second = escaping.slug(a, b), escaping.slug(c, d)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", first) and not first.startswith((".", "-"))
    assert (first == second) == ((a, b) == (c, d))


def test_tasks_whose_names_differ_in_signs_alone_have_files_of_their_own():
    tasks = [Task("a b", "1"), Task("a/b", "1"), Task("a", "b-1"), Task("a-b", "1"), Task("..", ".."), Task("猫", "1"),
             Task("犬", "1")]
    assert len({task.slug for task in tasks}) == len(tasks) and Task("sketchy", "2").slug == "sketchy-2"


def test_numbers_in_a_table_stay_numbers_and_formulas_do_not(tmp_path):
    table = Table("t", "T", (Column("=x"), Column("n", numeric=True)),
                         (Row((Entry("=cmd|x"), Entry("-0.5", -0.5))),
                          Row((Entry("+a"), Entry("−0.5")))))
    rows = list(csv.reader(io.StringIO(table.to_csv())))
    assert rows == [["section", "'=x", "n"], ["", "'=cmd|x", "-0.5"], ["", "'+a", "−0.5"]]
    frame = escaping.csv_frame(pd.DataFrame({"class": ["=1", "b"], "value": [-0.5, 1.0]}))
    assert frame["class"].tolist() == ["'=1", "b"] and frame["value"].tolist() == [-0.5, 1.0]


@pytest.fixture(scope="module")
def hostile_call(tmp_path_factory) -> tuple[Path, int, str, str]:
    """A suite whose classes, variants, data set, reasons, commands and commits are the hostile names; rendered, with figures. The
    exit status of the command, and what it printed to both streams."""
    root = tmp_path_factory.mktemp("hostile")
    names = [name for name in HOSTILE if name.strip() and "\ud800" not in name]
    kept = write_suite(root, ("tcn", "nws", "untrained-svd"), ledger=True)
    for folder in kept.values():
        shutil.rmtree(folder)
    for number, variant in enumerate(("tcn", "nws", "untrained-svd", *HOSTILE[:6], HOSTILE[23])):
        folder = write_run(root, "hws", number, class_names=names)
        found = json.loads((folder / "config.json").read_text())
        found |= {"variant": variant, "seed": number if number > 2 else 0}
        (folder / "config.json").write_text(json.dumps(found))
        found = json.loads((folder / "provenance.json").read_text())
        found |= {key: HOSTILE[(number + k) % 20] for k, key in enumerate(
            ("commit", "device", "command", "platform", "selected_by", "words", "weights", "data_digest", "split_digest"))}
        found |= {"dirty": True, "versions": {name: name for name in HOSTILE}, "notes": list(HOSTILE)}
        (folder / "provenance.json").write_text(json.dumps(found))
        (folder / "diff.patch").write_text("\n".join(names[:20]).replace("\x00", ""))
        folder.rename(folder.parent / f"run {number} of <b>&\"'$%\\_#{{}}~^ \n\u202e \udce4")
    for number, reason in enumerate(HOSTILE):
        folder = write_run(root, "sake", number)
        (folder / "status.json").write_text(json.dumps({"state": "failed" if number % 2 else reason.strip() or "new",
                                                        "reason": reason, "epochs": 3}))
    head = json.loads((root / "suite.json").read_text())
    head |= {"command": HOSTILE[0] + HOSTILE[5], "created": HOSTILE[1], "profile": HOSTILE[2],
             "missing_datasets": {name: name for name in HOSTILE}}
    head["runs"] = [{"dataset": HOSTILE[0], "split": HOSTILE[5], "variant": name, "seed": 0, "folder": "runs/none"}
                     for name in HOSTILE if name.strip()]
    for entry, name in zip(head["ledger"], HOSTILE):
        entry |= dict.fromkeys(("title", "consequence", "setting", "released", "corrected", "note"), name)
    (root / "suite.json").write_text(json.dumps(head))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command.main(["--results", str(root)])
    return root, status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def hostile(hostile_call) -> Path:
    return hostile_call[0]


def test_the_page_has_no_tag_attribute_or_address_from_results(hostile):
    text = (hostile / "report" / "index.html").read_text(encoding="utf-8")
    page = parsed(text)
    data = re.findall(r'<script type="application/json" id="[a-z0-9-]+">[^<>&]*</script>', text)
    assert text.count("<script") - len(data) == 1 and len(data) > 1  # the page's own, and data in which no tag can begin
    assert all(text.count((TEMPLATES / name).read_text(encoding="utf-8")) == 1 for name in ("page.js", "explorer.js"))
    assert not {"iframe", "object", "link", "base", "form", "svg", "b"} & page.tags
    assert not {name for name in page.attributes if name.startswith("on")} and "autofocus" not in page.attributes
    assert all(link.startswith(("#", "data:image/png;base64,", "figures/", "tables/", "latex/", "report.md", "../runs/"))
               for link in page.links), page.links
    shown = "".join(page.text)
    assert "can't be drawn" not in shown and "can't be worked out" not in shown
    assert "\x00" not in text and "\u202e" not in text and "\x1b" not in text
    assert "<script>alert(1)</script>" in shown and "[U+202E]" in shown and "[U+D800]" in shown
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(re.findall(r'id="([^"]+)"', text))


def test_links_to_odd_folders_lead_to_them(hostile):
    import urllib.parse
    text = (hostile / "report" / "index.html").read_text(encoding="utf-8")
    links = [link for link in parsed(text).links if link.startswith("../runs/") and link.endswith("config.json")]
    assert len(links) == 10
    for link in links:
        assert (hostile / "report" / urllib.parse.unquote(link, errors="surrogateescape")).is_file()


def test_every_file_has_a_plain_name_and_is_utf_8(hostile):
    out = hostile / "report"
    files = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        assert re.fullmatch(r"[A-Za-z0-9._/-]+", path.as_posix()) and len(path.name) < 130
        if path.suffix not in (".png", ".pdf", ".npy"):
            assert "\x00" not in (out / path).read_text(encoding="utf-8")
    listed = (out / "files.txt").read_text().splitlines()
    assert {path.as_posix() for path in files if path.suffix in (".md", ".tex", ".csv", ".png", ".pdf")} == set(listed)


def test_no_field_of_a_csv_file_is_a_formula(hostile):
    for path in (hostile / "report").rglob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.reader(stream):
                for field in row:
                    assert not field.startswith(("=", "@", "\t", "\r")) and not re.match(r"[+-](?!\d|inf)", field), (path, field)


def test_markdown_rows_keep_their_columns(hostile):
    for path in (hostile / "report" / "tables").glob("*.md"):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in path.read_text(encoding="utf-8").splitlines()
                  if line.startswith("|")}
        assert len(counts) == 1, path
    text = (hostile / "report" / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<[a-zA-Z/!]", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_document_compiles_with_hostile_names(hostile):
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "report.tex"],
                          cwd=hostile / "report" / "latex", capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout.decode("latin-1")[-1500:]
    log = (hostile / "report" / "latex" / "report.log").read_text(encoding="latin-1")
    assert "Undefined control sequence" not in log and "/etc/passwd" not in "".join(re.findall(r"\([^()\s]+", log))
    for path in (hostile / "report" / "latex").glob("report.[!t]*"):
        path.unlink()


def test_messages_command_no_terminal(hostile_call):
    root, status, out, err = hostile_call
    assert status == 0 and not set("\x00\x07\x1b\u202e\r") & set(err + out)
    assert len(out.splitlines()) == 1
    assert all(line.startswith(("left out: ", "without numbers: ")) for line in err.splitlines() if "Warning" not in line
               and not line.startswith("  "))
    suite = read_suite(root)
    assert len([line for line in err.splitlines() if line.startswith("without numbers: ")]) == len(suite.unfinished)


def test_class_names_in_pictures_are_text(tmp_path):
    frame = pd.DataFrame({"variant": "tcn", "seed": 0, "class": [escaping.visible(name) for name in HOSTILE], "value": 0.5,
                          "hardness": range(len(HOSTILE)), "metric": "AP"})
    figure = draw.class_precision(frame)
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert labels[0].startswith("<script>") and all(len(label) <= 28 and label.isprintable() for label in labels)
    figure.savefig(io.BytesIO(), format="svg")
