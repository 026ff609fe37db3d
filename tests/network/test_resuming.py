"""A file of settings that was changed: what a run goes on with, and what is refused before anything is written."""

import asyncio

import pytest

from matl.coordinator.storage.rows import RunRow, RunStatus
from matl.coordinator.storage.store import Store
from matl.errors import ConfigError
from matl.network.checking import check_all
from matl.network.hosting import open_coordinator
from matl.network.resuming import resumed
from matl.network.settings import NetworkSettings, RunSettings

RUN = {"dataset": "synthetic", "clients": 3, "rounds": 6, "task": "softmax", "root_size": 20, "mode": "plain"}
BEGUN = RunSettings.of(RUN)


def row(settings=RUN, rounds=6, digest=BEGUN.config.digest):
    return RunRow(
        id="demo", status=RunStatus.RUNNING, settings=settings, config_digest=digest, created_at=0.0, rounds=rounds
    )


def served(folder, **changed):
    return NetworkSettings.model_validate({"folder": folder, "port": 0, "runs": {"demo": {**RUN, **changed}}})


async def once(settings):
    async with open_coordinator(settings):
        pass


async def stored(settings):
    async with await Store.open(settings.database_url) as store:
        return await store.run("demo")


LONGER = [{"rounds": 9}, {"network": {"rounds": 9}}, {"rounds": 4, "network": {"rounds": 9}}]


@pytest.mark.parametrize("changed", LONGER)
def test_more_rounds_go_on_with_the_configuration_as_it_was_begun(changed):
    found = resumed(row(), RunSettings.of({**RUN, **changed}))
    assert (found.rounds, found.config.digest) == (9, BEGUN.config.digest)
    again = row(found.as_settings(), rounds=9)
    assert resumed(again, RunSettings.of({**RUN, **changed})) == found


def test_terms_are_as_the_file_says():
    found = resumed(row({**RUN, "network": {"quorum": 3}}), RunSettings.of({**RUN, "network": {"deadline": 30}}))
    assert (found.terms.quorum, found.terms.deadline) == (None, 30)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 5}, r"seed: begun with 10, the file says 5; put back .* use another name"),
        ({"local": {"learning_rate": 0.2}}, r"local: begun with {}, the file says {'learning_rate': 0\.2}"),
        ({"rounds": 5}, "rounds: it has 6, the file says 5; more may be asked for, not fewer"),
    ],
)
def test_what_may_not_change_is_named_with_both_values(changed, words):
    with pytest.raises(ConfigError, match=words):
        resumed(row(), RunSettings.of({**RUN, **changed}))


def test_a_key_that_was_left_out_is_named_and_so_are_all_of_them():
    begun = {**RUN, "alpha": 0.3, "seed": 7}
    with pytest.raises(ConfigError) as caught:
        resumed(row(begun, digest=RunSettings.of(begun).config.digest), RunSettings.of(RUN))
    assert len(caught.value.problems) == 2
    assert "alpha: begun with 0.3, the file leaves it at 0.5" in str(caught.value)


def test_a_run_whose_stored_settings_are_others_goes_on_once_the_file_has_those_it_was_begun_with():
    spoilt = row({**RUN, "seed": 5})
    assert resumed(spoilt, BEGUN) == BEGUN
    with pytest.raises(ConfigError, match="what they were is not known any more"):
        resumed(spoilt, RunSettings.of({**RUN, "seed": 5}))


def test_a_start_with_other_settings_is_refused_and_changes_nothing(tmp_path):
    settings = served(tmp_path / "data")
    asyncio.run(once(settings))
    before = asyncio.run(stored(settings))
    changed = served(tmp_path / "data", seed=5, rounds=9)
    with pytest.raises(ConfigError, match=r"demo\.seed: begun with 10, the file says 5"):
        asyncio.run(once(changed))
    found = {one.what: one.problem for one in asyncio.run(check_all(changed))}
    assert "seed: begun with 10" in found.pop("run demo")
    assert not any(found.values())
    assert asyncio.run(stored(settings)) == before

    longer = served(tmp_path / "data", rounds=9)
    assert not any(one.problem for one in asyncio.run(check_all(longer)))
    assert asyncio.run(stored(settings)) == before
    asyncio.run(once(longer))
    after = asyncio.run(stored(settings))
    assert (after.rounds, after.config_digest) == (9, before.config_digest)


def test_the_run_goes_on_without_its_place_in_the_file(tmp_path):
    settings = served(tmp_path / "data", network={"quorum": 1})
    asyncio.run(once(settings))

    async def rounds_of():
        async with open_coordinator(settings.model_copy(update={"runs": {}})):
            pass
        return await stored(settings)

    assert asyncio.run(rounds_of()).settings["network"] == {"quorum": 1}
