"""What a coordinator is set up with, from a TOML file: where it listens, where it keeps things, which runs it has."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, ValidationError, field_validator, model_validator

from matl.errors import ConfigError, nearest
from matl.network.attesting import AttestationSettings, with_revoked
from matl.oracle.remote import OracleSource
from matl.protocol.addresses import PORT, is_loopback
from matl.protocol.messages import Id
from matl.simulation import RunConfig, load_config

__all__ = ["NetworkSettings", "RunSettings", "Terms", "TlsSettings", "load_settings"]

DATABASE_VARIABLE = "MATL_DATABASE"
"""Environment variable with the database's URL, which may hold a password."""

_TERMS = "network"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Terms(_Part):
    """What holds for the rounds of a run beside its configuration: the table ``network`` of its settings.

    Attributes
    ----------
    target : int or None
        Updates after which a round closes; as many as the configuration has take part, if not given. Where it is given,
        no more clients take part in a round than are drawn for it, see ``overselect``.
    quorum : int or None
        Fewest updates with which a round is judged at its deadline; two thirds of the target if not given.
    deadline : float or None
        Seconds after which a round closes; ten minutes if not given and the quorum is below the target. Where the two
        are the same, a round without a deadline waits for all.
    overselect : float or None
        How many times the target is drawn of the clients that are enrolled, at least 1, so that a slow one does not
        hold up the rest; 1.3 if not given. Everybody takes part where no more than that are enrolled, without a
        target or a deadline, where updates of older models are taken, and where clients are simulated.
    rounds : int or None
        How many rounds the run has, if not as many as the configuration says. More may be given later.
    max_staleness : int
        How many rounds old the model of an update may be.
    simulated : bool
        Whether the clients are simulated beside the coordinator. The judge's seeds then follow from the
        configuration's, and whoever knows that can foresee them.
    guests : int
        Updates of other clients that a round waits for beside those of the simulated ones.
    oracle : OracleSource or None
        The oracle that alone opens and judges updates, for Mode 2.
    """

    target: Annotated[int, Field(ge=1)] | None = None
    quorum: Annotated[int, Field(ge=1)] | None = None
    deadline: Annotated[float, Field(gt=0)] | None = None
    overselect: Annotated[float, Field(ge=1)] | None = None
    rounds: Annotated[int, Field(ge=1)] | None = None
    max_staleness: Annotated[int, Field(ge=0, le=1000)] = 0
    simulated: bool = False
    guests: Annotated[int, Field(ge=0)] = 0
    oracle: OracleSource | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Terms:
        if self.target is not None and self.quorum is not None and self.quorum > self.target:
            raise ValueError(
                f"expected quorum <= target, after which a round is closed, got quorum={self.quorum} and "
                f"target={self.target}"
            )
        if self.overselect is not None and (self.target is None or self.simulated or self.max_staleness):
            raise ValueError(
                f"expected overselect with a target of real clients and max_staleness = 0, as it says how many of them "
                f"are drawn for a round, got overselect={self.overselect:g}, target={self.target}, "
                f"max_staleness={self.max_staleness} and simulated={self.simulated}; leave it out"
            )
        return self


class RunSettings(BaseModel):
    """A run: the keys of its configuration, see `matl.simulation.RunConfig`, and the table ``network``.

    Attributes
    ----------
    config : RunConfig
        What is learned, and how it is judged.
    terms : Terms
        What holds for its rounds.
    """

    model_config = ConfigDict(frozen=True)

    config: RunConfig
    terms: Terms

    @classmethod
    def of(cls, settings: Mapping[str, Any], *, source: str = "settings") -> RunSettings:
        """Check the settings of a run.

        The clients of a served run are whoever enrols: attacks are planned where clients are simulated, and only there.

        Raises
        ------
        ConfigError
            Keys or values are wrong; all problems are listed.

        Examples
        --------
        >>> run = RunSettings.of({"dataset": "synthetic", "clients": 8, "network": {"quorum": 5}})
        >>> run.config.attack, run.terms.quorum, RunSettings.of(run.as_settings()) == run
        ('none', 5, True)
        """
        keys = {key: value for key, value in settings.items() if key != _TERMS}
        try:
            terms = Terms.model_validate(settings.get(_TERMS, {}))
        except ValidationError as error:
            raise ConfigError(source, [f"{_TERMS}.{line}" for line in _explain(error, Terms)]) from error
        if not terms.simulated:
            if keys.get("attack", "none") != "none":
                problem = f"attack: clients are real and not ours to command, got {keys['attack']!r}; leave it out"
                raise ConfigError(source, [problem])
            keys = {**keys, "attack": "none"}
        config = load_config(None, keys, source=source)
        if config.privacy is not None and (terms.rounds or 0) > config.rounds:
            problem = (
                f"network.rounds: privacy was planned for {config.rounds} rounds, got {terms.rounds}; begin another run"
            )
            raise ConfigError(source, [problem])
        return cls(config=config, terms=terms)

    @property
    def rounds(self) -> int:
        """How many rounds it has in all."""
        return self.terms.rounds or self.config.rounds

    def as_settings(self) -> dict[str, Any]:
        """Plain data for JSON that `of` reads."""
        return {
            **self.config.model_dump(mode="json", exclude_unset=True),
            _TERMS: self.terms.model_dump(mode="json", exclude_defaults=True),
        }


