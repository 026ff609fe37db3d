"""The tables of a report: what every rule achieved, and who was accused with what right."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matl.campaigns.report.data import Clients, Entry, History, Report, Verdicts
from matl.campaigns.report.markup import UNDEFINED, Markup, clean, duration, percent, shorten, tag, words

__all__ = ["MAX_ACCUSED", "accused", "count", "groups", "outcomes"]

MAX_ACCUSED = 300
"""Clients named in the tables of a page, shared between its runs."""

_MAX_REASON = 300


def groups(report: Report) -> tuple[int, int]:
    """How many clients are malicious and honest; 0 where it is not known."""
    clients, malicious = report.fact("clients"), report.fact("malicious")
    if not isinstance(clients, int) or not isinstance(malicious, int):
        return 0, 0
    return malicious, clients - malicious


def count(share: float | None, total: int) -> str:
    """A share as a count of clients.

    Examples
    --------
    >>> count(0.95, 20), count(None, 20)
    ('19 of 20', '–')
    """
    return UNDEFINED if share is None or not total else f"{round(share * total):,} of {total:,}"


def outcomes(report: Report) -> Markup:
    """What every rule achieved, the most accurate first."""
    ranked = sorted(report.entries, key=lambda entry: (not entry.is_ceiling, -(entry.accuracy or 0.0)))
    columns = ("accuracy", "gap to ceiling", "malicious caught", "honest quarantined", "malicious", "honest", "time")
    head = tag(
        "thead",
        tag(
            "tr",
            tag("th", "rule", scope="col", rowspan="2"),
            *(tag("th", name, scope="col", rowspan="2") for name in columns[:2]),
            tag("th", "by verdict, at the end", scope="colgroup", colspan="2", class_="span"),
            tag("th", "by zero weight, last round", scope="colgroup", colspan="2", class_="span"),
            tag("th", columns[6], scope="col", rowspan="2"),
        ),
        tag("tr", *(tag("th", name, scope="col") for name in columns[2:6])),
    )
    caption = (
        "Outcome of every rule. Caught and quarantined count the statuses quarantined and rejected; a rule without "
        "verdicts can only be asked whom it gave no weight. The gap is in percentage points."
    )
    body = tag("tbody", *(_outcome_row(entry, report) for entry in ranked))
    return _table("Outcome of every rule", caption, head, body)


def _outcome_row(entry: Entry, report: Report) -> Markup:
    malicious, honest = groups(report)
    marks = [tag("span", "ceiling", class_="badge") if entry.is_ceiling else None]
    if entry.outside_bound:
        bound = f" ({percent(entry.bound, 0)})" if entry.bound is not None else ""
        marks.append(tag("span", f"outside its bound{bound}", class_="badge warn"))
    verdict = entry.gives_verdicts
    return tag(
        "tr",
        tag("th", words(shorten(entry.label, 40)), *marks, scope="row"),
        _cell(percent(entry.accuracy)),
        _cell(_gap(entry, report.ceiling)),
        _share(entry.tpr if verdict else None, malicious),
        _share(entry.fpr if verdict else None, honest),
        _share(None if entry.is_ceiling else entry.zero_weight_tpr, malicious),
        _share(None if entry.is_ceiling else entry.zero_weight_fpr, honest),
        _cell(UNDEFINED if entry.seconds is None else duration(entry.seconds)),
        class_="judge" if verdict else None,
    )


def _gap(entry: Entry, ceiling: float | None) -> str:
    if entry.is_ceiling or ceiling is None or entry.accuracy is None:
        return UNDEFINED
    points = round(100 * (entry.accuracy - ceiling), 1)
    return f"{points:+.1f}".replace("-", "\u2212") if points else "0.0"


def _cell(*children: object) -> Markup:
    return tag("td", *children, class_="n")


def _share(share: float | None, total: int) -> Markup:
    if share is None:
        return _cell(UNDEFINED)
    return _cell(percent(share), tag("small", count(share, total)) if total else None)


def accused(verdicts: Verdicts, clients: Clients | None, *, limit: int) -> Markup:
    """Who was kept out, since when and why; mistakes of the judge come first."""
    histories = verdicts.histories(clients)
    wrong = [h for h in histories if h.malicious is False and h.first_out is not None]
    missed = [h for h in histories if h.malicious is True and not h.out]
    caught = [h for h in histories if h.malicious is True and h.out]
    strangers = [h for h in histories if h.malicious is None and h.first_out is not None]
    parts = [
        ("Honest clients wrongly quarantined or rejected", wrong),
        ("Malicious clients not kept out at the end", missed),
        ("Malicious clients caught", caught),
        ("Senders the simulation does not know", strangers),
    ]
    bodies = []
    room = limit
    for title, members in parts:
        # That a mistake was not made is worth saying, but not of clients that do not exist.
        if not members and not (members is wrong or (members is missed and caught)):
            continue
        # Those still out first: an honest client that was released again is a smaller mistake.
        shown = sorted(members, key=lambda h: (not h.out, h.first_out is None, h.first_out or 0, h.unit))[:room]
        room -= len(shown)
        bodies.append(_accused_group(title, members, shown, verdicts))
    head = tag(
        "thead",
        tag(
            "tr",
            *(
                tag("th", name, scope="col")
                for name in (
                    "client",
                    "ground truth",
                    "first caught",
                    "rounds out",
                    "at the end",
                    "trust",
                    "last reason",
                )
            ),
        ),
    )
    caption = (
        "Who was kept out and why. The mistakes of the judge come first: honest clients it ever kept out, then "
        "malicious ones it let through. Ground truth is known because this is a simulation."
    )
    return _table("Who lied and why", caption, head, *bodies, class_="accused")


def _accused_group(title: str, members: Sequence[History], shown: Sequence[History], verdicts: Verdicts) -> Markup:
    cut = f"; {len(shown)} are listed, verdicts.csv holds all" if len(shown) < len(members) else ""
    heading = f"{title}: {len(members):,}{cut}" if members else f"{title}: none"
    return tag(
        "tbody",
        tag("tr", tag("th", heading, scope="rowgroup", colspan="7", class_="group")),
        *(_accused_row(history, verdicts) for history in shown),
    )


def _accused_row(history: History, verdicts: Verdicts) -> Markup:
    truth = "unknown" if history.malicious is None else "malicious" if history.malicious else "honest"
    first = "never" if history.first_out is None else f"round {history.first_out}"
    return tag(
        "tr",
        tag("th", tag("bdi", shorten(clean(verdicts.units[history.unit]), 48)), scope="row", class_="id"),
        tag("td", truth, class_=truth),
        tag("td", first),
        tag("td", f"{history.rounds_out:,} of {history.rounds_seen:,}", class_="n"),
        tag("td", str(history.last)),
        _trust(*history.trust),
        tag("td", tag("bdi", shorten(clean(history.reason), _MAX_REASON) or UNDEFINED), class_="reason"),
    )


def _trust(score: float, low: float, high: float) -> Markup:
    return _cell(UNDEFINED) if math.isnan(score) else _cell(f"{score:.2f}", tag("small", f"{low:.2f} to {high:.2f}"))


def _table(name: str, caption: str, *parts: object, class_: str | None = None) -> Markup:
    table = tag("table", tag("caption", caption), *parts, class_=class_)
    return tag("div", table, class_="scroll", role="region", aria_label=name, tabindex="0")
