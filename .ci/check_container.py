"""Try the Containerfile without a container engine.

What can be tried here is tried: that every COPY source is in the repository, that the `RUN pip install` steps succeed
in a new environment holding nothing but the copied files, and that the program the container starts is there and
answers. The base image, the system user and the file system of the image need an engine, and are named as not tried.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def instructions(text: str) -> list[tuple[str, str]]:
    """Split a Containerfile into (instruction, rest) pairs, joining continued lines."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def tracked(source: str) -> list[str]:
    """Return the files of the repository at or below `source`, as a clean clone has them."""
    git = ["git", "-c", "safe.directory=*"]  # CI may run as another user than the owner of the checkout
    command = [*git, "ls-files", "--cached", "--others", "--exclude-standard", "--", source]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def copy(rest: str, target: Path) -> None:
    """Do what COPY does, from tracked files."""
    *sources, _ = [word for word in rest.split() if not word.startswith("--")]
    for source in sources:
        files = tracked(source)
        if not files:
            sys.exit(f"Containerfile: COPY {source}: no such file in the repository")
        for file in files:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, target / file)


def main() -> None:
    """Try every instruction in order."""
    started = []
    with tempfile.TemporaryDirectory() as folder:
        image, environment = Path(folder, "image"), Path(folder, "venv")
        image.mkdir()
        venv.create(environment, with_pip=True)
        for name, rest in instructions((ROOT / "Containerfile").read_text()):
            if name == "COPY":
                copy(rest, image)
                print(f"  copied     {rest}")
            elif name == "RUN" and rest.startswith("pip "):
                subprocess.run([f"{environment}/bin/pip", "--quiet", *shlex.split(rest)[1:]], cwd=image, check=True)
                print(f"  ran        {rest}")
            elif name in ("ENTRYPOINT", "CMD"):
                started += json.loads(rest)
            else:
                print(f"  not tried  {name} {rest}")
        program, *arguments = started
        command = [f"{environment}/bin/{program}", *arguments, "--help"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        print(f"  answers    {' '.join([program, *arguments])} --help")


if __name__ == "__main__":
    main()
