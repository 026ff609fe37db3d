"""The verifier: its figures against a second computation and against brute force, and everything that it refuses."""

import ast
import decimal
import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.privacy import referee
from tests.privacy.referee import Noise, Referee

from matl.privacy import certificate
from matl.privacy.certificate import (
    UNIT,
    CertificateError,
    Figure,
    Instance,
    Law,
    bounds,
    certify,
    epsilon,
    fewer_survivors,
    law,
    log_up,
    order_grid,
)
from matl.privacy.manifest import Manifest
from matl.privacy.table import skellam_table

DELTA = Fraction(1, 100_000)
PLAIN = {"orders": ((1, 64),), "cells": 1}
EIGHT_BITS = Instance(8, skellam_table(4).counts, 40, 64, Fraction(137, 1024), Fraction(684691, 32768), 30, DELTA)
THREE_BITS = Instance(3, skellam_table("3/128").counts, 40, 64, Fraction(1, 64), Fraction(54583, 524288), 30, DELTA)
TINY = Instance(3, skellam_table("1/4").counts, 40, 8, Fraction(1, 16), Fraction(1, 4), 4, DELTA, ((2, 4), (1, 12)), 2)


@pytest.fixture(autouse=True)
def digits():
    """The referee computes in decimal numbers."""
    with referee.precision():
        yield


def agree(figure, other):
    """Equal to twelve digits; `decimal` has rounded either way, the certificate only up."""
    return math.isclose(Fraction(figure.units, UNIT), Fraction(other), rel_tol=1e-12)


# The certified instances


def test_eight_bits_at_whole_orders():
    found = certify(replace(EIGHT_BITS, **PLAIN))
    assert (str(found.zero_out), found.zero_out.order) == ("7.999999934", 4)
    assert agree(found.zero_out, Referee(replace(EIGHT_BITS, **PLAIN)).zero_out(4))


def test_three_bits_at_whole_orders():
    found = certify(replace(THREE_BITS, **PLAIN))
    assert (str(found.zero_out), found.zero_out.order) == ("7.999983484", 4)
    assert agree(found.zero_out, Referee(replace(THREE_BITS, **PLAIN)).zero_out(4))


@pytest.mark.parametrize("instance", [EIGHT_BITS, THREE_BITS], ids=["8 bits", "3 bits"])
def test_finer_orders_and_cells_prove_less(instance):
    found, second = certify(instance), Referee(instance)
    assert Fraction(found.zero_out.units, UNIT) < Fraction("7.9925")
    assert agree(found.zero_out, second.zero_out(found.zero_out.order))
    assert agree(found.replace_one, second.replace_one(found.replace_one.order))
    assert Fraction(found.replace_one.units, UNIT) < Fraction("18.87")


def test_every_order_of_a_curve_agrees_with_the_referee():
    found, second = certify(TINY), Referee(TINY)
    assert set(found.curve) == set(order_grid(TINY.orders))
    for order, units in found.curve.items():
        assert math.isclose(Fraction(units, UNIT), Fraction(second.divergence(order)), rel_tol=1e-12)
        assert Fraction(units, UNIT) >= Fraction(second.divergence(order)) - Fraction(1, 10**60)


def test_survivors_that_are_missing():
    """The planned 64 at epsilon 8 become 8.31 with 60, 9.27 with 50, 12.18 with 32."""
    one = replace(EIGHT_BITS, cells=1)
    found = fewer_survivors(one)
    assert {count: round(Fraction(figure.units, UNIT), 2) for count, figure in found.items()} == {
        60: Fraction("8.31"),
        50: Fraction("9.27"),
        32: Fraction("12.18"),
        16: Fraction("18.90"),  # at an order between 2 and 3; 19.64 with whole orders
    }
    assert agree(found[16], Referee(one, survivors=16).zero_out(found[16].order))
    whole = fewer_survivors(replace(EIGHT_BITS, **PLAIN), [16])[16]
    assert (round(Fraction(whole.units, UNIT), 2), whole.order) == (Fraction("19.64"), 3)


