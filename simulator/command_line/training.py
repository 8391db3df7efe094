"""A network trained with roundings: train."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .interruption import interruptible
from .options import NETWORK, AllowCode, JsonRecord, LearningRate, Quiet, Seed, Threads
from .progress import prints_aside, progress_bar, shown


def train_network(
    model: Annotated[
        str,
        typer.Option(
            metavar=NETWORK, help="Network, as for the main job; a bundled one begins with weights drawn anew."
        ),
    ] = "mlp",
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="Weights that it begins with.")] = None,
    allow_code: AllowCode = False,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Samples: .npz with x and y, or a directory of MNIST. Default: bundled digits."
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|FILE",
            help="Samples for the accuracy: a share of the data, held out, or a file. Default: 0.2, or a directory's.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="What is rounded where: a YAML file, or a bundled recipe."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="In its place: the format of stored parameters, as e8m6.")
    ] = None,
    rounding: Annotated[
        str | None, typer.Option(metavar="MODE", help="With --storage: rz, rne, sr or another. Default: rz.")
    ] = None,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the samples, in all.")] = 10,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="B", help="Samples of a step. Default: 32, or as many as the network takes at a time."),
    ] = None,
    lr: LearningRate = None,
    optimizer: Annotated[Literal["sgd", "adam", "adamw", "rmsprop"], typer.Option(help="Takes the steps.")] = "sgd",
    momentum: Annotated[float | None, typer.Option(metavar="M", help="Of sgd and rmsprop. Default: 0.")] = None,
    weight_decay: Annotated[
        float | None, typer.Option(metavar="W", help="Of the optimiser. Default: torch's, 0, of adamw 0.01.")
    ] = None,
    causes: Annotated[
        bool, typer.Option("--causes", help="Look for what each rounding did; changes no bit of the training.")
    ] = False,
    seed: Seed = 0,
    threads: Threads = None,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where the checkpoint of every epoch and the results go.")
    ] = "train",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in DIR, with the same bits.")
    ] = False,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Train a network with some of its values in narrow formats; a recipe says which, where and how they are rounded.

    DIR gets a checkpoint after every epoch, and at the end history.json, history.csv and weights.pt, which the main job
    takes as --weights; with --causes also causes.json and causes.csv.
    """
    from simulator.commands import train
    from simulator.training.job import Job

    given = {"momentum": momentum, "weight_decay": weight_decay}
    options = {name: value for name, value in given.items() if value is not None}
    job = Job(
        model, weights, data, test, recipe, storage, rounding, epochs, batch_size, lr, optimizer, options, seed,
        allow_code, threads, causes,
    )  # fmt: skip
    with (
        interruptible(lambda: train.left(job, out)),
        prints_aside(json, quiet),
        progress_bar("step", quiet) as progress,
    ):
        found = train.run(job, out, resume, progress, quiet)
    with shown(json, quiet):
        train.show(found, out, json)
