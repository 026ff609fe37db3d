"""Everything that is refused is refused in one form: a `Problem` as JSON, whoever noticed it."""

from __future__ import annotations

import http
import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from matl.coordinator.strict_json import in_words
from matl.errors import ServiceError
from matl.protocol.messages import Problem
from matl.protocol.problems import CODES, Code, refusal

__all__ = ["CAREFUL", "HANDLERS", "RESPONSES", "problem", "response"]

_MEANINGS = {  # in words; and an example: message, reason, seconds to wait
    Code.MALFORMED: (
        "It cannot be read.",
        ("expected Content-Type application/json, got 'text/plain'", "content_type", None),
    ),
    Code.UNAUTHENTICATED: (
        "Nobody is known who sent it: no token, a wrong one, or a signature that does not verify.",
        ("this needs an operator's token of scope viewer: Authorization: Bearer", "unauthenticated", None),
    ),
    Code.FORBIDDEN: (
        "Whoever sent it may not.",
        ("this needs a token of scope admin; that of carol is of scope viewer", "forbidden", None),
    ),
    Code.NOT_FOUND: ("There is no such thing.", ("there is no run 'dmo'; there are: demo", "run", None)),
    Code.CONFLICT: (
        "It contradicts what is known already.",
        ("another update of alice counts in round 3; one counts, the first", "duplicate", None),
    ),
    Code.TOO_LARGE: (
        "It is larger than what is taken.",
        ("expected a body of at most 262144 bytes, got 300000", "body", None),
    ),
    Code.INVALID: (
        "It can be read, and a value in it is not allowed.",
        ("query.limit: Input should be less than or equal to 500", "invalid", None),
    ),
    Code.RATE: (
        "Too many requests of one sender.",
        ("too many requests of client alice: at most 200 at once and 50 a second; try again in 0.5 s", "rate", 0.5),
    ),
    Code.BUSY: (
        "Nothing is wrong with it; later it may be taken.",
        ("round 3 is over; round 4 opens soon, send the update again then", "between_rounds", 1.0),
    ),
}
_HEADERS: dict[Code, dict[str, Any]] = {
    Code.UNAUTHENTICATED: {
        "WWW-Authenticate": {"description": "The scheme to use.", "schema": {"type": "string"}, "example": "Bearer"}
    },
    Code.RATE: {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}, "example": 2}},
    Code.BUSY: {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}, "example": 1}},
}

CAREFUL = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not say otherwise."""

RESPONSES: dict[int, tuple[str, dict[str, Any]]] = {
    CODES[code].http: (
        "".join(part.capitalize() for part in code.split("_")),
        {
            "description": words,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": {"code": code.value, "message": message, "reason": reason, "retry_after": wait},
                }
            },
            **({"headers": _HEADERS[code]} if code in _HEADERS else {}),
        },
    )
    for code, (words, (message, reason, wait)) in _MEANINGS.items()
}
"""What any route may answer besides what it is for: by status, a name, and the response in OpenAPI."""


def problem(error: ServiceError) -> Problem:
    """The body that says why."""
    return Problem(code=error.code, message=str(error), reason=error.reason, retry_after=error.retry_after)


def response(error: ServiceError, *, status: int | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that was refused.

    Parameters
    ----------
    error : ServiceError
        Why.
    status : int, optional
        Of HTTP, where it has a finer one than the code's.
    headers : mapping of str to str, optional
        More of them.
    """
    code = Code(error.code)
    extra = dict(headers or {})
    if code is Code.UNAUTHENTICATED:
        extra["WWW-Authenticate"] = "Bearer"
    if code in (Code.RATE, Code.BUSY):
        extra["Retry-After"] = str(max(1, math.ceil(error.retry_after or 0)))
    return JSONResponse(problem(error).model_dump(mode="json"), status or CODES[code].http, extra)


async def _refused(request: Request, error: ServiceError) -> Response:
    return response(error)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return response(refusal(Code.INVALID, in_words(list(error.errors()))))


async def _of_the_framework(request: Request, error: HTTPException) -> Response:
    """No such route, or not with this method: all that Starlette itself refuses here."""
    if error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_methods(request))
        words = f"expected one of {allowed} at this address, got {request.method:.20}"
        refused = refusal(Code.MALFORMED, words, reason="method_not_allowed")
        return response(refused, status=error.status_code, headers={"Allow": allowed})
    return response(
        refusal(Code.NOT_FOUND, "nothing is at this address; all addresses are at /docs", reason="no_route")
    )


def _methods(request: Request) -> list[str]:
    """Those of every route at an address; the router knows of the first alone."""
    here = [route for route in request.app.routes if isinstance(route, Route)]
    there = [route for route in here if route.matches(request.scope)[0] is Match.PARTIAL]
    return sorted({method for route in there for method in route.methods or ()})


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    """Nobody is there to read it; the server drops it."""
    return response(refusal(Code.MALFORMED, "the connection closed before the whole body was there", reason="cut_off"))


async def _fault(request: Request, error: Exception) -> Response:
    """Our own mistake. The server's log has it; the answer has nothing of it, and passes no guard."""
    words = "the coordinator made a mistake with this request; its log says more"
    made = Problem(code="internal", message=words, reason="internal", retry_after=None)
    return JSONResponse(made.model_dump(mode="json"), http.HTTPStatus.INTERNAL_SERVER_ERROR, CAREFUL)


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    ServiceError: _refused,
    RequestValidationError: _invalid,
    HTTPException: _of_the_framework,
    ClientDisconnect: _gone,
    Exception: _fault,
}
