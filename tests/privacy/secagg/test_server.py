"""The server's side: what it rejects, what it survives, and what it never holds."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from matl.errors import AggregationAborted, StateError
from matl.privacy.secagg import Client, Phase, Server
from matl.privacy.secagg.keys import SHARE_BYTES
from matl.privacy.secagg.memory import answer
from matl.privacy.secagg.messages import (
    MAX_ADVERTISEMENT,
    Advertisement,
    Consistency,
    MaskedInput,
    Revealed,
    SealedShares,
)
from matl.state import pack, unpack

LIMIT = 1 << 20


def restored(parties):
    """The server as another process finds it."""
    parties.server = Server.restore(unpack(pack(parties.server.state())), parties.table)
    return parties.server


# Rejections.


def next_answers(parties, phase):
    """Valid answers of a phase, not yet received."""
    parties.until(phase)
    return {n: answer(parties.clients[n], phase, r, parties.inputs[n]) for n, r in parties.requests.items()}


def code(parties, name, data):
    rejection = parties.server.receive(name, data)
    assert rejection is not None
    assert rejection.client_id == name
    return rejection.code


@pytest.mark.parametrize("phase", list(Phase)[:-1])
def test_the_first_valid_answer_stands_and_others_are_rejected(make, phase):
    parties = make(4)
    answers = next_answers(parties, phase)
    assert parties.server.waiting == ("c00", "c01", "c02", "c03")
    assert code(parties, "c00", b"\xc1") == "malformed"
    assert code(parties, "c00", bytes(1 << 22)) == "size"
    assert parties.server.receive("c00", answers["c00"]) is None
    assert code(parties, "c00", answers["c00"]) == "duplicate"
    assert code(parties, "nobody", answers["c01"]) == "unknown"
    assert parties.server.waiting == ("c01", "c02", "c03")


def test_keys_that_are_not_the_senders_or_of_another_round_are_rejected(make):
    parties = make(3)
    answers = next_answers(parties, Phase.ADVERTISE)
    assert code(parties, "c00", answers["c01"]) == "unknown"
    late = make(3, keys=parties.keys, round=1).clients["c00"].advertise()
    assert code(parties, "c00", late) == "signature"
    item = Advertisement.from_bytes(answers["c00"], MAX_ADVERTISEMENT)
    assert code(parties, "c00", replace(item, cipher_key=bytes(32)).to_bytes()) == "signature"


def test_keys_that_are_worth_nothing_are_rejected(make, monkeypatch):
    parties = make(3)
    monkeypatch.setattr("matl.privacy.secagg.session.verified", lambda *_: True)  # its owner would sign it
    item = Advertisement.from_bytes(parties.clients["c00"].advertise(), MAX_ADVERTISEMENT)
    assert code(parties, "c00", replace(item, mask_key=item.cipher_key).to_bytes()) == "key"
    assert code(parties, "c00", replace(item, mask_key=bytes(32)).to_bytes()) == "key"
    assert parties.server.receive("c00", item.to_bytes()) is None
    other = Advertisement.from_bytes(parties.clients["c01"].advertise(), MAX_ADVERTISEMENT)
    assert code(parties, "c01", replace(other, mask_key=item.mask_key).to_bytes()) == "key"


@pytest.mark.parametrize(
    ("phase", "change", "expected"),
    [
        (Phase.SHARE, lambda d: replace(SealedShares.from_bytes(d, LIMIT), sealed=bytes(80)).to_bytes(), "size"),
        (Phase.SHARE, lambda d: replace(SealedShares.from_bytes(d, LIMIT), commitments=bytes(32)).to_bytes(), "size"),
        (Phase.MASK, lambda d: replace(MaskedInput.from_bytes(d, LIMIT), masked=bytes(19)).to_bytes(), "size"),
        (Phase.MASK, lambda d: replace(MaskedInput.from_bytes(d, LIMIT), confirmations=bytes(16)).to_bytes(), "size"),
        (Phase.MASK, lambda d: replace(MaskedInput.from_bytes(d, LIMIT), unopened=(0,)).to_bytes(), "malformed"),
        (Phase.CONSISTENCY, lambda _: Consistency(bytes(64)).to_bytes(), "signature"),
        (Phase.UNMASK, lambda d: replace(Revealed.from_bytes(d, LIMIT), shares=bytes(32)).to_bytes(), "size"),
    ],
)
def test_answers_that_do_not_fit_are_rejected_and_change_nothing(make, phase, change, expected):
    parties = make(4)
    answers = next_answers(parties, phase)
    before = pack(parties.server.state())
    assert code(parties, "c00", change(answers["c00"])) == expected
    assert pack(parties.server.state()) == before
    parties.play()
    parties.until(Phase.DONE)
    np.testing.assert_array_equal(parties.server.result.total, parties.total(parties.names))


def test_who_left_is_not_asked_and_not_heard(make):
    parties = make(5).until(Phase.MASK)
    late = answer(parties.clients["c04"], Phase.MASK, parties.requests["c04"], parties.inputs["c04"])
    parties.play(without=["c04"])
    assert "c04" not in parties.requests
    assert code(parties, "c04", late) == "unasked"
    assert code(parties, "c00", late) == "kind"
    parties.until(Phase.DONE)
    assert code(parties, "c00", late) == "unasked"
    assert parties.server.result.survivors == ("c00", "c01", "c02", "c03")


# Refusals.


@pytest.mark.parametrize("phase", list(Phase)[:-1])
def test_too_few_answers_end_no_phase_and_say_how_many_are_due(make, phase):
    parties = make(5)
    answers = next_answers(parties, phase)
    for name in parties.names[:2]:
        parties.server.receive(name, answers[name])
    with pytest.raises(AggregationAborted, match=r"expected (at least )?\d .*got"):
        parties.server.advance()
    assert parties.server.phase is phase
    for name in parties.names[2:]:  # late, but not too late
        parties.server.receive(name, answers[name])
    parties.requests = parties.server.advance()
    parties.until(Phase.DONE)
    np.testing.assert_array_equal(parties.server.result.total, parties.total(parties.names))


def test_there_is_no_result_before_the_end(make):
    parties = make(3).until(Phase.UNMASK)
    with pytest.raises(AggregationAborted, match="in the phase unmask"):
        _ = parties.server.result


def test_a_finished_round_stays_finished(make):
    parties = make(3).until(Phase.DONE)
    assert parties.server.advance() == {}
    assert parties.server.waiting == ()
    assert parties.server.phase is Phase.DONE


# Crashes.


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("lost", [False, True])
def test_another_process_goes_on_from_the_state(make, phase, lost):
    """Killed in the middle of a phase, with or without having written down the answers that had arrived."""
    parties = make(6, bits=16)
    parties.until(Phase.MASK).play(without=["c05"]) if phase not in (Phase.ADVERTISE, Phase.SHARE, Phase.MASK) else None
    parties.until(phase)
    before = parties.server.state() if lost else None
    answers = {} if phase is Phase.DONE else next_answers(parties, phase)
    for name in list(answers)[:3]:
        parties.server.receive(name, answers[name])
    state = unpack(pack(before if lost else parties.server.state()))
    parties.server = Server.restore(state, parties.table)
    assert parties.server.phase is phase
    if phase is not Phase.ADVERTISE:
        assert parties.server.requests() == (parties.requests if phase is not Phase.DONE else {})
    for name, data in answers.items():
        parties.server.receive(name, data)  # clients repeat themselves; what was kept is a duplicate
    parties.requests = parties.server.advance()
    parties.until(Phase.DONE)
    result = parties.server.result
    np.testing.assert_array_equal(result.total, parties.total(result.survivors))
    np.testing.assert_array_equal(restored(parties).result.total, result.total)


def test_a_state_holds_no_secret_of_a_client(make):
    parties = make(4)
    secrets = {}
    while parties.server.phase is not Phase.DONE:
        for name, client in parties.clients.items():
            if parties.server.phase is Phase.UNMASK:
                secrets[name] += [shares[:32] for shares in client._held.values()]
                secrets[name] += [shares[32:] for shares in client._held.values()]
            else:
                own = [client._seed, client._cipher_secret.private_bytes_raw(), client._mask_secret.private_bytes_raw()]
                secrets[name] = own
        answers = next_answers(parties, parties.server.phase)
        for name, data in answers.items():
            parties.server.receive(name, data)
            packed = pack(parties.server.state())
            assert not any(secret in packed for held in secrets.values() for secret in held)
        parties.requests = parties.server.advance()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},  # sessions had no terms then
        {"session": {"run": "x"}},
        {"phase": "sleep"},
        {"total": b"short"},
        {"shares": [[0, b"\xc1"]]},
        {"signed": {"c00": b"\xc1"}},
        {"masked": 5},
    ],
)
def test_a_state_that_is_none_is_one_error(make, change):
    parties = make(3).until(Phase.MASK)
    with pytest.raises(StateError):
        Server.restore(parties.server.state() | change, parties.table)
    with pytest.raises(StateError):
        Server.restore({}, parties.table)


# Clients that lie.


def test_a_wrong_share_is_left_out_and_the_pair_is_noted(make):
    parties = make(6)
    answers = next_answers(parties, Phase.UNMASK)
    message = Revealed.from_bytes(answers["c00"], LIMIT)
    answers["c00"] = replace(message, shares=bytes(SHARE_BYTES) + message.shares[SHARE_BYTES:]).to_bytes()
    for name, data in answers.items():
        assert parties.server.receive(name, data) is None
    parties.server.advance()
    np.testing.assert_array_equal(parties.server.result.total, parties.total(parties.names))
    assert parties.server.disputes == (("c00", "c01"),)


def test_shares_that_do_not_open_are_disputed_and_the_rest_suffices(make):
    parties = make(6)
    answers = next_answers(parties, Phase.SHARE)
    message = SealedShares.from_bytes(answers["c02"], LIMIT)
    answers["c02"] = replace(message, sealed=bytes(80) + message.sealed[80:]).to_bytes()
    for name, data in answers.items():
        assert parties.server.receive(name, data) is None
    parties.requests = parties.server.advance()
    parties.until(Phase.DONE)
    np.testing.assert_array_equal(parties.server.result.total, parties.total(parties.names))
    assert parties.server.disputes == (("c00", "c02"),)


class WrongDealer(Client):
    """It commits to shares of other secrets than its own."""

    def _sealed_shares(self):
        self._seed, seed = bytes(32), self._seed
        sealed = super()._sealed_shares()
        self._seed = seed
        return replace(sealed, seed_commitment=bytes(32))


def test_a_dealer_of_wrong_shares_is_named(make):
    parties = make(5)
    parties.clients["c02"] = WrongDealer(parties.session, "c02", parties.keys["c02"], parties.table)
    parties.until(Phase.UNMASK)
    with pytest.raises(AggregationAborted, match="the shares that 'c02' dealt are not of its secret"):
        parties.play()


def test_a_dealer_of_a_wrong_key_is_named_once_it_drops_out(make):
    parties = make(5)

    class WrongKey(Client):
        def _sealed_shares(self):
            self._mask_secret, secret = self._cipher_secret, self._mask_secret
            sealed = super()._sealed_shares()
            self._mask_secret = secret
            return sealed

    parties.clients["c02"] = WrongKey(parties.session, "c02", parties.keys["c02"], parties.table)
    parties.until(Phase.MASK).play(without=["c02"])
    parties.until(Phase.UNMASK)
    with pytest.raises(AggregationAborted, match="the shares that 'c02' dealt"):
        parties.play()


def test_a_dealer_whose_shares_open_for_too_few_is_named(make):
    parties = make(5)
    answers = next_answers(parties, Phase.SHARE)
    message = SealedShares.from_bytes(answers["c02"], LIMIT)
    answers["c02"] = replace(message, sealed=bytes(240) + message.sealed[240:]).to_bytes()
    for name, data in answers.items():
        parties.server.receive(name, data)
    parties.requests = parties.server.advance()
    parties.until(Phase.UNMASK)
    with pytest.raises(AggregationAborted, match="expected 2 shares of a secret of 'c02', got 1"):
        parties.play()


def test_a_share_of_somebody_unconnected_is_rejected(make):
    parties = make(5)
    answers = next_answers(parties, Phase.UNMASK)
    message = Revealed.from_bytes(answers["c00"], LIMIT)
    more = Revealed((*message.dealers, 77), message.shares + bytes(SHARE_BYTES))
    assert code(parties, "c00", more.to_bytes()) == "malformed"


def test_an_identity_that_nobody_knows_takes_no_part(make):
    parties = make(3)
    key = Ed25519PrivateKey.generate()
    stranger = Client(parties.session, "x", key, {"x": key.public_key().public_bytes_raw()})
    assert code(parties, "x", stranger.advertise()) == "unknown"
