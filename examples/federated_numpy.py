"""A client in NumPy that learns softmax regression together with others, on samples of its own.

python federated_numpy.py https://coordinator:8470 matl_inv_... samples.npz
"""

# --8<-- [start:example]
import sys

import numpy as np

from matl import MATLClient

url, invitation, samples = sys.argv[1:]
data = np.load(samples)
X, y = data["X"], np.eye(10)[data["y"]]
rng = np.random.default_rng()


def train(params, now):
    """As many steps of softmax regression as the round asks for."""
    weight, bias = params["layer0.weight"], params["layer0.bias"]
    for _ in range(now.recipe["steps"]):
        rows = rng.integers(len(X), size=now.recipe["batch_size"])
        scores = np.exp(X[rows] @ weight + bias)
        slope = scores / scores.sum(axis=1, keepdims=True) - y[rows]
        weight -= now.recipe["learning_rate"] * X[rows].T @ slope / len(rows)
        bias -= now.recipe["learning_rate"] * slope.mean(axis=0)
    return params, len(X)


with MATLClient(url, folder="numpy-client") as client:
    client.join(invitation)  # once; from then on the key in the folder is enough
    client.fit_loop(train, progress=lambda now, sent: print(f"round {now.number}: arrived"))
    model = client.final_model()

right = (X @ model["layer0.weight"] + model["layer0.bias"]).argmax(axis=1) == data["y"]
print(f"accuracy on my samples: {right.mean():.1%}")
# --8<-- [end:example]
