"""How a server takes the masks off: secrets from shares, masks from secrets, and a check on everything recovered."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from matl.errors import AggregationAborted
from matl.privacy.secagg import shamir
from matl.privacy.secagg.keys import (
    COMMITMENT_BYTES,
    SHARE_BYTES,
    mask_key,
    seed_commitment,
    self_mask_key,
    share_commitment,
)
from matl.privacy.secagg.masks import Vector, add_masks
from matl.privacy.secagg.messages import SealedShares
from matl.privacy.secagg.session import Registration

__all__ = ["Unmasking"]


@dataclass(frozen=True)
class Unmasking:
    """What is to be recovered after a round's survivors are fixed.

    Parameters
    ----------
    registered : Registration
        Who takes part.
    shares : mapping of int to SealedShares
        What every sharer sent, for its commitments.
    survivors : frozenset of int
        Whose vectors are in the sum; the other sharers' masks are in it without a vector.
    misfits : set of (int, int)
        Holder and dealer of revealed shares that were found not to be as committed.
    """

    registered: Registration
    shares: Mapping[int, SealedShares]
    survivors: frozenset[int]
    misfits: set[tuple[int, int]] = field(default_factory=set)

    def unmask(self, total: Vector, revealed: Mapping[int, Mapping[int, bytes]]) -> None:
        """Take all masks off a sum, in place.

        Parameters
        ----------
        total : uint8, uint16 or uint32 array of shape (length,)
            Sum of the survivors' masked vectors.
        revealed : mapping of int to mapping of int to bytes
            By holder, then by dealer: the shares that holders revealed.

        Raises
        ------
        AggregationAborted
            Too few shares of a secret are as committed, or they are shares of something else. The sum is as it was.
        """
        seeds = {client: self._seed(client, revealed) for client in sorted(self.survivors)}
        secrets = {client: self._secret(client, revealed) for client in sorted(set(self.shares) - self.survivors)}
        transcript = self.registered.transcript
        add_masks(total, minus=(self_mask_key(seed, transcript, client) for client, seed in seeds.items()))
        # A survivor adds the mask it shares with a higher number, and subtracts the one with a lower.
        add_masks(total, minus=self._left_over(secrets, above=True), plus=self._left_over(secrets, above=False))

    def fits(self, dealer: int, holder: int, share: bytes) -> bool:
        """Whether this is the share that a dealer committed to for a neighbour, of the one secret that is due."""
        place = bisect_left(self.registered.neighbours(dealer), holder)
        kind = b"seed" if dealer in self.survivors else b"key"
        start = (2 * place + (kind == b"key")) * COMMITMENT_BYTES
        due = self.shares[dealer].commitments[start : start + COMMITMENT_BYTES]
        return due == share_commitment(self.registered.transcript, dealer, holder, kind, share)

    def _left_over(self, secrets: Mapping[int, X25519PrivateKey], *, above: bool) -> Iterator[bytes]:
        """Keys of the masks that survivors share with dropped clients above, or below, themselves."""
        for client, secret in secrets.items():
            for peer in self.registered.neighbours_among(client, self.survivors):
                if (client > peer) is above:
                    public = self.registered.advertisements[peer].mask_key
                    yield mask_key(secret, public, self.registered.transcript, client, peer)

    def _seed(self, client: int, revealed: Mapping[int, Mapping[int, bytes]]) -> bytes:
        due = self.shares[client].seed_commitment
        return self._recover(
            client, revealed, lambda seed: seed_commitment(self.registered.transcript, client, seed) == due
        )

    def _secret(self, client: int, revealed: Mapping[int, Mapping[int, bytes]]) -> X25519PrivateKey:
        due = self.registered.advertisements[client].mask_key

        def opens(key: bytes) -> bool:
            return X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw() == due

        return X25519PrivateKey.from_private_bytes(self._recover(client, revealed, opens))

    def _recover(
        self, dealer: int, revealed: Mapping[int, Mapping[int, bytes]], opens: Callable[[bytes], bool]
    ) -> bytes:
        """The secret of a dealer, from the first shares that came: more than the threshold is not read.

        Only if they do not give what the dealer committed to is each held against its own commitment.
        """
        threshold = self.registered.graph.threshold
        holders = self.registered.neighbours(dealer)
        shares = {i: share for i, holder in enumerate(holders) if (share := revealed.get(holder, {}).get(dealer))}
        if len(shares) >= threshold and opens(secret := _combined(shares, threshold)):
            return secret
        misfits = {i for i, share in shares.items() if not self.fits(dealer, holders[i], share)}
        self.misfits.update((holders[i], dealer) for i in misfits)
        fitting = {i: share for i, share in shares.items() if i not in misfits}
        name = self.registered.clients[dealer]
        if len(fitting) < threshold:
            raise AggregationAborted(
                f"expected {threshold} shares of a secret of {name!r}, got {len(fitting)}: "
                "too many of its neighbours dropped out, or it dealt them shares that do not open; start a new round"
            )
        if not opens(secret := _combined(fitting, threshold)):
            raise AggregationAborted(
                f"the shares that {name!r} dealt are not of its secret; start a new round without it"
            )
        return secret


def _combined(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret that the first of some shares give, by the place of their holders."""
    used = {place: int.from_bytes(share, "little") for place, share in islice(shares.items(), threshold)}
    return shamir.combine(used).to_bytes(SHARE_BYTES, "little")
