"""What number formats do to sentence embeddings: MiniLM on 24 sentences, format by format, beside float32.

    python minilm_study.py [DIR]

prints tables and writes to DIR (`minilm` if it is left out): study.json; formats.csv, a row for each format;
layers.csv, a row for each layer of each format; and sentences.npz, the sentences as the main job takes them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from format_study import FORMATS, Format
from minilm import Encoder, Heads, encoder, tokenise
from torch import Tensor, nn
from torch.nn import functional

import simulator
from simulator.errors import InputError
from simulator.report.directories import write_file
from simulator.report.figures import count, near_one, percent, quantity
from simulator.report.tables import write_table
from simulator.studies.directory import RESULTS, check_study_directory

# Pairs that say the same in other words.
PARAPHRASES = (
    ("The shop opens at nine in the morning.", "You can go into the store from nine o'clock."),
    ("She is looking for a cheaper flat.", "She wants to find an apartment that costs less."),
    ("It rained all weekend, so we stayed at home.", "We did not go out because the weekend was wet."),
    ("My brother repairs old bicycles.", "Old bikes are what my brother fixes."),
    ("The train to the coast was two hours late.", "Our train to the seaside had a delay of two hours."),
    ("Please turn the music down.", "Could you make the music quieter?"),
)
# Pairs that do not, though some share their words.
OTHERS = (
    ("He left his umbrella on the bus.", "The bus driver likes to sing."),
    ("The soup needs a little more salt.", "Salt water is heavier than fresh water."),
    ("The children built a castle of sand.", "The bank raised its interest rates."),
    ("A cat is asleep on the windowsill.", "The window was painted blue last year."),
    ("We planted tomatoes behind the house.", "The meeting was moved to Thursday."),
    ("Her grandfather was a sailor.", "The printer is out of paper again."),
)
SENTENCES = tuple(sentence for pair in (*PARAPHRASES, *OTHERS) for sentence in pair)
WORST = 3  # layers in the table


class Outcome(NamedTuple):
    """What a format does.

    Args:
        hardware, mac: the machine, and its arithmetic in words.
        cosine_mean, cosine_least: of the similarities of the sentences' embeddings to those of float32.
        rank_correlation: Spearman's, of the similarities of all pairs of sentences, with those of float32.
        nearest: share of the sentences whose nearest sentence is that of float32.
        partners: share of the sentences with a paraphrase whose nearest sentence is that.
        cycles, latency_s, energy_j: the bill of all sentences in one batch (estimate).
        attention_cycles: of the cycles, those of the products between tokens.
        errors: by layer, norm of output minus that of float32 over norm of that of float32, padding left out; it
            includes what layers before it have done.
    """

    hardware: str
    mac: str
    cosine_mean: float
    cosine_least: float
    rank_correlation: float
    nearest: float
    partners: float
    cycles: int
    latency_s: float
    energy_j: float
    attention_cycles: int
    errors: Mapping[str, float]

    @property
    def worst(self) -> list[tuple[str, float]]:
        """The layers with the largest errors, the largest first."""
        return sorted(self.errors.items(), key=lambda item: -item[1])[:WORST]

    def row(self) -> dict[str, str | float]:
        """Return all but the errors of layers."""
        return {name: value for name, value in self._asdict().items() if name != "errors"}


def study(
    network: Encoder, inputs: Mapping[str, Tensor], paraphrases: int, formats: Iterable[Format] = FORMATS
) -> Iterator[Outcome]:
    """Run sentences in every format.

    Args:
        network: the encoder. inputs: as it takes them, pair by pair. paraphrases: how many pairs, from the first, say
            the same.
    """
    tokens = inputs["attention_mask"] > 0
    with torch.no_grad(), outputs_of_layers(network) as kept:
        reference = similarities(known := network(**inputs))
        expected = {name: value[tokens] for name, value in kept.items()}
    for form in formats:
        with (
            torch.no_grad(), outputs_of_layers(network) as kept,
            simulator.emulate(network, form.machine()) as run,
        ):  # fmt: skip
            embeddings = network(**inputs)
        found, cosines = similarities(embeddings), functional.cosine_similarity(embeddings.double(), known.double())
        record, bill = run.result, run.result.totals["low"]
        yield Outcome(
            record.hardware, record.layers[0].mac, float(cosines.mean()), float(cosines.min()),
            rank_correlation(found, reference), float((nearest(found) == nearest(reference)).double().mean()),
            partners_found(found, paraphrases), int(bill["cycles"]), bill["latency_s"], bill["energy_j"],
            sum(layer.cycles for layer in record.layers if layer.op == "bmm"),
            {name: float((kept[name][tokens] - value).norm() / value.norm()) for name, value in expected.items()},
        )  # fmt: skip


@contextmanager
def outputs_of_layers(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Keep what the linear layers and the heads of attention of a network give, by their paths."""
    kept: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: kept.update({name: output}))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | Heads)
    ]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def similarities(embeddings: Tensor) -> Tensor:
    """Return the cosine similarities (N, N) of N embeddings, in float64."""
    unit = functional.normalize(embeddings.double(), dim=1)
    return unit @ unit.T


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Return Spearman's correlation of two matrices (N, N) of similarities, each pair counted once; none are equal."""
    rows, columns = torch.triu_indices(*x.shape, 1)
    ranks = torch.stack((x, y))[:, rows, columns].argsort(1).argsort(1)
    return float(torch.corrcoef(ranks.double())[0, 1])


