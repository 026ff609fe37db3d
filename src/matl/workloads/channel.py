"""Channels: how updates travel from clients to the judge, and what of them the host sees on the way."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matl.codec import Codec, derive_seed
from matl.errors import AggregationAborted, InvalidValueError
from matl.params import Arrays, Float32, ParamLayout
from matl.privacy.clipping import AdaptiveClip
from matl.privacy.mechanism import Central, Distributed, Mechanism
from matl.privacy.secagg import Phase, Session, aggregate_in_memory, draw_groups
from matl.privacy.timing import Stopwatch
from matl.privacy.words import Words
from matl.records import Rejection, RoundSpec, Unit, Update, Visibility
from matl.screening import HEADER_LIMIT, largest_payload, screen_row, screen_values, screen_words
from matl.state import State

__all__ = ["Channel", "Clear", "Encoded", "Private", "Sender", "Shown"]

_WORDS = "words"


@dataclass(frozen=True, slots=True)
class Sender:
    """A client, as far as a channel has to know it.

    Parameters
    ----------
    id : str
        Who it is.
    state : dict
        What it remembers of the update before; empty at first.
    key : bytes or None
        32 bytes that all its randomness comes from, for simulations; the operating system's unless it is given.
    """

    id: str
    state: State
    key: bytes | None = None


class Shown(NamedTuple):
    """What the judge is shown of a round.

    Attributes
    ----------
    units : tuple of Unit
        Perhaps none.
    rows : sequence of float32 arrays of shape (d,)
        The update of each.
    within_clip : float or None
        Share of the clients whose updates were within the clipping norm, where that adapts.
    """

    units: tuple[Unit, ...]
    rows: Sequence[Float32]
    within_clip: float | None = None


class Channel(ABC):
    """What happens to an update between the client that made it and the judge.

    A client calls `pack`. The host calls `unpack` for each message that passed its envelope, and `units` once a round,
    for what the judge is shown.
    """

    kind: ClassVar[str] = "delta"
    """What an update holds, see `matl.records.RoundSpec`."""
    visibility: Visibility = Visibility.CLEAR
    """What the judge sees."""
    tells_examples: ClassVar[bool] = True
    """Whether clients say how many examples they hold."""
    draws: ClassVar[bool] = True
    """Whether `pack` draws at random."""

    @property
    @abstractmethod
    def codec(self) -> str:
        """How payloads are encoded, for `matl.records.RoundSpec`."""

    group_size: int | None = 1
    """Fewest clients of a unit; ``None`` for all of a round."""

    @property
    def first_clip(self) -> float | None:
        """Norm to which updates are shortened in the first round, where that adapts."""
        return None

    def next_clip(self, clip: float, within: float) -> float:
        """The norm after a round in which this share of the clients was within it."""
        return clip

    @abstractmethod
    def pack(
        self, update: Float32, spec: RoundSpec, layout: ParamLayout, sender: Sender
    ) -> tuple[bytes | Arrays, State]:
        """The payload of an update (d,), and what the client remembers of it.

        Parameters
        ----------
        update : float32 array of shape (d,)
            What the client learned.
        spec : RoundSpec
            The round.
        layout : ParamLayout
            The model's arrays.
        sender : Sender
            Who sends it.
        """

    @abstractmethod
    def unpack(self, update: Update, spec: RoundSpec, layout: ParamLayout) -> NDArray[Any] | Rejection:
        """The values of a message, or why they cannot be taken."""

    @property
    def nothing(self) -> str:
        """Why there may be no unit."""
        return "no update passed screening"

    def units(
        self,
        clients: Sequence[str],
        rows: Sequence[NDArray[Any]],
        spec: RoundSpec,
        *,
        seed: int,
        silent: Sequence[str] = (),
        key: bytes | None = None,
    ) -> Shown:
        """What the judge is shown.

        Parameters
        ----------
        clients : sequence of str
            Whose updates passed, in order of id.
        rows : sequence of arrays
            What `unpack` made of them.
        spec : RoundSpec
            The round.
        seed : int
            Drawn after it was known who takes part; groups are drawn from it.
        silent : sequence of str
            Clients that began the round and of whom nothing came that could be used.
        key : bytes, optional
            Of the host's own noise, as for `Sender`.
        """
        return Shown(tuple(Unit.of(client) for client in clients), rows)

    def largest(self, layout: ParamLayout) -> int:
        """Bytes that no payload exceeds."""
        return largest_payload(layout)


@dataclass(frozen=True)
class Clear(Channel):
    """Named arrays, as they are."""

    draws: ClassVar[bool] = False

    @property
    def codec(self) -> str:
        """See `Channel.codec`."""
        return "safetensors"

    def pack(
        self, update: Float32, spec: RoundSpec, layout: ParamLayout, sender: Sender
    ) -> tuple[bytes | Arrays, State]:
        """See `Channel.pack`."""
        return layout.unflatten(update), sender.state

    def unpack(self, update: Update, spec: RoundSpec, layout: ParamLayout) -> NDArray[Any] | Rejection:
        """See `Channel.unpack`."""
        return screen_values(update, spec, layout)


@dataclass(frozen=True)
class Encoded(Channel):
    """Bytes of a codec: smaller, and no more private.

    Parameters
    ----------
    by : Codec
        What encodes them.
    """

    by: Codec

    @property
    def codec(self) -> str:
        """See `Channel.codec`."""
        return ", ".join(f"{role} {spec['name']}" for role, spec in self.by.spec.items())

    def pack(
        self, update: Float32, spec: RoundSpec, layout: ParamLayout, sender: Sender
    ) -> tuple[bytes | Arrays, State]:
        """See `Channel.pack`; a codec with error feedback remembers what was lost."""
        rng = np.random.default_rng(None if sender.key is None else list(sender.key))
        return self.by.encode(update, seed=_own_seed(sender.id, spec), rng=rng, state=sender.state or None)

    def unpack(self, update: Update, spec: RoundSpec, layout: ParamLayout) -> NDArray[Any] | Rejection:
        """See `Channel.unpack`."""
        return screen_row(update, spec, lambda payload: self._decoded(payload, update, spec, layout))

    def largest(self, layout: ParamLayout) -> int:
        """See `Channel.largest`."""
        return self.by.most_bytes(layout.size)

    def _decoded(self, payload: Any, update: Update, spec: RoundSpec, layout: ParamLayout) -> Float32:
        if not isinstance(payload, bytes):
            raise TypeError(f"expected bytes of the codec, got a {type(payload).__name__}")
        return self.by.decode(payload, size=layout.size, seed=_own_seed(update.client_id, spec))


def _own_seed(client: str, spec: RoundSpec) -> int:
    """A public seed of a client's own: errors of rotations that differ average out, and no sender chooses its own."""
    return derive_seed(spec.public_seed, int.from_bytes(hashlib.sha256(client.encode()).digest()[:8], "little"))


