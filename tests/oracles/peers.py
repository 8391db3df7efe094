"""Other emulators of accumulation, asked for the same products: apytypes, and mmaemu for the tensor cores of an H100.

mmaemu's results for an H100 are checked by its authors against recordings of that GPU; apytypes rounds product and sum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def with_apytypes(
    a: NDArray[np.float64], b: NDArray[np.float64], operands: tuple[int, int], accumulator: tuple[int, int]
) -> NDArray[np.float64]:
    """Return a @ b with operands and accumulator of (exponent bits, fraction bits)."""
    import apytypes

    def made(x: NDArray[np.float64]) -> apytypes.APyFloatArray:
        return apytypes.APyFloatArray.from_float(x, exp_bits=operands[0], man_bits=operands[1])

    x, y = made(a), made(b)
    with apytypes.APyFloatAccumulatorContext(exp_bits=accumulator[0], man_bits=accumulator[1]):
        return (x @ y).to_numpy()


def with_mmaemu(a: NDArray[np.float32], b: NDArray[np.float32], fast: bool) -> NDArray[np.float32]:
    """Return a @ b of fp8_e4m3 values as an H100 computes it: in one chain, or promoted every 128 products."""
    import mmaemu
    import torch

    x, y = (torch.from_numpy(np.ascontiguousarray(v)).to(torch.float8_e4m3fn) for v in (a, b.T))
    return mmaemu.accumulate(x, y, use_fast_accum=fast, profile="hopper", splitk=1, backend="reference").numpy()
