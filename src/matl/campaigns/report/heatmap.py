"""The verdict heat map: clients by rounds, a mark per verdict, with everything a reader can ask about a cell.

Worse verdicts have taller marks, so the picture reads without colour. It is drawn as one path per status, which keeps a
map of many cells small; the script finds the cell under the pointer or the keyboard by arithmetic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.campaigns.report.data import SEVERITY, Clients, History, Verdicts
from matl.campaigns.report.markup import Markup, clean, embed_json, json_text, plural, shorten, tag
from matl.campaigns.report.svg import drawing, key, label
from matl.campaigns.report.theme import STATUS_COLOUR
from matl.records import Status

__all__ = ["HeatMap", "draw", "legend"]

MAX_COLUMNS = 240
"""Columns of a map; longer runs show several rounds in one, with their worst verdict."""

MAX_REASON = 240
"""Characters of a reason that are shown."""

_ABSENT = -1
_ROW = 14.0
_LEFT = 128.0
_TOP = 8.0
_BAND = 26.0
_MAX_CELL = 27.0
_MIN_CUT = 5.0

# Share of the row's height which a mark takes; a rejected cell is an outline with a cross.
_HEIGHT = {
    Status.ACCEPTED: 0.13,
    Status.CLIPPED: 0.34,
    Status.SUSPECTED: 0.56,
    Status.QUARANTINED: 0.86,
    Status.REJECTED: 0.86,
}


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A finished map and what a caption must say about it."""

    markup: Markup
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """Rows of clients with the same ground truth, and in words how many there are."""

    name: str
    size: str
    members: Sequence[History]


