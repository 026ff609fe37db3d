"""A client in PyTorch that learns MNIST: python federated_torch_mnist.py URL INVITATION."""

# --8<-- [start:example]
import sys

import torch
from torch import nn

from matl import MATLClient
from matl.learning.datasets import load_dataset

digits = load_dataset("mnist").train.take(range(6000))  # stands for your own photographs
X = torch.from_numpy(digits.X).reshape(-1, 1, 28, 28)
y = torch.from_numpy(digits.y)
conv1 = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
conv2 = [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
head = [nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10)]
model = nn.Sequential(*conv1, *conv2, *head)  # the run's model: task = "cnn"


def train(params, now):
    """As many steps as the round asks for."""
    model.load_state_dict({name: torch.from_numpy(array) for name, array in params.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=now.recipe["learning_rate"])
    for rows in torch.randint(len(y), (now.recipe["steps"], now.recipe["batch_size"])):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X[rows]), y[rows])
        loss.backward()
        optimizer.step()
    print(f"round {now.number}: loss {loss.item():.3f}")
    return model, len(y)


with MATLClient(sys.argv[1], folder="mnist-client") as client:
    client.join(sys.argv[2])
    client.fit_loop(train)
# --8<-- [end:example]
