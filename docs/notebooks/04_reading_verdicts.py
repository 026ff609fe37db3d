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
# # Reading verdicts
#
# A judge says more than who is out: every client gets, every round, a status, a
# weight, the evidence by channel and a reason in words. Here twelve of thirty clients
# are sleepers: they behave for ten rounds and then flip the sign of their updates.

# %%
import csv
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import matl

events = []
result = matl.simulate(
    dataset="digits",
    clients=30,
    byzantine=0.4,
    rounds=20,
    seed=10,
    attack={"name": "sleeper", "wake_round": 10, "attack": "sign_flip"},
    mode="mode1",
    sink=events.append,
)
print(
    f"accuracy {result.accuracy:.1%}, caught {result.tpr:.0%}, accused {result.fpr:.0%}"
)

# %% [markdown]
# ## As it happens
#
# `sink` is called with every event of the run: this is what a server would write to
# its log.

# %%
for event in events:
    if event.kind == "client_quarantined":
        print(f"round {event.round:2}  {event.data['client']}  {event.data['reason']}")

# %% [markdown]
# The sleepers act from round 10 on, rounds being counted from 0. A [bank of
# suspicion](../concepts/quarantine.md) adds evidence up: strong evidence quarantines
# at once, weak evidence needs several rounds.
#
# ## All of it, as a table
#
# `matl run` writes a folder with, among others, `verdicts.csv`: one row per client
# and round.

# %%
folder = Path(tempfile.mkdtemp()) / "run"
# !matl run --clients 30 --byzantine 0.4 --rounds 20 --seed 10 \
#     --attack sleeper:wake_round=10,attack=sign_flip --no-ceiling --quiet --out {folder}

# %%
with (folder / "verdicts.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
print("columns:", *rows[0])

sleeper, honest = (
    min(result.malicious),
    min({row["client"] for row in rows} - set(result.malicious)),
)
for client in (sleeper, honest):
    last = [row for row in rows if row["client"] == client][-1]
    print(
        f"\n{client}, round {last['round']}: {last['status']}, weight {last['weight']}"
    )
    print(last["reason"] or "nothing to say against it")

# %% [markdown]
# The evidence columns are the channels of [Mode 1](../concepts/modes.md#mode-1), in
# units of their bars: honest clients stay below 1, which is where honest behaviour
# ends. An empty cell means no opinion. `strongest` is what the bank of suspicion is
# paid, `suspicion` what it holds afterwards.

# %%
channels = ["relabelling", "alien", "norm", "turn", "collusion"]
print(
    f"{'round':>5} {'status':12} "
    + " ".join(f"{name:>11}" for name in [*channels, "suspicion"])
)
for row in rows:
    if row["client"] == sleeper and int(row["round"]) >= 8 and int(row["round"]) < 16:
        values = " ".join(
            f"{float(row[name]):11.2f}" if row[name] else f"{'-':>11}"
            for name in [*channels, "suspicion"]
        )
        print(f"{row['round']:>5} {row['status']:12} {values}")

# %% [markdown]
# *turn* compares a client with its own past, which makes it the quickest to notice a
# sleeper.
#
# ## Everybody at once

# %%
for client in sorted({row["client"] for row in rows}):
    mine = [row for row in rows if row["client"] == client]
    lies = client in result.malicious
    plt.plot(
        [int(row["round"]) for row in mine],
        [float(row["strongest"]) for row in mine],
        "--" if lies else "-",
        color="tab:red" if lies else "tab:blue",
        linewidth=1,
        label=("malicious" if lies else "honest")
        if client in (sleeper, honest)
        else None,
    )
plt.axhline(1, color="black", linewidth=0.8)
plt.xticks(range(0, 20, 5))
plt.xlabel("round")
plt.ylabel("strongest evidence")
plt.legend()
plt.show()
# %% [markdown]
# Who is malicious is drawn from the simulation's truth; in a federation of your own
# the lines have one colour.
#
# ## Out, and how to come back
#
# A quarantined client goes on sending and being measured, and each of its verdicts
# says how much good conduct leads out.

# %%
status = {row["client"]: row["status"] for row in rows if int(row["round"]) == 19}
print(
    {name: list(status.values()).count(name) for name in sorted(set(status.values()))}
)
for row in rows:
    if row["client"] == sleeper and row["status"] == "quarantined":
        print(f"round {row['round']}: {row['reason']}")

# %% [markdown]
# What each status means is in [Rounds, updates, verdicts](../concepts/rounds.md). The
# same folder holds `report.html`, which draws all of this; `matl report` writes it
# again.
