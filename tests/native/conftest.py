import pytest

import native


@pytest.fixture(params=native.available_isas())
def isa(request, monkeypatch):
    """Every instruction set that this build and this processor have, forced by the variable."""
    monkeypatch.setenv("ULPSIM_ISA", request.param)
    return request.param
