"""Residual blocks around the cells, and the stack that a layout string describes.

`s` and `l` blocks mix over time and then within a step: x + mixer(norm(x)), x + feed_forward(norm(x)) (the
post-up-projection block of Beck et al. 2024, figure 10, and the same with a classic LSTM). `m` blocks widen,
mix, gate and narrow again (the pre-up-projection block, figure 11). A block's state is that of its cell and the
tail of its causal convolution.

Dimensions: B batch, T steps, D width.
"""

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xlstm_ts.checks import is_whole
from xlstm_ts.errors import ParameterError
from xlstm_ts.kernels.parts import feed_forward, norm_gate, project
from xlstm_ts.nn.layers import SLSTM, CausalConv, Dropout, LSTMState, MatrixMemory
from xlstm_ts.nn.norms import HeadNorm

FEED_FORWARD_FACTOR = 4 / 3  # of the gated feed-forward, as in the paper
UP_FACTOR = 2  # of the mLSTM block, as in the paper


class BlockState(NamedTuple):
    """The state of a block: of its cell, and the last inputs of its convolution (None if it has none)."""

    cell: Any
    conv: Tensor | None


class SLSTMMixer(nn.Module):
    """Causal convolution into the input and forget gates, sLSTM, head-wise norm."""

    def __init__(self, width: int, num_heads: int, conv_width: int):
        super().__init__()
        self.conv = CausalConv(width, conv_width) if conv_width else None
        self.cell = SLSTM(width, width, num_heads, projection="headwise")
        self.norm = HeadNorm(num_heads, self.cell.width)

    def initial_state(self, batch: int) -> BlockState:
        """Return the state before the first step."""
        tail = self.conv.initial_state(batch) if self.conv is not None else None
        return BlockState(self.cell.initial_state(batch), tail)

    def forward(self, x: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Mix over time."""
        gate_input, tail = self.conv(x, state.conv) if self.conv is not None else (x, None)
        heads, cell = self.cell.heads(x, state.cell, gate_input=gate_input)
        return self.norm(heads), BlockState(cell, tail)


class LSTMMixer(nn.Module):
    """A classic LSTM, for comparison block by block."""

    def __init__(self, width: int, num_heads: int, conv_width: int):
        super().__init__()
        self.cell = nn.LSTM(width, width, batch_first=True)

    def initial_state(self, batch: int) -> BlockState:
        """Return the state before the first step."""
        zero = next(self.cell.parameters()).new_zeros(1, batch, self.cell.hidden_size)
        return BlockState(LSTMState(zero, zero), None)

    def forward(self, x: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Mix over time."""
        y, cell = self.cell(x, tuple(state.cell))
        return y, BlockState(LSTMState(*cell), None)


class FeedForward(nn.Module):
    """Norm and gated feed-forward: GELU of one half of a widened step times the other half."""

    def __init__(self, width: int):
        super().__init__()
        inner = 8 * -(-int(width * FEED_FORWARD_FACTOR) // 8)
        self.up = nn.Linear(width, 2 * inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Map each step, normalised, by itself."""
        return feed_forward(x, *((part.weight, part.bias) for part in (norm, self.up, self.down)))


class PostUpBlock(nn.Module):
    """x + mixer(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, mixer: SLSTMMixer | LSTMMixer, width: int, dropout: float):
        super().__init__()
        self.mixer = mixer
        self.mixer_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def initial_state(self, batch: int) -> BlockState:
        """Return the state before the first step."""
        return self.mixer.initial_state(batch)

    def forward(self, x: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Run the block."""
        mixed, state = self.mixer(self.mixer_norm(x), state)
        return self._feed(x, mixed), state

    def last(self, x: Tensor) -> Tensor:
        """Return the output of the last step after the empty history; see `BlockStack.last`."""
        mixed, _ = self.mixer(self.mixer_norm(x), self.initial_state(x.shape[0]))
        return self._feed(x[:, -1:], mixed[:, -1:])

    def _feed(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(x, self.feed_forward_norm))


class MLSTMBlock(nn.Module):
    """Widen; convolve into queries and keys; matrix memory; add the convolved input; gate; narrow."""

    def __init__(self, width: int, num_heads: int, conv_width: int, dropout: float):
        super().__init__()
        inner = UP_FACTOR * width
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * inner)
        self.conv = CausalConv(inner, conv_width) if conv_width else None
        self.memory = MatrixMemory(inner, inner, num_heads, projection="headwise")
        self.memory_norm = HeadNorm(num_heads, self.memory.width)
        self.residual_weight = nn.Parameter(torch.empty(inner))
        self.down = nn.Linear(inner, width)
        self.dropout = Dropout(dropout)

    def initial_state(self, batch: int) -> BlockState:
        """Return the state before the first step."""
        tail = self.conv.initial_state(batch) if self.conv is not None else None
        return BlockState(self.memory.initial_state(batch), tail)

    def forward(self, x: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Run the block."""
        normed = self.norm(x)
        weights, biases = self.up.weight.chunk(2), self.up.bias.chunk(2)
        value, gate = project(*((normed, weight, bias) for weight, bias in zip(weights, biases, strict=True)))
        key_input, tail = self.conv(value, state.conv) if self.conv is not None else (value, None)
        read, cell = self.memory(value, key_input, state.cell)
        return self._narrow(x, read, key_input, gate), BlockState(cell, tail)

    def last(self, x: Tensor) -> Tensor:
        """Return the output of the last step after the empty history; see `BlockStack.last`."""
        normed = self.norm(x)
        weights, biases = self.up.weight.chunk(2), self.up.bias.chunk(2)
        (value,) = project((normed, weights[0], biases[0]))
        (gate,) = project((normed[:, -1:], weights[1], biases[1]))
        key_input = value if self.conv is None else self.conv(value, self.conv.initial_state(x.shape[0]))[0]
        return self._narrow(x[:, -1:], self.memory.last(value, key_input), key_input[:, -1:], gate)

    def _narrow(self, x: Tensor, read: Tensor, key_input: Tensor, gate: Tensor) -> Tensor:
        mixed = norm_gate(read, self.memory_norm.norm_weight, key_input, self.residual_weight, gate)
        (narrow,) = project((mixed, self.down.weight, self.down.bias))
        return x + self.dropout(narrow)


class BlockStack(nn.Module):
    """The blocks of a layout one after the other, and a norm: (B, T, D) to (B, T, D).

    Parameters
    ----------
    layout : str
        Block letters, or a ratio; see `parse_layout`.
    num_blocks : int, optional
        Length of the stack; see `parse_layout`.
    width, num_heads, conv_width : int
        Of every block. A `conv_width` of 0 leaves the convolutions out.
    dropout : float
        Rate on every residual branch.
    """

    def __init__(
        self, layout: str, num_blocks: int | None, *, width: int, num_heads: int, conv_width: int, dropout: float
    ):
        super().__init__()
        letters = parse_layout(layout, num_blocks)
        self.blocks = nn.ModuleList(_make_block(kind, width, num_heads, conv_width, dropout) for kind in letters)
        self.norm = nn.LayerNorm(width)

    def initial_state(self, batch: int) -> tuple[BlockState, ...]:
        """Return the state before the first step, one entry per block."""
        blocks: Any = self.blocks
        return tuple(block.initial_state(batch) for block in blocks)

    def forward(self, x: Tensor, state: tuple[BlockState, ...] | None = None) -> tuple[Tensor, tuple[BlockState, ...]]:
        """Run the stack; no state means the empty history."""
        state = self.initial_state(x.shape[0]) if state is None else state
        after = []
        for block, before in zip(self.blocks, state, strict=True):
            x, last = block(x, before)
            after.append(last)
        return self.norm(x), tuple(after)

    def last(self, x: Tensor) -> Tensor:
        """Return the output of the last step after the empty history, (B, 1, D), without the state.

        Equal to the end of `forward`. Nothing reads the last block's other steps, so they are left out where they can
        be: all but the recurrence of an sLSTM, and of an mLSTM all that makes up its keys, values and gate.
        """
        blocks: Any = self.blocks
        for block in blocks[:-1]:
            x, _ = block(x, block.initial_state(x.shape[0]))
        return self.norm(blocks[-1].last(x))


def parse_layout(layout: str, num_blocks: int | None = None) -> str:
    """Spell out a layout as one letter per block.

    Parameters
    ----------
    layout : str
        Letters `s` (sLSTM), `m` (mLSTM) and `l` (classic LSTM), one per block, or a ratio such as "7:1", the
        paper's xLSTM[7:1]: seven mLSTM blocks to one sLSTM block, in periods whose second block is the sLSTM.
    num_blocks : int, optional
        Number of blocks. The letters, or the period of a ratio, are repeated up to this number. Default: once.

    Returns
    -------
    str
        The blocks from the input to the output.

    Raises
    ------
    ParameterError
        The layout is neither letters nor a ratio, or the number is not positive.

    Examples
    --------
    >>> parse_layout("msm")
    'msm'
    >>> parse_layout("7:1")
    'msmmmmmm'
    >>> parse_layout("sm", num_blocks=5)
    'smsms'
    """
    period = str(layout) if isinstance(layout, str) else ""
    if ratio := re.fullmatch(r"(\d+):(\d+)", period):
        period = "m" * int(ratio[1])
        period = period[:1] + "s" * int(ratio[2]) + period[1:]
    if not re.fullmatch("[sml]+", period):
        raise ParameterError(
            f"layout={layout!r} is not a layout. Give letters s, m and l, such as 'msm', or a ratio of mLSTM to "
            "sLSTM blocks, such as '7:1'."
        )
    if num_blocks is None:
        return period
    if not is_whole(num_blocks):
        raise ParameterError(f"num_blocks={num_blocks}; expected a positive number, or None for the layout's own.")
    return (period * -(-num_blocks // len(period)))[:num_blocks]


def _make_block(kind: str, width: int, num_heads: int, conv_width: int, dropout: float) -> nn.Module:
    if kind == "m":
        return MLSTMBlock(width, num_heads, conv_width, dropout)
    mixer = SLSTMMixer if kind == "s" else LSTMMixer
    return PostUpBlock(mixer(width, num_heads, conv_width), width, dropout)
