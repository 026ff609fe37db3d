"""What a stranger reads when something is not as it should be."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import ssl
import subprocess
import threading
from datetime import timedelta

import numpy as np
import pytest
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from tests.client.fake import Coordinator, application, refused, serving

from matl.attest.claims import system_clock
from matl.client import AsyncMATLClient, MATLClient
from matl.client.connection import open_transport
from matl.client.evidence import OraclePins
from matl.client.sealed import OracleWatch
from matl.errors import InvalidValueError, ProtocolError, ServiceError, StateError
from matl.protocol.messages import OracleView
from matl.records import Visibility


def run(client, work):
    async def within():
        async with client:
            return await work(client)

    return asyncio.run(within())


def error_of(client, work, kind=ServiceError):
    with pytest.raises(kind) as caught:
        run(client, work)
    return caught.value


def join(host):
    return lambda client: client.join(host.invite())


async def ask(client):
    return await client.runs()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_nobody_there(client_of):
    url = f"http://127.0.0.1:{free_port()}"
    error = error_of(client_of(url), ask)
    assert (error.code, error.reason) == ("busy", "unreachable")
    assert str(error).startswith(f"no coordinator can be reached at {url}: ")
    assert "start one here with: matl up" in str(error)


def test_somebody_who_never_answers(client_of):
    from matl.client.http import HttpTransport

    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()

        async def ask_mute():
            transport = HttpTransport(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout=0.1)
            try:
                await transport.health()
            finally:
                await transport.aclose()

        with pytest.raises(ServiceError, match="does not answer") as caught:
            asyncio.run(ask_mute())
    assert (caught.value.code, caught.value.reason) == ("busy", "timeout")


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (PlainTextResponse("<html>welcome", 404), "malformed", "answers 404 in words no coordinator uses"),
        (PlainTextResponse("hello"), "malformed", r"the answer is no Health \("),
        (Response(b"{}"), "malformed", r"the answer is no Health \(version: Field required\)"),
        (RedirectResponse("https://elsewhere.example/"), "malformed", "sends on to https://elsewhere.example/"),
        (Response(b'{"code": "internal", "message": "a fault"}', 500), "busy", "a fault"),
        (PlainTextResponse("bad gateway", 502, {"Retry-After": "0"}), "busy", "what stands before the coordinator"),
        (PlainTextResponse("later", 503, {"Retry-After": "9" * 400}), "busy", "what stands before the coordinator"),
        (
            Response(b'{"code": "busy", "message": "", "retry_after": Infinity}', 400),
            "malformed",
            "words no coordinator uses",
        ),
    ],
)
def test_something_else_is_there(answer, code, words, client_of):
    async def app(scope, receive, send):
        await answer(scope, receive, send)

    with serving(app) as url:
        error = error_of(client_of(url), ask)
    assert error.code == code
    assert re.search(words, str(error))


@pytest.mark.parametrize(("protocol", "who"), [(2, "this SDK"), (0, "the coordinator")])
def test_another_version_of_the_protocol(host, url, client_of, protocol, who):
    host.protocol = protocol
    assert str(error_of(client_of(url), ask)).endswith(f"upgrade {who}")


def test_who_has_not_joined_is_told_how(url, client_of):
    error = error_of(client_of(url), ask)
    assert error.code == "unauthenticated"
    assert "does not know 'alice' with the key of this folder: join first" in str(error)


@pytest.mark.parametrize("invitation", ["", "please", "matl_inv_", "matl_op_" + "a" * 43])
def test_what_is_no_invitation(host, url, client_of, invitation):
    error = error_of(client_of(url), lambda client: client.join(invitation), InvalidValueError)
    assert "the invitation cannot be used" in str(error)
    assert host.seen["POST /v1/clients"] == 0


def test_an_invitation_that_is_used_up(host, url, client_of):
    token = host.invite()
    run(client_of(url), lambda client: client.join(token))
    error = error_of(client_of(url, "bob"), lambda client: client.join(token))
    assert error.reason == "invitation"


def test_joining_twice_changes_nothing(host, url, client_of):
    token = host.invite()
    for _ in range(2):
        run(client_of(url), lambda client: client.join(f" {token}\n"))
    assert list(host.roster.identities) == ["alice"]


def test_evidence_is_asked_for_with_the_nonce_of_the_request(host, url, client_of, monkeypatch):
    seen = []

    def evidence(nonce):
        seen.append(nonce)
        return {"software": b"quote"}

    sent = []
    enrol = host.roster.__class__.enrol
    monkeypatch.setattr(
        host.roster.__class__,
        "enrol",
        lambda self, request, *a, **k: sent.append(request) or enrol(self, request, *a, **k),
    )
    run(client_of(url), lambda client: client.join(host.invite(), evidence=evidence))
    assert seen == [hashlib.sha256(sent[0].text.to_bytes()).digest()]


def test_a_token_that_has_ended_is_renewed(host, url, client_of):
    async def work(client):
        await client.join(host.invite())
        await client.runs()
        host.tokens.clear()
        await client.runs()
        return host.seen["POST /v1/sessions"]

    assert run(client_of(url), work) == 1


def test_a_session_is_begun_before_its_token_ends(host, url, client_of):
    now = [system_clock()]

    async def work(client):
        await client.join(host.invite())
        await client.runs()
        now[0] += timedelta(minutes=59, seconds=30)
        await client.runs()
        await client.runs()

    run(client_of(url, clock=lambda: now[0]), work)
    assert host.seen["POST /v1/sessions"] == 2  # our clock is past the second one's end as well
    assert host.seen["GET /v1/runs"] == 3


def test_a_clock_that_is_wrong_is_named(host, url, client_of):
    host.skew = -3600.0

    async def work(client):
        await client.join(host.invite())
        current = await client.next_round()
        await client.submit_gradient(current.delta(current.params))

    error = error_of(client_of(url), work)
    assert error.reason == "future"
    assert re.search(r"This machine's clock is 3[56]\d\d s ahead of the coordinator's: set it", str(error))


def test_several_runs_are_listed(host, url, client_of):
    view = host.view()
    host.runs_shown = [view, view.model_copy(update={"id": "other"}), view.model_copy(update={"status": "finished"})]

    async def work(client):
        await client.join(host.invite())
        await client.run()

    error = error_of(client_of(url), work, InvalidValueError)
    assert "several runs, say which: MATLClient(..., run=...)" in str(error)
    assert "demo (running, mode1, round 0), other (running" in str(error)
    error = error_of(client_of(url, run="nought"), work, InvalidValueError)
    assert "has no run 'nought'; it has: demo" in str(error)
    host.runs_shown = []
    assert "no run yet" in str(error_of(client_of(url), work, InvalidValueError))


def test_the_mode_is_insisted_on(host, url, client_of):
    import matl

    async def work(client):
        await client.join(host.invite())
        return (await client.run()).id

    for mode in (matl.Mode1, "mode1", "Mode1"):
        assert run(client_of(url, mode=mode), work) == "demo"
    for mode, name in ((matl.Mode0, "mode0"), (matl.Plain(), "plain"), ("mode2", "mode2")):
        error = error_of(client_of(url, mode=mode), work, InvalidValueError)
        assert str(error) == f"run 'demo' is judged by mode1, this client insists on {name}"


def test_sealed_runs_need_a_sealer_and_a_sealer_needs_a_sealed_run(host, url, client_of):
    async def work(client):
        await client.join(host.invite())
        await client.run()

    class Sealer:
        async def aclose(self):
            pass

    error = error_of(client_of(url, sealer=Sealer()), work, InvalidValueError)
    assert "its coordinator sees every update" in str(error)
    host.oracle = OracleView(url="https://oracle.example", config="ab" * 32)
    error = error_of(client_of(url), work, InvalidValueError)
    assert "judged in an oracle at https://oracle.example" in str(error)
    run(client_of(url, sealer=Sealer(), mode="mode2"), work)


@pytest.mark.parametrize("where", ["http://[::1", "http://a\x00b", "ftp://oracle", "http://xn--zzzzzz", ""])
def test_an_oracle_that_a_coordinator_does_not_place_anywhere_ends_the_loop(host, url, client_of, monkeypatch, where):
    host.oracle, genuine = OracleView(url=where, config="ab" * 32), host.view
    monkeypatch.setattr(host, "view", lambda: genuine().model_copy(update={"visibility": Visibility.SEALED}))

    async def work(client):
        await client.join(host.invite())
        await client.fit_loop(lambda params, current: (params, 1))

    pins = OraclePins(measurements=frozenset({"ab" * 32}), software=True)
    error = error_of(client_of(url, sealer=OracleWatch(pins)), work)
    assert (error.code, error.reason) == ("malformed", "no_oracle")
    assert "the coordinator does not say where the oracle of run 'demo' is: expected an oracle's address" in str(error)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://[::1", "expected an address such as https://host:8470, got 'http://\\[::1'"),
        ("ws://a\nb", r"expected an address such as https://host:8470, got 'ws://a\\nb'"),
        (
            "https://-b\u00fc",
            r"expected an address as https://host:port \(or http://\), got 'https://-b\\xfc': Invalid IDNA",
        ),
        ("coordinator:8000", "expected an address such as https://host:8470, got 'coordinator:8000'"),
        ("ftp://host", "expected https, wss or grpcs"),
        ("https://user:secret@host", "expected an address"),
        ("", "expected an address"),
        ("http://192.0.2.1:8470", "expected https:// for a coordinator on another machine, .* say insecure=True"),
        ("ws://host", "expected wss:// for a coordinator on another machine"),
        ("grpc://host:8471", "expected grpcs:// for a coordinator on another machine"),
        ("http://127.0.0.1.example.org", "expected https:// for a coordinator on another machine"),
        ("http://0.0.0.0:8470", "expected https:// for a coordinator on another machine"),
    ],
)
def test_addresses(url, words, tmp_path):
    with pytest.raises(InvalidValueError, match=words):
        AsyncMATLClient(url, folder=tmp_path)
    AsyncMATLClient("http://localhost", folder=tmp_path)  # no lock is left


@pytest.mark.parametrize("url", ["http://192.0.2.1:8470", "ws://host:1", "grpc://host:8471", "wss://host:1"])
def test_lines_in_the_clear_are_for_whoever_means_them(url):
    asyncio.run(open_transport(url, insecure=True).aclose())


@pytest.mark.parametrize("url", ["http://localhost:1", "ws://127.0.0.1:1", "grpc://[::1]:1", "http://127.1.2.3"])
def test_lines_within_this_machine_need_no_encryption(url):
    asyncio.run(open_transport(url).aclose())


def test_the_address_is_given_once(tmp_path):
    for arguments in ((), ("http://localhost",)):
        options = {"oracle_endpoint": "http://localhost"} if arguments else {}
        with pytest.raises(InvalidValueError, match="expected the coordinator's address, as url or as oracle_endpoint"):
            MATLClient(*arguments, folder=tmp_path, **options)


def test_the_words_of_the_quick_start(host, url, tmp_path):
    import matl

    with matl.MATLClient(mode=matl.Mode1, oracle_endpoint=url, folder=tmp_path) as client:
        client.join(host.invite())
        assert client.run().mode == "mode1"


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "matl.client.http", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ImportError, match=r"pip install 'matl\[client\]'"):
        AsyncMATLClient("http://localhost", folder=tmp_path)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """An authority, and a server's certificate for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("pki")
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ),
            *("-keyout", "server.key", "-out", "server.pem", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


def test_tls(host, client_of, pki, tmp_path):
    options = {"ssl_keyfile": pki / "server.key", "ssl_certfile": pki / "server.pem"}
    with serving(application(host), **options) as url:
        secure = url.replace("http://", "https://")
        error = error_of(client_of(secure), ask)
        assert (error.code, error.reason) == ("unauthenticated", "tls")
        assert f"the certificate of {secure} is not one to trust" in str(error)
        assert "ca='ca.pem'" in str(error)
        for scheme in ("https://", "wss://"):
            run(client_of(url.replace("http://", scheme), ca=pki / "server.pem"), join(host))
        assert error_of(client_of(url), ask).code == "busy"  # http where https is spoken
    with pytest.raises(StateError, match="certificates cannot be read"):
        AsyncMATLClient("https://host", ca=tmp_path / "none.pem", folder=tmp_path / "x")


def test_a_client_may_show_a_certificate(host, client_of, pki):
    options = {
        "ssl_keyfile": pki / "server.key",
        "ssl_certfile": pki / "server.pem",
        "ssl_ca_certs": pki / "server.pem",
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
    }
    certificate = (pki / "server.pem", pki / "server.key")
    with serving(application(host), **options) as url:
        secure = url.replace("http://", "https://")
        run(client_of(secure, ca=pki / "server.pem", certificate=certificate), join(host))
        assert error_of(client_of(secure, ca=pki / "server.pem"), ask).reason in ("unreachable", "tls")


def test_retry_after_is_respected(host, url, tmp_path):
    from matl.client.retrying import Retrying

    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    host.stumble("POST /v1/challenge", refused("rate", status=429, retry_after=7.5))
    client = AsyncMATLClient(url, folder=tmp_path, retrying=Retrying(base=0.001, sleep=sleep))
    run(client, join(host))
    assert len(waits) == 1
    assert 7.5 <= waits[0] <= 7.501


def test_another_signer_of_receipts_is_refused(host, url, client_of):
    from matl.attest.keys import SigningKey

    async def work(client):
        await client.join(host.invite())
        await client.run()

    run(client_of(url), work)
    host.key = SigningKey.generate()
    assert error_of(client_of(url), work, ProtocolError).code == "signer"


def test_a_forged_receipt_is_refused(host, url, client_of):
    from matl.attest.keys import SigningKey

    async def work(client):
        await client.join(host.invite())
        current = await client.next_round()
        sent = await client.submit_gradient(current.delta(current.params))
        host.key = SigningKey.generate()
        await client.verify_gradient(sent.payload_sha256)

    assert error_of(client_of(url), work, ProtocolError).code == "signer"


def test_threads_end_with_their_client(host, url, tmp_path):
    before = threading.active_count()
    with MATLClient(url, folder=tmp_path) as client:
        client.join(host.invite())
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layout_hash": "ab" * 32}, "round 0 is about other arrays than run 'demo'"),
        ({"round": 7}, "round 0 of 'demo' and its specification differ"),
        ({"run": "other"}, "round 0 of 'demo' and its specification differ"),
        ({"model_hash": "ab" * 32}, "round 0 of 'demo' and its specification differ"),
    ],
)
def test_a_round_that_contradicts_itself_is_refused_before_training(host, url, client_of, monkeypatch, change, words):
    genuine = host.round_view

    def contradicting():
        view = genuine()
        return view.model_copy(update={"spec": view.spec.model_copy(update=change)})

    async def work(client):
        await client.join(host.invite())
        monkeypatch.setattr(host, "round_view", contradicting)
        await client.next_round()

    assert str(error_of(client_of(url), work, ProtocolError)) == words


