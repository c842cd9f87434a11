"""Loads what seqpar stored, one file or all of a directory; the newest of each item counts.

For the report, the notebooks and whoever wants to plot. Needs NumPy and h5py. Files are not
trusted: each is read in a child process, because the HDF5 library itself crashes or loops on some
damaged ones. SPDX-License-Identifier: Apache-2.0
"""

import dataclasses
import json
import os
import pathlib
import pickle
import resource

from readers import read_file, read_trace
from records import Replay

CPU_SECONDS, MEMORY_BYTES = 20, 1 << 30  # for one file; reading takes a hundredth of it
TRACE_BYTES = 256 << 20


class ResultError(Exception):
    """One line that names the file."""


@dataclasses.dataclass
class Collection:
    replays: list  # the newest of every item, by item
    runs: list  # the newest of every command line, by time
    traces: list
    older: int = 0  # files that a newer one replaced
    broken: list = dataclasses.field(default_factory=list)  # (path, what is wrong)


def load(path):
    """A Replay or a Run. Raises ResultError, whatever the file holds."""
    path = pathlib.Path(path)
    _refuse_special(path)
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ResultError(f"{path}: cannot open it: {error.strerror}") from None
    kind, value = _in_child(read_file, path)
    if kind == "error":
        raise ResultError(f"{path}: {value}")
    return value


def load_trace(path):
    """The timeline of a Chrome-trace file; None if the JSON is something else."""
    path = pathlib.Path(path)
    _refuse_special(path)
    try:
        if path.stat().st_size > TRACE_BYTES:
            raise ResultError(f"{path}: too large; allowed: {TRACE_BYTES >> 20} MiB")
        trace = json.loads(path.read_text())
        if not isinstance(trace, dict) or "traceEvents" not in trace:
            return None
        return read_trace(path, trace)
    except OSError as error:
        raise ResultError(f"{path}: cannot read it: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResultError(f"{path}: not a timeline: {_one_line(error)}") from None


def collect(paths):
    """Everything in files and directories; of an item, or a command, the newest file."""
    replays, runs, traces, broken, count = {}, {}, {}, [], 0
    for path in _files(paths):
        try:
            if path.suffix == ".json":
                trace = load_trace(path)
                if trace:
                    traces[path.name] = trace
                continue
            result = load(path)
        except ResultError as error:
            broken.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        count += 1
        if isinstance(result, Replay):
            _keep_newest(replays, result.item, result)
        else:
            _keep_newest(runs, (result.kind, result.command_line), result)
    return Collection(
        replays=[replays[item] for item in sorted(replays)],
        runs=sorted(runs.values(), key=lambda run: (run.created_utc, run.path.name)),
        traces=[traces[name] for name in sorted(traces)],
        older=count - len(replays) - len(runs),
        broken=broken,
    )


def _files(paths):
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            yield from sorted(p for p in path.iterdir() if p.suffix in (".h5", ".json"))
        elif path.exists():
            yield path
        else:
            raise ResultError(f"{path}: no such file or directory")


def _refuse_special(path):
    """Opening a pipe would wait for a writer, and a device may never end."""
    if path.exists() and not path.is_file():
        raise ResultError(f"{path}: not a regular file")


def _keep_newest(kept, key, result):
    age = (result.created_utc, result.path.name)
    if key not in kept or (kept[key].created_utc, kept[key].path.name) < age:
        kept[key] = result


def _one_line(error):
    return " ".join(str(error).split())[:300] or type(error).__name__


def _in_child(read, path):
    """("value", what read(path) returns) or ("error", a line)."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(receiver)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (_memory_limit(), _memory_limit()))
            try:
                answer = ("value", read(path))
            except Exception as error:  # whatever a damaged file provokes
                answer = ("error", _one_line(error))
            with os.fdopen(sender, "wb") as stream:
                pickle.dump(answer, stream)
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    try:
        return pickle.loads(data)
    except (EOFError, pickle.UnpicklingError):
        return ("error", "the file is corrupt: the HDF5 library fails on it")


def _memory_limit():
    """Address space: what the process has, and a little more."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize() + MEMORY_BYTES
