"""Colours of a report in light and dark, and its style sheet.

Series follow Okabe and Ito's palette, which colour-blind readers can tell apart, darkened or lightened until each one
is readable as text on the page.
"""

from __future__ import annotations

from importlib.resources import files

from matl.records import Status

__all__ = ["PALETTE", "SERIES", "STATUS_COLOUR", "asset", "style"]

PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#fdfcf9", "#15171b"),
    "panel": ("#f5f3ee", "#1d2025"),
    "ink": ("#1c1e22", "#e9e6df"),
    "muted": ("#5b5f68", "#a5a9b2"),
    "rule": ("#dedbd3", "#33373e"),
    "honest": ("#0a66a0", "#6db8ee"),
    "malicious": ("#b84300", "#ff9a5c"),
    "accepted": ("#5f6d7b", "#7f8fa0"),
    "clipped": ("#0a747a", "#4cc4c9"),
    "suspected": ("#9a6400", "#e8b23f"),
    "quarantined": ("#8a2f6d", "#e08fc4"),
    "rejected": ("#1c1e22", "#f3f0ea"),
    "series-0": ("#0a66a0", "#6db8ee"),
    "series-1": ("#b84300", "#ff9a5c"),
    "series-2": ("#00735a", "#43c9a0"),
    "series-3": ("#9c3d78", "#e59ac8"),
    "series-4": ("#8a5a00", "#ecb84c"),
    "series-5": ("#5750a8", "#b0a9f5"),
}
"""CSS variables: name to (light, dark)."""

SERIES = sum(name.startswith("series-") for name in PALETTE)
"""How many line colours there are before they repeat with another dash pattern."""

STATUS_COLOUR = {status: f"var(--{status})" for status in Status}


def asset(name: str) -> str:
    """A text file that lies beside this module."""
    return files(__package__).joinpath(name).read_text("utf-8")


def style() -> str:
    """The style sheet with the palette in front; paper is always light."""
    light, dark = ("".join(f"--{name}:{values[i]};" for name, values in PALETTE.items()) for i in (0, 1))
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n"
        f"{asset('report.css')}{_shades()}"
    )


def _shades() -> str:
    """Ten strengths of what is good and of what is bad, behind figures that must stay readable."""
    hues = (("good", "honest"), ("bad", "malicious"))
    return "".join(
        f".{name}-{level}{{background:color-mix(in srgb,var(--{hue}) {4.5 * level:g}%,var(--paper))}}\n"
        for name, hue in hues
        for level in range(1, 11)
    )
