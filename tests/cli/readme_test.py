"""What README.md shows is true: its commands run, its outputs and its status table are current.

Usage: readme_test.py ROOT SEQPAR [MPIEXEC]
Blocks below a comment `<!-- run ... -->` are run, in order, in one directory. Needs h5py and NumPy.
SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

from documents import DOCUMENTS, with_tables, without_numbers
from processes import MPI_ENVIRONMENT

try:
    import h5py  # noqa: F401
    import numpy  # noqa: F401
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

ROOT, SEQPAR = pathlib.Path(sys.argv[1]), sys.argv[2]
MPIEXEC = sys.argv[3] if len(sys.argv) > 3 else None
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"<!-- run(?P<how>[^>]*?) *-->\n```(?P<language>\w+)\n(?P<text>.*?)```", re.S)


def run(words, directory, **more):
    return subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=300, **more)


def commands_and_outputs(text):
    """`$ command` lines of a console block, each with the lines that follow it."""
    pairs = []
    for line in text.splitlines():
        if line.startswith("$ "):
            pairs.append((line[2:], []))
        else:
            pairs[-1][1].append(line)
    return [(command, "\n".join(output)) for command, output in pairs]


class Readme(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp()

    def tearDown(self):
        shutil.rmtree(self.directory)

    def run_command(self, command):
        words = [SEQPAR if word == "./seqpar" else word for word in shlex.split(command)]
        environment = dict(os.environ)
        if words[0] == "mpirun":
            words[0] = MPIEXEC
            environment.update(MPI_ENVIRONMENT)
        else:
            self.assertEqual(words[0], SEQPAR, f"an unknown command is shown: {command}")
        done = run(words, self.directory, env=environment)
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def test_blocks_run(self):
        blocks = list(BLOCK.finditer(README))
        self.assertGreaterEqual(len(blocks), 6)
        built = {b["name"]: b["built"] for b in self.backends()}
        for block in blocks:
            if "with mpi" in block["how"] and not (MPIEXEC and built["mpi"]):
                print("not run, for lack of MPI:", block["text"].strip())
                continue
            if block["language"] == "python":
                done = run([sys.executable, "-c", block["text"]], self.directory)
                self.assertEqual(done.returncode, 0, done.stderr)
                continue
            for command, shown in commands_and_outputs(block["text"]):
                output = self.run_command(command)
                if "same output" in block["how"]:
                    self.assertEqual(without_numbers(shown), without_numbers(output), command)

    def backends(self):
        done = run([SEQPAR, "list", "--json"], self.directory)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["backends"]

    def test_tables_are_current(self):
        for name in DOCUMENTS:
            text = (ROOT / name).read_text()
            self.assertIn("<!-- begin: seqpar ", text)
            self.assertEqual(text, with_tables(text, SEQPAR), "run .ci/document")

    def test_both_commands_of_the_quick_start_are_shown(self):
        for command in ("$ ./seqpar verify --cases 50\n", "$ ./seqpar test\n"):
            self.assertIn(command, README)

    def test_links_lead_somewhere(self):
        links = re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", README)
        self.assertGreater(len(links), 5)
        for link in map("".join, links):
            if "://" not in link:
                self.assertTrue((ROOT / link).exists(), link)

    def test_pictures_differ_in_colours_only(self):
        light, dark = (
            re.sub("#[0-9a-f]{6}", "#", (ROOT / f"optimized/ring-{mode}.svg").read_text())
            for mode in ("light", "dark")
        )
        self.assertEqual(light, dark)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
