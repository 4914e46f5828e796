"""The cells on a GPU: Triton against plain torch, forward and backward, beside what memory and arithmetic allow.

    python tests/benchmarks/bench_gpu.py [--repeats 20] [--dtype float32]

Medians of calls in turns. Where the packages `flashrnn` and `mlstm_kernels` are installed, their Triton kernels take
turns too; a shape that they refuse is left out. The floors divide the bytes that a call must read and write, and the
multiplications of its products, by what this GPU reaches in a copy and in a matrix product of the same dtype.
"""

import argparse
import statistics
import sys
from contextlib import suppress

import torch

from xlstm_ts.kernels import mlstm, slstm

SLSTM = [(32, 96, 128, 4), (128, 512, 128, 4), (256, 512, 512, 8)]  # B, T, D, H
MLSTM = [(32, 96, 128, 4), (32, 512, 128, 4), (16, 2048, 1024, 8)]


def milliseconds(call):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def median(call, repeats):
    return statistics.median([milliseconds(call) for _ in range(repeats + 2)][2:])  # the first two warm up


def rates(dtype):
    """Return what is reached in bytes and in multiplications per millisecond."""
    a, b = (torch.randn(8192, 8192, device="cuda").to(dtype) for _ in range(2))
    bytes_moved = 2 * a.numel() * a.element_size()
    return bytes_moved / median(lambda: b.copy_(a), 10), 8192**3 / median(lambda: a @ b, 10)


def case(cell, batch, steps, width, heads, dtype):
    """Return calls by name, and the numbers moved and the multiplications done at least."""
    head = width // heads
    shapes = {
        "slstm": [(batch, steps, 4, heads, head), (4, heads, head, head)],
        "mlstm": [(batch, steps, heads, head)] * 3 + [(batch, steps, heads)] * 2,
    }[cell]
    inputs = [(torch.randn(shape, device="cuda") / shape[-1] ** 0.5).to(dtype).requires_grad_() for shape in shapes]
    run = slstm if cell == "slstm" else mlstm

    def back(h, inputs):
        torch.autograd.grad(h, inputs, torch.ones_like(h))

    calls = {name: lambda name=name: back(run(*inputs, backend=name)[0], inputs) for name in ("triton", "eager")}
    with suppress(ImportError):
        if cell == "slstm":
            from flashrnn import flashrnn

            bias = torch.zeros(4, heads, head, device="cuda", dtype=dtype, requires_grad=True)
            theirs = [*inputs, bias]
            options = {"function": "slstm", "backend": "triton_fused", "dtype": str(dtype).removeprefix("torch.")}
            calls["official"] = lambda: back(flashrnn(*theirs, **options)[0][0], theirs)  # h of the states h, c, n, m
        else:
            from mlstm_kernels.torch.chunkwise.triton_xl_chunk import mlstm_chunkwise__xl_chunk

            theirs = [x.detach().transpose(1, 2).contiguous().requires_grad_() for x in inputs]  # heads before steps
            options = {"chunk_size": 64 if steps % 128 else 128, "autocast_kernel_dtype": dtype}
            calls["official"] = lambda: back(mlstm_chunkwise__xl_chunk(*theirs, **options), theirs)
    rows = batch * steps * heads
    numbers = 3 * sum(x.numel() for x in inputs) + 2 * rows * head  # inputs twice and their gradients, h and its own
    products = rows * head * head * (3 * 4 if cell == "slstm" else 3 * 2)  # mLSTM at its least: a chunk of one step
    return calls, numbers * inputs[0].element_size(), products


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a GPU")
    dtype = getattr(torch, options.dtype)
    bandwidth, arithmetic = rates(dtype)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.dtype}, median of {options.repeats}\n")
    ratios = "eager / triton | official / triton"
    print(f"| cell | B, T, D, heads | triton, ms | {ratios} | memory floor, ms | arithmetic floor, ms |")
    print("|---|---|---|---|---|---|---|")
    for cell, sizes in (("slstm", SLSTM), ("mlstm", MLSTM)):
        for size in sizes:
            calls, moved, products = case(cell, *size, dtype)
            times = {name: [] for name in calls}
            for turn in range(options.repeats + 2):
                for name, taken in times.items():
                    if name == "eager" and turn > 4:
                        continue  # slow, and steady enough
                    try:
                        passed = milliseconds(calls[name])
                    except Exception as error:  # what another package raises for a shape is its own affair
                        if name != "official":
                            raise
                        print(f"official, {cell} {size}: {error}", file=sys.stderr) if turn == 0 else None
                        continue
                    if turn > 1:
                        taken.append(passed)
            fast = statistics.median(times["triton"])
            ratios = (
                f"{statistics.median(times[n]) / fast:.1f}" if times.get(n) else "-" for n in ("eager", "official")
            )
            floors = f"{moved / bandwidth:.2f} | {products / arithmetic:.2f}"
            row = f"| {cell} | {', '.join(map(str, size))} | {fast:.2f} | {' | '.join(ratios)} | {floors} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
