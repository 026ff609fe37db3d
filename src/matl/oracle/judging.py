"""The judge inside: opens what was sealed, screens it, judges it, and signs what came of it.

What it will not do, whoever asks with the right token, because answers would show single updates by their differences:

- judge another request for a round that it judged or failed to judge, or for an earlier one;
- say what went wrong once it has opened a box, since the state that made it go wrong is the coordinator's to choose;
- take a box into a second round;
- judge a round in which fewer clients count than its policy says.

These are kept in memory, and need no disk: after a start the key is another one, and no older box opens any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from matl.attest.canonical import unix_ms
from matl.attest.claims import Clock, system_clock
from matl.attest.receipts import Receipt, sign_receipt
from matl.attest.tpm_tools import TpmError
from matl.coordinator.rounds.judge import JudgeAnswer
from matl.coordinator.rounds.judging import figures_of, verdicts_of
from matl.errors import InvalidValueError, MatlError, ProtocolError
from matl.oracle.attesting import Attester
from matl.oracle.keys import OracleKeys
from matl.oracle.wire import Brief, Signed, pack_answer
from matl.params import values_hash
from matl.protocol.oracle import JudgementText, PolicyText
from matl.protocol.problems import Code, refusal
from matl.records import Rejection, RoundSpec, Status, Update
from matl.screening import screen_envelope
from matl.state import pack
from matl.workloads import Sealed, TrainingWorkload

__all__ = ["Bench", "Case"]

MOST_RUNS = 64
"""Runs that one oracle judges between two starts."""

_LARGEST_SCORE = 1e6  # that a receipt can spell
_UNSAID = (
    "the round cannot be judged from this state, and why is not said, as it may show what was sealed; no other request "
    "for it will be judged: give the coordinator and the oracle the same configuration and version, and restart the "
    "oracle"
)
_LOST = "sealed for another key, run, round or client, or damaged; an oracle that was restarted has another key"


@dataclass
class _Run:
    """What is remembered of a run."""

    judged: int = -1
    request: str = ""  # digest of the one request for that round
    used: dict[str, int] = field(default_factory=dict)  # hash of a box, and the round that it was in


class Bench:
    """Judges rounds, one at a time.

    Parameters
    ----------
    workload : TrainingWorkload
        The judge, of sealed updates.
    policy : PolicyText
        What it will not do.
    keys : OracleKeys
        Opens and signs.
    attester : Attester
        Proves who signed.
    clock : Clock
        For receipts.
    """

    def __init__(
        self,
        workload: TrainingWorkload,
        policy: PolicyText,
        keys: OracleKeys,
        attester: Attester,
        clock: Clock = system_clock,
    ) -> None:
        if not isinstance(workload.channel, Sealed):
            raise InvalidValueError(
                f"expected a workload of sealed updates, got a channel {type(workload.channel).__name__}"
            )
        self.workload, self.inner = workload, workload.channel.inner
        self.policy, self.keys = policy, keys
        self._attester, self._clock = attester, clock
        self._runs: dict[str, _Run] = {}

    def open(self, brief: bytes) -> Case:
        """Begin a case: check that the round, the state and the heads are what this oracle judges.

        Raises
        ------
        ProtocolError
            The brief cannot be read.
        ServiceError
            It is not for this oracle, or contradicts what was judged already.
        """
        asked = Brief.parse(brief)
        spec = asked.spec
        workload = replace(self.workload, run=spec.run)
        with _foreign_state():
            planned = workload.plan(asked.state)
            model = values_hash(workload.held(asked.state))
        # When a round closes is the host's affair; all else follows from configuration and state.
        if replace(spec, deadline=None, phases=planned.phases) != planned:
            wrong = [
                name for name in planned.__slots__
                if name not in ("deadline", "phases") and getattr(spec, name) != getattr(planned, name)
            ]  # fmt: skip
            raise refusal(
                Code.INVALID, f"the round is not one of this oracle's configuration and this state: {', '.join(wrong)} "
                "differ; give the coordinator and the oracle the same configuration", reason="spec",
            )  # fmt: skip
        if model != spec.model_hash:
            raise refusal(Code.INVALID, "the state does not hold the model that it says the round starts from")
        memory = self._runs.get(spec.run, _Run())
        if spec.round < memory.judged or (spec.round == memory.judged and asked.digest != memory.request):
            raise refusal(
                Code.CONFLICT, f"round {spec.round} of {spec.run} was judged, or a later one ({memory.judged}), and is "
                "not judged again with other updates, seed or state: the difference would show single updates",
                reason="judged",
            )  # fmt: skip
        if spec.run not in self._runs and len(self._runs) >= MOST_RUNS:
            raise refusal(Code.CONFLICT, f"this oracle has judged {MOST_RUNS} runs since it started; restart it")
        used = frozenset(box for box, number in memory.used.items() if number < spec.round)
        return Case(self, asked, workload, used)

    def sign(self, case: Case, answer: JudgeAnswer) -> bytes:
        """Sign an answer."""
        spec, packed = case.asked.spec, pack_answer(answer)
        signer = self.keys.signing
        text = JudgementText(
            run=spec.run,
            round=spec.round,
            request=case.asked.digest,
            state_before=case.asked.state_digest,
            state_after=hashlib.sha256(pack(answer.state)).hexdigest(),
            answer=hashlib.sha256(packed).hexdigest(),
            signer=signer.public.fingerprint,
        )
        return Signed(
            text=text,
            signature=signer.sign(text.to_bytes()),
            format=self._attester.format,
            evidence=self._attester.evidence(text.nonce, signer.public.der),
            answer=packed,
        ).to_bytes()

    def remember(self, case: Case) -> None:
        """No other request for this round is judged from now on, whatever comes of this one.

        The same one may come again, where its answer could not be signed or kept: it says nothing that is new.
        """
        spec = case.asked.spec
        memory = self._runs.setdefault(spec.run, _Run())
        memory.judged, memory.request = spec.round, case.asked.digest
        oldest = spec.round - self.policy.max_staleness
        memory.used = {box: number for box, number in memory.used.items() if number >= oldest}
        memory.used |= dict.fromkeys(case.opened, spec.round)

    def receipts(self, case: Case, answer: JudgeAnswer) -> dict[str, bytes]:
        """A signed receipt for every client whose box opened; in a failed round it is accepted and counts 0.

        Heads are the coordinator's word. Where the box did not open as they have it, it is not known that the client
        is to blame, and the oracle says nothing: a wrong head would make it sign that a good update was rejected.
        """
        nothing = (Status.ACCEPTED, 0.0, None)
        decided = {one.client: (one.status, one.weight, one.score) for one in answer.verdicts}
        decided |= {one.client_id: (Status.REJECTED, 0.0, None) for one in answer.rejections}
        now, signer = unix_ms(self._clock()), self.keys.signing
        signed = {}
        for head in (one for one in case.asked.heads if one.client_id in case.openers):
            status, weight, score = decided.get(head.client_id, nothing)
            receipt = Receipt(
                run=head.run,
                round=case.asked.spec.round,
                client_id=head.client_id,
                model_hash=head.model_hash,
                update_hash=head.payload_sha256 or "",
                status=status,
                score=None if score is None else max(-_LARGEST_SCORE, min(score, _LARGEST_SCORE)),
                weight=weight,
                policy_hash=self.policy.mode,
                hardware_root=self._attester.hardware_root,
                signer=signer.public.fingerprint,
                timestamp_unix_ms=now,
            )
            signed[head.client_id] = sign_receipt(receipt, signer)
        return signed


class Case:
    """A round that is being judged: its boxes arrive one after another, in the order of its heads."""

    def __init__(self, bench: Bench, asked: Brief, workload: TrainingWorkload, used: frozenset[str]) -> None:
        self._bench, self.asked, self._workload, self._used = bench, asked, workload, used
        self._inner = bench.inner
        self._rows: list[_Opened] = []
        self._rejections: list[Rejection] = []
        self.opened: list[str] = []
        """Hashes of the boxes that opened."""
        self.openers: set[str] = set()
        """Clients whose boxes did."""
        self.largest = workload.channel.largest(workload.layout)
        """Bytes of the longest box."""

    def take(self, head: Update, box: bytes) -> None:
        """Open one box and screen what is in it.

        Raises
        ------
        ServiceError
            It is not the box that the brief announces: a receipt would blame its client for what the coordinator sent.
        """
        if hashlib.sha256(box).hexdigest() != head.payload_sha256:
            raise refusal(
                Code.MALFORMED, f"the payload of {head.client_id} is not the one that the brief announces by its hash; "
                "nothing was judged", reason="payload_hash",
            )  # fmt: skip
        with self._wordless():
            found = self._opened(head, box)
        if isinstance(found, Rejection):
            self._rejections.append(found)
        else:
            self._rows.append(found)

    def _opened(self, head: Update, box: bytes) -> _Opened | Rejection:
        state, update = self.asked.state, replace(head, payload=box)
        with _foreign_state():
            hashes = {int(version): value for version, value in state["model_hashes"].items()}
            spec = self._spec(head)
        rejection = screen_envelope(update, spec, model_hashes=hashes, seen=set(), max_bytes=self.largest)
        if rejection is not None:
            return rejection
        if head.payload_sha256 in self._used or head.payload_sha256 in self.opened:
            return Rejection(head.client_id, "duplicate", "the box was in an earlier round, or is another client's")
        try:
            payload = self._bench.keys.open(box, run=head.run, number=head.round, client=head.client_id)
        except ProtocolError as error:
            return Rejection(head.client_id, error.code, f"the box does not open: {_LOST}")
        self.opened.append(head.payload_sha256 or "")
        self.openers.add(head.client_id)
        row = self._inner.unpack(replace(update, payload=payload), spec, self._workload.layout)
        return row if isinstance(row, Rejection) else _Opened(head, row)

    def _spec(self, head: Update) -> RoundSpec:
        """What was asked of who sent this: an older round, where its model is older."""
        known = str(head.round) in self.asked.state["model_hashes"]
        return self._workload.plan(self.asked.state, head.round if known else self.asked.spec.round)

    def judge(self) -> bytes:
        """The signed answer, once every box was taken.

        Raises
        ------
        ServiceError
            The state is not one of this workload.
        TpmError
            The machine cannot prove it at present; the same request may be asked again.
        """
        self._bench.remember(self)
        with self._wordless():
            answer = self._judged()
            rejections = tuple(sorted(self._rejections, key=lambda one: one.client_id))
            answer = replace(answer, rejections=rejections)
            answer = replace(answer, receipts=self._bench.receipts(self, answer))
            return self._bench.sign(self, answer)

    @contextmanager
    def _wordless(self) -> Iterator[None]:
        """Of what was opened nothing shows in an error, and after one no other request for the round is judged.

        A coordinator could send states that break on what is in a box, and learn a little of it each time.
        """
        try:
            yield
        except TpmError:
            raise
        except Exception:
            if not self.opened:
                raise
            self._bench.remember(self)
            # Not even to the log, which is the coordinator's to read where one operator has both.
            raise refusal(Code.INVALID, _UNSAID, reason="state") from None

    def _judged(self) -> JudgeAnswer:
        least, asked = self._bench.policy.least_clients, self.asked
        if len(self._rows) < least:
            lost = sum(one.code == "sealed" for one in self._rejections)
            why = f"; {lost} could not be opened ({_LOST})" if lost else ""
            return self._failed(f"{len(self._rows)} of {len(asked.heads)} updates can be judged, the oracle's policy "
                                f"wants {least} at least{why}")  # fmt: skip
        with _foreign_state(), threadpool_limits(1):
            cohort = self._workload.cohort(self._rows, asked.spec, asked.state, seed=asked.seed, silent=asked.silent)
            outcome, after = self._workload.reduce(cohort, asked.state)
        answer = JudgeAnswer(
            state=after,
            verdicts=verdicts_of(self._workload, cohort, outcome),
            failure=outcome.failure,
            figures=figures_of(outcome),
        )
        counted = sum(one.weight > 0 for one in answer.verdicts)
        if not answer.failure and counted < least:
            return self._failed(f"{counted} of {len(asked.heads)} updates count, the oracle's policy wants {least} at "
                                "least: of fewer, the model would show too much of each")  # fmt: skip
        return answer

    def _failed(self, reason: str) -> JudgeAnswer:
        with _foreign_state():
            outcome, after = self._workload.reduce(None, self.asked.state)
        return JudgeAnswer(state=after, failure=reason, figures=figures_of(outcome))


class _Opened:
    """An update whose box opened. Its row can be read once, so that a round is not in memory twice."""

    __slots__ = ("_row", "update")

    def __init__(self, update: Update, row: NDArray[Any]) -> None:
        self.update, self._row = update, row

    @property
    def row(self) -> NDArray[Any]:
        row = self._row
        del self._row
        return row


@contextmanager
def _foreign_state() -> Iterator[None]:
    """A state comes from the coordinator: what it breaks is a refusal, not a fault of the oracle."""
    try:
        yield
    except (MatlError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise refusal(
            Code.INVALID, f"the state is not one of this configuration ({type(error).__name__}: {error!s:.200}); give "
            "the coordinator and the oracle the same configuration and version", reason="state",
        ) from error  # fmt: skip
