"""The signed manifest: every constant that the privacy of a client rests on, and the epsilon they prove."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from matl import validate
from matl.errors import InvalidValueError
from matl.privacy import certificate
from matl.privacy.certificate import FORMAT, FRACTION_BITS, VERSION, Certificate, CertificateError, Instance
from matl.privacy.table import NoiseTable

__all__ = ["Manifest", "choose_squared_norm"]

_CONTEXT = b"matl privacy manifest\n"  # what is signed can be taken for nothing else
_STEP = Fraction(1, 1 << 20)  # c^2 is chosen as a multiple of it
_MAX_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Manifest:
    """Public constants of a private federation, pinned by every client.

    Its figures are computed from its constants and cannot be stated otherwise.

    Parameters
    ----------
    instance : Instance
        What the theorem needs: bits, noise table, survivors, bounds, transmissions and delta.
    block : int
        Rows of the Hadamard transform, a power of two.
    kept : int
        How many of them are sent.
    clip_norm : Fraction
        L2 norm to which updates are clipped.

    Notes
    -----
    Block, kept rows and clip norm are pinned because all clients have to agree on them. The epsilon does not depend on
    them, since the client enforces the bounds of the instance on whatever vector comes out; but they have to be public
    constants, chosen without looking at anybody's data.

    Examples
    --------
    >>> from matl.privacy.table import skellam_table
    >>> coarse = Instance(
    ...     bits=4, table=skellam_table("3/8").counts, resolution=40, survivors=16, bound=Fraction(1, 32),
    ...     squared_norm=Fraction(1, 3), transmissions=30, delta=Fraction(1, 100_000), orders=((1, 32),), cells=1,
    ... )  # fmt: skip
    >>> manifest = Manifest(coarse, block=64, kept=24, clip_norm=Fraction(1))
    >>> str(manifest.certificate.zero_out), str(manifest.certificate.replace_one)
    ('6.517097685', '15.145734488')
    >>> Manifest.read(manifest.document(), sha256=manifest.sha256) == manifest
    True
    """

    instance: Instance
    block: int
    kept: int
    clip_norm: Fraction

    def __post_init__(self) -> None:
        validate.whole(1, block=self.block, kept=self.kept)
        if self.block & (self.block - 1) or self.block > _MAX_BLOCK:
            raise InvalidValueError(f"expected block as a power of two, at most {_MAX_BLOCK}, got {self.block}")
        if self.kept > self.block:
            raise InvalidValueError(f"expected kept <= block={self.block}, got {self.kept}")
        if not self.clip_norm > 0:
            raise InvalidValueError(f"expected clip_norm > 0, got {self.clip_norm}")
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

    @property
    def certificate(self) -> Certificate:
        """What the constants prove: zero-out and replace-one."""
        return certificate.certify(self.instance)

    @property
    def table(self) -> NoiseTable:
        """The law of one client's noise share."""
        return NoiseTable(self.instance.table, self.instance.resolution)

    @property
    def coordinate_limit(self) -> int:
        """The largest size of a fixed-point coordinate, ``floor(B 2^24)``."""
        return math.floor(self.instance.bound * (1 << FRACTION_BITS))

    @property
    def square_limit(self) -> int:
        """The largest sum of squares of fixed-point coordinates, ``floor(c^2 2^48)``; below 2^63."""
        return math.floor(self.instance.squared_norm * (1 << 2 * FRACTION_BITS))

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
            "bound": str(instance.bound),
            "squared_norm": str(instance.squared_norm),
            "transmissions": instance.transmissions,
            "delta": str(instance.delta),
            "orders": [list(pair) for pair in instance.orders],
            "cells": instance.cells,
            "epsilon": {"zero_out": str(figures.zero_out), "replace_one": str(figures.replace_one)},
            "public": {"block": self.block, "kept": self.kept, "clip_norm": str(self.clip_norm)},
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


def choose_squared_norm(instance: Instance, epsilon: Fraction | int) -> Instance:
    """The instance with the largest c^2, a multiple of 2^-20, whose zero-out epsilon is at most this.

    Every order allows a c^2 of its own, (epsilon - what the conversion adds) / (T K_a), and the largest counts; no
    search is needed, since K_a does not depend on c^2.

    Parameters
    ----------
    instance : Instance
        Everything else; its own ``squared_norm`` does not count.
    epsilon : Fraction or int
        The zero-out epsilon to keep below.

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
    limit = Fraction(epsilon) * certificate.UNIT
    largest = max((limit - certificate.epsilon(a, 0, instance.delta)) / divergence for a, divergence in curve.items())
    squared_norm = (largest // _STEP) * _STEP
    if squared_norm <= 0:
        raise InvalidValueError(
            f"expected an epsilon that some c^2 >= 2^-20 keeps, got {float(epsilon):g} for "
            f"{instance.transmissions} transmissions; allow a larger one, more noise or larger orders"
        )
    return replace(instance, squared_norm=squared_norm)


def _public(body: Mapping[str, Any]) -> dict[str, Any]:
    public = body["public"]
    if not isinstance(public, dict) or public.keys() != {"block", "kept", "clip_norm"}:
        raise CertificateError(f"expected 'public' to hold block, kept and clip_norm, got {public!r:.80}")
    return {**public, "clip_norm": certificate.fraction(public, "clip_norm")}


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
