"""The compiled encoder passes its audit, every broken one is caught, and every part of the audit can fail.

An honest encoder fails an audit at most with the probability that the audit is given: 3 + 3 of them and the doctest get
1e-6 here, and 3 others 2e-7, less than 8e-6 in all. docs/privacy/audit.md has the rest.
"""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from tests.privacy import broken_encoders
from tests.privacy.broken_encoders import CAUGHT_BY, KeyLeftIn

from matl.codec.sketch import BlockLayout
from matl.errors import ContractError, InvalidValueError, LayoutError
from matl.privacy import audit as room
from matl.privacy.audit import audit, sender
from matl.privacy.certificate import UNIT, Figure, Instance, certify
from matl.privacy.encoder import Encoder
from matl.privacy.leakage import coordinate_laws
from matl.privacy.table import skellam_table

TABLE = skellam_table("3/4").counts
AUDITED = Instance(4, TABLE, 40, 8, Fraction(13, 16), Fraction(25, 4), 1, Fraction(1, 1000))
LAYOUT = BlockLayout(64, block=64, fraction=0.25)
FEW = 1 << 14
RUNS = range(3)


def encoder(kind=Encoder, instance=AUDITED, layout=LAYOUT):
    return kind(instance, layout, clip=1.0)


def failing(report):
    return {check.name for check in report.checks if not check.holds}


@pytest.mark.parametrize("run", RUNS)
def test_the_compiled_encoder_passes_and_the_attack_shows_half_of_what_is_certified(run):
    report = audit(sender(encoder(), seed=run), AUDITED)
    assert report.passed, str(report)
    assert report.certified / 2 <= report.lower_bound <= report.certified == pytest.approx(3.829, abs=5e-4)
    assert report.exact[0] <= report.certified <= 1.25 * report.exact[0]


@pytest.mark.parametrize("run", RUNS)
def test_encode_passes_one_call_at_a_time(run):
    report = audit(sender(encoder(), seed=run, at_once=False), AUDITED, trials=512, power=0)
    assert report.passed, str(report)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", CAUGHT_BY)
def test_every_broken_encoder_is_caught(kind, run):
    report = audit(sender(encoder(kind), seed=run), AUDITED, trials=FEW, power=0)
    assert not report.passed
    assert failing(report) >= set(CAUGHT_BY[kind].split()), str(report)


@pytest.mark.parametrize("run", RUNS)
def test_a_key_that_stayed_in_encode_is_caught_one_call_at_a_time(run):
    report = audit(sender(encoder(KeyLeftIn), seed=run, at_once=False), AUDITED, trials=128, power=0)
    assert failing(report) >= {"shares", "sums", "repeats"}


