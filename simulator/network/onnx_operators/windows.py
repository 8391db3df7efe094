"""Where the windows of convolutions and pools lie: their sizes, steps, and the padding around their input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from simulator.network.convolutions import same_padding

from .axes import fitting
from .registry import Declined, Node


class Windows(NamedTuple):
    """Windows over the spatial axes of an input, one number an axis.

    Args:
        kernel, strides, dilations: of the windows.
        begin, end: elements of padding before and behind the input.
        ceil: whether windows count that begin within the input, and reach beyond the padding behind it.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    ceil: bool = False

    @property
    def extent(self) -> tuple[int, ...]:
        """How many elements a window reaches across."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def symmetric(self) -> bool:
        """Whether there is as much padding before as behind."""
        return self.begin == self.end

    def counts(self, sizes: Sequence[int]) -> list[int]:
        """Return how many windows there are along each axis of an input of some sizes, those beyond it included."""
        whole = zip(sizes, self.begin, self.end, self.beyond(sizes), self.extent, self.strides, strict=True)
        return [(begin + n + end + more - extent) // stride + 1 for n, begin, end, more, extent, stride in whole]

    def beyond(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return how far the last windows reach beyond the padding behind an input of some sizes, 0 without `ceil`."""
        result = []
        for size, extent, stride, begin, end in zip(
            sizes, self.extent, self.strides, self.begin, self.end, strict=True
        ):
            room = begin + size + end - extent
            steps = -(-room // stride) if self.ceil else room // stride
            if self.ceil and steps * stride >= size + begin:  # it would begin behind the input
                steps -= 1
            result.append(max(0, steps * stride - room))
        return tuple(result)


def windows(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Return the windows of a node over an input of some spatial sizes.

    Raises:
        Declined: attributes of another number of axes, or an `auto_pad` that ONNX does not know.
    """
    rank = len(sizes)
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    pads = node.get("pads", [0] * (2 * rank))
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise Declined(
            f"a kernel of {len(kernel)} axes on {rank} spatial ones, or strides, dilations or pads that do not fit"
        )
    if min([*kernel, *strides, *dilations], default=1) < 1:
        raise Declined(f"a kernel {list(kernel)}, strides {strides} or dilations {dilations} of less than 1")
    whole = Windows(tuple(kernel), tuple(strides), tuple(dilations), tuple(pads[:rank]), tuple(pads[rank:]))
    auto = node.get("auto_pad", "NOTSET")
    if auto == "VALID":
        whole = whole._replace(begin=(0,) * rank, end=(0,) * rank)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            same_padding(size, extent, stride)
            for size, stride, extent in zip(sizes, strides, whole.extent, strict=True)
        ]
        less, more = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
        return whole._replace(begin=less, end=more) if auto == "SAME_UPPER" else whole._replace(begin=more, end=less)
    elif auto != "NOTSET":
        raise Declined(f"auto_pad {auto}")
    return whole._replace(ceil=bool(node.get("ceil_mode", 0)))


def padded(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """Return x with elements before and behind its last axes; negative numbers remove some."""
    around = zip(x.shape[-len(begin) :], begin, end, strict=True)
    fitting([*x.shape[: -len(begin)], *map(sum, around)], x.dtype)
    return nn.functional.pad(
        x, [n for both in zip(reversed(begin), reversed(end), strict=True) for n in both], value=value
    )


def unfolded(x: Tensor, over: Windows) -> Tensor:
    """Return the windows over an input that is padded already: a view (N, C, windows, kernel) of axes as many."""
    for axis, (extent, stride, dilation) in enumerate(zip(over.extent, over.strides, over.dilations, strict=True)):
        x = x.unfold(2 + axis, extent, stride)[..., ::dilation]
    return x
