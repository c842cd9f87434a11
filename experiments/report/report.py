"""One offline HTML page of everything in a directory of results.

Usage: report.py OUT PATH...: result files, timelines, or directories of them (see results.py). The
same files give the same bytes. A damaged file is named and skipped. Exit codes: 0, 2 wrong usage,
3 environment. SPDX-License-Identifier: Apache-2.0
"""

import collections
import errno
import logging
import math
import os
import pathlib
import statistics
import sys

import jinja2

import plots
import records
import results
import timelines

FOLDED_FROM = 13  # rows of a table
MOST_PLOTS, MOST_FINDINGS = 3, 5  # of an item that are not folded
STATEMENT = "holds"  # the unit of claims that are no numbers: 1 if it holds, 0 if not
MOST_TIMELINES = 12
# In this order; others follow under the names of their folders.
PAPERS = {
    "rsa": "RSA",
    "ring_attention": "Ring Attention",
    "lwm": "LWM",
    "token_ring": "TokenRing",
    "lasp1": "LASP-1",
    "lasp2": "LASP-2",
    "striped": "Striped Attention",
    "zigzag": "Zigzag",
    "usp": "USP",
    "dist_flash": "DistFlashAttn",
    "burst": "BurstAttention",
}
MARKS = {
    records.REPRODUCED: ("yes", "✓"),
    records.NOT_REPRODUCED: ("no", "✗"),
    records.NOT_CHECKABLE: ("open", "?"),
    records.CONTEXT: ("context", "·"),
}


def main(words):
    if len(words) < 2:
        print("seqpar: report.py OUT PATH...", file=sys.stderr)
        return 2
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells about its font cache
    out = pathlib.Path(words[0])
    try:
        found = results.collect(words[1:])
    except results.ResultError as error:
        print(f"seqpar: {error}", file=sys.stderr)
        return 2
    for path, reason in found.broken:
        print(f"seqpar: skipped {' '.join(str(path).split())}: {reason}", file=sys.stderr)
    if not found.replays and not found.runs:
        places = ", ".join(words[1:])
        print(f"seqpar: no results in {places}; make some: seqpar reproduce quick", file=sys.stderr)
        return 2
    try:
        write(out, page(found))
    except OSError as error:
        print(f"seqpar: {out}: cannot write it: {error.strerror}", file=sys.stderr)
        return 3
    return 0


