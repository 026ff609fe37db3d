"""Every command in this process: what it prints where, and what it returns."""

import contextlib
import dataclasses
import errno
import importlib
import importlib.metadata
import io
import json
import os
import re
import signal
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

import matl
from matl import cli
from matl.cli import console, options
from matl.cli.exit_codes import ExitCode, exit_code
from matl.errors import InvalidValueError, MatlError, RunInterrupted
from matl.events import Event
from matl.simulation import RunConfig, RunDirectory

FEDERATION = [
    *("--dataset", "synthetic", "--clients", "10", "--byzantine", "0.3", "--rounds", "2", "--task", "softmax"),
    *("--root-size", "20", "--seed", "3"),
]
RUN_KEYS = {"accuracy", "ceiling_accuracy", "tpr", "fpr", "quarantined", "seconds"}


# `matl.cli.run` is the command; its module is found by name.
RUN = importlib.import_module("matl.cli.run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run and a comparison, each done once with --json."""
    folder = tmp_path_factory.mktemp("cli")
    runner, results = CliRunner(), {}
    commands = {"run": ["--mode", "mode0"], "compare": ["--rules", "fedavg, mode0,honest_only"]}
    for command, extra in commands.items():
        done = runner.invoke(cli.app, [command, *FEDERATION, *extra, "--json", "--out", str(folder / command)])
        assert done.exit_code == 0, done.output
        results[command] = folder / command, done
    return results


def refused(done, code, *messages):
    done.refused(code, *messages)


# What is printed


def test_run_json_is_the_result_file(finished):
    out, done = finished["run"]
    assert json.loads(done.stdout) == json.loads((out / "result.json").read_text())
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result.keys() >= RUN_KEYS
    assert result["name"] == "mode0"
    assert 0 <= result["accuracy"] <= 1
    assert 0 <= result["ceiling_accuracy"] <= 1
    assert 0 <= result["tpr"] <= 1
    assert 0 <= result["fpr"] <= 1
    assert result["seconds"] > 0
    assert all(isinstance(client, str) for client in result["quarantined"])
    assert (result["clients"], result["malicious"], result["rounds"], result["seed"]) == (10, 3, 2, 3)
    assert (out / "report.html").is_file()


def test_compare_json_has_a_row_per_rule(finished):
    out, done = finished["compare"]
    comparison = json.loads(done.stdout)
    assert comparison == json.loads((out / "compare.json").read_text())
    assert done.stderr == ""
    assert (comparison["schema_version"], comparison["seed"]) == (1, 3)
    rules = {row["rule"]: row for row in comparison["rules"]}
    assert list(rules) == ["fedavg", "mode0", "honest_only"]
    for row in rules.values():
        assert row.keys() >= {"rule", "accuracy", "tpr", "fpr", "seconds"}
    assert rules["fedavg"]["tpr"] is rules["fedavg"]["fpr"] is rules["honest_only"]["tpr"] is None
    assert isinstance(rules["mode0"]["tpr"], float)
    assert (out / "report.html").is_file()


def test_run_without_json_says_the_same_in_words(run, tmp_path):
    done = run("run", *FEDERATION, "--mode", "mode0", "--out", "a [bold] folder")
    assert done.code == 0
    assert "mode0: accuracy" in done.out
    assert "ceiling without malicious clients" in done.out
    assert "of 3 malicious" in done.out
    assert "report: a [bold] folder/report.html" in done.out
    assert "2 of 2 rounds" in done.err
    assert (tmp_path / "a [bold] folder" / "report.html").is_file()


def test_verbose_shows_how_long_noise_takes(run):
    private = ["--mode", "plain", "--attack", "none", "--privacy", "epsilon=50,budget_bits=20", "--no-ceiling", "-v"]
    said = [line for line in run("run", *FEDERATION, *private).err.splitlines() if "latency" in line]
    assert len(said) == 4
    assert re.search(r"round   1  latency: noise p50 [\d.]+ us, p99 .* us, p999 .* us of 20 so far", said[-1])


def test_quiet_shows_no_progress_and_verbose_shows_reasons(run):
    args = ["run", *FEDERATION, "--aggregator", "mean", "--attack", "malformed", "--no-ceiling"]
    quiet = run(*args, "-q")
    assert (quiet.code, quiet.err) == (0, "")
    assert "gives no verdicts" in quiet.out
    verbose = run(*args, "-v")
    assert verbose.err.count("update rejected: client-") == 6
    assert "fedavg       round   0  update rejected: client-" in verbose.err
    assert "ceiling" not in verbose.out
    both = run(*args, "-v", "--json")
    assert both.json["quarantined"]
    assert both.err.count("update rejected: client-") == 6


def test_without_out_every_run_gets_a_folder_of_its_own(run, tmp_path):
    for _ in range(2):
        assert run("run", *FEDERATION, "--aggregator", "mean", "--no-ceiling", "--json").code == 0
    compared = run(
        "compare", *FEDERATION, "--rules", "fedavg,honest_only", "--attack", "sleeper:wake_round=1,attack=alie"
    )
    assert compared.code == 0
    assert "gives no verdicts" in compared.out
    assert "ceiling: " in compared.out
    assert "synthetic: 10 clients, 3 malicious" in compared.out
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "compare-synthetic-sleeper-seed3",
        "fedavg-synthetic-sign_flip-seed3",
        "fedavg-synthetic-sign_flip-seed3-2",
    ]