class TlsSettings(_Part):
    """How the lines are encrypted: the table ``tls``.

    Attributes
    ----------
    certificate : Path
        PEM file: the certificate, and those between it and the root.
    key : Path
        PEM file with its private key, without a passphrase.
    client_ca : Path or None
        PEM file of an authority: everybody who connects has to show a certificate of it (mTLS).
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


class LimitSettings(_Part):
    """What is borne and kept: the table ``limits``.

    Attributes
    ----------
    max_message : int
        Bytes of the longest payload of an update.
    retention : int
        Rounds whose payloads are kept, so that they can be judged again; verdicts and receipts stay for ever.
    event_days : float
        Days for which the events of ``/v1/events`` are kept.
    """

    max_message: Annotated[int, Field(ge=1 << 16, le=1 << 34)] = 1 << 30
    retention: Annotated[int, Field(ge=1)] = 20
    event_days: Annotated[float, Field(gt=0)] = 90.0


class NetworkSettings(_Part):
    """All of a coordinator's settings; see ``docs/howto/operate.md``.

    Attributes
    ----------
    folder : Path
        Keys, the first operator's token, the audit log; and the database and payloads unless given below.
    host : str
        Address to listen at.
    port : int
        Of HTTP and WebSocket; 0 for any that is free.
    grpc_port : int or None
        Of gRPC; ``None`` for none.
    database : str or None
        ``sqlite:///...`` or ``postgresql://...``; what the environment variable MATL_DATABASE says, or a file in the
        folder, if not given.
    blobs : str or None
        Folder or URL (``s3://bucket/prefix``) of payloads and models; in the folder if not given.
    tls : TlsSettings or None
        How the lines are encrypted.
    trusted_proxies : tuple of IPv4Network or IPv6Network
        Addresses and networks (``10.0.0.5``, ``10.244.0.0/16``) of the proxies in front of the coordinator, which
        encrypt, and tell by the last entry of ``X-Forwarded-For`` who asks. Without ``tls`` nobody else is let in but
        from this machine.
    limits : LimitSettings
        What is borne and kept.
    attestation : AttestationSettings
        What clients' machines may prove, and whether they have to.
    runs : mapping
        Settings of each run by its id, or the name of a TOML file with them.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = PORT
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    database: str | None = None
    blobs: str | None = None
    tls: TlsSettings | None = None
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    limits: LimitSettings = LimitSettings()
    attestation: AttestationSettings = AttestationSettings()
    runs: dict[Id, dict[str, Any]] = {}

    @field_validator("runs")
    @classmethod
    def _checked(cls, runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        problems = []
        for name, settings in runs.items():
            try:
                RunSettings.of(settings, source=name)
            except ConfigError as error:
                problems += [f"{name}.{line}" for line in error.problems]
        if problems:
            raise ValueError("; ".join(problems))
        return runs

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _written_out(cls, networks: Any) -> Any:
        if isinstance(networks, list | tuple) and (odd := [one for one in networks if isinstance(one, int)]):
            raise ValueError(f"expected addresses or networks in quotes, got {odd[0]!r}")  # 1 would be 0.0.0.1
        return networks

    @field_validator("trusted_proxies")
    @classmethod
    def _some(cls, networks: tuple[IPvAnyNetwork, ...]) -> tuple[IPvAnyNetwork, ...]:
        if everybody := [str(network) for network in networks if network.prefixlen == 0]:
            raise ValueError(
                f"expected the addresses or networks of the proxies, got {everybody[0]}: whoever asks would say where "
                "from; in a cluster, name the network of its pods"
            )
        return networks

    @model_validator(mode="after")
    def _guarded(self) -> NetworkSettings:
        if self.tls is not None or is_loopback(self.host):
            return self
        if not self.trusted_proxies:
            raise ValueError(
                f"expected tls where others can reach the coordinator, got host={self.host!r} without it: tokens would "
                "be sent in the clear; add [tls], or name the proxies that encrypt in trusted_proxies"
            )
        if self.grpc_port is not None:
            raise ValueError(
                f"expected tls for gRPC where others can reach it, got grpc_port={self.grpc_port} and "
                f"host={self.host!r} without it: no proxy stands in front of that port; add [tls], or leave it out"
            )
        return self

    @property
    def database_url(self) -> str:
        """Where rounds and verdicts are kept: as given, or as the environment says, or in the folder."""
        given = self.database or os.environ.get(DATABASE_VARIABLE)
        return given or f"sqlite:///{(self.folder / 'matl.db').absolute()}"

    @property
    def blobs_url(self) -> str:
        """Where payloads and models are kept: as given, or in the folder."""
        return self.blobs or str((self.folder / "blobs").absolute())


def load_settings(path: Path) -> NetworkSettings:
    """Read the settings of a coordinator; paths in them are relative to the file.

    Raises
    ------
    ConfigError
        The file cannot be read or parsed, or keys or values are wrong; all problems are listed.
    """
    values = _read(path)
    if "attestation" in values:
        values["attestation"] = with_revoked(values["attestation"], path.parent)
    runs = values.get("runs", {})
    if isinstance(runs, dict):
        values["runs"] = {
            name: _with_oracle(_read(path.parent / given), (path.parent / given).parent)
            if isinstance(given, str)
            else _with_oracle(given, path.parent)
            for name, given in runs.items()
        }
    try:
        return _beside(NetworkSettings.model_validate(values), path.parent)
    except ValidationError as error:
        raise ConfigError(str(path), _explain(error, NetworkSettings)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read: {error}; name an existing TOML file"]) from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        raise ConfigError(str(path), [f"is not TOML: {error}"]) from error


def _with_oracle(run: Any, base: Path) -> Any:
    """The settings of a run with the files that its oracle's table names made absolute."""
    oracle = run.get(_TERMS, {}).get("oracle") if isinstance(run, dict) and isinstance(run.get(_TERMS), dict) else None
    if not isinstance(oracle, dict):
        return run
    files: dict[str, Any] = {}
    for name in ("token_file", "ca", "vendor_keys"):
        if isinstance(given := oracle.get(name), str):
            files[name] = str((base / given).absolute())
        elif isinstance(given, list):
            files[name] = [str((base / str(one)).absolute()) for one in given]
    return {**run, _TERMS: {**run[_TERMS], "oracle": {**oracle, **files}}}


def _beside(settings: NetworkSettings, base: Path) -> NetworkSettings:
    """The settings with their paths made absolute."""
    changed: dict[str, Any] = {"folder": (base / settings.folder).absolute()}
    if (tls := settings.tls) is not None:
        files = {"certificate": tls.certificate, "key": tls.key, "client_ca": tls.client_ca}
        changed["tls"] = tls.model_copy(
            update={name: (base / file).absolute() for name, file in files.items() if file is not None}
        )
    if settings.blobs is not None and "://" not in settings.blobs:
        changed["blobs"] = str((base / settings.blobs).absolute())
    return settings.model_copy(update=changed)


def _explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each problem: the key, what is allowed, the value seen."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "value_error":
            lines.append(f"{key}: {item['ctx']['error']}" if key else str(item["ctx"]["error"]))
        elif item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = model.model_fields if len(item["loc"]) == 1 else ()
            lines.append(f"{key}: unknown key{nearest(str(item['loc'][-1]), known)}")
        elif item["type"] == "missing":
            lines.append(f"{key}: is missing; it has to be given")
        else:
            lines.append(f"{key}: {item['msg'][0].lower() + item['msg'][1:]}, got {item['input']!r:.80}")
    return lines
