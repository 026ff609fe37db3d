"""Worker processes: the same bits, whatever their number and whatever befalls them, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from matl.attacks import Attack
from matl.errors import InvalidValueError, RunInterrupted, StorageError, UnknownNameError, WorkerLostError
from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining
from matl.learning.tasks import SoftmaxTask
from matl.simulation import build_simulation, execute, load_config
from matl.simulation import fleet as module
from matl.simulation.fleet import Trainer, open_fleet

cloudpickle = pytest.importorskip("cloudpickle", reason="loky is not installed")
# This file is no module that a worker could import.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

CLIENTS, DEADLINE = 11, 60
TASK = SoftmaxTask(4, 3)
RNG = np.random.default_rng(0)
PARAMS = RNG.normal(size=TASK.layout.size).astype(np.float32)
SHIFT = RNG.normal(size=(CLIENTS, TASK.layout.size)).astype(np.float32)
EVERYONE = list(range(CLIENTS))


@dataclass(frozen=True)
class Accident(Attack):
    """Poisons data, and in some rounds what computes with them; the rounds that are quiet are the others."""

    folder: str = ""
    parent: int = 0

    def at(self, round):  # noqa: A002 - the name it has in the base
        return replace(self, folder=f"{self.folder}/{round}")

    def poison(self, X, y, num_classes, rng):
        number = int(self.folder.rsplit("/", 1)[1])
        if number == 1:
            raise UnknownNameError("thing", "x", ["y"])
        if number == 2:
            raise _TwoArgumentsError("first", "second")
        if number == 3:
            y[:] = 0
        if number == 4 and not Path(self.folder).exists():
            Path(self.folder).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 6 and os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C reaches all processes, and is for the parent to decide on
        return 2 * X, rng.permutation(y)


class _TwoArgumentsError(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, first, second):
        super().__init__(first)


def trainer(attack=None):
    clients = []
    for index in range(CLIENTS):
        n = 3 + 5 * index % 7
        clients.append(Dataset("c", RNG.normal(size=(n, 4)).astype(np.float32), RNG.integers(3, size=n), 3))
    recipe = LocalTraining(steps=None, epochs=2, batch_size=4)
    return Trainer(clients, frozenset({1, 8}), TASK, recipe, attack, seed=5)


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Files that workers share lie where the test can see them, and none is there after it."""
    monkeypatch.setattr(module, "_bases", lambda: (tmp_path / "memory", tmp_path / "disk"))
    (tmp_path / "memory").mkdir()
    (tmp_path / "disk").mkdir()
    yield tmp_path / "memory"
    assert list(tmp_path.glob("*/matl-*")) == []


def test_workers_do_what_one_process_does_through_all_accidents(tmp_path, scratch):
    one, lost = trainer(Accident(str(tmp_path), parent=os.getpid())), []
    with open_fleet(one, 2, lost.append) as fleet:
        assert len(list(scratch.iterdir())) == 1
        for number, indices, shift in (
            (0, EVERYONE, None),
            (6, [1, 8, 9], SHIFT[:3]),
            (7, EVERYONE, SHIFT),
            (8, [1], None),
        ):
            expected = one.train(indices, number, PARAMS + number, shift)
            got = fleet.train(indices, number, PARAMS + number, shift)
            assert got.tobytes() == expected.tobytes()
        got += 1  # an attack writes here
        assert lost == []

        with pytest.raises(
            UnknownNameError, match="unknown thing 'x'; known: y"
        ):  # the very error, after another process
            fleet.train(EVERYONE, 1, PARAMS)
        with pytest.raises(ValueError, match="read-only"):
            fleet.train(EVERYONE, 3, PARAMS)
        quiet = one.train(EVERYONE, 0, PARAMS)
        assert fleet.train(EVERYONE, 0, PARAMS).tobytes() == quiet.tobytes()

        killed = fleet.train(EVERYONE, 4, PARAMS).copy()
        assert len(lost) == 1
        assert "terminated" in lost[0]
        assert killed.tobytes() == one.train(EVERYONE, 4, PARAMS).tobytes()  # the accident happens once only
        with pytest.raises(WorkerLostError, match=r"lost twice in round 5: .* fewer workers than 2, fewer clients or"):
            fleet.train(EVERYONE, 5, PARAMS)
        assert len(lost) == 2


def test_an_error_that_cannot_be_sent(tmp_path):
    one = trainer(Accident(str(tmp_path)))
    one = replace(one, clients=one.clients[1:2], malicious=frozenset({0}))
    message = "round 2 cannot be told from one process to another; use one worker"
    with open_fleet(one, 2, pytest.fail) as fleet, pytest.raises(WorkerLostError, match=message):
        fleet.train([0], 2, PARAMS)


def test_one_worker_is_this_process():
    one = trainer()
    with open_fleet(one, 1, pytest.fail) as fleet:
        assert fleet is one


