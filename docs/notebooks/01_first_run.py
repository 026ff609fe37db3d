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
# # A first run
#
# Thirty clients learn to read handwritten digits together. Twelve of them upload the
# opposite of what they learned. This notebook trains the same federation three times:
# with nobody lying, with the liars and plain averaging, and with the liars and a
# judge. It takes half a minute on a laptop.
#
# Everything here is a simulation, which is how we know who lies; the judge is not
# told.

# %%
import matplotlib.pyplot as plt

import matl

settings = {"dataset": "digits", "clients": 30, "rounds": 30, "seed": 10}

# %% [markdown]
# ## Nobody lies
#
# `attack=None` makes every client honest. `mode="plain"` is federated averaging
# without any judge. What this run reaches is the ceiling: no judge can do better than
# to train on exactly the honest clients.

# %%
honest = matl.simulate(**settings, attack=None, mode="plain")
print(f"accuracy {honest.accuracy:.1%}")

# %% [markdown]
# ## 40 % flip the sign
#
# The same data, clients and seed, but twelve clients send their update times minus
# one.

# %%
attacked = matl.simulate(**settings, attack="sign_flip", byzantine=0.4, mode="plain")
print(f"accuracy {attacked.accuracy:.1%}; malicious: {len(attacked.malicious)} of 30")

# %% [markdown]
# ## The same with a judge
#
# [Mode 1](../concepts/modes.md) owns a hundred clean samples. With them it simulates
# honest clients and compares; it is never told how many liars there are.

# %%
judged = matl.simulate(**settings, attack="sign_flip", byzantine=0.4, mode="mode1")
print(f"accuracy {judged.accuracy:.1%}")
print(
    f"caught {judged.tpr:.0%} of the malicious, accused {judged.fpr:.0%} of the honest"
)

# %%
for name, result in {
    "nobody lies": honest,
    "averaging": attacked,
    "Mode 1": judged,
}.items():
    plt.plot(
        [row["accuracy"] for row in result.history],
        label=f"{name}, {result.accuracy:.1%}",
    )
plt.xlabel("round")
plt.ylabel("accuracy on the test set")
plt.legend()
plt.show()
# %% [markdown]
# ## Who lied
#
# `quarantined` names the clients whose updates no longer count. The simulation knows
# the truth, so we can compare.

# %%
print("quarantined:", *judged.quarantined)
print(
    "missed:     ",
    *sorted(set(judged.malicious) - set(judged.quarantined)) or ["nobody"],
)
print(
    "wronged:    ",
    *sorted(set(judged.quarantined) - set(judged.malicious)) or ["nobody"],
)

# %% [markdown]
# How the judge came to its verdicts is the subject of [Reading
# verdicts](04_reading_verdicts.md). One seed is an anecdote: the
# [benchmarks](../benchmarks.md) have more, and show where the judges fail.
