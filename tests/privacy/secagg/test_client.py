"""The client's side: it gives each answer once, and a server that lies gets none. Tests are named after the attack."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scipy.stats import chi2

from matl.errors import AggregationAborted, InvalidValueError, ProtocolError
from matl.privacy.secagg import Client, Phase
from matl.privacy.secagg.keys import SEALED_BYTES, SHARE_BYTES, advertised, consistent
from matl.privacy.secagg.messages import (
    MAX_ADVERTISEMENT,
    Advertisement,
    Certificate,
    Consistency,
    Delivery,
    MaskedInput,
    Revealed,
    Roster,
    SealedShares,
    Survivors,
)
from matl.privacy.secagg.unmasking import Unmasking

LIMIT = 1 << 20


def refused(code, call, *arguments):
    with pytest.raises(ProtocolError) as error:
        call(*arguments)
    assert error.value.code == code
    return str(error.value)


def signature(answer):
    return Consistency.from_bytes(answer, LIMIT).signature


# Registration.


def test_a_round_that_the_client_served_before_is_refused(make):
    parties = make(3, round=4)
    name, key = parties.names[0], parties.keys[parties.names[0]]
    for last in (4, 5):
        message = refused(
            "replayed", lambda last=last: Client(parties.session, name, key, parties.table, last_round=last)
        )
        assert "a round that is repeated takes a new number" in message
    Client(parties.session, name, key, parties.table, last_round=3)


def test_a_table_with_another_key_for_the_client_is_refused(make):
    parties = make(3)
    with pytest.raises(InvalidValueError, match="does not have the public key of 'c00'"):
        Client(parties.session, "c00", Ed25519PrivateKey.generate(), parties.table)


@pytest.fixture
def registered(make):
    """Parties after everyone advertised, and a roster that a server may change."""
    parties = make(5).until(Phase.SHARE)
    return parties, list(parties.answers[Phase.ADVERTISE].values())


def roster(signed):
    return Roster(tuple(signed)).to_bytes()


def test_replayed_keys_of_an_earlier_round_are_refused(make, registered):
    parties, signed = registered
    earlier = make(5, keys=parties.keys, round=0)
    earlier.until(Phase.SHARE)
    later = make(5, keys=parties.keys, round=1).until(Phase.SHARE)
    signed = list(later.answers[Phase.ADVERTISE].values())
    signed[3] = earlier.answers[Phase.ADVERTISE]["c03"]
    message = refused("signature", later.clients["c00"].share, roster(signed))
    assert "'c03'" in message
    assert "replayed from another round" in message


@pytest.mark.parametrize(
    "changes",
    [{"run": "x"}, {"group": "g"}, {"length": 21}, {"corrupt": 1}, {"min_survivors": 2}, {"terms": "ab" * 32}],
)
def test_keys_signed_for_another_session_are_refused(make, registered, changes):
    parties, signed = registered
    other = make(5, keys=parties.keys, **changes).until(Phase.SHARE)
    signed[3] = other.answers[Phase.ADVERTISE]["c03"]
    refused("signature", parties.clients["c00"].share, roster(signed))


def test_own_keys_replaced_by_the_server_are_refused(make, registered):
    parties, signed = registered
    again = make(5, keys=parties.keys).until(Phase.SHARE)  # a second, validly signed set: another process of c00
    signed[0] = again.answers[Phase.ADVERTISE]["c00"]
    refused("roster", parties.clients["c00"].share, roster(signed))


def test_a_client_that_nobody_knows_is_refused(make, registered):
    parties, signed = registered
    stranger = make(6).until(Phase.SHARE)
    refused("unknown", parties.clients["c00"].share, roster([*signed, stranger.answers[Phase.ADVERTISE]["c05"]]))


def test_another_clients_keys_swapped_for_the_servers_own_are_refused(registered):
    parties, signed = registered
    item = Advertisement.from_bytes(signed[3], MAX_ADVERTISEMENT)
    signed[3] = replace(item, mask_key=bytes([9] * 32)).to_bytes()
    refused("signature", parties.clients["c00"].share, roster(signed))


@pytest.mark.parametrize("order", [[1, 0, 2, 3, 4], [0, 1, 1, 2, 3, 4]])
def test_a_roster_out_of_order_or_with_somebody_twice_is_refused(registered, order):
    parties, signed = registered
    refused("roster", parties.clients["c00"].share, roster([signed[i] for i in order]))


def sign_keys(parties, name, cipher_key, mask_key):
    text = advertised(parties.session.digest, name, cipher_key, mask_key)
    return Advertisement(name, cipher_key, mask_key, parties.keys[name].sign(text)).to_bytes()


def test_a_key_of_small_order_is_refused_even_if_a_corrupt_client_signed_it(registered):
    parties, signed = registered
    signed[3] = sign_keys(parties, "c03", bytes(32), bytes([9] * 32))
    refused("key", parties.clients["c00"].share, roster(signed))


def test_another_clients_key_under_a_corrupt_clients_name_is_refused(registered):
    parties, signed = registered
    victim = Advertisement.from_bytes(signed[1], MAX_ADVERTISEMENT)
    signed[3] = sign_keys(parties, "c03", victim.cipher_key, bytes([9] * 32))
    refused("key", parties.clients["c00"].share, roster(signed))


def test_a_roster_below_the_minimum_is_refused(make):
    parties = make(5, min_survivors=4).until(Phase.SHARE)
    signed = list(parties.answers[Phase.ADVERTISE].values())
    with pytest.raises(AggregationAborted, match="at least 4 clients that registered, got 3"):
        parties.clients["c00"].share(roster(signed[:3]))


def test_shares_of_a_client_that_was_shown_another_roster_open_nowhere(registered):
    parties, signed = registered
    shown_another = SealedShares.from_bytes(parties.clients["c00"].share(roster(signed[:4])), LIMIT)
    others = {name: parties.clients[name].share(roster(signed)) for name in parties.names[1:]}
    pieces = [shown_another.sealed[:SEALED_BYTES]]  # for c01
    pieces += [
        SealedShares.from_bytes(others[name], LIMIT).sealed[SEALED_BYTES : 2 * SEALED_BYTES]
        for name in ("c02", "c03", "c04")
    ]
    client = parties.clients["c01"]
    client.mask(Delivery((0, 1, 2, 3, 4), b"".join(pieces)).to_bytes(), parties.inputs["c01"])
    assert [(fault.client_id, fault.code) for fault in client.faults] == [("c00", "sealed")]


# Shares.


def delivery(parties, name):
    return Delivery.from_bytes(parties.requests[name], LIMIT)


def test_a_substituted_share_is_noticed_and_left_out(make):
    parties = make(5).until(Phase.MASK)
    told = delivery(parties, "c00")
    swapped = told.sealed[SEALED_BYTES : 2 * SEALED_BYTES] + told.sealed[SEALED_BYTES:]  # that of c02 in c01's name
    client = parties.clients["c00"]
    answer = client.mask(replace(told, sealed=swapped).to_bytes(), parties.inputs["c00"])
    assert MaskedInput.from_bytes(answer, LIMIT).unopened == (1,)
    assert [(fault.client_id, fault.code) for fault in client.faults] == [("c01", "sealed")]


def test_a_share_replayed_from_an_earlier_round_is_noticed(make):
    earlier = make(5).until(Phase.MASK)
    parties = make(5, keys=earlier.keys, round=1).until(Phase.MASK)
    told, old = delivery(parties, "c00"), delivery(earlier, "c00")
    mixed = old.sealed[:SEALED_BYTES] + told.sealed[SEALED_BYTES:]
    parties.clients["c00"].mask(replace(told, sealed=mixed).to_bytes(), parties.inputs["c00"])
    assert [fault.client_id for fault in parties.clients["c00"].faults] == ["c01"]


def test_substituted_shares_of_most_neighbours_end_the_round(make):
    parties = make(5).until(Phase.MASK)
    told = delivery(parties, "c00")
    message = refused(
        "sealed",
        parties.clients["c00"].mask,
        replace(told, sealed=bytes(len(told.sealed))).to_bytes(),
        parties.inputs["c00"],
    )
    assert "4 of 4 neighbours" in message


@pytest.mark.parametrize("sharers", [(1, 2, 3, 4), (0, 1, 2, 3, 9)])
def test_sharers_without_the_client_or_with_a_stranger_are_refused(make, sharers):
    parties = make(5).until(Phase.MASK)
    told = delivery(parties, "c00")
    refused("sharers", parties.clients["c00"].mask, replace(told, sharers=sharers).to_bytes(), parties.inputs["c00"])


def test_sharers_below_the_minimum_are_refused(make):
    parties = make(5, min_survivors=4).until(Phase.MASK)
    told = delivery(parties, "c00")
    fewer = replace(told, sharers=(0, 1, 2), sealed=told.sealed[: 2 * SEALED_BYTES])
    with pytest.raises(AggregationAborted, match="at least 4 clients that shared, got 3"):
        parties.clients["c00"].mask(fewer.to_bytes(), parties.inputs["c00"])


def test_a_client_whose_neighbours_left_leaves_too(make):
    """On a sparse graph drop-outs within the plan can, rarely, be one client's neighbours."""
    parties = make(5).until(Phase.MASK)
    client, told = parties.clients["c00"], delivery(parties, "c00")
    vars(client._registered)["graph"] = replace(client._registered.graph, threshold=4)
    fewer = replace(told, sharers=(0, 1, 2, 3), sealed=told.sealed[: 3 * SEALED_BYTES])
    with pytest.raises(AggregationAborted, match="at least 4 neighbours that shared, got 3"):
        client.mask(fewer.to_bytes(), parties.inputs["c00"])


