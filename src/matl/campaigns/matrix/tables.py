"""The tables of a matrix: what every rule achieves against every attack, as text that Markdown and HTML share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from matl.campaigns.compare import CEILING
from matl.campaigns.matrix.design import NOBODY
from matl.campaigns.matrix.published import Published
from matl.campaigns.matrix.results import Against, Results, Worst
from matl.campaigns.report.markup import UNDEFINED, plural
from matl.campaigns.statistics import Interval, binomial_interval, holm, mean_interval, t_test

__all__ = ["Entry", "Grid", "attack_words", "markdown_grid", "not_applicable", "signed", "tables"]

_PUBLISHED = "published (their models, data split and code)"
_POOLED = (
    "In brackets behind numbers of clients: the 95 % interval if all were independent (Clopper and Pearson); those of "
    "one seed are not, so it is the least doubt there is."
)
_LEVEL = 0.05
_WIDEST_MARGIN = 0.3  # of accuracy, that is shaded in full


@dataclass(frozen=True, slots=True)
class Entry:
    """A cell of a table.

    Parameters
    ----------
    text : str
        The figure.
    detail : str
        How far it can be trusted.
    shade : float or None
        How good the figure is, in [-1, 1]; below zero it is a loss. ``None`` for nothing to shade.
    """

    text: str
    detail: str = ""
    shade: float | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of figures.

    Parameters
    ----------
    topic : str
        What it is about; grids of one topic stand together.
    title : str
        Its heading.
    caption : str
        What the figures are.
    header : tuple of str
        Names of the columns, that of the row names first.
    rows : tuple of (str, tuple of Entry)
        Name and cells of each row.
    """

    topic: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]


def tables(results: Results) -> list[Grid]:
    """All tables of a matrix, those of one topic after one another, each for every alpha."""
    makers = (_overview, _accuracy, _gaps, _margins, _detection, _worst_class, _minority, _success, _speed)
    grids = [grid for make in makers for alpha in results.matrix.alphas for grid in make(results, alpha)]
    rounded = results.matrix.rounded
    return [replace(grid, caption=f"{grid.caption} {rounded}".rstrip()) for grid in grids]


def attack_words(against: Against) -> str:
    """A row's name.

    Examples
    --------
    >>> attack_words(("sleeper:attack=alie,wake_round=9", 0.2)), attack_words(("none", 0.0))
    ('sleeper (attack=alie, wake_round=9), 20 %', 'nobody attacks')
    """
    attack, fraction = against
    if attack == NOBODY:
        return "nobody attacks"
    name, _, options = attack.partition(":")
    told = f" ({options.replace(',', ', ')})" if options else ""
    return f"{name.replace('_', ' ')}{told}, {100 * fraction:g} %"


def not_applicable(results: Results) -> list[str]:
    """Why rules have no figure in some rows, a line for each reason."""
    found: dict[str, dict[str, None]] = {}
    for row in results.rows:
        if row["not_applicable"]:
            found.setdefault(row["not_applicable"], {})[attack_words((row["attack"], row["byzantine"]))] = None
    return [f"n/a ({'; '.join(where)}): {reason}" for reason, where in found.items()]


def markdown_grid(grid: Grid) -> str:
    """A table as Markdown."""
    lines = [grid.header, ["---"] * len(grid.header)]
    lines += [[name, *(f"{cell.text} {cell.detail}".strip() for cell in cells)] for name, cells in grid.rows]
    body = "\n".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines)
    return f"### {grid.title}\n\n{body}\n\n{grid.caption}\n"


def _worst_case(results: Results, alpha: float, rule: str, worst: Worst | None, detail: str) -> tuple[Entry, ...]:
    """What is left of a rule in a row, which row that is, and how far it is from the ceiling there."""
    if worst is None:
        return (_percent(None), Entry(UNDEFINED, detail), _points(None))
    figure = _percent(worst.accuracy)
    if results.outside_bound(alpha, worst.against, rule):
        figure = replace(figure, text=f"{figure.text} *")
    gap = mean_interval(results.gaps(alpha, worst.against, rule))
    return (figure, Entry(attack_words(worst.against), detail), _points(gap))


