"""Small result files for tests, written with h5py as the formats are specified (data/README.md).

SPDX-License-Identifier: Apache-2.0
"""

import json
import math

import h5py
import numpy as np

TEXT = h5py.string_dtype()
NAN = math.nan
ENVIRONMENT = {"commit": "0123abcd", "cpu": "a <fast> CPU & more", "cores": "2"}


def row(label, quantity, unit, paper, ours, verdict, **more):
    """A row of a replay; what is not given is printed, simulated and within 8 %."""
    more = {"grade": "printed", "provenance": "simulated", "band": 0.08, "rounding": 0.0} | more
    return {
        **{"label": label, "quantity": quantity, "unit": unit, "paper_value": paper, "ours": ours},
        **{"verdict": verdict, "reason": "", "fitted": 0},
        **more,
    }


def curve(plot, name, x, y, x_label="length (tokens)", y_label="time (s)", **more):
    """A curve of a replay; what is not given is ours, simulated."""
    about = {"plot": plot, "name": name, "x_label": x_label, "y_label": y_label}
    return {**about, "from_paper": 0, "provenance": "simulated", "x": x, "y": y, **more}


def write_replay(path, item, rows, curves=(), findings=(), **attributes):
    about = {
        "schema_name": "seqpar.replay",
        "schema_version": "1.0.0",
        "created_utc": "2026-01-02T03:04:05Z",
        "kind": "simulated",
        "software": "0.1.0 0123abcd Release",
        "item": item,
        "title": f"Title of {item}",
        "paper": "A. Author et al., 2024, arXiv:0000.00000",
        "verdict": "reproduced",
        "reason": "",
        "assumption": "",
        "config_sha256": "0" * 64,
        "command_line": f"seqpar reproduce {item}",
    }
    with h5py.File(path, "w") as file:
        file.attrs.update(about | attributes)
        file["row"] = np.arange(len(rows))
        file["row"].make_scale("row")
        for name in ("label", "quantity", "unit", "grade", "provenance", "verdict", "reason"):
            file.create_dataset(name, data=[each[name] for each in rows], dtype=TEXT)
        for name in ("paper_value", "ours", "band", "rounding"):
            file[name] = np.array([each[name] for each in rows], float)
        file["fitted"] = np.array([each["fitted"] for each in rows], np.int64)
        file["finding"] = np.arange(len(findings))
        file["finding"].make_scale("finding")
        file.create_dataset("findings", data=list(findings), dtype=TEXT, shape=(len(findings),))
        file.create_group("curves")
        for index, each in enumerate(curves):
            group = file.create_group(f"curves/{index:03}")
            for name, value in each.items():
                if name in ("x", "y"):
                    group[name] = np.array(value, float)
                else:
                    group.attrs[name] = value
        file.create_dataset("config/toml", data="answer = 42\n", dtype=TEXT)
        file.create_dataset("config/platform", data="", dtype=TEXT)
        file.create_group("environment").attrs.update(ENVIRONMENT)


def write_bench(path, times, kind="measured", **attributes):
    """times: {(variant, tokens, ranks): [samples of forward]}, all of one count."""
    axes = [sorted({key[axis] for key in times}) for axis in range(3)]
    shape = tuple(map(len, axes))
    repetitions = len(next(iter(times.values())))
    samples = np.full((*shape, 1, repetitions), NAN)
    status, words = np.full(shape, 4), np.full(shape, "", object)
    for key, values in times.items():
        place = tuple(axes[axis].index(key[axis]) for axis in range(3))
        samples[place][0] = values
        status[place], words[place] = 0, "a problem"
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {"schema_name": "seqpar.run", "schema_version": "1.1.0", "kind": kind}
            | {"created_utc": "2026-01-02T03:04:05Z", "software_version": "0.1.0"}
            | attributes
        )
        file.create_group("config").attrs["command_line"] = f"seqpar bench {path.name}"
        file.create_group("environment").attrs.update(ENVIRONMENT)
        file.create_dataset("variant", data=axes[0], dtype=TEXT)
        file["seq_len"], file["ranks"] = axes[1], axes[2]
        file.create_dataset("direction", data=["forward"], dtype=TEXT)
        file["repetition"] = np.arange(repetitions)
        names = ("variant", "seq_len", "ranks", "direction", "repetition")
        for name in names:
            file[name].make_scale(name)

        def column(name, data, **more):
            dataset = file.create_dataset(name, data=data, **more)
            for axis in range(dataset.ndim):
                dataset.dims[axis].label = names[axis]
                dataset.dims[axis].attach_scale(file[names[axis]])

        column("status", status)
        file["status"].attrs["flag_meanings"] = "ok skipped oom failed unverified"
        column("status_reason", np.full(shape, "", object), dtype=TEXT)
        column("problem", words, dtype=TEXT)
        column("samples/time", samples)
        column("cost/bytes_sent", np.where(np.isnan(samples[..., 0]), NAN, 1024.0))
        column("cost/peak_bytes", np.where(np.isnan(samples[..., 0]), NAN, 4096.0))
        for name, unit in (("samples/time", "s"), ("cost/bytes_sent", "byte")):
            file[name].attrs["units"] = unit
        column("cost/percent_of_ideal", np.full(shape, NAN))
        if kind == "simulated":
            column("band", np.full(shape, 0.3))


def write_trace(path, title, ranks=4, steps=6, step_s=0.25, kind="simulated"):
    """A ring in Chrome-trace form."""
    events = []
    lanes = ("compute", "send", "receive", "wait")
    for rank in range(ranks):
        for tid, lane in enumerate(lanes):
            about = {"pid": 0, "tid": 4 * rank + tid, "ph": "M"}
            events.append({**about, "name": "thread_name", "args": {"name": f"rank {rank} {lane}"}})
        for step in range(steps):
            for tid, (start, length) in enumerate(((0, 0.8), (0.05, 0.5), (0.1, 0.6), (0.8, 0.2))):
                events.append(
                    {
                        **{"pid": 0, "tid": 4 * rank + tid, "ph": "X", "name": lanes[tid]},
                        "ts": 1e6 * step_s * (step + start),
                        "dur": 1e6 * step_s * length,
                    }
                )
    about = {"title": title, "kind": kind}
    path.write_text(json.dumps({"traceEvents": events, "otherData": about}))
