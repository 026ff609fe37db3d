"""Data and partitions as a configuration names them, and what the result says of them."""

import numpy as np
import pytest

import matl
from matl.errors import ConfigError, InvalidValueError
from matl.learning.datasets import Dataset, read_csv
from matl.learning.partition import DirichletPartition, IidPartition, RotationPartition
from matl.simulation import RunConfig, federate, load_config
from matl.simulation.build import deal
from matl.simulation.config import to_toml

TINY = {"task": "softmax", "byzantine": 0.25, "rounds": 1, "mode": "plain"}


@pytest.fixture
def mine(tmp_path):
    """A CSV file of 120 rows from six hospitals."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    rows = [f"{rng.normal(label):.3f},{'nsew'[i % 4]},h{i % 6},{'yes' if label else 'no'}" for i, label in enumerate(y)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["age,ward,hospital,ill", *rows]))
    return path


def held(data):
    return [client.X.tobytes() for client in data.clients]


def test_a_partition_is_named_described_or_made():
    forms = ["dirichlet", {"name": "dirichlet"}, DirichletPartition(0.2)]
    first, second, third = (held(federate("synthetic", clients=5, alpha=0.2, partition=form)) for form in forms)
    assert first == second == third
    own = federate("synthetic", clients=5, alpha=0.2, partition={"name": "dirichlet", "alpha": 9.0})
    assert held(own) == held(federate("synthetic", clients=5, partition=DirichletPartition(9.0)))
    even = federate("synthetic", clients=5, alpha=0.2, partition="iid")  # which takes no alpha
    assert held(even) == held(federate("synthetic", clients=5, partition=IidPartition()))


def test_a_configuration_deals_as_federate_does():
    table = {"name": "rotation", "degrees": 20, "base": {"name": "dirichlet", "alpha": 2}}
    config = load_config(None, {"dataset": "digits", "clients": 6, "partition": table, "seed": 3})
    expected = federate("digits", clients=6, partition=RotationPartition(20.0, DirichletPartition(2.0)), seed=3)
    assert held(deal(config.dataset, config)) == held(expected)
    assert held(expected) != held(federate("digits", clients=6, partition=DirichletPartition(2.0), seed=3))
    assert "alpha" not in RunConfig(partition="iid").partition


def test_a_file_can_be_named_in_a_configuration(mine, tmp_path):
    spec = {"name": "csv", "path": str(mine), "label": "ill", "group": "hospital"}
    path = tmp_path / "run.toml"
    path.write_text(to_toml(load_config(None, {"dataset": spec, "partition": "natural", "clients": 3})))
    config = load_config(path, {"root_size": 8})
    assert config.dataset == spec
    data = deal(config.dataset, config)
    assert sorted(len(set(client.groups)) for client in data.clients) == [2, 2, 2]
    result = matl.simulate(dataset=spec, partition="natural", clients=3, root_size=8, **TINY)
    shown = result.as_dict()
    assert shown["dataset"] == "mine.csv"
    assert shown["settings"]["dataset"] == spec
    assert shown["data"]["class_names"] == ("no", "yes")
    same = matl.simulate(
        dataset=read_csv(mine, label="ill", group="hospital"), partition="natural", clients=3, root_size=8, **TINY
    )
    assert same.params.tobytes() == result.params.tobytes()


def test_a_configuration_is_checked_without_looking_for_the_data():
    config = load_config(None, {"dataset": {"name": "csv", "path": "nowhere.csv", "schema": "nowhere.json"}})
    assert config.dataset["path"] == "nowhere.csv"
    for settings, message in [
        ({"dataset": "csv"}, "dataset: dataset 'csv' needs the option 'path'"),
        ({"dataset": {"name": "csv", "path": "x", "scheme": "y"}}, r"no option 'scheme' \(did you mean 'schema'\?\)"),
        ({"dataset": 5}, "expected dataset as a name or a table with 'name', got 5"),
        ({"partition": {"name": "shards", "per_client": 0}}, "per_client to be a whole number >= 1"),
        ({"partition": {"name": "rotation", "base": "idd"}}, r"unknown partition 'idd' \(did you mean 'iid'\?\)"),
    ]:
        with pytest.raises(ConfigError, match=message):
            load_config(None, settings)


def test_the_result_says_how_the_data_were_spread():
    result = matl.simulate(dataset="synthetic", clients=10, partition="classes", root_size=20, **TINY)
    data = result.as_dict()["data"]
    assert data["clients"] == 10
    assert data["samples_min"] <= data["samples_median"] <= data["samples_max"]
    assert data["effective_classes_mean"] == pytest.approx(2, abs=0.01)
    assert data["divergence_mean"] == pytest.approx(0.8, abs=0.01)


def test_a_root_that_lacks_a_class_is_refused():
    rng = np.random.default_rng(0)
    parts = [Dataset("x", rng.random((20, 2), np.float32), np.arange(20) % k, 3) for k in (2, 3, 3, 3)]
    with pytest.raises(InvalidValueError, match=r"at least 2 root samples of every class, got \[10, 10, 0\]"):
        matl.simulate(dataset=matl.FederatedData(parts[0], parts[1], tuple(parts[2:])), **TINY)
