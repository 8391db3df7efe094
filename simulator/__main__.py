"""The command line: the list of its commands; the codes that it exits with are in `command_line.exit_codes`."""

from __future__ import annotations

import errno
import sys
from typing import NoReturn

import typer

from .command_line import bounds, doctor, formats, job, machines, report, studies, sweeps, tracking, training
from .command_line.examples import epilog
from .command_line.exit_codes import BAD_INPUT, DONE, INTERRUPTED
from .command_line.usage import UsageError, is_help, refusal
from .errors import InputError

# What usage names, and what shells complete, which know programs but no modules of Python.
PROGRAM = "ulpsim"

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
app.callback(invoke_without_command=True, epilog=epilog())(job.simulate)

# Help lists them in this order, and groups behind them.
app.command("formats", epilog=epilog("formats"))(formats.show_formats)
app.command("explain", epilog=epilog("explain"))(formats.explain_spec)
app.command("estimate", epilog=epilog("estimate"))(machines.estimate_cost)
app.command("show", epilog=epilog("show"))(machines.show_machine)
app.command("compare", epilog=epilog("compare"))(machines.compare_machines)
app.command("sweep", epilog=epilog("sweep"))(sweeps.run_sweep)
app.command("search", epilog=epilog("search"))(sweeps.run_search)
app.command("plan", epilog=epilog("plan"))(studies.make_plan)
app.command("runs", epilog=epilog("runs"))(sweeps.show_runs)
app.command("report", epilog=epilog("report"))(report.make_report)
app.command("train", epilog=epilog("train"))(training.train_network)
app.command("doctor", epilog=epilog("doctor"))(doctor.examine_installation)

proofs = typer.Typer(rich_markup_mode=None)
proofs.callback(invoke_without_command=True, epilog=epilog("bounds"))(bounds.prove_bounds)
proofs.command("check", epilog=epilog("bounds check"))(bounds.check_certificate)
app.add_typer(proofs, name="bounds")

tracked = typer.Typer(rich_markup_mode=None)
tracked.callback(invoke_without_command=True, epilog=epilog("track"))(tracking.track_network)
tracked.command("compare", epilog=epilog("track compare"))(tracking.compare_runs)
app.add_typer(tracked, name="track")

study = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
study.command("two-pass", epilog=epilog("study two-pass"))(studies.study_two_pass)
study.command("truncation", epilog=epilog("study truncation"))(studies.study_truncation)
study.command("points", epilog=epilog("study points"))(studies.study_points)
study.command("laws", epilog=epilog("study laws"))(studies.study_laws)
app.add_typer(study, name="study", help="Run a study: many runs that answer one question, with controls.")


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        sys.exit(app(prog_name=PROGRAM, standalone_mode=False) or DONE)  # a code of what ends early, or None
    except UsageError as error:
        if is_help(error):
            error.show()
            sys.exit(BAD_INPUT)
        _refuse(refusal(error))
    except InputError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # which any look at a path may find, and which only a user's can be
            raise
        _refuse(f"{error.filename}: the name is too long; expected one that the file system can hold; shorten it")
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)


def _refuse(message: str) -> NoReturn:
    print(f"ulpsim: error: {_printable(message)}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _printable(text: str) -> str:
    """Write out control characters, which names in a file may hold, lest it command the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


if __name__ == "__main__":
    main()
