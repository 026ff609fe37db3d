"""The structures of a TPM that a quote is made of, parsed strictly, and the signature over it.

Layouts and numbers are those of the TPM 2.0 Library Specification, Part 2: Structures (Trusted Computing Group).
Everything is big-endian; a TPM2B is a byte string behind its 16-bit length. Only what the verifier accepts can be
parsed: a quote of the SHA-256 bank, and the public area of an RSA or P-256 key that signs with SHA-256. A weaker
algorithm is refused here, before anything is computed with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from matl.attest._reader import Reader, malformed
from matl.errors import AttestationError

__all__ = ["MAX_ATTEST", "MAX_PUBLIC", "MAX_SIGNATURE", "SHA256", "PublicArea", "Quote", "check_signature"]

MAX_ATTEST, MAX_PUBLIC, MAX_SIGNATURE = 1024, 1024, 1024
"""Bytes; the largest that occur have about 150, 600 and 520."""

SHA256 = 0x000B
"""TPM_ALG_SHA256, also in event logs."""

_GENERATED = 0xFF544347  # TPM_GENERATED_VALUE: a TPM made this; a restricted key signs nothing else that begins so
_QUOTE = 0x8018  # TPM_ST_ATTEST_QUOTE
_RSA, _ECC, _NULL = 0x0001, 0x0023, 0x0010
_RSASSA, _RSAPSS, _ECDSA = 0x0014, 0x0016, 0x0018
_P256 = 0x0003
_NAME_BYTES = 2 + 32  # an algorithm, and a SHA-256 digest
_LONGEST_DIGEST = 64

# TPMA_OBJECT
_FIXED_TPM, _FIXED_PARENT, _MADE_INSIDE = 1 << 1, 1 << 4, 1 << 5  # the last is sensitiveDataOrigin
_RESTRICTED, _DECRYPT, _SIGN = 1 << 16, 1 << 17, 1 << 18
_DUE = {
    "fixedTPM": _FIXED_TPM,
    "fixedParent": _FIXED_PARENT,
    "sensitiveDataOrigin": _MADE_INSIDE,
    "restricted": _RESTRICTED,
    "sign": _SIGN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE.

    Parameters
    ----------
    signer : bytes
        Qualified name of the key that signs.
    extra : bytes
        What the asker had put in (``extraData``).
    clock : int
        Milliseconds that the TPM has been powered.
    resets, restarts : int
        Power cycles ever; wake-ups since the last.
    safe : bool
        Whether the clock cannot have gone back.
    firmware : int
        Version of the TPM's firmware, in the vendor's numbering.
    pcrs : tuple of int
        PCRs of the SHA-256 bank that are quoted, in increasing order.
    digest : bytes
        SHA-256 of their values, one after the other.
    """

    signer: bytes
    extra: bytes
    clock: int
    resets: int
    restarts: int
    safe: bool
    firmware: int
    pcrs: tuple[int, ...]
    digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Quote:
        """Read it.

        Raises
        ------
        AttestationError
            Code ``"format"``: it is no quote; ``"policy"``: it covers another bank than SHA-256.
        """
        reader = Reader(data, "TPMS_ATTEST")
        magic, kind = reader.number(4), reader.number(2)
        if magic != _GENERATED:
            raise malformed(f"TPMS_ATTEST: expected magic {_GENERATED:#x}, got {magic:#x}: no TPM made this")
        if kind != _QUOTE:
            raise malformed(f"TPMS_ATTEST: expected type {_QUOTE:#x} (a quote), got {kind:#x}")
        signer, extra = reader.sized(2 + _LONGEST_DIGEST), reader.sized(2 + _LONGEST_DIGEST)
        clock, resets, restarts, safe = reader.number(8), reader.number(4), reader.number(4), reader.number(1)
        if safe > 1:
            raise malformed(f"TPMS_ATTEST: expected safe to be 0 or 1, got {safe}")
        firmware = reader.number(8)
        pcrs = _selection(reader)
        digest = reader.sized(_LONGEST_DIGEST)
        reader.end()
        return cls(
            signer=signer, extra=extra, clock=clock, resets=resets, restarts=restarts, safe=bool(safe),
            firmware=firmware, pcrs=pcrs, digest=digest,
        )  # fmt: skip


