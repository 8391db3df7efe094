"""Vector instructions of the hot loops, counted in the compiled engine: `python -m tests.bench.instructions`.

A hot loop is a run of instructions that a conditional jump back closes; of each function of a kernel the loop with
the most vector arithmetic is taken. One line a function: vector operations and loads a step of one vector, operations
a MAC, and what they are. Moves and stores are left out; an operand in memory is a load, and so is what spills from
registers.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import native

LINE = re.compile(r"^\s+([0-9a-f]+):\t(\S+)\s*(.*?)(?:\s+#.*)?$")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
MOVES = re.compile(r"^v?mov|^v?p?broadcast|^vzero|^prefetch|^vp?extract|^vp?insert")
LEAF = re.compile(r"_(dense|listed)_[A-Z]+_[0-2]$|^run_leaf$")
LANES = {"avx512": 16, "avx2": 8, "portable": 4}  # floats of a vector
VECTORS = {"avx512": 16, "avx2": 12, "portable": 8}  # in flight: ROWS x COLUMN_VECTORS of lanes_kernels.inc.h


Code = list[tuple[int, str, str]]


def functions(library: str) -> list[tuple[str, Code]]:
    """Return the instructions (address, name, operands) of each function of a shared library."""
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=True
    )
    found: list[tuple[str, Code]] = []
    for line in listing.stdout.splitlines():
        if head := FUNCTION.match(line):
            found.append((head[1], []))
        elif found and (body := LINE.match(line)):
            found[-1][1].append((int(body[1], 16), body[2], body[3]))
    return found


def instruction_set(code: Code) -> str:
    """Return the instruction set that a function is compiled for, by its widest registers."""
    operands = " ".join(one[2] for one in code)
    return "avx512" if "%zmm" in operands else "avx2" if "%ymm" in operands else "portable"


class Loop(NamedTuple):
    """How often each vector operation occurs in a loop, how many vectors it loads, how many vector steps it takes."""

    operations: Counter[str]
    loads: int
    steps: int


def target(operands: str) -> int:
    """Return where a jump goes; -1 if that is in a register."""
    found = re.match(r"([0-9a-f]+)(?: <|$)", operands)
    return int(found[1], 16) if found else -1


def hot_loop(name: str, code: Code) -> Loop:
    """Return the innermost loop with most vector operations."""
    at = {address: i for i, (address, _, _) in enumerate(code)}
    ends: dict[int, int] = {}  # of the loops, by where they start; rare cases jump back into them with jmp
    for end, (address, jump, operands) in enumerate(code):
        if jump.startswith("j") and jump != "jmp" and target(operands) <= address and target(operands) in at:
            ends[at[target(operands)]] = end
    best: Counter[str] = Counter()
    loads = 0
    for start, end in ends.items():
        if any(start < other and last <= end for other, last in ends.items()):
            continue
        body = code[start : end + 1]
        names = Counter(n for _, n, o in body if "mm" in o and not MOVES.match(n))
        if names.total() > best.total():
            best = names
            loads = sum("mm" in o and "(" in o and not o.endswith(")") for _, _, o in body)
    if name == "run_leaf":
        return Loop(best, loads, sum(n for k, n in best.items() if "cvttps2dq" in k))
    return Loop(best, loads, VECTORS[instruction_set(code)])


def leaves() -> dict[tuple[str, str], Loop]:
    """Return the hot loop of each leaf of each kernel, by its name and instruction set."""
    (library,) = Path(native.__file__).parent.glob("_engine*.so")
    compiled = functions(str(library))
    begins = {code[0][0]: code for _, code in compiled if code}
    found = {}
    for name, code in compiled:
        if LEAF.search(name):
            body = begins.get(target(code[0][2]), code)  # of equal functions the compiler keeps one, and jumps to it
            found[name, instruction_set(body)] = hot_loop(name, body)
    return found


def main() -> None:
    """Print the counts of the leaves that match the words given, or of all."""
    for (name, isa), (operations, loads, steps) in sorted(leaves().items()):
        shown = f"{name} {isa}"
        if not steps or not operations or not all(word in shown for word in sys.argv[1:]):
            continue
        lanes = LANES[isa] // (2 if name.startswith("float64") else 1)
        total = operations.total() / steps
        what = ", ".join(f"{k} {n}" for k, n in operations.most_common())
        print(f"{shown:44} {total:5.2f} {loads / steps:5.2f} {total / lanes:6.3f}  {what}")


if __name__ == "__main__":
    main()
