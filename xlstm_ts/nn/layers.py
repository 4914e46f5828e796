"""Layers over time that are called like ``torch.nn.LSTM(batch_first=True)``, and the small parts of blocks.

A layer takes (B, T, D) and a state and returns (B, T, D) and the state after the last step; no state means the
empty history. All-zero tensors are not the empty history: ask `initial_state`.

Dimensions: B batch, T steps, D width, H heads, K head width.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xlstm_ts.checks import is_whole
from xlstm_ts.errors import ParameterError, ShapeError
from xlstm_ts.kernels import MLSTMState, SLSTMState, mlstm
from xlstm_ts.kernels.arguments import check_kind, is_autocasting
from xlstm_ts.kernels.layers import slstm_layer
from xlstm_ts.kernels.parts import causal_conv, project, read_last
from xlstm_ts.nn.init import initialise


class LSTMState(NamedTuple):
    """State of a classic LSTM: h and c of shape (1, B, D), as torch has them."""

    h: Tensor
    c: Tensor


class SLSTM(nn.Module):
    """sLSTM layer: input projections, biases and the cell of section 2.2 of Beck et al. 2024.

    Parameters
    ----------
    input_size, hidden_size : int
        Width of the input and of the output, both split over the heads.
    num_heads : int
        Heads; recurrence mixes the units of one head only.
    projection : {"dense", "headwise"}
        Whether a gate reads the whole input or only its head's part, as in the paper's block.
    forget_gate : {"sigmoid", "exp"}
        Activation of the forget gate.
    backend : str
        Implementation of the cell; see `xlstm_ts.kernels.slstm`.

    Raises
    ------
    ParameterError
        A width is not divisible by `num_heads`, or `projection` is unknown.

    Examples
    --------
    >>> import torch
    >>> from xlstm_ts.nn import SLSTM
    >>> layer = SLSTM(3, 8, num_heads=2)
    >>> out, state = layer(torch.zeros(5, 10, 3))
    >>> out.shape
    torch.Size([5, 10, 8])
    >>> out, state = layer(torch.zeros(5, 1, 3), state)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_heads: int = 4,
        *,
        projection: str = "dense",
        forget_gate: str = "sigmoid",
        backend: str = "auto",
    ):
        super().__init__()
        width = head_width("SLSTM", hidden_size, num_heads)
        self.num_heads, self.width, self.input_size = num_heads, width, input_size
        self.forget_gate, self.backend = forget_gate, backend
        # i and f may read another input than z and o do: in the block, what the convolution made of it.
        self.project_if = make_projection("SLSTM", projection, input_size, 2 * hidden_size, num_heads)
        self.project_zo = make_projection("SLSTM", projection, input_size, 2 * hidden_size, num_heads)
        self.gate_bias = nn.Parameter(torch.empty(4, num_heads, width))
        self.recurrent_weights = nn.Parameter(torch.empty(4, num_heads, width, width))
        if not self.gate_bias.is_meta:
            initialise(self)

    def initial_state(self, batch: int) -> SLSTMState:
        """Return the state before the first step."""
        weight = self.gate_bias
        return SLSTMState.empty(batch, self.num_heads, self.width, dtype=weight.dtype, device=weight.device)

    def forward(
        self, x: Tensor, state: SLSTMState | None = None, *, gate_input: Tensor | None = None
    ) -> tuple[Tensor, SLSTMState]:
        """Run the layer; the input and forget gates read `gate_input` instead of `x` when it is given."""
        heads, state = self.heads(x, state, gate_input=gate_input)
        return heads.flatten(-2), state

    def heads(
        self, x: Tensor, state: SLSTMState | None = None, *, gate_input: Tensor | None = None
    ) -> tuple[Tensor, SLSTMState]:
        """Run the layer and return its output as (B, T, H, K)."""
        check_input("SLSTM", x, self.input_size, self.gate_bias)
        return slstm_layer(
            x if gate_input is None else gate_input,
            x,
            weight_of(self.project_if),
            weight_of(self.project_zo),
            self.gate_bias,
            self.recurrent_weights,
            state,
            forget_gate=self.forget_gate,
            backend=self.backend,
        )


