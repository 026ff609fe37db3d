"""Masked rounds at the client: what it certifies before it trusts a sum, and the phases of a secure aggregation.

Nothing that the coordinator says is taken on trust here but who sends it: constants are certified again and pinned, the
survivors of a sum are counted by `matl.privacy.secagg.Client`, what was sent is counted and charged on the disk, and
who has agreed to masked rounds is not talked into others.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from matl.attest.keys import PublicKey
from matl.client.connection import Connection
from matl.client.folder import ClientFolder
from matl.client.participation import LONGEST_WAIT, PAUSE
from matl.client.rounds import Round
from matl.client.spending import Spending
from matl.errors import AggregationAborted, InvalidValueError, MatlError, ProtocolError, ServiceError
from matl.params import Float32
from matl.privacy.manifest import Manifest
from matl.privacy.secagg import Client, Phase, Session
from matl.protocol.messages import Acknowledgement
from matl.protocol.problems import Code, refusal

__all__ = ["MaskedRounds", "read_participants"]

_LARGEST_TABLE = 64 << 20  # bytes
_SLACK = 5.0  # seconds: an answer that comes later than so long after its wait had to be asked for again
_OUTAGES = 2  # how many of them a phase may have
_LOG = logging.getLogger("matl.client")


class MaskedRounds:
    """What one client does in masked rounds.

    Parameters
    ----------
    connection : Connection
        To the coordinator.
    folder : ClientFolder
        Who the client is, and what it remembers.
    participants : mapping of str to bytes, or None
        By id the Ed25519 key (32 bytes) of everybody who may be in a sum; the coordinator's table unless given.
    manifest_sha256, max_epsilon
        See `matl.client.AsyncMATLClient`.
    chosen : bool
        Whether the user chose the run, or how updates of runs that are not masked are protected.
    """

    def __init__(
        self,
        connection: Connection,
        folder: ClientFolder,
        *,
        participants: Mapping[str, bytes] | None,
        manifest_sha256: str | None,
        max_epsilon: float | None,
        chosen: bool,
    ) -> None:
        self._connection, self._folder, self._agreed = connection, folder, manifest_sha256
        self._pinned, self._chosen = participants, chosen
        given = {"manifest_sha256": manifest_sha256, "participants": participants, "max_epsilon": max_epsilon}
        self._insists = [name for name, value in given.items() if value is not None]
        self._spending = Spending(folder, max_epsilon)
        self._manifests: dict[str, Manifest] = {}  # by run
        self._warned = False

    def close(self) -> None:
        """Let go of the files."""
        self._spending.close()

    def refuse_clear(self, run: str, round: int) -> None:  # noqa: A002 - the protocol's word
        """Refuse to send an update that is not masked, in whatever way a round asks for it, where masks were agreed to.

        Raises
        ------
        ProtocolError
            ``"clear"``: this client was told to take part in masked rounds, or agreed to a manifest of the run before.
        """
        agreed = self._folder.manifests
        if self._insists:
            why = f"was told {' and '.join(self._insists)}, which mean masked rounds"
            what = "leave that out" + (", and begin with a new client folder" if run in agreed else "")
        elif run in agreed:
            why = f"agreed to the privacy manifest {agreed[run]} of that run"
            what = "begin with a new client folder"
        elif agreed and not self._chosen:
            why = f"agreed to masked rounds of {', '.join(map(repr, sorted(agreed)[:4]))} and did not choose this run"
            what = f"say so: MATLClient(..., run={run!r})"
        else:
            return
        raise ProtocolError(
            "clear",
            f"round {round} of {run!r} takes updates that are not masked, and this client {why}; nothing was sent. Ask "
            f"the coordinator's operator what became of the masks. To send updates of {run!r} without them, {what}.",
        )

    async def agree(self, target: Round) -> Manifest:
        """The constants of a run, certified and pinned; before anything is trained.

        Raises
        ------
        InvalidValueError
            They prove nothing, are not those that were agreed to, or this client's key is none that masks.
        ProtocolError
            ``"manifest"``: they are other ones than before.
        StateError
            The transmissions that they allow are used up, or what this client may spend, or it cannot be known.
        """
        self._identity()
        run = target.run
        if run not in self._manifests:
            document = await self._connection.ask(lambda transport: transport.manifest(run))
            manifest = await asyncio.to_thread(Manifest.read, document, sha256=self._agreed)
            new = run not in self._folder.manifests
            if new:
                await asyncio.to_thread(self._spending.require, manifest, new=True)
            self._folder.pin_manifest(run, manifest.sha256)
            if new and self._agreed is None:
                _tell(run, manifest)
            self._manifests[run] = manifest
        manifest = self._manifests[run]
        await asyncio.to_thread(self._spending.require, manifest, new=False)
        return manifest

    async def take_part(self, target: Round, update: Float32) -> Acknowledgement:
        """Go through the phases of a round with an update (d,); the acknowledgement of its masked words.

        Raises
        ------
        ServiceError
            Nobody can be reached, or the round went on without this client (``"late"``).
        ProtocolError
            The coordinator, or somebody in its name, broke the protocol: nothing more is said in the round.
        StateError, StorageError
            What is sent cannot be counted, and so was not sent.
        """
        manifest = await self.agree(target)
        session = manifest.session(target.run, target.number, size=update.size)
        identities = dict(await self._identities(target.run))
        last = self._folder.last_round(target.run)
        if target.number <= last:
            words = f"this client began round {target.number} of {target.run} before and cannot go on in it"
            raise refusal(Code.CONFLICT, words, reason="late")
        client = Client(session, self._folder.client_id, self._identity(), identities, last_round=last)
        self._folder.take_part(target.run, target.number)
        try:
            await self._say(target, Phase.ADVERTISE, client.advertise())
            request = await self._asked(target, Phase.SHARE, session)
            identities.update(await self._identities(target.run))  # some may have enrolled since
            await self._say(target, Phase.SHARE, await asyncio.to_thread(client.share, request))
            request = await self._asked(target, Phase.MASK, session)
            message = await asyncio.to_thread(self._masked, client, manifest, target, request, update)
            acknowledgement = await self._say(target, Phase.MASK, message)
            await self._finish(target, client, session)
        except AggregationAborted as error:
            raise refusal(Code.CONFLICT, f"round {target.number} of {target.run}: {error}", reason="late") from error
        for fault in client.faults:
            _LOG.warning("round %d of %s: %s: %s", target.number, target.run, fault.client_id, fault.reason)
        return acknowledgement

    async def _finish(self, target: Round, client: Client, session: Session) -> None:
        """Say who is in the sum, and help to unmask it. The vector has arrived: others can do without this client."""
        try:
            for phase, answer in ((Phase.CONSISTENCY, client.confirm), (Phase.UNMASK, client.unmask)):
                request = await self._asked(target, phase, session)
                await self._say(target, phase, await asyncio.to_thread(answer, request))
        except ServiceError as error:
            _LOG.warning("round %d of %s: %s", target.number, target.run, error)

    def _masked(self, client: Client, manifest: Manifest, target: Round, request: bytes, update: Float32) -> bytes:
        """The masked words of an update, counted and charged. Their noise is drawn from the operating system."""
        words = manifest.encoder(update.size).encode(update, target.spec.public_seed)
        message = client.mask(request, words)
        self._spending.charge(target.number, manifest, message)
        return message

    async def _say(self, target: Round, phase: Phase, message: bytes) -> Acknowledgement:
        run, number = target.run, target.number
        return await self._connection.ask(lambda transport: transport.say(run, number, phase.value, message))

    async def _asked(self, target: Round, phase: Phase, session: Session) -> bytes:
        """What is asked in a phase, once it begins: when the one before is over, which has a deadline."""
        run, number, most = target.run, target.number, session.max_message
        # A coordinator that was started again, or whose run was paused, begins the phase before anew.
        longest = 2 * (target.spec.deadline or 0.0) + LONGEST_WAIT
        ends, outages = time.monotonic() + longest, 0
        while True:
            asked = time.monotonic()
            try:
                return await self._connection.ask(
                    lambda transport: transport.asked(run, number, phase.value, wait=LONGEST_WAIT, limit=most)
                )
            except ServiceError as error:
                if error.reason != "not_yet":
                    raise
            paused = (await self._connection.ask(lambda transport: transport.run(run))).status == "paused"
            # While nobody was there no deadline passed, and whoever is there again begins the phase before anew.
            outage = outages < _OUTAGES and time.monotonic() - asked > LONGEST_WAIT + _SLACK
            if paused or outage:
                outages += outage and not paused
                ends = time.monotonic() + longest
            if time.monotonic() >= ends:
                words = f"the phase {phase.value} of round {number} of {run} did not begin within {longest:g} s"
                raise refusal(Code.CONFLICT, f"{words}: the coordinator lets its deadlines pass", reason="late")
            if time.monotonic() - asked < PAUSE:
                await asyncio.sleep(PAUSE)

    async def _identities(self, run: str) -> Mapping[str, bytes]:
        """Who may be in a sum, with their Ed25519 keys."""
        if self._pinned is not None:
            return self._pinned
        if not self._warned:
            _LOG.warning(
                "run %s: who takes part is taken from the coordinator, which could invent clients and subtract them "
                "from a sum; pin the table of those you know: MATLClient(..., participants='participants.json')",
                run,
            )
            self._warned = True
        view = await self._connection.ask(lambda transport: transport.participants(run))
        return _table(view.clients, "the coordinator's table of participants")

    def _identity(self) -> Ed25519PrivateKey:
        key = self._folder.key.ed25519
        if key is None:
            raise InvalidValueError(
                f"masked rounds need a client with an Ed25519 key, got {self._folder.key.public.algorithm.value}; join "
                "with another folder, whose key is made anew"
            )
        return key


def read_participants(path: Path) -> dict[str, bytes]:
    """The table of a file: by id the Ed25519 key (32 bytes) of each client.

    Raises
    ------
    InvalidValueError, ProtocolError
        It cannot be read, or holds something else.
    """
    try:
        if path.stat().st_size > _LARGEST_TABLE:
            raise ValueError(f"it has more than {_LARGEST_TABLE} bytes")
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InvalidValueError(
            f'participants: {path} cannot be read: {error}; expected JSON such as {{"alice": "<DER in base64>"}}'
        ) from error
    return _table(content, str(path))


def _tell(run: str, manifest: Manifest) -> None:
    """Say what was agreed to, where it was the coordinator that chose it."""
    instance, figures = manifest.instance, manifest.certificate
    _LOG.warning(
        "run %s: this client now agrees to the privacy manifest that the coordinator gave, sha256 %s: epsilon %.4g "
        "(%.4g for replace-one) at delta %.3g, over %d rounds. It is pinned now. Make sure of the hash with the "
        "operator, and say what you agree to: MATLClient(..., manifest_sha256='%s', max_epsilon=...)",
        run,
        manifest.sha256,
        float(str(figures.zero_out)),
        float(str(figures.replace_one)),
        float(instance.delta),
        instance.transmissions,
        manifest.sha256,
    )


def _table(clients: Mapping[str, object], source: str) -> dict[str, bytes]:
    """The 32 bytes of each client's key."""
    table = {}
    for client, text in clients.items():
        try:
            key = PublicKey(base64.b64decode(str(text), validate=True)).ed25519
        except (MatlError, binascii.Error, ValueError) as error:
            raise ProtocolError("key", f"{source}: the key of {client!r:.140} cannot be read: {error}") from error
        if key is None:
            raise ProtocolError("key", f"{source}: expected Ed25519 keys, got another one of {client!r:.140}")
        table[client] = key
    return table
