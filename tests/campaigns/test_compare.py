"""The same federation under several rules: one seed, resumable anywhere, nothing run in vain."""

import csv
import json

import pytest

from matl.campaigns.compare import (
    CEILING,
    DEFAULT_RULES,
    compare,
    resume_comparison,
    rule_config,
    run_with_ceiling,
)
from matl.errors import BoundError, ConfigError, InvalidValueError, RunInterrupted, StateError, UnknownNameError
from matl.simulation import RunConfig, RunDirectory
from matl.simulation.config import to_toml

CONFIG = RunConfig(dataset="synthetic", clients=10, byzantine=0.3, rounds=3, task="softmax", root_size=20, seed=3)
RULES = ["fedavg", "krum", "mode0", CEILING]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "whole"
    return compare(CONFIG, RULES, out=out), out


def after(rounds):
    """Asks to stop after so many rounds in all."""
    left = [rounds]

    def stop():
        left[0] -= 1
        return left[0] < 0  # asked before every round

    return stop


def outcome(out):
    files = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix == ".json":
            files[name] = strip(json.loads(path.read_text()))
        elif path.name == "rounds.csv":
            with path.open() as file:
                files[name] = [strip(row) for row in csv.DictReader(file)]
        elif path.is_file() and path.name != "checkpoint.msgpack":  # which remembers how long the rounds took
            files[name] = path.read_bytes()
    return files


def strip(value):
    if isinstance(value, dict):
        return {k: strip(v) for k, v in value.items() if k not in ("seconds", "peak_memory_mib")}
    return [strip(item) for item in value] if isinstance(value, list) else value


def test_every_rule_sees_the_same_federation(whole):
    comparison, out = whole
    assert list(comparison.results) == RULES
    tables = {(out / rule / "clients.csv").read_bytes() for rule in RULES}
    assert len(tables) == 1
    saved = json.loads((out / "compare.json").read_text())
    assert saved == comparison.as_dict()
    assert (saved["schema_version"], saved["kind"], saved["simulation"], saved["seed"]) == (1, "comparison", True, 3)
    assert (saved["clients"], saved["malicious"], saved["attack"]) == (10, 3, "sign_flip")
    for row in saved["rules"]:
        result = json.loads((out / row["directory"] / "result.json").read_text())
        assert result["name"] == row["rule"]
        assert {key: result[key] for key in row if key in result} == {k: v for k, v in row.items() if k in result}
    by_rule = {row["rule"]: row for row in saved["rules"]}
    assert by_rule["mode0"]["tpr"] is not None
    for rule in ("fedavg", "krum", CEILING):
        assert by_rule[rule]["tpr"] is by_rule[rule]["fpr"] is by_rule[rule]["bound"] is None
    assert by_rule[CEILING]["accuracy"] > by_rule["fedavg"]["accuracy"]


def test_a_rule_compared_is_the_rule_run_alone(whole, tmp_path):
    alone = run_with_ceiling(rule_config(CONFIG, "mode0"), out=tmp_path / "run")
    assert alone.as_dict()["model_hash"] == whole[0].results["mode0"]["model_hash"]
    assert alone.ceiling_accuracy == whole[0].results[CEILING]["accuracy"]


@pytest.mark.parametrize("rounds", [1, 3, 4, 6, 8, 11])
def test_a_comparison_stopped_within_or_between_rules_goes_on_to_the_same_end(whole, tmp_path, rounds):
    out = tmp_path / "run"
    with pytest.raises(RunInterrupted) as caught:
        compare(CONFIG, RULES, out=out, stop=after(rounds))
    assert caught.value.directory == str(out)  # the comparison, not the rule it was at
    assert not (out / "compare.json").exists()
    finished = {rule: (out / rule / "result.json").read_bytes() for rule in RULES if RunDirectory(out / rule).finished}
    begun = []

    def sink_for(rule):
        begun.append(rule)
        return lambda event: None

    config, rules = resume_comparison(out)
    assert (config, rules) == (CONFIG, RULES)
    compare(config, rules, out=out, resume=True, sink_for=sink_for)
    assert outcome(out) == outcome(whole[1])
    assert begun == [rule for rule in RULES if rule not in finished]
    assert {rule: (out / rule / "result.json").read_bytes() for rule in finished} == finished


def test_a_finished_comparison_is_not_run_again(whole):
    before = outcome(whole[1])
    compare(*resume_comparison(whole[1]), out=whole[1], resume=True, stop=lambda: pytest.fail("a round was run"))
    assert outcome(whole[1]) == before


