"""The order of summation and the roundings of an accumulator, in words."""

from __future__ import annotations

from .accumulators import (
    Accumulator,
    Aligned,
    Chunk,
    Exact,
    Fixed,
    Fma,
    Interleave,
    Kahan,
    Late,
    Neumaier,
    Reverse,
    Seq,
    Tree,
    joins_late,
)


def in_words(accumulator: Accumulator) -> list[str]:
    """Return lines that say how products become the final state, parts indented below what they are parts of."""
    lines = _lines(accumulator, "products")
    where = "joins the result, rounded once more" if joins_late(accumulator) else "starts the state"
    return [*lines, f"an addend {where}"]


def _lines(part: Accumulator, terms: str) -> list[str]:
    match part:
        case Late(inner):
            return _lines(inner, terms)
        case Reverse(length, inner):
            return [f"runs of {length} consecutive {terms}, each taken backwards:", *_indented(_lines(inner, terms))]
        case Chunk(length, inner, outer):
            return [
                f"runs of {length} consecutive {terms}, each from +0:",
                *_indented(_lines(inner, terms)),
                "their results, in order:",
                *_indented(_lines(outer, "results")),
            ]
        case Interleave(ways, inner, join):
            return [
                f"{ways} lanes take the {terms} by turns, each from +0:",
                *_indented(_lines(inner, terms)),
                "the lanes' results, in order:",
                *_indented(_lines(join, "results")),
            ]
    return [_step(part, terms)]


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _step(part: Accumulator, terms: str) -> str:
    values = terms == "results"
    one = "each" if values else "each product, exact,"
    match part:
        case Fma(total, 1):
            return f"{one} added to the state, one rounding into {total}; in order"
        case Fma(total, products):
            return f"{products} {terms} and the state summed exactly, one rounding into {total}; in order"
        case Seq(_, total) if values:
            return f"each added to the state, rounded into {total}; in order"
        case Seq(product, total):
            return f"each product rounded into {product}, then added to the state, rounded into {total}; in order"
        case Tree(total, radix, leaves):
            leaf = "" if values else f"each product {'exact' if leaves == 'exact' else f'rounded into {total}'}, then "
            return f"{leaf}neighbours in groups of {radix}, level by level, each sum rounded once into {total}"
        case Kahan(total):
            return f"Kahan's compensated sum, every operation rounded into {total}; in order"
        case Neumaier(total):
            return f"Neumaier's compensated sum, every operation rounded into {total}; in order"
        case Exact(total):
            return f"the exact sum of all {terms}, rounded once into {total}; no order"
        case Fixed(bits, frac, mode):
            beyond = {"wrap": "modulo 2^", "sat": "clamped to ", "track": "watched beyond "}[mode]
            return f"each of the {terms} rounded to a multiple of 2^{-frac}, integer sums {beyond}{bits} bits; in order"
        case Aligned():
            return _aligned(part, terms)
    raise TypeError(f"{part} is composed of others")


def _aligned(part: Aligned, terms: str) -> str:
    joined = " and the state" if part.c == "early" else ""
    floor = "" if part.e_min is None else f", at least 2^{part.e_min}"
    cut = {"rz": "cut", "rd": "rounded down", "rne": "rounded to nearest even"}[part.align]
    order = "in order" if part.order == "ascending" else "of 2n first those with k mod 4 < 2"
    late = "" if part.c == "early" else "the state added, "
    if part.parts > 1:
        terms = f"{terms}, those of even and of odd k apart,"
    return (
        f"{part.n} {terms}{joined} {cut} at {part.frac} bits below the largest exponent{floor}, summed exactly, {late}"
        f"one rounding into {part.out}; {order}"
    )
