"""A configuration: every problem at once, each with its key, the value seen and what is allowed."""

import dataclasses
import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.aggregators import AGGREGATORS, NNM, Median
from matl.attacks import ATTACKS, Alie, Sleeper
from matl.errors import ConfigError, InvalidValueError, UnknownNameError
from matl.learning.dp_sgd import DPSGD
from matl.learning.local import LocalTraining
from matl.learning.tasks import TASKS
from matl.registry import Registry, describe
from matl.simulation import RunConfig, load_config
from matl.simulation.config import LocalConfig, to_toml


def problems(content, tmp_path, **overrides):
    path = tmp_path / "run.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return caught.value


def test_every_problem_is_listed_at_once_with_key_value_and_what_is_allowed(tmp_path):
    error = problems(
        """
        clients = 0
        alpha = -0.5
        dataset = "digitz"
        attack = { name = "sign_flip", scal = 2 }
        mode = "mode11"
        partition = "irichlet"
        rouns = 5
        seed = "x"

        [local]
        learnign_rate = 0.1
        steps = 0
        """,
        tmp_path,
    )
    text = str(error)
    assert str(tmp_path / "run.toml") in text
    assert len(error.problems) == 10
    assert "10 problems" in text
    for line in [
        "clients: input should be greater than or equal to 1, got 0",
        "alpha: input should be greater than 0, got -0.5",
        "dataset: unknown dataset 'digitz' (did you mean 'digits'?); known: adult, cifar10, ",
        "attack: attack 'sign_flip' has no option 'scal' (did you mean 'scale'?); options: scale",
        "mode: unknown mode 'mode11' (did you mean 'mode1'?)",
        "partition: unknown partition 'irichlet' (did you mean 'dirichlet'?)",
        "rouns: unknown key (did you mean 'rounds'?); keys: dataset, clients",
        "seed: input should be a valid integer",
        "local.learnign_rate: unknown key (did you mean 'learning_rate'?); keys: learning_rate, batch_size, steps",
        "local.steps: input should be greater than or equal to 1, got 0",
    ]:
        assert f"  - {line}" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("attack = 3", "attack: expected attack as a name or a table with 'name', got 3"),
        ("attack = { scale = 3 }", "attack: expected attack as a name or a table with 'name', got {'scale': 3}"),
        ("attack = { name = 3 }", "attack: expected attack as a name or a table with 'name', got {'name': 3}"),
        ("attack = 2020-01-01", "attack: expected attack as a name or a table with 'name', got datetime.date"),
        ("attack = { name = 'alie', z = 1 }", "attack 'alie' has no option 'z'; options: none"),
        ("attack = { name = 'sleeper', attack = 3 }", "expected attack as a name or a table with 'name', got 3"),
        ("attack = { name = 'sleeper', attack = 'sligs' }", "unknown attack 'sligs'"),
        ("attack = { name = 'sleeper', wake_round = 1.5 }", "sleeper.wake_round: input should be a valid integer"),
        ("attack = { name = 'sign_flip', scale = -1 }", "expected scale > 0, got scale=-1"),
        ("attack = { name = 'sign_flip', scale = inf }", "expected scale to be finite, got scale=inf"),
        ("attack = { name = 'sign_flip', scale = [1] }", "sign_flip.scale: input should be a valid number, got [1]"),
        ("mode = 'plain'\naggregator = { name = 'krum', f = 'x' }", "krum.f: input should be a valid integer"),
        ("mode = { name = 'plain', aggregator = 'mean' }", "mode 'plain' has no option 'aggregator'"),
        ("mode = { name = 'plain', bound = 2 }", "expected 0 <= bound <= 1, got bound=2"),
        ("mode = { name = 'mode1', oracle = 'x' }", "mode 'mode1' has no option 'oracle'"),
        ("task = { name = 'mlp', features = 3 }", "task 'mlp' has no option 'features'"),
        ("task = { name = 'mlp', hidden = [0] }", "task: expected hidden >= 1, got hidden=0"),
        ("server_optimizer = { name = 'fedavgm', momentum = 1 }", "server_optimizer: expected momentum < 1"),
        ("alpha = inf", "alpha: input should be a finite number, got inf"),
        ("max_norm = nan", "max_norm: input should be a finite number, got nan"),
        ("local = { learning_rate = inf }", "local.learning_rate: input should be a finite number, got inf"),
        ("local = { steps = 1, epochs = 1 }", "local: give either steps or epochs, not both"),
        ("local = 3", "local: input should be a valid dictionary"),
        ("local = { optimizer = 'rmsprop' }", "local.optimizer: input should be 'sgd' or 'adam', got 'rmsprop'"),
        ("local = { momentum = 1.0 }", "local.momentum: input should be less than 1, got 1.0"),
        ("local = { optimizer = 'adam', momentum = 0.5 }", "local: momentum is SGD's, got momentum=0.5"),
        ("local = { weight_decay = -1.0 }", "local.weight_decay: input should be greater than or equal to 0"),
        ("local = { proximal = -1.0 }", "local.proximal: input should be greater than or equal to 0"),
        ("local = { max_gradient_norm = 0.0 }", "local.max_gradient_norm: input should be greater than 0"),
        ("local = { proximl = 1.0 }", "local.proximl: unknown key (did you mean 'proximal'?)"),
        ("local = { normalize = true }", "local.normalize: unknown key"),
        ("local = { dp = { noise = 1.0 } }", "local.dp.noise: unexpected keyword argument, got 1.0"),
        ("local = { dp = { noise_multiplier = -1.0 } }", "local.dp: expected noise_multiplier >= 0"),
        ("seed = -1", "seed: input should be greater than or equal to 0"),
        ("byzantine = 1.0", "byzantine: input should be less than 1"),
        ("participation = 0", "participation: input should be greater than 0"),
    ],
)
def test_one_line_for_one_problem(content, message, tmp_path):
    error = problems(content, tmp_path)
    assert len(error.problems) == 1
    assert message in error.problems[0]


