"""Memories in a line; random machines: levels and what they hold, staging, copies, dataflows, engines, policies."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import strategies as st

from formats import Use
from simulator.arithmetic.spec import mac
from simulator.hardware import (
    AccumulatorBuffer,
    Array,
    Dram,
    Level,
    Machine,
    Memory,
    SideEngine,
    load_hardware,
)

NPU = load_hardware("npu")
HELD = ([("a", "w", "o")], [("a", "o"), ("w",)], [("a",), ("w", "o")], [("a",), ("w",), ("o",)])
PORT = st.sampled_from([4, 16, 64, 256, 1024]).map(Fraction)
SCORES = {"output": "kappa_prime", "abs_sum": "kappa_full", "second_pass": "kappa_full", "norm_bound": "norm2"}


def memory_of(
    *buffers: Level,
    staging: tuple[Level, ...] = (),
    sums_kib: float = 0,
    bandwidth: int | str = 64,
    latency: int = 0,
    dram_j: float | None = None,
) -> Memory:
    """A memory of so many buffers, whose DRAM moves so many bits a cycle; `sums_kib`: a level of partial sums."""
    sums = AccumulatorBuffer(int(sums_kib * 8192)) if sums_kib else None
    return Memory(Dram(Fraction(bandwidth), latency, dram_j), buffers, sums, staging)


def level_of(name: str, kib: float, holds: tuple[str, ...] = ("a", "w", "o"), ports: int = 256) -> Level:
    """A level of two copies whose ports both move so many bits a cycle."""
    return Level(name, int(kib * 8192), holds, 2, Fraction(ports), Fraction(ports))


@st.composite
def arrays(draw) -> Array:
    flow = draw(st.sampled_from(["ws", "is", "os", "dot"]))
    rows, columns = draw(st.sampled_from([(4, 4), (2, 2), (8, 16), (16, 8), (5, 3)]))
    return Array(
        rows,
        columns,
        flow,
        draw(st.sampled_from(["overlapped", "exposed"])),
        draw(st.sampled_from(["overlapped", "exposed", *(["none"] if flow == "os" else [])])),
        latency_cycles=draw(st.integers(1, 4)),
        interleave=draw(st.sampled_from([1, 2, 4])) if flow == "os" else 1,
        copies=draw(st.sampled_from([1, 1, 2, 5])),
    )


@st.composite
def levels(draw, name: str, holds: tuple[str, ...], most_copies: int, banks: bool) -> Level:
    return Level(
        name,
        draw(st.sampled_from([1, 4, 16, 64, 256])) * 8192,
        holds,
        draw(st.integers(1, most_copies)),
        draw(PORT),
        draw(PORT),
        draw(st.sampled_from([None, 1, 2, 3, 4, 8, 16])) if banks else None,
        draw(st.integers(1, 2)),
    )


@st.composite
def memories(draw, flow: str, *, most_copies: int = 4, banks: bool = True, staging: bool = True) -> Memory:
    held = draw(st.sampled_from(HELD))
    buffers = [draw(levels(f"level{i}", holds, most_copies, banks)) for i, holds in enumerate(held)]
    sums = st.sampled_from([None, *(AccumulatorBuffer(kib * 8192) for kib in (1, 4, 64))])
    outside = range(draw(st.integers(0, 2)) if staging else 0)
    return Memory(
        Dram(draw(st.sampled_from(["3.7", "16", "64", "1024"]).map(Fraction)), draw(st.sampled_from([0, 7, 50])), None),
        tuple(buffers),
        draw(sums) if flow in ("ws", "is") else None,
        tuple(draw(levels(f"staging{i}", ("a", "w", "o"), most_copies, banks)) for i in outside),
    )


@st.composite
def machines(draw, *, one_format: bool = False, **of_memory) -> Machine:
    """A machine in two modes with a policy; `one_format`: the operands of both modes have the same one."""
    array = draw(arrays())
    engine, gather, runs_on = None, draw(st.sampled_from(["element", "row", "coltile", "tile"])), "array"
    kind = "dot" if gather == "element" else draw(st.sampled_from(["dot", "array", None]))
    queue = draw(st.sampled_from([None, 1, 4, 32, 1000]))
    if kind is not None:
        runs_on = "side_engine"
        rows, columns = draw(st.sampled_from([(2, 2), (4, 4), (8, 3)]))
        engine = SideEngine(draw(st.sampled_from([1, 16, 64])), None, queue)
        if kind == "array":
            own = replace(array, rows=rows, columns=columns, copies=1)
            engine = SideEngine(rows * columns, own, queue)
    side_metric = draw(st.sampled_from(sorted(SCORES)))
    policy = replace(
        NPU.policy,
        gather=gather,
        runs_on=runs_on,
        overlap=draw(st.sampled_from(["none", "tile"])) if engine else "none",
        weights=draw(st.sampled_from(["both", "high_only", "sliced"])),
        score=SCORES[side_metric],
        side_metric=side_metric,
        side_format=Use.parse("uint16") if side_metric == "abs_sum" else None,
    )
    operands = "fp8_e4m3" if one_format else draw(st.sampled_from(["fp8_e4m3", "fp16"]))
    high_spec = replace(NPU.mac.high.spec, operands=mac(f"{operands} -> fma(fp16)").operands)
    low_spec = replace(NPU.mac.low.spec, operands=mac("fp8_e4m3 -> fma(fp16)").operands)
    unit = replace(
        NPU.mac,
        low=replace(NPU.mac.low, spec=low_spec, rate=draw(st.sampled_from([1, 4]))),
        high=replace(NPU.mac.high, spec=high_spec, passes=draw(st.sampled_from([1, 4]))),
        datapath=draw(st.sampled_from(["pair", "multi_mode", "composed"])),
    )
    memory = draw(st.one_of(st.none(), *[memories(array.dataflow, **of_memory)] * 5))
    return replace(NPU, array=array, mac=unit, memory=memory, policy=policy, side_engine=engine)
