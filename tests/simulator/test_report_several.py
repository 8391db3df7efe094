"""Saved runs read again, several runs as one page, points of a sweep and their front, the command that makes them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest

from simulator.cost import expanded
from simulator.errors import InputError
from simulator.explore import Goal, Place, Plan, Point, Store, compromises
from simulator.explore.objectives import OBJECTIVES, objective
from simulator.explore.search import as_stored
from simulator.hardware import load_hardware
from simulator.report import (
    front,
    front_plots,
    names,
    read_run,
    render,
    render_front,
    render_runs,
    save,
    several,
    tables,
    to_json,
)
from simulator.report.failures import failures
from simulator.result import AreaItem, EnergyItem, Setting
from tests.simulator.run_records import Page, conditions, example, measured, one_mac, search_record, sweep_record

# Runs read again


@pytest.mark.parametrize("run", [example(), measured(), one_mac(), example(accuracy=None, layers=(), totals={})])
def test_a_run_that_is_read_again_is_the_one_that_was_saved(tmp_path, run):
    where = save(run, tmp_path / "out")
    assert to_json(read_run(where)) == (where / "summary.json").read_text()
    assert to_json(read_run(where / "summary.json")) == to_json(read_run(where))


def test_records_within_records_are_read_as_records(tmp_path):
    item = EnergyItem("mul", "multiplier", 3, "MAC", 1e-15, 3e-15, "fit", 2.0, "", "a paper")
    run = example(
        machine=(Setting("array.rows", 16, "a.yaml:1", "assumed"), Setting("memory", {}, "default", "")),
        area_items=(AreaItem("mul", "mac.low", 3, 1.0, 3.0, "fit", 2.0, "", "a paper"),),
        forward_error_interval={"low": (2.5, 3.0), "high": None},
    )
    run = replace(run, layers=(replace(run.layers[0], energy_items=(item,)), *run.layers[1:]))
    found = read_run(save(run, tmp_path / "out"))
    assert found.layers[0].energy_items == (item,) and found.machine == run.machine
    assert found.forward_error_interval == {"low": (2.5, 3.0), "high": None}
    assert render(found) == render(run)


def test_condition_numbers_are_read_again_by_their_percents(tmp_path):
    run = measured(conditions=(conditions(last=None),))
    assert read_run(save(run, tmp_path / "out")).conditions == run.conditions


def test_what_json_could_not_hold_is_none_or_nan(tmp_path):
    run = example(forward_error={"low": math.inf}, forward_error_interval={"low": (math.inf, math.nan)})
    found = read_run(save(run, tmp_path / "out"))
    assert found.forward_error == {"low": None}
    assert all(map(math.isnan, found.forward_error_interval["low"]))


def test_fields_of_other_versions_are_defaults_or_left_out(tmp_path):
    where = save(example(), tmp_path / "out") / "summary.json"
    record = json.loads(where.read_text())
    del record["gathers"], record["layers"][0]["waste_factor"], record["dram_bits_per_cycle"]
    record["of_a_later_version"] = record["layers"][0]["of_another"] = 1
    where.write_text(json.dumps(record))
    found = read_run(where)
    assert found.gathers == () and found.layers[0].waste_factor is None and found.dram_bits_per_cycle is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda record: record.pop("model"), "the whole lacks model; expected summary.json as a run writes it"),
        (lambda record: record["layers"][1].pop("op"), "layers[1] lacks op; expected summary.json"),
        (lambda record: record.update(samples="many"), 'samples is "many" and not a whole number'),
        (lambda record: record.update(complete=1), "complete is 1 and not true or false"),
        (lambda record: record.update(layers={}), "layers is {} and not a list"),
        (lambda record: record["layers"][1].update(cycles=True), "layers[1].cycles is true and not a whole number"),
        (lambda record: record["totals"].update(low=[]), "totals.low is [] and not a mapping"),
        (lambda record: record["totals"]["low"].update(energy_j="x"), 'totals.low.energy_j is "x" and not a number'),
        (
            lambda record: record.update(forward_error_interval={"low": [1]}),
            "forward_error_interval.low is [1] and not 2",
        ),
    ],
)
def test_a_damaged_record_is_named_with_its_place(tmp_path, change, why):
    where = save(example(), tmp_path / "out") / "summary.json"
    record = json.loads(where.read_text())
    change(record)
    where.write_text(json.dumps(record))
    with pytest.raises(InputError, match=re.escape(why)) as caught:
        read_run(where)
    assert str(caught.value).startswith(f"{where}: is no record of a run: ")


@pytest.mark.parametrize(
    ("content", "why"), [(b"{", "is no JSON"), (b"\xff", "is no JSON"), (b"[]", "the whole is []")]
)
def test_a_file_that_is_no_record_is_refused(tmp_path, content, why):
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(why)):
        read_run(tmp_path)


# Several runs


def test_a_page_of_no_run_is_refused():
    with pytest.raises(InputError, match=r"^report: got no run; expected one or more, by .*; give e\.g\. "):
        render_runs({})


def test_a_page_of_one_run_goes_by_its_name():
    page = Page(render_runs({"small": example()}))
    assert "1 run: small" in page.text and "1 runs" not in page.text


def test_two_runs_stand_side_by_side_with_their_ratios():
    a, b = example(), one_mac(area_um2=2e6)
    page = Page(render_runs({"small": replace(a, area_um2=1e6), "large": b}))
    for words in ("small and large", "97.93 %", "96.20 %", "two-pass", "uniform low", "1.32 mJ", "926 µJ"):
        assert words in page.text
    rows = [several._row(i, name, run) for i, (name, run) in enumerate((("a", a), ("b", b)))]
    found = several.ratios(rows)
    assert found["energy_j"] == b.totals["low"]["energy_j"] / a.totals["two_pass"]["energy_j"]
    assert found["forward_error"] == 2.79 / 1.21 and found["area_mm2"] is None
    assert "Second over first" in page.text
    totals = a.totals["two_pass"]
    slow = example(totals={**a.totals, "two_pass": {**totals, "cycles": 1110 * totals["cycles"]}})
    assert "<td>1,110</td>" in render_runs({"a": a, "b": slow}), "no power of ten"
    assert "Second over first" not in Page(render_runs({"a": a, "b": a, "c": b})).text


def test_what_energies_rest_on_is_said_once():
    a, b = example(energy_basis="table a"), example(energy_basis="")
    assert several.energy_bases({"a": a, "b": a}) == [("Energy", "table a")]
    assert several.energy_bases({"a": a, "b": b, "c": a}) == [
        ("Energy of a, c", "table a"),
        ("Energy of b", "nothing is priced"),
    ]
    assert Page(render_runs({"a": a, "b": a})).text.count("table a") == 1


def test_only_keys_that_differ_are_shown_in_the_order_of_the_runs():
    machines = {name: tuple(expanded(load_hardware(name)).values()) for name in ("npu", "npu_posit")}
    runs = {name: example(machine=machine) for name, machine in machines.items()}
    found = dict(several.machine_differences(runs))
    assert found["name"] == ["npu", "npu_posit"] and found["mac.low.operands"][0] == "fp8_e4m3/sat"
    assert "array.rows" not in found and not [key for key in found if key.startswith("technology.table.")]
    assert several.machine_differences({"a": runs["npu"], "b": runs["npu"]}) == []


def test_a_value_in_another_unit_is_no_difference_on_a_page():
    machine = tuple(expanded(load_hardware("npu")).values())
    same = tuple(replace(one, value="0.1 us") if one.value == "100 ns" else one for one in machine)
    assert (
        same != machine
        and several.machine_differences({"a": example(machine=machine), "b": example(machine=same)}) == []
    )
    assert 'id="differences"' not in render_runs({"a": example(machine=machine), "b": example(machine=same)})


def test_the_ratio_of_figures_that_are_not_finite_is_not_known():
    totals = example().totals
    endless = example(totals={**totals, "two_pass": {**totals["two_pass"], "energy_j": math.inf}})
    rows = [several._row(i, name, run) for i, (name, run) in enumerate((("a", example()), ("b", endless)))]
    assert several.ratios(rows)["energy_j"] is None and several.ratios(rows)["cycles"] == 1


def test_energy_and_cycles_of_each_run_are_those_of_its_own_mode():
    rows = [several._row(i, name, run) for i, (name, run) in enumerate((("a", example()), ("b", one_mac())))]
    groups = several._figures(rows)
    for place, total in enumerate((example().totals["two_pass"], example().totals["low"])):
        energy = sum(trace["x"][place] for trace in groups["energy"][0].data)
        assert energy == pytest.approx(total["energy_j"] * 1e3, rel=1e-3)
        assert sum(trace["x"][place] for trace in groups["latency"][0].data) == pytest.approx(total["cycles"], rel=1e-3)
    marks = groups["tradeoff"][0].data
    assert [(trace["name"], trace["y"]) for trace in marks] == [("a", [97.93]), ("b", [96.2])]


def test_names_of_runs_cannot_become_markup():
    hostile = '</script><b>"&'
    page = render_runs({hostile: example(model=hostile, hardware=hostile), "b": example()})
    assert "<b>" not in page.split("<main ")[1].split("<script>")[0] and "&lt;b&gt;" in page
    record = sweep_record(name=hostile)
    record["points"][0]["parameters"] = {hostile: hostile}
    page = render_front(record)
    assert "</script><b>" not in page


# The points of a sweep

ROWS = Plan("rows", "npu", {"array.rows": [8, 16]})


def search_of(volumes, axes=(("array.rows",), ("policy.tolerance",))):
    """What the record of a search has beside that of a sweep: nine points of a grid of forty."""
    return {"grid": 40, "chosen": 9, "axes": axes, "hypervolumes": volumes}


def test_the_table_of_the_front_begins_with_the_best():
    page = Page(render_front(sweep_record()))
    assert "3 points of 9 are on the Pareto front of" in " ".join(page.text.split())
    first = page.text.split("The front")[1]
    assert first.index("95.90 %") < first.index("92.70 %") < first.index("91.10 %")
    assert (
        "array.rows: got 0" in page.text
        and "area" not in page.text.split("The front")[1].split("All points")[0].lower()
    )


def test_figures_are_the_first_number_against_the_others_and_objectives_over_parameters():
    record = sweep_record()
    done = [point for point in record["points"] if point["error"] is None]
    sections = front_plots.front_figures(record, done)
    groups = {name: section.seen for name, section in sections.items()}
    assert not any(section.folded for section in sections.values())
    assert [figure.title for figure in groups["front"]] == ["Accuracy against energy", "Accuracy against latency"]
    assert [figure.title for figure in groups["parameters"]] == [
        f"{name} by {key}" for key in ("array.rows", "policy.tolerance") for name in ("Accuracy", "Energy")
    ]
    others, best = groups["front"][0].data
    assert (len(others["x"]), len(best["x"]), best["mode"], best["line"]["shape"]) == (6, 3, "lines+markers", "hv")
    assert best["x"] == [0.164, 0.356, 1.124] and best["y"] == [91.1, 92.7, 95.9]
    assert groups["front"][1].data[1]["mode"] == "markers", "it is no front of accuracy and latency"
    axis = groups["parameters"][0].layout["xaxis"]
    assert axis["categoryarray"] == ["8", "16", "32"]


def test_parameters_that_vary_together_have_one_figure():
    record = sweep_record()
    for point in record["points"]:
        point["parameters"]["array.columns"] = 2 * point["parameters"]["array.rows"]
    done = record["points"][:-1]
    figures = front_plots.front_figures(record, done)["parameters"].seen
    assert [figure.title for figure in figures] == [
        f"{name} by {keys}"
        for keys in ("array.rows, array.columns", "policy.tolerance")
        for name in ("Accuracy", "Energy")
    ]
    assert figures[0].layout["xaxis"]["categoryarray"] == ["8, 16", "16, 32", "32, 64"]
    assert set(figures[0].data[0]["x"]) == {"8, 16", "16, 32", "32, 64"}
    done[0]["parameters"]["array.columns"] = 32
    assert front_plots.varied_together(record, done) == [
        ["array.rows"], ["policy.tolerance"], ["array.columns"]
    ]  # fmt: skip


@pytest.mark.parametrize(("factor", "kind"), [(8, None), (9, "log")])
def test_an_axis_is_logarithmic_where_positive_values_span_a_factor_above_8(factor, kind):
    record = sweep_record()
    done = record["points"][:-1]
    for place, point in enumerate(done):
        point["values"] |= {"energy_j": 1e-6 * (factor if place == 8 else 1), "latency_s": place * 1e-6}
    energy, latency = (figure.layout["xaxis"] for figure in front_plots.front_figures(record, done)["front"])
    assert energy.get("type") == kind and "type" not in latency, "0 has no place on a logarithmic axis"
    assert energy["title"]["text"] == "energy, µJ"
    if kind:
        assert energy["tickvals"] == [1, 2, 5, 10]


def test_levels_in_decibels_are_on_a_linear_axis_and_named_with_their_mode():
    objectives = {"accuracy": "max", "sqnr_db_high": "max"}
    record = sweep_record(objectives=objectives, numbers={"accuracy": "share", "sqnr_db_high": "dB"})
    done = record["points"][:-1]
    for place, point in enumerate(done):
        point["values"]["sqnr_db_high"] = 1.0 + 10 * place
    (figure,) = front_plots.front_figures(record, done)["front"]
    assert figure.title == "Accuracy against SQNR (uniform high)"
    assert figure.layout["xaxis"] == {"title": {"text": "SQNR (uniform high), dB"}, "rangemode": "nonnegative"}
    done[0]["values"]["sqnr_db_high"] = -1.0
    (figure,) = front_plots.front_figures(record, done)["front"]
    assert "rangemode" not in figure.layout["xaxis"]


def test_a_number_that_is_the_same_at_all_points_has_no_figure_and_a_sentence():
    objectives = {"area_mm2": "min", "accuracy": "max", "energy_j": "min"}
    record = sweep_record(objectives=objectives, numbers={"area_mm2": "mm²", "accuracy": "share", "energy_j": "J"})
    done = record["points"][:-1]
    for point in done:
        point["values"]["area_mm2"] = 0.25
    sections = front_plots.front_figures(record, done)
    titles = [figure.title for section in sections.values() for figure in section]
    assert titles[0] == "Accuracy against energy" and not [title for title in titles if "area" in title.lower()]
    assert sections["front"].seen[0].data[-1]["mode"] == "lines+markers", "a front of what varies"
    text = Page(render_front(record)).text
    assert "The same at all points, and without figures: area 0.250 mm²." in text
    assert "The same at all points" not in Page(render_front(sweep_record())).text


def test_a_page_of_one_point_has_a_sentence_in_place_of_figures():
    record = sweep_record()
    page = Page(render_front({**record, "points": record["points"][:1]}))
    assert "Figures need two points with a result; there is one." in page.text and "figure" not in page.tags
    assert "The same at all points" not in page.text and "1 point of 1 is on the" in " ".join(page.text.split())


def formats_of(figures):
    return figures["parameters"].seen[0].layout["xaxis"]["categoryarray"]


def test_categories_are_in_the_order_of_the_plan_and_of_a_search_in_natural_order():
    chosen = ["fp16", "bf16", "fp8", None, "fp8", "fp16"]
    record = sweep_record()
    points = [
        {**one, "parameters": {"mac.low.operands": name}} for one, name in zip(record["points"], chosen, strict=False)
    ]
    record["points"] = points
    assert formats_of(front_plots.front_figures(record, points)) == ["fp16", "bf16", "fp8", "–"]
    assert formats_of(front_plots.front_figures(record, points[1:])) == ["fp16", "bf16", "fp8", "–"], (
        "if the first fails"
    )
    found = {**record, "search": search_of([0.5] * 6, axes=[["mac.low.operands"]])}
    assert formats_of(front_plots.front_figures(found, points)) == ["bf16", "fp8", "fp16", "–"]


def test_values_that_are_mappings_or_lists_are_written_as_in_a_file():
    sram = {"size": "8 KiB", "banks": [1, 2], "share": 0.1 + 0.2}
    record = sweep_record()
    for place, point in enumerate(record["points"]):
        point["parameters"] = {"memory.sram": sram if place % 2 else {"size": "16 KiB"}, "array": [8, place % 2]}
    page = Page(render_front(record))
    assert "{size: 8 KiB, banks: [1, 2], share: 0.3}" in page.text and "{size: 16 KiB}" in page.text
    assert "[8, 1]" in page.text and "'size'" not in page.text
    figure = front_plots.front_figures(record, record["points"][:-1])["parameters"].seen[0]
    assert figure.layout["yaxis"]["categoryarray"][0] == "{size: 16 KiB}, [8, 0]"


def test_of_many_figures_those_are_seen_that_tell_most():
    record = search_record()
    sections = front_plots.front_figures(record, record["points"])
    pairs, by_parameter = sections["front"], sections["parameters"]
    assert [figure.title for figure in pairs.seen] == [
        "Accuracy against energy", "Accuracy against latency", "Accuracy against area", "Energy against latency",
        "Energy against area", "Latency against area",
    ]  # fmt: skip
    assert [figure.title for figure in pairs.folded] == ["Accuracy against cycles"]
    names = ["Accuracy", "Energy", "Latency", "Area"]
    assert [figure.title for figure in by_parameter.seen] == [f"{name} by array.rows" for name in names]
    assert [figure.title for figure in by_parameter.folded] == [
        f"{name} by {key}" for key in ("idle", "policy.tolerance") for name in names
    ]
    page = Page(render_front(record))
    assert "1 more figure: other pairs of numbers" in page.text
    assert "8 more figures: parameters that tell less of the objectives" in page.text


def test_of_many_parameters_those_that_tell_most_have_figures():
    record = search_record()
    for place, point in enumerate(record["points"]):
        idle = {f"x{name}": f"{(place * (name + 3) * 7) % 11 % (2 + name % 3)}" for name in range(9)}
        point["parameters"] = idle | point["parameters"]
    figures = front_plots.front_figures(record, record["points"])["parameters"]
    drawn = [figure.title.split(" by ")[1] for figure in figures]
    assert len(set(drawn)) == 8 and drawn[0] == "array.rows" and "policy.tolerance" in drawn


def test_an_unfinished_sweep_says_how_far_it_is():
    page = Page(render_front(sweep_record(missing=10)))
    text = " ".join(page.text.split())
    assert "20 points of rows · 1 without a result 10 of 20 computed, interrupted or still under way" in text
    assert "not computed yet" not in text and "rows: 10 of 20 points" in text
    assert "interrupted" not in Page(render_front(sweep_record())).text


def test_several_problems_of_a_point_are_a_list():
    points = [refused(0, "a.yaml:1:2: array.rows: got {}; expected 1 or more\na.yaml:3:4: mac: missing")]
    page = render_front(sweep_record(points=points))
    assert (
        "1 point: <ul><li>a.yaml:1:2: array.rows: got 0; expected 1 or more</li><li>a.yaml:3:4: mac: missing</li></ul>"
    ) in page


@pytest.mark.parametrize(
    ("number", "value", "name", "shown"),
    [
        ("energy_j", 1.5e-6, "energy", "1.50 µJ"),
        ("energy_j_two_pass", 1.5e-6, "energy (two-pass)", "1.50 µJ"),
        ("cycles_low", 1500.0, "cycles (uniform low)", "1,500"),
        ("agreement", 0.5, "agreement with exact", "50.00 %"),
        ("top5", 0.5, "top-5 accuracy", "50.00 %"),
        ("cosine_exact", 0.99544, "cosine similarity (exact)", "0.99544"),
        ("kl", 0.00224, "KL divergence", "0.00224 nats"),
        ("sqnr_db", 22.64, "SQNR", "22.6 dB"),
        ("mse", None, "mean squared error", "–"),
        ("area_mm2", 0.25, "area", "0.250 mm²"),
    ],
)
def test_numbers_have_names_that_readers_know(number, value, name, shown):
    assert (names.name_of(number), names.written(number, objective(number).unit, value)) == (name, shown)


def test_every_number_of_a_search_has_a_name_and_an_explanation_that_pages_have():
    numbers = {f"{name}{mode}": objective(name).unit for name in OBJECTIVES for mode in ("", "_high")}
    del numbers["area_mm2_high"]
    page = Page(render_front(sweep_record(numbers=numbers, points=[])))
    assert not [name for name in numbers if "_" in names.name_of(name)]
    assert {f"about-{names.term_of(name)}" for name in numbers} <= set(page.names)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.names)


def refused(rows, message="a.yaml:1:2: array.rows: got {}; expected 1 or more", **other):
    parameters = {"array.rows": rows, **other}
    shown = ", ".join(f"{key}: {value}" for key, value in parameters.items())
    return {"parameters": parameters, "values": {}, "feasible": False, "on_front": False,
            "error": f"{message.format(rows)} (with {shown})"}  # fmt: skip


def reasons(points):
    return failures((point["parameters"], point["error"]) for point in points)


def test_points_that_fail_for_one_reason_are_one_line():
    points = [refused(rows, lanes=lanes) for rows in (0, -1) for lanes in (32, 64)]
    other = refused(0, "no memory holds (with all its banks) a tile", lanes=32)
    of_another_key = refused(0, "a.yaml:3:4: array.depth: got {}; expected 1 or more")
    assert reasons([other, *points, of_another_key]) == [
        (4, "a.yaml:1:2: array.rows: got 0, -1; expected 1 or more"),
        (1, "no memory holds (with all its banks) a tile"),
        (1, "a.yaml:3:4: array.depth: got 0; expected 1 or more"),
    ]
    banks = [refused(8, f"memory.sram: one {size}x8 fold needs {size * 8} bit") for size in (16, 16, 32)]
    assert reasons(banks) == [(3, "memory.sram: one 16x8 fold needs 128 bit (and 1 such message with other numbers)")]
    many = reasons(refused(-rows) for rows in range(9))
    assert many == [(9, "a.yaml:1:2: array.rows: got 0, -1, -2, -3, -4 and 4 others; expected 1 or more")]


def test_of_many_reasons_the_most_frequent_are_shown():
    points = [refused(0, f"reason {name}.") for name in "abcdefghijklmnopqrstuv" for _ in range(1 + (name == "v"))]
    text = " ".join(Page(render_front(sweep_record(points=points))).text.split())
    assert "2 points: reason v." in text and "1 point: reason s." in text and "reason t." not in text
    assert "and 2 points for 2 other reasons" in text


def test_a_page_without_a_result_says_so():
    record = sweep_record()
    text = Page(render_front({**record, "points": record["points"][-1:]})).text
    assert "No point has accuracy and energy." in text and "0 points of 0" in " ".join(text.split())


def test_without_plotly_pages_have_their_tables(monkeypatch):
    for module in (several, front):
        monkeypatch.setattr(module, "plotly_js", lambda: None)
    for text in (render_runs({"a": example(), "b": example()}), render_front(sweep_record())):
        assert "script" not in Page(text).tags and 'pip install "ulpsim[report]" adds it' in Page(text).text


@pytest.mark.parametrize("text", [render_runs({"a": measured(), "b": one_mac()}), render_front(sweep_record())])
def test_pages_load_nothing_and_their_links_lead_somewhere(text):
    page = Page(text)
    assert {address for address in page.addresses if not address.startswith("#")} == {"data:,"}
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.names)
    assert len(page.names) == len(set(page.names))


# The command


@pytest.fixture
def saved(tmp_path):
    save(example(), tmp_path / "a")
    save(one_mac(), tmp_path / "b")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "summary.json").write_text("{}")


def test_report_makes_the_page_of_a_run_anew(command, saved, tmp_path):
    before = (tmp_path / "a" / "report.html").read_text()
    (tmp_path / "a" / "report.html").unlink()
    code, out, err = command("report", "a")
    assert (code, out, err) == (0, "a/report.html: 1 run\n", "")
    assert (tmp_path / "a" / "report.html").read_text() == before


def test_report_sets_runs_side_by_side(command, saved, tmp_path):
    code, out, _ = command("report", "a", "b/summary.json")
    assert (code, out) == (0, "report.html: 2 runs\n")
    assert "a and b" in Page((tmp_path / "report.html").read_text()).text
    code, out, _ = command("report", "a", "b", "--out", "both.html", "--json")
    record = json.loads(out)
    assert code == 0 and record["page"] == "both.html" and [run["name"] for run in record["runs"]] == ["a", "b"]
    assert "a and b" in Page((tmp_path / "both.html").read_text()).text
    assert command("report", "a", "--out", "c.html", "--quiet")[:2] == (0, "") and (tmp_path / "c.html").is_file()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_report_writes_every_layer_of_the_runs_in_every_mode(command, saved, tmp_path, kind):
    pandas = pytest.importorskip("pandas")
    name = f"layers.{kind}"
    code, out, err = command("report", "a", "b", "--export", name)
    assert (code, out, err) == (0, f"report.html: 2 runs; table in {name}\n", "")
    table = {"csv": pandas.read_csv, "parquet": pandas.read_parquet}[kind](tmp_path / name)
    run = read_run("a")
    own = [
        (mode, layer) for mode, layers in {**run.baseline_layers, "two_pass": run.layers}.items() for layer in layers
    ]
    of_a = table[table["run"] == "a"]
    assert set(table["run"]) == {"a", "b"} and list(table.columns[:3]) == ["run", "mode", "name"]
    assert list(zip(of_a["mode"], of_a["name"], strict=True)) == [(mode, layer.name) for mode, layer in own]
    assert list(of_a["energy_j"]) == [layer.energy_j for _, layer in own]
    assert list(of_a["energy_mul_j"]) == [layer.energy_parts_j["mul"] for _, layer in own]
    assert json.loads(command("report", "a", "--export", name, "--json")[1])["table"] == name


def test_without_pyarrow_a_parquet_file_is_refused_before_anything_is_written(command, saved, tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.setattr(tables, "find_spec", lambda name: None if name == "pyarrow" else name)
    code, out, err = command("report", "a", "b", "--export", "x.parquet")
    assert (code, out) == (2, "") and err == (
        "ulpsim: error: report: --export: x.parquet: needs pyarrow, which is not installed; expected the extra "
        "explore; install it with pip install 'ulpsim[explore]'\n"
    )
    assert not (tmp_path / "report.html").exists()
    assert command("report", "a", "b", "--export", "x.csv")[0] == 0


def test_a_table_that_cannot_be_written_leaves_no_page(command, saved, tmp_path, monkeypatch):
    def refuse(rows, path):
        raise InputError(f"{path}: cannot be written (too large an integer); expected another; export to a .csv file")

    monkeypatch.setattr("simulator.commands.report.write_table", refuse)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, out, err = command("report", "a", "b", "--export", "x.csv")
    assert (code, out) == (2, "") and "x.csv: cannot be written (too large" in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("none",),
            "none: no such file or directory; expected a run, or the store of a sweep or a search; check the path",
        ),
        (
            ("empty",),
            "empty: has neither summary.json nor runs.sqlite; expected a run, or the store of a sweep or a search",
        ),
        (
            ("bare",),
            "bare/summary.json: is no record of a run: the whole lacks hardware, model, samples and 11 more; exp",
        ),
        (("a", "a"), "a: got this run twice"),
        (("a/report.html",), "report: got a/report.html, a page; expected directories .*; give a"),
        (("a", "--out", "a.pdf"), "--out: got 'a.pdf'; expected the name of an HTML page; write a.html"),
        (
            ("a", "--sweep", "x"),
            "report: got --sweep without a store; expected both or none; a is a run, leave --sweep out\n",
        ),
        (("a", "--out", "none/a.html"), "none/a.html: cannot be written"),
        (("a", "--export", "a.txt"), "report: --export: got a.txt; expected a name with .csv or .parquet; rename it"),
        (("a", "--export", "none/a.csv"), "none/a.csv: cannot be written"),
    ],
)
def test_report_refuses_with_one_message(command, saved, tmp_path, arguments, words):
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, out, err = command("report", *arguments)
    assert (code, out) == (2, "") and re.match(f"ulpsim: error: ({words})", err) and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


SWEEP = "hw: npu\nmodel: mlp\ncost: {}\nsweep:\n  array.rows: [8, 16, 32]\n  side_engine.lanes: [32, 64]\n"


def test_report_shows_the_points_of_a_store(command, tmp_path):
    pytest.importorskip("dask")
    (tmp_path / "rows.yaml").write_text(SWEEP)
    assert command("sweep", "rows.yaml", "--out", "rows")[0] == 0
    code, out, _ = command("report", "rows")
    assert (code, out) == (0, "rows/report.html: 6 points\n")
    code, out, _ = command("report", "rows", "--json", "--export", "rows.csv")
    record = json.loads(out)
    assert (tmp_path / "rows.csv").read_text().count("\n") == 7 and record["table"] == "rows.csv"
    assert list(record["objectives"]) == ["latency_s", "energy_j"] and len(record["points"]) == 6
    values = [(point["values"]["latency_s"], point["values"]["energy_j"]) for point in record["points"]]
    best = {
        place for place, one in enumerate(values)
        if not any(all(a <= b for a, b in zip(two, one, strict=True)) and two != one for two in values)
    }  # fmt: skip
    assert {place for place, point in enumerate(record["points"]) if point["on_front"]} == best
    code, _, err = command("report", "rows", "--sweep", "other")
    assert (
        code == 2
        and "report: --sweep: got 'other'; expected one of rows, of rows/runs.sqlite; give the name of one" in err
    )
    save(example(), tmp_path / "a")
    code, _, err = command("report", "a", "rows")
    assert code == 2 and "got the store rows beside other directories" in err


def test_the_page_of_a_store_tells_failed_points_from_those_not_computed_yet(command, tmp_path):
    rows = [{"array.rows": rows} for rows in (8, 16, 32, 0, 64)]
    with Store(tmp_path / "s", create=True) as store:
        for name in ("swept", "chosen"):
            if name == "swept":
                store.begin(name, rows)
            else:  # four of the grid
                store.begin_search(name, 4, as_stored(Goal(["energy_j"], points=4), ROWS, 9))
            store.place(name, 0, [Place(own, f"k{i}") for i, own in enumerate(rows[:3])])
            store.place(name, 3, [Place(rows[3], None, "got 0")])
        store.add(Point("k0", 1, {}, {"totals": {"low": {"energy_j": 1e-6, "latency_s": 1.0}}}, None, 0.1))
        store.add(Point("k1", 1, {}, None, "no memory", 0.1))
    for name, said in (("swept", "5 points of s · 2 without a result 3 of 5"),
                       ("chosen", "4 points of s · 1 without a result 2 of 4")):  # fmt: skip
        record = json.loads(command("report", "s", "--sweep", name, "--json")[1])
        assert [point["error"] for point in record["points"]] == [None, "no memory", "got 0"]
        assert record["missing"] == 2
        text = " ".join(Page((tmp_path / "s" / "report.html").read_text()).text.split())
        assert f"{said} computed, interrupted or still under way" in text
        assert "not computed yet" not in text and "1 point: no memory" in text


def test_a_search_of_a_grid_without_more_points_is_whole(tmp_path):
    with Store(tmp_path / "s", create=True) as store:
        store.begin_search("all", 3, as_stored(Goal(["energy_j"], points=3), ROWS, 3))
        store.place("all", 0, [Place({"array.rows": 8}, "k0"), *[Place({"array.rows": 0}, None, "got 0")] * 2])
        store.add(Point("k0", 1, {}, {"totals": {"low": {"energy_j": 1e-6}}}, None, 0.1))
    assert compromises(tmp_path / "s")["missing"] == 0


def test_the_front_of_a_search_is_that_which_the_search_found(command, tmp_path):
    pytest.importorskip("optuna")
    (tmp_path / "best.yaml").write_text(
        SWEEP
        + "search:\n  objectives: {latency_s: min, area_mm2: min}\n  constraints: {energy_j: {to: 1}}\n  points: 4\n"
    )
    code, out, err = command("search", "best.yaml", "--out", "best", "--json")
    assert code == 0, err
    found = json.loads(out)
    record = json.loads(command("report", "best", "--json")[1])
    assert record["objectives"] == found["goal"]["objectives"] and record["constraints"] == {"energy_j": {"to": 1}}
    shown = {json.dumps(point["parameters"]) for point in record["points"] if point["on_front"]}
    assert shown == {json.dumps(point["parameters"]) for point in found["points"] if point["on_front"]} != set()
    assert "of those with energy at most 1.00 J" in Page((tmp_path / "best" / "report.html").read_text()).text


def test_points_that_break_a_constraint_are_drawn_as_such():
    record = sweep_record(constraints={"energy_j": {"to": 4e-4}})
    for point in record["points"]:
        point["feasible"] = point["error"] is None and point["values"]["energy_j"] <= 4e-4
        point["on_front"] = point["on_front"] and point["feasible"]
    figure = front_plots.front_figures(record, record["points"][:-1])["front"].seen[0]
    assert [trace["name"] for trace in figure.data] == [
        "points that break a constraint",
        "other points",
        "Pareto front",
    ]
    assert [len(trace["x"]) for trace in figure.data] == [3, 4, 2]
    assert figure.data[0]["marker"]["symbol"] == "circle-open" and figure.data[2]["mode"] == "lines+markers"
    text = Page(render_front(record)).text
    assert "of those with energy at most 400 µJ" in text and "points that break a constraint" in text
    assert "points that break a constraint" not in Page(render_front(sweep_record())).text


def test_a_search_shows_how_its_hypervolume_grew():
    volumes = [0.0, 0.2, 0.2, 0.75]
    record = sweep_record(search=search_of(volumes))
    (figure,) = front_plots.front_figures(record, record["points"])["search"]
    assert figure.data[0]["y"] == [0.0, 20.0, 20.0, 75.0] and figure.data[0]["x"] == [1, 2, 3, 4]
    page = Page(render_front(record))
    assert "A search chose 9 of 40 points, beside 1 combination that can be none; the front has 75.0 %" in page.text
    assert "about-hypervolume" in page.names
    assert "Can be no point\n\n1 combination: array.rows: got 0" in page.text and "Without a result" not in page.text
    assert "hypervolume" not in Page(render_front(sweep_record())).text.lower()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"feasible": False, "on_front": False}, "there is no hypervolume without a front."),
        ({"values": {"accuracy": 0.9, "energy_j": 1e-6}}, "; its front has no hypervolume, since the box between"),
    ],
)
def test_a_search_without_a_box_has_no_figure_of_its_hypervolume(change, words):
    record = sweep_record(search=search_of(None))
    for point in record["points"][:-1]:
        point |= change
    page = Page(render_front(record))
    assert words in page.text and "Hypervolume over the points" not in page.text


def test_compare_writes_the_page_of_its_two_runs(command, tmp_path):
    pytest.importorskip("torch")
    arguments = ("compare", "npu", "npu_posit", "--samples", 4, "--out", "both.html")
    code, out, err = command(*arguments)
    assert (code, err) == (0, "") and out.endswith("\npage: both.html\n")
    assert json.loads(command(*arguments, "--json")[1])["page"] == "both.html"
    assert command(*arguments, "--quiet") == (0, "", "")
    assert "npu and npu_posit" in Page((tmp_path / "both.html").read_text()).text
    code, _, err = command("compare", "npu", "npu_posit", "--out", "both.txt")
    assert code == 2 and "expected the name of an HTML page; write both.html" in err


def test_parameters_of_a_search_are_one_axis_only_if_they_are_in_its_plan():
    """Of few chosen points any two may go one to one."""
    record = sweep_record(search=search_of([0.5] * 9))
    done = [point for point in record["points"][:-1] if point["parameters"]["array.rows"] * 0.0625
            == point["parameters"]["policy.tolerance"]]  # fmt: skip
    assert len(done) == 3
    assert front_plots.varied_together(record, done) == [["array.rows"], ["policy.tolerance"]]
    together = {**record, "search": search_of([0.5] * 9, axes=[["array.rows", "policy.tolerance"]])}
    assert front_plots.varied_together(together, done) == [["array.rows", "policy.tolerance"]]


def test_the_numbers_of_a_figure_have_no_entities():
    record = sweep_record()
    for place, point in enumerate(record["points"]):
        point["parameters"] = {"mac.low": f"fp8 -> fma(fp{8 * (1 + place % 2)})"}
    text = Page(render_front(record)).text
    assert "fp8 -> fma(fp16)" in text and "&gt;" not in text


def test_infinite_parameters_are_in_the_record_as_a_file_has_them(command, tmp_path):
    (tmp_path / "s.yaml").write_text("hw: npu\ncost: {gemms: [[8, 8, 8]]}\nsweep: {policy.tolerance: [1.0, .inf]}\n")
    assert command("sweep", "s.yaml", "--out", "s")[0] == 0
    record = json.loads(command("report", "s", "--json")[1])
    assert [point["parameters"]["policy.tolerance"] for point in record["points"]] == [1.0, ".inf"]
