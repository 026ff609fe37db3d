"""The examples that need a coordinator, each against one that serves in this process."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.client.real import coordinator
from tests.oracle.processes import Library

import matl
from matl.network.settings import load_settings

EXAMPLES = Path(__file__).parents[1] / "examples"
ALONE = {"target": 1, "quorum": 1}


@pytest.mark.parametrize("name", ["custom_attack", "custom_evidence", "custom_mode"])
def test_what_is_added_fits_on_a_screen(name):
    assert len((EXAMPLES / f"{name}.py").read_text("utf-8").splitlines()) < 40


def run(folder, path, *arguments):
    """What an example prints in an interpreter and a folder of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", path, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def place(tmp_path):
    (tmp_path / "client").mkdir()
    return tmp_path / "client"


def test_numpy(tmp_path, place):
    samples = matl.federate("synthetic", clients=2, seed=1).clients[0]
    np.savez(place / "samples.npz", X=samples.X, y=samples.y)
    settings = {"dataset": "synthetic", "task": "softmax", "mode": "plain", "clients": 2, "rounds": 3, "network": ALONE}
    with coordinator(tmp_path / "host", demo=settings) as host:
        shown = run(place, EXAMPLES / "federated_numpy.py", host.url, host.invite(), "samples.npz")
    assert re.findall(r"round (\d): arrived", shown) == ["0", "1", "2"]
    assert float(re.search(r"accuracy on my samples: ([\d.]+)%", shown)[1]) > 40


def test_the_page_on_taking_part_has_what_the_example_reads(tmp_path, place):
    """Its settings, samples and example fit one another; its settings for PyTorch are valid."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    page = (EXAMPLES.parent / "docs" / "howto" / "integrate.md").read_text("utf-8")
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)):
        (tmp_path / f"{number}.toml").write_text(block)
    digits, photographs = (load_settings(tmp_path / f"{number}.toml").runs for number in range(2))
    assert photographs["photographs"]["task"] == "cnn"
    (samples,) = re.findall(r"```python\n(import numpy.*?)```", page, re.DOTALL)
    (place / "samples.py").write_text(samples)
    run(place, place / "samples.py")
    with coordinator(tmp_path / "host", **digits) as host:
        shown = run(place, EXAMPLES / "federated_numpy.py", host.url, host.invite(), "samples.npz")
    assert len(re.findall(r"round \d: arrived", shown)) == 10
    assert float(re.search(r"accuracy on my samples: ([\d.]+)%", shown)[1]) > 80


def test_torch(tmp_path, place):
    pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(0)
    images, labels = rng.random((400, 1, 28, 28), np.float32), np.arange(400) % 10
    np.savez(tmp_path / "digits.npz", X=images, y=labels)
    dataset = {"name": "npz", "path": str(tmp_path / "digits.npz")}
    code = (EXAMPLES / "federated_torch_mnist.py").read_text("utf-8")
    assert len(code.splitlines()) < 40
    for shown, here in (('"mnist"', repr(dataset)), ("range(6000)", "range(200)")):
        assert code.count(shown) == 1
        code = code.replace(shown, here)
    (place / "example.py").write_text(code)
    settings = {"dataset": dataset, "task": "cnn", "mode": "plain", "clients": 2, "rounds": 2, "network": ALONE}
    with coordinator(tmp_path / "host", demo=settings) as host:
        shown = run(place, place / "example.py", host.url, host.invite())
    assert re.findall(r"round (\d): loss", shown) == ["0", "1"]


def test_a_phone(tmp_path, place):
    settings = {"dataset": "synthetic", "mode": "plain", "clients": 2, "rounds": 1, "network": ALONE}
    with coordinator(tmp_path / "host", demo=settings) as host:
        shown = run(place, EXAMPLES / "mobile_signer.py", host.url, host.invite(), "phone-8").splitlines()
    assert shown[0].startswith("enrolled as phone-8 with the key ")
    assert shown[1] == "the chunk: verified"
    assert re.fullmatch("the same again: refused, .*(replay|used before).*", shown[2])
    assert re.fullmatch("another chunk under its signature: refused, .*signature.*", shown[3])


def test_sealed(tmp_path, place):
    """The commands and files of the page on Mode 2, as they stand there but for ports."""
    page = (EXAMPLES.parent / "docs" / "howto" / "attested-oracle.md").read_text("utf-8")
    configuration, settings = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    library = Library.copied(tmp_path / "library")
    (tmp_path / "run.toml").write_text(configuration)
    measurement = library.matl("oracle", "measure", str(tmp_path / "run.toml")).strip()
    with library.oracle(tmp_path / "run.toml", tmp_path / "matl-oracle", "--software") as oracle:
        settings = settings.replace("http://127.0.0.1:8450", oracle.url).replace("5f1c...", measurement)
        (tmp_path / "coordinator.toml").write_text(settings)
        runs = load_settings(tmp_path / "coordinator.toml").runs
        with coordinator(tmp_path / "host", **runs) as host, ThreadPoolExecutor(3) as pool:
            example = EXAMPLES / "federated_sealed.py"
            names = [f"hospital-{index}" for index in range(3)]
            shown = list(pool.map(lambda name: run(place, example, host.url, host.invite(), name, measurement), names))
    for name, lines in zip(names, shown, strict=True):
        assert re.findall(r"round (\d): arrived, sealed", lines) == ["0", "1", "2", "3", "4"]
        assert f"round=4 client_id='{name}' status='judged'" in lines


def test_the_phone_needs_cryptography_alone():
    code = (EXAMPLES / "mobile_signer.py").read_text("utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}
