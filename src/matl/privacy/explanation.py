"""A plan in words: what is and is not protected, what can be learned, and what could be had for less."""

from __future__ import annotations

import math
from dataclasses import asdict
from decimal import ROUND_CEILING, Decimal
from typing import Any

from matl.codec.sketch import BlockLayout
from matl.privacy.accounting import Adjacency
from matl.privacy.choice import BLOCK, vector_bytes
from matl.privacy.demand import Kind
from matl.privacy.planner import Draft, Plan
from matl.privacy.table import NoiseTable
from matl.records import Visibility

__all__ = [
    "advice", "describe", "planning_only", "protected", "rounded_up", "simulation_only", "unprotected", "utility",
]  # fmt: skip

_SKETCH, _OTHER = 0.03, 0.02
"""Costs below which the codec is called free: about 6 % together."""


def rounded_up(epsilon: float) -> str:
    """An upper bound with nine decimals, as certificates have them, and never below what it was.

    Examples
    --------
    >>> rounded_up(7.999999934), rounded_up(7.9983436674887)
    ('7.999999934', '7.998343668')
    """
    return str(Decimal(repr(epsilon)).quantize(Decimal("1e-9"), ROUND_CEILING))


def protected(plan: Plan) -> list[str]:
    """What holds, against whom, and who is trusted with what."""
    demand, rounds = plan.demand, f"{plan.demand.rounds} rounds" if plan.demand.rounds > 1 else "one round"
    zeros = f"sending zeros instead (zero-out): epsilon <= {rounded_up(plan.zero_out)}"
    others = f"sending anything else instead (replace-one): epsilon <= {rounded_up(plan.replace_one)}"
    lines = [
        f"Everything about one client's data, in all of {rounds} together, delta = {demand.delta:g}, compared with",
        *(f"  {line}" for line in ((zeros, others) if demand.adjacency is Adjacency.ZERO_OUT else (others, zeros))),
    ]
    return [*lines, *_trusted(plan)]


def _trusted(plan: Plan) -> list[str]:
    if plan.demand.kind is Kind.LOCAL:
        return ["From everybody: a client trusts its own software only."]
    if plan.demand.kind is Kind.CENTRAL:
        holder = "an attested oracle" if plan.demand.visibility is Visibility.SEALED else "the server"
        lines = [
            f"From whoever sees results. Trusted with every update: {holder}, which clips again and adds the noise."
        ]
        if plan.demand.sampling is not None:
            lines.append("Who was drawn is part of the secret: every client and round by a draw of its own.")
        return lines
    shares = plan.shares
    assert shares is not None  # noqa: S101 - distributed plans have them
    where = "the sum" if shares.groups == 1 else f"each of {shares.groups} group sums"
    helped = (
        f"helped by up to {shares.corrupt} clients of {where}"
        if shares.corrupt
        else "as long as no client helps it (--corrupt is 0)"
    )
    return [
        f"From the server, even one that lies, {helped}.",
        f"Trusted: {shares.honest} honest clients in {where}. Clients count survivors themselves, and unmask no sum "
        f"with fewer than {shares.min_survivors}.",
    ]


def unprotected(plan: Plan) -> list[str]:
    """What does not hold, and what must not be done."""
    kind = plan.demand.kind
    lines = ["That a client takes part, when, and how long it takes."]
    if kind is not Kind.CENTRAL:
        lines.append("No amplification by sampling: the server sees who takes part.")
    lines.append(
        "Whatever else is sent: no loss, accuracy, number of examples, norm or batch statistics in clear, no weights "
        "that depend on data, no second copy with fresh noise."
    )
    lines.append("Clipping norm, learning rates and other settings that were chosen by looking at clients' data.")
    if kind is Kind.CENTRAL:
        lines.append(
            "Anybody, if a rule compares clients, as a median does and every mode but plain: the proof is of sums in "
            "which a client's weight, at most 1, depends on its own updates and public data alone."
        )
    if kind is Kind.DISTRIBUTED:
        lines.append("Client state that remembers its own noise, such as error feedback on what was sent.")
    if plan.demand.visibility is Visibility.SUMMED:
        lines.append(
            "The model from malicious clients: nobody sees a single update, and who sends words of its own counts as "
            "much as it likes."
        )
    if plan.demand.delta * plan.demand.clients >= 1:
        lines.append(
            f"Much, at this delta: {plan.demand.delta:g} is no less than 1 / clients, which would allow to publish one "
            "client picked at random."
        )
    return lines


def planning_only(plan: Draft) -> list[str]:
    """What of a plan no command of this library carries out.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from matl.privacy.planner import Demand, draft
    >>> demand = Demand(clients=100, params=10**6, rounds=30, epsilon=8.0, delta=1e-5)
    >>> planning_only(draft(demand))
    []
    >>> planning_only(draft(replace(demand, sampling=0.1, visibility=Visibility.CLEAR)))[0]
    'No command draws clients in secret with a probability.'
    """
    demand, lines = plan.demand, []
    if demand.sampling is not None:
        lines.append("No command draws clients in secret with a probability.")
    if demand.visibility is Visibility.SEALED:
        lines.append("The attested oracle of Mode 2 adds no noise, and a run with an oracle is refused privacy.")
    sent = {Kind.CENTRAL: 32, Kind.LOCAL: 64}.get(demand.kind)
    if sent is not None and (plan.step is not None or sent != 32):
        lines.append(
            f"matl run sends integers of {sent} bits per parameter with {demand.kind} noise; "
            f"{plan.bits_per_coordinate:.3g} bits are what a codec would make of them."
        )
    return lines


