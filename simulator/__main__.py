"""The command line: arguments to a run.

Exit codes: 0 done, 2 bad input, 1 a fault of ours, 3 a check that said no, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Annotated, Literal

import typer

from .errors import InputError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_ITEMS_IN_JSON = (
    "--explain-cost: got --json beside it, whose record has it all in energy_items and cycle_items; expected one of "
    "the two; leave one out"
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
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
            metavar="NAME|MODULE:ATTRIBUTE|FILE",
            help="Network: a bundled one, a torch module that Python can import, or a .pt file of a pickled one.",
        ),
    ] = "mlp",
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights for it: a state dict, .pt, .pth or .safetensors.")
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let a file given as --model run whatever code it holds.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Samples: .npz with x and y. Default, for bundled networks: 1,500 real digits."
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", help="Run only the first N samples.")] = None,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where the results go; an earlier run there is replaced.")
    ] = "out",
    tolerance: Annotated[
        float | None, typer.Option(metavar="T", help="Of the two-pass policy: keep scores up to T.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Of every random choice.")] = 0,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="At most N threads. Default: all processors.")
    ] = None,
    fidelity: Annotated[
        Literal["roofline", "analytic", "event"],
        typer.Option(help="How cycles are counted: a lower bound, closed forms a tile, or event by event."),
    ] = "analytic",
    explain_cost: Annotated[
        str | None,
        typer.Option(
            "--explain-cost",
            metavar="LAYER",
            help="After the tables, print each cycle and joule of this layer with formula and source.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the run record, and only that, to standard output.")
    ] = False,
) -> None:
    """Run a network on the MAC array of a YAML file: its bits and its bill, per layer.

    The network runs with every inner product exact, in uniform low precision, in uniform high precision and with
    two-pass adaptive accumulation. Results: summary.json, layers.csv and report.html. Ctrl-C keeps those of the batches
    done so far, once there is one; again, or before, it stops at once and writes nothing.
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    if hw is None:
        raise InputError(
            "Missing option '--hw': what to run on; give a YAML file or the name of a bundled machine, as in "
            "`python -m simulator --hw npu`, or a command, as in `python -m simulator formats`"
        )
    from .report import check_directory, layer_bill, print_run, save, to_a_reader, to_json

    if json and explain_cost is not None:
        raise InputError(_ITEMS_IN_JSON)
    check_directory(out)
    try:
        from . import network  # noqa: F401  (says what to install where torch is missing)
        from .run import run

        # What the user's code prints must not come between the record and its reader.
        with redirect_stdout(sys.stderr) if json else nullcontext(), _progress() as progress:
            result = run(
                hw, model, data, samples, tolerance, seed, threads, progress, keep_partial=True, weights=weights,
                allow_code=allow_code, fidelity=fidelity,
            )  # fmt: skip
        # A layer that is not there is refused before earlier results are replaced.
        explained = "" if explain_cost is None else f"\n{layer_bill(result, explain_cost)}"
        where = save(result, out)
    except KeyboardInterrupt:
        print("ulpsim: interrupted; no results were written", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    with to_a_reader():
        if json:
            sys.stdout.write(to_json(result))
        else:
            print_run(result)
            print(f"\nResults in {out}: {', '.join(sorted(path.name for path in where.iterdir()))}")
            print(explained, end="")
    if not result.complete:
        raise typer.Exit(INTERRUPTED)


@app.command("formats")
def show_formats(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Formats to show in full. Default: a list of all.")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Show where the formats A and B differ.")
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE.html", help="Draw relative spacing against magnitude, a curve for each format."),
    ] = None,
    markdown: Annotated[
        Literal["table", "page"] | None,
        typer.Option(help="Print a Markdown table, or the page docs/reference/formats.md."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print records, and only these, to standard output.")] = False,
) -> None:
    """Show number formats: all of them, one with its value table, or where two differ."""
    from .commands import formats
    from .report import to_a_reader

    with to_a_reader():
        formats.run(names or [], compare, plot, markdown, json)


@app.command("explain")
def explain_spec(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="MAC unit: [OPERANDS ->] ACCUMULATOR [-> OUTPUT], or a preset.")
    ],
    shape: Annotated[tuple[int, int, int], typer.Option(metavar="M N K", help="Of the matrix product.")] = (
        512,
        512,
        512,
    ),
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="At most N threads. Default: all processors.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a record, and only that, to standard output.")] = False,
) -> None:
    """Explain how a MAC unit's product is computed: kernel, proof, order, evidence, time."""
    from .commands import explain
    from .report import to_a_reader

    with to_a_reader():
        explain.run(spec, shape, threads, json)


