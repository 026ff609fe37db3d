"""Your own data, your own attack and your own judge in one simulation."""

# --8<-- [start:data]
import numpy as np

import matl

rng = np.random.default_rng(0)
y = rng.integers(3, size=1500)
X = rng.normal(size=(1500, 12)) + 1.5 * np.eye(3, 12)[y]

result = matl.simulate(dataset=(X, y), clients=20, byzantine=0.3, root_size=60, rounds=15, seed=1, ceiling=True)
print(f"accuracy {result.accuracy:.1%} of {result.ceiling_accuracy:.1%}, caught {result.tpr:.0%}")
# --8<-- [end:data]


# --8<-- [start:attack]
class Stubborn(matl.attacks.Attack):
    """Upload one and the same random direction for ever, as long as an honest update."""

    def craft(self, view, rng):
        direction = np.random.default_rng(7).normal(size=view.own.shape[1])
        lengths = np.linalg.norm(view.own, axis=1, keepdims=True)
        return (lengths * direction / np.linalg.norm(direction)).astype(np.float32)


result = matl.simulate(dataset=(X, y), clients=20, byzantine=0.3, root_size=60, rounds=15, seed=1, attack=Stubborn())
print(f"accuracy {result.accuracy:.1%}, caught {result.tpr:.0%}")
# --8<-- [end:attack]


# --8<-- [start:mode]
class ClosestHalf:
    """Count the half of the updates that is closest to the coordinate-wise median."""

    digest = "closest-half-1"
    bound = 0.5
    gives_verdicts = True
    channels = ("distance",)

    def init(self, layout):
        return {"version": 1}

    def judge(self, cohort, state):
        updates = cohort.X.dense()
        distances = np.linalg.norm(updates - np.median(updates, axis=0), axis=1)
        near = distances <= np.median(distances)
        verdicts = tuple(
            matl.Verdict(unit, 1.0, matl.Status.ACCEPTED, {"distance": float(distance)})
            if counts
            else matl.Verdict(unit, 0.0, matl.Status.QUARANTINED, {"distance": float(distance)}, "far from the median")
            for unit, distance, counts in zip(cohort.ids, distances, near, strict=True)
        )
        return matl.Judgement(updates[near].mean(axis=0), verdicts), state


result = matl.simulate(dataset=(X, y), clients=20, byzantine=0.3, root_size=60, rounds=15, seed=1, mode=ClosestHalf())
print(f"accuracy {result.accuracy:.1%}, caught {result.tpr:.0%}, falsely accused {result.fpr:.0%}")
# --8<-- [end:mode]
