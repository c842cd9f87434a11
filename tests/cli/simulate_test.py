"""seqpar simulate: what it predicts, prints, stores and refuses.

Usage: simulate_test.py SEQPAR. Needs h5py for the run file. SPDX-License-Identifier: Apache-2.0
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SEQPAR = sys.argv[1]
COLUMNS = 17


def simulate(*words):
    return subprocess.run((SEQPAR, "simulate", *words), capture_output=True, text=True, timeout=120)


def predictions(*words):
    done = simulate(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows_of(text):
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


class Table(unittest.TestCase):
    def test_rows_and_columns(self):
        words = "--algorithm ring/zigzag,lasp2 --ranks 1,8 --tokens 16K,32K".split()
        done = simulate(*words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = rows_of(done.stdout)
        self.assertEqual(
            [(row[0], row[2], row[3], row[4]) for row in rows],
            [
                (name, ranks, tokens, "ok")
                for name in ("ring/zigzag", "lasp2")
                for tokens in ("16384", "32768")
                for ranks in "18"
            ],
        )
        for row in rows:
            self.assertEqual(len(row), COLUMNS, row)
        header = [line for line in done.stdout.splitlines() if line.startswith("# algorithm")]
        self.assertEqual(len(header[0].split()) - 1, COLUMNS)
        for row in rows[::2]:
            self.assertEqual(float(row[8]), 100, "one device is its own ideal")
        self.assertIn("simulated, nothing measured: platform dgx_a100", done.stdout)
        self.assertRegex(done.stdout, r"# band: ±\d+ %")
        self.assertTrue(done.stdout.endswith("# 8 of 8 rows predicted\n"), done.stdout)
        self.assertEqual(simulate(*words).stdout, done.stdout, "the same twice")

    def test_every_algorithm_is_predicted_or_says_why_not(self):
        listed = json.loads(
            subprocess.run((SEQPAR, "list", "--json"), capture_output=True, text=True).stdout
        )["algorithms"]
        entries = predictions("--ranks", "8", "--tokens", "8K")["predictions"]
        self.assertEqual([each["algorithm"] for each in entries], [a["id"] for a in listed])
        for entry in entries:
            self.assertIn(entry["status"], ("ok", "skipped"), entry)
            self.assertTrue(entry["status"] == "ok" or entry["reason"], entry)

    def test_more_work_and_slower_wires_take_longer(self):
        def seconds(*words):
            (entry,) = predictions("--algorithm", "ring/zigzag", "--ranks", "8", *words)[
                "predictions"
            ]
            return entry["total_s"]

        base = seconds("--tokens", "32K")
        self.assertGreater(seconds("--tokens", "64K"), 2 * base)
        self.assertLess(seconds("--tokens", "32K", "--forward-only"), base / 2)
        self.assertGreater(seconds("--tokens", "32K", "--causal", "off"), base)
        self.assertGreater(seconds("--tokens", "32K", "--platform", "a100_pcie"), base)

    def test_memory_that_does_not_suffice_is_a_row_with_a_reason(self):
        words = "--algorithm ring/zigzag --ranks 8 --tokens 256K".split()
        self.assertEqual(rows_of(simulate(*words).stdout)[0][4], "ok")
        done = simulate(*words, "--resident-bytes", "79G")
        self.assertEqual(done.returncode, 0, done.stderr)
        row = rows_of(done.stdout)[0]
        self.assertEqual(row[4], "oom")
        self.assertIn("the device has", " ".join(row))
        self.assertIn("# 0 of 1 rows predicted, 1 oom", done.stdout)

    def test_predicting_nothing_is_not_success(self):
        done = simulate("--algorithm", "ulysses", "--ranks", "3", "--tokens", "1K")
        self.assertEqual(done.returncode, 1)
        self.assertIn("must be multiples of P = 3", done.stdout)


class Memory(unittest.TestCase):
    def test_of_the_fullest_rank_adds_up(self):
        words = "--algorithm pass_q --ranks 4 --tokens 64K --heads 4 --head-size 16".split()
        done = subprocess.run(
            (SEQPAR, "simulate", "--memory", "--causal", "off", *words),
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        beyond = re.search(
            r"^# memory of pass_q on 4 ranks.* backward ([\d.]+) MiB", done.stdout, re.M
        )
        live = re.findall(r"^#   (\w+) +(\d+) +([\d.]+) MiB$", done.stdout, re.M)
        names = {name for name, _, _ in live}
        self.assertLessEqual({"q", "k", "v", "d_out", "d_q", "d_k", "d_v"}, names)
        self.assertTrue(
            beyond and float(beyond[1]) <= sum(float(size) for _, _, size in live) + 0.5
        )


class Refusals(unittest.TestCase):
    def test_wrong_words(self):
        for words, said in (
            ("--platform dgx_a10", "did you mean 'dgx_a100'"),
            ("--platform ./nowhere.toml", "nowhere.toml"),
            ("--algorithm ring/zigzg", "did you mean 'ring/zigzag'"),
            ("--ranks 256", "ranks = 256 do not fit platform dgx_a100; allowed: 1..128"),
            ("--ranks 0", "ranks '0'"),
            ("--ranks 6 --ranks-per-node 4", "4 ranks per node do not divide 6"),
            ("--ranks-per-node 0", "--ranks-per-node 0"),
            ("--ranks-per-node 7", "divides none"),
            ("--memory --json", "without --json"),
            ("--dtype f64", "allowed: f32, bf16, f16"),
            ("--tokens 0", "--tokens 0"),
            ("--tokens 9G", "out of range"),
            ("--heads 4 --kv-heads 3", "must divide"),
            ("--resident-bytes 1.5G", "--resident-bytes '1.5G'"),
            ("--splits 0", "--splits 0"),
            ("--repetitions 3", "--repetitions"),
        ):
            with self.subTest(words):
                done = simulate(*words.split())
                self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                self.assertRegex(done.stderr, r"\Aseqpar: [^\n]+\n\Z")
                self.assertIn(said, done.stderr)


class RunFile(unittest.TestCase):
    def test_says_that_it_is_simulated(self):
        try:
            import h5py
        except ImportError as missing:
            self.skipTest(f"{missing}; install python3-h5py")
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "run.h5"
            words = "--algorithm ring/zigzag,ulysses --ranks 2,3 --tokens 1K --heads 4".split()
            done = simulate(*words, "--out", str(path))
            self.assertEqual(done.returncode, 0, done.stderr)
            with h5py.File(path) as file:
                self.assertEqual(file.attrs["schema_name"], "seqpar.run")
                self.assertEqual(file.attrs["kind"], "simulated")
                self.assertEqual(file["config"].attrs["platform"], "dgx_a100")
                self.assertIn("[device]", file["config"].attrs["platform_toml"])
                self.assertEqual(
                    file["variant"].asstr()[...].tolist(), ["ring/zigzag/sim", "ulysses/sim"]
                )
                self.assertEqual(file["status"][...].tolist(), [[[0, 0]], [[0, 1]]])
                self.assertEqual(file["samples/time"].shape, (2, 1, 2, 2, 1))
                self.assertTrue((file["samples/time"][0] > 0).all())
                self.assertTrue((file["band"][0] > 0).all())
                verdicts = set(file["verification/verdict"].asstr()[...].ravel().tolist())
                self.assertEqual(verdicts, {"none"})


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
