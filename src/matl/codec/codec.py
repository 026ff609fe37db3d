"""A codec: a transform, a quantiser and a packer, and the bytes they make together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.codec import container
from matl.codec.container import ContainerError
from matl.codec.parts import Packer, Quantiser, Transform, Words, spec_of
from matl.errors import InvalidValueError, MissingExtraError, StateError
from matl.params import Float32
from matl.records import LARGEST_NORM
from matl.registry import Registry
from matl.state import State

__all__ = ["CODECS", "Codec", "decode"]

_LARGEST_SEED = (1 << 64) - 1
_LONGEST_CONTEXT = 64  # a SHA-512


@dataclass(frozen=True, slots=True)
class Codec:
    """How a vector becomes bytes, and bytes a vector.

    Parameters
    ----------
    transform : Transform
        `Identity`, `Hadamard` or `TopK`.
    quantiser : Quantiser
        `Float`, `MaxScaled`, `RmsScaled`, `FixedStep` or `LloydMax`.
    packer : Packer
        `FixedWidth`, `Ans` or `Zstd`.
    feedback : bool
        Whether what was lost is added to the next vector (error feedback). It is for codecs that `contracts`; with one
        that does not, the error grows from round to round.

    Raises
    ------
    InvalidValueError
        The packer does not take words of that many bits, or there is feedback where the codec does not contract.

    Notes
    -----
    **Bad input.** `encode` refuses vectors that are empty or hold NaN, infinity or magnitudes beyond 1e18, which no
    screening accepts. Zeros come back as zeros. `decode` raises one error, `ContainerError`, whatever the bytes are,
    and allocates no more than a small multiple of ``size``, which the host knows and the sender cannot choose.

    **Privacy.** A codec protects nothing. What is lost in rounding is no noise in the sense of differential privacy.

    References
    ----------
    Error feedback: Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML
    2019.

    Examples
    --------
    >>> from matl.codec import CODECS
    >>> codec = CODECS.create({"name": "rotated", "step": 2.0})
    >>> update = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    >>> data, _ = codec.encode(update, seed=7, rng=np.random.default_rng(1))
    >>> round(8 * len(data) / update.size, 2), codec.decode(data, size=update.size).shape
    (1.44, (100000,))
    >>> codec.decode(data[:-1], size=update.size)
    Traceback (most recent call last):
        ...
    matl.codec.container.ContainerError: truncated: got ... bytes, ... are due

    From a configuration, part by part:

    >>> CODECS.create({"name": "composed", "transform": "hadamard", "quantiser": "max", "packer": "ans"})
    Codec(transform=Hadamard(block=4096, fraction=1.0), quantiser=MaxScaled(bits=8, stochastic=False, chunk=4096),
          packer=Ans(), feedback=False)
    """

    registry: ClassVar[Registry[Codec]]

    transform: Transform
    quantiser: Quantiser
    packer: Packer
    feedback: bool = False

    def __post_init__(self) -> None:
        if self.quantiser.bits > self.packer.most:
            raise InvalidValueError(
                f"{type(self.packer).__name__} packs words of at most {self.packer.most} bits, "
                f"got {type(self.quantiser).__name__} with {self.quantiser.bits}"
            )
        if self.feedback and not self.contracts:
            raise InvalidValueError(
                "expected a codec that contracts, where feedback=True, or its error would grow: no stochastic rounding "
                f"and no sketch, got {self.transform} and {self.quantiser}"
            )

    @property
    def contracts(self) -> bool:
        """Whether a decoded vector is never farther from the vector than the zero vector is."""
        return self.transform.contracts and self.quantiser.contracts

    @property
    def needs_state(self) -> bool:
        """Whether `encode` has to be given the state that it returned for the vector before."""
        return self.feedback

    @property
    def draws(self) -> bool:
        """Whether `encode` needs randomness of the sender's own."""
        return self.quantiser.draws

    @property
    def sums(self) -> bool:
        """Whether words of several senders may be added before they are decoded, and so may be masked.

        That takes a linear transform with one seed for all, and integers on one public grid. `to_words` and
        `from_words` are for such sums.
        """
        return self.transform.linear and self.quantiser.sums

    @property
    def spec(self) -> dict[str, Any]:
        """The parts by name with all their options, as plain data: what the wire says about the codec."""
        parts = {"transform": self.transform, "quantiser": self.quantiser, "packer": self.packer}
        return {role: spec_of(part) for role, part in parts.items()}

    def most_bytes(self, size: int) -> int:
        """Bytes that no encoded vector of ``size`` numbers exceeds, for a host to refuse longer ones unread."""
        count = self.transform.length(size)
        scales = 4 * self.quantiser.scales(count)
        return container.OVERHEAD + scales + self.packer.most_bytes(count, self.quantiser.bits)

    def encode(
        self,
        vector: NDArray[Any],
        *,
        seed: int = 0,
        rng: np.random.Generator | None = None,
        state: State | None = None,
        context: bytes = b"",
    ) -> tuple[bytes, State]:
        """The bytes of a vector.

        Parameters
        ----------
        vector : array of shape (d,)
            What to send; taken as float32.
        seed : int
            Public, 64 bits, drawn anew for every round (`derive_seed`). It is sent along.
        rng : numpy Generator, optional
            The sender's own, for rounding at random, where the codec `draws`. Senders who share it round alike, and
            their errors do not average out.
        state : dict, optional
            What the last call returned; ``None`` before the first.
        context : bytes
            At most 64 bytes that the receiver has to name, such as the hash of the model a difference was taken from.

        Returns
        -------
        data : bytes
            A container (`matl.codec.container`).
        state : dict
            For the next call, as plain data; empty without feedback. Keep the old one if the bytes are never sent.

        Raises
        ------
        InvalidValueError
            The vector is empty, not finite or too large, a seed is out of range, or ``rng`` is missing.
        StateError
            The state belongs to a vector of another length.
        """
        validate.whole(0, seed=seed)
        if seed > _LARGEST_SEED or len(context) > _LONGEST_CONTEXT:
            raise InvalidValueError(
                f"expected seed < 2^64 and context of at most {_LONGEST_CONTEXT} bytes, "
                f"got seed={seed} and {len(context)} bytes"
            )
        x = _vector(vector)
        if self.feedback:
            x = _vector(x + _residual(state, x.size))
        words, scales = self.to_words(x, seed=seed, rng=rng)
        header = {"codec": self.spec, "size": x.size, "seed": int(seed), "context": context}
        data = container.write(header, scales.astype("<f4").tobytes() + self.packer.pack(words, self.quantiser.bits))
        if not self.feedback:
            return data, {}
        return data, {"version": 1, "residual": x - self.from_words(words, scales, size=x.size, seed=seed)}

    def decode(self, data: bytes, *, size: int, seed: int | None = None, context: bytes = b"") -> Float32:
        """The vector, float32 of shape (size,), of bytes that anybody may have sent.

        Parameters
        ----------
        data : bytes
            What `encode` of the same codec returned.
        size : int
            The length d that is due.
        seed : int, optional
            The seed that is due; ``None`` accepts any.
        context : bytes
            The context that is due.

        Raises
        ------
        ContainerError
            The bytes are anything else.
        """
        if len(data) > self.most_bytes(size):
            raise ContainerError(f"{len(data)} bytes, a vector of {size} numbers takes at most {self.most_bytes(size)}")
        return self._decode(*container.read(data), size, seed, context)

    def _decode(
        self, header: Mapping[str, Any], payload: bytes, size: int, seed: int | None, context: bytes
    ) -> Float32:  # fmt: skip
        validate.whole(1, size=size)
        used = _checked_header(header, {"codec": self.spec, "size": size, "seed": seed, "context": context})
        count, bits = self.transform.length(size), self.quantiser.bits
        end = 4 * self.quantiser.scales(count)
        if len(payload) < end:
            raise ContainerError(f"payload of {len(payload)} bytes, its scales alone take {end}")
        scales = np.frombuffer(payload[:end], "<f4").astype(np.float32)
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise ContainerError("a scale is negative or not finite")
        words = self.packer.unpack(payload[end:], count, bits)
        if bits < 8 and not -(1 << (bits - 1)) <= words.min() <= words.max() < 1 << (bits - 1):
            raise ContainerError(f"a word has more than {bits} bits")
        vector = self.from_words(words, scales, size=size, seed=used)
        if not np.isfinite(vector).all():
            raise ContainerError("the decoded vector is not finite")
        return vector

    def to_words(
        self, vector: NDArray[Any], *, seed: int, rng: np.random.Generator | None = None
    ) -> tuple[Words, Float32]:
        """Words and scales of a vector, before they are packed.

        Parameters are those of `encode`. Words are int8, int16 or float32 of shape (m,), scales float32.

        Examples
        --------
        >>> from matl.codec import CODECS
        >>> codec = CODECS.create({"name": "grid", "step": 0.01})
        >>> X = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32) / 5
        >>> rng = np.random.default_rng(1)
        >>> total = sum(codec.to_words(x, seed=7, rng=rng)[0].astype(np.int64) for x in X)
        >>> mean = codec.from_words(total, seed=7, size=1000) / 3
        >>> codec.sums, bool(np.allclose(mean, X.mean(axis=0), atol=0.02))
        (True, True)
        """
        if self.draws and rng is None:
            raise InvalidValueError(
                f"{type(self.quantiser).__name__} rounds at random and needs rng, a Generator of the sender's own; "
                "got none"
            )
        key = int(rng.integers(_LARGEST_SEED, dtype=np.uint64, endpoint=True)) if rng is not None and self.draws else 0
        return self.quantiser.quantise(self.transform.forward(_vector(vector), seed), key)

    def from_words(self, words: Words, scales: Float32 | None = None, *, size: int, seed: int) -> Float32:
        """The vector, float32 of shape (size,), of words, or of the sum of words where the codec `sums`."""
        values = self.quantiser.restore(words, np.empty(0, np.float32) if scales is None else scales)
        return self.transform.backward(values, size, seed)


