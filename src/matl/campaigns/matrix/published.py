"""Figures from elsewhere, shown beside a matrix's own."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from matl.simulation.config import toml_value

__all__ = ["Published", "problems_of", "published_of"]

Figure: TypeAlias = tuple[str, str, float, float]
"""Rule as its paper calls it, attack in the words of the matrix, share of malicious clients, accuracy."""

_KEYS = ("source", "accuracy")


@dataclass(frozen=True, slots=True)
class Published:
    """Accuracies that a paper reports, obtained with other models, data splits and code.

    Parameters
    ----------
    source : str
        Where they stand, and for what setting.
    accuracy : tuple of (str, str, float, float)
        Rule as its paper calls it, attack in the words of the matrix, share of malicious clients, and accuracy in
        [0, 1].

    Examples
    --------
    >>> published = Published("A paper, 2023", (("Their rule", "lie", 0.2, 0.87),))
    >>> published.rules, published.look_up("Their rule", ("lie", 0.2)), published.look_up("Their rule", ("lie", 0.8))
    (['Their rule'], 0.87, None)
    """

    source: str
    accuracy: tuple[Figure, ...]

    @property
    def rules(self) -> list[str]:
        """The rules that have figures, in the order of the file."""
        return list(dict.fromkeys(rule for rule, *_ in self.accuracy))

    def look_up(self, rule: str, against: tuple[str, float]) -> float | None:
        """The accuracy of a rule against an attack and a share of malicious clients, if there is one."""
        return {figure[:3]: figure[3] for figure in self.accuracy}.get((rule, *against))

    def only(self, rows: Container[tuple[str, float]]) -> Published | None:
        """Without the figures of other rows than these; ``None`` if no figure is left."""
        left = tuple(figure for figure in self.accuracy if figure[1:3] in rows)
        return Published(self.source, left) if left else None

    def to_toml(self) -> list[str]:
        """The lines of a table ``[matrix.published]`` that give it back."""
        figures = [f"    {toml_value(figure)}," for figure in self.accuracy]
        return ["[matrix.published]", f"source = {toml_value(self.source)}", "accuracy = [", *figures, "]"]


def published_of(table: Mapping[str, Any]) -> Published:
    """The figures of a table without `problems_of`."""
    figures = table["accuracy"]
    return Published(table["source"], tuple((rule, attack, float(f), float(a)) for rule, attack, f, a in figures))


def problems_of(table: Any) -> list[str]:
    """What is wrong with a table ``published``."""
    if not isinstance(table, Mapping):
        return [f"published: expected a table of {' and '.join(_KEYS)}, got {table!r}"]
    problems = [f"published.{key}: unknown key; keys: {', '.join(_KEYS)}" for key in table if key not in _KEYS]
    source, figures = table.get("source"), table.get("accuracy")
    if not isinstance(source, str) or not source.strip():
        problems.append(f"published.source: expected a text that says where the figures stand, got {source!r}")
    if not isinstance(figures, list) or not figures:
        return [*problems, f"published.accuracy: expected a list of figures, got {figures!r}"]
    problems += [
        f"published.accuracy: expected [rule, attack, fraction, accuracy], both numbers in [0, 1], got {figure!r}"
        for figure in figures
        if not _is_figure(figure)
    ]
    named = [tuple(figure[:3]) for figure in figures if _is_figure(figure)]
    twice = [name for name in dict.fromkeys(named) if named.count(name) > 1]
    return problems + [f"published.accuracy: {list(name)!r} occurs more than once" for name in twice]


def _is_figure(figure: Any) -> bool:
    if not isinstance(figure, list) or len(figure) != 4:
        return False
    texts, numbers = figure[:2], figure[2:]
    return all(isinstance(text, str) for text in texts) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1 for number in numbers
    )
