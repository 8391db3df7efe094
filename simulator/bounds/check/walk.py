"""The walk along a certificate: every stated bound against what its rule gives from the bounds that it rests on.

Nothing is searched, and nothing is believed but the premises: the graph and its constants, what computes, and c. Each
value is bounded from the stated bounds of those before it, each interval of derivatives from the stated ones of those
after it, so that all of them hold if each step does.

(C60) Forward: z_i - z_j keeps its sign if its lower end exceeds d_i + d_j. (C61) Adjoint: put the computed operations
in the place of the exact ones, one after the other. Each step changes z_i - z_j by at most the local error of the
operation times the largest derivative of what follows, between exact and computed values, by the mean value theorem;
the boxes hold all these, as each bound without the error of its own operation is less. So B is at least the sum of
|derivative| times local error over the elements that belong to the sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flint import arb

from . import convolutions, functions, groups, integers, moves, normal, pairs, smooth, softmax
from . import products as of_products
from .activations import check_activation
from .balls import INF, ZERO, Balls, Ends, Places, balls, is_infinite, least_magnitude, magnitude
from .document import Certificate, Fault, Node, NoRule
from .formats import Rounding
from .moves import PARTED
from .places import fits
from .rule import TORCH, Found, Operand, Premises, Reader, Rule, each

RULES: Mapping[str, Rule] = {
    **moves.RULES, **groups.RULES, **functions.RULES, **smooth.RULES, **pairs.RULES, **softmax.RULES, **normal.RULES,
    **of_products.RULES, **convolutions.RULES, **integers.RULES,
}  # fmt: skip


class Counts(NamedTuple):
    """How many numbers were checked."""

    values: int
    derivatives: int


def follow(found: Certificate) -> tuple[list[str], Counts]:
    """Return what is wrong, in sentences, and what was checked; Fault where the walk cannot go on."""
    return _Walk(found).run()


class _Walk:
    def __init__(self, found: Certificate) -> None:
        self._found = found
        self._nodes = [part for node in found.nodes for part in (node.parts() if node.kind in PARTED else [node])]
        self._problems: list[str] = []
        self._premises = _premises(found)
        self._stated: dict[int, Operand] = {}
        self._local: dict[int, Balls] = {}
        self._at = Reader(self._premises, found.constants, self._stated)
        self._names: dict[int, str] = {}
        self._derivatives = 0

    def run(self) -> tuple[list[str], Counts]:
        for node in self._found.nodes:
            _check_vector(node, self._premises)
            check_activation(node, self._found.nodes, self._found.output)
        samples = self._inputs()
        made = set(self._stated)
        for node in self._nodes:
            made.add(self._forward(node, made))
        extra = [number for number in self._found.values if number not in made]
        if extra:
            raise Fault(f"values: {extra[0]} is stated, and no operation makes it")
        classes = self._output(samples)
        bounds = self._claimed_bounds(samples, classes)
        self._decide(samples, classes, bounds)
        return self._problems, Counts(sum(len(x.lo) for x in self._stated.values()), self._derivatives)

    # --- forward ----------------------------------------------------------------------------------------------------

    def _inputs(self) -> int:
        """Take the inputs, but for those that no operation reads as values; return the number of samples."""
        lengths = set()
        for one in self._found.inputs:
            lo, hi = one.lo, one.hi
            if lo.shape != hi.shape or not (lo.numbers and hi.numbers):
                raise Fault(f"inputs: the shapes {list(lo.shape)} and {list(hi.shape)} are not those of samples")
            if not all(-math.inf < a <= b < math.inf for a, b in zip(lo.numbers, hi.numbers, strict=True)):
                raise Fault("inputs: some ends are not finite, or not in order")
            if one.value is None:
                continue
            if not lo.shape:
                raise Fault(f"inputs: {one.name} has no axis of samples, and is said to be value {one.value}")
            if one.value in self._names:
                raise Fault(f"inputs: value {one.value} is there twice")
            lengths.add(lo.shape[0])
            self._names[one.value] = f"value {one.value}, the input"
            size, per = len(lo.numbers), math.prod(lo.shape[1:])
            zeros = [ZERO] * size
            found = Found(lo.shape, balls(lo.numbers), balls(hi.numbers), zeros, zeros, zeros, np.arange(size) // per)
            self._take(one.value, found)
        if len(lengths) != 1:
            raise Fault(f"inputs: of {sorted(lengths)} samples; expected the same number in all, and one at least")
        return int(lengths.pop())

    def _forward(self, node: Node, made: set[int]) -> int:
        """Check what an operation makes; return the number of that value."""
        rule = RULES.get(node.kind)
        if rule is None:
            raise NoRule(f"{node}: no rule for {node.kind}")
        unknown = [read for read in node.inputs if read not in made]
        if unknown:
            raise Fault(f"{node}: reads value {unknown[0]}, which no operation before it makes")
        if len(node.outputs) != rule.results:
            raise Fault(f"{node}: it is said to have {len(node.outputs)} results; expected {rule.results}")
        number = node.outputs[0]
        if number is None or number in made:
            raise Fault(f"{node}: its result has no number, or one that is taken")
        self._names[number] = f"value {number} ({node})"
        found = rule.forward(node, self._at, self._parts(number, node.shapes[0]))
        fits(node, found.shape)
        self._take(number, found)
        return number

    def _parts(self, number: int, shape: Sequence[int]) -> dict[str, Balls]:
        """Return the stated bounds of a value."""
        name, stated = self._names[number], self._found.values.get(number)
        if stated is None:
            raise Fault(f"{name}: its bounds are missing")
        for part, array in stated.items():
            if array.shape != tuple(shape):
                raise Fault(f"{name}: {part} has the shape {list(array.shape)}; expected {list(shape)}")
        return {name: balls(array.numbers) for name, array in stated.items()}

    def _take(self, number: int, found: Found) -> None:
        """Check stated bounds against those of the rule, and take the stated ones."""
        parts = self._parts(number, found.shape)
        name, owner = self._names[number], found.owner.ravel()
        if bool((owner < 0).any()):
            raise Fault(f"{name}: it depends on no sample")
        self._compare(f"{name}: lo", found.shape, owner, parts["lo"], found.lo, above=False)
        self._compare(f"{name}: hi", found.shape, owner, parts["hi"], found.hi, above=True)
        most = each(magnitude, parts["lo"], parts["hi"])
        least = each(least_magnitude, parts["lo"], parts["hi"])
        relative = found.relative or [INF] * len(most)
        d = each(_absolute, found.d, relative, most)
        e = each(_relative, d, relative, least)
        self._compare(f"{name}: d", found.shape, owner, parts["d"], d, above=True)
        self._compare(f"{name}: e", found.shape, owner, parts["e"], e, above=True)
        self._compare(f"{name}: local", found.shape, owner, parts["local"], found.local, above=True)
        self._stated[number] = Operand(
            tuple(found.shape), parts["lo"], parts["hi"], parts["d"], parts["e"], owner, number
        )
        self._local[number] = parts["local"]

    def _compare(self, what: str, shape: Sequence[int], owner: Places, stated: Balls, rule: Balls, above: bool) -> None:
        """Note where a stated bound is not proved to be one: at least what the rule gives, or at most."""
        ok = _is_above if above else _is_below
        wrong = [i for i, (x, y) in enumerate(zip(stated, rule, strict=True)) if not ok(x, y)]
        if wrong:
            first = wrong[0]
            place = ", ".join(str(int(n)) for n in np.unravel_index(first, tuple(shape)))
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            self._problems.append(
                f"{what}: sample {int(owner[first])}, element ({place}): {_shown(stated[first])} is "
                f"{'less' if above else 'more'} than the {_shown(rule[first])} that its rule gives{more}"
            )

    # --- the claim --------------------------------------------------------------------------------------------------

    def _output(self, samples: int) -> int:
        """Check the form of the claim; return the number of classes."""
        claim, output = self._found.claim, self._found.output
        if output not in self._stated:
            raise Fault(f"graph: the output, value {output}, is none of the values")
        z = self._stated[output]
        if len(z.shape) != 2 or z.shape[0] != samples or z.shape[1] < 2:
            raise Fault(f"{self._names[output]}: got the output's shape {list(z.shape)}; expected samples and classes")
        classes = z.shape[1]
        if not bool((z.owner.reshape(z.shape) == np.arange(samples)[:, None]).all()):
            raise Fault(f"{self._names[output]}: its rows are not the samples")
        if len(claim.top) != samples or len(claim.certified) != samples or max(claim.top) >= classes:
            raise Fault(f"claim: top and certified are not those of {samples} samples and {classes} classes")
        for name, array in (("margins", claim.margins), ("bounds", claim.bounds)):
            if array.shape != (samples, classes):
                raise Fault(f"claim: {name} has the shape {list(array.shape)}, not {[samples, classes]}")
        if self._found.running != ("running" in claim.method):
            raise Fault(f"unit: running is {self._found.running}, and the method is {claim.method}")
        return classes

    def _claimed_bounds(self, samples: int, classes: int) -> dict[int, Balls]:
        """Return for each class what the bounds of its margins are at least, by sample."""
        if self._found.claim.method.startswith("adjoint"):
            return self._adjoint(samples, classes)
        if self._found.gradients:
            raise Fault("gradients: some are stated, and the method needs none")
        z, top = self._stated[self._found.output], self._found.claim.top
        return {
            j: [z.d[i * classes + j] + z.d[i * classes + top[i]] for i in range(samples)] for j in range(classes)
        }  # fmt: skip

    def _decide(self, samples: int, classes: int, bounds: Mapping[int, Balls]) -> None:
        """Check margins and bounds, and what is certified by them."""
        claim, z = self._found.claim, self._stated[self._found.output]
        for i, top in enumerate(claim.top):
            closest = True
            for j in range(classes):
                margin, bound = (x.numbers[i * classes + j] for x in (claim.margins, claim.bounds))
                where = f"claim: sample {i}, class {j}"
                if j == top:
                    if (margin, bound) != (math.inf, 0.0):
                        self._problems.append(f"{where}: a margin of the top class is stated")
                    continue
                least = z.lo[i * classes + top] - z.hi[i * classes + j]
                if not _is_below(arb(margin), least):
                    self._problems.append(
                        f"{where}: the margin {margin!r} is more than the {_shown(least)} of the outputs' ends"
                    )
                if not _is_above(arb(bound), bounds[j][i]):
                    self._problems.append(f"{where}: the bound {bound!r} is less than {_shown(bounds[j][i])}")
                closest = closest and margin > bound
            if claim.certified[i] != closest:
                self._problems.append(
                    f"claim: sample {i}: certified is {claim.certified[i]}; margins and bounds say {closest}"
                )

    # --- on the way back --------------------------------------------------------------------------------------------

    def _adjoint(self, samples: int, classes: int) -> dict[int, Balls]:
        """Check every interval of derivatives; return B of each class, by sample."""
        found = self._found
        if sorted(found.gradients) != list(range(classes)):
            raise Fault(f"gradients: those of {len(found.gradients)} classes are stated; expected {classes}")
        needed = self._needed()
        for j, grads in found.gradients.items():
            wrong = [number for number in {*needed, *grads} if (number in grads) != (number in needed)]
            if wrong:
                lacking = "is missing" if wrong[0] in needed else "is stated, and the output does not depend on it"
                raise Fault(f"gradients: {j}: value {wrong[0]} {lacking}")
        top = found.claim.top
        collected: dict[int, list[Ends]] = {
            found.output: [
                Ends(*([arb((k == top[i]) - (k == j)) for i in range(samples) for k in range(classes)],) * 2)
                for j in range(classes)
            ]
        }
        totals = {j: [ZERO] * samples for j in range(classes)}
        makers = {node.outputs[0]: node for node in self._nodes}
        for number in reversed(self._stated):
            if number not in needed:
                continue
            if number not in collected:
                raise Fault(f"{self._names[number]}: what reads it has no derivatives by it")
            stated = self._gradients(number, collected.pop(number), classes)
            self._count(number, stated, totals)
            node = makers.get(number)
            for source, parts in [] if node is None else RULES[node.kind].backward(node, self._at, stated):
                before = collected.get(source)
                collected[source] = parts if before is None else each(_plus, before, parts)
        return totals

    def _needed(self) -> set[int]:
        """Return the values that the output depends on."""
        needed = {self._found.output}
        for node in reversed(self._nodes):
            if node.outputs[0] in needed:
                needed |= set(node.inputs)
        return needed

    def _gradients(self, number: int, rule: list[Ends], classes: int) -> list[Ends]:
        """Check the derivatives with respect to a value, of every class; return the stated ones."""
        x, stated = self._stated[number], []
        for j in range(classes):
            name, ends = f"{self._names[number]}: derivatives of class {j}", self._found.gradients[j][number]
            for array in ends:
                if array.shape != x.shape:
                    raise Fault(f"{name}: they have the shape {list(array.shape)}, not {list(x.shape)}")
            lo, hi = (balls(array.numbers) for array in ends)
            self._compare(f"{name}: lo", x.shape, x.owner, lo, rule[j].lo, above=False)
            self._compare(f"{name}: hi", x.shape, x.owner, hi, rule[j].hi, above=True)
            self._derivatives += len(lo)
            stated.append(Ends(lo, hi))
        return stated

    def _count(self, number: int, grads: Sequence[Ends], totals: Mapping[int, Balls]) -> None:
        """Add what the local errors of a value do to each margin."""
        owner = self._stated[number].owner.tolist()
        wrong = [(i, local) for i, local in enumerate(self._local[number]) if local != 0]
        for j, g in enumerate(grads):
            for i, local in wrong:
                part = INF if is_infinite(local) else magnitude(g.lo[i], g.hi[i]) * local
                totals[j][owner[i]] = totals[j][owner[i]] + part


def _plus(x: Ends, y: Ends) -> Ends:
    return Ends([a + b for a, b in zip(x.lo, y.lo, strict=True)], [a + b for a, b in zip(x.hi, y.hi, strict=True)])


def _absolute(d: arb, e: arb, most: arb) -> arb:
    """Return the smaller one of two absolute bounds, (C7)."""
    by_e = ZERO if e == 0 else e * most
    return by_e if by_e <= d else d


def _relative(d: arb, e: arb, least: arb) -> arb:
    """Return the smaller one of two relative bounds, (C7), where d is already the smaller absolute one."""
    if d == 0:
        return ZERO
    by_d = d / least if least > 0 else INF
    return by_d if by_d <= e or not e.is_finite() else e


def _is_above(stated: arb, rule: arb) -> bool:
    return bool(stated >= rule) or bool(is_infinite(stated) and stated > 0)


def _is_below(stated: arb, rule: arb) -> bool:
    return bool(stated <= rule) or bool(is_infinite(stated) and stated < 0)


def _shown(x: arb) -> str:
    return repr(float(x.mid())) if x.is_finite() else "infinity"


def _premises(found: Certificate) -> Premises:
    """Return what computes; Fault where the parts of the file that say so contradict each other."""
    bits = found.precision
    if bits is not None and not 2 <= bits <= 53:
        raise Fault(f"unit: precision: got {bits}; expected from 2 to 53 bits")
    if found.fixed == (bits is not None):
        raise Fault(f"unit: fixed is {found.fixed}, and the precision is {bits}")
    if found.library != (4.0 if bits is None else 1.0):
        raise Fault(f"unit: library: got {found.library}; expected {4.0 if bits is None else 1.0}")
    if found.machine is not None and bits is not None:
        raise Fault(f"unit: got the machine {found.machine} and a precision; expected one of both")
    shown = list(products(found))
    if found.machine is None and len(shown) > 1:
        raise Fault(f"unit: got products on {shown[0]} and on {shown[1]}; expected one unit, as no machine is named")
    if found.machine is None and not all(node.ordered for node in found.nodes if node.mac is not None):
        raise Fault("unit: got products in torch's own order; expected one unit, as no machine is named")
    vector = TORCH if bits is None else Rounding(bits, ZERO, INF)
    return Premises(bits, found.running, arb(found.library), vector)


def products(found: Certificate) -> dict[str, None]:
    """Return what computes products, as the operations say it, each once."""
    shown: dict[str, None] = {}
    for node in found.nodes:
        if node.mac is None:
            continue
        text = node.mac if node.ordered else f"{node.mac} in torch's own order"
        if node.second is not None:
            text += f", again on {node.second.mac} above the tolerance {node.second.tolerance:g}"
        shown[text] = None
    return shown


def _check_vector(node: Node, premises: Premises) -> None:
    """Fault unless what is no product is rounded as the premises say: of narrower vector units no rule is known."""
    r = premises.vector
    expected = {
        "u": 2.0**-r.bits, "eta": float(r.eta), "largest": float(r.largest) if r.largest.is_finite() else None,
        "nearest": True,
    }  # fmt: skip
    if dict(node.vector) != expected:
        raise NoRule(f"{node}: no rule for the vector unit {dict(node.vector)}; expected {expected}")
