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
# # Sweeps
#
# One seed is an anecdote. A sweep runs every combination of some settings on several
# seeds, and says how far the means can be trusted. It is described by a file, so that
# it can be repeated, and can be stopped and gone on with.

# %%
import csv
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The file
#
# It is a [configuration](../reference/configuration.md), and besides: `seeds`, and
# lists of values under `[sweep]`. `ceiling = true` trains every cell also without its
# malicious clients, for comparison.

# %%
experiment = """\
dataset = "digits"
clients = 20
rounds = 10
ceiling = true
seeds = [1, 2, 3]

[sweep]
rule = ["fedavg", "nnm", "mode0"]
byzantine = [0.1, 0.2, 0.3]
"""
_ = (folder / "strength.toml").write_text(experiment)

# %% [markdown]
# ## Run it
#
# Twenty-seven cells, each in a folder of its own. `--jobs 4` would run four at a
# time, with the same results to the bit.

# %%
# !matl sweep {folder}/strength.toml --out {folder}/sweep --quiet

# %% [markdown]
# The figure after ± is half of the 95 % confidence interval. With three seeds it is
# wide, which is the honest answer: two rules whose intervals overlap have not been
# told apart.
#
# ## Go on with it
#
# A sweep that was interrupted, or whose machine was switched off, goes on with
# `--resume`. Cells that are finished are not run again; here that is all of them.

# %%
# !matl sweep --resume {folder}/sweep --quiet | head -4

# %% [markdown]
# ## Your own pictures
#
# `results.csv` has a row per cell, with its settings, its figures, and the hash of
# the final model.

# %%
with (folder / "sweep" / "results.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
print("columns:", *rows[0])

# %%
for rule, marker in zip(["fedavg", "nnm", "mode0"], "osD", strict=True):
    mine = [row for row in rows if row["rule"] == rule]
    shares = [float(row["byzantine"]) for row in mine]
    accuracies = [float(row["accuracy"]) for row in mine]
    plt.plot(shares, accuracies, marker, alpha=0.7, label=rule)
plt.xticks([0.1, 0.2, 0.3])
plt.xlabel("share of malicious clients")
plt.ylabel("accuracy on the test set")
plt.legend()
plt.show()

# %% [markdown]
# Every point is one seed. `matl compare` puts any finished runs and sweeps side by
# side, `matl tune` searches for settings in place of listing them: [sweeps and
# searches](../howto/sweeps.md).
