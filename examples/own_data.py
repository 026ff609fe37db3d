"""Your own data in a simulation."""

# --8<-- [start:data]
import numpy as np

import matl

rng = np.random.default_rng(0)
y = rng.integers(3, size=1500)
X = rng.normal(size=(1500, 12)) + 1.5 * np.eye(3, 12)[y]

result = matl.simulate(
    dataset=(X, y),
    clients=20,
    byzantine=0.3,
    root_size=60,
    rounds=15,
    seed=1,
    ceiling=True,
)
print(f"accuracy {result.accuracy:.1%} of {result.ceiling_accuracy:.1%}, caught {result.tpr:.0%}")
# --8<-- [end:data]
