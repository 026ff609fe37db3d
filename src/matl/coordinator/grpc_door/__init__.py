"""The gRPC door: streams of any size, for clients in whatever language."""

from matl.errors import MissingExtraError

try:
    import grpc as _grpc  # noqa: F401 - only whether it is there
except ImportError as error:
    raise MissingExtraError("grpcio", extra="grpc") from error

from matl.coordinator.grpc_door.door import GrpcDoor
from matl.coordinator.grpc_door.settings import DoorSettings, Tls

__all__ = ["DoorSettings", "GrpcDoor", "Tls"]
