"""The search: on development seeds, never on test samples, and to the same end however it is run."""

import sys

import numpy as np
import pytest

from matl.campaigns import tune as module
from matl.campaigns.tune import DEVELOPMENT_SEEDS, Trial, best_of, read_search, resume_search, tune, validation_source
from matl.errors import ConfigError, MissingExtraError, RunInterrupted, StateError
from matl.learning.datasets import Dataset, Source, load_dataset
from matl.simulation import RunConfig, federate, load_config
from matl.simulation.build import deal

BASE = """
dataset = "synthetic"
clients = 6
byzantine = 0.3
rounds = 2
root_size = 20
task = "softmax"
mode = "mode0"
local = { batch_size = 8 }
"""
SPACE = """
[tune]
trials = 12
seeds = [1]
local.learning_rate = { low = 0.001, high = 1.0, log = true }
server_optimizer = { choices = ["sgd", { name = "fedavgm", momentum = 0.5 }] }
local.steps = { low = 2, high = 6 }
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "trial.toml"
        path.write_text(text)
        return read_search(path)

    return read


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    pytest.importorskip("optuna", reason="optuna is not installed")
    folder = tmp_path_factory.mktemp("tune")
    (folder / "trial.toml").write_text(BASE + SPACE)
    search = read_search(folder / "trial.toml")
    return search, tune(search, out=folder / "out"), folder / "out"


def samples(*parts):
    """What can be told of samples: their values, as a set."""
    return {row.tobytes() for part in parts for row in part.X}


def rows_of(data):
    return samples(data.root, *data.clients)


def test_no_test_sample_of_a_seed_is_trained_or_validated_on():
    config = RunConfig(dataset="synthetic", clients=6, root_size=20, seed=3)
    source = load_dataset("synthetic")
    real = deal(source, config)
    tuned = deal(validation_source(source, 3), config)
    assert not samples(real.test) & (samples(tuned.test) | rows_of(tuned))
    assert samples(tuned.test) | rows_of(tuned) == rows_of(real)
    assert not samples(tuned.test) & rows_of(tuned)
    share = tuned.test.class_counts() / (real.root.class_counts() + sum(c.class_counts() for c in real.clients))
    np.testing.assert_allclose(share, 0.2, atol=0.01)


def test_official_test_samples_are_left_out():
    rng = np.random.default_rng(0)
    train, test = (Dataset("toy", rng.normal(size=(n, 3)).astype(np.float32), np.arange(n) % 2, 2) for n in (200, 40))
    source = validation_source(Source(train, test), seed=0)
    assert source.train is train
    assert source.test is None
    tuned = federate(source, clients=5, root_size=10, seed=0)
    assert not samples(test) & (samples(tuned.test) | rows_of(tuned))


def test_the_value_of_a_trial_is_the_accuracy_on_the_validation_samples(whole):
    search, trials, _ = whole
    trial = trials[0]
    values = {"seed": 1, **search.experiment.values, "server_optimizer": trial.params["server_optimizer"]}
    values["local"] = {"batch_size": 8, **{k.split(".")[1]: v for k, v in trial.params.items() if "." in k}}
    config = load_config(None, values)
    data = deal(validation_source(load_dataset("synthetic"), 1), config)
    simulation = module.build_simulation(config, data=data)
    assert trial.values == (module.execute(simulation, config, name="again").accuracy,)


def test_settings_stay_within_what_was_asked_for(whole):
    search, trials, out = whole
    assert len(trials) == search.trials == 12
    for trial in trials:
        assert 0.001 <= trial.params["local.learning_rate"] <= 1
        assert trial.params["local.steps"] in range(2, 7)
        assert trial.params["server_optimizer"] in ("sgd", {"name": "fedavgm", "momentum": 0.5})
    assert len({trial.params["local.learning_rate"] for trial in trials}) == 12
    lines = (out / "trials.csv").read_text().splitlines()
    assert lines[0] == "trial,local.learning_rate,local.steps,server_optimizer,value,seed_1,failure"
    assert len(lines) == 13


@pytest.mark.parametrize("rounds", [0, 5, 22])  # the last of them where proposals depend on earlier trials
def test_a_search_stopped_anywhere_goes_on_to_the_same_trials(whole, tmp_path, read, rounds):
    left = [rounds]

    def stop():
        left[0] -= 1
        return left[0] < 0

    out = tmp_path / "out"
    with pytest.raises(RunInterrupted, match=r"stopped with \d+ of 12 trials done") as caught:
        tune(read(BASE + SPACE), out=out, stop=stop)
    assert caught.value.directory == str(out)
    again = tune(resume_search(out), out=out, resume=True)
    assert again == whole[1]
    assert (out / "trials.csv").read_bytes() == (whole[2] / "trials.csv").read_bytes()


def test_the_best_is_toml_that_can_be_pasted(whole, tmp_path):
    search, trials, _ = whole
    best, toml = best_of(search, trials)
    assert best.value == max(trial.value for trial in trials)
    path = tmp_path / "best.toml"
    path.write_text(toml)
    config = load_config(path, {})
    assert config.local.learning_rate == best.params["local.learning_rate"]
    assert config.local.steps == best.params["local.steps"]
    assert config.local.batch_size == 8  # what the file says besides
    assert config.server_optimizer == best.params["server_optimizer"]
    assert "dataset" not in toml


def test_rounds_to_a_target_are_made_few(read, tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed")
    search = read(BASE + SPACE.replace("trials = 12", "trials = 2\ntarget = 0.2"))
    trials = tune(search, out=tmp_path / "out")
    assert {value for trial in trials for value in trial.values} <= {1.0, 2.0, 3.0}
    best, _ = best_of(search, [Trial({"local.steps": 2}, (3.0,)), Trial({"local.steps": 3}, (1.0,))])
    assert best.params == {"local.steps": 3}
    assert module._objective([0.1, 0.5, 0.9], 0.5) == 2
    assert module._objective([0.1, 0.5, 0.9], 0.95) == 4
    assert module._objective([0.1, 0.5, 0.9], None) == 0.9


def test_a_trial_that_cannot_be_run_is_recorded_and_passed_over(read, tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed")
    text = BASE.replace('mode = "mode0"', 'aggregator = "krum"') + "[tune]\ntrials = 3\nseeds = [0]\n"
    search = read(text + "byzantine = { choices = [0.34, 0.5] }")  # of six clients krum stands one liar
    trials = tune(search, out=tmp_path / "out")
    assert {trial.failure[:20] for trial in trials} == {"krum with 6 clients "}
    assert best_of(search, trials) is None
    assert tune(search, out=tmp_path / "out", resume=True) == trials


def test_the_seeds_are_those_of_development_unless_the_table_names_others(read):
    assert read(BASE + "seeds = [10, 11]\n[tune]\nalpha = { low = 1, high = 2 }").seeds == DEVELOPMENT_SEEDS
    assert read(BASE + "[tune]\nseeds = [7]\nalpha = { low = 1, high = 2 }").seeds == (7,)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "tune: expected keys to search through"),
        ("trials = 0", "tune.trials: expected a whole number >= 1, got 0"),
        ("target = 2", r"tune.target: expected an accuracy in \(0, 1\], got 2"),
        ("seeds = []", r"tune.seeds: expected a list of whole numbers, got \[\]"),
        ("alfa = { low = 1, high = 2 }", r"tune.alfa: unknown key \(did you mean 'alpha'\?\)"),
        ("seed = { low = 1, high = 2 }", "tune.seed: unknown key"),
        ("alpha = 3", "tune.alpha: expected { low"),
        ("alpha = { low = 3 }", "tune.alpha: expected { low"),
        ("alpha = { low = 3, high = 2 }", "tune.alpha: expected { low"),
        ("alpha = { low = 0, high = 2, log = true }", "tune.alpha: expected { low"),
        ("alpha = { low = 1, high = 2, log = true, step = 1 }", "tune.alpha: expected { low"),
        ("alpha = { low = 1, high = 2, stp = 1 }", "tune.alpha: expected { low"),
        ("alpha = { low = 1, high = 2, step = 0 }", "tune.alpha: expected { low"),
        ("local.proximal = { low = 0, high = 2, log = 1 }", "tune.local.proximal: expected { low"),
        ("target = 0.9\nrounds = { low = 1, high = 9 }", "tune.rounds: with a target the rounds are what is measured"),
        ("alpha = { choices = [] }", "tune.alpha: expected { low"),
        ("alpha = { low = '1', high = 2 }", "tune.alpha: expected { low"),
        ("alpha = { low = -1.0, high = 2.0 }", "alpha: input should be greater than 0"),
        ("local.rate = { low = 1, high = 2 }", "local.rate: unknown key"),
    ],
)
def test_problems(read, table, message):
    with pytest.raises(ConfigError, match=message):
        read(BASE + "[tune]\n" + table)


def test_folders_that_cannot_be_used(whole, tmp_path):
    search, _, out = whole
    with pytest.raises(StateError, match="already holds a search; go on with matl tune --resume"):
        tune(search, out=out)
    with pytest.raises(StateError, match="holds no search"):
        resume_search(tmp_path)
    for content in ("[", "[3]", "[{}]"):
        (tmp_path / "trials.json").write_text(content)
        with pytest.raises(StateError, match=r"trials.json cannot be read: .*start the search anew"):
            tune(search, out=tmp_path, resume=True)


@pytest.mark.parametrize(
    "content",
    [
        '[{"params": {"alpha": 1.0}, "values": [0.5], "failure": ""}]',
        '[{"params": [1], "values": [0.5], "failure": ""}]',
        '[{"params": {"local.learning_rate": 0.1, "server_optimizer": "fedexp", "local.steps": 3}, "values": [0.5], '
        '"failure": ""}]',
    ],
)
def test_trials_of_another_search_are_refused(whole, tmp_path, content):
    (tmp_path / "trials.json").write_text(content)
    with pytest.raises(StateError, match=r"trials.json are not of this search: .*start the search anew"):
        tune(whole[0], out=tmp_path, resume=True)


def test_a_choice_of_whole_recipes_is_printed_whole(read):
    search = read(BASE + "[tune]\nlocal = { choices = [{ steps = 3 }, { steps = 4 }] }")
    assert best_of(search, [Trial({"local": {"steps": 4}}, (0.5,))])[1] == "[local]\nbatch_size = 32\nsteps = 4\n"


def test_optuna_is_missing(read, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match="optuna is not installed"):
        tune(read(BASE + SPACE), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
