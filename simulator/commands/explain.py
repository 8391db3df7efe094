"""`python -m simulator explain`: on which kernel a MAC unit's product runs, why its bits are right, what it costs."""

from __future__ import annotations

from dataclasses import asdict

from simulator.arithmetic.explain import Explanation, explain
from simulator.errors import InputError

from .records import print_record


def run(spec: str, shape: tuple[int, int, int], threads: int | None = None, json: bool = False) -> None:
    """Explain a spec at a shape (M, N, K) and print it, as text or as a record.

    Raises:
        InputError: no MAC, or an impossible shape or number of threads.
    """
    explained = _explained(spec, shape, threads)
    if json:
        print_record(asdict(explained))
    else:
        print(explained)


def _explained(spec: str, shape: tuple[int, int, int], threads: int | None) -> Explanation:
    try:
        return explain(spec, shape, threads=threads)
    except (ValueError, TypeError) as error:
        raise InputError(f"explain: {str(error).removeprefix('explain: ')}") from None