def test_an_attack_cannot_spoil_the_data_of_later_rounds(tmp_path):
    one = trainer(Accident(str(tmp_path)))
    before = [client.y.copy() for client in one.clients]
    with pytest.raises(ValueError, match="read-only"):
        one.train(EVERYONE, 3, PARAMS)
    assert all((client.y == y).all() for client, y in zip(one.clients, before, strict=True))
    assert one.clients[1].y.flags.writeable  # only the attack's view is not


def test_a_run_with_memory_that_workers_began_ends_the_same_without_them(tmp_path, scratch):
    settings = {"dataset": "synthetic", "task": "softmax", "clients": 9, "participation": 0.7, "rounds": 3}
    others = {"root_size": 20, "attack": "label_flip", "aggregator": "median", "server_optimizer": "scaffold"}
    config = load_config(None, settings | others)
    simulation = build_simulation(config)
    alone = execute(simulation, config, name="alone")
    how = {"name": "parted", "out": tmp_path / "run"}
    with pytest.raises(RunInterrupted) as stopped:
        execute(simulation, config, **how, workers=3, stop=lambda: (tmp_path / "run" / "checkpoint.msgpack").exists())
    assert list(scratch.iterdir()) == []  # while the error, and with it the run, is still at hand
    assert "after round 1 of 3" in str(stopped.value)
    parted = execute(simulation, config, **how, resume=True)
    assert parted.params.tobytes() == alone.params.tobytes()


def test_what_belongs_to_one_process_cannot_be_sent_and_leaves_nothing(tmp_path):
    attack = Attack()
    attack.file = (tmp_path / "open").open("w")
    with attack.file, pytest.raises(InvalidValueError, match=r"cannot be sent to worker processes: .*; leave out"):
        open_fleet(trainer(attack), 2, pytest.fail).__enter__()


def test_a_full_disk_is_an_error_and_not_a_signal(monkeypatch):
    real = module._file

    def full(path):
        if path.name == "updates":
            path.symlink_to("/dev/full")
        return real(path)

    monkeypatch.setattr(module, "_file", full)
    with pytest.raises(StorageError, match="the disk is full"):
        open_fleet(trainer(), 2, pytest.fail).__enter__()


def test_the_folder_is_where_there_is_room(tmp_path, monkeypatch):
    room = {"memory": 100, "disk": 1000}
    monkeypatch.setattr(module.shutil, "disk_usage", lambda base: type("usage", (), {"free": room[base.name]}))
    for size, expected in ((50, "memory"), (95, "disk"), (500, "disk")):
        with module._scratch(size) as folder:
            assert folder.parent.name == expected
            assert folder.stat().st_mode & 0o77 == 0  # nobody else's to read
    with pytest.raises(StorageError, match=r"neither .*memory nor .*disk has that much room; free some"):
        module._scratch(5000).__enter__()
    monkeypatch.setattr(module, "_bases", lambda: (tmp_path / "none", tmp_path / "disk"))
    with module._scratch(50) as folder:
        assert folder.parent.name == "disk"


def test_abandoned_folders_are_removed_and_those_in_use_are_kept(scratch):
    abandoned, new, foreign = scratch / "matl-abandoned", scratch / "matl-new", scratch / "other"
    for folder in (abandoned, new, foreign):
        folder.mkdir()
    (abandoned / "owner").touch()
    (abandoned / "X").touch()
    (foreign / "owner").touch()
    with module._scratch(10) as first:
        assert not abandoned.exists()
        with module._scratch(10) as second:
            assert first.exists()
        assert not second.exists()
    assert not first.exists()
    assert new.exists()  # being made
    assert foreign.exists()
    new.rmdir()


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from matl.attacks import Attack
from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining
from matl.learning.tasks import SoftmaxTask
from matl.simulation import fleet

fleet._bases = lambda: (Path(sys.argv[1]),)
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a parent may have switched off

class Slow(Attack):  # of __main__, which a worker has none of
    def poison(self, X, y, num_classes, rng):
        print(os.getpid(), flush=True)
        time.sleep(60)

clients = [Dataset("c", np.ones((2, 3), np.float32), np.zeros(2, int), 2)]
trainer = fleet.Trainer(clients, frozenset({0}), SoftmaxTask(3, 2), LocalTraining(), Slow(), 0)
with fleet.open_fleet(trainer, 2, print) as clients:
    clients.train([0], 0, np.zeros(8, np.float32))
"""


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL], ids=lambda signum: signum.name)
def test_workers_end_with_their_parent_however_it_ends(signum, scratch):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(scratch)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        worker = int(process.stdout.readline())
        assert worker != process.pid
        [folder] = scratch.iterdir()
        if signum == signal.SIGINT:
            os.killpg(process.pid, signum)  # as Ctrl-C does
        else:
            process.kill()
        _, stderr = process.communicate(timeout=DEADLINE)
        waited = time.monotonic() + DEADLINE
        while alive(worker):
            assert time.monotonic() < waited
            time.sleep(0.02)
    finally:
        process.kill()
    if signum == signal.SIGINT:
        assert stderr.rstrip().endswith("KeyboardInterrupt")
    else:
        assert folder.exists()  # nobody was left to remove it
        with module._scratch(10):
            pass
    assert not folder.exists()
