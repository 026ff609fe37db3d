"""What every aggregation rule declares of itself, as a table on the page about them."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from matl.aggregators import AGGREGATORS, PreAggregator, Rule

_MARKER = "<!-- every aggregation rule -->"
_HEAD = "| rule | defined for | breakdown point | kappa, n = 20, f = 4 | cost | needs |\n|---|---|---|---|---|---|"
_N, _F = 20, 4


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the table in the place of the marker."""
    if _MARKER not in markdown:
        return markdown
    rules = [(name, AGGREGATORS.get(name)()) for name in AGGREGATORS]
    ordered = sorted(rules, key=lambda pair: (isinstance(pair[1], PreAggregator), pair[0]))
    return markdown.replace(_MARKER, "\n".join([_HEAD, *(_line(name, rule) for name, rule in ordered)]))


def _line(name: str, rule: Rule) -> str:
    also = "".join(f", `{alias}`" for alias in AGGREGATORS.aliases(name))
    kappa = None if isinstance(rule, PreAggregator) or rule.max_f(_N) < _F else rule.kappa(_N, _F)
    needs = ["the rounds before"] * rule.keeps_state + [f"`{field}`" for field in sorted(rule.needs)]
    if isinstance(rule, PreAggregator):
        needs = ["what the rule after it needs"]
    cells = [
        f"**{type(rule).__name__}**<br>`{name}`{also}",
        rule.condition,
        rule.breakdown,
        "" if kappa is None else f"{kappa:.3g}",
        rule.cost,
        ", ".join(needs),
    ]
    return f"| {' | '.join(cells)} |"
