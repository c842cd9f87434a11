"""Reads the formats: replays and runs in HDF5 (data/README.md), timelines as Chrome-trace JSON.

What is wrong with a file is a ValueError, or whatever the libraries raise.
SPDX-License-Identifier: Apache-2.0
"""

import math

import h5py
import numpy as np
from records import LANES, PROVENANCES, VERDICTS, Curve, Replay, Row, Run, Span, Trace


def read_file(path):
    try:
        file = h5py.File(path, "r")
    except OSError:
        raise ValueError("not a readable HDF5 file") from None
    with file:
        schema = _text(file.attrs.get("schema_name", ""))
        readers = {"seqpar.replay": _read_replay, "seqpar.run": _read_run}
        if schema not in readers:
            allowed = ", ".join(readers)
            raise ValueError(f"schema_name is '{schema}'; allowed: {allowed}")
        major = _text(file.attrs.get("schema_version", "?")).split(".")[0]
        if major != "1":
            raise ValueError(f"schema_version is '{major}'; allowed: 1")
        return readers[schema](path, file)


def _text(value):
    data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "replace")


def _attribute(node, name):
    if name not in node.attrs:
        raise ValueError(f"attribute {name} is missing")
    return _text(node.attrs[name])


def _attributes(file, group):
    return (
        {name: _text(value) for name, value in file[group].attrs.items()} if group in file else {}
    )


def _strings(dataset):
    return [_text(value) for value in dataset.asstr()[...].ravel()]


def _read_replay(path, file):
    columns = {
        "label": _strings,
        "quantity": _strings,
        "unit": _strings,
        "paper_value": lambda d: d[...].tolist(),
        "grade": _strings,
        "rounding": lambda d: d[...].tolist(),
        "ours": lambda d: d[...].tolist(),
        "provenance": _strings,
        "band": lambda d: d[...].tolist(),
        "fitted": lambda d: d[...].astype(bool).tolist(),
        "verdict": _strings,
        "reason": _strings,
    }
    rows = [Row(*cells) for cells in zip(*(read(file[name]) for name, read in columns.items()))]
    for row in rows:
        if row.verdict not in VERDICTS or row.provenance not in PROVENANCES:
            raise ValueError(f"row '{row.label}' is '{row.verdict}' and '{row.provenance}'")
    verdict = _attribute(file, "verdict")
    if verdict not in VERDICTS:
        raise ValueError(f"verdict is '{verdict}'; allowed: {', '.join(VERDICTS)}")
    return Replay(
        path=path,
        created_utc=_attribute(file, "created_utc"),
        item=_attribute(file, "item"),
        title=_attribute(file, "title"),
        paper=_attribute(file, "paper"),
        verdict=verdict,
        reason=_attribute(file, "reason"),
        assumption=_attribute(file, "assumption"),
        command_line=_attribute(file, "command_line"),
        rows=rows,
        curves=[_curve(file["curves"][name]) for name in sorted(file.get("curves", ()))],
        findings=_strings(file["findings"]) if "findings" in file else [],
        config={name: _text(node[()]) for name, node in file.get("config", {}).items()},
        environment=_attributes(file, "environment"),
    )


def _curve(group):
    x, y = group["x"][...].astype(float), group["y"][...].astype(float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"a curve has x of shape {x.shape} and y of shape {y.shape}")
    return Curve(
        plot=_attribute(group, "plot"),
        name=_attribute(group, "name"),
        x_label=_attribute(group, "x_label"),
        y_label=_attribute(group, "y_label"),
        from_paper=bool(group.attrs["from_paper"]),
        provenance=_attribute(group, "provenance"),
        x=x,
        y=np.where(np.isfinite(y), y, math.nan),
    )


def _read_run(path, file):
    kind = _attribute(file, "kind")
    if kind not in ("measured", "simulated"):
        raise ValueError(f"kind is '{kind}'; allowed: measured, simulated")
    if "samples/time" in file:
        what, rows = "bench", _bench_rows(file)
    elif "samples/forward_time" in file:
        what, rows = "layer", _layer_rows(file)
    else:
        what, rows = "verification", _verification_rows(file)
    return Run(
        path=path,
        created_utc=_attribute(file, "created_utc"),
        kind=kind,
        command_line=_attribute(file["config"], "command_line"),
        what=what,
        rows=rows,
        environment=_attributes(file, "environment"),
    )


