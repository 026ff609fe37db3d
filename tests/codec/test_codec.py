"""Whole codecs: there and back, bad vectors, what fits together, sums, and hostile bytes."""

import struct
import tracemalloc
import zlib
from importlib.util import find_spec

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from matl.codec import (
    CODECS,
    Ans,
    Codec,
    ContainerError,
    FixedStep,
    FixedWidth,
    Float,
    Hadamard,
    Identity,
    LloydMax,
    MaxScaled,
    RmsScaled,
    TopK,
    container,
    decode,
)
from matl.errors import InvalidValueError, UnknownNameError

ALL = {
    "float32": "float32",
    "int8": "int8",
    "rotated": "rotated",
    "eden": {"name": "eden", "bits": 3},
    "topk": {"name": "topk", "fraction": 0.1},
    "grid": {"name": "grid", "step": 0.05, "bits": 6, "fraction": 0.5},
    "sixteen": Codec(Hadamard(block=64), MaxScaled(bits=16, stochastic=True), FixedWidth()),
    "narrow": Codec(Identity(), MaxScaled(bits=3), Ans()),
}
ALL = {name: spec if isinstance(spec, Codec) else CODECS.create(spec) for name, spec in ALL.items()}
if find_spec("zstandard"):
    ALL["int8_zstd"] = CODECS.create("int8_zstd")
VECTORS = arrays(np.float32, st.integers(1, 150), elements=st.floats(-(2.0**59), 2.0**59, width=32))


def encode(codec, x, *, seed=3, **options):
    return codec.encode(x, seed=seed, rng=np.random.default_rng(1), **options)[0]


def normal(size, seed=0):
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def seal(header, payload):
    """A container with a right checksum around whatever it is given."""
    packed = msgpack.packb(header)
    body = struct.pack("<4sBHQ", b"MTLC", 1, len(packed), len(payload)) + packed + payload
    return body + struct.pack("<I", zlib.crc32(body))


def changed(data, payload=None, **header):
    before, old = container.read(data)
    return seal(before | header, old if payload is None else payload)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=30)
@given(x=VECTORS)
def test_there_and_back(name, x):
    codec = ALL[name]
    data = encode(codec, x)
    assert len(data) <= codec.most_bytes(x.size)
    back = codec.decode(data, size=x.size, seed=3)
    assert back.dtype == np.float32
    assert back.flags.writeable
    assert np.isfinite(back).all()
    np.testing.assert_array_equal(decode(data, size=x.size), back)
    if codec.contracts:
        assert np.linalg.norm(back.astype(float) - x) <= np.linalg.norm(x.astype(float)) * (1 + 1e-5)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("float32", 0),
        ("int8", 0.01),
        ("rotated", 0.42),
        ("eden", 0.2),
        ("grid", 1.05),
        ("sixteen", 0.001),
        ("narrow", 0.6),
    ],
)
def test_how_much_is_lost(name, error):
    x = normal(5000)
    back = ALL[name].decode(encode(ALL[name], x), size=5000)
    assert np.linalg.norm(back - x) <= error * np.linalg.norm(x)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [1, 63, 64, 4096, 4097, 10_000])
def test_any_length_and_zeros(name, size):
    zeros = np.zeros(size, np.float32)
    assert not ALL[name].decode(encode(ALL[name], zeros), size=size).any()
    assert ALL[name].decode(encode(ALL[name], normal(size)), size=size).shape == (size,)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.array([1.0, np.nan, np.inf]), "got 2 that are NaN or infinite"),
        (np.array([1e39]), "got 1 that are NaN or infinite"),
        (np.array([2e18], np.float32), "magnitude up to 1e[+]18, got 2e[+]18"),
        (np.empty(0), r"d >= 1, got shape \(0,\)"),
        (np.zeros((2, 2)), r"got shape \(2, 2\)"),
        (np.float32(1), r"got shape \(\)"),
    ],
)
@pytest.mark.parametrize("name", ["int8", "rotated", "topk"])
def test_vectors_that_are_refused(name, vector, message):
    with pytest.raises(InvalidValueError, match=message):
        encode(ALL[name], vector)


def test_what_the_sender_hands_in_is_not_changed():
    x = normal(100)
    x.flags.writeable = False
    for codec in ALL.values():
        encode(codec, x)
    np.testing.assert_array_equal(x, normal(100))


@pytest.mark.parametrize("seed", [-1, 1 << 64, True])
def test_seeds_and_contexts_that_are_refused(seed):
    with pytest.raises(InvalidValueError, match="seed"):
        encode(ALL["int8"], normal(3), seed=seed)
    with pytest.raises(InvalidValueError, match="65 bytes"):
        encode(ALL["int8"], normal(3), context=bytes(65))


