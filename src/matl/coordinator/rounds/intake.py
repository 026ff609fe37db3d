"""Screening what arrives, beside the event loop: whatever an update holds, it is taken or it is a rejection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from matl.errors import InvalidValueError
from matl.protocol.envelope import Head
from matl.protocol.problems import Code, refusal
from matl.records import Rejection
from matl.screening import screen_envelope
from matl.state import State
from matl.workloads import TrainingWorkload

__all__ = ["envelope_refused", "payload_refused"]

logger = logging.getLogger(__name__)

_SCREENS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="matl-screen")
"""Few threads, as each holds a payload and its row."""


def envelope_refused(workload: TrainingWorkload, state: State, head: Head) -> Rejection | None:
    """Why an update cannot be taken whatever its payload is."""
    limit = workload.channel.largest(workload.layout)
    if head.payload_bytes > limit:
        reason = f"payload of {head.payload_bytes} bytes, the model needs at most {limit}"
        return Rejection(head.client_id, "malformed", reason)
    try:
        spec = workload.plan(state, head.round)
    except InvalidValueError as error:
        return Rejection(head.client_id, "round", str(error))
    hashes = {int(version): value for version, value in _hashes(state).items()}
    return screen_envelope(replace(head.update(), payload=()), spec, model_hashes=hashes, seen=frozenset())


async def payload_refused(
    workload: TrainingWorkload, state: State, head: Head, payload: Path | bytes
) -> Rejection | None:
    """Why an update cannot be taken whose payload is there, in a file or in memory.

    Raises
    ------
    ServiceError
        ``"busy"``: there is no memory for it, or the file cannot be read.
    """
    return await asyncio.get_running_loop().run_in_executor(_SCREENS, _screened, workload, state, head, payload)


def _screened(workload: TrainingWorkload, state: State, head: Head, payload: Path | bytes) -> Rejection | None:
    try:
        content = payload.read_bytes() if isinstance(payload, Path) else payload
        spec = workload.plan(state, head.round)
        result = workload.screen(head.update(content), spec, state, seen=set())
        return result if isinstance(result, Rejection) else None
    except (OSError, MemoryError) as error:
        message = f"the payload could not be screened ({type(error).__name__}: {error}); send it again later"
        raise refusal(Code.BUSY, message, reason="screening", retry_after=5.0) from error
    except Exception as error:  # a message that makes a decoder stumble is its sender's own fault
        logger.exception("screening the update of %s in round %s failed", head.client_id, head.round)
        return Rejection(head.client_id, "malformed", f"the update cannot be decoded: {type(error).__name__}")


def _hashes(state: State) -> Mapping[str, str]:
    hashes: Mapping[str, str] = state["model_hashes"]
    return hashes
