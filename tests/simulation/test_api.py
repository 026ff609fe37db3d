"""``matl.simulate`` and the pieces it is made of."""

import dataclasses
import json
import subprocess

import numpy as np
import pytest

import matl
from matl.aggregators import Krum, Rule
from matl.attacks import Attack, SignFlip
from matl.errors import BoundError, ConfigError, InvalidValueError
from matl.learning.datasets import Dataset, Source
from matl.learning.partition import IidPartition
from matl.learning.server import FedAvgM
from matl.learning.tasks import SoftmaxTask
from matl.modes import Mode0, Plain
from matl.simulation import Population, RunConfig, build_simulation, federate, result
from matl.simulation.build import deal
from matl.simulation.result import peak_memory_mib, provenance

RNG = np.random.default_rng(0)
Y = np.arange(240) % 3
X = (RNG.normal(size=(240, 4)) + 2 * np.eye(3, 4)[Y]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Odd(Rule):
    """A rule with a parameter that has no digest."""

    names: frozenset[str] = frozenset("ab")

    def combine(self, X, f, context):
        raise AssertionError("it is refused before it is asked")


TINY = {"task": "softmax", "clients": 8, "byzantine": 0.375, "rounds": 2, "root_size": 12, "seed": 1}


def test_data_can_be_given_in_every_form():
    data = Dataset("mine", X, Y.astype(np.int64), 3)
    forms = [(X, Y), (X.tolist(), Y.tolist()), (X.reshape(240, 2, 2), Y.astype(float)), data, Source(data)]
    runs = [matl.simulate(dataset=form, mode="plain", **TINY) for form in forms]
    assert len({run.params.tobytes() for run in runs}) == 1
    assert [run.as_dict()["dataset"] for run in runs] == ["custom", "custom", "custom", "mine", "mine"]
    assert (
        matl.simulate(dataset="synthetic", mode="plain", **TINY | {"root_size": 20}).as_dict()["dataset"] == "synthetic"
    )


def test_data_that_was_dealt_out_already_is_used_as_it_is():
    data = federate((X, Y), clients=8, alpha=0.3, root_size=12, seed=1)
    settings = {k: v for k, v in TINY.items() if k not in ("clients", "root_size")}
    run = matl.simulate(dataset=data, mode="plain", **settings)
    same = matl.simulate(dataset=(X, Y), alpha=0.3, mode="plain", **TINY)
    assert run.params.tobytes() == same.params.tobytes()
    shown = run.as_dict()
    assert (shown["clients"], shown["alpha"], shown["dataset"]) == (8, None, "custom")  # nobody said how it was dealt
    with pytest.raises(InvalidValueError, match="dealt out already, got also alpha, clients"):
        matl.simulate(dataset=data, alpha=0.3, clients=9)


@pytest.mark.parametrize(
    "labels",
    [np.array(["a"] * 240), Y + 0.5, Y.reshape(-1, 1), np.zeros(0), Y.astype(float) * np.nan, Y.astype(object)],
    ids=["text", "halves", "column", "none", "nan", "objects"],
)
def test_labels_are_whole_numbers(labels):
    with pytest.raises(InvalidValueError, match=r"one whole-number label 0 .. K - 1 per sample, got y of shape"):
        federate((X, labels))


@pytest.mark.parametrize(
    "numbers", [{"seed": -1}, {"seed": 1.5}, {"clients": 2.5}, {"clients": 0}, {"root_size": 12.5}], ids=str
)
def test_a_federation_is_dealt_by_whole_numbers(numbers):
    with pytest.raises(InvalidValueError, match=f"expected {next(iter(numbers))} to be a whole number"):
        federate((X, Y), **{"clients": 4, "root_size": 12, **numbers})


def test_samples_that_do_not_fit_their_labels():
    with pytest.raises(InvalidValueError, match="one label per sample"):
        federate((X[:5], Y))
    with pytest.raises(InvalidValueError, match="n, d >= 1"):
        federate((np.zeros((0, 3)), Y))


def test_a_partition_can_be_given():
    data = federate((X, Y), clients=4, partition=IidPartition(), root_size=12, seed=0)
    assert {len(client) for client in data.clients} == {45}
    config = RunConfig(clients=4, partition="iid", root_size=12, seed=0)
    again = deal((X, Y), config)
    assert [client.y.tolist() for client in again.clients] == [client.y.tolist() for client in data.clients]


class Lazy(Attack):
    def craft(self, view, rng):
        return np.zeros_like(view.own)


class Trusting(Plain):
    pass


class Tiny(SoftmaxTask):
    pass


def test_objects_of_ones_own_take_part_and_the_result_names_them():
    seen = []
    run = matl.simulate(
        dataset=(X, Y),
        task=Tiny(4, 3),
        attack=Lazy(),
        mode=Trusting(),
        server_optimizer=FedAvgM(momentum=0.5),
        sink=seen.append,
        **{k: v for k, v in TINY.items() if k != "task"},
    )
    named = matl.simulate(
        dataset=(X, Y), attack="sign_flip", server_optimizer={"name": "fedavgm", "momentum": 0.5}, mode="plain", **TINY
    )
    assert run.params.tobytes() != named.params.tobytes()
    assert run.name == "Trusting"
    shown = run.as_dict()
    assert (shown["attack"], shown["malicious"]) == ("Lazy", 3)
    assert {key: shown["settings"][key] for key in ("task", "mode", "server_optimizer", "dataset")} == {
        "task": "Tiny",
        "mode": "Trusting",
        "server_optimizer": "FedAvgM",
        "dataset": "custom",
    }
    assert [event.kind for event in seen] == ["round_committed"] * 2
    json.dumps(shown, allow_nan=False)


def test_objects_and_names_mean_the_same():
    by_name = matl.simulate(dataset=(X, Y), mode={"name": "mode0", "bound": 0.4}, **TINY)
    by_object = matl.simulate(dataset=(X, Y), mode=Mode0(bound=0.4), attack=SignFlip(), **TINY)
    assert by_name.params.tobytes() == by_object.params.tobytes()
    assert (by_name.name, by_object.name) == ("mode0", "Mode0")


def test_nobody_is_malicious_without_an_attack():
    for attack in (None, "none"):
        run = matl.simulate(dataset=(X, Y), attack=attack, mode="mode0", **TINY)
        assert run.malicious == ()
        assert run.as_dict()["attack"] == "none"
        assert (run.tpr, run.zero_weight_tpr) == (None, None)
        assert run.fpr is not None
        assert not run.outside_bound


def test_the_ceiling_is_the_same_federation_without_its_malicious_clients():
    attacked = matl.simulate(dataset=(X, Y), mode="plain", ceiling=True, **TINY)
    other = matl.simulate(dataset=(X, Y), mode="mode0", attack="alie", ceiling=True, **TINY)
    assert attacked.ceiling_accuracy == other.ceiling_accuracy > attacked.accuracy
    assert matl.simulate(dataset=(X, Y), mode="plain", **TINY).ceiling_accuracy is None


def test_rules_without_verdicts_have_no_rates():
    run = matl.simulate(dataset=(X, Y), aggregator="krum", attack="malformed", **TINY | {"byzantine": 0.25})
    assert (run.gives_verdicts, run.tpr, run.fpr, run.bound, run.outside_bound) == (False, None, None, None, False)
    assert run.quarantined == run.malicious  # rejected by screening
    assert (run.zero_weight_tpr, run.zero_weight_fpr) == (1.0, 5 / 6)
    assert all(row["true_positive_rate"] is None for row in run.history)


def test_more_malicious_clients_than_a_mode_is_made_for_are_pointed_out():
    mode = {"name": "mode0", "bound": 0.25}
    inside = matl.simulate(dataset=(X, Y), mode=mode, **TINY | {"byzantine": 0.25})
    outside = matl.simulate(dataset=(X, Y), mode=mode, **TINY)
    assert (inside.outside_bound, outside.outside_bound) == (False, True)
    assert inside.bound == outside.bound == 0.25


def test_wrong_settings_are_all_listed():
    with pytest.raises(ConfigError, match="settings: 3 problems") as caught:
        matl.simulate(alpha=0, rouns=3, task=None)
    assert {line.split(":")[0] for line in caught.value.problems} == {"alpha", "rouns", "task"}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"aggregator": "krum", "byzantine": 0.49, "clients": 50}, BoundError, "krum with 50 clients .* at most 23"),
        ({"aggregator": {"name": "krum", "f": 9}, "clients": 12}, BoundError, "krum with 12 .* at most 4 .*got f=9"),
        ({"aggregator": {"name": "krum", "f": -1}}, ConfigError, "aggregator: expected f to be a whole .*got f=-1"),
        ({"aggregator": {"name": "nnm", "rule": "fltrust"}}, ConfigError, "aggregator: .* got FLTrust; use it alone"),
        (
            {"aggregator": {"name": "multi_krum", "m": 50}, "byzantine": 0.1, "clients": 12},
            BoundError,
            "multi_krum averages m=50 updates, but only 12 clients .* use m <= 12",
        ),
        (
            {
                "aggregator": {"name": "nnm", "rule": {"name": "multi_krum", "m": 9}},
                "clients": 12,
                "participation": 0.7,
            },
            BoundError,
            "nnm averages m=9 updates, but only 8 clients",
        ),
        ({"mode": Krum()}, InvalidValueError, r"got the aggregator Krum; wrap it: mode=Plain\(Krum\(...\)\)"),
        ({"mode": 5}, InvalidValueError, r"expected a mode by name or with a method judge\(\), got the object int"),
        (
            {"mode": Plain(Odd())},
            InvalidValueError,
            "the parameters of Plain are not plain data .*set cannot be stored",
        ),
        ({"dataset": 5}, InvalidValueError, r"expected dataset as a name, .* or arrays \(X, y\), got a int"),
        ({"dataset": (X, Y, Y)}, InvalidValueError, r"or arrays \(X, y\), got a tuple"),
        ({"aggregator": "krum", "clients": 12, "participation": 0.5}, BoundError, "krum with 6 clients"),
        ({"mode": "mode1", "aggregator": "krum"}, InvalidValueError, "mode1 aggregates by its own rule"),
        ({"clients": 5000}, InvalidValueError, "5000 clients need at least 2 samples each"),
        ({"root_size": 5}, InvalidValueError, "expected root_size >= 20"),
        (
            {"task": SoftmaxTask(20, 3)},
            InvalidValueError,
            "task tells 3 classes apart, synthetic has 20 features and 10 classes",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_runs(settings, error, message):
    with pytest.raises(error, match=message):
        matl.simulate(**{"dataset": "synthetic", **settings})


def test_baselines_are_told_the_true_number_and_one_where_nobody_attacks():
    def mode(**settings):
        return build_simulation(RunConfig(dataset="synthetic", clients=10, **settings)).workload.mode

    assert mode(aggregator="krum", byzantine=0.3).bound == 0.3
    assert mode(aggregator="krum", attack="none").bound == 0.1
    assert mode(aggregator="krum", mode={"name": "plain", "bound": 0.2}).bound == 0.2
    assert mode(aggregator="fltrust").oracle is not None
    assert mode(aggregator="raw_pogq").oracle is not None
    assert mode(aggregator="median").oracle is None
    assert mode(mode={"name": "mode0", "bound": 0.35}).bound == 0.35


@pytest.mark.parametrize(
    ("share", "clients", "count"), [(0.4, 50, 20), (0.29, 100, 29), (0.99, 2, 1), (0.0, 5, 0), (0.45, 3, 1)]
)
def test_the_malicious_share_is_rounded_down_to_clients(share, clients, count):
    data = federate((X, Y), clients=3, root_size=12)
    many = dataclasses.replace(data, clients=data.clients[:1] * clients)
    population = Population.draw(many, share, seed=0)
    assert len(population.malicious) == len(population.malicious_ids) == count
    assert population.malicious_ids <= set(population.ids)
    assert len(set(population.ids)) == clients


def test_ids_sort_like_their_indices():
    data = federate((X, Y), clients=3, root_size=12)
    ids = Population(dataclasses.replace(data, clients=data.clients[:1] * 1001), frozenset()).ids
    assert list(ids) == sorted(ids)
    assert ids[0] == "client-0000"


@pytest.fixture
def fresh_provenance():
    provenance.cache_clear()
    yield provenance
    provenance.cache_clear()


def test_a_result_says_what_ran(fresh_provenance, monkeypatch):
    def answer(command, **_):
        return subprocess.CompletedProcess(command, 0, stdout="abc\n")

    monkeypatch.setattr(result.subprocess, "run", answer)
    monkeypatch.setattr(result.Path, "exists", lambda path: True)
    facts = fresh_provenance()
    assert facts["versions"]["numpy"] == np.__version__
    assert (facts["commit"], facts["dirty"]) == ("abc", True)


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10)])
def test_without_git_there_is_no_commit(fresh_provenance, monkeypatch, error):
    def answer(command, **_):
        raise error

    monkeypatch.setattr(result.subprocess, "run", answer)
    monkeypatch.setattr(result.Path, "exists", lambda path: True)
    facts = fresh_provenance()
    assert (facts["commit"], facts["dirty"]) == (None, None)


