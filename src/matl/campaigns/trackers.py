"""Trackers: event sinks that write the rounds of runs where TensorBoard or MLflow reads them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from matl.campaigns.compare import SinkFor, rule_config
from matl.campaigns.experiment import flat_settings, in_words
from matl.errors import MissingExtraError, StorageError, UnknownNameError
from matl.events import Event, EventSink, fan_out
from matl.files import storage_error
from matl.simulation.config import RunConfig

__all__ = ["TRACKERS", "mlflow", "open_stores", "require_trackers", "tensorboard", "track"]

_FIGURES = (
    *("accuracy", "true_positive_rate", "false_positive_rate", "aggregate_norm"),
    *("accepted", "clipped", "suspected", "quarantined", "rejected", "seconds"),
)
"""What is logged of a round; see `matl.simulation.scoring.RoundRecord`."""


@contextmanager
def tensorboard(store: Path, config: RunConfig, *, name: str) -> Iterator[SinkFor]:
    """Write scalars per round for TensorBoard into ``store/tensorboard/NAME/RULE``.

    Parameters
    ----------
    store : Path
        Folder of the run, comparison or sweep.
    config : RunConfig
        What is run; not used.
    name : str
        What to call it beside others in the same store; empty if it is alone.

    Yields
    ------
    callable
        Gives each rule its event sink.

    Raises
    ------
    MissingExtraError
        TensorBoardX is not installed.
    """
    writer_class = _tensorboardx()
    with ExitStack() as stack:

        def sink_for(rule: str) -> EventSink:
            folder = store / "tensorboard" / name / rule
            try:
                # Files are named by the second; one that goes on with a run must not be that of its beginning.
                earlier = len(list(folder.glob("events.*")))
                writer = writer_class(str(folder), filename_suffix=f".{earlier}")
            except OSError as error:
                raise storage_error(folder, error) from error
            stack.callback(writer.close)

            def sink(event: Event) -> None:
                for key, value in _figures(event).items():
                    writer.add_scalar(key, value, event.round)

            return sink

        yield sink_for


@contextmanager
def mlflow(store: Path, config: RunConfig, *, name: str) -> Iterator[SinkFor]:
    """Log the configuration and the figures of every round as runs of MLflow.

    They go to the server or store that ``MLFLOW_TRACKING_URI`` names, and otherwise to ``store/mlflow.db``. A run that
    is resumed goes on in the MLflow run it began. MLflow's own telemetry is off unless ``MLFLOW_DISABLE_TELEMETRY``
    says otherwise.

    Parameters and errors are those of `tensorboard`; besides, `StorageError` if the store cannot be reached.
    """
    _mlflow()
    begun: list[_MlflowRun] = []

    def sink_for(rule: str) -> EventSink:
        run: list[_MlflowRun] = []  # at most one, which the first round begins

        def sink(event: Event) -> None:
            figures = _figures(event)
            if figures and not run:
                own = config if rule == config.label else rule_config(config, rule)
                run.append(_MlflowRun(store, event.run, own, "/".join(filter(None, (name, rule)))))
                begun.append(run[0])
            if figures:
                run[0].log(figures, event.round)

        return sink

    status = "KILLED"
    try:
        yield sink_for
        status = "FINISHED"
    finally:
        for run in begun:
            run.end(status)


Tracker = Callable[..., AbstractContextManager[SinkFor]]

TRACKERS: dict[str, Tracker] = {"tensorboard": tensorboard, "mlflow": mlflow}
"""Trackers by the name that ``--log`` takes."""


@contextmanager
def track(trackers: Sequence[str], store: Path, config: RunConfig, *, name: str = "") -> Iterator[SinkFor]:
    """All the named trackers as one; see `tensorboard` for the parameters.

    Raises
    ------
    UnknownNameError, MissingExtraError
        As `require_trackers`.
    """
    require_trackers(trackers)
    with ExitStack() as stack:
        opened = [stack.enter_context(TRACKERS[item](store, config, name=name)) for item in dict.fromkeys(trackers)]
        yield lambda rule: fan_out(*(sink_for(rule) for sink_for in opened))


def require_trackers(trackers: Sequence[str]) -> None:
    """Check that there are such trackers, and what they write with.

    Raises
    ------
    UnknownNameError
        There is no such tracker.
    MissingExtraError
        What it writes with is not installed.
    """
    for name in trackers:
        if name not in TRACKERS:
            raise UnknownNameError("tracker", name, list(TRACKERS))
    for name, library in (("tensorboard", _tensorboardx), ("mlflow", _mlflow)):
        if name in trackers:
            library()


def open_stores(trackers: Sequence[str], store: Path) -> None:
    """Create what several processes will write to, before any of them does.

    Raises
    ------
    StorageError
        It cannot be reached.
    """
    if "mlflow" in trackers:
        _client(store)


def _figures(event: Event) -> dict[str, float]:
    """What to log of an event, by name: figures of a round that are defined, or how long private encoding takes."""
    if event.kind == "latency":
        so_far, span = event.data["so_far"], event.data["span"]
        clocks = ("wall_ns", "cpu_ns")
        return {f"latency/{span}/{clock}/{name}": value for clock in clocks for name, value in so_far[clock].items()}
    if event.kind != "round_committed":
        return {}
    return {key: float(event.data[key]) for key in _FIGURES if event.data.get(key) is not None}


def _tensorboardx() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboardX", extra="tensorboard") from error
    return SummaryWriter


_EXPERIMENT = "matl"


class _MlflowRun:
    """A run in MLflow: the one that was begun before an interruption, or a new one."""

    def __init__(self, store: Path, run: str, config: RunConfig, name: str) -> None:
        self._store = store
        self._client = _client(store)
        with _reaching(store):
            experiment = self._client.get_experiment_by_name(_EXPERIMENT).experiment_id
            mine = f"tags.matl_run = '{run}' and tags.matl_name = '{name}'"
            found = self._client.search_runs([experiment], filter_string=mine)
            if found:
                self._id = found[0].info.run_id
                self._client.update_run(self._id, status="RUNNING")
                return
            tags = {"mlflow.runName": name, "matl_run": run, "matl_name": name}
            self._id = self._client.create_run(experiment, tags=tags).info.run_id
            for key, value in flat_settings(config.model_dump(exclude_none=True)).items():
                self._client.log_param(self._id, key, in_words(value))

    def log(self, figures: dict[str, float], number: int) -> None:
        with _reaching(self._store):
            for key, value in figures.items():
                self._client.log_metric(self._id, key, value, step=number)

    def end(self, status: str) -> None:
        with _reaching(self._store):
            self._client.set_terminated(self._id, status=status)


def _client(store: Path) -> Any:
    """A client of the store, in which the experiment exists."""
    with _reaching(store):
        client = _mlflow().MlflowClient(tracking_uri=_uri(store))
        if client.get_experiment_by_name(_EXPERIMENT) is None:
            client.create_experiment(_EXPERIMENT)
    return client


def _mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is sent anywhere that the user did not name
    try:
        import mlflow
    except ImportError as error:
        raise MissingExtraError("mlflow-skinny", extra="mlflow") from error
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return mlflow


def _uri(store: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.resolve() / 'mlflow.db'}"


@contextmanager
def _reaching(store: Path) -> Iterator[None]:
    """Say of MLflow's errors which store they are about."""
    try:
        yield
    except _mlflow().exceptions.MlflowException as error:
        raise StorageError(f"cannot log to MLflow at {_uri(store)}: {str(error).splitlines()[0]}") from error
