"""What a user installs and a contributor runs: imports, layers, the public names, the commands in the documents."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import matl
from matl.cli.exit_codes import ExitCode

ROOT = Path(__file__).parent.parent
HEAVY = ["numpy", "pydantic", "rich", "scipy", "sklearn", "torch", "typer"]
MODULES = sorted(module.name for module in pkgutil.walk_packages(matl.__path__, "matl."))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    return subprocess.run(
        [*command, "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def source_copy(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", ".mypy_cache"))
    return tmp_path / "src"


def test_no_import_runs_upward(source_copy):
    result = lint_imports(source_copy)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_upward_import_is_found_and_named(source_copy):
    with (source_copy / "matl" / "params.py").open("a") as file:
        file.write("\nimport matl.cli\n")
    result = lint_imports(source_copy)
    assert result.returncode == 1
    assert "matl.params is not allowed to import matl.cli" in result.stdout


def test_every_module_is_on_a_floor(source_copy):
    (source_copy / "matl" / "attic.py").touch()
    result = lint_imports(source_copy)
    assert result.returncode == 1
    assert "attic" in result.stdout


def loaded(code: str) -> set[str]:
    """The packages of HEAVY that a new interpreter has loaded after `code`."""
    code = f"import sys; {code}; print(*[name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_matl_loads_nothing_heavy():
    assert loaded("import matl") == set()


def test_the_public_names_load_only_what_configurations_need():
    assert loaded("import matl; [getattr(matl, name) for name in matl.__all__]") <= {"numpy", "pydantic"}


@pytest.mark.parametrize("name", ["matl", *MODULES])
def test_public_names_exist(name):
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.__all__ lists {public!r}, which is not there"


def test_public_names_are_sorted_and_unique():
    assert matl.__all__ == sorted(set(matl.__all__))


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = matl.nonsense


def test_every_room_has_a_reference_page():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference" / "api").glob("*.md"))
    rooms = {name for name in MODULES if name.count(".") == 1 and name != "matl.cli"}
    assert rooms == set(re.findall(r"^::: (matl\.\w+)$", pages, flags=re.MULTILINE))


def test_exit_code_page_matches_the_code():
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, flags=re.MULTILINE)
    assert rows == [(str(code.value), code.name) for code in ExitCode]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_commands_in_documents_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^\s*make ([a-z-]+)|`make ([a-z-]+)", (ROOT / document).read_text(), flags=re.MULTILINE))
    assert {first or second for first, second in named} <= targets
