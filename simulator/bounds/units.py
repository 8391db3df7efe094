"""What computes a network, for the analysis: a machine in one of its modes, one MAC unit for all, or a precision."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from formats import Use
from simulator.arithmetic.spec import MacSpec, mac
from simulator.errors import InputError
from simulator.hardware import Machine
from simulator.network.batches import Batch
from simulator.network.consumers import Consumer, record_first_sample
from simulator.network.emulation import Emulation
from simulator.network.vector import FLOAT32
from simulator.result import PRICED_MODES

from .roundings import FLOAT32 as OF_FLOAT32
from .roundings import of_precision, of_use
from .rule import Second, Unit

# Torch's own functions are taken to be off by at most 2 ulp, which is 4 u; its results may flush what is subnormal.
_TORCH_LIBRARY = 4.0
_TORCH = replace(OF_FLOAT32, eta=2.0**-126)
SEQUENTIAL = "seq(fp32)"


def of_mac(spec: str | MacSpec | None = None, precision: int | None = None) -> Unit:
    """Return one unit for every product.

    Args:
        spec: the MAC; None for a product and a sum, both rounded, in order.
        precision: significand bits that all formats of it are taken to have, with any exponent, and that all other
            operations are rounded to, correctly; None for the formats that it names, with torch's float32 beside it.
    """
    found = mac(SEQUENTIAL if spec is None else spec)
    if precision is not None:
        rounding = of_precision(precision)
        found = replace(found, operands=None)
        every = rounding(Use.parse("fp32"))
        words = f"{found}, {precision} significand bits"
        return Unit(rounding, lambda name: found, lambda path: every, 1.0, words, fixed=False)
    return Unit(of_use, lambda name: found, lambda path: _TORCH, _TORCH_LIBRARY, str(found), fixed=True)


def of_machine(model: nn.Module, machine: Machine, mode: str, x: Batch) -> Unit:
    """Return a machine in a mode, low, high or two_pass, with its rules of layers and its vector unit.

    Args:
        x: samples, the first of which shows what consumes each product.
    Raises:
        InputError: what has no rule: scaled operands, folded normalisations, ladders, plans, a mode that the machine
            does not have.
    """
    if mode not in PRICED_MODES:
        raise InputError(f"bounds: mode: got {mode!r}; expected low, high or two_pass; choose one")
    if mode == "two_pass" and (machine.mac.middle or (machine.policy is not None and machine.policy.plan is not None)):
        raise InputError(
            f"bounds: {machine.name} has more than two modes, or a static plan: no rule; expected low and high; give "
            "another mode"
        )
    emulation = Emulation(model, machine, default=mode)
    rules = emulation.rules
    own = x.copy()  # that the pass may write to
    consumers = record_first_sample(model, model, own.args, dict(own.kwargs)) if mode == "two_pass" else {}
    if machine.fold_batch_norm:
        raise InputError(
            f"bounds: {machine.name} folds batch normalisations into weights; expected a machine that does not; write "
            "vector_unit.batch_norm: separate"
        )

    def unit_of(name: str) -> MacSpec | None:
        found = rules.forward(name)
        if found.scaled:
            raise InputError(f"bounds: {name}: its operands are scaled: no rule; expected none; leave its scales out")
        return found.high if mode == "high" and found.high is not None else found.low

    def second(name: str) -> Second | None:
        found = rules.forward(name)
        if found.high is None or found.criterion is None or mode == "high":
            return None
        criterion, consumer = found.criterion, consumers.get(name, Consumer())
        plain = criterion.score == "kappa_prime" and criterion.budget is None and consumer.affine is None
        return Second(found.high, float(criterion.tolerance), consumer.activation if plain else "")

    def held(path: str) -> Use | None:
        use = rules.vector(path)
        return None if use == FLOAT32 else use

    words = f"{machine.name}, {mode}"
    return Unit(of_use, unit_of, lambda path: _TORCH, _TORCH_LIBRARY, words, fixed=True, held=held, second=second)
