"""A coordinator as production runs it: TLS, certificates of clients, PostgreSQL, gRPC, runs of a file."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import aclosing
from types import SimpleNamespace

import httpx
import pytest
from tests.coordinator.grpc_door.certificates import Authority
from tests.coordinator.postgres import server

from matl.attest.keys import SigningKey
from matl.client import AsyncMATLClient
from matl.client.websocket import WebSocketTransport
from matl.errors import ConfigError, InvalidValueError, ServiceError
from matl.network import serving
from matl.network.checking import check_all
from matl.network.hosting import open_coordinator, upgrade_database, versions
from matl.network.operating import Operator
from matl.network.serving import free_socket
from matl.network.settings import NetworkSettings, load_settings
from matl.protocol.messages import InviteRequest

RUN = {
    "dataset": "synthetic",
    "clients": 3,
    "rounds": 2,
    "task": "softmax",
    "root_size": 20,
    "mode": "plain",
    "network": {"quorum": 1, "deadline": 60.0},
}


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with server() as running:
        yield running.create()


def train(params, current):
    return {name: array + 0.01 for name, array in params.items()}, 10


async def joined(settings, doors, folder, name, **options):
    """A client that was invited by the owner."""
    operator = Operator.of(settings.folder, ca=options.get("ca"), certificate=options.get("certificate"))
    with operator as line:
        made = await asyncio.to_thread(line.invite, InviteRequest(client_id=name))
    client = AsyncMATLClient(doors.url, client_id=name, folder=folder / name, **options)
    await client.join(made.token)
    return client


async def whole_run(settings, folder, **options):
    """Serve a run to its end with three clients; their verdicts in the last round, and what `look` returned."""
    async with open_coordinator(settings) as doors:
        clients = [await joined(settings, doors, folder, name, **options) for name in ("ann", "bob", "eve")]
        try:
            await asyncio.gather(*(client.fit_loop(train) for client in clients))
            return [(await client.verdict(1)).verdict for client in clients], await clients[0].run()
        finally:
            for client in clients:
                await client.close()


def test_a_run_over_tls_with_postgresql(tmp_path, postgres_url):
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("coordinator")
    settings = NetworkSettings.model_validate(
        {
            "folder": tmp_path / "data",
            "port": 0,
            "database": postgres_url,
            "tls": {"certificate": certificate, "key": key},
            "runs": {"hospitals": RUN},
        }
    )
    assert asyncio.run(versions(settings))[0] == ""
    asyncio.run(upgrade_database(settings))
    current, needed = asyncio.run(versions(settings))
    assert current == needed
    verdicts, run = asyncio.run(whole_run(settings, tmp_path, ca=authority.file))
    assert [str(verdict) for verdict in verdicts] == ["accepted"] * 3
    assert (run.id, run.status, run.round) == ("hospitals", "finished", 2)
    assert not (tmp_path / "data" / "matl.db").exists()

    # More rounds may be written into the file, and another configuration may not.
    longer = settings.model_copy(update={"runs": {"hospitals": {**RUN, "network": {"rounds": 3, "quorum": 1}}}})

    async def state_of(changed):
        async with open_coordinator(changed) as doors:
            with Operator.of(settings.folder, ca=authority.file) as line:
                response = await asyncio.to_thread(line._client.get, f"{doors.url}/v1/runs/hospitals")
            return response.json()

    told = asyncio.run(state_of(longer))
    assert (told["status"], told["rounds"], told["round"]) == ("running", 3, 2)
    other = settings.model_copy(update={"runs": {"hospitals": {**RUN, "seed": 5, "network": {"rounds": 3}}}})
    with pytest.raises(ConfigError, match=r"hospitals\.seed: begun with 10, the file says 5"):
        asyncio.run(state_of(other))


def test_a_certificate_of_the_own_key_says_who_a_client_is(tmp_path):
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("coordinator")
    (client_certificate := authority.issue("ann"))[1].chmod(0o600)
    settings = NetworkSettings.model_validate(
        {
            "folder": tmp_path / "data",
            "port": 0,
            "tls": {"certificate": certificate, "key": key, "client_ca": authority.file},
            "runs": {"hospitals": RUN},
        }
    )

    async def work():
        async with open_coordinator(settings) as doors:
            options = {"ca": authority.file, "certificate": client_certificate}
            ann = await joined(settings, doors, tmp_path, "ann", key=SigningKey.load(client_certificate[1]), **options)
            await ann.close()
            context = ssl.create_default_context(cafile=str(authority.file))
            async with httpx.AsyncClient(verify=context) as stranger:
                with pytest.raises(httpx.TransportError):
                    await stranger.get(f"{doors.url}/v1/health")
            context.load_cert_chain(*map(str, client_certificate))
            async with httpx.AsyncClient(verify=context) as known:
                return (await known.get(f"{doors.url}/v1/runs")).status_code

    assert asyncio.run(work()) == 200


def test_a_certificate_of_the_own_key_opens_a_websocket_too(tmp_path):
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("coordinator")
    (client_certificate := authority.issue("ann"))[1].chmod(0o600)
    tls = {"certificate": certificate, "key": key, "client_ca": authority.file}
    settings = NetworkSettings.model_validate({"folder": tmp_path / "data", "port": 0, "tls": tls, "runs": {"a": RUN}})
    options = {"ca": authority.file, "certificate": client_certificate}

    async def work():
        async with open_coordinator(settings) as doors:
            ann = await joined(settings, doors, tmp_path, "ann", key=SigningKey.load(client_certificate[1]), **options)
            await ann.close()
            url = doors.url.replace("https", "wss")
            stranger = WebSocketTransport(url, ca=authority.file)
            with pytest.raises(ServiceError):
                await anext(stranger.events())
            await stranger.aclose()
            page = WebSocketTransport(url, **options)
            page._options["origin"] = "https://elsewhere.example"  # as a browser says for a page
            with pytest.raises(ServiceError, match="this needs"):
                await anext(page.events())
            await page.aclose()
            known = WebSocketTransport(url, **options)  # without a session: the certificate says who it is
            async with aclosing(known.events()) as events:
                first = await anext(events)
                with Operator.of(settings.folder, **options) as line:
                    await asyncio.to_thread(line._client.post, f"{doors.url}/v1/admin/clients/ann/revoke", json={})

                async def to_the_end():
                    async with asyncio.timeout(10):
                        async for _ in events:
                            pass

                with pytest.raises(ServiceError) as caught:
                    await to_the_end()
            await known.aclose()
            return first.seq, caught.value.code, caught.value.reason

    assert asyncio.run(work()) == (1, "unauthenticated", "token")


def test_grpc_is_a_door_of_its_own(tmp_path):
    settings = NetworkSettings.model_validate(
        {"folder": tmp_path / "data", "port": 0, "grpc_port": 0, "runs": {"hospitals": {**RUN, "rounds": 1}}}
    )

    async def work():
        async with open_coordinator(settings) as doors:
            clients = [await joined(settings, doors, tmp_path, name) for name in ("ann", "bob")]
            assert doors.grpc_url.startswith("grpc://127.0.0.1:")
            with Operator.of(settings.folder) as line:
                made = await asyncio.to_thread(line.invite, InviteRequest(client_id="eve"))
            eve = AsyncMATLClient(doors.grpc_url, client_id="eve", folder=tmp_path / "eve")
            await eve.join(made.token)
            clients.append(eve)
            await asyncio.gather(*(client.fit_loop(train) for client in clients))
            for client in clients:
                status = (await client.verdict(0)).verdict
                await client.close()
            return status

    assert str(asyncio.run(work())) == "accepted"


def test_who_waits_for_a_round_is_told_at_once_when_the_doors_close(tmp_path):
    settings = NetworkSettings.model_validate({"folder": tmp_path / "data", "port": 0, "runs": {"hospitals": RUN}})

    async def work():
        loop = asyncio.get_running_loop()
        async with open_coordinator(settings) as doors:
            ann = await joined(settings, doors, tmp_path, "ann")
            await ann.next_round()
            line = ann._connection.transport
            waiting = asyncio.create_task(line.current_round("hospitals", after=0, wait=30))
            await asyncio.sleep(0.3)
            began = loop.time()
        took = loop.time() - began
        await asyncio.gather(waiting, return_exceptions=True)
        await ann.close()
        return took

    assert asyncio.run(work()) < 5


def test_a_port_that_is_taken_and_the_next_that_is_free():
    with free_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidValueError, match=f"cannot listen at 127.0.0.1:{port}: Address already in use"):
            free_socket("127.0.0.1", port)
        with free_socket("127.0.0.1", port, search=True) as other:
            assert port < other.getsockname()[1] <= port + 50
    with pytest.raises(InvalidValueError, match=r"cannot listen at 'no\.such\.host\.invalid'"):
        free_socket("no.such.host.invalid", 0)
    with pytest.raises(InvalidValueError, match=r"192\.0\.2\.1"):
        free_socket("192.0.2.1", 0)


def test_everything_is_looked_at_before_it_is_started(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "cert.pem").write_text("no certificate")
        (tmp_path / "matl.toml").write_text(f"""
            folder = "data"
            port = {port}
            database = "postgresql://matl@127.0.0.1:1/none"
            [tls]
            certificate = "cert.pem"
            key = "key.pem"
            [runs.one]
            dataset = "synthetic"
            [runs.two]
            dataset = {{ name = "csv", path = "/no/such/file.csv", label = "ill" }}
        """)
        found = {one.what: one.problem for one in asyncio.run(check_all(load_settings(tmp_path / "matl.toml")))}
    good = [what for what, problem in found.items() if not problem]
    assert good == [f"folder {tmp_path / 'data'}", "blobs", "run one"]
    assert "TLS cannot be set up" in found[f"certificate {tmp_path / 'cert.pem'}"]
    assert "Address already in use" in found[f"http at 127.0.0.1:{port}"]
    assert found["database"]
    assert "/no/such/file.csv" in found["run two"]


def test_a_file_with_mistakes_is_refused_with_all_of_them(tmp_path):
    (tmp_path / "matl.toml").write_text('folder = "x"\nprot = 1\n[runs.one]\nclients = 0\nrounds = 0\n')
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "matl.toml")
    assert len(caught.value.problems) == 2  # the runs' own come as one, in one line
    assert "one.clients" in str(caught.value)
    assert "one.rounds" in str(caught.value)


def test_who_begins_a_request_and_does_not_go_on_is_hung_up_on(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "_HEAD_SECONDS", 0.3)
    monkeypatch.setattr(serving, "_BODY_SECONDS", 0.3)
    settings = NetworkSettings(folder=tmp_path / "data", port=0)
    requests = {
        "no head": b"",
        "half a head": b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "half a body": b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    }

    async def ask(port, request):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        try:
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    async def work():
        async with open_coordinator(settings) as doors:
            port = int(doors.url.rpartition(":")[2])
            answers = await asyncio.gather(*(ask(port, request) for request in requests.values()))
            async with httpx.AsyncClient() as client:  # an idle connection that has been used is left alone
                first = await client.get(f"{doors.url}/v1/health")
                await asyncio.sleep(0.5)
                second = await client.get(f"{doors.url}/v1/health")
            return answers, (first.status_code, second.status_code)

    answers, statuses = asyncio.run(work())
    assert not any(answer.startswith(b"HTTP/1.1 2") for answer in answers)
    assert statuses == (200, 200)


def test_a_run_that_is_begun_over_the_network_has_no_files_read(tmp_path):
    async def scenario():
        settings = NetworkSettings(folder=tmp_path, port=0)
        async with open_coordinator(settings) as doors:
            with Operator.of(tmp_path, url=doors.url) as line:
                dataset = {"name": "csv", "path": str(tmp_path / "admin.token"), "label": "ill"}
                body = {"id": "odd", "settings": {"dataset": dataset, "clients": 4}}
                answer = await asyncio.to_thread(line._client.post, "/v1/runs", json=body)
                assert answer.status_code == 422
                assert "files are named by the coordinator's own settings alone" in answer.text
                assert (tmp_path / "admin.token").read_text().strip() not in answer.text

    asyncio.run(scenario())


@pytest.mark.parametrize(("mode", "rows"), [("plain", 12), ("mode0", 24), ("mode1", 12 + 10**2 + 120)])
def test_a_check_tells_that_there_is_no_room_to_judge(tmp_path, monkeypatch, mode, rows):
    run = {"dataset": "synthetic", "mode": mode, "clients": 12, "task": "softmax"}
    settings = NetworkSettings.model_validate({"folder": tmp_path, "port": 0, "runs": {"demo": run}})
    needed = 4 * rows * 210  # parameters of a softmax regression of 20 features and 10 classes
    for free in (needed, needed - 1):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        found = asyncio.run(check_all(settings))[-1]
        assert found.what == "run demo"
        assert found.problem.startswith("judging 12 updates takes up to 0.0 GB of files" if free < needed else "")
        assert bool(found.problem) == (free < needed)


@pytest.mark.parametrize(
    ("mode", "terms", "said"),
    [
        ("mode0", {"target": 3}, "rounds of 3: mode0 has no opinion below 4 updates, and everybody counts"),
        ("mode0", {"target": 4, "quorum": 4}, ""),
        ("mode1", {"target": 9}, "rounds of 9: below 10 updates mode1 has no opinion on alien and campaign"),
        ("mode1", {"target": 10, "quorum": 10}, ""),
        ("mode1", {}, "rounds of 8 to 12: below 10 updates mode1 has no opinion on alien and campaign"),
        ("mode1", {"quorum": 10}, ""),
        ("plain", {"target": 1}, ""),
    ],
)
def test_a_check_tells_what_a_judge_cannot_do_in_rounds_of_so_few(tmp_path, mode, terms, said):
    run = {"dataset": "synthetic", "mode": mode, "clients": 12, "network": terms}
    settings = NetworkSettings.model_validate({"folder": tmp_path, "port": 0, "runs": {"demo": run}})
    found = asyncio.run(check_all(settings))[-1]
    assert (found.what, found.problem) == ("run demo", "")
    assert found.note[: len(said) or None] == said
    assert found.note.endswith("with quorum = 10") == (" to " in said)
