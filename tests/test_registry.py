"""Names, other names, and the nearest name."""

import pytest

from matl.aggregators import AGGREGATORS, NNM, Krum, Median, TrimmedMean
from matl.errors import InvalidValueError, UnknownNameError
from matl.learning.datasets import DATASETS
from matl.learning.partition import PARTITIONS
from matl.learning.server import SERVER_OPTIMIZERS
from matl.learning.tasks import TASKS
from matl.registry import Registry, describe


def test_names_aliases_and_summaries():
    parts = Registry("part")

    @parts.register("wheel", "tyre", "rim")
    class Wheel:
        """Turns.

        More about it.
        """

    @parts.register("axle")
    def axle():
        pass

    assert parts.get("wheel") is parts.get("tyre") is Wheel
    assert list(parts) == ["axle", "wheel"]
    assert parts.aliases("wheel") == ["rim", "tyre"]
    assert parts.aliases("axle") == []
    assert parts.summary("rim") == "Turns."
    assert parts.summary("axle") == ""
    assert "rim" in parts
    assert "wheel" in parts
    assert "hub" not in parts
    with pytest.raises(UnknownNameError, match=r"unknown part 'whel' \(did you mean 'wheel'\?\); known: axle, rim, "):
        parts.get("whel")


def test_options_as_on_the_command_line_are_shown_as_a_table():
    with pytest.raises(InvalidValueError, match=r'write \{ name = "csv", path = \.\.\., label = \.\.\. \}'):
        DATASETS.bind("csv:path=mine.csv,label=ill")
    with pytest.raises(UnknownNameError, match="unknown dataset 'cvs:path"):
        DATASETS.bind("cvs:path=mine.csv")
    with pytest.raises(InvalidValueError, match=r'\{ name = "csv", path = \.\.\. \} in a file'):
        DATASETS.bind("csv")


@pytest.mark.parametrize(
    ("registry", "wrong", "right"),
    [
        (AGGREGATORS, "trimed_mean", "trimmed_mean"),
        (DATASETS, "mnits", "mnist"),
        (PARTITIONS, "dirichelt", "dirichlet"),
        (SERVER_OPTIMIZERS, "fedavgmm", "fedavgm"),
        (TASKS, "soft_max", "softmax"),
    ],
)
def test_every_registry_helps_with_a_typing_error(registry, wrong, right):
    with pytest.raises(UnknownNameError, match=f"unknown {registry.kind} '{wrong}'.*did you mean '{right}'"):
        registry.get(wrong)


@pytest.mark.parametrize("registry", [AGGREGATORS, DATASETS, PARTITIONS, SERVER_OPTIMIZERS, TASKS])
def test_every_part_says_what_it_is(registry):
    for name in registry:
        assert registry.summary(name).endswith((".", "seed", "download")), name


def test_a_part_from_a_name_or_a_table():
    assert AGGREGATORS.create("krum") == Krum()
    assert AGGREGATORS.create({"name": "krum", "f": 3}) == Krum(f=3)
    assert AGGREGATORS.create({"name": "nnm", "rule": "median"}) == NNM(rule=Median())
    assert AGGREGATORS.create({"name": "nnm", "rule": {"name": "krum", "f": 1}}) == NNM(rule=Krum(f=1))
    assert AGGREGATORS.create({"name": "nnm", "rule": Median()}) == NNM(rule=Median())
    task = TASKS.create({"name": "mlp", "hidden": [8, 4]}, features=5, num_classes=3)
    assert [entry.shape for entry in task.layout.entries if len(entry.shape) == 2] == [(5, 8), (8, 4), (4, 3)]


@pytest.mark.parametrize(
    ("registry", "spec", "message"),
    [
        (AGGREGATORS, 5, "expected aggregator as a name or a table with 'name', got 5"),
        (AGGREGATORS, {"f": 5}, "a table with 'name', got {'f': 5}"),
        (AGGREGATORS, {"name": ["krum"]}, "a table with 'name'"),
        (AGGREGATORS, "krun", "did you mean 'krum'"),
        (
            AGGREGATORS,
            {"name": "nnm", "rulle": "median"},
            r"no option 'rulle' \(did you mean 'rule'\?\); options: f, rule",
        ),
        (AGGREGATORS, {"name": "mean", "f": 1}, "aggregator 'mean' has no option 'f'; options: none"),
        (AGGREGATORS, {"name": "krum", "f": "many"}, "krum.f: .*integer.*got 'many'"),
        (AGGREGATORS, {"name": "nnm", "rule": "medain"}, "did you mean 'median'"),
        (PARTITIONS, {"name": "dirichlet", "alpha": -1}, "expected alpha > 0, got alpha=-1"),
    ],
)
def test_tables_that_build_nothing(registry, spec, message):
    with pytest.raises(InvalidValueError, match=message):
        registry.create(spec)


def test_what_the_program_gives_is_no_option():
    with pytest.raises(InvalidValueError, match=r"no option 'features'.*; options: num_classes"):
        TASKS.create({"name": "softmax", "features": 3}, features=5)


def test_description_tells_parts_apart():
    assert describe(NNM(f=2, rule=TrimmedMean(1))) == {"name": "NNM", "f": 2, "rule": {"name": "TrimmedMean", "f": 1}}
    assert describe(Median()) == {"name": "Median", "weighted": False}
    assert describe(5) == {"name": "int"}
