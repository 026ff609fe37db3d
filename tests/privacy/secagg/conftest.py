"""A round whose messages a test can change on the way."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest

from matl.privacy.secagg import Client, Phase, Server, Session
from matl.privacy.secagg.memory import answer, new_identities, public_keys


@dataclass
class Parties:
    """Server and clients of one round, with the bytes they exchanged by phase."""

    session: Session
    names: list[str]
    keys: dict = field(default_factory=dict)

    def __post_init__(self):
        self.keys = self.keys or new_identities(self.names)
        self.table = public_keys(self.keys)
        self.server = Server(self.session, self.table)
        self.clients = {name: Client(self.session, name, self.keys[name], self.table) for name in self.names}
        rng = np.random.default_rng(1)
        top = 1 << self.session.bits
        self.inputs = {n: rng.integers(0, top, self.session.length, self.session.dtype) for n in self.names}
        self.requests = dict.fromkeys(self.names, b"")
        self.answers = {}

    def play(self, *, without: Iterable[str] = (), alter: Callable[[str, bytes], bytes] | None = None):
        """One phase: requests go out, answers come in, and the server goes on."""
        phase = self.server.phase
        self.sent = {n: alter(n, r) if alter else r for n, r in self.requests.items() if n not in set(without)}
        self.answers[phase] = {n: answer(self.clients[n], phase, r, self.inputs[n]) for n, r in self.sent.items()}
        for name, data in self.answers[phase].items():
            assert self.server.receive(name, data) is None
        self.requests = self.server.advance()

    def until(self, phase: Phase):
        """Play honestly up to a phase."""
        while self.server.phase is not phase:
            self.play()
        return self

    def total(self, names):
        return sum(self.inputs[n].astype(np.uint64) for n in names) % (1 << self.session.bits)


def make_session(**changes):
    """A small session."""
    return Session(**{"run": "test", "round": 0, "length": 20, "min_survivors": 3, **changes})


@pytest.fixture
def make():
    def build(n=5, keys=None, **changes) -> Parties:
        return Parties(make_session(**changes), [f"c{i:02d}" for i in range(n)], keys or {})

    return build
