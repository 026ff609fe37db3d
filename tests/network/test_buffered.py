"""Buffered asynchronous rounds (FedBuff) over the wire: a commit after every K updates, late ones counting less."""

import numpy as np
import pytest
from tests.client.real import coordinator

from matl.client import MATLClient
from matl.errors import ServiceError

K = 2
RUN = {
    "dataset": "synthetic",
    "clients": 5,
    "rounds": 20,
    "task": "softmax",
    "root_size": 20,
    "mode": "plain",
    "network": {"target": K, "quorum": K, "deadline": 60.0, "max_staleness": 2},
}


def weight(staleness):
    """Of an update that is so many commits late, beside a fresh one's 1."""
    return 1 / np.sqrt(1 + staleness)


def send(client, of, value):
    """An update that moves every parameter by the same; the number of the buffer that it counts in."""
    moved = {name: np.full_like(array, value) for name, array in of.params.items()}
    return client.submit_gradient(moved, round=of, metadata={"num_examples": 1}).round


@pytest.mark.parametrize("door", ["http", "grpc", "ws"])
def test_buffers_are_committed_one_after_another_and_what_is_late_weighs_less(tmp_path, door):
    with coordinator(tmp_path / "served", grpc=True, fed=RUN) as served:
        invitation = served.invite(uses=5)
        clients = {}
        for name in ("ann", "bob", "cid", "dan", "eve"):
            clients[name] = MATLClient(served.at(door), client_id=name, folder=tmp_path / name)
            clients[name].join(invitation)
        try:
            fetched = {name: client.next_round(wait=20) for name, client in clients.items()}
            # Five are enrolled, more than are drawn for a target of two elsewhere: here everybody may send.
            assert {(one.number, one.view.invited, one.view.selected) for one in fetched.values()} == {(0, None, None)}

            def next_of(name, number):
                fetched[name] = clients[name].next_round(wait=20)
                assert fetched[name].number == number
                return fetched[name].vector.copy()

            start = fetched["ann"].vector
            assert (send(clients["ann"], fetched["ann"], 0.5), send(clients["bob"], fetched["bob"], 0.25)) == (0, 0)
            first = next_of("ann", 1)
            np.testing.assert_allclose(first - start, 0.375, rtol=1e-5)
            next_of("bob", 1)

            # What was trained from the first model comes for the second: one commit late, beside a fresh one.
            assert (send(clients["cid"], fetched["cid"], 1.0), send(clients["ann"], fetched["ann"], 0.0)) == (1, 1)
            second = next_of("ann", 2)
            np.testing.assert_allclose(second - first, weight(1) / (weight(1) + 1), rtol=1e-5)

            # Two commits late and one, nothing fresh: they weigh against one another.
            assert (send(clients["dan"], fetched["dan"], 2.0), send(clients["bob"], fetched["bob"], -1.0)) == (2, 2)
            third = next_of("ann", 3)
            expected = (2 * weight(2) - weight(1)) / (weight(2) + weight(1))
            np.testing.assert_allclose(third - second, expected, rtol=1e-5)

            # The same client counts in buffer after buffer; and what is later than is allowed does not count.
            with pytest.raises(ServiceError, match="round 0 is over") as refused:
                send(clients["eve"], fetched["eve"], 100.0)
            assert (refused.value.code, refused.value.reason) == ("conflict", "late")
            next_of("bob", 3)
            assert (send(clients["ann"], fetched["ann"], 0.5), send(clients["bob"], fetched["bob"], 0.5)) == (3, 3)
            fourth = next_of("ann", 4)
            np.testing.assert_allclose(fourth - third, 0.5, rtol=1e-5)
            assert clients["dan"].verdict(2).status == "judged"
        finally:
            for client in clients.values():
                client.close()
