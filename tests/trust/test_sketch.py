import numpy as np
import pytest

from matl.matrix import UpdateMatrix
from matl.trust.sketch import Sketch


def test_short_vectors_keep_their_angles_exactly():
    X = np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32)
    S = Sketch(100, seed=5)(UpdateMatrix(X))
    np.testing.assert_allclose(S @ S.T, X @ X.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [512, 513, 5000])
def test_inner_products_are_kept_on_average(size):
    rng = np.random.default_rng(1)
    a = rng.normal(size=(1, size)).astype(np.float32)
    b = (0.6 * a + 0.8 * rng.normal(size=(1, size))).astype(np.float32)
    X = UpdateMatrix(np.vstack([a, b]))
    products = []
    for seed in range(60):
        S = Sketch(size, seed)(X)
        products.append(float(S[0] @ S[1]) / float(a[0] @ b[0]))
    # One sketch errs by about 10 % of the product; the mean of 60 by 1.3 %, so 8 % fails with probability < 1e-8.
    assert abs(np.mean(products) - 1.0) < 0.08


def test_it_is_linear_and_fixed_by_its_seed():
    X = np.random.default_rng(2).normal(size=(2, 3000)).astype(np.float32)
    sketch = Sketch(3000, seed=9)
    S = sketch(UpdateMatrix(X))
    np.testing.assert_allclose(sketch(UpdateMatrix(X[:1] + 2 * X[1:])), S[:1] + 2 * S[1:], atol=1e-4)
    np.testing.assert_array_equal(Sketch(3000, seed=9)(UpdateMatrix(X)), S)
    assert not np.array_equal(Sketch(3000, seed=10)(UpdateMatrix(X)), S)
