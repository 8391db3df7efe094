"""Reports: the terminal view, the files and how they are replaced, the HTML page."""

from __future__ import annotations

import builtins
import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import fields, replace

import pytest
import yaml
from rich.console import Console
from rich.text import Text

from simulator.errors import InputError
from simulator.report import (
    check_directory,
    comparison,
    figures,
    files,
    layers_frame,
    plots,
    print_run,
    render,
    save,
    to_json,
)
from simulator.report.console import plain_table, print_view
from simulator.result import AreaItem, LayerResult, OperationResult, Setting
from tests.simulator.run_records import HIGH, LOW, Page, conditions, example, layer, measured, one_mac


def printed(run, width=100, **console):
    out = io.StringIO()
    print_run(run, Console(file=out, width=width, highlight=False, **console))
    return out.getvalue()


def without(monkeypatch, package):
    """Make `import package` fail as if it were not installed."""
    real = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)


# Quantities


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0 J"),
        (1.5e-6, "1.50 µJ"),
        (999.4e-6, "999 µJ"),
        (999.6e-6, "1.00 mJ"),
        (-2.5e-9, "-2.50 nJ"),
        (12.0, "12.0 J"),
        (1e-20, "1.00e-5 fJ"),
        (math.inf, "∞ J"),
    ],
)
def test_a_quantity_has_a_prefix_and_three_digits(value, text):
    assert figures.quantity(value, "J") == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "–"),
        (0, "0 %"),
        (1e-6, "<0.01 %"),
        (0.0312, "3.12 %"),
        (0.09996, "10.0 %"),
        (0.931, "93.1 %"),
        (1, "100.0 %"),
    ],
)
def test_a_share_is_never_a_false_zero(share, text):
    assert figures.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.3"),
        ("8", "8"),
        (None, "–"),
        ({}, "{}"),
        ([8, 0.1 + 0.2, None, True], "[8, 0.3, null, true]"),
        ({"size": "8 KiB", "read": "1024 bit/cycle", "of": ["fp8_e4m3/sat", "µ.8"]},
         "{size: 8 KiB, read: 1024 bit/cycle, of: [fp8_e4m3/sat, µ.8]}"),
        (["8", "1e5", "0x10", ".inf", "No", "", " a", "a ", "- a", "a: b", "a, b", "12:30", "fma(fp16)", "-", "1_000"],
         '["8", "1e5", "0x10", ".inf", "No", "", " a", "a ", "- a", "a: b", "a, b", "12:30", fma(fp16), "-", "1_000"]'),
    ],
)  # fmt: skip
def test_values_that_vary_are_written_as_a_file_has_them(value, text):
    assert figures.parameter(value) == text
    if isinstance(value, list | dict):
        assert yaml.safe_load(text) == pytest.approx(value) if 8 in value else yaml.safe_load(text) == value


def table_in(width, headings, *rows):
    """The lines of a table whose first column stands left, on a console so wide."""
    console = Console(file=(out := io.StringIO()), width=width)
    table = plain_table(headings[:1], headings[1:])
    for row in rows:
        table.add_row(*row)
    print_view(console, table)
    return out.getvalue().splitlines()


def test_a_table_that_is_too_wide_is_folded_at_words_and_dots_of_keys():
    assert table_in(34, ["key that differs", "A"], ["layers.*.activations.powers", "128 KiB and 0.5 mm²"]) == [
        "key that differs              A",
        "layers.*.           128 KiB and",
        "activations.powers      0.5 mm²",
    ]
    wide = ["layers.*.activations.powers", "128 KiB and 0.5 mm²"]
    assert table_in(60, ["key that differs", "A"], wide)[1].split("  ") == wide, "where there is room, nothing folds"


def test_numbers_and_words_stay_whole_as_long_as_that_can_be():
    headings = ["array.rows", "energy_j", "logit RMS error", "cycles"]
    cells = ["fp8_e4m3/sat", "0.0773 mm²", "1.25e-5", "1,165,477"]
    for width in range(32, 60):
        lines = table_in(width, headings, cells)
        assert max(map(len, lines)) <= width
        words = " ".join(lines).split()
        assert {"0.0773", "mm²", "1.25e-5", "1,165,477", "cycles", "logit", "RMS"} <= set(words), width
    narrow = table_in(20, headings, cells)
    assert max(map(len, narrow)) <= 20, "what fits in no way is folded anywhere"


def test_styles_of_cells_outlive_their_folding():
    console = Console(width=12, record=True, file=io.StringIO())
    table = plain_table(["key"], ["value"])
    table.add_row(Text("some key", style="bold"), "a long value")
    console.print(table)
    assert {part.text.strip() for part in console._record_buffer if part.style and part.style.bold} >= {"some", "key"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.155, "0.155"),
        (0.00012345, "1.23e-4"),
        (151.25, "151"),
        (1110.4, "1,110"),
        (999.6, "1,000"),
        (-123456.0, "-123,000"),
        (999600.0, "1.00e6"),
        (math.nan, "NaN"),
    ],
)
def test_a_pure_number_has_three_significant_digits(value, text):
    assert figures.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("179.394 fJ/bit", "179 fJ/bit"),
        ("1.66064 pJ", "1.66 pJ"),
        ("0.0826 µm²", "0.0826 µm²"),
        ("7 fJ/bit", "7 fJ/bit"),
        ("1300 pJ", "1300 pJ"),
        ("1.8934 fJ/bit²", "1.89 fJ/bit²"),
        ("25.6125 GB/s", "25.6125 GB/s"),
        (None, "–"),
        (0.12345, "0.12345"),
    ],
)
def test_a_price_of_a_machine_has_at_most_three_digits(value, text):
    assert figures.priced(value) == text


