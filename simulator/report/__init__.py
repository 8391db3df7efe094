"""Reports of a run: a terminal table, strict JSON, CSV and one self-contained HTML file, all made from RunResult."""

from simulator.report.files import check_directory, layers_frame, save, to_json
from simulator.report.html import render
from simulator.report.terminal import print_run

__all__ = ["check_directory", "layers_frame", "print_run", "render", "save", "to_json"]
