"""``matl oracle``: the judge of Mode 2 as a process of its own, and what it has to prove."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from matl.cli import options
from matl.cli.console import print_json, show, write
from matl.errors import AttestationError, InvalidValueError, MissingExtraError, StateError

if TYPE_CHECKING:
    from matl.attest.measurement import Measurement
    from matl.oracle.attesting import Attester
    from matl.oracle.serving import Oracle

__all__ = ["oracle"]

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_AGAIN = "import sys; sys.argv[0] = 'matl'; from matl.cli import main; main()"
_CODE_FOLDER = "MATL_ORACLE_CODE"
_NO_ROOT = "hardware_root: false - nothing here proves which machine this is, or that it is what it says"

oracle = typer.Typer(help="Judge sealed updates in a process that proves what it runs (Mode 2).", no_args_is_help=True)

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="TOML file with the configuration of the run.", show_default=False)
]
LeastClients = Annotated[int, typer.Option(min=1, help="Fewest clients that have to count in a round.")]
VendorKeys = Annotated[
    list[Path] | None,
    typer.Option("--vendor-key", help="Root key of a maker of TPMs that is trusted, DER; may be repeated."),
]


@oracle.command("serve")
def serve(
    config: ConfigPath,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8450,
    folder: Annotated[Path, typer.Option(help="Where the token, the answers and the machine's key are kept.")] = Path(
        "matl-oracle"
    ),
    tpm: Annotated[
        str | None, typer.Option(help="The TPM, as in TPM2TOOLS_TCTI: device:/dev/tpmrm0, swtpm:host=...,port=...")
    ] = None,
    software: Annotated[bool, typer.Option("--software", help="No TPM: a key in a file; it proves nothing.")] = False,
    pcr: Annotated[int, typer.Option(min=0, max=15, help="PCR of the TPM for the measurement.")] = 14,
    quoted: Annotated[
        list[int] | None,
        typer.Option("--quote", help="Another PCR to prove, if clients pin it; may be repeated."),
    ] = None,
    firmware_log: Annotated[
        Path | None, typer.Option(help="What was measured at boot; on Linux in /sys/kernel/security/tpm0.")
    ] = None,
    vendor_keys: VendorKeys = None,
    intermediates: Annotated[
        list[Path] | None,
        typer.Option("--intermediate", help="Certificate between the TPM's and its maker's, DER; may be repeated."),
    ] = None,
    least_clients: LeastClients = 3,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
) -> None:
    """Serve an oracle: evidence for clients, judgement for the coordinator that has the token.

    Its keys are made anew at every start and are never written down. Without PYTHONPYCACHEPREFIX it starts itself once
    more, so that all code it runs is compiled from the files it measured.
    """
    if (tpm is None) == (not software):
        raise InvalidValueError("expected either --tpm, or --software to try it out, got neither or both")
    if (tls_cert is None) != (tls_key is None):
        raise InvalidValueError("expected --tls-cert and --tls-key together, got one of them")
    if host not in _LOOPBACK and tls_cert is None:
        raise InvalidValueError(
            f"expected --tls-cert and --tls-key where others can reach the oracle, got host={host}: the coordinator's "
            "token would be sent in the clear"
        )
    _needed()
    if sys.pycache_prefix is None:
        _start_again()
    from matl.attest.installed import installed_parts
    from matl.oracle.serving import Oracle
    from matl.oracle.settings import OracleConfig

    def attester(measurement: Measurement) -> Attester:
        from matl.attest.tpm_tools import Tpm
        from matl.oracle.attesting import SoftwareAttester, TpmAttester

        if tpm is None:
            return SoftwareAttester(measurement, folder)
        device = Tpm(tpm, folder / "tpm", pcr=pcr, also=quoted or (), firmware_log=firmware_log)
        chain = b"".join(_read_files(intermediates))
        return TpmAttester(measurement, device, frozenset(_read_files(vendor_keys)), chain)

    try:
        read = OracleConfig.read(config, least_clients=least_clients)
        began = time.perf_counter()
        read.measure()
        took, count = time.perf_counter() - began, len(installed_parts())
        show(f"measured {count} packages in {took:.1f} s; `matl oracle measure --parts` lists them", markup=False)
        started = Oracle.start(read, folder, attester)
        given = {} if tls_cert is None else {"ssl_certfile": str(tls_cert), "ssl_keyfile": str(tls_key)}
        asyncio.run(_serve(started, host, port, given))
    except KeyboardInterrupt:
        show("stopped")
    finally:
        if (code := os.environ.get(_CODE_FOLDER)) is not None:
            shutil.rmtree(code, ignore_errors=True)


@oracle.command("measure")
def measure(
    config: ConfigPath,
    *,
    least_clients: LeastClients = 3,
    parts: Annotated[
        bool, typer.Option("--parts", help="List what is installed, line by line; the lines' SHA-256 is measured.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Print the measurement that an oracle of this installation has to prove with this configuration."""
    _needed()
    from matl.attest.installed import installed_parts
    from matl.oracle.settings import OracleConfig

    read = OracleConfig.read(config, least_clients=least_clients)
    found = read.measure()
    if as_json:
        digests = {name: getattr(found, name) for name in ("package", "config", "policy")}
        listed = [{"name": one.name, "version": one.version, "sha256": one.sha256} for one in installed_parts()]
        print_json({"measurement": found.digest, **digests, "run_config": read.config.run_config, "parts": listed})
        return
    write("\n".join(map(str, installed_parts())) + "\n" if parts else found.digest + "\n")


