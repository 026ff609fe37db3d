"""Mode 0: peers judge peers. No trusted data; holds while at most a third of the clients are malicious."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.aggregators import NNM, ROOT_DATA, Aggregator, Context
from matl.errors import InvalidValueError, StateError
from matl.params import Float32, ParamLayout
from matl.records import Cohort, Judgement, Status, Verdict
from matl.registry import describe
from matl.state import State, digest
from matl.trust import peers
from matl.trust.peers import Agreement, Float64, Mask, PeerBook
from matl.trust.sequential import Bank
from matl.trust.sketch import Sketch

__all__ = ["Mode0"]

_VERSION = 2
_WIDTH = 2048  # numbers per history: the error of a cosine is about 0.02
_CHANNELS = ("direction", "consistency", "collusion", "norm")
_SILENT = 0.01  # of the median norm: less says nothing
_SUSPECTED = 0.8  # of the bar: from here a client is suspected, and counts half
_HALF = 0.5
_LONGEST = 100.0  # times the median norm: longer rows are cut to it, or one client could overflow the rule's arithmetic
_CONSTANTS = (
    *("KAPPA", "PULL_BAR", "TURN_BAR", "COPY_BAR", "NORM_BAR", "CLEAR", "BROKEN"),
    *("LEAST_ROUNDS", "MEMORY", "FADE", "FORGOTTEN"),
)


@dataclass(frozen=True)
class _Findings:
    """Evidence about the n clients of a round, in units of the bars, and the figures behind it."""

    evidence: Float64  # (n, 4), by channel
    opinion: Mask  # (n,), whose evidence counts
    found: Agreement
    lowest: float  # cosine that the whole reference reaches
    figures: Float64  # (n, 4): cosine with peers, cosine with own history, cosine with copies, log norm ratio
    bars: dict[str, float]

    @property
    def worst(self) -> Float64:
        """Largest evidence of each client (n,); 0 without an opinion."""
        return np.where(self.opinion, self.evidence.max(axis=1), 0.0)


@dataclass(frozen=True)
class Mode0:
    """Judge every client by its peers and its own history, quarantine who works against them, mix the rest robustly.

    Parameters
    ----------
    aggregator : Aggregator
        Rule for the clients that are kept. It is told to tolerate the declared bound less those already quarantined.
    bank : Bank
        How evidence adds up to a quarantine and how it ends.
    bound : float
        Largest fraction of malicious clients this judge claims to withstand.

    Notes
    -----
    Evidence is that of `matl.trust.peers`. There is no opinion about a client in its first two rounds, nor with fewer
    than four clients; the rule alone protects the model then. Without trusted data nothing can tell a majority of
    attackers from a majority of honest clients, nor an attacker from an honest client with rare data: unless it pulls
    back, contradicts itself, copies others or shouts, a client is accepted or suspected, not accused.

    Every kept client counts alike: example counts are what clients claim, and nothing here could check them. Cost per
    round O(nd) for sketches and O(n^2 k) for comparing them, beside the rule's own; k = 2048.

    Examples
    --------
    >>> from matl import Cohort, ParamLayout
    >>> rng = np.random.default_rng(0)
    >>> mode, common = Mode0(), rng.normal(size=50)
    >>> state = mode.init(ParamLayout.of([np.zeros(50, np.float32)]))
    >>> for number in range(4):
    ...     X = common + rng.normal(size=(9, 50))
    ...     X[0] *= -1
    ...     judgement, state = mode.judge(Cohort.of(X, max_byzantine=3, round=number), state)
    >>> [verdict.unit for verdict in judgement.verdicts if verdict.status == "quarantined"]
    ['client-000']
    >>> judgement.verdicts[0].reason
    'points against its peers: cosine -0... over 4 rounds, 6 of 9 stay above 0...'
    """

    aggregator: Aggregator = field(default_factory=NNM)
    bank: Bank = field(default_factory=Bank)
    bound: float = 1.0 / 3.0
    gives_verdicts: bool = field(default=True, init=False)
    channels: tuple[str, ...] = field(default=_CHANNELS, init=False)

    def __post_init__(self) -> None:
        validate.fraction(bound=self.bound)
        if ROOT_DATA & self.aggregator.needs:
            raise InvalidValueError(
                f"Mode0 has no root data, {type(self.aggregator).__name__} needs some; choose another rule or Mode1"
            )

    @property
    def digest(self) -> str:
        """See `matl.records.Mode`."""
        constants = [getattr(peers, name) for name in _CONSTANTS]
        described = [describe(self.aggregator), describe(self.bank), self.bound]
        return digest(["mode0", _VERSION, _WIDTH, _SILENT, _SUSPECTED, _HALF, _LONGEST, *constants, *described])

    def init(self, layout: ParamLayout) -> State:
        """See `matl.records.Mode`. The first cohort's seed draws the sketch, so that nobody knew it when it sent."""
        width = min(_WIDTH, layout.size)
        book = PeerBook.empty(width).as_state()
        return {
            "version": _VERSION,
            "size": layout.size,
            "rounds": 0,
            "sketch_seed": None,
            "centre": np.zeros(width, np.float32),
            "book": book,
            "aggregator": self.aggregator.init(layout),
        }

    def judge(self, cohort: Cohort, state: State) -> tuple[Judgement, State]:
        """See `matl.records.Mode`.

        Raises
        ------
        StateError
            The state was written by another judge or for a model of another size.
        """
        self._check(cohort, state)
        # Clients are taken in the order of their names, so that the order of arrival cannot change a bit.
        ids = cohort.ids
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.intp)
        seed = cohort.seed if state["sketch_seed"] is None else state["sketch_seed"]
        sketches, lengths = _measure(cohort, Sketch(state["size"], seed, len(state["centre"])), order)
        book = PeerBook.of_state(state["book"]).opened(ids)
        rows = book.rows([ids[i] for i in order])
        book = book.with_round(rows, sketches, lengths, state["centre"], state["rounds"])

        tolerated = min(cohort.max_byzantine, (len(ids) - 1) // 2)
        findings = _examine(book, rows, tolerated)
        # Who says next to nothing, or whom nobody can judge, shows no conduct, be it good or bad.
        heard = lengths > _SILENT * (np.median(lengths[lengths > 0]) if lengths.any() else 1.0)
        book = self._sentence(book, rows, findings, findings.opinion & heard)
        quarantined = book.suspicion[rows] > 0
        weights = np.where(quarantined, 0.0, np.where(findings.worst > _SUSPECTED, _HALF, 1.0)) * _shortening(lengths)
        aggregate, after, remarks = self._combine(cohort, order, weights, tolerated, state)

        verdicts = [self._verdict(book, row, weights[i], i, findings) for i, row in enumerate(rows)]
        back = np.argsort(order)
        diagnostics = {**_diagnostics(cohort, findings, int(quarantined.sum()), self.bound), "aggregator": remarks}
        judgement = Judgement(aggregate, tuple(verdicts[i] for i in back), diagnostics)
        return judgement, {
            **state,
            "rounds": state["rounds"] + 1,
            "sketch_seed": seed,
            "centre": findings.found.centre,
            "book": book.closed(state["rounds"]).as_state(),
            "aggregator": after,
        }

    def _check(self, cohort: Cohort, state: State) -> None:
        if state.get("version") != _VERSION or state.get("size") != cohort.params.size:
            raise StateError(
                f"expected a state of Mode0 version {_VERSION} for {cohort.params.size} parameters, got version "
                f"{state.get('version')} for {state.get('size')}; start from Mode0.init"
            )

    def _sentence(self, book: PeerBook, rows: NDArray[np.intp], findings: _Findings, good: Mask) -> PeerBook:
        """The book with this round's evidence paid into the bank, and with reasons and cosines noted."""
        suspicion, cosines, reasons = book.suspicion.copy(), book.cosines.copy(), list(book.reasons)
        suspicion[rows] = self.bank.after(suspicion[rows], findings.worst, good)
        cosines[rows] = np.where(findings.opinion, findings.found.cosines, np.nan)
        for i in np.flatnonzero(findings.worst > 1.0).tolist():
            reasons[rows[i]] = _reason(book, rows[i], i, findings)
        return replace(book, cosines=cosines, suspicion=suspicion, reasons=tuple(reasons))

    def _combine(
        self, cohort: Cohort, order: NDArray[np.intp], weights: Float64, tolerated: int, state: State
    ) -> tuple[Float32, State, dict[str, Any]]:
        """Aggregate of the kept rows (d,), the rule's state after it and its remarks. Nobody kept: the model stays."""
        kept = np.flatnonzero(weights > 0)
        if not len(kept):
            return np.zeros(cohort.params.size, np.float32), state["aggregator"], {}
        chosen = order[kept]
        X = cohort.X if np.array_equal(chosen, np.arange(len(weights))) else cohort.X.take(chosen)
        X = X.scaled(weights[kept])
        left = max(tolerated - (len(weights) - len(kept)), 0)
        f = min(left, max(self.aggregator.max_f(len(kept)), 0))
        context = Context(f=f, clients=tuple(cohort.ids[i] for i in chosen), seed=cohort.seed)
        result, after = self.aggregator.aggregate(X, context, state["aggregator"])
        return result.vector, after, dict(result.diagnostics)

    def _verdict(self, book: PeerBook, row: int, weight: float, i: int, findings: _Findings) -> Verdict:
        """The verdict on the i-th client, which is in ``row`` of the book."""
        values = {name: float(x) for name, x in zip(_CHANNELS, findings.evidence[i], strict=True)}
        evidence = values if findings.opinion[i] else {}
        if book.suspicion[row] > 0:
            reason = book.reasons[row]
            if findings.worst[i] <= 1.0:
                rounds = self.bank.rounds_left(float(book.suspicion[row]))
                reason = f"in quarantine for {rounds} more rounds of good conduct; it {reason}"
            return Verdict(book.ids[row], 0.0, Status.QUARANTINED, evidence, reason)
        if findings.worst[i] > _SUSPECTED:
            reason = f"counts half, close to a bar: {_reason(book, row, i, findings)}"
            return Verdict(book.ids[row], float(weight), Status.SUSPECTED, evidence, reason)
        if weight < 1.0:
            reason = f"is more than {_LONGEST:.0f} times as long as the median update, and shortened to that"
            return Verdict(book.ids[row], float(weight), Status.CLIPPED, evidence, reason)
        return Verdict(book.ids[row], 1.0, Status.ACCEPTED, evidence)


def _measure(cohort: Cohort, sketch: Sketch, order: NDArray[np.intp]) -> tuple[Float32, Float64]:
    """Sketches (n, k) and norms (n,) of the updates, in that order."""
    with np.errstate(over="ignore", invalid="ignore"):
        sketches = sketch(cohort.X)[order]
    # A sum of entries near the largest float32 overflows: such an update has a norm to judge, but no direction.
    sketches[~np.isfinite(sketches).all(axis=1)] = 0.0
    return sketches, cohort.X.norms()[order]


def _shortening(lengths: Float64) -> Float64:
    """Factors (n,) that bring every norm down to `_LONGEST` times the median; 1 for nearly everyone."""
    said = lengths > 0
    cap = _LONGEST * float(np.median(lengths[said])) if said.any() else 0.0
    return np.where(lengths > cap, cap / np.where(said, lengths, 1.0), 1.0)


def _examine(book: PeerBook, rows: NDArray[np.intp], tolerated: int) -> _Findings:
    """Evidence on every channel about the clients in ``rows``."""
    histories = peers.unit_rows(book.histories[rows])
    seen, ranking = book.seen[rows], book.cosines[rows]
    size = len(rows) - tolerated
    veterans = seen >= peers.LEAST_ROUNDS
    candidates = _heard(_candidates(book.suspicion[rows] == 0.0, veterans), peers.contradicted(histories, tolerated))
    found = peers.agreement(histories, candidates, ranking, size)
    collusion, copies, copy_bar = peers.collusion_evidence(histories, found.centre)
    if (collusion > 1.0).any():
        # Copies have one opinion between them; they do not get to define the common direction.
        found = peers.agreement(histories, _heard(candidates, collusion > 1.0), ranking, size)
    direction, direction_bar = peers.direction_evidence(found)
    agreeing, ratios = peers.faded_mean(book.agreeing[rows]), peers.faded_mean(book.lengths[rows])
    consistency, consistency_bar = peers.consistency_evidence(agreeing)
    norm, norm_bar = peers.norm_evidence(ratios)
    return _Findings(
        np.stack([direction, consistency, collusion, norm], axis=1),
        veterans & (len(rows) >= peers.LEAST_COHORT),
        found,
        float(found.cosines[found.reference].min()),
        np.stack([found.cosines, agreeing, copies, ratios], axis=1),
        {"direction": direction_bar, "consistency": consistency_bar, "collusion": copy_bar, "norm": norm_bar},
    )


def _candidates(trusted: Mask, veterans: Mask) -> Mask:
    """Who may define the common direction: known clients in good standing while they are half of the cohort."""
    for mask in (trusted & veterans, trusted):
        if mask.sum() >= max(len(mask) / 2, 1):
            return mask
    return trusted if trusted.sum() >= peers.LEAST_COHORT else np.ones_like(trusted)


def _heard(candidates: Mask, excluded: Mask) -> Mask:
    """The candidates who are not excluded, while they are enough to define a direction."""
    rest = candidates & ~excluded
    return rest if rest.sum() >= peers.LEAST_COHORT else candidates


def _reason(book: PeerBook, row: int, i: int, findings: _Findings) -> str:
    """The strongest evidence against the i-th client in words, with its numbers."""
    cosine, agreeing, copies, ratio = findings.figures[i]
    channel = _CHANNELS[int(np.argmax(findings.evidence[i]))]
    bar = findings.bars[channel]
    if channel == "direction":
        return (
            f"points against its peers: cosine {cosine:.2f} over {book.seen[row]} rounds, "
            f"{findings.found.reference.sum()} of {len(findings.opinion)} stay above {findings.lowest:.2f}"
        )
    if channel == "consistency":
        return f"contradicts its own history: its updates have cosine {agreeing:.2f} with it, the bar is {bar:.2f}"
    if channel == "collusion":
        return (
            f"copies others: beyond the common direction its history has cosine {copies:.2f} with its nearest peers, "
            f"the bar is {bar:.2f}"
        )
    return f"sends updates {np.exp(ratio):.1f} times as long as the median, the bar is {bar:.1f}"


def _diagnostics(cohort: Cohort, findings: _Findings, quarantined: int, bound: float) -> dict[str, Any]:
    """Figures of the round, and whether the cohort looks to be within what this judge claims."""
    n, declared = len(cohort.units), cohort.max_byzantine
    note = ""
    if declared > bound * n:
        note = f"outside its bound: {declared} of {n} clients may be malicious, the judge is designed for {bound:.0%}"
    elif quarantined > declared:
        note = f"outside its bound: {quarantined} of {n} clients are quarantined, {declared} were allowed for"
    return {
        "within_bound": not note,
        "note": note,
        "declared": declared,
        "quarantined": quarantined,
        "without_opinion": int((~findings.opinion).sum()),
        "reference": int(findings.found.reference.sum()),
        "agreement": float(np.median(findings.found.cosines[findings.found.reference])),
        "bars": findings.bars,
    }
