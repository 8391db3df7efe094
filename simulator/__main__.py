"""The command line: arguments to a run. Exit codes: 0 done, 2 bad input, 1 a fault of ours, 3 a check that said no."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from .errors import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def simulate(
    hw: Annotated[str, typer.Option(metavar="FILE", help="Hardware: a YAML file, or the name of a bundled one such as npu.")],
    model: Annotated[str, typer.Option(metavar="mlp|cnn", help="Network.")] = "mlp",
    data: Annotated[str | None, typer.Option(metavar="FILE", help="Samples: .npz with x and y. Default: 1,500 real digits.")] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", help="Run only the first N samples.")] = None,
    out: Annotated[str, typer.Option(metavar="DIR", help="Where the results go; an earlier run there is replaced.")] = "out",
    tolerance: Annotated[float | None, typer.Option(metavar="T", help="Of the two-pass policy: keep scores up to T.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Of every random choice.")] = 0,
    threads: Annotated[int | None, typer.Option(metavar="N", help="At most N threads. Default: all processors.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the run record, and only that, to standard output.")] = False,
) -> None:
    """Run a network on the MAC array of a YAML file: its bits and its bill, per layer.

    The network runs with every inner product exact, in uniform low precision, in uniform high precision and with
    two-pass adaptive accumulation. Results: summary.json, layers.csv and report.html.
    """
    from .report import check_directory, print_run, save, to_json

    check_directory(out)
    from .run import run

    with _progress() as progress:
        result = run(hw, model, data, samples, tolerance, seed, threads, progress)
    where = save(result, out)
    if json:
        sys.stdout.write(to_json(result))
    else:
        print_run(result)
        print(f"\nResults in {out}: {', '.join(sorted(path.name for path in where.iterdir()))}")


@contextmanager
def _progress() -> Iterator:
    """Show a progress bar on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("samples x modes", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except InputError as error:
        print(f"ulpsim: error: {error}", file=sys.stderr)
        sys.exit(2)
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        print(f"ulpsim: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
