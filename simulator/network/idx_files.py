"""Images and classes in the IDX files of MNIST and Fashion-MNIST, as Debian's dataset-fashion-mnist installs them."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError

FASHION = Path("/usr/share/datasets/fashion-mnist")
_PARTS = {"train": "train", "test": "t10k"}
_UINT8 = 8  # the code of the type in the magic number


def has_images(directory: Path) -> bool:
    """Whether there are such files."""
    return directory.is_dir() and any(directory.glob("*-ubyte.gz"))


def read_images(directory: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return grey levels (N, rows, columns) and classes (N,) of a part, train or test.

    Raises:
        InputError: files that are missing, or that are no such files.
    """
    stem = _PARTS[part]
    images = _read(directory / f"{stem}-images-idx3-ubyte.gz", 3)
    classes = _read(directory / f"{stem}-labels-idx1-ubyte.gz", 1)
    if len(images) != len(classes):
        raise InputError(
            f"{directory}: {len(images)} images, {len(classes)} classes; expected as many of both; get the files anew"
        )
    return images, classes


def _read(path: Path, axes: int) -> NDArray[np.uint8]:
    """Return the array of an IDX file: two zero bytes, type, number of axes, their lengths in big endian, values."""
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; expected the four files of MNIST or Fashion-MNIST; install Debian's "
            "dataset-fashion-mnist, or give a directory with them"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a .gz file; get it anew") from None
    head = 4 + 4 * axes
    if len(data) < head or data[:4] != bytes((0, 0, _UINT8, axes)):
        raise InputError(f"{path}: is no IDX file of {axes} axes of bytes; expected one; get it anew")
    shape = struct.unpack(f">{axes}I", data[4:head])
    if len(data) - head != np.prod(shape, dtype=object):
        raise InputError(f"{path}: holds {len(data) - head:,} values of {shape}; expected all of them; get it anew")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape).copy()  # which may be written to
