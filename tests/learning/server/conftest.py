"""What the tests of server optimisers share."""

import numpy as np
import pytest

from matl import state
from matl.params import ParamLayout


@pytest.fixture
def run():
    """Play rounds of (aggregate, summary) from zero; returns the parameters after each and the last state."""

    def run(optimizer, rounds):
        params = np.zeros(len(rounds[0][0]), np.float32)
        carried = optimizer.init(ParamLayout.of([params]))
        history = []
        for aggregate, summary in rounds:
            given = [array.copy() for array in (params, aggregate, *carried.values())]
            after, carried_after = optimizer.step(params, aggregate, carried, summary)
            for before, array in zip(given, (params, aggregate, *carried.values()), strict=True):
                np.testing.assert_array_equal(array, before)  # what it is given stays as it was
            assert after.dtype == np.float32
            # A stop and a resume between any two rounds changes nothing.
            params, carried = after, state.unpack(state.pack(carried_after))
            history.append(params)
        return np.array(history), carried

    return run
