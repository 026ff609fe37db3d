"""From the privacy that a configuration asks for to a channel that has it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from matl.aggregators import Mean
from matl.errors import InvalidValueError
from matl.modes import Mode1, Plain
from matl.privacy.accounting import Adjacency
from matl.privacy.clipping import AdaptiveClip
from matl.privacy.mechanism import Central, Distributed, Local, Mechanism
from matl.privacy.planner import Demand, Kind, Plan, plan
from matl.records import Mode, Visibility
from matl.state import State
from matl.workloads import Private

__all__ = ["PrivacyConfig", "check_judge", "private_channel", "told"]

Share = Annotated[float, Field(ge=0)]


class PrivacyConfig(BaseModel):
    """Differential privacy of the sums of updates; see `matl.privacy.planner.Demand`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_enum_values=True, validate_default=True
    )

    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    mechanism: Literal[Kind.DISTRIBUTED, Kind.CENTRAL, Kind.LOCAL] = Kind.DISTRIBUTED
    adjacency: Adjacency = Adjacency.ZERO_OUT
    clip: Annotated[float, Field(gt=0)] = 1.0
    adaptive: AdaptiveClip | None = None
    dropout: Share = 0.0
    corrupt: Share = 0.0
    malicious: Share = 0.0
    group_size: Annotated[int, Field(ge=2)] | None = None
    budget_bits: Annotated[float, Field(gt=0)] = 3.2
    bits: Annotated[int, Field(ge=2, le=8)] | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    alignment: Annotated[float, Field(gt=0, le=1)] = 1.0
    masks: bool = False

    def demand(self, clients: int, cohort: int, params: int, rounds: int) -> Demand:
        """What the planner is asked for: by rounds of ``cohort`` out of ``clients``."""
        elsewhere = ("mechanism", "adjacency", "adaptive", "masks")
        given = {key: getattr(self, key) for key in type(self).model_fields if key not in elsewhere}
        # The clients of a round may be any, so all that are corrupt may be among them.
        for key in ("corrupt", "malicious"):
            count = math.ceil(given[key] * clients) if given[key] < 1 else math.ceil(given[key])
            given[key] = min(count, cohort)
        if self.mechanism == Kind.DISTRIBUTED:
            visibility = Visibility.SUMMED if self.group_size is None else Visibility.GROUPED
        elif self.group_size is None:
            visibility, given["budget_bits"] = Visibility.CLEAR, 32.0
        else:
            raise InvalidValueError(
                f"expected no group_size with {self.mechanism} noise, got group_size={self.group_size}; groups are for "
                "sums that are masked"
            )
        return Demand(
            clients=cohort,
            params=params,
            rounds=rounds,
            visibility=visibility,
            mechanism=Kind(self.mechanism),
            adjacency=Adjacency(self.adjacency),
            **given,
        )


def private_channel(
    config: PrivacyConfig, *, clients: int, cohort: int, params: int, rounds: int
) -> tuple[Private, Plan]:
    """A channel whose every round has the planned privacy.

    Parameters
    ----------
    config : PrivacyConfig
        What is asked for.
    clients, cohort : int
        All clients, and how many take part in a round.
    params, rounds : int
        Size of the model, and rounds in which a client may take part.

    Raises
    ------
    InvalidValueError
        It cannot be had.
    BoundError
        More malicious clients are to be borne than any rule can.
    """
    words = params if config.adaptive is None else params + 1  # whether an update was short enough is told in one more
    planned = plan(config.demand(clients, cohort, words, rounds))
    mechanism, shares = _mechanism(planned, words), planned.shares
    size = None if shares is None or config.group_size is None else shares.members
    if planned.demand.kind is Kind.LOCAL:
        size = 1
    return Private(mechanism, size, config.masks, config.adaptive), planned


def _mechanism(planned: Plan, params: int) -> Mechanism:
    clip = planned.demand.clip
    if planned.instance is not None and planned.choice is not None:
        return Distributed(planned.manifest().encoder(params))
    kind = Central if planned.demand.kind is Kind.CENTRAL else Local
    if planned.noise_multiplier is None:
        raise InvalidValueError(f"expected a plan with a noise multiplier, got one of {planned.demand.kind} without")
    return kind(params, clip, planned.noise_multiplier)


def check_judge(privacy: PrivacyConfig, mode: Mode) -> None:
    """That the judge of a run does without what private sums hide.

    Raises
    ------
    InvalidValueError
        It does not.
    """
    if privacy.mechanism == Kind.LOCAL:
        # What is done with updates that are private already costs nothing more. But Mode 1 expects of honest clients
        # what its shadows do, and these add no noise: it would accuse everybody.
        if isinstance(mode, Mode1):
            raise InvalidValueError(
                "Mode1 judges clients by how honest updates look without noise, and with local noise none does; use "
                "mode0, or mode plain and a robust rule"
            )
        return
    if not isinstance(mode, Plain):
        raise InvalidValueError(
            f"{type(mode).__name__} judges clients one by one over rounds, and private sums show none of them; use "
            "mode plain with privacy, and a robust rule where it has a group_size; or let every client add all of the "
            "noise (privacy.mechanism=local), after which mode0 and any rule may judge"
        )
    if privacy.group_size is None and not isinstance(mode.aggregator, Mean):
        raise InvalidValueError(
            f"one sum of all clients leaves a rule nothing to choose from, got {type(mode.aggregator).__name__}; set "
            "privacy.group_size, or leave the aggregator out"
        )


def told(planned: Plan, channel: Private, state: State) -> Mapping[str, Any]:
    """What a result says about its privacy, after a run that came to this state of its workload."""
    demand, adaptive = planned.demand, channel.adaptive
    return {
        "mechanism": demand.kind.value,
        "epsilon": {"zero_out": planned.zero_out, "replace_one": planned.replace_one},
        "delta": demand.delta,
        "rounds": demand.rounds,
        "clip": demand.clip,
        "last_clip": state.get("clip", demand.clip),
        "predicted_mse_ratio": planned.mse_ratio * (1.0 if adaptive is None else adaptive.mse_ratio),
        "honest_shares": None if planned.instance is None else planned.instance.survivors,
        "min_survivors": None if planned.shares is None else planned.shares.min_survivors,
        "malicious_planned_for": demand.count("malicious"),
        "manifest": None if planned.instance is None else planned.manifest().sha256,
        "secure_aggregation": ("computed" if channel.masks else "taken for done") if planned.shares else None,
        "simulated": "noise comes from the seed and protects nobody; malicious clients use the encoder, which shortens "
        "what they send, unless the attack is forged_words",
    }
