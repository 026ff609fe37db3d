"""The same simulation in Flower, for `simulation_speed.py`; runs in Flower's own environment.

::

    .venv-flower/bin/python benchmarks/flower/app.py message mlp FOLDER --workers 2

Flower has two ways to simulate from Python: ``message`` is today's (`run_simulation`, the engine of ``flwr run``),
``classic`` the earlier one (`start_simulation`, deprecated). Both hold two actors of one core each, keep the clients'
samples in the actors, and evaluate on the server alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from simulation_case import CASES, Case

CASE, FOLDER = "MATL_BENCH_CASE", "MATL_BENCH_FOLDER"
"""Variables by which an actor knows what is run."""


def the_case() -> Case:
    """What is run, also in an actor."""
    return CASES[os.environ[CASE]]


def the_folder() -> Path:
    """Where its samples are."""
    return Path(os.environ[FOLDER])


@cache
def client(index: int) -> Any:
    """A client's samples; an actor opens them once."""
    return the_case().client(the_folder(), index)


def trained(params: Any, index: int, number: int) -> Any:
    """A client's model after its local steps; rounds count from 0."""
    return params + the_case().update(params, client(index), index, number)


def scorer(ends: list[float], last: dict[str, Any]) -> Callable[[int, Any], None]:
    """What the server does after every round: measure the model, and note the time."""
    case, test = the_case(), the_case().test(the_folder())

    def score(number: int, params: Any) -> None:
        last["params"], last["accuracy"] = params, case.accuracy(params, test)
        if number:  # 0 is before the first round
            ends.append(time.time())

    return score


def ray_settings(workers: int, scratch: str) -> dict[str, Any]:
    """Quiet, on this machine alone, and nothing left behind."""
    return {
        "num_cpus": workers,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": scratch,
        "logging_level": 30,
        "log_to_driver": False,
    }


def by_message(workers: int, scratch: str, score: Callable[[int, Any], None]) -> None:
    """Run with the Message API."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    case, client_app, server_app = the_case(), ClientApp(), ServerApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        import app

        params = message.content["arrays"].to_numpy_ndarrays()[0]
        number = int(message.content["config"]["server-round"]) - 1
        after = app.trained(params, int(context.node_config["partition-id"]), number)
        content = {"arrays": ArrayRecord([after]), "metrics": MetricRecord({"num-examples": case.samples})}
        return Message(RecordDict(content), reply_to=message)

    @server_app.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=case.clients)
        strategy.start(
            grid,
            ArrayRecord([case.init()]),
            num_rounds=case.rounds,
            evaluate_fn=lambda number, arrays: score(number, arrays.to_numpy_ndarrays()[0]),
        )

    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": ray_settings(workers, scratch)}
    run_simulation(server_app, client_app, case.clients, backend_config=backend)


def by_classic(workers: int, scratch: str, score: Callable[[int, Any], None]) -> None:
    """Run with the client proxies that came before the Message API."""
    import flwr
    from flwr.common import ndarrays_to_parameters
    from flwr.server.strategy import FedAvg

    case = the_case()

    class Client(flwr.client.NumPyClient):
        def __init__(self, index: int) -> None:
            self.index = index

        def fit(self, parameters: Any, config: dict[str, Any]) -> tuple[Any, int, dict[str, Any]]:
            import app

            return [app.trained(parameters[0], self.index, config["number"])], case.samples, {}

    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=case.clients,
        min_available_clients=case.clients,
        initial_parameters=ndarrays_to_parameters([case.init()]),
        on_fit_config_fn=lambda number: {"number": number - 1},
        evaluate_fn=lambda number, parameters, config: score(number, parameters[0]),
    )
    flwr.simulation.start_simulation(
        client_fn=lambda context: Client(int(context.node_config["partition-id"])).to_client(),
        num_clients=case.clients,
        client_resources={"num_cpus": 1, "num_gpus": 0.0},
        config=flwr.server.ServerConfig(num_rounds=case.rounds),
        strategy=strategy,
        ray_init_args=ray_settings(workers, scratch),
    )


def main() -> None:
    """Run one and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("api", choices=["message", "classic"])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    here = Path(__file__).parent
    os.environ.update({CASE: given.case, FOLDER: str(given.folder)})
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent)])  # for the actors
    ends: list[float] = []
    last: dict[str, Any] = {}
    run = by_message if given.api == "message" else by_classic
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        os.environ["FLWR_HOME"] = scratch
        run(given.workers, scratch, scorer(ends, last))
        import ray

        ray.shutdown()
    np.save(given.folder / "params.npy", last["params"])
    print(json.dumps({"ends": ends, "accuracy": last["accuracy"]}), flush=True)
    os._exit(0)  # the classic simulation leaves a timer behind that would hold the process for ten seconds


if __name__ == "__main__":
    main()
