"""From settings to a plan: the same parts and draws as a simulation of the same configuration."""

from dataclasses import replace

import numpy as np
import pytest

from matl.coordinator.rounds.plan import PHASES
from matl.errors import ConfigError, InvalidValueError
from matl.network import planner as module
from matl.network.planner import planner, stranger
from matl.records import Visibility
from matl.simulation import RunConfig, build_simulation
from matl.simulation.randomness import derive_seed

SETTINGS = {
    "dataset": "synthetic",
    "clients": 9,
    "rounds": 4,
    "task": "softmax",
    "root_size": 20,
    "seed": 3,
    "mode": "mode0",
}
SIMULATED = {**SETTINGS, "attack": "sign_flip", "byzantine": 0.3, "network": {"simulated": True}}


def plan(settings, **changed):
    return planner("demo", {**settings, **changed})


def test_a_simulated_run_has_the_model_and_the_draws_of_the_simulation():
    made = plan(SIMULATED)
    config = RunConfig(**{key: value for key, value in SIMULATED.items() if key != "network"})
    simulation = build_simulation(config)
    np.testing.assert_array_equal(made.params, simulation.init()["workload"]["params"])
    assert made.workload.config_digest == config.digest
    assert made.workload.run == "demo"
    assert made.workload.mode.digest == simulation.workload.mode.digest
    assert [made.judge_seed(number) for number in range(3)] == [derive_seed(3, "judge", n) for n in range(3)]
    assert made.arrival(0, "client-004") == simulation.arrival(0, "client-004") > 0
    assert made.arrival(0, "a-guest") == 0
    assert (made.rounds, made.rules.target, made.rules.quorum, made.rules.deadline) == (4, 9, 1, 86400)


def test_a_served_run_draws_its_seeds_from_nowhere():
    made = plan(SETTINGS)
    assert made.judge_seed is None
    assert made.arrival is None
    assert (made.rules.target, made.rules.quorum, made.rules.deadline) == (9, 6, 600)


def test_those_who_stay_are_the_target():
    made = plan(SIMULATED, participation=0.6, dropouts=0.4)  # 5 of 9 begin, 2 of these fall silent
    assert made.rules.target == 3


def test_terms_win():
    terms = {"target": 5, "quorum": 2, "deadline": 30.0, "max_staleness": 2, "rounds": 7}
    made = plan(SETTINGS, network=terms)
    assert (made.rules.target, made.rules.quorum, made.rules.deadline) == (5, 2, 30.0)
    assert (made.workload.max_staleness, made.rounds) == (2, 7)


@pytest.mark.parametrize(
    ("settings", "terms", "factor"),
    [
        ("served", {}, None),  # no target of its own: everybody
        ("served", {"target": 6}, 1.3),
        ("served", {"target": 6, "overselect": 2.0}, 2.0),
        ("served", {"target": 6, "quorum": 6}, None),  # nothing would end a round whose clients are gone
        ("served", {"target": 6, "quorum": 6, "deadline": 5.0}, 1.3),
        ("served", {"target": 6, "max_staleness": 1}, None),
        ("simulated", {"target": 6, "simulated": True}, None),
    ],
)
def test_clients_are_drawn_for_rounds_with_a_target_that_end_by_themselves(settings, terms, factor):
    made = plan(SIMULATED if settings == "simulated" else SETTINGS, network=terms)
    assert made.rules.over_selection == factor


def test_to_draw_clients_without_a_deadline_is_refused():
    with pytest.raises(InvalidValueError, match=r"expected a deadline with overselect=1\.5, got none"):
        plan(SETTINGS, network={"target": 6, "quorum": 6, "overselect": 1.5})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"attack": "white_box"}, "rehearses with the judge"),
        ({"codec": "topk", "mode": "plain"}, "codec with error feedback"),
        ({"downlink": "int8"}, "sends its models as they are"),
        (
            {"privacy": {"epsilon": 8.0, "mechanism": "distributed"}, "mode": "plain"},
            "answer by itself",
        ),
        ({"server_optimizer": "scaffold", "mode": "plain"}, "has clients remember"),
        ({"network": {"simulated": True, "quorum": 20}}, "expected quorum <= target, got quorum=20 and target=9"),
    ],
)
def test_what_does_not_travel_is_refused(changed, words):
    with pytest.raises(InvalidValueError, match=words):
        plan(SIMULATED, **changed)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"codec": "rotated"}, "send safetensors, got the codec .*; leave codec out"),
        (
            {"privacy": {"epsilon": 8.0, "mechanism": "central"}},
            "got central noise; choose privacy.mechanism=distributed",
        ),
        ({"privacy": {"epsilon": 8.0, "mechanism": "local"}}, "got local noise; choose privacy.mechanism=distributed"),
    ],
)
def test_what_no_client_sends_is_refused_before_anybody_comes(changed, words):
    for terms in (SETTINGS, SIMULATED | {"network": {"simulated": True, "guests": 1}}):
        with pytest.raises(InvalidValueError, match=words):
            plan(terms, mode="plain", **changed)
    assert plan(SIMULATED, mode="plain", **changed).rules.target == 9  # simulated clients send it


