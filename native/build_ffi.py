"""Builds the cffi API-mode module native._engine; setup.py and nothing else runs it.

The environment variable ULPSIM_SANITIZE, such as "address,undefined", builds it with these sanitizers of the compiler
(`make sanitize`), unoptimised: the compiler takes minutes otherwise.
"""

import os
import re
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCES = [str(path.relative_to(HERE.parent)) for path in sorted((HERE / "src").glob("*.c"))]
HEADERS = [
    str(path.relative_to(HERE.parent))
    for path in sorted([*HERE.glob("src/*.h"), *HERE.glob("src/*.def"), *HERE.glob("include/*.h")])
]


def declarations(header: str) -> str:
    """Return a C header without comments and preprocessor lines, as cffi reads it."""
    bare = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    return "\n".join(line for line in bare.splitlines() if line.strip() and not line.startswith("#"))


SANITIZERS = os.environ.get("ULPSIM_SANITIZE", "")
SANITIZED = [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"] if SANITIZERS else []

ffibuilder = FFI()
ffibuilder.cdef(declarations((HERE / "include" / "engine.h").read_text()))
ffibuilder.set_source(
    "native._engine",
    '#include "engine.h"',
    sources=SOURCES,
    depends=HEADERS,
    include_dirs=["native/include"],
    libraries=["m"],
    # Strict C, no contraction of a*b+c and no reassociation: the bits are the product. Not trapping is what lets
    # the compiler turn branches into blends. Instruction sets are chosen per source file and at run time.
    extra_compile_args=[
        "-std=c11",
        "-D_GNU_SOURCE",
        "-O0" if SANITIZERS else "-O3",
        "-fno-trapping-math",
        "-ffp-contract=off",
        "-fwrapv",
        "-pthread",
        *SANITIZED,
    ],
    extra_link_args=[*(["-pthread"] if sys.platform != "darwin" else []), *SANITIZED],
)
