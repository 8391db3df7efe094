"""The page docs/reference/command-line.md: `python -m tests.docs.command_page` prints it, from the commands."""

from __future__ import annotations

from typing import Any

from simulator.command_line.examples import EXAMPLES
from simulator.command_line.exit_codes import MEANINGS
from tests.command_tree import COMMANDS, MAIN_JOB, arguments, options

HEAD = """# The command line

`python -m simulator`, or `ulpsim` where it is installed. Without a command it runs the main job.
`ulpsim --install-completion` teaches the shell from which it is called, such as bash or zsh, the commands and options
of `ulpsim` (not of `python -m simulator`); the next shell has them, if `ulpsim` is on its path. In zsh the first Tab of
a shell only loads them, and the second one completes. Colours are for terminals, and `NO_COLOR` takes them away; with
`--json` a command prints its record and nothing else, with `--quiet` nothing but errors. Messages go to standard error.
After bad input nothing is on standard output, with `--json` or without, and nothing is written.

## Exit codes
"""


def page() -> str:
    """Return the page."""
    codes = [f"| {code} | {meaning} |" for code, meaning in MEANINGS.items()]
    sections = [_section(name, command) for name, command in COMMANDS.items()]
    return "\n".join([HEAD, "| code | meaning |", "|---|---|", *codes, "", "\n\n".join(sections)])


def _section(name: str, command: Any) -> str:
    usage = " ".join([name, *(_metavar(one) for one in arguments(name))]).strip()
    lines = [f"## {name or 'The main job'}", "", f"`python -m simulator {usage}`".replace(" `", "`"), ""]
    lines += [_sentence(command.help), ""]
    rows = [f"| `{_metavar(one)}` | {_told(one)} |" for one in arguments(name)]
    rows += [f"| `{_option(one)}` | {_told(one)} |" for one in options(name).values()]
    examples = [f"python -m simulator {one}".rstrip() for one in EXAMPLES[name or MAIN_JOB]]
    return "\n".join([*lines, "| | |", "|---|---|", *rows, "", "```", *examples, "```"])


def _option(one: Any) -> str:
    names = " ".join([*one.opts, *(f"/ {other}" for other in one.secondary_opts)])
    return names if one.is_flag else f"{names} {_metavar(one)}"


def _metavar(one: Any) -> str:
    return str(one.metavar or one.display_type(None)).replace("|", r"\|")


def _told(one: Any) -> str:
    default = "" if one.default in (None, False, ()) or "efault" in (one.help or "") else f" Default: `{one.default}`."
    return _sentence(one.help or "") + default


def _sentence(text: str) -> str:
    """Return a text of help on one line, as a cell takes it."""
    return " ".join(text.replace("|", r"\|").split())


if __name__ == "__main__":
    print(page())
