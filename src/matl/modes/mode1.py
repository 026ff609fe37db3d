"""Mode 1: judge updates by what a validator can compute from clean data of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.aggregators import Rows
from matl.errors import StateError, UndecidedError
from matl.matrix import UpdateMatrix
from matl.params import Float32, ParamLayout
from matl.records import Cohort, Judgement, Status, Verdict
from matl.state import State, digest
from matl.trust.attribution import Attribution, attribute
from matl.trust.balance import TOLERATED, balanced
from matl.trust.calibration import (
    CONCENTRATIONS,
    LEAST_SPREAD,
    SIZES,
    Expectation,
    Shadows,
    circumstances,
    tail_probability,
)
from matl.trust.collusion import ORIGINAL, closeness, collusion, collusion_bar, likeness, originals
from matl.trust.consistency import MEMORY, turn, turn_evidence
from matl.trust.levels import (
    FIGURES,
    LEVELS,
    MEMORIES,
    PAIR_OFFSET,
    LevelBars,
    Levels,
    figures,
    judge_levels,
    round_scores,
)
from matl.trust.oracle import Atoms, Oracle
from matl.trust.reasons import (
    alien_reason,
    collusion_reason,
    norm_reason,
    pair_reason,
    relabelling_reason,
    turn_reason,
)
from matl.trust.sequential import WINDOW, Bank, Book
from matl.trust.sketch import Sketch

__all__ = ["Mode1"]

_VERSION = 4
_SKETCH_WIDTH = 512
_FOLDS = 2
_SUSPECT = 0.75  # evidence, in units of the bar, from which an update counts half
_LONGEST = 1.5  # times the median norm of the kept; at 1, label skew .1 cost 1.4 points with nobody attacking
_GOOD = 0.05  # part of sign-flipped shadows that may show as little evidence as good conduct: the usual 5 % level
_UPPER = 0.95
_TINY = 1e-12
_NO_OPINION = np.nan
_MIX_MEMORY = 0.9  # label mixes are estimated over about ten rounds; data change slowly
_UNKNOWN_SIZE = 80.0  # samples a client is taken to hold whose weight does not say: the middle of what shadows hold
_FIXED = [
    *(
        _SKETCH_WIDTH,
        _SUSPECT,
        _LONGEST,
        _GOOD,
        _MIX_MEMORY,
        _UNKNOWN_SIZE,
        WINDOW,
        MEMORY,
        PAIR_OFFSET,
        TOLERATED,
        ORIGINAL,
    ),
    *(*MEMORIES, *CONCENTRATIONS, *SIZES, LEAST_SPREAD),
]
"""Constants that are nobody's to set, but that a judgement depends on."""


@dataclass(frozen=True, slots=True)
class _View:
    """What the judge sees of some updates: n clients or M shadows."""

    attribution: Attribution
    directions: Float32  # sketches of the normalised updates
    residuals: Float32  # the same less their best explanation by clean training


@dataclass(frozen=True, slots=True)
class _Measured:
    """The figures (n, F) of this round's clients, and what 95 % of the shadows like each stay under."""

    figures: NDArray[np.float64]
    usual: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Agreement:
    """How close each of n clients is to others beyond what classes explain; and the bar, from how close shadows are.

    ``evidence`` is the mean cosine to the nearest neighbours in units of the bar, NaN where there is no opinion, and
    ``alike`` (n, n) says which clients are past the bar with each other.
    """

    mean: NDArray[np.float64]
    bar: float
    evidence: NDArray[np.float64]
    alike: NDArray[np.bool_]