@pytest.mark.parametrize(
    ("config", "rules", "error", "message"),
    [
        (
            CONFIG,
            ["mode0", "krun"],
            UnknownNameError,
            r"unknown rule 'krun' \(did you mean 'krum'\?\); known: .*honest_",
        ),
        (CONFIG, ["plain"], UnknownNameError, "unknown rule 'plain'"),
        (CONFIG, [], InvalidValueError, "expected at least one rule to compare, got none; e.g. fedavg"),
        (CONFIG.model_copy(update={"byzantine": 0.49, "clients": 50}), ["mode0", "krum"], BoundError, "at most 23"),
        (CONFIG.model_copy(update={"clients": 3000}), ["mode0"], InvalidValueError, "use at most"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(tmp_path, config, rules, error, message):
    with pytest.raises(error, match=message):
        compare(config, rules, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_a_comparison_or_a_run_is_left_alone(whole, tmp_path):
    before = outcome(whole[1])
    with pytest.raises(StateError, match="whole already holds a comparison; go on with matl compare --resume"):
        compare(CONFIG, ["mode0"], out=whole[1])
    with pytest.raises(StateError, match="whole already holds a comparison"):
        run_with_ceiling(CONFIG, out=whole[1])
    assert outcome(whole[1]) == before
    with pytest.raises(StateError, match="already holds a run"):
        compare(CONFIG, ["mode0"], out=whole[1] / "mode0")


def test_folders_that_hold_no_comparison(tmp_path):
    with pytest.raises(StateError, match=r"compare.toml cannot be read: .*is this the folder of a comparison\?"):
        resume_comparison(tmp_path)
    path = tmp_path / "compare.toml"
    for content, error, message in [
        (b"rules = [", StateError, "cannot be read"),
        (b"\xff", StateError, "cannot be read"),
        (b"clients = 5", StateError, "names no rules, got rules=None"),
        (b"rules = 3", StateError, "names no rules, got rules=3"),
        (b"rules = ['krum']\nclients = 0", ConfigError, r"compare.toml: 1 problem"),
    ]:
        path.write_bytes(content)
        with pytest.raises(error, match=message):
            resume_comparison(tmp_path)


def test_each_kind_of_folder_is_resumed_by_its_own_command(whole):
    out = whole[1]
    with pytest.raises(
        StateError, match=r"whole holds a comparison, not a run; go on with matl compare --resume .*whole"
    ):
        RunDirectory(out).read_config()
    with pytest.raises(StateError, match=r"holds a run, not a comparison; go on with matl run --resume .*mode0"):
        resume_comparison(out / "mode0")


def test_a_comparison_says_which_rules_failed_in_how_many_rounds(whole, tmp_path):
    assert {(row["failed_rounds"], row["last_failure"]) for row in whole[0].as_dict()["rules"]} == {(0, "")}
    failing = compare(CONFIG.model_copy(update={"max_norm": 1e-9}), ["fedavg", "mode0"], out=tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "compare.json").read_text())["rules"]
    assert [(row["failed_rounds"], row["last_failure"]) for row in rows] == [(3, "no update passed screening")] * 2
    assert failing.as_dict()["rules"] == rows


def test_rules_are_modes_aggregators_and_the_ceiling():
    config = CONFIG.model_copy(update={"mode": "mode1", "aggregator": None})
    put = {rule: rule_config(config, rule) for rule in [*DEFAULT_RULES, "median"]}
    assert {rule: (new.mode, new.aggregator) for rule, new in put.items()} == {
        "fedavg": ("plain", "fedavg"),
        "krum": ("plain", "krum"),
        "fltrust": ("plain", "fltrust"),
        "raw_pogq": ("plain", "raw_pogq"),
        "mode0": ("mode0", None),
        "mode1": ("mode1", None),
        CEILING: ("plain", "mean"),
        "median": ("plain", "median"),
    }
    assert all(to_toml(new) for new in put.values())


@pytest.mark.parametrize("rounds", [1, 3, 4])
def test_a_run_stopped_in_its_ceiling_or_after_it_goes_on_from_its_own_folder(tmp_path, rounds):
    config = rule_config(CONFIG, "mode0")
    run_with_ceiling(config, out=tmp_path / "whole")
    out = tmp_path / "run"
    with pytest.raises(RunInterrupted) as caught:
        run_with_ceiling(config, out=out, stop=after(rounds))
    assert caught.value.directory == str(out)
    assert RunDirectory(out / CEILING).finished == (rounds >= 3)
    run_with_ceiling(config, out=out, resume=True)
    assert outcome(out) == outcome(tmp_path / "whole")


def test_the_ceiling_can_be_left_out(tmp_path):
    result = run_with_ceiling(rule_config(CONFIG, "fedavg"), out=tmp_path / "run", ceiling=False)
    assert result.ceiling_accuracy is None
    assert not (tmp_path / "run" / CEILING).exists()


def test_an_older_run_in_the_folder_of_a_rule_is_not_taken_for_one_of_the_comparison(tmp_path):
    run_with_ceiling(CONFIG.model_copy(update={"mode": "mode0", "rounds": 1}), out=tmp_path / "mode0", ceiling=False)
    with pytest.raises(StateError, match="mode0 already holds a run"):
        compare(CONFIG, ["krum", "mode0"], out=tmp_path)
    assert not (tmp_path / "compare.toml").exists()
    assert not (tmp_path / "krum" / "config.toml").exists()


def test_an_older_run_is_not_taken_for_the_ceiling(tmp_path):
    run_with_ceiling(CONFIG.model_copy(update={"rounds": 1}), out=tmp_path / CEILING, ceiling=False)
    with pytest.raises(StateError, match="honest_only already holds a run"):
        run_with_ceiling(CONFIG, out=tmp_path)
    assert not (tmp_path / "config.toml").exists()


def test_a_run_killed_before_its_first_round_still_says_that_it_wants_its_ceiling(tmp_path, monkeypatch):
    create = RunDirectory.create

    def create_and_die(self, *args):
        create(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunDirectory, "create", create_and_die)
    with pytest.raises(KeyboardInterrupt):
        run_with_ceiling(CONFIG, out=tmp_path)
    assert (tmp_path / "config.toml").is_file()
    assert (tmp_path / CEILING).is_dir()  # which is what `matl run --resume` goes by
