"""What an attack matrix consists of: attacks, fractions, skews, rules and seeds, and the cells they make."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from matl.aggregators import AGGREGATORS
from matl.campaigns.compare import CEILING, rule_config
from matl.campaigns.experiment import Cell, cell_name, in_words, parse_file
from matl.campaigns.matrix.published import Published, problems_of, published_of
from matl.errors import ConfigError, MatlError, StateError, nearest
from matl.modes import MODES
from matl.registry import describe
from matl.simulation import RunConfig, load_config
from matl.simulation.config import NO_ORACLE, Spec, toml_value
from matl.simulation.directory import refuse_other_kind
from matl.simulation.federation import malicious_count, takes_alpha
from matl.state import digest

__all__ = ["FILE", "NOBODY", "PRESETS", "Matrix", "read_matrix", "resume_matrix"]

FILE = "matrix.toml"
"""Says what matrix a folder holds."""

NOBODY = "none"
"""The attack of the rows in which nobody attacks."""

_PRESETS = files(__package__) / "presets"
PRESETS = tuple(sorted(path.name.removesuffix(".toml") for path in _PRESETS.iterdir() if path.name.endswith(".toml")))
"""Matrices that come with MATL."""

_WHOLE = 1e-6  # as near as this to a whole number of clients is one

_AXES = ("attacks", "fractions", "alphas", "rules")
_OWN = ("attack", "byzantine", "alpha", "mode", "aggregator", "seed")
"""Keys of a configuration that the axes set."""


@dataclass(frozen=True)
class Matrix:
    """Attacks by fractions by skews by rules by seeds.

    Beside the cells of the attacks there is, for every alpha and seed, one without an attack for every rule, and one
    with the honest clients alone for every fraction: the ceiling.

    Parameters
    ----------
    name : str
        What it is called.
    values : mapping
        Keys of the configuration that all cells share.
    attacks, rules : tuple of str or mapping
        Parts by name, or tables of ``name`` and options.
    fractions : tuple of float
        Shares of malicious clients.
    alphas : tuple of float
        Concentrations of the label skew.
    seeds : tuple of int
        Every cell is run on each.
    also : mapping of str to sequence of float
        Further fractions for single attacks, by their names in `in_words`.
    published : Published or None
        Figures of a paper to show beside.

    Raises
    ------
    ConfigError
        It has problems; all are listed.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    attacks: tuple[Spec, ...] = ("sign_flip", "gaussian_noise", "label_flip", "scaling", "alie")
    fractions: tuple[float, ...] = (0.2, 0.4)
    alphas: tuple[float, ...] = (0.5,)
    rules: tuple[Spec, ...] = ("fedavg", "krum", "trimmed_mean", "nnm", "fltrust", "raw_pogq", "mode0", "mode1")
    seeds: tuple[int, ...] = (10, 11, 12)
    also: Mapping[str, Sequence[float]] = field(default_factory=dict)
    published: Published | None = None

    def __post_init__(self) -> None:
        problems = [f"{key}: expected at least one, got none" for key in (*_AXES, "seeds") if not getattr(self, key)]
        for key in (*_AXES, "seeds"):
            labels = [in_words(item) for item in getattr(self, key)]
            problems += [
                f"{key}: {label} occurs more than once" for label in dict.fromkeys(labels) if labels.count(label) > 1
            ]
        problems += [f"{key}: is set by the matrix; leave it out" for key in _OWN if key in self.values]
        attacks = [in_words(attack) for attack in self.attacks]
        for attack in self.also:
            if attack not in attacks:
                problems.append(f"also.{attack}: names no attack of this matrix; attacks: {', '.join(attacks)}")
        if any(attack == NOBODY for attack in attacks) or 0.0 in self.fractions:
            problems.append("attacks, fractions: rows in which nobody attacks are part of every matrix; leave them out")
        if self.published is not None:
            named = dict.fromkeys((attack, fraction) for _, attack, fraction, _ in self.published.accuracy)
            problems += [
                f"published.accuracy: {attack!r} with {fraction:g} malicious is no row of this matrix"
                for attack, fraction in named
                if (attack, fraction) not in self.rows
            ]
        if problems:
            raise ConfigError(self.name, problems)

    @property
    def rows(self) -> list[tuple[str, float]]:
        """Attacks in words with their fractions, the row in which nobody attacks first."""
        return [(NOBODY, 0.0), *((in_words(attack), fraction) for attack, fraction in self._attacks())]

    @property
    def rule_names(self) -> list[str]:
        """The rules in words."""
        return [in_words(rule) for rule in self.rules]

    def skew(self, alpha: float) -> str:
        """How the data are dealt, in words: the alpha, or the partition where that takes none."""
        partition = self.values.get("partition", "dirichlet")
        return f"\u03b1 = {alpha:g}" if takes_alpha(partition) else in_words(partition)

    @property
    def rounded(self) -> str:
        """Which fractions are no whole number of clients, and how many clients they are, in words; perhaps empty."""
        clients = self.cells[0].config.clients
        told = [
            f"{100 * fraction:g} % are {count} ({100 * count / clients:.3g} %)"
            for fraction in sorted({fraction for _, fraction in self.rows})
            if abs((count := malicious_count(fraction, clients)) - fraction * clients) > _WHOLE
        ]
        return f"Of {clients} clients {', '.join(told)}." if told else ""

    @property
    def judges(self) -> dict[str, str]:
        """Digest of the constants of each rule, whatever data it judges by."""
        return {in_words(rule): _constants(rule) for rule in self.rules}

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All runs: by alpha, the ceilings, then attack by attack and rule by rule, its seeds last.

        Raises
        ------
        ConfigError
            Some of them cannot be run; all problems are listed.
        """
        problems: dict[str, None] = {}
        cells = []
        for attack, fraction, alpha, rule in self._settings():
            values = {**self.values, "attack": attack, "byzantine": fraction, "alpha": alpha, "seed": self.seeds[0]}
            try:
                config = rule_config(load_config(None, values, source=self.name), rule)
            except ConfigError as error:
                problems |= dict.fromkeys(error.problems)
            except MatlError as error:
                problems[str(error)] = None
            else:
                if fraction and not malicious_count(fraction, config.clients):
                    problems[
                        f"fractions: {fraction:g} of {config.clients} clients, rounded down, is nobody, and the row "
                        f"would have no attack; take at least {1 / config.clients:.4g}, or more clients"
                    ] = None
                cells += [self._cell(config, rule, seed) for seed in self.seeds]
        if problems:
            raise ConfigError(self.name, list(problems))
        return tuple(cells)

    def to_toml(self) -> str:
        """The matrix as a file that gives it back."""
        lines = [f"{key} = {toml_value(value)}" for key, value in self.values.items()]
        axes = [f"{key} = {toml_value(list(getattr(self, key)))}" for key in _AXES]
        also = [f"{toml_value(key)} = {toml_value(list(value))}" for key, value in self.also.items()]
        seeds = f"seeds = {toml_value(list(self.seeds))}"
        tables = [["[matrix]", *axes]]
        tables += [["[matrix.also]", *also]] if also else []
        tables += [self.published.to_toml()] if self.published is not None else []
        return "\n\n".join("\n".join(part) for part in [[seeds, *lines], *tables]) + "\n"

    def _attacks(self) -> Iterator[tuple[Spec, float]]:
        for attack in self.attacks:
            for fraction in sorted({*self.fractions, *self.also.get(in_words(attack), ())}):
                yield attack, fraction

    def _settings(self) -> Iterator[tuple[Spec, float, float, Spec]]:
        for alpha in self.alphas:
            for fraction in dict.fromkeys([0.0, *(fraction for _, fraction in self._attacks())]):
                # Without its malicious clients a federation is the same whatever they would have done.
                yield (self.attacks[0] if fraction else NOBODY), fraction, alpha, CEILING
            for attack, fraction in [(NOBODY, 0.0), *self._attacks()]:
                for rule in self.rules:
                    yield attack, fraction, alpha, rule

    def _cell(self, config: RunConfig, rule: Spec, seed: int) -> Cell:
        seeded = config.model_copy(update={"seed": seed})
        ceiling = rule == CEILING
        settings = {
            "attack": NOBODY if ceiling else in_words(config.attack),
            "byzantine": config.byzantine,
            "alpha": config.alpha,
            "rule": in_words(rule),
        }
        return Cell(cell_name(settings, seeded), settings, seeded)


def read_matrix(source: Path | str, **given: Any) -> Matrix:
    """Read a matrix from a file, TOML or YAML, or take one that comes with MATL by its name.

    A file has the keys of a configuration, ``seeds``, and a table ``[matrix]`` with the lists ``attacks``,
    ``fractions``, ``alphas`` and ``rules``, and perhaps a table ``also`` of further fractions for single attacks and
    a table ``published`` of figures to show beside.

    Parameters
    ----------
    source : Path or str
        The file, or one of `PRESETS`.
    **given
        Axes, ``seeds`` and keys of the configuration that win over those of the file.

    Raises
    ------
    ConfigError
        The file cannot be read, or has problems.
    """
    preset = str(source) in PRESETS
    if not preset and not Path(source).is_file():
        raise ConfigError(str(source), [f"is neither a file nor a matrix that comes with MATL: {', '.join(PRESETS)}"])
    path = Path(str(_PRESETS / f"{source}.toml")) if preset else Path(source)
    return matrix_of(path.stem, parse_file(path), **given)


def matrix_of(name: str, values: Mapping[str, Any], **given: Any) -> Matrix:
    """A matrix from the content of a file, and what was given elsewhere."""
    shared = dict(values)
    table = shared.pop("matrix", {})
    if not isinstance(table, Mapping):
        raise ConfigError(name, [f"matrix: expected a table, got {table!r}"])
    known = [*_AXES, "also", "published"]
    problems = [
        f"matrix.{key}: unknown key{nearest(key, known)}; keys: {', '.join(known)}" for key in table if key not in known
    ]
    axes: dict[str, Any] = {**table}
    if "seeds" in shared:
        axes["seeds"] = shared.pop("seeds")
    axes |= {key: value for key, value in given.items() if key in (*known, "seeds")}
    if "attacks" in given and isinstance(axes.get("also"), Mapping):  # further fractions of those that are left
        left = [in_words(attack) for attack in given["attacks"]]
        axes["also"] = {attack: more for attack, more in axes["also"].items() if attack in left}
    shared |= {key: value for key, value in given.items() if key not in axes}
    for key, value in axes.items():
        problems += _problems(key, value)
    if problems:
        raise ConfigError(name, problems)
    published = axes.pop("published", None)
    lists: dict[str, Any] = {key: value if key == "also" else tuple(value) for key, value in axes.items()}
    lists |= {key: tuple(map(float, lists[key])) for key in ("fractions", "alphas") if key in lists}
    matrix = Matrix(name, shared, **lists)
    if published is None:
        return matrix
    figures = published_of(published)
    narrowed = {"attacks", "fractions"} & given.keys()
    return replace(matrix, published=figures.only(matrix.rows) if narrowed else figures)


def resume_matrix(out: Path) -> Matrix:
    """The matrix of a folder in which one was begun.

    Raises
    ------
    StateError
        The folder holds none.
    """
    refuse_other_kind(out, FILE)
    if not (out / FILE).is_file():
        raise StateError(f"{out} holds no matrix (no {FILE}); start one without --resume")
    return matrix_of(out.resolve().name, parse_file(out / FILE))


def _problems(key: str, value: Any) -> list[str]:
    """What is wrong with the values of an axis."""
    if key == "published":
        return problems_of(value)
    if key == "also":
        if not isinstance(value, Mapping):
            return [f"also: expected a table of lists of fractions, got {value!r}"]
        return [problem for name, items in value.items() for problem in _problems(f"also.{name}", items)]
    kind: Any = int if key == "seeds" else (str, Mapping) if key in ("attacks", "rules") else (int, float)
    if not isinstance(value, list | tuple) or any(
        not isinstance(item, kind) or isinstance(item, bool) for item in value
    ):
        wanted = {"seeds": "whole numbers", "attacks": "names or tables", "rules": "names or tables"}
        return [f"{key}: expected a list of {wanted.get(key, 'numbers')}, got {value!r}"]
    return []


def _constants(rule: Spec) -> str:
    name = rule if isinstance(rule, str) else rule["name"]
    if name not in MODES:
        return digest([describe(AGGREGATORS.create(rule))])
    wanted = inspect.signature(MODES.get(name)).parameters
    return MODES.create(rule, **({"oracle": NO_ORACLE} if "oracle" in wanted else {})).digest