def test_more_or_fewer_shares_than_sharers_are_refused(make):
    parties = make(5).until(Phase.MASK)
    told = delivery(parties, "c00")
    refused(
        "size",
        parties.clients["c00"].mask,
        replace(told, sealed=told.sealed[SEALED_BYTES:]).to_bytes(),
        parties.inputs["c00"],
    )


def test_a_client_shown_other_sharers_keeps_its_self_mask(make):
    """A server that tells a victim about few sharers gets a vector with few masks; nobody then gives up its seed."""
    parties = make(6).until(Phase.MASK)
    told = delivery(parties, "c00")
    few = Delivery((0, 1, 2, 3), told.sealed[: 3 * SEALED_BYTES]).to_bytes()
    answers = {
        n: parties.clients[n].mask(few if n == "c00" else r, parties.inputs[n]) for n, r in parties.requests.items()
    }
    confirmations = {n: MaskedInput.from_bytes(data, LIMIT).confirmations for n, data in answers.items()}
    others = [parties.clients[n] for n in parties.names[1:]]
    signed = {}
    for me, client in enumerate(others, start=1):
        peers = [peer for peer in range(6) if peer != me]
        pieces = b"".join(
            confirmations[f"c{peer:02d}"].ljust(80, b"\0")[16 * (me - (me > peer)) :][:16] for peer in peers
        )
        signed[me] = signature(client.confirm(Survivors((0, 1, 2, 3, 4, 5), pieces).to_bytes()))
        assert [(fault.client_id, fault.code) for fault in client.faults] == [("c00", "confirmation")]
    certificate = Certificate(tuple(signed), b"".join(signed.values())).to_bytes()
    for client in others:
        assert 0 not in Revealed.from_bytes(client.unmask(certificate), LIMIT).dealers


