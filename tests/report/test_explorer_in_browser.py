"""The report's explorer in a real browser: by mouse, by keys and on a narrow screen, inside one file and with files beside it."""
from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.browser import Browser, installed
from support.result_folders import tile_colour, write_pictures, write_suite

from reports.figures import frames
from reports.read.suite import read_suite
from reports.render import command, explorer

BUTTONS = "[...document.querySelectorAll('#explorer .queries button')]"
FIGURE = "figure-emoji-fixed-tsne"


@pytest.fixture(scope="module")
def root(tmp_path_factory, whole_fonts) -> Path:
    """A report with its two figures that lead somewhere, once as one file and once with files beside it."""
    root = tmp_path_factory.mktemp("suite")
    made = write_suite(root, ("tcn", "hws", "nws"), seeds=(0, 1), pictures=False, class_spread=0.3)
    write_pictures(root, made["tcn", 0], side=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_figures",
                      lambda suite, task, cache: [frames.tsne(suite, task, cache), frames.class_precision(suite, task)])
        command.render(root, root / "report")
        patch.setattr(explorer, "BUDGET", 0)
        command.render(root, root / "beside")
    return root


@pytest.fixture(params=["report", "beside"])
def browser(request, root):
    installed()
    page = root / request.param / "index.html"
    with Browser(installed()) as own:
        own.open(page.as_uri())
        own.until(f"{BUTTONS}.length === 36")
        yield own
        assert own.messages == []
        assert all(address.startswith((page.as_uri(), "data:", (page.parent / "pictures").as_uri())) for address in own.requests)


def arrays(root: Path, variant: str, seed: int = 0) -> dict[str, np.ndarray]:
    run = next(run for run in read_suite(root).runs if (run.variant, run.seed) == (variant, seed))
    return {**np.load(run.folder / "per_query.npz"), **np.load(run.folder / "features.npz")}


def texts(browser: Browser, selector: str) -> list[str]:
    return browser.run(f"[...document.querySelectorAll({selector!r})].map(one => one.textContent)")


def choose(browser: Browser, name: str, value: object) -> None:
    browser.run(f"(one => {{ one.value = '{value}'; one.dispatchEvent(new Event('change')); }})"
                f"(document.querySelector('[name={name}]'))")


def shown(browser: Browser, selector: str) -> list[tuple[int, int, int]]:
    """The colour at the middle of each tile, as the browser paints it."""
    middles = browser.run("(all => { all[0].scrollIntoView({block: 'center'}); "
                          f"""return all.map(one => {{ const box = one.getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 4]; }}); }})([...document.querySelectorAll({selector!r})])""")
    picture = Image.open(io.BytesIO(base64.b64decode(
        browser.call("Page.captureScreenshot", format="png")["data"]))).convert("RGB")
    return [picture.getpixel((round(x), round(y))) for x, y in middles if y < picture.height]


def near(found: tuple[int, int, int], wanted: tuple[int, int, int]) -> bool:
    return max(abs(a - b) for a, b in zip(found, wanted)) < 12


def test_a_query_leads_to_the_photos_of_each_method(root, browser):
    choose(browser, "order", "listed")
    browser.until(f"{BUTTONS}[0].dataset.query === '0'")
    number = 17
    browser.run(f"{BUTTONS}[{number}].click()")
    browser.until("document.querySelectorAll('#explorer .answer .row').length === 3")
    assert texts(browser, "#explorer .answer h3") == ["Query sketch of thing 05"]
    assert ([text.split(",")[0] for text in texts(browser, "#explorer .row p a")]
            == ["TCN (soft sharing)", "HWS (hard sharing)", "NWS (no sharing)"])
    (asked,) = shown(browser, "#explorer .asked .tile")
    assert near(asked, tile_colour(number))
    for place, variant in enumerate(("tcn", "hws", "nws"), 1):
        found = arrays(root, variant)
        unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (found["query"], found["gallery"])]
        ranked = np.argsort(((unit[1] - unit[0][number]) ** 2).sum(1), kind="stable")[:10]
        labels = browser.run(f"[...document.querySelectorAll('#explorer .row:nth-of-type({place + 1}) .tile')]"
                             ".map(one => one.ariaLabel)")
        assert labels == [f"rank {rank}: {found['gallery_labels'][photo]}, "
                          f"{'right' if found['gallery_labels'][photo] == 'thing 05' else 'wrong'}"
                          for rank, photo in enumerate(ranked, 1)]
        colours = shown(browser, f"#explorer .row:nth-of-type({place + 1}) .tile")
        assert len(colours) == 10 and all(near(colour, tile_colour(36 + photo)) for colour, photo in zip(colours, ranked))
        assert f"AP {found['real/released/mAP@all'][number]:.2f}" in texts(browser, "#explorer .row p")[place - 1]


