"""What clients' machines have to prove to a coordinator: the table ``attestation`` of its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from matl.attest.amd import AmdVerifier, SnpPolicy
from matl.attest.android import AndroidPolicy, AndroidVerifier
from matl.attest.apple import AppAttestPolicy, AppleVerifier
from matl.attest.claims import Verifier
from matl.attest.intel import IntelVerifier, SgxPolicy, TdxPolicy
from matl.attest.revocation import DAYS, RevokedList
from matl.attest.software import SoftwarePolicy, SoftwareVerifier
from matl.attest.tpm import TpmPolicy, TpmVerifier
from matl.coordinator.attestations import Attestation
from matl.errors import ConfigError, MatlError, MissingExtraError

__all__ = ["AttestationSettings", "Checked", "with_revoked"]

_VERIFIERS: Mapping[str, type[Verifier[Any]]] = {
    "tpm": TpmVerifier,
    "sgx": IntelVerifier,
    "tdx": IntelVerifier,
    "snp": AmdVerifier,
    "android": AndroidVerifier,
    "apple": AppleVerifier,
    "software": SoftwareVerifier,
}
_LISTS = {"android": RevokedList.google, "snp": RevokedList.amd}


class Checked(NamedTuple):
    """A kind of evidence that is checked.

    Attributes
    ----------
    name : str
        The name of its table.
    attestation : Attestation
        By what it is checked, and what it has to prove.
    hardware : bool
        Whether whoever passes has proved to be a maker's hardware.
    """

    name: str
    attestation: Attestation[Any]
    hardware: bool


class AttestationSettings(BaseModel):
    """What clients' machines may prove, and whether they have to: the table ``attestation``.

    Each table in it is a policy in the terms of its verifier.

    Attributes
    ----------
    require : bool
        Whether nobody enrols without evidence that passes one of these policies.
    tpm : TpmPolicy or None
        Of quotes of a TPM 2.0.
    sgx, tdx : SgxPolicy or TdxPolicy or None
        Of quotes of Intel's processors, one of the two.
    snp : SnpPolicy or None
        Of reports of AMD's processors; ``revoked`` may name the file with AMD's list.
    android : AndroidPolicy or None
        Of keys of Android phones; ``revoked`` may name the file with Google's list.
    apple : AppAttestPolicy or None
        Of App Attest on iPhones.
    software : SoftwarePolicy or None
        Of what a key in a file says. No hardware proves anything then.
    list_days : float
        How many days old the files may be that ``revoked`` names. They are read anew when they change; with one that is
        older, no evidence of its kind passes.

    Examples
    --------
    >>> settings = AttestationSettings.model_validate({"require": True, "software": {"measurements": ["5f" * 32]}})
    >>> [(one.name, one.hardware) for one in settings.checked()], list(settings.formats())
    ([('software', False)], ['software'])
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    require: bool = False
    tpm: TpmPolicy | None = None
    sgx: SgxPolicy | None = None
    tdx: TdxPolicy | None = None
    snp: SnpPolicy | None = None
    android: AndroidPolicy | None = None
    apple: AppAttestPolicy | None = None
    software: SoftwarePolicy | None = None
    list_days: Annotated[float, Field(gt=0)] = DAYS

    @model_validator(mode="after")
    def _passable(self) -> AttestationSettings:
        if self.require and not any(self.checked()):
            raise ValueError(f"expected a policy beside require = true, got none: add one of {', '.join(_VERIFIERS)}")
        if self.sgx is not None and self.tdx is not None:
            raise ValueError("expected sgx or tdx, got both: their evidence is of one format, with one policy")
        if (tpm := self.tpm) is not None:
            if tpm.require_hardware and not any(key.hardware for key in tpm.endorsed):
                raise ValueError(
                    "expected tpm.endorsed, the attestation keys that answered a challenge, got none with hardware = "
                    "true: no quote could pass; for trying out, require_hardware = false takes quotes that no hardware "
                    "stands behind"
                )
            if naive := [key.name for key in tpm.endorsed if key.expires.tzinfo is None]:
                raise ValueError(f"expected tpm.endorsed with expires as 2031-01-01T00:00:00Z, got no zone: {naive}")
        return self

    def checked(self) -> Iterator[Checked]:
        """The kinds of evidence that are checked."""
        for name, verifier in _VERIFIERS.items():
            policy = getattr(self, name)
            if policy is not None:
                hardware = policy.require_hardware if isinstance(policy, TpmPolicy) else name != "software"
                yield Checked(name, Attestation(verifier(), policy), hardware)

    def formats(self) -> dict[str, Attestation[Any]]:
        """How evidence is checked, by its format.

        Raises
        ------
        MissingExtraError
            What checks it is not installed.
        """
        if (self.sgx or self.tdx) and find_spec("dcap_qvl") is None:
            raise MissingExtraError("dcap-qvl", extra="attest")
        return {one.attestation.verifier.format: one.attestation for one in self.checked()}


def with_revoked(values: Any, base: Path) -> Any:
    """The table ``attestation`` with lists for the files that ``android.revoked`` and ``snp.revoked`` name.

    Raises
    ------
    ConfigError
        A file cannot be read, or is not the maker's list.
    """
    if not isinstance(values, dict):
        return values
    given = values.get("list_days", DAYS)
    days = given if isinstance(given, int | float) and given > 0 else DAYS  # the model says what is wrong with it
    for name, kind in _LISTS.items():
        policy = values.get(name)
        if not isinstance(policy, dict) or not isinstance(policy.get("revoked"), str):
            continue
        path = base / policy["revoked"]
        try:
            listed = kind(path, days=days)
        except (OSError, ValueError, MatlError) as error:  # a name may hold what no name may
            raise ConfigError(str(path), [f"attestation.{name}.revoked: {error}"]) from error
        values = {**values, name: {**policy, "revoked": listed}}
    return values
