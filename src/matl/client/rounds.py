"""A round as a client sees it, and the model that it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from matl.client.arrays import difference
from matl.client.connection import Connection
from matl.client.retrying import passing
from matl.errors import ProtocolError, ServiceError
from matl.files import storage_error
from matl.params import Float32, ParamLayout, values_hash
from matl.protocol.messages import RoundView
from matl.protocol.problems import Code, refusal
from matl.records import RoundSpec
from matl.screening import largest_payload

__all__ = ["Round", "fetch_model", "read_model"]


@dataclass(frozen=True, repr=False)
class Round:
    """A round to take part in.

    Parameters
    ----------
    view : RoundView
        What the coordinator says about it.
    spec : RoundSpec
        What it asks of its clients.
    layout : ParamLayout
        The model's arrays.
    vector : float32 array of shape (d,)
        The model to start from, w_t; its hash was checked.
    carried : mapping of str to array
        Arrays of the model that are beside the vector.
    """

    view: RoundView
    spec: RoundSpec
    layout: ParamLayout
    vector: Float32
    carried: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        recipe = ", ".join(f"{name}={value!r}" for name, value in self.recipe.items())
        return f"Round(run={self.run!r}, number={self.number}, parameters={self.vector.size}, recipe=({recipe}))"

    @property
    def run(self) -> str:
        """Identifier of the run."""
        return self.spec.run

    @property
    def number(self) -> int:
        """Index of the round, from 0."""
        return self.spec.round

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What clients are asked to do locally, such as ``learning_rate``, ``batch_size`` and ``steps``."""
        return self.spec.recipe

    @property
    def params(self) -> dict[str, NDArray[Any]]:
        """The model to start from, as named arrays; a new copy every time, which may be changed in place."""
        return self.layout.unflatten(self.vector.copy(), carried=self.carried)

    def delta(self, params: Any) -> dict[str, NDArray[Any]]:
        """New parameters minus those the round began with: what `MATLClient.submit_gradient` takes.

        Parameters
        ----------
        params : mapping, sequence, array or model
            In any form that `matl.client.arrays.fit` takes.

        Raises
        ------
        LayoutError, InvalidValueError
            They do not fit the model, or are not finite. In masked rounds what is not finite goes through: zeros are
            sent in its place, as nobody is to learn of it.
        """
        finite = self.spec.kind != "masked"
        return difference(self.layout, params, self.layout.unflatten(self.vector), finite=finite)


async def fetch_model(connection: Connection, model_hash: str, layout: ParamLayout, folder: Path) -> Path:
    """The file of a model, downloaded unless it is there; a download that broke off goes on where it was.

    Parameters
    ----------
    connection : Connection
        To the coordinator.
    model_hash : str
        Which model.
    layout : ParamLayout
        Its arrays, by which its size is limited.
    folder : Path
        Where models lie; all others are removed.

    Raises
    ------
    ServiceError
        It cannot be had, or is longer than a model of these arrays can be.
    StorageError
        The disk is full or the folder cannot be written.
    """
    target = folder / f"{model_hash}.safetensors"
    part = target.with_suffix(".part")
    for other in folder.iterdir():
        if other not in (target, part):
            other.unlink(missing_ok=True)
    if target.exists():
        return target
    limit = 2 * largest_payload(layout)  # float16 may come as float32

    async def download(_: object) -> None:
        try:
            with part.open("ab") as stream:
                async for piece in connection.transport.model(model_hash, offset=stream.tell()):
                    if stream.tell() + len(piece) > limit:
                        raise refusal(
                            Code.TOO_LARGE, f"model {model_hash[:12]} has more than the {limit} bytes its arrays need"
                        )
                    stream.write(piece)
        except OSError as error:
            raise storage_error(part, error) from error

    while True:
        continued = part.exists()
        try:
            await connection.ask(download)
            break
        except ServiceError as error:
            if passing(error):
                raise
            part.unlink(missing_ok=True)  # it may be that there is nothing behind what is here
            if not continued:
                raise
    part.replace(target)
    return target


def read_model(path: Path, model_hash: str, layout: ParamLayout) -> tuple[Float32, dict[str, NDArray[Any]]]:
    """Vector (d,) of a model's file, and the arrays beside it.

    Raises
    ------
    ProtocolError
        ``"model"``: it is not the model of that hash; the file is removed.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
        vector = np.empty(layout.size, np.float32)
        for entry in layout.entries:
            if entry.in_vector:
                array = arrays.pop(entry.name)
                if array.shape != entry.shape:
                    raise ValueError(f"{entry.name!r} has shape {array.shape}, expected {entry.shape}")
                vector[layout.slices[entry.name]] = array.ravel()
        found = values_hash(vector)
        if found != model_hash:
            raise ValueError(f"its values have the hash {found[:12]}")
    except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        path.unlink(missing_ok=True)
        raise ProtocolError(
            "model",
            f"what the coordinator sent is not model {model_hash[:12]}: {error!s:.200}; it was removed, ask again",
        ) from error
    return vector, arrays
