"""Rounds that clients are drawn for, over the wire: who is drawn trains, and everybody else waits for a later round."""

import asyncio
from collections import Counter

import numpy as np
import pytest
from tests.client.real import coordinator
from tests.network.masked_kit import ADMIN, Kit, take_part, updates

from matl.client import AsyncMATLClient
from matl.client.sync import MATLClient
from matl.errors import ServiceError
from matl.privacy.secagg import Phase
from matl.protocol.messages import StartRequest

RUN = {
    "dataset": "synthetic",
    "clients": 2,
    "rounds": 6,
    "task": "softmax",
    "root_size": 20,
    "mode": "plain",
    "network": {"target": 2, "quorum": 1, "deadline": 60.0, "overselect": 1.5},
}
NAMES = tuple(f"client-{index}" for index in range(8))


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_no_more_clients_train_than_are_drawn_and_all_of_them_see_the_end(tmp_path, door):
    trained = Counter()

    def train(params, current):
        trained[current.number] += 1
        if current.view.invited is not None:
            assert current.view.selected
        return {name: array + 0.01 for name, array in params.items()}, 10

    async def take_all(served, invitation):
        clients = [AsyncMATLClient(served.at(door), client_id=name, folder=tmp_path / name) for name in NAMES]
        try:
            for client in clients:
                await client.join(invitation)
            async with asyncio.timeout(60):
                return await asyncio.gather(*(client.fit_loop(train) for client in clients))
        finally:
            for client in clients:
                await client.close()

    with coordinator(tmp_path / "served", grpc=door == "grpc", fed=RUN) as served:
        arrived = asyncio.run(take_all(served, served.invite(uses=len(NAMES))))
        assert sum(arrived) >= 2 * 6  # those of a round that closed before they came are its others
        # Nobody was enrolled when the first round opened: it was everybody's. From then on three at most are drawn.
        assert trained.keys() == set(range(6))
        assert all(trained[number] <= 3 for number in range(1, 6)), trained


def test_a_client_that_sends_all_the_same_is_refused_and_goes_on(tmp_path):
    with coordinator(tmp_path / "served", fed=RUN) as served:
        invitation = served.invite(uses=len(NAMES))
        clients = [MATLClient(served.url, client_id=name, folder=tmp_path / name) for name in NAMES]
        try:
            for client in clients:
                client.join(invitation)
            for client in clients[:2]:
                found = client.next_round(wait=20)
                client.submit_gradient({name: np.zeros_like(a) for name, a in found.params.items()}, round=found)
            drawn, waiting = [], []
            for client in clients:
                try:
                    drawn.append((client, client.next_round(wait=1)))
                except ServiceError:
                    waiting.append(client)
            assert (len(drawn), len(waiting)) == (3, 5)
            _, round_ = drawn[0]
            update = {name: np.zeros_like(array) for name, array in round_.params.items()}
            with pytest.raises(ServiceError, match="is not among the 3 clients that were drawn for round 1") as refused:
                waiting[0].submit_gradient(update, round=round_)
            assert refused.value.reason == "not_selected"
            assert waiting[0].waiting == 0  # it is not kept to be sent again
            for client, found in drawn[:2]:
                client.submit_gradient(update, round=found)
            assert waiting[0].runs()[0].id == "fed"
        finally:
            for client in clients:
                client.close()


def test_clients_are_drawn_for_masked_rounds_too(tmp_path):
    async def check():
        made, kit = updates(), Kit(tmp_path, names=tuple(updates())[:10])
        async with kit.open(), kit.clients(run="drawn") as clients:
            settings = {"target": 8, "quorum": 6, "over_selection": 1.0}
            await kit.service.start(ADMIN, StartRequest(id="drawn", settings=settings))
            chosen = kit.service.live("drawn").machine.selected
            assert len(chosen) == 8
            others = [name for name in kit.names if name not in chosen]
            waiting = [asyncio.create_task(clients[name].next_round(wait=30)) for name in others]
            with pytest.raises(ServiceError) as refused:
                await kit.service.live("drawn").take_message(
                    others[0], clients[others[0]].public_key.ed25519, 0, Phase.ADVERTISE.value, b"keys"
                )
            assert (refused.value.code, refused.value.reason) == ("conflict", "not_selected")
            await asyncio.gather(*(take_part(clients[name], made[name]) for name in chosen))
            async with asyncio.timeout(30):
                while (await kit.service.round(ADMIN, "drawn", 0)).status in ("open", "judging"):
                    await asyncio.sleep(0.02)
            done = await kit.service.round(ADMIN, "drawn", 0)
            assert (done.status, done.accepted) == ("committed", 8), done.reason
            for task in waiting:
                task.cancel()
            came = await asyncio.gather(*waiting, return_exceptions=True)
            assert {1} >= {found.number for found in came if not isinstance(found, BaseException)}

    asyncio.run(check())
