"""The report of a matrix: its tables as heat maps, ROC curves of the judges, and where it all comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from matl.campaigns.experiment import in_words
from matl.campaigns.matrix.design import FILE, NOBODY
from matl.campaigns.matrix.files import Summary, summarise_matrix
from matl.campaigns.matrix.journal import JOURNAL
from matl.campaigns.matrix.results import Against, Results
from matl.campaigns.matrix.tables import Entry, Grid, attack_words
from matl.campaigns.report.header import figure, frame
from matl.campaigns.report.markup import Markup, percent, plural, tag, words
from matl.campaigns.report.page import document
from matl.campaigns.report.provenance import Section, pairs
from matl.campaigns.report.svg import DASHES, Scale, drawing, key, label, marks, points, polyline, y_axis
from matl.campaigns.report.theme import SERIES
from matl.files import write_atomic
from matl.simulation.scoring import FALSE_POSITIVE_RATES

__all__ = ["write_matrix_report"]

_TOPICS = {
    "overview": ("Worst cases", "What is left in the worst case"),
    "accuracy": ("Accuracy", "What the model is worth"),
    "margins": ("Margins", "How far the judges are ahead"),
    "detection": ("Detection", "Who is caught, and who is accused"),
    "fairness": ("Fairness", "Classes and clients served worst"),
    "backdoor": ("Backdoors", "What targeted attacks reach"),
    "speed": ("Speed", "How many rounds it takes"),
}
_FILES = {
    FILE: "what was run; running it again gives the same figures",
    JOURNAL: "every cell as it ended, failed ones included",
    "cells.csv": "every cell",
    "summary.md": "these tables as text",
    "matrix.json": "these tables as data",
    "report.html": "this page",
}
_LEVELS = 10
_TICKS = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)


def write_matrix_report(folder: Path) -> Summary:
    """Write all files that a matrix leaves, ``report.html`` among them, from what it has so far.

    Raises
    ------
    StateError
        The folder holds no matrix, or its journal is damaged.
    StorageError
        A file cannot be written.
    """
    summary = summarise_matrix(folder)
    write_atomic(folder / "report.html", render(summary))
    return summary


def render(summary: Summary) -> str:
    """The whole page as HTML text."""
    sections = [*_sections(summary), _provenance(summary)]
    matrix = summary.results.matrix
    title = f"{plural(len(matrix.attacks), 'attack')} against {plural(len(matrix.rules), 'rule')}"
    return document(title, frame("Simulated matrix", title, _sentence(summary), sections, *_head(summary)), sections)


def _sentence(summary: Summary) -> str:
    matrix = summary.results.matrix
    config = matrix.cells[0].config
    fractions = " or ".join(percent(fraction, 0) for fraction in sorted({f for _, f in matrix.rows if f}))
    skews = " and ".join(map(matrix.skew, matrix.alphas))
    return (
        f"{plural(config.clients, 'client')} trained one model on {in_words(config.dataset)} over "
        f"{plural(config.rounds, 'round')}, with label skew {skews}; {fractions} of them attacked. "
        f"{plural(len(matrix.seeds), 'seed')} each."
    )


def _head(summary: Summary) -> Iterator[Markup]:
    """The worst case of every judge, and what there is to know before it is believed."""
    results, origin = summary.results, summary.origin
    figures = []
    for alpha in results.matrix.alphas:
        for judge in results.judges:
            ran, within = results.ran(alpha, judge), results.within_bound(alpha, judge)
            worst = results.worst(alpha, judge, within or ran)
            if worst is not None:
                bound = "" if within == ran else f"; {'within' if within else 'outside'} its bound"
                note = f"under {attack_words(worst.against)}, {results.matrix.skew(alpha)}{bound}"
                figures.append(figure(percent(worst.accuracy.mean), f"worst case of {words(judge)}", note))
    if figures:
        yield tag("dl", *figures, class_="figures")
    if origin["done"] < origin["cells"]:
        done = f"{origin['done']:,} of {plural(origin['cells'], 'cell')} have run; tables hold what there is."
        yield tag("p", tag("b", "Unfinished: "), done, class_="note warn")
    if origin["failed"]:
        text = f"{plural(origin['failed'], 'cell')} failed and count nowhere; cells.csv has the reasons."
        yield tag("p", tag("b", "Failed: "), text, class_="note warn")


def _sections(summary: Summary) -> Iterator[Section]:
    for topic, (short, title) in _TOPICS.items():
        grids = [grid for grid in summary.grids if grid.topic == topic]
        curves = _roc(summary.results) if topic == "detection" else []
        if grids:
            yield Section(topic, short, title, *map(_table, grids), *curves)


def _table(grid: Grid) -> Markup:
    head = tag("tr", *(tag("th", name.replace("_", " "), scope="col") for name in grid.header))
    body = [
        tag(
            "tr",
            tag("th", name.replace(" %", "\u202f%"), scope="row"),
            *(_cell(entry) for entry in cells),
        )
        for name, cells in grid.rows
    ]
    caption = tag("caption", f"{grid.title}. ", grid.caption)
    table = tag("table", caption, tag("thead", head), tag("tbody", *body), class_="matrix")
    return tag("div", table, class_="scroll", role="region", aria_label=grid.title, tabindex="0")


def _cell(entry: Entry) -> Markup:
    level = 0 if entry.shade is None else round(_LEVELS * entry.shade)
    shade = f" {'good' if level > 0 else 'bad'}-{abs(level)}" if level else ""
    return tag("td", entry.text, tag("small", entry.detail) if entry.detail else None, class_=f"n{shade}")


def _roc(results: Results) -> Iterator[Markup]:
    """A panel per attack with a curve per judge, for every alpha."""
    for alpha in results.matrix.alphas:
        panels = [panel for row in results.matrix.rows if (panel := _panel(results, alpha, row)) is not None]
        if not panels:
            continue
        names = [tag("span", key(_line(i, [(0, 7), (28, 7)])), words(judge)) for i, judge in enumerate(results.judges)]
        caption = (
            "Share of malicious client-rounds caught against that of honest ones accused, if the judge's evidence were "
            "cut at one bar; means over seeds at equal shares of accused. The axis is stretched on its left."
        )
        yield tag(
            "details",
            tag("summary", f"ROC curves, {results.matrix.skew(alpha)}, {plural(len(panels), 'panel')}"),
            tag(
                "figure",
                tag("p", *names, class_="legend"),
                tag("div", *panels, class_="small-multiples"),
                tag("figcaption", caption),
            ),
        )


def _panel(results: Results, alpha: float, row: Against) -> Markup | None:
    curves = {}
    for judge in results.judges:
        found = [one["roc"] for one in results.cells(alpha, row, judge) if one.get("roc")]
        if found:
            curves[judge] = np.mean(np.array(found, np.float64), axis=0)
    if not curves or row[0] == NOBODY:
        return None
    width, height, left, top = 306.0, 186.0, 46.0, 8.0
    bottom = height - 34
    x, y = Scale(0.0, 1.0, left, width - 8), Scale(0.0, 1.0, bottom, top)
    rates = np.sqrt(FALSE_POSITIVE_RATES)
    ticks = [label(x(rate**0.5), bottom + 16, f"{100 * rate:g}", anchor="middle", class_="tick") for rate in _TICKS]
    parts = [
        y_axis(y, left, width - 8, [(value, percent(value, 0)) for value in (0.0, 0.5, 1.0)]),
        tag("g", *ticks),
        label((left + width) / 2, bottom + 31, "accused, %", anchor="middle", class_="axis-name"),
    ]
    for index, judge in enumerate(results.judges):
        if judge in curves:
            pixels = points(x, y, rates.tolist(), curves[judge])
            parts.append(_line(index, pixels))
    told = "; ".join(
        f"{judge} catches {percent(float(curve[FALSE_POSITIVE_RATES.index(0.05)]))} at 5 %"
        for judge, curve in curves.items()
    )
    name = attack_words(row)
    picture = drawing(width, height, f"ROC curves, {name}, {results.matrix.skew(alpha)}", f"{told}.", *parts)
    return tag("div", tag("h3", name), picture, class_="panel")


def _line(index: int, pixels: Sequence[tuple[float, float] | None]) -> Markup:
    colour = f"var(--series-{index % SERIES})"
    shown = [pixel for pixel in pixels if pixel is not None]
    line = polyline(pixels, colour, dash=DASHES[index % len(DASHES)])
    return tag("g", line, marks(shown[1:-1:2], colour, index))


def _provenance(summary: Summary) -> Section:
    origin = summary.origin
    facts = [("cells", f"{origin['done']:,} of {origin['cells']:,}, {origin['failed']:,} failed")]
    facts += [
        ("seeds", ", ".join(map(str, origin["seeds"]))),
        ("commit", ", ".join(origin["commits"]) or "not recorded"),
    ]
    facts += [*origin["versions"].items()]
    constants = [(rule.replace("_", " "), digest[:16]) for rule, digest in origin["judges"].items()]
    return Section(
        "provenance",
        "Provenance",
        "How to check this",
        tag("p", "Run in the folder of this report, this command repeats it:"),
        tag("pre", tag("code", f"matl matrix {FILE}"), tabindex="0"),
        *(tag("p", line, class_="note") for line in (*summary.notes, *summary.footer[:1])),
        tag(
            "div",
            pairs("Seeds and versions. An asterisk: with uncommitted changes.", facts),
            tag("div", pairs("Digests of the rules' constants.", constants), pairs("Files.", _FILES.items())),
            class_="columns",
        ),
        tag("details", tag("summary", "All settings"), pairs("Settings.", _settings(summary))),
    )


def _settings(summary: Summary) -> list[tuple[str, object]]:
    matrix = summary.results.matrix
    config = matrix.cells[0].config.model_dump(exclude_none=True)
    varies = ("attack", "byzantine", "alpha", "mode", "aggregator", "seed")
    shared = [(name, in_words(value)) for name, value in config.items() if name not in varies]
    axes = [(name, "; ".join(map(in_words, getattr(matrix, name)))) for name in ("attacks", "rules")]
    return [*shared, *axes]
