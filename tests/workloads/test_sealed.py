"""The channel of sealed updates, on the side of who cannot open them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from matl.attest.sealing import OVERHEAD
from matl.codec import CODECS
from matl.errors import InvalidValueError
from matl.learning.tasks import SoftmaxTask
from matl.modes import Plain
from matl.params import Float32
from matl.records import Rejection, RoundSpec, Update, Visibility
from matl.workloads import Clear, Encoded, Private, Sealed, Sender, TrainingWorkload

LAYOUT = SoftmaxTask(4, 3).layout


def message(payload: bytes) -> Update:
    return Update(
        client_id="alice", run="demo", round=0, base_version=0, model_hash="", payload=payload,
        payload_sha256=hashlib.sha256(payload).hexdigest(),
    )  # fmt: skip


def spec_of(workload: TrainingWorkload) -> tuple[RoundSpec, dict[str, object]]:
    state = workload.init(np.zeros(LAYOUT.size, np.float32))
    return workload.plan(state), state


def test_rounds_say_that_updates_are_sealed_and_how_they_are_encoded_inside() -> None:
    clear, _ = spec_of(TrainingWorkload(Plain(), LAYOUT, "demo", channel=Clear()))
    sealed, _ = spec_of(TrainingWorkload(Plain(), LAYOUT, "demo", channel=Sealed()))
    assert (sealed.visibility, sealed.codec) == (Visibility.SEALED, "safetensors")
    assert (clear.visibility, clear.codec) == (Visibility.CLEAR, "safetensors")
    packed = Encoded(CODECS.create("int8"))
    assert Sealed(packed).codec == packed.codec
    assert Sealed(packed).draws == packed.draws


def test_an_envelope_is_screened_and_nothing_in_it_is_known() -> None:
    workload = TrainingWorkload(Plain(), LAYOUT, "demo", channel=Sealed())
    spec, state = spec_of(workload)
    box = replace(message(bytes(OVERHEAD + 100)), model_hash=spec.model_hash)
    accepted = workload.screen(box, spec, state, seen=set())  # type: ignore[arg-type]
    assert not isinstance(accepted, Rejection)
    assert accepted.row.size == 0
    stale = workload.screen(replace(box, round=3), spec, state, seen=set())  # type: ignore[arg-type]
    assert isinstance(stale, Rejection)
    assert stale.code == "round"
    long = replace(message(bytes(workload.channel.largest(LAYOUT) + 1)), model_hash=spec.model_hash)
    assert isinstance(workload.screen(long, spec, state, seen=set()), Rejection)  # type: ignore[arg-type]


@pytest.mark.parametrize("payload", [b"", bytes(OVERHEAD)])
def test_what_is_too_short_is_no_box(payload: bytes) -> None:
    spec, _ = spec_of(TrainingWorkload(Plain(), LAYOUT, "demo", channel=Sealed()))
    refused = Sealed().unpack(message(payload), spec, LAYOUT)
    assert isinstance(refused, Rejection)
    assert refused.code == "malformed"


def test_what_goes_into_the_box_is_what_the_inner_channel_packs() -> None:
    spec, _ = spec_of(TrainingWorkload(Plain(), LAYOUT, "demo", channel=Sealed()))
    update: Float32 = np.arange(LAYOUT.size, dtype=np.float32)
    arrays, _ = Sealed().pack(update, spec, LAYOUT, Sender("alice", {}))
    assert not isinstance(arrays, bytes)
    assert LAYOUT.flatten(arrays).tolist() == update.tolist()
    assert Sealed().largest(LAYOUT) == Clear().largest(LAYOUT) + OVERHEAD


def test_sums_are_not_sealed() -> None:
    with pytest.raises(InvalidValueError, match="read one by one"):
        Sealed(object.__new__(Private))
    with pytest.raises(InvalidValueError, match="read one by one"):
        Sealed(Sealed())