@dataclass(frozen=True)
class Private(Channel):
    """Sums under differential privacy: the judge sees one unit, or random groups, and no client.

    Parameters
    ----------
    mechanism : Mechanism
        Who adds noise, and how much.
    group_size : int or None
        Fewest clients of a group; every group's sum has to have noise enough for itself. ``None`` for one sum of all;
        1 for noise of each client's own, after which the judge may see every one.
    masks : bool
        Whether the sum is computed by secure aggregation, keys, shares, masks and all, as in a network; otherwise what
        that computes, the sum modulo M of those who stayed, is computed without it. The sums are the same.
    adaptive : AdaptiveClip or None
        How the clipping norm follows the clients' norms; ``None`` for one that is fixed. The mechanism is then one for
        vectors of one coordinate more than the model has.

    Notes
    -----
    Example counts are not told, and every client weighs the same (assumption A6). With masks, a simulation has the
    clients that fall silent leave in the phases before their vector would be in the sum.
    """

    kind: ClassVar[str] = "masked"
    tells_examples: ClassVar[bool] = False

    mechanism: Mechanism
    group_size: int | None = None
    masks: bool = False
    adaptive: AdaptiveClip | None = None

    def __post_init__(self) -> None:
        if self.masks and not isinstance(self.mechanism, Distributed):
            raise InvalidValueError(
                f"expected distributed noise with masks, got {self.codec} noise, whose server sees every update"
            )
        if self.group_size is not None and self.group_size < self.least:
            raise InvalidValueError(
                f"expected groups of at least {self.least} clients, whose noise the guarantee needs in every sum that "
                f"is seen, got group_size={self.group_size}"
            )
        if isinstance(self.mechanism, Central) and self.mechanism.rate is not None:
            raise InvalidValueError(
                "expected central noise without sampling here, where sums are divided by the number of clients that "
                f"sent something, got rate={self.mechanism.rate}"
            )

    @property
    def visibility(self) -> Visibility:  # type: ignore[override] # a constant elsewhere
        """See `Channel.visibility`."""
        seen = {None: Visibility.SUMMED, 1: Visibility.CLEAR}
        return seen.get(self.group_size, Visibility.GROUPED)

    @property
    def codec(self) -> str:
        """See `Channel.codec`."""
        return type(self.mechanism).__name__.lower()

    @property
    def first_clip(self) -> float | None:
        """See `Channel.first_clip`."""
        return None if self.adaptive is None else self.mechanism.clip

    @property
    def least(self) -> int:
        """Fewest clients whose sum is decoded."""
        return self.mechanism.encoder.instance.min_survivors if isinstance(self.mechanism, Distributed) else 1

    @property
    def nothing(self) -> str:
        """See `Channel.nothing`."""
        return f"fewer than {self.least} updates passed screening, and their sum would have too little noise"

    @property
    def by_phases(self) -> bool:
        """Whether a host that is not to see single updates has to add them by secure aggregation."""
        return isinstance(self.mechanism, Distributed) and self.group_size != 1

    def largest(self, layout: ParamLayout) -> int:
        """See `Channel.largest`."""
        shape, dtype = self.mechanism.words
        return math.prod(shape) * dtype.itemsize + HEADER_LIMIT

    def pack(
        self, update: Float32, spec: RoundSpec, layout: ParamLayout, sender: Sender
    ) -> tuple[bytes | Arrays, State]:
        """See `Channel.pack`."""
        words = None if sender.key is None else Words(sender.key)
        clip = self.mechanism.clip
        with np.errstate(over="ignore"):  # not finite: the encoder sends noise alone
            scaled = update if spec.clip is None else update * np.float32(clip / spec.clip)
        vector = scaled if self.adaptive is None else self.adaptive.attached(scaled, clip)
        sent = self.mechanism.encode(vector, spec.public_seed, words=words)
        return {_WORDS: self.mechanism.packed(sent)}, sender.state

    def unpack(self, update: Update, spec: RoundSpec, layout: ParamLayout) -> NDArray[Any] | Rejection:
        """See `Channel.unpack`."""
        found = screen_words(update, _WORDS, self.mechanism.words)
        return found if isinstance(found, Rejection) else self.mechanism.unpacked(found)

    def units(
        self,
        clients: Sequence[str],
        rows: Sequence[NDArray[Any]],
        spec: RoundSpec,
        *,
        seed: int,
        silent: Sequence[str] = (),
        key: bytes | None = None,
    ) -> Shown:
        """See `Channel.units`; the mean of every group that has survivors enough, made of its private sum."""
        sent: Mapping[str, NDArray[Any]] = dict(zip(clients, rows, strict=True))
        began = [*clients, *silent]
        if self.group_size == 1:
            groups = tuple(Unit.of(client) for client in clients)
        else:
            groups = draw_groups(began, min(len(began), self.group_size or len(began)), seed)
        sums = []
        for group in groups:
            total = self._total(group, sent, spec)
            if total is not None:
                sums.append((Unit(group.id, tuple(member for member in group.members if member in sent)), total))
        return self.shown(sums, spec, key=key)

    def shown(self, sums: Iterable[tuple[Unit, NDArray[Any]]], spec: RoundSpec, *, key: bytes | None = None) -> Shown:
        """What the judge is shown of sums that are ready, such as those of a secure aggregation over a network.

        Parameters
        ----------
        sums : iterable of (Unit, array)
            Each with the clients whose words are in it, of which there have to be enough.
        spec : RoundSpec
            The round.
        key : bytes, optional
            See `Channel.units`.
        """
        words = None if key is None else Words(key)
        units, means, within = [], [], 0.0
        for unit, total in sums:
            mean = self.mechanism.decode_sum(total, spec.public_seed, words=words) / np.float32(len(unit.members))
            if self.adaptive is not None:
                mean, share = self.adaptive.detached(mean, self.mechanism.clip)
                within += share * len(unit.members)
            units.append(unit)
            means.append(mean * np.float32(self._clip(spec) / self.mechanism.clip))
        if self.adaptive is None or not units:
            return Shown(tuple(units), means)
        return Shown(tuple(units), means, within / sum(len(unit.members) for unit in units))

    def timed(self, stopwatch: Stopwatch) -> Private:
        """Itself, telling a stopwatch how long distributed noise takes; what is sent does not change."""
        if not isinstance(self.mechanism, Distributed):
            return self
        return replace(self, mechanism=Distributed(replace(self.mechanism.encoder, stopwatch=stopwatch)))

    def next_clip(self, clip: float, within: float) -> float:
        """See `Channel.next_clip`."""
        return clip if self.adaptive is None else self.adaptive.next(clip, within)

    def _clip(self, spec: RoundSpec) -> float:
        return self.mechanism.clip if spec.clip is None else spec.clip

    def _total(self, group: Unit, sent: Mapping[str, NDArray[Any]], spec: RoundSpec) -> NDArray[Any] | None:
        """The sum of a group, if enough of its members are in it."""
        present = [member for member in group.members if member in sent]
        session = self.session(spec, group.id) if isinstance(self.mechanism, Distributed) else None
        if len(present) < (self.least if session is None else session.needed(len(group.members))):
            return None
        if session is None or not self.masks:
            return self.mechanism.total(sent[member] for member in present)
        inputs = {member: sent.get(member, session.empty()) for member in group.members}
        leaving: dict[Phase, list[str]] = {Phase.ADVERTISE: [], Phase.SHARE: [], Phase.MASK: []}
        for member, phase in zip((one for one in group.members if one not in sent), cycle(leaving), strict=False):
            leaving[phase].append(member)
        try:
            aggregate, _ = aggregate_in_memory(inputs, session, dropouts=leaving)
        except AggregationAborted:
            return None
        return aggregate.total

    def session(self, spec: RoundSpec, group: str = "") -> Session:
        """The secure aggregation of a round, or of a group in it, for noise that needs one.

        Raises
        ------
        InvalidValueError
            The noise is not distributed, and needs none.
        """
        if not isinstance(self.mechanism, Distributed):
            raise InvalidValueError(f"expected distributed noise, got {self.codec} noise, whose sums are not masked")
        encoder = self.mechanism.encoder
        instance, layout = encoder.instance, encoder.layout
        return Session(
            run=spec.run,
            round=spec.round,
            group=group,
            length=layout.kept,
            bits=instance.bits,
            corrupt=instance.corrupt,
            min_survivors=instance.min_survivors,
            terms=encoder.terms,
        )
