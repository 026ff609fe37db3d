"""Who is let in, as whom, and until when."""

import asyncio
import base64
import hashlib
import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.coordinator.service_kit import Kit, serving

from matl.attest.attesting import AttestationText
from matl.attest.claims import Claims
from matl.attest.enrolment import EnrolmentRequest
from matl.attest.keys import SigningKey
from matl.attest.session import SessionText
from matl.attest.tokens import Scope
from matl.coordinator import owning
from matl.coordinator.access import Caller
from matl.coordinator.attestations import Attestation
from matl.coordinator.keys import Keys
from matl.errors import AttestationError, ServiceError, StateError, StorageError
from matl.protocol.messages import AttestationRequest, InviteRequest, SessionRequest, TokenRequest


async def refused(asking, code, reason=None):
    with pytest.raises(ServiceError) as caught:
        await asking
    assert caught.value.code == code, caught.value
    if reason is not None:
        assert caught.value.reason == reason, caught.value
    return caught.value


def named(caller):
    return caller.kind, caller.name, caller.scope


def test_the_first_operator_token_lies_in_the_folder_for_its_owner_alone_and_is_made_once(tmp_path):
    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            token = kit.bearer["Authorization"]
            assert named(await kit.service.authenticate(token)) == ("operator", "admin", Scope.ADMIN)
            first = (await kit.service.audit(kit.admin)).entries[0]
            assert (first.actor, first.action, first.subject) == ("coordinator", "issue_token", "admin")
        async with kit.open():
            assert kit.bearer["Authorization"] == token
            assert len(await kit.service.tokens(kit.admin)) == 1

    asyncio.run(scenario())
    for name in ("admin.token", "receipts.pem", "coordinator.secret", "audit.log"):
        assert stat.S_IMODE((tmp_path / "keep" / name).stat().st_mode) == 0o600, name


def test_an_owner_whose_token_ends_is_warned_and_never_shut_out(tmp_path, caplog):
    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            first = kit.bearer["Authorization"]
        kit.clock.ahead += 70 * 86_400
        async with kit.open():
            pass
        assert "admin" not in caplog.text
        kit.clock.ahead += 9.5 * 86_400
        async with kit.open():
            assert kit.bearer["Authorization"] == first
        assert "ends in 10 days: matl token rotate" in caplog.text
        kit.clock.ahead += 11 * 86_400
        async with kit.open():
            assert kit.bearer["Authorization"] != first
            await refused(kit.service.authenticate(first), "unauthenticated", "token")
            caller = await kit.service.authenticate(kit.bearer["Authorization"])
            assert caller.scope is Scope.ADMIN

    asyncio.run(scenario())


@pytest.mark.parametrize("content", [None, "", "nonsense\n", "matl_op_" + "A" * 43, "x" * 5000, "\N{SNOWMAN}"])
def test_an_owner_who_lost_the_token_finds_another_after_the_next_start(tmp_path, content):
    async def scenario():
        kit, file = Kit(tmp_path), tmp_path / "keep" / "admin.token"
        async with kit.open():
            first = kit.bearer["Authorization"]
        if content is None:
            file.unlink()
        else:
            file.write_text(content, "utf-8")
        async with kit.open():
            caller = await kit.service.authenticate(kit.bearer["Authorization"])
            assert (caller.scope, len(await kit.service.tokens(kit.admin))) == (Scope.ADMIN, 2)
            await kit.service.authenticate(first)  # it may be in use somewhere
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    asyncio.run(scenario())


def test_a_token_of_less_scope_is_no_owners(tmp_path):
    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            carols = await kit.service.issue_token(kit.admin, TokenRequest(name="carol", scope="operator"))
        (tmp_path / "keep" / "admin.token").write_text(carols.secret)
        async with kit.open():
            assert (await kit.service.authenticate(kit.bearer["Authorization"])).scope is Scope.ADMIN

    asyncio.run(scenario())