# Survivors.


def test_a_survivor_set_below_the_minimum_is_refused(make):
    parties = make(6, min_survivors=5).until(Phase.CONSISTENCY)
    few = Survivors((0, 1, 2, 3), bytes(3 * 16)).to_bytes()
    with pytest.raises(AggregationAborted, match="at least 5 clients that survived, got 4: nothing is revealed"):
        parties.clients["c00"].confirm(few)


def test_the_minimum_is_counted_by_the_client_whatever_the_server_believes(make):
    parties = make(6, min_survivors=3).until(Phase.CONSISTENCY)
    assert parties.clients["c00"].session.needed(6) == 4  # a quorum of six
    with pytest.raises(AggregationAborted, match="at least 4"):
        parties.clients["c00"].confirm(Survivors((0, 1, 2), bytes(2 * 16)).to_bytes())


@pytest.mark.parametrize("survivors", [(1, 2, 3, 4), (0, 1, 2, 5)])
def test_survivors_without_the_client_or_beyond_the_sharers_are_refused(make, survivors):
    parties = make(6)
    parties.play()
    parties.play(without=["c05"])  # never shared
    parties.play()
    message = refused("survivors", parties.clients["c00"].confirm, Survivors(survivors, bytes(3 * 16)).to_bytes())
    assert "contradicts itself" in message


