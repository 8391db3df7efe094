"""Technology tables: files of the user's own, single entries replaced, and nodes scaled from a neighbour."""

import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from formats import get
from simulator.cost import Gemm, area, price
from simulator.cost.vector_unit import VectorOperation, vector_price
from simulator.errors import InputError
from simulator.hardware import load_hardware
from simulator.hardware.nodes import neighbours, scaled_table, scaling_curves
from simulator.hardware.tables import bundled_table, read_table

ROOT = Path(__file__).parent.parent.parent
TABLE = (ROOT / "simulator" / "hardware" / "jouppi2021_7nm.yaml").read_text(encoding="utf-8")
MACHINE = "array: {rows: 16, columns: 16}\nmac: {low: fp8_e4m3 -> fma(fp16)}\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Load a machine with a section `technology`, and a table beside it as tables/mine.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("tables").mkdir()

    def load(technology, table=TABLE):
        Path("tables/mine.yaml").write_text(table, encoding="utf-8")
        Path("m.yaml").write_text(f"technology: {technology}\n{MACHINE}", encoding="utf-8")
        return load_hardware("m.yaml")

    return load


# --- tables of the user's own -----------------------------------------------------------------------------------------


def test_a_table_is_found_from_the_machine_file_on(machine, tmp_path, monkeypatch):
    mine = TABLE.replace('node: "7 nm"', 'node: "5 nm"').replace(
        '"0.9 fJ/bit", class: fit', '"0.7 fJ/bit", class: user'
    )
    found = machine("{table: tables/mine.yaml, node: 5 nm}", mine).technology.table
    assert (found.name, found.node_nm) == ("mine", 5.0)
    assert (found.adder_j_per_bit.value, found.adder_j_per_bit.band) == (0.7e-15, 1.0)
    monkeypatch.chdir("/")
    assert load_hardware(tmp_path / "m.yaml").technology.table == found
    assert "table mine (5 nm)" in price(load_hardware(tmp_path / "m.yaml"), Gemm(4, 4, 4), "low").energy_basis


