"""calibrate: how far each number is from the truth, by a repetition of the run in float64."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from simulator.errors import InputError, first_line
from simulator.hardware import Machine

from .labels import EXPECTED, GUARANTEES, LABELS, bits_of, precision
from .statistics import GRADIENT, OF_PARAMETER, PARAMETER, VALUE
from .track import Tracker, UntrackedOperation, track

if TYPE_CHECKING:
    import os

EXCESSES = (0, 1, 3, 6)  # bits by which claims are counted as too many
_FINE = 16  # bins a bit, of the medians of what is no whole number
# Of claims and true bits: what float64 itself is off by, beside numbers of 24 bits, is not held against a claim.
_SLACK = 2.0**-20

Step = Callable[[nn.Module, torch.optim.Optimizer | None, int], Any]


@dataclass(frozen=True)
class Row:
    """How a number did on a tensor, or on all of a kind, over all steps and elements.

    Args:
        kind: value (outputs of modules) | gradient (of these) | gradient of parameter | parameter (after the step).
        name: of the module or parameter; None: all of the kind. label, guarantee: of the number.
        elements: compared, in all steps. claimed, true: median bits; true ones are -log2 of the relative error, at most
            those of the type, in sixteenths. over: share of the elements that claim more than is true, by more than 0,
            and by 1, 3 and 6 bits or more; no bit claimed is no claim. under: median of true less claimed bits, where
            not too many are claimed.
        within_2, within_4, rms: of the expected number: share of the elements with errors within two and four standard
            deviations, and the root mean square of the errors over that of the deviations. None for others.
    """

    kind: str
    name: str | None
    label: str
    guarantee: str
    elements: int
    claimed: float
    true: float
    over: tuple[float, ...]
    under: float | None
    within_2: float | None
    within_4: float | None
    rms: float | None


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found; it prints as a table.

    Args:
        steps: compared. kinds: a Row for each kind of tensor and number. tensors: for each tensor and number.
        excesses: bits of Row.over. notes: what was followed by a shadow itself.
    """

    steps: int
    kinds: tuple[Row, ...]
    tensors: tuple[Row, ...]
    excesses: tuple[int, ...] = EXCESSES
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        from simulator.report.bits import calibration_views
        from simulator.report.console import text_of

        return text_of(calibration_views(self.to_dict()))


def calibrate(
    model: nn.Module,
    step: Step,
    steps: int = 1,
    optimiser: Callable[[Any], torch.optim.Optimizer] | None = None,
    numbers: Sequence[str] = LABELS,
    hw: Machine | str | os.PathLike[str] | None = None,
    layers: Mapping[str, Any] | None = None,
    seed: int = 0,
    roundings: str = "bounded",
    restart: str = "never",
) -> Calibration:
    """Repeat steps in float64 from the same state, and measure by how much each number claims too much or too little.

    The model stays as it is: copies of it are run. What a step draws at random is drawn from torch's generator, which
    starts alike in both; choices that float64 makes otherwise (a maximum, a comparison, a draw of another type) are
    seen as errors of the run.

    Args:
        model: in float32, float16 or bfloat16.
        step: (model, optimiser, number of the step) -> anything; it runs the model and, for gradients, calls backward()
            and the optimiser's step(). The same is called with the copy in float64, whose inputs are converted.
        steps: how many. optimiser: makes one of parameters, as `lambda p: torch.optim.SGD(p, lr=0.1)`; None: step gets
            None.
        numbers, hw, layers, roundings, restart: as for `track`; with restart="step" the copy in float64 starts every
            step from the state of the run. seed: of torch's generator, and as for `track`.
    Returns:
        The Calibration.
    Raises:
        InputError: steps below 1, or a model in float64, which nothing here is finer than.
    """
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"track: calibrate: steps: got {steps!r}; expected a whole number from 1; give e.g. 3")
    if any(p.dtype == torch.float64 for p in itertools.chain(model.parameters(), model.buffers())):
        raise InputError(
            "track: calibrate: got a model in float64, beside which there is nothing finer; expected float32 or "
            "narrower; convert it with .float()"
        )
    run, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    exact.register_forward_pre_hook(_converted, with_kwargs=True)
    own = [None if optimiser is None else optimiser(of.parameters()) for of in (run, exact)]
    found: dict[tuple[str, str, str], _Tally] = {}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrackedOperation)  # they are in the notes
        torch.manual_seed(seed)
        bits = track(run, numbers, hw, layers, seed, restart=restart, roundings=roundings)
        for number in range(steps):
            if restart == "step":
                _same_state(run, exact, *own)
            state = torch.get_rng_state()
            truth: dict[tuple[str, str], Tensor] = {}
            with _seen(exact, partial(_keep, truth)):
                _in_float64(step, exact, own[1], number)
                _written(exact, truth)
            torch.set_rng_state(state)
            with bits, _seen(run, partial(_compare, bits, found, truth)):
                step(run, own[0], number)
            for kind, name, x in _parameters(run):
                _compare(bits, found, truth, kind, name, x)
    return _calibration(steps, found, bits)


def _in_float64(step: Step, exact: nn.Module, optimiser: torch.optim.Optimizer | None, number: int) -> None:
    try:
        step(exact, optimiser, number)
    except RuntimeError as error:
        raise InputError(
            f"track: calibrate: the copy of {type(exact).__name__} in float64 fails ({first_line(error)}); expected "
            "code that takes the type of its parameters; write constants with dtype=x.dtype"
        ) from error