CODECS: Registry[Codec] = Registry("codec")
Codec.registry = CODECS
CODECS.register("composed")(Codec)


def decode(data: bytes, *, size: int, seed: int | None = None, context: bytes = b"") -> Float32:
    """Decode by the codec that the bytes name; a receiver that has asked for one uses its `Codec.decode`.

    Parameters, result and error are those of `Codec.decode`.

    Examples
    --------
    >>> from matl.codec import CODECS
    >>> data, _ = CODECS.create("int8").encode(np.array([1.0, 0.0, -2.0]))
    >>> decode(data, size=3)
    array([ 1.007874,  0.      , -2.      ], dtype=float32)
    """
    header, payload = container.read(data)
    spec = header.get("codec")
    if not isinstance(spec, dict):
        raise ContainerError("the header names no codec")
    try:
        codec = CODECS.create({"name": "composed", **spec})
    except (InvalidValueError, MissingExtraError) as error:
        raise ContainerError(f"the header's codec cannot be used: {error}") from error
    return codec._decode(header, payload, size, seed, context)


def _vector(vector: NDArray[Any]) -> Float32:
    """A checked float32 vector in memory that compiled code takes as it is."""
    from matl.codec import _rounding

    with np.errstate(over="ignore"):  # becomes infinity, which is refused below
        x = np.require(vector, np.float32, ["C", "W"])
    if x.ndim != 1 or x.size == 0:
        raise InvalidValueError(f"expected a vector of shape (d,) with d >= 1, got shape {x.shape}")
    bits = np.empty(1, np.int32)
    _rounding.largest(x.view(np.int32), x.size, bits)
    largest = float(bits.view(np.float32)[0])
    if not largest <= LARGEST_NORM:
        bad = int(x.size - np.isfinite(x).sum())
        raise InvalidValueError(
            f"expected a vector of finite entries up to {LARGEST_NORM:g}, got {bad} that are NaN or infinite"
            if bad
            else f"expected entries of magnitude up to {LARGEST_NORM:g}, got {largest:g}"
        )
    return x


def _residual(state: State | None, size: int) -> Float32:
    if not state:
        return np.zeros(size, np.float32)
    residual = state.get("residual")
    if state.get("version") != 1 or not isinstance(residual, np.ndarray) or residual.shape != (size,):
        raise StateError(
            f"expected the state of a codec with feedback, version 1, for vectors of {size} numbers; got version "
            f"{state.get('version')!r} with a residual of shape {getattr(residual, 'shape', None)}"
        )
    return residual.astype(np.float32, copy=False)


def _checked_header(header: Mapping[str, Any], due: Mapping[str, Any]) -> int:
    """The seed of a header that says what is due; ``None`` for a seed accepts any."""
    if set(header) != set(due):
        raise ContainerError(f"the header has {sorted(map(str, header))}, {sorted(due)} are due")
    for name in ("codec", "size", "context"):
        if header[name] != due[name]:
            raise ContainerError(f"another {name} than is due: got {header[name]!r}, expected {due[name]!r}")
    seed = header["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= _LARGEST_SEED:
        raise ContainerError(f"the seed is not a whole number of 64 bits, got {seed!r}")
    if due["seed"] not in (None, seed):
        raise ContainerError(f"another seed than is due: got {seed}, expected {due['seed']}")
    return seed
