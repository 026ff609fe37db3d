"""Whatever a client sends becomes a row or a rejection with a reason; nothing it sends raises."""

import dataclasses
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.params import ParamLayout
from matl.records import Rejection, RoundSpec, Update
from matl.screening import REASONS, decode_payload, encode_payload, largest_payload, screen_envelope, screen_values

MODEL = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float64), "scale": np.array(1.0, np.float32)}
LAYOUT = ParamLayout.of(MODEL)
HASHES = {3: "aaaa", 2: "bbbb", 1: "cccc"}
SPEC = RoundSpec(run="run", round=3, model_hash="aaaa", layout_hash=LAYOUT.digest, max_staleness=1, max_norm=10.0)


def update(**changes):
    payload, sha256 = encode_payload({**MODEL, "w": np.ones((2, 3), np.float32)})
    sent = Update(
        client_id="ann",
        run="run",
        round=3,
        base_version=3,
        model_hash="aaaa",
        payload=payload,
        payload_sha256=sha256,
        num_examples=20,
    )
    return dataclasses.replace(sent, **changes)


def sending(arrays, **changes):
    payload, sha256 = encode_payload(arrays)
    return update(payload=payload, payload_sha256=sha256, **changes)


def screen(sent, *, spec=SPEC, seen=frozenset(), verify=None):
    """What a host does: the envelope, then the values."""
    rejection = screen_envelope(sent, spec, model_hashes=HASHES, seen=seen, verify=verify)
    return rejection if rejection is not None else screen_values(sent, spec, LAYOUT)


def test_an_honest_update_becomes_a_row():
    row = screen(update(), verify=lambda sent: None)
    assert row.dtype == np.float32
    assert row.tolist() == [1] * 6 + [0] * 3 + [1]


@pytest.mark.parametrize(
    "accepted",
    [
        update(client_id="x" * 256),
        update(client_id="Zoë / 研究所 7"),
        update(num_examples=1),
        update(num_examples=SPEC.max_examples),
        update(num_examples=np.int64(5)),
        update(num_examples=None),
        update(round=np.int64(3), base_version=np.uint8(3)),
        update(base_version=2, model_hash="bbbb"),
        update(payload=MODEL, payload_sha256=None),
        sending(dict(reversed(MODEL.items()))),
        sending({**MODEL, "b": np.full(3, 5.0)}),
    ],
    ids=lambda sent: f"{sent.num_examples}-{sent.base_version}-{type(sent.payload).__name__}",
)
def test_the_limits_themselves_are_allowed(accepted):
    assert isinstance(screen(accepted), np.ndarray)


def named(header, data=b""):
    """A payload with any header at all."""
    text = json.dumps(header, default=str).encode()
    return len(text).to_bytes(8, "little") + text + data


def raw(payload, **changes):
    return update(payload=payload, payload_sha256=hashlib.sha256(payload).hexdigest(), **changes)


def with_value(value):
    w = np.zeros((2, 3), np.float32)
    w[1, 1] = value
    return sending({**MODEL, "w": w})


