"""Evidence of clients' machines, as far as a coordinator checks any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from matl.attest.claims import Claims, Clock, Verifier
from matl.errors import AttestationError
from matl.protocol.problems import Code, refusal

__all__ = ["Attestation", "proved"]

PolicyT = TypeVar("PolicyT")


@dataclass(frozen=True, slots=True)
class Attestation(Generic[PolicyT]):
    """How evidence of one format is checked.

    Parameters
    ----------
    verifier : Verifier
        By what.
    policy : object
        What it has to prove, in the verifier's own terms.
    """

    verifier: Verifier[PolicyT]
    policy: PolicyT


def proved(
    known: Mapping[str, Attestation[Any]],
    kind: str,
    evidence: bytes,
    nonce: bytes,
    clock: Clock,
) -> Claims:
    """What evidence proves about a machine that was asked with a nonce.

    Parameters
    ----------
    known : mapping of str to Attestation
        By format, what is checked, and how.
    kind : str
        The format of this one.
    evidence, nonce, clock
        See `matl.attest.claims.Verifier`.

    Raises
    ------
    ServiceError
        ``"invalid"``: evidence of this format is not checked here, or it proves less than the policy asks for; the
        reason is ``"format"`` or that of `matl.errors.AttestationError`.
    """
    how = known.get(kind)
    if how is None:
        words = f"evidence of the format {kind!r} is not checked here; it is for: {', '.join(sorted(known)) or 'none'}"
        raise refusal(Code.INVALID, words, reason="format")
    try:
        return how.verifier.verify(evidence, nonce, how.policy, clock)
    except AttestationError as error:
        raise refusal(Code.INVALID, f"{kind} evidence: {error}", reason=error.code) from error
