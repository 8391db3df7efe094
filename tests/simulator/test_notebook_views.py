"""What notebooks show of records: escaped, without scripts and colours of its own, with the figures of the reports."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import formats
import simulator
from formats.notebook import MOST_ROWS, Shown, Table, View, as_html
from simulator.explore import Goal
from simulator.network import bundled
from simulator.report.figures import count, quantity
from simulator.report.notebook import heading, written
from simulator.training.ablation import Ablation


class Seen(HTMLParser):
    """The tags and the text of some HTML; fails where a tag is not closed by its own."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.rows = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self):
        return " ".join(self.text)


def seen(record):
    shown = Seen(record._repr_html_())
    assert set(shown.tags) <= {"div", "style", "p", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    return shown


@pytest.fixture(scope="module")
def run():
    x, y = bundled.digits()
    return simulator.evaluate(bundled.load("mlp"), "npu", x[:20], y[:20])


def test_names_of_others_are_escaped():
    shown = as_html(
        View("<b>", ["a & <i>"], [Table("<u>", [{"<s>": "<script>alert(1)</script>"}])]), str, lambda c, v: v
    )
    assert Seen(shown).tags.count("p") == 2
    assert not {"b", "i", "u", "s", "script"} & set(Seen(shown).tags)
    assert "<script>alert(1)</script>" in Seen(shown).rows[1]


def test_a_long_table_says_how_much_of_it_is_shown():
    shown = Seen(as_html(View("t", (), [Table("rows", [{"n": i} for i in range(100)])]), str, lambda c, v: str(v)))
    assert len(shown.rows) == MOST_ROWS + 1
    assert "rows, 40 of 100" in shown.text


def test_a_record_that_does_not_say_what_is_shown_of_it_is_no_record():
    class Silent(Shown):
        pass

    with pytest.raises(TypeError, match=r"abstract method '?_view"):
        Silent()


def test_texts_are_set_to_the_left_and_numbers_to_the_right():
    shown = as_html(
        View("t", (), [Table("", [{"name": None, "n": 1}, {"name": "x", "n": 2}])]), str, lambda c, v: f"{v}"
    )
    assert '<td class="text">None</td><td>1</td>' in shown


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("energy_j", 1.5e-6, "1.50 µJ"),
        ("energy_j_two_pass", 1.5e-6, "1.50 µJ"),
        ("latency_s", 2e-3, "2.00 ms"),
        ("area_um2", 2.5e6, "2.50 mm²"),
        ("area_mm2", 2.5, "2.50 mm²"),
        ("sqnr_db_low", 31.25, "31.2 dB"),
        ("clock_hz", 1e9, "1.00 GHz"),
        ("utilisation", 0.5, "50.0 %"),
        ("accuracy_low", 0.98765, "98.77 %"),
        ("cycles", np.int64(12345), "12,345"),
        ("policy.tolerance", 0.25, "0.250"),
        ("certified", True, "yes"),
        ("mac", None, "–"),
        ("source", "two\n  lines", "two lines"),
    ],
)
def test_a_number_is_written_by_the_unit_in_its_name(column, value, words):
    assert written(column, value) == words


def test_headings_are_names_without_units():
    assert heading("energy_low_j") == "energy, from" and heading("energy_high_j") == "energy, to"
    assert heading("energy_j_low") == "energy, uniform low"
    assert heading("energy_j_two_pass") == "energy, two-pass"
    assert heading("array.rows") == "array.rows"


def test_a_run_shows_its_modes_and_its_layers(run):
    shown = seen(run)
    for mode in ("low", "high", "two_pass"):
        assert quantity(run.totals[mode]["energy_j"], "J") in shown.words
    for layer in run.layers:
        assert [layer.name, layer.op, count(layer.macs)] in [row[:3] for row in shown.rows]
    assert "INCOMPLETE" in seen(replace(run, complete=False)).words
    assert "Warning: <mind>" in seen(replace(run, warnings=("<mind>",))).words


