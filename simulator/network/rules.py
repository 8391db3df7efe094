"""Rules: which arithmetic a layer has, from the machine, its rules of layers, and the mode of the run."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from formats import Use
from simulator.arithmetic.spec import MacSpec
from simulator.errors import InputError
from simulator.hardware import LayerRule, Machine, Scaling
from simulator.result import VECTOR_UNIT

from . import scales
from .layer_arithmetic import Arithmetic, Scalings, arithmetic, exact_unit
from .model_scales import ModelScales, Operands
from .ops import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, Op


@dataclass
class _Resolved:
    """A rule with what it means in a run, and whether an operation has asked for it."""

    rule: LayerRule
    forward: Arithmetic
    backward: Arithmetic
    of_weights: Arithmetic
    used: bool = False


class Rules:
    """The arithmetic and the vector format of each layer.

    Args:
        machine: whose modes the rules name. mode: of the layers of which no rule says one; in a run in the mode
            "exact" every layer is exact, but with the operands and scales of its rule, or in float32 if that says so.
        rules: the first that fits a layer counts. paths: of all modules of the model.
        own: scales that the model has for operands, by path of the module.
    Raises:
        InputError: a pattern that fits nothing, or an arithmetic that the machine does not have or that cannot be.
    """

    def __init__(
        self,
        machine: Machine,
        mode: str,
        rules: Sequence[LayerRule],
        paths: Iterable[str],
        own: Mapping[str, Operands] | None = None,
    ) -> None:
        self.machine, self.mode = machine, mode
        self._own = dict(own or {})
        self.own_refused: dict[tuple[str, str], str] = {}  # why the model's scales are not taken, by layer and operand
        known = list(paths)
        for rule in rules:
            if not any(fnmatch.fnmatchcase(path, rule.pattern.split("#")[0]) for path in known):
                shown = ", ".join(known[:6]) + (", ..." if len(known) > 6 else "")
                raise InputError(
                    f"layers: pattern {rule.pattern!r} fits no module; expected a glob on {shown}; correct it"
                )
        self.default = arithmetic(machine, mode)
        self._rules = [
            _Resolved(
                rule, self._resolved(rule, rule.mac), self._of_gradients(rule, rule.gradients),
                self._of_gradients(rule, rule.weight_gradients or rule.gradients),
            )
            for rule in rules
        ]  # fmt: skip
        self._default_backward = self._of_gradients(LayerRule("*"), None)
        self._found: dict[str, _Resolved | None] = {}

    def forward(self, name: str) -> Arithmetic:
        """Return the arithmetic of a layer by its path, with `#2` for its second call, in the forward pass."""
        rule = self._rule(name)
        return self.default if rule is None else rule.forward

    def backward(self, name: str, phase: str = INPUT_GRADIENT) -> Arithmetic:
        """Return the arithmetic of a layer's gradients: of its inputs, or of its weights."""
        rule = self._rule(name)
        if rule is None:
            return self._default_backward
        return rule.of_weights if phase == WEIGHT_GRADIENT else rule.backward

    def emulates(self, name: str) -> bool:
        """Whether a MAC computes any product of a layer, of the forward pass or of the backward pass."""
        found = (self.forward(name), self.backward(name), self.backward(name, WEIGHT_GRADIENT))
        return any(arithmetic.low is not None for arithmetic in found)

    def roles(self, op: Op) -> tuple[int, int]:
        """Return which of a unit's operand formats the operands of an Op have: where a rule has a unit of its own for
        gradients of weights, these are of the gradient of the outputs and of what it is multiplied by.
        """
        rule = self._rule(op.name)
        if op.phase != WEIGHT_GRADIENT or rule is None or rule.rule.weight_gradients is None:
            return op.roles
        return (1, 0) if op.gradient else (0, 1)

    def arithmetic(self, op: Op) -> Arithmetic:
        """Return the arithmetic of an Op; with factors it has one pass, since its score would be that of a part."""
        rule = self._rule(op.name)
        if rule is not None:
            rule.used = True
        found = self.forward(op.name) if op.phase == FORWARD else self.backward(op.name, op.phase)
        if found.high is not None and op.factors != (1.0, 1.0):
            found = found.in_one_pass("high")
        return replace(found, scalings=self._scalings(op, found)) if found.scaled else found

    def _scalings(self, op: Op, found: Arithmetic) -> Scalings:
        """Return how the operands of an Op are scaled: as the model has it where the rule says so and that can be."""
        assert found.low is not None and found.low.operands is not None
        own = self._own.get(op.name.split("#")[0], (None, None)) if op.phase == FORWARD else (None, None)
        taken: list[Scaling | ModelScales | None] = []
        for i, (scaling, model) in enumerate(zip(found.scalings, own, strict=True)):
            if not isinstance(scaling, Scaling) or scaling.when != "model":
                taken.append(scaling)
                continue
            why = "" if model is None else model.refused(op, found.low.operands[i])
            if i == 1 and model is not None and taken[0] is not None and taken[0].per == "channel":
                why = "the scales of input channels move into these weights"
            if why:
                self.own_refused[op.name, ("activations", "weights")[i]] = why
            taken.append(replace(scaling, when="dynamic") if model is None or why else model)
        return taken[0], taken[1]

    def vector(self, name: str) -> Use:
        """Return the format of the vector unit in a layer."""
        rule = self._rule(name)
        if rule is None or rule.rule.vector is None:
            return self.machine.vector_unit.format
        rule.used = True
        return rule.rule.vector

    def unused(self) -> list[str]:
        """Return the patterns of the rules that no operation has asked for."""
        return [known.rule.pattern for known in self._rules if not known.used]

    def in_words(self) -> dict[str, str]:
        """Return what decides on the bits besides the MACs of the machine, by topic."""
        words = {VECTOR_UNIT: str(self.machine.vector_unit.format)}
        if self.machine.fold_batch_norm:
            words["batch normalisation"] = "folded"
        for known in self._rules:  # of one pattern said twice the first counts
            words.setdefault(f"layers {known.rule.pattern}", str(known.rule))
        return words

    def arithmetics(self) -> tuple[Arithmetic, ...]:
        """Return the arithmetics of the forward pass that there are."""
        return (self.default, *(known.forward for known in self._rules))

    def vectors(self) -> tuple[Use, ...]:
        """Return the formats of the vector unit that there are."""
        own = (known.rule.vector for known in self._rules)
        return (self.machine.vector_unit.format, *(use for use in own if use is not None))

    def _rule(self, name: str) -> _Resolved | None:
        if name not in self._found:
            parts = name.split("#")[0].split(".")
            # The operation's own name and path, then the modules around it: a pattern on a container holds for all in
            # it.
            paths = [name, *(".".join(parts[:end]) for end in range(len(parts), 0, -1))]
            fits = (rule for rule in self._rules if any(fnmatch.fnmatchcase(at, rule.rule.pattern) for at in paths))
            self._found[name] = next(fits, None)
        return self._found[name]

    def _resolved(self, rule: LayerRule, name: str | None) -> Arithmetic:
        """Return what a rule makes of the arithmetic of a name, or of the run's mode if that is None."""
        found = arithmetic(self.machine, self.mode if name is None else name)
        if found.low is None:
            return found
        units = tuple(_with_formats(unit, rule) for unit in found.units)
        if self.mode == "exact":
            return _scaled(Arithmetic("exact", exact_unit(units[0])), rule)
        if units != found.units:
            # Formats that the machine's own MACs do not have; they are computed, and not priced.
            found = found.with_units(units, label="custom")
        own = {name: value for name in ("tolerance", "budget") if (value := getattr(rule, name)) is not None}
        if own and found.criterion is not None:
            if rule.tolerance is not None and found.criterion.further is not None:
                raise InputError(
                    f"layers: {rule.pattern}: got a tolerance of its own in place of one for each mode; expected one "
                    "number in policy.tolerance, from which those of the other modes follow; change one of the two"
                )
            found = replace(found, criterion=replace(found.criterion, **own))
        policy = self.machine.policy
        if rule.score is not None and rule.side_metric is not None and found.criterion and policy:
            if policy.sign_safe is not None and rule.side_metric != "norm_bound":
                raise InputError(
                    f"layers: {rule.pattern}: policy.score: {rule.score} on a machine with policy.sign_safe, which "
                    "takes norms; expected side_metric: norm_bound; write it, or take another score"
                )
            own_score = replace(found.criterion, score=rule.score, side_format=rule.side_format)
            policy = replace(policy, score=rule.score, side_metric=rule.side_metric, side_format=rule.side_format)
            found = replace(found, criterion=own_score, policy=policy)
        return _scaled(found, rule)

    def _of_gradients(self, rule: LayerRule, named: str | None) -> Arithmetic:
        """Return the arithmetic of gradients: the one named, else that of the forward pass, of two the high one."""
        name = named or rule.mac or self.mode
        found = self._resolved(rule, "high" if name == "two_pass" else name)
        # What is summed over differs from phase to phase, and with it what could share a scale.
        first, second = (
            replace(s, per="tensor", block=0, when="dynamic") if isinstance(s, Scaling) else None
            for s in found.scalings
        )
        return replace(found, scalings=(first, second))


