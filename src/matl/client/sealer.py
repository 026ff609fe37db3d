"""What a client needs of whoever seals its updates in Mode 2; `matl.client.sealed.OracleWatch` is one."""

from __future__ import annotations

from typing import Protocol

from matl.attest.keys import PublicKey
from matl.protocol.messages import RunView

__all__ = ["Sealer"]


class Sealer(Protocol):
    """Encrypts payloads for the oracle of a run, after it has made sure what that is."""

    async def __call__(self, *, run: RunView, number: int, client_id: str, payload: bytes) -> bytes:
        """The box that the run's oracle alone can open.

        Parameters
        ----------
        run : RunView
            Its ``oracle`` says where the oracle is.
        number : int
            The round.
        client_id : str
            Who sends it.
        payload : bytes
            The encoded update.

        Raises
        ------
        AttestationError
            The oracle does not prove to be what this client trusts; nothing has left.
        ServiceError
            It cannot be reached.
        """
        ...

    @property
    def signers(self) -> tuple[PublicKey, ...]:
        """Keys that the oracle proved to have, whose receipts are believed."""
        ...

    async def aclose(self) -> None:
        """Close the connection. A second time does nothing."""
        ...
