"""The expanded configuration of a machine: every key of its file, the value in effect and where that comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from formats import Use
from simulator.result import Setting

from .document import Document, Keys, dotted
from .records import Machine, MacMode
from .schema import MachineFile, ModeSection, PolicySection
from .sections import check_of, default_words


@dataclass(frozen=True)
class Derived:
    """What the loader made of a key, or put in place of one that is left out.

    Args:
        value: in effect; None: the key has none. keys: from which it follows; none: the value is the default.
    """

    value: Any
    keys: tuple[str, ...] = ()


class Configuration(Mapping[Keys, Setting]):
    """Every key of a machine's file, in the order of the schema, by its path of keys; () is the file itself.

    Values as a file would write them; a file of them gives an equal machine. Energies that the file leaves to the
    technology table are "auto"; simulator.cost.expanded resolves them. Worked out when something is first looked up,
    which takes as long as all else of loading, and of most machines of a sweep nobody asks for.

    Args:
        document: the file. form: its data as the schema has it. machine: what became of it. None of them may change.
    """

    def __init__(self, document: Document, form: MachineFile, machine: Machine) -> None:
        self._made_of = document, form, machine

    @cached_property
    def _settings(self) -> dict[Keys, Setting]:
        document, form, machine = self._made_of
        return dict(_Walk(document, derived_values(form, machine)).section(form, ()))

    def __getitem__(self, at: Keys) -> Setting:
        return self._settings[at]

    def __iter__(self) -> Iterator[Keys]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def __reduce__(self) -> tuple[type, tuple[dict[Keys, Setting]]]:
        return dict, (self._settings,)


def derived_values(form: MachineFile, machine: Machine) -> dict[Keys, Derived]:
    """Return what follows for a key from others, as the machine has it."""
    return {
        **_of_technology(form, machine),
        **_of_array(form, machine),
        **_of_mode(("low",), form.mac.low, machine.mac.low, machine),
        **_of_mode(("high",), form.mac.high, machine.mac.high, machine),
        **_of_middle(form, machine),
        **_of_memory(form, machine),
        **_of_side_engine(form),
        **_of_policy(form, machine),
        **_of_vector_unit(machine),
        **_of_layers(form, machine),
    }


def _of_technology(form: MachineFile, machine: Machine) -> dict[Keys, Derived]:
    table, written = machine.technology.table, form.technology
    found: dict[Keys, Derived] = {}
    if form.name is None:
        found[("name",)] = Derived(machine.name, ("the name of the file",))
    if written.node is None:
        keys = () if written.table is None else ("technology.table",)
        found["technology", "node"] = Derived(f"{table.node_nm:g} nm", keys)
    if written.table is None:
        keys = () if written.node is None else ("technology.node",)
        found["technology", "table"] = Derived(table.name, keys)
    return found


def _of_array(form: MachineFile, machine: Machine) -> dict[Keys, Derived]:
    found: dict[Keys, Derived] = {}
    array = machine.array
    if array.dataflow in ("os", "dot"):
        found["array", "load"] = Derived(None, ("array.dataflow",))
    elif form.array.load is None:
        found["array", "load"] = Derived(array.load, () if array.compat == "none" else ("array.compat",))
    if array.dataflow == "dot":
        found["array", "drain"] = Derived(None, ("array.dataflow",))
    elif array.drain != form.array.drain:
        found["array", "drain"] = Derived(array.drain, ("array.compat", "array.dataflow"))
    if form.mac.datapath is None:
        found["mac", "datapath"] = Derived(machine.mac.datapath)
    return found


def _of_middle(form: MachineFile, machine: Machine) -> dict[Keys, Derived]:
    found: dict[Keys, Derived] = {}
    for name, mode in machine.mac.middle:
        found |= _of_mode(("middle", name), form.mac.middle[name], mode, machine)
    return found


def _of_mode(name: Keys, form: ModeSection | None, mode: MacMode | None, machine: Machine) -> dict[Keys, Derived]:
    found: dict[Keys, Derived] = {}
    if form is None or mode is None:
        return found
    if mode.spec.accumulator != form.accumulator:
        of_os = machine.array.dataflow == "os"
        keys = ("array.interleave",) if of_os else ("array.rows", f"mac.{dotted(name)}.rate")
        found["mac", *name, "accumulator"] = Derived(mode.spec.accumulator, ("array.dataflow", *keys))
    if form.rate is None:
        composed = name == ("high",) and machine.mac.datapath == "composed"
        found["mac", *name, "rate"] = Derived(
            f"{mode.rate} MAC/cycle", ("mac.datapath", "mac.low.rate") if composed else ()
        )
    return found


def _of_memory(form: MachineFile, machine: Machine) -> dict[Keys, Derived]:
    found: dict[Keys, Derived] = {}
    if form.memory is None or machine.memory is None:
        return found
    for level in machine.memory.levels:
        if form.memory.levels[level.name].holds is None:
            found["memory", level.name, "holds"] = Derived(list(level.holds), ("the name of the level",))
        if form.memory.levels[level.name].buffers is None:
            found["memory", level.name, "buffers"] = Derived(level.buffers)
        if form.memory.levels[level.name].ports is None:
            found["memory", level.name, "ports"] = Derived(level.ports)
    sums = machine.memory.accumulators
    if sums is not None:
        if form.memory.levels[sums.name].holds is None:
            found["memory", sums.name, "holds"] = Derived(["psum"], ("the name of the level",))
        for key in ("read", "write", "buffers", "banks", "ports"):
            found["memory", sums.name, key] = Derived(None, (f"memory.{sums.name}.holds",))
    return found


def _of_side_engine(form: MachineFile) -> dict[Keys, Derived]:
    if form.side_engine is None:
        return {}
    others = ("rows", "columns") if form.side_engine.kind == "dot" else ("lanes",)
    return {("side_engine", key): Derived(None, ("side_engine.kind",)) for key in others}


# From which keys of the policy follow where they are left out.
_POLICY_KEYS = {
    "side_metric": ("policy.score",),
    "side_format": ("policy.side_metric",),
    "gather": ("side_engine",),
    "runs_on": ("policy.gather", "side_engine"),
    "overlap": ("policy.runs_on",),
    "ladder": ("mac.middle",),
}


def _of_policy(form: MachineFile, machine: Machine) -> dict[Keys, Derived]:
    policy, written = machine.policy, form.policy
    found: dict[Keys, Derived] = {}
    if written is None:
        found[("policy",)] = Derived(None if policy is None else PolicySection(), ("mac.high",))
    for key in PolicySection.model_fields:
        if policy is None and key != "kind":
            found["policy", key] = Derived(None, ("policy.kind",))
        elif getattr(written, key, None) is None and hasattr(policy, key):
            value = getattr(policy, key)
            found["policy", key] = Derived(str(value) if isinstance(value, Use) else value, _POLICY_KEYS.get(key, ()))
    return found


def _of_vector_unit(machine: Machine) -> dict[Keys, Derived]:
    priced = machine.vector_unit.lanes is not None
    return {} if priced else {("vector_unit", "energy"): Derived(None, ("vector_unit.lanes",))}


def _of_layers(form: MachineFile, machine: Machine) -> dict[Keys, Derived]:
    found: dict[Keys, Derived] = {}
    for rule, (pattern, written) in zip(machine.layers, form.layers.items(), strict=True):
        for name in ("activations", "weights"):
            scaling, section = getattr(rule, name), getattr(written, name)
            if section is not None and section.percentile is None and scaling.method == "percentile":
                found["layers", pattern, name, "percentile"] = Derived(scaling.percentile)
    return found


class _Walk:
    """Goes through the sections of a file."""

    def __init__(self, document: Document, derived: Mapping[Keys, Derived]) -> None:
        self.document, self.derived = document, derived

    def section(self, section: BaseModel, at: Keys) -> Iterator[tuple[Keys, Setting]]:
        comment = self.document.comments.get(at, "")
        if not at or (comment and self._is_below(at)):
            yield at, Setting(dotted(at), {}, self._line(at) if at else self.document.path, comment)
        for name, field in type(section).model_fields.items():
            given = name in section.model_fields_set
            yield from self._key(getattr(section, name), (*at, field.alias or name), field, given)
        for name, below in (section.model_extra or {}).items():
            yield from self.section(below, (*at, name))

    def _key(self, value: Any, at: Keys, field: FieldInfo, given: bool) -> Iterator[tuple[Keys, Setting]]:
        derived = self.derived.get(at)
        if derived is not None:
            value = derived.value
        if isinstance(value, BaseModel):
            yield from self.section(value, at)
        elif isinstance(value, dict) and value:
            for name, below in value.items():
                yield from self._key(below, (*at, name), field, given)
        else:
            yield at, self._setting(value, at, field, given, derived)

    def _setting(self, value: Any, at: Keys, field: FieldInfo, given: bool, derived: Derived | None) -> Setting:
        check = check_of(field)
        if value is None and derived is None and check is not None and check.auto:
            value = "auto"
        origins = [self._line(at)] if given else []
        if derived is not None and derived.keys:
            *first, last = derived.keys
            origins.append(f"derived from {', '.join(first)}{' and ' if first else ''}{last}")
        source = self.document.comments.get(self._place(at), "") if given and not self._is_varied(at) else ""
        if value is None and derived is None:
            source = default_words(field)
        return Setting(dotted(at), self._written(value, at, derived), "; ".join(origins) or "default", source)

    def _written(self, value: Any, at: Keys, derived: Derived | None) -> Any:
        """Return a value as a file writes it, in the words of this one where they stand there."""
        if derived is None and at in self.document.values:
            written = self.document.at(at)
            value = value if isinstance(written, dict) else written
        if isinstance(value, float) and math.isinf(value):
            return ".inf"  # which JSON has no number for
        if isinstance(value, list):
            return [".inf" if isinstance(one, float) and math.isinf(one) else one for one in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return str(value) if value != {} else None

    def _line(self, at: Keys) -> str:
        """Return where a value is written, at its key, or above: in a short form, or by the name of a preset."""
        if self._is_varied(at):
            return "varied"
        place = self._place(at)
        if place != at and isinstance(self.document.at(place), dict):
            return f"derived from {dotted(place)}.accumulator"
        line, _ = self.document.keys.get(place, self.document.values[place])
        return f"{self.document.path}:{line}"

    def _is_below(self, at: Keys) -> bool:
        """Whether a mapping is indented below its key; a comment behind one in braces is shown with its values."""
        return self.document.keys[at][0] != self.document.values[at][0]

    def _is_varied(self, at: Keys) -> bool:
        return any(at[:depth] in self.document.varied for depth in range(1, len(at) + 1))

    def _place(self, at: Keys) -> Keys:
        return next(at[:depth] for depth in range(len(at), -1, -1) if at[:depth] in self.document.values)
