"""A run on disk: interrupted anywhere and gone on with, it is the run that was never stopped."""

import csv
import errno
import itertools
import json
import os

import numpy as np
import pytest
import safetensors.numpy

from matl.errors import RunInterrupted, StateError, StorageError
from matl.params import values_hash
from matl.simulation import RunConfig, RunDirectory, build_simulation, execute, honest_only
from matl.simulation.config import to_toml
from matl.state import pack, unpack

CONFIG = RunConfig(
    dataset="synthetic", clients=8, byzantine=0.25, rounds=4, mode="mode0", task="softmax", root_size=20, seed=3
)


@pytest.fixture(scope="module")
def simulation():
    return build_simulation(CONFIG)


@pytest.fixture(scope="module")
def whole(simulation, tmp_path_factory):
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return execute(simulation, CONFIG, name="mode0", out=out), out


def after(rounds):
    """Asks a run to stop after so many rounds."""
    left = [rounds]

    def stop():
        left[0] -= 1
        return left[0] < 0  # asked before every round

    return stop


@pytest.fixture
def stopped(simulation, tmp_path):
    """A run that was stopped after two of its four rounds."""
    out = tmp_path / "stopped"
    with pytest.raises(RunInterrupted, match="stopped in mode0 after round 2 of 4") as caught:
        execute(simulation, CONFIG, name="mode0", out=out, stop=after(2))
    assert caught.value.directory == str(out)
    return out


def table(path, *, leave_out=()):
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in leave_out} for row in csv.DictReader(file)]


def outcome(out):
    """Everything a run leaves behind that does not depend on the clock."""
    result = json.loads((out / "result.json").read_text())
    return {
        "result": {k: v for k, v in result.items() if k not in ("seconds", "peak_memory_mib")},
        "model": (out / "model.safetensors").read_bytes(),
        "rounds": table(out / "rounds.csv", leave_out=["seconds"]),
        "verdicts": (out / "verdicts.csv").read_bytes(),
        "clients": (out / "clients.csv").read_bytes(),
        "config": (out / "config.toml").read_bytes(),
    }


def resume(simulation, out):
    return execute(simulation, CONFIG, name="mode0", out=out, resume=True)


def test_what_a_finished_run_leaves(simulation, whole):
    result, out = whole
    population = simulation.population
    saved = json.loads((out / "result.json").read_text())
    assert saved == {**result.as_dict(), "peak_memory_mib": saved["peak_memory_mib"]}
    assert RunDirectory(out).read_result() == saved
    assert RunDirectory(out).finished
    assert RunDirectory(out).read_config() == CONFIG
    model = safetensors.numpy.load_file(out / "model.safetensors")
    vector = simulation.workload.layout.flatten(model)
    assert values_hash(vector) == saved["model_hash"] == values_hash(result.params)
    clients = table(out / "clients.csv")
    assert {row["client"] for row in clients if row["malicious"] == "1"} == population.malicious_ids
    assert [int(row["samples"]) for row in clients] == [len(client) for client in population.data.clients]
    assert [int(row["class_3"]) for row in clients] == population.data.class_counts()[:, 3].tolist()
    rounds = table(out / "rounds.csv")
    assert [int(row["round"]) for row in rounds] == [0, 1, 2, 3]
    assert float(rounds[-1]["accuracy"]) == result.accuracy == saved["accuracy"]
    assert [float(row["seconds"]) for row in rounds] == [row["seconds"] for row in result.history]
    verdicts = table(out / "verdicts.csv")
    assert len(verdicts) == 32
    assert set(verdicts[0]) == {"round", "client", "status", "weight", "reason", *simulation.workload.mode.channels}
    quarantined = {row["client"] for row in verdicts if row["round"] == "3" and row["status"] == "quarantined"}
    assert quarantined == set(result.quarantined)
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoint.msgpack",
        "clients.csv",
        "config.toml",
        "model.safetensors",
        "result.json",
        "rounds.csv",
        "verdicts.csv",
    ]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_stopped_run_goes_on_to_the_same_end(simulation, whole, tmp_path, rounds):
    out = tmp_path / "run"
    with pytest.raises(RunInterrupted):
        execute(simulation, CONFIG, name="mode0", out=out, stop=after(rounds))
    assert len(table(out / "rounds.csv")) == rounds
    assert not RunDirectory(out).finished
    resume(build_simulation(CONFIG), out)
    assert outcome(out) == outcome(whole[1])


def test_a_request_to_stop_in_the_last_round_comes_too_late(simulation, whole, tmp_path):
    execute(simulation, CONFIG, name="mode0", out=tmp_path / "run", stop=after(4))
    assert outcome(tmp_path / "run") == outcome(whole[1])


def test_what_stands_behind_the_checkpoint_is_cut_off(simulation, whole, stopped):
    for name in ("rounds.csv", "verdicts.csv"):
        with (stopped / name).open("a") as file:
            file.write("2,0.7,8,0,0,0")  # a crash in the middle of a row
    resume(simulation, stopped)
    assert outcome(stopped) == outcome(whole[1])


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(simulation, whole, tmp_path):
    out = tmp_path / "run"
    RunDirectory(out).create(simulation, to_toml(CONFIG))
    (out / "rounds.csv").write_text("half a he")
    (out / "verdicts.csv").unlink()
    resume(simulation, out)
    assert outcome(out) == outcome(whole[1])


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(simulation, whole):
    before = outcome(whole[1])
    resume(simulation, whole[1])
    assert outcome(whole[1]) == before


