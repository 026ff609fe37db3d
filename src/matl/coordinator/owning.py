"""The token of whoever owns the coordinator's folder: how there is always a way in."""

from __future__ import annotations

import logging
from datetime import timedelta

from matl.attest.canonical import unix_ms
from matl.attest.tokens import Scope
from matl.coordinator.core import Core
from matl.coordinator.keys import write_private

__all__ = ["ADMIN_TOKEN", "Owning"]

ADMIN_TOKEN = "admin.token"  # noqa: S105 - the name of a file
"""File of the folder that the first operator's token is written into."""

_SOON = timedelta(days=14)

logger = logging.getLogger(__name__)


class Owning(Core):
    """Makes the first token."""

    async def first_token(self) -> None:
        """Where no token of scope admin is good (any more), make one and write it into the folder, for its owner alone.

        Whoever can start the coordinator can read the folder. One that ends soon is logged.
        """
        admins = (one for one in self.access.tokens.value.tokens.values() if one.scope is Scope.ADMIN)
        last = max(admins, key=lambda one: one.expires_at, default=None)
        if last is not None and (left := last.expires_at - unix_ms(self.settings.clock())) > 0:
            if left < _SOON.total_seconds() * 1000:
                logger.warning(
                    "the last token of scope admin (%s of %s) ends in %d days: matl token rotate %s; or start again "
                    "when it has ended, and a new one is written to %s",
                    last.id, last.name, left // 86_400_000, last.id, self.settings.folder / ADMIN_TOKEN,
                )  # fmt: skip
            return

        async def write(secret: str) -> None:
            await self._audit("coordinator", "issue_token", "admin", {"scope": "admin", "file": ADMIN_TOKEN})
            # Before it counts: a token that nobody could read would shut everybody out.
            write_private(self.settings.folder / ADMIN_TOKEN, secret)

        now = self.settings.clock()
        await self.access.tokens.change(lambda tokens: tokens.issue("admin", Scope.ADMIN, now=now), before=write)