@app.command("estimate")
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
    fidelity: Annotated[
        Literal["roofline", "analytic", "event"],
        typer.Option(help="How cycles are counted: a lower bound, closed forms a tile, or event by event."),
    ] = "analytic",
    trace: Annotated[
        str | None,
        typer.Option(metavar="FILE.json", help="Where the events go, with --fidelity event: for ui.perfetto.dev."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where SCALE-Sim's report files go, beside --scalesim-cfg.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print records, and only these, to standard output.")] = False,
) -> None:
    """Estimate cycles and energy without values: of a product or of layers on a machine, or as SCALE-Sim counts."""
    from .commands import estimate, scalesim
    from .report import to_a_reader

    with to_a_reader():
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
            raise InputError(_ITEMS_IN_JSON)
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


@app.command("show")
def show_machine(
    hw: Annotated[
        str | None, typer.Argument(metavar="FILE|NAME", help="A machine file, or the name of a bundled machine.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of machine files instead, for editors.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print records, and only these, to standard output.")] = False,
) -> None:
    """Show a machine file with every value in effect, and whether it is written, derived, default or of a table."""
    from .commands import show
    from .report import to_a_reader

    with to_a_reader():
        show.run(hw, schema, json)


@app.command("compare")
def compare_machines(
    a: Annotated[str, typer.Argument(metavar="A", help="A machine file, or the name of a bundled machine.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    model: Annotated[
        str, typer.Option(metavar="NAME|MODULE:ATTRIBUTE|FILE", help="Network, as of the main job.")
    ] = "mlp",
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="Weights for it.")] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let a file given as --model run whatever code it holds.")
    ] = False,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="Samples: .npz with x and y.")] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", help="Run only the first N samples.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Of every random choice.")] = 0,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="At most N threads. Default: all processors.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record, and only that, to standard output.")] = False,
) -> None:
    """Run a network on two machines, on the same samples, and show their bits, bills and keys side by side."""
    from . import network  # noqa: F401  (says what to install where torch is missing)
    from .commands import compare
    from .hardware import load_hardware
    from .report import to_a_reader
    from .run import run

    machines = load_hardware(a), load_hardware(b)
    results = []
    for machine in machines:
        with redirect_stdout(sys.stderr) if json else nullcontext(), _progress() as progress:
            results.append(
                run(
                    machine, model, data, samples, None, seed, threads, progress, weights=weights,
                    allow_code=allow_code,
                )
            )  # fmt: skip
    with to_a_reader():
        compare.run(machines, (results[0], results[1]), json)


