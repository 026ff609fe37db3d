"""Cohorts that divide, and cohorts that do not, in sketches made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from matl.trust.spectral import FULL_COHORT, OPENS, REMEMBERS, SURE, divide, opened

CLASSES, WIDTH, HONEST, LIARS, SHADOWS = 5, 256, 28, 22, 120
BAR, BOUND = 0.65, 0.45


def rows(count, rng):
    return rng.normal(size=(count, WIDTH)) / np.sqrt(WIDTH)


def normalised(directions):
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)


def seen(directions, mix, alien=None):
    alien = np.zeros(len(mix)) if alien is None else alien
    return SimpleNamespace(attribution=SimpleNamespace(mix=mix, alien=alien), directions=normalised(directions))


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


def found(clients, shadows, weights=None, stood=None, leaned=None, *, bar=BAR, bound=BOUND, known=None):
    n = len(clients.directions)
    none = np.zeros(n)
    weights, stood = (np.ones(n) if weights is None else weights), (none if stood is None else stood)
    return divide(clients, shadows, weights, stood, none if leaned is None else leaned, bar, bound, known)


def undecided():
    """Parts that are as large, look alike and are as far from the shadows."""
    clients, shadows = views(liars=25, honest=25)
    away = clients.directions.mean(axis=0) - shadows.directions.mean(axis=0)
    return clients, seen(shadows.directions + 1.1 * away, shadows.attribution.mix)


@pytest.mark.parametrize("seed", range(5))
def test_what_liars_share_divides_the_cohort_and_they_are_on_the_far_side(seed):
    division = found(*views(seed=seed))
    assert division.strength > OPENS[1]
    assert division.shared[:LIARS].min() > division.shared[LIARS:].max()
    assert division.near < 0.0 < division.far
    assert (division.place[:LIARS] > 1.0).mean() > 0.8
    assert (division.place[LIARS:] > 1.0).mean() < 0.05


@pytest.mark.parametrize("alpha", [0.1, 0.5, 50.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_cohort_without_liars_is_not_divided_more_clearly_than_shadows(seed, alpha):
    assert found(*views(liars=0, honest=50, seed=seed, alpha=alpha)).strength < OPENS[0]


@pytest.mark.parametrize("seed", range(3))
def test_few_are_found_among_clients_of_one_class_and_of_several(seed):
    """Directions have length 1 however many classes they are made of; half of either class would leave much of them."""
    rng = np.random.default_rng(seed)
    teach, trigger = 8.0 * rows(CLASSES, rng), rows(1, rng)

    def view(alphas, extra):
        mix = np.stack([rng.dirichlet(np.full(CLASSES, each)) for each in alphas])
        return seen(mix @ teach + rows(len(mix), rng) + extra, mix)

    clients = view(np.full(50, 0.1), 1.5 * (np.arange(50) < 10)[:, None] * trigger)
    division = found(clients, view(np.resize([0.1, 0.5, 5.0, 50.0], SHADOWS), 0.0))
    assert division.strength > 2 * OPENS[1]
    assert division.place[:10].min() > 1.0 > division.place[10:].max()


@pytest.mark.parametrize("seed", range(5))
def test_holding_one_class_or_many_is_no_division(seed):
    shares = (np.full(CLASSES, each) for each in np.repeat([0.05, 50.0], 25))
    rng = np.random.default_rng(seed)
    mix = np.stack([rng.dirichlet(each) for each in shares])
    teach = 4.0 * rows(CLASSES, rng)
    shadow_mix = views()[1].attribution.mix
    clients, shadows = (seen(each @ teach + rows(len(each), rng), each) for each in (mix, shadow_mix))
    assert found(clients, shadows).strength < OPENS[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_trigger_that_looks_a_little_like_a_class_is_not_explained_by_it(seed):
    """Where all clients hold all classes alike, little else tells their mixes apart."""
    clients, shadows = views(0.7, liars=20, honest=30, seed=seed, alpha=1e6)
    plain = found(clients, shadows)
    clients.attribution.mix[:20] += 0.06 * (np.eye(CLASSES)[0] - 1.0 / CLASSES)
    taken = found(clients, shadows)
    assert taken.strength > 0.5 * plain.strength
    assert taken.shared[:20].min() > taken.shared[20:].max()


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


def test_the_far_side_is_the_one_that_looks_alien():
    clients, shadows = views(liars=25, honest=25)
    middle = clients.directions.mean(axis=0)
    between = seen(shadows.directions + 0.3 * (middle - shadows.directions.mean(axis=0)), shadows.attribution.mix)
    for liars in (np.arange(50) < 25, np.arange(50) >= 25):
        told = seen(clients.directions, clients.attribution.mix, 1.0 * liars)
        division = found(told, between)
        assert division.place[liars].min() > division.place[~liars].max()
        assert division.sure > 0.4


def test_who_looks_less_alien_than_shadows_do_is_the_odd_one():
    clients, between = undecided()
    between.attribution.alien[:] = np.linspace(0.1, 0.3, SHADOWS)
    pure = np.arange(50) < 25
    clients.attribution.alien[:] = np.where(pure, 0.05, 0.15)
    division = found(clients, between)
    assert division.place[pure].min() > division.place[~pure].max()
    clients.attribution.alien[:] = np.where(pure, 0.14, 0.15)  # that is nothing odd
    division = found(clients, between)
    assert division.place[~pure].min() > division.place[pure].max()


def test_a_few_that_pretend_to_the_other_side_do_not_turn_it():
    clients, shadows = views()
    apart = clients.directions[:LIARS].mean(axis=0) - clients.directions[LIARS:].mean(axis=0)
    clients.directions[:3] = normalised(clients.directions[:3] - 4.0 * apart)
    clients.attribution.alien[:LIARS] = 1.0
    place = found(clients, shadows).place
    assert np.median(place[3:LIARS]) > 1.0 > place[LIARS:].max()


def test_where_it_is_not_sure_which_side_is_far_nothing_is_evidence():
    clients, between = undecided()
    assert opened(OPENS[1], found(clients, between).sure) == 0.0
    clients.attribution.alien[:25] = 1.0
    assert opened(2.0 * OPENS[1], found(clients, between).sure) == 1.0


@pytest.mark.parametrize("far", [np.arange(50) < 25, np.arange(50) >= 25])
def test_what_told_the_parts_apart_tells_it_still_when_it_is_gone(far):
    clients, between = undecided()
    clients.attribution.alien[far] = 1.0
    before = found(clients, between)
    clients.attribution.alien[:] = 0.0
    for view in (clients, between):  # what is left of a direction may have either sign
        view.directions[:] *= -1.0
    after = found(clients, between, leaned=REMEMBERS * before.leaned)
    assert after.sure > 0.5 * before.sure > 2.0 * found(clients, between).sure
    assert after.place[far].min() > after.place[~far].max()
    assert np.array_equal(after.leaned > 0, far)


def test_what_told_other_clients_apart_tells_nothing():
    clients, between = undecided()
    elsewhere = np.resize([1.0, -1.0], 50)
    assert found(clients, between, leaned=3.0 * elsewhere).sure < found(clients, between).sure + 0.5


def test_whoever_has_leaned_to_the_near_part_is_not_accused_at_once():
    clients, shadows = views()
    leaned = np.where(np.arange(50) < 5, -3.0, 0.0)
    division = found(clients, shadows, leaned=leaned)
    assert not division.place[:5].any()
    assert division.place[5:LIARS].min() > 0.5
    for _ in range(20):
        division = found(clients, shadows, leaned=REMEMBERS * division.leaned)
    assert division.place[:5].min() > 0.5


def test_the_number_of_clients_tells_the_more_the_clearer_they_are_apart():
    sure = [found(*views(share, liars=20, honest=30)).sure for share in (0.4, 0.9, 2.0)]
    assert sure[0] < sure[1] < sure[2] <= 3.5


@pytest.mark.parametrize("bound", [0.45, 0.3])
@pytest.mark.parametrize("bar", [BAR, 0.45])
@pytest.mark.parametrize("liars", [24, 28])
def test_no_more_are_accused_than_the_declared_bound(bound, bar, liars):
    clients, shadows = views(liars=liars, honest=50 - liars)
    clients.attribution.alien[:liars] = 1.0
    division = found(clients, shadows, bar=bar, bound=bound)
    accused = int(bound * 50)
    assert division.bar > bar
    assert (division.place > 1.0).sum() == accused
    assert set(np.argsort(-division.shared)[:accused]) == set(np.flatnonzero(division.place > 1.0))
    uneven = np.where(np.arange(50) % 2 == 0, 1.2, 1.0)
    place = found(clients, shadows, uneven, bar=bar, bound=bound).place
    assert bound - 0.03 < uneven[place > 1.0].sum() / uneven.sum() <= bound


def test_a_bound_of_all_raises_no_bar():
    assert found(*views(), bound=1.0).bar == BAR


def test_copies_have_one_say_in_what_looks_alien():
    clients, shadows = views(liars=20, honest=30)
    clients.attribution.alien[:] = np.random.default_rng(3).permutation(50)
    once = found(clients, shadows).sure
    rows = np.concatenate([np.arange(50), np.full(30, 7)])
    copied = seen(clients.directions[rows], clients.attribution.mix[rows], clients.attribution.alien[rows])
    weights = np.where(rows == 7, 1.0 / 31.0, 1.0)
    assert found(copied, shadows, weights).sure == pytest.approx(once, abs=0.05)


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
    clients.attribution.alien[:] = np.arange(len(order)) // 4
    mixed = seen(clients.directions[order], clients.attribution.mix[order], clients.attribution.alien[order])
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
    assert opened(OPENS[0], 1.0) == opened(9.0, 0.05) == 0.0
    assert opened(OPENS[1], 1.0) == opened(OPENS[1] / SURE**0.5, SURE) == 1.0
    assert 0.0 < opened(sum(OPENS) / 2, 1.0) < 1.0
    assert opened(2.2, 100.0) == opened(2.2, SURE)


def test_nobody_is_compared_with_itself():
    # One client that nothing explains: without itself there is nothing in its direction.
    clients, shadows = views(share=0.0)
    clients.directions[0] = normalised(rows(1, np.random.default_rng(4)))
    assert abs(found(clients, shadows).shared[0]) < 0.5


@pytest.mark.parametrize("seed", range(3, 8))
def test_going_further_with_fewer_classes_does_not_divide(seed):
    """Of two classes a client with one goes further than half of one with both, in a direction that no class has."""
    rng = np.random.default_rng(seed)
    teach, curve = 2.0 * rows(2, rng), rows(1, rng)

    def bent(count, alphas):
        mix = np.stack([rng.dirichlet(np.full(2, each)) for each in np.resize(alphas, count)])
        return seen(mix @ teach + 6.0 * np.square(mix).sum(axis=1, keepdims=True) * curve + rows(count, rng), mix)

    assert found(bent(50, 0.3), bent(SHADOWS, (0.3,))).strength < OPENS[0]


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
    told = found(clients, shadows, known=known)
    assert told.strength < OPENS[0] < found(clients, shadows).strength
    np.testing.assert_array_equal(told.place, found(clients, shadows).place)  # they stand where they stood
    few = np.arange(LIARS + HONEST) < 31  # 19 are left
    assert np.isnan(found(clients, shadows, known=few).shared).all()
