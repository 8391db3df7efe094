"""The expanded configuration of a machine, values in effect with origins and sources, and `show`, which prints it."""

import json
import re
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.commands.show import as_yaml
from simulator.cost import expanded, mode_energy
from simulator.hardware import bundled_names, load_hardware
from simulator.hardware.document import read_document
from simulator.hardware.quantities import UNITS, Quantity, parse_quantity
from simulator.hardware.schema import MachineFile
from simulator.hardware.sections import fields_of, has_names, named_section, section_of

ROOT = Path(__file__).parents[2]
LEVELS = """
memory:   # assumed
  dram: {bandwidth: 32 bit/cycle, energy: 4 pJ/bit}   # HBM2; Jouppi 2021
  l2: {size: 1 MiB, holds: [a, w, o], read: 512 bit/cycle, write: 512 bit/cycle, banks: 8}
  left: {size: 64 KiB, holds: [a, o], read: 128 bit/cycle, write: 128 bit/cycle, buffers: 1}
  right: {size: 64 KiB, holds: [w], read: 128 bit/cycle, write: 128 bit/cycle}
"""
TWO = """
array: {rows: 16, columns: 8}
mac: {low: "int4 -> fixed(16, 0, wrap)", high: "int8 -> fixed(32, 0, wrap)", datapath: %s}
"""
MACHINES = {
    "shortest": "array: {rows: 16, columns: 16}\nmac: {low: fp8_e4m3 -> fma(fp16)}\n",
    "mappings": "array: {rows: 4, columns: 4}\n"
    "mac: {low: {accumulator: {chunk: 4, inner: fma(fp16), outer: {seq: fp32}}, operands: [fp16, bf16]}}\n",
    "os, interleaved": "array: {rows: 4, columns: 4, dataflow: os, interleave: 4, latency: 4 cycles, drain: none}\n"
    "mac: {low: fma(fp32)}\n",
    "dot": "array: {rows: 4, columns: 4, dataflow: dot, copies: 640}\n"
    "mac: {low: {accumulator: v100.fp16, rate: 4 MAC/cycle}}\n",
    "scalesim": "array: {rows: 4, columns: 4, compat: scalesim3}\nmac: {low: fma(fp16)}\n",
    "scalesim, os": "array: {rows: 4, columns: 4, compat: scalesim3, dataflow: os}\nmac: {low: fma(fp16)}\n",
    "best": "array: {rows: 4, columns: 4, dataflow: best}\nmac: {low: fp8_e4m3 -> exact(fp16)}\n",
    "late": "array: {rows: 4, columns: 4, dataflow: is}\nmac: {low: late(fma(fp16))}\n",
    "preset": "array: {rows: 16, columns: 4}\nmac: {low: fma(fp16), high: {accumulator: h100.fp16, energy: 1 pJ}}\n",
    "composed": TWO % "composed",
    "pair": TWO % "pair" + "side_engine: {lanes: 8}\npolicy: {tolerance: .inf, overlap: none}\n",
    "second array": TWO.replace("int4", "int4/rd").replace("int8", "fix8.4") % "pair"
    + "side_engine: {kind: array, rows: 4, columns: 4, queue: 9}\npolicy: {score: kappa_full, weights: sliced}\n",
    "norms": TWO % "pair" + "policy: {score: norm_inf, gather: row}\n",
    "uniform": TWO % "multi_mode" + "policy: {kind: uniform}\n",
    "45 nm": "technology: {node: 45 nm, leakage: 2 mW}\narray: {rows: 4, columns: 4}\nmac: {low: fma(fp32)}\n",
    "levels": "array: {rows: 4, columns: 4}\nmac: {low: fma(fp32)}\n" + LEVELS,
    "layers": TWO % "pair" + "name: 'a: # b'\nlayers:\n  'yes': high\n  a.b#c: {}\n"
    "  'fc*': {mac: two_pass, policy: {tolerance: 1e-3}}\n"
    "  x: {activations: {method: percentile}, weights: {per: block, block: 32, to: 7.5}, output: int8, vector: bf16}\n",
}  # fmt: skip


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text, name="m.yaml"):
        Path(name).write_text(text)
        return load_hardware(name)

    return load


