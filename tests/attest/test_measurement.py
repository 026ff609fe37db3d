from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from matl.attest.measurement import Measurement, package_digest
from matl.errors import InvalidValueError, ProtocolError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a module, data and what Python compiled."""
    root = tmp_path / "measured_package"
    (root / "inner" / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py", "inner/data.bin", "inner/__pycache__/x.pyc"):
        (root / name).write_bytes(name.encode())
    (tmp_path / "measured_module.py").write_bytes(b"x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return root


def test_every_byte_and_every_name_counts(package: Path) -> None:
    def digest() -> str:
        return package_digest("measured_package")

    first = digest()
    (package / "inner/__pycache__/x.pyc").write_bytes(b"compiled anew")
    assert digest() == first
    for path in (package / "__init__.py", package / "inner/data.bin"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert digest() != first
        path.write_bytes(content)
    assert digest() == first
    (package / "new.py").write_bytes(b"")
    assert digest() != first
    (package / "new.py").rename(package / "newer.py")
    renamed = digest()
    (package / "newer.py").rename(package / "new.py")
    assert digest() not in (first, renamed)


def test_several_packages_in_any_order(package: Path) -> None:
    both = package_digest("measured_package", "measured_module")
    assert both == package_digest("measured_module", "measured_package", "measured_package")
    assert len({both, package_digest("measured_package"), package_digest("measured_module")}) == 3
    (package.parent / "measured_module.py").write_bytes(b"x = 2\n")
    assert package_digest("measured_package", "measured_module") != both


def test_what_cannot_be_measured_is_said(package: Path) -> None:
    with pytest.raises(InvalidValueError, match="'no_such_package'"):
        package_digest("no_such_package")
    (package.parent / "without_init").mkdir()
    with pytest.raises(InvalidValueError, match="'without_init'"):
        package_digest("without_init")
    (package / "linked").symlink_to(package.parent, target_is_directory=True)
    with pytest.raises(InvalidValueError, match="link to a folder"):
        package_digest("measured_package")
    assert "measured_package" not in sys.modules  # it is looked at, not run


def test_one_byte_of_configuration_or_policy_makes_another_measurement() -> None:
    one = Measurement.of(b"config", b"policy")
    assert one == Measurement.of(b"config", b"policy")
    assert (
        len({one.digest, Measurement.of(b"confih", b"policy").digest, Measurement.of(b"config", b"policz").digest}) == 3
    )
    assert Measurement.of(b"config", b"policy", packages=("matl", "json")).package != one.package
    assert replace(one, config=one.policy, policy=one.config).digest != one.digest


def test_there_is_one_text() -> None:
    one = Measurement.of(b"config", b"policy")
    assert Measurement.parse(one.to_bytes()) == one
    for text in (one.to_bytes() + b"\n", one.to_bytes().upper(), one.to_bytes().replace(b"/1", b"/2")):
        with pytest.raises(ProtocolError):
            Measurement.parse(text)
    with pytest.raises(ProtocolError):
        replace(one, config="short")
