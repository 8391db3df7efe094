"""From a machine file to the Machine: find it, read it, check what concerns several keys, build the records."""

from __future__ import annotations

import difflib
import math
import os
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from formats import Use
from simulator.arithmetic.spec import MacSpec, mac
from simulator.errors import InputError

from . import schema
from .configuration import configuration
from .document import Document, Keys, read_document, too_deep
from .layers import layer_rules
from .order import array_order, significand_bits
from .policy import side_engine, two_pass_policy
from .quantities import Quantity, describe
from .records import (
    TENSORS,
    AccumulatorBuffer,
    Array,
    Dram,
    Level,
    Mac,
    Machine,
    MacMode,
    Memory,
    Policy,
    SideEngine,
    Technology,
    VectorUnit,
)
from .sections import Section, fields_of, has_names, named_section, section_of
from .tables import bundled_table, find_table, overridden, table_names


def load_hardware(path_or_name: str | os.PathLike[str]) -> Machine:
    """Read a machine file.

    Args:
        path_or_name: path of a YAML file, or the bare name of a bundled machine such as "npu".
    Returns:
        The machine as frozen records; the order of summation of its MACs is that of its array. Its configuration tells
        of each key where its value is from.
    Raises:
        InputError: no such file or name, or everything that is wrong in the file, one line a problem:
            `path:line:column: dotted.key: what was found; expected; what to do`.
    """
    shown = os.fspath(path_or_name) if isinstance(path_or_name, os.PathLike) else path_or_name
    if not isinstance(shown, str) or not shown.strip():
        raise InputError(f"hardware: got {describe(shown)}; expected a path or a name; give e.g. npu")
    if Path(shown).name == shown and not Path(shown).suffix and not Path(shown).is_file():
        return _load_bundled(shown)
    path = Path(shown)
    if path.stem in bundled_names() and not os.path.lexists(shown):
        raise InputError(
            f"{shown}: no such file; expected a YAML file; write {path.stem} for the bundled machine of that name"
        )
    return _load(path, shown)


def bundled_names() -> list[str]:
    """Return the names of the machines that ship with the simulator."""
    return sorted(f.name.removesuffix(".yaml") for f in files("hwconfigs").iterdir() if f.name.endswith(".yaml"))


def _load_bundled(name: str) -> Machine:
    known = bundled_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "name one of them, or give the path of a YAML file"
        raise InputError(
            f"hardware: got {name!r}, no file and no bundled machine; expected one of {', '.join(known)}; {hint}"
        )
    with as_file(files("hwconfigs") / f"{name}.yaml") as path:
        return _load(path, f"hwconfigs/{name}.yaml")


def _load(path: Path, shown: str) -> Machine:
    document = read_document(path, shown)
    try:
        form = schema.MachineFile.model_validate(document.data)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            _explain(document, problem)
        document.check()
        raise
    except RecursionError:
        raise too_deep(shown) from None
    machine = _Builder(document, form, path.parent).machine(path.stem)
    document.check()
    return machine.described(configuration(document, form, machine))


# --- messages of the schema ------------------------------------------------------------------------------------------


def _explain(document: Document, problem: Any) -> None:
    """Turn a problem of the schema into a message of ours."""
    at: Keys = tuple(problem["loc"])
    *parents, last = at or ("",)
    match problem["type"]:
        case "value_error":
            document.problem(at, str(problem["ctx"]["error"]))
        case "missing":
            field = fields_of(_section(tuple(parents)))[str(last)]
            document.problem(
                at, f"missing; expected {field.description}; add e.g. '{last}: {(field.examples or [''])[0]}'"
            )
        case "extra_forbidden":
            known = list(fields_of(_section(tuple(parents))))
            near = difflib.get_close_matches(str(last), known, n=1)
            document.problem(
                at, "unknown key; " + (f'did you mean "{near[0]}"?' if near else _known(known)), on_key=True
            )
        case _:
            keys = ", ".join(fields_of(_section(at)))
            document.problem(
                at, f"got {describe(problem['input'])}; expected a mapping with keys out of {keys}; indent them below"
            )


def _known(names: list[str]) -> str:
    return f"expected one of {', '.join(names)}; remove it"


def _section(at: Keys) -> Section:
    """Return the model of a section by its path of keys."""
    model: Section = schema.MachineFile
    by_name = False
    for key in at:
        if by_name:  # the key is one of the user's, and the model that of all of them
            by_name = False
            continue
        field = fields_of(model).get(str(key))
        by_name = field is not None and has_names(field)
        below = named_section(model) if field is None else section_of(field)
        assert below is not None  # the schema has found a problem in it
        model = below
    return model


