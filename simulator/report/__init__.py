"""Reports of a run: a terminal table, strict JSON, CSV and one self-contained HTML file, all made from RunResult."""

from simulator.report.bill import layer_bill
from simulator.report.console import print_view, standard_output, to_a_reader
from simulator.report.files import check_directory, layers_frame, save, to_json
from simulator.report.html import render
from simulator.report.terminal import print_run

__all__ = ["check_directory", "layer_bill", "layers_frame", "print_run", "print_view", "render", "save",
           "standard_output", "to_a_reader", "to_json"]  # fmt: skip
