"""``matl status`` of a served run whose round waits for clients."""

import contextlib
import signal
import subprocess
import sys

from matl.coordinator.http.examples import EXAMPLES
from matl.network.operating import RunStanding
from matl.protocol.messages import Metrics, RunView

MATL = [sys.executable, "-c", "import sys; sys.argv[0] = 'matl'; from matl.cli import main; main()"]
FILE = """
folder = "data"
port = 0

[runs.hospitals]
dataset = "synthetic"
clients = 4
rounds = 2
mode = "mode0"

[runs.hospitals.network]
deadline = 600
"""


def test_the_open_round_says_what_it_waits_for(run, tmp_path):
    (tmp_path / "matl.toml").write_text(FILE)
    process = subprocess.Popen([*MATL, "serve", "matl.toml"], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert process.stderr.readline().startswith("coordinator: ")
        done = run("status", "--folder", "data")
        assert (done.code, done.err) == (0, "")
        assert "hospitals (mode0): running, 0 of 2 rounds" in done.out
        assert "round 0 is open: 0 of 4 updates accepted, waits for 4, at the latest until " in done.out
        assert run("status", "--folder", "data", "--json").json["runs"][0]["open_round"]["target"] == 4
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()


class Line:
    """An operator's line to a coordinator two of whose runs do not go on."""

    url = "https://coordinator"

    def clients(self):
        return []

    def runs(self):
        return [RunView.model_validate(EXAMPLES["RunView"] | {"obstacle": "the disk [sdb] is full"})]

    def standing(self, run, *, rounds):
        return RunStanding(run, None, (), ())

    def metrics(self):
        return Metrics.model_validate(EXAMPLES["Metrics"] | {"broken_runs": {"second": "its data set has moved away"}})


def test_what_does_not_go_on_says_why(run, monkeypatch):
    monkeypatch.setattr(sys.modules["matl.cli.status"], "operator", lambda *_: contextlib.nullcontext(Line()))
    lines = run("status").out.splitlines()
    assert "second: cannot go on since the restart: its data set has moved away" in lines
    assert "it cannot go on for now, and tries again: the disk [sdb] is full" in lines
    said = run("status", "--json").json
    assert said["broken_runs"] == {"second": "its data set has moved away"}
    assert said["runs"][0]["run"]["obstacle"] == "the disk [sdb] is full"
