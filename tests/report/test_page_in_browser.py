"""The report's page in a real browser: tables sort and filter, rows are marked wherever they stand, and nothing is asked for."""
from __future__ import annotations

import json

import pytest
from support.browser import COLOURS, Browser, installed
from support.result_folders import EMOJI_VARIANTS, write_suite

from reports.render.command import render

SECONDS = (42.0, 7560.0, 3000.0, None, 0.00001)
TABLE = "document.querySelector('#table-emoji-fixed-comparison table')"


@pytest.fixture(scope="module")
def page(tmp_path_factory, overview_alone):
    root = tmp_path_factory.mktemp("suite")
    made = write_suite(root, EMOJI_VARIANTS, seeds=(0, 1), pictures=False)
    for run, seconds in zip(made.values(), SECONDS):
        record = json.loads((run / "provenance.json").read_text())
        (run / "provenance.json").write_text(json.dumps(record | {"train_seconds": seconds}))
    render(root, root / "report")
    return root / "report" / "index.html"


@pytest.fixture
def browser(page):
    with Browser(installed()) as own:
        own.open(page.as_uri())
        yield own
        assert own.messages == [] and all(address.startswith(("file:", "data:")) for address in own.requests)


def columns(browser: Browser, number: int) -> list[list[str]]:
    """The texts of one column in the table's blocks, references left out."""
    return browser.run(f"""(() => {{ const blocks = [];
      for (const row of {TABLE}.tBodies[0].rows) {{
        if (row.classList.contains('section')) blocks.push([]);
        else if (!row.classList.contains('reference')) blocks[blocks.length - 1].push(row.cells[{number}].textContent.trim());
      }} return blocks; }})()""")


def click(browser: Browser, number: int) -> str:
    """Click a column's heading; how the column says it is sorted then."""
    return browser.run(f"(head => {{ head.querySelector('button').click(); return head.getAttribute('aria-sort'); }})"
                       f"([...{TABLE}.tHead.rows].at(-1).cells[{number}])")


def test_a_column_sorts_within_its_blocks_and_goes_back(browser):
    as_rendered = columns(browser, 2), columns(browser, 0)
    value = [[float(text.split()[0]) for text in block] for block in as_rendered[0]]
    assert len(value) == 2 and all(len(block) == 7 and block != sorted(block) for block in value)
    for way, backwards in (("descending", True), ("ascending", False)):
        assert click(browser, 2) == way
        found = [[float(text.split()[0]) for text in block] for block in columns(browser, 2)]
        assert found == [sorted(block, reverse=backwards) for block in value]
        named = [dict(zip(*block)) for block in zip(columns(browser, 0), columns(browser, 2))]
        assert named == [dict(zip(*block)) for block in zip(as_rendered[1], as_rendered[0])]
    assert click(browser, 2) == "none" and (columns(browser, 2), columns(browser, 0)) == as_rendered
    last = browser.run(f"[...{TABLE}.tBodies[0].rows].at(-1).className")
    assert "reference" in last  # the ceiling stays below its rows


def test_times_sort_by_how_long_they_are(browser):
    """And not by the number that they begin with."""
    table = TABLE.replace("emoji-fixed-comparison", "provenance")
    column = browser.run(f"[...[...{table}.tHead.rows].at(-1).cells]"
                         ".findIndex(cell => cell.textContent === 'Training')")
    browser.run(f"[...{table}.tHead.rows].at(-1).cells[{column}].querySelector('button').click()")
    found = browser.run(f"[...{table}.tBodies[0].rows].map(row => row.cells[{column}].textContent.trim())")
    assert list(dict.fromkeys(found)) == ["2 h 06 min", "50 min 00 s", "12 min 34 s", "42 s", "0 s", "–"]


def test_a_filter_leaves_the_rows_that_hold_its_text(browser):
    shown = (f"[...{TABLE}.tBodies[0].rows].filter(row => !row.hidden && !row.classList.contains('section'))"
             ".map(row => row.cells[0].textContent.trim())")
    everything = browser.run(shown)
    write = ("(text => {{ const box = document.querySelector('#table-emoji-fixed-comparison input');"
             "box.value = text; box.dispatchEvent(new Event('input')); }})({!r})")
    browser.run(write.format("UNtrained"))
    found = browser.run(shown)
    assert found == [text for text in everything if "Untrained" in text] and len(found) == 8
    browser.run(write.format("no such row"))
    assert browser.run(shown) == [] and browser.run(f"[...{TABLE}.querySelectorAll('tr.section')].every(row => row.hidden)")
    browser.run(write.format(""))
    assert browser.run(shown) == everything


def test_a_row_is_marked_wherever_it_stands(browser):
    picked = "[...document.querySelectorAll('tr.picked')].map(row => row.cells[0].textContent.trim())"
    browser.run(f"[...{TABLE}.tBodies[0].rows].find(row => row.cells[0].textContent.trim().startsWith('HWS'))"
                ".cells[0].querySelector('button').click()")
    names = browser.run(picked)
    tables = browser.run("new Set([...document.querySelectorAll('tr.picked')].map(row => row.closest('figure').id)).size")
    assert len(set(names)) == 1 and names[0].startswith("HWS") and tables >= 2
    browser.run("document.querySelector('tr.picked td button').click()")
    assert browser.run(picked) == []


def test_the_whole_report_passes_the_rules_of_accessibility(browser):
    assert browser.findings(but=COLOURS) == []
    # Of the long tables one, which the others look like.
    short = "nav, h1, p, #found, #answers, #claims, #time, #missing, #table-emoji-fixed-comparison"
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        assert browser.findings(*COLOURS, within=short) == []
    browser.run("document.querySelector('h1').style.color = '#333'")
    assert [text.split(":")[0] for text in browser.findings(*COLOURS, within="h1")] == ["color-contrast"]  # found where it is so
