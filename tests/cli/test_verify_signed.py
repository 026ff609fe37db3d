"""``matl verify receipt`` and ``matl verify audit``: what is signed or chained, checked from the file alone."""

import base64
import json

import pytest

from matl.attest.audit_log import AuditLog
from matl.attest.keys import SigningKey
from matl.attest.receipts import Receipt, sign_receipt
from matl.cli.exit_codes import ExitCode
from matl.records import Status

KEY = SigningKey.generate()
RECEIPT = Receipt(
    run="demo", round=3, client_id="alice", model_hash="ab" * 32, update_hash="cd" * 32, status=Status.QUARANTINED,
    score=0.25, weight=0.0, policy_hash="ef" * 32, hardware_root=False, signer=KEY.public.fingerprint,
    timestamp_unix_ms=1700000000000,
)  # fmt: skip


@pytest.fixture
def written(tmp_path):
    (tmp_path / "receipt.json").write_bytes(sign_receipt(RECEIPT, KEY))
    (tmp_path / "key.pem").write_bytes(KEY.public.pem)
    with AuditLog.create(tmp_path / "audit.log") as log:
        log.append("carol", "revoke", "mallory", {"reason": "key stolen"})
        log.append("carol", "undo", "2")
        return log.head


def test_a_receipt_says_what_was_decided(run, written):
    done = run("verify", "receipt", "receipt.json", "--key", "key.pem")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == "alice in round 3 of demo: quarantined, weight 0, score 0.25"
    assert "2023-11-14 22:13:20 UTC" in done.out
    assert "hardware root  no" in done.out
    given = base64.b64encode(KEY.public.der).decode()
    found = run("verify", "receipt", "receipt.json", "--key", given, "--json").json
    assert (found["status"], found["client_id"], found["hardware_root"]) == ("quarantined", "alice", False)


def test_a_receipt_of_another_key_or_changed_is_refused(run, written, tmp_path):
    other = base64.b64encode(SigningKey.generate().public.der).decode()
    run("verify", "receipt", "receipt.json", "--key", other).refused(ExitCode.USAGE, "none of the trusted keys")
    content = json.loads((tmp_path / "receipt.json").read_bytes())
    content["receipt"] = content["receipt"].replace("quarantined", "accepted")
    (tmp_path / "receipt.json").write_text(json.dumps(content))
    run("verify", "receipt", "receipt.json", "--key", "key.pem").refused(ExitCode.USAGE, "changed or forged")
    run("verify", "receipt", "none.json", "--key", "key.pem").refused(ExitCode.USAGE, "none.json cannot be read")
    run("verify", "receipt", "receipt.json", "--key", "none.pem").refused(ExitCode.USAGE, "expected --key as a PEM")


def test_the_private_key_is_not_asked_for(run, written, tmp_path):
    KEY.save(tmp_path / "receipts.pem")
    done = run("verify", "receipt", "receipt.json", "--key", "receipts.pem")
    done.refused(ExitCode.USAGE, "receipts.pem is the private one", "as receipts.pub.pem does to receipts.pem")


def test_an_audit_log_is_printed_with_what_to_remember(run, written):
    done = run("verify", "audit", "audit.log")
    assert (done.code, done.err) == (0, "")
    assert "carol  revoke  mallory  reason='key stolen'" in done.out
    assert done.out.splitlines()[-1] == f"{written.records}:{written.chain}"
    again = run("verify", "audit", "audit.log", "--witness", done.out.splitlines()[-1], "--json")
    assert [entry["action"] for entry in again.json["entries"]] == ["revoke", "undo"]


def test_an_audit_log_that_was_changed_or_rolled_back_is_refused(run, written, tmp_path):
    before = f"{written.records}:{written.chain}"
    content = (tmp_path / "audit.log").read_bytes()
    (tmp_path / "audit.log").write_bytes(content.replace(b"stolen", b"mislaid"))
    damaged = run("verify", "audit", "audit.log")
    damaged.refused(ExitCode.STATE, "damaged: record 2", "compare it with a copy: that of a backup")
    assert "budget" not in damaged.err
    run("verify", "audit", "none.log").refused(ExitCode.USAGE, "there is no such file")
    for name in ("audit.log", "audit.log.head"):
        (tmp_path / name).unlink()
    AuditLog.create(tmp_path / "audit.log").close()
    assert run("verify", "audit", "audit.log").code == 0
    assert run("verify", "audit", "audit.log", "--witness", before).code == ExitCode.STATE
    run("verify", "audit", "audit.log", "--witness", "x").refused(ExitCode.USAGE, "expected --witness as RECORDS:CHAIN")
