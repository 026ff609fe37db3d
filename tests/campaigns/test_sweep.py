"""Sweeps: the same results however they are run, and a row for every cell whatever becomes of it."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from matl.campaigns import parts
from matl.campaigns import sweep as module
from matl.campaigns.experiment import read_experiment
from matl.campaigns.sweep import resume_sweep, run_job, sweep
from matl.campaigns.tune import read_search
from matl.errors import InvalidValueError, MissingExtraError, RunInterrupted, StateError, StorageError, UnknownNameError
from matl.simulation import RunConfig, RunDirectory, simulate

BASE = """
dataset = "synthetic"
clients = 10
byzantine = 0.3
rounds = 3
root_size = 20
task = "softmax"
"""
SWEEP = (
    BASE
    + """
seeds = [1, 2]
ceiling = true

[sweep]
rule = ["fedavg", "mode0"]
"""
)


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "trial.toml"
        path.write_text(text)
        return read_experiment(path)

    return read


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep that nobody disturbs."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "trial.toml").write_text(SWEEP)
    return sweep(read_experiment(folder / "trial.toml"), out=folder / "out"), folder / "out"


def rows(out):
    """The table without its last column, which is the time."""
    with (out / "results.csv").open(newline="") as file:
        header, *body = list(csv.reader(file))
    assert header[-1] == "seconds"
    return [row[:-1] for row in [header, *body]]


def after(rounds):
    """Asks to stop after so many rounds in all."""
    left = [rounds]

    def stop():
        left[0] -= 1
        return left[0] < 0

    return stop


def test_a_row_per_cell_in_canonical_order_says_what_its_run_says(whole):
    result, out = whole
    header, *body = rows(out)
    assert header[:5] == ["cell", "rule", "seed", "accuracy", "ceiling_accuracy"]
    assert [row[1:3] for row in body] == [["fedavg", "1"], ["fedavg", "2"], ["mode0", "1"], ["mode0", "2"]]
    for row in body:
        found = json.loads((out / "cells" / row[0] / "result.json").read_text())
        values = dict(zip(header, row, strict=True))
        assert float(values["accuracy"]) == found["accuracy"]
        assert float(values["ceiling_accuracy"]) == found["ceiling_accuracy"]
        assert values["tpr"] == ("" if found["tpr"] is None else str(found["tpr"]))
        assert (values["failure"], values["model_hash"]) == ("", found["model_hash"])
    assert json.loads((out / "sweep.json").read_text()) == result.as_dict()
    assert result.failures == {}


def test_a_cell_is_the_run_it_describes(whole):
    result, _ = whole
    alone = simulate(
        dataset="synthetic",
        clients=10,
        byzantine=0.3,
        rounds=3,
        root_size=20,
        task="softmax",
        mode="mode0",
        seed=2,
        ceiling=True,
    )
    row = next(row for row in result.rows if (row["rule"], row["seed"]) == ("mode0", 2))
    assert (row["accuracy"], row["ceiling_accuracy"], row["tpr"]) == (alone.accuracy, alone.ceiling_accuracy, alone.tpr)


def test_the_summary_has_a_line_per_setting_with_its_interval(whole):
    fedavg, mode0 = whole[0].as_dict()["settings"]
    assert (fedavg["rule"], mode0["rule"]) == ("fedavg", "mode0")
    mine = [row["accuracy"] for row in whole[0].rows if row["rule"] == "mode0"]
    assert mode0["accuracy"]["mean"] == pytest.approx(sum(mine) / 2)
    assert mode0["accuracy"]["half_width"] == pytest.approx(12.7062 * abs(mine[0] - mine[1]) / 2, rel=1e-4)
    assert mode0["accuracy"]["n"] == 2
    assert mode0["tpr"]["mean"] == 1
    assert fedavg["tpr"] is None  # which gives no verdicts


@pytest.mark.parametrize("rounds", [2, 4, 15])
def test_a_sweep_stopped_anywhere_goes_on_to_the_same_results(whole, tmp_path, read, rounds):
    out = tmp_path / "out"
    with pytest.raises(RunInterrupted, match=r"stopped with \d of 4 cells done") as caught:
        sweep(read(SWEEP), out=out, stop=after(rounds))
    assert caught.value.directory == str(out)
    assert not (out / "sweep.json").exists()
    if (out / "results.csv").exists():
        assert rows(out) == rows(whole[1])[: len(rows(out))]
    seen = []
    sweep(resume_sweep(out), out=out, resume=True, notify=seen.append)
    assert rows(out) == rows(whole[1])
    assert sum(not outcome.earlier for outcome in seen) == 4 - rounds // 6  # three rounds, and three of the ceiling


def test_a_finished_sweep_is_not_run_again(whole):
    before = (whole[1] / "results.csv").read_bytes()
    sweep(resume_sweep(whole[1]), out=whole[1], resume=True, stop=lambda: pytest.fail("a round was run"))
    assert (whole[1] / "results.csv").read_bytes() == before


def test_several_processes_come_to_the_same_results_in_the_same_order(whole, tmp_path, read):
    pytest.importorskip("loky", reason="loky is not installed")
    seen = []
    sweep(read(SWEEP), out=tmp_path / "out", jobs=2, notify=seen.append)
    assert rows(tmp_path / "out") == rows(whole[1])
    assert len(seen) == 4


def test_the_example_runs(tmp_path):
    experiment = read_experiment(Path(__file__).parents[2] / "examples" / "experiment.toml")
    assert (experiment.swept, len(experiment.cells), experiment.ceiling) == (("rule", "alpha"), 18, True)
    two = replace(experiment, cells=experiment.cells[:2])  # the others take too long here
    assert sweep(two, out=tmp_path / "out").failures == {}
    assert read_search(experiment.source).space.keys() == {"local.learning_rate", "local.steps", "server_optimizer"}


def test_workers_know_the_parts_that_a_user_registered(monkeypatch):
    @dataclass(frozen=True)
    class Mine:
        """Mine."""

    Mine.__module__ = "__main__"
    registry = parts.REGISTRIES["attack"]
    for table in ("_parts", "_aliases"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    assert parts.own_parts() == []
    registry.register("mine", "my_own")(Mine)
    (own,) = parts.own_parts()
    assert own == ("attack", "mine", ["my_own"], Mine)
    monkeypatch.undo()
    with pytest.raises(UnknownNameError):
        registry.get("mine")
    for table in ("_parts", "_aliases"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    parts.register_parts([own])
    assert registry.get("my_own") is Mine


# What goes wrong

FAILING = BASE.replace("0.3", "0.4") + '[sweep]\nrule = ["fedavg", "krum", "mode0"]\nclients = [5, 8]\n'
"""Krum cannot take two malicious clients of five."""


def test_a_cell_that_fails_has_its_reason_and_stops_no_other(tmp_path, read):
    result = sweep(read(FAILING), out=tmp_path / "out")
    assert [(row["rule"], row["clients"], bool(row["failure"])) for row in result.rows] == [
        *[("fedavg", 5, False), ("fedavg", 8, False), ("krum", 5, True), ("krum", 8, True)],
        *[("mode0", 5, False), ("mode0", 8, False)],
    ]
    failed = result.rows[2]
    assert failed["failure"].startswith("krum with 5 clients in a round tolerates at most 1 malicious ones, got f=2")
    assert failed["accuracy"] is failed["tpr"] is failed["seconds"] is None
    assert result.as_dict()["failed"] == len(result.failures) == 2
    assert [line["failed"] for line in result.as_dict()["settings"]] == [0, 0, 1, 1, 0, 0]


def test_a_part_that_breaks_stops_no_other_cell(tmp_path, read):
    experiment = read(BASE + "aggregator = 'mean'\n[sweep]\nlocal.steps = [4611686018427387904, 1]")  # no such array
    broken, sound = sweep(experiment, out=tmp_path / "out").rows
    assert broken["failure"].startswith("ValueError: ")
    assert not sound["failure"]


def test_failed_cells_are_tried_again(tmp_path, read, monkeypatch):
    out = tmp_path / "out"
    real = module.run_with_ceiling
    reason = "CUDA out of memory"

    def full(config, **how):
        if config.clients == 8:
            raise RuntimeError(reason)
        return real(config, **how)

    monkeypatch.setattr(module, "run_with_ceiling", full)
    text = BASE + "[sweep]\nclients = [5, 8]"
    assert list(sweep(read(text), out=out).failures.values()) == ["RuntimeError: CUDA out of memory"]
    monkeypatch.undo()
    result = sweep(resume_sweep(out), out=out, resume=True)
    assert result.failures == {}
    assert rows(out)[2][-1] == ""


def test_a_full_disk_stops_the_sweep(tmp_path, read, monkeypatch):
    def full(config, **how):
        raise StorageError("the disk is full")

    monkeypatch.setattr(module, "run_with_ceiling", full)
    with pytest.raises(StorageError, match="the disk is full"):
        sweep(read(SWEEP), out=tmp_path / "out")


def workers():
    """Processes that this one started to run cells."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    lines = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, command in lines if "popen_loky" in command]


