"""Speed of the layers against those of torch: same shapes, same process, in turns, medians.

Ratios are what carries from one machine to another; a ratio below 1 is faster than `torch.nn.LSTM`.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from xlstm_ts.nn import MLSTM, SLSTM

SHAPES = [(32, 12, 64), (32, 96, 64), (32, 96, 128), (32, 336, 128), (32, 512, 128)]
HEADS = 4


def run_kernels(*, threads: int = 1, repeats: int = 7, say: Callable[[str], None] = print) -> None:
    """Measure, and tell the tables as Markdown.

    Parameters
    ----------
    threads : int
        Threads of torch while it runs.
    repeats : int
        Turns after the first, which warms up.
    say : callable
        Gets one line of text at a time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        say(f"torch {torch.__version__}, {threads} thread(s), float32, median of {repeats}\n")
        _layers(repeats, say)
    finally:
        torch.set_num_threads(before)


def _layers(repeats: int, say: Callable[[str], None]) -> None:
    names = list(_candidates(HEADS))
    say(f"| B, T, D | {names[0]}, ms | " + " | ".join(names[1:]) + " |")
    say("|---" * (len(names) + 1) + "|")
    for batch, steps, width in SHAPES:
        candidates = _candidates(width)
        x = torch.randn(batch, steps, width, requires_grad=True)
        times: dict[str, list[float]] = {name: [] for name in candidates}
        for turn in range(repeats + 1):
            for name, layer in candidates.items():
                taken = _seconds(layer, x)
                if turn:
                    times[name].append(taken)
        base = statistics.median(times[names[0]])
        ratios = [f"{statistics.median(times[name]) / base:.2f}" for name in names[1:]]
        say(f"| {batch}, {steps}, {width} | {base * 1e3:.1f} | " + " | ".join(ratios) + " |")


def _candidates(width: int) -> dict[str, nn.Module]:
    return {
        "nn.LSTM": nn.LSTM(width, width, batch_first=True),
        "sLSTM dense": SLSTM(width, width, HEADS),
        "sLSTM head-wise": SLSTM(width, width, HEADS, projection="headwise"),
        "mLSTM dense": MLSTM(width, width, HEADS),
    }


def _seconds(layer: nn.Module, x: torch.Tensor) -> float:
    start = time.perf_counter()
    layer.zero_grad(set_to_none=True)
    y, _ = layer(x)
    y.sum().backward()
    return time.perf_counter() - start
