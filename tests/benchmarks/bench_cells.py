"""Forward and backward of one layer against torch.nn.LSTM: same shapes, same process, in turns, medians.

    python tests/benchmarks/bench_cells.py [--threads 1] [--repeats 7]

A ratio below 1 is faster than torch.nn.LSTM.
"""

import argparse
import statistics
import time

import torch

from xlstm_ts.nn import MLSTM, SLSTM

SHAPES = [(32, 12, 64), (32, 96, 64), (32, 96, 128), (32, 336, 128), (32, 512, 128)]
HEADS = 4


def layers(width):
    return {
        "nn.LSTM": torch.nn.LSTM(width, width, batch_first=True),
        "sLSTM dense": SLSTM(width, width, HEADS),
        "sLSTM head-wise": SLSTM(width, width, HEADS, projection="headwise"),
        "mLSTM dense": MLSTM(width, width, HEADS),
    }


def seconds(layer, x):
    start = time.perf_counter()
    layer.zero_grad(set_to_none=True)
    y, _ = layer(x)
    y.sum().backward()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), float32, median of {options.repeats}\n")
    print("| B, T, D | nn.LSTM, ms | " + " | ".join(list(layers(HEADS))[1:]) + " |")
    print("|---" * (len(layers(HEADS)) + 1) + "|")
    for batch, steps, width in SHAPES:
        candidates = layers(width)
        x = torch.randn(batch, steps, width, requires_grad=True)
        times = {name: [] for name in candidates}
        for turn in range(options.repeats + 1):
            for name, layer in candidates.items():
                taken = seconds(layer, x)
                if turn:  # the first turn warms up
                    times[name].append(taken)
        base = statistics.median(times["nn.LSTM"])
        ratios = [f"{statistics.median(times[name]) / base:.2f}" for name in list(candidates)[1:]]
        print(f"| {batch}, {steps}, {width} | {base * 1e3:.1f} | " + " | ".join(ratios) + " |")


if __name__ == "__main__":
    main()
