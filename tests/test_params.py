"""Named arrays to one vector and back; digests that say when two layouts or models differ."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from matl.errors import LayoutError, UnknownNameError
from matl.params import ParamEntry, ParamLayout, Role, as_numpy, values_hash


class FakeTensor:
    """Does what a torch tensor does: detach, cpu, numpy, and no NumPy twin for bfloat16."""

    def __init__(self, array, dtype=None, log=()):
        self.array, self.dtype, self.log = array, dtype or f"torch.{array.dtype.name}", log

    def detach(self):
        return FakeTensor(self.array, self.dtype, (*self.log, "detach"))

    def cpu(self):
        return FakeTensor(self.array, self.dtype, (*self.log, "cpu"))

    def float(self):
        return FakeTensor(self.array.astype(np.float32), "torch.float32", self.log)

    def numpy(self):
        assert self.log == ("detach", "cpu"), "torch refuses .numpy() on tensors with a gradient or on a device"
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


def one_array(dtype):
    elements = {"width": 16 if dtype == "float16" else 32} if dtype.startswith("float") else None
    return hnp.arrays(
        np.dtype(dtype),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
        elements=elements and st.floats(**elements),
    )


arrays = st.sampled_from(["float16", "float32", "float64", "int8", "int64", "bool"]).flatmap(one_array)
models = st.dictionaries(st.text(max_size=3), arrays, max_size=5)


def layout_of(model):
    """The layout of a model that has something to learn; one that has not is refused, and tested elsewhere."""
    arrays = model.values() if isinstance(model, dict) else model
    assume(any(array.dtype.kind == "f" and array.size for array in arrays))
    return ParamLayout.of(model)


def assert_same(model, again):
    assert list(again) == list(model)
    for name, array in model.items():
        assert again[name].dtype == array.dtype
        assert again[name].shape == array.shape
        np.testing.assert_array_equal(again[name], array)


# Values are drawn from float32's own (float64 arrays too), so the way through the vector loses nothing.
@given(models)
def test_round_trip(model):
    layout = layout_of(model)
    vector = layout.flatten(model)
    assert vector.dtype == np.float32
    assert vector.shape == (layout.size,)
    assert_same(model, layout.unflatten(vector, carried=model))


@given(models)
def test_tensors_are_arrays(model):
    layout = layout_of(model)
    tensors = {name: FakeTensor(array) for name, array in model.items()}
    assert ParamLayout.of(tensors).digest == layout.digest
    np.testing.assert_array_equal(layout.flatten(tensors), layout.flatten(model))
    assert_same(model, layout.unflatten(layout.flatten(tensors), carried=tensors))


@given(st.lists(arrays, max_size=4))
def test_lists_are_named_by_position(model):
    layout = layout_of(model)
    named = {str(index): array for index, array in enumerate(model)}
    assert layout == ParamLayout.of(named)
    assert_same(named, layout.unflatten(layout.flatten(model), carried=model))


def test_bfloat16_is_read_as_float32():
    tensor = FakeTensor(np.array([1.5, -2.0]), "torch.bfloat16")
    assert as_numpy(tensor).dtype == np.float32
    assert ParamLayout.of({"w": tensor}).entries[0].dtype == "float32"


def test_real_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model = torch.nn.BatchNorm1d(3)
    layout = ParamLayout.of(model.state_dict())
    assert [e.name for e in layout.entries if not e.in_vector] == ["num_batches_tracked"]
    back = layout.unflatten(layout.flatten(model.state_dict()), carried=model.state_dict())
    assert back["weight"].tolist() == [1, 1, 1]
    assert as_numpy(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).tolist() == [1, 1]


def small_model():
    return {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, np.float16), "n": np.array(7)}


def test_the_vector_keeps_the_order_and_slices_point_into_it():
    model = {**small_model(), "b": np.array([7, 8, 9], np.float16)}
    layout = ParamLayout.of(model)
    assert layout.flatten(model).tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert layout.slices == {"w": slice(0, 6), "b": slice(6, 9)}
    # The order is the layout's, whatever order the arrays come in.
    np.testing.assert_array_equal(layout.flatten(dict(reversed(model.items()))), layout.flatten(model))


def test_float32_arrays_are_views_and_missing_extras_are_left_out():
    layout = ParamLayout.of(small_model())
    vector = np.zeros(layout.size, np.float32)
    back = layout.unflatten(vector)
    back["w"][0, 0] = 5
    assert vector[0] == 5
    assert set(back) == {"w", "b"}


def test_frozen_arrays_stay_at_home():
    layout = ParamLayout.of(small_model(), roles={"b": "frozen"})
    model = small_model()
    assert layout.size == 6
    assert layout.flatten({"w": model["w"], "n": model["n"]}).tolist() == [0, 1, 2, 3, 4, 5]
    assert layout.flatten(model).size == 6
    assert layout.unflatten(np.ones(6, np.float32), carried=model)["b"] is not None


def test_float64_beyond_float32_becomes_infinite_without_a_warning():
    layout = ParamLayout.of({"w": np.zeros(2)})
    assert layout.flatten({"w": np.array([1e300, -1e300])}).tolist() == [np.inf, -np.inf]


def test_byte_order_is_not_a_property_of_a_model():
    model = {"w": np.arange(3, dtype=">f4")}
    assert ParamLayout.of(model).digest == ParamLayout.of({"w": np.arange(3, dtype="<f4")}).digest
    assert ParamLayout.of(model).flatten(model).tolist() == [0, 1, 2]


def test_digest_is_stable():
    assert ParamLayout.of(small_model()).digest == "9316b0878c2ac062db832e3751caf821a8fafb8d062a37e0fa2e15e2e5676266"


def entries(*changes):
    base = [("w", (2, 3), "float32", Role.TRAINABLE), ("b", (3,), "float32", Role.TRAINABLE)]
    first = base[0]
    for index, value in changes:
        first = (*first[:index], value, *first[index + 1 :])
    return ParamLayout(tuple(ParamEntry(*e) for e in (first, base[1])))


def test_digest_tells_layouts_apart():
    layouts = [
        entries(),
        entries((0, "v")),
        entries((1, (3, 2))),
        entries((1, (6,))),
        entries((2, "float64")),
        entries((3, Role.BUFFER)),
        entries((3, Role.FROZEN)),
        ParamLayout(entries().entries[::-1]),
        ParamLayout(entries().entries[:1]),
        # Names that would run together if they were only joined.
        ParamLayout((ParamEntry("wb", (2, 3), "float32"),)),
    ]
    assert len({layout.digest for layout in layouts}) == len(layouts)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda m: m.pop("b"), "names", r"missing \['b'\]"),
        (lambda m: m.update(x=np.zeros(1)), "names", r"unexpected \['x'\]"),
        (lambda m: m.update(w=np.zeros((3, 2), np.float32)), "shape", r"'w': expected shape \(2, 3\), got \(3, 2\)"),
        (lambda m: m.update(n=np.array([7])), "shape", r"'n': expected shape \(\), got \(1,\)"),
        (lambda m: m.update(w=np.zeros((2, 3))), "dtype", "'w': expected dtype float32, got float64"),
        (lambda m: m.update(n=np.array(7.0)), "dtype", "'n': expected dtype int64, got float64"),
    ],
)
def test_arrays_that_do_not_fit(change, code, message):
    model = small_model()
    layout = ParamLayout.of(model)
    change(model)
    with pytest.raises(LayoutError, match=message) as caught:
        layout.flatten(model)
    assert caught.value.code == code


def test_layouts_that_cannot_be():
    with pytest.raises(LayoutError, match=r"\['w'\] more than once"):
        ParamLayout((ParamEntry("w", (1,), "float32"), ParamEntry("w", (2,), "float32")))
    for model in ({}, {"n": np.array(1)}, {"w": np.zeros(0, np.float32)}):
        with pytest.raises(LayoutError, match="at least one floating-point parameter") as caught:
            ParamLayout.of(model)
        assert caught.value.code == "size"
    with pytest.raises(LayoutError, match=r"roles given for unknown parameters \['v'\]; known: \['b', 'n', 'w'\]"):
        ParamLayout.of(small_model(), roles={"v": "frozen"})
    with pytest.raises(UnknownNameError, match=r"unknown role 'forzen' \(did you mean 'frozen'\?\)"):
        ParamLayout.of(small_model(), roles={"w": "forzen"})


@pytest.mark.parametrize("shape", [(8,), (10,), (1, 9), ()])
def test_a_vector_of_another_length(shape):
    with pytest.raises(LayoutError, match=r"expected a vector of shape \(9,\)"):
        ParamLayout.of(small_model()).unflatten(np.zeros(shape, np.float32))


def test_values_hash():
    vector = np.array([1.0, -0.0, 2.5], np.float32)
    golden = "60d6c502d760a348a356a109d80444c7e88b26abfcd4aed1f6ce28d518c0fab2"
    assert values_hash(vector) == golden
    assert values_hash(vector.astype(">f4")) == golden
    assert values_hash(np.repeat(vector, 2)[::2]) == golden
    assert values_hash(np.abs(vector)) != golden
    assert values_hash(np.empty(0, np.float32)) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_bytes_are_those_of_all_arrays():
    arrays = {"w": np.zeros((2, 3), np.float32), "h": np.zeros(5, np.float16), "n": np.array(7), "e": np.zeros((0, 9))}
    layout = ParamLayout.of(arrays, roles={"h": "frozen"})
    assert layout.nbytes == sum(array.nbytes for array in arrays.values()) == 24 + 10 + 8
