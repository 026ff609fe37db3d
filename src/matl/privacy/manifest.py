"""The signed manifest: every constant that the privacy of a client rests on, and the epsilon they prove."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from matl import validate
from matl.codec.sketch import BlockLayout
from matl.errors import InvalidValueError
from matl.privacy import certificate
from matl.privacy.accounting import Adjacency
from matl.privacy.certificate import FORMAT, FRACTION_BITS, VERSION, Certificate, CertificateError, Instance
from matl.privacy.encoder import Encoder
from matl.privacy.secagg.session import Session

__all__ = ["Manifest", "choose_squared_norm"]

_CONTEXT = b"matl privacy manifest\n"  # what is signed can be taken for nothing else
_STEP = Fraction(1, 1 << 20)  # c^2 is chosen as a multiple of it
_LONGEST = (1 << 15) - _STEP  # the largest of them that an instance may have


@dataclass(frozen=True, slots=True)
class Manifest:
    """Public constants of a private federation, pinned by every client.

    Its figures are computed from its constants and cannot be stated otherwise. A client makes its encoder by `encoder`
    and every secure aggregation by `session`: then each sum that it helps to unmask has the noise that was certified.

    Parameters
    ----------
    instance : Instance
        What the theorem needs: bits, noise table, survivors, bounds, transmissions and delta, and how many clients of a
        sum may be dishonest.
    block : int
        Rows of the Hadamard transform, a power of two from 64 to 65536.
    kept : int
        How many of them are sent.
    clip_norm : Fraction
        L2 norm to which updates are clipped.
    slack : Fraction
        See `matl.privacy.encoder.Encoder`.

    Notes
    -----
    Block, kept rows, clip norm and slack are pinned because all clients have to agree on them: they scale what is
    summed. The epsilon does not depend on them, since the client enforces the bounds of the instance on whatever vector
    comes out; but they have to be public constants, chosen without looking at anybody's data.

    The length of updates is that of the model. A wrong one is no danger: vectors of another length are not summed.

    Examples
    --------
    >>> from matl.privacy.table import skellam_table
    >>> coarse = Instance(
    ...     bits=4, table=skellam_table("3/8").counts, resolution=40, survivors=16, bound=Fraction(1, 32),
    ...     squared_norm=Fraction(1, 3), transmissions=30, delta=Fraction(1, 100_000), orders=((1, 32),), cells=1,
    ...     corrupt=2,
    ... )  # fmt: skip
    >>> manifest = Manifest(coarse, block=64, kept=24, clip_norm=Fraction(1))
    >>> str(manifest.certificate.zero_out), str(manifest.certificate.replace_one)
    ('6.517097685', '15.145734488')
    >>> Manifest.read(manifest.document(), sha256=manifest.sha256) == manifest
    True
    >>> session = manifest.session("demo", round=3, size=1000)
    >>> session.min_survivors, session.length == manifest.encoder(size=1000).layout.kept
    (18, True)
    """

    instance: Instance
    block: int
    kept: int
    clip_norm: Fraction
    slack: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        validate.whole(1, block=self.block, kept=self.kept)
        if self.kept > self.block:
            raise InvalidValueError(f"expected kept <= block={self.block}, got {self.kept}")
        if not self.clip_norm > 0:
            raise InvalidValueError(f"expected clip_norm > 0, got {self.clip_norm}")
        if not 0 <= self.slack <= 1:
            raise InvalidValueError(f"expected 0 <= slack <= 1, got {self.slack}")
        self.layout(1)  # refuses blocks that are none
        try:
            certificate.certify(self.instance)
        except CertificateError as error:
            raise InvalidValueError(f"these constants prove nothing: {error}") from error

    @classmethod
    def read(cls, document: bytes, *, sha256: str | None, signer: Ed25519PublicKey | None = None) -> Manifest:
        """Read a manifest and certify it again, which takes about a second.

        Parameters
        ----------
        document : bytes
            The file.
        sha256 : str or None
            The hash that the client has pinned; None only to look at a manifest, or if ``signer`` is pinned instead.
        signer : Ed25519PublicKey, optional
            Who has to have signed it.

        Raises
        ------
        InvalidValueError
            It cannot be read, was changed, is another one, is not signed by the signer, or states an epsilon that its
            constants do not prove.
        """
        try:
            instance, _, digest = certificate.check(document, sha256)
            manifest = cls(instance, **_public(certificate.read(document).body))
        except CertificateError as error:
            raise InvalidValueError(
                f"the privacy manifest is refused: {error}; ask for the one you agreed to"
            ) from error
        if signer is not None:
            _verify(certificate.read(document).signature, signer, digest)
        return manifest

    def layout(self, size: int) -> BlockLayout:
        """The sketch of updates of length ``size``."""
        return BlockLayout(size, self.block, self.kept / self.block)

    def encoder(self, size: int) -> Encoder:
        """What a client encodes updates of length ``size`` with, and a server decodes their sums.

        Raises
        ------
        InvalidValueError
            The noise table has not the resolution that encoders draw from, or the clip norm overflows.
        """
        layout, clip, slack = self.layout(size), float(self.clip_norm), float(self.slack)
        return Encoder(self.instance, layout, clip, slack, terms=self.sha256)

    def session(self, run: str, round: int, *, size: int, group: str = "") -> Session:  # noqa: A002 - the field's word
        """A secure aggregation of what `encoder` gives, which unmasks no sum that may lack noise (assumption A5).

        Parameters
        ----------
        run, round, group
            See `matl.privacy.secagg.Session`.
        size : int
            Length of updates.

        Returns
        -------
        Session
            Of ``survivors + corrupt`` clients at least, modulo 2^bits, and of this manifest: keys and signatures of
            clients with another one, whose noise may be less, are none of it. Whoever runs the server is not asked.

        Raises
        ------
        InvalidValueError
            The constants are of no use with secure aggregation, which adds words of 2 to 8 bits modulo as much, and
            wants two honest clients in a sum.
        """
        return Session(
            run=run,
            round=round,
            group=group,
            length=self.layout(size).kept,
            bits=self.instance.bits,
            corrupt=self.instance.corrupt,
            min_survivors=self.instance.min_survivors,
            terms=self.sha256,
        )

    @property
    def certificate(self) -> Certificate:
        """What the constants prove: zero-out and replace-one."""
        return certificate.certify(self.instance)

    @property
    def body(self) -> dict[str, Any]:
        """What is hashed and signed, as plain data."""
        instance, figures = self.instance, self.certificate
        return {
            "format": FORMAT,
            "version": VERSION,
            "bits": instance.bits,
            "fraction_bits": FRACTION_BITS,
            "table": list(instance.table),
            "resolution": instance.resolution,
            "survivors": instance.survivors,
            "corrupt": instance.corrupt,
            "bound": str(instance.bound),
            "squared_norm": str(instance.squared_norm),
            "transmissions": instance.transmissions,
            "delta": str(instance.delta),
            "orders": [list(pair) for pair in instance.orders],
            "cells": instance.cells,
            "epsilon": {"zero_out": str(figures.zero_out), "replace_one": str(figures.replace_one)},
            "public": {
                "block": self.block,
                "kept": self.kept,
                "clip_norm": str(self.clip_norm),
                "slack": str(self.slack),
            },
        }

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the canonical body: what clients pin."""
        return certificate.sha256(self.body)

    def document(self, key: Ed25519PrivateKey | None = None) -> bytes:
        """The file: body, hash and, with a key, an Ed25519 signature."""
        content: dict[str, Any] = {"manifest": self.body, "sha256": self.sha256}
        if key is not None:
            content["signature"] = {
                "algorithm": "ed25519",
                "public_key": key.public_key().public_bytes_raw().hex(),
                "value": key.sign(_signed(self.sha256)).hex(),
            }
        return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"


