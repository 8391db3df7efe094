"""What all tests share: the ways in which a format computes, and the option that names formats for the contracts."""

import pytest

import native
from formats import Format

DEFINITION = "definition"
PATHS = (DEFINITION, *native.available_isas())


def pytest_addoption(parser):
    parser.addoption(
        "--format",
        action="append",
        metavar="NAME",
        help="run tests/contracts over this format only, which formats.get finds; may be repeated. A module given with "
        "-p, such as one that calls formats.register, is imported before",
    )


def has_twins(fmt):
    """Whether the fast twins that `native` installed know the family of a format."""
    return fmt.twin("quantize") is not None


def force(path, monkeypatch):
    """Make formats compute by one of PATHS: the slow definition, or the twins forced to one instruction set."""
    if path == DEFINITION:
        monkeypatch.setattr(Format, "fast_twins", {})
    else:
        monkeypatch.setenv("ULPSIM_ISA", path)
    return path


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """The way a format computes, one of PATHS: a test that takes it runs on all of them."""
    return force(request.param, monkeypatch)
