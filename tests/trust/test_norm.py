import numpy as np

from matl.trust.norm import log_norms


def test_ten_times_the_length_is_the_same_step_at_any_length():
    logs = log_norms(np.array([1e-3, 1e-2, 1.0, 10.0]))
    np.testing.assert_allclose([logs[1] - logs[0], logs[3] - logs[2]], np.log(10), rtol=1e-6)
    assert np.isfinite(log_norms(np.zeros(1))).all()
