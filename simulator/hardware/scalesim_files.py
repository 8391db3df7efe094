"""Files of SCALE-Sim: its configuration (.cfg) and its topologies of products or convolutions (.csv)."""

from __future__ import annotations

import configparser
import csv
from dataclasses import dataclass
from pathlib import Path

from simulator.errors import InputError

_LARGEST = 1 << 31
_LARGEST_FILE = 1 << 24

# Columns of a topology, by the words that its heading has.
GEMM = ("M", "N", "K")
CONVOLUTION = ("IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width", "Channels", "Num Filter", "Strides")


@dataclass(frozen=True)
class ScaleSimConfig:
    """What of a configuration counts here.

    Args:
        run: name of the run. rows, columns, dataflow: of the array.
        bandwidth: words a cycle of each DRAM port, None for no stalls (InterfaceBandwidth: CALC).
    """

    run: str
    rows: int
    columns: int
    dataflow: str
    bandwidth: int | None


@dataclass(frozen=True)
class TopologyLayer:
    """A line of a topology: its name, and the numbers of GEMM or CONVOLUTION in that order."""

    name: str
    sizes: tuple[int, ...]

    @property
    def depthwise(self) -> bool:
        """Whether it is a convolution of each channel for itself, which its name says by having DP in it."""
        return "DP" in self.name and len(self.sizes) == len(CONVOLUTION)


def read_config(path: str) -> ScaleSimConfig:
    """Read a configuration.

    Raises:
        InputError: `path: section.key: what was found; expected; what to do`.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_text(path), source=path)
    except configparser.Error as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"{path}: no configuration of SCALE-Sim ({first}); expected sections of key: value; check the path"
        ) from None

    def value(section: str, key: str) -> str:
        if not parser.has_option(section, key):
            raise InputError(f"{path}: {section}.{key}: missing; expected it as in SCALE-Sim's own files; add it")
        return parser.get(section, key).strip()

    if parser.get("sparsity", "SparsitySupport", fallback="false").strip().lower() == "true":
        raise InputError(
            f"{path}: sparsity.SparsitySupport: got true, which this simulator does not count; expected false; set it"
        )
    array = "architecture_presets"
    dataflow = value(array, "Dataflow").lower()
    if dataflow not in ("ws", "os", "is"):
        raise InputError(f"{path}: {array}.Dataflow: got {dataflow!r}; expected ws, os or is; write one of them")
    mode = parser.get("run_presets", "InterfaceBandwidth", fallback="CALC").strip().upper()
    if mode not in ("CALC", "USER"):
        raise InputError(
            f"{path}: run_presets.InterfaceBandwidth: got {mode!r}; expected CALC or USER; write one of them"
        )
    bandwidth = None
    if mode == "USER":
        # A list has one number for each of the three ports; the narrowest bounds them all.
        given = value(array, "Bandwidth")
        bandwidth = min(_number(path, f"{array}.Bandwidth", part) for part in given.split(","))
    return ScaleSimConfig(
        parser.get("general", "run_name", fallback=Path(path).stem).strip(),
        _number(path, f"{array}.ArrayHeight", value(array, "ArrayHeight")),
        _number(path, f"{array}.ArrayWidth", value(array, "ArrayWidth")), dataflow, bandwidth,
    )  # fmt: skip


def read_topology(path: str, columns: tuple[str, ...]) -> list[TopologyLayer]:
    """Read a topology.

    Args:
        columns: GEMM or CONVOLUTION, whose order in the file is that of its heading.
    Raises:
        InputError: `path:line: what was found; expected; what to do`.
    """
    rows = [(i, row) for i, row in enumerate(csv.reader(_text(path).splitlines()), 1) if any(map(str.strip, row))]
    if not rows:
        raise InputError(f"{path}: an empty file; expected a heading and one layer a line; write them")
    heading = [_plain(cell) for cell in rows[0][1]]
    places = []
    for name in columns:
        if _plain(name) not in heading:
            shown = ", ".join(cell.strip() for cell in rows[0][1] if cell.strip())
            raise InputError(
                f"{path}:{rows[0][0]}: the heading has {shown}; expected {', '.join(('Layer', *columns))}; add {name}, "
                "or choose the other --input"
            )
        places.append(heading.index(_plain(name)))
    layers = []
    sparsity = heading.index("sparsity") if "sparsity" in heading else None
    for line, row in rows[1:]:
        if sparsity is not None and sparsity < len(row) and not _dense(row[sparsity]):
            raise InputError(
                f"{path}:{line}: a sparsity of {row[sparsity].strip()}, which this simulator does not count; expected "
                "1:1; write that, or remove the column"
            )
        if len(row) <= max(places):
            raise InputError(f"{path}:{line}: {len(row)} cells; expected {max(places) + 1}; complete the line")
        sizes = tuple(_number(f"{path}:{line}", name, row[at]) for name, at in zip(columns, places, strict=True))
        if columns == CONVOLUTION and (sizes[2] > sizes[0] or sizes[3] > sizes[1]):
            raise InputError(
                f"{path}:{line}: a filter of {sizes[2]} x {sizes[3]} on {sizes[0]} x {sizes[1]}; expected one that "
                "fits; correct the line"
            )
        layers.append(TopologyLayer(row[0].strip(), sizes))
    if not layers:
        raise InputError(f"{path}: a heading and no layer; expected one a line; add them")
    return layers


def _dense(sparsity: str) -> bool:
    """Whether a sparsity N:M keeps all weights."""
    kept, _, of = sparsity.strip().partition(":")
    return not sparsity.strip() or kept.strip() == of.strip()


def _plain(heading: str) -> str:
    return "".join(heading.lower().split())


def _text(path: str) -> str:
    try:
        if Path(path).stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path}: larger than 16 MiB; expected a file of SCALE-Sim; check the path")
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise InputError(f"{path}: cannot be read ({why}); expected a file of SCALE-Sim; check the path") from None


def _number(where: str, name: str, text: str) -> int:
    text = text.strip()
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) < _LARGEST:
        raise InputError(f"{where}: {name}: got {text!r}; expected a whole number from 1; write e.g. 16")
    return int(text)
