"""``matl sweep``, ``matl tune`` and ``matl compare DIR...``: what they print where, and what they return."""

import csv
import json
import tomllib

import pytest
from rich.console import Console

from matl.cli import console
from matl.cli.exit_codes import ExitCode

SWEEP = """
dataset = "synthetic"
clients = 5
byzantine = 0.4
rounds = 2
root_size = 20
task = "softmax"
seeds = [0, 1]

[sweep]
rule = ["fedavg", "mode0"]

[tune]
trials = 2
seeds = [0]
local.learning_rate = { low = 0.1, high = 1.0, log = true }
"""
KRUM = SWEEP.replace("mode0", "krum")  # which stands one liar of five, and here are two


@pytest.fixture
def write(tmp_path):
    def write(text, name="trial.toml"):
        (tmp_path / name).write_text(text)
        return name

    return write


def test_a_sweep_prints_a_line_per_setting_and_writes_everything(run, write, tmp_path):
    done = run("sweep", write(SWEEP))
    assert done.code == 0
    header, fedavg, mode0 = (line.split() for line in done.out.splitlines()[:3])
    assert header == ["rule", "accuracy", "caught", "accused", "n"]
    assert (fedavg[0], fedavg[-3:]) == ("fedavg", ["-", "-", "2"])
    assert mode0[0] == "mode0"
    assert "±" in mode0
    assert "results: runs/sweep-trial/results.csv" in done.out
    assert [line.split()[:2] for line in done.err.splitlines() if line] == [["cell", f"{n}/4"] for n in range(1, 5)]
    out = tmp_path / "runs" / "sweep-trial"
    files = {path.name for path in out.iterdir()}
    assert files == {"cells", "results.csv", "summary.md", "sweep.json", "sweep.toml"}
    page = (out / "summary.md").read_text()
    assert page.startswith("# sweep-trial\n\n| rule | accuracy |")
    assert page.count("\n| ") == 4


def test_a_sweep_as_json_is_its_file_and_nothing_else(run, write, tmp_path):
    done = run("sweep", write(SWEEP), "--json", "--out", "out", "--jobs", "1")
    assert (done.code, done.err) == (0, "")
    assert done.json == json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert done.json.keys() >= {"schema_version", "kind", "simulation", "swept", "seeds", "settings", "cells", "failed"}
    assert run("sweep", "--resume", "out", "--quiet").err == ""


def test_cells_that_fail_are_counted_and_the_exit_code_says_so(run, write, tmp_path):
    done = run("sweep", write(KRUM), "--out", "out")
    assert done.code == ExitCode.CELLS_FAILED
    assert done.out.splitlines()[0].split()[-1] == "failed"
    assert done.out.splitlines()[2].split() == ["krum", "-", "-", "-", "0", "2"]
    assert "failed: krum with 5 clients in a round tolerates at most 1" in done.err
    assert "error: 2 of 4 cells failed, the first being krum-seed0-" in done.err
    assert "matl sweep --resume out tries them again" in done.err
    with (tmp_path / "out" / "results.csv").open() as file:
        assert [bool(row["failure"]) for row in csv.DictReader(file)] == [False, False, True, True]
    assert run("sweep", "--resume", "out", "-q").code == ExitCode.CELLS_FAILED


def test_progress_on_a_terminal_is_a_bar_with_the_time_left(run, write, monkeypatch, tmp_path):
    with (tmp_path / "screen").open("w+") as screen:
        monkeypatch.setattr(console, "stderr", Console(file=screen, force_terminal=True, width=100, color_system=None))
        assert run("sweep", write(KRUM), "--out", "out").code == ExitCode.CELLS_FAILED
        screen.seek(0)
        shown = screen.read()
    assert "4/4" in shown
    assert "2 failed" in shown
    assert "failed: krum with 5 clients" in shown


