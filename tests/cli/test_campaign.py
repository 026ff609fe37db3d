"""``matl campaign``: what it lists, shows and leaves."""

import contextlib
import csv

import pytest

from matl.campaigns.presets import CAMPAIGNS, CSV_COLUMNS, campaign
from matl.cli.exit_codes import ExitCode

TINY = ("--dataset", "synthetic", "--clients", "12", "--task", "softmax", "--local", "steps=2", "--rounds", "10")


def test_all_are_listed_with_what_they_are_in_full(run):
    done = run("campaign")
    assert done.code == 0
    for number, one in CAMPAIGNS.items():
        (line,) = (line for line in done.out.splitlines() if one.title in line)
        assert line.split()[0] == str(number)
        assert line.split()[-3:] == [str(one.clients), str(one.full_clients), str(one.values["rounds"])]


@pytest.mark.parametrize("number", CAMPAIGNS)
def test_each_is_a_configuration_that_options_win_over(number):
    config = campaign(number, {"clients": 7})
    assert (config.clients, config.byzantine) == (7, CAMPAIGNS[number].values["byzantine"])


def test_a_campaign_shows_and_leaves_its_progress(run, tmp_path):
    done = run("campaign", "3", *TINY, "--out", "c")
    assert done.code == 0
    assert "10 of 10 rounds  active  12  detected   4  accuracy" in done.err
    assert "s a round" in done.err
    assert "progress: c/campaign.csv" in done.out
    with (tmp_path / "c" / "campaign.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == CSV_COLUMNS
    with (tmp_path / "c" / "rounds.csv").open(newline="") as stream:
        rounds = list(csv.DictReader(stream))
    assert [row["accuracy"] for row in rows] == [row["accuracy"] for row in rounds]
    assert [int(row["epoch"]) for row in rows] == list(range(1, 11))
    assert [int(row["detected"]) for row in rows] == [int(row["quarantined"]) + int(row["rejected"]) for row in rounds]
    mean = sum(float(row["seconds"]) for row in rounds) / 10
    assert float(rows[-1]["average_seconds"]) == pytest.approx(mean)
    assert (tmp_path / "c" / "report.html").is_file()


def test_a_finished_campaign_is_resumed_to_the_same_progress(run, tmp_path):
    run("campaign", "1", *TINY, "--out", "c", "-q")
    before = (tmp_path / "c" / "campaign.csv").read_text()
    (tmp_path / "c" / "campaign.csv").unlink()
    assert run("campaign", "--resume", "c", "-q").code == 0
    assert (tmp_path / "c" / "campaign.csv").read_text() == before


@pytest.mark.parametrize(
    ("number", "clients", "told"),
    [
        (4, 20, "20 of 100 nodes, to fit on one machine"),
        (4, 12, "12 of 100 nodes"),  # somebody's own choice, for reasons of his own
        (4, 100, ""),
        (4, 120, ""),
        (1, 100, ""),
    ],
)
def test_what_is_reduced_is_said_of_what_runs(number, clients, told):
    assert CAMPAIGNS[number].reduced(clients) == told


@pytest.mark.parametrize("clients", ["20", "100"])
def test_what_is_reduced_is_told(run, clients):
    done = run("campaign", "4", *TINY, "--clients", clients, "--rounds", "1")
    assert done.code == 0
    told = "CIFAR-10, 20 % send the opposite: 20 of 100 nodes, to fit on one machine\n"
    assert done.err.startswith(told) == (clients == "20")
    assert ("of 100 nodes" in done.err) == (clients == "20")


@pytest.mark.parametrize("ceiling", [(), ("--ceiling",)])
def test_an_interrupted_campaign_is_gone_on_with_as_one(run, monkeypatch, tmp_path, ceiling):
    run("campaign", "3", *TINY, *ceiling, "--out", "whole", "-q")
    asked = []

    @contextlib.contextmanager
    def interrupted():
        yield lambda: asked.append(1) or len(asked) == 4

    with monkeypatch.context() as patch:
        patch.setattr("matl.cli.campaign.stop_on_interrupt", interrupted)
        done = run("campaign", "3", *TINY, *ceiling, "--out", "c", "-q")
    done.refused(ExitCode.INTERRUPTED, "go on with: matl campaign --resume c")
    assert not (tmp_path / "c" / "campaign.csv").exists()
    run("campaign", "3", *TINY, "--out", "c").refused(
        ExitCode.STATE, "c already holds a campaign; go on with matl campaign --resume c"
    )
    assert run("campaign", "--resume", "c", "-q").code == 0
    progress = []
    for name in ("whole", "c"):
        with (tmp_path / name / "campaign.csv").open(newline="") as stream:
            progress.append([[row[key] for key in CSV_COLUMNS[:4]] for row in csv.DictReader(stream)])
    assert progress[0] == progress[1]
    assert len(progress[0]) == 10


def test_one_that_is_not_there_is_refused(run):
    run("campaign", "6").refused(ExitCode.USAGE, "there is no campaign 6; campaigns: 1 (MNIST, nobody attacks)")
