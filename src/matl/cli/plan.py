"""``matl plan``: what a federation has to choose before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from matl.cli import options
from matl.cli.console import print_json, show
from matl.cli.tables import table
from matl.errors import InvalidValueError
from matl.files import write_atomic
from matl.privacy.accounting import Adjacency
from matl.privacy.alternatives import Alternative, nearest
from matl.privacy.demand import Demand, Kind
from matl.privacy.explanation import (
    advice,
    describe,
    planning_only,
    protected,
    rounded_up,
    simulation_only,
    unprotected,
    utility,
)
from matl.privacy.planner import Plan, plan
from matl.privacy.visibility import WAYS, Option, trade
from matl.records import Visibility

__all__ = ["planning"]

planning = typer.Typer(help="Choose what a federation has to agree on before it begins.", no_args_is_help=True)

_MEANING = {
    "noise": "the noise itself, over Gaussian noise",
    "surplus": "noise beyond what the proof needs",
    "sketch": "what the sketch leaves out",
    "rounding": "rounding to words",
    "wrap": "sums that wrap around",
    "clip": "what the bounds of the proof cut off",
}


class _Between(StrEnum):
    """The adjacencies as they are written on a command line."""

    ZERO_OUT = Adjacency.ZERO_OUT.replace("_", "-")
    REPLACE_ONE = Adjacency.REPLACE_ONE.replace("_", "-")


@planning.callback()
def _choose() -> None:
    """Choose what a federation has to agree on before it begins."""


@planning.command("privacy")
def privacy(
    *,
    clients: Annotated[int, typer.Option(min=1, help="Clients that are asked in a round.")],
    params: Annotated[int, typer.Option(min=1, help="Parameters of the model.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which a client may take part, ever.")],
    epsilon: Annotated[float, typer.Option(help="What a client's data are protected by, over all rounds.")],
    delta: Annotated[float, typer.Option(help="Below 1 / clients.")] = 1e-5,
    dropout: Annotated[float, typer.Option(help="Clients that may drop out: a share below 1, or a number.")] = 0.0,
    corrupt: Annotated[float, typer.Option(help="Clients that may work for the server, likewise.")] = 0.0,
    malicious: Annotated[float, typer.Option(help="Further clients that may send anything, likewise.")] = 0.0,
    budget_bits: Annotated[float, typer.Option(help="Bits per parameter that an update may take, keys aside.")] = 3.2,
    visibility: Annotated[Visibility, typer.Option(help="What the judge sees.")] = Visibility.SUMMED,
    group_size: Annotated[
        int | None, typer.Option(help="Fewest clients of a group.", show_default="as malicious clients allow")
    ] = None,
    mechanism: Annotated[Kind, typer.Option(help="Who adds the noise; auto: who the visibility asks for.")] = Kind.AUTO,
    alignment: Annotated[
        float, typer.Option(help="Norm of the sum of updates over the sum of their norms, as far as publicly known.")
    ] = 1.0,
    adjacency: Annotated[_Between, typer.Option(help="To what epsilon refers.")] = _Between.ZERO_OUT,
    sampling: Annotated[
        float | None,
        typer.Option(help="Secret probability with which a trusted server asks each client.", show_default="all"),
    ] = None,
    clip: Annotated[float, typer.Option(help="Norm to which updates are clipped; a public constant.")] = 1.0,
    bits: Annotated[int | None, typer.Option(help="Bits of a word.", show_default="the best number")] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Share of the sketch that is sent.", show_default="what the budget allows")
    ] = None,
    trade_off: Annotated[bool, typer.Option("--trade", help="Compare what the judge may see instead.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the privacy manifest to this file.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Choose the constants of differential privacy, say what they cost and protect, or what could be had instead.

    The epsilon is certified in integers, as by matl verify privacy; errors are predicted.
    """
    demand = Demand(
        clients=clients,
        params=params,
        rounds=rounds,
        epsilon=epsilon,
        delta=delta,
        dropout=dropout,
        corrupt=corrupt,
        malicious=malicious,
        budget_bits=budget_bits,
        visibility=visibility,
        group_size=group_size,
        mechanism=mechanism,
        alignment=alignment,
        adjacency=Adjacency(adjacency.replace("-", "_")),
        sampling=sampling,
        clip=clip,
        bits=bits,
        fraction=fraction,
    )
    choices = trade(demand) if trade_off else ()
    try:
        chosen = plan(demand)
    except InvalidValueError as error:
        if choices and not as_json:
            _show_trade(choices, demand)
        raise type(error)(f"{error}\n{_in_words(nearest(demand))}") from error
    found = describe(chosen)
    if out is not None:
        manifest = chosen.manifest()
        write_atomic(out, manifest.document())
        found |= {"manifest": str(out), "sha256": manifest.sha256}
    if as_json:
        print_json(found | ({"trade": [_option(option) for option in choices]} if trade_off else {}))
        return
    _show(chosen, found)
    if choices:
        _show_trade(choices, demand)


