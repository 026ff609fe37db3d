"""The targets that a published attack matrix is held to, and what is said of them."""

import importlib.util
import json
from pathlib import Path

import pytest

from matl.campaigns.matrix import Matrix, run_matrix
from matl.campaigns.matrix.results import Results
from matl.campaigns.report.markup import UNDEFINED

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HIDDEN = ({"name": "backdoor", "share": 0.1}, {"name": "backdoor", "share": 0.2})
MAIN = Matrix("main", {}, ("backdoor", *HIDDEN, "targeted_flip"), (0.2, 0.45), (0.5, 0.1), ("fedavg", "mode1"), (0, 1))
WHITE_BOX = ("cone", {"name": "cone", "rehearsals": 12}, "disguise")
WHITE = Matrix("white_box", {}, WHITE_BOX, (0.45,), (0.5, 0.1), ("mode1",), (0, 1))


@pytest.fixture
def published(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("publish_matrix", BENCHMARKS / "publish_matrix.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def invented(matrix, **by_attack):
    """Results in which Mode 1 does as well as the honest clients alone, but for some figures of single attacks."""
    rows = []
    for cell in matrix.cells:
        judged, attack = cell.settings["rule"] == "mode1", cell.settings["attack"]
        row = {"cell": cell.name, **cell.settings, "seed": cell.config.seed, "clients": 50, "outside_bound": False}
        row |= {"accuracy": 0.9, "worst_class_accuracy": 0.8, "not_applicable": "", "failure": "", "curve": [0.9]}
        row |= {"malicious": int(50 * cell.settings["byzantine"]), "gives_verdicts": judged, "judge": ""}
        if judged:
            row |= {"fpr": 0.0, "round_fpr": 0.0, "attack_success_rate": 0.0}
            row |= {"tpr": 1.0, "round_tpr": 1.0} if attack != "none" else {}
            row |= by_attack.get(attack, {})
        rows.append(row)
    return Results(matrix, rows)


def lines(text):
    """The rows of all tables by their first cell."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in cells}


def test_hidden_backdoors_and_adapted_cones_are_held_to_the_same_targets(published):
    main = invented(MAIN, **{"backdoor:share=0.1": {"attack_success_rate": 0.31}})
    white = {"cone:rehearsals=12": {"accuracy": 0.869}, "disguise": {"attack_success_rate": 0.4}}
    rows = lines(published.targets(main, invented(WHITE, **white)))
    success, gap = "success of the stealth", "gap to the ceiling under"
    assert rows[f"{success} backdoor, 45 %, alpha 0.5"] == ["≤ 20%", "0.0 ± 0.0 %", "yes"]
    assert rows[f"{success} backdoor (share=0.1), 45 %, alpha 0.5"] == ["≤ 20%", "31.0 ± 0.0 %", "**no**"]
    assert rows[f"{success} backdoor (share=0.2), 45 %, alpha 0.1"] == ["≤ 20%", "0.0 ± 0.0 %", "yes"]
    assert rows[f"{success} disguise, 45 %, alpha 0.1"] == ["≤ 20%", "40.0 ± 0.0 %", "**no**"]
    assert rows[f"{gap} cone, 45 %, alpha 0.1"] == ["≥ \u22123", "0.0 ± 0.0", "yes"]
    assert rows[f"{gap} cone (rehearsals=12), 45 %, alpha 0.1"] == ["≥ \u22123", "\u22123.1 ± 0.0", "**no**"]


def test_targets_need_no_rows_that_a_matrix_does_not_have(published):
    text = published.targets(invented(Matrix("main", {}, ("sign_flip",), (0.45,), (0.5,), ("fedavg", "mode1"))), None)
    assert "backdoor" not in "".join(lines(text))
    assert "a matrix of their own" in text


def test_nobody_accused_has_an_interval(published):
    rows = lines(published.targets(invented(MAIN), None))
    assert rows["accused, nobody attacks, alpha 0.5"] == ["≤ 2%", "0.0%, 0 of 100 (0.0 to 3.6 %)", "yes"]


def test_it_is_said_how_targets_are_decided_and_what_a_fraction_is(published):
    head, _, _ = published.targets(invented(MAIN), None).partition("| what |")
    assert "decided on the mean over the seeds" in head
    assert "Of 50 clients 45 % are 22 (44 %)." in head


def test_detection_and_success_are_held_against_the_prototype(published):
    figures = {"round_tpr": 0.6, "attack_success_rate": 0.08, "round_fpr": 0.001, "accuracy": 0.9}
    text = published.targets(invented(MAIN, targeted_flip=figures), None)
    rows = lines(text)
    assert rows["targeted flip, 45 %, alpha 0.5"] == [
        "0.0 ± 0.0 (\u22120.2)",
        "60.0 ± 0.0 (79.9)",
        "0.1 ± 0.0 (0.3)",
        "8.0 ± 0.0 (5)",
        "caught; success",
    ]
    assert rows["targeted flip, 45 %, alpha 0.1"][-1] == "success"
    assert rows["backdoor, 45 %, alpha 0.5"] == [UNDEFINED, "100.0 ± 0.0 (93)", UNDEFINED, "0.0 ± 0.0 (43)", "nothing"]
    told = text.splitlines()[-1]
    assert told.startswith(
        "Of 16 figures 3 are worse than the prototype's, 3 of them by more than their 95 % interval: "
    )
    assert "targeted flip, 45 %, alpha 0.5: caught; " in told


def test_what_an_interval_leaves_open_is_told_apart(published):
    results = invented(MAIN)
    for row in results.rows:
        if row["attack"] == "targeted_flip" and row["rule"] == "mode1":
            row["round_tpr"] = 0.3 + 0.3 * row["seed"]  # 45 % on average
    rows = [row for alpha in (0.5, 0.1) for row in published.prototype(results, results, alpha)]
    assert [row[-1] for row in rows if row[0].startswith("targeted flip")] == ["caught, within its interval"] * 2
    assert published.misses(rows) == (
        "Of 16 figures 2 are worse than the prototype's, 0 of them by more than their 95 % interval."
    )


def test_a_whole_matrix_is_copied_to_where_it_is_to_stand(published, tmp_path):
    values = {"dataset": "synthetic", "clients": 12, "rounds": 1, "task": "softmax"}
    run_matrix(Matrix("own", values, ("sign_flip",), (0.25,), (0.5,), ("median",), (0,)), out=tmp_path / "own")
    journal = tmp_path / "own" / "cells.jsonl"
    rows = [{**json.loads(line), "commit": "abc"} for line in journal.read_text().splitlines()]
    given = [str(tmp_path / "own"), "--out", str(tmp_path / "out")]
    changed, unknown = ([*rows[:-1], {**rows[-1], "commit": commit}] for commit in ("abc*", ""))
    cases = ((rows[:-1], "3 of 4 cells"), (changed, "clean checkout"), (unknown, "clean checkout"))
    for some, refused in cases:
        journal.write_text("".join(json.dumps(row) + "\n" for row in some))
        with pytest.raises(SystemExit, match=refused):
            published.main(given)
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    published.main(given)
    assert {path.name for path in (tmp_path / "out" / "own").iterdir()} == {"cells.csv", "summary.md", "worst.md"}
    assert (tmp_path / "out" / "own" / "worst.md").read_text().startswith("### Worst cases")
