"""What the documents show must be true: examples run, and the configuration page has every key."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from matl.simulation.config import TABLES, RunConfig

ROOT = Path(__file__).parents[1]
COMMAND = ROOT / "examples" / "own_command.py"  # it takes arguments
PHOTOGRAPHS = ROOT / "examples" / "own_torch_model.py"  # it needs CIFAR-10 and a minute
NETWORKED = {"federated_numpy", "federated_sealed", "federated_torch_mnist", "mobile_signer"}  # see test_examples.py
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(path, *arguments):
    """What a script prints in an interpreter of its own: examples register parts, which no other test should see."""
    done = subprocess.run(
        [sys.executable, "-W", "error", path, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ALONE = [path for path in EXAMPLES if path not in (COMMAND, PHOTOGRAPHS) and path.stem not in NETWORKED]


@pytest.mark.parametrize("path", ALONE, ids=lambda path: path.stem)
def test_example_runs(path):
    assert run(path).strip()


def test_the_example_on_photographs_runs_on_a_few_drawn_at_random(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(0)
    images, labels = rng.random((400, 3, 32, 32), np.float32), np.arange(400) % 10
    np.savez(tmp_path / "photographs.npz", X=images, y=labels)
    code = PHOTOGRAPHS.read_text("utf-8")
    for shown, run_here in {
        r'"cifar10"': repr({"name": "npz", "path": str(tmp_path / "photographs.npz")}),
        r'("?rounds"?[:=] ?)\d+': r"\g<1>2",
    }.items():
        code, count = re.subn(shown, run_here, code)
        assert count == 1, shown
    (tmp_path / "example.py").write_text(code)
    assert "accuracy" in run(tmp_path / "example.py")


def test_a_command_with_own_parts_knows_their_names(tmp_path):
    settings = ["--clients", "10", "--byzantine", "0.2", "--rounds", "1", "--no-ceiling", "--out", tmp_path / "run"]
    names = ["--attack", "stubborn:factor=2", "--mode", "flatness"]
    assert "flatness" in run(COMMAND, "run", *settings, *names)
    assert "cge" in run(COMMAND, "list", "aggregators")


def test_every_link_to_a_file_leads_somewhere():
    """MkDocs checks the links of the site; nobody else does those of the documents beside it."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    links = [
        (document, target)
        for document in documents
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text("utf-8"))
        if not target.startswith(("https://", "http://", "mailto:"))
    ]
    assert links
    assert [(str(document), target) for document, target in links if not (document.parent / target).exists()] == []


def test_the_examples_of_the_readme_are_those_that_run():
    """Each code block of the README stands, but for layout, in one file under examples/."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    files = [_without_layout(path.read_text("utf-8")) for path in EXAMPLES]
    assert blocks
    for block in blocks:
        assert any(_without_layout(block) in file for file in files), block


def _without_layout(code):
    return re.sub(r",(?=\))", "", re.sub(r"\s", "", code))


def test_the_configuration_page_has_every_key_with_its_default():
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+?) \|", page, re.MULTILINE))
    for key, item in RunConfig.model_fields.items():
        if key in TABLES:
            continue
        shown = rows.pop(key)
        implied = {"mode": '"mode1"', "aggregator": '"mean"', "max_norm": None, "codec": None, "downlink": None}
        default = implied.get(key, f'"{item.default}"' if isinstance(item.default, str) else str(item.default))
        assert shown == (f"`{default}`" if default is not None else "none"), key
    for table, model in TABLES.items():
        for key in model.model_fields:
            assert f"{table}.{key}" in rows
            rows.pop(f"{table}.{key}")
    assert not rows
