"""Nothing that judges can know who is malicious: not from its input, not from what it imports."""

import ast
import dataclasses
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import matl
from matl.aggregators import Context, Median
from matl.attacks import GaussianNoise, Sleeper
from matl.matrix import UpdateMatrix
from matl.modes import Mode0, Mode1, Plain
from matl.records import Cohort, RoundSpec, Unit, Update
from matl.simulation import RunConfig, build_simulation, load_config

SOURCE = Path(matl.__file__).parent
JUDGING = ("trust", "modes", "aggregators", "learning", "workloads", "screening", "records", "matrix", "params")
FORBIDDEN = ("matl.simulation", "matl.attacks", "matl.campaigns", "matl.cli")
TELLING = re.compile(r"malicious|liar|attacker|ground_?truth|is_honest|is_bad|poisoned", re.IGNORECASE)


class Spy:
    """Judges like another mode and keeps every cohort it was shown."""

    def __init__(self, mode):
        self.mode, self.cohorts = mode, []
        self.digest, self.bound = mode.digest, mode.bound
        self.gives_verdicts, self.channels = mode.gives_verdicts, mode.channels

    def init(self, layout):
        return self.mode.init(layout)

    def judge(self, cohort, state):
        self.cohorts.append(cohort)
        return self.mode.judge(cohort, state)


def spied(attack, *, malicious=None, mode=None, rounds=2):
    """The cohorts of a federation with 40 % malicious clients (or those given), its reports and its simulation."""
    config = load_config(None, {"dataset": "synthetic", "clients": 20, "rounds": rounds, "attack": "none", "seed": 4})
    spy = Spy(mode or Plain(Median()))
    simulation = build_simulation(config, attack=attack, mode=spy)
    if malicious is not None:
        population = dataclasses.replace(simulation.population, malicious=malicious)
        simulation = dataclasses.replace(simulation, population=population)
    reports = [report for report, _ in simulation.run(simulation.init())]
    return spy.cohorts, reports, simulation


def leaves(value, path=""):
    """Everything reachable from a record, as (path, plain value)."""
    if isinstance(value, UpdateMatrix):
        yield f"{path}.X", value.dense()
    elif dataclasses.is_dataclass(value):
        for item in dataclasses.fields(value):
            yield from leaves(getattr(value, item.name), f"{path}.{item.name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{path}.key", key
            yield from leaves(item, f"{path}[{key!r}]")
    elif isinstance(value, tuple | list | set | frozenset):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def same(a, b):
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def different(one, other):
    first, second = dict(leaves(one)), dict(leaves(other))
    assert first.keys() == second.keys()
    return {path for path in first if not same(first[path], second[path])}


def test_a_cohort_is_the_same_whoever_is_going_to_attack():
    asleep = Sleeper(wake_round=99)
    cohorts, reports, simulation = spied(asleep)
    assert len(simulation.population.malicious) == 8
    for other in (frozenset(), frozenset(range(8))):
        again, same_reports, _ = spied(asleep, malicious=other)
        assert [different(a, b) for a, b in zip(cohorts, again, strict=True)] == [set(), set()]
        assert [r.verdicts for r in reports] == [r.verdicts for r in same_reports]


def test_an_attack_changes_the_malicious_rows_and_nothing_else():
    cohorts, _, simulation = spied(GaussianNoise())
    honest, _, _ = spied(GaussianNoise(), malicious=frozenset())
    assert different(cohorts[0], honest[0]) == {".X.X"}
    changed = (cohorts[0].X.dense() != honest[0].X.dense()).any(axis=1)
    assert set(np.flatnonzero(changed)) == simulation.population.malicious


def test_no_field_of_a_cohort_marks_the_malicious():
    cohorts, _, simulation = spied(GaussianNoise())
    malicious = np.isin(np.arange(20), list(simulation.population.malicious))
    for path, value in leaves(cohorts[0]):
        assert not TELLING.search(path), path
        # The recipe is published before anybody acts.
        assert not isinstance(value, bool | np.bool_) or path.startswith(".spec.recipe"), path
        assert not (isinstance(value, str) and TELLING.search(value)), path
        if isinstance(value, np.ndarray) and not path.endswith(".X.X"):
            assert value.dtype.kind in "fi", path
            if value.shape == (20,) and len(np.unique(value)) > 1:
                low, high = value[malicious], value[~malicious]
                assert max(low.min(), high.min()) < min(low.max(), high.max()), f"{path} tells them apart"
    assert cohorts[0].max_byzantine == 0  # what the judge declared, not the 8 there are


def test_ids_are_the_same_with_and_without_malicious_clients():
    populations = [
        build_simulation(RunConfig(dataset="synthetic", clients=20, byzantine=share, mode="plain", seed=4)).population
        for share in (0.0, 0.4)
    ]
    assert populations[0].ids == populations[1].ids
    assert (len(populations[0].malicious_ids), len(populations[1].malicious_ids)) == (0, 8)


@pytest.mark.parametrize("record", [Cohort, RoundSpec, Unit, Update, Context])
def test_records_have_no_place_for_the_truth(record):
    for item in dataclasses.fields(record):
        assert not TELLING.search(item.name)
        assert "bool" not in str(item.type)


@cache
def imports(module):
    """Modules of matl that a file imports, wherever in it the import stands."""
    path = SOURCE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(FORBIDDEN):
            found.add(node.value)  # what importlib could be given
    return {name for name in found if name.startswith("matl.") and exists(name)}


def exists(module):
    path = SOURCE.joinpath(*module.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def files_of(room):
    path = SOURCE / room
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    return [file for file in files if "__pycache__" not in file.parts]


@pytest.mark.parametrize("room", JUDGING)
def test_no_judging_room_imports_a_simulation_or_an_attack_however_indirectly(room):
    relative = [file.relative_to(SOURCE).with_suffix("") for file in files_of(room)]
    waiting = {".".join(("matl", *(part for part in path.parts if part != "__init__"))) for path in relative}
    assert waiting
    reached = set()
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= imports(module) - reached
    assert not {module for module in reached if module.startswith(FORBIDDEN)}


@pytest.mark.parametrize("room", JUDGING)
def test_no_judging_room_has_a_name_for_the_truth(room):
    for file in files_of(room):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
            assert not (isinstance(name, str) and TELLING.search(name)), f"{file}:{node.lineno}: {name}"


@pytest.mark.parametrize("kind", ["mode0", "mode1"])
def test_shuffling_rows_with_their_ids_permutes_the_verdicts(kind):
    config = RunConfig(dataset="synthetic", clients=20, mode=kind, seed=4)
    mode = build_simulation(config).workload.mode
    assert isinstance(mode, Mode0 | Mode1)
    cohorts, _, simulation = spied(GaussianNoise(), mode=mode)
    state = shuffled_state = mode.init(simulation.task.layout)
    for cohort in cohorts:
        order = np.random.default_rng(cohort.spec.round).permutation(20)
        fields = {name: getattr(cohort, name)[order] for name in ("weights", "examples", "staleness", "received_at")}
        units = tuple(cohort.units[i] for i in order)
        shuffled = dataclasses.replace(cohort, X=cohort.X.take(order), units=units, **fields)
        judgement, state = mode.judge(cohort, state)
        other, shuffled_state = mode.judge(shuffled, shuffled_state)
        assert [v.unit for v in other.verdicts] == [unit.id for unit in units]
        assert {v.unit: v.status for v in other.verdicts} == {v.unit: v.status for v in judgement.verdicts}
