"""What holds for every rule: checks, bounds, storage, and the symmetries a rule should have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.aggregators import (
    AGGREGATORS,
    ARC,
    CAF,
    FLAME,
    NNM,
    SMEA,
    Bucketing,
    Bulyan,
    CenteredClipping,
    ClippedMean,
    Context,
    DnC,
    FLTrust,
    FoolsGold,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    Median,
    MinimumDiameterAveraging,
    MoNNA,
    MultiKrum,
    RawPoGQ,
    Result,
    SignGuard,
    StaticClipping,
    TrimmedMean,
)
from matl.aggregators.base import Rule
from matl.errors import BoundError, InvalidValueError
from matl.matrix import UpdateMatrix
from matl.params import ParamLayout

EXACT = GeometricMedian(nu=1e-30, iterations=300, tolerance=0)
QUIET = FLAME(noise=0.0)
LINEAR = [
    Mean(),
    Krum(),
    MultiKrum(),
    Krum(neighbors="n-f-1"),
    CAF(),
    MoNNA(index=0),
    MinimumDiameterAveraging(),
    SMEA(),
]
RANKED = [Median(), TrimmedMean(), Meamed(), Bulyan()]
FROM_ZERO = [ClippedMean(), CenteredClipping(), SignGuard(), QUIET, FoolsGold(), FLTrust(), RawPoGQ()]
CHAINS = [NNM(), NNM() | Krum(), NNM() | EXACT, ARC(), StaticClipping(), Bucketing() | Median()]
RULES = [*LINEAR, *RANKED, *FROM_ZERO, *CHAINS, EXACT, DnC()]

# Mixed rows are often equal up to rounding: Krum among equals chooses by index, and the geometric median is often one
# of them, where its steps divide by what rounding leaves of a distance.
TIED = [NNM() | Krum(), NNM() | EXACT]
# A row's place decides: whose bucket it is in, which row is one's own, which of the last pair Krum takes within Bulyan.
PLACED = [Bucketing() | Median(), MoNNA(index=0), Bulyan()]
PERMUTE = [rule for rule in RULES if rule not in (*TIED, *PLACED)]
TRANSLATE = [
    rule for rule in RULES if rule not in (*TIED, ARC(), StaticClipping(), *FROM_ZERO)
]  # these measure from zero
SCALE = [rule for rule in RULES if rule not in (FLTrust(), CenteredClipping(), StaticClipping())]  # these have a length
# Equal updates are what FoolsGold is there to distrust, and RawPoGQ may leave out all of them.
IDENTICAL = [rule for rule in SCALE if rule not in (FoolsGold(), RawPoGQ())]


def names(rule):
    return repr(rule).replace("aggregators.", "")


def root(rule, X):
    """What a rule needs of root data on which the loss falls along (1, ..., 1)."""
    known = {"root_update": np.ones(X.shape[1], np.float32), "root_gain": X.sum(axis=1)}
    return {name: known[name] for name in rule.needs & known.keys()}


def run(rule, X, f=None, **context):
    f = min(1, rule.max_f(len(X))) if f is None else f
    return rule(X, f=f, **root(rule, X), **context)


# Matrices of at least five rows without ties: with exact ties Krum and NNM choose by index, and order matters.
matrices = st.builds(
    lambda n, d, seed: np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32),
    st.integers(5, 12),
    st.integers(2, 8),
    st.integers(0, 2**32),
)
few = settings(max_examples=25, deadline=None)  # the first example compiles


@pytest.mark.parametrize("rule", PERMUTE, ids=names)
@few
@given(X=matrices, seed=st.integers(0, 99))
def test_the_order_of_clients_does_not_matter(rule, X, seed):
    weights = np.random.default_rng(seed).uniform(1, 9, len(X))
    order = np.random.default_rng(seed).permutation(len(X))
    np.testing.assert_allclose(run(rule, X[order], weights=weights[order]), run(rule, X, weights=weights), atol=1e-5)


@pytest.mark.parametrize("rule", TRANSLATE, ids=names)
@few
@given(X=matrices, shift=st.integers(-64, 64))
def test_moving_every_row_moves_the_result(rule, X, shift):
    X = np.round(X * 2**14) / np.float32(2**14)  # so that float32 holds the moved rows exactly
    np.testing.assert_allclose(run(rule, X + np.float32(shift)), run(rule, X) + np.float32(shift), atol=1e-4)


@pytest.mark.parametrize("rule", SCALE, ids=names)
@few
@given(X=matrices, exponent=st.integers(-60, 60))
def test_scaling_every_row_scales_the_result(rule, X, exponent):
    """By powers of two, which float32 multiplies exactly, so not even a tie is broken differently."""
    scale = np.float32(2.0**exponent)
    np.testing.assert_allclose(run(rule, X * scale) / scale, run(rule, X), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rule", IDENTICAL, ids=names)
@few
@given(row=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=5), n=st.integers(1, 9))
def test_identical_rows_are_their_own_aggregate(rule, row, n):
    X = np.tile(np.array(row, np.float32), (n, 1))
    np.testing.assert_allclose(rule(X, f=rule.max_f(n)), X[0], rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("rule", RULES, ids=names)
def test_one_client_is_its_own_aggregate(rule):
    X = np.array([[0.3, 0.4]], np.float32)
    np.testing.assert_allclose(rule(X, root_update=X[0], root_gain=[1.0]), X[0], rtol=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=names)
@pytest.mark.parametrize("d", [1, 6, 4112, 9001])
def test_storage_does_not_change_a_bit(rule, d, tmp_path):
    X = np.random.default_rng(0).normal(size=(8, d)).astype(np.float32)
    expected = run(rule, X).tobytes()
    X.tofile(tmp_path / "X")
    on_disk = np.memmap(tmp_path / "X", np.float32, "r", shape=X.shape)
    read_only = X.copy()
    read_only.flags.writeable = False
    for stored in (
        on_disk,
        read_only,
        UpdateMatrix(on_disk),
        UpdateMatrix([X[:3], on_disk[3:4], X[4:]]),
        UpdateMatrix([row[None] for row in X]),
        X.tolist(),
        X.astype(np.float64),
        np.asfortranarray(X),
        np.repeat(X, 2, axis=1)[:, ::2],
    ):
        assert rule(stored, f=1, **root(rule, X)).tobytes() == expected
    assert X.tobytes() == on_disk.tobytes()


@pytest.mark.parametrize("rule", RULES, ids=names)
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((3, 0)), r"n, d >= 1, got shape \(3, 0\)"),
        (np.zeros((0, 3)), r"n, d >= 1, got shape \(0, 3\)"),
        (UpdateMatrix(np.zeros((3, 0))), r"n, d >= 1"),
        (UpdateMatrix(np.zeros((0, 3))), r"n, d >= 1"),
        (np.zeros(3), "expected"),
        (np.zeros((1, 2, 3)), "expected"),
        ([[1.0, 2.0], [3.0]], "n rows of d numbers each"),
        ([["a"]], "n rows of d numbers each"),
        ([[1.0], [np.nan], [1.0]], r"NaN or infinity in row\(s\) \[1\]"),
        ([[1.0], [1.0], [np.inf]], r"row\(s\) \[2\]"),
        ([[1.0], [1e300], [1.0]], r"row\(s\) \[1\]"),
        (np.where(np.arange(27000).reshape(3, 9000) == 17_999, np.nan, 0), r"row\(s\) \[1\]"),
    ],
)
def test_matrices_that_are_none(rule, X, message):
    with pytest.raises(InvalidValueError, match=message):
        rule(X, root_update=np.ones(3), root_gain=np.ones(3))


@pytest.mark.parametrize("rule", RULES, ids=names)
@pytest.mark.parametrize("weights", [[1, -1, 1, 1, 1], [0] * 5, [1, np.nan, 1, 1, 1], [1, 1], [[1] * 5]], ids=repr)
def test_weights_that_are_none(rule, weights):
    with pytest.raises(InvalidValueError, match="weights"):
        run(rule, np.eye(5), weights=np.array(weights, float))


@pytest.mark.parametrize(
    ("rule", "n", "largest", "condition"),
    [
        (Mean(), 5, 4, "any f < n"),
        (ClippedMean(), 5, 4, "any f < n"),
        (FLTrust(), 5, 4, "any f < n"),
        (RawPoGQ(), 5, 4, "any f < n"),
        (Median(), 5, 2, "2f < n"),
        (Median(), 6, 2, "2f < n"),
        (TrimmedMean(), 5, 2, "2f < n"),
        (TrimmedMean(), 6, 2, "2f < n"),
        (Krum(), 5, 1, "n >= 2f [+] 3"),
        (Krum(), 6, 1, "n >= 2f [+] 3"),
        (Krum(), 7, 2, "n >= 2f [+] 3"),
        (MultiKrum(), 7, 2, "n >= 2f [+] 3"),
        (NNM(), 5, 2, "2f < n"),
        (NNM(rule=Krum()), 5, 1, "what the rule after it allows"),
    ],
    ids=str,
)
def test_the_bound_is_exact_and_named_with_its_numbers(rule, n, largest, condition):
    X = np.random.default_rng(0).normal(size=(n, 2))
    assert rule.max_f(n) == largest
    assert np.isfinite(run(rule, X, f=largest)).all()
    with pytest.raises(
        BoundError, match=rf"n={n} clients tolerates 0 <= f <= {largest}, got f={largest + 1} .*{condition}"
    ):
        run(rule, X, f=largest + 1)
    with pytest.raises(InvalidValueError, match="got f=-1"):
        run(rule, X, f=-1)
    with pytest.raises(BoundError, match=f"got f={n}"):
        rule.kappa(n, n)


def test_a_rules_own_f_comes_before_the_rounds():
    X = np.array([[1.0], [2.0], [3.0], [4.0], [100.0]])
    assert TrimmedMean(f=1)(X, f=2) == TrimmedMean()(X, f=1) == [3]
    assert TrimmedMean(f=0)(X, f=2) == [22]
    with pytest.raises(BoundError, match="got f=3"):
        TrimmedMean(f=3)(X)


@pytest.mark.parametrize("rule", RULES, ids=names)
def test_unit_weights_explain_the_result(rule):
    X = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    weights = np.arange(1.0, 9.0)
    context = Context(weights=weights, f=min(2, rule.max_f(8)), **root(rule, X))
    state = rule.init(ParamLayout.of([X[0]]))
    assert rule.keeps_state == bool(state)
    result, after = rule.aggregate(X, context, state)
    assert rule.keeps_state or after is state
    if result.unit_weights is not None:
        assert result.unit_weights.shape == (8,)
        assert (result.unit_weights >= 0).all()
        np.testing.assert_allclose(result.unit_weights @ X, result.vector, atol=1e-6)


def test_every_rule_is_registered_and_built_without_arguments():
    assert {type(AGGREGATORS.get(name)()) for name in AGGREGATORS} == {type(rule) for rule in RULES}
    assert AGGREGATORS.get("fedavg") is Mean


def test_a_rule_without_a_combination_is_none():
    with pytest.raises(NotImplementedError, match="Rule implements neither combine nor step"):
        Rule()(np.eye(3))


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"weights": (1, 2)}, r"weights of shape \(3,\), got shape \(2,\)"),
        ({"weights": np.full(3, 1e308)}, "weights >= 0 and not all zero, .* sum inf"),
        ({"f": 1.5}, "f to be a whole number >= 0, got f=1.5"),
        ({"seed": -1}, "seed to be a whole number >= 0, got seed=-1"),
        ({"seed": None}, "seed"),
        ({"self_index": 3}, "0 <= self_index < n=3, got self_index=3"),
        ({"clients": ("a", "b")}, "clients to name n=3 rows, .* got 2 names"),
        ({"clients": ("a", "a", "b")}, "got 3 names of which 2 differ"),
        ({"clients": ("a", "a", "b", "c")}, "got 4 names of which 3 differ"),
        ({"weight": [1, 1, 1]}, r"no 'weight' \(did you mean 'weights'\?\); it has weights, f"),
    ],
    ids=str,
)
def test_contexts_that_are_none(context, message):
    with np.errstate(over="ignore"), pytest.raises(InvalidValueError, match=message):
        Mean()(np.eye(3), **context)


def test_weights_of_any_kind():
    X = np.arange(6.0).reshape(3, 2)
    for weights in ([1, 1, 2], (1, 1, 2), np.array([1, 1, 2], np.int32)):
        np.testing.assert_allclose(Mean()(X, weights=weights), [2.5, 3.5])


@pytest.mark.parametrize("rule", [Median(weighted=True), NNM() | Median(), Median(), TrimmedMean(1)], ids=names)
def test_no_rule_makes_infinity_of_finite_rows(rule):
    X = np.full((5, 3), np.finfo(np.float32).max * np.float32(0.999))
    np.testing.assert_allclose(rule(X, weights=np.ones(5)), X[0], rtol=1e-6)


def test_an_aggregate_beyond_single_precision_is_refused():
    class Doubled(Rule):
        def combine(self, X, f, context):
            return Result(np.array([np.inf], np.float32))

    with pytest.raises(InvalidValueError, match=r"aggregate fits float32, got one beyond 3\.4e38"):
        Doubled()(np.array([[3e38]]))


# What lies beyond the bound of float32's square, near its end, tiny, and ordinary.
wild = st.sampled_from([0.0, 1e-45, 1e-30, 1.0, 50.0, 1e10, 1e19, 1e30, 3.4e38])


@st.composite
def attacked(draw, minimum):
    """Honest rows near one another, f arbitrary ones among them (n = ``minimum(f)`` or more), and f."""
    f = draw(st.integers(1, 3))
    n = draw(st.integers(minimum(f), minimum(f) + 4))
    d = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    honest = (rng.normal(size=(n - f, d)) + draw(st.sampled_from([0, 10]))).astype(np.float32)
    kind = draw(st.sampled_from(["same", "signs", "opposite"]))
    direction = {
        "same": np.ones((f, d)),
        "signs": rng.choice([-1, 1], size=(f, d)),
        "opposite": -np.tile(np.sign(honest.mean(axis=0)), (f, 1)),
    }[kind]
    evil = (direction * draw(wild)).astype(np.float32)
    return np.concatenate([honest, evil])[rng.permutation(n)], honest, f


def spread(honest):
    return float(np.linalg.norm(honest[:, None].astype(float) - honest[None], axis=2).max())


@pytest.mark.parametrize("rule", [Median(), TrimmedMean()], ids=names)
@few
@given(case=attacked(lambda f: 2 * f + 1))
def test_f_rows_cannot_leave_the_honest_range(rule, case):
    X, honest, f = case
    result, slack = rule(X, f=f), 1e-6 * np.abs(honest).max()  # float32's rounding of a mean
    assert (result >= honest.min(axis=0) - slack).all()
    assert (result <= honest.max(axis=0) + slack).all()


@pytest.mark.parametrize("rule", [Krum(), MultiKrum()], ids=names)
@few
@given(case=attacked(lambda f: 2 * f + 3))
def test_f_rows_cannot_pull_krum_away(rule, case):
    """Each chosen row has a score of at most (n - f - 2) D^2, the most an honest one can have, and an honest row among
    the n - f - 2 >= f + 1 neighbours it is summed over: it lies within sqrt(n - f - 2) D of an honest row."""
    X, honest, f = case
    reach = np.sqrt(len(X) - f - 2) * spread(honest) * (1 + 1e-5)
    result = rule(X, f=f).astype(float)
    assert (result >= honest.min(axis=0) - reach).all()
    assert (result <= honest.max(axis=0) + reach).all()


@settings(max_examples=200)
@given(case=attacked(lambda f: 2 * f + 1))
def test_f_rows_cannot_pull_mixing_away(case):
    """The n - f nearest rows of an honest row are all within D of it, so they mix to within D of the range."""
    X, honest, f = case
    result, reach = NNM()(X, f=f).astype(float), spread(honest) * (1 + 1e-5) + 1e-6 * np.abs(honest).max()
    assert (result >= honest.min(axis=0) - reach).all()
    assert (result <= honest.max(axis=0) + reach).all()


@few
@given(case=attacked(lambda f: 2 * f + 1))
def test_f_rows_cannot_lengthen_what_is_clipped(case):
    X, honest, _ = case
    longest = np.linalg.norm(honest.astype(float), axis=1).max()
    assert np.linalg.norm(ClippedMean()(X).astype(float)) <= longest * (1 + 1e-5)
    own = honest.mean(axis=0)
    assert np.linalg.norm(FLTrust()(X, root_update=own).astype(float)) <= np.linalg.norm(own) * (1 + 1e-5)


@pytest.mark.parametrize("f", [-1, 1.5, 2.0, True, "2"], ids=repr)
@pytest.mark.parametrize("rule", [TrimmedMean, Krum, MultiKrum, NNM])
def test_a_rules_own_f_is_a_whole_number(rule, f):
    with pytest.raises(InvalidValueError, match="expected f to be a whole number >= 0, got f="):
        rule(f=f)
    assert rule(f=0).f == 0
