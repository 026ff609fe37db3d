"""``matl up`` as a process: its last line, interrupted, killed, gone on with, and asked by the other commands."""

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import threading

import pytest

from matl.cli.exit_codes import ExitCode

MATL = [sys.executable, "-c", "import sys; sys.argv[0] = 'matl'; from matl.cli import main; main()"]
RUN = [
    *("--dataset", "synthetic", "--clients", "12", "--byzantine", "0.25", "--task", "softmax", "--root-size", "20"),
    *("--mode", "mode0", "--port", "0"),
]
DEADLINE = 60


@pytest.fixture
def start(tmp_path):
    """Start the command in a folder; what was started ends with the test."""
    started = []

    def matl(*args):
        process = subprocess.Popen(
            [*MATL, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        started.append(process)
        return process

    yield matl
    for process in started:
        process.kill()
        process.communicate()


def until(process, words):
    """Read standard error up to a line with these words, and return all of it so far."""
    seen = ""
    for line in process.stderr:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"ended with {process.wait()}: {seen}")


def test_one_line_at_the_end_and_the_model_of_matl_run(run):
    done = run("up", *RUN, "--rounds", "3", "--exit")
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    told = run("run", *RUN[:-2], "--rounds", "3", "--no-ceiling", "--json").json
    assert line.startswith(f"mode0-synthetic-seed10: 3 rounds, accuracy {100 * told['accuracy']:.1f} %, quarantined ")
    assert line.endswith(f"model {told['model_hash'][:12]} (a simulation)")
    assert "12 simulated clients, 3 of them malicious; 3 rounds" in done.err
    assert "3 of 3 rounds  accuracy" in done.err

    again = run("up", "--exit", "--json", "--port", "0")
    assert (again.code, again.err) == (0, "")
    assert again.json["model_hash"] == told["model_hash"]
    for key in ("accuracy", "tpr", "fpr", "quarantined"):
        assert again.json[key] == told[key]

    other = run("up", "--clients", "20", "--exit")
    other.refused(ExitCode.USAGE, "--clients 20 (it is 12); leave these out")
    more = run("up", "--rounds", "4", "--exit", "--port", "0")
    assert more.out.startswith("mode0-synthetic-seed10: 4 rounds")
    assert "going on after round 3 of 4" in more.err
    run("up", "--rounds", "2", "--exit").refused(ExitCode.USAGE, "has 4 rounds, got --rounds 2")


@pytest.mark.parametrize("watch", [[], ["--watch"]])
def test_on_a_terminal_the_result_is_a_line_of_its_own(tmp_path, watch):
    terminal, shown = pty.openpty()
    command = [*MATL, "up", *RUN, "--rounds", "1", "--exit", *watch]
    drawn = bytearray()

    def draw():
        with contextlib.suppress(OSError):  # it ends with an error where nobody writes any more
            while piece := os.read(terminal, 4096):
                drawn.extend(piece)

    reading = threading.Thread(target=draw)
    reading.start()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=shown, text=True, cwd=tmp_path)
    os.close(shown)
    try:
        out, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.communicate()
        reading.join()
        os.close(terminal)
    assert process.returncode == 0
    assert out.startswith("mode0-synthetic-seed10: 1 rounds, accuracy ")  # not drawn over, and not on the terminal
    assert out.count("\n") == 1
    assert "\x1b" not in out
    assert b"1/1" in drawn


def test_killed_in_the_middle_it_goes_on_to_the_same_model(start, run):
    killed = start("up", *RUN, "--rounds", "12", "--verbose")
    until(killed, "quarantined")
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(DEADLINE) == -signal.SIGKILL
    resumed = run("up", "--exit", "--json", "--port", "0")
    assert resumed.code == 0, resumed.err
    whole = run("run", *RUN[:-2], "--rounds", "12", "--no-ceiling", "--json").json
    assert resumed.json["model_hash"] == whole["model_hash"]


def test_interrupted_it_says_how_to_go_on(start):
    process = start("up", *RUN, "--rounds", "500", "--folder", "net")
    until(process, "simulated clients")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == ExitCode.INTERRUPTED
    assert out == ""
    assert "of 500; nothing is lost, go on with: matl up --folder net\n" in err
    assert "Traceback" not in err


