"""Keys: both ends agree, nobody else does, and no two contexts derive the same."""

import hmac
from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from matl.errors import ProtocolError
from matl.privacy.secagg import keys
from matl.privacy.secagg.keys import Channel
from matl.privacy.secagg.masks import add_masks

A, B, C = (X25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2, 3))
ROUND, OTHER = bytes(32), bytes(31) + b"\1"
SMALL_ORDER = [bytes(32), b"\1" + bytes(31)]  # RFC 7748, section 6.1: these agree on zero


def public(secret):
    return secret.public_key().public_bytes_raw()


def ends(transcript=ROUND):
    return (
        Channel.between(A, public(B), transcript, 0, 1),
        Channel.between(B, public(A), transcript, 1, 0),
    )


def test_what_one_seals_the_other_opens():
    a, b = ends()
    shares = bytes(range(64))
    assert b.open(a.seal(shares)) == shares
    assert a.open(b.seal(shares)) == shares
    assert a.seal(shares) != b.seal(shares)
    assert len(a.seal(shares)) == keys.SEALED_BYTES


def test_a_sealed_share_opens_nowhere_else():
    a, b = ends()
    sealed = a.seal(bytes(64))
    assert a.open(sealed) is None  # reflected to its sender
    assert ends(OTHER)[1].open(sealed) is None  # another round
    assert Channel.between(B, public(A), ROUND, 1, 2).open(sealed) is None  # in another's name
    assert Channel.between(C, public(A), ROUND, 1, 0).open(sealed) is None  # with another key
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert b.open(bytes(changed)) is None


def test_a_confirmation_is_of_one_sender_one_receiver_one_round_and_one_set():
    a, b = ends()
    seen = keys.sharers_digest([0, 1, 2])
    assert b.confirmed(seen, a.confirm(seen))
    assert not a.confirmed(seen, a.confirm(seen))
    assert not b.confirmed(keys.sharers_digest([0, 1]), a.confirm(seen))
    assert not ends(OTHER)[1].confirmed(seen, a.confirm(seen))
    assert not b.confirmed(seen, bytes(16))


def test_a_mask_key_is_the_same_from_both_sides_and_different_in_every_context():
    base = keys.mask_key(A, public(B), ROUND, 0, 1)
    assert base == keys.mask_key(B, public(A), ROUND, 1, 0)
    others = [
        keys.mask_key(A, public(B), OTHER, 0, 1),
        keys.mask_key(A, public(B), ROUND, 0, 2),
        keys.mask_key(A, public(C), ROUND, 0, 1),
        keys.self_mask_key(base, ROUND, 0),
        keys.self_mask_key(base, OTHER, 0),
        keys.self_mask_key(base, ROUND, 1),
    ]
    assert len({base, *others}) == 7


def test_the_same_keys_never_give_the_same_mask_in_two_rounds():
    masks = []
    for transcript in (ROUND, OTHER):
        mask = np.zeros(64, np.uint8)
        add_masks(mask, plus=[keys.mask_key(A, public(B), transcript, 0, 1)])
        masks.append(mask.tobytes())
    assert masks[0] != masks[1]


def test_derived_keys_and_signed_texts_are_fixed():
    a, _ = ends()
    got = [
        keys.mask_key(A, public(B), ROUND, 0, 1),
        keys.self_mask_key(bytes(32), ROUND, 3),
        a.outgoing,
        a.incoming,
        a.confirming,
        a.seal(bytes(64))[:32],
        a.confirm(keys.sharers_digest([0, 1])),
        keys.share_commitment(ROUND, 0, 1, b"seed", bytes(32)),
        keys.seed_commitment(ROUND, 0, bytes(32)),
        keys.advertised("00" * 32, "a", bytes(32), bytes(32))[-32:],
        keys.consistent(ROUND, [0, 1], [0])[-32:],
    ]
    assert [item.hex()[:16] for item in got] == GOLDEN


GOLDEN = [
    "83893820bbef05cd",
    "4628b2ff5514ba1d",
    "b08c487114f0dfa0",
    "8c1bf7ea8df2dcb0",
    "7b2d2c5c4997502a",
    "4a22b6cdb80e028a",
    "2474746755dc3800",
    "202f54f0d966e672",
    "149ccda1bd76db06",
    "d78e301acf04b276",
    "82665eb23c92eb1a",
]


def test_a_mask_key_is_hkdf_of_protocol_purpose_round_and_both_clients():
    info = b"matl-secagg/2 mask\0" + ROUND + (0).to_bytes(4, "big") + (1).to_bytes(4, "big")
    extracted = hmac.digest(bytes(32), A.exchange(B.public_key()), "sha256")  # RFC 5869, without salt
    assert keys.mask_key(A, public(B), ROUND, 0, 1) == hmac.digest(extracted, info + b"\1", "sha256")


def test_no_two_purposes_share_a_context():
    contexts = [
        keys._context(purpose, ROUND, *clients)
        for purpose in (b"mask", b"self-mask", b"channel", b"seal", b"confirm", b"seed", b"share seed", b"share key")
        for clients in ((), (0,), (0, 1), (1, 0))
    ]
    assert not any(x.startswith(y) and len(x) == len(y) for x, y in combinations(contexts, 2))


def test_a_signature_is_of_one_key_and_one_text():
    identity, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    table = [key.public_key().public_bytes_raw() for key in (identity, other)]
    signature = identity.sign(b"text")
    assert keys.verified(table[0], signature, b"text")
    assert not keys.verified(table[1], signature, b"text")
    assert not keys.verified(table[0], signature, b"texts")
    assert not keys.verified(table[0], bytes(64), b"text")
    assert not keys.verified(b"short", signature, b"text")


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_point_of_small_order_is_refused(point):
    for use in (
        lambda: keys.check_key(point),
        lambda: keys.mask_key(A, point, ROUND, 0, 1),
        lambda: Channel.between(A, point, ROUND, 0, 1),
    ):
        with pytest.raises(ProtocolError) as error:
            use()
        assert error.value.code == "key"
