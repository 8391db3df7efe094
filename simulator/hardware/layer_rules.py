"""Rules of single layers as frozen records: their MAC, formats, scales and tolerance."""

from __future__ import annotations

from dataclasses import dataclass

from formats import Use


@dataclass(frozen=True)
class Scaling:
    """How an operand is scaled: x / scale is quantised, the accumulated products are multiplied by the scales.

    Args:
        per: tensor (one scale), row (one for each row of the operand: a token, an image), channel (activations: input
            channels, whose scales move into the weights; weights: output channels) or block (of input channels, of
            each row or output; the sums of the blocks are added in float32).
        block: input channels of a block, if per is block.
        method: max (the largest magnitude is put at `to`), percentile (a percentile of the magnitudes is) or mse (the
            scale of the least mean square error).
        percentile: of the method of that name. to: None for the format's largest value; less leaves an accumulator
            room for its sums.
        when: model (as a quantised model has it for this operand, dynamic where it has nothing that the operand can
            take), dynamic (from the values at hand) or calibrated (from samples seen before; weights are at hand).
        powers_of_two: whether a scale is a power of two.
    """

    per: str = "tensor"
    block: int = 0
    method: str = "max"
    percentile: float = 100.0
    to: float | None = None
    when: str = "model"
    powers_of_two: bool = True

    def __str__(self) -> str:
        per = f"{self.per} of {self.block}" if self.block else self.per
        method = f"percentile {self.percentile:g}" if self.method == "percentile" else self.method
        to = "" if self.to is None else f" to {self.to:g}"
        powers = "powers of two" if self.powers_of_two else "any float32"
        when = "the model's or dynamic" if self.when == "model" else self.when
        return f"per {per} by {method}{to}, {when}, {powers}"


@dataclass(frozen=True)
class LayerRule:
    """What a file or a user says of some layers; None wherever nothing is said.

    Args:
        pattern: glob on the path of a module.
        mac: low, high, two_pass, exact, float32 or a MAC in its string form.
        operands, output: formats in place of the MAC's. tolerance, budget: in place of the policy's; score, with
            side_metric and side_format, likewise.
        activations, weights: scales of the two operands. vector: format of the vector unit.
        gradients: like mac, of the backward pass. weight_gradients: of the gradients of weights alone; its operand
            formats are those of the gradient of the outputs and of the layer's input.
    """

    pattern: str
    mac: str | None = None
    operands: tuple[Use, Use] | None = None
    output: Use | None = None
    tolerance: float | None = None
    activations: Scaling | None = None
    weights: Scaling | None = None
    vector: Use | None = None
    gradients: str | None = None
    budget: float | None = None
    score: str | None = None
    side_metric: str | None = None
    side_format: Use | None = None
    weight_gradients: str | None = None

    def __str__(self) -> str:
        operands = None if self.operands is None else "*".join(map(str, self.operands))
        said = {
            "mac": self.mac, "operands": operands, "output": self.output, "tolerance": self.tolerance,
            "budget": self.budget, "score": self.score, "activations": self.activations, "weights": self.weights,
            "vector": self.vector, "gradients": self.gradients, "weight_gradients": self.weight_gradients,
        }  # fmt: skip
        return "; ".join(f"{key}: {value}" for key, value in said.items() if value is not None)