# What is wrong -> (text of the table, text in its place, column and message of the refusal).
WRONG = {
    "an unknown key": (
        "adder_j_per_bit:\n", "addr_j_per_bit:\n",
        '1: addr_j_per_bit: unknown key; did you mean "adder_j_per_bit"?',
    ),
    "a factor below 0": (
        "idle_factor: {value: 0.10", "idle_factor: {value: -1",
        "22: idle_factor.value: got -1; expected a plain number above 0; write e.g. 0.1",
    ),
    "another dimension": (
        '"1.1 fJ/bit²"', '"1.1 fJ/bit"',
        "11: partial_product_j_per_bit2.value: got '1.1 fJ/bit', which is an energy per bit; expected an energy per "
        'square bit; write e.g. "1.1 fJ/bit²"',
    ),
    "nothing": (
        '"1.1 fJ/bit²"', '"0 fJ/bit²"',
        "11: partial_product_j_per_bit2.value: got '0 fJ/bit²'; expected a value above 0, at most 1 µJ/bit²; write "
        'e.g. "1.1 fJ/bit²"',
    ),
    "an unknown class": (
        '"0.9 fJ/bit", class: fit', '"0.9 fJ/bit", class: guess',
        "32: adder_j_per_bit.class: got 'guess'; expected one of user, table, fit, scaled, assumed; write one of them",
    ),
    "no source": (
        ', source: "clock-gated; no publication"', "",
        "14: idle_factor.source: got nothing; expected where the number is from; say it",
    ),
    "a key too many": (
        "mode_factor: {value: 0.08, class", "mode_factor: {value: 0.08, band: 3, class",
        "28: mode_factor.band: unknown key; expected one of value, class, source; remove it",
    ),
    "no mapping": (
        'mode_factor: {value: 0.08, class: assumed, source: "no publication"}', "mode_factor: 0.08",
        "14: mode_factor: got 0.08; expected a mapping of value, class, source; indent them below",
    ),
    "sizes in disorder": (
        '- {size: "32 KiB"', '- {size: "4 KiB"',
        "12: sram_j_per_bit[1].size: got a size that is not above the one before it; expected them ascending",
    ),
    "a size that is none": (
        '- {size: "32 KiB"', '- {size: "4 pJ"',
        "12: sram_j_per_bit[1].size: got '4 pJ', which is an energy; expected a size; write e.g. \"8 KiB\"",
    ),
    "no size": ('- {size: "32 KiB", ', "- {", "5: sram_j_per_bit[1].size: missing; expected a size"),
    "no unit": (
        'node: "7 nm"', "node: 7", '7: node: got 7 without a unit; expected a length; write e.g. "7 nm"',
    ),
    "a share above 1": (
        "sram_efficiency: {value: 0.7", "sram_efficiency: {value: 7",
        "26: sram_efficiency.value: got 7; expected at most 1; write e.g. 0.1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_table_is_refused_with_its_place(machine, what):
    old, new, message = WRONG[what]
    line = TABLE[: TABLE.index(old)].count("\n") + 1
    with pytest.raises(InputError) as caught:
        machine("{table: tables/mine.yaml}", TABLE.replace(old, new, 1))
    assert f"tables/mine.yaml:{line}:{message}" in str(caught.value).split("\n")


def test_a_table_without_an_entry_names_it_and_one_that_is_no_file_is_refused(machine):
    with pytest.raises(InputError, match=r"^tables/mine.yaml:4:1: mode_factor: missing; expected all of node, partial"):
        machine("{table: tables/mine.yaml}", TABLE.replace("mode_factor", "# "))
    with pytest.raises(InputError, match=r"^tables/other.yaml: no such file; expected a YAML file; check the path"):
        machine("{table: tables/other.yaml}")
    message = "^tables/mine.yaml:.*: sram_j_per_bit: got 3; expected a list of sizes with their energies"
    start, end = TABLE.index("sram_j_per_bit"), TABLE.index("dram_j_per_bit")
    with pytest.raises(InputError, match=message):
        machine("{table: tables/mine.yaml}", TABLE[:start] + "sram_j_per_bit: 3\n" + TABLE[end:])


# --- single entries ---------------------------------------------------------------------------------------------------


def test_overrides_replace_single_entries_without_a_band(machine):
    found = machine('{overrides: {adder_j_per_bit: "1.2 fJ/bit", sram_j_per_bit: "50 fJ/bit", mode_factor: 0.2}}')
    table, old = found.technology.table, bundled_table("jouppi2021_7nm")
    assert (table.adder_j_per_bit.value, table.adder_j_per_bit.uncertainty) == (1.2e-15, "user")
    assert table.adder_j_per_bit.source == "machine file: technology.overrides.adder_j_per_bit"
    assert [table.sram_energy(bits).value for bits in (8, 1 << 30)] == [50e-15] * 2
    assert table.mode_factor.value == 0.2
    same = replace(table, adder_j_per_bit=old.adder_j_per_bit, sram_j_per_bit=old.sram_j_per_bit,
                   mode_factor=old.mode_factor)  # fmt: skip
    assert same == old
    item = next(i for i in price(found, Gemm(4, 4, 4), "low").energy_items if i.what == "multiplier")
    assert item.formula == "1.1 fJ/bit² x 4 x 4 + 1.2 fJ/bit x (4 + 1)"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "5",
            "25: technology.overrides: got 5; expected a mapping of entries of the technology table; write e.g. "
            "{adder_j_per_bit: 1.2 fJ/bit}",
        ),
        (
            "{adder_j_per_bits: 1 fJ/bit}",
            "44: technology.overrides.adder_j_per_bits: got no entry of a technology table; did you mean "
            '"adder_j_per_bit"?',
        ),
        (
            "{adder_j_per_bit: 1 fJ}",
            "43: technology.overrides.adder_j_per_bit: got '1 fJ', which is an energy; expected an energy per bit; "
            'write e.g. "0.9 fJ/bit"',
        ),
        (
            "{idle_factor: 1 fJ}",
            "39: technology.overrides.idle_factor: got '1 fJ'; expected a plain number above 0; write e.g. 0.1",
        ),
    ],
)
def test_wrong_overrides_are_refused(machine, overrides, message):
    with pytest.raises(InputError) as caught:
        machine(f"{{overrides: {overrides}}}")
    assert str(caught.value) == f"m.yaml:1:{message}"