class MatrixMemory(nn.Module):
    """The mLSTM cell with its projections, before any output gate.

    Queries, keys and gates may read another input than the values do: in the block, what the convolution made of it.
    Parameters as in `MLSTM`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_heads: int,
        *,
        projection: str = "dense",
        forget_gate: str = "sigmoid",
        backend: str = "auto",
    ):
        super().__init__()
        width = head_width("MLSTM", hidden_size, num_heads)
        self.num_heads, self.width, self.input_size = num_heads, width, input_size
        self.forget_gate, self.backend = forget_gate, backend
        self.project_q, self.project_k, self.project_v = (
            make_projection("MLSTM", projection, input_size, hidden_size, num_heads) for _ in range(3)
        )
        self.memory_gate_weight = nn.Parameter(torch.empty(2 * num_heads, input_size))
        self.memory_gate_bias = nn.Parameter(torch.empty(2, num_heads))
        if not self.memory_gate_bias.is_meta:
            initialise(self)

    def initial_state(self, batch: int) -> MLSTMState:
        """Return the state before the first step."""
        weight = self.memory_gate_weight
        return MLSTMState.empty(batch, self.num_heads, self.width, self.width, dtype=weight.dtype, device=weight.device)

    def forward(self, x: Tensor, key_input: Tensor, state: MLSTMState | None = None) -> tuple[Tensor, MLSTMState]:
        """Return what the queries read, (B, T, H, K), and the state after the last step."""
        check_input("MLSTM", x, self.input_size, self.memory_gate_bias)
        q, k, v, gates = project(
            (key_input, weight_of(self.project_q), None),
            (key_input, weight_of(self.project_k), None),
            (x, weight_of(self.project_v), None),
            (key_input, self.memory_gate_weight, self.memory_gate_bias.flatten()),
        )
        heads = (*x.shape[:2], self.num_heads, self.width)
        q, k, v = (tensor.reshape(heads) for tensor in (q, k, v))
        i, f = gates.chunk(2, dim=-1)  # [B, T, H]
        return mlstm(q, k, v, i, f, state, forget_gate=self.forget_gate, backend=self.backend)

    def last(self, x: Tensor, key_input: Tensor) -> Tensor:
        """Return what the query of the last step reads after the empty history, (B, 1, H, K), without the state.

        A query meets a key as it meets the key's input, q . (W x) = (W^T q) . x, and what it reads is linear in the
        values. So neither keys nor values of each step are needed. Head-wise projections only.
        """
        check_input("MLSTM", x, self.input_size, self.memory_gate_bias)
        weights = (weight_of(part) for part in (self.project_q, self.project_k, self.project_v))
        weight_q, weight_k, weight_v = weights  # [H, D / H, K]
        inputs, keys = (part.unflatten(-1, (self.num_heads, -1)) for part in (x, key_input))  # [B, T, H, D / H]
        q = torch.einsum("bhi,hik->bhk", keys[:, -1], weight_q) / math.sqrt(self.width)
        (gates,) = project((key_input, self.memory_gate_weight, self.memory_gate_bias.flatten()))
        read = read_last(torch.einsum("bhk,hik->bhi", q, weight_k), keys, inputs, gates, self.forget_gate)
        return torch.einsum("bhi,hik->bhk", read, weight_v)[:, None]


class MLSTM(nn.Module):
    """mLSTM layer: projections, the cell and the output gate of section 2.3 of Beck et al. 2024.

    Parameters
    ----------
    input_size, hidden_size : int
        Width of the input and of the output.
    num_heads : int
        Heads, each with a memory matrix of its own.
    projection : {"dense", "headwise"}
        Whether queries, keys and values read the whole input or only their head's part.
    forget_gate : {"sigmoid", "exp"}
        Activation of the forget gate.
    backend : str
        Implementation of the cell; see `xlstm_ts.kernels.mlstm`.

    Raises
    ------
    ParameterError
        A width is not divisible by `num_heads`, or `projection` is unknown.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_heads: int = 4,
        *,
        projection: str = "dense",
        forget_gate: str = "sigmoid",
        backend: str = "auto",
    ):
        super().__init__()
        options = {"projection": projection, "forget_gate": forget_gate, "backend": backend}
        self.memory = MatrixMemory(input_size, hidden_size, num_heads, **options)
        self.output_gate = nn.Linear(input_size, hidden_size)
        if not self.output_gate.weight.is_meta:
            initialise(self)

    def initial_state(self, batch: int) -> MLSTMState:
        """Return the state before the first step."""
        return self.memory.initial_state(batch)

    def forward(self, x: Tensor, state: MLSTMState | None = None) -> tuple[Tensor, MLSTMState]:
        """Run the layer."""
        read, state = self.memory(x, x, state)
        (gate,) = project((x, self.output_gate.weight, self.output_gate.bias))
        return torch.sigmoid(gate) * read.flatten(-2), state


