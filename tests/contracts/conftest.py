"""The contract of formats, over everything that is registered.

`python -m pytest tests/contracts` takes all of formats.available(), so whatever comes through the entry-point group
"ulpsim.formats", and representatives of the families. For a format of one's own that no entry point brings,

    python -m pytest tests/contracts -p mymodule --format mine8

imports mymodule, which calls formats.register("mine8", ...), and runs the contract over mine8 alone.
"""

import pytest

from tests.conftest import PATHS, force, has_twins
from tests.contracts.representatives import subjects

# Parameter of a test -> whether it takes formats with blocks.
PARAMETERS = {"fmt": False, "block_format": True}


def pytest_generate_tests(metafunc):
    for parameter, has_blocks in PARAMETERS.items():
        if parameter in metafunc.fixturenames:
            chosen = [f for f in subjects(metafunc.config.getoption("--format")) if f.has_blocks == has_blocks]
            if "path" not in metafunc.fixturenames:
                metafunc.parametrize(parameter, chosen, ids=str)
            else:
                pairs = [(fmt, path) for fmt in chosen for path in paths_of(fmt)]
                metafunc.parametrize((parameter, "path"), pairs, indirect=["path"], ids=lambda value: str(value))


def paths_of(fmt):
    """Return the definition and every instruction set; the widest alone where there is no twin to differ there."""
    return PATHS if fmt.has_blocks or has_twins(fmt) else (PATHS[0], PATHS[-1])


@pytest.fixture
def path(request, monkeypatch):
    """The way a format computes, one of paths_of(fmt)."""
    return force(request.param, monkeypatch)
