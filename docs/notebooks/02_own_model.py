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
# # Your own model
#
# A `torch.nn.Module` that maps samples to one output per class can be trained by a
# federation and judged by it. You need the extra: `pip install '.[sim,torch]'`. Here a
# small convolutional network reads handwritten digits, and three of ten clients lie.

# %%
from sklearn.linear_model import SGDClassifier
from torch import nn

import matl
from matl.testing import check_task

# %% [markdown]
# ## A network
#
# MATL asks for a function that makes a new network, and for the shape of one sample,
# channels first. The digits come as rows of 64 pixels; the task gives them their
# shape back.


# %%
def network():
    return nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
    )


task = matl.TorchTask(network, shape=(1, 8, 8), device="cpu")
for entry in task.layout.entries:
    print(f"{entry.name:10} {entry.shape}")
print(f"{task.layout.size} parameters")

# %% [markdown]
# A federation sends parameters as one flat vector. `layout` says which of its numbers
# belong where; it is what a server checks incoming updates against. Buffers that a
# training step changes have no place in it, so use GroupNorm where you would use BatchNorm.
#
# ## Does it keep its promises
#
# A task has to be a function of its arguments: the same bits every time, gradients
# that belong to the loss, labels in range. `check_task` tries all of that and raises
# an error that says what is wrong. Here it has nothing to say.

# %%
check_task(task)

# %% [markdown]
# ## Train it among liars

# %%
settings = {"dataset": "digits", "clients": 10, "rounds": 10, "seed": 10, "task": task}
for mode in ("plain", "mode0"):
    result = matl.simulate(**settings, attack="sign_flip", byzantine=0.3, mode=mode)
    print(f"{mode}: accuracy {result.accuracy:.1%}")
print(
    f"Mode 0 caught {result.tpr:.0%} of the liars, accused {result.fpr:.0%} of the rest"
)

# %% [markdown]
# Nothing else changes: attacks, rules, modes and reports see updates, not models.
# `result.params` is the trained model as one vector, and `task.layout.unflatten`
# names its parts again, ready for `load_state_dict`.

# %%
trained = task.layout.unflatten(result.params)
print({name: values.shape for name, values in trained.items()})

# %% [markdown]
# ## A scikit-learn model
#
# Linear classifiers that learn by `partial_fit` work as well, and need no torch. A
# local step is one `partial_fit`; so the local learning rate is 1, and the
# estimator's own decides.

# %%
linear = matl.SklearnTask(
    SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05),
    features=64,
    num_classes=10,
)
check_task(linear)
settings = {
    "dataset": "digits",
    "clients": 10,
    "rounds": 10,
    "seed": 10,
    "task": linear,
}
result = matl.simulate(
    **settings,
    attack="sign_flip",
    byzantine=0.3,
    mode="mode0",
    local={"learning_rate": 1.0},
)
print(
    f"accuracy {result.accuracy:.1%}, caught {result.tpr:.0%}, accused {result.fpr:.0%}"
)

# %% [markdown]
# Anything else that has a loss and a gradient can be a task: [bring your own
# model](../howto/own-model.md).
