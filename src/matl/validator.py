"""A judge for somebody else's server: it says which updates to believe, and signs what it says."""

from __future__ import annotations

import hashlib
import inspect
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from matl import state as states
from matl import validate
from matl.attest.canonical import check_identifier, unix_ms
from matl.attest.claims import Clock, system_clock
from matl.attest.keys import SigningKey
from matl.attest.receipts import Receipt, sign_receipt
from matl.errors import InvalidValueError, LayoutError, StateError
from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining
from matl.learning.oracle import RootOracle
from matl.learning.tasks import Task
from matl.modes.mode1 import Mode1
from matl.params import Arrays, Float32, ParamLayout, values_hash
from matl.records import Judgement, Mode, Rejection, RoundSpec, Status, Update, Verdict
from matl.screening import decode_payload
from matl.state import State
from matl.workloads import Accepted, TrainingWorkload, suspicion

__all__ = ["MATLValidator", "Validation"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What was decided about the updates of a round.

    Parameters
    ----------
    aggregate : float32 array of shape (d,)
        The judge's own combination of what it believes, to be added to the model; ``None`` if no update could be read.
    verdicts : mapping of str to Verdict
        By client id. What could not be read is rejected.
    receipts : mapping of str to bytes
        By client id, signed; see `matl.attest.receipts`. An update that never was bytes and whose arrays are not those
        of the model has no hash, and so no receipt.
    diagnostics : mapping
        Numbers and words about the round as a whole.
    """

    aggregate: Float32 | None
    verdicts: Mapping[str, Verdict]
    receipts: Mapping[str, bytes]
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, float]:
        """With which share of its own weight each update should count, in [0, 1], for a server's own mean."""
        return {client: verdict.weight for client, verdict in self.verdicts.items()}


class MATLValidator:
    """Judges the updates of rounds that another server runs.

    It keeps in mind what clients did, as `state`, and asks nothing of the server but the model that clients started
    from and their updates.

    Parameters
    ----------
    task : Task
        The model and its loss.
    root : Dataset, optional
        Clean samples of the validator's own, which a judge with an oracle needs.
    recipe : LocalTraining, optional
        What clients do locally.
    policy : Mode or callable
        The judge, or what makes one, of an ``oracle`` if it takes one: `matl.Mode1`, `matl.Mode0`, ...
    key : SigningKey, optional
        Signs receipts; a new one unless given, which lasts as long as this object.
    run : str
        What the rounds are called in receipts.
    max_norm : float, optional
        L2 norm above which an update is rejected.
    clock : Clock
        Of tests.

    Raises
    ------
    InvalidValueError
        The policy needs root data, and there are none; or the run's name is none.

    Examples
    --------
    >>> import matl
    >>> data = matl.federate("synthetic", clients=8, seed=1)
    >>> task, recipe = matl.MLPTask(features=20, num_classes=10), matl.LocalTraining(steps=3)
    >>> validator = MATLValidator(task, root=data.root, recipe=recipe)
    >>> params = task.init(np.random.default_rng(0))
    >>> rngs = [np.random.default_rng([0, index]) for index in range(8)]
    >>> updates = matl.train_locally(task, params, data.clients, recipe, rngs)
    >>> receipts = validator.validate({f"c{index}": update for index, update in enumerate(updates)}, params=params)
    >>> len(receipts), validator.round
    (8, 1)
    """

    def __init__(
        self,
        task: Task,
        *,
        root: Dataset | None = None,
        recipe: LocalTraining | None = None,
        policy: Mode | Callable[..., Mode] = Mode1,
        key: SigningKey | None = None,
        run: str = "validation",
        max_norm: float | None = None,
        clock: Clock = system_clock,
    ) -> None:
        check_identifier(run=run)
        self.key = SigningKey.generate() if key is None else key
        self._clock = clock
        recipe = LocalTraining() if recipe is None else recipe
        mode = _judge(policy, task, root, recipe)
        self._workload = TrainingWorkload(mode=mode, layout=task.layout, run=run, recipe=recipe, max_norm=max_norm)
        self._mode_state = mode.init(task.layout)
        self.round = 0

    @property
    def layout(self) -> ParamLayout:
        """The model's arrays."""
        return self._workload.layout

    @property
    def state(self) -> bytes:
        """All that is remembered, for `restore`."""
        return states.pack({"version": _VERSION, "round": self.round, "mode": self._mode_state, "policy": self._policy})

    def restore(self, state: bytes) -> None:
        """Go on from what `state` was.

        Raises
        ------
        StateError
            It cannot be read, or was made under another policy.
        """
        content = states.unpack(state)
        if content.get("version") != _VERSION:
            raise StateError(f"a validator's state of version {content.get('version')}, this library reads {_VERSION}")
        if content["policy"] != self._policy:
            raise StateError(
                f"the state was made under policy {content['policy'][:12]}, this is {self._policy[:12]}: another "
                "judge, root, task or recipe"
            )
        self.round, self._mode_state = int(content["round"]), content["mode"]

    def judge(
        self,
        updates: Mapping[str, bytes | Arrays | NDArray[Any]],
        *,
        params: Arrays | NDArray[Any],
        num_examples: Mapping[str, int] | None = None,
        seed: int | None = None,
    ) -> Validation:
        """Judge the updates of the next round, and remember what clients did.

        Parameters
        ----------
        updates : mapping of str to update
            By client id, new minus old parameters: named arrays, a vector of shape (d,), or the bytes of safetensors.
        params : arrays or array of shape (d,)
            The parameters that clients started from.
        num_examples : mapping of str to int, optional
            On how many examples each update was trained.
        seed : int, optional
            Of all randomness of the judge; drawn from the operating system's unless given.

        Returns
        -------
        Validation
            Whatever clients sent, and nothing is raised for it.

        Raises
        ------
        LayoutError, InvalidValueError
            The parameters are not the model's.
        UndecidedError, BoundError
            There are too few updates for the judge to say anything; nothing is remembered.
        """
        for client in updates:
            check_identifier(client_id=client)
        vector = self._vector(params)
        state: State = {
            "round": self.round,
            "params": vector,
            "mode": self._mode_state,
            "model_hashes": {str(self.round): values_hash(vector)},
        }
        spec = self._workload.plan(state)
        sent = {
            client: self._update(client, payload, (num_examples or {}).get(client), spec)
            for client, payload in sorted(updates.items())
        }
        screened = {client: self._workload.screen(update, spec, state, seen=set()) for client, update in sent.items()}
        verdicts, judgement = self._decide(screened, spec, state, secrets.randbits(63) if seed is None else seed)
        receipts = {}
        for client, verdict in verdicts.items():
            update_hash = self._hash(sent[client], screened[client])
            if update_hash is not None:
                receipts[client] = self._receipt(verdict, update_hash, spec)
        self.round += 1
        return Validation(
            aggregate=None if judgement is None else judgement.aggregate,
            verdicts=verdicts,
            receipts=receipts,
            diagnostics={} if judgement is None else judgement.diagnostics,
        )

    def validate(
        self,
        updates: Mapping[str, bytes | Arrays | NDArray[Any]],
        *,
        params: Arrays | NDArray[Any],
        num_examples: Mapping[str, int] | None = None,
        seed: int | None = None,
    ) -> list[bytes]:
        """The signed receipts of `judge`, in the order of client ids.

        Raises
        ------
        LayoutError, InvalidValueError, UndecidedError, BoundError
            As `judge`.
        """
        validation = self.judge(updates, params=params, num_examples=num_examples, seed=seed)
        return list(validation.receipts.values())

    def _decide(
        self, screened: Mapping[str, Accepted | Rejection], spec: RoundSpec, state: State, seed: int
    ) -> tuple[dict[str, Verdict], Judgement | None]:
        """A verdict for each update, and the judgement on those that could be read."""
        verdicts = {
            client: Verdict(client, 0.0, Status.REJECTED, reason=result.reason)
            for client, result in screened.items()
            if isinstance(result, Rejection)
        }
        readable = [result for result in screened.values() if isinstance(result, Accepted)]
        with threadpool_limits(1):  # the bits of a sum depend on how many threads share it
            cohort = self._workload.cohort(readable, spec, state, seed=seed)
            if cohort is None:
                return verdicts, None
            judgement, self._mode_state = self._workload.mode.judge(cohort, self._mode_state)
        verdicts |= {verdict.unit: verdict for verdict in judgement.verdicts}
        return {client: verdicts[client] for client in screened}, judgement

    def _vector(self, params: Arrays | NDArray[Any]) -> Float32:
        if isinstance(params, np.ndarray):
            validate.vector(self.layout.size, params=params)
            return params.astype(np.float32, copy=False)
        return self.layout.flatten(params)

    def _update(self, client: str, payload: Any, examples: int | None, spec: RoundSpec) -> Update:
        flat = isinstance(payload, np.ndarray) and payload.shape == (self.layout.size,)
        return Update(
            client_id=client,
            run=spec.run,
            round=spec.round,
            base_version=spec.round,
            model_hash=spec.model_hash,
            payload=self.layout.unflatten(payload) if flat else payload,
            payload_sha256=hashlib.sha256(payload).hexdigest() if isinstance(payload, bytes) else None,
            num_examples=examples,
        )

    def _hash(self, update: Update, result: Accepted | Rejection) -> str | None:
        """What a receipt calls an update: the hash of its bytes, or of its values if it never was bytes."""
        if update.payload_sha256 is not None:
            return update.payload_sha256
        if isinstance(result, Accepted):
            return values_hash(result.row)
        try:
            return values_hash(self.layout.flatten(decode_payload(update.payload)))
        except (LayoutError, ValueError, TypeError, AttributeError):
            return None

    def _receipt(self, verdict: Verdict, update_hash: str, spec: RoundSpec) -> bytes:
        receipt = Receipt(
            run=spec.run,
            round=spec.round,
            client_id=verdict.unit,
            model_hash=spec.model_hash,
            update_hash=update_hash,
            status=verdict.status,
            score=suspicion(verdict.evidence, self._workload.mode.channels),
            weight=float(verdict.weight),
            policy_hash=self._policy,
            hardware_root=False,
            signer=self.key.public.fingerprint,
            timestamp_unix_ms=unix_ms(self._clock()),
        )
        return sign_receipt(receipt, self.key)

    @property
    def _policy(self) -> str:
        return self._workload.mode.digest


def _judge(policy: Any, task: Task, root: Dataset | None, recipe: LocalTraining) -> Mode:
    """The judge that a policy is or makes."""
    if hasattr(policy, "judge") and not inspect.isclass(policy):
        mode: Mode = policy
        return mode
    if not callable(policy):
        raise InvalidValueError(f"expected policy as a judge or what makes one, such as matl.Mode1, got {policy!r}")
    if "oracle" not in inspect.signature(policy).parameters:
        made: Mode = policy()
        return made
    if root is None:
        raise InvalidValueError(
            f"{getattr(policy, '__name__', 'the policy')} judges by clean samples of the validator's own: give root, "
            "or choose policy=matl.Mode0, which needs none"
        )
    with_oracle: Mode = policy(oracle=RootOracle(task, root, recipe))
    return with_oracle
