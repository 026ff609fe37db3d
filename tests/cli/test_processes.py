"""The installed command as a process: killed, interrupted, gone on with."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from matl.cli.exit_codes import ExitCode

MATL = [sys.executable, "-c", "import sys; sys.argv[0] = 'matl'; from matl.cli import main; main()"]
# Rounds long enough to be interrupted in: fifteen of them take about a second.
RUN = [
    *("run", "--dataset", "synthetic", "--clients", "20", "--rounds", "15", "--root-size", "40", "--mode", "mode1"),
    *("--attack", "sleeper:wake_round=3", "--no-ceiling", "--json"),
]
DEADLINE = 60


def matl(*args, **env):
    return subprocess.run(
        [*MATL, *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=DEADLINE,
        check=False,
    )


def interrupt(out, signum, *, rows, command=RUN, table="rounds.csv"):
    """Start a command, send it a signal when a table has so many rows, and return how it ended."""
    process = subprocess.Popen(
        [*MATL, *command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    path, waited = out / table, time.monotonic() + DEADLINE
    try:
        while not path.is_file() or path.read_bytes().count(b"\n") <= rows:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < waited
            time.sleep(0.002)
        process.send_signal(signum)
        stdout, stderr = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def outcome(out):
    result = json.loads((out / "result.json").read_text())
    with (out / "rounds.csv").open(newline="") as file:
        rounds = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    return {
        "result": {key: value for key, value in result.items() if key not in ("seconds", "peak_memory_mib")},
        "rounds": rounds,
        **{name: (out / name).read_bytes() for name in ("verdicts.csv", "model.safetensors", "clients.csv")},
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody disturbs."""
    out = tmp_path_factory.mktemp("processes") / "whole"
    done = matl(*RUN, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_only_json_on_standard_output_and_nothing_on_standard_error(whole):
    out, done = whole
    assert json.loads(done.stdout) == json.loads((out / "result.json").read_text())
    assert done.stderr == ""


def test_a_killed_run_goes_on_to_the_same_end(whole, tmp_path):
    killed = interrupt(tmp_path / "run", signal.SIGKILL, rows=4)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "result.json").exists()
    resumed = matl("run", "--resume", tmp_path / "run", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(tmp_path / "run") == outcome(whole[0])


def test_an_interrupted_run_finishes_its_round_and_goes_on_to_the_same_end(whole, tmp_path):
    stopped = interrupt(tmp_path / "run", signal.SIGINT, rows=2)
    assert stopped.returncode == ExitCode.INTERRUPTED
    assert stopped.stdout == ""
    assert "finishing the round, then stopping" in stopped.stderr
    assert f"go on with: matl run --resume {tmp_path / 'run'}\n" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (tmp_path / "run" / "result.json").exists()
    resumed = matl("run", "--resume", tmp_path / "run", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(tmp_path / "run") == outcome(whole[0])


SWEEP = """
dataset = "synthetic"
clients = 20
rounds = 8
root_size = 40
mode = "mode0"
seeds = [0, 1, 2, 3]
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A file, and the table that a sweep which nobody disturbs makes of it, one cell at a time."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "trial.toml").write_text(SWEEP)
    done = matl("sweep", folder / "trial.toml", "--out", folder / "whole", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "trial.toml", without_times(folder / "whole")


def without_times(out):
    with (out / "results.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_ended_by_a_signal_goes_on_to_the_same_table(experiment, tmp_path, signum):
    pytest.importorskip("loky", reason="loky is not installed")
    path, expected = experiment
    out = tmp_path / "sweep"
    command = ["sweep", str(path), "--jobs", "2"]
    ended = interrupt(out, signum, rows=1, command=command, table="results.csv")
    if signum == signal.SIGINT:
        assert ended.returncode == ExitCode.INTERRUPTED
        assert f"of 4 cells done; go on with: matl sweep --resume {out}\n" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (out / "sweep.json").exists()
    # Workers that the killed process left behind have ended: the pipe that they wrote to is closed.
    resumed = matl("sweep", "--resume", out, "-q")
    assert resumed.returncode == 0, resumed.stderr
    assert without_times(out) == expected


def test_errors_are_messages_and_exit_codes():
    done = matl("run", "--aggregator", "krum", "--byzantine", "0.49", "--dataset", "synthetic", "--out", "/dev/null/x")
    assert done.returncode == ExitCode.BOUND
    assert done.stdout == ""
    assert done.stderr.startswith("error: krum with 50 clients")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("full", ["list", "attacks"]),
        ("full", ["list", "attacks", "--json"]),
        ("closed", ["list", "attacks", "--json"]),
        ("full", ["--version"]),
    ],
    ids=str,
)
def test_output_that_cannot_be_written_is_a_message_and_an_exit_code(command, target):
    if target == "full" and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    writer = os.open("/dev/full" if target == "full" else os.devnull, os.O_WRONLY)
    try:
        done = subprocess.run(
            ["sh", "-c", '"$@" >&-' if target == "closed" else '"$@"', "sh", *MATL, *command],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == ExitCode.STORAGE
    assert done.stderr.startswith("error: cannot write to standard output: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["list", "attacks"], ["list", "attacks", "--json"]], ids=str)
def test_a_reader_who_has_read_enough_is_no_failure_to_tell_of(command):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*MATL, *command], stdout=writer, stderr=subprocess.PIPE, timeout=DEADLINE, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (ExitCode.STORAGE, b"")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_completion_script_is_generated(shell):
    done = matl(_MATL_COMPLETE=f"source_{shell}")
    assert done.returncode == 0
    assert f"_MATL_COMPLETE=complete_{shell}" in done.stdout


def test_the_command_is_installed():
    script = Path(sys.executable).with_name("matl")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("matl ")
