"""What an oracle runs besides its configuration: MATL, everything that it requires, and whatever else was imported.

A *part* is one installed distribution, measured by the bytes that lie on the disk and by what its ``RECORD`` says of
them. Whoever installs the same wheels has the same parts, on a machine of the same kind.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from matl.errors import InvalidValueError

__all__ = ["Part", "distribution_digest", "installed_parts", "package_digest", "parts_digest"]

_OWN = "matl"
_EXTRAS = frozenset({"client", "codec", "server", "sim"})
"""Extras of MATL that an oracle may use without having imported them when it is measured."""

# What installers write beside what is in a wheel; it differs from one installer and machine to the next.
_OF_INSTALLERS = frozenset({"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"})
_MAIN = frozenset({"__main__", "__mp_main__"})  # the command's own script
_REQUIREMENT = re.compile(r"\s*(?P<name>[A-Za-z0-9][\w.-]*)\s*(?:\[(?P<extras>[^]]*)\])?(?P<rest>.*)", re.DOTALL)
_EXTRA = re.compile(r"""\bextra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One thing that is measured.

    Parameters
    ----------
    name : str
        Of the distribution, normalised; of the module, if it belongs to none.
    version : str
        Its version; empty for a module.
    sha256 : str
        Digest of its files.

    Examples
    --------
    >>> str(Part("numpy", "2.4.6", "ab" * 32))[:18]
    'numpy==2.4.6 ababa'
    """

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} {self.sha256}"


@cache
def installed_parts() -> tuple[Part, ...]:
    """What is measured of this installation, in the order of names; the files are read once in a process.

    These are MATL with the distributions that it requires, directly or not; and those of every module that was imported
    when this is called, with what they require in turn. A requirement that is not installed is left out, and so is the
    standard library.

    Raises
    ------
    InvalidValueError
        A distribution does not say which files are its own, or another file is imported in place of one of them.
    """
    required = _required([(_OWN, _EXTRAS)])
    known = _roots(required.values())
    if others := {module for module in _imported() if module.root not in known}:
        owners = metadata.packages_distributions()
        owned = sorted({owner for module in others for owner in owners.get(module.root.partition("/")[0], ())})
        required = _required([(_OWN, _EXTRAS), *((name, frozenset()) for name in owned)])
        known = _roots(required.values())
    parts = [
        Part(name, found.version, package_digest(_OWN) if name == _OWN else distribution_digest(found))
        for name, found in required.items()
    ]
    parts += [Part(module.name, "", _hashed(module.path)) for module in others if module.root not in known]
    return tuple(sorted(parts))


def parts_digest(parts: Iterable[Part]) -> str:
    r"""SHA-256 (hex) of the parts, one in each line as ``NAME==VERSION SHA256``.

    Examples
    --------
    >>> parts_digest([Part("a", "1", "00" * 32)]) == hashlib.sha256(b"a==1 " + b"0" * 64 + b"\n").hexdigest()
    True
    """
    return hashlib.sha256("".join(f"{part}\n" for part in sorted(parts)).encode()).hexdigest()


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
    return _digest((label, "", path) for name in sorted(set(names)) for label, path in _files(name))


def distribution_digest(found: metadata.Distribution) -> str:
    """SHA-256 (hex) over every file of an installed distribution, as it lies on the disk and as its RECORD has it.

    In its packages files count that no RECORD names, as they may be imported in place of others. Commands outside of
    the folder of packages do not, and neither does what differs from one installation to the next: compiled files, and
    what installers note.

    Parameters
    ----------
    found : importlib.metadata.Distribution
        The distribution.

    Raises
    ------
    InvalidValueError
        It has no RECORD, or Python imports something else in place of its packages.
    """
    if not found.files or found.read_text("RECORD") is None:
        raise InvalidValueError(
            f"{found.name} does not say which files are its own; install it from a wheel, into an environment of its "
            "own"
        )
    base = _base(found)
    files: dict[str, tuple[str, Path]] = {}
    for each in found.files:
        if ".." in each.parts or each.is_absolute() or "__pycache__" in each.parts:
            continue
        if each.name in _OF_INSTALLERS and each.parent.name.endswith(".dist-info"):
            continue
        files[each.as_posix()] = ("" if each.hash is None else f"{each.hash.mode}={each.hash.value}", base / each)
    for root in sorted({root for label in files if (root := _package(base, label.rpartition("/")[0]))}):
        for path in _walk(base / root):
            files.setdefault(path.relative_to(base).as_posix(), ("", path))
    measured = {path.resolve() for _, path in files.values()}
    for name, path in _importable(base, files):
        _check_imported(found.name, name, path, measured)
    return _digest((label, said, path) for label, (said, path) in sorted(files.items()))


def _required(wanted: list[tuple[str, frozenset[str]]]) -> dict[str, metadata.Distribution]:
    """Distributions by name with all that they require, as far as it is installed."""
    found: dict[str, metadata.Distribution] = {}
    known: dict[str, frozenset[str]] = {}
    while wanted:
        name, extras = wanted.pop()
        name = re.sub(r"[-_.]+", "-", name).lower()
        if name in known and extras <= known[name]:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            if name == _OWN:
                raise InvalidValueError("expected matl to be installed by pip, it is not: pip install matl") from error
            continue  # for another system or version of Python, or of an extra that is not there
        known[name] = extras | known.get(name, frozenset())
        for text in found[name].requires or ():
            match = _REQUIREMENT.match(text)
            if match is None:
                raise InvalidValueError(f"{name} requires what cannot be read: {text!r:.80}")
            of_extras = set(_EXTRA.findall(match["rest"]))
            if not of_extras or of_extras & known[name]:
                brought = (each.strip() for each in (match["extras"] or "").split(","))
                wanted.append((match["name"], frozenset(brought) - {""}))
    return found


class _Module(NamedTuple):
    """A module that was loaded from a file. Its place says whose it is, as Cython has names of its own for some."""

    name: str
    path: Path
    root: str


def _imported() -> Iterator[_Module]:
    """Modules that were loaded from files, and are not the standard library's."""
    standard = tuple({os.path.realpath(sysconfig.get_path(each)) + os.sep for each in ("stdlib", "platstdlib")})
    packages = {os.path.realpath(sysconfig.get_path(each)) + os.sep for each in ("purelib", "platlib")}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if not isinstance(file, str) or name in _MAIN or not os.path.isfile(file):  # noqa: PTH113 - thousands of them
            continue
        path = os.path.realpath(file)
        if base := next((each for each in packages if path.startswith(each)), None):
            yield _Module(name, Path(path), _root(Path(base), Path(path).relative_to(base).as_posix()))
        elif not path.startswith(standard):
            yield _Module(name, Path(path), name.partition(".")[0])


