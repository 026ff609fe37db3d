"""Run the parity tests on a GPU, measure throughput next to the CPU, and record both.

    make gpu-report

Writes benchmarks/results/gpu_report.json and the part of docs/gpu-validation.md between its two marks. Without a GPU it
says so and writes nothing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import commit, markdown
from torch import nn

import matl
from matl.files import write_atomic
from matl.learning.tasks import available_devices
from matl.simulation.result import provenance

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gpu-validation.md"
BEGIN, END = "<!-- report: begin -->\n", "<!-- report: end -->\n"
PARITY = "tests/learning/tasks/test_torch_task.py"
SHAPE = (3, 32, 32)
BATCHES = (32, 128, 512)
MODELS = 8
"""Clients in one stack."""


def perceptron() -> nn.Module:
    """Two hidden layers, 1.7 million parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def convolution() -> nn.Module:
    """The network of `matl.CNNTask` on CIFAR-10 images."""
    return matl.CNNTask(3072, 10, shape=SHAPE, device="cpu").module


NETWORKS = {"MLP": perceptron, "CNN": convolution}


def throughput(task: matl.TorchTask, batch_size: int) -> float:
    """Samples per second of `loss_and_gradient`, transfers included: the median of seven stacks after a warm-up."""
    rng = np.random.default_rng(0)
    params = np.repeat(task.init(rng)[None], MODELS, axis=0)
    X = rng.random((MODELS, batch_size, task.features), np.float32)
    y = rng.integers(0, 10, (MODELS, batch_size))
    seconds = []
    for _ in range(9):
        started = time.perf_counter()
        task.loss_and_gradient(params, X, y)
        seconds.append(time.perf_counter() - started)
    return MODELS * batch_size / statistics.median(seconds[2:])


def difference(network: Any, device: str) -> float:
    """Largest difference between the gradients of CPU and device, in units of the gradient's largest entry."""
    tasks = [matl.TorchTask(network, shape=SHAPE, device=where) for where in ("cpu", device)]
    rng = np.random.default_rng(0)
    params = tasks[0].init(rng)[None]
    X, y = rng.random((1, 64, 3072), np.float32), rng.integers(0, 10, (1, 64))
    cpu, other = (task.loss_and_gradient(params, X, y)[1] for task in tasks)
    return float(np.abs(cpu - other).max() / np.abs(cpu).max())


def measure(device: str) -> list[dict[str, Any]]:
    """One row per network and batch size."""
    rows = []
    for name, network in NETWORKS.items():
        apart = difference(network, device)
        tasks = {where: matl.TorchTask(network, shape=SHAPE, device=where) for where in ("cpu", device)}
        for batch_size in BATCHES:
            speeds = {where: throughput(task, batch_size) for where, task in tasks.items()}
            rows.append({"network": name, "batch_size": batch_size, "relative_difference": apart, **speeds})
    return rows


def parity() -> tuple[bool, str]:
    """Whether the parity tests pass, and their last line."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", PARITY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
    return done.returncode == 0, lines[-1]


def report(device: str, hardware: str, passed: bool, summary: str, rows: list[dict[str, Any]]) -> str:
    """The part of the page that is generated."""
    table = markdown(
        ["network", "batch", "CPU, one thread, samples/s", "GPU, samples/s", "GPU / CPU", "gradients apart"],
        [
            [
                row["network"],
                str(row["batch_size"]),
                f"{row['cpu']:,.0f}",
                f"{row[device]:,.0f}",
                f"{row[device] / row['cpu']:.1f}",
                f"{row['relative_difference']:.1e}",
            ]
            for row in rows
        ],
    )
    return (
        f"Last run on {datetime.now(UTC):%Y-%m-%d} on {hardware}, torch {torch.__version__}, commit "
        f"{commit()}. Parity tests: {'passed' if passed else 'FAILED'} ({summary}).\n\n"
        f"{table}\n\nStacks of {MODELS} clients on 3 x 32 x 32 images, parameters and samples sent and gradients "
        "fetched at every step, as simulations do. *Gradients apart*: the largest difference between CPU and GPU, in "
        "units of the largest entry.\n"
    )


def main() -> None:
    """Run on the first GPU there is."""
    gpus = [name for name in available_devices() if name != "cpu"]
    if not gpus:
        print("no GPU that torch can use on this machine: nothing was measured and nothing was written")
        return
    device = gpus[0]
    hardware = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    passed, summary = parity()
    rows = measure(device)
    text = report(device, hardware, passed, summary, rows)
    print(text)
    content = {
        **provenance(),
        "hardware": hardware,
        "parity": {"passed": passed, "summary": summary},
        "rows": rows,
    }
    write_atomic(ROOT / "benchmarks" / "results" / "gpu_report.json", json.dumps(content, indent=1) + "\n")
    page = PAGE.read_text("utf-8")
    before, rest = page.split(BEGIN)
    write_atomic(PAGE, before + BEGIN + text + END + rest.split(END)[1])
    if not passed:
        sys.exit("the parity tests failed on the GPU")


if __name__ == "__main__":
    main()
