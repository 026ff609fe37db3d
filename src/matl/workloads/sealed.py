"""Updates that only an attested oracle can open: the channel of Mode 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from matl.attest.sealing import OVERHEAD
from matl.errors import InvalidValueError
from matl.params import Arrays, Float32, ParamLayout
from matl.records import Rejection, RoundSpec, Update, Visibility
from matl.state import State
from matl.workloads.channel import Channel, Clear, Encoded, Sender, Shown

__all__ = ["Sealed"]


@dataclass(frozen=True)
class Sealed(Channel):
    """Sealed boxes: the host that takes them screens their envelopes, and the oracle that opens them their values.

    Both plan their rounds with the same channel. The oracle opens a box (`matl.attest.sealing`) and has ``inner`` read
    what is in it; whoever cannot open it learns its length.

    Parameters
    ----------
    inner : Channel
        How an update is encoded before it is sealed: `Clear` or `Encoded`.

    Raises
    ------
    InvalidValueError
        ``inner`` adds up what it is given, for hosts that are not to see single updates; the oracle sees them.

    Examples
    --------
    >>> channel = Sealed(Clear())
    >>> channel.visibility.value, channel.codec
    ('sealed', 'safetensors')
    """

    visibility: ClassVar[Visibility] = Visibility.SEALED  # type: ignore[misc] # a constant here

    inner: Channel = field(default_factory=Clear)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Clear | Encoded):
            raise InvalidValueError(
                f"expected updates that are read one by one inside a box, got {type(self.inner).__name__}; leave "
                "privacy out of a run with an oracle, or run it without the oracle"
            )

    @property
    def codec(self) -> str:
        """See `Channel.codec`: that of what is in the box."""
        return self.inner.codec

    @property
    def draws(self) -> bool:  # type: ignore[override] # a constant elsewhere
        """See `Channel.draws`."""
        return self.inner.draws

    def pack(
        self, update: Float32, spec: RoundSpec, layout: ParamLayout, sender: Sender
    ) -> tuple[bytes | Arrays, State]:
        """See `Channel.pack`: what goes into the box. Sealing it is for who knows the oracle's key."""
        return self.inner.pack(update, spec, layout, sender)

    def unpack(self, update: Update, spec: RoundSpec, layout: ParamLayout) -> NDArray[Any] | Rejection:
        """See `Channel.unpack`: an empty row, for the values are known to nobody here."""
        if isinstance(update.payload, bytes) and len(update.payload) > OVERHEAD:
            return np.empty(0, np.float32)
        return Rejection(
            update.client_id,
            "malformed",
            f"the update cannot be decoded: expected a sealed box of more than {OVERHEAD} bytes; seal it to the oracle",
        )

    def units(
        self,
        clients: Sequence[str],
        rows: Sequence[NDArray[Any]],
        spec: RoundSpec,
        *,
        seed: int,
        silent: Sequence[str] = (),
        key: bytes | None = None,
    ) -> Shown:
        """See `Channel.units`; the rows are those that ``inner`` read."""
        return self.inner.units(clients, rows, spec, seed=seed, silent=silent, key=key)

    def largest(self, layout: ParamLayout) -> int:
        """See `Channel.largest`."""
        return self.inner.largest(layout) + OVERHEAD
