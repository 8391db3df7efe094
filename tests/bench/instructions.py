"""Vector instructions of the hot loops, counted in the compiled engine: `python -m tests.bench.instructions`.

A hot loop is a run of instructions that a backward jump closes; of each function of a kernel the loop with the most
vector arithmetic is taken. One line a function: vector operations, moves, loads and stores left out, and what they are.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import native

LINE = re.compile(r"^\s+([0-9a-f]+):\t(\S+)\s*(.*?)(?:\s+#.*)?$")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
MOVES = re.compile(r"^v?mov|^v?p?broadcast|^vzero|^prefetch|^vp?extract|^vp?insert")


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


def hot_loop(code: Code) -> Counter[str]:
    """Return how often each vector operation occurs in the innermost loop with most of them."""
    at = {address: i for i, (address, _, _) in enumerate(code)}
    best: Counter[str] = Counter()
    for end, (address, name, operands) in enumerate(code):
        target = operands.split()[0] if operands else ""
        if not name.startswith("j") or not re.fullmatch("[0-9a-f]+", target) or int(target, 16) >= address:
            continue
        start = at.get(int(target, 16))
        if start is None:
            continue
        body = code[start : end + 1]
        inner = sum(one[1].startswith("j") for one in body)
        names = Counter(n for _, n, o in body if ("mm" in o) and not MOVES.match(n))
        if inner <= 2 and names.total() > best.total():  # it may be left in the middle too
            best = names
    return best


def main() -> None:
    """Print the counts of the leaves that match the words given, or of all."""
    (library,) = Path(native.__file__).parent.glob("_engine*.so")
    words = sys.argv[1:]
    for name, code in sorted(functions(str(library)), key=lambda one: one[0]):
        shown = f"{name} {instruction_set(code)}"
        if not re.search("_dense_|run_leaf", name) or not all(word in shown for word in words):
            continue
        if counts := hot_loop(code):
            print(f"{shown:44} {counts.total():4}  {', '.join(f'{n} {k}' for k, n in counts.most_common())}")


if __name__ == "__main__":
    main()
