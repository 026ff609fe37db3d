"""What is thought of clients: standings, the verdicts on them, reputations; and judging that does not count."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from matl.attest.tokens import Scope
from matl.coordinator.access import Caller, needs
from matl.coordinator.core import Core
from matl.coordinator.measures import measured
from matl.coordinator.views import update_view
from matl.errors import ProtocolError
from matl.protocol.envelope import split
from matl.protocol.messages import ReputationView, StandingView, TrustHistory, ValidateAnswer
from matl.protocol.problems import Code, refusal
from matl.records import Status
from matl.workloads import Earned

__all__ = ["Trusting"]

_HISTORY = 100  # verdicts of a client that are told
_CLIENTS = 1 << 20  # of a round, more than there are


class Trusting(Core):
    """Clients see of themselves alone."""

    @measured
    async def trust(self, caller: Caller, run: str) -> list[StandingView]:
        """What was last decided about each client; of an operator's quarantine, that it is one."""
        self._known(caller)
        live, told = self.live(run), []
        for client, standing in sorted(live.standings.items()):
            if caller.kind == "client" and caller.name != client:
                continue
            hold = self.access.overrides.value.of(client, run)
            if hold is not None:  # whatever a judge thought of it before
                standing = replace(standing, status=Status.QUARANTINED, weight=0.0, reason=hold.reason)
            told.append(StandingView(client_id=client, **asdict(standing), by_operator=hold is not None))
        return told

    @measured
    async def trust_history(self, caller: Caller, run: str, client: str) -> TrustHistory:
        """The verdicts on a client, the latest 100, latest first."""
        self._client(caller, client)
        self.live(run)
        told = []
        for verdict in await self.store.verdicts(run, client=client, limit=_HISTORY):
            update = await self.store.update(run, verdict.round, client)
            opened = await self.store.round(run, verdict.round)
            if update is not None and opened is not None:
                told.append(update_view(update, verdict, opened.opened_at))
        return TrustHistory(client_id=client, verdicts=told)

    @measured
    async def reputation(self, caller: Caller, run: str) -> list[ReputationView]:
        """What clients have earned by the verdicts on them; nothing if the run's judge gives none."""
        self._known(caller)
        live = self.live(run)
        if not live.plan.workload.mode.gives_verdicts:
            return []
        async with self._reckoning[run]:
            number, earned = self._earned.get(run, (0, Earned()))
            while number < live.row.round:
                verdicts = await self.store.verdicts(run, round=number, limit=_CLIENTS)
                earned, number = earned.after([(one.client, one.status) for one in verdicts]), number + 1
                self._earned[run] = (number, earned)
        return [
            ReputationView(client_id=client, reputation=score, rounds=earned.rounds[client])
            for client, score in sorted(earned.scores.items())
            if caller.kind != "client" or caller.name == client
        ]

    @measured
    async def validate(self, caller: Caller, run: str, messages: list[bytes]) -> ValidateAnswer:
        """Judge updates for the current round as the run's judge would now. Nothing is changed by it.

        Parameters
        ----------
        caller, run
            Who asks, an operator; and whose judge is to judge.
        messages : list of bytes
            See `matl.protocol.envelope.frame`. They are signed by their clients, and not used up.

        Returns
        -------
        ValidateAnswer
            Receipts, as `matl.attest.receipts.sign_receipt` writes them, by the order of client ids.

        Raises
        ------
        ServiceError
            ``"unauthenticated"`` or ``"forbidden"``; ``"too_large"``; ``"malformed"``; ``"invalid"``, also where the
            signature of an update is not good, so that no receipt names a client that did not send it.
        """
        needs(caller, Scope.OPERATOR)
        live = self.live(run)
        if len(messages) > (most := self.settings.limits.validated):
            raise refusal(Code.TOO_LARGE, f"expected at most {most} updates, got {len(messages)}", reason="messages")
        read = []
        for message in messages:
            try:
                head, payload = split(message)
                update = head.update()
            except ProtocolError as error:
                code = Code.TOO_LARGE if error.code == "size" else Code.MALFORMED
                raise refusal(code, str(error), reason=error.code) from error
            forged = self.host.verifier.check(update, live.spec, admit=False)
            if forged is not None:
                words = f"nothing was judged; the update of {head.client_id}: {forged.reason}"
                raise refusal(Code.INVALID, words, reason=forged.code)
            read.append((head, payload))
        receipts = await live.validate(read)
        return ValidateAnswer(receipts=[json.loads(receipts[client]) for client in sorted(receipts)])