def test_a_configuration_file_and_options_over_it(run, tmp_path):
    (tmp_path / "my.toml").write_text(
        'dataset = "synthetic"\nclients = 8\nrounds = 9\nroot_size = 20\ntask = "softmax"'
    )
    done = run("run", "my.toml", "--rounds", "1", "--aggregator", "median", "--no-ceiling", "--json")
    assert (done.json["clients"], done.json["rounds"], done.json["name"]) == (8, 1, "median")
    assert done.json["ceiling_accuracy"] is None


def test_a_mode_outside_its_bound_is_pointed_out(run):
    many = [*FEDERATION, "--byzantine", "0.45"]
    assert "outside its bound: mode0 is designed for at most 20 %" in run("run", *many, "--mode", "mode0:bound=0.2").out
    assert "outside its" in run("compare", *many, "--rules", "mode0").out


def test_honest_clients_in_quarantine_are_named(capsys):
    result = matl.simulate(dataset="synthetic", mode="mode0", clients=10, rounds=1, root_size=20)
    accused = sorted(set(result.malicious[:1]) | {"client-x"})
    RUN.show_result(dataclasses.replace(result, quarantined=tuple(accused), ceiling_accuracy=0.0))
    captured = capsys.readouterr()
    assert "1 of 4 malicious, 1 of 6 honest clients" in captured.out
    assert "ceiling without malicious clients 0.0 %" in captured.out
    assert captured.err == "honest but quarantined: client-x\n"


def test_report_is_written_again(run, finished):
    out, _ = finished["run"]
    (out / "report.html").unlink()
    done = run("report", out)
    assert (done.code, done.out) == (0, f"report: {out}/report.html\n")
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("datasets", {"digits", "mnist", "synthetic"}),
        ("attacks", {"alie", "gaussian_noise", "label_flip", "malformed", "scaling", "sign_flip", "sleeper"}),
        ("aggregators", {"mean", "krum", "fltrust", "raw_pogq", "median", "trimmed_mean"}),
        ("modes", {"plain", "mode0", "mode1"}),
        ("tasks", {"mlp", "softmax"}),
        ("partitions", {"iid", "dirichlet"}),
        ("server-optimizers", {"sgd", "fedavgm"}),
    ],
)
def test_list(run, kind, names):
    listed = run("list", kind, "--json").json
    assert set(listed) >= names
    assert all(part["summary"] for part in listed.values())
    shown = run("list", kind).out
    for name, part in listed.items():
        assert name in shown
        assert all(alias in shown for alias in part["aliases"])


def test_list_without_a_kind_names_the_kinds(run):
    kinds = run("list", "--json").json
    assert kinds["modes"] == ["mode0", "mode1", "plain"]
    shown = run("list").out
    for kind, names in kinds.items():
        assert kind in shown
        assert names == sorted(run("list", kind, "--json").json)


