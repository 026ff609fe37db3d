"""``matl oracle``: what it refuses, and what it prints; served for real in tests/oracle."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from matl.cli import app
from matl.errors import InvalidValueError, ServiceError, StateError

CONFIG = 'dataset = "synthetic"\nclients = 6\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    return path


def error(*arguments: str) -> BaseException:
    found = CliRunner().invoke(app, ["oracle", *arguments]).exception
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--tpm, or --software"),
        (("--tpm", "device:/dev/tpmrm0", "--software"), "--tpm, or --software"),
        (("--software", "--tls-cert", "cert.pem"), "--tls-cert and --tls-key together"),
        (("--software", "--host", "0.0.0.0"), "sent in the clear"),
    ],
)
def test_serve_refuses_what_would_not_hold(config: Path, options: tuple[str, ...], words: str) -> None:
    found = error("serve", str(config), *options)
    assert isinstance(found, InvalidValueError)
    assert words in str(found)


def test_serve_says_that_the_port_is_taken(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = error("serve", str(config), "--software", "--folder", str(tmp_path / "oracle"), "--port", port)
    assert isinstance(found, InvalidValueError)
    assert f"port {port}: Address already in use; choose another" in str(found)


def test_measure_says_what_has_to_be_proved(config: Path) -> None:
    plain = CliRunner().invoke(app, ["oracle", "measure", str(config)])
    told = json.loads(CliRunner().invoke(app, ["oracle", "measure", str(config), "--json"]).stdout)
    assert plain.stdout.strip() == told["measurement"]
    fewer = json.loads(
        CliRunner().invoke(app, ["oracle", "measure", str(config), "--json", "--least-clients", "2"]).stdout
    )
    assert {key for key in told if told[key] != fewer[key]} == {"measurement", "policy"}


def test_check_says_who_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    found = error("check", f"http://127.0.0.1:{port}", "--software", "--measurement", "0" * 64)
    assert isinstance(found, ServiceError)
    assert "is it running?" in str(found)
    strict = error("check", f"http://127.0.0.1:{port}", "--measurement", "0" * 64)
    assert isinstance(strict, InvalidValueError)
    assert "expected --vendor-key" in str(strict)
    assert "give --software here too" in str(strict)
    short = error("check", f"http://127.0.0.1:{port}", "--software", "--measurement", "00")
    assert "expected --measurement as 64 digits" in str(short)
    missing = error("check", "http://x", "--measurement", "0" * 64, "--vendor-key", str(tmp_path / "none.der"))
    assert isinstance(missing, StateError)
