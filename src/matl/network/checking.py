"""Looks at everything that a coordinator needs before it is started: files, database, blobs, ports, runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matl.attest.revocation import RevokedList
from matl.coordinator.rounds.plan import RunPlan
from matl.coordinator.storage.blobs import Blobs
from matl.coordinator.storage.rows import RunRow
from matl.coordinator.storage.store import Store
from matl.errors import InvalidValueError, MatlError, StateError
from matl.files import make_directory
from matl.modes import Mode0, Mode1
from matl.network.attesting import AttestationSettings
from matl.network.hosting import versions
from matl.network.planner import planner
from matl.network.resuming import resumed
from matl.network.serving import IN_FILE, free_socket, tls_context
from matl.network.settings import NetworkSettings, RunSettings
from matl.records import Mode
from matl.trust.levels import DRIFT_COHORT
from matl.trust.peers import LEAST_COHORT
from matl.workloads import TrainingWorkload

__all__ = ["Finding", "check_all", "few"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    what : str
        The thing.
    problem : str
        What is wrong with it; empty if nothing is.
    note : str
        What to know about it although nothing is wrong; empty if there is nothing.
    """

    what: str
    problem: str = ""
    note: str = ""


async def check_all(settings: NetworkSettings) -> list[Finding]:
    """Look at everything, and say of each thing whether it will do; nothing is changed but a blob written and deleted.

    The folder is made if there is none.
    """
    found = [await _looked(f"folder {settings.folder}", asyncio.to_thread(_folder, settings))]
    if settings.tls is not None:
        found.append(
            await _looked(f"certificate {settings.tls.certificate}", asyncio.to_thread(tls_context, settings.tls))
        )
    ports = {"http": settings.port, "grpc": settings.grpc_port}
    for name, port in ports.items():
        if port is not None:
            found.append(
                await _looked(f"{name} at {settings.host}:{port}", asyncio.to_thread(_port, settings.host, port))
            )
    found.append(await _looked("database", _database(settings)))
    rows = {} if found[-1].problem else await _stored(settings)
    found.append(await _looked("blobs", _blobs(settings)))
    found += await _attestation(settings.attestation)
    for name, given in settings.runs.items():
        looking = asyncio.to_thread(_run, name, given, rows.get(name), settings.folder)
        found.append(await _looked(f"run {name}", looking))
    return found


def few(mode: Mode, updates: int, fewest: int) -> str:
    """What a judge cannot do in rounds of so many updates, in words; empty where it can do all, or judges nobody.

    Parameters
    ----------
    mode : Mode
        The judge.
    updates : int
        After which a round closes.
    fewest : int
        With which it is judged at its deadline.
    """
    if isinstance(mode, Mode0):
        least = LEAST_COHORT
        lost = f"mode0 has no opinion below {least} updates, and everybody counts"
    elif isinstance(mode, Mode1):
        least = DRIFT_COHORT
        lost = f"below {least} updates mode1 has no opinion on alien and campaign, and finds no hidden triggers"
    else:
        return ""
    if updates < least:
        return f"rounds of {updates}: {lost}"
    if fewest < least:
        instead = f"who stays away can bring that about; they fail instead with quorum = {least}"
        return f"rounds of {fewest} to {updates}: {lost}; {instead}"
    return ""


def _scratch_bytes(workload: TrainingWorkload, updates: int) -> int:
    """Bytes of the files that a coordinator needs at most while it judges so many updates."""
    rows, mode = updates, workload.mode
    if isinstance(mode, Mode0):
        rows += updates  # those that count in part are written anew
    elif isinstance(mode, Mode1):
        rows += mode.oracle.num_classes**2 + mode.shadows
    return 4 * rows * workload.layout.size


def _check_room(plan: RunPlan, folder: Path) -> None:
    needed, free = _scratch_bytes(plan.workload, plan.rules.target), shutil.disk_usage(folder).free
    if needed > free:
        raise StateError(
            f"judging {plan.rules.target} updates takes up to {needed / 1e9:.1f} GB of files in {folder}, where "
            f"{free / 1e9:.1f} GB are free; free some space, or lower target"
        )


async def _looked(what: str, work: Awaitable[object]) -> Finding:
    """What came of looking at something: a note, if that is text, or the problem that it raised."""
    try:
        seen = await work
    except MatlError as error:
        return Finding(what, str(error))
    return Finding(what, note=seen if isinstance(seen, str) else "")


async def _attestation(settings: AttestationSettings) -> list[Finding]:
    """What is checked of clients' machines, and what it is worth."""
    kinds = list(settings.checked())
    if not kinds:
        return []
    found = [await _looked("verifiers of attestation", asyncio.to_thread(settings.formats))]
    needed = "needed to enrol" if settings.require else "not needed to enrol"
    for one in kinds:
        worth = "" if one.hardware else "; no hardware proves it"
        found.append(Finding(f"attestation.{one.name}: {one.attestation.verifier.format}, {needed}{worth}"))
        revoked = getattr(one.attestation.policy, "revoked", None)
        if isinstance(revoked, RevokedList):
            what = f"attestation.{one.name}.revoked: {revoked.path}"
            found.append(await _looked(what, asyncio.to_thread(_listed, revoked)))
    return found


def _listed(revoked: RevokedList) -> str:
    return f"revoked serial numbers: {len(revoked.serials)}"


def _folder(settings: NetworkSettings) -> None:
    make_directory(settings.folder, private=True)
    if not os.access(settings.folder, os.W_OK | os.X_OK):
        raise InvalidValueError("this user cannot write there; give it to the user that runs the coordinator")


def _port(host: str, port: int) -> None:
    free_socket(host, port, advice=IN_FILE).close()


async def _database(settings: NetworkSettings) -> None:
    current, needed = await versions(settings)
    if current not in ("", needed):
        raise StateError(f"its tables are of version {current}, {needed} is needed: matl db upgrade")


async def _stored(settings: NetworkSettings) -> dict[str, RunRow]:
    """The runs that there are, by id; none where there are no tables yet."""
    if not (await versions(settings))[0]:
        return {}
    async with await Store.open(settings.database_url, upgrade=False) as store:
        return {row.id: row for row in await store.runs()}


def _run(name: str, given: dict[str, Any], row: RunRow | None, folder: Path) -> str:
    asked = RunSettings.of(given, source=f"run {name}")
    plan = planner(name, (asked if row is None else resumed(row, asked)).as_settings())
    if plan.judge is None and plan.manifest is None:  # of masked updates there is one sum
        _check_room(plan, folder)
    return _promise(plan) or few(plan.workload.mode, plan.rules.target, plan.rules.quorum)


def _promise(plan: RunPlan) -> str:
    """What a run with masked sums promises its clients, and asks of them."""
    if plan.manifest is None:
        return ""
    instance, proven = plan.manifest.instance, plan.manifest.certificate
    return (
        f"masked rounds in the phases {', '.join(plan.rules.phases)}, each within {plan.rules.deadline:g} s; a sum has "
        f"at least {instance.min_survivors} clients, of whom {instance.corrupt} may be dishonest; epsilon "
        f"{proven.zero_out} (zero-out) at delta {float(instance.delta):g} for a client that sends "
        f"{instance.transmissions} updates; manifest {plan.manifest.sha256}"
    )


async def _blobs(settings: NetworkSettings) -> None:
    content = os.urandom(32)
    blobs = Blobs(settings.blobs_url)
    name = await blobs.put(content)
    try:
        if hashlib.sha256(await blobs.read(name)).hexdigest() != name:
            raise StateError("what was written is not what is read")
    finally:
        await blobs.delete(name)
