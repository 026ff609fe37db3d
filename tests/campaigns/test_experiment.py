"""Experiment files: what they mean, and that all that is wrong with one is said at once."""

import sys

import pytest

from matl.campaigns.experiment import in_words, put, read_experiment
from matl.errors import ConfigError, MissingExtraError

BASE = """
dataset = "synthetic"
clients = 10
rounds = 3
root_size = 20
task = "softmax"
"""


@pytest.fixture
def read(tmp_path):
    def read(text, name="trial.toml"):
        path = tmp_path / name
        path.write_text(text)
        return read_experiment(path)

    return read


def settings(experiment):
    return [tuple(cell.settings.values()) for cell in experiment.cells]


def test_the_grid_is_every_combination_on_every_seed_in_the_order_of_the_file(read):
    experiment = read(
        BASE
        + """
        seeds = [3, 1]
        [sweep]
        alpha = [0.1, 1]
        rule = ["krum", "mode0"]
        """
    )
    assert experiment.swept == ("alpha", "rule")
    expected = [(0.1, "krum"), (0.1, "mode0"), (1.0, "krum"), (1.0, "mode0")]
    assert settings(experiment) == [pair for pair in expected for _ in range(2)]
    assert [cell.config.seed for cell in experiment.cells] == [3, 1] * 4
    krum, mode0 = experiment.cells[0].config, experiment.cells[2].config
    assert (krum.mode, krum.aggregator, krum.alpha, krum.clients) == ("plain", "krum", 0.1, 10)
    assert (mode0.mode, mode0.aggregator) == ("mode0", None)
    names = [cell.name for cell in experiment.cells]
    assert names[0] == f"alpha0.1-krum-seed3-{krum.digest[:8]}"
    assert len(set(names)) == len(names)


def test_a_file_without_a_sweep_is_one_cell_and_its_seed_is_that_of_the_configuration(read):
    experiment = read(BASE + "seed = 7")
    assert [(cell.config.seed, cell.settings) for cell in experiment.cells] == [(7, {})]
    assert (experiment.swept, experiment.seeds, experiment.ceiling, experiment.tune) == ((), (), False, {})


def test_dotted_keys_reach_into_tables_and_into_parts(read):
    experiment = read(
        BASE
        + """
        server_optimizer = "fedavgm"
        local = { batch_size = 16 }
        [sweep]
        local.learning_rate = [0.1, 0.2]
        "server_optimizer.momentum" = [0.5]
        attack = ["sign_flip", { name = "scaling", scale = 4.0 }]
        """
    )
    assert experiment.swept == ("local.learning_rate", "server_optimizer.momentum", "attack")
    assert settings(experiment)[1] == (0.1, 0.5, {"name": "scaling", "scale": 4.0})
    assert {cell.config.local.batch_size for cell in experiment.cells} == {16}
    assert experiment.cells[0].config.server_optimizer == {"name": "fedavgm", "momentum": 0.5}


def test_a_part_that_is_swept_takes_the_option_that_is_swept(read):
    experiment = read(BASE + '[sweep]\n"attack.scale" = [2.0, 3.0]\nattack = ["scaling"]')
    assert [cell.config.attack for cell in experiment.cells] == [
        {"name": "scaling", "scale": 2.0},
        {"name": "scaling", "scale": 3.0},
    ]


def test_cases_are_settings_that_belong_together_and_are_combined_with_the_grid(read):
    experiment = read(
        BASE
        + """
        [sweep]
        alpha = [0.1, 1.0]
        cases = [
            { name = "calm", attack = "none", byzantine = 0.0 },
            { name = "stormy", attack = { name = "scaling", scale = 9.0 }, local.learning_rate = 0.5 },
        ]
        """
    )
    assert experiment.swept == ("case", "attack", "byzantine", "local.learning_rate", "alpha")
    assert settings(experiment) == [
        ("calm", "none", 0.0, 0.1, 0.1),
        ("calm", "none", 0.0, 0.1, 1.0),
        ("stormy", {"name": "scaling", "scale": 9.0}, 0.4, 0.5, 0.1),
        ("stormy", {"name": "scaling", "scale": 9.0}, 0.4, 0.5, 1.0),
    ]


def test_yaml_says_the_same(read):
    toml = read(BASE + 'seeds = [0, 1]\nceiling = true\n[sweep]\nalpha = [0.1]\nattack = [{ name = "alie" }, "none"]')
    yaml = read(
        """
        dataset: synthetic
        clients: 10
        rounds: 3
        root_size: 20
        task: softmax
        seeds: [0, 1]
        ceiling: yes
        sweep:
          alpha: [1e-1]   # which YAML 1.1 takes for text
          attack: [{name: alie}, none]
        """,
        "trial.yaml",
    )
    assert [cell.config for cell in yaml.cells] == [cell.config for cell in toml.cells]
    assert [cell.name for cell in yaml.cells] == [cell.name for cell in toml.cells]
    assert yaml.ceiling is toml.ceiling is True


