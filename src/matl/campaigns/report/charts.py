"""The charts of a report that are drawn over rounds or clients; the verdicts have their own, in `heatmap`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl.campaigns.report.data import Clients, Entry, Floats, Run, Verdicts
from matl.campaigns.report.markup import Markup, number, percent, plural, shorten, tag, words
from matl.campaigns.report.svg import (
    DASHES,
    Scale,
    band,
    drawing,
    key,
    label,
    marks,
    nice_range,
    points,
    polyline,
    x_axis,
    y_axis,
)
from matl.campaigns.report.theme import SERIES
from matl.learning.partition import PartitionStatistics
from matl.simulation.scoring import auroc

__all__ = [
    "MAX_BAND_ROUNDS",
    "Curve",
    "accuracy_chart",
    "evidence_charts",
    "partition_chart",
    "rates_chart",
    "trust_chart",
    "truth_legend",
]

MAX_PARTITION_CLIENTS = 120
"""Columns of the partition picture; more would be thinner than its dots."""

MAX_STRIP_POINTS = 100
"""Dots a group may have in a strip; beyond it, evenly spaced order statistics keep the shape."""

MAX_BAND_ROUNDS = 150
"""Rounds an evidence chart shows; more could not be told apart in its width."""

MAX_TRUST_CLIENTS = 150
"""Clients a trust chart shows; more would be thinner than their marks."""

HONEST, MALICIOUS = "var(--honest)", "var(--malicious)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A line over rounds with its look; values in [0, 1], NaN where not defined."""

    name: str
    xs: NDArray[np.int64]
    ys: Floats
    colour: str
    dash: str | None
    marker: int
    width: float = 2.0

    @property
    def final(self) -> float:
        """The last value that is defined."""
        finite = self.ys[np.isfinite(self.ys)]
        return float(finite[-1]) if finite.size else math.nan


def accuracy_chart(entries: Sequence[Entry], ceiling: float | None) -> Markup | None:
    """Accuracy over rounds for every rule whose rounds are at hand, named at the end of its line."""
    curves = accuracy_curves(entries)
    if not curves:
        return None
    if ceiling is not None and not any(entry.is_ceiling and entry.run for entry in entries):
        level = np.full(curves[0].xs.size, ceiling)
        curves.append(
            Curve(name="ceiling", xs=curves[0].xs, ys=level, colour="var(--ink)", dash="2 4", marker=0, width=1.3)
        )
    values = np.concatenate([curve.ys for curve in curves])
    low, high = nice_range(values, steps=6)
    title = "Accuracy on the test set over rounds"
    return _two_widths(lambda width: _line_chart(curves, width, (max(low, 0.0), min(high, 1.0)), title))


def accuracy_curves(entries: Sequence[Entry]) -> list[Curve]:
    """The accuracy curves with their colours, dashes and markers; judges are drawn heavier."""
    curves = []
    look = 0
    for entry in entries:
        rounds = entry.run.rounds if entry.run else None
        if rounds is None or not rounds.index.size:
            continue
        if entry.is_ceiling:
            curve = Curve(
                name=words(entry.label),
                xs=rounds.index,
                ys=rounds.column("accuracy"),
                colour="var(--ink)",
                dash="2 4",
                marker=0,
                width=1.3,
            )
        else:
            curve = Curve(
                name=words(entry.label),
                xs=rounds.index,
                ys=rounds.column("accuracy"),
                colour=f"var(--series-{look % SERIES})",
                dash=None if entry.gives_verdicts else DASHES[1 + look % (len(DASHES) - 1)],
                marker=look + look // SERIES,
                width=2.6 if entry.gives_verdicts else 1.7,
            )
            look += 1
        curves.append(curve)
    return curves


def rates_chart(run: Run, suffix: str) -> Markup | None:
    """Share of malicious and of honest clients kept out, round by round; covers every client of the run."""
    if run.rounds is None:
        return None
    caught, wronged = run.rounds.column("true_positive_rate"), run.rounds.column("false_positive_rate")
    curves = [
        Curve(name=name, xs=run.rounds.index, ys=ys, colour=colour, dash=dash, marker=marker)
        for name, ys, colour, dash, marker in (
            ("malicious", caught, MALICIOUS, "6 3", 3),
            ("honest", wronged, HONEST, None, 0),
        )
        if np.isfinite(ys).any()
    ]
    if not curves:
        return None
    title = f"Share of clients quarantined or rejected in each round{suffix}"
    return _two_widths(lambda width: _line_chart(curves, width, (0.0, 1.0), title, height=190))


def _two_widths(draw: Callable[[float], Markup]) -> Markup:
    """The same chart for a page and for a telephone: text keeps its size where a scaled picture would not."""
    return tag("div", tag("div", draw(980.0), class_="roomy"), tag("div", draw(372.0), class_="narrow"))


