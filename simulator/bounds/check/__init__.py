"""The checker of certificates: follows them step by step in ball arithmetic, and says where one is wrong.

    check_file("certificate.json").ok

It shares no code with the analysis that made the certificate, has its own proofs of 34 rules, numbered by kind from C1
to C61 in its modules, and believes nothing but what the file says computes the network. docs/theory/bounds.md
describes both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulator.errors import InputError, missing

try:
    from flint import ctx
except ImportError:
    raise missing("simulator.bounds.check", "python-flint", "bounds") from None

from .balls import BITS
from .document import Certificate, Fault, NoRule, digest_of, parsed, read
from .walk import Counts, follow, products


@dataclass(frozen=True)
class Verdict:
    """What a check says of a certificate.

    Args:
        ok: whether everything in it was followed, and holds. followed: whether a rule was known for all that came up;
            where it was not, nothing is said to be wrong. problems: what is wrong, or has no rule, in sentences.
        values, derivatives: how many numbers were bounded. samples: of the inputs. certified: of these, by the claim.
        unit: MACs of the products. vector: format of all else. method: how it was proved.
        machine, network, weights: what the file says besides, the last one a digest of the parameters; on these nothing
            rests. inputs: digest of the inputs. compared: of weights and inputs those that were compared.
    """

    ok: bool
    problems: tuple[str, ...]
    followed: bool = True
    values: int = 0
    derivatives: int = 0
    samples: int = 0
    certified: int = 0
    unit: str = ""
    vector: str = ""
    method: str = ""
    machine: str | None = None
    network: str = ""
    weights: str = ""
    inputs: str = ""
    compared: tuple[str, ...] = ()


# What arithmetic with absurd numbers raises, and absurd nesting.
_ABSURD = (ArithmeticError, MemoryError, RecursionError, ValueError)


def check(
    certificate: str | Mapping[str, Any], where: str = "certificate", weights: str | None = None,
    inputs: str | None = None,
) -> Verdict:  # fmt: skip
    """Check a certificate, as text or as data.

    Every comparison is proved in ball arithmetic, so that ok means: with the premises of the file, every bound in it
    holds, and so does what is claimed.

    Args:
        where: what messages call it. weights, inputs: digests that it must have.
    Raises:
        InputError: what is no certificate.
    """
    form = parsed(certificate, where)
    problems: list[str] = []
    found, counts, unknown = None, Counts(0, 0), None
    try:
        if digest_of(form) != form["digest"]:
            problems.append("the certificate: its digest is not that of what it holds")
        found = read(form)
        for place, own, given in (("network: weights", found.weights, weights), ("inputs", found.digest, inputs)):
            if given is not None and own != given:
                problems.append(f"{place}: the digest is {own}; that of what was given is {given}")
        with ctx.workprec(BITS):
            wrong, counts = follow(found)
        problems += wrong
    except NoRule as fault:
        unknown = str(fault)
    except Fault as fault:
        problems.append(str(fault))
    except _ABSURD as error:
        problems.append(f"the certificate: what it holds cannot be computed with ({type(error).__name__}: {error})")
    followed = unknown is None or bool(problems)
    compared = [name for name, given in (("weights", weights), ("inputs", inputs)) if given is not None]
    verdict = Verdict(
        followed and not problems, (*problems, *([] if unknown is None else [unknown])), followed, counts.values,
        counts.derivatives, compared=tuple(compared),
    )  # fmt: skip
    return verdict if found is None else _with_facts(verdict, found)


def _with_facts(verdict: Verdict, found: Certificate) -> Verdict:
    """Return a verdict with what the certificate says of itself."""
    bits = found.precision
    uses = dict.fromkeys(node.use for node in found.nodes if node.use)
    return replace(
        verdict, samples=len(found.claim.top), certified=sum(found.claim.certified),
        unit="; ".join(products(found)) + ("" if bits is None else f", {bits} significand bits"),
        vector=(", ".join(uses) or "fp32") if bits is None else f"{bits} significand bits",
        method=found.claim.method, machine=found.machine, network=found.name, weights=found.weights,
        inputs=found.digest,
    )  # fmt: skip


def check_file(path: str | Path, weights: str | None = None, inputs: str | None = None) -> Verdict:
    """Check the certificate in a file; arguments and errors as of check."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected a certificate; give the path of the file that was written"
        ) from None
    return check(text, str(path), weights, inputs)
