"""Quotes of a TPM 2.0: a machine says what was measured into its PCRs, and its TPM signs that.

What one piece of evidence proves, if everything fits::

    vendor's root -> certificate of the EK ==challenge==> AK --signs--> quote -> nonce and key
                     (matl.attest.endorsement)                            `----> PCRs -> event log -> measurement

- **AK.** The key that signs is restricted, fixed to its TPM and made there: it signs nothing but what the TPM says.
- **EK.** Only a challenge shows that the AK lives in a TPM with a vendor's certificate. Without it the evidence may
  come from a program with a key of its own, and `Claims.hardware_root` is false; a policy has to allow that expressly.
- **Nonce and key.** ``extraData`` is the SHA-256 of `matl.attest.evidence.binding`: an old quote answers another
  nonce, and the key that the oracle calls its own is in there as well. (The 64 bytes do not fit into every TPM.)
- **PCRs.** The digest in the quote is recomputed from the values sent. Those that a policy pins have to be among the
  values it names; that of the application is replayed from the event log.
- **Measurement.** The log has one event of an application: the text of a `Measurement`, whose digest was extended.

Which PCR, and what it is worth. PCRs 16 and 23 can be reset by any program, which could then make them hold anything,
so they are refused. 0 to 7 belong to the firmware, 8 and 9 to the boot loader, 10 to Linux IMA, 11 to 13 and 15 to
systemd. The default is 14, which holds at most what shim measures at boot, and that is in the firmware's log. Still,
every program with access to the TPM can extend it, and say what it likes: the measurement means that *somebody who ran
there* measured these digests. That it was the oracle follows from the boot measurements (PCRs 0 to 9, 11), if a policy
pins them to those of an image that starts nothing else. What was measured cannot be taken back: after a change of code,
configuration or policy the machine has to start anew.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from matl import validate
from matl.attest._event_log import EVENT_TAG, Event, parse_log, replay
from matl.attest._reader import Reader, malformed
from matl.attest._tpm_structures import MAX_ATTEST, MAX_PUBLIC, MAX_SIGNATURE, PublicArea, Quote, check_signature
from matl.attest.claims import Claims, Clock, system_clock
from matl.attest.endorsement import EndorsedKey
from matl.attest.evidence import MAX_KEY, among, binding, check_digests, pack_evidence, unpack_evidence
from matl.attest.measurement import Measurement
from matl.errors import AttestationError, InvalidValueError, ProtocolError

__all__ = ["APPLICATION_PCR", "MAX_EVIDENCE", "TpmPolicy", "TpmVerifier", "bound_data", "measured", "pack_quote"]

APPLICATION_PCR = 14
"""Where an oracle's measurement goes, unless something else needs the place."""

MAX_LOG = 1 << 18
"""Bytes of the largest event log of one PCR."""

