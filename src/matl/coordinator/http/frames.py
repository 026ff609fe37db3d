"""What is said over a WebSocket, as JSON; updates themselves are binary frames."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from matl.protocol.messages import Acknowledgement, EventView, Problem

__all__ = ["PATH", "AckFrame", "EventFrame", "Hello", "Ping", "Pong", "ProblemFrame", "schema"]

PATH = "/v1/ws"


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hello(_Said):
    """The first frame of a client, within ten seconds."""

    type: Literal["hello"]
    token: str | None = Field(
        None, max_length=1024, description="Of a session or an operator; who has none may send updates alone."
    )
    after: Annotated[int, Field(ge=0, lt=2**53)] | None = Field(
        None, description="Send all events behind this number, those that were and those to come; null for none."
    )


class Ping(_Said):
    """Asks for a pong. The pings of RFC 6455 are answered too."""

    type: Literal["ping"]


class Pong(_Said):
    """Answers a ping."""

    type: Literal["pong"] = "pong"


class EventFrame(EventView):
    """Something that happened."""

    type: Literal["event"] = "event"


class AckFrame(Acknowledgement):
    """An update is on the disk of the coordinator."""

    type: Literal["ack"] = "ack"
    answers: int = Field(description="Which binary frame of this connection it answers, from 0.")


class ProblemFrame(Problem):
    """A frame was refused. Where it answers no binary frame, the connection is closed behind it."""

    type: Literal["problem"] = "problem"
    answers: int | None = Field(None, description="Which binary frame of this connection it answers, from 0.")


def schema() -> dict[str, Any]:
    """The JSON Schema of all frames, and where they go."""
    said, told = (Hello, Ping), (EventFrame, AckFrame, ProblemFrame, Pong)
    _, definitions = models_json_schema(
        [*((model, "validation") for model in said), *((model, "serialization") for model in told)],
        ref_template="#/$defs/{model}",
    )
    sides = {
        "ClientFrame": {"description": "Text frames of a client.", "oneOf": _references(*said)},
        "ServerFrame": {"description": "Text frames of the coordinator.", "oneOf": _references(*told)},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "MATL over a WebSocket",
        "description": "Frames of text are JSON. A binary frame of a client is the message of an update "
        "(application/vnd.matl.update); it is answered by one frame of type ack or problem, in order.",
        "x-sockets": [PATH],
        "anyOf": [{"$ref": f"#/$defs/{side}"} for side in sides],
        "$defs": {**sides, **definitions["$defs"]},
    }


def _references(*models: type[BaseModel]) -> list[dict[str, str]]:
    return [{"$ref": f"#/$defs/{model.__name__}"} for model in models]
