"""Prove that an attestation key lives in the TPM a vendor made: MakeCredential and ActivateCredential.

A TPM comes with an endorsement key (EK), which can only decrypt, and a certificate by its vendor. The key that signs
quotes, the attestation key (AK), has none. The link between both is a challenge::

    verifier                                        machine
             <--  identity: the AK's public area, certificates of the EK  --
    check the chain up to a pinned vendor
    make_credential(EK, name of the AK, secret)
                          --  blob  -->                 TPM2_ActivateCredential: the TPM decrypts the
                          <--  secret  --               secret only if it holds both keys
    compare

An AK is fixed to its TPM (``fixedTPM``), so what was proved once holds for as long as the AK exists: `EndorsedKey` can
be kept, and goes into a `matl.attest.tpm.TpmPolicy`.

The credential is that of the TPM 2.0 Library Specification, Part 1: Architecture, sections "Credential Protection" and
"Key Derivation Function". Its KDFa is the counter mode of NIST SP 800-108 with HMAC.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Collection, Container
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.decrepit.ciphers.modes import CFB  # what the specification asks for, under an HMAC
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from matl.attest._der import SET, Der, context
from matl.attest._tpm_structures import MAX_PUBLIC, PublicArea
from matl.attest._x509 import Certificate, read_certificates, verify_chain
from matl.attest.claims import Clock, system_clock
from matl.attest.evidence import pack_evidence, unpack_evidence
from matl.errors import AttestationError

__all__ = [
    "MAX_IDENTITY",
    "EndorsedKey",
    "EndorsementChallenge",
    "challenge_endorsement",
    "make_credential",
    "pack_identity",
]

_MOST_CERTIFICATES = 6
_FIELDS = {"tpm2_identity": 1, "public": MAX_PUBLIC, "certificates": 32768}
_VERSION = b"\x01"
MAX_IDENTITY = sum(_FIELDS.values()) + 128
"""Bytes of the largest identity."""

_SECRET_BYTES = 32

# TCG EK Credential Profile for TPM Family 2.0
_EK_CERTIFICATE = "2.23.133.8.1"  # tcg-kp-EKCertificate, an extended key usage
_TPM_MODEL = "2.23.133.2.2"  # tcg-at-tpmModel, in the alternative name
_ALTERNATIVE_NAME, _EXTENDED_USAGE, _POLICIES = "2.5.29.17", "2.5.29.37", "2.5.29.32"
_EMULATORS = frozenset({"swtpm"})  # what swtpm_localca writes, also for the TPMs of QEMU and libvirt


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsedKey:
    """An attestation key that was proved to live beside a certified endorsement key. Plain data that can be kept.

    Parameters
    ----------
    name : str
        The attestation key's name (hex): it changes with every bit of its public area.
    expires : datetime
        When the first certificate of the chain does.
    hardware : bool
        Whether the certificate is for a device; false where it says it is for an emulator.
    model : str
        What the vendor calls the TPM.
    """

    name: str
    expires: datetime
    hardware: bool
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementChallenge:
    """A question that one TPM in the world can answer, once it holds the attestation key.

    Parameters
    ----------
    blob : bytes
        What the machine gets: a TPM2B_ID_OBJECT and a TPM2B_ENCRYPTED_SECRET.
    secret : bytes
        What it has to answer. Keep it, and use it once.
    key : EndorsedKey
        What is proved by the answer.
    """

    blob: bytes
    secret: bytes = field(repr=False)
    key: EndorsedKey

    def check(self, answer: bytes) -> EndorsedKey:
        """The key, now proved.

        Raises
        ------
        AttestationError
            Code ``"root"``: the answer is not the secret.
        """
        if not hmac.compare_digest(self.secret, answer):
            raise AttestationError("root", "the TPM of the endorsement key does not hold this attestation key")
        return self.key


def pack_identity(public: bytes, certificates: bytes) -> bytes:
    """What a machine sends to be challenged.

    Parameters
    ----------
    public : bytes
        Public area (TPMT_PUBLIC) of its attestation key.
    certificates : bytes
        DER certificates one behind the other: of the endorsement key, and up to the vendor's root.
    """
    return pack_evidence(tpm2_identity=_VERSION, public=public, certificates=certificates)


def challenge_endorsement(
    identity: bytes, roots: Collection[bytes], *, revoked: Container[int] = (), clock: Clock = system_clock
) -> EndorsementChallenge:
    """Check who made a machine's TPM, and ask that TPM whether it holds the attestation key.

    Parameters
    ----------
    identity : bytes
        What the machine sent, see `pack_identity`.
    roots : collection of bytes
        Keys (DER SubjectPublicKeyInfo) of the TPM vendors that are trusted. Whoever has one of them can invent a TPM.
    revoked : container of int
        Serial numbers of certificates that are no longer good; a `matl.attest.revocation.RevokedList` is kept fresh.
    clock : callable
        Tells the time.

    Raises
    ------
    AttestationError
        ``"format"``, ``"version"``, ``"policy"`` (the key is no attestation key), ``"root"``, ``"signature"``,
        ``"expired"`` or ``"revoked"``.
    """
    parts = unpack_evidence(identity, _FIELDS)
    if parts["tpm2_identity"] != _VERSION:
        raise AttestationError("version", "expected version 1 of a TPM's identity; update the older side")
    public = PublicArea.parse(parts["public"])
    public.require_attestation_key()
    chain = read_certificates(parts["certificates"], _MOST_CERTIFICATES, "certificates of the endorsement key")
    if not chain:
        raise AttestationError(
            "root", "the machine has no certificate of its TPM's endorsement key: nobody vouches for it"
        )
    known = (_ALTERNATIVE_NAME, _EXTENDED_USAGE, _POLICIES)
    verify_chain(chain, roots, clock(), revoked=revoked, known=known)
    key, model = _endorsement_key(chain[0]), _model(chain[0])
    secret = os.urandom(_SECRET_BYTES)
    return EndorsementChallenge(
        blob=make_credential(key, public.name, secret),
        secret=secret,
        key=EndorsedKey(
            name=public.name.hex(),
            expires=min(certificate.not_after for certificate in chain if certificate.spki not in roots),
            hardware=model.lower() not in _EMULATORS,
            model=model,
        ),
    )


def make_credential(endorsement: rsa.RSAPublicKey, name: bytes, secret: bytes) -> bytes:
    """Encrypt ``secret`` for the TPM that holds the endorsement key, if it holds the key called ``name`` as well.

    Parameters
    ----------
    endorsement : RSAPublicKey
        Made from the TCG's default template: SHA-256, AES-128 in CFB mode.
    name : bytes
        Name of the other key.
    secret : bytes
        At most 32 bytes.

    Returns
    -------
    bytes
        A TPM2B_ID_OBJECT and a TPM2B_ENCRYPTED_SECRET.
    """
    seed = os.urandom(hashlib.sha256().digest_size)
    cipher = Cipher(algorithms.AES(_kdfa(seed, b"STORAGE", name, 128)), CFB(bytes(16))).encryptor()
    encrypted = cipher.update(_sized(secret)) + cipher.finalize()
    integrity = hmac.digest(_kdfa(seed, b"INTEGRITY", b"", 256), encrypted + name, "sha256")
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=b"IDENTITY\0")
    return _sized(_sized(integrity) + encrypted) + _sized(endorsement.encrypt(seed, oaep))


def _kdfa(key: bytes, label: bytes, context_: bytes, bits: int) -> bytes:
    """KDFa with SHA-256. The zero that ends its label is the zero that SP 800-108 puts behind a label."""
    return KBKDFHMAC(
        algorithm=hashes.SHA256(), mode=Mode.CounterMode, length=bits // 8, rlen=4, llen=4,
        location=CounterLocation.BeforeFixed, label=label, context=context_, fixed=None,
    ).derive(key)  # fmt: skip


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _endorsement_key(certificate: Certificate) -> rsa.RSAPublicKey:
    """The key of a certificate that is for an endorsement key, and for nothing else its vendor signs."""
    usages = certificate.extensions.get(_EXTENDED_USAGE)
    if usages is None or _EK_CERTIFICATE not in _oids(usages):
        raise AttestationError("root", "the certificate is not for an endorsement key (tcg-kp-EKCertificate)")
    key = certificate.key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != 2048:
        raise AttestationError(
            "root", "expected an endorsement key of RSA with 2048 bits; send its certificate, not that of the ECC key"
        )
    return key


def _oids(extension: bytes) -> set[str]:
    outer = Der(extension, "extendedKeyUsage")
    sequence, found = outer.enter(), set()
    outer.finish()
    while not sequence.done:
        found.add(sequence.oid())
    return found


def _model(certificate: Certificate) -> str:
    """The model in the certificate's alternative name, where the profile puts it."""
    names = Der(certificate.extensions.get(_ALTERNATIVE_NAME, b"\x30\x00"), "alternative name").enter()
    while not names.done:
        if names.peek() != context(4):  # a name that is no directoryName
            names.take(names.peek())
            continue
        relative = names.enter(context(4)).enter()
        while not relative.done:
            attributes = relative.enter(SET)
            while not attributes.done:
                attribute = attributes.enter()
                if attribute.oid() == _TPM_MODEL:
                    return attribute.take(attribute.peek()).decode("utf-8", errors="replace")
    raise AttestationError("root", "the certificate of the endorsement key does not name the model of the TPM")
