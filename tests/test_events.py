"""Events are plain records."""

import dataclasses

import pytest

from matl.events import Event, ignore


def test_an_event_cannot_be_changed_and_may_be_ignored():
    event = Event("round_committed", run="r", round=3)
    assert event.data == {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.round = 4
    assert ignore(event) is None