def _overview(results: Results, alpha: float) -> Iterator[Grid]:
    """The worst case of every rule, what it costs where nobody attacks, and how far the judges are ahead."""
    rows = []
    quiet: Against = (NOBODY, 0.0)
    for rule in results.matrix.rule_names:
        worst, within = results.worst(alpha, rule), results.within_bound(alpha, rule)
        missing = len(results.matrix.rows) - 1 - len(results.ran(alpha, rule))
        cells = [
            *_worst_case(
                results, alpha, rule, worst, f"({plural(missing, 'row')} without a figure)" if missing else ""
            ),
            _percent(results.mean(alpha, quiet, rule, "accuracy")),
            _rate(results, alpha, quiet, rule, "fpr"),
            *(_worst_margin(results, alpha, judge, rule) for judge in results.judges),
        ]
        rows.append((rule, tuple(cells)))
        if within and worst is not None and worst.against not in within:
            bounded = _worst_case(results, alpha, rule, results.worst(alpha, rule, within), "")
            nothing = (Entry(UNDEFINED),) * (2 + len(results.judges))
            rows.append((f"{rule}, within its bound", (*bounded, *nothing)))
    header = ("rule", "worst case", "under", "gap to ceiling", "accuracy, nobody attacks", "accused, nobody attacks")
    yield Grid(
        "overview",
        _title("Worst cases", results, alpha),
        "Worst case: the lowest mean accuracy over all attacks. Gap: that less the ceiling, the honest clients alone. "
        "Ahead: worst case of the judge less that of the rule, over the rows in which both ran. "
        "Percentages and points; means over seeds with 95 % confidence intervals, differences paired by seed. "
        f"{_POOLED} * outside the judge's bound.",
        (*header, *(f"{judge} ahead by" for judge in results.judges)),
        tuple(rows),
    )


def _worst_margin(results: Results, alpha: float, judge: str, rule: str) -> Entry:
    if judge == rule:
        return Entry(UNDEFINED)
    both = set(results.ran(alpha, judge)) & set(results.ran(alpha, rule))
    shared = [row for row in results.matrix.rows if row in both]
    first, second = results.worst(alpha, judge, shared), results.worst(alpha, rule, shared)
    if not shared or first is None or second is None:
        return Entry(UNDEFINED)
    return _points(mean_interval(results.differences(alpha, (first.against, judge), (second.against, rule))))


def _accuracy(results: Results, alpha: float) -> Iterator[Grid]:
    yield _by_rule(
        results,
        alpha,
        "accuracy",
        "Accuracy",
        "Accuracy after the last round, %.",
        lambda row, rule: _percent(results.mean(alpha, row, rule, "accuracy")),
        ceiling=True,
        published=results.matrix.published,
    )


def _gaps(results: Results, alpha: float) -> Iterator[Grid]:
    def gap(row: Against, rule: str) -> Entry:
        return _points(mean_interval(results.gaps(alpha, row, rule)))

    caption = "Accuracy less that of the honest clients alone under plain averaging, in points, paired by seed."
    yield _by_rule(results, alpha, "accuracy", "Gap to the ceiling", caption, gap)


def _margins(results: Results, alpha: float) -> Iterator[Grid]:
    """How far each judge is ahead of each other rule, row by row; one family of comparisons for each judge."""
    for judge in results.judges:
        others = [rule for rule in results.matrix.rule_names if rule != judge]
        if not others:
            continue
        pairs = {
            (row, rule): results.differences(alpha, (row, judge), (row, rule))
            for row in results.matrix.rows
            for rule in others
        }
        p_values = {pair: p for pair, found in pairs.items() if (p := t_test(found)) is not None}
        adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))

        def entry(row: Against, rule: str, pairs=pairs, adjusted=adjusted) -> Entry:  # type: ignore[no-untyped-def]
            return _points(mean_interval(pairs[row, rule]), mark=adjusted.get((row, rule), 1.0) < _LEVEL)

        caption = (
            f"Accuracy of {judge} less that of the other rule, in points, paired by seed. †: differs from zero at the "
            f"5 % level (t test, Holm's correction over the {len(p_values)} comparisons of this table)."
        )
        yield _by_rule(
            results, alpha, "margins", f"{judge} against the others", caption, entry, rules=others, judge=judge
        )


