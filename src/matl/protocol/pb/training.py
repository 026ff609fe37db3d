"""The messages of ``matl/v1/training.proto``, made of its descriptor when this is imported.

Their types stand in ``training.pyi``. Both files are made by ``proto/generate.py``.
"""

from __future__ import annotations

from importlib.resources import files

from matl.errors import MissingExtraError

try:
    from google.protobuf import descriptor_pool, message_factory
except ImportError as error:
    raise MissingExtraError("protobuf", extra="grpc") from error

_FILE = "matl/v1/training.proto"

_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile((files(__package__) / "training.binpb").read_bytes())

DESCRIPTOR = _pool.FindFileByName(_FILE)
globals().update(
    (name, message_factory.GetMessageClass(each)) for name, each in DESCRIPTOR.message_types_by_name.items()
)