def test_shortened_paths_keep_numbers_and_the_last_word():
    path = "model.layers.11.attention.query"
    assert figures.shorten(path, 31) == path
    assert figures.shorten(path, 24) == "m.l.11.attention.query"
    assert figures.shorten(path, 14) == "m.l.11.a.query"
    assert figures.shorten(path, 12) == "m.l.11.a…ery"
    assert figures.shorten("convolution", 3) == "co…"


# Sentences


def test_the_summary_tells_what_two_pass_bought_and_cost():
    assert comparison.summary(example()) == [
        "Over 1,500 samples, two-pass at tolerance 0.3 reaches a top-1 accuracy of 97.93 % (exact 98.60 %, "
        "uniform low 96.20 %, uniform high 98.60 %).",
        "Against uniform low, the logit RMS error is 56.6 % lower, the energy is 42.7 % higher, the latency is 5.91 "
        "times as large and the accumulation cost is 61.4 % higher.",
        "Against uniform high, the logit RMS error is 151 times as large, the energy is 25.3 % higher, the latency is "
        "47.7 % higher and the accumulation cost is 19.3 % lower; uniform high is at least as good in accuracy, error, "
        "energy and latency.",
    ]


def test_the_summary_does_not_call_uniform_high_better_when_two_pass_saves_energy():
    run = example()
    totals = {**run.totals, "two_pass": {**run.totals["two_pass"], "energy_j": run.totals["high"]["energy_j"] / 2}}
    against_high = comparison.summary(replace(run, totals=totals))[-1]
    assert "the energy is 50.0 % lower" in against_high
    assert "at least as good" not in against_high


def test_the_summary_of_one_mac_says_so():
    assert comparison.summary(one_mac()) == [
        "Over 1,500 samples, uniform low reaches a top-1 accuracy of 96.20 % (exact 98.60 %).",
        "npu has one MAC, so there is no uniform high or two-pass run to compare with.",
    ]


def test_a_total_without_a_number_leaves_its_clause_out():
    run = example()
    totals = {mode: {**figures, "energy_j": None, "latency_s": math.nan} for mode, figures in run.totals.items()}
    sentence = comparison.summary(replace(run, totals=totals))[1]
    assert sentence == (
        "Against uniform low, the logit RMS error is 56.6 % lower and the accumulation cost is 61.4 % higher."
    )


def test_flagged_share_is_weighted_by_macs():
    light, heavy = layer("a", 10, 10, 10, flagged=1.0), layer("b", 10, 10, 90)
    assert comparison.flagged_share([light, heavy]) == 0.1
    assert comparison.flagged_share([]) is None


# Terminal


def test_the_terminal_view_at_100_columns():
    lines = printed(example()).split("\n")
    expected = """\
mlp on npu · 1,500 samples · tolerance 0.3 · seed 0
low     chunk(64, fma(fp8_e4m3/sat), seq(fp8_e4m3/sat))
high    chunk(16, fma(fp16/sat), seq(fp16/sat))
energy  class fit, within a factor of 2
                                                                         median    max  SQNR,  over-
layer  op         M × N × K  flagged  cycles   util.  latency   energy    error  error     dB  flows
fc1    linear  1500×784×784   31.0 %  5.37 M  93.1 %  5.37 ms   972 µJ   0.0100  0.400   31.2      0
fc3    linear   1500×10×128   90.0 %  28.9 k  93.1 %  28.9 µs  36.2 µJ  0.00400  0.160   31.2      3
total                         30.7 %  6.20 M  93.1 %  6.20 ms  1.32 mJ           0.800             3
                        logit RMS                            accumulation
mode          accuracy      error  cycles  latency   energy          cost
exact          98.60 %          0       –        –        –             –
uniform low    96.20 %       2.79  1.05 M  1.05 ms   926 µJ         0.500
two-pass       97.93 %       1.21  6.20 M  6.20 ms  1.32 mJ         0.807
• memory.leakage: no figure for 7 nm, taken as 0""".splitlines()
    assert [line for line in expected if line not in lines] == []
    assert all(line == line.rstrip() and len(line) <= 100 for line in lines)
    assert sum(LOW in line for line in lines) == 1
    assert "\x1b" not in "".join(lines)


def test_the_heading_names_a_fidelity_that_is_not_analytic():
    heading = "1,500 samples · tolerance 0.3 · seed 0"
    for fidelity, words in {
        "analytic": "", "event": " · fidelity event (cycles tile by tile)",
        "roofline": " · fidelity roofline (cycles are lower bounds)",
    }.items():  # fmt: skip
        run = example(fidelity=fidelity)
        assert f"mlp on npu · {heading}{words}" in printed(run).splitlines()
        assert f'<p class="facts">{heading}{words}</p>' in render(run)


