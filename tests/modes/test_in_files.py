"""Where rows lie changes no bit: a judge says the same of updates in files, and keeps no file for the next round."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.modes.test_roundtrip import KINDS, played

from matl.matrix import UpdateMatrix
from matl.state import pack


class Folder:
    """Makes arrays in files without a name, and counts them."""

    def __init__(self, path):
        self.path, self.made = path, 0

    def __call__(self, shape):
        self.made += 1
        file = self.path / str(self.made)
        array = np.memmap(file, np.float32, "w+", shape=shape)
        file.unlink()
        return array


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_says_the_same_of_updates_in_files(kind, tmp_path):
    mode, seen = played(kind)
    weights = set()
    for cohort, state, *_ in seen:
        X = cohort.X.dense().copy()
        X[0] *= 5000  # a row that is shortened
        allocate = Folder(tmp_path)
        matrix = allocate(X.shape)
        matrix[:] = X
        judgement, after = mode.judge(replace(cohort, X=UpdateMatrix(matrix, allocate=allocate)), state)
        expected, expected_after = mode.judge(replace(cohort, X=UpdateMatrix(X)), state)
        assert judgement.aggregate.tobytes() == expected.aggregate.tobytes()
        assert judgement.verdicts == expected.verdicts
        assert pack(after) == pack(expected_after)
        own = {verdict.weight for verdict in judgement.verdicts}
        # Mode 0 writes rows anew that count in part; Mode 1 the root's directions and what simulated clients send.
        assert allocate.made - 1 == {"mode0": any(0 < weight < 1 for weight in own), "mode1": 2, "plain": 0}[kind]
        weights |= own
    assert kind == "plain" or weights >= {0.0, 1.0}
    assert kind != "mode0" or any(0 < weight < 0.1 for weight in weights)
    del matrix
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(tmp_path) not in maps.read_text()
