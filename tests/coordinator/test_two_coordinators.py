"""A second coordinator on the same database and blobs, as in a rolling restart: the one before takes nothing more."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace

import pytest
from tests.coordinator.service_kit import NAMES, RUN, Client, Kit, network, pieces

from matl.attest.session import SessionText
from matl.coordinator.service import Service
from matl.errors import ServiceError
from matl.protocol.messages import InviteRequest, SessionRequest


def kits(tmp_path, database_url):
    """Two coordinators of one database: as processes on two machines, each with a folder of its own."""
    return [Kit(tmp_path, {"database": database_url, "folder": tmp_path / name}) for name in ("one", "two")]


async def superseded(asking):
    with pytest.raises(ServiceError, match="another coordinator has taken over the database") as refused:
        await asking
    assert (refused.value.code, refused.value.reason) == ("busy", "superseded")


def at(kit: Kit, client: Client) -> Client:
    """A client of the one coordinator, at the other."""
    return replace(client, kit=kit)


@pytest.fixture
def unwatched(monkeypatch):
    """Nobody notices by itself: what has to be refused is refused all the same."""

    async def sleep(self):
        await asyncio.Event().wait()

    monkeypatch.setattr(Service, "_keep_watch", sleep)


def test_a_round_goes_on_at_the_second_where_the_first_left_it(tmp_path, database_url, unwatched):
    async def check():
        one, two = kits(tmp_path, database_url)
        async with one.open():
            ann, bob, cid = await network(one)
            await ann.send()
            await bob.send()
            async with two.open():
                await superseded(cid.send())  # acknowledged by nobody: it is sent again, to the other
                for client in (ann, bob):
                    assert (await at(two, client).send()).duplicate
                await at(two, cid).send()
                assert (await two.ended(0)).status == "committed"
                verdicts = await two.service.store.verdicts(RUN, round=0)
                assert sorted(verdict.client for verdict in verdicts) == sorted(NAMES)
                assert one.service.superseded.is_set()

    asyncio.run(check())


def test_who_was_revoked_at_the_second_is_recognised_by_the_first_no_more(tmp_path, database_url, unwatched):
    async def check():
        one, two = kits(tmp_path, database_url)
        async with one.open():
            ann, bob, _ = await network(one)
            challenge = (await one.service.challenge()).challenge
            signature = ann.key.sign(SessionText(client_id="ann", challenge=challenge).to_bytes())
            asked = SessionRequest(client_id="ann", challenge=challenge, signature=base64.b64encode(signature).decode())
            await one.service.session(asked)
            invitation = (await one.service.invite(one.admin, InviteRequest())).token
            again = await one.request("ann", ann.key, invitation)
            token = one.bearer["Authorization"]
            assert (await one.service.authenticate(ann.bearer["Authorization"])).name == "ann"
            async with two.open():
                await two.service.revoke(two.admin, "ann", "lost")
                for bearer in (ann.bearer, bob.bearer, one.bearer):
                    await superseded(one.service.authenticate(bearer["Authorization"]))
                await superseded(one.service.authenticate("Bearer matl_cl_nobody"))  # the other may know it
                await superseded(one.service.session(asked))
                await superseded(one.service.enrol(again))
                await superseded(one.service.invite(one.admin, InviteRequest()))
                assert (await two.service.authenticate(token)).kind == "operator"

    asyncio.run(check())


def test_what_the_first_remembers_refuses_nothing_that_the_second_would_take(tmp_path, database_url, unwatched):
    """And what it has no use for it does not delete: the same bytes may count there."""

    async def check():
        one, two = kits(tmp_path, database_url)
        async with one.open():
            ann, bob, _ = await network(one)
            async with two.open():
                for name in NAMES:
                    await at(two, one.clients[name]).send(3.0)
                await two.ended(0)
                await two.service.current_round(two.admin, RUN, after=0, wait=10)
                head, _ = await at(two, ann).signed(5.0)
                assert head.round == 1
                refusing = one.service.submit(None, RUN, 1, pieces(await at(two, ann).message(5.0)))
                await superseded(refusing)  # not: round 1 is not open
                await two.service.submit(None, RUN, 1, pieces(await at(two, bob).message(5.0)))
                old = one.service.live(RUN)
                await superseded(old._host.delete_blob(head.payload_sha256))
                with pytest.raises(ServiceError):
                    await one.service.tidy()
                assert await two.service.blobs.exists(head.payload_sha256)

    asyncio.run(check())


def test_a_round_that_both_judge_is_committed_once(tmp_path, database_url, unwatched):
    async def check():
        one, two = kits(tmp_path, database_url)
        async with one.open():
            await network(one)
            live, began, go_on = one.service.live(RUN), asyncio.Event(), asyncio.Event()
            judged = live._judged

            async def slowly(request):
                began.set()
                await go_on.wait()
                return await judged(request)

            live._judged = slowly
            for name in NAMES:
                await one.clients[name].send()
            await began.wait()
            async with two.open():
                ended = await two.ended(0)
                go_on.set()
                async with asyncio.timeout(10):
                    while not one.service.superseded.is_set():
                        await asyncio.sleep(0.01)
                events = await two.service.store.events(run=RUN)
                assert [event.kind for event in events if event.round == 0].count("round_committed") == 1
                assert (await two.service.round(two.admin, RUN, 0)).next_model_hash == ended.next_model_hash

    asyncio.run(check())


def test_the_first_notices_by_itself_and_lets_nobody_wait(tmp_path, sqlite_url, caplog):
    async def check():
        one, two = kits(tmp_path, sqlite_url)
        async with one.open():
            await network(one)
            waiting = asyncio.create_task(one.service.current_round(one.admin, RUN, after=0, wait=30))
            async with two.open():
                async with asyncio.timeout(5):
                    await one.service.superseded.wait()
                    await waiting
                await asyncio.sleep(0)
                with pytest.raises(ServiceError, match="is about to end"):
                    await one.service.ready()
                await two.service.ready()

    asyncio.run(check())
    assert "another coordinator has taken over the database: nothing is taken here any more" in caplog.text
