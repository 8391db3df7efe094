"""The second pass in a machine file: its policy, and the engine beside the array that may do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from formats import FixedFormat, FloatFormat, Use
from simulator.arithmetic.accumulators import Exact, result_use, without_late
from simulator.arithmetic.ladder import roundoff_ratio
from simulator.errors import InputError

from .document import Keys, Report
from .records import Array, Mac, MacMode, Policy, SideEngine
from .schema import PolicySection, SideEngineSection
from .side_metric import side_metric
from .static_plan import StaticPlan, read_static_plan


def side_engine(form: SideEngineSection, array: Array, high: MacMode, report: Report) -> SideEngine | None:
    """Return the engine of a section; None with a problem.

    Args:
        form: the section. array, high: of the machine. report: notes what is wrong.
    """
    needed, others = (("lanes",), ("rows", "columns")) if form.kind == "dot" else (("rows", "columns"), ("lanes",))
    fields = SideEngineSection.model_fields
    for key in needed:
        if getattr(form, key) is None:
            words, example = fields[key].description, (fields[key].examples or [""])[0]
            report(("side_engine", key), f"missing; expected {words}; add e.g. '{key}: {example}'")
    for key in others:
        if getattr(form, key) is not None:
            report(
                ("side_engine", key),
                f"got {getattr(form, key)} with side_engine.kind: {form.kind}; expected {' and '.join(needed)}; "
                f"remove it, or write kind: {'array' if form.kind == 'dot' else 'dot'}",
            )
    if form.lanes is not None:
        return SideEngine(form.lanes, None, form.queue)
    if form.rows is None or form.columns is None:
        return None
    # One MAC has one order of summation: the runs of the array's rows are those of whole folds of the engine.
    if array.dataflow in ("ws", "is") and not _without_order(high) and array.rows % form.rows:
        report(
            ("side_engine", "rows"),
            f"got {form.rows}, in which sums would end elsewhere than in the {array.rows} of array.rows; expected a "
            "number that divides these, so that the second pass sums in the order of mac.high; change one of the two",
        )
    own = replace(array, rows=form.rows, columns=form.columns, copies=1)
    return SideEngine(form.rows * form.columns * high.rate, own, form.queue)


def _without_order(mode: MacMode) -> bool:
    return isinstance(without_late(mode.spec.accumulator), Exact)


def usual_place(gather: str, engine: str | None) -> str:
    """Return what recomputes a gather unless a file says it: side_engine or array.

    Args:
        engine: kind of the side engine, dot | array; None without one.
    """
    return "side_engine" if engine == "array" or (engine == "dot" and gather == "element") else "array"


def usual_overlap(runs_on: str) -> str:
    """Return the overlap of the passes unless a file says it."""
    return "tile" if runs_on == "side_engine" else "none"


def two_pass_policy(
    form: PolicySection,
    engine: SideEngineSection | None,
    mac: Mac,
    given: Callable[..., bool],
    report: Report,
    folder: Path,
) -> Policy:
    """Return the policy of a section.

    Args:
        form: the section. engine: that of the side engine. mac: of the machine, with two modes.
        given: whether a path of keys stands in the file. report: notes what is wrong. folder: of the file.
    """
    metric, side_format = side_metric(form.score, form.side_metric, form.side_format, report, ("policy",))
    kind = None if engine is None else engine.kind
    gather = form.gather or ("element" if kind == "dot" else "coltile")
    runs_on = form.runs_on or usual_place(gather, kind)
    overlap = form.overlap or usual_overlap(runs_on)
    if gather == "element" and kind != "dot":
        report(
            ("policy", "gather") if given("policy", "gather") else ("policy",),
            f"got element without a {'side' if engine is None else 'dot-product'} engine; expected row, coltile or "
            f"tile; write one, or {'add side_engine' if engine is None else 'side_engine.kind: dot'}",
        )
    elif gather == "element" and runs_on == "array":
        report(
            ("policy", "runs_on"),
            "got array, which cannot take single outputs, with policy.gather: element; expected side_engine; "
            "write it, or another gather",
        )
    elif runs_on == "side_engine" and engine is None:
        report(
            ("policy", "runs_on"),
            "got side_engine in a machine without one; expected array; write it, or add side_engine",
        )
    elif runs_on == "array" and engine is not None:
        report(
            ("side_engine",),
            f"got an engine that policy.gather: {gather} does not use, as it runs on the array; expected none; remove "
            "it, or write policy.runs_on: side_engine",
        )
    if runs_on == "array" and overlap == "tile":
        report(
            ("policy", "overlap"),
            f"got tile, but policy.gather: {gather} runs on the array itself; expected none; write none",
        )
    if form.budget_over == "network" and form.budget is None:
        report(
            ("policy", "budget_over"), "got network without a budget; expected policy.budget; add e.g. 'budget: 0.1'"
        )
    if form.weights == "sliced":
        _check_slices(mac, report)
    assert mac.high is not None
    narrower = any(high < low for low, high in zip(mac.low.operand_bits, mac.high.operand_bits, strict=True))
    if form.weights == "high_only" and narrower:
        report(
            ("policy", "weights"),
            "got high_only with operands of mac.high that are narrower than those of mac.low, which cannot be made of "
            "them; expected wider ones; write both",
        )
    _check_ladder(form, engine, mac, report)
    tolerance, *further = form.tolerance if isinstance(form.tolerance, list) else [form.tolerance]
    return Policy(
        tolerance,
        gather,
        overlap,
        form.weights,
        form.recompute_nonfinite,
        form.recompute_saturated,
        form.score,
        metric,
        runs_on,
        side_format,
        form.budget,
        form.budget_over,
        _plan(form, folder, report),
        _sign_safe(form, metric, report),
        (form.ladder or "climb") if mac.middle else None,
        tuple(further) or None,
    )


def _check_ladder(form: PolicySection, engine: SideEngineSection | None, mac: Mac, report: Report) -> None:
    """Note what does not go with a ladder of modes, or only with one."""
    at = ("policy", "tolerance")
    tolerances = form.tolerance if isinstance(form.tolerance, list) else [form.tolerance]
    below = len(mac.further)
    if len(tolerances) not in (1, below):
        report(
            at,
            f"got {len(tolerances)} numbers for {below + 1} modes of mac; expected one"
            f"{f', or {below}, of each mode but the last' if below > 1 else ''}; correct it",
        )
    elif any(after < before for before, after in pairwise(tolerances)):
        report(at, f"got {tolerances}; expected rising numbers, as the precision of the modes rises; correct them")
    if not mac.middle:
        if form.ladder is not None:
            report(
                ("policy", "ladder"),
                f"got {form.ladder} for two modes; expected mac.middle, modes between; add some, or remove it",
            )
        return
    if len(tolerances) == 1 or form.sign_safe is not None:
        levels = [mode.spec for mode in mac.modes.values()]
        try:
            for number in range(1, below):
                roundoff_ratio(levels, number)
        except ValueError:
            report(
                ("mac", "middle"),
                f"got sums in {', '.join(str(result_use(level.accumulator)) for level in levels)}; expected floats of "
                "rising precision, from whose unit roundoffs the tolerances between follow; change them, or give "
                "policy.tolerance a list, and no sign_safe",
            )
    # What has been thought through for one further pass only.
    others: tuple[tuple[Keys, str, bool, str], ...] = (
        (("side_engine",), "an engine", engine is not None, "none, since each further pass runs on the array"),
        (("mac", "datapath"), f"{mac.datapath}", mac.datapath != "multi_mode", "multi_mode"),
        (("policy", "weights"), form.weights, form.weights != "both", "both"),
        (("policy", "plan"), "one", form.plan is not None, "none: flags decide"),
    )
    for key, found, wrong, expected in others:
        if wrong:
            report(key, f"got {found} beside mac.middle; expected {expected}; change it, or remove mac.middle")


def _sign_safe(form: PolicySection, metric: str, report: Report) -> float | None:
    """Return the bound of the sign-safe rule, which takes the norms of rows and columns."""
    if form.sign_safe is not None and metric != "norm_bound":
        report(
            ("policy", "sign_safe"),
            f"got it with policy.side_metric: {metric}; expected norm_bound, the norms of rows and columns that "
            "it takes; write it, with a score of these or kappa_prime, or remove sign_safe",
        )
    return form.sign_safe


def _plan(form: PolicySection, folder: Path, report: Report) -> StaticPlan | None:
    """Return the plan that a file names, beside which nothing decides on flags."""
    if form.plan is None:
        return None
    if form.budget is not None:
        report(("policy", "budget"), "got it beside policy.plan, which decides before a run; expected one; remove one")
    try:
        return read_static_plan(folder / form.plan)
    except InputError as error:
        report(("policy", "plan"), str(error))
        return None


def _check_slices(mac: Mac, report: Report) -> None:
    """Check that the narrow operands are the leading bits of the wide ones."""
    assert mac.high is not None
    low, high = mac.low.spec.operands, mac.high.spec.operands
    if low != high and (low is None or high is None or not all(map(_leads, low, high))):
        shown = ["none" if uses is None else "*".join(map(str, uses)) for uses in (low, high)]
        report(
            ("policy", "weights"),
            f"got sliced with operands {shown[0]} in mac.low and {shown[1]} in mac.high, where the first are not the "
            "leading bits of the second; expected floats of one exponent range, rounded by rz in mac.low, such as "
            "fp8_e5m2/rz and fp16, or fixed-point numbers of one range, rounded by rd; write both, or change the "
            "operands",
        )


def _leads(narrow: Use, wide: Use) -> bool:
    """Whether cutting off bits of a value in one format leaves it in the other as that rounds it."""
    match narrow.format, wide.format:
        case FloatFormat() as low, FloatFormat() as high:
            range_of = low.exponent_bits, low.bias
            fits = range_of == (high.exponent_bits, high.bias) and low.precision <= high.precision
            return fits and (narrow.rounding == "rz" or low.precision == high.precision)
        case FixedFormat() as low, FixedFormat() as high:
            dropped = high.fraction_bits - low.fraction_bits
            fits = low.signed == high.signed and dropped == high.total_bits - low.total_bits >= 0
            return fits and (narrow.rounding == "rd" or dropped == 0)
    return False
