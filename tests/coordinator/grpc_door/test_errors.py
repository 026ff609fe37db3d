from __future__ import annotations

import logging

import grpc
import pytest

from matl.coordinator.grpc_door.errors import asked, ending, told
from matl.coordinator.strict_json import LARGEST_JSON
from matl.errors import ServiceError
from matl.protocol.messages import SessionRequest
from matl.protocol.pb import training as pb
from matl.protocol.problems import CODES, Code, refusal


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_its_status(code: Code) -> None:
    status, words, metadata = ending(refusal(code, "words", reason="why"))
    assert status.value[0] == CODES[code].grpc
    assert status is not grpc.StatusCode.OK
    assert (words, dict(metadata)) == ("words", {"matl-code": code.value, "matl-reason": "why"})


def test_when_to_come_back_is_said() -> None:
    assert dict(ending(refusal(Code.RATE, "slower", retry_after=3)).metadata)["retry-after"] == "3.0"


def test_what_nobody_foresaw_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status, words, metadata = ending(ZeroDivisionError("a secret"))
    assert (status, metadata) == (grpc.StatusCode.INTERNAL, (("matl-reason", "internal"),))
    assert "secret" not in words
    assert "a secret" in caplog.text


def test_words_and_reasons_fit_into_headers() -> None:
    _, words, metadata = ending(ServiceError("invalid", "x" * 10_000, reason="new\nline \N{CHECK MARK}" + "y" * 999))
    assert len(words) == 2000
    reason = dict(metadata)["matl-reason"]
    assert reason.isprintable()
    assert reason.isascii()
    assert len(reason) == 200


def test_bytes_that_are_no_message() -> None:
    with pytest.raises(ServiceError, match=r"no matl\.v1\.RunRequest") as caught:
        told(pb.RunRequest, b"\xff\xff\xff")
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"{", "malformed", "not JSON that can be read"),
        (b"\xff", "malformed", "not JSON that can be read"),
        (b"{}", "invalid", "client_id: Field required"),
        (b'{"client_id": "a", "challenge": "c", "signature": "!"}', "invalid", "signature: "),
        (b'{"client_id": "a", "challenge": "c", "signature": "", "x": 1}', "invalid", "x: Extra"),
        (b'{"client_id": "a", "client_id": "b", "challenge": "c", "signature": ""}', "malformed", "stands twice"),
        (b'{"client_id": "a", "challenge": "\\u0000", "signature": ""}', "malformed", "NUL"),
        (b'{"x": ' + b"[" * 20 + b"]" * 20 + b"}", "malformed", "nested deeper than 16"),
        (b'{"client_id": "' + b"a" * LARGEST_JSON + b'"}', "too_large", "at most 262144 bytes"),
    ],
)
def test_questions_that_cannot_be_read_name_the_field(data: bytes, code: str, words: str) -> None:
    with pytest.raises(ServiceError, match=words) as caught:
        asked(SessionRequest, data)
    assert caught.value.code == code
