import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from matl.codec import TRANSFORMS, Hadamard, HadamardSketch, Identity, TopK
from matl.codec.parts import Transform
from matl.codec.transforms import _sketch
from matl.errors import InvalidValueError

VECTORS = arrays(np.float32, st.integers(1, 200), elements=st.floats(-100, 100, width=32))


@given(VECTORS, st.sampled_from([Identity(), Hadamard(), TopK(0.1), TopK(1.0)]))
def test_what_contracts_is_never_farther_than_zero(x, transform):
    assert transform.contracts
    values = transform.forward(x, 3)
    assert values.shape == (transform.length(x.size),)
    assert values.dtype == np.float32
    back = transform.backward(values, x.size, 3)
    assert np.linalg.norm(back - x) <= np.linalg.norm(x) * (1 + 1e-5)


@given(VECTORS, st.floats(0.01, 1.0))
def test_topk_keeps_the_largest(x, fraction):
    kept = TopK(fraction).forward(x, 0)
    k = int(np.ceil(fraction * x.size))
    wanted = np.zeros_like(x)
    order = np.argsort(-np.abs(x), kind="stable")[:k]
    wanted[order] = x[order]
    np.testing.assert_array_equal(kept, wanted)


def test_hadamard_is_the_sketch_and_remembers_it():
    x = np.random.default_rng(0).normal(size=300).astype(np.float32)
    transform = Hadamard(block=64, fraction=0.375)
    y = transform.forward(x, 11)
    np.testing.assert_array_equal(y, HadamardSketch.draw(_sketch(300, 64, 0.375, 11).layout, 11).forward(x))
    assert transform.length(300) == y.size
    assert _sketch(300, 64, 0.375, 11) is _sketch(300, 64, 0.375, 11)
    assert not transform.contracts
    assert transform.linear
    assert Identity().linear
    assert not TopK().linear


@pytest.mark.parametrize("options", [{"fraction": 0.0}, {"fraction": 1.01}, {"block": 63}, {"fraction": float("inf")}])
def test_options_that_are_refused(options):
    with pytest.raises(InvalidValueError):
        Hadamard(**options)
    if "fraction" in options:
        with pytest.raises(InvalidValueError):
            TopK(**options)


def test_names():
    assert list(TRANSFORMS) == ["hadamard", "identity", "topk"]
    assert TRANSFORMS.create("none") == Identity()


def test_an_unfinished_transform_says_what_it_lacks():
    for method in (lambda t: t.forward(None, 0), lambda t: t.backward(None, 0, 0)):
        with pytest.raises(NotImplementedError, match="Transform does not implement"):
            method(Transform())
