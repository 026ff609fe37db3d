"""Every codec that a configuration can name, and what it costs on a vector like an update."""

import sys

import numpy as np
import pytest

from matl.codec import CODECS, Zstd, int8_zstd
from matl.errors import MissingExtraError

SIZE = 200_000
# Many small numbers and a few large ones, as updates have.
UPDATE = (np.random.default_rng(0).standard_t(3, size=SIZE) * 1e-3).astype(np.float32)


def test_names():
    assert list(CODECS) == ["composed", "eden", "float32", "grid", "int8", "int8_zstd", "rotated", "topk"]
    assert CODECS.create("none") == CODECS.create("float32")
    for name in CODECS:
        assert CODECS.summary(name)


@pytest.mark.parametrize(
    ("spec", "bits"),
    [
        ("float32", 32),
        ({"name": "rotated", "step": 1.0}, 2.17),
        ({"name": "rotated", "step": 2.0}, 1.42),
        ({"name": "rotated", "step": 4.0}, 0.93),
        ({"name": "eden", "bits": 1}, 1.01),
        ({"name": "eden", "bits": 4}, 4.01),
        ({"name": "topk", "fraction": 0.01}, 0.16),
        ({"name": "grid", "step": 1e-3, "bits": 8, "fraction": 0.375}, 3.05),
    ],
    ids=str,
)
def test_bits_per_coordinate(spec, bits):
    codec = CODECS.create(spec)
    data, _ = codec.encode(UPDATE, seed=1, rng=np.random.default_rng(2))
    assert 8 * len(data) / SIZE == pytest.approx(bits, rel=0.02, abs=0.03)


def test_int8_zstd():
    pytest.importorskip("zstandard", reason="zstandard is not installed")
    codec = int8_zstd()
    data, _ = codec.encode(UPDATE)
    assert 8 * len(data) / SIZE < 8
    assert np.linalg.norm(codec.decode(data, size=SIZE) - UPDATE) < 0.2 * np.linalg.norm(UPDATE)
    assert codec.packer == Zstd(level=3)


def test_int8_zstd_without_zstandard(monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError):
        CODECS.create("int8_zstd")
