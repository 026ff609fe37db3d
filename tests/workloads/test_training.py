"""Training as a host runs it: plan, screen, judge, step; and what hostile messages cannot do."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.aggregators import Krum, Median
from matl.errors import InvalidValueError
from matl.learning.local import LocalTraining
from matl.learning.server import FedAvgM, FedDyn, FedNova, Scaffold, ServerOptimizer, ServerSGD
from matl.modes import Mode0, Plain
from matl.params import ParamLayout, values_hash
from matl.records import Judgement, Rejection, Status, Update, Verdict
from matl.screening import largest_payload
from matl.state import pack, unpack
from matl.workloads import Accepted, TrainingWorkload

D = 6
LAYOUT = ParamLayout.of({"w": np.zeros(D, np.float32)})
START = np.arange(D, dtype=np.float32)


def workload(**changes):
    return TrainingWorkload(**{"mode": Plain(), "layout": LAYOUT, "run": "r", **changes})


def message(client, value, spec, **changes):
    sent = Update(
        client_id=client,
        run=spec.run,
        round=spec.round,
        base_version=spec.round,
        model_hash=spec.model_hash,
        payload={"w": np.full(D, value, np.float32)},
        num_examples=10,
    )
    return dataclasses.replace(sent, **changes)


def arrive(work, state, messages, *, seed=0, verify=None):
    """Screen messages and judge what is left; returns (outcome, state, rejections, cohort)."""
    spec = work.plan(state)
    accepted, rejections, seen = [], [], set()
    for sent in messages:
        result = work.screen(sent, spec, state, seen=seen, verify=verify)
        if isinstance(result, Accepted):
            seen.add(result.update.client_id)
            accepted.append(result)
        else:
            rejections.append(result)
    cohort = work.cohort(accepted, spec, state, seed=seed)
    outcome, after = work.reduce(cohort, state)
    return outcome, after, rejections, cohort


def test_a_round_moves_the_model_by_the_aggregate_and_records_what_went_in():
    work = workload(
        optimizer=ServerSGD(0.5),
        recipe=LocalTraining(steps=1),
        max_norm=99.0,
        max_examples=50,
        config_digest="c",
        max_staleness=1,
    )
    state = work.init(START)
    spec = work.plan(state)
    assert (spec.round, spec.run, spec.max_norm, spec.max_examples) == (0, "r", 99.0, 50)
    assert (spec.recipe["steps"], spec.config_digest, spec.max_staleness) == (1, "c", 1)
    assert spec.layout_hash == LAYOUT.digest
    assert spec.model_hash == values_hash(START)
    outcome, after, rejections, _ = arrive(work, state, [message("b", 1, spec), message("a", 3, spec)])
    assert not rejections
    np.testing.assert_array_equal(after["params"], START + 1)
    assert after["round"] == 1
    assert outcome.failure == ""
    assert outcome.judgement.digests == {
        "mode": Plain().digest,
        "model_before": values_hash(START),
        "model_after": values_hash(after["params"]),
    }
    assert work.plan(after).model_hash == values_hash(after["params"])
    assert state["round"] == 0  # a function of its state, which it leaves alone


def test_state_survives_storage_between_rounds():
    work = workload(mode=Mode0(bound=0.3), optimizer=FedAvgM())
    state = stored = work.init(START)
    for number in range(3):
        spec = work.plan(state)
        messages = [message(f"c{i}", number + i, spec) for i in range(6)]
        _, state, _, _ = arrive(work, state, messages)
        _, stored, _, _ = arrive(work, unpack(pack(stored)), messages)
    assert pack(state) == pack(stored)


def test_the_cohort_is_in_the_order_of_ids_whatever_the_order_of_arrival():
    work = workload()
    state = work.init(START)
    spec = work.plan(state)
    messages = [message(name, i, spec, received_at=float(i), num_examples=i + 1) for i, name in enumerate("dacb")]
    _, _, _, cohort = arrive(work, state, messages, seed=5)
    _, _, _, other = arrive(work, state, messages[::-1], seed=5)
    assert cohort.ids == other.ids == ("a", "b", "c", "d")
    assert cohort.X.dense()[:, 0].tolist() == other.X.dense()[:, 0].tolist() == [1, 3, 2, 0]
    assert cohort.received_at.tolist() == [1, 3, 2, 0]
    assert cohort.weights.tolist() == [2, 4, 3, 1]
    assert cohort.seed == 5


@pytest.mark.parametrize(("bound", "n", "f"), [(0.0, 5, 0), (0.4, 10, 4), (0.3, 10, 3), (0.29, 100, 29), (1.0, 4, 3)])
def test_the_bound_is_a_whole_number_of_clients(bound, n, f):
    work = workload(mode=Plain(Median(), bound=bound))
    state = work.init(START)
    _, _, _, cohort = arrive(work, state, [message(f"{i:03}", i, work.plan(state)) for i in range(n)])
    assert cohort.max_byzantine == f


def test_example_counts_are_capped_at_a_multiple_of_the_median():
    work = workload(weight_cap=2.0)
    state = work.init(START)
    counts = [10, 20, 30, 999_999, None]
    messages = [message(f"c{i}", 0, work.plan(state), num_examples=count) for i, count in enumerate(counts)]
    _, _, _, cohort = arrive(work, state, messages)
    assert cohort.weights.tolist() == [10, 20, 30, 50, 25]
    assert cohort.examples.tolist() == [
        10,
        20,
        30,
        999_999,
        25,
    ]  # and not what it counts for
    _, _, _, cohort = arrive(work, state, [dataclasses.replace(sent, num_examples=None) for sent in messages])
    assert cohort.weights.tolist() == [1] * 5


def test_a_client_that_gives_no_count_does_not_change_the_weight_of_the_others():
    work = workload()
    state = work.init(START)
    honest = [message(f"c{i}", 0, work.plan(state), num_examples=10 + i) for i in range(5)]
    before = arrive(work, state, honest)[3].weights
    silent = message("z", 0, work.plan(state), num_examples=None)
    after = arrive(work, state, [*honest, silent])[3].weights
    assert after.tolist() == [*before.tolist(), 12.0]


HOSTILE = {
    "nan": {"payload": {"w": np.full(D, np.nan, np.float32)}},
    "infinity": {"payload": {"w": np.full(D, np.inf, np.float32)}},
    "wrong shape": {"payload": {"w": np.zeros((D, 1), np.float32)}},
    "wrong dtype": {"payload": {"w": np.zeros(D, np.int64)}},
    "names": {"payload": {"v": np.zeros(D, np.float32)}},
    "bytes": {"payload": b"garbage", "payload_sha256": "00"},
    "examples": {"num_examples": 10**12},
    "no examples": {"num_examples": 0},
    "other run": {"run": "s"},
    "other round": {"round": 7},
    "future": {"base_version": 1},
    "model": {"model_hash": "0" * 64},
    "kind": {"kind": "masked"},
    "late": {"received_at": float("nan")},
    "no name": {"client_id": 5},
    "long": {"payload": {"w": np.full(D, 1e6, np.float32)}},
}


@pytest.mark.parametrize("mode", [Plain(Median(), bound=0.3), Mode0(bound=0.3)], ids=["median", "mode0"])
@given(kinds=st.lists(st.sampled_from(sorted(HOSTILE)), max_size=4), places=st.randoms(use_true_random=False))
def test_hostile_messages_change_nobody_elses_verdict(mode, kinds, places):
    work = workload(mode=mode, max_norm=1000.0)
    state = work.init(START)
    spec = work.plan(state)
    honest = [message(f"c{i}", 1 + i / 10, spec) for i in range(6)]
    mixed = honest + [message(f"x{i}", 1, spec, **HOSTILE[kind]) for i, kind in enumerate(kinds)]
    places.shuffle(mixed)
    alone, state_alone, _, _ = arrive(work, state, honest)
    among, state_among, rejections, _ = arrive(work, state, mixed)
    assert len(rejections) == len(kinds)
    assert among.judgement.verdicts == alone.judgement.verdicts
    np.testing.assert_array_equal(among.judgement.aggregate, alone.judgement.aggregate)
    assert pack(state_among) == pack(state_alone)


def test_second_message_of_a_client_is_a_duplicate_and_a_forged_one_has_no_signature():
    work = workload()
    state = work.init(START)
    spec = work.plan(state)
    outcome, _, rejections, _ = arrive(work, state, [message("a", 1, spec), message("a", 99, spec)])
    assert [r.code for r in rejections] == ["duplicate"]
    assert outcome.judgement.aggregate.tolist() == [1] * D
    _, _, rejections, _ = arrive(work, state, [message("a", 1, spec)], verify=lambda _: Rejection("a", "signature", ""))
    assert [r.code for r in rejections] == ["signature"]


def test_stale_updates_count_as_far_back_as_the_round_allows():
    work = workload(max_staleness=1)
    state = work.init(START)
    first = work.plan(state)
    _, state, _, _ = arrive(work, state, [message("a", 1, first)])
    second = work.plan(state)
    _, state, _, _ = arrive(work, state, [message("a", 1, second)])
    third = work.plan(state)
    late = [
        message("a", 1, third),
        message("b", 1, third, base_version=np.uint8(1), model_hash=second.model_hash),
        message("c", 1, third, base_version=0, model_hash=first.model_hash),
        message("d", 1, third, base_version=1),  # the model it says it started from is not that version's
    ]
    _, state, rejections, cohort = arrive(work, state, late)
    assert cohort.staleness.tolist() == [0, 1]
    assert cohort.weights[1] == pytest.approx(cohort.weights[0] / np.sqrt(2))
    assert cohort.examples[1] == cohort.examples[0]
    assert [(r.client_id, r.code) for r in rejections] == [("c", "stale"), ("d", "model_hash")]
    assert sorted(state["model_hashes"]) == ["2", "3"]  # bounded, however long the run


def fails(work, messages, reason):
    state = work.init(START)
    outcome, after, _, _ = arrive(work, state, [message(f"c{i}", v, work.plan(state)) for i, v in enumerate(messages)])
    assert outcome.judgement is None
    assert reason in outcome.failure
    np.testing.assert_array_equal(after["params"], START)
    assert after["round"] == 1
    assert after["mode"] == state["mode"]
    return after


def test_a_round_without_updates_fails_and_the_next_goes_on():
    work = workload()
    after = fails(work, [np.nan, np.inf], "no update passed screening")
    assert work.plan(after).model_hash == values_hash(START)
    outcome, after, _, _ = arrive(work, after, [message("a", 1, work.plan(after))])
    assert outcome.judgement is not None
    np.testing.assert_array_equal(after["params"], START + 1)


def test_a_round_too_small_for_the_rule_fails_with_the_rules_own_words():
    fails(workload(mode=Plain(Krum(f=2))), [1, 2, 3], "Krum with n=3 clients tolerates")


def test_an_aggregate_that_makes_the_model_overflow_fails_the_round():
    work = workload(optimizer=ServerSGD(1e30))
    fails(work, [1e17], "overflow")


@pytest.mark.parametrize(
    "changes",
    [{"weight_cap": 0.5}, {"max_examples": 0}, {"max_norm": 0.0}, {"max_staleness": -1}],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(InvalidValueError, match=next(iter(changes))):
        workload(**changes)


def test_initial_parameters_have_to_fit_the_model():
    with pytest.raises(InvalidValueError, match=r"params of shape \(6,\), got shape \(5,\)"):
        workload().init(np.zeros(5, np.float32))


def test_a_rejection_names_its_sender():
    work = workload()
    state = work.init(START)
    result = work.screen(message("eve", np.nan, work.plan(state)), work.plan(state), state, seen=set())
    assert isinstance(result, Rejection)
    assert (result.client_id, result.code) == ("eve", "not_finite")


def test_oversized_bytes_are_refused_and_a_payload_is_not_kept_beside_its_row():
    work = workload()
    state = work.init(START)
    spec = work.plan(state)
    huge = message("a", 1.0, spec, payload=b"x" * (largest_payload(LAYOUT) + 1))
    rejection = work.screen(huge, spec, state, seen=set())
    assert "the model needs at most" in rejection.reason
    accepted = work.screen(message("a", 1.0, spec), spec, state, seen=set())
    assert accepted.update.payload == ()
    assert accepted.row.tolist() == [1.0] * D


class Watching(ServerOptimizer):
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def step(self, params, aggregate, state, summary):
        self.told.append(summary)
        return params, state


class Weighing(Plain):
    """Gives weights to clients by name."""

    def __init__(self, **weights):
        super().__init__()
        object.__setattr__(self, "weights", weights)

    def judge(self, cohort, state):
        verdicts = tuple(Verdict(unit, self.weights.get(unit, 1.0), Status.ACCEPTED) for unit in cohort.ids)
        return Judgement(cohort.X.dense().mean(axis=0), verdicts), state


def summary_of(lengths, *, counts=None, weights=None, **changes):
    """What the optimiser is told after a round of clients a, b, c, ... whose updates have these norms."""
    watching = Watching()
    work = workload(optimizer=watching, mode=Weighing(**(weights or {})), **changes)
    state = work.init(START)
    spec = work.plan(state)
    messages = [
        message(name, length / np.sqrt(D), spec, num_examples=10 if counts is None else counts[i])
        for i, (name, length) in enumerate(zip("abcdefgh", lengths, strict=False))
    ]
    arrive(work, state, messages)
    [told] = watching.told
    return told


def test_the_optimiser_is_told_the_mean_square_norm_and_no_client_sets_it_alone():
    assert summary_of([1, 2, 3]).mean_square_norm == pytest.approx((1 + 4 + 9) / 3)
    assert summary_of([1, 2, 3], counts=[10, 10, 20]).mean_square_norm == pytest.approx((1 + 4 + 2 * 9) / 4)
    assert summary_of([1, 2, 3, 2, 1e6]).mean_square_norm == pytest.approx((1 + 4 + 9 + 4 + 36) / 5)  # 3 times 2
    assert summary_of([1, 2, 3, 2, 1e18]).mean_square_norm == pytest.approx((1 + 4 + 9 + 4 + 36) / 5)


def test_only_units_that_counted_are_told_of():
    told = summary_of([1, 2, 3, 1e6, 1e6], weights={"d": 0.0, "e": 0.0}, clients=10)
    assert told.mean_square_norm == pytest.approx((1 + 4 + 9) / 3)
    assert told.participation == 0.3
    lengthy = summary_of([1, 2, 9, 100, 100], weights={"d": 0.0, "e": 0.0})
    assert lengthy.mean_square_norm == pytest.approx((1 + 4 + 36) / 3)  # nor do they set what is long
    half = summary_of([1, 2, 3], weights={"a": 0.5, "b": 0.5})
    assert half.mean_square_norm == pytest.approx((0.5 * 1 + 0.5 * 4 + 9) / 2)
    assert summary_of([1, 3], weights={"a": 0.0, "b": 0.0}).mean_square_norm == pytest.approx(5)  # nobody: all alike


def test_participation_is_of_all_clients_where_they_are_known():
    assert summary_of([1, 2, 3]).participation == 1
    assert summary_of([1, 2, 3], clients=12).participation == 0.25
    assert summary_of([1, 2, 3], clients=2).participation == 1  # more came than were known


def test_steps_follow_from_the_counts_that_clients_claim_and_these_are_capped():
    epochs = LocalTraining(steps=None, epochs=2, batch_size=5, learning_rate=0.3)
    told = summary_of([1, 1, 1], counts=[10, 20, 30], recipe=epochs)
    assert told.mean_steps == pytest.approx((10 * 4 + 20 * 8 + 30 * 12) / 60)
    assert told.learning_rate == 0.3
    boasting = summary_of([1, 1, 1], counts=[10, 10, 900_000], recipe=epochs)  # counts as thirty, three times ten
    assert boasting.mean_steps == pytest.approx((10 * 4 + 10 * 4 + 30 * 12) / 50)
    assert summary_of([1, 1, 1], counts=[10, 20, 30], recipe=LocalTraining(steps=7)).mean_steps == 7


@pytest.mark.parametrize(
    ("optimizer", "recipe", "message"),
    [
        (FedNova(), {}, "FedNova needs clients with normalize=True, got a recipe with normalize=False"),
        (Scaffold(), {"normalize": True, "momentum": 0.5}, "Scaffold needs clients with momentum=0.0"),
        (
            FedDyn(alpha=0.3),
            {"proximal": 0.1},
            r"FedDyn needs clients with proximal=0\.3, got a recipe with proximal=0\.1",
        ),
    ],
    ids=["fednova", "scaffold", "feddyn"],
)
def test_an_optimiser_gets_the_recipe_it_needs_or_nothing(optimizer, recipe, message):
    with pytest.raises(InvalidValueError, match=message):
        workload(optimizer=optimizer, recipe=LocalTraining(**recipe))
    workload(optimizer=optimizer, recipe=LocalTraining(**{**recipe, **optimizer.recipe}))


def test_rows_may_stay_on_a_disk_and_are_read_one_at_a_time(tmp_path):
    work = workload()
    state = work.init(START)
    spec = work.plan(state)
    alive = 0

    class Row(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    class OnDisk:
        def __init__(self, number):
            self.update = message(f"client-{number}", 0.0, spec)
            np.save(tmp_path / f"{number}.npy", np.full(D, number, np.float32))
            self.number = number

        @property
        def row(self):
            nonlocal alive
            alive += 1
            assert alive <= 2
            return np.load(tmp_path / f"{self.number}.npy").view(Row)

    def in_a_file(shape):
        return np.memmap(tmp_path / "matrix", np.float32, "w+", shape=shape)

    cohort = work.cohort([OnDisk(number) for number in range(9, -1, -1)], spec, state, seed=0, allocate=in_a_file)
    written = np.memmap(tmp_path / "matrix", np.float32, "r", shape=(10, D))
    assert np.shares_memory(next(cohort.X.shards())[0], cohort.X.dense())
    np.testing.assert_array_equal(written, cohort.X.dense())
    np.testing.assert_array_equal(cohort.X.dense()[:, 0], np.arange(10))


def test_what_was_asked_is_still_known_of_the_models_that_updates_may_start_from():
    work = workload(max_staleness=1)
    state = work.init(START)
    first = work.plan(state)
    for _ in range(2):
        _, state, _, _ = arrive(work, state, [message("a", 1.0, work.plan(state))])
    assert work.plan(state, 2) == work.plan(state)
    assert work.plan(state, 1).model_hash != work.plan(state).model_hash
    with pytest.raises(InvalidValueError, match=r"start from \(1, 2\), got 0"):
        work.plan(state, first.round)


def test_an_older_update_counts_less():
    work = workload(max_staleness=3)
    state = work.init(START)
    old = message("old", 4.0, work.plan(state))
    for _ in range(3):
        _, state, _, _ = arrive(work, state, [message("a", 1.0, work.plan(state))])
    spec = work.plan(state)
    _, _, _, cohort = arrive(work, state, [dataclasses.replace(old, round=spec.round), message("young", 1.0, spec)])
    assert cohort.ids == ("old", "young")
    np.testing.assert_allclose(cohort.weights, [5.0, 10.0])
