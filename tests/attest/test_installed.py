"""One byte of anything that is measured, and the digest is another one."""

from __future__ import annotations

import base64
import hashlib
import importlib
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from matl.attest import installed
from matl.attest.installed import Part, distribution_digest, installed_parts, package_digest, parts_digest
from matl.errors import InvalidValueError

FILES = {
    "measured_dep/__init__.py": b"import measured_dep.inner",
    "measured_dep/inner/__init__.py": b"y = 1",
    "measured_dep/native.so": b"\x7fELF",
    "measured_dep.libs/libwork.so.1": b"\x7fELF of another",
    "measured_single.py": b"z = 1",
    "measured_dep-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: Measured.Dep\nVersion: 1.0\n",
    "measured_dep-1.0.dist-info/entry_points.txt": b"[numba_extensions]\ninit = measured_dep:x\n",
}


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


@pytest.fixture
def dependency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a distribution as pip leaves it."""
    root = tmp_path / "installed"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    record(root)
    monkeypatch.syspath_prepend(str(root))
    yield root
    for name in [name for name in sys.modules if name.startswith("measured_")]:
        del sys.modules[name]


def record(root: Path, **others: str) -> None:
    """Write what the distribution says of its files."""
    lines = ["measured_dep-1.0.dist-info/RECORD,,", "measured_dep/__pycache__/inner.cpython-311.pyc,,", "../bin/cmd,,"]
    for name, content in FILES.items():
        said = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={others.get(name, said)},{len(content)}")
    (root / "measured_dep-1.0.dist-info" / "RECORD").write_text("\n".join(lines) + "\n")


def digest() -> str:
    importlib.invalidate_caches()
    return distribution_digest(metadata.distribution("measured-dep"))


def test_every_byte_of_a_distribution_counts_and_what_its_record_says(dependency: Path) -> None:
    first = digest()
    for name in FILES:
        path = dependency / name
        content = path.read_bytes()
        if name.endswith("METADATA"):
            path.write_bytes(content + b"\n")
        else:
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert digest() != first, name
        path.write_bytes(content)
        assert digest() == first
    record(dependency, **{"measured_dep/native.so": "A" * 43})
    assert digest() != first
    record(dependency)
    (dependency / "measured_dep" / "native.so").unlink()
    assert digest() != first


def test_a_file_that_no_record_names_counts_in_a_package(dependency: Path) -> None:
    first = digest()
    (dependency / "measured_dep" / "inner.so").write_bytes(b"")  # would be imported before inner/
    assert digest() != first


def test_what_installers_write_and_python_compiles_does_not(dependency: Path) -> None:
    first = digest()
    (dependency / "measured_dep" / "__pycache__").mkdir()
    (dependency / "measured_dep" / "__pycache__" / "inner.cpython-311.pyc").write_bytes(b"x")
    noted = dependency / "measured_dep-1.0.dist-info"
    (noted / "INSTALLER").write_text("pip\n")
    with (noted / "RECORD").open("a") as stream:
        stream.write("measured_dep-1.0.dist-info/INSTALLER,sha256=abc,4\n")
    assert digest() == first


def test_something_else_in_place_of_a_package_is_refused(
    dependency: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "before" / "measured_single").mkdir(parents=True)
    (tmp_path / "before" / "measured_single" / "__init__.py").write_bytes(FILES["measured_single.py"])
    monkeypatch.syspath_prepend(str(tmp_path / "before"))
    with pytest.raises(InvalidValueError, match=r"measured_single of .* is imported from .*before"):
        digest()


def test_a_package_that_is_compiled_beside_its_source_is_measured_with_both(dependency: Path) -> None:
    """As mypyc makes them: Python loads the compiled one of the two."""
    first = digest()
    compiled = dependency / "measured_dep" / f"__init__{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"\x7fELF")
    importlib.invalidate_caches()
    with_it = digest()
    compiled.write_bytes(b"\x7fELG")
    assert len({first, with_it, digest()}) == 3


def test_a_distribution_that_does_not_say_what_is_its_own_is_refused(dependency: Path) -> None:
    (dependency / "measured_dep-1.0.dist-info" / "RECORD").unlink()
    with pytest.raises(InvalidValueError, match="install it from a wheel"):
        digest()


def test_what_judges_is_measured_and_what_only_tests_is_not_required() -> None:
    parts = {part.name: part for part in installed_parts()}
    required = "matl numpy numba llvmlite scipy cryptography msgpack pydantic-core cffi safetensors fastapi uvicorn h11"
    assert set(required.split()) <= set(parts)
    assert parts["numpy"].version == metadata.version("numpy")
    assert parts["matl"].sha256 == package_digest("matl")
    names = set(installed._required([("matl", frozenset({"server"}))]))
    assert names <= set(parts)
    assert not names & {"pytest", "ruff", "torch", "mkdocs"}
    assert "greenlet" in names  # of the extra asyncio of what the extra server requires


def test_what_was_imported_is_measured_with_what_it_requires(
    dependency: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "measured_plugin.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    # Those that are in the folders of packages are told by their place, and these are not.
    monkeypatch.setattr(installed, "distribution_digest", lambda found: "0" * 64)
    measure = installed_parts.__wrapped__
    before = {part.name for part in measure()}
    importlib.import_module("measured_plugin")
    importlib.import_module("measured_single")
    new = {part.name: part for part in measure() if part.name not in before}
    assert new["measured_plugin"] == Part("measured_plugin", "", hashlib.sha256(b"a = 1\n").hexdigest())
    assert new["measured-dep"].version == "1.0"
    assert set(new) == {"measured_plugin", "measured-dep"}
    assert "pytest" in before  # it runs in this process
    assert "pluggy" in before  # which it requires


def test_the_digest_of_all_is_that_of_the_lines(tmp_path: Path) -> None:
    parts = (Part("b", "2", "1" * 64), Part("a", "", "0" * 64))
    listed = f"a== {'0' * 64}\nb==2 {'1' * 64}\n"
    assert parts_digest(parts) == hashlib.sha256(listed.encode()).hexdigest()
