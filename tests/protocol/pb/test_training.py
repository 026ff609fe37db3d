from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from matl.coordinator.grpc_door import GrpcDoor
from matl.protocol.pb import training as pb
from matl.protocol.pb.methods import METHODS

ROOT = Path(__file__).resolve().parents[3]


def test_what_is_kept_is_what_the_source_says() -> None:
    pytest.importorskip("grpc_tools")
    done = subprocess.run(
        [sys.executable, ROOT / "proto" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_messages_are_those_that_the_stub_declares() -> None:
    stub = (ROOT / "src/matl/protocol/pb/training.pyi").read_text()
    for name, described in pb.DESCRIPTOR.message_types_by_name.items():
        assert f"class {name}(_Message):" in stub
        assert getattr(pb, name).DESCRIPTOR is described


def test_every_method_is_served() -> None:
    assert len(METHODS) == 17
    for method in METHODS.values():
        assert callable(getattr(GrpcDoor, f"_{method.name}"))
        assert method.path == f"/matl.v1.Training/{method.name}"


def test_messages_survive_the_way() -> None:
    sent = pb.UpdatePart(head=pb.UpdateHead(run="demo", round=2**53 - 1, json=b"{}"))
    there = pb.UpdatePart.FromString(sent.SerializeToString())
    assert (there.WhichOneof("part"), there.head.run, there.head.round, there.head.json) == (
        "head", "demo", 2**53 - 1, b"{}",
    )  # fmt: skip


def test_nothing_and_zero_are_told_apart() -> None:
    assert not pb.CurrentRoundRequest(run="demo").HasField("after")
    assert pb.CurrentRoundRequest(run="demo", after=0).HasField("after")
