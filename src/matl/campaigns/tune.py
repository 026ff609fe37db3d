"""Search for settings, on development seeds and on samples that no result is ever measured on."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matl.campaigns.experiment import Experiment, put, read_experiment
from matl.campaigns.parts import PART_ERRORS
from matl.campaigns.results import write_csv
from matl.errors import ConfigError, MatlError, MissingExtraError, RunInterrupted, StateError, StorageError, nearest
from matl.files import write_atomic
from matl.learning.datasets import Source, as_source
from matl.learning.partition import hold_out
from matl.simulation import RunConfig, build_simulation, execute, load_config
from matl.simulation.build import deal
from matl.simulation.config import to_toml
from matl.simulation.directory import open_new, refuse_other_kind
from matl.simulation.randomness import derive_seed, stream

__all__ = [
    "DEVELOPMENT_SEEDS",
    "Search",
    "Trial",
    "best_of",
    "read_search",
    "resume_search",
    "tune",
    "validation_source",
]

DEVELOPMENT_SEEDS = (0, 1, 2, 3, 4)
"""Seeds that settings are chosen on; results are reported on others."""

_FILES = ("tune.toml", "tune.yaml")
_SAMPLER_SEED = 0


@dataclass(frozen=True)
class Search:
    """What the table ``[tune]`` of an experiment file says.

    Parameters
    ----------
    experiment : Experiment
        The rest of the file.
    space : mapping
        Configuration keys, dotted where nested, to a range (``low``, ``high``, and ``log`` or ``step``) or ``choices``.
    trials : int
        How many settings to try.
    seeds : tuple of int
        What each is tried on.
    target : float or None
        Search for the fewest rounds to this accuracy rather than for the highest accuracy after the last round.
    """

    experiment: Experiment
    space: Mapping[str, Mapping[str, Any]]
    trials: int = 30
    seeds: tuple[int, ...] = DEVELOPMENT_SEEDS
    target: float | None = None

    @property
    def direction(self) -> str:
        """What optuna makes of the objective."""
        return "maximize" if self.target is None else "minimize"


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Parameters
    ----------
    params : mapping
        Its values by key.
    values : tuple of float
        The objective on every seed: accuracy on the validation samples in [0, 1], or rounds to the target.
    failure : str
        Why it could not be run; empty if it was.
    """

    params: Mapping[str, Any]
    values: tuple[float, ...]
    failure: str = ""

    @property
    def value(self) -> float | None:
        """The mean over the seeds; ``None`` if it failed."""
        return statistics.fmean(self.values) if self.values else None


def read_search(path: Path) -> Search:
    """Read an experiment file with a table ``[tune]``.

    Besides the keys to search through it may hold ``trials``, ``target`` and, if not the development seeds 0 to 4,
    ``seeds``. The table ``[sweep]`` and ``seeds`` outside ``[tune]`` are for `matl.campaigns.sweep`.

    Raises
    ------
    ConfigError
        The file has problems; all are listed.
    """
    experiment = read_experiment(path)
    table, problems = dict(experiment.tune), []
    trials, target = table.pop("trials", 30), table.pop("target", None)
    seeds = table.pop("seeds", list(DEVELOPMENT_SEEDS))
    if type(trials) is not int or trials < 1:
        problems.append(f"tune.trials: expected a whole number >= 1, got {trials!r}")
    if target is not None and (not isinstance(target, float | int) or not 0 < target <= 1):
        problems.append(f"tune.target: expected an accuracy in (0, 1], got {target!r}")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        problems.append(f"tune.seeds: expected a list of whole numbers, got {seeds!r}")
    space = _space(table, problems)
    if target is not None and "rounds" in space:
        problems.append("tune.rounds: with a target the rounds are what is measured; search for something else")
    if not space and not problems:
        problems.append(
            'tune: expected keys to search through, e.g. "local.learning_rate" = { low = 0.01, high = 1.0 }'
        )
    if problems:
        raise ConfigError(str(path), problems)
    search = Search(experiment, space, trials, tuple(seeds), target)
    for end in (0, -1):  # a key that no configuration has, or a range that reaches where it may not
        _configure(search, {key: _ends(choice)[end] for key, choice in space.items()}, search.seeds[0])
    return search


