"""Bearer tokens of operators, with scopes and an end; only their hashes are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from matl.attest._bearer import find, hashed, new_secret
from matl.attest.canonical import check_identifier, unix_ms
from matl.errors import InvalidValueError, StateError, UnknownNameError

__all__ = ["PREFIX", "OperatorToken", "Scope", "Tokens"]

PREFIX = "matl_op_"
"""How every operator token begins."""

_VERSION = 1
_ID_DIGITS = 12  # digits of a hash that tell tokens apart


class Scope(IntEnum):
    """What a token allows: its own scope and all below it."""

    VIEWER = 1  # look at everything
    OPERATOR = 2  # and start, pause, invite, quarantine, release
    ADMIN = 3  # and revoke, undo, issue tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorToken:
    """What is kept of a token.

    Parameters
    ----------
    name : str
        Whose it is; the actor in the audit log.
    scope : Scope
        What it allows.
    hash : str
        SHA-256 (hex) of the token.
    created_at, expires_at : int
        Unix milliseconds.
    """

    name: str
    scope: Scope
    hash: str
    created_at: int
    expires_at: int

    @property
    def id(self) -> str:
        """How it is called in tables and logs: the beginning of its hash, which lets nobody in."""
        return self.hash[:_ID_DIGITS]

    def allows(self, scope: Scope) -> bool:
        """Whether it is good for what needs this scope."""
        return self.scope >= scope


@dataclass(frozen=True, slots=True)
class Tokens:
    """All tokens of a coordinator. Its methods return what follows and change nothing; the host keeps its `state`.

    Parameters
    ----------
    tokens : mapping of str to OperatorToken
        By hash.

    Examples
    --------
    >>> from datetime import UTC
    >>> now = datetime(2030, 1, 1, tzinfo=UTC)
    >>> tokens, secret = Tokens().issue("carol", Scope.OPERATOR, now=now)
    >>> secret[:8], len(secret)
    ('matl_op_', 51)
    >>> token = tokens.check(secret, now=now)
    >>> token.name, token.allows(Scope.VIEWER), token.allows(Scope.ADMIN)
    ('carol', True, False)
    >>> print(tokens.check(secret[:-1] + "?", now=now), tokens.check(secret, now=now + timedelta(days=91)))
    None None
    """

    tokens: Mapping[str, OperatorToken] = field(default_factory=lambda: MappingProxyType({}))

    def issue(
        self, name: str, scope: Scope, *, now: datetime, lifetime: timedelta = timedelta(days=90)
    ) -> tuple[Tokens, str]:
        """Make a token. The secret that is returned is shown to its owner and kept nowhere.

        Raises
        ------
        InvalidValueError
            The name is none, or the lifetime not above zero.
        """
        check_identifier(name=name)
        if lifetime <= timedelta():
            raise InvalidValueError(f"expected a lifetime > 0, got {lifetime}")
        secret = new_secret(PREFIX)
        token = OperatorToken(
            name=name,
            scope=scope,
            hash=hashed(PREFIX, secret),
            created_at=unix_ms(now),
            expires_at=unix_ms(now + lifetime),
        )
        return self._with(token), secret

    def check(self, secret: object, *, now: datetime) -> OperatorToken | None:
        """The token that was presented; ``None`` if there is no such one, or it has expired."""
        found = find(self.tokens, hashed(PREFIX, secret))
        token = self.tokens[found] if found is not None else None
        return token if token is not None and unix_ms(now) < token.expires_at else None

    def rotate(
        self,
        token_id: str,
        *,
        now: datetime,
        overlap: timedelta = timedelta(),
        lifetime: timedelta = timedelta(days=90),
    ) -> tuple[Tokens, str]:
        """Make a token that takes another one's place, which is good for another ``overlap`` at most.

        Raises
        ------
        UnknownNameError
            There is none of that id.
        """
        old = self._of(token_id)
        ends = min(old.expires_at, unix_ms(now + overlap))
        return self._with(replace(old, expires_at=ends)).issue(old.name, old.scope, now=now, lifetime=lifetime)

    def revoke(self, token_id: str) -> Tokens:
        """Forget a token.

        Raises
        ------
        UnknownNameError
            There is none of that id.
        """
        gone = self._of(token_id).hash
        return Tokens({key: token for key, token in self.tokens.items() if key != gone})

    def state(self) -> dict[str, Any]:
        """All of it as plain data, without a secret."""
        rows = [{**asdict(token), "scope": token.scope.name.lower()} for token in self.tokens.values()]
        return {"version": _VERSION, "tokens": rows}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Tokens:
        """What `state` returned.

        Raises
        ------
        StateError
            It cannot be read.
        """
        try:
            if state["version"] != _VERSION:
                raise ValueError(f"version {state['version']}, this library reads {_VERSION}")
            rows = [OperatorToken(**{**row, "scope": Scope[row["scope"].upper()]}) for row in state["tokens"]]
            return cls({token.hash: token for token in rows})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError(f"the operators' tokens cannot be read: {error!r}") from error

    def _of(self, token_id: str) -> OperatorToken:
        known = {token.id: token for token in self.tokens.values()}
        if token_id not in known:
            raise UnknownNameError("token", token_id, known)
        return known[token_id]

    def _with(self, token: OperatorToken) -> Tokens:
        return Tokens({**self.tokens, token.hash: token})
