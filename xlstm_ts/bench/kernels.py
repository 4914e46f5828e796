"""Speed of cells, layers and training steps against those of torch: same shapes, same process, in turns, medians.

Ratios are what carries from one machine to another; a ratio below 1 is faster than `torch.nn.LSTM`.

Dimensions: B batch, T steps, D width, H heads.
"""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xlstm_ts.errors import ParameterError
from xlstm_ts.kernels import mlstm
from xlstm_ts.kernels._mlstm.native import default_chunk
from xlstm_ts.kernels.parts import project
from xlstm_ts.nn import MLSTM, SLSTM, BlockStack
from xlstm_ts.nn.blocks import SLSTMMixer
from xlstm_ts.nn.layers import MatrixMemory

HEADS = 4
SHAPES = [(32, 96, 64), (32, 96, 128), (32, 512, 128), (32, 512, 256), (8, 2048, 128), (128, 336, 128)]
LENGTHS = [512, 1024, 2048, 4096, 8192]
SERIES = [1, 1000]
STEPS = [(32, 96, 64), (32, 96, 128), (32, 336, 64), (32, 336, 128)]
OFFICIAL = [(32, 96, 128), (32, 336, 128), (32, 512, 128)]
CHANNELS, HORIZON = 7, 96  # of the training step
SLOW = 0.5  # seconds
PATIENCE = 10.0  # seconds that one candidate may take before it is left out of further turns

Say = Callable[[str], None]


class Candidate(NamedTuple):
    """What is measured, and the floating-point operations of its products."""

    run: Callable[[], object]
    work: float


class Measured(NamedTuple):
    """Median time of a candidate, its share of the peak, and the megabytes that it adds to the process."""

    seconds: float
    share: str
    memory: str