def test_metrics_are_shown_by_mode_without_those_of_the_table_above():
    lines = printed(measured()).split("\n")
    expected = """\
metric                  exact  uniform low  uniform high  two-pass
top-5 accuracy       100.00 %      99.00 %      100.00 %   99.90 %
agrees with exact    100.00 %      96.80 %       99.93 %   98.40 %
cosine similarity           1        0.870     0.9999751   0.99120
KL divergence, nats         0        0.300       1.00e-7         ∞
perplexity             60.512       60.416        60.514    60.535
SQNR, dB                    –         12.1          60.0      18.0
my[b]\\n                  2.00         1.50          2.00      1.90""".splitlines()
    assert [line for line in expected if line not in lines] == []
    assert not [line for line in lines if "top-1" in line or "squared" in line]
    unlabelled = printed(measured(accuracy=None, metrics={"agreement": example().agreement}))
    assert "metric  " not in unlabelled and "with exact" in unlabelled


def test_operations_outside_of_the_mac_array_are_listed_by_their_work():
    lines = printed(measured()).split("\n")
    expected = """\
not on the MAC array  phase        computed by            count    work  where
relu                  forward      vector unit (float32)      2  3.00 %  act1 and 1 more
native_layer_norm     input grad.  torch (float32)            4  1.23 %  layers.0.norm and 11 more
op0                   forward      torch (float32)            1  0.10 %  x
op5                   forward      torch (float32)            1  0.10 %  x
Work: share of that of all operations (estimate). 3 more with 0.30 %: summary.json has them.""".splitlines()
    assert [line for line in expected if line not in lines] == []
    assert not [line for line in lines if line.startswith(("addmm", "op6"))]
    assert "phase" not in printed(measured(operations=measured().operations[2:], layers=example().layers))
    assert "not on the MAC array" not in printed(measured(operations=measured().operations[:1]))


def test_the_page_shows_the_machine_with_its_area_and_what_decided_on_the_bits():
    def item(part, um2, uncertainty):
        return AreaItem(part, "circuit", 1, um2, um2, uncertainty, 4.0, "", "a source")

    machine = (
        Setting("", {}, "my.yaml", "A machine <of mine>,\nas drawn."),
        Setting("mac.low", {}, "my.yaml:3", "one PE"),
        Setting("mac.low.rate", "4 MAC/cycle", "my.yaml:4", "assumed"),
    )
    run = example(
        machine=machine, settings={"vector unit": "bf16", "layers: fc*": "mac low"},
        area_um2=40_000.0, area_low_um2=10_000.0, area_high_um2=160_000.0,
        area_parts_um2={"mul": 10_000.0, "sram": 30_000.0, "side": 0.0},
        area_items=(item("mul", 10_000.0, "scaled"), item("sram", 30_000.0, "assumed")),
    )  # fmt: skip
    page = render(run)
    assert "<p>A machine &lt;of mine&gt;,\nas drawn. (<code>my.yaml</code>)</p>" in page
    assert page.count('<tr class="part">') == 1 and '<th scope="row"><span class="name"></span></th>' not in page
    assert page.index("<summary>Every value in effect</summary>") < page.index('<span class="name">mac.low.rate</span>')
    assert (
        "Its area is 0.0400 mm², 0.0100 to 0.160 mm² by the bands of the sources (estimate): "
        "sram 75.0 % (assumed x/÷ 4), mul 25.0 % (scaled x/÷ 4)."
    ) in page
    assert "<dt>vector unit</dt><dd>bf16</dd>" in page and "<dt>layers: fc*</dt><dd>mac low</dd>" in page
    assert "The machine</h2>" not in render(example())
    assert "Its area" not in render(example(machine=machine))


def with_vector_unit():
    """The example with two priced operations beside the array and one without a price, in the totals of each mode."""
    beside = {"cycles": 30_000, "latency_s": 3e-5, "energy_j": 4.5e-5}
    operations = (
        OperationResult("relu", "forward", "vector unit", "fp32", 2, ("act",), 10**6, 0.02, 10_000, 1e-5, 1.5e-5),
        OperationResult("_softmax", "forward", "vector unit", "fp32", 1, ("head",), 10**5, 0.01, 20_000, 2e-5, 3e-5),
        OperationResult("sort", "forward", "torch", "float32", 1, ("x",), 5, 0.001),
    )
    totals = {
        mode: {**total, **{name: total[name] + more for name, more in beside.items()},
               **{f"vector_{name}": more for name, more in beside.items()}}
        for mode, total in example().totals.items()
    }  # fmt: skip
    return example(operations=operations, totals=totals)


def test_the_cost_of_operations_outside_of_the_mac_array_is_shown_and_adds_up():
    run, plain = with_vector_unit(), example()
    lines = printed(run).split("\n")
    expected = """\
not on the MAC array  computed by         count    work  cycles   energy  where
relu                  vector unit (fp32)      2  2.00 %  10.0 k  15.0 µJ  act
_softmax              vector unit (fp32)      1  1.00 %  20.0 k  30.0 µJ  head
sort                  torch (float32)         1  0.10 %       –        –  x
total                                                    30.0 k  45.0 µJ""".splitlines()
    assert [line for line in expected if line not in lines] == []
    # The table of the layers has their own total, that of the modes the whole.
    assert next(line for line in lines if line.startswith("total  ")) in printed(plain)
    assert next(line for line in lines if line.startswith("two-pass  ")) not in printed(plain)
    assert comparison.layers_total(run)["cycles"] + 30_000 == run.totals["two_pass"]["cycles"]


