"""Evidence of clients' machines, as far as a coordinator checks any."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from matl.attest.claims import Claims, Clock, Verifier
from matl.errors import AttestationError
from matl.protocol.problems import Code, refusal

__all__ = ["Attestation", "Evidence", "about"]

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


@dataclass(frozen=True, slots=True)
class Evidence:
    """What evidence a coordinator checks.

    Parameters
    ----------
    formats : mapping of str to Attestation
        By format, how; what is not in it is refused.
    required : bool
        Whether nobody enrols without any.
    """

    formats: Mapping[str, Attestation[Any]]
    required: bool = False

    async def of_stranger(self, shown: Mapping[str, bytes], nonce: bytes, clock: Clock) -> Claims | None:
        """What somebody proves who is about to enrol; ``None`` if nothing is shown and nothing has to be.

        Parameters
        ----------
        shown : mapping of str to bytes
            Evidence by format.
        nonce, clock
            See `matl.attest.claims.Verifier`.

        Raises
        ------
        ServiceError
            ``"invalid"``: as `proved`, or with the reason ``"evidence"``: there is none.
        """
        if self.required and not shown:
            words = (
                "this coordinator enrols clients that show evidence of their machine alone, and none came; show some "
                f"of the format {' or '.join(sorted(self.formats))}: the argument evidence of join"
            )
            raise refusal(Code.INVALID, words, reason="evidence")
        claims = None
        for kind, data in shown.items():
            claims = await self.proved(kind, data, nonce, clock)
        return claims

    async def proved(self, kind: str, evidence: bytes, nonce: bytes, clock: Clock) -> Claims:
        """What evidence proves about a machine that was asked with a nonce.

        Parameters
        ----------
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
        how = self.formats.get(kind)
        if how is None:
            known = ", ".join(sorted(self.formats)) or "none"
            words = f"evidence of the format {kind!r:.40} is not checked here; it is for: {known}"
            raise refusal(Code.INVALID, words, reason="format")
        try:
            return await asyncio.to_thread(how.verifier.verify, evidence, nonce, how.policy, clock)
        except AttestationError as error:
            raise refusal(Code.INVALID, f"{kind} evidence: {error}", reason=error.code) from error


def about(claims: Claims, client: str, key: bytes, nonce: bytes) -> dict[str, Any]:
    """What is kept of claims, if they are about a client's key and the nonce that its machine was asked with.

    Raises
    ------
    ServiceError
        ``"invalid"``, reason ``"attestation"``.
    """
    if claims.key != key and not claims.report_data.startswith(nonce):
        raise refusal(
            Code.INVALID,
            f"the {claims.format} evidence is not about the enrolled key of {client}: it holds neither it nor the "
            "nonce",
            reason="attestation",
        )
    return {"format": claims.format, "hardware_root": claims.hardware_root, "measurement": claims.measurement}
