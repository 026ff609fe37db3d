"""The command in this process."""

import json
import sys

import pytest

from matl import cli


class Done:
    """How a command ended and what it printed."""

    def __init__(self, code, captured):
        self.code, self.out, self.err = code, captured.out, captured.err

    @property
    def json(self):
        """Standard output, which has to be one JSON object and nothing else."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    def refused(self, code, *messages):
        """A short error that says what to do, on standard error alone."""
        assert self.code == code
        assert self.out == ""
        for message in messages:
            assert message in " ".join(self.err.split())
        assert "Traceback" not in self.err
        assert len(self.err) < 2500


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Call the entry point as the shell does, from an empty folder."""
    monkeypatch.chdir(tmp_path)

    def matl(*args):
        monkeypatch.setattr(sys, "argv", ["matl", *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return Done(code, capsys.readouterr())

    return matl