def simulation_only(plan: Draft) -> list[str]:
    """What of a plan `matl run` simulates, and `matl serve` refuses."""
    demand = plan.demand
    if demand.visibility is Visibility.GROUPED:
        return ["Groups: over a network there is one masked sum of all clients."]
    if demand.kind is not Kind.DISTRIBUTED and demand.visibility is Visibility.CLEAR:
        return [f"{demand.kind.capitalize()} noise: clients over a network mask updates under distributed noise."]
    return []


def utility(plan: Draft) -> list[str]:
    """What the noise leaves of the updates."""
    demand = plan.demand
    longer, over_all = 1 / plan.signal_to_noise, 1 / (plan.signal_to_noise * math.sqrt(demand.rounds))
    worth = demand.asked / math.sqrt(plan.mse_ratio)
    return [
        f"One round's sum of updates has an error {longer:.3g} times as long as itself, where updates have the "
        f"clipping norm and agree to {demand.alignment:g}.",
        f"Over {demand.rounds} rounds in the same direction: {over_all:.3g} times.",
        f"The mean of {demand.asked:,} clients has the error that {worth:,.0f} would have under central noise.",
    ]


def advice(plan: Draft) -> dict[str, str]:
    """For every part of the cost that is not small: what would make it so."""
    costs, demand = plan.costs, plan.demand
    texts = {}
    if costs.surplus > _OTHER:
        texts["surplus"] = _about_surplus(plan)
    if costs.rounding > _OTHER:
        texts["rounding"] = "wider words, or a larger --budget-bits"
    if costs.wrap > _OTHER:
        texts["wrap"] = "wider words"
    if costs.clip > _OTHER:
        texts["clip"] = "more parameters: so few coordinates cannot share a large norm"
    if costs.sketch > _SKETCH and plan.choice is not None:
        sums, bits = plan.choice.sums, plan.choice.instance.bits
        energy = costs.sketch / (1 / sums.fraction - 1)
        fraction = math.ceil(1000 / (1 + _SKETCH / energy)) / 1000
        layout = BlockLayout(demand.params, BLOCK, math.ceil(fraction * BLOCK) / BLOCK)
        needed = 8 * (vector_bytes(layout.kept, bits) or 0) / demand.params
        texts["sketch"] = (
            f"at alignment {demand.alignment:g}; --fraction {fraction:g} --budget-bits {math.ceil(20 * needed) / 20:g} "
            f"makes it {100 * _SKETCH:g} %"
        )
    return texts


def _about_surplus(plan: Draft) -> str:
    if plan.shares is None:
        return (
            f"every one of {plan.demand.asked} updates has all the noise: trust somebody to add it once, or its shares"
        )
    absent = plan.shares.members - plan.shares.honest
    each = f"each of {plan.shares.groups} sums has its own noise; " if plan.shares.groups > 1 else ""
    return f"{each}noise of {absent} clients that may drop out or be dishonest, but are there: plan for fewer"


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as plain data, for JSON."""
    demand, keys = plan.demand, plan.key_traffic
    described: dict[str, Any] = {
        "mechanism": demand.kind.value,
        "visibility": demand.visibility.value,
        "clients": demand.clients,
        "params": demand.params,
        "rounds": demand.rounds,
        "adjacency": demand.adjacency.value,
        "epsilon": plan.epsilon,
        "delta": demand.delta,
        "epsilon_zero_out": plan.zero_out,
        "epsilon_replace_one": plan.replace_one,
        "bits_per_coordinate": plan.bits_per_coordinate,
        "bytes_per_round": plan.vector_bytes,
        "bytes_per_round_with_keys": plan.vector_bytes + (keys.up if keys else 0),
        "key_bytes_received_per_round": keys.down if keys else 0,
        "predicted_mse_ratio": plan.mse_ratio,
        "costs": {name: float(value) for name, value in asdict(plan.costs).items()},
        "alignment": demand.alignment,
        "signal_to_noise": plan.signal_to_noise,
        "signal_to_noise_of_all_rounds": plan.signal_to_noise * math.sqrt(demand.rounds),
        "clip_norm": demand.clip,
        "noise_multiplier_of_central_noise": plan.multiplier,
        "protected": protected(plan),
        "not_protected": unprotected(plan),
        "advice": advice(plan),
        "planning_only": planning_only(plan),
        "simulation_only": simulation_only(plan),
    }
    return described | (_constants(plan) if plan.instance is not None else _codec(plan))


def _constants(plan: Plan) -> dict[str, Any]:
    instance, shares, choice = plan.instance, plan.shares, plan.choice
    assert instance is not None and shares is not None and choice is not None  # noqa: S101, PT018 - they come together
    table = NoiseTable(instance.table, instance.resolution)
    return {
        "sums_per_round": shares.groups,
        "members_of_a_sum": shares.members,
        "min_survivors": shares.min_survivors,
        "corrupt": shares.corrupt,
        "honest_survivors": shares.honest,
        "probability_of_more_corrupt": float(shares.broken),
        "neighbours": plan.key_traffic.neighbours if plan.key_traffic else 0,
        "bits": instance.bits,
        "block": BLOCK,
        "kept": choice.sums.layout.rows(BLOCK),
        "words": choice.sums.layout.kept,
        "fraction": choice.sums.fraction,
        "share_variance": float(table.variance),
        "noise_variance": float(instance.survivors * table.variance),
        "bound": str(instance.bound),
        "squared_norm": str(instance.squared_norm),
        "slack": 0.0,
        "certified_delta": str(instance.delta),
    }


def _codec(plan: Plan) -> dict[str, Any]:
    named = "float32" if plan.step is None else {"name": "rotated", "step": plan.step}
    return {"codec": named, "noise_multiplier": str(plan.noise_multiplier), "sampling": plan.demand.sampling}
