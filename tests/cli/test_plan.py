"""``matl plan privacy``: what it prints, writes and refuses."""

import re
from pathlib import Path

import pytest

from matl.cli.exit_codes import ExitCode
from matl.privacy import certificate

PAGE = Path(__file__).parents[2] / "docs" / "privacy" / "planning.md"
BASE = ("plan", "privacy", "--clients", 100, "--params", 116_970, "--rounds", 30, "--epsilon", 8, "--delta", 1e-5)
REQUIRED = {"bits_per_coordinate", "bytes_per_round", "epsilon", "delta", "predicted_mse_ratio"}


def test_json_has_the_plan_and_the_manifest_proves_it(run, tmp_path):
    done = run(*BASE, "--dropout", 0.1, "--corrupt", 5, "--budget-bits", 3.2, "--json", "--out", "plan.json")
    assert (done.code, done.err) == (0, "")
    plan = done.json
    assert plan.keys() >= REQUIRED
    assert plan["bits_per_coordinate"] <= 3.2
    assert 7.99 < plan["epsilon"] <= 8
    assert (plan["delta"], plan["honest_survivors"], plan["min_survivors"]) == (1e-5, 85, 90)
    _, proven, digest = certificate.check((tmp_path / "plan.json").read_bytes(), plan["sha256"])
    assert float(str(proven.zero_out)) == plan["epsilon"] == plan["epsilon_zero_out"]
    assert digest == plan["sha256"]
    assert run("verify", "privacy", "plan.json", "--sha256", digest).code == 0


def test_replace_one_is_what_epsilon_then_refers_to(run):
    plan = run(*BASE, "--visibility", "sealed", "--adjacency", "replace-one", "--json").json
    assert plan["adjacency"] == "replace_one"
    assert plan["epsilon"] == plan["epsilon_replace_one"] <= 8
    assert plan["epsilon_zero_out"] < 4


def test_the_trade_is_in_json_too(run):
    rows = run(*BASE, "--visibility", "sealed", "--corrupt", 2, "--trade", "--json").json["trade"]
    assert [row["visibility"] for row in rows] == ["clear", "sealed", "clear", *["grouped"] * 5, "summed"]
    assert [row["malicious_tolerated"] for row in rows[:3]] == [0, 0, 49]
    assert [row["mechanism"] for row in rows[:4]] == ["central", "central", "local", "distributed"]
    for row in rows:
        assert (row["refused"] is None) == (row["predicted_mse_ratio"] is not None)


@pytest.mark.parametrize(
    ("options", "code", "messages"),
    [
        (
            ("--visibility", "grouped", "--malicious", 0.45),
            ExitCode.BOUND,
            ("hypergeometric", "--malicious 5", "--mechanism local --visibility clear"),
        ),
        (
            ("--visibility", "sealed", "--malicious", 1),
            ExitCode.BOUND,
            ("rules that bear them compare clients", "--malicious 0", "--mechanism local --visibility clear"),
        ),
        (("--dropout", 0.6), ExitCode.USAGE, ("at least 51 survivors", "--dropout 49")),
        (("--mechanism", "local"), ExitCode.USAGE, ("--mechanism auto", "--visibility sealed --mechanism auto")),
        (("--sampling", 0.1), ExitCode.USAGE, ("the server sees that", "without --sampling")),
        (("--epsilon", 0.01), ExitCode.USAGE, ("--epsilon 0.11",)),
        (("--delta", 1.5), ExitCode.USAGE, ("2^-200 <= delta < 1, got delta=1.5",)),
        (("--visibility", "sealed", "--budget-bits", 1e-9, "--fraction", 1), ExitCode.USAGE, ("expected budget_bits",)),
        (("--visibility", "sealed", "--out", "plan.json"), ExitCode.USAGE, ("got central noise",)),
    ],
)
def test_a_refusal_says_what_could_be_had(run, options, code, messages):
    run(*BASE, *options).refused(code, *messages)


def test_where_no_single_change_helps_that_is_said(run):
    tiny = ("--clients", 2, "--params", 1, "--budget-bits", 0.001, "--visibility", "sealed", "--malicious", 1)
    run(*BASE, *tiny).refused(ExitCode.BOUND, "no single change makes it feasible")


def test_the_trade_is_shown_where_a_plan_is_refused(run):
    done = run(*BASE, "--malicious", 0.3, "--trade")
    assert done.code == ExitCode.BOUND
    assert "what the judge may see" in done.out
    assert "of 100 clients malicious" not in done.out
    assert "nearest plans that hold" in done.err


def examples():
    """Commands of the page and what it shows of their output, which may begin with an ellipsis."""
    return re.findall(r"```bash\nmatl (.+?)\n```\n\n```text\n(.+?)\n```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize(("command", "shown"), examples(), ids=["plan", "refusal", "trade"])
def test_the_page_shows_what_is_printed(run, command, shown):
    done = run(*command.split())
    printed = "\n".join(line.rstrip() for line in (done.out or done.err).splitlines())
    assert printed.endswith(shown.removeprefix("...\n"))
    assert shown.startswith("...") or printed == shown
