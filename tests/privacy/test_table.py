"""Tables of noise: the integers are the same everywhere, and the words of a sampler draw exactly their law."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive

from matl.errors import InvalidValueError
from matl.privacy import table as table_module
from matl.privacy.table import MAX_VARIANCE, NoiseTable, skellam_table

GOLDEN = {  # variance: reach, the count of 0, and SHA-256 of all counts as decimal text
    "3/128": (5, 1074188970570, "24734369d85ba0b7105e68cb2f0999f43ae9c044677c7869afa68eff8401a872"),
    "4": (18, 227601019376, "45e9fcefb65359959da894ce26e58176f78480a218dcaf502171b6ec5488394d"),
    "256": (111, 27428520690, "c037be81e3ac0c7bdea9f183c52efd82081869087d6c1093d36282fad4141616"),
}


@pytest.mark.parametrize("variance", GOLDEN)
def test_golden_vectors(variance):
    table = skellam_table(variance)
    text = ",".join(map(str, table.counts))
    assert (table.reach, table.counts[table.reach], hashlib.sha256(text.encode()).hexdigest()) == GOLDEN[variance]


def test_the_table_of_the_certified_instance():
    assert skellam_table(4).counts[18:22] == (227601019376, 196538626507, 129331706103, 67206920403)
    assert skellam_table("3/128").counts[5:] == (1074188970570, 12587287718, 73751950, 288090, 844, 1)


@given(st.fractions(min_value=Fraction(1, 1000), max_value=60), st.integers(1, 64))
@settings(max_examples=40)
def test_counts_are_the_skellam_law_rounded_down(variance, resolution):
    table = skellam_table(variance, resolution)
    law = ive(np.arange(table.reach + 2), float(variance))
    assert sum(table.counts) == 1 << resolution
    assert table.counts == table.counts[::-1]
    for t in range(1, table.reach + 2):
        count = table.counts[table.reach + t] if t <= table.reach else 0
        exact = float(law[t]) * 2.0**resolution
        assert exact * (1 - 1e-9) - 1.0 <= count <= exact * (1 + 1e-9)
    assert table.variance <= variance


def test_the_variance_is_lost_only_in_the_tail():
    assert skellam_table(4).variance == pytest.approx(4, rel=1e-9)
    assert skellam_table(4).variance < 4


@pytest.mark.parametrize("resolution", [4, 10, 16])
def test_every_word_once_draws_the_law_exactly(resolution):
    table = skellam_table(1, resolution)
    words = np.arange(1 << resolution, dtype=np.uint64) << np.uint64(40 - resolution)
    words += np.uint64((1 << (40 - resolution)) - 1)  # the last of those that share their first bits
    drawn = np.searchsorted(table.thresholds, words, side="right") - table.reach
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == list(range(-table.reach, table.reach + 1))
    assert tuple(counts.tolist()) == table.counts


def test_the_ends_of_the_words():
    table = skellam_table(4)
    words = np.array([0, (1 << 40) - 1], np.uint64)
    assert (np.searchsorted(table.thresholds, words, side="right") - table.reach).tolist() == [-18, 18]
    assert table.thresholds.dtype == np.uint64
    assert int(table.thresholds[-1]) == (1 << 40) - table.counts[-1]


def test_a_table_that_is_too_fine_to_draw_from():
    with pytest.raises(InvalidValueError, match="a resolution of at most 40 bits to draw from, got 64"):
        _ = skellam_table(1, 64).thresholds


@pytest.mark.parametrize(
    ("counts", "resolution", "message"),
    [
        ((1, 2, 1), 3, r"with the sum 2\^3.*got the sum 4"),
        ((1, 3), 2, "a symmetric table"),
        ((1, 2, 3, 1, 1), 3, "a symmetric table"),
        ((), 3, "a symmetric table"),
        ((-1, 6, -1), 2, "counts >= 0"),
        ((0, 4, 0), 2, "whose ends are above 0"),
        ((1 << 129,), 129, r"at most 2\^128"),
        ((1,), 0, "whole number >= 1, got resolution=0"),
    ],
)
def test_what_is_no_table(counts, resolution, message):
    with pytest.raises(InvalidValueError, match=message):
        NoiseTable(counts, resolution)


@pytest.mark.parametrize(("variance", "resolution"), [(0, 40), (-1, 40), (MAX_VARIANCE + 1, 40), (1, 129)])
def test_variances_and_resolutions_that_are_out_of_range(variance, resolution):
    with pytest.raises(InvalidValueError, match="expected 0 < variance <= 1024 and resolution <= 128"):
        skellam_table(variance, resolution)


def test_more_digits_are_taken_where_too_few_leave_a_count_undecided(monkeypatch):
    tail, bits = table_module._tail, []

    def coarse(variance, resolution, asked):
        bits.append(asked)
        return tail(variance, resolution, asked // 4)

    monkeypatch.setattr(table_module, "_tail", coarse)
    found = skellam_table(4)
    assert bits[:2] == [104, 208]
    monkeypatch.undo()
    assert found == skellam_table(4)


def test_a_variance_too_small_for_the_resolution_leaves_no_noise():
    assert skellam_table(Fraction(1, 1000), 4) == NoiseTable((16,), 4)
