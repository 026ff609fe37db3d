from __future__ import annotations

from dataclasses import replace

import pytest

from matl.attest.installed import installed_parts, parts_digest
from matl.attest.measurement import Measurement
from matl.errors import ProtocolError


def test_one_byte_of_configuration_or_policy_makes_another_measurement() -> None:
    one = Measurement.of(b"config", b"policy")
    assert one == Measurement.of(b"config", b"policy")
    assert (
        len({one.digest, Measurement.of(b"confih", b"policy").digest, Measurement.of(b"config", b"policz").digest}) == 3
    )
    assert one.package == parts_digest(installed_parts())
    parts = [replace(part, sha256="0" * 64) if part.name == "numpy" else part for part in installed_parts()]
    assert Measurement.of(b"config", b"policy", parts=parts).package != one.package
    assert replace(one, config=one.policy, policy=one.config).digest != one.digest


def test_there_is_one_text() -> None:
    one = Measurement.of(b"config", b"policy")
    assert Measurement.parse(one.to_bytes()) == one
    for text in (one.to_bytes() + b"\n", one.to_bytes().upper(), one.to_bytes().replace(b"/1", b"/2")):
        with pytest.raises(ProtocolError):
            Measurement.parse(text)
    with pytest.raises(ProtocolError):
        replace(one, config="short")
