"""From a machine file to the Machine: find it, read it, check what concerns several keys, build the records."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from formats import Use
from simulator.arithmetic.spec import MacSpec, mac
from simulator.errors import InputError

from . import schema
from .document import Document, Keys, read_document, too_deep
from .layers import layer_rules
from .order import array_order
from .quantities import Quantity, describe
from .records import (
    AccumulatorBuffer,
    Array,
    Dram,
    Mac,
    Machine,
    MacMode,
    Memory,
    Policy,
    SideEngine,
    Sram,
    Technology,
)
from .technology import energy_table, table_names


def load_hardware(path_or_name: str | os.PathLike[str]) -> Machine:
    """Read a machine file.

    Args:
        path_or_name: path of a YAML file, or the bare name of a bundled machine such as "npu".
    Returns:
        The machine as frozen records; the order of summation of its MACs is that of its array.
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
    machine = _Builder(document, form).machine(path.stem)
    document.check()
    return machine


# --- messages of the schema ------------------------------------------------------------------------------------------


def _explain(document: Document, problem: Any) -> None:
    """Turn a problem of the schema into a message of ours."""
    at: Keys = tuple(problem["loc"])
    *parents, last = at or ("",)
    match problem["type"]:
        case "value_error":
            document.problem(at, str(problem["ctx"]["error"]))
        case "missing":
            field = _fields(_section(tuple(parents)))[str(last)]
            document.problem(
                at, f"missing; expected {field.description}; add e.g. '{last}: {(field.examples or [''])[0]}'"
            )
        case "extra_forbidden":
            known = list(_fields(_section(tuple(parents))))
            near = difflib.get_close_matches(str(last), known, n=1)
            document.problem(
                at, "unknown key; " + (f'did you mean "{near[0]}"?' if near else _known(known)), on_key=True
            )
        case _:
            keys = ", ".join(_fields(_section(at)))
            document.problem(
                at, f"got {describe(problem['input'])}; expected a mapping with keys out of {keys}; indent them below"
            )


def _known(names: list[str]) -> str:
    return f"expected one of {', '.join(names)}; remove it"


def _section(at: Keys) -> type[BaseModel]:
    """Return the model of a section by its path of keys."""
    model: type[BaseModel] = schema.MachineFile
    by_pattern = False
    for key in at:
        if by_pattern:  # the key is a pattern, and the model that of all of them
            by_pattern = False
            continue
        annotation = _fields(model)[str(key)].annotation
        by_pattern = get_origin(annotation) is dict
        model = next(t for t in _types(annotation) if isinstance(t, type) and issubclass(t, BaseModel))
    return model


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _types(inner)


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


# --- records, and checks across keys ---------------------------------------------------------------------------------