def _roots(required: Iterable[metadata.Distribution]) -> set[str]:
    """Packages and modules that distributions hold."""
    return {_OWN, *(_root(_base(found), each.as_posix()) for found in required for each in found.files or ())}


def _base(found: metadata.Distribution) -> Path:
    return Path(str(found.locate_file("")))


def _root(base: Path, label: str) -> str:
    """The outermost package that a file is in, or else the module that it is, by its place below a folder."""
    return _package(base, label.rpartition("/")[0]) or label.partition("/")[0].partition(".")[0]


@cache
def _package(base: Path, folder: str) -> str | None:
    """The outermost package in whose folder a folder is; a namespace is none, as others have files there too."""
    parts = folder.split("/")
    roots = ("/".join(parts[: depth + 1]) for depth in range(len(parts)))
    return next((root for root in roots if root and (base / root / "__init__.py").is_file()), None)


def _importable(base: Path, files: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Packages and modules at the top of a distribution, with the file that Python should load."""
    for label in files:
        package, _, file = label.partition("/")
        if file == "__init__.py":
            yield package, base / label
        elif not file and Path(label).suffix in (".py", ".so", ".pyd"):
            yield label.partition(".")[0], base / label


def _check_imported(distribution: str, name: str, path: Path, measured: Collection[Path]) -> None:
    """Refuse what is loaded from elsewhere. A compiled file of the distribution may stand in for its source."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    spec = None if loaded else find_spec(name)
    origin = loaded or (spec.origin if spec is not None else None)
    if origin is None or Path(origin).resolve() not in measured:
        raise InvalidValueError(
            f"{name} of {distribution} is imported from {origin or 'nowhere'}, not from {path}; run in an environment "
            "of its own, without PYTHONPATH"
        )


def _files(name: str) -> Iterator[tuple[str, Path]]:
    """Every file of a package with the name it counts by."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise InvalidValueError(f"expected an installed package with a file of its own, got {name!r}")
    if not spec.submodule_search_locations:
        yield Path(spec.origin).name, Path(spec.origin)
        return
    root = Path(spec.origin).parent
    for path in sorted(_walk(root), key=lambda path: path.relative_to(root).as_posix()):
        yield f"{name}/{path.relative_to(root).as_posix()}", path


def _walk(root: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [each for each in folders if each != "__pycache__"]
        for each in folders:
            if Path(folder, each).is_symlink():
                raise InvalidValueError(
                    f"{Path(folder, each)} is a link to a folder; install {root.name} with plain files"
                )
        found += [Path(folder, each) for each in files]
    return found


def _digest(files: Iterable[tuple[str, str, Path]]) -> str:
    """Of files by label, what is said of each, and content; they are read side by side."""
    labels, said, paths = zip(*files, strict=True)
    whole = hashlib.sha256()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for label, words, content in zip(labels, said, pool.map(_hashed, paths), strict=True):
            whole.update(os.fsencode(label) + b"\0" + words.encode() + b"\0" + content.encode() + b"\0")
    return whole.hexdigest()


def _hashed(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing"  # a RECORD names it
