"""Names for the parts that a configuration can choose: data sets, rules, attacks, modes, ..."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from matl.errors import InvalidValueError, UnknownNameError, nearest

__all__ = ["Registry", "describe"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_KEY = re.compile(r"(?:^|,)\s*(\w+)=")  # of an option, as on the command line


class Registry(Generic[T]):
    """A table from names to factories (usually classes) of one kind of part.

    Examples
    --------
    >>> rules = Registry("rule")
    >>> @rules.register("mean", "fedavg")
    ... class Mean:
    ...     '''The average.'''
    >>> rules.get("fedavg") is Mean
    True
    >>> list(rules)
    ['mean']
    >>> rules.summary("mean")
    'The average.'
    >>> rules.get("maen")
    Traceback (most recent call last):
        ...
    matl.errors.UnknownNameError: unknown rule 'maen' (did you mean 'mean'?); known: fedavg, mean
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, Callable[..., T]] = {}
        self._aliases: dict[str, str] = {}

    def register(self, name: str, *aliases: str) -> Callable[[F], F]:
        """Decorator that files a class or function under ``name`` and ``aliases``."""

        def file_under(part: F) -> F:
            self._parts[name] = part
            self._aliases.update(dict.fromkeys(aliases, name))
            return part

        return file_under

    def get(self, name: str) -> Callable[..., T]:
        """The factory filed under a name or alias.

        Raises
        ------
        UnknownNameError
            There is none; the message lists all names and the nearest one.
        InvalidValueError
            Options stand behind the name, as on the command line.
        """
        try:
            return self._parts[self._aliases.get(name, name)]
        except KeyError:
            short, colon, options = name.partition(":")
            if colon and short in self:
                raise InvalidValueError(
                    f"expected {self.kind} as a name or a table, got {name!r}: options stand behind a colon on the "
                    f"command line alone, elsewhere write {_as_table(short, _KEY.findall(options))}"
                ) from None
            raise UnknownNameError(self.kind, name, [*self._parts, *self._aliases]) from None

    def create(self, spec: str | Mapping[str, Any], **given: Any) -> T:
        """Build a part from a name, or from a mapping of ``name`` and options; parameters are those of `bind`.

        Examples
        --------
        >>> from matl.aggregators import AGGREGATORS
        >>> AGGREGATORS.create({"name": "nnm", "f": 2, "rule": "median"})
        NNM(f=2, rule=Median(weighted=False))
        """
        return self.bind(spec, **given)()

    def bind(self, spec: str | Mapping[str, Any], **given: Any) -> Callable[[], T]:
        """Check a spec and return what builds the part, without building it: a data set is slow to load.

        Parameters
        ----------
        spec : str or mapping
            ``"krum"`` or ``{"name": "krum", "f": 3}``. An option that is itself a part takes a spec in turn.
        **given
            Arguments that do not come from a configuration.

        Raises
        ------
        UnknownNameError
            No part has that name.
        InvalidValueError
            An option is missing, unknown or of the wrong type. What builds the part raises it if one is out of range.
        """
        options: dict[str, Any] = dict(spec) if isinstance(spec, Mapping) else {}
        name = options.pop("name", None) if isinstance(spec, Mapping) else spec
        if not isinstance(name, str):
            raise InvalidValueError(f"expected {self.kind} as a name or a table with 'name', got {spec!r}")
        part = self.get(name)
        allowed = {key: hint for key, hint in _parameters(part).items() if key not in given}
        for key in options:
            if key not in allowed:
                raise InvalidValueError(
                    f"{self.kind} {name!r} has no option {key!r}{nearest(str(key), allowed)}; "
                    f"options: {', '.join(allowed) or 'none'}"
                )
        for key, parameter in inspect.signature(part).parameters.items():
            if parameter.default is parameter.empty and key not in given and key not in options:
                raise InvalidValueError(
                    f"{self.kind} {name!r} needs the option {key!r}, e.g. {name}:{key}=... on the command line, "
                    f"{_as_table(name, [key])} in a file"
                )
        values = {key: _convert(f"{name}.{key}", value, allowed[key]) for key, value in options.items()}
        return partial(part, **given, **values)

    def aliases(self, name: str) -> list[str]:
        """Other names of a part."""
        return sorted(alias for alias, target in self._aliases.items() if target == name)

    def summary(self, name: str) -> str:
        """First line of the part's docstring."""
        return (inspect.getdoc(self.get(name)) or "").split("\n", 1)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def __contains__(self, name: object) -> bool:
        return name in self._parts or name in self._aliases


def describe(part: Any) -> dict[str, Any]:
    """Class name and fields of a part as plain data, for digests and reports.

    Examples
    --------
    >>> from matl.aggregators import NNM
    >>> describe(NNM(f=2))
    {'name': 'NNM', 'f': 2, 'rule': {'name': 'TrimmedMean', 'f': None}}
    """
    described: dict[str, Any] = {"name": type(part).__name__}
    if dataclasses.is_dataclass(part):
        for item in dataclasses.fields(part):
            value = getattr(part, item.name)
            described[item.name] = describe(value) if dataclasses.is_dataclass(value) else value
    return described


def _as_table(name: str, keys: list[str]) -> str:
    """How a part with options is written in TOML."""
    items = [f'name = "{name}"', *(f"{key} = ..." for key in keys)]
    return f"{{ {', '.join(items)} }}"


def _parameters(part: Callable[..., Any]) -> dict[str, Any]:
    """Names and types of what a factory can be called with."""
    hints = typing.get_type_hints(vars(part).get("__init__", part) if isinstance(part, type) else part)
    return {key: hints.get(key, Any) for key in inspect.signature(part).parameters}


def _convert(where: str, value: Any, hint: Any) -> Any:
    """An option's value as its declared type; a part is built from its own spec."""
    registry = getattr(hint, "registry", None)
    if registry is not None:
        return value if isinstance(value, hint) else registry.create(value)
    from pydantic import TypeAdapter, ValidationError  # slow to import, and only configurations need it

    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise InvalidValueError(f"{where}: {error.errors()[0]['msg'].lower()}, got {value!r}") from error
