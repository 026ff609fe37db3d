"""Judge matrices of updates of your own: one row per client, no simulation needed."""

# --8<-- [start:example]
import numpy as np

import matl

rng = np.random.default_rng(0)
direction = rng.normal(size=200)
honest = rng.normal(size=(20, 200))  # what is particular to each client's data
updates = [direction + honest + rng.normal(size=(20, 200)) for _ in range(4)]  # four rounds
for X in updates:
    X[[3, 7, 11]] *= -1  # three of which say the opposite

mode = matl.Mode0()
state = mode.init(matl.ParamLayout.of([updates[0][0]]))
for number, X in enumerate(updates):
    judgement, state = mode.judge(matl.Cohort.of(X, round=number), state)
    print([f"{v.unit}: {v.reason}" for v in judgement.verdicts if v.status == "quarantined"])
# --8<-- [end:example]
