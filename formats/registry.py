"""From a name to a format: named formats, the grammars of the families, registered formats and plug-ins.

format   := base (":" modifier)* | block
base     := named | "e" X "m" Y | "binary" K "p" P ("s"|"u") ("e"|"f") | "posit" N ("e" ES)? | "takum" N
          | "fix" N "." F | "ufix" N "." F | "int" N | "uint" N | "qtorch_" (a posit or eXmY) | registered name
modifier := "ftz" (no subnormals) | "b" BIAS | dialect                                           of floats only
dialect  := "ieee" | "fn" | "fnuz" | "finite" | "scale" | "ufn" | "dlfloat"                      see dialects.py
block    := see block_names.py
"""

from __future__ import annotations

import re
from dataclasses import is_dataclass, replace

from .catalogue import ALIASES, AMBIGUOUS, FLOATS
from .dialects import DIALECTS, default_bias
from .fixed import FixedFormat
from .floats import FloatFormat
from .format import Format
from .posit import PositFormat
from .suggestions import suggestion

ENTRY_POINT_GROUP = "ulpsim.formats"
MODIFIER_DIALECTS = tuple(name for name, rules in DIALECTS.items() if not rules.p3109)
P3109_BITS = range(3, 17)

_named: dict[str, Format] = {fmt.name: fmt for fmt in FLOATS}
_FAMILIES = (PositFormat, FixedFormat)  # each reads the names of its own grammar
_BLOCKS = ("mx", "nvfp", "block")  # beginnings of the names of block-scaled formats
_registered: dict[str, Format] = {}


def _plugged():
    from importlib.metadata import entry_points  # slow to import, and needed only for names that are not built in

    return entry_points(group=ENTRY_POINT_GROUP)


def available() -> list[str]:
    """Return the names of all named, registered and plugged-in formats; those of the grammars come on top."""
    from .block_names import BLOCKS

    plugged = (entry.name for entry in _plugged())
    return list(dict.fromkeys([*_named, *(fmt.name for fmt in BLOCKS), *_registered, *plugged]))


def origin(name: str) -> str | None:
    """Return which plug-in brings a name, or that it was registered here; None for the names of ulpsim itself."""
    for entry in _plugged():
        if entry.name == name and not _is_built_in(name):
            return f"plug-in {entry.dist.name} {entry.dist.version}" if entry.dist else "plug-in"
    return "registered by the program" if name in _registered else None


def register(name: str, fmt: Format) -> None:
    """Make a format available under a name of its own.

    Args:
        name: lower-case identifier, free so far or the name of an equal format.
        fmt: the format.
    Raises:
        TypeError: fmt is no format. ValueError: the name is malformed or taken.
    """
    if not isinstance(fmt, Format):
        raise TypeError(
            f"format {name!r}: got {fmt!r} ({type(fmt).__name__}); expected a format, such as a FloatFormat"
        )
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"format name {name!r}: expected a lower-case identifier such as 'mine8'")
    taken = _registered.get(name)
    if taken == fmt:
        return
    if name in ALIASES or taken is not None or _is_built_in(name):
        raise ValueError(f"format name {name!r} is taken; choose another")
    _registered[name] = replace(fmt, name=name) if is_dataclass(fmt) else fmt


def _is_built_in(name: str) -> bool:
    """Whether a name belongs to a grammar or a catalogue of ours, possible or not."""
    grammars = r"(e\d+m\d+|binary\d.*|posit\d.*|takum\d.*|u?fix\d.*|u?int\d+|qtorch_.*|mx.*|nvfp.*)"
    return name in _named or name in AMBIGUOUS or re.fullmatch(grammars, name) is not None


def get(name: str | Format) -> Format:
    """Return the format of a name.

    Args:
        name: a name of the grammar in docs/reference/formats.md, or a format, which is returned as it is.
    Raises:
        TypeError: neither a name nor a format. ValueError: the name is unknown (the nearest known ones are suggested),
        ambiguous or impossible. ImportError: what a qtorch format needs is not installed.
    """
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        raise TypeError(f"got {type(name).__name__}; expected the name of a format; give e.g. 'fp8_e4m3'")
    if "/" in name:
        raise ValueError(
            f"{name!r} is a use of a format; expected a format, {name.split('/')[0]}; give the modes to quantize"
        )
    if name.strip().startswith(_BLOCKS):
        from . import block_names  # few runs need these formats, and they take long to import

        block = block_names.from_name(name)
        if block is not None:
            return block
    base, *modifiers = name.strip().split(":")
    if base in AMBIGUOUS and not any(m in MODIFIER_DIALECTS for m in modifiers):
        raise ValueError(f"format {name!r} is ambiguous; write one of: {AMBIGUOUS[base]}")
    found = _base(base)
    if found is None:
        raise ValueError(f"format {name!r} is unknown; {_remedy(name, base)}")
    if not modifiers:
        return found
    if not isinstance(found, FloatFormat):
        raise ValueError(f"format {name!r}: modifiers apply to floats, and {base} is none")
    return _canonical(_modified(name, found, modifiers))


