"""Reports of runs: a terminal table, strict JSON, CSV and self-contained HTML pages, all made from RunResult.

run = simulator.report.read_run("out")
page = simulator.report.render(run)
page = simulator.report.render_runs({"small": run, "large": other})
"""

from simulator.report.bill import layer_bill
from simulator.report.console import print_view, standard_output, to_a_reader
from simulator.report.directories import check_writable, write_file
from simulator.report.files import check_directory, layer_rows, layers_frame, save, to_json
from simulator.report.front import render_front
from simulator.report.html import render
from simulator.report.saved import holds_run, read_run, read_runs
from simulator.report.several import render_runs
from simulator.report.terminal import print_run

__all__ = ["check_directory", "check_writable", "holds_run", "layer_bill", "layer_rows", "layers_frame", "print_run",
           "print_view", "read_run", "read_runs", "render", "render_front", "render_runs", "save", "standard_output",
           "to_a_reader", "to_json", "write_file"]  # fmt: skip
