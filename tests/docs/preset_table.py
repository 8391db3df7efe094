"""The tables of docs/presets.md: `python -m tests.docs.preset_table units | notes | untested | sources`."""

from __future__ import annotations

import sys

from simulator import presets

PRESETS = presets()
SOURCES = list(dict.fromkeys(source for preset in PRESETS.values() for source in preset.sources))


def rows(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]


def units() -> list[str]:
    """One row an output of a preset."""
    lines = rows("preset", "unit", "operands", "output", "accumulator", "evidence", "sources")
    for name, preset in PRESETS.items():
        operands = ", ".join(f"`{one}`" for one in (preset.operands, *preset.fits))
        numbers = ", ".join(f"[{SOURCES.index(source) + 1}]" for source in preset.sources)
        for output, mode in preset.outputs.items():
            label = f"{mode.label} {mode.but}".strip()
            lines.append(
                f"| `{name}` | {preset.unit} | {operands} | `{output}` | `{mode.accumulator}` | {label} | {numbers} |"
            )
    return lines


def points(kind: str) -> list[str]:
    """One row a note or an untested point, with the presets that have it."""
    lines = rows("point", "presets")
    for text in dict.fromkeys(text for preset in PRESETS.values() for text in getattr(preset, kind)):
        lines.append(f"| {text} | {', '.join(f'`{name}`' for name in shortened(kind, text))} |")
    return lines


def shortened(kind: str, text: str) -> list[str]:
    """The names of those that have a point, `a100.*` where all of a100 have it."""
    having = [name for name, preset in PRESETS.items() if text in getattr(preset, kind)]
    family = {name: name.split(".")[0] for name in PRESETS}
    whole = {
        one for one in family.values()
        if list(family.values()).count(one) == [family[name] for name in having].count(one) > 1
    }  # fmt: skip
    return list(dict.fromkeys(f"{family[name]}.*" if family[name] in whole else name for name in having))


def sources() -> list[str]:
    return rows("", "source") + [f"| [{i}] | {source} |" for i, source in enumerate(SOURCES, 1)]


if __name__ == "__main__":
    table = sys.argv[1]
    print("\n".join(points(table) if table in ("notes", "untested") else {"units": units, "sources": sources}[table]()))
