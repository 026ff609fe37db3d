"""The way down: a model sent as its difference to the last one that everybody holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.codec.codec import Codec
from matl.codec.container import ContainerError
from matl.errors import InvalidValueError, StateError
from matl.params import Float32, values_hash
from matl.state import State

__all__ = ["SharedModel"]


class SharedModel:
    """The model that server and clients reconstruct alike, bit for bit, from compressed differences.

    The server encodes the difference from what clients hold to what they should hold, and applies the bytes to its own
    copy as every client does. What one message loses is part of the next difference, so errors do not add up: with a
    codec that contracts, the distance to the true model stays below that of the last difference. Training goes on from
    ``params``, which everybody has, not from what the server alone knows.

    Parameters
    ----------
    params : array of shape (d,)
        The model that everybody starts from, sent whole.
    codec : Codec
        One that `contracts` and keeps no state, such as ``int8``.
    version : int
        How many differences have been applied.

    Raises
    ------
    InvalidValueError
        The parameters are empty or not finite, or the codec does not fit.

    Examples
    --------
    >>> from matl.codec import CODECS
    >>> model = np.zeros(10_000, np.float32)
    >>> server, client = (SharedModel(model, CODECS.create("int8")) for _ in range(2))
    >>> model += np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    >>> message = server.publish(model)
    >>> bool((client.apply(message) == server.params).all()), len(message) < model.nbytes / 4
    (True, True)
    """

    def __init__(self, params: NDArray[np.floating], codec: Codec, version: int = 0) -> None:
        validate.vector(params=np.asarray(params))
        validate.at_least(1, parameters=np.size(params))
        validate.whole(0, version=version)
        if not codec.contracts or codec.needs_state:
            raise InvalidValueError(
                "expected a codec that contracts and keeps no state (no stochastic rounding, no sketch, no feedback), "
                f"such as 'int8'; got {codec}"
            )
        self.codec, self.version = codec, version
        self._hold(np.array(params, np.float32))

    @property
    def params(self) -> Float32:
        """The model, float32 of shape (d,), read-only."""
        return self._params

    def publish(self, params: NDArray[np.floating], *, seed: int = 0) -> bytes:
        """The message that takes everybody from ``self.params`` to about ``params``; it is applied here as well.

        Parameters
        ----------
        params : array of shape (d,)
            Where the model should be.
        seed : int
            Public seed of the codec.

        Raises
        ------
        InvalidValueError
            The parameters have another length, or differ by what cannot be encoded.
        """
        validate.vector(self._params.size, params=np.asarray(params))
        difference = np.asarray(params, np.float64) - self._params  # float32 would round away what is small
        data, _ = self.codec.encode(difference, seed=seed, context=self._context)
        self.apply(data)
        return data

    def apply(self, data: bytes) -> Float32:
        """Take one step; the model after it.

        Raises
        ------
        ContainerError
            The bytes are damaged, or a difference from another model: a message was missed or comes twice. The model
            stays as it was; fetch a whole one.
        """
        difference = self.codec.decode(data, size=self._params.size, context=self._context)
        with np.errstate(over="ignore"):
            params = self._params + difference
        if not np.isfinite(params).all():
            raise ContainerError("the difference leads to a model that is not finite")
        self._hold(params)
        self.version += 1
        return params

    def state(self) -> State:
        """The whole model, as plain data, for those who join or have missed a message."""
        return {"version": 1, "applied": self.version, "params": self._params.copy()}

    @classmethod
    def restore(cls, state: State, codec: Codec) -> SharedModel:
        """The model of a `state`.

        Raises
        ------
        StateError
            It is no such state.
        """
        params, applied = state.get("params"), state.get("applied")
        if state.get("version") != 1 or not isinstance(params, np.ndarray) or not isinstance(applied, int):
            raise StateError(f"expected the state of a shared model, version 1, got {sorted(state)}")
        return cls(params, codec, applied)

    def _hold(self, params: Float32) -> None:
        params.flags.writeable = False
        self._params, self._context = params, bytes.fromhex(values_hash(params))
