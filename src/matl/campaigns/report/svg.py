"""Drawing: scales, axes and marks, as compact SVG that takes its colours from the page."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl.campaigns.report.markup import Markup, tag

__all__ = [
    "DASHES",
    "MARKERS",
    "Scale",
    "band",
    "drawing",
    "key",
    "label",
    "marks",
    "nice_range",
    "polyline",
    "x_axis",
    "y_axis",
]

Floats = NDArray[np.float64]

MARKERS = (
    "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "m-3-3h6v6h-6z",
    "m0-4.5 4.2 7.5h-8.4z",
    "m0-4.5 4.5 4.5-4.5 4.5-4.5-4.5z",
    "m-4-1.2h2.8v-2.8h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8z",
    "m0 4.5 4.2-7.5h-8.4z",
)
"""Outlines of point markers, relative to their centre."""

DASHES = (None, "7 3", "2 3", "10 3 2 3", "4 2", "1 4")
"""Dash patterns; ``None`` is a solid line."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values to pixels; values outside are drawn at the edge.

    Examples
    --------
    >>> Scale(0.0, 10.0, 100.0, 200.0)(5.0)
    150.0
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """About ``count`` round values within the range.

        Examples
        --------
        >>> Scale(0.0, 1.0, 0.0, 1.0).ticks(5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        """
        step = _nice_step((self.high - self.low) / count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _nice_step(rough: float) -> float:
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1.0, 2.0, 5.0) if rough <= factor * power * 1.001), 10.0 * power)


def nice_range(values: Floats, *, steps: int) -> tuple[float, float]:
    """A range of round bounds around finite values.

    Examples
    --------
    >>> nice_range(np.array([0.13, 0.92]), steps=5)
    (0.0, 1.0)
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-6):
        low, high = low - 0.5 * max(abs(low), 1e-6), high + 0.5 * max(abs(high), 1e-6)
    step = _nice_step((high - low) / steps)
    return (
        float(f"{math.floor(low / step + 1e-9) * step:.12g}"),
        float(f"{math.ceil(high / step - 1e-9) * step:.12g}"),
    )


def drawing(width: float, height: float, title: str, description: str, *children: object, class_: str = "") -> Markup:
    """An SVG image with its name and description for those who do not see it."""
    # The id follows from the name, so that the same run gives the same report.
    name = "svg-" + hashlib.sha256(f"{width} {title}".encode()).hexdigest()[:10]
    return tag(
        "svg",
        tag("title", title, id=f"{name}-t"),
        tag("desc", description, id=f"{name}-d"),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        role="img",
        aria_labelledby=f"{name}-t",
        aria_describedby=f"{name}-d",
        class_=class_ or None,
    )


def label(
    x: float, y: float, text: str, *, anchor: str = "start", class_: str = "t", fill: str | None = None
) -> Markup:
    """A line of text."""
    return tag(
        "text",
        text,
        x=float(x),
        y=float(y),
        text_anchor=anchor if anchor != "start" else None,
        class_=class_,
        fill=fill,
    )


def y_axis(scale: Scale, left: float, right: float, ticks: Iterable[tuple[float, str]]) -> Markup:
    """Horizontal grid lines with their values to the left."""
    ticks = list(ticks)
    grid = "".join(f"M{left:.1f} {scale(value):.1f}H{right:.1f}" for value, _ in ticks)
    texts = [label(left - 8, scale(value) + 4, text, anchor="end", class_="tick") for value, text in ticks]
    return tag("g", tag("path", d=grid, class_="grid"), *texts)


def x_axis(scale: Scale, bottom: float, ticks: Iterable[float]) -> Markup:
    """Ticks and whole numbers below the line at ``bottom``."""
    ticks = list(ticks)
    line = f"M{scale.start:.1f} {bottom:.1f}H{scale.end:.1f}" + "".join(
        f"M{scale(value):.1f} {bottom:.1f}v4" for value in ticks
    )
    texts = [label(scale(value), bottom + 18, f"{value:g}", anchor="middle", class_="tick") for value in ticks]
    return tag("g", tag("path", d=line, class_="axis"), *texts)


def points(
    x: Scale, y: Scale, xs: Sequence[float] | NDArray[np.generic], ys: Floats
) -> list[tuple[float, float] | None]:
    """Pixels of the points of a curve; ``None`` where it is not defined."""
    return [(x(float(a)), y(float(b))) if math.isfinite(b) else None for a, b in zip(xs, ys.tolist(), strict=True)]


def polyline(
    pixels: Sequence[tuple[float, float] | None], colour: str, *, dash: str | None = None, width: float = 2.0
) -> Markup:
    """A curve, broken where it is not defined."""
    path, pen = [], "M"
    for point in pixels:
        if point is not None:
            path.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "M" if point is None else "L"
    return tag(
        "path",
        d="".join(path),
        fill="none",
        stroke=colour,
        stroke_width=f"{width:g}",
        stroke_dasharray=dash,
        stroke_linejoin="round",
    )


def band(
    upper: Sequence[tuple[float, float] | None], lower: Sequence[tuple[float, float] | None], colour: str
) -> Markup:
    """The area between two curves that are defined at the same places."""
    parts = []
    pairs = zip(upper, lower, strict=True)
    for defined, group in itertools.groupby(pairs, key=lambda pair: None not in pair):
        if not defined:
            continue
        above, below = zip(*group, strict=True)
        outline = [point for point in (*above, *reversed(below)) if point is not None]
        parts.append("M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in outline) + "z")
    return tag("path", d="".join(parts), fill=colour, fill_opacity="0.16")


def marks(pixels: Iterable[tuple[float, float]], colour: str, marker: int, *, hollow: bool = False) -> Markup:
    """The same marker at every point, as one path."""
    path = "".join(f"M{px:.1f} {py:.1f}{MARKERS[marker % len(MARKERS)]}" for px, py in pixels)
    return tag("path", d=path, fill="var(--paper)" if hollow else colour, stroke=colour, stroke_width="1.4")


def key(*children: object, width: float = 28, height: float = 14) -> Markup:
    """A small picture for a legend, whose words stand beside it."""
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        aria_hidden="true",
    )