def test_rounding_at_random_needs_the_senders_own_randomness():
    x = normal(5000)
    with pytest.raises(InvalidValueError, match="RmsScaled rounds at random and needs rng"):
        ALL["rotated"].encode(x, seed=3)
    one, other = (ALL["rotated"].encode(x, seed=3, rng=np.random.default_rng(k))[0] for k in (1, 2))
    errors = [ALL["rotated"].decode(data, size=5000) - x for data in (one, other)]
    # Independent errors: their cosine has a deviation of 1 / sqrt(5000) = .014.
    assert abs(errors[0] @ errors[1]) < 6.5 * 0.0142 * np.linalg.norm(errors[0]) * np.linalg.norm(errors[1])


@pytest.mark.parametrize("name", ALL)
def test_the_same_call_gives_the_same_bytes(name):
    assert encode(ALL[name], normal(500)) == encode(ALL[name], normal(500))


# What fits together


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((Identity(), Float(), Ans()), "Ans packs words of at most 8 bits, got Float with 32"),
        ((Identity(), MaxScaled(bits=16), Ans()), "at most 8 bits, got MaxScaled with 16"),
        ((Hadamard(), RmsScaled(), Ans(), True), "expected a codec that contracts"),
        ((Hadamard(fraction=0.5), MaxScaled(), Ans(), True), "expected a codec that contracts"),
        ((Hadamard(), LloydMax(), Ans(), True), "expected a codec that contracts"),
    ],
)
def test_parts_that_do_not_fit(parts, message):
    with pytest.raises(InvalidValueError, match=message):
        Codec(*parts)


def test_which_codecs_may_be_summed():
    assert [name for name, codec in ALL.items() if codec.sums] == ["grid"]
    assert not Codec(TopK(), FixedStep(1.0), FixedWidth()).sums


def test_a_sum_of_words_is_the_sum_of_vectors():
    codec, X = CODECS.create({"name": "grid", "step": 0.01}), normal(3 * 700).reshape(3, 700) / 5
    rng = np.random.default_rng(0)
    words, scales = zip(*(codec.to_words(x, seed=9, rng=rng) for x in X), strict=True)
    assert all(s.size == 0 for s in scales)
    total = codec.from_words(sum(w.astype(np.int64) for w in words), size=700, seed=9)
    singly = sum(codec.from_words(w, size=700, seed=9) for w in words)
    np.testing.assert_allclose(total, singly, atol=1e-5)
    np.testing.assert_allclose(total, X.sum(axis=0), atol=6 * 0.01 * np.sqrt(3 / 4) * 1.1)


def test_configurations():
    table = {
        "name": "composed",
        "transform": {"name": "hadamard", "fraction": 0.5},
        "quantiser": {"name": "fixed", "step": 0.1},
        "packer": "fixed_width",
    }
    assert CODECS.create(table) == Codec(Hadamard(fraction=0.5), FixedStep(0.1), FixedWidth())
    with pytest.raises(UnknownNameError, match="unknown transform 'hadamar'"):
        CODECS.create(table | {"transform": "hadamar"})
    with pytest.raises(UnknownNameError, match="unknown codec 'topp'"):
        CODECS.create("topp")
    with pytest.raises(InvalidValueError, match="needs the option 'step'"):
        CODECS.create("grid")


# Hostile bytes


@pytest.mark.parametrize("name", ALL)
def test_another_codec_length_seed_or_context_is_refused(name):
    codec, x = ALL[name], normal(50)
    data = encode(codec, x, context=b"model 7")
    assert codec.decode(data, size=50, seed=3, context=b"model 7").size == 50
    for options, message in (
        ({"size": 51}, "another size than is due: got 50, expected 51"),
        ({"context": b""}, "another context than is due"),
        ({"seed": 4}, "another seed than is due: got 3, expected 4"),
    ):
        with pytest.raises(ContainerError, match=message):
            codec.decode(data, **({"size": 50, "context": b"model 7"} | options))
    other = ALL["int8" if name == "float32" else "float32"]
    with pytest.raises(ContainerError, match="another codec than is due"):
        other.decode(changed(data, b""), size=50, context=b"model 7")


def test_longer_bytes_than_can_be_are_not_even_read():
    with pytest.raises(ContainerError, match="10000 bytes, a vector of 3 numbers takes at most"):
        ALL["int8"].decode(bytes(10_000), size=3)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("name", ["int8", "rotated", "eden"])
def test_scales_that_are_refused(name, scale):
    data = encode(ALL[name], normal(50))
    payload = struct.pack("<f", scale) + container.read(data)[1][4:]
    with pytest.raises(ContainerError, match="a scale is negative or not finite"):
        ALL[name].decode(changed(data, payload), size=50)


