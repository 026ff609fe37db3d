"""The privacy ledger: what was released about whom, on the disk before it is released, and what it comes to."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from matl import validate
from matl.errors import InvalidValueError, StateError, UnknownNameError
from matl.journal import Head, Journal
from matl.privacy.accounting import Adjacency, Guarantee, RdpCurve, releases_left

__all__ = ["PrivacyLedger"]

_KIND = "matl privacy ledger"

_Counts: TypeAlias = tuple[tuple[str, int], ...]  # releases of each mechanism


class PrivacyLedger:
    """Adds up what every client of a run has spent. A client keeps one of its own, over all runs, with the same class.

    Use `create` once and `open` to go on. `declare` names a mechanism with what one release costs; `charge` has to
    return before anything is released.

    Attributes
    ----------
    run : str
        The run, or the client.
    delta : Fraction
        The delta of all figures.
    budget : Fraction or None
        Zero-out epsilon that no client may exceed.
    mechanisms : dict of str to RdpCurve
        What one release of each costs.

    Notes
    -----
    Formal guarantee: a client's total is an upper bound of its (epsilon, delta) if everything that depends on its data
    was charged, each release being a mechanism whose curve was declared. Releases may depend on all that was released
    before (Lemma 5). What a ledger can tell of its own loss is said in `matl.journal`.

    Examples
    --------
    >>> import tempfile
    >>> from matl.privacy.accounting import gaussian_curve
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "run.ledger"
    >>> with PrivacyLedger.create(path, "demo", delta=Fraction(1, 100_000), budget=Fraction(8)) as ledger:
    ...     ledger.declare("noise", gaussian_curve(Fraction(7, 2)))
    ...     for number in range(12):
    ...         ledger.charge(number, "noise", ["alice", "bob"] if number < 10 else ["alice"])
    ...     ledger.left("alice", "noise"), ledger.left("bob", "noise")
    ...     round(ledger.guarantee("alice").epsilon, 3)
    (18, 20)
    4.673
    >>> folder.cleanup()
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        try:
            first = journal.records[0]
            if first["kind"] != _KIND:
                raise ValueError(f"it is a {first['kind']}")
            self.run, self.delta = str(first["run"]), Fraction(first["delta"])
            self.budget = None if first["budget"] is None else Fraction(first["budget"])
            self.mechanisms: dict[str, RdpCurve] = {}
            self._declared: dict[str, Mapping[str, Any]] = {}
            self._spent: dict[str, Counter[str]] = {}
            self._released: set[str] = set()
            for record in journal.records[1:]:
                self._apply(record)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            journal.close()
            raise StateError(f"{journal.path} is no privacy ledger that can be read: {error!r}") from error

    @classmethod
    def create(cls, path: Path, run: str, *, delta: Fraction, budget: Fraction | None = None) -> PrivacyLedger:
        """Begin a ledger.

        Raises
        ------
        InvalidValueError
            The delta is not in (0, 1), or the budget not above 0.
        StateError
            There is one, or what is left of one.
        StorageError
            It cannot be written.
        """
        if not 0 < delta < 1 or (budget is not None and not budget > 0):
            raise InvalidValueError(f"expected 0 < delta < 1 and a budget > 0, got delta={delta} and budget={budget}")
        limit = None if budget is None else str(Fraction(budget))
        first = {"kind": _KIND, "run": run, "delta": str(Fraction(delta)), "budget": limit}
        return cls(Journal.create(path, first))

    @classmethod
    def open(cls, path: Path, witness: Head | None = None) -> PrivacyLedger:
        """Go on with a ledger.

        Raises
        ------
        StateError
            It was lost, cut off, rolled back or changed, as far as that can be seen, or another process uses it.
        """
        return cls(Journal.open(path, witness))

    def declare(self, name: str, release: RdpCurve, **what: str | int) -> None:
        """Name a mechanism and what one release of it costs; the same declaration again changes nothing.

        Parameters
        ----------
        name : str
            Under which releases are charged.
        release : RdpCurve
            Zero-out, of one release.
        **what
            What the curve was computed from, such as the hash of a manifest, for whoever reads the ledger.

        Raises
        ------
        InvalidValueError
            The name stands for something else, or the curve is not zero-out.
        StorageError
            It cannot be written.
        """
        if release.adjacency is not Adjacency.ZERO_OUT:
            raise InvalidValueError(f"expected a curve of {Adjacency.ZERO_OUT}, got one of {release.adjacency}")
        record = {"declare": name, "curve": release.as_dict(), "what": what}
        if self._declared.get(name) == record:
            return
        if name in self._declared:
            raise InvalidValueError(f"{name!r} is declared with another cost; choose another name")
        self._write(record)

    def charge(self, round: int, mechanism: str, clients: Iterable[str], *, release: str = "") -> None:  # noqa: A002
        """Charge a release to clients; nothing may be released before this returns.

        A release is charged whenever this is called: one that is repeated with fresh noise is another one.

        Parameters
        ----------
        round : int
            The round.
        mechanism : str
            What is released, as it was declared.
        clients : iterable of str
            Who is charged.
        release : str
            Stands for the very release, such as a hash of all that is summed: the same one again, with the noise that
            it had, as after a crash, is charged once. Without it every call is another release.

        Raises
        ------
        UnknownNameError
            The mechanism was not declared.
        InvalidValueError
            The round is negative, or a client is named twice.
        StateError
            It would exceed somebody's budget; nobody was charged, and nothing may be released.
        StorageError
            It cannot be written, and nothing may be released.
        """
        validate.whole(0, round=round)
        names = list(clients)
        if len(set(names)) != len(names):
            raise InvalidValueError(f"expected every client once, got {len(names)} names of {len(set(names))} clients")
        self._curve(mechanism)
        if release and release in self._released:
            return
        if self.budget is not None:
            self._check_budget(mechanism, names)
        named = {"release": release} if release else {}
        self._write({"charge": mechanism, "round": round, "clients": names, **named})

    def spent(self, client: str) -> RdpCurve | None:
        """What a client has spent; None if nothing."""
        return self._total(self._counts(client))

    def releases(self, client: str, mechanism: str) -> int:
        """How many releases of a mechanism were charged to a client."""
        return self._spent.get(client, Counter())[mechanism]

    def guarantee(self, client: str, adjacency: Adjacency = Adjacency.ZERO_OUT) -> Guarantee | None:
        """The (epsilon, delta) of a client so far; None if nothing was released of it."""
        curve = self.spent(client)
        if curve is None:
            return None
        return (curve if adjacency is Adjacency.ZERO_OUT else curve.replaced()).guarantee(self.delta)

    def left(self, client: str, mechanism: str) -> int:
        """How many more releases of a mechanism keep a client within the budget, zero-out.

        Raises
        ------
        InvalidValueError
            The ledger has no budget.
        UnknownNameError
            The mechanism was not declared.
        """
        if self.budget is None:
            raise InvalidValueError("expected a ledger with a budget, got one without; see releases_left")
        return releases_left(self._curve(mechanism), self.budget, self.delta, self.spent(client))

    @property
    def last_round(self) -> int | None:
        """The latest round that was charged; None before the first."""
        return max((record["round"] for record in self._journal.records if "charge" in record), default=None)

    @property
    def head(self) -> Head:
        """What a witness should remember."""
        return self._journal.head

    def export(self) -> dict[str, Any]:
        """All of it as plain data for JSON: mechanisms, and of every client its releases and both epsilons."""
        figures: dict[_Counts, dict[str, float]] = {}  # most clients have spent the same
        clients = {}
        for client in sorted(self._spent):
            key = self._counts(client)
            if key not in figures:
                found = {adjacency: self.guarantee(client, adjacency) for adjacency in Adjacency}
                figures[key] = {adjacency.value: each.epsilon for adjacency, each in found.items() if each}
            clients[client] = {"releases": dict(key), **figures[key]}
        return {
            "kind": _KIND,
            "run": self.run,
            "delta": str(self.delta),
            "budget": None if self.budget is None else str(self.budget),
            "head": self.head._asdict(),
            "mechanisms": {name: record["what"] for name, record in self._declared.items()},
            "clients": clients,
            "largest": {
                adjacency.value: max((row[adjacency.value] for row in figures.values()), default=0.0)
                for adjacency in Adjacency
            },
        }

    def close(self) -> None:
        """Give the file back."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_budget(self, mechanism: str, clients: Sequence[str]) -> None:
        enough: dict[_Counts, bool] = {}  # most clients have spent the same
        over = []
        for client in clients:
            key = self._counts(client)
            if key not in enough:
                enough[key] = self.left(client, mechanism) > 0
            if not enough[key]:
                over.append(client)
        if over:
            raise StateError(
                f"another release of {mechanism!r} would take {len(over)} clients, {over[0]!r} among them, beyond the "
                f"budget of epsilon {self.budget}; leave them out, or end the run"
            )

    def _counts(self, client: str) -> _Counts:
        return tuple(sorted(self._spent.get(client, {}).items()))

    def _write(self, record: dict[str, Any]) -> None:
        self._journal.append(record)
        self._apply(self._journal.records[-1])

    def _apply(self, record: Mapping[str, Any]) -> None:
        if "declare" in record:
            self._declared[record["declare"]] = record
            self.mechanisms[record["declare"]] = RdpCurve.of_dict(record["curve"])
        elif "charge" in record:
            self._curve(record["charge"])
            for client in record["clients"]:
                self._spent.setdefault(client, Counter())[record["charge"]] += 1
            self._released.add(record.get("release", ""))
        elif "torn" not in record:  # what was torn had not been acknowledged, so nothing was released
            raise ValueError(f"a record of {sorted(record)}")

    def _curve(self, mechanism: str) -> RdpCurve:
        try:
            return self.mechanisms[mechanism]
        except KeyError:
            raise UnknownNameError("mechanism", mechanism, self.mechanisms) from None

    def _total(self, counts: _Counts) -> RdpCurve | None:
        parts = [self.mechanisms[name].times(count) for name, count in counts]
        return functools.reduce(operator.add, parts) if parts else None
