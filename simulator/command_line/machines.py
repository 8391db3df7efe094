"""Machines: what one costs, what is in effect on it, two of them or of runs side by side: estimate, show, compare."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from simulator.errors import InputError

from .interruption import interruptible
from .options import (
    ITEMS_IN_JSON,
    AllowCode,
    Data,
    Fidelity,
    JsonRecord,
    JsonRecords,
    Model,
    Quiet,
    Samples,
    Seed,
    Threads,
    Weights,
)
from .progress import prints_aside, progress_bar, shown


def estimate_cost(
    hw: Annotated[
        str | None, typer.Option(metavar="FILE", help="Hardware: a YAML file, or the name of a bundled one.")
    ] = None,
    gemm: Annotated[
        tuple[int, int, int] | None, typer.Option(metavar="M N K", help="The product O[M x N] = A[M x K] W[K x N].")
    ] = None,
    flagged: Annotated[
        float | None, typer.Option(metavar="F", help="Share of the outputs that a second pass computes. Default: 0.")
    ] = None,
    zeros: Annotated[
        float | None,
        typer.Option(metavar="Z", help="Share of the MACs with a zero operand, on a machine with zero gating."),
    ] = None,
    explain_cost: Annotated[
        bool, typer.Option("--explain-cost", help="Print every cycle and joule with formula and source.")
    ] = False,
    scalesim_cfg: Annotated[
        str | None, typer.Option("--scalesim-cfg", metavar="FILE", help="In place of --hw: SCALE-Sim's configuration.")
    ] = None,
    topology: Annotated[
        str | None, typer.Option(metavar="FILE", help="In place of --gemm: SCALE-Sim's topology, one layer a line.")
    ] = None,
    kind: Annotated[
        Literal["gemm", "conv"], typer.Option("--input", help="What the lines of the topology are.")
    ] = "gemm",
    fidelity: Fidelity = "analytic",
    trace: Annotated[
        str | None,
        typer.Option(metavar="FILE.json", help="Where the events go, with --fidelity event: for ui.perfetto.dev."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where SCALE-Sim's report files go, beside --scalesim-cfg.")
    ] = None,
    json: JsonRecords = False,
    quiet: Quiet = False,
) -> None:
    """Estimate cycles and energy without values: of a product or of layers on a machine, or as SCALE-Sim counts."""
    from simulator.commands import estimate, scalesim

    with shown(json, quiet):
        if scalesim_cfg is not None:
            own = {
                "--hw": hw, "--gemm": gemm, "--flagged": flagged, "--zeros": zeros, "--trace": trace,
                "--explain-cost": explain_cost or None, "--fidelity": None if fidelity == "analytic" else fidelity,
            }  # fmt: skip
            for option, value in own.items():
                if value is not None:
                    raise InputError(
                        f"estimate: got {option} beside --scalesim-cfg; expected --topology, --input, --out and --json "
                        f"only; leave {option} out"
                    )
            if topology is None:
                raise InputError("estimate: got --scalesim-cfg without --topology; expected both; give the topology")
            scalesim.like_scalesim(scalesim_cfg, topology, kind, json, out)
            return
        if out is not None:
            raise InputError("estimate: got --out without --scalesim-cfg; expected both or none; leave --out out")
        if json and explain_cost:
            raise InputError(ITEMS_IN_JSON)
        if hw is None:
            raise InputError(
                "estimate: got no machine; expected a file or a bundled name; give e.g. --hw npu, or SCALE-Sim's "
                "--scalesim-cfg"
            )
        if (gemm is None) == (topology is None):
            got = "neither --gemm nor" if gemm is None else "both --gemm and"
            raise InputError(f"estimate: got {got} --topology; expected one of the two; give e.g. --gemm 64 64 64")
        if gemm is not None:
            if kind != "gemm":
                raise InputError("estimate: got --input conv with --gemm; expected --topology; leave --input out")
            estimate.of_product(hw, gemm, flagged, zeros, explain_cost, json, fidelity, trace)
        elif topology is not None:
            if trace is not None:
                raise InputError("estimate: got --trace with --topology; expected --gemm; give one product")
            estimate.of_topology(hw, topology, kind, flagged, zeros, explain_cost, json, fidelity)


def show_machine(
    hw: Annotated[
        str | None, typer.Argument(metavar="FILE|NAME", help="A machine file, or the name of a bundled machine.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of machine files instead, for editors.")
    ] = False,
    json: JsonRecords = False,
    quiet: Quiet = False,
) -> None:
    """Show a machine file with every value in effect, and whether it is written, derived, default or of a table."""
    from simulator.commands import show

    with shown(json, quiet):
        show.run(hw, schema, json)


def compare_machines(
    context: typer.Context,
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="A machine file, the name of a bundled machine, or a directory with a run."),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same kind.")],
    model: Model = "mlp",
    weights: Weights = None,
    allow_code: AllowCode = False,
    data: Data = None,
    samples: Samples = None,
    seed: Seed = 0,
    threads: Threads = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE.html", help="Write the page that report makes of two runs, too.")
    ] = None,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Show the bits, bills and keys of two machines side by side, on the same samples of a network; or of two runs."""
    from simulator.commands import compare
    from simulator.hardware import load_hardware
    from simulator.report import check_writable

    if out is not None:
        check_writable(out, ".html")
    if (saved := compare.of_runs(a, b)) is not None:
        _refuse_options_of_runs(context)
        if out is not None:
            compare.write_page_of(saved, out)
        with shown(json, quiet):
            compare.run_saved(saved, json, out)
        return
    from simulator import network  # noqa: F401  (says what to install where torch is missing)
    from simulator.run import run

    machines = load_hardware(a), load_hardware(b)
    results = []
    with interruptible("nothing was written"):
        for machine in machines:
            with prints_aside(json, quiet), progress_bar(quiet=quiet) as progress:
                results.append(
                    run(
                        machine, model, data, samples, None, seed, threads, progress, weights=weights,
                        allow_code=allow_code,
                    )
                )  # fmt: skip
    if out is not None:
        compare.write_page(out, machines, (results[0], results[1]))
    with shown(json, quiet):
        compare.run(machines, (results[0], results[1]), json, out)


def _refuse_options_of_runs(context: typer.Context) -> None:
    """Refuse the options that say how machines run, beside runs that are done."""
    for parameter in context.command.params:
        given = getattr(context.get_parameter_source(str(parameter.name)), "name", "") == "COMMANDLINE"
        if given and parameter.name not in ("a", "b", "out", "json", "quiet"):
            raise InputError(
                f"compare: got {parameter.opts[0]} beside two runs, which are done; expected it beside machines; leave "
                "it out"
            )