def _selection(reader: Reader) -> tuple[int, ...]:
    """A TPML_PCR_SELECTION of one bank, SHA-256."""
    banks = reader.number(4)
    if banks != 1:
        raise AttestationError("policy", f"expected a quote of one bank of PCRs, SHA-256, got {banks}")
    bank = reader.number(2)
    if bank != SHA256:
        raise AttestationError(
            "policy", f"expected a quote of the SHA-256 bank ({SHA256:#06x}), got algorithm {bank:#06x}"
        )
    bits = int.from_bytes(reader.sized(4, width=1), "little")
    return tuple(index for index in range(32) if bits >> index & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicArea:
    """A TPMT_PUBLIC of a signing key.

    Parameters
    ----------
    key : RSAPublicKey or EllipticCurvePublicKey
        The key.
    attributes : int
        TPMA_OBJECT.
    scheme : int
        The one algorithm the key signs with.
    name : bytes
        What a TPM calls the key: the algorithm SHA-256, and the SHA-256 digest of the public area.
    """

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    attributes: int
    scheme: int
    name: bytes

    @classmethod
    def parse(cls, data: bytes) -> PublicArea:
        """Read it.

        Raises
        ------
        AttestationError
            Code ``"format"``: it is malformed; ``"policy"``: it is no key that signs with SHA-256.
        """
        reader = Reader(data, "TPMT_PUBLIC")
        kind, name_algorithm, attributes = reader.number(2), reader.number(2), reader.number(4)
        reader.sized(_LONGEST_DIGEST)  # authPolicy: who may use the key is the attester's affair
        if kind not in (_RSA, _ECC):
            raise AttestationError("policy", f"expected an attestation key that is RSA or ECC, got type {kind:#06x}")
        if name_algorithm != SHA256:
            raise AttestationError("policy", f"expected a key named with SHA-256, got algorithm {name_algorithm:#06x}")
        symmetric = reader.number(2)
        if symmetric != _NULL:
            raise AttestationError("policy", f"expected a key that only signs, got cipher {symmetric:#06x}")
        scheme = reader.number(2)
        if scheme not in ((_RSASSA, _RSAPSS) if kind == _RSA else (_ECDSA,)):
            raise AttestationError("policy", f"expected a key bound to RSASSA, RSAPSS or ECDSA, got {scheme:#06x}")
        if (digest := reader.number(2)) != SHA256:
            raise AttestationError("policy", f"expected a key that signs with SHA-256, got algorithm {digest:#06x}")
        key = _rsa(reader) if kind == _RSA else _p256(reader)
        reader.end()
        name = SHA256.to_bytes(2, "big") + hashlib.sha256(data).digest()
        return cls(key=key, attributes=attributes, scheme=scheme, name=name)

    def require_attestation_key(self) -> None:
        """The key was made in the TPM, never leaves it, and signs only what the TPM itself says.

        Without ``restricted`` anybody on the machine could have a quote of his own invention signed.

        Raises
        ------
        AttestationError
            Code ``"policy"``.
        """
        missing = [name for name, bit in _DUE.items() if not self.attributes & bit]
        if missing or self.attributes & _DECRYPT:
            wrong = [f"not {name}" for name in missing] + ["decrypt"] * bool(self.attributes & _DECRYPT)
            raise AttestationError(
                "policy", f"expected an attestation key ({', '.join(_DUE)}, not decrypt), got one that is "
                f"{', '.join(wrong)}; make it with tpm2_createak",
            )  # fmt: skip


def _rsa(reader: Reader) -> rsa.RSAPublicKey:
    bits, exponent, modulus = reader.number(2), reader.number(4) or 65537, reader.sized(512)
    if bits not in (2048, 3072, 4096) or exponent != 65537 or len(modulus) * 8 != bits:
        raise AttestationError(
            "policy", f"expected RSA of 2048, 3072 or 4096 bits with exponent 65537, got {bits} and {exponent}"
        )
    try:
        return rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "big")).public_key()
    except ValueError as error:
        raise malformed(f"TPMT_PUBLIC: no RSA key: {error}") from error


def _p256(reader: Reader) -> ec.EllipticCurvePublicKey:
    curve, kdf = reader.number(2), reader.number(2)
    if curve != _P256 or kdf != _NULL:
        raise AttestationError(
            "policy", f"expected curve P-256 ({_P256:#06x}) and no KDF, got {curve:#06x}, {kdf:#06x}"
        )
    x, y = (reader.sized(32).rjust(32, b"\0") for _ in range(2))  # a TPM may leave out leading zeros
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
    except ValueError as error:
        raise malformed(f"TPMT_PUBLIC: not a point of P-256: {error}") from error


def check_signature(public: PublicArea, signature: bytes, signed: bytes) -> None:
    """A TPMT_SIGNATURE over ``signed`` is by this key, with the algorithm the key is bound to.

    Raises
    ------
    AttestationError
        Code ``"signature"``, or ``"format"`` where it is none.
    """
    reader = Reader(signature, "TPMT_SIGNATURE")
    scheme, digest = reader.number(2), reader.number(2)
    if (scheme, digest) != (public.scheme, SHA256):
        raise AttestationError(
            "signature", f"expected a signature with ({public.scheme:#06x}, {SHA256:#06x}), the key's own algorithms, "
            f"got ({scheme:#06x}, {digest:#06x})",
        )  # fmt: skip
    numbers = [reader.sized(512) for _ in range(2 if scheme == _ECDSA else 1)]
    reader.end()
    try:
        if isinstance(public.key, rsa.RSAPublicKey):
            public.key.verify(numbers[0], signed, _padding(scheme), hashes.SHA256())
        else:
            r, s = (int.from_bytes(number, "big") for number in numbers)
            public.key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise AttestationError("signature", "the quote was not signed by the attestation key beside it") from None


def _padding(scheme: int) -> padding.AsymmetricPadding:
    if scheme == _RSASSA:
        return padding.PKCS1v15()
    return padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)  # TPMs differ in the length of the salt
