"""A zigzag ring in NumPy, as somebody would write it, and the bugs that such rings had.

Sums in float32; with `half` what is stored is rounded to bfloat16. Used by foreign_ring_test.py.

SPDX-License-Identifier: Apache-2.0
"""

import numpy as np

BUGS = {
    "block_lse": "backward normalises every block by its own log-sum-exp",
    "partials": "partial results are rounded to bfloat16 after every hop",
    "gradient_sums": "sums of gradients are rounded to bfloat16 after every hop",
    "documents": "documents are looked at in the own shard only",
    "border": "the causal mask is off by one between chunks",
    "lse": "the log-sum-exp is stored in bfloat16",
}


def bf16(x):
    """Rounded to bfloat16, to nearest even, as float32."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32)
    return rounded.view(np.float32)


class Ring:
    """q [N, H, D], k, v [N, G, .]; causal; ids [N] or None. `bug`: a key of BUGS, or None."""

    def __init__(self, q, k, v, ranks, ids=None, bug=None, half=False):
        self.group = q.shape[1] // k.shape[1]
        # All inside with heads in front, keys as often as their queries.
        self.q = q.swapaxes(0, 1)
        self.k, self.v = (np.repeat(x.swapaxes(0, 1), self.group, 0) for x in (k, v))
        self.ids, self.bug, self.half = ids, bug, half
        self.chunks = np.array_split(np.arange(len(q)), 2 * ranks)
        self.chunk_of = np.concatenate([np.full(len(c), i) for i, c in enumerate(self.chunks)])
        self.scale = np.float32(q.shape[2] ** -0.5)

    def scores(self, rows, keys, own):
        i, j = rows[:, None], keys[None, :]
        seen = i >= j
        if self.bug == "border":
            seen = np.where(self.chunk_of[i] == self.chunk_of[j], seen, i + 1 >= j)
        if self.ids is not None and (own or self.bug != "documents"):
            seen = seen & (self.ids[i] == self.ids[j])
        s = self.scale * (self.q[:, rows] @ self.k[:, keys].swapaxes(1, 2))
        s[:, ~seen] = -np.inf
        return s

    def work(self):
        """Every chunk of queries, and for each the shards of keys that come by, the own one first.

        Of a shard only what the chunk can see, one key more for who miscounts.
        """
        last = len(self.chunks) - 1
        for chunk, rows in enumerate(self.chunks):
            rank, ranks = min(chunk, last - chunk), len(self.chunks) // 2
            hops = []
            for shard in ((rank - hop) % ranks for hop in range(ranks)):
                keys = np.concatenate([self.chunks[shard], self.chunks[last - shard]])
                hops.append((keys[keys <= rows[-1] + 1], shard == rank))
            yield rows, hops

    @staticmethod
    def finite(x):
        return np.where(np.isinf(x), np.float32(0), x)[..., None]

    @classmethod
    def softmax(cls, s):
        """Probabilities not yet divided by their sums; the sums; the log-sum-exp."""
        top = cls.finite(s.max(-1, initial=-np.inf))
        p = np.exp(s - top)
        total = p.sum(-1)
        with np.errstate(divide="ignore"):
            return p, total, top[..., 0] + np.log(total)

    def forward(self):
        H, N, _ = self.q.shape
        out = np.zeros((H, N, self.v.shape[2]), np.float32)
        lse = np.full((H, N), -np.inf, np.float32)
        for rows, hops in self.work():
            o, L = out[:, rows], lse[:, rows]
            for keys, own in hops:
                p, total, block = self.softmax(self.scores(rows, keys, own))
                new = np.logaddexp(L, block)
                safe = self.finite(new)
                part = p @ self.v[:, keys] / np.where(total == 0, np.float32(1), total)[..., None]
                o = o * np.exp(L[..., None] - safe) + part * np.exp(block[..., None] - safe)
                L = new
                if self.bug == "partials":
                    o = bf16(o)
            out[:, rows], lse[:, rows] = o, L
        if self.bug == "lse":
            lse = bf16(lse)
        self.out, self.lse = bf16(out) if self.half else out, lse
        return self.out.swapaxes(0, 1), self.lse

    def backward(self, d_out):
        d_out = d_out.swapaxes(0, 1)
        d_q, d_k, d_v = (np.zeros_like(x) for x in (self.q, self.k, self.v))
        keep = bf16 if self.bug == "gradient_sums" else lambda x: x
        for rows, hops in self.work():
            d_o = d_out[:, rows]
            delta = (d_o * self.out[:, rows]).sum(-1)[..., None]
            for keys, own in hops:
                s = self.scores(rows, keys, own)
                L = self.softmax(s)[2] if self.bug == "block_lse" else self.lse[:, rows]
                p = np.exp(s - self.finite(L))
                d_s = self.scale * p * (d_o @ self.v[:, keys].swapaxes(1, 2) - delta)
                d_v[:, keys] = keep(d_v[:, keys] + p.swapaxes(1, 2) @ d_o)
                d_k[:, keys] = keep(d_k[:, keys] + d_s.swapaxes(1, 2) @ self.q[:, rows])
                d_q[:, rows] = keep(d_q[:, rows] + d_s @ self.k[:, keys])
        d_k, d_v = (x.reshape(-1, self.group, *x.shape[1:]).sum(1) for x in (d_k, d_v))
        gradients = (x.swapaxes(0, 1) for x in (d_q, d_k, d_v))
        return [bf16(x) if self.half else x for x in gradients]
