"""How figures look: one colour and marker per method, text that takes the colour of the page around it.

Matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trainables.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the colour of text; in an SVG it becomes ``currentColor``."""
WIDTH, HEIGHT = 6.6, 3.5
"""Inches of a figure with one panel."""
PANELS = 3
"""Beside each other."""
FORMATS = ("svg", "png", "pdf")

# Okabe and Ito's palette, whose colours the colour-blind tell apart; no yellow, which white paper swallows.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5195", "#8c6d31")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_PAPER = ("dsa", "dm", "mtt", "idc")
"""Methods with the first colours."""
_BASELINES: Mapping[str, tuple[str, str]] = {"random": ("#808080", "o"), "full": (INK, "*")}


class Style(NamedTuple):
    """Of one method."""

    colour: str
    marker: str
    line: str


def style_of(variant: str, variants: Sequence[str]) -> Style:
    """The same for a method everywhere; variants of one method differ in their lines, and the full data's is dashed.

    Args:
        variant: ``dm``, or ``dm (iterations 100)``.
        variants: All in the figure.
    """
    method = variant.partition(" (")[0]
    colour, marker = _BASELINES.get(method) or _of_rank(method)
    if method == "full":
        return Style(colour, marker, "--")
    alike = [each for each in variants if each.partition(" (")[0] == method]
    return Style(colour, marker, ("-", "--", ":", "-.")[alike.index(variant) % 4])


def _of_rank(method: str) -> tuple[str, str]:
    known = [*_PAPER, *sorted(name for name in METHODS if name not in (*_PAPER, *_BASELINES))]
    rank = known.index(method) if method in known else sum(map(ord, method))
    return _COLOURS[rank % len(_COLOURS)], _MARKERS[rank % len(_MARKERS)]


def marks(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    scatter: Sequence[float | None] | None,
    style: Style,
    *,
    title: str,
    line: str | None = None,
    size: float = 5.0,
) -> None:
    """The marks of one method, with bars where there is a scatter.

    Args:
        axes: Of the panel.
        x: Of each mark.
        y: Of each mark.
        scatter: Half of each bar; None: no bar, of all or of one.
        style: The method's.
        title: In the legend.
        line: That joins them; None: the method's.
        size: Of a mark, points.
    """
    axes.errorbar(
        x,
        y,
        yerr=None if scatter is None else [each or 0.0 for each in scatter],
        color=style.colour,
        marker=style.marker,
        linestyle=style.line if line is None else line,
        linewidth=0.24 * size,
        markersize=size,
        capsize=0.4 * size,
        label=title,
    )


class Canvas:
    """Panels to draw on, and the formats it can be had in."""

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        self.figure: Figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")

    def panels(self, names: Iterable[str], row_height: float = HEIGHT, **shared: Any) -> dict[str, Axes]:
        """Axes by name; the name is their title where there are several.

        Args:
            names: Of the panels; the same name counts once.
            row_height: Inches.
            shared: ``sharex``, ``sharey`` of ``Figure.subplots``.
        """
        titles = list(dict.fromkeys(names))
        columns = min(PANELS, len(titles))
        lines = -(-len(titles) // columns)
        self.figure.set_size_inches(WIDTH * (1 + 0.28 * (columns - 1)), row_height * lines)
        axes = self.figure.subplots(lines, columns, squeeze=False, **shared)
        for spare in axes.flat[len(titles) :]:
            spare.set_visible(False)
        made = dict(zip(titles, axes.flat, strict=False))
        for title, one in made.items():
            plain(one)
            if len(titles) > 1:
                one.set_title(title, fontsize=9, color=INK)
        return made

    def legend(self, axes: Iterable[Axes]) -> None:
        """One legend of all panels, on the right."""
        entries: dict[str, Any] = {}
        for one in axes:
            for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        if entries:
            self.figure.legend(
                list(entries.values()),
                list(entries),
                loc="outside right upper",
                frameon=False,
                fontsize=8,
                labelcolor=INK,
            )

    def written(self, form: str) -> bytes:
        """The figure as a file.

        Args:
            form: One of ``FORMATS``.
        """
        import matplotlib

        # Nothing of the time and no random names: the same numbers give the same bytes.
        told = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
        told["pdf"] = {"CreationDate": None, "Creator": None, "Producer": None}
        file = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "ddray", "svg.fonttype": "none", "font.family": "sans-serif"}):
            background = "none" if form == "svg" else "white"
            self.figure.savefig(file, format=form, dpi=160, facecolor=background, metadata=told[form])
        return file.getvalue()


def drawn(draw: Callable[[Canvas, Sequence[Mapping[str, Any]]], None], rows: Sequence[Mapping[str, Any]]) -> Canvas:
    """A canvas with rows drawn on it."""
    canvas = Canvas()
    draw(canvas, rows)
    return canvas


def inline_svg(svg: bytes) -> str:
    """An SVG to stand inside an HTML page, in the colour of its text; at most half as wide again as on paper."""
    text = svg.decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    head, rest = text.split(">", 1)
    points = float(re.search(r'\swidth="([0-9.]+)pt"', head)[1])  # type: ignore[index]  # Matplotlib always says it
    return re.sub(r'\s(width|height)="[^"]*"', "", head) + f' style="max-width: {1.5 * points:.0f}px">' + rest


def plain(axes: Axes) -> None:
    """Two spines, a light grid, everything in the colour of the text, on whatever is behind it."""
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
        axes.spines[side].set_linewidth(0.6)
    axes.tick_params(colors=INK, labelsize=8, width=0.6)
    axes.grid(visible=True, color="#8888884d", linewidth=0.5)
    axes.set_axisbelow(True)


def label(axes: Axes, x: str, y: str) -> None:
    """Names of the axes."""
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