def choose_squared_norm(
    instance: Instance, epsilon: Fraction | int, adjacency: Adjacency = Adjacency.ZERO_OUT
) -> Instance:
    """The instance with the largest c^2, a multiple of 2^-20, whose epsilon is at most this.

    Every order allows a c^2 of its own, (epsilon - what the conversion adds) / (T K_a), and the largest counts; no
    search is needed, since K_a does not depend on c^2.

    Parameters
    ----------
    instance : Instance
        Everything else; its own ``squared_norm`` does not count.
    epsilon : Fraction or int
        What to keep below.
    adjacency : Adjacency
        To what epsilon refers.

    Raises
    ------
    InvalidValueError
        No c^2 is small enough, or the noise proves nothing.

    Examples
    --------
    >>> from matl.privacy.table import skellam_table
    >>> given = Instance(
    ...     bits=4, table=skellam_table("3/8").counts, resolution=40, survivors=16, bound=Fraction(1, 32),
    ...     squared_norm=Fraction(1), transmissions=30, delta=Fraction(1, 100_000), orders=((1, 32),), cells=1,
    ... )  # fmt: skip
    >>> chosen = choose_squared_norm(given, 8)
    >>> chosen.squared_norm, str(certificate.certify(chosen).zero_out)
    (Fraction(250335, 524288), '7.999996609')
    """
    try:
        curve = certificate.certify(replace(instance, squared_norm=Fraction(1))).curve
    except CertificateError as error:
        raise InvalidValueError(f"these constants prove nothing: {error}") from error
    costs = curve if adjacency is Adjacency.ZERO_OUT else certificate.replaced(curve)
    limit = Fraction(epsilon) * certificate.UNIT - 16  # more than all that is rounded up once c^2 is not 1
    largest = max((limit - certificate.epsilon(a, 0, instance.delta)) / cost for a, cost in costs.items())
    squared_norm = min((largest // _STEP) * _STEP, _LONGEST)
    if squared_norm <= 0:
        raise InvalidValueError(
            f"expected an epsilon that some c^2 >= 2^-20 keeps, got {float(epsilon):g} for "
            f"{instance.transmissions} transmissions; allow a larger one, more noise or larger orders"
        )
    return replace(instance, squared_norm=squared_norm)


def _public(body: Mapping[str, Any]) -> dict[str, Any]:
    public = body["public"]
    if not isinstance(public, dict) or public.keys() != {"block", "kept", "clip_norm", "slack"}:
        raise CertificateError(f"expected 'public' to hold block, kept, clip_norm and slack, got {public!r:.80}")
    return {**public, **{name: certificate.fraction(public, name) for name in ("clip_norm", "slack")}}


def _signed(digest: str) -> bytes:
    return _CONTEXT + bytes.fromhex(digest)


def _verify(signature: object, signer: Ed25519PublicKey, digest: str) -> None:
    value = signature.get("value") if isinstance(signature, dict) else None
    try:
        signer.verify(bytes.fromhex(value) if isinstance(value, str) else b"", _signed(digest))
    except (InvalidSignature, ValueError) as error:
        raise InvalidValueError(
            f"the privacy manifest {digest} is refused: it has no valid signature of the pinned key "
            f"{signer.public_bytes_raw().hex()}; ask its operator for a signed one"
        ) from error
