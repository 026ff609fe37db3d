"""The tables of the coordinator's database, the same for SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from matl.coordinator.storage.rows import RoundStatus, RunStatus
from matl.records import Status

__all__ = [
    "METADATA", "Choice", "Json", "Whole", "Words", "counters", "documents", "doomed_blobs", "events", "floors",
    "models", "nonces", "phase_messages", "rounds", "runs", "updates", "uploads", "verdicts",
]  # fmt: skip


class Json(TypeDecorator[Any]):
    """Plain data as JSON text. Numbers come back bit for bit, those that JSON has no word for (NaN) included."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """What is stored."""
        return json.dumps(value, separators=(",", ":"), default=_plain)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """What was stored."""
        return None if value is None else json.loads(value)


class Words(TypeDecorator[str]):
    """Free text, which may quote what a stranger sent: what PostgreSQL cannot hold is written out."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """What is stored."""
        return None if value is None else value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


class Whole(TypeDecorator[int]):
    """A whole number of any size, such as a seed."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        """What is stored."""
        return None if value is None else str(int(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:
        """What was stored."""
        return None if value is None else int(value)


class Choice(TypeDecorator[StrEnum]):
    """One word of an enumeration."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """What is stored."""
        return None if value is None else str(self.words(value))

    def process_result_value(self, value: Any, dialect: Dialect) -> StrEnum | None:
        """What was stored."""
        return None if value is None else self.words(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


METADATA = sa.MetaData()

runs = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("status", Choice(RunStatus), nullable=False),
    sa.Column("settings", Json, nullable=False),
    sa.Column("config_digest", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("rounds", sa.BigInteger),
    sa.Column("round", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("model_hash", sa.Text, nullable=False),
)

rounds = sa.Table(
    "rounds",
    METADATA,
    sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("status", Choice(RoundStatus), nullable=False, index=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("machine", Json, nullable=False),
    sa.Column("opened_at", sa.Double, nullable=False),
    sa.Column("closed_at", sa.Double),
    sa.Column("ended_at", sa.Double),
    sa.Column("seed", Whole),
    sa.Column("accepted", sa.BigInteger, nullable=False),
    sa.Column("rejected", sa.BigInteger, nullable=False),
    sa.Column("next_model_hash", sa.Text),
    sa.Column("reason", Words, nullable=False),
    sa.Column("summary", Json, nullable=False),
    # Not part of a RoundRow: what the round began from, and whether its blobs are kept so that it can be judged again.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("model_hash", sa.Text, nullable=False),
    sa.Column("kept", sa.Boolean, nullable=False),
)

_ROUND = ("rounds.run", "rounds.number")

updates = sa.Table(
    "updates",
    METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("round", sa.BigInteger, primary_key=True),
    sa.Column("client", sa.Text, primary_key=True),
    # Part of the key: a client whose first update was refused may send a good one.
    sa.Column("accepted", sa.Boolean, primary_key=True),
    sa.Column("base_version", sa.BigInteger, nullable=False),
    sa.Column("payload_sha256", sa.Text, nullable=False, index=True),
    sa.Column("payload_bytes", sa.BigInteger, nullable=False),
    sa.Column("num_examples", sa.BigInteger),
    sa.Column("nonce", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.Column("head", sa.LargeBinary, nullable=False),
    sa.Column("code", Words, nullable=False),
    sa.Column("reason", Words, nullable=False),
    sa.ForeignKeyConstraint(["run", "round"], _ROUND),
)

phase_messages = sa.Table(
    "phase_messages",
    METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("round", sa.BigInteger, primary_key=True),
    sa.Column("phase", sa.Text, primary_key=True),
    sa.Column("client", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("content", sa.LargeBinary),
    sa.ForeignKeyConstraint(["run", "round"], _ROUND),
)
"""Of rounds that have not ended: with a round they are deleted, the shares of clients' secrets among them."""

verdicts = sa.Table(
    "verdicts",
    METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("round", sa.BigInteger, primary_key=True),
    sa.Column("client", sa.Text, primary_key=True),
    sa.Column("status", Choice(Status), nullable=False),
    sa.Column("weight", sa.Double, nullable=False),
    sa.Column("reason", Words, nullable=False),
    sa.Column("evidence", Json, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("receipt", sa.LargeBinary),
    sa.ForeignKeyConstraint(["run", "round"], _ROUND),
    sa.Index("verdicts_of_client", "run", "client", "round"),
)

models = sa.Table(
    "models",
    METADATA,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("blob", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
)

doomed_blobs = sa.Table("doomed_blobs", METADATA, sa.Column("blob", sa.Text, primary_key=True))
"""What nothing needs any more since an old round was let go of, until it is deleted: a crash may come in between."""

nonces = sa.Table(
    "nonces",
    METADATA,
    sa.Column("client", sa.Text, primary_key=True),
    sa.Column("nonce", sa.Text, primary_key=True),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)

floors = sa.Table(
    "floors",
    METADATA,
    sa.Column("client", sa.Text, primary_key=True),
    sa.Column("floor", sa.BigInteger, nullable=False),
)

events = sa.Table(
    "events",
    METADATA,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("round", sa.BigInteger, nullable=False),
    sa.Column("data", Json, nullable=False),
    sa.Index("events_of_run", "run", "seq"),
)

documents = sa.Table(
    "documents",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

uploads = sa.Table(
    "uploads",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("round", sa.BigInteger, nullable=False),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("head", sa.LargeBinary, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("began_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False, index=True),
)

counters = sa.Table(
    "counters",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.Text),
)
"""One row, ``events``: the number of the last event, and the token of the process that the database belongs to, see
`matl.coordinator.storage.fencing.Fence`. Whoever writes locks it first, so writers follow one another."""
