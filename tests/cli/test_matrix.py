"""``matl matrix``: what it takes, prints and leaves, and how it ends."""

import json

import pytest

from matl.campaigns.matrix import run as running
from matl.cli.exit_codes import ExitCode
from matl.cli.matrix import _axis

TINY = ("--dataset", "synthetic", "--clients", "12", "--rounds", "2", "--task", "softmax")
AXES = ("--attacks", "sign_flip,sleeper:attack=alie,wake_round=1", "--fractions", "0.25", "--alphas", "0.5")
RULES = ("--rules", "fedavg,bulyan,mode0", "--seeds", "0-1")


def test_a_matrix_is_printed_and_leaves_its_files(run, tmp_path):
    done = run("matrix", *TINY, *AXES, *RULES, "--out", "m")
    assert done.code == 0
    for words in (
        "Worst cases",
        "sleeper (attack=alie, wake_round=1), 25 %",
        "n/a (",
        "Seeds 0, 1; 22 of 22 cells",
        "ahead by",
    ):
        assert words in done.out
    assert done.err.count("accuracy ") == 18
    assert "n/a: bulyan" in done.err
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert names == {"matrix.toml", "cells.jsonl", "cells.csv", "summary.md", "matrix.json", "report.html"}
    assert run("matrix", "--resume", "m", "--json").json == json.loads((tmp_path / "m" / "matrix.json").read_text())


def test_a_file_is_run_and_its_folder_bears_its_name(run, tmp_path):
    (tmp_path / "own.toml").write_text(
        'dataset = "synthetic"\nclients = 12\nrounds = 1\nseeds = [0]\n[matrix]\nattacks = ["alie"]\n'
        'fractions = [0.25]\nrules = ["median"]\n'
    )
    done = run("matrix", "own.toml", "-q")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "runs" / "matrix-own" / "report.html").is_file()
    (tmp_path / "runs" / "matrix-own" / "report.html").unlink()
    assert "report: runs/matrix-own/report.html" in run("report", "runs/matrix-own").out
    assert (tmp_path / "runs" / "matrix-own" / "report.html").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("no-such.toml",), "neither a file nor a matrix that comes with MATL"),
        (("--seeds", "a-b"), "--seeds: expected whole numbers or from-to separated by commas, got 'a-b'"),
        (("--fractions", "half"), "--fractions: expected numbers separated by commas, got 'half'"),
        (("--clients", "4", "--fractions", "0.2"), "fractions: 0.2 of 4 clients, rounded down, is nobody"),
        (("--rules", "kurm"), "unknown rule 'kurm' (did you mean 'krum'?)"),
        (("--resume", "."), "holds no matrix"),
        (("digits", "--resume", "."), "got also digits"),
        (("--byzantine", "0.2"), "No such option"),
    ],
)
def test_what_makes_no_sense_is_refused(run, options, message):
    done = run("matrix", *options)
    assert done.code not in (0, ExitCode.INTERRUPTED)
    assert message in " ".join((done.out + done.err).split())


def test_cells_that_fail_are_told(run, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(running, "execute", fail)
    done = run("matrix", *TINY, *AXES, "--rules", "fedavg", "--seeds", "0", "--out", "m", "-q")
    assert done.code == ExitCode.CELLS_FAILED
    assert "5 of 5 cells failed, the first being none-" in done.err
    assert "MemoryError: no room" in done.err
    assert "matl matrix --resume m" in done.err


def test_an_interrupted_matrix_has_a_report_and_says_how_to_go_on(run, monkeypatch, tmp_path):
    real, rows = running.run_cell, []

    def cell(job, stop):
        rows.append(job)
        return real(job, lambda: len(rows) > 3)

    monkeypatch.setattr(running, "run_cell", cell)
    done = run("matrix", *TINY, *AXES, *RULES, "--out", "m", "-q")
    assert done.code == ExitCode.INTERRUPTED
    assert "stopped with 3 of 22 cells done; go on with: matl matrix --resume m" in " ".join(done.err.split())
    assert "3 of 22 cells have run" in (tmp_path / "m" / "report.html").read_text()


def test_lists_of_parts_keep_their_options():
    assert _axis("attacks", "alie, scaling:scale=10 ,sleeper:attack=alie,wake_round=3") == (
        "alie",
        {"name": "scaling", "scale": "10"},
        {"name": "sleeper", "attack": "alie", "wake_round": "3"},
    )
    assert _axis("seeds", "0-2,7") == (0, 1, 2, 7)
