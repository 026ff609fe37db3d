"""The TPM of this machine, spoken to through tpm2-tools (the Debian package of that name).

Examples
--------
An oracle proves what it is to a client that drew ``nonce``; ``public_key`` is its own (DER SubjectPublicKeyInfo)::

    tpm = Tpm("device:/dev/tpmrm0", Path("/var/lib/matl/tpm"), firmware_log=FIRMWARE_LOG)
    tpm.measure(Measurement.of(config, policy))
    evidence = tpm.quote(nonce, public_key)
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matl.attest._event_log import Event, extended, parse_log, replay, write_log
from matl.attest._reader import Reader
from matl.attest._tpm_structures import MAX_PUBLIC, Quote
from matl.attest.endorsement import pack_identity
from matl.attest.measurement import Measurement
from matl.attest.tpm import APPLICATION_PCR, bound_data, check_application_pcr, measured, pack_quote
from matl.errors import AttestationError, InvalidValueError, MatlError
from matl.files import make_directory, write_atomic

__all__ = ["FIRMWARE_LOG", "Tpm", "TpmError"]

FIRMWARE_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
"""Where Linux shows what the firmware and the boot loader measured; only root may read it."""

_LARGEST_FIRMWARE_LOG = 1 << 22
_EK_CERTIFICATE = "0x01C00002"  # NV index of the certificate of the RSA 2048 EK, TCG EK Credential Profile
_SECONDS = 120  # a slow TPM makes an RSA key in half a minute
_CREDENTIAL_FILE = bytes.fromhex("BADCC0DE00000001")  # how a file for tpm2_activatecredential begins
_LARGEST_BLOB = 1024
_LOADING = frozenset({"createek", "createak", "load", "activatecredential", "quote"})  # leave objects in a bare TPM


class TpmError(MatlError):
    """The TPM of this machine cannot be used, or not for this."""


class Tpm:
    """An attestation key in a TPM, and what it can prove. One at a time may use the folder; threads take turns.

    Parameters
    ----------
    tcti : str
        How to reach the TPM, as in ``TPM2TOOLS_TCTI``: ``"device:/dev/tpmrm0"``, ``"swtpm:host=127.0.0.1,port=2321"``.
    directory : Path
        Where the attestation key is kept, encrypted by the TPM, so that it is the same after a restart.
    pcr : int
        PCR of the application, 0 to 15.
    also : sequence of int
        Other PCRs to quote, for policies that pin them.
    firmware_log : Path, optional
        Where to read what was measured before this program ran; see `FIRMWARE_LOG`. Without it nothing was.

    Raises
    ------
    TpmError
        Every method: tpm2-tools are missing, the TPM cannot be reached or refuses.

    Notes
    -----
    The hierarchies of the TPM are taken to have no passwords, as they are delivered.
    """

    def __init__(
        self,
        tcti: str,
        directory: Path,
        *,
        pcr: int = APPLICATION_PCR,
        also: Sequence[int] = (),
        firmware_log: Path | None = None,
    ) -> None:
        check_application_pcr(pcr)
        self._tcti, self._directory, self._pcr = tcti, directory, pcr
        self._pcrs = tuple(sorted({pcr, *also}))
        self._firmware_log = firmware_log
        self._public = self._log = b""
        self._lock = threading.RLock()

    def create_ak(self) -> bytes:
        """Make the attestation key, or load the one that was made before: ECDSA on P-256, below the EK.

        Returns
        -------
        bytes
            Its public area (TPMT_PUBLIC).
        """
        with self._lock:
            if not self._public:
                make_directory(self._directory)
                self._run("createek", "-G", "rsa", "-c", self._file("ek.ctx"))
                kept = self._directory / "ak.pub", self._directory / "ak.priv"
                if all(path.exists() for path in kept):
                    self._load_ak()
                else:
                    self._make_ak(kept)
                self._public = Reader(kept[0].read_bytes(), "TPM2B_PUBLIC").sized(MAX_PUBLIC)
            return self._public

    def identity(self, intermediates: bytes = b"") -> bytes:
        """What a verifier needs to challenge this TPM, see `matl.attest.endorsement`.

        Parameters
        ----------
        intermediates : bytes
            Certificates between that of the endorsement key and the vendor's root, DER, one behind the other, where the
            TPM does not hold them.
        """
        with self._lock:
            try:
                certificate = self._run("nvread", _EK_CERTIFICATE)
            except TpmError as error:
                raise TpmError(
                    f"the TPM holds no certificate of its RSA endorsement key at {_EK_CERTIFICATE}, so nobody vouches "
                    f"for it; an emulator has none unless swtpm_setup made one ({error})"
                ) from error
            size = 4 + int.from_bytes(certificate[2:4], "big")  # vendors fill the index up
            return pack_identity(self.create_ak(), certificate[:size] + intermediates)

    def activate(self, blob: bytes) -> bytes:
        """Answer an `matl.attest.endorsement.EndorsementChallenge`.

        Raises
        ------
        AttestationError
            The blob is malformed.
        """
        reader = Reader(blob, "challenge")
        for _ in range(2):
            reader.sized(_LARGEST_BLOB)
        reader.end()
        with self._lock, self._scratch() as scratch:
            self.create_ak()
            (scratch / "blob").write_bytes(_CREDENTIAL_FILE + blob)
            with self._session() as session:
                self._run(
                    "activatecredential", "-c", self._file("ak.ctx"), "-C", self._file("ek.ctx"),
                    "-i", str(scratch / "blob"), "-o", str(scratch / "secret"), "-P", session,
                )  # fmt: skip
            return (scratch / "secret").read_bytes()

    def extend(self, pcr: int, digest: bytes) -> None:
        """Extend a PCR of the SHA-256 bank."""
        with self._lock:
            self._run("pcrextend", f"{pcr}:sha256={digest.hex()}")

    def read_pcrs(self, pcrs: Sequence[int]) -> bytes:
        """Values of PCRs of the SHA-256 bank, 32 bytes each, in increasing order of their numbers."""
        with self._lock, self._scratch() as scratch:
            chosen = sorted(pcrs)
            self._run("pcrread", f"sha256:{','.join(map(str, chosen))}", "-o", str(scratch / "pcrs"))
            values = (scratch / "pcrs").read_bytes()
        if len(values) != 32 * len(chosen):
            raise TpmError(f"expected {len(chosen)} PCRs, got {len(values)} bytes; has the TPM a SHA-256 bank?")
        return values

    def measure(self, measurement: Measurement) -> None:
        """Extend the application's PCR by a measurement, once since the machine started.

        A second call with the same measurement, after a restart of the program, finds it there and changes nothing.

        Raises
        ------
        TpmError
            Something else was measured there since the machine started.
        """
        with self._lock:
            before = [event for event in self._firmware_events() if event.pcr == self._pcr]
            event = measured(measurement, self._pcr)
            untouched, held = replay(before), self.read_pcrs([self._pcr])
            if held == untouched:
                self.extend(self._pcr, event.digest)
            elif held != extended(untouched, event.digest):
                raise TpmError(
                    f"PCR {self._pcr} holds {held.hex()}: since the machine started, another configuration or another "
                    "program was measured there, or firmware_log= is missing; reboot, or choose another PCR"
                )
            self._log = write_log([*before, event])

    def quote(self, nonce: bytes, key: bytes = b"") -> bytes:
        """Evidence for somebody who drew ``nonce``, which vouches for a public key.

        Parameters
        ----------
        nonce : bytes
            1 to 64 bytes.
        key : bytes
            The public key (DER SubjectPublicKeyInfo), or nothing.

        Raises
        ------
        InvalidValueError
            The nonce is empty or too long, or nothing was measured yet.
        """
        extra = bound_data(nonce, key)
        if not self._log:
            raise InvalidValueError("expected measure() before quote(): there is nothing to prove yet")
        with self._lock, self._scratch() as scratch:
            public = self.create_ak()
            for _ in range(3):
                pcrs = self.read_pcrs(self._pcrs)
                self._run(
                    "quote", "-c", self._file("ak.ctx"), "-l", f"sha256:{','.join(map(str, self._pcrs))}",
                    "-q", extra.hex(), "-g", "sha256", "-m", str(scratch / "attest"), "-s", str(scratch / "signature"),
                )  # fmt: skip
                attest = (scratch / "attest").read_bytes()
                if Quote.parse(attest).digest == hashlib.sha256(pcrs).digest():  # else one was extended in between
                    signature = (scratch / "signature").read_bytes()
                    return pack_quote(
                        attest=attest, signature=signature, public=public, pcrs=pcrs, log=self._log, key=key
                    )
        raise TpmError(f"PCRs {self._pcrs} change all the time; leave out PCR 10, which IMA extends as programs start")

    def _make_ak(self, kept: tuple[Path, Path]) -> None:
        with self._scratch() as scratch:
            made = scratch / "ak.pub", scratch / "ak.priv"
            self._run(
                "createak", "-C", self._file("ek.ctx"), "-G", "ecc", "-g", "sha256", "-s", "ecdsa",
                "-c", self._file("ak.ctx"), "-u", str(made[0]), "-r", str(made[1]),
            )  # fmt: skip
            for new, path in zip(made, kept, strict=True):  # always in this order, so that no two halves can mix
                write_atomic(path, new.read_bytes())

    def _load_ak(self) -> None:
        try:
            with self._session() as session:
                self._run(
                    "load", "-C", self._file("ek.ctx"), "-P", session, "-u", self._file("ak.pub"),
                    "-r", self._file("ak.priv"), "-c", self._file("ak.ctx"),
                )  # fmt: skip
        except TpmError as error:
            raise TpmError(
                f"the attestation key in {self._directory} does not load; if the TPM was cleared or is another one, "
                f"remove the folder and have the new key challenged ({error})"
            ) from error

    def _firmware_events(self) -> tuple[Event, ...]:
        if self._firmware_log is None:
            return ()
        try:
            return parse_log(self._firmware_log.read_bytes(), _LARGEST_FIRMWARE_LOG)
        except (OSError, AttestationError) as error:
            raise TpmError(f"the firmware's event log {self._firmware_log} cannot be read: {error}") from error

    def _file(self, name: str) -> str:
        return str(self._directory / name)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=make_directory(self._directory)) as folder:
            yield Path(folder)

    @contextmanager
    def _session(self) -> Iterator[str]:
        """A session in which the EK may be used, as its template wants: its hierarchy's owner agrees."""
        context = self._file("session.ctx")
        self._run("startauthsession", "--policy-session", "-S", context)
        try:
            self._run("policysecret", "-S", context, "-c", "e")
            yield f"session:{context}"
        finally:
            self._run("flushcontext", context)

    def _run(self, command: str, *arguments: str) -> bytes:
        """Standard output of ``tpm2_<command>``; nothing it loaded stays in the TPM, which has room for three."""
        try:
            return self._call(command, *arguments)
        finally:  # also if it failed: else three bad challenges would fill the TPM
            if command in _LOADING:
                self._call("flushcontext", "-t")

    def _call(self, command: str, *arguments: str) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603 - no shell, and nothing a peer sent but hex digits and files
                [f"tpm2_{command}", *arguments],
                env={**os.environ, "TPM2TOOLS_TCTI": self._tcti},
                capture_output=True,
                timeout=_SECONDS,
                check=True,
            )
        except FileNotFoundError as error:
            raise TpmError(f"tpm2_{command} is not installed; install the package tpm2-tools") from error
        except subprocess.TimeoutExpired as error:
            raise TpmError(f"the TPM at {self._tcti} did not answer tpm2_{command} within {_SECONDS} s") from error
        except subprocess.CalledProcessError as error:
            lines = error.stderr.decode("utf-8", errors="replace").strip().splitlines()
            reasons = [line for line in lines if line.startswith("ERROR: ")] or lines
            raise TpmError(f"tpm2_{command} at {self._tcti} failed: {'; '.join(reasons)[:300]}") from error
        return done.stdout
