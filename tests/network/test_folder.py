"""The folder of a network: what it was begun with, and that one process has it."""

import subprocess
import sys

import pytest

from matl.errors import ConfigError, InvalidValueError, StateError
from matl.network.folder import LocalNetwork, in_use, read_url, tell_url

GIVEN = {
    "dataset": "synthetic",
    "clients": 12,
    "byzantine": 0.25,
    "rounds": 3,
    "attack": {"name": "sleeper", "wake_round": "2"},
}


@pytest.fixture
def begun(tmp_path):
    network = LocalNetwork.of(tmp_path / "net", GIVEN)
    network.folder.mkdir()
    network.write()
    return network


def test_a_network_goes_on_with_what_it_was_begun_with(begun):
    again = LocalNetwork.of(begun.folder, {})
    assert again == begun
    assert again.run.config.digest == begun.run.config.digest
    assert again.run.terms.simulated
    assert LocalNetwork.of(begun.folder, GIVEN) == begun


def test_more_rounds_may_be_asked_for_and_stay(begun):
    more = LocalNetwork.of(begun.folder, {"rounds": 8})
    assert (more.rounds, more.run.config) == (8, begun.run.config)
    more.write()
    assert LocalNetwork.of(begun.folder, {}).rounds == 8
    with pytest.raises(InvalidValueError, match="has 8 rounds, got --rounds 5; more may be asked for, not fewer"):
        LocalNetwork.of(begun.folder, {"rounds": 5})


def test_other_options_are_refused_with_what_it_is(begun, tmp_path):
    with pytest.raises(
        InvalidValueError, match=r"--byzantine 0.4 \(it is 0.25\), --seed 7 \(it is 10\); leave these out"
    ):
        LocalNetwork.of(begun.folder, {**GIVEN, "byzantine": 0.4, "seed": 7})
    (tmp_path / "file.toml").write_text("alpha = 3.0\n")
    with pytest.raises(InvalidValueError, match=r"--alpha 3\.0"):
        LocalNetwork.of(begun.folder, {}, tmp_path / "file.toml")


def test_wrong_options_are_wrong_first(begun):
    with pytest.raises(ConfigError, match="clients"):
        LocalNetwork.of(begun.folder, {"clients": 0})


def test_another_number_of_guests_may_be_asked_for(begun):
    more = LocalNetwork.of(begun.folder, {}, guests=2)
    assert (more.run.terms.guests, more.run.config, more.rounds) == (2, begun.run.config, 3)
    more.write()
    assert LocalNetwork.of(begun.folder, {}) == more
    none = LocalNetwork.of(begun.folder, {"rounds": 4}, guests=0)
    assert (none.run.terms.guests, none.rounds) == (0, 4)


@pytest.mark.parametrize("name", ["matl.db", "receipts.pem", "admin.token", "audit.log", "url"])
def test_simulated_clients_do_not_join_a_coordinator_with_real_ones(tmp_path, name):
    (tmp_path / "notes.txt").write_text("nothing of a coordinator's")
    assert LocalNetwork.of(tmp_path, GIVEN).rounds == 3
    (tmp_path / name).write_text("")
    with pytest.raises(StateError, match=rf"holds {name} and no network\.toml: .* serve it with matl serve"):
        LocalNetwork.of(tmp_path, GIVEN)


@pytest.mark.parametrize("content", ["no = toml = at all", "clients = -1\n", b"\xff"])
def test_a_damaged_folder_is_named(begun, content):
    (begun.folder / "network.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StateError, match=r"cannot be gone on with: network\.toml"):
        LocalNetwork.of(begun.folder, {})


def test_one_process_has_a_folder_and_a_killed_one_gives_it_back(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from matl.network.folder import in_use\n"
        "with in_use(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "net")], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(StateError, match="another coordinator runs from"), in_use(tmp_path / "net"):
            pass
    finally:
        other.kill()
        other.communicate()
    with in_use(tmp_path / "net"):
        assert (tmp_path / "net").stat().st_mode & 0o077 == 0
        assert (tmp_path / "net" / "lock").stat().st_mode & 0o077 == 0


def test_where_it_is_can_be_read_once_it_was_started(tmp_path):
    with pytest.raises(StateError, match="start one with matl up"):
        read_url(tmp_path)
    tell_url(tmp_path, "http://127.0.0.1:8470")
    assert read_url(tmp_path) == "http://127.0.0.1:8470"
