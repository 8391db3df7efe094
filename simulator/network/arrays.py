"""Arrays of an `.npz` file, which nobody has to trust: no pickles, and no size that its header only claims."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError, first_line

from .files import check_file
from .limits import check_fits

# The largest header that is believed, in bytes: NumPy's own limit for text that it evaluates.
_HEADER_BYTES = 10_000

_HEADERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def array_names(path: str) -> list[str]:
    """Return the names of the arrays in an `.npz` file.

    Raises:
        InputError: the file is missing or of another kind.
    """
    with _open(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_arrays(path: str, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return arrays of an `.npz` file by name.

    Args:
        path: of the file. names: some of array_names.
    Raises:
        InputError: the file is missing or of another kind, or an array is no plain one or does not fit in memory.
    """
    with _open(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        return {name: _read(path, name, archive, members[name]) for name in names}


def _open(path: str) -> zipfile.ZipFile:
    check_file(path, "an .npz file with x and y, if there are labels")
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"\x93N":
        raise InputError(
            f"{path}: a single array; expected an .npz file with x and y; write it with numpy.savez(path, x=..., y=...)"
        )
    # Broken bytes make zipfile, zlib and NumPy raise a dozen types of exceptions; all mean the same to the user.
    try:
        return zipfile.ZipFile(path)
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as .npz ({first_line(error)}); expected a file as numpy.savez(path, x=..., y=...) "
            "writes it; write the file anew"
        ) from None


def _read(path: str, name: str, archive: zipfile.ZipFile, member: str) -> NDArray[Any]:
    try:
        with archive.open(member) as file:
            shape, dtype = _declared(file)
        if not dtype.hasobject:
            check_fits(
                f"{path}: {name} of shape {shape} and {dtype}", math.prod(shape), dtype.itemsize,
                "split the data, or write the file anew if it is not so large",
            )  # fmt: skip
        with archive.open(member) as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array
    except InputError:
        raise
    except (Exception, MemoryError) as error:
        raise InputError(
            f"{path}: {name} cannot be read ({first_line(error)}); expected plain numeric arrays; write the file anew"
        ) from None


def _declared(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read what the header of an array says of its shape and type."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:  # 3.0 is for names of fields beyond Latin-1
        raise ValueError(f"version {version} of the array format")
    shape, _, dtype = _HEADERS[version](file, max_header_size=_HEADER_BYTES)
    if any(length < 0 for length in shape):
        raise ValueError(f"negative shape {shape}")
    return shape, dtype
