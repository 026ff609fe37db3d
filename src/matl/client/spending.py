"""What a client has sent under privacy manifests: counted and charged in its folder before it is sent."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

from matl.client.folder import ClientFolder
from matl.errors import InvalidValueError, StateError
from matl.journal import BUDGET, Head, read_journal
from matl.privacy.accounting import RdpCurve, certified_curve, releases_left
from matl.privacy.counter import TransmissionCounter
from matl.privacy.ledger import PrivacyLedger
from matl.privacy.manifest import Manifest

__all__ = ["DELTA", "LEDGER", "Spending"]

DELTA = Fraction(1, 100_000)
"""Of the client's own epsilon. It is no coordinator's to choose: at a delta near 1 any epsilon looks small."""
LEDGER = "privacy.ledger"
"""The file of a client's folder with what it has spent under all manifests."""


class Spending:
    """The journals of one client: a transmission counter for each manifest, and one privacy ledger over all of them.

    The folder remembers the head of each, so that one that was lost, cut off or rolled back is refused and not begun
    anew, though its head went with it. It may be used in several threads.

    Parameters
    ----------
    folder : ClientFolder
        Of the client.
    max_epsilon : float or None
        Zero-out epsilon at `DELTA` that all manifests together may cost; no limit unless given.
    """

    def __init__(self, folder: ClientFolder, max_epsilon: float | None) -> None:
        self._folder, self._most = folder, max_epsilon
        self._counters: dict[str, TransmissionCounter] = {}  # by manifest
        self._opened: PrivacyLedger | None = None
        self._lock, self._closed = threading.Lock(), False

    def close(self) -> None:
        """Let go of the files, for good, once a call that goes on in another thread is done. Twice does no harm."""
        with self._lock:
            self._closed = True
            self._drop()

    def require(self, manifest: Manifest, *, new: bool) -> None:
        """Refuse a manifest under which nothing more may be sent; a new one, if not all of it may be.

        Raises
        ------
        InvalidValueError
            A new manifest allows more than is left of ``max_epsilon``; nothing was written of it.
        StateError
            Its transmissions are used up, or another would pass ``max_epsilon``; or a journal was lost or changed; or
            this was closed.
        """
        with self._held():
            self._check(manifest, new=new)
            self._begun(manifest)

    def charge(self, round: int, manifest: Manifest, message: bytes) -> None:  # noqa: A002 - the protocol's word
        """Write down a finished message; it may be sent once this has returned. The same bytes again cost nothing.

        The ledger goes first, so that what is counted was charged. A crash in between costs a release that was not
        sent, which is the safe side.

        Raises
        ------
        StateError
            As `require`. Nothing may be sent.
        StorageError
            It cannot be written, and nothing may be sent.
        """
        with self._held():
            ledger, counter = self._ledger(), self._found(manifest)
            if counter is not None and counter.repeats(message):
                return
            self._check(manifest, new=False)
            counter = self._begun(manifest)
            if manifest.sha256 not in ledger.mechanisms:
                ledger.declare(manifest.sha256, certified_curve(manifest.instance))
            release = f"{manifest.sha256} {hashlib.sha256(message).hexdigest()}"
            ledger.charge(round, manifest.sha256, [self._folder.client_id], release=release)
            counter.reserve(message)
            self._remember()

    @contextmanager
    def _held(self) -> Iterator[None]:
        """One call at a time. After one that failed the journals are read anew: some may have closed themselves."""
        with self._lock:
            if self._closed:
                raise StateError("this client was closed, and nothing more is counted or sent; begin with a new one")
            try:
                yield
            except BaseException:
                self._drop()
                raise

    def _drop(self) -> None:
        """Let go of the files; who needs them opens them anew."""
        while self._counters:
            self._counters.popitem()[1].close()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _check(self, manifest: Manifest, *, new: bool) -> None:
        """As `require`; without a count nothing was sent under the manifest, and none is begun."""
        ledger, counter, limit = self._ledger(), self._found(manifest), manifest.instance.transmissions
        unsent = limit if counter is None else counter.left
        if unsent <= 0:
            raise StateError(
                f"{self._folder.client_id} has used all {limit} transmissions of manifest {manifest.sha256}, "
                "and another would void its epsilon; leave the run, or agree to another manifest"
            )
        if self._most is None:
            return
        release, spent = certified_curve(manifest.instance), ledger.spent(self._folder.client_id)
        left = releases_left(release, Fraction(self._most), DELTA, spent)
        if new and left < unsent:
            raise InvalidValueError(
                f"the {unsent} rounds of privacy manifest {manifest.sha256} "
                f"{_told(release.times(unsent), spent)}, expected at most max_epsilon={self._most:g}; nothing "
                "was agreed to: ask the operator for a run with a smaller epsilon, or allow more with "
                "MATLClient(..., max_epsilon=...)"
            )
        if left <= 0:
            raise StateError(
                f"another round under manifest {manifest.sha256} {_told(release, spent)}, beyond "
                f"max_epsilon={self._most:g}; nothing is sent: leave the run, or allow more with "
                "MATLClient(..., max_epsilon=...)"
            )

    def _remember(self) -> None:
        heads = {_name(sha256): counter.head for sha256, counter in self._counters.items()}
        self._folder.remember(heads if self._opened is None else {**heads, LEDGER: self._opened.head})

    def _found(self, manifest: Manifest) -> TransmissionCounter | None:
        """The count of what was sent under a manifest, if it was begun; remembered."""
        if manifest.sha256 not in self._counters:
            name = _name(manifest.sha256)
            path, known = self._folder.path / name, self._known(name)
            if known is None and not path.exists():
                return None
            self._counters[manifest.sha256] = TransmissionCounter.open(path, manifest, known)
            self._remember()
        return self._counters[manifest.sha256]

    def _begun(self, manifest: Manifest) -> TransmissionCounter:
        """The count of what was sent under a manifest, begun if there is none."""
        counter = self._found(manifest)
        if counter is None:
            path = self._folder.path / _name(manifest.sha256)
            counter = TransmissionCounter.create(path, self._folder.client_id, manifest)
            self._counters[manifest.sha256] = counter
            self._remember()
        return counter

    def _ledger(self) -> PrivacyLedger:
        """What was spent under all manifests; remembered."""
        if self._opened is None:
            path, known = self._folder.path / LEDGER, self._known(LEDGER)
            if known is not None or path.exists():
                self._opened = PrivacyLedger.open(path, known)
            else:
                self._check_unsent()
                self._opened = PrivacyLedger.create(path, self._folder.client_id, delta=DELTA)
            self._remember()
        return self._opened

    def _check_unsent(self) -> None:
        """Refuse to begin a ledger where something was sent: it would say that nothing was spent."""
        for name in sorted({path.name.removesuffix(".head") for path in self._folder.path.glob(_name("*"))}):
            path = self._folder.path / name
            sent = len(read_journal(path, self._folder.witness(name))[0]) - 1
            if sent > 0:
                raise StateError(
                    f"{self._folder.path / LEDGER} is lost: {path} counts {sent} transmissions, which were charged "
                    "there. Without it nobody knows what this client has spent, and nothing is sent; "
                    f"{BUDGET}, with a new client folder"
                )

    def _known(self, name: str) -> Head | None:
        """What the folder remembers of a journal, which has to be there if it does."""
        known, path = self._folder.witness(name), self._folder.path / name
        if known is not None and not path.exists():
            raise StateError(
                f"{path} is lost: {self._folder.path / 'client.json'} remembers {known.records} records of it. Without "
                f"it nobody knows what this client has spent, and nothing is sent; {BUDGET}, with a new client folder"
            )
        return known


def _name(sha256: str) -> str:
    """Of the file with the count of a manifest."""
    return f"sent-{sha256}"


def _told(more: RdpCurve, spent: RdpCurve | None) -> str:
    """What releases cost, beside what was spent before."""
    total = (more if spent is None else spent + more).guarantee(DELTA).epsilon
    before = 0.0 if spent is None else spent.guarantee(DELTA).epsilon
    return f"would bring this client from epsilon {before:.4g} to {total:.4g} (zero-out, delta {float(DELTA):g})"