# --- records, and checks across keys ---------------------------------------------------------------------------------


class _Builder:
    """Builds the records of one file; problems are collected in its document."""

    def __init__(self, document: Document, form: schema.MachineFile, directory: Path) -> None:
        self.document = document
        self.directory = directory
        self.form = form
        self.frequency_hz = form.technology.frequency.value

    def machine(self, stem: str) -> Machine:
        form = self.form
        technology = self._technology()
        array = self._array()
        unit = self._mac(array)
        return Machine(
            name=form.name or stem,
            technology=technology,
            array=array,
            mac=unit,
            memory=None if form.memory is None else self._memory(form.memory),
            side_engine=self._side_engine(array, unit),
            policy=self._policy(unit),
            source=self.document.path,
            vector_unit=self._vector_unit(form.vector_unit),
            fold_batch_norm=form.batch_norm == "folded",
            layers=layer_rules(form.layers, lambda at, message: self._problem(("layers", *at), message)),
        )

    def _problem(self, at: Keys, message: str) -> None:
        self.document.problem(at, message)

    def _given(self, *at: str) -> bool:
        return at in self.document.keys

    def _technology(self) -> Technology:
        form = self.form.technology
        node_nm = None if form.node is None else float(form.node.value * 10**9)
        table = bundled_table(table_names()[0])
        try:
            table = find_table(form.table, node_nm, self.directory, self.document.path)
        except InputError:
            raise  # of another file, the table
        except ValueError as error:
            self._problem(("technology", "node"), str(error))
        table = overridden(
            table,
            form.overrides,
            form.given_class,
            lambda at, message: self._problem(("technology", "overrides", *at), message),
        )
        return Technology(table, float(form.frequency.value), float(form.leakage.value), form.given_class)

    def _array(self) -> Array:
        form = self.form.array
        if form.dataflow in ("os", "dot") and form.load is not None:
            self._problem(
                ("array", "load"),
                f"got a load mode with array.dataflow: {form.dataflow}, which has no stationary load; expected none; "
                "remove it",
            )
        if form.dataflow == "dot" and self._given("array", "drain"):
            self._problem(
                ("array", "drain"),
                f"got {form.drain} with array.dataflow: dot, whose results leave beside the next ones; "
                "expected none; remove it",
            )
        if form.dataflow not in ("os", "dot") and form.drain == "none":
            self._problem(
                ("array", "drain"),
                f"got none with array.dataflow: {form.dataflow}; expected overlapped or exposed; write one of them",
            )
        if form.interleave > 1 and form.dataflow != "os":
            self._problem(
                ("array", "interleave"),
                f"got {form.interleave} with array.dataflow: {form.dataflow}, whose PEs keep one sum; expected 1, or "
                "array.dataflow: os; change one of the two",
            )
        load, drain = form.load or "overlapped", form.drain
        if form.compat == "scalesim3":
            load, drain = "exposed", "none" if form.dataflow == "os" else "exposed"
            self._check_scalesim(load, drain)
        return Array(
            form.rows,
            form.columns,
            form.dataflow,
            load,
            drain,
            int(form.latency.value),
            form.interleave,
            form.copies,
            form.compat,
        )

    def _check_scalesim(self, load: str, drain: str) -> None:
        """Note what SCALE-Sim's array does not have."""
        array, unit = self.form.array, self.form.mac
        rate = 1 if unit.low.rate is None else int(unit.low.rate.value)
        # A value that follows from the mode need not be written.
        settings: list[tuple[Keys, object, bool, str]] = [
            (("array", "dataflow"), array.dataflow, array.dataflow in ("ws", "os", "is"), "ws, os or is"),
            (("array", "load"), array.load, array.load in (None, load), load),
            (("array", "drain"), array.drain, array.drain == drain or not self._given("array", "drain"), drain),
            (("array", "latency"), f"{array.latency.value} cycles", array.latency.value == 1, "1 cycle"),
            (("array", "interleave"), array.interleave, array.interleave == 1, "1"),
            (("array", "copies"), array.copies, array.copies == 1, "1"),
            (("mac", "low", "rate"), f"{rate} MAC/cycle", rate == 1, "1 MAC/cycle"),
            (("mac", "high"), "a second mode", unit.high is None, "mac.low alone"),
        ]
        for at, found, fits, expected in settings:
            if not fits:
                self._problem(
                    at,
                    f"got {found} with array.compat: scalesim3, which SCALE-Sim's array lacks; expected {expected}; "
                    "change it, or remove array.compat",
                )

    def _mac(self, array: Array) -> Mac:
        form = self.form.mac
        low = self._mode("low", form.low, array, 1 if form.low.rate is None else int(form.low.rate.value))
        if form.high is None:
            if form.datapath is not None:
                self._problem(
                    ("mac", "datapath"),
                    "got a datapath of two modes; expected mac.high beside it; remove it, or add mac.high",
                )
            return Mac(low, None, None, form.zero_gating)
        datapath = form.datapath or "multi_mode"
        composed = datapath == "composed"
        usual = low.rate if composed else 1
        high = self._mode("high", form.high, array, usual if form.high.rate is None else int(form.high.rate.value))
        if composed:
            if high.rate != low.rate:
                self._problem(
                    ("mac", "high", "rate"),
                    f"got {high.rate} MAC/cycle with mac.datapath: composed, which takes the {low.rate} of mac.low "
                    "together, in several cycles; expected no rate; remove it",
                )
            high = replace(high, passes=self._passes(low, high))
        return Mac(low, high, datapath, form.zero_gating)

    def _passes(self, low: MacMode, high: MacMode) -> int:
        """Return how many products of low operands, as slices, make one of high operands."""
        passes = 1
        for narrow, wide in zip(low.operand_formats, high.operand_formats, strict=True):
            slice_bits, bits = significand_bits(narrow), significand_bits(wide)
            if slice_bits is None or bits is None:
                self._problem(
                    ("mac", "datapath"),
                    f"got composed with operands of {narrow} and {wide}; expected floats or integers, whose "
                    "significands can be cut into slices; write multi_mode or pair",
                )
                return 1
            passes *= -(-bits // slice_bits)
        return passes

    def _mode(self, name: str, form: schema.ModeSection, array: Array, rate: int) -> MacMode:
        accumulator = form.accumulator
        try:
            accumulator = array_order(accumulator, array, rate)
        except ValueError as error:
            at = ("mac", name, "accumulator")
            self._problem(at if at in self.document.keys else at[:2], str(error))
        operands = (
            None if form.operands is None else mac({"accumulator": accumulator, "operands": form.operands}).operands
        )
        output = None if form.output is None else Use.parse(form.output)
        energy = None if form.energy is None else float(form.energy.value)
        stored = None if form.stored is None else Use.parse(form.stored).format
        return MacMode(MacSpec(accumulator, operands, output), rate, energy, stored=stored)

    def _memory(self, form: schema.MemorySection) -> Memory:
        latency = form.dram.latency
        cycles = latency.value if latency.dimension == "cycles" else latency.value * self.frequency_hz
        dram = Dram(self._per_cycle(form.dram.bandwidth), math.ceil(cycles), _float(form.dram.energy))
        levels = [level for name, one in form.levels.items() if (level := self._level(name, one)) is not None]
        found = [self._sums(name, one) for name, one in form.levels.items() if _holds(name, one) == ["psum"]]
        if len(found) > 1:
            self._problem(
                ("memory", found[1].name),
                f"got a second level of partial sums; expected one; remove it, or memory.{found[0].name}",
            )
        buffers, staging = self._places(levels)
        return Memory(dram, buffers, found[0] if found else None, staging)

    def _level(self, name: str, form: schema.LevelSection) -> Level | None:
        """Return a level of operands and outputs; None for one of partial sums, or with a problem."""
        holds = _holds(name, form)
        if holds is None:
            self._missing(name, "holds", "which of a, w and o it holds, or psum", "holds: [a, w, o]")
        if holds is None or holds == ["psum"]:
            return None
        if form.read is None:
            self._missing(name, "read", "bandwidth to the array", "read: 1024 bit/cycle")
        if form.write is None:
            self._missing(name, "write", "bandwidth from the array", "write: 512 bit/cycle")
        if form.read is None or form.write is None:
            return None
        return Level(
            name,
            int(form.size.value),
            tuple(tensor for tensor in TENSORS if tensor in holds),
            form.buffers or 2,
            self._per_cycle(form.read),
            self._per_cycle(form.write),
            form.banks,
            form.ports or 1,
            _float(form.read_energy),
            _float(form.write_energy),
        )

    def _missing(self, name: str, key: str, what: str, example: str) -> None:
        self._problem(("memory", name, key), f"missing; expected {what}; add e.g. '{example}'")

    def _sums(self, name: str, form: schema.LevelSection) -> AccumulatorBuffer:
        """Return the level of partial sums."""
        for key in ("read", "write", "buffers", "banks", "ports"):
            if self._given("memory", name, key):
                self._problem(
                    ("memory", name, key),
                    "got a key of operands and outputs in a level of partial sums, which is as wide as the array; "
                    "expected size and energies; remove it",
                )
        if self.form.array.dataflow == "os":
            self._problem(
                ("memory", name),
                "got a buffer of partial sums with array.dataflow: os, which sums in the PEs; expected none; remove it",
            )
        return AccumulatorBuffer(int(form.size.value), _float(form.read_energy), _float(form.write_energy), name)

    def _places(self, levels: list[Level]) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """Return the innermost levels, each of a, w and o in one of them, and those between them and the DRAM."""
        innermost = {tensor: level.name for level in levels for tensor in level.holds}
        missing = [tensor for tensor in TENSORS if tensor not in innermost]
        if missing and not self.document.problems:
            self._problem(
                ("memory",),
                f"got no on-chip level that holds {', '.join(missing)}; expected one for each of a, w and o; add e.g. "
                "'sram: {size: 256 KiB, read: ..., write: ...}'",
            )
        buffers = tuple(level for level in levels if level.name in innermost.values())
        staging = tuple(level for level in levels if level.name not in innermost.values())
        for level in buffers:
            further_in = [tensor for tensor in level.holds if innermost[tensor] != level.name]
            if further_in:
                self._problem(
                    ("memory", level.name, "holds"),
                    f"got {', '.join(level.holds)}, of which memory.{innermost[further_in[0]]} holds {further_in[0]} "
                    "further in, and none the others; expected a level further in for all of them or for none; "
                    "change one of the two",
                )
        for level in staging:
            if level.holds != TENSORS:
                self._problem(
                    ("memory", level.name, "holds"),
                    f"got {', '.join(level.holds)} in a level that others lie within; expected a, w and o; "
                    "write [a, w, o]",
                )
        return buffers, staging

    def _vector_unit(self, form: schema.VectorUnitSection) -> VectorUnit:
        if form.lanes is None and form.energy is not None:
            self._problem(
                ("vector_unit", "energy"),
                "got an energy without vector_unit.lanes, without which nothing of the unit is priced; expected both "
                "or none; add lanes, or remove it",
            )
        return VectorUnit(Use.parse(form.format), form.lanes, _float(form.energy))

    def _per_cycle(self, bandwidth: Quantity) -> Any:
        return bandwidth.value if bandwidth.dimension == "bandwidth per cycle" else bandwidth.value / self.frequency_hz

    def _policy(self, unit: Mac) -> Policy | None:
        form, two_modes = self.form.policy, unit.high is not None
        if form is None and not two_modes:
            self._refuse_side_engine("a machine with one MAC")
            return None
        if form is not None and form.kind == "uniform":
            for key in self.document.data["policy"]:
                if key != "kind":
                    self._problem(
                        ("policy", key),
                        "got a key of a two-pass policy with policy.kind: uniform; expected kind alone; remove it",
                    )
            self._refuse_side_engine("policy.kind: uniform")
            return None
        if not two_modes:
            self._problem(
                ("policy", "kind") if self._given("policy", "kind") else ("policy",),
                "got a two-pass policy for a machine with one MAC; expected mac.high beside mac.low; "
                "add mac.high, or write kind: uniform",
            )
            return None
        return two_pass_policy(form or schema.PolicySection(), self.form.side_engine, unit, self._given, self._problem)

    def _side_engine(self, array: Array, unit: Mac) -> SideEngine | None:
        form = self.form.side_engine
        if form is None or unit.high is None:  # _policy refuses an engine beside one mode
            return None
        return side_engine(form, array, unit.high, self._problem)

    def _refuse_side_engine(self, why: str) -> None:
        if self.form.side_engine is not None:
            self._problem(("side_engine",), f"got an engine that {why} does not use; expected none; remove it")


def _holds(name: str, form: schema.LevelSection) -> list[str] | None:
    return form.holds or {"sram": list(TENSORS), "accumulators": ["psum"]}.get(name)


def _float(quantity: Quantity | None) -> float | None:
    return None if quantity is None else float(quantity.value)