def run_kernels(*, threads: int = 1, repeats: int = 7, tables: Iterable[str] = (), say: Say = print) -> None:
    """Measure, and tell the tables as Markdown.

    Parameters
    ----------
    threads : int
        Threads of torch while it runs.
    repeats : int
        Turns of every candidate.
    tables : iterable of str
        Some of "layers", "length", "stream", "step" and "official". Default: all.
    say : callable
        Gets one line of text at a time.

    Raises
    ------
    ParameterError
        A number is not positive, or a table is unknown.
    """
    if threads < 1 or repeats < 1:
        raise ParameterError(f"bench kernels: threads={threads} and repeats={repeats}; expected 1 or above.")
    chosen = list(tables) or list(TABLES)
    if unknown := [name for name in chosen if name not in TABLES]:
        raise ParameterError(f"bench kernels: there is no table {unknown[0]!r}; there are {', '.join(TABLES)}.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        say(f"torch {torch.__version__}, {threads} thread(s), float32, medians of {repeats}")
        for name in chosen:
            say("")
            TABLES[name](repeats, say)
    finally:
        torch.set_num_threads(before)


def _layers(repeats: int, say: Say) -> None:
    say(f"Forward and backward of one layer, {HEADS} heads.\n")
    rows = {_text(shape): _measure(_layer_candidates(*shape), repeats) for shape in SHAPES}
    _tell_ratios(say, rows)
    _tell_rest(say, "B, T, D", rows)


def _length(repeats: int, say: Say) -> None:
    batch, width = 8, 128
    say(f"The mLSTM cell by the length of the sequence, B = {batch}, D = {width}: forward and backward.\n")
    _header(say, ["T", "us per step", "nn.LSTM, us per step", "ratio"])
    rows = {}
    for steps in LENGTHS:
        candidates = _layer_candidates(batch, steps, width)
        row = rows[str(steps)] = _measure({name: candidates[name] for name in ("mLSTM cell", "nn.LSTM")}, repeats)
        cell, base = (measured.seconds / steps * 1e6 for measured in row.values())
        _row(say, [str(steps), f"{cell:.2f}", f"{base:.2f}", f"{cell / base:.2f}"])
    _tell_rest(say, "T", rows)


def _stream(repeats: int, say: Say) -> None:
    width = 128
    say(f"One step with a carried state, no gradient, D = {width}, {HEADS} heads: us per series.\n")
    layers = {
        "nn.LSTM": nn.LSTM(width, width, batch_first=True),
        "sLSTM dense": SLSTM(width, width, HEADS),
        "sLSTM head-wise": SLSTM(width, width, HEADS, projection="headwise"),
        "mLSTM dense": MLSTM(width, width, HEADS),
        "mLSTM head-wise": MLSTM(width, width, HEADS, projection="headwise"),
    }
    _header(say, ["series", *layers])
    rows = {}
    with torch.inference_mode():
        for batch in SERIES:
            x = torch.randn(batch, 1, width)
            row = _measure({name: _stepping(layer, x) for name, layer in layers.items()}, 10 * repeats)
            _row(say, [str(batch), *(f"{measured.seconds / batch * 1e6:.2f}" for measured in row.values())])
            rows[str(batch)] = row
    _tell_rest(say, "series", rows)


def _step(repeats: int, say: Say) -> None:
    say(f"A training step: two blocks, {CHANNELS} channels, {HORIZON} steps ahead, AdamW.\n")
    rows = {}
    for batch, steps, width in STEPS:
        x, target = torch.randn(batch, steps, CHANNELS), torch.randn(batch, CHANNELS * HORIZON)
        candidates = {name: _training(body, width, x, target) for name, body in _bodies(steps, width).items()}
        rows[_text((batch, steps, width))] = _measure(candidates, repeats)
    _tell_ratios(say, rows)
    _tell_rest(say, "B, T, D", rows)


def _official_layer(repeats: int, say: Say) -> None:
    if len(_mixers(4, HEADS, 2 * HEADS)) == 1:
        say("The sLSTM layer of the package xlstm: it is not installed.")
        return
    say("The sLSTM layer of a block (convolution, head-wise gates, cell, norm): forward and backward.\n")
    rows = {_text(shape): _measure(_mixers(*shape), repeats) for shape in OFFICIAL}
    _header(say, ["B, T, D", "ours, ms", "xlstm, vanilla backend, ms", "times as fast"])
    for label, row in rows.items():
        ours, theirs = (measured.seconds * 1e3 for measured in row.values())
        _row(say, [label, f"{ours:.1f}", f"{theirs:.0f}", f"{theirs / ours:.0f}"])
    _tell_rest(say, "B, T, D", rows)


TABLES: dict[str, Callable[[int, Say], None]] = {
    "layers": _layers,
    "length": _length,
    "stream": _stream,
    "step": _step,
    "official": _official_layer,
}


def _layer_candidates(batch: int, steps: int, width: int) -> dict[str, Candidate]:
    x = torch.randn(batch, steps, width, requires_grad=True)
    layers = {
        "nn.LSTM": nn.LSTM(width, width, batch_first=True),
        "sLSTM dense": SLSTM(width, width, HEADS),
        "sLSTM head-wise": SLSTM(width, width, HEADS, projection="headwise"),
        "sLSTM dense, eager": SLSTM(width, width, HEADS, backend="eager"),
        "mLSTM dense": MLSTM(width, width, HEADS),
    }
    candidates = {name: _both_ways(layer, x) for name, layer in layers.items()}
    q, k, v = (torch.randn(batch, steps, HEADS, width // HEADS, requires_grad=True) for _ in range(3))
    i, f = (torch.randn(batch, steps, HEADS, requires_grad=True) for _ in range(2))

    def cell() -> None:
        h, _ = mlstm(q, k, v, i, f)
        torch.autograd.grad(h, (q, k, v, i, f), torch.ones_like(h))

    work = 3 * batch * steps * _memory_work(MLSTM(width, width, HEADS).memory)
    candidates["mLSTM cell"] = Candidate(cell, work)
    encoder = nn.TransformerEncoderLayer(width, HEADS, 2 * width, dropout=0.0, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(steps)
    candidates["TransformerEncoderLayer"] = _both_ways(encoder, x, src_mask=mask, is_causal=True)
    return candidates


def _both_ways(layer: nn.Module, x: Tensor, **options: Any) -> Candidate:
    parameters = list(layer.parameters())

    def run() -> None:
        y = layer(x, **options)
        y = y[0] if isinstance(y, tuple) else y
        torch.autograd.grad(y, (x, *parameters), torch.ones_like(y))

    return Candidate(run, 3 * x.shape[0] * x.shape[1] * _work(layer, x.shape[1]))


def _stepping(layer: nn.Module, x: Tensor) -> Candidate:
    state = layer(x)[1]

    def run() -> None:
        nonlocal state
        _, state = layer(x, state)

    return Candidate(run, x.shape[0] * _work(layer, 1))


def _bodies(steps: int, width: int) -> dict[str, nn.Module]:
    """Two layers of each kind, (B, T, D) to (B, T, D)."""

    def stack(layout: str) -> nn.Module:
        return BlockStack(layout, None, width=width, num_heads=HEADS, conv_width=4, dropout=0.0)

    encoder = nn.TransformerEncoderLayer(width, HEADS, 2 * width, dropout=0.0, batch_first=True)
    bodies = {
        "nn.LSTM x 2": nn.LSTM(width, width, num_layers=2, batch_first=True),
        "sLSTM x 2": stack("ss"),
        "mLSTM x 2": stack("mm"),
        "TransformerEncoder x 2": nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False),
    }
    return bodies | _official(steps, width)


def _official(steps: int, width: int) -> dict[str, nn.Module]:
    """Return the same stacks from the `xlstm` package; nothing where it is not installed."""
    try:
        import xlstm
    except ImportError:
        return {}
    bodies = {}
    for name, at in {"xlstm: sLSTM x 2": [0, 1], "xlstm: mLSTM x 2": []}.items():
        recurrent = xlstm.sLSTMLayerConfig(backend="vanilla", num_heads=HEADS, conv1d_kernel_size=4)
        forward = xlstm.FeedForwardConfig(proj_factor=4 / 3, act_fn="gelu")
        matrix = xlstm.mLSTMLayerConfig(conv1d_kernel_size=4, qkv_proj_blocksize=4, num_heads=HEADS)
        config = xlstm.xLSTMBlockStackConfig(
            mlstm_block=xlstm.mLSTMBlockConfig(mlstm=matrix),
            slstm_block=xlstm.sLSTMBlockConfig(slstm=recurrent, feedforward=forward),
            context_length=steps,
            num_blocks=2,
            embedding_dim=width,
            slstm_at=at,
        )
        bodies[name] = xlstm.xLSTMBlockStack(config)
    return bodies


def _mixers(batch: int, steps: int, width: int) -> dict[str, Candidate]:
    """Our sLSTM layer as it stands in a block, and that of the `xlstm` package where it is installed."""
    x = torch.randn(batch, steps, width, requires_grad=True)
    mixer = SLSTMMixer(width, HEADS, 4)

    def ours() -> None:
        y, _ = mixer(x, mixer.initial_state(batch))
        torch.autograd.grad(y, (x, *mixer.parameters()), torch.ones_like(y))

    candidates = {"ours": Candidate(ours, 3 * batch * steps * _work(mixer, steps))}
    try:
        import xlstm
    except ImportError:
        return candidates
    config = xlstm.sLSTMLayerConfig(backend="vanilla", num_heads=HEADS, conv1d_kernel_size=4, embedding_dim=width)
    return candidates | {"xlstm": _both_ways(xlstm.sLSTMLayer(config), x)}


def _training(body: nn.Module, width: int, x: Tensor, target: Tensor) -> Candidate:
    embed, head = nn.Linear(CHANNELS, width), nn.Linear(width, target.shape[1])
    parameters = [*embed.parameters(), *body.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        y = body(embed(x))
        y = y[0] if isinstance(y, tuple) else y
        (head(y[:, -1]) - target).abs().mean().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()

    steps = x.shape[1]
    return Candidate(run, 3 * len(x) * (steps * (_work(embed, steps) + _work(body, steps)) + _work(head, 1)))


def _measure(candidates: dict[str, Candidate], repeats: int) -> dict[str, Measured]:
    times = _medians({name: candidate.run for name, candidate in candidates.items()}, repeats)
    peak = _peak(torch.get_num_threads())
    return {
        name: Measured(times[name], f"{work / times[name] / peak:.0%}", _peak_memory(run))
        for name, (run, work) in candidates.items()
    }


def _medians(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run candidates in turns; return seconds by name. Slow ones leave once they have had two turns.

    A candidate runs twice in its turn, and the second counts: in training, too, it finds its own data in the caches
    and not that of another. Those for which that makes no difference, because they are slow, run once.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            if len(times[name]) > 1 and sum(times[name]) > PATIENCE:
                continue
            if not times[name] or times[name][-1] < SLOW:
                run()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


@cache
def _peak(threads: int) -> float:
    """Return the best FLOP per second of products of matrices, torch's or ours, on the threads that are set."""
    n = 1024
    x, y = torch.randn(n, n), torch.randn(n, n)
    with torch.no_grad():
        candidates: dict[str, Callable[[], object]] = {
            "torch": lambda: torch.mm(x, y),
            "ours": lambda: project((x, y, None)),
        }
        return 2 * n**3 / min(_medians(candidates, 9).values())


def _work(body: nn.Module, steps: int) -> float:
    """Return the operations of the products of a forward, per row and step: what must be computed, in any form.

    Two per weight, and what attention (of which half is masked) and the memories of mLSTM do beside.
    """
    weights = sum(p.numel() for name, p in body.named_parameters() if p.dim() > 1 and "bias" not in name)
    work = 2.0 * weights
    for module in body.modules():
        if isinstance(module, MatrixMemory):
            work += _memory_work(module, steps)
        elif isinstance(module, nn.MultiheadAttention):
            work += 2 * steps * module.embed_dim
        elif type(module).__name__ == "mLSTMCell":  # of the package xlstm: all pairs of steps
            config: Any = module.config
            work += 2 * steps * config.embedding_dim
    return work


def _memory_work(memory: MatrixMemory, steps: int = 2) -> float:
    """Two products inside a chunk, half of them empty, and two with the memory."""
    head = memory.width
    chunk = default_chunk(head, head) if steps > 1 else 0
    return memory.num_heads * head * (2 * chunk + 4 * head)


def _peak_memory(run: Callable[[], object]) -> str:
    """Return the megabytes that a run adds to the process at most; a dash where the system does not tell."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def kilobytes(field: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))

    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        reset.write_text("5")
        before = kilobytes("VmRSS")
        run()
        return f"{(kilobytes('VmHWM') - before) / 1024:.0f}"
    except (OSError, AttributeError, StopIteration):
        return "-"


def _text(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _header(say: Say, names: list[str]) -> None:
    _row(say, names)
    say("|---" * len(names) + "|")


def _row(say: Say, cells: list[str]) -> None:
    say("| " + " | ".join(cells) + " |")


def _tell_ratios(say: Say, rows: dict[str, dict[str, Measured]]) -> None:
    first, *others = next(iter(rows.values()))
    _header(say, ["B, T, D", f"{first}, ms", *others])
    for label, row in rows.items():
        base = row[first].seconds
        _row(say, [label, f"{base * 1e3:.1f}", *(f"{row[name].seconds / base:.2f}" for name in others)])


def _tell_rest(say: Say, what: str, rows: dict[str, dict[str, Measured]]) -> None:
    """Tell shares of the peak and memory, one table each."""
    names = next(iter(rows.values()), {})
    peak = _peak(torch.get_num_threads()) / 1e9
    say(f"\nShare of the peak of products of matrices, {peak:.0f} GFLOP/s here:\n")
    _header(say, [what, *names])
    for label, row in rows.items():
        _row(say, [label, *(measured.share for measured in row.values())])
    say("\nPeak memory, MB added to the process by one run:\n")
    _header(say, [what, *names])
    for label, row in rows.items():
        _row(say, [label, *(measured.memory for measured in row.values())])
