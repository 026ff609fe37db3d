"""The SDK against the coordinator itself, through each of its doors."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np
import pytest
from tests.client.real import coordinator

import matl
from matl.client import MATLClient
from matl.client.retrying import Retrying
from matl.errors import InvalidValueError, ServiceError
from matl.records import Status

CLIENTS = 4


@pytest.fixture(scope="module")
def parts():
    """Data of four clients, and what they train."""
    data = matl.federate("synthetic", clients=CLIENTS, seed=1)
    return data, matl.SoftmaxTask(20, 10), matl.LocalTraining()


def trainer(parts, index):
    data, task, recipe = parts

    def train(params, now):
        assert dict(now.recipe) == recipe.as_dict()
        vector, rng = task.layout.flatten(params), np.random.default_rng([now.number, index])
        update = matl.train_locally(task, vector, [data.clients[index]], recipe, [rng])[0]
        return task.layout.unflatten(vector + update), len(data.clients[index])

    return train


def settings(**network):
    given = {"dataset": "synthetic", "task": "softmax", "clients": CLIENTS, "rounds": 3, "seed": 1}
    return {**given, "network": {"target": CLIENTS, "quorum": 1, **network}}


def federate(parts, host, folder, scheme):
    """Let all clients take part at once, and say what each found."""
    found, errors = {}, []

    def take_part(index):
        try:
            with MATLClient(
                host.at(scheme), client_id=f"c{index}", folder=folder / f"c{index}", mode="mode1"
            ) as client:
                client.join(invitation)
                sent = []
                arrived = client.fit_loop(trainer(parts, index), progress=lambda _, each: sent.append(each))
                receipts = [client.verify_gradient(each.payload_sha256) for each in sent]
                found[client.client_id] = (arrived, receipts, client.final_model(), client.verdict(2))
        except BaseException as error:
            errors.append(error)
            raise

    invitation = host.invite(uses=CLIENTS)
    threads = [threading.Thread(target=take_part, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not errors
    return found


@pytest.mark.parametrize("scheme", ["http", "ws", "grpc"])
def test_a_federation_through_each_door(parts, tmp_path, scheme):
    if scheme == "grpc":
        pytest.importorskip("grpc", reason="grpcio is not installed")
    with coordinator(tmp_path / "host", grpc=scheme == "grpc", demo=settings()) as host:
        found = federate(parts, host, tmp_path, scheme)
    assert sorted(found) == [f"c{index}" for index in range(CLIENTS)]
    models = [model for _, _, model, _ in found.values()]
    for arrived, receipts, _, verdict in found.values():
        assert arrived == 3
        assert [receipt.round for receipt in receipts] == [0, 1, 2]
        assert {receipt.status for receipt in receipts} <= {Status.ACCEPTED, Status.CLIPPED, Status.SUSPECTED}
        assert (verdict.status, verdict.verdict) == ("judged", receipts[-1].status)
    for name, array in models[0].items():
        for model in models[1:]:
            np.testing.assert_array_equal(model[name], array)
        assert np.abs(array).max() > 0


def test_a_loop_survives_a_restart_of_the_coordinator(parts, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host_folder, done, errors = tmp_path / "host", [], []
    train = trainer(parts, 0)
    stop, back = threading.Event(), threading.Event()

    def slow(params, now):
        if now.number == 1:
            stop.set()
            assert back.wait(60)  # the coordinator is gone by then
        return train(params, now)

    def take_part(invitation):
        try:
            options = {"folder": tmp_path / "c0", "retrying": Retrying(base=0.01, cap=0.05)}
            with MATLClient(f"http://127.0.0.1:{port}", **options) as client:
                client.join(invitation)
                done.append(client.fit_loop(slow))
                done.append([client.receipt(number).round for number in range(3)])
        except BaseException as error:
            errors.append(error)
            raise

    run = settings(target=1)
    with coordinator(host_folder, port=port, demo=run) as host:
        thread = threading.Thread(target=take_part, args=(host.invite(),))
        thread.start()
        assert stop.wait(60)
    back.set()
    time.sleep(0.3)  # for attempts while nobody is there
    with coordinator(host_folder, port=port, demo=run):
        thread.join(100)
    assert not errors
    assert done[1] == [0, 1, 2]
    assert done[0] in (2, 3)  # two, where the update of round 1 arrived by way of the queue


def test_a_large_update_arrives_in_pieces(tmp_path):
    run = {**settings(target=1), "task": {"name": "mlp", "hidden": [80_000]}, "mode": "plain", "rounds": 1}
    with (
        coordinator(tmp_path / "host", demo=run) as host,
        MATLClient(host.url, folder=tmp_path / "client") as client,
    ):
        client.join(host.invite())
        current = client.next_round(wait=30)
        started = current.vector
        assert started.size * 4 > 9 << 20
        sent = client.submit_gradient(np.full(started.size, 0.5, np.float32), metadata={"num_examples": 3})
        assert client.next_round() is None
        assert client.verify_gradient(sent.payload_sha256).status is Status.ACCEPTED
        model = client.final_model()
        np.testing.assert_allclose(current.layout.flatten(model), started + 0.5, atol=1e-6)


def test_what_a_stranger_gets_wrong(tmp_path):
    with coordinator(tmp_path / "host", demo=settings(target=2), other=settings()) as host:
        with MATLClient(host.url, folder=tmp_path / "a") as client:
            with pytest.raises(ServiceError, match="join first"):
                client.runs()
            client.join(host.invite())
            with pytest.raises(InvalidValueError, match="several runs, say which"):
                client.run()
        with (
            MATLClient(host.url, folder=tmp_path / "a", run="demo", mode=matl.Mode0) as client,
            pytest.raises(InvalidValueError, match="is judged by mode1, this client insists on mode0"),
        ):
            client.next_round()
        with MATLClient(host.url, folder=tmp_path / "a", run="demo") as client:
            current = client.next_round(wait=30)
            with pytest.raises(ServiceError) as caught:
                client.submit_payload(b"not safetensors", round=current)
            assert (caught.value.code, caught.value.reason) == ("invalid", "malformed")
            client.submit_gradient(np.zeros(current.vector.size), round=current)
            with pytest.raises(ServiceError, match=r"another update of .* counts in round 0") as caught:
                client.submit_gradient(np.ones(current.vector.size), round=current)
            assert (caught.value.code, caught.value.reason) == ("conflict", "duplicate")
            with pytest.raises(ServiceError, match=r"opened in 0\.2 s") as caught:
                client.next_round(wait=0.2)
            assert caught.value.reason == "no_round"
            with pytest.raises(ServiceError) as caught:
                client.receipt(0)
            assert caught.value.code == "not_found"
