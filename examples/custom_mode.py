"""Your own judge: evidence paid into a bank of suspicion, and the mean of who is kept."""

import numpy as np
from custom_evidence import calibrated_flatness

import matl
from matl.modes import MODES
from matl.trust.sequential import Bank


@MODES.register("flatness")
class Flatness:
    """Quarantine whose updates are as flat or as peaked as one honest update in 1000."""

    bound, gives_verdicts, channels = 0.3, True, ("flatness",)

    def __init__(self, oracle: matl.RootOracle):  # filled in when the mode is built by name
        self.oracle, self.digest = oracle, f"flatness-1-{oracle.digest}"

    def init(self, layout):
        return {}  # suspicion by client

    def judge(self, cohort, state):
        X, after, verdicts = cohort.X.dense(), dict(state), []
        p = calibrated_flatness(X, self.oracle, cohort.params, cohort.seed)
        before = np.array([state.get(client, 0.0) for client in cohort.ids])
        suspicion = Bank().after(before, 0.001 / np.maximum(p, 1e-9))
        for client, seen, balance in zip(cohort.ids, p, suspicion.tolist(), strict=True):
            after[client], fine = balance, balance == 0
            status, why = ("accepted", "") if fine else ("quarantined", "is flat or peaked")
            told = {"flatness": float(seen)}
            verdicts.append(matl.Verdict(client, float(fine), matl.Status(status), told, why))
        kept = (suspicion == 0) / max(np.sum(suspicion == 0), 1)
        return matl.Judgement((kept @ X).astype(np.float32), tuple(verdicts)), after


if __name__ == "__main__":
    found = matl.simulate(attack="gaussian_noise", byzantine=0.3, rounds=8, mode="flatness")
    print(f"caught {found.tpr:.0%}, falsely accused {found.fpr:.0%}")
