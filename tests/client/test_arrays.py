"""What users hold becomes what a run wants, exactly, or an error that says what differs."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from matl.client.arrays import difference, fit, layout_of, scaled
from matl.errors import InvalidValueError, LayoutError, ProtocolError
from matl.params import ParamLayout

FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
NAMES = st.text("abcxyz_", min_size=1, max_size=6)


@st.composite
def models(draw, dtypes=FLOATS):
    """Named arrays with small whole numbers, which every type holds exactly."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=3)
    whole = st.integers(-50, 50).map(float)
    return {name: draw(hnp.arrays(draw(dtypes), draw(shapes), elements=whole)) for name in names}


class Tensor:
    """What a torch tensor or a JAX array can do, as far as it is asked for."""

    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value, dtype)


@given(models())
def test_every_form_of_a_model_is_the_same_update(model):
    layout = ParamLayout.of(model)
    expected = fit(layout, model)
    assert list(expected) == [entry.name for entry in layout.entries]
    forms = [
        list(model.values()),
        tuple(Tensor(value) for value in model.values()),
        OrderedDict(reversed([(name, Tensor(value)) for name, value in model.items()])),
        layout.flatten(model),
        SimpleNamespace(state_dict=lambda: model),
        SimpleNamespace(get_weights=lambda: list(model.values())),
    ]
    for form in forms:
        result = fit(layout, form)
        assert list(result) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(result[name], expected[name])
            assert result[name].dtype == expected[name].dtype
    np.testing.assert_array_equal(layout.flatten(expected), layout.flatten(model))


@given(models(st.just(np.float32)), st.sampled_from([".", "/"]))
def test_nested_arrays_are_named_as_the_layout_names_them(model, join):
    nested = {"block": model, "layers": [model, model]}
    flat = {f"block{join}{name}": value for name, value in model.items()}
    flat |= {f"layers{join}{index}{join}{name}": value for index in (0, 1) for name, value in model.items()}
    layout = ParamLayout.of(flat)
    assert fit(layout, nested).keys() == flat.keys()


@given(models(), models())
def test_old_and_difference_make_new(old, new):
    layout = ParamLayout.of(old)
    new = {name: np.resize(next(iter(new.values())), value.shape) for name, value in old.items()}
    started = fit(layout, old)
    delta = difference(layout, new, started)
    for name, value in delta.items():
        np.testing.assert_array_equal(started[name] + value, new[name])
        assert value.dtype == old[name].dtype
        assert value.shape == old[name].shape


def test_the_layout_survives_the_wire():
    model = {
        "w": np.zeros((2, 3), np.float16),
        "steps": np.array(3),
        "s": np.float32(1),
        "cold": np.zeros(2, np.float32),
    }
    layout = ParamLayout.of(model, roles={"cold": "frozen"})
    sent = [{"name": e.name, "shape": list(e.shape), "dtype": e.dtype, "role": e.role.value} for e in layout.entries]
    assert layout_of(sent) == layout
    assert layout_of(sent).digest == layout.digest


@pytest.mark.parametrize("entry", [{}, {"name": "w", "shape": [2], "dtype": "no", "role": "trainable"}, {"shape": 3}])
def test_a_layout_that_cannot_be_read(entry):
    with pytest.raises(ProtocolError, match="the coordinator's layout of the model cannot be read"):
        layout_of([entry])


def test_what_is_beside_the_vector_is_not_sent():
    model = {"w": np.ones(2, np.float32), "batches": np.array(41), "cold": np.ones(3, np.float32)}
    layout = ParamLayout.of(model, roles={"cold": "frozen"})
    result = fit(layout, model)
    assert result.keys() == {"w", "batches"}
    assert result["batches"] == 0
    assert fit(layout, {"w": np.ones(2)})["batches"].dtype == np.int64
    assert difference(layout, model, model)["batches"] == 0


LAYOUT = ParamLayout.of({"conv.weight": np.zeros((2, 3), np.float32), "conv.bias": np.zeros(2, np.float32)})
GOOD = {"conv.weight": np.ones((2, 3)), "conv.bias": np.ones(2)}


@pytest.mark.parametrize(
    ("arrays", "code", "words"),
    [
        ({"conv.weight": GOOD["conv.weight"]}, "names", "update: missing 'conv.bias'; the model's arrays are"),
        ({**GOOD, "conv.bais": 1}, "names", r"unknown 'conv.bais' \(did you mean 'conv.bias'\?\)"),
        (
            [np.ones((2, 3))],
            "names",
            "got a list of 1 arrays, the model has 2, in this order: 'conv.weight', 'conv.bias'",
        ),
        (
            {**GOOD, "conv.weight": np.ones((3, 2))},
            "shape",
            r"has shape \(3, 2\), the model's has \(2, 3\): is it transp",
        ),
        ({**GOOD, "conv.bias": np.ones(3)}, "shape", r"has shape \(3,\), the model's has \(2,\)$"),
        ({**GOOD, "conv.bias": np.array(["a", "b"])}, "dtype", "has dtype <U1, expected float32"),
        ({**GOOD, "conv.bias": np.ones(2, np.complex64)}, "dtype", "has dtype complex64, expected float32"),
        (np.ones(7), "size", r"a vector of shape \(8,\), got an array of shape \(7,\)"),
        (None, "size", "got a NoneType"),
        ("weights", "size", "got a str"),
    ],
)
def test_what_does_not_fit_is_named(arrays, code, words):
    with pytest.raises(LayoutError, match=words) as caught:
        fit(LAYOUT, arrays)
    assert caught.value.code == code


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_finite_is_not_sent(bad):
    with pytest.raises(InvalidValueError, match=r"1 of 2 values of 'conv\.bias' are NaN or infinite"):
        fit(LAYOUT, {**GOOD, "conv.bias": np.array([1.0, bad])})


def test_a_gradient_is_scaled_in_its_own_type():
    arrays = fit(LAYOUT, GOOD)
    result = scaled(LAYOUT, arrays, -0.5)
    assert result["conv.bias"].tolist() == [-0.5, -0.5]
    assert result["conv.bias"].dtype == np.float32


def test_torch_state_dicts_and_modules():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    layout = ParamLayout.of(module.state_dict())
    started = {name: value.numpy().copy() for name, value in module.state_dict().items()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1
    module.train()(torch.ones(4, 3))  # counts a batch
    for form in (module, module.state_dict(), dict(module.state_dict())):
        delta = difference(layout, form, started)
        np.testing.assert_allclose(delta["0.bias"], 1, atol=1e-6)
        assert delta["1.num_batches_tracked"] == 0
    half = {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value for name, value in started_of(module)
    }
    assert fit(layout, half)["0.bias"].dtype == np.float32


def started_of(module):
    return module.state_dict().items()
