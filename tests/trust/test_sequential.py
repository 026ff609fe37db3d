import numpy as np
import pytest

from matl.errors import InvalidValueError, StateError
from matl.state import pack, unpack
from matl.trust.sequential import WINDOW, Bank, Book, matched_rounds, smooth


def test_suspicion_rises_fast_falls_slowly_and_is_capped():
    bank = Bank()
    balance = np.zeros(1)
    for _ in range(10):
        balance = bank.after(balance, np.array([4.0]))
    assert balance[0] == bank.limit
    quiet = 0
    while balance[0] > 0:
        balance = bank.after(balance, np.array([0.2]))
        quiet += 1
    assert quiet == bank.rounds_left(bank.limit) == 30


def test_a_slip_costs_a_few_rounds_and_good_conduct_saves_nothing_up():
    bank = Bank()
    balance = bank.after(np.array([0.0]), np.array([-50.0]))
    assert balance[0] == 0.0
    balance = bank.after(balance, np.array([1.01]))
    assert 0 < bank.rounds_left(float(balance[0])) <= 5


def test_a_round_that_shows_nothing_changes_nothing():
    balance = np.array([1.0, 1.0, 1.0])
    after = Bank().after(balance, np.array([0.2, 0.2, 1.5]), np.array([True, False, False]))
    np.testing.assert_allclose(after, [0.9, 1.0, 1.9])


def test_evidence_exactly_at_the_bar_is_not_beyond_it():
    assert Bank().after(np.zeros(1), np.ones(1))[0] == 0.0


def test_a_bank_needs_positive_constants():
    with pytest.raises(InvalidValueError, match="recovery"):
        Bank(recovery=0.0)


def test_smooth_is_the_faded_mean_of_the_present_rounds():
    window = np.arange(WINDOW, dtype=float).reshape(1, WINDOW, 1)
    present = np.zeros(WINDOW, bool)
    present[[-1, -3]] = True
    newest, older = WINDOW - 1.0, WINDOW - 3.0
    expected = (newest + 0.25 * older) / 1.25
    assert smooth(window, present, 0.5)[0, 0] == pytest.approx(expected)


def test_absent_rounds_may_be_nan():
    window = np.full((2, WINDOW, 3), np.nan)
    window[:, -2] = 4.0
    present = ~np.isnan(window[0, :, 0])
    np.testing.assert_allclose(smooth(window, present, 0.85), 4.0)


def test_clients_are_grouped_by_the_rounds_they_came_to():
    window = np.full((4, WINDOW, 1), np.nan)
    window[:, -1] = 0.0
    window[[0, 2], -2] = 0.0
    groups = {tuple(rows): int(present.sum()) for rows, present in matched_rounds(window)}
    assert groups == {(0, 2): 2, (1, 3): 1}


def test_a_book_opens_rows_for_newcomers_and_keeps_everyone_apart():
    book = Book.empty(channels=2, classes=4, width=3).begun(["b", "d"])
    book.suspicion[book.rows(["d"])] = 2.0
    book.scores[book.rows(["b", "d"]), -1] = [[1, 1], [2, 2]]
    book = book.closed().begun(["c", "a"])
    assert book.ids == ("a", "b", "c", "d")
    assert book.suspicion.tolist() == [0, 0, 0, 2]
    assert np.isnan(book.scores[book.rows(["a", "c"])]).all()
    assert book.scores[book.rows(["b"])[0], -2].tolist() == [1, 1]
    assert np.isnan(book.scores[:, -1]).all()


def test_the_long_absent_are_forgotten_unless_suspected():
    book = Book.empty(1, 3, 2).begun(["good", "bad"])
    book.scores[:, -1] = 0.0
    book.suspicion[book.rows(["bad"])] = 0.5
    book = book.closed()
    for _ in range(WINDOW):
        book = book.begun([]).closed()
    assert book.ids == ("bad",)


def test_a_book_survives_the_codec_bit_for_bit():
    book = Book.empty(2, 3, 4).begun(["x", "y"])
    book.scores[0, -1] = 0.1
    book.past[1] = np.float32(1 / 3)
    back = Book.of_state(unpack(pack(book.as_state())))
    assert back.ids == book.ids
    assert back.reasons == book.reasons
    for name in ("scores", "mix", "past", "seen", "suspicion"):
        assert getattr(back, name).tobytes() == getattr(book, name).tobytes()
        assert getattr(back, name).dtype == getattr(book, name).dtype


def test_a_foreign_state_is_refused():
    with pytest.raises(StateError, match="lacks 'scores'"):
        Book.of_state({"ids": []})
