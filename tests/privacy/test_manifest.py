"""The manifest: its figures cannot be stated otherwise, its bytes are fixed, and who changed it is found out."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from matl.errors import InvalidValueError
from matl.privacy import certificate
from matl.privacy.certificate import UNIT, Instance, certify
from matl.privacy.manifest import Manifest, choose_squared_norm
from matl.privacy.table import skellam_table

INSTANCE = Instance(
    bits=3,
    table=skellam_table("1/4").counts,
    resolution=40,
    survivors=8,
    bound=Fraction(1, 16),
    squared_norm=Fraction(1, 4),
    transmissions=4,
    delta=Fraction(1, 100_000),
    orders=((2, 4), (1, 12)),
    cells=2,
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
GOLDEN = "1a2681d237ec3ad25defe86fb4327b8a73644996103d0f3524a97a80c390a376"


@pytest.fixture(scope="module")
def manifest():
    return Manifest(INSTANCE, block=4096, kept=1536, clip_norm=Fraction(1, 2))


def test_golden_bytes(manifest):
    assert manifest.sha256 == GOLDEN
    document = json.loads(manifest.document(KEY))
    assert document["sha256"] == GOLDEN
    assert document["signature"]["public_key"] == KEY.public_key().public_bytes_raw().hex()
    assert document["signature"]["value"] == (
        "b0fc2d95876d281d96d90d99f0ac6ee2a091a486bce9234ab8c7ff6664bf53d3"
        "ba5b8a6c7cca377bbac110cf27ed5959569017459539018b4d6c52979931fd02"
    )
    assert certificate.canonical(manifest.body).startswith(b'{"bits":3,"bound":"1/16","cells":2,"delta":"1/100000",')


def test_it_is_read_back_with_and_without_a_signature(manifest):
    assert Manifest.read(manifest.document(), sha256=GOLDEN) == manifest
    assert Manifest.read(manifest.document(KEY), sha256=None, signer=KEY.public_key()) == manifest
    assert Manifest.read(manifest.document(KEY), sha256=GOLDEN) == manifest


def test_what_the_client_enforces(manifest):
    assert manifest.coordinate_limit == 1 << 20
    assert manifest.square_limit == 1 << 46
    assert manifest.table.counts == INSTANCE.table
    thirds = replace(manifest, instance=replace(INSTANCE, bound=Fraction(1, 3), squared_norm=Fraction(1, 3)))
    assert (thirds.coordinate_limit, thirds.square_limit) == ((1 << 24) // 3, (1 << 48) // 3)  # rounded down


def test_signatures(manifest):
    signer = KEY.public_key()
    for document in (manifest.document(), manifest.document(OTHER)):
        with pytest.raises(InvalidValueError, match="no valid signature of the pinned key 03a107bff3ce10be"):
            Manifest.read(document, sha256=GOLDEN, signer=signer)
    signed = json.loads(manifest.document(KEY))
    for value in (None, 5, "zz", signed["signature"]["value"][:-2]):
        signed["signature"]["value"] = value
        with pytest.raises(InvalidValueError, match="no valid signature"):
            Manifest.read(json.dumps(signed).encode(), sha256=None, signer=signer)
    signed["signature"]["value"] = KEY.sign(bytes.fromhex(GOLDEN)).hex()  # the hash, but not as that of a manifest
    with pytest.raises(InvalidValueError, match="no valid signature"):
        Manifest.read(json.dumps(signed).encode(), sha256=None, signer=signer)


def test_another_manifest_than_the_one_pinned(manifest):
    with pytest.raises(InvalidValueError, match=f"refused: expected the manifest with SHA-256 {'0' * 64}"):
        Manifest.read(manifest.document(), sha256="0" * 64)
    with pytest.raises(InvalidValueError, match="refused: this is no JSON"):
        Manifest.read(b"", sha256=GOLDEN)


@pytest.mark.parametrize("stated", ["0.100000000", "99.000000000"])
def test_an_epsilon_that_the_constants_do_not_prove(manifest, stated):
    body = manifest.body
    body["epsilon"] = body["epsilon"] | {"zero_out": stated}
    document = json.dumps({"manifest": body, "sha256": certificate.sha256(body)}).encode()
    with pytest.raises(InvalidValueError, match=f"expected the certified zero_out epsilon .*, got {stated}"):
        Manifest.read(document, sha256=None)


@pytest.mark.parametrize(
    ("public", "message"),
    [
        ({"block": 4096, "kept": 1536}, "'public' to hold block, kept and clip_norm"),
        ({"block": 4096, "kept": 1536, "clip_norm": 0.5}, "got 0.5"),
        ({"block": 4096, "kept": 1536, "clip_norm": "1/2", "more": 1}, "'public' to hold"),
        ([], "'public' to hold"),
        ({"block": 4096, "kept": 4097, "clip_norm": "1/2"}, "kept <= block=4096, got 4097"),
        ({"block": "4096", "kept": 1, "clip_norm": "1/2"}, "block to be a whole number"),
        ({"block": 100, "kept": 1, "clip_norm": "1/2"}, "a power of two, at most 65536, got 100"),
        ({"block": 1 << 17, "kept": 1, "clip_norm": "1/2"}, "a power of two, at most 65536"),
        ({"block": 2, "kept": 1, "clip_norm": "0"}, "clip_norm > 0, got 0"),
    ],
)
def test_public_constants_that_are_none(manifest, public, message):
    body = manifest.body | {"public": public}
    document = json.dumps({"manifest": body, "sha256": certificate.sha256(body)}).encode()
    with pytest.raises(InvalidValueError, match=message):
        Manifest.read(document, sha256=None)


def test_constants_that_prove_nothing():
    silent = replace(INSTANCE, table=(1 << 40,))
    with pytest.raises(InvalidValueError, match=r"these constants prove nothing: .* it never takes"):
        Manifest(silent, block=2, kept=1, clip_norm=Fraction(1))
    with pytest.raises(InvalidValueError, match="these constants prove nothing"):
        choose_squared_norm(silent, 8)


@pytest.mark.parametrize("epsilon", [1, Fraction(5, 2), 8])
def test_the_chosen_norm_is_the_largest(epsilon):
    chosen = choose_squared_norm(INSTANCE, epsilon)
    assert certify(chosen).zero_out.units <= epsilon * UNIT
    larger = replace(chosen, squared_norm=chosen.squared_norm + Fraction(1, 1 << 20))
    assert certify(larger).zero_out.units > epsilon * UNIT


def test_no_norm_is_small_enough():
    with pytest.raises(InvalidValueError, match=r"an epsilon that some c\^2 >= 2\^-20 keeps, got 0.01 for 4 trans"):
        choose_squared_norm(INSTANCE, Fraction(1, 100))
