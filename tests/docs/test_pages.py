"""Every page of the documentation is executed; pages.py says how."""

from __future__ import annotations

import pytest

from tests.docs.pages import ROOT, read, run

PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_a_page_does_what_it_shows(path, tmp_path):
    page = read(path)
    if page.blocks or page.commands:
        run(page, tmp_path)


def test_there_are_pages_with_examples():
    assert [path.name for path in PAGES if read(path).blocks]


def test_adding_a_format_is_shown_with_its_output():
    page = read(ROOT / "docs" / "howto" / "add-a-format.md")
    assert len(page.outputs) >= 5
    assert {"levels.csv", "pyproject.toml", "vendor_formats.py"} == set(page.files)


# --- the runner itself ----------------------------------------------------------------------------------------------


def page_of(tmp_path, text):
    (tmp_path / "page.md").write_text(text)
    (tmp_path / "empty").mkdir()
    return read(tmp_path / "page.md"), tmp_path / "empty"


def test_blocks_share_names_and_files_come_first(tmp_path):
    run(*page_of(
        tmp_path,
        "```python\nx = open('a.txt').read()\n```\n\n```python\nprint(x * 2, end='')\n```\n\n"
        "<!-- output -->\n```\na\na\n```\n\n<!-- file: a.txt -->\n```\na\n```\n",
    ))  # fmt: skip


def test_a_wrong_output_is_noticed(tmp_path):
    with pytest.raises(AssertionError, match=r"page\.md:2 prints\n2\nand the page shows\n3"):
        run(*page_of(tmp_path, "```python\nprint(1 + 1)\n```\n\n<!-- output -->\n```\n3\n```\n"))


def test_a_failing_block_is_named_with_its_line(tmp_path):
    with pytest.raises(AssertionError, match=r'File "page\.md:4"'):
        run(*page_of(tmp_path, "text\n\n```python\n1 / 0\n```\n"))


def test_a_command_is_run_and_compared(tmp_path):
    with pytest.raises(AssertionError, match="prints\n7"):
        run(*page_of(tmp_path, "<!-- output: python -c 'print(7)' -->\n```\n8\n```\n"))


def test_commands_are_run_one_after_the_other(tmp_path):
    page, directory = page_of(tmp_path, "<!-- run -->\n```\npython a.py  # once\npython a.py\n```\n\n"
                              "<!-- file: a.py -->\n```python\nopen('a.txt', 'x')\n```\n")  # fmt: skip
    with pytest.raises(AssertionError, match=r"^python a\.py\nTraceback"):
        run(page, directory)
    assert (directory / "a.txt").exists()


def test_what_is_not_to_be_run_is_not(tmp_path):
    page, directory = page_of(tmp_path, "<!-- not run -->\n```python\n1 / 0\n```\n```sh\nfalse\n```\n")
    assert not page.blocks
    run(page, directory)


def test_an_unknown_marker_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"page\.md:3: marker 'outptu' is unknown"):
        page_of(tmp_path, "<!-- outptu -->\n```\n3\n```\n")
