"""A scikit-learn classifier among lying clients."""

# --8<-- [start:example]
from sklearn.linear_model import SGDClassifier

import matl

estimator = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.02)
task = matl.SklearnTask(estimator, features=64, num_classes=10)
local = {"learning_rate": 1.0, "steps": 5}
result = matl.simulate(dataset="digits", task=task, local=local, clients=20, rounds=6, mode="mode0")
print(f"accuracy {result.accuracy:.1%}, caught {result.tpr:.0%}, accused {result.fpr:.0%}")
# --8<-- [end:example]
