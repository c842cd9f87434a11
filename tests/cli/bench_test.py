"""seqpar bench: what it prints and stores, and how it ends.

Usage: bench_test.py SEQPAR [MPIEXEC]. Needs h5py for the run file; the xarray part is skipped, with
the reason, where xarray or h5netcdf is missing. SPDX-License-Identifier: Apache-2.0
"""

import json
import math
import os
import pathlib
import re
import statistics
import sys
import tempfile
import unittest

from processes import MPI_ENVIRONMENT, run

SEQPAR = sys.argv[1]
MPIEXEC = sys.argv[2] if len(sys.argv) > 2 else None
SMALL = "--tokens 48 --heads 4 --kv-heads 2 --head-size 8".split()
COLUMNS = 17


def bench(*words, repetitions=3):
    return run(SEQPAR, "bench", *words, *SMALL, "-n", str(repetitions))


def rows_of(text):
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


class Table(unittest.TestCase):
    def test_rows_and_columns(self):
        done = bench("--algorithm", "ring/zigzag,allgather", "--ranks", "1,3")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = rows_of(done.stdout)
        self.assertEqual(
            [(row[0], row[3], row[4], row[5]) for row in rows],
            [(name, ranks, "48", "ok") for name in ("ring/zigzag", "allgather") for ranks in "13"],
        )
        for row in rows:
            self.assertEqual(len(row), COLUMNS, row)
            for number in row[6:]:
                self.assertTrue(math.isfinite(float(number)), row)
        for row in rows[::2]:
            self.assertEqual(float(row[10]), 100, "one rank is its own ideal")
        header = [line for line in done.stdout.splitlines() if line.startswith("# algorithm")]
        self.assertEqual(len(header[0].split()) - 1, COLUMNS)
        self.assertRegex(done.stdout, r"# cores \d")
        self.assertRegex(done.stdout, "%ideal: .*one rank.*equal work.*divided by")
        self.assertTrue(done.stdout.endswith("# 4 of 4 rows measured\n"), done.stdout)

    def test_every_algorithm_is_measured_or_says_why_not(self):
        listed = json.loads(run(SEQPAR, "list", "--json").stdout)["algorithms"]
        done = bench("--ranks", "2", "-w", "0", repetitions=1)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = rows_of(done.stdout)
        self.assertEqual([row[0] for row in rows], [each["id"] for each in listed])
        for row in rows:
            self.assertIn(row[5], ("ok", "skipped"), row)
            self.assertTrue(row[5] == "ok" or len(row) > 8, row)

    def test_forward_only(self):
        done = bench("--algorithm", "rsa", "--ranks", "2", "--forward-only")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(rows_of(done.stdout)[0][8:10], ["-", "-"])


class Ends(unittest.TestCase):
    def test_a_refusal_is_a_row_with_a_sentence(self):
        done = bench("--algorithm", "ulysses", "--ranks", "2,3")
        self.assertEqual(done.returncode, 0, done.stderr)
        measured, refused = rows_of(done.stdout)
        self.assertEqual((measured[5], refused[5]), ("ok", "skipped"))
        self.assertIn("must be multiples of P = 3", " ".join(refused))

    def test_measuring_nothing_is_not_success(self):
        self.assertEqual(bench("--algorithm", "ulysses", "--ranks", "3").returncode, 1)

    def test_a_missed_floor_has_its_own_code(self):
        words = ("--algorithm", "ring/zigzag", "--ranks", "2", "--floor")
        self.assertEqual(bench(*words, "0").returncode, 0)
        self.assertEqual(bench(*words, "100000").returncode, 4)

    def test_wrong_words(self):
        for words, said in (
            ("--algoritm rsa", "did you mean '--algorithm'"),
            ("--algorithm ring/zigzg", "did you mean 'ring/zigzag'"),
            ("--backend thraed", "allowed: thread, mpi, cuda, emulated"),
            ("--ranks 0", "ranks '0'"),
            ("--ranks 100000", "100000 is impossible"),
            ("--ranks 6 --ranks-per-node 4", "4 ranks per node do not divide 6"),
            ("--tokens 0", "--tokens 0"),
            ("--tokens 4K,", "--tokens ''"),
            ("--tokens 9G", "out of range"),
            ("--batch 0", "--batch 0"),
            ("--heads 4 --kv-heads 3", "must divide"),
            ("--head-size x", "--head-size 'x'"),
            ("--value-head-size 0", "--value-head-size 0"),
            ("--dtype f8", "allowed: f32, bf16, f16, f64"),
            ("--causal maybe", "on,off"),
            ("--module fancy", "allowed: basic, lightning, retention, gla, based, rebased"),
            ("--layers LSD", "--layers 'LSD'"),
            ("--projected 0", "--projected 0"),
            ("-n 0", "--repetitions 0"),
            ("-n 99999999999999999999", "--repetitions"),
            ("-w -1", "--warmups -1"),
            ("--splits 0", "--splits 0"),
            ("--ranks-per-node 0", "--ranks-per-node 0"),
            ("--seed -1", "'-1' is not a number"),
            ("--floor nan", "--floor 'nan'"),
            ("--floor 5%", "--floor '5%'"),
            ("--floor -1", "--floor '-1'"),
            ("--timeout 0", "time limit"),
        ):
            with self.subTest(words):
                done = run(SEQPAR, "bench", *words.split())
                self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                self.assertRegex(done.stderr, r"\Aseqpar: [^\n]+\n\Z")
                self.assertIn(said, done.stderr)