def _remedy(name: str, base: str) -> str:
    """What to say about an unknown name: its lower case if that is known, else what resembles it."""
    lower = name.strip().lower()
    if base.lower() in AMBIGUOUS:
        return f"names are lower case; write one of: {AMBIGUOUS[base.lower()]}"
    if lower != name.strip():
        try:
            return f"did you mean {get(lower).name}?"
        except ValueError:
            pass  # not known either; what resembles it is found below
    return suggestion(base, [*available(), *ALIASES])


def _base(base: str) -> Format | None:
    base = ALIASES.get(base, base)
    known = _named.get(base) or _registered.get(base)
    if known is not None:
        return known
    match = re.fullmatch(r"e(0|[1-9]\d?)m(0|[1-9]\d?)", base, re.ASCII)
    if match:
        return _canonical(FloatFormat(base, int(match[1]), int(match[2])))
    match = re.fullmatch(r"binary([1-9]\d?)p([1-9]\d?)([su][ef])", base, re.ASCII)
    if match:
        return _p3109(base, int(match[1]), int(match[2]), match[3])
    for family in _FAMILIES:
        found = family.from_name(base)
        if found is not None:
            return found
    if base.startswith("takum"):
        from .takum import TakumFormat

        return TakumFormat.from_name(base)
    if base.startswith("qtorch_"):
        from . import qtorch  # the provider; torch comes in only when one of its formats is used

        return qtorch.from_name(base)
    for entry in _plugged():
        if entry.name == base:
            register(base, _loaded(entry))
            return _registered[base]
    return None


def _loaded(entry) -> Format:
    """Load the format of a plug-in; whatever goes wrong in there is one ValueError that names it."""
    try:
        fmt = entry.load()
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"format {entry.name!r}: its plug-in {entry.value} cannot be loaded: {reason}") from error
    if not isinstance(fmt, Format):
        raise ValueError(
            f"format {entry.name!r}: its plug-in {entry.value} gives a {type(fmt).__name__}; expected a formats.Format"
        )
    return fmt


def _p3109(name: str, bits: int, precision: int, kind: str) -> FloatFormat:
    """IEEE P3109 interim report v4.0 (a draft): BinaryKpP, signed or unsigned, extended (with infinities) or finite."""
    if bits not in P3109_BITS:
        raise ValueError(f"{name}: K = {bits} is out of range; P3109 formats have K from 3 to 16 bits")
    widest = bits - 1 if kind[0] == "s" else bits
    if precision > widest:
        signs = "signed" if kind[0] == "s" else "unsigned"
        raise ValueError(
            f"{name}: P = {precision} is out of range for K = {bits}; expected P from 1 to {widest} in {signs} formats"
        )
    return FloatFormat(name, bits - precision + (kind[0] == "u"), precision - 1, dialect=kind)


def _modified(name: str, fmt: FloatFormat, modifiers: list[str]) -> FloatFormat:
    fields: dict[str, object] = {}
    for modifier in modifiers:
        if modifier == "ftz":
            change: tuple[str, object] = ("subnormals", False)
        elif modifier in MODIFIER_DIALECTS:
            change = ("dialect", modifier)
        elif re.fullmatch(r"b-?\d{1,18}", modifier, re.ASCII):
            change = ("bias", int(modifier[1:]))
        else:
            raise ValueError(
                f"format {name!r}: modifier {modifier!r} is unknown; "
                f"expected ftz, bBIAS, {', '.join(MODIFIER_DIALECTS)}"
            )
        if change[0] in fields:
            raise ValueError(f"format {name!r}: {change[0]} is given twice")
        fields[change[0]] = change[1]
    if "dialect" in fields and "bias" not in fields and fmt.bias == default_bias(fmt.exponent_bits, fmt.dialect):
        fields["bias"] = None  # the default bias follows the dialect
    return replace(fmt, name=name, **fields)  # type: ignore[arg-type]


def _canonical(fmt: FloatFormat) -> FloatFormat:
    """Give a format its one name: the catalogue's, or P3109's, or eXmY, with the modifiers it needs."""
    for named in FLOATS:
        if named == fmt:
            return named
    base = f"e{fmt.exponent_bits}m{fmt.fraction_bits}"
    if fmt.rules.p3109:
        if fmt.bits not in P3109_BITS:
            return fmt  # made from a registered format, by whose name it goes
        parts = [f"binary{fmt.bits}p{fmt.precision}{fmt.dialect}"]
    elif (
        fmt.dialect != "ieee"
        or base in AMBIGUOUS
        or base in (named.name for named in FLOATS if named.dialect != "ieee")
    ):
        parts = [base, fmt.dialect]
    else:
        parts = [base]
    if fmt.bias != default_bias(fmt.exponent_bits, fmt.dialect):
        parts.append(f"b{fmt.bias}")
    if not fmt.subnormals:
        parts.append("ftz")
    return replace(fmt, name=":".join(parts))
