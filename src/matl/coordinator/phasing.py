"""Masked rounds behind every door: their constants, who takes part, and what is said and asked in each phase."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import nullcontext

from matl.coordinator.access import Caller
from matl.coordinator.core import LONGEST_WAIT, Core
from matl.coordinator.measures import measured
from matl.privacy.secagg import Phase
from matl.protocol.messages import Acknowledgement, ParticipantsView
from matl.protocol.problems import Code, refusal

__all__ = ["Phasing"]


class Phasing(Core):
    """What clients of masked rounds ask; see `matl.coordinator.rounds.masking`."""

    @measured
    async def manifest(self, caller: Caller, run: str) -> bytes:
        """The privacy manifest of a run, signed by the key of receipts; clients certify it for themselves.

        Raises
        ------
        ServiceError
            ``"not_found"``: its updates are not masked, and it has none.
        """
        self._known(caller)
        manifest = self.live(run).plan.manifest
        if manifest is None:
            raise refusal(Code.NOT_FOUND, f"run {run!r} masks nothing, and has no manifest", reason="manifest")
        return manifest.document(self.host.keys.receipts.ed25519)

    @measured
    async def participants(self, caller: Caller, run: str) -> ParticipantsView:
        """Who may take part in masked rounds, with their keys."""
        self._known(caller)
        self.live(run)
        return ParticipantsView(
            clients={
                client: base64.b64encode(identity.key.der).decode()
                for client, identity in sorted(self.access.roster.value.identities.items())
                if identity.revoked_at is None and identity.key.ed25519 is not None
            }
        )

    @measured
    async def say(
        self, caller: Caller, run: str, number: int, phase: str, message: AsyncIterator[bytes]
    ) -> Acknowledgement:
        """Take what a client says in a phase; once this returns it is on the disk. The same again is the same answer.

        Parameters
        ----------
        caller : Caller
            The client.
        run, number, phase
            What it is said to.
        message : async iterator of bytes
            See `matl.privacy.secagg`.

        Raises
        ------
        ServiceError
            See `matl.coordinator.rounds.masking.Masking.take_message`; ``"too_large"``, ``"rate"`` or ``"busy"``.
        """
        live, key = self.live(run), self._ed25519(caller)
        session = live.session()
        # The vector comes in one phase; what is said in the others is short.
        most = session.max_message - (0 if phase == Phase.MASK else session.nbytes)
        most = min(most, self.settings.limits.message)
        with self._charging(caller.name), self._arrival(caller.name, most):
            data = await _whole(self._in_time(message), most)
            return await live.take_message(caller.name, key, number, phase, data)

    async def asked(self, caller: Caller, run: str, number: int, phase: str, *, wait: float = 0.0) -> bytes:
        """What a client is asked in a phase; it is waited for, at most 30 seconds.

        Raises
        ------
        ServiceError
            See `matl.coordinator.rounds.masking.Masking.request_of`.
        """
        live = self.live(run)
        self._ed25519(caller)
        seconds = min(max(wait, 0.0), LONGEST_WAIT)
        with self._waiting(caller) if seconds else nullcontext():
            waiting = live.request_of(caller.name, number, phase, seconds)
            found = await (self._or_closing(waiting) if seconds else waiting)
        if found is None:
            raise refusal(Code.BUSY, "the coordinator is about to end", reason="closing", retry_after=1.0)
        return found

    def _ed25519(self, caller: Caller) -> bytes:
        """The key of a client that may take part."""
        if caller.kind != "client":
            code = Code.UNAUTHENTICATED if caller.kind == "anonymous" else Code.FORBIDDEN
            raise refusal(code, "clients alone take part in masked rounds: ask with the client's session")
        identity = self.access.identity(caller.name)
        key = None if identity is None else identity.key.ed25519
        if key is None:
            raise refusal(
                Code.FORBIDDEN,
                f"{caller.name} is enrolled with a key that is not Ed25519, and masked rounds are signed with those "
                "alone; join with a new one, from a new folder and with an invitation made with --replaces",
                reason="key_algorithm",
            )
        return key


async def _whole(message: AsyncIterator[bytes], most: int) -> bytes:
    collected = bytearray()
    async for piece in message:
        collected += piece
        if len(collected) > most:
            raise refusal(Code.TOO_LARGE, f"expected a message of at most {most} bytes, there are more", reason="body")
    if not collected:
        raise refusal(Code.MALFORMED, "expected a message of the phase, got an empty body", reason="malformed")
    return bytes(collected)
