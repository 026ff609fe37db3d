"""The server: FedAvg, and a file with the time of every round's end."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def serve(grid: Grid, context: Context) -> None:
    """Run all rounds."""
    config, ends, last = context.run_config, [], {}

    def note(number: int, arrays: ArrayRecord) -> None:
        ends.append(time.time())
        last["params"] = arrays.to_numpy_ndarrays()[0]

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=config["clients"], min_available_nodes=config["clients"])
    start = ArrayRecord([np.zeros(config["size"], np.float32)])
    strategy.start(grid, start, num_rounds=config["rounds"], evaluate_fn=note)
    out = Path(str(config["out"]))
    np.save(out.with_suffix(".npy"), last["params"])
    out.write_text(json.dumps(ends))
