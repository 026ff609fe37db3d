"""Every notebook as a page of the site: run when the site is built, and shown with what it printed.

The notebooks under ``docs/notebooks/`` are Python files in jupytext's percent format. They become Markdown before
MkDocs reads them, so that their links are checked and they look like every other page. A notebook that fails, or writes
to standard error, fails the build. With ``MATL_RUN_NOTEBOOKS=false`` they are shown without results.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

log = logging.getLogger("mkdocs.hooks.notebooks")

# Pictures are drawn in black and inlined, and black then takes the colour of the text: they fit light and dark pages.
STYLE = """\
%config InlineBackend.figure_formats = ["svg"]
%config InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "metadata": {"Date": None}}
import matplotlib
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "matl", "figure.figsize": (7.5, 3.6),
                            "figure.facecolor": "none", "axes.facecolor": "none", "legend.frameon": False,
                            "axes.spines.top": False, "axes.spines.right": False})
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put a page and a notebook to download in the place of every percent file."""
    for source in [file for file in files if file.src_uri.startswith("notebooks/") and file.src_uri.endswith(".py")]:
        notebook = jupytext.read(source.abs_src_path)
        if os.environ.get("MATL_RUN_NOTEBOOKS", "true") == "true":
            run(notebook, source.src_uri)
        name = source.src_uri.removesuffix(".py")
        page = f"{render(notebook)}\n\n[Download this notebook]({Path(name).name}.ipynb){{ download }}\n"
        files.remove(source)
        files.append(File.generated(config, f"{name}.ipynb", content=nbformat.writes(notebook)))
        files.append(File.generated(config, f"{name}.md", content=page))
    return files


def run(notebook: nbformat.NotebookNode, name: str) -> None:
    """Execute a notebook in place, with the interpreter and the commands of this environment."""
    # The environment need not be active.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STYLE))
    began = time.monotonic()
    try:
        # Over a socket file: a port would be open to everybody on the machine.
        config = Config(KernelManager={"transport": "ipc"})
        NotebookClient(notebook, kernel_name="python3", timeout=300, coalesce_streams=True, config=config).execute()
    except CellExecutionError as error:
        raise PluginError(f"{name} failed:\n{error}") from error
    del notebook.cells[0]
    log.info("ran %s in %.1f s", name, time.monotonic() - began)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if output.output_type == "error":  # in drawing: not an error of the cell
            raise PluginError(f"{name} failed: {output.ename}: {output.evalue}")
        if output.get("name") == "stderr":
            raise PluginError(f"{name} wrote to standard error:\n{output.text}")
        if "text" in output:
            output.text = re.sub(r"\x1b\[[0-9;]*m|\r", "", output.text)  # what a shell command prints for a terminal


def render(notebook: nbformat.NotebookNode) -> str:
    """The cells of a notebook as Markdown."""
    return "\n\n".join(part for cell in notebook.cells for part in _parts(cell))


def _parts(cell: nbformat.NotebookNode) -> Iterable[str]:
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield _fenced(cell.source, "python")
    for output in cell.get("outputs", []):
        yield _output(output.get("data", {"text/plain": output.get("text", "")}))


def _output(data: dict[str, Any]) -> str:
    if "image/svg+xml" in data:
        picture = re.sub(
            r"^.*?(?=<svg)|<metadata>.*?</metadata>|\n\s*(?=\n)", "", data["image/svg+xml"], flags=re.DOTALL
        )
        return f'<figure class="plot" markdown="0">\n{picture.replace("#000000", "currentColor").strip()}\n</figure>'
    if "text/html" in data:
        return f'<div markdown="0">\n{data["text/html"]}\n</div>'
    return _fenced(data["text/plain"].rstrip("\n"), "{ .text .output }")


def _fenced(text: str, language: str) -> str:
    return f"````` {language}\n{text}\n`````"
