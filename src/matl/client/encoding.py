"""From what a user hands over to the payload that a round takes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.client.arrays import fit, scaled
from matl.client.rounds import Round
from matl.errors import InvalidValueError
from matl.params import Float32
from matl.privacy.secagg import Phase
from matl.records import RoundSpec, Visibility
from matl.screening import encode_payload

__all__ = ["check_supported", "count_examples", "encode", "unpack_trained", "vector_of"]


PHASES = tuple(phase.value for phase in Phase if phase is not Phase.DONE)
_LOG = logging.getLogger("matl.client")


def check_supported(spec: RoundSpec) -> None:
    """Refuse a round for which this client can send nothing, before it trains.

    Raises
    ------
    InvalidValueError
        The round has other phases, phases without a deadline, or wants another encoding.
    """
    if spec.phases == PHASES and (spec.kind, spec.codec) == ("masked", "distributed"):
        if spec.visibility is not Visibility.SUMMED or spec.groups is not None or spec.clip is not None:
            raise InvalidValueError(
                f"round {spec.round} of {spec.run!r} is masked in a way this client does not know: expected one sum of "
                f"all and a fixed clipping norm, got visibility={spec.visibility.value}, groups={spec.groups} and "
                f"clip={spec.clip}"
            )
        if not 0 < (spec.deadline or 0.0) < math.inf:
            raise InvalidValueError(
                f"round {spec.round} of {spec.run!r} is masked and could last for ever: expected a deadline for its "
                f"phases, got deadline={spec.deadline}"
            )
        return
    if spec.phases != ("collect",) or spec.kind != "delta":
        raise InvalidValueError(
            f"round {spec.round} of {spec.run!r} takes {spec.kind} updates in the phases {', '.join(spec.phases)}; "
            f"this client sends plain ones (kind delta, phase collect), or masked ones in {', '.join(PHASES)}"
        )
    if spec.codec != "safetensors":
        raise InvalidValueError(
            f"round {spec.round} of {spec.run!r} wants updates encoded as {spec.codec!r}; this client sends safetensors"
        )


def encode(update: Any, target: Round, *, kind: str = "delta", learning_rate: float | None = None) -> bytes:
    """The payload of an update, shortened to the round's clipping norm where it has one.

    Parameters
    ----------
    update : mapping, sequence, array or model
        In any form that `matl.client.arrays.fit` takes.
    target : Round
        The round.
    kind : str
        ``"delta"`` or ``"gradient"``.
    learning_rate : float, optional
        Of the step along a gradient.

    Raises
    ------
    LayoutError, InvalidValueError
        It does not fit the model, is not finite, or is longer than the round allows.
    """
    arrays, spec = _prepared(update, target, kind, learning_rate, finite=True), target.spec
    norm = float(np.sqrt(sum(np.sum(np.square(arrays[name], dtype=np.float64)) for name in target.layout.slices)))
    if spec.clip is not None and norm > spec.clip:
        arrays, norm = scaled(target.layout, arrays, spec.clip / norm), spec.clip
    if spec.max_norm is not None and norm > spec.max_norm:
        raise InvalidValueError(
            f"update: its L2 norm is {norm:.4g}, round {spec.round} takes at most {spec.max_norm:.4g}: train for fewer "
            "steps or at a lower learning rate; and an update is new minus old parameters, see Round.delta"
        )
    return encode_payload(arrays)[0]


def vector_of(update: Any, target: Round, *, kind: str = "delta", learning_rate: float | None = None) -> Float32:
    """The vector (d,) of an update, for encoders that shorten and encode it themselves; the arguments of `encode`.

    What is not finite goes through, and this machine's log says so. Encoders send zeros in its place: a client that
    stayed away instead would tell everybody something about its data.

    Raises
    ------
    LayoutError, InvalidValueError
        It does not fit the model.
    """
    vector = target.layout.flatten(_prepared(update, target, kind, learning_rate, finite=False))
    if bad := int(vector.size - np.isfinite(vector).sum()):
        _LOG.warning(
            "round %d of %s: %d of %d values of the update are NaN or infinite, and zeros are sent in its place: "
            "training diverged; lower the learning rate, or clip gradients",
            target.number,
            target.run,
            bad,
            vector.size,
        )
    return vector


def _prepared(
    update: Any, target: Round, kind: str, learning_rate: float | None, *, finite: bool
) -> dict[str, NDArray[Any]]:
    """The arrays of an update."""
    arrays = fit(target.layout, update, finite=finite)
    if kind == "delta" and learning_rate is None:
        return arrays
    if kind == "gradient" and learning_rate is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # as in `difference`
            return scaled(target.layout, arrays, -learning_rate)
    raise InvalidValueError(
        f"expected kind='delta', or kind='gradient' with a learning_rate, got kind={kind!r} and "
        f"learning_rate={learning_rate}"
    )


def count_examples(metadata: Mapping[str, Any] | None, spec: RoundSpec) -> int | None:
    """The number of examples in an update's metadata.

    Raises
    ------
    InvalidValueError
        There is something else in it, or the number is none that the round takes.
    """
    content = dict(metadata or {})
    count = content.pop("num_examples", None)
    if content:
        raise InvalidValueError(f"metadata: expected num_examples alone, got also {', '.join(sorted(content))}")
    if count is None:
        return None
    if isinstance(count, bool) or not 1 <= count <= spec.max_examples or int(count) != count:
        raise InvalidValueError(f"metadata: expected num_examples from 1 to {spec.max_examples}, got {count!r}")
    return int(count)


def unpack_trained(trained: Any) -> tuple[Any, Any]:
    """New parameters and the number of examples, as a training function returned them.

    Raises
    ------
    InvalidValueError
        It returned something else.
    """
    if isinstance(trained, tuple) and len(trained) == 2 and (trained[1] is None or np.ndim(trained[1]) == 0):
        return trained
    raise InvalidValueError(
        "expected the training function to return (new parameters, number of examples), got a "
        f"{type(trained).__name__}" + (f" of {len(trained)}" if isinstance(trained, tuple) else "")
    )
