"""The voice detector silero-vad at 16 kHz as a torch module, with the weights of the package silero-vad.

    pip install --no-deps silero-vad
    python -m simulator --hw nvidia_h100 --model silero:detector --data audio.npz     # x: audio, float32 (N, T)

`detector` has the layers in plain torch and the weights of the package's safetensors file; `onnx_detector` runs an ONNX
file of the package, chunk by chunk. In release 6.2.3 the layers are the same, the weights are not: only those of the
Fourier transform are. The package itself is not imported: its files are all that is needed here.
Source: https://github.com/snakers4/silero-vad, release 6.2.3, MIT licence.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from simulator.errors import missing
from simulator.network.model_files import load_model

RATE = 16000  # samples a second
CHUNK, CONTEXT = 512, 64  # samples that get a probability, and those before them that come along
WINDOW, STEP, BANDS = 256, 128, 129  # of the short-time Fourier transform; it is a convolution with fixed weights
STATE = 128


class Detector(nn.Module):
    """Audio at 16 kHz to the probability that there is speech: (N, T) to (N, T / CHUNK), from what was heard so far.

    The spectra and the convolutions of all chunks are computed at once, since only the LSTM cell depends on the chunks
    before. A last chunk that is not complete is filled with silence.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BANDS, WINDOW, STEP, bias=False)
        self.conv1 = nn.Conv1d(BANDS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, STATE, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(STATE, STATE)
        self.final_conv = nn.Conv1d(STATE, 1, 1)

    def forward(self, audio: Tensor) -> Tensor:
        parts = chunks(audio)
        x = functional.pad(parts.flatten(0, 1), (0, CONTEXT), "reflect")
        real, imaginary = self.stft_conv(x[:, None]).split(BANDS, 1)
        x = (real**2 + imaginary**2).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = torch.relu(layer(x))
        features = x.unflatten(0, parts.shape[:2]).squeeze(-1)
        h = c = features.new_zeros(len(audio), STATE)
        states = []
        for t in range(features.shape[1]):
            h, c = self.lstm_cell(features[:, t], (h, c))
            states.append(h)
        return torch.sigmoid(self.final_conv(torch.relu(torch.stack(states, 2)))).squeeze(1)


class OnnxDetector(nn.Module):
    """The same layers as the ONNX file of the package has them, whose graph takes one chunk and the state."""

    def __init__(self) -> None:
        super().__init__()
        self.network = load_model(str(onnx_file()))

    def forward(self, audio: Tensor) -> Tensor:
        state = audio.new_zeros(2, len(audio), STATE)
        probabilities = []
        for chunk in chunks(audio).unbind(1):
            outputs = self.network(chunk, state, torch.tensor(RATE))
            state = outputs["stateN"]
            probabilities.append(outputs["output"])
        return torch.cat(probabilities, 1)


def detector() -> Detector:
    """Return the detector with the weights of the package; InputError if that is not installed."""
    with torch.device("meta"):
        network = Detector()
    network.load_state_dict(load_file(_folder() / "silero_vad_16k.safetensors"), assign=True)
    return network.eval()


def onnx_detector() -> OnnxDetector:
    """Return the detector of the ONNX file; InputError if the package or onnx is not installed."""
    return OnnxDetector().eval()


def onnx_file() -> Path:
    """Return the ONNX file of the package that onnx_detector runs."""
    return _folder() / "silero_vad_16k_op15.onnx"


def chunks(audio: Tensor) -> Tensor:
    """Return the chunks of audio (N, T), each with the CONTEXT samples before it: (N, chunks, CONTEXT + CHUNK)."""
    return functional.pad(audio, (CONTEXT, -audio.shape[1] % CHUNK)).unfold(1, CONTEXT + CHUNK, CHUNK)


def _folder() -> Path:
    """Return where the package keeps its networks."""
    found = importlib.util.find_spec("silero_vad")
    if found is None or found.origin is None:
        raise missing("the voice detector", "silero-vad", "examples")
    return Path(found.origin).parent / "data"