def draw(
    identifier: str, title: str, verdicts: Verdicts, clients: Clients | None, *, max_rows: int, detail_bytes: int
) -> HeatMap:
    """Draw the verdicts of a run.

    Parameters
    ----------
    identifier : str
        Makes the ids of the elements unique on the page.
    title : str
        Name of the picture.
    verdicts, clients
        What was judged, and the ground truth.
    max_rows : int
        Clients drawn; of more, an even choice from those judged rightly and wrongly.
    detail_bytes : int
        Room for reasons and evidence behind the cells; when it is spent, earlier rounds show their status alone.
    """
    histories = verdicts.histories(clients)
    bands = _bands(histories, max_rows)
    rows = [history for band in bands for history in band.members]
    span = -(-verdicts.rounds.size // MAX_COLUMNS)
    columns = [verdicts.rounds[i : i + span] for i in range(0, verdicts.rounds.size, span)]
    records = _records(verdicts, [history.unit for history in rows], span, len(columns))
    codes = np.where(records == _ABSENT, _ABSENT, verdicts.status[records])
    picture, geometry = _picture(title, verdicts, bands, codes, columns)
    details, first = _details(verdicts, records, detail_bytes)
    payload = {
        **geometry,
        "clients": [clean(shorten(verdicts.units[history.unit], 80)) for history in rows],
        "truth": [_truth(history.malicious) for history in rows],
        "columns": [str(c[0]) if c.size == 1 else f"{c[0]}\u2013{c[-1]}" for c in columns],
        "statuses": [str(status) for status in SEVERITY],
        "channels": list(verdicts.evidence),
        "status": ["".join(".abcdefgh"[code + 1] for code in row) for row in codes.tolist()],
        **details,
    }
    notes = []
    if len(rows) < len(histories):
        notes.append(
            f"{len(rows)} of {plural(len(histories), 'client')} are drawn, chosen evenly among those wrongly kept "
            "out, missed, rightly kept out and rightly left alone; verdicts.csv holds all of them."
        )
    if span > 1:
        notes.append(f"A column stands for {span} rounds and shows the worst verdict among them.")
    if first > 0:
        notes.append(
            f"Reasons and evidence are embedded from round {columns[first][0] if first < len(columns) else 'none'} on; "
            "verdicts.csv holds the earlier ones."
        )
    region = tag(
        "div",
        picture,
        tag("div", class_="cursor", hidden=True),
        class_="heat",
        tabindex="0",
        role="application",
        aria_roledescription="heat map",
        aria_label=f"{title}. Use the arrow keys to read single verdicts.",
        data_source=f"{identifier}-data",
    )
    return HeatMap(Markup(region + embed_json(f"{identifier}-data", payload)), tuple(notes))


def legend() -> Markup:
    """What the marks mean."""
    items = [tag("span", key(_mark(status, 2.0, 0.0, 22.0), width=26), str(status)) for status in SEVERITY]
    return tag("p", *items, tag("span", key(width=26), "blank: did not take part"), class_="legend")


def _truth(malicious: bool | None) -> str:
    return "unknown" if malicious is None else "malicious" if malicious else "honest"


def _choose(histories: Sequence[History], limit: int) -> list[History]:
    """At most ``limit`` histories: as many of each kind of right and wrong judgement as there is room for."""
    kinds: dict[tuple[bool | None, bool], list[History]] = {}
    for history in sorted(histories, key=_row_order):
        kinds.setdefault((history.malicious, history.out), []).append(history)
    chosen: list[History] = []
    # The smallest kinds first: what they leave over goes to the larger ones.
    for left, kind in zip(range(len(kinds), 0, -1), sorted(kinds.values(), key=len), strict=True):
        room = (limit - len(chosen)) // left
        places = np.linspace(0, len(kind) - 1, min(room, len(kind))).round().astype(int)
        chosen += [kind[place] for place in places]
    return chosen


def _row_order(history: History) -> tuple[bool, int, int, int]:
    first = history.first_out
    return (first is None, 0 if first is None else first, -history.rounds_out, history.unit)


def _bands(histories: Sequence[History], limit: int) -> list[Band]:
    """Rows by ground truth: malicious, honest, unknown; the first caught on top."""
    chosen = _choose(histories, limit)
    bands = []
    for malicious in (True, False, None):
        members = sorted((h for h in chosen if h.malicious is malicious), key=_row_order)
        total = sum(h.malicious is malicious for h in histories)
        size = f"{total:,}" if len(members) == total else f"{len(members):,} of {total:,} drawn"
        if members:
            bands.append(Band(_truth(malicious), size, members))
    return bands


def _records(verdicts: Verdicts, units: Sequence[int], span: int, columns: int) -> NDArray[np.int64]:
    """Index of the worst record of each cell, the latest of equals; -1 where the client did not take part."""
    place = np.full(len(verdicts.units), -1, np.int64)
    place[list(units)] = np.arange(len(units))
    row = place[verdicts.unit]
    column = np.searchsorted(verdicts.rounds, verdicts.round) // span
    index = np.flatnonzero(row >= 0)
    index = index[np.argsort(verdicts.status[index], kind="stable")]
    cells = np.full((len(units), columns), _ABSENT, np.int64)
    # Assignment keeps the last of equal targets: sorted by severity, that is the worst.
    cells[row[index], column[index]] = index
    return cells


def _picture(
    title: str,
    verdicts: Verdicts,
    bands: Sequence[Band],
    codes: NDArray[np.int64],
    columns: Sequence[NDArray[np.int64]],
) -> tuple[Markup, dict[str, Any]]:
    """The drawing, and where its cells are."""
    cell = min(_MAX_CELL, (980 - _LEFT) / len(columns))
    right = _LEFT + cell * len(columns)
    paths: dict[Status, list[str]] = {status: [] for status in SEVERITY}
    under: list[Markup] = []
    cuts: list[str] = []
    tops: list[float] = []
    top = _TOP
    for band in bands:
        colour = f"var(--{band.name})" if band.name != "unknown" else "var(--muted)"
        height = _ROW * len(band.members)
        under.append(label(0, top + 14, f"{band.name} ({band.size})", class_="series", fill=colour))
        top += _BAND - 4
        under.append(tag("rect", x="0", y=top, width="4", height=height, fill=colour))
        under.append(tag("rect", x=_LEFT, y=top, width=right - _LEFT, height=height, class_="band"))
        if cell >= _MIN_CUT:
            cuts += [f"M{_LEFT + cell * i:.1f} {top:.1f}v{height:.1f}" for i in range(1, len(columns))]
        for history in band.members:
            under.append(label(12, top + 10.5, shorten(clean(verdicts.units[history.unit]), 17), class_="client"))
            _add_row(paths, codes[len(tops)], top, cell)
            tops.append(top)
            top += _ROW
        top += 8
    counts = ", ".join(f"{int((codes == i).sum()):,} {SEVERITY[i]}" for i in np.unique(codes) if i != _ABSENT)
    rounds = verdicts.rounds.size
    width, height = max(right + 6, 300.0), top + 22
    picture = drawing(
        width,
        height,
        title,
        f"{plural(len(tops), 'client')} in rows, {plural(rounds, 'round')} in columns. Cells: {counts}.",
        *under,
        *(_status_path(status, "".join(paths[status])) for status in SEVERITY if paths[status]),
        # Thin lines in the colour of the ground part the cells of a bar, at no cost per cell.
        tag("path", d="".join(cuts), class_="cuts"),
        _round_names(columns, cell, top + 6),
    )
    return picture, {"width": width, "left": _LEFT, "cell": round(cell, 3), "row": _ROW, "tops": tops}


def _round_names(columns: Sequence[NDArray[np.int64]], cell: float, y: float) -> Markup:
    every = math.ceil(44 / cell) if cell < 22 else 2
    names = [
        label(_LEFT + cell * (i + 0.5), y, str(columns[i][0]), anchor="middle", class_="tick")
        for i in range(0, len(columns), every)
    ]
    return tag("g", label(_LEFT - 10, y, "round", anchor="end", class_="axis-name"), *names)


def _add_row(paths: Mapping[Status, list[str]], codes: NDArray[np.int64], top: float, cell: float) -> None:
    """Append the marks of one row: neighbours of equal status become one bar, rejected cells stay single."""
    x = 0
    for code, group in itertools.groupby(codes.tolist()):
        length = len(list(group))
        if code != _ABSENT:
            status = SEVERITY[code]
            step = 1 if status is Status.REJECTED else length
            for offset in range(0, length, step):
                paths[status].append(_outline(status, _LEFT + cell * (x + offset), top, cell * step))
        x += length


def _outline(status: Status, x: float, top: float, width: float) -> str:
    height = _ROW * _HEIGHT[status]
    y = top + (_ROW - height) / 2
    if status is Status.REJECTED:
        inset, size = 1.0, width - 2.0
        return (
            f"M{x + inset:.1f} {y:.1f}h{size:.1f}v{height:.1f}h{-size:.1f}z"
            f"l{size:.1f} {height:.1f}m0 {-height:.1f}l{-size:.1f} {height:.1f}"
        )
    return f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z"


def _status_path(status: Status, path: str) -> Markup:
    colour = STATUS_COLOUR[status]
    if status is Status.REJECTED:
        return tag("path", d=path, fill="none", stroke=colour, stroke_width="1.2")
    return tag("path", d=path, fill=colour)


def _mark(status: Status, x: float, top: float, width: float) -> Markup:
    return _status_path(status, _outline(status, x, top, width))


def _details(verdicts: Verdicts, records: NDArray[np.int64], budget: int) -> tuple[dict[str, Any], int]:
    """Weight, reason and evidence of each cell, the latest columns first while there is room, and the first told."""
    reasons: dict[str, int] = {"": 0}
    told: list[list[Any]] = []
    spent = 0
    first = records.shape[1]
    while first > 0:
        known = len(reasons)
        column = [_detail(verdicts, record, reasons) for record in records[:, first - 1].tolist()]
        added = list(reasons)[known:]
        spent += len(json_text([column, added]).encode())
        if spent > budget:
            for reason in added:
                del reasons[reason]
            break
        told.append(column)
        first -= 1
    return {"first": first, "reasons": list(reasons), "details": told[::-1]}, first


def _detail(verdicts: Verdicts, record: int, reasons: dict[str, int]) -> list[Any] | int:
    if record == _ABSENT:
        return 0
    text = clean(shorten(verdicts.reasons[record], MAX_REASON))
    reason = reasons.setdefault(text, len(reasons))
    values = [_short(float(channel[record])) for channel in verdicts.evidence.values()]
    return [_short(float(verdicts.weight[record])), reason, *values]


def _short(value: float) -> float | int | None:
    """Three significant figures, which is what is shown; None where not defined."""
    if value != value:
        return None
    rounded = float(f"{value:.3g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e6 else rounded
