"""Everything that reads bytes of others: what is called, what it may raise, and bytes that it takes.

`TARGETS` serves the tests beside this file and `run_atheris.py` alike.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from tests.fuzz import attested, doors, samples

from matl import state
from matl.attest.audit_log import read_audit_log
from matl.attest.canonical import CanonicalText
from matl.attest.challenge import Challenger
from matl.attest.enrolment import Roster
from matl.attest.receipts import verify_receipt
from matl.attest.replay import ReplayCache
from matl.attest.tokens import Tokens
from matl.client.websocket import _read as read_frame
from matl.codec import CODECS, container, decode
from matl.coordinator.grpc_door.errors import asked, told
from matl.coordinator.grpc_door.incoming import message, said
from matl.coordinator.http.bodies import split_messages
from matl.coordinator.rounds.machine import Machine
from matl.coordinator.rounds.overrides import Overrides
from matl.coordinator.strict_json import parse
from matl.errors import MatlError
from matl.journal import read_journal
from matl.oracle.wire import Brief, Signed, unpack_answer
from matl.privacy import certificate
from matl.privacy.secagg import messages as secagg
from matl.protocol import messages
from matl.protocol.envelope import read_head, split
from matl.protocol.pb.methods import METHODS
from matl.screening import decode_payload
from matl.simulation.directory import _read_checkpoint as read_checkpoint

__all__ = ["TARGETS", "Target"]

Decode = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A decoder.

    Parameters
    ----------
    decode : callable
        Reads bytes.
    seeds : tuple of bytes
        Samples. It takes the first.
    allowed : tuple of exception types
        What it may raise, and nothing else, whatever the bytes.
    form : str
        What the samples are made of, ``"json"``, ``"msgpack"`` or ``"bytes"``: their parts can be exchanged.
    """

    decode: Decode
    seeds: tuple[bytes, ...]
    allowed: tuple[type[Exception], ...] = (MatlError,)
    form: str = "bytes"


def _update(data: bytes) -> object:
    return read_head(data).update(b"")


def _spec(data: bytes) -> object:
    return messages.SpecView.model_validate_json(data).spec()


def _streamed(read: Callable[[AsyncIterator[bytes]], Awaitable[AsyncIterator[bytes]]], data: bytes) -> object:
    """Parts of what streams in, each behind its length in two bytes."""

    async def parts() -> AsyncIterator[bytes]:
        at = 0
        while at < len(data):
            (size,) = struct.unpack(">H", data[at : at + 2].rjust(2, b"\0"))
            yield data[at + 2 : at + 2 + size]
            at += 2 + size

    async def main() -> int:
        return sum([len(each) async for each in await read(parts())])

    return asyncio.run(main())


