"""Formats as tables in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from formats import Format
from formats.binades import Band, bands
from formats.block import BlockFormat
from formats.comparison import Comparison, Lacking, compare
from formats.facts import Facts, facts_of, facts_of_available
from formats.families import FAMILIES, Family
from formats.table import LISTED_BITS, landmarks, rows
from simulator.report import print_view, standard_output
from simulator.report.figures import MISSING, compact, count, decimal

from . import words

MOST_SIDE_BY_SIDE = 4


def print_list() -> None:
    """Print the table of all available formats, their sources, and the families that have grammars."""
    console = standard_output()
    known, problems = facts_of_available()
    sources = list(dict.fromkeys(facts.source for facts in known))
    table, left_out = _list(known, sources), []
    if _width(table, console) > console.width:
        table, left_out = _list(known, sources, narrow=True), ["Left out for want of width: smallest normal."]
    notes = [Text(note, style="dim") for note in (*left_out, words.LEGEND)]
    parts: list[RenderableType] = [Text(), table, *notes, _heading("Sources")]
    parts.append(_pairs([(str(place), source) for place, source in enumerate(sources, 1)]))
    parts.append(_heading("Families: names that need no list"))
    parts += [part for family in FAMILIES.values() if family.grammar for part in _family(family)]
    parts += [Text(f"\n{problem}", style="yellow") for problem in problems.values()]
    parts.append(Text("\npython -m simulator formats NAME shows one in full, --compare A B where two differ.", "dim"))
    _print(parts, console)


def _list(known: Sequence[Facts], sources: Sequence[str], narrow: bool = False) -> Table:
    columns = {
        "name": [facts.name for facts in known],
        "bits": [words.bits(facts) for facts in known],
        "p": [words.precision(facts) for facts in known],
        "largest": [compact(facts.max) for facts in known],
        "smallest\nnormal": [words.or_none(facts.smallest_normal) for facts in known],
        "smallest": [compact(facts.smallest_subnormal) for facts in known],
        "specials": [words.special_names(facts) for facts in known],
        "over-\nflow": [facts.default_overflow for facts in known],
        "src": [str(sources.index(facts.source) + 1) for facts in known],
    }
    if narrow:
        del columns["smallest\nnormal"]
    left = ("name", "specials", "over-\nflow")
    sides = ((heading, "left" if heading in left else "right") for heading in columns)
    table = _table(*sides)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table


def print_format(fmt: Format) -> None:
    """Print everything about a format, value table included."""
    console = standard_output()
    _print(_format(fmt, console.width), console)


def print_comparison(a: Format, b: Format) -> None:
    """Print where two formats differ."""
    _print(_comparison(compare(a, b)), standard_output())


# --- one format -----------------------------------------------------------------------------------------------------


def _format(fmt: Format, width: int) -> Iterator[RenderableType]:
    facts = facts_of(fmt)
    yield Text.assemble("\n", (facts.name, "bold"), f" · {facts.family.key} · {words.bits(facts)} bits")
    yield Text()
    yield _pairs(_facts(facts))
    if isinstance(fmt, BlockFormat):
        for role, part in (("element", fmt.element), ("scale", fmt.scale)):
            yield _heading(f"The {role}, {part.name}")
            yield _pairs(_facts(facts_of(part)))
            yield from _values(part, width)
        return
    yield from _values(fmt, width)


def _facts(facts: Facts) -> list[tuple[str, str]]:
    blocks = facts.specials is None
    pairs = [] if facts.precision is None or blocks else [("precision", words.significand_bits(facts))]
    pairs += [(name.replace("_", " "), words.detail(what)) for name, what in facts.details.items() if what is not None]
    pairs += [("largest", words.with_decimal(facts.max)), ("lowest", words.with_decimal(facts.min))]
    if facts.smallest_normal != facts.smallest_subnormal:
        normal = facts.smallest_normal
        pairs.append(("smallest normal", "none" if normal is None else words.with_decimal(normal)))
    pairs.append(("smallest positive", words.with_decimal(facts.smallest_subnormal)))
    pairs.append(("dynamic range", f"{facts.range_binades:.1f} binades, {facts.range_decades:.1f} decades"))
    if facts.unit_roundoff is not None and not blocks:
        pairs.append(("unit roundoff", words.with_decimal(facts.unit_roundoff) + words.around(facts)))
    if facts.specials is not None:
        pairs += words.special_codes(facts, facts.specials)
        pairs += [] if facts.specials.has_zero else [("zero", "none")]
    pairs += [("default overflow", facts.default_overflow), ("source", facts.source)]
    if facts.source == facts.family.source and facts.family.grammar:
        pairs.append(("family", f"{facts.family.grammar}: {facts.family.meaning}"))
    return pairs


def _values(fmt: Format, width: int) -> Iterator[RenderableType]:
    yield _heading("Spacing of the positive values")
    yield _bands(bands(fmt))
    listed = fmt.bits <= LISTED_BITS
    found = (rows if listed else landmarks)(fmt)
    hexadecimal = " in hexadecimal" if fmt.bits > words.BINARY_BITS else ""
    yield _heading(f"{'Values' if listed else 'Landmarks'}: code, {words.field_names(found)}{hexadecimal}, value")
    if not listed:
        table = _table(("", "left"), ("code", "left"), ("fields", "left"), ("value", "right"))
        for row in found:
            table.add_row(row.meaning, words.hexadecimal(row.code, fmt.bits), words.fields(row), words.value(row))
        yield table
        return
    cells = [(words.hexadecimal(row.code, fmt.bits), words.fields(row), words.value(row)) for row in found]
    one = sum(max(len(cell[column]) for cell in cells) + 2 for column in range(3)) + 2
    side_by_side = max(1, min(MOST_SIDE_BY_SIDE, width // one, len(cells)))
    height = -(-len(cells) // side_by_side)
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(side_by_side):
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column()
    for line in range(height):
        grid.add_row(*(Text(text) for cell in cells[line::height] for text in (*cell, "")))
    yield grid


def _bands(found: Sequence[Band]) -> Table:
    table = _table(
        ("magnitudes", "left"), ("values", "right"), ("significand\nbits", "right"), ("spacing", "right"),
        ("relative\nspacing", "right"),
    )  # fmt: skip
    for band in found:
        table.add_row(
            f"2^{band.low} to 2^{band.high + 1}", words.how_many(band.count), _span(band.precisions, str),
            _span(band.gaps, compact), _relative(band),
        )  # fmt: skip
    return table


def _relative(band: Band) -> str:
    ends = [step / value for b in band.binades if b.steps for step, value in zip(b.steps, (b.high, b.low), strict=True)]
    return _span((min(ends), max(ends)) if ends else None, lambda ratio: decimal(ratio, ".3g"))


def _significand_bits(ends: tuple[int, int] | None) -> str:
    return "uneven" if ends == (0, 0) else _span(ends, str, "no values")


def _span(ends: tuple[Any, Any] | None, write: Callable[[Any], str], missing: str = MISSING) -> str:
    if ends is None:
        return missing
    low, high = map(write, ends)
    return low if low == high else f"{low} to {high}"


# --- two formats ----------------------------------------------------------------------------------------------------


def _comparison(c: Comparison) -> Iterator[RenderableType]:
    a, b = c.a.name, c.b.name
    yield Text.assemble("\n", (a, "bold"), " and ", (b, "bold"))
    if c.identical:
        yield Text(f"\nIdentical values: each of the {count(c.counts[0] if c.counts else 0)} finite values of one is a "
                   "value of the other, and so are infinities, NaN and negative zero.")  # fmt: skip
    if c.record:
        yield _heading("What differs")
        table = _table(("", "left"), (a, "left"), (b, "left"))
        for what, one, other in c.record:
            if what == "specials":
                pairs = [(words.special_names(f), words.special_codes(f, f.specials) if f.specials else [])
                         for f in (c.a, c.b)]  # fmt: skip
                table.add_row("specials", pairs[0][0], pairs[1][0])
                codes = [dict(pair[1]) for pair in pairs]
                for name in dict.fromkeys([*codes[0], *codes[1]]):
                    texts = [code.get(name, "none") for code in codes]
                    if texts[0] != texts[1]:
                        table.add_row(f"  {name}", *texts)
            else:
                name = {"max": "largest", "min": "lowest"}.get(what, what.replace("_", " "))
                table.add_row(name, words.in_short(one), words.in_short(other))
        yield table
    if c.counts:
        yield from _value_sets(c, c.counts)
    elif c.a.specials is None and c.b.specials is None:
        yield Text("\nValues of block formats depend on the scales of the blocks; their elements and scales:")
        if not c.parts:
            yield Text("the same.")
        for part in c.parts:
            yield from _comparison(part)
    else:
        block = a if c.a.specials is None else b
        yield Text(f"\nThe values of {block} depend on the scales of its blocks; compare its element format instead.")


def _value_sets(c: Comparison, counts: tuple[int, int, int]) -> Iterator[RenderableType]:
    a, b = c.a.name, c.b.name
    if not c.identical:
        yield _heading("Finite values")
        of_a, of_b, common = map(count, counts)
        yield Text(f"{a} has {of_a}, {b} has {of_b}, {common} are common to both.")
        for name, other, lacking in ((a, b, c.only_a), (b, a, c.only_b)):
            if not lacking:
                yield Text(f"Every value of {name} is a value of {other}.")
                continue
            yield Text(f"Only in {name}:")
            yield Padding(_pairs([(f"{count(one.count)} {one.kind}", _examples(one)) for one in lacking]), (0, 0, 0, 2))
    if c.precision:
        yield _heading("Significand bits, by magnitude, where they differ")
        table = _table(("magnitudes", "left"), (a, "right"), (b, "right"))
        for step in c.precision:
            table.add_row(f"2^{step.low} to 2^{step.high + 1}", _significand_bits(step.a), _significand_bits(step.b))
        yield table
    yield from _code_table(c)


def _code_table(c: Comparison) -> Iterator[RenderableType]:
    a, b = c.a.name, c.b.name
    if c.codes == 0:
        yield Text("\nEvery code has the same value in both.")
    elif c.code_examples:
        shown = len(c.code_examples)
        if c.codes is None:
            yield _heading("Landmark codes with another value")
        else:
            part = f", the first {shown}" if shown < c.codes else ""
            yield _heading(f"Codes with another value: {count(c.codes)}{part}")
        table = _table(("code", "left"), (a, "right"), (b, "right"))
        for one, other in c.code_examples:
            table.add_row(words.hexadecimal(one.code, c.a.bits), words.value(one), words.value(other))
        yield table


def _examples(lacking: Lacking) -> str:
    sign = "±" if lacking.both_signs else ""
    texts = ", ".join(sign + words.in_full(value) for value in lacking.examples)
    if lacking.count // (2 if lacking.both_signs else 1) <= len(lacking.examples):
        return texts
    if lacking.low is None or lacking.high is None:
        return f"for example {texts}"
    return f"{sign}{compact(lacking.low)} to {sign}{compact(lacking.high)}, for example {texts}"


# --- parts ----------------------------------------------------------------------------------------------------------


def _family(family: Family) -> Iterator[RenderableType]:
    yield Text.assemble((family.grammar, "bold"), f"  e.g. {family.example}")
    yield Padding(Text(f"{family.meaning}. Source: {family.source}"), (0, 0, 0, 4))


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _pairs(pairs: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in pairs:
        grid.add_row(Text(name), Text(text))
    return grid


def _print(parts: Iterable[RenderableType], console: Console) -> None:
    """Print parts; tables that are too wide get one blank between columns instead of two."""
    parts = list(parts)
    for part in parts:
        if isinstance(part, Table) and part.box and _width(part, console) > console.width:
            part.padding = 0
    print_view(console, *parts)


def _width(table: Table, console: Console) -> int:
    """Width that a table would like to have."""
    return console.measure(table, options=console.options.update(max_width=1000)).maximum


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading, side in columns:
        table.add_column(Text(heading, justify="left" if side == "left" else "right"), overflow="fold",
                         justify="left" if side == "left" else "right", vertical="top")  # fmt: skip
    return table