def _converted(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """Give the copy in float64 its inputs in float64."""

    def widened(x: Any) -> Any:
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    return tree_map(widened, args), tree_map(widened, kwargs)


def _keep(truth: dict[tuple[str, str], Tensor], kind: str, name: str, x: Tensor) -> None:
    truth[kind, name] = x.detach().clone()


def _same_state(run: nn.Module, exact: nn.Module, own: Any, other: Any) -> None:
    exact.load_state_dict(run.state_dict())
    if own is not None and other is not None:
        other.load_state_dict(copy.deepcopy(own.state_dict()))


@contextmanager
def _seen(model: nn.Module, see: Callable[[str, str, Tensor], None]) -> Iterator[None]:
    """Have outputs of modules seen as they are computed, and their gradients."""
    calls: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        def watched(module: nn.Module, args: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return
            calls[name] = calls.get(name, 0) + 1
            called = name if calls[name] == 1 else f"{name} #{calls[name]}"
            see(VALUE, called, output)
            if output.requires_grad:
                output.register_hook(lambda gradient: see(GRADIENT, called, gradient))

        return watched

    handles = [
        module.register_forward_hook(watch(name)) for name, module in model.named_modules()
        if name and not any(module.children())
    ]  # fmt: skip
    handles.append(model.register_forward_hook(watch("output")))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _parameters(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            yield OF_PARAMETER, name, parameter.grad
            yield PARAMETER, name, parameter.detach()


def _written(model: nn.Module, truth: dict[tuple[str, str], Tensor]) -> None:
    truth.update({(kind, name): x.clone() for kind, name, x in _parameters(model)})


class _Tally:
    """Sums over elements, from which a Row is made."""

    def __init__(self) -> None:
        self.elements = 0
        exactly = torch.float64
        self.counts = torch.zeros(len(EXCESSES) + 2, dtype=exactly)  # over-claims; within two and four deviations
        self.squares = torch.zeros(2, dtype=exactly)  # of errors and of deviations, where both are finite
        self.claimed, self.true, self.short = (torch.zeros(54 * _FINE, dtype=exactly) for _ in range(3))

    def take(self, claimed: Tensor, true: Tensor, error: Tensor, deviation: Tensor) -> None:
        """Count the elements of a tensor."""
        excess = claimed - true
        over = [excess > (_SLACK if by == 0 else by - _SLACK) for by in EXCESSES]
        within = [error <= times * deviation for times in (2.0, 4.0)]
        self.elements += claimed.numel()
        self.counts += torch.stack([*((claimed > 0) & o for o in over), *within]).flatten(1).double().sum(1)
        known = torch.isfinite(error) & torch.isfinite(deviation)
        self.squares += torch.stack([error[known].square().sum(), deviation[known].square().sum()])
        for counts, of in ((self.claimed, claimed), (self.true, true), (self.short, -excess[excess <= _SLACK])):
            counts += torch.bincount((of.flatten().clamp(min=0.0) * _FINE).long(), minlength=len(counts))

    def add(self, other: _Tally) -> None:
        """Count what another one has counted."""
        self.elements += other.elements
        for name in ("counts", "squares", "claimed", "true", "short"):
            getattr(self, name).add_(getattr(other, name))

    def row(self, kind: str, name: str | None, label: str) -> Row:
        """Return what was counted."""
        shares = (self.counts / max(1, self.elements)).tolist()
        statistical = label == EXPECTED
        errors, deviations = self.squares.tolist()
        return Row(
            kind, name, label, GUARANTEES[label], self.elements, _median(self.claimed) or 0.0,
            _median(self.true) or 0.0, tuple(shares[: len(EXCESSES)]), _median(self.short),
            shares[-2] if statistical else None, shares[-1] if statistical else None,
            (errors / deviations) ** 0.5 if statistical and deviations > 0 else None,
        )  # fmt: skip


def _median(counts: Tensor) -> float | None:
    total = counts.cumsum(0)
    return float((total < total[-1] / 2).sum()) / _FINE if total[-1] > 0 else None


def _compare(
    bits: Tracker, found: dict[tuple[str, str, str], _Tally], truth: Mapping[tuple[str, str], Tensor],
    kind: str, name: str, x: Tensor,
) -> None:  # fmt: skip
    """Count how far each number is from the truth, which tensors in float64 give."""
    exact = truth.get((kind, name))
    most = precision(x.dtype)
    if exact is None or most is None or exact.shape != x.shape:
        return
    known = bits.of(x)
    with _disable_current_modes(), torch.no_grad():
        error = (known.values.double() - exact).abs()
        true = torch.where(error == 0, float(most), -torch.log2(error / exact.abs()))
        true = torch.nan_to_num(true, nan=0.0, posinf=float(most), neginf=0.0).clamp(0, most)
        for label, noise in known.noise.items():
            claimed = bits_of(label, known.values, noise, most).double()
            deviation = torch.zeros_like(error) if noise is None else noise.double().expand(error.shape)
            found.setdefault((kind, name, label), _Tally()).take(
                claimed, true, error, torch.nan_to_num(deviation, nan=torch.inf)
            )


def _calibration(steps: int, found: Mapping[tuple[str, str, str], _Tally], bits: Tracker) -> Calibration:
    kinds = (VALUE, GRADIENT, OF_PARAMETER, PARAMETER)
    by_kind = {(kind, label): _Tally() for kind in kinds for label in bits.numbers}
    for (kind, _, label), tally in found.items():
        by_kind[kind, label].add(tally)
    return Calibration(
        steps,
        tuple(tally.row(kind, None, label) for (kind, label), tally in by_kind.items() if tally.elements),
        tuple(tally.row(*key) for key, tally in found.items()),
        notes=tuple(f"no rule: {name}, {times} times" for name, times in bits.shadowed.items()),
    )
