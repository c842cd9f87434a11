"""Plots of replays: the paper's points hollow, ours solid, simulated dashed.

The report embeds them as SVG whose colours are CSS variables, so that they follow light and dark;
notebooks show them as they are. Needs Matplotlib. SPDX-License-Identifier: Apache-2.0
"""

import io
import math
import re

import matplotlib
import matplotlib.figure
import matplotlib.ticker
import numpy as np

SIZE_INCHES = (4.8, 3.4)  # of 72 points: 346 x 245, legible on a phone without scaling
# Told apart by people with colour vision deficiencies, and by markers. On light, on dark ground.
PALETTE = (
    ("#2563c9", "#7ab0ff"),
    ("#c2570c", "#ffa263"),
    ("#15803d", "#5fd08a"),
    ("#8b3fb8", "#cb9cf2"),
    ("#be2a5e", "#ff8db0"),
    ("#0e7c8b", "#55cfde"),
    ("#756400", "#d9c550"),
    ("#5b6472", "#aab4c3"),
)
INK, FAINT, SURFACE = ("#1b1f24", "#e8eaed"), ("#d5d9de", "#3a4048"), ("#ffffff", "#17191d")
# Of Matplotlib, and as a path around the origin for legends of a page.
MARKERS = {
    "o": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "s": "M-3-3h6v6h-6z",
    "^": "M0-3.4L3.4 3H-3.4z",
    "D": "M0-3.8L3.8 0L0 3.8L-3.8 0z",
    "v": "M0 3.4L3.4-3H-3.4z",
    "<": "M-3.4 0L3-3.4V3.4z",
    ">": "M3.4 0L-3-3.4V3.4z",
    "P": "M-1.2-3.6h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4z",
}
# A family keeps its colour from plot to plot where two of its members do not meet.
FAMILIES = {"ring": 0, "token_ring": 1, "lasp2": 2, "lasp1": 3, "rsa": 4, "ulysses": 5, "usp": 6}


def styles(names):
    """Name -> (index of the colour, marker): different for the first eight."""
    chosen, taken = {}, set()
    for name in names:
        if name in chosen:
            continue
        family = [f for f in FAMILIES if name == f or name.startswith((f + "/", f + "_"))]
        colour = FAMILIES[max(family, key=len)] if family else None
        if colour is None or colour in taken:
            free = [i for i in range(len(PALETTE)) if i not in taken]
            colour = free[0] if free else len(chosen) % len(PALETTE)
        taken.add(colour)
        chosen[name] = (colour, list(MARKERS)[len(chosen) % len(MARKERS)])
    return chosen


def line_style(curve):
    """Of the line, or None: points only."""
    if curve.from_paper:
        return None
    return "--" if curve.provenance == "simulated" else "-"


def legend_text(curve):
    return f"{curve.name} ({'paper' if curve.from_paper else curve.provenance})"


def figure(curves, title):
    """A Matplotlib figure of the curves of one plot, on white."""
    palette = [pair[0] for pair in PALETTE]
    return _figure(curves, palette, INK[0], FAINT[0], SURFACE[0], True, title)


def svg(curves, prefix):
    """SVG for a page: text as text, colours as var(--...), identifiers that begin with prefix."""
    settings = {"svg.fonttype": "none", "svg.hashsalt": "seqpar", "font.size": 11}
    with matplotlib.rc_context(settings):
        palette = [f"#0000{index + 1:02x}" for index in range(len(PALETTE))]
        drawn = _figure(curves, palette, "#000020", "#000021", "#000022", False, None)
        stream = io.StringIO()
        drawn.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(
        r"<g id=\"(?:figure|axes|patch|text|line2d|matplotlib|xtick|ytick)\S*\"", "<g", text
    )
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = text.replace("#000020", "var(--ink)").replace("#000021", "var(--grid)")
    text = text.replace("#000022", "var(--surface)")
    text = re.sub(r"#0000(0[1-8])", lambda m: f"var(--series-{int(m[1], 16)})", text)
    # The page's font; Matplotlib only measured with its own.
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    label = ", ".join(legend_text(curve) for curve in curves)
    head = f'<svg role="img" aria-label="{_escaped(label)}" viewBox='
    text = re.sub(r"^<svg.*?viewBox=", lambda _: head, text, count=1, flags=re.S)
    return re.sub(r"\n\s*", "\n", text)


