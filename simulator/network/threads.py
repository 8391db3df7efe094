"""How many threads torch's own operations take; those of the engine are an argument of every call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from simulator.errors import InputError

_MOST = 1024  # with many more torch ends the process


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch take so many threads in this process within the block; None leaves them as they are.

    Raises:
        InputError: less than one, or more than torch can be trusted with.
    """
    if count is not None and not 1 <= count <= _MOST:
        raise InputError(f"threads: got {count}; expected 1 to {_MOST}; give fewer or more, or leave it out")
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