def refused(simulation, out, message):
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(StateError, match=message):
        resume(simulation, out)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_any_damage_to_the_checkpoint_is_noticed(simulation, stopped):
    path = stopped / "checkpoint.msgpack"
    good = path.read_bytes()
    draw = np.random.default_rng(0)
    for position in [0, 1, 5, 20, len(good) // 2, len(good) - 1, *draw.integers(len(good), size=20)]:
        bad = bytearray(good)
        bad[position] ^= 1 << int(draw.integers(8))
        path.write_bytes(bad)
        refused(simulation, stopped, "checkpoint.msgpack .*start the run anew")
    for length in (0, 1, 100, len(good) - 1):
        path.write_bytes(good[:length])
        refused(simulation, stopped, "checkpoint.msgpack cannot be read: .*start the run anew")
    path.write_bytes(good)
    resume(simulation, stopped)


def test_checkpoints_of_another_version_and_unreadable_ones_are_refused(simulation, stopped):
    path = stopped / "checkpoint.msgpack"
    checked = unpack(path.read_bytes())
    path.write_bytes(pack({**checked, "version": 1}))
    refused(simulation, stopped, "was not written by this version of MATL")
    path.write_bytes(pack({"version": 1, "content": "text"}))
    refused(simulation, stopped, "was not written by this version of MATL")
    path.unlink()
    path.mkdir()
    refused(simulation, stopped, "cannot be read")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 4}, "configuration and run"),
        ({"byzantine": 0.3}, "configuration and run"),
        ({"mode": {"name": "mode0", "bound": 0.2}}, "configuration and run and judge"),
        ({"task": {"name": "mlp", "hidden": [4]}}, "configuration and run"),
    ],
)
def test_a_changed_configuration_is_refused(stopped, change, what):
    changed = CONFIG.model_copy(update=change)
    refused(build_simulation(changed), stopped, f"written under another {what}: config.toml.* was changed after")


def test_the_folder_of_one_run_is_not_gone_on_with_by_another(simulation, stopped):
    refused(honest_only(simulation), stopped, "written under another run and judge")


@pytest.mark.parametrize("name", ["rounds.csv", "verdicts.csv"])
def test_a_table_shorter_than_its_checkpoint_is_refused(simulation, stopped, name):
    path = stopped / name
    path.write_bytes(path.read_bytes()[:-1])
    refused(simulation, stopped, f"{name} is shorter than when the checkpoint was written")
    path.unlink()
    refused(simulation, stopped, f"{name} is shorter than when the checkpoint was written")


def test_folders_that_hold_no_run_or_hold_one_already(simulation, whole, tmp_path):
    with pytest.raises(StateError, match=r"nowhere holds no run \(no config.toml\)"):
        resume(simulation, tmp_path / "nowhere")
    with pytest.raises(StateError, match="holds no run"):
        RunDirectory(tmp_path).read_config()
    assert not (tmp_path / "nowhere").exists()
    before = outcome(whole[1])
    with pytest.raises(
        StateError, match=r"already holds a run; go on with matl run --resume .*whole, or choose another --out"
    ):
        execute(simulation, CONFIG, name="mode0", out=whole[1])
    assert outcome(whole[1]) == before
    (tmp_path / "compare.toml").touch()
    with pytest.raises(StateError, match="already holds a comparison"):
        execute(simulation, CONFIG, name="mode0", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["compare.toml"]
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        execute(simulation, CONFIG, name="mode0", out=tmp_path / "file")


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_result_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(StateError, match=r"result\.json (cannot be read|is not the result of a run)"):
        RunDirectory(tmp_path).read_result()


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_full_disk_leaves_a_run_that_can_be_resumed(simulation, whole, tmp_path, monkeypatch, call):
    """The disk fills up at the first, second, ... flush of the second round, or of the first."""
    out, real, calls = tmp_path / "run", os.fsync, [0]
    RunDirectory(out).create(simulation, to_toml(CONFIG))

    def full(handle):
        calls[0] += 1
        if calls[0] == call + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full: free some space, then resume"):
        resume(simulation, out)
    monkeypatch.undo()
    assert not RunDirectory(out).finished
    assert not list(out.glob(".*"))
    resume(simulation, out)
    assert outcome(out) == outcome(whole[1])


def test_a_checkpoint_is_replaced_whole_and_never_written_over(simulation, tmp_path):
    path, seen = tmp_path / "run" / "checkpoint.msgpack", []

    def look():
        seen.extend([path.stat().st_ino] if path.exists() else [])
        return False

    execute(simulation, CONFIG, name="mode0", out=path.parent, stop=look)
    assert all(before != after for before, after in itertools.pairwise(seen))


def test_the_table_that_cannot_be_cut_says_so(simulation, stopped, monkeypatch):
    def refuse(path, length):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "truncate", refuse)
    with pytest.raises(StorageError, match=r"rounds.csv: no permission"):
        resume(simulation, stopped)


def test_awkward_reasons_and_missing_evidence_survive_the_table(tmp_path, simulation, whole):
    rows = table(whole[1] / "verdicts.csv")
    assert all(row["weight"] in {"0.0", "1.0"} or 0 <= float(row["weight"]) <= 1 for row in rows)
    for row in rows:
        for channel in simulation.workload.mode.channels:
            assert row[channel] == "" or np.isfinite(float(row[channel]))


def test_the_table_of_rounds_says_why_a_round_failed(whole, tmp_path):
    config = CONFIG.model_copy(update={"max_norm": 1e-9})
    execute(build_simulation(config), config, name="mode0", out=tmp_path / "run")
    assert [row["failure"] for row in table(tmp_path / "run" / "rounds.csv")] == ["no update passed screening"] * 4
    assert {row["failure"] for row in table(whole[1] / "rounds.csv")} == {""}
