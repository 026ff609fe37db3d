"""Broken messages."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from matl.attacks import Malformed
from matl.params import ParamLayout
from matl.records import Rejection, RoundSpec, Update
from matl.screening import screen_envelope, screen_values

RNG = np.random.default_rng


MODELS = {
    "matrix": {"w": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)},
    "one output": {"w": np.ones((4, 1), np.float32)},
    "scalar first": {"scale": np.ones((), np.float32), "w": np.ones(3, np.float32)},
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("staleness", [0, 1])
def test_every_malformed_message_is_rejected_each_kind_for_its_own_reason(model, staleness):
    arrays = MODELS[model]
    layout = ParamLayout.of(arrays)
    spec = RoundSpec(run="r", round=0, model_hash="h", layout_hash=layout.digest, max_staleness=staleness)
    update = Update(
        client_id="a", run="r", round=0, base_version=0, model_hash="h", payload=arrays, num_examples=10, nonce="0"
    )
    codes = Counter()
    for draw in range(60):  # six kinds, each missing from 60 draws with probability (5/6)^60 < 2e-5; the seed is fixed
        sent = Malformed().tamper(update, RNG(draw))
        rejection = screen_envelope(sent, spec, model_hashes={0: "h"}, seen=set()) or screen_values(sent, spec, layout)
        assert isinstance(rejection, Rejection)
        assert rejection.client_id == "a"
        codes[rejection.code] += 1
    late = "stale" if staleness == 0 else "model_hash"
    assert set(codes) == {"not_finite", "shape", "num_examples", "malformed", "names", late}
    assert update.payload is arrays
    assert np.isfinite(next(iter(arrays.values()))).all()


def test_unreadable_bytes_get_as_far_as_the_decoder():
    update = Update(client_id="a", run="r", round=0, base_version=0, model_hash="h", payload={"w": np.ones(2)})
    sent = [Malformed().tamper(update, RNG(draw)) for draw in range(60)]
    unreadable = [message for message in sent if isinstance(message.payload, bytes)]
    assert unreadable
    for message in unreadable:
        assert message.payload_sha256 == hashlib.sha256(message.payload).hexdigest()
