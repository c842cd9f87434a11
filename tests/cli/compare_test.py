"""seqpar compare: ratios and their noise, what is never mixed, and what is refused.

Usage: compare_test.py SEQPAR. Needs h5py and NumPy. SPDX-License-Identifier: Apache-2.0
"""

import itertools
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import unittest

try:
    import sample_results as sample
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

SEQPAR = sys.argv[1]
RING, LASP2 = ("ring/zigzag/thread", 65536, 8), ("lasp2/thread", 65536, 8)


class Compare(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = pathlib.Path(self.temporary.name)
        self.a, self.b = self.directory / "a.h5", self.directory / "b.h5"

    def tearDown(self):
        self.temporary.cleanup()

    def run_it(self, *words):
        words = [SEQPAR, "compare", str(self.a), str(self.b), *words]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    def table(self, *words):
        done = self.run_it("--json", *words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)

    def times(self, *words):
        return [row for row in self.table(*words)["rows"] if row["quantity"] == "time"]

    def assert_refused(self, said, *words):
        done = self.run_it(*words)
        self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
        self.assertRegex(done.stderr, r"\Aseqpar: [^\n]+\n\Z")
        self.assertIn(said, done.stderr)


class Bench(Compare):
    def test_a_difference_outside_the_noise(self):
        sample.write_bench(self.a, {RING: [1.0, 1.02, 0.98, 1.01], LASP2: [1.0, 1.1, 0.9, 1.0]})
        sample.write_bench(self.b, {RING: [2.0, 2.04, 1.97, 2.01], LASP2: [1.1, 0.9, 1.0, 0.99]})
        lasp2, ring = self.times()
        self.assertEqual(ring["a"]["row"], "ring/zigzag/thread, seq_len 65536, ranks 8, forward")
        self.assertEqual((ring["verdict"], lasp2["verdict"]), ("differs", "within noise"))
        self.assertAlmostEqual(ring["ratio"], 2, delta=0.02)
        self.assertLess(ring["low"], ring["ratio"])
        self.assertLess(ring["ratio"], ring["high"])
        self.assertLessEqual(lasp2["low"], 1)
        self.assertGreaterEqual(lasp2["high"], 1)
        self.assertEqual(ring["a"]["median"], statistics.median(ring["a"]["samples"]))

    def test_the_interval_is_that_of_the_rank_test(self):
        """Against all orders, one by one: 1 is outside when at most 2.5 % are as extreme."""
        dice = random.Random(5)
        outcomes = set()
        for m, n in ((4, 4), (5, 3), (5, 6), (3, 3)):
            orders = list(itertools.combinations(range(m + n), m))
            below = [sum(place - i for i, place in enumerate(order)) for order in orders]
            for shift in (1.0, 1.3, 1.8, 3.0):
                a = [dice.uniform(1, 2) for _ in range(m)]
                b = [shift * dice.uniform(1, 2) for _ in range(n)]
                sample.write_bench(self.a, {RING: a})
                sample.write_bench(self.b, {RING: b})
                inverse = sum(x > y for x in a for y in b)
                extreme = min(inverse, m * n - inverse)
                share = sum(u <= extreme for u in below) / len(orders)
                (row,) = self.times()
                if row["verdict"] == "too few samples":
                    self.assertGreater(1 / len(orders), 0.025)
                else:
                    self.assertEqual(row["verdict"] == "differs", share <= 0.025, (a, b))
                outcomes.add(row["verdict"])
                ratios = [y / x for x in a for y in b]
                self.assertAlmostEqual(row["ratio"], statistics.median(ratios))
        self.assertEqual(outcomes, {"differs", "within noise", "too few samples"})

    def test_counts_have_no_noise(self):
        sample.write_bench(self.a, {RING: [1.0]})
        sample.write_bench(self.b, {RING: [1.5]})
        rows = {row["quantity"]: row for row in self.table()["rows"]}
        self.assertEqual(rows["bytes_sent"]["verdict"], "equal")
        self.assertEqual(rows["bytes_sent"]["a"]["kind"], "counted")
        self.assertEqual(rows["time"]["verdict"], "too few samples")
        self.assertIsNone(rows["time"]["low"])

    def test_rows_of_one_file_alone_are_named(self):
        sample.write_bench(self.a, {RING: [1.0], LASP2: [1.0]})
        sample.write_bench(self.b, {RING: [1.0], ("rsa/thread", 65536, 8): [1.0]})
        table = self.table()
        self.assertEqual({row["row"].split(",")[0] for row in table["only_a"]}, {"lasp2/thread"})
        self.assertEqual({row["row"].split(",")[0] for row in table["only_b"]}, {"rsa/thread"})
        text = self.run_it().stdout
        self.assertRegex(text, r"(?m)^  lasp2/thread, .* only in A$")
        self.assertRegex(text, r"(?m)^  rsa/thread, .* only in B$")

    def test_text(self):
        sample.write_bench(self.a, {RING: [1.0, 1.02, 0.98, 1.01]})
        sample.write_bench(self.b, {RING: [2.0, 2.04, 1.96, 2.02]})
        done = self.run_it()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(
            done.stdout,
            r"(?m)^  ring/zigzag/thread, seq_len 65536, ranks 8, forward +time +s +1\.005 +2\.01 +"
            r"2\.0000 +1\.\d+\.\.2\.\d+ +differs +measured$",
        )
        self.assertRegex(done.stdout, r"\n# 3 numbers compared, 1 differs, 2 equal; 0 only in A, 0")

    def test_other_back_ends_on_request(self):
        sample.write_bench(self.a, {("ring/zigzag/thread/basic", 64, 8): [1.0]})
        sample.write_bench(self.b, {("ring/zigzag/mpi/basic", 64, 8): [1.0]})
        self.assert_refused("no row in common; other back-ends: --backends")
        self.assertEqual(len(self.times("--backends")), 1)

    def test_measured_and_simulated_are_not_mixed_unasked(self):
        sample.write_bench(self.a, {RING: [1.0, 1.1]})
        sample.write_bench(self.b, {("ring/zigzag/sim", 65536, 8): [2.0, 2.0]}, "simulated")
        self.assert_refused("to compare them all the same: --mix")
        (row,) = self.times("--mix")
        self.assertEqual((row["a"]["kind"], row["b"]["kind"]), ("measured", "simulated"))
        self.assertRegex(self.run_it("--mix").stdout, r"(?m) measured / simulated$")


class Replay(Compare):
    def test_rows_are_compared_by_label_and_quantity(self):
        rows = [sample.row("64 GPUs", "time", "s", 1, 2.0, "reproduced")]
        rows += [sample.row("64 GPUs", "time", "s", 1, 3.0, "reproduced")]  # the same name again
        rows += [sample.row("64 GPUs", "bytes", "byte", 8, 8, "reproduced", provenance="counted")]
        sample.write_replay(self.a, "paper/item", rows)
        rows[1] = {**rows[1], "ours": 3.3}
        sample.write_replay(self.b, "paper/item", rows)
        found = self.table()["rows"]
        self.assertEqual([row["verdict"] for row in found], ["equal", "differs", "equal"])
        self.assertAlmostEqual(found[1]["ratio"], 1.1)

    def test_measured_and_simulated_are_not_mixed_unasked(self):
        for path, provenance in ((self.a, "measured"), (self.b, "simulated")):
            row = sample.row("64 GPUs", "time", "s", 1, 2, "reproduced", provenance=provenance)
            sample.write_replay(path, "paper/item", [row])
        self.assert_refused("--mix")
        self.assertEqual(len(self.table("--mix")["rows"]), 1)

    def test_a_run_is_no_replay(self):
        sample.write_bench(self.a, {RING: [1.0]})
        sample.write_replay(self.b, "paper/item", [])
        self.assert_refused("allowed: twice the same")


class BadFiles(Compare):
    def test_are_named(self):
        sample.write_bench(self.a, {RING: [1.0, 2.0]})
        whole = self.a.read_bytes()
        for data in (b"", b"text", whole[: len(whole) // 2], whole[:1500] + bytes(len(whole))):
            self.b.write_bytes(data)
            self.assert_refused("b.h5: ")
        self.b.unlink()
        self.assert_refused("b.h5: ")
        sample.write_bench(self.b, {RING: [1.0]}, schema_name="somebody.else")
        self.assert_refused("allowed: seqpar.run, seqpar.replay")
        sample.write_bench(self.b, {RING: [1.0]}, kind="dreamt")
        self.assert_refused("allowed: measured, simulated")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
