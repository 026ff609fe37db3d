import numpy as np

from matl.trust.consistency import turn, turn_evidence


def test_turn_is_0_ahead_1_aside_and_2_back():
    past = np.array([[1.0, 0.0]] * 3, np.float32)
    now = np.array([[5.0, 0.0], [0.0, 2.0], [-0.1, 0.0]], np.float32)
    np.testing.assert_allclose(turn(now, past), [0.0, 1.0, 2.0], atol=1e-6)


def test_a_turned_client_is_beyond_the_bar_and_an_ordinary_one_is_not():
    shadows = np.random.default_rng(0).uniform(0.01, 0.06, size=100)
    evidence = turn_evidence(np.array([0.05, 0.3, 1.9]), shadows, bar=8.0)
    assert evidence[0] < 0.1
    assert evidence[1] < 0.5  # a fall of .3 is no proof, however alike the shadows are
    assert evidence[2] > 2.0


def test_restless_shadows_raise_the_bar():
    calm, restless = np.linspace(0.0, 0.1, 100), np.linspace(0.0, 0.6, 100)
    client = np.array([1.2])
    assert turn_evidence(client, calm, bar=8.0)[0] > 1.0 > turn_evidence(client, restless, bar=8.0)[0]
