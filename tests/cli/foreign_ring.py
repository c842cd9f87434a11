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
        self.q, self.k, self.v, self.ids, self.bug, self.half = q, k, v, ids, bug, half
        chunks = np.array_split(np.arange(len(q)), 2 * ranks)
        self.chunk_of = np.concatenate([np.full(len(c), i) for i, c in enumerate(chunks)])
        self.shards = [np.concatenate([chunks[r], chunks[-1 - r]]) for r in range(ranks)]
        self.scale = np.float32(q.shape[2] ** -0.5)
        self.group = q.shape[1] // k.shape[1]

    def scores(self, rows, keys, head, own):
        i, j = rows[:, None], keys[None, :]
        seen = i >= j
        if self.bug == "border":
            seen = np.where(self.chunk_of[i] == self.chunk_of[j], seen, i + 1 >= j)
        if self.ids is not None and (own or self.bug != "documents"):
            seen = seen & (self.ids[i] == self.ids[j])
        s = self.scale * (self.q[rows, head] @ self.k[keys, head // self.group].T)
        return np.where(seen, s, np.float32(-np.inf))

    def hops(self, rank):
        """The shards that come by, the own one first."""
        count = len(self.shards)
        return [(self.shards[(rank - hop) % count], hop == 0) for hop in range(count)]

    @staticmethod
    def softmax(s):
        top = s.max(1, initial=-np.inf)
        safe = np.where(np.isinf(top), np.float32(0), top)
        p = np.exp(s - safe[:, None])
        total = p.sum(1)
        with np.errstate(divide="ignore"):
            lse = safe + np.log(total)
        return p / np.where(total == 0, np.float32(1), total)[:, None], lse

    def forward(self):
        N, H, _ = self.q.shape
        out = np.zeros((N, H, self.v.shape[2]), np.float32)
        lse = np.full((H, N), -np.inf, np.float32)
        for rank, rows in enumerate(self.shards):
            for head in range(H):
                o, L = out[rows, head], lse[head, rows]
                for keys, own in self.hops(rank):
                    p, block = self.softmax(self.scores(rows, keys, head, own))
                    new = np.logaddexp(L, block)
                    safe = np.where(np.isinf(new), np.float32(0), new)
                    o = o * np.exp(L - safe)[:, None]
                    o = o + (p @ self.v[keys, head // self.group]) * np.exp(block - safe)[:, None]
                    L = new
                    if self.bug == "partials":
                        o = bf16(o)
                out[rows, head], lse[head, rows] = o, L
        if self.bug == "lse":
            lse = bf16(lse)
        self.out, self.lse = bf16(out) if self.half else out, lse
        return self.out, self.lse

    def backward(self, d_out):
        d_q, d_k, d_v = (np.zeros_like(x) for x in (self.q, self.k, self.v))
        keep = bf16 if self.bug == "gradient_sums" else lambda x: x
        for rank, rows in enumerate(self.shards):
            for head in range(self.q.shape[1]):
                g = head // self.group
                d_o = d_out[rows, head]
                delta = (d_o * self.out[rows, head]).sum(1)
                for keys, own in self.hops(rank):
                    s = self.scores(rows, keys, head, own)
                    L = self.lse[head, rows]
                    if self.bug == "block_lse":
                        L = self.softmax(s)[1]
                    p = np.exp(s - np.where(np.isinf(L), np.float32(0), L)[:, None])
                    d_s = self.scale * p * (d_o @ self.v[keys, g].T - delta[:, None])
                    d_v[keys, g] = keep(d_v[keys, g] + p.T @ d_o)
                    d_k[keys, g] = keep(d_k[keys, g] + d_s.T @ self.q[rows, head])
                    d_q[rows, head] = keep(d_q[rows, head] + d_s @ self.k[keys, g])
        return [bf16(x) if self.half else x for x in (d_q, d_k, d_v)]
