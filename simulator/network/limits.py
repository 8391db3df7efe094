"""What is too large for this machine's memory, found out before anything is allocated."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from simulator.errors import InputError

# Where Linux says how much a container may use, in its second and its first version of control groups.
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@functools.cache
def physical_memory() -> int:
    """Return the bytes of memory that this machine, or the container around the process, has."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in _CONTAINER_LIMITS:
        try:
            sizes.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return min(sizes)


def check_fits(
    what: str,
    elements: int,
    bytes_per_element: int,
    remedy: str = "take fewer samples at once, a smaller network, or a machine with more memory",
) -> None:
    """Refuse what would take more than half of the memory; the other half is for all else that a run holds.

    Args:
        what: who asks, as the message begins. elements, bytes_per_element: of what is to be allocated.
        remedy: what the user can do, as the message ends.
    Raises:
        InputError: it does not fit.
    """
    needed, allowed = elements * bytes_per_element, physical_memory() // 2
    if needed > allowed:
        product = f" ({elements:,} x {bytes_per_element} bytes)" if bytes_per_element > 1 else ""
        raise InputError(
            f"{what}: {_binary(needed)}{product}; expected at most {_binary(allowed)}, half of this machine's memory; "
            f"{remedy}"
        )


def _binary(size: int) -> str:
    """A number of bytes as people say it: 24.0 GiB."""
    value, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.4g} {units[0]}"
