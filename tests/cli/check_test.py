"""What `check` says of a wrong result when it knows the run, and the errors that it writes.

Usage: check_test.py SEQPAR. Needs h5py. SPDX-License-Identifier: Apache-2.0
"""

import pathlib
import subprocess
import sys
import tempfile
import unittest

try:
    import h5py
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

SEQPAR = sys.argv[1]
TOKENS, RANKS = 96, 4


class Check(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.problem, self.result, self.errors = (
            self.folder / f"{name}.h5" for name in ("problem", "result", "errors")
        )
        rng = np.random.default_rng(5)
        with h5py.File(self.problem, "w") as f:
            f.attrs.update(schema="seqpar.problem", schema_version=1, attention="softmax")
            f.attrs.update(causal=True)
            f["segment_ids"] = (np.arange(TOKENS)[None] // 20).astype(np.int32)
            for name, heads in (("q", 2), ("k", 1), ("v", 1), ("d_out", 2)):
                f[name] = rng.standard_normal((1, TOKENS, heads, 8)).astype(np.float32)
        words = ("compute", "--algorithm", "ring/zigzag", "--ranks", str(RANKS))
        subprocess.run((SEQPAR, *words, self.problem, self.result), check=True, capture_output=True)

    def spoil(self, name, tokens):
        with h5py.File(self.result, "a") as f:
            x = f[name][...]
            x[:, tokens] += 0.25
            f[name][...] = x

    def check(self, *words):
        return subprocess.run(
            (SEQPAR, "check", self.problem, self.result, *words), capture_output=True, text=True
        )

    def said_of(self, tokens, *words):
        self.spoil("d_q", tokens)
        done = self.check(*words)
        self.assertEqual(done.returncode, 1, done.stderr)
        return done.stdout

    def test_names_ranks_and_chunks_of_a_layout(self):
        # Of 8 zigzag chunks of 12 tokens, the second ones of ranks 2 and 1 are numbers 5 and 6.
        said = self.said_of(slice(60, 84), "--ranks", str(RANKS), "--sharding", "zigzag")
        self.assertIn("of tokens 60 to 83", said)
        self.assertIn("of ranks 1, 2 of 0 to 3", said)
        self.assertIn("of the second chunk of every rank only", said)

    def test_names_ranks_of_a_contiguous_layout(self):
        said = self.said_of(slice(72, 96), "--ranks", str(RANKS), "--sharding", "contiguous")
        self.assertIn("of ranks 3 of 0 to 3", said)

    def test_names_documents(self):
        said = self.said_of(slice(20, 60))
        self.assertIn("of documents 1, 2 of 0 to 4", said)
        self.assertNotIn("of ranks", said)

    def test_writes_the_errors(self):
        self.spoil("d_k", slice(7, 9))
        done = self.check("--diff", self.errors)
        self.assertEqual(done.returncode, 1, done.stderr)
        with h5py.File(self.errors) as f:
            self.assertEqual(f.attrs["schema"], "seqpar.errors")
            self.assertEqual(set(f) - {"environment"}, {"out", "lse", "d_q", "d_k", "d_v"})
            d_k = f["d_k"][...]
        self.assertEqual((d_k.shape, d_k.dtype), ((1, TOKENS, 1, 8), np.float32))
        np.testing.assert_allclose(d_k[:, 7:9], 0.25, atol=1e-5)
        d_k[:, 7:9] = 0
        self.assertLess(np.abs(d_k).max(), 1e-5)

    def test_leaves_out_what_was_not_compared(self):
        done = self.check("--diff", self.errors, "--sample", "3", "--ranks", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(self.errors) as f:
            unknown = np.isnan(f["out"][0, :, 0, 0])
            self.assertTrue(np.array_equal(unknown, np.isnan(f["lse"][0, 0])))
        self.assertGreater(unknown.sum(), TOKENS // 2)
        self.assertFalse(unknown[[0, 19, 20, TOKENS - 1]].any())

    def test_refuses_a_layout_without_ranks_and_files_that_cannot_be(self):
        for words, code in (
            (("--sharding", "zigzag"), 2),
            (("--sharding", "random", "--ranks", "2"), 2),
            (("--diff", self.folder / "no" / "errors.h5"), 3),
        ):
            done = self.check(*words)
            self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
            self.assertRegex(done.stderr, r"\A[^\n]+\n\Z")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
