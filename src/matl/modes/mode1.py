"""Mode 1: judge updates by what a validator can compute from clean data of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import StateError
from matl.matrix import in_memory
from matl.modes.weighing import LONGEST, weighed
from matl.params import Float32, ParamLayout, values_hash
from matl.records import Cohort, Judgement
from matl.state import State, digest
from matl.trust.balance import MOST, TOLERATED
from matl.trust.calibration import (
    CONCENTRATIONS,
    FAR,
    LEAST_SPREAD,
    MOST_WORK,
    SIZES,
    Expectation,
    Shadows,
    circumstances,
    sizes_for,
    tail_probability,
)
from matl.trust.campaign import MOST_COMPANY, campaign
from matl.trust.collusion import ORIGINAL, originals
from matl.trust.composite import Composite
from matl.trust.consistency import MEMORY, faded, turn, turn_evidence
from matl.trust.findings import GOOD, SUSPECT, Agreement, Findings
from matl.trust.levels import (
    DRIFT_COHORT,
    DRIFT_QUANTILE,
    LEAST_SCORE,
    LEVELS,
    MEMORIES,
    PAIR_OFFSET,
    LevelBars,
    drift,
    figures,
    heard,
    judge_levels,
    round_scores,
)
from matl.trust.oracle import FOLDS, Oracle
from matl.trust.sequential import WINDOW, Bank, Book, moved
from matl.trust.sketch import Sketch
from matl.trust.spectral import FULL_COHORT, OPENS, RECALL, REMEMBERS, SURE, divide, opened
from matl.trust.standing import COMPONENTS, Standing
from matl.trust.view import Simulated, View

__all__ = ["Mode1"]

_VERSION = 12
_SKETCH_WIDTH = 512
# Shadows from a few root samples show less well how much honest clients differ that overfit few samples or, all of
# them, train for different times. On digits (27 samples each, seeds 0-4) 7 of 500 were accused; without, twice that.
_FEW = 100.0  # samples
_LENIENT = 1.4  # times as high are the bars for those
_SILENT = 0.01  # of the shadows' median norm: less says nothing
_TINY = 1e-12
_NO_OPINION = np.nan
_MIX_MEMORY = 0.9  # label mixes are estimated over about ten rounds; data change slowly
_UNKNOWN_SIZE = 80.0  # samples a client is taken to hold whose weight does not say: the middle of what shadows hold
_FIXED = [
    *(
        _SKETCH_WIDTH,
        SUSPECT,
        LONGEST,
        GOOD,
        _MIX_MEMORY,
        _UNKNOWN_SIZE,
        WINDOW,
        MEMORY,
        PAIR_OFFSET,
        MOST,
        TOLERATED,
        _SILENT,
        _FEW,
        _LENIENT,
        ORIGINAL,
        MOST_COMPANY,
        FULL_COHORT,
        RECALL,
        REMEMBERS,
        *OPENS,
        SURE,
    ),
    *(*MEMORIES, DRIFT_QUANTILE, DRIFT_COHORT, LEAST_SCORE, *CONCENTRATIONS, *SIZES, LEAST_SPREAD, MOST_WORK, FAR),
]
"""Constants that are nobody's to set, but that a judgement depends on; a change of any other changes `_VERSION`."""
_STATE = (
    *("version", "size", "sizes", "sketch_seed", "shadow_scores", "shadow_mix", "shadow_past", "divided"),
    *("clients", "standing"),
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a round shows: how much each shadow holds, and what clients and shadows sent."""

    fold: int
    sketch_seed: int
    sizes: list[int]
    held: NDArray[np.int64]
    clients: View
    simulated: Simulated


@dataclass(frozen=True, slots=True)
class _Yardstick:
    """What is remembered of the shadows after a round, and their turn evidence (M,) in it.

    Also how divided the cohort was beside them, as a faded logarithm.
    """

    scores: Float32
    mix: Float32
    past: Float32
    turn: NDArray[np.float64]
    divided: float


@dataclass(frozen=True)
class Mode1:
    """Shadow-calibrated attribution, for a validator that owns clean root data; up to 45 % malicious units.

    Every round the validator simulates honest clients ("shadows") on its root data and measures clients and shadows
    alike. Eight channels look for evidence, each stated in units of its own bar: 1 is where honest behaviour ends.

    - *relabelling*: the update needs training under false labels to be explained (`matl.trust.attribution`);
    - *pair*: one class in particular is trained under one false label;
    - *alien*: no training on these classes explains it, honest or not;
    - *norm*: it is far longer than honest training makes it (`matl.trust.norm`);
    - *turn*: it turned against the client's own past (`matl.trust.consistency`);
    - *collusion*: it agrees with others in what its classes do not explain (`matl.trust.collusion`);
    - *campaign*: it looks alien, less than its own bar would have it, and in the same way as others that do
      (`matl.trust.campaign`);
    - *spectral*: it is far off in the direction that divides the cohort (`matl.trust.spectral`).

    The shadows' own updates sent backwards tell how much evidence a sign flip would show this round. Conduct is *good*
    if it stays under what 95 % of them show; where it reaches their median, the first four channels count together
    (*joint*, `matl.trust.levels`). The strongest evidence pays into a bank of suspicion (`matl.trust.sequential`),
    which only good conduct wears off, and a unit is quarantined while its balance is above zero; from three quarters
    of a bar on it is suspected and counts half. The aggregate is the weighted mean of all that are not in quarantine,
    each clipped to one and a half times their median norm; those that move as one count as one, and weights are
    balanced over the classes (`matl.trust.balance`). A verdict's ``share`` is what the client had of it in the end.

    A verdict's evidence also holds ``pogq``, the proof of gradient quality: the probability that a simulated honest
    client shows at least this much evidence, in [0, 1]. With ``tcdm`` and ``entropy``, calibrated alike, it makes up
    the composite ``trust`` with its 95 % interval, ``trust_low`` to ``trust_high`` (`matl.trust.standing`). These tell
    people about a client and decide nothing.

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
    campaign_bar : float
        Bar of *campaign*, in spreads of the shadows above their median. Chosen on development seeds 0-4 and 100-119.
    spectral_bar : float
        Bar of *spectral*, as a part of the way from the middle of the near part of a divided cohort to that of the far
        one. Chosen on development seeds 0-3; a very large one for federations in which groups of honest clients have
        something in common that the root lacks.
    bank : Bank
        How evidence adds up over rounds.
    bound : float
        Largest fraction of malicious units it is designed for.
    seed : int
        Draws the shadows' label mixes.
    trust : Composite
        Weights of the composite trust score. It decides nothing, and so is no part of the digest.

    Notes
    -----
    All other constants were chosen on development seeds: 0-4, those of spectral evidence 0-9 and 200-239. There is no
    analytic bound on false quarantines; their rate is measured. Beyond the reach of this mode: updates made of clean
    directions with a false label mix, and, in small cohorts, triggers that the root never shows and a client hardly
    teaches. Cost per round: K^2 passes over a fold of the root, M local trainings, and O(n d K^2 + n^2 k + k^3) for
    sketches of k numbers.
    """

    oracle: Oracle
    shadows: int = 120
    bars: LevelBars = field(default_factory=LevelBars)
    turn_bar: float = 8.0
    collusion_bar: float = 0.9
    campaign_bar: float = 3.0
    spectral_bar: float = 0.65
    bank: Bank = field(default_factory=Bank)
    bound: float = 0.45
    seed: int = 0
    trust: Composite = field(default_factory=Composite)
    gives_verdicts: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        validate.at_least(20, shadows=self.shadows)
        validate.positive(turn_bar=self.turn_bar, collusion_bar=self.collusion_bar)
        validate.positive(campaign_bar=self.campaign_bar, spectral_bar=self.spectral_bar)
        validate.fraction(bound=self.bound, collusion_bar=self.collusion_bar)
        validate.non_negative(seed=self.seed)

    @property
    def digest(self) -> str:
        """See `matl.records.Mode`."""
        bars = [asdict(self.bars), self.turn_bar, self.collusion_bar, self.campaign_bar, self.spectral_bar]
        constants = [self.shadows, *bars, asdict(self.bank), self.bound]
        return digest(["mode1", _VERSION, constants, _FIXED, self.seed, self.oracle.digest])

    @property
    def channels(self) -> tuple[str, ...]:
        """See `matl.records.Mode`."""
        return (
            *LEVELS,
            "joint",
            "turn",
            "collusion",
            "campaign",
            "spectral",
            "strongest",
            "pogq",
            *COMPONENTS,
            "suspicion",
            "share",
        )

    def init(self, layout: ParamLayout) -> State:
        """See `matl.records.Mode`."""
        return {
            "version": _VERSION,
            "size": layout.size,
            "sizes": [],  # what shadows hold, chosen with the first cohort, and again where claims are far from it
            "sketch_seed": None,  # drawn with the first cohort, so that nobody can know the sketch beforehand
            # The shadows, and after them the same with their updates sent backwards.
            "shadow_scores": np.full((2 * self.shadows, WINDOW, len(LEVELS)), np.nan, np.float32),
            "shadow_mix": np.zeros((2 * self.shadows, self.oracle.num_classes), np.float32),
            "shadow_past": np.zeros((self.shadows, FOLDS, _SKETCH_WIDTH), np.float32),
            "divided": 0.0,
            "clients": Book.empty(len(LEVELS), self.oracle.num_classes, _SKETCH_WIDTH).as_state(),
            "standing": Standing.init(self.shadows, self.oracle.num_classes, _SKETCH_WIDTH),
        }

    def judge(self, cohort: Cohort, state: State) -> tuple[Judgement, State]:
        """See `matl.records.Mode`. The judgement does not depend on the order of the units."""
        self._check(cohort, state)
        order = sorted(range(len(cohort.units)), key=cohort.ids.__getitem__)
        if order != list(range(len(order))):
            judgement, after = self.judge(_reordered(cohort, order), state)
            verdicts = {verdict.unit: verdict for verdict in judgement.verdicts}
            return replace(judgement, verdicts=tuple(verdicts[unit] for unit in cohort.ids)), after

        seen = self._look(cohort, state)
        book = Book.of_state(state["clients"]).begun(cohort.ids)
        rows = book.rows(cohort.ids)
        findings, yardstick = self._measure(cohort, seen, book, rows, state)
        book.agreement[rows] = np.nan_to_num(findings.agreement.evidence)
        norms = seen.clients.attribution.norms
        # Who says nothing shows no conduct, be it good or bad.
        good = findings.good & (norms > _SILENT * np.median(seen.simulated.shadows.attribution.norms))
        before = book.suspicion[rows]
        book.suspicion[rows] = self.bank.after(before, findings.strongest, good)
        book = _with_reasons(book, rows, findings, before > 0)
        pogq = self._pogq(findings, yardstick)
        composite, standing = Standing.after(
            state["standing"],
            cohort.ids,
            seen.fold,
            seen.clients,
            seen.simulated.shadows,
            cohort.received_at,
            pogq,
            self.trust,
        )
        told = {"pogq": pogq, **composite, "suspicion": book.suspicion[rows]}
        reasons = [book.reasons[row] for row in rows]
        judgement = weighed(cohort, seen.simulated, findings, told, book.suspicion[rows], reasons, self.bank)

        # A quarantined client's past stays as it was: it is released for going back to it, not for having moved on.
        learning = (book.suspicion[rows] == 0) & (norms > 0)
        learn = rows[learning]
        book.past[learn, seen.fold] = faded(book.past[learn, seen.fold], seen.clients.directions[learning])
        book.seen[learn, seen.fold] += 1
        after = {
            "version": _VERSION,
            "size": state["size"],
            "sketch_seed": seen.sketch_seed,
            "sizes": seen.sizes,
            "shadow_scores": yardstick.scores,
            "shadow_mix": yardstick.mix,
            "shadow_past": yardstick.past,
            "divided": yardstick.divided,
            "clients": book.closed().as_state(),
            "standing": standing,
        }
        return judgement, after

    def _check(self, cohort: Cohort, state: State) -> None:
        if missing := [name for name in _STATE if name not in state]:
            raise StateError(f"the state lacks {', '.join(missing)}; it is none of Mode1: start from Mode1.init")
        shadows = len(state["shadow_scores"]) // 2
        if (state.get("version"), state.get("size"), shadows) != (_VERSION, cohort.params.size, self.shadows):
            raise StateError(
                f"expected a state of Mode1 version {_VERSION} for {cohort.params.size} parameters and {self.shadows} "
                f"shadows, got version {state.get('version')} for {state.get('size')} and {shadows}; start from "
                "Mode1.init"
            )

    def _look(self, cohort: Cohort, state: State) -> _Seen:
        """Simulate honest clients, and see what they and the clients sent."""
        fold = cohort.spec.round % FOLDS
        sketch_seed = cohort.seed if state["sketch_seed"] is None else state["sketch_seed"]
        sketch = Sketch(cohort.params.size, sketch_seed, _SKETCH_WIDTH)
        sizes = sizes_for(_held(cohort.examples), self.oracle.steps, state["sizes"])
        simulants = Shadows.draw(self.oracle.num_classes, self.shadows, self.seed, sizes)
        # An attacker that rehearses, or a host that tries again, has the same round judged with other updates.
        key = (values_hash(cohort.params), fold, tuple(sizes), cohort.seed, sketch_seed)
        simulated = self._last.get(key)
        if simulated is None:
            self._last.clear()  # first, or the directions of two rounds would be in memory
            allocate = cohort.X.allocate
            simulated = Simulated.of(self.oracle, cohort.params, fold, simulants, cohort.seed, sketch, allocate)
            if allocate is in_memory:  # files are as large as hundreds of models, and not to be kept between rounds
                self._last[key] = simulated
        return _Seen(
            fold, sketch_seed, list(sizes), simulants.sizes, View.of(cohort.X, simulated.atoms, sketch), simulated
        )

    @cached_property
    def _last(self) -> dict[tuple[Any, ...], Simulated]:
        """The simulated clients of the round that was judged last, for when it is judged again."""
        return {}

    def _steps(self, held: NDArray[np.floating] | NDArray[np.integer], sizes: list[int]) -> NDArray[np.float64] | None:
        """Local steps of who holds so much, as far as shadows train; ``None`` where all take as many."""
        known = np.clip([*held, *sizes], sizes[0], sizes[-1])
        steps = np.array([self.oracle.steps(int(samples)) for samples in known], np.float64)
        return None if len(set(steps.tolist())) == 1 else steps[: len(held)]

    def _measure(
        self, cohort: Cohort, seen: _Seen, book: Book, rows: NDArray[np.intp], state: State
    ) -> tuple[Findings, _Yardstick]:
        """Compare the clients with the shadows; the book learns their mixes and scores."""
        clients, shadows, flipped = seen.clients, seen.simulated.shadows, seen.simulated.flipped
        book.mix[rows] = _MIX_MEMORY * book.mix[rows] + clients.attribution.mix
        shadow_mix = _MIX_MEMORY * state["shadow_mix"] + np.concatenate([shadows.attribution.mix, flipped.mix])
        usual_work = float(np.median(shadows.attribution.work)) + _TINY
        shown = np.concatenate([figures(each, usual_work) for each in (shadows.attribution, flipped)])
        held = np.tile(seen.held, 2)
        steps = self._steps(held, seen.sizes)
        about = circumstances(held, _normalised(shadow_mix), steps, seen.sizes)
        expected = Expectation.of(shown[: self.shadows], about[: self.shadows])
        shadow_scores = moved(state["shadow_scores"])
        shadow_scores[:, -1] = round_scores(shown, about, expected)
        own_figures = figures(clients.attribution, usual_work)
        claimed, mixes = _held(cohort.examples), _normalised(book.mix[rows])
        own = circumstances(claimed, mixes, self._steps(claimed, seen.sizes), seen.sizes)
        scores = round_scores(own_figures, own, expected)
        told = heard(len(scores))
        shadow_norm = float(np.median(shadows.attribution.norms))
        witnesses = (book.suspicion[rows] == 0) & (clients.attribution.norms > _SILENT * shadow_norm)
        # A score that no drift could be taken from says nothing against a client in later rounds either.
        book.scores[rows, -1] = np.where(told, scores - drift(scores, witnesses), np.minimum(scores, 0.0))
        levels = judge_levels(
            book.scores[rows].astype(np.float64),
            shadow_scores[: self.shadows].astype(np.float64),
            shadow_scores[self.shadows :].astype(np.float64),
            self.bars,
            told,
        ).over(np.where((claimed < _FEW) | (steps is not None), _LENIENT, 1.0))

        turned = turn(clients.directions, book.past[rows, seen.fold])
        shadow_past = state["shadow_past"].copy()
        shadow_turned = turn(shadows.directions, shadow_past[:, seen.fold])
        shadow_past[:, seen.fold] = faded(shadow_past[:, seen.fold], shadows.directions)
        # A client that says nothing has not turned.
        has_past = (book.seen[rows, seen.fold] >= 2) & (clients.attribution.norms > 0)
        turns = np.where(has_past, turn_evidence(turned, shadow_turned, self.turn_bar), _NO_OPINION)
        agreement = Agreement.of(clients, shadows, self.collusion_bar)
        # A client may be copied against its will. To agree with others time and again is its own doing, unless it went
        # on as before and they came to it.
        copied = originals(agreement.alike, turned)
        colluding = np.where(copied, 0.0, np.minimum(agreement.evidence, book.agreement[rows]))
        named = dict(zip(LEVELS, levels.evidence.T, strict=True))
        company = campaign(
            clients.residuals,
            shadows.residuals,
            named["alien"],
            agreement.alike,
            copied,
            self.campaign_bar,
            witnesses & ~(np.nanmax(levels.evidence, axis=1) > 1.0),
        )
        # Whoever is accused of something else is left out until that is over, or it would be what divides the cohort.
        otherwise = np.fmax.reduce([named["relabelling"], named["pair"], named["norm"], turns, colluding])
        suspect = book.suspicion[rows] > 0
        book.otherwise[rows] = (otherwise > 1.0) | (book.otherwise[rows] & suspect)
        # Who is known to be foreign may stand for what divides, but is no news.
        foreign = np.fmax(named["alien"], company.evidence)
        book.foreign[rows] = (foreign > 1.0) | (book.foreign[rows] & suspect)
        counts = ~book.otherwise[rows] & (clients.attribution.norms > _SILENT * shadow_norm)
        once = counts / (1.0 + agreement.alike.sum(axis=1))
        division = divide(
            clients,
            shadows,
            once,
            book.stood[rows],
            book.leaned[rows],
            self.spectral_bar,
            self.bound,
            book.foreign[rows],
        )
        book.leaned[rows] = REMEMBERS * division.leaned
        divided = RECALL * state["divided"] + (1.0 - RECALL) * float(np.log(division.strength))
        place = opened(float(np.exp(divided)), division.sure) * division.place
        stood = RECALL * book.stood[rows] + (1.0 - RECALL) * place
        # Where the bar has risen nobody short of it is accused for earlier rounds, or more would be than is declared.
        risen = division.bar > self.spectral_bar
        book.stood[rows] = np.where(risen & (division.place <= 1.0), np.minimum(stood, 1.0), stood)
        findings = Findings(
            clients,
            seen.simulated.atoms.pairs,
            own_figures,
            expected.usual(own),
            levels,
            turned,
            float(np.median(shadow_turned)),
            turns,
            agreement,
            copied,
            colluding,
            company,
            division,
            np.where(np.isnan(division.shared), _NO_OPINION, book.stood[rows]),
        )
        turns_of_shadows = turn_evidence(shadow_turned, shadow_turned, self.turn_bar)
        mix = np.ascontiguousarray(shadow_mix, np.float32)
        return findings, _Yardstick(shadow_scores, mix, shadow_past, turns_of_shadows, divided)

    def _pogq(self, findings: Findings, yardstick: _Yardstick) -> NDArray[np.float64]:
        """Probability (n,) that a shadow shows at least as much evidence over the same rounds."""
        levels, turns = findings.levels, findings.turn
        own = np.fmax(levels.joint, turns)
        pogq = np.empty(len(own))
        for i in range(len(own)):
            usual = levels.shadows[i] if np.isnan(turns[i]) else np.maximum(levels.shadows[i], yardstick.turn)
            pogq[i] = tail_probability(own[i : i + 1], usual)[0]
        return pogq


def _held(examples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Samples that clients say they hold; a count of 1 is what those have that do not say."""
    return np.where(examples > 1.0, examples, _UNKNOWN_SIZE)


def _normalised(mix: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows that sum to 1; a row of zeros stays as it is."""
    mix = np.ascontiguousarray(mix)  # or the order of the sums, and with it the last bit, would depend on the layout
    return np.asarray(mix / np.maximum(mix.sum(axis=1, keepdims=True), _TINY), np.float64)


def _with_reasons(book: Book, rows: NDArray[np.intp], findings: Findings, before: NDArray[np.bool_]) -> Book:
    """The book with the reasons of this round; who was and is in quarantine keeps why, unless it is convicted anew."""
    reasons, waiting = list(book.reasons), before & (book.suspicion[rows] > 0)
    for row, words, anew, old in zip(rows, findings.reasons(), findings.convicting(), waiting, strict=True):
        if anew or not old:
            reasons[row] = words
    return replace(book, reasons=tuple(reasons))


def _reordered(cohort: Cohort, order: list[int]) -> Cohort:
    rows = np.array(order, dtype=np.intp)
    return replace(
        cohort,
        units=tuple(cohort.units[i] for i in order),
        X=cohort.X.take(rows),
        weights=cohort.weights[rows],
        examples=cohort.examples[rows],
        staleness=cohort.staleness[rows],
        received_at=cohort.received_at[rows],
        self_index=None if cohort.self_index is None else order.index(cohort.self_index),
    )
