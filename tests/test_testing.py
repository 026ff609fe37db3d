"""`check_task`: every way to break the contract is found and named, and what keeps it passes."""

import numpy as np
import pytest

from matl.errors import ContractError, InvalidValueError
from matl.learning.tasks import MLPTask, SoftmaxTask
from matl.testing import check_task


class Broken:
    """A task with something done to its answers."""

    def __init__(self, spoil, task=None, **members):
        self._task, self._spoil = task or MLPTask(20, 4, hidden=(16,)), spoil
        for name in ("layout", "num_classes", "features", "init", "predict"):
            setattr(self, name, members.get(name, getattr(self._task, name)))

    def loss_and_gradient(self, params, X, y):
        where = self.layout.slices if hasattr(self.layout, "slices") else {}
        losses, gradients = self._task.loss_and_gradient(params, X, y)
        return self._spoil(losses, gradients, where, params, X)


def scaled(name, factor):
    def spoil(losses, gradients, where, params, X):
        gradients[:, where[name]] *= np.float32(factor)
        return losses, gradients

    return spoil


def same(losses, gradients, *_):
    return losses, gradients


@pytest.mark.parametrize(
    "task",
    [SoftmaxTask(20, 10), MLPTask(5, 3, hidden=(4,)), MLPTask(64, 10, hidden=(32, 16)), Broken(same)],
    ids=["softmax", "tiny", "mlp", "unspoilt"],
)
@pytest.mark.parametrize("seed", range(5))
def test_what_keeps_the_contract_passes(task, seed):
    check_task(task, seed=seed)


@pytest.mark.parametrize("factor", [0, -1, 0.9])
@pytest.mark.parametrize("name", ["layer0.weight", "layer0.bias", "layer1.weight", "layer1.bias"])
@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_gradient_is_found_and_its_parameter_named(name, factor, seed):
    pattern = rf"gradient of '{name}' is wrong: (at index|along) .* it is .*, and central differences .* give"
    with pytest.raises(ContractError, match=pattern):
        check_task(Broken(scaled(name, factor)), seed=seed)


def test_a_sum_instead_of_a_mean_shows_the_two_numbers():
    def summed(losses, gradients, where, params, X):
        return losses, gradients * np.float32(X.shape[1])

    with pytest.raises(ContractError, match=r"central differences of the loss give .*, with 8 samples") as caught:
        check_task(Broken(summed))
    says, loss_says = (float(str(caught.value).split(word)[1].split()[0].strip(",")) for word in ("it is", "give"))
    assert says / loss_says == pytest.approx(8, rel=0.05)


def test_one_wrong_entry_of_a_bias_is_named_by_its_index():
    def one(losses, gradients, where, params, X):
        gradients[:, where["layer1.bias"].start + 2] = 0
        return losses, gradients

    with pytest.raises(ContractError, match=r"'layer1.bias' is wrong: at index \(2,\) it is 0, and"):
        check_task(Broken(one))


def test_the_gradient_may_follow_no_loss_if_the_task_says_so():
    task = Broken(scaled("layer0.bias", 0))
    task.pseudo_gradient = True
    check_task(task)


def in_place(losses, gradients, where, params, X):
    X += 1
    return losses, gradients


def in_place_params(losses, gradients, where, params, X):
    params -= gradients
    return losses, gradients


def noisy(losses, gradients, where, params, X):
    gradients[:, where["layer1.bias"]] += np.random.default_rng().normal()
    return losses, gradients


def mixing(losses, gradients, where, params, X):
    return losses + losses.mean() * np.float32(1e-6), gradients


def mixing_gradients(losses, gradients, where, params, X):
    gradients[:, where["layer0.weight"]] += gradients[:, where["layer0.weight"]].mean(axis=0) * np.float32(1e-3)
    return losses, gradients


def not_finite(losses, gradients, where, params, X):
    gradients[:, 3] = np.nan
    return losses, gradients


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (in_place, "X was changed in place"),
        (in_place_params, "params was changed in place"),
        (noisy, "two gradients of 'layer1.bias', up to .* apart"),
        (mixing, "of a stack of 3 got loss .*, and .* alone"),
        (mixing_gradients, "the gradient of 'layer0.weight' differs too"),
        (not_finite, "expected gradients to be finite, got nan"),
        (lambda loss, g, *_: (loss.astype(np.float64), g), r"losses of shape \(1,\) and float32, got .* and float64"),
        (lambda loss, g, *_: (loss, g.astype(np.float64)), r"gradients of shape \(1, 404\) and float32, got .*float64"),
        (lambda loss, g, *_: (loss.mean(), g), r"losses to be a NumPy array, got a float32"),
        (lambda loss, g, *_: (loss, g[0]), r"gradients of shape \(1, 404\) and float32, got shape \(404,\)"),
    ],
)
def test_other_broken_answers(spoil, message):
    with pytest.raises(ContractError, match=message):
        check_task(Broken(spoil))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"layout": {}}, "layout to be a matl.ParamLayout, got a dict"),
        ({"num_classes": 1}, "expected num_classes >= 2, got 1"),
        ({"init": lambda rng: np.zeros(404)}, r"init\(rng\) of shape \(404,\) and float32, got shape \(404,\) and fl"),
        ({"init": lambda rng: np.random.default_rng().normal(size=404).astype("f")}, "draw from rng alone"),
        ({"predict": lambda params, X: np.zeros(len(X))}, r"predict\(params, X\) of shape \(8,\) and int64, got"),
        ({"predict": lambda params, X: np.full(len(X), 4)}, "predict gave labels 4 to 4; expected 0 to 3"),
        ({"predict": lambda p, X: np.random.default_rng().integers(0, 4, len(X))}, "other labels when repeated"),
    ],
)
def test_other_broken_members(members, message):
    with pytest.raises(ContractError, match=message):
        check_task(Broken(same, **members))


def test_own_samples_and_a_task_that_does_not_say_how_many_features():
    task = Broken(same, features=None)
    with pytest.raises(InvalidValueError, match="Broken does not say how many features it takes; give X"):
        check_task(task)
    check_task(task, X=np.random.default_rng(0).random((12, 20), np.float32))
    check_task(task, X=np.ones((2, 20), np.float32), y=np.array([3, 3]))
