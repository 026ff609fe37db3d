"""A client of a run in Mode 2: what it learns is sealed to an oracle that proves what it runs.

python federated_sealed.py http://127.0.0.1:8470 matl_inv_... hospital-0 MEASUREMENT
"""

# --8<-- [start:example]
import sys

import numpy as np

import matl
from matl.client.evidence import OraclePins
from matl.client.sealed import OracleWatch

url, invitation, name, measurement = sys.argv[1:]
index = int(name.split("-")[1])
mine = matl.federate("digits", clients=3, seed=1).clients[index]  # stands for your own samples
X, y = mine.X.reshape(len(mine), -1), np.eye(10)[mine.y]
rng = np.random.default_rng()


def train(params, now):
    """As many steps of softmax regression as the round asks for."""
    for _ in range(now.recipe["steps"]):
        rows = rng.integers(len(X), size=now.recipe["batch_size"])
        scores = np.exp(X[rows] @ params["layer0.weight"] + params["layer0.bias"])
        slope = scores / scores.sum(axis=1, keepdims=True) - y[rows]
        params["layer0.weight"] -= now.recipe["learning_rate"] * X[rows].T @ slope / len(rows)
        params["layer0.bias"] -= now.recipe["learning_rate"] * slope.mean(axis=0)
    return params, len(X)


pins = OraclePins(measurements=frozenset({measurement}), software=True)
with matl.MATLClient(url, client_id=name, folder=name, sealer=OracleWatch(pins)) as client:
    client.join(invitation)
    client.fit_loop(train, progress=lambda now, sent: print(f"round {now.number}: arrived, sealed"))
    print(client.verdict(client.run().round - 1, wait=60))
# --8<-- [end:example]
