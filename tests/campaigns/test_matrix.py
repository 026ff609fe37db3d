"""Attack matrices: what cells they have, how they run and are gone on with, and what their tables say."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from matl.campaigns.matrix import (
    PRESETS,
    Journal,
    Matrix,
    read_matrix,
    resume_matrix,
    run_matrix,
    write_matrix_report,
)
from matl.campaigns.matrix import run as running
from matl.campaigns.matrix.design import matrix_of
from matl.campaigns.matrix.files import Summary, summarise_matrix
from matl.campaigns.matrix.journal import read_rows
from matl.campaigns.matrix.page import render
from matl.campaigns.matrix.published import Published
from matl.campaigns.matrix.results import Results
from matl.campaigns.matrix.tables import Grid, not_applicable, tables
from matl.campaigns.statistics import binomial_interval, holm, t_test
from matl.errors import ConfigError, RunInterrupted, StateError
from matl.simulation import build_simulation, execute, honest_only

VALUES: dict[str, Any] = {"dataset": "synthetic", "clients": 12, "rounds": 3, "task": "softmax"}
TINY = Matrix("tiny", VALUES, ("sign_flip",), (0.25,), (0.5,), ("fedavg", "bulyan", "mode0"), (0, 1))
TIMES = ("seconds", "elapsed", "sitting")


def figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def quoting(*figures: Any, **changes: Any) -> dict[str, Any]:
    """A matrix's file with published figures, perhaps with one key of that table changed."""
    table = {"source": "a paper", "accuracy": list(figures) or [["R", "alie", 0.2, 0.8]], **changes}
    return {"matrix": {"attacks": ["alie"], "fractions": [0.2], "published": table}}


# Design


def test_the_ceiling_and_the_rows_without_an_attack_run_once() -> None:
    matrix = replace(TINY, attacks=("sign_flip", "alie"), fractions=(0.25, 0.4), alphas=(0.5, 0.1))
    names = [tuple(cell.settings.values()) for cell in matrix.cells]
    ceilings = [name for name in names if name[3] == "honest_only"]
    quiet = [name for name in names if name[0] == "none" and name[3] != "honest_only"]
    assert len(ceilings) == len(set(ceilings)) * 2 == 3 * 2 * 2  # fractions 0, .25 and .4, on two alphas and two seeds
    assert len(quiet) == 3 * 2 * 2  # rules, alphas, seeds
    assert len(names) == len(ceilings) + len(quiet) + 2 * 2 * 2 * 3 * 2
    assert len({cell.name for cell in matrix.cells}) == len(names)


def test_single_attacks_can_have_further_fractions() -> None:
    matrix = replace(TINY, attacks=("sign_flip", "alie"), also={"sign_flip": (0.25, 0.4)})
    assert matrix.rows == [("none", 0.0), ("sign_flip", 0.25), ("sign_flip", 0.4), ("alie", 0.25)]


@pytest.mark.parametrize("preset", PRESETS)
def test_matrices_that_come_with_matl_are_sound_and_survive_their_file(preset: str, tmp_path: Path) -> None:
    matrix = read_matrix(preset, seeds=(0,), alphas=(0.5,))
    assert len(matrix.cells) >= 18
    (tmp_path / "matrix.toml").write_text(matrix.to_toml())
    again = resume_matrix(tmp_path)
    assert again == replace(matrix, name=tmp_path.name)
    assert [cell.name for cell in again.cells] == [cell.name for cell in matrix.cells]


def test_what_is_given_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'seeds = [3]\nclients = 9\n[matrix]\nattacks = ["alie", "ipm"]\n'
        "fractions = [0.2]\n[matrix.also]\nalie = [0.3]\n"
    )
    assert read_matrix(path).rows[1:] == [("alie", 0.2), ("alie", 0.3), ("ipm", 0.2)]
    given = read_matrix(path, attacks=("ipm",), seeds=(7, 8), clients=11)
    assert (given.rows[1:], given.seeds, given.values["clients"]) == ([("ipm", 0.2)], (7, 8), 11)