def _escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _plain(text):
    """Without formulas, and without the unit of pure numbers."""
    return text.removesuffix(" (1)").replace("$", r"\$")


def _figure(curves, palette, ink, faint, surface, legend, title):
    drawn = matplotlib.figure.Figure(figsize=SIZE_INCHES, dpi=72, facecolor=surface)
    axes = drawn.add_subplot(facecolor="none")
    chosen = styles([curve.name for curve in curves])
    for curve in curves:
        colour, marker = palette[chosen[curve.name][0]], chosen[curve.name][1]
        style = line_style(curve)
        axes.plot(
            *(curve.x, curve.y),
            label=_plain(legend_text(curve)),
            color=colour,
            linestyle=style or "none",
            linewidth=1.6,
            marker=marker,
            markersize=6.5 if curve.from_paper else 4.5,
            markeredgewidth=1.4 if curve.from_paper else 0,
            markerfacecolor=surface if curve.from_paper else colour,
            markeredgecolor=colour,
            zorder=4 if curve.from_paper else 3,
        )
        missing = curve.x[~np.isfinite(curve.y)]
        axes.plot(  # at the upper edge: no value
            *(missing, np.full(len(missing), 0.97)),
            transform=axes.get_xaxis_transform(),
            color=colour,
            linestyle="none",
            marker="x",
            clip_on=False,
        )
    _scale(axes.xaxis, axes.set_xscale, [curve.x for curve in curves], curves[0].x_label)
    _scale(axes.yaxis, axes.set_yscale, [curve.y for curve in curves], curves[0].y_label)
    axes.set_xlabel(_plain(curves[0].x_label), color=ink)
    axes.set_ylabel(_plain(curves[0].y_label), color=ink)
    axes.tick_params(colors=ink, which="both", length=3, width=0.6)
    axes.grid(color=faint, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(faint)
    if title:
        axes.set_title(_plain(title), color=ink, fontsize="medium", loc="left")
    if legend:
        axes.legend(frameon=False, labelcolor=ink, fontsize="small")
    drawn.tight_layout(pad=0.6)
    return drawn


def _scale(axis, set_scale, arrays, label):
    """Logarithmic where values span more than a decade and a half, or are powers of two."""
    values = np.concatenate(arrays)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return
    suffixed = next((form for word, form in UNITS.items() if word in label), short_number)
    wide = values.min() > 0 and values.max() / values.min() > 30
    powers = min(values) >= 1 and all(math.log2(value).is_integer() for value in values)
    if wide or (powers and len(set(values.tolist())) > 2):
        octaves = math.log2(values.max() / values.min())
        binary = suffixed != short_number or (powers and values.max() <= 8192)
        if binary and octaves < 64:
            set_scale("log", base=2)
            axis.set_major_locator(
                matplotlib.ticker.LogLocator(2 ** max(1, math.ceil(octaves / 6)))
            )
        else:
            set_scale("log", base=10)
        axis.set_minor_locator(matplotlib.ticker.NullLocator())
    elif values.min() >= 0:
        axis.axes.set(**{f"{axis.axis_name}lim": (0, None)})
        if suffixed != short_number and values.max() > 0:
            step = 2 ** math.ceil(math.log2(values.max() / 6))
            axis.set_major_locator(matplotlib.ticker.MultipleLocator(step))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: suffixed(value)))


def binary_number(value):
    """65536 -> 64K"""
    for size, suffix in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.4g}"


def binary_bytes(value):
    """1048576 -> 1Mi"""
    text = binary_number(value)
    return text + "i" if text[-1] in "GMK" else text


def short_number(value):
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.4g}{suffix}"
    return f"{value:.4g}"


# Words of an axis label -> how its numbers are written.
UNITS = {"(token": binary_number, "(byte": binary_bytes}
