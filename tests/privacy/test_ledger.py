"""The privacy ledger: totals are those of the accountant, written before they are due, and a budget is kept."""

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.errors import InvalidValueError, StateError, StorageError, UnknownNameError
from matl.journal import Journal
from matl.privacy.accounting import WHOLE_ORDERS, Adjacency, gaussian_curve, sampled_gaussian_curve
from matl.privacy.ledger import PrivacyLedger

DELTA = Fraction(1, 100_000)
NOISE = gaussian_curve(Fraction(4), WHOLE_ORDERS)
SAMPLED = sampled_gaussian_curve(Fraction(1, 10), Fraction(1))


@pytest.fixture
def path(tmp_path):
    with PrivacyLedger.create(tmp_path / "ledger", "run 1", delta=DELTA, budget=Fraction(3)) as ledger:
        ledger.declare("noise", NOISE, manifest="ab" * 32)
        ledger.declare("sampled", SAMPLED)
        ledger.charge(0, "noise", ["a", "b"])
        ledger.charge(1, "noise", ["a"])
        ledger.charge(1, "sampled", ["a"])
    return tmp_path / "ledger"


def test_totals_are_those_of_the_accountant_over_restarts(path):
    with PrivacyLedger.open(path) as ledger:
        assert (ledger.run, ledger.delta, ledger.budget) == ("run 1", DELTA, 3)
        assert ledger.spent("a") == NOISE.times(2) + SAMPLED
        assert ledger.spent("b") == NOISE
        assert ledger.spent("c") is ledger.guarantee("c") is None
        assert ledger.guarantee("a") == (NOISE.times(2) + SAMPLED).guarantee(DELTA)
        assert ledger.guarantee("b", Adjacency.REPLACE_ONE) == NOISE.replaced().guarantee(DELTA)
        ledger.charge(2, "noise", ["c"])
    with PrivacyLedger.open(path) as ledger:
        assert ledger.spent("c") == NOISE


def test_export_is_json_with_both_epsilons(path):
    with PrivacyLedger.open(path) as ledger:
        exported = json.loads(json.dumps(ledger.export(), allow_nan=False))
        both = [ledger.guarantee("a", adjacency).epsilon for adjacency in Adjacency]
    assert exported["clients"]["a"] == {
        "releases": {"noise": 2, "sampled": 1},
        "zero_out": both[0],
        "replace_one": both[1],
    }
    assert exported["largest"] == {"zero_out": both[0], "replace_one": both[1]}
    assert exported["mechanisms"] == {"noise": {"manifest": "ab" * 32}, "sampled": {}}
    assert (exported["run"], exported["delta"], exported["budget"]) == ("run 1", "1/100000", "3")
    assert exported["head"]["records"] == 6


def test_an_empty_ledger_is_exported_too(tmp_path):
    with PrivacyLedger.create(tmp_path / "ledger", "run", delta=DELTA) as ledger:
        assert ledger.export()["largest"] == {"zero_out": 0.0, "replace_one": 0.0}
        assert ledger.export()["budget"] is None


def test_a_budget_is_kept_to_the_last_release(path):
    with PrivacyLedger.open(path) as ledger:
        left = ledger.left("b", "noise")
        assert left > 1
        for number in range(left):
            ledger.charge(2 + number, "noise", ["b"])
        assert ledger.left("b", "noise") == 0
        assert ledger.guarantee("b").epsilon <= 3
        size = path.stat().st_size
        with pytest.raises(StateError, match="would take 1 clients, 'b' among them, beyond the budget of epsilon 3"):
            ledger.charge(99, "noise", ["new", "b"])
        assert path.stat().st_size == size
        assert ledger.spent("new") is None


@given(st.lists(st.tuples(st.sampled_from(["noise", "sampled"]), st.sets(st.sampled_from("abc"))), max_size=12))
@settings(max_examples=12)
def test_any_sequence_of_charges_adds_up(tmp_path_factory, charges):
    path = tmp_path_factory.mktemp("ledger") / "ledger"
    with PrivacyLedger.create(path, "run", delta=DELTA) as ledger:
        ledger.declare("noise", NOISE)
        ledger.declare("sampled", SAMPLED)
        for number, (mechanism, clients) in enumerate(charges):
            ledger.charge(number, mechanism, sorted(clients))
    with PrivacyLedger.open(path) as ledger:
        for client in "abc":
            counts = {name: sum(name == kind and client in who for kind, who in charges) for name in ledger.mechanisms}
            expected = NOISE.times(counts["noise"]) + SAMPLED.times(counts["sampled"])
            assert (ledger.spent(client) or NOISE.times(0)) == expected


