"""The coordinator's side of Mode 2: an oracle that proved what was pinned judges, and what it signs is checked."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, model_validator

from matl import validate
from matl.attest.keys import PublicKey
from matl.client.evidence import OraclePins
from matl.client.oracle_line import NO_ORACLE, OracleLine
from matl.client.retrying import Retrying
from matl.client.sealed import OracleWatch
from matl.coordinator.rounds.judge import JudgeAnswer, JudgeRequest
from matl.errors import AttestationError, InvalidValueError, ProtocolError, ServiceError, StateError, UndecidedError
from matl.files import read_private
from matl.oracle.wire import LENGTH, Brief, Signed, pack_brief, unpack_answer
from matl.protocol.problems import Code

if TYPE_CHECKING:
    import httpx

__all__ = ["OracleSource", "RemoteJudge"]

_PIECE = 1 << 20
_REFUSED = frozenset({Code.CONFLICT.value, Code.INVALID.value, Code.MALFORMED.value, Code.TOO_LARGE.value})
_TOKEN = 512  # bytes of the longest token file


class OracleSource(BaseModel):
    """An oracle as a coordinator's settings name it: where it is, and what it has to prove."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="Where it is.")
    token_file: Path = Field(description="File with the token that it asks for, for its owner alone.")
    measurements: tuple[str, ...] = Field(min_length=1, description="What may run there; see `matl oracle measure`.")
    software: bool = Field(False, description="Whether evidence without a hardware root is enough, for trying out.")
    software_signers: tuple[str, ...] = Field((), description="Whose word is taken for the format software.")
    vendor_keys: tuple[Path, ...] = Field((), description="Root keys of makers of TPMs, files in DER.")
    revoked: tuple[int, ...] = Field((), description="Serial numbers of TPMs' certificates that are revoked.")
    pcrs: dict[int, tuple[str, ...]] = Field({}, description="Values that other PCRs of its TPM may have.")
    ca: Path | None = Field(None, description="Certificates (PEM) to trust for its URL in place of the machine's.")

    @model_validator(mode="after")
    def _something_to_prove(self) -> OracleSource:
        if not self.software and not self.vendor_keys:
            raise ValueError("expected vendor_keys, the makers of TPMs that are trusted, or software = true to try out")
        return self

    def pins(self) -> OraclePins:
        """What it has to prove.

        Raises
        ------
        InvalidValueError
            A digest is none.
        StateError
            A file cannot be read.
        """
        try:
            vendors = frozenset(path.read_bytes() for path in self.vendor_keys)
        except OSError as error:
            raise StateError(f"the key of a maker of TPMs cannot be read: {error}") from error
        return OraclePins(
            measurements=frozenset(self.measurements),
            software=self.software,
            software_signers=frozenset(self.software_signers),
            vendor_keys=vendors,
            revoked=frozenset(self.revoked),
            pcrs={pcr: frozenset(values) for pcr, values in self.pcrs.items()},
        )

    def judge(self) -> RemoteJudge:
        """Who judges for a coordinator.

        Raises
        ------
        InvalidValueError, StateError
            As `pins`, or the token cannot be read.
        """
        return RemoteJudge(self.url, self.pins(), token=_read_token(self.token_file), ca=self.ca)


