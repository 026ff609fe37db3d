"""Which run a client takes part in, and whether that is judged as the client insists."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from matl.errors import InvalidValueError
from matl.protocol.messages import RunView

__all__ = ["choose", "insist"]

_OVER = {"stopped", "finished"}
_LOG = logging.getLogger("matl.client")


def choose(runs: Sequence[RunView], name: str | None) -> RunView:
    """The run of that name; without one, the only run that is not over, or the only run there is.

    Where it is one of several and none was named, the log ``matl.client`` says which it is.

    Raises
    ------
    InvalidValueError
        There is none, or several and none was named.
    """
    listed = ", ".join(f"{run.id} ({run.status}, {run.mode}, round {run.round})" for run in runs)
    if name is not None:
        for run in runs:
            if run.id == name:
                return run
        raise InvalidValueError(f"the coordinator has no run {name!r}; it has: {listed or 'none'}")
    going = [run for run in runs if run.status not in _OVER] or list(runs)
    if len(going) == 1:
        if len(runs) > 1:
            _LOG.warning("taking part in run %r; say so with run=%r. There are: %s", going[0].id, going[0].id, listed)
        return going[0]
    if not going:
        raise InvalidValueError("the coordinator has no run yet; its operator starts one")
    raise InvalidValueError(
        f"the coordinator has several runs, say which: MATLClient(..., run=...); there are: {listed}"
    )


def insist(run: RunView, mode: object) -> None:
    """Refuse a run that is judged in another way than the client wants.

    Parameters
    ----------
    run : RunView
        The run.
    mode : str, class, object or None
        What the client insists on: a mode's name, its class or one of its instances; ``"mode2"`` for a run that is
        judged in an attested oracle. ``None`` takes any.

    Raises
    ------
    InvalidValueError
        It is judged in another way.

    Examples
    --------
    >>> run = RunView.model_construct(id="demo", mode="mode1", oracle=None)
    >>> insist(run, "mode1")
    >>> insist(run, "mode2")
    Traceback (most recent call last):
        ...
    matl.errors.InvalidValueError: run 'demo' is judged by mode1, this client insists on mode2
    """
    if mode is None:
        return
    wanted = (mode if isinstance(mode, str) else getattr(mode, "__name__", type(mode).__name__)).lower()
    names = {run.mode.lower()} | ({"mode2"} if run.oracle is not None else set())
    if wanted not in names:
        judged = " in ".join(sorted(names, reverse=False))
        raise InvalidValueError(f"run {run.id!r} is judged by {judged}, this client insists on {wanted}")