@app.command("sweep")
def run_sweep(
    file: Annotated[str, typer.Argument(metavar="FILE.yaml", help="What varies, on which machine and network.")],
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where the store of points is; a sweep goes on from what is there.")
    ] = "sweep",
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes to spawn here. Default: one a processor.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="In their place a dask cluster, as in tcp://host:8786.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Of each worker. Default: the processors divided by the workers.")
    ] = None,
    only_plan: Annotated[
        bool, typer.Option("--dry-run", help="Say how many points there are and how long they would take.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print records, and only these, to standard output.")] = False,
) -> None:
    """Run every combination of what a sweep file varies; points that are known are not computed again."""
    from .commands import sweep
    from .report import to_a_reader

    try:
        # What the user's code prints must not come between the points and their reader.
        with redirect_stdout(sys.stderr) if json else nullcontext(), _progress("point") as progress:
            if only_plan:
                planned = sweep.dry_run(file, out, workers, scheduler, threads, progress)
            else:
                found = sweep.run(file, out, workers, scheduler, threads, progress)
    except KeyboardInterrupt:
        so_far = "" if only_plan else f"; the points so far are in {out}, and the same command goes on"
        print(f"ulpsim: interrupted{so_far}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    with to_a_reader():
        if only_plan:
            sweep.show_forecast(*planned, json)
            return
        sweep.show(found, json)
    if found.failed:
        raise typer.Exit(3)


@app.command("plan")
def make_plan(
    hw: Annotated[
        str, typer.Option(metavar="FILE", help="Hardware with two MACs: a YAML file, or the name of a bundled one.")
    ],
    out: Annotated[str, typer.Option(metavar="FILE.json", help="Where the plan goes, for policy.plan.")],
    model: Annotated[str, typer.Option(help="Network, as for the main job.")] = "mlp",
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="Weights for it.")] = None,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="Samples: .npz with x and y.")] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="Calibrate on the first N samples.")] = 128,
    check: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Compare the plan with flags by the same rule, on the N samples behind them."
        ),
    ] = 0,
    budget: Annotated[float | None, typer.Option(metavar="F", help="Largest share of the MACs that are high.")] = None,
    over: Annotated[
        Literal["network", "layer"], typer.Option(help="What the budget is a share of: all MACs, or each layer's.")
    ] = "network",
    quantile: Annotated[
        float | None,
        typer.Option(
            metavar="Q",
            help="In place of a budget: columns are high if this quantile of their scores is above the tolerance.",
        ),
    ] = None,
    tolerance: Annotated[float | None, typer.Option(metavar="T", help="Default: that of the policy.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Of every random choice.")] = 0,
) -> None:
    """Plan before a run which columns of a network have the high MAC, in place of flags within it."""
    from .commands import plan
    from .explore.work import Inputs
    from .report import to_a_reader
    from .studies.planning import agreement_with_policy, plan_for

    inputs = Inputs(model, weights, data, samples, seed)
    rule = {"budget": budget, "over": over, "quantile": quantile, "tolerance": tolerance}
    found = plan_for(hw, inputs, **rule)
    checks = agreement_with_policy(hw, inputs, found, check, **rule) if check > 0 else []
    plan.write(found, out)
    with to_a_reader():
        plan.show(found, out, checks)


studies = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
app.add_typer(studies, name="study", help="Run a study: many runs that answer one question, with controls.")


