"""Runs whose judge sees private sums only: what they cost, what is refused, and what attacks do to them."""

import json
import tomllib

import numpy as np
import pytest

import matl
from matl.errors import BoundError, ConfigError, InvalidValueError, RunInterrupted, StateError
from matl.modes import Mode0, Plain
from matl.privacy.words import Words
from matl.simulation.api import execute
from matl.simulation.build import build_simulation
from matl.simulation.config import load_config, to_toml

SMALL = {"dataset": "digits", "clients": 30, "rounds": 8, "mode": "plain", "attack": "none", "seed": 3}


def run(privacy, **changes):
    return matl.simulate(**{**SMALL, **changes}, privacy=privacy)


@pytest.mark.parametrize("mechanism", ["distributed", "central", "local"])
def test_a_private_run_says_what_it_protects_and_repeats_itself(mechanism):
    privacy = {"epsilon": 20.0, "mechanism": mechanism, "clip": 0.5}
    first, second = run(privacy), run(privacy)
    np.testing.assert_array_equal(first.params, second.params)
    told = first.as_dict()["privacy"]
    assert told["mechanism"] == mechanism
    assert 19.5 < told["epsilon"]["zero_out"] <= 20.0 < told["epsilon"]["replace_one"]
    assert (told["rounds"], told["delta"]) == (8, 1e-5)
    assert "protects nobody" in told["simulated"]
    assert told["bits_per_coordinate"] == 8 * first.payload_bytes / first.params.size


def test_the_words_of_a_private_run_are_ten_times_smaller_and_it_learns():
    clear, private = run(None), run({"epsilon": 20.0, "clip": 0.5, "alignment": 0.6})
    assert clear.history[0]["payload_bytes"] / private.history[0]["payload_bytes"] > 9.9
    assert private.as_dict()["payload_bytes"] == private.history[0]["payload_bytes"]
    assert private.accuracy > 0.6
    assert clear.as_dict()["privacy"] is None


def test_less_epsilon_is_more_noise():
    errors = [1 - run({"epsilon": epsilon, "clip": 0.5}).accuracy for epsilon in (1.0, 50.0)]
    assert errors[0] > errors[1] + 0.2


def test_the_ceiling_of_a_private_run_is_not_private():
    result = run({"epsilon": 5.0, "clip": 0.5}, ceiling=True)
    assert result.ceiling_accuracy == run(None).accuracy


def test_a_rule_over_group_sums_learns_and_every_member_has_the_verdict_of_its_group():
    privacy = {"epsilon": 150.0, "clip": 3.0, "budget_bits": 9.0, "group_size": 5}
    result = run(privacy, clients=60, aggregator="median", attack={"name": "ipm", "epsilon": 100.0}, byzantine=0.07)
    assert result.accuracy > 0.4
    assert result.history[0]["accepted"] == 60


def test_drop_outs_and_the_corrupt_are_made_up_for_with_more_noise():
    told = [
        run({"epsilon": 20.0, **more}, rounds=1).as_dict()["privacy"] for more in ({}, {"dropout": 0.2, "corrupt": 3})
    ]
    assert [one["honest_shares"] for one in told] == [30, 21]
    assert told[1]["predicted_mse_ratio"] > 1.1 * told[0]["predicted_mse_ratio"]


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"mode": "mode1"}, "Mode1 judges clients one by one"),
        ({"mode": "mode1", "privacy": {"epsilon": 8.0, "mechanism": "local"}}, "with local noise none does"),
        ({"max_norm": 1.0}, r"max_norm=1\.0"),
        ({"server_optimizer": "scaffold"}, "Scaffold has clients tell"),
        ({"codec": "int8"}, "codec='int8' as well"),
        ({"privacy": {"epsilon": 8.0, "mechanism": "central", "group_size": 5}}, "group_size=5"),
        ({"privacy": {"epsilon": 8.0, "dropout": 29}}, "at least 2 honest clients"),
    ],
)
def test_what_private_sums_cannot_give_is_refused(changes, seen):
    with pytest.raises(InvalidValueError, match=seen):
        matl.simulate(**{**SMALL, "privacy": {"epsilon": 8.0}, **changes})


def test_noise_of_each_clients_own_lets_the_judge_see_and_name_every_one():
    attacked = {"privacy": {"epsilon": 500.0, "mechanism": "local", "clip": 0.5}, "clients": 40, "byzantine": 0.2}
    attacked |= {"attack": "sign_flip", "rounds": 5}
    result = matl.simulate(**{**SMALL, **attacked, "mode": "mode0"})
    assert (result.tpr, result.fpr < 0.1) == (1.0, True)
    median, mean = (matl.simulate(**{**SMALL, **attacked, "aggregator": rule}) for rule in ("median", "mean"))
    assert not np.array_equal(median.params, mean.params)


