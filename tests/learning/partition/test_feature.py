"""Feature shift: every client sees its images in a way of its own."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.partition import BrightnessPartition, DirichletPartition, RotationPartition
from matl.learning.partition.feature import rotated

RNG = np.random.default_rng(0)
IMAGES = RNG.random((40, 2 * 6 * 6), np.float32)
DATA = Dataset("pictures", IMAGES, np.arange(40) % 2, 2, (2, 6, 6), groups=np.arange(40))


def test_the_base_deals_and_every_client_has_an_amount_of_its_own():
    for partition in (RotationPartition(base=DirichletPartition()), BrightnessPartition(base=DirichletPartition())):
        dealt = partition.deal(DATA, 4, np.random.default_rng(3))
        base = DirichletPartition().deal(DATA, 4, np.random.default_rng(3))
        assert [client.groups.tolist() for client in dealt] == [client.groups.tolist() for client in base]
        assert all(np.abs(client.X - IMAGES[client.groups]).max() > 0 for client in dealt)
        assert all(client.X.dtype == np.float32 for client in dealt)
        alike = replace(DATA, X=np.repeat(IMAGES[:1], 40, axis=0))
        seen = [{row.tobytes() for row in client.X} for client in partition.deal(alike, 4, np.random.default_rng(3))]
        assert list(map(len, seen)) == [1] * 4
        assert len(set.union(*seen)) == 4
    np.testing.assert_array_equal(DATA.X, IMAGES)  # what was given stays as it was


def test_brightness_is_added_and_cut_off():
    for client in BrightnessPartition(1.0).deal(DATA, 8, np.random.default_rng(0)):
        assert client.X.min() >= 0
        assert client.X.max() <= 1
        inside = (client.X > 0) & (client.X < 1)
        shifts = (client.X - IMAGES[client.groups])[inside]
        assert np.ptp(shifts) < 1e-5


@given(degrees=st.floats(-180, 180), seed=st.integers(0, 99))
def test_turning_keeps_values_in_range_and_images_apart(degrees, seed):
    images = np.random.default_rng(seed).random((3, 2, 5, 7), np.float32)
    turned = rotated(images, degrees)
    assert turned.shape == images.shape
    assert turned.min() >= 0
    assert turned.max() <= 1 + 1e-6
    np.testing.assert_array_equal(turned[1], rotated(images[1:2], degrees)[0])


def test_quarter_turns_are_exact():
    images = IMAGES.reshape(40, 2, 6, 6)
    for quarters in range(-2, 3):
        expected = np.rot90(images, quarters, axes=(2, 3))
        np.testing.assert_allclose(rotated(images, 90.0 * quarters), expected, atol=1e-5)
    np.testing.assert_array_equal(rotated(images, 0.0), images)


def test_turning_agrees_with_scipy():
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed")
    images = IMAGES.reshape(40, 2, 6, 6)
    expected = ndimage.rotate(images, 30.0, axes=(3, 2), reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(rotated(images, 30.0), expected, atol=1e-5)


@pytest.mark.parametrize("partition", [RotationPartition(), BrightnessPartition()], ids=repr)
def test_only_images_can_be_shifted(partition):
    for shape in (None, (8, 9)):
        flat = Dataset("plain", IMAGES, DATA.y, 2, shape)
        with pytest.raises(InvalidValueError, match="changes images, and the samples of plain are none"):
            partition.deal(flat, 4, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RotationPartition(0.0), "degrees > 0"),
        (lambda: RotationPartition(181.0), "degrees <= 180"),
        (lambda: BrightnessPartition(1.5), "0 <= change <= 1"),
        (lambda: BrightnessPartition(-0.5), "change > 0"),
    ],
)
def test_amounts_have_bounds(make, message):
    with pytest.raises(InvalidValueError, match=message):
        make()
