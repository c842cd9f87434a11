"""What stored results are in Python: replays with their rows and curves, runs, timelines.

SPDX-License-Identifier: Apache-2.0
"""

import dataclasses
import math
import pathlib

import numpy as np

REPRODUCED, NOT_REPRODUCED, NOT_CHECKABLE, CONTEXT = VERDICTS = (
    "reproduced",
    "not reproduced",
    "not checkable here",
    "context",
)
PROVENANCES = ("formula", "counted", "simulated", "measured")
LANES = ("compute", "send", "receive", "wait")


@dataclasses.dataclass(frozen=True)
class Row:
    label: str
    quantity: str
    unit: str
    paper: float  # NaN: the paper has no number
    grade: str
    rounding: float
    ours: float
    provenance: str
    band: float
    fitted: bool
    verdict: str
    reason: str

    @property
    def error(self):
        """Relative; NaN where there is nothing to compare."""
        return self.ours / self.paper - 1 if self.paper else math.nan


@dataclasses.dataclass(frozen=True)
class Curve:
    plot: str
    name: str
    x_label: str
    y_label: str
    from_paper: bool
    provenance: str
    x: np.ndarray
    y: np.ndarray  # NaN: no value, for example out of memory


@dataclasses.dataclass
class Replay:
    """An item of a paper: what the paper says, what comes out here, and the verdict."""

    path: pathlib.Path
    created_utc: str
    item: str
    title: str
    paper: str
    verdict: str
    reason: str
    assumption: str
    command_line: str
    rows: list
    curves: list
    findings: list
    config: dict
    environment: dict

    def count(self, verdict):
        return sum(row.verdict == verdict for row in self.rows)

    def plots(self):
        """Title of a plot -> its curves, both in the order of the file."""
        plots = {}
        for curve in self.curves:
            plots.setdefault(curve.plot, []).append(curve)
        return plots


@dataclasses.dataclass
class Run:
    """The outcome of verify, bench, simulate or a real replay; `rows` are dictionaries."""

    path: pathlib.Path
    created_utc: str
    kind: str  # measured or simulated
    command_line: str
    what: str  # bench, layer or verification
    rows: list
    environment: dict


@dataclasses.dataclass
class Span:
    rank: int
    lane: str  # compute, send, receive or wait
    name: str
    start_s: float
    end_s: float


@dataclasses.dataclass
class Trace:
    path: pathlib.Path
    title: str
    kind: str
    spans: list
