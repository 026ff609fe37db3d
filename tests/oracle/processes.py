"""An oracle as a process of its own, from a copy of the package that a test may change."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matl

_COMMAND = "import sys; sys.argv[0] = 'matl'; from matl.cli import main; main()"


@dataclass(frozen=True)
class Library:
    """A copy of the package in a folder."""

    folder: Path

    @classmethod
    def copied(cls, folder: Path) -> Library:
        source = Path(matl.__file__).parent
        # With what numba compiled beside the source: it is no part of a measurement, and takes long to make again.
        shutil.copytree(source, folder / "matl", ignore=shutil.ignore_patterns("*.pyc", "*.pyc.*"))
        return cls(folder)

    def _arguments(self, *arguments: str, fresh: Path | None = None) -> dict[str, Any]:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "NO_COLOR": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if fresh is None:
            # What is compiled is shared by all: else every process would compile everything anew.
            environment["PYTHONPYCACHEPREFIX"] = str(self.folder.parent / "compiled")
        else:
            environment["TMPDIR"] = str(fresh)
        return {"args": [sys.executable, "-P", "-c", _COMMAND, *arguments], "env": environment, "text": True}

    def matl(self, *arguments: str) -> str:
        """Standard output of a command."""
        done = subprocess.run(**self._arguments(*arguments), capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """Standard error of a command that fails."""
        done = subprocess.run(**self._arguments(*arguments), capture_output=True, timeout=120, check=False)
        assert done.returncode != 0
        return str(done.stderr)

    @contextmanager
    def oracle(self, config: Path, folder: Path, *options: str, fresh: Path | None = None) -> Iterator[Serving]:
        """A process that serves, until it is killed; with ``fresh`` it compiles its code anew, in that folder."""
        asked = ("oracle", "serve", str(config), "--folder", str(folder), "--port", "0", *options)
        process = subprocess.Popen(
            **self._arguments(*asked, fresh=fresh), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("token"):
                    break
            else:
                raise AssertionError(f"the oracle did not start: {''.join(said)}{process.stderr.read()}")  # type: ignore[union-attr]
            yield Serving(process, "".join(said), folder)
        finally:
            process.kill()
            process.communicate()


@dataclass(frozen=True)
class Serving:
    """A process that serves an oracle, and what it said when it began."""

    process: subprocess.Popen[str]
    said: str
    folder: Path

    @property
    def url(self) -> str:
        return self._found("oracle at (http://.+)")

    @property
    def measurement(self) -> str:
        return self._found("measurement ([0-9a-f]{64})")

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text().strip()

    def _found(self, pattern: str) -> str:
        found = re.search(pattern, self.said)
        assert found is not None, self.said
        return found[1]
