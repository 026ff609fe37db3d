"""The audit log: on the disk before it is acknowledged, and what is changed or cut off is named."""

import errno
import json
import os
import threading
from datetime import UTC, datetime

import pytest

from matl import files
from matl.attest.audit_log import AuditLog, read_audit_log
from matl.errors import InvalidValueError, StateError, StorageError
from matl.journal import Head, Journal

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ACTIONS = [("carol", "invite", "alice", {"uses": 1}), ("carol", "revoke", "bob", {}), ("dave", "undo", "round 3", {})]


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "audit.log"
    with AuditLog.create(made, lambda: NOW) as log:
        for action in ACTIONS:
            log.append(*action)
    return made


def test_it_goes_on_where_it_was(path):
    with AuditLog.open(path, clock=lambda: NOW) as log:
        entry = log.append("carol", "release", "bob")
        head = log.head
    entries, found = read_audit_log(path, head)
    assert found == head == Head(5, found.chain)
    assert entries[-1] == entry
    assert [entry.index for entry in entries] == [2, 3, 4, 5]
    assert {entry.time for entry in entries} == {1893456000000}
    assert [(entry.actor, entry.action, entry.subject, entry.details) for entry in entries[:3]] == ACTIONS


def test_an_action_is_on_the_disk_before_it_is_acknowledged(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with AuditLog.open(path) as log:
        log.append("carol", "release", "bob")
    assert synced[0] == path.stat().st_size


@pytest.mark.parametrize("line", [1, 2, 3, 4])
def test_the_first_broken_line_is_named(path, line):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b"a", b"e")
    path.write_bytes(b"".join(lines))
    with pytest.raises(StateError, match=f"is damaged: record {line} does not follow"):
        read_audit_log(path)


@pytest.mark.parametrize("line", [2, 3])
def test_a_line_that_was_taken_out_moved_or_repeated_is_noticed(path, line):
    lines = path.read_bytes().splitlines(keepends=True)
    without = lines[: line - 1] + lines[line:]
    exchanged = [*lines[: line - 1], lines[line], lines[line - 1], *lines[line + 1 :]]
    repeated = lines[:line] + lines[line - 1 :]
    for changed, broken in ((without, line), (exchanged, line), (repeated, line + 1)):
        path.write_bytes(b"".join(changed))
        with pytest.raises(StateError, match=f"is damaged: record {broken} does not follow"):
            read_audit_log(path)


def test_an_end_that_was_cut_off_is_noticed(path):
    lines = path.read_bytes().splitlines(keepends=True)
    with AuditLog.open(path) as log:
        witness = log.head
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(StateError, match="was cut off or rolled back: it had 4 records, and has 3"):
        read_audit_log(path)
    head = {"records": 3, "chain": lines[2][:64].decode()}
    path.with_name("audit.log.head").write_text(json.dumps(head))  # whoever cuts cleverly mends the head too
    assert len(read_audit_log(path)[0]) == 2
    with pytest.raises(StateError, match="was cut off or rolled back: it had 4 records, and has 3"):
        read_audit_log(path, witness)


def test_a_log_that_was_written_anew_is_noticed_by_a_witness(path, tmp_path):
    with AuditLog.open(path) as log:
        witness = log.head
    with AuditLog.create(tmp_path / "forged") as log:
        for action in [*ACTIONS, ACTIONS[0]]:
            log.append(*action)
    assert len(read_audit_log(tmp_path / "forged")[0]) == 4
    with pytest.raises(StateError, match="is another journal than is known: record 4 differs"):
        read_audit_log(tmp_path / "forged", witness)


def test_what_a_crash_tore_is_no_action(path):
    with path.open("ab") as stream:
        stream.write(b"0123")
    assert len(read_audit_log(path)[0]) == 3
    with AuditLog.open(path) as log:
        assert log.append("carol", "release", "bob").index == 6
    assert [entry.index for entry in read_audit_log(path)[0]] == [2, 3, 4, 6]


@pytest.mark.parametrize(
    "action",
    [
        ("", "revoke", "bob"),
        ("carol", "revoke", ""),
        ("carol", "re\nvoke", "bob"),
        ("carol", "revoke", "bob\x1b[2J"),
        ("carol", "revoke", "\u202ebob"),
        ("carol", "revoke", "b" * 257),
        ("carol", "revoke", None),
        ("carol", "revoke", "bob", {"a": object()}),
        ("carol", "revoke", "bob", {"a": float("nan")}),
        ("carol", "revoke", "bob", {"a": threading.Lock()}),
    ],
    ids=range(10),
)
def test_what_cannot_be_read_later_is_not_written(path, action):
    before = path.read_bytes()
    with AuditLog.open(path) as log, pytest.raises(InvalidValueError, match="expected"):
        log.append(*action)
    assert path.read_bytes() == before