def test_values_that_are_refused():
    data = encode(ALL["float32"], normal(2))
    with pytest.raises(ContainerError, match="the decoded vector is not finite"):
        ALL["float32"].decode(changed(data, struct.pack("<ff", 1, np.nan)), size=2)
    large = encode(ALL["int8"], normal(2))
    with pytest.raises(ContainerError, match="the decoded vector is not finite"):
        ALL["int8"].decode(changed(large, struct.pack("<f", 3e38) + container.read(large)[1][4:]), size=2)
    wide, narrow = encode(ALL["int8"], np.array([1, -127], np.float32)), ALL["narrow"]
    with pytest.raises(ContainerError, match="a word has more than 3 bits"):
        narrow.decode(changed(wide, codec=narrow.spec), size=2)
    with pytest.raises(ContainerError, match="its scales alone take 4"):
        narrow.decode(changed(wide, b"abc", codec=narrow.spec), size=2)


@pytest.mark.parametrize(
    "header",
    [
        {"seed": -1},
        {"seed": 1.0},
        {"seed": True},
        {"seed": None},
        {"size": "50"},
        {"more": 1},
        {"codec": None},
        {"codec": "int8"},
        {"codec": {}},
        {"codec": {"transform": "identity", "quantiser": "max", "packer": "ans"}},
        {"codec": {"transform": "identity", "quantiser": "max", "packer": "rar"}},
        {"codec": {"name": "int8"}},
        {"codec": {"name": 5}},
        {"codec": ALL["int8"].spec | {"feedback": True}},
        {"codec": ALL["int8"].spec | {"quantiser": {"name": "max", "bits": "8", "stochastic": False, "chunk": 4096}}},
        {"codec": ALL["int8"].spec | {"quantiser": {"name": "max", "bits": 8, "stochastic": False, "chunk": 2**63}}},
        {"codec": ALL["int8"].spec | {"transform": {"name": "hadamard", "block": 2**40, "fraction": 1.0}}},
        {"codec": ALL["int8"].spec | {"transform": ["identity"]}},
        {"codec": ALL["int8"].spec | {"packer": {"name": "zstd", "level": 3}}},
    ],
    ids=str,
)
def test_headers_that_are_refused(header):
    data = changed(encode(ALL["int8"], normal(50)), **header)
    with pytest.raises(ContainerError):
        decode(data, size=50)
    with pytest.raises(ContainerError):
        ALL["int8"].decode(data, size=50)


def survives(codec, data, size):
    """Decode or refuse, by both doors, in little memory."""
    for door in (codec.decode, decode):
        tracemalloc.start()
        try:
            vector = door(data, size=size)
        except ContainerError:
            pass
        else:
            assert vector.shape == (size,)
            assert np.isfinite(vector).all()
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 200_000 + 64 * (size + len(data))


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=30)
@given(st.data())
def test_mutated_bytes_decode_or_raise_the_one_error(name, data):
    good = bytearray(encode(ALL[name], normal(40)))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 5))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        good = good[: data.draw(st.integers(0, len(good)))]
    survives(ALL[name], bytes(good), 40)
    body = bytes(good[:-4])
    survives(ALL[name], body + struct.pack("<I", zlib.crc32(body)), 40)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=30)
@given(payload=st.binary(max_size=200))
def test_any_payload_decodes_or_raises_the_one_error(name, payload):
    survives(ALL[name], changed(encode(ALL[name], normal(40)), payload), 40)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
PARTS = {
    "transform": ["identity", "hadamard", "topk"],
    "quantiser": ["fixed", "float", "lloyd_max", "max", "rms"],
    "packer": ["ans", "fixed_width", "zstd"],
}
OPTIONS = st.dictionaries(st.sampled_from(["block", "fraction", "bits", "chunk", "step", "level", "stochastic"]), PLAIN)


@given(
    st.fixed_dictionaries(
        {
            role: st.one_of(PLAIN, st.builds(lambda name, rest: {"name": name} | rest, st.sampled_from(names), OPTIONS))
            for role, names in PARTS.items()
        }
    ),
    PLAIN,
)
def test_any_header_decodes_or_raises_the_one_error(spec, other):
    data = encode(ALL["int8"], normal(40))
    for header in ({"codec": spec}, {"codec": other}, {"seed": other}, {"size": other}, {"context": other}):
        try:
            sealed = changed(data, **header)
        except (OverflowError, ValueError):  # not msgpack, so nobody can send it
            continue
        survives(ALL["int8"], sealed, 40)


@given(st.sampled_from(sorted(ALL)), st.floats() | st.integers() | PLAIN, st.data())
def test_any_option_decodes_or_raises_the_one_error(name, value, data):
    good, spec = encode(ALL[name], normal(40)), ALL[name].spec
    role = data.draw(st.sampled_from(sorted(spec)))
    option = data.draw(st.sampled_from(sorted(spec[role])))
    try:
        sealed = changed(good, codec=spec | {role: spec[role] | {option: value}})
    except (OverflowError, ValueError):
        return
    survives(ALL[name], sealed, 40)