_PCRS = 24
_RESETTABLE = frozenset({16, 23})  # TCG PC Client Platform TPM Profile: from locality 0, by anybody
_TAG = 0x4C54414D  # "MATL", as it stands in a log
_VERSION = b"\x01"
_FIELDS = {
    "tpm2": 1,  # version of the message
    "attest": MAX_ATTEST,
    "signature": MAX_SIGNATURE,
    "public": MAX_PUBLIC,
    "pcrs": 32 * _PCRS,
    "log": MAX_LOG,
}
MAX_EVIDENCE = sum(_FIELDS.values()) + MAX_KEY + 256
"""Bytes of the largest evidence, with the names of its fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmPolicy:
    """What a machine with a TPM has to prove.

    Parameters
    ----------
    measurements : frozenset of str
        Digests of a `Measurement` that may run.
    pinned : mapping of int to frozenset of str
        Values (hex) that other PCRs may have; these PCRs have to be quoted too.
    endorsed : tuple of EndorsedKey
        Attestation keys that answered a challenge. Drop one, and its quotes count no longer.
    require_hardware : bool
        Whether the key has to be one of them, in a TPM that is a device. If not, evidence made by any program passes,
        and `Claims.hardware_root` is false.
    pcr : int
        PCR of the application, 0 to 15.
    min_firmware : int
        Oldest firmware of the TPM, in its vendor's numbering.

    Raises
    ------
    InvalidValueError
        Nothing may run, a digest is none, or a PCR is one that can be reset at any time.
    """

    measurements: frozenset[str]
    pinned: Mapping[int, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    endorsed: tuple[EndorsedKey, ...] = ()
    require_hardware: bool = True
    pcr: int = APPLICATION_PCR
    min_firmware: int = 0

    def __post_init__(self) -> None:
        check_digests(32, measurements=self.measurements)
        check_application_pcr(self.pcr)
        validate.whole(0, min_firmware=self.min_firmware)
        for pcr, values in self.pinned.items():
            validate.whole(0, pcr=pcr)
            if pcr >= _PCRS or pcr in _RESETTABLE or pcr == self.pcr:
                raise InvalidValueError(
                    f"expected pinned to name PCRs 0 to 22, but not 16, which anybody can reset, nor {self.pcr}, the "
                    f"application's, which the log explains; got {pcr}"
                )
            check_digests(32, pinned=values)


def check_application_pcr(pcr: int) -> None:
    """A PCR that only a reset of the machine resets."""
    validate.whole(0, pcr=pcr)
    if pcr > 15:
        raise InvalidValueError(
            f"expected pcr between 0 and 15, got pcr={pcr}: the others can be reset while the machine runs"
        )


def bound_data(nonce: bytes, key: bytes = b"") -> bytes:
    """What a quote has to carry as ``extraData``: SHA-256 of `matl.attest.evidence.binding`.

    Examples
    --------
    >>> bound_data(bytes(32), b"a public key").hex()[:16]
    '305953f78d77f5b4'
    """
    return hashlib.sha256(binding(nonce, key)).digest()


def measured(measurement: Measurement, pcr: int = APPLICATION_PCR) -> Event:
    """The event of a measurement: type EV_EVENT_TAG, the digest extended is that of the text."""
    text = measurement.to_bytes()
    return Event(pcr, EVENT_TAG, bytes.fromhex(measurement.digest), struct.pack("<II", _TAG, len(text)) + text)


def pack_quote(*, attest: bytes, signature: bytes, public: bytes, pcrs: bytes, log: bytes, key: bytes = b"") -> bytes:
    """Evidence: one msgpack map, in this order, with a version in front.

    Parameters
    ----------
    attest : bytes
        What the TPM says, a TPMS_ATTEST.
    signature : bytes
        The TPMT_SIGNATURE over it.
    public : bytes
        Public area of the attestation key, a TPMT_PUBLIC.
    pcrs : bytes
        Values of the PCRs that are quoted, 32 bytes each, in increasing order of their numbers.
    log : bytes
        Event log (crypto-agile, with SHA-256) of the application's PCR and of no other.
    key : bytes
        Public key (DER SubjectPublicKeyInfo) that the quote vouches for, or nothing.
    """
    parts = {"attest": attest, "signature": signature, "public": public, "pcrs": pcrs, "log": log}
    return pack_evidence(tpm2=_VERSION, **parts, **({"key": key} if key else {}))


class TpmVerifier:
    """Checks quotes of a TPM 2.0."""

    format: ClassVar[str] = "tpm2"

    def verify(self, evidence: bytes, nonce: bytes, policy: TpmPolicy, clock: Clock = system_clock) -> Claims:
        """What a quote proves about a machine that was asked with ``nonce`` (1 to 64 bytes).

        `Claims.measurement` is the digest of the application's `Measurement`, and `Claims.key` the key it vouches for.

        Raises
        ------
        AttestationError
            It proves less than the policy asks for.
        """
        parts = unpack_evidence(evidence, _FIELDS, {"key": MAX_KEY})
        if parts["tpm2"] != _VERSION:
            raise AttestationError("version", "expected version 1 of a TPM's evidence; update the older side")
        key = parts.get("key", b"")
        public = PublicArea.parse(parts["public"])
        public.require_attestation_key()
        check_signature(public, parts["signature"], parts["attest"])
        quote = Quote.parse(parts["attest"])
        if not hmac.compare_digest(quote.extra, bound_data(nonce, key)):
            raise AttestationError("nonce", "the quote answers another nonce, or vouches for another key")
        if quote.firmware < policy.min_firmware:
            raise AttestationError(
                "version", f"expected firmware {policy.min_firmware:#x} of the TPM or newer, got {quote.firmware:#x}"
            )
        values = _values(quote, parts["pcrs"])
        _check_pinned(values, policy.pinned)
        measurement = _application(parts["log"], policy.pcr, values)
        if not among(bytes.fromhex(measurement.digest), policy.measurements):
            raise AttestationError(
                "measurement", f"{measurement.digest} runs there (package {measurement.package:.12}, config "
                f"{measurement.config:.12}, policy {measurement.policy:.12}), which the policy does not name",
            )  # fmt: skip
        endorsed = _endorsed(public, policy, clock)
        return Claims(
            format=self.format,
            hardware_root=endorsed is not None and endorsed.hardware,
            measurement=measurement.digest,
            key=key or None,
            report_data=quote.extra,
            details=_details(quote, public, measurement, endorsed, policy),
        )


def _values(quote: Quote, pcrs: bytes) -> dict[int, bytes]:
    """The quoted PCRs, which have the digest that was signed."""
    if len(pcrs) != 32 * len(quote.pcrs):
        raise malformed(f"expected {len(quote.pcrs)} PCRs of 32 bytes, as many as are quoted, got {len(pcrs)} bytes")
    if not hmac.compare_digest(hashlib.sha256(pcrs).digest(), quote.digest):
        raise AttestationError("measurement", "the PCR values are not those that the TPM signed")
    return {pcr: pcrs[32 * i : 32 * i + 32] for i, pcr in enumerate(quote.pcrs)}


def _check_pinned(values: Mapping[int, bytes], pinned: Mapping[int, frozenset[str]]) -> None:
    for pcr, allowed in pinned.items():
        if pcr not in values:
            raise AttestationError(
                "measurement", f"the policy pins PCR {pcr}, which is not quoted; got {sorted(values)}"
            )
        if not among(values[pcr], allowed):
            raise AttestationError(
                "measurement", f"PCR {pcr} holds {values[pcr].hex()}, which the policy does not name"
            )


def _application(log: bytes, pcr: int, values: Mapping[int, bytes]) -> Measurement:
    """What the log says was measured, if the PCR agrees that this and nothing else was."""
    events = parse_log(log, MAX_LOG)
    if pcr not in values:
        raise AttestationError("measurement", f"the application's PCR {pcr} is not quoted; got {sorted(values)}")
    if foreign := {event.pcr for event in events} - {pcr}:
        raise malformed(f"expected an event log of PCR {pcr} alone, got events of {sorted(foreign)[:8]}")
    if not hmac.compare_digest(replay(events), values[pcr]):
        raise AttestationError("measurement", f"the event log does not lead to what PCR {pcr} holds")
    return _measurement(events)


def _measurement(events: Iterable[Event]) -> Measurement:
    """The one measurement of an application among events."""
    found = []
    for event in events:
        if event.kind == EVENT_TAG and event.data[:4] == _TAG.to_bytes(4, "little"):
            measurement = _read(event.data[4:])
            if not hmac.compare_digest(bytes.fromhex(measurement.digest), event.digest):
                raise AttestationError("measurement", "the text of a measurement is not what was extended")
            found.append(measurement)
    if len(found) != 1:
        raise AttestationError(
            "measurement", f"expected one measurement of an application since the machine started, got {len(found)}"
        )
    return found[0]


def _read(tagged: bytes) -> Measurement:
    reader = Reader(tagged, "event of a measurement", "little")
    text = reader.sized(512, width=4)
    reader.end()
    try:
        return Measurement.parse(text)
    except ProtocolError as error:
        raise malformed(f"event of a measurement: {error}") from error


def _endorsed(public: PublicArea, policy: TpmPolicy, clock: Clock) -> EndorsedKey | None:
    """The proof that the key lives in a certified TPM, as far as the policy needs one."""
    name = public.name.hex()
    endorsed = next((key for key in policy.endorsed if key.name == name), None)
    if endorsed is not None and clock() > endorsed.expires:
        raise AttestationError("expired", f"the certificate behind the attestation key expired on {endorsed.expires}")
    if policy.require_hardware and (endorsed is None or not endorsed.hardware):
        seen = "was never challenged" if endorsed is None else f"lives in an emulator ({endorsed.model})"
        raise AttestationError(
            "root", f"expected an attestation key of a hardware TPM, this one {seen}; challenge it, see "
            "matl.attest.endorsement, or set require_hardware=False for tests",
        )  # fmt: skip
    return endorsed


def _details(
    quote: Quote, public: PublicArea, measurement: Measurement, endorsed: EndorsedKey | None, policy: TpmPolicy
) -> Mapping[str, str | int | bool]:
    return MappingProxyType(
        {
            "attestation_key": public.name.hex(),
            "model": endorsed.model if endorsed is not None else "unknown",
            "firmware": quote.firmware,
            "resets": quote.resets,
            "restarts": quote.restarts,
            "clock_safe": quote.safe,
            "pcr": policy.pcr,
            "pinned_pcrs": ",".join(map(str, sorted(policy.pinned))),
            "package": measurement.package,
            "config": measurement.config,
            "policy": measurement.policy,
        }
    )
