"""Tails of drawing without replacement, against enumeration and SciPy."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from matl.privacy.hypergeometric import above, at_most


@given(population=st.integers(1, 12), data=st.data())
@settings(deadline=None)
def test_tails_are_those_of_enumeration(population, data):
    marked = data.draw(st.integers(0, population))
    drawn = data.draw(st.integers(0, population))
    most = data.draw(st.integers(0, population))
    draws = list(combinations(range(population), drawn))
    more = sum(len([i for i in draw if i < marked]) > most for draw in draws)
    assert above(population, marked, drawn, most) * len(draws) == more


@given(population=st.integers(1, 12), data=st.data())
@settings(deadline=None)
def test_the_quantile_is_the_smallest_that_holds(population, data):
    marked, drawn = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    chance = data.draw(st.fractions(0, 1))
    most = at_most(population, marked, drawn, chance)
    assert above(population, marked, drawn, most) <= chance
    assert most == 0 or above(population, marked, drawn, most - 1) > chance


def test_tails_agree_with_scipy():
    assert float(above(999, 100, 200, 30)) == pytest.approx(hypergeom.sf(30, 999, 100, 200), rel=1e-9)