@pytest.fixture
def killer():
    """Kills every worker process while it is told to."""
    killing, over = threading.Event(), threading.Event()

    def kill():
        while not over.is_set():
            if killing.wait(0.05):
                for pid in workers():
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    yield killing
    over.set()
    thread.join()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="this system has no /proc")
def test_a_worker_that_is_killed_costs_no_cell(whole, tmp_path, read):
    killed = []

    def notify(outcome):
        if not killed:
            killed.extend(workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    result = sweep(read(SWEEP), out=tmp_path / "out", jobs=2, notify=notify)
    assert killed
    assert result.failures == {}
    assert rows(tmp_path / "out") == rows(whole[1])


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="this system has no /proc")
def test_a_cell_whose_worker_is_killed_again_has_failed(tmp_path, read, killer):
    killer.set()
    result = sweep(read(BASE + "[sweep]\nclients = [5]"), out=tmp_path / "out", jobs=2)
    assert list(result.failures.values()) == [
        "its worker process was killed, and killed again when it ran alone; most likely it needs more memory"
    ]


def test_two_processes_do_not_run_a_cell_at_once(tmp_path):
    config = RunConfig(dataset="synthetic", clients=10, rounds=2, root_size=20, task="softmax", mode="mode0")
    job = module.Job("cell", config.model_dump(), str(tmp_path / "cell"), False, (), str(tmp_path))
    with module._alone_in(module.make_directory(tmp_path / "cell"), lambda: False):
        with pytest.raises(RunInterrupted, match="another process was running"):
            run_job(job, lambda: True)
        began = time.monotonic()
        other = threading.Thread(target=run_job, args=(job, lambda: time.monotonic() - began > 60))
        other.start()
        time.sleep(0.3)
        assert not (tmp_path / "cell" / "config.toml").exists()
    other.join()
    assert RunDirectory(tmp_path / "cell").finished


