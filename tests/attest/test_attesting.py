"""What evidence that is presented after enrolment has to answer."""

from dataclasses import replace

import pytest

from matl.attest.attesting import AttestationText
from matl.errors import ProtocolError

TEXT = AttestationText(client_id="alice", key="cd" * 32, challenge="ab" * 56)


def test_the_nonce_differs_with_client_key_and_challenge():
    others = [replace(TEXT, client_id="bob"), replace(TEXT, key="ce" * 32), replace(TEXT, challenge="ac" * 56)]
    assert len({TEXT.nonce, *(other.nonce for other in others)}) == 4
    assert AttestationText.parse(TEXT.to_bytes()) == TEXT


@pytest.mark.parametrize(
    "wrong", [{"client_id": ""}, {"client_id": "a\nkey=b"}, {"key": "CD" * 32}, {"challenge": "ab"}]
)
def test_what_has_no_spelling_is_refused(wrong):
    with pytest.raises(ProtocolError):
        replace(TEXT, **wrong)