def test_the_owners_token_is_rotated_in_the_folder_too_and_others_are_not(tmp_path, monkeypatch, caplog):
    async def scenario():
        kit, file = Kit(tmp_path), tmp_path / "keep" / "admin.token"
        async with kit.open():
            first = kit.bearer["Authorization"]
            (own,) = await kit.service.tokens(kit.admin)
            made = await kit.service.rotate_token(kit.admin, own.id)
            assert kit.bearer["Authorization"] == f"Bearer {made.secret}" != first
            assert (await kit.service.authenticate(kit.bearer["Authorization"])).scope is Scope.ADMIN
            await refused(kit.service.authenticate(first), "unauthenticated", "token")
            carols = await kit.service.issue_token(kit.admin, TokenRequest(name="carol", scope="admin"))
            await kit.service.rotate_token(kit.admin, carols.id)
            assert file.read_text().strip() == made.secret

            def full(path, secret):
                raise StorageError("the disk is full")

            monkeypatch.setattr(owning, "write_private", full)
            again = await kit.service.rotate_token(kit.admin, made.id)  # which is done, and so is answered
            await kit.service.authenticate(f"Bearer {again.secret}")
            assert "the next start makes another: the disk is full" in caplog.text
            monkeypatch.undo()
        async with kit.open():
            await kit.service.authenticate(kit.bearer["Authorization"])
        assert not any(secret in caplog.text for secret in (made.secret, again.secret))

    asyncio.run(scenario())


def test_who_invites_does_not_take_over_clients(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            await kit.enrol("ann")
            await kit.service.revoke(kit.admin, "ann", "stolen")
            carol = Caller("operator", "carol", Scope.OPERATOR)
            await kit.service.invite(carol, InviteRequest(client_id="bob"))
            asked = InviteRequest(client_id="ann", replaces=True)
            await refused(kit.service.invite(carol, asked), "forbidden")
            assert (await kit.service.invite(kit.admin, asked)).token

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer ünïcode",
        "Bearer " + "x" * 600,
        "Basic YWRtaW46YWRtaW4=",
        "Bearer matl_op_" + "A" * 43,
        "Bearer matl_cl_ann.9.x",
        "Bearer matl_cl_ann.99999999999999." + "A" * 43,
        "Bearer matl_cl_nobody.99999999999999." + "A" * 43,
    ],
)
def test_what_is_no_token_lets_nobody_in(tmp_path, header):
    async def scenario():
        async with serving(tmp_path) as kit:
            await kit.enrol("ann")
            error = await refused(kit.service.authenticate(header), "unauthenticated", "token")
            assert "A" * 43 not in str(error)

    asyncio.run(scenario())


