"""Large things by the hash of their bytes: payloads, models, states; beside the database, which only names them."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from matl.coordinator.storage.blob_places import PIECE, Bucket, Folder, Place, Writing
from matl.coordinator.storage.to_the_end import in_thread
from matl.errors import InvalidValueError, MatlError, ServiceError, StateError
from matl.protocol.problems import Code, refusal

__all__ = ["Blobs"]

R = TypeVar("R")

_HASH = re.compile("[0-9a-f]{64}")
_UPLOAD = re.compile("[A-Za-z0-9_-]{1,128}")


class Blobs:
    """A place for blobs. A blob is there whole or not at all, and never changes.

    Parameters
    ----------
    url : str or Path
        A folder as a path or ``file:///path``, or what fsspec knows: ``s3://bucket/prefix``, ``memory://name``.

    Raises
    ------
    InvalidValueError
        fsspec does not know the kind of address, or lacks a package for it.
    StorageError
        The folder cannot be made.

    Notes
    -----
    All methods raise `matl.errors.ServiceError`: ``"busy"`` where the disk is full or the place is out of reach,
    ``"not_found"`` where there is no such blob.

    Examples
    --------
    >>> import asyncio
    >>> async def example():
    ...     blobs = Blobs("memory://example")
    ...     name = await blobs.put(b"a model")
    ...     return name[:8], await blobs.size(name), await blobs.read(name)
    >>> asyncio.run(example())
    ('97ff8a35', 7, b'a model')
    """

    def __init__(self, url: str | Path) -> None:
        self._place: Place
        kind, separator, rest = str(url).partition("://")
        if not separator or kind == "file":
            self._place = Folder(Path(rest if separator else kind).absolute())
            return
        try:
            system, root = fsspec.core.url_to_fs(str(url))
        except (ImportError, ValueError) as error:
            raise InvalidValueError(f"blobs cannot lie in {kind!a:.20}://: {error}") from error
        self._place = Bucket(system, root)

    async def write(self, chunks: AsyncIterator[bytes], *, expected_sha256: str, size: int) -> None:
        """Keep what arrives, if it is what was announced.

        Parameters
        ----------
        chunks : async iterator of bytes
            The blob, in pieces of any length.
        expected_sha256 : str
            Its hash (hex), and its name.
        size : int
            Its bytes. As soon as there are more, no further one is taken.

        Raises
        ------
        ServiceError
            ``"invalid"`` with reason ``"payload_hash"`` or ``"payload_bytes"``: it is something else.
        """
        _check(_HASH, expected_sha256)
        hasher = hashlib.sha256()
        new = await self._call(self._place.begin)
        try:
            taken = await self._fill(new, chunks, hasher, size)
            if taken != size:
                raise refusal(Code.INVALID, f"expected {size} bytes, got {taken}", reason="payload_bytes")
            _same(hasher.hexdigest(), expected_sha256)
            await self._call(new.keep, expected_sha256)
        finally:
            await self._call(new.drop)

    async def put(self, data: bytes) -> str:
        """Keep bytes; their SHA-256."""
        name = hashlib.sha256(data).hexdigest()
        if not await self.exists(name):
            await self.write(_once(data), expected_sha256=name, size=len(data))
        return name

    async def read(self, sha256: str) -> bytes:
        """A whole blob.

        Raises
        ------
        StateError
            Its bytes have changed: the disk is damaged, or somebody wrote to it.
        """
        data = await self._call(self._place.read, _check(_HASH, sha256), 0, await self.size(sha256))
        if await in_thread(lambda: hashlib.sha256(data).hexdigest()) != sha256:
            raise StateError(f"blob {sha256} is damaged: its bytes have another hash; restore it from a backup")
        return data

    async def stream(self, sha256: str, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to ``stop`` or the end, in pieces; their hash is not checked."""
        end = await self.size(sha256)
        end = end if stop is None else min(stop, end)
        for offset in range(start, end, PIECE):
            yield await self._call(self._place.read, sha256, offset, min(offset + PIECE, end))

    async def exists(self, sha256: str) -> bool:
        """Whether there is such a blob."""
        try:
            await self.size(sha256)
        except ServiceError as error:
            if error.code != Code.NOT_FOUND:
                raise
            return False
        return True

    async def size(self, sha256: str) -> int:
        """Bytes of a blob."""
        return await self._call(self._place.size, _check(_HASH, sha256))

    async def delete(self, sha256: str) -> None:
        """Delete a blob; one that is not there needs no deleting."""
        await self._call(self._place.delete, _check(_HASH, sha256))

    def path(self, sha256: str) -> Path | None:
        """Where a blob lies as a file, to be mapped into memory; ``None`` if it lies elsewhere."""
        return self._place.path(_check(_HASH, sha256))

    async def append(self, upload: str, offset: int, chunks: AsyncIterator[bytes], *, limit: int | None = None) -> int:
        """Add a piece to an upload; once this returns it is on the disk.

        Parameters
        ----------
        upload : str
            Its id.
        offset : int
            Where the piece begins; what an earlier call left behind it, and nobody acknowledged, is lost.
        chunks : async iterator of bytes
            The piece.
        limit : int, optional
            Bytes of the whole upload. As soon as there are more, no further one is taken.

        Returns
        -------
        int
            Where the next piece begins.

        Raises
        ------
        ServiceError
            ``"invalid"`` with reason ``"payload_bytes"``: it is more than that. ``"not_found"``: fewer than ``offset``
            bytes are there.
        """
        new = await self._call(self._place.begin_piece, _check(_UPLOAD, upload), offset)
        try:
            taken = await self._fill(new, chunks, None, None if limit is None else limit - offset)
            await self._call(new.keep, upload)
        finally:
            await self._call(new.drop)
        return offset + taken

    async def finish(self, upload: str, sha256: str) -> None:
        """Make an upload a blob.

        Raises
        ------
        ServiceError
            ``"invalid"`` with reason ``"payload_hash"``: its bytes are others; it stays, until it is discarded.
            ``"not_found"``: it has none, or they became a blob already.
        """
        _same(await self._call(self._place.join, _check(_UPLOAD, upload), _check(_HASH, sha256)), sha256)

    async def discard(self, upload: str) -> None:
        """Delete what there is of an upload."""
        await self._call(self._place.discard, _check(_UPLOAD, upload))

    async def _fill(self, new: Writing, chunks: AsyncIterator[bytes], hasher: Any, most: int | None) -> int:
        """Write all chunks, a good deal at once; how many bytes they were."""
        taken, waiting = 0, bytearray()

        def put(data: bytes) -> None:
            if hasher is not None:
                hasher.update(data)
            new.write(data)

        async for chunk in chunks:
            taken += len(chunk)
            if most is not None and taken > most:
                raise refusal(Code.INVALID, f"expected at most {most} bytes, got more", reason="payload_bytes")
            waiting += chunk
            if len(waiting) >= PIECE:
                await self._call(put, bytes(waiting))
                waiting.clear()
        if waiting:
            await self._call(put, bytes(waiting))
        return taken

    def is_there(self) -> bool:
        """Whether the place itself is: where it is not, no blob is missing. Blocks for as long as a look takes."""
        return self._place.is_there()

    async def _call(self, work: Callable[..., R], *args: Any) -> R:
        with _in_our_words():
            return await in_thread(self._try, work, *args)

    def _try(self, work: Callable[..., R], *args: Any) -> R:
        try:
            return work(*args)
        except FileNotFoundError as error:
            if self.is_there():
                raise
            raise NotADirectoryError("their folder is not there; is its disk mounted?") from error
        except (OSError, MatlError):
            raise
        except Exception as error:
            if not isinstance(self._place, Bucket):
                raise
            # Stores elsewhere fail in words of their own, which are no errors of the operating system.
            raise OSError(f"{type(error).__name__}: {error}") from error


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise refusal(Code.NOT_FOUND, f"there is no such blob: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            words = "the disk of the blobs is full: free some space"
        else:
            words = f"the blobs are out of reach: {error.strerror or error}"
        raise refusal(Code.BUSY, words, reason="blobs", retry_after=1.0) from error


def _check(pattern: re.Pattern[str], name: str) -> str:
    """Names become parts of paths."""
    if pattern.fullmatch(name) is None:
        raise InvalidValueError(f"expected a name like {pattern.pattern}, got {name!a:.80}")
    return name


def _same(actual: str, expected: str) -> None:
    if actual != expected:
        raise refusal(Code.INVALID, f"expected bytes with SHA-256 {expected}, got {actual}", reason="payload_hash")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
