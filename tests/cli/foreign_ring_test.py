"""`check` on somebody else's ring: the right one passes, every bug is found, at every length.

Usage: foreign_ring_test.py SEQPAR [long]. Needs h5py. 16K tokens take minutes where NumPy has no
BLAS: only if `long`.
SPDX-License-Identifier: Apache-2.0
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

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from foreign_ring import BUGS, Ring, bf16  # noqa: E402

SEQPAR = sys.argv[1]
SANITIZED = b"__asan_init" in pathlib.Path(SEQPAR).read_bytes()
RANKS = 4
# What the diagnosis has to say of each.
KINDS = {
    "block_lse": r"every block of keys by its own log-sum-exp",
    "partials": r"out is a number of bf16|out is off .* rounded to bf16",
    "gradient_sums": r"d_v is a number of bf16|d_v is off .* rounded to bf16",
    "documents": r"as if document borders were not there",
    "border": r"as if a mask were off by one",
    "lse": r"every element of lse is a number of bf16",
}
SMALL, REAL = (2, 1, 16), (32, 8, 128)  # query heads, key heads, head size


class ForeignRing(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def store(self, path, tensors, half, **attributes):
        with h5py.File(path, "w") as f:
            f.attrs.update(**attributes)
            for name, x in tensors.items():
                if half and x.dtype == np.float32 and name != "lse":
                    f[name] = (bf16(x).view(np.uint32) >> 16).astype(np.uint16)
                    f[name].attrs["encoding"] = "bfloat16"
                else:
                    f[name] = x

    def verdicts(self, tokens, heads, half, *words, bugs=tuple(BUGS), with_lse=True):
        """Exit codes of the right ring (None) and of every bug."""
        rng = np.random.default_rng(tokens)
        H, G, D = heads
        q, k, v, d_out = (
            rng.standard_normal((tokens, h, D)).astype(np.float32) for h in (H, G, G, H)
        )
        if half:
            q, k, v, d_out = map(bf16, (q, k, v, d_out))
        ids = np.sort(rng.integers(0, 3, tokens)).astype(np.int32)
        problem, result = self.folder / "problem.h5", self.folder / "result.h5"
        tensors = {"q": q, "k": k, "v": v, "d_out": d_out}
        tensors = {name: x[None] for name, x in tensors.items()} | {"segment_ids": ids[None]}
        self.store(
            problem, tensors, half, schema="seqpar.problem", schema_version=1,
            attention="softmax", causal=True,
        )  # fmt: skip
        codes = {}
        for bug in (None, *bugs):
            ring = Ring(q, k, v, RANKS, ids, bug, half)
            out, lse = ring.forward()
            d_q, d_k, d_v = ring.backward(d_out)
            tensors = {"out": out, "lse": lse, "d_q": d_q, "d_k": d_k, "d_v": d_v}
            if not with_lse:
                del tensors["lse"]
            self.store(result, {name: x[None] for name, x in tensors.items()}, half)
            done = subprocess.run(
                (SEQPAR, "check", problem, result, *words), capture_output=True, text=True
            )
            self.assertIn(done.returncode, (0, 1), done.stderr)
            codes[bug] = done.returncode
            if bug and with_lse:
                self.assertRegex(done.stdout, f"looks like: .*({KINDS[bug]})")
            if bug is None:
                self.assertEqual(done.returncode, 0, done.stdout)
        return codes

    def all_are_found(self, *arguments, **more):
        for half in (False, True):
            with self.subTest(half=half):
                codes = self.verdicts(arguments[0], arguments[1], half, *arguments[2:], **more)
                passed = [bug for bug, code in codes.items() if bug is not None and code == 0]
                self.assertEqual(passed, [])

    def test_is_found_out_at_101_tokens(self):
        self.all_are_found(101, SMALL)
        self.all_are_found(101, REAL)

    def test_is_found_out_at_1000_tokens(self):
        self.all_are_found(1000, SMALL)

    @unittest.skipIf(SANITIZED, "most of it is NumPy")
    def test_is_found_out_at_1000_tokens_without_a_log_sum_exp(self):
        self.all_are_found(1000, SMALL, with_lse=False)

    @unittest.skipIf(SANITIZED, "most of it is NumPy")
    def test_is_found_out_at_4001_tokens(self):
        self.all_are_found(4001, (1, 1, 16))

    @unittest.skipUnless("long" in sys.argv, "takes minutes")
    def test_is_found_out_at_16K_tokens_of_which_few_are_compared(self):
        self.all_are_found(16384, (1, 1, 16), "--sample", "64")

    @unittest.skipUnless("long" in sys.argv, "takes minutes")
    def test_is_found_out_in_many_heads(self):
        self.all_are_found(1000, REAL)
        self.all_are_found(4001, REAL)

    @unittest.skipUnless("long" in sys.argv, "takes minutes")
    def test_is_found_out_at_16K_tokens_in_several_heads(self):
        self.all_are_found(16384, (8, 2, 64))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