REJECTED = [
    ("run", update(run="other"), "got 'other', expected 'run'"),
    ("round", update(round=2), "got 2, expected 3"),
    ("kind", update(kind="histogram"), "got 'histogram', expected 'delta'"),
    ("stale", update(base_version=1, model_hash="cccc"), "version 1, allowed are the last 1"),
    ("stale", update(base_version=4, model_hash="aaaa"), "version 4"),
    ("model_hash", update(model_hash="bbbb"), "got 'bbbb' for version 3"),
    ("model_hash", update(model_hash=""), "got ''"),
    ("model_hash", update(model_hash="\ud800"), "version 3"),
    ("duplicate", update(client_id="bob"), "the first"),
    ("num_examples", update(num_examples=0), "got 0, allowed are 1 to 1000000"),
    ("num_examples", update(num_examples=-1), "got -1"),
    ("num_examples", update(num_examples=10**12), "got 1000000000000"),
    ("num_examples", update(num_examples=10**5000), "got a int"),
    ("num_examples", update(num_examples=1e12), "got a float"),
    ("num_examples", update(num_examples=5.0), "got a float"),
    ("num_examples", update(num_examples=math.nan), "got a float"),
    ("num_examples", update(num_examples=True), "got a bool"),
    ("num_examples", update(num_examples="20"), "got a str"),
    ("num_examples", update(num_examples=np.array([1, 2])), "got a ndarray"),
    ("payload_hash", update(payload_sha256="0" * 64), "the envelope says '000000000000'"),
    ("payload_hash", update(payload_sha256=None), "the envelope says ''"),
    ("payload_hash", update(payload=update().payload[:-1]), "the envelope says"),
    ("malformed", update(payload="text"), "field 'payload' is not what the protocol says, got a str"),
    ("malformed", update(payload=bytearray(b"12345678")), "got a bytearray"),
    ("malformed", update(payload=None), "got a NoneType"),
    ("malformed", update(payload_sha256=5), "field 'payload_sha256'"),
    ("malformed", update(base_version="3"), "field 'base_version'"),
    ("malformed", update(base_version=3.0), "got a float"),
    ("malformed", update(base_version=10**5000), "field 'base_version'"),
    ("malformed", update(round=None), "field 'round'"),
    ("malformed", update(received_at=math.nan), "field 'received_at'"),
    ("malformed", update(received_at="now"), "field 'received_at'"),
    ("malformed", update(model_hash=None), "field 'model_hash'"),
    ("malformed", update(run=np.array([1, 2])), "field 'run'"),
    ("malformed", update(client_id=["ann"]), "field 'client_id'"),
    ("malformed", update(client_id=""), "printable characters, got '' of 0 characters"),
    ("malformed", update(client_id="x" * 257), "is not 1 to 256 printable characters, got 'xxx"),
    ("malformed", update(client_id="ann\n"), r"got 'ann\n' of 4 characters"),
    ("malformed", update(client_id="\ud800"), r"got '\ud800' of 1 characters"),
    ("malformed", update(client_id="\u202eann"), r"got '\u202eann' of 4"),
    ("malformed", raw(b""), "too small"),
    ("malformed", raw(update().payload[:-1]), "deserializing"),
    ("malformed", raw(update().payload + b"\x00"), "deserializing"),
    ("malformed", raw(b"\xff" * 100), "header of 18446744073709551615 bytes, allowed are 1048576"),
    ("malformed", raw(((1 << 20) + 1).to_bytes(8, "little") + b" " * 100), "header of 1048577 bytes"),
    ("malformed", raw(named({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"12")), "'BF16'"),
    ("malformed", raw(named({"w": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}})), "dimension"),
    ("malformed", update(payload={"w": [[1], [2, 3]]}, payload_sha256=None), "inhomogeneous"),
    ("malformed", update(payload={1: 1, "x": 2}, payload_sha256=None), "not supported"),
    ("names", sending({"w": MODEL["w"]}), r"missing ['b', 'scale'], unexpected []"),
    ("names", sending({**MODEL, "x": MODEL["b"]}), "unexpected ['x']"),
    ("names", update(payload=[1.0], payload_sha256=None), "unexpected ['0']"),
    ("names", raw(named({})), "missing"),
    ("shape", sending({**MODEL, "w": np.zeros((3, 2), np.float32)}), "expected shape (2, 3), got (3, 2)"),
    ("shape", sending({**MODEL, "scale": np.ones(1, np.float32)}), "expected shape (), got (1,)"),
    ("dtype", sending({**MODEL, "w": np.zeros((2, 3))}), "expected dtype float32, got float64"),
    ("dtype", update(payload={**MODEL, "scale": np.array(None)}), "got object"),
    ("not_finite", with_value(np.nan), "1 of 10 entries"),
    ("not_finite", with_value(-np.inf), "1 of 10 entries"),
    ("not_finite", sending({**MODEL, "b": np.array([1e39, 0, -1e300])}), "2 of 10 entries"),
    # The square of 1e38 is beyond float32; it must be called long, not infinite.
    ("norm", with_value(1e38), "L2 norm 1e+38, allowed is 10"),
    ("norm", sending({**MODEL, "b": np.full(3, 3.4e38)}), "L2 norm 5.89e+38"),
    ("norm", with_value(10.001), "allowed is 10"),
]


@pytest.mark.parametrize(("code", "sent", "detail"), REJECTED)
def test_every_rejection_says_what_was_wrong(code, sent, detail):
    rejection = screen(sent, seen={"bob"})
    assert isinstance(rejection, Rejection)
    assert rejection.code == code
    assert rejection.reason.startswith(REASONS[code])
    assert detail in rejection.reason
    assert rejection.client_id == ("" if "client_id" in rejection.reason else sent.client_id)


def test_what_the_verifier_refuses_is_refused_with_its_reason_and_first():
    forged = Rejection("alice", "expired", "it was created too long ago")
    assert screen(update(run="another"), verify=lambda sent: forged) is forged


def test_every_reason_is_reached():
    assert {code for code, _, _ in REJECTED} == set(REASONS)


