"""The main job: a network on a machine, its bits and its bill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from simulator.errors import InputError

from .exit_codes import INTERRUPTED
from .interruption import interruptible
from .options import ITEMS_IN_JSON, NETWORK, AllowCode, Fidelity, JsonRecord, Quiet, Samples, Seed, Threads
from .progress import prints_aside, progress_bar, shown


def _show_version(json: bool) -> None:
    """Print the version, and that of the numerics, by which results are told from those of other bits or prices."""
    from simulator.versions import NUMERICS, version_of

    with shown(json):
        if json:
            from simulator.commands.records import print_record

            print_record({"ulpsim": version_of("ulpsim"), "numerics": NUMERICS})
        else:
            print(f"ulpsim {version_of('ulpsim')}, numerics {NUMERICS}")


def simulate(
    context: typer.Context,
    hw: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Hardware: a YAML file, or the name of a bundled one such as npu. Needed without a command.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar=NETWORK,
            help="Network: a bundled one, a torch or Keras one that Python can import, or an .onnx, .keras, .pt2 or "
            ".pt file.",
        ),
    ] = "mlp",
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights for it: a state dict, .pt, .pth or .safetensors.")
    ] = None,
    allow_code: AllowCode = False,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Samples: .npz with x and y, or a directory of images. Default, for bundled networks: 1,500 real "
            "digits.",
        ),
    ] = None,
    samples: Samples = None,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where the results go; an earlier run there is replaced.")
    ] = "out",
    tolerance: Annotated[
        float | None, typer.Option(metavar="T", help="Of the two-pass policy: keep scores up to T.")
    ] = None,
    seed: Seed = 0,
    threads: Threads = None,
    fidelity: Fidelity = "analytic",
    explain_cost: Annotated[
        str | None,
        typer.Option(
            "--explain-cost",
            metavar="LAYER",
            help="After the tables, print each cycle and joule of this layer with formula and source.",
        ),
    ] = None,
    export: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write every layer in every mode as .csv or .parquet, too.")
    ] = None,
    json: JsonRecord = False,
    quiet: Quiet = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the versions of ulpsim and of its numerics."),
    ] = False,
) -> None:
    """Run a network on the MAC array of a YAML file: its bits and its bill, per layer.

    The network runs with every inner product exact, in uniform low precision, in uniform high precision and with
    two-pass adaptive accumulation. Results: summary.json, layers.csv and report.html. Ctrl-C keeps those of the batches
    done so far, once there is one; again, or before, it stops at once and writes nothing.
    """
    if version:
        _show_version(json)
        raise typer.Exit
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    if hw is None:
        raise InputError(
            "--hw: missing; expected a YAML file or the name of a bundled machine to run on; give one, as in "
            "`python -m simulator --hw npu`, or a command, as in `python -m simulator formats`"
        )
    from simulator.report import check_directory, layer_bill, print_run, save, to_json
    from simulator.report.figures import printable

    if json and explain_cost is not None:
        raise InputError(ITEMS_IN_JSON)
    check_directory(out)
    if export is not None:
        from simulator.report.tables import check_table

        check_table(export, "--export")
    with interruptible("no results were written"):
        from simulator import network  # noqa: F401  (says what to install where torch is missing)
        from simulator.run import run

        with prints_aside(json, quiet), progress_bar(quiet=quiet) as progress:
            result = run(
                hw, model, data, samples, tolerance, seed, threads, progress, keep_partial=True, weights=weights,
                allow_code=allow_code, fidelity=fidelity,
            )  # fmt: skip
        # A layer that is not there is refused before earlier results are replaced.
        explained = "" if explain_cost is None else f"\n{layer_bill(result, explain_cost)}"
        where = save(result, out)
        if export is not None:
            from simulator.commands.report import export_layers

            export_layers({Path(out).name: result}, export)
    with shown(json, quiet):
        if json:
            sys.stdout.write(to_json(result))
        else:
            print_run(result)
            print(f"\nResults in {out}: {', '.join(sorted(path.name for path in where.iterdir()))}")
            if export is not None:
                print(f"Table in {printable(export)}")
            print(explained, end="")
    if not result.complete:
        raise typer.Exit(INTERRUPTED)


def _refuse_options(context: typer.Context) -> None:
    """Refuse options of the main job before a command, which would go unheard."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        option = given[0].replace("_", "-")
        raise InputError(
            f"--{option}: got it before the command {context.invoked_subcommand}; expected it with the main job, whose "
            "option it is; leave it out, or give what the command takes after it"
        )
