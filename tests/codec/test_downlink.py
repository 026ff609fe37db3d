import numpy as np
import pytest

from matl.codec import (
    CODECS,
    Ans,
    Codec,
    ContainerError,
    FixedWidth,
    Float,
    Hadamard,
    Identity,
    MaxScaled,
    SharedModel,
    TopK,
    container,
)
from matl.errors import InvalidValueError, StateError
from matl.state import pack, unpack

CONTRACTING = {
    "int8": CODECS.create("int8"),
    "four bits, rotated": Codec(Hadamard(), MaxScaled(bits=4), Ans()),
    "two bits": Codec(Identity(), MaxScaled(bits=2, chunk=64), Ans()),
    "largest tenth": Codec(TopK(0.1), MaxScaled(), Ans()),
    "float32": CODECS.create("float32"),
}


def walk(size, rounds, seed=0):
    """A model on its way: large steps first, small ones later."""
    rng = np.random.default_rng(seed)
    model = rng.normal(size=size)
    for t in range(rounds):
        model = model + rng.normal(size=size) * 0.1 / (1 + 0.1 * t)
        yield model.astype(np.float32)


@pytest.mark.parametrize("name", CONTRACTING)
def test_server_and_clients_stay_together_and_near_the_model(name):
    codec, start = CONTRACTING[name], np.random.default_rng(0).normal(size=1000).astype(np.float32)
    server, clients = SharedModel(start, codec), [SharedModel(start, codec) for _ in range(2)]
    for t, model in enumerate(walk(1000, 60)):
        before = np.linalg.norm(model - server.params)
        message = server.publish(model, seed=t)
        for client in clients:
            client.apply(message)
            assert client.params.tobytes() == server.params.tobytes()
        assert np.linalg.norm(model - server.params) <= before * (1 + 1e-5)
    assert server.version == clients[0].version == 60
    # Sixty lost differences would be sqrt(60) times as far away as one; what is lost is carried, so it is not.
    if name in ("int8", "four bits, rotated"):
        assert np.linalg.norm(model - server.params) < 0.2 * 0.1 / 7 * np.sqrt(1000)


def test_a_model_that_stands_still_is_reached():
    target = np.random.default_rng(1).normal(size=500).astype(np.float32)
    server = SharedModel(np.zeros(500), CONTRACTING["int8"])
    for _ in range(5):
        server.publish(target)
    np.testing.assert_allclose(server.params, target, atol=1e-6)


def test_a_message_counts_once_and_in_its_turn():
    server, client = (SharedModel(np.zeros(10), CONTRACTING["int8"]) for _ in range(2))
    first, second = server.publish(np.ones(10)), server.publish(np.full(10, 2.0))
    with pytest.raises(ContainerError, match="another context"):
        client.apply(second)
    client.apply(first)
    with pytest.raises(ContainerError, match="another context"):
        client.apply(first)
    assert client.version == 1
    client.apply(second)
    np.testing.assert_array_equal(client.params, server.params)


def test_who_joins_later_gets_the_whole_model():
    server = SharedModel(np.zeros(10), CONTRACTING["int8"])
    server.publish(np.arange(10.0))
    late = SharedModel.restore(unpack(pack(server.state())), server.codec)
    assert late.version == 1
    late.apply(server.publish(np.arange(10.0) * 3))
    assert late.params.tobytes() == server.params.tobytes()


def test_damaged_messages_change_nothing():
    server, client = (SharedModel(np.zeros(10), CONTRACTING["int8"]) for _ in range(2))
    message = server.publish(np.ones(10))
    with pytest.raises(ContainerError):
        client.apply(message[:-1])
    assert client.version == 0
    assert not client.params.any()
    client.apply(message)


def test_a_model_beyond_float32_is_refused():
    start = np.full(2, 3e38, np.float32)
    codec = CODECS.create("float32")
    client = SharedModel(start, codec)
    header, _ = container.read(codec.encode(np.ones(2), context=client._context)[0])
    with pytest.raises(ContainerError, match="leads to a model that is not finite"):
        client.apply(container.write(header, start.tobytes()))
    assert client.version == 0


def test_the_model_cannot_be_changed_from_outside():
    start = np.zeros(3, np.float32)
    model = SharedModel(start, CONTRACTING["int8"])
    start[:] = 1
    assert not model.params.any()
    with pytest.raises(ValueError, match="read-only"):
        model.params[0] = 1


@pytest.mark.parametrize("name", ["rotated", "eden", "topk", {"name": "grid", "step": 0.1}])
def test_codecs_that_are_refused(name):
    with pytest.raises(InvalidValueError, match=r"contracts and keeps no state .*'int8'"):
        SharedModel(np.zeros(3), CODECS.create(name))


@pytest.mark.parametrize("params", [np.empty(0), np.array([np.nan]), np.zeros((2, 2))])
def test_models_that_are_refused(params):
    with pytest.raises(InvalidValueError):
        SharedModel(params, CONTRACTING["int8"])
    with pytest.raises(InvalidValueError):
        SharedModel(np.zeros(3), CONTRACTING["int8"]).publish(params)


@pytest.mark.parametrize("state", [{}, {"version": 2}, {"version": 1, "params": [0.0], "applied": 1}])
def test_states_that_are_refused(state):
    with pytest.raises(StateError, match="state of a shared model"):
        SharedModel.restore(state, Codec(Identity(), Float(), FixedWidth()))
