"""Threads and MPI give the same bits: every algorithm, forward and backward, on one packed problem.

Usage: backends_agree_test.py SEQPAR MPIRUN
SPDX-License-Identifier: Apache-2.0
"""
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np

RANKS = 4


def write_problem(path, projected):
    rng = np.random.default_rng(7)
    B, N, H, G, D = 1, 53, 8, 4, 16
    with h5py.File(path, "w") as f:
        f.attrs["schema"] = "seqpar.problem"
        f.attrs["schema_version"] = 1
        f.attrs["attention"] = "softmax"
        f.attrs["causal"] = 0 if projected else 1
        for name, heads in (("q", H), ("k", G), ("v", G), ("d_out", H)):
            f[name] = rng.standard_normal((B, N, heads, D)).astype(np.float32)
        if projected:
            for name in ("projection_k", "projection_v"):
                f[name] = rng.standard_normal((N, 6)).astype(np.float32)
        else:
            f["segment_ids"] = np.repeat(np.arange(3, dtype=np.int32), (20, 5, 28))[None, :]


def main():
    seqpar, mpirun = sys.argv[1:]
    listed = subprocess.run([seqpar, "list", "--json"], check=True, capture_output=True, text=True)
    compared = 0
    with tempfile.TemporaryDirectory() as folder:
        problems = {}
        for projected in (False, True):
            problems[projected] = os.path.join(folder, f"problem-{projected}.h5")
            write_problem(problems[projected], projected)
        for algorithm in json.loads(listed.stdout)["algorithms"]:
            problem = problems[algorithm["family"].startswith("projected")]
            results = {}
            for backend, launch in (
                ("thread", []),
                ("mpi", [mpirun, "--oversubscribe", "-np", str(RANKS)]),
            ):
                results[backend] = os.path.join(folder, f"{backend}.h5")
                command = [seqpar, "compute", "--algorithm", algorithm["id"]]
                command += ["--backend", backend, "--ranks", str(RANKS), "--ranks-per-node", "2"]
                subprocess.run(launch + command + [problem, results[backend]], check=True)
            with h5py.File(results["thread"]) as a, h5py.File(results["mpi"]) as b:
                names = {n for n in a if isinstance(a[n], h5py.Dataset)}
                assert {"out", "lse", "d_q", "d_k", "d_v"} <= names, names
                for name in names:
                    same = a[name][...].tobytes() == b[name][...].tobytes()
                    assert same, f"{algorithm['id']}: {name} differs between threads and MPI"
                    compared += 1
    assert compared >= 5, "nothing was compared"
    print(f"{compared} tensors are the same bits on threads and on MPI")


main()
