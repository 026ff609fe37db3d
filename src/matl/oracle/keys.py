"""The keys of an oracle: made anew at every start, and in memory alone."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from matl.attest.keys import SigningKey
from matl.attest.sealing import SealedText, unseal
from matl.protocol.oracle import KeysText

__all__ = ["OracleKeys"]


class OracleKeys:
    """A key to sign with, which evidence vouches for, and one that updates are sealed to, which the first one names.

    Parameters
    ----------
    measurement : str
        Digest of what the oracle measured of itself.

    Attributes
    ----------
    signing : SigningKey
        Signs judgements and receipts.
    text : KeysText
        Names the key to seal to.
    signature : bytes
        Of ``signing``, over the text.

    Examples
    --------
    >>> keys = OracleKeys("ab" * 32)
    >>> keys.signing.public.verify(keys.signature, keys.text.to_bytes())
    True
    """

    __slots__ = ("_sealing", "signature", "signing", "text")

    def __init__(self, measurement: str) -> None:
        self._sealing = X25519PrivateKey.generate()
        self.signing = SigningKey.generate()
        der = self._sealing.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.text = KeysText(sealing=der.hex(), measurement=measurement)
        self.signature = self.signing.sign(self.text.to_bytes())

    def open(self, box: bytes, *, run: str, number: int, client: str) -> bytes:
        """What a client sealed for a round of a run.

        Raises
        ------
        ProtocolError
            ``"size"`` or ``"sealed"``: it is no box, or was sealed for another key, run, round or client.
        """
        text = SealedText(run=run, round=number, client_id=client, oracle=self.signing.public.fingerprint)
        return unseal(self._sealing, box, text.to_bytes())
