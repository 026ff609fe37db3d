"""``matl`` that stands still at a place in a round, so that it can be killed there: python halting.py serve FILE

The environment says where (MATL_TEST_HALT) and which file is written when it stands there (MATL_TEST_HALTED), with the
judge's seed and the hash of the model that the round came to.
"""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

from matl.cli import main
from matl.coordinator.rounds import series as rounds
from matl.coordinator.storage.store import Store
from matl.files import write_atomic
from matl.params import values_hash

PLACES = ("in the judge", "before the commit", "after the commit")


def halted(seed: int, model_hash: str) -> None:
    write_atomic(Path(os.environ["MATL_TEST_HALTED"]), f"{seed} {model_hash}")


def install(where: str) -> None:
    judge, end_round = rounds.judge_here, Store.end_round

    def judging(workload: Any, request: Any, **kwargs: Any) -> Any:
        answer = judge(workload, request, **kwargs)
        if where == "in the judge":
            halted(request.seed, values_hash(workload.held(answer.state)))
            threading.Event().wait()
        return answer

    async def ending(store: Store, ended: Any, **kwargs: Any) -> Any:
        if where == "before the commit":
            halted(ended.seed, ended.next_model_hash)
            await asyncio.Event().wait()
        stored = await end_round(store, ended, **kwargs)
        if where == "after the commit":
            halted(ended.seed, ended.next_model_hash)
            await asyncio.Event().wait()
        return stored

    rounds.judge_here = judging
    Store.end_round = ending  # type: ignore[method-assign]


if __name__ == "__main__":
    install(os.environ.get("MATL_TEST_HALT", ""))
    main()