def test_published_figures_are_read_and_those_of_rows_left_out_on_the_command_line_are_dropped() -> None:
    content = quoting(["R", "alie", 0.2, 0.8], ["S", "alie", 0.2, 1])
    published = matrix_of("mine", content).published
    assert published is not None
    assert (published.source, published.rules) == ("a paper", ["R", "S"])
    assert published.accuracy == (("R", "alie", 0.2, 0.8), ("S", "alie", 0.2, 1.0))
    for narrower in ({"fractions": (0.1,)}, {"attacks": ("ipm",)}):
        assert matrix_of("mine", content, **narrower).published is None
    wider = matrix_of("mine", quoting(["R", "alie", 0.2, 0.8]), attacks=("alie", "ipm"), fractions=(0.2, 0.3))
    assert wider.published == Published("a paper", (("R", "alie", 0.2, 0.8),))


def test_the_reproductions_quote_what_was_published() -> None:
    flanders, fltrust = read_matrix("flanders"), read_matrix("fltrust")
    assert (flanders.seeds, fltrust.seeds) == ((20, 21, 22), (20, 21, 22))
    assert flanders.published is not None
    assert fltrust.published is None
    rows = [row for row in flanders.rows if row[0] != "none"]
    assert len(rows) == 8
    accuracies = {rule: [flanders.published.look_up(rule, row) for row in rows] for rule in flanders.published.rules}
    assert accuracies == {  # by attack, 20 % and then 80 %
        "FedAvg": [0.20, 0.21, 0.17, 0.16, 0.67, 0.31, 0.45, 0.13],
        "MultiKrum": [0.78, 0.82, 0.77, 0.21, 0.81, 0.32, 0.82, 0.11],
        "FLANDERS + FedAvg": [0.88, 0.85, 0.87, 0.86, 0.48, 0.88, 0.88, 0.85],
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"matrix": {"attack": ["alie"]}}, "matrix.attack: unknown key (did you mean 'attacks'?)"),
        ({"matrix": {"fractions": ["half"]}}, "fractions: expected a list of numbers, got ['half']"),
        ({"matrix": {"rules": []}}, "rules: expected at least one, got none"),
        ({"seeds": [1, 1]}, "seeds: 1 occurs more than once"),
        ({"seeds": [True]}, "seeds: expected a list of whole numbers"),
        ({"alpha": 0.3}, "alpha: is set by the matrix; leave it out"),
        ({"matrix": {"fractions": [0.0]}}, "part of every matrix"),
        ({"matrix": {"also": {"ipm": [0.3]}}}, "also.ipm: names no attack of this matrix"),
        ({"matrix": []}, "matrix: expected a table"),
        ({"matrix": {"published": [1]}}, "published: expected a table of source and accuracy, got [1]"),
        (quoting(sauce="a paper"), "published.sauce: unknown key; keys: source, accuracy"),
        (quoting(source=""), "published.source: expected a text that says where the figures stand, got ''"),
        (quoting(source=None), "published.source: expected a text that says where the figures stand, got None"),
        (quoting(accuracy=[]), "published.accuracy: expected a list of figures, got []"),
        (quoting(["R", "alie", 0.2, 88]), "both numbers in [0, 1], got ['R', 'alie', 0.2, 88]"),
        (quoting(["R", "alie", 0.2, True]), "both numbers in [0, 1], got ['R', 'alie', 0.2, True]"),
        (quoting(["R", "alie", "0.2", 0.8]), "both numbers in [0, 1], got ['R', 'alie', '0.2', 0.8]"),
        (quoting(["R", 1, 0.2, 0.8]), "expected [rule, attack, fraction, accuracy]"),
        (quoting(["R", "alie", 0.2]), "expected [rule, attack, fraction, accuracy]"),
        (quoting("R"), "expected [rule, attack, fraction, accuracy], both numbers in [0, 1], got 'R'"),
        (quoting(["R", "alie", 0.2, 0.8], ["R", "alie", 0.2, 0.9]), "['R', 'alie', 0.2] occurs more than once"),
        (quoting(["R", "ipm", 0.2, 0.8]), "published.accuracy: 'ipm' with 0.2 malicious is no row of this matrix"),
        (quoting(["R", "alie", 0.3, 0.8]), "published.accuracy: 'alie' with 0.3 malicious is no row of this matrix"),
    ],
)
def test_a_matrix_says_what_is_wrong_with_it(content: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        matrix_of("mine", content)
    assert problem in str(caught.value)


def test_every_cell_is_checked_before_any_runs() -> None:
    matrix = replace(TINY, attacks=("sing_flip",), rules=("fedavg", {"name": "krum", "g": 2}))
    with pytest.raises(ConfigError) as caught:
        _ = matrix.cells
    assert "did you mean 'sign_flip'?" in str(caught.value)
    assert "rule 'krum' has no option 'g'" in str(caught.value).replace("aggregator 'krum'", "rule 'krum'")


def test_a_row_in_which_nobody_would_attack_is_refused(tmp_path: Path) -> None:
    matrix = replace(TINY, values={**VALUES, "clients": 4}, fractions=(0.2, 0.25), also={"sign_flip": (0.1,)})
    with pytest.raises(ConfigError) as caught:
        run_matrix(matrix, out=tmp_path / "refused")
    assert caught.value.problems == [
        f"fractions: {fraction} of 4 clients, rounded down, is nobody, and the row would have no attack; take at least "
        "0.25, or more clients"
        for fraction in (0.1, 0.2)
    ]
    assert not (tmp_path / "refused").exists()


def test_a_file_that_is_none_is_told_with_the_matrices_there_are() -> None:
    with pytest.raises(ConfigError, match=r"neither a file nor a matrix that comes with MATL: .*digits"):
        read_matrix("digit")


# Running


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("matrix") / "tiny"
    return out, run_matrix(TINY, out=out)


def test_cells_are_those_of_runs_by_themselves(done: tuple[Path, list[dict[str, Any]]]) -> None:
    rows = {row["cell"]: row for row in done[1]}
    for cell in [cell for cell in TINY.cells if cell.config.seed == 1 and not rows[cell.name]["not_applicable"]]:
        simulation = build_simulation(cell.config)
        ceiling = cell.settings["rule"] == "honest_only"
        alone = execute(honest_only(simulation) if ceiling else simulation, cell.config, name="alone").as_dict()
        row = rows[cell.name]
        assert (row["model_hash"], row["tpr"]) == (alone["model_hash"], alone["tpr"])
        if alone["detection"]:
            assert row["auroc"] == alone["detection"]["auroc"]


def test_a_rule_outside_its_bound_has_a_reason_instead_of_a_figure(done: tuple[Path, list[dict[str, Any]]]) -> None:
    refused = [row for row in done[1] if row["not_applicable"]]
    assert {(row["rule"], row["byzantine"]) for row in refused} == {("bulyan", 0.25)}
    assert "tolerates at most 2 malicious ones, got f=3" in refused[0]["not_applicable"]
    assert not any(row["failure"] for row in done[1])


def test_several_processes_come_to_the_same_figures(done: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    assert figures(run_matrix(TINY, out=tmp_path / "two", jobs=2)) == figures(done[1])


def test_a_stopped_matrix_is_gone_on_with(done: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    out, seen = tmp_path / "stopped", []
    with pytest.raises(RunInterrupted, match="stopped with 5 of 16 cells done"):
        run_matrix(TINY, out=out, notify=seen.append, stop=lambda: len(seen) == 5)
    with (out / "cells.jsonl").open("a") as stream:
        stream.write('{"cell": "half a li')  # as a process leaves it that is killed while it writes
    earlier: list[bool] = []
    rows = run_matrix(resume_matrix(out), out=out, resume=True, notify=lambda outcome: earlier.append(outcome.earlier))
    assert earlier == [True] * 5 + [False] * 11
    assert figures(rows) == figures(done[1])
    assert [row["sitting"] for row in read_rows(out)] == [1] * 5 + [2] * 11


def test_cells_that_failed_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, out = replace(TINY, rules=("fedavg",), seeds=(0,)), tmp_path / "failing"

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("no clients\nat all")

    with monkeypatch.context() as patch:
        patch.setattr(running, "execute", fail)
        rows = run_matrix(matrix, out=out)
    assert {row["failure"] for row in rows} == {"ZeroDivisionError: no clients at all"}
    assert summarise_matrix(out).origin["failed"] == 4
    rows = run_matrix(matrix, out=out, resume=True)
    assert not any(row["failure"] for row in rows)
    assert len(read_rows(out)) == 8
    assert summarise_matrix(out).origin["failed"] == 0


def test_one_federation_is_dealt_for_all_cells_that_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dealt = []
    running._dealt_anew.cache_clear()
    monkeypatch.setattr(running, "deal", lambda source, config: dealt.append(config) or real(source, config))
    run_matrix(replace(TINY, alphas=(0.5, 0.1), rules=("fedavg",)), out=tmp_path / "dealt")
    assert [(config.seed, config.alpha) for config in dealt] == [(0, 0.1), (0, 0.5), (1, 0.1), (1, 0.5)]


real = running.deal


def test_results_of_other_constants_or_cells_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, out = replace(TINY, rules=("mode0",), seeds=(0,)), tmp_path / "mixed"
    run_matrix(matrix, out=out)
    with monkeypatch.context() as patch:
        patch.setattr("matl.trust.peers.KAPPA", 99.0)
        with pytest.raises(StateError, match="results of mode0 with other constants"):
            run_matrix(matrix, out=out, resume=True)
    with pytest.raises(StateError, match="which is no cell of this matrix"):
        run_matrix(replace(matrix, seeds=(1,)), out=out, resume=True)
    with pytest.raises(StateError, match="already holds a matrix; go on with matl matrix --resume"):
        run_matrix(matrix, out=out)


def test_two_processes_do_not_write_the_same_journal(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(StateError, match="is being worked on by another process"):
        Journal(tmp_path)
    with Journal(tmp_path) as journal:
        journal.append({"cell": "a"})
    (tmp_path / "cells.jsonl").write_text("{}\n")
    with pytest.raises(StateError, match="no results of cells"):
        Journal(tmp_path)
    (tmp_path / "cells.jsonl").write_text("nonsense\n")
    with pytest.raises(StateError, match="cannot be read"):
        Journal(tmp_path)


# Tables

SKETCH = Matrix("sketch", {}, ("sign_flip", "alie"), (0.2,), (0.5,), ("fedavg", "krum", "mode1"), (0, 1, 2))
ACCURACY = {  # by rule and attack, the mean; seeds differ by a tenth to either side
    ("fedavg", "none"): 0.8,
    ("fedavg", "sign_flip"): 0.2,
    ("fedavg", "alie"): 0.6,
    ("mode1", "none"): 0.8,
    ("mode1", "sign_flip"): 0.5,
    ("mode1", "alie"): 0.6,
    ("krum", "none"): 0.7,
    ("krum", "alie"): 0.4,
}


def invented(**changes: Any) -> Results:
    rows: list[dict[str, Any]] = []
    for cell in SKETCH.cells:
        rule, attack = cell.settings["rule"], cell.settings["attack"]
        row: dict[str, Any] = {"cell": cell.name, **cell.settings, "seed": cell.config.seed, "not_applicable": ""}
        row |= {"failure": "", "judge": "", "commit": "", "sitting": 1, "elapsed": 1.0, "outside_bound": False}
        mean = ACCURACY.get((rule, attack))
        if rule == "honest_only":  # fewer clients, a lower ceiling
            mean = 0.8 - 0.25 * cell.settings["byzantine"]
        if mean is None:
            rows.append({**row, "not_applicable": "too many"})
            continue
        accuracy = mean + 0.1 * (cell.config.seed - 1)
        row |= {
            "accuracy": accuracy,
            "curve": [0.3, 0.65, accuracy],
            "clients": 50,
            "malicious": 10 * (attack != "none"),
        }
        row["gives_verdicts"] = rule == "mode1"
        if rule == "mode1":
            row |= {
                "tpr": 0.9 if attack != "none" else None,
                "fpr": 0.05,
                "auroc": 0.975,
                "outside_bound": attack == "alie",
            }
        rows.append({**row, **changes})
    return Results(SKETCH, rows)


def grid(results: Results, title: str) -> Grid:
    (found,) = (one for one in tables(results) if one.title.startswith(title))
    return found


def cell(results: Results, title: str, row: str, column: str) -> str:
    found = grid(results, title)
    entry = dict(found.rows)[row][found.header.index(column) - 1]
    return f"{entry.text} {entry.detail}".strip()


def test_figures_are_means_with_intervals_over_seeds() -> None:
    half = 100 * stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert cell(invented(), "Accuracy", "sign flip, 20 %", "fedavg") == f"20.0 ± {half:.1f}"
    assert cell(invented(), "Accuracy", "sign flip, 20 %", "ceiling") == f"75.0 ± {half:.1f}"


def test_gaps_and_margins_are_paired_by_seed() -> None:
    results = invented()
    assert cell(results, "Gap to the ceiling", "sign flip, 20 %", "fedavg") == "\u221255.0 ± 0.0"
    assert cell(results, "mode1 against the others", "sign flip, 20 %", "fedavg") == "+30.0† ± 0.0"
    assert cell(results, "mode1 against the others", "alie, 20 %", "fedavg") == "0.0 * ± 0.0"
    assert "the 5 comparisons" in grid(results, "mode1 against the others").caption  # krum has no figure in one row


def test_the_worst_case_is_over_attacks_and_ahead_over_shared_ones() -> None:
    results = invented()
    found = {name: [entry.text for entry in cells] for name, cells in grid(results, "Worst cases").rows}
    assert found["fedavg"][:3] == ["20.0", "sign flip, 20 %", "\u221255.0"]
    assert found["mode1"][:2] == ["50.0", "sign flip, 20 %"]
    assert found["krum"][:2] == ["40.0", "alie, 20 %"]
    assert found["fedavg"][-1] == "+30.0"
    assert found["krum"][-1] == "+20.0"  # both ran under ALIE alone
    assert cell(results, "Worst cases", "krum", "under") == "alie, 20 % (1 row without a figure)"


def test_a_judge_that_falls_outside_its_bound_has_a_worst_case_within_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mode1, within its bound" not in dict(grid(invented(), "Worst cases").rows)
    monkeypatch.setitem(ACCURACY, ("mode1", "alie"), 0.2)
    results = invented()
    assert cell(results, "Worst cases", "mode1", "worst case").startswith("20.0 *")
    assert cell(results, "Worst cases", "mode1, within its bound", "worst case").startswith("50.0 ±")
    assert cell(results, "Worst cases", "mode1, within its bound", "under") == "sign flip, 20 %"


def test_cells_outside_a_bound_are_marked_and_explained() -> None:
    results = invented()
    assert cell(results, "Accuracy", "sign flip, 20 %", "krum") == "n/a"
    assert cell(results, "Accuracy", "alie, 20 %", "mode1").startswith("60.0 * ±")
    assert not_applicable(results) == ["n/a (sign flip, 20 %): too many"]
    assert [name for name, _ in grid(results, "Detection by mode1").rows][2] == "alie, 20 % *"


def test_detection_tells_shares_and_numbers() -> None:
    results = invented()
    assert cell(results, "Detection by mode1", "sign flip, 20 %", "caught") == "90.0 ± 0.0, 27 of 30 (73.5 to 97.9)"
    assert cell(results, "Detection by mode1", "nobody attacks", "accused") == "5.0 ± 0.0, 6 of 150 (1.5 to 8.5)"
    assert cell(results, "Detection by mode1", "nobody attacks", "caught") == "\u2013"
    assert cell(results, "Detection by mode1", "sign flip, 20 %", "AUROC") == "0.975 ± 0.000"


def test_nobody_accused_is_not_taken_for_certainty() -> None:
    results = invented(fpr=0.0)
    told = "0.0 ± 0.0, 0 of 150 (0.0 to 2.4)"
    assert cell(results, "Detection by mode1", "nobody attacks", "accused") == told
    assert cell(results, "Worst cases", "mode1", "accused, nobody attacks") == told
    for title in ("Detection by mode1", "Worst cases"):
        assert "(Clopper and Pearson)" in grid(results, title).caption


def test_captions_say_what_a_fraction_is_in_clients() -> None:
    assert SKETCH.rounded == ""  # 20 % of 50 are 10
    matrix = replace(SKETCH, fractions=(0.2, 0.45), also={"sign_flip": (0.33,)})
    assert matrix.rounded == "Of 50 clients 33 % are 16 (32 %), 45 % are 22 (44 %)."
    assert all(one.caption.endswith(matrix.rounded) for one in tables(Results(matrix, invented().rows)))
    assert replace(SKETCH, fractions=(0.29,), values={"clients": 100}).rounded == ""  # 28.999999999999996


def test_rounds_to_the_ceiling_count_who_never_gets_there() -> None:
    # Against ceilings of .65, .75 and .85, nine tenths of which are .585, .675, .765, round 2 has .65.
    assert cell(invented(), "Rounds to 90 %", "sign flip, 20 %", "fedavg") == "never"
    assert cell(invented(), "Rounds to 90 %", "nobody attacks", "fedavg") == "3"


QUOTED = Published("A paper, 2023", (("FLANDERS", "alie", 0.2, 0.875), ("FedAvg", "sign_flip", 0.2, 0.07)))


def test_published_figures_stand_beside_ours_and_say_what_they_are() -> None:
    results = Results(replace(SKETCH, published=QUOTED), invented().rows)
    theirs = "FLANDERS, published (their models, data split and code)"
    assert cell(results, "Accuracy", "alie, 20 %", theirs) == "87.5"
    assert cell(results, "Accuracy", "sign flip, 20 %", theirs) == "\u2013"
    found = grid(results, "Accuracy")
    assert found.header[-2:] == (theirs, theirs.replace("FLANDERS", "FedAvg"))
    assert "Published (their models, data split and code): A paper, 2023." in found.caption
    assert cell(results, "Accuracy", "sign flip, 20 %", found.header[-1]) == "7"
    others = [one for one in tables(results) if one is not found and not one.title.startswith("Accuracy")]
    assert all("published" not in name for one in others for name in one.header)
    ours = grid(invented(), "Accuracy")
    assert found.header[: len(ours.header)] == ours.header  # what is ours stays where it was
    assert [cells[: len(ours.header) - 1] for _, cells in found.rows] == [cells for _, cells in ours.rows]


def test_published_figures_reach_the_files_and_the_page(tmp_path: Path) -> None:
    quoted = Published("A paper", (("Theirs", "sign_flip", 0.25, 0.5),))
    matrix = replace(TINY, rules=("fedavg",), seeds=(0,), published=quoted)
    run_matrix(matrix, out=tmp_path / "quoted")
    summary = write_matrix_report(tmp_path / "quoted")
    for text in (summary.as_markdown(), (tmp_path / "quoted" / "report.html").read_text()):
        assert "Theirs, published (their models, data split and code)" in text
        assert "Published (their models, data split and code): A paper." in text


def test_a_partition_without_alpha_is_named_in_its_place() -> None:
    dealt = replace(SKETCH, values={"partition": {"name": "group_bias", "bias": 0.5}})
    assert [one.title for one in tables(Results(dealt, invented().rows))][:2] == [
        "Worst cases, group_bias:bias=0.5",
        "Accuracy, group_bias:bias=0.5",
    ]
    text = page(Results(dealt, invented(roc=[0.1] * 11).rows))
    assert "\u03b1" not in text.partition("All settings")[0]


def test_failed_seeds_are_told_and_do_not_count() -> None:
    results = invented()
    rows = [dict(row) for row in results.rows]
    lost = next(row for row in rows if row["rule"] == "fedavg" and row["attack"] == "alie" and row["seed"] == 2)
    lost.update(accuracy=None, failure="out of memory", curve=None)
    assert cell(Results(SKETCH, rows), "Accuracy", "alie, 20 %", "fedavg").endswith("(1 failed)")
    assert cell(Results(SKETCH, rows), "Accuracy", "alie, 20 %", "fedavg").startswith("55.0")


def test_an_unfinished_matrix_has_tables_too() -> None:
    results = invented()
    assert tables(Results(SKETCH, results.rows[:7]))
    assert tables(Results(SKETCH, []))


def test_files_hold_every_cell_and_say_where_they_come_from(done: tuple[Path, list[dict[str, Any]]]) -> None:
    out = done[0]
    summary = summarise_matrix(out)
    with (out / "cells.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["cell"] for row in rows] == [cell.name for cell in TINY.cells]
    assert all(row["ceiling_accuracy"] for row in rows)
    content = json.loads((out / "matrix.json").read_text())
    assert (content["cells"], content["done"], content["not_applicable"], content["failed"]) == (16, 16, 2, 0)
    assert content["judges"] == TINY.judges
    text = (out / "summary.md").read_text()
    for line in (*summary.footer, "Seeds 0, 1; 16 of 16 cells", TINY.judges["mode0"][:12], "| sign flip, 25 % |"):
        assert line in text


def test_tables_name_the_constants_that_judged_and_not_those_of_today(
    done: tuple[Path, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(done[0], tmp_path / "older")
    today = TINY.judges | {"mode0": "f" * 64}
    monkeypatch.setattr(Matrix, "judges", today)
    assert summarise_matrix(out).origin["judges"]["mode0"] != "f" * 64


# Presets


def test_the_digits_matrix_runs(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    matrix = read_matrix("digits", rounds=2, seeds=(10,), attacks=("sign_flip", "alie"), fractions=(0.4,))
    rows = run_matrix(matrix, out=tmp_path / "digits", jobs=1)
    summary = write_matrix_report(tmp_path / "digits")
    assert len(rows) == len(matrix.cells) == 2 + (1 + 2) * 7
    assert not summary.failures
    assert not any(row["not_applicable"] for row in rows)
    assert all(row["accuracy"] > 0.3 for row in rows if row["attack"] == "none" and row["rule"] == "mode1")
    assert {row["malicious"] for row in rows if row["attack"] != "none"} == {12}
    assert {one.topic for one in summary.grids} >= {"overview", "accuracy", "margins", "detection", "fairness", "speed"}


def test_without_skew_the_partition_stands_in_the_place_of_alpha() -> None:
    iid, mild, main = (read_matrix(name) for name in ("iid", "mild", "main"))
    assert (iid.skew(iid.alphas[0]), mild.skew(mild.alphas[0])) == ("iid", "\u03b1 = 1")
    assert {cell.config.partition for cell in iid.cells} == {"iid"}
    assert iid.rows == mild.rows
    assert {key: value for key, value in iid.values.items() if key != "partition"} == mild.values == main.values


# Statistics


@pytest.mark.parametrize(("found", "total"), [(0, 500), (12, 500), (500, 500), (1, 1), (3, 4)])
def test_binomial_interval_agrees_with_scipy(found: int, total: int) -> None:
    exact = stats.binomtest(found, total).proportion_ci(method="exact")
    assert binomial_interval(found, total) == pytest.approx((exact.low, exact.high))


def test_t_test_and_holm_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(loc, 1.0, size) for loc, size in ((0.0, 10), (0.5, 5), (2.0, 3))]
    for sample in samples:
        assert t_test(sample.tolist()) == pytest.approx(stats.ttest_1samp(sample, 0.0).pvalue)
    assert t_test([0.5]) is None
    assert (t_test([0.0, 0.0]), t_test([0.25, 0.25])) == (1.0, 0.0)
    assert holm([0.01, 0.02, 0.5, 0.04]) == pytest.approx([0.04, 0.06, 0.5, 0.08])
    assert holm([]) == []


# The page


def page(results: Results) -> str:
    origin = {
        "done": len(results.rows),
        "cells": len(SKETCH.cells),
        "failed": 0,
        "not_applicable": 3,
        "seeds": [0, 1, 2],
    }
    origin |= {"commits": ["abc*"], "versions": {"matl": "0"}, "judges": SKETCH.judges}
    origin |= {"wall_seconds": 1.0, "cell_seconds": 2.0, "sittings": 1}
    return render(Summary(results, tables(results), not_applicable(results), origin))


def test_the_page_holds_every_table_and_where_it_comes_from() -> None:
    text = page(invented(roc=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], attack_success_rate=0.25))
    for grid_of in tables(invented(attack_success_rate=0.25)):
        assert grid_of.title in text
    assert "3 attacks" not in text
    assert "2 attacks against 3 rules" in text
    assert "catches 40.0\u202f% at 5 %" in text  # for who does not see the ROC curves
    assert 'class="n good-10"' in text
    assert 'class="n bad-2"' in text  # a quarter of the triggered samples
    assert SKETCH.judges["mode1"][:16] in text
    assert "abc*" in text
    assert "Unfinished" not in text
    assert not re.search(r"<[^>]+ style=|https?://", text)  # nothing the policy refuses, nothing fetched


def test_the_page_says_whether_a_worst_case_is_within_the_bound_of_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = page(invented(outside_bound=False))
    assert "; within its bound" not in inside
    assert "; outside its bound" not in inside
    assert "; outside its bound" in page(invented(outside_bound=True))
    monkeypatch.setitem(ACCURACY, ("mode1", "alie"), 0.2)  # which is outside
    assert "under sign flip, 20 %, \u03b1 = 0.5; within its bound" in page(invented())


def test_the_page_of_an_unfinished_matrix_says_so() -> None:
    assert f"5 of {len(SKETCH.cells)} cells have run" in page(Results(SKETCH, invented().rows[:5]))


def test_text_from_cells_is_escaped() -> None:
    rows = [{**row, "not_applicable": "<script>alert()</script>"} for row in invented().rows]
    assert "<script>alert" not in page(Results(SKETCH, rows))
