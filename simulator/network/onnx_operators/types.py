"""The types of elements that ONNX numbers, as torch has them."""

from __future__ import annotations

import torch

from .registry import Declined

# TensorProto.DataType -> (torch's type, ONNX's name of it); numbers and names are of onnx.proto3.
_TYPES: dict[int, tuple[torch.dtype | None, str]] = {
    1: (torch.float32, "float"), 2: (torch.uint8, "uint8"), 3: (torch.int8, "int8"), 4: (torch.uint16, "uint16"),
    5: (torch.int16, "int16"), 6: (torch.int32, "int32"), 7: (torch.int64, "int64"), 8: (None, "string"),
    9: (torch.bool, "bool"), 10: (torch.float16, "float16"), 11: (torch.float64, "double"),
    12: (torch.uint32, "uint32"), 13: (torch.uint64, "uint64"), 14: (torch.complex64, "complex64"),
    15: (torch.complex128, "complex128"), 16: (torch.bfloat16, "bfloat16"),
    17: (torch.float8_e4m3fn, "float8e4m3fn"), 18: (torch.float8_e4m3fnuz, "float8e4m3fnuz"),
    19: (torch.float8_e5m2, "float8e5m2"), 20: (torch.float8_e5m2fnuz, "float8e5m2fnuz"),
    21: (None, "uint4"), 22: (None, "int4"), 23: (None, "float4e2m1"), 24: (torch.float8_e8m0fnu, "float8e8m0"),
    25: (None, "uint2"), 26: (None, "int2"), 27: (None, "float6e2m3"), 28: (None, "float6e3m2"),
}  # fmt: skip


def torch_type(number: int) -> torch.dtype:
    """Return torch's type for a number of ONNX's.

    Raises:
        Declined: torch has no such type, or ONNX has not.
    """
    dtype, name = _TYPES.get(number, (None, f"number {number}"))
    if dtype is None:
        raise Declined(f"elements of the type {name}, which torch does not have")
    return dtype