def test_every_key_of_the_configuration_is_an_option(run, tmp_path):
    given = [*("--partition", "dirichlet:alpha=3", "--server-optimizer", "fedavgm:momentum=0.5", "--device", "cpu")]
    given += ["--local", "learning_rate=0.05,steps=3"]
    done = run("run", *FEDERATION, *given, "--mode", "mode0", "--no-ceiling", "--out", "one", "-q")
    assert done.code == 0
    config = RunDirectory(tmp_path / "one").read_config()
    assert config.partition == {"name": "dirichlet", "alpha": "3"}
    assert config.server_optimizer == {"name": "fedavgm", "momentum": "0.5"}
    assert (config.local.learning_rate, config.local.steps, config.device) == (0.05, 3, "cpu")
    refused(run("run", "--local", "steps"), ExitCode.USAGE, "expected key=value,key=value, got 'steps'")
    refused(run("run", "--local", "stps=1"), ExitCode.USAGE, "local.stps: unknown key (did you mean 'steps'?)")
    for command, without in {"run": set(), "compare": {"mode", "aggregator"}}.items():
        described = typer.main.get_command(cli.app).commands[command]
        names = {name for parameter in described.params for name in parameter.opts}
        assert {f"--{key.replace('_', '-')}" for key in RunConfig.model_fields if key not in without} <= names
        assert not {f"--{key}" for key in without} & names


def test_names_of_parts_are_completed():
    described = typer.main.get_command(cli.app).commands["compare"]
    completed = {parameter.name: parameter.shell_complete for parameter in described.params}
    context = typer.Context(described)
    assert [item.value for item in completed["attack"](context, "sle")] == ["sleeper"]
    assert [item.value for item in completed["rules"](context, "mode0,kr")] == ["mode0,krum"]
    assert [item.value for item in completed["log"](context, "ml")] == ["mlflow"]
    assert completed["attack"](context, "sl")[0].help  # what it is


def test_workers_reach_every_run(run, monkeypatch):
    asked = []
    compare = importlib.import_module("matl.campaigns.compare")
    real = compare.execute

    def execute(*args, workers, **how):
        asked.append(workers)
        return real(*args, **how)

    monkeypatch.setattr(compare, "execute", execute)
    assert run("run", *FEDERATION, "--mode", "mode0", "--workers", "3", "-q").code == 0
    assert run("compare", *FEDERATION, "--rules", "fedavg", "--workers", "3", "-q").code == 0
    assert asked == [3, 3, 3]
    refused(run("run", *FEDERATION, "--workers", "0"), ExitCode.USAGE, "--workers")


