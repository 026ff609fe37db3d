"""What a user sees is what the data set calls itself: a re-encoded copy says so wherever a figure stands."""

import json
from dataclasses import replace

import pytest

from matl.campaigns.compare import compare
from matl.campaigns.report import write_report
from matl.learning.datasets import DATASETS, Source, load_dataset
from matl.simulation import build_simulation, execute, load_config

NAME = "copied (JPEG re-encoded)"


@pytest.fixture
def config(monkeypatch):
    def copied() -> Source:
        """A data set whose name says more than the one it is asked for by."""
        return Source(replace(load_dataset("synthetic").train, name=NAME))

    monkeypatch.setitem(DATASETS._parts, "copied", copied)
    settings = {"dataset": "copied", "clients": 6, "rounds": 1, "task": "softmax", "root_size": 20, "mode": "plain"}
    return load_config(None, settings)


def test_in_the_result_and_report_of_a_run(config, tmp_path):
    execute(build_simulation(config), config, name="fedavg", out=tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["dataset"] == NAME
    assert f"trained one model on {NAME}" in write_report(tmp_path).read_text()
    assert 'dataset = "copied"' in (tmp_path / "config.toml").read_text()  # which repeats it


def test_in_the_result_and_report_of_a_comparison(config, tmp_path):
    compare(config, ["fedavg", "honest_only"], out=tmp_path)
    for path in ("compare.json", "fedavg/result.json", "honest_only/result.json"):
        assert json.loads((tmp_path / path).read_text())["dataset"] == NAME
    assert f"trained one model on {NAME}" in write_report(tmp_path).read_text()
