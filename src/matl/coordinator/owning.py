"""The token of whoever owns the coordinator's folder: how there is always a way in."""

from __future__ import annotations

import logging
from datetime import timedelta

from matl.attest.canonical import unix_ms
from matl.attest.tokens import OperatorToken, Scope
from matl.coordinator.core import Core
from matl.coordinator.keys import write_private

__all__ = ["ADMIN_TOKEN", "Owning"]

ADMIN_TOKEN = "admin.token"  # noqa: S105 - the name of a file
"""File of the folder that the owner's token is written into."""

_SOON = timedelta(days=14)
_LARGEST = 1024  # bytes of the file that are read

logger = logging.getLogger(__name__)


class Owning(Core):
    """Sees that the folder's file holds a token that is good."""

    async def first_token(self) -> None:
        """Where the folder's file holds no token of scope admin that is good, make one, for its owner alone to read.

        Whoever can start the coordinator can read the folder. One that ends soon is logged.

        Raises
        ------
        StorageError
            It cannot be written.
        """
        now, file = self.settings.clock(), self.settings.folder / ADMIN_TOKEN
        there = self.owners_token()
        if there is not None and there.scope is Scope.ADMIN:
            if (left := there.expires_at - unix_ms(now)) < _SOON.total_seconds() * 1000:
                logger.warning(
                    "the token in %s ends in %d days: matl token rotate %s writes a new one there, and so does the "
                    "first start after its end",
                    file, left // 86_400_000, there.id,
                )  # fmt: skip
            return

        async def write(secret: str) -> None:
            await self._audit("coordinator", "issue_token", "admin", {"scope": "admin", "file": ADMIN_TOKEN})
            # Before it counts: a token that nobody could read would shut everybody out.
            self.keep_for_owner(secret)

        await self.access.tokens.change(lambda tokens: tokens.issue("admin", Scope.ADMIN, now=now), before=write)

    def owners_token(self) -> OperatorToken | None:
        """The token in the folder's file, if there is one that can be read and is good."""
        try:
            with (self.settings.folder / ADMIN_TOKEN).open("rb") as stream:
                secret = stream.read(_LARGEST).decode("ascii", "replace").strip()
        except OSError:
            return None  # whoever needs one then makes it, and says so if that cannot be
        return self.access.tokens.value.check(secret, now=self.settings.clock())

    def keep_for_owner(self, secret: str) -> None:
        """Write a token into the folder's file.

        Raises
        ------
        StorageError
            It cannot be written.
        """
        write_private(self.settings.folder / ADMIN_TOKEN, secret)
