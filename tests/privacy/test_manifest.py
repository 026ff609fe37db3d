"""The manifest: its figures cannot be stated otherwise, its bytes are fixed, and who changed it is found out."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from matl.errors import AggregationAborted, InvalidValueError, ProtocolError
from matl.privacy import certificate
from matl.privacy.accounting import Adjacency
from matl.privacy.certificate import UNIT, Instance, certify
from matl.privacy.manifest import Manifest, choose_squared_norm
from matl.privacy.secagg import Client, Phase, Server, Session, aggregate_in_memory
from matl.privacy.secagg.memory import new_identities, public_keys
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
    corrupt=3,
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
GOLDEN = "fd416ef63e21a3ed415f358abaa734e1637c95ebfa7cbffeb935bf415891d9a3"


@pytest.fixture(scope="module")
def manifest():
    return Manifest(INSTANCE, block=4096, kept=1536, clip_norm=Fraction(1, 2), slack=Fraction(1, 50))


def test_golden_bytes(manifest):
    assert manifest.sha256 == GOLDEN
    document = json.loads(manifest.document(KEY))
    assert document["sha256"] == GOLDEN
    assert document["signature"]["public_key"] == KEY.public_key().public_bytes_raw().hex()
    assert document["signature"]["value"] == (
        "ccec9c2136c14de515d96ea428fdb93c02591dd3f2af3a466cc711cf7ca9415e"
        "2e10247cfda6ff8046c2f13d69f5bd827df642cd403b1d8771b7daab98a7ef09"
    )
    assert certificate.canonical(manifest.body).startswith(
        b'{"bits":3,"bound":"1/16","cells":2,"corrupt":3,"delta":"1/100000",'
    )


def test_it_is_read_back_with_and_without_a_signature(manifest):
    assert Manifest.read(manifest.document(), sha256=GOLDEN) == manifest
    assert Manifest.read(manifest.document(KEY), sha256=None, signer=KEY.public_key()) == manifest
    assert Manifest.read(manifest.document(KEY), sha256=GOLDEN) == manifest


def test_what_the_client_enforces(manifest):
    bounded = replace(manifest, slack=Fraction(0), instance=replace(INSTANCE, bound=Fraction(1, 30)))
    update = np.zeros(4096, np.float32)
    update[:2] = 1, -1  # half of the sketch is 0, and the rest as large as may be
    for squared_norm, limit in ((Fraction(4, 3), (1 << 24) // 30), (Fraction(1, 3), None)):
        pinned = replace(bounded, instance=replace(bounded.instance, squared_norm=squared_norm))
        X = pinned.encoder(4096).fixed_point(update, seed=1).astype(int)
        assert abs(X).max() == limit or limit is None
        assert 0.5 * squared_norm * 2**48 < (X * X).sum() <= squared_norm * 2**48


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
        ({"kept": None}, "'public' to hold block, kept, clip_norm and slack"),
        ({"more": 1}, "'public' to hold"),
        ({"clip_norm": 0.5}, "got 0.5"),
        ({"clip_norm": "0"}, "clip_norm > 0, got 0"),
        ({"slack": "-1/50"}, "'slack' as a fraction in lowest terms, got -1/50"),
        ({"slack": "51/50"}, "0 <= slack <= 1, got 51/50"),
        ({"kept": 4097}, "kept <= block=4096, got 4097"),
        ({"block": "4096"}, "block to be a whole number"),
        ({"block": 100, "kept": 1}, "a power of two from 64 to 65536, got 100"),
        ({"block": 32, "kept": 1}, "a power of two from 64 to 65536, got 32"),
        ({"block": 1 << 17, "kept": 1}, "a power of two from 64 to 65536"),
    ],
)
def test_public_constants_that_are_none(manifest, public, message):
    named = {key: value for key, value in (manifest.body["public"] | public).items() if value is not None}
    body = manifest.body | {"public": named}
    document = json.dumps({"manifest": body, "sha256": certificate.sha256(body)}).encode()
    with pytest.raises(InvalidValueError, match=message):
        Manifest.read(document, sha256=None)


def test_public_constants_have_names(manifest):
    body = manifest.body | {"public": []}
    with pytest.raises(InvalidValueError, match="'public' to hold block, kept, clip_norm and slack, got \\[\\]"):
        Manifest.read(json.dumps({"manifest": body, "sha256": certificate.sha256(body)}).encode(), sha256=None)


def test_the_first_version_is_refused_and_says_what_it_lacks(manifest):
    body = manifest.body | {"version": 1}
    del body["corrupt"]
    document = json.dumps({"manifest": body, "sha256": certificate.sha256(body)}).encode()
    with pytest.raises(
        InvalidValueError, match=r"refused: .* of version 2 \(version 1 does not say .* got .* 1; ask for"
    ):
        Manifest.read(document, sha256=None)


# What a client makes of it


def test_the_encoder_has_the_pinned_constants(manifest):
    encoder = manifest.encoder(10_000)
    assert (encoder.instance, encoder.clip, encoder.slack) == (INSTANCE, 0.5, 0.02)
    assert [block.kept for block in encoder.layout] == [1536, 1536, 768]
    coarse = replace(INSTANCE, table=skellam_table("1/4", 20).counts, resolution=20)
    with pytest.raises(InvalidValueError, match="a resolution of 40 bits, got 20"):
        replace(manifest, instance=coarse).encoder(1)


def test_a_session_counts_the_corrupt_beside_the_honest(manifest):
    """Were it h alone, three corrupt survivors would leave five shares of noise where eight were certified."""
    session = manifest.session("run", 7, size=10_000, group="group-1")
    assert session == Session(run="run", round=7, group="group-1", length=3840, bits=3, corrupt=3, min_survivors=8 + 3,
                              terms=manifest.sha256)  # fmt: skip
    assert replace(manifest, instance=replace(INSTANCE, corrupt=0)).sha256 != manifest.sha256
    lonely = replace(INSTANCE, table=skellam_table(4).counts, survivors=1, corrupt=0)
    wide = replace(INSTANCE, table=skellam_table(64).counts, bits=9)
    for instance, message in (
        (lonely, "min_survivors to be a whole number >= 2"),
        (wide, "bits to be 2 to 8.* bits=9"),
    ):
        unusable = replace(manifest, instance=instance)
        with pytest.raises(InvalidValueError, match=message):
            unusable.session("run", 0, size=1)


@pytest.mark.parametrize("missing", [0, 1])
def test_clients_of_a_manifest_unmask_no_sum_that_may_lack_noise(manifest, missing):
    encoder, session = manifest.encoder(200), manifest.session("run", 0, size=200)
    update = np.linspace(-1, 1, 200, dtype=np.float32)
    words = {f"client-{i:02}": encoder.encode(update, seed=5) for i in range(12)}
    gone = {Phase.MASK: [f"client-{i:02}" for i in range(1 + missing)]}
    if missing:
        with pytest.raises(AggregationAborted, match="at least 11 clients in the phase mask, got 10"):
            aggregate_in_memory(words, session, dropouts=gone)
        return
    aggregate, _ = aggregate_in_memory(words, session, dropouts=gone)
    expected = sum(words[name].astype(int) for name in aggregate.survivors) % 8
    np.testing.assert_array_equal(aggregate.total, expected)


def test_nobody_masks_with_a_client_that_holds_other_constants(manifest):
    """Its share of the noise may be a thousandth; it would be counted among the survivors all the same."""
    quieter = replace(INSTANCE, table=skellam_table("1/8").counts, squared_norm=Fraction(1, 64))
    other = replace(manifest, instance=quieter)
    names = [f"client-{i:02}" for i in range(12)]
    keys = new_identities(names)
    ours, theirs = (one.session("run", 0, size=200) for one in (manifest, other))
    assert replace(theirs, terms=ours.terms) == ours  # all else is the same
    table = public_keys(keys)
    server, lying = Server(ours, table), Server(theirs, table)
    for name in names[:11]:
        message = Client(theirs, name, keys[name], table).advertise()
        assert server.receive(name, message).code == "signature"
        assert lying.receive(name, message) is None
    victim = Client(ours, names[11], keys[names[11]], table)
    message = victim.advertise()
    assert lying.receive(names[11], message).code == "signature"
    lying._signed[names[11]] = message  # a server that lies passes it on
    with pytest.raises(ProtocolError, match="their client agreed to another manifest") as caught:
        victim.share(lying.advance()[names[11]])
    assert caught.value.code == "signature"


def test_constants_that_prove_nothing():
    silent = replace(INSTANCE, table=(1 << 40,))
    with pytest.raises(InvalidValueError, match=r"these constants prove nothing: .* it never takes"):
        Manifest(silent, block=64, kept=1, clip_norm=Fraction(1))
    with pytest.raises(InvalidValueError, match="these constants prove nothing"):
        choose_squared_norm(silent, 8)


@pytest.mark.parametrize("epsilon", [Fraction(5, 2), 8])
@pytest.mark.parametrize("adjacency", Adjacency)
def test_the_chosen_norm_is_the_largest(epsilon, adjacency):
    def figure(instance):
        found = certify(instance)
        return found.zero_out if adjacency is Adjacency.ZERO_OUT else found.replace_one

    chosen = choose_squared_norm(INSTANCE, epsilon, adjacency)
    assert figure(chosen).units <= epsilon * UNIT
    larger = replace(chosen, squared_norm=chosen.squared_norm + Fraction(1, 1 << 20))
    assert figure(larger).units > epsilon * UNIT


@pytest.mark.parametrize("adjacency", Adjacency)
def test_no_norm_is_small_enough(adjacency):
    with pytest.raises(InvalidValueError, match=r"an epsilon that some c\^2 >= 2\^-20 keeps, got 0.01 for 4 trans"):
        choose_squared_norm(INSTANCE, Fraction(1, 100), adjacency)


def test_any_norm_is_small_enough():
    chosen = choose_squared_norm(INSTANCE, 10**6)
    assert chosen.squared_norm == (1 << 15) - Fraction(1, 1 << 20)
