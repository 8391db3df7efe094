"""Options that several commands have, each once; one whose words are a command's own stands with the command."""

from typing import Annotated, Literal

import typer

TwoMacHardware = Annotated[
    str, typer.Option(metavar="FILE", help="Hardware with two MACs: a YAML file, or the name of a bundled one.")
]

NETWORK = "NAME|MODULE:ATTRIBUTE|FILE"  # what --model takes

Model = Annotated[str, typer.Option(metavar=NETWORK, help="Network, as for the main job.")]
Weights = Annotated[str | None, typer.Option(metavar="FILE", help="Weights for it.")]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Let a file given as --model run whatever code it holds.")
]

Data = Annotated[str | None, typer.Option(metavar="FILE", help="Samples: .npz with x and y, or a directory of images.")]
Samples = Annotated[int | None, typer.Option(metavar="N", help="Run only the first N samples.")]
Seed = Annotated[int, typer.Option(metavar="S", help="Of every random choice.")]

Fidelity = Annotated[
    Literal["roofline", "analytic", "event"],
    typer.Option(help="How cycles are counted: a lower bound, closed forms a tile, or event by event."),
]

LearningRate = Annotated[
    float | None, typer.Option("--lr", metavar="R", help="Learning rate. Default: 0.1 of sgd, 0.001 of the others.")
]

# The bound is that of network/threads.py, which is not read for the help of a command: it has torch.
Threads = Annotated[int | None, typer.Option(metavar="N", max=1024, help="At most N threads. Default: all processors.")]
Workers = Annotated[int | None, typer.Option(metavar="N", help="Processes to spawn here. Default: one a processor.")]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="In their place a dask cluster, as in tcp://host:8786.")
]
WorkerThreads = Annotated[
    int | None, typer.Option(metavar="N", help="Of each worker. Default: the processors divided by the workers.")
]

JsonRecord = Annotated[bool, typer.Option("--json", help="Print the record, and only that, to standard output.")]
JsonRecords = Annotated[bool, typer.Option("--json", help="Print records, and only these, to standard output.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print no progress and no tables, only errors; files are written all the same.")
]

# Of --explain-cost, whose words differ: the main job names a layer.
ITEMS_IN_JSON = (
    "--explain-cost: got --json beside it, whose record has it all in energy_items and cycle_items; expected one of "
    "the two; leave one out"
)