@oracle.command("check")
def check(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the oracle is.", show_default=False)],
    *,
    measurement: Annotated[
        list[str],
        typer.Option(help="What may run there: `matl oracle measure`; may be repeated.", show_default=False),
    ],
    software: Annotated[
        bool, typer.Option("--software", help="Be content with evidence that no hardware stands behind.")
    ] = False,
    signer: Annotated[
        list[str] | None, typer.Option(help="Whose word is taken with --software; may be repeated.", show_default=False)
    ] = None,
    vendor_keys: VendorKeys = None,
    revoked: Annotated[
        list[str] | None,
        typer.Option(
            help="Serial number, hexadecimal, of a TPM's certificate that is no longer good; may be repeated.",
            show_default=False,
        ),
    ] = None,
    pcr: Annotated[int, typer.Option(min=0, max=15, help="PCR of the TPM that has the measurement.")] = 14,
    ca: Annotated[Path | None, typer.Option(help="Certificates to trust for the URL, PEM.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Verify an oracle's evidence as a client does before it sends anything."""
    _needed()
    from matl.client.evidence import OraclePins
    from matl.client.sealed import OracleWatch

    for one in measurement:
        if not re.fullmatch("[0-9a-f]{64}", one):
            raise InvalidValueError(
                f"expected --measurement as 64 digits 0-9a-f, as `matl oracle measure` prints them, got {one!a:.80}"
            )
    for one in revoked or ():
        if not re.fullmatch("[0-9a-fA-F]{1,64}", one):
            raise InvalidValueError(f"expected --revoked as 1 to 64 hexadecimal digits without colons, got {one!a:.80}")
    if not software and not vendor_keys:
        raise InvalidValueError(
            "expected --vendor-key, the root key of the maker of the oracle's TPM, got none: no hardware could prove "
            "anything; to try out an oracle that was started with --software, give --software here too"
        )
    pins = OraclePins(
        measurements=frozenset(measurement),
        software=software,
        software_signers=frozenset(signer or ()),
        vendor_keys=frozenset(_read_files(vendor_keys)),
        revoked=frozenset(int(one, 16) for one in revoked or ()),
        pcr=pcr,
    )

    try:
        found = asyncio.run(OracleWatch(pins, url, ca=ca).known())
    except AttestationError as error:
        raise AttestationError(error.code, _in_options(error, measurement)) from error
    claims = found.claims
    if as_json:
        print_json(
            {
                "format": claims.format,
                "hardware_root": claims.hardware_root,
                "measurement": claims.measurement,
                "signer": found.signing.fingerprint,
                "run_config": found.config.run_config,
                "least_clients": found.policy.least_clients,
                "details": dict(claims.details),
            }
        )
        return
    show(f"it proves the measurement {claims.measurement}", markup=False)
    show(f"evidence: {claims.format}", markup=False)
    show("hardware_root: true" if claims.hardware_root else _NO_ROOT, markup=False)
    show(f"run configuration {found.config.run_config}", markup=False)
    show(f"it judges rounds of at least {found.policy.least_clients} clients that count", markup=False)


def _in_options(error: AttestationError, expected: list[str]) -> str:
    """What does not hold, by the options of the command."""
    if error.code == "measurement" and (found := re.match("[0-9a-f]{64}(?= runs there)", str(error))):
        return (
            f"expected the measurement {' or '.join(expected)}, the oracle proves {found.group()}: it runs another "
            "version, configuration or --least-clients than --measurement was taken from"
        )
    return str(error).replace("software=True was not given", "--software was not given")


async def _serve(started: Oracle, host: str, port: int, given: dict[str, Any]) -> None:
    from matl.oracle.serving import server

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    told = logging.StreamHandler()
    told.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    log = logging.getLogger("matl.oracle")
    log.setLevel(logging.INFO)
    log.addHandler(told)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InvalidValueError(
            f"cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}; choose another"
        ) from error
    with listening:
        serving = server(started.app, **given)
        task = asyncio.create_task(serving.serve(sockets=[listening]))
        while not serving.started and not task.done():
            await asyncio.sleep(0.02)
        scheme = "https" if given else "http"
        where = f"[{host}]" if ":" in host else host
        show(f"oracle at {scheme}://{where}:{listening.getsockname()[1]}", markup=False)
        show(f"measurement {started.measurement.digest}", markup=False)
        if signer := getattr(started.attester, "signer", None):
            show(f"signer {signer}", markup=False)
        show("hardware_root: true" if started.attester.hardware_root else _NO_ROOT, markup=False)
        show(f"token for the coordinator in {started.token_file}", markup=False)
        sys.stdout.flush()
        await task


def _needed() -> None:
    for package, extra in (("httpx", "client"), ("fastapi", "server"), ("uvicorn", "server")):
        if find_spec(package) is None:
            raise MissingExtraError(package, extra=extra)


def _start_again() -> NoReturn:
    """Run once more, with an empty place for compiled code: what lies beside the source is not measured."""
    folder = tempfile.mkdtemp(prefix="matl-oracle-")
    python = [sys.executable, "-P", "-X", f"pycache_prefix={folder}", "-c", _AGAIN]
    environment = {**os.environ, "NUMBA_CACHE_DIR": folder, _CODE_FOLDER: folder}
    os.execve(sys.executable, [*python, *sys.argv[1:]], environment)  # noqa: S606 - no shell is wanted


def _read_files(paths: list[Path] | None) -> list[bytes]:
    try:
        return [path.read_bytes() for path in paths or ()]
    except OSError as error:
        raise StateError(f"a key or certificate of a maker of TPMs cannot be read: {error}") from error
