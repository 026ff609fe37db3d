"""Every command and option of ``matl`` on the page of the command line, from the program itself."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from matl.cli import app

_MARKER = "<!-- every command -->"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the commands in the place of the marker."""
    if _MARKER not in markdown:
        return markdown
    group = typer.main.get_command(app)
    return markdown.replace(_MARKER, "\n".join(line for name in group.commands for line in _command(group, name)))


def _command(group: Any, name: str, program: str = "matl") -> Iterable[str]:
    command, path = group.commands[name], f"{program} {name}"
    if hasattr(command, "commands"):  # a group of its own, such as `matl verify`
        yield from (line for each in command.commands for line in _command(command, each, path))
        return
    context = typer.Context(command, info_name=path)
    yield f"### {path}\n\n{command.help}\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    for panel, options in groupby(command.params, key=lambda option: getattr(option, "rich_help_panel", None)):
        yield f"| {panel or 'option'} | |\n|---|---|"
        for option in options:
            name_and_kind, text = option.get_help_record(context)
            yield f"| `{name_and_kind}` | {text.replace('|', '&#124;').replace('  [', ' [')} |"
        yield ""