def by_key(settings):
    return {setting.key: setting for setting in settings.values()}


# --- comments -------------------------------------------------------------------------------------------------------


def test_a_document_knows_the_comment_behind_a_value(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "# yaml-language-server: $schema=schema.json\n# the head,\n#   in two lines\n\n# and not this\n"
        'a: {b: "x # y", c: 1}   # both  # and more\n'
        "m:     # of the mapping\n"
        "  low: a#b # plain\n"
        "  l:\n    - 1 # one\n    - 2\n"
        "  text: |  # none\n    # not a comment\n"
        "  q: 'it''s' # quoted\n"
        "  several: one\n    two  # behind two\n"
        "  flow: [1,\n    2]  # end of flow\n"
        "  n: 3  #\n# own line\n"
    )
    document = read_document(tmp_path / "c.yaml", "c.yaml")
    assert document.comments == {
        (): "the head,\nin two lines",
        ("a",): "both  # and more",
        ("a", "b"): "both  # and more",
        ("a", "c"): "both  # and more",
        ("m",): "of the mapping",
        ("m", "low"): "plain",
        ("m", "l", 0): "one",
        ("m", "q"): "quoted",
        ("m", "several"): "behind two",
        ("m", "flow"): "end of flow",
        ("m", "flow", 1): "end of flow",
    }
    assert document.at(("m", "l", 1)) == 2


# --- quantities as text ---------------------------------------------------------------------------------------------


@given(st.data())
def test_a_quantity_reads_as_it_is_written(data):
    dimension = data.draw(st.sampled_from(sorted(UNITS)))
    unit = data.draw(st.sampled_from(sorted(UNITS[dimension])))
    number = data.draw(st.decimals(-1000, 1000, places=3))
    found = parse_quantity(f"{number} {unit}", (dimension,), "")
    assert parse_quantity(str(found), (dimension,), "") == found


@pytest.mark.parametrize(
    ("dimension", "value", "text"),
    [
        ("frequency", Fraction(10**9), "1 GHz"),
        ("power", Fraction(0), "0 W"),
        ("size", Fraction(2**23), "1 MiB"),
        ("size", Fraction(8 * 2**15), "32 KiB"),
        ("energy", Fraction("8.6508e-14"), "86.508 fJ"),
        ("bandwidth", 8 * Fraction("25.6e9"), "25.6 GB/s"),
        ("MAC rate", Fraction(4), "4 MAC/cycle"),
        ("cycles", Fraction(1), "1 cycle"),
    ],
)
def test_a_quantity_is_written_in_the_unit_that_takes_the_fewest_digits(dimension, value, text):
    assert str(Quantity(value, dimension)) == text


def test_a_quantity_that_no_decimal_number_holds_is_refused():
    with pytest.raises(ValueError, match=r"1/3 is no decimal number of MAC/cycle"):
        str(Quantity(Fraction(1, 3), "MAC rate"))


# --- every key, its origin and its source ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", bundled_names())
def test_the_line_of_an_origin_has_the_key_and_its_comment(name):
    lines = (ROOT / "hwconfigs" / f"{name}.yaml").read_text().splitlines()
    written = 0
    for setting in load_hardware(name).configuration.values():
        place = re.match(rf"hwconfigs/{name}\.yaml:(\d+)", setting.origin)
        if place is not None:
            line = lines[int(place[1]) - 1]
            parts = setting.key.split(".")
            assert any(re.search(rf"\b{re.escape(part)}\b", line) for part in parts[-2:]), setting
            assert setting.source == line.partition(" #")[2].strip(), setting
            written += 1
    assert written >= sum(1 for line in lines if re.search(r"^ +\w+: [^ #{]", line))


