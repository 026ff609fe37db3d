"""A "TPM" made of Python: it signs whatever one wants it to say."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from matl.attest._event_log import Event, replay, write_log
from matl.attest.measurement import Measurement
from matl.attest.tpm import bound_data, measured, pack_quote

SHA1, SHA256, NULL = 0x0004, 0x000B, 0x0010
RSASSA, RSAPSS, ECDSA = 0x0014, 0x0016, 0x0018
ATTESTATION_KEY = 0x00050072  # what tpm2_createak makes: restricted, sign, fixedTPM, fixedParent, ...

NONCE = bytes(range(32))
KEY = b"the oracle's public key"
MEASUREMENT = Measurement(package="0a" * 32, config="0b" * 32, policy="0c" * 32)


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def selection(pcrs: Sequence[int], bank: int = SHA256) -> bytes:
    return struct.pack(">HB", bank, 3) + sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")


def attest_bytes(**changes: Any) -> bytes:
    """A TPMS_ATTEST; every field can be replaced."""
    values: dict[str, Any] = {
        "magic": 0xFF544347, "kind": 0x8018, "signer": b"\x00\x0b" + bytes(32), "extra": bound_data(NONCE, KEY),
        "clock": 1000, "resets": 7, "restarts": 2, "safe": 1, "firmware": 5, "selections": [selection([14])],
        "digest": bytes(32), "rest": b"",
    } | changes  # fmt: skip
    return b"".join(
        [
            struct.pack(">IH", values["magic"], values["kind"]), sized(values["signer"]), sized(values["extra"]),
            struct.pack(">QIIBQ", *(values[name] for name in ("clock", "resets", "restarts", "safe", "firmware"))),
            struct.pack(">I", len(values["selections"])), *values["selections"], sized(values["digest"]),
            values["rest"],
        ]
    )  # fmt: skip


@dataclass
class Forge:
    """An attestation key outside any TPM."""

    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    scheme: int = ECDSA
    attributes: int = ATTESTATION_KEY

    def public(self, **changes: Any) -> bytes:
        """A TPMT_PUBLIC; every field can be replaced."""
        numbers = self.key.public_key().public_numbers()
        is_rsa = isinstance(self.key, rsa.RSAPrivateKey)
        values: dict[str, Any] = {
            "type": 0x0001 if is_rsa else 0x0023, "name": SHA256, "attributes": self.attributes, "auth": b"",
            "symmetric": NULL, "scheme": self.scheme, "hash": SHA256, "bits": 2048, "exponent": 0, "curve": 3,
            "kdf": NULL, "rest": b"",
        } | changes  # fmt: skip
        head = struct.pack(">HHI", values["type"], values["name"], values["attributes"]) + sized(values["auth"])
        head += struct.pack(">HHH", values["symmetric"], values["scheme"], values["hash"])
        if is_rsa:
            modulus = values.get("modulus", numbers.n.to_bytes(256, "big"))
            return head + struct.pack(">HI", values["bits"], values["exponent"]) + sized(modulus) + values["rest"]
        x, y = (values.get(name, getattr(numbers, name).to_bytes(32, "big")) for name in "xy")
        return head + struct.pack(">HH", values["curve"], values["kdf"]) + sized(x) + sized(y) + values["rest"]

    @property
    def name(self) -> str:
        return (b"\x00\x0b" + hashlib.sha256(self.public()).digest()).hex()

    def sign(self, data: bytes) -> bytes:
        """A TPMT_SIGNATURE."""
        head = struct.pack(">HH", self.scheme, SHA256)
        if self.scheme == ECDSA:
            numbers = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
            return head + b"".join(sized(number.to_bytes(32, "big")) for number in numbers)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        pad = padding.PKCS1v15() if self.scheme == RSASSA else pss
        return head + sized(self.key.sign(data, pad, hashes.SHA256()))

    def evidence(
        self,
        events: Sequence[Event] | None = None,
        *,
        others: Mapping[int, bytes] | None = None,
        say: Mapping[str, Any] | None = None,
        **parts: bytes,
    ) -> bytes:
        """Evidence that fits together, but for what is replaced: fields of the TPMS_ATTEST, or whole parts."""
        events = [measured(MEASUREMENT)] if events is None else events
        values = {**(others or {}), 14: replay(events)}
        pcrs = b"".join(values[pcr] for pcr in sorted(values))
        said = {"selections": [selection(sorted(values))], "digest": hashlib.sha256(pcrs).digest(), **(say or {})}
        whole: dict[str, bytes] = {"attest": attest_bytes(**said), "public": self.public(), "pcrs": pcrs,
                                   "log": write_log(events), "key": KEY} | parts  # fmt: skip
        return pack_quote(**{"signature": self.sign(whole["attest"]), **whole})