@dataclass(frozen=True)
class _Findings:
    """Evidence about n clients; each array has one entry or row per client, NaN where a channel has no opinion."""

    measured: _Measured
    levels: Levels
    turned: NDArray[np.float64]
    turn: NDArray[np.float64]
    usual_turn: float
    agreement: _Agreement
    collusion: NDArray[np.float64]
    pogq: NDArray[np.float64]

    @property
    def channels(self) -> dict[str, NDArray[np.float64]]:
        """Evidence of each channel in units of its bar."""
        named = {name: self.levels.evidence[:, index] for index, name in enumerate(LEVELS)}
        return {**named, "turn": self.turn, "collusion": self.collusion}

    @cached_property
    def strongest(self) -> NDArray[np.float64]:
        """The evidence of each client that counts: its loudest channel, or joint where half the flipped show no more.

        Late in training honest clients stand out a little everywhere too, but less than one that lied would.
        """
        like_flipped = self.levels.joint >= np.median(self.levels.flipped, axis=1)
        levels = np.where(like_flipped, self.levels.joint, self.levels.evidence.max(axis=1))
        return np.asarray(np.nanmax(np.stack([levels, self.turn, self.collusion]), axis=0))

    @property
    def good(self) -> NDArray[np.bool_]:
        """Whose conduct is shown to be good: one that lied would have shown more, with 95 % probability."""
        return self.levels.joint < np.quantile(self.levels.flipped, _GOOD, axis=1)


