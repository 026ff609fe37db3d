"""What simulated clients send to a host elsewhere: what they would have sent in one process, bit for bit."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from matl.errors import InvalidValueError
from matl.records import Rejection
from matl.simulation import RunConfig, build_simulation
from matl.simulation.randomness import derive_seed

BASE = {"dataset": "synthetic", "clients": 10, "rounds": 3, "task": "softmax", "root_size": 20, "seed": 3}


def simulation(**changed):
    return build_simulation(RunConfig(**{**BASE, **changed}))


def hosted(parts):
    """The model after all rounds, by a host that sees nothing but messages."""
    workload = parts.workload
    state = workload.init(parts.init()["workload"]["params"])
    before = workload.held(state)
    for number in range(parts.rounds):
        spec, held = workload.plan(state), workload.held(state)
        messages = parts.messages(spec, held, held - before, parts.trainer)
        before, accepted = held, []
        for name, message in messages:
            seen = {item.update.client_id for item in accepted}
            result = workload.screen(
                message,
                spec,
                state,
                seen=seen,
                verify=lambda m, own=name: None if m.client_id == own else Rejection(own, "signature", ""),
            )
            if not isinstance(result, Rejection):
                accepted.append(result)
        cohort = workload.cohort(
            accepted, spec, state, seed=derive_seed(parts.seed, "judge", number), key=parts.noise_key(number)
        )
        _, state = workload.reduce(cohort, state)
    return state["params"]


@pytest.mark.parametrize(
    "changed",
    [
        {"attack": "none", "mode": "plain"},
        {"attack": "sign_flip", "mode": "mode0", "byzantine": 0.3},
        {"attack": "alie", "mode": "mode1"},
        {"attack": "label_flip", "mode": "plain", "participation": 0.6, "dropouts": 0.4},
        {"attack": {"name": "sleeper", "wake_round": 1}, "mode": "plain"},
        {"attack": "malformed", "mode": "plain", "byzantine": 0.4},
        {"attack": "sign_flip", "mode": "mode0", "codec": "int8"},
        {
            "attack": "sign_flip",
            "mode": "plain",
            "aggregator": "median",
            "privacy": {"mechanism": "local", "epsilon": 50.0},
        },
    ],
    ids=lambda changed: "-".join(map(str, [changed["attack"], *changed.keys() & {"codec", "privacy"}])),
)
def test_a_host_of_messages_comes_to_the_same_model(changed):
    parts = simulation(**changed)
    state = parts.init()
    for _, after in parts.run(state):
        state = after
    with threadpool_limits(1):  # as every host does
        np.testing.assert_array_equal(hosted(parts), state["workload"]["params"])


def test_who_stays_is_how_many_send():
    parts = simulation(attack="none", participation=0.5, dropouts=0.4)
    spec = parts.workload.plan(parts.init()["workload"])
    params = parts.init()["workload"]["params"]
    messages = parts.messages(spec, params, np.zeros_like(params), parts.trainer)
    assert len(messages) == parts.senders == 3
    assert [name for name, _ in messages] == sorted(name for name, _ in messages)


def test_messages_say_nothing_about_who_lies():
    parts = simulation(attack="sign_flip", byzantine=0.3)
    params = parts.init()["workload"]["params"]
    spec = parts.workload.plan(parts.init()["workload"])
    messages = dict(parts.messages(spec, params, np.zeros_like(params), parts.trainer))
    shapes = {
        name: (message.kind, tuple(message.evidence), type(message.payload)) for name, message in messages.items()
    }
    assert len(set(shapes.values())) == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"attack": "white_box", "mode": "mode0"}, "rehearses"),
        ({"server_optimizer": "scaffold", "mode": "plain"}, "remember"),
        ({"codec": "topk", "mode": "plain"}, "error feedback"),
    ],
)
def test_clients_that_need_more_than_a_host_tells_are_refused(changed, words):
    with pytest.raises(InvalidValueError, match=words):
        simulation(**changed).check_remote()
