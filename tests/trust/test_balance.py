import numpy as np
import pytest

from matl.trust.balance import MOST, TOLERATED, balanced, imbalance

CLASSES = 10


def honest(m, rng, alpha=0.3):
    return rng.dirichlet(np.full(CLASSES, alpha), size=m)


def test_chance_explains_the_imbalance_of_honest_clients():
    rng = np.random.default_rng(0)
    shares, reference = np.full(8, 1 / 8), np.full(CLASSES, 1 / CLASSES)  # so few that chance exceeds what is tolerated
    pairs = np.array([imbalance(shares, honest(8, rng, 0.1), reference) for _ in range(400)])
    assert pairs[:, 1].min() > TOLERATED * np.linalg.norm(reference)
    # The mean square of 400 draws has a standard error of about 2 %.
    assert np.mean(pairs[:, 0] ** 2) == pytest.approx(np.mean(pairs[:, 1] ** 2), rel=0.12)


def test_a_balanced_cohort_keeps_its_shares():
    taught = np.repeat(np.eye(CLASSES), 3, axis=0)
    shares = np.random.default_rng(1).dirichlet(np.full(30, 50.0))
    assert balanced(shares, taught, np.full(CLASSES, 1 / CLASSES)) is shares


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_false_label_mixes_are_outweighed(alpha):
    rng = np.random.default_rng(2)
    reference = np.full(CLASSES, 1 / CLASSES)
    # 45 of 100 starve eight classes.
    taught = np.concatenate([honest(55, rng, alpha), rng.dirichlet([5.0, 5.0] + [0.01] * 8, size=45)])
    shares = np.full(100, 0.01)
    found = balanced(shares, taught, reference)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1.0)
    before, after = imbalance(shares, taught, reference), imbalance(found, taught, reference)
    assert before[0] > 2 * before[1]
    assert after[0] <= after[1]
    assert found[55:].sum() < 0.3


def test_shares_move_no_further_than_balance_needs():
    rng = np.random.default_rng(3)
    reference = np.full(CLASSES, 1 / CLASSES)
    taught = np.concatenate([honest(55, rng), rng.dirichlet([5.0, 5.0] + [0.01] * 8, size=12)])
    shares = np.full(67, 1 / 67)
    found = balanced(shares, taught, reference)
    assert 0.0 < found[55:].sum() < shares[55:].sum()
    assert (found[:55] > 0).mean() > 0.8


def test_many_clients_are_allowed_as_much_as_estimates_are_worth():
    reference = np.full(CLASSES, 1 / CLASSES)
    taught = np.tile(reference, (1000, 1))
    taught[:, 0] *= 1.8  # by less than is tolerated in all, and by far more than chance explains
    shares = np.full(1000, 1 / 1000)
    assert imbalance(shares, taught, reference)[0] < TOLERATED * np.linalg.norm(reference)
    assert balanced(shares, taught, reference) is shares


def test_balance_does_not_depend_on_the_unit():
    rng = np.random.default_rng(4)
    reference = np.full(CLASSES, 1 / CLASSES)
    taught = np.concatenate([honest(55, rng), rng.dirichlet([5.0, 5.0] + [0.01] * 8, size=45)])
    shares = np.full(100, 0.01)
    found = balanced(shares, taught, reference)
    assert np.abs(found - shares).max() > 0.005
    np.testing.assert_allclose(balanced(shares, 1e-3 * taught, 1e-3 * reference), found, atol=1e-9)


def test_a_cohort_that_lacks_a_class_is_no_error():
    taught = np.zeros((5, 3))
    taught[:, 0] = 1.0
    found = balanced(np.full(5, 0.2), taught, np.full(3, 1 / 3))
    np.testing.assert_allclose(found, 0.2)


@pytest.mark.parametrize("rare", [1, 3, 10])
def test_nobody_gets_more_than_four_times_its_share(rare):
    """Also where nobody else teaches a class, and who does would be given all that is asked for of it."""
    many = np.repeat([0, 1], [100 - rare, rare])
    given = np.random.default_rng(rare).dirichlet(np.full(100, 5.0))
    shares = balanced(given, np.eye(2)[many], np.array([0.5, 0.5]))
    assert shares.sum() == pytest.approx(1.0)
    assert shares.min() >= 0.0
    assert (shares <= MOST * given + 1e-9).all()
    assert shares[many == 1].sum() > 2.0 * given[many == 1].sum()
