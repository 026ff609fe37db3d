"""Updates through outages: nothing that was acknowledged is lost, and nothing that was sent counts twice."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from tests.client.fake import LOST, Coordinator, application, refused, serving

from matl.attest.claims import system_clock
from matl.attest.keys import SigningKey
from matl.errors import InvalidValueError, LayoutError, ServiceError
from matl.protocol.messages import OracleView
from matl.screening import encode_payload

PLUS_ONE = {"w": np.ones((2, 3)), "b": np.ones(3)}


def run(client, work):
    async def within():
        async with client:
            return await work(client)

    return asyncio.run(within())


async def begin(client, host):
    await client.join(host.invite())
    return await client.next_round()


def test_an_answer_that_is_lost_is_asked_for_again(host, url, client_of):
    async def work(client):
        await begin(client, host)
        host.stumble("/updates", LOST)
        return await client.submit_gradient(PLUS_ONE)

    assert run(client_of(url), work).duplicate
    assert (len(host.accepted), host.seen["POST /v1/runs/demo/rounds/0/updates"]) == (1, 2)


def test_an_update_is_kept_while_nobody_is_there(host, client_of):
    async def offline(client):
        await begin(client, host)
        host.stumble("/updates", *[refused("busy") for _ in range(6)])
        with pytest.raises(ServiceError, match=r"The update is kept in .*queue and sent as soon as there is an answer"):
            await client.submit_gradient(PLUS_ONE, metadata={"num_examples": 5})
        return client.waiting

    with serving(application(host)) as url:
        assert run(client_of(url), offline) == 1
        assert host.accepted == {}

        async def back(client):
            assert client.waiting == 1
            current = await client.next_round()
            return current.number, client.waiting

        assert run(client_of(url), back) == (1, 0)
    assert host.accepted[0, "alice"][0].num_examples == 5


def test_an_update_that_waited_too_long_is_signed_again(host, url, client_of):
    async def early(client):
        await begin(client, host)
        host.stumble("/updates", *[refused("busy") for _ in range(6)])
        with pytest.raises(ServiceError):
            await client.submit_gradient(PLUS_ONE)

    run(client_of(url), early)
    host.skew = 3600.0
    later = client_of(url, clock=lambda: system_clock() + timedelta(hours=1))

    async def flush(client):
        await client.next_round()

    run(later, flush)
    assert len(host.accepted) == 1


def test_what_was_acknowledged_is_known_though_what_comes_after_it_fails(host, url, client_of):
    async def work(client):
        first = await begin(client, host)
        for target in (first, replace(first, spec=replace(first.spec, round=1))):
            host.stumble("/updates", *[refused("busy") for _ in range(6)])
            with pytest.raises(ServiceError):
                await client.submit_gradient(PLUS_ONE, round=target)
        assert client.waiting == 2
        host.stumble_after("/updates", 2, *[refused("busy") for _ in range(6)])
        with pytest.raises(ServiceError):
            await client.flush()
        assert client.waiting == 1
        host.stumbles.clear()
        sent = host.accepted[0, "alice"][0].payload_sha256
        return sent, await client.verify_gradient(sent)

    sent, receipt = run(client_of(url), work)
    assert receipt.update_hash == sent


def test_what_nobody_wants_any_more_is_dropped_with_a_word(host, url, client_of, caplog):
    async def early(client):
        await begin(client, host)
        host.stumble("/updates", *[refused("busy") for _ in range(6)])
        with pytest.raises(ServiceError):
            await client.submit_gradient(PLUS_ONE)
        host.number, host.target = 1, 2  # the round goes on without it
        with caplog.at_level(logging.WARNING, "matl.client"):
            assert await client.flush() == []
        return client.waiting

    assert run(client_of(url), early) == 0
    assert "update for round 0 of demo: round 0 is over; it is dropped" in caplog.text


@pytest.mark.parametrize("code", ["invalid", "conflict", "forbidden", "unauthenticated"])
def test_what_is_refused_is_not_kept(host, url, client_of, code):
    async def work(client):
        await begin(client, host)
        host.stumble("/updates", refused(code, status=400))
        with pytest.raises(ServiceError) as caught:
            await client.submit_gradient(PLUS_ONE)
        return caught.value.code, client.waiting

    assert run(client_of(url), work) == (code, 0)
    assert host.seen["POST /v1/runs/demo/rounds/0/updates"] == 1


def test_a_loop_survives_an_outage(host, url, client_of):
    """Six refusals in a row end one request; the loop goes on with what it kept."""

    def train(params, current):
        if current.number == 1:
            host.stumble("/updates", *[refused("busy") for _ in range(6)])
        return {name: value + 1 for name, value in params.items()}, 1

    async def work(client):
        await client.join(host.invite())
        arrived = await client.fit_loop(train)
        return arrived, client.waiting

    arrived, waiting = run(client_of(url), work)
    assert (arrived, waiting) == (2, 0)  # the third arrived by way of the queue
    assert len(host.accepted) == 3
    np.testing.assert_array_equal(host.vector, np.full(9, 3, np.float32))


def test_a_loop_gives_up_after_its_patience(host, client_of):
    async def work(client):
        await begin(client, host)
        host.stumble("/", *[refused("busy") for _ in range(500)])
        await client.fit_loop(lambda params, current: (params, 1), patience=0.05)

    with serving(application(host)) as url, pytest.raises(ServiceError, match="busy!"):
        run(client_of(url), work)


def test_a_loop_goes_on_when_a_round_ends_without_it(host, url, client_of):
    rounds = []

    def train(params, current):
        rounds.append(current.number)
        if current.number == 0:
            host.number = 1
        return params, 1

    async def work(client):
        await client.join(host.invite())
        return await client.fit_loop(train)

    assert run(client_of(url), work) == 2
    assert rounds == [0, 1, 2]


def test_a_loop_ends_when_an_update_is_refused_for_what_it_is(host, url, client_of):
    async def work(client):
        await client.join(host.invite())
        host.stumble("/updates", refused("forbidden", status=403, reason="quarantined_by_operator"))
        await client.fit_loop(lambda params, current: (params, 1))

    with pytest.raises(ServiceError) as caught:
        run(client_of(url), work)
    assert caught.value.reason == "quarantined_by_operator"


LARGE = 3_000_000  # parameters: 12 MB, in twelve pieces


@pytest.fixture
def large():
    return Coordinator({"w": np.zeros(LARGE, np.float32)}, rounds=1)


def test_large_updates_come_in_pieces_and_survive_a_broken_line(large, client_of):
    large.stumble("PATCH", 1_000_000, LOST)  # one is cut off, and of the next the answer is lost

    async def work(client):
        await begin(client, large)
        return await client.submit_gradient(np.ones(LARGE))

    with serving(application(large)) as url:
        sent = run(client_of(url), work)
    assert sent.payload_sha256 == large.accepted[0, "alice"][0].payload_sha256
    assert np.all(large.accepted[0, "alice"][1] == 1)
    upload = next(iter(large.uploads))
    assert large.seen[f"GET /v1/uploads/{upload}"] == 2
    assert large.seen[f"PATCH /v1/uploads/{upload}"] == 12  # of which two moved it less than a piece, or unseen
    assert large.seen["POST /v1/runs/demo/rounds/0/updates"] == 0


def test_the_last_answer_of_an_upload_may_be_lost_with_the_upload(large, client_of):
    """The coordinator has taken the update and forgotten the upload: the head alone brings the acknowledgement."""

    async def work(client):
        await begin(client, large)
        return await client.submit_gradient(np.ones(LARGE))

    large.stumble_after("PATCH", 12, LOST)
    large.forgets = True
    with serving(application(large)) as url:
        sent = run(client_of(url), work)
    assert sent.duplicate
    assert large.seen["POST /v1/runs/demo/rounds/0/uploads"] == 2


def test_an_update_that_is_there_and_could_not_be_taken_is_asked_for_again(large, client_of):
    async def work(client):
        await begin(client, large)
        return await client.submit_gradient(np.ones(LARGE))

    large.busy = 2
    with serving(application(large)) as url:
        sent = run(client_of(url), work)
    assert not sent.duplicate
    assert large.busy == 0


def test_an_upload_that_never_ends_is_given_up(large, client_of):
    async def work(client):
        await begin(client, large)
        return await client.submit_gradient(np.ones(LARGE))

    large.silent = True
    with serving(application(large)) as url, pytest.raises(ServiceError, match="stays at byte 12000080 of 12000080"):
        run(client_of(url), work)


def test_a_piece_that_still_arrives_is_waited_for(large, client_of):
    async def work(client):
        await begin(client, large)
        return await client.submit_gradient(np.ones(LARGE))

    large.stumble(
        "PATCH", refused("conflict", status=409, reason="in_flight"), refused("conflict", status=409, reason="offset")
    )
    with serving(application(large)) as url:
        assert not run(client_of(url), work).duplicate


def test_a_model_download_that_broke_off_goes_on(large, client_of, tmp_path):
    content = large.models[large.round_view().model_hash]

    async def work(client):
        await client.join(large.invite())
        models = tmp_path / "alice" / "models"
        (models / f"{large.round_view().model_hash}.part").write_bytes(content[:5_000_000])
        (models / "old.safetensors").write_bytes(b"old")
        current = await client.next_round()
        return current.vector.sum(), [file.name for file in models.iterdir()]

    with serving(application(large)) as url:
        total, files = run(client_of(url), work)
    assert total == 0
    assert large.ranges == ["bytes=5000000-"]
    assert files == [f"{large.round_view().model_hash}.safetensors"]


def test_a_model_that_is_another_is_refused_and_fetched_again(host, url, client_of):
    name = host.round_view().model_hash
    good = host.models[name]
    host.models[name] = good[:-4] + b"\0\0\x80\x3f"

    async def work(client):
        await client.join(host.invite())
        with pytest.raises(Exception, match=r"is not model .*: its values have the hash"):
            await client.next_round()
        host.models[name] = good
        return (await client.next_round()).number

    assert run(client_of(url), work) == 0


def test_a_part_that_is_complete_or_false_does_not_stop_the_download(host, url, client_of, tmp_path):
    name = host.round_view().model_hash

    async def work(client):
        await client.join(host.invite())
        part = tmp_path / "alice" / "models" / f"{name}.part"
        part.write_bytes(host.models[name] + b"more")  # the host has nothing behind that
        return (await client.next_round()).number

    assert run(client_of(url), work) == 0


def test_a_model_that_is_longer_than_its_arrays_is_not_kept(host, url, client_of, tmp_path):
    name = host.round_view().model_hash
    host.models[name] = b"\0" * (8 << 20)

    async def work(client):
        await client.join(host.invite())
        await client.next_round()

    with pytest.raises(ServiceError, match="its arrays need"):
        run(client_of(url), work)
    assert list((tmp_path / "alice" / "models").iterdir()) == []


def test_gradients_and_clipping(client_of):
    host = Coordinator(rounds=4, max_norm=10.0)
    rows = []

    async def work(client):
        await begin(client, host)
        await client.submit_gradient({"w": np.ones((2, 3)), "b": -np.ones(3)}, kind="gradient", learning_rate=0.5)
        rows.append(host.accepted[0, "alice"][1])
        await client.next_round()
        with pytest.raises(InvalidValueError, match=r"its L2 norm is 300, round 1 takes at most 10"):
            await client.submit_gradient(np.full(9, 100.0))
        host.options["clip"] = 0.3
        client.pass_over(await client.next_round())
        host.number = 2
        await client.next_round()
        await client.submit_gradient(np.full(9, 100.0))
        rows.append(host.accepted[2, "alice"][1])

    with serving(application(host)) as url:
        run(client_of(url), work)
    assert rows[0].tolist() == [-0.5] * 6 + [0.5] * 3
    np.testing.assert_allclose(np.linalg.norm(rows[1]), 0.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"update": {"w": np.ones((2, 3))}}, LayoutError, "missing 'b'"),
        ({"update": PLUS_ONE, "kind": "gradient"}, InvalidValueError, "kind='gradient' with a learning_rate"),
        ({"update": PLUS_ONE, "learning_rate": 1.0}, InvalidValueError, "got kind='delta' and learning_rate=1.0"),
        ({"update": PLUS_ONE, "kind": "weights"}, InvalidValueError, "got kind='weights'"),
        ({"update": PLUS_ONE, "metadata": {"num_samples": 3}}, InvalidValueError, "got also num_samples"),
        ({"update": PLUS_ONE, "metadata": {"num_examples": 0}}, InvalidValueError, "from 1 to 1000000, got 0"),
        ({"update": PLUS_ONE, "metadata": {"num_examples": 2.5}}, InvalidValueError, "got 2.5"),
        ({"update": PLUS_ONE, "metadata": {"num_examples": True}}, InvalidValueError, "got True"),
    ],
)
def test_what_cannot_be_sent_is_not_sent(host, url, client_of, arguments, kind, words):
    async def work(client):
        await begin(client, host)
        with pytest.raises(kind, match=words):
            await client.submit_gradient(**arguments)
        return client.waiting

    assert run(client_of(url), work) == 0
    assert host.accepted == {}


def test_there_is_nothing_to_send_for_before_the_first_round(url, client_of):
    with pytest.raises(InvalidValueError, match=r"call next_round\(\) first"):
        run(client_of(url), lambda client: client.submit_gradient(PLUS_ONE))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"codec": "rotation, uniform"}, "wants updates encoded as 'rotation, uniform'"),
        ({"kind": "masked", "phases": ("keys", "masked")}, "takes masked updates in the phases keys, masked"),
    ],
)
def test_rounds_that_want_something_else_are_refused_before_training(client_of, spec, words):
    host = Coordinator(rounds=1, **spec)
    with serving(application(host)) as url, pytest.raises(InvalidValueError, match=words):
        run(client_of(url), lambda client: begin(client, host))


def test_updates_are_sealed_where_the_run_has_an_oracle(host, url, client_of):
    host.oracle = OracleView(url="https://oracle.example", config="ab" * 32)
    calls, oracle_key = [], SigningKey.generate()

    class Sealer:
        signers = (oracle_key.public,)
        closed = False

        async def __call__(self, *, run, number, client_id, payload):
            calls.append((run.id, number, client_id, payload))
            return payload

        async def aclose(self):
            self.closed = True

    sealer = Sealer()

    async def work(client):
        await begin(client, host)
        sent = await client.submit_gradient(PLUS_ONE)
        host.key = oracle_key  # it is the oracle that signs receipts
        return await client.verify_gradient(sent.payload_sha256)

    receipt = run(client_of(url, sealer=sealer), work)
    expected = encode_payload({name: value.astype(np.float32) for name, value in PLUS_ONE.items()})
    assert calls == [("demo", 0, "alice", expected[0])]
    assert receipt.update_hash == expected[1]
    assert sealer.closed
