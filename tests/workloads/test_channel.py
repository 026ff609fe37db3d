"""What the judge is shown of updates that travelled in each way, and what hostile payloads come to."""

import hashlib
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from matl.codec import CODECS, BlockLayout
from matl.errors import InvalidValueError
from matl.learning.server import FedNova, Scaffold
from matl.modes import Plain
from matl.params import ParamLayout
from matl.privacy.certificate import Instance
from matl.privacy.clipping import AdaptiveClip
from matl.privacy.encoder import Encoder
from matl.privacy.mechanism import Central, Distributed
from matl.privacy.table import skellam_table
from matl.records import Rejection, Update, Visibility
from matl.workloads import Clear, Encoded, Private, Sender, TrainingWorkload

LAYOUT = ParamLayout.of({"w": np.zeros((40, 20), np.float32), "b": np.zeros(20, np.float32)})
CLIENTS = 12
INSTANCE = Instance(
    8, skellam_table("1/2").counts, 40, 4, Fraction(1, 2), Fraction(4), 30, Fraction(1, 1000), orders=((1, 8),), cells=1
)
DISTRIBUTED = Distributed(Encoder(INSTANCE, BlockLayout(LAYOUT.size, block=64), 1.0))
CENTRAL = Central(LAYOUT.size, 1.0, Fraction(1, 8))
UPDATES = np.random.default_rng(0).normal(size=(CLIENTS, LAYOUT.size)).astype(np.float32)
UPDATES *= 0.9 / np.linalg.norm(UPDATES, axis=1, keepdims=True)


def workload(channel):
    return TrainingWorkload(Plain(), LAYOUT, run="r", channel=channel, public_seed=5)


def message(work, state, index, state_of_client=None):
    spec = work.plan(state)
    sender = Sender(f"client-{index:02d}", state_of_client or {}, bytes([index] * 32))
    payload, kept = work.channel.pack(UPDATES[index], spec, LAYOUT, sender)
    sha = None
    if isinstance(payload, bytes):
        sha = hashlib.sha256(payload).hexdigest()
    update = Update(
        client_id=f"client-{index:02d}", run="r", round=spec.round, base_version=spec.round, kind=spec.kind,
        model_hash=spec.model_hash, payload=payload, payload_sha256=sha,
        num_examples=10 + index if work.channel.tells_examples else None, received_at=float(index),
    )  # fmt: skip
    return update, kept


def gathered(channel, change=lambda update: update):
    """The cohort of a round in which every update is changed on its way, and the rejections."""
    work = workload(channel)
    state = work.init(np.zeros(LAYOUT.size, np.float32))
    spec, seen = work.plan(state), set()
    results = [work.screen(change(message(work, state, i)[0]), spec, state, seen=seen) for i in range(CLIENTS)]
    accepted = [result for result in results if not isinstance(result, Rejection)]
    return work.cohort(accepted, spec, state, seed=1), [r for r in results if isinstance(r, Rejection)], accepted


def test_in_the_clear_the_judge_sees_every_update_as_it_was():
    cohort, rejections, accepted = gathered(Clear())
    np.testing.assert_array_equal(cohort.X.dense(), UPDATES)
    assert not rejections
    assert {item.payload_bytes for item in accepted} == {4 * LAYOUT.size}
    assert cohort.weights.tolist() == [10.0 + i for i in range(CLIENTS)]


@pytest.mark.parametrize(("spec", "bits", "error"), [("int8", 12, 0.02), ({"name": "rotated", "step": 1.0}, 5, 0.5)])
def test_a_codec_makes_payloads_small_and_changes_updates_little(spec, bits, error):
    cohort, _, accepted = gathered(Encoded(CODECS.create(spec)))
    assert np.linalg.norm(cohort.X.dense() - UPDATES, axis=1).max() < error
    assert np.mean([8 * item.payload_bytes for item in accepted]) < bits * LAYOUT.size
    assert cohort.spec.codec != "safetensors"


