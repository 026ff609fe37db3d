"""A random sample of columns that costs as few reads of memory as it can."""

from __future__ import annotations

import numpy as np

__all__ = ["sampled_columns"]

_RUNS = 32  # at least, where so many columns are wanted: neighbours in a model are alike, so one run would not do
_WIDEST = 4096  # columns of a run: what is computed from it stays in the cache


def sampled_columns(d: int, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Runs (start, stop) of adjacent columns in ascending order, ``count`` of d columns or up to a run more.

    The d columns are cut into runs of equal width (the last may be shorter), of which some are drawn without
    replacement: every column is drawn with the same probability, and reading them takes whole cache lines of a row.
    Fewer than 64 columns are drawn one by one.

    Examples
    --------
    >>> sampled_columns(10, 3, np.random.default_rng(0))
    [(5, 6), (6, 7), (9, 10)]
    >>> sampled_columns(300, 300, np.random.default_rng(0))[:2]
    [(0, 9), (9, 18)]
    """
    width = min(max(count // _RUNS, 1), _WIDEST)
    drawn = rng.choice(-(-d // width), -(-count // width), replace=False, shuffle=False)
    return [(start, min(start + width, d)) for start in (np.sort(drawn) * width).tolist()]
