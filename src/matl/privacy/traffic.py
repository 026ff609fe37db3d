"""How many bytes secure aggregation sends beside the words, from its own messages."""

from __future__ import annotations

from dataclasses import dataclass

from matl.privacy.secagg import Session, quorum
from matl.privacy.secagg.keys import (
    COMMITMENT_BYTES,
    CONFIRMATION_BYTES,
    KEY_BYTES,
    SEALED_BYTES,
    SHARE_BYTES,
    SIGNATURE_BYTES,
)
from matl.privacy.secagg.messages import (
    Advertisement,
    Certificate,
    Consistency,
    Delivery,
    MaskedInput,
    Message,
    Revealed,
    Roster,
    SealedShares,
    Survivors,
)

__all__ = ["KeyTraffic", "key_traffic"]

_ID = "0" * 36
"""Ids are taken to be as long as a UUID."""


@dataclass(frozen=True, slots=True)
class KeyTraffic:
    """Keys, shares, signatures and numbers of one client in one round in which nobody drops out.

    Parameters
    ----------
    up, down : int
        Bytes it sends, without its words, and receives.
    neighbours : int
        Clients it shares masks with.
    """

    up: int
    down: int
    neighbours: int


def key_traffic(clients: int, min_survivors: int, corrupt: int) -> KeyTraffic:
    """The traffic of one secure aggregation.

    Parameters
    ----------
    clients, min_survivors, corrupt : int
        See `matl.privacy.secagg.Session`.

    Examples
    --------
    >>> key_traffic(100, min_survivors=70, corrupt=5)
    KeyTraffic(up=..., down=..., neighbours=99)
    """
    session = Session(run="plan", round=0, length=1, min_survivors=min_survivors, corrupt=corrupt)
    degree, everyone = session.graph(clients).degree, tuple(range(clients))
    peers, signers = everyone[-degree:], everyone[-quorum(clients, corrupt) :]
    advertisement = Advertisement(_ID, bytes(KEY_BYTES), bytes(KEY_BYTES), bytes(SIGNATURE_BYTES))
    confirmations, sealed = bytes(degree * CONFIRMATION_BYTES), bytes(degree * SEALED_BYTES)
    up: tuple[Message, ...] = (
        advertisement,
        SealedShares(sealed, bytes(2 * degree * COMMITMENT_BYTES), bytes(32)),
        MaskedInput(b"", confirmations),
        Consistency(bytes(SIGNATURE_BYTES)),
        Revealed(peers, bytes(degree * SHARE_BYTES)),
    )
    down: tuple[Message, ...] = (
        Roster((advertisement.to_bytes(),) * clients),
        Delivery(everyone, sealed),
        Survivors(everyone, confirmations),
        Certificate(signers, bytes(len(signers) * SIGNATURE_BYTES)),
    )
    sent, received = (sum(len(message.to_bytes()) for message in messages) for messages in (up, down))
    return KeyTraffic(sent, received, degree)
