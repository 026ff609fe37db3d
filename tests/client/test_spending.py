"""What a client's folder holds about what it has sent, before it is sent and after something was lost."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import pytest

from matl.client.folder import ClientFolder
from matl.client.spending import LEDGER, Spending
from matl.errors import InvalidValueError, StateError, StorageError
from matl.files import write_atomic
from matl.journal import Head, read_journal
from matl.privacy.certificate import Instance
from matl.privacy.counter import TransmissionCounter
from matl.privacy.ledger import PrivacyLedger
from matl.privacy.manifest import Manifest
from matl.privacy.table import skellam_table

INSTANCE = Instance(
    4, skellam_table("3/8").counts, 40, 16, Fraction(1, 32), Fraction(1, 3), 30, Fraction(1, 1000), ((1, 32),), 1, 2
)
MANIFEST = Manifest(INSTANCE, block=64, kept=24, clip_norm=Fraction(1))
OTHER = replace(MANIFEST, clip_norm=Fraction(2))  # it costs the same
SENT = f"sent-{MANIFEST.sha256}"
WHOLE = 6.5170977  # epsilon of all its rounds, at a delta of 1e-5


@pytest.fixture
def folder(tmp_path):
    with ClientFolder(tmp_path / "alice", client_id="alice") as folder:
        yield folder


@pytest.fixture
def spending_of(folder):
    """Opens what a process would find."""
    opened = []

    def make(max_epsilon=None):
        for each in opened:
            each.close()
        opened.append(Spending(folder, max_epsilon))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def state(folder):
    """Rounds that were charged, and how many messages were counted."""
    ledger, counter = (read_journal(folder.path / name)[0] for name in (LEDGER, SENT))
    return [each["round"] for each in ledger if "charge" in each], len(counter) - 1


def test_messages_are_charged_and_counted_once_each(folder, spending_of):
    spending = spending_of()
    for number, message in ((0, b"first"), (0, b"first"), (4, b"second"), (4, b"second")):
        spending.charge(number, MANIFEST, message)
    assert state(folder) == ([0, 4], 2)
    spending_of().charge(4, MANIFEST, b"second")  # by a process that began anew
    assert state(folder) == ([0, 4], 2)
    spending_of().charge(5, MANIFEST, b"third")
    assert state(folder) == ([0, 4, 5], 3)
    for name in (LEDGER, SENT):
        head = read_journal(folder.path / name)[1]
        assert folder.witness(name) == head
        assert json.loads((folder.path / "client.json").read_text())["journals"][name] == head._asdict()


def test_a_crash_before_the_count_costs_a_release_and_no_transmission(folder, spending_of, monkeypatch):
    spending = spending_of()
    with monkeypatch.context() as patch:
        patch.setattr(
            TransmissionCounter, "reserve", lambda *_: (_ for _ in ()).throw(StorageError("the disk is full"))
        )
        with pytest.raises(StorageError):
            spending.charge(0, MANIFEST, b"never sent")
    assert state(folder) == ([0], 0)
    spending_of().charge(1, MANIFEST, b"sent")
    assert state(folder) == ([0, 1], 1)
    spending_of().charge(1, MANIFEST, b"sent")
    assert state(folder) == ([0, 1], 1)


@pytest.mark.parametrize("name", [SENT, LEDGER])
def test_a_disk_that_was_full_does_not_end_the_count(folder, spending_of, monkeypatch, name):
    spending = spending_of()
    spending.charge(0, MANIFEST, b"first")
    with monkeypatch.context() as patch:
        written = []

        def full(path, content):
            written.append(path.name)
            if path.name == f"{name}.head":
                raise StorageError("the disk is full")
            write_atomic(path, content)

        patch.setattr("matl.journal.write_atomic", full)
        with pytest.raises(StorageError, match="the disk is full"):
            spending.charge(1, MANIFEST, b"second")
        assert written[-1] == f"{name}.head"
    spending.charge(2, MANIFEST, b"third")  # the same object, with room again
    spending.charge(2, MANIFEST, b"third")
    assert state(folder) == ([0, 1, 2], 3 if name == SENT else 2)
    assert [folder.witness(each) for each in (LEDGER, SENT)] == [
        read_journal(folder.path / each)[1] for each in (LEDGER, SENT)
    ]


@pytest.mark.parametrize("sent", [0, 2])
def test_a_ledger_is_not_begun_where_something_was_sent(folder, spending_of, sent):
    spending = spending_of()
    spending.require(MANIFEST, new=True)
    for number in range(sent):
        spending.charge(number, MANIFEST, b"%d" % number)
    spending.close()
    for path in folder.path.glob(f"{LEDGER}*"):
        path.unlink()
    file = folder.path / "client.json"  # what it remembers is lost too
    file.write_text(json.dumps({**json.loads(file.read_text()), "journals": {}}))
    folder.close()
    with ClientFolder(folder.path) as again:
        spending = Spending(again, 9.0)
        if sent:
            for act in (
                lambda: spending.require(OTHER, new=True),
                lambda: spending.charge(9, MANIFEST, b"more"),
            ):
                with pytest.raises(StateError, match=r"privacy\.ledger is lost: .* counts 2 transmissions"):
                    act()
            assert not (folder.path / LEDGER).exists()
        else:
            spending.require(OTHER, new=True)
        spending.close()


def test_closing_waits_for_a_charge_and_nothing_is_opened_after_it(folder, spending_of, monkeypatch):
    spending, charging, go_on = spending_of(), threading.Event(), threading.Event()
    charge = PrivacyLedger.charge

    def slow(*arguments, **keywords):
        charging.set()
        assert go_on.wait(10)
        charge(*arguments, **keywords)

    monkeypatch.setattr(PrivacyLedger, "charge", slow)
    with ThreadPoolExecutor(2) as pool:
        charged = pool.submit(spending.charge, 0, MANIFEST, b"first")
        assert charging.wait(10)
        closed = pool.submit(spending.close)
        with pytest.raises(TimeoutError):
            closed.result(0.1)
        go_on.set()
        charged.result(10)
        closed.result(10)
    assert state(folder) == ([0], 1)
    for act in (lambda: spending.require(MANIFEST, new=False), lambda: spending.charge(1, MANIFEST, b"late")):
        with pytest.raises(StateError, match="this client was closed"):
            act()
    spending.close()
    assert state(folder) == ([0], 1)


def test_threads_charge_one_after_the_other(folder, spending_of):
    spending = spending_of()
    with ThreadPoolExecutor(4) as pool:
        rounds = range(8)
        list(pool.map(lambda number: spending.charge(number, MANIFEST, b"%d" % number), rounds))
        list(pool.map(lambda number: folder.take_part(f"run-{number}", number), rounds))
    rounds, sent = state(folder)
    assert (sorted(rounds), sent) == (list(range(8)), 8)
    content = json.loads((folder.path / "client.json").read_text())
    assert content["last_rounds"] == {f"run-{number}": number for number in range(8)}


def test_what_cannot_be_written_is_not_remembered(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            "matl.client.folder.write_atomic", lambda *_: (_ for _ in ()).throw(StorageError("the disk is full"))
        )
        with pytest.raises(StorageError):
            folder.remember({"x": Head(1, "ab")})
        with pytest.raises(StorageError):
            folder.pin_manifest("run", "ab")
    assert (folder.witness("x"), dict(folder.manifests)) == (None, {})
    folder.remember({"x": Head(1, "ab")})
    assert json.loads((folder.path / "client.json").read_text())["journals"] == {"x": {"records": 1, "chain": "ab"}}


@pytest.mark.parametrize("name", [SENT, LEDGER])
@pytest.mark.parametrize("sent", [0, 2])
@pytest.mark.parametrize("suffixes", [("", ".head"), ("",), (".head",)])
def test_a_journal_that_is_lost_is_not_begun_anew(folder, spending_of, name, sent, suffixes):
    spending = spending_of()
    spending.require(MANIFEST, new=True)
    for number in range(sent):
        spending.charge(number, MANIFEST, b"%d" % number)
    spending.close()
    for suffix in suffixes:
        (folder.path / f"{name}{suffix}").unlink()
    for act in (
        lambda one: one.require(MANIFEST, new=False),
        lambda one: one.charge(9, MANIFEST, b"more"),
    ):
        with pytest.raises(StateError, match=r"is lost: .*new client folder|is lost: how many records"):
            act(spending_of())


@pytest.mark.parametrize("name", [SENT, LEDGER])
def test_a_journal_that_was_put_back_is_seen_by_what_the_folder_remembers(folder, spending_of, name):
    spending = spending_of()
    spending.charge(0, MANIFEST, b"first")
    files = [folder.path / name, folder.path / f"{name}.head"]
    old = [file.read_bytes() for file in files]
    spending.charge(1, MANIFEST, b"second")
    spending.close()
    for file, content in zip(files, old, strict=True):
        file.write_bytes(content)
    with pytest.raises(StateError, match="was cut off or rolled back"):
        spending_of().require(MANIFEST, new=False)


def test_the_transmissions_of_a_manifest_end(folder, spending_of):
    once = replace(MANIFEST, instance=replace(INSTANCE, transmissions=1))
    spending = spending_of()
    spending.charge(0, once, b"only")
    spending.charge(0, once, b"only")
    for act in (lambda: spending.require(once, new=False), lambda: spending.charge(1, once, b"more")):
        with pytest.raises(StateError, match="alice has used all 1 transmissions"):
            act()


def test_a_manifest_that_is_not_agreed_to_leaves_no_trace(folder, spending_of):
    with pytest.raises(InvalidValueError, match="nothing was agreed to"):
        spending_of(max_epsilon=6.5).require(MANIFEST, new=True)
    assert not list(folder.path.glob("sent-*"))
    assert folder.witness(SENT) is None
    assert SENT not in (folder.path / "client.json").read_text()
    spending_of(max_epsilon=WHOLE + 1e-6).require(MANIFEST, new=True)
    assert folder.witness(SENT) == read_journal(folder.path / SENT)[1]


def test_a_manifest_is_new_only_to_who_can_afford_all_of_it(spending_of):
    spending_of(max_epsilon=WHOLE + 1e-6).require(MANIFEST, new=True)
    with pytest.raises(InvalidValueError, match=r"30 rounds .* from epsilon 0 to 6\.517 .* at most max_epsilon=6\.5;"):
        spending_of(max_epsilon=6.5).require(MANIFEST, new=True)


def test_the_limit_is_over_all_manifests_and_survives_a_restart(folder, spending_of):
    spending = spending_of(max_epsilon=WHOLE + 1e-6)
    for number in range(20):
        spending.charge(number, MANIFEST, b"%d" % number)
    spending.require(MANIFEST, new=False)
    spending = spending_of(max_epsilon=WHOLE + 1e-6)
    with pytest.raises(InvalidValueError, match=r"30 rounds .* from epsilon 5\.\d+ to "):
        spending.require(OTHER, new=True)
    for number in range(10):  # of a manifest that was agreed to before there was a limit
        spending.charge(number, OTHER, b"%d" % number)
    before = [read_journal(folder.path / name)[1] for name in (LEDGER, SENT)]
    for manifest in (MANIFEST, OTHER):
        for act in (
            lambda manifest=manifest: spending.require(manifest, new=False),
            lambda manifest=manifest: spending.charge(20, manifest, b"one too many"),
        ):
            with pytest.raises(StateError, match=r"another round .* from epsilon 6\.517 to .* beyond max_epsilon"):
                act()
    spending.charge(9, OTHER, b"9")  # sent again, it tells nothing new
    assert before == [read_journal(folder.path / name)[1] for name in (LEDGER, SENT)]
    spending_of(max_epsilon=7.5).charge(20, MANIFEST, b"one more")


def test_no_coordinator_makes_an_epsilon_small_by_its_delta(spending_of):
    lax = replace(MANIFEST, instance=replace(INSTANCE, delta=Fraction(99, 100)))
    assert float(str(lax.certificate.zero_out)) < 3
    with pytest.raises(InvalidValueError, match=r"to 6\.517 \(zero-out, delta 1e-05\)"):
        spending_of(max_epsilon=3.0).require(lax, new=True)


@pytest.mark.parametrize("journals", [[], {"x": 3}, {"x": {"records": 1}}, {"x": {"records": "?", "chain": "ab"}}])
def test_a_note_that_says_something_else_of_journals(tmp_path, journals):
    ClientFolder(tmp_path).close()
    file = tmp_path / "client.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "journals": journals}))
    if journals == []:
        ClientFolder(tmp_path).close()
        return
    with pytest.raises(StateError, match=r"client\.json cannot be read"):
        ClientFolder(tmp_path)


def test_heads_stay(tmp_path):
    with ClientFolder(tmp_path) as folder:
        assert folder.witness("x") is None
        folder.remember({"x": Head(1, "ab"), "y": Head(2, "cd")})
        folder.remember({"x": Head(3, "ef")})
    with ClientFolder(tmp_path) as folder:
        assert (folder.witness("x"), folder.witness("y")) == (Head(3, "ef"), Head(2, "cd"))
