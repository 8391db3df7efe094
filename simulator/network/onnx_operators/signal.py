"""Fourier transforms, computed in float64 and rounded once, and what turns spectra into mels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .axes import fitting, positive
from .registry import Declined, Node, operator
from .types import torch_type


def _complex(x: Tensor) -> Tensor:
    """Return complex128 numbers whose real parts, and imaginary ones if any, the last axis holds."""
    wide = x.double() if x.shape[-1] == 2 else torch.nn.functional.pad(x.double(), (0, 1))
    return torch.view_as_complex(wide.contiguous())


def _transformed(node: Node, x: Tensor, count: int | None, axis: int) -> Tensor:
    inverse, one_sided = node.get("inverse", 0), node.get("onesided", 0)
    along = positive(axis, x.dim())
    if along == x.dim() - 1:
        raise Declined("the transform along the axis of real and imaginary parts")
    values = _complex(x)
    length = x.shape[along] if count is None else count
    fitting([x.numel() // max(x.shape[along], 1), length], torch.complex128)
    if inverse and one_sided:
        return torch.fft.irfft(values, count, along)[..., None].to(x.dtype)
    spectrum = (torch.fft.ifft if inverse else torch.fft.fft)(values, length, along)
    if one_sided:
        spectrum = spectrum.narrow(along, 0, length // 2 + 1)
    return torch.view_as_real(spectrum).to(x.dtype)


@operator("DFT", since=17)
def fourier_by_attribute(node: Node, x: Tensor, length: Tensor | None = None) -> Tensor:
    """Return the discrete Fourier transform along an axis, an attribute, or its inverse."""
    return _transformed(node, x, None if length is None else int(length.item()), node.get("axis", 1))


@operator("DFT", since=20)
def fourier(node: Node, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    """Return the discrete Fourier transform along an axis, or its inverse, of a part or with zeros behind.

    `onesided` it is only the first half of the spectrum of real numbers, or the real numbers of such a half.
    """
    count = None if length is None else int(length.item())
    return _transformed(node, x, count, -2 if axis is None else int(axis.item()))


@operator("STFT")
def short_time_fourier(
    node: Node, x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None
) -> Tensor:
    """Return the spectra of frames of a signal (batch, length, 1 or 2), a step behind one another, windowed."""
    whole = x.shape[1] if window is None else len(window)
    count = whole if length is None else int(length.item())
    frames = _complex(x).unfold(1, count, int(step.item()))
    spectra = torch.fft.fft(frames if window is None else frames * window.double())
    if node.get("onesided", 1):
        spectra = spectra[..., : count // 2 + 1]
    return torch.view_as_real(spectra).to(x.dtype)


@operator("MelWeightMatrix")
def mel_weights(node: Node, bins: Tensor, length: Tensor, rate: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the weights of the bins of a spectrum in each mel band, a triangle; a mel is 2595 log10(1 + Hz / 700)."""
    count, size = fitting([int(bins.item()), int(length.item())], torch.float64)
    ends = [2595 * math.log10(1 + edge.item() / 700) for edge in (low, high)]
    mels = ends[0] + torch.arange(count + 2, dtype=torch.float64) * ((ends[1] - ends[0]) / (count + 2))
    hertz = 700 * (torch.pow(10.0, mels / 2595) - 1)
    edges = torch.floor((size + 1) * hertz / rate.item())
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    place = torch.arange(size // 2 + 1, dtype=torch.float64)[:, None]
    rising = torch.where(left == centre, 1.0, (place - left) / (centre - left))
    falling = (right - place) / (right - centre)
    inside = torch.where(place <= centre, torch.where(place >= left, rising, 0), torch.where(place < right, falling, 0))
    return inside.to(torch_type(node.get("output_datatype", 1)))
