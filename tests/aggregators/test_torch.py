"""Torch tensors in, torch tensors out; nothing of torch where no tensor comes in."""

import subprocess
import sys

import numpy as np
import pytest

from matl.aggregators import NNM, Median, TrimmedMean
from matl.errors import InvalidValueError


def test_numpy_users_never_import_torch():
    code = (
        "import sys, numpy as np; from matl.aggregators import NNM, Median; (NNM(1) | Median())(np.eye(5));"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_importing_rules_does_not_import_the_compiler():
    code = "import sys, matl.aggregators; assert 'numba' not in sys.modules, 'numba was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("listed", [False, True])
def test_tensors_come_back_as_tensors(dtype, listed):
    torch = pytest.importorskip("torch", reason="torch is an extra: make venv-all")
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 11))).to(getattr(torch, dtype)).requires_grad_()
    result = (NNM(2) | TrimmedMean())(list(X) if listed else X)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == X.dtype
    assert result.device == X.device
    assert not result.requires_grad
    expected = (NNM(2) | TrimmedMean())(X.detach().float().numpy())
    np.testing.assert_allclose(result.float().numpy(), expected, rtol=1e-2 if "16" in dtype else 1e-6, atol=1e-3)
    mixed = NNM(2).mix(X)
    assert isinstance(mixed, torch.Tensor)
    assert mixed.shape == (7, 11)


def test_a_tensor_is_read_where_it_lies():
    torch = pytest.importorskip("torch", reason="torch is an extra: make venv-all")
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))
    before = X.clone()
    result = Median()(X)
    result += 1
    assert torch.equal(X, before)


def test_tensors_that_are_none():
    torch = pytest.importorskip("torch", reason="torch is an extra: make venv-all")
    with pytest.raises(InvalidValueError, match=r"floating-point numbers, got torch.int64"):
        Median()(torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(InvalidValueError, match="rows of length 2 and 3"):
        Median()([torch.ones(2), torch.ones(3)])
    with pytest.raises(InvalidValueError, match=r"NaN or infinity in row\(s\) \[1\]"):
        Median()(torch.tensor([[1.0], [float("nan")], [2.0]]))