def test_a_layer_shows_its_bill_and_gives_its_parts(run):
    layer = run.layers[0]
    assert f"{layer.cycles:,} cycles" in seen(layer).words
    bill = layer.to_frame()
    sums = bill.groupby("quantity")["amount"].sum()
    assert sums["cycles"] == layer.cycles
    assert sums["energy_j"] == pytest.approx(layer.energy_j, rel=1e-12)
    assert "Nothing prices it." in seen(replace(layer, cycles=None, energy_j=None)).words


def test_an_estimate_shows_the_modes_and_gives_their_bills():
    found = simulator.estimate("npu", (64, 64, 64), 0.1)
    assert {row[0] for row in seen(found).rows} >= {"uniform low", "uniform high", "two-pass"}
    low = next(row for row in seen(found).rows if row[0] == "uniform low")
    names = seen(found).rows[0]
    ends = [low[names.index(name)] for name in ("energy, from", "energy, to")]
    assert ends == [quantity(end, "J") for end in (found.low.energy_low_j, found.low.energy_high_j)]
    cycles = found.to_frame().query("quantity == 'cycles'").groupby("mode")["amount"].sum()
    assert {mode: cost.cycles for mode, cost in found.modes.items()} == dict(cycles)
    assert seen(found.low).rows


def test_a_machine_shows_what_its_file_says_and_gives_every_key():
    machine = simulator.load_hardware("npu")
    rows = [row for row in seen(machine).rows if row[0] == "array.rows"]
    assert rows[0][1] == "16"
    assert all(row[0] for row in seen(machine).rows)
    assert "A 16x16 weight-stationary edge NPU with fp8 operands" in seen(machine).words
    assert ["mac.low", "1,024"] in [[row[0], row[-1]] for row in seen(machine).rows]
    table = machine.to_frame().set_index("key")
    assert table.loc["array.rows", "value"] == 16
    assert table.loc["technology.table", "source"].startswith("Jouppi")
    made = replace(machine, name="made")
    assert "What its file says" not in seen(made).words
    assert list(made.to_frame().columns) == ["key", "value", "origin", "source"]


@pytest.mark.parametrize("name", [*formats.available(), "takum32", "e11m40", "posit32"])
def test_every_format_is_shown(name):
    assert name.split(":")[0] in seen(formats.get(name)).words


def test_the_frame_of_a_format_is_its_value_table():
    fmt = formats.get("fp8_e4m3")
    table = fmt.to_frame()
    np.testing.assert_array_equal(table["value"].to_numpy(float), fmt.table())
    assert list(table["code"]) == list(range(256))
    with pytest.raises(ValueError, match=r"fp32 has 2\*\*32 codes; tables are made for at most 16 bits"):
        formats.get("fp32").to_frame()
    with pytest.raises(ValueError, match="take that of fp4_e2m1"):
        formats.get("mxfp4").to_frame()


def test_two_passes_give_a_row_for_each_output():
    rng = np.random.default_rng(0)
    found = simulator.two_pass(
        rng.standard_normal((3, 64)), rng.standard_normal((64, 5)), "bf16 -> seq(bf16)", "bf16 -> seq(fp32)"
    )
    table = found.to_frame()
    np.testing.assert_array_equal(table["output"].to_numpy().reshape(3, 5), found.output)
    np.testing.assert_array_equal(table["recomputed"].to_numpy().reshape(3, 5), found.recomputed)
    assert str(int(found.recomputed.sum())) in seen(found).rows[1]


def test_a_unit_shows_its_formats_its_order_and_how_it_is_known():
    shown = seen(simulator.mac("fp8_e4m3 -> seq(bf16, fp32) -> fp16"))
    parts = {"operand a": "fp8_e4m3", "operand b": "fp8_e4m3", "accumulator": "seq(bf16, fp32)", "result": "fp16"}
    assert dict(shown.rows[1:]) == parts
    assert "Each product rounded into bf16, then added to the state, rounded into fp32; in order." in shown.words
    assert ["operand a", "as given"] in seen(simulator.mac("fma(fp16)")).rows
    assert "the seed" in seen(simulator.mac("fma(fp16/sr)")).words and "the seed" not in shown.words
    assert ["h100.fp16 with output fp32: verified"] in seen(simulator.mac("fp16 -> h100.fp16")).rows


