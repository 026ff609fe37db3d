"""What an oracle measures of itself: the code it runs, its configuration and the policy it judges by.

One byte changed in any measured file, of MATL or of what it computes with, in the configuration or in the policy
changes the measurement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from matl.attest.canonical import DIGEST, CanonicalText, line
from matl.attest.installed import Part, installed_parts, parts_digest

__all__ = ["Measurement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(CanonicalText):
    """What is measured of an oracle: three digests in one canonical text.

    Parameters
    ----------
    package : str
        Digest of the installed code, `matl.attest.installed.parts_digest`.
    config, policy : str
        SHA-256 (hex) of the configuration of the run, and of the policy it judges by.

    Examples
    --------
    >>> one = Measurement(package="0" * 64, config="1" * 64, policy="2" * 64)
    >>> one.to_bytes().decode().splitlines()[:2]
    ['matl-measurement/1', 'package=0000000000000000000000000000000000000000000000000000000000000000']
    >>> one.digest[:16]
    'e35e65c84d8c29ff'
    """

    DOMAIN: ClassVar[str] = "matl-measurement/1"

    package: str = line(DIGEST)
    config: str = line(DIGEST)
    policy: str = line(DIGEST)

    @classmethod
    def of(cls, config: bytes, policy: bytes, *, parts: Iterable[Part] | None = None) -> Measurement:
        """Measure this installation with the bytes of a configuration and of a policy.

        An operator runs this on a machine of his own to learn what an oracle has to prove.

        Parameters
        ----------
        config, policy : bytes
            What they are the digests of.
        parts : iterable of Part, optional
            What is installed, if not `matl.attest.installed.installed_parts`.
        """
        return cls(
            package=parts_digest(installed_parts() if parts is None else parts),
            config=hashlib.sha256(config).hexdigest(),
            policy=hashlib.sha256(policy).hexdigest(),
        )

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the text: what is extended into a PCR, and what policies name."""
        return hashlib.sha256(self.to_bytes()).hexdigest()
