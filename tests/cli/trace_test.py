"""Timelines that the command writes: seqpar bench --trace and seqpar simulate --trace.

Usage: trace_test.py SEQPAR [MPIEXEC]. The file itself is tested in tests/simulated/trace_test.cpp;
here: that runs end up in it. SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import pathlib
import sys
import tempfile
import unittest

from processes import MPI_ENVIRONMENT, run

SEQPAR = sys.argv[1]
MPIEXEC = sys.argv[2] if len(sys.argv) > 2 else None
SMALL = "--tokens 48 --heads 4 --kv-heads 2 --head-size 8".split()


class Traces(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = pathlib.Path(directory.name) / "trace.json"

    def expect_trace(self, kind, ranks):
        trace = json.loads(self.path.read_text())
        self.assertEqual(trace["otherData"]["kind"], kind)
        events = trace["traceEvents"]
        lanes = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
        for rank in range(ranks):
            for lane in ("compute", "send", "receive", "wait"):
                self.assertIn(f"rank {rank} {lane}", lanes)
        names = {e["name"] for e in events if e["ph"] == "X" and e["cat"] == "compute"}
        self.assertLessEqual({"attention", "attention_backward"}, names)
        starts = [e["id"] for e in events if e["ph"] == "s"]
        self.assertEqual(sorted(starts), sorted(e["id"] for e in events if e["ph"] == "f"))
        receives = [e for e in events if e["ph"] == "X" and e["cat"] == "receive"]
        self.assertEqual(len(starts), len(receives), "every message of a ring has its arrow")

    def test_threads(self):
        words = ("--algorithm", "ring/zigzag", "--ranks", "3", "-n", "1")
        done = run(SEQPAR, "bench", *words, *SMALL, "--trace", self.path)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.expect_trace("measured", 3)

    @unittest.skipUnless(MPIEXEC, "no MPI in this build")
    def test_processes(self):
        launcher = (MPIEXEC, "--oversubscribe", "-n", "3", SEQPAR, "bench", "--backend", "mpi")
        words = ("--algorithm", "ring/zigzag", "--ranks", "3", "-n", "1", "--trace", self.path)
        done = run(*launcher, *words, *SMALL, env={**os.environ, **MPI_ENVIRONMENT})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.expect_trace("measured", 3)

    def test_simulation(self):
        words = ("--algorithm", "ring/zigzag", "--ranks", "16", "--tokens", "4K")
        done = run(SEQPAR, "simulate", *words, "--trace", self.path)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.expect_trace("simulated", 16)
        first = self.path.read_bytes()
        run(SEQPAR, "simulate", *words, "--trace", self.path)
        self.assertEqual(self.path.read_bytes(), first, "the same twice, byte for byte")

    def test_refusals(self):
        one = ("--algorithm", "rsa", "--ranks", "2")
        for words, code, said in (
            (("bench", *one, "--backend", "emulated"), 2, "allowed: thread, mpi"),
            (("bench", "--algorithm", "rsa", "--ranks", "2,3"), 2, "shows one run, not 2"),
            (("simulate", *one, "--tokens", "1K,2K"), 2, "shows one run, not 2"),
        ):
            with self.subTest(words):
                done = run(SEQPAR, *words, "--trace", self.path)
                self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
                self.assertRegex(done.stderr, r"\Aseqpar: [^\n]+\n\Z")
                self.assertIn(said, done.stderr)
                self.assertFalse(self.path.exists())

    def test_a_place_that_cannot_be_written(self):
        done = run(
            SEQPAR, "simulate", *"--algorithm rsa --ranks 2 --tokens 1K --trace /nowhere/t".split()
        )
        self.assertEqual(done.returncode, 3)
        self.assertRegex(done.stderr, r"\Aseqpar: /nowhere/t: [^\n]+\n\Z")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
