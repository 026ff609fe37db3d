"""How an oracle proves what it is: with the TPM of its machine, or, for trying out, with a key in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from matl.attest.endorsement import challenge_endorsement
from matl.attest.keys import SigningKey
from matl.attest.measurement import Measurement
from matl.attest.software import sign_software
from matl.attest.tpm_tools import Tpm
from matl.files import make_directory
from matl.protocol.problems import Code, refusal

__all__ = ["Attester", "SoftwareAttester", "TpmAttester"]


class Attester(Protocol):
    """Makes evidence of one format about this process. Its methods block."""

    @property
    def format(self) -> Literal["software", "tpm2"]:
        """As `matl.attest.claims.Verifier.format`."""

    @property
    def hardware_root(self) -> bool:
        """Whether it was proved here that the evidence ends in a maker's hardware."""

    def evidence(self, nonce: bytes, key: bytes) -> bytes:
        """Evidence that answers a nonce (1 to 64 bytes) and vouches for a public key."""

    def identity(self) -> bytes:
        """What a verifier needs to challenge the machine."""

    def activate(self, blob: bytes) -> bytes:
        """The answer to a challenge."""


class SoftwareAttester:
    """A key in a file says what runs. There is no hardware behind it, and everything says so.

    Parameters
    ----------
    measurement : Measurement
        What runs.
    folder : Path
        Where the key is kept; it is made where there is none.
    """

    format: Literal["software"] = "software"
    hardware_root: bool = False

    def __init__(self, measurement: Measurement, folder: Path) -> None:
        path = make_directory(folder) / "machine.pem"
        if not path.exists():
            SigningKey.generate().save(path)
        self._measurement, self._key = measurement, SigningKey.load(path)

    @property
    def signer(self) -> str:
        """Fingerprint of the key in the file."""
        return self._key.public.fingerprint

    def evidence(self, nonce: bytes, key: bytes) -> bytes:
        """See `Attester.evidence`."""
        return sign_software(self._measurement, nonce, key, self._key)

    def identity(self) -> bytes:
        """There is none.

        Raises
        ------
        ServiceError
            ``"not_found"``.
        """
        raise refusal(Code.NOT_FOUND, "this oracle has no TPM: its evidence is software, and hardware_root is false")

    def activate(self, blob: bytes) -> bytes:
        """See `identity`."""
        return self.identity()


class TpmAttester:
    """The TPM of this machine.

    Parameters
    ----------
    measurement : Measurement
        What runs; it is extended into the TPM.
    tpm : Tpm
        The TPM.
    vendor_keys : frozenset of bytes
        Root keys (DER) of makers of TPMs. With them the oracle challenges its own TPM, to know whether it may say
        ``hardware_root: true``; without them it says false. What clients believe follows from roots of their own.
    intermediates : bytes
        Certificates (DER, one behind the other) between that of the TPM and its maker's root, if the TPM has them not.

    Raises
    ------
    TpmError
        The TPM cannot be used, or something else was measured there since the machine started.
    AttestationError
        It was not made by one of these makers.
    """

    format: Literal["tpm2"] = "tpm2"

    def __init__(
        self,
        measurement: Measurement,
        tpm: Tpm,
        vendor_keys: frozenset[bytes] = frozenset(),
        intermediates: bytes = b"",
    ) -> None:
        self._tpm, self._intermediates = tpm, intermediates
        tpm.measure(measurement)
        self.hardware_root = False
        if vendor_keys:
            challenge = challenge_endorsement(self.identity(), vendor_keys)
            self.hardware_root = challenge.check(tpm.activate(challenge.blob)).hardware

    def evidence(self, nonce: bytes, key: bytes) -> bytes:
        """See `Attester.evidence`."""
        return self._tpm.quote(nonce, key)

    def identity(self) -> bytes:
        """See `Attester.identity`."""
        return self._tpm.identity(self._intermediates)

    def activate(self, blob: bytes) -> bytes:
        """See `Attester.activate`."""
        return self._tpm.activate(blob)
