"""Ctrl-C in a long run: finish what is begun, and keep it."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any


class Interruption:
    """Within it, the first SIGINT or SIGTERM that can wait is noted; any other raises KeyboardInterrupt.

    Outside of the main thread, where Python delivers no signals, and for signals that are ignored it changes nothing.

    Args:
        wanted: False to leave signals alone.
    Attributes:
        may_wait: whether there is something to keep, so that a signal need not end the run at once.
        requested: whether a signal was noted.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted, self.may_wait, self.requested = wanted, False, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if self.wanted and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # None: not installed from Python, and so not to be restored
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self.may_wait:
            raise KeyboardInterrupt
        self.requested = True
        print("ulpsim: interrupted; the batch is being finished, once more stops at once", file=sys.stderr)