def nearest(found: Tensor) -> Tensor:
    """Return for each of N sentences which other one is nearest, by their similarities (N, N)."""
    return found.clone().fill_diagonal_(-torch.inf).argmax(1)


def partners_found(found: Tensor, paraphrases: int) -> float:
    """Return the share of the sentences of so many pairs, from the first, whose nearest is the other of the pair."""
    count = 2 * paraphrases
    return float((nearest(found)[:count] == torch.arange(count) ^ 1).double().mean())


def tables(outcomes: Sequence[Outcome]) -> str:
    """Return the two tables as Markdown."""
    names = ("cosine, mean", "least", "rank correlation", "nearest", "partners", "cycles", "of attention", "energy")
    quality = [_line("machine", "arithmetic", *names), _line(*["---"] * (2 + len(names)))]
    layers = [_line("machine", "arithmetic", *["layer", "error"] * WORST), _line(*["---"] * (2 + 2 * WORST))]
    for of in outcomes:
        start = (f"`{of.hardware}`", f"`{of.mac}`")
        quality.append(
            _line(
                *start, near_one(of.cosine_mean), near_one(of.cosine_least), near_one(of.rank_correlation),
                percent(of.nearest), percent(of.partners), count(of.cycles), percent(of.attention_cycles / of.cycles),
                quantity(of.energy_j, "J"),
            )
        )  # fmt: skip
        worst = ((f"`{name.removeprefix('encoder.layer.')}`", percent(error)) for name, error in of.worst)
        layers.append(_line(*start, *(cell for pair in worst for cell in pair)))
    return "\n".join([*quality, "", *layers])


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main(out: str = "minilm") -> None:
    """Run the study, write it and print it."""
    check_study_directory(out, "minilm")
    network, samples = encoder(), tokenise(SENTENCES)
    inputs = {name: torch.from_numpy(values) for name, values in samples.items()}
    outcomes = list(study(network, inputs, len(PARAPHRASES)))
    directory = Path(out)
    directory.mkdir(parents=True, exist_ok=True)
    record = {"study": "minilm", "sentences": SENTENCES, "formats": [of._asdict() for of in outcomes]}
    write_file(directory / RESULTS, json.dumps(record, indent=2, allow_nan=False) + "\n")
    write_table([of.row() for of in outcomes], directory / "formats.csv")
    write_table(
        [{"hardware": of.hardware, "mac": of.mac, "layer": name, "relative_error": error}
         for of in outcomes for name, error in of.errors.items()],
        directory / "layers.csv",
    )  # fmt: skip
    np.savez(directory / "sentences.npz", **samples)
    with torch.no_grad():
        partners = partners_found(similarities(network(**inputs)), len(PARAPHRASES))
    mask = samples["attention_mask"]
    print(f"{len(SENTENCES)} sentences, {mask.sum()} tokens and {(mask == 0).sum()} of padding; float32 finds "
          f"{percent(partners)} of the partners; in {directory}\n\n{tables(outcomes)}")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("usage: python minilm_study.py [DIR]")
    try:
        main(*sys.argv[1:])
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