def test_yaml_without_pyyaml(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r"PyYAML is not installed; install it with: pip install 'matl\[sim\]'"):
        read("clients: 3", "trial.yml")


def problems(read, text, name="trial.toml"):
    with pytest.raises(ConfigError) as caught:
        read(text, name)
    return caught.value.problems


def test_every_problem_of_every_cell_is_listed_once_with_its_cell(read):
    found = problems(read, BASE + 'mode = "mode7"\n[sweep]\nalpha = [0.1, 0, -1]\nattack = ["sign_flp", "none"]')
    assert len(found) == 4
    assert [line for line in found if "unknown mode 'mode7'" in line and "in cell" not in line]  # all of them
    assert [line for line in found if "did you mean 'sign_flip'" in line and "(in cell alpha=0.1" in line]
    assert [
        line for line in found if "got 0" in line and line.endswith("(in cell alpha=0, attack=sign_flp and 1 more)")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clents = 3", "clents: unknown key (did you mean 'clients'?)"),
        ("[sweep]\nalfa = [1]", "sweep.alfa: unknown key (did you mean 'alpha'?)"),
        ("[sweep]\nalpha = 1", "sweep.alpha: expected a list of values, got 1; write [1]"),
        ("[sweep]\nalpha = []", "sweep.alpha: expected a list of values, got []"),
        ("[sweep]\nseed = [1]", "sweep.seed: name the seeds under seeds = [...]"),
        ("[sweep]\nalpha = [0.1, 0.1]", "the same as cell alpha0.1-seed10-"),
        ("seeds = [1, 1]", "seeds: expected each seed once"),
        ("seeds = 3", "seeds: expected a list of whole numbers, got 3"),
        ("seeds = []", "seeds: expected a list of whole numbers, got []"),
        ("seeds = [true]", "seeds: expected a list of whole numbers, got [True]"),
        ("seeds = [1]\nseed = 2", "seeds: give either seed or seeds, got also seed=2"),
        ("seeds = [-1]", "seed: input should be greater than or equal to 0"),
        ("ceiling = 1", "ceiling: expected true or false, got 1"),
        ("sweep = 1", "sweep: expected a table, got 1"),
        ("[sweep]\ncases = [1]", "sweep.cases: expected a list of tables of settings, got [1]"),
        ("[sweep]\nalpha = [1]\ncases = [{ alpha = 2 }]", "sweep.alpha: give it either a list of its own or values in"),
        ("[sweep]\ncases = [{ alfa = 2 }]", "sweep.cases.alfa: unknown key"),
        (
            'mode = "mode0"\n[sweep]\nrule = ["krum"]',
            "sweep.rule: a rule stands for mode and aggregator, got also mode",
        ),
        ('[sweep]\nrule = ["krun"]', "rule: unknown rule 'krun' (did you mean 'krum'?)"),
        ('[sweep]\nrule = ["honest_only"]', "rule: honest_only is not a rule of its own here; write ceiling = true"),
        ("[sweep]\nrule = [1]", "rule: expected the name of a mode or an aggregator, got 1"),
        ("alpha = ", "is not TOML"),
    ],
)
def test_problems(read, text, message):
    assert any(message in line for line in problems(read, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected a table of configuration keys, got list"),
        ("a: [", "is not YAML"),
        (f"a: {'[' * 5000}", "is not YAML"),
        ("attack: &a { name: sleeper, attack: *a }", "is not YAML: Circular reference"),
        ("attack: { name: scaling, 1: 2 }", "attack 'scaling' has no option 1"),
        ("1: 2", "got dict"),
    ],
)
def test_problems_of_yaml(read, text, message):
    assert any(message in line for line in problems(read, text, "trial.yaml"))


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "absent.toml"):
        with pytest.raises(ConfigError, match=r"cannot be read: .*name an existing TOML or YAML file"):
            read_experiment(path)


def test_settings_in_words_are_those_of_the_command_line():
    assert in_words({"name": "mlp", "hidden": [128, 64]}) == "mlp:hidden=[128,64]"
    assert in_words({"name": "krum"}) == "krum"
    assert in_words({"name": "nnm", "rule": {"name": "krum", "f": 2}}).startswith('{"name"')


def test_an_option_of_a_part_that_is_not_named_is_one_of_the_default(read):
    values = {}
    put(values, "attack.scale", 2)
    put(values, "task.hidden", [3])
    assert values == {"attack": {"name": "sign_flip", "scale": 2}, "task": {"name": "mlp", "hidden": [3]}}
