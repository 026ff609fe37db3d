"""``matl serve``: what it checks, and how it ends."""

import signal
import subprocess
import sys

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
    done = run("serve", "matl.toml", "--check")
    assert (done.code, done.err) == (0, "")
    assert "ok  run hospitals" in done.out
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
    assert (process.returncode, out, err) == (0, "", "stopping; nothing is lost\n")


def test_the_tables_are_made_and_looked_at(run, file):
    assert "tables of version none" in run("db", "status", "--of", "matl.toml").out
    upgraded = run("db", "upgrade", "--of", "matl.toml")
    assert (upgraded.code, upgraded.err) == (0, "")
    told = run("db", "status", "--of", "matl.toml", "--json").json
    assert told["up_to_date"]
    assert upgraded.out == f"tables of version {told['needed']}\n"
