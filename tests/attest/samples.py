"""Where published evidence is found: ``$MATL_VECTORS_DIR``, or ``../shared/vectors`` beside the checkout."""

from __future__ import annotations

import json
import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from matl.errors import AttestationError

FOLDER = Path(os.environ.get("MATL_VECTORS_DIR", Path(__file__).parents[3] / "shared/vectors"))

ABSENT = not (FOLDER / "SHA256SUMS").is_file()
REASON = f"needs published evidence in MATL_VECTORS_DIR or ../shared/vectors; there is none in {FOLDER}"
SECOND = timedelta(seconds=1)


def load(path: str) -> Any:
    """A JSON file of the samples."""
    return json.loads(read(path))


def read(path: str) -> bytes:
    return (FOLDER / path).read_bytes()


def certificates(pem: bytes) -> list[bytes]:
    """The DER certificates of a PEM file."""
    return [b64decode(text) for text in re.findall(rb"-----BEGIN CERTIFICATE-----(.*?)-----END", pem, re.DOTALL)]


def at(moment: str | datetime) -> Callable[[], datetime]:
    """A clock that stands."""
    time = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return lambda: time.astimezone(UTC)


@contextmanager
def refused(code: str, words: str = "") -> Iterator[None]:
    """What is inside is refused with this code, for a reason in these words."""
    with pytest.raises(AttestationError, match=words or None) as caught:
        yield
    assert caught.value.code == code, caught.value


@contextmanager
def refused_if_at_all(*codes: str) -> Iterator[None]:
    """What is inside may be refused, with one of these codes if any are given; nothing else may come out of it."""
    try:
        yield
    except AttestationError as error:
        if codes and error.code not in codes:
            raise
