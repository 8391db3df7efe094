"""What notebooks show, in a real browser without a screen, within the rules that JupyterLab has for its outputs."""

from __future__ import annotations

import shutil

import pytest

import formats
import simulator

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'ulpsim[test]'"
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no chromium on PATH: apt-get install chromium", allow_module_level=True)

WIDTHS = (400, 1000)
# Light and dark are the page's own, whatever the system prefers.
COLOURS = {"light": ("#ffffff", "#000000"), "dark": ("#111111", "#e0e0e0")}
AROUND = """<style>body{{font:14px system-ui,sans-serif;background:{};color:{};margin:1em}}
.output table{{border-collapse:collapse;table-layout:fixed;margin:0 auto 1em;font-size:12px}}
.output td,.output th{{vertical-align:middle;padding:.5em;line-height:normal;white-space:normal;text-align:right}}
.output tbody tr:nth-child(odd){{background:rgba(128,128,128,.08)}}</style><div class="output">{}</div>"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What is shown of records with long names, many columns, units and long texts."""
    varied = {"mac.low.accumulator": ["fma(fp8_e4m3/sat)", "fma(fp8_e5m2/sat)"], "policy.tolerance": [0.25, 1.0]}
    sweep = simulator.explore.sweep(
        "npu", varied, out=tmp_path_factory.mktemp("sweep"), gemms=[(64, 64, 64)], cost_only=True, flagged=0.1
    )
    bill = simulator.estimate("npu", (64, 64, 64), 0.1)
    records = (sweep, bill, bill.two_pass, simulator.load_hardware("npu"), formats.get("fp8_e4m3"))
    return "".join(record._repr_html_() for record in records)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # Chromium has no sandbox for the superuser, who runs tests in containers.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, shown):
    opened = []

    def open_page(width, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_content(AROUND.format(*COLOURS[scheme], shown))
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        page.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_stay_in_one_line_and_words_whole(visit, width):
    page = visit(width)
    broken = page.evaluate(
        r"""() => { const lines = (node, from, to) => { const range = document.createRange();
          range.setStart(node, from); range.setEnd(node, to);
          return new Set([...range.getClientRects()].map(at => at.top)).size; };
        return [...document.querySelectorAll(".ulpsim td, .ulpsim th, .ulpsim caption")].flatMap(cell => {
          const node = cell.firstChild; if (!node) return [];
          const text = node.data, whole = !cell.matches("td.text, th") ? [[0, text.length]]
            : [...text.matchAll(/[\w.]+/g)].map(word => [word.index, word.index + word[0].length]);
          return whole.filter(([from, to]) => lines(node, from, to) > 1).map(([from, to]) => text.slice(from, to));
        }); }"""
    )
    assert broken == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_wide_table_scrolls_in_its_place(visit, width):
    page = visit(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    over = page.evaluate("[...document.querySelectorAll('.wide')].filter(at => at.scrollWidth > at.clientWidth).length")
    assert (over > 0) == (width == min(WIDTHS))


@pytest.mark.parametrize("scheme", COLOURS)
def test_text_has_the_colour_of_the_page(visit, scheme):
    page = visit(1000, scheme)
    colours = page.evaluate(
        """[...document.querySelectorAll(".ulpsim p, .ulpsim td, .ulpsim th, .ulpsim caption")].map(
        at => getComputedStyle(at).color)"""
    )
    assert len(colours) > 100 and set(colours) == {page.evaluate("getComputedStyle(document.body).color")}
