"""Every test of the arithmetic of formats runs on the definition and on its fast twin under each instruction set."""

import pytest

import native
from formats import Format

PATHS = ("definition", *native.available_isas())


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """The way a format computes: its slow definition, or the fast twin forced to one instruction set."""
    if request.param == "definition":
        monkeypatch.setattr(Format, "fast_twins", {})
    else:
        monkeypatch.setenv("ULPSIM_ISA", request.param)
    return request.param
