"""Receipts: what was signed is what is read, by a trusted key or not at all. Forgeries are vectors."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.attest.keys import Algorithm, SigningKey
from matl.attest.receipts import LARGEST_RECEIPT, Receipt, sign_receipt, verify_receipt
from matl.errors import InvalidValueError, ProtocolError
from matl.records import Status

KEY = SigningKey.generate()


def receipt(**changes):
    fields = {
        "run": "demo",
        "round": 3,
        "client_id": "alice",
        "model_hash": "ab" * 32,
        "update_hash": "cd" * 32,
        "status": Status.ACCEPTED,
        "score": 0.25,
        "weight": 1.0,
        "policy_hash": "ef" * 32,
        "hardware_root": False,
        "signer": KEY.public.fingerprint,
        "timestamp_unix_ms": 1700000000000,
    }
    return Receipt(**{**fields, **changes})


def code(document, trusted=(KEY.public,)):
    with pytest.raises(ProtocolError) as error:
        verify_receipt(document, trusted)
    assert len(str(error.value)) < 400
    return error.value.code


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_receipt_is_verified_offline(algorithm):
    key = SigningKey.generate(algorithm)
    mine = receipt(signer=key.public.fingerprint)
    document = sign_receipt(mine, key)
    assert verify_receipt(document, [KEY.public, key.public]) == mine
    assert code(document) == "signer"
    assert code(document, []) == "signer"


def test_the_file_is_json_of_the_text_and_the_signature():
    content = json.loads(sign_receipt(receipt(), KEY))
    assert content["receipt"].split("\n")[:3] == ["matl-receipt/1", "run=demo", "round=3"]
    assert content.keys() == {"receipt", "signature"}


def test_a_receipt_names_the_key_that_signs():
    with pytest.raises(InvalidValueError, match=r"expected signer=.*, the key's fingerprint"):
        sign_receipt(receipt(), SigningKey.generate())


def test_numbers_have_nine_places():
    rounded = receipt(score=1 / 3, weight=2 / 3)
    assert (rounded.score, rounded.weight) == (0.333333333, 0.666666667)
    assert receipt(score=-1e-12).to_bytes() == receipt(score=0.0).to_bytes()
    assert receipt(weight=1).weight == 1.0
    assert b"\nscore=\n" in receipt(score=None).to_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": 1.1},
        {"weight": -0.1},
        {"weight": float("nan")},
        {"weight": None},
        {"weight": "1"},
        {"score": float("inf")},
        {"score": 1e7},
        {"score": 1e300},
        {"status": "accepted"},
        {"hardware_root": 1},
    ],
    ids=str,
)
def test_a_value_that_is_none_is_refused(changes):
    with pytest.raises(ProtocolError, match="expected"):
        receipt(**changes)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_raise_the_one_error(document):
    assert code(document) in {"malformed", "size"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda each: st.lists(each, max_size=3)
)


@given(st.fixed_dictionaries({"receipt": JSON, "signature": JSON}) | JSON)
def test_any_json_raises_the_one_error(content):
    assert code(json.dumps(content).encode()) == "malformed"


@given(st.data())
def test_a_changed_file_is_refused_or_says_the_same(data):
    changed = bytearray(DOCUMENT)
    where = data.draw(st.integers(0, len(DOCUMENT) - 1))
    changed[where] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        assert verify_receipt(bytes(changed), [KEY.public]) == receipt()  # white space, an escape


DOCUMENT = sign_receipt(receipt(), KEY)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b" " * (LARGEST_RECEIPT + 1), "size"),
        (b"[" * LARGEST_RECEIPT, "malformed"),
        (b'{"a":' * (LARGEST_RECEIPT // 5), "malformed"),
        (b"\xff\xfe" + DOCUMENT, "malformed"),
        (b"1" * LARGEST_RECEIPT, "malformed"),
    ],
    ids=["long", "nested arrays", "nested objects", "UTF-16", "a long number"],
)
def test_a_bomb_is_refused(document, reason):
    assert code(document) == reason
