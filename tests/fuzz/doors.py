"""Decoders of what callers show at a door, of what an oracle says, and of files that operators bring."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError
from tests.attest.chains import NOW as THEN
from tests.attest.chains import p256, spki
from tests.attest.test_android import leaf_of
from tests.attest.test_revocation import crl
from tests.fuzz import samples

from matl.attest.enrolment import Roster
from matl.attest.measurement import Measurement
from matl.attest.revocation import read_crl
from matl.attest.software import sign_software
from matl.attest.tokens import Tokens
from matl.client.evidence import OraclePins, read_evidence
from matl.coordinator.access import Access
from matl.coordinator.attestations import Evidence
from matl.coordinator.http.frames import Hello, Ping
from matl.coordinator.keys import Keys
from matl.coordinator.rounds.overrides import Overrides
from matl.coordinator.storage import backup
from matl.coordinator.storage.schema import METADATA
from matl.coordinator.strict_json import parse
from matl.errors import MatlError
from matl.network import saving
from matl.network.settings import load_settings
from matl.oracle.http import _Parts
from matl.oracle.keys import OracleKeys
from matl.oracle.wire import LENGTH
from matl.protocol import oracle as said
from matl.simulation import load_config
from matl.simulation.config import toml_value
from matl.state import unpack

__all__ = ["targets"]

Row = tuple[Callable[[bytes], object], tuple[bytes, ...], tuple[type[Exception], ...], str]

# Callers


def _access() -> Access:
    """Who is let in at a coordinator where Alice is enrolled and Carol operates."""
    roster, tokens = Roster.of_state(unpack(samples.ROSTERS[0])), Tokens.of_state(unpack(samples.TOKENS[0]))
    kept = tuple(SimpleNamespace(value=value) for value in (roster, tokens, Overrides()))
    return Access(Keys(samples.KEY, bytes(32)), kept, lambda: samples.NOW, Evidence({}))  # type: ignore[arg-type]


_ED25519 = bytes.fromhex("06032b6570")  # the kind of a key
_V3 = bytes.fromhex("a003020102")  # the version of a certificate

ACCESS = _access()
ALICE = ACCESS.identity("alice")
SESSION = ACCESS.sessions.new(ALICE)[0].encode()  # type: ignore[arg-type]


def _authorization(data: bytes) -> object:
    return ACCESS.authenticate(data.decode("latin-1"))  # as HTTP reads headers


def _session(data: bytes) -> object:
    return ACCESS.sessions.read(data.decode("utf-8", "surrogateescape"), ACCESS.roster.value.identities.get)


def _certificate(data: bytes) -> object:
    return ACCESS.authenticate(None, certificate=data)


def _certificates() -> tuple[bytes, ...]:
    """One of Alice's key, and some of keys that nobody enrols with."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")])
    signer, made = p256(), []
    for key in (samples.KEY.ed25519, ed448.Ed448PrivateKey.generate(), ec.generate_private_key(ec.SECP521R1())):
        builder = x509.CertificateBuilder(name, name, key.public_key(), 7, THEN, THEN + timedelta(days=1))  # type: ignore[union-attr]
        made.append(builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER))
    unknown = made[0].replace(_ED25519, _ED25519[:-1] + b"\x73", 1)
    newer = made[0].replace(_V3, _V3[:-1] + b"\x07", 1)
    return *made, leaf_of(), unknown, newer


# The oracle

ISSUER = p256()
CONFIG = said.ConfigText(file=samples.HASH, run_config=samples.HASH)
POLICY = said.PolicyText(mode=samples.HASH, max_staleness=0, least_clients=3)
MEASUREMENT = Measurement.of(CONFIG.to_bytes(), POLICY.to_bytes(), parts=())
PINS = OraclePins(measurements=frozenset({MEASUREMENT.digest}), software=True)
NONCE = bytes(32)


def _evidence() -> bytes:
    """What an oracle says of itself, with everything right."""
    from base64 import b64encode

    keys = OracleKeys(MEASUREMENT.digest)
    proof = sign_software(MEASUREMENT, NONCE, keys.signing.public.der, samples.KEY)
    view = said.EvidenceView(
        format="software",
        evidence=b64encode(proof).decode(),
        keys=keys.text.to_bytes().decode(),
        keys_signature=b64encode(keys.signature).decode(),
        config=CONFIG.to_bytes().decode(),
        policy=POLICY.to_bytes().decode(),
        hardware_root=False,
    )
    return view.model_dump_json().encode()


def _known(data: bytes) -> object:
    return read_evidence(said.EvidenceView.model_validate_json(data), NONCE, PINS)