def _line_chart(
    curves: Sequence[Curve], width: float, limits: tuple[float, float], title: str, *, height: float = 380
) -> Markup:
    narrow = width < 600
    longest = max(len(shorten(curve.name, 18)) for curve in curves)
    left, right, top, bottom = 46.0, (70.0 if narrow else 78.0) + 7.6 * longest, 12.0, height - 42
    rounds = np.concatenate([curve.xs for curve in curves])
    x = Scale(float(rounds.min()), float(max(rounds.max(), rounds.min() + 1)), left, width - right)
    y = Scale(*limits, bottom, top)
    digits = 0 if limits[1] - limits[0] > 0.05 else 1
    parts = [
        y_axis(y, left, width - right, [(v, percent(v, digits)) for v in y.ticks(5)]),
        x_axis(x, bottom, [v for v in x.ticks(3 if narrow else 8) if v == int(v)]),
        label((left + width - right) / 2, bottom + 36, "round", anchor="middle", class_="axis-name"),
    ]
    for i, curve in enumerate(curves):
        pixels = points(x, y, curve.xs, curve.ys)
        parts.append(polyline(pixels, curve.colour, dash=curve.dash, width=curve.width))
        if curve.width >= 1.5:
            step = max(1, round(len(pixels) / (5 if narrow else 10)))
            # Each series starts its markers elsewhere, so that curves which coincide still show who runs there.
            shown = [p for p in pixels[(i * step) // len(curves) :: step] if p is not None]
            parts.append(marks(shown, curve.colour, curve.marker))
    heights = _spread([y(curve.final) if math.isfinite(curve.final) else bottom for curve in curves], 17.0, bottom + 4)
    end = width - right
    for curve, place in zip(curves, heights, strict=True):
        last = y(curve.final) if math.isfinite(curve.final) else bottom
        parts.append(
            tag("path", d=f"M{end + 3:.1f} {last:.1f}L{end + 15:.1f} {place:.1f}", class_="leader", stroke=curve.colour)
        )
        if curve.width >= 1.5:
            parts.append(marks([(end + 21, place)], curve.colour, curve.marker))
        text = f"{shorten(curve.name, 18)} {percent(curve.final)}"
        parts.append(label(end + 30, place + 4, text, class_="series", fill=curve.colour))
    final = "; ".join(f"{curve.name} ends at {percent(curve.final)}" for curve in curves)
    return drawing(width, height, title, f"{title}, {plural(np.unique(rounds).size, 'round')}. {final}.", *parts)


def _spread(places: Sequence[float], gap: float, limit: float) -> list[float]:
    """Heights moved apart to at least ``gap`` and kept above ``limit``, in the order given."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [0.0] * len(places)
    previous = -math.inf
    for i in order:
        previous = moved[i] = max(places[i], previous + gap)
    limit += gap
    for i in reversed(order):
        limit = moved[i] = min(moved[i], limit - gap)
    return moved


def truth_legend() -> Markup:
    """Honest and malicious as they are drawn everywhere in the report."""
    honest = key(polyline([(0, 7), (28, 7)], HONEST), marks([(14, 7)], HONEST, 0))
    malicious = key(polyline([(0, 7), (28, 7)], MALICIOUS, dash="6 3"), marks([(14, 7)], MALICIOUS, 3))
    return tag("p", tag("span", honest, "honest"), tag("span", malicious, "malicious"), class_="legend")


def evidence_charts(verdicts: Verdicts, clients: Clients | None, suffix: str) -> Markup | None:
    """One small chart per evidence channel, those that tell the groups apart best first."""
    truth = verdicts.truth(clients)
    malicious = np.array([value is True for value in truth])[verdicts.unit]
    honest = np.array([value is False for value in truth])[verdicts.unit]
    charts = []
    for name, values in verdicts.evidence.items():
        if name in ("trust_low", "trust_high"):
            continue  # the trust chart shows them
        seen = np.isfinite(values)
        groups = (seen & honest, seen & malicious)
        if any(group.any() for group in groups):
            separation = auroc(values[groups[0]], values[groups[1]])
            rank = abs(separation - 0.5) if math.isfinite(separation) else -1.0
            charts.append((-rank, name, _evidence_chart(name, suffix, verdicts, values, groups, separation)))
    if not charts:
        return None
    return tag("div", *(chart for _, _, chart in sorted(charts, key=lambda item: item[:2])), class_="small-multiples")


def trust_chart(verdicts: Verdicts, clients: Clients | None, suffix: str) -> Markup | None:
    """Composite trust of every client when it was last judged, with its interval, the least trusted first."""
    known = [history for history in verdicts.histories(clients) if math.isfinite(history.trust[0])]
    if not known:
        return None
    known.sort(key=lambda history: history.trust[0])
    shown = [known[i] for i in _thin(np.arange(len(known)), MAX_TRUST_CLIENTS)]

    def draw(width: float) -> Markup:
        left, right, top, bottom = 46.0, width - 8, 10.0, 200.0
        x, y = Scale(-0.5, len(shown) - 0.5, left, right), Scale(0.0, 1.0, bottom, top)
        parts = [
            y_axis(y, left, right, [(v, number(v)) for v in y.ticks(4)]),
            label(
                (left + right) / 2, bottom + 20, "clients, the least trusted first", anchor="middle", class_="axis-name"
            ),
        ]
        looks = {True: (MALICIOUS, 3), False: (HONEST, 0), None: ("var(--ink)", 1)}
        for place, history in enumerate(shown):
            colour, marker = looks[history.malicious]
            score, low, high = history.trust
            parts.append(polyline([(x(place), y(low)), (x(place), y(high))], colour, width=1.2))
            parts.append(marks([(x(place), y(score))], colour, marker))
        ends = ", ".join(f"{number(history.trust[0], 2)}" for history in (shown[0], shown[-1]))
        return drawing(
            width, 232, f"Composite trust of each client{suffix}", f"Least and most trusted: {ends}.", *parts
        )

    return _two_widths(draw)


def _evidence_chart(
    name: str, suffix: str, verdicts: Verdicts, values: Floats, groups: tuple[NDArray[np.bool_], ...], separation: float
) -> Markup:
    width, height, left, top = 316.0, 186.0, 46.0, 10.0
    bottom, end = height - 36, 236.0
    rounds = _thin(verdicts.rounds, MAX_BAND_ROUNDS)
    quantiles = [_quantiles(values, group, verdicts.round, rounds) for group in groups]
    low, high = nice_range(np.concatenate([q.ravel() for q in quantiles]), steps=4)
    x = Scale(float(rounds[0]), float(max(rounds[-1], rounds[0] + 1)), left, end)
    y = Scale(low, high, bottom, top)
    parts = [
        y_axis(y, left, width - 4, [(v, number(v)) for v in y.ticks(4)]),
        x_axis(x, bottom, dict.fromkeys([float(rounds[0]), float(rounds[-1])])),
        label((left + end) / 2, bottom + 18, "round", anchor="middle", class_="axis-name"),
        label((end + width) / 2 + 6, bottom + 18, "last round", anchor="middle", class_="axis-name"),
    ]
    looks = ((HONEST, None, 0, 262.0), (MALICIOUS, "6 3", 3, 292.0))
    for (colour, dash, marker, centre), group, q in zip(looks, groups, quantiles, strict=True):
        lower, middle, upper = (points(x, y, rounds, row) for row in q)
        parts += [band(upper, lower, colour), polyline(middle, colour, dash=dash)]
        last = values[group & (verdicts.round == rounds[-1])]
        parts.append(tag("g", marks(_strip(last, y, centre), colour, marker), class_="strip"))
    told = f"AUROC {separation:.2f}" if math.isfinite(separation) else ""
    medians = ", ".join(
        f"{who} {number(q[1][np.isfinite(q[1])][-1])}"
        for who, q in zip(("honest", "malicious"), quantiles, strict=True)
        if np.isfinite(q[1]).any()
    )
    title = f"Evidence channel {words(name)} by round{suffix}"
    picture = drawing(width, height, title, f"{told} Last medians: {medians}.".lstrip(), *parts)
    heading = tag("h3", shorten(words(name), 40), tag("span", told, class_="aside"))
    return tag("div", heading, picture, class_="panel")


def _quantiles(
    values: Floats, group: NDArray[np.bool_], record: NDArray[np.int64], rounds: NDArray[np.int64]
) -> Floats:
    """5, 50 and 95 % quantiles of a group in each round, shape (3, rounds); NaN where nobody was seen."""
    chosen, times = values[group], record[group]
    starts = np.searchsorted(times, rounds, side="left")
    ends = np.searchsorted(times, rounds, side="right")
    columns = [
        np.quantile(chosen[a:b], (0.05, 0.5, 0.95)) if b > a else np.full(3, np.nan)
        for a, b in zip(starts, ends, strict=True)
    ]
    return np.stack(columns, axis=1)


def _strip(values: Floats, y: Scale, centre: float) -> list[tuple[float, float]]:
    """Points beside each other where they would cover each other."""
    if values.size > MAX_STRIP_POINTS:
        values = np.quantile(values, np.linspace(0, 1, MAX_STRIP_POINTS))
    placed: list[tuple[float, float]] = []
    crowd: dict[int, int] = {}
    for value in np.sort(values).tolist():
        height = y(value)
        cell = round(height / 4)
        nth = crowd[cell] = crowd.get(cell, 0) + 1
        offset = min(nth // 2 * 3.2, 12.0) * (-1 if nth % 2 else 1)
        placed.append((centre + offset, height))
    return placed


def partition_chart(clients: Clients) -> tuple[Markup, int] | None:
    """Which client holds how much of which class, and how many clients are drawn."""
    if not clients.counts.size or not clients.counts.any():
        return None
    groups = [_by_class(clients, clients.malicious), _by_class(clients, ~clients.malicious)]
    total = len(clients.ids)
    shown = [_thin(group, max(1, round(MAX_PARTITION_CLIENTS * group.size / total))) for group in groups]
    count = sum(group.size for group in shown)
    classes = clients.counts.shape[1]
    row = min(24.0, max(9.0, 480.0 / classes))
    names = [shorten(name, 18) for name in clients.names]
    left, top, gap = max(78.0, 18 + 6.8 * max(map(len, names))), 34.0, 18.0
    column = min(20.0, (980 - left - gap - 6) / count)
    bottom = top + row * classes
    bars, divergences = bottom + 44, bottom + 80
    parts = [
        _class_names(names, left, top, row),
        label(left - 10, bars, "examples", anchor="end", class_="tick"),
        label(left - 10, divergences, "divergence", anchor="end", class_="tick"),
    ]
    held = clients.counts.sum(axis=1)
    divergence = np.zeros(total)
    divergence[held > 0] = PartitionStatistics.of(clients.counts[held > 0]).divergence
    start = left
    for group, (name, colour, cap) in zip(
        shown, (("malicious", MALICIOUS, "square"), ("honest", HONEST, "round")), strict=True
    ):
        if not group.size:
            continue
        end = start + column * group.size
        full = int((clients.malicious if name == "malicious" else ~clients.malicious).sum())
        parts.append(tag("path", d=f"M{start:.1f} {top - 9:.1f}H{end - 2:.1f}", stroke=colour, stroke_width="3"))
        parts.append(label(start, top - 16, f"{name} ({full:,})", class_="series", fill=colour))
        parts.append(_dots(clients.counts, group, start, top, column, row, colour, cap))
        parts.append(_bars(clients.samples[group] / max(int(clients.samples.max()), 1), start, bars, column, colour))
        parts.append(_bars(divergence[group], start, divergences, column, colour))
        start = end + gap
    width = max(start - gap + 6, 320.0)
    description = (
        f"{plural(total, 'client')} in columns, {plural(classes, 'class')} in rows; a larger dot is more examples. "
        f"Clients hold {int(clients.samples.min()):,} to {int(clients.samples.max()):,} examples each."
    ).replace("classs", "classes")
    return drawing(width, divergences + 8, "How the training data are spread over clients", description, *parts), count


def _by_class(clients: Clients, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Chosen clients ordered by their main class, the purest first."""
    index = np.flatnonzero(chosen)
    counts = clients.counts[index]
    purity = counts.max(axis=1, initial=0) / np.maximum(counts.sum(axis=1), 1)
    return index[np.lexsort((-purity, counts.argmax(axis=1)))]


def _thin(items: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most ``limit`` items, evenly spaced."""
    if items.size <= limit:
        return items
    return items[np.linspace(0, items.size - 1, limit).round().astype(np.int64)]


def _class_names(names: Sequence[str], left: float, top: float, row: float) -> Markup:
    step = max(1, math.ceil(12 / row))
    texts = [
        label(left - 10, top + row * (k + 0.5) + 4, names[k], anchor="end", class_="tick")
        for k in range(0, len(names), step)
    ]
    return tag("g", *texts)


def _dots(
    counts: NDArray[np.int64],
    group: NDArray[np.intp],
    start: float,
    top: float,
    column: float,
    row: float,
    colour: str,
    cap: str,
) -> Markup:
    # A stroke of no length with a round or square cap is a dot in nine bytes: one path for each of a few sizes.
    largest = min(column, row) * (0.96 if cap == "round" else 0.82)
    level = np.ceil(8 * np.sqrt(counts[group] / counts.max())).astype(int)
    paths = []
    for size in range(1, 9):
        places = np.argwhere(level == size)
        path = "".join(f"M{start + column * (i + 0.5):.1f} {top + row * (k + 0.5):.1f}h0" for i, k in places)
        if path:
            paths.append(tag("path", d=path, stroke_width=f"{largest * size / 8:.2f}"))
    return tag("g", *paths, stroke=colour, stroke_linecap=cap)


def _bars(shares: Floats, start: float, bottom: float, column: float, colour: str) -> Markup:
    path = "".join(
        f"M{start + column * (i + 0.5):.1f} {bottom:.1f}v{-26 * share:.1f}" for i, share in enumerate(shares)
    )
    return tag("path", d=path, stroke=colour, stroke_width=f"{max(column * 0.62, 1):.1f}")
