"""Random words on the command line: an exit code that is a verdict, soon, and few words.

Usage: cli_fuzz_test.py SEQPAR [SEED [COUNT]]. The words are those of the help with odd values; the
seed decides them. SPDX-License-Identifier: Apache-2.0
"""

import os
import random
import re
import subprocess
import sys
import tempfile
import unittest

SEQPAR = sys.argv[1]
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
COUNT = int(sys.argv[3]) if len(sys.argv) > 3 else 300

ODD_VALUES = (
    *("", "0", "1", "-1", "3", "7", "64K", "1..3", "2:8:*2", "2,3", "on", "off", "f32", "bf16"),
    *("thread", "mpi", "ring/zigzag", "rsa,ulysses", "all", "9223372036854775807", "1e9", "nan"),
    *("18446744073709551615", "-9223372036854775808", "0x10", "1:2", "..", ",", "4,", "*", "K"),
    *("--json", "--", "-", "/", "/dev/full", "nowhere/x.h5", "x.h5", "%s%n", "\u00fc", "\x01"),
    *("dominant", "huge", "a" * 300, "{}", "{0}", " ", "\t", "1 2", "@x", "--help"),
)
# Work that was asked for is done, however long it takes; what is drawn must stay small.
BOUNDED = ("--tokens", "--batch", "--heads", "--kv-heads", "--head-size", "--value-head-size")
SMALL = ("0", "1", "2", "5", "17", "-3", "x", "", "9G", "99999999999999999999")


def options_of(subcommand):
    shown = subprocess.run([SEQPAR, subcommand, "--help"], capture_output=True, text=True).stdout
    return re.findall(r"^  (?:-\w,)?(--[\w-]+)", shown, re.M)


class Fuzz(unittest.TestCase):
    def words(self, draw):
        subcommand = draw.choice([*self.options] * 4 + ["", "verfy", "--json"])
        words = [subcommand]
        if subcommand == "verify":
            words += ["--cases", draw.choice(("1", "1", "1", "2", "0", "-4"))]
        for _ in range(draw.randrange(5)):
            option = draw.choice(self.options.get(subcommand, ["--json"]))
            if option == "--cases":
                continue
            value = draw.choice(SMALL if option in (*BOUNDED, "--projected") else ODD_VALUES)
            words += draw.choice(([option, value], [option + "=" + value], [option], [value]))
        if draw.random() < 0.3:
            draw.shuffle(words)
        # A verification without --cases runs a hundred.
        if "verify" in words and "--cases" not in words:
            words += ["--cases", "1"]
        return words

    def test_random_words(self):
        self.options = {name: options_of(name) for name in ("list", "verify", "compute", "check")}
        self.options["env"] = options_of("env")
        self.assertGreater(len(self.options["verify"]), 15)
        codes = dict.fromkeys(range(4), 0)
        for number in range(COUNT):
            words = self.words(random.Random(SEED * 1_000_003 + number))
            with self.subTest(number=number, words=words), tempfile.TemporaryDirectory() as place:
                done = subprocess.run(
                    [SEQPAR, *words],
                    cwd=place,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=60,
                    env={**os.environ, "LC_ALL": "C.UTF-8"},
                )
                self.assertIn(done.returncode, (0, 1, 2, 3), done.stderr[:500])
                codes[done.returncode] += 1
                self.assertLess(len(done.stdout) + len(done.stderr), 64 * 1024)
                if done.returncode in (2, 3):
                    self.assertRegex(done.stderr, rb"\Aseqpar: [^\n]+\n\Z")
        # Words that are all refused, or all accepted, would test little.
        print("exit codes:", codes)
        self.assertGreater(codes[0], COUNT // 20)
        self.assertGreater(codes[2], COUNT // 4)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
