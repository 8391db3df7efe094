"""The use of a format: the format with a rounding and an overflow mode, written `fp8_e4m3/sat`."""

from __future__ import annotations

from dataclasses import dataclass

from .format import OVERFLOWS, Format
from .registry import get
from .rounding import ROUNDINGS, Rounding, parse_rounding


@dataclass(frozen=True)
class Use:
    """A format as some unit uses it (P3109 calls the pair of modes a projection).

    Args:
        format: the number system.
        rounding: of the grammar in formats.rounding, kept in its canonical form.
        overflow: one of formats.OVERFLOWS; None for the format's default.
    """

    format: Format
    rounding: str = "rne"
    overflow: str = None  # type: ignore[assignment]  # always a str once built

    def __post_init__(self) -> None:
        if not isinstance(self.format, Format):
            raise TypeError(f"got {self.format!r}; expected a format; give one, or a name to Use.parse")
        mode, overflow = self.format.modes(self.rounding, self.overflow)
        object.__setattr__(self, "rounding", str(mode))
        object.__setattr__(self, "overflow", overflow)

    @property
    def mode(self) -> Rounding:
        """The rounding mode as a record."""
        return parse_rounding(self.rounding)

    @classmethod
    def parse(cls, text: str | Use | Format) -> Use:
        """Read `format[/rounding][/overflow]`; ValueError says which part is wrong."""
        if isinstance(text, Use):
            return text
        if isinstance(text, Format):
            return cls(text)
        if not isinstance(text, str):
            raise TypeError(f"got {type(text).__name__}; expected the use of a format; give e.g. 'fp8_e4m3/sat'")
        name, *modes = text.strip().split("/")
        rounding, overflow = None, None
        for mode in modes:
            if mode.split(":")[0] in ROUNDINGS and rounding is None and overflow is None:
                rounding = mode
            elif mode in OVERFLOWS and overflow is None:
                overflow = mode
            else:
                raise ValueError(
                    f"{text!r}: {mode!r} is not expected there; write FORMAT[/ROUNDING][/OVERFLOW] "
                    f"with rounding {'|'.join(ROUNDINGS)} and overflow {'|'.join(OVERFLOWS)}"
                )
        return cls(get(name), rounding or "rne", overflow)  # type: ignore[arg-type]

    def quantize(self, x, **options):
        """Round an array as this use says; see Format.quantize."""
        return self.format.quantize(x, self.rounding, self.overflow, **options)

    def __str__(self) -> str:
        modes = [m for m, d in ((self.rounding, "rne"), (self.overflow, self.format.default_overflow)) if m != d]
        return "/".join([self.format.name, *modes])
