"""What tests of the command line share."""

import sys

import pytest

import simulator.__main__ as command_line


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Call the command line in an empty directory: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ulpsim", *map(str, arguments)])
        code = 0
        try:
            command_line.main()
        except SystemExit as exit:
            code = exit.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
