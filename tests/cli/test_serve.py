"""``matl serve``: what it checks, and how it ends."""

import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from matl.cli.exit_codes import ExitCode

MATL = [sys.executable, "-c", "import sys; sys.argv[0] = 'matl'; from matl.cli import main; main()"]
FILE = """
folder = "data"
port = 0

[runs.hospitals]
dataset = "synthetic"
clients = 4
rounds = 2
mode = "mode0"
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "matl.toml").write_text(FILE)
    return tmp_path / "matl.toml"


def test_check_says_what_is_in_order_and_what_is_not(run, file):
    file.write_text(FILE + "network = { quorum = 4 }\n")
    done = run("serve", "matl.toml", "--check")
    assert (done.code, done.err) == (0, "")
    assert "ok  run hospitals\n" in done.out
    file.write_text(FILE + "network = { target = 3 }\n")
    done = run("serve", "matl.toml", "--check")
    assert done.code == 0
    assert "ok  run hospitals: rounds of 3: mode0 has no opinion below 4 updates" in done.out
    assert run("serve", "matl.toml", "--check", "--json").json[-1]["note"].startswith("rounds of 3: mode0")
    file.write_text(FILE.replace('"synthetic"', '{ name = "csv", path = "none.csv", label = "ill" }'))
    done = run("serve", "matl.toml", "--check", "--json")
    assert done.code == ExitCode.USAGE
    assert [one["what"] for one in done.json if one["problem"]] == ["run hospitals"]


def test_a_file_that_is_wrong_is_refused(run, file):
    file.write_text(FILE + 'attack = "alie"\n')
    done = run("serve", "matl.toml")
    done.refused(ExitCode.USAGE, "hospitals.attack: clients are real and not ours to command")
    run("serve", "none.toml").refused(ExitCode.USAGE, "none.toml: 1 problem", "cannot be read")


def test_it_serves_until_it_is_told_to_end(run, file, tmp_path):
    process = subprocess.Popen(
        [*MATL, "serve", "matl.toml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        line = process.stderr.readline()
        assert line.startswith("coordinator: http://127.0.0.1:")
        assert run("invite", "--folder", "data").out.startswith("matl_inv_")
        run("serve", "matl.toml").refused(ExitCode.STATE, "another coordinator runs from")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out) == (0, "")
    assert err.endswith("stopping; nothing is lost\n")


def test_a_second_one_on_the_same_database_takes_over_and_the_first_ends(run, file, tmp_path):
    database = f'database = "sqlite:///{tmp_path}/shared.db"\nblobs = "blobs"\n'
    for name in ("one", "two"):
        text = FILE.replace('folder = "data"', f'folder = "{name}"\n{database}')
        (tmp_path / f"{name}.toml").write_text(text)
    first = subprocess.Popen([*MATL, "serve", "one.toml"], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        port = int(re.match(r"coordinator: http://127\.0\.0\.1:(\d+)", first.stderr.readline())[1])
        # A start that cannot succeed takes nothing over.
        (tmp_path / "three.toml").write_text(
            (tmp_path / "two.toml").read_text().replace("port = 0", f"port = {port}").replace('"two"', '"three"')
        )
        run("serve", "three.toml").refused(ExitCode.USAGE, f"cannot listen at 127.0.0.1:{port}")
        assert first.poll() is None
        assert run("invite", "--folder", "one").out.startswith("matl_inv_")

        second = subprocess.Popen([*MATL, "serve", "two.toml"], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        try:
            assert second.stderr.readline().startswith("coordinator: ")
            _, err = first.communicate(timeout=60)
            assert first.returncode == ExitCode.STATE
            words = " ".join(err.split())
            assert "another coordinator has taken over the database, which serves one at a time" in words
            assert "Traceback" not in err
            assert run("invite", "--folder", "two").out.startswith("matl_inv_")
        finally:
            second.send_signal(signal.SIGTERM)
            second.communicate(timeout=60)
        assert second.returncode == 0
    finally:
        first.kill()
        first.communicate()


def test_it_tells_what_happens_and_is_silent_if_asked(run, file, tmp_path):
    loud = subprocess.Popen([*MATL, "serve", "matl.toml"], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        greeted, told = [loud.stderr.readline() for _ in range(2)]
    finally:
        loud.send_signal(signal.SIGTERM)
        loud.communicate(timeout=60)
    assert "(documents: http://127.0.0.1:" in greeted
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} hospitals: begun\n", told)
    (tmp_path / "data" / "url").unlink()

    quiet = subprocess.Popen([*MATL, "serve", "matl.toml", "--quiet"], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        for _ in range(600):
            if (tmp_path / "data" / "url").exists():
                break
            time.sleep(0.1)
        assert run("invite", "ann", "--folder", "data").code == 0
    finally:
        quiet.send_signal(signal.SIGTERM)
        _, err = quiet.communicate(timeout=60)
    assert (quiet.returncode, err) == (0, "")
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    assert (tmp_path / "data" / "receipts.pub.pem").read_text().startswith("-----BEGIN PUBLIC KEY-----")

    file.write_text(FILE.replace("clients = 4", "clients = 5"))
    for options in ((), ("--check",)):
        done = run("serve", "matl.toml", *options)
        assert done.code == ExitCode.USAGE
        assert "clients: begun with 4, the file says 5; put back what it was begun with" in " ".join(done.err.split())
        assert "Traceback" not in done.err


def test_a_port_that_is_taken_is_changed_in_the_file(run, file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(FILE.replace("port = 0", f"port = {port}"))
        run("serve", "matl.toml").refused(ExitCode.USAGE, "write another one as port = ... into the file of settings")


def test_the_tables_are_made_and_looked_at(run, file):
    assert "tables of version none" in run("db", "status", "--folder", "matl.toml").out
    upgraded = run("db", "upgrade", "--folder", "matl.toml")
    assert (upgraded.code, upgraded.err) == (0, "")
    told = run("db", "status", "--folder", "matl.toml", "--json").json
    assert told["up_to_date"]
    assert upgraded.out == f"tables of version {told['needed']}\n"
