"""How numbers run fast: the C engine behind one cffi module. Importing it installs fast twins in `formats`.

The instruction set is chosen at run time, the widest that the processor has; ULPSIM_ISA=portable|avx2|avx512 forces
one. All give the same bits.
"""

import os

try:
    from ._engine import ffi, lib
except ImportError as error:
    _ENGINE = f"{__name__}._engine"
    _found = "is not built" if error.name == _ENGINE and error.path is None else f"does not load ({error})"
    raise ImportError(
        f"the C engine {_found}; run `pip install -e .` in the checkout (needs a C compiler)", name=_ENGINE
    ) from error

__all__ = ["available_isas", "ffi", "isa", "kernels", "lib"]

_ISAS = [ffi.string(lib.ulp_isa_name(i)).decode() for i in range(lib.ulp_isa_count())]
_KERNELS = [ffi.string(lib.ulp_kernel_name(i)).decode() for i in range(lib.ulp_kernel_count())]


def available_isas() -> list[str]:
    """Return the instruction sets that this build and this processor have, narrowest first."""
    return [name for i, name in enumerate(_ISAS) if lib.ulp_isa_supported(i)]


def isa() -> str:
    """Return the instruction set in force: that of ULPSIM_ISA, else the widest available.

    Raises:
        ValueError: ULPSIM_ISA names an unknown or unsupported one.
    """
    forced = os.environ.get("ULPSIM_ISA")
    available = available_isas()
    if forced is None:
        return available[-1]
    if forced not in available:
        why = "is not supported here" if forced in _ISAS else "is unknown"
        raise ValueError(f"ULPSIM_ISA={forced!r} {why}; available: {', '.join(available)}")
    return forced


def kernels() -> list[str]:
    """Return the names of the matmul kernels, as listed in src/kernels.def."""
    return list(_KERNELS)


def isa_index(name: str | None = None) -> int:
    """Return the engine's number of an instruction set, by default of the one in force."""
    return _ISAS.index(isa() if name is None else name)


def kernel_index(name: str) -> int:
    """Return the engine's number of a kernel."""
    return _KERNELS.index(name)


from . import block_twins, environment, twins  # noqa: E402,F401  - install the fast twins, which need the names above
