"""The protocol over gRPC: its messages and methods, as ``proto/matl/v1/training.proto`` describes them."""