def test_files_that_are_no_configuration(tmp_path):
    assert "is not TOML: " in str(problems("clients = ", tmp_path))
    assert "is not TOML: " in str(problems("clients = 1\nclients = 2", tmp_path))
    assert "is not TOML: " in str(problems(f"clients = {'[' * 5000}", tmp_path))
    for name, content in {"absent.toml": None, "latin.toml": "größe".encode("latin-1")}.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"{name}: 1 problem\n  - cannot be read: .*; name an existing TOML"):
            load_config(path, {})
    with pytest.raises(ConfigError, match=r"cannot be read: .*directory"):
        load_config(tmp_path, {})


def test_a_file_nobody_may_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", refuse)  # the superuser may read everything
    with pytest.raises(ConfigError, match=r"cannot be read: .*Permission denied"):
        load_config(tmp_path / "x.toml", {})


def test_messages_say_where_a_value_may_come_from(tmp_path):
    assert str(problems("clients = 0", tmp_path)).startswith(f"{tmp_path / 'run.toml'}: ")
    error = problems("clients = 5", tmp_path, alpha=-1)
    assert str(error).startswith(f"{tmp_path / 'run.toml'} and command line: 1 problem")
    with pytest.raises(ConfigError, match=r"^command line: 1 problem"):
        load_config(None, {"alpha": 0})


