# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Convergence on small federations
#
# Ten hospitals are not ten million phones. With few clients and very different data,
# federated averaging is slow: every client pulls towards its own classes, and the
# average of the pulls is a small step. What the server does with the average, and
# what clients do against drifting apart, decides how many rounds it takes. First
# without any attack, then with liars.

# %%
import matplotlib.pyplot as plt

import matl
from matl.errors import InvalidValueError

algorithms = [
    "sgd",
    "fedavgm",
    "fedadam",
    "fedyogi",
    "fedexp",
    "scaffold",
    "feddyn",
    "auto",
]
settings = {"dataset": "digits", "alpha": 0.1, "rounds": 30, "seed": 10}


def rounds_to(result, accuracy):
    """The first round whose model is that good, counted from 1."""
    reached = [
        row["round"] + 1 for row in result.history if row["accuracy"] >= accuracy
    ]
    return reached[0] if reached else "never"


# %% [markdown]
# ## Six clients, hardly overlapping
#
# `alpha=0.1` gives most clients one or two classes each. `sgd` is plain federated
# averaging.

# %%
results = {
    name: matl.simulate(
        **settings,
        clients=6,
        attack=None,
        byzantine=0.0,
        mode="plain",
        server_optimizer=name,
    )
    for name in algorithms
}
print(f"{'':10}{'to 85 %':>10}{'at the end':>12}")
for name, result in results.items():
    print(f"{name:10}{rounds_to(result, 0.85):>10}{result.accuracy:12.1%}")

# %%
for name, result in results.items():
    plain = name == "sgd"
    plt.plot(
        [row["accuracy"] for row in result.history],
        "--" if plain else "-",
        color="black" if plain else None,
        label=name,
    )
plt.xlabel("round")
plt.ylabel("accuracy on the test set")
plt.legend(ncols=2)
plt.show()

# %% [markdown]
# Two families are at work. *fedavgm*, *fedadam*, *fedyogi*, *fedexp* and *auto*
# change what the server does with the aggregate; clients notice nothing. *scaffold*
# and *feddyn* correct every client's own gradients for the direction it drifts in,
# which takes a memory at each client. *auto* is MATL's choice where nobody wants to
# tune. What they are, with formulas and papers:
# [convergence](../concepts/convergence.md).
#
# ## Half of the clients each round
#
# Twelve clients, six of which take part in a round. A client's memory is now older,
# and the average is a different one each time.

# %%
print(f"{'':10}{'to 85 %':>10}{'at the end':>12}")
for name in algorithms:
    result = matl.simulate(
        **settings,
        clients=12,
        participation=0.5,
        attack=None,
        byzantine=0.0,
        mode="plain",
        server_optimizer=name,
    )
    print(f"{name:10}{rounds_to(result, 0.85):>10}{result.accuracy:12.1%}")

# %% [markdown]
# ## With liars
#
# Ten clients, three of which flip the sign, and a milder skew. A faster algorithm is
# also faster at following a lie, so without a judge it gains little. The judge sees
# updates before the server optimiser does.

# %%
lying = {"dataset": "digits", "clients": 10, "rounds": 20, "seed": 10, "byzantine": 0.3}
print(
    f"{'':10}{'plain':>8}{'mode0':>8}{'caught: round 10':>18}{'end':>6}{'accused':>9}"
)
for name in ["sgd", "fedavgm", "fedadam", "fedyogi", "fedexp", "auto"]:
    plain = matl.simulate(**lying, mode="plain", server_optimizer=name)
    judged = matl.simulate(**lying, mode="mode0", server_optimizer=name)
    early = judged.history[9]["true_positive_rate"]
    verdicts = f"{early:18.0%}{judged.tpr:6.0%}{judged.fpr:9.0%}"
    print(f"{name:10}{plain.accuracy:8.1%}{judged.accuracy:8.1%}{verdicts}")

# %% [markdown]
# Where fewer are caught at the end than before, liars were released: as a model
# converges, updates come to look alike, the lies among them ([what is weaker than it
# looks](../benchmarks.md#what-is-weaker-than-it-looks)), and a faster algorithm gets
# there sooner. With seven honest clients, one that is accused counts 14 %.
#
# *scaffold* and *feddyn* are for federations whose clients are trusted, or for rules
# that accuse nobody. Their clients correct their updates by what each remembers, and
# no judge can tell a correction from a lie, so MATL refuses the combination:

# %%
try:
    matl.simulate(**lying, mode="mode0", server_optimizer="feddyn")
except InvalidValueError as refusal:
    print(refusal)

# %% [markdown]
# These are single seeds of a small task. To compare on several, use a
# [sweep](06_sweeps.md).