def _in_words(alternatives: Sequence[Alternative]) -> str:
    if not alternatives:
        return "no single change makes it feasible"
    lines = ["nearest plans that hold:"]
    for alternative in alternatives:
        made = alternative.plan
        change = " ".join(
            f"--{name.replace('_', '-')} {value:g}"
            if isinstance(value, float)
            else f"--{name.replace('_', '-')} {value}"
            for name, value in alternative.changed.items()
        )
        lines.append(
            f"  {change.replace('--sampling None', 'without --sampling'):<44} {made.bits_per_coordinate:.3g} bits, "
            f"{made.mse_ratio:.3g} times the error of central noise{', planning only' if planning_only(made) else ''}"
        )
    return "\n".join(lines)


def _show(chosen: Plan, found: dict[str, Any]) -> None:
    demand = chosen.demand
    _section(
        f"{demand.kind} noise, {demand.visibility} updates",
        [
            f"certified: epsilon <= {rounded_up(chosen.epsilon)} at delta = {demand.delta:g}, {demand.rounds} rounds, "
            f"{demand.adjacency.replace('_', '-')}",
            *_on_the_wire(chosen, found),
            *([f"manifest: {found['manifest']}, SHA-256 {found['sha256']}"] if "manifest" in found else []),
        ],
    )
    texts, costs = advice(chosen), asdict(chosen.costs)
    rows = [
        (_MEANING[name], f"{100 * (value - (name == 'noise')):+.1f} %", texts.get(name, ""))
        for name, value in costs.items()
        if name == "noise" or value > 0
    ]
    rows.append(("together", f"{100 * (chosen.mse_ratio - 1):+.1f} %", f"{chosen.mse_ratio:.3g} times as large"))
    show("\nmean squared error of a round's sum, over central Gaussian noise at the same epsilon", markup=False)
    show(table(("", "cost", "to lower it"), rows, left=("", "to lower it")), soft_wrap=True)
    _section("\nutility", utility(chosen))
    _section("\nprotected", protected(chosen))
    _section("\nnot protected", unprotected(chosen))
    for title, lines in (("planning only", planning_only(chosen)), ("simulation only", simulation_only(chosen))):
        if lines:
            _section(f"\n{title}", lines)


def _section(title: str, lines: Sequence[str]) -> None:
    show(title, markup=False, style="bold")
    for line in lines:
        show(f"  {line}", markup=False)


def _on_the_wire(chosen: Plan, found: dict[str, Any]) -> list[str]:
    bits, smaller = chosen.bits_per_coordinate, 32 / chosen.bits_per_coordinate
    lines = [f"{bits:.3g} bits per parameter, {smaller:.3g} times smaller than float32: {chosen.vector_bytes:,} bytes"]
    keys = chosen.key_traffic
    if keys is None:
        codec = "float32" if chosen.step is None else f"rotated, step {chosen.step:.3g}"
        return [*lines, f"codec {codec}; noise multiplier {float(chosen.noise_multiplier or 0):.5g}"]
    return [
        *lines,
        f"secure aggregation adds {keys.up:,} bytes up and {keys.down:,} down, with {keys.neighbours} neighbours",
        f"{found['words']:,} words of {found['bits']} bits; sketch {found['kept']} of {found['block']} rows; "
        f"B = {found['bound']}, c^2 = {float(chosen.instance.squared_norm) if chosen.instance else 0:.5g}",
        f"noise of variance {found['noise_variance']:.5g} by {found['honest_survivors']} honest clients; "
        f"{found['members_of_a_sum']} clients in a sum, of which {found['min_survivors']} have to survive",
    ]


def _show_trade(choices: Sequence[Option], demand: Demand) -> None:
    rows = [
        (
            f"{option.way} {option.group_size}" if option.way.visibility is Visibility.GROUPED else str(option.way),
            f"{option.malicious} of {demand.asked}",
            f"{option.noise_factor:.2f}",
            *(_figure(value) for value in (option.error, option.signal_to_noise, option.worth)),
        )
        for option in choices
    ]
    show("\nwhat the judge may see, with as many drop-outs and dishonest clients", markup=False, style="bold")
    header = ("judge sees", "malicious", "sqrt(G)", "error", "signal", "worth")
    show(table(header, rows, left=header[:1]), soft_wrap=True)
    for option in choices:
        if option.refused:
            show(f"  {option.way} {option.group_size}: {option.refused}", markup=False)
    for way in WAYS:
        show(f"  {way}: {way.seen}; judged by {way.judged_by}", markup=False)
    for line in _LEGEND:
        show(f"  {line}", markup=False, style="dim")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


_LEGEND = (
    "malicious: most of them that a rule over what is seen bears in all but one of 1000 rounds (exact, hypergeometric)",
    "  if their noise is there (--malicious plans without it); 0 where a rule that compares clients has no epsilon",
    "sqrt(G): growth of the noise, every one of G sums needing all of it",
    "error: length of the sum's error, over that of central noise; signal: length of the sum, over that of its error",
    "worth: clients whose mean has the same error under central noise",
)


def _option(option: Option) -> dict[str, Any]:
    return {
        "visibility": option.way.visibility.value,
        "mechanism": option.way.mechanism.value,
        "group_size": option.group_size,
        "groups": option.groups,
        "seen": option.way.seen,
        "judged_by": option.way.judged_by,
        "malicious_tolerated": option.malicious,
        "noise_factor": option.noise_factor,
        "predicted_mse_ratio": option.plan and option.plan.mse_ratio,
        "signal_to_noise": option.signal_to_noise,
        "worth_clients": option.worth,
        "refused": option.refused or None,
    }