def test_what_a_file_gives_has_the_class_that_it_says(tmp_path):
    """Energies of MACs, memory and vector unit, static power and overrides."""
    text = """technology: {leakage: 1 W, overrides: {register_j_per_bit: "1 fJ/bit"}%s}
array: {rows: 4, columns: 4}
mac: {low: {operands: int8, accumulator: "fixed(32, 0, wrap)", energy: 1 pJ}}
memory:
  dram: {bandwidth: "8 B/cycle", energy: 4 pJ/bit}
  sram: {size: 64 KiB, read: 64 B/cycle, write: 64 B/cycle, read_energy: 1 pJ/bit, write_energy: 1 pJ/bit}
vector_unit: {lanes: 4, energy: 1 pJ}
"""
    path, costs = tmp_path / "m.yaml", {}
    for kind in ("user", "assumed"):
        path.write_text(text % (", given_class: assumed" if kind == "assumed" else ""))
        machine = load_hardware(path)
        costs[kind] = price(machine, Gemm(8, 8, 8), "low")
        given = {item.part for item in costs[kind].energy_items if item.source.startswith("machine file")}
        assert given == {"mul", "register", "sram", "dram", "leak"}
        classes = {i.uncertainty for i in costs[kind].energy_items if i.source.startswith("machine file")}
        unit = vector_price(machine, VectorOperation("elementwise", 64, 64, 64, 64), get("fp32"))
        assert classes == {kind} == {unit.energy_basis.split()[2]}
    user, assumed = costs["user"], costs["assumed"]
    assert user.energy_j == assumed.energy_j
    of_table_j = user.energy_parts_j["idle"] + user.energy_parts_j["acc"]
    assert assumed.energy_high_j - user.energy_high_j == pytest.approx(3 * (user.energy_j - of_table_j))


# --- nodes scaled from a neighbour ------------------------------------------------------------------------------------


def test_the_curves_are_those_of_the_paper():
    voltage, curves = scaling_curves()
    assert voltage == 0.9 and len(curves) == 10
    by_node = {curve.node_nm: curve for curve in curves}
    assert round(by_node[65].energy(1.3), 3) == 2.604
    assert round(by_node[7].energy(0.9) / by_node[45].energy(0.9), 3) == 0.102
    assert round(by_node[7].energy(0.7) / by_node[45].energy(0.9), 3) == 0.057
    assert [curve.area for curve in curves] == sorted((curve.area for curve in curves), reverse=True)
    assert by_node[32].doubt and not by_node[65].doubt


def test_only_neighbours_of_a_table_are_scaled_and_none_with_a_doubtful_curve():
    assert neighbours(bundled_table("horowitz2014_45nm")) == [65.0]  # not 32
    assert neighbours(bundled_table("jouppi2021_7nm")) == [10.0]
    assert neighbours(replace(bundled_table("jouppi2021_7nm"), node_nm=5.0)) == []


@pytest.mark.parametrize(
    ("node", "name", "energy", "space"),
    [
        (65, "horowitz2014_45nm", 1.05835 / 0.84433, 1.5),
        (10, "jouppi2021_7nm", 0.107459 / 0.086453, 0.10 / 0.059),
    ],
)
def test_a_node_next_to_a_table_is_scaled_from_it(machine, node, name, energy, space):
    found, old = machine(f"{{node: {node} nm}}").technology.table, bundled_table(name)
    assert found == scaled_table(old, float(node))
    assert found.adder_j_per_bit.value / old.adder_j_per_bit.value == pytest.approx(energy, rel=1e-4)
    assert found.sram_energy(1 << 18).value / old.sram_energy(1 << 18).value == pytest.approx(energy, rel=1e-4)
    assert found.adder_um2_per_bit.value / old.adder_um2_per_bit.value == pytest.approx(space)
    assert found.sram_cell_um2_per_bit.value / old.sram_cell_um2_per_bit.value == pytest.approx(space)
    assert (found.dram_j_per_bit, found.idle_factor) == (old.dram_j_per_bit, old.idle_factor)
    assert found.adder_j_per_bit.uncertainty == found.sram_cell_um2_per_bit.uncertainty == "scaled"
    assert found.shifter_j_per_bit.uncertainty == "assumed"


def test_every_result_of_a_scaled_node_says_so(machine):
    scaled = machine("{node: 65 nm}")
    found = price(scaled, Gemm(4, 4, 4), "low")
    assert found.warnings[0] == (
        "65 nm has no table of its own: energies on the chip are those of horowitz2014_45nm x 1.25, areas x 1.5, of "
        "class scaled, by the curves of Stillmaker and Baas 2017 at 0.9 V, which over many nodes are 3 to 6 times too "
        "optimistic"
    )
    assert "table horowitz2014_45nm, scaled (65 nm): mul scaled x/÷ 4" in found.energy_basis
    assert area(scaled).area_high_um2 == pytest.approx(4 * area(scaled).area_um2)