def test_a_robust_rule_over_one_sum_is_refused():
    with pytest.raises(InvalidValueError, match="nothing to choose from, got Median"):
        run({"epsilon": 8.0}, aggregator="median")
    with pytest.raises(BoundError, match="krum with 3 clients"):
        run({"epsilon": 8.0, "group_size": 10}, aggregator={"name": "krum", "f": 2})


@pytest.mark.parametrize(
    ("privacy", "seen"),
    [
        ({"epsilon": 0.0}, r"privacy\.epsilon: .*greater than 0"),
        ({}, r"privacy\.epsilon: .*required"),
        ({"epsilon": 8.0, "epsilo": 1}, r"privacy\.epsilo: unknown key \(did you mean 'epsilon'\?\)"),
        ({"epsilon": 8.0, "mechanism": "trust me"}, r"privacy\.mechanism"),
        ({"epsilon": 8.0, "group_size": 1}, r"privacy\.group_size"),
    ],
)
def test_a_table_with_mistakes_is_refused_key_by_key(privacy, seen):
    with pytest.raises(ConfigError, match=seen):
        load_config(None, {"privacy": privacy})


def test_the_table_is_written_and_read_back():
    config = load_config(None, {"mode": "plain", "privacy": {"epsilon": 8.0, "group_size": 5}, "codec": None})
    text = to_toml(config)
    assert tomllib.loads(text)["privacy"] == {**config.privacy.model_dump(exclude_none=True)}
    assert load_config(None, tomllib.loads(text)) == config


def test_objects_are_judged_by_what_they_are():
    with pytest.raises(InvalidValueError, match="Mode0 judges"):
        run({"epsilon": 8.0}, mode=Mode0())
    assert run({"epsilon": 8.0}, mode=Plain(), rounds=1).failed_rounds == 0


def test_malicious_clients_that_no_rule_over_groups_bears_are_refused():
    with pytest.raises(BoundError, match="hypergeometric"):
        run({"epsilon": 8.0, "group_size": 6, "malicious": 0.45}, clients=60, aggregator="median")
    with pytest.raises(BoundError, match="median"):
        run({"epsilon": 8.0, "group_size": 6}, clients=60, aggregator="median", attack="sign_flip", byzantine=0.45)


def test_the_corrupt_may_all_take_part_in_one_round():
    told = run({"epsilon": 50.0, "corrupt": 0.1}, clients=40, participation=0.5, rounds=2).as_dict()["privacy"]
    assert (told["honest_shares"], told["min_survivors"]) == (16, 20)


def test_rounds_with_too_few_survivors_fail_and_leave_the_model_as_it_was():
    result = run({"epsilon": 8.0}, attack="malformed", byzantine=0.5, rounds=2)
    assert result.failed_rounds == 2
    assert "too little noise" in result.failures[0]


@pytest.mark.parametrize("travel", [{"codec": "int8"}, {"privacy": {"epsilon": 50.0, "dropout": 0.45}}])
def test_malformed_messages_are_rejected_however_updates_travel(travel):
    result = matl.simulate(**{**SMALL, "attack": "malformed", "byzantine": 0.3, "rounds": 3}, **travel)
    assert result.history[-1]["rejected"] >= 3
    assert result.failed_rounds == 0


def test_noise_is_drawn_anew_for_every_round_and_for_rehearsals():
    keys = []
    real = Words.__init__

    def spying(self, key=None):
        keys.append(key)
        real(self, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Words, "__init__", spying)
        run({"epsilon": 50.0, "mechanism": "central"}, rounds=3, clients=20, attack="model_poisoning", byzantine=0.1)
    assert len(keys) > 3 * 21  # rehearsals too
    assert None not in keys
    assert len(set(keys)) >= 2 * 3 * 21  # every round, client and host, and its rehearsals


def test_masks_and_drop_outs_leave_the_sum_that_their_absence_leaves():
    privacy = {"epsilon": 20.0, "clip": 0.5, "dropout": 0.3}
    without, masked = (run({**privacy, "masks": masks}, rounds=2, dropouts=0.2) for masks in (False, True))
    np.testing.assert_array_equal(without.params, masked.params)
    assert [row["accepted"] for row in masked.history] == [24, 24]
    assert masked.as_dict()["privacy"]["secure_aggregation"] == "computed"
    assert without.as_dict()["privacy"]["secure_aggregation"] == "taken for done"


def test_more_drop_outs_than_planned_for_fail_the_round_and_not_the_run():
    result = run({"epsilon": 20.0, "dropout": 0.1, "masks": True}, rounds=2, dropouts=0.4)
    assert result.failed_rounds == 2


def test_drop_outs_are_for_every_mode():
    result = matl.simulate(**{**SMALL, "mode": "mode0"}, dropouts=0.3)
    assert {
        sum(row[name] for name in ("accepted", "clipped", "suspected", "quarantined")) for row in result.history
    } == {21}