@pytest.mark.parametrize("command", ["sweep", "tune"])
def test_wrong_files_and_options_are_refused_before_anything_is_written(run, write, tmp_path, command):
    write("clents = 3")
    run(command, "trial.toml").refused(ExitCode.USAGE, "trial.toml: 1 problem", "clents: unknown key (did you mean")
    run(command).refused(ExitCode.USAGE, "expected an experiment file, or --resume")
    run(command, "absent.toml").refused(ExitCode.USAGE, "absent.toml: 1 problem", "cannot be read")
    run(command, "trial.toml", "--resume", "x").refused(ExitCode.USAGE, "--resume goes on with", "got also trial.toml")
    run(command, "--resume", "x", "--out", "y").refused(ExitCode.USAGE, "got also --out")
    run(command, "--resume", "x").refused(ExitCode.STATE, "x holds no")
    assert [path.name for path in tmp_path.iterdir()] == ["trial.toml"]


def test_a_tracker_that_does_not_exist(run, write, tmp_path):
    run("sweep", write(SWEEP), "--log", "tensorbord").refused(ExitCode.USAGE, "did you mean 'tensorboard'?")
    run("run", "--log", "wandb", "--dataset", "synthetic").refused(ExitCode.USAGE, "known: mlflow, tensorboard")
    assert [path.name for path in tmp_path.iterdir()] == ["trial.toml"]


def test_the_best_settings_are_printed_as_toml(run, write, tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed")
    done = run("tune", write(SWEEP))
    assert done.code == 0
    assert done.out.startswith("best of 2 trials: validation accuracy ")
    assert "mean over seeds 0\n" in done.out
    assert [line.split()[:2] for line in done.err.splitlines()] == [["trial", "1/2"], ["trial", "2/2"]]
    out = tmp_path / "runs" / "tune-trial"
    assert {path.name for path in out.iterdir()} == {"trials.csv", "trials.json", "tune.toml"}
    again = run("tune", "--resume", out, "--json")
    assert (again.code, again.err) == (0, "")
    best = again.json["best"]
    assert tomllib.loads(best["toml"]) == {"local": {"learning_rate": best["settings"]["local.learning_rate"]}}
    assert best["toml"] in done.out
    assert again.json["objective"] == "accuracy"


def test_a_search_of_which_nothing_worked(run, write):
    pytest.importorskip("optuna", reason="optuna is not installed")
    done = run(
        "tune", write(SWEEP.replace("task =", 'aggregator = "krum"\ntask =').replace("[sweep]\nrule", "[sweep]\nx"))
    )
    done.refused(ExitCode.USAGE, "sweep.x: unknown key")
    failing = SWEEP.split("[sweep]")[0] + 'aggregator = "krum"\n[tune]' + SWEEP.split("[tune]")[1]
    done = run("tune", write(failing), "-q")
    done.refused(ExitCode.STATE, "none of the 2 trials could be run; the last failed with: krum with 5 clients")


def test_finished_runs_are_put_side_by_side(run, write, tmp_path):
    federation = ["--dataset", "synthetic", "--clients", "10", "--rounds", "1", "--root-size", "20", "-q"]
    federation += ["--byzantine", "0.3"]
    run("run", *federation, "--mode", "mode0", "--out", "one")
    run("compare", *federation, "--alpha", "0.1", "--rules", "krum", "--out", "two")
    done = run("compare", "one", "two", "--out", "table")
    header, *body = (line.split() for line in done.out.splitlines()[:4])
    assert header == ["directory", "rule", "alpha", "accuracy", "ceiling", "caught", "accused", "seconds"]
    assert [row[:3] for row in body] == [
        ["one", "mode0", "0.5"],
        ["one/honest_only", "honest_only", "0.5"],
        ["two/krum", "krum", "0.1"],
    ]
    assert "table: table/comparison.csv" in done.out
    as_json = run("compare", "one", "two", "--json").json
    assert as_json == json.loads((tmp_path / "table" / "comparison.json").read_text())
    with (tmp_path / "table" / "comparison.csv").open() as file:
        assert [row["accuracy"] for row in csv.DictReader(file)] == [str(row["accuracy"]) for row in as_json["runs"]]
    run("compare", "one", "--rounds", "3").refused(ExitCode.USAGE, "finished runs have their settings", "--rounds")
    run("compare", "one", "--rules", "krum").refused(ExitCode.USAGE, "finished runs have their settings", "--rules")
    run("compare", "one", "nowhere").refused(ExitCode.STATE, "nowhere holds no run", "no such directory")
    run("compare", "table").refused(ExitCode.STATE, "table holds no run, comparison or sweep")
