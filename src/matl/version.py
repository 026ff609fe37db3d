"""Which version of MATL this is; a module of its own, so that every room can say it."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
