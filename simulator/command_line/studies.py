"""Plans before a run, and studies of many: plan, study two-pass, study truncation, study points, study laws."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .interruption import interruptible, points_stay
from .options import (
    AllowCode,
    Data,
    JsonRecord,
    Model,
    Quiet,
    Scheduler,
    Seed,
    TwoMacHardware,
    Weights,
    Workers,
    WorkerThreads,
)
from .progress import prints_aside, progress_bar, shown
from .refusals import by_option


def make_plan(
    hw: TwoMacHardware,
    out: Annotated[str, typer.Option(metavar="FILE.json", help="Where the plan goes, for policy.plan.")],
    model: Model = "mlp",
    weights: Weights = None,
    allow_code: AllowCode = False,
    data: Data = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="Calibrate on the first N samples. Default: 128, or all of fewer.")
    ] = None,
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
    seed: Seed = 0,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Plan before a run which columns of a network have the high MAC, in place of flags within it."""
    from simulator.commands import plan
    from simulator.explore.work import Inputs
    from simulator.report.directories import check_writable
    from simulator.studies.planning import agreement_with_policy, plan_for

    inputs = Inputs(model, weights, data, samples, seed, allow_code=allow_code)
    rule = {"budget": budget, "over": over, "quantile": quantile, "tolerance": tolerance}
    with interruptible("nothing was written"), prints_aside(json, quiet):
        check_writable(out)
        found = plan_for(hw, inputs, **rule)
        checks = agreement_with_policy(hw, inputs, found, check, **rule) if check > 0 else []
        plan.write(found, out)
    with shown(json, quiet):
        plan.show(found, out, checks, json)


def study_two_pass(
    context: typer.Context,
    hw: TwoMacHardware,
    model: Model = "mlp",
    weights: Weights = None,
    allow_code: AllowCode = False,
    data: Data = None,
    samples: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Run N samples, those behind the ones for calibration. Default: all."),
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Calibrate scores and budgets on the first N samples, which do not run. Default: 128, or half of all.",
        ),
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Scores, as policy.score. Default: kappa_prime,norm2,sensitivity, the last only where gradients of "
            "the outputs reach layers.",
        ),
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
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Seeds of the control that recomputes at random.")] = 3,
    controls: Annotated[
        bool, typer.Option(help="Recompute as much of each layer at random, and of the largest outputs, beside it.")
    ] = True,
    static: Annotated[bool, typer.Option(help="Run static plans of the same cost beside it.")] = True,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where results and the store of points go; a study goes on from there.")
    ] = "study",
    workers: Workers = None,
    scheduler: Scheduler = None,
    threads: WorkerThreads = None,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Compare scores of two-pass accumulation: errors, costs and accuracy, with controls that recompute as much."""
    from simulator.commands import two_pass

    with (
        by_option(context), interruptible(points_stay(out)), prints_aside(json, quiet),
        progress_bar("point", quiet) as progress,
    ):  # fmt: skip
        found = two_pass.run(
            hw, out, scores, tolerances, budgets, over=over, model=model, weights=weights, allow_code=allow_code,
            data=data, samples=samples, calibration=calibration, seeds=seeds, controls=controls, static=static,
            workers=workers, scheduler=scheduler, threads=threads, progress=progress,
        )  # fmt: skip
        paths = two_pass.save(found, out)
    with shown(json, quiet):
        two_pass.show(found, paths, json)


def study_truncation(
    context: typer.Context,
    settings: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Rows of the table, e.g. rz,rne,sr. Default: all of them."),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Stored significand bits, 0 for float64. Default: 0, 23 and down to 1."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Trainings of each cell.")] = 2,
    base_seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Of the rows rz, rne, sr and decay. Default: 8; with --data, that of the others."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="An .npz file of grey levels x (N, height, width) and classes y (N,) in place of the 8x8 digits; the "
            "last three sixteenths test.",
        ),
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where results and runs go; a study goes on from there.")
    ] = "truncation",
    workers: Workers = None,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Train on digits with truncated parameters: accuracy against stored bits, one setting changed in each row."""
    from simulator.commands import truncation

    with (
        by_option(context), interruptible(points_stay(out)), prints_aside(json, quiet),
        progress_bar("run", quiet) as progress,
    ):  # fmt: skip
        found = truncation.run(
            out, settings, bits, seeds=seeds, base_seeds=base_seeds, data=data, workers=workers, progress=progress
        )
        paths = truncation.save(found, out)
    with shown(json, quiet):
        truncation.show(found, paths, json)


def study_points(
    context: typer.Context,
    points: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=FORMAT,...",
            help="Quantisation points. Default: weight_store=e8m4/rz,activation=e8m4/rz,gradient=e8m4/rz.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="In their place: a bundled recipe or a YAML file, its MAC units too."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Trainings of each kind.")] = 1,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where results and runs go; a study goes on from there.")
    ] = "points",
    workers: Workers = None,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Train on 8x8 digits with each quantisation point alone and with all but each: which one limits the training."""
    from simulator.commands import points as command

    with (
        by_option(context), interruptible(points_stay(out)), prints_aside(json, quiet),
        progress_bar("run", quiet) as progress,
    ):  # fmt: skip
        found = command.run(out, points, recipe, seeds=seeds, workers=workers, progress=progress)
        paths = command.save(found, out)
    with shown(json, quiet):
        command.show(found, paths, json)


def study_laws(
    context: typer.Context,
    bits: Annotated[int, typer.Option(metavar="N", help="Stored significand bits where they are not varied.")] = 8,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Networks of each row.")] = 4,
    trained: Annotated[bool, typer.Option(help="Train networks on 8x8 digits too.")] = True,
    out: Annotated[str, typer.Option(metavar="DIR", help="Where results go.")] = "laws",
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Measure how errors of rounded weights grow forward and backward, beside the laws that predict them."""
    from simulator.commands import laws

    with (
        by_option(context), interruptible("nothing was written"), prints_aside(json, quiet),
        progress_bar("row", quiet) as progress,
    ):  # fmt: skip
        found = laws.run(out, bits=bits, seeds=seeds, trained=trained, progress=progress)
        paths = laws.save(found, out)
    with shown(json, quiet):
        laws.show(found, paths, json)