def test_an_oracle_seals_the_channel(tmp_path):
    (tmp_path / "token").write_text("secret-of-the-oracle\n")
    (tmp_path / "token").chmod(0o600)
    source = {
        "url": "https://oracle:8450",
        "token_file": str(tmp_path / "token"),
        "measurements": ["ab" * 32],
        "software": True,
    }
    made = plan(SETTINGS, network={"oracle": source})
    assert made.workload.channel.visibility is Visibility.SEALED
    assert made.oracle.url == "https://oracle:8450"
    assert made.oracle.config == made.workload.config_digest
    assert made.judge is not None


@pytest.mark.parametrize("dataset", [{"name": "csv", "label": "ill"}, "synthetic"])
def test_who_begins_a_run_over_the_network_names_no_files(tmp_path, dataset):
    token = tmp_path / "admin.token"
    token.write_text("matl_op_secret\n")
    token.chmod(0o600)
    settings = {"dataset": dataset, "clients": 4}
    if isinstance(dataset, dict):
        settings["dataset"] = dataset | {"path": str(token)}
    else:
        source = {"url": "https://mine", "token_file": str(token), "measurements": ["ab" * 32], "software": True}
        settings["network"] = {"oracle": source}
    with pytest.raises(ConfigError, match="files are named by the coordinator's own settings alone") as caught:
        stranger("demo", settings)
    assert "matl_op_secret" not in str(caught.value)


PRIVATE = {
    "dataset": "synthetic", "clients": 100, "rounds": 3, "mode": "plain", "task": "mlp",
    "privacy": {"epsilon": 8.0, "mechanism": "distributed", "dropout": 0.2, "budget_bits": 8.0},
}  # fmt: skip


def test_private_runs_are_served_in_masked_rounds_with_their_manifest():
    made = plan(PRIVATE, network={"target": 100})
    least = made.workload.channel.least
    assert made.masked
    assert made.rules.phases == PHASES
    assert (made.rules.quorum >= least, made.rules.later, made.rules.deadline) == (True, 1, 600.0)
    assert made.rules.over_selection == 1.3
    assert made.manifest.instance == made.workload.channel.mechanism.encoder.instance
    session = made.manifest.session("r", 0, size=made.workload.layout.size)
    spec = made.workload.plan(made.workload.init(made.params))
    assert replace(session, run=spec.run) == made.workload.channel.session(spec)


@pytest.mark.parametrize(
    ("privacy", "terms", "words"),
    [
        ({"group_size": 50, "dropout": 0.0}, {}, "one masked sum of all"),
        ({"adaptive": {}}, {}, "fixed clipping norm"),
        ({}, {"quorum": 2}, "a quorum of at least"),
        ({}, {"max_staleness": 1}, "a sum is of one round"),
        ({}, {"target": 3}, "expected quorum <= target"),
    ],
)
def test_private_runs_that_cannot_be_served_are_refused(privacy, terms, words):
    with pytest.raises(InvalidValueError, match=words):
        plan(PRIVATE, privacy={**PRIVATE["privacy"], **privacy}, network=terms)


@pytest.mark.parametrize("aggregator", ["foolsgold", {"name": "nnm", "rule": "foolsgold"}])
def test_a_rule_that_remembers_more_than_a_state_holds_is_refused(aggregator, monkeypatch):
    settings = {**SETTINGS, "mode": "plain", "aggregator": aggregator}
    monkeypatch.setattr(module, "_LARGEST_ARRAY", 4 * 9 * plan(settings).workload.layout.size)
    plan(settings)
    with pytest.raises(InvalidValueError, match="FoolsGold remembers an update of every client, which for 10 clients"):
        plan(settings, clients=10)
    plan({**settings, "aggregator": "median"}, clients=10)
