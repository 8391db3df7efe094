"""What number formats do to a voice detector: silero-vad on 16 s of synthetic voice, format by format.

    python silero_study.py [DIR]

`torch` has the weights of the package's safetensors file, and all chunks in one batch up to the LSTM cell; `onnx` is
the ONNX file, chunk by chunk, with other weights.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from format_study import Task, run, share
from silero import CHUNK, detector, onnx_detector
from torch import Tensor
from voice import clip

CLIPS, SECONDS = 4, 4.0
THRESHOLD = 0.5  # from which there is speech; the package's own


def samples() -> tuple[Tensor, Tensor]:
    """Return audio (CLIPS, T) and of its chunks whether there is voice in most of each (CLIPS, chunks)."""
    audio, voiced = map(np.stack, zip(*(clip(SECONDS, seed) for seed in range(CLIPS)), strict=True))
    parts = torch.from_numpy(voiced).float().unfold(1, CHUNK, CHUNK)
    return torch.from_numpy(audio), parts.mean(2) > 0.5


def tasks() -> Iterator[Task]:
    """Yield both networks."""
    audio, voiced = samples()

    def measures(outputs: Tensor, reference: Tensor) -> Mapping[str, float]:
        speech = outputs > THRESHOLD
        return {"right": share(speech == voiced), "as float32": share(speech == (reference > THRESHOLD))}

    for name, network in (("torch", detector()), ("onnx", onnx_detector())):
        yield Task(name, network, audio, measures)


if __name__ == "__main__":
    run("silero", tasks, sys.argv[1:])
