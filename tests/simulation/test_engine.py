"""The in-process host: reproducible, and unimpressed by whatever clients send."""

import dataclasses
import itertools
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import threadpoolctl

import matl
from matl.aggregators import Mean
from matl.attacks import Alie, Attack, Malformed, Sleeper
from matl.errors import BoundError, InvalidValueError
from matl.learning.server import ServerSGD
from matl.modes import Plain
from matl.records import Judgement, Status, Verdict
from matl.simulation import build_simulation, honest_only, load_config
from matl.simulation.fleet import Trainer
from matl.simulation.randomness import derive_seed, stream
from matl.state import pack, unpack

RNG = np.random.default_rng(0)
Y = np.arange(240) % 3
DATA = ((RNG.normal(size=(240, 4)) + 2 * np.eye(3, 4)[Y]).astype(np.float32), Y)
TINY = {"dataset": DATA, "task": "softmax", "clients": 8, "byzantine": 0.375, "rounds": 3, "root_size": 12, "seed": 1}
VARIES = ("seconds", "peak_memory_mib")


def run(**changes):
    return matl.simulate(**(TINY | {"aggregator": "mean"} | changes))


def comparable(result):
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    return {k: v for k, v in result.as_dict().items() if k not in VARIES} | {"history": history}


def simulation(attack=None, mode=None, **changes):
    settings = {k: v for k, v in TINY.items() if k != "dataset"} | {"attack": "none"} | changes
    config = load_config(None, settings)
    data = matl.federate(DATA, clients=config.clients, root_size=config.root_size, seed=config.seed)
    return build_simulation(config, data=data, attack=attack, mode=mode or Plain())


def play(sim, state=None):
    """Reports, events and the last state."""
    reports, events = [], []
    state = sim.init() if state is None else state
    for report, after in sim.run(state, sink=events.append):
        reports.append(report)
        state = after
    return reports, events, state


def told(events, kind):
    return [(event.round, event.data.get("client")) for event in events if event.kind == kind]


class Tampering(Attack):
    """Changes one field of every message."""

    def __init__(self, **changes):
        self.changes = changes

    def tamper(self, update, rng):
        return dataclasses.replace(update, **self.changes)


class Scripted:
    """A judge that quarantines whom it is told to, and may fail."""

    digest, bound, gives_verdicts, channels = "scripted", 0.5, True, ("mark",)

    def __init__(self, script):
        self.script = script  # per round the quarantined clients, or an exception

    def init(self, layout):
        return {"judged": 0}

    def judge(self, cohort, state):
        step = self.script[cohort.spec.round]
        if isinstance(step, Exception):
            raise step
        verdicts = tuple(
            Verdict(unit, 0.0, Status.QUARANTINED, {"mark": 2.0}, "told to")
            if unit in step
            else Verdict(unit, 1.0, Status.ACCEPTED)
            for unit in cohort.ids
        )
        kept = [i for i, unit in enumerate(cohort.ids) if unit not in step]
        return Judgement(cohort.X.dense()[kept].mean(axis=0), verdicts), {"judged": state["judged"] + 1}


@pytest.mark.parametrize(
    "rule", [{"aggregator": "mean"}, {"mode": "mode0", "aggregator": None}, {"mode": "mode1", "aggregator": None}]
)
def test_the_same_seed_gives_the_same_result_and_another_seed_another(rule):
    first, again, other = run(**rule), run(**rule), run(**rule, seed=2)
    assert comparable(first) == comparable(again)
    assert first.params.tobytes() == again.params.tobytes()
    assert first.params.tobytes() != other.params.tobytes()
    assert first.malicious != other.malicious


def test_linear_algebra_runs_on_one_thread_while_rounds_run():
    seen = []

    class Watching(Plain):
        def judge(self, cohort, state):
            seen.extend(library["num_threads"] for library in threadpoolctl.threadpool_info())
            return super().judge(cohort, state)

    run(mode=Watching(), aggregator=None)
    assert seen
    assert set(seen) == {1}


