"""Trackers: what they write is read back by the tools it is written for."""

import struct
import sys

import pytest

from matl.campaigns.compare import compare, run_with_ceiling
from matl.campaigns.experiment import read_experiment
from matl.campaigns.sweep import sweep
from matl.campaigns.trackers import TRACKERS, open_stores, require_trackers, track
from matl.errors import MissingExtraError, RunInterrupted, StorageError, UnknownNameError
from matl.events import Event
from matl.simulation import RunConfig
from matl.simulation.private import PrivacyConfig

CONFIG = RunConfig(
    dataset="synthetic",
    clients=10,
    byzantine=0.3,
    rounds=3,
    task="softmax",
    root_size=20,
    seed=3,
    attack={"name": "scaling", "scale": 5.0},
    mode="mode0",
)


def scalars(folder):
    """Values by tag and step of all event files in a folder: records of length, two checksums and an event."""
    from tensorboardX.proto.event_pb2 import Event as Record

    found = {}
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            record = Record.FromString(content[at + 12 : at + 12 + size])
            found.update({(value.tag, record.step): value.simple_value for value in record.summary.value})
            at += size + 16
    return found


def test_tensorboard_reads_every_round_of_every_rule(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    with track(["tensorboard"], tmp_path, CONFIG) as sink_for:
        compared = compare(CONFIG, ["fedavg", "mode0"], out=tmp_path / "out", sink_for=sink_for)
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == ["fedavg", "mode0"]
    found = scalars(tmp_path / "tensorboard" / "mode0")
    result = compared.results["mode0"]
    assert found["accuracy", 2] == pytest.approx(result["accuracy"])
    assert found["true_positive_rate", 2] == pytest.approx(result["tpr"])
    assert {("quarantined", n) for n in range(3)} <= found.keys()
    assert not [tag for tag, _ in scalars(tmp_path / "tensorboard" / "fedavg") if "positive" in tag]


def test_tensorboard_goes_on_where_a_run_was_interrupted(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    left = [2]

    def stop():
        left[0] -= 1
        return left[0] < 0

    with pytest.raises(RunInterrupted), track(["tensorboard"], tmp_path, CONFIG) as sink_for:
        run_with_ceiling(CONFIG, out=tmp_path / "out", ceiling=False, sink_for=sink_for, stop=stop)
    with track(["tensorboard"], tmp_path, CONFIG) as sink_for:
        run_with_ceiling(CONFIG, out=tmp_path / "out", ceiling=False, resume=True, sink_for=sink_for)
    assert [step for tag, step in sorted(scalars(tmp_path / "tensorboard" / "mode0")) if tag == "accuracy"] == [0, 1, 2]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An MLflow store of plain files, which unlike one in a database is there at once; and a client of it."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    return mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())


def runs(client):
    experiment = client.get_experiment_by_name("matl").experiment_id
    return {run.data.tags["mlflow.runName"]: run for run in client.search_runs([experiment])}


def test_mlflow_reads_the_configuration_and_every_round(tmp_path, store):
    with track(["mlflow", "mlflow"], tmp_path, CONFIG) as sink_for:
        result = run_with_ceiling(CONFIG, out=tmp_path / "out", sink_for=sink_for)
    found = runs(store)
    assert found.keys() == {"mode0", "honest_only"}
    run = found["mode0"]
    assert run.info.status == "FINISHED"
    assert run.data.params["attack"] == "scaling:scale=5.0"
    assert run.data.params["local.learning_rate"] == "0.1"
    assert (run.data.params["mode"], found["honest_only"].data.params["mode"]) == ("mode0", "plain")
    history = store.get_metric_history(run.info.run_id, "accuracy")
    assert [(point.step, point.value) for point in history] == [
        (number, row["accuracy"]) for number, row in enumerate(result.history)
    ]


def test_mlflow_goes_on_in_the_run_that_was_interrupted(tmp_path, store):
    left = [2]

    def stop():
        left[0] -= 1
        return left[0] < 0

    with pytest.raises(RunInterrupted), track(["mlflow"], tmp_path, CONFIG) as sink_for:
        run_with_ceiling(CONFIG, out=tmp_path / "out", ceiling=False, sink_for=sink_for, stop=stop)
    assert runs(store)["mode0"].info.status == "KILLED"
    with track(["mlflow"], tmp_path, CONFIG) as sink_for:
        run_with_ceiling(CONFIG, out=tmp_path / "out", ceiling=False, resume=True, sink_for=sink_for)
    run = runs(store)["mode0"]
    assert run.info.status == "FINISHED"
    assert [point.step for point in store.get_metric_history(run.info.run_id, "accuracy")] == [0, 1, 2]


def test_the_cells_of_a_sweep_have_names_of_their_own(tmp_path, store):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    text = 'dataset = "synthetic"\nclients = 5\nrounds = 1\nroot_size = 20\nmode = "mode0"\n[sweep]\nalpha = [1, 2]'
    (tmp_path / "trial.toml").write_text(text)
    experiment = read_experiment(tmp_path / "trial.toml")
    sweep(experiment, out=tmp_path / "out", trackers=["tensorboard", "mlflow"])
    cells = {cell.name for cell in experiment.cells}
    assert {path.name for path in (tmp_path / "out" / "tensorboard").iterdir()} == cells
    assert runs(store).keys() == {f"{cell}/mode0" for cell in cells}


def test_a_store_that_cannot_be_reached_is_said(tmp_path, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(StorageError, match="cannot log to MLflow at nonsense://nowhere: "):
        open_stores(["mlflow"], tmp_path)


def test_without_a_server_mlflow_keeps_a_file_in_the_folder(tmp_path, monkeypatch):
    from matl.campaigns import trackers

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert trackers._uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_only_rounds_are_logged(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    with track(["tensorboard"], tmp_path, CONFIG) as sink_for:
        sink_for("mode0")(Event("client_quarantined", "r", 0, {"client": "a", "reason": "because"}))
    assert not [key for key in scalars(tmp_path / "tensorboard" / "mode0") if key[0]]


def test_how_long_noise_takes_is_logged(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    private = CONFIG.model_copy(
        update={"attack": "none", "mode": "plain", "privacy": PrivacyConfig(epsilon=50.0, budget_bits=20.0)}
    )
    with track(["tensorboard"], tmp_path, private) as sink_for:
        run_with_ceiling(private, out=tmp_path / "out", ceiling=False, sink_for=sink_for)
    found = scalars(tmp_path / "tensorboard" / "fedavg")
    names = [
        f"latency/{span}/{c}_ns/{q}"
        for span in ("encode", "noise")
        for c in ("wall", "cpu")
        for q in ("p50", "p99", "p999")
    ]
    assert all(found[name, 2] > 0 for name in names)


def test_trackers_that_are_not_known_or_not_installed(tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError, match=r"unknown tracker 'tensorbord' \(did you mean 'tensorboard'\?\)"):
        require_trackers(["tensorbord"])
    for package, name in {"tensorboardX": "tensorboard", "mlflow": "mlflow"}.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=f"pip install 'matl\\[{name}\\]'"), track([name], tmp_path, CONFIG):
            pass
    assert TRACKERS.keys() == {"tensorboard", "mlflow"}
    assert list(tmp_path.iterdir()) == []