def test_nobody_is_anonymous_and_a_session_is_of_the_client_that_enrolled(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann = await kit.enrol("ann.of:the-hill@1")  # an id with all that an id may hold
            await kit.enrol("ann")
            assert named(await kit.service.authenticate(None)) == ("anonymous", "", None)
            caller = await kit.service.authenticate(ann.bearer["Authorization"], address="10.0.0.1")
            assert (named(caller), caller.address) == (("client", "ann.of:the-hill@1", None), "10.0.0.1")
            for index in (20, len(ann.token) - 1):  # any other character
                other = ann.token[:index] + ("A" if ann.token[index] != "A" else "B") + ann.token[index + 1 :]
                await refused(kit.service.authenticate(f"Bearer {other}"), "unauthenticated")
            for other in (ann.token.replace(".of:the-hill@1", ""), ann.token.replace("matl_cl_", "matl_op_")):
                await refused(kit.service.authenticate(f"Bearer {other}"), "unauthenticated")

    asyncio.run(scenario())


def test_a_session_ends_after_an_hour_with_a_revocation_and_with_a_change_of_keys(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, bob = await kit.enrol("ann"), await kit.enrol("bob")
            kit.clock.ahead = 3590
            await kit.service.authenticate(ann.bearer["Authorization"])
            kit.clock.ahead = 3610
            await refused(kit.service.authenticate(ann.bearer["Authorization"]), "unauthenticated")
            ann.token = (await session(kit, ann)).token
            await kit.service.authenticate(ann.bearer["Authorization"])

            await kit.service.revoke(kit.admin, "ann", "key stolen")
            await refused(kit.service.authenticate(ann.bearer["Authorization"]), "unauthenticated")
            await refused(session(kit, ann), "forbidden", "revoked")
            renewed = await kit.enrol("ann", client_id="ann", replaces=True)
            await refused(kit.service.authenticate(ann.bearer["Authorization"]), "unauthenticated")
            await kit.service.authenticate(renewed.bearer["Authorization"])

            old = (await session(kit, bob)).token
            await kit.enrol("bob", client_id="bob", replaces=True)
            await refused(kit.service.authenticate(f"Bearer {old}"), "unauthenticated")

    asyncio.run(scenario())


async def session(kit, client, **changes):
    challenge = changes.get("challenge") or (await kit.service.challenge()).challenge
    text = SessionText(client_id=changes.get("signs_for", client.id), challenge=challenge).to_bytes()
    signature = base64.b64encode(changes.get("key", client.key).sign(text)).decode()
    return await kit.service.session(SessionRequest(client_id=client.id, challenge=challenge, signature=signature))


def test_a_session_needs_the_enrolled_key_and_a_challenge_of_ours(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann = await kit.enrol("ann")
            bob = await kit.enrol("bob")
            await refused(session(kit, ann, key=bob.key), "unauthenticated", "signature")
            await refused(session(kit, ann, signs_for="bob"), "unauthenticated", "signature")
            await refused(session(kit, ann, challenge="ab" * 56), "unauthenticated", "challenge")
            ann.id = "nobody"
            await refused(session(kit, ann), "unauthenticated", "signature")

    asyncio.run(scenario())


def test_enrolling_twice_is_the_same_answer_and_uses_nothing_up(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            token = (await kit.service.invite(kit.admin, InviteRequest(uses=2))).token
            key = SigningKey.generate()
            first = await kit.service.enrol(await kit.request("ann", key, token))
            again = await kit.service.enrol(await kit.request("ann", key, token))
            assert (first.client_id, first.fingerprint) == (again.client_id, again.fingerprint)
            assert [one.uses_left for one in await kit.service.invitations(kit.admin)] == [1]
            told = [event.kind for event in (await kit.service.events(kit.admin)).events]
            done = [entry.action for entry in (await kit.service.audit(kit.admin)).entries]
            assert (told.count("client_enrolled"), done.count("enrol")) == (1, 1)

            other = SigningKey.generate()
            await refused(kit.service.enrol(await kit.request("ann", other, token)), "conflict", "enrolled")
            await refused(kit.service.enrol(await kit.request("bob", key, token)), "conflict", "key_in_use")
            wrong = await kit.request("bob", other, token)
            await refused(
                kit.service.enrol(wrong.model_copy(update={"client_id": "cid"})), "unauthenticated", "signature"
            )
            await refused(kit.service.enrol(wrong.model_copy(update={"key": "AAAA"})), "malformed", "key")
            await refused(kit.service.enrol(wrong.model_copy(update={"signature": "A"})), "malformed", "signature")
            await refused(kit.service.invite(kit.admin, InviteRequest(lifetime_hours=1e-300)), "invalid")
            fake = "matl_inv_" + "A" * 43
            await refused(kit.service.enrol(await kit.request("bob", other, fake)), "unauthenticated", "invitation")
            await kit.service.enrol(await kit.request("bob", other, token))
            await refused(
                kit.service.enrol(await kit.request("cid", SigningKey.generate(), token)),
                "unauthenticated",
                "invitation",
            )

    asyncio.run(scenario())


def test_who_is_known_outlives_the_process_and_sessions_do_too(tmp_path):
    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            ann = await kit.enrol("ann")
            bob = await kit.enrol("bob")
            await kit.service.revoke(kit.admin, "bob")
        async with kit.open():
            assert named(await kit.service.authenticate(ann.bearer["Authorization"])) == ("client", "ann", None)
            await refused(kit.service.authenticate(bob.bearer["Authorization"]), "unauthenticated")
        (tmp_path / "keep" / "coordinator.secret").unlink()
        async with kit.open():  # as its message says, sessions end then
            await refused(kit.service.authenticate(ann.bearer["Authorization"]), "unauthenticated")

    asyncio.run(scenario())


def certificate(key: Ed25519PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(key, None).public_bytes(Encoding.DER)


def test_a_certificate_stands_for_the_client_whose_key_is_in_it_and_for_nobody_else(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            private = Ed25519PrivateKey.generate()
            ann, bob = await kit.enrol("ann", SigningKey(private)), await kit.enrol("bob")
            shown = certificate(private)
            assert named(await kit.service.authenticate(None, certificate=shown)) == ("client", "ann", None)
            strange = certificate(Ed25519PrivateKey.generate())  # its name says admin, which nobody believes
            assert named(await kit.service.authenticate(None, certificate=strange))[0] == "anonymous"
            await kit.service.authenticate(ann.bearer["Authorization"], certificate=shown)
            await refused(kit.service.authenticate(bob.bearer["Authorization"], certificate=shown), "unauthenticated")
            operator = await kit.service.authenticate(kit.bearer["Authorization"], certificate=strange)
            assert operator.kind == "operator"
            newer = shown.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020107"), 1)  # version 8 of X.509
            for bad in (b"junk", newer):
                await refused(kit.service.authenticate(None, certificate=bad), "unauthenticated", "certificate")
            await kit.service.revoke(kit.admin, "ann")
            assert named(await kit.service.authenticate(None, certificate=shown))[0] == "anonymous"

    asyncio.run(scenario())


def test_tokens_are_issued_rotated_and_revoked_and_the_last_admin_stays(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            made = await kit.service.issue_token(kit.admin, TokenRequest(name="carol", scope="viewer", lifetime_days=1))
            carol = await kit.service.authenticate(f"Bearer {made.secret}")
            assert named(carol) == ("operator", "carol", Scope.VIEWER)
            assert made.secret not in (tmp_path / "keep" / "audit.log").read_text()
            await refused(kit.service.tokens(carol), "forbidden")
            at_once = TokenRequest(name="dan", scope="viewer", lifetime_days=1e-300)
            await refused(kit.service.issue_token(kit.admin, at_once), "invalid", "token")
            rotated = await kit.service.rotate_token(kit.admin, made.id)
            await refused(kit.service.authenticate(f"Bearer {made.secret}"), "unauthenticated")
            await kit.service.authenticate(f"Bearer {rotated.secret}")
            await kit.service.revoke_token(kit.admin, rotated.id)
            await refused(kit.service.authenticate(f"Bearer {rotated.secret}"), "unauthenticated")
            await refused(kit.service.revoke_token(kit.admin, rotated.id), "not_found", "token")
            last = next(one for one in await kit.service.tokens(kit.admin) if one.scope == "admin")
            await refused(kit.service.revoke_token(kit.admin, last.id), "conflict", "last_admin")

            made = await kit.service.issue_token(kit.admin, TokenRequest(name="dave", scope="admin", lifetime_days=1))
            kit.clock.ahead = 90_000
            await refused(kit.service.authenticate(f"Bearer {made.secret}"), "unauthenticated")
            await refused(kit.service.revoke_token(kit.admin, last.id), "conflict", "last_admin")  # dave's has ended

    asyncio.run(scenario())


SCOPES = {
    "runs": (Scope.VIEWER, lambda s, c: s.runs(c)),
    "clients": (Scope.VIEWER, lambda s, c: s.clients(c)),
    "invitations": (Scope.VIEWER, lambda s, c: s.invitations(c)),
    "audit": (Scope.VIEWER, lambda s, c: s.audit(c)),
    "metrics": (Scope.VIEWER, lambda s, c: s.metrics(c)),
    "export": (Scope.VIEWER, lambda s, c: s.export(c, "demo")),
    "invite": (Scope.OPERATOR, lambda s, c: s.invite(c, InviteRequest())),
    "invite to replace": (Scope.ADMIN, lambda s, c: s.invite(c, InviteRequest(client_id="ann", replaces=True))),
    "validate": (Scope.OPERATOR, lambda s, c: s.validate(c, "demo", [])),
    "pause": (Scope.OPERATOR, lambda s, c: s.pause(c, "demo")),
    "resume": (Scope.OPERATOR, lambda s, c: s.resume(c, "demo")),
    "quarantine": (Scope.OPERATOR, lambda s, c: s.quarantine(c, None, "ann")),
    "release": (Scope.OPERATOR, lambda s, c: s.release(c, None, "ann")),
    "undo": (Scope.ADMIN, lambda s, c: s.undo(c, 1)),
    "revoke": (Scope.ADMIN, lambda s, c: s.revoke(c, "ann")),
    "tokens": (Scope.ADMIN, lambda s, c: s.tokens(c)),
    "issue_token": (Scope.ADMIN, lambda s, c: s.issue_token(c, TokenRequest(name="x", scope="admin"))),
    "rotate_token": (Scope.ADMIN, lambda s, c: s.rotate_token(c, "x")),
    "revoke_token": (Scope.ADMIN, lambda s, c: s.revoke_token(c, "x")),
    "stop": (Scope.OPERATOR, lambda s, c: s.stop(c, "demo")),
}


def test_every_call_needs_its_scope_and_changes_nothing_without_it(tmp_path):
    async def outcome(asking):
        try:
            await asking
        except ServiceError as error:
            return error.code
        return "ok"

    async def scenario():
        async with serving(tmp_path) as kit:
            await kit.enrol("ann")
            await kit.start()
            lines = (await kit.service.audit(kit.admin)).records
            for name, (scope, call) in SCOPES.items():
                assert await outcome(call(kit.service, Caller())) == "unauthenticated", name
                if name != "runs":
                    assert await outcome(call(kit.service, Caller("client", "ann"))) == "forbidden", name
                for less in Scope:
                    if less < scope:
                        assert await outcome(call(kit.service, Caller("operator", "o", less))) == "forbidden", name
            assert (await kit.service.audit(kit.admin)).records == lines
            assert (await kit.service.run(kit.admin, "demo")).status == "running"
            for name, (scope, call) in SCOPES.items():
                told = await outcome(call(kit.service, Caller("operator", "o", scope)))
                assert told not in ("forbidden", "unauthenticated"), name

    asyncio.run(scenario())


class Says:
    """A verifier that believes evidence which names its nonce and, if it is long enough, its key."""

    format = "says"

    def verify(self, evidence, nonce, policy, clock=None):
        if not evidence.startswith(nonce):
            raise AttestationError("nonce", "the evidence answers another nonce")
        key = evidence[len(nonce) :] or None
        return Claims(format="says", hardware_root=policy, measurement="77" * 32, key=key, report_data=nonce)


class Mute(Says):
    """One whose evidence binds nothing."""

    def verify(self, evidence, nonce, policy, clock=None):
        return Claims(format="mute", hardware_root=True, measurement="77" * 32, key=b"another")


def test_evidence_is_checked_and_kept_at_enrolment(tmp_path):
    async def scenario():
        known = {"says": Attestation(Says(), True), "mute": Attestation(Mute(), None)}
        async with serving(tmp_path, attestation=known) as kit:
            token = (await kit.service.invite(kit.admin, InviteRequest(uses=9))).token
            key = SigningKey.generate()
            request = await kit.request("ann", key, token)
            nonce = nonce_of(request)

            def with_evidence(kind, data):
                return kit.service.enrol(
                    request.model_copy(update={"evidence": {kind: base64.b64encode(data).decode()}})
                )

            await refused(with_evidence("says", b"x" * 32), "invalid", "nonce")
            uninvited = await kit.request("bob", SigningKey.generate(), "matl_inv_" + "A" * 43)
            uninvited = uninvited.model_copy(update={"evidence": {"says": ""}})
            await refused(kit.service.enrol(uninvited), "unauthenticated", "invitation")  # before it is looked at
            await refused(with_evidence("other", nonce), "invalid", "format")
            await refused(with_evidence("mute", b"x"), "invalid", "attestation")
            assert await kit.service.clients(kit.admin) == []
            await with_evidence("says", nonce)
            (ann,) = await kit.service.clients(kit.admin)
            assert ann.hardware_root
            assert ann.attestation == {"format": "says", "hardware_root": True, "measurement": "77" * 32}

    asyncio.run(scenario())


def nonce_of(request):
    asked = EnrolmentRequest(
        client_id=request.client_id, key=base64.b64decode(request.key), token=request.token, challenge=request.challenge
    )
    return hashlib.sha256(asked.text.to_bytes()).digest()


def test_a_client_presents_evidence_later_for_its_own_key_alone(tmp_path):
    async def scenario():
        known = {"says": Attestation(Says(), False), "mute": Attestation(Mute(), None)}
        async with serving(tmp_path, attestation=known) as kit:
            ann, bob = await kit.enrol("ann"), await kit.enrol("bob")

            async def present(client, kind="says", of=None, key=b""):
                challenge = (await kit.service.challenge()).challenge
                text = AttestationText(
                    client_id=(of or client).id, key=client.key.public.fingerprint, challenge=challenge
                )
                asked = AttestationRequest(
                    format=kind, challenge=challenge, evidence=base64.b64encode(text.nonce + key).decode()
                )
                return await kit.service.attest(client.caller, asked)

            view = await present(ann)
            assert (view.format, view.hardware_root, view.measurement) == ("says", False, "77" * 32)
            await present(ann, key=ann.key.public.der)
            events = (await kit.service.events(kit.admin)).events
            assert [event.kind for event in events].count("client_attested") == 1  # the same again is not news
            await refused(present(ann, of=bob), "invalid", "nonce")
            await refused(present(bob, kind="mute"), "invalid", "attestation")
            await refused(
                kit.service.attest(kit.admin, AttestationRequest(format="says", challenge="x", evidence="")),
                "forbidden",
            )
            told = {one.client_id: one.attestation.get("format") for one in await kit.service.clients(kit.admin)}
            assert told == {"ann": "says", "bob": None}
            await kit.service.revoke(kit.admin, "ann")
            await refused(present(ann), "forbidden", "revoked")

    asyncio.run(scenario())


def test_keys_that_others_can_read_or_that_are_none_are_refused(tmp_path):
    Keys.of(tmp_path)
    secret = tmp_path / "coordinator.secret"
    secret.chmod(0o640)
    with pytest.raises(StateError, match="chmod 600"):
        Keys.of(tmp_path)
    secret.chmod(0o600)
    for wrong in ("zz", "ab" * 31):
        secret.write_text(wrong)
        with pytest.raises(StateError, match="holds no secret"):
            Keys.of(tmp_path)


def test_keys_for_different_purposes_differ(tmp_path):
    keys = Keys.of(tmp_path)
    assert len({keys.derived(name) for name in ("challenge", "session", "noise")} | {keys.secret}) == 4
    assert "secret" not in repr(keys).replace("Keys(", "")
