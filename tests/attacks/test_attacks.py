"""Every attack against its formula, computed directly."""

import hashlib
from collections import Counter
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.attacks import (
    ATTACKS,
    Alie,
    Attack,
    AttackView,
    GaussianNoise,
    Knowledge,
    LabelFlip,
    Malformed,
    Scaling,
    SignFlip,
    Sleeper,
)
from matl.errors import InvalidValueError
from matl.params import ParamLayout
from matl.records import Rejection, RoundSpec, Update
from matl.screening import screen_envelope, screen_values

RNG = np.random.default_rng


def view(own, honest=None, clients=None, round_index=0):
    others = 0 if honest is None else len(honest)
    return AttackView(round=round_index, own=own, honest=honest, clients=clients or len(own) + others)


@pytest.fixture
def own():
    return RNG(0).normal(size=(4, 50)).astype(np.float32)


def test_the_base_attacks_nothing(own):
    idle, update = Attack(), object()
    X, y = np.ones((3, 2), np.float32), np.arange(3)
    assert idle.at(7) is idle
    assert idle.craft(view(own), RNG(0)) is own
    assert idle.tamper(update, RNG(0)) is update
    assert idle.poison(X, y, 3, RNG(0)) == (X, y)
    assert idle.knowledge is Knowledge.OWN_UPDATES


def test_sign_flip_is_minus_k_times_the_update(own):
    np.testing.assert_array_equal(SignFlip().craft(view(own), RNG(0)), -own)
    np.testing.assert_array_equal(SignFlip(scale=2.5).craft(view(own), RNG(0)), np.float32(-2.5) * own)


def test_scaling_is_k_times_the_update(own):
    np.testing.assert_array_equal(Scaling().craft(view(own), RNG(0)), np.float32(10) * own)
    np.testing.assert_array_equal(Scaling(scale=4).craft(view(own), RNG(0)), np.float32(4) * own)


def test_gaussian_noise_has_k_times_the_norm_and_no_direction():
    own = RNG(1).normal(size=(3, 20_000)).astype(np.float32) * np.array([[1], [10], [100]], np.float32)
    noise = GaussianNoise(scale=2.0).craft(view(own), RNG(0))
    assert noise.dtype == np.float32
    # |z| / sqrt(d) has standard deviation 1 / sqrt(2 d) = 0.5 %, the cosine 1 / sqrt(d) = 0.7 %: 6 sigma each.
    ratio = np.linalg.norm(noise, axis=1) / np.linalg.norm(own, axis=1)
    np.testing.assert_allclose(ratio, 2.0, rtol=0.03)
    unit = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    cosines = np.concatenate(
        [(unit @ unit.T)[np.triu_indices(3, 1)], (unit * own).sum(1) / np.linalg.norm(own, axis=1)]
    )
    assert np.abs(cosines).max() < 0.043
    np.testing.assert_array_equal(noise, GaussianNoise(scale=2.0).craft(view(own), RNG(0)))