class Json(unittest.TestCase):
    def test_is_that_of_google_benchmark(self):
        done = bench("--algorithm", "ring/zigzag,ulysses", "--ranks", "3", "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        parsed = json.loads(done.stdout)
        for key in ("date", "host_name", "executable", "num_cpus", "mhz_per_cpu", "load_avg"):
            self.assertIn(key, parsed["context"])
        self.assertIn("git_sha", parsed["context"])
        self.assertIn("equal work", parsed["context"]["ideal"])
        times = {}
        for row in parsed["benchmarks"]:
            if row["run_type"] == "iteration" and row["status"] == "ok":
                times.setdefault(row["run_name"], []).append(row["real_time"])
                self.assertEqual(row["time_unit"], "ms")
        medians = [row for row in parsed["benchmarks"] if row["run_type"] == "aggregate"]
        self.assertEqual(len(medians), 2)
        for row in medians:
            self.assertEqual(len(times[row["run_name"]]), 3)
            self.assertAlmostEqual(row["real_time"], statistics.median(times[row["run_name"]]))
            self.assertEqual(row["flops_ratio"], 1)
            self.assertGreater(row["bytes_sent"], 0)
            self.assertLessEqual(row["worst_ratio"], 1)
        skipped = [row for row in parsed["benchmarks"] if row.get("skipped")]
        self.assertEqual([row["algorithm"] for row in skipped], ["ulysses"])
        self.assertIn("P = 3", skipped[0]["skip_message"])


class RunFile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.directory.name) / "run.h5"
        words = ("--algorithm", "ring/zigzag,ulysses", "--ranks", "2,3", "--out", str(cls.path))
        done = bench(*words)
        assert done.returncode == 0, done.stderr

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def test_opens_in_h5py(self):
        try:
            import h5py
        except ImportError as missing:
            self.skipTest(f"{missing}; install python3-h5py")
        with h5py.File(self.path) as file:
            self.assertEqual(file.attrs["schema_name"], "seqpar.run")
            self.assertEqual(file.attrs["kind"], "measured")
            self.assertIn("--ranks 2,3", file["config"].attrs["command_line"])
            time = file["samples/time"]
            self.assertEqual(time.shape, (2, 1, 2, 2, 3))
            self.assertEqual(
                [axis.label for axis in time.dims],
                ["variant", "seq_len", "ranks", "direction", "repetition"],
            )
            self.assertTrue((time[0] > 0).all())
            self.assertTrue((time[1, :, 0] > 0).all())
            self.assertTrue((time[1, :, 1] != time[1, :, 1]).all(), "a refused row has no times")
            self.assertEqual(file["status"][...].tolist(), [[[0, 0]], [[0, 1]]])
            self.assertIn("P = 3", file["status_reason"].asstr()[1, 0, 1])
            verdicts = file["verification/verdict"].asstr()[...].tolist()
            self.assertEqual(verdicts, [[["passed", "passed"]], [["passed", "none"]]])

    def test_opens_in_xarray(self):
        try:
            import h5netcdf  # noqa: F401
            import xarray
        except ImportError as missing:
            self.skipTest(f"{missing}; install python3-xarray and python3-h5netcdf")
        with xarray.open_dataset(self.path, engine="h5netcdf") as root:
            self.assertEqual(root["ranks"].values.tolist(), [2, 3])
            self.assertEqual(root["variant"].values[0], "ring/zigzag/thread")
        with xarray.open_dataset(self.path, engine="h5netcdf", group="samples") as samples:
            self.assertEqual(samples["time"].sizes["repetition"], 3)
            self.assertEqual(samples["time"].attrs["units"], "s")


@unittest.skipUnless(MPIEXEC, "no MPI in this build")
class Mpi(unittest.TestCase):
    def launch(self, *words):
        launcher = (MPIEXEC, "--oversubscribe", "-n", "3", SEQPAR, "bench", "--backend", "mpi")
        return run(*launcher, *words, *SMALL, "-n", "3", env={**os.environ, **MPI_ENVIRONMENT})

    def test_one_process_prints(self):
        done = self.launch("--algorithm", "ring/zigzag,ulysses", "--ranks", "1,2,3")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = rows_of(done.stdout)
        self.assertEqual([row[2:6:3] for row in rows], [["mpi", "ok"]] * 5 + [["mpi", "skipped"]])
        self.assertEqual(len(re.findall("rows measured", done.stdout)), 1)

    def test_a_missed_floor_has_its_own_code(self):
        done = self.launch("--algorithm", "ring/zigzag", "--ranks", "2", "--floor", "100000")
        self.assertEqual(done.returncode, 4, done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
