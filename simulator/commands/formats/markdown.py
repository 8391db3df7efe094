"""Formats as Markdown: tables such as that of README.md, and the page docs/reference/formats.md.

Only what ulpsim brings itself is listed, so that the text does not depend on registered formats and plug-ins.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from formats import Format
from formats.block_names import BLOCKS
from formats.catalogue import ALIASES, AMBIGUOUS, FLOATS
from formats.facts import Facts, facts_of
from formats.families import FAMILIES

from . import words

COLUMNS = ("name", "bits", "p", "largest", "smallest normal", "smallest", "specials", "overflow")


def table(chosen: Sequence[Format] = ()) -> str:
    """Return the table of some formats, of none given of all named ones."""
    return _table(COLUMNS, (_cells(facts) for facts in map(facts_of, chosen or _named())))


def page() -> str:
    """Return the whole reference page."""
    codes = ((_code(facts.name), *_special_codes(facts), facts.source) for facts in map(facts_of, _named()))
    families = (
        (_code(family.grammar), _code(family.example), family.meaning, family.source)
        for family in FAMILIES.values()
        if family.grammar
    )
    ambiguous = "\n".join(f"- `{name}` is refused; it may be {meanings}." for name, meanings in AMBIGUOUS.items())
    aliases = ", ".join(f"`{alias}` for `{name}`" for alias, name in ALIASES.items())
    return f"""# Number formats

This page is what `python -m simulator formats --markdown page` prints. `python -m simulator formats NAME` shows a
format with its value table, `--compare A B` where two differ, `--plot FILE.html` their relative spacing. To add one,
see [Add a format](../howto/add-a-format.md).

Some formats have values that float64 does not hold: P3109 formats of few significand bits, such as `binary16p1se`, and
floats of an unusual bias. `encode` works for them, and their numbers are shown exactly, as `2^16382` or `3×2^-9000`.
`decode`, `table` and `quantize` refuse results that float64 does not hold; block formats and MAC units refuse the whole
format. In `--json` such a number is a text, an odd integer times a power of two (`"1*2^16382"`, `"3*2^-9000"`);
infinities and NaN are `"Infinity"`, `"-Infinity"` and `"NaN"`.

## Named formats

{table()}
{textwrap.fill(words.LEGEND, 120)}

## Special codes and sources

{_table(("name", "infinity", "NaN", "-0", "source"), codes)}
Codes are hexadecimal. Blocks that hold a NaN or an infinity are NaN as a whole: so says the code of their scale.

Aliases: {aliases}. The same letters mean several things:

{ambiguous}

## Families

Names of these forms need no list. X, Y, N, K, P, ES, F, BIAS, SIZE are numbers, ELEMENT and FORMAT names of formats.

{_table(("names", "example", "meaning", "source"), families)}"""


def _named() -> list[Format]:
    return [*FLOATS, *BLOCKS]


def _cells(facts: Facts) -> tuple[str, ...]:
    numbers = (facts.max, facts.smallest_normal, facts.smallest_subnormal)
    return (
        _code(facts.name), words.bits(facts), words.precision(facts), *map(words.or_none, numbers),
        words.special_names(facts), facts.default_overflow,
    )  # fmt: skip


def _special_codes(facts: Facts) -> Sequence[str]:
    if facts.specials is None:
        return "none", "of scale", "of element"
    return [text for _, text in words.special_codes(facts, facts.specials)]


def _code(text: str) -> str:
    return f"`{text}`"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    # In a code span of a table a bar is escaped all the same.
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
