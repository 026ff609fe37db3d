"""The options that ``matl run`` and ``matl compare`` share: one for every key of the configuration."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from matl.errors import InvalidValueError
from matl.files import make_directory, storage_error
from matl.simulation.config import RunConfig

__all__ = [
    "Aggregator",
    "Alpha",
    "AsJson",
    "Attack",
    "Byzantine",
    "Clients",
    "ConfigFile",
    "Dataset",
    "MaxNorm",
    "Mode",
    "Out",
    "Participation",
    "Quiet",
    "Resume",
    "RootSize",
    "Rounds",
    "Seed",
    "TaskName",
    "Verbose",
    "default_out",
    "folder",
    "given",
    "parse_spec",
]


def _option(key: str, *names: str, **extra: Any) -> Any:
    field = RunConfig.model_fields[key]
    shown = "mode1" if key == "mode" else field.default
    return typer.Option(*names, help=f"{field.description} [default: {shown}]", show_default=False, **extra)


ConfigFile = Annotated[
    Path | None, typer.Argument(help="TOML file with any of the options below as keys.", show_default=False)
]
Dataset = Annotated[str | None, _option("dataset", "--dataset")]
Clients = Annotated[int | None, _option("clients", "--clients")]
Byzantine = Annotated[float | None, _option("byzantine", "--byzantine")]
Attack = Annotated[str | None, _option("attack", "--attack")]
Mode = Annotated[str | None, _option("mode", "--mode")]
Aggregator = Annotated[str | None, _option("aggregator", "--aggregator")]
Alpha = Annotated[float | None, _option("alpha", "--alpha")]
Rounds = Annotated[int | None, _option("rounds", "--rounds")]
Seed = Annotated[int | None, _option("seed", "--seed")]
TaskName = Annotated[str | None, _option("task", "--task")]
Participation = Annotated[float | None, _option("participation", "--participation")]
RootSize = Annotated[int | None, _option("root_size", "--root-size")]
MaxNorm = Annotated[float | None, _option("max_norm", "--max-norm")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write to.", show_default="runs/...")]
Resume = Annotated[
    Path | None, typer.Option("--resume", help="Go on with an interrupted run in this folder.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every quarantine and rejection with its reason.")]


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """The configuration keys among a command's arguments that the user gave."""
    specs = ("attack", "mode", "aggregator", "task")
    chosen = {k: v for k, v in arguments.items() if k in RunConfig.model_fields and v is not None}
    return {key: parse_spec(value) if key in specs else value for key, value in chosen.items()}


def parse_spec(text: str) -> str | dict[str, Any]:
    """A part with options on the command line, ``name:key=value,key=value``.

    Examples
    --------
    >>> parse_spec("sign_flip"), parse_spec("sleeper:wake_round=15,attack=alie")
    ('sign_flip', {'name': 'sleeper', 'wake_round': '15', 'attack': 'alie'})
    >>> parse_spec("mlp:hidden=[128,64]")
    {'name': 'mlp', 'hidden': ['128', '64']}
    """
    name, separator, rest = text.partition(":")
    if not separator:
        return name
    pairs = [item.partition("=") for item in _OUTSIDE_BRACKETS.split(rest)]
    if not all(key and equals and value for key, equals, value in pairs):
        raise InvalidValueError(f"expected name:key=value,key=value, got {text!r}")
    return {"name": name, **{key.strip(): _value(value.strip()) for key, _, value in pairs}}


_OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")


def _value(text: str) -> str | list[str]:
    """A list in brackets as a list; anything else stays text, since the part that takes it knows its type."""
    if text.startswith("[") and text.endswith("]"):
        return [item.strip() for item in text[1:-1].split(",") if item.strip()]
    return text


@contextlib.contextmanager
def folder(given: Path | None, label: str, config: RunConfig) -> Iterator[Path]:
    """The folder that was given, or a new one, which goes again if a mistake ends the command before it is used."""
    if given is not None:
        yield given
        return
    claimed = default_out(label, config)
    try:
        yield claimed
    except BaseException:  # whatever ended it
        with contextlib.suppress(OSError):  # only empty folders can be removed like this
            claimed.rmdir()
            claimed.parent.rmdir()
        raise


def default_out(label: str, config: RunConfig) -> Path:
    """Create a folder under ``runs`` that says what it holds; of two commands at once, each gets its own."""
    attack = config.attack if isinstance(config.attack, str) else str(config.attack["name"])
    base = Path("runs") / f"{label}-{config.dataset}-{attack}-seed{config.seed}"
    candidate, number = base, 2
    make_directory(base.parent)
    while True:
        try:
            candidate.mkdir()
        except FileExistsError:
            candidate, number = base.with_name(f"{base.name}-{number}"), number + 1
        except OSError as error:
            raise storage_error(candidate, error) from error
        else:
            return candidate
