"""Updates that wait: whole or not there, whatever happened in between."""

from __future__ import annotations

import hashlib
import os
import stat

import pytest

from matl.client.queue import Queue
from matl.errors import StateError
from matl.protocol.envelope import Head
from matl.protocol.messages import SpecView
from matl.records import RoundSpec


def spec(number=0, run="demo"):
    return SpecView.of(RoundSpec(run=run, round=number, model_hash="ab" * 32, layout_hash="cd" * 32))


def head(payload, number=0, run="demo", nonce="01" * 16):
    return Head(
        client_id="alice",
        run=run,
        round=number,
        base_version=number,
        model_hash="ab" * 32,
        payload_bytes=len(payload),
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        nonce=nonce,
        created_at=1.5,
    )


def put(queue, payload, number=0, run="demo"):
    return queue.put(spec(number, run), head(payload, number, run), payload)


def test_what_was_put_is_there_after_a_restart_oldest_first(tmp_path):
    for number, payload in ((10, b"ten"), (2, b"two")):
        put(Queue(tmp_path), payload, number)
    queue = Queue(tmp_path)
    assert [each.spec.round for each in queue] == [2, 10]
    for waiting, content in zip(list(queue), (b"two", b"ten"), strict=True):
        with queue.payload(waiting) as view:
            assert bytes(view) == content
        assert waiting.spec == spec(waiting.spec.round)
        queue.done(waiting)
        queue.done(waiting)
    assert len(queue) == 0
    assert list(tmp_path.iterdir()) == []


def test_no_other_user_reads_what_waits_and_a_power_cut_leaves_its_names(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    put(Queue(tmp_path), b"payload")
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    assert synced[-1] == tmp_path.stat().st_ino


def test_a_second_update_for_a_round_takes_the_place_of_the_first(tmp_path):
    queue = Queue(tmp_path)
    put(queue, b"first")
    put(queue, b"of another run", run="Demo")
    put(queue, b"second")
    assert sorted(each.head.payload_bytes for each in queue) == [6, 14]
    assert len(list(tmp_path.glob("*.payload"))) == 2


def test_signing_again_keeps_the_payload(tmp_path):
    queue = Queue(tmp_path)
    waiting = put(queue, b"payload")
    renewed = queue.sign_again(waiting, head(b"payload", nonce="02" * 16))
    assert [each.head.nonce for each in queue] == ["02" * 16]
    with queue.payload(renewed) as view:
        assert bytes(view) == b"payload"


def test_what_was_half_written_is_swept_away(tmp_path):
    put(Queue(tmp_path), b"whole")
    (tmp_path / "000000009-x.payload").write_bytes(b"no note")
    (tmp_path / ".000000009-x.json.abc").write_bytes(b"half")
    assert len(Queue(tmp_path)) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_power_cut_between_the_two_files_leaves_nothing(tmp_path, monkeypatch):
    queue = Queue(tmp_path)
    monkeypatch.setattr(Queue, "_note", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        put(queue, b"payload")
    monkeypatch.undo()
    assert list(Queue(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}", '{"version": 9}', '{"version": 1, "head": {}, "spec": {}}'])
def test_a_damaged_note_is_named(tmp_path, content):
    queue = Queue(tmp_path)
    put(queue, b"x")
    next(tmp_path.glob("*.json")).write_text(content)
    with pytest.raises(StateError, match="remove it if the update may be lost"):
        list(queue)


def test_a_damaged_payload_is_named(tmp_path):
    queue = Queue(tmp_path)
    waiting = put(queue, b"payload")
    file = next(tmp_path.glob("*.payload"))
    for content in (b"pay", b""):
        file.write_bytes(content)
        with pytest.raises(StateError, match=f"has {len(content)} bytes, expected 7"), queue.payload(waiting):
            pass
    file.unlink()
    with pytest.raises(StateError, match="cannot be read"), queue.payload(waiting):
        pass