def test_an_explanation_shows_its_proof_and_what_is_refused():
    found = simulator.explain("fma(fp16)", shape=(64, 64, 64))
    shown = seen(found)
    assert f"Kernel {found.kernel}, " in shown.words and found.refused
    for clause in (*found.argument, *found.spared):
        assert [clause] in shown.rows
    assert [row[0] for row in shown.rows[-len(found.refused) :]] == [refusal.kernel for refusal in found.refused]


def test_statistics_show_their_totals_and_give_a_row_for_each_tile():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((70, 64)), rng.standard_normal((64, 130))
    _, stats = simulator.matmul(a, b, mac="fma(fp8_e4m3)", stats=True)
    shown, table = seen(stats), stats.to_frame()
    assert list(zip(table["row"], table["column"], strict=True)) == [(i, j) for i in (0, 64) for j in (0, 64, 128)]
    assert table["swamped"].sum() == stats.total["swamped"] and table["max_error"].max() == stats.total["max_error"]
    assert shown.rows[1][shown.rows[0].index("swamped")] == str(stats.total["swamped"])
    assert [row[:2] for row in shown.rows[-6:]] == [[str(i), str(j)] for i in (0, 64) for j in (0, 64, 128)]
    assert list(stats.to_frame(rows=70, columns=130)["underflows"]) == [stats.total["underflows"]]
    _, only = simulator.matmul(1000 * a, b, mac="fma(fp8_e4m3)", stats="overflows")
    assert f"{only.overflows:,} of 9,100 outputs overflowed" in seen(only).words and not seen(only).rows
    with pytest.raises(ValueError, match="hold overflows only"):
        only.to_frame()


def test_an_emulation_shows_its_rules_before_it_runs_and_its_layers_after():
    x, _ = bundled.digits()
    model = bundled.load("mlp")
    with simulator.emulate(model, "npu", layers={"fc1": "exact"}) as run:
        before = seen(run)
        assert repr(run) == "<Emulation of Mlp on npu: no layer has run yet>"
        model(x[:2])
    assert repr(run) == "<Emulation of Mlp on npu: 3 layers have run>"
    assert "No layer has run yet" in before.words and before.rows[-1][0] == "layers fc1"
    after, layers = seen(run), seen(run.result)
    assert after.rows == layers.rows and "No layer has run yet" not in after.words


def test_a_ladder_gives_a_row_for_each_output_and_shows_its_levels():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 64)), rng.standard_normal((64, 5))
    found = simulator.ladder(a, b, ["fma(fp8_e4m3)", "fma(fp16)", "fma(fp32)"], tolerance=0.3)
    table = found.to_frame()
    np.testing.assert_array_equal(table["output"].to_numpy().reshape(6, 5), found.output)
    np.testing.assert_array_equal(table["level"].to_numpy().reshape(6, 5), found.level)
    gave = table["level"].value_counts()
    rows = seen(found).rows
    assert [row[:3] for row in rows[1:4]] == [
        [str(level), str(30 if level == 0 else int(found.computed[level - 1].sum())), str(gave.get(level, 0))]
        for level in range(3)
    ]
    assert float(rows[-1][0]) == pytest.approx(found.cost.relative_to_high, rel=5e-3)
    exact = simulator.ladder(a, b, ["fma(fp8_e4m3)", "fma(fp16)"], score="kappa_exact")
    assert "Accumulation cost" not in seen(exact).words and "bits" not in seen(exact).words


