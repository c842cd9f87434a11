"""seqpar reproduce --backend: real scaling runs, stored apart from the simulated ones.

Usage: measured_test.py SEQPAR [MPIEXEC]. SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import pathlib
import re
import sys
import tempfile
import unittest

from processes import MPI_ENVIRONMENT, run

SEQPAR = sys.argv[1]
MPIEXEC = sys.argv[2] if len(sys.argv) > 2 else None
ITEM = "scaling/equal-work"
SMALL = """title = "small"
algorithms = ["ring/zigzag", "lasp2"]
heads = 2
head_size = 8
dtype = "f32"
repetitions = 2
[cpu]
tokens = [64]
ranks = [1, 2, 16]
"""


class Measured(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = pathlib.Path(directory.name)
        self.config = self.folder / "small.toml"
        self.config.write_text(SMALL)

    def words(self, *more):
        shared = ("--config", self.config, "--out-dir", self.folder / "out")
        return (SEQPAR, "reproduce", ITEM, *shared, *more)

    def stored(self):
        (path,) = (self.folder / "out").iterdir()
        return path

    def test_threads(self):
        done = run(*self.words("--backend", "thread"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        table = done.stdout[done.stdout.index("# equal work") :]
        rows = [line.split() for line in table.splitlines() if not line.startswith("#")]
        self.assertEqual(
            [row[:2] for row in rows],
            [[name, ranks] for name in ("ring/zigzag", "lasp2") for ranks in ("1", "2", "16")],
        )
        for row in rows[::3]:
            self.assertEqual(row[6:], ["0.0", "1.000"], "one rank has no overhead")
        self.assertIn(f"# stored: {self.stored()}", done.stdout)
        try:
            import h5py
        except ImportError as missing:
            self.skipTest(f"{missing}; install python3-h5py")
        with h5py.File(self.stored()) as file:
            self.assertEqual(file.attrs["kind"], "measured")
            self.assertEqual(file["config"].attrs["item"], ITEM)
            self.assertEqual(file["config"].attrs["config_toml"], SMALL)
            self.assertTrue((file["samples/time"][...] > 0).all())

    @unittest.skipUnless(MPIEXEC, "no MPI in this build")
    def test_processes_run_the_ranks_that_there_are(self):
        launcher = (MPIEXEC, "--oversubscribe", "-n", "2")
        done = run(
            *launcher,
            *self.words("--backend", "mpi", "--json"),
            env={**os.environ, **MPI_ENVIRONMENT},
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        parsed = json.loads(done.stdout)
        self.assertEqual(parsed["kind"], "measured")
        (item,) = parsed["items"]
        self.assertEqual((item["item"], item["stored"]), (ITEM, str(self.stored())))
        self.assertEqual({row["ranks"] for row in item["benchmarks"]}, {1, 2})
        self.assertEqual({row["backend"] for row in item["benchmarks"]}, {"mpi"})

    def test_refusals(self):
        self.config.write_text(SMALL + "frobnicate = 1\n")
        for words, said in (
            (self.words("--backend", "thread"), "frobnicate"),
            (self.words("--backend", "emulated"), "allowed: thread, mpi, cuda"),
            (self.words("--backend", "thread", "--resume"), "without --resume"),
            (self.words("rsa/memory", "--backend", "thread"), "one item"),
            ((SEQPAR, "reproduce", "no/such", "--backend", "thread"), f"{ITEM}"),
        ):
            with self.subTest(words):
                done = run(*words)
                self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                self.assertRegex(done.stderr, r"\Aseqpar: [^\n]+\n\Z")
                self.assertIn(said, done.stderr)
        self.assertFalse((self.folder / "out").exists() and list((self.folder / "out").iterdir()))

    def test_ranks_are_whole_nodes(self):
        self.config.write_text(SMALL.replace("[cpu]", "ranks_per_node = 2\n[cpu]"))
        done = run(*self.words("--backend", "thread"))
        self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
        said = "cpu.ranks: an element is 1; allowed: each a multiple of ranks_per_node, 2"
        self.assertRegex(done.stderr, rf"\Aseqpar: {self.config}:\d+: {said}\n\Z")


class Configs(unittest.TestCase):
    def test_all_are_listed_and_name_what_exists(self):
        listed = json.loads(run(SEQPAR, "list", "--json").stdout)
        known = {a["id"] for a in listed["algorithms"]}
        self.assertIn(ITEM, [item["id"] for item in listed["measured"]])
        source = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "configs"
        for item in listed["measured"]:
            text = (source / f"{item['id']}.measured.toml").read_text()
            line = next(row for row in text.splitlines() if row.startswith("algorithms"))
            self.assertLessEqual(set(json.loads(line.split("=")[1])), known, item)

    def test_all_run_at_their_shapes_with_few_tokens(self):
        listed = json.loads(run(SEQPAR, "list", "--json").stdout)
        source = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "configs"
        with tempfile.TemporaryDirectory() as directory:
            few = pathlib.Path(directory) / "few.toml"
            for item in listed["measured"]:
                with self.subTest(item["id"]):
                    text = (source / f"{item['id']}.measured.toml").read_text()
                    text = re.sub("(?m)^repetitions = .*", "repetitions = 1", text)
                    cpu = "[cpu]\ntokens = [16]\nranks = [2]\n"
                    text, count = re.subn(r"(?m)^\[cpu\]\n.*\n.*\n", cpu, text)
                    self.assertEqual(count, 1)
                    few.write_text(text)
                    words = (
                        "--backend",
                        "thread",
                        "--config",
                        few,
                        "--out-dir",
                        directory,
                        "--json",
                    )
                    done = run(SEQPAR, "reproduce", item["id"], *words)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                    rows = json.loads(done.stdout)["items"][0]["benchmarks"]
                    self.assertLessEqual({row["status"] for row in rows}, {"ok", "skipped"})


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
