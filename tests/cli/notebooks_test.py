"""The notebooks: stored without outputs, and every cell runs on results made just now.

Usage: notebooks_test.py ROOT SEQPAR. Needs nbclient, ipykernel, pandas, Matplotlib and h5py.
SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

try:
    import h5py  # noqa: F401
    import ipykernel  # noqa: F401
    import matplotlib  # noqa: F401
    import nbclient
    import nbformat
    import pandas  # noqa: F401
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

ROOT, SEQPAR = pathlib.Path(sys.argv[1]), sys.argv[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 30  # of one notebook


def items_of(path):
    return json.loads(path.read_text())["metadata"]["seqpar"]["items"]


def execute(path, results):
    """The notebook with outputs."""
    os.environ["SEQPAR_RESULTS"] = str(results)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else the debugger of the kernel warns
    book = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(book, timeout=SECONDS, resources=where, allow_errors=True).execute()
    return book


def outputs_of(book):
    return [output for cell in book.cells for output in cell.get("outputs", ())]


class Stored(unittest.TestCase):
    def test_one_for_each_seed_paper(self):
        self.assertEqual(
            [path.stem for path in NOTEBOOKS], ["lasp2", "ring_attention_lwm", "rsa", "token_ring"]
        )

    def test_without_outputs(self):
        for path in NOTEBOOKS:
            with self.subTest(path.name):
                book = nbformat.read(path, as_version=4)
                nbformat.validate(book)
                self.assertEqual(outputs_of(book), [])
                for cell in book.cells:
                    self.assertIsNone(cell.get("execution_count"))
                    self.assertEqual(cell.metadata, {})

    def test_shows_every_item_that_it_loads(self):
        for path in NOTEBOOKS:
            with self.subTest(path.name):
                text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells)
                for item in items_of(path):
                    self.assertEqual(text.count(f'"{item}",'), 1)
                    self.assertEqual(text.count(f'items["{item}"]'), 1)


class Run(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.results = pathlib.Path(self.temporary.name)

    def tearDown(self):
        self.temporary.cleanup()

    def test_every_cell(self):
        for path in NOTEBOOKS:
            with self.subTest(path.name):
                items = items_of(path)
                words = [SEQPAR, "reproduce", *items, "--out-dir", str(self.results)]
                done = subprocess.run(words, capture_output=True, text=True, timeout=100)
                self.assertEqual(done.returncode, 0, done.stderr)
                outputs = outputs_of(execute(path, self.results))
                errors = [output for output in outputs if output.output_type == "error"]
                self.assertEqual(errors, [])
                shown = [output.data for output in outputs if output.output_type == "display_data"]
                texts = [data.get("text/html", "") for data in shown]
                for what, found in (
                    ("verdict", [text for text in texts if "</b>" in text]),
                    ("plot", [data for data in shown if "image/svg+xml" in data]),
                    ("claims", [text for text in texts if "<table" in text]),
                ):
                    self.assertGreaterEqual(len(found), len(items), what)

    def test_missing_results_name_the_command_that_makes_them(self):
        path = NOTEBOOKS[0]
        outputs = outputs_of(execute(path, self.results))
        self.assertEqual(outputs[0].output_type, "error")
        command = f"./seqpar reproduce {' '.join(items_of(path))}"
        self.assertTrue(outputs[0].evalue.endswith(f"first run: {command}"), outputs[0].evalue)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
