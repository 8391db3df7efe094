"""Pages of reports in a real browser without a screen: chromium as the system has it, driven by playwright."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise

import pytest

from simulator.cost import expanded
from simulator.hardware import load_hardware
from simulator.report import render, render_front, render_runs
from simulator.report.bounds import render_bounds
from simulator.report.truncation import render_truncation
from simulator.report.two_pass import render_two_pass
from simulator.result import GatherResult
from tests.simulator.page_records import bounds_record, study_record, truncation_record
from tests.simulator.run_records import measured, search_record, sweep_record

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'ulpsim[test]'"
)
pytest.importorskip("plotly")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no chromium on PATH: apt-get install chromium", allow_module_level=True)

WIDTHS = (400, 1200)
SCHEMES = ("light", "dark")


def run_page():
    """A run with everything that a report can show."""
    gathers = tuple(
        GatherResult(of, gather, gather == "element", "side_engine", "tile", 100, 20, 20, 1.0, 10, 1e-6, 1.1, 0.9, 0.5)
        for of in (None, "fc1", "fc2")
        for gather in ("element", "row", "coltile", "tile")
    )
    return render(
        replace(
            measured(),
            machine=tuple(expanded(load_hardware("npu")).values()), hardware="npu", gathers=gathers, area_um2=1e5,
            area_parts_um2={"mul": 1e5}, peak_macs_per_cycle={"low": 1024.0, "high": 256.0}, dram_bits_per_cycle=204.8,
        )
    )  # fmt: skip


def runs_page():
    """Two runs on machines that differ."""
    machines = [tuple(expanded(load_hardware(name)).values()) for name in ("npu", "gemmini_like")]
    return render_runs({name: measured(machine=machine, complete=True)
                        for name, machine in zip(("npu", "gemmini"), machines, strict=True)})  # fmt: skip


def sweep_page():
    """A sweep with a front, points beside it, and one that failed."""
    return render_front(sweep_record())


def tracking_page():
    """Reliable bits of a small network in training."""
    torch = pytest.importorskip("torch")
    from simulator.report.tracking import render_tracking
    from simulator.tracking import track

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    with track(model) as bits:
        for _ in range(2):
            torch.nn.functional.cross_entropy(model(torch.randn(16, 6)), torch.arange(16) % 3).backward()
    return render_tracking({**bits.report().to_dict(), "model": "small"})


PAGES = {"run": run_page, "runs": runs_page, "sweep": sweep_page}
FULL = pytest.mark.full  # a page takes a browser two seconds, of which most are plotly's


STUDIES = {
    "two-pass study": lambda: render_two_pass(study_record()),
    "bounds": lambda: render_bounds(bounds_record()),
    "training study": lambda: render_truncation(truncation_record()),
    "tracking": tracking_page,
}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # Chromium has no sandbox for the superuser, who runs tests in containers.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["run", *(pytest.param(name, marks=FULL) for name in ("runs", "sweep"))])
def address(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / f"{request.param}.html"
    path.write_text(PAGES[request.param](), encoding="utf-8")
    return path.as_uri()


def opened(browser, address, width=1200, scheme="light"):
    """Open a page; what it says to the console, and what it asks the network for, is in `page.noise`."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.noise = []
    page.on("console", lambda message: page.noise.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: page.noise.append(f"error: {error}"))
    page.on("request", lambda request: page.noise.append(request.url))
    page.goto(address)
    return page


@pytest.fixture
def visit(browser, address):
    """Open the page, as `opened` does."""
    pages = []

    def open_page(width=1200, scheme="light"):
        pages.append(opened(browser, address, width, scheme))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


