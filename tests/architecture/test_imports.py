"""Who may import whom. The house is read from its source, so that an import inside a function counts too."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("formats", "native", "simulator", "hwconfigs")


class Room(NamedTuple):
    """What a part of the house may import besides itself and the standard library."""

    house: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


TOP = ("simulator.errors", "simulator.notebook", "simulator.progress", "simulator.result", "simulator.versions")

# The longest matching prefix of a module's name is its room.
ROOMS = {
    "formats": Room(libraries=("numpy",)),
    "formats.notebook": Room(libraries=("pandas",)),
    "formats.qtorch.extension": Room(("formats",), ("numpy", "torch")),  # loaded only when one of its formats is used
    "native": Room(("formats",), ("numpy", "cffi")),
    "hwconfigs": Room(),
    "simulator.arithmetic": Room(("formats", "native"), ("numpy",)),
    "simulator.errors": Room(),
    "simulator.notebook": Room(("formats.notebook", "simulator.report")),
    "simulator.progress": Room(),
    "simulator.result": Room(  # to show and save itself
        ("simulator.errors", "simulator.notebook", "simulator.report"), ("numpy", "pandas")
    ),
    "simulator.versions": Room(("native",)),
    "simulator.hardware": Room(("formats", "simulator.arithmetic", *TOP), ("yaml", "pydantic", "pydantic_core")),
    "simulator.cost": Room(("formats", "simulator.arithmetic", "simulator.hardware", *TOP), ("numpy",)),
    "simulator.report": Room(
        ("formats.notebook", "simulator.hardware.quantities", *TOP),  # which values of two machines are the same
        ("numpy", "pandas", "rich", "jinja2", "markupsafe", "plotly"),
    ),
    "simulator.network": Room(
        ("formats", "simulator.arithmetic", "simulator.hardware", "simulator.cost", *TOP),
        ("numpy", "torch", "safetensors", "onnx", "typer", "keras", "h5py", "PIL"),
    ),
    "simulator.commands": Room(
        (
            "formats",
            "native",
            "simulator.arithmetic",
            "simulator.bounds",
            "simulator.cost",
            "simulator.explore",
            "simulator.hardware",
            "simulator.report",
            "simulator.studies",
            "simulator.tracking",
            "simulator.training",
            *TOP,
        ),
        ("rich", "packaging"),
    ),
    "simulator.explore": Room(
        (
            "formats",
            "simulator.arithmetic",
            "simulator.hardware",
            "simulator.cost",
            "simulator.network",
            "simulator.report",
            *TOP,
        ),
        ("numpy", "pandas", "dask", "distributed", "optuna"),
    ),
    "simulator.training": Room(
        (
            "formats",
            "native",
            "simulator.arithmetic",
            "simulator.hardware",
            "simulator.network",
            "simulator.report",  # for files to be written whole, and reports to show themselves
            *TOP,
        ),
        ("numpy", "torch"),
    ),
    "simulator.tracking": Room(
        (
            "formats",
            "native",
            "simulator.arithmetic",
            "simulator.hardware",
            "simulator.network",
            "simulator.report",  # for reports to show and save themselves
            *TOP,
        ),
        ("numpy", "torch", "pandas"),
    ),
    "simulator.bounds": Room(
        ("formats", "simulator.arithmetic", "simulator.hardware", "simulator.network", "simulator.report", *TOP),
        ("numpy", "torch"),
    ),
    "simulator.bounds.check": Room(("simulator.errors",), ("numpy", "flint")),  # shares no code with what it checks
    "simulator.studies": Room(
        (
            "simulator.explore",
            "simulator.hardware",
            "simulator.network",
            "simulator.report",
            "simulator.training",
            *TOP,
        )
    ),
    "simulator.run": Room(
        ("formats", "simulator.arithmetic", "simulator.hardware", "simulator.cost", "simulator.network", *TOP),
        ("numpy", "torch"),
    ),
    "simulator.command_line": Room(
        (
            "simulator.commands",
            "simulator.explore",
            "simulator.hardware",
            "simulator.network",
            "simulator.report",
            "simulator.run",
            "simulator.studies",
            "simulator.training",
            *TOP,
        ),
        ("typer", "rich"),
    ),
    "simulator.__main__": Room(("simulator.command_line", *TOP), ("typer",)),
    "simulator": Room(("simulator",)),  # the front door: names only, the heavy ones on demand
}


def modules():
    """Yield (module name, path) of every Python file of the packages."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


PROVIDER = "formats.qtorch.extension"  # the one file of the lower rooms that may import torch
ALL = list(modules())
KNOWN = {name for name, _ in ALL}


