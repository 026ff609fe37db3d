"""What secure aggregation costs beside plain aggregation: end-to-end latency, bytes, and the work of either side.

::

    python benchmarks/secagg.py      # no data, writes benchmarks/results/secagg{,_graphs}.{json,md}; about a minute

Clients and server exchange real messages; each of their steps is timed on one core in CPU seconds. The latency of a
round is put together from these times, a network that takes 20 ms per message, and local work of a given length. All
clients work at the same time, and a phase waits for the slowest of them. Bandwidth is not modelled: both would pay it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from matl.privacy.secagg import Client, Phase, Server, Session, choose_graph, quorum, shamir
from matl.privacy.secagg.keys import mask_key, verified
from matl.privacy.secagg.masks import add_masks
from matl.privacy.secagg.memory import Traffic, answer, new_identities, public_keys

NETWORK = 0.02
"""Seconds a message takes from one side to the other."""

LOCAL_WORK = (0.0, 0.1, 0.5, 2.0, 10.0)
PHASES = tuple(Phase)[:-1]

Vectors = Mapping[str, NDArray[np.uint8]]


@dataclass
class Round:
    """CPU seconds of a round: of the slowest client and of the server, by phase; and its traffic."""

    client: dict[Phase, float]
    server: dict[Phase, float]
    traffic: Traffic
    survivors: int

    def exchange(self, *phases: Phase) -> float:
        """Requests out, work, answers in, work."""
        return sum(2 * NETWORK + self.client[phase] + self.server[phase] for phase in phases)

    def latency(self, local: float, *, overlapped: bool) -> float:
        """Seconds from the start of a round to its sum, with the first two phases during or before local work."""
        keys = self.exchange(Phase.ADVERTISE, Phase.SHARE) + NETWORK
        if overlapped:  # the core that does local work does the client's part of the first phases too
            ready = max(keys, NETWORK + local + self.client[Phase.ADVERTISE] + self.client[Phase.SHARE])
        else:
            ready = keys + local
        masked = ready + self.client[Phase.MASK] + NETWORK + self.server[Phase.MASK]
        return masked + self.exchange(Phase.CONSISTENCY, Phase.UNMASK)


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it returned."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def secure_round(vectors: Vectors, session: Session, dropouts: Mapping[Phase, Sequence[str]]) -> Round:
    """One round, step by step, and checked to be exact."""
    keys = new_identities(vectors)
    table = public_keys(keys)
    server = Server(session, table)
    clients: dict[str, Client] = {}
    record = Round({}, {}, Traffic(), 0)
    requests, gone = dict.fromkeys(vectors, b""), set[str]()
    for phase in PHASES:
        gone |= set(dropouts.get(phase, ()))
        answers, slowest = {}, 0.0
        for name, request in requests.items():
            if name in gone:
                continue

            def step(name: str = name, request: bytes = request, phase: Phase = phase) -> bytes:
                if phase is Phase.ADVERTISE:
                    clients[name] = Client(session, name, keys[name], table)
                return answer(clients[name], phase, request, vectors[name])

            verified.cache_clear()  # no client checks signatures for another
            took, answers[name] = cpu(step)
            slowest = max(slowest, took)
        verified.cache_clear()
        down = [len(request) for request in requests.values()]
        record.traffic.count(phase, down, [len(data) for data in answers.values()])
        record.client[phase] = slowest
        record.server[phase], requests = cpu(lambda answers=answers: serve(server, answers))
    wanted = np.sum([vectors[name] for name in server.result.survivors], axis=0, dtype=np.uint8)
    if not np.array_equal(server.result.total, wanted):
        raise AssertionError("the sum is not exact")
    record.survivors = len(server.result.survivors)
    return record


def serve(server: Server, answers: Mapping[str, bytes]) -> dict[str, bytes]:
    """Receive what arrived and end the phase."""
    for name, data in answers.items():
        if server.receive(name, data) is not None:
            raise AssertionError(f"an honest answer of {name} was rejected")
    return server.advance()


def plain_round(vectors: Vectors) -> float:
    """CPU seconds of a server that adds up vectors sent in clear."""
    sent = [vector.tobytes() for vector in vectors.values()]

    def add() -> NDArray[np.uint8]:
        total = np.zeros(len(sent[0]), np.uint8)
        for data in sent:
            total += np.frombuffer(data, np.uint8)
        return total

    return cpu(add)[0]


def session_of(number: int, n: int, length: int) -> Session:
    """A round of n clients, a twentieth of them corrupt; seven tenths have to be in the sum."""
    return Session(run="benchmark", round=number, length=length, corrupt=n // 20, min_survivors=7 * n // 10)


def scenarios(names: Sequence[str]) -> dict[str, dict[Phase, Sequence[str]]]:
    """Who drops out and when: nobody; a twentieth of the clients in every phase; as many in every phase as may."""
    n = len(names)
    part = n // 20
    every = {phase: names[part * i : part * (i + 1)] for i, phase in enumerate(PHASES[1:])}
    return {"nobody": {}, f"{part} in every phase": every, "as many as may": at_the_threshold(names)}


def at_the_threshold(names: Sequence[str]) -> dict[Phase, Sequence[str]]:
    """Drop-outs in every phase: until the sum all but those it needs, after it all but those who hold enough."""
    registered = len(names) - len(names) // 20
    session = session_of(0, len(names), 1)
    before = registered - session.needed(registered)
    after = session.needed(registered) - session.graph(registered).threshold - 1
    sizes = [len(names) - registered, before // 2, before - before // 2, after // 2, after - after // 2]
    ends = list(accumulate(sizes, initial=0))
    return {phase: names[start:end] for phase, (start, end) in zip(PHASES, pairwise(ends), strict=True)}


def middle(records: Sequence[Round]) -> Round:
    """Medians of the times of several rounds."""
    client = {phase: statistics.median(record.client[phase] for record in records) for phase in PHASES}
    server = {phase: statistics.median(record.server[phase] for record in records) for phase in PHASES}
    return Round(client, server, records[0].traffic, records[0].survivors)


def latencies(rounds: Mapping[str, Round], plain: float) -> tuple[str, list[dict[str, Any]]]:
    """Latency of secure beside plain aggregation."""
    rows, lines = [], []
    for dropped, record in rounds.items():
        for local in LOCAL_WORK:
            base = 2 * NETWORK + local + plain
            during, before = (record.latency(local, overlapped=way) for way in (True, False))
            lines.append([
                dropped, f"{local:g} s", f"{1e3 * base:.0f} ms", f"{1e3 * during:.0f} ms", f"+{during / base - 1:.1%}",
                f"+{before / base - 1:.1%}",
            ])  # fmt: skip
            row = {"dropped": dropped, "local": local, "plain": base, "during": during, "before": before}
            rows.append({"table": "latency"} | row)
    head = ["drop out", "local work", "plain", "secure", "slower by", "slower by, keys before local work"]
    return markdown(head, lines), rows


def phases(record: Round, n: int) -> tuple[str, list[dict[str, Any]]]:
    """Work and bytes by phase."""
    rows, lines = [], []
    for phase in PHASES:
        down, up = record.traffic.largest_down[phase], record.traffic.largest_up[phase]
        times = [1e3 * record.client[phase], 1e3 * record.server[phase]]
        lines.append([phase.value, f"{down:,}", f"{up:,}", *(f"{value:.1f}" for value in times)])
        rows.append({"table": "phases", "phase": phase, "n": n, "down": down, "up": up, "client_ms": times[0],
                     "server_ms": times[1]})  # fmt: skip
    down, up = (sum(sizes.values()) for sizes in (record.traffic.largest_down, record.traffic.largest_up))
    lines.append(
        ["all", f"{down:,}", f"{up:,}", *(f"{1e3 * sum(t.values()):.1f}" for t in (record.client, record.server))]
    )
    head = ["phase", "bytes to a client", "bytes from a client", "ms of the slowest client", "ms of the server"]
    return markdown(head, lines), rows


def primitives(length: int) -> tuple[str, list[dict[str, Any]]]:
    """The parts that the work consists of."""
    secret, public = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key().public_bytes_raw()
    vector, key = np.zeros(length, np.uint8), bytes(range(32))
    shares = shamir.split(1, 100, 51)
    held = {i: shares[i] for i in range(0, 100, 2)} | {1: shares[1]}

    def combine() -> int:
        shamir._weights.cache_clear()
        return shamir.combine(held)

    parts: dict[str, Callable[[], Any]] = {
        f"one mask over {length:,} bytes": lambda: add_masks(vector, plus=[key]),
        "X25519 and HKDF": lambda: mask_key(secret, public, bytes(32), 0, 1),
        "Shamir, 51 of 100: share": lambda: shamir.split(1, 100, 51),
        "Shamir, 51 of 100: recover": combine,
    }
    rows = []
    for name, part in parts.items():
        best = min(cpu(lambda part=part: [part() for _ in range(20)])[0] / 20 for _ in range(7))
        rows.append({"table": "primitives", "part": name, "ms": 1e3 * best})
    return markdown(["part", "ms"], [[row["part"], f"{row['ms']:.3f}"] for row in rows]), rows


def graphs() -> tuple[str, list[dict[str, Any]]]:
    """Neighbours and thresholds of the graphs that are chosen."""
    rows, lines = [], []
    for n in (100, 200, 500, 1000, 2000, 4000):
        for dropout, corrupt in ((5, 5), (10, 5), (10, 10), (30, 10)):
            lost, bad = n * dropout // 100, n * corrupt // 100
            graph, easier = choose_graph(n, lost, bad), choose_graph(n, lost, bad, attempts=1)
            rows.append({"n": n, "dropout": lost, "corrupt": bad, "degree": graph.degree, "threshold": graph.threshold,
                         "one_draw": easier.degree, "quorum": quorum(n, bad)})  # fmt: skip
            degree = f"{graph.degree} (all)" if graph.complete else str(graph.degree)
            cells = [n, f"{dropout} %", f"{corrupt} %", degree, graph.threshold, easier.degree, quorum(n, bad)]
            lines.append([str(cell) for cell in cells])
    head = ["clients", "drop out", "corrupt", "neighbours", "threshold", "neighbours, one draw", "signatures"]
    return markdown(head, lines), rows


def main() -> int:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--length", type=int, default=1_000_000, help="words of 8 bits per vector")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "secagg")
    arguments = parser.parse_args()
    began = time.perf_counter()
    n, length = arguments.clients, arguments.length
    names = [f"client-{i:03d}" for i in range(n)]
    rng = np.random.default_rng(0)
    vectors = {name: rng.integers(0, 256, length, np.uint8) for name in names}
    found: dict[str, list[Round]] = {}
    plain = []
    for number in range(arguments.repeats):  # interleaved
        session = session_of(number, n, length)
        plain.append(plain_round(vectors))
        for dropped, dropouts in scenarios(names).items():
            found.setdefault(dropped, []).append(secure_round(vectors, session, dropouts))
    rounds = {dropped: middle(records) for dropped, records in found.items()}
    tables, rows = zip(
        latencies(rounds, statistics.median(plain)), phases(rounds["nobody"], n), primitives(length), strict=True
    )
    graph = session.graph(n)
    remarks = (
        f"{n} clients, {length:,} words of 8 bits, {session.corrupt} of them corrupt at most, sums over at least "
        f"{session.min_survivors}; {graph.degree} neighbours, threshold {graph.threshold}. Network 20 ms per message, "
        f"CPU time on one core, medians of {arguments.repeats}. The sums were exact, over "
        f"{' and '.join(str(record.survivors) for record in rounds.values())} clients. *As many as may*: "
        f"{', '.join(str(len(gone)) for gone in at_the_threshold(names).values())} in the five phases; one more, and "
        "the round fails. Second table: nobody drops out."
    )
    print(
        write(
            arguments.out,
            "\n\n".join(tables),
            remarks,
            [row for part in rows for row in part],
            time.perf_counter() - began,
        )
    )
    began = time.perf_counter()
    table, graph_rows = graphs()
    note = "Failure probability 2^-40 over 2^64 draws of the graph; lost rounds 2^-20. `All`: the complete graph."
    out = arguments.out.with_name(f"{arguments.out.name}_graphs")
    print(write(out, table, note, graph_rows, time.perf_counter() - began))
    return 0


if __name__ == "__main__":
    sys.exit(main())
