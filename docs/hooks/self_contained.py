"""No page of the site may load anything from another host: reading it tells nobody, and it works without a network."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

_HTML = re.compile(
    r"<(?:script|link|img|iframe|source|video|audio|object|embed)\b[^>]*?(?:src|href|data)=[\"']?((?:https?:)?//[^\"'\s>]+)"
)
_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"'\s)]+)")


def on_post_build(config: MkDocsConfig) -> None:
    """Look through the built pages and style sheets."""
    found = [
        f"{path.relative_to(config.site_dir)}: {address}"
        for pattern, suffix in ((_HTML, "html"), (_CSS, "css"))
        for path in sorted(Path(config.site_dir).rglob(f"*.{suffix}"))
        for address in pattern.findall(path.read_text("utf-8"))
    ]
    if found:
        raise PluginError("the site would load from elsewhere:\n" + "\n".join(found))
