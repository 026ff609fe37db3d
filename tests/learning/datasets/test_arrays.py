"""Arrays of a user's own, in memory and in .npz files, which may have been made to do harm."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from matl.errors import CorruptDataError, DataNotFoundError, InvalidValueError
from matl.learning.datasets import Dataset, Source, as_source, load_dataset

X = np.arange(12, dtype=np.float64).reshape(4, 3)
Y = np.array([0, 1, 2, 1])


def test_every_form_of_data_is_a_source():
    data = as_source((X, Y)).train
    assert (data.name, data.num_classes, data.shape) == ("custom", 3, None)
    assert data.X.dtype == np.float32
    assert as_source([X.tolist(), Y.tolist()]).train.y.tolist() == Y.tolist()
    assert as_source(data).train is data
    source = Source(data)
    assert as_source(source) is source
    assert as_source("synthetic").train.name == "synthetic"
    assert as_source({"name": "synthetic"}).train.name == "synthetic"


def test_samples_of_more_than_one_dimension_keep_their_shape():
    images = np.zeros((4, 3, 2, 5))
    data = as_source((images, Y)).train
    assert (data.X.shape, data.shape) == ((4, 30), (3, 2, 5))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "expected dataset as a name, .*, got a int"),
        ((X, Y, Y), "got a tuple"),
        ((X, Y + 0.5), "one whole-number label 0 .. K - 1 per sample"),
        ((X, ["a", "b", "c", "d"]), "one whole-number label"),
        ((X, Y - 1), "expected labels 0 to 1, got -1 to 1"),
        ((X, Y[:3]), "one label per sample, got 4 samples"),
        ((X * np.nan, Y), "NaN or infinity"),
    ],
)
def test_data_that_is_none(given, message):
    with pytest.raises(InvalidValueError, match=message):
        as_source(given)


@pytest.mark.parametrize(("loader", "shape"), [("iris", (150, 4)), ("wine", (178, 13)), ("breast_cancer", (569, 30))])
def test_bundled_tables_are_standardised(loader, shape):
    data = load_dataset({"name": "sklearn", "loader": loader}).train
    assert data.X.shape == shape
    assert data.name == loader
    assert len(data.class_names) == data.num_classes
    assert data.X.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert data.X.std(axis=0) == pytest.approx(1, abs=1e-5)


def test_bundled_images_are_those_of_digits():
    data, digits = load_dataset({"name": "sklearn", "loader": "digits"}).train, load_dataset("digits").train
    np.testing.assert_array_equal(data.X, digits.X)
    assert data.shape == digits.shape


def save(tmp_path, *, packed=False, **arrays):
    path = tmp_path / "mine.npz"
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_of_a_file(tmp_path, packed):
    path = save(tmp_path, packed=packed, X=X, y=Y, X_test=X[:2], y_test=np.array([3, 0]), groups=np.array([5, 5, 7, 7]))
    source = load_dataset({"name": "npz", "path": str(path)})
    np.testing.assert_array_equal(source.train.X, X)
    assert source.train.groups.tolist() == [5, 5, 7, 7]
    assert source.test.y.tolist() == [3, 0]
    assert source.train.num_classes == source.test.num_classes == 4
    assert source.train.name == "mine.npz"


def test_bytes_are_pixels(tmp_path):
    images = np.full((4, 1, 2, 2), 255, np.uint8)
    data = load_dataset({"name": "npz", "path": save(tmp_path, X=images, y=Y)})
    assert data.test is None
    assert data.train.shape == (1, 2, 2)
    assert data.train.X.tolist() == np.ones((4, 4)).tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X}, "expected arrays X and y in .*, got X"),
        ({"X": X, "y": Y, "X_test": X}, "X_test and y_test or neither, got X, y, X_test"),
        ({"X": X, "y": Y, "X_test": X[:, :2], "y_test": Y}, "X_test has 2 features, but X has 3"),
        ({"X": X, "y": Y, "groups": Y[:2]}, "one group per sample"),
        ({"X": X, "y": np.array(["a", "b", "c", "d"])}, "one whole-number label"),
        ({"X": np.full((4, 2), "x"), "y": Y}, "could not convert string to float"),
        ({"X": X, "y": Y, "groups": np.array(["n", "n", "s", "s"])}, "invalid literal"),
    ],
)
def test_arrays_that_are_no_data_set(tmp_path, arrays, message):
    with pytest.raises(CorruptDataError, match=message):
        load_dataset({"name": "npz", "path": save(tmp_path, **arrays)})


def member(header, content=b""):
    """One array file with a header of our making."""
    text = header.encode() + b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


class Harm:
    def __reduce__(self):
        return pytest.fail, ("the file was unpickled",)


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999, 99999999), }"
OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an .npz file of plain arrays"),
        (b"\x93NUMPY", "is not an .npz file"),
        (pickle.dumps(Harm()), "is not an .npz file"),
        ({"X.npy": member(HUGE, b"1234")}, r"X.npy says that it is float32 of shape \(99999999, 99999999\)"),
        ({"X.npy": member(OBJECTS, pickle.dumps(Harm()))}, "X.npy says that it is object"),
        ({"X.npy": b"not an array"}, "is not an .npz file"),
        ({"X.npy": member("__import__('os').abort()")}, "is not an .npz file"),
        ({"X.npy": b""}, "is not an .npz file"),
    ],
    ids=["empty", "npy", "pickle", "huge", "objects", "text", "code", "nothing"],
)
def test_hostile_files_are_refused_and_never_unpickled(tmp_path, content, message):
    path = tmp_path / "hostile.npz"
    if isinstance(content, dict):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        content = buffer.getvalue()
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=message):
        load_dataset({"name": "npz", "path": path})


def test_a_file_cut_short_or_garbled(tmp_path):
    path = save(tmp_path, packed=True, X=np.random.default_rng(0).normal(size=(100, 9)), y=np.arange(100) % 3)
    content = path.read_bytes()
    for damaged in (content[:-30], content[:200] + b"\xff" * 200 + content[400:]):
        path.write_bytes(damaged)
        with pytest.raises(CorruptDataError, match=r"is not an .npz file of plain arrays"):
            load_dataset({"name": "npz", "path": path})
    with pytest.raises(DataNotFoundError):
        load_dataset({"name": "npz", "path": tmp_path / "nowhere.npz"})


def test_a_size_that_its_packed_bytes_cannot_hold_is_not_believed(tmp_path):
    """The directory of the archive and the header agree on a terabyte; the file holds a few bytes."""
    path = tmp_path / "bomb.npz"
    header = member("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,), }")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", header)
        archive.getinfo("X.npy").file_size = len(header) + 10**12
    with pytest.raises(CorruptDataError, match="packed bytes cannot hold"):
        load_dataset({"name": "npz", "path": path})


def test_arrays_are_one_data_set_wherever_they_come_from(tmp_path):
    loaded = load_dataset({"name": "npz", "path": save(tmp_path, X=X, y=Y)}).train
    given = as_source((X, Y)).train
    assert isinstance(loaded, Dataset)
    np.testing.assert_array_equal(loaded.X, given.X)