_DETECTION = {
    "tpr": "caught",
    "fpr": "accused",
    "round_tpr": "client-rounds caught",
    "round_fpr": "client-rounds accused",
    "auroc": "AUROC",
    "tpr_at_fpr_1": "TPR at FPR 1 %",
    "tpr_at_fpr_5": "TPR at FPR 5 %",
}


def _detection(results: Results, alpha: float) -> Iterator[Grid]:
    for judge in results.judges:
        rows = []
        for row in results.matrix.rows:
            cells = [_rate(results, alpha, row, judge, key) for key in _DETECTION]
            waited = results.mean(alpha, row, judge, "rounds_to_detection")
            cells.append(Entry(UNDEFINED if waited is None else f"{waited.mean:.1f}", _seeds(results, waited)))
            cells.append(_percent(results.mean(alpha, row, judge, "lost_weight"), bad=True))
            outside = results.outside_bound(alpha, row, judge)
            rows.append((f"{attack_words(row)}{' *' if outside else ''}", tuple(cells)))
        yield Grid(
            "detection",
            _title(f"Detection by {judge}", results, alpha),
            "Caught, accused: malicious and honest clients quarantined or rejected after the last round, with their "
            "number over all seeds. Client-rounds: the same in every round, malicious ones where they attack. AUROC "
            "and TPR: over client-rounds, by the judge's own evidence. Rounds: until half of the malicious clients are "
            "caught; seeds in which they never are do not count, and how many do is told. Lost weight: of honest "
            "clients that are not excluded, by verdicts alone. %, means over seeds with 95 % confidence intervals. "
            f"{_POOLED} * outside its bound.",
            ("attack", *_DETECTION.values(), "rounds to detection", "lost weight"),
            tuple(rows),
        )


def _rate(results: Results, alpha: float, row: Against, judge: str, key: str) -> Entry:
    mean = results.mean(alpha, row, judge, key)
    if key != "auroc":
        return _percent(mean, counts=_counts(results, alpha, row, judge, key), bad=key in ("fpr", "round_fpr"))
    if mean is None:
        return Entry(UNDEFINED)
    half = "" if mean.half_width is None else f"± {mean.half_width:.3f}"
    return Entry(f"{mean.mean:.3f}", half, 2 * mean.mean - 1)


def _counts(results: Results, alpha: float, row: Against, rule: str, key: str) -> str:
    """Clients over all seeds, behind a share of them, with the interval that as many independent ones would leave."""
    found, total = results.pooled(alpha, row, rule, key) if key in ("tpr", "fpr") else (0, 0)
    if not total:
        return ""
    low, high = binomial_interval(found, total)
    return f"{found} of {total} ({100 * low:.1f} to {100 * high:.1f})"


def _seeds(results: Results, found: Interval | None) -> str:
    total, defined = len(results.matrix.seeds), 0 if found is None else found.n
    return "" if defined in (0, total) else f"in {defined} of {total}"


def _worst_class(results: Results, alpha: float) -> Iterator[Grid]:
    yield _by_rule(
        results,
        alpha,
        "fairness",
        "Worst class",
        "Accuracy on the class that is known worst, %.",
        lambda row, rule: _percent(results.mean(alpha, row, rule, "worst_class_accuracy")),
        ceiling=True,
    )


def _minority(results: Results, alpha: float) -> Iterator[Grid]:
    yield _by_rule(
        results,
        alpha,
        "fairness",
        "Clients served worst",
        "Accuracy for the tenth of the honest clients that the model serves worst, each with the classes in the shares "
        "in which it holds them, %.",
        lambda row, rule: _percent(results.mean(alpha, row, rule, "minority_accuracy")),
        ceiling=True,
    )


def _success(results: Results, alpha: float) -> Iterator[Grid]:
    targeted = {(one["attack"], one["byzantine"]) for one in results.rows if one["attack_success_rate"] is not None}
    rows = [row for row in results.matrix.rows if row in targeted]
    if rows:
        yield _by_rule(
            results,
            alpha,
            "backdoor",
            "Attack success",
            "Share of triggered test samples that get the label the attacker wants, %; low is good.",
            lambda row, rule: _percent(results.mean(alpha, row, rule, "attack_success_rate"), bad=True),
            rows=rows,
        )


