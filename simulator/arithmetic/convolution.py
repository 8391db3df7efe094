"""Convolutions as a MAC unit computes them: matrix products whose operand a is read where the image lies.

Output position r and weight position k meet at image[row_offsets[r] + k_offsets[k]], so that the unfolded matrix
(im2col), K times as large as the image, is never made, but in strips where values along k share scales. Of a large
image a part at a time gets its padding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from native.matmul import Gathered

from .accumulators import Accumulator
from .engine import Accumulation, numbers, random_key
from .spec import MacSpec
from .spec import mac as make_spec  # `mac` is the public name of an argument
from .strips import shares_one_scale

# Rows of operand a: a matrix, or where its elements lie.
Rows = NDArray[Any] | Gathered

# Where the unfolded matrix is made, then in strips of about so many elements.
STRIP_ELEMENTS = 1 << 21

# Elements of the image, and outputs, of a part that is computed at once.
PART_ELEMENTS = 1 << 22

LARGEST_SETTING = (1 << 31) - 1
LARGEST_ARRAY = 1 << 40  # elements; a padding or stride beyond all reason is refused before memory is asked for


@dataclass(frozen=True)
class Geometry:
    """Where the windows of a convolution lie, along each spatial axis.

    Args:
        kernel, stride, dilation: at least 1.
        padding: zeros before and behind the image; below 0 for values of it that are cut off.
        spread: positions from one value of the image to the next, zeros between them; empty for 1.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    spread: tuple[int, ...] = ()

    def sizes(self, image: Sequence[int]) -> tuple[int, ...]:
        """Return the sizes of an image with its zeros between and around."""
        spread = self.spread or (1,) * len(self.kernel)
        return tuple(
            (size - 1) * step + 1 + before + behind
            for size, step, (before, behind) in zip(image, spread, self.padding, strict=True)
        )

    def positions(self, image: Sequence[int]) -> tuple[int, ...]:
        """Return the output positions over an image of these sizes; ValueError if the window is larger than it."""
        rooms = []
        for padded, size, kernel, stride, (before, behind), dilation in zip(
            self.sizes(image), image, self.kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            room = padded - dilation * (kernel - 1) - 1
            if room < 0:
                raise ValueError(
                    f"convolution: a kernel of {kernel} with dilation {dilation} does not fit into {size} positions "
                    f"with {before} and {behind} of padding"
                )
            rooms.append(room // stride + 1)
        return tuple(rooms)

    def windows(self, x: NDArray[Any]) -> Gathered:
        """Return the matrix (samples * positions, channels * kernel positions) of an image (samples, channels, ...)."""
        return self._windows(x, 0, self.positions(x.shape[2:])[0])

    def parts(self, x: NDArray[Any], n: int) -> Iterator[tuple[slice, Gathered]]:
        """Yield the same matrix in parts, with the rows that they are: few samples, or of one the first axis in pieces.

        Args:
            n: outputs of a position.
        """
        positions, sizes = self.positions(x.shape[2:]), self.sizes(x.shape[2:])
        _check_size("the padded image", (*x.shape[:2], *sizes))
        rows = math.prod(positions)
        sample = max(x.shape[1] * math.prod(sizes), rows * n, 1)
        samples = max(1, PART_ELEMENTS // sample)
        step = positions[0] if sample <= PART_ELEMENTS else max(1, PART_ELEMENTS * positions[0] // sample)
        for first in range(0, x.shape[0], samples):
            image = x[first : first + samples]
            for start in range(0, positions[0], step):
                windows = self._windows(image, start, min(start + step, positions[0]))
                row = first * rows + start * (rows // positions[0])
                yield slice(row, row + windows.shape[0]), windows

    def _windows(self, x: NDArray[Any], start: int, stop: int) -> Gathered:
        """Return the windows of positions from start to stop along the first spatial axis, and of all along others."""
        positions = (stop - start, *self.positions(x.shape[2:])[1:])
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        sizes = [(p - 1) * s + r for p, s, r in zip(positions, self.stride, reach, strict=True)]
        _check_size("the padded image", (*x.shape[:2], *sizes))
        data = self._padded(x, (start * self.stride[0], *(0 for _ in sizes[1:])), sizes)
        steps = [stride // data.itemsize for stride in data.strides]
        rows = [np.arange(x.shape[0]) * steps[0]]
        columns = [np.arange(x.shape[1]) * steps[1]]
        for axis, step in enumerate(steps[2:]):
            rows.append(np.arange(positions[axis]) * (self.stride[axis] * step))
            columns.append(np.arange(self.kernel[axis]) * (self.dilation[axis] * step))
        return Gathered(data, _outer_sum(rows), _outer_sum(columns))

    def turned_windows(self, x: NDArray[Any]) -> Gathered:
        """Return the transposed matrix (channels * kernel positions, samples * positions)."""
        windows = self.windows(x)
        return Gathered(windows.data, windows.k_offsets, windows.row_offsets)

    def _padded(self, x: NDArray[Any], corner: Sequence[int], sizes: Sequence[int]) -> NDArray[Any]:
        """Return a contiguous piece of these sizes of the image with its zeros, from a corner on."""
        data = np.zeros((*x.shape[:2], *sizes), x.dtype)
        source, target = [slice(None)] * 2, [slice(None)] * 2
        spread = self.spread or (1,) * len(sizes)
        for length, step, (before, _), first, size in zip(
            x.shape[2:], spread, self.padding, corner, sizes, strict=True
        ):
            begin = before - first  # where value 0 of the image would lie
            low = max(0, -(begin // step))
            high = min(length, -((begin - size) // step))
            source.append(slice(low, max(low, high)))
            target.append(slice(begin + low * step, begin + high * step, step) if high > low else slice(0, 0))
        data[tuple(target)] = x[tuple(source)]
        return data


def terms(a: Rows, part: slice) -> Rows:
    """Return some columns of rows: part of the terms of every sum."""
    return a._replace(k_offsets=a.k_offsets[part]) if isinstance(a, Gathered) else a[:, part]


def _outer_sum(parts: list[NDArray[Any]]) -> NDArray[np.int64]:
    return functools.reduce(np.add.outer, parts).ravel().astype(np.int64)


def strips(windows: Gathered, spec: MacSpec) -> Iterator[tuple[slice, Rows]]:
    """Yield rows of the windows with what they are read from: all at once, or unfolded where a unit's operand needs it.

    Block-scaled operands share scales along k, and random words go by the element of the unfolded matrix.
    """
    use = spec.operands[0] if spec.operands else None
    rows, k = windows.shape
    if use is None or not (use.format.has_blocks or use.mode.stochastic):
        yield slice(0, rows), windows
        return
    flat = windows.data.reshape(-1)
    step = rows if shares_one_scale(use) else STRIP_ELEMENTS // max(k, 1)
    for first in range(0, rows, max(1, step)):
        part = slice(first, min(first + max(1, step), rows))
        yield part, flat[np.add.outer(windows.row_offsets[part], windows.k_offsets)]


def unfolded(geometry: Geometry, x: NDArray[Any], n: int, spec: MacSpec) -> Iterator[tuple[slice, Rows]]:
    """Yield rows of the windows of an image with what they are read from, so many at a time that memory stays bounded.

    Args:
        n: outputs of a position.
    """
    use = spec.operands[0] if spec.operands else None
    if use is not None and shares_one_scale(use):
        yield from strips(geometry.windows(x), spec)
        return
    for part, windows in geometry.parts(x, n):
        for rows, a in strips(windows, spec):
            yield slice(part.start + rows.start, part.start + rows.stop), a


def convolution(
    x: ArrayLike,
    weight: ArrayLike,
    mac: str | Mapping[str, Any] | MacSpec | Accumulator,
    bias: ArrayLike | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: int | Sequence[int] = 0,
    seed: int = 0,
    threads: int | None = None,
    step: int = 0,
    site: int = 0,
) -> NDArray[Any]:
    """Convolve as a MAC unit does; the words are those of torch.nn.functional.

    K runs over the input channels of a group and the kernel positions, in the order of the weight's own layout. The
    padding, and the zeros that a transposed convolution puts between inputs, are multiplied like all other values.

    Args:
        x: (samples, channels, *spatial), any number of spatial axes from 1.
        weight: (outputs, channels / groups, *kernel); transposed: (channels, outputs / groups, *kernel).
        mac: MacSpec or its string or YAML form. bias: (outputs,), the addend of all positions, or None.
        stride, padding, dilation, output_padding: one number, or one for each spatial axis.
        groups: of channels that are convolved apart. seed, threads, step, site: as for matmul.
    Returns:
        (samples, outputs, *spatial), float32 if that holds the output format, else float64. Exact definition:
        simulator.arithmetic.reference.
    Raises:
        ValueError: shapes or settings that do not fit. TypeError: operands that are not numbers.
    """
    spec, x, weight = make_spec(mac), numbers(x, "x"), numbers(weight, "weight")
    if not isinstance(transposed, bool | np.bool_):
        raise TypeError(f"convolution: transposed is True or False; got {transposed!r}")
    axes = x.ndim - 2
    if axes < 1 or weight.ndim != x.ndim:
        raise ValueError(
            f"convolution: x {x.shape} and weight {weight.shape} do not fit; expected (samples, channels, ...) and "
            "(outputs, channels, ...), with as many spatial axes"
        )
    strides, paddings, dilations, behind = (
        _per_axis(name, setting, axes, least)
        for name, setting, least in (
            ("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1),
            ("output_padding", output_padding, 0),
        )
    )  # fmt: skip
    if any(behind) and not transposed:
        raise ValueError("convolution: output_padding is for transposed ones")
    kernel = weight.shape[2:]
    if not _is_whole(groups) or groups < 1:
        raise ValueError(f"convolution: groups is a whole number from 1; got {groups!r}")
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != channels or weight.shape[0] % groups:
        raise ValueError(
            f"convolution: x {x.shape} and weight {weight.shape} do not fit with {groups} groups; expected "
            f"{channels} channels, and groups that divide what the first axis of weight counts"
        )
    if transposed:
        weight, geometry = as_plain(x.shape, weight, groups, strides, paddings, dilations, behind)
    else:
        geometry = Geometry(kernel, strides, tuple((p, p) for p in paddings), dilations)
    return _convolved(spec, x, weight, _bias(bias, weight.shape[0]), geometry, groups, (seed, step, site), threads)


def _convolved(
    spec: MacSpec,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    geometry: Geometry,
    groups: int,
    key: tuple[int, int, int],
    threads: int | None,
) -> NDArray[Any]:
    positions = geometry.positions(x.shape[2:])
    n, k = weight.shape[0] // groups, math.prod(weight.shape[1:])
    _check_size("the result", (x.shape[0], weight.shape[0], *positions))
    y = np.empty((groups, x.shape[0] * math.prod(positions), n), spec.dtype)
    for group in range(groups):
        outputs = slice(group * n, (group + 1) * n)
        inputs = slice(group * weight.shape[1], (group + 1) * weight.shape[1])
        b = weight[outputs].reshape(n, k).T
        c = None if bias is None else bias[outputs]
        for rows, a in unfolded(geometry, x[:, inputs], n, spec):
            words = random_key(*key, group * y.shape[1] + rows.start, n, group)
            y[group, rows] = Accumulation(spec, a, b, c, threads, words).dense()[0]
    image = y.reshape(groups, x.shape[0], *positions, n)
    return np.ascontiguousarray(np.moveaxis(np.moveaxis(image, -1, 1), 2, 0)).reshape(
        x.shape[0], groups * n, *positions
    )


def as_plain(
    image: tuple[int, ...],
    weight: NDArray[Any],
    groups: int,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    behind: tuple[int, ...],
) -> tuple[NDArray[Any], Geometry]:
    """Return weight and geometry of the plain convolution of stride 1 that a transposed one over an image is.

    Args:
        image: shape (samples, channels, ...). behind: output_padding.
    """
    kernel = weight.shape[2:]
    if any(extra >= max(s, d) for extra, s, d in zip(behind, stride, dilation, strict=True)):
        raise ValueError(f"convolution: output_padding {behind} must stay below stride {stride} or dilation {dilation}")
    # Padding beyond the kernel's reach cuts outputs off instead of adding any.
    edges = tuple(
        (d * (k - 1) - p, d * (k - 1) - p + extra)
        for k, d, p, extra in zip(kernel, dilation, padding, behind, strict=True)
    )
    geometry = Geometry(kernel, (1,) * len(kernel), edges, dilation, stride)
    between = [(size - 1) * s + 1 for size, s in zip(image[2:], stride, strict=True)]
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    padded = geometry.sizes(image[2:])
    if any(size < 0 or all_of_it <= least for size, all_of_it, least in zip(between, padded, reach, strict=True)):
        raise ValueError(f"convolution: padding {padding} cuts all outputs of a transposed one off; expected less")
    _check_size("the image with zeros between", (*image[:2], *between))
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    turned = np.flip(split, axis=tuple(range(3, split.ndim))).swapaxes(1, 2)
    return np.ascontiguousarray(turned).reshape(-1, *turned.shape[2:]), geometry


def _bias(bias: ArrayLike | None, outputs: int) -> NDArray[Any] | None:
    if bias is None:
        return None
    c = numbers(bias, "bias")
    if c.shape != (outputs,):
        raise ValueError(
            f"convolution: got a bias of shape {c.shape}; expected one value for each of {outputs} outputs"
        )
    return c


def _per_axis(name: str, setting: int | Sequence[int], axes: int, least: int) -> tuple[int, ...]:
    several = isinstance(setting, Sequence) or (isinstance(setting, np.ndarray) and setting.ndim > 0)
    values: tuple[Any, ...] = tuple(setting) if several else (setting,) * axes  # type: ignore[arg-type]
    if len(values) != axes or not all(_is_whole(v) and least <= v <= LARGEST_SETTING for v in values):
        raise ValueError(
            f"convolution: {name} is a whole number from {least} to 2**31 - 1, or {axes} of them; got {setting!r}"
        )
    return tuple(int(v) for v in values)


def _check_size(what: str, shape: Sequence[int]) -> None:
    if math.prod(shape) > LARGEST_ARRAY:
        raise ValueError(
            f"convolution: {what} would have shape {tuple(shape)}; expected at most 2**40 elements; take a smaller "
            "stride, padding or dilation"
        )


def _is_whole(x: object) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, bool)