def test_replace_one_is_tighter_than_by_halves():
    """19.66 by exponents 2 and 2, at order 5/2; Lemma 6 chooses the exponents and proves 18.84."""
    second = Referee(replace(EIGHT_BITS, **PLAIN))
    assert round(second.replace_one_by_halves(Fraction(5, 2)), 2) == decimal.Decimal("19.66")
    assert round(second.replace_one(Fraction(5, 2)), 2) == decimal.Decimal("18.84")


def test_a_law_of_too_few_shares_is_refused_and_has_no_bound():
    alone = replace(EIGHT_BITS, table=skellam_table(256, 32).counts, resolution=32, survivors=1)
    with pytest.raises(CertificateError, match=r"noise that reaches every residue .* got 61 it never takes"):
        certify(alone)
    assert fewer_survivors(EIGHT_BITS, [1]) == {1: None}


# The law


def circle(half):
    """The symmetric numerators of 0 .. M - 1 that begin so."""
    return [*half, *half[-2:0:-1]]


def encloses(found, exact):
    """Numerators are not above the exact ones, and by less than ``short`` below."""
    whole = sum(exact)
    return all(
        low * whole <= true * found.total < (low + found.short) * whole
        for low, true in zip(found.numerators, exact, strict=True)
    )


@given(st.data())
@settings(max_examples=100)
def test_the_law_encloses_the_convolution_share_by_share(data):
    half = data.draw(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=6).filter(any))
    table = (*half[:0:-1], *half)
    survivors, modulus = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 12))
    found = law(table, survivors, modulus, data.draw(st.sampled_from([1, 3, 20, 160])))
    assert encloses(found, referee.law(table, survivors, modulus))


def test_the_law_of_many_shares_is_known_to_a_hundred_digits():
    table = skellam_table("1/100").counts
    found = law(table, 400, 8)
    assert encloses(found, referee.law(table, 400, 8))
    assert found.short == 799 < min(found.numerators) / 10**100


@pytest.mark.parametrize("half", [(4000, 400, 40, 41, 43), (40, 4000, 40, 4000, 40), (4000, 40), (41, 40, 4000)])
@pytest.mark.parametrize("bound", [Fraction(1, 8), Fraction(1)])
def test_whatever_is_cut_off_from_a_law_its_bounds_are_not_lower(half, bound):
    """Any residues short by all that is allowed, of so few that it counts."""
    short = 39
    exact, orders = (
        circle(half),
        [Fraction(3, 2), *(Fraction(i, 16) for i in range(33, 48, 7)), Fraction(4), Fraction(32)],
    )
    true = bounds(Law(exact, sum(exact)), bound, orders)
    for kept in itertools.product((0, 1), repeat=len(half)):
        lower = circle([weight - short * (1 - keep) for weight, keep in zip(half, kept, strict=True)])
        rough = bounds(Law(lower, sum(exact), short), bound, orders)
        assert all(rough[a] >= true[a] for a in orders)


def test_rare_residues_are_resolved_or_refused():
    """Decimals are added for one that is taken once in 10^70; where none help it is refused."""
    rare = replace(EIGHT_BITS, table=skellam_table("1/2").counts, **PLAIN)
    assert min(law(rare.table, 64, 256).numerators) < 10**90
    assert agree(certify(rare).zero_out, Referee(rare).zero_out(certify(rare).zero_out.order))
    even = replace(TINY, table=(1 << 39, 0, 1 << 39))
    with pytest.raises(
        CertificateError, match=r"every residue .*, got one that it takes with a probability below 10\^-"
    ):
        certify(even)


def test_thousands_of_shares_take_no_longer():
    """The laws of 64 and of 4000 shares of the same variance together are close, and so is what they prove."""
    one, many = (
        replace(EIGHT_BITS, **PLAIN, survivors=h, table=skellam_table(Fraction(256, h)).counts) for h in (64, 4000)
    )
    figures = [Fraction(certify(each).zero_out.units, UNIT) for each in (one, many)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)
    assert figures[0] != figures[1]


# Fixed point


@given(st.fractions(min_value=Fraction(1, 10**40), max_value=10**40).filter(lambda x: x > 0))
def test_a_logarithm_is_above_the_true_one_and_close(x):
    true = Fraction(referee.number(x).ln())
    assert -Fraction(1, 10**60) < Fraction(log_up(x), UNIT) - true < Fraction(1, 10**60)


