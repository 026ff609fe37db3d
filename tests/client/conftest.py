"""A coordinator on a free port, and clients of it."""

from __future__ import annotations

import random

import pytest
from tests.client.fake import Coordinator, application, serving

from matl.client import AsyncMATLClient
from matl.client.retrying import Retrying


@pytest.fixture
def host():
    return Coordinator(rounds=3)


@pytest.fixture
def url(host):
    with serving(application(host)) as url:
        yield url


@pytest.fixture
def client_of(tmp_path):
    """Makes clients that wait no longer than they have to."""

    def make(url, name="alice", **options):
        options = {"retrying": Retrying(base=0.001, cap=0.01, rng=random.Random(1)), **options}
        return AsyncMATLClient(url, client_id=name, folder=tmp_path / name, **options)

    return make
