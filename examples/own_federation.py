"""A round of your own federation: screen what arrives, judge it, step the model, keep the state."""

# --8<-- [start:example]
import numpy as np

import matl
from matl import state as states
from matl.records import Rejection, RoundSpec, Update
from matl.screening import screen_values

# What your server has: the model, what the clients do locally, and a small clean sample of its own.
data = matl.federate("synthetic", clients=12, seed=1)  # stands for your clients
task = matl.MLPTask(features=20, num_classes=10)
recipe = matl.LocalTraining(learning_rate=0.1, batch_size=32, steps=10)
mode = matl.Mode1(oracle=matl.RootOracle(task, data.root, recipe))
params, state = task.init(np.random.default_rng(0)), mode.init(task.layout)

for number in range(3):
    # Your transport goes here: one Update per client that answered, arrays or safetensors bytes.
    spec = RoundSpec(run="mine", round=number, model_hash="", layout_hash=task.layout.digest)
    rows, ids, counts = [], [], []
    for index, client in enumerate(data.clients):
        rng = np.random.default_rng([number, index])
        update = matl.train_locally(task, params, [client], recipe, [rng])[0]
        if index < 3:
            update = -update  # three clients lie
        message = Update(
            client_id=f"hospital-{index}",
            run="mine",
            round=number,
            base_version=number,
            model_hash="",
            payload=task.layout.unflatten(update),
        )
        # NaN, wrong shapes, wrong names: a Rejection, never an exception.
        row = screen_values(message, spec, task.layout)
        if isinstance(row, Rejection):
            print(row.client_id, row.reason)
            continue
        rows.append(row)
        ids.append(message.client_id)
        counts.append(len(client))

    # params: Mode 1 compares with training that starts where the clients started.
    cohort = matl.Cohort.of(
        np.stack(rows),
        params=params,
        ids=ids,
        weights=np.minimum(counts, 3 * np.median(counts)),  # nobody can check a claim
        round=number,
        seed=number,
    )
    judgement, state = mode.judge(cohort, state)
    params = params + judgement.aggregate
    saved = states.pack(state)  # bytes for your database; states.unpack gives the state back
    for verdict in judgement.verdicts:
        if verdict.status == "quarantined":
            print(number, verdict.unit, verdict.reason)
# --8<-- [end:example]