def test_the_number_of_threads_changes_nothing():
    code = (
        "import matl; r = matl.simulate(dataset='synthetic', clients=6, rounds=1, mode='mode1', seed=3,"
        " task={'name': 'mlp', 'hidden': (128,)}); print(r.as_dict()['model_hash'], r.tpr, r.fpr, r.accuracy)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(outputs) == 1


def test_streams_depend_on_seed_purpose_and_path_alone():
    draws = {
        stream(*key).integers(2**60)
        for key in [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 1), (0, "a", 1, 0)]
    }
    assert len(draws) == 7
    seeds = {derive_seed(0, "judge", t) for t in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_resuming_from_a_stored_state_gives_the_same_run():
    sim = simulation(Alie(), matl.Mode0(bound=0.4))
    whole = play(sim)[2]
    _, state = next(iter(sim.run(sim.init())))
    resumed = play(sim, unpack(pack(state)))[2]
    for row in whole["history"] + resumed["history"]:
        row["seconds"] = 0.0
    assert pack(whole) == pack(resumed)


def test_only_omniscient_adversaries_see_honest_updates():
    views = []

    class Watching(Attack):
        def craft(self, view, rng):
            views.append(view)
            return view.own

    class Omniscient(Watching):
        knowledge = Alie.knowledge

    sim = simulation(Watching())
    play(sim)
    assert [view.round for view in views] == [0, 1, 2]
    assert all(view.honest is None and view.own.shape == (3, 15) and view.clients == 8 for view in views)
    views.clear()
    play(dataclasses.replace(sim, attack=Omniscient()))
    assert all(view.honest.shape == (5, 15) for view in views)
    views.clear()
    play(dataclasses.replace(sim, attack=Sleeper(Omniscient(), 1)))
    assert [(view.round, view.honest.shape) for view in views] == [(1, (5, 15)), (2, (5, 15))]


def test_what_an_attack_is_shown_is_what_honest_training_gave():
    views, rows = [], []

    class Watching(Attack):
        knowledge = Alie.knowledge

        def craft(self, view, rng):
            views.append(view)
            return -view.own

    class Keeping(Plain):
        def judge(self, cohort, state):
            rows.append(cohort.X.dense())
            return super().judge(cohort, state)

    sim = simulation(Watching(), Keeping(), rounds=1)
    play(sim)
    play(dataclasses.replace(sim, attack=None))
    liars = sorted(sim.population.malicious)
    attacked, honest = rows
    np.testing.assert_array_equal(views[0].own, honest[liars])
    np.testing.assert_array_equal(views[0].honest, np.delete(honest, liars, axis=0))
    np.testing.assert_array_equal(attacked[liars], -honest[liars])
    np.testing.assert_array_equal(np.delete(attacked, liars, axis=0), views[0].honest)


def test_poisoned_data_is_the_same_every_round_and_the_client_keeps_its_own():
    seen = []

    class Relabel(Attack):
        def poison(self, X, y, num_classes, rng):
            fresh = rng.integers(num_classes, size=len(y))
            seen.append(fresh.tolist())
            return X, fresh

    sim = simulation(Relabel())
    before = [client.y.copy() for client in sim.population.data.clients]
    play(sim)
    assert len(seen) == 9
    assert seen[:3] == seen[3:6] == seen[6:]
    assert all(np.array_equal(a, b.y) for a, b in zip(before, sim.population.data.clients, strict=True))


def test_malformed_messages_are_all_rejected_and_the_round_goes_on():
    sim = simulation(Malformed(), Plain(), rounds=12)
    reports, events, _ = play(sim)
    liars = sim.population.malicious_ids
    for report in reports:
        rejected = {row.client for row in report.verdicts if row.status is Status.REJECTED}
        assert rejected == liars
        assert report.record.rejected == 3
        assert report.record.accepted == 5
        assert report.record.failure == ""
    reasons = {row.reason.split(":")[0] for report in reports for row in report.verdicts if row.status == "rejected"}
    assert (
        len(reasons) == 6
    )  # every kind of garbage: 36 messages miss one with probability 6 (5/6)^36 < 1 %, fixed seed
    assert len(told(events, "update_rejected")) == 36
    # To the others it is as if the malicious clients were not there, but for the clients' own draws.
    honest = play(honest_only(sim))[2]
    assert honest["workload"]["params"].tobytes() == play(sim)[2]["workload"]["params"].tobytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "client-000"},
        {"client_id": "client-007"},
        {"client_id": "somebody else"},
        {"client_id": 5},
        {"client_id": None},
        {"payload": None},
        {"payload": {}},
        {"num_examples": 10**12},
        {"base_version": 10**30},
    ],
    ids=str,
)
def test_a_tampered_envelope_is_held_against_its_sender_alone(changes):
    sim = simulation(Tampering(**changes), rounds=1)
    liars = sim.population.malicious_ids
    report = play(sim)[0][0]
    honest_name = changes.get("client_id") not in liars
    rejected = [row.client for row in report.verdicts if row.status is Status.REJECTED]
    assert set(rejected) <= liars
    assert len(rejected) == len(liars) - (not honest_name)  # a client may call itself by its own name
    assert sorted(row.client for row in report.verdicts) == list(sim.population.ids)


