"""Folders of a test's own, and no network."""

from types import SimpleNamespace

import pytest

from matl.learning.datasets import files


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch, request):
    """The cache is a test's own; what scikit-learn would download is an error, bundled data sets are not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if not request.node.name.startswith("test_real_"):
        monkeypatch.delenv("MATL_DATA_DIR", raising=False)

    def no_network(**kwargs):
        raise AssertionError("the test reached for the network")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", no_network, raising=False)


@pytest.fixture
def openml(monkeypatch):
    """Let OpenML answer: ``openml(answer)``, an exception or the fields of its bunch, returns the ids asked for."""

    def answer_with(answer):
        asked = []

        def fetch(data_id, **kwargs):
            asked.append(data_id)
            if isinstance(answer, Exception):
                raise answer
            return SimpleNamespace(**answer)

        monkeypatch.setattr(files, "sklearn_datasets", lambda: SimpleNamespace(fetch_openml=fetch))
        return asked

    return answer_with