def imports(name, path):
    """Yield (line, imported module); `from package import name` counts as package.name if that is a module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            submodules = [f"{base}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, one if one in KNOWN else base) for one in submodules)


def within(module, prefixes):
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def room_of(name):
    return max((room for room in ROOMS if within(name, (room,))), key=len)


def allowed(name, imported):
    room = room_of(name)
    if room == "simulator":
        # Not everything below `simulator` is the front door: only its own module is.
        front_door = name == "simulator" and within(imported, ("simulator",))
        return front_door or imported.split(".")[0] in sys.stdlib_module_names
    if within(imported, (room, *ROOMS[room].house)):
        return True
    top = imported.split(".")[0]
    return top in sys.stdlib_module_names or top in ROOMS[room].libraries


@pytest.mark.parametrize(("name", "path"), ALL, ids=[name for name, _ in ALL])
def test_a_module_imports_only_what_its_room_may(name, path):
    wrong = [f"{path.relative_to(ROOT)}:{line}: {room_of(name)} may not import {imported}"
             for line, imported in imports(name, path) if not allowed(name, imported)]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_every_part_of_the_simulator_has_a_room_of_its_own():
    parts = {name.split(".")[1] for name, _ in ALL if name.count(".") and name.startswith("simulator.")}
    missing = sorted(part for part in parts if f"simulator.{part}" not in ROOMS)
    assert not missing, f"say in ROOMS what {missing} may import"


@pytest.mark.parametrize("library", ["torch", "onnx", "keras"])
def test_frameworks_are_imported_in_rooms_of_networks_only(library):
    """And, of torch, in the provider that only its own formats load; test_qtorch.py shows that nothing else does."""
    where = {name for name, path in ALL for _, imported in imports(name, path) if imported.split(".")[0] == library}
    rooms = {f"simulator.{room}" for room in ("network", "bounds", "tracking", "training", "run")} | {PROVIDER}
    assert {room_of(name) for name in where} <= rooms


def test_hardware_and_cost_never_reach_networks():
    for name, path in ALL:
        lower = ("simulator.hardware", "simulator.cost", "simulator.arithmetic", "formats", "native")
        if name != PROVIDER and within(name, lower):
            reached = [m for _, m in imports(name, path) if within(m, ("torch", "simulator.network", "simulator.run"))]
            assert not reached, f"{name}: {reached}"


def test_the_checker_of_certificates_shares_no_code_with_what_makes_them():
    ours = ("simulator", "formats", "native", "hwconfigs", "torch")
    reached = {m for name, path in ALL if within(name, ("simulator.bounds.check",)) for _, m in imports(name, path)}
    own = {m for m in reached if within(m, ours) and not within(m, ("simulator.bounds.check",))}
    assert own == {"simulator.errors"} and "flint" in reached
    users = {name for name, path in ALL for _, m in imports(name, path) if within(m, ("flint",))}
    assert {room_of(name) for name in users} == {"simulator.bounds.check"}


def test_nothing_imports_the_tests():
    for name, path in ALL:
        assert not [m for _, m in imports(name, path) if within(m, ("tests", "pytest", "hypothesis"))], name


def test_the_rules_see_relative_absolute_and_nested_imports(tmp_path):
    """The scanner itself: what it must notice in a file that breaks every rule."""
    path = tmp_path / "breaker.py"
    path.write_text(
        "from . import spec\nfrom .engine import add\nfrom .. import report\nfrom ..cost.price import price\n"
        "import native.matmul\nimport torch.nn as nn\n"
        "def f():\n    from simulator import network\n    import pydantic\n"
    )
    name = "simulator.arithmetic.breaker"
    found = {imported for _, imported in imports(name, path)}
    assert {one for one in found if allowed(name, one)} == {
        "native.matmul", "simulator.arithmetic.engine", "simulator.arithmetic.spec",
    }  # fmt: skip
    assert {one for one in found if not allowed(name, one)} == {
        "simulator.report", "simulator.cost.price", "simulator.network", "torch.nn", "pydantic",
    }  # fmt: skip


def loaded(statement):
    """Return the modules that a fresh interpreter holds after a statement."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


HEAVY = ("torch", "pydantic", "pandas", "plotly", "jinja2", "rich", "typer", "yaml", "onnx", "keras")


@pytest.mark.parametrize("statement", ["import formats", "import simulator"])
def test_the_front_doors_load_nothing_heavy(statement):
    names = loaded(statement)
    assert not [library for library in HEAVY if library in names]


def test_formats_does_not_load_the_engine():
    names = loaded("import formats\nformats.get('fp8_e4m3').quantize([1.0])")
    assert not [name for name in names if within(name, ("native", "simulator", "cffi"))]


def test_the_engine_loads_no_simulator():
    assert not [name for name in loaded("import native") if within(name, ("simulator", "torch"))]


def test_estimating_cost_loads_no_framework():
    names = loaded("import simulator\nsimulator.estimate, simulator.load_hardware")
    assert not [name for name in names if within(name, ("torch", "simulator.network", "simulator.run"))]


def test_the_command_line_loads_no_work_before_a_command():
    names = loaded("import simulator.__main__")
    assert not [library for library in HEAVY if library in names and library not in ("typer", "rich")]
    light = ("simulator.__main__", "simulator.command_line", "simulator.errors", "simulator.arithmetic")
    assert not [name for name in names if name.startswith("simulator.") and not within(name, light)]
