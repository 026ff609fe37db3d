"""The page about secure aggregation: its code runs, and its table has the sizes of the messages."""

import re
from pathlib import Path

import numpy as np

from matl.privacy.secagg import Phase, Session, aggregate_in_memory

PAGE = (Path(__file__).parents[3] / "docs" / "privacy" / "secure-aggregation.md").read_text("utf-8")


def test_its_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(block, {})


def test_its_sizes_are_those_of_the_messages():
    n, name = 30, 4
    inputs = {f"c{i:03d}": np.zeros(1000, np.uint8) for i in range(n)}
    _, traffic = aggregate_in_memory(inputs, Session(run="r", round=0, length=1000, min_survivors=20))
    k, up, down = n - 1, traffic.largest_up, traffic.largest_down
    few = 12  # bytes that the table leaves out: lengths and numbers of fields
    for got, said in [
        (up[Phase.ADVERTISE], 138 + name),
        (down[Phase.SHARE], n * (140 + name)),
        (up[Phase.SHARE], 112 * k + 40),
        (down[Phase.MASK], 80 * k + n),
        (up[Phase.MASK], 1000 + 16 * k),
        (down[Phase.CONSISTENCY], 16 * k + n),
        (up[Phase.CONSISTENCY], 69),
        (down[Phase.UNMASK], 64 * (n // 2 + 1) + n // 2 + 1),
        (up[Phase.UNMASK], 32 * k + k),
    ]:
        assert said <= got <= said + few
