"""How long a client waits for a phase of a masked round."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import matl.client.masked
from matl.client.encoding import PHASES, check_supported
from matl.client.folder import ClientFolder
from matl.client.masked import MaskedRounds
from matl.errors import InvalidValueError, ServiceError
from matl.privacy.secagg import Phase
from matl.records import RoundSpec, Visibility

SPEC = RoundSpec(
    run="demo",
    round=0,
    model_hash="ab" * 32,
    layout_hash="ab" * 32,
    kind="masked",
    codec="distributed",
    visibility=Visibility.SUMMED,
    groups=None,
    phases=PHASES,
    deadline=0.1,
)
SESSION = SimpleNamespace(max_message=1000)


class Host:
    """Says at once that a phase has not begun, for as long as it likes."""

    def __init__(self, *, begins=math.inf, paused=0, away=0.0, outages=0):
        self.questions, self.begins, self.paused, self.away, self.outages = 0, begins, paused, away, outages

    async def ask(self, request):
        return await request(self)

    async def asked(self, run, number, phase, *, wait, limit):
        self.questions += 1
        if self.questions <= self.outages:  # nobody was there for a while, and it was asked again
            await asyncio.sleep(self.away)
        if self.questions < self.begins:
            raise ServiceError("not_found", "ask again", reason="not_yet")
        return b"request"

    async def run(self, run):
        self.paused -= 1
        return SimpleNamespace(status="paused" if self.paused >= 0 else "running")


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Asks a host for what it asks in a phase, with a wait of 0.05 s and a pause of 0.02 s."""
    monkeypatch.setattr(matl.client.masked, "_SLACK", 0.15)
    monkeypatch.setattr(matl.client.masked, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(matl.client.masked, "PAUSE", 0.02)

    def ask(host):
        with ClientFolder(tmp_path / "alice", client_id="alice") as folder:
            rounds = MaskedRounds(host, folder, participants=None, manifest_sha256=None, max_epsilon=None, chosen=True)
            target = SimpleNamespace(run="demo", number=0, spec=SPEC)
            try:
                return asyncio.run(asyncio.wait_for(rounds._asked(target, Phase.SHARE, SESSION), 10))
            finally:
                rounds.close()

    return ask


def test_a_phase_that_never_begins_is_given_up_and_not_asked_for_without_a_pause(asked):
    host, began = Host(), time.monotonic()
    with pytest.raises(
        ServiceError, match=r"the phase share of round 0 of demo did not begin within 0\.25 s"
    ) as caught:
        asked(host)
    assert (caught.value.code, caught.value.reason) == ("conflict", "late")
    assert time.monotonic() - began >= 0.25
    assert 2 <= host.questions <= 14


def test_a_phase_that_begins_late_is_taken_part_in(asked):
    assert asked(Host(begins=3)) == b"request"


def test_while_a_run_is_paused_no_deadline_passes(asked):
    host, began = Host(begins=30, paused=20), time.monotonic()
    assert asked(host) == b"request"
    assert time.monotonic() - began > 0.25
    assert host.questions == 30


@pytest.mark.parametrize("outages", [1, 2])
def test_while_nobody_is_there_no_deadline_passes(asked, outages):
    host = Host(begins=outages + 3, away=0.3, outages=outages)
    assert asked(host) == b"request"


def test_somebody_who_is_away_again_and_again_is_given_up(asked):
    host = Host(away=0.3, outages=100)
    with pytest.raises(ServiceError, match="did not begin"):
        asked(host)
    assert host.questions == 3


@pytest.mark.parametrize("deadline", [None, math.inf, math.nan, 0.0, -1.0])
def test_a_masked_round_without_a_deadline_is_none_to_take_part_in(deadline):
    check_supported(SPEC)
    with pytest.raises(InvalidValueError, match="could last for ever: expected a deadline for its phases"):
        check_supported(replace(SPEC, deadline=deadline))
