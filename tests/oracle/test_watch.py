"""What a client finds out about an oracle before it sends anything."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.oracle.scenes import RUN, URL, Scene, play, read_config, software_scene

from matl.attest.keys import SigningKey
from matl.client.evidence import OraclePins, read_evidence
from matl.client.oracle_line import OracleLine
from matl.client.sealed import OracleWatch
from matl.errors import AttestationError, InvalidValueError, ServiceError
from matl.oracle.keys import OracleKeys
from matl.oracle.remote import RemoteJudge
from matl.protocol.oracle import EvidenceView, PolicyText
from matl.records import Visibility


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return software_scene(tmp_path)


class Wire(httpx.AsyncBaseTransport):
    """What passes between a watch and an oracle."""

    def __init__(self, scene: Scene) -> None:
        self.inner, self.paths = scene.transport, []  # type: ignore[var-annotated]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        return await self.inner.handle_async_request(request)


def act(watch: OracleWatch, scenario: Callable[[OracleWatch], Awaitable[Any]]) -> Any:
    return play(lambda: scenario(watch))


def sealed(scene: Scene, **changed: Any) -> Callable[[OracleWatch], Awaitable[bytes]]:
    view = scene.view.model_copy(update=changed)
    return lambda watch: watch(run=view, number=0, client_id="alice", payload=b"secret")


def shown(scene: Scene) -> EvidenceView:
    """Evidence for the nonce of zeros."""

    async def scenario() -> EvidenceView:
        return await OracleLine(URL, transport=scene.transport).view(
            "GET", "/v1/evidence", EvidenceView, params={"nonce": bytes(32).hex()}
        )

    return play(scenario)  # type: ignore[no-any-return]


def test_it_seals_to_the_oracle_that_proved_itself(scene: Scene) -> None:
    box = act(scene.watch(), sealed(scene))
    assert b"secret" not in box
    keys = scene.oracle.app.state.door.bench.keys
    assert keys.open(box, run="demo", number=0, client="alice") == b"secret"


def test_software_evidence_says_that_nothing_is_behind_it(scene: Scene) -> None:
    known = act(scene.watch(), lambda watch: watch.known())
    assert not known.hardware_root
    assert known.claims.format == "software"
    assert not shown(scene).hardware_root


def test_evidence_without_hardware_is_refused_unless_allowed(scene: Scene) -> None:
    vendor = frozenset({SigningKey.generate().public.der})
    pins = replace(scene.pins, software=False, vendor_keys=vendor)
    with pytest.raises(AttestationError, match="no hardware root"):
        act(scene.watch(pins), sealed(scene))
    with pytest.raises(InvalidValueError, match="vendor_keys"):
        OraclePins(measurements=scene.pins.measurements)


def test_only_the_word_of_pinned_signers_counts(scene: Scene) -> None:
    own = scene.oracle.attester.signer  # type: ignore[attr-defined]
    act(scene.watch(replace(scene.pins, software_signers=frozenset({own}))), sealed(scene))
    with pytest.raises(AttestationError) as caught:
        act(scene.watch(replace(scene.pins, software_signers=frozenset({"0" * 64}))), sealed(scene))
    assert caught.value.code == "root"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"visibility": Visibility.CLEAR}, "only an oracle sees"),
        ({"oracle": None}, "only an oracle sees"),
        ({"config_digest": "0" * 64}, "nothing was sent"),
    ],
)
def test_a_run_that_is_not_what_was_measured_gets_nothing(scene: Scene, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(AttestationError, match=words):
        act(scene.watch(), sealed(scene, **changed))


def test_nothing_but_questions_is_sent_before_the_proof(scene: Scene) -> None:
    wire = Wire(scene)
    pins = replace(scene.pins, measurements=frozenset({"0" * 64}))
    with pytest.raises(AttestationError):
        act(OracleWatch(pins, URL, transport=wire), sealed(scene))
    assert wire.paths == ["/v1/evidence"]


def test_it_verifies_again_when_the_key_changes_and_when_the_proof_is_old(scene: Scene) -> None:
    wire, now = Wire(scene), [0.0]
    watch = OracleWatch(scene.pins, URL, transport=wire, fresh=100.0, monotonic=lambda: now[0])

    async def scenario(watch: OracleWatch) -> None:
        first = await watch.known()
        assert await watch.known() is first
        assert wire.paths == ["/v1/evidence", "/v1/keys"]
        scene.start()
        second = await watch.known()
        assert second.signing != first.signing
        assert wire.paths[2:] == ["/v1/keys", "/v1/evidence"]
        now[0] = 101.0
        assert (await watch.known()).signing == second.signing
        assert wire.paths[4:] == ["/v1/evidence"]
        assert watch.signers == (first.signing, second.signing)

    act(watch, scenario)


def test_an_oracle_that_changes_what_it_runs_is_found_out_at_its_next_start(scene: Scene, tmp_path: Path) -> None:
    async def scenario(watch: OracleWatch) -> None:
        await watch.known()
        scene.config = read_config(tmp_path, RUN.replace("sign_flip", "scaling"))
        scene.start()
        with pytest.raises(AttestationError, match="does not name"):
            await watch.known()

    act(scene.watch(), scenario)


def test_the_coordinator_may_say_where_the_oracle_is_and_not_what_it_is(scene: Scene) -> None:
    async def scenario(watch: OracleWatch) -> None:
        await watch(run=scene.view, number=0, client_id="alice", payload=b"secret")

    act(OracleWatch(scene.pins, transport=scene.transport), scenario)
    with pytest.raises(InvalidValueError, match="expected url="):
        act(OracleWatch(scene.pins), lambda watch: watch.known())


def _changed(view: EvidenceView, **changed: Any) -> EvidenceView:
    return view.model_copy(update=changed)


def test_everything_beside_the_evidence_has_to_be_what_the_evidence_binds(scene: Scene) -> None:
    view, nonce, pins = shown(scene), bytes(32), scene.pins
    known = read_evidence(view, nonce, pins)
    assert known.policy == scene.config.policy
    other = OracleKeys(scene.oracle.measurement.digest)
    lenient = PolicyText(mode=known.policy.mode, max_staleness=0, least_clients=1).to_bytes().decode()
    forged = {"keys": other.text.to_bytes().decode()}
    signed = {**forged, "keys_signature": base64.b64encode(other.signature).decode()}
    for changed, code in (
        (forged, "signature"),
        (signed, "signature"),
        ({"policy": lenient}, "measurement"),
        ({"config": view.config.replace("run_config=", "run_config=0")[:-1]}, "measurement"),
        ({"keys": "matl-oracle-keys/1"}, "format"),
        ({"evidence": view.evidence[4:]}, "format"),
        ({"evidence": "$$"}, "format"),
        ({"format": "tpm2"}, "format"),
        ({"format": "other"}, "format"),
    ):
        with pytest.raises(AttestationError) as caught:
            read_evidence(_changed(view, **changed), nonce, pins)
        assert caught.value.code == code, changed
    with pytest.raises(AttestationError) as caught:
        read_evidence(view, bytes(31) + b"x", pins)
    assert caught.value.code == "nonce"


def test_a_key_of_another_measurement_is_refused(scene: Scene) -> None:
    """The same signing key could sign a key to seal to for another program."""
    view = shown(scene)
    keys = scene.oracle.app.state.door.bench.keys
    text = replace(keys.text, measurement="0" * 64).to_bytes()
    moved = {"keys": text.decode(), "keys_signature": base64.b64encode(keys.signing.sign(text)).decode()}
    with pytest.raises(AttestationError, match="another measurement"):
        read_evidence(_changed(view, **moved), bytes(32), scene.pins)


def test_who_is_no_oracle_or_does_not_answer_is_named() -> None:
    async def answers(status: int, body: bytes) -> ServiceError:
        async def sent() -> AsyncIterator[bytes]:
            yield body

        transport = httpx.MockTransport(lambda request: httpx.Response(status, content=sent()))
        line = OracleLine(URL, transport=transport)
        with pytest.raises(ServiceError) as caught:
            await line.view("GET", "/v1/evidence", EvidenceView)
        return caught.value

    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async def unreachable() -> ServiceError:
        line = OracleLine(URL, transport=httpx.MockTransport(down))
        with pytest.raises(ServiceError) as caught:
            await line.view("GET", "/v1/evidence", EvidenceView)
        return caught.value

    assert play(lambda: answers(200, b"<html>")).reason == "no_oracle"
    assert play(lambda: answers(200, b"x" * (2 << 20))).reason == "no_oracle"
    assert play(lambda: answers(404, b"")).code == "malformed"
    assert play(lambda: answers(502, b"")).code == "busy"
    error = play(unreachable)
    assert (error.code, error.reason) == ("busy", "unreachable")
    assert URL in str(error)


def test_a_token_does_not_cross_a_network_in_the_clear() -> None:
    with pytest.raises(InvalidValueError, match="in the clear"):
        OracleLine("http://oracle.example:8450", token="secret")
    OracleLine("https://oracle.example:8450", token="secret")
    with pytest.raises(InvalidValueError, match="http"):
        OracleLine("oracle.example:8450")


def test_updates_are_sealed_once_an_oracle_that_many_ask_has_time(scene: Scene) -> None:
    """A round opens for all at once."""

    class Crowded(Wire):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if len(self.paths) < 2:
                self.paths.append("")
                problem = {"code": "rate", "message": "too many ask", "retry_after": 0.01}
                return httpx.Response(429, stream=httpx.ByteStream(json.dumps(problem).encode()))
            return await super().handle_async_request(request)

    wire = Crowded(scene)
    box = act(OracleWatch(scene.pins, URL, transport=wire), sealed(scene))
    assert wire.paths == ["", "", "/v1/evidence"]
    assert scene.oracle.app.state.door.bench.keys.open(box, run="demo", number=0, client="alice") == b"secret"


def test_the_coordinator_is_taken_before_strangers(scene: Scene) -> None:
    shown = []

    class Listening(Wire):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            shown.append((request.url.path, request.headers.get("authorization")))
            return await super().handle_async_request(request)

    judge = RemoteJudge(URL, scene.pins, token=scene.token, transport=Listening(scene))
    play(judge.watch.known)
    assert shown == [("/v1/evidence", f"Bearer {scene.token}")]