def keys_of(section, at=()):
    """Every path of keys of the schema; names of the user's own are left out."""
    for key, field in fields_of(section).items():
        below = section_of(field)
        if below is None:
            yield (*at, key)
        elif not has_names(field):
            yield from keys_of(below, (*at, key))


def test_every_key_of_the_schema_is_there():
    npu = load_hardware("npu").configuration
    assert [keys for keys in keys_of(MachineFile) if keys not in npu] == []
    level = named_section(section_of(fields_of(MachineFile)["memory"]))
    assert [key for key in fields_of(level) if ("memory", "sram", key) not in npu] == []
    assert npu[("layers",)].value is None


def test_origins_of_every_kind(loaded):
    found = by_key(loaded(MACHINES["preset"] + LEVELS + "side_engine: {lanes: 8}  # assumed\n", "x.yaml").configuration)

    def shown(key):
        return found[key].value, found[key].origin, found[key].source

    assert shown("name") == ("x", "derived from the name of the file", "")
    assert shown("array.rows") == (16, "x.yaml:1", "")
    assert shown("array.dataflow") == ("ws", "default", "")
    assert shown("mac.low.accumulator") == (
        "chunk(16, fma(fp16), seq(fp16))",
        "x.yaml:2; derived from array.dataflow, array.rows and mac.low.rate",
        "",
    )
    assert shown("mac.high.operands") == ("fp16", "derived from mac.high.accumulator", "")
    assert shown("mac.high.energy") == ("1 pJ", "x.yaml:2", "")
    assert shown("mac.low.energy") == ("auto", "default", "")
    assert shown("memory") == ({}, "x.yaml:4", "assumed")
    assert shown("memory.dram.energy") == ("4 pJ/bit", "x.yaml:5", "HBM2; Jouppi 2021")
    assert shown("memory.dram.latency") == ("0 s", "default", "")
    assert shown("memory.left.buffers") == (1, "x.yaml:7", "")
    assert shown("memory.right.buffers") == (2, "default", "")
    assert shown("memory.right.banks") == (None, "default", "none: no conflicts")
    assert shown("policy.gather") == ("element", "derived from side_engine", "")
    assert shown("policy.runs_on") == ("side_engine", "derived from policy.gather and side_engine", "")
    assert shown("policy.overlap") == ("tile", "derived from policy.runs_on", "")
    assert shown("side_engine.rows") == (None, "derived from side_engine.kind", "")
    assert shown("side_engine.lanes") == (8, "x.yaml:9", "assumed")
    assert "memory.dram" not in found  # a comment behind a mapping in braces is its values'


def test_what_does_not_apply_has_no_value(loaded):
    found = by_key(loaded(MACHINES["dot"]).configuration)
    assert {found[key].value for key in ("array.load", "array.drain", "mac.high", "policy", "memory")} == {None}
    assert found["array.load"].origin == "derived from array.dataflow"
    found = by_key(loaded(MACHINES["scalesim"]).configuration)
    assert (found["array.load"].value, found["array.load"].origin) == ("exposed", "derived from array.compat")
    assert (found["array.drain"].value, found["array.drain"].origin[:26]) == ("exposed", "derived from array.compat ")
    found = by_key(loaded(MACHINES["second array"]).configuration)
    assert (found["side_engine.lanes"].value, found["policy.side_format"].value) == (None, "uint16")
    found = by_key(loaded(MACHINES["uniform"]).configuration)
    assert (found["policy.kind"].value, found["policy.tolerance"].value) == ("uniform", None)
    assert by_key(load_hardware("npu").configuration)["memory.accumulators.read"].value is None


