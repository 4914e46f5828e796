"""The mLSTM read from a memory that a parallel prefix writes out, against its chunkwise and its quadratic form.

    python tests/benchmarks/bench_scan.py [--threads 1] [--repeats 5]

Forward and backward, same inputs, same process, in turns, medians; multiples of the time of the chunkwise form.
"""

import argparse
import statistics
import time

import torch

from xlstm_ts.kernels import MLSTMState, mlstm_states
from xlstm_ts.kernels._mlstm import eager, reference

BATCH, HEADS = 8, 4
SHAPES = [(16, 8), (64, 8), (256, 8), (1024, 8), (64, 32), (256, 32), (1024, 32)]  # T, K


def by_scan(q, k, v, i, f, state):
    states = mlstm_states(k, v, i, f, state)
    numerator = (q[..., None, :] @ states.c)[..., 0, :]
    return numerator / reference.denominator((q * states.n).sum(-1), states.m)[..., None]


FORMS = {
    "chunkwise": lambda *inputs: eager.run(*inputs, "sigmoid", None)[0],
    "quadratic": lambda *inputs: reference.parallel(*inputs, "sigmoid")[0],
    "scan": by_scan,
}


def seconds(form, inputs, state):
    for tensor in inputs:
        tensor.grad = None
    start = time.perf_counter()
    form(*inputs, state).sum().backward()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), B={BATCH}, H={HEADS}, median of {options.repeats}\n"
    )
    print("| T, K | chunkwise, ms | quadratic | scan | memory of the scan, MB |\n|---|---|---|---|---|")
    for steps, width in SHAPES:
        generator = torch.Generator().manual_seed(0)
        shapes = [(BATCH, steps, HEADS, width)] * 3 + [(BATCH, steps, HEADS)] * 2
        inputs = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
        state = MLSTMState.empty(BATCH, HEADS, width, width)
        times = {name: [] for name in FORMS}
        for turn in range(options.repeats + 1):
            for name, form in FORMS.items():
                taken = seconds(form, inputs, state)
                if turn:  # the first turn warms up
                    times[name].append(taken)
        median = {name: statistics.median(taken) for name, taken in times.items()}
        base = median["chunkwise"]
        ratios = " | ".join(f"{median[name] / base:.2f}" for name in ("quadratic", "scan"))
        megabytes = BATCH * steps * HEADS * width * width * 4 / 1e6
        print(f"| {steps}, {width} | {base * 1e3:.1f} | {ratios} | {megabytes:.0f} |")


if __name__ == "__main__":
    main()
