"""Mask streams: what AES says, exact inverses, and uniform words."""

import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from scipy.stats import chi2

from matl.privacy.secagg.masks import _CHUNK, add_masks

TYPES = [np.uint8, np.uint16, np.uint32]


def stream(key, nbytes):
    return Cipher(AES256(key), CTR(bytes(16))).encryptor().update(bytes(nbytes))


def test_the_stream_is_the_one_of_aes_256():
    # The first block under the zero key is the encryption of zero, e.g. NIST's known answers for AES-256.
    first = bytes.fromhex("dc95c078a2408989ad48a21492842087")
    for dtype in TYPES:
        word = np.zeros(16 // dtype().itemsize, dtype)
        add_masks(word, plus=[bytes(32)])
        assert word.astype(word.dtype.newbyteorder("<")).tobytes() == first


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("nbytes", [4, _CHUNK - 4, _CHUNK, _CHUNK + 4, 3 * _CHUNK + 8])
def test_chunks_do_not_show(dtype, nbytes):
    keys = [secrets.token_bytes(32) for _ in range(3)]
    word = np.arange(nbytes // dtype().itemsize).astype(dtype)
    want = word.copy()
    for key, sign in zip(keys, (1, 1, -1), strict=True):
        mask = np.frombuffer(stream(key, nbytes), np.dtype(dtype).newbyteorder("<")).astype(dtype)
        want = want + mask if sign > 0 else want - mask
    add_masks(word, plus=keys[:2], minus=keys[2:])
    np.testing.assert_array_equal(word, want)


def test_more_streams_than_are_open_at_a_time_cancel():
    keys = [secrets.token_bytes(32) for _ in range(600)]
    word = np.arange(50, dtype=np.uint16)
    add_masks(word, plus=iter(keys))
    assert (word != np.arange(50)).any()
    add_masks(word, minus=reversed(keys))
    np.testing.assert_array_equal(word, np.arange(50))


@pytest.mark.parametrize("dtype", TYPES)
def test_masks_are_uniform_in_every_byte(dtype):
    word = np.zeros(1 << 19, dtype)
    add_masks(word, plus=[secrets.token_bytes(32)])
    octets = word.view(np.uint8).reshape(word.size, -1)
    for column in octets.T:
        counts = np.bincount(column, minlength=256)
        expected = word.size / 256
        # Wrong alarm with probability 1e-8 per byte, seven bytes in all.
        assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-8, 255)


def test_neighbouring_words_are_independent():
    word = np.zeros(1 << 20, np.uint8)
    add_masks(word, plus=[secrets.token_bytes(32)])
    pairs = np.bincount((word[::2] >> 4).astype(int) * 16 + (word[1::2] >> 4), minlength=256)
    expected = word.size / 2 / 256
    assert ((pairs - expected) ** 2 / expected).sum() < chi2.isf(1e-8, 255)