def write(path, text):
    """Whole or not at all."""
    if path.exists() and not path.is_file():  # a device would be replaced
        raise OSError(errno.EEXIST, "it exists and is not a regular file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(text.encode("utf-8", "replace"))  # names of files may be no UTF-8
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def page(found):
    here = pathlib.Path(__file__).resolve().parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    items = [item_of(replay, index) for index, replay in enumerate(found.replays)]
    shown = found.traces[:MOST_TIMELINES]
    by_kind = [[t for t in shown if t.kind == kind] for kind in ("measured", "simulated")]
    return environment.get_template("template.html").render(
        papers=papers_of(items),
        items=items,
        most={"plots": MOST_PLOTS, "findings": MOST_FINDINGS, "rows": FOLDED_FROM - 1},
        item_counts=counts(replay.verdict for replay in found.replays),
        row_counts=counts(row.verdict for replay in found.replays for row in replay.rows),
        fitted=sum(
            row.fitted and row.verdict == records.REPRODUCED
            for replay in found.replays
            for row in replay.rows
        ),
        timelines=[timelines.pictures(traces) for traces in by_kind if traces],
        timelines_left_out=len(found.traces) - len(shown),
        runs=[(kind, runs_of(found, kind)) for kind in ("measured", "simulated")],
        environments=environments(found),
        files=[(r.path.name, r.created_utc, r.command_line) for r in found.replays + found.runs],
        older=found.older,
        broken=[(path.name, reason) for path, reason in found.broken],
        palette=plots.PALETTE,
        colours={"ink": plots.INK, "grid": plots.FAINT, "surface": plots.SURFACE},
    )


def counts(verdicts):
    """[(verdict, class, mark, how many)] of the three that are verdicts."""
    counted = collections.Counter(verdicts)
    return [(v, *MARKS[v], counted[v]) for v in records.VERDICTS if v != records.CONTEXT]


def papers_of(items):
    """Papers with their items."""
    groups = collections.defaultdict(list)
    for item in items:
        groups[item["id"].split("/")[0]].append(item)
    order = [*PAPERS, *sorted(groups.keys() - PAPERS.keys())]
    return [
        {
            "name": PAPERS.get(paper, paper),
            "anchor": f"paper/{paper}",
            "items": groups[paper],
            "reproduced": sum(item["verdict"] == records.REPRODUCED for item in groups[paper]),
        }
        for paper in order
        if paper in groups
    ]


def item_of(replay, index):
    rows = [row_of(row) for row in replay.rows]
    judged = [row for row in replay.rows if row.verdict != records.CONTEXT]
    numbers = [row for row in judged if row.unit != STATEMENT]
    errors = [abs(row.error) for row in numbers if math.isfinite(row.error)]
    return {
        "id": replay.item,
        "anchor": replay.item.replace("/", "-"),
        "title": replay.title,
        "paper": replay.paper,
        "verdict": replay.verdict,
        "mark": MARKS[replay.verdict],
        "reason": replay.reason,
        "assumption": replay.assumption,
        "findings": replay.findings,
        "tables": [
            table_of("claim", [row for row in rows if row["verdict"] != records.CONTEXT]),
            table_of("row of context", [row for row in rows if row["verdict"] == records.CONTEXT]),
        ],
        "score": f"{replay.count(records.REPRODUCED)} of {len(judged)}" if judged else "–",
        "median_error": percent(statistics.median(errors), "") if errors else "–",
        "worst_error": percent(max(errors), "") if errors else "–",
        "plots": [
            {
                "title": title,
                "svg": plots.svg(curves, f"p{index}-{n}"),
                "legend": legend(curves),
                "missing": any(not math.isfinite(y) for curve in curves for y in curve.y),
            }
            for n, (title, curves) in enumerate(replay.plots().items())
        ],
        "command": replay.command_line,
    }


def table_of(noun, rows):
    """Measured and simulated never share a column: each provenance has its own."""
    present = [p for p in records.PROVENANCES if any(row["provenance"] == p for row in rows)]
    counted = collections.Counter(row["verdict"] for row in rows)
    parts = [f"{n} {v}" for v, n in counted.items() if v != records.CONTEXT]
    heading = f"{len(rows)} {noun.replace('row', 'rows') if len(rows) != 1 else noun}"
    heading += "s" if noun == "claim" and len(rows) != 1 else ""
    return {
        "rows": rows,
        "provenances": present,
        "heading": heading + (f": {', '.join(parts)}" if parts else ""),
        "open": noun == "claim" and len(rows) < FOLDED_FROM,
        "judged": noun == "claim",
    }


def row_of(row):
    value = statement if row.unit == STATEMENT else number
    comparable = row.unit != STATEMENT and math.isfinite(row.error)
    return {
        "label": row.label,
        "quantity": row.quantity,
        "unit": "" if row.unit in ("1", "", STATEMENT) else row.unit,
        "paper": value(row.paper),
        "rounding": number(row.rounding) if row.rounding > 0 else "",
        "grade": "" if row.grade == "printed" or math.isnan(row.paper) else row.grade,
        "ours": value(row.ours),
        "provenance": row.provenance,
        "error": ("exact" if row.error == 0 else percent(row.error, "+")) if comparable else "–",
        "band": "–" if math.isnan(row.ours) else percent(row.band, "") if row.band else "0",
        "fitted": row.fitted,
        "verdict": row.verdict,
        "mark": MARKS[row.verdict],
        "reason": row.reason,
    }


def statement(value):
    return {1: "holds", 0: "does not hold"}.get(value, "–")


def legend(curves):
    """[(number of the colour, path of the marker, line style or None, text)]"""
    chosen = plots.styles([curve.name for curve in curves])
    entries = []
    for curve in curves:
        colour, marker = chosen[curve.name]
        line, text = plots.line_style(curve), plots.legend_text(curve)
        entries.append((colour + 1, plots.MARKERS[marker], line, text))
    return entries


def runs_of(found, kind):
    """Tables of runs: [(command line, columns, rows of cells)]"""
    makers = {"bench": bench_table, "layer": layer_table, "verification": verification_table}
    return [(r.command_line, *makers[r.what](r.rows)) for r in found.runs if r.kind == kind]


def bench_table(rows):
    """Predictions have a band beside each time, measurements have none."""
    columns = ["algorithm", "P", "tokens", "forward", "backward", "% of ideal", "sent", "status"]
    predicted = any(math.isfinite(row["band"]) for row in rows)
    if predicted:
        columns.insert(5, "band")
    cells = []
    for row in rows:
        cells.append(
            [
                row["variant"],
                str(row["ranks"]),
                plots.binary_number(row["tokens"]),
                duration(row["forward_s"]),
                duration(row["backward_s"]),
                *([percent(row["band"], "")] if predicted else []),
                number(round(row["percent_of_ideal"], 1)),
                size(row["bytes_sent"]),
                row["status"] + (f": {row['reason']}" if row["reason"] else ""),
            ]
        )
    return columns, cells


def layer_table(rows):
    columns = [
        "algorithm",
        "forward",
        "backward",
        "peak memory of a rank",
        "error / limit",
        "check",
    ]
    return columns, [
        [
            row["variant"],
            duration(row["forward_s"]),
            duration(row["backward_s"]),
            size(row["peak_bytes"]),
            f"{row['worst_ratio']:.3f}",
            row["verdict"],
        ]
        for row in rows
    ]


def verification_table(rows):
    columns = ["algorithm", "problems", "skipped", "worst error / limit", "check"]
    return columns, [
        [
            row["variant"],
            number(float(row["cases"])),
            number(float(row["skipped"])),
            f"{row['worst_ratio']:.3f}",
            row["verdict"],
        ]
        for row in rows
    ]


def environments(found):
    """[(number of files, newest moment, entries)] of the records that differ, most files first."""
    groups = {}
    for each in found.replays + found.runs:
        entries = {n: v for n, v in each.environment.items() if n != "created_utc"}
        groups.setdefault(tuple(sorted(entries.items())), []).append(each.created_utc)
    ordered = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [(len(moments), max(moments), entries) for entries, moments in ordered]


def number(value):
    """Whole numbers in full up to a trillion, others with four significant digits."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == round(value) and abs(value) < 1e12:
        text = f"{value:,.0f}"
    elif 1e-4 <= abs(value) < 1e6:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{digits}f}"
    else:
        text = f"{value:.3e}".replace("e+", "e")
    return text.replace(",", "\u202f").replace("-", "−")


def percent(value, sign):
    """Of 1; beyond 1000 % how many times as much."""
    if not math.isfinite(value):
        return "–"
    if value >= 10:
        return f"×{number(round(value + 1))}"
    return f"{100 * value:{sign}.1f} %".replace("-", "−")


def duration(seconds):
    return "–" if math.isnan(seconds) else timelines.seconds(seconds)


def size(count):
    if math.isnan(count):
        return "–"
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count:.0f} B"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
