"""The page on attestation names what there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from matl.attest.amd import AmdVerifier
from matl.attest.android import AndroidVerifier
from matl.attest.apple import AppleVerifier
from matl.attest.intel import IntelVerifier

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "concepts" / "attestation.md").read_text("utf-8")
VERIFIERS = (AmdVerifier, AndroidVerifier, AppleVerifier, IntelVerifier)


def test_every_code_is_explained() -> None:
    modules = ["_cbor", "_der", "_quote", "_x509", "amd", "android", "apple", "evidence", "intel", "revocation"]
    source = "".join((ROOT / "src/matl/attest" / f"{name}.py").read_text("utf-8") for name in modules)
    raised = set(re.findall(r'AttestationError\(\s*"(\w+)"', source)) | set(
        re.findall(r'^    \(".*", "(\w+)"\),$', source, re.M)
    )
    section = PAGE.partition("## Codes")[2].partition("##")[0]
    assert raised | {"code"} == set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_the_examples_are_python_and_their_imports_exist() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    imports = [node for block in blocks for node in ast.parse(block).body if isinstance(node, ast.ImportFrom)]
    assert len(imports) > 5
    exec(compile(ast.Module(imports, type_ignores=[]), "attestation.md", "exec"), {})


def test_every_verifier_has_a_format_of_its_own() -> None:
    assert len({verifier.format for verifier in VERIFIERS}) == len(VERIFIERS)
    assert all(f"`{verifier.__module__}`" in PAGE for verifier in VERIFIERS)
