"""What a reader refuses of a message."""

import json
import math

import pytest
from pydantic import ValidationError

from matl.protocol.messages import Problem


@pytest.mark.parametrize("seconds", [0, 1.5, 86_400.0, None])
def test_a_refusal_may_say_when_to_ask_again(seconds):
    text = json.dumps({"code": "busy", "message": "later", "retry_after": seconds})
    assert Problem.model_validate_json(text).retry_after == seconds


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan, -1.0])
def test_a_time_that_is_none_is_refused(seconds):
    text = json.dumps({"code": "busy", "message": "later", "retry_after": seconds})
    with pytest.raises(ValidationError, match="retry_after"):
        Problem.model_validate_json(text)
