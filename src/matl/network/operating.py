"""What an operator asks a coordinator that runs, over HTTP."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, RootModel, ValidationError

from matl.errors import MissingExtraError, ServiceError, StateError
from matl.files import read_private
from matl.network.folder import read_url
from matl.protocol.addresses import refuse_clear
from matl.protocol.messages import (
    ClientView,
    InvitationView,
    Invited,
    InviteRequest,
    Metrics,
    OperatorTokenView,
    Problem,
    RoundPage,
    RoundView,
    RunView,
    StandingView,
    TokenRequest,
    TokenView,
)
from matl.protocol.problems import Code, refusal

try:
    import httpx

    from matl.client.answers import PLAIN, read, told, web_parts
    from matl.client.http import stranger, tls_context
except ImportError as error:
    raise MissingExtraError("httpx", extra="client") from error

__all__ = ["Operator", "RunStanding"]

TOKEN_FILE = "admin.token"  # noqa: S105 - the name of a file
_TIMEOUT = 30.0
_LONGEST_ANSWER = 64 << 20  # bytes; a hundred thousand clients have about half of them
_STRANGER = "not_a_coordinator"
_LARGEST_TOKEN = 512  # bytes of the file

M = TypeVar("M", bound=BaseModel)


class _Invitations(RootModel[list[InvitationView]]):
    pass


class _Tokens(RootModel[list[TokenView]]):
    pass


class _Runs(RootModel[list[RunView]]):
    pass


class _Clients(RootModel[list[ClientView]]):
    pass


class _Standings(RootModel[list[StandingView]]):
    pass


@dataclass(frozen=True, slots=True)
class RunStanding:
    """How a run stands.

    Parameters
    ----------
    run : RunView
        The run.
    open_round : RoundView or None
        The round that is open, or being judged.
    rounds : tuple of RoundView
        The latest rounds that ended, latest first.
    standings : tuple of StandingView
        What is thought of its clients.
    """

    run: RunView
    open_round: RoundView | None
    rounds: tuple[RoundView, ...]
    standings: tuple[StandingView, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "run": self.run.model_dump(mode="json"),
            "open_round": None if self.open_round is None else self.open_round.model_dump(mode="json"),
            "rounds": [one.model_dump(mode="json") for one in self.rounds],
            "standings": [one.model_dump(mode="json") for one in self.standings],
        }


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
    insecure : bool
        Take ``http`` to another machine too, where the token can be read on the way.

    Attributes
    ----------
    url : str
        As above, without a slash at its end.

    Raises
    ------
    InvalidValueError
        The address is none, or the token would cross a network in the clear.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        insecure: bool = False,
    ) -> None:
        secure = web_parts(url, what="--url").scheme == "https"
        if not insecure:
            refuse_clear(url, unless="--insecure")
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}", **PLAIN},
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
        insecure: bool = False,
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
        ca, certificate, insecure
            See the class.

        Raises
        ------
        StateError
            There is no such file, or others can read the token.
        """
        token = read_token(token_file or folder / TOKEN_FILE)
        return cls(url or read_url(folder), token, ca=ca, certificate=certificate, insecure=insecure)

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

    def runs(self) -> list[RunView]:
        """All runs."""
        return self._ask(_Runs, "GET", "/v1/runs").root

    def metrics(self) -> Metrics:
        """Counts and latencies since the coordinator started, and the runs that cannot go on since then."""
        return self._ask(Metrics, "GET", "/v1/metrics")

    def clients(self) -> list[ClientView]:
        """All clients that are enrolled."""
        return self._ask(_Clients, "GET", "/v1/admin/clients").root

    def standing(self, run: RunView, *, rounds: int) -> RunStanding:
        """How a run stands, with so many of its latest rounds."""
        path = f"/v1/runs/{_part(run.id)}"
        found = self._ask(RoundPage, "GET", f"{path}/rounds?limit={rounds + 1}").rounds
        ended = tuple(one for one in found if one.status in ("committed", "failed"))
        standings = self._ask(_Standings, "GET", f"{path}/trust").root
        return RunStanding(
            run=run,
            open_round=next((one for one in found if one not in ended), None),
            rounds=ended[:rounds],
            standings=tuple(standings),
        )

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
            raise refusal(
                Code.MALFORMED,
                f"{self.url} answers in words no coordinator of this version uses; is it the right --url?",
                reason=_STRANGER,
            ) from error

    def _send(self, method: str, path: str, content: Any = None) -> bytes:
        given = {} if content is None else {"json": content}
        try:
            with told(self.url, reason=_STRANGER), self._client.stream(method, path, **given) as response:
                body = read(response, _LONGEST_ANSWER, reason=_STRANGER)
        except httpx.RequestError as error:
            raise self._unreachable(error) from error
        if response.is_success:
            return body
        try:
            problem = Problem.model_validate_json(body)
        except ValidationError as error:
            raise stranger(response, self.url) from error
        raise ServiceError(problem.code, problem.message, reason=problem.reason, retry_after=problem.retry_after)

    def _unreachable(self, error: httpx.RequestError) -> ServiceError:
        """Why nothing came back, with what helps against it."""
        refused = next((one for one in _causes(error) if isinstance(one, ssl.SSLCertVerificationError)), None)
        if refused is not None:
            return refusal(
                Code.INVALID,
                f"the certificate of {self.url} is not trusted: {refused.verify_message.rstrip('.')}; give the "
                "certificate of the authority that signed it as --ca, and an address that stands in it as --url",
                reason="certificate",
            )
        advice = "start it, or give its --url"
        if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and self.url.startswith("http://"):
            advice = f"if it is served with TLS, its --url is https{self.url.removeprefix('http')}"
        elif any(isinstance(one, ssl.SSLError) for one in _causes(error)):
            advice = f"if it is served without TLS, its --url is http{self.url.removeprefix('https')}"
        words = str(error) or type(error).__name__
        return refusal(
            Code.BUSY, f"no coordinator can be reached at {self.url}: {words}; {advice}", reason="unreachable"
        )


def read_token(path: Path) -> str:
    """The token in a file that nobody else can read.

    Raises
    ------
    StateError
        There is none, or others can read it.
    """
    try:
        token = read_private(path, _LARGEST_TOKEN, given=True).decode("ascii", "replace").strip()
    except OSError as error:
        raise StateError(
            f"the operator's token cannot be read from {path}: {error.strerror}; give its --token-file, or the "
            "--folder of the coordinator"
        ) from error
    if not token or not token.isascii() or not token.isprintable():
        raise StateError(f"{path} holds no token; expected one line that begins with matl_op_")
    return token


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _part(text: str) -> str:
    return quote(text, safe="")