async def sent(client, host):
    await client.join(host.invite())
    current = await client.next_round()
    return await client.submit_gradient(current.delta(current.params))


def test_an_acknowledgement_of_something_else_is_none(host, url, client_of, monkeypatch):
    genuine = host._acknowledged
    monkeypatch.setattr(
        host, "_acknowledged", lambda head, **_: genuine(head).model_copy(update={"payload_sha256": "ab" * 32})
    )

    async def work(client):
        with pytest.raises(ServiceError, match="the coordinator acknowledged abababababab, sent was"):
            await sent(client, host)
        return client.waiting

    assert run(client_of(url), work) == 1  # it was not dropped


def test_a_receipt_about_something_else_is_refused(host, url, client_of, monkeypatch):
    genuine = host.receipt

    async def work(client):
        acknowledgement = await sent(client, host)
        await client.next_round()
        await client.submit_gradient(np.ones(9))
        monkeypatch.setattr(host, "receipt", lambda number, name: genuine(1, name))
        with pytest.raises(ProtocolError, match="sent a receipt of 'alice' in round 1") as caught:
            await client.receipt(0)
        assert caught.value.code == "mismatch"
        monkeypatch.undo()
        with pytest.raises(ProtocolError, match="of this client in round 1, sent was") as caught:
            await client.verify_gradient(acknowledgement.payload_sha256, round=1)
        assert caught.value.code == "mismatch"
        with pytest.raises(InvalidValueError, match="say in which round"):
            await client.verify_gradient("ab" * 32)

    run(client_of(url), work)


def test_a_verdict_that_is_still_to_come(client_of):
    host = Coordinator(target=2)

    async def work(client):
        acknowledgement = await sent(client, host)
        return await client.verify_gradient(acknowledgement.payload_sha256)

    with serving(application(host)) as url:
        assert run(client_of(url), work) is None
