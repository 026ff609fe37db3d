"""Checks an update passes before anybody judges it: envelope first, values second.

Screening never raises for what a client sent. The update becomes a row of the cohort, or a `Rejection` that says what
was wrong, the value seen and the value allowed; the round goes on either way. Cheap checks come before expensive ones,
and bytes are parsed only after the envelope around them has been accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, TypeAlias

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from matl.errors import LayoutError
from matl.params import Arrays, Float32, ParamLayout
from matl.records import LARGEST_NORM, Rejection, RoundSpec, Update

__all__ = [
    "HEADER_LIMIT",
    "REASONS",
    "Verifier",
    "decode_payload",
    "encode_payload",
    "largest_payload",
    "screen_envelope",
    "screen_row",
    "screen_values",
    "screen_words",
]

Verifier: TypeAlias = Callable[[Update], Rejection | None]
"""Says why an update is not what its sender signed, or nothing; see `matl.attest.verifying`."""

REASONS: Mapping[str, str] = {
    "run": "the update was made for another run",
    "round": "the update was made for another round",
    "kind": "the update is of another kind than the round asks for",
    "stale": "the model it started from is older than the round allows",
    "model_hash": "it started from a model that is not the one of that version",
    "duplicate": "this client's update for the round was accepted before",
    "num_examples": "the example count is outside what the round allows",
    "payload_hash": "the payload is not what its hash says",
    "malformed": "the update cannot be decoded",
    "names": "the parameter names are not the model's",
    "shape": "a parameter has the wrong shape",
    "dtype": "a parameter has the wrong type",
    "not_finite": "the update holds NaN or infinity",
    "norm": "the update is longer than the round allows",
}
"""Every rejection code with what it means."""

# safetensors' own limit on its header is 100 MB; a model's list of names is far smaller.
HEADER_LIMIT = 1 << 20
"""Bytes of the longest header of a payload that is read."""
_LENGTH_BYTES = 8  # the length of the header, which comes first
# Share of the largest squared norm that no rounding of float32 can make up.
_CLEARLY_SHORT = 0.9
# A rejection quotes what the client sent; longer quotes are cut, so that nobody can fill a log.
_REASON_LIMIT = 400
_CLIENT_ID_LIMIT = 256
# What a field must be before it may be compared, hashed or printed.
_FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    "client_id": (str,),
    "run": (str,),
    "round": (int, np.integer),
    "kind": (str,),
    "base_version": (int, np.integer),
    "model_hash": (str,),
    "payload": (bytes, Mapping, list, tuple),
    "payload_sha256": (str, NoneType),
    "received_at": (int, float),
}


def screen_envelope(
    update: Update,
    spec: RoundSpec,
    *,
    model_hashes: Mapping[int, str],
    seen: frozenset[str] | set[str],
    verify: Verifier | None = None,
    max_bytes: int | None = None,
) -> Rejection | None:
    """Check everything about an update but its values.

    Parameters
    ----------
    update : Update
        What arrived.
    spec : RoundSpec
        What was asked for.
    model_hashes : mapping of int to str
        Hash of each model version an update may start from.
    seen : set of str
        Clients whose update for this round was already accepted.
    verify : callable, optional
        Checks the signature; ``None`` where the host has other means (a simulation, say).
    max_bytes : int, optional
        Length above which payload bytes are not even hashed; see `largest_payload`.

    Returns
    -------
    Rejection or None
        ``None`` if the envelope is in order.
    """

    def reject(code: str, detail: str) -> Rejection:
        return _rejection(update, code, detail)

    for field, types in _FIELD_TYPES.items():
        value = getattr(update, field)
        if not _is_plain(value, types):
            return reject("malformed", f"field {field!r} is not what the protocol says, got a {type(value).__name__}")
    if not _is_client_id(update.client_id):
        got = f"{update.client_id[:32]!a} of {len(update.client_id)} characters"
        return reject("malformed", f"field 'client_id' is not 1 to {_CLIENT_ID_LIMIT} printable characters, got {got}")
    # First of all, so that every later rejection is really the sender's: nobody is blamed for junk in his name.
    if verify is not None and (rejection := verify(update)) is not None:
        return rejection
    if update.run != spec.run:
        return reject("run", f"got {update.run!r}, expected {spec.run!r}")
    if update.round != spec.round:
        return reject("round", f"got {update.round}, expected {spec.round}")
    if update.kind != spec.kind:
        return reject("kind", f"got {update.kind!r}, expected {spec.kind!r}")
    staleness = spec.round - int(update.base_version)
    if not 0 <= staleness <= spec.max_staleness:
        return reject("stale", f"started from version {update.base_version}, allowed are the last {spec.max_staleness}")
    if update.model_hash != model_hashes.get(int(update.base_version)):
        return reject("model_hash", f"got {update.model_hash[:12]!r} for version {update.base_version}")
    if update.client_id in seen:
        return reject("duplicate", "one update per client and round counts, the first")
    count = update.num_examples
    if count is not None and not _whole_number_in(count, 1, spec.max_examples):
        # Only what can be printed whatever it is: an integer of 5,000 digits cannot.
        got = f"{count}" if _whole_number_in(count, -(2**63), 2**63) else f"a {type(count).__name__}"
        return reject("num_examples", f"got {got}, allowed are 1 to {spec.max_examples}")
    if isinstance(update.payload, bytes):
        if max_bytes is not None and len(update.payload) > max_bytes:
            return reject("malformed", f"payload of {len(update.payload)} bytes, the model needs at most {max_bytes}")
        actual = hashlib.sha256(update.payload).hexdigest()
        if update.payload_sha256 != actual:
            return reject(
                "payload_hash", f"got {actual[:12]}, the envelope says {(update.payload_sha256 or '')[:12]!r}"
            )
    return None


def screen_values(update: Update, spec: RoundSpec, layout: ParamLayout) -> Float32 | Rejection:
    """Decode an update whose envelope was accepted, and check its values.

    Returns
    -------
    float32 array of shape (d,), or Rejection
        The update as a row of the cohort, or why it cannot be one.
    """
    return screen_row(update, spec, lambda payload: layout.flatten(decode_payload(payload)))


def screen_row(update: Update, spec: RoundSpec, decode: Callable[[Any], Float32]) -> Float32 | Rejection:
    """The same for any encoding.

    Parameters
    ----------
    update, spec
        As for `screen_values`.
    decode : callable
        Makes the row (d,) of a payload, or raises `LayoutError`, another ValueError, or TypeError.
    """
    try:
        row = decode(update.payload)
    except LayoutError as error:
        return _rejection(update, error.code, str(error))
    except (ValueError, TypeError, safetensors.SafetensorError) as error:
        return _rejection(update, "malformed", str(error))
    allowed = LARGEST_NORM if spec.max_norm is None else min(spec.max_norm, LARGEST_NORM)
    # In float32 this takes a tenth of the time, and settles all but the long and the broken.
    with np.errstate(over="ignore", invalid="ignore"):
        if float(np.dot(row, row)) < _CLEARLY_SHORT * allowed**2:
            return row
    # float64 accumulation: the square of a large finite float32 must not overflow into a false "not finite".
    norm = float(np.sqrt(np.sum(np.square(row, dtype=np.float64))))
    if not np.isfinite(norm):
        bad = int(row.size - np.isfinite(row).sum())
        return _rejection(update, "not_finite", f"{bad} of {row.size} entries")
    if norm > allowed:
        return _rejection(update, "norm", f"L2 norm {norm:.3g}, allowed is {allowed:.3g}")
    return row


def screen_words(update: Update, name: str, due: tuple[tuple[int, ...], np.dtype[Any]]) -> NDArray[Any] | Rejection:
    """Integers that are summed before anybody decodes them: there is nothing to check but their number and type.

    Parameters
    ----------
    update : Update
        What arrived.
    name : str
        The only array its payload may hold.
    due : (shape, dtype)
        What the array has to be.
    """
    shape, dtype = due
    try:
        arrays = decode_payload(update.payload)
    except (ValueError, TypeError, safetensors.SafetensorError) as error:
        return _rejection(update, "malformed", str(error))
    if not isinstance(arrays, Mapping) or arrays.keys() != {name}:
        return _rejection(update, "names", f"expected {name!r} alone")
    words = arrays[name]
    if not isinstance(words, np.ndarray) or words.dtype != dtype:
        return _rejection(update, "dtype", f"expected {dtype}, got {getattr(words, 'dtype', type(words).__name__)}")
    if words.shape != shape:
        return _rejection(update, "shape", f"expected {shape}, got {words.shape}")
    return words


def largest_payload(layout: ParamLayout) -> int:
    """Bytes that no payload of a model can exceed: its arrays and the longest header that is read.

    Examples
    --------
    >>> largest_payload(ParamLayout.of({"w": np.zeros(3, np.float32)}))
    1048596
    """
    return _LENGTH_BYTES + HEADER_LIMIT + layout.nbytes


def encode_payload(arrays: Mapping[str, np.ndarray]) -> tuple[bytes, str]:
    """Named arrays as payload bytes (safetensors) and their SHA-256 (hex).

    Examples
    --------
    >>> payload, sha256 = encode_payload({"w": np.zeros(3, np.float32)})
    >>> decode_payload(payload)["w"]
    array([0., 0., 0.], dtype=float32)
    """
    # Not ascontiguousarray, which turns a scalar parameter into a vector of one.
    payload = safetensors.numpy.save({name: np.asarray(value, order="C") for name, value in arrays.items()})
    return payload, hashlib.sha256(payload).hexdigest()


def decode_payload(payload: bytes | Arrays) -> Arrays:
    """Named arrays of a payload; arrays pass through.

    Raises
    ------
    ValueError, safetensors.SafetensorError
        The bytes are not a payload.
    """
    if not isinstance(payload, bytes):
        return payload
    header = int.from_bytes(payload[:_LENGTH_BYTES], "little")
    if header > HEADER_LIMIT:
        raise ValueError(f"header of {header} bytes, allowed are {HEADER_LIMIT}")
    try:
        arrays: dict[str, np.ndarray] = safetensors.numpy.load(payload)
    except KeyError as error:  # a dtype NumPy does not have
        raise ValueError(f"dtype {error} is not supported") from error
    return arrays


def _rejection(update: Update, code: str, detail: str) -> Rejection:
    reason = f"{REASONS[code]}: {detail}"
    if len(reason) > _REASON_LIMIT:
        reason = reason[: _REASON_LIMIT - 3] + "..."
    sender: object = update.client_id  # whatever the envelope held, a rejection names its client by text
    return Rejection(sender if isinstance(sender, str) and _is_client_id(sender) else "", code, reason)


def _is_client_id(text: str) -> bool:
    """Whether an id can stand in any table and log; text that UTF-8 cannot encode is not printable."""
    return 1 <= len(text) <= _CLIENT_ID_LIMIT and text.isprintable()


def _is_plain(value: object, types: tuple[type, ...]) -> bool:
    """Whether a field has one of its types and, where it is a number, is finite and has no more than 64 bits."""
    if isinstance(value, int | float | np.integer) and not -(2**63) <= value < 2**63:
        return False
    return isinstance(value, types)


def _whole_number_in(value: object, low: int, high: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and low <= int(value) <= high
