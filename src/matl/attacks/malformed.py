"""Messages that are broken rather than wrong."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from matl.attacks.base import ATTACKS, Attack
from matl.records import Update

__all__ = ["ForgedWords", "Malformed"]


@ATTACKS.register("malformed")
@dataclass(frozen=True, slots=True)
class Malformed(Attack):
    """Send garbage: NaN, wrong shapes, absurd example counts, unreadable bytes, stale models. Screening's opponent."""

    def tamper(self, update: Update, rng: np.random.Generator) -> Update:
        """One kind of garbage, drawn anew for every message."""
        kind = rng.integers(6)
        if isinstance(update.payload, bytes):  # of a codec: cut off, or overwritten
            junk = update.payload[: len(update.payload) // 2] if kind < 2 else rng.bytes(len(update.payload))
            return replace(update, payload=junk, payload_sha256=hashlib.sha256(junk).hexdigest())
        arrays: dict[str, Any] = dict(update.payload)  # type: ignore[arg-type]  # in-process clients send arrays
        name = next(iter(arrays))
        if kind == 0:
            return replace(update, payload={**arrays, name: np.full(arrays[name].shape, np.nan, np.float32)})
        if kind == 1:
            return replace(update, payload={**arrays, name: arrays[name][None]})
        if kind == 2:
            return replace(update, num_examples=10**12)
        if kind == 3:
            unreadable = rng.bytes(64)
            return replace(update, payload=unreadable, payload_sha256=hashlib.sha256(unreadable).hexdigest())
        if kind == 4:
            return replace(update, base_version=update.base_version - 1)
        return replace(update, payload={"unknown": arrays[name]})


@ATTACKS.register("forged_words")
@dataclass(frozen=True, slots=True)
class ForgedWords(Attack):
    """Send random words that no encoder made, where updates travel as words of a private sum.

    Nothing can be clipped in a masked sum: such words are noise of the largest size there is, in every coordinate.
    Where updates travel as they are there are no words to forge, and the update goes out unchanged.
    """

    def tamper(self, update: Update, rng: np.random.Generator) -> Update:
        """Integers drawn evenly from all there are, in place of those of the message."""
        if isinstance(update.payload, bytes):
            return update
        arrays: dict[str, Any] = dict(update.payload)  # type: ignore[arg-type]  # in-process clients send arrays
        forged = {
            name: rng.integers(0, np.iinfo(array.dtype).max, array.shape, array.dtype, endpoint=True)
            for name, array in arrays.items()
            if np.issubdtype(array.dtype, np.integer)
        }
        return replace(update, payload={**arrays, **forged})
