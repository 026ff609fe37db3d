"""What a run that there is already goes on with: what it was begun with, and what may be changed since."""

from __future__ import annotations

from typing import Any

from matl.coordinator.storage.rows import RunRow
from matl.coordinator.storage.store import Store
from matl.errors import ConfigError
from matl.network.settings import NetworkSettings, RunSettings
from matl.simulation import RunConfig

__all__ = ["resumed", "resumed_all"]

_LONGEST = 60  # characters of a value that is shown


def resumed(row: RunRow, asked: RunSettings) -> RunSettings:
    """The settings with which a run goes on, given those in the file.

    The configuration stays as it was begun. What is under ``network`` is as the file says, and so is the number of
    rounds if it is not less than before, whether it is given there or among the keys of the configuration.

    Parameters
    ----------
    row : RunRow
        The run, as it is stored.
    asked : RunSettings
        What the file says.

    Raises
    ------
    ConfigError
        Something is asked for that may not change; every such key is named, with both values.
    """
    source, begun = f"run {row.id}", asked
    if asked.config.digest != row.config_digest:
        begun = RunSettings.of(row.settings, source=f"{source} as it was begun")
        if begun.config.digest != row.config_digest:
            problem = (
                f"it was begun with settings of digest {row.config_digest[:12]!r}, the file has "
                f"{asked.config.digest[:12]!r}, and what they were is not known any more"
            )
            raise ConfigError(source, [f"{problem}; put them back, or begin another run under another name"])
        problems = [
            f"{key}: begun with {_short(getattr(begun.config, key))}, the file "
            f"{'says' if key in asked.config.model_fields_set else 'leaves it at'} {_short(getattr(asked.config, key))}"
            for key in RunConfig.model_fields
            if key != "rounds" and getattr(begun.config, key) != getattr(asked.config, key)
        ]
        if problems:
            advice = "put back what it was begun with (network and more rounds may change), or use another name"
            raise ConfigError(source, [f"{problem}; {advice}" for problem in problems])
    if row.rounds is not None and asked.rounds < row.rounds:
        problem = f"rounds: it has {row.rounds}, the file says {asked.rounds}; more may be asked for, not fewer"
        raise ConfigError(source, [problem])
    if begun is asked:
        return asked
    terms = asked.terms.model_copy(update={"rounds": asked.rounds})
    return RunSettings.of(begun.model_copy(update={"terms": terms}).as_settings(), source=source)


async def resumed_all(settings: NetworkSettings) -> dict[str, RunSettings]:
    """The settings of all runs of a file: of those that there are already as they go on, of the others as they are.

    Raises
    ------
    ConfigError
        A run cannot go on with what the file says; all problems of all runs are listed. Nothing was written.
    StateError, ServiceError
        The database is of another version, or out of reach.
    """
    named = {name: RunSettings.of(given, source=f"run {name}") for name, given in settings.runs.items()}
    async with await Store.open(settings.database_url) as store:
        rows = {row.id: row for row in await store.runs()}
    found, problems = {}, []
    for name, asked in named.items():
        try:
            found[name] = resumed(rows[name], asked) if name in rows else asked
        except ConfigError as error:
            problems += [f"{name}.{line}" for line in error.problems]
    if problems:
        raise ConfigError("runs", problems)
    return found


def _short(value: Any) -> str:
    text = repr(value.model_dump(exclude_defaults=True) if hasattr(value, "model_dump") else value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
