"""What can be proved of a network: bounds, bounds check."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .exit_codes import SAID_NO
from .interruption import interruptible
from .options import NETWORK, AllowCode, Data, JsonRecord, Model, Quiet, Seed, Weights
from .progress import prints_aside, progress_bar, shown


def prove_bounds(
    context: typer.Context,
    hw: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Hardware that computes: a YAML file, or the name of a bundled one."),
    ] = None,
    mac: Annotated[
        str | None,
        typer.Option(metavar="MAC", help="In its place one MAC for every product. Default: seq(fp32)."),
    ] = None,
    mode: Annotated[
        Literal["low", "high", "two_pass"] | None,
        typer.Option(help="Of the hardware: which of its modes computes. Default: low."),
    ] = None,
    precision: Annotated[
        int | None,
        typer.Option(metavar="K", help="Take all formats to have K significand bits, and any exponent."),
    ] = None,
    required: Annotated[
        bool, typer.Option("--required", help="Find the least significand bits that provably suffice, by sample.")
    ] = False,
    confidence: Annotated[
        float | None,
        typer.Option(metavar="P", help="With --required: the bits for a class of probability P to stay first."),
    ] = None,
    model: Model = "mlp",
    weights: Weights = None,
    allow_code: AllowCode = False,
    data: Data = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="Analyse the first N samples. Default: 100, or all of fewer.")
    ] = None,
    radius: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]R",
            help="For all inputs within R of each sample, value by value; NAME=R: for one of several inputs.",
        ),
    ] = None,
    failure: Annotated[
        float | None,
        typer.Option(metavar="F", help="Statistical bounds of sums that fail with probability F, in place of proofs."),
    ] = None,
    certificate: Annotated[
        str | None, typer.Option(metavar="FILE.json", help="Write a certificate that `bounds check` verifies.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write bounds.json and a page, bounds.html, into it.")
    ] = None,
    seed: Seed = 0,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Prove that a network's answers cannot change by rounding, or find the bits for which they cannot.

    The reference is the network in real arithmetic with its weights as they are. Bounds are rigorous unless --failure
    is given: forward bounds first, then partial sums and the adjoint where these do not suffice.
    """
    if context.invoked_subcommand is not None:
        return
    from simulator.commands import bounds
    from simulator.explore.work import Inputs

    inputs = Inputs(model, weights, data, samples, seed, allow_code=allow_code)
    with interruptible(), prints_aside(json, quiet), progress_bar("step" if required else "sample", quiet) as progress:
        bounds.check_options(hw, mode, required, confidence, failure, certificate, out)
        found = bounds.run(
            inputs, hw, mac, mode or "low", precision, required, confidence, radius or (), failure, progress
        )
        paths = [] if certificate is None else [found.certified.save(certificate)]
        paths += [] if out is None else bounds.save_files(found, out)
    with shown(json, quiet):
        bounds.show(found, paths, json)


def check_certificate(
    file: Annotated[str, typer.Argument(metavar="FILE.json", help="A certificate that `bounds --certificate` wrote.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar=NETWORK, help="Network whose weights must be those of the certificate, as for the main job."
        ),
    ] = None,
    weights: Weights = None,
    allow_code: AllowCode = False,
    data: Data = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="The first N samples must be the inputs, of --data or its own.")
    ] = None,
    radius: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]R",
            help="With --samples or --data: the boxes of R around each sample must; NAME=R as there.",
        ),
    ] = None,
    seed: Seed = 0,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Verify a certificate in ball arithmetic, without the analysis that made it; exit with 3 if it does not hold.

    It says what the certificate is about, and compares it with a network and with samples where these are given.
    """
    from simulator.commands import bounds
    from simulator.errors import InputError
    from simulator.explore.work import Inputs

    with_samples = data is not None or samples is not None
    if model is None and (weights is not None or with_samples or radius):
        raise InputError(
            "bounds check: got --weights, --data, --samples or --radius without a network; expected --model beside "
            "them; give it"
        )
    if radius and not with_samples:
        raise InputError(
            f"bounds check: --radius: got {', '.join(radius)} alone; expected --data or --samples beside it; give these"
        )
    inputs = None if model is None else Inputs(model, weights, data, samples, seed, allow_code=allow_code)
    with interruptible():
        found = bounds.checked(file, inputs, with_samples, radius or ())
    with shown(json, quiet):
        bounds.show_verdict(found, file, json)
    if not found.ok:
        raise typer.Exit(SAID_NO)
