"""A client without an event loop, against a coordinator of a few hundred lines that keeps the protocol."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest
from tests.client.fake import Coordinator, application, serving

from matl.client import MATLClient, Round
from matl.errors import InvalidValueError


def up(params, current):
    """Training that adds the learning rate to everything."""
    return {name: array + current.recipe["learning_rate"] for name, array in params.items()}, 10


def test_a_loop_to_the_end(host, url, tmp_path):
    told = []
    with MATLClient(url, client_id="alice", folder=tmp_path / "alice") as client:
        client.join(host.invite())
        assert client.fit_loop(up, progress=lambda current, sent: told.append((current.number, sent.client_id))) == 3
        model = client.final_model()
        assert client.next_round() is None
    assert told == [(0, "alice"), (1, "alice"), (2, "alice")]
    assert model["w"].shape == (2, 3)
    np.testing.assert_array_equal(model["b"], np.full(3, 1.5, np.float32))


def test_round_by_round(host, url, tmp_path):
    with MATLClient(url, client_id="alice", folder=tmp_path) as client:
        client.join(host.invite())
        current = client.next_round()
        assert isinstance(current, Round)
        assert (current.run, current.number, current.recipe) == ("demo", 0, {"learning_rate": 0.5})
        assert client.next_round().number == 0  # nothing was sent yet
        params = current.params
        params["b"] += 1  # a copy
        sent = client.submit_gradient(current.delta(params), metadata={"num_examples": 7})
        assert not sent.duplicate
        head, row = host.accepted[0, "alice"]
        assert (head.num_examples, head.kind, row.tolist()) == (7, "delta", [0.0] * 6 + [1.0] * 3)
        assert client.verdict(0).verdict == "accepted"
        receipt = client.verify_gradient(sent.payload_sha256)
        assert receipt.update_hash == sent.payload_sha256
        assert client.next_round().number == 1


def test_training_is_in_the_callers_thread(host, url, tmp_path):
    threads = []

    def train(params, current):
        threads.append(threading.current_thread())
        return params, 1

    with MATLClient(url, folder=tmp_path) as client:
        client.join(host.invite())
        client.fit_loop(train, rounds=2, progress=lambda *_: threads.append(threading.current_thread()))
    assert set(threads) == {threading.current_thread()}
    assert len(threads) == 4


def test_what_training_raises_goes_through(host, url, tmp_path):
    def train(params, current):
        raise ZeroDivisionError

    with MATLClient(url, folder=tmp_path) as client:
        client.join(host.invite())
        with pytest.raises(ZeroDivisionError):
            client.fit_loop(train)
        with pytest.raises(InvalidValueError, match=r"expected the training function to return .* got a dict"):
            client.fit_loop(lambda params, current: params)
        assert client.fit_loop(up) == 3  # from the same round on


def test_a_client_goes_on_after_a_restart(host, url, tmp_path):
    with MATLClient(url, client_id="alice", folder=tmp_path) as client:
        client.join(host.invite())
        client.fit_loop(up, rounds=1)
    with MATLClient(url, folder=tmp_path) as client:
        assert client.client_id == "alice"
        assert client.fit_loop(up) == 2
    assert sorted(host.accepted) == [(0, "alice"), (1, "alice"), (2, "alice")]


def test_a_round_is_not_sent_for_twice_after_a_restart(tmp_path):
    host = Coordinator(rounds=1, target=2)
    with serving(application(host)) as url:
        for _ in range(2):
            with MATLClient(url, client_id="alice", folder=tmp_path) as client:
                client.join(host.invite(uses=2))
                if (0, "alice") not in host.accepted:
                    client.fit_loop(up, rounds=1)
                else:
                    with pytest.raises(Exception, match=r"no round of run 'demo' \(running\) opened in 0\.1 s"):
                        client.next_round(wait=0.1)


def test_a_closed_client_says_so(url, tmp_path):
    client = MATLClient(url, folder=tmp_path)
    client.close()
    client.close()
    with pytest.raises(InvalidValueError, match="this client is closed"):
        client.runs()


def test_interrupting_ends_the_request(host, url, tmp_path, monkeypatch):
    """Ctrl-C while a round is awaited leaves a client that can be closed."""
    with MATLClient(url, folder=tmp_path) as client:
        client.join(host.invite())
        host.status = "paused"

        def interrupted(self, *_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.next_round()
        monkeypatch.undo()
        ends = time.monotonic() + 5
        while asyncio.all_tasks(client._loop) and time.monotonic() < ends:
            time.sleep(0.01)
        assert not asyncio.all_tasks(client._loop)


def test_every_public_method_of_the_asynchronous_client_is_here():
    from matl.client import AsyncMATLClient

    def public(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(AsyncMATLClient) - public(MATLClient) == {"offer"}
    assert public(MATLClient) <= public(AsyncMATLClient)
