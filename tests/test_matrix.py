"""One matrix, wherever its rows are kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.errors import InvalidValueError
from matl.matrix import UpdateMatrix


@pytest.fixture(params=["memory", "memmap", "shards", "memmap shards", "empty shards"])
def stored(request, tmp_path):
    """The same 7 x 5 matrix, and an `UpdateMatrix` that keeps it in one of several ways."""
    X = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    pieces = [X] if request.param in ("memory", "memmap") else [X[:3], X[3:4], X[4:]]
    if request.param == "empty shards":
        pieces = [X[:0], X[:4], X[:0], X[4:], X[:0]]
    if "memmap" in request.param:
        for index, piece in enumerate(pieces):
            piece.tofile(tmp_path / str(index))
            pieces[index] = np.memmap(tmp_path / str(index), np.float32, "r", shape=piece.shape)
    return X, UpdateMatrix(pieces[0] if len(pieces) == 1 else pieces)


def test_every_way_of_reading_gives_the_same_bits(stored):
    X, matrix = stored
    assert matrix.shape == (7, 5)
    assert len(matrix) == 7
    np.testing.assert_array_equal(matrix.dense(), X)
    for start in range(8):
        for stop in range(start, 8):
            np.testing.assert_array_equal(matrix.rows(start, stop), X[start:stop])
    for start in range(6):
        for stop in range(start, 6):
            np.testing.assert_array_equal(matrix.columns(start, stop), X[:, start:stop])
    for width in (1, 2, 5, 9):
        np.testing.assert_array_equal(np.hstack(list(matrix.column_blocks(width))), X)


def test_take(stored):
    X, matrix = stored
    for indices in ([], [6], [0, 6, 3, 3], list(range(7))):
        taken = matrix.take(np.array(indices, np.intp))
        assert taken.shape == (len(indices), 5)
        np.testing.assert_array_equal(taken.dense(), X[indices])
    for outside in (7, -1, -8):
        with pytest.raises(IndexError):
            matrix.take(np.array([outside]))


def test_rows_are_scaled_where_the_matrix_has_room_and_no_other_row_is_copied(stored):
    X, matrix = stored
    made = []

    def allocate(shape):
        made.append(np.empty(shape, np.float32))
        return made[-1]

    matrix = UpdateMatrix([shard for shard, _ in matrix.shards()], allocate=allocate)
    assert matrix.scaled(np.ones(7)) is matrix
    factors = np.array([1.0, 0.3, 1.0, 1.0, 0.7, 0.1, 1.0])
    scaled = matrix.scaled(factors)
    assert scaled.dense().tobytes() == (X * factors[:, None].astype(np.float32)).tobytes()
    np.testing.assert_array_equal(matrix.dense(), X)
    assert [array.shape for array in made] == [(3, 5)]
    assert scaled.allocate is matrix.take(np.array([2, 1])).allocate is allocate


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.data())
def test_any_way_of_cutting_is_the_same_matrix(lengths, data):
    X = np.arange(sum(lengths) * 3, dtype=np.float32).reshape(-1, 3)
    matrix = UpdateMatrix(np.split(X, np.cumsum(lengths)[:-1]))
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(X)), st.integers(0, len(X)))))
    np.testing.assert_array_equal(matrix.rows(start, stop), X[start:stop])
    assert matrix.shape == X.shape


def test_nothing_is_copied_without_need(tmp_path):
    X = np.zeros((4, 3), np.float32)
    assert np.shares_memory(UpdateMatrix(X).dense(), X)
    assert np.shares_memory(UpdateMatrix([X, X.copy()]).rows(1, 3), X)
    assert all(np.shares_memory(shard, X) for shard, _ in UpdateMatrix(X).take(np.array([3, 0, 1])).shards())
    X.tofile(tmp_path / "x")
    assert isinstance(UpdateMatrix(np.memmap(tmp_path / "x", np.float32, "r", shape=(4, 3))).dense(), np.memmap)


def test_other_dtypes_are_converted_and_too_large_becomes_infinite():
    matrix = UpdateMatrix(np.array([[1, 1e300]]))
    assert matrix.dense().dtype == np.float32
    assert matrix.dense().tolist() == [[1, np.inf]]


@pytest.mark.parametrize(
    "shards",
    [[], np.zeros(3), np.zeros((1, 2, 3)), [np.zeros((1, 2)), np.zeros((1, 3))], [np.zeros((1, 2)), np.zeros(2)]],
    ids=["none", "1-d", "3-d", "two widths", "a row"],
)
def test_blocks_that_are_no_matrix(shards):
    with pytest.raises(InvalidValueError, match=r"with one common d, got|one row per client, got shape"):
        UpdateMatrix(shards)


@pytest.mark.parametrize("X", [[[1, 2], [3]], [["a"]], [[{}]], [1, 2], 5, [[[1]]]], ids=repr)
def test_of_refuses_what_is_no_matrix(X):
    with pytest.raises(InvalidValueError, match="expected"):
        UpdateMatrix.of(X)


def test_of_takes_what_numpy_reads():
    assert UpdateMatrix.of([[1, 2], [3, 4]]).dense().tolist() == [[1, 2], [3, 4]]
    assert UpdateMatrix.of([[1e300]]).dense().tolist() == [[np.inf]]


def test_a_block_has_a_width():
    with pytest.raises(InvalidValueError, match="expected width >= 1, got width=0"):
        list(UpdateMatrix(np.zeros((1, 1))).column_blocks(0))


def test_norms_over_several_column_blocks():
    X = np.random.default_rng(0).normal(size=(5, 9000)).astype(np.float32)
    np.testing.assert_allclose(UpdateMatrix(X).norms(), np.linalg.norm(X.astype(np.float64), axis=1), rtol=1e-6)