def test_a_bar_leads_to_the_queries_of_its_class_and_orders_follow_the_values(root, browser):
    tcn, nws = (arrays(root, variant)["real/released/mAP@all"] for variant in ("tcn", "nws"))
    choose(browser, "b", 4)  # NWS, seed 0
    choose(browser, "order", "behind")
    order = sorted(range(36), key=lambda query: (round(tcn[query] * 1e4) - round(nws[query] * 1e4), query))
    browser.until(f"JSON.stringify({BUTTONS}.map(one => +one.dataset.query)) === '{json.dumps(order, separators=(',', ':'))}'")
    means = pd.Series(tcn).groupby(arrays(root, "tcn")["class"]).mean().sort_values()
    assert texts(browser, "#explorer .bars .name") == means.index.tolist()
    assert texts(browser, "#explorer .bars .value")[0].startswith(f"{means.iloc[0]:.2f} · ")
    browser.run("[...document.querySelectorAll('#explorer .bars button')]"
                ".find(one => one.textContent.startsWith('thing 07')).click()")
    browser.until(f"{BUTTONS}.length === 3")
    assert sorted(browser.run(f"{BUTTONS}.map(one => +one.dataset.query)")) == [21, 22, 23]
    assert browser.run("document.querySelector('[name=class]').selectedOptions[0].text") == "thing 07"


def test_keys_alone_open_a_query_and_go_on(browser):
    browser.run(f"{BUTTONS}[0].focus()")
    browser.press("Enter")
    browser.until("document.querySelectorAll('#explorer .answer .row').length === 3")
    first = texts(browser, "#explorer .answer h3")
    order = browser.run(f"{BUTTONS}.map(one => one.title)")
    browser.run("[...document.querySelectorAll('#explorer .answer button')][1].focus()")
    for step in (1, 2):  # the focus stays on "next →"
        browser.press("Enter")
        browser.until(f"{BUTTONS}[{step}].getAttribute('aria-pressed') === 'true'"
                      " && document.activeElement.textContent === 'next →'")
        assert texts(browser, "#explorer .answer h3") == [f"Query sketch of {order[step]}"]
    assert first == [f"Query sketch of {order[0]}"]
    browser.run("[...document.querySelectorAll('#explorer .answer button')].at(-1).focus()")
    browser.press("Enter")
    browser.until("document.querySelectorAll('#explorer .answer .row').length === 0")
    assert browser.run(f"document.activeElement === {BUTTONS}[2]")


