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
# # Attacks and defences
#
# Which rule withstands which attack? Five rules against five attacks by 40 % of
# thirty clients, on the same data and seed. All of it is simulated.

# %%
import matl

settings = {"dataset": "digits", "clients": 30, "rounds": 15, "seed": 10}
attacks = ["sign_flip", "gaussian_noise", "scaling", "label_flip", "alie"]
rules = {
    "mean": {"aggregator": "mean"},
    "krum": {"aggregator": "krum"},
    "nnm": {"aggregator": "nnm"},
    "mode0": {"mode": "mode0"},
    "mode1": {"mode": "mode1"},
}
ceiling = matl.simulate(**settings, attack=None, byzantine=0.0, mode="plain")
print(f"without an attack averaging reaches {ceiling.accuracy:.1%}")

# %% [markdown]
# `mean` believes everybody. `krum` and `nnm` ([how they
# work](../concepts/aggregation.md)) are told the true number of liars, which nobody
# knows in practice; they weigh updates and accuse nobody. The modes are told nothing
# and give verdicts.

# %%
results = {
    (attack, rule): matl.simulate(**settings, attack=attack, byzantine=0.4, **choice)
    for attack in attacks
    for rule, choice in rules.items()
}

# %% [markdown]
# ## Accuracy

# %%
print(f"{'':15}" + "".join(f"{rule:>8}" for rule in rules))
for attack in attacks:
    print(
        f"{attack:15}"
        + "".join(f"{results[attack, rule].accuracy:8.1%}" for rule in rules)
    )

# %% [markdown]
# Two things are worth a look. Krum keeps a single update, so it pays for its
# robustness on skewed data even where the attack is harmless. And not every attack
# hurts the mean: ALIE hides inside the spread of honest updates, and on so small a
# task it does next to nothing. An attack that does not hurt averaging says little
# about a defence.
#
# ## Who was caught
#
# Malicious clients quarantined at the end, and honest ones accused.

# %%
liars = len(results["sign_flip", "mode0"].malicious)
print(f"{'':15}{'mode0':>20}{'mode1':>20}")
for attack in attacks:
    cells = []
    for rule in ("mode0", "mode1"):
        result = results[attack, rule]
        wronged = set(result.quarantined) - set(result.malicious)
        cells.append(
            f"{len(result.quarantined) - len(wronged)}/{liars}, {len(wronged)} wronged"
        )
    print(f"{attack:15}" + "".join(f"{cell:>20}" for cell in cells))

# %% [markdown]
# ## Beyond the bound
#
# Every mode declares the share of malicious clients it is made for, and a result says
# when a run was outside it. Mode 0 has no trusted data, and 40 % is more than the
# third it claims: its rows above are to be read with that in mind.

# %%
for rule in ("mode0", "mode1"):
    result = results["sign_flip", rule]
    print(f"{rule}: made for up to {result.bound:.0%}, outside: {result.outside_bound}")

# %% [markdown]
# ## What the adversary knows
#
# An attack declares its knowledge. `alie` is the only one here that is given the
# honest updates; the others see their own.

# %%
for attack in (matl.attacks.SignFlip(), matl.attacks.LabelFlip(), matl.attacks.Alie()):
    print(f"{type(attack).__name__:10} {attack.knowledge}")

# %% [markdown]
# Write [an attack](../howto/own-attack.md) or [a rule](../howto/own-rule.md) of your
# own, and put it into the tables above.
