"""A convolutional network of your own on CIFAR-10, with two of ten clients lying."""

# --8<-- [start:model]
from torch import nn


class CNN(nn.Sequential):
    """Two convolutions and a linear layer: 17,000 parameters."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 16, kernel_size=5, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 6 * 6, 10),
        )


# --8<-- [end:model]

# --8<-- [start:simulate]
import matl

task = matl.TorchTask(CNN, shape=(3, 32, 32))
settings = {"clients": 10, "byzantine": 0.2, "mode": "mode0", "rounds": 20, "seed": 1}
local = {"learning_rate": 0.05, "steps": 40}
result = matl.simulate(dataset="cifar10", task=task, local=local, **settings)
print(f"accuracy {result.accuracy:.1%}, caught {result.tpr:.0%}, accused {result.fpr:.0%}")
# --8<-- [end:simulate]
