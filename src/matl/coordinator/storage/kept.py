"""Small things of which there is one each, such as the roster: in memory to read, in the store to stay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Protocol, Self, TypeVar

from matl.coordinator.storage.store import Store
from matl.coordinator.storage.to_the_end import to_the_end

__all__ = ["Kept"]


class Stateful(Protocol):
    """What has all of itself as plain data."""

    def state(self) -> dict[str, Any]:
        """All of it."""


T = TypeVar("T", bound=Stateful)
R = TypeVar("R")


class Kept(Generic[T]):
    """A value that never changes in place, and the document of the store that holds the latest.

    Use `load`.

    Attributes
    ----------
    value : T
        The latest.
    """

    def __init__(self, store: Store, name: str, read: Callable[[Mapping[str, Any]], T], empty: T) -> None:
        self.value = empty
        self._store, self._name, self._read, self._empty = store, name, read, empty
        self._version, self._doubtful, self._lock = 0, True, asyncio.Lock()

    @classmethod
    async def load(cls, store: Store, name: str, read: Callable[[Mapping[str, Any]], T], empty: T) -> Self:
        """Read it, or begin with an empty one.

        Raises
        ------
        StateError
            It cannot be read.
        """
        kept = cls(store, name, read, empty)
        await kept._load()
        return kept

    async def change(
        self, step: Callable[[T], tuple[T, R]], *, before: Callable[[R], Awaitable[object]] | None = None
    ) -> R:
        """Put what follows into its place; one change after another.

        Parameters
        ----------
        step : callable
            Makes the next value, and a result, of the present one. What it raises ends the change.
        before : callable, optional
            Awaited with the result when it is known that the change is possible, and before it is made.

        Raises
        ------
        StateError
            Somebody else changed the document.
        """
        async with self._lock:
            if self._doubtful:
                await self._load()
            value, result = step(self.value)
            if before is not None:
                await before(result)
            if value is not self.value:
                await self._put(value)
            return result

    @to_the_end
    async def _put(self, value: T) -> None:
        # If this fails the document may have been replaced nevertheless: it is read before the next change.
        self._doubtful = True
        self._version = await self._store.put_document(self._name, value.state(), expected_version=self._version)
        self.value, self._doubtful = value, False

    async def _load(self) -> None:
        found = await self._store.document(self._name)
        self._version, self.value = (0, self._empty) if found is None else (found[0], self._read(found[1]))
        self._doubtful = False