@dataclass(frozen=True)
class Mode1:
    """Shadow-calibrated attribution, for a validator that owns clean root data; up to 45 % malicious units.

    Every round the validator simulates honest clients ("shadows") on its root data and measures clients and shadows
    alike. Six channels look for evidence; each is stated in units of its own bar, so 1 is where honest behaviour ends:

    - *relabelling*: the update needs training under false labels to be explained (`matl.trust.attribution`);
    - *pair*: one class in particular is trained under one false label;
    - *alien*: no training on these classes explains it, honest or not;
    - *norm*: it is far longer than honest training makes it (`matl.trust.norm`);
    - *turn*: it turned against the client's own past (`matl.trust.consistency`);
    - *collusion*: it agrees with others in what its classes do not explain (`matl.trust.collusion`).

    The shadows' own updates sent backwards tell how much evidence a sign flip would show this round. Conduct is *good*
    if it stays under what 95 % of them show; where it reaches their median, the first four channels count together
    (*joint*, `matl.trust.levels`). The strongest evidence pays into a bank of suspicion (`matl.trust.sequential`),
    which only good conduct wears off, and a unit is quarantined while its balance is above zero; from three quarters
    of a bar on it is suspected and counts half. The aggregate is the weighted mean of all that are not in quarantine,
    each clipped to one and a half times their median norm.

    A verdict's evidence also holds ``pogq``, the proof of gradient quality: the probability that a simulated honest
    client shows at least this much evidence, in [0, 1].

    Parameters
    ----------
    oracle : Oracle
        The validator's root data, task and recipe. What calibrates must never train the model.
    shadows : int
        Simulated clients; 120 is three for each concentration of labels with each size.
    bars : LevelBars
        Bars of the first four channels.
    turn_bar : float
        Bar of *turn*, in spreads of the shadows above their median.
    collusion_bar : float
        Bar of *collusion*, a cosine in (0, 1); raised where shadows are close to each other anyway.
    bank : Bank
        How evidence adds up over rounds.
    bound : float
        Largest fraction of malicious units it is designed for.
    seed : int
        Draws the shadows' label mixes.

    Notes
    -----
    All constants were chosen on development seeds 0-4. There is no analytic bound on false quarantines; their rate is
    measured. Beyond the reach of this mode: updates made of clean directions with a false label mix, and triggers that
    the root never shows. Cost per round: K^2 passes over a fold of the root, M local trainings, and O(n d K^2).
    """

    oracle: Oracle
    shadows: int = 120
    bars: LevelBars = field(default_factory=LevelBars)
    turn_bar: float = 8.0
    collusion_bar: float = 0.9
    bank: Bank = field(default_factory=Bank)
    bound: float = 0.45
    seed: int = 0
    gives_verdicts: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        validate.at_least(20, shadows=self.shadows)
        validate.positive(turn_bar=self.turn_bar, collusion_bar=self.collusion_bar)
        validate.fraction(bound=self.bound, collusion_bar=self.collusion_bar)
        validate.non_negative(seed=self.seed)

    @property
    def digest(self) -> str:
        """See `matl.records.Mode`."""
        constants = [self.shadows, asdict(self.bars), self.turn_bar, self.collusion_bar, asdict(self.bank), self.bound]
        return digest(["mode1", _VERSION, constants, _FIXED, self.seed, self.oracle.digest])

    @property
    def channels(self) -> tuple[str, ...]:
        """See `matl.records.Mode`."""
        return (*LEVELS, "joint", "turn", "collusion", "strongest", "pogq", "suspicion")

    def init(self, layout: ParamLayout) -> State:
        """See `matl.records.Mode`."""
        return {
            "version": _VERSION,
            "size": layout.size,
            "sketch_seed": None,  # drawn with the first cohort, so that nobody can know the sketch beforehand
            # The shadows, and after them the same with their updates sent backwards.
            "shadow_scores": np.full((2 * self.shadows, WINDOW, len(LEVELS)), np.nan, np.float32),
            "shadow_mix": np.zeros((2 * self.shadows, self.oracle.num_classes), np.float32),
            "shadow_past": np.zeros((self.shadows, _FOLDS, _SKETCH_WIDTH), np.float32),
            "clients": Book.empty(len(LEVELS), self.oracle.num_classes, _SKETCH_WIDTH).as_state(),
        }

    def judge(self, cohort: Cohort, state: State) -> tuple[Judgement, State]:
        """See `matl.records.Mode`. The judgement does not depend on the order of the units."""
        self._check(cohort, state)
        order = sorted(range(len(cohort.units)), key=cohort.ids.__getitem__)
        if order != list(range(len(order))):
            judgement, after = self.judge(_reordered(cohort, order), state)
            verdicts = {verdict.unit: verdict for verdict in judgement.verdicts}
            return replace(judgement, verdicts=tuple(verdicts[unit] for unit in cohort.ids)), after

        fold = cohort.spec.round % _FOLDS
        sketch_seed = cohort.seed if state["sketch_seed"] is None else state["sketch_seed"]
        sketch = Sketch(cohort.params.size, sketch_seed, _SKETCH_WIDTH)
        atoms = self.oracle.atoms(cohort.params, fold)
        simulants = Shadows.draw(self.oracle.num_classes, self.shadows, self.seed)
        simulated = self.oracle.honest(cohort.params, simulants, cohort.seed, 1 - fold)
        if not (np.isfinite(simulated).all() and np.isfinite(atoms.honest).all() and np.isfinite(atoms.poison).all()):
            raise UndecidedError(
                "training on the validator's root data diverged, so there is nothing to compare updates with; "
                "standardise the features or lower the learning rate"
            )
        clients, shadows = _view(cohort.X, atoms, sketch), _view(UpdateMatrix(simulated), atoms, sketch)
        flipped = attribute(UpdateMatrix(-simulated), atoms)

        book = Book.of_state(state["clients"]).begun(cohort.ids)
        rows = book.rows(cohort.ids)
        book.mix[rows] = _MIX_MEMORY * book.mix[rows] + clients.attribution.mix
        shadow_mix = _MIX_MEMORY * state["shadow_mix"] + np.concatenate([shadows.attribution.mix, flipped.mix])
        usual_work = float(np.median(shadows.attribution.work)) + _TINY
        held = np.tile(simulants.sizes, 2)
        shown = np.concatenate([figures(seen, usual_work) for seen in (shadows.attribution, flipped)])
        about = circumstances(held, _normalised(shadow_mix))
        expected = Expectation.of(shown[: self.shadows], about[: self.shadows])
        shadow_scores = _moved(state["shadow_scores"], round_scores(shown, about, expected))
        own_figures = figures(clients.attribution, usual_work)
        own = circumstances(_held(cohort.weights), _normalised(book.mix[rows]))
        book.scores[rows, -1] = round_scores(own_figures, own, expected)

        levels = judge_levels(
            book.scores[rows].astype(np.float64),
            shadow_scores[: self.shadows].astype(np.float64),
            shadow_scores[self.shadows :].astype(np.float64),
            self.bars,
        )
        measured = _Measured(own_figures, expected.usual(own))
        findings = self._findings(measured, clients, shadows, book, rows, levels, state["shadow_past"], fold)
        book.agreement[rows] = np.nan_to_num(findings.agreement.evidence)
        book.suspicion[rows] = self.bank.after(book.suspicion[rows], findings.strongest, findings.good)
        book = _with_reasons(book, rows, self._reasons(findings, clients, atoms))
        judgement = self._judgement(cohort, clients, shadows, atoms, findings, book, rows)

        # A quarantined client's past stays as it was: it is released for going back to it, not for having moved on.
        learning = (book.suspicion[rows] == 0) & (clients.attribution.norms > 0)
        learn = rows[learning]
        book.past[learn, fold] = _faded(book.past[learn, fold], clients.directions[learning])
        book.seen[learn, fold] += 1
        shadow_past = state["shadow_past"].copy()
        shadow_past[:, fold] = _faded(shadow_past[:, fold], shadows.directions)
        after = {
            "version": _VERSION,
            "size": state["size"],
            "sketch_seed": sketch_seed,
            "shadow_scores": shadow_scores,
            "shadow_mix": np.ascontiguousarray(shadow_mix, np.float32),
            "shadow_past": shadow_past,
            "clients": book.closed().as_state(),
        }
        return judgement, after

    def _check(self, cohort: Cohort, state: State) -> None:
        shadows = len(state.get("shadow_scores", ())) // 2
        if (state.get("version"), state.get("size"), shadows) != (_VERSION, cohort.params.size, self.shadows):
            raise StateError(
                f"expected a state of Mode1 version {_VERSION} for {cohort.params.size} parameters and {self.shadows} "
                f"shadows, got version {state.get('version')} for {state.get('size')} and {shadows}; start from "
                "Mode1.init"
            )

    def _findings(
        self,
        measured: _Measured,
        clients: _View,
        shadows: _View,
        book: Book,
        rows: NDArray[np.intp],
        levels: Levels,
        shadow_past: Float32,
        fold: int,
    ) -> _Findings:
        turned = turn(clients.directions, book.past[rows, fold])
        shadow_turned = turn(shadows.directions, shadow_past[:, fold])
        # A client that says nothing has not turned.
        has_past = (book.seen[rows, fold] >= 2) & (clients.attribution.norms > 0)
        turns = np.where(has_past, turn_evidence(turned, shadow_turned, self.turn_bar), _NO_OPINION)
        agreement = self._agreement(clients, shadows)
        # A client may be copied against its will. To agree with others time and again is its own doing, unless it went
        # on as before and they came to it.
        colluding = np.minimum(agreement.evidence, book.agreement[rows])
        colluding[originals(agreement.alike, turned)] = 0.0
        shadow_turns = turn_evidence(shadow_turned, shadow_turned, self.turn_bar)
        own = np.fmax(levels.joint, turns)
        pogq = np.empty(len(rows))
        for i in range(len(rows)):
            usual = np.maximum(levels.shadows[i], shadow_turns) if has_past[i] else levels.shadows[i]
            pogq[i] = tail_probability(own[i : i + 1], usual)[0]
        return _Findings(measured, levels, turned, turns, float(np.median(shadow_turned)), agreement, colluding, pogq)

    def _agreement(self, clients: _View, shadows: _View) -> _Agreement:
        n = len(clients.residuals)
        cosines, usual = likeness(clients.residuals), likeness(shadows.residuals)
        if cosines is None or usual is None:
            unknown = np.full(n, _NO_OPINION)
            return _Agreement(unknown, self.collusion_bar, unknown, np.zeros((n, n), bool))
        bar = collusion_bar(self.collusion_bar, float(np.quantile(collusion(usual), _UPPER)))
        mean = collusion(cosines)
        return _Agreement(mean, bar, closeness(mean, bar), cosines > bar)

    def _reasons(self, findings: _Findings, clients: _View, atoms: Atoms) -> list[str]:
        """For each client what its loudest channel saw; empty where nothing is near its bar.

        Where no channel speaks up alone, but the levels do together, the two loudest of them.
        """
        channels = findings.channels
        names, told = list(channels), np.stack(list(channels.values()))
        reasons = []
        for i, strongest in enumerate(findings.strongest):
            ranked = np.argsort(-np.nan_to_num(told[:, i], nan=-np.inf), kind="stable")
            said = [names[index] for index in ranked[: 0 if strongest <= _SUSPECT else 1]]
            if said and strongest > 1.0 >= told[ranked[0], i]:
                said = [names[index] for index in ranked if names[index] in LEVELS][:2]
            reasons.append(", and ".join(self._reason(channel, findings, clients, atoms, i) for channel in said))
        return reasons

    def _reason(self, channel: str, findings: _Findings, clients: _View, atoms: Atoms, i: int) -> str:
        seen = dict(zip(FIGURES, findings.measured.figures[i].tolist(), strict=True))
        usual = dict(zip(FIGURES, findings.measured.usual[i].tolist(), strict=True))
        match channel:
            case "relabelling":
                amounts = clients.attribution.relabelled[i]
                return relabelling_reason(seen["gain"], usual["gain"], seen["share"], amounts, atoms.pairs)
            case "pair":
                amount, limit = (math.exp(figure) - PAIR_OFFSET for figure in (seen["pair"], usual["pair"]))
                return pair_reason(amount, limit, atoms.pairs[int(np.argmax(clients.attribution.relabelled[i]))])
            case "alien":
                return alien_reason(seen["alien"], usual["alien"])
            case "norm":
                return norm_reason(seen["log_norm"], usual["log_norm"])
            case "turn":
                return turn_reason(float(findings.turned[i]), findings.usual_turn)
            case _:
                return collusion_reason(float(findings.agreement.mean[i]), findings.agreement.bar)

    def _judgement(
        self,
        cohort: Cohort,
        clients: _View,
        shadows: _View,
        atoms: Atoms,
        findings: _Findings,
        book: Book,
        rows: NDArray[np.intp],
    ) -> Judgement:
        lengths = clients.attribution.norms
        quarantined = book.suspicion[rows] > 0
        suspected = ~quarantined & (findings.strongest > _SUSPECT)
        kept = ~quarantined
        like = findings.agreement.alike[:, kept].sum(axis=1)  # who are as one count as one
        trust = np.where(quarantined, 0.0, np.where(suspected, 0.5, 1.0) / (1 + like))
        weights = trust * cohort.weights
        limit = _LONGEST * float(np.median(lengths[kept])) if kept.any() else 0.0
        scale = np.minimum(1.0, limit / np.maximum(lengths, np.finfo(np.float32).tiny))
        # With nobody left to believe the model stays where it is.
        share = np.zeros(len(rows))
        if weights.sum() > 0:
            taught = clients.attribution.clean * scale[:, None]
            reach = np.linalg.norm(atoms.honest, axis=1)
            share = _balanced(weights / weights.sum(), taught, shadows.attribution.mix.mean(axis=0), reach) * scale
        verdicts = tuple(
            Verdict(
                unit,
                float(trust[i]),
                _status(bool(quarantined[i]), bool(suspected[i] or like[i]), bool(scale[i] < 1.0)),
                self._evidence(findings, book, rows, i),
                self._words(findings, book, rows, i, int(like[i]), (float(lengths[i]), limit)),
            )
            for i, unit in enumerate(cohort.ids)
        )
        diagnostics = {
            "quarantined": int(quarantined.sum()),
            "suspected": int(suspected.sum()),
            "clip_norm": limit,
        }
        return Judgement(Rows(cohort.X).combine(share), verdicts, diagnostics)

    def _evidence(self, findings: _Findings, book: Book, rows: NDArray[np.intp], i: int) -> dict[str, float]:
        channels = {name: float(values[i]) for name, values in findings.channels.items() if not np.isnan(values[i])}
        return {
            **channels,
            "joint": float(findings.levels.joint[i]),
            "strongest": float(findings.strongest[i]),
            "pogq": float(findings.pogq[i]),
            "suspicion": float(book.suspicion[rows[i]]),
        }

    def _words(
        self, findings: _Findings, book: Book, rows: NDArray[np.intp], i: int, like: int, norm: tuple[float, float]
    ) -> str:
        """The reason of a verdict; empty where the update counted as it came."""
        strongest, suspicion = findings.strongest[i], book.suspicion[rows[i]]
        last = book.reasons[int(rows[i])]
        if strongest > 1.0:
            return last
        if suspicion > 0:
            return f"in quarantine for {self.bank.rounds_left(float(suspicion))} more rounds of good conduct: it {last}"
        if strongest > _SUSPECT:
            return f"at {100 * strongest:.0f} % of the bar: it {last}"
        if like > 0:
            return f"counts once together with {like} others that moved as one with it"
        return f"shortened from norm {norm[0]:.3g} to {norm[1]:.3g}" if norm[0] > norm[1] else ""


