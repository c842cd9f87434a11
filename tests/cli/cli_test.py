"""The command line: help, answers that programs can read, and what is said to wrong words.

Usage: cli_test.py SEQPAR. Wrong usage ends with exit code 2 (3 if the environment is to blame) and
exactly one line on stderr, which begins with `seqpar: `. SPDX-License-Identifier: Apache-2.0
"""

import json
import re
import subprocess
import sys
import unittest

SEQPAR = sys.argv[1]
SUBCOMMANDS = (
    *("list", "reproduce", "verify", "bench", "simulate", "compute", "check", "sensitivity"),
    *("compare", "report", "calibrate", "env"),
)


def seqpar(*words, **more):
    return subprocess.run([SEQPAR, *words], capture_output=True, text=True, timeout=120, **more)


class Help(unittest.TestCase):
    def test_of_the_program_names_all_subcommands_and_exit_codes(self):
        done = seqpar("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        listed = re.findall(r"^  (\w+) {2,}", done.stdout, re.M)
        self.assertEqual(sorted(listed), sorted(SUBCOMMANDS), "SUBCOMMANDS of this test is old")
        self.assertIn("Exit codes", done.stdout)

    def test_of_every_subcommand_has_an_example_that_parses(self):
        for name in SUBCOMMANDS:
            with self.subTest(name):
                done = seqpar(name, "--help")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                example = re.search(rf"^Example: seqpar ({name}.*)", done.stdout, re.M)
                self.assertTrue(example, done.stdout)
                again = seqpar(*example[1].split(), "--help")
                self.assertEqual(again.returncode, 0, again.stderr)


class Answers(unittest.TestCase):
    def test_version(self):
        done = seqpar("--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(
            done.stdout, r"^seqpar \d+\.\d+\.\d+, commit ([0-9a-f]{40}( with changes)?|unknown)\n$"
        )

    def test_a_back_end_that_is_not_built_says_why_and_what_builds_it(self):
        for backend in json.loads(seqpar("list", "--json").stdout)["backends"]:
            self.assertEqual(backend["built"], backend["absence"] == "")
            if backend["built"]:
                continue
            line = f"# {backend['name']} is not built: {backend['absence']}\n"
            self.assertIn("./seqpar ", line)
            self.assertIn(line, seqpar("list").stdout)
            done = seqpar("verify", "--backend", backend["name"])
            self.assertEqual((done.returncode, done.stdout), (3, ""))
            self.assertEqual(done.stderr.count("\n"), 1)
            self.assertIn(f"not built: {backend['absence']}", done.stderr)

    def test_list(self):
        text, parsed = seqpar("list").stdout, json.loads(seqpar("list", "--json").stdout)
        ids = [a["id"] for a in parsed["algorithms"]]
        self.assertGreaterEqual(len(ids), 13)
        self.assertEqual(len(ids), len(set(ids)))
        tables = text.split("\n\n")
        self.assertEqual(re.findall(r"^  (\S+)", tables[0], re.M), ids)
        for table, (key, name) in zip(
            tables[1:],
            (("platforms", "name"), ("experiments", "id"), ("measured", "id")),
            strict=True,
        ):
            names = [each[name] for each in parsed[key]]
            self.assertEqual(re.findall(r"^  (\S+)", table, re.M), names)
            self.assertEqual(len(names), len(set(names)))
        self.assertIn("thread", [b["name"] for b in parsed["backends"] if b["built"]])

    def test_env(self):
        parsed = json.loads(seqpar("env", "--json").stdout)
        self.assertGreater(len(parsed), 5)
        self.assertEqual(seqpar("env").returncode, 0)

    def test_verify(self):
        words = ("verify", "--cases", "3", "--seed", "5")
        done, parsed = seqpar(*words), json.loads(seqpar(*words, "--json").stdout)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        ids = [a["id"] for a in json.loads(seqpar("list", "--json").stdout)["algorithms"]]
        self.assertEqual(re.findall(r"^  (\S+) .* ok$", done.stdout, re.M), ids)
        self.assertRegex(done.stdout, rf"# {len(ids)} of {len(ids)} algorithms verified: OK\n$")
        self.assertEqual([a["id"] for a in parsed["algorithms"]], ids)
        for row in parsed["algorithms"]:
            self.assertTrue(row["passed"])
            self.assertEqual(row["cases"], 3)
            self.assertLessEqual(row["worst_error"], row["limit"])

    def test_ranks_that_are_no_whole_nodes_are_left_out(self):
        words = "verify --algorithm usp/zigzag,double_ring --cases 4 --ranks-per-node 4".split()
        self.assertEqual(seqpar(*words).stderr, "")
        done = seqpar(*words, "--ranks", "2..8")
        self.assertEqual(done.returncode, 0, done.stdout)
        said = "# skipped: 2, 3, 5, 6, 7 ranks are no whole nodes of 4\n"
        self.assertEqual(done.stderr, said)
        words = "--tokens 8 --heads 4 --algorithm usp/zigzag --ranks-per-node 4 --ranks 4,6".split()
        for command in (("simulate",), ("bench", "--repetitions", "1")):
            done = seqpar(*command, *words)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertIn("# skipped: 6 ranks are no whole nodes of 4\n", done.stderr)

    def test_same_seed_same_words(self):
        words = ("verify", "--algorithm", "ring/zigzag,rsa", "--cases", "5", "--seed", "9")
        self.assertEqual(seqpar(*words).stdout, seqpar(*words).stdout)

    def test_refusing_every_problem_is_not_success(self):
        words = "verify --algorithm ulysses --ranks 3 --heads 4 --kv-heads 4 --cases 3".split()
        done = seqpar(*words)
        self.assertEqual(done.returncode, 1)
        self.assertIn("NOT RUN", done.stdout)

    def test_piped_output_has_no_control_characters(self):
        done = seqpar("verify", "--cases", "2")
        self.assertNotRegex(done.stdout + done.stderr, r"[\x00-\x09\x0b-\x1f]")


# Words, and what the one line must say.
WRONG_WORDS = [
    ("", "subcommand"),
    ("verifi", "did you mean 'verify'"),
    ("--frobnicate", ""),
    ("list --jsn", "did you mean '--json'"),
    ("list extra", "extra"),
    ("list --json --markdown", ""),
    ("verify --algoritm ring/zigzag", "did you mean '--algorithm'"),
    ("verify --algorithm ring/zigzg", "did you mean 'ring/zigzag'"),
    ("verify --algorithm ring/zigzag,", "unknown algorithm ''"),
    ("verify --algorithm Ring/Zigzag", "did you mean"),
    ("verify --algorithm", "--algorithm"),
    ("verify --backend thraed", "allowed: thread, mpi, cuda, emulated"),
    ("verify --backend sim --platform nowhere", "unknown platform 'nowhere'"),
    ("verify --backend sim --chaos 1", "use the back-ends thread or mpi"),
    ("verify --backend sim --ranks 4096", "back-end sim allows 1.."),
    ("verify --platform dgx_a100", "allowed with it: --backend sim"),
    ("verify --backend emulated --dtype f64", "allowed: f32, bf16, f16"),
    ("verify --backend emulated --checked", "checks every access"),
    ("verify --backend emulated --ranks 65", "allows 1..64"),
    ("verify --backend emulated --transport local --ranks 9", "allows 1..8"),
    ("verify --backend emulated --transport ib", "--transport"),
    ("verify --transport local", "allowed with it: --backend cuda, emulated"),
    ("verify --backend ledger --tokens 4", "proves problems of its own"),
    ("verify --backend ledger --chaos 1", "allowed with it: --algorithm"),
    ("verify --backend ledger --ranks 5000", "back-end thread allows 1..4096"),
    ("verify --ranks 6 --ranks-per-node 4", "4 ranks per node do not divide 6"),
    ("verify --ranks 3,6 --ranks-per-node 4", "allowed: multiples of 4"),
    ("verify --ranks-per-node 5000", "5000 is impossible"),
    ("verify --ranks-per-node 0", "--ranks-per-node"),
    ("verify --ranks 0", "ranks '0'"),
    ("verify --ranks -3", "ranks '-3'"),
    ("verify --ranks 4x", "ranks '4x'"),
    ("verify --ranks 9..1", "empty range"),
    ("verify --ranks 1:8:*1", "never ends"),
    ("verify --ranks 1..1000000", "values"),
    ("verify --ranks 99999999999999999999", "ranks '99999999999999999999'"),
    ("verify --ranks 1000000", "1000000 is impossible"),
    ("verify --ranks=", "--ranks"),
    ("verify --tokens -5", "--tokens '-5'"),
    ("verify --tokens 5T", "--tokens '5T'"),
    ("verify --tokens 1e3", "--tokens '1e3'"),
    ("verify --tokens 99999999999999999999", "--tokens"),
    ("verify --tokens 9G --cases 1", "out of range"),
    ("verify --tokens 4G --batch 4G --heads 4G --cases 1", "too large"),
    ("verify --heads 4 --kv-heads 3 --cases 1", "must divide"),
    ("verify --heads 0", "--heads"),
    ("verify --head-size 0", "--head-size"),
    ("verify --window 9223372036854775807 --cases 1", "window"),
    ("verify --causal maybe", "on,off"),
    ("verify --dtype f8", "allowed: f32, bf16, f16, f64"),
    ("verify --values nice", "allowed: normal"),
    ("verify --cases 0", "--cases 0"),
    ("verify --cases 99999999999999999999", "--cases"),
    ("verify --cases -1", "--cases -1"),
    ("verify --cases ten", "ten"),
    ("verify --seed -1", "'-1' is not a number"),
    ("verify --seed 18446744073709551616", "--seed"),
    ("verify --case -1", "--case"),
    ("verify --chaos -1", "--chaos"),
    ("verify --timeout nan", "time limit"),
    ("verify --timeout 0", "time limit"),
    ("verify --timeout -1", "time limit"),
    ("verify --timeout 1e300", "time limit"),
    ("compute", "required"),
    ("compute --algorithm all problem.h5 result.h5", "one algorithm"),
    ("compute --algorithm ring/zigzag --ranks 0 problem.h5 result.h5", "0"),
    ("compute --algorithm ring/zigzag --ranks 5000 problem.h5 result.h5", "5000"),
    ("compute --algorithm ring/zigzag --ranks 6 --ranks-per-node 4 problem.h5 r.h5", "divide"),
    ("compute --algorithm ring/zigzag missing.h5 result.h5", "missing.h5"),
    ("compute --algorithm ring/zigzag /dev/null result.h5", "regular file"),
    ("compute --algorithm ring/zigzag / result.h5", "/"),
    ("check missing.h5 result.h5", "missing.h5"),
    ("check --roundings 3 problem.h5 result.h5", "--roundings"),
    ("check one.h5", "required"),
    ("env --json extra", "extra"),
]


class WrongWords(unittest.TestCase):
    def test_every_line_of_the_table(self):
        for words, said in WRONG_WORDS:
            with self.subTest(words):
                done = seqpar(*words.split())
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertEqual(done.stdout, "")
                self.assertRegex(done.stderr, r"\Aseqpar: [^\n]+\n\Z")
                self.assertIn(said, done.stderr)

    def test_empty_values(self):
        for option in ("--ranks", "--tokens", "--dtype", "--out"):
            with self.subTest(option):
                done = seqpar("verify", option, "")
                self.assertEqual(done.returncode, 2)
                self.assertEqual(done.stderr, f"seqpar: {option}: the value is empty\n")

    def test_not_utf8(self):
        done = subprocess.run([SEQPAR, "verify", b"--algorithm=\xff\xfe"], capture_output=True)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr.count(b"\n"), 1)

    def test_a_long_word_is_answered_in_one_line(self):
        done = seqpar("verify", "--algorithm", "x" * 100_000)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr.count("\n"), 1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
