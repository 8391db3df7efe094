"""universal-dtypes, the Python binding of Stillwater's Universal: there are no wheels for Python from 3.13 on."""

import importlib
import sys

import numpy as np
import pytest


def universal_dtype(name: str) -> np.dtype:
    """Return a dtype of universal-dtypes; skip the test where there cannot be one, fail where one is missing."""
    if sys.version_info >= (3, 13):
        pytest.importorskip("universal_dtypes")
    return np.dtype(getattr(importlib.import_module("universal_dtypes"), name))
