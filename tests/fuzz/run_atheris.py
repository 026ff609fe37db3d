"""Fuzz decoders with atheris (coverage-guided, libFuzzer) for as long as one likes.

    python -m tests.fuzz.run_atheris                        every target for ten seconds
    python -m tests.fuzz.run_atheris --seconds 600 state    those whose names begin so, longer
    python -m tests.fuzz.run_atheris --list                 their names

What a target keeps and finds is under runs/fuzz/TARGET: interesting bytes in corpus/, and whatever let another error
escape, took more than ten seconds or two gigabytes in a file beside it. Status 1 if anything was found.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "runs" / "fuzz"
LONGEST, MOST_SECONDS, MOST_MEGABYTES = 65_536, 10, 2048
MISSING = """\
atheris is not installed. It is no dependency of MATL, for it has wheels for few versions of Python and for Linux alone:
    pip install atheris
The tests under tests/fuzz/ try the same decoders without it."""


def main() -> None:
    """Fuzz what was named, each target in a process of its own, which libFuzzer ends."""
    parser = argparse.ArgumentParser(description="Fuzz decoders with atheris.")
    parser.add_argument("names", nargs="*", help="targets, or beginnings of their names; all if none is given")
    parser.add_argument("--seconds", type=int, default=10, help="for each target")
    parser.add_argument("--list", action="store_true", help="only list the targets")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.list:
        print("\n".join(importlib.import_module("tests.fuzz.targets").TARGETS))
        return
    if find_spec("atheris") is None:
        raise SystemExit(MISSING)
    import atheris

    quiet = contextlib.redirect_stderr(io.StringIO())  # it names every module
    with quiet, atheris.instrument_imports(include=["matl"], exclude=_compiled()):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    names = [name for name in targets if not options.names or name.startswith(tuple(options.names))]
    if not names:
        raise SystemExit(f"no target begins with {' or '.join(options.names)}; --list names them")
    found = [name for name in names if not _apart(name, targets[name], options.seconds)]
    print(f"{len(names)} targets, {options.seconds} s each: {', '.join(found) or 'nothing'} found")
    raise SystemExit(bool(found))


def _compiled() -> list[str]:
    """Modules that numba compiles, which takes no instrumented code."""
    source = ROOT / "src"
    files = [file for file in source.rglob("*.py") if "matl.jit" in file.read_text("utf-8")]
    return [".".join(file.relative_to(source).with_suffix("").parts) for file in files]


def _apart(name: str, target: Target, seconds: int) -> bool:
    """Fuzz a target in a process of its own; whether nothing was found."""
    folder = KEPT / name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    child = os.fork()  # what was imported and instrumented is there at once
    if child == 0:
        with log.open("wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        _fuzz(folder, target, seconds)
        os._exit(0)  # libFuzzer has ended the process before
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = log.read_text("utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.startswith(("Done", "#"))), "nothing was run")
    print(f"{name:32} {'FOUND' if status else 'ok   '} {last[:80]}", flush=True)
    if status:
        print("\n".join(f"    {line[:300]}" for line in lines[-30:]), flush=True)
    return status == 0


def _fuzz(folder: Path, target: Target, seconds: int) -> None:
    import atheris

    for seed in target.seeds:
        (folder / "corpus" / hashlib.sha256(seed).hexdigest()[:40]).write_bytes(seed)

    def once(data: bytes) -> None:
        with contextlib.suppress(*target.allowed):
            target.decode(data)

    limits = [f"-max_len={LONGEST}", f"-timeout={MOST_SECONDS}", f"-rss_limit_mb={MOST_MEGABYTES}"]
    kept = [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", str(folder / "corpus")]
    atheris.Setup([sys.argv[0], *limits, *kept], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