def test_without_a_norm_bound_large_is_allowed():
    assert isinstance(screen(with_value(1e15), spec=dataclasses.replace(SPEC, max_norm=None)), np.ndarray)


def test_a_model_version_nobody_knows_is_not_matched_by_an_empty_hash():
    rejection = screen_envelope(update(model_hash=""), SPEC, model_hashes={}, seen=set())
    assert rejection.code == "model_hash"


def test_bytes_are_parsed_only_after_the_envelope_was_accepted():
    """Junk under a wrong hash is refused for its hash: nothing has looked inside it."""
    assert screen(update(payload=b"junk")).code == "payload_hash"


def test_a_rejection_never_repeats_an_id_that_could_harm_a_log():
    for client in ("", "x" * 10**6, "a\nb", "\ud800"):
        assert screen(update(client_id=client)).client_id == ""
    assert screen(update(run="other")).client_id == "ann"


def test_bytes_that_no_model_needs_are_not_even_hashed(monkeypatch):
    def envelope(sent):
        return screen_envelope(sent, SPEC, model_hashes=HASHES, seen=set(), max_bytes=largest_payload(LAYOUT))

    limit = 8 + 2**20 + LAYOUT.nbytes
    assert LAYOUT.nbytes == 6 * 4 + 3 * 8 + 4
    assert envelope(update(payload=b"x" * limit)).code == "payload_hash"
    longer = update(payload=b"x" * (limit + 1))
    monkeypatch.setattr(hashlib, "sha256", lambda data: pytest.fail("it was hashed"))
    rejection = envelope(longer)
    assert rejection.code == "malformed"
    assert f"payload of {limit + 1} bytes, the model needs at most {limit}" in rejection.reason


@pytest.mark.parametrize("sent", [update(run="x" * 10**6), sending({"x" * 10**5: MODEL["w"]})], ids=["run", "names"])
def test_nobody_can_fill_a_log(sent):
    reason = screen(sent).reason
    assert len(reason) <= 400
    assert reason.endswith("...")


def test_payloads_survive_the_wire_with_scalars_views_and_byte_order():
    arrays = {
        "s": np.array(7),
        "t": np.arange(6.0).reshape(2, 3).T,
        "e": np.zeros((0, 2)),
        "b": np.arange(2, dtype=">f4"),
    }
    again = decode_payload(encode_payload(arrays)[0])
    for name, array in arrays.items():
        assert again[name].shape == array.shape
        np.testing.assert_array_equal(again[name], array)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=2),
    max_leaves=4,
)
CHECKED = (
    "client_id",
    "run",
    "round",
    "kind",
    "base_version",
    "model_hash",
    "payload",
    "payload_sha256",
    "num_examples",
    "received_at",
)


@given(st.dictionaries(st.sampled_from(CHECKED), anything, max_size=3))
def test_no_envelope_raises(changes):
    assert isinstance(screen(update(**changes)), Rejection | np.ndarray)


@settings(max_examples=300)
@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda b: len(b).to_bytes(8, "little") + b))
def test_no_bytes_raise(payload):
    assert screen(raw(payload)).code in ("malformed", "names")


tensors = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "F16", "BF16", "BOOL", "C64", "F8_E4M3", "F4", "X"]),
        "shape": st.lists(st.sampled_from([0, 1, 2, 3, 2**31, 2**63, 2**64 - 1, -1, 1.5]), max_size=3),
        "data_offsets": st.lists(st.sampled_from([0, 4, 8, 24, 2**64 - 1, -4]), min_size=1, max_size=3),
    }
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(["w", "b", "scale", "__metadata__"]), tensors | anything), st.binary(max_size=30)
)
def test_no_header_raises(header, data):
    assert isinstance(screen(raw(named(header, data))), Rejection)


GOOD = update().payload


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_damaged_byte_raises(position, flip):
    damaged = bytearray(GOOD)
    damaged[position] ^= flip
    assert isinstance(screen(raw(bytes(damaged))), Rejection | np.ndarray)
    assert screen(update(payload=bytes(damaged))).code == "payload_hash"


def test_an_update_too_long_for_float32_products_is_rejected_without_any_bound_of_the_round():
    layout = ParamLayout.of({"w": np.zeros(4, np.float32)})
    huge = {"w": np.full(4, 3e38, np.float32)}
    spec = RoundSpec(run="r", round=0, model_hash="", layout_hash=layout.digest, max_norm=None)
    update = Update(client_id="c", run="r", round=0, base_version=0, model_hash="", payload=huge)
    result = screen_values(update, spec, layout)
    assert isinstance(result, Rejection)
    assert result.code == "norm"