def test_a_logarithm_is_never_below_the_true_one():
    """With so many digits that the rounding of the comparison does not count."""
    with decimal.localcontext(prec=160):
        for numerator, denominator in itertools.product((1, 2, 3, 7, 1023, 1 << 70), (1, 2, 3, 9, 1 << 90)):
            if numerator != denominator:
                true = Fraction((decimal.Decimal(numerator) / decimal.Decimal(denominator)).ln())
                assert 0 < Fraction(log_up(Fraction(numerator, denominator)), UNIT) - true < Fraction(1, 1 << 380)
    assert 0 <= log_up(Fraction(1)) < 16


@given(st.integers(1, 1 << 800), st.integers(1, 1 << 800))
def test_products_and_roots_are_rounded_up(a, b):
    assert (certificate._times(a, b) - 1) * UNIT < a * b <= certificate._times(a, b) * UNIT
    root = certificate._root(a)
    assert (root - 1) ** 2 < a * UNIT <= root**2


def test_figures_are_written_rounded_up():
    assert str(Figure(UNIT, Fraction(2))) == "1.000000000"
    assert str(Figure(UNIT + 1, Fraction(2))) == "1.000000001"
    assert str(Figure(0, Fraction(2))) == "0.000000000"


# Lemmas 2 to 4 by brute force: small groups, any symmetric law