def test_a_result_says_whether_the_files_of_its_commit_were_changed(fresh_provenance, monkeypatch, tmp_path):
    def git(*command):
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", tmp_path, *who, *command], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("before")
    published = tmp_path / "benchmarks" / "results" / "table.md"
    published.parent.mkdir(parents=True)
    published.write_text("before")
    git("add", "file", published)
    git("commit", "-m", "first")
    (tmp_path / "beside").touch()  # untracked: no change to what was committed
    monkeypatch.setattr(result, "__file__", str(tmp_path / "src" / "matl" / "simulation" / "result.py"))
    assert fresh_provenance()["dirty"] is False
    published.write_text("after")  # what the benchmark before this one found: no change to what runs
    fresh_provenance.cache_clear()
    assert fresh_provenance()["dirty"] is False
    (tmp_path / "file").write_text("after")
    fresh_provenance.cache_clear()
    assert fresh_provenance()["dirty"] is True


def test_failed_rounds_are_counted_and_the_last_reason_is_kept():
    run = matl.simulate(dataset=(X, Y), mode="mode0", max_norm=1e-9, **TINY)
    shown = run.as_dict()
    assert (run.failed_rounds, shown["failed_rounds"]) == (2, 2)
    assert shown["last_failure"] == "no update passed screening"
    assert [row["failure"] for row in run.history] == ["no update passed screening"] * 2
    fine = matl.simulate(dataset=(X, Y), mode="mode0", **TINY).as_dict()
    assert (fine["failed_rounds"], fine["last_failure"]) == (0, "")


def test_without_a_checkout_or_a_package_they_are_left_out(fresh_provenance, monkeypatch):
    def absent(name):
        raise result.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(result.metadata, "version", absent)
    monkeypatch.setattr(result.Path, "exists", lambda path: False)
    facts = fresh_provenance()
    assert list(facts["versions"]) == ["python"]
    assert facts["commit"] is None


def test_peak_memory_is_in_mebibytes():
    assert 20 < peak_memory_mib() < 100_000


def test_the_package_lists_its_public_names():
    assert dir(matl) == matl.__all__
    assert matl.attacks.SignFlip is SignFlip
    with pytest.raises(AttributeError, match="module 'matl' has no attribute 'nonsense'"):
        _ = matl.nonsense


def test_a_result_prints_as_one_line():
    result = matl.simulate(dataset="synthetic", clients=12, byzantine=0.25, rounds=1, mode="mode0", seed=1)
    assert str(result).startswith(f"mode0: accuracy {result.accuracy:.1%}, caught ")
    assert str(result).endswith(" of 9")
