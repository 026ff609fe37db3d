"""Your own table in a simulation: a CSV file, without a schema and with one."""

import contextlib
import json
import tempfile
from pathlib import Path

import numpy as np

rng = np.random.default_rng(0)


def patient() -> str:
    """A row that stands for what your file holds."""
    ill = rng.random() < 0.5
    age, pressure = rng.normal(62 if ill else 48, 12), rng.normal(150 if ill else 125, 14)
    smokes = rng.choice(["never", "past", "daily"], p=[0.2, 0.3, 0.5] if ill else [0.5, 0.3, 0.2])
    hospital = f"hospital-{rng.integers(12)}"
    return (
        f"{np.clip(age, 18, 100):.0f},{pressure:.0f},{smokes},{hospital},{'yes' if ill else 'no'}"
    )


with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    header = "age,pressure,smokes,hospital,ill"
    Path("mine.csv").write_text("\n".join([header, *(patient() for _ in range(3000))]))

    # --8<-- [start:four]
    import matl

    data = matl.read_csv("mine.csv", label="ill")
    result = matl.simulate(dataset=data, clients=20)
    print(result.accuracy)
    # --8<-- [end:four]

    # --8<-- [start:schema]
    schema = {
        "on_out_of_bounds": "clip",
        "columns": [
            {"name": "age", "kind": "numeric", "lower": 18, "upper": 100},
            {"name": "pressure", "kind": "numeric", "lower": 60, "upper": 220},
            {"name": "smokes", "kind": "categorical", "domain": ["never", "past", "daily"]},
            {"name": "hospital", "kind": "identifier"},
            {"name": "ill", "kind": "label", "domain": ["no", "yes"]},
        ],
    }
    Path("mine.json").write_text(json.dumps(schema))

    data = matl.read_csv("mine.csv", schema="mine.json", group="hospital")
    result = matl.simulate(dataset=data, partition="natural", clients=12, rounds=10)
    print(f"{result.accuracy:.1%}, caught {result.tpr:.0%}, accused {result.fpr:.0%}")
    # --8<-- [end:schema]
