"""The vectors of identities, as another language would use them: what is good passes, and nothing else does."""

import base64
import hashlib
import json
import runpy
from pathlib import Path

import pytest

from matl.attest.enrolment import EnrolmentText
from matl.attest.keys import PublicKey, SigningKey
from matl.attest.receipts import verify_receipt
from matl.attest.texts import ChunkText, UpdateText
from matl.errors import ProtocolError
from matl.state import digest

FOLDER = Path(__file__).parents[1] / "vectors"
KEYS, V1, V2, ENROLMENT, RECEIPTS = (
    json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    for name in ("keys", "update_v1", "update_v2", "enrolment", "receipts")
)
PUBLIC = {name: PublicKey(bytes.fromhex(key["public_key_der_hex"])) for name, key in KEYS["keys"].items()}
KINDS = [(V1, ChunkText), (V2, UpdateText)]


def why(row):
    return row["why"] if isinstance(row, dict) else None


def test_the_files_are_those_that_the_script_makes():
    made = runpy.run_path(str(FOLDER / "make_identities.py"))
    for name in made["FILES"]:
        assert made["content"](name) == (FOLDER / name).read_text("utf-8"), name


@pytest.mark.parametrize("name", KEYS["keys"])
def test_a_key_is_read(name, tmp_path):
    row, key = KEYS["keys"][name], PUBLIC[name]
    assert (key.algorithm, key.fingerprint) == (row["algorithm"], row["fingerprint"])
    assert key.pem.decode() == row["public_key_pem"]
    path = tmp_path / "key.pem"
    path.touch(0o600)
    path.write_text(row["private_key_pem"])
    assert SigningKey.load(path).public == key


@pytest.mark.parametrize("row", KEYS["refused"], ids=why)
def test_another_key_is_refused(row):
    with pytest.raises(ProtocolError) as error:
        PublicKey(bytes.fromhex(row["public_key_der_hex"]))
    assert error.value.code == "key"


@pytest.mark.parametrize(("vectors", "kind"), [*KINDS, (ENROLMENT, EnrolmentText)])
def test_a_good_text_is_read_written_and_verified(vectors, kind):
    for row in vectors["texts"]:
        text = row["text"].encode()
        fields = {key: value for key, value in row["fields"].items() if key != "gradient_chunk_b64"}
        if kind is ChunkText:
            fields["chunk"] = base64.b64decode(row["fields"]["gradient_chunk_b64"])
        assert kind(**fields).to_bytes() == text
        assert kind.parse(text) == kind(**fields)
        assert hashlib.sha256(text).hexdigest() == row["sha256"]
        assert PUBLIC[row["key"]].verify(base64.b64decode(row["signature_base64"]), text)


def test_no_text_is_one_of_another_kind():
    texts = {kind: vectors["texts"][0]["text"].encode() for vectors, kind in [*KINDS, (ENROLMENT, EnrolmentText)]}
    for kind in texts:
        for other, text in texts.items():
            if kind is not other:
                with pytest.raises(ProtocolError):
                    kind.parse(text)


@pytest.mark.parametrize(
    ("kind", "row"), [(kind, row) for vectors, kind in KINDS for row in vectors["malformed_texts"]], ids=why
)
def test_a_malformed_text_is_refused(kind, row):
    with pytest.raises(ProtocolError) as error:
        kind.parse(base64.b64decode(row["text_base64"]))
    assert error.value.code in {"malformed", "size"}
    assert str(error.value).isascii()  # and so shows no trick of Unicode to whoever reads a log
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("row", [*V1["bad_signatures"], *V2["bad_signatures"]], ids=why)
def test_a_bad_signature_is_refused(row):
    assert not PUBLIC[row["key"]].verify(base64.b64decode(row["signature_base64"]), row["text"].encode())


def test_the_other_s_of_an_ecdsa_signature_is_good_too():
    (row,) = V1["also_good"]
    assert row["signature_base64"] != V1["texts"][0]["signature_base64"]
    assert PUBLIC[row["key"]].verify(base64.b64decode(row["signature_base64"]), row["text"].encode())


def test_the_digest_of_evidence():
    assert digest(V2["evidence"]["evidence"]) == V2["evidence"]["evidence_hash"]


@pytest.mark.parametrize("row", RECEIPTS["receipts"])
def test_a_good_receipt_is_verified(row):
    receipt = verify_receipt(row["file"].encode(), [PUBLIC[name] for name in RECEIPTS["trusted"]])
    lines = dict(line.split("=", 1) for line in receipt.to_bytes().decode().split("\n")[1:])
    assert lines == row["fields"]
    assert receipt.signer == PUBLIC[row["key"]].fingerprint


@pytest.mark.parametrize("row", RECEIPTS["refused"], ids=why)
def test_a_forged_receipt_is_refused(row):
    with pytest.raises(ProtocolError) as error:
        verify_receipt(row["file"].encode(), [PUBLIC[name] for name in RECEIPTS["trusted"]])
    assert error.value.code == row["code"]
