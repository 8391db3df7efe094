"""What notebooks show of a MAC unit, of how a product runs on it, and of what was counted on the way."""

from __future__ import annotations

from collections.abc import Sequence

from formats.notebook import Table, View

from .explain import Explanation, duration, known_as, two_digits
from .order import in_words
from .spec import MacSpec
from .stats import TILE_SIDES, Stats


def mac_view(mac: MacSpec) -> View:
    """Return what is shown of a MAC unit: its formats, and how it sums."""
    a, b = mac.operands or (None, None)
    parts = {"operand a": a, "operand b": b, "accumulator": mac.accumulator, "result": mac.result}
    units = [{"part": name, "what": "as given" if what is None else str(what)} for name, what in parts.items()]
    facts = list(in_words(mac.accumulator))
    if mac.stochastic:
        facts.append("stochastic: bits depend on the seed, and on where an output lies in the whole result")
    tables = [Table("What it is made of", units), _hardware(known_as(mac))]
    return View(str(mac), [_sentence(fact) for fact in facts], tables)


def explanation_view(found: Explanation) -> View:
    """Return what is shown of an explanation: the order, the kernel with its proof, the cheaper ones, the time."""
    m, n, k = found.shape
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    facts = [
        f"({m} x {k}) x ({k} x {n}), {found.operands}.",
        *(_sentence(line) for line in found.order),
        f"Kernel {found.kernel}, instruction set {found.isa}: about {two_digits(found.ns_per_mac)} ns a MAC, "
        f"{duration(found.seconds)} in all on {threads} (estimate, measured just now).",
    ]
    tables = [
        Table("Why it equals the definition", [{"clause": clause} for clause in found.argument]),
        Table("Why it leaves work out of each step", [{"clause": clause} for clause in found.spared]),
        Table(
            "Cheaper kernels that would not, cheapest first",
            [{"kernel": one.kernel, "what does not hold": "; ".join(one.clauses)} for one in found.refused],
        ),
        _hardware(found.presets),
    ]
    return View(found.spec, facts, tables)


def stats_view(stats: Stats) -> View:
    """Return what is shown of statistics: how many outputs overflowed; of all counts the totals, and by tile."""
    m, n = stats.overflowed.shape
    facts = [f"{stats.overflows:,} of {m * n:,} outputs overflowed or saturated at least once. Kernel {stats.kernel}."]
    if stats.counts is None:
        return View(f"Statistics of {m} x {n} outputs", facts)
    facts.append(
        f"The exact inner products are off by at most {stats.error_bound:.3g}."
        if stats.error_bound
        else "Errors are against exact inner products."
    )
    tables = [Table("Roundings and errors, all outputs", [_short(stats.total)])]
    tiles = stats.tile_rows()
    if len(tiles) > 1:
        tables.append(Table("By tile of {} x {} outputs".format(*TILE_SIDES), [_short(tile) for tile in tiles]))
    return View(f"Statistics of {m} x {n} outputs", facts, tables)


def _hardware(lines: Sequence[str]) -> Table:
    return Table("Hardware that it is", [{"unit, evidence, and what is not tested": line.strip()} for line in lines])


def _short(row: dict[str, float]) -> dict[str, float]:
    """Return a row with three digits of what is no count."""
    return {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in row.items()}


def _sentence(line: str) -> str:
    text = line.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(':') else '.'}"
