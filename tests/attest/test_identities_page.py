"""The page on identities: its example runs, and its tables say what the code does."""

import re
from dataclasses import fields
from pathlib import Path

from matl.attest.enrolment import EnrolmentText
from matl.attest.receipts import Receipt
from matl.attest.replay import ReplayCache
from matl.attest.texts import LARGEST_CHUNK, ChunkText, UpdateText
from matl.attest.verifying import REASONS

PAGE = (Path(__file__).parents[2] / "docs" / "concepts" / "identities.md").read_text("utf-8")


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "identities.md", "exec"), {})


def test_the_tables_have_every_line_in_its_order():
    lines = re.findall(r"`(matl-[a-z]+/\d|[a-z0-9_]+=)`", PAGE)
    expected = []
    for kind in (UpdateText, ChunkText, EnrolmentText, Receipt):
        expected += [kind.DOMAIN] * bool(kind.DOMAIN)
        expected += [f"{field.metadata['key'] or field.name}=" for field in fields(kind)]
    assert lines == expected


def test_the_table_of_refusals_has_every_code():
    table = PAGE.split("## What is refused")[1].split("##")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == set(REASONS)


def test_the_figures_are_those_of_the_code():
    cache = ReplayCache()
    assert (cache.max_age_ms, cache.max_ahead_ms, cache.per_client) == (600_000, 60_000, 256)
    assert f"{LARGEST_CHUNK:,} bytes" in PAGE
