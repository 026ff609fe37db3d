"""A TPM 2.0 in a process of its own (swtpm), with a certificate that the tests' vendor signs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

EK_CERTIFICATE = x509.ObjectIdentifier("2.23.133.8.1")
TPM_MANUFACTURER = x509.ObjectIdentifier("2.23.133.2.1")
TPM_MODEL = x509.ObjectIdentifier("2.23.133.2.2")
START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)


@contextmanager
def emulator(folder: Path) -> Iterator[str]:
    """A fresh TPM, as a TCTI."""
    missing = [tool for tool in ("swtpm", "tpm2_quote") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (Debian packages swtpm and tpm2-tools)")
    state = folder / "swtpm"
    state.mkdir(parents=True, exist_ok=True)
    process, port = _start(state)
    try:
        yield f"swtpm:host=127.0.0.1,port={port}"
    finally:
        process.kill()
        process.wait()


def _start(state: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The emulator on two ports in a row, which somebody else may take before it does."""
    for _ in range(20):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = min(probe.getsockname()[1], 65000)
        process = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--flags", "not-need-init,startup-clear",
             "--server", f"type=tcp,port={port}", "--ctrl", f"type=tcp,port={port + 1}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(200):
            if process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process, port
            time.sleep(0.02)
        process.kill()
        process.wait()
    raise AssertionError("swtpm does not start")


def tool(tcti: str, command: str, *arguments: str, data: bytes = b"") -> bytes:
    """Standard output of a tool."""
    environment = {**os.environ, "TPM2TOOLS_TCTI": tcti}
    done = subprocess.run([f"tpm2_{command}", *arguments], env=environment, input=data, capture_output=True, check=True)
    return done.stdout


class Vendor:
    """A maker of TPMs: a root, an authority below it, and what they sign."""

    def __init__(self) -> None:
        self.root, self.below = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.intermediate = self._certificate("below", self.below.public_key(), "root", self.root, authority=True)

    @property
    def roots(self) -> frozenset[bytes]:
        return frozenset({self.root.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)})

    def certify(self, key: object, model: str | None = "Model 9670", *, usage: bool = True, serial: int = 77) -> bytes:
        """The certificate of an endorsement key, as the TCG's profile wants it."""
        name = [x509.NameAttribute(TPM_MANUFACTURER, "id:54455354")]
        name += [] if model is None else [x509.NameAttribute(TPM_MODEL, model)]
        alternative = x509.SubjectAlternativeName([x509.DNSName("tpm.example"), x509.DirectoryName(x509.Name(name))])
        purposes = x509.ExtendedKeyUsage([EK_CERTIFICATE if usage else x509.ExtendedKeyUsageOID.CLIENT_AUTH])
        return self._certificate("", key, "below", self.below, (alternative, True), (purposes, False), serial=serial)

    @staticmethod
    def _certificate(
        subject: str, key: object, issuer: str, signer: ec.EllipticCurvePrivateKey,
        *extensions: tuple[x509.ExtensionType, bool], authority: bool = False, serial: int = 5,
    ) -> bytes:  # fmt: skip
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)] if n else []) for n in (subject, issuer)]
        builder = x509.CertificateBuilder(names[1], names[0], key, serial, START, END)  # type: ignore[arg-type]
        for extension, critical in [(x509.BasicConstraints(authority, None), True), *extensions]:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)

    def deliver(self, tcti: str, folder: Path, **options: object) -> None:
        """Put a certificate of the TPM's endorsement key into the TPM."""
        tool(
            tcti,
            "createek",
            "-G",
            "rsa",
            "-c",
            str(folder / "delivered.ctx"),
            "-u",
            str(folder / "ek.der"),
            "-f",
            "der",
        )
        tool(tcti, "flushcontext", "-t")
        certificate = self.certify(load_der_public_key((folder / "ek.der").read_bytes()), **options)  # type: ignore[arg-type]
        certificate += b"\xff" * 20  # as some vendors fill the index up
        size = str(len(certificate))
        tool(tcti, "nvdefine", "0x01C00002", "-C", "o", "-s", size, "-a", "ownerwrite|ownerread|authread")
        tool(tcti, "nvwrite", "0x01C00002", "-C", "o", "-i", "-", data=certificate)