def test_a_client_that_sent_nothing_does_not_count_for_the_minimum(make):
    """The server names a drop-out as survivor. Its neighbours then reveal neither secret, and its masks stay on."""
    parties = make(5, min_survivors=5).until(Phase.MASK)
    del parties.requests["c04"]
    answers = {n: parties.clients[n].mask(r, parties.inputs[n]) for n, r in parties.requests.items()}
    confirmations = [MaskedInput.from_bytes(data, LIMIT).confirmations for data in answers.values()]
    signed = []
    for me, name in enumerate(answers):
        pieces = [blob[16 * (me - (me > peer)) :][:16] for peer, blob in enumerate(confirmations) if peer != me]
        request = Survivors((0, 1, 2, 3, 4), b"".join(pieces) + bytes(16))
        signed.append(signature(parties.clients[name].confirm(request.to_bytes())))
    certificate = Certificate((0, 1, 2, 3), b"".join(signed)).to_bytes()
    for name in answers:
        dealers = Revealed.from_bytes(parties.clients[name].unmask(certificate), LIMIT).dealers
        assert len(dealers) == 3
        assert 4 not in dealers


@pytest.mark.parametrize("told_fewer", range(5))
@pytest.mark.parametrize("signers", [(0, 1, 2), (2, 3, 4), (0, 2, 3), (1, 2, 3), (0, 1, 2, 3, 4)])
def test_inconsistent_survivor_sets_shown_to_different_clients_unmask_at_most_one_of_them(make, told_fewer, signers):
    """However a server divides the clients between two sets, and mixes signatures, one set stays masked."""
    parties = make(5).until(Phase.CONSISTENCY)
    shown = {name: Survivors.from_bytes(request, LIMIT) for name, request in parties.requests.items()}
    for name in parties.names[:told_fewer]:
        shown[name] = Survivors((0, 1, 2, 3), shown[name].confirmations[:48])
    signed = {name: signature(parties.clients[name].confirm(message.to_bytes())) for name, message in shown.items()}
    certificate = Certificate(signers, b"".join(signed[f"c{i:02d}"] for i in signers)).to_bytes()
    unmasked = set()
    for name, client in parties.clients.items():
        with suppress(ProtocolError):
            client.unmask(certificate)
            unmasked.add(shown[name].survivors)
    signed_sets = {shown[f"c{i:02d}"].survivors for i in signers}
    assert unmasked == (signed_sets if len(signed_sets) == 1 else set())


