"""What the documents show must be true: examples run, and the configuration page has every key."""

import re
import runpy
from pathlib import Path

import pytest

from matl.simulation.config import LocalConfig, RunConfig

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


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
        if key == "local":
            continue
        shown = rows.pop(key)
        implied = {"mode": '"mode1"', "aggregator": '"mean"', "max_norm": None}
        default = implied.get(key, f'"{item.default}"' if isinstance(item.default, str) else str(item.default))
        assert shown == (f"`{default}`" if default is not None else "none"), key
    for key in LocalConfig.model_fields:
        assert f"local.{key}" in rows
        rows.pop(f"local.{key}")
    assert not rows
