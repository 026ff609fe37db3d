"""What operators do about clients and tokens. Each action is written into the audit log before it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import timedelta

from matl.attest.audit_log import AuditEntry
from matl.attest.canonical import unix_ms
from matl.attest.enrolment import Identity, Invitation, Roster
from matl.attest.tokens import OperatorToken, Scope, Tokens
from matl.coordinator.access import Caller, needs
from matl.coordinator.measures import measured
from matl.coordinator.owning import Owning
from matl.coordinator.rounds.overrides import Hold, Overrides
from matl.coordinator.steering import Steering
from matl.coordinator.views import audit_view, client_view, invitation_view, token_view
from matl.errors import InvalidValueError, StorageError, UnknownNameError
from matl.protocol.messages import (
    AuditPage,
    ClientView,
    InvitationView,
    Invited,
    InviteRequest,
    OperatorTokenView,
    TokenRequest,
    TokenView,
)
from matl.protocol.problems import Code, refusal

__all__ = ["Admin"]

logger = logging.getLogger(__name__)

_PAGE = 500  # lines of the audit log
_BACK = {"pause": "resume", "resume": "pause"}
_FOR_GOOD = {
    "revoke": "the key may have been used by somebody else; invite the client with an invitation that replaces it",
    "stop": "a run that was stopped has ended; start another",
    "rotate_token": "the secret of the old token is gone; issue another",
    "revoke_token": "the secret of the token is gone; issue another",
}


class Admin(Steering, Owning):
    """Inviting, quarantine and release need the scope operator.

    Revocation, undoing, tokens, and invitations that replace a client's key need the scope admin.
    """

    @measured
    async def invite(self, caller: Caller, request: InviteRequest) -> Invited:
        """Make an invitation; its token is told this once.

        With one that replaces a key, whoever has it becomes a client that there is, with its reputation.
        """
        needs(caller, Scope.ADMIN if request.replaces else Scope.OPERATOR)
        now, lifetime = self.settings.clock(), timedelta(hours=request.lifetime_hours)

        def step(roster: Roster) -> tuple[Roster, tuple[Invitation, str]]:
            try:
                before = roster.tidy(now=now)
                after, token = before.invite(
                    now=now,
                    lifetime=lifetime,
                    uses=request.uses,
                    client_id=request.client_id,
                    replaces=request.replaces,
                )
            except InvalidValueError as error:
                raise refusal(Code.INVALID, str(error)) from error
            (made,) = after.invitations.keys() - before.invitations.keys()
            return after, (after.invitations[made], token)

        async def write_down(made: tuple[Invitation, str]) -> None:
            subject = request.client_id or "anybody"
            await self._audit(caller.name, "invite", subject, invitation_view(made[0]).model_dump(mode="json"))

        invitation, token = await self.access.roster.change(step, before=write_down)
        return Invited(token=token, expires_at=invitation_view(invitation).expires_at)

    @measured
    async def invitations(self, caller: Caller) -> list[InvitationView]:
        """The invitations that are still good."""
        needs(caller, Scope.VIEWER)
        roster = self.access.roster.value.tidy(now=self.settings.clock())
        return [invitation_view(one) for one in sorted(roster.invitations.values(), key=lambda one: one.expires_at)]

    @measured
    async def clients(self, caller: Caller) -> list[ClientView]:
        """Everybody who is or was enrolled."""
        needs(caller, Scope.VIEWER)
        return [self._view(one) for _, one in sorted(self.access.roster.value.identities.items())]

    @measured
    async def revoke(self, caller: Caller, client: str, reason: str = "") -> ClientView:
        """Take the right to send from a client, at once and for good; a second time changes nothing."""
        needs(caller, Scope.ADMIN)
        self._enrolled(client)

        async def write_down(changed: bool) -> None:
            if changed:
                await self._audit(caller.name, "revoke", client, {"reason": reason})

        def step(roster: Roster) -> tuple[Roster, bool]:
            after = roster.revoke(client, now=self.settings.clock())
            return after, after is not roster

        if await self.access.roster.change(step, before=write_down):
            await self._tell("client_revoked", client=client)
        return self._view(self._enrolled(client))

    @measured
    async def quarantine(self, caller: Caller, run: str | None, client: str, reason: str = "") -> ClientView:
        """Refuse the updates of a client until it is released, in a run or in all of them."""
        needs(caller, Scope.OPERATOR)
        self._enrolled(client)
        if run is not None:
            self.live(run)
        now = unix_ms(self.settings.clock())
        hold = Hold(client=client, run=run, reason=reason, actor=caller.name, at=now)
        await self._hold(caller.name, hold, "quarantine", {"run": run, "reason": reason})
        return self._view(self._enrolled(client))

    @measured
    async def release(self, caller: Caller, run: str | None, client: str, reason: str = "") -> ClientView:
        """Lift an operator's quarantine. That of a judge is lifted by the judge alone, by what the client does.

        Raises
        ------
        ServiceError
            ``"conflict"``: no operator put the client into quarantine in this run, or in all of them.
        """
        needs(caller, Scope.OPERATOR)
        self._enrolled(client)
        await self._let_go(caller.name, client, run, "release", {"run": run, "reason": reason})
        return self._view(self._enrolled(client))

    @measured
    async def undo(self, caller: Caller, index: int) -> AuditPage:
        """Take back an action: a quarantine, a release, a pause, a resumption, or an invitation that is still good.

        Returns
        -------
        AuditPage
            With the line that says so.

        Raises
        ------
        ServiceError
            ``"not_found"``: there is no such line. ``"conflict"``: it was undone before, or what it did is not so any
            more; or it cannot be undone, as a revocation.
        """
        needs(caller, Scope.ADMIN)
        async with self._undoing:
            entries, _ = await self._written.read()
            entry = next((one for one in entries if one.index == index), None)
            if entry is None:
                raise refusal(Code.NOT_FOUND, f"the audit log has no action {index}", reason="index")
            if any(one.action == "undo" and one.details.get("of") == index for one in entries):
                raise refusal(Code.CONFLICT, f"action {index} was undone before", reason="undone")
            if entry.action in _BACK and any(
                one.index > index and (one.action, one.subject) == (entry.action, entry.subject) for one in entries
            ):
                raise refusal(Code.CONFLICT, f"a later {entry.action} stands; undo that one", reason="superseded")
            await self._take_back(caller.name, entry)
            entries, head = await self._written.read()
        done = [one for one in entries if one.action == "undo" and one.details.get("of") == index]
        return AuditPage(entries=[audit_view(one) for one in done], records=head.records, chain=head.chain)

    @measured
    async def audit(self, caller: Caller, *, after: int = 0, limit: int = 100) -> AuditPage:
        """Actions in order, at most ``limit`` (1 to 500) of those behind line ``after``; see `AuditReader.page`."""
        needs(caller, Scope.VIEWER)
        page, head = await self._written.page(after, min(max(limit, 1), _PAGE))
        return AuditPage(entries=[audit_view(one) for one in page], records=head.records, chain=head.chain)

    @measured
    async def issue_token(self, caller: Caller, request: TokenRequest) -> OperatorTokenView:
        """Make an operator's token; its secret is told this once."""
        needs(caller, Scope.ADMIN)
        scope, lifetime = Scope[request.scope.upper()], timedelta(days=request.lifetime_days)

        def step(tokens: Tokens) -> tuple[Tokens, str]:
            return tokens.issue(request.name, scope, now=self.settings.clock(), lifetime=lifetime)

        details = {"scope": request.scope, "lifetime_days": request.lifetime_days}
        return await self._new_token(caller.name, "issue_token", request.name, step, details)

    @measured
    async def tokens(self, caller: Caller) -> list[TokenView]:
        """The operators' tokens, without their secrets."""
        needs(caller, Scope.ADMIN)
        known = self.access.tokens.value.tokens.values()
        return [token_view(one) for one in sorted(known, key=lambda one: (one.created_at, one.id))]

    @measured
    async def rotate_token(self, caller: Caller, id: str) -> OperatorTokenView:  # noqa: A002 - the contract's word
        """Make a token in another one's place, which ends at once; in the folder's file too, where that one stands."""
        needs(caller, Scope.ADMIN)
        of_owner = self._token(id) == await asyncio.to_thread(self.owners_token)
        made = await self._new_token(
            caller.name, "rotate_token", id, lambda tokens: tokens.rotate(id, now=self.settings.clock()), {}
        )
        if of_owner:
            try:
                await asyncio.to_thread(self.keep_for_owner, made.secret)
            except StorageError as error:
                logger.error("the new token is not in the folder; the next start makes another: %s", error)
        return made

    @measured
    async def revoke_token(self, caller: Caller, id: str) -> None:  # noqa: A002
        """End a token at once.

        Raises
        ------
        ServiceError
            ``"not_found"``; ``"conflict"``: it is the last of scope admin, and nobody could make another.
        """
        needs(caller, Scope.ADMIN)
        name = self._token(id).name

        def step(tokens: Tokens) -> tuple[Tokens, None]:
            after, now = tokens.revoke(id), unix_ms(self.settings.clock())
            if not any(one.scope is Scope.ADMIN and one.expires_at > now for one in after.tokens.values()):
                words = f"{id} is the last token of scope admin; issue another one first"
                raise refusal(Code.CONFLICT, words, reason="last_admin")
            return after, None

        async def write_down(_: None) -> None:
            await self._audit(caller.name, "revoke_token", id, {"name": name})

        await self.access.tokens.change(step, before=write_down)

    async def _hold(self, actor: str, hold: Hold, action: str, details: dict[str, object]) -> None:
        async def write_down(_: None) -> None:
            await self._audit(actor, action, hold.client, details)

        await self.access.overrides.change(lambda now: (now.hold(hold), None), before=write_down)
        told = {"client": hold.client, "reason": hold.reason, "by_operator": True}
        await self._tell("client_quarantined", run=hold.run or "", **told)

    async def _let_go(
        self,
        actor: str,
        client: str,
        run: str | None,
        action: str,
        details: dict[str, object],
        *,
        until: int | None = None,
    ) -> None:
        """Lift a hold; only one that was there at a time, if that is given."""

        def step(now: Overrides) -> tuple[Overrides, Hold]:
            held = now.exactly(client, run)
            if held is None:
                where = "in all runs" if run is None else f"in run {run!r} alone"
                words = f"no operator put {client} into quarantine {where}; what a judge decided, the judge lifts"
                raise refusal(Code.CONFLICT, words, reason="not_held")
            if until is not None and held.at > until:
                raise refusal(Code.CONFLICT, f"{client} was put into quarantine again since", reason="superseded")
            return now.release(client, run), held

        async def write_down(held: Hold) -> None:
            await self._audit(actor, action, client, {**details, "held": asdict(held)})

        await self.access.overrides.change(step, before=write_down)
        await self._tell("client_released", run=run or "", client=client, by_operator=True)

    async def _take_back(self, actor: str, entry: AuditEntry) -> None:
        """Undo an action, and write that down before."""
        details: dict[str, object] = {"of": entry.index, "action": entry.action}
        if entry.action == "quarantine":
            await self._let_go(actor, entry.subject, entry.details["run"], "undo", details, until=entry.time)
        elif entry.action == "release":
            held = Hold(**entry.details["held"])
            if self.access.overrides.value.exactly(held.client, held.run) is not None:
                raise refusal(Code.CONFLICT, f"{held.client} is in quarantine again", reason="superseded")
            await self._hold(actor, held, "undo", details)
        elif entry.action in _BACK:
            await self._turn(actor, _BACK[entry.action], entry.subject, details, written_as="undo")
        elif entry.action == "invite":
            await self._withdraw(actor, entry, details)
        else:
            why = _FOR_GOOD.get(entry.action, "it is nothing that can be taken back")
            raise refusal(Code.CONFLICT, f"{entry.action} cannot be undone: {why}", reason="for_good")

    async def _withdraw(self, actor: str, entry: AuditEntry, details: dict[str, object]) -> None:
        named = str(entry.details["id"])

        def step(roster: Roster) -> tuple[Roster, None]:
            good = roster.tidy(now=self.settings.clock())
            kept = {key: one for key, one in good.invitations.items() if not key.startswith(named)}
            if len(kept) == len(good.invitations):
                words = "the invitation was used up or has ended; who enrolled with it can be revoked"
                raise refusal(Code.CONFLICT, words, reason="superseded")
            return replace(good, invitations=kept), None

        async def write_down(_: None) -> None:
            await self._audit(actor, "undo", entry.subject, details)

        await self.access.roster.change(step, before=write_down)

    async def _new_token(
        self,
        actor: str,
        action: str,
        subject: str,
        make: Callable[[Tokens], tuple[Tokens, str]],
        details: Mapping[str, object],
    ) -> OperatorTokenView:
        def step(before: Tokens) -> tuple[Tokens, tuple[OperatorToken, str]]:
            try:
                after, secret = make(before)
            except InvalidValueError as error:
                raise refusal(Code.INVALID, str(error), reason="token") from error
            (made,) = after.tokens.keys() - before.tokens.keys()
            return after, (after.tokens[made], secret)

        async def write_down(_: tuple[OperatorToken, str]) -> None:
            await self._audit(actor, action, subject, details)

        token, secret = await self.access.tokens.change(step, before=write_down)
        return OperatorTokenView(**token_view(token).model_dump(), secret=secret)

    def _enrolled(self, client: str) -> Identity:
        identity = self.access.identity(client)
        if identity is None:
            error = UnknownNameError("client", client, list(self.access.roster.value.identities)[:5])
            raise refusal(Code.NOT_FOUND, str(error), reason="client")
        return identity

    def _view(self, identity: Identity) -> ClientView:
        return client_view(identity, held=self.access.overrides.value.of(identity.client_id) is not None)

    def _token(self, id: str) -> OperatorToken:  # noqa: A002
        found = next((one for one in self.access.tokens.value.tokens.values() if one.id == id), None)
        if found is None:
            raise refusal(Code.NOT_FOUND, f"there is no token {id!r}", reason="token")
        return found
