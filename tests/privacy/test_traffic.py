"""The bytes of keys are those that a secure aggregation sends."""

import numpy as np
import pytest

from matl.privacy.choice import FRAME, vector_bytes
from matl.privacy.secagg import Phase, Session, aggregate_in_memory
from matl.privacy.traffic import key_traffic


@pytest.mark.parametrize(("clients", "min_survivors", "corrupt"), [(7, 5, 1), (20, 14, 3)])
def test_what_is_told_is_what_is_sent(clients, min_survivors, corrupt):
    session = Session(run="x", round=0, length=70_000, min_survivors=min_survivors, corrupt=corrupt)
    inputs = {f"{i:036}": np.zeros(session.length, np.uint8) for i in range(clients)}
    _, traffic = aggregate_in_memory(inputs, session)
    keys = key_traffic(clients, min_survivors, corrupt)
    assert keys.neighbours == clients - 1
    up, down = sum(traffic.up.values()) / clients, sum(traffic.down.values()) / clients
    assert down == keys.down
    sent = vector_bytes(session.length, 8)
    assert sent == session.nbytes + FRAME
    assert 0 <= sent + keys.up - up <= FRAME
    assert traffic.up[Phase.MASK] / clients >= sent


def test_widths_that_secure_aggregation_does_not_add_modulo_have_no_bytes():
    assert vector_bytes(100, 8) == 100 + FRAME
    assert vector_bytes(100, 33) is None
