"""What the oracle judges, and what it will not, from the coordinator's side and over its door."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.oracle.scenes import RUN, Scene, asking, play, simulated, software_scene, whole_run

from matl.attest.keys import SigningKey
from matl.attest.receipts import verify_receipt
from matl.attest.tpm_tools import TpmError
from matl.client.sealed import OracleWatch
from matl.errors import AttestationError, ServiceError, UndecidedError
from matl.oracle.remote import RemoteJudge
from matl.oracle.wire import Signed, pack_answer, pack_brief, unpack_answer
from matl.records import Status
from matl.state import pack
from matl.workloads import TrainingWorkload


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return software_scene(tmp_path)


def act(scene: Scene, scenario: Callable[[RemoteJudge, OracleWatch], Awaitable[Any]]) -> Any:
    """Play a scenario with a judge and a watch."""
    return play(lambda: scenario(scene.judge(), scene.watch()))


def test_it_judges_like_the_simulation_bit_for_bit(scene: Scene) -> None:
    state, answers = act(scene, lambda judge, watch: whole_run(scene, judge, watch))
    expected = simulated()[-1].after
    assert state["params"].tobytes() == expected["params"].tobytes()
    assert state["model_hashes"] == expected["model_hashes"]
    assert pack(state["mode"]) == pack(expected["mode"])
    assert not any(answer.failure or answer.rejections for answer in answers)
    assert {one.status for answer in answers for one in answer.verdicts} >= {Status.QUARANTINED, Status.ACCEPTED}
    assert all(one.score is None or np.isfinite(one.score) for answer in answers for one in answer.verdicts)


def test_receipts_are_signed_by_the_key_that_clients_proved_and_say_that_no_hardware_is_behind(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        answer = await judge(request)
        assert answer.receipts is not None
        assert sorted(answer.receipts) == [head.client_id for head in request.heads]
        for head, verdict in zip(request.heads, answer.verdicts, strict=True):
            receipt = verify_receipt(answer.receipts[head.client_id], watch.signers)
            assert not receipt.hardware_root
            assert receipt.update_hash == head.payload_sha256  # of the box: what the client itself can compute
            assert (receipt.client_id, receipt.status, receipt.weight) == (
                verdict.client, verdict.status, round(verdict.weight, 9),
            )  # fmt: skip
            assert receipt.policy_hash == scene.config.policy.mode

    act(scene, scenario)


def test_a_repeated_request_has_the_same_answer_and_sends_no_payload(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        first = await judge(request)

        def unread(client: str) -> bytes:
            raise AssertionError(f"the payload of {client} was read again")

        again = await judge(replace(request, payload=unread))
        assert pack(again.state) == pack(first.state)
        assert again.receipts == first.receipts
        scene.start()  # with other keys: the old answer is still believed, for its evidence is about itself
        assert (await judge(replace(request, payload=unread))).receipts == first.receipts

    act(scene, scenario)


def test_a_round_is_judged_once(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        await judge(request)
        for other in (
            replace(request, heads=request.heads[1:]),  # the difference would be the update that is left out
            replace(request, seed=request.seed + 1),
        ):
            with pytest.raises(UndecidedError, match="not judged again"):
                await judge(other)

    act(scene, scenario)


def test_a_box_counts_in_one_round(tmp_path: Path) -> None:
    scene = software_scene(tmp_path, RUN + "max_staleness = 2\n")

    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        late = replace(request, heads=request.heads[:5])
        answer = await judge(late)
        following = scene.workload().plan(answer.state)
        again = await judge(replace(request, spec=following, state=answer.state))  # all are one round old
        assert [one.code for one in again.rejections] == ["duplicate"] * 5
        assert "1 of 6 updates can be judged" in again.failure

    act(scene, scenario)


def test_boxes_are_not_opened_for_another_client_round_or_run(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        judged = simulated()[0]
        state = scene.workload().init(judged.before["params"])
        boxes = {}
        for client, plain in judged.plain.items():
            boxes[client] = await watch(run=scene.view, number=0, client_id=client, payload=plain)
        one, two, three, four = sorted(boxes)[:4]
        boxes[one], boxes[two] = boxes[two], boxes[one]
        boxes[three] = await watch(run=scene.view, number=1, client_id=three, payload=judged.plain[three])
        other = scene.view.model_copy(update={"id": "other"})
        boxes[four] = await watch(run=other, number=0, client_id=four, payload=judged.plain[four])
        answer = await judge(asking(scene.workload().plan(state), state, judged, boxes))
        assert {rejection.client_id: rejection.code for rejection in answer.rejections} == dict.fromkeys(
            (one, two, three, four), "sealed"
        )
        assert "2 of 6 updates can be judged, the oracle's policy wants 3" in answer.failure
        assert state["params"].tobytes() == answer.state["params"].tobytes()
        assert answer.receipts is not None
        assert not answer.receipts.keys() & {one, two, three, four}  # it may be the coordinator who mixed them up
        assert len(answer.receipts) == 2

    act(scene, scenario)


def test_nobody_is_blamed_for_a_payload_that_the_coordinator_changed(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        victim = request.heads[0].client_id

        def changed(client: str) -> bytes:
            payload = request.payload(client)
            return payload[:-1] + bytes([payload[-1] ^ 1]) if client == victim else payload

        with pytest.raises(UndecidedError, match=f"payload of {victim} is not the one"):
            await judge(replace(request, payload=changed))
        assert not (await judge(request)).failure  # nothing was judged, and nothing is remembered of it

    act(scene, scenario)


def test_a_head_that_the_coordinator_changed_gets_no_receipt(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        first, *others = request.heads
        answer = await judge(replace(request, heads=(replace(first, kind="gradient"), *others)))
        assert [one.client_id for one in answer.rejections] == [first.client_id]
        assert answer.receipts is not None
        assert sorted(answer.receipts) == [head.client_id for head in others]

    act(scene, scenario)


def test_after_a_restart_old_boxes_fail_the_round_and_the_next_one_goes_on(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        first = simulated()[0]
        state = scene.workload().init(first.before["params"])
        request = await scene.request(first, state, watch)
        scene.start()
        answer = await judge(request)
        assert "6 could not be opened" in answer.failure
        assert "restarted" in answer.failure
        assert not answer.verdicts
        assert answer.state["round"] == 1
        signers = watch.signers
        following = await judge(await scene.request(first, answer.state, watch))  # the watch saw the new key
        assert not following.failure
        assert len(watch.signers) == len(signers) + 1

    act(scene, scenario)


def test_some_sealed_anew_are_judged_without_the_others(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        judged = simulated()[0]
        state = scene.workload().init(judged.before["params"])
        old = await scene.request(judged, state, watch)
        scene.start()
        new = await scene.request(judged, state, watch)
        last = new.heads[-1].client_id
        boxes = {head.client_id: (old if head.client_id == last else new).payload(head.client_id) for head in new.heads}
        answer = await judge(asking(new.spec, state, judged, boxes))
        assert [(one.client_id, one.code) for one in answer.rejections] == [(last, "sealed")]
        assert len(answer.verdicts) == 5
        assert not answer.failure

    act(scene, scenario)


def test_values_are_screened_inside(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        judged = simulated()[0]
        first = judged.heads[0].client_id
        junk = replace(judged, plain={**judged.plain, first: b"no arrays at all"})
        state = scene.workload().init(judged.before["params"])
        answer = await judge(await scene.request(junk, state, watch))
        assert [(one.client_id, one.code) for one in answer.rejections] == [(first, "malformed")]
        assert len(answer.verdicts) == 5

    act(scene, scenario)


def test_too_few_that_count_fail_the_round(tmp_path: Path) -> None:
    scene = software_scene(tmp_path, least_clients=6)

    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        answer = await judge(await scene.request(simulated()[0], state, watch))  # two of six are quarantined
        assert answer.failure.startswith("4 of 6 updates count, the oracle's policy wants 6")
        assert answer.state["params"].tobytes() == state["params"].tobytes()

    act(scene, scenario)


def test_foreign_states_rounds_and_payloads_are_refused(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        moved = {**state, "params": state["params"] + 1}
        for changed, words in (
            (replace(request, state=moved), "does not hold the model"),
            (replace(request, state={"round": 0}), "not one of this configuration"),
            (replace(request, spec=replace(request.spec, max_norm=3.0)), "max_norm differ"),
            (replace(request, spec=replace(request.spec, config_digest="0" * 64)), "config_digest differ"),
        ):
            with pytest.raises(UndecidedError, match=words):
                await judge(changed)
        answer = await judge(replace(request, spec=replace(request.spec, deadline=60.0)))  # the coordinator's affair
        assert not answer.failure

    act(scene, scenario)


@pytest.mark.parametrize("breaking", ["the state", "the judge", "a box"])
def test_what_breaks_after_a_box_was_opened_says_nothing_and_is_no_second_chance(
    scene: Scene, breaking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        broken = replace(request, state={**state, "mode": {}}) if breaking == "the state" else request
        said = []
        with monkeypatch.context() as patch:
            if breaking == "the judge":  # with an error that nobody thought of
                patch.setattr(TrainingWorkload, "reduce", telling)
            elif breaking == "a box":
                patch.setattr(type(scene.workload().channel.inner), "unpack", telling)
            for _ in range(2):
                with pytest.raises(UndecidedError, match="why is not said") as caught:
                    await judge(broken)
                said.append(str(caught.value))
                assert caught.value.__cause__.code == "invalid"
        assert said[0] == said[1]
        assert "0.25" not in said[0]
        for other in (replace(request, seed=request.seed + 1), replace(request, heads=request.heads[1:])):
            with pytest.raises(UndecidedError, match="not judged again"):
                await judge(other)

    def telling(*arguments: Any, **options: Any) -> Any:
        raise OverflowError("the third value of alice's update is 0.25")

    act(scene, scenario)


def test_what_could_not_be_signed_may_be_asked_again_and_nothing_else(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        await judge.watch.known()
        bench = scene.oracle.app.state.door.bench
        with monkeypatch.context() as patch:
            patch.setattr(bench._attester, "evidence", locked)
            with pytest.raises(ServiceError, match="lockout") as caught:
                await judge(request)
            assert caught.value.code == "busy"
        with pytest.raises(UndecidedError, match="not judged again"):
            await judge(replace(request, seed=request.seed + 1))
        answer = await judge(request)
        assert not answer.failure
        assert not answer.rejections

    def locked(nonce: bytes, key: bytes) -> bytes:
        raise TpmError("lockout")

    act(scene, scenario)


def test_only_who_has_the_token_may_ask(scene: Scene) -> None:
    async def scenario() -> None:
        judge, watch = scene.judge(token="matl_or_somebody_else"), scene.watch()
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        with pytest.raises(ServiceError, match="token") as caught:
            await judge(request)
        assert caught.value.code == "unauthenticated"

    play(scenario)


def test_the_coordinator_pins_the_oracle_too(scene: Scene) -> None:
    async def scenario() -> None:
        judge = scene.judge(replace(scene.pins, measurements=frozenset({"0" * 64})))
        watch = scene.watch()
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        with pytest.raises(AttestationError, match="does not name") as caught:
            await judge(request)
        assert caught.value.code == "measurement"

    play(scenario)


def test_an_answer_that_was_changed_is_not_believed(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        await judge(request)
        (kept,) = (scene.folder / "answers").glob("*.answer")
        content = kept.read_bytes()
        for place in range(0, len(content), len(content) // 60):
            kept.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(AttestationError):
                await judge(request)
        kept.write_bytes(content)
        await judge(request)

    act(scene, scenario)


def test_the_machine_alone_cannot_answer_for_the_oracle(scene: Scene) -> None:
    """Whoever may use the TPM has evidence made of any nonce and key; only the oracle has the key."""

    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        await judge(request)
        (kept,) = (scene.folder / "answers").glob("*.answer")
        signed = Signed.parse(kept.read_bytes())
        answer, _ = unpack_answer(signed.answer)
        other = pack_answer(replace(answer, figures={"aggregate_norm": 0.0}))
        text = replace(signed.text, answer=hashlib.sha256(other).hexdigest())
        evidence = scene.oracle.attester.evidence(text.nonce, (await watch.known()).signing.der)
        forged = replace(signed, answer=other, text=text, evidence=evidence)
        own = SigningKey.generate()
        elsewhere = replace(text, signer=own.public.fingerprint)
        for content, code in (
            (forged, "signature"),
            (replace(signed, answer=other), "nonce"),
            (replace(signed, text=text), "nonce"),
            (replace(signed, evidence=evidence), "nonce"),
            (replace(forged, text=elsewhere, signature=own.sign(elsewhere.to_bytes())), "nonce"),
        ):
            kept.write_bytes(content.to_bytes())
            with pytest.raises(AttestationError) as caught:
                await judge(request)
            assert caught.value.code == code

    act(scene, scenario)


def test_an_answer_to_another_request_is_not_taken(scene: Scene) -> None:
    async def scenario(judge: RemoteJudge, watch: OracleWatch) -> None:
        state = scene.workload().init(simulated()[0].before["params"])
        request = await scene.request(simulated()[0], state, watch)
        await judge(request)
        (kept,) = (scene.folder / "answers").glob("*.answer")
        other = replace(request, seed=request.seed + 1)
        digest = hashlib.sha256(pack_brief(other)).hexdigest()
        kept.rename(kept.with_name(f"{digest}.answer"))
        with pytest.raises(AttestationError, match="something else than what was asked: request"):
            await judge(other)

    act(scene, scenario)