def test_values_in_effect_are_those_of_the_machine(loaded):
    for text in MACHINES.values():
        machine = loaded(text)
        found = by_key(machine.configuration)
        assert found["technology.table"].value == machine.technology.table.name
        assert found["technology.node"].value == f"{machine.technology.table.node_nm:g} nm"
        assert found["mac.low.rate"].value == f"{machine.mac.low.rate} MAC/cycle"
        if machine.mac.high is not None:
            assert found["mac.high.rate"].value == f"{machine.mac.high.rate} MAC/cycle"
            assert found["mac.datapath"].value == machine.mac.datapath
        if machine.policy is not None:
            assert found["policy.gather"].value == machine.policy.gather
    assert found["layers.x.activations.percentile"].value == 99.9 == machine.layers[3].activations.percentile


def test_a_tolerance_of_the_run_says_so(loaded):
    machine = load_hardware("npu").with_tolerance(float("inf"))
    setting = machine.configuration["policy", "tolerance"]
    assert (setting.value, setting.origin, setting.source) == (".inf", "argument of the run", "")
    assert load_hardware("npu").configuration["policy", "tolerance"].value == 0.5


def test_a_machine_changed_in_python_tells_of_no_file():
    npu = load_hardware("npu")
    changed = replace(npu, name="other")
    assert changed.configuration == {} and expanded(changed) == {}
    assert changed.with_tolerance(1.0).configuration == {}
    assert replace(npu, name="npu") == npu and hash(replace(npu)) == hash(npu)


# --- energies -------------------------------------------------------------------------------------------------------


def test_energies_of_the_table_are_resolved():
    """0.179 and 0.125 pJ/bit lie on the line through the table's points in a log-log plot; DRAM: 1300 pJ for 64 bit."""
    machine = load_hardware("npu")
    found = by_key(expanded(machine))
    values = {
        key: float(parse_quantity(found[key].value, ("energy", "energy per bit"), "").value) * 1e12
        for key in found
        if key.endswith("energy")
    }
    assert values["memory.sram.read_energy"] == values["memory.sram.write_energy"] == pytest.approx(0.179, abs=5e-4)
    assert values["memory.accumulators.read_energy"] == pytest.approx(0.125, abs=5e-4)
    assert values["memory.dram.energy"] == pytest.approx(1300 / 64, rel=2e-3)
    for name, mode in (("low", machine.mac.low), ("high", machine.mac.high)):
        assert values[f"mac.{name}.energy"] == pytest.approx(mode_energy(machine, mode).mac_j * 1e12, rel=1e-5)
    sram = found["memory.sram.read_energy"]
    assert sram.origin.startswith("hwconfigs/npu.yaml:")
    assert sram.origin.endswith(": auto, table jouppi2021_7nm (fit x/÷ 2)")
    assert "Jouppi 2021" in sram.source and "0.179 pJ/bit: between the 32 KB and 1 MB entries" in sram.source
    assert found["memory.dram.energy"].origin.endswith("(table x/÷ 1.3)")


def test_the_entries_of_the_table_stand_below_it():
    machine = load_hardware("npu")
    found = expanded(machine)
    keys = [setting.key for setting in found.values()]
    entries = [setting for setting in found.values() if setting.key.startswith("technology.table.")]
    assert keys.index("technology.table") + 1 == keys.index(entries[0].key)
    assert len(entries) >= 13
    assert all(
        entry.source and re.search(r"table jouppi2021_7nm \(\w+ x/÷ [\d.]+\)", entry.origin) for entry in entries
    )
    assert by_key(found)["technology.table.sram_j_per_bit[32 KiB]"].value == "133 fJ/bit"
    assert by_key(found)["technology.table.register_j_per_bit"].value == "2.4 fJ/bit"
    assert by_key(found)["technology.table.idle_factor"].value == 0.1


@pytest.mark.parametrize("name", bundled_names())
def test_no_energy_of_a_bundled_machine_stays_auto(name):
    assert [setting.key for setting in expanded(load_hardware(name)).values() if setting.value == "auto"] == []