@st.composite
def symmetric_laws(draw):
    """Symmetric numerators > 0 on Z_2 .. Z_8, single-peaked or not."""
    modulus = draw(st.integers(2, 8))
    half = draw(st.lists(st.integers(1, 1000), min_size=modulus // 2 + 1, max_size=modulus // 2 + 1))
    return [half[min(t, modulus - t)] for t in range(modulus)]


@given(
    symmetric_laws(),
    st.sampled_from([Fraction(1, 64), Fraction(1, 8), Fraction(1, 2), Fraction(1)]),
    st.integers(1, 4),
    st.data(),
)
@settings(max_examples=30)
def test_no_coordinate_diverges_more_than_certified(weights, bound, cells, data):
    orders = sorted({Fraction(data.draw(st.integers(65, 64 * 6)), 64) for _ in range(3)} | {Fraction(5, 2)})
    rates, noise = bounds(Law(weights, sum(weights)), bound, orders, cells), Noise(weights)
    for x in [bound * i / 6 * (-1) ** i for i in range(1, 7)] + [bound / 2**24]:
        for a in orders:
            for divergence in noise.divergences(a, x):
                assert Fraction(divergence) <= Fraction(rates[a], UNIT) * x**2 + Fraction(1, 10**60)


def test_the_certificate_is_tight_where_it_matters():
    """What is attained at some x is within 0.4 % of K_a for all whole orders up to 16, at 8 bits and mu = 256."""
    given = law(EIGHT_BITS.table, 64, 256)
    noise = Noise(given.numerators)
    for a in (2, 4, 16):
        attained = max(d / decimal.Decimal(x) ** 2 for x in (0.001, 0.125) for d in noise.divergences(a, Fraction(x)))
        certified = Fraction(bounds(given, Fraction(1, 8), [Fraction(a)])[Fraction(a)], UNIT)
        assert Fraction(attained) <= certified <= Fraction(attained) * Fraction("1.004")


@given(
    symmetric_laws(),
    st.sampled_from([Fraction(3, 2), Fraction(2), Fraction(9, 4), Fraction(3), Fraction(6)]),
    st.data(),
)
@settings(max_examples=60)
def test_replace_one_goes_through_zero(weights, a, data):
    """Lemma 6 for any two inputs, by their actual divergences; and it is the certificate's."""
    noise = Noise(weights)
    x, y = (Fraction(data.draw(st.integers(-16, 16)), 16) for _ in range(2))
    P, Q = noise.moved(x), noise.moved(y)
    if not all(P) or not all(Q):
        return
    p = referee.number(a)
    direct = sum(q * (r / q) ** p for r, q in zip(P, Q, strict=True)).ln() / (p - 1)
    there, back = noise.divergences(2 * a - 1, x)[0], noise.divergences(2 * a, y)[1]
    assert direct <= referee.number(2 * a / (2 * a - 1)) * there + back + decimal.Decimal(10) ** -60
    curve = {2 * a - 1: 3 * UNIT, 2 * a: 5 * UNIT}
    pair = certificate.tightest_replace_one(curve, DELTA)
    assert pair.units == epsilon(a, -int(-(2 * a / (2 * a - 1)) * 3 * UNIT // 1) + 5 * UNIT, DELTA)


# Lemmas 1 and 5 by brute force: the whole mechanism, all outcomes


def outcomes(inputs, share, modulus):
    """The exact law of sum of SR(x) + share over the clients, one coordinate."""
    total = [Fraction(1)] + [Fraction(0)] * (modulus - 1)
    for x in inputs:
        rounded = {0: 1 - abs(x), (1 if x > 0 else -1): abs(x)}
        after = [Fraction(0)] * modulus
        for bit, chance in rounded.items():
            for value, count in enumerate(share, -(len(share) // 2)):
                for residue, weight in enumerate(total):
                    after[(residue + bit + value) % modulus] += weight * chance * Fraction(count, sum(share))
        total = after
    return total


def renyi(P, Q, a):
    return math.log(sum(p**a / q ** (a - 1) for p, q in zip(P, Q, strict=True))) / (a - 1)


def test_two_adaptive_rounds_of_three_clients_and_two_coordinates():
    """All 4^2 x 4^2 outcomes of two rounds in which inputs depend on what the first one gave."""
    share, modulus, bound, squared_norm = (1, 6, 1), 4, Fraction(1, 2), Fraction(5, 16)
    rates = bounds(law(share, 3, modulus), bound, [Fraction(2), Fraction(3), Fraction(6)])
    worst = 0.0
    firsts = [(Fraction(1, 2), Fraction(1, 4)), (Fraction(-1, 4), Fraction(1, 2)), (Fraction(1, 2), Fraction(0))]
    for first, others in itertools.product(firsts, [(Fraction(0), Fraction(0)), (Fraction(1, 2), Fraction(-1, 4))]):
        joint = {True: [], False: []}
        for present in joint:
            mine = first if present else (Fraction(0), Fraction(0))
            laws = [outcomes((x, *others), share, modulus) for x in mine]
            for y in itertools.product(range(modulus), repeat=2):
                chance = laws[0][y[0]] * laws[1][y[1]]
                # The second input turns against what the first round gave; the others' follow it.
                second = (
                    (Fraction(1, 2) if y[0] < 2 else Fraction(-1, 2), Fraction(1, 4) * (-1) ** y[1])
                    if present
                    else (Fraction(0), Fraction(0))
                )
                follow = (Fraction(y[0], 8), Fraction(-y[1], 8))
                laws2 = [outcomes((x, *follow), share, modulus) for x in second]
                joint[present] += [chance * p * q for p, q in itertools.product(*laws2)]
        assert sum(joint[True]) == sum(joint[False]) == 1
        for a, rate in rates.items():
            for P, Q in itertools.permutations(joint.values()):
                spent = renyi(P, Q, int(a)) / float(2 * squared_norm * Fraction(rate, UNIT))
                worst = max(worst, spent)
    assert 0.5 < worst <= 1.0


def test_conditioning_on_the_other_shares_would_leave_nothing():
    """Why Lemma 1 fixes others' rounding bits and not their noise: one share alone misses residues."""
    with pytest.raises(CertificateError, match="it never takes"):
        bounds(law((1, 6, 1), 1, 4), Fraction(1, 2), [Fraction(2)])


# Lemma 7


@given(
    symmetric_laws(),
    st.sampled_from([Fraction(1, 4), Fraction(1)]),
    st.sampled_from([Fraction(1, 50), Fraction(1, 1000)]),
)
@settings(max_examples=50)
def test_delta_is_enough(weights, bound, delta):
    """The exact hockey-stick divergence of a coordinate, both ways round, at the certified epsilon."""
    orders = order_grid([(4, 4), (1, 24)])
    curve = {a: -int(-rate * bound**2 // 1) for a, rate in bounds(Law(weights, sum(weights)), bound, orders).items()}
    eps = math.exp(certificate.tightest(curve, delta).units / UNIT)
    W = [w / sum(weights) for w in weights]
    for x in (float(bound), float(bound) / 2):
        P = [(1 - x) * w + x * W[t - 1] for t, w in enumerate(W)]
        for first, second in ((P, W), (W, P)):
            assert sum(max(0.0, p - eps * q) for p, q in zip(first, second, strict=True)) <= float(delta) + 1e-12


def test_epsilon_is_never_negative_and_grows():
    assert epsilon(Fraction(64), 0, Fraction(9, 10)) == 0
    assert 0 < epsilon(Fraction(2), 0, DELTA) < epsilon(Fraction(2), 1, DELTA)


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 1}, "expected 2 to 12 bits, got 1"),
        ({"bits": 13}, "expected 2 to 12 bits, got 13"),
        ({"resolution": 41}, "a resolution of 1 to 40 bits, got 41"),
        ({"resolution": 39}, r"a table with the sum 2\^39, got 1099511627776"),
        ({"table": ()}, "a table on -t .. t with t < 2048, got 0 entries"),
        ({"table": (1, 1)}, "got 2 entries"),
        ({"table": (1 << 39, 1 << 39, 0)}, "a symmetric table"),
        ({"table": (-1, (1 << 40) + 2, -1)}, "a table without negative numbers, got -1"),
        ({"survivors": 0}, r"1 to 2\^20 survivors, got 0"),
        ({"survivors": 1 + (1 << 20)}, r"1 to 2\^20 survivors, got 1048577"),
        ({"corrupt": -1}, r"0 to 2\^20 corrupt clients, got -1"),
        ({"bound": Fraction(0)}, "0 < bound <= 1, got 0"),
        ({"bound": Fraction(9, 8)}, "0 < bound <= 1, got 9/8"),
        ({"squared_norm": Fraction(0)}, r"0 < squared_norm < 2\^15, got 0"),
        ({"squared_norm": Fraction(1 << 15)}, r"0 < squared_norm < 2\^15, got 32768"),
        ({"transmissions": 0}, "1 to 1000000 transmissions, got 0"),
        ({"delta": Fraction(0)}, r"2\^-256 <= delta < 1, got 0"),
        ({"delta": Fraction(1)}, r"2\^-256 <= delta < 1, got 1"),
        ({"cells": 0}, "1 to 64 cells, got 0"),
        ({"orders": ((3, 8),)}, "a power of two up to 64 as an order's denominator, got 3"),
        ({"orders": ((1, 257),)}, "orders of at most 256, got 257"),
        ({"orders": ((64, 20),)}, "2 to 1024 orders, got 1216"),
        ({"orders": ()}, "2 to 1024 orders, got 0"),
    ],
)
def test_constants_that_the_theorem_does_not_cover(change, message):
    with pytest.raises(CertificateError, match=message):
        replace(TINY, **change)


def test_laws_and_orders_that_the_lemmas_do_not_cover():
    with pytest.raises(CertificateError, match="a symmetric law"):
        bounds(Law([3, 2, 2, 1], 8), Fraction(1, 2), [Fraction(2)])
    with pytest.raises(CertificateError, match="two orders that differ by 1, got none"):
        certify(replace(TINY, orders=((2, 2),)))


@pytest.fixture(scope="module")
def document():
    return Manifest(TINY, block=64, kept=24, clip_norm=Fraction(1)).document()


def sealed(body):
    """A file whose hash fits its content, whatever that is."""
    return json.dumps({"manifest": body, "sha256": certificate.sha256(body)}).encode()


def test_a_manifest_is_proven_from_its_file(document):
    instance, found, digest = certificate.check(document)
    assert instance == TINY
    assert certificate.check(document, digest) == (instance, found, digest)
    said = certificate.statement(replace(instance, corrupt=3), found, digest)
    assert f"epsilon <= {found.zero_out}" in said
    assert "it unmasks none over fewer than 11 clients, of whom at most 3 are dishonest" in said


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epsilon", {"zero_out": "0.1", "replace_one": "0.2"}, "the certified zero_out epsilon .*, got 0.1"),
        ("epsilon", {}, "the certified zero_out epsilon .*, got None"),
        ("epsilon", 3, "'epsilon', a JSON dict, got 3"),
        ("survivors", True, "'survivors', a JSON int, got True"),
        ("survivors", "8", "'survivors', a JSON int, got '8'"),
        ("survivors", 9, "the certified zero_out epsilon"),
        ("bound", "2/32", "'bound' as a fraction in lowest terms, got 2/32"),
        ("bound", "1/0", "'bound' as a fraction in lowest terms, got 1/0"),
        ("bound", "0.5", "'bound' as a fraction in lowest terms, got 0.5"),
        ("bound", "-1/2", "'bound' as a fraction in lowest terms"),
        ("bound", "1/" + "9" * 90, "'bound' as a fraction in lowest terms, got 1/999"),
        ("delta", 5, "'delta', a JSON str, got 5"),
        ("table", [1, "2", 1], "a table of whole numbers"),
        ("table", [True], "a table of whole numbers"),
        ("orders", [[1, 2, 3]], "orders as pairs of whole numbers"),
        ("orders", [5], "orders as pairs of whole numbers"),
        (
            "version",
            1,
            r"version 2 \(version 1 does not say how many .* may be corrupt; .*\), got matl privacy manifest 1",
        ),
        ("version", 3, "got matl privacy manifest 3"),
        ("format", "other", "got other 2"),
        ("corrupt", -1, "0 to 2.20 corrupt clients, got -1"),
        ("corrupt", "3", "'corrupt', a JSON int, got '3'"),
        ("fraction_bits", 23, "24 fraction_bits, got 23"),
        ("surprise", 1, r"no others, got \['surprise'\] too many or missing"),
    ],
)
def test_a_manifest_that_states_what_is_not_so(document, name, value, message):
    body = json.loads(document)["manifest"] | {name: value}
    with pytest.raises(CertificateError, match=message):
        certificate.check(sealed(body))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "this is no JSON"),
        (b"\xff\xfe", "this is no JSON"),
        (b"[" * 200_000, "this is no JSON"),
        (b"3", "'manifest', a JSON dict, got None"),
        (b'{"manifest": {"a": 1.5}}', "fractions as text such as '1/3', got 1.5"),
        (b'{"manifest": {"a": NaN}}', "got NaN"),
        (b'{"manifest": {"a": 1, "a": 2}}', r"every key once, got \['a', 'a'\]"),
        (b'{"manifest": {"a": ' + b"9" * 5000 + b"}}", "whole numbers of at most 20 digits, got 9999"),
        (b'{"manifest": {}}', "'sha256', a JSON str, got None"),
        (b'{"manifest": {}, "sha256": "00"}', "the SHA-256 44136fa3.* of its content, got 00"),
        (b" " * (certificate.MAX_BYTES + 1), "at most 262144 bytes, got 262145"),
    ],
)
def test_what_is_no_manifest(content, message):
    with pytest.raises(CertificateError, match=message):
        certificate.check(content)