def tune(
    search: Search,
    *,
    out: Path,
    resume: bool = False,
    notify: Callable[[int, Trial], None] = lambda number, trial: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Trial]:
    """Try settings one after the other, each proposed by a tree-structured Parzen estimator that knows those before it.

    Accuracy is measured on samples set aside from the training data: no seed trains or measures on its own test
    samples, nor on official ones; see `validation_source`. After every trial ``trials.json`` holds all so far, from
    which an interrupted search goes on to the same end.

    Parameters
    ----------
    search : Search
        What to search.
    out : Path
        The folder of the search.
    resume : bool
        Go on with the trials that were done. One that was interrupted is tried from its start.
    notify : callable
        Told of every trial when it is done, with its number.
    stop : callable
        Asked after every round; ``True`` ends the search in an orderly way.

    Raises
    ------
    RunInterrupted
        ``stop`` said so.
    MissingExtraError
        Optuna is not installed.

    References
    ----------
    Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011.
    """
    optuna = _optuna()
    if resume:
        trials = _read_trials(out)
    else:
        open_new(out)
        suffix = "yaml" if search.experiment.source.suffix in (".yaml", ".yml") else "toml"
        write_atomic(out / f"tune.{suffix}", search.experiment.source.read_bytes())
        trials = []
    space = {key: _distribution(optuna, choice) for key, choice in search.space.items()}
    study = optuna.create_study(direction=search.direction)
    try:
        for trial in trials:
            study.add_trial(_frozen(optuna, trial, space, search))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(
            f"the trials in {out / 'trials.json'} are not of this search: {error!r}; change {_FILES[0]} back, or start "
            "the search anew in another folder"
        ) from error
    source = as_source(load_config(None, search.experiment.values).dataset)
    while len(trials) < search.trials:
        # A sampler of its own for each trial: what it proposes does not depend on where the search was interrupted.
        study.sampler = optuna.samplers.TPESampler(seed=derive_seed(_SAMPLER_SEED, "tune", len(trials)) % 2**32)
        asked = study.ask(space)
        params = {key: _from_optuna(value, search.space[key]) for key, value in asked.params.items()}
        try:
            trial = _try(search, params, source, stop)
        except RunInterrupted as error:
            raise RunInterrupted(
                f"stopped with {len(trials)} of {search.trials} trials done", directory=str(out)
            ) from error
        trials.append(trial)
        study.tell(asked, trial.value, state=_state(optuna, trial))
        _write_trials(out, search, trials)
        notify(len(trials) - 1, trial)
    return trials


def resume_search(out: Path) -> Search:
    """The search in a folder where one was started before.

    Raises
    ------
    StateError
        There is none.
    """
    for name in _FILES:
        if (out / name).is_file():
            return read_search(out / name)
    refuse_other_kind(out, _FILES[0])
    raise StateError(f"{out} holds no search (no {' or '.join(_FILES)}); start one without --resume")


def best_of(search: Search, trials: Sequence[Trial]) -> tuple[Trial, str] | None:
    """The best trial, the first of equals, and its settings as TOML to put into a configuration; None if all failed."""
    done = [trial for trial in trials if trial.value is not None]
    if not done:
        return None
    sign = 1 if search.target is not None else -1
    best = min(done, key=lambda trial: sign * (trial.value or 0.0))
    config = _configure(search, best.params, search.seeds[0])
    wanted = {key.split(".")[0] for key in best.params}
    plain, _, local = to_toml(config).partition("\n[local]\n")
    lines = [line for line in plain.splitlines() if line.split(" = ")[0] in wanted]
    if "local" in wanted:
        given = {*search.experiment.values.get("local", {}), *best.params.get("local", {})}
        given |= {key.split(".")[1] for key in best.params if key.startswith("local.")}
        lines += ["", "[local]", *(line for line in local.splitlines() if line.split(" = ")[0] in given)]
    return best, "\n".join(lines).strip() + "\n"


def validation_source(source: Source, seed: int) -> Source:
    """A data set without its test samples.

    A run on it holds out a fifth of what is left, as it does of any data set without official test samples: the
    validation samples. The test samples are the official ones where there are any; otherwise they are the fifth that a
    run with this seed holds out, so that other seeds may train on some of them.

    Examples
    --------
    >>> from matl.learning.datasets import load_dataset
    >>> source = load_dataset("synthetic")
    >>> len(source.train), len(validation_source(source, seed=0).train)
    (4000, 3200)
    """
    if source.test is not None:
        return Source(source.train)
    rest, _ = hold_out(source.train, stream(seed, "partition"))
    return Source(rest)


def _try(search: Search, params: Mapping[str, Any], source: Source, stop: Callable[[], bool]) -> Trial:
    values = []
    try:
        for seed in search.seeds:
            config = _configure(search, params, seed)
            simulation = build_simulation(config, data=deal(validation_source(source, seed), config))
            history = execute(simulation, config, name=config.label, stop=stop).history
            values.append(_objective([row["accuracy"] for row in history], search.target))
    except (RunInterrupted, StorageError):
        raise
    except MatlError as error:
        return Trial(params, (), " ".join(str(error).split()))
    except PART_ERRORS as error:
        return Trial(params, (), " ".join(f"{type(error).__name__}: {error}".split()))
    return Trial(params, tuple(values))


