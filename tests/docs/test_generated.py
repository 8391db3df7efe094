"""What commands generate in the documentation is what they print now."""

from tests.docs import generated


def test_generated_tables_and_pages_have_not_drifted():
    drifted = [str(path.relative_to(generated.ROOT)) for path, text in generated.contents().items()
               if not path.exists() or path.read_text(encoding="utf-8") != text]  # fmt: skip
    assert not drifted, f"{', '.join(drifted)}: out of date; run `python -m tests.docs.generated`"


def test_the_table_of_the_readme_lists_every_named_format():
    from formats.block_names import BLOCKS
    from formats.catalogue import FLOATS

    table = generated.TABLE.search(generated.README.read_text(encoding="utf-8"))[0]
    for fmt in (*FLOATS, *BLOCKS):
        assert f"| `{fmt.name}` | " in table


def test_a_drifted_table_is_replaced_and_nothing_else():
    old = "before\n<!-- formats: python -c 'print(\"| a |\")' -->\n| x |\n| y |\n\nafter | all\n"
    new = generated.TABLE.sub(lambda found: found[1] + generated.printed(found["command"]), old)
    assert new == old.replace("| x |\n| y |\n", "| a |\n")