def test_rounds_are_logged_and_watched(run, tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    done = run("run", *FEDERATION, "--mode", "mode0", "--out", "one", "--log", "tensorboard", "--watch")
    assert done.code == 0
    assert "--watch needs a terminal; showing plain lines instead" in done.err
    assert {path.name for path in (tmp_path / "one" / "tensorboard").iterdir()} == {"mode0", "honest_only"}


def test_doctor_names_every_extra(run):
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    found = run("doctor", "--json").json["extras"]
    assert found.keys() == extras.keys() - {"all", "docs", "dev"}
    for name, extra in found.items():
        wanted = {re.match(r"[\w-]+", one)[0].lower() for one in extras[name] if not one.startswith("matl[")}
        assert {one["package"].lower() for one in extra["packages"]} == wanted


def test_doctor(run, monkeypatch, tmp_path):
    monkeypatch.delenv("MATL_DATA_DIR", raising=False)
    facts = run("doctor", "--json").json
    assert facts["matl"] == matl.__version__
    assert facts["core"]["numpy"]
    assert facts["extras"]["sim"]["install"] == "pip install 'matl[sim]'"
    assert len(facts["data"]) == 1

    real = importlib.metadata.version

    def version(package):
        if package in ("scikit-learn", "rich"):
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setenv("MATL_DATA_DIR", str(tmp_path))
    shown = " ".join(run("doctor").out.split())
    assert "not installed; would add the digits data set" in shown
    assert "pip install 'matl[sim]'" in shown
    assert "rich missing: reinstall matl" in shown
    assert run("doctor", "--json").json["data"][0] == str(tmp_path)


def test_version_and_help(run):
    assert run("--version").out == f"matl {matl.__version__}\n"
    helped = run("run", "--help").out
    assert "--byzantine" in helped
    assert run("--help").code == 0
    assert run().code == ExitCode.USAGE  # no command: the help


# What goes wrong


@pytest.mark.parametrize(
    ("options", "code", "messages"),
    [
        (["--dataset", "digitz"], ExitCode.USAGE, ["unknown dataset 'digitz' (did you mean 'digits'?)"]),
        (["--attack", "sign_flp"], ExitCode.USAGE, ["unknown attack 'sign_flp' (did you mean 'sign_flip'?)"]),
        (["--attack", "sign_flip:scal=2"], ExitCode.USAGE, ["has no option 'scal' (did you mean 'scale'?)"]),
        (["--attack", "sign_flip:scale"], ExitCode.USAGE, ["expected name:key=value,key=value"]),
        (["--mode", "mode7"], ExitCode.USAGE, ["unknown mode 'mode7'", "known: mode0, mode1, plain"]),
        (["--alpha", "0"], ExitCode.USAGE, ["alpha: input should be greater than 0, got 0.0"]),
        (["--alpha", "-1", "--rounds", "0"], ExitCode.USAGE, ["2 problems", "alpha:", "rounds:"]),
        (["--alpha", "nan"], ExitCode.USAGE, ["alpha: input should be"]),
        (["--clients", "many"], ExitCode.USAGE, ["--clients"]),
        (["--nonsense"], ExitCode.USAGE, ["No such option"]),
        (["--clients", "3000"], ExitCode.USAGE, ["3000 clients need at least 2 samples each", "use at most"]),
        (["--root-size", "5"], ExitCode.USAGE, ["expected root_size >= 20"]),
        (
            ["--aggregator", "krum", "--byzantine", "0.49"],
            ExitCode.BOUND,
            ["krum with 10 clients", "got f=4", "choose"],
        ),
        (["--mode", "mode0", "--aggregator", "krum"], ExitCode.USAGE, ["leave the aggregator out"]),
        (["--resume", "nowhere"], ExitCode.USAGE, ["got also --dataset, --clients", "--out"]),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_written(run, tmp_path, options, code, messages):
    refused(run("run", *FEDERATION, "--out", "out", *options), code, *messages)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rules", "code", "message"),
    [
        ("mode0,krun", ExitCode.USAGE, "unknown rule 'krun' (did you mean 'krum'?)"),
        (" , ", ExitCode.USAGE, "expected at least one rule to compare, got none"),
        ("mode0,krum", ExitCode.BOUND, "krum with 50 clients in a round tolerates at most 23 malicious ones, got f=24"),
    ],
)
def test_wrong_rules_are_refused_before_anything_is_written(run, tmp_path, rules, code, message):
    done = run("compare", *FEDERATION, "--clients", "50", "--byzantine", "0.49", "--rules", rules)
    refused(done, code, message)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_configurations(run, tmp_path):
    (tmp_path / "latin.toml").write_bytes("größe".encode("latin-1"))
    (tmp_path / "bad.toml").write_text("clients = ")
    for path, message in [
        ("latin.toml", "latin.toml: 1 problem - cannot be read"),
        ("bad.toml", "bad.toml: 1 problem - is not TOML"),
        ("absent.toml", "absent.toml: 1 problem - cannot be read"),
        (".", "cannot be read"),
    ]:
        refused(run("run", path), ExitCode.USAGE, message)


def test_a_damaged_data_file(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MATL_DATA_DIR", str(tmp_path))
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{part}-ubyte").write_bytes(b"\0\0\x08\x03 not the images")
    done = run("run", "--dataset", "mnist", "--out", "out")
    refused(done, ExitCode.DATA, "train-images-idx3-ubyte is damaged: SHA-256", "delete it and fetch it again")
    assert not (tmp_path / "out").exists()


def test_a_missing_extra(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    done = run("run", "--dataset", "digits", "--out", "out")
    refused(done, ExitCode.MISSING_EXTRA, "scikit-learn is not installed; install it with: pip install 'matl[sim]'")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_used(run, tmp_path, finished):
    (tmp_path / "file").touch()
    refused(run("run", *FEDERATION, "--out", "file"), ExitCode.STORAGE, "choose another folder with --out")
    refused(run("run", *FEDERATION, "--out", finished["run"][0]), ExitCode.STATE, "already holds a run", "--resume")
    refused(run("compare", *FEDERATION, "--rules", "fedavg", "--out", finished["run"][0]), ExitCode.STATE, "a run")
    refused(run("compare", *FEDERATION, "--out", finished["compare"][0]), ExitCode.STATE, "already holds a comparison")
    refused(run("run", "--resume", "nowhere"), ExitCode.STATE, "nowhere holds no run")
    refused(run("run", "--resume", finished["compare"][0]), ExitCode.STATE, "go on with matl compare --resume")
    refused(run("compare", "--resume", finished["run"][0]), ExitCode.STATE, "go on with matl run --resume")
    refused(run("report", "nowhere"), ExitCode.STATE, "nowhere")


def test_resuming_keeps_the_configuration(run, finished):
    out = finished["run"][0]
    refused(run("run", "--resume", out, "--no-ceiling"), ExitCode.USAGE, "got also --ceiling")
    refused(run("run", "x.toml", "--resume", out), ExitCode.USAGE, "got also x.toml")
    refused(run("compare", "--resume", out, "--rules", "krum"), ExitCode.USAGE, "got also --rules")


def test_finished_work_is_shown_again(run, finished):
    for command, (out, done) in finished.items():
        again = run(command, "--resume", out, "--json").json
        assert {k: v for k, v in again.items() if k != "peak_memory_mib"} == {
            k: v for k, v in json.loads(done.stdout).items() if k != "peak_memory_mib"
        }


def test_a_full_disk(run, tmp_path, monkeypatch):
    real, calls = os.fsync, [0]

    def full(handle):
        calls[0] += 1
        if calls[0] > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    args = ["run", *FEDERATION, "--mode", "mode0", "--no-ceiling", "--out", "out", "-q"]
    refused(run(*args), ExitCode.STORAGE, "the disk is full: free some space, then resume")
    assert not (tmp_path / "out" / "result.json").exists()
    assert not list((tmp_path / "out").glob(".*"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with contextlib.chdir(tmp_path):
        done = CliRunner().invoke(cli.app, ["run", "--resume", "out", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout).keys() >= RUN_KEYS


def test_every_error_has_an_exit_code():
    kinds = [MatlError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {exit_code(kind.__new__(kind)) for kind in kinds} == set(ExitCode) - {ExitCode.OK, ExitCode.INTERNAL}


def test_an_interrupted_command_says_how_to_go_on(run, monkeypatch):
    def stopped(*_, **__):
        raise RunInterrupted("stopped after round 1 of 2", directory="the folder")

    monkeypatch.setattr(RUN, "run_with_ceiling", stopped)
    hint = "stopped after round 1 of 2; go on with: matl run --resume the folder"
    refused(run("run", *FEDERATION), ExitCode.INTERRUPTED, hint)


def test_an_interruption_before_there_is_a_folder_gives_no_advice(run, monkeypatch):
    def stopped(*_, **__):
        raise RunInterrupted("stopped at once")

    monkeypatch.setattr(RUN, "run_with_ceiling", stopped)
    done = run("run", *FEDERATION)
    assert (done.code, done.err) == (ExitCode.INTERRUPTED, "stopped at once\n")


# The pieces


def test_the_first_interrupt_asks_and_the_second_stops(capsys):
    before = signal.getsignal(signal.SIGINT)
    with console.stop_on_interrupt() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert "finishing the round, then stopping" in capsys.readouterr().err
        with pytest.raises(RunInterrupted, match="stopped at once"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_on_a_terminal_progress_is_a_line_that_is_redrawn(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "stderr", Console(file=screen, force_terminal=True, width=100))
    data = {"accuracy": 0.5, "quarantined": 2, "rejected": 1}
    with console.Reporter(2) as reporter:
        sink = reporter.sink_for("mode0")
        sink(Event("client_quarantined", "r", 0, {"client": "a", "reason": "because"}))
        sink(Event("round_committed", "r", 1, data))
    shown = screen.getvalue()
    assert "2/2" in shown
    assert "accuracy 50.0 %  flagged   3" in shown
    assert "because" not in shown


def test_without_a_terminal_every_tenth_round_and_the_last_are_printed(capsys):
    reporter = console.Reporter(12)
    sink = reporter.sink_for("mode0")
    for number in range(12):
        sink(Event("round_committed", "r", number, {"accuracy": 0.5, "quarantined": 0, "rejected": 0}))
    assert [line.split()[1:4] for line in capsys.readouterr().err.splitlines()] == [
        ["10", "of", "12"],
        ["12", "of", "12"],
    ]


@pytest.mark.parametrize("text", ["a:", "a:b", "a:b=", "a:=b", "a:b=c,", "a:b=c,,d=e"])
def test_options_of_a_part_are_pairs(text):
    with pytest.raises(InvalidValueError, match="expected name:key=value,key=value, got"):
        options.parse_spec(text)


def test_default_folders_name_what_they_hold_and_are_claimed_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = RunConfig(attack={"name": "sleeper", "wake_round": 3}, seed=5)
    claimed = [str(options.claim_folder(options.run_name("krum", config))) for _ in range(3)]
    assert claimed == [f"runs/krum-digits-sleeper-seed5{suffix}" for suffix in ("", "-2", "-3")]
    assert all((tmp_path / folder).is_dir() for folder in claimed)


def test_of_two_commands_at_once_each_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real, rival = Path.mkdir, []

    def mkdir(path, *args, **kwargs):
        if path.name.startswith("krum") and not rival:
            rival.append(path)
            real(path)  # another command is there between the look and the leap
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert options.claim_folder("krum") != rival[0]


def test_a_claimed_folder_goes_again_if_nothing_was_written(run, tmp_path):
    (tmp_path / "runs").touch()
    refused(run("run", *FEDERATION), ExitCode.STORAGE, "a file stands where a folder is needed")
    (tmp_path / "runs").unlink()
    refused(run("run", *FEDERATION, "--aggregator", "krum", "--byzantine", "0.49"), ExitCode.BOUND, "got f=4")
    assert list(tmp_path.iterdir()) == []


def test_failed_rounds_are_said_in_one_line(run, tmp_path):
    failing = [*FEDERATION, "--max-norm", "1e-9"]
    done = run("run", *failing, "--mode", "mode0", "--out", "one")
    assert done.code == 0
    assert "2 of 2 rounds failed: no update passed screening\n" in done.out
    assert "Failed rounds" in (tmp_path / "one" / "report.html").read_text()
    compared = run("compare", *failing, "--rules", "fedavg,mode0,honest_only")
    notes = {line.split()[0]: line for line in compared.out.splitlines() if " %" in line}
    assert notes["fedavg"].rstrip().endswith("2 of 2 rounds failed; gives no verdicts")
    assert notes["mode0"].rstrip().endswith("2 of 2 rounds failed")
    assert notes["honest_only"].rstrip().endswith("2 of 2 rounds failed; ceiling: no malicious clients")
    assert "\nfedavg: 2 of 2 rounds failed: no update passed screening\n" in compared.out
    assert "failed" not in run("run", *FEDERATION, "--mode", "mode0", "--no-ceiling").out
    too_many = run("run", *FEDERATION, "--aggregator", "multi_krum:m=50", "--byzantine", "0.1", "--out", "two")
    refused(too_many, ExitCode.BOUND, "multi_krum averages m=50 updates, but only 10 clients take part")
    assert not (tmp_path / "two").exists()


def test_no_line_is_broken_in_a_pipe(run):
    shown = run("run", *FEDERATION, "--aggregator", "mean").out.splitlines()
    assert shown[0].endswith(", 2 rounds, 10 clients, 3 malicious")
    assert len(shown[0]) > 80
    footer = run("compare", *FEDERATION, "--rules", "fedavg").out.splitlines()
    assert "caught: malicious clients quarantined or rejected at the end; accused: honest ones" in footer
