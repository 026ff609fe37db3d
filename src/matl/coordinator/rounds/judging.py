"""The judge of a closed round in this process: the workload itself, fed from a disk row by row.

A round of 200 updates of 40 MB has 8 GB. Its matrix lies in a file, and so does what the judge computes of as many
columns; payloads are read one after another, and one round at a time is judged. So a few models are in memory.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from matl.coordinator.rounds.judge import JudgeAnswer, JudgeRequest, MemberVerdict
from matl.errors import StateError
from matl.params import Float32
from matl.protocol.problems import Code, refusal
from matl.records import Cohort, Rejection, RoundSpec, Update
from matl.workloads import Outcome, TrainingWorkload, suspicion

__all__ = ["JUDGES", "checked", "figures_of", "in_file", "judge_here", "verdicts_of"]

JUDGES = ThreadPoolExecutor(max_workers=1, thread_name_prefix="matl-judge")
"""Where rounds are judged: one thread, as each takes a processor and a matrix."""


def judge_here(
    workload: TrainingWorkload, request: JudgeRequest, *, scratch: Path, key: bytes | None = None
) -> JudgeAnswer:
    """Judge a round with a workload; the same bits however often it is done.

    Parameters
    ----------
    workload : TrainingWorkload
        Of the run.
    request : JudgeRequest
        The round.
    scratch : Path
        Folder in which there is room for the matrix, and for what the judge adds to it: in Mode 1 the square of the
        number of classes and the simulated clients, in rows.
    key : bytes, optional
        Of the host's own noise; the operating system's unless it is given.

    Raises
    ------
    ServiceError
        ``"busy"``: there is no room in ``scratch``.
    StateError
        A payload is not what was accepted.
    """
    with threadpool_limits(1):  # the bits of a sum depend on how many threads share it
        cohort = workload.cohort(
            [_Stored(head, workload, request) for head in request.heads],
            request.spec,
            request.state,
            seed=request.seed,
            silent=request.silent,
            key=key,
            total=request.total,
            allocate=partial(in_file, scratch),
        )
        outcome, after = workload.reduce(cohort, request.state)
    return JudgeAnswer(
        state=after,
        verdicts=verdicts_of(workload, cohort, outcome),
        failure=outcome.failure,
        figures=figures_of(outcome),
    )


def in_file(folder: Path, shape: tuple[int, int]) -> Float32:
    """A matrix that lies in a file without a name, and vanishes with its last user.

    Raises
    ------
    ServiceError
        ``"busy"``: there is no room.
    """
    size = 4 * shape[0] * shape[1]
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # All of it now: a disk that is found full later kills the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "r+", shape=shape)
    except OSError as error:
        message = f"judging needs {size} bytes in {folder}: {error.strerror}; free some space"
        raise refusal(Code.BUSY, message, reason="scratch", retry_after=5.0) from error


def checked(payload: bytes, update: Update) -> bytes:
    """A payload that was stored, if it is what was accepted.

    Raises
    ------
    StateError
        It is not.
    """
    if (found := hashlib.sha256(payload).hexdigest()) != update.payload_sha256:
        raise StateError(
            f"the payload of {update.client_id} is damaged: expected SHA-256 {update.payload_sha256}, got {found}; "
            "look at the disk that holds the blobs"
        )
    return payload


def verdicts_of(workload: TrainingWorkload, cohort: Cohort | None, outcome: Outcome) -> tuple[MemberVerdict, ...]:
    """What was decided about each client, by id; nothing if the round failed."""
    if outcome.judgement is None or cohort is None:
        return ()
    members = {unit.id: unit.members for unit in cohort.units}
    verdicts = [
        MemberVerdict(
            client=member,
            status=verdict.status,
            weight=float(verdict.weight),
            reason=verdict.reason,
            evidence={name: float(value) for name, value in verdict.evidence.items() if math.isfinite(value)},
            score=suspicion(verdict.evidence, workload.mode.channels),
        )
        for verdict in outcome.judgement.verdicts
        for member in members[verdict.unit]
    ]
    return tuple(sorted(verdicts, key=lambda verdict: verdict.client))


def figures_of(outcome: Outcome) -> dict[str, Any]:
    """A round's figures, as JSON has them."""
    judgement = outcome.judgement
    # In float64: the squares of a large float32 overflow.
    norm = 0.0 if judgement is None else float(np.linalg.norm(judgement.aggregate.astype(np.float64)))
    return {
        "aggregate_norm": norm,
        "model_bytes": outcome.model_bytes,
        "diagnostics": {} if judgement is None else _plain(judgement.diagnostics),
        "digests": {} if judgement is None else dict(judgement.digests),
    }


@dataclass(frozen=True, slots=True)
class _Stored:
    """An accepted update whose payload is on a disk; see `matl.workloads.Screened`."""

    update: Update
    workload: TrainingWorkload
    request: JudgeRequest

    @property
    def row(self) -> NDArray[Any]:
        """Read, each time."""
        payload = checked(self.request.payload(self.update.client_id), self.update)
        spec = self._spec()
        row = self.workload.channel.unpack(replace(self.update, payload=payload), spec, self.workload.layout)
        if isinstance(row, Rejection):
            raise StateError(f"the update of {self.update.client_id} was accepted and is refused now: {row.reason}")
        return row

    def _spec(self) -> RoundSpec:
        """What was asked of it, which for one that started from an older model is not the round's."""
        return self.workload.plan(self.request.state, self.update.round)


def _plain(value: Any) -> Any:
    """What JSON has a word for; arrays are left out."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items() if not isinstance(item, np.ndarray)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
