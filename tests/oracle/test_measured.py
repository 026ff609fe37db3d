"""One byte of code, configuration or policy, and the oracle proves something else."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from tests.oracle.processes import Library
from tests.oracle.scenes import RUN

from matl.attest.measurement import Measurement
from matl.client.evidence import OraclePins
from matl.client.sealed import OracleWatch
from matl.errors import AttestationError, ConfigError
from matl.network.settings import RunSettings
from matl.oracle.settings import OracleConfig


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(RUN)
    return path


def known(url: str, measurement: str) -> str:
    watch = OracleWatch(OraclePins(measurements=frozenset({measurement}), software=True), url)
    return asyncio.run(watch.known()).claims.measurement


def test_one_byte_of_the_code_changes_what_is_proved_and_clients_refuse_it(
    library: Library, config: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with library.oracle(config, tmp_path / "honest", "--software", fresh=temporary) as serving:
        expected = serving.measurement
        assert known(serving.url, expected) == expected
        assert "hardware_root: false" in serving.said
        assert library.matl("oracle", "measure", str(config)).strip() == expected  # what is imported is the same here
        (compiled,) = temporary.iterdir()  # of the files it measured, and not what lay beside them
        assert list(compiled.rglob("judging.*.pyc"))
        serving.process.terminate()
        assert serving.process.wait(10) == 0
        assert not compiled.exists()
    changed = Library(tmp_path / "changed")
    shutil.copytree(library.folder, changed.folder)
    file = changed.folder / "matl" / "aggregators" / "mean.py"
    content = bytearray(file.read_bytes())
    content[-1] = ord(" ")  # was a newline; it runs as before
    file.write_bytes(content)
    with changed.oracle(config, tmp_path / "changed-oracle", "--software") as serving:
        assert serving.measurement != expected
        with pytest.raises(AttestationError) as caught:
            known(serving.url, expected)
        assert caught.value.code == "measurement"
        told = json.loads(changed.matl("oracle", "check", serving.url, "--software", "--json", "--measurement",
                                       serving.measurement))  # fmt: skip
        assert told["hardware_root"] is False
        refused = changed.refused("oracle", "check", serving.url, "--software", "--measurement", expected)
        assert f"expected the measurement {expected}, the oracle proves {serving.measurement}" in refused


def test_one_byte_of_a_dependency_changes_what_has_to_be_proved(library: Library, config: Path, tmp_path: Path) -> None:
    def measured(which: Library) -> tuple[str, dict[str, str]]:
        told = json.loads(which.matl("oracle", "measure", str(config), "--json"))
        lines = [f"{part['name']}=={part['version']} {part['sha256']}\n" for part in told["parts"]]
        assert hashlib.sha256("".join(lines).encode()).hexdigest() == told["package"]
        return told["measurement"], {part["name"]: part["sha256"] for part in told["parts"]}

    copied = Library(tmp_path / "copied")
    shutil.copytree(library.folder, copied.folder)
    found = metadata.distribution("msgpack")
    for folder in {file.parts[0] for file in found.files or ()}:
        shutil.copytree(str(found.locate_file(folder)), copied.folder / folder)
    expected, parts = measured(library)
    assert {"numpy", "numba", "llvmlite", "cryptography"} <= set(parts)
    assert measured(copied) == (expected, parts)  # it is what lies on the disk that counts, and not where
    file = copied.folder / "msgpack" / "exceptions.py"
    file.write_bytes(file.read_bytes()[:-1] + b" ")  # was a newline
    changed, changed_parts = measured(copied)
    assert changed != expected
    assert {name for name in parts if parts[name] != changed_parts[name]} == {"msgpack"}


def test_one_byte_of_the_configuration_and_every_term_of_the_policy_count(config: Path) -> None:
    def measured(text: str, least: int = 3) -> Measurement:
        config.write_text(text)
        return OracleConfig.read(config, least_clients=least).measure()

    usual = measured(RUN)
    assert measured(RUN) == usual
    comment = measured(RUN + "\n")
    assert (comment.package, comment.policy) == (usual.package, usual.policy)
    assert comment.config != usual.config
    assert measured(RUN, least=2).policy != usual.policy
    assert measured(RUN + "max_staleness = 1\n").policy != usual.policy
    judge = measured(RUN.replace("clients = 6", "clients = 6\nroot_size = 60"))
    assert judge.policy != usual.policy  # other root data, which the judge is made of
    assert len({each.digest for each in (usual, comment, measured(RUN, least=2), judge)}) == 4


def test_the_configuration_is_that_of_the_coordinator(config: Path) -> None:
    for text in (RUN, 'dataset = "synthetic"\nclients = 6\n', 'dataset = "synthetic"\n[network]\nmax_staleness = 2\n'):
        config.write_text(text)
        coordinator = RunSettings.of(tomllib.loads(text))
        oracle = OracleConfig.read(config)
        assert oracle.config.run_config == coordinator.config.digest
        assert oracle.workload.max_staleness == coordinator.terms.max_staleness


def test_what_is_no_configuration_is_refused(config: Path, tmp_path: Path) -> None:
    for text, words in (
        ("clients = ", "is not TOML"),
        ("color = 3", "unknown key"),
        ("network = 3", "expected a table"),
        ("#" * (1 << 21), "longer than"),
    ):
        config.write_text(text)
        with pytest.raises(ConfigError, match=words):
            OracleConfig.read(config)
    with pytest.raises(ConfigError, match="cannot be read"):
        OracleConfig.read(tmp_path / "nothing.toml")
