"""Networks: the tap on PyTorch, the emulation of a model on a machine, the bundled models and data. Needs torch."""

from simulator.errors import MissingLibraryError

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise MissingLibraryError("networks need torch; install it with: pip install 'ulpsim[torch]'") from error

from .emulation import Emulation, emulate
from .evaluation import evaluate

__all__ = ["Emulation", "emulate", "evaluate"]