def _view(X: UpdateMatrix, atoms: Atoms, sketch: Sketch) -> _View:
    attribution = attribute(X, atoms)
    lengths = attribution.norms[:, None] + np.finfo(np.float32).tiny
    directions = (sketch(X) / lengths).astype(np.float32)
    clean = sketch(UpdateMatrix(atoms.honest)) / (np.linalg.norm(atoms.honest, axis=1, keepdims=True) + 1e-12)
    explained = attribution.honest @ clean
    return _View(attribution, directions, (directions - explained).astype(np.float32))


def _balanced(
    shares: NDArray[np.float64],
    taught: NDArray[np.float64],
    usual_mix: NDArray[np.float64],
    reach: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Shares (n,) of the clients that are kept, changed where together they teach some class too much.

    ``taught`` (n, K) is amounts of training, ``reach`` (K,) how far each class moves the model per amount.
    """
    kept = shares > 0
    amount = float(shares @ taught.sum(axis=1))
    if amount > _TINY:
        shares = shares.copy()
        shares[kept] = balanced(shares[kept], taught[kept] * reach / amount, usual_mix * reach)
    return shares


def _held(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Samples that clients say they hold; a weight of 1 is what those have that do not say."""
    return np.where(weights > 1.0, weights, _UNKNOWN_SIZE)


def _normalised(mix: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows that sum to 1; a row of zeros stays as it is."""
    mix = np.ascontiguousarray(mix)  # or the order of the sums, and with it the last bit, would depend on the layout
    return np.asarray(mix / np.maximum(mix.sum(axis=1, keepdims=True), _TINY), np.float64)


def _moved(window: Float32, scores: NDArray[np.float64]) -> Float32:
    """The shadows' window with this round as the newest."""
    moved = np.roll(window, -1, axis=1)
    moved[:, -1] = scores
    return moved


def _faded(past: Float32, now: Float32) -> Float32:
    return (MEMORY * past + (1.0 - MEMORY) * now).astype(np.float32)


def _with_reasons(book: Book, rows: NDArray[np.intp], said: Sequence[str]) -> Book:
    """The book with new reasons where something was said; it keeps the old ones of clients still in quarantine."""
    reasons = list(book.reasons)
    for row, words in zip(rows, said, strict=True):
        if words or book.suspicion[row] == 0:
            reasons[row] = words
    return replace(book, reasons=tuple(reasons))


def _status(quarantined: bool, suspected: bool, clipped: bool) -> Status:
    if quarantined:
        return Status.QUARANTINED
    if suspected:
        return Status.SUSPECTED
    return Status.CLIPPED if clipped else Status.ACCEPTED


def _reordered(cohort: Cohort, order: list[int]) -> Cohort:
    rows = np.array(order, dtype=np.intp)
    return replace(
        cohort,
        units=tuple(cohort.units[i] for i in order),
        X=cohort.X.take(rows),
        weights=cohort.weights[rows],
        staleness=cohort.staleness[rows],
        received_at=cohort.received_at[rows],
        self_index=None if cohort.self_index is None else order.index(cohort.self_index),
    )