def _with_formats(spec: MacSpec, rule: LayerRule) -> MacSpec:
    return replace(
        spec,
        operands=spec.operands if rule.operands is None else rule.operands,
        output=spec.output if rule.output is None else rule.output,
    )


def _scaled(found: Arithmetic, rule: LayerRule) -> Arithmetic:
    """Return an arithmetic with the scales of a rule, under which operands saturate."""
    scalings = rule.activations, rule.weights
    if not any(scalings):
        return found
    units = [_saturating(unit, rule) for unit in found.units]
    if found.high is not None:
        if any(scaling is not None and scaling.per == "block" for scaling in scalings):
            raise InputError(
                f"layers: {rule.pattern}: got scales per block with two passes; expected per: tensor, row or channel, "
                "or one pass; change one of the two"
            )
        if len({unit.operands for unit in units}) > 1:
            raise InputError(
                f"layers: {rule.pattern}: got scales with passes of different operands, "
                f"{' and '.join(map(str, units))}; expected the same formats in all; add operands to the rule"
            )
    return found.with_units(units, scalings=scalings)


def _saturating(spec: MacSpec, rule: LayerRule) -> MacSpec:
    """Return a MAC whose scaled operands saturate: what a percentile or earlier samples leave out has to go somewhere.

    Raises:
        InputError: operands that have no format, or one that cannot be scaled so.
    """
    if spec.operands is None:
        raise InputError(
            f"layers: {rule.pattern}: got scales for {spec}, which takes its operands as they are; expected formats to "
            "scale to; add e.g. operands: fp8_e4m3"
        )
    operands = list(spec.operands)
    for i, scaling in enumerate((rule.activations, rule.weights)):
        if scaling is not None:
            scales.check(scaling, operands[i].format)
            operands[i] = replace(operands[i], overflow="sat")
    return replace(spec, operands=(operands[0], operands[1]))
