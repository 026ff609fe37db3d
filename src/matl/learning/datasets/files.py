"""Where the files of data sets are looked for, checked, and stored when they are downloaded."""

from __future__ import annotations

import gzip
import hashlib
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from matl.errors import CorruptDataError, DataNotFoundError, MissingExtraError
from matl.files import make_directory, write_atomic

__all__ = ["cache_directory", "fetch_openml", "find", "read", "read_checked", "roots", "sklearn_datasets", "store"]

_ADVICE = "delete it and fetch it again, or point MATL_DATA_DIR at a good copy"


def cache_directory() -> Path:
    """Where downloaded data sets are kept: ``$XDG_CACHE_HOME/matl`` or ``~/.cache/matl``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "matl"


def roots() -> list[Path]:
    """Where data sets are looked for: ``$MATL_DATA_DIR`` first if it is set, then the cache."""
    own = os.environ.get("MATL_DATA_DIR")
    return [*([Path(own).expanduser()] if own else []), cache_directory()]


def find(names: Sequence[str], folders: Sequence[str], within: Sequence[Path] | None = None) -> list[Path] | None:
    """The files of a data set, each plain or as ``.gz``; ``None`` if one of them is nowhere.

    Looks in each of ``folders``, of each of `roots` unless ``within`` says where.
    """
    places = [root / folder for root in within or roots() for folder in folders]
    found = [
        next((path for place in places for path in (place / name, place / f"{name}.gz") if path.is_file()), None)
        for name in names
    ]
    present = [path for path in found if path is not None]
    return present if len(present) == len(names) else None


def read(path: Path) -> bytes:
    """Content of a file, unpacked if it is ``.gz``.

    Raises
    ------
    DataNotFoundError
        There is no such file.
    CorruptDataError
        It cannot be read or unpacked.
    """
    if not path.is_file():
        raise DataNotFoundError(f"{path} is not there; name an existing file, with its folder or from {Path.cwd()}")
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptDataError(f"cannot read {path}: {error}; {_ADVICE}") from error


def read_checked(path: Path, sha256: str) -> bytes:
    """Content of a file whose uncompressed digest is known.

    Raises
    ------
    CorruptDataError
        It cannot be read, or is another file than was published.
    """
    content = read(path)
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise CorruptDataError(f"{path} is damaged: SHA-256 {actual[:16]}..., expected {sha256[:16]}...; {_ADVICE}")
    return content


def store(folder: str, contents: Mapping[str, bytes]) -> None:
    """Put files into a folder of the cache."""
    place = make_directory(cache_directory() / folder)
    for name, content in contents.items():
        write_atomic(place / name, content)


def fetch_openml(data_id: int, *, dataset: str, wanted: str) -> Any:
    """Download a data set through scikit-learn's OpenML loader.

    Parameters
    ----------
    data_id : int
        Its number at OpenML.
    dataset : str
        What it is called here; also the folder of the cache.
    wanted : str
        Which files the user can supply instead, for the message.

    Raises
    ------
    DataNotFoundError
        There is no network, or no such data set at the other end.
    """
    fetch = sklearn_datasets().fetch_openml
    try:
        with warnings.catch_warnings():  # of a retry; what comes of it is said below
            warnings.simplefilter("ignore", UserWarning)
            return fetch(data_id=data_id, as_frame=False, parser="liac-arff")
    # no network, refused, cut off, or an answer that is not the data set
    except (OSError, ValueError, EOFError, zlib.error, HTTPException) as error:
        raise DataNotFoundError(
            f"the {dataset} files are not on this machine and cannot be downloaded ({error}); put {wanted} into "
            f"{cache_directory() / dataset} or into a folder named by MATL_DATA_DIR"
        ) from error


def sklearn_datasets() -> Any:
    """The module of scikit-learn that holds and fetches data sets."""
    try:
        import sklearn.datasets
    except ImportError as error:
        raise MissingExtraError("scikit-learn", extra="sim") from error
    return sklearn.datasets
