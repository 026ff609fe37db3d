"""Mode 2 from a client's side: find out what runs in the oracle, and seal updates to it and to nobody else.

Nothing is sent before the oracle has proved to be what the client pinned. When its key changes, as it does with every
start, it has to prove that anew. Where the oracle is may come from the coordinator: whoever answers there has to prove
the same.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from matl.attest.claims import Clock, system_clock
from matl.attest.endorsement import EndorsedKey, challenge_endorsement
from matl.attest.keys import PublicKey
from matl.attest.sealing import SealedText, seal
from matl.attest.tpm import TpmVerifier
from matl.client.evidence import KnownOracle, OraclePins, decoded, read_evidence
from matl.client.oracle_line import NO_ORACLE, OracleLine
from matl.client.retrying import Retrying
from matl.errors import AttestationError, InvalidValueError
from matl.protocol.messages import RunView
from matl.protocol.oracle import Activation, EvidenceView, IdentityView, KeysView
from matl.protocol.problems import Code, refusal
from matl.records import Visibility

if TYPE_CHECKING:
    import httpx

__all__ = ["OracleWatch"]

_FRESH = 3600.0
_CHALLENGED = 86_400.0  # seconds after which a TPM is challenged anew: its certificate may have been revoked
_MOST_SIGNERS = 64


class OracleWatch:
    """Knows an oracle by what it proved, and seals updates to it: the ``sealer`` of `matl.client.sdk.AsyncMATLClient`.

    It belongs to the event loop in which it is first used.

    Parameters
    ----------
    pins : OraclePins
        What the oracle has to prove.
    url : str, optional
        Where it is; where the coordinator says, if not given.
    ca : Path, optional
        Certificates (PEM) to trust in place of those the machine trusts, for ``https``.
    fresh : float
        Seconds after which it has to prove itself again, though its key is the same.
    token : str
        What the coordinator shows it, which it then takes before all strangers.
    retrying : Retrying, optional
        When to ask again; many ask at once when a round opens, and an oracle proves itself to one after the other.
    transport, clock, monotonic
        For tests.

    Examples
    --------
    ::

        pins = OraclePins(measurements=frozenset({"29a4..."}), vendor_keys=frozenset({Path("vendor.der").read_bytes()}))
        MATLClient("https://coordinator.example:8470", client_id="alice", sealer=OracleWatch(pins))
    """

    def __init__(
        self,
        pins: OraclePins,
        url: str | None = None,
        *,
        ca: Path | None = None,
        fresh: float = _FRESH,
        token: str = "",
        retrying: Retrying | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pins = pins
        self._open = partial(OracleLine, ca=ca, token=token, transport=transport)
        self._again = retrying or Retrying(cap=5.0)
        self._line = None if url is None else self._open(url)
        self._fixed = url is not None
        self._fresh, self._clock, self._monotonic = fresh, clock, monotonic
        self._lock = asyncio.Lock()
        self._known: KnownOracle | None = None
        self._verified = 0.0
        self._endorsed: tuple[EndorsedKey, ...] = ()
        self._challenge_ends = 0.0
        self._signers: dict[str, PublicKey] = {}

    async def __call__(self, *, run: RunView, number: int, client_id: str, payload: bytes) -> bytes:
        """The box of an update, which the run's oracle alone can open.

        Parameters
        ----------
        run : RunView
            The run, as the coordinator shows it.
        number : int
            The round.
        client_id : str
            Whose update it is; the box opens as nobody else's.
        payload : bytes
            The encoded update.

        Raises
        ------
        AttestationError
            The oracle does not prove what is pinned, or measured another configuration than the run's. Nothing left.
        ServiceError
            The oracle cannot be reached, or the coordinator says that it is where nothing can be.
        """
        if run.visibility is not Visibility.SEALED or run.oracle is None:
            raise AttestationError(
                "policy", f"expected a run whose updates only an oracle sees, that of {run.id} is {run.visibility}; "
                "nothing was sent",
            )  # fmt: skip
        if not self._fixed and (self._line is None or self._line.url != run.oracle.url.rstrip("/")):
            try:
                self._line, self._known = self._open(run.oracle.url), None
            except InvalidValueError as error:
                words = f"the coordinator does not say where the oracle of run {run.id!r} is: {error}; ask its operator"
                raise refusal(Code.MALFORMED, words, reason=NO_ORACLE) from error
        oracle = await self._again(self.known)
        if run.config_digest != oracle.config.run_config:
            raise AttestationError(
                "measurement", f"the oracle measured the configuration {oracle.config.run_config:.12}, the run has "
                f"{run.config_digest:.12}; nothing was sent: ask the coordinator's operator",
            )  # fmt: skip
        text = SealedText(run=run.id, round=number, client_id=client_id, oracle=oracle.signing.fingerprint)
        return await asyncio.to_thread(seal, oracle.sealing, payload, text.to_bytes())

    @property
    def signers(self) -> tuple[PublicKey, ...]:
        """Keys of the oracle that were proved, latest last: whose receipts to believe in Mode 2."""
        return tuple(self._signers.values())

    @property
    def endorsed(self) -> tuple[EndorsedKey, ...]:
        """Attestation keys that answered a challenge."""
        return self._endorsed

    async def known(self) -> KnownOracle:
        """The oracle, if it is still the one that proved itself, or else once it has.

        Raises
        ------
        AttestationError
            It does not prove what is pinned. Nothing was sent.
        ServiceError
            It cannot be reached, or answers no sense.
        """
        async with self._lock:
            if self._line is None:
                raise InvalidValueError("expected url=, where the oracle is, got none; a run of Mode 2 says it as well")
            line, known = self._line, self._known
            if known is not None and self._monotonic() - self._verified < self._fresh:
                signer = (await line.view("GET", "/v1/keys", KeysView)).signer
                if hmac.compare_digest(signer, known.signing.fingerprint):
                    return known
            self._known = None  # whatever comes of it, the old proof is over
            nonce = secrets.token_bytes(32)
            view = await line.view("GET", "/v1/evidence", EvidenceView, params={"nonce": nonce.hex()})
            if self.pins.vendor_keys and view.format == TpmVerifier.format:
                await self._challenge(line)
            try:
                known = read_evidence(view, nonce, self.pins, endorsed=self._endorsed, clock=self._clock)
            except AttestationError:
                self._endorsed = ()  # perhaps it is another TPM now: it is challenged anew the next time
                raise
            self._known, self._verified = known, self._monotonic()
            self._signers[known.signing.fingerprint] = known.signing
            if len(self._signers) > _MOST_SIGNERS:
                del self._signers[next(iter(self._signers))]
            return known

    async def aclose(self) -> None:
        """Nothing stays open between two requests; this is for who closes whatever seals."""

    async def _challenge(self, line: OracleLine) -> None:
        """Challenge the oracle's TPM, unless it was today."""
        if not self._endorsed or self._monotonic() >= self._challenge_ends:
            self._endorsed = ()
            self._endorsed = (await self._challenged(line),)
            self._challenge_ends = self._monotonic() + _CHALLENGED

    async def _challenged(self, line: OracleLine) -> EndorsedKey:
        """The attestation key of the oracle's TPM, proved to live beside a key that a maker certified."""
        identity = decoded((await line.view("GET", "/v1/identity", IdentityView)).identity)
        challenge = challenge_endorsement(identity, self.pins.vendor_keys, revoked=self.pins.revoked, clock=self._clock)
        body = {"blob": base64.b64encode(challenge.blob).decode()}
        answer = await line.view("POST", "/v1/activations", Activation, json=body)
        return challenge.check(decoded(answer.answer))
