"""From the sections of a machine file to the Machine: what concerns several keys is checked, the records are built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from formats import Use
from simulator.arithmetic.ladder import MOST_LEVELS
from simulator.arithmetic.spec import MacSpec, mac
from simulator.errors import InputError

from . import schema
from .document import Document, Keys
from .layers import layer_rules
from .memory_levels import MemoryLevels
from .order import array_order
from .policy import side_engine, two_pass_policy
from .quantities import optional_float
from .records import Array, Mac, Machine, MacMode, Memory, Policy, SideEngine, Technology, VectorUnit
from .tables import bundled_table, find_table, overridden, table_names
from .widths import significand_bits


class Builder:
    """Builds the records of one file; problems are collected in its document."""

    def __init__(self, document: Document, form: schema.MachineFile, directory: Path) -> None:
        self.document = document
        self.directory = directory
        self.form = form

    def machine(self, stem: str) -> Machine:
        """Return the machine of the file, whose name without suffix is `stem`."""
        form = self.form
        technology = self._technology()
        array = self._array()
        unit = self._mac(array)
        return Machine(
            name=form.name or stem,
            technology=technology,
            array=array,
            mac=unit,
            memory=self._memory(),
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
        like_scalesim = form.compat == "scalesim3"  # which says itself what goes with what
        if form.dataflow in ("os", "dot") and form.load is not None and not like_scalesim:
            self._problem(
                ("array", "load"),
                f"got a load mode with array.dataflow: {form.dataflow}, which has no stationary load; expected none; "
                "remove it",
            )
        if form.dataflow == "dot" and self._given("array", "drain") and not like_scalesim:
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
        if like_scalesim:
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
        low = self._mode(("low",), form.low, array, 1 if form.low.rate is None else int(form.low.rate.value))
        if form.high is None:
            if form.datapath is not None:
                self._problem(
                    ("mac", "datapath"),
                    "got a datapath of two modes; expected mac.high beside it; remove it, or add mac.high",
                )
            if form.middle:
                self._problem(
                    ("mac", "middle"),
                    "got modes between without a last one; expected mac.high beside it; add mac.high, or remove it",
                )
            return Mac(low, None, None, form.zero_gating)
        datapath = form.datapath or "multi_mode"
        composed = datapath == "composed"
        usual = low.rate if composed else 1
        high = self._mode(("high",), form.high, array, usual if form.high.rate is None else int(form.high.rate.value))
        if composed:
            if high.rate != low.rate:
                self._problem(
                    ("mac", "high", "rate"),
                    f"got {high.rate} MAC/cycle with mac.datapath: composed, which takes the {low.rate} of mac.low "
                    "together, in several cycles; expected no rate; remove it",
                )
            high = replace(high, passes=self._passes(low, high))
            if high.passes == 1:
                self._problem(
                    ("mac", "datapath"),
                    "got composed with operands of mac.high that one pass of mac.low's multiplier takes; expected "
                    "wider ones; write multi_mode",
                )
        middle = [
            (name, self._mode(("middle", name), mode, array, 1 if mode.rate is None else int(mode.rate.value)))
            for name, mode in form.middle.items()
        ]
        if len(middle) > MOST_LEVELS - 2:
            self._problem(
                ("mac", "middle"),
                f"got {len(middle)} modes; expected at most {MOST_LEVELS - 2}, for so many passes have random "
                "words of their own; remove some",
            )
        return Mac(low, high, datapath, form.zero_gating, tuple(middle))

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

    def _mode(self, keys: Keys, form: schema.ModeSection, array: Array, rate: int) -> MacMode:
        accumulator = form.accumulator
        try:
            accumulator = array_order(accumulator, array, rate)
        except ValueError as error:
            at = ("mac", *keys, "accumulator")
            self._problem(at if at in self.document.keys else at[:-1], str(error))
        operands = (
            None if form.operands is None else mac({"accumulator": accumulator, "operands": form.operands}).operands
        )
        output = None if form.output is None else Use.parse(form.output)
        energy = None if form.energy is None else float(form.energy.value)
        stored = None if form.stored is None else Use.parse(form.stored).format
        return MacMode(MacSpec(accumulator, operands, output), rate, energy, stored=stored)

    def _memory(self) -> Memory | None:
        form, frequency_hz = self.form, self.form.technology.frequency.value
        if form.memory is None:
            return None
        return MemoryLevels(self.document, frequency_hz, form.array.dataflow).memory(form.memory)

    def _vector_unit(self, form: schema.VectorUnitSection) -> VectorUnit:
        if form.lanes is None and form.energy is not None:
            self._problem(
                ("vector_unit", "energy"),
                "got an energy without vector_unit.lanes, without which nothing of the unit is priced; expected both "
                "or none; add lanes, or remove it",
            )
        return VectorUnit(Use.parse(form.format), form.lanes, optional_float(form.energy))

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
        return two_pass_policy(
            form or schema.PolicySection(), self.form.side_engine, unit, self._given, self._problem, self.directory
        )

    def _side_engine(self, array: Array, unit: Mac) -> SideEngine | None:
        form = self.form.side_engine
        if form is None or unit.high is None:  # _policy refuses an engine beside one mode
            return None
        return side_engine(form, array, unit.high, self._problem)

    def _refuse_side_engine(self, why: str) -> None:
        if self.form.side_engine is not None:
            self._problem(("side_engine",), f"got an engine that {why} does not use; expected none; remove it")
