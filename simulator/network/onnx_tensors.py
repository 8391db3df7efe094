"""Tensors as ONNX stores them: in the file itself, or in files of data beside it that must not lie elsewhere."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.errors import InputError

from .limits import check_fits
from .onnx_operators.registry import Declined
from .onnx_operators.types import torch_type

_WHOLE = "write or copy the file anew"
_EXTERNAL = 1  # TensorProto.DataLocation
_KEYS = frozenset({"location", "offset", "length", "checksum"})

# Field of a TensorProto that holds elements one by one -> NumPy's type of these, and the types of tensors in it. Narrow
# types lie in the low bits of int32_data, float16 and narrower floats as their codes.
_FIELDS: dict[str, tuple[type[Any], tuple[torch.dtype, ...]]] = {
    "float_data": (np.float32, (torch.float32, torch.complex64)),
    "double_data": (np.float64, (torch.float64, torch.complex128)),
    "int64_data": (np.int64, (torch.int64,)),
    "uint64_data": (np.uint64, (torch.uint64, torch.uint32)),
}


class Tensors:
    """Reads the tensors of one file, which in all may take half of the memory.

    Args:
        path: of the file, in whose folder its external data lie.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = Path(path).resolve().parent
        self._bytes = 0

    def read(self, proto: Any, where: str) -> Tensor:
        """Return a TensorProto as a tensor that owns its memory.

        Args:
            proto: the TensorProto. where: what it is, for messages, as in "initialiser conv1.weight".
        Raises:
            InputError: a type that torch does not have, sizes that contradict the data, or data that lie elsewhere.
        """
        place = f"{self.path}: {where}"
        try:
            dtype = torch_type(proto.data_type)
        except Declined as declined:
            raise InputError(
                f"{place}: {declined}; expected numbers of a type that it has; convert the network"
            ) from None
        shape = tuple(proto.dims)
        if any(length < 0 for length in shape):
            raise InputError(f"{place}: has shape {shape}; expected no negative length; {_WHOLE}")
        if proto.HasField("segment"):
            raise InputError(f"{place}: is stored in segments; expected it in one piece; save it so")
        elements = math.prod(shape)
        self._bytes += elements * dtype.itemsize
        check_fits(f"{place}: and the tensors before it", self._bytes, 1, "take a smaller network, or " + _WHOLE)
        if proto.data_location == _EXTERNAL:
            data = self._external(proto, place, elements * dtype.itemsize)
        elif proto.HasField("raw_data"):
            data = np.frombuffer(proto.raw_data, np.uint8)
        else:
            data = _listed(proto, dtype)
        if data.nbytes != elements * dtype.itemsize:
            raise InputError(
                f"{place}: has {data.nbytes:,} bytes of data; expected {elements * dtype.itemsize:,} for shape {shape} "
                f"of {str(dtype).removeprefix('torch.')}; {_WHOLE}"
            )
        if not elements:
            return torch.empty(shape, dtype=dtype)
        data = data.copy()  # which may be written to, and is aligned
        if dtype == torch.bool:
            return torch.from_numpy(data != 0).reshape(shape)
        return torch.from_numpy(data).view(dtype).reshape(shape)

    def _external(self, proto: Any, place: str, size: int) -> NDArray[np.uint8]:
        """Read data from a file beside the network, whose place only names and links within its folder may give."""
        given = {entry.key: entry.value for entry in proto.external_data}
        location = given.get("location", "")
        parts = Path(location).parts
        # Windows' separators and drives are refused here too: a file is the same one everywhere.
        if not parts or os.path.isabs(location) or ".." in parts or "\\" in location or ":" in parts[0]:
            raise InputError(
                f"{place}: its data are said to lie in {location!r}; expected a path within the folder of the network; "
                "save the network with its data beside it"
            )
        unknown = sorted(set(given) - _KEYS)
        if unknown:
            raise InputError(f"{place}: its data have {', '.join(unknown)}; expected {', '.join(sorted(_KEYS))} alone")
        file = self._folder / location
        if not Path(os.path.realpath(file)).is_relative_to(self._folder):
            raise InputError(
                f"{place}: its data lie in {location!r}, a link out of the folder of the network; expected a file in "
                "it; copy the data there"
            )
        if not file.is_file():
            raise InputError(
                f"{place}: its data lie in {location!r}, which is no file beside the network; expected all files that "
                "were saved with it; copy them into the same folder"
            )
        available = file.stat().st_size
        numbers = {key: given.get(key, default) for key, default in (("offset", "0"), ("length", str(size)))}
        if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in numbers.values()):
            shown = ", ".join(f"{key} {text!r}" for key, text in numbers.items())
            raise InputError(f"{place}: its data have {shown}; expected counts of bytes; {_WHOLE}")
        offset, length = int(numbers["offset"]), int(numbers["length"])
        if length != size or offset + length > available:
            raise InputError(
                f"{place}: its data are bytes {offset:,} to {offset + length:,} of {location!r}, which has "
                f"{available:,}; expected {size:,} bytes within the file; copy the file of data anew"
            )
        return np.fromfile(file, np.uint8, count=length, offset=offset)


def _listed(proto: Any, dtype: torch.dtype) -> NDArray[np.uint8]:
    """Return the bytes of elements that are given one by one."""
    for field, (wide, types) in _FIELDS.items():
        if dtype in types:
            values = np.array(getattr(proto, field), wide)
            return (values.astype(np.uint32) if dtype == torch.uint32 else values).view(np.uint8)
    # The low bytes of each number, on machines that have the lowest first, as all that torch runs on do.
    codes = np.array(proto.int32_data, np.int32).reshape(-1, 1).view(np.uint8)
    return np.ascontiguousarray(codes.reshape(-1, 4)[:, : dtype.itemsize]).reshape(-1)
