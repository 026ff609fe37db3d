"""HTML from small helpers: every string is escaped unless it is `Markup` already."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable
from typing import Any

__all__ = [
    "UNDEFINED",
    "Markup",
    "clean",
    "duration",
    "embed_json",
    "join",
    "json_text",
    "number",
    "percent",
    "plural",
    "shorten",
    "tag",
    "words",
]

UNDEFINED = "\u2013"
"""Stands where a value is not defined."""

_VOID = frozenset({"meta", "link"})

# Control and bidirectional-override characters could make a hostile id read as something else.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def clean(text: str) -> str:
    r"""``text`` with control characters made visible.

    Examples
    --------
    >>> clean("client\x00-1")
    'client�-1'
    """
    return _CONTROLS.sub("\ufffd", text)


def shorten(text: str, length: int) -> str:
    """``text`` cut in the middle to at most ``length`` characters.

    Examples
    --------
    >>> shorten("client-0000000000017", 11)
    'clien…00017'
    """
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element; underscores in attribute names become hyphens, a last one is dropped.

    A child or attribute that is ``None`` is left out; every other one is escaped unless it is `Markup`.

    Examples
    --------
    >>> tag("td", "<script>", class_="id", data_round=3)
    '<td class="id" data-round="3">&lt;script&gt;</td>'
    """
    parts = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        text = html.escape(clean(value if isinstance(value, str) else _plain(value)))
        parts.append(f" {label}" if value is True else f' {label}="{text}"')
    opening = f"<{name}{''.join(parts)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(children)}</{name}>")


def join(children: Iterable[object]) -> Markup:
    """Children one after the other, escaped where they are not markup."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(clean(_plain(child)))
            for child in children
            if child is not None
        )
    )


def embed_json(identifier: str, value: Any) -> Markup:
    """A data block a script can read."""
    return tag("script", Markup(json_text(value)), type="application/json", id=identifier)


def json_text(value: Any) -> str:
    r"""JSON in which no text can end the block that it stands in.

    Examples
    --------
    >>> json_text({"id": "</script>"})
    '{"id":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return clean(text).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _plain(value: object) -> str:
    # Floats are coordinates: a tenth of a pixel is enough, and a report holds many.
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one as per cent, or a dash where it is not defined.

    Examples
    --------
    >>> percent(0.921), percent(1.0, 0), percent(None)
    ('92.1\u202f%', '100\u202f%', '–')
    """
    return UNDEFINED if share is None or math.isnan(share) else f"{100 * share:.{digits}f}\u202f%"


def number(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant figures and a real minus sign.

    Examples
    --------
    >>> number(-0.012345), number(15234.0), number(2.0)
    ('−0.0123', '15,234', '2')
    """
    whole = 10 ** (digits - 1) <= abs(value) < 1e7
    text = f"{value:,.0f}" if whole else f"{value:.{digits}g}"
    return text.replace("-", "\u2212")


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use.

    Examples
    --------
    >>> duration(3.21), duration(75.0), duration(7300.0)
    ('3.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    Examples
    --------
    >>> plural(1, "client"), plural(1500, "client")
    ('1 client', '1,500 clients')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def words(name: str) -> str:
    """A registered name as words.

    Examples
    --------
    >>> words("sign_flip")
    'sign flip'
    """
    return name.replace("_", " ")
