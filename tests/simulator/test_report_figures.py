"""Figures of one run: roofline, causes of cycles, errors and flags of layers, the drawing, what is explained."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.cost import expanded
from simulator.hardware import load_hardware
from simulator.report import (
    condition_plots,
    html,
    layer_plots,
    plots,
    render,
    render_front,
    render_runs,
    several,
)
from simulator.report.axes import logarithmic_axis, share_axis
from simulator.report.drawing import drawing, evidence
from simulator.report.roofline import roofline_figure
from simulator.report.truncation import render_truncation
from simulator.report.two_pass import render_two_pass
from simulator.result import Setting
from tests.simulator.page_records import study_record, truncation_record
from tests.simulator.run_records import Page, conditions, example, layer, measured, one_mac, sweep_record

DOCS, HWCONFIGS = (Path(__file__).parents[2] / name for name in ("docs", "hwconfigs"))


def roofed(**other):
    return example(peak_macs_per_cycle={"low": 1024.0, "high": 256.0}, dram_bits_per_cycle=204.8, **other)


def on(machine, **other):
    """The example as if it had run on a bundled machine."""
    return example(machine=tuple(expanded(load_hardware(machine)).values()), hardware=machine, **other)


def all_figures(run):
    return [figure for group in html._figures(run).values() for figure in group]


# The roofline


def test_a_roof_is_the_bandwidth_up_to_its_ridge_and_the_peak_beyond():
    low, high = roofline_figure(roofed()).data[:2]
    for roof, peak in ((low, 1024), (high, 256)):
        assert roof["y"][1:] == [peak, peak] and roof["x"][1] == peak / 25.6
        assert roof["y"][0] == pytest.approx(roof["x"][0] * 25.6, rel=1e-4)
        assert roof["x"][0] < roof["x"][1] < roof["x"][2]
    assert low["text"][-1] == "low: 1,024 MACs a cycle"


def test_a_mark_is_at_macs_a_byte_and_macs_a_cycle():
    run = roofed()
    marks = {trace["name"]: trace for trace in roofline_figure(run).data[2:]}
    assert list(marks) == ["uniform low", "uniform high", "two-pass"]
    for place, one in enumerate(run.layers):
        x, y = marks["two-pass"]["x"][place], marks["two-pass"]["y"][place]
        assert x == pytest.approx(one.macs / (one.traffic_bits["dram"] / 8), rel=1e-4)
        assert y == pytest.approx(one.macs / one.cycles, rel=1e-4)


@pytest.mark.parametrize(
    "run", [example(), roofed(layers=(), baseline_layers={}), replace(roofed(), dram_bits_per_cycle=0.0)]
)
def test_without_a_memory_or_a_price_there_is_no_roofline(run):
    assert roofline_figure(run) is None


@pytest.mark.parametrize("machine", ["npu", "tpu_v1", "nvidia_a100"])
def test_no_layer_of_one_pass_is_above_its_roof(machine):
    pytest.importorskip("torch")
    from simulator.run import run

    result = run(machine, samples=8)
    dram = result.dram_bits_per_cycle / 8
    checked = 0
    for mode in ("low", "high"):
        for one in result.baseline_layers.get(mode, ()):
            roof = min(result.peak_macs_per_cycle[mode], one.macs / (one.traffic_bits["dram"] / 8) * dram)
            assert one.macs / one.cycles <= roof * (1 + 1e-12)
            checked += 1
    assert checked and roofline_figure(result) is not None


def test_ticks_are_round_numbers_within_the_axis():
    layout = roofline_figure(roofed()).layout
    for axis in (layout["xaxis"], layout["yaxis"]):
        start, end = (10**power for power in axis["range"])
        assert len(axis["tickvals"]) >= 2 and all(start * 0.999 <= tick <= end * 1.001 for tick in axis["tickvals"])
        assert all(re.fullmatch(r"[125]0*(\.0)?|0\.0*[125]", str(tick)) for tick in axis["tickvals"])


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.3], [0.2, 0.5]),
        ([1.0, 30.0], [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]),
        ([1e-3, 1e3], [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3]),
        ([1e-12, 1e3], [1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0, 100.0]),
    ],
)
def test_a_logarithmic_axis_names_few_round_numbers_whatever_it_spans(values, ticks):
    axis = logarithmic_axis(values, "x")
    assert axis["tickvals"] == ticks
    assert axis["range"] == pytest.approx([math.log10(min(values) / 2), math.log10(max(values) * 2)], rel=1e-4)
    assert "range" not in logarithmic_axis([], "x")


@pytest.mark.parametrize("scores", [[1.0], [0.5, 1.0], [0.97, 0.9999]])
def test_an_axis_of_scores_ends_with_room_for_a_marker_and_no_tick_above_all_of_them(scores):
    least, most = share_axis(scores)["range"]
    step = (most - least) / 5
    assert least < 100 * min(scores) and 100 * max(scores) < most < 100 + step


@pytest.mark.parametrize("page", [
    lambda: render(measured()),
    lambda: render_runs({"a": example(), "b": one_mac()}),
    lambda: render_front(sweep_record()),
    lambda: render_two_pass(study_record()),
    lambda: render_truncation(truncation_record()),
])  # fmt: skip
def test_axes_write_percent_as_texts_do(page):
    pytest.importorskip("plotly")
    text = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page(), re.DOTALL)[1]
    assert '"ticksuffix":" %"' in text and "tickformat" not in text and not re.search(r"%\}|[^ \\]%\\u003c", text)


def test_accuracies_of_a_training_study_are_in_percent_in_its_table_too():
    assert "<td>97.0 ± 1.0 %</td>" in render_truncation(truncation_record())


def test_all_logarithmic_axes_of_a_page_have_ticks_of_one_size():
    run = measured()
    figures = [*layer_plots.error_figures(run), *condition_plots.condition_figures(run)]
    figures += several._figures([several._row(0, "a", run), several._row(1, "b", run)])["errors"]
    axes = [axis for figure in figures for axis in figure.layout.values() if isinstance(axis, dict)]
    drawn = [axis for axis in axes if axis.get("type") == "log"]
    assert len(drawn) == 3 and all(axis["tickvals"] for axis in drawn)


# Layers


def test_cycles_by_cause_sum_to_the_cycles_of_their_layer():
    run = example()
    modes, layers = layer_plots.latency_figures(run)
    for place, one in enumerate(run.layers):
        assert sum(trace["x"][place] for trace in layers.data) == pytest.approx(one.cycles, rel=1e-4)
    assert sum(trace["x"][2] for trace in modes.data) == pytest.approx(run.totals["two_pass"]["cycles"], rel=1e-4)
    assert layer_plots.largest_latency(run).startswith("The largest part of the two-pass cycles is gather: ")


def test_the_cycles_of_the_vector_unit_are_a_cause_of_the_mode():
    run = example()
    totals = {mode: {**own, "vector_cycles": 1234} for mode, own in run.totals.items()}
    modes, layers = layer_plots.latency_figures(replace(run, totals=totals))
    assert [trace["x"] for trace in modes.data if trace["name"] == "vector unit"] == [[1234, 1234, 1234]]
    assert "vector unit" not in [trace["name"] for trace in layers.data]


def test_an_error_of_zero_has_a_row_and_no_mark_on_a_logarithmic_axis():
    run = example()
    high = (replace(run.baseline_layers["high"][0], median_rel_error=0.0), *run.baseline_layers["high"][1:])
    median, sqnr = layer_plots.error_figures(replace(run, baseline_layers={**run.baseline_layers, "high": high}))
    points = {trace["name"]: trace["y"] for trace in median.data}
    assert points == {"uniform low": [0, 1, 2], "uniform high": [1, 2], "two-pass": [0, 1, 2]}
    assert median.layout["yaxis"]["ticktext"] == ["fc1", "fc2", "fc3"]
    assert [trace["x"] for trace in sqnr.data] == [[31.25] * 3] * 3


def test_neighbours_are_what_a_gather_brings_along():
    layers = (layer("a", 10, 10, 10, flagged=0.2, waste_factor=2.5), layer("b", 10, 10, 10, flagged=0.1))
    (figure,) = layer_plots.recomputed_figures(example(layers=layers))
    assert {trace["name"]: trace["x"] for trace in figure.data} == {"flagged": [20.0, 10.0], "neighbours": [30.0, 0.0]}
    assert figure.table()[1] == [["a", "20 %", "30 %"], ["b", "10 %", "0 %"]]
    assert "neighbours" not in layer_plots.again_colours(example())


def test_a_run_of_one_mac_has_no_figure_of_what_is_computed_again():
    run = one_mac()
    layers = tuple(replace(one, pass_outputs={}) for one in run.layers)
    assert layer_plots.recomputed_figures(replace(run, layers=layers)) == []


def test_of_many_layers_those_of_most_cycles_are_drawn():
    layers = tuple(layer(f"fc{i}", 8, 64, 64 * (1 + i)) for i in range(50))
    figure = layer_plots.latency_figures(example(layers=layers))[1]
    assert figure.title == "Cycles by layer, two-pass, the 40 that take most of 50"
    assert figure.data[0]["customdata"] == [f"fc{i}" for i in range(10, 50)]


# Condition numbers


def test_condition_numbers_have_a_row_of_percentiles_for_each_layer_and_one_figure_where_the_activation_changes_none():
    (figure,) = condition_plots.condition_figures(measured())
    assert {trace["name"]: trace["x"] for trace in figure.data} == {
        "5 %": [2.0] * 3, "25 %": [4.0] * 3, "median": [8.0] * 3, "75 %": [16.0] * 3, "95 %": [250.0] * 3,
    }  # fmt: skip
    assert figure.layout["xaxis"]["type"] == "log" and figure.layout["yaxis"]["ticktext"] == ["fc1", "fc2", "fc3"]
    assert [(span["x0"], span["x1"]) for span in figure.layout["shapes"]] == [(2.0, 250.0), (4.0, 16.0)] * 3
    both = condition_plots.condition_figures(example(conditions=(conditions(factor=3.0),)))
    assert [one.key for one in both] == ["condition-layers", "condition-products"]
    assert [one.data[2]["x"] for one in both] == [[24.0], [8.0]]
    assert condition_plots.condition_figures(example()) == []


def test_an_infinite_condition_number_is_written_and_has_no_mark():
    infinite = {**conditions().kappa, 95: None, 99: None}
    (figure,) = condition_plots.condition_figures(example(conditions=(replace(
        conditions(), kappa=infinite, kappa_v=infinite),)))  # fmt: skip
    assert [trace["name"] for trace in figure.data] == ["5 %", "25 %", "median", "75 %"]
    assert [(span["x0"], span["x1"]) for span in figure.layout["shapes"]] == [(4.0, 16.0)]
    headings, rows = figure.table()
    assert headings == ["", "activation", "outputs", "active", *(f"{p} %" for p in (1, 5, 25, 50, 75, 95, 99))]
    assert rows == [["fc1", "relu", "5,000", "45.0 %", "1.50", "2.00", "4.00", "8.00", "16.0", "∞", "∞"]]


def test_a_page_without_condition_numbers_says_how_to_get_them():
    assert "conditions=True" in Page(html.render(example())).text
    text = Page(html.render(measured())).text
    assert "conditions=True" not in text and "Along an exact run of the first 64 samples" in text


# The numbers of figures


def test_the_table_of_a_figure_has_the_numbers_that_are_drawn():
    bars = plots.energy_figures(example())[0].table()
    assert bars[0][:3] == ["energy, mJ", "mul", "acc"] and [row[0] for row in bars[1]] == [
        "uniform low", "uniform high", "two-pass",
    ]  # fmt: skip
    marks = plots.tradeoff_figures(example())[0].table()
    assert marks == (
        ["", "accumulation cost, uniform high = 1", "Accuracy"],
        [["uniform low", "0.5", "96.2 %"], ["uniform high", "1", "98.6 %"], ["two-pass", "0.807", "97.93 %"]],
    )
    errors = layer_plots.error_figures(example())[0].table()
    assert errors[0] == ["", "median of |v - v*| / |v*|"] and errors[1][-1] == ["two-pass, fc3", "0.004"]


def test_a_figure_of_another_kind_or_of_too_many_numbers_has_no_table():
    heat = plots.Figure("a", "a", [{"type": "heatmap", "z": [[1]]}], {})
    curve = plots.Figure("b", "b", [{"type": "scatter", "x": [0.5] * 500, "y": [0.5] * 500}], {})
    assert heat.table() is None and curve.table() is None


def test_the_new_figures_are_records_that_plotly_accepts():
    graph_objects = pytest.importorskip("plotly.graph_objects")
    figures = all_figures(roofed(conditions=(conditions(factor=3.0),)))
    assert len(figures) == 14
    for figure in figures:
        record = re.sub(r'"--[\w-]+"', '"#123456"', json.dumps({"data": figure.data, "layout": figure.layout}))
        graph_objects.Figure(json.loads(record))


# The drawing


def test_the_drawing_has_the_parts_of_the_machine_and_their_numbers():
    found = drawing(on("npu"))
    boxes = {box.title: [(number.text, number.evidence) for number in box.numbers] for box in found.boxes}
    assert list(boxes) == ["DRAM", "sram", "accumulators", "array", "side engine", "vector unit"]
    assert boxes["DRAM"][0] == ("25.6 GB/s", "cited") and ("20.3 pJ/bit", "table x/÷ 1.3") in boxes["DRAM"]
    assert boxes["array"][:3] == [("16 × 16 PEs", "assumed"), ("weight-stationary", "cited"), ("1 GHz", "assumed")]
    assert ("low: 4 MAC/cycle", "assumed") in boxes["array"] and boxes["side engine"] == [("64 lanes", "assumed")]
    assert found.boxes[3].cells == (16, 16)


@pytest.mark.parametrize("machine", sorted(path.stem for path in HWCONFIGS.glob("*.yaml")))
def test_every_bundled_machine_is_drawn_without_overlap(machine):
    found = drawing(on(machine))
    assert any(box.title == "array" for box in found.boxes)
    for one in found.boxes:
        assert one.x >= 0 and one.x + 226 <= found.width and one.y + one.height <= found.height
        assert one.first_line + 18 * (len(one.numbers) - 1) < one.y + one.height, "text within its box"
        for other in found.boxes:
            apart = one.x + 226 <= other.x or other.x + 226 <= one.x
            assert one is other or apart or one.y + one.height <= other.y or other.y + other.height <= one.y
    page = Page(html.render(on(machine)))
    assert page.tags.count("svg") == 1 and all(word in page.text for box in found.boxes for word in [box.title])


def test_a_machine_of_which_no_file_tells_is_not_drawn():
    assert drawing(example()) is None
    assert "svg" not in Page(html.render(example())).tags


@pytest.mark.parametrize(
    ("origin", "source", "word"),
    [
        ("npu.yaml:22: auto, table jouppi2021_7nm (fit x/÷ 2)", "Jouppi 2021", "fit x/÷ 2"),
        ("npu.yaml:11", "assumed: as in the A100", "assumed"),
        ("npu.yaml:11", "a data sheet", "cited"),
        ("npu.yaml:11", "", "given"),
        ("default", "none", "default"),
        ("derived from the name of the level", "", "derived"),
    ],
)
def test_evidence_is_told_in_a_word(origin, source, word):
    assert evidence(Setting("k", 1, origin, source)) == word


# What is explained


def test_every_link_of_the_page_leads_to_an_explanation_and_every_page_of_the_docs_is_there():
    text = html.render(replace(measured(), machine=on("npu").machine, gathers=(), area_um2=1.0))
    page = Page(text)
    named = {name for name in page.names if name.startswith("about-")}
    linked = {address.removeprefix("#") for address in page.addresses if address.startswith("#about-")}
    assert linked <= named and len(named) == 22
    pages = re.findall(r"More: <code>docs/([\w/-]+\.md)(?:#([\w-]+))?</code>", text)
    assert len(pages) == 22
    for path, anchor in pages:
        headings = re.findall(r"^#+ (.*)$", (DOCS / path).read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, f"docs/{path} has no {anchor}"


def test_every_number_of_the_summary_and_every_figure_and_table_has_an_explanation_on_the_page():
    for run in (measured(machine=on("npu").machine), one_mac(), roofed(conditions=(conditions(factor=3.0),)),
                example(accuracy=None)):  # fmt: skip
        text = html.render(run)
        names = set(Page(text).names)
        summary = re.search(r'<section class="summary">(.*?)</section>', text, re.DOTALL)[1]
        assert summary.count("about-") >= 1
        for measure in ("top-1 accuracy", "top-1 answer of the exact run", "logit RMS error", "accumulation cost"):
            assert all(measure not in one or f">{measure}</a>" in one for one in re.findall(r"<p>(.*?)</p>", summary))
        sections = re.findall(r"<section[^>]*id=\"([\w-]+)\">(.*?)</section>", text, re.DOTALL)
        shown = {name: body for name, body in sections if "<figure>" in body or "<table" in body}
        assert {"modes", "energy", "errors", "layers"} <= set(shown)
        for name, body in shown.items():
            keys = re.findall(r'class="term" href="#(about-[\w-]+)"', body)
            assert keys and set(keys) <= names, f"{name} is explained"


def test_a_sentence_of_the_summary_links_each_of_its_numbers_once_and_stays_escaped():
    found = html.explained("<b> uses energy: the energy and latency")
    assert found == (
        '&lt;b&gt; uses <a class="term" href="#about-energy">energy</a>: the energy and '
        '<a class="term" href="#about-latency">latency</a>'
    )
