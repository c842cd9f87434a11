"""What the notebooks share: loading replays, and showing them as a reader wants to see them.

Needs IPython, pandas and Matplotlib beside NumPy and h5py. SPDX-License-Identifier: Apache-2.0
"""

import html
import io
import os

import matplotlib.figure
import pandas
import plots
import records
import results
from IPython.display import HTML, SVG, display

# Where `./seqpar reproduce` stores, seen from the folder of the notebooks.
DIRECTORY = os.environ.get("SEQPAR_RESULTS", "../data/results")
COLOURS = {
    records.REPRODUCED: "#15733a",
    records.NOT_REPRODUCED: "#a34700",
    records.NOT_CHECKABLE: "#56606e",
    records.CONTEXT: "#56606e",
}


def load(*items):
    """Item -> replay. Where one is missing, a ResultError says which command makes them."""
    found = {}
    if os.path.isdir(DIRECTORY):
        found = {replay.item: replay for replay in results.collect([DIRECTORY]).replays}
    missing = [item for item in items if item not in found]
    if missing:
        command = f"./seqpar reproduce {' '.join(missing)}"
        raise results.ResultError(f"no results of {', '.join(missing)}; first run: {command}")
    return {item: found[item] for item in items}


def verdict(replay):
    """Verdict, what decides it, and what was found."""
    badge = f'<b style="color:{COLOURS[replay.verdict]}">{replay.verdict}</b>'
    lines = [f"<p>{html.escape(replay.title)} ({html.escape(replay.paper)}): {badge}"]
    lines[0] += f". {html.escape(replay.reason)}</p>" if replay.reason else "</p>"
    if replay.assumption:
        lines.append(f"<p>What decides it: {html.escape(replay.assumption)}</p>")
    found = "".join(f"<li>{html.escape(finding)}</li>" for finding in replay.findings)
    display(HTML("".join(lines) + (f"<ul>{found}</ul>" if found else "")))


def claims(replay, most=12):
    """The claims, those that are not reproduced first, those that cannot be checked last; measured
    and simulated apart."""
    order = (records.NOT_REPRODUCED, records.REPRODUCED, records.NOT_CHECKABLE)
    rows = [row for row in replay.rows if row.verdict in order]
    rows.sort(key=lambda row: order.index(row.verdict))
    present = [p for p in records.PROVENANCES if any(row.provenance == p for row in rows)]
    table = pandas.DataFrame({"claim": [f"{row.label}: {row.quantity}" for row in rows]})
    table["unit"] = [row.unit for row in rows]
    table["paper"] = [row.paper for row in rows]
    for provenance in present:
        table[provenance] = [row.ours if row.provenance == provenance else "" for row in rows]
    table["error"] = [row.error for row in rows]
    table["band"] = [row.band for row in rows]
    table["verdict"] = [row.verdict for row in rows]
    table["reason"] = [row.reason for row in rows]
    form = {name: number for name in ("paper", *present)}
    form |= {"error": "{:+.1%}", "band": "{:.1%}"}
    display(table.head(most).style.format(form, na_rep="–").hide(axis="index"))
    if len(table) > most:
        print(f"{most} of {len(table)} claims")


def number(value):
    return value if isinstance(value, str) else f"{value:.6g}"


def plot(replay, *words):
    """Its plots, or those with one of these words in the title: the paper's points hollow, ours
    solid, simulated dashed. If it has none, agreement."""
    figures = [
        plots.figure(curves, title)
        for title, curves in replay.plots().items()
        if not words or any(word in title for word in words)
    ]
    for figure in figures or [agreement(replay)]:
        show(figure)


def show(figure):
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    display(SVG(stream.getvalue()))


def agreement(replay):
    """Ours over the paper's of every claim that is a number, with the band of ours."""
    figure, axes = empty(replay.item)
    axes.axhline(1, color=plots.FAINT[0], zorder=1)
    rows = [row for row in replay.rows if row.unit != "holds" and row.error > -1]
    ratios = [1 + row.error for row in rows]
    for verdict, colour in COLOURS.items():
        places = [i for i, row in enumerate(rows) if row.verdict == verdict]
        heights = [ratios[i] for i in places]
        bands = [ratios[i] * rows[i].band for i in places]
        if places:
            axes.errorbar(places, heights, bands, fmt="o", ms=4, color=colour, label=verdict)
            axes.legend(frameon=False, fontsize="small")
    if rows and max(ratios) > 10 * min(ratios):
        axes.set_yscale("log")
    axes.set(xlabel="claim", ylabel="ours / paper")
    figure.tight_layout(pad=0.6)
    return figure


def side_by_side(replay, *quantities):
    """Rows that have these quantities, one line for each label, on a logarithmic axis."""
    figure, axes = empty(replay.title)
    found = [row for row in replay.rows if row.quantity in quantities]
    labels = list(dict.fromkeys(row.label for row in found))
    for quantity, marker in zip(quantities, plots.MARKERS):
        rows = [row for row in found if row.quantity == quantity]
        places = [-labels.index(row.label) for row in rows]
        axes.plot([row.ours for row in rows], places, marker, label=quantity)
    axes.set_yticks([-place for place in range(len(labels))], labels)
    axes.set(xscale="log", xlabel=f"{found[0].provenance} ({found[0].unit})")
    axes.grid(axis="y", color=plots.FAINT[0])
    axes.legend(frameon=False, fontsize="small")
    figure.tight_layout(pad=0.6)
    show(figure)


def empty(title):
    figure = matplotlib.figure.Figure(figsize=(7, 3.6), dpi=72)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize="medium")
    return figure, axes
