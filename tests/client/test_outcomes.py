"""What a client learns of its updates: verdicts as they change, how a run ended, receipts in a file."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time

import numpy as np
import pytest
from tests.client.fake import Coordinator, application, refused, serving

from matl.attest.receipts import verify_receipt
from matl.client import AsyncMATLClient, MATLClient
from matl.errors import InvalidValueError, ServiceError
from matl.records import Status


class Judging(Coordinator):
    """Says of each round's update what a test wants."""

    def __init__(self, verdicts, **options):
        super().__init__(rounds=len(verdicts), **options)
        self.verdicts, self.failed = verdicts, set()

    def update_view(self, number, client):
        view = super().update_view(number, client)
        if number in self.failed:
            return view.model_copy(update={"status": "received", "verdict": None})
        if view.status != "judged":
            return view
        verdict, reason = self.verdicts[number]
        return view.model_copy(update={"verdict": Status(verdict), "reason": reason, "evidence": {"z": 1.0}})


def up(params, current):
    return {name: array + current.recipe["learning_rate"] for name, array in params.items()}, 10


ADVICE = (
    "if that is a mistake: does the training follow the round's recipe (steps, batch size, learning rate, momentum), "
    "and are the samples and labels of the kind that the model is for, scaled alike?"
)
GOOD, BAD = ("accepted", ""), ("quarantined", "its score was below the line")


def lines_of(caplog):
    return [(one.levelname, one.getMessage()) for one in caplog.records if one.name == "matl.client"]


def taking_part(host, url, folder, **options):
    with MATLClient(url, client_id="alice", folder=folder) as client:
        client.join(host.invite())
        arrived = client.fit_loop(up, **options)
        return arrived, client.last_verdict


def test_a_loop_tells_each_change_of_the_verdict_and_in_how_many_rounds_it_counted(tmp_path, caplog):
    host, seen = Judging([GOOD, BAD, BAD, GOOD]), []
    with (
        caplog.at_level(logging.INFO, "matl.client"),
        serving(application(host)) as url,
        MATLClient(url, client_id="alice", folder=tmp_path) as client,
    ):
        client.join(host.invite())

        def progress(now, _):
            seen.append(None if client.last_verdict is None else client.last_verdict.verdict)

        assert client.fit_loop(up, progress=progress) == 4
    assert seen == [None, "accepted", "quarantined", "quarantined"]
    assert lines_of(caplog) == [
        ("INFO", "round 0 of demo: accepted"),
        ("WARNING", "round 1 of demo: quarantined, does not count: its score was below the line"),
        ("WARNING", ADVICE),
        ("INFO", "run demo is finished after 4 of 4 rounds"),
        ("INFO", "round 3 of demo: accepted"),
        ("WARNING", "run demo: counted in 2 of 4 rounds"),
    ]


def test_what_was_not_judged_yet_is_told_apart(tmp_path, caplog):
    host = Judging([GOOD, GOOD], target=2)
    with caplog.at_level(logging.INFO, "matl.client"), serving(application(host)) as url:
        assert taking_part(host, url, tmp_path, rounds=1) == (1, None)
    assert lines_of(caplog) == [("INFO", "run demo: counted in 0 of 0 rounds; 1 not judged yet")]


def test_a_round_that_failed_counted_for_nobody(tmp_path, caplog, monkeypatch):
    host = Judging([GOOD, GOOD])
    host.failed.add(0)
    with (
        caplog.at_level(logging.WARNING, "matl.client"),
        serving(application(host)) as url,
        MATLClient(url, client_id="alice", folder=tmp_path) as client,
    ):
        client.join(host.invite())
        about = client._client._part.about

        async def failed(number):
            view = await about(number)  # the fake knows no rounds that failed
            return view.model_copy(update={"status": "failed", "reason": "1 of 2 updates in 30 s"})

        monkeypatch.setattr(client._client._watch, "_about", failed)
        assert client.fit_loop(up) == 2
    assert lines_of(caplog) == [
        ("WARNING", "round 0 of demo failed, and no update of it counts: 1 of 2 updates in 30 s"),
        ("WARNING", "run demo: counted in 1 of 2 rounds"),
    ]


def test_a_verdict_that_cannot_be_learned_ends_no_loop(tmp_path, caplog):
    host = Judging([GOOD, GOOD])
    with caplog.at_level(logging.WARNING, "matl.client"), serving(application(host)) as url:
        host.stumble("/updates/alice", refused("not_found", status=404), refused("not_found", status=404))
        assert taking_part(host, url, tmp_path)[0] == 2
    assert lines_of(caplog) == [("WARNING", "what became of the update for round 0 is not to be learned: not_found!")]


def test_a_run_that_its_operator_stops_ends_with_a_word(tmp_path, caplog):
    host = Judging([GOOD, GOOD, GOOD])

    def stopping(now, _):
        host.status = "stopped"

    with (
        caplog.at_level(logging.WARNING, "matl.client"),
        serving(application(host)) as url,
        MATLClient(url, client_id="alice", folder=tmp_path) as client,
    ):
        client.join(host.invite())
        assert client.fit_loop(up, progress=stopping) == 1
        client.final_model()
    assert [line for _, line in lines_of(caplog)] == [
        "run demo was stopped by its operator after 1 of 3 rounds",
        "run demo is stopped after 1 of 3 rounds: this is its model as it stands, not a final one",
    ]


