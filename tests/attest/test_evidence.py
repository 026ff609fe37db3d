from __future__ import annotations

import hashlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.attest.samples import refused, refused_if_at_all

from matl.attest.evidence import among, binding, check_digests, check_nonce, pack_evidence, unpack_evidence
from matl.errors import InvalidValueError

FIELDS, OPTIONAL = {"quote": 100, "proof": 50}, {"key": 20}
# Parts of 3 and 0 bytes, as another language has to write them: fixmap, fixstr, bin 8.
GOLDEN = bytes.fromhex("82 a5 71756f7465 c4 03 010203 a5 70726f6f66 c4 00")


def unpack(evidence: bytes) -> dict[str, bytes]:
    return unpack_evidence(evidence, FIELDS, OPTIONAL)


def test_the_encoding_does_not_change() -> None:
    assert pack_evidence(quote=b"\1\2\3", proof=b"") == GOLDEN
    assert unpack(GOLDEN) == {"quote": b"\1\2\3", "proof": b""}


@given(st.binary(max_size=100), st.binary(max_size=50), st.none() | st.binary(max_size=20))
def test_parts_survive(quote: bytes, proof: bytes, key: bytes | None) -> None:
    parts = {"quote": quote, "proof": proof} | ({} if key is None else {"key": key})
    assert unpack(pack_evidence(**parts)) == parts


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        GOLDEN[:-1],
        GOLDEN + b"\0",
        pack_evidence(quote=b"q"),
        pack_evidence(proof=b"p", quote=b"q"),
        pack_evidence(quote=b"q", proof=b"p", other=b""),
        pack_evidence(quote=b"q" * 101, proof=b""),
        pack_evidence(quote=b"q", proof=b"p" * 51),
        pack_evidence(quote=b"q", proof=b"p", key=b"k" * 21),
        pack_evidence(quote=bytes(1_000_000), proof=b""),
        msgpack.packb({"quote": "text", "proof": b""}),
        msgpack.packb({"quote": 1, "proof": b""}),
        msgpack.packb({"quote": None, "proof": b""}),
        msgpack.packb({"quote": [b"q"], "proof": b""}),
        msgpack.packb({"quote": msgpack.ExtType(1, b"q"), "proof": b""}),
        msgpack.packb([b"q", b"p"]),
        msgpack.packb({1: b"q", 2: b"p"}),
        msgpack.packb(7),
        bytes.fromhex("83 a57175 6f7465 c40101 a57175 6f7465 c40102 a570726f6f66 c400"),  # quote twice
        bytes.fromhex("82 a5 71756f7465 c5 0001 01 a5 70726f6f66 c4 00"),  # bin 16 for one byte
        bytes.fromhex("82 d905 71756f7465 c4 01 01 a5 70726f6f66 c4 00"),  # str 8 for five
        bytes.fromhex("df ffffffff a5 71756f7465"),
        bytes.fromhex("82 a5 71756f7465 c6 ffffffff"),
        bytes.fromhex("82 a5 ff756f7465 c40101 a570726f6f66 c400"),  # not UTF-8
        b"\x81\xa5quote" * 20,
        b"\x91" * 100,
    ],
)
def test_another_encoding_is_refused(bad: bytes) -> None:
    with refused("format", "evidence"):
        unpack(bad)


@given(st.binary(max_size=80))
def test_random_bytes_are_refused_in_one_way(data: bytes) -> None:
    with refused_if_at_all("format"):
        unpack(data)


def test_a_nonce_alone_is_the_report_data_with_zeros_behind() -> None:
    assert binding(b"nonce") == b"nonce" + bytes(59)
    assert binding(b"n" * 64) == b"n" * 64


def test_a_key_is_bound_by_a_digest() -> None:
    expected = hashlib.sha512(b"MATL attested key, version 1\n\x05noncekey").digest()
    assert binding(b"nonce", b"key") == expected
    assert binding(b"nonce", b"key") == bytes.fromhex(
        hashlib.sha512(
            bytes.fromhex("4d41544c206174746573746564206b65792c2076657273696f6e20310a056e6f6e63656b6579")
        ).hexdigest()
    )


def test_the_border_between_nonce_and_key_is_bound() -> None:
    assert binding(b"noncek", b"ey") != binding(b"nonce", b"key")


@pytest.mark.parametrize("nonce", [b"", b"n" * 65])
def test_a_nonce_has_1_to_64_bytes(nonce: bytes) -> None:
    with pytest.raises(InvalidValueError, match=f"1 to 64 bytes, got {len(nonce)}; draw 32 random bytes"):
        binding(nonce)


def test_nonces_have_the_length_their_format_allows() -> None:
    check_nonce(b"n" * 128, 128)
    with pytest.raises(InvalidValueError, match="1 to 128 bytes, got 129"):
        check_nonce(b"n" * 129, 128)


@pytest.mark.parametrize("bad", [frozenset(), "00" * 4, frozenset({"00" * 3}), frozenset({"AB" * 4}), {"00" * 4, "x"}])
def test_digests_are_in_lower_case_hex_and_there(bad: frozenset[str]) -> None:
    with pytest.raises(InvalidValueError, match="expected pins"):
        check_digests(4, pins=bad)


def test_a_digest_is_looked_for_among_others() -> None:
    allowed = frozenset({"00ff", "01ff"})
    check_digests(2, pins=allowed)
    assert among(b"\x01\xff", allowed)
    assert among(b"\x00\xff", allowed)
    assert not among(b"\x02\xff", allowed)
    assert not among(b"", allowed)
