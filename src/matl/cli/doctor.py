"""``matl doctor``: what is installed, and what each missing extra would add."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any

import typer
from rich.table import Table

import matl
from matl.cli.console import print_json, show
from matl.learning.datasets import cache_directory

__all__ = ["doctor"]


@dataclass(frozen=True, slots=True)
class _Extra:
    package: str
    gives: str


_EXTRAS = {
    "sim": (
        _Extra("scikit-learn", "the digits data set, and downloading mnist"),
        _Extra("loky", "worker processes: --workers, and --jobs of matl sweep"),
        _Extra("PyYAML", "experiment files in YAML"),
        _Extra("networkx", "detection of cartels"),
    ),
    "data": (
        _Extra("pyarrow", "Parquet: data sets, and results of matl sweep --parquet"),
        _Extra("pillow", "pictures within data sets, such as those of cifar10 in Parquet"),
    ),
    "torch": (_Extra("torch", "any torch model as a task, and training on a GPU"),),
    "dp": (_Extra("opacus", "differentially private local training"),),
    "tune": (_Extra("optuna", "matl tune"),),
    "tensorboard": (_Extra("tensorboardX", "--log tensorboard"),),
    "mlflow": (
        _Extra("mlflow-skinny", "--log mlflow"),
        _Extra("sqlalchemy", "MLflow's store in a file, for --log mlflow without a server"),
        _Extra("alembic", "the same"),
    ),
    "codec": (_Extra("zstandard", "the codec int8_zstd"),),
    "attest": (_Extra("dcap-qvl", "quotes of Intel SGX and TDX"),),
    "client": (
        _Extra("httpx", "matl.client, and commands that ask a coordinator"),
        _Extra("websockets", "matl.client over WebSocket"),
    ),
    "grpc": (
        _Extra("grpcio", "gRPC: matl up --grpc-port, and clients over it"),
        _Extra("protobuf", "the same"),
    ),
    "server": (
        _Extra("fastapi", "matl up, matl serve, matl oracle"),
        _Extra("uvicorn", "the same"),
        _Extra("sqlalchemy", "a coordinator's database"),
        _Extra("alembic", "the same"),
        _Extra("aiosqlite", "the same in a file"),
        _Extra("asyncpg", "the same in PostgreSQL"),
        _Extra("fsspec", "a coordinator's payloads and models"),
    ),
}
_CORE = (
    "cryptography",
    "numpy",
    "numba",
    "msgpack",
    "pydantic",
    "rich",
    "safetensors",
    "scipy",
    "threadpoolctl",
    "typer",
)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False) -> None:
    """Show what is installed and what each missing extra would add."""
    facts = _facts()
    if as_json:
        print_json(facts)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("matl", facts["matl"])
    table.add_row("python", facts["python"])
    for name, version in facts["core"].items():
        table.add_row(name, version or "missing: reinstall matl", style=None if version else "red")
    for name, extra in facts["extras"].items():
        for package in extra["packages"]:
            missing = f"not installed; would add {package['gives']}: {extra['install']}"
            state = f"{package['package']} {package['version'] or missing}"
            table.add_row(f"extra {name}", state, style=None if package["version"] else "yellow")
    table.add_row("data", ", ".join(facts["data"]))
    show(table, markup=False)


def _facts() -> dict[str, Any]:
    extras = {
        name: {
            "install": f"pip install 'matl[{name}]'",
            "packages": [
                {"package": one.package, "version": _version(one.package), "gives": one.gives} for one in packages
            ],
        }
        for name, packages in _EXTRAS.items()
    }
    own = os.environ.get("MATL_DATA_DIR")
    return {
        "matl": matl.__version__,
        "python": platform.python_version(),
        "core": {name: _version(name) for name in _CORE},
        "extras": extras,
        "data": [*([own] if own else []), str(cache_directory())],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