def test_the_final_model_is_given_without_a_word(tmp_path, caplog):
    host = Judging([GOOD])
    with (
        caplog.at_level(logging.WARNING, "matl.client"),
        serving(application(host)) as url,
        MATLClient(url, folder=tmp_path) as client,
    ):
        client.join(host.invite())
        client.final_model()
        assert [line for _, line in lines_of(caplog)] == [
            "run demo is running after 0 of 1 rounds: this is its model as it stands, not a final one"
        ]
        caplog.clear()
        client.fit_loop(up)
        client.final_model()
    assert lines_of(caplog) == []


def test_a_verdict_is_waited_for(tmp_path):
    host = Coordinator(rounds=2, target=2)
    with serving(application(host)) as url, MATLClient(url, client_id="alice", folder=tmp_path) as client:
        client.join(host.invite())
        current = client.next_round()
        sent = client.submit_gradient(current.delta(current.params))
        assert client.verdict(0).status == "received"
        began = time.monotonic()
        assert client.verdict(0, wait=0.3).status == "received"
        assert 0.25 < time.monotonic() - began < 5
        later = threading.Timer(0.5, lambda: setattr(host, "number", 1))
        later.start()
        assert client.verdict(0, wait=30).verdict == "accepted"
        later.join()
        host.number = 0
        later = threading.Timer(0.5, lambda: setattr(host, "number", 1))
        later.start()
        assert client.verify_gradient(sent.payload_sha256, wait=30).update_hash == sent.payload_sha256
        later.join()


def test_a_receipt_goes_into_a_file_as_it_was_signed(tmp_path):
    host = Coordinator(rounds=2)
    with serving(application(host)) as url, MATLClient(url, client_id="alice", folder=tmp_path / "alice") as client:
        client.join(host.invite())
        current = client.next_round()
        client.submit_gradient(current.delta(current.params))
        receipt = client.save_receipt(0, tmp_path / "receipt.json")
        genuine = host.receipt
        host.receipt = lambda number, name: genuine(0, name)
        host.accepted[1, "alice"] = host.accepted[0, "alice"]
        with pytest.raises(Exception, match="sent a receipt of 'alice' in round 0"):
            client.save_receipt(1, tmp_path / "other.json")
        assert receipt == client.receipt(0)
    assert verify_receipt((tmp_path / "receipt.json").read_bytes(), [host.key.public]) == receipt
    assert not (tmp_path / "other.json").exists()


def test_an_update_is_kept_while_its_run_cannot_go_on(host, url, client_of):
    async def work():
        async with client_of(url) as client:
            await client.join(host.invite())
            current = await client.next_round()
            broken = refused("conflict", status=409, reason="broken_run")
            host.stumble("/updates", broken, broken)
            with pytest.raises(ServiceError, match="The update is kept"):
                await client.submit_gradient(np.ones(9), round=current)
            kept = client.waiting
            await client.flush()  # still broken
            kept_on = client.waiting
            await client.flush()
            return kept, kept_on, client.waiting

    assert asyncio.run(work()) == (1, 1, 0)
    assert len(host.accepted) == 1


def test_a_run_that_was_chosen_among_several_is_named(host, url, tmp_path, caplog):
    view = host.view()
    host.runs_shown = [view, view.model_copy(update={"id": "old", "status": "finished"})]
    with caplog.at_level(logging.WARNING, "matl.client"), MATLClient(url, folder=tmp_path) as client:
        client.join(host.invite())
        assert client.run().id == "demo"
    with MATLClient(url, folder=tmp_path, run="demo") as client:
        client.run()
    ((_, line),) = lines_of(caplog)
    assert line.startswith("taking part in run 'demo'; say so with run='demo'. There are: demo (running,")


def test_half_an_invitation_is_to_be_copied_again(host, url, tmp_path):
    with (
        MATLClient(url, folder=tmp_path) as client,
        pytest.raises(InvalidValueError, match=r"got 30 characters in all, which is not a whole one; copy it again"),
    ):
        client.join(host.invite()[:30])


def test_what_is_shown_of_a_round_and_a_verdict_is_short(tmp_path):
    host = Judging([GOOD, GOOD], arrays={"w": np.zeros((30, 40), np.float32)})
    with serving(application(host)) as url, MATLClient(url, client_id="alice", folder=tmp_path) as client:
        client.join(host.invite())
        current = client.next_round()
        client.submit_gradient(current.delta(current.params))
        shown, verdict = repr(current), client.verdict(0)
    assert shown == "Round(run='demo', number=0, parameters=1200, recipe=(learning_rate=0.5))"
    assert verdict.evidence == {"z": 1.0}
    assert "evidence" not in str(verdict)


def test_an_editor_shows_all_that_a_client_takes_and_does():
    assert inspect.signature(MATLClient) == inspect.signature(AsyncMATLClient)
    for name in sorted(vars(MATLClient)):
        if name.startswith("_"):
            continue
        ours, theirs = getattr(MATLClient, name), getattr(AsyncMATLClient, name)
        assert ours.__doc__.splitlines()[0].split(",")[0].rstrip(".") in theirs.__doc__.splitlines()[0], name
        if callable(ours):
            parameters = [inspect.signature(one).parameters for one in (ours, theirs)]
            assert parameters[0] == parameters[1], name
