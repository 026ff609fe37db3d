"""``matl verify``: check what is claimed, from the claim's own file."""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from matl.attest.audit_log import read_audit_log
from matl.attest.keys import LARGEST_KEY, PublicKey
from matl.attest.receipts import LARGEST_RECEIPT, verify_receipt
from matl.cli import options
from matl.cli.console import print_json, show
from matl.errors import InvalidValueError, ProtocolError
from matl.journal import Head
from matl.privacy import certificate

__all__ = ["verify"]

verify = typer.Typer(help="Check what a file claims.", no_args_is_help=True)


@verify.callback()
def _check() -> None:
    """Check what a file claims."""


@verify.command("privacy")
def privacy(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A privacy manifest.", show_default=False)],
    *,
    sha256: Annotated[
        str | None, typer.Option(help="Refuse any manifest but the one with this hash.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Prove again the epsilon that a privacy manifest states, in seconds.

    The proof is integer arithmetic of one file that needs nothing but Python: src/matl/privacy/certificate.py.
    """
    began = time.perf_counter()
    try:
        with manifest.open("rb") as stream:
            instance, proven, digest = certificate.check(stream.read(certificate.MAX_BYTES + 1), sha256)
    except OSError as error:
        raise InvalidValueError(f"{manifest} cannot be read: {error.strerror}") from error
    except certificate.CertificateError as error:
        raise InvalidValueError(f"{manifest} is refused: {error}") from error
    fewer = certificate.fewer_survivors(instance)
    seconds = time.perf_counter() - began
    if as_json:
        print_json(
            {
                "kind": "privacy certificate",
                "sha256": digest,
                "delta": str(instance.delta),
                "transmissions": instance.transmissions,
                "survivors": instance.survivors,
                "zero_out": {"epsilon": str(proven.zero_out), "order": str(proven.zero_out.order)},
                "replace_one": {"epsilon": str(proven.replace_one), "order": str(proven.replace_one.order)},
                "fewer_survivors": {count: figure and str(figure) for count, figure in fewer.items()},
                "seconds": round(seconds, 2),
            }
        )
        return
    show(certificate.statement(instance, proven, digest), markup=False)
    show(certificate.shortfall(fewer), markup=False)
    show(f"checked in {seconds:.1f} s; the same with nothing but Python:", markup=False, style="dim")
    show(f"  python {certificate.__file__} {manifest}", markup=False, style="dim")


@verify.command("receipt")
def receipt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A receipt.", show_default=False)],
    *,
    key: Annotated[
        list[str],
        typer.Option(help="Public key that is believed: a PEM file, or base64 as a run shows it; may be repeated."),
    ],
    as_json: options.AsJson = False,
) -> None:
    """Check who signed a receipt, and say what it says."""
    trusted = [_public_key(one) for one in key]
    try:
        found = verify_receipt(_read(file, LARGEST_RECEIPT), trusted)
    except ProtocolError as error:
        raise InvalidValueError(f"{file} is refused: {error}") from error
    if as_json:
        print_json({"kind": "receipt", **asdict(found)})
        return
    score = "" if found.score is None else f", score {found.score:g}"
    show(
        f"{found.client_id} in round {found.round} of {found.run}: {found.status}, weight {found.weight:g}{score}",
        markup=False,
    )
    when = datetime.fromtimestamp(found.timestamp_unix_ms / 1000, UTC)
    rows = {
        "update": found.update_hash,
        "model": found.model_hash,
        "judge": found.policy_hash,
        "signer": found.signer,
        "signed": f"{when:%Y-%m-%d %H:%M:%S} UTC by the signer's clock",
        "hardware root": "yes, by the signer's own word" if found.hardware_root else "no",
    }
    for name, value in rows.items():
        show(f"{name:<14} {value}", markup=False)


@verify.command("audit")
def audit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An audit log.", show_default=False)],
    *,
    witness: Annotated[
        str | None,
        typer.Option(metavar="RECORDS:CHAIN", help="What was remembered of it earlier, elsewhere.", show_default=False),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Check that no line of an audit log was changed, left out or cut off, and print it.

    Line 1 says what the file is, and is no action: those are numbered from 2.

    An end that was cut off together with the head beside the file is seen by a witness alone: keep the last line that
    this prints in another place.
    """
    known = None if witness is None else _head(witness)
    if not file.is_file():
        raise InvalidValueError(
            f"{file} cannot be read: there is no such file; a coordinator's is audit.log in its folder"
        )
    entries, head = read_audit_log(file, known)
    if as_json:
        print_json(
            {"kind": "audit", "records": head.records, "chain": head.chain, "entries": [asdict(one) for one in entries]}
        )
        return
    for one in entries:
        when = datetime.fromtimestamp(one.time / 1000, UTC)
        told = " ".join(f"{name}={value!a}" for name, value in one.details.items())
        show(
            f"{one.index:>5}  {when:%Y-%m-%d %H:%M:%S}  {one.actor}  {one.action}  {one.subject}  {told}".rstrip(),
            markup=False,
        )
    show(f"{len(entries)} actions, unchanged; for a witness:", markup=False, style="dim")
    show(f"{head.records}:{head.chain}", markup=False)


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(limit + 1)
    except OSError as error:
        raise InvalidValueError(f"{path} cannot be read: {error.strerror}") from error


def _public_key(text: str) -> PublicKey:
    """A key in a PEM file, or in base64."""
    path = Path(text)
    try:
        if path.is_file():
            pem = _read(path, LARGEST_KEY)
            if b"PRIVATE KEY" in pem:
                raise InvalidValueError(
                    f"expected --key as a public key, {path} is the private one that its owner signs with: keep it, "
                    "and give the public key that belongs to it, as receipts.pub.pem does to receipts.pem"
                )
            return PublicKey.from_pem(pem)
        return PublicKey(base64.b64decode(text, validate=True))
    except InvalidValueError:
        raise
    except (binascii.Error, ValueError, ProtocolError, OSError) as error:
        raise InvalidValueError(f"expected --key as a PEM file or base64 of DER, got {text!a:.80}: {error}") from error


def _head(text: str) -> Head:
    records, separator, chain = text.partition(":")
    if not separator or not records.isascii() or not records.isdigit() or not chain:
        raise InvalidValueError(f"expected --witness as RECORDS:CHAIN, got {text!a:.100}")
    return Head(int(records), chain)
