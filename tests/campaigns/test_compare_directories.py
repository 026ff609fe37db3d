"""Finished runs side by side: found wherever they lie, told apart by what differs."""

import json

import pytest

from matl.campaigns.compare import compare, run_with_ceiling
from matl.campaigns.experiment import read_experiment
from matl.campaigns.finished import as_rows, differing, read_finished
from matl.campaigns.sweep import sweep
from matl.errors import InvalidValueError, RunInterrupted, StateError
from matl.simulation import RunConfig

CONFIG = RunConfig(dataset="synthetic", clients=10, byzantine=0.3, rounds=1, task="softmax", root_size=20, seed=3)
TEXT = 'dataset = "synthetic"\nclients = 5\nrounds = 1\nroot_size = 20\n[sweep]\nrule = ["mode0", "krum"]'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, a comparison and a sweep of which one cell failed."""
    folder = tmp_path_factory.mktemp("finished")
    run_with_ceiling(CONFIG.model_copy(update={"mode": {"name": "mode0", "bound": 0.4}}), out=folder / "run")
    compare(CONFIG.model_copy(update={"alpha": 0.1}), ["fedavg", "mode0"], out=folder / "compared")
    (folder / "trial.toml").write_text(TEXT)
    sweep(read_experiment(folder / "trial.toml"), out=folder / "swept")
    return folder


def test_the_runs_of_runs_comparisons_and_sweeps_in_order(folder):
    runs = read_finished([folder / "compared", folder / "run", folder / "swept"])
    cell = next((folder / "swept" / "cells").glob("mode0-*"))
    places = ["compared/fedavg", "compared/mode0", "run", "run/honest_only", f"swept/cells/{cell.name}"]
    assert [run.directory for run in runs] == [folder / place for place in places]
    for run in runs:
        assert run.result == json.loads((run.directory / "result.json").read_text())


def test_what_differs_is_shown_and_what_a_rule_says_already_is_not(folder):
    assert differing(read_finished([folder / "compared"])) == []
    assert differing(read_finished([folder / "compared", folder / "run"])) == ["mode", "alpha"]
    rows = as_rows(read_finished([folder / "compared", folder / "run"]))
    assert [(row["rule"], row["mode"], row["alpha"]) for row in rows[1:3]] == [
        ("mode0", "mode0", "0.1"),
        ("mode0", "mode0:bound=0.4", "0.5"),
    ]
    assert rows[2]["ceiling_accuracy"] == rows[3]["accuracy"]


def test_what_is_not_finished_says_how_to_go_on(folder, tmp_path):
    with pytest.raises(RunInterrupted):
        run_with_ceiling(CONFIG, out=tmp_path / "run", stop=lambda: True)
    with pytest.raises(RunInterrupted):
        compare(CONFIG, ["krum"], out=tmp_path / "compared", stop=lambda: True)
    with pytest.raises(RunInterrupted):
        sweep(read_experiment(folder / "trial.toml"), out=tmp_path / "swept", stop=lambda: True)
    for name, command in {"run": "run", "compared": "compare", "swept": "sweep"}.items():
        with pytest.raises(StateError, match=f"{name} is not finished; go on with: matl {command} --resume .*{name}$"):
            read_finished([folder / "run", tmp_path / name])


def test_directories_that_hold_nothing_or_damaged_files(tmp_path):
    with pytest.raises(InvalidValueError, match="expected at least one directory"):
        read_finished([])
    with pytest.raises(StateError, match=r"holds no run, comparison or sweep$"):
        read_finished([tmp_path])
    for name, content in [("sweep.json", "[]"), ("compare.json", '{"rules": [{}]}'), ("compare.json", "{")]:
        (tmp_path / name).write_text(content)
        with pytest.raises(StateError, match=f"{name} cannot be read: .*is this a finished comparison or sweep"):
            read_finished([tmp_path])
        (tmp_path / name).unlink()


def test_results_that_are_none_and_sweeps_without_any(tmp_path):
    for content in ("{}", '{"settings": [], "accuracy": 1, "seconds": 1, "rounds": 1, "failed_rounds": 0}'):
        (tmp_path / "result.json").write_text(content)
        with pytest.raises(StateError, match=r"result.json is not the result of a run"):
            read_finished([tmp_path])
    (tmp_path / "sweep.json").write_text('{"cells": [{"cell": "a", "failure": "x"}]}')
    with pytest.raises(StateError, match="all cells failed, there is nothing to compare"):
        read_finished([tmp_path])
