"""Independent random streams from one seed, each with a name."""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["derive_seed", "stream"]


def _sequence(seed: int, purpose: str, path: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), *path))


def stream(seed: int, purpose: str, *path: int) -> np.random.Generator:
    """A generator that depends on the seed, the purpose and the path (round, client, ...) and on nothing else.

    Examples
    --------
    >>> stream(7, "client", 0, 3).integers(100) == stream(7, "client", 0, 3).integers(100)
    np.True_
    """
    return np.random.default_rng(_sequence(seed, purpose, path))


def derive_seed(seed: int, purpose: str, *path: int) -> int:
    """A 63-bit seed that depends on the seed, the purpose and the path."""
    return int(_sequence(seed, purpose, path).generate_state(1, np.uint64)[0] >> np.uint64(1))