def test_what_a_codec_lost_is_remembered_and_sent_later():
    work = workload(Encoded(CODECS.create({"name": "topk", "fraction": 0.05})))
    state = work.init(np.zeros(LAYOUT.size, np.float32))
    first, kept = message(work, state, 0)
    second, _ = message(work, state, 0, kept)
    assert kept
    assert first.payload != second.payload


@pytest.mark.parametrize("mechanism", [DISTRIBUTED, CENTRAL], ids=lambda mechanism: type(mechanism).__name__)
def test_of_a_private_sum_the_judge_sees_one_unit_near_the_mean(mechanism):
    cohort, rejections, _ = gathered(Private(mechanism))
    assert not rejections
    assert cohort.spec.visibility is Visibility.SUMMED
    assert [unit.members for unit in cohort.units] == [tuple(f"client-{i:02d}" for i in range(CLIENTS))]
    assert cohort.weights.tolist() == [CLIENTS]
    noise = 0.125 if mechanism is CENTRAL else np.sqrt(CLIENTS * 0.75) / DISTRIBUTED.encoder.scale
    error = cohort.X.dense()[0] - UPDATES.mean(axis=0)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(noise / CLIENTS, rel=0.2)
    assert cohort.received_at.tolist() == [CLIENTS - 1]


def test_groups_are_drawn_anew_every_round_and_are_units_with_their_members():
    channel = Private(DISTRIBUTED, group_size=4)
    cohort, _, _ = gathered(channel)
    assert cohort.spec.visibility is Visibility.GROUPED
    assert cohort.X.shape == (3, LAYOUT.size)
    assert sorted(member for unit in cohort.units for member in unit.members) == [f"client-{i:02d}" for i in range(12)]
    work = workload(channel)
    state = work.init(np.zeros(LAYOUT.size, np.float32))
    ids = sorted(member for unit in cohort.units for member in unit.members)
    rows = [DISTRIBUTED.encode(update, 0) for update in UPDATES]
    later = work.channel.units(ids, rows, work.plan(state), seed=99)[0]
    assert {unit.members for unit in later} != {unit.members for unit in cohort.units}


def test_fewer_clients_than_the_guarantee_needs_are_not_decoded():
    few = {f"client-{i:02d}" for i in range(3)}
    for channel in (Private(DISTRIBUTED), Private(DISTRIBUTED, 4)):
        cohort, rejections, accepted = gathered(
            channel, lambda update: update if update.client_id in few else replace(update, payload={})
        )
        assert len(rejections) == CLIENTS - 3 == CLIENTS - len(accepted)
        assert cohort is None
        work = workload(channel)
        outcome, _ = work.reduce(None, work.init(np.zeros(LAYOUT.size, np.float32)))
        assert "fewer than 4 updates passed screening" in outcome.failure