def test_values_given_elsewhere_win(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("clients = 7\nrounds = 4\n[local]\nepochs = 2\n")
    config = load_config(path, {"rounds": 9})
    assert (config.clients, config.rounds, config.alpha) == (7, 9, 0.5)
    assert config.local.build() == LocalTraining(steps=None, epochs=2)
    assert RunConfig().local.build() == LocalTraining()
    assert LocalConfig(steps=3).build() == LocalTraining(steps=3)


@pytest.mark.parametrize(
    ("settings", "judge", "label"),
    [
        ({}, "mode1", "mode1"),
        ({"mode": "mode0"}, "mode0", "mode0"),
        ({"mode": {"name": "mode0", "bound": 0.2}}, {"name": "mode0", "bound": 0.2}, "mode0"),
        ({"aggregator": "krum"}, "plain", "krum"),
        ({"aggregator": {"name": "trimmed_mean", "f": 2}}, "plain", "trimmed_mean"),
        ({"aggregator": "mean"}, "plain", "fedavg"),
        ({"mode": "plain"}, "plain", "fedavg"),
    ],
)
def test_the_judge_is_the_one_named_or_the_one_the_aggregator_implies(settings, judge, label):
    config = RunConfig(**settings)
    assert config.mode_spec == judge
    assert config.label == label


NUMBERS = st.floats(0.01, 1e9)
ATTACK = st.one_of(
    st.sampled_from(["none", *ATTACKS]),
    st.builds(lambda k: {"name": "sign_flip", "scale": k}, NUMBERS | NUMBERS.map(repr) | st.integers(1, 9)),
    st.builds(
        lambda k, t: {"name": "sleeper", "wake_round": t, "attack": {"name": "scaling", "scale": k + 1}},
        NUMBERS,
        st.integers(0, 99),
    ),
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "dataset": st.sampled_from(["digits", {"name": "csv", "path": 'a "b".csv', "drop": ["x", "y"]}]),
        "clients": st.integers(1, 10**6),
        "byzantine": st.floats(0, 1, exclude_max=True),
        "attack": ATTACK,
        "mode": st.sampled_from([None, "mode0", "mode1", "plain", {"name": "plain", "bound": 0.25}]),
        "aggregator": st.sampled_from(
            [None, "krum", {"name": "nnm", "f": 2, "rule": {"name": "trimmed_mean", "f": 1}}]
        ),
        "partition": st.sampled_from(["iid", {"name": "rotation", "degrees": 20, "base": {"name": "shards"}}]),
        "alpha": NUMBERS,
        "rounds": st.integers(1, 10**6),
        "participation": st.floats(0, 1, exclude_min=True),
        "task": st.sampled_from(["softmax", {"name": "mlp", "hidden": [8, 4]}, {"name": "mlp", "hidden": []}]),
        "local": st.sampled_from([{}, {"steps": 3, "learning_rate": 1e-7}, {"epochs": 2, "batch_size": 4}]),
        "server_optimizer": st.sampled_from(["sgd", {"name": "fedavgm", "momentum": 0.5, "learning_rate": 2}]),
        "root_size": st.integers(2, 10**6),
        "max_norm": st.none() | NUMBERS,
        "seed": st.integers(0, 2**63 - 1),
    },
)


@given(settings=CONFIGS)
def test_a_configuration_survives_its_file(settings, tmp_path_factory):
    config = load_config(None, settings)
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    path.write_text(to_toml(config), "utf-8")
    again = load_config(path, {})
    assert again == config
    assert again.digest == config.digest


@given(text=st.text(max_size=20))
def test_any_text_survives_the_file(text):
    import tomllib

    text = text.encode("utf-8", "ignore").decode()
    config = RunConfig().model_copy(update={"attack": {"name": "x", "option": text, "flags": [True, (1, 2.5)]}})
    assert tomllib.loads(to_toml(config))["attack"] == {"name": "x", "option": text, "flags": [True, [1, 2.5]]}


def test_numbers_of_numpy_are_written_as_numbers_and_objects_are_refused():
    config = load_config(
        None,
        {"alpha": np.float64(0.3), "clients": np.int64(4), "attack": {"name": "sign_flip", "scale": np.float64(2)}},
    )
    assert "alpha = 0.3\n" in to_toml(config)
    assert 'attack = { name = "sign_flip", scale = 2.0 }\n' in to_toml(config)
    assert '{ name = "krum" }' in to_toml(config.model_copy(update={"aggregator": {"name": "krum", "f": None}}))
    with pytest.raises(InvalidValueError, match="date has no TOML form"):
        to_toml(config.model_copy(update={"attack": {"name": "alie", "x": datetime.date(2020, 1, 1)}}))