def test_a_model_that_an_attack_blew_up_ends_no_run():
    class Huge(Attack):
        def craft(self, view, rng):
            return np.full_like(view.own, 3e38)

    reports, _, state = play(simulation(Huge(), rounds=4))
    assert len(reports) == 4
    assert np.isfinite(state["workload"]["params"]).all()
    assert all(np.isfinite(report.record.aggregate_norm) for report in reports)


def test_rounds_without_a_valid_update_fail_and_the_run_ends_normally():
    everyone = dataclasses.replace(simulation(Malformed()), attack=Malformed())
    population = dataclasses.replace(everyone.population, malicious=frozenset(range(8)))
    sim = dataclasses.replace(everyone, population=population)
    reports, events, state = play(sim)
    assert [report.record.failure for report in reports] == ["no update passed screening"] * 3
    assert [report.record.rejected for report in reports] == [8] * 3
    assert [report.record.false_positive_rate for report in reports] == [None] * 3
    assert [event.data["reason"] for event in events if event.kind == "round_failed"] == [
        "no update passed screening"
    ] * 3
    np.testing.assert_array_equal(state["workload"]["params"], sim.init()["workload"]["params"])


def test_a_round_the_judge_cannot_decide_fails_alone_and_releases_nobody():
    mode = Scripted([{"client-001"}, BoundError("too few"), set(), {"client-001"}])
    reports, events, state = play(simulation(mode=mode, rounds=4))
    assert [report.record.failure for report in reports] == ["", "too few", "", ""]
    failed = {row.client: row for row in reports[1].verdicts}
    assert failed["client-001"].status is Status.QUARANTINED
    assert failed["client-002"].status is Status.ACCEPTED
    assert {row.weight for row in failed.values()} == {0.0}
    assert {row.reason for row in failed.values()} == {"round failed: too few"}
    assert reports[1].record.aggregate_norm == 0.0
    assert told(events, "client_quarantined") == [(0, "client-001"), (3, "client-001")]
    assert told(events, "client_released") == [(2, "client-001")]
    assert [event.round for event in events if event.kind == "round_committed"] == [0, 1, 2, 3]
    assert state["workload"]["mode"] == {"judged": 3}
    assert state["statuses"]["client-001"] == "quarantined"


def test_rates_are_of_the_clients_in_the_round():
    mode = Scripted([{"client-001", "client-002"}])
    sim = simulation(Attack(), mode, rounds=1)
    sim = dataclasses.replace(sim, population=dataclasses.replace(sim.population, malicious=frozenset({1, 5, 6, 7})))
    record = play(sim)[0][0].record
    assert (record.true_positive_rate, record.false_positive_rate) == (0.25, 0.25)
    assert (record.accepted, record.quarantined) == (6, 2)


@pytest.mark.parametrize(("share", "count"), [(1.0, 8), (0.5, 4), (0.3, 2), (0.01, 1)])
def test_a_share_of_the_clients_takes_part(share, count):
    reports, _, state = play(simulation(participation=share, rounds=6))
    drawn = [tuple(row.client for row in report.verdicts) for report in reports]
    assert {len(set(clients)) for clients in drawn} == {count}
    assert (len(set(drawn)) > 1) == (count < 8)
    assert set(state["statuses"]) == {client for clients in drawn for client in clients}


def test_honest_only_leaves_the_malicious_out_and_judges_nobody():
    sim = honest_only(simulation(Alie(), Scripted([])))
    reports, _, _ = play(sim)
    honest = set(sim.population.ids) - sim.population.malicious_ids
    assert all({row.client for row in report.verdicts} == honest for report in reports)
    assert sim.attack is None
    assert sim.workload.mode == Plain(Mean())
    with pytest.raises(InvalidValueError, match="at least one honest client"):
        dataclasses.replace(sim, population=dataclasses.replace(sim.population, malicious=frozenset(range(8))))


@pytest.mark.parametrize("changes", [{"rounds": 0}, {"participation": 0.0}, {"participation": 1.5}])
def test_impossible_simulations_are_refused(changes):
    with pytest.raises(InvalidValueError, match=next(iter(changes))):
        dataclasses.replace(simulation(), **changes)


def test_the_time_of_arrival_is_the_hosts_to_say():
    times = []

    class Keeping(Plain):
        def judge(self, cohort, state):
            times.append(cohort.received_at)
            return super().judge(cohort, state)

    play(simulation(Tampering(received_at=float("nan")), Keeping(), rounds=1))
    play(simulation(Attack(), Keeping(), rounds=1))
    np.testing.assert_array_equal(times[0], times[1])


