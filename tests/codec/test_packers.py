import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from matl.codec import PACKERS, Ans, ContainerError, FixedWidth, Zstd
from matl.codec.packers import _frequencies, _leb128
from matl.codec.parts import Packer, word_type
from matl.errors import InvalidValueError, MissingExtraError

INT8 = arrays(np.int8, st.integers(1, 300), elements=st.integers(-128, 127))


@st.composite
def words_and_bits(draw):
    bits = draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 16]))
    limit = 1 << (bits - 1)
    return draw(arrays(word_type(bits), st.integers(1, 100), elements=st.integers(-limit, limit - 1))), bits


@given(words_and_bits())
def test_fixed_width(case):
    words, bits = case
    data = FixedWidth().pack(words, bits)
    assert len(data) == -(-words.size * bits // 8) == FixedWidth().most_bytes(words.size, bits)
    np.testing.assert_array_equal(FixedWidth().unpack(data, words.size, bits), words)
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(ContainerError, match="bytes of words"):
            FixedWidth().unpack(wrong, words.size, bits)


def test_fixed_width_of_floats():
    words = np.array([1.5, -0.0], np.float32)
    assert FixedWidth().pack(words, 32).hex() == "0000c03f00000080"
    back = FixedWidth().unpack(bytes.fromhex("0000c03f00000080"), 2, 32)
    np.testing.assert_array_equal(np.signbit(back), [False, True])
    assert back.flags.writeable


@given(INT8)
def test_ans(words):
    data = Ans().pack(words, 8)
    assert len(data) <= Ans().most_bytes(words.size, 8)
    np.testing.assert_array_equal(Ans().unpack(data, words.size, 8), words)
    for wrong in (data[:-1], data[:-2], data + b"\0", data + b"\0\0", data[:1], b""):
        with pytest.raises(ContainerError):
            Ans().unpack(wrong, words.size, 8)


@pytest.mark.parametrize("p", [0.5, 0.01, 0.0001])
def test_ans_comes_close_to_the_entropy(p):
    words = (np.random.default_rng(1).random(100_000) < p).astype(np.int8)
    share = words.mean()
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    # The table and the states take 24 bytes, and frequencies are rounded to 2^-14.
    assert 8 * len(Ans().pack(words, 8)) < 8 * 24 + 1.02 * entropy * words.size + 2


def test_ans_takes_one_word_for_any_number_of_times():
    assert len(Ans().pack(np.full(100_000, -7, np.int8), 8)) == 2 + 3 + 16


def ans_by_its_docstring(data, count):
    low, span = int.from_bytes(data[:1], signed=True), data[1]
    frequencies, at = [], 2
    for _ in range(span + 1):
        number, shift = 0, 0
        while True:
            number |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        frequencies.append(number)
    states = [int.from_bytes(data[at + 4 * k :][:4], "little") for k in range(4)]
    at += 16
    words = []
    for j in range(count):
        x, k, start = states[j % 4], 0, 0
        while x % 2**14 >= start + frequencies[k]:
            start, k = start + frequencies[k], k + 1
        x = frequencies[k] * (x // 2**14) + x % 2**14 - start
        if x < 2**16:
            x, at = 2**16 * x + int.from_bytes(data[at : at + 2], "little"), at + 2
        states[j % 4] = x
        words.append(low + k)
    assert at == len(data)
    assert states == [2**16] * 4
    return words


def test_ans_golden_vector():
    words = np.repeat(np.array([0, 3, 0, 1, -1, 0, 2, 0], np.int8), 6)
    golden = bytes.fromhex("ff0480108040801080108010d6c91301d6c91301a8e02b01a8e02b010028002800000000")
    assert Ans().pack(words, 8) == golden
    assert ans_by_its_docstring(golden, words.size) == words.tolist()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("7f01", "goes from 127 to 128"),
        ("0000", "cut short"),
        ("0000ff", "cut short"),
        ("0000ffffffff7f", "malformed"),
        ("0000ff7f", "sum to 16383, 16384 are due"),
        ("0000808001" + "00" * 15, "not 16 for its states"),
        ("0000808001" + "00" * 17, "not 16 for its states"),
        ("0000808001" + "00000100" * 3 + "01000100", "not that of so many words"),
    ],
)
def test_tables_that_are_refused(table, message):
    with pytest.raises(ContainerError, match=message):
        Ans().unpack(bytes.fromhex(table), 5, 8)


@given(st.binary(max_size=200), st.integers(1, 100))
def test_ans_takes_any_bytes(data, count):
    for start in (b"", bytes.fromhex("ff01808001")[:4] + b"\x01\x00", bytes.fromhex("0001ff7f01")):
        try:
            assert Ans().unpack(start + data, count, 8).size == count
        except ContainerError:
            continue


@given(arrays(np.int64, st.integers(1, 256), elements=st.integers(0, 10**6)).filter(lambda c: c.any()))
def test_frequencies(counts):
    frequencies = _frequencies(counts, 1 << 14)
    assert frequencies.sum() == 1 << 14
    assert ((frequencies > 0) == (counts > 0)).all()
    assert (np.abs(frequencies - counts * 2.0**14 / counts.sum()) <= counts.size).all()


@pytest.mark.parametrize(("number", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (16384, "808001")])
def test_leb128(number, encoded):
    assert _leb128(number).hex() == encoded


def test_zstd():
    pytest.importorskip("zstandard", reason="zstandard is not installed")
    for words, bits in ((np.zeros(10_000, np.int8), 8), (np.arange(99, dtype=np.int16), 16)):
        data = Zstd().pack(words, bits)
        assert len(data) <= Zstd().most_bytes(words.size, bits)
        np.testing.assert_array_equal(Zstd().unpack(data, words.size, bits), words)
        for wrong in (data[:-1], data + b"\0", data + data, b"", b"junk"):
            with pytest.raises(ContainerError, match="zstd frame"):
                Zstd().unpack(wrong, words.size, bits)


def test_zstd_bombs_are_refused_unopened():
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    with pytest.raises(ContainerError, match="declares 50000000 bytes, 100 are due"):
        Zstd().unpack(bomb, 100, 8)
    undeclared = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100))
    with pytest.raises(ContainerError, match="declares"):
        Zstd().unpack(undeclared, 100, 8)


def test_zstd_levels():
    pytest.importorskip("zstandard", reason="zstandard is not installed")
    for level in (0, 20):
        with pytest.raises(InvalidValueError, match="level"):
            Zstd(level)


def test_zstd_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'matl\[codec\]'"):
        Zstd()


def test_names():
    assert list(PACKERS) == ["ans", "fixed_width", "zstd"]


def test_an_unfinished_packer_says_what_it_lacks():
    for use in (lambda p: p.pack(None, 8), lambda p: p.unpack(b"", 1, 8), lambda p: p.most_bytes(1, 8)):
        with pytest.raises(NotImplementedError, match="Packer does not implement"):
            use(Packer())
