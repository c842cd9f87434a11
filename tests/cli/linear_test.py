"""Linear attention on the command line: verification by module, and the real layer of LASP-2.

Usage: linear_test.py SEQPAR TOKENS SECONDS WORDS... The layer is computed with TOKENS tokens and
must end within SECONDS, in the better of two tries where the first met a busy machine. WORDS say
how much `verify` does for every algorithm and module.
SPDX-License-Identifier: Apache-2.0
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

import h5py

SEQPAR, TOKENS, SECONDS, WORDS = "", "", 0.0, []


def seqpar(*words):
    return subprocess.run([SEQPAR, *words], capture_output=True, text=True, timeout=600)


class Verify(unittest.TestCase):
    def rows(self, *words):
        done = seqpar("verify", "--json", *words)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout)["algorithms"]

    def test_of_the_family_has_a_row_per_algorithm_and_module(self):
        rows = self.rows("--family", "linear", *WORDS)
        stacks = [row["module"] for row in rows if row["id"] == "lasp2h"]
        self.assertEqual(stacks, ["basic", "lightning", "retention"])
        rows = [row for row in rows if row["id"] != "lasp2h"]
        pairs = {(row["id"], row["module"]) for row in rows}
        algorithms = {row["id"] for row in rows}
        modules = {row["module"] for row in rows}
        self.assertEqual(len(modules), 6)
        self.assertGreaterEqual(len(algorithms), 7)
        self.assertEqual(len(rows), len(algorithms) * len(modules))
        self.assertEqual(len(pairs), len(rows))
        for row in rows:
            if "refused" in row:
                self.assertEqual(row["cases"], 0)
                self.assertGreater(len(row["refused"]), 20)
            else:
                self.assertGreater(row["cases"], 0)
        served = {row["id"] for row in rows if row["module"] == "gla" and "refused" not in row}
        self.assertEqual(served, {"lasp2", "lasp1", "lasp1_released", "zeco"})

    def test_of_stacks(self):
        rows = self.rows("--family", "hybrid", "--layers", "LLLN", *WORDS)
        self.assertEqual([row["module"] for row in rows], ["basic", "lightning", "retention"])

    def test_of_a_pair_that_is_refused_fails(self):
        done = seqpar("verify", "--algorithm", "ring_linear", "--module", "gla", "--cases", "3")
        self.assertEqual(done.returncode, 1)
        self.assertIn("decays per token would have to travel", done.stdout)

    def test_of_nonsense_is_refused(self):
        for words, allowed in (
            (("--module", "mamba"), "allowed: basic, lightning"),
            (("--family", "hybrid", "--layers", "LXN"), "letters L (linear) and N (softmax)"),
            (("--family", "linear", "--algorithm", "ring/zigzag"), "no algorithm of family linear"),
            (("--splits", "0"), "--splits"),
        ):
            done = seqpar("verify", "--cases", "1", *words)
            self.assertEqual(done.returncode, 2, words)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn(allowed, done.stderr)


class Reproduce(unittest.TestCase):
    def test_of_the_real_layer(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "run.h5"
            words = ("reproduce", "lasp2/real-2048k", "--tokens", TOKENS, "--json", "--out", path)
            for _ in range(2):
                begin = time.monotonic()
                done = seqpar(*map(str, words))
                took = time.monotonic() - begin
                if done.returncode != 0 or took < SECONDS:
                    break
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            result = json.loads(done.stdout)
            self.assertEqual([a["id"] for a in result["algorithms"]], ["lasp2", "lasp1"])
            self.assertEqual((result["heads"], result["ranks"]), (16, 64))
            for algorithm in result["algorithms"]:
                self.assertTrue(algorithm["passed"])
                self.assertLessEqual(algorithm["worst_ratio"], 1)
                self.assertEqual(len(algorithm["forward_s"]), 16)
            # 64 KiB per state: 63 of them by LASP-2, one by LASP-1, in each direction
            sent = [a["bytes_sent"] for a in result["algorithms"]]
            self.assertEqual(sent, [2 * 63 * 65536, 2 * 65536])
            with h5py.File(path) as file:
                self.assertEqual(file.attrs["kind"], "measured")
                self.assertEqual(file["samples/forward_time"].shape, (2, 16))
                self.assertEqual(file["samples/forward_time"].attrs["units"], "s")
                self.assertGreater(file["cost/peak_memory"][0], 0)
            self.assertLess(took, SECONDS)

    def test_of_nonsense_is_refused(self):
        for words in (("lasp2/figure9",), ("lasp2/real-2048k", "--tokens", "0")):
            done = seqpar("reproduce", *words)
            self.assertEqual(done.returncode, 2, words)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn("allowed", done.stderr)


if __name__ == "__main__":
    SEQPAR, TOKENS, SECONDS, WORDS = *sys.argv[1:3], float(sys.argv[3]), sys.argv[4:]
    unittest.main(argv=sys.argv[:1])