def test_folders_that_cannot_be_used(whole, tmp_path, read):
    with pytest.raises(StateError, match="already holds a sweep; go on with matl sweep --resume"):
        sweep(read(SWEEP), out=whole[1])
    with pytest.raises(StateError, match="holds no sweep"):
        resume_sweep(tmp_path)
    cell = next((whole[1] / "cells").iterdir())
    with pytest.raises(StateError, match="holds a run, not a sweep; go on with matl run --resume"):
        resume_sweep(cell)
    with pytest.raises(StateError, match="holds a sweep, not a run; go on with matl sweep --resume"):
        RunDirectory(whole[1]).read_config()


def test_what_is_missing_is_said_before_anything_is_written(tmp_path, read, monkeypatch):
    experiment = read(SWEEP)
    with pytest.raises(InvalidValueError, match="jobs"):
        sweep(experiment, out=tmp_path / "out", jobs=0)
    for package, how in {"loky": {"jobs": 2}, "pyarrow": {"parquet": True}}.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=f"{package} is not installed"):
            sweep(experiment, out=tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_parquet_holds_the_same(tmp_path, read):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    text = BASE + '[sweep]\nattack = ["none", { name = "scaling", scale = 2.0 }]\nmode = ["mode0"]\nmax_norm = [5, 6.5]'
    result = sweep(read(text), out=tmp_path / "out", parquet=True)
    table = parquet.read_table(tmp_path / "out" / "results.parquet")
    assert table.column_names == [*rows(tmp_path / "out")[0], "seconds"]
    assert table["attack"].to_pylist() == ["none", "none", "scaling:scale=2.0", "scaling:scale=2.0"]
    assert table["max_norm"].to_pylist() == [5.0, 6.5, 5.0, 6.5]
    assert table["accuracy"].to_pylist() == [row["accuracy"] for row in result.rows]
    assert table["outside_bound"].to_pylist() == [row["outside_bound"] for row in result.rows]