def test_nothing_is_charged_if_it_cannot_be_written(path, monkeypatch):
    def full(*_):
        raise StorageError("the disk is full")

    with PrivacyLedger.open(path) as ledger:
        monkeypatch.setattr(Journal, "append", full)
        with pytest.raises(StorageError):
            ledger.charge(2, "noise", ["b"])
        assert ledger.spent("b") == NOISE


def test_a_torn_charge_was_not_released(path):
    with path.open("ab") as stream:
        stream.write(b"0123")
    with PrivacyLedger.open(path) as ledger:
        assert ledger.spent("b") == NOISE


def test_a_release_that_has_a_name_is_charged_once(path):
    for _ in range(2):
        with PrivacyLedger.open(path) as ledger:
            for name in ("one sum", "another"):
                ledger.charge(2, "noise", ["b"], release=name)
            assert ledger.spent("b") == NOISE.times(3)
            with pytest.raises(UnknownNameError):
                ledger.charge(2, "silence", ["b"], release="one sum")


def test_a_declaration_is_kept(path):
    with PrivacyLedger.open(path) as ledger:
        records = ledger.head.records
        ledger.declare("noise", NOISE, manifest="ab" * 32)
        assert ledger.head.records == records
        with pytest.raises(InvalidValueError, match="'noise' is declared with another cost"):
            ledger.declare("noise", SAMPLED)
        with pytest.raises(InvalidValueError, match="a curve of zero_out, got one of replace_one"):
            ledger.declare("other", NOISE.replaced())


def test_charges_that_are_none(path):
    with PrivacyLedger.open(path) as ledger:
        with pytest.raises(UnknownNameError, match=r"unknown mechanism 'nois' \(did you mean 'noise'"):
            ledger.charge(3, "nois", ["a"])
        with pytest.raises(InvalidValueError, match="every client once, got 2 names of 1 clients"):
            ledger.charge(3, "noise", ["a", "a"])
        with pytest.raises(InvalidValueError, match="round to be a whole number >= 0, got round=-1"):
            ledger.charge(-1, "noise", ["a"])


def test_a_ledger_without_a_budget_projects_nothing(tmp_path):
    with PrivacyLedger.create(tmp_path / "ledger", "run", delta=DELTA) as ledger:
        ledger.declare("noise", NOISE)
        ledger.charge(0, "noise", ["a"])
        with pytest.raises(InvalidValueError, match="expected a ledger with a budget"):
            ledger.left("a", "noise")


@pytest.mark.parametrize(("delta", "budget"), [(Fraction(0), None), (Fraction(1), None), (DELTA, Fraction(0))])
def test_ledgers_that_are_none(tmp_path, delta, budget):
    with pytest.raises(InvalidValueError, match="expected 0 < delta < 1 and a budget > 0"):
        PrivacyLedger.create(tmp_path / "ledger", "run", delta=delta, budget=budget)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "records",
    [
        [{}],
        [{"kind": "other"}],
        [{"kind": "matl privacy ledger", "run": "r", "delta": "x", "budget": None}],
        [{"kind": "matl privacy ledger", "run": "r", "delta": "1/2", "budget": None}, {"surprise": 1}],
        [
            {"kind": "matl privacy ledger", "run": "r", "delta": "1/2", "budget": None},
            {"charge": "x", "clients": ["a"]},
        ],
        [{"kind": "matl privacy ledger", "run": "r", "delta": "1/2", "budget": None}, {"declare": "x", "curve": {}}],
    ],
)
def test_journals_that_are_no_ledgers(tmp_path, records):
    with Journal.create(tmp_path / "ledger", records[0]) as journal:
        for record in records[1:]:
            journal.append(record)
    with pytest.raises(StateError, match="is no privacy ledger that can be read"):
        PrivacyLedger.open(tmp_path / "ledger")
    Journal.open(tmp_path / "ledger").close()  # the refusal has given the file back