def test_means_of_groups_are_over_their_members():
    clients = 13  # a group of four, one of four, one of five
    ids, rows = [f"c{i:02d}" for i in range(clients)], [CENTRAL.encode(UPDATES[0], 0) for _ in range(clients)]
    spec = workload(Clear()).plan(workload(Clear()).init(np.zeros(LAYOUT.size, np.float32)))
    quiet = Central(LAYOUT.size, 1.0, Fraction(1, 1 << 10), sigma=1 << 10)
    rows = [quiet.encode(UPDATES[0], 0) for _ in ids]
    units, means, _ = Private(quiet, 4).units(ids, rows, spec, seed=1, key=bytes(32))
    assert sorted(len(unit.members) for unit in units) == [4, 4, 5]
    for mean in means:
        assert np.linalg.norm(mean) == pytest.approx(0.9, rel=0.05)


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_words_take_as_many_bits_as_they_have(bits):
    instance = replace(INSTANCE, bits=bits, bound=Fraction(1, 4), squared_norm=Fraction(1, 2))
    mechanism = Distributed(Encoder(instance, BlockLayout(LAYOUT.size, block=64), 1.0))
    cohort, _, accepted = gathered(Private(mechanism))
    kept = mechanism.encoder.layout.kept
    assert {item.payload_bytes for item in accepted} == {-(-kept * bits // 8)}
    assert all(item.row.max() < 1 << bits and item.row.shape == (kept,) for item in accepted)
    assert mechanism.total(item.row for item in accepted).max() < 1 << bits
    assert cohort is not None


def test_example_counts_that_were_not_asked_for_weigh_nothing():
    cohort, _, _ = gathered(Private(DISTRIBUTED, 4), lambda update: replace(update, num_examples=1_000_000))
    assert cohort.weights.tolist() == [4.0, 4.0, 4.0]


@pytest.mark.parametrize("optimizer", [Scaffold(), FedNova()])
def test_server_optimisers_that_need_more_than_updates_are_refused(optimizer):
    with pytest.raises(InvalidValueError, match="no privacy is accounted for"):
        TrainingWorkload(Plain(), LAYOUT, run="r", channel=Private(DISTRIBUTED), optimizer=optimizer)


def test_sampling_is_refused_where_sums_are_divided_by_the_sample():
    with pytest.raises(InvalidValueError, match="without sampling"):
        Private(Central(LAYOUT.size, 1.0, Fraction(1), rate=Fraction(1, 10)))


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({}, "names"),
        ({"words": np.zeros(3, np.uint8)}, "shape"),
        ({"words": np.zeros(832, np.float32)}, "dtype"),
        ({"words": [0] * 832}, "dtype"),
        ({"words": np.zeros(832, np.uint8), "loss": np.zeros(1)}, "names"),
        ([np.zeros(832, np.uint8)], "names"),
    ],
)
def test_payloads_that_are_no_words_are_rejected(payload, code):
    cohort, rejections, _ = gathered(Private(DISTRIBUTED), lambda update: replace(update, payload=payload))
    assert cohort is None
    assert {rejection.code for rejection in rejections} == {code}


def test_bytes_that_no_codec_made_are_rejected():

    junk = b"junk"
    changed = {"payload": junk, "payload_sha256": hashlib.sha256(junk).hexdigest()}
    cohort, rejections, _ = gathered(Encoded(CODECS.create("int8")), lambda update: replace(update, **changed))
    assert cohort is None
    assert {rejection.code for rejection in rejections} == {"malformed"}


def test_groups_too_small_for_the_guarantee_are_refused():
    with pytest.raises(InvalidValueError, match=r"groups of at least 4 clients.*group_size=3"):
        Private(DISTRIBUTED, group_size=3)
    with pytest.raises(InvalidValueError, match="group_size=0"):
        Private(CENTRAL, group_size=0)


def test_a_median_over_groups_is_spared_what_a_hostile_client_does_to_a_sum():
    def hostile(update):
        spoilt = {"words": np.full(DISTRIBUTED.encoder.layout.kept, 127, np.uint8)}
        return replace(update, payload=spoilt) if update.client_id == "client-03" else update

    (summed, _, _), (grouped, _, _) = (gathered(Private(DISTRIBUTED, size), hostile) for size in (None, 4))
    honest = np.delete(UPDATES, 3, axis=0).mean(axis=0)
    error = np.linalg.norm(summed.X.dense()[0] - honest)
    assert np.linalg.norm(np.median(grouped.X.dense(), axis=0) - honest) < 0.3 * error


def plain_spec(**changes):
    work = workload(Clear())
    return replace(work.plan(work.init(np.zeros(LAYOUT.size, np.float32))), **changes)


