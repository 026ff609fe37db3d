"""Cohorts that divide, and cohorts that do not, in sketches made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from matl.trust.spectral import FULL_COHORT, OPENS, divide, opened

CLASSES, WIDTH, HONEST, LIARS, SHADOWS = 5, 256, 28, 22, 120
BAR = 0.65


def rows(count, rng):
    return rng.normal(size=(count, WIDTH)) / np.sqrt(WIDTH)


def normalised(directions):
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)


def seen(directions, mix):
    return SimpleNamespace(attribution=SimpleNamespace(mix=mix), directions=normalised(directions))


def views(share=0.9, *, liars=LIARS, honest=HONEST, seed=0, alpha=0.5):
    """Clients, liars first, and shadows: a mix of classes that all have in common, and noise of their own.

    Liars have ``share`` of one more direction.
    """
    rng = np.random.default_rng(seed)
    taught, trigger = 2.0 * rows(CLASSES, rng), rows(1, rng)

    def view(count, alphas, extra):
        mix = np.stack([rng.dirichlet(np.full(CLASSES, each)) for each in np.resize(alphas, count)])
        return seen(mix @ taught + rows(count, rng) + extra, mix)

    extra = np.concatenate([share * np.repeat(trigger, liars, axis=0), np.zeros((honest, WIDTH))])
    return view(liars + honest, alpha, extra), view(SHADOWS, (0.1, 0.5, 5.0, 50.0), 0.0)


def found(clients, shadows, weights=None, stood=None):
    n = len(clients.directions)
    weights, stood = (np.ones(n) if weights is None else weights), (np.zeros(n) if stood is None else stood)
    return divide(clients, shadows, weights, stood, BAR)


@pytest.mark.parametrize("seed", range(5))
def test_what_liars_share_divides_the_cohort_and_they_are_on_the_far_side(seed):
    division = found(*views(seed=seed))
    assert division.strength > OPENS[1]
    assert division.shared[:LIARS].min() > division.shared[LIARS:].max()
    assert division.near < 0.0 < division.far
    assert (division.place[:LIARS] > 1.0).mean() > 0.8
    assert (division.place[LIARS:] > 1.0).mean() < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_a_cohort_without_liars_is_not_divided_more_clearly_than_shadows(seed):
    assert found(*views(liars=0, honest=50, seed=seed)).strength < OPENS[0]


def test_what_classes_explain_does_not_divide():
    # All of either half hold one class: what they have in common is that class, which is no reason to accuse anybody.
    shadow_mix = views()[1].attribution.mix
    mix = np.eye(CLASSES)[np.repeat([0, 1], 25)]
    teach = 2.0 * rows(CLASSES, np.random.default_rng(9))
    noise = rows(50 + SHADOWS, np.random.default_rng(8))
    clients, shadows = seen(mix @ teach + noise[:50], mix), seen(shadow_mix @ teach + noise[50:], shadow_mix)
    assert found(clients, shadows).strength < OPENS[0]


def test_those_on_the_far_side_no_longer_say_what_classes_look_like():
    clients, shadows = views(share=0.6)
    blunt = found(clients, shadows)
    sharp = found(clients, shadows, stood=np.clip(blunt.place, 0.0, 1.0))
    gap = [each.shared[:LIARS].min() - each.shared[LIARS:].max() for each in (blunt, sharp)]
    assert gap[1] > gap[0] + 0.05
    assert sharp.strength == blunt.strength  # or an accusation would make itself stronger


def test_whoever_counts_for_nothing_does_not_divide():
    clients, shadows = views()
    weights = np.where(np.arange(LIARS + HONEST) < 10, 0.0, 1.0)
    clients.directions[:10] = normalised(rows(1, np.random.default_rng(3)))  # all the same
    division = found(clients, shadows, weights)
    others = slice(10, LIARS)
    assert division.shared[others].min() > division.shared[LIARS:].max()
    assert not division.place[:10].any()
    assert division.strength == pytest.approx(found(clients, shadows, weights * 7.0).strength)  # only shares matter


def test_the_far_side_is_the_one_without_the_shadows():
    clients, shadows = views(liars=25, honest=25)  # neither is the larger
    assert found(clients, shadows).place[:25].min() > found(clients, shadows).place[25:].max()
    # The same clients beside shadows that do what the others do not.
    apart = clients.directions[:25].mean(axis=0) - clients.directions[25:].mean(axis=0)
    knowing = seen(shadows.directions + 2 * apart, shadows.attribution.mix)
    assert found(clients, knowing).place[25:].min() > found(clients, knowing).place[:25].max()


def test_who_was_accused_has_no_say_in_which_side_is_far():
    # Liars that take turns: those accused now stand with the honest clients, and the other half does the deed.
    clients, shadows = views(liars=11, honest=39)
    before = np.where((np.arange(50) >= 11) & (np.arange(50) < 22), 1.5, 0.0)
    division = found(clients, shadows, stood=before)
    assert division.place[:11].min() > division.place[22:].max()


def test_the_larger_part_is_never_accused():
    division = found(*views(liars=35, honest=15))
    assert division.strength == 1.0
    assert not division.place.any()
    assert found(*views(liars=15, honest=35)).strength > OPENS[1]


def test_a_division_of_few_counts_less():
    whole = found(*views(0.5, liars=18, honest=22))
    fewer = found(*views(0.5, liars=13, honest=17))
    assert len(whole.shared) == FULL_COHORT
    assert fewer.strength < 0.8 * whole.strength
    # Whoever counts for nothing does not make a cohort larger.
    clients, shadows = views(0.5, liars=18, honest=22)
    weights = np.where(np.arange(FULL_COHORT) % 4 == 0, 0.0, 1.0)
    assert found(clients, shadows, weights).strength < 0.8 * whole.strength


def test_there_is_no_opinion_where_too_few_can_be_believed():
    division = found(*views(liars=8, honest=11))
    assert np.isnan(division.shared).all()
    assert not division.place.any()
    assert division.strength == 1.0
    clients, shadows = views()
    believed = np.where(np.arange(LIARS + HONEST) < 19, 0.0, 1.0)
    assert np.isnan(found(clients, shadows, stood=believed).shared).all()


def test_the_order_of_clients_makes_no_difference():
    clients, shadows = views()
    order = np.random.default_rng(1).permutation(LIARS + HONEST)
    mixed = seen(clients.directions[order], clients.attribution.mix[order])
    np.testing.assert_allclose(found(mixed, shadows).shared, found(clients, shadows).shared[order], atol=1e-6)


def test_a_silent_client_is_nowhere():
    clients, shadows = views()
    clients.directions[-1] = 0.0
    clients.attribution.mix[-1] = 0.0
    division = found(clients, shadows)
    assert division.shared[-1] == 0.0
    assert division.place[-1] < 1.0


def test_many_clients_are_as_divided_as_some():
    some = found(*views())
    many = found(*views(liars=220, honest=280))
    assert many.shared[:220].min() > many.shared[220:].max()
    assert many.strength == pytest.approx(some.strength, rel=0.35)


def test_a_division_opens_slowly():
    assert opened(OPENS[0]) == 0.0
    assert opened(OPENS[1]) == 1.0
    assert 0.0 < opened(sum(OPENS) / 2) < 1.0


def test_nobody_is_compared_with_itself():
    # One client that nothing explains: without itself there is nothing in its direction.
    clients, shadows = views(share=0.0)
    clients.directions[0] = normalised(rows(1, np.random.default_rng(4)))
    assert abs(found(clients, shadows).shared[0]) < 0.5


def test_going_further_with_fewer_classes_does_not_divide():
    """Of two classes a client with one goes further than half of one with both, in a direction that no class has."""
    rng = np.random.default_rng(2)
    teach, curve = 2.0 * rows(2, rng), rows(1, rng)

    def bent(count, alphas):
        mix = np.stack([rng.dirichlet(np.full(2, each)) for each in np.resize(alphas, count)])
        return seen(mix @ teach + 6.0 * np.square(mix).sum(axis=1, keepdims=True) * curve + rows(count, rng), mix)

    division = found(bent(50, 0.3), bent(SHADOWS, (0.3,)))
    assert 0.1 < division.strength < 0.9  # 1 is what there is without an opinion, which too wild a division has too


def test_shadows_of_few_classes_do_not_say_which_side_is_near():
    clients, shadows = views(liars=25, honest=25)
    skew = np.square(shadows.attribution.mix).sum(axis=1)
    apart = clients.directions[:25].mean(axis=0) - clients.directions[25:].mean(axis=0)
    odd = seen(
        shadows.directions + 3 * np.where(skew > np.median(skew), 1.0, 0.0)[:, None] * apart, shadows.attribution.mix
    )
    assert found(clients, odd).place[:25].min() > found(clients, odd).place[25:].max()


def test_where_shadows_say_nothing_the_smaller_part_is_the_far_one():
    clients, shadows = views(liars=15, honest=35)
    apart = clients.directions[:15].mean(axis=0) - clients.directions[15:].mean(axis=0)
    between = seen(shadows.directions + 0.24 * apart, shadows.attribution.mix)
    assert found(clients, between).place[:15].mean() > 1.0 > found(clients, between).place[15:].mean()


def test_who_counts_for_nothing_has_no_part_in_how_clear_it_is():
    clients, shadows = views(0.5)
    weights = np.where(np.arange(LIARS + HONEST) < 5, 0.0, 1.0)
    quiet = found(clients, shadows, weights).strength
    clients.directions[:5] = normalised(rows(1, np.random.default_rng(3)))
    assert found(clients, shadows, weights).strength == pytest.approx(quiet)


def test_more_classes_take_more_clients():
    few, many = (
        found(
            seen(rows(60, np.random.default_rng(1)) + 0.2, mix), seen(rows(SHADOWS, np.random.default_rng(2)), shadow)
        )
        for mix, shadow in (
            [np.random.default_rng(5).dirichlet(np.ones(classes), size=each) for each in (60, SHADOWS)]
            for classes in (15, 25)
        )
    )
    assert many.strength < 0.6 * few.strength  # 60 are all of 15 x 4, and three fifths of 25 x 4


def test_how_far_off_makes_a_difference_up_to_a_point():
    clients, shadows = views()
    clients.directions[:1] = normalised(clients.directions[:1] + 3 * clients.directions[1:LIARS].mean(axis=0))
    assert found(clients, shadows).place.max() <= 2.0


def test_what_only_the_known_share_is_no_news():
    clients, shadows = views()
    known = np.arange(LIARS + HONEST) < LIARS
    told = divide(clients, shadows, np.ones(len(known)), np.zeros(len(known)), BAR, known)
    assert told.strength < OPENS[0] < found(clients, shadows).strength
    np.testing.assert_array_equal(told.place, found(clients, shadows).place)  # they stand where they stood
    few = np.arange(LIARS + HONEST) < 31  # 19 are left
    assert np.isnan(divide(clients, shadows, np.ones(len(few)), np.zeros(len(few)), BAR, few).shared).all()
