"""Masked rounds over a network: real clients, a real coordinator, and whoever leaves, lies or crashes."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.network.masked_kit import NAMES, Kit, Spy, take_part, updates

from matl.errors import ProtocolError, ServiceError


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_the_model_after_a_round_is_what_the_sum_of_the_words_decodes_to(tmp_path, monkeypatch, scheme):
    spy = Spy(monkeypatch)

    async def check():
        made = updates()
        async with Kit(tmp_path, scheme).open() as kit, kit.clients() as clients:
            live = kit.service.live("demo")
            seed = live.spec.public_seed
            acks = await asyncio.gather(*(take_part(clients[name], made[name]) for name in NAMES))
            view = await kit.ended(0)
            assert view.status == "committed", view.reason
            expected = spy.decoded(0, NAMES, seed)
            np.testing.assert_allclose(await kit.params(1), expected, rtol=1e-5, atol=1e-6)
            assert np.corrcoef(expected, sum(made.values()) / len(made))[0, 1] > 0.5
            assert view.accepted == len(NAMES)
            assert await kit.service.store.phase_messages("demo", 0) == []
            about = await clients["client-03"].verdict(0, wait=5)
            assert (about.status, about.verdict.value) == ("judged", "accepted")
            assert about.payload_sha256 == acks[3].payload_sha256
            assert (await clients["client-03"].receipt(0)).update_hash == acks[3].payload_sha256
            update = await kit.service.store.update("demo", 0, "client-03")
            assert update.num_examples is None

    asyncio.run(check())
