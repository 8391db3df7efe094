"""Flags of all samples of a run, one bit each, in an anonymous temporary file once they are many."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from simulator.cost.flags import MaskFlags
from simulator.errors import InputError

BYTES_IN_MEMORY = 1 << 19  # of one layer
FLAGS_AT_ONCE = 1 << 20  # unpacked


class PackedFlags:
    """Flags of one layer, to which those of more samples are added; the file goes with it.

    Args:
        gemms, m, n: shape of the layer's products. batched: whether gemms, not m, counts samples.
    """

    def __init__(self, gemms: int, m: int, n: int, batched: bool) -> None:
        self._gemms, self._m, self._n, self._batched = gemms, m, n, batched
        self._size = 0
        self._file = tempfile.SpooledTemporaryFile(BYTES_IN_MEMORY)  # noqa: SIM115  # closed with this object
        weakref.finalize(self, self._file.close)
        self._rest = np.zeros(0, np.bool_)  # those that do not fill a byte yet

    def add(self, flags: NDArray[np.bool_]) -> None:
        """Add those of an Op, (gemms, M, N).

        Raises:
            InputError: the temporary file cannot be written.
        """
        # What belongs to one sample stays together, so that samples only ever follow one another.
        rows = flags.reshape(-1, self._n) if self._batched else flags.swapaxes(0, 1)
        step = max(1, FLAGS_AT_ONCE // max(1, rows[:1].size))
        with _stored():
            self._file.seek(0, 2)
            for first in range(0, len(rows), step):
                bits = np.concatenate([self._rest, rows[first : first + step].reshape(-1)])
                whole = bits.size // 8 * 8
                self._file.write(np.packbits(bits[:whole]).data)
                self._rest = bits[whole:]
        self._size += flags.size

    def counts(self) -> MaskFlags:
        """Return the counts of all flags so far, all samples in one batch."""
        if self._batched:
            return MaskFlags((self._size // (self._m * self._n), self._m, self._n), self)
        return MaskFlags((self._gemms, self._size // (self._gemms * self._n), self._n), self)

    def __iter__(self) -> Iterator[Iterable[NDArray[np.bool_]]]:
        """Yield masks as MaskFlags takes them, unpacked from the file."""
        if not self._batched:
            yield self._rows(0, self._size // (self._gemms * self._n), self._gemms)
            return
        product = self._m * self._n
        together = max(1, FLAGS_AT_ONCE // product)
        for first in range(0, self._size // product, together):
            gemms = min(together, self._size // product - first)
            if together > 1:
                yield [self._read(first * product, gemms * product).reshape(gemms, self._m, self._n)]
            else:
                yield self._rows(first * product, self._m, 1)

    def _rows(self, start: int, count: int, gemms: int) -> Iterator[NDArray[np.bool_]]:
        """Yield rows of GEMMs that lie beside each other, from flag `start` on."""
        width = gemms * self._n
        step = max(1, FLAGS_AT_ONCE // width)
        for first in range(0, count, step):
            rows = min(step, count - first)
            yield self._read(start + first * width, rows * width).reshape(rows, gemms, self._n).swapaxes(0, 1)

    def _read(self, start: int, count: int) -> NDArray[np.bool_]:
        with _stored():
            self._file.seek(start // 8)
            packed = np.frombuffer(self._file.read((start + count + 7) // 8 - start // 8), np.uint8)
        bits = np.concatenate([np.unpackbits(packed).view(np.bool_), self._rest])
        return bits[start % 8 :][:count]


@contextmanager
def _stored() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the flags of a two-pass run: their temporary file: {error}; expected a bit of room for each output; free "
            "some, name another directory in the variable TMPDIR, or run fewer samples"
        ) from None
