"""The operators of ONNX that have a meaning in torch: one small function each, registered by name and version.

Every module of this folder registers its own when it is loaded, which loading the folder does.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