def test_a_port_that_is_taken(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("up", *RUN[:-2], "--rounds", "1", "--port", port)
    done.refused(ExitCode.USAGE, f"cannot listen at 127.0.0.1:{port}: Address already in use; end what listens there")


def test_what_a_coordinator_needs_is_named_where_it_is_missing(run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for command in (["up", "--exit"], ["serve", "file.toml"], ["backup", "copy"]):
        run(*command).refused(ExitCode.MISSING_EXTRA, "fastapi is not installed; install it with: pip install 'matl[")
    assert list(tmp_path.iterdir()) == []


def test_a_coordinator_that_serves_is_asked_by_the_other_commands(start, run, tmp_path):
    process = start("up", *RUN, "--rounds", "1")
    until(process, "still serving http://127.0.0.1:")
    run("up", "--port", "0").refused(ExitCode.STATE, "another coordinator runs from matl-network")

    made = run("token", "issue", "carol", "--scope", "operator", "--json").json
    (tmp_path / "carol.token").write_text(made["secret"])
    (tmp_path / "carol.token").chmod(0o600)
    as_carol = ("--token-file", "carol.token")
    invited = run("invite", "alice", *as_carol)
    assert invited.out.startswith("matl_inv_")
    assert invited.out.count("\n") == 1  # the token alone, for $(matl invite)
    assert "good until" in invited.err
    issued = run("token", "issue", "erin")
    assert issued.out.startswith("matl_op_")
    assert issued.out.count("\n") == 1
    assert "viewer token" in issued.err
    run("invite", "bad name!").refused(ExitCode.USAGE, "expected CLIENT as up to 128 letters, digits", "'bad name!'")
    secure = tmp_path.joinpath("matl-network", "url").read_text().strip().replace("http:", "https:")
    run("invite", "--url", secure).refused(ExitCode.SERVICE, "if it is served without TLS, its --url is http://")
    clear = ("--url", "http://192.0.2.1:8470")
    run("invite", *clear).refused(ExitCode.USAGE, "expected https:// for a coordinator on another", "say --insecure")
    run("db", "upgrade").refused(ExitCode.STATE, "another coordinator runs from matl-network")
    refused = run("token", "issue", "dave", *as_carol)
    refused.refused(ExitCode.SERVICE, "this needs a token of scope admin")
    listed = run("token", "list").out
    assert "carol" in listed
    assert made["secret"] not in listed
    rotated = run("token", "rotate", made["id"], "--json").json
    assert rotated["secret"] != made["secret"]
    assert run("token", "revoke", rotated["id"]).out == f"{rotated['id']} is revoked\n"
    (own,) = (one["id"] for one in run("token", "list", "--json").json if one["name"] == "admin")
    assert run("token", "rotate", own).code == 0
    assert run("token", "list").code == 0  # with the new one, from the folder
    (tmp_path / "carol.token").chmod(0o644)
    run("invite", *as_carol).refused(ExitCode.STATE, "can be read by others")

    told = run("status")
    assert told.code == 0, told.err
    assert "mode0-synthetic-seed10 (mode0): finished, 1 of 1 rounds" in told.out
    assert "client-000" in told.out
    as_data = run("status", "--json", "--rounds", "3").json
    (one,) = as_data["runs"]
    assert (one["open_round"], [each["status"] for each in one["rounds"]]) == (None, ["committed"])
    assert len(as_data["clients"]) == len(one["standings"]) == 12

    saved = run("backup", "copy", "--json")
    assert saved.code == 0, saved.err
    run("backup", "copy").refused(ExitCode.STATE, "exists already")

    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert out.startswith("mode0-synthetic-seed10: 1 rounds")
    assert "Traceback" not in err
    run("invite").refused(ExitCode.SERVICE, "no coordinator can be reached at http://127.0.0.1:")

    run("restore", "copy", "--folder", "other", "--digest", "ab" * 32).refused(
        ExitCode.STATE, "not the backup that is known"
    )
    assert run("restore", "copy", "--folder", "other", "--digest", saved.json["digest"]).code == 0
    run("restore", "copy", "--folder", "other").refused(ExitCode.STATE, "holds receipts.pem already")
    assert run("db", "status", "--folder", "other").out.strip().endswith("up to date")
    ends = [
        run("up", "--folder", folder, "--rounds", "3", "--exit", "--json", "--port", "0")
        for folder in ("other", "matl-network")
    ]
    assert [end.code for end in ends] == [0, 0]
    assert ends[0].json["model_hash"] == ends[1].json["model_hash"]
    assert run("verify", "audit", "other/audit.log").code == 0

    key = tmp_path / "copy" / "files" / "receipts.pem"
    key.write_bytes(key.read_bytes().replace(b"M", b"N"))
    run("restore", "copy", "--folder", "third").refused(ExitCode.STATE, "receipts.pem of the backup is damaged")
    assert not (tmp_path / "third" / "matl.db").exists()


def test_without_a_coordinator_the_commands_say_so(run):
    for command in (["invite"], ["token", "list"]):
        run(*command).refused(ExitCode.STATE, "give its --token-file, or the --folder of the coordinator")
    for command in (["backup", "copy"], ["db", "status"]):
        run(*command).refused(ExitCode.USAGE, "matl-network: 1 problem", "no such file or folder; name the folder of")
