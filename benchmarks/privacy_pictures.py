"""How the figures of docs/privacy/utility.md look: pictures that pages take in, in the colour of their text.

Black becomes ``currentColor`` and the background stays empty, so that one picture fits light and dark pages; series
have colours of middle lightness. Nothing in a file depends on the time, or on anything but the numbers.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

__all__ = ["draw"]

Rows = Sequence[Mapping[str, Any]]

BLUE, ORANGE, GREEN, PURPLE, GREY = "#3b86c8", "#d9731a", "#2f9e6e", "#a065d0", "#8a8a8a"
COLOURS = {3: ORANGE, 4: PURPLE, 5: GREY, 6: GREEN, 8: BLUE}  # of words of so many bits
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "matl",
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.6,
}
WIDTH = 7.6  # inches


def draw(rows: Rows) -> dict[str, str]:
    """Every picture by name, as SVG."""
    with plt.rc_context(STYLE):
        return {name: _svg(name, paint(rows), text) for name, (paint, text) in PICTURES.items()}


def _of(rows: Rows, figure: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["figure"] == figure]


def _prediction(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(WIDTH, 3.7), layout="constrained")
    axes.axhspan(-2, 2, color=GREY, alpha=0.18, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    for row in _of(rows, "prediction"):
        colour, shape = COLOURS[row["bits"]], "o" if row["updates"] == "spread" else "s"
        spread = 200 * row["standard_error"] / row["predicted"]
        axes.errorbar(
            row["predicted"], 100 * (row["simulated"] / row["predicted"] - 1), yerr=spread,
            fmt=shape, color=colour, markersize=5, elinewidth=1,
        )  # fmt: skip
        face = row["predicted"] - row["wrap"] + row["wrap_at_face_value"]
        if row["wrap"] > 0.01:
            axes.plot(
                row["predicted"], 100 * (row["simulated"] / face - 1),
                shape, color=colour, markersize=6, fillstyle="none", linestyle="none",
            )  # fmt: skip
    for row in _of(rows, "benchmark"):
        if row["way"].startswith("ours"):
            colour = COLOURS[int(re.search(r"b = (\d+)", row["way"])[1])]
            axes.plot(row["predicted"], 100 * (row["simulated"] / row["predicted"] - 1), "+", color=colour, ms=9, mew=2)
    for bits in sorted(COLOURS):
        axes.plot([], [], "o", color=COLOURS[bits], markersize=5, label=f"b = {bits}")
    axes.plot([], [], "s", color="black", markersize=5, label="heavy-tailed updates")
    axes.plot([], [], "+", color="black", markersize=9, mew=2, label="d = 1e6 and 1e7")
    axes.plot([], [], "o", color="black", markersize=6, fillstyle="none", label="wraps at face value")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([1, 1.2, 1.5, 2, 3, 4, 6]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("predicted mean squared error, over central Gaussian noise")
    axes.set_ylabel("simulated beyond predicted, %")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _bits(rows: Rows) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 3.5), layout="constrained")
    for axes, clients, top in zip(panels, (100, 1000), (1.03, 2.0), strict=True):
        found = [row for row in _of(rows, "bits") if row["clients"] == clients]
        ours = [row for row in found if "ours" in row]
        axes.plot(
            [row["budget"] for row in found], [row["rival"] for row in found],
            color=ORANGE, linestyle="--", label="distributed discrete Gaussian",
        )  # fmt: skip
        axes.plot([row["our_budget"] for row in ours], [row["ours"] for row in ours], color=BLUE, label="ours")
        axes.plot(32, 1, "D", color="black", markersize=6, clip_on=False, label="central Gaussian, float32")
        axes.set_xscale("log", base=2)
        axes.set_xlim(0.23, 36)
        axes.set_ylim(1 - (top - 1) / 25, top)
        axes.xaxis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2, 4, 8, 16, 32]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set_title(f"{clients} clients")
        axes.set_xlabel("bits per parameter")
    for row in _of(rows, "benchmark"):  # one round, known to half a percent: too little for the other panel
        if (row["size"], row["clients"]) == (1_000_000, 1000) and not re.search("b = 3|n_min", row["way"]):
            colour = BLUE if row["way"].startswith("ours") else ORANGE
            panels[1].plot(row["bits"], row["simulated"], "o", color=colour, markersize=5)
    panels[1].plot([], [], "o", color=GREY, markersize=5, label="simulated")
    panels[0].set_ylabel("mean squared error, over central noise")
    panels[1].legend(loc="upper right")
    return figure


def _end_points(rows: Rows) -> Figure:
    found = _of(rows, "end_points")
    keys = list(dict.fromkeys((row["bits"], row["order"]) for row in found))
    figure, panels = plt.subplots(1, len(keys), figsize=(WIDTH, 3.3), layout="constrained")
    for axes, (bits, order) in zip(panels, keys, strict=True):
        panel = [row for row in found if (row["bits"], row["order"]) == (bits, order)]
        concave = 2 < Fraction(order) < 3
        x = [row["x"] for row in panel]

        def line(key: str, *, panel=panel, x=x, axes=axes, **look: Any) -> None:
            axes.plot(x, [row[key] for row in panel], **look)

        axes.axhline(1, color="black", linewidth=0.6)
        axes.axvline(panel[0]["bound"], color="black", linewidth=0.8, linestyle=":")
        line("h", color=ORANGE, label="h(x)")
        if concave:
            line("tangent", color=ORANGE, linestyle="--", linewidth=1.2, label="tangent")
        line("certified", color=PURPLE, linewidth=1.4, label="certified for [0, x]")
        line("forward", color=BLUE, label="D(P ‖ W) / x²")
        line("reverse", color=GREEN, linestyle="-.", linewidth=1.4, label="D(W ‖ P) / x²")
        low = min(row["reverse"] for row in panel)
        high = max(max(row["certified"], row["forward"]) for row in panel)
        axes.set_ylim(low - 0.12 * (high - low), high + 0.25 * (high - low))
        axes.set_xlim(0, 1)
        axes.set_title(f"b = {bits}, order {order}")
        axes.set_xlabel("x")
        axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    panels[0].set_ylabel("rate, over a Gaussian's")
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), columnspacing=1.4)
    return figure


def _missing(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6), layout="constrained")
    found = _of(rows, "missing")
    for bits, budget in dict.fromkeys((row["bits"], row["budget"]) for row in found):
        curve = [row for row in found if (row["bits"], row["budget"]) == (bits, budget)]
        x, y = [100 * row["missing"] for row in curve], [row["epsilon"] for row in curve]
        axes.plot(x, y, color=COLOURS[bits], linestyle="-" if bits == 8 else "--", marker="o", markersize=3)
        axes.annotate(
            f"b = {bits}, planned {budget}", (x[-1], y[-1]), (8, 0), textcoords="offset points", va="center",
            color=COLOURS[bits], fontsize=9, annotation_clip=False,
        )  # fmt: skip
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_locator(FixedLocator([2, 4, 8, 16, 32]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(1.8, 32)
    axes.grid(axis="y", color=GREY, alpha=0.35, linewidth=0.6)
    axes.set_xlim(0, 76)
    axes.set_xlabel("honest noise shares that are missing, % of the 64 planned")
    axes.set_ylabel("certified epsilon")
    figure.get_layout_engine().set(rect=(0, 0, 0.89, 1))
    return figure


PICTURES: dict[str, tuple[Callable[[Rows], Figure], str]] = {
    "prediction": (
        _prediction,
        "Simulated beyond predicted mean squared error, in percent, for words of 3 to 8 bits. With 5 bits and more all "
        "points lie within 2 percent. With 4 bits the simulated error is 1 to 3 percent lower than predicted, with 3 "
        "bits 3 to 5 percent; predictions that take wrapped sums at face value are within 1 percent.",
    ),
    "bits": (
        _bits,
        "Mean squared error over that of central noise, against bits per parameter. With 100 clients both mechanisms "
        "are within 2 percent of central noise from a quarter of a bit on, and the distributed discrete Gaussian is "
        "the better one above two thirds of a bit. With 1000 clients ours has less error up to about 14 bits.",
    ),
    "end_points": (
        _end_points,
        "Divergence of a coordinate over x squared, and the bounds of Lemma 3, for x from 0 to 1. The divergence stays "
        "below the certified bound everywhere; that of the other direction lies below both.",
    ),
    "missing": (
        _missing,
        "Certified epsilon against the share of honest noise shares that are missing. Planned for 8 with words of 8 "
        "bits it is 12.2 if half of them are missing, and 18.9 if three quarters are; with words of 3 bits 14.1 and "
        "23.9.",
    ),
}


def _svg(name: str, figure: Figure, text: str) -> str:
    """The picture as an element that a page can hold: named, without what depends on the time, and with its own ids."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    plt.close(figure)
    found = re.sub(
        r"^.*?(?=<svg)|<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</defs>",
        "",
        stream.getvalue(),
        flags=re.DOTALL,
    )
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', found))
    found = re.sub(
        r'(\sid="|href="#|url\(#)([^")]+)(["\)])',
        lambda match: f"{match[1]}{name}-{match[2]}{match[3]}" if match[2] in used else "",
        found,
    )
    opening = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        rf'\1 fill="currentColor" stroke-linejoin="round" role="img" aria-label="{html.escape(text)}">'
    )
    found = re.sub(r'<svg [^>]*?(width="[^"]*" height="[^"]*" viewBox="[^"]*")[^>]*>', opening, found)
    found = found.replace("#000000", "currentColor")
    return re.sub(r"\n\s*(?=\n)", "", re.sub(r"[ \t]+(?=\n)", "", found)).strip() + "\n"