def test_every_changed_byte_is_noticed(document):
    for position in range(0, len(document), 7):
        changed = bytearray(document)
        changed[position] ^= 1
        try:
            same = json.loads(changed) == json.loads(document)  # as when white space became another
        except ValueError:
            same = False
        if not same:
            with pytest.raises(CertificateError):
                certificate.read(bytes(changed))


# The file runs alone


def run_alone(*arguments):
    """Without site packages and without this project: what an auditor has."""
    command = [sys.executable, "-I", "-S", certificate.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_file_needs_nothing_but_python(document, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(document)
    done = run_alone(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "CERTIFIED" in done.stdout
    assert "IF FEWER HONEST CLIENTS SURVIVE" in done.stdout
    path.write_bytes(document.replace(b"1/16", b"1/17"))
    done = run_alone(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("REFUSED: ")
    assert "of its content" in done.stderr


def test_the_command_of_the_file_in_this_process(document, tmp_path, capsys):
    path = tmp_path / "manifest.json"
    path.write_bytes(document)
    digest = json.loads(document)["sha256"]
    assert certificate.main([str(path), "--sha256", digest]) == 0
    assert digest in capsys.readouterr().out
    assert certificate.main([str(path), "--sha256", "0" * 64]) == 2
    assert f"the manifest with SHA-256 {'0' * 64}, got {digest}" in capsys.readouterr().err
    assert certificate.main([str(tmp_path / "absent.json")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_it_imports_nothing_but_the_standard_library():
    tree = ast.parse(Path(certificate.__file__).read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)
