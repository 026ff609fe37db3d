"""The options that commands share: one for every key of the configuration, and those of what is written and shown."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from matl.campaigns.parts import REGISTRIES
from matl.campaigns.trackers import TRACKERS
from matl.errors import InvalidValueError
from matl.files import make_directory, storage_error
from matl.registry import Registry
from matl.simulation.config import TABLES, RunConfig

__all__ = [
    "RESUMED",
    "AsJson",
    "ConfigFile",
    "Log",
    "Out",
    "Quiet",
    "Resume",
    "Verbose",
    "Watch",
    "Workers",
    "claim_folder",
    "configuration",
    "folder",
    "names_of",
    "parse_spec",
    "refuse",
    "run_name",
]


def configuration(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every key of the configuration but some.

    The command takes them as one argument, ``given``: the values of the keys that the user gave.
    """
    keys = [key for key in RunConfig.model_fields if key not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(**arguments: Any) -> None:
            given = {key: _parse(key, text) for key in keys if (text := arguments.pop(key)) is not None}
            command(given=given, **arguments)

        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command, eval_str=True).parameters.values():
            if own.name != "given":
                parameters.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            for key in keys:
                kind: Any = _kind(key) | None
                annotation = Annotated[kind, _option(key)]
                parameters.append(
                    inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
                )
        vars(call)["__signature__"] = inspect.Signature(parameters)
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return call

    return decorate


def _kind(key: str) -> Any:
    """What the command line takes for a key: a number, or text for whatever has more parts."""
    hint = RunConfig.model_fields[key].annotation
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    return kinds[0] if kinds[0] in (int, float) else str


def _option(key: str) -> Any:
    field = RunConfig.model_fields[key]
    form = " As key=value,key=value." if key in TABLES else ""
    shown = "mode1" if key == "mode" else field.default
    default = "" if key in TABLES or shown is None else f" \\[default: {shown}]"
    return typer.Option(
        f"--{key.replace('_', '-')}",
        help=f"{field.description}{form}{default}",
        show_default=False,
        rich_help_panel="Configuration",
        autocompletion=names_of(REGISTRIES[key]) if key in REGISTRIES else None,
    )


def _parse(key: str, value: Any) -> Any:
    if key in TABLES:
        return _pairs(value, "key=value,key=value")
    return parse_spec(value) if key in REGISTRIES else value


def names_of(*registries: Registry[Any]) -> Callable[[str], list[tuple[str, str]]]:
    """Completion of the names in registries, with what they are; in a list with commas, of its last item."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        before, comma, last = incomplete.rpartition(",")
        found = [(name, registry.summary(name)) for registry in registries for name in registry]
        return [(f"{before}{comma}{name}", summary) for name, summary in found if name.startswith(last)]

    return complete


def _trackers(incomplete: str) -> list[str]:
    return [name for name in TRACKERS if name.startswith(incomplete)]


ConfigFile = Annotated[
    Path | None,
    typer.Argument(help="TOML file with any of the configuration options below as keys.", show_default=False),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write to.", show_default="runs/...")]
Resume = Annotated[
    Path | None, typer.Option("--resume", help="Go on with what was interrupted in this folder.", show_default=False)
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Processes that train clients; results do not depend on it.")
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log", help="Also log rounds: tensorboard or mlflow; more than once for both.", autocompletion=_trackers
    ),
]
Watch = Annotated[bool, typer.Option("--watch", help="Show accuracy, verdicts and reasons live, on a terminal.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every quarantine and rejection with its reason.")]


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
    return {"name": name, **_pairs(rest, "name:key=value,key=value", text)} if separator else name


def _pairs(text: str, form: str, whole: str | None = None) -> dict[str, Any]:
    pairs = [item.partition("=") for item in _OUTSIDE_BRACKETS.split(text)]
    if not all(key and equals and value for key, equals, value in pairs):
        raise InvalidValueError(f"expected {form}, got {text if whole is None else whole!r}")
    return {key.strip(): _value(value.strip()) for key, _, value in pairs}


_OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")


def _value(text: str) -> str | list[str]:
    """A list in brackets as a list; anything else stays text, since the part that takes it knows its type."""
    if text.startswith("[") and text.endswith("]"):
        return [item.strip() for item in text[1:-1].split(",") if item.strip()]
    return text


def refuse(why: str, **given: Any) -> None:
    """Refuse options that have no meaning here, where saying so is better than leaving them out.

    Parameters
    ----------
    why : str
        Why they have none.
    **given
        Options by name, and ``config`` for the argument; what is None was not given.
    """
    extra = [str(given["config"])] if given.get("config") is not None else []
    extra += [f"--{key.replace('_', '-')}" for key, value in given.items() if key != "config" and value is not None]
    if extra:
        raise InvalidValueError(f"{why}, got also {', '.join(extra)}")


RESUMED = "--resume goes on with the configuration of the run"


@contextlib.contextmanager
def folder(given: Path | None, name: str) -> Iterator[Path]:
    """The folder that was given, or a new one, which goes again if a mistake ends the command before it is used."""
    if given is not None:
        yield given
        return
    claimed = claim_folder(name)
    try:
        yield claimed
    except BaseException:  # whatever ended it
        with contextlib.suppress(OSError):  # only empty folders can be removed like this
            claimed.rmdir()
            claimed.parent.rmdir()
        raise


def run_name(label: str, config: RunConfig) -> str:
    """What the folder of a run is called that says what it holds."""
    dataset, attack = (part if isinstance(part, str) else str(part["name"]) for part in (config.dataset, config.attack))
    return f"{label}-{dataset}-{attack}-seed{config.seed}"


def claim_folder(name: str) -> Path:
    """Create a folder under ``runs``; of two commands at once, each gets its own."""
    base = Path("runs") / name
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