def test_an_ablation_shows_what_each_point_costs_and_its_verdict():
    found = Ablation(
        ("activation", "gradient"),
        {(): [0.9], ("activation", "gradient"): [0.5], ("activation",): [0.875], ("gradient",): [0.5625]},
        1000,
    )
    shown = seen(found)
    assert found.verdict.point == "gradient" and found.verdict.sentence in shown.words
    assert shown.rows[1][:3] == ["gradient", "0.562", "0.338"] and shown.rows[2][0] == "activation"
    assert list(found.to_frame()["gain"]) == [cost.gain for cost in found.costs] == [0.375, 0.0625]


def test_a_search_shows_its_front(tmp_path):
    pytest.importorskip("optuna")
    found = simulator.explore.search(
        "npu", {"array.rows": [8, 16, 32], "array.columns": [8, 16]}, objectives=["latency_s", "area_mm2"], points=4,
        constraints={"area_mm2": {"to": 1.0}}, out=tmp_path / "s", gemms=[(64, 64, 64)], cost_only=True,
    )  # fmt: skip
    shown = seen(found)
    assert shown.rows[0] == ["array.rows", "array.columns", "latency", "area"]
    assert [row[0] for row in shown.rows[1:]] == [str(point.parameters["array.rows"]) for point in found.front]
    assert shown.rows[1][2] == quantity(found.front[0].values["latency_s"], "s")
    assert "smallest latency, smallest area: 4 of 6 points chosen" in shown.words
    assert "keep area at most 1.00 mm²" in shown.words
    words = f"4 of 6 points in {found.store} for the smallest latency, smallest area; 4 computed now"
    assert repr(found) == f"<Search sweep-search: {words}, 0 known before, 0 failed>"
    none = replace(found, goal=Goal(["latency_s"], {"area_mm2": {"from": 9.0}}), points=())
    assert not seen(none).rows


def test_bounds_show_each_sample():
    x, _ = bundled.digits()
    model = bundled.load("mlp")
    found = simulator.bounds.certify(model, x[:3], precision=16)
    assert list(found.to_frame()["certified"]) == found.certified.tolist()
    assert "Of 3 samples" in seen(found).words
    required = simulator.bounds.required_precision(model, x[:2])
    assert list(required.to_frame()["bits"]) == required.bits.tolist()
    assert "Significand bits" in seen(required).words


def test_a_sweep_shows_its_points(tmp_path):
    found = simulator.explore.sweep(
        "npu", {"array.rows": [8, 16]}, out=tmp_path / "s", gemms=[(64, 64, 64)], cost_only=True, flagged=0.1
    )
    shown = seen(found)
    assert shown.rows[0] == ["array.rows", "mode", "cycles", "latency", "energy"]
    assert [row[:2] for row in shown.rows[1:]] == [["8", "two-pass"], ["16", "two-pass"]]
    table = found.to_frame()
    assert [row[2] for row in shown.rows[1:]] == [count(cycles) for cycles in table["cycles_two_pass"]]
    failed = simulator.explore.sweep(
        "npu", {"array.rows": [8, *[0] * MOST_ROWS]}, out=tmp_path / "f", gemms=[(64, 64, 64)], cost_only=True
    )
    assert repr(failed) == (
        f"<Sweep sweep: 41 points in {failed.store}: 1 computed now, 0 known before, 40 without a result>"
    )
    assert f"40 of {MOST_ROWS + 1}" in seen(failed).words and "array.rows: got 0" in seen(failed).rows[2][-1]


def test_a_report_of_bits_and_a_training_are_shown():
    import torch

    x, y = bundled.digits8x8()
    model = torch.nn.Sequential(torch.nn.Linear(64, 10))
    with simulator.track(model) as bits:
        torch.nn.functional.cross_entropy(model(x[:8].float()), y[:8]).backward()
    assert "Bits in step 0" in seen(bits.report()).words
    history = simulator.training.fit(model.double(), (x, y), storage="e8m6", rounding="rz", epochs=2)
    assert len(seen(history).rows) == 3
    assert list(history.to_frame()["loss"]) == [epoch.loss for epoch in history.epochs]