CONTRAST = """selector => {
  const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c)) return c; } };
  return [...document.querySelectorAll(selector)].map(e => {
    const [a, b] = [getComputedStyle(e).color, behind(e)].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
}"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_is_silent_and_asks_nobody_for_anything(visit, address, scheme):
    page = visit(scheme=scheme)
    page.wait_for_timeout(300)
    assert page.noise == [address]


def test_every_figure_is_drawn_with_all_its_traces(visit):
    page = visit()
    drawn = page.evaluate(
        """() => { const records = JSON.parse(document.getElementById("figures").textContent);
        return [...document.querySelectorAll("[data-figure]")].map(place => [
          records[place.dataset.figure].data.length,
          place.querySelectorAll(".main-svg .trace").length,
          place.getBoundingClientRect().height - place.querySelector(".main-svg").getBoundingClientRect().height]); }"""
    )
    assert drawn
    for traces, shown, beyond in drawn:
        assert shown == traces > 0 and abs(beyond) < 2


def test_numbers_on_axes_have_their_thousands_apart(browser, tmp_path):
    record = search_record()
    record |= {"numbers": {"cycles": "cycles", "accuracy": "share"}, "objectives": {"cycles": "min", "accuracy": "max"}}
    for place, point in enumerate(record["points"]):
        point["values"]["cycles"] = 1000 + 100 * place
    (tmp_path / "a.html").write_text(render_front(record), encoding="utf-8")
    page = opened(browser, (tmp_path / "a.html").as_uri())
    ticks = page.locator("#compromises .ytick").all_text_contents()
    assert "1,200" in ticks and not [tick for tick in ticks if tick.isdigit() and len(tick) > 3]
    page.close()


def test_folded_figures_are_drawn_as_wide_as_the_others_when_they_open(browser, tmp_path):
    (tmp_path / "a.html").write_text(render_front(search_record()), encoding="utf-8")
    page = opened(browser, (tmp_path / "a.html").as_uri())
    widths = "() => [...document.querySelectorAll('#parameters .main-svg:first-child')].map(svg => svg.clientWidth)"
    seen = page.evaluate(widths)
    page.locator("#parameters summary", has_text="8 more figures").click()
    page.wait_for_function("document.querySelectorAll('#parameters .main-svg:first-child').length === 12")
    assert len(seen) == 4 and page.evaluate(widths) == seen[:1] * 12
    page.close()


TEXT = "body, p, h1, h2, h3, th, td, summary, .facts, .basis, figcaption, dt, dd, a.term, li"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_stands_out_from_what_is_behind_it(visit, scheme):
    page = visit(scheme=scheme)
    ratios = page.evaluate(CONTRAST, TEXT)
    assert len(ratios) > 50 and min(ratios) >= 4.5, "WCAG 2.2, 1.4.3: contrast of 4.5 or more"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
    assert dark == (scheme == "dark")


def test_figures_follow_a_change_of_the_scheme(visit):
    page = visit()
    ink = "[...document.querySelectorAll('.xtick text')].map(one => getComputedStyle(one).fill)"
    light = set(page.evaluate(ink))
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    dark = set(page.evaluate(ink))
    assert light == {"rgb(29, 33, 38)"} and dark == {"rgb(228, 230, 232)"}


def test_printing_a_dark_page_gives_a_white_one_and_leaves_the_screen_dark(visit):
    page = visit(scheme="dark")
    page.evaluate(
        """() => { window.seen = []; const look = () => window.seen.push(
        getComputedStyle(document.querySelector(".xtick text")).fill); addEventListener("beforeprint", look); }"""
    )
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF") and paper.count(b"/Type /Page\n") >= 2
    assert page.evaluate("window.seen") == ["rgb(29, 33, 38)"], "dark ink on paper"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 33, 38)"
    page.emulate_media(media="screen")
    page.wait_for_timeout(300)
    assert page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill") == "rgb(228, 230, 232)"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(visit, width):
    fits(visit(width), width)


def fits(page, width):
    """Check that neither the page nor a figure in it is wider than the window, with all tables open."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    inner = page.evaluate(
        """() => [...document.querySelectorAll(".plot")].filter(one =>
        one.querySelector(".main-svg").getBoundingClientRect().width > one.getBoundingClientRect().width + 1).length"""
    )
    assert inner == 0, "no figure is cut off"


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(visit):
    assert stops(visit()) > 10


def stops(page):
    """Go through the page by Tab, check the order and that each stop shows itself, and return how many there are."""
    wanted = page.evaluate(
        """() => { const all = [...document.querySelectorAll("a[href], summary, [tabindex='0']")]
        .filter(one => one.getClientRects().length && getComputedStyle(one).visibility === "visible"
          && !one.closest("details:not([open]) > :not(summary)"));
        all.forEach((one, place) => one.dataset.place = place); return all.length; }"""
    )
    seen = []
    for _ in range(wanted):
        page.keyboard.press("Tab")
        place, outline = page.evaluate(
            """() => { const one = document.activeElement, style = getComputedStyle(one);
            const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
            return [Number(one.dataset.place), outlined]; }"""
        )
        seen.append(place)
        assert outline, f"stop {place} shows its focus"
    assert seen == list(range(wanted))
    return wanted


def test_the_first_stop_skips_to_the_content_and_shows_itself(visit):
    page = visit()
    page.keyboard.press("Tab")
    box = page.locator(".skip").bounding_box()
    assert page.evaluate("document.activeElement.className") == "skip" and box["x"] >= 0 and box["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_the_numbers_of_a_figure_open_by_key(visit):
    page = visit()
    page.locator("details.numbers > summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.numbers").first.locator("td").first.is_visible()


def test_a_word_leads_to_what_it_means(visit):
    page = visit()
    page.locator("a.term").first.focus()
    target = page.evaluate("document.activeElement.getAttribute('href')")
    page.keyboard.press("Enter")
    box = page.locator(target).bounding_box()
    assert 0 <= box["y"] < 900 and page.locator(f"{target} h3").inner_text()


def test_pictures_tables_and_headings_are_named_for_readers_who_do_not_see(visit):
    named(visit())


def named(page):
    """Check what a page says to readers who do not see it."""
    assert page.evaluate("[...document.querySelectorAll('[role=img]')].every(one => one.getAttribute('aria-label'))")
    assert page.evaluate("[...document.querySelectorAll('th')].every(one => one.scope)")
    regions = page.evaluate(
        "[...document.querySelectorAll('[role=region]')].map(one => one.getAttribute('aria-label'))"
    )
    assert all(regions) and len(set(regions)) == len(regions)
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    assert page.evaluate("document.documentElement.lang") == "en" and page.title()


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_of_a_study_stands_by_itself_in_either_scheme_at_any_width_and_by_keyboard(browser, tmp_path, name):
    path = tmp_path / "page.html"
    path.write_text(STUDIES[name](), encoding="utf-8")
    page = opened(browser, path.as_uri())
    try:
        assert stops(page) > 3
        named(page)
        heights = page.evaluate(
            """() => [...document.querySelectorAll(".plot")].map(one => [one.getBoundingClientRect().height,
            one.querySelector(".main-svg").getBoundingClientRect().height])"""
        )
        assert heights and all(abs(place - drawn) < 2 for place, drawn in heights)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert min(page.evaluate(CONTRAST, TEXT)) >= 4.5
        page.set_viewport_size({"width": 400, "height": 900})
        page.wait_for_timeout(200)
        fits(page, 400)
        assert page.noise == [path.as_uri()]
    finally:
        page.close()
