"""A validator inside a server that is not ours: it says what each update counts, and signs that."""

# --8<-- [start:example]
import numpy as np

import matl
from matl.attest.receipts import verify_receipt

# What the server has: a model, what its clients do, and a few hundred clean samples.
data = matl.federate("synthetic", clients=12, seed=1)  # stands for your clients
task = matl.MLPTask(features=20, num_classes=10)
recipe = matl.LocalTraining(learning_rate=0.1, batch_size=32, steps=10)
model = task.layout.unflatten(task.init(np.random.default_rng(0)))

validator = matl.MATLValidator(task, root=data.root, recipe=recipe, run="ours")

for number in range(4):
    # Your server collects: client id -> new minus old parameters, as arrays or safetensors bytes.
    params = task.layout.flatten(model)
    rngs = [np.random.default_rng([number, index]) for index in range(12)]
    trained = matl.train_locally(task, params, data.clients, recipe, rngs)
    updates = {f"site-{index}": task.layout.unflatten(each) for index, each in enumerate(trained)}
    updates["site-3"] = {name: -array for name, array in updates["site-3"].items()}  # lies
    updates["site-7"] = {"nonsense": np.zeros(3, np.float32)}  # broken

    result = validator.judge(updates, params=model)

    # Your server averages as it always did, with the weights that the validator gives.
    weights = {client: weight for client, weight in result.weights.items() if weight > 0}
    for name in model:
        change = sum(weight * updates[client][name] for client, weight in weights.items())
        model[name] = model[name] + change / sum(weights.values())
    saved = validator.state  # for your database; validator.restore(saved) goes on from there

for client, verdict in result.verdicts.items():
    if verdict.weight < 1:
        print(f"{client}: {verdict.status.value}, {verdict.reason}")
receipt = verify_receipt(result.receipts["site-3"], [validator.key.public])
print(f"signed: {receipt.client_id} {receipt.status.value} in round {receipt.round}")
# --8<-- [end:example]
