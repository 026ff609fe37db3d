"""The journal: what it holds is on the disk, and whatever is lost, cut off, rolled back or changed is noticed."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matl.errors import StateError, StorageError
from matl.journal import Head, Journal, read_journal

RECORDS = [{"kind": "test"}, {"n": 1, "name": "a b\n\u00e9"}, {"n": 2, "list": [1, None, "x"]}, {"n": 3}]


@pytest.fixture
def path(tmp_path):
    """A journal of four records."""
    made = tmp_path / "journal"
    with Journal.create(made, RECORDS[0]) as journal:
        for record in RECORDS[1:]:
            journal.append(record)
    return made


def head_of(path):
    return path.with_name(path.name + ".head")


def refused(path, message, **witness):
    with pytest.raises(StateError, match=message):
        Journal.open(path, **witness)


def test_it_goes_on_where_it_was(path):
    with Journal.open(path) as journal:
        assert journal.records == RECORDS
        journal.append({"n": 4})
        head = journal.head
    with Journal.open(path) as journal:
        assert journal.records == [*RECORDS, {"n": 4}]
        assert journal.head == head
        assert head.records == 5


def test_golden_bytes(path):
    lines = path.read_bytes().split(b"\n")
    assert lines[0] == b'172b1c11e60394ee13cb2e06c99191b5e69fde14b620b34eb2ede4c7067abd23 {"kind":"test"}'
    assert lines[1].endswith(rb' {"n":1,"name":"a b\n\u00e9"}')
    assert lines[4] == b""
    assert json.loads(head_of(path).read_bytes()) == {"records": 4, "chain": lines[3][:64].decode()}


def test_a_record_is_on_the_disk_before_append_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with Journal.open(path) as journal:
        before = path.stat().st_size
        journal.append({"n": 4})
        assert synced[0] == path.stat().st_size > before


# What is noticed


def test_a_new_one_is_created_on_purpose_and_once(tmp_path, path):
    refused(tmp_path / "none", "does not exist; a new one has to be created on purpose, once")
    with pytest.raises(StateError, match="journal is there already: open the journal instead"):
        Journal.create(path, {})
    path.unlink()
    with pytest.raises(StateError, match=r"journal\.head is there already"):
        Journal.create(path, {})


def test_a_lost_file_is_noticed(path):
    path.rename(path.with_name("kept"))
    refused(path, "journal is lost: its head is there, with 4 records; put the file back")
    path.with_name("kept").rename(path)
    head_of(path).unlink()
    refused(path, "journal.head is lost: how many records .* had cannot be known")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"records": 0, "chain": ""}', b'{"records": "4", "chain": "x"}']
)
def test_a_damaged_head_is_noticed(path, content):
    head_of(path).write_bytes(content)
    refused(path, "journal.head cannot be read")


def test_a_journal_that_was_rolled_back_or_cut_off_is_noticed(path):
    content = path.read_bytes()
    with Journal.open(path) as journal:
        journal.append({"n": 4})
    path.write_bytes(content)
    refused(path, "was cut off or rolled back: it had 5 records, and has 4")


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_it_is_cut_off_it_is_refused(path, data):
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        refused(path, "was cut off or rolled back: it had 4 records")
    finally:
        path.write_bytes(whole)


@given(st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_byte_is_changed_it_is_refused(path, data):
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(changed)
        refused(path, "is damaged: record|was cut off or rolled back")
    finally:
        path.write_bytes(whole)


def test_a_forged_record_with_a_right_hash_is_noticed_by_its_head(path, tmp_path):
    with Journal.create(tmp_path / "other", RECORDS[0]) as journal:
        for record in [*RECORDS[1:3], {"n": 33}]:
            journal.append(record)
    shutil.copy(tmp_path / "other", path)
    refused(path, "is another journal than is known: record 4 differs")


def test_both_files_rolled_back_are_noticed_by_a_witness_alone(path, tmp_path):
    shutil.copytree(tmp_path, tmp_path / "backup")
    with Journal.open(path) as journal:
        early = journal.head
        journal.append({"n": 4})
        late = journal.head
    for name in (path.name, head_of(path).name):
        shutil.copy(tmp_path / "backup" / name, tmp_path / name)
    Journal.open(path).close()  # nothing in the files says so
    Journal.open(path, witness=early).close()
    refused(path, "was cut off or rolled back: it had 5 records, and has 4", witness=late)
    refused(path, "is another journal than is known: record 4 differs", witness=Head(4, late.chain))


def test_an_older_witness_is_part_of_a_longer_journal(path):
    with Journal.open(path) as journal:
        witness = journal.head
        journal.append({"n": 4})
    Journal.open(path, witness=witness).close()


# Crashes


@pytest.mark.parametrize("kept", [1, 40, 64, 65, 70])
def test_a_torn_last_record_is_recognised(path, kept):
    whole = path.read_bytes()
    with Journal.open(path) as journal:
        size = path.stat().st_size
        journal.append({"torn soon": True})
    line = path.read_bytes()[size:]
    path.write_bytes(whole + line[:kept])  # the crash came before the head was written
    head_of(path).write_text(json.dumps({"records": 4, "chain": whole.split(b"\n")[3][:64].decode()}))
    with Journal.open(path) as journal:
        assert journal.records == [*RECORDS, {"torn": kept}]
        journal.append({"n": 5})
    with Journal.open(path) as journal:
        assert journal.records == [*RECORDS, {"torn": kept}, {"n": 5}]


def test_a_crash_between_record_and_head_loses_nothing(path):
    before = head_of(path).read_bytes()
    with Journal.open(path) as journal:
        journal.append({"n": 4})
    head_of(path).write_bytes(before)
    with Journal.open(path) as journal:
        assert len(journal.records) == 5


def test_a_tail_that_is_no_torn_record(path):
    with path.open("ab") as stream:
        stream.write(b"x" * ((1 << 20) + 5))
    refused(path, "is damaged: what follows record 4 is none")


def test_a_full_disk_is_said_and_what_was_written_of_the_record_is_torn(path, monkeypatch):
    journal, write = Journal.open(path), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:10]))
    with pytest.raises(StorageError, match="only 10 of 73 bytes were taken"):
        journal.append({"n": 4})
    monkeypatch.undo()
    with Journal.open(path) as journal:
        assert journal.records == [*RECORDS, {"torn": 10}]


def test_a_head_that_cannot_be_written_closes_the_journal(path, monkeypatch):
    journal = Journal.open(path)

    def full(*_):
        raise StorageError("cannot write: the disk is full")

    monkeypatch.setattr("matl.journal.write_atomic", full)
    with pytest.raises(StorageError, match="the disk is full"):
        journal.append({"n": 4})
    monkeypatch.undo()
    with Journal.open(path) as journal:
        assert journal.records[-1] == {"n": 4}  # counted, which is the safe side


def broken(path, monkeypatch):
    """A journal whose last record, and no more, stands in the file though it was refused."""
    journal = Journal.open(path)
    monkeypatch.setattr("matl.journal.write_atomic", lambda *_: (_ for _ in ()).throw(StorageError("full")))
    with pytest.raises(StorageError):
        journal.append({"n": 4})
    monkeypatch.undo()
    assert (journal.records, journal.head.records) == (RECORDS, 4)
    return journal


def test_reopened_a_journal_does_not_hold_what_it_refused(path, monkeypatch):
    before = path.read_bytes()
    with broken(path, monkeypatch) as journal:
        assert path.read_bytes() != before
        journal.reopen()
        assert path.read_bytes() == before
        journal.append({"n": 5})
        journal.reopen()  # and what was written stays
        head = journal.head
    with Journal.open(path, head) as journal:
        assert journal.records == [*RECORDS, {"n": 5}]


def test_reopened_a_journal_has_the_head_of_what_it_holds(path, monkeypatch):
    before = head_of(path).read_bytes()
    with Journal.open(path) as journal:
        monkeypatch.setattr("matl.files.sync_directory", lambda _: (_ for _ in ()).throw(OSError(5, "I/O error")))
        with pytest.raises(StorageError, match="I/O error"):
            journal.append({"n": 4})  # whose head was put in its place already
        assert head_of(path).read_bytes() != before
        with pytest.raises(StorageError, match="I/O error"):
            journal.reopen()
        monkeypatch.undo()
        journal.reopen()
        assert head_of(path).read_bytes() == before
    with Journal.open(path) as journal:
        assert journal.records == RECORDS


def test_only_what_was_refused_is_taken_out(path, monkeypatch):
    with broken(path, monkeypatch) as journal:
        with Journal.open(path) as other:
            with pytest.raises(StateError, match="is used by another process"):
                journal.reopen()
            other.append({"n": 5})
        content = path.read_bytes()
        with pytest.raises(StateError, match="was changed by somebody else"):
            journal.reopen()
        assert path.read_bytes() == content
        path.write_bytes(b"".join(content.splitlines(keepends=True)[:3]))
        with pytest.raises(StateError, match="was cut off or rolled back: it had 4 records, and has 3"):
            journal.reopen()
        path.unlink()
        with pytest.raises(StorageError, match="No such file"):
            journal.reopen()


def test_a_folder_that_cannot_be_written(tmp_path, path):
    with pytest.raises(StorageError):
        Journal.create(tmp_path / "no" / "journal", {})
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError):
        Journal.open(path)


def test_a_creation_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(StateError, match="records of up to"):
        Journal.create(tmp_path / "journal", {"long": "x" * (1 << 20)})
    assert not list(tmp_path.iterdir())


# Sharing


def test_one_process_at_a_time(path):
    with Journal.open(path):
        refused(path, "is used by another process")
    Journal.open(path).close()


def test_a_copy_of_the_process_may_not_write(path, monkeypatch):
    with Journal.open(path) as journal:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(StateError, match="and this is a copy of it: open it anew"):
            journal.append({"n": 4})


def test_a_file_that_somebody_else_changed_is_not_appended_to(path):
    with Journal.open(path) as journal:
        with path.open("ab") as stream:
            stream.write(b"x")
        with pytest.raises(StateError, match="was changed by somebody else"):
            journal.append({"n": 4})


def test_records_have_a_limit(path):
    with Journal.open(path) as journal:
        with pytest.raises(StateError, match="records of up to 1048576 bytes"):
            journal.append({"long": "x" * (1 << 20)})
        journal.append({"n": 4})
        assert len(journal.records) == 5


def test_closing_twice_is_once(path):
    journal = Journal.open(path)
    journal.close()
    journal.close()
    assert Path(path).exists()


# Looking


def test_looking_changes_nothing_and_needs_no_lock(path):
    with path.open("ab") as stream:
        stream.write(b"half a line")
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    records, head = read_journal(path)
    assert records == RECORDS
    assert head.records == 4
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before
    with Journal.open(path) as journal:
        assert read_journal(path) == (journal.records, journal.head)


def test_a_copy_without_its_head_is_read_with_a_witness(path):
    _, head = read_journal(path)
    head_of(path).unlink()
    assert read_journal(path, head) == (RECORDS, head)
    with pytest.raises(StateError, match=r"journal\.head is lost"):
        read_journal(path)
    with pytest.raises(StateError, match="was cut off or rolled back: it had 5 records, and has 4"):
        read_journal(path, Head(5, head.chain))


def test_the_head_counts_beside_a_witness_that_knows_less(path):
    lines = path.read_bytes().splitlines(keepends=True)
    early = Head(2, lines[1][:64].decode())
    assert read_journal(path, early)[1].records == 4
    path.write_bytes(b"".join(lines[:3]))
    with pytest.raises(StateError, match="was cut off or rolled back: it had 4 records, and has 3"):
        read_journal(path, early)


def test_looking_at_what_is_no_journal(path, tmp_path):
    with pytest.raises(StateError, match="does not exist"):
        read_journal(tmp_path / "none")
    with pytest.raises(StateError, match="cannot be read: No such file"):
        read_journal(tmp_path / "none", Head(1, ""))
    with pytest.raises(StateError, match="cannot be read: Is a directory"):
        read_journal(tmp_path, Head(1, ""))


def test_nesting_without_end_is_damage(path):
    head = json.loads(head_of(path).read_bytes())
    text = '{"a":' * 20_000
    chain = hashlib.sha256(f"{head['chain']} {text}".encode()).hexdigest()
    with path.open("ab") as stream:
        stream.write(f"{chain} {text}\n".encode())
    with pytest.raises(StateError, match="is damaged: record 5"):
        read_journal(path)
    head_of(path).write_text("[" * 100_000)
    refused(path, "journal.head cannot be read")
