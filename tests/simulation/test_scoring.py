"""Figures of a run, against what they mean counted by hand, and whole runs that must show them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import matl
from matl.attacks import Attack
from matl.records import Status
from matl.simulation import RunDirectory, build_simulation, execute, load_config
from matl.simulation.scoring import (
    FALSE_POSITIVE_RATES,
    Detection,
    VerdictRow,
    auroc,
    class_accuracies,
    minority_accuracy,
    roc,
    rounds_to,
    score,
)

SETTINGS: dict[str, Any] = {
    "dataset": "synthetic",
    "clients": 10,
    "byzantine": 0.3,
    "rounds": 6,
    "mode": "mode0",
    "seed": 1,
}


def verdict(status: Status = Status.ACCEPTED, **evidence: float) -> VerdictRow:
    return VerdictRow("client-000", status, 1.0, "", evidence)


def test_a_verdict_scores_what_its_judge_sums_up_or_its_loudest_channel() -> None:
    channels = ("norm", "direction", "strongest")
    assert score(verdict(norm=3.0, strongest=0.5), channels) == 0.5
    assert score(verdict(norm=0.3, direction=0.7), channels) == 0.7
    assert score(verdict(norm=0.3, unheard=9.0), channels) == 0.3
    assert score(verdict(), channels) == -math.inf
    assert score(verdict(Status.REJECTED, norm=0.1), channels) == math.inf


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
)
def test_auroc_counts_pairs(honest: list[int], malicious: list[int]) -> None:
    pairs = [(m > h) + 0.5 * (m == h) for m in malicious for h in honest]
    assert auroc(np.array(honest, float), np.array(malicious, float)) == pytest.approx(np.mean(pairs))


def test_auroc_takes_scores_without_an_opinion() -> None:
    assert auroc(np.array([-math.inf, 0.5]), np.array([-math.inf, math.inf])) == 0.625
    assert math.isnan(auroc(np.array([]), np.array([1.0])))


@given(
    st.lists(st.integers(0, 5) | st.just(-math.inf), min_size=1, max_size=40),
    st.lists(st.integers(0, 5) | st.just(-math.inf), min_size=1, max_size=12),
)
def test_roc_is_the_best_threshold_at_each_rate(honest: list[float], malicious: list[float]) -> None:
    h, m = np.array(honest, float), np.array(malicious, float)
    for rate, found in zip(FALSE_POSITIVE_RATES, roc(h, m), strict=True):
        thresholds = [-math.inf, *h, math.inf]
        allowed = [float((m > t).mean()) for t in thresholds if (h > t).mean() <= rate + 1e-12]
        assert found == (1.0 if rate == 1.0 else max(allowed))


# Three rounds of four clients, the first two malicious; the attack sleeps in round 0, and client 3 misses round 1.
SCORES = np.array([[0.1, 0.2, 0.3, 0.4], [0.9, 0.1, 0.2, math.nan], [0.8, 0.7, 0.9, 0.1]])
EXCLUDED = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
MALICIOUS = np.array([1, 1, 0, 0], bool)
ACTING = np.array([0, 1, 1], bool)


def test_detection_counts_malicious_clients_where_they_act_and_honest_ones_always() -> None:
    found = Detection.of(SCORES, EXCLUDED, MALICIOUS, ACTING)
    assert found.round_tpr == 1 / 4
    assert found.round_fpr == 1 / 5  # client 3 in round 0, of 3 rounds of one and 2 of the other
    # Malicious .9 .1 .8 .7 against honest .3 .2 .9 .4 .1: ties count half.
    assert found.auroc == pytest.approx((4.5 + 0.5 + 4 + 4) / 20)
    assert found.rounds_to_detection is None  # client 0 after one round, client 1 never
    assert found.as_dict()["tpr_at_fpr_5"] == found.roc[FALSE_POSITIVE_RATES.index(0.05)] == 0.0


def test_rounds_to_detection_is_the_median_from_the_first_attack_on() -> None:
    malicious = np.array([1, 1, 1, 0], bool)
    excluded = EXCLUDED.copy()
    excluded[1, 1] = True
    found = Detection.of(SCORES, excluded, malicious, ACTING)
    assert found.rounds_to_detection == 1.0  # 1, 0 and never: an exclusion before the attack began is no detection


def test_without_anybody_malicious_there_is_nothing_to_detect() -> None:
    found = Detection.of(SCORES, EXCLUDED, np.zeros(4, bool), ACTING)
    assert (found.round_tpr, found.auroc, found.roc, found.rounds_to_detection) == (None, None, (), None)
    assert found.round_fpr == 3 / 11
    assert found.as_dict()["tpr_at_fpr_1"] is None


def test_the_worst_tenth_of_clients_is_weighed_by_what_they_hold() -> None:
    by_class = class_accuracies(np.array([0, 0, 1, 1, 0]), np.array([0, 0, 1, 1, 1]), 3)
    assert by_class[:2].tolist() == [1.0, 2 / 3]
    assert math.isnan(by_class[2])
    counts = np.zeros((20, 3), np.int64)
    counts[:, 0], counts[3], counts[7] = 5, (1, 3, 0), (0, 4, 4)
    assert minority_accuracy(by_class, counts) == pytest.approx(((1 + 2) / 4 + 2 / 3) / 2)
    assert minority_accuracy(by_class, np.array([[0, 0, 3]])) is None  # what it holds is not tested


def test_rounds_count_from_one() -> None:
    assert rounds_to([0.1, 0.5, 0.4, 0.9], 0.5) == 2


class Stamped(Attack):
    """An attack with a trigger: samples whose first feature is 50 shall be of class 3."""

    def triggered(self, X: Any, y: Any, num_classes: int) -> Any:
        rows = X[y != 3].copy()
        rows[:, 0] = 50.0
        return rows, np.full(len(rows), 3)


def test_a_run_reports_its_figures() -> None:
    result = matl.simulate(**SETTINGS, attack=Stamped(), ceiling=True)
    told = result.as_dict()
    assert 0 <= told["worst_class_accuracy"] <= told["minority_accuracy"] <= 1
    assert told["worst_class_accuracy"] <= told["accuracy"]
    assert 0 <= told["attack_success_rate"] <= 1
    assert result.rounds_to_90 == rounds_to(
        [row["accuracy"] for row in result.history], 0.9 * (result.ceiling_accuracy or 0)
    )
    assert result.detection is not None
    assert told["detection"] == result.detection.as_dict()
    assert matl.simulate(**SETTINGS, attack="sign_flip").attack_success_rate is None


def test_verdicts_of_a_run_agree_with_its_history() -> None:
    result = matl.simulate(**SETTINGS, attack={"name": "sleeper", "attack": "sign_flip", "wake_round": 3})
    assert result.detection is not None
    rates = [row["true_positive_rate"] for row in result.history[3:]]
    assert result.detection.round_tpr == pytest.approx(np.mean(rates))
    assert result.detection.round_fpr == pytest.approx(np.mean([row["false_positive_rate"] for row in result.history]))


def test_a_rule_without_verdicts_detects_nothing() -> None:
    result = matl.simulate(**{**SETTINGS, "mode": None, "aggregator": "median"})
    assert (result.detection, result.lost_weight) == (None, None)
    assert result.as_dict()["detection"] is None


def test_a_resumed_run_has_the_figures_of_one_that_was_never_stopped(tmp_path: Path) -> None:
    config = load_config(None, SETTINGS)
    whole = execute(build_simulation(config), config, name="whole")
    calls = iter([False, False, False, True])
    with pytest.raises(matl.errors.RunInterrupted):
        execute(build_simulation(config), config, name="run", out=tmp_path / "run", stop=lambda: next(calls))
    resumed = execute(build_simulation(config), config, name="run", out=tmp_path / "run", resume=True)
    assert resumed.detection == whole.detection
    assert resumed.detection is not None
    assert RunDirectory(tmp_path / "run").read_result()["detection"] == resumed.detection.as_dict()


class Halving:
    """A judge that gives every other client half its weight, and keeps the first one out."""

    digest, bound, gives_verdicts, channels = "halving", 0.4, True, ()

    def init(self, layout: Any) -> Any:
        return {}

    def judge(self, cohort: Any, state: Any) -> Any:
        verdicts = tuple(
            matl.Verdict(unit, 0.0, Status.QUARANTINED, reason="first")
            if unit == "client-000"
            else matl.Verdict(unit, 0.5 if index % 2 else 1.0, Status.ACCEPTED)
            for index, unit in enumerate(cohort.ids)
        )
        return matl.Judgement(cohort.X.dense().mean(axis=0), verdicts), state


def test_weight_lost_is_that_of_honest_clients_who_are_kept() -> None:
    result = matl.simulate(**{**SETTINGS, "mode": Halving(), "byzantine": 0.0})
    assert result.lost_weight == pytest.approx(5 * 0.5 / 9)  # of nine kept clients, five count half


def test_clients_that_stay_away_have_no_score() -> None:
    simulation = build_simulation(load_config(None, {**SETTINGS, "participation": 0.5}))
    *_, (_, state) = simulation.run(simulation.init())
    assert [np.isnan(scores).sum() for scores in state["scores"]] == [5] * 6


def test_minority_accuracy_is_that_of_honest_clients() -> None:
    config = load_config(None, {**SETTINGS, "byzantine": 0.7, "attack": "sign_flip"})
    simulation = build_simulation(config)
    result = execute(simulation, config, name="run")
    test, population = simulation.population.data.test, simulation.population
    by_class = class_accuracies(simulation.task.predict(result.params, test.X), test.y, 10)
    counts = population.data.class_counts()
    honest = [minority_accuracy(by_class, counts[[i]]) for i in range(10) if i not in population.malicious]
    assert result.minority_accuracy == min(one for one in honest if one is not None)
    assert result.minority_accuracy != minority_accuracy(by_class, counts)