async def _update_parts(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async def go_on() -> None:
        pass

    return (await message(parts, go_on, head_seconds=5, idle_seconds=5))[1]


async def _phase_parts(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    return (await said(parts, head_seconds=5, idle_seconds=5))[1]


def _container(header: bytes, payload: bytes) -> object:
    """Decode these, with lengths and a checksum that are right."""
    header = header[:1024]
    body = struct.pack("<4sBHQ", b"MTLC", 1, len(header), len(payload)) + header + payload
    return decode(body + struct.pack("<I", zlib.crc32(body)), size=3, seed=7)


def _halves(data: bytes) -> tuple[bytes, bytes]:
    """Header and payload of a container."""
    (header,) = struct.unpack_from("<H", data, 5)
    return data[15 : 15 + header], data[15 + header : -4]


def _journal(folder: Path, data: bytes, head: bytes) -> object:
    path = folder / "some.journal"
    path.write_bytes(data)
    path.with_name(path.name + ".head").write_bytes(head)
    return read_journal(path)


def _audit_log(folder: Path, data: bytes) -> object:
    """Records of an audit log, chained as they should be."""
    path = folder / "audit.log"
    content = samples.chained(data[:10_000].split(b"\n"))  # a line is long, whatever stands in it
    path.write_bytes(content)
    path.with_name(path.name + ".head").write_bytes(samples.head_of(content))
    return read_audit_log(path)


def _checkpoint(folder: Path, data: bytes) -> object:
    path = folder / "checkpoint.msgpack"
    path.write_bytes(data)
    return read_checkpoint(path)


def _manifest_body(data: bytes) -> object:
    """A manifest whose hash is right, up to the proof, which takes a second."""
    try:
        body = json.loads(data)
        document = json.dumps({"manifest": body, "sha256": certificate.sha256(body)}).encode()
    except (ValueError, RecursionError, TypeError):
        return None
    return certificate.instance_of(certificate.read(document).body)


def _of_state(read: Callable[[Any], object]) -> Decode:
    return lambda data: read(state.unpack(data))


def _secret(check: Callable[[str], object]) -> Decode:
    return lambda data: check(data.decode("utf-8", "surrogateescape"))


def _models() -> dict[str, type[BaseModel]]:
    return {name: getattr(messages, name) for name in messages.__all__}


_asked = {name: kind for name, kind in _models().items() if kind.model_config.get("extra") == "forbid"}
_told = {name: kind for name, kind in _models().items() if name not in _asked}
_texts = {kind.DOMAIN or kind.__name__: kind for kind in samples.texts(CanonicalText)}
_secagg = {kind.__name__: kind for kind in secagg.Message.__subclasses__()}
_files, _owner = Path(tempfile.mkdtemp(prefix="matl-fuzz-")), os.getpid()
_lines = samples.chained([b'{"a":1}', b"{}"])
_arrays = safetensors.numpy.save({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.int64)})


@atexit.register
def _clear() -> None:
    if os.getpid() == _owner:  # a target that fails ends in a process forked from this one, whose others go on
        shutil.rmtree(_files, ignore_errors=True)


TARGETS: dict[str, Target] = {
    "envelope.read_head": Target(read_head, samples.HEADS, form="json"),
    "envelope.split": Target(split, samples.MESSAGES),
    "envelope.update": Target(_update, samples.HEADS, form="json"),
    "grpc.submit": Target(partial(_streamed, _update_parts), samples.STREAMS),
    "grpc.say": Target(partial(_streamed, _phase_parts), samples.PHASE_STREAMS),
    **{
        f"grpc.{method.request.DESCRIPTOR.name}": Target(partial(told, method.request), (samples.protobuf(method),))
        for method in METHODS.values()
    },
    **{
        f"grpc.{method.response.DESCRIPTOR.name}": Target(partial(told, method.response), (b"",))
        for method in METHODS.values()
    },
    **{
        f"asked.{name}.grpc": Target(partial(asked, kind), (samples.document(kind),), form="json")
        for name, kind in _asked.items()
    },
    **{
        f"asked.{name}.http": Target(partial(parse, kind), (samples.document(kind),), form="json")
        for name, kind in _asked.items()
    },
    **{
        f"told.{name}": Target(kind.model_validate_json, (samples.document(kind),), (ValidationError,), "json")
        for name, kind in _told.items()
    },
    "told.spec": Target(_spec, (samples.document(messages.SpecView),), (ValidationError, MatlError), "json"),
    "http.split_messages": Target(partial(split_messages, most=4), (b"\0\0\0\0\0\0\0\2hi\0\0\0\0\0\0\0\0",)),
    "websocket.frame": Target(read_frame, (b'{"type": "event", "seq": 3}',), form="json"),
    "state.unpack": Target(state.unpack, samples.STATES, form="msgpack"),
    "codec.container": Target(container.read, samples.CODED),
    **{
        f"codec.{name}": Target(partial(CODECS.create(name).decode, size=3, seed=7), (coded, *samples.CODED))
        for name, coded in samples.coded(CODECS).items()
    },
    "codec.decode": Target(partial(decode, size=3, seed=7), samples.CODED),
    **{
        f"codec.{name}.header": Target(
            partial(_container, payload=_halves(coded)[1]), (_halves(coded)[0],), form="msgpack"
        )
        for name, coded in samples.coded(CODECS).items()
    },
    **{
        f"codec.{name}.payload": Target(partial(_container, _halves(coded)[0]), (_halves(coded)[1],))
        for name, coded in samples.coded(CODECS).items()
    },
    "payload": Target(decode_payload, (_arrays,), (ValueError, SafetensorError)),
    **{f"text.{name}": Target(kind.parse, (samples.text(kind),)) for name, kind in _texts.items()},
    "receipt": Target(partial(verify_receipt, trusted=[samples.KEY.public]), (samples.RECEIPT,), form="json"),
    "journal": Target(partial(_journal, _files, head=samples.head_of(_lines)), (_lines,)),
    "journal.head": Target(partial(_journal, _files, _lines), (samples.head_of(_lines),), form="json"),
    "audit_log": Target(partial(_audit_log, _files), (samples.AUDIT_LOG,)),
    "audit_log.line": Target(
        lambda data: _audit_log(_files, b'{"kind":"matl audit log"}\n' + data), (samples.AUDIT_LINE,), form="json"
    ),
    "manifest": Target(certificate.read, (samples.MANIFEST,), (certificate.CertificateError,), "json"),
    "manifest.check": Target(certificate.check, (samples.MANIFEST,), (certificate.CertificateError,)),
    "manifest.body": Target(_manifest_body, (samples.MANIFEST_BODY,), (certificate.CertificateError,), "json"),
    "checkpoint": Target(partial(_checkpoint, _files), (samples.CHECKPOINT,), form="msgpack"),
    "roster": Target(_of_state(Roster.of_state), samples.ROSTERS, form="msgpack"),
    "tokens": Target(_of_state(Tokens.of_state), samples.TOKENS, form="msgpack"),
    "replay": Target(_of_state(lambda value: ReplayCache().restore(value)), (samples.REPLAY,), form="msgpack"),
    "machine": Target(_of_state(Machine.of_dict), (samples.MACHINE,), form="msgpack"),
    "overrides": Target(_of_state(Overrides.of_state), (samples.OVERRIDES,), form="msgpack"),
    "token": Target(_secret(partial(Tokens().check, now=samples.NOW)), (samples.SECRET,)),
    "challenge": Target(_secret(partial(Challenger(bytes(32)).check, now=samples.NOW)), (samples.CHALLENGE,)),
    "oracle.brief": Target(Brief.parse, (samples.BRIEF,), form="msgpack"),
    "oracle.signed": Target(Signed.parse, (samples.SIGNED,), form="msgpack"),
    "oracle.answer": Target(unpack_answer, (samples.ANSWER,), form="msgpack"),
    **{
        f"secagg.{name}": Target(partial(kind.from_bytes, limit=1 << 16), (samples.SECAGG[name],), form="msgpack")
        for name, kind in _secagg.items()
    },
    **{
        name: Target(decode, seeds, allowed, form)
        for name, (decode, seeds, allowed, form) in (attested.targets() | doors.targets(_files)).items()
    },
}
