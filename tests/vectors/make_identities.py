"""Makes the vectors of identities; run it only to add to them: `python tests/vectors/make_identities.py`.

Everything in them is fixed: keys come from names, and ECDSA signs as RFC 6979 says. That the files are still what this
makes is a test.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from matl.attest.canonical import CanonicalText
from matl.attest.enrolment import EnrolmentText
from matl.attest.keys import PublicKey
from matl.attest.receipts import Receipt
from matl.attest.texts import ChunkText, UpdateText
from matl.records import Status
from matl.state import digest

N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # order of P-256, FIPS 186-5
P = 2**255 - 19
HASH = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("model", "layout", "payload", "policy", "token")}
RSA_MODULUS = int.from_bytes(b"".join(hashlib.sha512(bytes([i])).digest() for i in range(4)), "big") | 1 << 2047 | 1


def _seed(name: str) -> bytes:
    return hashlib.sha256(f"matl test vector: {name}".encode()).digest()


def _p256(name: str, curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(_seed(name), "big") >> 1, curve or ec.SECP256R1())


KEYS: dict[str, Any] = {
    "alice": Ed25519PrivateKey.from_private_bytes(_seed("alice")),
    "mallory": Ed25519PrivateKey.from_private_bytes(_seed("mallory")),
    "oracle": Ed25519PrivateKey.from_private_bytes(_seed("oracle")),
    "phone-7": _p256("phone-7"),
    "phone-8": _p256("phone-8"),
}


def _spki(private: Any) -> bytes:
    der: bytes = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def sign(name: str, text: bytes) -> bytes:
    """The same signature every time."""
    key = KEYS[name]
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(text)
    signature: bytes = key.sign(text, ec.ECDSA(SHA256(), deterministic_signing=True))
    return signature


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _der(tag: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([tag, len(body)]) + body


def keys() -> dict[str, Any]:
    """Keys, and keys that are refused."""
    phone, alice = _spki(KEYS["phone-7"]), _spki(KEYS["alice"])
    algorithm, point = phone[2:23], phone[26:]
    compressed = bytes([2 + (point[-1] & 1)]) + point[1:33]
    order_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
    refused = {
        "empty": b"",
        "truncated": alice[:-1],
        "continued": alice + b"\0",
        "PEM where DER is due": KEYS["alice"]
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "the bare 32 bytes": alice[-32:],
        "a private key": KEYS["alice"].private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "P-256, compressed point": _der(0x30, algorithm + _der(0x03, b"\0" + compressed)),
        "P-256, a point that is not on the curve": phone[:-1] + bytes([phone[-1] ^ 1]),
        "P-256, the point at infinity": _der(0x30, algorithm + _der(0x03, b"\0\0")),
        "P-256, length in BER": phone[:1] + b"\x81" + phone[1:],
        "P-384": _spki(ec.derive_private_key(7, ec.SECP384R1())),
        "secp256k1": _spki(_p256("k1", ec.SECP256K1())),
        "RSA": rsa.RSAPublicNumbers(65537, RSA_MODULUS)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "X25519": _spki(X25519PrivateKey.from_private_bytes(_seed("x"))),
        "Ed448": _spki(Ed448PrivateKey.from_private_bytes(_seed("e") + bytes(25))),
    }
    for y in (0, 1, P - 1, order_8, P - order_8, P, P + 1, P + 5):
        for sign_bit in (0, 1):
            what = "of small order" if y < P else "not reduced"
            refused[f"Ed25519 {what}, y = {y:#x}, sign {sign_bit}"] = alice[:12] + (y | sign_bit << 255).to_bytes(
                32, "little"
            )
    return {
        "keys": {
            name: {
                "algorithm": PublicKey(_spki(key)).algorithm.value,
                "private_key_pem": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
                "public_key_der_hex": _spki(key).hex(),
                "public_key_pem": PublicKey(_spki(key)).pem.decode(),
                "fingerprint": PublicKey(_spki(key)).fingerprint,
            }
            for name, key in KEYS.items()
        },
        "refused": [{"why": why, "public_key_der_hex": der.hex()} for why, der in refused.items()],
    }


def _good(text: CanonicalText, key: str, fields: dict[str, Any]) -> dict[str, Any]:
    data = text.to_bytes()
    return {
        "fields": fields,
        "text": data.decode(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "key": key,
        "signature_base64": _b64(sign(key, data)),
    }


def _malformed(text: bytes, **changes: tuple[bytes, bytes]) -> list[dict[str, str]]:
    """Texts that are none, made of one that is; a change that changes nothing would be a mistake here."""
    lines = text.split(b"\n")
    texts = {
        "empty": b"",
        "a newline at the end": text + b"\n",
        "CR LF": text.replace(b"\n", b"\r\n"),
        "the last line missing": b"\n".join(lines[:-1]),
        "a line twice": b"\n".join([*lines, lines[-1]]),
        "two lines in the other order": b"\n".join([*lines[:-2], lines[-1], lines[-2]]),
        "a space behind a value": text + b" ",
        "a byte order mark": b"\xef\xbb\xbf" + text,
        "a zero byte": text.replace(b"\n", b"\0\n", 1),
        "UTF-16": text.decode().encode("utf-16-le"),
        "an empty line first": b"\n" + text,
        "an equals sign missing": text.replace(b"round=", b"round", 1),
        "an upper-case key": text.replace(b"round=", b"Round=", 1),
        "a space before a value": text.replace(b"round=", b"round= ", 1),
        "another line separator, U+2028": text.replace(b"\n", b"\xe2\x80\xa8"),
    }
    texts |= {why.replace("_", " "): text.replace(*change, 1) for why, change in changes.items()}
    assert all(changed != text for changed in texts.values()), [why for why, each in texts.items() if each == text]
    return [{"why": why, "text_base64": _b64(changed)} for why, changed in texts.items()]


def _of_ids(key: bytes, name: bytes) -> dict[str, tuple[bytes, bytes]]:
    """Spellings of an id that somebody might take for another one."""
    line = key + b"=" + name
    return {
        f"{key.decode()}, {why}": (line, key + b"=" + changed)
        for why, changed in {
            "empty": b"",
            "too long": b"a" * 129,
            "a letter of Cyrillic": name.replace(b"a", "\u0430".encode(), 1) + "\u0430".encode(),
            "composed (NFC)": b"caf\xc3\xa9",
            "decomposed (NFD)": b"cafe\xcc\x81",
            "a zero-width space": name + "\u200b".encode(),
            "an overlong encoding": b"\xc0\xae\xc0\xae" + name,
            "written from right to left": "\u202e".encode() + name,
            "a path": b"../" + name,
            "a tab": name + b"\t",
            "a second equals sign": b"=" + name,
            "DEL": name + b"\x7f",
        }.items()
    }


def _of_numbers(key: bytes, value: bytes) -> dict[str, tuple[bytes, bytes]]:
    line = key + b"=" + value
    return {
        f"{key.decode()}, {why}": (line, key + b"=" + changed)
        for why, changed in {
            "a leading zero": b"0" + value,
            "a plus": b"+" + value,
            "negative": b"-1",
            "negative zero": b"-0",
            "a point": value + b".0",
            "an exponent": b"1e3",
            "hexadecimal": b"0x10",
            "an underscore": b"1_0",
            "Arabic digits": "\u0663".encode(),
            "2^53": b"9007199254740992",
            "many digits": b"9" * 400,
        }.items()
    }


def _of_hashes(key: bytes, value: bytes) -> dict[str, tuple[bytes, bytes]]:
    line = key + b"=" + value
    return {
        f"{key.decode()}, {why}": (line, key + b"=" + changed)
        for why, changed in {
            "upper case": value.upper(),
            "too short": value[:-1],
            "too long": value + b"0",
            "no hexadecimal digit": b"g" + value[1:],
            "a prefix": b"0x" + value[2:],
        }.items()
    }


def _bad_ecdsa(text: bytes, key: str, other: str) -> dict[str, tuple[str, bytes]]:
    """Signatures that are none; the key comes with each."""
    good = sign(key, text)
    r, s = decode_dss_signature(good)
    int_r, int_s = good[2 : 4 + good[3]], good[4 + good[3] :]
    return {
        "empty": (key, b""),
        "truncated": (key, good[:-1]),
        "continued": (key, good + b"\0"),
        "s increased by one": (key, encode_dss_signature(r, s + 1)),
        "r and s exchanged": (key, encode_dss_signature(s, r)),
        "another key": (other, good),
        "r and s without DER": (key, r.to_bytes(32, "big") + s.to_bytes(32, "big")),
        "a length in BER": (key, good[:1] + b"\x81" + good[1:]),
        "r with a zero more": (key, _der(0x30, _der(0x02, b"\0" + int_r[2:]) + int_s)),
        "r = 0": (key, encode_dss_signature(0, s)),
        "s = 0": (key, encode_dss_signature(r, 0)),
        "r = 0 and s = 0": (key, encode_dss_signature(0, 0)),
        "s + n": (key, encode_dss_signature(r, s + N)),
        "r = n and s = n": (key, encode_dss_signature(N, N)),
        "r negative": (key, _der(0x30, _der(0x02, b"\xff" * 32) + int_s)),
        "a thousand bytes": (key, good + bytes(1000)),
    }


def _bad_ed25519(text: bytes, key: str, other: str) -> dict[str, tuple[str, bytes]]:
    good = sign(key, text)
    order = 2**252 + 27742317777372353535851937790883648493
    return {
        "empty": (key, b""),
        "truncated": (key, good[:-1]),
        "continued": (key, good + b"\0"),
        "zeros": (key, bytes(64)),
        "another key": (other, good),
        "S + L": (key, good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")),
        "R of small order and S = 0": (key, b"\1" + bytes(63)),
        "a bit changed": (key, bytes([good[0] ^ 1]) + good[1:]),
    }


def _signatures(text: bytes, bad: dict[str, tuple[str, bytes]]) -> list[dict[str, str]]:
    return [
        {"why": why, "text": text.decode(), "key": key, "signature_base64": _b64(signature)}
        for why, (key, signature) in bad.items()
    ]


CHUNK: dict[str, Any] = {
    "round": 3,
    "node_id": "phone-7",
    "model_hash": HASH["model"],
    "gradient_chunk_b64": _b64(bytes(range(40))),
    "timestamp_unix_ms": 1700000000123,
}
UPDATE: dict[str, Any] = {
    "run": "demo-0123456789ab",
    "round": 3,
    "phase": None,
    "client_id": "alice",
    "base_version": 3,
    "model_hash": HASH["model"],
    "layout_hash": HASH["layout"],
    "kind": "delta",
    "codec": "safetensors",
    "payload_sha256": HASH["payload"],
    "num_examples": 120,
    "evidence_hash": None,
    "nonce": "000102030405060708090a0b0c0d0e0f",
    "timestamp_unix_ms": 1700000000123,
}


def chunk_text(fields: dict[str, Any]) -> ChunkText:
    """A text of version 1 from the fields of a vector."""
    rest = {key: value for key, value in fields.items() if key != "gradient_chunk_b64"}
    return ChunkText(**rest, chunk=base64.b64decode(fields["gradient_chunk_b64"]))


def update_v1() -> dict[str, Any]:
    """Version 1."""
    variants = [
        CHUNK,
        {**CHUNK, "round": 0, "node_id": "A", "gradient_chunk_b64": "AA==", "timestamp_unix_ms": 0},
        {
            **CHUNK,
            "round": 2**53 - 1,
            "node_id": "0._:@-" + "z" * 122,
            "gradient_chunk_b64": _b64(bytes(range(256)) * 3),
            "timestamp_unix_ms": 2**53 - 1,
        },
    ]
    text = chunk_text(CHUNK).to_bytes()
    r, s = decode_dss_signature(sign("phone-7", text))
    chunk = CHUNK["gradient_chunk_b64"].encode()
    malformed = _malformed(
        text,
        **_of_ids(b"node_id", b"phone-7"),
        **_of_numbers(b"round", b"3"),
        **_of_hashes(b"model_hash", HASH["model"].encode()),
        empty_chunk=(chunk, b""),
        chunk_without_padding=(chunk, chunk.rstrip(b"=")),
        chunk_with_padding_bits=(chunk, chunk.replace(b"w==", b"x==").replace(b"c=", b"d=")),
        chunk_in_the_alphabet_for_URLs=(chunk, b"-_" + chunk[2:]),
        chunk_with_a_space=(chunk, chunk[:4] + b" " + chunk[4:]),
    )
    bad = _bad_ecdsa(text, "phone-7", "phone-8")
    bad["an Ed25519 signature"] = ("phone-7", sign("alice", text))
    bad["of version 2"] = ("phone-7", sign("phone-7", UpdateText(**UPDATE).to_bytes()))
    other_round = chunk_text({**CHUNK, "round": 4}).to_bytes()
    return {
        "algorithm": "ECDSA on P-256, SHA-256, DER",
        "texts": [_good(chunk_text(fields), "phone-7", fields) for fields in variants],
        "also_good": [
            {
                "why": "the other s: nothing rests on the bytes of a signature",
                "text": text.decode(),
                "key": "phone-7",
                "signature_base64": _b64(encode_dss_signature(r, N - s)),
            }
        ],
        "malformed_texts": malformed,
        "bad_signatures": [
            *_signatures(text, bad),
            *_signatures(other_round, {"of another round": ("phone-7", sign("phone-7", text))}),
        ],
    }


def update_v2() -> dict[str, Any]:
    """Version 2."""
    evidence = {"format": "example", "level": 2, "ok": True, "quote": "abc"}
    variants = [
        (UPDATE, "alice"),
        ({**UPDATE, "client_id": "phone-7"}, "phone-7"),
        (
            {
                **UPDATE,
                "round": 0,
                "base_version": 0,
                "phase": "masked_input",
                "kind": "masked",
                "codec": "transform hadamard, quantiser fixed, packer ans",
                "num_examples": None,
                "evidence_hash": digest(evidence),
            },
            "alice",
        ),
    ]
    text = UpdateText(**UPDATE).to_bytes()
    changes = _malformed(
        text,
        **_of_ids(b"client_id", b"alice"),
        **_of_numbers(b"num_examples", b"120"),
        **_of_hashes(b"payload_sha256", HASH["payload"].encode()),
        **_of_hashes(b"nonce", UPDATE["nonce"].encode()),
        version_1_in_the_first_line=(b"matl-update/2", b"matl-update/1"),
        no_first_line=(b"matl-update/2\n", b""),
        first_line_of_a_receipt=(b"matl-update/2", b"matl-receipt/1"),
        codec_with_two_spaces=(b"safetensors", b"safe  tensors"),
        codec_empty=(b"safetensors", b""),
        codec_too_long=(b"safetensors", b"s" * 129),
        kind_in_upper_case=(b"delta", b"Delta"),
        no_equals_sign_where_there_is_no_value=(b"phase=\n", b"phase\n"),
        num_examples_as_a_word=(b"=120", b"=None"),
    )
    right, bad = ("alice", sign("alice", text)), _bad_ed25519(text, "alice", "mallory")
    bad["an ECDSA signature"] = ("alice", sign("phone-7", text))
    bad["of an enrolment"] = ("alice", sign("alice", ENROLMENT.to_bytes()))
    others = {
        f"of another {name}": UpdateText(**{**UPDATE, name: value}).to_bytes()
        for name, value in {
            "run": "demo",
            "round": 4,
            "phase": "keys",
            "client_id": "bob",
            "base_version": 2,
            "model_hash": HASH["layout"],
            "layout_hash": HASH["model"],
            "kind": "masked",
            "codec": "int8",
            "payload_sha256": HASH["model"],
            "num_examples": 121,
            "evidence_hash": HASH["payload"],
            "nonce": "00" * 16,
            "timestamp_unix_ms": 1700000000124,
        }.items()
    }
    return {
        "algorithm": "that of the enrolled key: Ed25519, or ECDSA on P-256, SHA-256, DER",
        "texts": [_good(UpdateText(**fields), key, fields) for fields, key in variants],
        "evidence": {"evidence": evidence, "evidence_hash": digest(evidence)},
        "malformed_texts": changes,
        "bad_signatures": [
            *_signatures(text, bad),
            *(row for why, other in others.items() for row in _signatures(other, {why: right})),
        ],
    }


ENROLMENT = EnrolmentText(
    client_id="alice", key=PublicKey(_spki(KEYS["alice"])).fingerprint, invitation=HASH["token"], challenge="ab" * 56
)


def enrolment() -> dict[str, Any]:
    """What a client signs to be enrolled."""
    token = "matl_inv_" + base64.urlsafe_b64encode(_seed("token")).decode().rstrip("=")
    text = replace(ENROLMENT, invitation=hashlib.sha256(token.encode()).hexdigest())
    fields = {name: getattr(text, name) for name in ("client_id", "key", "invitation", "challenge")}
    return {"token": token, "texts": [_good(text, "alice", fields)]}


def receipts() -> dict[str, Any]:
    """Files of receipts."""
    receipt = Receipt(
        run="demo-0123456789ab",
        round=3,
        client_id="alice",
        model_hash=HASH["model"],
        update_hash=HASH["payload"],
        status=Status.CLIPPED,
        score=-0.123456789,
        weight=0.5,
        policy_hash=HASH["policy"],
        hardware_root=False,
        signer=PublicKey(_spki(KEYS["oracle"])).fingerprint,
        timestamp_unix_ms=1700000000123,
    )
    variants = [
        (receipt, "oracle"),
        (replace(receipt, status=Status.REJECTED, score=None, weight=0.0), "oracle"),
        (replace(receipt, hardware_root=True, signer=PublicKey(_spki(KEYS["phone-8"])).fingerprint), "phone-8"),
    ]
    text, right = receipt.to_bytes(), sign("oracle", receipt.to_bytes())

    def file(text: bytes | str, signature: bytes, **more: str) -> str:
        spelled = text if isinstance(text, str) else text.decode()
        return json.dumps({"receipt": spelled, "signature": _b64(signature), **more})

    better = text.replace(b"weight=0.500000000", b"weight=1.000000000")
    by_mallory = replace(receipt, signer=PublicKey(_spki(KEYS["mallory"])).fingerprint).to_bytes()
    refused = [
        ("the weight changed", "signature", file(better, right)),
        ("signed by another key in the signer's name", "signature", file(text, sign("mallory", text))),
        ("signed by a stranger in its own name", "signer", file(by_mallory, sign("mallory", by_mallory))),
        ("of another receipt", "signature", file(text, sign("oracle", better))),
        ("no signature", "signature", file(text, b"")),
        ("a key that it brings along", "malformed", file(text, right, key="...")),
        ("a name twice", "malformed", file(text, right)[:-1] + ', "receipt": ' + json.dumps(better.decode()) + "}"),
        ("a newline more", "malformed", file(text + b"\n", right)),
        ("a weight above one", "malformed", file(text.replace(b"=0.500000000", b"=1.000000001"), right)),
        ("a negative zero", "malformed", file(text.replace(b"=0.500000000", b"=-0.000000000"), right)),
        ("a score with an exponent", "malformed", file(text.replace(b"=-0.123456789", b"=-1e-1"), right)),
        ("a score that is no number", "malformed", file(text.replace(b"=-0.123456789", b"=nan"), right)),
        ("a status that there is none", "malformed", file(text.replace(b"clipped", b"trusted"), right)),
        ("a signed update", "malformed", file(UpdateText(**UPDATE).to_bytes(), right)),
        ("truncated", "malformed", file(text, right)[:-2]),
        ("no object", "malformed", json.dumps([text.decode(), _b64(right)])),
        ("a lone surrogate", "malformed", '{"receipt": "\\ud800", "signature": ""}'),
        ("too long", "size", file(text, right) + " " * 9000),
    ]
    return {
        "trusted": ["oracle", "phone-8"],
        "receipts": [
            {
                "file": file(each.to_bytes(), sign(key, each.to_bytes())),
                "key": key,
                "fields": dict(item.split("=", 1) for item in each.to_bytes().decode().split("\n")[1:]),
            }
            for each, key in variants
        ],
        "refused": [{"why": why, "code": code, "file": content} for why, code, content in refused],
    }


FILES = {
    "keys.json": keys,
    "update_v1.json": update_v1,
    "update_v2.json": update_v2,
    "enrolment.json": enrolment,
    "receipts.json": receipts,
}


def content(name: str) -> str:
    """What a file holds."""
    return json.dumps(FILES[name](), indent=1) + "\n"


if __name__ == "__main__":
    for file in FILES:
        (Path(__file__).parent / file).write_text(content(file), "utf-8")
