"""What an oracle measures of itself: the code it runs, its configuration and the policy it judges by.

One byte changed in any measured file, in the configuration or in the policy changes the measurement.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from matl.attest.canonical import DIGEST, CanonicalText, line
from matl.errors import InvalidValueError

__all__ = ["Measurement", "package_digest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(CanonicalText):
    """What is measured of an oracle: three digests in one canonical text.

    Parameters
    ----------
    package : str
        Digest of the installed files, `package_digest`.
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
    def of(cls, config: bytes, policy: bytes, *, packages: tuple[str, ...] = ("matl",)) -> Measurement:
        """Measure this installation with the bytes of a configuration and of a policy.

        An operator runs this on a machine of his own to learn what an oracle has to prove.
        """
        return cls(
            package=package_digest(*packages),
            config=hashlib.sha256(config).hexdigest(),
            policy=hashlib.sha256(policy).hexdigest(),
        )

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the text: what is extended into a PCR, and what policies name."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def package_digest(*names: str) -> str:
    """SHA-256 (hex) over every installed file of packages, as they lie on the disk.

    Files are read, rather than the digests in the wheel's ``RECORD``, which whoever changes a file can leave alone.
    They count by name and content, in the order of their names, so that every installation of the same wheels has the
    same digest. What Python and numba compiled (``__pycache__``) differs from machine to machine and is left out: an
    oracle has to run with an empty ``PYTHONPYCACHEPREFIX``, or somebody could leave other code there.

    Parameters
    ----------
    *names : str
        Importable packages or modules, such as ``"matl"``.

    Raises
    ------
    InvalidValueError
        There is no such package, or it has a folder that is a link, whose content would not be looked at.
    """
    whole = hashlib.sha256()
    for name in sorted(set(names)):
        for label, path in _files(name):
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            whole.update(os.fsencode(label) + b"\0" + content.encode() + b"\0")  # no name has a zero byte
    return whole.hexdigest()


def _files(name: str) -> Iterator[tuple[str, Path]]:
    """Every file of a package with the name it counts by."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise InvalidValueError(f"expected an installed package with a file of its own, got {name!r}")
    if not spec.submodule_search_locations:
        yield Path(spec.origin).name, Path(spec.origin)
        return
    root = Path(spec.origin).parent
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [each for each in folders if each != "__pycache__"]
        for each in folders:
            if Path(folder, each).is_symlink():
                raise InvalidValueError(f"{Path(folder, each)} is a link to a folder; install {name} with plain files")
        found += [Path(folder, each) for each in files]
    for path in sorted(found, key=lambda path: path.relative_to(root).as_posix()):
        yield f"{name}/{path.relative_to(root).as_posix()}", path
