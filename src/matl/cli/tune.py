"""``matl tune``: search for settings on the development seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from matl.campaigns.experiment import in_words
from matl.campaigns.tune import Search, Trial, best_of, read_search, resume_search, tune
from matl.cli import console, options
from matl.cli.console import percent, print_json, show, stop_on_interrupt
from matl.errors import InvalidValueError, StateError
from matl.simulation.result import SCHEMA_VERSION

__all__ = ["tune_settings"]


def tune_settings(
    experiment: Annotated[
        Path | None,
        typer.Argument(help="Experiment file with a table \\[tune], TOML or YAML.", show_default=False, metavar="FILE"),
    ] = None,
    out: options.Out = None,
    resume: options.Resume = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Search for the settings of an experiment file that train best, and print them as TOML.

    What is tried is measured on samples set aside from the training data, on the development seeds 0 to 4 unless the
    file names others; test samples are not looked at.
    """
    if resume is not None:
        options.refuse(options.RESUMED, config=experiment, out=out)
        search = resume_search(resume)
    elif experiment is None:
        raise InvalidValueError("expected an experiment file, or --resume with the folder of a search, got neither")
    else:
        search = read_search(experiment)

    def notify(number: int, trial: Trial) -> None:
        if not (quiet or as_json):
            settings = ", ".join(f"{key}={in_words(value)}" for key, value in trial.params.items())
            told = f"failed: {trial.failure}" if trial.failure else _value(search, trial)
            console.stderr.print(
                f"trial {number + 1:>3}/{search.trials}  {told}  {settings}", markup=False, soft_wrap=True
            )

    with (
        options.folder(resume or out, f"tune-{search.experiment.name}") as target,
        stop_on_interrupt() as stop,
    ):
        trials = tune(search, out=target, resume=resume is not None, notify=notify, stop=stop)
    best = best_of(search, trials)
    if best is None:
        raise StateError(f"none of the {len(trials)} trials could be run; the last failed with: {trials[-1].failure}")
    if as_json:
        print_json(_as_dict(search, trials, *best))
        return
    seeds = ", ".join(map(str, search.seeds))
    show(f"best of {len(trials)} trials: {_value(search, best[0])}, mean over seeds {seeds}\n", markup=False)
    show(best[1], markup=False, end="")
    show(f"\ntrials: {target / 'trials.csv'}", markup=False)


def _value(search: Search, trial: Trial) -> str:
    if trial.value is None:
        return "-"
    if search.target is None:
        return f"validation accuracy {percent(trial.value)}"
    return f"{trial.value:.1f} rounds to {percent(search.target, 0)}"


def _as_dict(search: Search, trials: list[Trial], best: Trial, toml: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "search",
        "simulation": True,
        "experiment": search.experiment.name,
        "objective": "accuracy" if search.target is None else f"rounds to {search.target}",
        "seeds": list(search.seeds),
        "trials": len(trials),
        "failed": sum(bool(trial.failure) for trial in trials),
        "best": {"value": best.value, "values": list(best.values), "settings": dict(best.params), "toml": toml},
    }