@pytest.mark.parametrize(
    "table", [broken_encoders.less_noise(), broken_encoders.cut(TABLE[len(TABLE) // 2 - 3 : len(TABLE) // 2 + 4])]
)
def test_the_smallest_faults_are_missed_hardly_ever(table):
    """Frequencies of n samples of p have n D(., q) <= t at most with probability exp(t / 2) (sum of sqrt(p q))^n."""
    q, p = (coordinate_laws(replace(AUDITED, table=t), [0.0])[0] for t in (TABLE, table))
    n, limit = AUDITED.survivors * FEW * 16, 193.1
    assert limit / 2 + n * math.log(np.sqrt(p * q).sum()) < math.log(1e-12)


EIGHT_BITS = replace(
    AUDITED, bits=8, table=skellam_table(4).counts, survivors=64, bound=Fraction(1, 8), squared_norm=Fraction(1, 2)
)
TEN_BITS = replace(AUDITED, bits=10, table=skellam_table(150).counts, squared_norm=Fraction(3), transmissions=2)
ONE_SHARE = replace(AUDITED, bits=3, table=skellam_table("3/2").counts, survivors=1, squared_norm=Fraction(1))


@pytest.mark.parametrize(
    ("instance", "coordinates", "trials"), [(EIGHT_BITS, 64, 256), (TEN_BITS, 8, 1024), (ONE_SHARE, 2, 4096)]
)
def test_other_instances_pass(instance, coordinates, trials):
    instance = replace(instance, orders=((1, 8),), cells=1)
    layout = BlockLayout(128, block=128, fraction=coordinates / 128)
    encode = sender(encoder(instance=instance, layout=layout))
    report = audit(encode, instance, coordinates=coordinates, trials=trials, power=0, false_alarm=2e-7)
    assert report.passed, str(report)


def known(x, n, key, noise=1):
    """Words of an encoder in a few lines of NumPy, with a generator."""
    rng = np.random.default_rng(key)
    x = np.clip(x, -13 / 16, 13 / 16)
    x = x * min(1, 2.5 / max(float(np.linalg.norm(x)), 1e-9))
    rounded = np.sign(x) * (rng.random((n, len(x))) < np.abs(x))
    drawn = rng.choice(len(TABLE), (n, len(x)), p=np.array(TABLE) / (1 << 40)) - len(TABLE) // 2
    return ((rounded + noise * drawn).astype(np.int64) % 16).astype(np.uint8)


def test_an_audit_is_a_function_of_the_words():
    def report():
        keys = itertools.count()
        return audit(lambda x, n: known(x, n, next(keys)), AUDITED, trials=1 << 12, power=0)

    first = report()
    assert first.passed
    assert first == report()


@pytest.mark.parametrize("dtype", [np.uint16, np.uint64])
def test_words_may_be_of_any_unsigned_type(dtype):
    reports = []
    for wanted in (np.uint8, dtype):
        keys = itertools.count()
        reports.append(
            audit(lambda x, n, to=wanted, keys=keys: known(x, n, next(keys)).astype(to), AUDITED, trials=256, power=0)
        )
    assert reports[0] == reports[1]


def test_an_attack_on_too_few_trials_is_no_evidence():
    keys = itertools.count()
    report = audit(lambda x, n: known(x, n, next(keys)), AUDITED, trials=1 << 12)
    assert failing(report) == {"power"}


def test_findings_are_told_in_words():
    keys = itertools.count()
    report = audit(lambda x, n: known(x, n, next(keys), noise=0), AUDITED, trials=1 << 12, power=0)
    assert {"shares", "sums", "rounding", "attack"} <= failing(report)
    assert len(report.findings) == len(failing(report))
    assert any(
        text.startswith("attack: an attack shows a larger epsilon than is certified") for text in report.findings
    )
    assert str(report).startswith("FAILED: epsilon >= ")
    assert "FINDING sums: " in str(report)


def test_a_certificate_below_the_exact_epsilon_is_found(monkeypatch):
    false = replace(certify(AUDITED), zero_out=Figure(3 * UNIT, Fraction(4)))
    monkeypatch.setattr(room, "certify", lambda instance: false)
    keys = itertools.count()
    report = audit(lambda x, n: known(x, n, next(keys)), AUDITED, trials=1 << 10, power=0)
    assert failing(report) == {"certificate"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (lambda x, n: np.zeros((n, 15), np.uint8), r"shape \(1024, 16\), got uint8 of shape \(1024, 15\)"),
        (lambda x, n: np.zeros((n, 16), np.int64), "unsigned words .* got int64"),
        (lambda x, n: np.full((n, 16), 16, np.uint8), "below M = 16, got 16; reduce them"),
    ],
)
def test_what_are_no_words_is_refused(words, message):
    with pytest.raises(ContractError, match=message):
        audit(words, AUDITED, trials=1 << 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coordinates": 8}, r"at least c\^2 / B\^2 = 9.46746 coordinates, got 8"),
        ({"coordinates": 17}, "even number .* got 17"),
        ({"trials": 1001}, "even number of trials, got 1001"),
        ({"trials": 2}, ">= 4"),
        ({"power": 2.0}, "power"),
        ({"false_alarm": 0.0}, "false_alarm > 0"),
    ],
)
def test_sizes_out_of_range_are_refused(options, message):
    with pytest.raises(InvalidValueError, match=message):
        audit(lambda x, n: known(x, n, 0), AUDITED, **options)


@pytest.mark.parametrize(
    ("layout", "slack"),
    [(BlockLayout(60, block=64, fraction=0.25), 0), (BlockLayout(64, block=64), 0), (LAYOUT, 1.0)],
)
def test_a_layout_whose_sketches_cannot_be_too_long_is_refused(layout, slack):
    with pytest.raises(InvalidValueError, match=r"without padding that keeps at most 0\.64"):
        sender(Encoder(AUDITED, layout, 1.0, slack))


def test_vectors_of_another_length_than_the_sketch_are_refused():
    with pytest.raises(LayoutError, match="see `coordinates`"):
        audit(sender(encoder()), AUDITED, coordinates=18)