def test_an_energy_of_the_file_is_no_energy_of_the_table(loaded):
    found = by_key(expanded(loaded(MACHINES["preset"])))
    assert (found["mac.high.energy"].value, found["mac.high.energy"].origin) == ("1 pJ", "m.yaml:2")


# --- show -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", MACHINES.values(), ids=MACHINES)
def test_what_is_shown_is_a_file_of_the_same_machine(loaded, text):
    machine = loaded(text)
    again = loaded(as_yaml(machine), "again.yaml")
    assert replace(again, source=machine.source) == machine
    if "name" not in text:
        assert loaded(as_yaml(again), "third.yaml") == replace(again, source="third.yaml")


@pytest.mark.parametrize("name", bundled_names())
def test_what_is_shown_of_a_bundled_machine_is_a_file_of_it(loaded, name):
    machine = load_hardware(name)
    assert replace(loaded(as_yaml(machine)), source=machine.source) == machine


def test_show_prints_values_with_origins_and_sources(command):
    code, out, err = command("show", "npu")
    assert (code, err) == (0, "")
    assert out.startswith("# hwconfigs/npu.yaml\n# A 16x16 weight-stationary edge NPU with fp8 operands")
    lines = out.splitlines()
    assert [
        line
        for line in lines
        if re.fullmatch(r'    bandwidth: "25\.6 GB/s" +# hwconfigs/npu\.yaml:\d+; one channel.*', line)
    ]
    assert [line for line in lines if re.fullmatch(r"  copies: 1 +# default", line)]
    assert [line for line in lines if re.fullmatch(r"    # output: of the accumulator +# default", line)]
    assert [
        line
        for line in lines
        if re.match(r"    energy: auto +# 86\.\d+ fJ; hwconfigs/npu\.yaml:\d+: auto, table", line)
    ]
    assert [line for line in lines if line.startswith('  # register_j_per_bit: "2.4 fJ/bit"')]


def test_show_prints_records(command):
    code, out, err = command("show", "npu", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [asdict(setting) for setting in expanded(load_hardware("npu")).values()]


def test_show_prints_the_schema(command):
    code, out, err = command("show", "--schema")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((ROOT / "hwconfigs" / "schema.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "show: got no machine; expected a YAML file or the name of a bundled machine; give e.g. npu\n"),
        (
            ("npu", "--schema"),
            "show: --schema: got it beside others; expected it alone, as it is JSON, and of all "
            "machine files; leave the rest out\n",
        ),
        (("npuu",), "hardware: got 'npuu', no file and no bundled machine; expected one of "),
    ],
)
def test_show_refuses_in_one_message(command, arguments, message):
    code, out, err = command("show", *arguments)
    assert (code, out) == (2, "") and err.startswith(f"ulpsim: error: {message}")


def test_a_comment_cannot_end_its_line(loaded):
    Path("a\nbatch_norm: folded # b").mkdir()
    machine = loaded(MACHINES["shortest"], "a\nbatch_norm: folded # b/m.yaml")
    again = loaded(as_yaml(machine), "again.yaml")
    assert replace(again, source=machine.source) == machine and not again.fold_batch_norm


# --- the record of a run --------------------------------------------------------------------------------------------


def test_a_run_tells_of_its_machine(command, tmp_path):
    pytest.importorskip("torch")
    code, out, _ = command("--hw", "npu", "--samples", 2, "--tolerance", "0.25", "--json")
    assert code == 0
    expected = {
        setting.key: asdict(setting) for setting in expanded(load_hardware("npu").with_tolerance(0.25)).values()
    }
    assert json.loads(out)["machine"] == list(expected.values())
    assert expected["policy.tolerance"]["origin"] == "argument of the run"
    report = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>The machine</h2>" in report
    for text in (
        "memory.sram.read_energy",
        "179 fJ/bit",
        "one channel of DDR4-3200, 64 bit wide",
        "argument of the run",
    ):
        assert text in report
