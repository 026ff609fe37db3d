"""The page: what was run, what came of it, who lied and why, and how to run it again."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from matl.campaigns.report import charts, header, heatmap, provenance, tables, theme
from matl.campaigns.report.data import Clients, Report, Run, Verdicts
from matl.campaigns.report.markup import Markup, number, percent, plural, tag, words
from matl.campaigns.report.provenance import Section
from matl.learning.partition import PartitionStatistics

__all__ = ["document", "render"]

MAX_MAP_ROWS = 120
"""Clients drawn in the heat maps of a page, shared between its runs."""

DETAIL_BYTES = 800_000
"""Room for reasons and evidence behind the cells of a page, shared between its runs."""


def render(report: Report) -> str:
    """The whole page as HTML text."""
    sections = [_accuracy(report), *_judges(report), _partition(report), provenance.section(report)]
    shown = [section for section in sections if section is not None]
    return document(header.headline(report), header.header(report, shown), shown)


def document(title: str, head: Markup, sections: Sequence[Section]) -> str:
    """A page that explains itself: its header, its sections, and all that it needs to be shown."""
    script, style = theme.asset("report.js"), theme.style()
    # Only this very script and style may run, so that no text of a hostile client can, and nothing may be fetched.
    policy = f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src data:"
    meta = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{title} · MATL"),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag("a", "Skip to the results", href="#results", class_="skip"),
        head,
        tag("main", *(section.markup for section in sections), id="results"),
        tag("div", class_="tip", role="status", hidden=True),
        tag("script", Markup(script)),
    )
    return "<!doctype html>\n" + tag("html", meta, body, lang="en-GB") + "\n"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _accuracy(report: Report) -> Section:
    chart = charts.accuracy_chart(report.entries, report.ceiling)
    cost = "the attack still costs" if report.fact("malicious") else "the rule costs where nobody attacks"
    text = (
        f"The ceiling is the same training with the honest clients alone; the gap to it is what {cost}. "
        "This is one seed: differences of a point or so, on either side of the ceiling, may be chance."
    )
    return Section(
        "accuracy",
        "Accuracy",
        "What the model is worth",
        tag("p", text),
        tag("figure", chart, _caption("Accuracy on the test set, round by round.")) if chart else None,
        tables.outcomes(report),
    )


def _judges(report: Report) -> Iterable[Section]:
    """Verdicts and evidence of every rule that gives them, one rule after the other."""
    judged = report.judged
    if not judged:
        text = "The rules used here weigh updates but name nobody, so there are no verdicts to show."
        yield Section("verdicts", "Verdicts", "Who lied and why", tag("p", text))
    for i, entry in enumerate(judged):
        suffix = f": {words(entry.label)}" if len(judged) > 1 else ""
        if entry.run is not None and entry.run.verdicts is not None:
            yield _verdicts(i, suffix, entry.run, entry.run.verdicts, len(judged))
            yield from _trust(i, suffix, entry.run.verdicts, entry.run.clients)
            grid = charts.evidence_charts(entry.run.verdicts, entry.run.clients, suffix)
            if grid is not None:
                yield _evidence(i, suffix, grid, entry.run.verdicts.rounds.size)


def _verdicts(i: int, suffix: str, run: Run, verdicts: Verdicts, sharers: int) -> Section:
    heat = heatmap.draw(
        f"map{i}",
        f"Verdicts by client and round{suffix}",
        verdicts,
        run.clients,
        max_rows=MAX_MAP_ROWS // sharers,
        detail_bytes=DETAIL_BYTES // sharers,
    )
    help_text = "Point at a cell, or focus the map and use the arrow keys, to read its verdict. Rounds count from 0. "
    rates = charts.rates_chart(run, suffix)
    rates_caption = "Share of clients quarantined or rejected in each round, over all clients that took part."
    return Section(
        f"verdicts-{i}",
        f"Verdicts{suffix}",
        f"Who lied and why{suffix}",
        tag("figure", rates, _caption(rates_caption)) if rates else None,
        tag(
            "figure",
            heatmap.legend(),
            tag("div", heat.markup, class_="scroll"),
            _caption("Every verdict. The worse it is, the taller its mark. ", help_text, " ".join(heat.notes)),
        ),
        tables.accused(verdicts, run.clients, limit=tables.MAX_ACCUSED // sharers),
    )


def _trust(i: int, suffix: str, verdicts: Verdicts, clients: Clients | None) -> Iterable[Section]:
    chart = charts.trust_chart(verdicts, clients, suffix)
    if chart is not None:
        text = (
            "Composite trust, from 0 to 1: how ordinary a client looks among simulated honest ones, in what its update "
            "teaches (PoGQ), the company it keeps (TCDM) and how varied it is (entropy). It describes a client and "
            "decides nothing; verdicts follow the strongest evidence. Bars are 95\u202f% intervals of what "
            "calibration leaves open."
        )
        caption = "Each client when it was last judged."
        yield Section(
            f"trust-{i}",
            f"Trust{suffix}",
            f"How far each is trusted{suffix}",
            tag("p", text),
            tag("figure", charts.truth_legend(), chart, _caption(caption)),
        )


def _evidence(i: int, suffix: str, grid: Markup, rounds: int) -> Section:
    text = (
        "What each evidence channel saw. This picture is only possible in a simulation, because it splits the clients "
        "by ground truth. AUROC, over all client-rounds, is the chance that a malicious value exceeds an honest one: "
        "at 0.5 a channel tells nothing, at 1 or 0 it parts the groups entirely."
    )
    caption = (
        "Median (line) and 5\u201395\u202f% range (shade) by round; to the right, single clients in the last round."
    )
    if rounds > charts.MAX_BAND_ROUNDS:
        caption += f" {charts.MAX_BAND_ROUNDS} of {rounds:,} rounds are drawn, evenly spaced."
    return Section(
        f"evidence-{i}",
        f"Evidence{suffix}",
        f"What the judge saw{suffix}",
        tag("p", text),
        tag("figure", charts.truth_legend(), grid, _caption(caption)),
    )


def _partition(report: Report) -> Section | None:
    clients = next((e.run.clients for e in report.entries if e.run is not None and e.run.clients is not None), None)
    drawn = charts.partition_chart(clients) if clients is not None else None
    if clients is None or drawn is None:
        return None
    picture, count = drawn
    caption = (
        "Examples by client (column) and class (row); the area of a dot is the count. Bars: all examples of the "
        "client, and its divergence from 0 to 100\u202f%."
    )
    if count < len(clients.ids):
        caption += f" {count} of {plural(len(clients.ids), 'client')} are drawn, evenly chosen; clients.csv holds all."
    return Section(
        "data",
        "Data",
        "Who holds what",
        tag("p", _partition_text(clients)),
        tag(
            "figure",
            tag(
                "div",
                picture,
                class_="scroll",
                role="region",
                aria_label="Training data by client and class",
                tabindex="0",
            ),
            _caption(caption),
        ),
    )


def _partition_text(clients: Clients) -> str:
    held = (clients.counts > 0).sum(axis=1)
    spread = PartitionStatistics.of(clients.counts[held > 0]).summary()
    amount, share = number(spread["effective_classes_mean"], 2), percent(spread["divergence_mean"], 0)
    return (
        "Uneven data make honest clients look odd, which is what makes judging hard. Here a client holds examples of "
        f"{number(float(held.mean()), 2)} of {clients.counts.shape[1]} classes on average, worth {amount} equally "
        "frequent ones (exp of the entropy of its labels). Its divergence is the share of its examples that would have "
        f"to change class for it to hold the mix of all clients together (total variation): {share} on average. Half "
        f"of the clients hold at most {spread['samples_median']:,.0f} examples. Squares are malicious clients, circles "
        "honest ones."
    )


def _caption(*children: object) -> Markup:
    return tag("figcaption", *children)
