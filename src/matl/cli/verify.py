"""``matl verify``: check what is claimed, from the claim's own file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from matl.cli import options
from matl.cli.console import print_json, show
from matl.errors import InvalidValueError
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