@pytest.mark.parametrize("group_size", [None, 5])
@pytest.mark.parametrize("silent", [(), ("client-20", "client-21", "client-22", "client-23")])
def test_masks_change_no_bit_of_what_is_summed(group_size, silent):
    ids = [f"client-{i:02d}" for i in range(CLIENTS)]
    rows = [DISTRIBUTED.encode(update, 0) for update in UPDATES]
    shown = [
        Private(DISTRIBUTED, group_size, masks=masks).units(ids, rows, plain_spec(), seed=3, silent=silent)
        for masks in (False, True)
    ]
    assert [unit.members for unit in shown[0].units] == [unit.members for unit in shown[1].units]
    np.testing.assert_array_equal(np.array(shown[0].rows), np.array(shown[1].rows))
    assert shown[0].units


def test_groups_are_drawn_before_anybody_falls_silent_and_those_that_lost_too_many_are_not_decoded():
    names = [f"client-{i:02d}" for i in range(CLIENTS)]
    channel = Private(DISTRIBUTED, group_size=4)
    rows = dict(zip(names, (DISTRIBUTED.encode(update, 0) for update in UPDATES), strict=True))
    whole = channel.units(names, list(rows.values()), plain_spec(), seed=3)
    lost = whole.units[0].members[0]
    stayed = [name for name in names if name != lost]
    later = channel.units(stayed, [rows[name] for name in stayed], plain_spec(), seed=3, silent=[lost])
    assert [unit.members for unit in later.units] == [unit.members for unit in whole.units[1:]]


def test_masks_are_for_noise_that_clients_add():
    with pytest.raises(InvalidValueError, match="got central noise"):
        Private(CENTRAL, masks=True)


def test_an_adapting_clip_is_met_by_every_update_and_follows_their_norms():
    longer = Central(LAYOUT.size + 1, 1.0, Fraction(1, 1 << 10), sigma=1 << 10)
    channel = Private(longer, adaptive=AdaptiveClip(quantile=0.5, learning_rate=1.0))
    work = workload(channel)
    state = work.init(np.zeros(LAYOUT.size, np.float32))
    clips = []
    for _ in range(12):
        spec, seen = work.plan(state), set()
        clips.append(spec.clip)
        accepted = [work.screen(message(work, state, i)[0], spec, state, seen=seen) for i in range(CLIENTS)]
        cohort = work.cohort(accepted, spec, state, seed=1, key=bytes(32))
        inside = np.linalg.norm(UPDATES, axis=1) <= spec.clip
        assert cohort.within_clip == pytest.approx(inside.mean(), abs=0.05)
        shortened = UPDATES * np.minimum(1, spec.clip / np.linalg.norm(UPDATES, axis=1, keepdims=True))
        assert np.linalg.norm(cohort.X.dense()[0] - shortened.mean(axis=0)) < 0.06 * spec.clip
        _, state = work.reduce(cohort, state)
    assert clips[0] == 1.0
    assert 0.5 < clips[-1] < 1.2
    assert min(clips) < 0.9  # the norm of every update


def test_what_clients_hold_follows_the_model_over_a_narrow_downlink():
    work = replace(workload(Clear()), downlink=CODECS.create("int8"))
    state = work.init(np.zeros(LAYOUT.size, np.float32))
    for number in range(4):
        held = work.held(state)
        spec, seen = work.plan(state), set()
        accepted = [work.screen(message(work, state, i)[0], spec, state, seen=seen) for i in range(CLIENTS)]
        cohort = work.cohort(accepted, spec, state, seed=1)
        np.testing.assert_array_equal(cohort.params, held)
        outcome, state = work.reduce(cohort, state)
        assert outcome.model_bytes < 4 * LAYOUT.size / 2
        step = np.linalg.norm(UPDATES.mean(axis=0))
        assert 0 < np.linalg.norm(work.held(state) - state["params"]) < 0.02 * step, number
    with pytest.raises(InvalidValueError, match="contracts"):
        replace(work, downlink=CODECS.create("rotated")).init(np.zeros(LAYOUT.size, np.float32))
