# Made by proto/generate.py of matl/v1/training.proto.
# ruff: noqa
# fmt: off
from collections.abc import Sequence
from typing import Any, Self

DESCRIPTOR: Any

class _Message:
    DESCRIPTOR: Any
    @classmethod
    def FromString(cls, data: bytes) -> Self: ...
    def SerializeToString(self) -> bytes: ...
    def ByteSize(self) -> int: ...
    def HasField(self, name: str) -> bool: ...
    def WhichOneof(self, name: str) -> str | None: ...

class View(_Message):
    json: bytes
    def __init__(self, *, json: bytes | None = None) -> None: ...

class Views(_Message):
    views: Sequence[View]
    def __init__(self, *, views: Sequence[View] | None = None) -> None: ...

class JsonRequest(_Message):
    json: bytes
    def __init__(self, *, json: bytes | None = None) -> None: ...

class HealthRequest(_Message):
    def __init__(self) -> None: ...

class ChallengeRequest(_Message):
    def __init__(self) -> None: ...

class RunsRequest(_Message):
    def __init__(self) -> None: ...

class RunRequest(_Message):
    run: str
    def __init__(self, *, run: str | None = None) -> None: ...

class CurrentRoundRequest(_Message):
    run: str
    after: int
    wait_seconds: float
    def __init__(self, *, run: str | None = None, after: int | None = None, wait_seconds: float | None = None) -> None: ...

class RoundRequest(_Message):
    run: str
    round: int
    def __init__(self, *, run: str | None = None, round: int | None = None) -> None: ...

class ModelRequest(_Message):
    model_hash: str
    offset: int
    def __init__(self, *, model_hash: str | None = None, offset: int | None = None) -> None: ...

class ModelPart(_Message):
    head: ModelHead
    chunk: bytes
    def __init__(self, *, head: ModelHead | None = None, chunk: bytes | None = None) -> None: ...

class ModelHead(_Message):
    sha256: str
    size: int
    def __init__(self, *, sha256: str | None = None, size: int | None = None) -> None: ...

class UpdatePart(_Message):
    head: UpdateHead
    chunk: bytes
    def __init__(self, *, head: UpdateHead | None = None, chunk: bytes | None = None) -> None: ...

class UpdateHead(_Message):
    run: str
    round: int
    json: bytes
    def __init__(self, *, run: str | None = None, round: int | None = None, json: bytes | None = None) -> None: ...

class UpdateRequest(_Message):
    run: str
    round: int
    client_id: str
    def __init__(self, *, run: str | None = None, round: int | None = None, client_id: str | None = None) -> None: ...

class Receipt(_Message):
    receipt: bytes
    def __init__(self, *, receipt: bytes | None = None) -> None: ...

class PhaseHead(_Message):
    run: str
    round: int
    phase: str
    def __init__(self, *, run: str | None = None, round: int | None = None, phase: str | None = None) -> None: ...

class PhasePart(_Message):
    head: PhaseHead
    chunk: bytes
    def __init__(self, *, head: PhaseHead | None = None, chunk: bytes | None = None) -> None: ...

class PhaseRequest(_Message):
    run: str
    round: int
    phase: str
    wait_seconds: float
    def __init__(self, *, run: str | None = None, round: int | None = None, phase: str | None = None, wait_seconds: float | None = None) -> None: ...

class PhaseAnswer(_Message):
    chunk: bytes
    def __init__(self, *, chunk: bytes | None = None) -> None: ...

class EventsRequest(_Message):
    after: int
    run: str
    def __init__(self, *, after: int | None = None, run: str | None = None) -> None: ...