def _speed(results: Results, alpha: float) -> Iterator[Grid]:
    def rounds(row: Against, rule: str) -> Entry:
        median = results.rounds_to_90(alpha, row, rule)
        return Entry(UNDEFINED if median is None else f"{median:g}" if math.isfinite(median) else "never")

    caption = "Rounds to 90 % of the ceiling's final accuracy, median over seeds."
    yield _by_rule(results, alpha, "speed", "Rounds to 90 % of the ceiling", caption, rounds, ceiling=True)


def _by_rule(
    results: Results,
    alpha: float,
    topic: str,
    title: str,
    caption: str,
    entry: Callable[[Against, str], Entry],
    *,
    rules: Sequence[str] | None = None,
    rows: Sequence[Against] | None = None,
    ceiling: bool = False,
    judge: str | None = None,
    published: Published | None = None,
) -> Grid:
    """A table of attacks by rules, perhaps of a judge against them; * and n/a mark what is outside a bound.

    Published figures stand in columns of their own, to the right of ours.
    """
    names = list(results.matrix.rule_names if rules is None else rules)

    def marked(row: Against, rule: str) -> Entry:
        cells = results.cells(alpha, row, rule)
        if cells and all(one["not_applicable"] for one in cells):
            return Entry("n/a")
        made = entry(row, rule)
        failed = sum(bool(one["failure"]) for one in cells)
        detail = f"{made.detail} ({failed} failed)".strip() if failed else made.detail
        outside = any(one["outside_bound"] for one in (*cells, *(results.cells(alpha, row, judge) if judge else ())))
        return replace(made, text=f"{made.text} *" if outside else made.text, detail=detail)

    body = []
    for row in results.matrix.rows if rows is None else rows:
        first = [entry((NOBODY, row[1]), CEILING)] if ceiling else []
        last = [_elsewhere(published, row, rule) for rule in published.rules] if published is not None else []
        body.append((attack_words(row), (*first, *(marked(row, rule) for rule in names), *last)))
    outside = " * outside the judge's bound." if any("*" in c.text for _, cells in body for c in cells) else ""
    header = ("attack", *(["ceiling"] if ceiling else []), *names)
    spread = "" if "median" in caption else " Means over seeds with 95 % confidence intervals (Student's t)."
    source = ""
    if published is not None:
        header += tuple(f"{rule}, {_PUBLISHED}" for rule in published.rules)
        source = f" {_PUBLISHED.capitalize()}: {published.source}."
    return Grid(topic, _title(title, results, alpha), f"{caption}{spread}{outside}{source}", header, tuple(body))


def _elsewhere(published: Published, row: Against, rule: str) -> Entry:
    accuracy = published.look_up(rule, row)
    return Entry(UNDEFINED) if accuracy is None else Entry(f"{100 * accuracy:g}", shade=accuracy)


def _title(text: str, results: Results, alpha: float) -> str:
    return f"{text}, {results.matrix.skew(alpha)}"


def _percent(interval: Interval | None, *, counts: str = "", bad: bool = False) -> Entry:
    if interval is None:
        return Entry(UNDEFINED)
    half = "" if interval.half_width is None else f"± {100 * interval.half_width:.1f}"
    detail = f"{half}, {counts}".strip(", ") if counts else half
    return Entry(f"{100 * interval.mean:.1f}", detail, -interval.mean if bad else interval.mean)


def signed(number: float) -> str:
    """A number to a tenth with its sign, if it has one then."""
    return f"{number:+.1f}".replace("-", "\u2212").replace("+0.0", "0.0").replace("\u22120.0", "0.0")


def _points(interval: Interval | None, *, mark: bool = False) -> Entry:
    if interval is None:
        return Entry(UNDEFINED)
    half = "" if interval.half_width is None else f"± {100 * interval.half_width:.1f}"
    text = signed(100 * interval.mean)
    shade = max(-1.0, min(1.0, interval.mean / _WIDEST_MARGIN))
    return Entry(f"{text}†" if mark else text, half, shade)