class HeadwiseLinear(nn.Module):
    """Linear map without bias in which each head reads its own part of the input: a block-diagonal matrix."""

    def __init__(self, input_size: int, output_size: int, num_heads: int):
        super().__init__()
        shape = (num_heads, input_size // num_heads, output_size // num_heads)
        self.headwise_weight = nn.Parameter(torch.empty(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, input_size) to (B, T, output_size)."""
        return project((x, self.headwise_weight, None))[0].flatten(-2)


class CausalConv(nn.Module):
    """Depthwise convolution over the present and the `size` - 1 steps before it, followed by SiLU.

    Its state is the tail of its input: the last `size` - 1 steps, zeros before the first.
    """

    def __init__(self, width: int, size: int):
        super().__init__()
        self.conv_weight = nn.Parameter(torch.empty(width, size))
        self.bias = nn.Parameter(torch.empty(width))

    def initial_state(self, batch: int) -> Tensor:
        """Return the tail before the first step."""
        width, size = self.conv_weight.shape
        return self.conv_weight.new_zeros(batch, size - 1, width)

    def forward(self, x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """Return the convolved steps and the new tail."""
        before = self.conv_weight.shape[1] - 1
        recent = torch.cat([tail, x[:, max(0, x.shape[1] - before) :]], dim=1)
        return causal_conv(x, tail, self.conv_weight, self.bias), recent[:, recent.shape[1] - before :]


class Dropout(nn.Module):
    """Dropout that draws from the generator that training hands it, so that no global seed is read."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Zero a share of the values while training, and scale the rest up."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.empty_like(x).bernoulli_(1 - self.rate, generator=self.generator)
        return x * kept.div_(1 - self.rate)


def set_dropout_generator(module: nn.Module, generator: torch.Generator | None) -> None:
    """Hand every dropout of a module the generator to draw from."""
    for part in module.modules():
        if isinstance(part, Dropout):
            part.generator = generator


def make_projection(layer: str, projection: str, input_size: int, output_size: int, num_heads: int) -> nn.Module:
    """Return a bias-free input projection, dense or head-wise."""
    if projection == "dense":
        return nn.Linear(input_size, output_size, bias=False)
    if projection != "headwise":
        raise ParameterError(f'{layer}: projection={projection!r} is unknown; expected "dense" or "headwise".')
    head_width(layer, input_size, num_heads)
    return HeadwiseLinear(input_size, output_size, num_heads)


def weight_of(projection: nn.Module) -> Tensor:
    """Return the weight of a projection that `make_projection` made: (out, in), or (H, in / H, out / H)."""
    weight = projection.headwise_weight if isinstance(projection, HeadwiseLinear) else projection.weight
    assert isinstance(weight, Tensor)
    return weight


def head_width(layer: str, size: int, num_heads: int) -> int:
    """Return the width of one head."""
    if not (is_whole(num_heads) and is_whole(size)) or size % num_heads:
        raise ParameterError(
            f"{layer}: a width of {size} cannot be split over num_heads={num_heads}. Give positive whole numbers, the "
            "first divisible by the second."
        )
    return size // num_heads


def check_input(layer: str, x: Tensor, input_size: int, weight: Tensor) -> None:
    """Raise unless x is (B, T, input_size), and of the dtype and on the device of a weight."""
    if x.dim() != 3 or x.shape[-1] != input_size:
        raise ShapeError(f"{layer}: input has shape {tuple(x.shape)}; expected (batch, steps, {input_size}).")
    check_kind(f"{layer}: input", x, "the weights", weight, casting=is_autocasting(x))
