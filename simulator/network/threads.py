"""How many threads torch's own operations take; those of the engine are an argument of every call."""

from __future__ import annotations

import torch


def use_threads(count: int) -> None:
    """Let torch take so many threads in this process."""
    torch.set_num_threads(count)
