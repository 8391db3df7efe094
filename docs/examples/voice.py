"""Audio in which it is known where somebody speaks: pulses of a voice through the formants of vowels, noise between.

Source: Klatt, "Software for a cascade/parallel formant synthesizer", JASA 67(3), 1980, for the resonators; Peterson and
Barney, "Control methods used in a study of the vowels", JASA 24(2), 1952, for the formants of men's vowels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 16000  # samples a second
FORMANTS = np.array(  # Hz: of the vowels in had, heed, who'd, head, hawed
    [(660, 1720, 2410), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)], float
)
WIDTHS = (60, 90, 150)  # Hz: of their resonances
SYLLABLE = 0.18  # seconds, the last 40 % of which glide to the next vowel
SPEECH, NOISE = 0.1, 0.002  # root mean squares; 1 is full scale


def clip(seconds: float, seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return audio (T,) and where there is voice (T,): utterances of about a second with pauses of noise."""
    draw = np.random.default_rng(seed)
    total = int(seconds * RATE)
    audio, voiced = NOISE * draw.standard_normal(total), np.zeros(total, bool)
    at = int(draw.uniform(0.3, 0.6) * RATE)
    while at < total:
        said = utterance(draw.uniform(0.7, 1.3), draw)
        audio[at : at + len(said)] += said[: total - at]
        voiced[at : at + len(said)] = True
        at += len(said) + int(draw.uniform(0.5, 0.9) * RATE)
    return audio.astype(np.float32), voiced


def utterance(seconds: float, draw: np.random.Generator) -> NDArray[np.float64]:
    """Return syllables of vowels drawn at random, with a pitch that wavers and falls: (T,)."""
    time = np.arange(int(seconds * RATE)) / RATE
    wave = 0.15 * np.sin(2 * np.pi * (draw.uniform(1, 3) * time + draw.uniform()))
    pitch = draw.uniform(100, 220) * (1 + wave - 0.1 * time)
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0)
    breath = 0.003 * draw.standard_normal(len(time))
    syllable, place = np.divmod(time / SYLLABLE, 1)
    glide = ((place - 0.6) / 0.4).clip(0)[:, None]
    vowels = FORMANTS[draw.integers(len(FORMANTS), size=int(syllable[-1]) + 2)]
    here = syllable.astype(int)
    formants = (1 - glide) * vowels[here] + glide * vowels[here + 1]
    audio = resonance(pulses + breath, np.zeros(len(time)), 100)  # the glottis
    for frequency, width in zip(formants.T, WIDTHS, strict=True):
        audio = resonance(audio, frequency, width)
    audio = np.diff(audio, prepend=0.0)  # what the lips radiate
    audio *= 0.55 - 0.45 * np.cos(2 * np.pi * place)  # quiet between the syllables
    return SPEECH * audio / np.sqrt((audio**2).mean())


def resonance(x: NDArray[np.float64], frequency: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Return x (T,) through a resonator whose frequency (T,) in Hz may change, of a width in Hz: (T,)."""
    radius = np.exp(-np.pi * width / RATE)
    near, far = 2 * radius * np.cos(2 * np.pi * frequency / RATE), -(radius**2)
    driven = (1 - near - far) * x
    y = np.empty_like(x)
    last = before = 0.0
    for t, (now, weight) in enumerate(zip(driven.tolist(), near.tolist(), strict=True)):
        y[t] = now + weight * last + far * before
        last, before = y[t], last
    return y
