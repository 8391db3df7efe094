"""Which digits of a run are real: track, track compare."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .interruption import interruptible
from .options import AllowCode, Data, JsonRecord, LearningRate, Model, Quiet, Samples, Seed, Weights
from .progress import prints_aside, progress_bar, shown


def track_network(
    context: typer.Context,
    model: Model = "mlp",
    weights: Weights = None,
    allow_code: AllowCode = False,
    data: Data = None,
    samples: Samples = None,
    train: Annotated[
        int | None, typer.Option(metavar="N", help="Train for N steps. Default: one forward pass over all samples.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="B", help="Samples of a step. Default: 64, or as many as the network takes at a time."),
    ] = None,
    optimizer: Annotated[
        Literal["sgd", "adam", "adamw"] | None, typer.Option(help="With --train. Default: sgd.")
    ] = None,
    lr: LearningRate = None,
    hw: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Hardware that computes the products: a YAML file, or a bundled one."),
    ] = None,
    numbers: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Which to keep: safe (upper bound), expected (statistical), certain_noise (estimate).",
        ),
    ] = "safe,expected,certain_noise",
    every: Annotated[int, typer.Option(metavar="K", help="Keep one step of K for the report.")] = 1,
    roundings: Annotated[
        Literal["bounded", "measured"],
        typer.Option(help="Of torch's operations: what they may be at most, or computed again and taken as they are."),
    ] = "bounded",
    restart: Annotated[
        Literal["never", "step"], typer.Option(help="When what a run starts from counts as exact again.")
    ] = "never",
    bits: Annotated[
        float,
        typer.Option(metavar="B", help="Real bits that are enough: name the first tensor with fewer, in the median."),
    ] = 8.0,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Repeat the run in float64, and tell how far each number is off.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Write track.json, bits.csv, updates.csv and track.html, replacing DIR whole."
        ),
    ] = None,
    export: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the bits of every tensor as .csv or .parquet.")
    ] = None,
    seed: Seed = 0,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Follow how many bits of every value, gradient and parameter of a run are real, without a change of the run.

    Three numbers, each with what it guarantees: safe, an upper bound of the error; expected, statistical;
    certain_noise, an optimistic estimate. With --train gradients and updates are followed too.
    """
    if context.invoked_subcommand is not None:
        return
    from simulator.commands import track
    from simulator.explore.work import Inputs

    inputs = Inputs(model, weights, data, samples, seed, allow_code=allow_code)
    with interruptible("nothing was written"), prints_aside(json, quiet), progress_bar("step", quiet) as progress:
        found = track.run(
            inputs, hw, numbers, train, batch_size, optimizer, lr, every, roundings, restart, bits, calibrate, out,
            export, progress,
        )  # fmt: skip
        paths = track.save(found, out, export)
    with shown(json, quiet):
        track.show(found, paths, json)


def compare_runs(
    a: Annotated[str, typer.Argument(metavar="A.json", help="The track.json of a run.")],
    b: Annotated[str, typer.Argument(metavar="B.json", help="That of another.")],
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Set two tracked runs side by side: bits by tensor, shares of noise, of updates below it and lost."""
    from simulator.commands import track

    with interruptible(), shown(json, quiet):
        track.show_comparison(a, b, json)
