"""Train on digits while 40 % of the clients upload the opposite of what they learned."""

# --8<-- [start:example]
import matl

data = matl.federate("digits", clients=50, alpha=0.5, seed=10)
task = matl.MLPTask(features=64, num_classes=10)
oracle = matl.RootOracle(task, data.root, matl.LocalTraining())

result = matl.simulate(
    dataset=data,
    task=task,
    attack=matl.attacks.SignFlip(),
    byzantine=0.4,
    mode=matl.Mode1(oracle=oracle),
    rounds=30,
    seed=10,
)
print(f"accuracy {result.accuracy:.1%}, caught {result.tpr:.0%}, falsely accused {result.fpr:.0%}")
# --8<-- [end:example]