def _bench_rows(file):
    variants, directions = _strings(file["variant"]), _strings(file["direction"])
    lengths, ranks = file["seq_len"][...], file["ranks"][...]
    times = file["samples/time"][...]
    sent, peak = file["cost/bytes_sent"][...], file["cost/peak_bytes"][...]
    ideal, status = file["cost/percent_of_ideal"][...], file["status"][...]
    meanings = _text(file["status"].attrs["flag_meanings"]).split()
    band = file["band"][...] if "band" in file else np.full(status.shape, math.nan)
    reasons, problems = file["status_reason"].asstr()[...], file["problem"].asstr()[...]
    rows = []
    for v, n, p in np.ndindex(status.shape):
        if not problems[v, n, p] and not reasons[v, n, p]:
            continue  # a point of the axes that nobody asked for
        samples = {name: times[v, n, p, d] for d, name in enumerate(directions)}
        rows.append(
            {
                "variant": variants[v],
                "tokens": int(lengths[n]),
                "ranks": int(ranks[p]),
                "status": meanings[status[v, n, p]],
                "reason": reasons[v, n, p],
                "problem": problems[v, n, p],
                "samples": samples,
                "forward_s": float(np.median(samples.get("forward", math.nan))),
                "backward_s": float(np.median(samples.get("backward", math.nan))),
                "band": float(band[v, n, p]),
                "percent_of_ideal": float(ideal[v, n, p]),
                "bytes_sent": float(sent[v, n, p].sum()),
                "peak_bytes": float(peak[v, n, p].max()),
            }
        )
    return rows


def _layer_rows(file):
    columns = {
        "forward_s": file["samples/forward_time"][...].sum(axis=1),
        "backward_s": file["samples/backward_time"][...].sum(axis=1),
        "worst_ratio": file["verification/worst_ratio"][...].max(axis=1),
        "peak_bytes": file["cost/peak_memory"][...],
        "verdict": _strings(file["verification/verdict"]),
    }
    rows = []
    for index, variant in enumerate(_strings(file["variant"])):
        rows.append({"variant": variant, **{name: c[index] for name, c in columns.items()}})
    return rows


def _verification_rows(file):
    group = file["verification"]
    columns = {name: group[name][...] for name in ("cases", "skipped", "worst_ratio")}
    columns["verdict"] = _strings(group["verdict"])
    rows = []
    for index, variant in enumerate(_strings(file["variant"])):
        rows.append({"variant": variant, **{name: c[index] for name, c in columns.items()}})
    return rows


def read_trace(path, trace):
    lanes = {}
    for event in trace["traceEvents"]:
        if event["ph"] == "M" and event["name"] == "thread_name":
            lanes[event["pid"], event["tid"]] = _lane(event["args"]["name"])
    spans = []
    for event in trace["traceEvents"]:
        rank, lane = lanes.get((event["pid"], event.get("tid")), (None, None))
        if event["ph"] == "X" and lane:
            start, length = float(event["ts"]) * 1e-6, float(event["dur"]) * 1e-6
            if not (0 <= start < math.inf and 0 <= length < math.inf):
                raise ValueError(f"a span starts at {start} s and takes {length} s")
            spans.append(Span(rank, lane, event["name"], start, start + length))
    if not any(span.end_s > 0 for span in spans):
        raise ValueError("no spans of ranks")
    about = trace["otherData"]
    if about["kind"] not in ("measured", "simulated"):
        raise ValueError(f"kind is '{about['kind']}'; allowed: measured, simulated")
    return Trace(path, str(about["title"]), about["kind"], spans)


def _lane(name):
    """'rank 3 send 2' -> (3, 'send')"""
    words = name.split()
    if len(words) >= 3 and words[0] == "rank" and words[1].isdigit():
        return int(words[1]), words[2] if words[2] in LANES else None
    return None, None
