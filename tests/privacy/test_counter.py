"""The transmission counter: counts before it is sent, never more than T, and not under another manifest."""

from dataclasses import replace
from fractions import Fraction

import pytest

from matl.errors import InvalidValueError, StateError
from matl.journal import Journal
from matl.privacy.certificate import Instance
from matl.privacy.counter import TransmissionCounter
from matl.privacy.ledger import PrivacyLedger
from matl.privacy.manifest import Manifest
from matl.privacy.table import skellam_table

INSTANCE = Instance(
    3, skellam_table("1/4").counts, 40, 8, Fraction(1, 16), Fraction(1, 4), 3, Fraction(1, 1000), ((1, 12),), 1
)
MANIFEST = Manifest(INSTANCE, block=64, kept=24, clip_norm=Fraction(1))


@pytest.fixture
def path(tmp_path):
    TransmissionCounter.create(tmp_path / "sent", "alice", MANIFEST).close()
    return tmp_path / "sent"


def test_it_counts_to_the_end_over_restarts(path):
    for number in (1, 2, 3):
        with TransmissionCounter.open(path, MANIFEST) as counter:
            assert (counter.client, counter.used, counter.left) == ("alice", number - 1, 4 - number)
            assert counter.reserve(bytes([number])) == number
    with TransmissionCounter.open(path, MANIFEST) as counter:
        assert counter.reserve(bytes([3])) == 3  # a retry of the last
        with pytest.raises(StateError, match="alice has used all 3 transmissions of its manifest"):
            counter.reserve(bytes([4]))
        assert counter.left == 0


def test_a_retry_is_free_only_with_the_very_bytes_of_the_last(path):
    with TransmissionCounter.open(path, MANIFEST) as counter:
        assert counter.reserve(b"first") == counter.reserve(b"first") == 1
        assert counter.reserve(b"second") == 2
        assert counter.reserve(b"first") == 3


def test_it_is_on_the_disk_before_reserve_returns(path):
    with TransmissionCounter.open(path, MANIFEST) as counter:
        counter.reserve(b"message")
        assert path.read_bytes().count(b"\n") == 2


def test_a_torn_record_costs_a_transmission(path):
    with path.open("ab") as stream:
        stream.write(b"0123")
    with TransmissionCounter.open(path, MANIFEST) as counter:
        assert (counter.used, counter.left) == (1, 2)


def test_a_lost_or_rolled_back_counter_is_refused(path):
    content = path.read_bytes()
    with TransmissionCounter.open(path, MANIFEST) as counter:
        counter.reserve(b"message")
        head = counter.head
    path.write_bytes(content)
    with pytest.raises(StateError, match="was cut off or rolled back: it had 2 records, and has 1"):
        TransmissionCounter.open(path, MANIFEST)
    path.unlink()
    with pytest.raises(StateError, match="sent is lost"):
        TransmissionCounter.open(path, MANIFEST)
    with pytest.raises(StateError, match=r"sent\.head is there already"):
        TransmissionCounter.create(path, "alice", MANIFEST)
    path.with_name("sent.head").unlink()
    TransmissionCounter.create(path, "alice", MANIFEST).close()  # both are gone: only a witness can tell
    with pytest.raises(StateError, match="it had 2 records, and has 1"):
        TransmissionCounter.open(path, MANIFEST, witness=head)


def test_another_manifest_has_a_count_of_its_own(path):
    longer = replace(MANIFEST, instance=replace(INSTANCE, transmissions=300))
    with pytest.raises(StateError, match=f"does not count transmissions under manifest {longer.sha256}"):
        TransmissionCounter.open(path, longer)
    TransmissionCounter.open(path, MANIFEST).close()  # the refusal has given the file back


def test_other_journals_are_none(tmp_path):
    Journal.create(tmp_path / "other", {"kind": "something else"}).close()
    with pytest.raises(StateError, match="does not count transmissions"):
        TransmissionCounter.open(tmp_path / "other", MANIFEST)
    PrivacyLedger.create(tmp_path / "ledger", "run", delta=Fraction(1, 10)).close()
    with pytest.raises(StateError, match="does not count transmissions"):
        TransmissionCounter.open(tmp_path / "ledger", MANIFEST)


def test_an_empty_message_is_none(path):
    with (
        TransmissionCounter.open(path, MANIFEST) as counter,
        pytest.raises(InvalidValueError, match="bytes to be a whole number >= 1"),
    ):
        counter.reserve(b"")