@studies.command("two-pass")
def study_two_pass(
    hw: Annotated[
        str, typer.Option(metavar="FILE", help="Hardware with two MACs: a YAML file, or the name of a bundled one.")
    ],
    model: Annotated[str, typer.Option(help="Network, as for the main job.")] = "mlp",
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="Weights for it.")] = None,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="Samples: .npz with x and y.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(metavar="N", help="Run N samples, those behind the ones for calibration. Default: all."),
    ] = None,
    calibration: Annotated[
        int, typer.Option(metavar="N", help="Calibrate scores and budgets on the first N samples, which do not run.")
    ] = 128,
    scores: Annotated[
        str | None, typer.Option(metavar="A,B", help="Scores, as policy.score. Default: kappa_prime,norm2,sensitivity.")
    ] = None,
    tolerances: Annotated[str | None, typer.Option(metavar="T,T", help="Recompute what has a larger score.")] = None,
    budgets: Annotated[
        str | None,
        typer.Option(
            metavar="F,F",
            help="Recompute at most these shares, the largest scores first; then all that a "
            "score can flag. Default: 0.05,0.1,0.2.",
        ),
    ] = None,
    over: Annotated[
        Literal["network", "layer"], typer.Option(help="What budgets are a share of: all MACs, or a layer's outputs.")
    ] = "network",
    seeds: Annotated[int, typer.Option(metavar="N", help="Seeds of the control that recomputes at random.")] = 3,
    controls: Annotated[
        bool, typer.Option(help="Recompute as much of each layer at random, and of the largest outputs, beside it.")
    ] = True,
    static: Annotated[bool, typer.Option(help="Run static plans of the same cost beside it.")] = True,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where results and the store of points go; a study goes on from there.")
    ] = "study",
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes to spawn here. Default: one a processor.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="In their place a dask cluster, as in tcp://host:8786.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Of each worker. Default: the processors divided by the workers.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record, and only that, to standard output.")] = False,
) -> None:
    """Compare scores of two-pass accumulation: errors, costs and accuracy, with controls that recompute as much."""
    from .commands import study
    from .report import to_a_reader

    try:
        with redirect_stdout(sys.stderr) if json else nullcontext(), _progress("point") as progress:
            found = study.run(
                hw, out, scores, tolerances, budgets, over=over, model=model, weights=weights, data=data,
                samples=samples, calibration=calibration, seeds=seeds, controls=controls, static=static,
                workers=workers, scheduler=scheduler, threads=threads, progress=progress,
            )  # fmt: skip
            paths = study.save(found, out)
    except KeyboardInterrupt:
        print(f"ulpsim: interrupted; the points so far are in {out}, and the same command goes on", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    with to_a_reader():
        study.show(found, paths, json)


@app.command("runs")
def show_runs(
    store: Annotated[str, typer.Argument(metavar="DIR", help="A directory with a store of runs, or its file.")],
    show: Annotated[str | None, typer.Option(metavar="KEY", help="Print one point in full, as JSON.")] = None,
    export: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a sweep's points to a .csv or .parquet file.")
    ] = None,
    sweep: Annotated[str | None, typer.Option(metavar="NAME", help="Which sweep, where there are several.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="KEY", help="Remove a point; may be repeated.")] = None,
    remove_outdated: Annotated[
        bool, typer.Option("--remove-outdated", help="Remove what an ulpsim of other numerics computed.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print records, and only these, to standard output.")] = False,
) -> None:
    """List the runs in a store, show one, export a sweep, or remove some."""
    from .commands import runs
    from .report import to_a_reader

    jobs = {
        "--show": show,
        "--export": export,
        "--remove": remove or None,
        "--remove-outdated": remove_outdated or None,
    }
    given = [option for option, value in jobs.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"runs: got {' and '.join(given)}; expected one of them; give one after the other")
    if sweep is not None and export is None:
        raise InputError("runs: got --sweep without --export; expected both or none; leave --sweep out")
    if json and given and given != ["--show"]:
        raise InputError(f"runs: got --json with {given[0]}, which prints no record; expected it alone; leave it out")
    with to_a_reader():
        if show is not None:
            runs.show_one(store, show)
        elif export is not None:
            runs.export_sweep(store, sweep, export)
        elif remove:
            runs.remove(store, remove)
        elif remove_outdated:
            runs.remove_outdated(store)
        else:
            runs.show_all(store, json)


def _refuse_options(context: typer.Context) -> None:
    """Refuse options of the main job before a command, which would go unheard."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        option = given[0].replace("_", "-")
        raise InputError(
            f"--{option} belongs to the main job, and {context.invoked_subcommand} is a command of its own; leave it "
            "out, or give what it takes after the command"
        )


@contextmanager
def _progress(unit: str = "sample") -> Iterator[Callable[[float, int | None], None]]:
    """Show on standard error, if that is a terminal, how many samples are done and how much time is left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("time left"), TimeRemainingColumn())
    # The modes differ in speed, so that only all of the run tells what is left of it.
    period = 24 * 3600.0
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
        speed_estimate_period=period,
    ) as bar:
        task = bar.add_task("starting", total=None)

        def show(done: float, total: int | None) -> None:
            of = "" if total is None else f" of {total:,}"
            bar.update(
                task,
                completed=done,
                total=total,
                description=f"{int(done):,}{of} {unit}{'' if (total or done) == 1 else 's'}",
            )

        yield show


def _printable(text: str) -> str:
    """Write out control characters, which names in a file may hold, lest it command the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except InputError as error:
        print(f"ulpsim: error: {_printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