def test_a_point_of_tsne_says_what_it_is(root, browser):
    """The mouse goes to where the picture itself shows the points of the first panel's frame."""
    frame = pd.read_csv(root / "report" / "figures" / "emoji-fixed-tsne.csv")
    told = json.loads(browser.run("document.getElementById('explorer-index').textContent"))["tasks"][0]["maps"][0]
    place = [np.frombuffer(base64.b64decode(told[axis]), "<u2") / 10_000 for axis in "xy"]
    browser.run(f"document.querySelector('#{FIGURE} .map').scrollIntoView()")
    left, top, width, height = browser.run("(box => [box.left, box.top, box.width, box.height])"
                                           f"(document.querySelector('#{FIGURE} img').getBoundingClientRect())")
    for row in (0, 40, 75, 95, 200):
        browser.move(left + place[0][row] * width, top + place[1][row] * height)
        browser.until(f"!document.querySelector('#{FIGURE} .tip').hidden")
        text = texts(browser, f"#{FIGURE} .tip span:last-child")[0]
        close = (np.hypot((place[0] - place[0][row]) * width, (place[1] - place[1][row]) * height) < 1.5).nonzero()[0]
        assert any(text.startswith(f"{frame['modality'][one]} of {frame['class'][one]}") for one in close), (row, text)
        panel = {"nws": "NWS (no sharing)", "hws": "HWS (hard sharing)", "tcn": "TCN (soft sharing)"}[frame["variant"][row]]
        assert text.endswith(panel)
    browser.move(left + width / 2, top + height + 200)
    browser.until(f"document.querySelector('#{FIGURE} .tip').hidden")


def test_arrow_keys_go_from_point_to_point_and_enter_opens_a_sketch(browser):
    browser.run(f"document.querySelector('#{FIGURE} .map').focus()")
    seen = set()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowRight"):
        browser.press(key)
        seen.add(browser.run(f"document.querySelector('#{FIGURE} .ring').style.cssText"))
    assert len(seen) >= 4
    for _ in range(60):
        if texts(browser, f"#{FIGURE} .tip span:last-child")[0].startswith("sketch"):
            break
        browser.press("ArrowRight")
    name = texts(browser, f"#{FIGURE} .tip span:last-child")[0].split(" of ")[1][:8]
    browser.press("Enter")
    browser.until("document.querySelectorAll('#explorer .answer .row').length === 3")
    assert texts(browser, "#explorer .answer h3") == [f"Query sketch of {name}"]


def test_the_figure_of_hard_classes_and_the_entries_of_runs_lead_here(browser):
    assert browser.run("document.querySelector('#figure-emoji-fixed-class-precision figcaption a[href=\"#queries\"]') !== null")
    browser.run("[...document.querySelectorAll('#runs details')]"
                ".find(one => one.querySelector('summary').textContent.includes('__hws__seed1'))"
                ".querySelector('a[href=\"#queries\"]').click()")
    browser.until("document.querySelector('[name=a]').value === '3'")
    assert browser.run("document.querySelector('[name=a]').selectedOptions[0].text") == "HWS (hard sharing), seed 1"


def test_a_row_marked_in_a_table_is_the_run_that_is_looked_at(browser):
    def runs() -> list[str]:
        return browser.run("[...document.querySelectorAll('[name=a], [name=b]')].map(one => one.selectedOptions[0].text)")

    choose(browser, "a", 0)
    choose(browser, "b", 2)
    assert [text.split(",")[0] for text in runs()] == ["TCN (soft sharing)", "HWS (hard sharing)"]
    mark = ("[...document.querySelectorAll('tbody td:first-child > button')]"
            ".find(one => one.textContent.trim() === 'NWS (no sharing)').click()")
    browser.run(mark)
    browser.until("document.querySelector('[name=a]').selectedOptions[0].text.startsWith('NWS')")
    assert runs()[1].startswith("TCN (soft sharing)")
    browser.run(mark)  # the mark is taken away, and what is looked at stays
    assert runs()[0].startswith("NWS")


