"""What clients of a masked run have spent: charged on the disk before a sum is unmasked, and told in a file beside it.

The ledger is no part of the database: it is a journal, which shows that it was cut off or rolled back, and the
database of a coordinator may be put back from a backup while what was released stays released.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from matl.errors import StateError
from matl.files import make_directory, write_atomic
from matl.privacy.accounting import certified_curve
from matl.privacy.ledger import PrivacyLedger
from matl.privacy.manifest import Manifest

__all__ = ["RunLedger"]


class RunLedger:
    """The `PrivacyLedger` of a run, ``<run>.ledger``; what `PrivacyLedger.export` says of it is in ``<run>.json``.

    Parameters
    ----------
    folder : Path
        Where the ledgers of a coordinator are.
    run : str
        Id of the run.
    manifest : Manifest
        What a release costs; its hash is the name of the mechanism.
    """

    def __init__(self, folder: Path, run: str, manifest: Manifest) -> None:
        self.path = folder / f"{run}.ledger"
        self._run, self._manifest = run, manifest

    def begin(self) -> None:
        """Make the ledger of a run that begins; one that an earlier start of it left is gone on with.

        Raises
        ------
        StateError
            A part of one is there, or one of another run or delta.
        StorageError
            It cannot be written.
        """
        make_directory(self.path.parent, private=True)
        if self.path.exists():
            self._open().close()
        else:
            PrivacyLedger.create(self.path, self._run, delta=self._manifest.instance.delta).close()

    def resume(self) -> None:
        """Look at the ledger of a run that goes on.

        Raises
        ------
        StateError
            It was lost, cut off or changed, or another process uses it.
        StorageError
            It cannot be read or written.
        """
        if not self.path.exists():
            raise StateError(
                f"the privacy ledger {self.path} is lost, and with it what clients of run {self._run!r} have spent: "
                "put it back from a backup, or begin another run under another name"
            )
        with self._open() as ledger:
            self._tell(ledger)

    def charge(self, number: int, clients: Collection[str], release: str) -> None:
        """Charge a sum to the clients in it; it may be unmasked once this has returned.

        Parameters
        ----------
        number : int
            The round.
        clients : collection of str
            Whose vectors are in the sum.
        release : str
            Stands for the sum: the same one again, as after a crash, is charged once.

        Raises
        ------
        StateError
            As for `resume`.
        StorageError
            It cannot be written, and nothing may be released; it may be tried again.
        """
        name = self._manifest.sha256
        with self._open() as ledger:
            ledger.declare(name, certified_curve(self._manifest.instance), manifest=name)
            ledger.charge(number, name, sorted(clients), release=release)
            self._tell(ledger)

    def _open(self) -> PrivacyLedger:
        ledger = PrivacyLedger.open(self.path)
        wanted = (self._run, self._manifest.instance.delta)
        if (found := (ledger.run, ledger.delta)) != wanted:
            ledger.close()
            raise StateError(
                f"{self.path} is the privacy ledger of run {found[0]!r} at delta {float(found[1]):g}, expected "
                f"{wanted[0]!r} at {float(wanted[1]):g}: begin this run under another name"
            )
        return ledger

    def _tell(self, ledger: PrivacyLedger) -> None:
        content = json.dumps(ledger.export(), indent=2, allow_nan=False) + "\n"
        write_atomic(self.path.with_suffix(".json"), content)
