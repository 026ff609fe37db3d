"""The folder of a network on one machine: what it runs, who uses it, and where it can be reached."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matl.errors import ConfigError, InvalidValueError, StateError
from matl.files import make_directory, storage_error, write_atomic
from matl.network.settings import RunSettings, Terms
from matl.simulation import RunConfig, load_config
from matl.simulation.config import to_toml, toml_value

__all__ = ["LOCAL", "LocalNetwork", "in_use", "read_url", "tell_url"]

LOCAL = Path("matl-network")
"""The folder unless another one is given."""

_FILE = "network.toml"
_URL = "url"
_SERVED = ("matl.db", "receipts.pem", "coordinator.secret", "admin.token", "audit.log", "audit.log.head", "url")
_HEADER = "# What `matl up` runs from this folder; but for the rounds and the guests it stays as it was begun.\n"


@dataclass(frozen=True, slots=True)
class LocalNetwork:
    """A network that `matl up` serves.

    Parameters
    ----------
    folder : Path
        Where all its files are.
    run : RunSettings
        Its run: the configuration it was begun with, and how many rounds it has by now.
    """

    folder: Path
    run: RunSettings

    @classmethod
    def of(
        cls, folder: Path, given: Mapping[str, Any], file: Path | None = None, *, guests: int | None = None
    ) -> LocalNetwork:
        """The network of a folder, or a new one if there is none.

        Parameters
        ----------
        folder : Path
            The folder.
        given : mapping
            Keys of the configuration that were given as options.
        file : Path, optional
            A TOML file with further ones.
        guests : int, optional
            How many clients beside the simulated ones a round waits for; as many as before, at first none, by default.

        Raises
        ------
        ConfigError
            Keys or values are wrong; all problems are listed.
        InvalidValueError
            Another configuration is asked for than the one the network was begun with. More rounds may be, and another
            number of guests.
        StateError
            The folder cannot be read, or is that of a coordinator with real clients.
        """
        path, asked = folder / _FILE, load_config(file, given)
        if not path.is_file():
            if there := [name for name in _SERVED if (folder / name).exists()]:
                raise StateError(
                    f"{folder} holds {there[0]} and no {_FILE}: it is the folder of a coordinator with clients of its "
                    "own, where simulated ones have no place; serve it with matl serve, or give another --folder"
                )
            return cls(folder, RunSettings(config=asked, terms=Terms(simulated=True, guests=guests or 0)))
        try:
            begun = RunSettings.of(tomllib.loads(path.read_text("utf-8")), source=str(path))
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            raise StateError(f"{folder} cannot be gone on with: {path.name}: {error}") from error
        network = cls(folder, begun)
        others = [
            f"--{key.replace('_', '-')} {getattr(asked, key)!r} (it is {getattr(begun.config, key)!r})"
            for key in RunConfig.model_fields
            if key in asked.model_fields_set - {"rounds"} and getattr(asked, key) != getattr(begun.config, key)
        ]
        if others:
            raise InvalidValueError(
                f"{folder} goes on with what it was begun with, got {', '.join(others)}; leave these out, or begin "
                "another network with --folder"
            )
        rounds = asked.rounds if "rounds" in asked.model_fields_set else network.rounds
        changed: dict[str, Any] = {} if rounds == network.rounds else {"rounds": rounds}
        if guests not in (None, begun.terms.guests):
            changed["guests"] = guests
        if rounds < network.rounds:
            raise InvalidValueError(
                f"{folder} has {network.rounds} rounds, got --rounds {asked.rounds}; more may be asked for, not fewer"
            )
        if not changed:
            return network
        after = begun.model_copy(update={"terms": begun.terms.model_copy(update=changed)})
        return cls(folder, RunSettings.of(after.as_settings(), source=str(path)))

    @property
    def rounds(self) -> int:
        """How many rounds it has in all."""
        return self.run.rounds

    @property
    def clients(self) -> Path:
        """Where the folders of the simulated clients are."""
        return self.folder / "clients"

    def write(self) -> None:
        """Write down what is run."""
        terms = "\n".join(f"{key} = {toml_value(value)}" for key, value in self.run.as_settings()["network"].items())
        write_atomic(self.folder / _FILE, f"{_HEADER}{to_toml(self.run.config)}\n[network]\n{terms}\n")


def tell_url(folder: Path, url: str) -> None:
    """Write down where the coordinator of a folder can be reached, for the commands that ask it."""
    write_atomic(folder / _URL, url + "\n")


def read_url(folder: Path) -> str:
    """Where the coordinator of a folder can be reached.

    Raises
    ------
    StateError
        It was never started.
    """
    try:
        return (folder / _URL).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(
            f"no coordinator was started from {folder}; start one with matl up, or give its --folder, or its --url"
        ) from error


@contextlib.contextmanager
def in_use(folder: Path, *, advice: str = "end that one, or give this one a --folder of its own") -> Iterator[None]:
    """Keep a folder to this process for as long as the block lasts; it is made for its owner alone if there is none.

    Parameters
    ----------
    folder : Path
        The folder.
    advice : str
        What whoever is refused can do.

    Raises
    ------
    StateError
        Another process has it.
    StorageError
        It cannot be made, or not be written.
    """
    make_directory(folder, private=True)
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateError(f"another coordinator runs from {folder}; {advice}") from error
        yield
    finally:
        os.close(descriptor)  # and with it the lock, which also a killed process loses
