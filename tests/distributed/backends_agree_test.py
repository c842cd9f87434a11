"""Threads and MPI give the same bits: every algorithm and module, both passes, packed documents.

Usage: backends_agree_test.py SEQPAR MPIRUN
SPDX-License-Identifier: Apache-2.0
"""
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np

RANKS = 4


def write_problem(path, family, module=None):
    rng = np.random.default_rng(7)
    B, N, H, G, D = 1, 53, 8, 4, 16
    softmax = family in ("softmax", "projected softmax")
    layers = 3 if family == "hybrid" else 1
    with h5py.File(path, "w") as f:
        f.attrs["schema"] = "seqpar.problem"
        f.attrs["schema_version"] = 1
        f.attrs["attention"] = "softmax" if softmax else family
        f.attrs["causal"] = 0 if family == "projected softmax" else 1
        if module:
            f.attrs["module"] = module
        if family == "hybrid":
            f.attrs["layers"] = "LLN"
        for name, heads in (("q", H), ("k", G * layers), ("v", G * layers), ("d_out", H)):
            f[name] = rng.standard_normal((B, N, heads, D)).astype(np.float32)
        if module == "gla":
            f["log_decay"] = -rng.exponential(0.1, (B, N, H, D)).astype(np.float32)
        if module == "rebased":
            for name in ("gamma", "beta"):
                f[name] = rng.standard_normal(D).astype(np.float32)
        if family == "projected softmax":
            for name in ("projection_k", "projection_v"):
                f[name] = rng.standard_normal((N, 6)).astype(np.float32)
        else:
            f["segment_ids"] = np.repeat(np.arange(3, dtype=np.int32), (20, 5, 28))[None, :]


def problems_of(algorithm):
    """A problem of the algorithm's family, or one of each module that it serves."""
    return [(algorithm["family"], module) for module in algorithm.get("modules", [None])]


def compare(seqpar, mpirun, algorithm, problem):
    results, folder = {}, tempfile.mkdtemp(dir=os.path.dirname(problem))
    for backend, launch in (
        ("thread", []),
        ("mpi", [mpirun, "--oversubscribe", "-np", str(RANKS)]),
    ):
        results[backend] = os.path.join(folder, f"{backend}.h5")
        command = [seqpar, "compute", "--algorithm", algorithm]
        command += ["--backend", backend, "--ranks", str(RANKS), "--ranks-per-node", "2"]
        subprocess.run(launch + command + [problem, results[backend]], check=True)
    with h5py.File(results["thread"]) as a, h5py.File(results["mpi"]) as b:
        names = {n for n in a if isinstance(a[n], h5py.Dataset)}
        assert {"out", "d_q", "d_k", "d_v"} <= names, names
        for name in names:
            same = a[name][...].tobytes() == b[name][...].tobytes()
            assert same, f"{algorithm}: {name} differs between threads and MPI"
        return len(names)


def main():
    seqpar, mpirun = sys.argv[1:]
    listed = subprocess.run([seqpar, "list", "--json"], check=True, capture_output=True, text=True)
    # Two jobs at a time: the start of one is mostly waiting.
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        jobs = []
        for algorithm in json.loads(listed.stdout)["algorithms"]:
            for family, module in problems_of(algorithm):
                problem = os.path.join(folder, f"problem-{family}-{module}.h5")
                if not os.path.exists(problem):
                    write_problem(problem, family, module)
                jobs.append(pool.submit(compare, seqpar, mpirun, algorithm["id"], problem))
        compared = sum(job.result() for job in jobs)
    assert compared >= 5, "nothing was compared"
    print(f"{compared} tensors are the same bits on threads and on MPI")


main()
