"""A validator inside somebody else's server."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import matl
from matl import state as states
from matl.attest.keys import SigningKey
from matl.attest.receipts import verify_receipt
from matl.errors import InvalidValueError, LayoutError, StateError
from matl.params import values_hash
from matl.records import Status
from matl.screening import encode_payload

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def federation():
    """Clients, the task, the recipe, and what eight honest clients send in the first round."""
    data = matl.federate("synthetic", clients=8, seed=1)
    task, recipe = matl.MLPTask(features=20, num_classes=10), matl.LocalTraining(steps=5)
    params = task.init(np.random.default_rng(0))
    rngs = [np.random.default_rng([0, index]) for index in range(8)]
    updates = matl.train_locally(task, params, data.clients, recipe, rngs)
    return data, task, recipe, params, {f"c{index}": update for index, update in enumerate(updates)}


def validator_of(federation, **options):
    data, task, recipe, _, _ = federation
    return matl.MATLValidator(task, root=data.root, recipe=recipe, clock=lambda: NOW, **options)


def test_a_liar_is_named_and_the_receipts_hold(federation):
    *_, params, updates = federation
    key = SigningKey.generate()
    validator = validator_of(federation, key=key, run="hospital-net")
    lied = {**updates, "c3": -3 * updates["c3"]}
    for number in range(3):
        result = validator.judge(lied, params=params, num_examples=dict.fromkeys(lied, 50), seed=number)
    assert list(result.verdicts) == sorted(lied)
    assert result.verdicts["c3"].status is Status.QUARANTINED
    assert result.weights["c3"] == 0
    assert sum(result.weights.values()) >= 6
    receipts = {client: verify_receipt(document, [key.public]) for client, document in result.receipts.items()}
    assert receipts["c3"].status is Status.QUARANTINED
    assert receipts["c3"].update_hash == values_hash(lied["c3"])
    assert {(each.run, each.round, each.hardware_root) for each in receipts.values()} == {("hospital-net", 2, False)}
    assert {each.model_hash for each in receipts.values()} == {values_hash(params)}
    assert result.aggregate.shape == params.shape


def test_the_verdicts_are_those_of_the_judge_itself(federation):
    data, task, recipe, params, updates = federation
    mode = matl.Mode1(oracle=matl.RootOracle(task, data.root, recipe))
    result = validator_of(federation).judge(updates, params=params, seed=5)
    cohort = matl.Cohort.of(
        np.stack(list(updates.values())), params=params, ids=list(updates), max_byzantine=int(mode.bound * 8), seed=5
    )
    with threadpool_limits(1):
        judgement, _ = mode.judge(cohort, mode.init(task.layout))
    np.testing.assert_array_equal(result.aggregate, judgement.aggregate)
    assert tuple(result.verdicts.values()) == judgement.verdicts


def test_every_form_of_an_update_is_judged_alike(federation):
    _, task, _, params, updates = federation
    layout = task.layout
    forms = {
        "vector": lambda update: update,
        "named": layout.unflatten,
        "bytes": lambda update: encode_payload(layout.unflatten(update))[0],
    }
    results = {}
    for name, form in forms.items():
        sent = {client: form(update) for client, update in updates.items()}
        results[name] = validator_of(federation).judge(sent, params=layout.unflatten(params), seed=1)
    for result in results.values():
        np.testing.assert_array_equal(result.aggregate, results["vector"].aggregate)
    assert results["named"].receipts.keys() == results["bytes"].receipts.keys()


def test_whatever_a_client_sends_nothing_is_raised(federation):
    *_, params, updates = federation
    junk = {
        "nan": np.full_like(params, np.nan),
        "short": params[:-1],
        "text": b"not safetensors",
        "names": {"no": np.zeros(2, np.float32)},
        "number": 7,
        "none": None,
    }
    validator = validator_of(federation)
    result = validator.judge({**updates, **junk}, params=params, seed=0)
    assert {client for client, verdict in result.verdicts.items() if verdict.status is Status.REJECTED} == junk.keys()
    assert all(result.verdicts[client].reason for client in junk)
    assert {"nan", "text"} == junk.keys() & result.receipts.keys()
    clean = validator_of(federation).judge(updates, params=params, seed=0)
    np.testing.assert_array_equal(result.aggregate, clean.aggregate)
    only_junk = validator.judge(junk, params=params)
    assert only_junk.aggregate is None
    assert len(only_junk.verdicts) == len(junk)


def test_claims_about_examples_are_checked(federation):
    *_, params, updates = federation
    result = validator_of(federation).judge(updates, params=params, num_examples={"c0": -5, "c1": 10}, seed=0)
    assert result.verdicts["c0"].status is Status.REJECTED
    assert "got -5, allowed are 1 to" in result.verdicts["c0"].reason


def test_it_goes_on_from_its_state(federation):
    *_, params, updates = federation
    first = validator_of(federation)
    first.judge(updates, params=params, seed=0)
    second = validator_of(federation)
    second.restore(first.state)
    assert second.round == 1
    one, two = (each.judge(updates, params=params, seed=1) for each in (first, second))
    np.testing.assert_array_equal(one.aggregate, two.aggregate)
    assert one.verdicts == two.verdicts
    assert first.state == second.state


def test_a_state_of_another_policy_is_refused(federation):
    other = validator_of(federation, policy=matl.Mode0)
    with pytest.raises(StateError, match="made under policy"):
        other.restore(validator_of(federation).state)
    with pytest.raises(StateError, match="of version None"):
        other.restore(states.pack({}))


def test_policies(federation):
    _, task, _, params, updates = federation
    median = matl.Plain(matl.aggregators.Median())
    result = matl.MATLValidator(task, policy=median).judge(updates, params=params)
    np.testing.assert_allclose(result.aggregate, np.median(list(updates.values()), axis=0), rtol=1e-5, atol=1e-7)
    assert matl.MATLValidator(task, policy=matl.Mode0).judge(updates, params=params).verdicts.keys() == updates.keys()
    with pytest.raises(InvalidValueError, match="Mode1 judges by clean samples of the validator's own: give root"):
        matl.MATLValidator(task)
    with pytest.raises(InvalidValueError, match="expected policy as a judge or what makes one"):
        matl.MATLValidator(task, policy="mode1")


def test_what_the_server_itself_gets_wrong_is_an_error(federation):
    *_, params, updates = federation
    validator = validator_of(federation)
    with pytest.raises(InvalidValueError, match="params"):
        validator.judge(updates, params=params[:-1])
    with pytest.raises(LayoutError):
        validator.judge(updates, params={"w": params})
    with pytest.raises(InvalidValueError, match="client_id"):
        validator.judge({"": params}, params=params)
    with pytest.raises(InvalidValueError, match="run"):
        validator_of(federation, run="")
    assert validator.round == 0


def test_validate_gives_the_receipts(federation):
    *_, params, updates = federation
    validator = validator_of(federation)
    receipts = [verify_receipt(each, [validator.key.public]) for each in validator.validate(updates, params=params)]
    assert [each.client_id for each in receipts] == sorted(updates)
