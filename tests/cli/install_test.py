"""The installed program, in a folder that was moved and from a place that has nothing else.

Usage: install_test.py CMAKE BUILD. SPDX-License-Identifier: Apache-2.0
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

CMAKE, BUILD = sys.argv[1:]


class Installed(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        top = pathlib.Path(self.temporary.name)
        words = [CMAKE, "--install", BUILD, "--prefix", top / "first"]
        done = subprocess.run(words, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.prefix = top / "a moved place"
        shutil.move(top / "first", self.prefix)
        self.directory = top / "elsewhere"
        self.directory.mkdir()

    def tearDown(self):
        self.temporary.cleanup()

    def seqpar(self, *words):
        return subprocess.run(
            [self.prefix / "bin/seqpar", *words],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=250,
        )

    def test_reads_its_own_files(self):
        folder = self.prefix / "share/seqpar/experiments/platforms"
        names = {path.stem for path in folder.glob("*.toml")}
        listed = json.loads(self.seqpar("list", "--json").stdout)
        self.assertEqual({p["name"] for p in listed["platforms"]}, names)
        # What is listed comes from here, not from the sources that it was built from.
        shutil.copy(folder / "a10_pcie.toml", folder / "mine.toml")
        listed = json.loads(self.seqpar("list", "--json").stdout)
        self.assertIn("mine", {p["name"] for p in listed["platforms"]})

    def test_replays_and_reports_from_anywhere(self):
        done = self.seqpar("reproduce", "token_ring/traffic")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.seqpar("report")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((self.directory / "data/results/report.html").stat().st_size > 10_000)

    def test_hands_over_to_the_emulator_beside_it(self):
        words = ("--algorithm", "ring/zigzag", "--ranks", "2", "--cases", "1")
        done = self.seqpar("verify", "--backend", "emulated", *words)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        (self.prefix / "bin/seqpar-emulated").unlink()
        done = self.seqpar("verify", "--backend", "emulated", *words)
        self.assertEqual((done.returncode, done.stdout), (3, ""))
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertIn("back-end emulated is not built", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
