"""The head of a report: what was run, in one sentence, and what came of it, in a few figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matl.campaigns.report import tables
from matl.campaigns.report.data import Entry, Report
from matl.campaigns.report.markup import Markup, join, percent, plural, tag, words
from matl.campaigns.report.provenance import Section

__all__ = ["figure", "frame", "header", "headline"]

_SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


_DEALT = {
    "iid": "with data dealt out evenly",
    "shards": "each with a few shards of the data sorted by class",
    "classes": "each with a few classes alone",
    "group_bias": "in groups biased towards one class each",
    "quantity": "some of them with much data and many with little",
    "rotation": "each with its images at an angle of its own",
    "brightness": "each with images brighter or darker by an amount of its own",
    "natural": "each with the data of whole groups",
}
"""How the data were spread, in words, by the name of the partition."""


def header(report: Report, sections: Sequence[Section]) -> Markup:
    """What was run, what came of it, and that it was a simulation."""
    kind = "Simulated run" if report.kind == "run" else "Simulated comparison"
    content = (_figures(report), *_failures(report), *_outside_bound(report))
    return frame(kind, headline(report), _sentence(report), sections, *content)


def frame(kind: str, title: str, lede: str, sections: Sequence[Section], *content: object) -> Markup:
    """The head of a page: what it is, its title and first sentence, what comes of it, and where to find the rest."""
    links = [tag("a", section.short, href=f"#{section.id}") for section in sections]
    return tag(
        "header",
        tag(
            "div",
            tag("p", tag("b", "MATL"), f" · {kind}", class_="kicker"),
            tag("button", "Dark", type="button", class_="theme", hidden=True),
            class_="top",
        ),
        tag("h1", title),
        tag("p", lede, class_="lede"),
        *content,
        tag(
            "p",
            tag("b", "Simulation: "),
            "who is malicious is known here because MATL made them so. A live network shows “unknown”.",
            class_="note",
        ),
        tag("nav", *links, aria_label="Sections"),
    )


def headline(report: Report) -> str:
    """The title of the page."""
    names = [words(entry.label) for entry in report.contenders]
    who = names[0] if len(names) == 1 else f"{_spelt(len(names))} rules"
    attack = _attack(report)
    return f"{who} against {attack}" if attack else f"{who} with nobody attacking"


def _spelt(count: int) -> str:
    return _SMALL[count] if count < len(_SMALL) else str(count)


def _attack(report: Report) -> str | None:
    name = report.fact("attack")
    return words(str(name)) if name and name != "none" and report.fact("malicious") != 0 else None


def _sentence(report: Report) -> str:
    clients, malicious = report.fact("clients"), report.fact("malicious")
    parts = [f"{plural(clients, 'client') if isinstance(clients, int) else 'Clients'} trained one model"]
    if report.fact("dataset"):
        parts.append(f" on {report.fact('dataset')}")
    rounds = report.fact("rounds")
    if isinstance(rounds, int):
        parts.append(f" over {plural(rounds, 'round')}")
    parts.append(_skew(report))
    if isinstance(malicious, int) and isinstance(clients, int) and clients:
        share = f"{malicious:,} of them ({percent(malicious / clients, 0)})"
        parts.append(f"; {share} attacked by {_attack(report)}" if _attack(report) else "; none of them attacked")
    if report.kind == "comparison":
        parts.append(f". The same clients, data and attack met each of the {_spelt(len(report.contenders))} rules")
    return "".join(parts) + "."


def _skew(report: Report) -> str:
    partition, table = report.fact("partition") or "dirichlet", report.facts.get("partition")
    own = table.get("alpha") if isinstance(table, Mapping) else None
    alpha = own if own is not None else report.fact("alpha")
    if partition == "dirichlet" and isinstance(alpha, int | float):
        return f", each with its own mix of classes (Dirichlet, \u03b1 = {alpha:g})"
    return f", {_DEALT[partition]}" if partition in _DEALT else ""


def _figures(report: Report) -> Markup:
    contenders = [entry for entry in report.contenders if entry.accuracy is not None]
    figures: list[Markup] = []
    if report.kind == "run" and contenders:
        entry = contenders[0]
        figures = [
            *_catch_figures(entry, report),
            figure(percent(entry.accuracy), "accuracy", _against(entry, report.ceiling)),
        ]
    elif contenders:
        ranked = sorted(contenders, key=lambda entry: -(entry.accuracy or 0.0))
        for entry, place in ((ranked[0], "highest accuracy"), (ranked[-1], "lowest accuracy"))[: len(ranked)]:
            figures.append(
                figure(percent(entry.accuracy), f"{place}: {words(entry.label)}", _against(entry, report.ceiling))
            )
        if report.ceiling is not None:
            figures.append(figure(percent(report.ceiling), "ceiling", "honest clients alone"))
    sentences = [_caught_sentence(entry, report) for entry in report.contenders if entry.gives_verdicts]
    lines = (
        tag("ul", *(tag("li", s) for s in sentences), class_="findings")
        if report.kind == "comparison" and sentences
        else None
    )
    return join([tag("dl", *figures, class_="figures"), lines])


def _catch_figures(entry: Entry, report: Report) -> list[Markup]:
    verb = "quarantined" if entry.gives_verdicts else "given zero weight"
    shares = (entry.tpr, entry.fpr) if entry.gives_verdicts else (entry.zero_weight_tpr, entry.zero_weight_fpr)
    note = (
        "quarantined or rejected, at the end" if entry.gives_verdicts else "in the last round; this rule names nobody"
    )
    return [
        figure(tables.count(share, total), f"{who} clients {verb}", note)
        for who, share, total in zip(("malicious", "honest"), shares, tables.groups(report), strict=True)
        if share is not None and total
    ]


def figure(value: str, name: str, note: str) -> Markup:
    """A figure with its name, for a list of them of class ``figures``."""
    return tag("div", tag("dt", name), tag("dd", tag("b", value), tag("small", note)))


def _against(entry: Entry, ceiling: float | None) -> str:
    if ceiling is None or entry.accuracy is None:
        return "on the test set"
    return f"against a ceiling of {percent(ceiling)}"


def _caught_sentence(entry: Entry, report: Report) -> str:
    malicious, honest = tables.groups(report)
    parts = [
        f"{tables.count(share, total)} {who}"
        for who, share, total in (("malicious", entry.tpr, malicious), ("honest", entry.fpr, honest))
        if share is not None and total
    ]
    caught = f"quarantined {' and '.join(parts)} clients; " if parts else ""
    return f"{words(entry.label)} {caught}accuracy {percent(entry.accuracy)}, {_against(entry, report.ceiling)}."


def _failures(report: Report) -> Iterable[Markup]:
    rounds = report.fact("rounds")
    for entry in report.entries:
        if entry.failed_rounds:
            count = f"{entry.failed_rounds:,} of {rounds:,}" if isinstance(rounds, int) else f"{entry.failed_rounds:,}"
            reason = f" The last time: {entry.last_failure}." if entry.last_failure else ""
            yield tag(
                "p",
                tag("b", "Failed rounds: "),
                f"{count} rounds of {words(entry.label)} failed and left the model as it was.{reason}",
                class_="note warn",
            )


def _outside_bound(report: Report) -> Iterable[Markup]:
    for entry in report.contenders:
        if entry.outside_bound:
            bound = (
                f"at most {percent(entry.bound, 0)} malicious clients"
                if entry.bound is not None
                else "fewer malicious clients"
            )
            yield tag(
                "p",
                tag("b", "Outside its bound: "),
                f"{words(entry.label)} is made for {bound}, and there were more. No promise holds for its result.",
                class_="note warn",
            )
