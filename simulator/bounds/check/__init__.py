"""The checker of certificates: follows them step by step in ball arithmetic, and says where one is wrong.

    check_file("certificate.json").ok

It shares no code with the analysis that made the certificate, has its own proofs of the rules, numbered C1 to C61 in
its modules, and believes nothing but what the file says computes the network. docs/theory/bounds.md describes both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.errors import InputError, missing

try:
    from flint import ctx
except ImportError:
    raise missing("simulator.bounds.check", "python-flint", "bounds") from None

from .balls import BITS
from .document import Fault, digest_of, parsed, read
from .walk import Counts, follow


@dataclass(frozen=True)
class Verdict:
    """What a check says of a certificate.

    Args:
        ok: whether everything in it was followed, and holds. problems: where it does not, in sentences.
        values, derivatives: how many numbers were bounded. samples: of the inputs. certified: of these, by the claim.
        unit, method: what computes, and how it was proved, in the words of the file.
    """

    ok: bool
    problems: tuple[str, ...]
    values: int = 0
    derivatives: int = 0
    samples: int = 0
    certified: int = 0
    unit: str = ""
    method: str = ""


def check(certificate: str | Mapping[str, Any], where: str = "certificate") -> Verdict:
    """Check a certificate, as text or as data.

    Every comparison is proved in ball arithmetic, so that ok means: with the premises of the file, every bound in it
    holds, and so does what is claimed.

    Args:
        where: what messages call it.
    Raises:
        InputError: what is no certificate.
    """
    form = parsed(certificate, where)
    problems, counts = [], Counts(0, 0)
    if digest_of(form) != form["digest"]:
        problems.append("the certificate: its digest is not that of what it holds")
    try:
        found = read(form)
    except Fault as fault:
        return Verdict(False, (*problems, str(fault)))
    with ctx.workprec(BITS):
        try:
            wrong, counts = follow(found)
            problems += wrong
        except Fault as fault:
            problems.append(str(fault))
    return Verdict(
        not problems, tuple(problems), counts.values, counts.derivatives, len(found.claim.top),
        sum(found.claim.certified), found.words, found.claim.method,
    )  # fmt: skip


def check_file(path: str | Path) -> Verdict:
    """Check the certificate in a file; errors as of check."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected a certificate; give the path of the file that was written"
        ) from None
    return check(text, str(path))