def test_the_cost_of_operations_outside_of_the_mac_array_is_in_the_page():
    def shown(run):
        section = render(run).partition("<h2>Not on the MAC array")[2].partition("</table>")[0]
        return re.sub("<[^>]*>", " ", section).split()

    words = " ".join(shown(with_vector_unit()))
    for row in (
        "the work Cycles Energy Where relu forward vector unit (fp32) 2 2.00 % 10,000 15.0 µJ act",
        "_softmax forward vector unit (fp32) 1 1.00 % 20,000 30.0 µJ head",
        "sort forward torch (float32) 1 0.10 % – – x",
        "Total 3.10 % 30,000 45.0 µJ",
    ):
        assert row in words
    assert "Cycles" not in shown(measured())


def test_energy_figures_have_the_vector_unit_as_a_part():
    run = with_vector_unit()
    modes = plots.energy_figures(run)[0]
    for index, mode in enumerate(("low", "high", "two_pass")):
        total = sum(trace["x"][index] for trace in modes.data)
        assert math.isclose(total, run.totals[mode]["energy_j"] * 1e3, rel_tol=1e-3)
    (part,) = [trace for trace in modes.data if trace["name"] == "vector unit"]
    assert part["marker"]["color"] == "--vector" and part["x"] == [0.045] * 3
    dearest = replace(run, totals={**run.totals, "two_pass": {**run.totals["two_pass"], "vector_energy_j": 1.0}})
    assert comparison.largest_energy(dearest).startswith("The largest part of the two-pass energy is vector unit: ")


def test_layers_of_the_backward_pass_say_so():
    lines = printed(measured()).split("\n")
    assert [line.split()[:3] for line in lines if line.startswith("fc1")] == [
        ["fc1", "forward", "1500×784×784"], ["fc1", "weight", "grad."], ["fc1", "input", "grad."],
    ]  # fmt: skip
    figure = plots.energy_figures(measured())[1]
    assert figure.data[0]["customdata"] == ["fc1", "fc2", "fc3", "fc1, weight gradient", "fc1, input gradient"]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_an_incomplete_run_is_marked_and_keeps_to_the_width(width):
    text = printed(measured(), width)
    assert max(map(len, text.split("\n"))) <= width
    assert "mlp on npu · incomplete: 1,500 samples" in text
    assert "interrupted after 1,500 of 60,000 samples" in " ".join(text.split())
    assert "incomplete" not in printed(example(), width)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_long_names_and_big_shapes_keep_to_the_width(width):
    layers = tuple(
        layer(
            f"model.layers.{i}.attention.query", 100864, 12800, 76800, gemms=12, op="convolution", overflows=10**7 * i
        )
        for i in range(12)
    )
    text = printed(example(layers=layers, warnings=("x" * 300,)), width)
    assert max(map(len, text.split("\n"))) <= width
    rows = re.findall(r"^m\w*\.l\w*\.(\d+)\.", text, re.MULTILINE)
    assert rows == [str(i) for i in range(12)], "each layer is on one line and can be told from the others"


def test_a_column_that_does_not_fit_is_left_out_and_named():
    narrow = printed(example(), 70)
    assert "Left out for want of width: op" in narrow
    assert "linear" not in narrow


def test_macs_that_differ_are_named_with_their_layers():
    run = example()
    low = (replace(run.baseline_layers["low"][0], mac="exact(fp32)"), *run.baseline_layers["low"][1:])
    text = printed(replace(run, baseline_layers={**run.baseline_layers, "low": low}))
    assert "low     exact(fp32)  in fc1\n" in text
    assert f"low     {LOW}  in fc2, fc3\n" in text


def test_without_labels_agreement_stands_in_for_accuracy():
    text = printed(example(accuracy=None))
    assert "with exact" in text
    assert "accuracy" not in text
    assert "uniform low      96.80 %" in text


def test_one_mac_shows_no_rows_for_the_other_modes():
    text = printed(one_mac())
    assert "uniform low" in text
    assert "uniform high" not in text
    assert "two-pass" not in text


def test_what_is_not_known_is_an_en_dash():
    bare = layer("fc1", 4, 4, 4, cycles=None, utilisation=None, latency_s=None, energy_j=None, energy_parts_j={},
                 max_rel_error=None, mean_rel_error=None, median_rel_error=None, sqnr_db=None)  # fmt: skip
    run = example(layers=(bare,), totals={}, accuracy=None, agreement={}, forward_error={}, baseline_layers={})
    row = next(line for line in printed(run).split("\n") if line.startswith("fc1"))
    assert row.split() == ["fc1", "linear", "4×4×4", "0", "%", *"––––––", "0"]


def test_line_breaks_and_control_characters_are_printed_as_escapes():
    assert figures.shorten("fc\n1\x1b[31m", 40) == r"fc\n1\x1b[31m"
    run = example(model="m\nlp", warnings=("one\rtwo",))
    run = replace(run, layers=(replace(run.layers[0], name="fc1\n\x1b[2J"), *run.layers[1:]))
    text = printed(run)
    assert r"fc1\n\x1b[2J" in text and r"m\nlp on npu" in text and r"one\rtwo" in text
    assert len(text.splitlines()) == len(printed(example()).splitlines())
    assert "\x1b" not in text and "\r" not in text


def test_markup_in_names_is_printed_as_it_is():
    assert "[bold red]fc1[/]" in printed(example(layers=(layer("[bold red]fc1[/]", 8, 8, 8),)))


