"""Rules of layers, from the keys of a machine file or of a mapping in Python to records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from formats import Use
from simulator.arithmetic.spec import mac
from simulator.errors import InputError

from . import schema
from .document import Keys, Report
from .layer_rules import LayerRule, Scaling
from .side_metric import side_metric

_SECTION = TypeAdapter(schema.LayerSection)
_SCALING = tuple(schema.ScalingSection.model_fields)


def layer_rules(sections: Mapping[str, schema.LayerSection], report: Report) -> tuple[LayerRule, ...]:
    """Return the rules of the section `layers`; `report` takes (keys below it, message) of what does not fit."""
    return tuple(_rule(pattern, section, report) for pattern, section in sections.items())


def read_layers(layers: Mapping[str, Any]) -> tuple[LayerRule, ...]:
    """Return the rules of a mapping as in the section `layers` of a machine file, or of LayerRules by pattern.

    Raises:
        InputError: the first thing that is wrong: `layers: pattern: key: what was found; expected; what to do`.
    """
    if not isinstance(layers, Mapping):
        raise InputError(f"layers: got {layers!r}; expected a mapping; give e.g. {{'*': 'exact'}}")
    rules: list[LayerRule] = []
    for pattern, form in layers.items():
        if not isinstance(pattern, str):
            raise InputError(f"layers: got the pattern {pattern!r}; expected a text; give e.g. 'fc*'")
        if isinstance(form, LayerRule):
            rules.append(form)
            continue
        try:
            section = _SECTION.validate_python({"mac": form} if isinstance(form, str) else form)
        except ValidationError as error:
            raise InputError(_first(pattern, error)) from None

        def refuse(at: Keys, message: str) -> None:
            raise InputError(f"layers: {': '.join(map(str, at))}: {message}")

        rules.append(_rule(pattern, section, refuse))
    return tuple(rules)


def _first(pattern: str, error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    where = ": ".join(map(str, ("layers", pattern, *found["loc"])))
    if found["type"] == "value_error":
        return f"{where}: {found['ctx']['error']}"
    known = ", ".join(schema.LayerSection.model_fields)
    if found["type"] == "extra_forbidden":
        return f"{where}: unknown key; expected some of {known}, and of scales {', '.join(_SCALING)}; correct it"
    return f"{where}: got {found['input']!r}; expected a MAC, or a mapping of {known}; give e.g. 'high'"


def _rule(pattern: str, section: schema.LayerSection, report: Report) -> LayerRule:
    at = (pattern,)
    operands = None if section.operands is None else _operands(section.operands)
    if section.mac == "float32":
        for key in ("operands", "output", "policy", "activations", "weights"):
            if getattr(section, key) is not None:
                report((*at, key), "got it beside mac: float32, which quantises nothing; expected none; remove it")
    if section.policy is not None and section.mac not in (None, "two_pass"):
        report(
            (*at, "policy"),
            f"got it beside mac: {section.mac}, which has one pass; expected mac: two_pass; write it, or remove policy",
        )
    if section.mac is not None and section.operands is not None and "->" in section.mac:
        report(
            (*at, "operands"),
            f"got it beside mac: {section.mac}, which may name operands; expected one of the two; remove one",
        )
    activations, weights = (
        None if form is None else _scaling((*at, name), form, name, report)
        for name, form in (("activations", section.activations), ("weights", section.weights))
    )
    if activations and weights and activations.block and weights.block and activations.block != weights.block:
        report(
            (*at, "weights"),
            f"got blocks of {weights.block} with activations in blocks of {activations.block}; expected blocks of one "
            "size, which meet in the sums; make them equal",
        )
    score = None if section.policy is None else section.policy.score
    metric: tuple[str | None, Use | None] = (None, None)
    if section.policy is not None and score is not None:
        metric = side_metric(score, section.policy.side_metric, section.policy.side_format, report, (*at, "policy"))
    elif section.policy is not None and (section.policy.side_metric or section.policy.side_format):
        report(
            (*at, "policy"),
            "got a side metric or its format without a score of these layers; expected both; add score, or remove it",
        )
    return LayerRule(
        pattern, section.mac, operands, None if section.output is None else Use.parse(section.output),
        None if section.policy is None else section.policy.tolerance, activations, weights,
        None if section.vector is None else Use.parse(section.vector), section.gradients,
        None if section.policy is None else section.policy.budget, score, *metric, section.weight_gradients,
    )  # fmt: skip


def _operands(form: str | list[str]) -> tuple[Use, Use] | None:
    return mac({"accumulator": "fma(fp32)", "operands": form}).operands


def _scaling(at: Keys, form: schema.ScalingSection, operand: str, report: Report) -> Scaling:
    if (form.per == "block") != (form.block is not None):
        report(
            at,
            "got per: block without its size; expected block beside it; add e.g. block: 32"
            if form.block is None
            else f"got block: {form.block} with per: {form.per}; expected per: block; write it, or remove block",
        )
    if form.percentile is not None and form.method != "percentile":
        report(
            (*at, "percentile"),
            f"got it with method: {form.method}; expected method: percentile; write it, or remove percentile",
        )
    if operand == "weights" and form.per == "row":
        report((*at, "per"), "got row; expected tensor, channel or block for weights; write one of them")
    if operand == "weights" and form.when == "calibrated":
        report((*at, "when"), "got calibrated for weights, which are at hand; expected none; remove it")
    if form.per == "row" and form.when == "calibrated":
        report((*at, "when"), "got calibrated for rows, which differ from input to input; expected dynamic; write it")
    percentile = 99.9 if form.percentile is None and form.method == "percentile" else form.percentile or 100.0
    if form.to is not None and form.method == "mse":
        report((*at, "to"), "got it with method: mse, which tries all scales; expected none; remove it")
    return Scaling(form.per, form.block or 0, form.method, percentile, form.to, form.when, form.powers_of_two)
