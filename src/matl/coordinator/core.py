"""What all parts of the service stand on: its settings, who asks, how much is taken, and what is written down."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from matl import validate
from matl.attest.audit_log import AuditEntry, AuditLog
from matl.attest.claims import Clock, system_clock
from matl.attest.replay import ReplayCache
from matl.attest.tokens import Scope
from matl.attest.verifying import SignatureVerifier
from matl.coordinator.access import Access, Caller, needs
from matl.coordinator.attestations import Attestation
from matl.coordinator.auditing import AuditReader
from matl.coordinator.incoming import SLOW, in_time
from matl.coordinator.limits import InFlight, Limits, RateLimiter, neighbourhood
from matl.coordinator.measures import Measures
from matl.coordinator.rounds.live import LiveRun
from matl.coordinator.rounds.plan import Host, Planner
from matl.coordinator.storage.rows import EventRow, UploadRow
from matl.errors import ServiceError, StorageError
from matl.protocol.envelope import LARGEST_HEAD, LENGTH
from matl.protocol.problems import Code, refusal
from matl.workloads import Earned

__all__ = ["LONGEST_WAIT", "Core", "ServiceSettings"]

LONGEST_WAIT = 30.0
"""Seconds that a reader may wait for something to happen."""
_SHARES = 4  # of the bytes that may be arriving one client has one: four of them are needed to keep others out

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What a coordinator is made of.

    Parameters
    ----------
    database, blobs : str
        Where things are kept, see `matl.coordinator.storage.store.Store.open` and
        `matl.coordinator.storage.blobs.Blobs`.
    folder : Path
        For keys, the audit log, the first operator's token, and the matrix of a round while it is judged.
    planner : Planner
        Makes the plan of a run from its settings.
    retention : int
        Rounds of a run whose payloads are kept, so that they can be judged again.
    event_days : float
        Days for which events are kept.
    limits : Limits
        What it bears.
    clock : Clock
        Tells the time.
    attestation : mapping of str to Attestation
        By format, how evidence of clients' machines is checked. What is not in it is refused.
    require_evidence : bool
        Whether nobody enrols without evidence of one of these formats.
    """

    database: str
    blobs: str
    folder: Path
    planner: Planner
    retention: int = 10
    event_days: float = 90.0
    limits: Limits = field(default_factory=Limits)
    clock: Clock = system_clock
    attestation: Mapping[str, Attestation[Any]] = field(default_factory=dict)
    require_evidence: bool = False

    def __post_init__(self) -> None:
        validate.whole(0, retention=self.retention)
        validate.positive(event_days=self.event_days)


