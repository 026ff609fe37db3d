"""What an operator asks a coordinator that runs, over HTTP."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, RootModel, ValidationError

from matl.errors import MissingExtraError, ServiceError, StateError
from matl.network.folder import read_url
from matl.protocol.messages import (
    InvitationView,
    Invited,
    InviteRequest,
    OperatorTokenView,
    Problem,
    TokenRequest,
    TokenView,
)
from matl.protocol.problems import Code, refusal

try:
    import httpx

    from matl.client.http import tls_context
except ImportError as error:
    raise MissingExtraError("httpx", extra="client") from error

__all__ = ["Operator"]

TOKEN_FILE = "admin.token"  # noqa: S105 - the name of a file
_TIMEOUT = 30.0
_LARGEST_TOKEN = 512

M = TypeVar("M", bound=BaseModel)


class _Invitations(RootModel[list[InvitationView]]):
    pass


class _Tokens(RootModel[list[TokenView]]):
    pass


class Operator:
    """An operator's line to a coordinator.

    Parameters
    ----------
    url : str
        Where it is.
    token : str
        The operator's.
    ca : Path, optional
        Certificates (PEM) to trust in place of those the machine trusts.
    certificate : (Path, Path), optional
        Certificate and key (PEM) to show, where the coordinator asks everybody for one.

    Attributes
    ----------
    url : str
        As above, without a slash at its end.
    """

    def __init__(
        self, url: str, token: str, *, ca: Path | None = None, certificate: tuple[Path, Path] | None = None
    ) -> None:
        secure = url.startswith("https://")
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            verify=tls_context(ca, certificate) if secure else False,
            trust_env=secure,
            timeout=_TIMEOUT,
        )

    @classmethod
    def of(
        cls,
        folder: Path,
        *,
        url: str | None = None,
        token_file: Path | None = None,
        ca: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> Self:
        """The owner of a coordinator's folder, or whoever else has a token.

        Parameters
        ----------
        folder : Path
            The coordinator's.
        url : str, optional
            Where it is; as the folder says otherwise.
        token_file : Path, optional
            File with the token; that of the folder otherwise.
        ca, certificate
            See the class.

        Raises
        ------
        StateError
            There is no such file, or others can read the token.
        """
        token = read_token(token_file or folder / TOKEN_FILE)
        return cls(url or read_url(folder), token, ca=ca, certificate=certificate)

    def invite(self, request: InviteRequest) -> Invited:
        """Make an invitation."""
        return self._ask(Invited, "POST", "/v1/admin/invitations", request)

    def invitations(self) -> list[InvitationView]:
        """The invitations that are not used up."""
        return self._ask(_Invitations, "GET", "/v1/admin/invitations").root

    def issue(self, request: TokenRequest) -> OperatorTokenView:
        """Make an operator's token."""
        return self._ask(OperatorTokenView, "POST", "/v1/admin/tokens", request)

    def tokens(self) -> list[TokenView]:
        """All operators' tokens."""
        return self._ask(_Tokens, "GET", "/v1/admin/tokens").root

    def rotate(self, token_id: str) -> OperatorTokenView:
        """Make a token that takes another one's place."""
        return self._ask(OperatorTokenView, "POST", f"/v1/admin/tokens/{_part(token_id)}/rotate")

    def revoke(self, token_id: str) -> None:
        """Make a token worthless."""
        self._send("DELETE", f"/v1/admin/tokens/{_part(token_id)}")

    def close(self) -> None:
        """Close the line."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, kind: type[M], method: str, path: str, request: BaseModel | None = None) -> M:
        body = self._send(method, path, None if request is None else request.model_dump(mode="json"))
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            raise self._stranger() from error

    def _send(self, method: str, path: str, content: Any = None) -> bytes:
        try:
            response = self._client.request(method, path, **({} if content is None else {"json": content}))
        except httpx.RequestError as error:
            raise refusal(
                Code.BUSY,
                f"no coordinator can be reached at {self.url}: {str(error) or type(error).__name__}; start it, or "
                "give its --url",
                reason="unreachable",
            ) from error
        if response.is_success:
            return response.content
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError as error:
            raise self._stranger() from error
        raise ServiceError(problem.code, problem.message, reason=problem.reason, retry_after=problem.retry_after)

    def _stranger(self) -> ServiceError:
        return refusal(
            Code.MALFORMED, f"{self.url} answers in words no coordinator of this version uses; is it the right --url?"
        )


def read_token(path: Path) -> str:
    """The token in a file that nobody else can read.

    Raises
    ------
    StateError
        There is none, or others can read it.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and os.geteuid() == path.stat().st_uid:
            raise StateError(f"{path} can be read by others: chmod 600 it, and rotate the token")
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(
            f"the operator's token cannot be read from {path}: {error}; give its --token-file, or the --folder of the "
            "coordinator"
        ) from error
    if not token.isascii() or not token.isprintable() or not 0 < len(token) <= _LARGEST_TOKEN:
        raise StateError(f"{path} holds no token; expected one line that begins with matl_op_")
    return token


def _part(text: str) -> str:
    return quote(text, safe="")
