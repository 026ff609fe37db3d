"""A client that agreed to masked rounds shows no coordinator its updates, whatever kind of round that says it opens."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from tests.client.fake import refused

from matl.client.folder import ClientFolder
from matl.errors import InvalidValueError, ProtocolError, ServiceError
from matl.screening import encode_payload

PLUS_ONE = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
WAYS = ("manifest_sha256", "participants", "max_epsilon")


def insisting(tmp_path, way):
    """What makes a client insist on masks."""
    (tmp_path / "participants.json").write_text(json.dumps({}))
    values = {"manifest_sha256": "ab" * 32, "participants": tmp_path / "participants.json", "max_epsilon": 8.0}
    return {way: values[way]}


def agreed(tmp_path, run, name="alice"):
    """What masked rounds of a run leave in a client's folder."""
    with ClientFolder(tmp_path / name, client_id=name) as folder:
        folder.pin_manifest(run, "ab" * 32)


async def found_by_somebody(host, client_of, url):
    """The round that the coordinator opened, as another client sees it."""
    async with client_of(url, "bob") as bob:
        await bob.join(host.invite())
        return await bob.next_round(wait=5)


async def refuse_all(client, found, match):
    """No way leads out."""
    payload = encode_payload(PLUS_ONE)[0]
    for act in (
        lambda: client.next_round(wait=5),
        lambda: client.submit_gradient(PLUS_ONE, round=found, metadata={"num_examples": 37}),
        lambda: client.submit_payload(payload, round=found, num_examples=37),
        lambda: client.fit_loop(lambda params, _: (params, 37), rounds=1),
    ):
        with pytest.raises(ProtocolError, match=match) as caught:
            await act()
        assert caught.value.code == "clear"
    assert client.waiting == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_was_told_of_masks_sends_nothing_without_them(host, url, client_of, tmp_path, way):
    async def check():
        found = await found_by_somebody(host, client_of, url)
        async with client_of(url, **insisting(tmp_path, way)) as client:
            await client.join(host.invite())
            await refuse_all(client, found, rf"not masked, and this client was told {way}, .*leave that out\.$")

    asyncio.run(check())
    assert host.accepted == {}


def test_a_run_whose_manifest_was_agreed_to_stays_masked(host, url, client_of, tmp_path):
    agreed(tmp_path, "demo")

    async def check():
        found = await found_by_somebody(host, client_of, url)
        for options in ({}, {"run": "demo"}):
            async with client_of(url, **options) as client:
                await client.join(host.invite())
                await refuse_all(
                    client, found, r"agreed to the privacy manifest (ab){32} of that run.*new client folder"
                )

    asyncio.run(check())
    assert host.accepted == {}


def test_a_coordinator_that_gives_its_run_another_name_gets_nothing_unless_the_user_chose_it(
    host, url, client_of, tmp_path
):
    agreed(tmp_path, "another")

    async def check():
        found = await found_by_somebody(host, client_of, url)
        async with client_of(url) as client:
            await client.join(host.invite())
            await refuse_all(
                client, found, r"masked rounds of 'another' and did not choose.*MATLClient\(..., run='demo'\)"
            )
        assert host.accepted == {}
        async with client_of(url, run="demo") as client:
            await client.next_round(wait=5)
            await client.submit_gradient(PLUS_ONE)

    asyncio.run(check())
    assert list(host.accepted) == [(0, "alice")]


@pytest.mark.parametrize("way", [*WAYS, "folder"])
def test_an_update_that_waits_is_not_sent_after_masks_were_agreed_to(host, url, client_of, tmp_path, way):
    async def check():
        async with client_of(url) as client:
            await client.join(host.invite())
            await client.next_round(wait=5)
            host.stumble("/updates", *[refused("busy") for _ in range(6)])
            with pytest.raises(ServiceError):
                await client.submit_gradient(PLUS_ONE)
            assert client.waiting == 1
        host.stumbles.clear()
        if way == "folder":
            agreed(tmp_path, "demo")
        async with client_of(url, **({} if way == "folder" else insisting(tmp_path, way))) as client:
            for act in (client.flush, client.next_round):
                with pytest.raises(ProtocolError, match=r"to go on, remove .*\.json and .*\.payload in .*queue"):
                    await act()
            assert client.waiting == 1

    asyncio.run(check())
    assert host.accepted == {}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_has_to_be_one(client_of, tmp_path, value):
    with pytest.raises(InvalidValueError, match="max_epsilon"):
        client_of("http://127.0.0.1:1", max_epsilon=value)
    assert not (tmp_path / "alice").exists()
