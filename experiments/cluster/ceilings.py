"""What this GPU reaches in PyTorch: a matrix product, a copy, attention forward and backward.

Usage: ceilings.py. The ceilings that one_gpu.sh's page shows beside our times; needs PyTorch with
a GPU. Attention in the shapes of one_gpu.sh: one sequence, 16 heads, causal, bf16, and flops as
seqpar counts them: 2 products forward, 5 backward, half of each masked.
SPDX-License-Identifier: Apache-2.0
"""

import torch
import torch.nn.functional as F


def seconds(work, repetitions=10):
    """Median over repetitions, by events."""
    work(), work()
    times = []
    for _ in range(repetitions):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return sorted(times)[len(times) // 2]


def product(n=8192):
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds(lambda: a @ b) / 1e12


def copy(bytes=2**30):
    a = torch.empty(bytes, device="cuda", dtype=torch.uint8)
    b = torch.empty_like(a)
    return 2 * bytes / seconds(lambda: b.copy_(a)) / 1e9


def attention(tokens, size, heads=16):
    """Forward and backward TFLOP/s."""
    shape = (1, heads, tokens, size)
    q, k, v = (
        torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )
    d_out = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    forward = seconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    inputs = (q, k, v)
    backward = seconds(lambda: torch.autograd.grad(out, inputs, d_out, retain_graph=True))
    one_product = 2 * heads * tokens * tokens * size / 2
    return 2 * one_product / forward / 1e12, 5 * one_product / backward / 1e12


def main():
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}")
    print(f"matrix product, bf16, 8192: {product():.0f} TFLOP/s")
    print(f"copy of 1 GiB: {copy():.0f} GB/s read and written")
    for size in (64, 128):
        for tokens in (4096, 8192, 16384, 32768):
            forward, backward = attention(tokens, size)
            print(
                f"attention, head size {size}, {tokens} tokens: forward {forward:.0f}, "
                f"backward {backward:.0f} TFLOP/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