def _objective(accuracy: Sequence[float], target: float | None) -> float:
    """The last accuracy, or the rounds to the target: one more than there were if it was not reached."""
    if target is None:
        return float(accuracy[-1])
    reached = (number for number, value in enumerate(accuracy, start=1) if value >= target)
    return float(next(reached, len(accuracy) + 1))


def _configure(search: Search, params: Mapping[str, Any], seed: int) -> RunConfig:
    values = json.loads(json.dumps({**search.experiment.values, "seed": seed}))
    for key in sorted(params, key=lambda key: key.count(".")):  # the part before its options
        put(values, key, params[key])
    return load_config(None, values, source=str(search.experiment.source))


def _space(table: Mapping[str, Any], problems: list[str]) -> dict[str, dict[str, Any]]:
    space = {}
    for key, choice in _dotted(table).items():
        first = key.split(".")[0]
        if first not in RunConfig.model_fields or first in ("seed", "dataset"):
            known = [
                "trials",
                "target",
                "seeds",
                *(key for key in RunConfig.model_fields if key not in ("seed", "dataset")),
            ]
            problems.append(f"tune.{key}: unknown key{nearest(first, known)}; keys: {', '.join(known)}")
        elif not _is_choice(choice):
            problems.append(
                f"tune.{key}: expected {{ low = ..., high = ... }} with low < high and, if wanted, log = true (for "
                f"low > 0) or step = ... > 0, or {{ choices = [...] }}, got {choice!r}"
            )
        space[key] = choice
    return space


def _dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The keys to search through, dotted; what says where to search is a value."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and not value.keys() & {"low", "high", "choices"}:
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_choice(choice: Any) -> bool:
    if not isinstance(choice, Mapping):
        return False
    if "choices" in choice:
        return choice.keys() == {"choices"} and isinstance(choice["choices"], list) and len(choice["choices"]) > 0
    numbers = [choice.get(key) for key in ("low", "high", "step") if key in choice]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers):
        return False
    if not choice.keys() >= {"low", "high"} or not choice.keys() <= {"low", "high", "log", "step"}:
        return False
    log, step = choice.get("log", False), choice.get("step", 1)
    fits = choice["low"] > 0 and "step" not in choice if log else step > 0
    return bool(choice["low"] < choice["high"] and isinstance(log, bool) and fits)


def _ends(choice: Mapping[str, Any]) -> list[Any]:
    return choice["choices"] if "choices" in choice else [choice["low"], choice["high"]]


def _distribution(optuna: Any, choice: Mapping[str, Any]) -> Any:
    kinds = optuna.distributions
    if "choices" in choice:  # by index: what is chosen from may be parts with options
        return kinds.CategoricalDistribution(tuple(range(len(choice["choices"]))))
    options = {key: choice[key] for key in ("log", "step") if key in choice}
    whole = all(isinstance(choice[key], int) for key in ("low", "high", "step") if key in choice)
    kind = kinds.IntDistribution if whole else kinds.FloatDistribution
    return kind(choice["low"], choice["high"], **options)


def _from_optuna(value: Any, choice: Mapping[str, Any]) -> Any:
    return choice["choices"][value] if "choices" in choice else value


def _frozen(optuna: Any, trial: Trial, space: Mapping[str, Any], search: Search) -> Any:
    """A trial as optuna knows it."""
    params = {
        key: search.space[key]["choices"].index(value) if "choices" in search.space[key] else value
        for key, value in trial.params.items()
    }
    state = _state(optuna, trial)
    return optuna.trial.create_trial(params=params, distributions=dict(space), value=trial.value, state=state)


def _state(optuna: Any, trial: Trial) -> Any:
    return optuna.trial.TrialState.FAIL if trial.value is None else optuna.trial.TrialState.COMPLETE


def _write_trials(out: Path, search: Search, trials: Sequence[Trial]) -> None:
    write_atomic(out / "trials.json", json.dumps([asdict(trial) for trial in trials], indent=2) + "\n")
    columns = ["trial", *search.space, "value", *(f"seed_{seed}" for seed in search.seeds), "failure"]
    rows = [
        {
            "trial": number,
            **trial.params,
            "value": trial.value,
            **{f"seed_{seed}": value for seed, value in zip(search.seeds, trial.values, strict=False)},
            "failure": trial.failure,
        }
        for number, trial in enumerate(trials)
    ]
    write_csv(out / "trials.csv", columns, rows)


def _read_trials(out: Path) -> list[Trial]:
    path = out / "trials.json"
    if not path.is_file():
        return []
    try:
        return [
            Trial(item["params"], tuple(item["values"]), item["failure"])
            for item in json.loads(path.read_text("utf-8"))
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path} cannot be read: {error!r}; start the search anew in another folder") from error


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("optuna", extra="tune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