def test_what_clients_sent_is_let_go_before_the_judge_works(monkeypatch):
    sent, left = [], []
    real = Trainer.train

    def train(self, *args):
        updates = real(self, *args)
        sent.append(weakref.ref(updates))
        return updates

    class Watching(Scripted):
        def judge(self, cohort, state):
            left.append(sent[-1]())
            return super().judge(cohort, state)

    monkeypatch.setattr(Trainer, "train", train)
    play(simulation(mode=Watching([set()] * 3)))
    assert left == [None] * 3


def test_an_attack_that_returns_the_wrong_shape_is_told_so():
    class OneRow(Attack):
        def craft(self, view, rng):
            return view.own[0]

    with pytest.raises(InvalidValueError, match=r"OneRow.craft must return one row per malicious client"):
        play(simulation(OneRow(), rounds=1))


def test_training_that_diverges_fails_the_rounds_and_says_what_to_do():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    X = 1e6 * (rng.normal(size=(300, 5)) + np.eye(3, 5)[y])
    result = matl.simulate(dataset=(X, y), clients=6, root_size=12, rounds=2, seed=1, attack="none", mode="mode1")
    assert result.failed_rounds == 2
    assert any(words in result.history[-1]["failure"] for words in ("diverged", "no update passed screening"))


STATEFUL = ["scaffold", "feddyn"]


@pytest.mark.parametrize("optimizer", STATEFUL)
def test_what_clients_remember_is_part_of_the_state(optimizer):
    sim = simulation(server_optimizer=optimizer, participation=0.5, rounds=4)
    whole = play(sim)[2]
    rounds, state = sim.run(sim.init()), None
    for _ in range(2):
        _, state = next(rounds)
    before = pack(state)
    resumed = play(sim, unpack(before))[2]
    assert resumed["memory"].tobytes() == whole["memory"].tobytes()
    assert resumed["workload"]["params"].tobytes() == whole["workload"]["params"].tobytes()
    assert pack(state) == before  # the round after made a copy
    forgetful = play(sim, unpack(before) | {"memory": np.zeros_like(state["memory"])})[2]
    assert forgetful["workload"]["params"].tobytes() != whole["workload"]["params"].tobytes()


@pytest.mark.parametrize("optimizer", STATEFUL)
def test_a_client_whose_update_did_not_count_keeps_what_it_remembers(optimizer):
    """What the server knows of the memories and what they are would part for ever otherwise."""
    mode = Scripted([set(), {"client-003"}, BoundError("too few"), set()])
    sim = simulation(mode=mode, server_optimizer=optimizer, rounds=4)
    states = [state for _, state in sim.run(sim.init())]
    memory = [state["memory"] for state in states]
    changed = [np.flatnonzero((a != b).any(axis=1)).tolist() for a, b in itertools.pairwise(memory)]
    assert changed == [[0, 1, 2, 4, 5, 6, 7], [], [*range(8)]]
    # The judge takes the plain mean of those it keeps.
    name = {"scaffold": "control", "feddyn": "drift"}[optimizer]
    for state in states:
        known = state["workload"]["optimizer"][name]
        np.testing.assert_allclose(known, state["memory"].mean(axis=0), rtol=1e-3, atol=1e-5)


def test_diverged_training_is_not_remembered():
    sim = simulation(server_optimizer="scaffold", rounds=2, local={"learning_rate": 1e30, "steps": 8})
    reports, _, state = play(sim)
    assert any(report.record.rejected for report in reports)
    assert np.isfinite(state["memory"]).all()


def test_only_stateful_algorithms_keep_memories():
    assert "memory" not in play(simulation(rounds=1))[2]


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_optimiser_is_told_which_share_of_all_clients_counted(share, monkeypatch):
    told = []
    real = ServerSGD.step

    def step(self, params, aggregate, state, summary):
        told.append(summary.participation)
        return real(self, params, aggregate, state, summary)

    monkeypatch.setattr(ServerSGD, "step", step)
    mode = Scripted([{"client-003"}])
    sim = simulation(Attack(), mode, participation=share, rounds=1)
    play(sim)
    play(honest_only(sim))
    honest = 8 - len(sim.population.malicious)
    assert told[1] == max(1, round(share * honest)) / honest  # of those that the ceiling has
    taking_part = sim._participants(0)
    assert told[0] == (len(taking_part) - (3 in taking_part)) / 8