def _body(data: bytes) -> object:
    """A request for judgement, which arrives in pieces of seven bytes."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 7):
            yield data[at : at + 7]

    async def main() -> list[bytes]:
        parts = _Parts(pieces())
        found = [await parts.part(1 << 10) for _ in range(2)]
        await parts.end()
        return found

    return asyncio.run(main())


# Files


def _file(read: Callable[[Path], object], path: Path, data: bytes) -> object:
    path.write_bytes(data)
    return read(path)


def _in_toml(read: Callable[[Path], object], path: Path, data: bytes) -> object:
    """A file of values that are given as JSON: each can be exchanged for one of another kind."""
    try:
        values = json.loads(data)
        text = "\n".join(f"{key} = {toml_value(value)}" for key, value in values.items())
        path.write_text(text, "utf-8")
    except (ValueError, RecursionError, AttributeError):  # what no file of TOML can say
        return None
    return read(path)


TABLES = {name: {"rows": 3, "sha256": samples.HASH} for name in METADATA.tables}
STORE = {
    "format": backup._FORMAT,
    "schema": backup.NEWEST,
    "matl": "0.1.0",
    "tables": TABLES,
    "blobs": {samples.HASH: 7},
}
FILES = {"format": saving._FORMAT, "store": samples.HASH, "files": {"receipts.pem": samples.HASH}}
RUN = {
    "dataset": "digits", "clients": 4, "alpha": 0.5,
    "attack": {"name": "sleeper", "wake_round": 3, "attack": "scaling"},
    "local": {"steps": 3, "learning_rate": 0.1}, "privacy": {"epsilon": 3.0, "delta": 1e-5},
}  # fmt: skip
SETTINGS = {
    "folder": "state", "port": 8470, "trusted_proxies": ["10.0.0.0/8"],
    "attestation": {"require": False, "list_days": 3.0, "software": {"measurements": [samples.HASH]}},
    "runs": {"demo": {
        "dataset": "digits", "clients": 3,
        "network": {"deadline": 60.0, "oracle": {
            "url": "https://oracle.example", "token_file": "token", "measurements": [samples.HASH], "software": True,
            "revoked": [7], "pcrs": {"7": [samples.HASH]},
        }},
    }},
}  # fmt: skip


def _toml(values: dict[str, Any]) -> bytes:
    return "\n".join(f"{key} = {toml_value(value)}" for key, value in values.items()).encode()


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode()


def targets(folder: Path) -> dict[str, Row]:
    """Decoder, samples, what it may raise, and the form of the samples, by name; files are written in the folder."""
    ours = (MatlError,)
    config, settings = partial(load_config, overrides={}), load_settings
    views = said.KeysView, said.EvidenceView, said.IdentityView, said.Activation
    authority = ISSUER
    return {
        "session": (_session, (SESSION,), ours, "bytes"),
        "authorization": (_authorization, (b"Bearer " + SESSION, b"bearer " + samples.SECRET), ours, "bytes"),
        "certificate": (_certificate, _certificates(), ours, "bytes"),
        "websocket.Hello": (partial(parse, Hello), (b'{"type": "hello", "token": "a", "after": 3}',), ours, "json"),
        "websocket.Ping": (partial(parse, Ping), (b'{"type": "ping"}',), ours, "json"),
        **{
            f"oracle.{kind.__name__}": (kind.model_validate_json, (_said(kind),), (ValidationError,), "json")
            for kind in views
        },
        "oracle.ActivationRequest": (partial(parse, said.ActivationRequest), (b'{"blob": "AAAA"}',), ours, "json"),
        "oracle.evidence": (_known, (_evidence(),), (ValidationError, MatlError), "json"),
        "oracle.body": (_body, ((3).to_bytes(LENGTH, "big") + b"abc" + bytes(LENGTH),), ours, "bytes"),
        "revocation.crl": (
            lambda data: read_crl(data, [spki(authority)]),
            (crl(authority, [7, 2**159 - 7]), crl(authority)),
            ours,
            "bytes",
        ),
        "backup": (partial(_file, lambda path: backup._manifest(path.parent, None), folder / "manifest.json"),
                   (_json(STORE),), ours, "json"),
        "backup.coordinator": (partial(_file, lambda path: saving._manifest(path.parent), folder / saving._MANIFEST),
                               (_json(FILES),), ours, "json"),
        "config": (partial(_file, config, folder / "run.toml"), (_toml(RUN),), ours, "bytes"),
        "config.values": (partial(_in_toml, config, folder / "run.toml"), (_json(RUN),), ours, "json"),
        "settings": (partial(_file, settings, folder / "matl.toml"), (_toml(SETTINGS),), ours, "bytes"),
        "settings.values": (partial(_in_toml, settings, folder / "matl.toml"), (_json(SETTINGS),), ours, "json"),
    }  # fmt: skip


def _said(kind: type[Any]) -> bytes:
    """A view of the oracle's."""
    if kind is said.EvidenceView:
        return _evidence()
    if kind is said.KeysView:
        return _json({"signer": samples.HASH})
    return _json(dict.fromkeys(kind.model_fields, "AAAA"))