def test_a_client_dropped_after_the_consistency_round_is_not_given_up(make):
    """The server gets signatures with a victim among the survivors, and then calls it dropped."""
    parties = make(5).until(Phase.UNMASK)
    smaller = Survivors((0, 1, 2, 3), bytes(48)).to_bytes()
    refused("repeated", parties.clients["c00"].confirm, smaller)
    # Nor do signatures of corrupt clients on the smaller set help, were they a quorum: it is not what c01 signed.
    client = parties.clients["c01"]
    text = consistent(client._registered.transcript, (0, 1, 2, 3, 4), (0, 1, 2, 3))
    certificate = Certificate((0, 2, 3), b"".join(parties.keys[f"c{i:02d}"].sign(text) for i in (0, 2, 3)))
    assert "changed the set afterwards" in refused("certificate", client.unmask, certificate.to_bytes())


def test_asking_for_both_secrets_of_a_client_gets_one(make):
    parties = make(5)
    parties.until(Phase.MASK).play(without=["c04"])
    parties.until(Phase.UNMASK)
    parties.play()
    registered = parties.clients["c00"]._registered
    shares = {i: SealedShares.from_bytes(parties.answers[Phase.SHARE][n], LIMIT) for i, n in enumerate(parties.names)}
    as_survivor = Unmasking(registered, shares, frozenset(range(5)))
    as_dropped = Unmasking(registered, shares, frozenset())
    for holder, name in enumerate(parties.names[:4]):
        message = Revealed.from_bytes(parties.answers[Phase.UNMASK][name], LIMIT)
        for place, dealer in enumerate(message.dealers):
            share = message.shares[place * SHARE_BYTES : (place + 1) * SHARE_BYTES]
            assert as_survivor.fits(dealer, holder, share) is (dealer != 4)
            assert as_dropped.fits(dealer, holder, share) is (dealer == 4)
        client = parties.clients[name]
        refused("repeated", client.confirm, Survivors((0, 1, 2, 3, 4), bytes(64)).to_bytes())
        refused("refused", client.unmask, Certificate((0, 1, 2), bytes(192)).to_bytes())
        assert not client._held


def test_a_second_unmask_request_is_refused_unless_it_is_the_same(make):
    parties = make(5).until(Phase.UNMASK)
    request = parties.requests["c00"]
    client = parties.clients["c00"]
    answer = client.unmask(request)
    assert client.unmask(request) == answer
    told = Certificate.from_bytes(request, LIMIT)
    other = Certificate((*told.signers, 4), told.signatures + parties.server._signatures[4].signature)
    refused("repeated", client.unmask, other.to_bytes())
    assert client.unmask(request) == answer


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, signers=c.signers[:-1], signatures=c.signatures[:-64]),  # one too few
        lambda c: replace(c, signatures=c.signatures[:-64] + bytes(64)),  # forged
        lambda c: replace(c, signatures=c.signatures[64:] + c.signatures[:64]),  # in each other's names
        lambda c: replace(c, signers=(*c.signers[:-1], 4)),  # in the name of one that did not survive
        lambda c: replace(c, signers=(*c.signers[:-1], 9)),  # of nobody
    ],
)
def test_a_certificate_without_a_quorum_of_valid_signatures_is_refused(make, change):
    parties = make(5)
    parties.until(Phase.MASK).play(without=["c04"])
    parties.until(Phase.UNMASK)
    told = Certificate.from_bytes(parties.requests["c00"], LIMIT)
    refused("certificate", parties.clients["c00"].unmask, change(told).to_bytes())


def test_signatures_count_against_corrupt_clients_too(make):
    """With corrupt clients allowed for, a bare majority may not sign two sets."""
    parties = make(7, corrupt=2, min_survivors=4).until(Phase.UNMASK)
    told = Certificate.from_bytes(parties.requests["c00"], LIMIT)
    assert len(told.signers) == 5
    four = Certificate(told.signers[:4], told.signatures[:256]).to_bytes()
    assert "at least 5 survivors, got 4" in refused("certificate", parties.clients["c00"].unmask, four)


