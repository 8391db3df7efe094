"""Ladders in machine files and networks: what a file may say, what a pass costs, which bits and shares a run has."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import simulator
from simulator.arithmetic.ladder import criteria_of, site_of_level
from simulator.cost import Gemm, accumulation_cost, price
from simulator.cost.price import problem_of, timeline
from simulator.errors import InputError
from simulator.hardware import load_hardware
from simulator.report.comparison import arithmetic
from simulator.report.terminal import _layer_table

MACHINE = """
array: {rows: 16, columns: 16}
mac:
  low: {operands: fp8_e4m3/sat, accumulator: fma(fp8_e4m3/sat), rate: 4 MAC/cycle}
  middle:
    half: {operands: fp8_e4m3/sat, accumulator: fma(fp16/sat), rate: 2 MAC/cycle}
  high: {operands: fp8_e4m3/sat, accumulator: fma(fp32)}
memory:
  dram: {bandwidth: 25.6 GB/s}
  sram: {size: 64 KiB, read: 1024 bit/cycle, write: 512 bit/cycle}
  accumulators: {size: 16 KiB}
policy: {tolerance: 0.05}
"""
GEMM = Gemm(40, 24, 72, 2)
SHAPE = (2, 40, 24)


@pytest.fixture
def load(tmp_path):
    def write(*changes):
        text = MACHINE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "ladder.yaml"
        path.write_text(text)
        return load_hardware(path)

    return write


def masks(*shares):
    rng = np.random.default_rng(7)
    return [rng.random(SHAPE) < share for share in shares]


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_file_names_the_modes_between_in_their_order(load):
    machine = load(("  high:", "    single: fp8_e4m3/sat -> fma(fp24)\n  high:"), ("fp24", "e8m15"))
    assert list(machine.mac.modes) == ["mac.low", "mac.middle.half", "mac.middle.single", "mac.high"]
    assert machine.mac.pass_names == ("half", "single", "high")
    assert [mode.rate for mode in machine.mac.further] == [2, 1, 1]
    assert machine.policy.ladder == "climb"
    assert machine.policy.further is None
    assert load(("0.05}", "0.05, ladder: jump}")).policy.ladder == "jump"
    given = load(("0.05}", "[0.05, .inf]}"))
    assert (given.policy.tolerance, given.policy.further) == (0.05, (math.inf,))


def test_the_expanded_file_shows_each_mode_with_its_price(load):
    found = load().configuration
    assert found["mac", "middle", "half", "rate"].value == "2 MAC/cycle"
    assert found["policy", "ladder"].value == "climb"
    assert found["policy", "ladder"].origin.endswith("derived from mac.middle")
    energies = [
        simulator.cost.expanded(load())[("mac", *name, "energy")] for name in (("low",), ("middle", "half"), ("high",))
    ]
    values = [float(one.value.split()[0]) for one in energies]
    assert all(one.value.endswith("pJ") or one.value.endswith("fJ") for one in energies)
    assert len(set(values)) == 3
    assert load_hardware("npu").configuration["policy", "ladder"].value is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("0.05}", "0.05, ladder: leap}")], "policy.ladder: got 'leap'"),
        ([("0.05}", "[0.1, 0.2, 0.3]}")],
         "policy.tolerance: got 3 numbers for 3 modes of mac; expected one, or 2, of each mode but the last"),
        ([("0.05}", "[0.2, 0.1]}")], "policy.tolerance: got [0.2, 0.1]; expected rising numbers"),
        ([("0.05}", "[]}")], "policy.tolerance: got"),
        ([("fma(fp16/sat)", "fma(posit16)")],
         "mac.middle: got sums in fp8_e4m3/sat, posit16, fp32; expected floats of rising precision"),
        ([("fma(fp16/sat)", "fma(fp8_e5m2)")], "mac.middle: got sums in fp8_e4m3/sat, fp8_e5m2, fp32"),
        ([("policy:", "side_engine: {lanes: 64}\npolicy:")],
         "side_engine: got an engine beside mac.middle; expected none, since each further pass runs on the array"),
        ([("  middle:", "  datapath: pair\n  middle:")],
         "mac.datapath: got pair beside mac.middle; expected multi_mode"),
        ([("0.05}", "0.05, weights: high_only}")], "policy.weights: got high_only beside mac.middle; expected both"),
        ([("  high: {operands: fp8_e4m3/sat, accumulator: fma(fp32)}\n", ""), ("policy: {tolerance: 0.05}\n", "")],
         "mac.middle: got modes between without a last one; expected mac.high beside it"),
        ([("    half:", "    half: {accumulator: fma(fp16), rote: 2}\n    other:")],
         "mac.middle.half.rote: unknown key"),
        ([("  middle:\n    half: {operands: fp8_e4m3/sat, accumulator: fma(fp16/sat), rate: 2 MAC/cycle}\n", ""),
          ("0.05}", "0.05, ladder: jump}")],
         "policy.ladder: got jump for two modes; expected mac.middle, modes between"),
        ([("  middle:\n    half: {operands: fp8_e4m3/sat, accumulator: fma(fp16/sat), rate: 2 MAC/cycle}\n", ""),
          ("0.05}", "[0.1, 0.2]}")],
         "policy.tolerance: got 2 numbers for 2 modes of mac; expected one; correct it"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_at_its_place(load, changes, message):
    with pytest.raises(InputError) as caught:
        load(*changes)
    assert message in str(caught.value)


def test_a_list_of_tolerances_takes_accumulators_without_a_unit_roundoff(load):
    machine = load(("fma(fp16/sat)", "fma(posit16)"), ("0.05}", "[0.05, 1.0]}"))
    assert machine.policy.further == (1.0,)
    with pytest.raises(InputError, match=r"policy.tolerance: got 0.3 in place of one for each mode"):
        machine.with_tolerance(0.3)
    assert load().with_tolerance(0.3).policy.tolerance == 0.3


# --- the bill --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fidelity", ["roofline", "analytic", "event"])
@pytest.mark.parametrize("gather", ["coltile", "row", "tile"])
def test_each_further_pass_costs_as_a_second_one_of_its_mode(load, gather, fidelity):
    """The cycles of two machines with two modes, less a first pass that is then counted twice."""
    machine = load(("0.05}", f"0.05, gather: {gather}}}"))
    half, high = masks(0.2, 0.03)
    found = price(machine, GEMM, "two_pass", [half, high], fidelity=fidelity)
    low = price(machine, GEMM, "low", fidelity=fidelity)
    (name, middle), mac = machine.mac.middle[0], machine.mac
    alone = []
    for mode, mask in ((middle, half), (mac.high, high)):
        two = replace(machine, mac=replace(mac, high=mode, middle=()))
        alone.append(price(two, GEMM, "two_pass", mask, fidelity=fidelity))
    assert name == "half"
    assert found.cycles - low.cycles == sum(one.cycles - low.cycles for one in alone)
    assert found.flagged_by_pass == (half.sum(), high.sum())
    assert found.flagged_outputs == half.sum() + high.sum()
    assert found.recomputed_outputs == sum(one.recomputed_outputs for one in alone)
    assert found.waste_factor == found.recomputed_outputs / found.flagged_outputs
    for key, mask_bits in (("dram", 0), ("sram_reads", half.size)):
        again = sum(one.traffic_bits[key] - low.traffic_bits[key] - mask_bits for one in alone)
        assert found.traffic_bits[key] - low.traffic_bits[key] - 2 * mask_bits == again, "a mask of three passes"
    assert sum(found.cycle_parts.values()) == found.cycles == sum(item.cycles for item in found.cycle_items)
    assert found.energy_j == pytest.approx(sum(item.energy_j for item in found.energy_items), rel=1e-12)


def test_the_energy_of_each_pass_is_that_of_its_mode(load):
    machine, (half, high) = load(), masks(0.2, 0.03)
    found = price(machine, GEMM, "two_pass", (half, high))
    macs = {
        what: [item for item in found.energy_items if item.what.startswith(what) and item.unit == "MAC"]
        for what in ("second pass: ", "pass 3: ")
    }
    for (what, items), mode in zip(macs.items(), ("half", "high"), strict=True):
        uniform = machine.mac.modes["mac.high" if mode == "high" else f"mac.middle.{mode}"]
        each = simulator.cost.mode_energy(machine, uniform).mac_j
        working = [item for item in items if item.part in ("mul", "acc")]
        assert sum(item.each_j for item in working) == pytest.approx(each, rel=1e-12), what
        assert len({item.count for item in working}) == 1
    scores = {}
    for kind in ("climb", "jump"):
        cost = price(load(("0.05}", f"0.05, ladder: {kind}}}")), GEMM, "two_pass", (half, high))
        (scores[kind],) = (item.count for item in cost.energy_items if item.what == "scores")
    assert scores == {"climb": half.size + half.sum(), "jump": half.size}
    counts = [items[0].count for items in macs.values()]
    assert sum(counts) == found.recomputed_outputs * GEMM.k
    assert {item.part for item in found.cycle_items} >= {"gather", "switch"}
    named = [item.what for item in found.cycle_items if item.part == "gather"]
    assert [name.split(",")[0] for name in named] == ["the second pass", "pass 3"]


def test_no_flags_cost_nothing_and_all_flags_all_passes(load):
    machine = load()
    none = price(machine, GEMM, "two_pass", [np.zeros(SHAPE, bool)] * 2)
    assert none.cycles == price(machine, GEMM, "low").cycles
    every = price(machine, GEMM, "two_pass", 1.0)
    assert every.flagged_by_pass == (2 * 40 * 24,) * 2
    assert every == price(machine, GEMM, "two_pass", [1.0, 1.0])
    assert price(machine, GEMM, "two_pass", [0.3, 0.1]).cycles < every.cycles


def test_flags_are_those_of_each_pass(load):
    machine, (half, high) = load(), masks(0.2, 0.1)
    for flags, found in ((half, "one ndarray"), ([half], "1"), ([half, high, high], "3")):
        with pytest.raises(
            InputError, match=rf"flags: got {found} for the ladder of .*; expected those of each of the 2"
        ):
            price(machine, GEMM, "two_pass", flags)


def test_a_timeline_has_an_event_for_each_pass(load):
    events = timeline(load(), GEMM, "two_pass", masks(0.2, 0.1))
    again = [event for event in events if event.what == "recompute"]
    assert len(again) == 2
    assert again[0].end == again[1].start
    assert again[1].end == price(load(), GEMM, "two_pass", masks(0.2, 0.1), fidelity="event").cycles


def test_the_accumulation_cost_is_a_sum_over_the_passes(load):
    machine = load()
    assert accumulation_cost(machine, [0.3, 0.1]) == {
        "low": 0.25, "high": 1.0, "two_pass": pytest.approx(0.25 + 0.5 * 0.3 + 0.1, rel=1e-15)
    }  # fmt: skip
    full = load(("0.05}", "5.0, score: kappa_full, side_metric: second_pass}"))
    assert accumulation_cost(full, [0.3, 0.1])["two_pass"] == pytest.approx(0.25 * 2 + 0.5 * 0.3 + 0.1, rel=1e-15)
    found = simulator.estimate(machine, (40, 24, 72), [0.3, 0.1])
    shares = [count / (40 * 24) for count in found.two_pass.flagged_by_pass]
    assert found.accumulation_cost["two_pass"] == pytest.approx(0.25 + 0.5 * shares[0] + shares[1], rel=1e-15)
    assert found.gathers == ()
    assert found.break_even_flagged is None


def test_circuits_of_all_modes_take_area_and_slow_each_other(load):
    machine = load()
    two = replace(machine, mac=replace(machine.mac, middle=()))
    names = {item.what.split(":")[0] for item in simulator.cost.area(machine).items}
    assert "mac.high" in names
    energies = [simulator.cost.mode_energy(one, one.mac.low).mac_j for one in (machine, two)]
    assert energies[0] > energies[1], "each further mode of a datapath costs"
    assert simulator.cost.area(machine).area_um2 > simulator.cost.area(two).area_um2


def test_other_operands_of_each_mode_are_all_held_on_chip(load):
    machine = load(
        ("half: {operands: fp8_e4m3/sat", "half: {operands: bf16"),
        ("high: {operands: fp8_e4m3/sat", "high: {operands: fp32"),
    )
    widths = problem_of(machine, GEMM, "two_pass").widths
    assert (widths.a, widths.a_held, widths.w_held) == (8, 8 + 16 + 32, 8 + 16 + 32)


# --- networks --------------------------------------------------------------------------------------------------------

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from simulator.network.emulation import Emulation  # noqa: E402


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))


def rand(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def run(machine, x, batches=1, threads=None, model=None, **options):
    model = (model or network()).eval()
    seen = {}
    emulation = Emulation(
        model, machine, threads=threads, seed=6,
        observers=(lambda op, y, tally: seen.setdefault(op.name, []).append(y.copy()),), **options,
    )  # fmt: skip
    with torch.no_grad(), emulation:
        y = torch.cat([model(part) for part in x.chunk(batches)])
    return y.numpy(), emulation.result, {name: np.concatenate(of, axis=1) for name, of in seen.items()}


@pytest.mark.parametrize("kind", ["climb", "jump"])
def test_a_layer_has_the_bits_and_shares_of_its_ladder(load, kind):
    machine, model, x = load(("0.05}", f"0.05, ladder: {kind}}}")), network(), rand(16, 30)
    _, record, seen = run(machine, x, model=model)
    layer = record.layers[0]
    levels = [mode.spec for mode in machine.mac.modes.values()]
    found = simulator.ladder(
        x.numpy(), model[0].weight.detach().numpy().T, levels, 0.05, "relu",
        c=model[0].bias.detach().numpy(), kind=kind, seed=6, site=0,
    )  # fmt: skip
    np.testing.assert_array_equal(seen["0"][0], found.output)
    half, high = (int(one.sum()) for one in found.computed)
    assert layer.pass_outputs == {"half": half, "high": high}
    assert layer.recomputed_outputs == int((found.level > 0).sum()) > 0
    assert half and high
    assert layer.mac == "; ".join(map(str, levels))
    assert record.totals["two_pass"]["accumulation_cost"] == pytest.approx(
        sum(
            of.macs / sum(one.macs for one in record.layers)
            * accumulation_cost(machine, [n / (16 * of.n) for n in of.pass_outputs.values()])["two_pass"]
            for of in record.layers
        ), rel=1e-12,
    )  # fmt: skip
    masked = [one.reshape(1, 16, 20) for one in found.computed]
    assert layer.cycles == price(machine, Gemm(16, 20, 30, 1), "two_pass", masked).cycles
    assert record.gathers == ()


@pytest.mark.parametrize("changes", [[], [("0.05}", "0.0, budget: 0.15, ladder: jump}")],
                                     [("fma(fp16/sat)", "fma(fp16/sr)"), ("fma(fp32)", "fma(e8m17/sr)")]])  # fmt: skip
def test_neither_threads_nor_batches_change_a_bit_or_a_flag(load, changes):
    machine, x = load(*changes), rand(24, 30)
    whole = run(machine, x, threads=1)
    for other in (run(machine, x, batches=3), run(machine, x, batches=24, threads=2)):
        assert whole[0].tobytes() == other[0].tobytes()
        assert whole[1].layers == other[1].layers
    assert all(sum(layer.pass_outputs.values()) for layer in whole[1].layers)


def test_the_passes_of_a_network_draw_the_words_of_their_levels(load):
    machine = load(("fma(fp16/sat)", "fma(fp16/sr)"), ("fma(fp32)", "fma(e8m17/sr)"), ("0.05}", "[0.0, 0.0]}"))
    model, x = network(), rand(5, 30)
    _, _, seen = run(machine, x, model=model)
    weight, bias = (p.detach().numpy() for p in (model[2].weight, model[2].bias))
    site = site_of_level(1, 2)
    after_relu = np.maximum(seen["0"][0], 0)
    high = simulator.matmul(after_relu, weight.T, machine.mac.high.spec, c=bias, seed=6, site=site)
    np.testing.assert_array_equal(seen["2"][0], high)


def test_evaluate_sets_the_ladder_beside_its_uniform_modes(load, tmp_path):
    x = rand(20, 30)
    record = simulator.evaluate(network(), load(), x, torch.arange(20) % 10)
    totals, errors = record.totals, record.forward_error
    assert errors["two_pass"] < errors["low"]
    assert totals["low"]["energy_j"] < totals["two_pass"]["energy_j"]
    zero = simulator.evaluate(network(), load(), x, tolerance=0.0)
    assert zero.layers[1].pass_outputs == {"half": 200, "high": 200}
    assert zero.layers[1].rms_error == zero.baseline_layers["high"][1].rms_error or zero.layers[0].rms_error
    record.save(tmp_path / "out")
    assert "pass_half_outputs,pass_high_outputs" in (tmp_path / "out" / "layers.csv").read_text().splitlines()[0]

    assert [label for label, _ in arithmetic(record)] == ["low", "half", "high"]
    assert arithmetic(record)[1][1] == str(load().mac.middle[0][1].spec)
    console = Console(width=220, file=io.StringIO())
    console.print(_layer_table(record, 220))
    heading = next(line for line in console.file.getvalue().splitlines() if "flagged" in line)
    assert heading.split().index("half") == heading.split().index("flagged") + 1


def test_gradients_of_a_ladder_run_on_the_last_level(load):
    model = network()
    with simulator.emulate(model, load()) as emulation:
        model(rand(6, 30)).square().sum().backward()
    macs = {layer.phase: layer.mac for layer in emulation.result.layers}
    assert macs["forward"].count(";") == 2
    assert macs["weight gradient"] == macs["input gradient"] == str(load().mac.high.spec)


def test_rules_of_layers_hold_for_all_passes(load):
    machine, x = load(), rand(6, 30)
    result = run(machine, x, layers={"0": {"operands": "bf16"}, "2": {"policy": {"tolerance": 3.0}}})[1]
    assert result.layers[0].mac.count("bf16 -> ") == 3
    emulation = Emulation(network(), machine, {"2": {"policy": {"tolerance": 3.0}}})
    rule = emulation.rules.forward("2")
    assert [one.tolerance for one in criteria_of(rule.criterion, rule.units)] == [3.0, 3.0 * 2**7]
    listed = load(("0.05}", "[0.05, 1.0]}"))
    with pytest.raises(InputError, match="layers: 2: got a tolerance of its own in place of one for each mode"):
        Emulation(network(), listed, {"2": {"policy": {"tolerance": 3.0}}})
    with pytest.raises(InputError, match="expected the same formats in all"):
        other = load(("half: {operands: fp8_e4m3/sat", "half: {operands: fp8_e5m2/sat"))
        Emulation(network(), other, {"0": {"activations": {"per": "tensor"}}})
    scaled = run(machine, x, layers={"*": {"activations": {"per": "row"}, "weights": {"per": "channel"}}})[1]
    assert set(scaled.layers[0].pass_outputs) == {"half", "high"}


def test_a_calibrated_policy_climbs_too(load):
    policy = "0.0, score: sensitivity, budget: 0.2, budget_over: network}"
    machine, model, x = load(("0.05}", policy)), network(), rand(64, 30)
    emulation = Emulation(model, machine)
    emulation.calibrate(x)
    with torch.no_grad(), emulation:
        model(x)
    layers = emulation.result.layers
    again = sum(layer.recomputed_macs for layer in layers)
    assert 0 < again <= 0.2 * sum(layer.macs for layer in layers) * 1.05
    climbing = [criteria_of(one, emulation.rules.default.units) for one in emulation.criteria.values()]
    assert all(second.tolerance == first.tolerance * 2**7 for first, second in climbing)