@pytest.mark.parametrize(
    ("n", "f", "supporters"),
    [(50, 20, 6), (25, 5, 8), (20, 8, 3), (10, 4, 2), (10, 5, 1), (10, 7, 1)],
)
def test_alie_is_the_mean_minus_z_standard_deviations(n, f, supporters):
    honest = RNG(2).normal(size=(n - f, 30)).astype(np.float32)
    own = np.zeros((f, 30), np.float32)
    assert supporters == max(n // 2 + 1 - f, 1)
    z = NormalDist().inv_cdf((n - f - supporters) / (n - f))
    sent = Alie().craft(view(own, honest), RNG(0))
    expected = honest.astype(np.float64).mean(axis=0) - z * honest.astype(np.float64).std(axis=0)
    assert sent.shape == own.shape
    assert sent.dtype == np.float32
    np.testing.assert_allclose(sent, np.tile(expected, (f, 1)), rtol=1e-4, atol=1e-5)


@given(n=st.integers(3, 60), data=st.data())
def test_alie_stays_among_the_honest_whatever_the_numbers(n, data):
    f = data.draw(st.integers(1, n - 2))
    honest = RNG(n).normal(size=(n - f, 4)).astype(np.float32)
    sent = Alie().craft(view(np.zeros((f, 4), np.float32), honest), RNG(0))
    assert np.isfinite(sent).all()
    assert (sent <= honest.mean(axis=0) + 1e-5).all()  # never the helpful way


@pytest.mark.parametrize("honest", [None, np.ones((1, 50), np.float32), np.ones((0, 50), np.float32)])
def test_alie_without_a_spread_to_hide_in_behaves(own, honest):
    assert Alie().craft(view(own, honest), RNG(0)) is own


def test_label_flip_reverses_the_labels():
    X, y = np.ones((5, 2), np.float32), np.array([0, 1, 2, 3, 9])
    poisoned_X, poisoned_y = LabelFlip().poison(X, y, 10, RNG(0))
    assert poisoned_X is X
    assert poisoned_y.tolist() == [9, 8, 7, 6, 0]
    assert y.tolist() == [0, 1, 2, 3, 9]


def test_only_alie_sees_honest_updates_and_label_flip_sees_data_alone():
    seen = {name: ATTACKS.get(name).knowledge for name in ATTACKS}
    assert {name for name, knowledge in seen.items() if knowledge is Knowledge.OMNISCIENT} == {"alie"}
    assert {name for name, knowledge in seen.items() if knowledge is Knowledge.DATA} == {"label_flip"}


def test_sleeper_wakes_at_its_round():
    sleeper = Sleeper(wake_round=3, attack=Alie())
    assert [sleeper.at(t) for t in range(5)] == [None, None, None, Alie(), Alie()]
    assert isinstance(Sleeper().at(10), SignFlip)
    assert Sleeper().at(9) is None
    assert Sleeper(wake_round=2, attack=Sleeper(wake_round=4)).at(3) is None  # one inside the other
    assert ATTACKS.create({"name": "sleeper", "wake_round": "4", "attack": {"name": "scaling", "scale": 3}}) == Sleeper(
        4, Scaling(3.0)
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: SignFlip(scale=0),
        lambda: SignFlip(scale=float("inf")),
        lambda: GaussianNoise(scale=-1),
        lambda: Scaling(scale=1),
        lambda: Scaling(scale=float("inf")),
        lambda: Scaling(scale=float("nan")),
        lambda: Sleeper(wake_round=-1),
    ],
)
def test_impossible_strengths_are_refused_with_the_value_seen(wrong):
    with pytest.raises(InvalidValueError, match=r"expected .*, got \w+=\S+"):
        wrong()


MODELS = {
    "matrix": {"w": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)},
    "one output": {"w": np.ones((4, 1), np.float32)},
    "scalar first": {"scale": np.ones((), np.float32), "w": np.ones(3, np.float32)},
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("staleness", [0, 1])
def test_every_malformed_message_is_rejected_each_kind_for_its_own_reason(model, staleness):
    arrays = MODELS[model]
    layout = ParamLayout.of(arrays)
    spec = RoundSpec(run="r", round=0, model_hash="h", layout_hash=layout.digest, max_staleness=staleness)
    update = Update(
        client_id="a", run="r", round=0, base_version=0, model_hash="h", payload=arrays, num_examples=10, nonce="0"
    )
    codes = Counter()
    for draw in range(60):  # six kinds, each missing from 60 draws with probability (5/6)^60 < 2e-5; the seed is fixed
        sent = Malformed().tamper(update, RNG(draw))
        rejection = screen_envelope(sent, spec, model_hashes={0: "h"}, seen=set()) or screen_values(sent, spec, layout)
        assert isinstance(rejection, Rejection)
        assert rejection.client_id == "a"
        codes[rejection.code] += 1
    late = "stale" if staleness == 0 else "model_hash"
    assert set(codes) == {"not_finite", "shape", "num_examples", "malformed", "names", late}
    assert update.payload is arrays
    assert np.isfinite(next(iter(arrays.values()))).all()


def test_unreadable_bytes_get_as_far_as_the_decoder():
    update = Update(client_id="a", run="r", round=0, base_version=0, model_hash="h", payload={"w": np.ones(2)})
    sent = [Malformed().tamper(update, RNG(draw)) for draw in range(60)]
    unreadable = [message for message in sent if isinstance(message.payload, bytes)]
    assert unreadable
    for message in unreadable:
        assert message.payload_sha256 == hashlib.sha256(message.payload).hexdigest()