class Bell:
    """Wakes everybody who waits for it to ring next."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def ring(self) -> None:
        """Wake those who wait."""
        self.next.set()
        self.next = asyncio.Event()


class Core:
    """The parts of a service that its doors do not see.

    Parameters
    ----------
    settings : ServiceSettings
        What it is made of.
    host : Host
        What its runs share.
    access : Access
        Who is known.
    audit_log : AuditLog
        What operators did.
    bell : Bell
        Rings when there are new events.
    """

    def __init__(self, settings: ServiceSettings, host: Host, access: Access, audit_log: AuditLog, bell: Bell) -> None:
        self.settings, self.host, self.access = settings, host, access
        self.store, self.blobs = host.store, host.blobs
        self.measures = Measures()
        self._audit_log, self._bell = audit_log, bell
        self._written = AuditReader(self.audit_file)
        self._lives: dict[str, LiveRun] = {}
        self._broken: dict[str, str] = {}  # runs that cannot go on, and why
        self._uploads: dict[str, UploadRow] = {}
        # Chunks have nonces of their own.
        self._chunks = SignatureVerifier(access.identity, ReplayCache(), settings.clock)
        self._earned: dict[str, tuple[int, Earned]] = {}  # by run: reputations before this round
        self._reckoning: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unneeded: set[str] = set()  # blobs that may be deleted
        self._keeping: asyncio.Task[None] | None = None  # what is done by the clock
        self._starting, self._undoing = asyncio.Lock(), asyncio.Lock()
        self._closing = asyncio.Event()
        limits = settings.limits
        self._addresses = RateLimiter(limits.address, "requests")
        self._senders = RateLimiter(limits.sender, "requests")
        self._refusals = RateLimiter(limits.refused, "refused updates")
        self._arriving = InFlight(limits.submissions, limits.submission_bytes, "updates")
        self._watching = InFlight(limits.watchers, 0, "readers")
        self._sending: Counter[str] = Counter()
        self._sending_bytes: Counter[str] = Counter()
        self._waiters: Counter[str] = Counter()
        self._exporting: set[str] = set()  # operators who are

    @property
    def running(self) -> Mapping[str, LiveRun]:
        """The runs that can go on, by id."""
        return self._lives

    @property
    def draining(self) -> bool:
        """Whether it is about to end."""
        return self._closing.is_set()

    @property
    def audit_file(self) -> Path:
        """Where the audit log lies."""
        return self.settings.folder / "audit.log"

    @property
    def max_message(self) -> int:
        """Bytes of the longest message of an update that is taken, its head included."""
        return LENGTH + LARGEST_HEAD + self.settings.limits.message

    async def authenticate(
        self, authorization: str | None, *, certificate: bytes | None = None, address: str = ""
    ) -> Caller:
        """Who asks; and whether it asks too often. To be called once for every request.

        Whoever shows a token or certificate is recognised by what is remembered, if that holds: another process that
        has taken over the database may have revoked it.

        Parameters
        ----------
        authorization, certificate, address
            See `matl.coordinator.access.Access.authenticate`.

        Raises
        ------
        ServiceError
            ``"unauthenticated"`` or ``"rate"``; ``"busy"``: it is not known who may ask, as another process has taken
            over the database, or that is out of reach.
        """
        where, now = neighbourhood(address), time.monotonic()
        try:
            caller = self.access.authenticate(authorization, certificate=certificate, address=address)
        except ServiceError:
            self._counted(self._addresses, where, now)
            await self.confirm()
            raise
        if caller.kind == "anonymous":
            self._counted(self._addresses, where, now)
        else:
            self._counted(self._senders, f"{caller.kind} {caller.name}", now)
            if caller.kind == "client":
                self.host.heard.note(caller.name)
            await self.confirm()
        return caller

    async def confirm(self) -> None:
        """Return if what this process remembers is what is stored.

        Raises
        ------
        ServiceError
            ``"busy"``: another process has taken over the database, or that is out of reach.
        """
        await self.store.confirm()

    def _counted(self, limiter: RateLimiter, sender: str, now: float) -> None:
        try:
            limiter.take(sender, now=now)
        except ServiceError:
            self.measures.counters["authenticate.rate"] += 1
            raise

    def live(self, run: str) -> LiveRun:
        """A run.

        Raises
        ------
        ServiceError
            ``"not_found"``, or ``"conflict"`` if it cannot go on.
        """
        live = self._lives.get(run)
        if live is not None:
            return live
        if run in self._broken:
            raise refusal(
                Code.CONFLICT, f"run {run!r} cannot go on since the restart: {self._broken[run]}", reason="broken_run"
            )
        known = ", ".join(sorted(self._lives)[:5]) or "none"
        raise refusal(Code.NOT_FOUND, f"there is no run {run!r}; there are: {known}", reason="run")

    def _client(self, caller: Caller, client: str) -> None:
        """Refuse who may not read what is known of a client: clients may read of themselves."""
        if caller.kind == "client":
            if caller.name != client:
                raise refusal(
                    Code.FORBIDDEN, f"{caller.name} is not {client}, and clients see their own", reason="client"
                )
            return
        needs(caller, Scope.VIEWER)

    def _known(self, caller: Caller) -> None:
        """Refuse who is neither client nor viewer."""
        if caller.kind != "client":
            needs(caller, Scope.VIEWER)

    async def _audit(self, actor: str, action: str, subject: str, details: Mapping[str, Any]) -> AuditEntry:
        """Write an action down, before it is done.

        Raises
        ------
        ServiceError
            ``"busy"``: it cannot be written, and so is not done.
        """
        try:
            return await asyncio.to_thread(self._audit_log.append, actor, action, subject, details)
        except StorageError as error:
            raise refusal(
                Code.BUSY,
                f"nothing was done, as it cannot be written down: {error}",
                reason="audit_log",
                retry_after=5.0,
            ) from error

    async def _tell(self, kind: str, *, run: str = "", **data: Any) -> None:
        """Publish an event of nothing that is stored with it."""
        await self.store.publish([EventRow(at=self.host.now(), kind=kind, run=run, round=0, data=data)])
        self._bell.ring()

    @contextmanager
    def _arrival(self, client: str, size: int) -> Iterator[None]:
        """Let so many bytes of a client arrive, of which it sends only so much at the same time, as all together do."""
        limits, count, arriving = self.settings.limits, self._sending[client], self._sending_bytes[client]
        most, share = limits.submissions_of_client, limits.submission_bytes // _SHARES
        if count and (count >= most or arriving + size > share):  # one alone may be as large as it likes
            raise refusal(
                Code.RATE,
                f"{count} updates of {client}, of {arriving} bytes, are arriving, and no more than {most} of {share} "
                "bytes may; send the next when they are there",
                reason="in_flight",
                retry_after=1.0,
            )
        with self._arriving.admit(size):
            self._sending[client] += 1
            self._sending_bytes[client] += size
            try:
                yield
            finally:
                self._sending[client] -= 1
                self._sending_bytes[client] -= size
                if not self._sending[client]:
                    del self._sending[client], self._sending_bytes[client]

    def _in_time(self, arriving: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What arrives, unless that takes so long that it keeps others out."""
        return in_time(arriving, self.settings.limits.upload_seconds)

    @contextmanager
    def _charging(self, client: str) -> Iterator[None]:
        """Refuse a client of whose updates too many had to be refused, and count those that are.

        Only what is known to be its own may be refused in these ways: by its signature, its session, or the secret id
        of its upload.
        """
        self._refusals.check(client, now=time.monotonic())
        try:
            yield
        except ServiceError as error:
            if error.code in (Code.INVALID, Code.FORBIDDEN) or error.reason in SLOW:
                self._refusals.charge(client, now=time.monotonic())
            raise

    @contextmanager
    def _waiting(self, caller: Caller) -> Iterator[None]:
        """Let somebody wait; of all places to do so, one caller has a few."""
        name, most = f"{caller.kind} {caller.name}", self.settings.limits.watchers_of_one
        if self._waiters[name] >= most:
            words = f"{most} requests of {caller.name} wait for something to happen; ask when one of them is answered"
            raise refusal(Code.RATE, words, reason="watchers", retry_after=1.0)
        self._waiters[name] += 1
        try:
            with self._watching.admit():
                yield
        finally:
            self._waiters[name] -= 1
            if not self._waiters[name]:
                del self._waiters[name]

    async def _or_closing(self, waiting: Awaitable[R]) -> R | None:
        """What is waited for, or nothing once the service closes."""
        task, closing = asyncio.ensure_future(waiting), asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for one in (task, closing):
                one.cancel()
            await asyncio.gather(task, closing, return_exceptions=True)