def test_another_journal_is_no_audit_log(tmp_path):
    path = tmp_path / "other"
    Journal.create(path, {"kind": "other"}).close()
    for read in (read_audit_log, AuditLog.open):
        with pytest.raises(StateError, match="is no audit log"):
            read(path)
    Journal.open(path).close()  # and is not locked any more


@pytest.mark.parametrize(
    "record",
    [{}, {"actor": "carol"}, {"time": 1, "actor": "a\x1b", "action": "b", "subject": "c", "details": {}}, {"index": 7}],
)
def test_a_log_with_what_is_no_action_is_refused(path, record):
    with Journal.open(path) as journal:
        journal.append(record)
    with pytest.raises(StateError, match="holds what is no action in line 5"):
        read_audit_log(path)


# A disk that is full for a moment


def fail(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(params=["write", "fsync", "head", "folder of the head"])
def full(request, monkeypatch):
    """A disk that takes nothing more, as it shows at each step of an append."""
    write = os.write

    def fills_up():
        if request.param == "write":
            monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:10]))
        elif request.param == "fsync":
            monkeypatch.setattr(os, "fsync", fail)
        elif request.param == "head":
            monkeypatch.setattr("matl.journal.write_atomic", lambda path, _: fail())
        else:
            monkeypatch.setattr(files, "sync_directory", fail)

    return fills_up


def test_what_a_full_disk_refused_is_not_there_and_the_log_goes_on(path, full, monkeypatch):
    with AuditLog.open(path) as log:
        before = log.head
        for _ in range(2):
            full()
            with pytest.raises(StorageError):
                log.append("carol", "revoke", "alice")
            assert log.head == before
            monkeypatch.undo()
        assert log.append("carol", "release", "bob").index == 5
        head = log.head
    entries, found = read_audit_log(path, before)
    assert [entry.action for entry in entries] == ["invite", "revoke", "undo", "release"]
    assert found == head
    AuditLog.open(path, head).close()


@pytest.mark.parametrize("step", ["write", "head"])
def test_what_a_full_disk_refused_is_taken_out_at_once(path, step, monkeypatch):
    content, write = path.read_bytes(), os.write
    with AuditLog.open(path) as log:
        if step == "write":
            monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:10]))
        else:
            monkeypatch.setattr("matl.journal.write_atomic", lambda path, _: fail())
        with pytest.raises(StorageError):
            log.append("carol", "revoke", "alice")
        assert path.read_bytes() == content  # should the process end now, nothing stands there as done
        with pytest.raises(StateError, match="is used by another process"):
            AuditLog.open(path)


def test_a_disk_that_is_gone_for_a_while(path, monkeypatch):
    gone = path.parent.with_name("gone")
    with AuditLog.open(path) as log:
        monkeypatch.setattr(os, "fsync", fail)
        monkeypatch.setattr(os, "ftruncate", fail)
        with pytest.raises(StorageError):
            log.append("carol", "revoke", "alice")
        monkeypatch.undo()
        path.parent.rename(gone)
        for _ in range(2):
            with pytest.raises(StorageError, match="No such file"):
                log.append("carol", "revoke", "bob")
        gone.rename(path.parent)
        log.append("carol", "release", "bob")
    assert [entry.action for entry in read_audit_log(path)[0]] == ["invite", "revoke", "undo", "release"]


def test_a_log_that_was_closed_stays_closed(path, monkeypatch):
    log = AuditLog.open(path)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError):
        log.append("carol", "revoke", "alice")
    monkeypatch.undo()
    log.close()
    for _ in range(2):
        with pytest.raises(StorageError, match="was closed"):
            log.append("carol", "revoke", "alice")
    AuditLog.open(path).close()


def test_threads_do_not_mix_their_lines(path):
    with AuditLog.open(path) as log:
        threads = [threading.Thread(target=lambda: [log.append("carol", "x", "y") for _ in range(5)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [entry.index for entry in read_audit_log(path)[0]] == list(range(2, 25))