# Order and repetition.


def test_every_answer_is_repeated_word_for_word(make):
    parties = make(4)
    while parties.server.phase is not Phase.DONE:
        phase, asked = parties.server.phase, parties.requests
        parties.play()
        for name, request in asked.items():
            client = parties.clients[name]
            again = {
                Phase.ADVERTISE: lambda _, client=client: client.advertise(),
                Phase.SHARE: client.share,
                Phase.MASK: lambda r, client=client: client.mask(r, np.zeros(20, np.uint8)),  # another vector: too late
                Phase.CONSISTENCY: client.confirm,
                Phase.UNMASK: client.unmask,
            }[phase]
            assert again(request) == parties.answers[phase][name]


def test_requests_out_of_turn_are_refused(make):
    parties = make(3).until(Phase.SHARE)
    refused("turn", parties.clients["c00"].confirm, Survivors((0, 1, 2), bytes(32)).to_bytes())
    refused("turn", make(3).clients["c00"].share, roster([]))


def test_nothing_is_answered_after_a_refusal(make):
    parties = make(4).until(Phase.UNMASK)
    client = parties.clients["c00"]
    refused("certificate", client.unmask, Certificate((), b"").to_bytes())
    assert "left the round" in refused("refused", client.unmask, parties.requests["c00"])


@pytest.mark.parametrize("phase", [Phase.SHARE, Phase.MASK, Phase.CONSISTENCY, Phase.UNMASK])
def test_malformed_requests_are_one_error(make, phase):
    parties = make(3).until(phase)
    client = parties.clients["c00"]
    call = {
        Phase.SHARE: client.share,
        Phase.MASK: lambda data: client.mask(data, parties.inputs["c00"]),
        Phase.CONSISTENCY: client.confirm,
        Phase.UNMASK: client.unmask,
    }[phase]
    refused("malformed", call, b"\xc1")


def test_a_vector_of_another_type_or_length_is_refused_and_can_be_corrected(make):
    parties = make(3).until(Phase.MASK)
    client, request = parties.clients["c00"], parties.requests["c00"]
    for wrong in (np.zeros(20, np.int8), np.zeros(19, np.uint8), np.zeros((20, 1), np.uint8), np.zeros(20, np.uint16)):
        with pytest.raises(InvalidValueError, match="expected a vector of 20 uint8 words"):
            client.mask(request, wrong)
    before = parties.inputs["c00"].copy()
    client.mask(request, parties.inputs["c00"])
    np.testing.assert_array_equal(parties.inputs["c00"], before)


# What a single masked vector shows.


@pytest.mark.parametrize("value", [0, 255])
def test_a_masked_vector_is_uniform_whatever_it_hides(make, value):
    parties = make(3, length=1 << 18).until(Phase.MASK)
    answer = parties.clients["c00"].mask(parties.requests["c00"], np.full(1 << 18, value, np.uint8))
    masked = np.frombuffer(MaskedInput.from_bytes(answer, 1 << 19).masked, np.uint8)
    counts = np.bincount(masked, minlength=256)
    # Wrong alarm with probability 1e-8 each.
    assert ((counts - 1024) ** 2 / 1024).sum() < chi2.isf(1e-8, 255)


def test_the_same_vector_is_masked_differently_in_every_round_and_by_every_client(make):
    first = make(3)
    rounds = [first, make(3, keys=first.keys, round=1), make(3, keys=first.keys, group="g")]
    seen = []
    for parties in rounds:
        parties.inputs = {name: np.zeros(20, np.uint8) for name in parties.names}
        parties.until(Phase.CONSISTENCY)
        seen += [MaskedInput.from_bytes(data, LIMIT).masked for data in parties.answers[Phase.MASK].values()]
    assert len(set(seen)) == 9  # two of 160 random bits are equal with probability below 1e-46
