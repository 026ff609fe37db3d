"""Make what the library needs of `matl/v1/training.proto`: its descriptor, and the types of its messages for mypy.

    python proto/generate.py            write both into src/matl/protocol/pb/
    python proto/generate.py --check    end with status 1 where they are not what this would write

Needs grpcio-tools, which the extra `dev` installs. There is no generated module of Python on purpose: such a module
accepts only the major version of protobuf that it was generated for, and a descriptor is good for all of them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
SOURCE = "matl/v1/training.proto"
TARGET = ROOT.parent / "src" / "matl" / "protocol" / "pb"


TYPES = {
    FieldDescriptorProto.TYPE_STRING: "str",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
    FieldDescriptorProto.TYPE_UINT64: "int",
    FieldDescriptorProto.TYPE_DOUBLE: "float",
}
BEGINNING = f"""\
# Made by proto/generate.py of {SOURCE}.
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
"""


def generate() -> tuple[bytes, str]:
    """The descriptor, and the stub."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "set")
        if protoc.main(["protoc", f"-I{ROOT}", f"--descriptor_set_out={target}", SOURCE]) != 0:
            raise SystemExit(f"protoc does not take {SOURCE}; its words are above")
        described = FileDescriptorSet.FromString(target.read_bytes()).file[0]
    return described.SerializeToString(deterministic=True), stub(described)


def stub(described: FileDescriptorProto) -> str:
    """The types of the messages."""
    text = BEGINNING
    for message in described.message_type:
        fields = {field.name: typed(field) for field in message.field}
        given = "".join(f", {name}: {kind} | None = None" for name, kind in fields.items())
        text += f"\nclass {message.name}(_Message):\n"
        text += "".join(f"    {name}: {kind}\n" for name, kind in fields.items())
        text += f"    def __init__(self{', *' if given else ''}{given}) -> None: ...\n"
    return text


def typed(field: FieldDescriptorProto) -> str:
    """The type of a field."""
    kind = field.type_name.rpartition(".")[2] or TYPES[field.type]
    return f"Sequence[{kind}]" if field.label == FieldDescriptorProto.LABEL_REPEATED else kind


def main(arguments: list[str]) -> None:
    """Write or compare."""
    if arguments not in ([], ["--check"]):
        raise SystemExit(f"expected nothing or --check, got {' '.join(arguments)}")
    descriptor, types = generate()
    there = TARGET / "training.binpb", TARGET / "training.pyi"
    if not arguments:
        there[0].write_bytes(descriptor)
        there[1].write_text(types)
    elif there[0].read_bytes() != descriptor or there[1].read_text() != types:
        raise SystemExit(f"{SOURCE} has changed, and {TARGET} has not: run python proto/generate.py")


if __name__ == "__main__":
    main(sys.argv[1:])