def test_words_that_no_encoder_made_spoil_a_masked_sum_and_not_one_whose_server_clips():
    attack = {"attack": "forged_words", "byzantine": 0.1}
    masked = [run({"epsilon": 20.0, "clip": 0.5}, **more).accuracy for more in ({}, attack)]
    assert masked[1] < masked[0] - 0.3
    central = [run({"epsilon": 20.0, "clip": 0.5, "mechanism": "central"}, **more).accuracy for more in ({}, attack)]
    assert central[1] > central[0] - 0.1


def test_a_clip_that_adapts_is_told_and_learns_from_a_bad_start():
    fixed = run({"epsilon": 50.0, "clip": 20.0})
    adaptive = run({"epsilon": 50.0, "clip": 20.0, "adaptive": {"learning_rate": 1.0}})
    told = adaptive.as_dict()["privacy"]
    assert told["last_clip"] < 5 < fixed.as_dict()["privacy"]["last_clip"] == 20.0
    assert adaptive.accuracy > fixed.accuracy + 0.1


def test_a_narrow_downlink_costs_little():
    whole, narrow = (matl.simulate(**SMALL, downlink=codec) for codec in (None, "int8"))
    assert narrow.accuracy > whole.accuracy - 0.02
    assert not np.array_equal(narrow.params, whole.params)


def test_how_long_the_noise_takes_is_told_after_every_round():
    told = []
    simulation = build_simulation(load_config(None, {**SMALL, "rounds": 2, "privacy": {"epsilon": 20.0}}))
    states = [state for _, state in simulation.run(simulation.init(), sink=told.append)]
    latencies = [event for event in told if event.kind == "latency"]
    assert [(event.round, event.data["span"]) for event in latencies] == [
        (number, span) for number in range(2) for span in ("encode", "noise")
    ]
    for event in latencies:
        assert event.run == simulation.workload.run
        assert (event.data["wall"]["count"], event.data["so_far"]["count"]) == (30, 30 * (event.round + 1))
        for clock in ("wall_ns", "cpu_ns"):
            quantiles = event.data["so_far"][clock]
            assert 0 < quantiles["p50"] <= quantiles["p99"] <= quantiles["p999"] < 10**9
    quiet = [state for _, state in simulation.run(simulation.init())]
    np.testing.assert_array_equal(states[-1]["workload"]["params"], quiet[-1]["workload"]["params"])


@pytest.mark.parametrize("privacy", [{}, {"privacy": {"epsilon": 20.0, "mechanism": "central"}}])
def test_no_latency_is_told_where_no_client_adds_noise(privacy):
    told = []
    matl.simulate(**{**SMALL, "rounds": 1, **privacy}, sink=told.append)
    assert "latency" not in {event.kind for event in told}


def on_disk(folder, *, stop=lambda: False, resume=False, **changes):
    config = load_config(None, {**SMALL, "rounds": 3, "privacy": {"epsilon": 20.0}, **changes})
    return execute(build_simulation(config), config, name="private", out=folder, stop=stop, resume=resume)


def test_a_run_on_disk_writes_down_what_every_client_spent(tmp_path):
    result = on_disk(tmp_path, participation=0.5)
    told = json.loads((tmp_path / "privacy.json").read_text())
    releases = [row["releases"]["distributed"] for row in told["clients"].values()]
    assert sum(releases) == 3 * 15
    assert max(releases) == 3
    assert told["mechanisms"] == {"distributed": {"manifest": result.privacy["manifest"]}}
    assert told["largest"]["zero_out"] == pytest.approx(result.privacy["epsilon"]["zero_out"], rel=1e-6)
    assert min(row["zero_out"] for row in told["clients"].values()) < told["largest"]["zero_out"]


def test_a_round_that_an_interruption_repeats_is_charged_once(tmp_path):
    with pytest.raises(RunInterrupted):
        on_disk(tmp_path, stop=iter([False, True]).__next__)
    checkpoint = (tmp_path / "checkpoint.msgpack").read_bytes()
    with pytest.raises(RunInterrupted):
        on_disk(tmp_path, resume=True, stop=iter([False, True]).__next__)
    (tmp_path / "checkpoint.msgpack").write_bytes(checkpoint)  # as if the second round had never been checkpointed
    on_disk(tmp_path, resume=True)
    told = json.loads((tmp_path / "privacy.json").read_text())
    assert {row["releases"]["distributed"] for row in told["clients"].values()} == {3}


def test_a_run_whose_ledger_was_lost_is_not_gone_on_with(tmp_path):
    with pytest.raises(RunInterrupted):
        on_disk(tmp_path, stop=iter([False, True]).__next__)
    (tmp_path / "privacy.ledger").unlink()
    with pytest.raises(StateError, match="ledger"):
        on_disk(tmp_path, resume=True)