def test_numbers_of_a_named_table_are_taken_as_they_are_for_a_node_far_from_it(machine):
    found, old = machine("{node: 28 nm, table: horowitz2014_45nm}"), bundled_table("horowitz2014_45nm")
    table = found.technology.table
    assert (table.name, table.node_nm) == ("horowitz2014_45nm", 28.0)
    for name in ("adder_j_per_bit", "register_um2_per_bit", "sram_cell_um2_per_bit", "shifter_j_per_bit"):
        entry, was = getattr(table, name), getattr(old, name)
        assert (entry.value, entry.band) == (was.value, 4.0) and "at 45 nm, taken for 28 nm" in entry.source
    assert table.sram_energy(1 << 18).value == old.sram_energy(1 << 18).value
    assert (table.dram_j_per_bit, table.idle_factor) == (old.dram_j_per_bit, old.idle_factor)
    cost = price(found, Gemm(4, 4, 4), "low")
    assert cost.warnings[0] == (
        "technology.node is 28 nm, technology.table: horowitz2014_45nm is of 45 nm: energies and areas on the chip are "
        "taken from it as they are, of class scaled"
    )
    assert "table horowitz2014_45nm, unscaled (28 nm): mul scaled x/÷ 4" in cost.energy_basis
    assert cost.energy_high_j == pytest.approx(4 * cost.energy_j)


def test_a_named_table_is_scaled_to_the_node_next_to_it(machine):
    named = machine("{node: 65 nm, table: horowitz2014_45nm}")
    assert named.technology == machine("{node: 65 nm}").technology


def test_a_table_of_the_users_own_is_taken_for_another_node_with_a_band_and_overrides_keep_theirs(machine):
    mine = TABLE.replace("class: fit", "class: user")
    table = machine(
        '{node: 3 nm, table: tables/mine.yaml, overrides: {adder_j_per_bit: "1 fJ/bit"}}', mine
    ).technology.table
    assert table.partial_product_j_per_bit2.uncertainty == "scaled"
    assert table.adder_j_per_bit.uncertainty == "user"


@pytest.mark.parametrize("node", [32, 28, 130, 5])
def test_other_nodes_are_refused_by_name(machine, node):
    with pytest.raises(
        InputError, match=rf"technology.node: got {node} nm; expected a node with a technology table: 45 nm"
    ):
        machine(f"{{node: {node} nm}}")


# --- records ----------------------------------------------------------------------------------------------------------


def test_a_machine_keeps_its_hash_and_takes_none_to_another_process():
    machine, same = load_hardware("npu"), load_hardware("npu")
    assert hash(machine) == hash(same) and machine == same
    assert "_hash" in vars(machine)
    copied = pickle.loads(pickle.dumps(machine))
    assert "_hash" not in vars(copied) and copied == machine and hash(copied) == hash(machine)
    other = replace(machine, name="other")
    assert hash(other) != hash(machine)


def test_energies_between_the_points_of_a_table_rise_with_the_size():
    table = read_table(ROOT / "simulator" / "hardware" / "jouppi2021_7nm.yaml", "jouppi2021_7nm.yaml")
    energies = [table.sram_energy(8 << exponent).value for exponent in range(30)]
    assert energies == sorted(energies) and all(math.isfinite(energy) for energy in energies)


def test_show_prints_the_machine_with_its_scaled_node_its_overrides_and_their_sources(command, tmp_path):
    text = f'technology: {{node: "65 nm", overrides: {{adder_j_per_bit: "1.2 fJ/bit", idle_factor: 0.2}}}}\n{MACHINE}'
    (tmp_path / "m.yaml").write_text(text)
    code, out, _ = command("show", "m.yaml")
    assert code == 0
    (tmp_path / "n.yaml").write_text(out)
    machine, same = load_hardware("m.yaml"), load_hardware("n.yaml")
    assert (machine.technology, machine.array, machine.mac) == (same.technology, same.array, same.mac)
    assert "machine file: technology.overrides.adder_j_per_bit" in out and "x 1.25 from 45 nm" in out
    assert "um2_per_bit" in out