class RemoteJudge:
    """Judges rounds by asking an oracle; a `matl.coordinator.rounds.judge.Judge`.

    Before anything is asked, the oracle has to prove to be what is pinned; every answer is signed by a key for which
    evidence vouches that answers this very answer, and so may be as old as it likes. What the oracle judged before is
    not sent again.

    Parameters
    ----------
    url : str
        Where the oracle is.
    pins : OraclePins
        What it has to prove.
    token : str
        What it asks for.
    ca : Path, optional
        Certificates (PEM) to trust in place of the machine's.
    seconds : float
        How long a judgement may take.
    most : int
        Bytes of the longest answer, which holds the state after the round.
    retrying : Retrying, optional
        When to ask again.
    transport : httpx.AsyncBaseTransport, optional
        What carries the requests, for tests.
    """

    def __init__(
        self,
        url: str,
        pins: OraclePins,
        *,
        token: str,
        ca: Path | None = None,
        seconds: float = 600.0,
        most: int = 1 << 32,
        retrying: Retrying | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        validate.positive(seconds=seconds)
        self.pins, self._most = pins, most
        self.watch = OracleWatch(pins, url, ca=ca, token=token, transport=transport)
        self._line = OracleLine(url, ca=ca, token=token, seconds=seconds, transport=transport)
        self._again = retrying or Retrying(attempts=8, cap=5.0)

    async def __call__(self, request: JudgeRequest) -> JudgeAnswer:
        """Judge a round.

        Raises
        ------
        ServiceError
            It cannot be reached, judges another round, or does not know the token.
        AttestationError
            It does not prove what is pinned, or its answer is not what was signed.
        UndecidedError
            It refuses this round: it judged it before, or judges by another configuration.
        """
        brief = await asyncio.to_thread(pack_brief, request)
        try:
            signed = await self._again(lambda: self._ask(request, brief))
        except ServiceError as error:
            if error.code in _REFUSED and error.reason != NO_ORACLE:
                raise UndecidedError(f"the oracle refuses the round: {error}") from error
            raise
        return await asyncio.to_thread(self._checked, brief, signed)

    async def _ask(self, request: JudgeRequest, brief: bytes) -> bytes:
        await self.watch.known()
        digest = hashlib.sha256(brief).hexdigest()
        try:
            return await self._line.body("GET", f"/v1/judgements/{digest}", most=self._most)
        except ServiceError as error:
            if error.code != Code.NOT_FOUND:
                raise
        return await self._line.body("POST", "/v1/judge", most=self._most, content=_pieces(request, brief))

    def _checked(self, brief: bytes, data: bytes) -> JudgeAnswer:
        """The answer, if it is the one to this request, and signed by what was pinned."""
        try:
            signed, asked = Signed.parse(data), Brief.parse(brief)
            text = signed.text
            claims = self.pins.claims(signed.format, signed.evidence, text.nonce, endorsed=self.watch.endorsed)
            key = PublicKey(claims.key or b"")
            answer, state_after = unpack_answer(signed.answer)
        except ProtocolError as error:
            raise AttestationError("format", f"the oracle's answer cannot be read: {error}") from error
        if not key.verify(signed.signature, text.to_bytes()):
            raise AttestationError("signature", "the answer is not signed by the key that its evidence vouches for")
        expected = {
            "run": asked.spec.run,
            "round": asked.spec.round,
            "request": asked.digest,
            "state_before": asked.state_digest,
            "state_after": state_after,
            "answer": hashlib.sha256(signed.answer).hexdigest(),
            "signer": key.fingerprint,
        }
        if wrong := [name for name, value in expected.items() if getattr(text, name) != value]:
            raise AttestationError("nonce", f"the answer is to something else than what was asked: {', '.join(wrong)}")
        return answer


async def _pieces(request: JudgeRequest, brief: bytes) -> AsyncIterator[bytes]:
    """The body of a request; payloads are read one after another."""
    yield len(brief).to_bytes(LENGTH, "big")
    for start in range(0, len(brief), _PIECE):
        yield brief[start : start + _PIECE]
    for head in request.heads:
        payload = memoryview(await asyncio.to_thread(request.payload, head.client_id))
        yield len(payload).to_bytes(LENGTH, "big")
        for start in range(0, len(payload), _PIECE):
            yield bytes(payload[start : start + _PIECE])


def _read_token(path: Path) -> str:
    try:
        token = read_private(path, _TOKEN, given=True).decode("ascii", "replace").strip()
    except OSError as error:
        raise StateError(f"the oracle's token cannot be read from {path}: {error.strerror}") from error
    if not token or not token.isascii() or not token.isprintable():
        raise InvalidValueError(f"expected a token in {path}, as `matl oracle serve` writes it there")
    return token
