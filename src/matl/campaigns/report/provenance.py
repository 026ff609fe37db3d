"""Where a report comes from: settings, versions, files, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from matl.campaigns.report.data import Report
from matl.campaigns.report.markup import Markup, duration, number, shorten, tag, words

__all__ = ["Section", "pairs", "section"]

_FILES = {
    "compare.json": "the figures of every rule",
    "compare.toml": "the rules and the configuration they share",
    "config.toml": "the configuration; running it again gives the same figures",
    "result.json": "the figures of the run",
    "clients.csv": "each client: whether it is malicious, and its examples by class",
    "rounds.csv": "each round: accuracy, verdict counts, error rates, time",
    "verdicts.csv": "each client and round: status, weight, reason, evidence",
    "model.safetensors": "the model after the last round",
    "checkpoint.msgpack": "the state after the last round",
    "honest_only": "the run of the honest clients alone, in the same format",
}


class Section:
    """A titled part of the page that the navigation links to."""

    def __init__(self, identifier: str, short: str, title: str, *content: object) -> None:
        self.id, self.short = identifier, short
        heading = tag("h2", title, id=f"{identifier}-h")
        self.markup = tag("section", heading, *content, id=identifier, aria_labelledby=f"{identifier}-h")


def section(report: Report) -> Section:
    """Everything needed to check and repeat the result."""
    return Section(
        "provenance",
        "Provenance",
        "How to check this",
        tag("p", "Run in the folder of this report, this command repeats it:"),
        tag("pre", tag("code", _command(report)), tabindex="0"),
        tag("div", _facts(report), _files(report), class_="columns"),
        _settings(report),
    )


def _command(report: Report) -> str:
    if report.kind == "run":
        return "matl run config.toml"
    runs = [entry for entry in report.entries if entry.run is not None]
    configuration = f"{runs[0].run.directory.name}/config.toml" if runs and runs[0].run else "config.toml"
    return f"matl compare {configuration} --rules {','.join(entry.rule for entry in report.entries)}"


def _facts(report: Report) -> Markup:
    changed = ", with uncommitted changes" if report.fact("dirty") is True else ""
    commit = report.fact("commit")
    rows = [("seed", report.fact("seed")), ("commit", commit if commit is None else f"{commit}{changed}")]
    seconds = [entry.seconds for entry in report.entries if entry.seconds is not None]
    if seconds:
        rows.append(("wall time" if len(seconds) == 1 else "wall time, all rules", duration(sum(seconds))))
    recorded = [entry.run.result.get("peak_memory_mib") for entry in report.entries if entry.run is not None]
    peaks = [value for value in recorded if isinstance(value, int | float)]
    if peaks:
        rows.append(("peak memory", f"{number(max(peaks))} MiB"))
    versions = report.facts.get("versions")
    if isinstance(versions, Mapping):
        rows += versions.items()
    return pairs(
        "Seed, versions and cost.", ((name, "not recorded" if value is None else value) for name, value in rows)
    )


def _files(report: Report) -> Markup:
    runs = [entry.run for entry in report.entries if entry.run is not None]
    places = [report.directory] if report.kind == "run" else [report.directory, *(run.directory for run in runs)]
    rows = [(name, text) for name, text in _FILES.items() if any((place / name).exists() for place in places)]
    if report.kind == "comparison":
        folders = ", ".join(f"{run.directory.name}/" for run in runs)
        rows = [(folders, "a run each, with the files below that are not here"), *rows]
    rows.append(("report.html", "this page"))
    return pairs(f"Files in {shorten(report.directory.resolve().name, 60)}.", rows)


def _settings(report: Report) -> Markup | None:
    """Every setting once; where rules differ, once for each."""
    flat: dict[str, dict[str, str]] = {}
    labels = []
    for entry in report.entries:
        if entry.run is None or (report.kind == "run" and entry.is_ceiling):
            continue
        labels.append(words(entry.label))
        recorded = entry.run.result.get("settings")
        for name, value in _flatten(recorded if isinstance(recorded, Mapping) else entry.run.config):
            flat.setdefault(name, {})[labels[-1]] = value
    rows = []
    for name, values in flat.items():
        shared = len(values) == len(labels) and len(set(values.values())) == 1
        told = next(iter(values.values())) if shared else "; ".join(f"{who}: {value}" for who, value in values.items())
        rows.append((name, told))
    return tag("details", tag("summary", "All settings"), pairs("Settings.", rows)) if rows else None


def pairs(caption: str, rows: Iterable[tuple[str, object]]) -> Markup:
    """A table of names and values."""
    body = [
        tag("tr", tag("th", shorten(str(name), 200), scope="row"), tag("td", shorten(str(value), 400)))
        for name, value in rows
    ]
    return tag("table", tag("caption", caption), tag("tbody", *body), class_="pairs")


def _flatten(settings: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)
