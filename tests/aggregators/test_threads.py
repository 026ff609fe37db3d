"""Work shared among threads: the same bits for any number, and BLAS left as it was found."""

import itertools
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from matl.aggregators import ARC, NNM, CenteredClipping, GeometricMedian, Krum, Meamed, Mean, Median, TrimmedMean
from matl.aggregators._threads import _blas, run, stripes


def blas_threads():
    return [library.num_threads for library in _blas()]


@pytest.mark.parametrize("d", [1, 16384, 16385, 1_000_000, 50_000_000])
def test_stripes_cover_the_columns_once(d):
    cut = stripes(d)
    assert cut[0][0] == 0
    assert cut[-1][1] == d
    assert all(a[1] == b[0] for a, b in itertools.pairwise(cut))
    assert len(cut) <= 64
    assert len(stripes(d, 3)) <= 3


def test_results_come_in_order_and_from_as_many_threads_as_blas_may_use():
    for allowed in (1, 2):
        barrier = threading.Barrier(allowed)

        def meet(i, barrier=barrier):
            barrier.wait(timeout=30)
            return i, blas_threads()

        with threadpool_limits(allowed, user_api="blas"):
            results = run([lambda i=i: meet(i) for i in range(4)])
            assert [i for i, _ in results] == [0, 1, 2, 3]
            assert all(set(threads) == {1} for _, threads in results)
            assert set(blas_threads()) == {allowed}


def test_blas_is_restored_after_an_error_and_after_overlapping_work():
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(ZeroDivisionError):
            run([lambda: 1 // 0, lambda: 1])
        assert set(blas_threads()) == {2}
        with_others = run([lambda: run([blas_threads, blas_threads])] * 2)
        assert all(set(threads) == {1} for inner in with_others for threads in inner)
        assert set(blas_threads()) == {2}


def test_little_work_is_not_worth_a_thread():
    with threadpool_limits(2, user_api="blas"):
        assert set(run([threading.get_ident] * 3, cells=1000)) == {threading.get_ident()}
        assert threading.get_ident() not in run([threading.get_ident] * 3, cells=10**9)


def test_a_limit_that_somebody_sets_meanwhile_stays():
    with threadpool_limits(2, user_api="blas"):
        run([lambda: [library.set_num_threads(3) for library in _blas()]])
        assert set(blas_threads()) == {3}


@pytest.mark.parametrize(
    "rule",
    [
        Mean(),
        Median(),
        TrimmedMean(3),
        Meamed(3),
        Krum(3),
        GeometricMedian(),
        CenteredClipping(),
        NNM(3) | TrimmedMean(),
        NNM(3) | GeometricMedian(),
        ARC(3) | Median(),
    ],
    ids=repr,
)
def test_threads_do_not_change_a_bit(rule):
    X = np.random.default_rng(0).normal(size=(11, 400_003)).astype(np.float32) + np.float32(3)
    results = []
    for allowed in (1, 2, 5):
        with threadpool_limits(allowed, user_api="blas"):
            results.append(rule(X).tobytes())
    assert results[0] == results[1] == results[2]
