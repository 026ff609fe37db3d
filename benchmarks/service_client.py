"""A client of `service.py`: the first of them also notes when rounds end, and what the model came to."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from network_case import EXAMPLES, RUN

from matl.client import MATLClient


def main() -> None:
    """Take part until the run is over."""
    url, invitation, index, base = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    name, ends, first = f"client-{index}", list[float](), None
    with MATLClient(url, client_id=name, folder=base / name, run=RUN) as client:
        client.join(invitation)
        while (current := client.next_round()) is not None:
            ends.append(time.time())
            if first is None:
                first = _flat(current.params)
            step = np.float32((index + 1) * (current.number + 1) * 1e-3)
            update = {key: np.full_like(value, step) for key, value in current.params.items()}
            client.submit_gradient(update, round=current, metadata={"num_examples": EXAMPLES})
        ends.append(time.time())
        if index == 0 and first is not None:
            np.save(base / "ours.npy", _flat(client.final_model()) - first)
            (base / "ours.json").write_text(json.dumps({"ends": ends[1:]}))


def _flat(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in arrays.values()])


if __name__ == "__main__":
    main()