def test_standard_output_that_is_a_pipe_is_100_columns_wide(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    print_run(example())
    text = capsys.readouterr().out
    assert text == printed(example())


def test_no_color_prints_no_colour_in_a_terminal(monkeypatch):
    colour = re.compile(r"\x1b\[(?:\d+;)*3\d")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = {"force_terminal": True, "color_system": "truecolor"}
    assert colour.search(printed(example(), **terminal))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(printed(example(), **terminal))


def test_an_output_that_is_not_unicode_gets_ascii_signs():
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as out:
        print_run(example(model="größe"), Console(file=out, width=100))
        out.flush()
        text = raw.getvalue().decode("ascii")
    assert "972 uJ" in text
    assert "1500x784x784" in text
    assert "gr??e on npu" in text


# JSON and CSV


def test_summary_json_has_the_fields_of_the_public_surface():
    record = json.loads(to_json(example()))
    assert {
        "hardware", "model", "samples", "accuracy", "forward_error", "totals", "layers", "versions", "seed", "warnings",
    } <= record.keys()  # fmt: skip
    modes = {"exact", "low", "high", "two_pass"}
    assert record["accuracy"].keys() == record["forward_error"].keys() == modes
    assert record["totals"].keys() == modes - {"exact"}
    for totals in record["totals"].values():
        assert totals.keys() >= {"cycles", "latency_s", "energy_j", "accumulation_cost"}
    for row in record["layers"]:
        assert row.keys() >= {
            "name", "op", "m", "n", "k", "mac", "macs", "recomputed_outputs", "recomputed_macs", "cycles",
            "utilisation", "latency_s", "energy_j", "energy_parts_j", "max_rel_error", "mean_rel_error",
            "median_rel_error", "overflows",
        }  # fmt: skip
    assert record == json.loads(json.dumps(example().to_dict()))
    assert record["layers"][2]["traffic_bits"]["sram_reads"] == 16 * 1500 * 10 * 128


def test_json_has_metrics_operations_and_whether_the_run_is_complete():
    record = json.loads(to_json(measured()))
    assert record["complete"] is False and json.loads(to_json(example()))["complete"] is True
    assert record["metrics"]["cosine"]["low"] == 0.87
    assert record["metrics"]["kl"]["two_pass"] is None
    assert "metrics.kl.two_pass is inf and was written as null: JSON has only finite numbers" in record["warnings"]
    assert record["operations"][1]["places"][:2] == ["layers.0.norm", "layers.1.norm"]
    assert (record["layers"][0]["sqnr_db"], record["layers"][3]["phase"]) == (31.25, "weight gradient")


def test_json_of_one_mac_has_null_for_the_modes_it_lacks():
    record = json.loads(to_json(one_mac()))
    assert record["totals"]["high"] is None
    assert record["totals"]["two_pass"] is None
    assert record["accuracy"]["two_pass"] is None
    assert json.loads(to_json(example(accuracy=None)))["accuracy"] is None


def test_numbers_that_are_not_finite_become_null_and_a_warning():
    run = example(forward_error={"exact": 0.0, "low": math.inf, "high": 0.0, "two_pass": math.nan})
    run = replace(run, layers=(replace(run.layers[0], max_rel_error=-math.inf), *run.layers[1:]))
    text = to_json(run)
    record = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert record["forward_error"] == {"exact": 0.0, "low": None, "high": 0.0, "two_pass": None}
    assert record["layers"][0]["max_rel_error"] is None
    assert record["warnings"] == [
        "memory.leakage: no figure for 7 nm, taken as 0",
        "forward_error.low is inf and was written as null: JSON has only finite numbers",
        "forward_error.two_pass is nan and was written as null: JSON has only finite numbers",
        "layers[0].max_rel_error is -inf and was written as null: JSON has only finite numbers",
    ]
    assert run.warnings == example().warnings


def test_numpy_numbers_are_written_as_numbers():
    numpy = pytest.importorskip("numpy")
    record = json.loads(to_json(example(samples=numpy.int64(7), forward_error={"low": numpy.float32(0.5)})))
    assert record["samples"] == 7
    assert record["forward_error"] == {"low": 0.5}


def test_a_value_that_json_cannot_hold_is_named():
    with pytest.raises(TypeError, match=r"versions\.made: a run record holds .* not bytes"):
        to_json(example(versions={"made": b"x"}))


def test_layers_csv_has_the_fields_of_layers_with_the_parts_spread(tmp_path):
    run = example()
    with (save(run, tmp_path / "out") / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts = [f"energy_{part}_j" for part in run.layers[0].energy_parts_j]
    spread = ("energy_parts_j", "cycle_parts", "traffic_bits", "pass_outputs", "energy_items", "cycle_items")
    plain = [field.name for field in fields(LayerResult) if field.name not in spread]
    moved = {"traffic_dram_bits", "traffic_sram_reads_bits", "pass_high_outputs"}
    assert set(rows[0]) == {*plain, *parts, *moved, "cycles_compute", "cycles_gather"}
    assert [row["name"] for row in rows] == ["fc1", "fc2", "fc3"]
    for row, one in zip(rows, run.layers, strict=True):
        assert float(row["energy_j"]) == one.energy_j, "written so that it reads back as the same number"
        assert math.isclose(sum(float(row[part]) for part in parts), one.energy_j)
        assert int(row["cycles_compute"]) + int(row["cycles_gather"]) == one.cycles
        assert int(row["traffic_dram_bits"]) == one.traffic_bits["dram"]
        assert int(row["flagged_outputs"]) == int(row["pass_high_outputs"]) == one.recomputed_outputs


def test_a_part_or_figure_that_a_layer_lacks_is_an_empty_cell(tmp_path):
    run = example(layers=(layer("a", 2, 2, 2), layer('b,\n"c"', 2, 2, 2, energy_parts_j={}, energy_j=None)))
    with (save(run, tmp_path / "out") / "layers.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["energy_mul_j"] != ""
    assert (second["name"], second["energy_mul_j"], second["energy_j"]) == ('b,\n"c"', "", "")


def test_layers_csv_ends_with_the_condition_numbers_of_a_run_that_has_some(tmp_path):
    run = measured(conditions=(conditions(last=None),))
    with (save(run, tmp_path / "out") / "layers.csv").open(newline="") as file:
        fc1, fc2, _, gradient, _ = csv.DictReader(file)
    assert list(fc1)[-14:] == [f"{name}_{p}" for name in ("kappa", "kappa_v") for p in (1, 5, 25, 50, 75, 95, 99)]
    assert (fc1["kappa_50"], fc1["kappa_99"], fc2["kappa_50"]) == ("8.0", "inf", "")
    assert (gradient["name"], gradient["kappa_50"]) == ("fc1", ""), "those of the forward pass alone"


def test_a_frame_has_the_columns_and_numbers_of_the_csv(tmp_path):
    pandas = pytest.importorskip("pandas")
    run = example()
    run = replace(run, layers=tuple(replace(one, zero_macs=7, a_words=3, planned="low") for one in run.layers))
    frame = layers_frame(run)
    read = pandas.read_csv(save(run, tmp_path / "out") / "layers.csv")
    pandas.testing.assert_frame_equal(frame, read)


def test_without_pandas_a_frame_says_what_to_install(monkeypatch):
    without(monkeypatch, "pandas")
    with pytest.raises(ImportError, match=r'needs pandas; install it with: pip install "ulpsim\[report\]"'):
        layers_frame(example())


# Replacing a directory


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_save_makes_three_files_and_missing_parents(tmp_path):
    target = save(example(), tmp_path / "a" / "b")
    assert target == tmp_path / "a" / "b"
    assert sorted(contents(target)) == ["layers.csv", "report.html", "summary.json"]
    assert json.loads((target / "summary.json").read_text())["model"] == "mlp"
    assert target.stat().st_mode & 0o777 == (tmp_path / "a").stat().st_mode & 0o777
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_save_replaces_earlier_results_whole(tmp_path):
    target = save(example(), tmp_path / "out")
    save(example(model="cnn"), target)
    assert sorted(contents(target)) == ["layers.csv", "report.html", "summary.json"]
    assert json.loads((target / "summary.json").read_text())["model"] == "cnn"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_save_follows_a_link(tmp_path):
    save(example(), tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    save(example(model="cnn"), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "real" / "summary.json").read_text())["model"] == "cnn"


@pytest.mark.parametrize("writer", ["to_json", "_layers_csv", "render"])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_writer_that_fails_leaves_everything_as_it_was(tmp_path, monkeypatch, writer, earlier):
    target = tmp_path / "new" / "out"
    before = contents(save(example(), target)) if earlier else None

    def fail(run):
        raise RuntimeError("broken writer")

    monkeypatch.setattr(files, writer, fail)
    with pytest.raises(RuntimeError, match="broken writer"):
        save(example(model="cnn"), target)
    assert [path.name for path in tmp_path.rglob("*") if path.is_dir()] == (["new", "out"] if earlier else [])
    if earlier:
        assert contents(target) == before


def test_a_full_disk_leaves_everything_as_it_was_and_is_told_in_one_message(tmp_path, monkeypatch):
    target = save(example(), tmp_path / "out")
    before = contents(target)
    real = os.fsync
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=r"out: results could not be written there \(No space left on device\)"
    ) as caught:
        save(example(model="cnn"), target)
    assert "; free some space or choose another (nothing was changed)" in str(caught.value)
    assert contents(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [OSError(16, "Device or resource busy"), KeyboardInterrupt()])
def test_a_failure_between_the_two_renames_puts_the_earlier_results_back(tmp_path, monkeypatch, error):
    target = save(example(), tmp_path / "out")
    before = contents(target)
    real = type(target).rename

    def rename(self, to):
        if ".new-" in self.name:
            raise error
        return real(self, to)

    monkeypatch.setattr(type(target), "rename", rename)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        save(example(model="cnn"), target)
    assert contents(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    assert check_directory(tmp_path / "out") == tmp_path / "out"
    save(example(), tmp_path / "out")


def refusal(path):
    """The message with which both the check and the writer refuse `path`."""
    with pytest.raises(InputError) as checked:
        check_directory(path)
    with pytest.raises(InputError) as saved:
        save(example(), path)
    assert str(checked.value) == str(saved.value)
    return str(checked.value)


def test_a_directory_with_something_else_is_refused(tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    for name in ("a.tex", "b.tex", "c.tex", "d.tex"):
        (thesis / name).write_text("years of work")
    assert refusal(thesis) == (
        f"{thesis}: found a.tex, b.tex, c.tex and 1 more, which is not an earlier run; expected a new or empty "
        "directory, or one with summary.json, layers.csv and report.html alone, which is replaced whole; move what is "
        "yours out of it, or choose another name"
    )
    assert len(contents(thesis)) == 4


def test_results_among_other_files_are_not_replaced(tmp_path):
    target = save(example(), tmp_path / "out")
    (target / "thesis.tex").write_text("years of work")
    (target / "notes").mkdir()
    before = sorted(path.name for path in target.iterdir())
    assert f"{target}: found notes, thesis.tex, which is not an earlier run" in refusal(target)
    assert sorted(path.name for path in target.iterdir()) == before


def test_half_of_a_surrogate_pair_is_written_as_its_escape(tmp_path):
    run = example(model="a\ud800b", warnings=("c\udfffd",))
    run = replace(run, layers=(replace(run.layers[0], name="fc\ud800"), *run.layers[1:]))
    target = save(run, tmp_path / "out")
    for name, text in (("layers.csv", "fc\\ud800"), ("report.html", "a\\ud800b on npu"), ("summary.json", "a\\ud800b")):
        assert text in (target / name).read_text(encoding="utf-8")
    assert "a\\ud800b on npu" in printed(run)


def test_a_file_in_that_place_is_refused(tmp_path):
    path = tmp_path / "out"
    path.write_text("mine")
    assert refusal(path) == f"{path}: found a file; expected a directory for results or a new name; choose another name"
    assert path.read_text() == "mine"


def test_a_parent_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / "out"
    assert refusal(path) == f"{path}: {tmp_path / 'file'} is a file; expected a directory; choose another place"


def test_the_current_directory_and_those_above_are_refused(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path in (".", "..", "/"):
        assert refusal(path).startswith(
            f"{path}: found the current directory or one above it; expected one that can be"
        )


def test_a_parent_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    # The superuser may write anywhere, so the answer of the system is put in.
    monkeypatch.setattr("simulator.report.directories._takes_files", lambda path: path != tmp_path)
    path = tmp_path / "out"
    assert refusal(path) == (
        f"{path}: {tmp_path} cannot be written to; expected a directory in which results can be made; "
        "choose another place or change its permissions"
    )


# HTML


def test_the_page_loads_nothing():
    page = Page(render(example()))
    within = [address for address in page.addresses if address.startswith("#")]
    assert [address for address in page.addresses if address not in within] == ["data:,"]
    assert {address.removeprefix("#") for address in within} <= set(page.names) and len(within) > 20
    assert len(page.names) == len(set(page.names))
    assert not {"iframe", "object", "embed", "img", "audio", "video"} & set(page.tags)
    style = re.search(r"<style>(.*?)</style>", render(example()), re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_plotly_is_inlined_once_and_the_data_of_the_figures_stay_small():
    from plotly.offline import get_plotlyjs

    text = render(example())
    assert text.count(get_plotlyjs()[:2000]) == 1
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)[1]
    places = re.findall(r'data-figure="([\w-]+)"', text)
    assert len(data) < 1_600 * len(places)
    assert sorted(json.loads(data)) == sorted(places)
    assert sorted(places) == [
        "cycles-layers", "cycles-modes", "energy-layers", "energy-modes", "error-accumulation", "error-energy",
        "error-layers", "recomputed", "score-accumulation", "score-energy", "sqnr-layers",
    ]  # fmt: skip


def test_figures_are_records_that_plotly_accepts():
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for figure in plots.energy_figures(example()) + plots.tradeoff_figures(example()):
        # The page puts a colour in the place of each custom property.
        record = re.sub(r'"--[\w-]+"', '"#123456"', json.dumps({"data": figure.data, "layout": figure.layout}))
        graph_objects.Figure(json.loads(record))


def test_energy_bars_sum_to_the_energy_of_their_mode():
    run = example()
    modes = plots.energy_figures(run)[0]
    assert modes.layout["xaxis"]["title"]["text"] == "energy, mJ"
    for index, mode in enumerate(("low", "high", "two_pass")):
        total = sum(trace["x"][index] for trace in modes.data)
        assert math.isclose(total, run.totals[mode]["energy_j"] * 1e3, rel_tol=1e-3)


def test_only_the_dearest_layers_are_drawn_and_the_title_says_so():
    layers = tuple(layer(f"fc{i}", 8, 8, 8 + i) for i in range(100))
    figure = plots.energy_figures(example(layers=layers))[1]
    assert figure.title == "Energy by layer, two-pass, the 40 that take most of 100"
    assert figure.data[0]["customdata"] == [f"fc{i}" for i in range(60, 100)]


def test_points_that_are_not_finite_are_left_out():
    run = example(forward_error={"exact": 0.0, "low": math.inf, "high": 0.008, "two_pass": None})
    figures = {figure.key: figure for figure in plots.tradeoff_figures(run)}
    assert [trace["name"] for trace in figures["error-energy"].data] == ["uniform high"]
    assert len(figures["score-energy"].data) == 3
    render(run)


def test_the_page_has_metrics_operations_and_a_mark_of_incompleteness():
    page, plain = Page(render(measured())), Page(render(example()))
    words = (
        "KL divergence, nats", "0.9999751", "60.416", "my[b]", "weight gradient", "31.2", "vector unit (float32)",
        "layers.0.norm, layers.1.norm, layers.2.norm, layers.3.norm and 8 more", "Incomplete: the run was ",
    )  # fmt: skip
    assert [word for word in words if word not in page.text] == []
    assert "addmm" not in page.text
    assert [one.tags.count("table") - one.tags.count("figure") for one in (page, plain)] == [4, 2]
    assert "Incomplete" not in plain.text and "Phase" not in plain.text


def test_names_of_a_model_cannot_become_markup():
    hostile = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
    named = tuple(replace(one, name=f"{hostile}{one.name}", op=hostile, mac=hostile) for one in example().layers)
    run = example(
        layers=named,
        model=hostile,
        hardware=hostile,
        warnings=(hostile,),
        versions={hostile: hostile},
        energy_basis=hostile,
    )
    text, plain = render(run), render(example())
    page = Page(text)
    assert page.tags.count("script") == Page(plain).tags.count("script")
    assert page.tags.count("img") == 0
    assert page.text.count('alert("x")') >= 9
    data = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1])
    shown = data["energy-layers"]["data"][0]["customdata"][0]
    assert shown.startswith("&lt;/script&gt;"), "plotly.js reads HTML in texts"


def test_without_plotly_the_page_has_its_tables_and_says_how_to_get_figures(monkeypatch):
    without(monkeypatch, "plotly")
    text = render(example())
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("table") == 2
    assert 'has no figures because plotly is not installed; pip install "ulpsim[report]" adds it' in page.text
    assert len(text) < 30_000


def test_the_page_tells_what_the_run_found():
    text = Page(render(example())).text
    for sentence in comparison.summary(example()):
        assert sentence in text
    for words in (
        "uniform high",
        "6,200,670",
        "1.32 mJ",
        LOW,
        HIGH,
        "fc2",
        "97.93 %",
        "linear, relu",
        "numpy",
        "2.3.4",
    ):
        assert words in text
    assert "The largest part of the two-pass energy is dram: 57 % of 1.32 mJ" in text
    assert "of 1.32 mJ (estimate)." in text
    assert text.count("class fit, within a factor of 2") == 1, "beside the modes"
    assert text.count("Energy: estimate, as under Modes.") == 3, "beside both groups of figures and the layers"
    assert "memory.leakage: no figure for 7 nm" in text


@pytest.mark.parametrize(
    "run",
    [
        one_mac(),
        one_mac(metrics={"kl": {"exact": 0.0, "low": None, "high": None, "two_pass": None}}),
        example(accuracy=None),
        example(layers=(), baseline_layers={}),
        example(totals={}, accuracy=None, agreement={}, forward_error={}, baseline_layers={}, tolerance=None),
    ],
    ids=["one mac", "one metric", "no labels", "no layers", "nothing known"],
)
def test_every_reporter_takes_a_run_with_gaps(run, tmp_path):
    save(run, tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "None" not in page.text
    assert "None" not in printed(run)


def test_reports_are_the_same_every_time():
    assert render(example()) == render(example())
    assert to_json(example()) == to_json(example())


def test_importing_the_reports_loads_no_heavy_package():
    heavy = "{'torch', 'pandas', 'plotly'}"
    code = f"import sys, simulator.report; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded == "[]\n"


# --- torch's own run, narrow terminals and runs without layers -------------------------------------------------------


def beside_torch():
    run = measured()
    metrics = {name: {"float32": 0.5, **by_mode} for name, by_mode in run.metrics.items()}
    return replace(run, metrics={**metrics, "mse": {"float32": 0.25, "exact": 0.0, "low": 7.8, "high": 0.0}})


def test_torch_itself_stands_before_the_modes():
    lines = printed(beside_torch(), 140).split("\n")
    modes = next(line for line in lines if line.startswith("float32"))
    assert modes.split()[:5] == ["float32", "50.00", "%", "0.500", "–"]
    assert next(line for line in lines if line.startswith("metric")).split()[:3] == ["metric", "float32", "exact"]
    assert comparison.mode_rows(beside_torch())[0].energy_j is None
    assert "float32 50.00 %" in comparison.summary(beside_torch())[0]
    assert [row.mode for row in comparison.mode_rows(measured())] == ["exact", "low", "high", "two_pass"]
    page = Page(render(beside_torch())).text
    assert "float32" in page and "Float32: the\nnetwork as torch runs it" in page


def test_modes_without_room_are_named():
    text = printed(beside_torch(), 40)
    header = next(line for line in text.split("\n") if line.startswith("metric"))
    assert header.endswith("two-pass") and "exact" not in header
    assert "Left out for want of width: exact," in text and "summary.json" in text
    assert max(map(len, text.split("\n"))) <= 40


def test_one_sample_is_one():
    assert "· 1 sample ·" in printed(example(samples=1))
    page = Page(render(example(samples=1))).text
    assert "1 sample ·" in page and "Over 1 sample, two-pass" in page


def test_a_run_without_layers_says_so():
    run = example(layers=(), baseline_layers={}, totals=dict.fromkeys(("low", "high", "two_pass")), energy_basis="")
    text, page = printed(run), Page(render(run)).text
    assert "No layer ran on the MAC array." in text and "energy  nothing is priced" in text and "M × N" not in text
    assert "No layer ran on the MAC array." in page and "Energy: nothing is priced." in page and "M × N" not in page
