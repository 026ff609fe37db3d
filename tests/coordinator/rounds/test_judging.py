"""Judging a closed round in this process: as the workload does it, from a disk, and the same whenever it is done."""

import asyncio
import dataclasses
import errno
import hashlib
import os
from fractions import Fraction

import numpy as np
import pytest
from tests.coordinator.runs import LAYOUT, NAMES, D, Wavering, encoded

from matl.coordinator.rounds.intake import payload_refused
from matl.coordinator.rounds.judge import JudgeRequest
from matl.coordinator.rounds.judging import checked, figures_of, in_file, judge_here
from matl.coordinator.storage.custody import Custody
from matl.errors import ServiceError, StateError
from matl.privacy.mechanism import Central
from matl.protocol.envelope import Head
from matl.records import Judgement, Update
from matl.screening import encode_payload
from matl.state import pack
from matl.workloads import Accepted, Outcome, Private, TrainingWorkload


def request_for(workload, payloads, seed=5):
    state = workload.init(np.arange(D, dtype=np.float32))
    spec = workload.plan(state)
    heads = [
        Head.of(
            Update(
                client_id=name,
                run="r",
                round=0,
                base_version=0,
                model_hash=spec.model_hash,
                kind=spec.kind,
                payload=payload,
                payload_sha256=_sha256(payload),
                num_examples=10 if workload.channel.tells_examples else None,
                nonce="00" * 16,
            )
        )
        for name, payload in payloads.items()
    ]
    return JudgeRequest(
        spec=spec,
        state=state,
        seed=seed,
        heads=tuple(head.update() for head in heads),
        payload=payloads.__getitem__,
    )


def _sha256(payload):
    return hashlib.sha256(payload).hexdigest()


def test_the_answer_is_that_of_the_workload(tmp_path):
    workload = TrainingWorkload(mode=Wavering(), layout=LAYOUT, run="r")
    payloads = {name: encoded(float(index)) for index, name in enumerate(NAMES)}
    request = request_for(workload, payloads)
    answer = judge_here(workload, request, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []
    screened = [
        workload.screen(
            dataclasses.replace(head, payload=payloads[head.client_id]), request.spec, request.state, seen=set()
        )
        for head in request.heads
    ]
    assert all(isinstance(one, Accepted) for one in screened)
    outcome, after = workload.reduce(workload.cohort(screened, request.spec, request.state, seed=5), request.state)
    assert pack(answer.state) == pack(after)
    assert [verdict.client for verdict in answer.verdicts] == list(NAMES)
    assert [verdict.weight for verdict in answer.verdicts] == [verdict.weight for verdict in outcome.judgement.verdicts]
    assert [verdict.score for verdict in answer.verdicts] == [verdict.weight for verdict in answer.verdicts]
    assert answer.figures["digests"] == dict(outcome.judgement.digests)
    assert pack(judge_here(workload, request, scratch=tmp_path).state) == pack(after)


def test_noise_of_the_host_is_the_same_when_a_round_is_judged_again(tmp_path):
    channel = Private(Central(D, clip_norm=1.0, multiplier=Fraction(1)))
    workload = TrainingWorkload(mode=Wavering(), layout=LAYOUT, run="r", channel=channel)
    words = channel.mechanism.packed(channel.mechanism.encode(np.full(D, 0.1, np.float32), 0))
    payload, _ = encode_payload({"words": words})
    request = request_for(workload, dict.fromkeys(NAMES, payload))
    answers = [judge_here(workload, request, scratch=tmp_path, key=key) for key in (b"k" * 32, b"k" * 32, b"j" * 32)]
    assert all(not answer.failure for answer in answers)
    first, again, other = (pack(answer.state) for answer in answers)
    assert first == again != other
    assert {verdict.client for verdict in answers[0].verdicts} == set(NAMES)


def test_a_round_without_updates_fails(tmp_path):
    workload = TrainingWorkload(mode=Wavering(), layout=LAYOUT, run="r")
    answer = judge_here(workload, request_for(workload, {}), scratch=tmp_path)
    assert (answer.failure, answer.verdicts, answer.figures["aggregate_norm"]) == (
        "no update passed screening",
        (),
        0.0,
    )


def test_a_payload_that_is_not_what_was_accepted_is_not_judged(tmp_path):
    workload = TrainingWorkload(mode=Wavering(), layout=LAYOUT, run="r")
    request = request_for(workload, {"ann": encoded(1.0)})
    with pytest.raises(StateError, match="the payload of ann is damaged"):
        judge_here(workload, dataclasses.replace(request, payload=lambda _: encoded(2.0)), scratch=tmp_path)
    assert checked(encoded(1.0), request.heads[0]) == encoded(1.0)
    wrong = request_for(workload, {"ann": encode_payload({"v": np.zeros(D, np.float32)})[0]})
    with pytest.raises(StateError, match="was accepted and is refused now"):
        judge_here(workload, wrong, scratch=tmp_path)


def test_a_disk_that_is_full_is_a_reason_to_wait(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    matrix = in_file(tmp_path, (3, 2))
    assert (matrix.shape, matrix.dtype) == ((3, 2), np.float32)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ServiceError, match=r"judging needs 24 bytes in .*: No space left on device") as error:
        in_file(tmp_path, (3, 2))
    assert (error.value.code, error.value.reason) == ("busy", "scratch")


def test_figures_are_what_json_has_words_for():
    diagnostics = {"kept": np.float32(0.5), "rows": np.zeros(3), "nested": {"x": [np.int64(1), float("inf")]}}
    judgement = Judgement(np.full(4, 1e30, np.float32), (), diagnostics, {"mode": "ab"})
    assert figures_of(Outcome(judgement, model_bytes=7)) == {
        "aggregate_norm": pytest.approx(2e30),
        "model_bytes": 7,
        "diagnostics": {"kept": 0.5, "nested": {"x": [1, None]}},
        "digests": {"mode": "ab"},
    }


def test_whatever_a_decoder_does_is_a_rejection(caplog):
    class Stumbling(TrainingWorkload):
        def screen(self, update, spec, state, *, seen, verify=None):
            raise RecursionError("too deep")

    workload = Stumbling(mode=Wavering(), layout=LAYOUT, run="r")
    request = request_for(workload, {"ann": encoded(1.0)})
    head = Head.of(dataclasses.replace(request.heads[0], payload=encoded(1.0)))
    rejection = asyncio.run(payload_refused(workload, request.state, head, encoded(1.0)))
    assert (rejection.client_id, rejection.code) == ("ann", "malformed")
    assert "screening the update of ann in round 0 failed" in caplog.text


def test_nobody_writes_a_blob_while_it_is_deleted():
    async def test():
        custody, order, slow = Custody(), [], asyncio.Event()

        async def delete(name):
            await slow.wait()
            order.append(f"{name} gone")

        async def write():
            with custody.holding("ab"):
                await custody.there("ab")
                order.append("written")

        with custody.holding("ab"):
            deleting = asyncio.ensure_future(custody.discard("ab", delete))
            await asyncio.sleep(0)
            writing = asyncio.ensure_future(write())
            await asyncio.sleep(0)
            slow.set()
            await asyncio.gather(deleting, writing)
        assert order == ["ab gone", "written"]

    asyncio.run(test())
