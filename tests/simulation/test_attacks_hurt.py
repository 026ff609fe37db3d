"""What each attack does to plain averaging: an attack that hurts nothing proves nothing about a defence."""

from functools import cache

import numpy as np
import pytest

import matl
from matl.attacks import Attack
from matl.cli.options import parse_spec
from matl.simulation import RunConfig, build_simulation, execute, honest_only

# Points of accuracy lost on digits with 20 clients, mean over the seeds, beyond what clients that send nothing cost
# (7.5). Measured on seeds 1 to 4: sign flip 41 to 48, noise 11 to 18, scaling 34 to 57, label flip 3 to 25, sleeper 8
# to 24.
SEEDS = (1, 2)
LOSSES = {
    "sign_flip": 30,
    "gaussian_noise": 8,
    "scaling": 30,
    "label_flip": 7,
    "sleeper:wake_round=4": 5,
}


class Silent(Attack):
    """Uploads nothing new."""

    def craft(self, view, rng):
        return np.zeros_like(view.own)


FEDERATION = {"dataset": "digits", "clients": 20, "byzantine": 0.4, "rounds": 8, "aggregator": "mean"}


def train(attack, seed, **settings):
    return matl.simulate(attack=attack, seed=seed, **(FEDERATION | settings))


@cache
def ceiling(seed, **settings):
    """Accuracy of the same federation without its malicious clients."""
    config = RunConfig(seed=seed, **(FEDERATION | settings))
    return execute(honest_only(build_simulation(config)), config, name="ceiling").accuracy


def lost(attack, **settings):
    """Points lost against the ceiling, mean over the seeds."""
    losses = [ceiling(seed, **settings) - train(attack, seed, **settings).accuracy for seed in SEEDS]
    return 100 * sum(losses) / len(losses)


@pytest.fixture(scope="module")
def silence():
    """What is lost when the malicious clients send nothing."""
    return lost(Silent())


@pytest.mark.parametrize("attack", LOSSES)
def test_the_attack_hurts_the_mean_more_than_silence_does(attack, silence):
    assert lost(parse_spec(attack)) - silence > LOSSES[attack]


def test_quiet_noise_averages_out(silence):
    assert abs(lost(parse_spec("gaussian_noise:scale=3")) - silence) < 3  # measured 1; as its docstring says


def test_alie_hurts_the_mean_a_little_where_honest_updates_are_spread():
    # As its docstring says: measured 5 to 12 points at alpha 0.1, 1 to 4 at alpha 0.5; silence would cost more.
    assert lost("alie", alpha=0.1, byzantine=0.45, rounds=12) > 3


def test_malformed_messages_hurt_nobody():
    assert lost("malformed") == 0.0


def test_a_sleeper_does_no_harm_before_it_wakes():
    asleep = train({"name": "sleeper", "wake_round": 4}, 1)
    honest = train("none", 1)
    accuracies = [[row["accuracy"] for row in run.history] for run in (asleep, honest)]
    assert accuracies[0][:4] == accuracies[1][:4]
    assert accuracies[0][4] < accuracies[1][4] - 0.02
