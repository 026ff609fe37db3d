"""What a phone does, in Python: sign a chunk of a gradient with the P-256 key of a secure element.

python mobile_signer.py https://coordinator:8470 matl_inv_... phone-7

Only the package `cryptography` is needed; every step is a few lines of Kotlin or Swift as well.
"""

# --8<-- [start:example]
import base64
import hashlib
import json
import sys
import time
import urllib.request

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

url, invitation, name = sys.argv[1:]  # a name that nobody else has
key = ec.generate_private_key(ec.SECP256R1())  # a phone's never leaves its secure element
public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signed(text):
    """ECDSA with SHA-256, in DER and base64."""
    return base64.b64encode(key.sign(text.encode(), ec.ECDSA(SHA256()))).decode()


def ask(path, body=None, **headers):
    """What the coordinator answers, from JSON."""
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url + path, content, headers)  # noqa: S310 - ours
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return json.load(answer)


# Once: become a client. Lines of a text are joined by one newline, with none at the end.
challenge = ask("/v1/challenge", {})["challenge"]
text = f"""matl-enrolment/1
client_id={name}
key={hashlib.sha256(public).hexdigest()}
invitation={hashlib.sha256(invitation.encode()).hexdigest()}
challenge={challenge}"""
enrolled = ask(
    "/v1/clients",
    {
        "client_id": name,
        "key": base64.b64encode(public).decode(),
        "token": invitation,
        "challenge": challenge,
        "signature": signed(text),
    },
)
bearer = {"Authorization": "Bearer " + enrolled["session"]["token"]}
print(f"enrolled as {name} with the key {enrolled['fingerprint'][:12]}")

# In every round: sign a chunk of the gradient (version 1 of the text).
run = ask("/v1/runs", **bearer)[0]["id"]
now = ask(f"/v1/runs/{run}/rounds/current", **bearer)
chunk = base64.b64encode(bytes(range(256))).decode()  # float32 values, little endian
moment = time.time_ns() // 1_000_000
text = f"""round={now["number"]}
node_id={name}
model_hash={now["model_hash"]}
gradient_chunk_b64={chunk}
timestamp_unix_ms={moment}"""
chunk_signed = {
    "round": now["number"],
    "node_id": name,
    "model_hash": now["model_hash"],
    "gradient_chunk_b64": chunk,
    "timestamp_unix_ms": moment,
    "signature": signed(text),
}
for attempt in ("the chunk", "the same again", "another chunk under its signature"):
    if attempt.startswith("another"):
        chunk_signed["gradient_chunk_b64"] = base64.b64encode(b"changed!").decode()
    answer = ask("/mobile/verify_gradient", chunk_signed)
    told = "verified" if answer["verified"] else f"refused, {answer['reason']}"
    print(f"{attempt}: {told}")
# --8<-- [end:example]
