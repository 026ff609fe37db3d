"""What a client keeps on its disk, and who may use it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import pytest

from matl.attest.keys import SigningKey
from matl.client.folder import ClientFolder
from matl.errors import InvalidValueError, ProtocolError, StateError


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_key_and_name_stay(tmp_path):
    path = tmp_path / "new" / "alice"
    with ClientFolder(path) as folder:
        name, key = folder.client_id, folder.key.public
    assert name == f"client-{key.fingerprint[:12]}"
    assert (mode(path), mode(path / "key.pem")) == (0o700, 0o600)
    with ClientFolder(path, client_id=name) as again:
        assert (again.client_id, again.key.public) == (name, key)


def test_what_lies_in_the_clear_is_closed_to_others(tmp_path):
    inner = [tmp_path / name for name in ("queue", "models")]
    for each in inner:
        each.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    ClientFolder(tmp_path).close()
    assert [mode(each) for each in inner] == [0o700, 0o700]
    assert mode(tmp_path) == 0o755  # is its owner's to decide


def test_nothing_secret_is_beside_the_key(tmp_path):
    with ClientFolder(tmp_path, client_id="alice") as folder:
        folder.pin("demo", "abc")
    text = "".join(file.read_text() for file in tmp_path.glob("*.json"))
    assert "PRIVATE" in (tmp_path / "key.pem").read_text()
    assert "PRIVATE" not in text
    assert json.loads(text)["client_id"] == "alice"


def test_one_at_a_time(tmp_path):
    with ClientFolder(tmp_path), pytest.raises(StateError, match="is in use by another client"):
        ClientFolder(tmp_path)
    with ClientFolder(tmp_path):
        pass


def test_another_process_is_kept_out_and_its_death_lets_go(tmp_path):
    code = (
        "import pathlib, sys; from matl.client.folder import ClientFolder\n"
        "folder = ClientFolder(pathlib.Path(sys.argv[1])); print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"mine\n"
        with pytest.raises(StateError, match="in use"):
            ClientFolder(tmp_path)
        process.kill()
    ClientFolder(tmp_path).close()


def test_a_folder_is_one_clients(tmp_path):
    ClientFolder(tmp_path, client_id="alice").close()
    with pytest.raises(StateError, match=r"belongs to client 'alice', got client_id='bob'"):
        ClientFolder(tmp_path, client_id="bob")
    (tmp_path / "key.pem").unlink()
    with pytest.raises(StateError, match="put the old key back"):
        ClientFolder(tmp_path)


def test_a_refusal_leaves_no_lock(tmp_path):
    ClientFolder(tmp_path, client_id="alice").close()
    for _ in range(2):
        with pytest.raises(StateError, match="belongs to"):
            ClientFolder(tmp_path, client_id="bob")


def test_a_key_kept_elsewhere(tmp_path):
    key = SigningKey.generate()
    key.save(tmp_path / "elsewhere.pem")
    for given in (key, tmp_path / "elsewhere.pem"):
        with ClientFolder(tmp_path / "client", key=given) as folder:
            assert folder.key.public == key.public
    assert not (tmp_path / "client" / "key.pem").exists()


def test_a_key_that_others_can_read_is_refused(tmp_path):
    ClientFolder(tmp_path).close()
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(StateError, match="chmod 600"):
        ClientFolder(tmp_path)


def test_names_are_checked(tmp_path):
    with pytest.raises(InvalidValueError, match="client_id: expected 1 to 128 ASCII letters"):
        ClientFolder(tmp_path / "x", client_id="al ice")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"version": 2}', '{"version": 1}'])
def test_a_damaged_note(tmp_path, content):
    (tmp_path / "client.json").write_text(content)
    with pytest.raises(StateError, match=r"client\.json cannot be read"):
        ClientFolder(tmp_path)


def test_a_run_keeps_the_key_of_its_receipts(tmp_path):
    with ClientFolder(tmp_path) as folder:
        folder.pin("demo", "abc")
        folder.pin("demo", "abc")
        folder.pin("other", "xyz")
    with ClientFolder(tmp_path) as folder, pytest.raises(ProtocolError, match="another key than before"):
        folder.pin("demo", "xyz")