def test_the_digest_depends_on_every_value():
    changes = [{}, {"alpha": 0.6}, {"seed": 11}, {"local": LocalConfig(steps=3)}, {"attack": {"name": "sign_flip"}}]
    assert len({RunConfig(**change).digest for change in changes}) == len(changes)


# What configurations stand on: parts built from their specs.


def test_parts_are_built_from_names_and_tables():
    assert ATTACKS.create("alie") == Alie()
    nested = {"name": "sleeper", "wake_round": "7", "attack": "alie"}
    assert ATTACKS.create(nested) == Sleeper(Alie(), 7)
    assert nested == {"name": "sleeper", "wake_round": "7", "attack": "alie"}
    assert ATTACKS.create({"name": "sleeper", "attack": Alie()}) == Sleeper(Alie(), 10)
    assert AGGREGATORS.create({"name": "nnm", "rule": Median()}) == NNM(rule=Median())
    assert TASKS.create({"name": "mlp", "hidden": [3]}, features=2, num_classes=4).layout.size == 2 * 3 + 3 + 3 * 4 + 4


@pytest.mark.parametrize("spec", [3, None, {}, {"name": None}, ["alie"]])
def test_a_spec_is_a_name_or_a_table_with_one(spec):
    with pytest.raises(InvalidValueError, match="expected attack as a name or a table with 'name', got"):
        ATTACKS.create(spec)
    with pytest.raises(UnknownNameError):
        ATTACKS.create({"name": "x", "scale": 1})


def test_functions_and_classes_without_a_constructor_can_be_parts():
    parts = Registry("part")

    @parts.register("bare")
    class Bare:
        pass

    @parts.register("made")
    def made(size: int, colour: str = "red"):
        return size, colour

    assert isinstance(parts.create("bare"), Bare)
    assert parts.create({"name": "made", "colour": "blue"}, size=3) == (3, "blue")
    with pytest.raises(InvalidValueError, match="part 'made' has no option 'size'; options: colour"):
        parts.create({"name": "made", "size": 4}, size=3)


def test_a_part_is_described_by_its_class_and_fields():
    assert describe(Sleeper(Alie(), 3)) == {"name": "Sleeper", "wake_round": 3, "attack": {"name": "Alie"}}
    assert describe(object()) == {"name": "object"}


def test_every_local_key_reaches_the_recipe_and_comes_back_from_toml(tmp_path):
    local = {
        "learning_rate": 0.3,
        "batch_size": 7,
        "epochs": 2,
        "momentum": 0.5,
        "weight_decay": 0.1,
        "proximal": 0.2,
        "max_gradient_norm": 4.0,
        "dp": {"noise_multiplier": 2.0, "max_grad_norm": 3.0, "delta": 1e-6},
    }
    config = load_config(None, {"local": local})
    recipe = config.local.build()
    assert recipe == LocalTraining(**{**local, "steps": None, "dp": DPSGD(**local["dp"])})
    path = tmp_path / "run.toml"
    path.write_text(to_toml(config))
    assert load_config(path, {}) == config
    assert load_config(path, {}).digest == config.digest
    assert load_config(None, {"local": {"optimizer": "adam"}}).local.build() == LocalTraining(optimizer="adam")
    assert set(LocalConfig.model_fields) == {item.name for item in dataclasses.fields(LocalTraining)} - {"normalize"}


def test_a_run_keeps_the_digest_it_was_published_with():
    values = {"dataset": "digits", "mode": "mode1", "attack": "alie", "seed": 12, "alpha": 0.1, "byzantine": 0.45}
    first = "6152377ad0298e3b0a17c71be5e8392e6c867c5f1f8f959bef7a3ffba43fc204"
    assert RunConfig(**values).digest == first
    for used in ({"codec": "int8"}, {"downlink": "int8"}, {"dropouts": 0.1}, {"privacy": {"epsilon": 8.0}}):
        assert RunConfig(**values, **used).digest != first
