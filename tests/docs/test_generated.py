"""What commands generate in the documentation is what they print now."""

import inspect
import re
from dataclasses import fields

import pytest

from simulator.result import (
    AreaItem,
    Conditions,
    CycleItem,
    EnergyItem,
    GatherResult,
    LayerResult,
    OperationResult,
    RunResult,
    Setting,
)
from tests.docs import generated, library_page, results_table


def test_generated_tables_and_pages_have_not_drifted():
    drifted = [str(path.relative_to(generated.ROOT)) for path, text in generated.contents().items()
               if not path.exists() or path.read_text(encoding="utf-8") != text]  # fmt: skip
    assert not drifted, f"{', '.join(drifted)}: out of date; run `python -m tests.docs.generated`"


def test_the_page_of_formats_lists_all_that_have_a_name_and_the_readme_the_same_rows_of_some():
    from formats.block_names import BLOCKS
    from formats.catalogue import FLOATS

    page = (generated.ROOT / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    named = page[page.index("## Named formats") : page.index("## Special codes")].splitlines()
    rows = [line for line in named if line.startswith("|")]
    assert [row.split("`")[1] for row in rows[2:]] == [fmt.name for fmt in (*FLOATS, *BLOCKS)]
    readme = generated.TABLE.search(generated.README.read_text(encoding="utf-8"))[0].splitlines()[1:]
    assert len(readme) > 5 and set(readme) < set(rows)


@pytest.mark.parametrize("room", library_page.ROOMS)
def test_every_public_name_says_what_it_is(room):
    exported = library_page.exported(room)
    assert exported and not [name for name, x in exported.items() if callable(x) and not inspect.getdoc(x)]


def test_what_users_call_first_is_on_top_of_its_page():
    simulator, formats, bounds = (
        list(library_page.exported(room)) for room in ("simulator", "formats", "simulator.bounds")
    )
    assert simulator[:3] == ["mac", "matmul", "explain"] and formats[:4] == ["get", "available", "register", "Format"]
    assert (
        simulator.index("track") < simulator.index("convolution") < simulator.index("dot") < simulator.index("Aligned")
    )
    assert bounds == ["certify", "required_precision", "METHODS", "Certified", "RequiredPrecision"]


def test_the_site_reads_arguments_that_share_a_line(tmp_path):
    griffe = pytest.importorskip("griffe")
    from tests.docs.one_argument_a_line import OneArgumentALine

    text = "Add.\n\n    Args:\n        a, b: first. Note: both. c: last. d: none.\n    "
    (tmp_path / "shown.py").write_text(f'def f(a, b, c):\n    """{text}"""\n')
    module = griffe.load("shown", search_paths=[tmp_path], extensions=griffe.Extensions(OneArgumentALine()))
    assert module["f"].docstring.value == "Add.\n\nArgs:\n    a, b: first. Note: both.\n    c: last. d: none."


def test_a_drifted_table_is_replaced_and_nothing_else():
    old = "before\n<!-- formats: python -c 'print(\"| a |\")' -->\n| x |\n| y |\n\nafter | all\n"
    new = generated.TABLE.sub(lambda found: found[1] + generated.printed(found["command"]), old)
    assert new == old.replace("| x |\n| y |\n", "| a |\n")


RECORDS = [RunResult, LayerResult, GatherResult, OperationResult, EnergyItem, CycleItem, AreaItem, Setting, Conditions]


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_of_a_record_is_described_once(record):
    names = [name for several in results_table.described(record) for name in several.split(", ")]
    assert sorted(names) == sorted(field.name for field in fields(record))


def test_the_page_of_results_names_all_parts_metrics_and_totals():
    pytest.importorskip("torch")
    from simulator.cost.area import AREA_PARTS
    from simulator.cost.energy import ENERGY_PARTS
    from simulator.network.metrics import NAMES
    from simulator.run import run

    page = generated.RESULTS.read_text(encoding="utf-8")
    record = run("npu", samples=2)
    cycles = {name for layer in record.layers for name in layer.cycle_parts}
    totals = {name for total in record.totals.values() for name in total}
    assert [
        name
        for name in (*ENERGY_PARTS, *AREA_PARTS, *NAMES, *cycles, *totals, *record.metrics["mse"])
        if f"`{name}`" not in page
    ] == []


def test_the_first_page_lists_all_pages_in_the_sections_of_the_navigation():
    def parts(name, heading):
        text = (generated.ROOT / name).read_text(encoding="utf-8").partition("plugins:\n")[0]
        headings_and_texts = re.split(heading, text, flags=re.M)[1:]
        return dict(zip(headings_and_texts[::2], headings_and_texts[1::2], strict=True))

    listed = parts("docs/index.md", r"^## (.+)$")
    pages = {title: re.findall(r": (\S+\.md)$", part, re.M) for title, part in
             parts("mkdocs.yml", r'^  - "?(.+?)"?:$').items()}  # fmt: skip
    assert list(pages) == list(listed) and len(pages) > 5
    assert [page for title in pages for page in pages[title] if f"({page})" not in listed[title]] == []