class _Builder:
    """Builds the records of one file; problems are collected in its document."""

    def __init__(self, document: Document, form: schema.MachineFile) -> None:
        self.document = document
        self.form = form
        self.frequency_hz = form.technology.frequency.value

    def machine(self, stem: str) -> Machine:
        form = self.form
        technology = self._technology()
        array = self._array()
        low = self._mode("low", form.mac.low)
        high = None if form.mac.high is None else self._mode("high", form.mac.high)
        if high is None and form.mac.datapath is not None:
            self._problem(
                ("mac", "datapath"),
                "got a datapath of two modes; expected mac.high beside it; remove it, or add mac.high",
            )
        datapath = None if high is None else form.mac.datapath or "multi_mode"
        side_engine = None if form.side_engine is None else SideEngine(form.side_engine.lanes)
        return Machine(
            name=form.name or stem,
            technology=technology,
            array=array,
            mac=Mac(low, high, datapath),
            memory=None if form.memory is None else self._memory(form.memory),
            side_engine=side_engine,
            policy=self._policy(high is not None),
            source=self.document.path,
            vector_unit=Use.parse(form.vector_unit.format),
            fold_batch_norm=form.batch_norm == "folded",
            layers=layer_rules(form.layers, lambda at, message: self._problem(("layers", *at), message)),
        )

    def _problem(self, at: Keys, message: str) -> None:
        self.document.problem(at, message)

    def _given(self, *at: str) -> bool:
        return at in self.document.keys

    def _technology(self) -> Technology:
        form = self.form.technology
        tables = [energy_table(name) for name in table_names()]
        node_nm = 7.0 if form.node is None else float(form.node.value * 10**9)
        if form.table is not None:
            table = energy_table(form.table)
            if form.node is not None and table.node_nm != node_nm:
                self._problem(
                    ("technology", "node"),
                    f"got {node_nm:g} nm, but technology.table: {table.name} is of {table.node_nm:g} nm; "
                    "expected the same node; change one of the two",
                )
        else:
            of_node = [t for t in tables if t.node_nm == node_nm]
            if not of_node:
                known = ", ".join(f"{t.node_nm:g} nm ({t.name})" for t in tables)
                self._problem(
                    ("technology", "node"),
                    f"got {node_nm:g} nm; expected a node with an energy table: {known}; write one of them",
                )
            table = (of_node or tables)[0]
        return Technology(table, float(form.frequency.value), float(form.leakage.value))

    def _array(self) -> Array:
        form = self.form.array
        if form.dataflow == "os" and form.load is not None:
            self._problem(
                ("array", "load"),
                "got a load mode with array.dataflow: os, which has no stationary load; expected none; remove it",
            )
        if form.dataflow != "os" and form.drain == "none":
            self._problem(
                ("array", "drain"),
                f"got none with array.dataflow: {form.dataflow}; expected overlapped or exposed; write one of them",
            )
        if form.interleave != 1:
            self._problem(
                ("array", "interleave"),
                f"got {form.interleave}, which changes the order of summation in a way that mac.low.accumulator cannot "
                "express; expected 1; write 1",
            )
        return Array(
            form.rows,
            form.columns,
            form.dataflow,
            form.load or "overlapped",
            form.drain,
            int(form.latency.value),
            form.interleave,
        )

    def _mode(self, name: str, form: schema.ModeSection) -> MacMode:
        rate = int(form.rate.value)
        accumulator = form.accumulator
        try:
            accumulator = array_order(accumulator, self.form.array.dataflow, self.form.array.rows, rate)
        except ValueError as error:
            at = ("mac", name, "accumulator")
            self._problem(at if at in self.document.keys else at[:2], str(error))
        operands = (
            None if form.operands is None else mac({"accumulator": accumulator, "operands": form.operands}).operands
        )
        output = None if form.output is None else Use.parse(form.output)
        energy = None if form.energy is None else float(form.energy.value)
        return MacMode(MacSpec(accumulator, operands, output), rate, energy)

    def _memory(self, form: schema.MemorySection) -> Memory:
        latency = form.dram.latency
        cycles = latency.value if latency.dimension == "cycles" else latency.value * self.frequency_hz
        dram = Dram(self._per_cycle(form.dram.bandwidth), math.ceil(cycles), _float(form.dram.energy))
        sram = Sram(
            int(form.sram.size.value),
            form.sram.buffers,
            self._per_cycle(form.sram.read),
            self._per_cycle(form.sram.write),
            _float(form.sram.read_energy),
            _float(form.sram.write_energy),
        )
        if form.accumulators is None:
            return Memory(dram, sram, None)
        buffer = form.accumulators
        if self.form.array.dataflow == "os":
            self._problem(
                ("memory", "accumulators"),
                "got a buffer of partial sums with array.dataflow: os, which sums in the PEs; expected none; remove it",
            )
        return Memory(
            dram,
            sram,
            AccumulatorBuffer(int(buffer.size.value), _float(buffer.read_energy), _float(buffer.write_energy)),
        )

    def _per_cycle(self, bandwidth: Quantity) -> Any:
        return bandwidth.value if bandwidth.dimension == "bandwidth per cycle" else bandwidth.value / self.frequency_hz

    def _policy(self, two_modes: bool) -> Policy | None:
        form = self.form.policy
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
        form = form or schema.PolicySection()
        engine = self.form.side_engine is not None
        gather = form.gather or ("element" if engine else "coltile")
        overlap = form.overlap or ("tile" if gather == "element" else "none")
        if gather == "element" and not engine:
            self._problem(
                ("policy", "gather"),
                "got element without a side engine; expected row, coltile or tile; write one, or add side_engine",
            )
        if gather != "element" and engine:
            self._problem(
                ("side_engine",),
                f"got an engine that policy.gather: {gather} does not use; expected none; remove it",
            )
        if gather != "element" and overlap == "tile":
            self._problem(
                ("policy", "overlap"),
                f"got tile, but policy.gather: {gather} runs on the array itself; expected none; write none",
            )
        return Policy(
            form.tolerance,
            gather,
            overlap,
            form.weights,
            form.recompute_nonfinite,
            form.recompute_saturated,
            form.score,
            form.side_metric,
        )

    def _refuse_side_engine(self, why: str) -> None:
        if self.form.side_engine is not None:
            self._problem(("side_engine",), f"got an engine that {why} does not use; expected none; remove it")


def _float(quantity: Quantity | None) -> float | None:
    return None if quantity is None else float(quantity.value)
