"""Timelines as lanes of a page: what each rank computed, sent and received, on one time axis.

A lane is one SVG path whose x is 0 to WIDTH over the whole axis, so a page stays small: spans that
are nearer than a thousandth of the axis are drawn as one. SPDX-License-Identifier: Apache-2.0
"""

import math

WIDTH = 10000
GAP = WIDTH // 1000
MOST_RANKS = 8
# y and height in the 24 pixels of a rank: waiting shares the row of computing.
LANES = {"compute": (2, 10), "wait": (2, 10), "send": (13, 4), "receive": (18, 4)}


def pictures(traces):
    """Traces of one kind, on a common axis if the shortest is still visible on it."""
    ends = [max(span.end_s for span in trace.spans) for trace in traces]
    common = max(ends) <= 12 * min(ends)
    drawn = [
        picture(trace, max(ends) if common else end, end)
        for trace, end in sorted(zip(traces, ends), key=lambda pair: pair[1])
    ]
    return {"kind": traces[0].kind, "common": common, "pictures": drawn}


def picture(trace, axis_s, end_s):
    ranks = sorted({span.rank for span in trace.spans})
    shown = spread(ranks, MOST_RANKS)
    return {
        "title": trace.title,
        "file": trace.path.name,
        "end": seconds(end_s),
        "ranks": len(ranks),
        "shown": [{"rank": rank, "lanes": lanes(trace.spans, rank, axis_s)} for rank in shown],
        "ticks": ticks(axis_s),
    }


def spread(ranks, most):
    """At most so many, evenly spread, with the first and the last."""
    if len(ranks) <= most:
        return ranks
    return [ranks[round(i * (len(ranks) - 1) / (most - 1))] for i in range(most)]


def lanes(spans, rank, axis_s):
    """[(lane, path)] of a rank; waiting first, so that computing is drawn above it."""
    drawn = []
    for lane in ("wait", "compute", "send", "receive"):
        times = sorted((s.start_s, s.end_s) for s in spans if s.rank == rank and s.lane == lane)
        y, height = LANES[lane]
        boxes = merged([(WIDTH * start / axis_s, WIDTH * end / axis_s) for start, end in times])
        path = "".join(f"M{x} {y}h{end - x}v{height}h{x - end}z" for x, end in boxes)
        if path:
            drawn.append((lane, path))
    return drawn


def merged(times):
    """Sorted intervals as integers, at least one wide, without gaps that nobody could see."""
    boxes = []
    for start, end in times:
        x, right = round(start), max(round(end), round(start) + 1)
        if boxes and x - boxes[-1][1] < GAP:
            boxes[-1][1] = max(boxes[-1][1], right)
        else:
            boxes.append([x, right])
    return boxes


def ticks(axis_s):
    """[(percent, label)]: four to eight steps of 1, 2 or 5 times a power of ten."""
    if axis_s <= 0:
        return []
    power = 10 ** math.floor(math.log10(axis_s / 4))
    step = max(s * power for s in (1, 2, 5) if s * power <= axis_s / 3.99)
    return [(100 * i * step / axis_s, seconds(i * step)) for i in range(int(axis_s / step) + 1)]


def seconds(value):
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= 0.9995 * size:
            return f"{value / size:.4g} {unit}"
    return "0" if value == 0 else f"{value * 1e9:.4g} ns"
