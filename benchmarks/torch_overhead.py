"""What MATL adds to the local training of a CNN, next to a plain torch loop over the same batches.

    python benchmarks/torch_overhead.py

Both sides train the same network from the same parameters on the same mini-batches, on one thread, and must end at the
same parameters. They take turns, and the ratio of the CPU times of each turn counts: its median is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from common import markdown, write
from threadpoolctl import threadpool_limits
from torch import nn

import matl
from matl.learning.datasets import Dataset

RESULTS = Path(__file__).parent / "results"
CASES = {
    "CIFAR-10 images, batches of 32": ((3, 32, 32), 32, 20),
    "MNIST images, batches of 32": ((1, 28, 28), 32, 40),
    "digits images, batches of 32": ((1, 8, 8), 32, 100),
}
"""Shape of a sample, batch size, steps."""


def by_matl(task: matl.TorchTask, params: np.ndarray, data: Dataset, recipe: matl.LocalTraining) -> np.ndarray:
    """The update of one client as simulations compute it."""
    return matl.train_locally(task, params, [data], recipe, [np.random.default_rng(0)])[0]


def sizes(module: nn.Module) -> list[int]:
    """Length of each parameter."""
    return [parameter.numel() for parameter in module.parameters()]


def by_torch(module: nn.Module, params: np.ndarray, data: Dataset, recipe: matl.LocalTraining) -> np.ndarray:
    """The same by the loop that a torch user writes: tensors, an optimiser, no loader."""
    X, y = torch.from_numpy(data.X).reshape(-1, *data.shape), torch.from_numpy(data.y)
    draws = torch.from_numpy(np.random.default_rng(0).integers(len(data), size=(recipe.steps, recipe.batch_size)))
    with torch.no_grad():
        for parameter, values in zip(module.parameters(), torch.from_numpy(params).split(sizes(module)), strict=True):
            parameter.copy_(values.view_as(parameter))
    optimizer = torch.optim.SGD(module.parameters(), lr=recipe.learning_rate)
    for indices in draws:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(X[indices]), y[indices]).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(module.parameters()).detach().numpy() - params


def measure(shape: tuple[int, ...], batch_size: int, steps: int, repeats: int) -> dict[str, object]:
    """Seconds of CPU time per step on both sides, and their ratio, over the repeats."""
    rng = np.random.default_rng(0)
    features = int(np.prod(shape))
    X, y = rng.random((500, features), np.float32), rng.integers(0, 10, 500)
    data = Dataset("random", X, y, 10, shape=shape)
    task = matl.CNNTask(features, 10, shape=shape, device="cpu")
    module = matl.CNNTask(features, 10, shape=shape, device="cpu").module
    params = task.init(rng)
    recipe = matl.LocalTraining(learning_rate=0.05, batch_size=batch_size, steps=steps)
    sides = {
        "matl": lambda: by_matl(task, params, data, recipe),
        "torch": lambda: by_torch(module, params, data, recipe),
    }
    apart = float(np.abs(sides["matl"]() - sides["torch"]()).max())  # also the warm-up
    assert apart < 1e-4, f"the two sides end {apart} apart"
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, train in sides.items():
            started = time.process_time()
            train()
            seconds[name].append((time.process_time() - started) / steps)
    ratios = [ours / theirs for ours, theirs in zip(seconds["matl"], seconds["torch"], strict=True)]
    return {
        "parameters": task.layout.size,
        **{f"{name}_ms": round(statistics.median(times) * 1e3, 3) for name, times in seconds.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "largest_difference": apart,
    }


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS / "torch_overhead")
    arguments = parser.parse_args()
    started = time.perf_counter()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = [{"case": case, **measure(*settings, arguments.repeats)} for case, settings in CASES.items()]
    table = markdown(
        ["CNN on", "parameters", "plain torch, ms per step", "MATL, ms per step", "ratio"],
        [
            [
                row["case"],
                f"{row['parameters']:,}",
                f"{row['torch_ms']:.2f}",
                f"{row['matl_ms']:.2f}",
                f"{row['ratio']:.2f}",
            ]
            for row in rows
        ],
    )
    remarks = f"Medians of {arguments.repeats} repeats in turns, CPU time, one thread; both end at the same parameters."
    print(write(arguments.out, table, remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
