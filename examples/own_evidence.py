"""Your own evidence: a judge that compares every client with its peers and remembers."""

# --8<-- [start:evidence]
from dataclasses import dataclass, field

import numpy as np

import matl
from matl.modes import MODES
from matl.state import digest
from matl.trust.sequential import Bank


def opposition(X, bar=0.5):
    """How far each update points against the others, in units of the bar, shape (n,)."""
    rest = X.sum(axis=0) - X
    cosines = np.einsum("ij,ij->i", X, rest) / (
        np.linalg.norm(X, axis=1) * np.linalg.norm(rest, axis=1) + 1e-12
    )
    return (np.median(cosines) - cosines).astype(np.float64) / bar


# --8<-- [end:evidence]


# --8<-- [start:mode]
@MODES.register("opposition")
@dataclass(frozen=True)
class Opposition:
    """Quarantine who keeps pointing against the others; average the rest."""

    bank: Bank = field(default_factory=Bank)
    bound: float = 0.3  # the largest share of malicious clients you have tried it with
    gives_verdicts: bool = field(default=True, init=False)
    channels: tuple[str, ...] = field(default=("opposition", "suspicion"), init=False)

    @property
    def digest(self):
        return digest(["opposition", 1, self.bound])

    def init(self, layout):
        return {"version": 1, "suspicion": {}}

    def judge(self, cohort, state):
        X = cohort.X.dense()
        evidence = opposition(X)
        before = np.array([state["suspicion"].get(client, 0.0) for client in cohort.ids])
        suspicion = self.bank.after(before, evidence)
        kept = suspicion == 0
        aggregate = X[kept].mean(axis=0) if kept.any() else np.zeros_like(cohort.params)
        verdicts = tuple(map(self._verdict, cohort.ids, evidence.tolist(), suspicion.tolist()))
        balances = state["suspicion"] | dict(zip(cohort.ids, suspicion.tolist(), strict=True))
        return matl.Judgement(aggregate, verdicts), {**state, "suspicion": balances}

    def _verdict(self, client, evidence, suspicion):
        found = {"opposition": evidence, "suspicion": suspicion}
        if suspicion == 0:
            return matl.Verdict(client, 1.0, matl.Status.ACCEPTED, found)
        left = self.bank.rounds_left(suspicion)
        reason = f"pointed against the others; {left} rounds of good conduct until release"
        return matl.Verdict(client, 0.0, matl.Status.QUARANTINED, found, reason)


# --8<-- [end:mode]


if __name__ == "__main__":
    # --8<-- [start:run]
    result = matl.simulate(
        clients=20,
        byzantine=0.3,
        rounds=15,
        seed=1,
        attack="sign_flip",
        mode=Opposition(),
    )
    print(
        f"accuracy {result.accuracy:.1%}, caught {result.tpr:.0%}, falsely accused {result.fpr:.0%}"
    )
    # --8<-- [end:run]