def test_a_long_name_of_a_class_widens_no_page(root):
    with Browser(installed()) as own:
        own.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        own.open((root / "report" / "index.html").as_uri())
        own.run("explored.tasks[0].maps[0].classes.fill('letters'.repeat(15))")
        own.run(f"document.querySelector('#{FIGURE} .map').focus()")
        for key in ("ArrowRight",) * 4 + ("ArrowDown",) * 3:
            own.press(key)
            assert "letters" in texts(own, f"#{FIGURE} .tip span:last-child")[0]
            assert own.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def two_splits(tmp_path_factory, whole_fonts) -> Path:
    """The page of a report on two splits, of which the name of one begins that of the other."""
    root = tmp_path_factory.mktemp("two")
    for split in ("1", "1-b"):
        write_suite(root, ("tcn", "hws", "nws"), dataset="sketchy", split=split, pictures=False, class_spread=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_figures", lambda suite, task, cache: [frames.class_precision(suite, task)])
        return command.render(root, root / "report")


def test_a_figure_and_a_row_lead_to_the_queries_of_their_own_data_set(two_splits):
    with Browser(installed()) as own:
        own.open(two_splits.as_uri())
        splits = list(enumerate(("sketchy-1", "sketchy-1-b")))
        for number, name in splits[::-1]:
            own.run(f"document.querySelector('#figure-{name}-class-precision a[href=\"#queries\"]').click()")
            own.until(f"document.querySelector('[name=task]').value === '{number}'")
        for (number, name), row in zip(splits[::-1], ("NWS", "HWS")):
            own.run(f"[...document.querySelectorAll('#table-{name}-comparison tbody td:first-child > button')]"
                    f".find(one => one.textContent.startsWith('{row}')).click()")
            own.until(f"document.querySelector('[name=task]').value === '{number}'"
                      f" && document.querySelector('[name=a]').selectedOptions[0].text.startsWith('{row}')")


@pytest.mark.parametrize("scheme, width", [("light", 1200), ("dark", 390)])
def test_the_page_passes_the_rules_of_accessibility(root, scheme, width):
    with Browser(installed()) as own:
        own.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        own.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        own.open((root / "report" / "index.html").as_uri())
        own.until(f"{BUTTONS}.length === 36")
        own.run(f"{BUTTONS}[0].click()")
        own.until("document.querySelectorAll('#explorer .answer .row').length === 3")
        assert own.findings(within="#explorer") == []  # the rest of the page: test_page_in_browser
        assert own.run("document.documentElement.scrollWidth <= innerWidth")
        own.run("document.querySelector('#explorer .answer button').replaceChildren()")
        found = own.findings("button-name", within="#explorer")
        assert [text.split(":")[0] for text in found] == ["button-name"]  # the rules do find what breaks them


def test_on_paper_the_report_is_as_before(root):
    with Browser(installed()) as own:
        own.open((root / "report" / "index.html").as_uri())
        own.call("Emulation.setEmulatedMedia", media="print")
        assert own.run("getComputedStyle(document.getElementById('queries')).display") == "none"
        own.run(f"document.querySelector('#{FIGURE} .map').focus()")
        assert own.run(f"document.querySelector('#{FIGURE} img').getBoundingClientRect().width") > 100


def test_inside_mlflow_the_page_says_where_its_queries_can_be_seen(root, tmp_path):
    """MLflow shows a page as a blob, in a frame that may run scripts and nothing else; there the files beside it are lost."""
    page = (root / "beside" / "index.html").read_text()
    page += "<script>setInterval(() => parent.postMessage(document.getElementById('explorer').innerText, '*'), 50)</script>"
    text = json.dumps(page).replace("<", r"\u003c")
    (tmp_path / "frame.html").write_text(f"""<!doctype html><body><script>
        addEventListener("message", (event) => {{ window.told = event.data; }});
        const frame = document.createElement("iframe");
        frame.sandbox = "allow-scripts";
        frame.src = URL.createObjectURL(new Blob([{text}], {{ type: "text/html" }}));
        document.body.append(frame);
        </script>""")
    with Browser(installed()) as own:
        own.open((tmp_path / "frame.html").as_uri())
        own.until("window.told?.includes('MLflow shows this page without its folder: open report/index.html')")


def test_without_scripts_the_section_says_what_it_holds(root):
    page = (root / "report" / "index.html").read_text()
    part = page.split('<section id="queries">')[1].split("</section>")[0]
    assert "In a browser" in part and '<div id="explorer" hidden></div>' in part
